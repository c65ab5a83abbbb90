"""The importer ``mds``: shards that MosaicML Streaming's ``MDSWriter`` wrote, in a folder of this machine.

Nothing of that library is needed, and no pickle is read: a column of that encoding is left out.
"""

# L steps, D features
from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmsa.config import TargetConfig
from gmsa.data.importers.arrays import resolve_inside
from gmsa.data.importers.manifest import (
    CLIP_COLUMNS,
    ID_COLUMNS,
    SPEAKER_COLUMNS,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
    VIDEO_COLUMNS,
    target_column,
)
from gmsa.data.importers.rows import Source, modality_names, row_of
from gmsa.data.importers.surveyed import ArrayItem, survey
from gmsa.data.importers.tables import MOST_COLUMNS, Splits, about_files, split_name
from gmsa.data.notes import note
from gmsa.data.opening import lies_at, open_data
from gmsa.data.splits import UNSPLIT
from gmsa.data.store.files import LARGEST, MOST_FEATURES
from gmsa.data.store.writer import Row
from gmsa.errors import DataError, listed, short, shown
from gmsa.system.files import sha256_of
from gmsa.system.reading import entries, is_folder, read_json

INDEX = "index.json"
_MOST_SHARDS = 100_000
_TYPES = {
    8: "u1",
    9: "i1",
    16: "<u2",
    17: "<i2",
    18: "<f2",
    32: "<u4",
    33: "<i4",
    34: "<f4",
    64: "<u8",
    65: "<i8",
    66: "<f8",
}
"""Types of the values of an ``ndarray`` by their numbers."""
_NAMES = {np.dtype(kind).name: kind for kind in _TYPES.values()}
_SCALARS = {"int": "<i8", **_NAMES}
_TEXTS = {"str": str, "str_int": int, "str_float": float}


