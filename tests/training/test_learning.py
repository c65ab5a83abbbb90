"""What the synthetic corpus was made for: each part of the model has something to learn. Slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmsa.config import from_dict
from gmsa.runs.train import train

pytestmark = pytest.mark.slow


def score(folder: Path, **settings: Any) -> dict[str, Any]:
    """Validation metrics of a run on the synthetic corpus, mean over two seeds."""
    groups: dict[str, dict[str, Any]] = {"run": {"seeds": [1, 2], "device": "cpu"}, "protocol": {"name": "supervised"}}
    for key, value in settings.items():
        group, name = key.split("__")
        groups.setdefault(group, {})[name] = value
    summary = train(from_dict(groups), "learning", folder)
    return {metric: values["mean"] for metric, values in summary["valid"].items()}


def test_tone_and_face_resolve_sarcasm(tmp_path: Path) -> None:
    both = score(tmp_path / "both")
    text = score(tmp_path / "text", data__modalities=["text"])
    assert both["Corr"] > 0.8
    assert both["Non0_acc_2"] > text["Non0_acc_2"] + 0.15


def test_distillation_learns_from_the_pool(tmp_path: Path) -> None:
    few = {"data__label_ratio": 0.5}
    supervised = score(tmp_path / "supervised", **few)
    distilled = score(tmp_path / "distilled", **few, protocol__name="distillation")
    assert distilled["MAE"] < supervised["MAE"]
