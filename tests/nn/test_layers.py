"""Layers against plain loops, the routes of the interaction layer against each other, and what training is made of."""

from __future__ import annotations

import copy
import dataclasses
import math
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from gmsa.config import from_dict
from gmsa.data import Target
from gmsa.graph.conv_windows import conv_windows
from gmsa.models import build_model
from gmsa.nn import (
    ConvEncoder,
    DenseEdges,
    Dropout,
    Gate,
    Heads,
    Interaction,
    NodePairs,
    SparseEdges,
    Stream,
    build_fusion,
)
from gmsa.nn.layers.edge_attention import HeadCsr, edge_attention
from gmsa.nn.layers.size_groups import group_by_size
from gmsa.rng import hashed_uniform, seed_for
from gmsa.training.batches import training_batches
from gmsa.training.examples import labeled_examples
from gmsa.training.losses import loss
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import autocast, build_optimizer
from gmsa.training.prefetch import BURST, prefetch

ROUTES = ("dense", "grouped", "sparse", "messages")
KINDS = 3
without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Ragged(NamedTuple):
    """Graphs of different sizes, node after node, whose first nodes are also receivers by themselves."""

    sizes: list[int]
    firsts: list[int]
    """How many of each graph's first nodes are receivers."""
    edges: list[tuple[int, int, int]]
    """Graph, target and source within it, by target."""
    kinds: list[int]

    @property
    def starts(self) -> list[int]:
        return [sum(self.sizes[:g]) for g in range(len(self.sizes))]

    def receivers(self) -> Tensor:
        return torch.tensor([v + r for v, n in zip(self.starts, self.firsts, strict=True) for r in range(n)])

    def sources(self, of_receivers: bool) -> dict[int, list[tuple[int, int]]]:
        """Of each receiver (by its number), the source nodes and kinds."""
        count = self.firsts if of_receivers else self.sizes
        rows = [sum(count[:g]) for g in range(len(count))]
        found: dict[int, list[tuple[int, int]]] = {w: [] for w in range(sum(count))}
        for (g, t, s), kind in zip(self.edges, self.kinds, strict=True):
            if t < count[g]:
                found[rows[g] + t].append((self.starts[g] + s, kind))
        return found

    def dense(self, of_receivers: bool, typed: bool) -> DenseEdges:
        count = self.firsts if of_receivers else self.sizes
        adjacency = torch.zeros(len(self.sizes), max(count), max(self.sizes), dtype=torch.uint8)
        for (g, t, s), kind in zip(self.edges, self.kinds, strict=True):
            if t < count[g]:
                adjacency[g, t, s] = kind + 1
        places = [
            torch.tensor([g * max(c) + i for g, n in enumerate(c) for i in range(n)]) for c in (self.sizes, count)
        ]
        return DenseEdges(adjacency if typed else adjacency > 0, *places)

    def sparse(self, of_receivers: bool, typed: bool) -> SparseEdges:
        found = [(s, w, k) for w, parts in self.sources(of_receivers).items() for s, k in parts]
        source, target, kind = torch.tensor(found, dtype=torch.long).view(-1, 3).T
        return SparseEdges(torch.stack([source, target]), kind if typed else None)


def ragged(seed: int, empty: bool = False) -> Ragged:
    """Directed edges of all densities, isolated nodes, and a graph without edges."""
    g = torch.Generator().manual_seed(seed)
    sizes, firsts = [6, 1, 9, 3, 4], [2, 1, 4, 2, 2]
    edges = []
    for graph, size in enumerate(sizes):
        density = torch.rand((), generator=g) * (0 if empty or graph == 3 else 1)
        joined = torch.rand(size, size, generator=g) < density
        if graph == 0:
            joined[3], joined[:, 3] = False, False  # a node without any edge
            joined[4] = True
        if graph == 2:
            joined[[1, 5]] = False  # nodes that receive nothing but send
            joined[0, 8] = not empty
        edges += [(graph, int(t), int(s)) for t, s in joined.nonzero()] if not empty else []
    return Ragged(sizes, firsts, edges, torch.randint(0, KINDS + 1, (len(edges),), generator=g).tolist())


