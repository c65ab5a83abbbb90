"""A study's journal: Optuna's operations, one a line, each of which shows that it is whole and in its place.

A line is the JSON object that Optuna writes, with four keys before its own, which Optuna passes over::

    {"line":17,"trials":3,"after":"5c0e…","check":"9a41…","op_code":5,…}

``check`` is a digest of the line, ``after`` that of the line before, and ``trials`` counts the trials that are there
already, by which Optuna numbers them. So a line that was changed, lost, doubled or moved is noticed;
``journal.log.lines`` counts the lines, so that lost last ones are noticed too. Plain lines of older versions are taken
where no line with a digest stands before them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from optuna.storages.journal import BaseJournalBackend

from gmsa.errors import RunError, WriteError
from gmsa.system.reading import MOST_TEXT, exists, open_regular, parse_json, read_bytes, reason_of

CREATE_STUDY, DELETE_STUDY, SET_STUDY_ATTR, CREATE_TRIAL, SET_TRIAL_STATE = 0, 1, 2, 4, 6
"""Optuna's numbers of operations."""
HEAD_KEYS = ("line", "trials", "after", "check")
"""What gmsa adds to an operation."""
HEAD = re.compile(rb'\{"line":(\d{1,9}),"trials":(\d{1,9}),"after":"([0-9a-f]{16})","check":"([0-9a-f]{16})",')
PLAIN = b'{"op_code":'
"""How a line of Optuna's, without a digest, begins."""

_DIGITS = 16


@dataclass(frozen=True)
class Mark:
    """A place between two lines."""

    offset: int = 0
    """Bytes before it."""
    line: int = 0
    """Lines before it."""
    trials: int = 0
    """Trials that they create."""
    check: str = "0" * 16
    """Digest of the line before it."""
    checked: bool = False
    """Whether that line shows its digest; all that follow must, too."""


class DamagedLine(RunError):
    """A line of a journal is not as it was written.

    Args:
        hopeless: whether it is as it was written, but Optuna did not write it.
    """

    def __init__(self, journal: Path, line: int, why: str, hopeless: bool = False) -> None:
        super().__init__(
            f"'{journal}': line {line} is damaged ({why}); run the same command with --salvage to go on with the rest"
        )
        self.line, self.why, self.hopeless = line, why, hopeless


class Journal(BaseJournalBackend):
    """The file, for processes of one machine; a lock that the kernel takes back from the dead guards its writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = self._end = Mark()
        try:
            with suppress(FileExistsError), open(path, "xb"):
                pass
            with self._open() as file:
                self._inode = os.fstat(file.fileno()).st_ino
            with open(path, "rb+"):  # before any work
                pass
        except OSError as error:
            raise WriteError(f"cannot write '{path}': {reason_of(error)}; repair that, or name another --out") from None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from a line on, counted from 0.

        Raises:
            RunError: a line is damaged, or the file cannot be read.
        """
        told = self._told() if log_number_from == 0 else 0  # before the lines: others may write meanwhile
        known = [mark for mark in (Mark(), self._read, self._end) if mark.line <= log_number_from]
        last = max(known, key=lambda mark: mark.line)
        try:
            for mark, line in self._lines(last):
                log = _parse(self.path, mark, line)
                last = mark
                if mark.line > log_number_from:
                    yield log
        except DamagedLine:
            # Perhaps it was read while another process cut an unfinished line off and wrote its own there.
            with self.locked():
                rest = [(mark, _parse(self.path, mark, line)) for mark, line in self._lines(last)]
            for mark, log in rest:
                last = mark
                if mark.line > log_number_from:
                    yield log
        if last.line < told:
            raise DamagedLine(self.path, last.line + 1, f"it and all up to line {told} are lost")
        self._read = last

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes operations behind the last whole line; what a killed process has left unfinished is cut off.

        Raises:
            RunError: a line is damaged, or the file cannot be written.
        """
        with self.locked():
            mark = self._end
            for behind, _ in self._lines(self._end):
                mark = behind
            start, lines = mark.offset, []
            for log in logs:
                mark, line = written(mark, log)
                lines.append(line)
            try:
                with open(self.path, "rb+") as file:
                    file.truncate(start)
                    file.seek(start)
                    file.write(b"".join(lines))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise WriteError(
                    f"cannot write '{self.path}': {reason_of(error)}; free disk space or repair the disk, then resume"
                ) from None
            self._end = mark
            tell(self.path, mark.line)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of those who write."""
        # Not the name of Optuna's own lock, which a dashboard may use; and those outlive a killed process.
        with held(Path(f"{self.path}.kernel-lock")):
            yield

    def _told(self) -> int:
        """How many lines there should be at least."""
        count = _count_of(self.path)
        text = read_bytes(count, _DIGITS, inside=count.parent).strip() if exists(count) else b""
        return int(text) if text.isdigit() else 0

    def _open(self) -> BinaryIO:
        return open_regular(self.path, inside=self.path.parent)

    def _lines(self, mark: Mark) -> Iterator[tuple[Mark, bytes]]:
        """The whole lines from a place on, each with the place behind it; checks them."""
        with self._open() as file:
            there = os.fstat(file.fileno())
            if there.st_ino != self._inode or there.st_size < mark.offset:
                raise RunError(f"'{self.path}': was replaced by another file meanwhile; run the same command again")
            for line in raw_lines(file, self.path, mark.offset, there.st_size):
                if len(line) > MOST_TEXT:
                    raise DamagedLine(self.path, mark.line + 1, f"it has more than {MOST_TEXT:,} bytes")
                if not line.endswith(b"\n"):
                    if not unfinished(line, mark):
                        raise DamagedLine(self.path, mark.line + 1, "gmsa did not write it, or it was changed")
                    return
                try:
                    mark = following(mark, line)
                except ValueError as error:
                    raise DamagedLine(self.path, mark.line + 1, str(error)) from None
                yield mark, line


