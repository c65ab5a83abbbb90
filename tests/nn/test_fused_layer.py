"""The fused layer beside the plain one, and what is left to the plain one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.graphs import clip
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gmsa.config import from_dict
from gmsa.graph import collate
from gmsa.graph.conv_windows import conv_windows
from gmsa.models import build_model, graph_spec
from gmsa.nn import ConvEncoder, DenseEdges, Dropout, Interaction, NodePairs, SparseEdges, StreamLayer, encoders
from gmsa.nn.layers.size_groups import group_by_size
from gmsa.nn.streams import fused, stream

SIZES, FIRSTS = np.array([6, 1, 9, 3, 25]), np.array([2, 1, 4, 2, 2])
CHANNELS, HEADS = 16, 2


def edges_of(kind: str, to_firsts: bool) -> DenseEdges:
    """Edges of all densities, of nodes without edges; none; all; or those that the types of nodes decide."""
    torch.manual_seed(1)
    count = FIRSTS if to_firsts else SIZES
    most, size = int(count.max()), int(SIZES.max())
    there = torch.arange(size) < torch.from_numpy(SIZES)[:, None]
    every: Tensor = there[:, :most, None] & there[:, None]
    pairs: Tensor | NodePairs = every & (torch.rand(len(SIZES), most, size) < torch.rand(len(SIZES), most, 1))
    if kind == "some":
        pairs[0, 1] = pairs[4, 0] = False
    elif kind == "types":
        node_type = torch.randint(0, 3, (len(SIZES), size))
        node_type[3] = 2  # a graph whose nodes hear nobody
        table = torch.tensor([[True, True, False, False], [True, False, False, False], [False] * 4, [False] * 4])
        pairs = NodePairs(node_type.masked_fill(~there, 3), table, most)
    else:
        pairs = every if kind == "all" else torch.zeros_like(every)
    places = [
        torch.tensor([g * int(of.max()) + i for g, n in enumerate(of) for i in range(n)]) for of in (SIZES, count)
    ]
    return DenseEdges(pairs, *places, group_by_size(SIZES, count))


def receivers_of(to_firsts: bool) -> Tensor | None:
    starts = np.cumsum(SIZES) - SIZES
    found = [s + i for s, n in zip(starts, FIRSTS, strict=True) for i in range(n)]
    return torch.tensor(found) if to_firsts else None


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether layers are computed by the plain operations."""
    can = fused.can_fuse
    return lambda yes: monkeypatch.setattr(stream, "can_fuse", (lambda *given: False) if yes else can)


@pytest.mark.parametrize("call", [0, 100, 10**9], ids=["each size", "some groups", "one group"])
@pytest.mark.parametrize("to_firsts", [False, True], ids=["all nodes", "few receivers"])
@pytest.mark.parametrize("kind", ["some", "all", "none", "types"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_values_and_gradients_are_those_of_the_plain_layer(
    dropout: float, kind: str, to_firsts: bool, call: int, plain: Callable[[bool], None]
) -> None:
    torch.manual_seed(0)
    layer = StreamLayer(CHANNELS, HEADS, dropout).double().train()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    z, receivers = torch.randn(int(SIZES.sum()), CHANNELS, dtype=torch.double), receivers_of(to_firsts)
    edges = edges_of(kind, to_firsts)
    edges = replace(edges, groups=group_by_size(SIZES, FIRSTS if to_firsts else SIZES, call))
    found = []
    for is_plain in (True, False):
        plain(is_plain)
        assert stream.can_fuse(layer, z, edges, receivers, None) is not is_plain
        given = z.clone().requires_grad_()
        layer.zero_grad()
        torch.manual_seed(2)
        out = layer(given, edges, receivers)
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.double).view(out.shape)).sum().backward()
        found.append([out.detach(), given.grad, *(p.grad.clone() for p in layer.parameters())])
    for actual, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("to_firsts", [False, True], ids=["all nodes", "few receivers"])
