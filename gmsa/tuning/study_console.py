"""The console of a study: a progress bar, and a line per trial that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from gmsa.system.console import ProgressBar, console, progress_bar
from gmsa.tuning.objective import COST
from gmsa.tuning.study_report import KILLED
from gmsa.tuning.trials import REASON, ended, latest, place_of


class StudyConsole:
    """The lines of a study: a bar on a terminal, and a line per trial that has ended, by whichever worker."""

    def __init__(self, study: Study, objectives: Sequence[str], synthetic: bool) -> None:
        self.study, self.objectives = study, objectives
        self.mark = "synthetic: " if synthetic else ""
        self._ended = {place_of(t) for t in self._trials() if ended(t)}
        self._stack = ExitStack()
        self._bar: ProgressBar | None = None

    def __enter__(self) -> StudyConsole:
        self._bar = self._stack.enter_context(progress_bar("trials", len(self._trials()), self.ended))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._bar = None

    @property
    def ended(self) -> int:
        """Trials that have ended, as last seen."""
        return len(self._ended)

    def say(self, line: str) -> None:
        """Prints a line."""
        console().print(line)

    def look(self) -> int:
        """Shows the trials that have ended since the last look; returns how many have in all, -1 without an answer."""
        try:
            trials = self._trials()
        except optuna.exceptions.StorageInternalError:  # a server that restarts
            return -1
        new = [t for t in trials if ended(t) and place_of(t) not in self._ended]
        for trial in sorted(new, key=lambda t: t.datetime_complete or t.datetime_start):  # type: ignore[arg-type,return-value]
            self._ended.add(place_of(trial))
            total = f"{len(self._ended)}/{len(trials)} trials"
            self.say(f"{self.mark}{total}: {describe_trial(trial, self.objectives)}")
        if self._bar is not None:
            self._bar.update(completed=self.ended, total=len(trials))
        return self.ended

    def _trials(self) -> list[FrozenTrial]:
        return latest(self.study.get_trials(deepcopy=False))


def describe_trial(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    """How a trial ended, in a line."""
    seconds = trial.user_attrs.get(COST, {}).get("seconds")
    took = "" if seconds is None else f", {seconds:.1f} s"
    if trial.state == TrialState.FAIL:
        return f"trial {place_of(trial)}: failed: {trial.user_attrs.get(REASON, KILLED)}"
    if trial.state == TrialState.PRUNED:
        return f"trial {place_of(trial)}: stopped after {len(trial.intermediate_values)} epochs{took}"
    values = ", ".join(f"{n} {v:.4f}" for n, v in zip(objectives, trial.values or (), strict=False))
    return f"trial {place_of(trial)}: valid {values}{took}"
