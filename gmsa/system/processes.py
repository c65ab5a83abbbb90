"""Processes that train beside each other: they end with their parent, and leave Ctrl-C to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

_SAFE = "PYTHONSAFEPATH"
WORKER = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_ARENA_MAX": "1",
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**20)),
}
"""Environment of a worker, which counts when it starts: one thread, so that the last bits of features are the same
whatever the caller's settings, and glibc gives memory back to the system."""


def end_with_parent() -> None:
    """Ends this process as soon as its parent is gone, even if that was killed outright."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def speak_into(file: Path) -> None:
    """Appends all that this process says to a file, native code included."""
    # Not a context manager: it stays open as long as the process lives.
    sys.stdout = sys.stderr = log = file.open("a", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back for a moment, and for good in a process that is started meanwhile: its parent ends it.

    Where no signal can be held back (Windows), Ctrl-C reaches both at once.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def children_allowed() -> Iterator[None]:
    """Lets this process start others although its parent called it a daemon, as Dask calls its workers.

    Daemons may have none because they would outlive their parent; those that :func:`end_with_parent` do not.
    """
    config: dict[str, object] = getattr(multiprocessing.current_process(), "_config")  # noqa: B009 - it is private
    before = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


@contextmanager
def safe_path() -> Iterator[None]:
    """Lets a Python that is started meanwhile import nothing from the working directory, which may be a stranger's.

    It has this process's ``sys.path`` only once multiprocessing is imported. Python 3.10 knows no such protection.
    """
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before


@contextmanager
def worker_environment() -> Iterator[None]:
    """Lets processes that are started meanwhile have the environment of a worker."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in WORKER}
    os.environ.update(WORKER)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
