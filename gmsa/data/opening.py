"""Opens data files: regular files that hold about as much as they claim."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from gmsa.errors import DataError, short
from gmsa.system.reading import open_regular, reason_of

_LARGE = 1 << 30
_MOST_HOLES = 64
_MOST_PIECES = 10_000


def open_data(path: Path, where: str | None = None, follow: bool = True) -> BufferedReader:
    """Opens a data file; arguments and errors as :func:`~gmsa.system.reading.open_regular`.

    Refuses a file of over 1 GiB that is a hole for the most part: a few bytes on disk would become memory of any size.
    """
    where = short(path) if where is None else where
    file = open_regular(path, where, follow=follow, kind=DataError)
    try:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGE and _MOST_HOLES * _written(file, size) < size:
            raise DataError(f"{where}: claims {size:,} bytes, but is almost empty on disk; restore or replace it")
    except BaseException:
        file.close()
        raise
    return file


def lies_at(path: Path) -> bool:
    """Whether something is at a path, even a broken link.

    Raises:
        DataError: the system does not say, for want of rights or because the name is too long.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        remedy = "check the path and its permissions"
        raise DataError(f"{short(path)}: cannot be looked at: {reason_of(error)}; {remedy}") from None
    return True


def _written(file: BufferedReader, size: int) -> int:
    """Bytes of a file that are not holes, where the file system tells; else its size."""
    if not hasattr(os, "SEEK_DATA"):
        return size
    handle, found, end = file.fileno(), 0, 0
    try:
        for _ in range(_MOST_PIECES):
            start = os.lseek(handle, end, os.SEEK_DATA)
            end = os.lseek(handle, start, os.SEEK_HOLE)
            found += end - start
            if end >= size:
                return found
    except OSError:  # no more data, or a file system that has no holes
        return found if end else _blocks(handle)
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return found + size - end  # many small holes, as where zeros between features were left out


def _blocks(handle: int) -> int:
    status = os.fstat(handle)
    return min(status.st_size, 512 * status.st_blocks)
