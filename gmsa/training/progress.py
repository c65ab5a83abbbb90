"""What long work shows: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Reports the epochs of a run. Use it as a context manager.

    On a terminal one bar counts utterances; elsewhere each epoch is a line.
    """

    def __init__(self, silent: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=silent)
        self._bar: Bar | None = None
        self._task: Any = None
        if sys.stdout.isatty() and not silent:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(line)

    def start(self, stage: str, seed: int, utterances: int) -> None:
        """Begins a stage that sees ``utterances`` in all its epochs."""
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(f"seed {seed} {stage}", total=utterances)

    def step(self, ids: Sequence[str]) -> None:
        """Counts a step over these utterances."""
        if self._bar is not None:
            self._bar.advance(self._task, len(ids))

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """Shows a row of the history."""
        shown = {name: row["valid"][name] for name in ("MAE", "Corr") if name in row["valid"]} or row["valid"]
        valid = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
        text = (
            f"seed {row['seed']} {row['stage']} epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, "
            f"valid {valid}, {row['seconds']:.1f} s"
            f"{' *' if row['best'] else ''}"
        )
        if self._bar is None:
            self.say(text)
        else:
            self._bar.update(self._task, description=text)
