"""What each part of SSLMM is for, on made-up data that needs it: the gain shows on every seed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmsa.config import MODALITIES, from_dict
from gmsa.runs import report as results
from gmsa.runs.train import train

pytestmark = pytest.mark.slow

Maker = Callable[[np.random.Generator], tuple[float, dict[str, np.ndarray]]]
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {
        "name": "sslmm",
        "channels": 32,
        "heads": 4,
        "layers": 1,
        "audio_convs": [[3, 1]],
        "dropout": 0.1,
        "input_dropout": 0.1,
        "modality_dropout": {"text": 0.0, "audio": 0.0, "vision": 0.0},
    },
    "optim": {"epochs": 12, "min_steps": 300, "lr": 3e-3},
    "protocol": {"name": "supervised"},
    "run": {"seeds": [1, 2], "device": "cpu"},
    "data": {"name": "made up", "normalize": []},
}
DROPPED = {"modality_dropout": {"text": 0.5, "audio": 0.5, "vision": 0.5}}


def beside_the_mark(rng: np.random.Generator) -> tuple[float, dict[str, np.ndarray]]:
    """One of 16 words is marked; the label is the mean of the two sounds beside it.

    A mark goes to its neighbours over intra edges, and from there to their sounds over inter edges.
    """
    place, sounds = rng.integers(1, 15), rng.uniform(-3, 3, (16, 1))
    words = np.stack([np.arange(16) == place, 0.1 * rng.standard_normal(16)], axis=1)
    label = (sounds[place - 1, 0] + sounds[place + 1, 0]) / 2
    return label, {"text": words, "audio": sounds / 3, "vision": rng.standard_normal((1, 2))}


_MAPS = np.random.default_rng(0)
SHARED = {m: _MAPS.standard_normal((3, 24)) for m in MODALITIES}
PRIVATE = {m: _MAPS.standard_normal((8, 24)) for m in MODALITIES}


def one_cause(rng: np.random.Generator, louder: float = 1.5) -> tuple[float, dict[str, np.ndarray]]:
    """Three modalities show one cause of 3 dimensions, which makes the label, each under 8 louder ones of its own."""
    cause = rng.standard_normal(3)
    features = {
        m: cause @ SHARED[m] + louder * rng.standard_normal(8) @ PRIVATE[m] + 0.3 * rng.standard_normal((2, 24))
        for m in MODALITIES
    }
    return float(np.clip(2 * np.tanh(cause[0]) + np.sin(2 * cause[1]), -3, 3)), features


def one_clear_cause(rng: np.random.Generator) -> tuple[float, dict[str, np.ndarray]]:
    """As :func:`one_cause`, with softer ones beside it: from one modality the others can be told in part."""
    return one_cause(rng, louder=0.6)


@pytest.fixture
def errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Trains on data that ``make`` draws and returns the test MAE of each seed."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)

    def run(make: Maker, **groups: dict[str, Any]) -> list[float]:
        path = tmp_path / f"{make.__name__}.pkl"
        rng = np.random.default_rng(0)
        content: dict[str, Any] = {}
        for split, count in (("train", 600), ("valid", 100), ("test", 300)):
            rows = [make(rng) for _ in range(count)]
            content[split] = {"id": [f"{split}{i}$_$0" for i in range(count)], "raw_text": [""] * count}
            content[split]["regression_labels"] = np.float32([label for label, _ in rows])
            content[split] |= {m: [np.float32(features[m]) for _, features in rows] for m in MODALITIES}
        path.write_bytes(pickle.dumps(content))
        settings = {name: SETTINGS.get(name, {}) | groups.get(name, {}) for name in {*SETTINGS, *groups}}
        settings["data"] = settings["data"] | {"path": str(path)}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return train(from_dict(settings), "made up", folder)["test"]["MAE"]["values"]

    return run


def test_alternation(errors: Callable[..., list[float]]) -> None:
    graph = {"intra": "window(radius=1)", "inter": "aligned"}
    apart = errors(beside_the_mark, graph=graph, model=SETTINGS["model"] | {"order": "intra_first"})
    at_once = errors(beside_the_mark, graph=graph, model=SETTINGS["model"] | {"order": "simultaneous"})
    assert max(apart) < min(at_once)


def test_pretraining(errors: Callable[..., list[float]]) -> None:
    few = {"label_ratio": 0.08, "normalize": list(MODALITIES)}
    fresh, pretrained = (errors(one_cause, data=few, pretrain={"epochs": n}) for n in (0, 20))
    assert max(pretrained) < min(fresh)


def test_consistency(errors: Callable[..., list[float]]) -> None:
    few = {"label_ratio": 0.08, "normalize": list(MODALITIES)}
    settings = {"data": few, "model": SETTINGS["model"] | DROPPED, "protocol": {"name": "sslmm"}}
    alone, teacher_values = (errors(one_cause, **settings, consistency={"weight": w}) for w in (0.0, 3.0))
    assert max(teacher_values) < min(alone)


def test_reconstruction(errors: Callable[..., list[float]]) -> None:
    settings = {
        "data": {"label_ratio": 0.05, "normalize": list(MODALITIES)},
        "model": SETTINGS["model"] | DROPPED,
        "optim": {"epochs": 30, "lr": 2e-3},
        "protocol": {"name": "sslmm"},
    }
    without, reconstructing = (
        errors(one_clear_cause, **settings, consistency={"weight": 0.0}, reconstruction={"weight": w})
        for w in (0.0, 5.0)
    )
    assert max(reconstructing) < min(without)