def attention_by_loop(layer: Interaction, x: Tensor, graph: Ragged, receive: bool, typed: bool) -> Tensor:
    """The formula of the docstring, node by node and head by head."""
    channels, size = x.shape[1], x.shape[1] // layer.heads
    nodes = graph.receivers().tolist() if receive else range(len(x))
    rows = []
    for node, sources in zip(nodes, graph.sources(receive).values(), strict=True):
        mixed = [x.new_zeros(size) for _ in range(layer.heads)]
        for h in range(layer.heads if sources else 0):
            part = slice(h * size, (h + 1) * size)
            query = layer.query(x[node])[part]
            scores, values = [], []
            for source, kind in sources:
                key, value = layer.key_value(x[source]).split(channels)
                score = query @ key[part] / math.sqrt(size)
                if typed and kind < KINDS:  # the last kind has no bias
                    score = score + layer.bias[kind, h]
                scores.append(score)
                values.append(value[part])
            mixed[h] = torch.softmax(torch.stack(scores), 0) @ torch.stack(values)
        rows.append(layer.out(torch.cat(mixed)))
    return torch.stack(rows)


def attention(layer: Interaction, x: Tensor, graph: Ragged, route: str, receive: bool, typed: bool) -> Tensor:
    receivers = graph.receivers() if receive else None
    if route == "dense":
        return layer(x, graph.dense(receive, typed), receivers)
    if route == "grouped":  # every size by itself
        firsts = np.array(graph.firsts) if receive else None
        groups = group_by_size(np.array(graph.sizes), firsts, call=0)
        return layer(x, dataclasses.replace(graph.dense(receive, typed), groups=groups), receivers)
    edges = graph.sparse(receive, typed)
    if route == "sparse":
        return layer(x, edges, receivers)
    query = layer.query(x if receivers is None else x[receivers])
    parts = layer.key_value(x).view(len(x), 2, layer.heads, -1)
    bias = F.pad(layer.bias, (0, 0, 0, 1))[edges.edge_type] if typed else None
    query = query.view(len(query), layer.heads, -1)
    return layer.out(layer.messages(query, parts[:, 0], parts[:, 1], edges.index, bias).flatten(1))


@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
@pytest.mark.parametrize("receive", [False, True], ids=["all nodes", "receivers"])
@pytest.mark.parametrize("seed", [0, 1, 2, "no edges"])
def test_all_routes_equal_the_formula_in_value_and_gradient(seed: Any, receive: bool, typed: bool) -> None:
    graph = ragged(0, empty=True) if seed == "no edges" else ragged(seed)
    torch.manual_seed(7)
    layer = Interaction(8, 2, KINDS if typed else 0).double()
    if typed:
        torch.nn.init.normal_(layer.bias, std=2.0)
    start = torch.randn(sum(graph.sizes), 8, dtype=torch.double)
    weights = torch.randn(sum(graph.firsts if receive else graph.sizes), 8, dtype=torch.double)
    results = []
    for route in ("loop", *ROUTES):
        x = start.clone().requires_grad_()
        layer.zero_grad()
        if route == "loop":
            y = attention_by_loop(layer, x, graph, receive, typed)
        else:
            y = attention(layer, x, graph, route, receive, typed)
        (y * weights).sum().backward()
        found = [y.detach(), x.grad, *(p.grad for p in layer.parameters())]
        results.append([torch.zeros_like(layer.bias) if f is None and typed else f for f in found])
    isolated = [w for w, sources in graph.sources(receive).items() if not sources]
    assert isolated
    for other in results:
        assert torch.equal(other[0][isolated], layer.out.bias.detach().expand(len(isolated), -1))
        for expected, actual in zip(results[0], other, strict=True):
            expected = torch.zeros_like(layer.query.weight) if expected is None else expected
            actual = torch.zeros_like(expected) if actual is None else actual
            if expected.any() or actual.any():
                torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
