"""The journal of a study: what is damaged is named, and nothing of it changes a value."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.counts import Recorder, tell
from helpers.journals import CHANGES, plain
from helpers.objectives import Bowl
from helpers.studies import make_task, trials_of
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from gmsa.errors import RunError
from gmsa.tuning.journal import DamagedLine, Journal, Mark, written
from gmsa.tuning.optuna_adapter import CheckedStorage
from gmsa.tuning.workers import run_trials


def state_of(storage: optuna.storages.BaseStorage) -> list[Any]:
    """All that a storage says."""
    return [
        (s.study_name, s.user_attrs, s.system_attrs, s.directions, storage.get_all_trials(number))
        for number, s in enumerate(storage.get_all_studies())
    ]


def read(path: Path) -> list[Any]:
    return state_of(CheckedStorage(Journal(path)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a study of five trials."""
    folder = tmp_path_factory.mktemp("whole")
    task = make_task(folder, Bowl(folder / "log"), 5, first={"x": 2.0, "kind": "a"})
    run_trials(task)
    return (folder / "journal.log").read_bytes()


def test_optuna_and_its_dashboard_read_a_journal(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(whole)
    assert state_of(JournalStorage(JournalFileBackend(str(path)))) == read(path)
    assert path.read_bytes() == whole


def test_each_line_tells_where_it_stands(whole: bytes) -> None:
    logs = [json.loads(line) for line in whole.splitlines()]
    assert [log["line"] for log in logs] == list(range(1, len(logs) + 1))
    assert [log["after"] for log in logs] == ["0" * 16, *(log["check"] for log in logs[:-1])]
    assert logs[-1]["trials"] == 5


def flip_bits(whole: bytes, path: Path, changes: int) -> None:
    """Changes one bit after the other: the line is named, every time."""
    path.write_bytes(whole)
    draw = random.Random(15)
    for _ in range(changes):
        at, bit = draw.randrange(len(whole)), draw.randrange(8)
        content = bytearray(whole)
        content[at] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(DamagedLine) as caught:
            read(path)
        assert caught.value.line == whole.count(b"\n", 0, at) + 1
        assert f"'{path}': line {caught.value.line} is damaged" in str(caught.value)
        assert path.read_bytes() == content


def test_a_changed_bit_is_named(whole: bytes, tmp_path: Path) -> None:
    flip_bits(whole, tmp_path / "journal.log", 100)


@pytest.mark.slow
def test_a_thousand_changed_bits_are_named(whole: bytes, tmp_path: Path, record_property: Recorder) -> None:
    flip_bits(whole, tmp_path / "journal.log", 1000)
    tell(record_property, "journals with one changed bit", refused=1000, right=0)


@pytest.mark.parametrize("at", [0, 3, -1])
@pytest.mark.parametrize("bit", range(8))
def test_a_changed_end_of_a_line_is_named(at: int, bit: int, whole: bytes, tmp_path: Path) -> None:
    """The last line's above all: without its end it looks like one that a killed process has left unfinished."""
    lines = whole.splitlines(keepends=True)
    lines[at] = lines[at][:-1] + bytes([lines[at][-1] ^ (1 << bit)])
    (tmp_path / "journal.log").write_bytes(b"".join(lines))
    with pytest.raises(DamagedLine) as caught:
        read(tmp_path / "journal.log")
    assert caught.value.line == (at + 1 if at >= 0 else len(lines))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_lines_that_are_not_as_they_were(
    change: Callable[[list[bytes]], list[bytes]], whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b"".join(change(whole.splitlines(keepends=True))))
    changed = path.read_bytes()
    with pytest.raises(DamagedLine, match=r"line \d+ is damaged \(.*--salvage") as caught:
        read(path)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == changed


def test_a_file_that_is_cut_reads_as_before_up_to_there(whole: bytes, tmp_path: Path) -> None:
    """As a process that was killed while it wrote leaves it; the next one writes behind the last whole line."""
    path = tmp_path / "journal.log"
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at])
        before = read(path)
        lines = whole[: whole[:at].rfind(b"\n") + 1]
        path.write_bytes(lines)
        assert read(path) == before
        path.write_bytes(whole[:at])
        storage = CheckedStorage(Journal(path))
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "new")
        assert path.read_bytes().startswith(lines)
        assert read(path)[-1][0] == "new"
        (tmp_path / "journal.log.lines").unlink()


@pytest.mark.parametrize("lost", [1, 3, 10**6])
def test_lost_last_lines_are_noticed(lost: int, tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 2)
    journal = tmp_path / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    rest = lines[:-lost]
    journal.write_bytes(b"".join(rest)) if rest else journal.unlink()
    with pytest.raises(DamagedLine, match=f"line {len(rest) + 1} is damaged .it and all up to line {len(lines)} are"):
        trials_of(task)


