"""A journal that a stranger made: its lines are right, what they say is not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import tune

from gmsa.errors import RunError
from gmsa.tuning import space_file
from gmsa.tuning import study as studies
from gmsa.tuning.folder import Study
from gmsa.tuning.journal import HEAD_KEYS, Mark, tell, written
from gmsa.tuning.objective import take_over
from gmsa.tuning.trials import remove_weights

Logs = list[dict[str, Any]]
NOTE, FACT, SYSTEM = 8, 2, 9


def rewrite(journal: Path, change: Callable[[Logs], None]) -> None:
    """Changes the operations of a journal, with right digests."""
    logs = [json.loads(line) for line in journal.read_bytes().splitlines()]
    logs = [{key: value for key, value in log.items() if key not in HEAD_KEYS} for log in logs]
    change(logs)
    mark, lines = Mark(), []
    for log in logs:
        mark, line = written(mark, log)
        lines.append(line)
    journal.write_bytes(b"".join(lines))
    tell(journal, mark.line)


def attribute(op: int, key: str, value: Any) -> Callable[[Logs], None]:
    """Adds an attribute where the first trial runs, or to the study."""
    kind = "system_attr" if op == SYSTEM else "user_attr"
    of = {"study_id": 0} if op == FACT else {"trial_id": 0}

    def change(logs: Logs) -> None:
        at = 1 + next(n for n, log in enumerate(logs) if log["op_code"] == 6)
        logs.insert(at, {"op_code": op, "worker_id": "x", kind: {key: value}} | of)

    return change


def field(op: int, key: str, value: Any) -> Callable[[Logs], None]:
    """Changes a field of the last operation of a kind."""
    return lambda logs: [log for log in logs if log["op_code"] == op][-1].update({key: value})


REFUSED = {
    "facts a number": attribute(FACT, "gmsa", 3),
    "facts null": attribute(FACT, "gmsa", None),
    "facts a list": attribute(FACT, "gmsa", "[]"),
    "facts no JSON": attribute(FACT, "gmsa", "{"),
    "facts nested": attribute(FACT, "gmsa", "[" * 100_000),
    "facts others": attribute(FACT, "gmsa", '{"objectives": {"a": [1]}, "space": 3, "config": null}'),
    "place text": attribute(SYSTEM, "failed_trial", "a"),
    "place a list": attribute(SYSTEM, "failed_trial", [1]),
    "place negative": attribute(SYSTEM, "failed_trial", -1),
    "place far away": attribute(SYSTEM, "failed_trial", 10**8),
    "history": attribute(SYSTEM, "retry_history", 7),
    "history of text": attribute(SYSTEM, "retry_history", ["a"]),
    "drawn together": attribute(SYSTEM, "gmsa:relative", "[1]"),
    "drawn together, nested": attribute(SYSTEM, "gmsa:relative", "[" * 100_000),
    "first values": attribute(SYSTEM, "fixed_params", []),
    "attempts": attribute(NOTE, "attempts", "many"),
    "attempts huge": attribute(NOTE, "attempts", 10**400),
    "steps": attribute(NOTE, "steps", None),
    "pruned": attribute(NOTE, "pruned", {}),
    "reason": attribute(NOTE, "reason", 5),
    "cost a number": field(NOTE, "user_attr", {"cost": 5}),
    "cost empty": field(NOTE, "user_attr", {"cost": {}}),
    "cost of text": field(NOTE, "user_attr", {"cost": {"seconds": "1", "epochs": 1, "parameters": 1}}),
    "cost infinite": field(NOTE, "user_attr", {"cost": {"seconds": float("inf"), "epochs": 1, "parameters": 1}}),
    "no value": field(6, "values", None),
    "values text": field(6, "values", "ab"),
    "values of text": field(6, "values", ["a"]),
    "two values": field(6, "values", [1.0, 2.0]),
    "values nested": field(6, "values", [[1.0]]),
    "values huge": field(6, "values", [10**400]),
    "values true": field(6, "values", [True]),
    "epoch's value": field(7, "intermediate_value", "a"),
    "epoch": field(7, "step", "a"),
    "epoch negative": field(7, "step", -3),
    "choice of text": field(5, "param_value_internal", "a"),
    "another choice": field(5, "param_name", "optim.epochs"),
    "choice out of range": field(5, "param_value_internal", 10**6),
    "a state that there is not": field(6, "state", 17),
    "directions": field(0, "directions", [2]),
    "two directions": field(0, "directions", [1, 1]),
    "no directions": field(0, "directions", []),
    "a name that is none": field(0, "study_name", ["a"]),
}


def test_what_gmsa_did_not_write_is_refused(
    base: Path, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    monkeypatch.setattr(studies, "prepare", functools.cache(studies.prepare))  # the data is the same each time
    assert tune(base, out, "--trials", "2") == 0
    monkeypatch.setattr(space_file, "_check_values", lambda *_: None)  # the config takes the space's values, as before
    whole = (out / "journal.log").read_bytes()
    lines = whole.count(b"\n")
    for name, change in REFUSED.items():
        (out / "journal.log").write_bytes(whole)
        tell(out / "journal.log", lines)
        rewrite(out / "journal.log", change)
        with pytest.raises(RunError) as caught:
            pytest.fail(f"{name}: {tune(base, out, '--trials', '2')}")
        assert "journal.log" in str(caught.value), name
        assert len(str(caught.value)) < 400 + 2 * len(str(tmp_path))
        assert str(caught.value).isprintable()
    (out / "journal.log").write_bytes(whole)
    rewrite(out / "journal.log", attribute(FACT, "gmsa:final", [1]))
    assert tune(base, out, "--trials", "2") == 0


@pytest.mark.parametrize(
    "summary",
    [
        '{"study": "s", "best": 3, "synthetic": false}',
        '{"study": "s", "best": [3], "synthetic": false}',
        '{"study": "s", "best": [{"trial": "0", "chose": {}, "values": {}}], "synthetic": false}',
        '{"study": "s", "best": [{"trial": 0, "chose": [], "values": {}}], "synthetic": false}',
        '{"study": "s", "best": [{"trial": 0, "chose": {}, "values": {"MAE": "a"}}], "synthetic": false}',
        '{"study": "s", "best": [{"trial": 0, "chose": {}, "values": {"MAE": %s}}], "synthetic": false}' % 10**400,
        '{"study": "s", "best": []}',
        "[]",
        "{",
    ],
)
def test_a_summary_of_another_shape_is_refused(summary: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(RunError, match=r"summary\.json':? is damaged"):
        Study(tmp_path)


def test_a_studys_table_goes_through_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "summary.json").write_text(
        '{"study": "s", "best": [{"trial": 0, "chose": {}, "values": {"MAE": 1}}], "synthetic": false}'
    )
    study, table = Study(tmp_path), tmp_path / "trials.csv"
    with pytest.raises(RunError, match="does not exist"):
        len(study)
    table.write_bytes(b"trial\n\xff")
    with pytest.raises(RunError, match="is not UTF-8"):
        repr(study)
    table.write_text("trial,reason\n0," + "x" * 200_000)
    with pytest.raises(RunError, match="is damaged: field larger"):
        len(study.trials)
    table.unlink()
    table.symlink_to("/dev/zero")
    with pytest.raises(RunError, match="leads out of"):
        len(study.trials)
    table.unlink()
    table.write_text("trial,state\n0,complete\n")
    assert study.trials == [{"trial": "0", "state": "complete"}]
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert Study(f"~/{tmp_path.name}").trials == study.trials
    with pytest.raises(RunError, match=r"best.yaml': does not exist"):
        assert study.best


def test_links_are_not_followed_to_copy_or_to_delete(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("weights.pt", "key.safetensors"):
        (secret / name).write_text("mine")
    before = tmp_path / "trials" / "00000"
    (before / "seed-1").mkdir(parents=True)
    (before / "seed-1" / "history.jsonl").write_text("{}")
    (before / "seed-1" / "model.safetensors").symlink_to(secret / "key.safetensors")
    (before / "seed-2").symlink_to(secret)
    (before / "config.yaml").symlink_to("/dev/zero")
    take_over(before, tmp_path / "trials" / "00001")
    copied = sorted(str(p.relative_to(tmp_path / "trials" / "00001")) for p in (tmp_path / "trials/00001").rglob("*"))
    assert copied == ["seed-1", "seed-1/history.jsonl"]
    (tmp_path / "trials" / "00002").symlink_to(secret)
    take_over(tmp_path / "trials" / "00002", tmp_path / "trials" / "00003")
    assert not (tmp_path / "trials" / "00003").exists()
    remove_weights(before)
    assert sorted(p.name for p in secret.iterdir()) == ["key.safetensors", "weights.pt"]
    assert not (before / "seed-1" / "model.safetensors").is_symlink()
