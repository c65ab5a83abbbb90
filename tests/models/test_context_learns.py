"""What the made-up dialogues were made for: an answer that lies in another utterance is learned with the right context
alone. Slow, but for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmsa.config import from_dict
from gmsa.runs.train import train

CAUSAL: dict[str, Any] = {"scope": "hierarchical", "future": 0}
SPEAKER: dict[str, Any] = {"past": "all", "between": "speaker"}
IN_DIALOGUE: dict[str, Any] = {"scope": "dialogue", "distances": 2}
CHANCE = 0.35
"""About a fifth of the labels have each class."""


def accuracy(
    folder: Path,
    rule: str,
    graph: dict[str, Any],
    lr: float = 0.005,
    epochs: int = 16,
    batch_size: int = 16,
    **model: Any,
) -> float:
    """On test, of a small model."""
    size = {"channels": 32, "heads": 4, "dropout": 0.0, "input_dropout": 0.0, "modality_dropout": 0.0}
    config = from_dict(
        {
            "data": {"path": f"synthetic_{rule}", "modalities": ["text"]},
            "target": {"kind": "classes"},
            "graph": graph,
            "model": size | {"encoders": [[3, 1]]} | model,
            "optim": {"lr": lr, "epochs": epochs, "batch_size": batch_size, "ema": 0.0},
            "loss": {"alone_weight": 0.0},
            "protocol": {"name": "supervised"},
            "run": {"seeds": [1], "device": "cpu", "select": "accuracy"},
        }
    )
    found: float = train(config, "context", folder)["test"]["accuracy"]["mean"]
    return found


@pytest.mark.slow
def test_an_answer_two_utterances_back_is_heard(tmp_path: Path) -> None:
    assert accuracy(tmp_path, "two_back", {**CAUSAL, "past": 2}, lr=0.008, epochs=4, batch_size=32) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["semi_iin", "sslmm"])
@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("rule", ["two_back", "speaker"])
def test_the_right_context_gives_the_answer(rule: str, scope: str, name: str, tmp_path: Path) -> None:
    graph = {
        **CAUSAL,
        **(IN_DIALOGUE if scope == "dialogue" else {}),
        **(SPEAKER if rule == "speaker" else {"past": 2}),
    }
    assert accuracy(tmp_path, rule, graph, name=name) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "graph", "most"),
    [
        ("two_back", {}, CHANCE),
        ("two_back", {**CAUSAL, "past": 1}, CHANCE),  # without propagation, which counts as one layer more
        ("two_back", {"scope": "hierarchical", "past": 0, "future": 2}, CHANCE),
        ("speaker", {}, CHANCE),
        # The utterance before is often the same speaker's, so that the nearest ones are worth a guess.
        ("speaker", {**CAUSAL, "past": "all"}, 0.6),
        ("speaker", {**CAUSAL, **SPEAKER, "past": 1}, 0.6),
    ],
    ids=str,
)
def test_the_wrong_context_does_not(rule: str, graph: dict[str, Any], most: float, tmp_path: Path) -> None:
    assert accuracy(tmp_path, rule, graph, propagation=0.0) < most