def import_mds(path: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports a folder with an ``index.json``, or with one folder per split that has one.

    Columns have the names that tables have (see :func:`~gmsa.data.importers.manifest.import_manifest`), and every
    column of encoding ``ndarray`` ``[L, D]`` (or ``[D]`` of one step) is a modality. The format holds no empty arrays:
    one of zeros alone is a missing modality. Splits are the folders, or of a column ``split``. Compressed shards are
    refused.

    Args:
        path: the folder.
        target: the group ``target`` of a config, whose ``field`` is the column of the labels.
        splits: the user's assignment of utterances to splits; replaces those of the source.

    Raises:
        DataError: a file is missing, unsafe or invalid.
    """
    shards = [shard for folder, name in _folders(path) for shard in _shards(folder, name, target)]
    found = survey((item for shard in shards for item in shard.items(splits)), short(path))
    known = listed(dict.fromkeys(name for shard in shards for name in shard.columns))
    lacks = f"{short(path)}: no utterance has features; expected columns of ndarray [L, D] (its columns: {known})"
    about = about_files("mds", [folder / INDEX for folder, _ in _folders(path)], splits)
    digests = "".join(sha256_of(shard.path, DataError) for shard in shards)
    about["arrays"] = {"count": len(shards), "sha256": hashlib.sha256(digests.encode()).hexdigest()}
    rows = _rows(shards, splits, list(found.counts), found.dims)
    return Source(rows, sum(found.counts.values()), found.dtypes, about, lacks="" if found.dtypes else lacks)


def is_mds(folder: Path) -> bool:
    """Whether a folder holds shards of MosaicML Streaming."""
    return bool(_indexed(folder))


def _indexed(folder: Path) -> list[Path]:
    """The folder, or those in it, that have an index."""
    if lies_at(folder / INDEX):
        return [folder]
    return [part for part in sorted(entries(folder, DataError)) if is_folder(part, DataError) and lies_at(part / INDEX)]


def _folders(path: Path) -> list[tuple[Path, str]]:
    found = _indexed(path)
    if not found:
        raise DataError(f"{short(path)}: holds no {INDEX}, nor does a folder in it; name what MDSWriter wrote")
    return [(folder, UNSPLIT if folder == path else split_name(folder.name)) for folder in found]


def _shards(folder: Path, split: str, target: TargetConfig) -> list[_Shard]:
    where = short(folder / INDEX)
    index = read_json(folder / INDEX, inside=folder, kind=DataError)
    listed_shards = index.get("shards") if isinstance(index, dict) else None
    if not isinstance(listed_shards, list) or not 0 < len(listed_shards) <= _MOST_SHARDS:
        raise DataError(f"{where}: lists no shards; write it again with MDSWriter")
    if not all(isinstance(x, dict) and x.get("format") == "mds" and x.get("version") == 2 for x in listed_shards):
        raise DataError(f"{where}: its shards are not of the format mds, version 2; write it again with MDSWriter")
    return [_Shard(folder, split, shard, target, where, first=not number) for number, shard in enumerate(listed_shards)]


class _Shard:
    """One shard: a number of samples, where each begins, and the samples, column by column."""

    def __init__(
        self, folder: Path, split: str, said: Mapping[str, Any], target: TargetConfig, where: str, first: bool
    ) -> None:
        self.name = split
        names, encodings, sizes = (said.get(f"column_{key}") for key in ("names", "encodings", "sizes"))
        raw, self.samples = said.get("raw_data"), said.get("samples")
        if not (
            isinstance(names, list)
            and isinstance(encodings, list)
            and isinstance(sizes, list)
            and len(names) == len(encodings) == len(sizes) == len(set(map(str, names))) <= MOST_COLUMNS
            and all(isinstance(name, str) for name in (*names, *encodings))
            and all(size is None or (type(size) is int and 0 <= size <= LARGEST) for size in sizes)
            and isinstance(raw, dict)
            and isinstance(raw.get("basename"), str)
            and type(self.samples) is int
        ):
            raise DataError(f"{where}: has a shard without columns, file or count; write it again with MDSWriter")
        file = raw["basename"]
        if not lies_at(folder / file) and said.get("zip_data"):
            raise DataError(f"{where}: {shown(file)} is compressed; write it with MDSWriter(compression=None)")
        self.path = resolve_inside(folder, file, where)
        self.where = short(self.path)
        self.columns, self.sizes = names, sizes
        self.kinds = {name: _reader(encoding) for name, encoding in zip(names, encodings, strict=True)}
        arrays = [name for name in names if encodings[names.index(name)].partition(":")[0] == "ndarray"]
        self.modality = modality_names(arrays, self.where)
        known = {c.lower(): c for c in reversed(names) if c not in arrays and self.kinds[c] is not None}

        def find(*wanted: str) -> str | None:
            return next((known[name] for name in wanted if name in known), None)

        self.used = {
            "id": find(*ID_COLUMNS),
            "video": find(*VIDEO_COLUMNS),
            "clip": find(*CLIP_COLUMNS),
            "split": find(*SPLIT_COLUMNS),
            "text": find(*TEXT_COLUMNS, "text"),
            "speaker": find(*SPEAKER_COLUMNS),
            "fold": find("fold"),
            "label": target_column([*known.values()], target, self.where),
        }
        unused = [name for name in names if name not in (*self.used.values(), *arrays)]
        if unused and first:
            note(f"{self.where}: the columns {listed(map(shown, unused))} are not used")

    def items(self, splits: Splits | None) -> Iterator[ArrayItem]:
        """Reads the samples."""
        with open_data(self.path, follow=False) as file:
            size = self.path.stat().st_size
            (count,) = np.frombuffer(self._read(file, 4), "<u4").tolist()
            if count != self.samples or 4 * (count + 2) > size:
                raise DataError(f"{self.where}: has not the {self.samples} samples of its index; write it again")
            bounds = np.frombuffer(self._read(file, 4 * (count + 1)), "<u4").astype(np.int64)
            if bounds[0] < 4 * (count + 2) or bounds[-1] != size or (np.diff(bounds) < 0).any():
                raise DataError(f"{self.where}: is damaged or cut short; write it again")
            file.seek(int(bounds[0]))
            for number in range(count):
                where = f"{self.where}: sample {number + 1}"
                yield self._item(self._read(file, int(bounds[number + 1] - bounds[number])), where, number, splits)

    def _read(self, file: Any, size: int) -> bytes:
        found: bytes = file.read(size)
        if len(found) < size:
            raise DataError(f"{self.where}: is damaged or cut short; write it again")
        return found

    def _item(self, sample: bytes, where: str, number: int, splits: Splits | None) -> ArrayItem:
        place = 4 * sum(not size for size in self.sizes)
        lengths = iter(np.frombuffer(sample[:place], "<u4").tolist() if len(sample) >= place else [])
        cells: dict[str, Any] = {}
        for name, size in zip(self.columns, self.sizes, strict=True):
            end = place + (size or next(lengths, len(sample) + 1))
            if end > len(sample):
                raise DataError(f"{where}: is damaged or cut short; write it again")
            if (read := self.kinds[name]) is not None:
                try:
                    cells[name] = read(sample[place:end])
                except (ValueError, ArithmeticError, LookupError):
                    raise DataError(f"{where}: {shown(name)} is not what the index says; write it again") from None
            place = end

        def text(key: str) -> str:
            column = self.used[key]
            return "" if column is None else str(cells[column])

        identity = text("id")
        if self.used["id"] is None:
            both = self.used["video"] and self.used["clip"]
            identity = f"{text('video')}$_${text('clip')}" if both else f"{self.name}-{self.path.stem}-{number}"
        split = split_name(text("split")) or self.name
        said = cells[self.used["label"]] if self.used["label"] else ""
        label = said if isinstance(said, str) else float(said)
        arrays = {m: _steps(cells[c], f"{where}: {shown(c)}") for c, m in self.modality.items() if cells[c].any()}
        return ArrayItem(
            where,
            splits.of(identity, where, text("video")) if splits else split,
            identity,
            None if label == "" or label != label else label,
            {},
            text("text"),
            speaker=text("speaker"),
            video=text("video"),
            fold=text("fold"),
            clip=text("clip"),
            arrays=arrays,
        )


def _reader(encoding: str) -> Callable[[bytes], Any] | None:
    """What decodes a column; None of an encoding that is not read."""
    name, _, rest = encoding.partition(":")
    if name in _TEXTS:
        return lambda raw: _TEXTS[name](raw.decode("utf-8"))
    if name in _SCALARS:
        return lambda raw: np.frombuffer(raw, _SCALARS[name]).item()
    if name != "ndarray":
        return None
    kind, _, shape = rest.partition(":")
    fixed = tuple(int(n) for n in shape.split(",") if n.isdecimal())
    return lambda raw: _array(raw, kind, fixed)


def _array(raw: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array whose type and shape stand before the values, unless the index says them."""
    dtype, place = (_NAMES[kind], 0) if kind else (_TYPES[raw[0]], 1)
    if not shape:
        axes, width = raw[place] >> 2, 1 << (raw[place] & 3)
        end = place + 1 + axes * width
        shape = tuple(np.frombuffer(raw[place + 1 : end], f"<u{width}").tolist())
        place = end
    if math.prod(shape) * 4 > LARGEST:
        raise ValueError(f"an array of {math.prod(shape):,} values")
    return np.frombuffer(raw[place:], dtype).reshape(shape)


def _steps(values: np.ndarray, where: str) -> np.ndarray:
    """The features [L, D] of an array, which may have axes of one."""
    shape = [size for size in values.shape[:-1] if size != 1] + [values.shape[-1]] if values.ndim else []
    if not 1 <= len(shape) <= 2 or shape[-1] > MOST_FEATURES:
        raise DataError(f"{where} has shape {list(values.shape)}; expected [steps, features]")
    return values.reshape(-1, shape[-1])


def _rows(
    shards: Sequence[_Shard], splits: Splits | None, names: Sequence[str], dims: Mapping[str, int]
) -> Iterator[Row]:
    for name in names:
        for shard in shards:
            if splits is None and not shard.used["split"] and shard.name != name:
                continue
            for item in shard.items(splits):
                if item.split == name:
                    yield row_of(item, {m: _tensor(item.arrays.get(m), dim) for m, dim in dims.items()})


def _tensor(values: np.ndarray | None, dim: int) -> torch.Tensor:
    with np.errstate(over="ignore"):
        return torch.zeros(0, dim) if values is None else torch.from_numpy(np.array(values, np.float32))
