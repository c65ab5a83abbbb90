"""The files of a feature store: arrays under fixed names, and a manifest with their types and sizes."""

# N utterances, L steps of all of them together, D features
from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gmsa.config.groups.target import LONGEST_CLASS, MOST_CLASSES, TargetConfig, is_class_name
from gmsa.config.presets import MOST_MODALITIES
from gmsa.config.schema import check_modality
from gmsa.data.targets import Target
from gmsa.data.texts import check_count, check_split
from gmsa.errors import DataError, cut, printable, short, shown
from gmsa.system.reading import open_regular, parse_json, reason_of

FORMAT, VERSION = "gmsa feature store", 4
TIMED, UNTIMED = 3, 2
"""Versions of a store with one file per modality and without statistics, and of one without times of steps, which an
earlier gmsa reads, too."""
_SINCE = {"timed": TIMED, "statistics": VERSION, "shards": VERSION}
"""The first version that has a key."""
SHARD = 2_000_000_000
"""Bytes of features, of all modalities together, of a shard at most, if not one utterance alone has more."""
MOST_SHARDS = 1_000
CLIPS = "clips.jsonl"
"""File of a store of extracted media: where each clip comes from. Its hash stands in :attr:`Manifest.source`."""
MOST_CLIPS = 1 << 33
"""Bytes of it, at most."""
MANIFEST = "manifest.json"
HEADER = 128
"""Bytes of every array's header: enough for any shape, so that it can be filled in at the end."""
DTYPES = {"float16": "<f2", "float32": "<f4"}
LABEL_SCALES = ("mosi", "sims")
TEXT_COLUMNS = {"speaker": "speakers", "video": "videos", "fold": "folds"}
"""Columns of text that a store may have, and the names of their files."""
COLUMNS = (*TEXT_COLUMNS, "place")
"""Columns that a store may have."""
NO_PLACE = -(1 << 63)
"""Place of an utterance without one."""
OWN_NAMES = ("ids", "transcripts", "labels", "annotations", *TEXT_COLUMNS.values(), "places")
"""Names of files that no modality may have."""
ANY = -1
"""Length of an axis that follows from the size of the file."""
AGAIN = "import the data again"
NOT_ANNOTATED = -128
"""Annotation of an utterance without one."""
MOST_FEATURES = 1 << 20
"""Largest number of features per step."""
LARGEST = 1 << 30
"""Largest size, in bytes, of the features of one modality of one utterance."""

_MAGIC = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
_LONGEST_MANIFEST = 1 << 20
_DEPTH = 16


@dataclass(frozen=True)
class StoredModality:
    """One modality of a store."""

    dim: int
    """Features per step, D."""
    dtype: str
    """``float16`` or ``float32``."""
    steps: int
    """L."""
    longest: int
    """Number of steps of the longest sequence."""
    present: int
    """Number of utterances that have the modality."""


@dataclass(frozen=True)
class StoredSplit:
    """The rows of one split."""

    start: int
    stop: int
    labeled: int
    """Number of rows with a label."""


