"""Conformal prediction of a run: what its margins are fitted on, and what they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import from_dict
from gmsa.data import Utterance, pattern_of
from gmsa.metrics import Conformal
from gmsa.rng import generator
from gmsa.runs import intervals
from gmsa.runs.intervals import calibration_turns, conformal_rows, predict_turns
from gmsa.runs.prepare import Prepared, prepare
from gmsa.training.scoring import Predictions

CPU = torch.device("cpu")


def prepared_with(missing: str) -> Prepared:
    return prepare(from_dict({"data": {"path": "synthetic", "missing": missing}}))


def guess(utterances: Sequence[Utterance]) -> Predictions:
    """A model that is three times as wrong without text."""
    labels = np.array([u.label for u in utterances], dtype=np.float32)
    errors = [generator(0, u.id, pattern_of(u)).normal(0, 0.3 if u.present["text"] else 0.9) for u in utterances]
    value = (labels + np.array(errors)).astype(np.float32)
    return Predictions([u.id for u in utterances], labels, value, np.full((len(labels), 7), 1 / 7), None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the utterances that a model was asked for."""
    found: list[int] = []

    def predict(model: Any, utterances: Sequence[Utterance], *_: Any) -> Predictions:
        found.append(len(utterances))
        return guess(utterances)

    monkeypatch.setattr(intervals, "predict_utterances", predict)
    return found


def rows_of(prepared: Prepared) -> list[dict[str, Any]]:
    turns = calibration_turns(prepared)
    valid, test = (guess(prepared.splits[split]) for split in ("valid", "test"))
    said = predict_turns(torch.nn.Module(), turns, prepared, valid, CPU)
    return conformal_rows(prepared, turns, {1: (said, test)})


def test_every_pattern_has_a_margin_that_covers(asked: list[int]) -> None:
    prepared = prepared_with("eta:0.5")
    natural = [pattern_of(u) for u in prepared.splits["valid"]]
    (row,) = rows_of(prepared)
    patterns = {pattern_of(u) for u in prepared.splits["test"]}
    assert row["margins"].keys() >= patterns
    assert min(natural.count(p) for p in patterns) < 30 <= min(row["counts"].values())
    assert max(row["counts"].values()) <= len(natural)  # nobody twice in a group
    with_text = [m for pattern, m in row["margins"].items() if "t" in pattern]
    without = [m for pattern, m in row["margins"].items() if "t" not in pattern]
    assert 2 * max(with_text) < min(without)
    low, high = row["expected"]
    assert low <= row["coverage"] <= high
    assert len(asked) == 7


def test_without_missing_modalities_the_validation_split_is_asked_once(asked: list[int]) -> None:
    prepared = prepared_with("none")
    whole = {s: [u for u in us if pattern_of(u) == "tav"] for s, us in prepared.splits.items()}
    prepared = replace(prepared, splits=whole)
    (row,) = rows_of(prepared)
    assert asked == []
    valid = guess(prepared.splits["valid"])
    residuals = np.abs(valid.predicted.astype(float) - valid.labels)
    assert row["margins"] == {"tav": Conformal.fit(residuals).pooled}


def test_steps_that_are_masked_stay_masked() -> None:
    prepared = prepared_with("frame:0.5")
    for turn in calibration_turns(prepared):
        for before, after in zip(prepared.splits["valid"], turn.utterances, strict=True):
            assert after.steps <= before.steps
