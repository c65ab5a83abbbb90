"""The relations of each stream, in a fixed order, and the number of each edge's."""

# K edge types, T node types, E edges
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gmsa.config import GraphConfig
from gmsa.graph.context import distance_types, edge_kinds
from gmsa.graph.schema import Relation, Schema, builder_of, is_among_tokens
from gmsa.nn.relations import Relations
from gmsa.registry import EDGE_BUILDERS

TIMES = ("past", "present", "future")
"""Where the source of an edge is, seen from its target."""


@lru_cache
def stream_relations(stream: str, types: Schema) -> tuple[Relation, ...]:
    """Relations between types of a stream; ``global`` has those of both, and those of readout nodes once."""
    if stream != "global":
        return tuple(r for r in types.relations if r[1] == stream)
    return tuple(r for r in types.relations if r[1] == "intra" or is_among_tokens(r))


def relations_of(stream: str, types: Schema, config: GraphConfig) -> Relations:
    """The relations of a stream: those between types of nodes, once for each kind of edge that they have.

    In graphs of utterances past, present and future, where the builder tells them; in graphs of dialogues distances and
    speakers, between nodes of different utterances. The order is that of the schema, so that a number means the same
    in every process.

    Args:
        config: the settings of these graphs: :attr:`~gmsa.config.GraphConfig.inside` or ``outside``.
    """
    return _numbered(stream, types, config).relations


def relation_numbers(
    stream: str, types: Schema, config: GraphConfig, edge_type: Tensor, source_type: Tensor, target_type: Tensor
) -> Tensor:
    """The number of each edge's relation among those of its stream ``[E]``.

    Args:
        edge_type: each edge's type, as :func:`~gmsa.graph.connect.connect` numbers them, K where it has none ``[E]``.
        source_type: number of the type of the node that it starts at ``[E]``.
        target_type: the same of the node that it ends at.
    """
    numbered = _numbered(stream, types, config)
    by_pair = numbered.by_pair[source_type * len(types.node_types) + target_type]
    return torch.where(by_pair >= 0, by_pair, numbered.by_type[edge_type])


class _Numbered(NamedTuple):
    relations: Relations
    by_type: Tensor
    """The relation of each edge type, -1 where the stream has none such ``[K + 1]``."""
    by_pair: Tensor
    """The relation of each pair of node types whose edges are all of one, else -1 ``[T^2]``."""


@lru_cache
def _numbered(stream: str, types: Schema, config: GraphConfig) -> _Numbered:
    is_dialogue = config.scope == "dialogue"
    ordered = types.typed_relations if is_dialogue else types.token_relations
    kinds = edge_kinds(config) if is_dialogue else len(TIMES)
    first = {relation: kinds * i for i, relation in enumerate(ordered)}
    # On the CPU even where a skeleton of a model, on the device meta, asks first: the answer is kept.
    by_type = torch.full((kinds * len(ordered) + 1,), -1, device="cpu")
    by_pair = torch.full((len(types.node_types) ** 2,), -1, device="cpu")
    triples: list[Relation] = []
    for relation in stream_relations(stream, types):
        source, name, target = relation
        found = _kinds(relation, config, is_dialogue) if relation in first else None
        if found is None:
            by_pair[types.numbers[source] * len(types.node_types) + types.numbers[target]] = len(triples)
            triples.append(relation)
        else:
            by_type[first[relation] : first[relation] + kinds] = len(triples) + torch.arange(kinds, device="cpu")
            triples += [(source, f"{name} {kind}", target) for kind in found]
    return _Numbered(Relations(types.node_types, tuple(triples)), by_type, by_pair)


def _kinds(relation: Relation, config: GraphConfig, is_dialogue: bool) -> list[str] | None:
    """What tells the edges of a relation apart, in the order of their types; None where nothing does."""
    if not is_dialogue:
        temporal = getattr(EDGE_BUILDERS[builder_of(relation, config)[0]], "temporal", False)
        return [*TIMES] if temporal else None
    if relation[0] != relation[2]:  # of one utterance
        return None
    most = (distance_types(config) - 1) // 2
    times = [*TIMES] if most == 1 else [f"{distance:+d}" for distance in range(-most, most + 1)]
    if isinstance(config.speakers, tuple):
        names = (*config.speakers, "others")
        speakers = [f" {source} to {target}" for source in names for target in names]
    else:
        speakers = [""] if config.speakers == "none" else [" same", " other"]
    return [f"{time}{speaker}" for speaker in speakers for time in times]
