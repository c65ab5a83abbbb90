r"""Split conformal prediction: intervals and sets of classes that hold the truth with a probability that is set.

n calibration utterances, which the model was not trained on; N utterances to predict; G groups; K classes.

The guarantee asks only that calibration and new utterances are exchangeable (of one distribution, in no order); it
holds for any model, on average over calibration sets (Vovk, Gammerman and Shafer 2005; Lei et al., Journal of the
American Statistical Association 113, 2018).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENOUGH = 30
"""Calibration utterances from which on a group has a margin of its own."""
_ALL = "all"


@dataclass(frozen=True)
class Conformal:
    r"""Margins of conformal prediction: the truth lies within prediction ± margin with probability ``level``.

    With calibration residuals :math:`r_i`, such as :math:`|t_i - p_i|`, the margin is the
    :math:`\lceil (n + 1) \cdot level \rceil`-th smallest of them, and infinite where there is none.

    Each group of :data:`ENOUGH` calibration utterances or more has a margin of its own (Mondrian conformal prediction),
    so that the level holds within it. Other groups take the margin of all calibration utterances, which holds on
    average over all groups only: from so few utterances the coverage that a margin of their own has would vary widely
    (at 0.9 and 10 utterances with a standard deviation of 0.08), or the margin would be infinite (at 0.9 below 9).

    Where groups are patterns of missing modalities, :func:`gmsa.data.mask_in_turns` makes each calibration utterance
    one of many groups. In the pooled margin its residuals then count as those of several utterances.

    Example:
        >>> found = Conformal.fit([0.1 * i for i in range(1, 61)], ["tav"] * 40 + ["t"] * 20, level=0.8)
        >>> found.margin(["tav", "t"]).round(2).tolist(), found.pooled_groups
        ([3.3, 4.9], ('t',))
    """

    level: float
    """Probability that the interval holds the truth."""
    counts: Mapping[str, int]
    """Calibration utterances of each group."""
    margins: Mapping[str, float]
    """Margin of each group that has one of its own."""
    pooled: float
    """Margin of all calibration utterances together."""

    @classmethod
    def fit(cls, residuals: ArrayLike, groups: Sequence[str] | None = None, level: float = 0.9) -> Conformal:
        """Finds the margins.

        Args:
            residuals: of the calibration utterances, ``[n]``; absolute errors, or 1 - p of the true class.
            groups: the group of each, such as the modalities that it has; None: all are one.
            level (float, default 0.9): in (0, 1).

        Raises:
            ValueError: residuals are negative or not finite, the lengths differ, or the level is not in (0, 1).
        """
        r = np.asarray(residuals, dtype=np.float64)
        names = [_ALL] * len(r) if groups is None else list(groups)
        if r.ndim != 1 or len(names) != len(r):
            raise ValueError(f"residuals and groups must be lists of one length (got {r.shape} and {len(names)})")
        if not (np.isfinite(r) & (r >= 0)).all():
            raise ValueError("residuals must be finite and at least 0")
        if not 0 < level < 1:
            raise ValueError(f"'level' must lie between 0 and 1 (got {level})")
        counts = dict(sorted(Counter(names).items()))
        enough = [name for name, count in counts.items() if count >= ENOUGH and _rank(count, level) <= count]
        own = {name: r[[other == name for other in names]] for name in enough}
        return cls(level, counts, {name: _margin(rs, level) for name, rs in own.items()}, _margin(r, level))

    def margin(self, groups: Sequence[str]) -> NDArray[np.float64]:
        """Margins of utterances: ``[N]``, half the widths of their intervals.

        Args:
            groups: their N groups.
        """
        return np.array([self.margins.get(group, self.pooled) for group in groups], dtype=np.float64)

    def interval(
        self,
        prediction: ArrayLike,
        groups: Sequence[str] | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends of the prediction intervals, ``[N]`` each.

        Args:
            prediction: intensities, ``[N]``.
            groups: their N groups; None as in :meth:`fit`.
            low, high: the range of the target, to which the intervals are clipped; that loses no truth.
        """
        p = np.asarray(prediction, dtype=np.float64)
        margin = self.margin([_ALL] * len(p) if groups is None else groups)
        return (p - margin).clip(low, high), (p + margin).clip(low, high)

    @property
    def pooled_groups(self) -> tuple[str, ...]:
        """The groups that have too few calibration utterances for a margin of their own."""
        return tuple(name for name in self.counts if name not in self.margins)

    def expected_coverage(self, groups: Sequence[str], confidence: float = 0.95) -> tuple[float, float]:
        """The interval in which the share of N covered utterances lies with probability ``confidence``, if the
        assumptions hold: :func:`coverage_interval` over the groups.

        Groups without a margin of their own count as one, that of all calibration utterances.

        Args:
            groups: the groups of the N utterances that were predicted.
        """
        tested = Counter(name if name in self.margins else None for name in groups)
        pairs = [(sum(self.counts.values()) if name is None else self.counts[name], m) for name, m in tested.items()]
        return coverage_interval(pairs, self.level, confidence)

    def record(self) -> dict[str, Any]:
        """The margins for a JSON file: ``level``, ``pooled`` (None: infinite), and by group ``counts``, ``margins``."""
        pooled = self.pooled if math.isfinite(self.pooled) else None
        return {
            "level": self.level, "pooled": pooled, "counts": dict(self.counts), "margins": dict(self.margins),
        }  # fmt: skip


