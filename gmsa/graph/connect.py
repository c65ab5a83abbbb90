"""The edges among the nodes of a batch, as an adjacency or as a list."""

# G graphs of up to T nodes, V nodes and E edges in all
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gmsa.config import Config, GraphConfig
from gmsa.data.utterance import Utterance
from gmsa.graph.build import edges_of, node_features
from gmsa.graph.edges import NOW, looks_at_features
from gmsa.graph.schema import KINDS, NODE_TYPES, READOUTS, TOKEN_RELATIONS, Relation, builder_of, kind_of, relations
from gmsa.rng import hashed_uniform


@dataclass(frozen=True, eq=False)
class DenseEdges:
    """Edges as an adjacency of padded graphs."""

    adjacency: Tensor
    """Whether the node of a row receives from the node of a column: bool ``[G, T, T]``; where edges are typed, uint8,
    0 for no edge and 1 more than its kind for an edge."""


@dataclass(frozen=True, eq=False)
class SparseEdges:
    """Edges as a list, sorted by target."""

    index: Tensor
    """Source and target node ``[2, E]``."""
    kind: Tensor | None
    """Kind of each edge ``[E]``; None where edges are not typed."""
    readout_index: Tensor
    """Those edges that end at a readout node: source node, and row of the target in ``receivers`` ``[2, E']``."""
    readout_kind: Tensor | None
    """Their kinds ``[E']``."""


@dataclass(frozen=True, eq=False)
class Graphs:
    """The nodes of a batch, before they are joined."""

    counts: Tensor
    """Nodes of each type ``[G, 5]``."""
    node_type: Tensor
    """Type of each node ``[V]``."""
    place: Tensor
    """Where each node stands in padded graphs ``[V]``."""
    size: int
    """T."""
    members: Sequence[Sequence[Utterance]]
    """The utterances of each graph."""
    config: Config

    @cached_property
    def nodes(self) -> list[dict[str, Tensor]]:
        """Per graph and type, the nodes' features where a builder looks at them, else only as many rows."""
        every = [{t: _ROWS[:n] for t, n in zip(NODE_TYPES, counts, strict=True)} for counts in self.counts.tolist()]
        if self.by_features:
            for found, members in zip(every, self.members, strict=True):
                for modality, sequence in members[0].features.items():
                    found[modality] = node_features(sequence, self.config.model.strides[modality])
        return every

    @property
    def by_features(self) -> bool:
        """Whether a builder looks at the features."""
        return any(looks_at_features(name) for name in self.config.graph.builders)

    @cached_property
    def one_hot(self) -> Tensor:
        """Type of each node of the padded graphs ``[G, T, 5]``; padding is of none."""
        found = torch.zeros(len(self.counts) * self.size, len(NODE_TYPES))
        found[self.place, self.node_type] = 1
        return found.view(len(self.counts), self.size, -1)


_ROWS = torch.empty(1_000_000, 0)


def connect(graphs: Graphs, stream: str, seeds: Tensor | None = None) -> DenseEdges | SparseEdges:
    """Joins the nodes of a batch for one stream (``global`` is both), by the route of ``config.model``.

    ``route: auto`` takes the dense route where the edges are at least :func:`dense_from` of all pairs of the padded
    graphs.

    Args:
        seeds: one per graph ``[G]``: leaves out edges among tokens at ``graph.edge_dropout``; the same
            ones by both routes.
    """
    route = graphs.config.model.route_taken
    code, others = _complete(stream, graphs.config.graph)
    edges = None
    if route != "edge":
        edges = {r: [edges_of(r, n[r[0]], n[r[2]], graphs.config.graph) for n in graphs.nodes] for r in others}
    if route == "auto":
        counts = graphs.counts
        total = int(((counts @ (code.T > 0).long()) * counts).sum())
        total += sum(e.shape[1] for parts in edges.values() for e, _ in parts) if edges else 0
        route = "dense" if total >= dense_from(graphs.size) * len(counts) * graphs.size**2 else "edge"
    return _dense(graphs, code, edges or {}, seeds) if route == "dense" else _sparse(graphs, stream, seeds)


def dense_from(size: int) -> float:
    """Density from which the dense route is taken, for graphs of ``size`` nodes: about where the two cross.

    On small graphs a call costs more than what it computes, and the dense route has fewer (``benchmarks/layer.py``).
    """
    return min(0.08, size / 3000)


@lru_cache
def stream_relations(stream: str) -> tuple[Relation, ...]:
    """Relations of a stream; ``global`` has those of both, and those of readout nodes once."""
    if stream != "global":
        return tuple(r for r in relations() if r[1] == stream)
    return tuple(r for r in relations() if r[1] == "intra" or r in TOKEN_RELATIONS)


