"""Corrections for several tests at once. m tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Adjusts p-values so that rejecting those at most :math:`\alpha` keeps the familywise error rate at it.

    With :math:`p_{(1)} \le \dots \le p_{(m)}`, the i-th is
    :math:`\tilde p_{(i)} = \min(1, \max_{j \le i} (m - j + 1) \, p_{(j)})` (Holm, Scandinavian Journal of Statistics 6,
    1979). It needs no assumption on how the tests depend on each other, and never rejects fewer than Bonferroni's.

    Args:
        p_values: m values in [0, 1].

    Returns:
        The adjusted values, in the order given.

    Raises:
        ValueError: a value is not in [0, 1].

    Example:
        >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers in [0, 1] (got {p_values!r})")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]
