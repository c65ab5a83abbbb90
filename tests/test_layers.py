"""Layers against plain loops, and the two routes of the interaction layer against each other."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gmsa import ops
from gmsa.nn import ConvEncoder, Dropout, Gate, Heads, Interaction, Stream, build_fusion


def random_graph(seed: int, batch: int = 4, size: int = 9) -> torch.Tensor:
    """Directed edges of all densities, isolated nodes, and padding, as an adjacency [B, T, T]."""
    g = torch.Generator().manual_seed(seed)
    adjacency = torch.rand(batch, size, size, generator=g) < torch.rand(batch, 1, 1, generator=g)
    adjacency[0, 3], adjacency[0, :, 3] = False, False  # a node without any edge
    adjacency[1, 2] = False  # a node that receives nothing but sends
    adjacency[2, 5:], adjacency[2, :, 5:] = False, False  # padding
    adjacency[3] = False  # nothing at all
    return adjacency


def edge_index(adjacency: torch.Tensor) -> torch.Tensor:
    utterance, target, source = adjacency.nonzero(as_tuple=True)
    return torch.stack([utterance * adjacency.shape[2] + source, utterance * adjacency.shape[1] + target])


def attention_by_loop(layer: Interaction, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
    """The formula of the docstring, node by node."""
    heads, channels = layer.heads, x.shape[-1]
    size = channels // heads
    out = []
    for b in range(x.shape[0]):
        rows = []
        for i in range(adjacency.shape[1]):
            sources = adjacency[b, i].nonzero().squeeze(1)
            mixed = x.new_zeros(channels)
            if len(sources):
                query = layer.query(x[b, i])
                key, value = layer.key_value(x[b, sources]).split(channels, dim=-1)
                parts = []
                for h in range(heads):
                    part = slice(h * size, (h + 1) * size)
                    weight = torch.softmax(key[:, part] @ query[part] / math.sqrt(size), dim=0)
                    parts.append(weight @ value[:, part])
                mixed = torch.cat(parts)
            rows.append(layer.out(mixed))
        out.append(torch.stack(rows))
    return torch.stack(out)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("receivers", [None, 2])
def test_both_routes_equal_the_formula_in_value_and_gradient(seed: int, receivers: int | None) -> None:
    torch.manual_seed(seed)
    layer = Interaction(8, 2).double()
    adjacency = random_graph(seed)[:, :receivers]
    start = torch.randn(4, 9, 8, dtype=torch.double)
    seeds = torch.randn(4, receivers or 9, 8, dtype=torch.double)
    results = []
    for run in ("loop", "dense", "edge"):
        x = start.clone().requires_grad_()
        layer.zero_grad()
        if run == "loop":
            y = attention_by_loop(layer, x, adjacency)
        else:
            y = layer(x, adjacency if run == "dense" else edge_index(adjacency), receivers)
        (y * seeds).sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()
        results.append([y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())])
    for other in results[1:]:
        for expected, actual in zip(results[0], other, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_no_edge_at_all_gives_the_bias_and_zero_gradient() -> None:
    layer = Interaction(8, 2).double()
    for edges in (torch.zeros(2, 3, 3, dtype=torch.bool), torch.zeros(2, 0, dtype=torch.long)):
        x = torch.randn(2, 3, 8, dtype=torch.double, requires_grad=True)
        y = layer(x, edges)
        torch.testing.assert_close(y, layer.out.bias.expand_as(y))
        y.sum().backward()
        assert not x.grad.any()


def test_the_last_layer_at_the_readouts_equals_the_whole_layer() -> None:
    torch.manual_seed(0)
    stream = Stream(8, 2, layers=3).double()
    adjacency = random_graph(1)
    x = torch.randn(4, 9, 8, dtype=torch.double)
    whole = x
    for _ in range(3):
        whole = stream.layers[0](whole, adjacency)
    torch.testing.assert_close(stream(x, adjacency, adjacency[:, :2], 2), whole[:, :2])


@pytest.mark.parametrize(("shared", "count"), [(True, 1), (False, 3)])
def test_layers_share_weights_or_not(shared: bool, count: int) -> None:
    assert len(Stream(8, 2, layers=3, shared=shared).layers) == count


@pytest.mark.parametrize("convs", [((3, 1),), ((4, 2), (4, 4)), ((5, 2), (3, 1), (2, 2))])
def test_encoder_tokens_do_not_depend_on_the_batch(convs) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(5, 8, convs).double()
    stride = math.prod(s for _, s in convs)
    lengths = [0, 1, 2, 7, 8, 9, 23]
    sequences = [torch.randn(n, 5, dtype=torch.double) for n in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=99.0)  # padding must not leak
    together = encoder(padded, torch.tensor(lengths))
    assert together.shape == (len(lengths), -(-23 // stride), 8)
    for i, sequence in enumerate(sequences):
        count = -(-lengths[i] // stride)
        assert not together[i, count:].any()
        if lengths[i]:
            alone = encoder(sequence[None], torch.tensor([lengths[i]]))
            torch.testing.assert_close(together[i, :count], alone[0])


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
    torch.testing.assert_close(encoder(x[None], torch.tensor([7]))[0], torch.stack(expected))


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


SCATTER = [None] + ([ops.torch_scatter] if ops.torch_scatter is not None else [])


@pytest.mark.parametrize("scatter", SCATTER, ids=lambda s: "torch" if s is None else "torch_scatter")
def test_segments_equal_a_loop(scatter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "torch_scatter", scatter)
    index = torch.tensor([3, 0, 0, 5, 3, 3])  # unsorted; 1, 2 and 4 stay empty
    values = torch.randn(6, 2, dtype=torch.double, requires_grad=True)
    by_loop = torch.zeros(6, 2, dtype=torch.double)
    softmax = torch.empty(6, 2, dtype=torch.double)
    for n in range(6):
        inside = index == n
        by_loop[n] = values[inside].sum(0)
        softmax[inside] = values[inside].softmax(0)
    torch.testing.assert_close(ops.segment_sum(values, index, 6), by_loop)
    torch.testing.assert_close(ops.segment_softmax(values, index, 6), softmax)
    assert torch.autograd.gradcheck(lambda v: ops.segment_softmax(v, index, 6), values)
    assert torch.autograd.gradcheck(lambda v: ops.segment_sum(v, index, 6), values)


def test_segment_softmax_survives_large_scores() -> None:
    score = torch.tensor([1e4, 1e4 - 1, -1e4], dtype=torch.double)
    weight = ops.segment_softmax(score, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(weight, torch.tensor([0.7310585786, 0.2689414214, 1.0], dtype=torch.double))
