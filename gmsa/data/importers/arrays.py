"""Reads ``.npy`` files and members of ``.npz`` files that strangers made: nothing is unpickled, nothing extracted."""

# L steps, D features
from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.lib import format as npy

from gmsa.data.store.files import open_regular
from gmsa.errors import DataError

LARGEST = 1 << 30
"""Bytes that the features of one utterance may have."""
DENSEST = 200
"""How much smaller than its content a compressed member may be, once the content has :data:`ROOM` bytes."""
ROOM = 16 << 20

_PLAIN = "save it with numpy.save as an array of numbers"


@dataclass(frozen=True)
class ArrayFile:
    """A ``.npy`` file, or a member of an ``.npz`` file."""

    path: Path
    name: str
    """What errors and checksums call it: the path as the source has it."""
    member: str | None = None
    """Name within the archive; empty for its only one; None for a ``.npy`` file."""


@dataclass(frozen=True)
class Shape:
    """What an array's head says."""

    steps: int
    dim: int
    half: bool
    """Whether it is float16."""


def check_relative(name: str, folder: Path, where: str) -> tuple[str, ...]:
    """The parts of a path that stays within ``folder``, by its name alone.

    Raises:
        DataError: it is empty, absolute, or leads out.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
        raise DataError(f"{where}: path {name!r} leads out of the folder, or may; name a file under '{folder}'")
    return parts


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of ``name`` within a folder, if it is there and no part of it is a link.

    Raises:
        DataError: it is absolute, leads out, goes through a link, or does not exist.
    """
    path = folder
    for part in check_relative(name, folder, where):
        path = path / part
        try:
            linked = stat.S_ISLNK(os.lstat(path).st_mode)
        except OSError:
            raise DataError(f"{where}: '{name}' does not exist under '{folder}'; check the path") from None
        if linked:
            raise DataError(f"{where}: '{name}' goes through a link, which is not followed; put the file itself there")
    return path


def read_shape(file: ArrayFile, where: str) -> Shape:
    """What an array's head says, checked against the size of the file; its values are not read.

    Raises:
        DataError: the file is missing, unsafe, or not an array [L, D] or [D] of numbers.
    """
    where = f"{where} '{file.name}'"
    with _open(file, where) as (stream, size):
        return _head(stream, size, where)[1]


def read_array(file: ArrayFile, where: str) -> tuple[np.ndarray, bytes]:
    """An array [L, D], and the SHA-256 of what the file (or member) holds.

    An axis of size 1 beyond two is dropped, and [D] is a sequence of one step.

    Raises:
        DataError: the file is missing, unsafe, or not an array [L, D] or [D] of numbers.
    """
    where = f"{where} '{file.name}'"
    with _open(file, where) as (stream, size):
        raw = stream.read(size + 1)
    if len(raw) != size:
        raise DataError(f"{where}: has changed while it was read; import it again")
    content = io.BytesIO(raw)
    found, shape = _head(content, size, where)
    values = np.frombuffer(raw, found.dtype, offset=content.tell())
    values = values.reshape(found.shape, order="F" if found.fortran else "C")
    return values.reshape(shape.steps, shape.dim), hashlib.sha256(raw).digest()


@dataclass(frozen=True)
class _Head:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


@contextmanager
def _open(file: ArrayFile, where: str) -> Iterator[tuple[IO[bytes], int]]:
    """What holds the array, and how many bytes that has."""
    with open_regular(file.path, where) as raw:
        if file.member is None:
            yield raw, _limited(os.fstat(raw.fileno()).st_size, where)
            return
        try:
            with zipfile.ZipFile(raw) as archive:
                info = _member(archive, file.member, where)
                with archive.open(info) as stream:
                    yield stream, _limited(info.file_size, where)
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            EOFError,
            NotImplementedError,
            RuntimeError,
            OSError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{where}: is a damaged archive ({reason}); save it again with numpy.savez") from None
        except DataError:
            raise
        except Exception as error:  # zlib, lzma and struct raise their own types for damaged content
            raise DataError(f"{where}: is a damaged archive ({type(error).__name__}); save it again") from None


def _limited(size: int, where: str) -> int:
    if size > LARGEST:
        raise DataError(f"{where}: holds {size} bytes, and one utterance may have {LARGEST}; check how it was saved")
    return size


def _member(archive: zipfile.ZipFile, name: str, where: str) -> zipfile.ZipInfo:
    infos = archive.infolist()
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if ".." in parts or info.orig_filename.startswith(("/", "\\")) or re.match("[A-Za-z]:", info.orig_filename):
            raise DataError(f"{where}: has a member {info.orig_filename!r}, which leads out of it; make it anew")
    found = [info for info in infos if info.filename in (name, f"{name}.npy")] if name else infos
    if len(found) != 1:
        names = ", ".join(info.filename.removesuffix(".npy") for info in infos[:8]) or "none"
        remedy = "name one as FILE.npz#MEMBER" if not name else "check the name"
        raise DataError(f"{where}: has {len(found)} members to take (it holds {names}); {remedy}")
    info = found[0]
    if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
        raise DataError(f"{where}: member '{info.filename}' is a link or encrypted; save it with numpy.savez")
    if info.file_size > max(ROOM, DENSEST * info.compress_size):
        raise DataError(
            f"{where}: member '{info.filename}' grows from {info.compress_size} to {info.file_size} bytes, "
            "as no features do; save it with numpy.savez"
        )
    return info


def _head(stream: IO[bytes], size: int, where: str) -> tuple[_Head, Shape]:
    """Reads and checks the head of a ``.npy``, before anything of the size that it names is made."""
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        head = _Head(*read(stream))
    except (ValueError, KeyError, EOFError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise DataError(f"{where}: is not a .npy array of format 1.0 or 2.0; {_PLAIN}") from None
    if head.dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never unpickled; {_PLAIN}")
    if head.dtype.kind not in "biuf" or head.dtype.names or head.dtype.itemsize > 8:
        raise DataError(f"{where}: is of type {head.dtype}; {_PLAIN}")
    count = 1
    for axis in head.shape:
        if type(axis) is not int or axis < 0:
            raise DataError(f"{where}: has shape {head.shape}; {_PLAIN}")
        count *= axis
    expected = stream.tell() + count * head.dtype.itemsize
    if expected != size:
        raise DataError(f"{where}: holds {size} bytes, but {expected} by its head; it is damaged, save it again")
    shape = head.shape
    while len(shape) > 2 and 1 in shape[:-1]:
        at = shape.index(1)
        shape = shape[:at] + shape[at + 1 :]
    if len(shape) not in (1, 2) and count:
        raise DataError(f"{where}: has shape {list(head.shape)}; expected [steps, features]")
    if not count:
        return head, Shape(0, shape[-1] if len(shape) == 2 else 0, head.dtype == np.float16)
    return head, Shape(shape[0] if len(shape) == 2 else 1, shape[-1], head.dtype == np.float16)
