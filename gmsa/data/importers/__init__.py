"""Importers: each reads one kind of source, such as MMSA's pickles, as rows for a feature store.

An importer is a function ``(path, target, splits) -> Source``, registered under the name of its format:

.. code-block:: python

    from gmsa.data import Row, Utterance
    from gmsa.data.importers import Source
    from gmsa.registry import IMPORTERS

    @IMPORTERS.register("mine")
    def import_mine(path: Path, target: TargetConfig, splits: Splits | None) -> Source:
        rows = [Row("train", Utterance("video$_$1", {"text": torch.zeros(12, 300)}, label=0.5)), ...]
        return Source(rows, len(rows), {"text": "float32"}, {"importer": "mine", "files": []})

``gmsa data import PATH --format mine`` then calls it with

- ``path`` (:class:`~pathlib.Path`): an existing file or folder;
- ``target`` (:class:`~gmsa.config.TargetConfig`): the group ``target`` of a config: what the labels are, and the field
  that holds them, if the user names one;
- ``splits`` (:class:`Splits` or None): the user's assignment of utterances to splits. Where it is given, an importer
  asks ``splits.of(utterance_id, where)`` for the split of each utterance, whatever the source says.

:class:`Source` says what an importer returns. An importer raises :class:`~gmsa.errors.DataError` for a source that it
cannot read. :func:`~gmsa.data.write_store` checks ids, dimensions, labels and values, so an importer need not. What
an importer reads may be a stranger's: it reads plain files of limited size, and runs nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from gmsa.config import AUTO, DataConfig, TargetConfig
from gmsa.data.importers import csd
from gmsa.data.importers.datasets import is_saved
from gmsa.data.importers.features import with_features
from gmsa.data.importers.kinds import describe_file, kind_of, refuse_foreign
from gmsa.data.importers.mds import is_mds
from gmsa.data.importers.mmsa import import_mmsa, read_content
from gmsa.data.importers.rows import Source
from gmsa.data.importers.stores import import_store
from gmsa.data.importers.tables import Splits
from gmsa.data.notes import note
from gmsa.data.store.store import is_store
from gmsa.errors import DataError, listed, short
from gmsa.registry import IMPORTERS
from gmsa.system.files import check_name
from gmsa.system.reading import entries, exists, is_folder

__all__ = ["Source", "Splits", "describe_file", "form_of", "open_source", "read_content", "with_features"]

_READS_FOLDERS = {"mmsa": False, "semi_iin": True, "manifest": False, "csd": True, "mds": True}
_FORMS = {"table": "manifest", "json": "manifest", "parquet": "datasets"}
_ONE_COLUMN = ("manifest", "semi_iin", "datasets", "mds")
"""Importers whose fields of labels hold one label per utterance."""
_SUFFIXES = dict.fromkeys((".csv", ".tsv", ".json", ".jsonl"), "manifest")
"""What a name says of files of other content, such as empty ones."""


def open_source(
    path: Path,
    form: str = "auto",
    target: TargetConfig | str | None = None,
    splits: Path | None = None,
    data: DataConfig | None = None,
    features: Mapping[str, Path] | None = None,
    words: str | None = None,
) -> Source:
    """Opens a source with the importer of its format; the importer checks what it can before features are read.

    Args:
        path: file or folder to import.
        form: name of an importer in :data:`gmsa.registry.IMPORTERS`, or ``auto``: told by :func:`form_of`.
        target: the group ``target`` of a config, or the name of a preset (default: that of a store, else ``mosi``).
        splits: CSV that assigns each ``id`` or ``video`` to a split and overrides the splits of the source.
        data: the group ``data``: ``modalities``, and of a pickle ``nan``, ``video_from`` and ``speaker_from`` (default:
            all modalities).
        features: files of the features of single modalities, which replace those of a pickle.
        words: as :func:`gmsa.data.sources.read_any` takes it; then no utterance needs features.

    Raises:
        ConfigError: no importer is registered under ``form``.
        DataError: the source is missing, unsafe or invalid.
    """
    if not exists(path, DataError):
        raise DataError(f"'{short(path)}' does not exist; check the path")
    for named in (path, splits):
        if named is not None:
            check_name(named, DataError)
    folder = is_folder(path, DataError)
    stored = form == "auto" and folder and is_store(path)
    if form == "auto" and not stored:
        form = form_of(path, folder)
    if not stored:
        IMPORTERS.check(form, "--format")
    if folder != _READS_FOLDERS.get(form, folder):
        kind = "is a folder" if folder else "is a file"
        raise DataError(
            f"'{short(path)}' {kind}, which --format {form} does not read; choose another, or omit --format"
        )
    target = TargetConfig(preset=cast(Any, target)) if isinstance(target, str) else target
    settings = TargetConfig() if target is None else target
    data = DataConfig(modalities=AUTO) if data is None else data
    if settings.column is not None and form in _ONE_COLUMN:
        note(f"{short(path)}: target.column has no effect: a cell holds one label; target.field names another column")
    assigned = None if splits is None else Splits.from_csv(splits)
    if form == "mmsa":
        return import_mmsa(path, settings, assigned, data, features)
    if features or (data.nan, data.video_from, data.speaker_from) != ("error", AUTO, AUTO):
        what = "features of other files" if features else "data.nan, data.video_from and data.speaker_from"
        raise DataError(f"'{short(path)}': {what} go with a pickle only; leave them out here")
    found = import_store(path, target, assigned) if stored else IMPORTERS[form](path, settings, assigned)
    if not isinstance(found, Source):
        raise DataError(f"the importer '{form}' returned a {type(found).__name__}; it must return a Source")
    if found.lacks and words is None:
        raise DataError(found.lacks)
    if data.modalities != AUTO:
        lacking = [m for m in data.modalities if m not in found.dtypes]
        if len(lacking) == len(data.modalities):
            raise DataError(f"{short(path)}: has none of the modalities {listed(lacking)}, only {listed(found.dtypes)}")
        if lacking:
            note(f"{short(path)}: has no {' and no '.join(lacking)}: missing from all utterances")
        found.dtypes = {m: found.dtypes[m] for m in data.modalities if m in found.dtypes}
    return found


def form_of(path: Path, folder: bool | None = None) -> str:
    """Returns the importer of a source by its content: what a folder holds, and the first bytes of a file.

    A folder of ``.csd`` files is the CMU SDK's, one that ``save_to_disk`` or ``to_parquet`` wrote a data set of Hugging
    Face's, one of shards MosaicML Streaming's, and any other Semi-IIN's. Of files, tables and JSON are manifests and
    Parquet is a data set; any other file is a pickle in the layout of MMSA or its kin.

    Raises:
        DataError: the source is known to be something else, which the error says how to use.
    """
    if is_folder(path, DataError) if folder is None else folder:
        if any(file.suffix == csd.ENDING for file in entries(path, DataError)):
            return "csd"
        return "datasets" if is_saved(path) else "mds" if is_mds(path) else "semi_iin"
    kind = kind_of(path)
    if kind is not None and kind.name == "hdf5" and path.suffix == csd.ENDING:
        raise DataError(f"{short(path)}: is one computational sequence; name the folder that holds it and its labels")
    if kind is not None and kind.name not in _FORMS:
        refuse_foreign(path, short(path))
    named = _SUFFIXES.get(path.suffix.lower(), "mmsa")
    return named if kind is None else _FORMS.get(kind.name, named)
