"""A training step never waits for a GPU: linted on a CPU, run on ``meta``, and in bfloat16; every model and layer."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.graphs import scope_for
from helpers.sync_lint import Step, step_config, sync_lint

from gmsa.models import MODELS
from gmsa.registry import LAYERS

SCOPES = ("utterance", "dialogue", "hierarchical")
KINDS = ("consistent", "pretrain")
ROUTES = {name: ("edge",) if MODELS[name].route or scope_for(name) else ("dense", "edge") for name in MODELS}
_SELECTS = "selects edges, whose number it has to read"
WAITING: dict[tuple[str, str], tuple[str, dict[str, int]]] = {
    ("hgt", "utterance"): (
        "PyG's HGTConv, without pyg-lib, reads the size of each type and relation",
        {"nonzero": 10, "boolean index": 66, ".item()": 2112},
    ),
    ("hgt", "hierarchical"): (
        "the same, and reads which kinds of edges there are",
        {"nonzero": 20, "boolean index": 175, ".item()": 2112, "unique": 7, ".tolist()": 7, "host tensor": 2},
    ),
    ("sslmm", "dialogue"): (f"a missing modality sends nothing at first: it {_SELECTS}", {"boolean index": 4}),
    ("cogmen", "dialogue"): (f"PyG's RGCNConv {_SELECTS}, of each relation", {"boolean index": 2}),
    ("mmgcn", "dialogue"): (f"PyG's gcn_norm {_SELECTS}, those of nodes to themselves", {"boolean index": 6}),
    ("mtag", "utterance"): (f"it prunes edges between its layers: it {_SELECTS}", {"boolean index": 2}),
    ("rgcn", "utterance"): (f"PyG's RGCNConv {_SELECTS}, of each relation", {"boolean index": 66}),
    ("film", "utterance"): (f"PyG's FiLMConv {_SELECTS}, of each relation", {"boolean index": 66}),
    ("gcn2", "utterance"): (f"PyG's gcn_norm {_SELECTS}, those of nodes to themselves", {"boolean index": 4}),
    ("rgat", "utterance"): (
        "it maps the sources of each relation, whose number it has to read",
        {"nonzero": 4, ".tolist()": 4, "host tensor": 4},
    ),
    ("gps", "utterance"): ("it pads graphs, whose sizes it has to read", {".item()": 12, "bincount": 8}),
    ("hgt layer", "utterance"): (
        "PyG's HGTConv, without pyg-lib, reads the size of each type and relation",
        {"nonzero": 20, "boolean index": 66, ".item()": 2112},
    ),
}
"""Models and layers that make the host wait, in graphs of which scope, why, and how often in a step."""
NAMES = {name.removesuffix(" layer") for name, _ in WAITING}


def waits(name: str, scope: str, route: str) -> bool:
    if name in ("sslmm", "mtag"):
        return (name, route, scope) in {
            ("sslmm", "edge", "dialogue"),
            ("sslmm", "edge", "hierarchical"),
            ("mtag", "edge", "utterance"),
            ("mtag", "edge", "hierarchical"),
        }
    return name in NAMES


steps = [
    pytest.param(name, {"route": route}, scope, kind, id=f"{name}-{route}-{scope}-{kind}")
    for name in sorted(MODELS)
    for route in ROUTES[name]
    for scope in SCOPES
    for kind in KINDS
    if not waits(name, scope, route) and (scope != "utterance" or not scope_for(name))
]
layers = [
    pytest.param(
        "semi_iin",
        {"layer": layer, "route": "auto"},
        scope,
        "supervised",
        id=f"{layer}-{scope}",
        marks=[pytest.mark.slow] * (scope == "hierarchical"),
    )
    for layer in LAYERS
    for scope in ("utterance", "hierarchical")
    if layer == "mtag" or layer not in NAMES
]


def in_turn(name: str, model: dict[str, Any], scope: str, kind: str) -> bool:
    """Whether a step on ``meta`` is in the plain suite: each model with each scope, by its routes and kinds in turn."""
    turn, routes = SCOPES.index(scope), ROUTES[name]
    return kind == KINDS[turn % 2] and model["route"] == routes[turn % len(routes)]


half = [pytest.param(*s.values, id=s.id, marks=[pytest.mark.slow] * (not in_turn(*s.values))) for s in steps]
"""The same steps, of which all but one for each model and scope are slow."""


@pytest.mark.parametrize(("name", "model", "scope", "kind"), [*half, *layers])
def test_a_step_reads_nothing_from_the_device(name: str, model: dict[str, Any], scope: str, kind: str) -> None:
    config = step_config(name, model=model, graph={"scope": scope})
    step = Step(config, kind)
    step()  # the first one makes the optimizer's state
    with sync_lint() as found:
        step()
    assert not found


@pytest.mark.parametrize(("name", "model", "scope", "kind"), [*half, *layers])
def test_a_step_runs_without_values(
    monkeypatch: pytest.MonkeyPatch, name: str, model: dict[str, Any], scope: str, kind: str
) -> None:
    """On ``meta`` whatever needs a value, or mixes in a tensor of the host, raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know meta
    loss = Step(step_config(name, model=model, graph={"scope": scope}), kind, "meta")()
    assert loss.is_meta
    assert loss.shape == ()


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_computes_in_half_precision(name: str, kind: str) -> None:
    graph = scope_for(name)
    loss = Step(step_config(name, optim={"ema": 0.9, "batch_size": 16, "amp": "bf16"}, graph=graph), kind)()
    exact = Step(step_config(name, graph=graph), kind)()
    assert float(loss) == pytest.approx(float(exact), rel=0.1)


def counted(found: Counter[str]) -> dict[str, int]:
    """What was found, by what it is alone."""
    total: Counter[str] = Counter()
    for what, count in found.items():
        total[what.partition(" at ")[0]] += count
    return dict(total)


@pytest.mark.parametrize(("name", "scope"), WAITING)
def test_what_waits_is_known(name: str, scope: str) -> None:
    model: dict[str, Any] = {"route": "edge"} if name in MODELS else {"layer": name.removesuffix(" layer")}
    step = Step(step_config(name if name in MODELS else "semi_iin", model=model, graph={"scope": scope}), "supervised")
    step()
    with sync_lint() as found:
        step()
    assert counted(found) == WAITING[name, scope][1]


def test_the_lint_sees_what_waits() -> None:
    x, flags = torch.arange(4.0), torch.tensor([True, False, True, True])
    with sync_lint() as found:
        assert x[flags].sum().item() + len(flags.nonzero()) + sum(x.tolist()) + torch.tensor(1.0)
        torch.repeat_interleave(torch.arange(3))
        torch.repeat_interleave(torch.arange(3), output_size=3)
        x.index_select(0, torch.arange(2)).cpu()
    assert counted(found) == {
        "boolean index": 1,
        ".item()": 2,  # the sum, and the tensor as a truth
        "nonzero": 1,
        ".tolist()": 1,
        "host tensor": 1,
        "repeat_interleave without its size": 1,
        ".cpu()": 1,
    }
