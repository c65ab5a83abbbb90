"""The edges among the nodes of a batch, as an adjacency or as a list."""

# G graphs of up to T nodes, V nodes and E edges in all
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gmsa.config import GraphConfig
from gmsa.data.utterance import Utterance
from gmsa.graph.build import dialogue_edges
from gmsa.graph.context import ContextEdges, DialogueEdges, dialogue_edge_types
from gmsa.graph.edges import PRESENT, looks_at_times
from gmsa.graph.kept import (
    build_edges,
    edges_of_dialogue,
    kept_dialogue_edges,
    kept_edges,
    numbered,
    wanted_edges,
)
from gmsa.graph.layout import Numbers
from gmsa.graph.nodes import times_of
from gmsa.graph.relations import relation_numbers, stream_relations
from gmsa.graph.schema import DIALOGUE, READOUTS, Relation, Schema, builder_of
from gmsa.graph.spec import GraphSpec
from gmsa.nn.edges import DenseEdges, Edges, NodePairs, SparseEdges
from gmsa.nn.layers.size_groups import group_by_size, padded_pairs
from gmsa.rng import hashed_uniform


@dataclass(frozen=True, eq=False)
class Graphs:
    """The nodes of a batch, before edges connect them."""

    counts: Numbers
    """Nodes of each type ``[G, types]``."""
    node_type: Numbers
    """Number of the type of each node ``[V]``."""
    padded_index: Numbers
    """Index of each node in the padded graphs ``[V]``."""
    readout_padded_index: Numbers
    """Index of each readout node when the readout nodes of each graph are padded ``[Q N]``."""
    size: int
    """T."""
    members: Sequence[Sequence[Utterance]]
    """The utterances of each graph."""
    spec: GraphSpec
    utterance_seeds: Sequence[Tensor] | None = None
    """Per graph, a seed for each of its utterances: drops edges between two of them at ``graph.context_dropout``."""
    found: Mapping[Relation, Tensor] | None = None
    """Per relation graph, source, target and type of its edges ``[4, E]``, where they are given; None where the
    builders of the config make them."""

    _made: dict[tuple[Relation, ...], list[Tensor]] = field(default_factory=dict, init=False)

    def edges(self, chosen: tuple[Relation, ...]) -> list[Tensor]:
        """Per graph, source, target and type of the edges of these relations ``[3, E]``, sorted by target."""
        if chosen not in self._made:  # the choice of a route asks for them, and then the route
            self._made[chosen] = self._find_edges(chosen)
        return self._made[chosen]

    def _find_edges(self, chosen: tuple[Relation, ...]) -> list[Tensor]:
        if self.found is not None:
            return self._joined([self.found[relation] for relation in chosen if relation in self.found])
        if self.spec.graph.scope == "dialogue":
            found = [self._dialogue_edges(i, chosen) for i in range(len(self.members))]
            return found if self.utterance_seeds is None else [self._kept(i, edges) for i, edges in enumerate(found)]
        wanted = wanted_edges(chosen, self.spec.schema, self.spec.graph)
        kept = [kept_edges(tuple(counts), wanted) for counts in self.counts.tolist()] if wanted.by_length else []
        if not wanted.by_content:
            return kept
        parts = [self._edges_by_content(relation) for relation in wanted.by_content]
        if kept:
            graph = torch.repeat_interleave(torch.tensor([edges.shape[1] for edges in kept]))
            parts.append(torch.cat([graph[None], torch.cat(kept, dim=1)]))
        return self._joined(parts)

    def _edges_by_content(self, relation: Relation) -> Tensor:
        """Graph, source, target and type of a relation's edges ``[4, E]``, by a builder that looks at its nodes."""
        types, strides = self.spec.schema, self.spec.strides
        source, _, target = relation
        name, parameters = builder_of(relation, self.spec.graph)
        ends = self.counts[:, [types.numbers[source], types.numbers[target]]]
        graphs = np.flatnonzero(ends.all(1))
        if not len(graphs):
            return torch.empty(4, 0, dtype=torch.long)
        both, read = (strides[source], strides[target]), self._times if looks_at_times(name) else self._features
        found = [build_edges(name, read(i, source), read(i, target), parameters, both) for i in graphs.tolist()]
        graph = np.repeat(graphs, [index.shape[1] for index, _ in found])
        first = np.cumsum(self.counts, axis=1) - self.counts
        begin, end = torch.cat([index for index, _ in found], dim=1).numpy()
        edge_type = numbered(relation, torch.cat([temporal_type for _, temporal_type in found]), types).numpy()
        begin, end = begin + first[graph, types.numbers[source]], end + first[graph, types.numbers[target]]
        return torch.from_numpy(np.stack([graph, begin, end, edge_type]))

    def _features(self, graph: int, modality: str) -> Tensor:
        return self._in_memory[graph][modality]

    def _times(self, graph: int, modality: str) -> Tensor:
        return times_of(self.members[graph][0], modality)

    @cached_property
    def _in_memory(self) -> list[dict[str, Tensor]]:
        """The features of each graph's utterance, read once."""
        return [dict(utterance.features) for (utterance,) in self.members]

    def _joined(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Per graph the edges of all parts ``[4, E]``, sorted by target."""
        graph, *edges = torch.cat([torch.empty(4, 0, dtype=torch.long), *parts], dim=1)
        order = torch.argsort((graph * self.size + edges[1]) * self.size + edges[0])
        counts = torch.bincount(graph, minlength=len(self.counts))
        return list(torch.stack(edges)[:, order].split(counts.tolist(), dim=1))

    def _dialogue_edges(self, graph: int, chosen: tuple[Relation, ...]) -> Tensor:
        between, counts, types = self.between[graph], tuple(self.counts[graph].tolist()), self.spec.schema
        by_features = tuple(r for r in chosen if r[0] == r[2] and r[0] != DIALOGUE) if between.means else ()
        by_place = tuple(r for r in chosen if r not in by_features)
        kept = kept_dialogue_edges(counts, between.turns, by_place, types, between.config)
        if not by_features:
            return kept
        found = torch.cat([kept, edges_of_dialogue(counts, between, by_features, types)], dim=1)
        return found[:, torch.argsort(found[1] * sum(counts) + found[0])]

    @cached_property
    def between(self) -> list[DialogueEdges]:
        """The edges between the utterances of each dialogue, for all streams."""
        spec = self.spec
        return [dialogue_edges(members, spec.graph, spec.schema.modalities) for members in self.members]

    def _kept(self, graph: int, edges: Tensor) -> Tensor:
        """The edges of a dialogue's graph that a training step keeps: a function of both utterances and their seeds."""
        types = self.spec.schema
        utterances = [
            torch.full((count,), -1) if node_type == DIALOGUE else torch.arange(count)
            for node_type, count in zip(types.node_types, self.counts[graph].tolist(), strict=True)
        ]
        source, target = torch.cat(utterances)[edges[:2]]
        return edges[:, ~self.lost(graph, source, target) | (source == target) | (source < 0) | (target < 0)]

    def lost(self, graph: int, source: Tensor, target: Tensor) -> Tensor:
        """Whether a training step drops the edge between two utterances of a dialogue, bool ``[E]``."""
        if self.utterance_seeds is None:
            return torch.zeros_like(source, dtype=torch.bool)
        seeds = self.utterance_seeds[graph]
        return hashed_uniform(seeds[target], seeds[source]) < self.spec.graph.context_dropout

    @property
    def padded_types(self) -> Numbers:
        """Number of the type of each node of the padded graphs ``[G, T]``; one more than the last is padding."""
        found = np.full(len(self.counts) * self.size, len(self.spec.schema.node_types))
        found[self.padded_index] = self.node_type
        return found.reshape(len(self.counts), self.size)


def utterance_edges(graphs: Graphs, seeds: Tensor | None = None) -> SparseEdges:
    """The edges between the utterances of dialogues that lie end to end, and of each to itself, which joined readout
    nodes have too; their types are those by distance and speakers. A training step drops the same ones.

    Args:
        seeds: One per dialogue ``[G]``: drops edges between different utterances at ``graph.edge_dropout``.
    """
    parts, first = [], 0
    for graph, members in enumerate(graphs.members):
        index, kind = graphs.between[graph].of(("cls", "intra", "cls"))
        lost = graphs.lost(graph, *index)
        if seeds is not None:
            lost = lost | (hashed_uniform(seeds[graph], index[1], index[0]) < graphs.spec.graph.edge_dropout)
        kept = ~lost | (index[0] == index[1])
        parts.append(torch.cat([index + first, kind[None]])[:, kept])
        first += len(members)
    whole = torch.cat(parts, dim=1)
    number = torch.repeat_interleave(torch.tensor([len(members) for members in graphs.members]))
    return SparseEdges(whole[:2], whole[2], graph=number)


def edges_between(members: Sequence[Utterance], spec: GraphSpec) -> ContextEdges:
    """The same of one dialogue."""
    return dialogue_edges(members, spec.graph, spec.schema.modalities).of(("cls", "intra", "cls"))


class Connected(NamedTuple):
    """The edges of one stream."""

    edges: Edges
    """Among all nodes."""
    to_readouts: Edges
    """Those that end at readout nodes, which are the receivers."""


def connect(graphs: Graphs, streams: Sequence[str], seeds: Tensor | None = None) -> dict[str, Connected]:
    """Connects the nodes of a batch for each stream (``global`` is both), by the route of the spec.

    ``route: auto`` takes the dense route where the edges are at least :func:`dense_from` of all pairs of the graphs,
    padded in groups of similar sizes.

    Args:
        seeds: One per graph ``[G]``: drops edges among tokens at ``graph.edge_dropout``, the same ones by both routes.
    """
    dense = [stream for stream in streams if _is_dense(graphs, stream)]
    found = dict(zip(dense, _dense(graphs, dense, seeds), strict=True))
    return {stream: found[stream] if stream in found else _sparse(graphs, stream, seeds) for stream in streams}


def _is_dense(graphs: Graphs, stream: str) -> bool:
    route = graphs.spec.route
    if route != "auto":
        return route == "dense"
    plan, counts = _plan(stream, graphs.spec.schema, graphs.spec.graph, graphs.found is None), graphs.counts
    edges = int((counts @ (plan.code.T > 0) * counts).sum())
    if others := plan.others:
        edges += sum(parts.shape[1] for parts in graphs.edges(others))
    return edges >= dense_from(graphs.size) * padded_pairs(counts.sum(1))


def dense_from(size: int) -> float:
    """Density from which the dense route is taken, for graphs of ``size`` nodes: about where the two cross.

    On small graphs a call costs more than what it computes, and the dense route has fewer (``benchmarks/layer.py``).
    """
    return min(0.08, size / 3000)


class _Plan(NamedTuple):
    code: Numbers
    """Relations that connect all nodes, as their edge type + 1 ``[target type, source type]``; 0 for the others."""
    others: tuple[Relation, ...]
    """The other relations."""


@lru_cache
def _plan(stream: str, types: Schema, config: GraphConfig, by_builders: bool) -> _Plan:
    code = np.zeros((len(types.node_types), len(types.node_types)), dtype=np.int64)
    others = []
    for relation in stream_relations(stream, types):
        source, _, target = relation
        if by_builders and config.scope != "dialogue" and builder_of(relation, config)[0] == "complete":
            edge_type = int(numbered(relation, torch.tensor(PRESENT), types))
            code[types.numbers[target], types.numbers[source]] = edge_type + 1
        else:
            others.append(relation)
    return _Plan(code, tuple(others))


@lru_cache
def _tables(streams: tuple[str, ...], types: Schema, config: GraphConfig, by_builders: bool) -> npt.NDArray[Any]:
    """What an adjacency holds for each pair of node types, the last of them padding: ``[S, types + 1, types + 1]``."""
    codes = np.stack([np.pad(_plan(stream, types, config, by_builders).code, (0, 1)) for stream in streams])
    kind = next(k for k in (np.uint8, np.int16, np.int32) if edge_types(types, config) < np.iinfo(k).max)
    return codes.astype(kind if config.typed else np.bool_)


def edge_types(types: Schema, config: GraphConfig) -> int:
    """Edge types with a learned bias, where edges are typed."""
    return dialogue_edge_types(types, config) if config.scope == "dialogue" else types.edge_types


def _dense(graphs: Graphs, streams: Sequence[str], seeds: Tensor | None) -> list[Connected]:
    if not streams:
        return []
    nodes, readouts = torch.from_numpy(graphs.padded_index), torch.from_numpy(graphs.readout_padded_index)
    of_graph = graphs.counts[:, : len(READOUTS)].sum(1)
    most, sizes = int(of_graph.max()), graphs.counts.sum(1)
    groups = group_by_size(sizes)
    to_readouts = groups.with_receivers(of_graph)
    return [
        Connected(DenseEdges(whole, nodes, nodes, groups), DenseEdges(of_readouts, nodes, readouts, to_readouts))
        for whole, of_readouts in _pairs(graphs, streams, seeds, most)
    ]


def _pairs(
    graphs: Graphs, streams: Sequence[str], seeds: Tensor | None, most: int
) -> list[tuple[Tensor, Tensor] | tuple[NodePairs, NodePairs]]:
    """Who receives from whom in each stream, of all nodes and of the first ``most`` of each graph alone."""
    config, schema, types = graphs.spec.graph, graphs.spec.schema, torch.from_numpy(graphs.padded_types)
    by_builders = graphs.found is None
    tables = torch.tensor(_tables(tuple(streams), schema, config, by_builders))  # [S, types + 1, types + 1]; a copy
    others = [_plan(stream, schema, config, by_builders).others for stream in streams]
    whole = [NodePairs(types, table, graphs.size) for table in tables]
    if seeds is None and not any(others):
        return [(pairs, replace(pairs, receivers=most)) for pairs in whole]
    adjacencies = torch.stack([pairs.adjacency() for pairs in whole])  # [S, G, T, T]
    for adjacency, chosen in zip(adjacencies, others, strict=True):
        if chosen:
            parts = graphs.edges(chosen)
            graph = torch.repeat_interleave(torch.tensor([part.shape[1] for part in parts]))
            source, target, edge_type = torch.cat(parts, dim=1)
            adjacency[graph, target, source] = (edge_type + 1).to(adjacency.dtype) if config.typed else True
    if seeds is not None:
        step = torch.arange(graphs.size)
        lost = hashed_uniform(seeds[:, None, None], step[:, None], step) < config.edge_dropout
        token = (types >= len(READOUTS)) & (types < len(READOUTS) + len(schema.modalities))
        adjacencies.masked_fill_(lost & token[:, :, None] & token[:, None, :], 0)
    return [(adjacency, adjacency[:, :most]) for adjacency in adjacencies]


def _sparse(graphs: Graphs, stream: str, seeds: Tensor | None) -> Connected:
    config = graphs.spec.graph
    parts = graphs.edges(stream_relations(stream, graphs.spec.schema))
    graph = torch.repeat_interleave(torch.tensor([part.shape[1] for part in parts]))
    whole = torch.cat(parts, dim=1)
    counts = torch.from_numpy(graphs.counts)
    readouts, per_graph = counts[:, : len(READOUTS)].sum(1), counts.sum(1)
    if seeds is not None:
        lost = hashed_uniform(seeds[graph], whole[1], whole[0]) < config.edge_dropout
        tokens = counts[:, : len(READOUTS) + len(graphs.spec.schema.modalities)].sum(1)
        kept = ~lost | (whole[:2] < readouts[graph]).any(0) | (whole[:2] >= tokens[graph]).any(0)
        whole, graph = whole[:, kept], graph[kept]
    index, edge_type = whole[:2], whole[2] if config.typed else None
    ends = index[1] < readouts[graph]
    source = index[0] + (per_graph.cumsum(0) - per_graph)[graph]
    target = index[1] + (per_graph.cumsum(0) - per_graph)[graph]
    row = index[1] + (readouts.cumsum(0) - readouts)[graph]
    found = SparseEdges(torch.stack([source, target]), edge_type)
    if graphs.spec.relations:
        node_type = torch.from_numpy(graphs.node_type)
        between = node_type[source], node_type[target]
        relation = relation_numbers(stream, graphs.spec.schema, config, whole[2], *between, graphs.spec.readouts)
        of_graph = torch.repeat_interleave(per_graph, output_size=len(node_type))
        type_counts = tuple(graphs.counts.sum(0).tolist())
        found = replace(found, relation=relation, node_type=node_type, graph=of_graph, type_counts=type_counts)
    return Connected(found, replace(found.where(ends), index=torch.stack([source[ends], row[ends]])))
