"""MTAG's attention: projections by the type of the node, scores by the relation of the edge.

Yang, Wang, Yi, Zhu, Rehman, Zadeh, Poria and Morency: MTAG: Modal-Temporal Attention Graph for Unaligned Human
Multimodal Language Sequences. NAACL 2021, arXiv 2010.11985.
"""

# V nodes, W receivers, E edges, T node types, R relations, C channels, H heads, D = C // H
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import softmax

from gmsa.errors import ConfigError
from gmsa.nn.attention_weights import AttentionWeights, softmax_of
from gmsa.nn.dropout import Dropout
from gmsa.nn.edges import Edges, SparseEdges, highest
from gmsa.nn.layers.edge_attention import by_products, edge_sums
from gmsa.nn.relations import Relations

SLOPE = 0.2
"""Slope of the leaky ReLU below 0."""


class MTAGLayer(MessagePassing):
    r"""Attention with a projection for each type of node and a weight vector for each relation and head.

    .. math::
        y_i = x_i M_{t(i)}, \qquad
        e^k_{ij} = \mathrm{LeakyReLU}_{0.2} \big( a^{r\top}_k y_{jk} + b^{r\top}_k y_{ik} \big), \qquad
        x'_i = \Big\Vert_k \sum_{j \to i} \alpha^k_{ij} y_{jk} + bias, \qquad
        \alpha^k_{ij} = \operatorname{softmax}_{j \to i} e^k_{ij}

    r is the relation of the edge :math:`j \to i`, t(i) the type of node i, and :math:`y_{ik}` the part of head k. The
    softmax is over all edges that end at i, of all relations together; a node without any gets the bias. With the
    builder ``mtag`` a relation is (source modality, target modality, past, present or future).

    MTAG's code takes an edge between modalities for one from the shorter to the longer sequence or back, whichever
    modalities these are; here its relation says the modalities, as the paper does. Sources and edges with weights count
    so many times in the softmax.

    MTAG prunes edges after each layer, for the layers that follow: the model ``mtag`` does that. As the layer of a
    stream, which gives all its layers the same edges, ``keep`` below 1 leaves out of this layer's own sum all but the
    :math:`\lceil keep\, n_i \rceil` of the :math:`n_i` edges that end at node i with the largest mean attention over
    the heads: node by node, so that nothing counts that a node does not hear.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        relations (Relations): The stream's relations.
        dropout (float, default 0.1): Dropout on the attention.
        keep (float, default 1.0): Share of the edges of each node that messages pass.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> zeros = torch.zeros(3, dtype=torch.long)
        >>> edges = SparseEdges(index, relation=zeros, node_type=zeros, graph=zeros)
        >>> MTAGLayer(channels=8, heads=2, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    route = "edge"
    takes_weights = True
    takes_relations = True

    def __init__(
        self, channels: int, heads: int, relations: Relations, dropout: float = 0.1, keep: float = 1.0
    ) -> None:
        super().__init__(aggr="sum", node_dim=0)
        if channels % heads:
            raise ConfigError(f"'model.channels' must be divisible by the heads of mtag (got {channels}, {heads})")
        check_shares(dropout, keep)
        self.heads, self.keep = heads, keep
        self.M = nn.Parameter(torch.empty(len(relations.node_types), channels, channels))
        self.a = nn.Parameter(torch.empty(len(relations), heads, channels // heads))
        self.b = nn.Parameter(torch.empty(len(relations), heads, channels // heads))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.dropout = Dropout(dropout)
        for weight in (self.M, self.a, self.b):
            glorot(weight)

    def forward(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        return self.attend(x, edges, receivers, source_log_weight)[0]

    def attend(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The new states ``[W, C]``, and the attention of every edge and head ``[E, H]``."""
        assert isinstance(edges, SparseEdges), "mtag takes lists of edges"
        assert edges.node_type is not None
        y = self.project(x, edges.node_type, edges.type_counts).unflatten(1, (self.heads, -1))
        of_receivers = y if receivers is None else y.index_select(0, receivers)
        alpha = self.attention(y, of_receivers, edges, source_log_weight)
        weight = self.dropout(alpha)
        if self.keep < 1:
            weight = weight * strongest(alpha, edges.index[1], self.keep)[:, None]
        mixed = self.sums(weight, y, edges, len(of_receivers))
        return (mixed.flatten(1) + self.bias).to(x.dtype), alpha

    def attention_weights(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> AttentionWeights:
        r"""The :math:`\alpha` of every edge, for the arguments of :meth:`forward`; 0 where ``keep`` leaves it out."""
        assert isinstance(edges, SparseEdges), "mtag takes lists of edges"
        _, alpha = self.attend(x, edges, receivers, source_log_weight)
        meaning = softmax_of(edges)
        if self.keep < 1:
            alpha = alpha * strongest(alpha, edges.index[1], self.keep)[:, None]
            meaning += f"; then 0 but for the strongest {100 * self.keep:g} % of these"
        return AttentionWeights.along(edges, receivers, alpha, meaning)

    def sums(self, weight: Tensor, y: Tensor, edges: SparseEdges, receivers: int) -> Tensor:
        """The weighted sum over the edges of each receiver ``[W, H, D]``: on a CPU by a sparse product."""
        if by_products(y, edges.index):
            return edge_sums(weight, y.to(weight.dtype), edges.csr(len(y), receivers, self.heads))
        return self.messages(weight, y, edges.index, receivers)

    def messages(self, weight: Tensor, y: Tensor, index: Tensor, receivers: int) -> Tensor:
        """The same by a message per edge."""
        # propagate_type: (y: Tensor, alpha: Tensor)
        found: Tensor = self.propagate(index, y=(y, None), alpha=weight, size=(len(y), receivers))
        return found

    def project(self, x: Tensor, node_type: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Each node by the matrix of its type ``[V, C]``; ``counts`` nodes of each, where these are known."""
        if counts is None:
            rows = [(node_type == t).nonzero().squeeze(1) for t in range(len(self.M))]
            order = torch.cat(rows)
        else:
            order = torch.argsort(node_type, stable=True)
            rows = order.split(counts)
        parts = [x.index_select(0, row) @ matrix for row, matrix in zip(rows, self.M, strict=True)]
        return torch.cat(parts).index_select(0, torch.argsort(order))

    def attention(
        self, y: Tensor, of_receivers: Tensor, edges: SparseEdges, source_log_weight: Tensor | None
    ) -> Tensor:
        """The softmax over the edges of each receiver ``[E, H]``, in single precision at least."""
        assert edges.relation is not None
        source, target = edges.index
        score = _of_edges(y, self.a, source, edges.relation) + _of_edges(of_receivers, self.b, target, edges.relation)
        score = F.leaky_relu(score, SLOPE).to(torch.promote_types(score.dtype, torch.float32))
        for log_weight in (edges.log_weight, None if source_log_weight is None else source_log_weight[source]):
            if log_weight is not None:
                score = score + log_weight[:, None]
        found: Tensor = softmax(score, target, num_nodes=len(of_receivers))
        return found

    def message(self, y_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha[:, :, None] * y_j  # [E, H, D]


def _of_edges(y: Tensor, weight: Tensor, node: Tensor, relation: Tensor) -> Tensor:
    """The product of an end of each edge with the vectors of its relation ``[E, H]``.

    Of all nodes and relations, and then those of the edges: a node has more edges than there are relations.
    """
    every = torch.einsum("vkd,rkd->vrk", y, weight)  # [V, R, H]
    return every.flatten(0, 1).index_select(0, node * len(weight) + relation)


def strongest(alpha: Tensor, group: Tensor, keep: float) -> Tensor:
    r"""Which edges stay: :math:`\lceil keep\, n_g \rceil` of the :math:`n_g` of each group g, bool ``[E]``.

    Those of the largest mean attention over the heads ``alpha`` ``[E, H]``; of equal ones the first.
    """
    run, group = group.sort().values, group.contiguous()
    sizes = torch.searchsorted(run, group, right=True) - torch.searchsorted(run, group)
    counts = torch.ceil(keep * sizes - 1e-9).long()  # 0.1 * 30 is more than 3
    return highest(alpha.detach().mean(1), group, counts)


def check_shares(dropout: float, keep: float) -> None:
    """Refuses shares that are none.

    Raises:
        ConfigError: names the parameter.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"'dropout' of mtag must be at least 0 and below 1 (got {dropout})")
    if not 0 < keep <= 1:
        raise ConfigError(f"'keep' of mtag must be above 0 and at most 1 (got {keep})")
