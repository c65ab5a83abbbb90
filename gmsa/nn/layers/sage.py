"""PyG's GraphSAGE convolution."""

# V nodes, W receivers, E edges, C channels
from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch_geometric.nn import SAGEConv

from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer


class SAGE(PygLayer):
    r"""A linear map of the mean over the sources, beside one of the node itself.

    .. math::
        y_i = W_l \operatorname*{mean}_{j \to i} x_j + b + W_r x_i

    PyG's ``SAGEConv`` (Hamilton, Ying and Leskovec: Inductive Representation Learning on Large Graphs, NeurIPS 2017).
    It knows no relations: the plainest layer, to measure the others against.

    Args:
        channels (int): Width C.
        aggr (str, default "mean"): ``mean``, ``max`` or ``sum`` over the sources.

    Shapes:
        - x :math:`(V, C)`; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> SAGE(channels=8)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    takes_relations = False

    def __init__(self, channels: int, aggr: Literal["mean", "max", "sum"] = "mean") -> None:
        super().__init__()
        self.conv = SAGEConv(channels, channels, aggr=aggr)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        found: Tensor = self.conv((source, target), edges.index)
        return found
