"""PyG's heterogeneous graph transformer as a layer."""

# V nodes, W receivers, E edges, R relations, C channels, H heads
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn import HGTConv
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.utils import softmax

from gmsa.nn.attention_weights import AttentionWeights
from gmsa.nn.edges import Edges, SparseEdges
from gmsa.nn.layers.pyg import PygLayer, weighed, width_of_head
from gmsa.nn.relations import Relations


class HGTLayer(PygLayer):
    r"""Attention with projections for each type of node and a map for each relation.

    .. math::
        y_i &= \sigma(s_t) \, O_t \, \mathrm{GELU} \Big( \Big\Vert_h \sum_{j \to i} \alpha^h_{ij} \,
            v^h_j M^h_{r(j \to i)} \Big) + (1 - \sigma(s_t)) \, x_i \\
        \alpha^h_{ij} &= \operatorname{softmax}_{j \to i} \frac{p^h_r}{\sqrt{D}} \,
            (k^h_j A^h_r)^\top q^h_i, \qquad r = r(j \to i)

    Query, key and value are linear in the state by the type of the node; t is the type of i. PyG's ``HGTConv`` (Hu et
    al.: Heterogeneous Graph Transformer, WWW 2020) on the graph's typed nodes and edges. Nodes of a type at which no
    relation of the stream ends get zeros.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        relations (Relations): The stream's relations.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index, zeros = torch.tensor([[0, 1, 2], [1, 1, 0]]), torch.zeros(3, dtype=torch.long)
        >>> edges = SparseEdges(index, relation=zeros, node_type=zeros)  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> HGTLayer(channels=8, heads=2, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, heads: int, relations: Relations) -> None:
        super().__init__()
        width_of_head(channels, heads)
        # HGTConv keeps its weights by node type in a ModuleDict, which refuses names that it has for itself, and by
        # relation in a ParameterDict, to which a name from outside may mean something.
        joined = {end for source, _, target in relations.triples for end in (source, target)}
        keys = {t: ModuleDict.to_internal_key(t) for t in relations.node_types if t in joined}
        self.types = {key: relations.node_types.index(t) for t, key in keys.items()}
        self.relations = [(keys[s], str(r), keys[t]) for r, (s, _, t) in enumerate(relations.triples)]
        self.conv = HGTConv(channels, channels, ([*keys.values()], self.relations), heads)

    def forward(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        given = self._given(x, edges, receivers, source_log_weight)
        found = self.conv(given.states, given.edges)
        y = torch.zeros_like(given.x)
        for name, of_type in found.items():
            y = y.index_copy(0, given.rows[name], of_type.to(x.dtype))
        return y[given.first :]

    def attention_weights(
        self,
        x: Tensor,
        edges: Edges,
        receivers: Tensor | None = None,
        source_log_weight: Tensor | None = None,
        **others: Any,
    ) -> AttentionWeights:
        r"""The :math:`\alpha` of every edge, for the arguments of :meth:`forward`."""
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        assert edges.relation is not None
        given = self._given(x, edges, receivers, source_log_weight)
        by_relation = hgt_weights(self.conv, given.states, given.edges)
        order = torch.argsort(edges.relation, stable=True)
        weight = torch.empty_like(by_relation).index_copy(0, order, by_relation)
        return AttentionWeights.along(edges, receivers, weight)

    def _given(self, x: Tensor, edges: Edges, receivers: Tensor | None, source_log_weight: Tensor | None) -> _Given:
        """States and edges by type, as HGTConv takes them."""
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        assert edges.node_type is not None
        assert edges.relation is not None
        node_type, (begin, end) = edges.node_type, edges.index
        first = 0
        if receivers is not None or source_log_weight is not None:
            # HGTConv knows one set of nodes: those that receive are further ones, behind those that send.
            first = len(x)
            target, target_type = (x, node_type) if receivers is None else (x[receivers], node_type[receivers])
            x, node_type = torch.cat([weighed(x, source_log_weight), target]), torch.cat([node_type, target_type])
            end = end + first
        rows, place = {}, torch.empty_like(node_type)
        for name, i in self.types.items():
            rows[name] = (node_type == i).nonzero().squeeze(1)
            place[rows[name]] = torch.arange(len(rows[name]), device=x.device)
        local = torch.stack([place[begin], place[end]])
        states = {name: x.index_select(0, index) for name, index in rows.items()}
        of_relations = {relation: local[:, edges.relation == r] for r, relation in enumerate(self.relations)}
        return _Given(states, of_relations, x, rows, first)


class _Given(NamedTuple):
    """What HGTConv is given."""

    states: dict[str, Tensor]
    edges: dict[tuple[str, str, str], Tensor]
    x: Tensor
    """The states of all nodes, those that receive behind those that send where these differ."""
    rows: dict[str, Tensor]
    """Rows of x of each type."""
    first: int
    """The first row that receives."""


def hgt_weights(conv: HGTConv, states: Mapping[str, Tensor], edges: Mapping[tuple[str, str, str], Tensor]) -> Tensor:
    """The attention of every edge ``[E, H]`` for the arguments of ``HGTConv``, relation after relation."""
    found: list[Tensor] = []

    def keep(_: Any, inputs: Any, __: Tensor) -> None:
        given = inputs[0]
        score = (given["q_i"] * given["k_j"]).sum(-1) * given["edge_attr"] / math.sqrt(given["q_i"].shape[-1])
        found.append(softmax(score, given["index"], num_nodes=given["size_i"]))

    hook = conv.register_message_forward_hook(keep)
    try:
        conv(states, edges)
    finally:
        hook.remove()
    return found[-1]
