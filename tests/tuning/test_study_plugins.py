"""Studies of parts that a user has registered: trials train in worker processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from helpers.own_parts import with_own_parts

from gmsa.metrics import metric
from gmsa.registry import METRICS
from gmsa.tune import main
from gmsa.tuning.storage import StoragePlace


@pytest.mark.slow
@pytest.mark.parametrize(
    "space", ["optim.lr: {choice: [0.001, 0.01]}", "graph.intra: {choice: [complete, first(count=2)]}"]
)
def test_own_parts_in_two_workers(base: Path, tmp_path: Path, space: str) -> None:
    out, file = tmp_path / "study", tmp_path / "space.yaml"
    file.write_text(space)
    command = [sys.executable, "-m", "gmsa.tune", "--config", str(with_own_parts(base)), "--space", str(file)]
    done = subprocess.run(
        [*command, "--trials", "2", "--jobs", "2", "--objective", "within", "--sampler", "random", "--out", str(out)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((out / "trials.csv").open()))
    values = [float(row["within"]) for row in rows if row["state"] == "complete"]
    assert len(rows) == 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"][0]["values"]["within"] == max(values)
    assert "within" in summary["final"]["rows"][0]["test"]
    assert "| trial | valid within |" in (out / "summary.md").read_text()
    study = optuna.load_study(study_name="own-space", storage=StoragePlace(out).connect())
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


@pytest.mark.slow
def test_a_part_that_a_worker_does_not_know_fails_its_trials(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As one that was registered in a notebook."""
    monkeypatch.setattr(METRICS, "_parts", dict(METRICS._parts))
    METRICS.register("here_only", metric(higher_is_better=True)(lambda prediction, truth: 1.0))
    out = tmp_path / "study"
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(base), "--out", str(out), "--trials", "2", "--set", "run.metrics=[here_only]"])
    assert ended.value.code == 1
    assert "register it in a module and name it in 'plugins'" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert {row["state"] for row in rows} == {"fail"}
    assert all(row["reason"].startswith("'run.metrics' must be one of") for row in rows)
