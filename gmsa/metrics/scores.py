"""The metrics of a run: those of its label scale, and the registered ones that ``run.metrics`` names."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gmsa.config.components import parse_component
from gmsa.errors import ConfigError, RunError
from gmsa.metrics.regression import COLUMNS, Floats, as_pair, mosi_metrics, sims_metrics
from gmsa.registry import METRICS


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


def metrics(label_scale: str, prediction: ArrayLike, truth: ArrayLike, more: Sequence[str] = ()) -> dict[str, float]:
    """Scores predictions by their label scale, :func:`mosi_metrics` or :func:`sims_metrics`, then by further metrics.

    Args:
        label_scale: ``mosi`` for labels in [-3, 3], ``sims`` for [-1, 1].
        prediction: intensities, ``[N]``.
        truth: labels, ``[N]``.
        more: registered metrics, as ``run.metrics`` names them. They get what MAE gets: float64 arrays ``[N]``, on
            ``sims`` clipped to [-1, 1].

    Raises:
        ValueError: the label scale is unknown, or the input is empty, not finite, or of unequal shapes.
        RunError: a further metric returns no finite number.

    Example:
        >>> scores = metrics("mosi", [2.0, -1.0, 0.5], [3.0, -1.0, -0.5], ["RMSE"])
        >>> round(scores["RMSE"], 4)
        0.8165
    """
    if label_scale not in COLUMNS:
        raise ValueError(f"unknown label scale {label_scale!r}: expected one of {', '.join(COLUMNS)}")
    scores = mosi_metrics(prediction, truth) if label_scale == "mosi" else sims_metrics(prediction, truth)
    if more:
        p, t = (values.astype(np.float64) for values in as_pair(prediction, truth))
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
