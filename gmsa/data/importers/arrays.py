"""Reads untrusted ``.npy`` files and members of ``.npz`` archives, without unpickling or extracting anything."""

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
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from gmsa.data.opening import open_data
from gmsa.data.store.files import LARGEST, MOST_FEATURES
from gmsa.errors import DataError, cut, listed, short, shown
from gmsa.system.reading import reason_of

DENSEST = 200
"""Largest compression ratio of an archive member whose content exceeds :data:`ROOM` bytes."""
ROOM = 16 << 20
"""Bytes that an archive member may decompress to at any ratio."""

MOST_MEMBERS = 1_000_000
"""Arrays of an archive, at most."""
MOST_GROWTH = 50
"""Compression ratio of an archive as a whole, at most, beyond a quarter of a GiB."""

_SLACK = 1 << 28
_MOST_AXES = 32
_PLAIN = "save it with numpy.save as an array of numbers"


@dataclass(frozen=True)
class ArrayFile:
    """A ``.npy`` file, or a member of an ``.npz`` file."""

    path: Path
    name: str
    """The path as the source writes it; used in errors and checksums."""
    member: str | None = None
    """Name of the member; empty for the only member of an archive; None for a ``.npy`` file."""


@dataclass(frozen=True)
class Shape:
    """Size and type of an array, from its header."""

    steps: int
    dim: int
    half: bool
    """Whether it is float16."""


def check_relative(name: str, folder: Path, where: str, said: str | None = None) -> tuple[str, ...]:
    """Returns the parts of a relative path after checking that its name cannot leave ``folder``.

    Args:
        said: the path as the source writes it, for errors (default: ``name``).

    Raises:
        DataError: the path is empty, absolute, or may leave the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
        raise DataError(f"{where}: path {shown(said or name)} may leave the folder; use a path under '{short(folder)}'")
    return parts


def resolve_inside(folder: Path, name: str, where: str, said: str | None = None) -> Path:
    """Returns the path of ``name`` in a folder; the file must exist, and no part of the path may be a symbolic link.

    Args:
        said: the path as the source writes it, for errors (default: ``name``): ``name`` may hold the user's variables.

    Raises:
        DataError: the path is absolute, leaves the folder, goes through a link, or does not exist.
    """
    path, given = folder, shown(said or name)
    for part in check_relative(name, folder, where, said):
        path = path / part
        try:
            linked = stat.S_ISLNK(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{where}: {given} does not exist under '{short(folder)}'; check the path") from None
        except (OSError, ValueError) as error:
            reason = f"{reason_of(error)}; check the path and its permissions"
            raise DataError(f"{where}: {given} under '{short(folder)}' cannot be looked at: {reason}") from None
        if linked:
            raise DataError(f"{where}: {given} goes through a symbolic link; replace it by the file itself")
    return path


def read_shape(file: ArrayFile, where: str) -> Shape:
    """Reads the header of an array and checks it against the file size; reads no values.

    Raises:
        DataError: the file is missing, unsafe, or not an array [L, D] or [D] of numbers.
    """
    where = f"{where} {shown(file.name)}"
    with _open_array(file, where) as (stream, size):
        return _read_header(stream, size, where)[1]


def read_array(file: ArrayFile, where: str) -> tuple[np.ndarray, bytes]:
    """Reads an array [L, D], and returns it with the SHA-256 of the file (or member).

    Axes of size 1 are squeezed until two axes remain; [D] is a sequence of one step.

    Raises:
        DataError: the file is missing, unsafe, or not an array [L, D] or [D] of numbers.
    """
    where = f"{where} {shown(file.name)}"
    with _open_array(file, where) as (stream, size):
        raw = stream.read(size + 1)
    if len(raw) != size:
        raise DataError(f"{where}: changed while it was read; import it again")
    return _read_values(io.BytesIO(raw), where), hashlib.sha256(raw).digest()


def read_members(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays [L, D] of an ``.npz`` by the names of its members, which are many: the archive is opened once.

    Raises:
        DataError: the archive or a member is damaged, unsafe, too large, or not an array [L, D] or [D] of numbers.
    """
    where, found = short(path), {}
    with open_data(path) as raw, _archive(raw, where) as archive:
        infos = archive.infolist()
        size, total = os.fstat(raw.fileno()).st_size, sum(info.file_size for info in infos)
        if len(infos) > MOST_MEMBERS or total > MOST_GROWTH * size + _SLACK:
            raise DataError(
                f"{where}: has {len(infos):,} members of {total:,} bytes in all, from {size:,}; more than features have"
            )
        for info in infos:
            name = info.filename.removesuffix(".npy")
            place = f"{where}: {shown(name)}"
            _check_member(info, place)
            with archive.open(info) as stream:
                content = io.BytesIO(stream.read(_check_size(info.file_size, place) + 1))
            found[name] = _read_values(content, place)
    return found


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


