"""The edges along which layers pass messages: an adjacency of padded graphs, or a list."""

# G graphs of up to T nodes, R of them receivers; V nodes, W receivers and E edges of all graphs
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gmsa.nn.layers.edge_attention import HeadCsr
from gmsa.nn.layers.size_groups import SizeGroups

LOWEST = torch.finfo(torch.float32).min / 2
"""What is added to the score of a pair without an edge. It is finite: a receiver without edges then has no NaN."""


class Masks(NamedTuple):
    """What is added to the scores of padded graphs, and which receivers hear anybody."""

    groups: Sequence[Tensor]
    """Of each group of graphs ``[G_k, R_k, T_k]``: 0 where there is an edge, :data:`LOWEST` elsewhere."""
    receives: Tensor | None
    """1 for a receiver with an edge, 0 for one without ``[W, 1]``; None where all have one."""


@dataclass(frozen=True, eq=False)
class NodePairs:
    """An adjacency that the types of nodes decide: it is looked up on the device, and not sent there.

    Args:
        node_type (Tensor): Number of the type of each node of the padded graphs, K where there is none ``[G, T]``.
        table (Tensor): What the adjacency holds for a receiver (row) and a node (column) of each type
            ``[K + 1, K + 1]``; False or 0 in the last row and column.
        receivers (int): R: the first nodes of each graph receive.

    Example:
        >>> import torch
        >>> within = torch.tensor([[True, False, False], [False, True, False], [False, False, False]])
        >>> NodePairs(torch.tensor([[0, 1, 1], [0, 1, 2]]), within, receivers=2).adjacency().int().tolist()
        [[[1, 0, 0], [0, 1, 1]], [[1, 0, 0], [0, 1, 0]]]
    """

    node_type: Tensor
    table: Tensor
    receivers: int

    def adjacency(self) -> Tensor:
        """``[G, R, T]``."""
        return _look_up(self.table, self.node_type[:, : self.receivers], self.node_type)

    def part(self, graphs: Tensor, receivers: int, nodes: int) -> Tensor:
        """That of some graphs ``[N]``, of their first receivers and nodes alone; further nodes are padding."""
        rows = self.node_type.index_select(0, graphs)[:, :nodes]
        padding = nodes - rows.shape[1]
        columns = F.pad(rows, (0, padding), value=len(self.table) - 1) if padding else rows
        return _look_up(self.table, rows[:, :receivers], columns)

    def receives(self) -> Tensor:
        """Which receivers receive from any node, bool ``[G, R]``; from the types that a graph has, not its pairs."""
        there = torch.zeros(len(self.node_type), len(self.table), device=self.node_type.device)
        there = there.scatter_(1, self.node_type, 1.0)
        heard = there @ self.table.to(there.dtype).T > 0  # [G, K + 1]
        return heard.gather(1, self.node_type[:, : self.receivers])

    def scores(self, dtype: torch.dtype) -> NodePairs:
        """What is added to the score of each pair, looked up the same way."""
        return replace(self, table=_added(self.table, dtype))


def adjacencies(edges: Sequence[DenseEdges]) -> Tensor:
    """The adjacencies of several streams over the same nodes ``[S, G, R, T]``, looked up together."""
    pairs = [e.pairs for e in edges if isinstance(e.pairs, NodePairs)]
    if len(pairs) == len(edges) and all(
        p.node_type is pairs[0].node_type and p.receivers == pairs[0].receivers for p in pairs
    ):
        node_type, receivers = pairs[0].node_type, pairs[0].receivers
        return _look_up(torch.stack([p.table for p in pairs]), node_type[:, :receivers], node_type)
    return torch.stack([e.adjacency for e in edges])


