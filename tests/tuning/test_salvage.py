"""What is whole of a damaged journal is used, and what is left out is said."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.journals import CHANGES, plain
from helpers.objectives import Bowl
from helpers.studies import check_each_once, make_task, rows_of, trials_of, tune
from optuna.trial import FrozenTrial, TrialState

from gmsa.errors import RunError
from gmsa.tuning.journal import Journal
from gmsa.tuning.optuna_adapter import CheckedStorage
from gmsa.tuning.salvage import StudyFacts, salvage
from gmsa.tuning.trials import Queue
from gmsa.tuning.workers import WorkerTask, run_trials

OWN = {"x": 2.0, "kind": "a"}
FACTS = StudyFacts("study", [1], "gmsa", OWN)
TRIALS = 5


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> WorkerTask:
    """A study of five trials."""
    folder = tmp_path_factory.mktemp("whole")
    task = make_task(folder, Bowl(folder / "log"), TRIALS, first=OWN)
    task.load_study().set_user_attr("gmsa", "{}")
    run_trials(task)
    (folder / "study.json").write_text('{"study": "study", "storage": "here"}')
    for number in range(TRIALS):
        (folder / "trials" / f"{number:05d}").mkdir(parents=True)
    return task


def damaged(study: WorkerTask, content: bytes, folder: Path) -> WorkerTask:
    """A copy of the study with another journal."""
    shutil.copytree(study.where.folder, folder)
    (folder / "journal.log").write_bytes(content)
    return WorkerTask(type(study.where)(folder), "study", Bowl(folder / "log"), study.config, "random", "off", 3)


def check(study: WorkerTask, task: WorkerTask, facts: StudyFacts = FACTS) -> tuple[list[FrozenTrial], str]:
    """Salvages: every trial is as it was, or begins anew and is named; the study then ends. Returns the trials."""
    journal = task.where.journal
    before, content = {t.number: t for t in trials_of(study)}, journal.read_bytes()
    said: list[str] = []
    salvage(journal, facts, said.append)
    text = "\n".join(said)
    assert journal.with_name("journal.log.damaged-1").read_bytes() == content
    found = task.load_study().get_trials()
    for trial in found:
        folder = journal.parent / "trials" / f"{trial.number:05d}"
        if trial.state == TrialState.COMPLETE:
            assert trial == before[trial.number]
            assert folder.exists()
        else:
            assert trial.state == TrialState.WAITING
            assert trial.params == {}
            assert not folder.exists()
    optuna_trials = [t for t in found if t.state == TrialState.WAITING and t.number == 0]
    assert all(t.system_attrs["fixed_params"] == OWN for t in optuna_trials)
    assert task.load_study().user_attrs == {"gmsa": "{}"}
    make_task(task.where.folder, task.objective, TRIALS, first=OWN)  # queues what is lacking
    run_trials(task)
    check_each_once(task, TRIALS)
    return found, text


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_trial_is_as_it_was_or_begins_anew(
    change: Callable[[list[bytes]], list[bytes]], study: WorkerTask, tmp_path: Path
) -> None:
    lines = study.where.journal.read_bytes().splitlines(keepends=True)
    check(study, damaged(study, b"".join(change(lines)), tmp_path / "study"))


def flip_bits(study: WorkerTask, folder: Path, changes: int) -> None:
    whole, draw = study.where.journal.read_bytes(), random.Random(16)
    kept = 0
    for number in range(changes):
        content = bytearray(whole)
        content[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        found, text = check(study, damaged(study, bytes(content), folder / str(number)))
        assert "line " in text
        complete = sum(t.state == TrialState.COMPLETE for t in found)
        assert complete >= TRIALS - 1  # one worker: one trial can have lost a line
        kept += complete
    assert kept < changes * TRIALS


def test_a_changed_bit_costs_one_trial_at_most(study: WorkerTask, tmp_path: Path) -> None:
    flip_bits(study, tmp_path, 10)


@pytest.mark.slow
def test_two_hundred_changed_bits_cost_one_trial_at_most_each(study: WorkerTask, tmp_path: Path) -> None:
    flip_bits(study, tmp_path, 200)


def test_whichever_line_of_two_workers_is_lost(tmp_path: Path) -> None:
    """Their lines alternate: a lost one may have been of either."""
    folder = tmp_path / "whole"
    study = make_task(folder, Bowl(folder / "log"), TRIALS, first=OWN)
    study.load_study().set_user_attr("gmsa", "{}")
    (folder / "study.json").write_text('{"study": "study", "storage": "here"}')
    for number in range(TRIALS):
        (folder / "trials" / f"{number:05d}").mkdir(parents=True)
    queues = [Queue(study.load_study(), study.where) for _ in range(2)]
    claims = [queue.claim() for queue in queues]
    for step in range(3):
        for claim in claims:
            assert claim is not None
            claim.trial.suggest_float("xyz"[step], -5, 5)
    for queue, claim in zip(queues, claims, strict=True):
        assert claim is not None
        with queue.alive(claim):
            queue.tell(claim, TrialState.COMPLETE, [float(claim.place)])
    run_trials(study)
    lines = study.where.journal.read_bytes().splitlines(keepends=True)
    anew = []
    for lost in range(1, len(lines)):
        found, _ = check(study, damaged(study, b"".join(lines[:lost] + lines[lost + 1 :]), tmp_path / str(lost)))
        anew.append(sum(t.state == TrialState.WAITING for t in found))
    assert set(anew) == {0, 1, 2}


def test_what_is_left_out_is_said(study: WorkerTask, tmp_path: Path) -> None:
    whole = study.where.journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if b'"trial_id":2,"state":1' in line)
    value = trials_of(study)[2].values[0]
    lines[at] = lines[at].replace(b'"state":1', b'"state":3')
    found, text = check(study, damaged(study, b"".join(lines), tmp_path / "a"))
    assert [t.state.name for t in found] == ["COMPLETE"] * 2 + ["WAITING"] + ["COMPLETE"] * 2
    assert f"line {at + 1}: perhaps a state or value of trial 2 ({value})" in text
    assert "trial 2: a line of it may be lost, so it begins anew" in text
    lines = whole.splitlines(keepends=True)
    del lines[at - 1]
    _, text = check(study, damaged(study, b"".join(lines), tmp_path / "b"))
    assert f"1 lost line before line {at}" in text
    assert f"trial 2 with its value [{value}]: a line of it may be lost" in text


def test_lost_lines_of_new_trials_shift_no_numbers(study: WorkerTask, tmp_path: Path) -> None:
    """Optuna numbers trials by their order: without the line of one, all after it would get another's values."""
    lines = study.where.journal.read_bytes().splitlines(keepends=True)
    found, text = check(study, damaged(study, b"".join(lines[:1] + lines[3:]), tmp_path / "study"))
    assert all(t.state == TrialState.COMPLETE for t in found)
    assert len(found) == TRIALS
    assert "the new trial 0: it is queued again" in text


