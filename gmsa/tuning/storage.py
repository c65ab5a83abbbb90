"""Where a study is kept: a journal in its folder, or a PostgreSQL server for many machines."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from gmsa.errors import ConfigError, RunError
from gmsa.rng import seed_for
from gmsa.tuning.optuna_adapter import BaseJournalFileLock, engine_of

RETRIES = 5
"""Times that a trial is resumed after its worker was killed."""
_DRIVER = "postgresql+psycopg"
SECRETS = ("password", "sslpassword")
"""Keys of a URL's query whose values are never shown."""


@dataclass(frozen=True)
class StoragePlace:
    """Where a study is kept; picklable. Its ``repr`` shows no password."""

    folder: Path
    """The study's folder."""
    url: str | None = None
    """URL of a database; None for a journal in the folder. It may hold a password."""
    heartbeat: int = 60
    """On a server: seconds between two signs of life; a worker that gives none for twice as long counts as dead."""

    def __repr__(self) -> str:
        return f"StoragePlace({self.shown!r})"

    @property
    def shown(self) -> str:
        """The place without passwords."""
        if self.url is None:
            return str(self.folder / "journal.log")
        url = make_url(self.url)
        return url.difference_update_query(SECRETS).render_as_string(hide_password=True)

    @property
    def one_machine(self) -> bool:
        """Whether file locks tell which workers live: the study is a file on this machine."""
        return self.url is None or self.url.startswith("sqlite")

    def connect(self) -> BaseStorage:
        """Connects to the storage.

        Raises:
            RunError: the server does not answer, or a driver is missing.
        """
        quiet()
        if self.url is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = str(self.folder / "journal.log")
            return JournalStorage(JournalFileBackend(file, KernelLock(file)))
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
            raise RunError("PostgreSQL needs its driver; install it with: pip install 'gmsa[postgresql]'") from None
        except Exception as error:  # whatever the driver raises; its message may hold the URL
            raise RunError(f"cannot open the storage '{self.shown}': {self.hide(first_line(error))}") from None

    def hide(self, line: str) -> str:
        """A text without the passwords of the URL."""
        if self.url is not None:
            url = make_url(self.url)
            line = line.replace(self.url, self.shown)
            written = re.findall(r"//[^/@]*?:([^/]*)@", self.url)  # as the user wrote it, perhaps with %40
            queried = [value for name in SECRETS for value in url.normalized_query.get(name, ())]
            for secret in (url.password, *written, *queried):
                line = line.replace(str(secret), "***") if secret else line
        return line

    @contextmanager
    def one_command(self) -> Iterator[None]:
        """Locks an SQLite file against a second command, whatever that one's folder.

        Raises:
            RunError: another one does.
        """
        file = make_url(self.url).database if self.url is not None and self.one_machine else None
        if not file or file == ":memory:":
            yield
            return
        lock = FileLock(f"{file}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"another command works at '{file}', and SQLite cannot be shared; wait for it") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def alone(self, storage: BaseStorage, study: str, purpose: str = "queue", wait: bool = True) -> Iterator[bool]:
        """Holds a lock of this study and purpose, on all machines; a killed process releases it.

        Yields whether it got the lock: always with ``wait``.
        """
        if self.one_machine:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{purpose}.lock")
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                yield False
                return
            try:
                yield True
            finally:
                lock.release()
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


def check_storage(url: str | None, jobs: int) -> None:
    """Refuses a storage that does not work with this many workers.

    Raises:
        ConfigError: says why, and what to use.
    """
    if url is None:
        return
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
    except (ArgumentError, ValueError, ModuleNotFoundError):
        raise ConfigError(
            "--storage takes a URL such as postgresql://user@host/database; leave it out for a journal in the folder"
        ) from None
    if "@" in (parsed.host or ""):
        raise ConfigError("--storage: write an '@' in a password as %40, or leave the password to ~/.pgpass")
    if kind == "sqlite" and jobs > 1:
        raise ConfigError(
            f"SQLite cannot be shared by {jobs} workers: two of them can draw the same queued trial, as it has no row "
            "locks; leave --storage out (a journal in the study's folder), use PostgreSQL, or --jobs 1"
        )
    if kind not in ("sqlite", "postgresql"):
        raise ConfigError(f"--storage knows postgresql and sqlite (got '{kind}'); leave it out for a journal")


class KernelLock(BaseJournalFileLock):
    """Guards a journal by a lock that the kernel takes back when its holder dies.

    Optuna's own lock files outlive a killed process, and all others then wait for half a minute. A line that a killed
    process left unfinished is cut off here before another is written behind it.
    """

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._lock = FileLock(f"{journal}.kernel-lock")  # not the name of Optuna's own, which a dashboard may use

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._lock.acquire()
        with open(self._journal, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Releases it."""
        self._lock.release()


def quiet() -> None:
    """Silences Optuna but for errors: gmsa prints its own lines."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
