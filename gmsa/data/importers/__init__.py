"""Importers: each reads one kind of source, such as MMSA's pickles, as rows for a feature store.

An importer is a function ``(path, labels, splits) -> Source``, registered under the name of its format:

.. code-block:: python

    from gmsa.data import Row, Utterance
    from gmsa.data.importers import Source
    from gmsa.registry import IMPORTERS

    @IMPORTERS.register("mine")
    def import_mine(path: Path, labels: str, splits: Splits | None) -> Source:
        rows = [Row("train", Utterance("video$_$1", {"text": torch.zeros(12, 300)}, label=0.5)), ...]
        return Source(rows, len(rows), {"text": "float32"}, {"importer": "mine", "files": []})

``gmsa data import PATH --format mine`` then calls it with

- ``path`` (:class:`~pathlib.Path`): an existing file or folder;
- ``labels`` (str): the label scale, ``mosi`` for [-3, 3] or ``sims`` for [-1, 1];
- ``splits`` (:class:`Splits` or None): the user's assignment of utterances to splits. Where it is given, an importer
  asks ``splits.of(utterance_id, where)`` for the split of each utterance, whatever the source says.

:class:`Source` says what an importer returns. An importer raises :class:`~gmsa.errors.DataError` for a source that it
cannot read. :func:`~gmsa.data.write_store` checks ids, dimensions, labels and values, so an importer need not. What
an importer reads may be a stranger's: it reads plain files of limited size, and runs nothing of them.
"""

from __future__ import annotations

from pathlib import Path

from gmsa.data.importers.rows import Source
from gmsa.data.importers.tables import Splits
from gmsa.errors import DataError, short
from gmsa.registry import IMPORTERS
from gmsa.system.files import check_name
from gmsa.system.reading import exists, is_folder

__all__ = ["Source", "Splits", "open_source"]

_READS_FOLDERS = {"mmsa": False, "semi_iin": True, "manifest": False}


def open_source(path: Path, form: str = "auto", labels: str = "mosi", splits: Path | None = None) -> Source:
    """Opens a source with the importer of its format; the importer checks what it can before features are read.

    Args:
        path: file or folder to import.
        form: name of an importer in :data:`gmsa.registry.IMPORTERS`, or ``auto``: a folder is read as Semi-IIN's, a
            ``.csv`` as a manifest, any other file as MMSA's pickle.
        labels: label scale, ``mosi`` or ``sims``.
        splits: CSV that assigns each ``id`` or ``video`` to a split and overrides the splits of the source.

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
    if form == "auto":
        form = "semi_iin" if folder else "manifest" if path.suffix.lower() == ".csv" else "mmsa"
    IMPORTERS.check(form, "--format")
    if folder != _READS_FOLDERS.get(form, folder):
        kind = "is a folder" if folder else "is a file"
        raise DataError(
            f"'{short(path)}' {kind}, which --format {form} does not read; choose another, or omit --format"
        )
    found = IMPORTERS[form](path, labels, None if splits is None else Splits.from_csv(splits))
    if not isinstance(found, Source):
        raise DataError(f"the importer '{form}' returned a {type(found).__name__}; it must return a Source")
    return found
