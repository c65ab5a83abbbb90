"""What the folder of a feature store holds: arrays under fixed names, and a manifest that says how large they are."""

# N utterances, L steps of all of them together, D features
from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gmsa.config import MODALITIES
from gmsa.errors import DataError

FORMAT, VERSION = "gmsa feature store", 1
MANIFEST = "manifest.json"
HEADER = 128
"""Bytes before the values of every array: enough for any shape, so that the shape may be filled in at the end."""
DTYPES = {"float16": "<f2", "float32": "<f4"}
LABEL_SCALES = ("mosi", "sims")
AGAIN = "import the data again"

_MAGIC = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
_LONGEST_MANIFEST = 1 << 20


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
    """Steps of the longest sequence."""
    present: int
    """Utterances that have it."""


@dataclass(frozen=True)
class StoredSplit:
    """The rows of one split."""

    start: int
    stop: int
    labeled: int
    """How many of them have a label."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a store as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says."""

    written_by: str
    labels: str
    """Label scale, ``mosi`` or ``sims``."""
    utterances: int
    """N."""
    modalities: Mapping[str, StoredModality]
    unimodal: tuple[str, ...]
    """Modalities that have labels of their own."""
    annotations: bool
    """Whether there are annotations: -1, 0, 1, and -128 for none."""
    splits: Mapping[str, StoredSplit]
    """In the order of their rows."""
    source: Mapping[str, Any]
    """Where it is from: the importer, and its files with their SHA-256."""
    files: Mapping[str, StoredFile]

    def to_json(self) -> str:
        """The content of the file: the same bytes for the same store."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def columns_of(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """The arrays of a store: file name, type, and shape, which is None where only the file's size tells it."""
    count = manifest.utterances
    found: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for modality, stored in manifest.modalities.items():
        found[f"{modality}.npy"] = DTYPES[stored.dtype], (stored.steps, stored.dim)
        found[f"{modality}.offsets.npy"] = "<i8", (count + 1,)
    for name in ("ids", "transcripts"):
        found[f"{name}.npy"] = "|u1", None
        found[f"{name}.offsets.npy"] = "<i8", (count + 1,)
    found["labels.npy"] = "<f8", (count,)
    for modality in manifest.unimodal:
        found[f"labels.{modality}.npy"] = "<f8", (count,)
    if manifest.annotations:
        found["annotations.npy"] = "|i1", (count,)
    return found


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The head of a ``.npy`` file, format 1.0, as :data:`HEADER` bytes whatever the shape."""
    described = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    return _MAGIC + described.encode("ascii").ljust(HEADER - 11) + b"\n"


def check_header(start: bytes, dtype: str, shape: tuple[int, ...], where: str) -> None:
    """Checks that a file begins as the manifest has it.

    Raises:
        DataError: it does not.
    """
    try:
        if start[:10] != _MAGIC or ast.literal_eval(start[10:].decode("ascii")) != ast.literal_eval(
            header(dtype, shape)[10:].decode("ascii")
        ):
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError(f"{where}: is not the array {dtype} {list(shape)} that the manifest names; {AGAIN}") from None


def open_regular(path: Path, where: str, follow: bool = False) -> BinaryIO:
    """Opens a file for reading, unless it is no regular file, or, without ``follow``, a link to one.

    Raises:
        DataError: it cannot be opened, or is a link, a folder or a device.
    """
    try:
        if not follow and stat.S_ISLNK(os.lstat(path).st_mode):
            raise DataError(f"{where}: is a link, which is not followed; put the file itself there")
        # Not blocking: a pipe in the file's place would be waited for without end.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise DataError(f"{where}: does not exist; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: cannot be read: {reason}; check the path and its rights") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError(f"{where}: is not a regular file; put a file there")
    return os.fdopen(handle, "rb")


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """The manifest of a store, and the bytes it was read from.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    path = folder / MANIFEST
    with open_regular(path, str(path)) as file:
        raw = file.read(_LONGEST_MANIFEST + 1)
    try:
        if len(raw) > _LONGEST_MANIFEST:
            raise ValueError("longer than any manifest")
        content = json.loads(raw)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"not of a {FORMAT}")
        if content.get("version") != VERSION:
            raise ValueError(f"version {content.get('version')!r} is not {VERSION}, which this gmsa reads")
        manifest = _build(content)
        _check(manifest)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is not a manifest that gmsa wrote ({reason}); {AGAIN}") from None
    return manifest, raw


def _build(content: dict[str, Any]) -> Manifest:
    fields = {field.name for field in dataclasses.fields(Manifest)}
    _need_keys(content, fields | {"format", "version"}, "the manifest")
    groups = {"modalities": StoredModality, "splits": StoredSplit, "files": StoredFile}
    values: dict[str, Any] = {name: content[name] for name in fields - groups.keys()}
    for group, cls in groups.items():
        if not isinstance(content[group], dict):
            raise ValueError(f"'{group}' is not an object")
        values[group] = {name: _record(cls, value, f"{group}.{name}") for name, value in content[group].items()}
    if not isinstance(values["unimodal"], list) or not all(isinstance(name, str) for name in values["unimodal"]):
        raise ValueError("'unimodal' is not a list of names")
    values["unimodal"] = tuple(values["unimodal"])
    for name, kind in {"written_by": str, "labels": str, "annotations": bool, "source": dict}.items():
        if not isinstance(values[name], kind):
            raise ValueError(f"'{name}' is a {type(values[name]).__name__}")
    _need_count(values["utterances"], "utterances")
    return Manifest(**values)


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
        raise ValueError(f"{where} does not hold {', '.join(sorted(keys))} and nothing else")


def _need_count(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value < 2**60:
        raise ValueError(f"'{where}' is not a count")


def _check(manifest: Manifest) -> None:
    """What the parts of a manifest must have in common."""
    if manifest.labels not in LABEL_SCALES:
        raise ValueError(f"'labels' is not one of {', '.join(LABEL_SCALES)}")
    if not manifest.modalities or not set(manifest.modalities) <= set(MODALITIES):
        raise ValueError(f"'modalities' are not among {', '.join(MODALITIES)}")
    if not set(manifest.unimodal) <= set(manifest.modalities):
        raise ValueError("'unimodal' names what is no modality of it")
    for modality, stored in manifest.modalities.items():
        if stored.dtype not in DTYPES or not stored.dim:
            raise ValueError(f"'modalities.{modality}' has no type or no dimension")
    row = 0
    for name, split in manifest.splits.items():
        if split.start != row or split.stop <= row or split.labeled > split.stop - row:
            raise ValueError(f"'splits.{name}' does not follow the one before it")
        row = split.stop
    if row != manifest.utterances:
        raise ValueError("'splits' do not cover the utterances")
    if set(manifest.files) != set(columns_of(manifest)):
        raise ValueError(f"'files' are not {', '.join(columns_of(manifest))}")
    if not all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in manifest.files.values()):
        raise ValueError("'files' has a SHA-256 that is none")
