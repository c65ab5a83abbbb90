"""Streams side by side: one product for the same map of all of them, so that a GPU has half as many kernels."""

# S streams; V nodes, W of them receivers; G graphs of up to T nodes, R of them receivers; C channels, H heads
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.nn.edges import DenseEdges, Edges, NodePairs, adjacencies
from gmsa.nn.layers.attention import Interaction
from gmsa.nn.streams.stream import Stream, StreamLayer


def can_stack(streams: Sequence[Stream], edges: Sequence[Edges], x: Tensor) -> bool:
    """Whether streams can be computed side by side, and whether it pays.

    They are in training on a GPU, of untyped dense attention. On a CPU the products of one stream are large enough.
    """
    layers = [layer for stream in streams for layer in stream.layers]
    return (
        _pays(x)
        and all(stream.training for stream in streams)  # what watches a layer, such as its attention, does so outside
        and len({len(stream.layers) for stream in streams}) == 1
        and all(type(layer.attention) is Interaction and layer.attention.bias is None for layer in layers)
        and all(isinstance(e, DenseEdges) and not e.is_typed for e in edges)
    )


def _pays(x: Tensor) -> bool:
    return x.device.type != "cpu"


def stacked_streams(
    streams: Sequence[Stream],
    z: Tensor,
    edges: Sequence[DenseEdges],
    readout_edges: Sequence[DenseEdges],
    readouts: Tensor,
) -> Tensor:
    """What :class:`~gmsa.nn.Stream` makes of z ``[V, C]`` for each of the streams: ``[S, W, C]``.

    Args:
        edges: of each stream, among all nodes.
        readout_edges: of each, to the nodes that are read.
        readouts: these nodes ``[W]``.
    """
    depth, repeats = len(streams[0].layers), streams[0].repeats
    layers = [_StackedLayer([stream.layers[i] for stream in streams]) for i in range(depth)]
    *inner, last = [layer for layer in layers for _ in range(repeats)]
    x = z.expand(len(streams), -1, -1)
    if not inner:
        return last(x, adjacencies(readout_edges), readout_edges[0], readouts)
    adjacency = adjacencies(edges)
    for layer in inner:
        x = layer(x, adjacency, edges[0])
    of_readouts = [_first_rows(some.pairs, every.pairs) for some, every in zip(readout_edges, edges, strict=True)]
    if None in of_readouts:
        return last(x, adjacencies(readout_edges), readout_edges[0], readouts)
    return last(x, adjacency[:, :, : of_readouts[0]], readout_edges[0], readouts)


def _first_rows(some: Tensor | NodePairs, every: Tensor | NodePairs) -> int | None:
    """How many of the first receivers of ``every`` are those of ``some``; None where they are not looked up alike."""
    if isinstance(some, NodePairs) and isinstance(every, NodePairs):
        return some.receivers if some.node_type is every.node_type and some.table is every.table else None
    return None


class _StackedLayer:
    """The layers of several streams, whose weights are stacked once for all calls of a step."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        first = layers[0]
        assert isinstance(first, StreamLayer)
        assert isinstance(first.attention, Interaction)
        self.dropout, self.heads = first.dropout, first.attention.heads
        self.layers = layers  # norms are not stacked: a weight of each stream would take a kernel more than each norm
        names = [name for name, _ in first.named_parameters() if not name.startswith("norm")]
        self.weights = {name: torch.stack([layer.get_parameter(name) for layer in layers]) for name in names}

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        norms = [layer.get_submodule(name) for layer in self.layers]
        return torch.stack([norm(part) for norm, part in zip(norms, x.unbind(0), strict=True)])

    def __call__(self, z: Tensor, adjacency: Tensor, edges: DenseEdges, receivers: Tensor | None = None) -> Tensor:
        """The new states ``[S, W, C]`` from z ``[S, V, C]`` and who hears whom ``[S, G, R, T]``."""
        x = self._norm(z, "norm_in")
        of_receivers = x if receivers is None else x.index_select(1, receivers)
        received = self.dropout(self._attend(of_receivers, x, adjacency, edges))
        y = self._norm(received + of_receivers, "norm_mid")
        return self.dropout(self._linear(self._linear(y, "ffn.0").relu(), "ffn.2")) + y

    def _attend(self, of_receivers: Tensor, x: Tensor, adjacency: Tensor, edges: DenseEdges) -> Tensor:
        streams, graphs, rows, nodes = adjacency.shape
        query = _pad(self._linear(of_receivers, "attention.query"), edges.target_index, graphs * rows)
        key_value = _pad(self._linear(x, "attention.key_value"), edges.source_index, graphs * nodes)
        query = query.view(streams * graphs, rows, self.heads, -1)
        key, value = key_value.view(streams * graphs, nodes, 2, self.heads, -1).unbind(2)
        joined = adjacency.flatten(0, 1)
        # A row without edges may look everywhere and is then multiplied by zero: no NaN in its gradient.
        receives = joined.any(-1, keepdim=True)  # [S G, R, 1]
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=(joined | ~receives)[:, None]
        )
        mixed = (mixed.transpose(1, 2) * receives[..., None]).reshape(streams, graphs * rows, -1)
        return self._linear(mixed.index_select(1, edges.target_index), "attention.out")


def _pad(x: Tensor, index: Tensor, size: int) -> Tensor:
    """Rows of x ``[S, N, C]`` at an index among ``size`` rows, zeros elsewhere."""
    return x.new_zeros(x.shape[0], size, x.shape[2]).index_copy(1, index, x)