def conformal_sets(probabilities: ArrayLike, margin: ArrayLike) -> NDArray[np.bool_]:
    """The classes that may be the true one: those with 1 - p at most the margin.

    Fit the margins on 1 - p of the true class (least ambiguous sets: Sadinle, Lei and Wasserman, Journal of the
    American Statistical Association 114, 2019). The most probable class is always in, so that no set is empty.

    Args:
        probabilities: ``[N, K]``.
        margin: :meth:`Conformal.margin` of the utterances, ``[N]``.

    Returns:
        Whether each class is in the set, ``[N, K]``.

    Example:
        >>> conformal_sets([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]], [0.7, 0.7]).tolist()
        [[True, False, False], [True, True, False]]
    """
    p, margins = np.asarray(probabilities, dtype=np.float64), np.asarray(margin, dtype=np.float64)
    if p.ndim != 2 or margins.shape != p.shape[:1]:
        raise ValueError(f"expected probabilities [N, K] and margins [N] (got {p.shape} and {margins.shape})")
    return (1 - p <= margins[:, None]) | (np.arange(p.shape[1]) == p.argmax(axis=1)[:, None])


def coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Share of N utterances whose truth lies in its closed interval.

    Args:
        truth, low, high: ``[N]`` each.

    Raises:
        ValueError: there are none, or the shapes differ.

    Example:
        >>> coverage([0.0, 1.0, 3.0, 5.0], low=[-1, 0, 0, 0], high=[1, 1, 2, 9])
        0.75
    """
    t, a, b = (np.asarray(values, dtype=np.float64) for values in (truth, low, high))
    if t.ndim != 1 or not len(t) or not t.shape == a.shape == b.shape:
        raise ValueError(f"truth, low and high must be lists of one length (got {t.shape}, {a.shape} and {b.shape})")
    return float(((a <= t) & (t <= b)).mean())


def binomial_interval(n: int, level: float = 0.9, confidence: float = 0.95) -> tuple[float, float]:
    """The central interval of the share of n utterances that are covered, if each is so with probability ``level``.

    It leaves out that the margin itself comes from a sample: see :func:`coverage_interval`.

    Example:
        >>> binomial_interval(100)
        (0.84, 0.95)
    """
    # Here, because importing SciPy's statistics takes longer than all of gmsa.
    from scipy.stats import binom  # type: ignore[import-untyped, unused-ignore]

    low, high = binom.interval(confidence, n, level)
    return float(low) / n, float(high) / n


def coverage_interval(
    groups: Sequence[tuple[int, int]], level: float = 0.9, confidence: float = 0.95
) -> tuple[float, float]:
    r"""The central interval of the share of covered utterances, over calibration sets and test sets.

    The coverage of margins fitted on n utterances is itself random,
    :math:`\mathrm{Beta}(k, n + 1 - k)` with :math:`k = \lceil (n + 1) \cdot level \rceil` (Vovk, ACML 2012), so that
    the number of m covered utterances is beta-binomial, exactly so where residuals have no ties, and larger where they
    have. Over several groups it is the sum of independent ones.

    Args:
        groups: calibration utterances n and test utterances m of each group.

    Example:
        >>> coverage_interval([(100, 100)]), coverage_interval([(100_000, 100)])
        ((0.81, 0.97), (0.84, 0.95))
    """
    from scipy.stats import betabinom

    shares = np.ones(1)  # the probability of each number of covered utterances
    for n, m in groups:
        k = _rank(n, level)
        of_group = np.zeros(m + 1)
        of_group[m] = 1  # all, where the margin is infinite
        shares = np.convolve(shares, betabinom.pmf(np.arange(m + 1), m, k, n + 1 - k) if k <= n else of_group)
    total, tail = len(shares) - 1, (1 - confidence) / 2
    if total == 0:
        raise ValueError("there is no test utterance")
    below = shares.cumsum()
    low, high = np.searchsorted(below, [tail, below[-1] - tail])
    return float(low) / total, float(high) / total


def _rank(n: int, level: float) -> int:
    return math.ceil((n + 1) * level - 1e-9)  # 0.9 * 110 is a little more than 99 in floating point


def _margin(residuals: NDArray[np.float64], level: float) -> float:
    k = _rank(len(residuals), level)
    return float(np.sort(residuals)[k - 1]) if k <= len(residuals) else math.inf
