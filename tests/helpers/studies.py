"""Small studies, and workers that are killed."""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from gmsa.config import Config
from gmsa.tune import main
from gmsa.tuning.storage import StoragePlace
from gmsa.tuning.trials import fill, latest, place_of
from gmsa.tuning.workers import WorkerTask, run_workers

SPACE = """
optim.lr: {float: [1e-4, 1e-2], log: true}
model.heads: {choice: [2, 4]}
graph.intra: {choice: [complete, window]}
graph.radius: {int: [1, 4], when: {graph.intra: window}}
"""


def make_task(
    folder: Path, objective: Any, trials: int, first: dict[str, Any] | None = None, **more: Any
) -> WorkerTask:
    """A study of ``trials`` places in a folder's journal, and what its workers do."""
    where = more.pop("where", StoragePlace(folder))
    settings = {"sampler": "random", "pruner": "off", "seed": 3, "config": Config()} | more
    task = WorkerTask(where, "study", objective, **settings)
    storage = where.connect()
    with where.alone(storage, "study"):
        study = optuna.create_study(study_name="study", storage=storage, load_if_exists=True)
        fill(study, trials, first or {})
    return task


def trials_of(task: WorkerTask) -> list[optuna.trial.FrozenTrial]:
    return latest(task.load_study().get_trials())


def kill_some(
    task: WorkerTask, jobs: int, kills: int, pause: float, meanwhile: Callable[[int], None] = lambda killed: None
) -> list[str]:
    """Runs workers, and kills some of them one after the other; returns what was said."""
    said: list[str] = []
    killed = ended = 0
    last, study = time.monotonic(), task.load_study()

    def look() -> int:
        nonlocal killed, last, ended
        children = sorted(process.pid for process in multiprocessing.active_children() if process.pid)
        if killed < kills and len(children) == jobs and time.monotonic() - last > pause:
            os.kill(children[killed % jobs], signal.SIGKILL)
            killed, last = killed + 1, time.monotonic()
            meanwhile(killed)
        with contextlib.suppress(optuna.exceptions.StorageInternalError):
            ended = sum(t.state.is_finished() for t in latest(study.get_trials(deepcopy=False)))
        return ended

    run_workers(task, jobs, look, said.append)
    assert killed == kills
    return said


def check_each_once(task: WorkerTask, count: int) -> None:
    """Every place is complete exactly once, none runs or waits."""
    found = trials_of(task)
    assert [place_of(t) for t in found] == list(range(count))
    assert Counter(t.state for t in found) == {TrialState.COMPLETE: count}
    everything = task.load_study().get_trials()
    complete = Counter(place_of(t) for t in everything if t.state == TrialState.COMPLETE)
    assert set(complete.values()) == {1}
    assert not [t for t in everything if t.state in (TrialState.RUNNING, TrialState.WAITING)]


def tune(base: Path, out: Path, *arguments: str) -> int:
    """Runs the command in this process and returns its exit code."""
    try:
        main(["--config", str(base), "--out", str(out), *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "trials.csv").open()))


def without_seconds(out: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(out)]
