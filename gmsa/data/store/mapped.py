"""Memory-mapped array files of a feature store."""

# N utterances, L steps, D features
from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gmsa.data.opening import open_data
from gmsa.data.store.files import AGAIN, HEADER, check_header
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
    """The sequences of one modality, concatenated."""

    __slots__ = ("_array", "_data", "_half", "_offsets", "_touched", "offsets")

    def __init__(self, data: Mapped, offsets: np.ndarray) -> None:
        # A memoryview returns single numbers three times as fast as an array.
        self._data, self._array, self.offsets, self._offsets = data, data.array, offsets, offsets.data
        self._half, self._touched = data.array.dtype != np.float32, 0

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
        if int(offsets[-1] - offsets[0]) * self._array.shape[1] > _TOGETHER:
            return [None] * (stop - start)
        whole = self.values(int(offsets[0]), int(offsets[-1]))
        return list(whole.split(np.diff(offsets).tolist()))

    def values(self, start: int, stop: int) -> Tensor:
        """Returns a copy of consecutive steps, float32 ``[L, D]``."""
        found = self._array[start:stop]
        found = found.astype(np.float32) if self._half else found.copy()
        self._touched += found.nbytes + _FAULT
        if self._touched > _KEPT:
            self._touched = 0
            self._data.release()
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
        shape: expected shape; None for one axis whose length follows from the size.
        size: expected bytes of the file.

    Raises:
        DataError: the file is missing, a link, or differs in size or header.
    """
    itemsize = np.dtype(dtype).itemsize
    shape = (size - HEADER,) if shape is None else shape
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


def checked_offsets(folder: Path, name: str, columns: Mapping[str, Mapped]) -> np.ndarray:
    """Returns the offsets of the rows after checking that they lie within the array.

    Raises:
        DataError: an offset points outside.
    """
    offsets, end = columns[f"{name}.offsets.npy"].array, len(columns[f"{name}.npy"].array)
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"{short(folder / f'{name}.offsets.npy')}: points outside '{name}.npy'; it is damaged, {AGAIN}")
    return offsets
