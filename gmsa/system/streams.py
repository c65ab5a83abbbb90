"""Standard streams that cannot end a command: closed, full, or of an encoding that lacks what is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class ReaderGone(BrokenPipeError):
    """Nobody reads stdout any more, as in ``gmsa data info x.pkl | head -1``."""


class Forgiving:
    """A stream that drops what it cannot write, and remembers why; what its encoding lacks is written as an escape.

    Args:
        stream: where to write.
        needs_reader: whether a reader that has gone is an error, :class:`ReaderGone`, when it is first noticed.
    """

    def __init__(self, stream: TextIO, needs_reader: bool = True) -> None:
        self._stream = stream
        self._needs_reader = needs_reader
        self.lost: OSError | ValueError | None = None
        """Why something was dropped; None where nothing was."""

    def write(self, text: str) -> int:
        """Writes, or drops, text."""
        self._try(self._write, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes, or drops, texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes what was written."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        try:
            return self._stream.isatty()
        except ValueError:  # it is closed
            return False

    def end_in_nothing(self) -> None:
        """Leads a stream that lost something into nothing: Python flushes it at exit, and would fail once more."""
        with suppress(OSError, ValueError, AttributeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # not there yet in a copy that is being made
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def _try(self, act: Callable[..., object], *arguments: Any) -> None:
        if self.lost is not None:
            return
        try:
            act(*arguments)
        except (OSError, ValueError) as error:  # a closed file is a ValueError
            self.lost = error
            if self._needs_reader and isinstance(error, BrokenPipeError):
                raise ReaderGone(*error.args) from None


@contextmanager
def forgiving_streams() -> Iterator[Forgiving]:
    """Makes stdout and stderr forgiving until the block ends; yields stdout.

    A closed one takes everything and keeps nothing. Nobody needs to read stderr.
    """
    fill_descriptors()
    before = sys.stdout, sys.stderr
    # What stands in for a closed one stays open: loggers may keep it.
    streams = [open(os.devnull, "w", encoding="utf-8") if s is None else s for s in before]  # noqa: SIM115
    made = Forgiving(streams[0]), Forgiving(streams[1], needs_reader=False)
    sys.stdout, sys.stderr = made
    try:
        yield made[0]
    finally:
        for stream in made:
            with suppress(ReaderGone):
                stream.flush()
        sys.stdout, sys.stderr = before
        for stream in made:
            if stream.lost is not None:
                stream.end_in_nothing()


def fill_descriptors() -> None:
    """Opens closed standard descriptors on nothing: else the next file that opens would take what C code prints."""
    with suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(opened, True)
        os.close(opened)
