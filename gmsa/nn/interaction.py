"""Masked attention over the edges of a graph, by two routes."""

# B utterances, T nodes each, R of them receivers, E edges, C channels, H heads, D = C // H
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from gmsa.ops import segment_softmax, segment_sum


class Interaction(MessagePassing):
    r"""Multi-head attention in which a node attends to the sources of its incoming edges.

    .. math::
        y_i = W_o \Big\Vert_{h} \sum_{j \to i} \alpha^h_{ij} W^h_v x_j + b_o, \qquad
        \alpha^h_{ij} = \operatorname{softmax}_{j \to i} \frac{(W^h_q x_i)^\top W^h_k x_j}{\sqrt{D}}

    Semi-IIN, masked attention: the mask is the graph. A node without incoming edges gets :math:`b_o`
    (the softmax over nothing is zero), with zero gradient to the attention.

    The *edge* route passes one message per edge and costs :math:`O(E C)`; the *dense* route calls
    ``scaled_dot_product_attention`` and costs :math:`O(B T^2 C)` whatever the number of edges. They agree
    in value and gradient.

    Only the first R nodes of each utterance receive where ``receivers`` = R is given: the last layer of a
    model is read at its readout nodes alone.

    Shapes:
        - x :math:`(B, T, C)`; output :math:`(B, R, C)`, R = T by default
        - edges: ``edge_index`` :math:`(2, E)` from the flattened nodes :math:`b T + t` to the flattened
          receivers :math:`b R + r` (edge route), or a boolean adjacency :math:`(B, R, T)`, row receives
          from column (dense route); no duplicates
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(node_dim=0)
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, edges: Tensor, receivers: int | None = None) -> Tensor:
        query = self.query(x[:, :receivers]).unflatten(-1, (self.heads, -1))  # [B, R, H, D]
        key, value = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)  # [B, T, H, D]
        if edges.dtype == torch.bool:
            mixed = self._dense(query, key, value, edges)
        else:
            flat = (None, query.flatten(0, 1)), (key.flatten(0, 1), None), (value.flatten(0, 1), None)
            size = (len(flat[1][0]), len(flat[0][1]))
            mixed = self.propagate(edges, query=flat[0], key=flat[1], value=flat[2], size=size).view_as(query)
        return self.out(mixed.flatten(2))

    def message(self, query_i: Tensor, key_j: Tensor, value_j: Tensor, index: Tensor, size_i: int) -> Tensor:
        score = (query_i * key_j).sum(-1) / math.sqrt(query_i.shape[-1])  # [E, H]
        return segment_softmax(score, index, size_i)[:, :, None] * value_j  # [E, H, D]

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return segment_sum(inputs, index, dim_size)

    @staticmethod
    def _dense(query: Tensor, key: Tensor, value: Tensor, adjacency: Tensor) -> Tensor:
        # A row without edges may look everywhere and is then multiplied by zero: no NaN in its gradient.
        receives = adjacency.any(-1, keepdim=True)  # [B, R, 1]
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=(adjacency | ~receives)[:, None],
        )
        return mixed.transpose(1, 2) * receives[..., None]
