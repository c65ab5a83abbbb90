"""The console that all commands print to, and its progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from gmsa.errors import printable
from gmsa.system.streams import Forgiving, ReaderGone

_LABEL, _BAR = 28, 20
"""Maximum width of the label, and width of the bar; with count and times they fit 80 columns."""


_showing: set[bool] = set()
"""Consoles that show a bar (is it stderr's?); older versions of Rich allow one bar at a time."""


def console(stderr: bool = False) -> Console:
    """Returns the console of stdout or stderr; it prints text verbatim: no markup, emoji, highlighting or wrapping."""
    return _console(stderr)


class _Console(Console):
    @property
    def file(self) -> Any:
        """The stream as it is now; it forgives, also in a program that is no command of gmsa's."""
        stream: Any = super().file
        return stream if isinstance(stream, Forgiving) else Forgiving(stream)

    @file.setter
    def file(self, stream: Any) -> None:
        self._file = stream

    def print(self, *objects: Any, **settings: Any) -> None:
        """Prints; names from data or a stranger's folder cannot command the terminal."""
        super().print(*(printable(x) if isinstance(x, str) else x for x in objects), **settings)

    def on_broken_pipe(self) -> None:
        """Lets the command choose its exit code when the reader has closed the pipe; Rich would exit with 1."""
        raise ReaderGone


@cache
def _console(stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


class ProgressBar:
    """A progress bar; lines printed meanwhile appear above it."""

    def __init__(self, bar: Progress, label: str, total: int, completed: int) -> None:
        self._bar = bar
        self._task = bar.add_task(printable(label), total=total, completed=completed)

    def advance(self, n: int = 1) -> None:
        """Adds ``n`` to the completed count."""
        self._bar.advance(self._task, n)

    def update(self, *, completed: int | None = None, total: int | None = None, label: str | None = None) -> None:
        """Sets the completed count, the total or the label."""
        self._bar.update(
            self._task, completed=completed, total=total, description=None if label is None else printable(label)
        )


@contextmanager
def progress_bar(label: str, total: int, completed: int = 0, *, stderr: bool = False) -> Iterator[ProgressBar]:
    """Shows a progress bar on a terminal until the block ends; shows nothing elsewhere, or within another bar."""
    out = console(stderr)
    columns = (
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(max_width=_LABEL, no_wrap=True, overflow="ellipsis"),
        ),
        BarColumn(_BAR),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    hidden = stderr in _showing or not out.file.isatty()
    try:
        with Progress(*columns, console=out, transient=True, disable=hidden) as bar:
            if not hidden:
                _showing.add(stderr)
            yield ProgressBar(bar, label, total, completed)
    finally:
        if not hidden:
            _showing.discard(stderr)
