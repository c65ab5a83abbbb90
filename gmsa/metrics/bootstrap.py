"""Paired comparisons of two systems. N utterances, S seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmsa.rng import generator


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


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two systems' answers for the same utterances by one metric."""

    a: float
    """The metric of system a."""
    b: float
    """The metric of system b."""
    difference: float
    """b - a."""
    low: float
    """Lower end of the 95 % percentile interval of the difference."""
    high: float
    """Upper end of the 95 % percentile interval of the difference."""
    p: float
    """Two-sided p-value of the hypothesis that the systems are interchangeable, at least 1 / (samples + 1)."""


MOST_SAMPLES = 100_000
"""Most samples of :func:`paired_test`."""


def paired_bootstrap(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    samples: int = 10000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Bootstrap:
    r"""Tests whether two systems differ in MAE, over utterances and seeds at once.

    :math:`d_{sn} = |b_{sn}| - |a_{sn}|`; each sample draws seeds and utterances with replacement,
    the same utterances for all seeds, and means :math:`d` over both (the pigeonhole bootstrap: Owen,
    Annals of Applied Statistics 2007; percentile interval: Efron and Tibshirani 1993, chapter 13).
    With few seeds, say S < 5, the spread between seeds is still underestimated. Of ``groups`` whole ones are drawn, as
    many as there are, since the utterances of a dialogue are not independent of each other.

    Args:
        errors_a: prediction minus truth of system a, signed or absolute, ``[S, N]``.
        errors_b: the same of system b for the same utterances and, row by row, the same seeds.
        samples (int, default 10000): bootstrap samples.
        seed (int, default 0): seed of the draw.
        groups (optional): the group of each utterance, such as its dialogue, ``[N]``; by default each is its own.

    Raises:
        ValueError: the errors are empty, not finite, or not two matrices of the same shape, or the groups are not N.

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
    difference, counts = float(d.mean()), None
    if groups is not None:
        if len(groups) != d.shape[1]:
            raise ValueError(f"expected a group for each of the {d.shape[1]} utterances (got {len(groups)})")
        number = {name: i for i, name in enumerate(sorted(set(groups)))}
        of = np.array([number[name] for name in groups])
        counts = np.bincount(of)
        d = np.stack([np.bincount(of, weights=row, minlength=len(counts)) for row in d])  # sums, [S, groups]
    S, N = d.shape
    rng = np.random.default_rng(seed)
    seed_weights = rng.multinomial(S, np.full(S, 1 / S), size=samples) / S  # [samples, S]
    draws = np.empty(samples)
    step = max(1, (1 << 20) // N)  # a few MiB at a time, whatever N is
    for start in range(0, samples, step):
        per_utterance = seed_weights[start : start + step] @ d  # [step, N]
        chosen = rng.integers(N, size=per_utterance.shape)
        drawn = np.take_along_axis(per_utterance, chosen, axis=1)
        draws[start : start + step] = drawn.mean(axis=1) if counts is None else drawn.sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    return Bootstrap(difference, float(low), float(high), min(1.0, 2 * (1 + int(tail)) / (samples + 1)))


def paired_test(
    prediction_a: ArrayLike,
    prediction_b: ArrayLike,
    truth: ArrayLike,
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    samples: int = 1000,
    seed: int = 0,
) -> PairedTest:
    r"""Tests whether two systems' answers differ by a metric of any kind, such as F1 or a correlation.

    The p-value is that of a paired permutation test (approximate randomization: Noreen 1989): each of S samples swaps
    the two answers of each utterance with probability 1/2. With the differences :math:`d_s` of the samples and
    :math:`d` of the answers,

    .. math::
        p = \frac{1 + \#\{s : |d_s| \ge |d|\}}{S + 1}.

    The interval is the percentile interval of a paired bootstrap over utterances (Efron and Tibshirani 1993, chapter
    13). Both see the utterances as independent of each other, and say nothing about other seeds of a training.

    Args:
        prediction_a: answers of system a, ``[N]``: intensities or class numbers.
        prediction_b: those of system b for the same utterances, ``[N]``.
        truth: labels, ``[N]``.
        metric: function ``(prediction [N], truth [N]) -> float``, such as :func:`rmse`. It is called 4 S times; its
            warnings are shown for the answers themselves only.
        samples (int, default 1000): S, at most :data:`MOST_SAMPLES`.
        seed (int, default 0): seed of the draw.

    Raises:
        ValueError: the arrays are empty or not of one length, ``samples`` is out of range, or the metric is not finite.

    Example:
        >>> from gmsa.metrics import rmse
        >>> found = paired_test([1.0, 2.0, 3.0] * 9, [1.5, 2.5, 2.0] * 9, [1.0, 2.0, 3.0] * 9, rmse)
        >>> round(found.difference, 4), found.low > 0, found.p < 0.01
        (0.7071, True, True)
    """
    a, b, t = np.asarray(prediction_a), np.asarray(prediction_b), np.asarray(truth)
    if a.ndim != 1 or not len(a) or not a.shape == b.shape == t.shape:
        raise ValueError(f"answers and truth must be lists of one length (got {a.shape}, {b.shape} and {t.shape})")
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"'samples' must lie between 1 and {MOST_SAMPLES} (got {samples})")
    of_a, of_b = float(metric(a, t)), float(metric(b, t))
    if not (math.isfinite(of_a) and math.isfinite(of_b)):
        raise ValueError(f"the metric is not finite (got {of_a} and {of_b})")
    difference = of_b - of_a
    N, rng = len(t), generator(seed, "paired_test")
    permuted, drawn = np.empty(samples), np.empty(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sample may be constant, or of one class
        for s in range(samples):
            swapped = rng.random(N) < 0.5
            permuted[s] = metric(np.where(swapped, a, b), t) - metric(np.where(swapped, b, a), t)
            chosen = rng.integers(N, size=N)
            drawn[s] = metric(b[chosen], t[chosen]) - metric(a[chosen], t[chosen])
    low, high = np.quantile(drawn, (0.025, 0.975))
    # A little less than |d|: the same answers in another order may differ from it by rounding.
    extreme = int((np.abs(permuted) >= abs(difference) * (1 - 1e-9)).sum())
    return PairedTest(of_a, of_b, difference, float(low), float(high), (1 + extreme) / (samples + 1))
