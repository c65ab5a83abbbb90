"""Everything of Optuna that is not public: no other module touches it, so a new version breaks one file.

Optuna's public interface has one process draw its trials one after the other. gmsa's workers take queued trials, and
take over those of dead ones, which needs the storage and the ids in it.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial
from sqlalchemy.engine import Engine

from gmsa.tuning.journal import DamagedLine, Journal

__all__ = [
    "BaseHeartbeat",
    "CheckedStorage",
    "allows",
    "engine_of",
    "forget_trials",
    "frozen",
    "id_of",
    "storage_of",
]


class CheckedStorage(JournalStorage):
    """A storage on a journal that may be a stranger's: an operation that cannot be is an error that names its line."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        super().__init__(journal)

    def _sync_with_backend(self) -> None:
        replay = self._replay_result
        for log in self._journal.read_logs(replay.log_number_read):
            try:
                replay.apply_logs([log])
            except Exception as error:
                if log.get("worker_id") == replay.worker_id:
                    raise  # Optuna refuses an operation of this process, which asked for it
                what = f"Optuna cannot apply it: {type(error).__name__}"
                raise DamagedLine(self._journal.path, replay.log_number_read, what, hopeless=True) from None


def storage_of(study: Study) -> BaseStorage:
    """The storage of a study, behind its cache."""
    return study._storage


def id_of(trial: Trial | FrozenTrial) -> int:
    """The trial's id in its storage, which is not its number."""
    return trial._trial_id


def frozen(trial: Trial) -> FrozenTrial:
    """What the storage knows of a trial; not a copy."""
    return storage_of(trial.study).get_trial(id_of(trial))


def forget_trials(study: Study) -> None:
    """Lets the study read its trials again, as ``Study.ask`` does."""
    study._thread_local.cached_all_trials = None


def allows(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution can give a value.

    Raises:
        ValueError, TypeError: the value is of a kind that the distribution does not know.
    """
    return distribution._contains(distribution.to_internal_repr(value))


def engine_of(storage: BaseStorage) -> Engine:
    """SQLAlchemy's engine of a database; a study's own storage is wrapped in a cache."""
    engine: Engine = getattr(storage, "_backend", storage).engine  # type: ignore[union-attr]
    return engine
