"""Memory-mapped array files of a feature store: all but its features."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

import numpy as np

from gmsa.data.opening import open_data
from gmsa.data.store.files import AGAIN, ANY, HEADER, check_header
from gmsa.errors import DataError, short
from gmsa.system.reading import reason_of, remedy_of


class Mapped:
    """A memory-mapped array file."""

    __slots__ = ("_mapping", "array")

    def __init__(self, array: np.ndarray, mapping: mmap.mmap | None) -> None:
        self.array, self._mapping = array, mapping

    def release(self) -> None:
        """Releases the pages that were read; the page cache returns them on the next access."""
        if self._mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)


class StoredTexts:
    """Strings, concatenated as UTF-8."""

    __slots__ = ("_bytes", "_offsets")

    def __init__(self, data: Mapped, offsets: np.ndarray) -> None:
        self._bytes, self._offsets = data.array.data, offsets.data

    def __getitem__(self, row: int) -> str:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes().decode("utf-8", "replace")


def open_array(
    path: Path, dtype: str, shape: tuple[int, ...] | None, size: int
) -> tuple[BufferedReader, tuple[int, ...]]:
    """Opens an array file after checking its size and header.

    Args:
        path: the array file.
        dtype: expected NumPy type.
        shape: expected shape; None for one axis whose length follows from the size, as that of a first axis ANY does.
        size: expected bytes of the file.

    Returns:
        The file, and its shape.

    Raises:
        DataError: the file is missing, a link, or differs in size or header.
    """
    itemsize = np.dtype(dtype).itemsize
    shape = (ANY,) if shape is None else shape
    if shape[0] == ANY:
        shape = (max(0, size - HEADER) // (itemsize * int(np.prod(shape[1:], dtype=int))), *shape[1:])
    expected = HEADER + itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    where = short(path)
    file = open_data(path, follow=False)
    try:
        found = os.fstat(file.fileno()).st_size
        if not found == size == expected:
            raise DataError(f"{where}: has {found} bytes, expected {expected}; it is damaged or cut short, {AGAIN}")
        check_header(file.read(HEADER), dtype, shape, where)
    except OSError as error:
        file.close()
        raise DataError(f"{where}: cannot be read: {reason_of(error)}; check the disk") from None
    except BaseException:
        file.close()
        raise
    return file, shape


def map_file(path: Path, dtype: str, shape: tuple[int, ...] | None, size: int) -> Mapped:
    """Maps an array file into memory; arguments and errors as those of :func:`open_array`."""
    file, shape = open_array(path, dtype, shape, size)
    with file:
        if size == HEADER:
            return Mapped(np.zeros(shape, dtype), None)
        try:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            remedy = remedy_of(error, "check the disk")
            raise DataError(f"{short(path)}: cannot be read: {reason_of(error)}; {remedy}") from None
    values = np.frombuffer(mapping, dtype, offset=HEADER).reshape(shape)
    return Mapped(values.astype(values.dtype.newbyteorder("="), copy=False), mapping)


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
