"""Where a study is kept: a journal in its folder, or a PostgreSQL server for many machines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from gmsa.errors import RunError
from gmsa.rng import seed_for
from gmsa.system.files import make_folder
from gmsa.tuning.database_url import hide, shown_url
from gmsa.tuning.journal import Journal, held
from gmsa.tuning.optuna_adapter import CheckedStorage, engine_of

RETRIES = 5
"""Times that a trial is resumed after its worker was killed."""
_DRIVER = "postgresql+psycopg"


@dataclass(frozen=True)
class StoragePlace:
    """Where a study is kept; picklable. Its ``repr`` shows no secret."""

    folder: Path
    """The study's folder."""
    url: str | None = None
    """URL of a database; None for a journal in the folder. It may hold secrets."""
    heartbeat: int = 60
    """On a server: seconds between two signs of life; a worker that gives none for twice as long counts as dead."""

    def __repr__(self) -> str:
        return f"StoragePlace({self.shown!r})"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / "journal.log"

    @property
    def shown(self) -> str:
        """The place without secrets."""
        return str(self.journal) if self.url is None else shown_url(self.url)

    @property
    def one_machine(self) -> bool:
        """Whether file locks tell which workers live: the study is a file on this machine."""
        return self.url is None or self.url.startswith("sqlite")

    def connect(self) -> BaseStorage:
        """Connects to the storage.

        Raises:
            RunError: the journal is damaged, the server does not answer, or a driver is missing.
        """
        quiet()
        if self.url is None:
            make_folder(self.folder)
            return CheckedStorage(Journal(self.journal))
        url = self.url
        try:
            if self.one_machine:
                return RDBStorage(url)
            return RDBStorage(
                _DRIVER + url[url.index(":") :],
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=self.heartbeat,
                grace_period=2 * self.heartbeat,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
                    max_retry=RETRIES, inherit_intermediate_values=True
                ),
            )
        except ImportError:
            raise RunError(
                "PostgreSQL needs its driver; install it, in the clone: pip install '.[postgresql]'"
            ) from None
        except Exception as error:  # whatever the driver raises; its message may hold the URL
            raise RunError(f"cannot open the storage '{self.shown}': {self.hide(first_line(error))}") from None

    def hide(self, line: str) -> str:
        """A text without the secrets of the URL."""
        return line if self.url is None else hide(self.url, line)

    @contextmanager
    def one_command(self) -> Iterator[None]:
        """Locks an SQLite file against a second command, whatever that one's folder.

        Raises:
            RunError: another one does.
        """
        file = make_url(self.url).database if self.url is not None and self.one_machine else None
        if file is None:
            yield
            return
        with held(Path(f"{file}.lock"), wait=False) as got:
            if not got:
                raise RunError(f"another command works at '{file}', and SQLite cannot be shared; wait for it")
            yield

    @contextmanager
    def alone(self, storage: BaseStorage, study: str, purpose: str = "queue", wait: bool = True) -> Iterator[bool]:
        """Holds a lock of this study and purpose, on all machines; a killed process releases it.

        Yields whether it got the lock: always with ``wait``.
        """
        if self.one_machine:
            with held(make_folder(self.folder) / f"{purpose}.lock", wait) as got:
                yield got
            return
        key = {"key": seed_for("gmsa", purpose, study)}
        with engine_of(storage).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if wait:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
                got = True
            else:
                got = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar())
            try:
                yield got
            finally:
                if got:
                    with suppress(DBAPIError):  # a server that has restarted has released it already
                        connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def quiet() -> None:
    """Silences Optuna but for errors: gmsa prints its own lines."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
