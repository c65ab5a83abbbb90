"""One writer per folder."""

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
    """Keeps all others from writing into a folder, which must exist; yields whom it takes over from, if anyone.

    The kernel holds the lock and takes it back when the process dies, however that happens. Beside it stands who has
    it: host, process and boot. A record that outlives its lock on this host is of a killed writer, and is taken over.
    One of another host may be of a writer that the kernel here knows nothing of (not every network file system passes
    locks on): it is not.

    Raises:
        RunError: somebody else writes there, or may.
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
                f"'{folder}' is marked as being written by {_name(before)}, which cannot be looked at from here; "
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