def test_lost_last_lines(study: WorkerTask, tmp_path: Path) -> None:
    lines = study.where.journal.read_bytes().splitlines(keepends=True)
    found, text = check(study, damaged(study, b"".join(lines[:-1]), tmp_path / "study"))
    assert [t.state for t in found] == [TrialState.COMPLETE] * (TRIALS - 1) + [TrialState.WAITING]
    assert f"line {len(lines)}: it and all up to line {len(lines)} are lost" in text


def test_a_journal_of_an_older_gmsa_is_used_up_to_the_damage(study: WorkerTask, tmp_path: Path) -> None:
    lines = plain(study.where.journal.read_bytes()).splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if b'"trial_id":2,"state":1' in line)
    lines[at] = lines[at].replace(b'"state":1', b'"state":"')
    task = damaged(study, b"".join(lines), tmp_path / "study")
    task.where.journal.with_name("journal.log.lines").unlink()
    found, text = check(study, task)
    assert [t.state for t in found] == [TrialState.COMPLETE] * 2 + [TrialState.WAITING] * 3
    assert f"from line {at + 2} on: they follow a lost one" in text


def test_an_operation_that_optuna_refuses_is_left_out(study: WorkerTask, tmp_path: Path) -> None:
    task = damaged(study, study.where.journal.read_bytes(), tmp_path / "study")
    Journal(task.where.journal).append_logs([{"op_code": 99}])
    found, text = check(study, task)
    assert all(t.state == TrialState.COMPLETE for t in found)
    assert "Optuna cannot apply it" in text


def test_a_whole_journal_stays(study: WorkerTask, tmp_path: Path) -> None:
    task = damaged(study, study.where.journal.read_bytes(), tmp_path / "study")
    said: list[str] = []
    salvage(task.where.journal, FACTS, said.append)
    assert "is whole: there is nothing to salvage" in said[0]
    assert task.where.journal.read_bytes() == study.where.journal.read_bytes()
    with pytest.raises(RunError, match="nothing to salvage; leave --salvage out"):
        salvage(tmp_path / "none" / "journal.log", FACTS, said.append)


def test_another_command_at_the_same_study_stops(study: WorkerTask, tmp_path: Path) -> None:
    task = damaged(study, study.where.journal.read_bytes() + b"hello\n", tmp_path / "study")
    task.where.journal.write_bytes(study.where.journal.read_bytes())
    other = CheckedStorage(Journal(task.where.journal))
    with task.where.journal.open("ab") as file:
        file.write(b"hello\n")
    salvage(task.where.journal, FACTS, lambda text: None)
    for act in (lambda: other.get_all_studies(), lambda: other.set_study_user_attr(0, "a", 1)):
        with pytest.raises(RunError, match="was replaced by another file meanwhile"):
            act()


def test_the_command_names_the_line_and_goes_on(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "3") == 0
    rows = rows_of(out)
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if b'"trial_id":1' in line)
    lines[at] = lines[at].replace(b'"trial_id":1', b'"trial_id":2')
    journal.write_bytes(b"".join(lines[1:]))  # and the study's own line is lost
    with pytest.raises(RunError, match=r"line 1 is damaged .*run the same command with --salvage"):
        tune(base, out, "--trials", "3")
    capsys.readouterr()
    assert tune(base, out, "--trials", "3", "--salvage") == 0
    said = capsys.readouterr().out
    assert f"line {at}: perhaps a state or value of trial 2" in said
    assert "they are written anew" in said
    assert "trial 1 with its value" in said
    assert (out / "trials" / "00001.damaged-1").is_dir()
    again = rows_of(out)
    for row, new in zip(rows, again, strict=True):
        del row["seconds"], new["seconds"]
        assert row == new
    assert json.loads((out / "summary.json").read_text())["trials"]["complete"] == 3
    assert tune(base, out, "--trials", "3") == 0
