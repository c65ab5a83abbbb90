"""Intervals of a target's metrics over utterances and seeds. N utterances, S seeds, K classes, B bootstrap samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmsa.metrics.classes import as_classes
from gmsa.metrics.regression import COLUMNS, as_pair

Array = NDArray[Any]
AT_ONCE = 1 << 22
"""Counts of utterances that are held at once."""


def metric_intervals(
    name: str,
    answers: Sequence[tuple[ArrayLike, ArrayLike]],
    samples: int = 1000,
    seed: int = 0,
    groups: Sequence[Sequence[str]] | None = None,
    num_classes: int | None = None,
) -> dict[str, tuple[float, float]]:
    r"""The 95 % percentile interval of the mean of each metric over the seeds, by the metric's name.

    Each sample draws S seeds and N utterances with replacement, the same utterances for all seeds, as
    :func:`~gmsa.metrics.paired_bootstrap` does, scores each seed, and takes the mean. With cross-validation each fold
    draws its own utterances, and the sample is the mean over the folds.

    Args:
        name: the target's metrics, as :func:`~gmsa.metrics.metrics` names them. Of intensities, RMSE and CCC are added.
        answers: per fold (one without cross-validation) predictions ``[S, N]`` and labels ``[N]``: intensities, or
            numbers of classes.
        samples (int, default 1000): B.
        seed (int, default 0): seed of the draw.
        groups (optional): per fold, the group of each utterance, such as its dialogue: whole ones are drawn.
        num_classes: K; needed for ``classes``.

    Raises:
        ValueError: the answers are empty, not finite, no classes, or of unequal shapes.

    Example:
        >>> found = metric_intervals("mosi", [([[0.5, -1.0, 2.0, 1.0]], [1.0, -1.0, 2.0, 0.5])])
        >>> found["MAE"]
        (0.0, 0.5)
    """
    rng = np.random.default_rng(seed)
    folds = [(np.atleast_2d(np.asarray(p)), np.asarray(t).reshape(-1)) for p, t in answers]
    if not all(truth.size for _, truth in folds):
        raise ValueError("prediction and truth are empty")
    count = len(folds[0][0])
    of_seeds = rng.multinomial(count, np.full(count, 1 / count), size=samples) / count  # [B, S]
    found: dict[str, list[Array]] = {}
    for fold, (predictions, truth) in enumerate(folds):
        _, of = np.unique(np.arange(len(truth)) if groups is None else list(groups[fold]), return_inverse=True)
        for metric, draws in _draws(name, predictions, truth, of_seeds, of, rng, num_classes).items():
            found.setdefault(metric, []).append(draws)
    ends = {metric: np.quantile(np.mean(draws, axis=0), (0.025, 0.975)) for metric, draws in found.items()}
    return {metric: (float(low), float(high)) for metric, (low, high) in ends.items()}


def _draws(
    name: str,
    predictions: Array,
    truth: Array,
    of_seeds: Array,
    of: Array,
    rng: np.random.Generator,
    num_classes: int | None,
) -> dict[str, Array]:
    """The metrics of every sample ``[B]``, each the mean over its seeds; ``of`` is each utterance's group ``[N]``."""
    groups, parts = int(of.max()) + 1, []
    step = max(1, AT_ONCE // len(truth))
    for start in range(0, len(of_seeds), step):
        weights = of_seeds[start : start + step]
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=len(weights))[:, of].astype(np.float64)
        scores = [resampled(name, prediction, truth, drawn, num_classes) for prediction in predictions]
        parts.append({m: sum(w * s[m] for w, s in zip(weights.T, scores, strict=True)) for m in scores[0]})
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}


