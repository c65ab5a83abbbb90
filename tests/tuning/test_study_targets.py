"""Studies of classes and of other modalities than text, audio and vision."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.studies import rows_of, tune

from gmsa import train
from gmsa.config import Config, from_dict
from gmsa.errors import ConfigError
from gmsa.tuning.objective import direction_of, objectives_of
from gmsa.tuning.study import StudyOptions, check_options, differences, present_facts, shared_settings

SPACE = """
model.modality_dropout.text: {float: [0, 0.4]}
model.modality_dropout.eeg: {float: [0, 0.4]}
model.modality_dropout.audio: {float: [0, 0.4]}
loss.class_weights: {choice: [none, balanced]}
"""


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of three classes, of text and eeg."""
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.delenv("GMSA_STORAGE", raising=False)
    rng, content = np.random.default_rng(0), {}
    for split, count in (("train", 24), ("valid", 12), ("test", 12)):
        labels = np.arange(count) % 3
        content[split] = {
            "id": [f"{split}{i // 4}$_${i}" for i in range(count)],
            "emotion": np.array(["anger", "joy", "neutral"])[labels].tolist(),
            "text": rng.standard_normal((count, 4, 3)).astype(np.float32) + labels[:, None, None],
            "eeg": rng.standard_normal((count, 6, 2)).astype(np.float32),
        }
    data = tmp_path / "own.pkl"
    data.write_bytes(pickle.dumps(content))
    settings = {
        "data": {"path": str(data), "modalities": ["text", "eeg"]},
        "target": {"kind": "classes", "field": "emotion"},
        "model": {"channels": 8, "heads": 2, "layers": 1, "encoders": {"eeg": [[3, 1]]}},
        "optim": {"epochs": 2, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "default.yaml").write_text(SPACE)
    return path


@pytest.mark.filterwarnings("ignore:the prediction is constant")
@pytest.mark.slow
def test_a_study_of_classes_and_of_other_modalities(
    classes: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    with pytest.warns(UserWarning, match="model.modality_dropout.audio belongs to a modality that data.modalities"):
        assert tune(classes, out, "--trials", "3", "--pruner", "off", "--sampler", "random") == 0
    rows = rows_of(out)
    assert {row["state"] for row in rows} == {"complete"}
    best = max(rows, key=lambda row: float(row["weighted_F1"]))  # by default the config's, and more is better
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert summary["objectives"] == ["weighted_F1"]
    assert summary["best"][0]["values"] == {"weighted_F1": float(best["weighted_F1"])}
    text = (out / "best.yaml").read_text()
    assert f"valid weighted_F1 {best['weighted_F1']}" in text
    train.main(["--config", str(out / "best.yaml"), "--out", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["valid"]["weighted_F1"]["mean"] == float(best["weighted_F1"])  # exactly
    assert summary["final"]["labels"] == "classes"
    page = (out / "report.html").read_text()
    assert "weighted_F1 on validation, more is better" in page
    report = (out / "summary.md").read_text()
    for words in (page, report):
        assert "MAE" not in words
        assert "test weighted_F1 (%)" in words
    assert f"{float(best['weighted_F1']):.4f}" in report
    assert "the config as it was (%)" not in report


def test_objectives_are_those_of_the_target(tmp_path: Path) -> None:
    costs = ("seconds", "parameters")
    assert objectives_of(Config()) == ("MAE", "Corr", *costs)
    own = from_dict({"target": {"kind": "intensity", "range": [0, 4]}, "run": {"metrics": ["RMSE"]}})
    assert objectives_of(own) == ("MAE", "RMSE", "Corr", "CCC", *costs)
    classes = from_dict({"target": {"preset": "meld"}})
    assert objectives_of(classes) == ("weighted_F1", "accuracy", "macro_F1", "unweighted_accuracy", *costs)
    wanted = {"MAE": "minimize", "RMSE": "minimize", "CCC": "maximize", "macro_F1": "maximize", "seconds": "minimize"}
    assert {name: direction_of(name) for name in wanted} == wanted
    options = StudyOptions("s", 3, tmp_path, ("macro_F1",))
    check_options(options, classes)
    with pytest.raises(ConfigError, match="--objective must be one of MAE, Corr, seconds, parameters"):
        check_options(options, Config())
    with pytest.raises(ConfigError, match="--objective must be one of weighted_F1, accuracy"):
        check_options(StudyOptions("s", 3, tmp_path, ("MAE",)), classes)


def test_the_settings_of_an_earlier_study_read_as_the_present_ones() -> None:
    config = from_dict({"target": {"preset": "sims"}, "model": {"encoders": {"audio": [[2, 2]]}}})
    now = {"seed": 3, "config": json.loads(json.dumps(shared_settings(config)))}
    then = {"seed": 3, "config": json.loads(json.dumps(now["config"]))}
    del then["config"]["target"]
    for key in ("split", "nan", "video_from"):
        del then["config"]["data"][key]
    then["config"]["data"] |= {"labels": "sims", "normalize": ["audio", "vision"]}
    model = then["config"]["model"]
    convs = model.pop("encoders")
    model |= {f"{m}_convs": convs[m] for m in ("text", "audio", "vision")}
    then["config"]["run"]["select"] = "MAE"
    assert differences(then, now)
    assert not differences(present_facts(then), present_facts(now))
    then["config"]["data"]["normalize"] = ["audio"]
    then["config"]["model"]["audio_convs"] = [[3, 3]]
    assert len(differences(present_facts(then), present_facts(now))) == 2
    damaged = {"config": {"model": 3}}
    assert present_facts(damaged) == damaged
