"""Edges by plain loops."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

from torch import Tensor


@cache
def cosine_order(a: tuple[float, ...], b: tuple[float, ...]) -> Fraction:
    """The cosine, squared with its sign: exact, and in the same order."""
    dot = sum(Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True))
    norms = sum(Fraction(x) ** 2 for x in a) * sum(Fraction(y) ** 2 for y in b)
    return Fraction(0) if norms == 0 else (dot * abs(dot)) / norms


def knn_by_loop(source: Tensor, target: Tensor, neighbors: int, same: bool) -> set[tuple[int, int]]:
    """The pairs that ``knn`` joins, by exact cosines; equal ones are decided by the lower index."""
    sources, targets = ([tuple(row) for row in m.tolist()] for m in (source, target))
    joined = set()
    for j, row in enumerate(targets):
        others = [i for i in range(len(sources)) if not (same and i == j)]
        others.sort(key=lambda i: (-cosine_order(sources[i], row), i))
        joined |= {(i, j) for i in others[:neighbors]} | ({(j, j)} if same else set())
    return joined