def test_predictions_are_those_of_the_plain_layer(to_firsts: bool, plain: Callable[[bool], None]) -> None:
    layer, receivers = StreamLayer(CHANNELS, HEADS, 0.5).eval(), receivers_of(to_firsts)
    z, edges = torch.randn(int(SIZES.sum()), CHANNELS), edges_of("some", to_firsts)
    found = []
    for is_plain in (True, False):
        plain(is_plain)
        assert stream.can_fuse(layer, z, edges, receivers, None) is not is_plain
        with torch.inference_mode():
            found.append(layer(z, edges, receivers))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("to_firsts", [False, True], ids=["all nodes", "few receivers"])
def test_what_is_no_number_stays_in_its_graph(to_firsts: bool) -> None:
    layer, receivers = StreamLayer(CHANNELS, HEADS).double().eval(), receivers_of(to_firsts)
    z, counts = torch.randn(int(SIZES.sum()), CHANNELS, dtype=torch.double), FIRSTS if to_firsts else SIZES
    edges = edges_of("all", to_firsts)
    whole = layer(z, edges, receivers).split(counts.tolist())
    for graph, rows in enumerate(torch.arange(len(z)).split(SIZES.tolist())):
        found = layer(z.index_fill(0, rows, torch.nan), edges, receivers).split(counts.tolist())
        for number, (part, known) in enumerate(zip(found, whole, strict=True)):
            assert part.isnan().all() if number == graph else torch.equal(part, known)


@pytest.mark.parametrize("to_firsts", [False, True], ids=["all nodes", "few receivers"])
def test_a_gradient_that_is_no_number_stays_in_its_graph(to_firsts: bool) -> None:
    counts = np.array([2, 0, 4, 2, 0]) if to_firsts else SIZES
    starts = np.cumsum(SIZES) - SIZES
    receivers = torch.tensor([s + i for s, n in zip(starts, counts, strict=True) for i in range(n)])
    layer, most = StreamLayer(CHANNELS, HEADS).double(), int(counts.max())
    there = torch.arange(int(SIZES.max())) < torch.from_numpy(SIZES)[:, None]
    edges = replace(
        edges_of("all", to_firsts),
        pairs=there[:, :most, None] & there[:, None],
        target_index=torch.tensor([g * most + i for g, n in enumerate(counts) for i in range(n)]),
        groups=group_by_size(SIZES, counts),
    )
    for graph, rows in enumerate(torch.arange(int(SIZES.sum())).split(SIZES.tolist())):
        z = torch.randn(int(SIZES.sum()), CHANNELS, dtype=torch.double).index_fill(0, rows, torch.nan).requires_grad_()
        assert stream.can_fuse(layer, z, edges, receivers if to_firsts else None, None)
        out = layer(z, edges, receivers if to_firsts else None)
        (out * torch.rand_like(out)).sum().backward()
        assert z.grad is not None
        found = [bool(part.isnan().any()) for part in z.grad.split(SIZES.tolist())]
        assert found == [number == graph for number in range(len(SIZES))]


