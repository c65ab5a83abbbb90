"""MTAG's layer against its equations in plain loops, PyG's GAT, and the numbers of an example by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from gmsa.config import from_dict
from gmsa.errors import ConfigError
from gmsa.models import build_model, check
from gmsa.nn import MTAGLayer, Relations, SparseEdges
from gmsa.nn.layers.mtag import strongest

TYPES = ("text", "audio")
TRIPLES = tuple(
    (a, f"k{i}", b) for i, (a, b) in enumerate([("text", "text"), ("audio", "text"), ("text", "audio")] * 2)
)
NODES = torch.tensor([0, 0, 1, 1, 0, 1, 0])
GRAPH = torch.tensor([0, 0, 0, 0, 1, 1, 1])
EDGES = [(0, 0, 0), (1, 0, 3), (2, 0, 1), (3, 0, 4), (0, 2, 2), (1, 2, 5), (3, 3, 1), (4, 4, 0), (5, 4, 4), (4, 5, 2)]
"""Source, target and relation, sorted by target; nodes 1 and 6 hear nothing."""


def layer_of(keep: float = 1.0, heads: int = 2, dropout: float = 0.1) -> MTAGLayer:
    torch.manual_seed(0)
    layer = MTAGLayer(8, heads, Relations(TYPES, TRIPLES), dropout=dropout, keep=keep).double().eval()
    nn.init.normal_(layer.bias)
    return layer


def edges_of(chosen: list[tuple[int, int, int]] = EDGES) -> SparseEdges:
    source, target, relation = torch.tensor(chosen, dtype=torch.long).view(-1, 3).T
    return SparseEdges(torch.stack([source, target]), relation=relation, node_type=NODES, graph=GRAPH)


def states() -> Tensor:
    return torch.randn(7, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def by_loop(layer: MTAGLayer, x: Tensor, chosen: list[tuple[int, int, int]]) -> tuple[Tensor, dict[int, Tensor]]:
    """The docstring, node by node and head by head; and of each edge its attention, by head."""
    heads, width = layer.a.shape[1:]
    y = [(x[i] @ layer.M[NODES[i]]).view(heads, width) for i in range(len(x))]
    rows, attention = [], {n: [] for n in range(len(chosen))}
    for i in range(len(x)):
        heard = [(n, j, r) for n, (j, t, r) in enumerate(chosen) if t == i]
        parts = []
        for k in range(heads):
            scores = [layer.a[r, k] @ y[j][k] + layer.b[r, k] @ y[i][k] for _, j, r in heard]
            powers = [torch.exp(e if e > 0 else 0.2 * e) for e in scores]
            for (n, _, _), power in zip(heard, powers, strict=True):
                attention[n].append(power / sum(powers))
            zero = torch.zeros(width, dtype=x.dtype)
            parts.append(sum((attention[n][k] * y[j][k] for n, j, _ in heard), start=zero))
        rows.append(torch.cat(parts) + layer.bias)
    return torch.stack(rows), {n: torch.stack(parts) for n, parts in attention.items()}


def test_the_numbers_of_an_example_by_hand() -> None:
    relations = Relations(TYPES, tuple(("text", f"k{i}", "text") for i in range(4)))
    layer = MTAGLayer(2, 1, relations).double().eval()
    r = torch.arange(4.0, dtype=torch.double)
    with torch.no_grad():
        layer.M.copy_(torch.tensor([[[1, 0.5], [0, 1]], [[0.5, 0], [1, -1]]]))
        layer.a.copy_(torch.stack([0.1 * (r + 1), torch.full_like(r, -0.2)], dim=1)[:, None])
        layer.b.copy_(torch.stack([torch.full_like(r, 0.3), 0.1 * (r - 2)], dim=1)[:, None])
    x = torch.tensor([[1, 0], [0, 1], [1, 1], [-1, 0.5], [0.5, -1]], dtype=torch.double)
    types, relation = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 2, 3])
    edges = SparseEdges(
        torch.stack([torch.arange(5), torch.zeros(5, dtype=torch.long)]),
        relation=relation,
        node_type=types,
        graph=torch.zeros(5, dtype=torch.long),
    )
    projected = [[1, 0.5], [0, 1], [1.5, -1], [0, -0.5], [-0.75, 1]]
    torch.testing.assert_close(layer.project(x, types), torch.tensor(projected, dtype=torch.double))
    found, alpha = layer.attend(x, edges)
    shares = torch.tensor([0.166843, 0.143603, 0.353207, 0.203783, 0.132563], dtype=torch.double)
    torch.testing.assert_close(alpha.squeeze(1), shares, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[0], torch.tensor([0.597233, -0.095511]).double(), rtol=0, atol=1e-6)
    assert strongest(alpha, edges.graph[edges.index[0]], 0.8).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_equals_a_loop_in_values_and_gradients(heads: int) -> None:
    layer = layer_of(heads=heads)
    results = []
    for forward in (lambda x: layer.attend(x, edges_of()), lambda x: by_loop(layer, x, EDGES)):
        layer.zero_grad()
        x = states().requires_grad_()
        found, alpha = forward(x)
        alpha = alpha if isinstance(alpha, Tensor) else torch.stack([*alpha.values()])
        (found.sin().sum() + alpha.square().sum()).backward()
        results.append([found, alpha, x.grad, *(p.grad.clone() for p in layer.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert all(g.any() for g in results[0][3:])


def test_sparse_products_and_messages_agree_in_values_and_gradients() -> None:
    layer, results = layer_of(), []
    for route in (layer.sums, lambda w, y, edges, count: layer.messages(w, y, edges.index, count)):
        draw = torch.Generator().manual_seed(2)
        y = torch.randn(7, 2, 4, dtype=torch.double, generator=draw).requires_grad_()
        weight = torch.rand(len(EDGES), 2, dtype=torch.double, generator=draw).requires_grad_()
        found = route(weight, y, edges_of(), 7)
        found.sin().sum().backward()
        results.append([found, y.grad, weight.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_with_one_vector_for_all_relations_it_is_gat_with_projections_by_type() -> None:
    layer, other = layer_of(), GATConv(8, 4, heads=2, add_self_loops=False).double()
    with torch.no_grad():
        layer.a.copy_(layer.a[:1].expand_as(layer.a))
        layer.b.copy_(layer.b[:1].expand_as(layer.b))
        other.lin.weight.copy_(torch.eye(8))
        other.att_src.copy_(layer.a[:1])
        other.att_dst.copy_(layer.b[:1])
        other.bias.copy_(layer.bias)
        expected = other(layer.project(states(), NODES), edges_of().index)
        torch.testing.assert_close(layer(states(), edges_of()), expected)


def test_a_node_that_hears_nothing_is_the_bias() -> None:
    layer = layer_of()
    x = states().requires_grad_()
    found = layer(x, edges_of())
    assert torch.equal(found[[1, 6]], layer.bias.expand(2, -1))
    found[[1, 6]].sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad.any()
    alone = layer(states(), edges_of([]))
    assert torch.equal(alone, layer.bias.expand(7, -1))


def test_receivers_and_the_order_of_nodes_change_nothing() -> None:
    layer, whole = layer_of(), layer_of()(states(), edges_of())
    receivers = torch.tensor([0, 3, 4])
    kept = [(s, receivers.tolist().index(t), r) for s, t, r in EDGES if t in receivers]
    torch.testing.assert_close(layer(states(), edges_of(kept), receivers), whole[receivers])
    order = torch.tensor([3, 1, 0, 2, 6, 4, 5])
    number = torch.argsort(order)
    moved = sorted(((int(number[s]), int(number[t]), r) for s, t, r in EDGES), key=lambda e: (e[1], e[0]))
    source, target, relation = torch.tensor(moved).T
    edges = SparseEdges(torch.stack([source, target]), relation=relation, node_type=NODES[order], graph=GRAPH)
    torch.testing.assert_close(layer(states()[order], edges), whole[order])


def test_a_source_and_an_edge_of_weight_two_count_twice() -> None:
    layer = layer_of()
    twice = sorted([*EDGES, *(e for e in EDGES if e[0] == 3)], key=lambda e: (e[1], e[0]))
    expected = layer(states(), edges_of(twice))
    weight = torch.zeros(7, dtype=torch.double)
    weight[3] = math.log(2)
    torch.testing.assert_close(layer(states(), edges_of(), source_log_weight=weight), expected)
    torch.testing.assert_close(layer(states(), edges_of().weighed(weight[edges_of().index[0]])), expected)


# --- what stays of the edges ------------------------------------------------------------------------------------------


def test_each_group_keeps_its_own_share_whatever_the_others_are() -> None:
    alpha = torch.tensor([[0.1], [0.9], [0.5], [0.5], [0.5], [0.2], [1.0], [0.3], [0.3], [0.4]])
    group = GRAPH[edges_of().index[0]]  # seven edges of the first graph, three of the second
    assert strongest(alpha, group, 1.0).all()
    kept = strongest(alpha, group, 0.5)  # four and two; of equal ones the first
    assert kept.tolist() == [False, True, True, True, False, False, True, True, False, True]
    other = alpha.clone()
    other[7:] = 7.0
    assert strongest(other, group, 0.5)[:7].tolist() == kept[:7].tolist()
    assert strongest(alpha, group, 1e-6).sum() == 2, "one each"
    assert strongest(torch.rand(30, 1), torch.zeros(30, dtype=torch.long), 0.1).sum() == 3
    # The mean over the heads, not each head.
    two = torch.tensor([[0.9, 0.0], [0.4, 0.6]])
    assert strongest(two, torch.zeros(2, dtype=torch.long), 0.5).tolist() == [False, True]


def test_keep_leaves_edges_out_of_its_own_sum_node_by_node() -> None:
    layer = layer_of(keep=0.5)
    assert torch.equal(layer_of(keep=1.0)(states(), edges_of()), layer_of()(states(), edges_of()))
    y, (_, alpha) = layer.project(states(), NODES).view(7, 2, 4), layer.attend(states(), edges_of())
    expected = layer.bias.repeat(7, 1).view(7, 2, 4)
    for i in range(7):
        heard = sorted((-alpha[n].mean().item(), n) for n, edge in enumerate(EDGES) if edge[1] == i)
        for _, n in heard[: math.ceil(len(heard) / 2)]:
            expected[i] += alpha[n, :, None] * y[EDGES[n][0]]
    torch.testing.assert_close(layer(states(), edges_of()), expected.flatten(1))
    receivers = torch.tensor([0, 4])
    kept = [(s, receivers.tolist().index(t), r) for s, t, r in EDGES if t in receivers]
    torch.testing.assert_close(layer(states(), edges_of(kept), receivers), expected.flatten(1)[receivers])


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
@pytest.mark.parametrize("name", ["semi_iin", "sslmm"])
def test_streams_of_other_models_take_it(name: str, scope: str) -> None:
    dims = {"text": 3, "audio": 2}
    graph = {"intra": "temporal", "inter": "mtag"} if scope != "dialogue" else {"speakers": "same_other"}
    model = {"name": name, "channels": 8, "heads": 2, "layer": "mtag(keep=0.7, heads=4)", "input_dropout": 0}
    config = from_dict({"model": model, "graph": {"scope": scope, **graph}})
    check(config)
    torch.manual_seed(0)
    network = build_model(dims, config).eval()
    lengths = [(3, 2), (4, 0), (0, 0), (1, 5)]
    utterances = [clip(f"v{i // 3}$_${i}", dims, n) for i, n in enumerate(lengths)]
    together = network(collate(utterances, config)).value
    together.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    grads = {k.rpartition(".")[2]: p.grad for k, p in network.named_parameters() if ".attention." in k}
    assert {k for k, g in grads.items() if g is not None and g.any()} >= {"M", "a", "b", "bias"}
    alone = torch.cat([network(collate(part, config)).value for part in (utterances[:3], utterances[3:])])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


def test_dropout_is_on_the_attention_and_not_on_what_is_kept() -> None:
    layer = layer_of(dropout=0.5).train()
    found, alpha = layer.attend(states(), edges_of())
    torch.testing.assert_close(alpha, layer_of().attend(states(), edges_of())[1])
    assert not torch.equal(found, layer_of()(states(), edges_of()))


def test_it_has_as_many_weights_as_the_released_code() -> None:
    names = ("text", "audio", "vision")
    triples = tuple((a, f"{t}", b) for a in names for b in names for t in range(3))
    layer = MTAGLayer(64, 4, Relations(names, triples))
    assert len(triples) == 27
    assert sum(p.numel() for p in layer.parameters()) == 15_808


def test_half_precision_and_single_nodes_are_finite() -> None:
    layer = layer_of().float()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(states().float(), edges_of())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, layer(states().float(), edges_of()), rtol=0.05, atol=0.05)
    one = SparseEdges(torch.zeros(2, 1, dtype=torch.long), None, None, *(torch.zeros(1, dtype=torch.long),) * 3)
    assert torch.isfinite(layer(torch.zeros(1, 8), one)).all()
    none = SparseEdges(torch.zeros(2, 0, dtype=torch.long), None, None, *(torch.zeros(0, dtype=torch.long),) * 3)
    assert layer(torch.zeros(0, 8), none).shape == (0, 8)


@pytest.mark.parametrize(("given", "message"), [({"keep": 0}, "'keep' of mtag"), ({"dropout": 1.0}, "'dropout' of mt")])
def test_shares_that_are_none_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MTAGLayer(8, 2, Relations(TYPES, TRIPLES), **given)
    with pytest.raises(ConfigError, match="divisible"):
        MTAGLayer(8, 3, Relations(TYPES, TRIPLES))