def test_untyped_edges_of_a_typed_layer_have_no_bias(route: str) -> None:
    graph, layer = ragged(1), Interaction(8, 2, KINDS).double()
    torch.nn.init.normal_(layer.bias, std=2.0)
    x = torch.randn(sum(graph.sizes), 8, dtype=torch.double)
    expected = attention_by_loop(layer, x, graph, receive=False, typed=False)
    torch.testing.assert_close(attention(layer, x, graph, route, receive=False, typed=False), expected)


def test_no_edge_at_all_gives_the_bias_and_zero_gradient() -> None:
    layer, graph = Interaction(8, 2).double(), ragged(0, empty=True)
    for route in ROUTES:
        x = torch.randn(sum(graph.sizes), 8, dtype=torch.double, requires_grad=True)
        y = attention(layer, x, graph, route, receive=False, typed=False)
        torch.testing.assert_close(y, layer.out.bias.expand_as(y))
        y.sum().backward()
        assert not x.grad.any()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_large_scores_do_not_overflow(route: str, scale: float) -> None:
    graph = ragged(2)
    torch.manual_seed(0)
    layer = Interaction(8, 2)
    with torch.no_grad():
        layer.query.weight.mul_(scale)
    x = torch.randn(sum(graph.sizes), 8, requires_grad=True)
    y = attention(layer, x, graph, route, receive=False, typed=False)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    expected = attention_by_loop(copy.deepcopy(layer).double(), x.detach().double(), graph, False, False)
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("route", ["dense", "sparse"])
@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
def test_mixed_precision_on_a_cpu(route: str, typed: bool) -> None:
    graph = ragged(1)
    torch.manual_seed(0)
    layer = Interaction(8, 2, KINDS if typed else 0)
    x = torch.randn(sum(graph.sizes), 8, requires_grad=True)
    expected = attention(layer, x, graph, route, receive=True, typed=typed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = attention(layer, x, graph, route, receive=True, typed=typed)
    y.float().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.any()
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


# --- sparse products --------------------------------------------------------------------------------------------------

INDEX = torch.tensor([[0, 4, 2, 2, 0, 1, 4], [0, 0, 1, 3, 3, 3, 3]])
"""Edges from 6 sources to 5 targets; source 3 and 5 and targets 2 and 4 have none."""


@pytest.mark.parametrize("biased", [False, True])
def test_derivatives_of_edge_attention(biased: bool) -> None:
    torch.manual_seed(0)
    csr = HeadCsr(INDEX, 6, 5, 3)
    query, key, value = (torch.randn(n, 3, 2, dtype=torch.double, requires_grad=True) for n in (5, 6, 6))
    bias = torch.randn(7, 3, dtype=torch.double, requires_grad=True) if biased else None
    inputs = (query, key, value, bias) if biased else (query, key, value)
    assert torch.autograd.gradcheck(lambda q, k, v, *b: edge_attention(q, k, v, csr, *b), inputs)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("index", [INDEX, INDEX[:, :1], INDEX[:, :0]], ids=["many", "one", "none"])
def test_compressed_rows_are_blocks_of_the_edges(heads: int, index: Tensor) -> None:
    values = torch.randn(heads, index.shape[1], dtype=torch.double)
    csr = HeadCsr(index, 6, 5, heads)
    blocks = torch.zeros(heads, 5, 6, dtype=torch.double)
    blocks[:, index[1], index[0]] = values
    expected = torch.block_diag(*blocks)
    assert csr.shape == expected.shape
    torch.testing.assert_close(csr.matrix(values.reshape(-1)).to_dense(), expected, rtol=0, atol=0)
    torch.testing.assert_close(csr.matrix_transposed(values.reshape(-1)).to_dense(), expected.T, rtol=0, atol=0)
    pointers, columns, order = csr.transposed
    assert pointers.tolist()[0] == 0
    assert pointers.tolist()[-1] == len(columns) == heads * index.shape[1]
    assert sorted(order.tolist()) == list(range(len(columns)))


def test_products_of_every_edge() -> None:
    torch.manual_seed(0)
    csr = HeadCsr(INDEX, 6, 5, 2)
    left, right = torch.randn(10, 4, dtype=torch.double), torch.randn(12, 4, dtype=torch.double)
    expected = [left[h * 5 + t] @ right[h * 6 + s] for h in range(2) for s, t in INDEX.T.tolist()]
    torch.testing.assert_close(csr.products(left, right), torch.stack(expected))


def test_mixed_precision_stops_at_the_sparse_products() -> None:
    torch.manual_seed(0)
    csr = HeadCsr(INDEX, 6, 5, 3)
    parts = [torch.randn(n, 3, 2).bfloat16().requires_grad_() for n in (5, 6, 6)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = edge_attention(*parts, csr)
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 and torch.isfinite(p.grad).all() for p in parts)
    assert parts[2].grad.any()
    torch.testing.assert_close(y.float(), edge_attention(*(p.float() for p in parts), csr))


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["dense", "sparse"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
def test_the_last_layer_at_the_readouts_equals_the_whole_layer(route: str, shared: bool, typed: bool) -> None:
    torch.manual_seed(0)
    stream = Stream(8, 2, layers=3, shared=shared, edge_types=KINDS if typed else 0).double()
    for layer in stream.layers if typed else ():
        torch.nn.init.normal_(layer.attention.bias)
    graph = ragged(1)
    form = graph.dense if route == "dense" else graph.sparse
    x = torch.randn(sum(graph.sizes), 8, dtype=torch.double)
    whole = x
    for i in range(3):
        whole = stream.layers[0 if shared else i](whole, form(False, typed))
    receivers = graph.receivers()
    torch.testing.assert_close(stream(x, form(False, typed), form(True, typed), receivers), whole[receivers])
    assert (whole[receivers] - x[receivers]).abs().min(1).values.gt(0).all()


def test_a_layer_is_its_formula() -> None:
    torch.manual_seed(0)
    graph, stream = ragged(0), Stream(8, 2, layers=1).double()
    (layer,) = stream.layers
    z = torch.randn(sum(graph.sizes), 8, dtype=torch.double)
    x = F.layer_norm(z, (8,))
    y = F.layer_norm(attention_by_loop(layer.attention, x, graph, False, False) + x, (8,))
    first, _, second = layer.ffn
    expected = (y @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias + y
    torch.testing.assert_close(layer(z, graph.sparse(False, False)), expected)


@pytest.mark.parametrize(("shared", "count"), [(True, 1), (False, 3)])
def test_layers_share_weights_or_not(shared: bool, count: int) -> None:
    assert len(Stream(8, 2, layers=3, shared=shared).layers) == count


# --- the encoder ------------------------------------------------------------------------------------------------------

CONVS = [((3, 1),), ((2, 1),), ((1, 1),), ((4, 2), (4, 4)), ((5, 2), (3, 1), (2, 2)), ((7, 3),)]


def encode_alone(encoder: ConvEncoder, sequence: Tensor) -> Tensor:
    """The encoder on one sequence, by PyTorch's own convolution on zeros around it."""
    x = sequence.T[None]
    for i, conv in enumerate(encoder.convs):
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        length, before = x.shape[2], (kernel - stride) // 2
        count = -(-length // stride)
        if count == 0:
            return sequence.new_zeros(0, conv.out_channels)
        x = F.pad(x.relu() if i else x, (before, (count - 1) * stride + kernel - before - length))
        x = F.conv1d(x, conv.weight, conv.bias, stride)
        assert x.shape[2] == count
    return x[0].T


@pytest.mark.parametrize("convs", CONVS, ids=str)
def test_the_encoder_equals_convolutions_of_each_sequence(convs: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(5, 8, convs).double()
    lengths = [0, 1, 2, 7, 0, 8, 9, 23, 0]
    results = []
    weights = torch.randn(sum(lengths), 8, dtype=torch.double)
    start = torch.randn(sum(lengths), 5, dtype=torch.double)
    for ours in (True, False):
        steps = start.clone().requires_grad_()
        encoder.zero_grad()
        if ours:
            tokens = encoder(steps, conv_windows(np.array(lengths), convs))
        else:
            tokens = torch.cat([encode_alone(encoder, sequence) for sequence in steps.split(lengths)])
        (tokens * weights[: len(tokens)]).sum().backward()
        results.append([tokens.detach(), steps.grad, *(p.grad.clone() for p in encoder.parameters())])
    stride = math.prod(s for _, s in convs)
    assert len(results[0][0]) == sum(-(-n // stride) for n in lengths)
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("convs", CONVS, ids=str)
def test_encoder_tokens_do_not_depend_on_the_batch(convs: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(5, 8, convs).double()
    sequences = [torch.randn(n, 5, dtype=torch.double) for n in (9, 0, 1, 23, 2)]

    def tokens(chosen: list[Tensor]) -> list[Tensor]:
        lengths = torch.tensor([len(s) for s in chosen])
        counts = -(-lengths // math.prod(s for _, s in convs))
        return list(encoder(torch.cat(chosen), conv_windows(lengths.numpy(), convs)).split(counts.tolist()))

    together = tokens(sequences)
    for one, other in zip(together, reversed(tokens(sequences[::-1])), strict=True):
        torch.testing.assert_close(one, other)
    for sequence, expected in zip(sequences, together, strict=True):
        torch.testing.assert_close(tokens([sequence])[0], expected)


def test_encoder_equals_a_sum_over_the_kernel() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(3, 4, ((4, 2),)).double()
    x = torch.randn(7, 3, dtype=torch.double)
    conv = encoder.convs[0]
    expected = []
    for token in range(4):  # ceil(7 / 2); the kernel begins (4 - 2) // 2 = 1 step before the token's own steps
        total = conv.bias.clone()
        for k in range(4):
            step = 2 * token - 1 + k
            if 0 <= step < 7:
                total = total + conv.weight[:, :, k] @ x[step]
        expected.append(total)
    torch.testing.assert_close(encoder(x, conv_windows(np.array([7]), ((4, 2),))), torch.stack(expected))


def test_no_steps_give_no_tokens_and_no_gradient() -> None:
    encoder = ConvEncoder(3, 4, ((4, 2), (4, 4)))
    tokens = encoder(torch.zeros(0, 3), conv_windows(np.array([0, 0]), ((4, 2), (4, 4))))
    assert tokens.shape == (0, 4)
    tokens.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in encoder.parameters())


# --- fusion, heads, dropout -------------------------------------------------------------------------------------------


def test_gate_blends_elementwise() -> None:
    torch.manual_seed(0)
    gate = Gate(4).double()
    a, b = torch.randn(2, 3, 4, dtype=torch.double)
    g = 1 / (1 + torch.exp(-(a @ gate.intra.weight.T + b @ gate.inter.weight.T + gate.inter.bias)))
    fused, value = gate(a, b)
    torch.testing.assert_close(value, g)
    torch.testing.assert_close(fused, g * b + (1 - g) * a)


def test_other_fusions() -> None:
    a, b = torch.randn(2, 3, 4)
    torch.testing.assert_close(build_fusion("add", 4)(a, b)[0], a + b)
    torch.testing.assert_close(build_fusion("dot", 4)(a, b)[0], a * b)
    concat = build_fusion("concat", 4)
    torch.testing.assert_close(concat(a, b)[0], F.linear(torch.cat([a, b], 1), concat.join.weight, concat.join.bias))
    assert all(build_fusion(name, 4)(a, b)[1] is None for name in ("add", "dot", "concat"))


def test_heads_share_their_mlp() -> None:
    heads = Heads(4, 7)
    x = torch.randn(3, 4)
    value, logits = heads(x, x)
    hidden = heads.mlp(x)
    torch.testing.assert_close(value, heads.value(hidden)[:, 0])
    torch.testing.assert_close(logits, heads.classes(hidden))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_has_the_rate_and_mean_of_torch(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 333, requires_grad=True)
    y = Dropout(p)(x)
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=1 / 256)
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], y.max().item()))
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    # Neighbours share a draw of 64 bits, and must still be independent.
    both = (kept.flatten()[:-1] & kept.flatten()[1:]).float().mean().item()
    assert both == pytest.approx(kept.float().mean().item() ** 2, abs=0.01)


def test_dropout_follows_train_and_eval_and_the_seed() -> None:
    layer, x = Dropout(0.5), torch.randn(40, 7)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert not torch.equal(first, layer(x))
    assert layer.eval()(x) is x or torch.equal(layer(x), x)


def test_messages_equal_sums_by_target() -> None:
    """The message route on unsorted edges with empty targets and large scores."""
    index = torch.tensor([[0, 1, 2, 1, 0, 2], [3, 0, 0, 5, 3, 3]])  # targets 1, 2 and 4 have none
    layer = Interaction(4, 2).double()
    query = torch.randn(6, 2, 2, dtype=torch.double)
    query[0] *= 1e4
    key, value = torch.randn(2, 3, 2, 2, dtype=torch.double)
    bias = torch.randn(6, 2, dtype=torch.double)
    expected = torch.zeros(6, 2, 2, dtype=torch.double)
    for target in (0, 3, 5):
        inside = index[1] == target
        source = index[0, inside]
        weight = ((query[target] * key[source]).sum(-1) / 2**0.5 + bias[inside]).softmax(0)
        expected[target] = (weight[:, :, None] * value[source]).sum(0)
    torch.testing.assert_close(layer.messages(query, key, value, index, bias), expected, rtol=1e-6, atol=1e-9)


# --- what training is made of -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_moving_average_equals_a_loop(decay: float) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    average = MovingAverage(model, decay)
    expected = None
    for t in range(25):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model)
        now = [p.detach().clone() for p in model.parameters()]
        d = min(decay, (1 + t) / (10 + t))
        expected = now if expected is None else [d * e + (1 - d) * n for e, n in zip(expected, now, strict=True)]
        for actual, wanted in zip(average.model.parameters(), expected, strict=True):
            torch.testing.assert_close(actual, wanted)
            assert not actual.requires_grad
        if t == 0:
            assert all(torch.equal(a, b) for a, b in zip(average.model.parameters(), now, strict=True))
        if t == 12:  # stopped and taken up again
            state = copy.deepcopy(average.state_dict())
            average = MovingAverage(model, decay)
            average.load_state_dict(state)


GAMMA, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def splitmix(state: int) -> int:
    """The output function of SplitMix64, in Python's integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def hashed_by_loop(seed: int, *numbers: int) -> float:
    state = seed & MASK
    for number in numbers:
        state = splitmix((state + (number + 1) * GAMMA) & MASK)
    return (state >> 11) / 2**53


def test_hashed_numbers_are_those_of_splitmix64() -> None:
    """The first outputs of the reference implementation for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    published.append(16408922859458223821)
    found = hashed_uniform(torch.tensor(1234567), torch.arange(5))
    assert found.dtype == torch.float64
    assert found.tolist() == [(number >> 11) / 2**53 for number in published]


def test_hashed_numbers_broadcast_as_a_loop() -> None:
    seeds = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), seed_for("a", 1)])
    rows, columns = torch.tensor([0, 1, 7, 10**9]), torch.arange(6)
    found = hashed_uniform(seeds[:, None, None], rows[:, None], columns)
    expected = [[[hashed_by_loop(s, r, c) for c in range(6)] for r in rows.tolist()] for s in seeds.tolist()]
    assert found.tolist() == expected
    assert hashed_uniform(seeds[3], rows[2], columns[5]).item() == expected[3][2][5]
    assert len(found.unique()) == found.numel()


