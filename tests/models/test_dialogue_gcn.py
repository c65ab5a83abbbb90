"""DialogueGCN: worked numbers, and the paper's equations in plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import conversations as talk
from torch import Tensor
from torch_geometric.nn import GraphConv, RGCNConv

from gmsa.config import from_dict
from gmsa.errors import ConfigError
from gmsa.models import DialogueGCN, check
from gmsa.nn import NodalAttention, WeightedRGCN


def toy(tanh: bool = False) -> tuple[DialogueGCN, Any]:
    """The model of the worked example, whose graph layers have two channels, and its graph."""
    config, batch = talk.toy_graph(f"dialogue_gcn(tanh={'true' if tanh else 'false'})")
    model = talk.model_of(config)
    assert isinstance(model, DialogueGCN)
    model.encoder = talk.Fixed()
    model.first, model.second = WeightedRGCN(2, 2, 18, bias=False).double(), GraphConv(2, 2, bias=False).double()
    model.nodal = NodalAttention(4, tanh).double()
    with torch.no_grad():
        model.edge_weight.weight.copy_(torch.tensor([[0.5, 0.2], [-0.3, 0.7]]).T)
        model.first.weight.fill_(torch.nan)
        for r, weight in talk.turn_weights():
            model.first.weight[r] = weight
        model.first.weight[model.first.weight.isnan()] = 9.0  # of a speaker who is silent
        model.first.root.copy_(talk.ROOT)
        model.second.lin_rel.weight.copy_(talk.U.T)
        model.second.lin_root.weight.copy_(talk.U_ROOT.T)
        for parameter in model.nodal.parameters():
            parameter.zero_()
    return model, batch


def test_the_worked_example() -> None:
    model, batch = toy()
    seen: dict[str, Any] = {}
    model.first.register_forward_hook(lambda _, inputs, output: seen.update(first=inputs, h1=output))
    model.second.register_forward_hook(lambda _, inputs, output: seen.update(h2=output))
    states = {m: torch.zeros(3, 2, dtype=torch.float64) for m in talk.DIMS}
    found = model.converse(states, batch)
    _, index, relation, alpha, own = seen["first"]
    is_other = index[0] != index[1]
    others, relation, alpha = index[:, is_other], relation[is_other], alpha[is_other]
    assert others.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]
    pairs = [(1, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0)]  # of two speakers r is 5, 2, 3 and 4
    assert relation.tolist() == [2 * (3 * j + i) + time for j, i, time in pairs]
    torch.testing.assert_close(own, talk.TOY.new_tensor([0.574443, 0.474226, 0.549834]), rtol=0, atol=1e-6)
    expected = talk.TOY.new_tensor([0.425557, 0.174458, 0.351316, 0.450166])
    torch.testing.assert_close(alpha, expected, rtol=0, atol=1e-6)
    h1 = talk.TOY.new_tensor([[0.072333, 0.185111], [0.124362, 0.309203], [0.018970, 0.400000]])
    torch.testing.assert_close(seen["h1"].relu(), h1, rtol=0, atol=1e-6)
    h2 = talk.TOY.new_tensor([[0.040551, 0.099095], [-0.003142, 0.181334], [0.046032, 0.056117]])
    torch.testing.assert_close(seen["h2"], h2, rtol=0, atol=1e-6)
    h = torch.cat([talk.TOY, h2.relu()], dim=1)
    # With W = 0 and b = 0 nodal attention is the mean of the dialogue.
    torch.testing.assert_close(found, h.mean(0).expand(3, -1), rtol=0, atol=1e-6)


def test_the_released_arithmetic_of_the_same_graph() -> None:
    """Its weights of edges in our layer: one relation per pair and time, self-loops too, no mean; the root unweighted.

    Sums instead of means, as its relations have: what would be divided is multiplied first.
    """
    edges = torch.tensor([[0, 1, 0, 1, 2, 1, 2], [0, 0, 1, 1, 1, 2, 2]])
    relation = torch.tensor([1, 5, 2, 7, 3, 4, 1])
    positions = talk.TOY.new_tensor([[0.4, -0.1], [0.2, 0.3], [-0.5, 0.1]])
    weight = torch.zeros(7, dtype=torch.float64)
    for source in range(3):
        leaving = (edges[0] == source).nonzero().flatten()
        scores = torch.stack([positions[source] @ talk.TOY[edges[1, e]] for e in leaving])
        weight[leaving] = scores.softmax(0)
    layer = WeightedRGCN(2, 2, 8).double()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([talk.toy_weight(r) for r in range(8)]))
        layer.root.copy_(talk.ROOT)
    group = 8 * edges[1] + relation
    count = torch.bincount(group)[group]
    h1 = layer(talk.TOY, edges, relation, weight * count)
    expected = talk.TOY.new_tensor([[0.295549, 0.124584], [0.180116, 0.624340], [0.136702, 0.782802]])
    incoming = torch.zeros(3, dtype=torch.float64).index_add(0, edges[1], weight)
    torch.testing.assert_close(incoming, talk.TOY.new_tensor([0.911892, 1.319873, 0.768235]), rtol=0, atol=1e-6)
    torch.testing.assert_close(h1, expected, rtol=0, atol=1e-6)


def converse(model: DialogueGCN, states: list[Tensor], turns: talk.Turns) -> list[Tensor]:
    """The paper's equations, utterance by utterance."""
    g = talk.lstm(model.encoder.lstm, states)
    w_e = model.edge_weight.weight.T
    alpha, h1, h2 = {}, [], []
    for i in range(turns.count):
        scores = {j: (g[i] @ w_e @ g[j]).exp() for j in turns.heard(i)}
        alpha |= {(i, j): score / sum(scores.values()) for j, score in scores.items()}
    for i in range(turns.count):
        row = alpha[i, i] * (g[i] @ model.first.root)
        others = [j for j in turns.heard(i) if j != i]
        for r in {turns.turn(j, i) for j in others}:
            of_relation = [j for j in others if turns.turn(j, i) == r]
            row = row + sum(alpha[i, j] / len(of_relation) * (g[j] @ relation_weight(model, r)) for j in of_relation)
        h1.append(row.clamp(min=0))
    for i in range(turns.count):
        row = h1[i] @ model.second.lin_root.weight.T
        row = row + sum(h1[j] @ model.second.lin_rel.weight.T for j in turns.heard(i) if j != i)
        h2.append(row.clamp(min=0))
    h = [torch.cat(pair) for pair in zip(g, h2, strict=True)]
    return talk.nodal(model.nodal, h, turns.causal, model.nodal.tanh)


