"""Reads a file of any format: a feature store, a pickle, or what an importer reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gmsa.config import AUTO, MODALITIES, DataConfig, TargetConfig
from gmsa.config.presets import TEXT
from gmsa.data.dialogues.order import in_file_order
from gmsa.data.importers import form_of, open_source
from gmsa.data.importers.mmsa import read_content
from gmsa.data.importers.stores import tell_unused
from gmsa.data.labels import NoSuchField
from gmsa.data.mmsa.faults import Values, repaired
from gmsa.data.mmsa.file import Labels, read_file
from gmsa.data.mmsa.keys import WORDS, auto_note, unused_features
from gmsa.data.mmsa.split import Split
from gmsa.data.notes import Doubt, note
from gmsa.data.opening import open_data
from gmsa.data.splits import POOL, SPLITS, UNSPLIT, named
from gmsa.data.store.extraction import Extraction
from gmsa.data.store.files import MANIFEST
from gmsa.data.store.rows import Row, read_rows
from gmsa.data.store.store import Store, is_store
from gmsa.data.targets import Target, describe_target
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed, short, shown
from gmsa.system.files import sha256_of
from gmsa.system.reading import exists


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was read of a file, whatever its format."""

    splits: Mapping[str, Sequence[Utterance]]
    dims: Mapping[str, int]
    target: Target
    sha256: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    field: str = AUTO
    """Key of the labels; ``auto`` where it is not known."""
    told: bool = False
    """Whether notes have told of the pool, of unlabeled utterances and of splits that are not used."""
    extraction: Extraction | None = None
    """How its features were extracted from media, where it says so."""


def read_any(
    path: Path,
    data: DataConfig,
    target: TargetConfig,
    labels: Labels,
    strict: bool = True,
    other: bool = False,
    words: str | None = None,
) -> Loaded:
    """Reads a file of any format; splits have gmsa's names.

    Args:
        path: a feature store, or what an importer reads.
        data: the group ``data``: ``modalities``, ``nan``, ``video_from``, ``speaker_from``, and whether folds want all
            splits.
        target: the group ``target``.
        labels: what becomes of labels, as :func:`gmsa.data.mmsa.file.read_file` takes it.
        strict: whether an utterance of a pickle that cannot be read is an error; else it is left out.
        other: whether it is another file than a run was trained on.
        words: as :func:`gmsa.data.mmsa.file.read_file` takes it: a text encoder reads them, and no features of text.

    Raises:
        DataError: the file is missing or invalid, or its labels do not fit ``target``.
    """
    if is_store(path):
        found = _read_store(path, data, target, labels, other, words)
    elif exists(path, DataError) and form_of(path) != "mmsa":
        found = _read_source(path, data, target, labels, other, words)
    else:
        return _read_pickle(path, data, target, labels, strict, other, words)
    splits = _with_names(named(found.splits), data, short(path), not other)
    return replace(found, splits=splits if is_store(path) else in_file_order(splits))


def target_of_store(store: Store, settings: TargetConfig) -> Target | str:
    """The target of a store's labels by the settings, or why they do not fit."""
    held, wanted, where = store.manifest.target, Target.of(settings), short(store.path)
    if held.kind != wanted.kind:
        kind = "classes" if held.is_classes else "intensity"
        return (
            f"{where}: was imported with {describe_target(held)}, but the target is "
            f"{'classes' if wanted.is_classes else describe_target(wanted)}; set target.kind={kind}, or import it again"
        )
    if not held.is_classes and (held.low, held.high) != (wanted.low, wanted.high):
        return (
            f"{where}: was imported with {describe_target(held)}, but the target is {describe_target(wanted)}; set "
            f"target.range=[{held.low:g}, {held.high:g}] (target.preset=sims is [-1, 1]), or import it again"
        )
    if held.is_classes and wanted.classes not in ((), held.classes):
        return (
            f"{where}: was imported with the classes {listed(held.classes)}, but target.classes are "
            f"{listed(wanted.classes)}; leave them and target.preset out, or import it again"
        )
    return replace(wanted, classes=held.classes)


