"""Pseudo-labels: predictions for the unlabeled pool as training targets."""

# P utterances in the pool, K classes
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gmsa.config import SelfTrainingConfig
from gmsa.data import Utterance
from gmsa.data.lazy import Utterances
from gmsa.training.examples import Example, Examples
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
    for c in range(predictions.probabilities.shape[1]):
        found = [int(i) for i in np.flatnonzero((predicted == c) & (confidence >= config.threshold))]
        found.sort(key=lambda i: (-confidence[i], predictions.ids[i]))
        kept += found if config.k == "all" else found[: config.k]
    return sorted(kept)


def hard_examples(pool: Sequence[Utterance], predictions: Predictions, chosen: Sequence[int]) -> list[Example]:
    """Examples whose target is the likeliest class alone: they have a class loss only (Semi-IIN)."""
    one_hot = torch.eye(predictions.probabilities.shape[1]).unbind()
    likeliest = predictions.probabilities.argmax(1)
    return [Example(pool[i], classes=one_hot[likeliest[i]], pseudo=True) for i in chosen]


def soft_examples(pool: Sequence[Utterance], teachers: Sequence[Predictions]) -> Sequence[Example]:
    """Examples whose targets are the teachers' mean intensity, if they predict one, and mean class probabilities."""
    value = np.full(len(pool), np.nan)
    if values := [t.value for t in teachers if t.value is not None]:
        value = teachers[0].target.to_model(np.mean(values, axis=0))
    classes = torch.from_numpy(np.mean([t.probabilities for t in teachers], axis=0))
    if isinstance(pool, Utterances):
        return Examples(pool, value, classes.numpy())
    return [Example(u, float(v), c) for u, v, c in zip(pool, value, classes, strict=True)]
