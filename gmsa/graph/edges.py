"""Edge builders: which steps of two sequences an edge connects."""

from __future__ import annotations

import inspect
from functools import lru_cache

import torch
from torch import Tensor

from gmsa.registry import EDGE_BUILDERS

edge_builder = EDGE_BUILDERS.register
"""Decorator that registers an edge builder.

A builder is a function ``(source_length, target_length, parameters) -> edge_index``. One that calls its first two
arguments ``source`` and ``target`` gets the features ``[S, D]`` and ``[T, D]`` instead, one that calls them
``source_times`` and ``target_times`` the starts and stops in seconds ``[S, 2]`` and ``[T, 2]``, and one that names
``relation`` also the relation (source type, stream, target type). The attribute ``temporal = True`` makes its edges
typed, by :func:`temporal_type`; or it is the function that types them, ``(edge_index, source_length, target_length) ->
[E]``, with ``relation`` where the builder names it.
"""
PAST, PRESENT, FUTURE = range(3)
"""When the source of an edge is, relative to its target."""


def complete(source_length: int, target_length: int) -> Tensor:
    """Connects every step with every step, itself included (Semi-IIN). Returns edge_index [2, E]."""
    return _edges(torch.ones(target_length, source_length, dtype=torch.bool))


def window(source_length: int, target_length: int, radius: int) -> Tensor:
    """Connects steps at most ``radius`` apart, after scaling both sequences to the longer one's duration.

    Sequences of the same length (one modality, or aligned ones) are compared index by index
    (after GCNet, COGMEN). Returns edge_index [2, E].
    """
    distance, unit = _distance(source_length, target_length)
    return _edges(distance <= radius * unit)


def time_window(source_times: Tensor, target_times: Tensor, seconds: float) -> Tensor:
    """Connects steps whose middles are at most ``seconds`` apart, in data whose steps have times.

    Returns edge_index [2, E].
    """
    source, target = (times.double().mean(1) for times in (source_times, target_times))
    # Rounded to microseconds: times are float32, whose last digits must not decide about an edge.
    return _edges((target[:, None] - source[None, :]).abs().round(decimals=6) <= seconds)


def dilated(source_length: int, target_length: int, stride: int, hops: int) -> Tensor:
    """Connects steps 0, s, 2 s, ... hops * s apart (after dilated temporal convolutions).

    Sequences of different lengths are scaled to the longer one's duration, and distances there are
    rounded to whole steps, halves up. Returns edge_index [2, E].
    """
    distance, unit = _distance(source_length, target_length)
    steps = (2 * distance + unit) // max(1, 2 * unit)
    return _edges((steps % stride == 0) & (steps <= stride * hops))


def aligned(source_length: int, target_length: int) -> Tensor:
    """Connects steps of equal index (word-aligned data; after MMGCN). Returns edge_index [2, E]."""
    return torch.arange(min(source_length, target_length)).expand(2, -1)


def temporal(source_length: int, target_length: int, radius: int) -> Tensor:
    """Connects what :func:`window` connects, with edges typed by :func:`temporal_type` (after MTAG, GCNet)."""
    return window(source_length, target_length, radius)


temporal.temporal = True  # type: ignore[attr-defined]


def mtag(source_length: int, target_length: int, relation: tuple[str, str, str]) -> Tensor:
    """Connects neighboring steps of one modality and all steps of two, with edges typed by :func:`mtag_type` (MTAG).

    Returns edge_index [2, E].
    """
    if relation[0] == relation[2]:
        return window(source_length, target_length, 1)
    return complete(source_length, target_length)


def mtag_type(edge_index: Tensor, source_length: int, target_length: int, relation: tuple[str, str, str]) -> Tensor:
    """Whether each edge's source lies before, within or after what MTAG's pseudo-alignment gives its target.

    Each step of the shorter sequence (of equally long ones, of the modality whose name comes first) owns a window of
    the longer one, see :func:`pseudo_alignment`: the two are present to each other, and steps beyond the window are
    later. Within a modality a step is present to itself alone. Returns ``PAST``, ``PRESENT`` or ``FUTURE`` for each
    edge [E], as the source is seen from the target; MTAG says how the target is seen from the source.
    """
    if relation[0] == relation[2]:
        return temporal_type(edge_index, source_length, target_length)
    source, target = edge_index
    source_owns = (source_length, relation[0]) < (target_length, relation[2])
    owner, other = (source, target) if source_owns else (target, source)
    first, last = pseudo_alignment(*sorted((source_length, target_length)))
    later = (other > last[owner]).long() - (other < first[owner]).long()  # how the other is seen from the owner
    return PRESENT - later if source_owns else PRESENT + later


mtag.temporal = mtag_type  # type: ignore[attr-defined]


