"""PyG's layers behind the face of gmsa's."""

# V nodes, W receivers, E edges, C channels
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from gmsa.errors import ConfigError
from gmsa.nn.attention_weights import AttentionWeights
from gmsa.nn.edges import Edges, SparseEdges


class PygLayer(nn.Module):
    """Base of layers along edges, such as those that wrap one of PyG's: define :meth:`messages`.

    It takes lists of edges, with the relation of each. A source of weight s (``source_log_weight`` is its logarithm)
    sends s times its state: what a layer without weights of edges can do for a source that shall count less.

    Shapes:
        - x :math:`(V, C)`, edges to receivers :math:`(W)`, all nodes by default; output :math:`(W, C)`

    Example:
        >>> import torch
        >>> class Sum(PygLayer):
        ...     def messages(self, source, target, edges):
        ...         begin, end = edges.index
        ...         return torch.zeros_like(target).index_add(0, end, source[begin])
        >>> edges = SparseEdges(torch.tensor([[0, 1, 2], [1, 1, 0]]))  # 0 -> 1, 1 -> 1, 2 -> 0
        >>> Sum()(torch.tensor([[1.0], [2.0], [4.0]]), edges).T
        tensor([[4., 3., 0.]])
    """

    route = "edge"
    takes_relations = True
    takes_receivers = True
    """Whether it can compute some nodes alone, from the edges that end there."""

    def forward(
        self, x: Tensor, edges: Edges, receivers: Tensor | None = None, source_log_weight: Tensor | None = None
    ) -> Tensor:
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        target = x if receivers is None else x.index_select(0, receivers)
        return self.messages(weighed(x, source_log_weight), target, edges).to(x.dtype)

    def messages(self, source: Tensor, target: Tensor, edges: SparseEdges) -> Tensor:
        """The new states ``[W, C]`` from those of all nodes ``[V, C]`` and of the receivers ``[W, C]``."""
        raise NotImplementedError

    def attention_weights(
        self,
        x: Tensor,
        edges: Edges,
        receivers: Tensor | None = None,
        source_log_weight: Tensor | None = None,
        **others: Any,
    ) -> AttentionWeights | None:
        """The attention of every edge, for the arguments of :meth:`forward`; None where the layer pays none.

        What PyG's convolutions call ``alpha`` is found. A layer that attends in another way defines this method.
        """
        assert isinstance(edges, SparseEdges), "layers of PyG take lists of edges"
        weight = message_weights(self, lambda: self(x, edges, receivers, source_log_weight, **others))
        if weight is None or len(weight) != edges.index.shape[1]:
            return None
        return AttentionWeights.along(edges, receivers, weight)


def message_weights(module: nn.Module, call: Callable[[], object]) -> Tensor | None:
    """The attention ``[E, H]`` by which the last convolution of PyG's in a module weighs its messages in a call; None
    where it has none."""
    found: list[Tensor] = []

    def keep(conv: Any, inputs: Any, _: Tensor) -> None:
        weight = inputs[0].get("alpha", getattr(conv, "_alpha", None))
        if weight is not None:
            found.append(weight)

    convs = [part for part in module.modules() if isinstance(part, MessagePassing)]
    hooks = [conv.register_message_forward_hook(keep) for conv in convs]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1].reshape(len(found[-1]), -1) if found else None


def weighed(x: Tensor, source_log_weight: Tensor | None) -> Tensor:
    """What each node sends: its state, times its weight."""
    return x if source_log_weight is None else x * source_log_weight.exp()[:, None].to(x.dtype)


def width_of_head(channels: int, heads: int) -> int:
    """Channels of each head.

    Raises:
        ConfigError: the heads do not divide the channels.
    """
    if heads < 1 or channels % heads:
        raise ConfigError(
            f"'model.channels' must be divisible by the 'heads' of 'model.layer' (got {channels}, {heads})"
        )
    return channels // heads


def check_bases(layer: str, bases: int) -> None:
    """Refuses a number of bases that is negative.

    Raises:
        ConfigError: names the layer.
    """
    if bases < 0:
        raise ConfigError(
            f"'model.layer: {layer}': 'bases' must be 0 (a matrix for each relation) or more (got {bases})"
        )
