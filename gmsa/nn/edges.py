"""The edges along which layers pass messages: an adjacency of padded graphs, or a list."""

# G graphs of up to T nodes, R of them receivers; V nodes, W receivers and E edges of all graphs
from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from gmsa.nn.layers.edge_attention import HeadCsr


@dataclass(frozen=True, eq=False)
class DenseEdges:
    """Edges as an adjacency of graphs that are padded to one size.

    Args:
        adjacency (Tensor): Whether a receiver (row) receives from a node (column), bool ``[G, R, T]``; where edges are
            typed, whole numbers: 0 for no edge, k + 1 for an edge of type k.
        source_index (Tensor): Index ``g T + t`` of every node ``[V]``, ascending.
        target_index (Tensor): Index ``g R + r`` of every receiver ``[W]``, ascending.

    Example:
        >>> import torch
        >>> adjacency = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]]], dtype=torch.bool)  # graphs of 2 and 1 nodes
        >>> nodes = torch.tensor([0, 1, 2])
        >>> DenseEdges(adjacency, nodes, nodes).adjacency.shape
        torch.Size([2, 2, 2])
    """

    adjacency: Tensor
    source_index: Tensor
    target_index: Tensor


@dataclass(frozen=True, eq=False)
class SparseEdges:
    """Edges as a list.

    Args:
        index (Tensor): Source node in [0, V) and receiver in [0, W) of every edge ``[2, E]``, without duplicates,
            sorted by receiver.
        edge_type (Tensor, optional): Type of every edge ``[E]``; None where edges are not typed.

    Example:
        >>> import torch
        >>> SparseEdges(torch.tensor([[1, 0, 1, 2], [0, 1, 1, 2]])).index.shape  # 1 -> 0, 0 -> 1, 1 -> 1, 2 -> 2
        torch.Size([2, 4])
    """

    index: Tensor
    edge_type: Tensor | None = None
    _csr: dict[tuple[int, int, int], HeadCsr] = field(default_factory=dict, init=False, repr=False)

    def csr(self, sources: int, targets: int, heads: int) -> HeadCsr:
        """The list as compressed rows, made once for all layers that share these edges."""
        key = (sources, targets, heads)
        if key not in self._csr:
            self._csr[key] = HeadCsr(self.index, *key)
        return self._csr[key]


Edges = DenseEdges | SparseEdges


def without_sources(edges: Edges, excluded: Tensor) -> Edges:
    """The edges without those that start at an excluded node, bool ``[V]``."""
    if isinstance(edges, DenseEdges):
        graphs, _, nodes = edges.adjacency.shape
        columns = excluded.new_zeros(graphs * nodes).index_copy(0, edges.source_index, excluded).view(graphs, 1, nodes)
        return replace(edges, adjacency=edges.adjacency.masked_fill(columns, 0))
    kept = ~excluded[edges.index[0]]
    return SparseEdges(edges.index[:, kept], None if edges.edge_type is None else edges.edge_type[kept])
