"""Cells of an ablation that are damaged, or a stranger's: scored again from their states, or refused in one line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gmsa.ablate import main
from gmsa.ablation import ablate as ablation
from gmsa.ablation import comparison
from gmsa.ablation.cells import Cell, train_cell
from gmsa.ablation.folder import Table
from gmsa.errors import RunError
from gmsa.runs import report
from gmsa.training.trainer import Trainer

ARGUMENTS = ["--config", "base.yaml", "--vary", "model.fusion=gate,add", "--out", "out"]
CELL = Path("out/cells/model.fusion=gate/seed-1")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one ablation that all tests copy is kept."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def scored(shelf: Path, tmp_path: Path, write_mmsa: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A finished ablation in ``out``, whose cells run in this process; notes which of them are scored again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    write_mmsa("tiny.pkl")
    settings = {
        "data": {"path": "tiny.pkl", "name": "tiny"},
        "model": {"channels": 8, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    Path("base.yaml").write_text(yaml.safe_dump(settings))
    found: list[Path] = []

    def run_cells(waiting: list[Cell], jobs: int, ended: Callable[[Cell, Any], None]) -> None:
        for cell in waiting:
            found.append(cell.folder)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                record = train_cell(cell)
            ended(cell, record)

    monkeypatch.setattr(ablation, "run_cells", run_cells)
    monkeypatch.setattr(report, "draw_run", lambda *_: None)
    monkeypatch.setattr(comparison, "figure_ablation", lambda *_: True)
    monkeypatch.setattr(comparison, "figure_costs", lambda *_: True)
    if not (shelf / "out").exists():
        main(ARGUMENTS)
        shutil.copytree("out", shelf / "out")
        found.clear()
    else:
        shutil.copytree(shelf / "out", "out")
    monkeypatch.setattr(Trainer, "_epoch", lambda *_: pytest.fail("a model was trained"))
    return found


def scores() -> Any:
    """What the ablation's table says of the settings, but for their costs."""
    rows = json.loads(Path("out/summary.json").read_text())["rows"]
    return [[row[key] for key in ("setting", "rank", "failed", "valid", "test")] for row in rows]


def changed(**values: Any) -> Callable[[str], str]:
    """Changes entries of a record."""
    return lambda text: json.dumps(json.loads(text) | values)


def without(key: str) -> Callable[[str], str]:
    """Leaves an entry of a record out."""
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != key})


def score(value: str) -> Callable[[str], str]:
    """Writes another validation MAE into a record."""
    return lambda text: json.dumps(json.loads(text) | {"valid": json.loads(text)["valid"] | {"MAE": "@"}}).replace(
        '"@"', value
    )


def cases(table: Mapping[str, Any], *plain: str) -> list[Any]:
    """The entries of a table, each with its name; all but the ``plain`` ones are slow."""
    return [
        pytest.param(value, id=name, marks=[pytest.mark.slow] * (name not in plain)) for name, value in table.items()
    ]


RECORDS: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda text: f"[{text}]",
    "null": lambda _: "null",
    "nested": lambda _: "[" * 100_000,
    "many digits": lambda _: f'{{"state": {"9" * 10_000}}}',
    "not UTF-8": lambda _: "\udcff",
    "of another seed": changed(seed=2),
    "of another setting": changed(setting="model.fusion=add"),
    "another state": changed(state="running"),
    "failed for no reason": lambda _: '{"state": "failed", "setting": "model.fusion=gate", "seed": 1}',
    "failed for a number": lambda _: '{"state": "failed", "setting": "model.fusion=gate", "seed": 1, "reason": 3}',
    "no parameters": without("parameters"),
    "no edges": without("edges"),
    "no test": without("test"),
    "edges of streams as a list": changed(stream_edges=[1.0]),
    "edges of a stream as text": changed(stream_edges={"intra": "1"}),
    "seconds as text": changed(train_seconds="1"),
    "seconds that are true": changed(train_seconds=True),
    "device is none": changed(device=None),
    "scores as a list": changed(valid=[1, 2]),
    "no scores": changed(valid={}),
    "another metric": lambda text: text.replace('"MAE"', '"MSE"'),
    "NaN": score("NaN"),
    "infinity": score("1e999"),
    "null score": score("null"),
    "a score of 400 digits": score("1" * 400),
    "epochs of 400 digits": changed(epochs=10**400),
    "a better score": score("0.1"),
}
TABLES: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "head alone": lambda text: text.splitlines()[0],
    "no test": lambda text: "\n".join(line for line in text.splitlines() if not line.startswith("test")),
    "no head": lambda text: text.split("\n", 1)[1],
    "words": lambda text: text.replace("valid,", "valid,x,"),
    "NaN": lambda text: re.sub(r"(?m)^valid,([^,]*),[^,]*", r"valid,\1,nan", text, count=1),
    "another label": lambda text: re.sub(r"(?m)^test,([^,]*),[^,]*", r"test,\1,1.25", text, count=1),
    "zeros": lambda text: "\0" * len(text),
    "a field of 200,000 characters": lambda text: f"{text}{'a' * 200_000}",
}


