"""Array files that are written incrementally, so that memory need not hold them."""

from __future__ import annotations

import os
import sys
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.data.store.files import HEADER, StoredFile, header
from gmsa.system.files import sha256_of

_BLOCK = 8192
"""Numbers of a column that are written together."""


class GrowingArray:
    """A ``.npy`` file that is written incrementally."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self.path, self.dtype, self.bytes = folder / name, dtype, 0
        self.file = open(self.path, "xb", buffering=1 << 18)  # noqa: SIM115
        self.file.write(bytes(HEADER))

    def write(self, values: bytes | memoryview) -> None:
        """Appends raw values."""
        self.bytes += self.file.write(values)

    def finish(self, shape: tuple[int, ...]) -> StoredFile:
        """Writes the header, closes the file, and hashes it as it is on disk."""
        if self.file.closed:
            self.file = open(self.path, "r+b")  # noqa: SIM115
        self.file.seek(0)
        self.file.write(header(self.dtype, shape))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return StoredFile(HEADER + self.bytes, sha256_of(self.path))


class GrowingNumbers(GrowingArray):
    """A column of one number per row, written in blocks, since a write per number would dominate the time."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        super().__init__(folder, name, dtype)
        self._code = {"<i8": "q", "<f8": "d", "|i1": "b"}[dtype]
        self._block: array[Any] = array(self._code)

    def add(self, value: float) -> None:
        """Appends a number."""
        self._block.append(value)
        if len(self._block) >= _BLOCK:
            self._write_block()

    def finish(self, shape: tuple[int, ...]) -> StoredFile:
        """Writes the last block and the header, and closes and hashes the file."""
        self._write_block()
        return super().finish(shape)

    def renumber(self, order: np.ndarray) -> None:
        """Replaces every number but NaN by the one at its place in ``order``."""
        self._write_block()
        self.file.flush()
        with open(self.path, "r+b") as file:
            place = HEADER
            while True:
                file.seek(place)
                values = np.frombuffer(file.read(8 * _BLOCK), self.dtype).copy()
                if not len(values):
                    return
                there = ~np.isnan(values)
                values[there] = order[values[there].astype(np.int64)]
                file.seek(place)
                place += file.write(values.tobytes())

    def _write_block(self) -> None:
        if sys.byteorder == "big":
            self._block.byteswap()
        self.write(self._block.tobytes())
        self._block = array(self._code)


class GrowingRows:
    """Rows of unequal length, concatenated, and the offset of each row."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self._folder, self._name = folder, name
        self.values = GrowingArray(folder, f"{name}.npy", dtype)
        self.files = [self.values]
        self.offsets = GrowingNumbers(folder, f"{name}.offsets.npy", "<i8")
        self.total = self.longest = self.present = 0
        self.offsets.add(0)

    def begin_file(self) -> None:
        """Lets the next rows go into a further file."""
        self.values.file.close()
        self.values = GrowingArray(self._folder, f"{self._name}.{len(self.files)}.npy", self.values.dtype)
        self.files.append(self.values)

    def add(self, values: bytes | memoryview, length: int) -> None:
        """Appends a row of ``length`` steps."""
        if length:
            self.values.write(values)
            self.total += length
            self.longest = max(self.longest, length)
            self.present += 1
        self.offsets.add(self.total)