def resampled(
    name: str, prediction: ArrayLike, truth: ArrayLike, counts: Array, num_classes: int | None = None
) -> dict[str, Array]:
    """The metrics of B samples of the same answers at once, ``[B]`` each; equal to scoring each sample by itself.

    All are functions of sums over the utterances, so that a product of matrices takes the place of a loop.

    Args:
        counts: how often each sample has each utterance, ``[B, N]``.
    """
    if name == "classes":
        if num_classes is None:
            raise ValueError("the metrics of classes need 'num_classes'")
        return _of_classes(*as_classes(prediction, truth, num_classes), counts, num_classes)
    p, t = as_pair(prediction, truth)
    if name == "sims":
        p, t = p.clip(-1, 1), t.clip(-1, 1)
    scores = _of_values(p.astype(np.float64), t.astype(np.float64), counts)
    if name in ("mosi", "sims"):
        kept = t != 0
        scores |= _of_sides("Non0_acc_2", "Non0_F1_score", p[kept] > 0, t[kept] > 0, counts[:, kept])
    if name == "mosi":
        scores |= _of_sides("Has0_acc_2", "Has0_F1_score", p >= 0, t >= 0, counts)
        for most in (2, 3):
            equal = np.round(p.clip(-most, most)) == np.round(t.clip(-most, most))
            scores[f"Mult_acc_{2 * most + 1}"] = _mean(counts, equal)
    if name == "sims":
        scores |= _of_sides("Mult_acc_2", "F1_score", p > 0, t > 0, counts)
        for borders in ((-0.1, 0.1), (-0.7, -0.1, 0.1, 0.7)):
            edges = np.array(borders, dtype=np.float32)  # float32, or 0.1 would lie beyond its own border
            equal = np.searchsorted(edges, p) == np.searchsorted(edges, t)
            scores[f"Mult_acc_{len(borders) + 1}"] = _mean(counts, equal)
    return {metric: scores[metric] for metric in dict.fromkeys((*COLUMNS[name], "RMSE", "CCC"))}


def _of_values(p: Array, t: Array, counts: Array) -> dict[str, Array]:
    """MAE, RMSE, Corr and CCC."""
    x, y = p - p.mean(), t - t.mean()  # near 0, so that the variances lose no digits
    mx, my, xx, yy, xy = (_mean(counts, values) for values in (x, y, x * x, y * y, x * y))
    vx, vy = (
        np.where(_constant(values, counts), 0.0, (square - mean**2).clip(0))
        for values, square, mean in ((p, xx, mx), (t, yy, my))
    )
    both = np.where((vx > 0) & (vy > 0), xy - mx * my, 0.0)
    return {
        "MAE": _mean(counts, np.abs(p - t)),
        "RMSE": np.sqrt(_mean(counts, (p - t) ** 2)),
        "Corr": _share(both, np.sqrt(vx * vy)),
        "CCC": _share(2 * both, vx + vy + (mx - my + p.mean() - t.mean()) ** 2),
    }


def _constant(values: Array, counts: Array) -> Array:
    """Whether all utterances of a sample have one value ``[B]``: rounding leaves a constant a tiny variance."""
    _, of = np.unique(values, return_inverse=True)
    first = (counts > 0).argmax(1)
    return np.asarray(((counts > 0) & (of[None, :] != of[first][:, None])).sum(1) == 0)


def _of_sides(accuracy: str, f1: str, p: Array, t: Array, counts: Array) -> dict[str, Array]:
    """Accuracy and weighted F1 of two classes, by their names in the target."""
    scores = _of_classes(p.astype(np.int64), t.astype(np.int64), counts, 2)
    return {accuracy: scores["accuracy"], f1: scores["weighted_F1"]}


def _of_classes(p: Array, t: Array, counts: Array, num_classes: int) -> dict[str, Array]:
    """The metrics of classes, as :func:`~gmsa.metrics.class_metrics` defines them."""
    classes = np.arange(num_classes)
    predicted, true = p[:, None] == classes, t[:, None] == classes
    hits, of_p, of_t = (counts @ part.astype(np.float64) for part in (predicted & true, predicted, true))  # [B, K]
    f1, recall, total = _share(2 * hits, of_p + of_t), _share(hits, of_t), of_t.sum(1)
    return {
        "accuracy": _share(hits.sum(1), total),
        "weighted_F1": _share((of_t * f1).sum(1), total),
        "macro_F1": f1.mean(1),
        "unweighted_accuracy": _share(recall.sum(1), (of_t > 0).sum(1)),
    }


def _mean(counts: Array, values: Array) -> Array:
    return np.asarray(counts @ values.astype(np.float64) / counts.sum(1))


def _share(part: Array, whole: Array) -> Array:
    """A share, 0 of nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole != 0)