def test_a_line_that_a_killed_worker_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    task = make_task(tmp_path, Bowl(tmp_path / "log"), 2)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"line":5,"trials":2,"aft')
    assert len(trials_of(task)) == 2  # reading passes over it
    run_trials(task)
    assert all(t.state == TrialState.COMPLETE for t in trials_of(task))
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_a_journal_of_an_older_gmsa_goes_on(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(old := plain(whole))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "journal.log").write_bytes(whole)
    assert read(path) == read(tmp_path / "new" / "journal.log")
    CheckedStorage(Journal(path)).set_study_user_attr(0, "a", 1)
    assert path.read_bytes().startswith(old)
    assert read(path)[0][1]["a"] == 1
    content = path.read_bytes()
    value = content.index(b'"values":[') + len(b'"values":[')  # its first digit
    path.write_bytes(content[:value] + bytes([content[value] ^ 1]) + content[value + 1 :])
    with pytest.raises(DamagedLine, match="a line before it, all of which are of an older gmsa, was changed") as caught:
        read(path)
    assert caught.value.line == old.count(b"\n") + 1
    path.write_bytes(content + old.splitlines(keepends=True)[-1])
    with pytest.raises(DamagedLine, match="gmsa did not write it"):
        read(path)


@pytest.mark.parametrize(
    "line",
    [
        b'{"op_code":4}',
        b'{"op_code":99}',
        b'{"op_code":null}',
        b'{"op_code":4,"study_id":0,"worker_id":"a","datetime_start":"yesterday"}',
        b'{"op_code":6,"trial_id":[],"worker_id":"a","state":1,"values":[1]}',
        b'{"op_code":0,"study_name":"a","worker_id":"a","directions":7}',
        b'{"op_code":2,"study_id":0,"worker_id":"a","user_attr":{}}',
        b'{"op_code":4,"study_id":0,"worker_id":"a","datetime_start":null,"distributions":{"x":"{}"}}',
        b'{"op_code":7,"trial_id":1,"worker_id":"a","step":1,"intermediate_value":' + b"9" * 5000 + b"}",
        b'{"op_code":' + b"[" * 100_000,
        b'{"op_code":\xff}',
        b'{"op_code":5',
    ],
)
def test_an_operation_that_cannot_be_is_named(line: bytes, whole: bytes, tmp_path: Path) -> None:
    """Without a digest, as in a stranger's journal, and with a right one."""
    path = tmp_path / "journal.log"
    old = plain(whole).splitlines(keepends=True)[:6]
    path.write_bytes(b"".join(old) + line + b"\n")
    with pytest.raises(DamagedLine, match=r"line 7 is damaged"):
        read(path)
    try:
        log = json.loads(line)
    except (ValueError, RecursionError):
        return
    mark = Mark()
    path.write_bytes(b"")
    for entry in [*map(json.loads, old), log]:
        mark, content = written(mark, entry)
        path.write_bytes(path.read_bytes() + content)
    with pytest.raises(DamagedLine, match=r"line 7 is damaged \(Optuna cannot apply it"):
        read(path)


def test_what_is_no_file(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    for make, message in (
        (lambda: os.mkfifo(path), "is not a regular file"),
        (lambda: path.symlink_to("/dev/zero"), "leads out of"),
        (lambda: path.symlink_to("/etc/passwd"), "leads out of"),
        (lambda: path.symlink_to(tmp_path / "none"), "does not exist"),
        (lambda: path.mkdir(), "is not a regular file|directory"),
        (lambda: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**11), "line 1 is damaged"),
    ):
        make()
        with pytest.raises(RunError, match=message) as caught:
            read(path)
        assert len(str(caught.value)) < 400
        path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(whole)
    os.truncate(path, 10**11)
    with pytest.raises(DamagedLine) as damaged:
        read(path)
    assert damaged.value.line == whole.count(b"\n") + 1


def test_nothing_is_written_behind_a_damaged_line(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(whole)
    storage = CheckedStorage(Journal(path))
    changed = whole + b"hello\n"
    path.write_bytes(changed)
    with pytest.raises(DamagedLine):
        storage.set_study_user_attr(0, "a", 1)
    assert path.read_bytes() == changed
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="was replaced by another file"):
        storage.set_study_user_attr(0, "a", 1)


def test_two_processes_write_in_turn(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(whole)
    one, two = CheckedStorage(Journal(path)), CheckedStorage(Journal(path))
    for number in range(20):
        (one, two)[number % 2].set_study_user_attr(0, str(number), number)
    assert state_of(one) == state_of(two) == read(path)
    assert len(read(path)[0][1]) == 20
    Journal(path).append_logs([json.loads(plain(line)) for line in whole.splitlines()[1:4]])
    assert [log["line"] for log in Journal(path).read_logs(0)] == list(range(1, whole.count(b"\n") + 24))


def test_a_line_is_not_longer_than_what_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log")
    with pytest.raises(RunError, match="may have 1,048,576 bytes"):
        journal.append_logs([{"op_code": 2, "text": "x" * (1 << 20)}])
    assert journal.path.read_bytes() == b""
