"""Interaction, alternating block and modality readout against their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gmsa.nn import (
    AlternatingBlock,
    DenseEdges,
    Interaction,
    ModalityReadout,
    SparseEdges,
    without_sources,
)

ORDERS = ("intra_first", "inter_first", "simultaneous")


@pytest.mark.parametrize("typed", [False, True])
def test_interaction_by_both_routes_is_the_formula(typed: bool) -> None:
    g = torch.Generator().manual_seed(1)
    sizes, heads, width = [4, 1, 6], 2, 3
    count = sum(sizes)
    graph_of = [i for i, n in enumerate(sizes) for _ in range(n)]
    joined = torch.rand(count, count, generator=g) < 0.5
    joined &= torch.tensor([[a == b for b in graph_of] for a in graph_of])
    joined[1] = False  # a node without sources
    kind = torch.randint(0, 3, (count, count), generator=g)
    torch.manual_seed(0)
    layer = Interaction(heads * width, heads, edge_types=3 if typed else 0).double()
    if typed:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(count, heads * width, generator=g, dtype=torch.float64)
    source_log_weight = torch.randn(count, generator=g, dtype=torch.float64)

    place = torch.tensor([6 * i + n for i, size in enumerate(sizes) for n in range(size)])
    adjacency = torch.zeros(18, 18, dtype=torch.uint8)
    adjacency[place[:, None], place] = torch.where(joined, kind + 1, 0).to(torch.uint8)
    blocks = torch.stack([adjacency[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] for i in range(3)])
    target, source = joined.nonzero(as_tuple=True)
    routes = {
        "dense": DenseEdges(blocks if typed else blocks > 0, place, place),
        "edge": SparseEdges(torch.stack([source, target]), kind[target, source] if typed else None),
    }

    def expected(x: Tensor, source_log_weight: Tensor) -> Tensor:
        query, (key, value) = layer.query(x), layer.key_value(x).chunk(2, dim=1)
        rows = []
        for t in range(count):
            parts = [torch.zeros(width, dtype=torch.float64)] * heads
            sources = joined[t].nonzero().flatten().tolist()
            for h in range(heads):
                cut = slice(h * width, (h + 1) * width)
                if sources:
                    scores = [query[t, cut] @ key[s, cut] / width**0.5 + source_log_weight[s] for s in sources]
                    if typed:
                        scores = [score + layer.bias[kind[t, s], h] for score, s in zip(scores, sources, strict=True)]
                    share = torch.softmax(torch.stack(scores), 0)
                    parts[h] = sum(a * value[s, cut] for a, s in zip(share, sources, strict=True))
            rows.append(torch.cat(parts))
        return layer.out(torch.stack(rows))

    def result(function: Any) -> list[Tensor]:
        inputs = x.clone().requires_grad_(), source_log_weight.clone().requires_grad_()
        out = function(*inputs)
        return [out, *torch.autograd.grad(out.sin().sum(), inputs)]

    wanted = result(expected)
    for edges in routes.values():
        for mine, theirs in zip(result(lambda a, b, e=edges: layer(a, e, source_log_weight=b)), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_edges_without_some_sources() -> None:
    excluded = torch.tensor([False, True, False, True])
    adjacency = torch.ones(2, 2, 2, dtype=torch.bool)
    dense = without_sources(DenseEdges(adjacency, torch.arange(4), torch.arange(4)), excluded)
    assert dense.adjacency.tolist() == [[[True, False]] * 2] * 2
    index = torch.tensor([[0, 1, 2, 3], [0, 0, 2, 2]])
    sparse = without_sources(SparseEdges(index, torch.arange(4)), excluded)
    assert sparse.index.tolist() == [[0, 2], [0, 2]]
    assert sparse.edge_type.tolist() == [0, 2]


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_is_its_formula(order: str) -> None:
    torch.manual_seed(0)
    block = AlternatingBlock(8, 2, order=order).double().eval()
    h = torch.randn(5, 8, dtype=torch.float64)
    intra, inter = (SparseEdges(torch.tensor(e)) for e in ([[0, 1, 3], [1, 0, 4]], [[2, 4, 0], [0, 1, 2]]))

    def across(x: Tensor, seen: Tensor) -> Tensor:
        v = block.across(seen, inter)
        z = 1 / (1 + torch.exp(-(torch.cat([x, v], 1) @ block.gate.weight.T + block.gate.bias)))
        return F.layer_norm(x + z * v, (8,), block.norm.weight, block.norm.bias)

    if order == "inter_first":
        expected = block.within(across(h, h), intra)
    else:
        x = block.within(h, intra)
        expected = across(x, h if order == "simultaneous" else x)
    torch.testing.assert_close(block(h, intra, inter), expected)


def test_a_readout_sees_what_is_present_alone() -> None:
    torch.manual_seed(0)
    read = ModalityReadout(4).double()
    states = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    out = read(states, present)
    for n in range(3):
        there = [m for m in range(3) if present[n, m]]
        scores = [read.score(states[n, m]) for m in there]
        share = torch.softmax(torch.cat(scores), 0) if there else []
        expected = sum((a * states[n, m] for a, m in zip(share, there, strict=True)), torch.zeros(4))
        torch.testing.assert_close(out[n], expected.double())
    (gradient,) = torch.autograd.grad(out.sum(), states)
    assert torch.isfinite(gradient).all()
    assert not gradient[~present].any()