@pytest.mark.parametrize("change", cases(RECORDS, "cut", "a better score"))
def test_a_cell_with_a_damaged_record_is_scored_again(scored: list[Path], change: Callable[[str], str]) -> None:
    check_scored_again(scored, CELL / "cell.json", change)


@pytest.mark.parametrize("change", cases(TABLES, "no test"))
def test_a_cell_with_damaged_predictions_is_scored_again(scored: list[Path], change: Callable[[str], str]) -> None:
    check_scored_again(scored, CELL / "seed-1" / "predictions.csv", change)


def check_scored_again(scored: list[Path], file: Path, change: Callable[[str], str]) -> None:
    before, content = scores(), (CELL / "seed-1" / "predictions.csv").read_bytes()
    file.write_text(change(file.read_text()), errors="surrogateescape")
    main(ARGUMENTS)
    assert scored == [CELL]
    assert scores() == before
    assert (CELL / "seed-1" / "predictions.csv").read_bytes() == content


def test_a_cell_of_an_earlier_gmsa_has_an_empty_cell_in_the_table(scored: list[Path]) -> None:
    """It said nothing of the edges of streams; the other variant's cell does."""
    (CELL / "cell.json").write_text(without("stream_edges")((CELL / "cell.json").read_text()))
    main(ARGUMENTS)
    assert not scored
    gate, add = sorted(json.loads(Path("out/summary.json").read_text())["rows"], key=lambda row: not row["reference"])
    assert "stream_edges" not in gate
    table = Path("out/summary.md").read_text()
    assert f"| {gate['edges']:.1f} |  |  | {gate['seconds_per_epoch']:.2f} |" in table
    edges = " | ".join(f"{add['stream_edges'][stream]:.1f}" for stream in ("intra", "inter"))
    assert f"| {add['edges']:.1f} | {edges} | {add['seconds_per_epoch']:.2f} |" in table
    lines = Path("out/ablation.csv").read_text().splitlines()
    rows = {row["setting"]: row for row in csv.DictReader(lines)}
    assert rows["model.fusion=gate"]["intra_edges"] == ""
    assert float(rows["model.fusion=add"]["intra_edges"]) == add["stream_edges"]["intra"]

    # A whole folder of an earlier gmsa, which is read and not made anew.
    summary = json.loads(Path("out/summary.json").read_text())
    for row in summary["rows"]:
        for key in ("stream_edges", "intervals", "nodes", "peak_memory_mb"):
            row.pop(key, None)
    Path("out/summary.json").write_text(json.dumps(summary))
    shown = Table("out").to_markdown()
    assert "intra edges" not in shown
    assert f"| {gate['parameters']:,} |  | {gate['edges']:.1f} | {gate['seconds_per_epoch']:.2f} |" in shown


@pytest.mark.slow
def test_a_whole_cell_is_not_scored_again(scored: list[Path]) -> None:
    before = scores()
    main(ARGUMENTS)
    assert not scored
    assert scores() == before


def link(path: Path) -> None:
    (outside := Path("outside")).write_bytes(path.read_bytes() if path.is_file() else b"")
    path.unlink(missing_ok=True)
    path.symlink_to(outside.resolve())


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def giant(path: Path) -> None:
    os.truncate(path, 1 << 40)


def moved(path: Path) -> None:
    path.rename("elsewhere")
    path.symlink_to(Path("elsewhere").resolve())


STRANGE = {
    "record that is a link": (link, "cell.json"),
    "record that is a pipe": (pipe, "cell.json"),
    "record of 1 TB": (giant, "cell.json"),
    "predictions that are a link": (link, "seed-1/predictions.csv"),
    "predictions that are a pipe": (pipe, "seed-1/predictions.csv"),
    "predictions of 1 TB": (giant, "seed-1/predictions.csv"),
    "settings that are a link": (link, "config.yaml"),
}
TO_WRITE = {
    "log that is a pipe": (pipe, "log.txt"),
    "log that is a link": (link, "log.txt"),
    "seed that is a link": (moved, "seed-1"),
    "cell that is a link": (moved, "."),
    "variant that is a link": (moved, ".."),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX's pipes and links")
@pytest.mark.parametrize("strange", cases(STRANGE | TO_WRITE, "record that is a pipe", "seed that is a link"))
def test_a_strangers_cell_is_refused(scored: list[Path], strange: tuple[Callable[[Path], None], str]) -> None:
    change, name = strange
    if strange in TO_WRITE.values():
        (CELL / "cell.json").unlink()  # else the cell is done, and nothing is written
    change(Path(os.path.normpath(CELL / name)))
    with pytest.raises(RunError) as caught:
        main(ARGUMENTS)
    assert not scored
    assert len(str(caught.value)) < 400
    assert Path(os.path.normpath(CELL / name)).name in str(caught.value)
