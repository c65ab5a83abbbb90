"""The relations of each stream, in a fixed order, and the number of each edge's."""

# K edge types, T node types, E edges
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gmsa.config import GraphConfig
from gmsa.graph.context import distance_types, edge_kinds
from gmsa.graph.schema import READOUTS, Relation, Schema, builder_of, is_among_tokens
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


def relations_of(stream: str, types: Schema, config: GraphConfig, readouts: tuple[str, ...] = READOUTS) -> Relations:
    """The relations of a stream: those between types of nodes, once for each kind of edge that they have.

    In graphs of utterances past, present and future, where the builder tells them; in graphs of dialogues distances and
    speakers, between nodes of different utterances. The order is that of the schema, so that a number means the same
    in every process.

    Args:
        config: the settings of these graphs: :attr:`~gmsa.config.GraphConfig.inside` or ``outside``.
        readouts: the readout nodes that an utterance has; relations of others are left out.
    """
    return _numbered(stream, types, config, readouts).relations


def relation_numbers(
    stream: str,
    types: Schema,
    config: GraphConfig,
    edge_type: Tensor,
    source_type: Tensor,
    target_type: Tensor,
    readouts: tuple[str, ...] = READOUTS,
) -> Tensor:
    """The number of each edge's relation among those of its stream ``[E]``.

    Args:
        edge_type: each edge's type, as :func:`~gmsa.graph.connect.connect` numbers them, K where it has none ``[E]``.
        source_type: number of the type of the node that it starts at ``[E]``.
        target_type: the same of the node that it ends at.
        readouts: the readout nodes that an utterance has.
    """
    numbered = _numbered(stream, types, config, readouts)
    by_pair = numbered.by_pair[source_type * len(types.node_types) + target_type]
    return torch.where(by_pair >= 0, by_pair, numbered.by_type[edge_type])


class _Numbered(NamedTuple):
    relations: Relations
    by_type: Tensor
    """The relation of each edge type, -1 where the stream has none such ``[K + 1]``."""
    by_pair: Tensor
    """The relation of each pair of node types whose edges are all of one, else -1 ``[T^2]``."""


@lru_cache
def _numbered(stream: str, types: Schema, config: GraphConfig, readouts: tuple[str, ...]) -> _Numbered:
    is_dialogue = config.scope == "dialogue"
    ordered = types.typed_relations if is_dialogue else types.token_relations
    kinds = edge_kinds(config) if is_dialogue else len(TIMES)
    first = {relation: kinds * i for i, relation in enumerate(ordered)}
    by_type, by_pair = [-1] * (kinds * len(ordered) + 1), [-1] * len(types.node_types) ** 2
    triples: list[Relation] = []
    for relation in stream_relations(stream, types):
        source, name, target = relation
        if {source, target} & {*READOUTS} - {*readouts}:
            continue
        found = _kinds(relation, config, is_dialogue) if relation in first else None
        if found is None:
            by_pair[types.numbers[source] * len(types.node_types) + types.numbers[target]] = len(triples)
            triples.append(relation)
        else:
            for edge_type, kind in enumerate(found, first[relation]):
                if kind is not None:
                    by_type[edge_type] = len(triples)
                    triples.append((source, f"{name} {kind}", target))
    # On the CPU whatever the default: tables are kept, and may be asked for first while a model is made on "meta".
    tables = (torch.tensor(numbers, device="cpu") for numbers in (by_type, by_pair))
    return _Numbered(Relations(types.node_types, tuple(triples)), *tables)


def _kinds(relation: Relation, config: GraphConfig, is_dialogue: bool) -> Sequence[str | None] | None:
    """What tells the edges of a relation apart, in the order of their types; None where nothing does.

    A type is None where no edge can be of it: beyond the reach, or of one utterance and two speakers.
    """
    if not is_dialogue:
        temporal = getattr(EDGE_BUILDERS[builder_of(relation, config)[0]], "temporal", False)
        return [*TIMES] if temporal else None
    if relation[0] != relation[2]:  # of one utterance
        return None
    most = (distance_types(config) - 1) // 2
    distances = range(-most, most + 1)
    if config.speakers == "none":
        speakers = [("", True)]
    elif isinstance(config.speakers, tuple):
        names = (*config.speakers, "others")
        speakers = [(f" {source} to {target}", source == target) for source in names for target in names]
    else:
        speakers = [(" same", True), (" other", False)]
    return [
        f"{TIMES[1 + distance] if most == 1 else f'{distance:+d}'}{speaker}"
        if -config.reach[0] <= distance <= config.reach[1] and (distance or is_same)
        else None
        for speaker, is_same in speakers
        for distance in distances
    ]
