"""The progress of a run: a line per epoch, and on a terminal a bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gmsa.errors import printable
from gmsa.system.console import console as stdout_console
from gmsa.training.callbacks.base import Callback, RunInfo


class Progress(Callback):
    """Prints a line per epoch; on a terminal, a bar below them counts the stage's utterances."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or stdout_console()
        self._bar: Bar | None = None
        self._task: Any = None
        if self.console.file.isatty() if console is None else console.is_terminal:
            times = (TimeElapsedColumn(), TimeRemainingColumn())
            # A bar without a width of its own takes what is left of the line.
            columns = (TextColumn("{task.description}", markup=False), BarColumn(None), MofNCompleteColumn(), *times)
            self._bar = Bar(*columns, console=self.console, transient=True, expand=True)

    def on_start(self, run: RunInfo) -> None:
        """Shows the bar."""
        if self._bar is not None:
            self._bar.start()

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()

    def on_message(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(printable(line))

    def on_stage_start(self, stage: str, seed: int, utterances: int) -> None:
        """Begins the stage's bar."""
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(printable(f"seed {seed} {stage}"), total=utterances)

    def on_step(self, ids: Sequence[str]) -> None:
        """Advances the bar."""
        if self._bar is not None:
            self._bar.advance(self._task, len(ids))

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """Prints the epoch's line, of at most 80 columns with names and numbers of the usual length."""
        valid = row["valid"]
        shown = {name: valid[name] for name in ("MAE", "Corr", "weighted_F1") if name in valid}
        shown = shown or {f"valid {name}": valid[name] for name in valid if name == "loss"}
        scores = "".join(f", {name} {value:.3f}" for name, value in shown.items())
        seconds = f"{row['seconds']:.1f}s" if row["seconds"] < 10 else f"{row['seconds']:.0f}s"
        # A stage that trains nothing has no loss.
        loss = "" if math.isnan(row["loss"]) else f", loss {row['loss']:.3f}"
        found = f"{loss}{scores}, {seconds}".removeprefix(", ")
        where = f"seed {row['seed']} {row['stage']} epoch {row['epoch']}/{epochs}"
        self.on_message(f"{where}: {found}{' *' if row['best'] else ''}")
