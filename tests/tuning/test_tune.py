"""Studies: every trial done once whoever is killed, the same after an interruption, and no look at the test split."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from helpers.objectives import Bowl, Curves, Deadly, Failing
from helpers.postgres_server import PASSWORD, Postgres, programs
from optuna.trial import TrialState

from gmsa import train
from gmsa.ablation import ablate as ablation
from gmsa.ablation import comparison
from gmsa.ablation.cells import train_cell
from gmsa.config import Config, load_config
from gmsa.errors import ConfigError, GmsaError, RunError
from gmsa.runs import report as results
from gmsa.system import cli
from gmsa.tune import main
from gmsa.tuning import objective as objectives
from gmsa.tuning import read_space, study_report, workers
from gmsa.tuning import study as studies
from gmsa.tuning.optuna_adapter import id_of, storage_of
from gmsa.tuning.sampling import SAMPLERS, SeededSampler, make_pruner
from gmsa.tuning.storage import RETRIES, KernelLock, StoragePlace, check_storage
from gmsa.tuning.study import StudyOptions, check_plan, differences
from gmsa.tuning.study_report import StudyResult
from gmsa.tuning.trials import ATTEMPTS, REASON, Queue, fill, latest, place_of
from gmsa.tuning.workers import Task, run_workers, work_through

SPACE = """
optim.lr: {float: [1e-4, 1e-2], log: true}
model.heads: {choice: [2, 4]}
graph.intra: {choice: [complete, window]}
graph.radius: {int: [1, 4], when: {graph.intra: window}}
"""


def make_task(folder: Path, objective: Any, trials: int, first: dict[str, Any] | None = None, **more: Any) -> Task:
    """A study of ``trials`` places in a folder's journal, and what its workers do."""
    where = more.pop("where", StoragePlace(folder))
    settings = {"sampler": "random", "pruner": "off", "seed": 3, "config": Config()} | more
    task = Task(where, "study", objective, **settings)
    storage = where.open()
    with where.alone(storage, "study"):
        study = optuna.create_study(study_name="study", storage=storage, load_if_exists=True)
        fill(study, trials, first or {})
    return task


def trials_of(task: Task) -> list[optuna.trial.FrozenTrial]:
    return latest(task.open().get_trials())


# The queue


def test_places_are_filled_once(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 3, first={"x": 2.0, "kind": "a"})
    study = task.open()
    assert fill(study, 3, {}) == 0
    assert fill(study, 5, {}) == 2
    assert fill(study, 2, {}) == 0
    work_through(task)
    assert [t.number for t in study.get_trials()] == [0, 1, 2, 3, 4]
    assert study.trials[0].params == {"x": 2.0, "kind": "a"}
    assert (tmp_path / "log").read_text().split()[::2] == ["0", "1", "2", "3", "4"]


def test_a_trial_belongs_to_one_worker(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 2)
    one, two = Queue(task.open(), task.where), Queue(task.open(), task.where)
    first, second = one.claim(), two.claim()
    assert first is not None
    assert second is not None
    assert (first.place, second.place) == (0, 1)
    assert Queue(task.open(), task.where).claim() is None
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
    dead = Queue(task.open(), task.where)
    claim = dead.claim()
    assert claim is not None
    x = claim.trial.suggest_float("x", -5, 5)
    assert Queue(task.open(), task.where).claim().place == 1  # type: ignore[union-attr]
    assert dead._lock is not None
    dead._lock.release()  # what the kernel does
    again = Queue(task.open(), task.where).claim()
    assert again is not None
    assert (again.place, again.attempt) == (0, 2)
    assert again.trial.suggest_float("x", -5, 5) == x


def test_a_trial_that_gets_on_is_not_given_up(tmp_path: Path) -> None:
    """Who stops a long trial every night does not lose it."""
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    for night in range(RETRIES + 5):
        queue = Queue(task.open(), task.where)
        claim = queue.claim()
        assert claim is not None
        assert claim.attempt == min(2, night + 1)
        claim.trial.report(1.0, night)
        assert queue._lock is not None
        queue._lock.release()


