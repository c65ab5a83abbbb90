"""The edges between the utterances of a dialogue, and which of them a builder keeps."""

# n utterances, E edges, D features
from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmsa.config import GraphConfig
from gmsa.config.components import parse_component
from gmsa.errors import ConfigError
from gmsa.graph.schema import DIALOGUE, READOUTS, Relation, Schema
from gmsa.registry import CONTEXT_BUILDERS

context_builder = CONTEXT_BUILDERS.register
"""Decorator that registers a context builder."""


def window(index: Tensor) -> Tensor:
    """Keeps every edge within the reach of ``graph.past`` and ``graph.future`` (DialogueGCN, COGMEN, GCNet)."""
    return torch.ones(index.shape[1], dtype=torch.bool)


def speaker(index: Tensor, speakers: Tensor) -> Tensor:
    """Keeps the edges between utterances of the same speaker."""
    return speakers[index[0]] == speakers[index[1]]


def knn(index: Tensor, features: Tensor, neighbors: int = 4) -> Tensor:
    """Keeps an utterance itself and the ``neighbors`` others within reach whose features are most similar, by cosine.

    Equal similarities are decided by the earlier utterance; zero features are similar to nothing (cosine 0).
    """
    unit = features.double() / features.double().norm(dim=1, keepdim=True).clamp(min=1e-12)
    # Rounded, so that equal cosines are equal on every machine.
    similarity = (unit[index[0]] * unit[index[1]]).sum(1).round(decimals=12)
    similarity = similarity.masked_fill(index[0] == index[1], float("inf"))
    return highest(similarity, index[1], neighbors + 1)


def learned(index: Tensor, neighbors: int = 4) -> Tensor:
    """Keeps every edge within reach; the model then chooses the ``neighbors`` with the highest learned score."""
    return window(index)


def highest(score: Tensor, target: Tensor, count: int) -> Tensor:
    """Whether each edge has one of the ``count`` highest scores of its target ``[E]``; of equal ones the first."""
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(target[order], stable=True)]
    sizes = torch.bincount(target)
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[target[order]]
    return torch.zeros_like(target, dtype=torch.bool).index_copy(0, order, rank < count)


@dataclass(frozen=True)
class Turns:
    """What the edges of a dialogue depend on, apart from features."""

    count: int
    """Utterances n."""
    speakers: tuple[int, ...] = ()
    """Number of each utterance's speaker ``[n]``; none where no setting looks at speakers."""


class ContextEdges(NamedTuple):
    """The edges of a relation between the nodes of a dialogue."""

    pairs: Tensor
    """Source and target ``[2, E]``, sorted by target."""
    kind: Tensor
    """Number of the type among those of the relation ``[E]``: by distance, then by speakers."""


def edge_kinds(config: GraphConfig) -> int:
    """How many edge types a relation between modalities has in the graphs of dialogues."""
    return distance_types(config) * config.speaker_types


def distance_types(config: GraphConfig) -> int:
    """Edge types by distance, from the farthest past to the farthest future."""
    assert isinstance(config.distances, int)
    return 2 * config.distances + 1


def dialogue_edge_types(types: Schema, config: GraphConfig) -> int:
    """Edge types in the graphs of dialogues; that of this number is an edge of a readout or of the dialogue's node."""
    return edge_kinds(config) * len(types.typed_relations)


def context_edges(
    relation: Relation, turns: Turns, config: GraphConfig, features: Tensor | None = None
) -> ContextEdges:
    """The edges of a relation in the graph of a dialogue.

    Nodes of a modality, and joined readout nodes of one kind, are joined with those that ``graph.past``,
    ``graph.future`` and ``graph.between`` choose, seen from the target; all others with those of their own utterance.
    The node of a dialogue is joined with every node; where ``graph.future`` is 0 there is one per utterance, which
    hears that utterance and those before, and tells that utterance alone.

    Args:
        features: mean features of the source's modality ``[n, D]``, for a builder that looks at them.
    """
    source, _, target = relation
    n, (past, future) = turns.count, config.reach
    own = torch.arange(n).expand(2, -1)
    if DIALOGUE in (source, target):
        if future:
            everyone, first = torch.arange(n), torch.zeros(n, dtype=torch.long)
            index = torch.stack([first, everyone] if source == DIALOGUE else [everyone, first])
        else:
            index = own if source == DIALOGUE else _reaching(n, n, 0)
        return ContextEdges(index, torch.zeros(index.shape[1], dtype=torch.long))
    if source != target:
        return ContextEdges(own, _kinds(own, turns, config))
    index = _reaching(n, past, future)
    if source not in READOUTS:
        index = _kept(index, turns, features, config)
    return ContextEdges(index, _kinds(index, turns, config))


def _reaching(n: int, past: int, future: int) -> Tensor:
    """Edges to each utterance from those up to ``past`` before and ``future`` after it, itself included ``[2, E]``."""
    place = torch.arange(n)
    first, last = (place - past).clamp(min=0), (place + future).clamp(max=n - 1)
    sizes = last - first + 1
    target = torch.repeat_interleave(place, sizes)
    source = torch.arange(len(target)) - torch.repeat_interleave(sizes.cumsum(0) - sizes - first, sizes)
    return torch.stack([source, target])


def _kept(index: Tensor, turns: Turns, features: Tensor | None, config: GraphConfig) -> Tensor:
    name, parameters = parse_component(config.between, CONTEXT_BUILDERS, "graph.between")
    if name == "window":
        return index
    arguments: dict[str, Any] = dict(parameters)
    if "speakers" in wanted(name):
        arguments["speakers"] = torch.tensor(turns.speakers or [0] * turns.count)
    if "features" in wanted(name):
        arguments["features"] = torch.zeros(turns.count, 1) if features is None else features
    kept = CONTEXT_BUILDERS[name](index, **arguments)
    if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.shape != index[0].shape:
        raise ConfigError(
            f"context builder '{name}' must say of each of the {index.shape[1]} edges whether it stays, bool [E] (got "
            f"{type(kept).__name__})"
        )
    return index[:, kept]


def _kinds(index: Tensor, turns: Turns, config: GraphConfig) -> Tensor:
    most = (distance_types(config) - 1) // 2
    kind = (index[0] - index[1]).clamp(-most, most) + most
    if config.speakers == "none":
        return kind
    speakers = torch.tensor(turns.speakers)[index]
    if isinstance(config.speakers, tuple):
        pair = speakers[0] * (len(config.speakers) + 1) + speakers[1]
    else:
        pair = (speakers[0] != speakers[1]).long()
    return kind + pair * distance_types(config)


@lru_cache
def wanted(name: str) -> frozenset[str]:
    """What a context builder looks at: ``speakers``, ``features``."""
    parameters = inspect.signature(CONTEXT_BUILDERS[name]).parameters
    return frozenset({"speakers", "features"} & {*parameters})
