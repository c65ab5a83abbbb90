"""The queue of trials and its workers: every trial done once, whoever is killed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
from helpers.objectives import Bowl, Deadly, Failing, Wordy
from helpers.studies import check_each_once, kill_some, make_task, trials_of
from optuna.trial import TrialState

from gmsa.errors import RunError
from gmsa.tuning import workers
from gmsa.tuning.storage import RETRIES
from gmsa.tuning.trials import REASON, Queue, fill
from gmsa.tuning.workers import LONGEST_REASON, last_line, run_trials, run_workers


def test_places_are_filled_once(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 3, first={"x": 2.0, "kind": "a"})
    study = task.load_study()
    assert fill(study, 3, {}) == 0
    assert fill(study, 5, {}) == 2
    assert fill(study, 2, {}) == 0
    run_trials(task)
    assert [t.number for t in study.get_trials()] == [0, 1, 2, 3, 4]
    assert study.trials[0].params == {"x": 2.0, "kind": "a"}
    assert (tmp_path / "log").read_text().split()[::2] == ["0", "1", "2", "3", "4"]


def test_a_trial_belongs_to_one_worker(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 2)
    one, two = Queue(task.load_study(), task.where), Queue(task.load_study(), task.where)
    first, second = one.claim(), two.claim()
    assert first is not None
    assert second is not None
    assert (first.place, second.place) == (0, 1)
    assert Queue(task.load_study(), task.where).claim() is None
    with one.alive(first):
        assert one.tell(first, TrialState.COMPLETE, [1.0])
    assert not two.over
    with two.alive(second):
        assert two.tell(second, TrialState.FAIL, reason="why")
    assert two.over
    assert [t.state for t in trials_of(task)] == [TrialState.COMPLETE, TrialState.FAIL]
    assert trials_of(task)[1].user_attrs[REASON] == "why"


def test_the_trial_of_a_dead_worker_goes_on_under_its_number(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 2)
    dead = Queue(task.load_study(), task.where)
    claim = dead.claim()
    assert claim is not None
    x = claim.trial.suggest_float("x", -5, 5)
    assert Queue(task.load_study(), task.where).claim().place == 1  # type: ignore[union-attr]
    assert dead._lock is not None
    dead._lock.release()  # what the kernel does
    again = Queue(task.load_study(), task.where).claim()
    assert again is not None
    assert (again.place, again.attempt) == (0, 2)
    assert again.trial.suggest_float("x", -5, 5) == x


def test_a_trial_that_gets_on_is_not_given_up(tmp_path: Path) -> None:
    """Who stops a long trial every night does not lose it."""
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    for night in range(RETRIES + 5):
        queue = Queue(task.load_study(), task.where)
        claim = queue.claim()
        assert claim is not None
        assert claim.attempt == min(2, night + 1)
        claim.trial.report(1.0, night)
        assert queue._lock is not None
        queue._lock.release()


def test_a_trial_whose_workers_all_die_is_given_up(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    for attempt in range(1, RETRIES + 2):
        queue = Queue(task.load_study(), task.where)
        claim = queue.claim()
        assert claim is not None
        assert claim.attempt == attempt
        assert queue._lock is not None
        queue._lock.release()
    last = Queue(task.load_study(), task.where)
    assert last.claim() is None
    assert last.over
    assert trials_of(task)[0].user_attrs[REASON].startswith(f"its process was killed {RETRIES + 1} times")


@pytest.mark.slow
def test_a_trial_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    """As one that needs more memory than there is: the others are done all the same."""
    task = make_task(tmp_path, Deadly(), 3)
    said: list[str] = []
    run_workers(task, 1, lambda: sum(t.state.is_finished() for t in trials_of(task)), said.append)
    states = [t.state for t in trials_of(task)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials_of(task)[1].user_attrs[REASON].startswith(f"its process was killed {RETRIES + 1} times")
    assert said == ["worker 1 was killed by SIGKILL; another takes its place"] * (RETRIES + 1)


def test_workers_that_are_killed_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = multiprocessing.get_context("fork")
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda kind: forks)  # they need no import
    task = pickle.loads(pickle.dumps(make_task(tmp_path, Bowl(tmp_path / "log", 0.3), 12)))  # what a spawned one gets
    said = kill_some(task, jobs=2, kills=1, pause=0.5)
    check_each_once(task, 12)
    assert len(said) == 1


@pytest.mark.slow
def test_six_workers_two_hundred_trials_twenty_kills(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log", 0.5), 200)
    kill_some(task, jobs=6, kills=20, pause=0.5)
    check_each_once(task, 200)


@pytest.mark.slow
def test_a_study_whose_workers_all_end_the_same_way_gives_up_soon(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    (tmp_path / "journal.log").write_text("not a journal\n")
    said: list[str] = []
    with pytest.raises(RunError, match=r"3 workers died one after the other .*line 1 is damaged"):
        run_workers(task, 1, lambda: 0, said.append)
    assert said == ["worker 1 ended with exit code 1 (see its log); another takes its place"] * 2
    assert "Traceback" in (tmp_path / "logs" / "worker-1.log").read_text()


def test_workers_that_could_not_write_their_logs_are_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda kind: None)  # what would start them
    logs, victim = tmp_path / "logs", tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    for make, message in (
        (lambda: logs.write_text("x"), "cannot create the folder"),
        (lambda: logs.symlink_to(victim), "is a link, through which nothing is written"),
        (lambda: os.mkfifo(make_logs(logs)), "is not a regular file"),
        (lambda: make_logs(logs).mkdir(), "is a folder"),
        (lambda: make_logs(logs).symlink_to(victim / "file"), "is a link, through which nothing is written"),
    ):
        make()
        with pytest.raises(RunError, match=message):
            run_workers(task, 2, lambda: 0, lambda line: None)
        shutil.rmtree(logs) if logs.is_dir() and not logs.is_symlink() else logs.unlink()
    assert (victim / "file").read_text() == "mine"


def make_logs(folder: Path) -> Path:
    folder.mkdir()
    return folder / "worker-2.log"


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    assert "does not exist" in last_line(log)
    log.write_bytes(b"")
    assert last_line(log) == "its log is empty"
    log.write_bytes(b"Traceback\n  File\nOSError: \xff " + b"x" * 500 + b"\n\n")
    assert last_line(log).startswith("OSError: ")
    assert len(last_line(log)) == 200


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    task = make_task(tmp_path, Wordy(), 1)
    run_trials(task)
    assert len(trials_of(task)[0].user_attrs[REASON]) == LONGEST_REASON


def test_a_deadline_lets_the_rest_wait(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 3, deadline=time.time() - 1)
    run_trials(task)
    assert [t.state for t in trials_of(task)] == [TrialState.WAITING] * 3


def test_a_trial_that_fails_says_why_and_the_study_goes_on(tmp_path: Path) -> None:
    task = make_task(tmp_path, Failing(), 8)
    run_trials(task)
    found = trials_of(task)
    assert [t.user_attrs.get(REASON) for t in found] == [
        "its value is not finite (nan)",
        "its value is not finite (-inf)",
        "MemoryError",
        "'optim.lr' is wrong; change it",
        "RuntimeError: CUDA out of memory",
        None,
        None,
        None,
    ]
    states = [t.state for t in found]
    assert states == [TrialState.FAIL] * 5 + [TrialState.PRUNED] + [TrialState.COMPLETE] * 2