@pytest.mark.parametrize("frozen", ["weights", "states"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    layer = StreamLayer(CHANNELS, HEADS)
    z = torch.randn(int(SIZES.sum()), CHANNELS, requires_grad=frozen == "weights")
    layer.requires_grad_(frozen == "states")
    layer(z, edges_of("some", False)).sum().backward()
    assert (z.grad is None) == (frozen == "states")
    assert all((p.grad is None) == (frozen == "weights") for p in layer.parameters())


def test_a_model_trains_the_same(plain: Callable[[bool], None]) -> None:
    """Losses and gradients of some steps in scope ``hierarchical``, with utterances that miss modalities."""
    dims = {"text": 6, "audio": 5, "vision": 4}
    context = {"scope": "hierarchical", "context": 1}
    config = from_dict({"graph": context, "model": {"channels": 32, "heads": 2, "route": "dense"}})
    lengths = [(12, 9, 6), (0, 4, 2), (38, 80, 70), (2, 0, 0), (1, 1, 1), (20, 3, 0)]
    utterances = [clip(f"v{i % 2}$_${i}", dims, row) for i, row in enumerate(lengths)]
    batch = collate(utterances, graph_spec(config))
    batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
    found = []
    for is_plain in (True, False):
        plain(is_plain)
        torch.manual_seed(0)
        model = build_model(dims, config).double().train()
        output = model(batch)
        (output.value.square().sum() + output.logits.square().sum()).backward()
        found.append([output.value.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)


Change = Callable[[StreamLayer], object]


def wrapped(layer: StreamLayer) -> None:
    forward = layer.attention.forward
    layer.attention.forward = lambda *given: 2 * forward(*given)


CHANGES: dict[str, Change] = {
    "an activation": lambda layer: layer.ffn.__setitem__(1, torch.nn.GELU()),
    "a norm": lambda layer: setattr(layer, "norm_in", torch.nn.LayerNorm(CHANNELS, eps=1e-2)),
    "a norm without a shift": lambda layer: setattr(layer, "norm_mid", torch.nn.LayerNorm(CHANNELS, bias=False)),
    "torch's dropout": lambda layer: setattr(layer, "dropout", torch.nn.Dropout(0.0)),
    "dropout in evaluation": lambda layer: layer.eval().dropout.train(),
    "no dropout in training": lambda layer: layer.dropout.eval(),
    "a method": wrapped,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_part_does_what_it_does(change: str, plain: Callable[[bool], None]) -> None:
    torch.manual_seed(0)
    layer, edges, z = StreamLayer(CHANNELS, HEADS, 0.4), edges_of("some", False), torch.randn(44, CHANNELS)
    CHANGES[change](layer)
    found = []
    for is_plain in (True, False):
        plain(is_plain)
        torch.manual_seed(2)
        found.append(layer(z, edges))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("part", ["attention", "ffn", "norm_in", "dropout"])
def test_every_hook_is_called(part: str, kind: str) -> None:
    layer, edges, seen = StreamLayer(CHANNELS, HEADS), edges_of("some", False), []
    hook = getattr(layer.get_submodule(part), f"register_{kind}_hook")(lambda *given: seen.append(1))
    layer(torch.randn(44, CHANNELS, requires_grad=True), edges).sum().backward()
    hook.remove()
    assert len(seen) == (2 if part == "dropout" else 1)


def test_hooks_of_all_modules_are_called() -> None:
    layer, edges, seen = StreamLayer(CHANNELS, HEADS), edges_of("some", False), []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, *given: seen.append(type(module)))
    layer(torch.randn(44, CHANNELS), edges)
    hook.remove()
    assert {StreamLayer, Interaction, Dropout, torch.nn.LayerNorm, torch.nn.ReLU} <= {*seen}


def test_a_checkpoint_computes_it_again() -> None:
    torch.manual_seed(0)
    layer, z = StreamLayer(CHANNELS, HEADS), torch.randn(44, CHANNELS)
    for to_firsts in (False, True):
        given, edges, receivers = z.clone().requires_grad_(), edges_of("some", to_firsts), receivers_of(to_firsts)
        found = []
        for call in (layer, partial(checkpoint, layer, use_reentrant=False)):
            (gradient,) = torch.autograd.grad(call(given, edges, receivers).square().sum(), given)
            found.append(gradient)
        torch.testing.assert_close(found[1], found[0])


def test_a_second_derivative_is_refused() -> None:
    layer, z = StreamLayer(CHANNELS, HEADS), torch.randn(44, CHANNELS, requires_grad=True)
    for to_firsts in (False, True):
        out = layer(z, edges_of("some", to_firsts), receivers_of(to_firsts))
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(out.sum(), z, create_graph=True)


def test_transforms_of_functions_take_the_plain_layer() -> None:
    layer, z, edges = StreamLayer(CHANNELS, HEADS).eval(), torch.randn(44, CHANNELS), edges_of("some", False)
    given = z.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(layer(given, edges).square().sum(), given)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x, edges).square().sum())(z), wanted)


def test_a_used_batch_is_sent_without_what_was_made_of_it() -> None:
    edges = edges_of("types", True)
    unused = len(pickle.dumps(edges))
    edges.masks(torch.float32)
    assert len(pickle.dumps(edges)) == unused
    assert torch.equal(pickle.loads(pickle.dumps(edges)).adjacency, edges.adjacency)


