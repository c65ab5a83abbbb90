"""A lock that admits one writer per folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gmsa.errors import RunError
from gmsa.system.files import write_json

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
        finally:
            record.unlink(missing_ok=True)
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
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _name(record: dict[str, Any] | None) -> str:
    if record is None:
        return "another process"
    return f"process {record.get('pid')} on '{record.get('host')}' (since {record.get('since')})"
