"""Whole runs: every model with every protocol, and data that lacks a modality."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import scope_for
from helpers.sslmm import small_sslmm

from gmsa.models import MODELS
from gmsa.runs import report as results
from gmsa.runs.predict import predict_file
from gmsa.runs.train import train
from gmsa.training.checkpoint import load_weights

FEW = {
    ("global", "self_training", "utterance", 0.5),
    ("hgt", "sslmm", "dialogue", 0.5),
    ("sslmm", "sslmm", "dialogue", 0.0),
    ("late_fusion", "self_training", "hierarchical", 0.5),
    ("semi_iin", "distillation", "hierarchical", 0.0),
    ("dialogue_gcn", "self_training", "dialogue", 0.5),
    ("cogmen", "sslmm", "hierarchical", 0.5),
    ("gcnet", "soup(members=2)", "dialogue", 0.5),
    ("mmgcn", "sslmm", "dialogue", 0.5),
    ("mtag", "distillation", "utterance", 0.5),
}
"""Every model, protocol and scope once at least; the others are slow together."""


@pytest.mark.parametrize(
    ("model", "protocol", "scope", "reconstruct"),
    [
        pytest.param(*case, marks=() if case in FEW else pytest.mark.slow)
        for case in itertools.product(
            sorted(MODELS),
            ("supervised", "self_training", "distillation", "soup(members=2)", "sslmm"),
            ("utterance", "dialogue", "hierarchical"),
            (0.0, 0.5),
        )
        if case[2] != "utterance" or not scope_for(case[0])
    ],
)
def test_any_model_with_any_protocol(
    write_mmsa,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    protocol: str,
    scope: str,
    reconstruct: float,
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    config = small_sslmm(
        write_mmsa,
        model={"name": model},
        protocol={"name": protocol},
        graph={"scope": scope},
        reconstruction={"weight": reconstruct},
        data={"label_ratio": 0.5, "missing": "eta:0.4"},
    )
    summary = train(config, "tiny", tmp_path / "run")
    assert np.isfinite(summary["valid"]["MAE"]["mean"])
    rows = list(csv.DictReader((tmp_path / "run" / "seed-1" / "predictions.csv").open()))
    assert all(bool(row["gate_val"]) == (model == "semi_iin") for row in rows)
    assert "pretrain" not in summary["stages"]
    assert summary["missing"]["test"]["protocol"] == "eta"


def test_a_training_split_that_lacks_text_trains_with_both_stages(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)

    def change(content: dict[str, Any]) -> None:
        content["train"]["text"] *= 0
        content["train"]["text_lengths"] = [0] * len(content["train"]["id"])

    path = str(write_mmsa("mute.pkl", change))
    config = small_sslmm(write_mmsa, data={"path": path, "missing": "eta:0.3"}, reconstruction={"target": "oracle"})
    summary = train(config, "tiny", tmp_path / "run")
    assert np.isfinite(summary["test"]["MAE"]["mean"])
    for stage in ("pretrain", "model"):
        weights = load_weights(tmp_path / "run" / "seed-1" / f"{stage}.safetensors")
        assert weights
        assert not [name for name in weights if "text" in name]


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
def test_the_command_predicts_as_the_run_did(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """A file of whole dialogues, without its labels, has the answers of the run's own validation and test."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    config = small_sslmm(
        write_mmsa, graph={"scope": scope, "dialogue_node": True, "context_dropout": 0.2}, pretrain={"epochs": 0}
    )
    train(config, "tiny", tmp_path / "run")

    def unlabel(content: dict[str, Any]) -> None:
        for columns in content.values():
            del columns["regression_labels"]

    predict_file(tmp_path / "run", write_mmsa("other.pkl", unlabel), tmp_path / "out.csv")
    own = {row["id"]: row for row in csv.DictReader((tmp_path / "run" / "seed-1" / "predictions.csv").open())}
    found = {row["id"]: row for row in csv.DictReader((tmp_path / "out.csv").open())}
    assert own.keys() == found.keys()
    for name, row in own.items():
        assert float(found[name]["prediction"]) == pytest.approx(float(row["prediction"]), abs=1e-5)
