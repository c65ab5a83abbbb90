"""Masked attention over the edges of a graph, by two routes."""

# G graphs of up to T nodes, R of them receivers; V nodes, W receivers and E edges of all graphs;
# C channels, H heads, D = C // H, K edge types
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from gmsa.nn.attention_weights import AttentionWeights, softmax_of
from gmsa.nn.edges import DenseEdges, Edges, SparseEdges
from gmsa.nn.layers.edge_attention import by_products, edge_attention


class Interaction(MessagePassing):
    r"""Multi-head attention in which a node attends to the sources of its incoming edges.

    .. math::
        y_i = W_o \Big\Vert_{h} \sum_{j \to i} \alpha^h_{ij} W^h_v x_j + b_o, \qquad
        \alpha^h_{ij} = \operatorname{softmax}_{j \to i} \Big(
            \frac{(W^h_q x_i)^\top W^h_k x_j}{\sqrt{D}} + \beta^h_{t(j \to i)} \Big)

    Semi-IIN, masked attention: the mask is the graph. :math:`\beta` is a learned bias per edge type
    (past, present and future of each relation; after MTAG) where edges are typed; the last type, which touches
    readout nodes, has none. The ``source_log_weight`` of a source is added to its scores: with
    :math:`\log s` it counts s times. So is the ``log_weight`` of an edge: an edge of weight a counts a times in the
    softmax of its target. A node without incoming edges gets :math:`b_o` (the softmax over nothing is
    zero), with zero gradient to the attention.

    The *dense* route calls ``scaled_dot_product_attention`` on padded graphs and costs :math:`O(G T^2 C)` whatever
    the number of edges. The *edge* route costs :math:`O(E C)`: on a CPU by sparse products, elsewhere by passing a
    message per edge, as PyG does. All agree in value and gradient.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        edge_types (int, default 0): Edge types with a learned bias; 0 where edges are not typed.

    Shapes:
        - x :math:`(V, C)`; receivers :math:`(W)` the nodes that receive, all of them by default;
          source_log_weight :math:`(V)`; output :math:`(W, C)`
        - edges: :class:`~gmsa.nn.DenseEdges` or :class:`~gmsa.nn.SparseEdges`

    Example:
        >>> import torch
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> Interaction(channels=8, heads=2)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    takes_weights = True

    def __init__(self, channels: int, heads: int, edge_types: int = 0) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros(edge_types, heads)) if edge_types else None

    def forward(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        if isinstance(edges, DenseEdges):
            if receivers is None:  # one product for all three, which are then padded as one
                weight = torch.cat([self.query.weight, self.key_value.weight])
                projected = [F.linear(x, weight, torch.cat([self.query.bias, self.key_value.bias]))]
            else:
                projected = [self.query(x.index_select(0, receivers)), self.key_value(x)]
            return self.out(self._dense(projected, edges, source_log_weight))
        query = self._split(self.query(x if receivers is None else x.index_select(0, receivers)))
        key, value = self._split(self.key_value(x)).chunk(2, dim=1)
        return self.out(self._sparse(query, key, value, edges, source_log_weight).flatten(1))

    def attention_weights(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> AttentionWeights:
        r"""The :math:`\alpha` of every edge, for the arguments of :meth:`forward`: neither route keeps it."""
        if isinstance(edges, SparseEdges):
            (source, target), edge_type = edges.index, edges.edge_type
        else:
            graphs, rows, columns = edges.adjacency.shape
            there = torch.zeros(graphs * rows, dtype=torch.bool, device=x.device).index_fill(
                0, edges.target_index, True
            )
            joined = edges.adjacency.bool() & there.view(graphs, rows, 1)  # rows that pad may be joined with all
            graph, row, column = joined.nonzero(as_tuple=True)
            source = torch.searchsorted(edges.source_index, graph * columns + column)
            target = torch.searchsorted(edges.target_index, graph * rows + row)
            edge_type = edges.adjacency[graph, row, column].long() - 1 if edges.is_typed else None
        query = self._split(self.query(x if receivers is None else x.index_select(0, receivers)))
        key, _ = self._split(self.key_value(x)).chunk(2, dim=1)
        score = (query[target] * key[source]).sum(-1) / math.sqrt(query.shape[-1])
        if self.bias is not None and edge_type is not None:
            score = score + F.pad(self.bias, (0, 0, 0, 1))[edge_type]
        if source_log_weight is not None:
            score = score + source_log_weight[source][:, None]
        if isinstance(edges, SparseEdges) and edges.log_weight is not None:
            score = score + edges.log_weight[:, None]
        weight = softmax(score.double(), target, num_nodes=len(query))
        return AttentionWeights(source, target if receivers is None else receivers[target], weight, softmax_of(edges))

    def _split(self, x: Tensor) -> Tensor:
        """``[N, m C]`` to ``[N, m H, D]``."""
        return x.unflatten(1, (-1, self.query.out_features // self.heads))

    def _sparse(
        self, query: Tensor, key: Tensor, value: Tensor, edges: SparseEdges, source_log_weight: Tensor | None
    ) -> Tensor:
        bias = None if self.bias is None or edges.edge_type is None else F.pad(self.bias, (0, 0, 0, 1))[edges.edge_type]
        of_sources = None if source_log_weight is None else source_log_weight.index_select(0, edges.index[0])
        for weight in (of_sources, edges.log_weight):
            if weight is not None:
                every_head = weight[:, None].expand(-1, self.heads)
                bias = every_head if bias is None else bias + every_head
        if by_products(query, edges.index):
            return edge_attention(query, key, value, edges.csr(len(key), len(query), self.heads), bias)
        return self.messages(query, key, value, edges.index, bias)

    def messages(self, query: Tensor, key: Tensor, value: Tensor, index: Tensor, bias: Tensor | None = None) -> Tensor:
        """The edge route by a message per edge: query [W, H, D], key and value [V, H, D], bias [E, H]."""
        pairs = {"query": (None, query), "key": (key, None), "value": (value, None)}
        mixed: Tensor = self.propagate(index, **pairs, bias=bias, size=(len(key), len(query)))
        return mixed

    def message(
        self, query_i: Tensor, key_j: Tensor, value_j: Tensor, bias: Tensor | None, index: Tensor, size_i: int
    ) -> Tensor:
        score = (query_i * key_j).sum(-1) / math.sqrt(query_i.shape[-1])  # [E, H]
        if bias is not None:
            score = score + bias
        return softmax(score, index, num_nodes=size_i)[:, :, None] * value_j  # [E, H, D]

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        """Leaves ``propagate`` as it is: PyG would parse this class's source anew for every instance, about 10 ms."""

    def _dense(self, projected: Sequence[Tensor], edges: DenseEdges, source_log_weight: Tensor | None) -> Tensor:
        """The dense route: projected are queries ``[W, C]`` and what goes with nodes, ``[V, 2 C]``, or all in one."""
        kind = projected[0].dtype
        if projected[0].device.type == "cpu" and kind == torch.bfloat16:
            # torch calls its products for each graph and head: so small, they take longer in half precision.
            with torch.autocast("cpu", enabled=False):
                mixed = self._dense([part.float() for part in projected], edges, source_log_weight)
            return mixed.to(kind)
        adjacencies, source_index, target_index = edges.padded()
        rows, nodes = ([a.shape[0] * a.shape[axis] for a in adjacencies] for axis in (1, 2))
        *queries, of_nodes = projected
        parts = [_lay_out(query, target_index, rows) for query in queries] + [_lay_out(of_nodes, source_index, nodes)]
        weights: Sequence[Tensor | None] = [None] * len(adjacencies)
        if source_log_weight is not None:
            weights = _lay_out(source_log_weight.to(kind), source_index, nodes)
        joined = [adjacency.bool() for adjacency in adjacencies]
        # A row without edges may look everywhere and is then multiplied by zero: no NaN in its gradient.
        receives = [mask.any(-1, keepdim=True) for mask in joined]  # [G, R, 1]
        masks = [(mask | ~there)[:, None] for mask, there in zip(joined, receives, strict=True)]
        states = [self._attend(*part) for part in zip(masks, adjacencies, weights, *parts, strict=True)]
        there = _join([part.view(-1, 1) for part in receives])
        mixed = _join(states)
        if len(states) == 1 and _is_full(target_index, rows[0]):
            return mixed * there
        return mixed.index_select(0, target_index).mul_(there.index_select(0, target_index))

    def _attend(self, mask: Tensor, adjacency: Tensor, log_weight: Tensor | None, *parts: Tensor) -> Tensor:
        """Attention in padded graphs ``[G R, C]`` where the mask is true ``[G, 1, R, T]``."""
        graphs, receivers, nodes = adjacency.shape
        *queries, of_nodes = parts
        states = [query.view(graphs, receivers, self.heads, -1) for query in queries]
        states += of_nodes.view(graphs, nodes, 3 - len(queries), self.heads, -1).unbind(2)
        query, key, value = (state.transpose(1, 2) for state in states)
        query = query[:, :, :receivers]  # where it lies beside the nodes, which may be padded further
        if self.bias is not None and adjacency.dtype != torch.bool:
            bias = F.pad(self.bias, (0, 0, 1, 1))[adjacency.long()]  # no edge and the last type: no bias
            mask = bias.permute(0, 3, 1, 2).masked_fill(~mask, float("-inf")).to(query.dtype)
        if log_weight is not None:
            weight = log_weight.view(graphs, 1, 1, nodes)
            mask = weight.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else mask + weight
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def _lay_out(x: Tensor, index: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Rows of x ``[N, ...]`` at an index among those of parts of these sizes, zeros elsewhere."""
    if len(sizes) == 1:
        return [_pad(x, index, sizes[0])]
    return x.new_zeros(sum(sizes), *x.shape[1:]).index_copy_(0, index, x).split(sizes)


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def _pad(x: Tensor, index: Tensor, size: int) -> Tensor:
    """Rows of x ``[N, ...]`` at an ascending index among ``size`` rows, zeros elsewhere."""
    if _is_full(x, size):
        return x
    return x.new_zeros(size, *x.shape[1:]).index_copy_(0, index, x)


def _is_full(x: Tensor, size: int) -> bool:
    """Whether there are ``size`` rows, so that none pads; an exported program, which serves any sizes, asks not."""
    return not torch.compiler.is_exporting() and len(x) == size
