"""What every registered layer promises to the streams that call it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.layers import (
    EDGES,
    GRAPHS,
    RECEIVERS,
    TYPES,
    assert_same,
    build,
    call,
    described,
    edges,
    listed,
    routes,
    sees_graph,
    states,
    typed_or_not,
    variants,
)
from torch import Tensor

from gmsa.nn import DenseEdges, Relations, SparseEdges, without_sources
from gmsa.registry import LAYERS

every_layer = pytest.mark.parametrize("name", sorted(LAYERS))
every_variant = pytest.mark.parametrize("spec", variants(*sorted(LAYERS)))


# --- what it may depend on --------------------------------------------------------------------------------------------


@every_variant
@typed_or_not
def test_shapes_and_gradients(spec: str, relations: Relations) -> None:
    layer = build(spec, relations)
    for route in routes(spec):
        x = states().requires_grad_()
        y = call(layer, x, edges(route, relations=relations))
        assert y.shape == x.shape
        assert torch.isfinite(y).all()
        y.square().sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        assert x.grad[[0, 1, 2, 3, 4]].any(dim=1).all(), "a node that sends reaches nothing"
        for key, parameter in layer.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key


@every_variant
def test_gradients_are_those_of_the_values(spec: str) -> None:
    layer, list_of_edges = build(spec), edges(routes(spec)[0])
    assert torch.autograd.gradcheck(lambda x: call(layer, x, list_of_edges), states().requires_grad_(), fast_mode=True)


@every_layer
def test_routes_agree(name: str) -> None:
    layer = build(name)
    assert_same(layer, states(), *(partial(lambda route, x: call(layer, x, edges(route)), r) for r in routes(name)))


@every_variant
@pytest.mark.parametrize("receivers", [RECEIVERS, torch.tensor([1, 2, 3, 5]), torch.tensor([2])])
def test_receivers_get_what_they_get_among_all_nodes(spec: str, receivers: Tensor) -> None:
    layer = build(spec)
    for route in routes(spec):
        if route == "dense" and len(receivers) == 1:  # not of every graph
            continue
        # A layer that must see the edges of all nodes gets them.
        chosen = receivers if getattr(layer, "takes_receivers", True) else None
        to_receivers = edges(route, chosen)
        for weights in (None, torch.linspace(-1, 0.5, 6, dtype=torch.double)):
            assert_same(
                layer,
                states(),
                lambda x, route=route, w=weights: call(layer, x, edges(route), None, w).index_select(0, receivers),
                lambda x, e=to_receivers, w=weights: call(layer, x, e, receivers, w),
            )


@every_variant
def test_messages_follow_the_edges_alone(spec: str) -> None:
    """A node's state changes its own row and those of its receivers, and none of another graph."""
    layer = build(spec)
    for route in routes(spec):
        before = call(layer, states(), edges(route))
        for node in range(6):
            x = states()
            x[node] += 1
            changed = (call(layer, x, edges(route)) - before).abs().amax(1) > 1e-9
            hears = {t for s, t in EDGES if s == node} | {node}
            if sees_graph(spec):
                hears = {other for other in range(6) if GRAPHS[other] == GRAPHS[node]}
            assert set(changed.nonzero().flatten().tolist()) <= hears


@every_variant
def test_no_edges_at_all(spec: str) -> None:
    layer = build(spec)
    for route in routes(spec):
        assert_same(layer, states(), lambda x, route=route: call(layer, x, edges(route, chosen=[])))


@every_variant
@pytest.mark.parametrize("chosen", [[], [(0, 0)]], ids=["without an edge", "with a loop"])
def test_one_node(spec: str, chosen: list[tuple[int, int]]) -> None:
    layer = build(spec)
    for route in routes(spec):
        adjacency = torch.tensor([[[bool(chosen)]]])
        only = torch.zeros(1, dtype=torch.long)
        found = DenseEdges(adjacency, only, only) if route == "dense" else listed(only + 1, only, chosen)
        assert_same(layer, states(1), lambda x, found=found: call(layer, x, found))


@every_variant
@typed_or_not
def test_numbering_the_nodes_otherwise_permutes_the_rows(spec: str, relations: Relations) -> None:
    """Within their graphs: a layer that looks at graphs wants their nodes end to end."""
    layer = build(spec, relations)
    if "edge" not in routes(spec):
        pytest.skip("takes no list of edges")
    order = torch.tensor([2, 0, 1, 4, 5, 3]) if sees_graph(spec) else torch.tensor([4, 2, 5, 0, 3, 1])
    place = torch.argsort(order)  # of each node
    before = edges("edge", relations=relations)
    index = place[before.index]
    sort = torch.argsort(index[1], stable=True)
    after = SparseEdges(index[:, sort], relation=before.relation[sort], node_type=TYPES[order], graph=GRAPHS[order])
    assert_same(
        layer, states(), lambda x: call(layer, x, before)[order], lambda x: call(layer, x.index_select(0, order), after)
    )


