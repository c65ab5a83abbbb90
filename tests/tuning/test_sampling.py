"""Samplers and pruners: the same draws after an interruption."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.objectives import Bowl, Curves
from helpers.studies import make_task, trials_of
from optuna.trial import TrialState

from gmsa.config import Config
from gmsa.errors import GmsaError
from gmsa.tuning.sampling import SAMPLERS, SeededSampler, make_pruner
from gmsa.tuning.trials import ATTEMPTS
from gmsa.tuning.workers import WorkerTask, run_trials


def interrupted(task: WorkerTask, at: set[int]) -> None:
    """Works through a study as one worker that dies at some places, each time before it can tell."""

    def die(claim: Any) -> list[float]:
        if claim.place in at and claim.attempt == 1:
            if claim.place % 2:  # in the midst of suggesting
                claim.trial.suggest_float("x", -5, 5)
            else:
                with contextlib.suppress(optuna.TrialPruned):
                    task.objective(claim)
            raise KeyboardInterrupt
        return list(task.objective(claim))

    dying = replace(task, objective=die)
    for _ in range(len(at) + 1):
        try:
            run_trials(dying)
        except KeyboardInterrupt:
            continue


@pytest.mark.filterwarnings("ignore:The reported value is ignored")
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("tpe", "off"), ("tpe", "median"), ("tpe", "hyperband"), ("random", "off"), ("qmc", "off"), ("gp", "off")],
)
def test_an_interrupted_study_equals_an_uninterrupted_one(sampler: str, pruner: str, tmp_path: Path) -> None:
    make = Curves() if pruner != "off" else Bowl(tmp_path / "log")
    count = 14 if sampler == "gp" else 20
    whole = make_task(tmp_path / "a", make, count, sampler=sampler, pruner=pruner)
    run_trials(whole)
    broken = make_task(tmp_path / "b", make, count, sampler=sampler, pruner=pruner)
    interrupted(broken, {0, 3, 11, 12, count - 1})
    first, second = trials_of(whole), trials_of(broken)
    assert [t.params for t in first] == [t.params for t in second]
    assert [t.values for t in first] == [t.values for t in second]
    assert [t.state for t in first] == [t.state for t in second]
    assert [t.intermediate_values for t in first] == [t.intermediate_values for t in second]
    assert sum(t.user_attrs.get(ATTEMPTS, 1) - 1 for t in second) == 5
    if pruner != "off":
        assert {t.state for t in first} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_samplers_learn_from_what_was_found(tmp_path: Path) -> None:
    """Not random choice under another name: TPE's later trials are better than its first, and than random ones."""

    def late(sampler: str) -> float:
        task = make_task(tmp_path / sampler, Bowl(tmp_path / "log"), 60, sampler=sampler)
        run_trials(task)
        values = sorted(t.values[0] for t in trials_of(task)[30:])
        return values[len(values) // 2]

    assert late("tpe") < late("random") / 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_depend_on_the_seed_and_the_place_alone(name: str) -> None:
    def draws(seed: int) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=SeededSampler(name, seed))
        for _ in range(4):
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            trial.suggest_float("y", 0, 1)
            study.tell(trial, 1.0)
        return [t.params for t in study.trials]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert len({tuple(p.values()) for p in draws(1)}) == 4
    assert all(p["x"] != p["y"] for p in draws(1)[1:])


def test_pruners_by_name() -> None:
    assert isinstance(make_pruner("median", Config()), optuna.pruners.MedianPruner)
    assert isinstance(make_pruner("hyperband", Config()), optuna.pruners.HyperbandPruner)
    assert isinstance(make_pruner("off", Config()), optuna.pruners.NopPruner)
    assert issubclass(GmsaError, Exception)
