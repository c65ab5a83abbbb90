"""Ablations of parts that a user has registered: cells train in processes of their own."""

from __future__ import annotations

import csv
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.own_parts import with_own_parts

from gmsa import registry
from gmsa.ablate import main
from gmsa.ablation import ablate as ablation
from gmsa.ablation import comparison
from gmsa.ablation.cells import Cell, Record, train_cell
from gmsa.ablation.variants import read_variants
from gmsa.metrics import metric
from gmsa.registry import METRICS
from gmsa.runs import report as results


@pytest.fixture
def base(write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that trains in a second on a small file."""
    monkeypatch.delenv("GMSA_DATA", raising=False)
    settings = {
        "data": {"path": str(write_mmsa()), "name": "tiny"},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def anew(cell: Cell) -> Record:
    """Trains a cell as a process does that has just started: it knows no part of a user before it reads the cell."""
    sent = pickle.dumps((cell, registry.loaded_plugins()))
    sys.modules.pop("own_parts_of_a_user")
    registry._loaded.clear()
    for known in registry.REGISTRIES.values():
        known._parts = {name: part for name, part in known._parts.items() if name not in ("first", "within")}
    return train_cell(*pickle.loads(sent))


@pytest.mark.parametrize(
    ("vary", "started"),
    [
        ("model.fusion=gate,add", False),
        pytest.param("graph.intra=window,first(count=2)", True, marks=pytest.mark.slow),
    ],
)
def test_own_parts_in_a_process_of_their_own(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vary: str, started: bool
) -> None:
    """Or in this one, where that takes too long, after it has forgotten them."""
    out, key = tmp_path / "out", vary.partition("=")[0]
    if not started:
        monkeypatch.setattr(ablation, "run_cells", lambda cells, jobs, ended: [ended(c, anew(c)) for c in cells])
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    monkeypatch.setattr(comparison, "figure_ablation", lambda *a: True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        main(["--config", str(with_own_parts(base, select="within")), "--vary", vary, "--out", str(out)])
    finally:
        sys.modules.pop("own_parts_of_a_user", None)
    summary = json.loads((out / "summary.json").read_text())
    means = [row["valid"]["within"]["mean"] for row in summary["rows"]]
    assert means == sorted(means, reverse=True)
    assert [row["values"][key] for row in summary["rows"]]
    for row in summary["rows"]:
        value = str(row["values"][key]).partition("(")[0]
        (file,) = (out / "cells").glob(f"{key}={value}*/seed-1/seed-1/predictions.csv")
        errors = [
            abs(float(r["prediction"]) - float(r["label"])) for r in csv.DictReader(file.open()) if r["split"] == "test"
        ]
        assert row["test"]["within"]["mean"] == pytest.approx(sum(e <= 1 for e in errors) / len(errors))
    rows = list(csv.DictReader((out / "ablation.csv").open()))
    assert all(-1 <= float(row["test_CCC"]) <= 1 and row["valid_within"] for row in rows)
    assert "valid within | valid CCC | difference, valid (Holm's p) | test MAE" in (out / "summary.md").read_text()
    assert "Ranked by validation within" in (out / "summary.md").read_text()


@pytest.mark.slow
def test_a_part_that_a_process_does_not_know_fails_its_cells(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was registered in a notebook."""
    monkeypatch.setattr(METRICS, "_parts", dict(METRICS._parts))
    METRICS.register("here_only", metric(higher_is_better=True)(lambda prediction, truth: 1.0))
    out = tmp_path / "out"
    arguments = ["--set", "run.metrics=[here_only]", "--vary", "model.fusion=gate,add", "--jobs", "2"]
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(base), "--out", str(out), *arguments])
    assert ended.value.code == 1
    for row in json.loads((out / "summary.json").read_text())["rows"]:
        assert row["failed"]["1"].startswith("'run.metrics' must be one of")
        assert row["failed"]["1"].endswith("register it in a module and name it in 'plugins'")


def test_a_plugin_that_is_gone_fails_its_cell(base: Path, tmp_path: Path) -> None:
    (variant, _) = read_variants(base, [], ["model.fusion=gate,add"], None)
    (tmp_path / "cell").mkdir()
    record = train_cell(Cell(variant, 1, tmp_path / "cell"), ["a_module_that_is_gone"])
    assert record["state"] == "failed"
    assert record["reason"].startswith("plug-in 'a_module_that_is_gone' is not there; install it")
