"""Trials that train: their curve, early stopping, and no look at the test split."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.studies import make_task, trials_of, tune
from optuna.trial import TrialState

from gmsa.config import load_config
from gmsa.tuning import objective as objectives
from gmsa.tuning import read_space
from gmsa.tuning.storage import StoragePlace
from gmsa.tuning.trials import Queue, place_of
from gmsa.tuning.workers import WorkerTask, run_trials


def test_a_trial_never_holds_the_test_split(base: Path) -> None:
    config = load_config(base)
    prepared = objectives.prepared_without_test(config)
    assert set(prepared.splits) == set(prepared.corpus.splits) == {"train", "valid"}


def test_the_value_of_a_trial_is_the_last_of_its_curve(base: Path, here: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ("--trials", "1", "--pruner", "off", "--trial-seeds", "1,2")
    assert tune(base, out, *arguments, "--set", "protocol.name=distillation", "--set", "data.label_ratio=0.5") == 0
    storage = StoragePlace(out).connect()
    study = optuna.load_study(study_name="base-default", storage=storage)
    for trial in study.trials:
        steps = sorted(trial.intermediate_values)
        assert steps == list(range(1, 17))  # 2 seeds, 4 stages of 2 epochs
        assert trial.intermediate_values[16] == trial.values[0]


def test_a_hopeless_trial_is_stopped_between_seeds_and_within_one(base: Path, tmp_path: Path) -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0))
    good = study.ask()
    for step in range(1, 5):
        good.report(0.5, step)
    study.tell(good, 0.5)

    def steps_until_stopped(scores: list[tuple[int, float]]) -> int:
        trial = study.ask()
        curve = objectives.Curve(trial, 2, "MAE", True)
        for step, (epoch, score) in enumerate(scores, 1):
            if epoch == 1 and curve.own:
                curve.end()
            row = {"stage": "supervised", "epoch": epoch, "best": True, "seconds": 1.0, "valid": {"MAE": score}}
            try:
                curve.on_epoch_end(row, 2)
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
                return step
        study.tell(trial, state=TrialState.FAIL)
        return 0

    assert steps_until_stopped([(1, 0.9)]) == 1
    assert steps_until_stopped([(1, 0.4), (2, 0.4), (1, 0.9)]) == 3  # a good first seed does not save it
    assert steps_until_stopped([(1, 0.4), (2, 0.4), (1, 0.4), (2, 0.9)]) == 0  # at the end its value is known


def train_or_die(task: WorkerTask, at: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Works through a study of real trainings; at some places the worker dies, once, after an epoch."""
    left, epoch = dict(at), objectives.Curve.on_epoch_end

    def dying(self: objectives.Curve, row: dict[str, Any], epochs: int) -> None:
        verdict = None
        try:
            epoch(self, row, epochs)
        except optuna.TrialPruned as stopped:
            verdict = stopped
        if left.get(place_of(self.trial._get_latest_trial())) == len(self.rows):
            del left[place_of(self.trial._get_latest_trial())]
            raise KeyboardInterrupt
        if verdict is not None:
            raise verdict

    with monkeypatch.context() as patch:
        patch.setattr(objectives.Curve, "on_epoch_end", dying)
        for _ in range(len(at) + 1):
            with contextlib.suppress(KeyboardInterrupt):
                run_trials(task)
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_interrupted_trainings_equal_uninterrupted_ones(
    pruner: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(base, ["optim.epochs=3", "run.seeds=[1, 2]"])
    space = read_space(tmp_path / "spaces" / "default.yaml", config)
    found = []
    for name, at in (("a", {}), ("b", {0: 2, 3: 5, 6: 1})):
        objective = objectives.Training(config, space, ("MAE",), tmp_path / name / "trials", True)
        task = make_task(tmp_path / name, objective, 9, config=config, sampler="tpe", pruner=pruner)
        train_or_die(task, at, monkeypatch)
        found.append(trials_of(task))
    one, two = found
    assert [t.state for t in one] == [t.state for t in two]
    assert [t.params for t in one] == [t.params for t in two]
    assert [t.intermediate_values for t in one] == [t.intermediate_values for t in two]
    assert [t.values for t in one] == [t.values for t in two]
    assert {t.state for t in one} == {TrialState.COMPLETE, TrialState.PRUNED}
    # What a pruner compares with: every value from the first step on.
    assert all(sorted(t.intermediate_values) == list(range(1, len(t.intermediate_values) + 1)) for t in one)


def test_a_verdict_outlives_the_worker_that_heard_it(base: Path, tmp_path: Path) -> None:
    config = load_config(base)
    space = read_space(tmp_path / "spaces" / "default.yaml", config)
    objective = objectives.Training(config, space, ("MAE",), tmp_path / "trials", True)
    task = make_task(tmp_path, objective, 1, config=config)
    dead = Queue(task.load_study(), task.where)
    claim = dead.claim()
    assert claim is not None
    claim.trial.set_user_attr(objectives.PRUNED, 1)
    assert dead._lock is not None
    dead._lock.release()
    run_trials(task)
    assert trials_of(task)[0].state == TrialState.PRUNED


def test_the_curve_is_of_the_objective(base: Path, here: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "1", "--objective", "Corr") == 0
    study = optuna.load_study(study_name="base-default", storage=StoragePlace(out).connect())
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    for trial in study.trials:
        assert trial.intermediate_values[max(trial.intermediate_values)] == trial.value
        assert -1 <= trial.value <= 1  # type: ignore[operator]