def pseudo_alignment(owners: int, steps: int) -> tuple[Tensor, Tensor]:
    r"""The first and the last step of the window of each of N owners, in a sequence of :math:`M \ge N` steps (MTAG).

    Windows of :math:`M \ge 2 N` steps have the stride and width

    .. math::
        s = \max(2, \lfloor (\lfloor M / (N - 1) \rfloor + 1) / 2 \rfloor), \qquad w = M - (N - 1) s

    or, where that leaves w below 2, :math:`s = \lfloor (M - 2) / (N - 1) \rfloor` and :math:`w = 2`. Those of fewer
    steps have w = 2: the first :math:`M - N` windows lie side by side, and each further one starts a step after the
    one before, as long as it fits. A single owner has the whole.

    >>> [x.tolist() for x in pseudo_alignment(3, 8)]  # steps 0 to 3, 2 to 5, 4 to 7
    [[0, 2, 4], [3, 5, 7]]
    >>> [x.tolist() for x in pseudo_alignment(3, 5)]
    [[0, 2, 3], [1, 3, 4]]
    """
    owner = torch.arange(owners)
    if owners <= 1:
        return torch.zeros_like(owner), torch.full_like(owner, steps - 1)
    if steps >= 2 * owners:
        stride = max(2, (steps // (owners - 1) + 1) // 2)
        width = steps - (owners - 1) * stride
        if width < 2:
            stride, width = (steps - 2) // (owners - 1), 2
        return owner * stride, owner * stride + width - 1
    pairs = steps - owners
    first = torch.where(owner < pairs, 2 * owner, pairs + owner - min(1, pairs)).clamp(max=steps - 2)
    return first, first + 1


def knn(source: Tensor, target: Tensor, neighbors: int) -> Tensor:
    """Connects each target with the ``neighbors`` sources of the most similar features, by cosine.

    Equal similarities are decided by the lower index; zero features are similar to nothing (cosine 0).
    Within one sequence (source is target) a step is connected with itself and ``neighbors`` others (after
    dynamic graph CNNs). Returns edge_index [2, E].

    Raises:
        ValueError: source and target differ in their feature dimension.
    """
    if not len(source) or not len(target):
        return torch.empty(2, 0, dtype=torch.long)
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"cosine needs features of one dimension (got {source.shape[1]} and {target.shape[1]})")
    neighbors += source is target
    if len(source) <= neighbors:  # none is left out
        return complete(len(source), len(target))
    # Rounded, so that equal cosines are equal on every machine.
    similarity = (_unit(target.double()) @ _unit(source.double()).T).round(decimals=12)
    if source is target:
        similarity.fill_diagonal_(float("inf"))
    nearest = torch.argsort(similarity, dim=1, descending=True, stable=True)[:, :neighbors]
    return _edges(torch.zeros(similarity.shape, dtype=torch.bool).scatter_(1, nearest, True))


def temporal_type(edge_index: Tensor, source_length: int, target_length: int) -> Tensor:
    """Whether each edge's source ends before its target begins, overlaps with it, or begins after it ends.

    Both sequences are scaled to one duration: steps of sequences of the same length overlap where their
    indices are equal. Returns ``PAST``, ``PRESENT`` or ``FUTURE`` for each edge [E].
    """
    source, target = edge_index
    past = (source + 1) * target_length <= target * source_length
    future = source * target_length >= (target + 1) * source_length
    return torch.full_like(source, PRESENT).masked_fill(past, PAST).masked_fill(future, FUTURE)


@lru_cache
def looks_at_features(name: str) -> bool:
    """Whether a builder takes the features, or the lengths alone."""
    return "source" in inspect.signature(EDGE_BUILDERS[name]).parameters


@lru_cache
def looks_at_times(name: str) -> bool:
    """Whether a builder takes the times of the steps."""
    return "source_times" in inspect.signature(EDGE_BUILDERS[name]).parameters


@lru_cache
def looks_at_relation(name: str) -> bool:
    """Whether a builder takes the relation whose edges it makes."""
    return "relation" in inspect.signature(EDGE_BUILDERS[name]).parameters


def _edges(connected: Tensor) -> Tensor:
    """Turns a mask [target, source] into edge_index [2, E] (source, target), sorted by target."""
    target, source = connected.nonzero(as_tuple=True)
    return torch.stack([source, target])


def _distance(source_length: int, target_length: int) -> tuple[Tensor, int]:
    """Distance of every pair of steps [target, source], and what one step of the longer sequence is in it."""
    # Midpoints (i + 1/2) / L, compared in integers: rounding must not decide about an edge.
    source = (2 * torch.arange(source_length) + 1) * target_length
    target = (2 * torch.arange(target_length) + 1) * source_length
    distance = (target[:, None] - source[None, :]).abs() * max(source_length, target_length)
    return distance, 2 * source_length * target_length


def _unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
