"""When to save in the middle of an epoch, and when to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from gmsa.errors import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MOMENT = 2.0


class Stop:
    """Turns Ctrl-C and SIGTERM into a request to end training after the current step, once that is saved.

    Args:
        save_every: seconds after which a save is due.
    """

    def __init__(self, save_every: float = math.inf) -> None:
        self.save_every = save_every
        self._by: int | None = None
        self._arrived = 0.0
        self._saved = time.monotonic()

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._by is not None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self.save_every

    def saved(self) -> None:
        """Records that the state was saved."""
        self._saved = time.monotonic()

    def interrupt(self) -> NoReturn:
        """Ends training.

        Raises:
            KeyboardInterrupt: Ctrl-C requested it.
            Terminated: SIGTERM did, or another process of the job.
        """
        raise KeyboardInterrupt if self._by == signal.SIGINT else Terminated

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles signals; a second Ctrl-C ends at once. Outside the main thread Python delivers none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # Not at once: torchrun forwards the Ctrl-C that the terminal has sent to all processes already.
        if number == self._by == signal.SIGINT and now - self._arrived > _MOMENT:
            self.interrupt()
        if self._by is None:
            self._by, self._arrived = number, now
