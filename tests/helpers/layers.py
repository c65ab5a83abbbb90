"""A small graph for layers of message passing, and what tells whether two of them are one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gmsa.models.parts import find_part
from gmsa.nn import DenseEdges, Relations, SparseEdges, make_layer
from gmsa.registry import LAYERS

CHANNELS, HEADS = 8, 2
EDGES = [(0, 0), (1, 0), (2, 0), (0, 1), (4, 3), (3, 4), (4, 4)]
"""Source and receiver in two graphs of three nodes, sorted by receiver; node 2 sends only, node 5 has no edge."""
TYPES = torch.tensor([1, 1, 2, 1, 2, 0])
GRAPHS = torch.tensor([0, 0, 0, 2, 2, 2])
"""Graph 1 has no nodes."""
RECEIVERS = torch.tensor([0, 3])
"""The first node of each graph."""
NODE_TYPES = ("cls", "text", "audio")
UNTYPED = Relations(
    NODE_TYPES,
    (*((s, "intra", t) for s in ("text", "audio") for t in ("text", "audio")), ("text", "intra", "cls")),
)
TYPED = Relations(
    NODE_TYPES,
    (
        *((s, f"intra {time}", t) for s, _, t in UNTYPED.triples[:4] for time in ("past", "present", "future")),
        *UNTYPED.triples[4:],
    ),
)
"""The same with the time of each edge between tokens."""
VARIANTS = {
    "attention": ("attention",),
    "transformer": ("transformer", "transformer(embeddings=false)"),
    "gatv2": ("gatv2", "gatv2(heads=4, embeddings=false)"),
    "rgcn": ("rgcn", "rgcn(bases=2)", "rgcn(fast=true)", "rgcn(bases=2, fast=true)"),
    "rgat": ("rgat", "rgat(attention=within)", "rgat(heads=1, bases=2)", "rgat(attention=within, bases=3)"),
    "sage": ("sage", "sage(aggr=max)", "sage(aggr=sum)"),
    "gcn2": ("gcn2", "gcn2(alpha=0.5, theta=1.5)"),
    "gps": ("gps", "gps(local=gatv2)", "gps(local=attention)"),
}
"""Layers with the parameters that have paths of their own."""

typed_or_not = pytest.mark.parametrize("relations", [TYPED, UNTYPED], ids=["typed", "untyped"])


def variants(*names: str) -> list[str]:
    """Each of these layers with its defaults, and with the parameters that have paths of their own."""
    return [spec for name in names for spec in VARIANTS.get(name, (name,))]


def part(spec: str) -> Any:
    """The class that a setting names, with its parameters."""
    layer, given = find_part(spec, LAYERS, "model.layer")
    return partial(layer, **given)


def build(spec: str, relations: Relations = TYPED, number: int = 2) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"channels": CHANNELS, "heads": HEADS, "edge_types": 0, "number": number}
    layer = make_layer(part(spec), relations=relations, **sizes).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():  # biases start as zeros, and matter as well
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def states(nodes: int = 6) -> Tensor:
    return torch.randn(nodes, CHANNELS, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def relation_of(source: int, target: int, types: Tensor, relations: Relations) -> int:
    """By the types of both ends and, where relations tell it, by what the numbers of the nodes say of time."""
    ends = relations.node_types[types[source]], relations.node_types[types[target]]
    time = f"intra {'past' if source < target else 'present' if source == target else 'future'}"
    return next(i for i, (s, kind, t) in enumerate(relations.triples) if (s, t) == ends and kind in ("intra", time))


def edges(
    route: str,
    receivers: Tensor | None = None,
    chosen: Sequence[tuple[int, int]] = EDGES,
    relations: Relations = TYPED,
) -> SparseEdges | DenseEdges:
    """The edges to all nodes, or to receivers alone, numbered in their order."""
    numbers = list(range(6)) if receivers is None else receivers.tolist()
    if route == "edge":
        return listed(TYPES, GRAPHS, chosen, relations, receivers)
    rows = len(numbers) // 2
    adjacency = torch.zeros(2, rows, 3, dtype=torch.bool)
    for source, number in [(s, numbers.index(t)) for s, t in chosen if t in numbers]:
        adjacency[number // rows, number % rows, source % 3] = True
    return DenseEdges(adjacency, torch.arange(6), torch.arange(len(numbers)))


def listed(
    types: Tensor,
    graphs: Tensor,
    chosen: Sequence[tuple[int, int]],
    relations: Relations = TYPED,
    receivers: Tensor | None = None,
) -> SparseEdges:
    numbers = list(range(len(types))) if receivers is None else receivers.tolist()
    kept = [(s, numbers.index(t), relation_of(s, t, types, relations)) for s, t in chosen if t in numbers]
    source, target, relation = torch.tensor(kept, dtype=torch.long).view(-1, 3).T
    return SparseEdges(torch.stack([source, target]), relation=relation, node_type=types, graph=graphs)


def routes(spec: str) -> list[str]:
    only = getattr(part(spec).func, "route", None)
    return ["edge", "dense"] if only is None else [only]


def sees_graph(spec: str) -> bool:
    return getattr(part(spec).func, "sees_graph", False)


def call(layer: nn.Module, x: Tensor, *rest: Any, **more: Any) -> Tensor:
    """With states before the first layer of the stack that are not x."""
    if getattr(layer, "takes_initial", False):
        more["initial"] = x.flip(1) + 0.5
    found: Tensor = layer(x, *rest, **more)
    return found


def values_and_gradients(layer: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """The output, and the gradients of x and all parameters; zeros where there is none."""
    x, parameters = x.clone().requires_grad_(), [*layer.parameters()]
    y = run(x)
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad((y * weight).sum(), [x, *parameters], allow_unused=True)
    return [
        y.detach(),
        *(torch.zeros_like(p) if g is None else g for p, g in zip([x, *parameters], found, strict=True)),
    ]


def assert_same(layer: nn.Module, x: Tensor, *runs: Callable[[Tensor], Tensor]) -> None:
    """All give the same values and gradients."""
    found = [values_and_gradients(layer, run, x) for run in runs]
    assert all(torch.isfinite(t).all() for t in found[0])
    for one, other in pairwise(found):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


def described(spec: str) -> str:
    """The layer's parameters, and what it gives, to the bit."""
    layer = build(spec)
    y = call(layer, states(), edges(routes(spec)[0]))
    count = sum(p.numel() for p in layer.parameters())
    return f"{spec}: {count} {[*layer.state_dict()]} {y.detach().numpy().tobytes().hex()}"
