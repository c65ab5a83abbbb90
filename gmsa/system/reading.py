"""The one door for files that gmsa reads: regular files of limited size, every failure an error of one line.

What is read may be a stranger's. A pipe, a device or a sparse giant in the place of a file must neither hang the
command nor fill the memory, and a link in a stranger's folder must not lead out of it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from gmsa.errors import GmsaError, RunError, cut, printable, short

MOST_TEXT = 1 << 20
"""Bytes of a small file that people or gmsa write: settings, an environment, the record of a lock."""
MOST_RECORDS = 1 << 26
"""Bytes of a file that grows with a run: its history, its summary, its tables."""


def expanded(path: str | os.PathLike[str], kind: type[GmsaError] = RunError) -> Path:
    """A path that the user named, its ``~`` and ``$VARS`` expanded, unless something is there by the path as it is.

    Raises:
        GmsaError: it begins with the home of nobody that the system knows, or names a variable that is not set.
    """
    if not isinstance(text := os.fspath(path), str) or not {"~", "$"} & set(text) or _lies_there(text):
        return Path(path)
    for name in re.findall(r"\$(?:\{(\w+)\}|(\w+))", text, re.ASCII):
        if "".join(name) not in os.environ:
            raise kind(f"'{short(path)}': the variable {cut(''.join(name))} is not set; set it, or write the path out")
    named = os.path.expandvars(path)
    try:
        whole = os.path.expanduser(named)
    except ValueError:  # a null byte after the "~"
        whole = named
    if whole.startswith("~"):
        raise kind(f"'{short(path)}': there is no such home folder; write the path out (a file of that name: ./~...)")
    return Path(whole)


def _lies_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a null byte, or half a character
        return False


def open_regular(
    path: str | Path,
    where: str | None = None,
    *,
    follow: bool = True,
    inside: Path | None = None,
    kind: type[GmsaError] = RunError,
) -> BufferedReader:
    """Opens a regular file for reading.

    Args:
        path: the file.
        where: what errors call it (default: its path).
        follow: whether to follow a symbolic link.
        inside: a folder, maybe a stranger's, that links must not lead out of.
        kind: class of the errors.

    Raises:
        GmsaError: the file cannot be opened, or is a folder, a device, a pipe, or a link that must not be followed.
    """
    where = f"'{path}'" if where is None else where
    try:
        if not follow and stat.S_ISLNK(os.lstat(path).st_mode):
            raise kind(f"{where}: is a symbolic link; replace it by the file itself")
        if inside is not None and not _stays(path, inside):
            raise kind(f"{where}: is a link that leads out of '{inside}'; replace it by the file itself")
        # Non-blocking: opening a pipe would wait forever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise kind(f"{where}: does not exist; check the path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, GmsaError):
            raise
        remedy = remedy_of(error, "check the path and its permissions")
        raise kind(f"{where}: cannot be read: {reason_of(error)}; {remedy}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise kind(f"{where}: is not a regular file; replace it by one")
    return os.fdopen(handle, "rb")


def read_bytes(path: str | Path, most: int, *, inside: Path | None = None, kind: type[GmsaError] = RunError) -> bytes:
    """Reads a regular file of at most ``most`` bytes; arguments and errors as :func:`open_regular`."""
    with open_regular(path, inside=inside, kind=kind) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > most else file.read(most + 1)
        except OSError as error:
            raise kind(f"'{path}': cannot be read: {reason_of(error)}; check the disk") from None
    if size > most or len(content) > most:
        raise kind(f"'{path}': has more than {most:,} bytes, too many for such a file; name or restore another")
    return content


def read_text(
    path: str | Path, most: int = MOST_TEXT, *, inside: Path | None = None, kind: type[GmsaError] = RunError
) -> str:
    """Reads a regular file of UTF-8 text; arguments and errors as :func:`read_bytes`."""
    try:
        return read_bytes(path, most, inside=inside, kind=kind).decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind(f"'{path}': is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8") from None


def read_json(
    path: str | Path, most: int = MOST_TEXT, *, inside: Path | None = None, kind: type[GmsaError] = RunError
) -> Any:
    """Reads a JSON file; arguments and errors as :func:`read_bytes`."""
    text = read_text(path, most, inside=inside, kind=kind)
    try:
        return parse_json(text)
    except ValueError as error:
        raise kind(f"'{path}': is damaged: {cut(error)}; restore it") from None


def parse_json(text: str, nan: bool = False) -> Any:
    """Parses JSON.

    Args:
        nan: whether to take NaN and infinity, which the standard does not know.

    Raises:
        ValueError: it is none, is nested too deeply, or holds a number that Python does not read.
    """
    try:
        return json.loads(text) if nan else json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"it holds {constant}, which is not JSON")


def exists(path: str | Path, kind: type[GmsaError] = RunError) -> bool:
    """Whether a path leads to something.

    Raises:
        GmsaError: the system does not say, for want of rights or because the name is too long.
    """
    return _mode(path, kind) is not None


def is_folder(path: str | Path, kind: type[GmsaError] = RunError) -> bool:
    """Whether a path leads to a folder; errors as :func:`exists`."""
    mode = _mode(path, kind)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: str | Path, kind: type[GmsaError] = RunError) -> bool:
    """Whether a path leads to a regular file; errors as :func:`exists`."""
    mode = _mode(path, kind)
    return mode is not None and stat.S_ISREG(mode)


def entries(folder: str | Path, kind: type[GmsaError] = RunError) -> list[Path]:
    """The paths of what a folder holds, sorted; none where there is no folder.

    Raises:
        GmsaError: it is not a folder, or cannot be read.
    """
    try:
        return sorted(Path(folder).iterdir())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise kind(f"'{folder}': cannot be read: {reason_of(error)}; check the path and its permissions") from None


def reason_of(error: Exception) -> str:
    """What the system says of an error, without the path."""
    return printable(getattr(error, "strerror", None) or cut(error))


def remedy_of(error: Exception, otherwise: str) -> str:
    """What to do about an error of the system.

    Args:
        otherwise: where it is not that too many files are open.
    """
    full = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    return "allow more open files by 'ulimit -n'" if full else otherwise


def _mode(path: str | Path, kind: type[GmsaError]) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise kind(
            f"'{short(path)}': cannot be looked at: {reason_of(error)}; check the path and its permissions"
        ) from None


def _stays(path: str | Path, inside: Path) -> bool:
    """Whether a path, its links followed, stays inside a folder."""
    root = Path(os.path.realpath(inside))
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent  # the cache of the Hugging Face Hub, whose files are links to its blobs
    return Path(os.path.realpath(path)).is_relative_to(root)
