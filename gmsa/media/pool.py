"""From steps at a modality's own rate to one step per word, or to fewer steps per second."""

# L steps, D features, n spans
from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmsa.media.types import Missing, Steps


def pool(steps: Steps, spans: ArrayLike, reach: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Averages steps within spans of time, such as those of words.

    Row i is the mean of the steps whose middle lies in ``[start, stop)`` of span i. Where there is none, it is the step
    whose middle is nearest to the span, the earlier of two, if it is at most ``reach`` seconds from it.

    Args:
        spans: seconds [n, 2], start and stop, in any order; they may overlap.
        reach: seconds.

    Returns:
        The values, float32 [n, D], and whether each span has one, bool [n]; the values of the others are 0.

    Raises:
        Missing: more than half of the spans have none.
    """
    edges = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    steps, middle = _by_middle(steps)
    values = np.zeros((len(edges), steps.values.shape[1]), np.float32)
    kept = np.zeros(len(edges), dtype=bool)
    if len(middle) and len(edges):
        first, last = (np.searchsorted(middle, edge) for edge in edges.T)
        within = last > first
        values[within] = _means(steps.values, first[within], last[within])
        before, after = np.maximum(first - 1, 0), np.minimum(first, len(middle) - 1)
        early = np.where(first > 0, edges[:, 0] - middle[before], np.inf)
        late = np.where(first < len(middle), middle[after] - edges[:, 1], np.inf)
        near = ~within & (np.minimum(early, late) <= reach)
        values[near] = steps.values[np.where(early <= late, before, after)[near]]
        kept = within | near
    if 2 * kept.sum() < len(edges):
        raise Missing(f"steps for {kept.sum()} of {len(edges)} words")
    return values, kept


def regular(duration: float, every: float = 0.5) -> np.ndarray:
    """Spans [n, 2] of equal length, for a clip without words.

    The last one ends with the clip, so that it is up to twice as long; a clip shorter than ``every`` is one span.

    >>> regular(1.2)
    array([[0. , 0.5],
           [0.5, 1.2]])
    """
    count = max(1, int(duration / every + 1e-6))  # 0.3 / 0.1 is a little less than 3
    edges = np.append(np.arange(count) * every, duration)
    return np.stack([edges[:-1], edges[1:]], 1)


def at_rate(steps: Steps, rate: float) -> Steps:
    """Averages the steps whose middle lies in the same 1 / ``rate`` seconds; where there is none, no step arises.

    A step lasts from the start of the first to the stop of the last of those it is the mean of.
    """
    steps, middle = _by_middle(steps)
    if not len(middle):
        return steps
    part = np.floor(middle * rate + 1e-6)  # 0.7 * 10 is a little more than 7, 0.29 * 100 a little less than 29
    first = np.flatnonzero(np.diff(part, prepend=part[0] - 1))
    last = np.append(first[1:], len(middle))
    start, stop = np.minimum.reduceat(steps.start, first), np.maximum.reduceat(steps.stop, first)
    return Steps(_means(steps.values, first, last), start, stop)


def _by_middle(steps: Steps) -> tuple[Steps, np.ndarray]:
    """Steps in the order of their middles [L], and these."""
    middle = (steps.start + steps.stop) / 2
    order = np.argsort(middle, kind="stable")
    return Steps(*(part[order] for part in steps)), middle[order]


def _means(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Means [n, D] of rows ``first`` to ``last`` [n], at least one each, summed in float64."""
    padded = np.concatenate([values, np.zeros_like(values[:1])]).astype(np.float64)  # `last` may be L
    pairs = np.stack([first, last], 1).ravel()  # what lies between two spans is summed too, and left
    sums = np.add.reduceat(padded, pairs)[::2] if len(pairs) else padded[:0]
    return (sums / (last - first)[:, None]).astype(np.float32)