def relation_weight(model: DialogueGCN, r: int) -> Tensor:
    layer = model.first
    if layer.coefficients is None:
        return layer.weight[r]
    return sum(a * basis for a, basis in zip(layer.coefficients[r], layer.weight, strict=True))


@pytest.mark.parametrize("context", talk.CONTEXTS)
@pytest.mark.parametrize("name", ["dialogue_gcn", "dialogue_gcn(bases=3, tanh=true)"])
def test_it_equals_its_twin(name: str, context: str) -> None:
    talk.assert_equals_its_twin(name, context, converse)


def test_parameters_and_relations_are_those_of_the_paper() -> None:
    for speakers, count in (("none", 1), ("same_other", 2), (["ann", "bob"], 9)):
        model = talk.model_of(talk.config_of("dialogue_gcn(bases=30)", "dialogue", {"speakers": speakers}))
        assert model.first.coefficients.shape == (2 * count, 30)
        assert model.first.weight.shape == (30, 8, 4)
    assert talk.model_of(talk.config_of("dialogue_gcn")).first.weight.shape == (2, 8, 4)
    with pytest.raises(ConfigError, match=r"'model.name: dialogue_gcn': 'bases' must be 0 or more"):
        talk.model_of(talk.config_of("dialogue_gcn(bases=-1)"))


