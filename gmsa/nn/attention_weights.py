"""What a layer that pays attention tells of its edges."""

# V nodes, W receivers, E edges, H heads
from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gmsa.nn.edges import SparseEdges

SOFTMAX = "softmax over the edges to each node"


class AttentionWeights(NamedTuple):
    """How much each edge counts at the node where it ends: what ``attention_weights`` of a layer gives.

    Example:
        >>> import torch
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [0, 0, 1]]))  # to two receivers, the nodes 2 and 0
        >>> AttentionWeights.along(edges, torch.tensor([2, 0]), torch.tensor([[0.3], [0.7], [1.0]])).target
        tensor([2, 2, 0])
    """

    source: Tensor
    """Node that each edge starts at ``[E]``."""
    target: Tensor
    """Node that each edge ends at ``[E]``."""
    weight: Tensor
    """``[E, H]``"""
    meaning: str = SOFTMAX
    """What the weights are."""

    @classmethod
    def along(
        cls, edges: SparseEdges, receivers: Tensor | None, weight: Tensor, meaning: str = SOFTMAX
    ) -> AttentionWeights:
        """The weights ``[E, H]`` of a list of edges to all nodes, or to receivers ``[W]``."""
        source, target = edges.index
        return cls(source, target if receivers is None else receivers[target], weight, meaning)


def softmax_of(edges: object) -> str:
    """What the softmax over these edges is, which count their weights where they have some."""
    weighed = isinstance(edges, SparseEdges) and edges.log_weight is not None
    return f"{SOFTMAX}, in which an edge counts as often as its weight says" if weighed else SOFTMAX
