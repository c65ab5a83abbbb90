"""A finished study, opened from its folder."""

from __future__ import annotations

import csv
import io
import os
from functools import cached_property
from typing import Any

from gmsa.config import Config
from gmsa.errors import RunError, cut, shown
from gmsa.runs.settings import read_config
from gmsa.system.files import read_summary
from gmsa.system.reading import MOST_RECORDS, exists, expanded, read_text


def _is_choice(best: Any) -> bool:
    """Whether something is what ``summary.json`` says of a best trial."""
    if not isinstance(best, dict) or not isinstance(best.get("trial"), int) or not isinstance(best.get("chose"), dict):
        return False
    values = best.get("values")
    return isinstance(values, dict) and all(isinstance(v, (int, float)) and abs(v) < 1e308 for v in values.values())


class Study:
    """A search for settings with Optuna: its trials and what they found.

    Args:
        folder: folder of a study.

    Raises:
        RunError: the folder holds no study, or is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)
        self.summary: dict[str, Any] = read_summary(self.folder, ("study", "best", "synthetic"), "a study")
        """The content of ``summary.json``."""
        best = self.summary["best"]
        if not isinstance(best, list) or not all(map(_is_choice, best)):
            raise RunError(f"'{self.folder / 'summary.json'}' is damaged: its 'best' is {shown(best)}; restore it")

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.summary["study"])

    @property
    def complete(self) -> bool:
        """Whether a trial has a value."""
        return bool(self.summary["best"])

    @cached_property
    def best(self) -> Config:
        """The config of the best trial; of several objectives, that of the first trial of the Pareto front.

        Raises:
            RunError: no trial has a value.
        """
        self._check_complete()
        several = f"best-{self.summary['best'][0]['trial']:05d}.yaml"
        return read_config(self.folder, several if exists(self.folder / several) else "best.yaml")

    @property
    def best_values(self) -> dict[str, Any]:
        """What the best trial chose, by dotted key.

        Raises:
            RunError: no trial has a value.
        """
        self._check_complete()
        return dict(self.summary["best"][0]["chose"])

    def _check_complete(self) -> None:
        if not self.complete:
            raise RunError(f"no trial of '{self.folder}' has a value; '{self.folder / 'summary.md'}' says why")

    @property
    def trials(self) -> list[dict[str, str]]:
        """The rows of ``trials.csv``: number, state, values, cost and choices of every trial, as text.

        Raises:
            RunError: the file is not there, or is damaged.
        """
        path = self.folder / "trials.csv"
        text = read_text(path, MOST_RECORDS, inside=self.folder)
        try:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise RunError(f"'{path}' is damaged: {cut(error)}; run the study's command again") from None

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        mark = "synthetic data, " if self.summary["synthetic"] else ""
        if not self.complete:
            return f"Study({str(self.folder)!r}: {mark}{len(self)} trials, none with a value)"
        scores = ", ".join(f"{name} {value:.4f}" for name, value in self.summary["best"][0]["values"].items())
        chose = ", ".join(f"{key}={value}" for key, value in self.best_values.items()) or "the config's own"
        return f"Study({str(self.folder)!r}: {mark}{len(self)} trials, best valid {scores} with {chose})"
