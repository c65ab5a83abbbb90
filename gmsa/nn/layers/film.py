"""PyG's convolution with feature-wise linear modulation."""

# V nodes, W receivers, E edges, R relations, C channels
from __future__ import annotations

from torch import Tensor
from torch_geometric.nn import FiLMConv

from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer
from gmsa.nn.relations import Relations


class FiLM(PygLayer):
    r"""A linear map for each relation, scaled and shifted channel by channel as the receiver asks.

    .. math::
        y_i = \mathrm{ReLU}(\gamma_0(x_i) \odot x_i W_0 + \beta_0(x_i)) + \sum_r \frac{1}{|N_r(i)|}
            \sum_{j \in N_r(i)} \mathrm{ReLU}(\gamma_r(x_i) \odot x_j W_r + \beta_r(x_i)), \qquad
        [\beta_r(x), \gamma_r(x)] = x G_r + g_r

    PyG's ``FiLMConv`` (Brockschmidt: GNN-FiLM, ICML 2020), with :math:`g_0 = 0`.

    Args:
        channels (int): Width C.
        relations (Relations): The stream's relations; each has 3 C^2 weights.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> relations = Relations(("text",), (("text", "intra", "text"),))
        >>> index = torch.tensor([[0, 1, 2], [1, 1, 0]])  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> edges = SparseEdges(index, relation=torch.zeros(3, dtype=torch.long))
        >>> FiLM(channels=8, relations=relations)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, relations: Relations) -> None:
        super().__init__()
        self.conv = FiLMConv(channels, channels, len(relations))

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        found: Tensor = self.conv((source, target), edges.index, edges.relation)
        return found