def test_what_the_plain_layer_computes() -> None:
    layer, z, edges = StreamLayer(CHANNELS, HEADS), torch.randn(int(SIZES.sum()), CHANNELS), edges_of("some", False)
    can = fused.can_fuse
    assert can(layer, z, edges, None, None)
    assert not can(layer, z, edges, None, torch.zeros(len(z)))  # sources with weights
    assert not can(layer, z, edges, torch.arange(9), None)  # of all nodes, more than need few products
    assert not can(layer, z, replace(edges, pairs=edges.adjacency.byte()), None, None)  # types
    assert not can(layer, z, replace(edges, groups=None), None, None)
    assert not can(layer, z, SparseEdges(torch.tensor([[0], [1]])), None, None)
    assert not can(layer, z.double(), edges, None, None)  # numbers of another type than the weights
    assert not can(StreamLayer(CHANNELS, HEADS, edge_types=2), z, edges, None, None)
    assert not can(layer.to("meta"), z.to("meta"), edges, None, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can(StreamLayer(CHANNELS, HEADS), z, edges, None, None)


@pytest.mark.parametrize("to_firsts", [False, True])
@pytest.mark.parametrize("kind", ["some", "all", "none", "types"])
def test_masks_say_where_the_edges_are(kind: str, to_firsts: bool) -> None:
    edges = edges_of(kind, to_firsts)
    masks, count = edges.masks(torch.float64), FIRSTS if to_firsts else SIZES
    joined = edges.adjacency
    for group, mask in zip(edges.groups.groups, masks.groups, strict=True):
        wanted = joined[group.graphs, : group.receivers, : group.nodes]
        wanted = F.pad(wanted, (0, group.nodes - wanted.shape[2]))
        assert mask.dtype == torch.float64
        assert torch.equal(mask == 0, wanted)
        assert torch.isfinite(mask).all()
    rows = torch.cat([joined[g, :n].any(-1) for g, n in enumerate(count)])
    assert masks.receives is None if rows.all() else torch.equal(masks.receives.bool().squeeze(1), rows)
    assert edges.masks(torch.float64) is masks  # made once


# --- features that are gathered in blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize("convs", [((4, 2), (4, 4)), ((5, 2),), ((7, 3),)], ids=str)
@pytest.mark.parametrize("block", [1, 40, 100])
def test_blocks_of_windows_give_what_all_at_once_give(
    convs: tuple[tuple[int, int], ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder, lengths = ConvEncoder(5, 8, convs).double(), np.array([0, 1, 2, 7, 0, 23])
    steps, windows = torch.randn(lengths.sum(), 5, dtype=torch.double), conv_windows(lengths, convs)
    calls: list[int] = []
    whole = encoders._windows
    monkeypatch.setattr(encoders, "_windows", lambda *given: calls.append(1) or whole(*given))
    found = []
    for numbers in (10**9, block):
        monkeypatch.setattr(encoders, "BLOCK", numbers)
        encoder.zero_grad()
        tokens = encoder(steps, windows)
        (tokens * torch.arange(1.0, tokens.numel() + 1).view(tokens.shape)).sum().backward()
        found.append([tokens.detach(), *(p.grad.clone() for p in encoder.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    assert len(calls) == 2  # forward and backward of the first convolution: its input alone needs no gradient
    monkeypatch.setattr(encoders, "BLOCK", block)
    encoder(steps.requires_grad_(), windows).sum().backward()
    assert steps.grad is not None
    assert len(calls) == 2


def test_blocks_keep_to_what_all_at_once_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision, features made in inference mode and transforms of functions."""
    encoder, windows = ConvEncoder(5, 8, ((4, 2),)), conv_windows(np.array([23]), ((4, 2),))
    steps = torch.randn(23, 5)
    monkeypatch.setattr(encoders, "BLOCK", 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(steps, windows).dtype == torch.bfloat16
    with torch.inference_mode():
        made = steps.clone()
    encoder(made, windows).sum().backward()
    seen = torch.func.vmap(lambda x: encoder(x, windows))(steps.expand(2, -1, -1))
    torch.testing.assert_close(seen[1], encoder(steps, windows))