def raw_lines(file: BinaryIO, path: Path, offset: int, size: int) -> Iterator[bytes]:
    """The lines of a file between two bytes; of a longer one than a line may be, a part of that length.

    Raises:
        RunError: the disk does not give them.
    """
    try:
        file.seek(offset)
        # What others write meanwhile stays out: it may not be whole yet.
        while offset < size and (line := file.readline(MOST_TEXT + 1)):
            offset += len(line)
            if offset <= size:
                yield line
    except OSError as error:
        raise RunError(f"'{path}': cannot be read: {reason_of(error)}; check the disk") from None


def following(mark: Mark, line: bytes) -> Mark:
    """Checks a line against the place at which it stands, and returns the place behind it.

    Raises:
        ValueError: says what is wrong.
    """
    head = HEAD.match(line)
    if head is None:
        if mark.checked or not line.startswith(PLAIN):
            raise ValueError("gmsa did not write it, or it was changed")
        check = blake2b(mark.check.encode() + line, digest_size=8).hexdigest()
        new = line.startswith(b"%s%d," % (PLAIN, CREATE_TRIAL))
    else:
        number, trials, after, check = (part.decode() for part in head.groups())
        if not proves(line, head):
            raise ValueError("it was changed")
        if (int(number), int(trials), after) != (mark.line + 1, mark.trials, mark.check):
            if mark.line and not mark.checked:
                raise ValueError("a line before it, all of which are of an older gmsa, was changed")
            raise ValueError("it does not follow the one before: a line is lost, or stands in another place")
        new = line.startswith(b'"op_code":%d,' % CREATE_TRIAL, head.end())
    return Mark(mark.offset + len(line), mark.line + 1, mark.trials + new, check, head is not None)


def proves(line: bytes, head: re.Match[bytes]) -> bool:
    """Whether a line has the digest that it shows."""
    return _digest(line[: head.start(4)], line[head.end(4) :]) == head[4]


def tell(path: Path, lines: int) -> None:
    """Notes how many lines a journal has. It is never ahead of the journal, which is on the disk already."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(OSError):  # then it stays behind
        handle = os.open(_count_of(path), flags, 0o666)
        try:
            os.write(handle, b"%*d\n" % (_DIGITS - 1, lines))  # in place, all digits at once
        finally:
            os.close(handle)


def unfinished(line: bytes, mark: Mark) -> bool:
    """Whether the end of a file is a line that a killed process began: not a whole one that lacks its end."""
    begins = [b'{"line":'] if mark.checked else [b'{"line":', PLAIN]
    if not any(line.startswith(begin[: len(line)]) for begin in begins):
        return False
    try:
        if HEAD.match(line):
            following(mark, line[:-1] + b"\n")
        else:
            parse(line[:-1])
    except ValueError:
        return True
    return False


def written(mark: Mark, log: dict[str, Any]) -> tuple[Mark, bytes]:
    """A line for an operation, and the place behind it.

    Raises:
        RunError: it is too long.
    """
    rest = json.dumps(log, separators=(",", ":")).encode()[1:] + b"\n"
    head = b'{"line":%d,"trials":%d,"after":"%s","check":"' % (mark.line + 1, mark.trials, mark.check.encode())
    check = _digest(head, b'",' + rest)
    line = head + check + b'",' + rest
    if len(line) > MOST_TEXT:
        raise RunError(f"a line of a study's journal may have {MOST_TEXT:,} bytes, not {len(line):,}; shorten its text")
    new = log.get("op_code") == CREATE_TRIAL
    return Mark(mark.offset + len(line), mark.line + 1, mark.trials + new, check.decode(), True), line


def parse(line: bytes) -> dict[str, Any]:
    """The operation of a line.

    Raises:
        ValueError: it holds none.
    """
    log = parse_json(line.decode("utf-8"), nan=True)
    if not isinstance(log, dict):
        raise ValueError("it is no object")
    return log


def take(path: Path, wait: bool = True) -> FileLock | None:
    """Takes a file lock, which the kernel takes back from a killed process; None if another has it, unless it waits.

    Raises:
        RunError: the file cannot be opened.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        raise RunError(f"cannot lock '{path}': {reason_of(error)}; check the rights of its folder") from None
    return lock


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a file lock as :func:`take` does; yields whether it got it."""
    lock = take(path, wait)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def _count_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lines")


def _parse(path: Path, mark: Mark, line: bytes) -> dict[str, Any]:
    try:
        return parse(line)
    except ValueError:
        raise DamagedLine(path, mark.line, "it is no operation of Optuna's", hopeless=True) from None


def _digest(head: bytes, rest: bytes) -> bytes:
    return blake2b(head + rest, digest_size=8).hexdigest().encode()
