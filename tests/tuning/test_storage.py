"""Where studies are kept: the journal, SQLite, a server."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from helpers.objectives import Bowl
from helpers.postgres_server import PASSWORD, Postgres, programs
from helpers.studies import check_each_once, kill_some, make_task, trials_of, tune
from optuna.trial import TrialState

from gmsa.errors import RunError
from gmsa.tuning import study as studies
from gmsa.tuning.database_url import check_url
from gmsa.tuning.optuna_adapter import id_of, storage_of
from gmsa.tuning.storage import StoragePlace
from gmsa.tuning.study import StudyOptions
from gmsa.tuning.trials import Queue, fill
from gmsa.tuning.workers import WorkerTask, run_trials


def test_sqlite_works_with_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    check_url(url, 1)
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 3, where=StoragePlace(tmp_path, url))
    run_trials(task)
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
        where.connect()
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    bin = programs()
    if bin is None:
        pytest.skip("needs PostgreSQL's server (Debian: apt-get install postgresql)")
    server = Postgres(bin)
    yield server
    server.remove()


def on_server(postgres: Postgres, folder: Path, trials: int, seconds: float, heartbeat: int = 1) -> WorkerTask:
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
    silent = Queue(task.load_study(), task.where)
    claim = silent.claim()
    assert claim is not None
    x = claim.trial.suggest_float("x", -5, 5)
    claim.trial.report(3.0, 1)
    other = Queue(task.load_study(), task.where)
    assert other.claim().place == 1  # type: ignore[union-attr]
    deadline = time.monotonic() + 20
    while (again := Queue(task.load_study(), task.where).claim()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    assert again is not None
    assert (again.place, again.before, again.attempt) == (0, 0, 2)
    assert again.trial.number == 2
    assert again.trial.suggest_float("x", -5, 5) == x
    assert task.load_study().get_trials()[2].intermediate_values == {1: 3.0}
    with other.alive(again):
        assert other.tell(again, TrialState.COMPLETE, [1.0])
    with silent.alive(claim):
        assert not silent.tell(claim, TrialState.COMPLETE, [2.0])  # it wakes up: what it has counts no more
    assert trials_of(task)[0].values == [1.0]


def test_a_trial_that_was_marked_but_not_copied_is_copied(postgres: Postgres, tmp_path: Path) -> None:
    """Optuna marks a silent worker's trial first and copies it then: whoever does so may be killed in between."""
    task = on_server(postgres, tmp_path, 1, 0)
    study = task.load_study()
    claim = Queue(study, task.where).claim()
    assert claim is not None
    storage_of(study).set_trial_state_values(id_of(claim.trial), TrialState.FAIL)
    run_trials(task)
    check_each_once(task, 1)


@pytest.mark.slow
def test_a_worker_that_dies_before_its_first_sign_of_life_is_missed(postgres: Postgres, tmp_path: Path) -> None:
    task = on_server(postgres, tmp_path, 1, 0)
    script = (
        "import os, pickle, sys; from gmsa.tuning.trials import Queue;"
        "from optuna.trial import Trial; Trial.__init__ = lambda *a: os.kill(os.getpid(), 9);"
        "task = pickle.load(sys.stdin.buffer); Queue(task.load_study(), task.where).claim()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(task), env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert task.load_study().get_trials()[0].state == TrialState.RUNNING
    run_trials(task)
    check_each_once(task, 1)


def test_two_machines_that_begin_at_once_make_one_study(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create(f"study_{secrets.token_hex(4)}")
    options = StudyOptions("both", 7, tmp_path, ("MAE",), url=url)
    wait = threading.Barrier(4)

    def begin() -> None:
        storage = options.where.connect()
        wait.wait()
        with options.where.alone(storage, options.name):
            fill(studies.open_study(storage, options, {"same": 1}), options.trials, {})

    options.where.connect()  # Optuna's tables
    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(optuna.load_study(study_name="both", storage=options.where.connect()).trials) == 7


def test_one_command_alone_trains_the_best_anew(postgres: Postgres, tmp_path: Path) -> None:
    for where in (StoragePlace(tmp_path / "a", postgres.create("once")), StoragePlace(tmp_path / "b")):
        storage = where.connect()
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
    url += "?options=-c x.password=Xy7-hush -c search_path=public&sslmode=prefer"
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "2", "--storage", url) == 0
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 5
    for secret in (PASSWORD, "hush"):
        assert not [file for file in files if secret.encode() in file.read_bytes()]
    said = capfd.readouterr()
    assert PASSWORD not in said.out + said.err
    assert "hush" not in said.out + said.err
    assert "gmsa:***@127.0.0.1" in said.out
    with pytest.raises(RunError) as caught:
        tune(base, out, "--trials", "2", "--storage", url.replace("gmsa:", "nobody:"))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(RunError) as caught:
        tune(base, out, "--trials", "2", "--storage", url.replace("x.password=", "work_mem="))
    assert "work_mem" in str(caught.value)
    assert "hush" not in str(caught.value)
