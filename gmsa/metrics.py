"""Metrics of sentiment regression, a paired comparison of two systems, and calibration.

Names and definitions are MMSA's (``MMSA/utils/metricsTop.py``), so that tables can be laid side by
side. N utterances, S seeds, K classes.

Like MMSA, all compare in float32: inputs are first rounded to it, and so are the borders. A label of
0.1 therefore lies on the border 0.1 whether it came as float32 or as float64. Means and correlations
are then taken in float64.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]

COLUMNS: dict[str, tuple[str, ...]] = {
    "mosi": (
        "Has0_acc_2", "Has0_F1_score", "Non0_acc_2", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7", "MAE", "Corr",
    ),
    "sims": ("Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr", "Non0_acc_2", "Non0_F1_score"),
}  # fmt: skip
"""Metrics of each label scale, in MMSA's column order."""


def metrics(label_scale: Literal["mosi", "sims"], prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Scores predictions by their label scale: :func:`mosi_metrics` or :func:`sims_metrics`.

    Raises:
        ValueError: the label_scale is unknown, or the input is empty, not finite, or of unequal shapes.
    """
    if label_scale not in COLUMNS:
        raise ValueError(f"unknown label scale {label_scale!r}: expected one of {', '.join(COLUMNS)}")
    return mosi_metrics(prediction, truth) if label_scale == "mosi" else sims_metrics(prediction, truth)


def mosi_metrics(prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Scores intensities in [-3, 3] as MMSA does for CMU-MOSI and CMU-MOSEI.

    ``Has0``: all utterances, positive means >= 0. ``Non0``: those with truth != 0, positive means
    > 0. ``Mult_acc_5``, ``Mult_acc_7``: clip to ±2, ±3, round half to even, compare. F1 is the mean
    over classes weighted by their share of the truth. Accuracy and F1 are shares in [0, 1].

    Without any truth != 0 the ``Non0`` metrics are 0, as is ``Corr`` of a constant; both warn.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.
    """
    p, t = _pair(prediction, truth)
    return {
        "Has0_acc_2": _accuracy(p >= 0, t >= 0),
        "Has0_F1_score": _weighted_f1(p >= 0, t >= 0),
        **_without_zeros(p, t),
        "Mult_acc_5": _accuracy(np.round(np.clip(p, -2, 2)), np.round(np.clip(t, -2, 2))),
        "Mult_acc_7": _accuracy(np.round(np.clip(p, -3, 3)), np.round(np.clip(t, -3, 3))),
        "MAE": _mae(p, t),
        "Corr": _pearson(p, t),
    }


def sims_metrics(prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Scores intensities in [-1, 1] as MMSA does for CH-SIMS, after clipping both to that range.

    Intervals are open below and closed above: ``Mult_acc_2`` and ``F1_score`` split at 0 (so neutral
    counts as negative), ``Mult_acc_3`` at ±0.1, ``Mult_acc_5`` at ±0.1, ±0.7. MMSA lacks ``Non0``
    (those with truth != 0, positive means > 0), which is therefore last. MAE and Corr see clipped
    values too. Accuracy and F1 are shares in [0, 1].

    Without any truth != 0 the ``Non0`` metrics are 0, as is ``Corr`` of a constant; both warn.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.
    """
    p, t = (np.clip(values, -1, 1) for values in _pair(prediction, truth))
    scores = {}
    for name, borders in (("2", (0.0,)), ("3", (-0.1, 0.1)), ("5", (-0.7, -0.1, 0.1, 0.7))):
        edges = np.array(borders, dtype=np.float32)  # float32, or 0.1 would lie beyond its own border
        scores[f"Mult_acc_{name}"] = _accuracy(np.searchsorted(edges, p), np.searchsorted(edges, t))
    return {
        **scores,
        "F1_score": _weighted_f1(p > 0, t > 0),
        "MAE": _mae(p, t),
        "Corr": _pearson(p, t),
        **_without_zeros(p, t),
    }


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
        samples: bootstrap samples.
        seed: seed of the draw.

    Raises:
        ValueError: the errors are empty, not finite, or not two matrices of the same shape.
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
        bins: number of bins.

    Raises:
        ValueError: the shapes do not fit, a row is no distribution, or a class is out of range.
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


def _pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused below
        p, t = np.asarray(prediction).astype(np.float32), np.asarray(truth).astype(np.float32)
    if p.shape != t.shape:
        # [N, 1] against [N] would broadcast to a matrix and score without complaint.
        raise ValueError(f"prediction and truth must have one shape (got {p.shape} and {t.shape})")
    if p.size == 0:
        raise ValueError("prediction and truth are empty")
    for name, values in (("prediction", p), ("truth", t)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")
    return p.reshape(-1), t.reshape(-1)


def _accuracy(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    return float((prediction == truth).mean())


def _weighted_f1(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    # Here, because importing scikit-learn takes longer than all of gmsa.
    from sklearn.metrics import f1_score  # type: ignore[import-untyped, unused-ignore]

    return float(f1_score(truth, prediction, average="weighted"))


def _without_zeros(p: Floats, t: Floats) -> dict[str, float]:
    kept = t != 0
    if not kept.any():
        warnings.warn("no utterance has a truth other than 0: Non0 metrics are reported as 0", stacklevel=3)
        return {"Non0_acc_2": 0.0, "Non0_F1_score": 0.0}
    positive, truth = p[kept] > 0, t[kept] > 0
    return {"Non0_acc_2": _accuracy(positive, truth), "Non0_F1_score": _weighted_f1(positive, truth)}


def _mae(p: Floats, t: Floats) -> float:
    return float(np.abs(p.astype(np.float64) - t).mean())


def _pearson(p: Floats, t: Floats) -> float:
    for name, values in (("prediction", p), ("truth", t)):
        # Not the variance: rounding leaves a constant a tiny one, and a correlation of pure noise.
        if values.min() == values.max():
            warnings.warn(f"the {name} is constant: Corr is reported as 0", stacklevel=3)
            return 0.0
    x, y = p.astype(np.float64), t.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    # Scaled first, or the squares of huge and tiny values leave float64's range.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), -1, 1))
