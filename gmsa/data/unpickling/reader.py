"""Reads pickled feature files without running what they ask for."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path
from typing import Any

from gmsa.data.unpickling.names import Cut, Damaged, Refused
from gmsa.data.unpickling.opcodes import execute
from gmsa.data.unpickling.plain import check_plain
from gmsa.errors import DataError

_RESAVE = "gmsa reads arrays, lists, dicts, strings and numbers only. Re-save the file with nothing else in it"
_AGAIN = "get the file again and compare its SHA-256 with the publisher's"
_FOREIGN = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the data; run 'git lfs pull'"),
    (b"<", "is a web page or XML, not a pickle; download the file itself, not the page that links to it"),
    (b"PK\x03\x04", "is a zip archive, not a pickle; unpack it first"),
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
    (b"\x93NUMPY", "is a .npy array, not a pickled dict of splits; re-save it in MMSA's format"),
    (b"\x89HDF", "is an HDF5 file, not a pickle; re-save it in MMSA's format"),
)

_GROWTH, _SLACK = 10, 100_000


def load_pickle(path: str | Path) -> Any:
    """Reads a pickle that holds numpy arrays, lists, dicts, tuples, strings, bytes and numbers, of any protocol.

    Pickle is a program: it names functions and calls them. Here a small machine of our own executes its opcodes.
    Names are looked up in a fixed table of what numpy writes and become tokens, which cannot be called: nothing is
    imported, and no code of the file's choice is run. Arrays are made from bytes whose number matches shape and type,
    and whose values are checked where a type has bytes without a value. Arrays of numbers and text are read-only.
    Records, dates, complex numbers, sets and objects of any class are refused. Strings of Python 2 are read as latin-1.

    Time grows linearly with the size of the file. So does memory: the content of arrays from 4 KiB on stays in the
    file, which is mapped, or is decoded from it piece by piece (protocols 0 to 2) or copied (byte order of another
    machine); all else takes what Python's objects do, at most about 150 bytes for each byte of the file. What is
    returned contains itself nowhere, has at most 64 levels, and at most 10 times as many values as the file has
    opcodes, and 100000 more, where a shared list counts wherever it is shared.

    The file must not be changed while its arrays are in use. They would change with it, and where it becomes shorter,
    the system ends the process that asks for the rest.

    Raises:
        DataError: the file is missing, cut short, not a pickle, or asks for anything else (named, and not run).
    """
    path = Path(path)
    try:
        data = _map(path)
        value, opcodes = execute(data)
        check_plain(value, _GROWTH * opcodes + _SLACK)
        return value
    except Refused as refusal:
        raise DataError(f"{path}: refused: {refusal}; {_RESAVE}") from None
    except Damaged as damage:
        raise DataError(f"{path}: not a readable pickle ({damage}); {_AGAIN}") from None
    except Cut:
        raise DataError(f"{path}: is cut short; {_AGAIN}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; check the path and its rights") from None
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory; free some, or split the file") from None
    except DataError:
        raise
    except Exception as error:  # none is known; whatever a file makes go wrong is to be told in one line
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path}: not a readable pickle ({reason}); {_AGAIN}") from None


def _map(path: Path) -> mmap.mmap:
    """The file as bytes that are read when they are asked for."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder says what is wrong
        raise DataError(f"{path}: is not a file but a device or a pipe; save what it gives, and read that")
    with path.open("rb") as file:
        start = file.read(64)
        if not start:
            raise DataError(f"{path}: is empty; {_AGAIN}")
        for signature, meaning in _FOREIGN:
            if start.lstrip().startswith(signature):
                raise DataError(f"{path}: {meaning}")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
