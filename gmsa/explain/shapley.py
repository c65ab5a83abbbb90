"""Shapley values: what each part adds to a prediction, on average over all orders in which parts can come."""

# M parts, S models
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from gmsa.explain.score import Score
from gmsa.explain.views import View

Subset = tuple[str, ...]
"""Some of the parts, in their order."""


def subsets(parts: Sequence[str]) -> Iterator[Subset]:
    """All :math:`2^M` subsets of M parts, from none to all."""
    for size in range(len(parts) + 1):
        yield from combinations(parts, size)


def subset_values(score: Score, view: View) -> dict[Subset, np.ndarray]:
    """The score of every model ``[S]`` for every subset of the view's parts; of none it is the score's base."""
    chosen = [subset for subset in subsets(view.parts) if subset]
    values = score.each([view.with_parts(subset) for subset in chosen])
    nothing = np.full(len(values), score.base)
    return {(): nothing} | dict(zip(chosen, values.T, strict=True))


def shapley_values(parts: Sequence[str], values: Mapping[Subset, np.ndarray]) -> dict[str, np.ndarray]:
    r"""The exact Shapley value of each of M parts, of the shape of ``values``.

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|!\,(M - |S| - 1)!}{M!} \left( v(S \cup m) - v(S) \right)

    They sum to v(all) - v(none). Shapley: A value for n-person games, 1953.

    >>> v = {(): 0.0, ("text",): 1.0, ("audio",): 0.0, ("text", "audio"): 2.0}
    >>> {m: float(x) for m, x in shapley_values(("text", "audio"), {s: np.array(x) for s, x in v.items()}).items()}
    {'text': 1.5, 'audio': 0.5}
    """
    M = len(parts)
    found = {m: np.zeros_like(values[()], dtype=np.float64) for m in parts}
    for subset in subsets(parts):
        size = len(subset)
        if size == M:
            continue
        weight = math.factorial(size) * math.factorial(M - size - 1) / math.factorial(M)
        for m in parts:
            if m not in subset:
                joined = tuple(part for part in parts if part == m or part in subset)
                found[m] += weight * (values[joined] - values[subset])
    return found