def _look_up(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The table's values for the types of rows ``[G, R]`` and of columns ``[G, T]``: ``[..., G, R, T]``.

    Args:
        table: ``[..., K + 1, K + 1]``.
    """
    graphs, nodes = columns.shape
    by_type = table.index_select(-1, columns.flatten()).view(*table.shape[:-2], -1, nodes)  # whole rows are copied then
    chosen = rows * graphs + torch.arange(graphs, device=rows.device)[:, None]
    return by_type.index_select(-2, chosen.flatten()).view(*table.shape[:-2], graphs, -1, nodes)


def _added(adjacency: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(adjacency, 0.0, LOWEST).to(dtype)


@dataclass(frozen=True, eq=False)
class DenseEdges:
    """Edges as an adjacency of graphs that are padded to one size.

    Args:
        pairs (Tensor | NodePairs): Whether a receiver (row) receives from a node (column), bool ``[G, R, T]``; where
            edges are typed, whole numbers: 0 for no edge, k + 1 for an edge of type k. Where the types of nodes decide
            it, a table of these.
        source_index (Tensor): Index ``g T + t`` of every node ``[V]``, ascending.
        target_index (Tensor): Index ``g R + r`` of every receiver ``[W]``, ascending.
        groups (SizeGroups, optional): The graphs in groups of similar sizes, by which a CPU attends; without them, and
            on a GPU, which takes few large calls, all are one group.

    Example:
        >>> import torch
        >>> adjacency = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]]], dtype=torch.bool)  # graphs of 2 and 1 nodes
        >>> nodes = torch.tensor([0, 1, 2])
        >>> DenseEdges(adjacency, nodes, nodes).adjacency.shape
        torch.Size([2, 2, 2])
    """

    pairs: Tensor | NodePairs
    source_index: Tensor
    target_index: Tensor
    groups: SizeGroups | None = None

    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # it is made again

    @property
    def adjacency(self) -> Tensor:
        """Who receives from whom ``[G, R, T]``, as ``pairs`` says it; made once, for all layers."""
        if isinstance(self.pairs, Tensor):
            return self.pairs
        # No cached_property, whose lock before Python 3.12 what traces a program cannot enter.
        whole: Tensor | None = self._made.get("adjacency")
        if whole is None:
            whole = self._made["adjacency"] = self.pairs.adjacency()
        return whole

    @property
    def is_typed(self) -> bool:
        """Whether the adjacency holds types of edges."""
        return (self.pairs.table if isinstance(self.pairs, NodePairs) else self.pairs).dtype != torch.bool

    def padded(self) -> tuple[Sequence[Tensor], Tensor, Tensor]:
        """The adjacency of each group in which to attend ``[G_k, R_k, T_k]``, and the index of every node ``[V]`` and
        of every receiver ``[W]`` among those of all groups, whose padded graphs lie end to end."""
        if self.groups is None or not _attends_in_groups(self.source_index):
            return [self.adjacency], self.source_index, self.target_index
        parts: Sequence[Tensor] | None = self._made.get("parts")
        if parts is None:  # set when all are there: other threads may read the same batch
            part = self.pairs.part if isinstance(self.pairs, NodePairs) else partial(_part, self.pairs)
            parts = self._made["parts"] = [part(*group) for group in self.groups.groups]
        return parts, self.groups.sources.index, self.groups.targets.index

    def masks(self, dtype: torch.dtype) -> Masks:
        """The masks of each group of untyped edges, in the order of :meth:`padded`; made once, for all layers."""
        found: Masks | None = self._made.get(f"masks {dtype}")
        if found is None:
            if isinstance(self.pairs, NodePairs) and self.groups is not None:
                scores = self.pairs.scores(dtype)
                groups, receives = [scores.part(*group) for group in self.groups.groups], self.pairs.receives()
            else:
                groups, receives = [_added(part, dtype) for part in self.padded()[0]], self.adjacency.any(-1)
            heard = receives.flatten().index_select(0, self.target_index)
            found = Masks(groups, None if bool(heard.all()) else heard[:, None].to(dtype))
            self._made[f"masks {dtype}"] = found
        return found


def _attends_in_groups(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _part(adjacency: Tensor, graphs: Tensor, receivers: int, nodes: int) -> Tensor:
    """What :meth:`NodePairs.part` gives, of an adjacency."""
    found = adjacency[:, :receivers, :nodes].index_select(0, graphs)
    padding = nodes - found.shape[2]
    return F.pad(found, (0, padding)) if padding else found


@dataclass(frozen=True, eq=False)
class SparseEdges:
    """Edges as a list.

    Args:
        index (Tensor): Source node in [0, V) and receiver in [0, W) of every edge ``[2, E]``, without duplicates,
            sorted by receiver.
        edge_type (Tensor, optional): Type of every edge ``[E]``; None where edges are not typed.
        log_weight (Tensor, optional): Logarithm of every edge's weight ``[E]``; None where each weighs 1.
        relation (Tensor, optional): Number of every edge's relation among those of the stream ``[E]``; this and the
            next two where a layer asks for them.
        node_type (Tensor, optional): Number of every node's type ``[V]``.
        graph (Tensor, optional): Number of every node's graph, ascending ``[V]``.
        silent (Tensor, optional): Nodes that send nothing, also where a layer looks beyond the edges, bool ``[V]``.
        type_counts (tuple[int, ...], optional): Nodes of each type, which a GPU would else be asked for.

    Example:
        >>> import torch
        >>> SparseEdges(torch.tensor([[1, 0, 1, 2], [0, 1, 1, 2]])).index.shape  # 1 -> 0, 0 -> 1, 1 -> 1, 2 -> 2
        torch.Size([2, 4])
    """

    index: Tensor
    edge_type: Tensor | None = None
    log_weight: Tensor | None = None
    relation: Tensor | None = None
    node_type: Tensor | None = None
    graph: Tensor | None = None
    silent: Tensor | None = None
    type_counts: tuple[int, ...] | None = None
    _csr: dict[tuple[int, int, int], HeadCsr] = field(default_factory=dict, init=False, repr=False)

    def csr(self, sources: int, targets: int, heads: int) -> HeadCsr:
        """The list as compressed rows, made once for all layers that share these edges."""
        key = (sources, targets, heads)
        if key not in self._csr:
            self._csr[key] = HeadCsr(self.index, *key)
        return self._csr[key]

    def where(self, kept: Tensor) -> SparseEdges:
        """The edges that are kept, bool ``[E]``."""
        columns = {"edge_type": self.edge_type, "log_weight": self.log_weight, "relation": self.relation}
        found: dict[str, Any] = {name: None if column is None else column[kept] for name, column in columns.items()}
        return replace(self, index=self.index[:, kept], **found)

    def weighed(self, log_weight: Tensor) -> SparseEdges:
        """The edges with these further weights, as logarithms ``[E]``."""
        return replace(self, log_weight=log_weight if self.log_weight is None else self.log_weight + log_weight)


Edges = DenseEdges | SparseEdges


def without_sources(edges: Edges, excluded: Tensor) -> Edges:
    """The edges without those that start at an excluded node, bool ``[V]``."""
    if isinstance(edges, DenseEdges):
        graphs, _, nodes = edges.adjacency.shape
        columns = excluded.new_zeros(graphs * nodes).index_copy(0, edges.source_index, excluded).view(graphs, 1, nodes)
        return replace(edges, pairs=edges.adjacency.masked_fill(columns, 0))
    return replace(edges.where(~excluded[edges.index[0]]), silent=excluded)


def highest(score: Tensor, target: Tensor, count: int | Tensor) -> Tensor:
    """Whether each edge has one of the ``count`` highest scores of its target ``[E]``; of equal ones the first.

    Args:
        count: one for all targets, or for each edge that of its target ``[E]``.
    """
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(target[order], stable=True)]
    run = target[order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(run, run)
    most = count[order] if isinstance(count, Tensor) else count
    return torch.zeros_like(target, dtype=torch.bool).index_copy(0, order, rank < most)


def within_reach(sizes: Tensor, past: int, future: int) -> Tensor:
    """Edges to each utterance from itself and those up to ``past`` before and ``future`` after it in its dialogue.

    Shapes:
        - sizes :math:`(G)` of dialogues that lie end to end; output :math:`(2, E)`, sorted by target, then by source
    """
    place, end = torch.arange(int(sizes.sum())), torch.repeat_interleave(sizes.cumsum(0), sizes)
    begin = end - torch.repeat_interleave(sizes, sizes)
    first, last = torch.maximum(place - past, begin), torch.minimum(place + future, end - 1)
    counts = last - first + 1
    target = torch.repeat_interleave(place, counts)
    source = torch.arange(len(target)) - torch.repeat_interleave(counts.cumsum(0) - counts - first, counts)
    return torch.stack([source, target])
