"""Metrics of sentiment regression. N utterances.

The names and definitions of ``mosi`` and ``sims`` are MMSA's (``MMSA/utils/metricsTop.py``), so that tables can be laid
side by side; :func:`rmse` and :func:`ccc` are registered beside them, and belong to intensities on any other range.

Like MMSA, all compare in float32: inputs are first rounded to it, and so are the borders. A label of
0.1 therefore lies on the border 0.1 whether it came as float32 or as float64. Means and correlations
are then taken in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
M = TypeVar("M", bound=Callable[..., float])

COLUMNS: dict[str, tuple[str, ...]] = {
    "mosi": (
        "Has0_acc_2", "Has0_F1_score", "Non0_acc_2", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7", "MAE", "Corr",
    ),
    "sims": ("Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr", "Non0_acc_2", "Non0_F1_score"),
    "intensity": ("MAE", "RMSE", "Corr", "CCC"),
    "classes": ("accuracy", "weighted_F1", "macro_F1", "unweighted_accuracy"),
}  # fmt: skip
"""The metrics of a target, by the name of the set; MMSA's in MMSA's order."""


def metric(*, higher_is_better: bool, of: Literal["both", "intensity", "classes"] = "both") -> Callable[[M], M]:
    """Marks a function ``(prediction [N], truth [N]) -> float`` as a metric; its further parameters are the user's.

    Args:
        higher_is_better: whether the better of two models has the higher value.
        of: the kind of target that it scores.
    """

    def mark(function: M) -> M:
        function.higher_is_better, function.of = higher_is_better, of  # type: ignore[attr-defined]
        return function

    return mark


def mosi_metrics(prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    r"""Scores intensities in [-3, 3] as MMSA does for CMU-MOSI and CMU-MOSEI: predictions p and labels t, N of each.

    - ``Has0_acc_2``: share of all utterances on the right side of 0, where 0 counts as positive:
      :math:`\frac{1}{N} \sum_n [\, (p_n \ge 0) = (t_n \ge 0) \,]`.
    - ``Has0_F1_score``: F1 of the same two classes, the mean over the classes weighted by their share of the labels:
      :math:`\sum_c \frac{N_c}{N} F_1(c)`.
    - ``Non0_acc_2``: share of the utterances with :math:`t_n \ne 0` for which :math:`(p_n > 0) = (t_n > 0)`.
    - ``Non0_F1_score``: weighted F1 of these utterances and classes.
    - ``Mult_acc_5``: share of equal classes after both are clipped to [-2, 2] and rounded, halves to even.
    - ``Mult_acc_7``: share of equal classes after both are clipped to [-3, 3] and rounded, halves to even.
    - ``MAE``: mean absolute error, :math:`\frac{1}{N} \sum_n |p_n - t_n|`; less is better.
    - ``Corr``: Pearson's correlation,
      :math:`\frac{\sum_n (p_n - \bar p)(t_n - \bar t)}{\sqrt{\sum_n (p_n - \bar p)^2 \sum_n (t_n - \bar t)^2}}`.

    Accuracy and F1 are shares in [0, 1]. Without any :math:`t_n \ne 0` the ``Non0`` metrics are 0, as is ``Corr`` of a
    constant; both warn. Where all labels are on one side of 0, the metrics of two classes follow their definitions, but
    say nothing about telling the two apart: that warns too.

    Args:
        prediction: intensities, ``[N]``.
        truth: labels in [-3, 3], ``[N]``.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.

    Example:
        >>> scores = mosi_metrics([2.0, -1.0, 0.5], [3.0, -1.0, -0.5])
        >>> round(scores["MAE"], 4), round(scores["Non0_acc_2"], 4)
        (0.6667, 0.6667)
    """
    p, t = as_pair(prediction, truth)
    _warn_of_one_side({"Has0_acc_2, Has0_F1_score": t >= 0, _NON0: t[t != 0] > 0})
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
    r"""Scores intensities in [-1, 1] as MMSA does for CH-SIMS, after clipping both to that range.

    Predictions p and labels t, N of each. Classes are intervals, open below and closed above. MMSA lacks the ``Non0``
    metrics, which are therefore last.

    - ``Mult_acc_2``: share of equal classes when split at 0, where 0 counts as negative:
      :math:`\frac{1}{N} \sum_n [\, (p_n > 0) = (t_n > 0) \,]`.
    - ``Mult_acc_3``: share of equal classes when split at ±0.1.
    - ``Mult_acc_5``: share of equal classes when split at ±0.1 and ±0.7.
    - ``F1_score``: F1 of the classes of ``Mult_acc_2``, the mean over the classes weighted by their share of the
      labels: :math:`\sum_c \frac{N_c}{N} F_1(c)`.
    - ``MAE``: mean absolute error of the clipped values, :math:`\frac{1}{N} \sum_n |p_n - t_n|`; less is better.
    - ``Corr``: Pearson's correlation of the clipped values.
    - ``Non0_acc_2``: share of the utterances with :math:`t_n \ne 0` for which :math:`(p_n > 0) = (t_n > 0)`.
    - ``Non0_F1_score``: weighted F1 of these utterances and classes.

    Accuracy and F1 are shares in [0, 1]. Without any :math:`t_n \ne 0` the ``Non0`` metrics are 0, as is ``Corr`` of a
    constant; both warn. Where all labels are on one side of 0, the metrics of two classes follow their definitions, but
    say nothing about telling the two apart: that warns too.

    Args:
        prediction: intensities, ``[N]``.
        truth: labels in [-1, 1], ``[N]``.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.

    Example:
        >>> scores = sims_metrics([0.8, -0.4, 0.2], [1.0, -0.4, -0.2])
        >>> round(scores["MAE"], 4), round(scores["Mult_acc_2"], 4)
        (0.2, 0.6667)
    """
    p, t = (np.clip(values, -1, 1) for values in as_pair(prediction, truth))
    _warn_of_one_side({"Mult_acc_2, F1_score": t > 0, _NON0: t[t != 0] > 0})
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


def intensity_metrics(prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    r"""Scores intensities on any range: predictions p and labels t, N of each.

    - ``MAE``: mean absolute error, :math:`\frac{1}{N} \sum_n |p_n - t_n|`; less is better.
    - ``RMSE``: root mean squared error, :math:`\sqrt{\frac{1}{N} \sum_n (p_n - t_n)^2}`; less is better.
    - ``Corr``: Pearson's correlation,
      :math:`\frac{\sum_n (p_n - \bar p)(t_n - \bar t)}{\sqrt{\sum_n (p_n - \bar p)^2 \sum_n (t_n - \bar t)^2}}`.
    - ``CCC``: Lin's concordance correlation,
      :math:`\frac{2 s_{pt}}{s_p^2 + s_t^2 + (\bar p - \bar t)^2}`, 1 only where :math:`p = t`.

    ``Corr`` of a constant is 0, as is ``CCC`` of two equal ones; both warn.

    Args:
        prediction: intensities, ``[N]``.
        truth: labels, ``[N]``.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.

    Example:
        >>> scores = intensity_metrics([10.0, 40.0, 80.0], [20.0, 50.0, 90.0])
        >>> {name: round(value, 4) for name, value in scores.items()}
        {'MAE': 10.0, 'RMSE': 10.0, 'Corr': 1.0, 'CCC': 0.9427}
    """
    p, t = as_pair(prediction, truth)
    return {"MAE": _mae(p, t), "RMSE": rmse(p, t), "Corr": _pearson(p, t), "CCC": ccc(p, t)}


@metric(higher_is_better=False, of="intensity")
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
    p, t = (values.astype(np.float64) for values in as_pair(prediction, truth))
    return float(np.sqrt(((p - t) ** 2).mean()))


@metric(higher_is_better=True, of="intensity")
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
    p, t = (values.astype(np.float64) for values in as_pair(prediction, truth))
    x, y = p - p.mean(), t - t.mean()
    spread = (x * x).mean() + (y * y).mean() + (p.mean() - t.mean()) ** 2
    if p.min() == p.max() and t.min() == t.max() and p[0] == t[0]:
        warnings.warn("prediction and truth are the same constant: CCC is reported as 0", stacklevel=2)
        return 0.0
    return float(2 * (x * y).mean() / spread)


def as_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    """Both as flat float32 arrays of one shape.

    Raises:
        ValueError: the input is empty, not finite, or of unequal shapes.
    """
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
    # Counted here, because importing scikit-learn takes longer than all of gmsa.
    total = 0.0
    for side in (False, True):
        here, said = truth == side, prediction == side
        if count := int(here.sum()):
            total += 2 * int((here & said).sum()) / (count + int(said.sum())) * count
    return float(total / len(truth))


_NON0 = "Non0_acc_2, Non0_F1_score"


def _warn_of_one_side(positive: dict[str, NDArray[np.bool_]]) -> None:
    """Warns of metrics of two classes whose labels are all of one.

    Args:
        positive: by the names of the metrics, whether each label is of the positive class.
    """
    names = [name for name, side in positive.items() if side.size and side.all() == side.any()]
    if names:
        warnings.warn(
            f"all labels are on one side of 0: {', '.join(names)} do not tell how well positive and negative are told "
            "apart",
            stacklevel=3,
        )


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
