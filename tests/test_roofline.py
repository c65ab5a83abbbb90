"""The operations of a step, as the benchmark of the roof counts them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gmsa.graph.conv_windows import conv_windows
from gmsa.nn import ConvEncoder, DenseEdges, Interaction, SparseEdges, StreamLayer
from gmsa.nn.layers.size_groups import fill_lanes, group_by_size
from gmsa.nn.streams.fused import can_fuse

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


@pytest.mark.parametrize("receivers", [0, 2])
def test_a_fused_layer_by_hand(roofline, receivers: int) -> None:
    """Each product of the layer has two for its gradients. Few receivers ask among the states of their graph: for each
    head a row of scores and a sum, of C channels and all nodes, which are padded."""
    channels, heads, padded = 32, 4, fill_lanes(T)
    layer, firsts = StreamLayer(channels, heads), receivers or T
    groups = group_by_size(np.full(G, T), np.full(G, firsts))
    nodes = torch.arange(V)
    chosen = (nodes.view(G, T)[:, :firsts]).flatten()
    count = roofline.FlopCount()
    edges = DenseEdges(torch.ones(G, firsts, T, dtype=torch.bool), nodes, torch.arange(G * firsts), groups)
    x = torch.randn(V, channels, requires_grad=True)
    assert can_fuse(layer, x, edges, chosen if receivers else None, None)
    with count:
        layer(x, edges, chosen if receivers else None).sum().backward()
    rows = G * firsts
    products = 3 * 2 * (8 + 4) * rows * channels**2  # the feed-forward network's, and four of C x C
    if receivers:
        products += 3 * 2 * 2 * rows * heads * channels * padded
    assert sum(p.flops * n for p, n in count.products.items()) == products
    assert count.attention == (0 if receivers else (2 + 5) * 2 * G * T * padded * channels)


def test_blocks_of_windows_by_hand(roofline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmsa.nn.encoders.BLOCK", 50)
    encoder, count = ConvEncoder(5, C, ((4, 2),)), roofline.FlopCount()
    with count:
        encoder(torch.randn(12, 5), conv_windows(np.array([12]), ((4, 2),))).sum().backward()
    assert count.flops == 2 * (2 * 6 * 4 * 5 * C)  # forward, and the gradient of the weights


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
