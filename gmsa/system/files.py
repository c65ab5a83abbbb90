"""Files that are either complete or absent: atomic writes and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gmsa.errors import GmsaError, RunError, WriteError, short
from gmsa.system.reading import MOST_RECORDS, entries, exists, is_file, is_folder, open_regular, read_json, reason_of

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
    except (OSError, ValueError) as error:
        raise WriteError(
            f"cannot write '{path}': {reason_of(error)}; free disk space or repair the disk, then resume"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of killed writers in a folder that no other process writes to."""
    for path in entries(folder):
        if _LEFTOVER.fullmatch(path.name):
            remove(path)


def remove(path: Path) -> None:
    """Deletes a file where it is there.

    Raises:
        WriteError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot delete '{path}': {reason_of(error)}; check the rights of its folder") from None


def rename(path: Path, name: str) -> None:
    """Gives a file another name in its folder.

    Raises:
        WriteError: it cannot be renamed.
    """
    try:
        path.replace(path.with_name(name))
    except OSError as error:
        raise WriteError(f"cannot rename '{path}': {reason_of(error)}; check the rights of its folder") from None


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically, as :func:`write_bytes` does; newlines stay as they are.

    What UTF-8 lacks, such as a byte of a file's name, is written as an escape: a report must not fail for it.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


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
    if not exists(path):
        raise RunError(f"'{folder}' is not {what}: it has no {path.name}; name another folder")
    content = read_json(path, MOST_RECORDS, inside=folder)
    if not isinstance(content, dict) or (lacking := [key for key in keys if key not in content]):
        lacks = f"has no {', '.join(lacking)}" if isinstance(content, dict) else "is not an object"
        raise RunError(f"'{path}' is damaged, or not of {what} (it {lacks}); name another folder")
    return content


def check_out_file(path: Path, endings: Iterable[str] | None = None) -> None:
    """Checks that a file can be written, by writing one beside it, before work that takes time.

    Args:
        endings: what the name of a file that is there already must end in to be replaced, if it is to be replaced as
            a whole (default: anything).

    Raises:
        RunError: its folder does not exist or cannot be written, it is a folder or, to be replaced, a link, or
            another kind of file is there, which would be lost.
    """
    check_name(path)
    if not is_folder(path.parent):
        raise RunError(
            f"cannot write '{short(path)}': the folder '{short(path.parent)}' does not exist; create it first"
        )
    if is_folder(path):
        raise RunError(f"cannot write '{path}': it is a folder; name a file in it")
    if endings is not None and path.is_symlink():  # it would be replaced, not what it leads to
        raise RunError(f"cannot write '{path}': it is a link; name the file itself")
    if exists(path):
        if not is_file(path):
            raise RunError(f"cannot write '{path}': it is not a regular file; name another")
        if endings is not None and path.suffix.lower() not in endings:
            kinds = " or ".join(endings)
            raise RunError(f"cannot write '{path}': a file that is no {kinds} is there and would be lost; name another")
        if not os.access(path, os.W_OK) or _kept_by_sticky_folder(path):
            raise RunError(f"cannot write '{path}': there is a file that you may not change; name another")
    _try_to_write(path.parent, path)


def check_log(path: Path) -> None:
    """Checks that a file can be appended to, before the process that speaks into it is started.

    Raises:
        RunError: it cannot be written, or is a link: its folder may be a stranger's.
    """
    check_no_link(path)
    check_out_file(path)


def check_out_folder(path: Path) -> None:
    """Checks that a folder can be written or created, by writing a file, before work that takes time.

    Raises:
        RunError: the path or one of its parents is a file, or cannot be written.
    """
    check_name(path)
    there = next((part for part in (path, *path.parents) if exists(part) or part.is_symlink()), Path())
    if not exists(there):
        raise RunError(f"cannot write into '{path}': '{there}' is a link that leads nowhere; name another")
    if not is_folder(there):
        raise RunError(f"cannot write into '{path}': '{there}' is a file, not a folder; name another")
    _try_to_write(there, path)


REPORTS = {"report.html", "summary.json", "summary.md", "summary.tex"}
"""Files that end a run, an ablation or a study."""


def check_out_parts(folder: Path, *patterns: str) -> None:
    """Checks a folder that is written into once more, and those of its subfolders whose names match a pattern.

    Raises:
        RunError: one of them cannot be written, or is a file or a link; a folder lies where a report is written.
    """
    check_out_folder(folder)
    for part in entries(folder):
        if part.name in REPORTS and is_folder(part):
            raise RunError(f"'{short(part)}' is a folder where a file is to be written; move it away")
        if any(part.match(pattern) for pattern in patterns):
            check_no_link(part)
            check_out_folder(part)


def check_name(path: Path, kind: type[GmsaError] = RunError) -> None:
    """Refuses a name that manifests and reports could not hold, and safetensors not open: they take UTF-8 alone.

    Raises:
        GmsaError: it is not UTF-8; of this class.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise kind(f"'{short(path)}' has a name that is not UTF-8; rename it, or name another") from None


def _kept_by_sticky_folder(path: Path) -> bool:
    """Whether a file is another user's, in a folder such as ``/tmp`` where only its owner may replace it."""
    folder, me = os.stat(path.parent), getattr(os, "geteuid", int)()
    return bool(folder.st_mode & stat.S_ISVTX) and me not in (0, folder.st_uid, os.lstat(path).st_uid)


def check_no_link(path: Path) -> None:
    """Refuses a link in a folder that may be a stranger's.

    Raises:
        RunError: it is one.
    """
    if path.is_symlink():
        raise RunError(f"'{path}' is a link, through which nothing is written; remove the link")


def _try_to_write(folder: Path, path: Path) -> None:
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(probe, "xb"):
            pass
        probe.unlink()
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot write '{short(path)}': {reason_of(error)} in '{short(folder)}'; name another place, or repair that"
        ) from None


def make_folder(path: Path) -> Path:
    """Creates a folder that the user named, and its parents, where they are not there; returns it.

    Raises:
        RunError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RunError(f"cannot create the folder '{short(path)}': {reason_of(error)}; name another place") from None
    return path


def make_subfolder(folder: Path, name: str) -> Path:
    """Creates ``folder/name`` where it is not there, and returns it.

    The folder may be a stranger's, so a link in place of the subfolder is refused: nothing is written through it.

    Raises:
        RunError: it is a link, or cannot be created.
    """
    check_no_link(folder / name)
    return make_folder(folder / name)


def sha256_of(path: str | Path, kind: type[GmsaError] = RunError) -> str:
    """Computes the SHA-256 of a file, in hex, without loading the file whole.

    Raises:
        GmsaError: it cannot be read; of this class.
    """
    digest = hashlib.sha256()
    with open_regular(path, kind=kind) as file:
        try:
            while piece := file.read(1 << 20):
                digest.update(piece)
        except OSError as error:
            raise kind(f"'{path}': cannot be read: {reason_of(error)}; check the disk") from None
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
