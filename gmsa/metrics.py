"""Metrics of sentiment regression, a paired comparison of two systems, and calibration.

The names and definitions of a label scale's own metrics are MMSA's (``MMSA/utils/metricsTop.py``), so that tables can
be laid side by side. ``run.metrics`` adds registered ones, such as :func:`rmse`, :func:`ccc` and a user's:

.. code-block:: python

    from gmsa.metrics import metric
    from gmsa.registry import METRICS

    @METRICS.register("within")
    @metric(higher_is_better=True)
    def within(prediction, truth, distance: float = 0.5) -> float:
        return float((abs(prediction - truth) <= distance).mean())

and a config then names it: ``run.metrics: [CCC, within(distance=1)]``. N utterances, S seeds, K classes.

Like MMSA, all compare in float32: inputs are first rounded to it, and so are the borders. A label of
0.1 therefore lies on the border 0.1 whether it came as float32 or as float64. Means and correlations
are then taken in float64.
"""

from __future__ import annotations

import functools
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmsa.config.components import parse_component
from gmsa.errors import ConfigError, RunError
from gmsa.registry import METRICS

Floats = NDArray[np.floating]
M = TypeVar("M", bound=Callable[..., float])

COLUMNS: dict[str, tuple[str, ...]] = {
    "mosi": (
        "Has0_acc_2", "Has0_F1_score", "Non0_acc_2", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7", "MAE", "Corr",
    ),
    "sims": ("Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr", "Non0_acc_2", "Non0_F1_score"),
}  # fmt: skip
"""Metrics of each label scale, in MMSA's column order."""


def metric(*, higher_is_better: bool) -> Callable[[M], M]:
    """Marks a function ``(prediction [N], truth [N]) -> float`` as a metric; its further parameters are the user's.

    Args:
        higher_is_better: whether the better of two models has the higher value.
    """

    def mark(function: M) -> M:
        function.higher_is_better = higher_is_better  # type: ignore[attr-defined]
        return function

    return mark


def higher_is_better(name: str) -> bool:
    """Whether the better of two models has the higher value of a metric: of a label scale's, a registered one, or
    ``loss``.

    Raises:
        ConfigError: there is no such metric, or it is not marked by :func:`metric`.
    """
    if name in ("MAE", "loss"):
        return False
    if any(name in columns for columns in COLUMNS.values()):
        return True
    mark = getattr(METRICS[name], "higher_is_better", None)
    if not isinstance(mark, bool):
        raise ConfigError(
            f"the metric '{name}' does not say which values are better; "
            "mark it by @gmsa.metrics.metric(higher_is_better=True), or False"
        )
    return mark


def is_better(name: str, score: float, best: float) -> bool:
    """Whether a score is better than another of the same metric."""
    return score > best if higher_is_better(name) else score < best


def read_metrics(specs: Sequence[str]) -> dict[str, Callable[[Floats, Floats], float]]:
    """The registered metrics that ``run.metrics`` names, with their parameters, by name.

    Raises:
        ConfigError: one is unknown, named twice, has the name of a label scale's metric, or is not marked by
            :func:`metric`.
    """
    found: dict[str, Callable[[Floats, Floats], float]] = {}
    for spec in specs:
        name, parameters = parse_component(spec, METRICS, "run.metrics")
        if name in found:
            raise ConfigError(f"'run.metrics' names '{name}' twice; name each metric once")
        if name == "loss" or any(name in columns for columns in COLUMNS.values()):
            raise ConfigError(f"'run.metrics': '{name}' is a metric of gmsa already; register yours under another name")
        higher_is_better(name)
        found[name] = functools.partial(METRICS[name], **parameters)
    return found


def metrics(
    label_scale: Literal["mosi", "sims"], prediction: ArrayLike, truth: ArrayLike, more: Sequence[str] = ()
) -> dict[str, float]:
    """Scores predictions by their label scale, :func:`mosi_metrics` or :func:`sims_metrics`, then by further metrics.

    Args:
        more: registered metrics, as ``run.metrics`` names them. They get what MAE gets: float64 arrays ``[N]``, on
            ``sims`` clipped to [-1, 1].

    Raises:
        ValueError: the label_scale is unknown, or the input is empty, not finite, or of unequal shapes.
        RunError: a further metric returns no finite number.
    """
    if label_scale not in COLUMNS:
        raise ValueError(f"unknown label scale {label_scale!r}: expected one of {', '.join(COLUMNS)}")
    scores = mosi_metrics(prediction, truth) if label_scale == "mosi" else sims_metrics(prediction, truth)
    if more:
        p, t = (values.astype(np.float64) for values in _pair(prediction, truth))
        if label_scale == "sims":
            p, t = p.clip(-1, 1), t.clip(-1, 1)
        for name, function in read_metrics(more).items():
            scores[name] = _finite(name, function(p.copy(), t.copy()))
    return scores


def _finite(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        shown = f"{value}" if isinstance(value, numbers.Real) else f"a value of type {type(value).__name__}"
        raise RunError(f"the metric '{name}' returned {shown}; let it return a finite float for every prediction")
    return float(value)


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


@metric(higher_is_better=False)
def rmse(prediction: ArrayLike, truth: ArrayLike) -> float:
    r"""Root mean squared error: :math:`\sqrt{\frac{1}{N} \sum_n (p_n - t_n)^2}`.

    Args:
        prediction: intensities, ``[N]``.
        truth: labels, ``[N]``.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.

    Example:
        >>> rmse([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
        1.7320508075688772
    """
    p, t = (values.astype(np.float64) for values in _pair(prediction, truth))
    return float(np.sqrt(((p - t) ** 2).mean()))


@metric(higher_is_better=True)
def ccc(prediction: ArrayLike, truth: ArrayLike) -> float:
    r"""Lin's concordance correlation coefficient: :math:`\frac{2 s_{pt}}{s_p^2 + s_t^2 + (\bar p - \bar t)^2}`.

    Variances and the covariance divide by N, as Lin's do (Biometrics 45, 1989). 1 is agreement; unlike Pearson's, it
    falls with a shift or another scale. Where prediction and truth are one and the same constant it is undefined: 0,
    with a warning.

    Args:
        prediction: intensities, ``[N]``.
        truth: labels, ``[N]``.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.

    Example:
        >>> round(ccc([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), 4)
        0.5714
    """
    p, t = (values.astype(np.float64) for values in _pair(prediction, truth))
    x, y = p - p.mean(), t - t.mean()
    spread = (x * x).mean() + (y * y).mean() + (p.mean() - t.mean()) ** 2
    if p.min() == p.max() and t.min() == t.max() and p[0] == t[0]:
        warnings.warn("prediction and truth are the same constant: CCC is reported as 0", stacklevel=2)
        return 0.0
    return float(2 * (x * y).mean() / spread)


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
    # Here, because importing SciPy's statistics takes longer than all of gmsa.
    from scipy.stats import pearsonr  # type: ignore[import-untyped, unused-ignore]

    return float(pearsonr(p.astype(np.float64), t.astype(np.float64)).statistic)