def data_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a data file, or of a feature store's manifest, which has the SHA-256 of each file.

    That of a table or folder with the files that it names is known when they are read: :attr:`Corpus.sha256`.
    """
    path = Path(path) / MANIFEST if is_store(path) else Path(path)
    open_data(path).close()
    return sha256_of(path, DataError)


def _read_store(
    path: Path, data: DataConfig, target: TargetConfig, labels: Labels, other: bool, words: str | None
) -> Loaded:
    store = Store(path)
    if labels == "needed":
        tell_unused(target, short(path))
    dims = _chosen_dims(store.dims, data, short(path), other, words)
    resolved, problem = target_of_store(store, target), None
    if isinstance(resolved, str):
        problem, resolved = resolved, Target.of(target)
    if problem and labels in ("needed", "found"):
        raise DataError(problem)
    if problem and labels == "tried":
        note(Doubt(f"{problem} (its labels are not read)"))
    with_labels = labels != "unread" and not problem
    splits = {name: store.split(name, dims, with_labels) for name in store.manifest.splits}
    return Loaded(splits, dims, resolved, store.sha256, extraction=store.extraction)


def _read_pickle(
    path: Path,
    data: DataConfig,
    target: TargetConfig,
    labels: Labels,
    strict: bool,
    other: bool,
    words: str | None,
) -> Loaded:
    chosen = None if data.split.folds or labels != "needed" else (*SPLITS, POOL)
    content = read_content(path)
    if labels == "tried":
        content = _numbered(content, (*named_modalities(data), *WORDS), short(path))
    found = read_file(content, short(path), data, target, chosen, labels, (*SPLITS, UNSPLIT), strict, other, words)
    return Loaded(
        found.splits, found.dims, found.target, sha256_of(path, DataError), found.left_out, found.field, told=True
    )


def _numbered(content: Any, keys: Sequence[str], where: str) -> Any:
    """The content of a pickle; the utterances of one without splits and without ids get the ids 0, 1, 2, ..."""
    columns = content.get(UNSPLIT) if isinstance(content, Mapping) and len(content) == 1 else None
    if not isinstance(columns, Mapping) or "id" in columns:
        return content
    counts = [len(columns[key]) for key in keys if hasattr(columns.get(key), "__len__")]
    if not counts:
        return content
    note(f"{where}: has no key 'id'; its utterances are called 0 to {max(counts) - 1}, in their order")
    return {UNSPLIT: {"id": [str(i) for i in range(max(counts))], **columns}}


def _read_source(
    path: Path, data: DataConfig, target: TargetConfig, labels: Labels, other: bool, words: str | None
) -> Loaded:
    """Reads what an importer reads into memory.

    A run's field of the labels that another file, or one whose labels are not read, lacks is looked for as without
    ``target.field``, as in a pickle.
    """
    try:
        found = _read_rows(path, data, target, labels != "unread", words)
    except NoSuchField as error:
        if not other and labels != "unread":
            raise
        try:
            found = _read_rows(path, data, replace(target, field=AUTO), labels != "unread", words)
        except DataError:
            raise error from None
        if labels != "unread":
            note(Doubt(f"{str(error)[:330]}; the labels are looked for as without it"))
    except DataError as error:
        if labels != "tried":
            raise
        found = _read_rows(path, data, target, False, words)  # raises again unless the labels are what is wrong
        note(Doubt(f"{str(error)[:330]}: the labels are not read"))
    held, splits, dims, resolved, about = found
    chosen = _chosen_dims({m: dims.get(m, 0) for m in held}, data, short(path), other, words)
    return Loaded(splits, {m: dim for m, dim in chosen.items() if dim}, resolved, _sha256_of_source(about))


def _read_rows(path: Path, data: DataConfig, target: TargetConfig, labeled: bool, words: str | None) -> tuple[Any, ...]:
    """The modalities of a source, its splits, D of those that are read, its target, and its provenance."""
    source = open_source(path, "auto", target, words=words)
    source.nan = data.nan
    rows: Iterable[Row] = source.rows
    if not labeled:
        rows = (row._replace(utterance=replace(row.utterance, label=None, unimodal={}), named="") for row in rows)
    kept = {m: kind for m, kind in source.dtypes.items() if data.modalities == AUTO or m in data.modalities}
    if words is not None:
        kept.pop(TEXT, None)
    elif not kept:
        _chosen_dims(source.dtypes, data, short(path), False)  # raises
    values = Values(short(path), data.nan)
    if data.nan != "error":
        rows = _repaired(rows, list(kept), values)
    splits, dims, resolved = read_rows(rows, kept, target if labeled else TargetConfig(), short(path), words)
    values.tell()
    return source.dtypes, splits, dims, resolved if labeled else Target.of(target), source.about


def _repaired(rows: Iterable[Row], modalities: Sequence[str], values: Values) -> list[Row]:
    """Rows whose features are finite, as ``data.nan`` asks: ``zero`` or ``drop``."""
    given = [(row, {m: x.float() for m, x in row.utterance.features.items() if m in modalities}) for row in rows]
    lengths = [{len(x) for x in features.values() if len(x)} for _, features in given]
    aligned = all(len(found) <= 1 for found in lengths)
    kept = []
    for row, features in given:
        looked = {m: values.look(x, x.numpy(), m, row.utterance.id) for m, x in features.items() if x.numel()}
        wrong = {m: bad for m, bad in looked.items() if bad is not None}
        if wrong:
            fixed = repaired(features, wrong, values.nan, aligned)
            row = row._replace(utterance=replace(row.utterance, features=fixed))
        kept.append(row)
    return kept


def _with_names(
    splits: Mapping[str, Sequence[Utterance]], data: DataConfig, where: str, needed: bool
) -> Mapping[str, Sequence[Utterance]]:
    """The utterances with their video, place and speaker as ``data.video_from`` and ``data.speaker_from`` say."""
    if data.video_from == data.speaker_from == AUTO:
        return splits
    found = {}
    before: dict[str, int] = {}
    for name, utterances in splits.items():
        known = list(utterances)
        columns = {
            "id": [u.id for u in known],
            "video": [u.of_video for u in known],
            "speaker": [u.speaker for u in known],
        }
        split = Split(columns, f"{where}: split {shown(name)}")
        videos, places = split.videos(data.video_from, needed, before)
        speakers = split.speakers(data.speaker_from, needed)
        found[name] = [
            replace(u, of_video=v or u.of_video, place=p if v else u.place, speaker=s)
            for u, v, p, s in zip(known, videos, places, speakers, strict=True)
        ]
    return found


def _sha256_of_source(about: Mapping[str, Any]) -> str:
    """The SHA-256 of one file; of several, the SHA-256 of theirs, sorted by name."""
    files = sorted((str(file["name"]), str(file["sha256"])) for file in about.get("files", ()))
    found = [sha256 for _, sha256 in files]
    if about.get("arrays", {}).get("count"):
        found.append(about["arrays"]["sha256"])
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def named_modalities(config: DataConfig) -> tuple[str, ...]:
    return config.modalities if isinstance(config.modalities, tuple) else MODALITIES


def _chosen_dims(
    held: Mapping[str, Any], data: DataConfig, where: str, other: bool, words: str | None = None
) -> dict[str, Any]:
    """Those of the modalities that a file has that ``data.modalities`` names, in its order; notes tell of the rest.

    Raises:
        DataError: there is none, nor are there ``words``.
    """
    if words is not None:
        if TEXT in held:
            note(unused_features(where, words))
        held = {m: dim for m, dim in held.items() if m != TEXT}
    if data.modalities == AUTO:
        if taken := auto_note(held, where):
            note(taken)
        return dict(held)
    wanted = [m for m in data.modalities if words is None or m != TEXT]
    found = {modality: held[modality] for modality in wanted if modality in held}
    if not found and words is None:
        remedy = "use the modalities of the training data" if other else "check data.modalities"
        raise DataError(f"{where}: has none of the modalities {', '.join(wanted)}, only {listed(held)}; {remedy}")
    unused, lacking = [m for m in held if m not in wanted], [m for m in wanted if m not in held]
    if unused:
        remedy = "the run was not trained with it" if other else "set data.modalities to a list with it, or to auto"
        note(Doubt(f"{where}: {listed(map(repr, unused))} {'is' if len(unused) == 1 else 'are'} not used; {remedy}"))
    if lacking:
        left = [TEXT, *found] if words is not None else found
        remedy = "the run was trained with it" if other else f"data.modalities: [{', '.join(left)}] leaves it out"
        note(Doubt(f"{where}: has no {' and no '.join(lacking)}: missing from all utterances; {remedy}"))
    return found