def test_a_trial_whose_workers_all_die_is_given_up(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    for attempt in range(1, RETRIES + 2):
        queue = Queue(task.open(), task.where)
        claim = queue.claim()
        assert claim is not None
        assert claim.attempt == attempt
        assert queue._lock is not None
        queue._lock.release()
    last = Queue(task.open(), task.where)
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


def test_a_line_that_a_killed_worker_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 2)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    assert len(trials_of(task)) == 2  # reading passes over it
    work_through(task)
    assert all(t.state == TrialState.COMPLETE for t in trials_of(task))
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_the_journal_lock_on_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    file.touch()
    lock = KernelLock(str(file))
    assert lock.acquire()
    lock.release()
    assert file.read_bytes() == b""


def kill_some(
    task: Task, jobs: int, kills: int, pause: float, meanwhile: Callable[[int], None] = lambda killed: None
) -> list[str]:
    """Runs workers, and kills some of them one after the other; returns what was said."""
    said: list[str] = []
    killed = ended = 0
    last, study = time.monotonic(), task.open()

    def look() -> int:
        nonlocal killed, last, ended
        children = children_of(os.getpid())
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


def children_of(pid: int) -> list[int]:
    """Worker processes of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat[1]) == pid and stat[0] != "Z" and b"spawn_main" in command:
            found.append(int(folder.name))
    return sorted(found)


def check_each_once(task: Task, count: int) -> None:
    """Every place is complete exactly once, none runs or waits."""
    found = trials_of(task)
    assert [place_of(t) for t in found] == list(range(count))
    assert Counter(t.state for t in found) == {TrialState.COMPLETE: count}
    everything = task.open().get_trials()
    complete = Counter(place_of(t) for t in everything if t.state == TrialState.COMPLETE)
    assert set(complete.values()) == {1}
    assert not [t for t in everything if t.state in (TrialState.RUNNING, TrialState.WAITING)]


def test_workers_that_are_killed_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log", 0.3), 12)
    said = kill_some(task, jobs=2, kills=1, pause=1.0)
    check_each_once(task, 12)
    assert len(said) == 1


@pytest.mark.slow
def test_six_workers_two_hundred_trials_twenty_kills(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log", 0.5), 200)
    kill_some(task, jobs=6, kills=20, pause=0.5)
    check_each_once(task, 200)


@pytest.mark.slow
def test_a_study_whose_workers_all_die_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0)
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 1)
    (tmp_path / "journal.log").write_text("not a journal\n")
    with pytest.raises(RunError, match="1 workers died one after the other without a trial ending"):
        run_workers(task, 1, lambda: 0, lambda line: None)
    assert "Traceback" in (tmp_path / "logs" / "worker-1.log").read_text()


def test_a_deadline_lets_the_rest_wait(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 3, deadline=time.time() - 1)
    work_through(task)
    assert [t.state for t in trials_of(task)] == [TrialState.WAITING] * 3


# Trials that fail


def test_a_trial_that_fails_says_why_and_the_study_goes_on(tmp_path: Path) -> None:
    task = make_task(tmp_path, Failing(), 8)
    work_through(task)
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


def test_what_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    """Nor is it where another program than gmsa put it into the storage."""
    study = optuna.create_study()
    for value in (float("-inf"), 2.0, 1.0, 1.0):
        study.add_trial(optuna.trial.create_trial(value=value))
    found = StudyResult("s", Config(), None, ("MAE",), study.trials, tmp_path, False)  # type: ignore[arg-type]
    assert [t.number for t in found.best] == [2]


# The same again


def interrupted(task: Task, at: set[int]) -> None:
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
            work_through(dying)
        except KeyboardInterrupt:
            continue


@pytest.mark.filterwarnings("ignore:The reported value is ignored")
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("tpe", "off"), ("tpe", "median"), ("tpe", "hyperband"), ("random", "off"), ("qmc", "off"), ("gp", "off")],
)
def test_an_interrupted_study_equals_an_uninterrupted_one(sampler: str, pruner: str, tmp_path: Path) -> None:
    make = Curves() if pruner != "off" else Bowl(tmp_path / "log")
    count = 14 if sampler == "gp" else 30
    whole = make_task(tmp_path / "a", make, count, sampler=sampler, pruner=pruner)
    work_through(whole)
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
        work_through(task)
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


# Storage


@pytest.mark.parametrize(
    ("url", "jobs", "message"),
    [
        ("sqlite:///study.db", 2, "two of them can draw the same queued trial"),
        ("mysql://host/db", 1, r"knows postgresql and sqlite \(got 'mysql'\)"),
        ("nonsense", 1, "takes a URL such as postgresql://"),
        ("postgresql://me:p@ss@host/db", 1, "write an '@' in a password as %40"),
        ("postgresql://me:pass@host:word/db", 1, "takes a URL such as postgresql://"),
    ],
)
def test_a_storage_that_does_not_work_is_refused(url: str, jobs: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_storage(url, jobs)


def test_sqlite_works_with_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    check_storage(url, 1)
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 3, where=StoragePlace(tmp_path, url))
    work_through(task)
    check_each_once(task, 3)


def test_sqlite_is_not_shared_by_two_commands(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    with (
        StoragePlace(tmp_path / "a", url).one_command(),
        pytest.raises(RunError, match="another command works at"),
        StoragePlace(tmp_path / "b", url).one_command(),
    ):
        pass
    with StoragePlace(tmp_path / "b", url).one_command(), StoragePlace(tmp_path).one_command():
        pass


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    where = StoragePlace(tmp_path, "postgresql://me:s3cret@127.0.0.1:1/db")
    with pytest.raises(RunError, match="cannot open the storage") as caught:
        where.open()
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host/db",
        "postgresql://me:s3%40cret@host/db",
        "postgresql://me@host/db?password=s3cret&sslpassword=s3cret",
    ],
)
def test_a_password_is_never_shown(url: str, tmp_path: Path) -> None:
    where = StoragePlace(tmp_path, url)
    secret = "s3@cret" if "%40" in url else "s3cret"
    driver = url.replace(":", "+psycopg:", 1)
    said = where.hide(f"failed at {url}, {driver} ({secret})") + repr(StudyOptions("s", 1, tmp_path, ("MAE",), url=url))
    assert "cret" not in where.shown + repr(where) + str(where) + said
    assert "host" in where.shown
    assert pickle.loads(pickle.dumps(where)).url == url


# A server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    bin = programs()
    if bin is None:
        pytest.skip("needs PostgreSQL's server (Debian: apt-get install postgresql)")
    server = Postgres(bin)
    yield server
    server.remove()


def on_server(postgres: Postgres, folder: Path, trials: int, seconds: float, heartbeat: int = 1) -> Task:
    url = postgres.create(f"study_{secrets.token_hex(4)}")
    where = StoragePlace(folder, url, heartbeat)
    return make_task(folder, Bowl(folder / "log", seconds), trials, where=where)


@pytest.mark.slow
def test_workers_on_a_server_are_killed_and_it_restarts(postgres: Postgres, tmp_path: Path) -> None:
    task = on_server(postgres, tmp_path, 10, 0.3)

    def meanwhile(killed: int) -> None:
        postgres.stop()
        postgres.start()

    kill_some(task, jobs=2, kills=1, pause=1.0, meanwhile=meanwhile)
    check_each_once(task, 10)
    for log in (tmp_path / "logs").glob("*.log"):
        assert PASSWORD not in log.read_text()


@pytest.mark.slow
def test_six_workers_two_hundred_trials_twenty_kills_on_a_server(postgres: Postgres, tmp_path: Path) -> None:
    task = on_server(postgres, tmp_path, 200, 0.5, heartbeat=2)

    def meanwhile(killed: int) -> None:
        if killed == 10:
            postgres.stop()
            postgres.start()

    kill_some(task, jobs=6, kills=20, pause=0.5, meanwhile=meanwhile)
    check_each_once(task, 200)


def test_a_silent_workers_trial_is_copied_with_what_it_knows(postgres: Postgres, tmp_path: Path) -> None:
    task = on_server(postgres, tmp_path, 2, 0)
    silent = Queue(task.open(), task.where)
    claim = silent.claim()
    assert claim is not None
    x = claim.trial.suggest_float("x", -5, 5)
    claim.trial.report(3.0, 1)
    other = Queue(task.open(), task.where)
    assert other.claim().place == 1  # type: ignore[union-attr]
    deadline = time.monotonic() + 20
    while (again := Queue(task.open(), task.where).claim()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    assert again is not None
    assert (again.place, again.before, again.attempt) == (0, 0, 2)
    assert again.trial.number == 2
    assert again.trial.suggest_float("x", -5, 5) == x
    assert task.open().get_trials()[2].intermediate_values == {1: 3.0}
    with other.alive(again):
        assert other.tell(again, TrialState.COMPLETE, [1.0])
    with silent.alive(claim):
        assert not silent.tell(claim, TrialState.COMPLETE, [2.0])  # it wakes up: what it has counts no more
    assert trials_of(task)[0].values == [1.0]


def test_a_trial_that_was_marked_but_not_copied_is_copied(postgres: Postgres, tmp_path: Path) -> None:
    """Optuna marks a silent worker's trial first and copies it then: whoever does so may be killed in between."""
    task = on_server(postgres, tmp_path, 1, 0)
    study = task.open()
    claim = Queue(study, task.where).claim()
    assert claim is not None
    storage_of(study).set_trial_state_values(id_of(claim.trial), TrialState.FAIL)
    work_through(task)
    check_each_once(task, 1)


