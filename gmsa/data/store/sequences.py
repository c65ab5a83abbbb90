"""The features of a store: sequences end to end in files that are read piece by piece, not mapped."""

# L steps, D features
from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from gmsa.data.store.files import AGAIN, HEADER
from gmsa.data.store.mapped import Mapped, checked_offsets, open_array
from gmsa.errors import DataError, short
from gmsa.system.reading import reason_of

_TOGETHER = 64 << 20
"""Values that are read together at most."""
_AT_ONCE = 1 << 30
"""Bytes of a call of the system; macOS refuses more than 2 GiB."""


class StepsFile:
    """An open file of the steps of many sequences ``[L, D]``.

    In order a sequence is copied by a call of the system in half the time that it takes from a mapped file, whose pages
    are mapped one by one and given back later. A file that is cut short while it is open is an error, and does not kill
    the process.

    Args:
        path: the array file.
        dtype: expected NumPy type.
        shape: expected shape ``[L, D]``, whose first axis may be ANY.
        size: expected bytes of the file.

    Raises:
        DataError: the file is missing, a link, or differs in size or header.
    """

    __slots__ = ("__weakref__", "_dtype", "_handle", "_lock", "_path", "_step", "dim", "steps")

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...] | None, size: int) -> None:
        file, (self.steps, self.dim) = open_array(path, dtype, shape, size)
        whole = file.detach()  # without a buffer
        self._handle = whole.fileno()
        weakref.finalize(self, whole.close)
        self._path, self._dtype, self._lock = path, np.dtype(dtype), Lock()
        self._step = self.dim * self._dtype.itemsize

    def __len__(self) -> int:
        return self.steps

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the steps ``start`` to ``stop`` (exclusive), float32 ``[stop - start, D]``.

        Raises:
            DataError: the file was cut short, or the disk does not give it.
        """
        found = np.empty((stop - start, self.dim), self._dtype)
        buffer, place = found.reshape(-1).view(np.uint8).data, HEADER + start * self._step
        try:
            while len(buffer):
                if not (count := self._read_into(buffer[:_AT_ONCE], place)):
                    raise DataError(f"{short(self._path)}: was cut short while it was open; restore it, or {AGAIN}")
                buffer, place = buffer[count:], place + count
        except OSError as error:
            raise DataError(f"{short(self._path)}: cannot be read: {reason_of(error)}; check the disk") from None
        return found.astype(np.float32, copy=False)

    def _read_into(self, buffer: memoryview, place: int) -> int:
        """Fills the beginning of a buffer from a place of the file; returns how many bytes, 0 at its end."""
        if hasattr(os, "preadv"):
            return os.preadv(self._handle, [buffer], place)
        if hasattr(os, "pread"):
            found = os.pread(self._handle, len(buffer), place)
        else:  # Windows, which reads from the place of a handle, which threads share, and forks no process
            with self._lock:
                os.lseek(self._handle, place, os.SEEK_SET)
                found = os.read(self._handle, len(buffer))
        buffer[: len(found)] = found
        return len(found)


class StoredColumn:
    """The sequences of one modality, concatenated, in the files of one or several shards."""

    __slots__ = ("_begins", "_offsets", "_shards", "dim", "offsets")

    def __init__(self, shards: Sequence[StepsFile], offsets: np.ndarray) -> None:
        # A memoryview returns single numbers three times as fast as an array.
        self._shards, self.offsets, self._offsets = shards, offsets, offsets.data
        self._begins = [0, *accumulate(len(shard) for shard in shards[:-1])]
        self.dim = shards[0].dim

    def length(self, row: int) -> int:
        """Number of steps of a row."""
        offsets = self._offsets
        return int(offsets[row + 1] - offsets[row])

    def sequence(self, row: int) -> Tensor:
        """Returns the features of a row, float32 ``[L, D]``."""
        return self.values(self._offsets[row], self._offsets[row + 1])

    def sequences(self, start: int, stop: int) -> list[Tensor | None]:
        """Returns the features of consecutive rows, as views of one copy; None for each if they are long."""
        offsets = self.offsets[start : stop + 1]
        if int(offsets[-1] - offsets[0]) * self.dim > _TOGETHER:
            return [None] * (stop - start)
        whole = self.values(int(offsets[0]), int(offsets[-1]))
        return list(whole.split(np.diff(offsets).tolist()))

    def values(self, start: int, stop: int) -> Tensor:
        """Returns consecutive steps, float32 ``[L, D]``."""
        shard = bisect_right(self._begins, start) - 1 if len(self._begins) > 1 else 0
        stored, begin = self._shards[shard], self._begins[shard]
        if stop - begin > len(stored):
            end = begin + len(stored)
            return torch.cat([self.values(start, end), self.values(end, stop)])
        return torch.from_numpy(stored.read(start - begin, stop - begin))


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


Column = StoredColumn | MissingColumn


def checked_shards(
    folder: Path, name: str, shards: Mapping[str, StepsFile], columns: Mapping[str, Mapped], begins: Sequence[int]
) -> StoredColumn:
    """Returns the sequences of a modality after checking that its offsets fit the files of its shards.

    Args:
        shards: the files of the modality's features by their names, in order.
        columns: the other files of the store.
        begins: the row at which each shard after the first begins.

    Raises:
        DataError: an offset points outside, or a shard has other steps than its rows.
    """
    offsets = checked_offsets(folder, name, columns, sum(map(len, shards.values())))
    for (file, shard), begin, end in zip(shards.items(), (0, *begins), (*begins, len(offsets) - 1), strict=True):
        if len(shard) != (wanted := offsets[end] - offsets[begin]):
            what = f"has {len(shard):,} steps where its rows have {wanted:,}"
            raise DataError(f"{short(folder / file)}: {what}; it is damaged or of another store, {AGAIN}")
    return StoredColumn([*shards.values()], offsets)
