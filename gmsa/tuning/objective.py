"""One trial: a config trained on its seeds, scored on the validation split alone, and pruned if unpromising."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
import yaml
from optuna.trial import Trial

from gmsa.config import Config, to_dict
from gmsa.config.components import component_name
from gmsa.config.groups.target import SELECTABLE
from gmsa.metrics import higher_is_better
from gmsa.models import build_model
from gmsa.runs.initial_weights import start_of
from gmsa.runs.prepare import Prepared, check_fits, prepare, reading
from gmsa.runs.train import make_trainer, train_seed
from gmsa.system.device import set_up
from gmsa.system.files import make_subfolder, write_text
from gmsa.system.reading import exists
from gmsa.training.callbacks import Callback
from gmsa.tuning.optuna_adapter import frozen
from gmsa.tuning.space import Space, apply_values
from gmsa.tuning.trials import Claim

COSTS = ("seconds", "parameters")
"""What a study can minimize beside scores: seconds of training, weights of the model. They have no value by epoch."""
COST, PRUNED = "cost", "pruned"
"""User attributes of a trial: its ``seconds``, ``epochs`` and ``parameters``; the step at which it was pruned."""


def objectives_of(config: Config) -> tuple[str, ...]:
    """What a study of a config can optimize: scores on the validation split, then costs."""
    own = SELECTABLE[config.target.chosen_metrics]
    return tuple(dict.fromkeys((*own, *map(component_name, config.run.metrics), *COSTS)))


def direction_of(objective: str) -> Literal["minimize", "maximize"]:
    """Which way an objective is optimized."""
    return "maximize" if objective not in COSTS and higher_is_better(objective) else "minimize"


class Objective(Protocol):
    """What a worker calls for every trial. It is handed to the worker's process, so it must be picklable."""

    def __call__(self, claim: Claim) -> Sequence[float]:
        """Works at a trial and returns its values; raises ``optuna.TrialPruned`` if it is unpromising."""


@dataclass(frozen=True)
class Training:
    """The objective of a study: trains a trial's config."""

    config: Config
    """The config that trials change; its ``run.seeds`` are those of every trial."""
    space: Space
    objectives: tuple[str, ...]
    """Names of :func:`objectives_of`."""
    folder: Path
    """Folder of the trials' run folders."""
    pruning: bool

    def __call__(self, claim: Claim) -> list[float]:
        """Trains a trial's seeds one after the other; returns the mean scores, total seconds and number of weights.

        A trial that another worker began is resumed from its last finished epoch.
        """
        config = apply_values(self.config, self.space.suggest(claim.trial))
        trials = make_subfolder(self.folder.parent, self.folder.name)
        name = f"{claim.trial.number:05d}"
        if claim.before is not None and not exists(trials / name):
            take_over(trials / f"{claim.before:05d}", trials / name)
        folder = make_subfolder(trials, name)
        write_text(folder / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))
        device = set_up(config.run)
        prepared = prepared_without_test(replace(self.config, data=config.data))
        check_fits(prepared.corpus, config)
        score = config.select if self.objectives[0] in COSTS else self.objectives[0]
        curve = Curve(claim.trial, len(config.run.seeds), score, self.pruning)
        curve.parameters = sum(p.numel() for p in build_model(dict(prepared.corpus.dims), config).parameters())
        if PRUNED in claim.trial.user_attrs:
            raise optuna.TrialPruned  # a worker that was killed had decided it
        claim.leftovers = folder
        with self._cost(claim.trial, curve):
            for seed in config.run.seeds:
                start = start_of(config, prepared, seed, device)
                trainer = make_trainer(config, prepared, seed, start, folder / f"seed-{seed}", device, curve)
                curve.begin(trainer.history)
                train_seed(trainer, prepared.training_data(config, seed))
                curve.end()
        totals = {"seconds": curve.seconds, "parameters": float(curve.parameters)}
        return [totals[name] if name in totals else curve.mean(name) for name in self.objectives]

    @contextlib.contextmanager
    def _cost(self, trial: Trial, curve: Curve) -> Iterator[None]:
        """Records what a trial cost, however it ends."""
        try:
            yield
        finally:
            epochs = sum(not math.isnan(row["loss"]) for row in curve.rows)  # not those of stages that train nothing
            cost = {"seconds": curve.seconds, "epochs": epochs, "parameters": curve.parameters}
            trial.set_user_attr(COST, cost)


