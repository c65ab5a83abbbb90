"""Edge builders: which steps of two sequences are joined, as a function of their lengths."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from gmsa.config import GraphConfig

EDGE_BUILDERS: dict[str, Callable[..., Tensor]] = {}
"""Edge builders by name."""


def edge_builder(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Registers a builder ``(source_length, target_length, parameters) -> edge_index`` by its name.

    Parameters are taken from the :class:`GraphConfig` fields of the same name.
    """
    EDGE_BUILDERS[function.__name__] = function
    return function


@edge_builder
def complete(source_length: int, target_length: int) -> Tensor:
    """Joins every step with every step, itself included (Semi-IIN). Returns edge_index [2, E]."""
    return _edges(torch.ones(target_length, source_length, dtype=torch.bool))


@edge_builder
def window(source_length: int, target_length: int, radius: int) -> Tensor:
    """Joins steps at most ``radius`` apart, after scaling both sequences to the longer one's duration.

    Sequences of the same length (one modality, or aligned ones) are compared index by index
    (after GCNet, COGMEN). Returns edge_index [2, E].
    """
    # Midpoints (i + 1/2) / L, compared in integers: rounding must not decide about an edge.
    source = (2 * torch.arange(source_length) + 1) * target_length
    target = (2 * torch.arange(target_length) + 1) * source_length
    distance = (target[:, None] - source[None, :]).abs() * max(source_length, target_length)
    return _edges(distance <= radius * 2 * source_length * target_length)


def _edges(joined: Tensor) -> Tensor:
    """Turns joined [target, source] into edge_index [2, E] (source, target), sorted by target."""
    target, source = joined.nonzero(as_tuple=True)
    return torch.stack([source, target])


def build_edges(name: str, source_length: int, target_length: int, config: GraphConfig) -> Tensor:
    """Runs the builder ``name`` with its parameters from ``config``. Returns edge_index [2, E]."""
    parameters = list(inspect.signature(EDGE_BUILDERS[name]).parameters)[2:]
    return _cached(name, source_length, target_length, tuple((p, getattr(config, p)) for p in parameters))


@lru_cache(maxsize=4096)
def _cached(name: str, source_length: int, target_length: int, parameters: tuple[tuple[str, int], ...]) -> Tensor:
    return EDGE_BUILDERS[name](source_length, target_length, **dict(parameters))