@every_variant
def test_the_order_of_the_edges_of_a_node_changes_nothing(spec: str) -> None:
    layer = build(spec)
    if "edge" not in routes(spec):
        pytest.skip("takes no list of edges")
    straight, order = edges("edge"), torch.tensor([2, 0, 1, 3, 4, 6, 5])
    other = replace(straight, index=straight.index[:, order], relation=straight.relation[order])
    assert_same(layer, states(), lambda x: call(layer, x, straight), lambda x: call(layer, x, other))


@every_variant
@typed_or_not
def test_a_batch_is_its_graphs_one_by_one(spec: str, relations: Relations) -> None:
    layer = build(spec, relations)
    if "edge" not in routes(spec):
        pytest.skip("takes no list of edges")

    def one_by_one(x: Tensor) -> Tensor:
        found = []
        for rows in ([0, 1, 2], [3, 4, 5]):
            mine = [(s - rows[0], t - rows[0]) for s, t in EDGES if t in rows]
            alone = listed(TYPES[rows], torch.zeros(3, dtype=torch.long), mine, relations)
            found.append(call(layer, x[rows], alone))
        return torch.cat(found)

    assert_same(layer, states(), lambda x: call(layer, x, edges("edge", relations=relations)), one_by_one)


@every_variant
def test_a_source_of_weight_one_is_one_without_weights(spec: str) -> None:
    layer = build(spec)
    zeros = torch.zeros(6, dtype=torch.double)
    for route in routes(spec):
        assert_same(
            layer,
            states(),
            lambda x, route=route: call(layer, x, edges(route)),
            lambda x, route=route: call(layer, x, edges(route), source_log_weight=zeros),
        )


@every_variant
def test_the_weight_of_a_source_matters_to_those_that_hear_it(spec: str) -> None:
    """Its weight has a gradient, and changes no other row, unless by the degrees of those that hear it."""
    layer = build(spec)
    for route in routes(spec):
        weight = torch.zeros(6, dtype=torch.double, requires_grad=True)
        y = call(layer, states(), edges(route), source_log_weight=weight)
        reached = torch.stack([torch.autograd.grad(row.square().sum(), weight, retain_graph=True)[0] for row in y]) != 0
        for target, source in reached.nonzero().tolist() if getattr(layer, "takes_receivers", True) else ():
            assert (source, target) in EDGES or (sees_graph(spec) and GRAPHS[source] == GRAPHS[target])
        for source, target in EDGES:
            # The only edge of its node has all the attention; a layer that is scaled by its source hears a part of it.
            alone = sum(t == target for _, t in EDGES) == 1
            assert reached[target, source] or alone


@every_variant
def test_a_silent_node_reaches_none(spec: str) -> None:
    layer = build(spec)
    silent = torch.tensor([False, True, False, False, True, False])
    for route in routes(spec):
        seen = without_sources(edges(route), silent)
        before = call(layer, states(), seen)
        for node in (1, 4):
            x = states()
            x[node] += 1
            changed = (call(layer, x, seen) - before).abs().amax(1) > 1e-9
            assert set(changed.nonzero().flatten().tolist()) <= {node}


@every_layer
def test_layers_that_take_weights_of_edges_use_them(name: str) -> None:
    layer, plain = build(name), edges(routes(name)[0])
    if not isinstance(plain, SparseEdges):
        pytest.skip("takes no list of edges")
    weighed = plain.weighed(torch.linspace(-2, 1, len(EDGES), dtype=torch.double))
    same = torch.equal(call(layer, states(), plain), call(layer, states(), weighed))
    assert same != getattr(layer, "takes_weights", False)
    ones = plain.weighed(torch.zeros(len(EDGES), dtype=torch.double))
    torch.testing.assert_close(call(layer, states(), ones), call(layer, states(), plain))


# --- numbers ----------------------------------------------------------------------------------------------------------


@every_variant
def test_half_precision_gives_the_type_of_its_input(spec: str) -> None:
    exact, layer = build(spec), build(spec).float()
    expected = call(exact, states(), edges(routes(spec)[0]))
    for route in routes(spec):
        x = states().float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = call(layer, x, edges(route))
        # Semi-IIN's attention ends in a linear map, whose output is of the lower precision.
        assert y.dtype == (torch.bfloat16 if spec == "attention" else torch.float32)
        torch.testing.assert_close(y.double(), expected, rtol=0.1, atol=0.1)
        y.float().sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
    half = build(spec).bfloat16()
    for route in routes(spec):
        if route == "edge" and "attention" in spec:  # its sparse products know no half precision
            continue
        y = call(half, states().bfloat16(), edges(route))
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.double(), expected, rtol=0.2, atol=0.2)


PRINTS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.layers import LAYERS, described, variants
for spec in variants(*sorted(LAYERS)):
    print(described(spec))
"""


@pytest.mark.slow
def test_another_process_with_another_hash_seed_gives_the_same() -> None:
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    done = subprocess.run(
        [sys.executable, "-c", PRINTS],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.splitlines() == [described(spec) for spec in variants(*sorted(LAYERS))]