def take_over(before: Path, folder: Path) -> None:
    """Copies what an earlier attempt at a trial has saved, whole or not at all; on another machine there is nothing."""
    half = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    if before.is_symlink():
        return
    try:
        shutil.copytree(before, half, ignore=_not_regular)
        half.rename(folder)
    except OSError:  # none there, or its worker is alive after all: start over
        shutil.rmtree(half, ignore_errors=True)


def _not_regular(folder: str, names: list[str]) -> set[str]:
    """What is not copied of a folder: hidden files, and links, pipes and devices, which gmsa makes none of."""
    kinds = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return {n for n, kind in kinds.items() if n.startswith(".") or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))}


class Curve(Callback):
    """Reports the validation score to the study after every epoch, and prunes an unpromising trial.

    The value of an epoch is the mean of the final scores of the finished seeds and of the best score so far of the
    current seed in its current stage: after the last epoch it is the trial's value. Epochs of pre-training have no
    such score and are not reported.
    """

    def __init__(self, trial: Trial, seeds: int, score: str, pruning: bool) -> None:
        self.trial, self.seeds, self.score, self.pruning = trial, seeds, score, pruning
        self.done: list[list[dict[str, Any]]] = []
        self.own: list[dict[str, Any]] = []
        self.parameters = 0
        self._reported = set(frozen(trial).intermediate_values)

    def begin(self, history: Sequence[dict[str, Any]]) -> None:
        """Begins a seed, with the epochs that it has finished before."""
        self.own = list(history)

    def end(self) -> None:
        """Ends a seed."""
        self.done.append(self.own)
        self.own = []

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The epochs of all seeds so far."""
        return [row for rows in (*self.done, self.own) for row in rows]

    @property
    def seconds(self) -> float:
        """Seconds that they took."""
        return float(sum(row["seconds"] for row in self.rows))

    def mean(self, score: str) -> float:
        """Mean over the seeds of a score at the epoch whose weights were kept."""
        last = [[row for row in rows if row["best"]][-1]["valid"][score] for rows in (*self.done, self.own) if rows]
        return float(sum(last) / len(last))

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """Reports the epoch.

        Raises:
            optuna.TrialPruned: the trial is unpromising.
        """
        self.own.append(dict(row))
        if row["stage"] == "pretrain":
            return
        step = sum(r["stage"] != "pretrain" for r in self.rows)
        value = self.mean(self.score)
        if step not in self._reported and len(self.trial.study.directions) == 1:
            self.trial.report(value, step)
        over = row["epoch"] == epochs and len(self.done) + 1 == self.seeds  # perhaps: a stage may follow
        if self.pruning and not over and self._unpromising(step, value):
            self.trial.set_user_attr(PRUNED, step)  # Hyperband would not say it again
            raise optuna.TrialPruned

    def _unpromising(self, step: int, value: float) -> bool:
        """Whether Optuna's pruner would prune at the current value.

        ``trial.should_prune`` looks at a trial's best value of all steps: a good first seed would save any trial.
        """
        study = self.trial.study
        seen = copy.copy(frozen(self.trial))  # a journal hands out its own
        seen.intermediate_values = {step: value}
        return study.pruner.prune(study, seen)


_held: dict[tuple[Any, ...], Prepared] = {}


def prepared_without_test(config: Config) -> Prepared:
    """The data without its test split, for studies. The last data set that was read is kept in memory."""
    key = reading(config)
    if key not in _held:
        _held.clear()
        whole = prepare(config)
        corpus = replace(whole.corpus, splits={s: u for s, u in whole.corpus.splits.items() if s != "test"})
        _held[key] = replace(whole, corpus=corpus, splits={s: u for s, u in whole.splits.items() if s != "test"})
    return _held[key]
