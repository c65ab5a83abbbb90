"""The terminal: one console for all that commands print, and a progress bar that fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

_LABEL, _BAR = 28, 20
"""Columns of the label, at most, and of the bar: with count and times they come to 80."""


_showing: set[bool] = set()
"""Consoles that show a bar, by whether they are of stderr: older versions of Rich allow one at a time."""


def console(stderr: bool = False) -> Console:
    """The console of stdout or stderr. It prints text as it is: no markup, emoji, highlighting or wrapping."""
    return _console(stderr)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves it to the command how to end when its reader has gone; Rich would exit with 1."""
        raise BrokenPipeError


@cache
def _console(stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


class ProgressBar:
    """How far some work has come; what is printed meanwhile stands above the bar."""

    def __init__(self, bar: Progress, label: str, total: int, completed: int) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total, completed=completed)

    def advance(self, n: int = 1) -> None:
        """Moves the bar on by ``n``."""
        self._bar.advance(self._task, n)

    def update(self, *, completed: int | None = None, total: int | None = None, label: str | None = None) -> None:
        """Sets what is given."""
        self._bar.update(self._task, completed=completed, total=total, description=label)


@contextmanager
def progress_bar(label: str, total: int, completed: int = 0, *, stderr: bool = False) -> Iterator[ProgressBar]:
    """Shows a progress bar on a terminal, and nothing elsewhere nor within another; it goes when the work is done."""
    out = console(stderr)
    columns = (
        TextColumn("{task.description}", table_column=Column(max_width=_LABEL, no_wrap=True, overflow="ellipsis")),
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
