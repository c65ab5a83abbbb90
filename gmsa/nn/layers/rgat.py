"""PyG's relational graph attention, without a matrix for every edge."""

# V nodes, W receivers, E edges, R relations, C channels, H heads, P pairs of a relation and a node that sends along it
from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import RGATConv
from torch_geometric.utils import scatter, softmax

from gmsa.nn.attention_weights import SOFTMAX, AttentionWeights
from gmsa.nn.edges import Edges, SparseEdges
from gmsa.nn.layers.pyg import PygLayer, check_bases, weighed, width_of_head
from gmsa.nn.relations import Relations


class RGAT(PygLayer):
    r"""Additive attention in which both ends of an edge are projected by its relation.

    .. math::
        y_i = b + \Big\Vert_h \sum_{j \to i} \alpha^h_{ij} (x_j W_r)^h, \qquad
        \alpha^h_{ij} = \operatorname{softmax}_{j \to i} \mathrm{LeakyReLU} \big( x_i W_r Q^h + x_j W_r K^h \big),
        \qquad r = r(j \to i)

    The softmax is over all edges that end at a node, or ``within`` those of each relation, so that the weights of each
    relation sum to one. PyG's ``RGATConv`` (Busbridge et al.: Relational Graph Attention Networks, 2019), with its
    weights and values. It builds a matrix of C x C numbers for every edge; here each node is projected once for every
    relation along which it sends.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        relations (Relations): The stream's relations.
        attention (str, default "across"): ``across`` all relations, or ``within`` each.
        bases (int, default 0): Matrices of which those of the relations are sums; with 0 each has its own.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`, b for a node without edges

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> edges = SparseEdges(index, relation=torch.zeros(3, dtype=torch.long))
        >>> RGAT(channels=8, heads=2, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        relations: Relations,
        attention: Literal["across", "within"] = "across",
        bases: int = 0,
    ) -> None:
        super().__init__()
        check_bases("rgat", bases)
        width = width_of_head(channels, heads)
        mechanism = f"{attention}-relation"
        self.conv = RGATConv(channels, width, len(relations), bases or None, heads=heads, attention_mechanism=mechanism)
        # Weights of variants that are not used here, one of them never initialized.
        for name in ("w", "l1", "b1", "l2", "b2"):
            delattr(self.conv, name)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        conv, (begin, end), relation = self.conv, edges.index, edges.relation
        assert relation is not None
        weight = self._weight()  # [R, C, C]
        alpha = self._alpha(source, target, edges, weight)
        used = torch.zeros(len(weight) * len(source), dtype=torch.bool, device=source.device)
        used[relation * len(source) + begin] = True
        row = (used.cumsum(0) - 1)[relation * len(source) + begin]  # [E]
        sends = used.view(len(weight), -1)
        nodes = sends.nonzero()[:, 1].split(sends.sum(1).tolist())
        projected = torch.cat([source.index_select(0, n) @ w for n, w in zip(nodes, weight, strict=True)])  # [P, C]
        values = projected.unflatten(1, (conv.heads, -1)).index_select(0, row) * alpha[:, :, None].to(projected.dtype)
        found: Tensor = scatter(values.flatten(1), end, 0, len(target), "sum") + conv.bias
        return found

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
        target = x if receivers is None else x.index_select(0, receivers)
        alpha = self._alpha(weighed(x, source_log_weight), target, edges, self._weight())
        within = self.conv.attention_mechanism == "within-relation"
        meaning = "softmax over the edges of each relation to each node" if within else SOFTMAX
        return AttentionWeights.along(edges, receivers, alpha, meaning)

    def _alpha(self, source: Tensor, target: Tensor, edges: SparseEdges, weight: Tensor) -> Tensor:
        """The attention of every edge ``[E, H]``, by the matrices of the relations ``[R, C, C]``."""
        conv, (begin, end), relation = self.conv, edges.index, edges.relation
        assert relation is not None
        # The score of each end needs H numbers a relation, not C.
        of_target = torch.einsum("wc,rch->rwh", target, weight @ conv.q)[relation, end]  # [E, H]
        of_source = torch.einsum("vc,rch->rvh", source, weight @ conv.k)[relation, begin]
        score = F.leaky_relu(of_target + of_source, conv.negative_slope)
        if conv.attention_mechanism == "within-relation":
            found: Tensor = softmax(score, relation * len(target) + end, num_nodes=len(weight) * len(target))
        else:
            found = softmax(score, end, num_nodes=len(target))
        return found

    def _weight(self) -> Tensor:
        """The matrix of every relation ``[R, C, C]``."""
        conv = self.conv
        if conv.num_bases is None:
            found: Tensor = conv.weight
        else:
            found = torch.einsum("rb,bcd->rcd", conv.att, conv.basis)
        return found
