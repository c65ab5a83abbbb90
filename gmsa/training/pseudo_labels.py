"""Pseudo-labels: predictions for the unlabeled pool as training targets."""

# P utterances in the pool, K classes
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gmsa.config import SelfTrainingConfig
from gmsa.data import INTENSITY_CLASSES, Utterance
from gmsa.training.examples import Example
from gmsa.training.scoring import Predictions


def most_confident(predictions: Predictions, config: SelfTrainingConfig) -> list[int]:
    """Indices of the ``k`` most confident utterances of each predicted class, in the pool's order.

    Confidence is the probability of the likeliest class, of at least ``threshold``. Ties are broken by id, so that
    the pool's order does not matter.

    Semi-IIN, Algorithm 1.
    """
    confidence = predictions.probabilities.max(1)
    predicted = predictions.probabilities.argmax(1)
    kept: list[int] = []
    for c in range(INTENSITY_CLASSES):
        found = [int(i) for i in np.flatnonzero((predicted == c) & (confidence >= config.threshold))]
        found.sort(key=lambda i: (-confidence[i], predictions.ids[i]))
        kept += found if config.k == "all" else found[: config.k]
    return sorted(kept)


def hard_examples(pool: Sequence[Utterance], predictions: Predictions, chosen: Sequence[int]) -> list[Example]:
    """Examples whose target is the likeliest class alone: they have a class loss only (Semi-IIN)."""
    classes = torch.eye(INTENSITY_CLASSES)[torch.from_numpy(predictions.probabilities.argmax(1))]
    return [Example(pool[i], float("nan"), classes[i]) for i in chosen]


def soft_examples(pool: Sequence[Utterance], teachers: Sequence[Predictions]) -> list[Example]:
    """Examples whose targets are the teachers' mean intensity and mean class probabilities."""
    value = np.mean([t.value for t in teachers], axis=0)
    classes = torch.from_numpy(np.mean([t.probabilities for t in teachers], axis=0))
    return [Example(u, float(v), c) for u, v, c in zip(pool, value, classes, strict=True)]
