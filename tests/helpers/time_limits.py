"""A limit on what a test may wait for, such as the other end of a pipe."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Ends what hangs; with a failure of the test, which nothing under test catches."""

    def hangs(*_: object) -> NoReturn:
        raise AssertionError(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
