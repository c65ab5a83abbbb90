"""Edges that a model chooses and weighs, against loops over them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gmsa.nn import AngularWeights, Interaction, LearnedChoice, SparseEdges, without_sources

INTRA, TYPES = 3, 5
"""Edge types between nodes of one modality, and with those between modalities; type 5 touches a readout node."""
EDGES = [
    # source, target, type
    (0, 0, 1), (1, 0, 2), (2, 0, 2), (4, 0, 3), (6, 0, 5),
    (0, 1, 0), (1, 1, 1), (2, 1, 2), (5, 1, 4),
    (0, 2, 0), (1, 2, 0), (2, 2, 1),
    (3, 3, 1), (4, 3, 2), (0, 3, 3),
    (3, 5, 0), (4, 5, 0),
]  # fmt: skip
"""Sorted by target; nodes 4 and 6 receive nothing, node 5 not from itself."""
NODES = 7


def states(nodes: int = NODES) -> Tensor:
    return torch.randn(nodes, 8, dtype=torch.double, generator=torch.Generator().manual_seed(3))


def edges(chosen: list[tuple[int, int, int]] = EDGES) -> SparseEdges:
    found = torch.tensor(chosen, dtype=torch.long).view(-1, 3).T
    return SparseEdges(found[:2], found[2])


def choice(neighbors: int) -> LearnedChoice:
    torch.manual_seed(5)
    part = LearnedChoice(8, INTRA, neighbors, rank=4).double()
    torch.nn.init.normal_(part.bias)
    return part


PARTS = {"learned": lambda: choice(1), "angular": lambda: AngularWeights(TYPES)}


def interaction(edge_types: int = TYPES) -> Interaction:
    torch.manual_seed(6)
    layer = Interaction(8, 2, edge_types).double()
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    return layer


def listed(found: SparseEdges) -> list[tuple[int, int, int]]:
    return [(s, t, k) for (s, t), k in zip(found.index.T.tolist(), found.edge_type.tolist(), strict=True)]


def numerical(function, x: Tensor) -> Tensor:
    """The gradient of a scalar function by central differences."""
    found, step = torch.zeros_like(x), 1e-6
    for i in range(x.numel()):
        ahead, behind = x.clone(), x.clone()
        ahead.view(-1)[i] += step
        behind.view(-1)[i] -= step
        found.view(-1)[i] = (function(ahead) - function(behind)) / (2 * step)
    return found


# --- weights in the softmax -------------------------------------------------------------------------------------------


def attend_by_loop(layer: Interaction, x: Tensor, chosen: list[tuple[int, int, int]], weight: Tensor) -> Tensor:
    """Each source counts as often as its edge weighs; weights themselves multiply exponentials."""
    heads = []
    query, (key, value) = layer.query(x).view(len(x), 2, 4), layer.key_value(x).view(len(x), 2, 2, 4).unbind(1)
    for h in range(2):
        rows = []
        for i in range(len(x)):
            total, mixed = torch.zeros((), dtype=x.dtype), torch.zeros(4, dtype=x.dtype)
            for e, (source, target, kind) in enumerate(chosen):
                if target == i:
                    score = query[i, h] @ key[source, h] / 2
                    if kind < TYPES and layer.bias is not None:
                        score = score + layer.bias[kind, h]
                    share = weight[e] * score.exp()
                    total, mixed = total + share, mixed + share * value[source, h]
            rows.append(mixed / total if total > 0 else mixed)
        heads.append(torch.stack(rows))
    return layer.out(torch.cat(heads, dim=1))


@pytest.mark.parametrize("edge_types", [0, TYPES])
@pytest.mark.parametrize("route", ["csr", "messages"])
def test_an_edge_counts_as_often_as_it_weighs(route: str, edge_types: int, monkeypatch) -> None:
    if route == "messages":  # what other devices than a CPU take

        def by_messages(query, key, value, csr, bias):
            return layer.messages(query, key, value, edges().index, bias)

        monkeypatch.setattr("gmsa.nn.layers.attention.edge_attention", by_messages)
    layer = interaction(edge_types)
    weight = torch.rand(len(EDGES), dtype=torch.double, generator=torch.Generator().manual_seed(2)) * 2 + 0.01
    out = torch.randn(NODES, 8, dtype=torch.double, generator=torch.Generator().manual_seed(9))
    found = []
    for by_loop in (False, True):
        x, w = states().requires_grad_(), weight.clone().requires_grad_()
        y = attend_by_loop(layer, x, EDGES, w) if by_loop else layer(x, replace(edges(), log_weight=w.log()))
        gradients = torch.autograd.grad((y * out).sum(), [x, w, *layer.parameters()])
        found.append([y, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_a_weight_of_two_is_the_edge_twice_and_joins_that_of_a_source() -> None:
    layer, twice = interaction(0), [1, 2, 7]
    weight = torch.ones(len(EDGES), dtype=torch.double)
    weight[twice] = 2
    double = [e for i, e in enumerate(EDGES) for _ in range(2 if i in twice else 1)]
    index = torch.tensor(double).T[:2]
    by_messages = layer.messages(
        layer.query(states()).view(-1, 2, 4), *layer.key_value(states()).view(-1, 2, 2, 4).unbind(1), index
    )
    weighed = replace(edges(), log_weight=weight.log())
    torch.testing.assert_close(layer(states(), weighed), layer.out(by_messages.flatten(1)))
    of_sources = torch.randn(NODES, dtype=torch.double)
    joined = replace(edges(), log_weight=weight.log() + of_sources[edges().index[0]])
    torch.testing.assert_close(layer(states(), weighed, source_log_weight=of_sources), layer(states(), joined))


def test_weights_stay_with_their_edges() -> None:
    weighed = replace(edges(), log_weight=torch.arange(float(len(EDGES))))
    gone = torch.zeros(NODES, dtype=torch.bool)
    gone[[0, 4]] = True
    left = without_sources(weighed, gone)
    assert listed(left) == [e for e in EDGES if e[0] not in (0, 4)]
    assert left.log_weight.tolist() == [float(i) for i, e in enumerate(EDGES) if e[0] not in (0, 4)]
    assert weighed.weighed(torch.ones(len(EDGES))).log_weight.tolist() == [i + 1.0 for i in range(len(EDGES))]


# --- a learned choice -------------------------------------------------------------------------------------------------


def scores_by_loop(part: LearnedChoice, x: Tensor, chosen: list[tuple[int, int, int]]) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for source, target, kind in chosen:
        if kind < INTRA and source != target:
            query, key = part.query.weight @ x[target], part.key.weight @ x[source]
            found.append((query * key).sum() / math.sqrt(4) + part.bias[kind])
        else:
            found.append(None)
    return found


def choose_by_loop(part: LearnedChoice, x: Tensor, chosen: list[tuple[int, int, int]]) -> list[int]:
    scores = scores_by_loop(part, x, chosen)
    kept = [e for e, score in enumerate(scores) if score is None]
    for target in range(len(x)):
        rivals = [e for e, s in enumerate(scores) if s is not None and chosen[e][1] == target]
        kept += sorted(rivals, key=lambda e: (-scores[e].item(), e))[: part.neighbors]
    return sorted(kept)


@pytest.mark.parametrize("neighbors", [0, 1, 2, 100_000])
def test_the_highest_scores_are_kept(neighbors: int) -> None:
    part, x = choice(neighbors), states()
    found = part(x, edges())
    kept = choose_by_loop(part, x, EDGES)
    assert listed(found) == [EDGES[e] for e in kept]
    scores = scores_by_loop(part, x, EDGES)
    expected = [0.0 if scores[e] is None else -math.log1p(math.exp(-scores[e].item())) for e in kept]
    torch.testing.assert_close(found.log_weight, torch.tensor(expected, dtype=torch.double))


def test_of_equal_scores_the_first_edge_is_kept() -> None:
    part = choice(1)
    for parameter in part.parameters():
        torch.nn.init.zeros_(parameter)
    assert {e for e in EDGES if e[2] < INTRA and e[0] != e[1]} & {*listed(part(states(), edges()))} == {
        (1, 0, 2), (0, 1, 0), (0, 2, 0), (4, 3, 2), (3, 5, 0)
    }  # fmt: skip


def test_the_gradient_of_a_layer_reaches_the_scores() -> None:
    part, layer = choice(1), interaction()
    out = torch.randn(NODES, 8, dtype=torch.double, generator=torch.Generator().manual_seed(9))

    def loss(x: Tensor) -> Tensor:
        return (layer(x, part(x, edges())) * out).sum()

    x = states().requires_grad_()
    found = torch.autograd.grad(loss(x), [x, *part.parameters()])
    torch.testing.assert_close(found[0], numerical(lambda x: loss(x).detach(), states()), rtol=1e-6, atol=1e-7)
    for gradient, (name, parameter) in zip(found[1:], part.named_parameters(), strict=True):
        assert gradient.abs().max() > 1e-4, name
        value = parameter.detach().clone()

        def moved(value: Tensor, parameter: Tensor = parameter) -> Tensor:
            with torch.no_grad():
                parameter.copy_(value)
                return loss(states())

        expected = numerical(moved, value)
        moved(value)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("part", PARTS)
def test_other_nodes_numbers_change_nothing(part: str) -> None:
    """Nodes are renumbered, so that the edges come in another order."""
    weigh = PARTS[part]()
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(1))  # new number of each node
    moved = sorted(((int(order[s]), int(order[t]), k) for s, t, k in EDGES), key=lambda e: (e[1], e[0]))
    x, layer = states(), interaction()
    y = torch.empty_like(x).index_copy(0, order, x)
    torch.testing.assert_close(layer(y, weigh(y, edges(moved)))[order], layer(x, weigh(x, edges())))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("chosen", [[], [(6, 0, 5)], [(0, 0, 1)]], ids=["none", "readout", "self"])
def test_nodes_that_hear_nobody_stay_finite(part: str, chosen: list[tuple[int, int, int]]) -> None:
    x, layer = states().requires_grad_(), interaction()
    found = PARTS[part]()(x, edges(chosen))
    assert listed(found) == chosen
    y = layer(x, found)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


def test_a_very_low_score_stays_finite() -> None:
    part, layer = choice(1), interaction()
    with torch.no_grad():
        part.bias.fill_(-1e4)
    x = states().requires_grad_()
    y = layer(x, part(x, edges()))
    y.square().sum().backward()
    assert all(torch.isfinite(p).all() for p in (y, x.grad, part.bias.grad, part.query.weight.grad))


@pytest.mark.parametrize("part", PARTS)
def test_scores_are_of_single_precision_in_mixed_precision(part: str) -> None:
    weigh = PARTS[part]().float()
    exact = weigh(states().float(), edges())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = weigh(states().float(), edges())
    assert torch.equal(mixed.index, exact.index)
    assert torch.equal(mixed.log_weight, exact.log_weight)
    assert mixed.log_weight.dtype == torch.float32


# --- MMGCN's weights --------------------------------------------------------------------------------------------------


def weights(x: Tensor) -> Tensor:
    """The weights between all nodes as a matrix."""
    n = len(x)
    index = torch.stack([torch.arange(n).repeat(n), torch.arange(n).repeat_interleave(n)])
    found = AngularWeights(1)(x, SparseEdges(index, torch.zeros(n * n, dtype=torch.long)))
    assert torch.equal(found.index, index)
    return found.log_weight.exp().view(n, n)


def test_the_weights_are_those_of_mmgcn() -> None:
    x = torch.tensor([[1, 0], [1, 1], [0, 1], [2, 1]], dtype=torch.double)  # t0, t1, a0, a1
    expected = [
        [0.998576, 0.749997, 0.500000, None],
        [0.749997, 0.998576, None, 0.897574],
        [0.500000, None, 0.998576, 0.647582],
        [None, 0.897574, 0.647582, 0.998576],
    ]
    found = weights(x)
    for row, wanted in zip(found.tolist(), expected, strict=True):
        for value, target in zip(row, wanted, strict=True):
            assert target is None or abs(value - target) < 5e-7
    degrees = (found * torch.tensor([[w is not None for w in row] for row in expected])).sum(1)
    assert degrees.tolist() == pytest.approx([2.248573, 2.646147, 2.146158, 2.543733], abs=1e-6)


def test_the_weights_are_symmetric_and_know_no_length() -> None:
    x = states()
    found = weights(x)
    assert torch.equal(found, found.T)
    assert found.diagonal().tolist() == pytest.approx([0.998576] * NODES, abs=5e-7)
    assert found.min() >= 0.001423
    scale = torch.logspace(-3, 5, NODES, dtype=torch.double)[:, None]
    torch.testing.assert_close(weights(x * scale), found)
    assert weights(torch.stack([x[0], -x[0]]))[0, 1].item() == pytest.approx(0.001424, abs=5e-7)


def test_their_gradient_is_that_of_differences_and_finite_at_equal_and_zero_states() -> None:
    out = torch.randn(NODES, NODES, dtype=torch.double, generator=torch.Generator().manual_seed(9))
    x = states().requires_grad_()
    (gradient,) = torch.autograd.grad((weights(x) * out).sum(), [x])
    expected = numerical(lambda x: (weights(x) * out).sum(), states())
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    x = states().index_fill(0, torch.tensor([2]), 0.0)
    x[1] = x[0]
    x.requires_grad_()
    found = weights(x)
    found.log().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert found[2].tolist() == pytest.approx([0.5] * NODES)


def test_edges_of_readout_nodes_weigh_one() -> None:
    found = AngularWeights(TYPES)(states(), edges())
    for (_, _, kind), weight in zip(EDGES, found.log_weight.tolist(), strict=True):
        assert (weight == 0) == (kind == TYPES)
