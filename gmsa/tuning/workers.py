"""Worker processes: each takes trials of a study until none is left; one that dies is replaced."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.study import Study
from optuna.trial import TrialState

from gmsa.config import Config
from gmsa.errors import ConfigError, GmsaError, RunError, printable
from gmsa.registry import load_plugins
from gmsa.system.files import check_log, make_subfolder
from gmsa.system.processes import end_with_parent, interrupts_held, safe_path, speak_into
from gmsa.system.reading import MOST_RECORDS, read_bytes
from gmsa.tuning.objective import Objective
from gmsa.tuning.sampling import SeededSampler, make_pruner
from gmsa.tuning.storage import StoragePlace, first_line
from gmsa.tuning.trials import Claim, Queue

POLL = 0.5
"""Seconds between two looks, by a worker at trials that others run, by the parent at its workers."""
PATIENCE = 20
"""Workers that may be killed, one after the other without a trial ending, before the study gives up."""
FAULTS = 3
"""Workers that may end by an error that no trial caused, one after the other, before a study on one machine gives up:
the next would end the same way. A server, however, may be restarting."""
LONGEST_REASON = 2_000
"""Characters that a study keeps of why a trial failed."""
LONGEST_LINE = 200
"""Characters of a worker's log that a message shows."""
NOTHING_LEFT, LOST, RESTART = 0, 1, 3
"""Exit codes of a worker: no trial is left; the storage did not answer, or gmsa itself failed; to be restarted."""


@dataclass(frozen=True)
class WorkerTask:
    """The work of every worker of a study."""

    where: StoragePlace
    study: str
    objective: Objective
    config: Config
    sampler: str
    pruner: str
    seed: int
    deadline: float = math.inf
    """When to claim no more trials, as ``time.time`` counts."""
    plugins: tuple[str, ...] = ()
    """Modules that the parent has imported, beside those of the config."""

    def load_plugins(self) -> None:
        """Imports the plug-ins: a spawned process knows no part that they register.

        Raises:
            ConfigError: one cannot be imported.
        """
        load_plugins([*self.config.plugins, *self.plugins])

    def load_study(self) -> Study:
        """The study, with its sampler and pruner."""
        return optuna.load_study(
            study_name=self.study,
            storage=self.where.connect(),
            sampler=SeededSampler(self.sampler, self.seed),
            pruner=make_pruner(self.pruner, self.config),
        )


def run_workers(task: WorkerTask, jobs: int, look: Callable[[], int], say: Callable[[str], None]) -> None:
    """Keeps ``jobs`` workers at a study until no trial is left, or its time is over.

    Args:
        look: shows what has happened, now and then; returns how many trials have ended, -1 if the storage does not
            answer.
        say: prints a line.

    Raises:
        RunError: workers die one after the other without a trial ending.
    """
    context = multiprocessing.get_context("spawn")
    running: dict[Any, tuple[SpawnProcess, int]] = {}
    with safe_path():
        resource_tracker.ensure_running()  # else the first start would do it, and let go of Ctrl-C on the way
    to_start = dict.fromkeys(range(1, jobs + 1), 0.0)  # when each is to be started
    deaths = faults = ended = 0
    logs = make_subfolder(task.where.folder, "logs")
    for number in to_start:
        check_log(log_of(task, number))
    try:
        while to_start or running:
            for number in [n for n, when in to_start.items() if when <= time.monotonic()]:
                del to_start[number]
                process = context.Process(target=run_worker, args=(task, number))
                with interrupts_held(), safe_path():
                    process.start()
                    running[process.sentinel] = process, number
            if not running:
                time.sleep(POLL)
            for sentinel in connection.wait(list(running), timeout=POLL) if running else ():
                process, number = running.pop(sentinel)
                process.join()
                if process.exitcode == NOTHING_LEFT:
                    continue
                if process.exitcode == RESTART:
                    to_start[number] = 0.0
                    continue
                deaths += 1
                faults += process.exitcode == LOST and task.where.one_machine
                if deaths > PATIENCE or faults >= FAULTS:
                    why = f" ({task.where.hide(last_line(log_of(task, number)))})" if process.exitcode == LOST else ""
                    raise RunError(
                        f"{deaths} workers died one after the other without a trial ending{why}; see their logs in "
                        f"'{logs}'"
                    )
                say(f"worker {number} {_how(process.exitcode)}; another takes its place")
                to_start[number] = time.monotonic() + min(0.1 * 2**deaths, 10)
            now = look()
            # A server that does not answer is waited for, however many workers it costs.
            if now > ended or now < 0:
                deaths = faults = 0
            ended = max(now, ended)
    finally:
        for process, _ in running.values():
            process.kill()  # nothing is lost: a trial is resumed from its last finished epoch
        for process, _ in running.values():
            process.join()
    look()


