"""PyG's relational graph convolution."""

# V nodes, W receivers, E edges, R relations, C channels, B bases
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch_geometric
from torch import Tensor
from torch_geometric.nn import FastRGCNConv, RGCNConv

from gmsa.nn.edges import SparseEdges
from gmsa.nn.layers.pyg import PygLayer, check_bases
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
        fast (bool, default False): Whether a message is multiplied with its own copy of the matrix, by
            ``FastRGCNConv``: the same values, E C^2 numbers in memory; for few edges of very many relations.

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

    def __init__(self, channels: int, relations: Relations, bases: int = 0, fast: bool = False) -> None:
        super().__init__()
        check_bases("rgcn", bases)
        conv = FastRGCNConv if fast else RGCNConv
        self.conv = conv(channels, channels, len(relations), num_bases=bases or None)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        with without_segment_matmul():
            found: Tensor = self.conv((source, target), edges.index, edges.relation)
        return found


@contextmanager
def without_segment_matmul() -> Iterator[None]:
    """Keeps PyG's RGCNConv from ``pyg_lib``, with which its mean is over the edges of all relations together."""
    if torch.compiler.is_compiling():  # compiled, it takes another way
        yield
        return
    before = torch_geometric.backend.use_segment_matmul
    torch_geometric.backend.use_segment_matmul = False
    try:
        yield
    finally:
        torch_geometric.backend.use_segment_matmul = before
