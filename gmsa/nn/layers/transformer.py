"""PyG's graph transformer, with an embedding of each relation."""

# V nodes, W receivers, E edges, R relations, C channels, H heads
from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import TransformerConv

from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer, width_of_head
from gmsa.nn.relations import Relations


class Transformer(PygLayer):
    r"""Attention whose keys and values know the relation of their edge.

    .. math::
        y_i = W_s x_i + b_s + \Big\Vert_h \sum_{j \to i} \alpha^h_{ij} (W^h_v x_j + b^h_v + e^h_{r(j \to i)}), \qquad
        \alpha^h_{ij} = \operatorname{softmax}_{j \to i}
            \frac{(W^h_q x_i + b^h_q)^\top (W^h_k x_j + b^h_k + e^h_{r(j \to i)})}{\sqrt{D}}

    PyG's ``TransformerConv`` (Shi et al.: Masked Label Prediction, IJCAI 2021), the second stage of COGMEN, which has
    no :math:`e_r`: the embedding of a relation is our extension. PyG's features of edges pass a linear map; an
    embedding needs none.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        relations (Relations): The stream's relations.
        embeddings (bool, default True): Whether relations have embeddings; without, edges of all relations are alike.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> edges = SparseEdges(index, relation=torch.zeros(3, dtype=torch.long))
        >>> Transformer(channels=8, heads=2, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, heads: int, relations: Relations, embeddings: bool = True) -> None:
        super().__init__()
        width = width_of_head(channels, heads)
        self.embedding = nn.Embedding(len(relations), channels) if embeddings else None
        self.conv = TransformerConv(channels, width, heads=heads, edge_dim=1 if embeddings else None)
        if embeddings:
            self.conv.lin_edge = nn.Identity()

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        embedded = None if self.embedding is None else self.embedding(edges.relation)
        found: Tensor = self.conv((source, target), edges.index, embedded)
        return found
