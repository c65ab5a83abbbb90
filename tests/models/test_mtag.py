"""MTAG against its equations in plain loops, token by token and edge by edge, and what may reach an answer."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor

from gmsa.config import Config, from_dict, load_config
from gmsa.data import Target, Utterance
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models import MTAG, StreamRelations, build_model, check, reach
from gmsa.models.pretraining import PretrainingModel
from gmsa.training.checkpoint import save_weights
from gmsa.training.examples import labeled_examples
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.tasks import FineTuning

DIMS = {"text": 4, "audio": 2, "vision": 3}
LENGTHS = [(3, 5, 2), (4, 0, 4), (0, 0, 0), (1, 6, 0), (0, 3, 0), (2, 2, 2)]
PAST, PRESENT, FUTURE = "past", "present", "future"


def config_of(name: str = "mtag", graph: dict[str, Any] | None = None, target: Any = None, **model: Any) -> Config:
    settings = {"channels": 8, "heads": 2, "layers": 3, "encoders": [[1, 1]]} | model | {"name": name}
    edges = {"intra": "mtag", "inter": "mtag"} if (graph or {}).get("scope") != "dialogue" else {}
    return from_dict({"model": settings, "graph": edges | (graph or {})} | ({"target": target} if target else {}))


def model_of(config: Config) -> MTAG:
    torch.manual_seed(0)
    model = build_model(DIMS, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def clips(video: str = "v{}") -> list[Utterance]:
    return [clip(f"{video.format(i)}$_${i}", DIMS, lengths) for i, lengths in enumerate(LENGTHS)]


def in_double(batch: GraphBatch) -> GraphBatch:
    return replace(batch, features={m: x.double() for m, x in batch.features.items()})


def say(model: MTAG, config: Config, utterances: list[Utterance]) -> Tensor:
    output = model(in_double(collate(utterances, config)))
    return torch.cat([output.value[:, None], output.logits, output.features], dim=1)


# --- the whole model, in loops ----------------------------------------------------------------------------------------


def windows(owners: int, steps: int) -> list[range]:
    if owners == 1:
        return [range(steps)]
    if steps < 2 * owners:
        pairs = steps - owners
        begins = [2 * i if i < pairs else pairs + i - (pairs > 0) for i in range(owners)]
        return [range(min(b, steps - 2), min(b, steps - 2) + 2) for b in begins]
    stride = max(2, (steps // (owners - 1) + 1) // 2)
    width = steps - (owners - 1) * stride
    if width < 2:
        stride, width = (steps - 2) // (owners - 1), 2
    return [range(stride * i, stride * i + width) for i in range(owners)]


def time_of(source: tuple[str, int], target: tuple[str, int], sizes: dict[str, int]) -> str | None:
    """Where the source is, seen from the target; None where no edge joins them."""
    (m, i), (n, j) = source, target
    if m == n:
        return {-1: PAST, 0: PRESENT, 1: FUTURE}.get(i - j)
    (_, owner), (_, other) = sorted([((sizes[m], m), source), ((sizes[n], n), target)])
    window = windows(*sorted((sizes[m], sizes[n])))[owner[1]]
    if other[1] in window:
        return PRESENT
    return FUTURE if (other[1] > window[-1]) == (other is source) else PAST


def by_loop(model: MTAG, utterance: Utterance, config: Config, keep: float) -> Tensor:
    """Intensity, class scores and features of one utterance."""
    batch = in_double(collate([utterance], config))
    z0 = model.embedding(batch)
    sizes = {m: n for m, n in utterance.lengths.items() if n}
    nodes = [(m, i) for m in ("audio", "text", "vision") for i in range(sizes.get(m, 0))]
    names = model.layers.relations.triples
    edges = []
    for target in nodes:
        for source in nodes:
            if time := time_of(source, target, sizes):
                kind = "intra" if source[0] == target[0] else "inter"
                edges.append((source, target, names.index((source[0], f"{kind} {time}", target[0]))))
    x = dict(zip(nodes, z0, strict=True))
    for layer in model.layers.layers:
        heads, width = layer.a.shape[1:]
        types = model.layers.relations.node_types
        y = {node: (row @ layer.M[types.index(node[0])]).view(heads, width) for node, row in x.items()}
        power = {}
        for source, target, r in edges:
            e = torch.stack([layer.a[r, k] @ y[source][k] + layer.b[r, k] @ y[target][k] for k in range(heads)])
            power[source, target] = torch.where(e > 0, e, 0.2 * e).exp()
        alpha = {}
        for source, target, _ in edges:
            alpha[source, target] = power[source, target] / sum(power[s, t] for s, t, _ in edges if t == target)
        zero = torch.zeros(heads, width, dtype=torch.double)
        x = {
            node: sum((alpha[s, t][:, None] * y[s] for s, t, _ in edges if t == node), start=zero).flatten()
            + layer.bias
            for node in nodes
        }
        count = math.ceil(round(keep * len(edges), 9))
        ranked = sorted(range(len(edges)), key=lambda n: -alpha[edges[n][:2]].mean().item())[:count]
        edges = [edges[n] for n in sorted(ranked)]
    feature = torch.stack([*x.values()]).mean(0) if x else torch.zeros(8, dtype=torch.double)
    hidden = model.heads.mlp(feature)
    return torch.cat([model.heads.value(hidden), model.heads.classes(hidden), feature])


@pytest.mark.parametrize("keep", [1.0, 0.8, 0.3])
def test_it_equals_a_loop_in_values_and_gradients(keep: float) -> None:
    config = config_of(f"mtag(keep={keep})")
    model, results = model_of(config), []
    for forward in (
        lambda: say(model, config, clips()),
        lambda: torch.stack([by_loop(model, u, config, keep) for u in clips()]),
    ):
        model.zero_grad()
        found = forward()
        found.sin().sum().backward()
        results.append([found.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 20
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


# --- what may reach an answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_an_answer_knows_no_other_utterance_of_its_batch(keep: float) -> None:
    config = config_of(f"mtag(keep={keep})")
    model = model_of(config)
    together = say(model, config, clips())
    for i, utterance in enumerate(clips()):
        torch.testing.assert_close(say(model, config, [utterance])[0], together[i], rtol=0, atol=1e-11)
    louder = [replace(u, features={m: 9 * x + 1 for m, x in u.features.items()}) for u in clips()[1:]]
    torch.testing.assert_close(say(model, config, [clips()[0], *louder])[0], together[0], rtol=0, atol=1e-11)
    order = [4, 1, 0, 5, 2, 3]
    shuffled = say(model, config, [clips()[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-11)


def test_each_layer_passes_on_its_share_of_the_edges_of_each_utterance() -> None:
    config = config_of("mtag(keep=0.8)", layers=4)
    model, batch = model_of(config), in_double(collate(clips(), config))
    seen: list[Tensor] = []
    for layer in model.layers.layers:
        plain = layer.attend
        layer.attend = lambda x, edges, *rest, plain=plain: (seen.append(edges.graph[edges.index[0]]), plain(x, edges))[
            1
        ]
    model(batch)
    counts = torch.stack([torch.bincount(graph, minlength=len(clips())) for graph in seen])
    for before, after in itertools.pairwise(counts):
        assert after.tolist() == [math.ceil(round(0.8 * n, 9)) for n in before.tolist()]
    assert counts[0].tolist() == [2 * (15 + 6 + 10) + 7 + 13 + 4, 2 * 16 + 20, 0, 2 * 6 + 1 + 16, 7, 2 * 12 + 12]


def test_values_and_gradients_are_finite_when_hardly_an_edge_is_left() -> None:
    config = config_of("mtag(keep=0.01)", layers=4)
    model = model_of(config).train()
    for utterances in (clips(), clips()[2:3], clips()[4:5]):
        model.zero_grad()
        found = say(model, config, utterances)
        assert torch.isfinite(found).all()
        found.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# --- settings and scopes ----------------------------------------------------------------------------------------------


def test_it_has_the_papers_27_relations_and_as_many_weights() -> None:
    model = build_model(DIMS, config_of(channels=64, heads=4, layers=6))
    assert len(model.layers.relations) == 27
    assert model.layers.relations.node_types == ("audio", "text", "vision")
    assert sum(p.numel() for p in model.layers.parameters()) == 6 * 15_808
    plain = build_model(DIMS, config_of(graph={"intra": "complete", "inter": "complete"}))
    assert len(plain.layers.relations) == 9
    assert [len(r) for r in StreamRelations.of(config_of()).streams.values()].count(0) == 0


def test_the_packaged_config_is_the_papers_model() -> None:
    config = load_config("mosi_mtag")
    check(config)
    model = build_model(DIMS, config)
    assert sum(p.numel() for p in model.layers.parameters()) == 6 * 15_808
    assert {*config.graph.intra.values(), *config.graph.inter.values()} == {"mtag"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mtag(keep=0)", "'keep' of mtag must be above 0"),
        ("mtag(keep=1.5)", "'keep' of mtag must be"),
        ("mtag(attention_dropout=1)", "'dropout' of mtag"),
        ("mtag(relations=1)", "no parameter 'relations'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_any_work(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config_of(name))


SCOPES = [("dialogue", {"layers": 2}, 2, 0), ("hierarchical", {"context_layers": 2, "propagation": 0}, 2, 1)]


@pytest.mark.parametrize(("scope", "settings", "hops", "inside"), SCOPES, ids=["dialogue", "hierarchical"])
def test_gradients_reach_the_utterances_within_its_hops_alone(
    scope: str, settings: dict[str, Any], hops: int, inside: int
) -> None:
    for past, future in ((1, 0), (2, 1)):
        config = config_of(graph={"scope": scope, "past": past, "future": future}, **settings)
        assert reach(config) == (hops * past, hops * future)
        model = model_of(config)
        batch = in_double(collate([clip(f"a$_${i}", DIMS, (2, 1, 2)) for i in range(9)], config))
        for x in batch.features.values():
            x.requires_grad_()
        output = model(batch)
        total = output.value[4].sin() + output.logits[4].square().sum()
        gradients = torch.autograd.grad(total, [*batch.features.values()])
        heard = torch.stack([g.view(9, -1).abs().sum(1) for g in gradients]).sum(0)
        assert heard.nonzero().flatten().tolist() == [*range(4 - hops * past, 4 + hops * future + 1)]


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("between", ["window", "learned(neighbors=1)"])
def test_no_later_utterance_changes_an_answer(scope: str, between: str) -> None:
    config = config_of(graph={"scope": scope, "past": 2, "future": 0, "between": between, "speakers": "same_other"})
    check(config)
    model, utterances = model_of(config), clips("a")
    before = say(model, config, utterances)
    changed = [*utterances[:3], clip("a$_$3", DIMS, (4, 1, 4)), *utterances[4:]]
    after = say(model, config, changed)
    torch.testing.assert_close(after[:3], before[:3], rtol=0, atol=1e-12)
    assert (after[3:5] - before[3:5]).abs().amax(1).min() > 1e-9
    torch.testing.assert_close(say(model, config, utterances[:3]), before[:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_classes_and_pre_training(scope: str) -> None:
    classes = {"kind": "classes", "classes": ["joy", "anger", "calm"]}
    config = config_of(graph={"scope": scope}, target=classes)
    check(config)
    output = build_model(DIMS, config)(collate(clips("a"), config))
    assert output.value is None
    assert output.logits.shape == (6, 3)
    config = config_of(graph={"scope": scope})
    module = PretrainingModel(build_model(DIMS, config), DIMS, config)
    utterances = [u for u in clips("a") + clips("b") if any(u.lengths.values())]
    for batch in pretraining_batches(utterances, config, 1, "pretrain", 1):
        losses = module(batch)
        assert batch.targets
        sum(losses).backward()
    grads = {n: p.grad for n, p in module.named_parameters() if n.startswith("model.") and p.grad is not None}
    assert all(torch.isfinite(g).all() for g in grads.values())
    assert any(g.any() for n, g in grads.items() if ".M" in n)


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_training_reaches_the_weights_of_every_relation_that_has_edges(scope: str) -> None:
    graph = {"scope": scope, "speakers": "same_other", "past": 2, "future": 2}
    config = config_of("mtag(keep=1, attention_dropout=0)", graph, input_dropout=0, dropout=0, layers=2)
    utterances = [clip(f"a$_${i}", DIMS, (4, 6, 5), label=i - 3.0, speaker="xyz"[i % 3]) for i in range(6)]
    torch.manual_seed(0)
    task = FineTuning(config, DIMS, labeled_examples(utterances, Target()), utterances, [], torch.device("cpu"))
    model, (batch,) = task.build_module(), task.batches(1)
    task.loss(model, batch, None, 0.0).backward()
    stacks = [(model.layers, batch[0])]
    if scope == "hierarchical":
        stacks.append((model.outside_layers, batch[0].dialogues))
    for stack, graphs in stacks:
        there = stack.number[graphs.edges["global"].relation].unique().tolist()
        assert len(there) >= 9
        for layer in stack.layers:
            for weight in (layer.a, layer.b):
                assert weight.grad.flatten(1).any(1).nonzero().flatten().tolist() == there
            assert layer.M.grad.flatten(1).any(1).all()
            assert layer.bias.grad.any()


@pytest.mark.slow
def test_saved_weights_mean_the_same_in_a_process_that_hashes_otherwise(tmp_path: Path) -> None:
    config = config_of()
    save_weights(tmp_path / "model.safetensors", model_of(config).state_dict())
    np.save(tmp_path / "said.npy", say(model_of(config), config, clips()).detach().numpy())
    script = """
import numpy as np, pathlib
import test_mtag as here
from gmsa.training.checkpoint import load_weights
config = here.config_of()
model = here.build_model(here.DIMS, config).double().eval()
model.load_state_dict(load_weights(pathlib.Path("model.safetensors")))
assert np.array_equal(here.say(model, config, here.clips()).detach().numpy(), np.load("said.npy"))
"""
    tests, gmsa = Path(__file__).parents[1], Path(sys.modules["gmsa"].__file__).parents[1]
    for seed in ("1", "2"):
        paths = f"{gmsa}:{tests}:{Path(__file__).parent}"
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=env, timeout=120)
