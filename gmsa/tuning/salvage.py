"""Mends a damaged journal: what is whole goes into a new one, and what is left out is said.

A line that is lost may have been any. A trial counts only where none can have been one of its own; the others, which
ran when a line was lost, begin anew. Optuna numbers trials by the order of their lines: where some of those are lost,
the trials after them keep their numbers all the same, since every line tells how many were there before it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from gmsa.errors import RunError, WriteError, cut
from gmsa.system.files import make_subfolder, rename, write_bytes
from gmsa.system.reading import MOST_TEXT, entries, exists, open_regular, read_json, reason_of
from gmsa.tuning.journal import (
    CREATE_STUDY,
    CREATE_TRIAL,
    DELETE_STUDY,
    HEAD,
    HEAD_KEYS,
    SET_STUDY_ATTR,
    SET_TRIAL_STATE,
    DamagedLine,
    Journal,
    Mark,
    following,
    parse,
    proves,
    raw_lines,
    tell,
    unfinished,
    written,
)
from gmsa.tuning.optuna_adapter import CheckedStorage

_SHOWN = 20
"""Lines that are spoken of one by one."""
_KINDS = {
    CREATE_STUDY: "the study",
    SET_STUDY_ATTR: "a fact of the study",
    CREATE_TRIAL: "a new trial",
    5: "a choice",
    SET_TRIAL_STATE: "a state or value",
    7: "the score of an epoch",
    8: "a note",
    9: "a note",
}
"""What Optuna's operations record, by number."""


@dataclass(frozen=True)
class StudyFacts:
    """What makes good the first lines of a study if they are lost."""

    name: str
    directions: Sequence[int]
    """Optuna's numbers: 1 minimizes, 2 maximizes."""
    attribute: str
    """Name of the attribute with the facts, which ``study.json`` holds too."""
    first: Mapping[str, Any]
    """Parameters of the first trial: the config's own."""


@dataclass(frozen=True)
class _Line:
    """A whole line."""

    place: int
    """Its number in the file."""
    number: int
    """Its number when it was written."""
    trials: int | None
    """Trials that were there before; None of a line of an older gmsa."""
    after: str
    check: str
    log: dict[str, Any]


def salvage(path: Path, study: StudyFacts, say: Callable[[str], None]) -> None:
    """Replaces a damaged journal by one with its whole lines, and says what is left out; the damaged one is kept.

    The run folders of trials that begin anew are kept beside theirs, too.

    Raises:
        RunError: there is no journal, it cannot be read, or the new one cannot be written.
    """
    if not exists(path):
        raise RunError(f"'{path}' does not exist, so there is nothing to salvage; leave --salvage out")
    journal = Journal(path)
    try:
        CheckedStorage(journal)
    except DamagedLine as error:
        with journal.locked():
            _mend(path, study, say, error)
    else:
        say(f"'{path}' is whole: there is nothing to salvage.")


def _mend(path: Path, study: StudyFacts, say: Callable[[str], None], error: DamagedLine) -> None:
    lines, damaged = _read(path)
    kept, notes, cut_off = _in_order(lines, damaged)
    kept, damaged = _without(kept, damaged, error)
    last = max((line.place for line in kept), default=0)
    ends_whole = not cut_off and not (damaged and damaged[-1][0] > last)
    if not damaged and error.line > max((line.place for line in lines), default=0):
        ends_whole, notes = False, [*notes, f"line {error.line}: {error.why}"]
    logs, broken, more = _replay(kept, study, ends_whole)
    logs, restored = _with_study(logs, path, study)
    number = next(n for n in itertools.count(1) if not exists(f"{path}.damaged-{n}"))
    if sum(log.get("op_code") == CREATE_STUDY for log in logs) == 1:
        _set_aside(
            make_subfolder(path.parent, "trials"), {log["trial_id"] for log in logs if "trial_id" in log}, number
        )
    mark, content = Mark(), []
    for log in logs:
        mark, line = written(mark, {key: value for key, value in log.items() if key not in HEAD_KEYS})
        content.append(line)
    backup = Path(f"{path}.damaged-{number}")
    _copy(path, backup)
    write_bytes(path, b"".join(content))
    tell(path, mark.line)
    found = [f"line {place}: {text}" for place, text in damaged] + notes + restored + more
    say(f"Salvaged '{path}': {len(content)} lines; the damaged file is '{backup.name}' now. Left out, or made good:")
    for note in found[:_SHOWN]:
        say(f"  {note}")
    if len(found) > _SHOWN:
        say(f"  and {len(found) - _SHOWN} more")
    for trial, values in sorted(broken.items())[:_SHOWN]:
        lost = f" with its value {cut(values)}" if values else ""
        say(f"  trial {trial}{lost}: a line of it may be lost, so it begins anew")
    if len(broken) > _SHOWN:
        say(f"  and {len(broken) - _SHOWN} more trials, which begin anew: see '{path.parent / 'trials'}'")


