"""A paired comparison of two systems. N utterances, S seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Bootstrap:
    """A difference of two mean absolute errors, b - a: below zero means that b is better."""

    difference: float
    low: float
    """Lower end of the 95 % percentile interval."""
    high: float
    """Upper end of the 95 % percentile interval."""
    p: float
    """Two-sided p-value of the hypothesis of no difference, never below 2 / (samples + 1)."""


def paired_bootstrap(errors_a: ArrayLike, errors_b: ArrayLike, samples: int = 10000, seed: int = 0) -> Bootstrap:
    r"""Tests whether two systems differ in MAE, over utterances and seeds at once.

    :math:`d_{sn} = |b_{sn}| - |a_{sn}|`; each sample draws seeds and utterances with replacement,
    the same utterances for all seeds, and means :math:`d` over both (the pigeonhole bootstrap: Owen,
    Annals of Applied Statistics 2007; percentile interval: Efron and Tibshirani 1993, chapter 13).
    With few seeds, say S < 5, the spread between seeds is still underestimated.

    Args:
        errors_a: prediction minus truth of system a, signed or absolute, ``[S, N]``.
        errors_b: the same of system b for the same utterances and, row by row, the same seeds.
        samples (int, default 10000): bootstrap samples.
        seed (int, default 0): seed of the draw.

    Raises:
        ValueError: the errors are empty, not finite, or not two matrices of the same shape.

    Example:
        >>> found = paired_bootstrap([[0.5, 0.6, 0.4]], [[0.2, 0.3, 0.3]], samples=1000)
        >>> round(found.difference, 4), found.high < 0
        (-0.2333, True)
    """
    a, b = np.asarray(errors_a, dtype=np.float64), np.asarray(errors_b, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"errors must be two matrices [seeds, utterances] of one shape (got {a.shape} and {b.shape})")
    if samples < 1:
        raise ValueError(f"'samples' must be at least 1 (got {samples})")
    d = np.abs(b) - np.abs(a)
    if not np.isfinite(d).all():
        raise ValueError("errors must be finite")
    S, N = d.shape
    rng = np.random.default_rng(seed)
    seed_weights = rng.multinomial(S, np.full(S, 1 / S), size=samples) / S  # [samples, S]
    draws = np.empty(samples)
    step = max(1, (1 << 20) // N)  # a few MiB at a time, whatever N is
    for start in range(0, samples, step):
        per_utterance = seed_weights[start : start + step] @ d  # [step, N]
        chosen = rng.integers(N, size=per_utterance.shape)
        draws[start : start + step] = np.take_along_axis(per_utterance, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    return Bootstrap(float(d.mean()), float(low), float(high), min(1.0, 2 * (1 + int(tail)) / (samples + 1)))
