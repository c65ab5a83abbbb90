"""The operations of a step, as the benchmark of the roof counts them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gmsa.nn import ConvEncoder, DenseEdges, Interaction, SparseEdges

# V nodes, G graphs of T nodes, E edges, C channels, H heads, D = C // H
C, H = 8, 2
G, T = 3, 5
V = G * T
HERE = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def roofline(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import roofline

    yield roofline
    for name in ("roofline", "step", "plain", "common"):
        sys.modules.pop(name, None)


def both_ways(module, count, *given):
    """Counts forward and backward."""
    x = torch.randn(V, C, requires_grad=True)
    with count:
        module(x, *given).sum().backward()


def test_attention_by_hand(roofline) -> None:
    """Three maps as one and one back, each with two products for its gradients; in every graph and head two products
    of T x D x T, and five for their gradients."""
    edges = DenseEdges(torch.ones(G, T, T, dtype=torch.bool), torch.arange(V), torch.arange(V))
    count = roofline.FlopCount()
    both_ways(Interaction(C, H), count, edges)
    maps = 3 * (2 * V * C * 3 * C) + 3 * (2 * V * C * C)
    assert sum(p.flops * n for p, n in count.products.items()) == maps
    assert count.attention == (2 + 5) * 2 * G * H * T * T * (C // H)
    assert count.sparse == 0
    assert count.flops == maps + count.attention


def test_sparse_attention_by_hand(roofline) -> None:
    """The edge route: scores and mixing over E edges, and two such products for the gradients of each."""
    source = torch.arange(V - 1)
    count = roofline.FlopCount()
    both_ways(Interaction(C, H), count, SparseEdges(torch.stack([source, source + 1])))
    assert count.attention == 0
    assert count.sparse == (2 + 4) * 2 * (V - 1) * C


def test_a_convolution_by_hand(roofline) -> None:
    """Three offsets; the features get no gradient, so backward is one product."""
    rows = torch.stack([torch.arange(-1, V - 1) % (V + 1), torch.arange(V), torch.arange(1, V + 1)], dim=1)
    steps, count = torch.randn(V, 6), roofline.FlopCount()
    with count:
        ConvEncoder(6, C, [(3, 1)])(steps, [rows]).sum().backward()
    assert count.products == Counter({roofline.Product(V, 6, 3 * C): 1, roofline.Product(6, V, 3 * C): 1})


def test_products_as_torch_counts_them(roofline) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(C, 4 * C), torch.nn.ReLU(), torch.nn.Linear(4 * C, C))
    ours, theirs = roofline.FlopCount(), FlopCounterMode(display=False)
    both_ways(network, ours)
    both_ways(network, theirs)
    assert ours.flops == theirs.get_total_flops() > 0