@dataclass(frozen=True)
class StoredFile:
    """Size and SHA-256 of a file of a store."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``."""

    written_by: str
    """Version of gmsa that wrote the store."""
    target: Target
    """What its labels are."""
    columns: tuple[str, ...]
    """Those of :data:`COLUMNS` that it has."""
    utterances: int
    """N."""
    modalities: Mapping[str, StoredModality]
    unimodal: tuple[str, ...]
    """Modalities with labels of single modalities."""
    annotations: bool
    """Whether the store has annotations: -1, 0, 1, or -128 for none."""
    splits: Mapping[str, StoredSplit]
    """Splits in the order of their rows."""
    source: Mapping[str, Any]
    """Provenance: the importer, and its files with their SHA-256."""
    files: Mapping[str, StoredFile]
    """Files of the store by name."""
    timed: tuple[str, ...] = ()
    """Modalities whose steps have times."""
    statistics: str = ""
    """Split of whose features the store has means and standard deviations; empty if it has none."""
    shards: tuple[int, ...] = ()
    """The row at which each shard after the first begins; the features of a shard are files of their own."""

    @property
    def labels(self) -> str:
        """The metrics that score its labels: ``mosi``, ``sims``, ``intensity`` or ``classes``."""
        return self.target.metrics

    def to_json(self) -> str:
        """Returns the text of the file; equal stores give equal bytes."""
        version = max([UNTIMED, *(since for key, since in _SINCE.items() if getattr(self, key))])
        content = {"format": FORMAT, "version": version, **dataclasses.asdict(self)}
        content = {key: value for key, value in content.items() if _SINCE.get(key, version) <= version}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def columns_of(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Returns the type and shape of each array file; the shape is None, or its first axis :data:`ANY`, if it follows
    from the file size."""
    count = manifest.utterances
    found: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for modality, stored in manifest.modalities.items():
        for name in feature_files(manifest, modality):
            found[name] = DTYPES[stored.dtype], (ANY if manifest.shards else stored.steps, stored.dim)
        found[f"{modality}.offsets.npy"] = "<i8", (count + 1,)
        if manifest.statistics:
            found[f"{modality}.statistics.npy"] = "<f8", (2, stored.dim)
        if modality in manifest.timed:
            found[f"{modality}.times.npy"] = "<f4", (stored.steps, 2)
    for name in ("ids", "transcripts"):
        found[f"{name}.npy"] = "|u1", None
        found[f"{name}.offsets.npy"] = "<i8", (count + 1,)
    found["labels.npy"] = "<f8", (count,)
    for modality in manifest.unimodal:
        found[f"labels.{modality}.npy"] = "<f8", (count,)
    for column in manifest.columns:
        if column in TEXT_COLUMNS:
            found[f"{TEXT_COLUMNS[column]}.npy"] = "|u1", None
            found[f"{TEXT_COLUMNS[column]}.offsets.npy"] = "<i8", (count + 1,)
        else:
            found["places.npy"] = "<i8", (count,)
    if manifest.annotations:
        found["annotations.npy"] = "|i1", (count,)
    return found


def feature_files(manifest: Manifest, modality: str) -> list[str]:
    """Returns the names of the files of a modality's features, in order."""
    return [f"{modality}.npy", *(f"{modality}.{shard}.npy" for shard in range(1, 1 + len(manifest.shards)))]


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Returns the header of a ``.npy`` file of format 1.0, padded to :data:`HEADER` bytes."""
    described = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    return _MAGIC + described.encode("ascii").ljust(HEADER - 11) + b"\n"


def check_header(start: bytes, dtype: str, shape: tuple[int, ...], where: str) -> None:
    """Checks the header of a file against the type and shape in the manifest.

    Raises:
        DataError: they differ.
    """
    if start != header(dtype, shape):
        raise DataError(f"{where}: header does not match the manifest ({dtype} {list(shape)}); {AGAIN}")


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """Reads the manifest of a store; returns it with the bytes of its file.

    Raises:
        DataError: the manifest is missing, damaged, or of another version.
    """
    path = folder / MANIFEST
    where = short(path)
    with open_regular(path, where, follow=False, kind=DataError) as file:
        try:
            raw = file.read(_LONGEST_MANIFEST + 1)
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {reason_of(error)}; check the disk") from None
    return parse_manifest(raw, where), raw


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """Reads the text of a manifest.

    Raises:
        DataError: it is damaged, or of another version.
    """
    try:
        if len(raw) > _LONGEST_MANIFEST:
            raise ValueError(f"it has more than {_LONGEST_MANIFEST:,} bytes")
        content = parse_json(raw.decode("utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"its format is not '{FORMAT}'")
        if content.get("version") not in (1, UNTIMED, TIMED, VERSION) or isinstance(content["version"], bool):
            raise ValueError(
                f"version {shown(content.get('version'))} is not {VERSION}, the version that this gmsa reads"
            )
        _check_values(content)
        if content["version"] == 1:
            content = _of_version_1(content)
        content |= {key: {"statistics": ""}.get(key, []) for key, since in _SINCE.items() if content["version"] < since}
        manifest = _build(content)
        _check(manifest)
    except (ValueError, RecursionError) as error:
        reason = " ".join(printable(str(error)[:200]).split())[:200]
        raise DataError(f"{where}: invalid manifest ({reason}); {AGAIN}") from None
    return manifest


def _of_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a manifest that names a label scale where later ones have the target."""
    rest = dict(content)
    if (labels := rest.pop("labels", None)) not in LABEL_SCALES:
        raise ValueError(f"'labels' is not one of {', '.join(LABEL_SCALES)}")
    target = Target.of(TargetConfig(preset=labels))
    return {**rest, "target": dataclasses.asdict(target) | {"classes": []}, "columns": []}


def _check_values(value: Any, depth: int = 0) -> None:
    """Checks that text is valid, and that nothing is nested deeply."""
    if depth > _DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{shown(value)} cannot be encoded as UTF-8") from None
    for part in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_values(part, depth + 1)


def _build(content: dict[str, Any]) -> Manifest:
    fields = {field.name for field in dataclasses.fields(Manifest)}
    _need_keys(content, fields | {"format", "version"}, "the manifest")
    groups = {"modalities": StoredModality, "splits": StoredSplit, "files": StoredFile}
    values: dict[str, Any] = {name: content[name] for name in fields - groups.keys()}
    for group, cls in groups.items():
        if not isinstance(content[group], dict):
            raise ValueError(f"'{group}' is not an object")
        values[group] = {name: _record(cls, value, f"{group}.{cut(name)}") for name, value in content[group].items()}
    for name in ("unimodal", "columns", "timed"):
        if not isinstance(values[name], list) or not all(isinstance(one, str) for one in values[name]):
            raise ValueError(f"'{name}' is not a list of names")
        values[name] = tuple(values[name])
    values["target"] = _target(values["target"])
    if not isinstance(values["shards"], list) or len(values["shards"]) >= MOST_SHARDS:
        raise ValueError(f"'shards' is no list of less than {MOST_SHARDS:,} rows")
    for row in values["shards"]:
        _need_count(row, "shards")
    values["shards"] = tuple(values["shards"])
    for name, kind in {"written_by": str, "annotations": bool, "source": dict, "statistics": str}.items():
        if not isinstance(values[name], kind):
            raise ValueError(f"'{name}' is a {type(values[name]).__name__}")
    _need_count(values["utterances"], "utterances")
    return Manifest(**values)


def _target(value: Any) -> Target:
    _need_keys(value, {field.name for field in dataclasses.fields(Target)}, "target")
    ends = (value["low"], value["high"])
    if not all(type(end) in (int, float) and abs(end) < 1e300 for end in ends) or not ends[0] < ends[1]:
        raise ValueError("'target.low' and 'target.high' are not the ends of a range")
    names, kind = value["classes"], value["kind"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("'target.classes' is not a list of names")
    check_classes(names)
    kinds = {"classes": ("classes",), "intensity": ("mosi", "sims", "intensity")}
    if (
        not isinstance(kind, str)
        or kind not in kinds
        or value["metrics"] not in kinds[kind]
        or (kind == "classes") != bool(names)
    ):
        raise ValueError("'target' is neither an intensity nor classes with names, or its metrics do not fit")
    return Target(kind, float(ends[0]), float(ends[1]), tuple(names), value["metrics"])


def check_classes(names: Sequence[str]) -> None:
    """Checks the names of classes, of which an intensity has none.

    Raises:
        ValueError: there is one, or there are too many, one is empty, long or of several lines, or two are equal.
    """
    if names and not 2 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"'target.classes' are {len(names):,}, not 2 to {MOST_CLASSES:,}")
    for name in names:
        if not is_class_name(name):
            raise ValueError(f"the class {shown(name)} is empty, of several lines or over {LONGEST_CLASS} characters")
    if len(set(names)) < len(names):
        raise ValueError(f"the class {shown(next(n for n in names if names.count(n) > 1))} is named twice")


def _record(cls: type, value: Any, where: str) -> Any:
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    _need_keys(value, set(fields), where)
    for name, kind in fields.items():
        if kind == "int":
            _need_count(value[name], f"{where}.{name}")
        elif not isinstance(value[name], str):
            raise ValueError(f"'{where}.{name}' is not text")
    return cls(**value)


def _need_keys(value: Any, keys: set[str], where: str) -> None:
    if not isinstance(value, dict) or set(value) != keys:
        raise ValueError(f"the keys of {where} are not {', '.join(sorted(keys))}")


def _need_count(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value < 2**60:
        raise ValueError(f"'{where}' is not a count")


def _check(manifest: Manifest) -> None:
    """Checks that the parts of a manifest agree."""
    if len(set(manifest.columns)) < len(manifest.columns) or not set(manifest.columns) <= set(COLUMNS):
        raise ValueError(f"'columns' are not of {', '.join(COLUMNS)}, each once")
    if not 0 < len(manifest.modalities) <= MOST_MODALITIES:
        raise ValueError(f"'modalities' has not 1 to {MOST_MODALITIES} of them")
    check_modalities(manifest.modalities)
    for key, named in {"unimodal": manifest.unimodal, "timed": manifest.timed}.items():
        if len(set(named)) < len(named):
            raise ValueError(f"'{key}' names a modality twice")
        if not set(named) <= set(manifest.modalities):
            raise ValueError(f"'{key}' names an unknown modality")
    for modality, stored in manifest.modalities.items():
        if stored.dtype not in DTYPES or not 0 < stored.dim <= MOST_FEATURES:
            raise ValueError(f"'modalities.{modality}' has no type, or a dimension out of 1 to {MOST_FEATURES}")
        if stored.longest * stored.dim * 4 > LARGEST or not stored.present <= manifest.utterances:
            raise ValueError(f"'modalities.{modality}' has sequences of over {LARGEST} bytes, or more than utterances")
    check_count(manifest.splits, "'splits'")
    row = 0
    for name, split in manifest.splits.items():
        check_split(name, "'splits'")
        if split.start != row or split.stop <= row or split.labeled > split.stop - row:
            raise ValueError(f"split {shown(name)} does not follow the one before it")
        row = split.stop
    if row != manifest.utterances:
        raise ValueError("'splits' do not cover the utterances")
    if manifest.statistics and manifest.statistics not in manifest.splits:
        raise ValueError("'statistics' is no split")
    if any(b <= a for a, b in pairwise((0, *manifest.shards, manifest.utterances))):
        raise ValueError("'shards' are no rows in their order")
    if set(manifest.files) != set(columns_of(manifest)):
        raise ValueError(f"'files' are not {', '.join(columns_of(manifest))}")
    if not all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in manifest.files.values()):
        raise ValueError("'files' has an invalid SHA-256")
    check_source(manifest.source)


def check_modalities(names: Iterable[str]) -> None:
    """Checks names of modalities, after which files are named, also where the file system knows no capitals.

    Raises:
        ValueError: one is no name of a modality, or two would have the same files.
    """
    seen: dict[str, str] = {}
    for name in names:
        check_modality(name, "modalities")
        if name.lower() in OWN_NAMES:
            raise ValueError(f"the modality '{name}' has the name of a file that a store has; rename it")
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"the modalities '{other}' and '{name}' differ by capitals only; rename one")


def check_source(source: Mapping[str, Any]) -> None:
    """Checks the shape of a store's provenance as far as gmsa reads it; importers may add to it.

    Raises:
        ValueError: the importer is not text, or the files are not objects with a name and a SHA-256.
    """
    if not isinstance(source.get("importer", ""), str):
        raise ValueError("'source.importer' is not text")
    files = source.get("files", [])
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and all(isinstance(file.get(key), str) for key in ("name", "sha256")) for file in files
    ):
        raise ValueError("'source.files' is not a list of objects with 'name' and 'sha256'")
