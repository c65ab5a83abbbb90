"""PyG's graph attention of the second version, with an embedding of each relation."""

# V nodes, W receivers, E edges, R relations, C channels, H heads
from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from gmsa.errors import ConfigError
from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer, width_of_head
from gmsa.nn.relations import Relations


class GATv2(PygLayer):
    r"""Attention scored by a small network of both ends and the relation between them.

    .. math::
        y_i = b + \Big\Vert_h \sum_{j \to i} \alpha^h_{ij} (W^h_l x_j + b^h_l), \qquad
        \alpha^h_{ij} = \operatorname{softmax}_{j \to i} \, a_h^\top \mathrm{LeakyReLU}
            \big( W^h_r x_i + b^h_r + W^h_l x_j + b^h_l + e^h_{r(j \to i)} \big)

    PyG's ``GATv2Conv`` (Brody, Alon and Yahav: How Attentive are Graph Attention Networks?, ICLR 2022); the embedding
    of a relation is our extension. Whether a node hears itself is for the graph to say: no edge is added.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        relations (Relations): The stream's relations.
        embeddings (bool, default True): Whether relations have embeddings; without, edges of all relations are alike.
        slope (float, default 0.2): Slope of the LeakyReLU below zero.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`, b for a node without edges

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> edges = SparseEdges(index, relation=torch.zeros(3, dtype=torch.long))
        >>> GATv2(channels=8, heads=2, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(
        self, channels: int, heads: int, relations: Relations, embeddings: bool = True, slope: float = 0.2
    ) -> None:
        super().__init__()
        width = width_of_head(channels, heads)
        if not 0 <= slope <= 1:
            raise ConfigError(f"'model.layer: gatv2': 'slope' must be from 0 to 1 (got {slope:g})")
        self.embedding = nn.Embedding(len(relations), channels) if embeddings else None
        # With its own loops it would join source i and receiver i, which are different nodes.
        self.conv = GATv2Conv(
            channels,
            width,
            heads=heads,
            negative_slope=slope,
            add_self_loops=False,
            edge_dim=1 if embeddings else None,
        )
        if embeddings:
            self.conv.lin_edge = nn.Identity()

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        embedded = None if self.embedding is None else self.embedding(edges.relation)
        found: Tensor = self.conv((source, target), edges.index, embedded)
        return found
