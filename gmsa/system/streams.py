"""Standard streams that cannot end a command: closed, full, or of an encoding that lacks what is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Forgiving:
    """A stream that drops what it cannot write, and remembers why; a reader that has gone is still an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        """Why something was dropped; None where nothing was."""

    def write(self, text: str) -> int:
        """Writes, or drops, text."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except BrokenPipeError:
                raise
            except OSError as error:
                self.lost = error
        return len(text)

    def flush(self) -> None:
        """Flushes what was written."""
        if self.lost is None:
            try:
                self._stream.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                self.lost = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def forgiving_streams() -> Iterator[Forgiving]:
    """Makes stdout and stderr forgiving until the block ends; yields stdout.

    A closed one takes everything and keeps nothing. What its encoding lacks is written as an escape.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    made = []
    for stream in before:
        if stream is None:
            # Left open: it is the process's stdout from now on.
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            with suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")
        made.append(Forgiving(stream))
    sys.stdout, sys.stderr = made
    try:
        yield made[0]
    finally:
        for stream in made:
            with suppress(BrokenPipeError):
                stream.flush()
        sys.stdout, sys.stderr = before
        for stream in made:
            if stream.lost is not None:
                close_quietly(stream)


def close_quietly(stream: Any) -> None:
    """Lets a stream end in nothing: Python flushes it at exit, and would report the same failure once more."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fill_descriptors() -> None:
    """Opens closed standard descriptors on nothing: else the next file that opens would take what C code prints."""
    with suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(opened, True)
        os.close(opened)
