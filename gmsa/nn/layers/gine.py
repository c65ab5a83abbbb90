"""PyG's graph isomorphism layer for edges with features, here an embedding of each relation."""

# V nodes, W receivers, E edges, R relations, C channels
from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer
from gmsa.nn.relations import Relations


class GINE(PygLayer):
    r"""A small network of the sum over the sources, each with the relation of its edge.

    .. math::
        y_i = \mathrm{MLP} \Big( (1 + \epsilon) x_i + \sum_{j \to i} \mathrm{ReLU}(x_j + e_{r(j \to i)}) \Big), \qquad
        \mathrm{MLP}(x) = \mathrm{ReLU}(x W_1 + b_1) W_2 + b_2

    PyG's ``GINEConv`` (Hu et al.: Strategies for Pre-training Graph Neural Networks, ICLR 2020; after Xu et al.: How
    Powerful are Graph Neural Networks?, ICLR 2019). :math:`\epsilon` is learned and starts at 0. A sum grows with the
    number of sources: where nodes have hundreds, another layer trains more easily.

    Args:
        channels (int): Width C.
        relations (Relations): The stream's relations.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> edges = SparseEdges(index, relation=torch.zeros(3, dtype=torch.long))
        >>> GINE(channels=8, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, relations: Relations) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(relations), channels)
        network = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.conv = GINEConv(network, train_eps=True)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        found: Tensor = self.conv((source, target), edges.index, self.embedding(edges.relation))
        return found