@pytest.mark.slow
def test_a_worker_that_dies_before_its_first_sign_of_life_is_missed(postgres: Postgres, tmp_path: Path) -> None:
    task = on_server(postgres, tmp_path, 1, 0)
    script = (
        "import os, pickle, sys; from gmsa.tuning.trials import Queue;"
        "from optuna.trial import Trial; Trial.__init__ = lambda *a: os.kill(os.getpid(), 9);"
        "task = pickle.load(sys.stdin.buffer); Queue(task.open(), task.where).claim()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(task), env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert task.open().get_trials()[0].state == TrialState.RUNNING
    work_through(task)
    check_each_once(task, 1)


def test_two_machines_that_begin_at_once_make_one_study(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create(f"study_{secrets.token_hex(4)}")
    plan = StudyOptions("both", 7, tmp_path, ("MAE",), url=url)
    wait = threading.Barrier(4)

    def begin() -> None:
        storage = plan.where.open()
        wait.wait()
        with plan.where.alone(storage, plan.name):
            fill(studies.open_study(storage, plan, {"same": 1}), plan.trials, {})

    plan.where.open()  # Optuna's tables
    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(optuna.load_study(study_name="both", storage=plan.where.open()).trials) == 7


def test_one_command_alone_trains_the_best_anew(postgres: Postgres, tmp_path: Path) -> None:
    for where in (StoragePlace(tmp_path / "a", postgres.create("once")), StoragePlace(tmp_path / "b")):
        storage = where.open()
        with where.alone(storage, "s", "final", wait=False) as first:
            assert first
            with where.alone(storage, "s", "final", wait=False) as second:
                assert not second
            with where.alone(storage, "s", wait=False) as other:
                assert other
        with where.alone(storage, "s", "final", wait=False) as again:
            assert again


def test_a_password_stands_nowhere_in_what_a_study_leaves(
    postgres: Postgres, base: Path, here: None, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    url = postgres.create(f"study_{secrets.token_hex(4)}")
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "2", "--storage", url) == 0
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if PASSWORD.encode() in file.read_bytes()]
    said = capfd.readouterr()
    assert PASSWORD not in said.out + said.err
    assert "gmsa:***@127.0.0.1" in said.out
    with pytest.raises(RunError) as caught:
        tune(base, out, "--trials", "2", "--storage", url.replace("gmsa:", "nobody:"))
    assert PASSWORD not in str(caught.value)


# What does not go together


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "must be above 0"),
        ({"jobs": 0}, "must be above 0"),
        ({"timeout": 0}, "must be above 0"),
        ({"sampler": "grid"}, "--sampler must be one of tpe, gp, random, qmc"),
        ({"pruner": "none"}, "--pruner must be one of median, hyperband, off"),
        ({"objectives": ("F1",)}, "--objective must be one of MAE, Corr, seconds, parameters"),
        ({"objectives": ("MAE", "MAE"), "pruner": "off"}, "names one twice"),
        ({"objectives": ("MAE", "seconds")}, "cannot stop trials early; use --pruner off"),
        ({"objectives": ("seconds",)}, "has no curve to prune by; use --pruner off"),
        ({"trial_seeds": (1, 1)}, "--trial-seeds names a seed twice"),
        ({"seeds": (1, 1)}, "--seeds names a seed twice"),
        ({"url": "sqlite:///a.db", "jobs": 2}, "SQLite cannot be shared"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    plan = {"name": "s", "trials": 3, "folder": tmp_path, "objectives": ("MAE",)} | change
    with pytest.raises(ConfigError, match=message):
        check_plan(StudyOptions(**plan), Config())


def test_differences_are_named_by_key() -> None:
    before = {"a": 1, "b": {"c": [1], "d": 2}}
    assert differences(before, before) == []
    assert differences(before, {"a": 1, "b": {"c": [2], "d": 2}, "e": 0}) == [
        "b.c was [1], is [2]",
        "e was None, is 0",
    ]


# Whole studies


@pytest.fixture
def base(write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that trains in a second on a small file, and a space."""
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.delenv("GMSA_STORAGE", raising=False)
    settings = {
        "data": {"path": str(write_mmsa()), "name": "tiny"},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 2, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "default.yaml").write_text(SPACE)
    return path


@pytest.fixture
def figures() -> None:
    """Asks for a study's figures."""


@pytest.fixture
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works, and trains the best one anew, in this process and without figures: each process takes seconds to start."""
    monkeypatch.setattr(results, "draw", lambda *a: None)
    monkeypatch.setattr(comparison, "figure_ablation", lambda *a: True)
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(study_report, "draw_study", lambda *a: [])

    def run_workers(task: Task, jobs: int, look: Callable[[], int], say: Any) -> None:
        work_through(task)
        look()

    monkeypatch.setattr(studies, "run_workers", run_workers)
    monkeypatch.setattr(ablation, "run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells])


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


def test_a_study_leaves_a_config_that_gives_its_score_again(
    base: Path, here: None, figures: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "3", "--pruner", "off", "--trial-seeds", "1,2", "--seeds", "3") == 0
    rows = rows_of(out)
    assert [row["trial"] for row in rows] == list("012")
    assert {row["state"] for row in rows} == {"complete"}
    assert (rows[0]["optim.lr"], rows[0]["model.heads"], rows[0]["graph.intra"]) == ("0.001", "2", "complete")
    best = min(rows, key=lambda row: float(row["MAE"]))
    text = (out / "best.yaml").read_text()
    assert best["MAE"] in text
    settings = yaml.safe_load(text)
    assert settings["run"]["seeds"] == [1, 2]
    train.main(["--config", str(out / "best.yaml"), "--out", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["valid"]["MAE"]["mean"] == float(best["MAE"])  # exactly
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"][0]["values"]["MAE"] == float(best["MAE"])
    assert summary["synthetic"] is False
    assert summary["final"]["seeds"] == [3]
    for name in ("history", "slice", "parallel", "curves"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
        assert "plotly" in (out / "figures" / f"{name}.html").read_text()
        assert f"figures/{name}.png" in (out / "summary.md").read_text()
    assert (out / "figures" / "plotly.min.js").exists()  # figures open without a network
    printed = capsys.readouterr().out
    assert "3/3 trials" in printed
    assert not list((out / "trials").glob("*/seed-*/*.safetensors"))
    assert len(list((out / "trials").glob("*/seed-*/history.jsonl"))) == 6


def test_a_study_goes_on_and_refuses_another(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "2") == 0
    two = rows_of(out)
    assert tune(base, out, "--trials", "4") == 0
    assert rows_of(out)[:2] == two
    assert len(rows_of(out)) == 4
    assert "4 trials, 2 from before" in capsys.readouterr().out
    for arguments, message in (
        (["--set", "optim.epochs=3"], r"config.optim.epochs was 2, is 3"),
        (["--sampler", "random"], r"sampler was 'tpe', is 'random'"),
        (["--seed", "5"], r"seed was 0, is 5"),
        (["--trial-seeds", "7"], r"trial_seeds was \[1\], is \[7\]"),
    ):
        with pytest.raises(RunError, match=message):
            tune(base, out, "--trials", "4", *arguments)
    data = Path(yaml.safe_load(base.read_text())["data"]["path"])
    content = pickle.loads(data.read_bytes())
    content["valid"]["regression_labels"] = content["valid"]["regression_labels"][::-1].copy()
    data.write_bytes(pickle.dumps(content))
    with pytest.raises(RunError, match="data_sha256 was"):
        tune(base, out, "--trials", "4")


def test_test_labels_cannot_reach_a_study(base: Path, here: None, tmp_path: Path) -> None:
    """Test labels and test features are changed: no trial, no choice and no score of a study changes."""
    arguments = ("--trials", "3", "--pruner", "off")
    assert tune(base, tmp_path / "a", *arguments) == 0
    settings = yaml.safe_load(base.read_text())
    data = Path(settings["data"]["path"])
    content = pickle.loads(data.read_bytes())
    content["test"]["regression_labels"] = -content["test"]["regression_labels"]
    content["test"]["text"] = content["test"]["text"][::-1].copy()
    data.write_bytes(pickle.dumps(content))
    assert tune(base, tmp_path / "b", *arguments) == 0
    assert without_seconds(tmp_path / "a") == without_seconds(tmp_path / "b")
    one, two = (yaml.safe_load((tmp_path / name / "best.yaml").read_text()) for name in "ab")
    assert one == two
    finals = [json.loads((tmp_path / n / "summary.json").read_text())["final"] for n in "ab"]
    tests = [[row["test"]["MAE"]["mean"] for row in final["rows"]] for final in finals]
    assert tests[0] != tests[1]  # it was scored, once, in the end


def test_a_trial_never_holds_the_test_split(base: Path) -> None:
    config = load_config(base)
    prepared = objectives.prepared_without_test(config)
    assert set(prepared.splits) == set(prepared.corpus.splits) == {"train", "valid"}


def test_the_value_of_a_trial_is_the_last_of_its_curve(base: Path, here: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ("--trials", "1", "--pruner", "off", "--trial-seeds", "1,2")
    assert tune(base, out, *arguments, "--set", "protocol.name=distillation", "--set", "data.label_ratio=0.5") == 0
    storage = StoragePlace(out).open()
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
                curve.epoch(row, 2)
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
                return step
        study.tell(trial, state=TrialState.FAIL)
        return 0

    assert steps_until_stopped([(1, 0.9)]) == 1
    assert steps_until_stopped([(1, 0.4), (2, 0.4), (1, 0.9)]) == 3  # a good first seed does not save it
    assert steps_until_stopped([(1, 0.4), (2, 0.4), (1, 0.4), (2, 0.9)]) == 0  # at the end its value is known


def train_or_die(task: Task, at: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Works through a study of real trainings; at some places the worker dies, once, after an epoch."""
    left, epoch = dict(at), objectives.Curve.epoch

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
        patch.setattr(objectives.Curve, "epoch", dying)
        for _ in range(len(at) + 1):
            with contextlib.suppress(KeyboardInterrupt):
                work_through(task)
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
    dead = Queue(task.open(), task.where)
    claim = dead.claim()
    assert claim is not None
    claim.trial.set_user_attr(objectives.PRUNED, 1)
    assert dead._lock is not None
    dead._lock.release()
    work_through(task)
    assert trials_of(task)[0].state == TrialState.PRUNED


def test_the_curve_is_of_the_objective(base: Path, here: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "1", "--objective", "Corr") == 0
    study = optuna.load_study(study_name="base-default", storage=StoragePlace(out).open())
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    for trial in study.trials:
        assert trial.intermediate_values[max(trial.intermediate_values)] == trial.value
        assert -1 <= trial.value <= 1  # type: ignore[operator]


@pytest.mark.slow
def test_several_objectives_leave_the_pareto_front(base: Path, here: None, figures: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    space = tmp_path / "space.yaml"
    space.write_text("model.channels: {choice: [8, 16, 32]}\noptim.lr: {float: [1e-4, 1e-2], log: true}\n")
    arguments = ("--trials", "6", "--objective", "MAE", "--objective", "parameters", "--space", str(space))
    assert tune(base, out, *arguments) == 0
    rows = [(float(r["MAE"]), float(r["parameters"]), int(r["trial"])) for r in rows_of(out)]
    front = {n for a, p, n in rows if not any(b <= a and q <= p and (b, q) != (a, p) for b, q, _ in rows)}
    assert {int(file.stem.split("-")[1]) for file in out.glob("best-*.yaml")} == front
    assert (out / "figures" / "pareto.png").exists()
    assert json.loads((out / "summary.json").read_text())["final"] is None


def test_synthetic_data_are_said_to_be_synthetic(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmsa.data.synthetic.SIZES", {"train": 24, "valid": 12, "test": 12, "pool": 5})
    assert tune(base, tmp_path / "s", "--trials", "1", "--set", "data.path=synthetic", "--set", "optim.epochs=1") == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["synthetic"] is True
    assert "SYNTHETIC" in (tmp_path / "s" / "summary.md").read_text()
    assert (tmp_path / "s" / "best.yaml").read_text().startswith("# SYNTHETIC")


def test_a_study_without_any_value_ends_with_1(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(objectives, "train_seed", fail)
    assert tune(base, tmp_path / "study", "--trials", "2") == 1
    assert "No trial has a value. RuntimeError: out of memory" in capsys.readouterr().out
    assert {row["reason"] for row in rows_of(tmp_path / "study")} == {"RuntimeError: out of memory"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "2", "--space", "none.yaml"], "search space 'none.yaml' does not exist"),
        (["--trials", "2", "--sampler", "grid"], "--sampler must be one of"),
        (["--trials", "2", "--storage", "sqlite:///a.db", "--jobs", "2"], "SQLite cannot be shared by 2 workers"),
        (["--trials", "2", "--set", "data.path=none.pkl"], "none.pkl"),
        (["--trials", "2", "--out", "README.md"], "README.md"),
        (["--trials", "2", "--set", "protocol.name=pretrain", "--set", "pretrain.epochs=1"], "predicts nothing"),
        (["--trials", "2", "--out", "full"], "is not empty and holds no study"),
        (["--trials", "2", "--set", "self_training.k=999", "--set", "protocol.name=self_training",
          "--set", "data.label_ratio=0.5"], "self_training.k"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], message: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    monkeypatch.setattr(sys, "argv", ["tune", "--config", str(base), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(main, "tune")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_a_folder_with_anothers_study(base: Path, here: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    storage = StoragePlace(out).open()
    optuna.create_study(study_name="mine", storage=storage).add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(RunError, match="was not made by gmsa; give another --study"):
        tune(base, out, "--trials", "1", "--study", "mine")


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_to_the_same_end(base: Path, tmp_path: Path) -> None:
    """The command itself, killed with kill -9 at several moments, and interrupted by Ctrl-C once."""
    command = [sys.executable, "-m", "gmsa.tune", "--config", str(base), "--trials", "14", "--set", "optim.epochs=6"]
    subprocess.run([*command, "--out", str(tmp_path / "a")], check=True, capture_output=True)
    for moment in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([*command, "--out", str(tmp_path / "b")], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if "/14 trials: trial" in line:  # one has ended: the next is on its way
                break
        process.send_signal(moment)
        said = process.communicate()[0]
        if moment == signal.SIGINT:
            assert process.returncode == 130
            assert "Go on with the same command" in said
    subprocess.run([*command, "--out", str(tmp_path / "b")], check=True, capture_output=True)
    drop = ("seconds", "attempts")
    one, two = ([{k: v for k, v in r.items() if k not in drop} for r in rows_of(tmp_path / n)] for n in "ab")
    assert one == two
    assert yaml.safe_load((tmp_path / "a" / "best.yaml").read_text()) == yaml.safe_load(
        (tmp_path / "b" / "best.yaml").read_text()
    )


@pytest.mark.slow
def test_the_command_with_real_workers(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ["--trials", "2", "--jobs", "2", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "gmsa.tune", "--config", str(base), *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2/2 trials" in result.stdout
    assert len(rows_of(out)) == 2


def test_pruners_by_name() -> None:
    assert isinstance(make_pruner("median", Config()), optuna.pruners.MedianPruner)
    assert isinstance(make_pruner("hyperband", Config()), optuna.pruners.HyperbandPruner)
    assert isinstance(make_pruner("off", Config()), optuna.pruners.NopPruner)
    assert issubclass(GmsaError, Exception)
