"""Streams: stacks of interaction layers over the same edges."""

# V nodes, W of them receivers, C channels
from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from gmsa.nn.dropout import Dropout
from gmsa.nn.edges import DenseEdges, Edges
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.layers.make import make_layer
from gmsa.nn.relations import Relations
from gmsa.nn.streams.fused import can_fuse, fused_layer


class StreamLayer(nn.Module):
    r"""One interaction layer.

    .. math::
        X = \mathrm{LN}(Z), \qquad Y = \mathrm{MaskedAttention}(X) + X, \qquad
        Z' = \mathrm{FFN}(\mathrm{LN}(Y)) + \mathrm{LN}(Y)

    with :math:`\mathrm{FFN}(y) = \mathrm{ReLU}(y W_1 + b_1) W_2 + b_2` over 4 C channels. The residuals start after the
    norms, not before them (Semi-IIN, section "Masked attention").

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        dropout (float, default 0.0): Dropout after attention and feed-forward.
        edge_types (int, default 0): Edge types with a learned bias; 0 where edges are not typed.
        layer (Callable, default Interaction): Constructor of the layer that passes messages.
        relations (Relations, optional): The relations of the edges, for a layer that has weights for each.
        number (int, default 1): Number of the layer in its stack, from 1.

    Shapes:
        - z :math:`(V, C)`, edges, receivers :math:`(W)` and source_log_weight :math:`(V)` as
          :class:`~gmsa.nn.Interaction` takes them; output :math:`(W, C)`, W = V by default
        - initial :math:`(V, C)`, the states before the first layer of the stack, for a layer that asks for them
          (``takes_initial``); by default z

    Example:
        >>> import torch
        >>> from gmsa.nn import SparseEdges
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> StreamLayer(channels=8, heads=2)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dropout: float = 0.0,
        edge_types: int = 0,
        layer: Callable[..., nn.Module] = Interaction,
        relations: Relations | None = None,
        number: int = 1,
    ) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(channels)
        self.attention = make_layer(
            layer, channels=channels, heads=heads, edge_types=edge_types, relations=relations, number=number
        )
        self.norm_mid = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.ReLU(inplace=True), nn.Linear(4 * channels, channels)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        z: Tensor,
        edges: Edges,
        receivers: Tensor | None = None,
        source_log_weight: Tensor | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        if can_fuse(self, z, edges, receivers, source_log_weight):
            return fused_layer(self, z, cast(DenseEdges, edges), receivers)
        x = self.norm_in(z)
        received = self.dropout(call_layer(self.attention, x, edges, receivers, source_log_weight, initial))
        y = self.norm_mid(received + (x if receivers is None else x.index_select(0, receivers)))
        return self.dropout(self.ffn(y)) + y


def call_layer(
    layer: nn.Module,
    x: Tensor,
    edges: Edges,
    receivers: Tensor | None = None,
    source_log_weight: Tensor | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """Calls a layer, with the states before the first layer of its stack (by default x) where it asks for them."""
    if getattr(layer, "takes_initial", False):
        found: Tensor = layer(x, edges, receivers, source_log_weight, initial=x if initial is None else initial)
    else:
        found = layer(x, edges, receivers, source_log_weight)
    return found


class Stream(nn.Module):
    r"""``layers`` interaction layers over the same edges: :math:`Z^l = \mathrm{StreamLayer}(Z^{l-1})`, l = 1 ... n.

    With ``shared``, one set of weights for all of them (Semi-IIN). The last layer computes only the nodes that are
    read.

    Args:
        channels (int): Width C.
        heads (int): Attention heads; must divide ``channels``.
        layers (int): Number of layers.
        shared (bool, default True): One set of weights for all layers.
        dropout (float, default 0.0): Dropout after attention and feed-forward.
        edge_types (int, default 0): Edge types with a learned bias; 0 where edges are not typed.
        layer (Callable, default Interaction): Constructor of the layer that passes messages.
        relations (Relations, optional): The relations of the edges, for a layer that has weights for each.

    Shapes:
        - z :math:`(V, C)`, readouts :math:`(W)` the nodes that are read; output :math:`(W, C)`, or of all nodes
          :math:`(V, C)` where ``readouts`` is None
        - edges among all nodes, and edges to the readout nodes, as :class:`~gmsa.nn.Interaction` takes them

    Example:
        >>> import torch
        >>> from gmsa.nn import SparseEdges
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> Stream(channels=8, heads=2, layers=3)(torch.randn(3, 8), edges).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        layers: int,
        shared: bool = True,
        dropout: float = 0.0,
        edge_types: int = 0,
        layer: Callable[..., nn.Module] = Interaction,
        relations: Relations | None = None,
    ) -> None:
        super().__init__()
        self.repeats = layers if shared else 1
        count = 1 if shared else layers
        self.layers = nn.ModuleList(
            StreamLayer(channels, heads, dropout, edge_types, layer, relations, number + 1) for number in range(count)
        )

    def forward(
        self, z: Tensor, edges: Edges, readout_edges: Edges | None = None, readouts: Tensor | None = None
    ) -> Tensor:
        return self.both(z, edges, readout_edges, readouts)[1]

    def both(
        self, z: Tensor, edges: Edges, readout_edges: Edges | None = None, readouts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The states of all nodes before the last layer ``[V, C]``, and what :meth:`forward` gives."""
        *inner, last = [layer for layer in self.layers for _ in range(self.repeats)]
        initial = z
        for layer in inner:
            z = layer(z, edges, initial=initial)
        if readouts is not None and not getattr(last.attention, "takes_receivers", True):
            return z, last(z, edges, initial=initial).index_select(0, readouts)
        return z, last(z, edges if readout_edges is None else readout_edges, readouts, initial=initial)
