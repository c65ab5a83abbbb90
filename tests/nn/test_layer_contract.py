"""What every registered layer promises to the streams that call it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gmsa.nn import DenseEdges, SparseEdges
from gmsa.registry import LAYERS

EDGES = [(0, 0), (1, 0), (2, 0), (0, 1), (4, 3), (3, 4), (4, 4)]
"""Source and receiver in two graphs of three nodes, sorted by receiver; nodes 2 and 5 receive nothing."""
RECEIVERS = torch.tensor([0, 3])
"""The first node of each graph."""

Layer = Callable[..., Tensor]
every_layer = pytest.mark.parametrize("name", sorted(LAYERS))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    layer: nn.Module = LAYERS[name](channels=8, heads=2, edge_types=0)
    return layer.double().eval()


def states() -> Tensor:
    return torch.randn(6, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def edges(
    route: str, receivers: Tensor | None = None, chosen: list[tuple[int, int]] = EDGES
) -> SparseEdges | DenseEdges:
    """The edges to all nodes, or to receivers alone, numbered in their order."""
    numbers = list(range(6)) if receivers is None else receivers.tolist()
    kept = [(source, numbers.index(target)) for source, target in chosen if target in numbers]
    if route == "edge":
        return SparseEdges(torch.tensor(kept, dtype=torch.long).view(-1, 2).T)
    rows = len(numbers) // 2
    adjacency = torch.zeros(2, rows, 3, dtype=torch.bool)
    for source, number in kept:
        adjacency[number // rows, number % rows, source % 3] = True
    return DenseEdges(adjacency, torch.arange(6), torch.arange(len(numbers)))


def routes(name: str) -> list[str]:
    only = getattr(LAYERS[name], "route", None)
    return ["edge", "dense"] if only is None else [only]


@every_layer
def test_shapes_and_gradients(name: str) -> None:
    layer = build(name)
    for route in routes(name):
        x = states().requires_grad_()
        y = layer(x, edges(route))
        assert y.shape == x.shape
        y.square().sum().backward()
        assert torch.isfinite(x.grad).all()
        assert x.grad[[0, 1, 2, 3, 4]].any(dim=1).all(), "a node that sends reaches nothing"


@every_layer
def test_routes_agree(name: str) -> None:
    layer = build(name)
    found = [layer(states(), edges(route)) for route in routes(name)]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


@every_layer
def test_receivers_get_what_they_get_among_all_nodes(name: str) -> None:
    layer = build(name)
    for route in routes(name):
        among_all = layer(states(), edges(route))[RECEIVERS]
        torch.testing.assert_close(layer(states(), edges(route, RECEIVERS), RECEIVERS), among_all)


@every_layer
def test_messages_follow_the_edges_alone(name: str) -> None:
    """A node's state changes its own row and those of its receivers, and none of another graph."""
    layer = build(name)
    for route in routes(name):
        before = layer(states(), edges(route))
        for node in range(6):
            x = states()
            x[node] += 1
            changed = (layer(x, edges(route)) - before).abs().amax(1) > 1e-9
            assert set(changed.nonzero().flatten().tolist()) <= {node} | {t for s, t in EDGES if s == node}


@every_layer
def test_no_edges_at_all(name: str) -> None:
    layer = build(name)
    for route in routes(name):
        x = states().requires_grad_()
        y = layer(x, edges(route, chosen=[]))
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert x.grad is None or torch.isfinite(x.grad).all()


@every_layer
def test_source_weights_are_taken(name: str) -> None:
    """Zero, the logarithm of one, changes nothing."""
    layer = build(name)
    for route in routes(name):
        weighted = layer(states(), edges(route), source_log_weight=torch.zeros(6, dtype=torch.double))
        torch.testing.assert_close(weighted, layer(states(), edges(route)))