@contextmanager
def _open_array(file: ArrayFile, where: str) -> Iterator[tuple[IO[bytes], int]]:
    """Opens the stream of an array; yields it with its size in bytes."""
    with open_data(file.path, where, follow=False) as raw:
        if file.member is None:
            try:
                yield raw, _check_size(os.fstat(raw.fileno()).st_size, where)
            except OSError as error:
                raise DataError(f"{where}: cannot be read: {reason_of(error)}; check the disk") from None
            return
        with _archive(raw, where) as archive:
            info = _member(archive, file.member, where)
            with archive.open(info) as stream:
                yield stream, _check_size(info.file_size, where)


@contextmanager
def _archive(raw: BinaryIO, where: str) -> Iterator[zipfile.ZipFile]:
    """Opens an ``.npz``; every failure inside the block is one of the archive, unless it is a DataError."""
    try:
        with zipfile.ZipFile(raw) as archive:
            yield archive
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f"{where}: is a damaged archive ({cut(error)}); save it again with numpy.savez") from None
    except DataError:
        raise
    except Exception as error:  # zlib, lzma and struct raise their own types for damaged content
        raise DataError(f"{where}: is a damaged archive ({type(error).__name__}); save it again") from None


def _check_size(size: int, where: str) -> int:
    if size > LARGEST:
        raise DataError(f"{where}: has {size} bytes; the limit for one utterance is {LARGEST}; check how it was saved")
    return size


def _member(archive: zipfile.ZipFile, name: str, where: str) -> zipfile.ZipInfo:
    infos = archive.infolist()
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if ".." in parts or info.orig_filename.startswith(("/", "\\")) or re.match("[A-Za-z]:", info.orig_filename):
            raise DataError(
                f"{where}: member {shown(info.orig_filename)} may leave the archive; create the archive again"
            )
    found = [info for info in infos if info.filename in (name, f"{name}.npy")] if name else infos
    if len(found) != 1:
        names = listed([info.filename.removesuffix(".npy") for info in infos])
        remedy = "choose one as FILE.npz#MEMBER" if not name else "check the name"
        raise DataError(f"{where}: {len(found)} members match, expected one (members: {names}); {remedy}")
    _check_member(found[0], where)
    return found[0]


def _check_member(info: zipfile.ZipInfo, where: str) -> None:
    if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
        raise DataError(f"{where}: member {shown(info.filename)} is a link or encrypted; save it with numpy.savez")
    if info.file_size > max(ROOM, DENSEST * info.compress_size):
        raise DataError(
            f"{where}: member {shown(info.filename)} grows from {info.compress_size} to {info.file_size} bytes, "
            "more than features do; save it with numpy.savez"
        )


def _read_values(content: io.BytesIO, where: str) -> np.ndarray:
    """Reads an array [L, D] from the bytes of a ``.npy`` file."""
    raw = content.getvalue()
    found, shape = _read_header(content, len(raw), where)
    if not shape.steps:
        return np.zeros((0, shape.dim), found.dtype)
    values = np.frombuffer(raw, found.dtype, offset=content.tell())
    return values.reshape(found.shape, order="F" if found.fortran else "C").reshape(shape.steps, shape.dim)


def _read_header(stream: IO[bytes], size: int, where: str) -> tuple[_Header, Shape]:
    """Reads and checks the header of a ``.npy`` before anything of its size is allocated."""
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        header = _Header(*read(stream))
    except (ValueError, KeyError, EOFError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise DataError(f"{where}: is not a .npy array of format 1.0 or 2.0; {_PLAIN}") from None
    if header.dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never unpickled; {_PLAIN}")
    if header.dtype.kind not in "biuf" or header.dtype.names or header.dtype.itemsize > 8:
        raise DataError(f"{where}: is of type {cut(header.dtype)}; {_PLAIN}")
    if len(header.shape) > _MOST_AXES:
        raise DataError(f"{where}: has {len(header.shape)} axes; expected [steps, features]")
    count = 1
    for axis in header.shape:
        if type(axis) is not int or not 0 <= axis <= LARGEST:
            raise DataError(f"{where}: has shape {cut(header.shape)}; {_PLAIN}")
        count *= axis
    expected = stream.tell() + count * header.dtype.itemsize
    if expected != size:
        raise DataError(f"{where}: has {size} bytes, but its header says {cut(expected)}; it is damaged, save it again")
    shape, half = header.shape, header.dtype == np.float16
    while len(shape) > 2 and 1 in shape[:-1]:
        at = shape.index(1)
        shape = shape[:at] + shape[at + 1 :]
    if len(shape) not in (1, 2) and count:
        raise DataError(f"{where}: has shape {cut(list(header.shape))}; expected [steps, features]")
    if not count:
        return header, Shape(0, shape[-1] if len(shape) == 2 and shape[-1] <= MOST_FEATURES else 0, half)
    return header, Shape(shape[0] if len(shape) == 2 else 1, shape[-1], half)