@pytest.mark.parametrize("axis", ["seed", "first", "second"])
def test_hashed_numbers_are_uniform_and_their_neighbours_independent(axis: str) -> None:
    count, fixed = 200_000, torch.tensor(3)
    numbers = {name: torch.arange(count) if name == axis else fixed for name in ("seed", "first", "second")}
    draws = hashed_uniform(*numbers.values()).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert scipy.stats.chisquare(np.histogram(draws, 100, (0, 1))[0]).pvalue > 1e-3
    # Pairs of neighbours fill the square, and a threshold on one says nothing of the next.
    for lag in (1, 2, 64):
        pairs = np.histogram2d(draws[:-lag], draws[lag:], 20, [[0, 1], [0, 1]])[0]
        assert scipy.stats.chisquare(pairs.ravel()).pvalue > 1e-3
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 4 / count**0.5


def test_hashed_numbers_tell_their_arguments_apart() -> None:
    a, b = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    draws = hashed_uniform(torch.tensor(5), a, b)
    assert len(draws.unique()) == draws.numel()  # (1, 2) and (2, 1) too
    swapped = np.corrcoef(draws.flatten(), draws.T.flatten())[0, 1]
    off = (draws.numel() - 300) / draws.numel()
    assert abs(swapped - (1 - off)) < 0.02