@pytest.mark.parametrize("name", ["dialogue_gcn", "gcnet"])
def test_channels_that_two_ways_cannot_share_are_refused(name: str) -> None:
    odd = {"model": {"name": name, "channels": 9, "heads": 3}}
    for future in (0, 2):
        config = from_dict(odd | {"graph": {"scope": "dialogue", "future": future}})
        if future:
            with pytest.raises(ConfigError, match=r"'model.channels' must be even .* \(got 9\)"):
                check(config)
        else:
            check(config)
            assert talk.build_model(talk.DIMS, config)
    with pytest.raises(ConfigError, match=r"is a model of conversations; set 'graph.scope'"):
        check(from_dict({"model": {"name": name}}))


def test_one_that_hears_itself_alone_learns_no_weights_of_edges() -> None:
    """The weight of an only edge is 1 whatever its score."""
    config = talk.config_of("dialogue_gcn", "dialogue", {"context": 0})
    model = talk.model_of(config)
    talk.say(model, config, talk.dialogue("a", 4)).logits.square().sum().backward()
    assert not model.edge_weight.weight.grad.any()
    assert model.first.root.grad.any()


# --- its layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bases", [0, 2])
def test_without_weights_the_layer_is_that_of_pyg(bases: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, generator=draw, dtype=torch.float64)  # of which the last is isolated
    index = (torch.rand(5, 5, generator=draw) < 0.5).nonzero().T
    relation = torch.randint(0, 4, index[0].shape, generator=draw)
    layer, conv = WeightedRGCN(5, 3, 4, bases).double(), RGCNConv(5, 3, 4, num_bases=bases or None).double()
    with torch.no_grad():
        layer.bias.normal_()
        conv.weight.copy_(layer.weight)
        conv.root.copy_(layer.root)
        conv.bias.copy_(layer.bias)
        if bases:
            conv.comp.copy_(layer.coefficients)
    found, expected = layer(x, index, relation), conv(x, index, relation)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    order = torch.randperm(index.shape[1], generator=draw)
    torch.testing.assert_close(layer(x, index[:, order], relation[order]), found, rtol=1e-12, atol=1e-12)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    torch.testing.assert_close(layer(x, nothing, nothing[0]), x @ layer.root + layer.bias)


def test_with_one_map_for_all_it_is_a_weighted_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    x, index = torch.randn(4, 3, generator=draw), torch.tensor([[0, 1, 2, 3, 0], [1, 1, 1, 0, 3]])
    weight = torch.rand(5, generator=draw)
    layer = WeightedRGCN(3, 3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3).expand(2, -1, -1))
        layer.root.zero_()
    found = layer(x, index, torch.tensor([0, 1, 0, 1, 1]), weight)
    expected = [weight[3] * x[3], (weight[0] * x[0] + weight[2] * x[2]) / 2 + weight[1] * x[1], 0 * x[0]]
    torch.testing.assert_close(found, torch.stack([*expected, weight[4] * x[0]]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tanh", [False, True])
def test_nodal_attention_stays_in_its_dialogue(tanh: bool, causal: bool) -> None:
    layer, h = NodalAttention(4, tanh, causal).double(), 3 * torch.randn(6, 4, dtype=torch.float64)
    found = layer(h, [1, 3, 2])
    parts = [talk.nodal(layer, rows.unbind(), causal, tanh) for rows in h.split([1, 3, 2])]
    torch.testing.assert_close(found, torch.stack([row for part in parts for row in part]))
    if tanh:  # which bounds how much one may outweigh another
        with torch.no_grad():
            layer.score.weight.copy_(1e3 * torch.eye(4))
        first = layer(torch.tensor([[1.0, 0, 0, 0], [-1.0, 1, 0, 0]], dtype=torch.float64), [2])[-1, 1]
        assert first.item() == pytest.approx(1 / (1 + torch.e**-2), abs=1e-9)