def _read(path: Path) -> tuple[list[_Line], list[tuple[int, str]]]:
    """The whole lines of a journal, and where the others are, with what they may have been."""
    lines, damaged, mark = list[_Line](), list[tuple[int, str]](), Mark()
    with open_regular(path, inside=path.parent) as file:
        for place, raw in enumerate(raw_lines(file, path, 0, os.fstat(file.fileno()).st_size), 1):
            if len(raw) > MOST_TEXT:
                damaged.append((place, f"more than {MOST_TEXT:,} bytes; nothing behind it is read"))
                break
            if not raw.endswith(b"\n") and unfinished(raw, mark):
                break
            head = HEAD.match(raw)
            try:
                if not raw.endswith(b"\n") or (head is not None and not proves(raw, head)):
                    raise ValueError
                log = parse(raw)
                if head is None:
                    mark = Mark(line=place, check=following(mark, raw).check)
                    lines.append(_Line(place, place, None, "", mark.check, log))
                else:
                    number, trials, after, check = (part.decode() for part in head.groups())
                    mark = Mark(line=int(number), check=check, checked=True)
                    lines.append(_Line(place, mark.line, int(trials), after, check, log))
            except ValueError:
                damaged.append((place, _guess(raw)))
    return lines, damaged


def _guess(raw: bytes) -> str:
    """What a damaged line may have been."""
    op, trial = re.search(rb'"op_code":(\d{1,2}),', raw), re.search(rb'"trial_id":(\d{1,9})\b', raw)
    value = re.search(rb'"(?:values|intermediate_value)":\[?([-\d.e+, ]{1,60})', raw)
    kind = _KINDS.get(int(op[1])) if op else None
    if kind is None:
        return "unreadable"
    return f"perhaps {kind}{f' of trial {int(trial[1])}' if trial else ''}{f' ({value[1].decode()})' if value else ''}"


def _in_order(lines: list[_Line], damaged: list[tuple[int, str]]) -> tuple[list[_Line], list[str], bool]:
    """Puts lines into the order in which they were written.

    Lines behind a lost one are used only where each tells how many trials there were, of one study.

    Returns:
        the lines; what is to be said of the others; whether the lines from a place on are left out.
    """
    kept, notes = list[_Line](), list[str]()
    ordered = sorted(lines, key=lambda line: (line.number, line.place))
    one = sum(line.log.get("op_code") in (CREATE_STUDY, DELETE_STUDY) for line in lines) <= 1
    countable = one and all(line.trials is not None for line in lines)
    last, trials = _Line(0, 0, None, "", Mark().check, {}), 0
    for index, line in enumerate(ordered):
        if kept and (line.number, line.check) == (last.number, last.check):
            notes.append(f"line {line.place}: a copy of line {last.place}")
            continue
        lost = line.number - last.number - 1
        new = 0 if line.trials is None else line.trials - trials
        foreign = (
            lost < 0 or not 0 <= new <= lost or (lost == 0 and line.trials is not None and line.after != last.check)
        )
        if foreign and kept and last.trials is None:
            notes.append(f"lines 1 to {last.place} are of an older gmsa; one was changed, and nobody can tell which")
            foreign = new != 0
        if foreign or (lost and not countable):
            notes.append(
                f"the {len(ordered) - index} lines from line {line.place} on: "
                + ("they are of another journal" if foreign else "they follow a lost one, and cannot be told apart")
            )
            return kept, notes, True
        between = bisect(damaged, (line.place,)) - bisect(damaged, (last.place + 1,))
        missing = lost - between
        if missing > 0 and line.place > last.place:
            notes.append(f"{missing} lost line{'s' * (missing > 1)} before line {line.place}")
        if line.place < last.place:
            notes.append(f"nothing of line {line.place}, which belongs behind line {last.place} and is put there")
        kept.append(line)
        last, trials = line, trials + new + (line.log.get("op_code") == CREATE_TRIAL)
    return kept, notes, False


