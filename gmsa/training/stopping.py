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
    """Turns Ctrl-C and SIGTERM into a wish that training grants after the step at hand, once that is saved."""

    def __init__(self, save_every: float = math.inf) -> None:
        """Takes the seconds after which a save is due."""
        self.save_every = save_every
        self._by: int | None = None
        self._heard = 0.0
        self._saved = time.monotonic()

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._by is not None

    @property
    def due(self) -> bool:
        """Whether the last save is too long ago."""
        return time.monotonic() - self._saved >= self.save_every

    def saved(self) -> None:
        """Notes a save."""
        self._saved = time.monotonic()

    def obey(self) -> NoReturn:
        """Stops.

        Raises:
            KeyboardInterrupt: Ctrl-C was what asked.
            Terminated: SIGTERM was, or another process of the job.
        """
        raise KeyboardInterrupt if self._by == signal.SIGINT else Terminated

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears signals; Ctrl-C again, after a moment, stops at once. Outside the main thread nothing can be heard."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # Not within the moment: torchrun hands on the Ctrl-C that the terminal has sent to all already.
        if number == self._by == signal.SIGINT and now - self._heard > _MOMENT:
            self.obey()
        if self._by is None:
            self._by, self._heard = number, now
