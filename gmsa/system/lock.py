"""A lock that admits one writer per folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gmsa.errors import RunError, cut
from gmsa.system.files import remove, write_json
from gmsa.system.reading import read_json, reason_of

RECORD = ".writer.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def only_writer(folder: Path) -> Iterator[str | None]:
    """Locks an existing folder for writing; yields the killed writer whose lock it takes over, or None.

    The kernel releases the lock when the process ends, however it ends. A record beside the lock names its holder by
    host, process and boot. A record of this host without a lock is that of a killed writer; this process takes over.
    A record of another host may be that of a live writer whose lock is invisible here, because not every network file
    system passes locks on; this process does not take over.

    Raises:
        RunError: another process writes into the folder, or may.
    """
    record = folder / RECORD
    me = _me()
    lock = FileLock(folder / ".writer.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"'{folder}' is being written by {_name(_read(record))}; wait for it, or stop it") from None
    except (OSError, NotImplementedError) as error:  # the latter where the file system has no locks
        raise RunError(
            f"'{folder}' cannot be locked: {reason_of(error)} at '{Path(lock.lock_file).name}'; check its permissions"
        ) from None
    try:
        before = _read(record)
        if before is not None and before.get("host") != me["host"]:
            raise RunError(
                f"'{folder}' is marked as being written by {_name(before)}, whose state is unknown here; "
                f"if that has ended, delete '{record}'"
            )
        try:
            write_json(record, me)
            yield None if before is None else _name(before)
        except BaseException:
            with suppress(OSError):  # what went wrong first is the error
                record.unlink(missing_ok=True)
            raise
        remove(record)
    finally:
        lock.release()


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "",
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _read(path: Path) -> dict[str, Any] | None:
    """The record of a writer; None where there is none that can be read. It may be a stranger's."""
    try:
        record = read_json(path, inside=path.parent)
    except RunError:
        return None
    return record if isinstance(record, dict) else None


def _name(record: dict[str, Any] | None) -> str:
    if record is None:
        return "another process"
    pid, host, since = (cut(record.get(key)) for key in ("pid", "host", "since"))
    return f"process {pid} on '{host}' (since {since})"