class Item(NamedTuple):
    """Something that goes to a device."""

    value: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Item:
        return Item(change(self.value))


def grouped_pairs() -> DenseEdges:
    """Edges among nodes of two types in graphs of sizes far apart, to be looked up in groups."""
    sizes = np.array([120, 120, 5, 5, 4])
    groups = group_by_size(sizes)
    kinds = torch.where(torch.arange(120) < torch.from_numpy(sizes)[:, None], torch.arange(120) % 2, 2)
    nodes = (kinds.flatten() < 2).nonzero().squeeze(1)
    table = torch.tensor([[True, False, False], [True, True, False], [False, False, False]])
    return DenseEdges(NodePairs(kinds, table, 120), nodes, nodes, groups)


def test_threads_share_a_batch() -> None:
    layer = Interaction(8, 2)
    x = torch.randn(254, 8)
    (wanted,) = [layer(x, grouped_pairs())]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(50):
            edges = grouped_pairs()
            found = [thread.result() for thread in [threads.submit(layer, x, edges) for _ in range(4)]]
            assert all(torch.equal(one, wanted) for one in found)


def test_edges_whose_making_was_interrupted_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    edges, part = grouped_pairs(), NodePairs.part
    calls = iter([False, True])

    def once(self: NodePairs, *group: Any) -> Tensor:
        if next(calls, False):
            raise MemoryError
        return part(self, *group)

    monkeypatch.setattr(NodePairs, "part", once)
    layer, x = Interaction(8, 2), torch.randn(254, 8)
    with pytest.raises(MemoryError):
        layer(x, edges)
    torch.testing.assert_close(layer(x, edges), layer(x, grouped_pairs()), rtol=0, atol=0)