def run_worker(task: WorkerTask, number: int) -> None:
    """Runs a worker in its process, which ends with its parent."""
    end_with_parent()
    speak_into(log_of(task, number))
    with contextlib.suppress(ConfigError):  # every trial says it
        task.load_plugins()
    try:
        run_trials(task)
    except Exception:
        note(task)
        raise SystemExit(LOST) from None


def run_trials(task: WorkerTask) -> None:
    """Takes trials until none waits or runs, or the time is over."""
    queue = Queue(task.load_study(), task.where)
    while time.time() < task.deadline:
        claim = queue.claim()
        if claim is not None:
            with queue.alive(claim):
                run_trial(queue, claim, task)
        elif queue.over:
            return
        else:
            time.sleep(POLL)  # another worker may die, and leave its trial


def run_trial(queue: Queue, claim: Claim, task: WorkerTask) -> None:
    """Trains one trial and records how it ended; its errors fail the trial, not the study."""
    try:
        task.load_plugins()
        values = [float(value) for value in task.objective(claim)]
    except optuna.TrialPruned:
        queue.tell(claim, TrialState.PRUNED)
    except optuna.exceptions.StorageInternalError:
        raise  # not the trial's fault: another worker resumes it
    except optuna.exceptions.UpdateFinishedTrialError:
        pass  # this worker gave no sign of life for so long that another has taken its trial
    except Exception as error:
        note(task)
        name, first = type(error).__name__, first_line(error)
        reason = str(error) if isinstance(error, GmsaError) else f"{name}: {first}".removesuffix(f": {name}")
        reason = task.where.hide(reason.removeprefix("trial: "))
        queue.tell(claim, TrialState.FAIL, reason=reason[:LONGEST_REASON])
        if not isinstance(error, GmsaError) and torch.cuda.is_initialized():
            raise SystemExit(RESTART) from None  # after an error of its own a CUDA context may answer nothing any more
    else:
        if all(math.isfinite(value) for value in values):
            queue.tell(claim, TrialState.COMPLETE, values)
        else:
            # Optuna would take an infinite value for a good one.
            queue.tell(claim, TrialState.FAIL, reason=f"its value is not finite ({', '.join(map(str, values))})")


def log_of(task: WorkerTask, number: int) -> Path:
    """The file to which a worker speaks."""
    return task.where.folder / "logs" / f"worker-{number}.log"


def note(task: WorkerTask) -> None:
    """Writes the error of this moment into the worker's log, where the disk has room for it."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(task.where.hide(traceback.format_exc())), flush=True)


def last_line(log: Path) -> str:
    """The last line of a worker's log, for a message: of an error, what it says."""
    try:
        lines = read_bytes(log, MOST_RECORDS, inside=log.parent).decode("utf-8", errors="replace").split("\n")
    except GmsaError as error:
        return str(error)
    last = next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
    return last if len(last) <= LONGEST_LINE else f"{last[: LONGEST_LINE - 1]}…"


def _how(exit_code: int | None) -> str:
    """How a worker ended."""
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code} (see its log)"