def _without(
    kept: list[_Line], damaged: list[tuple[int, str]], error: DamagedLine
) -> tuple[list[_Line], list[tuple[int, str]]]:
    """Leaves out a line that is whole but that Optuna cannot apply, and all behind it: gmsa did not write them."""
    if damaged or error.line not in {line.place for line in kept} or not error.hopeless:
        return kept, damaged
    return [line for line in kept if line.place < error.line], [(error.line, error.why)]


def _replay(
    kept: list[_Line], study: StudyFacts, ends_whole: bool
) -> tuple[list[dict[str, Any]], dict[int, Any], list[str]]:
    """The operations that can be used.

    Returns:
        them; the trials that begin anew, each with the value that it had; what else is to be said.
    """
    logs, notes = list[dict[str, Any]](), list[str]()
    trials = expected = 0
    begun, running, broken, values = set[int](), set[int](), set[int](), dict[int, Any]()
    for line in kept:
        op, trial, expected = line.log.get("op_code"), line.log.get("trial_id"), expected + 1
        if line.number != expected:  # any trial that ran may lack a line
            broken |= running
            expected = line.number
        for number in range(trials, trials if line.trials is None else line.trials):
            logs.append(_waiting(study.first if number == 0 else {}))
            notes.append(f"nothing of the lost line of the new trial {number}: it is queued again")
        trials = trials if line.trials is None else line.trials
        if op == CREATE_TRIAL:
            trials += 1
        elif isinstance(trial, int):
            if not 0 <= trial < trials:
                notes.append(f"line {line.place}: of the trial {trial}, whose own line is lost")
                continue
            state = line.log.get("state") if op == SET_TRIAL_STATE else None
            if trial not in begun and state != TrialState.RUNNING:
                broken.add(trial)
            begun.add(trial)
            if state is None or state == TrialState.RUNNING:
                running.add(trial)
            else:
                running.discard(trial)
                values[trial] = line.log.get("values")
        logs.append(line.log)
    broken |= set() if ends_whole else running
    logs = [log for log in logs if log.get("op_code") == CREATE_TRIAL or log.get("trial_id") not in broken]
    return logs, {trial: values.get(trial) for trial in broken}, notes


def _waiting(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The operation that queues a trial."""
    nothing: dict[str, Any] = {"distributions": {}, "params": {}, "user_attrs": {}, "intermediate_values": {}}
    known = {"datetime_start": None, "state": TrialState.WAITING.value, "value": None, "values": None}
    chosen = {"system_attrs": {"fixed_params": dict(parameters)}}
    return {"op_code": CREATE_TRIAL, "worker_id": "", "study_id": 0} | known | nothing | chosen


def _with_study(logs: list[dict[str, Any]], path: Path, study: StudyFacts) -> tuple[list[dict[str, Any]], list[str]]:
    """The operations with those that make the study, where they are lost; and what is to be said of that."""
    made, facts = list[dict[str, Any]](), path.parent / "study.json"
    common = {"worker_id": "", "study_id": 0}
    if not any(log.get("op_code") == CREATE_STUDY for log in logs):
        named = {"study_name": study.name, "directions": list(study.directions)}
        made.append({"op_code": CREATE_STUDY, "worker_id": ""} | named)
    kept = any(study.attribute in log.get("user_attr", ()) for log in logs if log.get("op_code") == SET_STUDY_ATTR)
    if not kept and exists(facts):
        known = read_json(facts, inside=path.parent)
        if isinstance(known, dict) and known.get("study") == study.name:
            text = json.dumps({key: value for key, value in known.items() if key not in ("study", "storage")})
            made.append({"op_code": SET_STUDY_ATTR} | common | {"user_attr": {study.attribute: text}})
    if not made:
        return logs, []
    there = 0 if made[0]["op_code"] == CREATE_STUDY else 1
    return logs[:there] + made + logs[there:], ["nothing of the study's own lost lines: they are written anew"]


def _set_aside(folder: Path, known: set[int], number: int) -> None:
    """Renames the run folders of trials that begin anew: they may have been trained with other settings."""
    for path in entries(folder):
        if re.fullmatch(r"\d{5,9}", path.name) and int(path.name) not in known:
            rename(path, f"{path.name}.damaged-{number}")


def _copy(path: Path, backup: Path) -> None:
    """Gives a file a second name, or copies it where the file system knows no such names."""
    try:
        try:
            os.link(path, backup)
        except OSError:
            shutil.copyfile(path, backup)
    except OSError as error:
        raise WriteError(f"cannot write '{backup}': {reason_of(error)}; free disk space, then run it again") from None
