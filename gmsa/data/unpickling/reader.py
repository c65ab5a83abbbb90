"""Reads pickled feature files without executing code."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from gmsa.data.opening import open_data
from gmsa.data.unpickling.names import Cut, Damaged, Refused
from gmsa.data.unpickling.opcodes import execute
from gmsa.data.unpickling.plain import check_plain
from gmsa.errors import DataError, cut, short
from gmsa.system.reading import is_folder, reason_of

_RESAVE = "gmsa reads arrays, lists, dicts, strings and numbers only. Re-save the file with nothing else in it"
_AGAIN = "download the file again and compare its SHA-256 with the publisher's"
_FOREIGN = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the data; run 'git lfs pull'"),
    (b"<", "is a web page or XML, not a pickle; download the file itself, not the page that links to it"),
    (b"PK\x03\x04", "is a zip archive, not a pickle; unpack it first"),
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
    (b"\x93NUMPY", "is a .npy array, not a pickled dict of splits; re-save it in MMSA's format"),
    (b"\x89HDF", "is an HDF5 file, not a pickle; re-save it in MMSA's format"),
)

_GROWTH, _SLACK, _SLACK_BYTES = 10, 100_000, 1 << 28


def load_pickle(path: str | Path) -> Any:
    """Reads a pickle of NumPy arrays, lists, dicts, tuples, strings, bytes and numbers, of any protocol, safely.

    A pickle is a program that names functions and calls them. Here, a small machine executes its opcodes: names are
    looked up in a fixed table of what NumPy writes, and become tokens that cannot be called. Nothing is imported, and
    no code that the file names is run. The number of an array's bytes must match its shape and type, and its values
    are checked if some bytes are invalid for the type. Numeric and text arrays are read-only. Records, dates, complex
    numbers, sets and objects of any class are refused. Strings of Python 2 are read as latin-1.

    Time and memory grow linearly with the size of the file. The content of arrays from 4 KiB on stays in the file,
    which is memory-mapped, or is decoded in pieces (protocols 0 to 2) or copied (foreign byte order). All other values
    take at most about 150 bytes for each byte of the file. The result never contains itself, has at most 64 levels, and
    at most 100000 + 10 times the number of opcodes values, and at most 256 MiB + 10 times the size of the file in
    arrays and strings, where what is shared counts each time.

    The file must not change while its arrays are in use: they would change with it, and truncating it kills the
    process on the next access.

    Args:
        path: the pickle.

    Raises:
        DataError: the file is missing, truncated, not a pickle, or asks for anything else, which the error names.
    """
    path, where = Path(path), short(path)
    try:
        data = _map(path)
        value, opcodes = execute(data)
        check_plain(value, _GROWTH * opcodes + _SLACK, _GROWTH * len(data) + _SLACK_BYTES)
        return value
    except Refused as refusal:
        raise DataError(f"{where}: refused: {refusal}; {_RESAVE}") from None
    except Damaged as damage:
        raise DataError(f"{where}: not a readable pickle ({damage}); {_AGAIN}") from None
    except Cut:
        raise DataError(f"{where}: is truncated; {_AGAIN}") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {reason_of(error)}; check the disk") from None
    except MemoryError:
        raise DataError(f"{where}: does not fit into memory; free memory, or split the file") from None
    except DataError:
        raise
    except Exception as error:  # none is known, but any error that a file causes must be one line
        reason = cut(f"{type(error).__name__}: {error}")
        raise DataError(f"{where}: not a readable pickle ({reason}); {_AGAIN}") from None


def _map(path: Path) -> mmap.mmap:
    """Memory-maps a file after checking that it looks like a pickle."""
    where = short(path)
    if is_folder(path, DataError):
        what = "is a folder, but no feature store, since it has no manifest.json"
        raise DataError(f"{where}: {what}; name a pickle, or import the folder with 'gmsa data import'")
    with open_data(path) as file:
        start = file.read(64)
        if not start:
            raise DataError(f"{where}: is empty; {_AGAIN}")
        for signature, meaning in _FOREIGN:
            if start.lstrip().startswith(signature):
                raise DataError(f"{where}: {meaning}")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
