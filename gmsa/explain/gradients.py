"""Integrated gradients: what each token adds to a prediction, along the way from blank features to its own."""

# A points of the way, L steps of a modality in a view, D features
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gmsa.explain.score import Score, in_chunks, pairs_of
from gmsa.explain.views import View

STEPS, MOST_STEPS = 32, 128
"""Points of the way at first, and at most."""
TOLERANCE = 0.05
"""Completeness error from which on more points are taken."""


@dataclass(frozen=True, eq=False)
class TokenContributions:
    """What the tokens of an utterance contribute to its score."""

    tokens: dict[str, np.ndarray]
    """Per modality, of each of its tokens ``[L]``."""
    neighbors: float | None
    """What the other utterances of the dialogue contribute together; None where there are none."""
    start: float
    """The score from which the contributions start: that of blank features."""
    error: float
    """Completeness error: how far the contributions are from adding up to the score less ``start``, as a share."""
    steps: int
    """Points of the way."""


def integrated_gradients(
    score: Score, view: View, value: float, steps: int = STEPS, most: int = MOST_STEPS, tolerance: float = TOLERANCE
) -> TokenContributions:
    r"""The contributions of tokens by integrated gradients, from zeros to the features x.

    .. math:: c_t = \sum_d x_{td} \frac{1}{A} \sum_{a=1}^{A}
        \frac{\partial f}{\partial x_{td}}\left(\tfrac{a - 1/2}{A} x\right)

    A is doubled until the error is small enough. In a dialogue the features of all its utterances go along the way.
    Sundararajan et al.: Axiomatic attribution for deep networks, ICML 2017.

    Args:
        value: the score of the view.
        steps, most: A at first, and at most.
        tolerance: completeness error that is small enough.
    """
    start = score.blank(view)
    whole = max(abs(value - start), score.least)
    while True:
        every = path_gradients(score, view, (np.arange(steps) + 0.5) / steps)
        error = abs(sum(float(x.sum()) for x in every.values()) - (value - start)) / whole
        if error <= tolerance or 2 * steps > most:
            break
        steps *= 2
    own = own_rows(view)
    tokens = {m: x[own[m]] for m, x in every.items()}
    others = sum(float(x.sum()) for x in every.values()) - sum(float(x.sum()) for x in tokens.values())
    return TokenContributions(tokens, others if view.utterances[1:] else None, start, error, steps)


def path_gradients(score: Score, view: View, points: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
    """Features times the mean gradient at some points of the way from 0 to them, summed over features and averaged over
    models: ``[L]`` per modality, of all utterances in the graph's order. At the point 1 it is gradient x input."""
    models = score.predictor.models
    total: dict[str, np.ndarray] = {}
    for model in models:
        x = score.features(model, view)
        sums = {m: torch.zeros(len(each), dtype=torch.float64, device=each.device) for m, each in x.items()}
        for part in in_chunks(list(points), [pairs_of(view)] * len(points)):
            for m, gradient in _gradients(score, model, view, x, part).items():
                sums[m] += (gradient.double() * x[m].double()).sum(1)
        for m, each in sums.items():
            total[m] = total.get(m, 0.0) + each.cpu().numpy() / len(points) / len(models)
    return total


def _gradients(
    score: Score, model: torch.nn.Module, view: View, x: dict[str, Tensor], points: Sequence[float]
) -> dict[str, Tensor]:
    """The sum of the gradients at some points ``[L, D]``, in one batch; NaN where the model has none."""
    with torch.enable_grad():
        at = {m: each.new_tensor(points)[:, None, None] * each for m, each in x.items()}
        for each in at.values():
            each.requires_grad_(True)
        total = score.of_features(model, view, at).sum()
        if not total.requires_grad:  # a model of your own that stops gradients: nobody knows them
            return {m: torch.full_like(each, torch.nan) for m, each in x.items()}
        found = torch.autograd.grad(total, list(at.values()), allow_unused=True)
    return {m: torch.zeros_like(x[m]) if each is None else each.sum(0) for m, each in zip(x, found, strict=True)}


def own_rows(view: View) -> dict[str, slice]:
    """The rows of the utterance among those of all utterances of its view, per modality."""
    rows = {}
    for m, length in view.own.lengths.items():
        first = sum(u.lengths[m] for u in view.utterances[: view.place])
        rows[m] = slice(first, first + length)
    return rows
