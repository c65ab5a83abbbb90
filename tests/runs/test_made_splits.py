"""Runs on splits that gmsa makes: resumed bit for bit, recorded, called by the name of their data."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.small_runs import small

from gmsa.config import Config
from gmsa.errors import DataWarning
from gmsa.runs import report as results
from gmsa.runs.evaluate import evaluate
from gmsa.runs.train import train
from gmsa.training.callbacks import Callback


class Stopping(Callback):
    """Ctrl-C after the first epoch."""

    def on_epoch_end(self, *_: Any) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def config(write_mmsa: Callable[..., Path], tmp_path: Path) -> Config:
    """A config on one file without splits, whose videos have utterances without a label."""
    content = pickle.loads(write_mmsa().read_bytes())
    whole: dict[str, list[Any]] = {}
    for columns in content.values():
        for key, values in columns.items():
            whole.setdefault(key, []).extend(values)
    for row in (3, 6, 10, 17, 21, 30, 40):
        whole["regression_labels"][row] = float("nan")
    path = tmp_path / "interviews.pkl"
    path.write_bytes(pickle.dumps(whole))
    split = {"valid": 0.2, "test": 0.2, "seed": 4}
    data = {"path": str(path), "name": "", "split": split}
    one = {"seeds": [1], "save_every": 1}
    return small(write_mmsa, data=data, run=one, self_training={"k": 1})


@pytest.mark.filterwarnings("ignore::gmsa.errors.DataWarning")
@pytest.mark.slow
def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    with pytest.warns(
        DataWarning, match=r"interviews\.pkl: made by data\.split of all by video, seed 4: train \d+ utt"
    ):
        summary = train(config, "own", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, "own", tmp_path / "part", callbacks=[Stopping()])
    train(config, "own", tmp_path / "part", resume=True)
    for name in ("predictions.csv", "model.safetensors"):
        whole, part = (tmp_path / folder / "seed-1" / name for folder in ("whole", "part"))
        assert whole.read_bytes() == part.read_bytes()
    recorded = json.loads((tmp_path / "whole" / "environment.json").read_text())["splits"]
    assert {name: summary["utterances"][name] for name in recorded} == recorded
    assert sum(recorded.values()) < 48  # unlabeled ones of held-out videos are left out
    assert summary["dataset"] == "interviews"
    lines = (tmp_path / "whole" / "seed-1" / "predictions.csv").read_text().splitlines()[1:]
    videos: dict[str, set[str]] = {}
    for line in lines:
        split, identity = (part for part in line.split(",")[:2])
        videos.setdefault(split, set()).add(identity.partition("$_$")[0])
    assert not set.intersection(*videos.values())
    again = evaluate(tmp_path / "whole", out=tmp_path / "again")
    assert again["dataset"] == "interviews"
    assert again["test"] == summary["test"]
