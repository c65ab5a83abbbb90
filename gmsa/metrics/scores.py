"""The metrics of a run: those of its target, and the registered ones that ``run.metrics`` names."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmsa.config.components import parse_component
from gmsa.errors import ConfigError, RunError
from gmsa.metrics.classes import as_classes, class_metrics
from gmsa.metrics.regression import COLUMNS, as_pair, intensity_metrics, mosi_metrics, sims_metrics
from gmsa.registry import METRICS

Numbers = NDArray[np.number]
_SCORES = {"mosi": mosi_metrics, "sims": sims_metrics, "intensity": intensity_metrics}
_OWN = {"loss", *itertools.chain.from_iterable(COLUMNS.values())} - {"RMSE", "CCC"}
"""Metrics that no registered one may be named as; RMSE and CCC are registered themselves."""
_KINDS = {"intensity": "an intensity", "classes": "classes"}


def higher_is_better(name: str) -> bool:
    """Whether the better of two models has the higher value of a metric: of a target's, a registered one, or ``loss``.

    Raises:
        ConfigError: there is no such metric, or it is not marked by :func:`metric`.
    """
    if name in ("MAE", "RMSE", "loss"):
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


def read_metrics(specs: Sequence[str], kind: str = "") -> dict[str, Callable[[Numbers, Numbers], float]]:
    """The registered metrics that ``run.metrics`` names, with their parameters, by name.

    Args:
        kind: of the target that they must score, ``intensity`` or ``classes``; any by default.

    Raises:
        ConfigError: one is unknown, named twice, has the name of a target's metric, is not marked by :func:`metric`, or
            does not score such a target.
    """
    found: dict[str, Callable[[Numbers, Numbers], float]] = {}
    for spec in specs:
        name, parameters = parse_component(spec, METRICS, "run.metrics")
        if name in found:
            raise ConfigError(f"'run.metrics' names '{name}' twice; name each metric once")
        if name in _OWN:
            raise ConfigError(f"'run.metrics': '{name}' is a metric of gmsa already; register yours under another name")
        higher_is_better(name)
        scored = getattr(METRICS[name], "of", "both")
        if kind and scored not in ("both", kind):
            raise ConfigError(
                f"'run.metrics': '{name}' scores {_KINDS[scored]}, but the target is {_KINDS[kind]}; leave it out"
            )
        found[name] = functools.partial(METRICS[name], **parameters)
    return found


def metrics(
    name: str, prediction: ArrayLike, truth: ArrayLike, more: Sequence[str] = (), num_classes: int | None = None
) -> dict[str, float]:
    """Scores predictions by the metrics of their target, then by further ones.

    Args:
        name: ``mosi`` (:func:`mosi_metrics`: labels in [-3, 3]), ``sims`` (:func:`sims_metrics`: labels in [-1, 1]),
            ``intensity`` (:func:`intensity_metrics`: any other range) or ``classes`` (:func:`class_metrics`).
        prediction: intensities or class numbers, ``[N]``.
        truth: labels, ``[N]``.
        more: registered metrics, as ``run.metrics`` names them. They get float64 arrays ``[N]``, on ``sims`` clipped to
            [-1, 1]; of classes, their numbers as int64 ``[N]``.
        num_classes: K; needed for ``classes``.

    Raises:
        ValueError: the name is unknown, ``num_classes`` is missing, or the input is empty, not finite, no class, or of
            unequal shapes.
        RunError: a further metric returns no finite number.

    Example:
        >>> scores = metrics("mosi", [2.0, -1.0, 0.5], [3.0, -1.0, -0.5], ["RMSE"])
        >>> round(scores["RMSE"], 4)
        0.8165
        >>> round(metrics("classes", [0, 2, 1], [0, 2, 2], num_classes=3)["weighted_F1"], 4)
        0.7778
    """
    p: Numbers
    t: Numbers
    if name not in COLUMNS:
        raise ValueError(f"unknown metrics {name!r}: expected one of {', '.join(COLUMNS)}")
    if name == "classes":
        if num_classes is None:
            raise ValueError("the metrics of classes need 'num_classes'")
        p, t = as_classes(prediction, truth, num_classes)
        scores = class_metrics(p, t, num_classes)
    else:
        scores = _SCORES[name](prediction, truth)
        p, t = (values.astype(np.float64) for values in as_pair(prediction, truth))
        if name == "sims":
            p, t = p.clip(-1, 1), t.clip(-1, 1)
    for added, function in read_metrics(more).items():
        scores[added] = _finite(added, function(p.copy(), t.copy()))
    return scores


def _finite(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        shown = f"{value}" if isinstance(value, numbers.Real) else f"a value of type {type(value).__name__}"
        raise RunError(f"the metric '{name}' returned {shown}; let it return a finite float for every prediction")
    return float(value)