@lru_cache
def _complete(stream: str, config: GraphConfig) -> tuple[Tensor, tuple[Relation, ...]]:
    """Relations that join all nodes, as 1 more than their kind ``[target type, source type]``, and the others."""
    code = torch.zeros(len(NODE_TYPES), len(NODE_TYPES))
    others = []
    for relation in stream_relations(stream):
        source, _, target = relation
        if builder_of(relation, config)[0] != "complete":
            others.append(relation)
            continue
        kind = int(_kinds(relation, torch.tensor(NOW)))
        code[NODE_TYPES.index(target), NODE_TYPES.index(source)] = kind + 1
    return code, tuple(others)


def _kinds(relation: Relation, tense: Tensor) -> Tensor:
    kind = kind_of(relation)
    return torch.full_like(tense, KINDS) if kind == KINDS else kind + tense


def _dense(
    graphs: Graphs, code: Tensor, edges: Mapping[Relation, list[tuple[Tensor, Tensor]]], seeds: Tensor | None
) -> DenseEdges:
    typed = graphs.config.graph.typed
    # Products of 0, 1 and small whole numbers are exact, and faster than comparing types pair by pair.
    joined = torch.bmm(graphs.one_hot @ code, graphs.one_hot.transpose(1, 2))
    adjacency = joined.to(torch.uint8) if typed else joined > 0
    for relation, parts in edges.items():
        source, _, target = relation
        first = F.pad(graphs.counts, (1, 0)).cumsum(1)  # where each type begins in its graph
        sizes = torch.tensor([e.shape[1] for e, _ in parts])
        graph = torch.repeat_interleave(sizes)
        index = torch.cat([e for e, _ in parts], dim=1)
        row = first[graph, NODE_TYPES.index(target)] + index[1]
        column = first[graph, NODE_TYPES.index(source)] + index[0]
        kinds = _kinds(relation, torch.cat([t for _, t in parts]))
        adjacency[graph, row, column] = (kinds + 1).to(torch.uint8) if typed else True
    if seeds is not None:
        number = torch.arange(graphs.size)
        lost = hashed_uniform(seeds[:, None, None], number[:, None], number) < graphs.config.graph.edge_dropout
        token = graphs.one_hot[:, :, len(READOUTS) :].any(-1)
        adjacency.masked_fill_(lost & token[:, :, None] & token[:, None, :], 0)
    return DenseEdges(adjacency)


def _sparse(graphs: Graphs, stream: str, seeds: Tensor | None) -> SparseEdges:
    config, every = graphs.config, graphs.counts.tolist()
    if graphs.by_features:
        lists = [_edge_list(nodes, stream, config.graph) for nodes in graphs.nodes]
    else:
        lists = [_kept_edge_list(tuple(counts), stream, config.graph) for counts in every]
    index = torch.cat([i for i, _ in lists], dim=1)
    kind = torch.cat([k for _, k in lists])
    graph = torch.repeat_interleave(torch.tensor([i.shape[1] for i, _ in lists]))
    readouts = graphs.counts[:, : len(READOUTS)].sum(1)
    if seeds is not None:
        lost = hashed_uniform(seeds[graph], index[1], index[0]) < config.graph.edge_dropout
        kept = ~lost | (index < readouts[graph]).any(0)
        index, kind, graph = index[:, kept], kind[kept], graph[kept]
    ends = index[1] < readouts[graph]
    per_graph = graphs.counts.sum(1)
    source = index[0] + (per_graph.cumsum(0) - per_graph)[graph]
    target = index[1] + (per_graph.cumsum(0) - per_graph)[graph]
    row = index[1] + (readouts.cumsum(0) - readouts)[graph]
    typed = config.graph.typed
    return SparseEdges(
        torch.stack([source, target]),
        kind if typed else None,
        torch.stack([source[ends], row[ends]]),
        kind[ends] if typed else None,
    )


@lru_cache(maxsize=512)
def _kept_edge_list(counts: tuple[int, ...], stream: str, config: GraphConfig) -> tuple[Tensor, Tensor]:
    return _edge_list({t: _ROWS[:n] for t, n in zip(NODE_TYPES, counts, strict=True)}, stream, config)


def _edge_list(nodes: dict[str, Tensor], stream: str, config: GraphConfig) -> tuple[Tensor, Tensor]:
    """Edges of one graph among its nodes ``[2, E]``, sorted by target, and their kinds ``[E]``."""
    sizes = [len(nodes[t]) for t in NODE_TYPES]
    first = {t: sum(sizes[:i]) for i, t in enumerate(NODE_TYPES)}
    # NumPy: on arrays this small, a step of it costs a fifth of what one of torch does.
    sources, targets, kinds = [], [], []
    for relation in stream_relations(stream):
        source, _, target = relation
        edge_index, tense = edges_of(relation, nodes[source], nodes[target], config)
        begin, end = edge_index.numpy()
        sources.append(begin + first[source])
        targets.append(end + first[target])
        kinds.append(_kinds(relation, tense).numpy())
    found = np.stack([np.concatenate(parts) for parts in (sources, targets, kinds)])
    found = found[:, np.argsort(found[1] * sum(sizes) + found[0])]
    return torch.from_numpy(found[:2]), torch.from_numpy(found[2])
