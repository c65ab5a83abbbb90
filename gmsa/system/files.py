"""Files that are either complete or absent: atomic writes and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gmsa.errors import RunError, WriteError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Writes a file atomically: temporary file in the same folder, fsync, rename, fsync of the folder.

    A reader, or a run that resumes after a crash, sees the old content or the new, never a part. Only a killed
    process leaves its ``.<name>.<hex>.tmp`` behind; :func:`remove_leftovers` deletes it.

    Raises:
        WriteError: the folder does not exist, is full, or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            # "x" respects the umask, which tempfile's 0600 would not: run folders are shared.
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C must not leave the temporary file either.
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"cannot write '{path}': {reason}; free disk space or repair the disk, then resume") from error


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of killed writers in a folder that no other process writes to."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically, as :func:`write_bytes` does; newlines stay as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON atomically; keys stay in order.

    Raises:
        ValueError: ``value`` contains NaN or infinity, which JSON lacks.
        TypeError: ``value`` contains a type that JSON lacks.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_summary(folder: Path, keys: Iterable[str], what: str) -> dict[str, Any]:
    """The content of a folder's ``summary.json``.

    Args:
        keys: what it must hold.
        what: what the folder should be, for errors.

    Raises:
        RunError: there is none, or it is damaged.
    """
    path = folder / "summary.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _ = [content[key] for key in keys]
    except FileNotFoundError:
        raise RunError(f"'{folder}' is not {what}: it has no {path.name}; name another folder") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"'{path}' is damaged, or not of {what} ({error}); name another folder") from None
    return dict(content)


def check_out_file(path: Path) -> None:
    """Checks that a file can be written, before work that takes time.

    Raises:
        RunError: its folder does not exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise RunError(f"cannot write '{path}': the folder '{path.parent}' does not exist; create it first")
    if path.is_dir():
        raise RunError(f"cannot write '{path}': it is a folder; name a file in it")


def check_out_folder(path: Path) -> None:
    """Checks that a folder exists or can be created.

    Raises:
        RunError: the path or one of its parents is a file.
    """
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise RunError(f"cannot write into '{path}': '{part}' is a file, not a folder; name another")


def sha256_of(path: str | Path) -> str:
    """Computes the SHA-256 of a file, in hex, without loading the file whole."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk; without it, a crash of the machine can undo a rename."""
    if os.name != "posix":  # Windows can neither open nor flush a folder; its rename needs no such step.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
