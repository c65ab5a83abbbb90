"""Memory-mapped array files of a feature store."""

# N utterances, L steps, D features
from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gmsa.data.opening import open_data
from gmsa.data.store.files import AGAIN, ANY, HEADER, check_header
from gmsa.errors import DataError, short
from gmsa.system.reading import reason_of

_KEPT = 32 << 20
"""Bytes of a mapped array that may be resident in this process before its pages are released."""
_TOGETHER = 64 << 20
"""Values that are read together at most."""
_FAULT = 64 << 10
"""Bytes that the kernel maps at most when one byte is touched."""


class Mapped:
    """A memory-mapped array file."""

    __slots__ = ("_mapping", "array")

    def __init__(self, array: np.ndarray, mapping: mmap.mmap | None) -> None:
        self.array, self._mapping = array, mapping

    def release(self) -> None:
        """Releases the pages that were read; the page cache returns them on the next access."""
        if self._mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


class StoredColumn:
    """The sequences of one modality, concatenated, in the files of one or several shards."""

    __slots__ = ("_begins", "_half", "_offsets", "_shards", "_touched", "dim", "offsets")

    def __init__(self, shards: Sequence[Mapped], offsets: np.ndarray) -> None:
        # A memoryview returns single numbers three times as fast as an array.
        self._shards, self.offsets, self._offsets = shards, offsets, offsets.data
        self._begins = [0, *accumulate(len(shard.array) for shard in shards[:-1])]
        first = shards[0].array
        self._half, self._touched, self.dim = first.dtype != np.float32, [0] * len(shards), first.shape[1]

    def length(self, row: int) -> int:
        """Number of steps of a row."""
        offsets = self._offsets
        return int(offsets[row + 1] - offsets[row])

    def sequence(self, row: int) -> Tensor:
        """Returns a copy of the features of a row, float32 ``[L, D]``."""
        return self.values(self._offsets[row], self._offsets[row + 1])

    def sequences(self, start: int, stop: int) -> list[Tensor | None]:
        """Returns the features of consecutive rows, as views of one copy; None for each if they are long."""
        offsets = self.offsets[start : stop + 1]
        if int(offsets[-1] - offsets[0]) * self.dim > _TOGETHER:
            return [None] * (stop - start)
        whole = self.values(int(offsets[0]), int(offsets[-1]))
        return list(whole.split(np.diff(offsets).tolist()))

    def values(self, start: int, stop: int) -> Tensor:
        """Returns a copy of consecutive steps, float32 ``[L, D]``."""
        shard = bisect_right(self._begins, start) - 1 if len(self._begins) > 1 else 0
        stored, begin = self._shards[shard], self._begins[shard]
        if stop - begin > len(stored.array):
            end = begin + len(stored.array)
            return torch.cat([self.values(start, end), self.values(end, stop)])
        found = stored.array[start - begin : stop - begin]
        found = found.astype(np.float32) if self._half else found.copy()
        self._touched[shard] += found.nbytes + _FAULT
        if self._touched[shard] > _KEPT:
            self._touched[shard] = 0
            stored.release()
        return torch.from_numpy(found)


class MissingColumn:
    """A modality that the store does not have: all sequences have length 0."""

    __slots__ = ("_dim",)

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def length(self, row: int) -> int:
        """Returns 0."""
        return 0

    def sequence(self, row: int) -> Tensor:
        """Returns an empty sequence, float32 ``[0, D]``."""
        return torch.zeros(0, self._dim)

    def sequences(self, start: int, stop: int) -> list[Tensor | None]:
        """Returns None for each row, since there is nothing to read together."""
        return [None] * (stop - start)


class StoredTexts:
    """Strings, concatenated as UTF-8."""

    __slots__ = ("_bytes", "_offsets")

    def __init__(self, data: Mapped, offsets: np.ndarray) -> None:
        self._bytes, self._offsets = data.array.data, offsets.data

    def __getitem__(self, row: int) -> str:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes().decode("utf-8", "replace")


Column = StoredColumn | MissingColumn


def map_file(path: Path, dtype: str, shape: tuple[int, ...] | None, size: int) -> Mapped:
    """Maps an array file into memory after checking its size and header.

    Args:
        path: the array file.
        dtype: expected NumPy type.
        shape: expected shape; None for one axis whose length follows from the size, as that of a first axis ANY does.
        size: expected bytes of the file.

    Raises:
        DataError: the file is missing, a link, or differs in size or header.
    """
    itemsize = np.dtype(dtype).itemsize
    shape = (ANY,) if shape is None else shape
    if shape[0] == ANY:
        shape = (max(0, size - HEADER) // (itemsize * int(np.prod(shape[1:], dtype=int))), *shape[1:])
    expected = HEADER + itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    where = short(path)
    with open_data(path, follow=False) as file:
        found = os.fstat(file.fileno()).st_size
        if not found == size == expected:
            raise DataError(f"{where}: has {found} bytes, expected {expected}; it is damaged or cut short, {AGAIN}")
        try:
            check_header(file.read(HEADER), dtype, shape, where)
            if size == HEADER:
                return Mapped(np.zeros(shape, dtype), None)
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {reason_of(error)}; check the disk") from None
    values = np.frombuffer(mapping, dtype, offset=HEADER).reshape(shape)
    return Mapped(values.astype(values.dtype.newbyteorder("="), copy=False), mapping)


def checked_shards(
    folder: Path, name: str, columns: Mapping[str, Mapped], begins: Sequence[int]
) -> tuple[list[Mapped], np.ndarray]:
    """Returns the shards of a modality and its offsets after checking that these fit.

    Args:
        begins: the row at which each shard after the first begins.

    Raises:
        DataError: an offset points outside, or a shard has other steps than its rows.
    """
    names = [f"{name}.npy", *(f"{name}.{shard}.npy" for shard in range(1, 1 + len(begins)))]
    shards = [columns[file] for file in names]
    offsets = checked_offsets(folder, name, columns, sum(len(shard.array) for shard in shards))
    for file, shard, begin, end in zip(names, shards, (0, *begins), (*begins, len(offsets) - 1), strict=True):
        if len(shard.array) != (wanted := offsets[end] - offsets[begin]):
            what = f"has {len(shard.array):,} steps where its rows have {wanted:,}"
            raise DataError(f"{short(folder / file)}: {what}; it is damaged or of another store, {AGAIN}")
    return shards, offsets


def checked_offsets(folder: Path, name: str, columns: Mapping[str, Mapped], end: int | None = None) -> np.ndarray:
    """Returns the offsets of the rows after checking that they lie within the array.

    Args:
        end: its length, where it is in several files.

    Raises:
        DataError: an offset points outside.
    """
    offsets = columns[f"{name}.offsets.npy"].array
    end = len(columns[f"{name}.npy"].array) if end is None else end
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"{short(folder / f'{name}.offsets.npy')}: points outside '{name}.npy'; it is damaged, {AGAIN}")
    return offsets
