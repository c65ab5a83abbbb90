"""PyG's relational graph convolution."""

# V nodes, W receivers, E edges, R relations, C channels, B bases
from __future__ import annotations

from torch import Tensor
from torch_geometric.nn import RGCNConv

from gmsa.errors import ConfigError
from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer
from gmsa.nn.relations import Relations


class RGCN(PygLayer):
    r"""A linear map for each relation, averaged over its edges.

    .. math::
        y_i = x_i W_{root} + b + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} x_j W_r, \qquad
        W_r = \sum_{k=1}^{B} a_{rk} V_k \quad \text{with bases}

    PyG's ``RGCNConv``, the layer of DialogueGCN, COGMEN and GCNet (Schlichtkrull et al.: Modeling Relational Data with
    Graph Convolutional Networks, ESWC 2018).

    Args:
        channels (int): Width C.
        relations (Relations): The stream's relations.
        bases (int, default 0): Matrices B of which those of the relations are sums; with 0 each has its own.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> edges = SparseEdges(index, relation=torch.zeros(3, dtype=torch.long))
        >>> RGCN(channels=8, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, relations: Relations, bases: int = 0) -> None:
        super().__init__()
        if bases < 0:
            raise ConfigError(f"'bases' of the layer rgcn must be 0 or more (got {bases})")
        self.conv = RGCNConv(channels, channels, len(relations), num_bases=bases or None)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        found: Tensor = self.conv((source, target), edges.index, edges.relation)
        return found
