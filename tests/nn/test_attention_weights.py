"""The weights that layers with attention tell, against their formulas edge by edge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.layers import CHANNELS, EDGES, GRAPHS, RECEIVERS, TYPES, build, edges, part, states
from torch import Tensor

from gmsa.nn import NodalAttention, SparseEdges
from gmsa.registry import LAYERS

Score = Callable[[Any, Tensor, Tensor, int], Tensor]
"""Of a layer, the states of both ends of an edge, and its relation: ``[H]``."""


def heads(x: Tensor, count: int = 2) -> Tensor:
    return x.view(count, -1)


def of_interaction(layer: Any, source: Tensor, target: Tensor, _: int) -> Tensor:
    key = layer.key_value(source)[:CHANNELS]
    return (heads(layer.query(target)) * heads(key)).sum(1) / math.sqrt(CHANNELS / 2)


def of_transformer(layer: Any, source: Tensor, target: Tensor, relation: int) -> Tensor:
    key = layer.conv.lin_key(source) + layer.embedding.weight[relation]
    return (heads(layer.conv.lin_query(target)) * heads(key)).sum(1) / math.sqrt(CHANNELS / 2)


def of_gatv2(layer: Any, source: Tensor, target: Tensor, relation: int) -> Tensor:
    both = layer.conv.lin_r(target) + layer.conv.lin_l(source) + layer.embedding.weight[relation]
    return (heads(F.leaky_relu(both, 0.2)) * layer.conv.att[0]).sum(1)


def of_rgat(layer: Any, source: Tensor, target: Tensor, relation: int) -> Tensor:
    weight = layer.conv.weight[relation]
    return F.leaky_relu(target @ weight @ layer.conv.q + source @ weight @ layer.conv.k, 0.2)


def of_hgt(layer: Any, source: Tensor, target: Tensor, relation: int) -> Tensor:
    conv, (begin, name, end) = layer.conv, layer.relations[relation]
    key, _, _ = conv.kqv_lin.lins[begin](source).chunk(3)
    _, query, _ = conv.kqv_lin.lins[end](target).chunk(3)
    count, number = len(conv.edge_types), conv.edge_types_map[begin, name, end]
    mapped = [k @ conv.k_rel.weight[h * count + number] for h, k in enumerate(heads(key))]
    score = (torch.stack(mapped) * heads(query)).sum(1) / math.sqrt(CHANNELS / 2)
    return score * conv.p_rel["__".join((begin, name, end))][0]


def of_mtag(layer: Any, source: Tensor, target: Tensor, relation: int) -> Tensor:
    """Of ends that are projected by their types."""
    return F.leaky_relu((heads(source) * layer.a[relation] + heads(target) * layer.b[relation]).sum(1), 0.2)


SCORES: dict[str, Score] = {
    "attention": of_interaction,
    "transformer": of_transformer,
    "gatv2": of_gatv2,
    "rgat": of_rgat,
    "hgt": of_hgt,
    "mtag": of_mtag,
}


def by_hand(layer: Any, score: Score, x: Tensor, listed: SparseEdges, receivers: Tensor) -> Tensor:
    """The softmax over the edges of each receiver ``[E, H]``, one edge after the other."""
    assert listed.relation is not None
    if score is of_mtag:
        x = torch.stack([row @ layer.M[t] for row, t in zip(x, TYPES, strict=True)])
    pairs = zip(*listed.index.tolist(), listed.relation.tolist(), strict=True)
    found = torch.stack([score(layer, x[s], x[receivers[t]], r) for s, t, r in pairs]).exp()
    target = listed.index[1]
    return torch.stack([weight / found[target == t].sum(0) for weight, t in zip(found, target, strict=True)])


@pytest.mark.parametrize("receivers", [None, RECEIVERS], ids=["all", "receivers"])
@pytest.mark.parametrize("spec", SCORES)
def test_weights_are_the_softmax_of_the_formula(spec: str, receivers: Tensor | None) -> None:
    layer, x, listed = build(spec), states(), edges("edge", receivers)
    to = torch.arange(6) if receivers is None else receivers
    found = layer.attention_weights(x, listed, receivers)
    assert found.source.tolist() == listed.index[0].tolist()
    assert found.target.tolist() == to[listed.index[1]].tolist()
    torch.testing.assert_close(found.weight.double(), by_hand(layer, SCORES[spec], x, listed, to), rtol=1e-5, atol=1e-7)
    sums = torch.zeros(6, 2, dtype=torch.double).index_add(0, found.target, found.weight.double())
    heard = sorted({*found.target.tolist()})
    torch.testing.assert_close(sums[heard], torch.ones(len(heard), 2, dtype=torch.double))
    assert found.meaning == "softmax over the edges to each node"


def test_the_weights_of_relations_sum_to_one_each_where_the_softmax_is_within() -> None:
    layer, x, listed = build("rgat(attention=within)"), states(), edges("edge")
    found = layer.attention_weights(x, listed)
    assert listed.relation is not None
    for target, relation in {*zip(found.target.tolist(), listed.relation.tolist(), strict=True)}:
        chosen = (found.target == target) & (listed.relation == relation)
        torch.testing.assert_close(found.weight[chosen].sum(0), torch.ones(2, dtype=torch.double))
    assert found.meaning == "softmax over the edges of each relation to each node"


def test_the_dense_route_tells_the_same_weights() -> None:
    layer, x = build("attention"), states()
    dense, listed = (layer.attention_weights(x, edges(route, RECEIVERS), RECEIVERS) for route in ("dense", "edge"))
    for one, other in ((dense, listed), (listed, dense)):
        numbered = {(s, t): w for s, t, w in zip(one.source.tolist(), one.target.tolist(), one.weight, strict=True)}
        for s, t, w in zip(other.source.tolist(), other.target.tolist(), other.weight, strict=True):
            torch.testing.assert_close(numbered[s, t], w)


def test_what_mtag_leaves_out_has_no_weight() -> None:
    whole, kept = build("mtag"), build("mtag(keep=0.5)")
    x, listed = states(), edges("edge")
    found, all_of = kept.attention_weights(x, listed), whole.attention_weights(x, listed).weight
    assert "the strongest 50 % of these" in found.meaning
    for node in {*found.target.tolist()}:
        at = (found.target == node).nonzero().squeeze(1)
        strongest = at[all_of[at].mean(1).argsort(descending=True)][: math.ceil(len(at) / 2)].tolist()
        for e in at.tolist():
            torch.testing.assert_close(found.weight[e], all_of[e] if e in strongest else torch.zeros_like(all_of[e]))


def test_weights_of_edges_and_of_sources_count_in_the_softmax() -> None:
    of_edges = torch.linspace(-2, 0, len(EDGES), dtype=torch.double)
    of_sources = torch.linspace(0, -3, 6, dtype=torch.double)
    for spec in ("attention", "mtag"):
        layer, x, listed = build(spec), states(), edges("edge")
        before = layer.attention_weights(x, listed).weight
        found = layer.attention_weights(x, listed.weighed(of_edges), None, of_sources)
        counted = before * (of_edges + of_sources[found.source]).exp()[:, None]
        sums = torch.zeros(6, 2, dtype=torch.double).index_add(0, found.target, counted)
        torch.testing.assert_close(found.weight.double(), counted / sums[found.target])
        assert "counts as often as its weight says" in found.meaning


def test_gps_attends_to_the_whole_graph() -> None:
    layer, x = build("gps(local=gatv2)"), states()
    found = layer.attention_weights(x, edges("edge", RECEIVERS), RECEIVERS)
    pairs = [(s, t) for t in RECEIVERS.tolist() for s in range(6) if GRAPHS[s] == GRAPHS[t]]
    assert [*zip(found.source.tolist(), found.target.tolist(), strict=True)] == pairs
    score = torch.stack([of_interaction(layer.attention, x[s], x[t], 0) for s, t in pairs])
    expected = torch.cat([score[:3].softmax(0), score[3:].softmax(0)])
    torch.testing.assert_close(found.weight.double(), expected, rtol=1e-5, atol=1e-7)
    assert "all nodes of the graph" in found.meaning


def test_all_other_layers_have_none() -> None:
    for spec in sorted({*LAYERS} - {*SCORES, "gps"}):
        assert build(spec).attention_weights(states(), edges("edge")) is None, spec
    assert {*LAYERS} - {*SCORES, "gps"} == {"sage", "gine", "film", "gcn2", "rgcn"}
    assert all(hasattr(part(spec).func, "attention_weights") for spec in SCORES)


@pytest.mark.parametrize("causal", [False, True])
def test_nodal_attention_weighs_all_pairs_of_a_dialogue(causal: bool) -> None:
    torch.manual_seed(0)
    nodal, h, sizes = NodalAttention(8, tanh=True, causal=causal).double(), torch.randn(5, 8).double(), [2, 3]
    found = nodal.attention_weights(h, sizes)
    expected = {}
    for first, size in ((0, 2), (2, 3)):
        for i in range(first, first + size):
            heard = [*range(first, i + 1 if causal else first + size)]
            weights = torch.stack([torch.tanh(nodal.score(h[i]) @ h[j]) for j in heard]).softmax(0)
            expected |= {(j, i): w for j, w in zip(heard, weights.tolist(), strict=True)}
    told = zip(found.source.tolist(), found.target.tolist(), found.weight[:, 0].tolist(), strict=True)
    assert {(s, t): w for s, t, w in told} == pytest.approx(expected)
