"""Keeps libraries that write to file descriptor 2 themselves from an end user's terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_lock = threading.Lock()
_inside = 0
_kept: int | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """Leads file descriptor 2 into nothing; what Python itself prints there meanwhile is lost too.

    It may be entered again, also by other threads: the last one to leave gives the descriptor back.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _kept
    with _lock:
        if _inside == 0:
            with suppress(OSError, ValueError, AttributeError):  # there is no stderr, or it is closed
                sys.stderr.flush()
            with suppress(OSError):
                _kept = os.dup(2)
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, 2)
                os.close(nothing)
        _inside += 1


def _leave() -> None:
    global _inside, _kept
    with _lock:
        _inside -= 1
        if _inside == 0 and _kept is not None:
            os.dup2(_kept, 2)
            os.close(_kept)
            _kept = None
