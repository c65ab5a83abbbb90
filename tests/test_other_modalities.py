"""A corpus of other modalities than this field's, from training to prediction, by the commands."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gmsa
from gmsa import ablate, evaluate, predict, train
from gmsa.runs import report

DIMS = {"text": 4, "eeg": 3, "pose": 5, "gaze": 2}
QUICK = """
data: {path: DATA, modalities: NAMES}
model: {channels: 16, heads: 2, layers: 1, encoders: {eeg: [[3, 2]], others: [[1, 1]]}, modality_dropout: {eeg: 0.1}}
graph: {intra: {pose: window}, inter: {eeg_to_pose: aligned}}
optim: {epochs: EPOCHS, min_steps: 0, lr: 0.01}
protocol: {name: supervised}
run: {seeds: [1]}
"""


def corpus(names: tuple[str, ...], count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """A file whose label is the sign of the brain's signal times the size of the pose's: it needs both of them."""
    rng, content = np.random.default_rng(seed), {}
    for split, size in (("train", count), ("valid", count // 2), ("test", count // 2)):
        sign, extent = rng.choice([-1.0, 1.0], size), rng.uniform(0.5, 3.0, size)
        columns: dict[str, Any] = {"id": [f"{split}{i // 4}$_${i % 4}" for i in range(size)]}
        for name in names:
            features = rng.standard_normal((size, 6, DIMS[name])).astype(np.float32) * 0.3
            if name == "eeg":
                features[:, :, 0] += sign[:, None]
            if name == "pose" or len(names) == 1:
                features[:, :, 1] += extent[:, None] * (sign[:, None] if len(names) == 1 else 1)
            columns[name] = features
        content[split] = columns | {"regression_labels": (sign * extent).astype(np.float32)}
    return content


def write(folder: Path, names: tuple[str, ...], count: int, epochs: int) -> tuple[str, str]:
    """The data file and the config."""
    data = folder / "brains.pkl"
    data.write_bytes(pickle.dumps(corpus(names, count)))
    text = QUICK.replace("DATA", str(data)).replace("NAMES", json.dumps(list(names))).replace("EPOCHS", str(epochs))
    if names == ("pose",):
        text = text.replace("encoders: {eeg: [[3, 2]], others: [[1, 1]]}, modality_dropout: {eeg: 0.1}", "dropout: 0.1")
        text = text.replace(", inter: {eeg_to_pose: aligned}", "")
    config = folder / "brains.yaml"
    config.write_text(text)
    return str(data), str(config)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``fixed`` in an evaluation."""
    rows: list[dict[str, Any]] = json.loads((folder / "robustness.json").read_text())["protocols"]["fixed"]["rows"]
    return rows


@pytest.mark.parametrize("names", [tuple(DIMS), ("pose",)], ids="+".join)
def test_from_training_to_prediction(
    names: tuple[str, ...], tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw_run", lambda *_: None)  # figures take most of a small run's time
    data, config = write(tmp_path, names, 24, 1)
    run = tmp_path / "run"
    masked = ["--set", "data.missing=eta:0.5"] if len(names) > 1 else []
    train.main(["--config", config, "--out", str(run), *masked])
    summary = json.loads((run / "summary.json").read_text())
    assert gmsa.Run(run).dims == {name: DIMS[name] for name in names}
    assert summary["dataset"] == "brains"
    if len(names) > 1:
        assert set(summary["missing"]["test"]["lacking"]) == set(names)
        assert 0.3 < summary["missing"]["test"]["realized"] < 0.7
        plan = ["--missing", "eta:0.7", "--missing", "fixed:all"]
        evaluate.main(["--run", str(run), *plan, "--out", str(tmp_path / "robust")])
        rows = rows_of(tmp_path / "robust")
        assert len(rows) == 1 + 14
        assert {"text", "eeg", "pose+gaze", "text+eeg+pose"} <= {row["left"] for row in rows}
    predict.main(["--run", str(run), "--input", data, "--out", str(tmp_path / "answers.csv")])
    with open(tmp_path / "answers.csv", newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 48
    assert {row["split"] for row in answers} == {"train", "valid", "test"}
    assert not [w for w in recwarn if issubclass(w.category, gmsa.errors.DataWarning)]


@pytest.mark.slow
def test_a_model_learns_what_needs_two_modalities(tmp_path: Path) -> None:
    _, config = write(tmp_path, tuple(DIMS), 400, 15)
    run = tmp_path / "run"
    train.main(["--config", config, "--out", str(run)])
    evaluate.main(
        ["--run", str(run), "--missing", "fixed:eeg+pose,eeg,pose,text+gaze", "--out", str(tmp_path / "robust")]
    )
    rows = rows_of(tmp_path / "robust")
    error = {row["left"]: row["metrics"]["MAE"]["mean"] for row in rows}
    assert error["eeg+pose"] < 0.6 * min(error["eeg"], error["pose"], error["text+gaze"])


@pytest.mark.slow
def test_an_ablation_over_modalities(tmp_path: Path) -> None:
    _, config = write(tmp_path, tuple(DIMS), 24, 1)
    plain = ["--set", "graph.intra=complete", "--set", "graph.inter=complete", "--set", "model.encoders=[[1, 1]]"]
    vary = ["--vary", "data.modalities=[eeg],[eeg,pose]", "--set", "model.modality_dropout=0.1", "--jobs", "1"]
    ablate.main(["--config", config, *plain, *vary, "--out", str(tmp_path / "ablation")])
    assert len(json.loads((tmp_path / "ablation" / "summary.json").read_text())["rows"]) >= 2
