"""The trials of a study as a queue of numbered places.

A study of N trials begins with N waiting ones, its places. A worker claims one, by an operation in which only one
worker can succeed, and records its result: so every place is done exactly once, whichever worker is killed at whatever
moment. A trial whose worker died is resumed:

- in a file on one machine, every worker holds a file lock on its trial. The kernel takes it back when the worker dies;
  the worker that gets the lock of a running trial resumes it;
- on a server, workers give signs of life. Optuna marks the trial of one that gives none as failed, and queues a copy
  of it, which knows its place.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from gmsa.system.files import make_subfolder, remove
from gmsa.system.reading import entries, is_folder
from gmsa.tuning.journal import take
from gmsa.tuning.optuna_adapter import BaseHeartbeat, forget_trials, frozen, id_of, storage_of
from gmsa.tuning.storage import RETRIES, StoragePlace

ATTEMPTS, STEPS, REASON = "attempts", "steps", "reason"
"""User attributes of a trial: how often it was started, with how many values the last time, and why it failed."""
ORIGIN, HISTORY, FIXED = "failed_trial", "retry_history", "fixed_params"
"""System attributes of Optuna's: in a copy of a trial, the number of the first attempt, and those of all; what a queued
trial must choose."""


def place_of(trial: FrozenTrial) -> int:
    """The place that a trial fills: its number, or that of the trial that it is another attempt at."""
    number = trial.system_attrs.get(ORIGIN)
    return trial.number if number is None else int(number)


def latest(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The last attempt at every place, in the order of the places."""
    found: dict[int, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        found[place_of(trial)] = trial
    return [found[place] for place in sorted(found)]


def attempts_of(trial: FrozenTrial) -> int:
    """How often a trial was started."""
    history = trial.system_attrs.get(HISTORY, [])
    return int(trial.user_attrs.get(ATTEMPTS, 1)) + len(history)


def ended(trial: FrozenTrial) -> bool:
    """Whether a trial has ended for good: not one of a dead worker that a server has marked and will copy."""
    left = trial.state == TrialState.FAIL and REASON not in trial.user_attrs and attempts_of(trial) <= RETRIES
    return trial.state.is_finished() and not left


def fill(study: Study, places: int, first: Mapping[str, Any]) -> int:
    """Queues places until there are as many; returns how many were added. To be called alone.

    Args:
        first: parameters of the first place.
    """
    there = len({place_of(t) for t in study.get_trials(deepcopy=False)})
    for place in range(there, places):
        study.enqueue_trial(dict(first) if place == 0 else {})
    return max(0, places - there)


@dataclass
class Claim:
    """A trial that this process works at."""

    trial: Trial
    place: int
    before: int | None = None
    """The number under which an attempt by another worker trained, on a server."""
    attempt: int = 1
    """How often the trial was started without completing an epoch, this time included."""
    leftovers: Path | None = None
    """A run folder whose weights nobody needs once the trial has ended."""


@dataclass
class Queue:
    """The trials of a study, to be worked at by many processes."""

    study: Study
    where: StoragePlace
    _lock: FileLock | None = field(default=None, init=False)
    _looked: float = field(default=-math.inf, init=False)

    def claim(self) -> Claim | None:
        """Takes a trial that waits, or whose worker has died; None where there is none at this moment."""
        forget_trials(self.study)
        return self._claim_by_lock() if self.where.one_machine else self._claim_on_server()

    @property
    def over(self) -> bool:
        """Whether no trial waits or runs."""
        return not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))

    @contextlib.contextmanager
    def alive(self, claim: Claim) -> Iterator[None]:
        """Sends heartbeats while a trial is trained, and releases it in the end."""
        storage, ended = storage_of(self.study), threading.Event()
        thread = None
        if isinstance(storage, BaseHeartbeat) and not self.where.one_machine:

            def beat() -> None:
                while not ended.wait(self.where.heartbeat):
                    with contextlib.suppress(Exception):  # the server may be restarting: try again
                        storage.record_heartbeat(id_of(claim.trial))

            thread = threading.Thread(target=beat, daemon=True)
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread is not None:
                thread.join()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def tell(self, claim: Claim, state: TrialState, values: Sequence[float] | None = None, reason: str = "") -> bool:
        """Ends a trial; False where another worker has ended it meanwhile."""
        if reason:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                claim.trial.set_user_attr(REASON, reason)
        try:
            self.study.tell(claim.trial, list(values) if values is not None else None, state, skip_if_finished=False)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            if frozen(claim.trial).state.is_finished():
                return False
            raise
        if claim.leftovers is not None:
            remove_weights(claim.leftovers)
        return True

    def _claim_by_lock(self) -> Claim | None:
        folder = make_subfolder(self.where.folder, "locks")
        storage = storage_of(self.study)
        for known in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            lock = take(folder / f"trial-{known.number:05d}.lock", wait=False)
            if lock is None:
                continue
            now = storage.get_trial(id_of(known))
            if now.state.is_finished():
                lock.release()
                continue
            if now.state == TrialState.WAITING:
                if not storage.set_trial_state_values(id_of(now), TrialState.RUNNING):
                    lock.release()
                    continue
                attempt = 1
            else:
                reported = len(now.intermediate_values)
                attempt = 2 if reported > now.user_attrs.get(STEPS, 0) else attempts_of(now) + 1
                storage.set_trial_user_attr(id_of(now), ATTEMPTS, attempt)
                storage.set_trial_user_attr(id_of(now), STEPS, reported)
            self._lock = lock
            claim = Claim(Trial(self.study, id_of(now)), now.number, attempt=attempt)
            if attempt > 1 + RETRIES:
                with self.alive(claim):
                    self.tell(claim, TrialState.FAIL, reason=killed(attempt - 1))
                continue
            return claim
        return None

    def _claim_on_server(self) -> Claim | None:
        storage = storage_of(self.study)
        assert isinstance(storage, BaseHeartbeat)
        if time.monotonic() - self._looked > self.where.heartbeat / 2:
            self._queue_the_dead()
            self._looked = time.monotonic()
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            try:
                # A sign of life first: a worker that dies before its first one would never be missed.
                storage.record_heartbeat(id_of(waiting))
                if not storage.set_trial_state_values(id_of(waiting), TrialState.RUNNING):
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            history = waiting.system_attrs.get(HISTORY, [])
            before = history[-1] if history else None
            trial = Trial(self.study, id_of(waiting))
            return Claim(trial, place_of(waiting), before, 1 + len(history))
        return None

    def _queue_the_dead(self) -> None:
        """Queues the trials of workers without a sign of life again."""
        storage = storage_of(self.study)
        assert isinstance(storage, BaseHeartbeat)
        # Alone, since Optuna marks a trial first and copies it then: a worker that is killed in between loses it.
        with self.where.alone(storage, self.study.study_name):
            optuna.storages.fail_stale_trials(self.study)
            again = storage.get_heartbeat_stale_trial_callback()
            assert again is not None
            for trial in latest(self.study.get_trials(deepcopy=False)):
                if trial.state == TrialState.FAIL and not ended(trial):
                    again(self.study, trial)


def remove_weights(folder: Path) -> None:
    """Deletes the weights and states of a trial's seeds, but for what a link leads to."""
    for seed in entries(folder) if is_folder(folder) else ():
        if seed.name.startswith("seed-") and is_folder(seed) and not seed.is_symlink():
            for file in entries(seed):
                if file.suffix in (".safetensors", ".pt"):
                    remove(file)


def killed(times: int) -> str:
    """Why a trial failed whose workers were killed."""
    return f"its process was killed {times} times, perhaps because memory ran out"