def test_prefetch_on_a_cpu_passes_things_on() -> None:
    items = [([i], "x", Item(torch.tensor([i]))) for i in range(5)]
    passed = list(prefetch(iter(items), torch.device("cpu")))
    assert all(a is b for a, b in zip(items, passed, strict=True))
    assert list(prefetch([], torch.device("cpu"))) == []


@pytest.mark.parametrize("burst", [1, BURST])
@pytest.mark.parametrize("count", [0, 3, 4, 10])
def test_a_cpu_builds_batches_in_a_row_and_keeps_none(count: int, burst: int) -> None:
    built: list[weakref.ref[Tensor]] = []

    def build() -> Iterator[Tensor]:
        for i in range(count):
            item = torch.tensor(i)
            built.append(weakref.ref(item))
            yield item
            del item

    seen = 0
    for item in prefetch(build(), torch.device("cpu"), burst):
        assert item.item() == seen
        assert len(built) == min(count, burst * (seen // burst + 1))
        assert [there() is not None for there in built] == [number >= seen for number in range(len(built))]
        seen += 1
    assert seen == count


def failing() -> Iterator[Item]:
    yield Item(torch.zeros(1))
    raise KeyError("the second")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, without_cuda])])
def test_prefetch_hands_errors_on(device: str) -> None:
    batches = prefetch(failing(), torch.device(device))
    assert next(batches).value.item() == 0
    with pytest.raises(KeyError, match="the second"):
        next(batches)


