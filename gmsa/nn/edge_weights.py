"""Weights of the edges between the utterances of a dialogue, from the states of their nodes."""

# V nodes, E edges, C channels, M modalities
from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.nn.edges import Edges, SparseEdges, highest


class LearnedChoice(nn.Module):
    r"""Keeps, of the other utterances that a node hears, those of the highest learned score.

    .. math::
        s_{ij} = \frac{(W_q x_i)^\top W_k x_j}{\sqrt{R}} + b_{t(j \to i)}, \qquad
        w_{ij} = \begin{cases}
            \sigma(s_{ij}) & j\ \text{among the}\ k\ \text{highest of}\ i \\ 0 & \text{else} \end{cases}

    :math:`W_q` and :math:`W_k` are of R rows, and b is a bias per edge type. An edge counts :math:`w_{ij}` times in the
    softmax of the layers, so that their gradient reaches the scores of the edges that are kept. Of equal scores the
    first edge is kept. All other edges, such as that of a node to itself, stay as they are. Our design.

    Args:
        channels (int): Width C.
        edge_types (int): Types of the edges between nodes of one modality; edges of higher types are not looked at.
        neighbors (int): Edges k that each node keeps.
        rank (int, default 16): R.

    Shapes:
        - x :math:`(V, C)`, :class:`~gmsa.nn.SparseEdges` with types; output: the edges that are kept

    Example:
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [0, 0, 0]]), torch.tensor([1, 2, 2]))  # all end at node 0
        >>> LearnedChoice(channels=8, edge_types=3, neighbors=1)(torch.randn(3, 8), edges).index.shape
        torch.Size([2, 2])
    """

    def __init__(self, channels: int, edge_types: int, neighbors: int, rank: int = 16) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.query = nn.Linear(channels, rank, bias=False)
        self.key = nn.Linear(channels, rank, bias=False)
        self.bias = nn.Parameter(torch.zeros(edge_types))

    def forward(self, x: Tensor, edges: Edges) -> SparseEdges:
        edges, edge_type = _typed(edges)
        source, target = edges.index
        is_judged = (edge_type < len(self.bias)) & (source != target)
        judged = is_judged.nonzero().squeeze(1)
        with torch.autocast(x.device.type, enabled=False):
            x = _exact(x)
            query = self.query(x).index_select(0, target[judged])
            key = self.key(x).index_select(0, source[judged])
            score = (query * key).sum(1) / math.sqrt(query.shape[1]) + self.bias[edge_type[judged]]
        kept = highest(score.detach(), target[judged], self.neighbors)
        log_weight = score.new_zeros(len(source)).index_copy(0, judged, F.logsigmoid(score))
        return edges.weighed(log_weight).where((~is_judged).index_copy(0, judged, kept))


class AngularWeights(nn.Module):
    r"""Weighs edges by the angle between the states of their ends.

    .. math::
        a_{ij} = 1 - \frac{1}{\pi} \arccos \Big( \kappa \frac{x_i^\top x_j}{\|x_i\| \|x_j\|} \Big), \qquad
        \kappa = 0.99999

    Hu et al.: MMGCN, ACL 2021. :math:`\kappa` keeps the slope of the arc cosine finite, so that an edge of a node to
    itself weighs 0.998576; a norm is at least 1e-6 (our choice: there a zero state has no angle). MMGCN multiplies a
    message with :math:`a_{ij}`, degrees normalized; in attention an edge counts :math:`a_{ij}` times in the softmax.

    Args:
        edge_types (int): Types of the edges that are weighed; those of higher types weigh 1.

    Shapes:
        - x :math:`(V, C)`, :class:`~gmsa.nn.SparseEdges` with types; output: the same edges with weights

    Example:
        >>> edges = SparseEdges(torch.tensor([[0, 1], [0, 0]]), torch.tensor([1, 0]))
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> AngularWeights(edge_types=3)(x, edges).log_weight.exp()
        tensor([0.9986, 0.5000])
    """

    KAPPA = 0.99999

    def __init__(self, edge_types: int) -> None:
        super().__init__()
        self.edge_types = edge_types

    def forward(self, x: Tensor, edges: Edges) -> SparseEdges:
        edges, edge_type = _typed(edges)
        source, target = edges.index
        with torch.autocast(x.device.type, enabled=False):
            unit = F.normalize(_exact(x), dim=1, eps=1e-6)
            cosine = (unit.index_select(0, source) * unit.index_select(0, target)).sum(1)
            weight = 1 - torch.arccos(self.KAPPA * cosine) / math.pi
        return edges.weighed(weight.log().masked_fill(edge_type >= self.edge_types, 0))


def _typed(edges: Edges) -> tuple[SparseEdges, Tensor]:
    assert isinstance(edges, SparseEdges), "edges that are chosen or weighed are lists"
    return edges, cast(Tensor, edges.edge_type)


def _exact(x: Tensor) -> Tensor:
    """In single precision at least: a score decides which edges stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
