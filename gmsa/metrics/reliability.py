"""Calibration: whether a classifier is as often right as it is confident. N utterances, K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence."""
    accuracy: float
    """Share of right predictions."""


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy lie apart."""

    error: float
    """Expected calibration error, in [0, 1]."""
    bins: tuple[Bin, ...]
    """Reliability table, from low to high confidence, without empty bins."""


def calibration(probabilities: ArrayLike, classes: ArrayLike, bins: int = 10) -> Calibration:
    r"""Expected calibration error :math:`\sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|` and its table.

    Confidence is the probability of the likeliest class, in ``bins`` bins of equal width (Guo et
    al., ICML 2017).

    Args:
        probabilities: ``[N, K]``, rows sum to 1.
        classes: true classes in 0 ... K-1, ``[N]``.
        bins (int, default 10): number of bins.

    Raises:
        ValueError: the shapes do not fit, a row is no distribution, or a class is out of range.

    Example:
        >>> found = calibration([[0.9, 0.1], [0.8, 0.2]], [0, 1], bins=1)
        >>> round(found.error, 4), found.bins[0].accuracy
        (0.35, 0.5)
    """
    probability, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(classes)
    if probability.ndim != 2 or truth.shape != probability.shape[:1] or probability.size == 0:
        raise ValueError(f"expected probabilities [N, K] and classes [N] (got {probability.shape} and {truth.shape})")
    # Negated, so that NaN fails too.
    if not ((probability >= 0).all() and np.allclose(probability.sum(axis=1), 1, atol=1e-3)):
        raise ValueError("every row of probabilities must be non-negative and sum to 1")
    if not np.isin(truth, np.arange(probability.shape[1])).all():
        raise ValueError(f"classes must lie in 0 ... {probability.shape[1] - 1}")
    if bins < 1:
        raise ValueError(f"'bins' must be at least 1 (got {bins})")
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], confidence)
    table = tuple(
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int((index == i).sum()),
            confidence=float(confidence[index == i].mean()),
            accuracy=float(right[index == i].mean()),
        )
        for i in np.unique(index)
    )
    error = sum(row.count * abs(row.accuracy - row.confidence) for row in table) / len(truth)
    return Calibration(error, table)