# --- on a GPU ---------------------------------------------------------------------------------------------------------

ON_GPU = {
    "dense": {"graph": {}, "model": {"route": "dense"}},
    "edge": {"graph": {"intra": "window"}, "model": {"route": "edge"}},
    "dense, typed": {"graph": {"intra": "temporal", "edge_dropout": 0.2}, "model": {"route": "dense"}},
    "edge, typed": {"graph": {"intra": "temporal", "edge_dropout": 0.2}, "model": {"route": "edge"}},
    "dialogue": {"graph": {"scope": "dialogue"}, "model": {"route": "auto"}},
    "late fusion": {"graph": {}, "model": {"name": "late_fusion"}},
}


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, tuple):
        return [t for v in value for t in tensors(v)]
    return tensors(vars(value)) if dataclasses.is_dataclass(value) else []


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("name", sorted(ON_GPU))
def test_prefetched_batches_are_equal(make_utterance, name: str) -> None:
    config = from_dict(ON_GPU[name])
    examples = labeled_examples([make_utterance(f"v$_${i}", (5, i, 3), 0.5) for i in range(100)], Target())
    batches = list(training_batches(examples, config, 1))
    moved = list(prefetch(training_batches(examples, config, 1), torch.device("cuda")))
    assert len(moved) == len(batches) > 0
    for before, after in zip(batches, moved, strict=True):
        assert before[0].ids == after[0].ids
        for a, b in zip(tensors(before), tensors(after), strict=True):
            assert b.is_cuda
            torch.testing.assert_close(b.cpu(), a, rtol=0, atol=0, equal_nan=True)


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("name", sorted(ON_GPU))
def test_a_training_step_never_waits_for_the_gpu(make_utterance, name: str) -> None:
    device = torch.device("cuda")
    config = from_dict(ON_GPU[name] | {"optim": {"batch_size": 8}})
    examples = labeled_examples([make_utterance(f"v{i // 4}$_${i}", (5, i, 3), 0.5) for i in range(64)], Target())
    model = build_model({"text": 6, "audio": 4, "vision": 5}, config).to(device)
    optimizer = build_optimizer(model, config.optim)
    average = MovingAverage(model, 0.9)
    losses = []
    try:
        for i, (batch, targets) in enumerate(prefetch(training_batches(examples, config, 1), device)):
            torch.cuda.set_sync_debug_mode("error" if i > 1 else "default")  # the first steps set things up
            with autocast(config.optim, device):
                output = model(batch)
            step_loss = loss(output, targets, config.loss.value_weight, config.self_training.weight)
            optimizer.zero_grad(set_to_none=True)
            step_loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
            optimizer.step()
            average.update(model)
            losses.append(step_loss.detach())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(losses) > 4
    assert torch.stack(losses).isfinite().all()


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("graph", [{"intra": "window"}, {"intra": "temporal", "inter": "temporal"}], ids=str)
def test_a_gpu_says_what_a_cpu_says(make_utterance, route: str, graph: dict[str, Any]) -> None:
    config = from_dict({"graph": graph, "model": {"route": route}})
    examples = labeled_examples([make_utterance(f"v$_${i}", (5, i, 3), 0.5) for i in range(20)], Target())
    torch.manual_seed(0)
    model = build_model({"text": 6, "audio": 4, "vision": 5}, config).eval()
    ((batch, _),) = training_batches(examples, config, 1)
    with torch.no_grad():
        here = model(batch)
        there = model.to("cuda")(batch.to("cuda"))
    torch.testing.assert_close(there.value.cpu(), here.value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(there.logits.cpu(), here.logits, rtol=1e-3, atol=1e-4)


def test_the_average_has_the_running_statistics_of_the_model() -> None:
    """Averaged weights with the statistics of untrained ones would be another model than was trained."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.99)
    for _ in range(3):
        model(torch.randn(8, 3) + 5)
        average.update(model)
    own, norm = average.model[1], model[1]
    assert torch.equal(own.running_mean, norm.running_mean)
    assert torch.equal(own.running_var, norm.running_var)
    assert int(own.num_batches_tracked) == 3
    resumed = MovingAverage(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), 0.99)
    resumed.load_state_dict(average.state_dict())
    assert torch.equal(resumed.model[1].running_mean, norm.running_mean)
