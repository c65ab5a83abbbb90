"""Models on graphs of dialogues: what may reach an answer, what gradients reach, and a twin in plain loops."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.graphs import clip, collate
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from gmsa.config import Config, from_dict
from gmsa.data import Target, Utterance
from gmsa.graph import READOUTS, GraphBatch
from gmsa.models import Model, build_model
from gmsa.models.reach import reach
from gmsa.training.examples import labeled_examples
from gmsa.training.tasks import FineTuning

DIMS = {"text": 4, "audio": 2, "vision": 3}
NAMES = ("semi_iin", "sslmm", "global", "late_fusion", "hgt", "mtag")
SCOPES = ("dialogue", "hierarchical")
CONTEXTS: dict[str, dict[str, Any]] = {
    "window": {"past": 2, "future": 1},
    "speakers": {"past": "all", "future": 2, "speakers": "same_other", "dialogue_node": True},
    "knn": {"past": 3, "future": 3, "between": "knn(neighbors=1)", "speakers": ("ann", "bob"), "distances": 2},
    "same speaker": {"context": "all", "between": "speaker", "dialogue_node": True, "distances": 3},
}
LENGTHS = [(2, 3, 1), (1, 0, 2), (0, 0, 0), (3, 1, 0), (2, 2, 2), (0, 4, 1)]
SPEAKERS = ("ann", "bob", "ann", "eve", "bob", "bob")


def config_of(name: str, scope: str, graph: dict[str, Any] | None = None, **model: Any) -> Config:
    settings = {"name": name, "channels": 8, "heads": 2, "encoders": {"audio": [[3, 2]], "others": [[3, 1]]}} | model
    return from_dict({"model": settings, "graph": {"scope": scope, **(graph or {})}})


def model_of(config: Config, scale: float = 0.2) -> Model:
    """A model in float64 whose every parameter matters: biases of edge types start at zero."""
    torch.manual_seed(0)
    model = build_model(DIMS, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


def dialogue(name: str, count: int, full: bool = False) -> list[Utterance]:
    """Utterances of one dialogue, of which some lack modalities and one all, unless they are ``full``."""
    return [
        clip(
            f"{name}$_${i}",
            DIMS,
            (2, 3, 2) if full else LENGTHS[i % 6],
            speaker=SPEAKERS[i % 6],
            label=None if i % 2 else float(i % 3),
        )
        for i in range(count)
    ]


def in_double(batch: GraphBatch) -> GraphBatch:
    return replace(batch, features={m: x.double() for m, x in batch.features.items()})


def answers(model: Model, config: Config, utterances: Sequence[Utterance]) -> Tensor:
    with torch.no_grad():
        output = model(in_double(collate(utterances, config)))
    return torch.cat([output.value[:, None], output.logits, output.features], dim=1)


def alone_of(model: Model, config: Config, utterances: Sequence[Utterance]) -> Tensor:
    """What each utterance's own graph predicts, in scope hierarchical."""
    with torch.no_grad():
        value, logits = model(in_double(collate(utterances, config))).alone
    return torch.cat([value[:, None], logits], dim=1)


def louder(utterance: Utterance) -> Utterance:
    return replace(utterance, features={m: x * 2 + 1 for m, x in utterance.features.items()})


def of_any(contexts: Sequence[str], names: Sequence[str] = NAMES) -> pytest.MarkDecorator:
    """Each model in both scopes, each with a context of its own; all contexts in both among the slow tests."""
    cases = []
    for name in names:
        for number, context in enumerate(contexts):
            for k, scope in enumerate(SCOPES):
                is_slow = number % len(SCOPES) != k and len(contexts) > 1
                cases.append(pytest.param(name, scope, context, marks=[pytest.mark.slow] if is_slow else []))
    return pytest.mark.parametrize(("name", "scope", "context"), cases)


def is_heard(name: str, scope: str) -> bool:
    """Late fusion passes no message in graphs of scope dialogue."""
    return (name, scope) != ("late_fusion", "dialogue")


# --- what may reach an answer -----------------------------------------------------------------------------------------


@of_any(["speakers", "knn", "window", "same speaker"])
def test_no_later_utterance_changes_an_earlier_answer(name: str, scope: str, context: str) -> None:
    config = config_of(name, scope, CONTEXTS[context] | {"future": 0})
    model, utterances = model_of(config), dialogue("a", 6, full=True) + dialogue("b", 2, full=True)
    before = answers(model, config, utterances)
    at = 3
    for change in (
        louder,
        lambda u: u.drop(frozenset({"audio"})),
        lambda u: u.drop(frozenset(DIMS)),
        lambda u: replace(u, speaker="ann"),
        lambda u: replace(u, speaker="somebody else"),
    ):
        changed = [change(u) if i == at else u for i, u in enumerate(utterances)]
        after = answers(model, config, changed)
        assert torch.equal(after[:at], before[:at])
        assert torch.equal(after[6:], before[6:])
    assert not torch.equal(answers(model, config, [louder(u) for u in utterances])[at], before[at])
    heard = answers(model, config, [louder(utterances[0]), *utterances[1:]])[2] - before[2]
    if context != "knn":  # which chooses by likeness
        assert (heard.abs().max() > 1e-9) == is_heard(name, scope)
    # As it grows: each answer stays what it was when it was the last.
    for count in (1, 4):
        torch.testing.assert_close(answers(model, config, utterances[:count]), before[:count], rtol=0, atol=1e-12)


@of_any([*CONTEXTS])
def test_a_dialogue_knows_no_other_in_any_order(name: str, scope: str, context: str) -> None:
    config = config_of(name, scope, CONTEXTS[context])
    model = model_of(config)
    groups = [dialogue("a", 6), dialogue("b", 1), dialogue("c", 4)]
    utterances = [u for group in groups for u in group]
    together = answers(model, config, utterances)
    assert torch.isfinite(together).all()
    for first, group in ((0, groups[0]), (6, groups[1]), (7, groups[2])):
        alone = answers(model, config, group)
        torch.testing.assert_close(alone, together[first : first + len(group)], rtol=0, atol=1e-10)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(2)).tolist()
    shuffled = answers(model, config, [utterances[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-10)
    others = [louder(replace(u, speaker="bob")) if i >= 6 else u for i, u in enumerate(utterances)]
    torch.testing.assert_close(answers(model, config, others)[:6], together[:6], rtol=0, atol=1e-12)
    unlabeled = [replace(u, label=None if i % 3 else 2.0) for i, u in enumerate(utterances)]
    assert torch.equal(answers(model, config, unlabeled), together)


@of_any(["speakers"])
def test_features_of_a_missing_modality_change_nothing(name: str, scope: str, context: str) -> None:
    config = config_of(name, scope, CONTEXTS[context])
    model, utterances = model_of(config), dialogue("a", 5, full=True)

    def without(some: Sequence[Utterance]) -> list[Utterance]:
        hidden = [replace(u.drop(frozenset({"audio"})), withheld={"audio": u.features["audio"]}) for u in some]
        return [hidden[i] if i in (1, 2) else u for i, u in enumerate(some)]

    changed = [
        replace(u, features={**u.features, "audio": 2 * u.features["audio"] + 1}) if i in (1, 2) else u
        for i, u in enumerate(utterances)
    ]
    before = answers(model, config, without(utterances))
    assert torch.equal(answers(model, config, without(changed)), before)
    assert not torch.equal(answers(model, config, changed), answers(model, config, utterances))
    if scope == "hierarchical":  # where it has a state all the same, that is not looked at
        graph = collate(without(utterances), config).dialogues
        states = {m: torch.randn(5, 8, dtype=torch.float64) for m in DIMS}
        x = model.outside(states, None, graph)
        states["audio"] = states["audio"].clone()
        states["audio"][1:3] = torch.nan
        assert torch.equal(model.outside(states, None, graph), x)
        states["audio"][0] += 1
        assert not torch.equal(model.outside(states, None, graph), x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("past", "future"), [(1, 0), (1, 2), pytest.param(0, 1, marks=pytest.mark.slow)])
def test_a_part_with_all_within_reach_answers_as_the_whole(name: str, past: int, future: int) -> None:
    hops = 2  # that of a layer over the dialogue's graph, and that of predictions
    graph = {"past": past, "future": future, "speakers": ("ann", "bob")}
    config = config_of(name, "hierarchical", graph)
    model, utterances = model_of(config), dialogue("a", 12)
    whole = answers(model, config, utterances)
    for at in (0, 5, 11):
        first = max(0, at - hops * past)
        part = utterances[first : at + hops * future + 1]
        torch.testing.assert_close(answers(model, config, part)[at - first], whole[at], rtol=0, atol=1e-12)
    cut = answers(model, config, utterances[5:6])[0]
    assert (cut - whole[5]).abs().max() > 1e-6


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "hgt"])
def test_distances_and_speakers_are_told_apart(name: str, scope: str) -> None:
    config = config_of(name, scope, {"past": 2, "future": 0, "distances": 2, "speakers": "same_other"})
    model, utterances = model_of(config), dialogue("a", 3, full=True)
    if model.embedding.missing is not None:
        with torch.no_grad():
            model.embedding.position.zero_()  # else their places tell them apart
    before = answers(model, config, utterances)[2]
    first, second, last = (replace(u, speaker="ann") for u in utterances)
    same = answers(model, config, [first, second, last])[2]
    assert (same - before).abs().max() > 1e-6
    other = answers(model, config, [replace(first, id="a$_$1"), replace(second, id="a$_$0"), last])[2]
    assert (same - other).abs().max() > 1e-6


@pytest.mark.parametrize("scope", SCOPES)
def test_each_kind_of_edges_is_a_relation_of_hgt(scope: str) -> None:
    config = config_of("hgt", scope, {"past": 2, "future": 1, "distances": 1, "speakers": "same_other"})
    model, utterances = model_of(config), dialogue("a", 5)
    seen: list[Any] = []
    convs = model.convs if scope == "dialogue" else model.outside_convs
    convs[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    answers(model, config, utterances)
    (edges,) = seen
    for m in DIMS:
        expected: dict[int, set[tuple[int, int]]] = {k: set() for k in range(6)}
        for i in range(5):
            for j in range(max(0, i - 2), min(5, i + 2)):
                k = (j > i) - (j < i) + 1 + 3 * (SPEAKERS[j] != SPEAKERS[i])
                expected[k].add((j, i))
        found = {int(name[5:]): pairs for (a, name, b), pairs in edges.items() if a == b == m}
        assert {k: set(map(tuple, pairs.T.tolist())) for k, pairs in found.items()} == {
            k: pairs
            for k, pairs in expected.items()
            if pairs  # those without edges are left out
        }


@pytest.mark.parametrize("scope", SCOPES)
def test_relations_without_edges_change_nothing_of_hgt(scope: str) -> None:
    graph = {"past": 2, "future": 1, "distances": 2, "speakers": ("ann", "bob", "joe"), "dialogue_node": True}
    config = config_of("hgt", scope, graph, context_layers=2, layers=2)
    batch = in_double(collate([*dialogue("a", 5), *dialogue("b", 1)], config))

    def found(model: Model) -> list[Tensor]:
        output = model(batch)
        (output.value.sin().sum() + output.logits.square().sum()).backward()
        return [output.value, output.logits, *(p.grad for p in model.parameters())]

    counts: list[int] = []

    def with_all(conv: nn.Module, given: tuple[Any, Any]) -> tuple[Any, Any]:
        counts.append(len(conv.edge_types) - len(given[1]))
        nothing = torch.empty(2, 0, dtype=torch.long)
        return given[0], {relation: given[1].get(relation, nothing) for relation in conv.edge_types}

    few, every = model_of(config), model_of(config)
    for conv in every.convs if scope == "dialogue" else every.outside_convs:
        conv.__class__ = HGTConv  # PyG's own
        conv.register_forward_pre_hook(with_all)
    with torch.no_grad():
        every(batch)
    assert min(counts) > 40
    # A parameter that PyG never reads has no gradient in both.
    pairs = list(zip(found(few), found(every), strict=True))
    assert all(a is b is None or torch.equal(a, b) for a, b in pairs)
    assert sum(a is not None for a, _ in pairs) > 40


# --- missing modalities and gradients ---------------------------------------------------------------------------------


@of_any(["window", "speakers"])
def test_values_and_gradients_are_finite_where_all_is_missing(name: str, scope: str, context: str) -> None:
    config = config_of(name, scope, CONTEXTS[context])
    model = model_of(config)
    nothing = clip("b$_$0", DIMS, (0, 0, 0))
    for utterances in ([nothing], [clip("b$_$0", DIMS, (1, 1, 1))], [*dialogue("a", 6), nothing]):
        model.zero_grad()
        output = model(in_double(collate(utterances, config)))
        assert torch.isfinite(torch.cat([output.value[:, None], output.logits, output.features], dim=1)).all()
        (output.value.square().sum() + output.logits.square().sum()).backward()
        gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        assert all(torch.isfinite(g).all() for g in gradients.values())
        tokens = {k: g for k, g in gradients.items() if ".missing." in f".{k}"}
        if scope == "hierarchical" and not all(utterances[-1].present.values()):
            assert all(g.any() for k, g in tokens.items() if k.startswith("outside.missing"))


@of_any(["window", "knn", "same speaker"], ["semi_iin", "semi_iin global", "sslmm"])
def test_routes_agree_in_values_and_gradients(name: str, scope: str, context: str) -> None:
    name, _, streams = name.partition(" ")
    results = []
    for route in ("dense", "edge"):
        config = config_of(name, scope, CONTEXTS[context], route=route, streams=streams or "both")
        model = model_of(config)
        output = model(in_double(collate(dialogue("a", 6) + dialogue("b", 3), config)))
        found = [output.value, output.logits, output.features]
        sum(part.sin().sum() for part in found).backward()
        results.append([*found, *(p.grad for p in model.parameters() if p.grad is not None)])
    for dense, edge in zip(*results, strict=True):
        torch.testing.assert_close(dense, edge, rtol=1e-9, atol=1e-10)
    assert len(results[0]) > 20


HOPS = {
    ("semi_iin", "both", 1): 1,
    ("semi_iin", "both", 2): 2,
    ("semi_iin", "inter", 1): 1,  # between readout nodes
    ("sslmm", "both", 2): 2,
    ("sslmm", "inter", 1): 0,
    ("global", "both", 1): 1,
    ("late_fusion", "both", 1): 1,
    ("hgt", "both", 2): 2,
}
"""Edges between utterances that a message passes, by model, streams and layers over the graph of a dialogue."""


@pytest.mark.parametrize(
    ("past", "future", "propagation"),
    [
        (1, 1, 0),
        (2, 0, 0.1),
        pytest.param(1, 1, 0.1, marks=pytest.mark.slow),
        pytest.param(2, 0, 0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("name", "streams", "layers"), HOPS)
def test_gradients_reach_the_tokens_of_neighbours_alone(
    name: str, streams: str, layers: int, past: int, future: int, propagation: float
) -> None:
    """The propagation of predictions is one hop more."""
    hops = HOPS[name, streams, layers] + (propagation > 0)
    for route in ("dense", "edge") if propagation and name in ("semi_iin", "sslmm") else ("auto",):
        model_settings = {"streams": streams, "context_layers": layers, "propagation": propagation, "route": route}
        config = config_of(name, "hierarchical", {"past": past, "future": future}, **model_settings)
        assert reach(config) == (hops * past, hops * future)
        model, utterances = model_of(config), dialogue("a", 9, full=True)
        batch = in_double(collate(utterances, config))
        for x in batch.features.values():
            x.requires_grad_()
        output = model(batch)
        for of_context in (True, False):
            value, logits = (output.value, output.logits) if of_context else output.alone
            before, after = (hops * past, hops * future) if of_context else (0, 0)
            for at in (0, 4, 8):
                total = value[at].sin() + logits[at].square().sum()
                gradients = torch.autograd.grad(total, list(batch.features.values()), retain_graph=True)
                for modality, gradient in zip(batch.features, gradients, strict=True):
                    parts = gradient.split([len(u.features[modality]) for u in utterances])
                    reached = [bool(part.any()) for part in parts]
                    assert reached == [-before <= i - at <= after for i in range(9)], (modality, at, route)


TOKENS = "(audio|text|vision|dialogue)"
SPARED = {
    # The last layer ends at readout nodes, and no utterance is at once itself and of another speaker.
    "hgt": rf"outside_convs\.LAST\.((out_lin\.lins|skip)\.{TOKENS}.*|p_rel\..*__{TOKENS})"
    r"|outside_convs\.\d\.p_rel\..*(intra|inter)4__.*",
    "late_fusion": r"embedding\.(node_type|position)",  # of nodes between which no message passes
}
"""Parameters without a gradient, by model."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("context", "layers"), [("window", 1), ("speakers", 2)])
def test_training_reaches_every_parameter(name: str, context: str, layers: int) -> None:
    settings = {"context_layers": layers, "input_dropout": 0, "dropout": 0, "modality_dropout": 0}
    config = config_of(name, "hierarchical", CONTEXTS[context] | {"distances": 1}, **settings)
    assert config.loss.alone_weight == 0.5
    utterances = [replace(u, label=i - 4.0) for i, u in enumerate(dialogue("a", 6) + dialogue("b", 4, full=True))]
    torch.manual_seed(0)
    examples = labeled_examples(utterances, Target())
    task = FineTuning(config, DIMS, examples, utterances, [], torch.device("cpu"))
    model, (batch,) = task.build_module(), task.batches(1)
    task.loss(model, batch, None, 0.0).backward()
    spared = re.compile(SPARED.get(name, "none").replace("LAST", str(layers - 1)))
    if name == "sslmm" and layers == 1:
        spared = re.compile(r"sends\..*")  # the node of a missing modality sends from the second block on
    without = {k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {k for k, _ in model.named_parameters() if spared.fullmatch(k)}


@pytest.mark.parametrize("name", NAMES)
def test_what_an_utterance_says_alone_is_what_a_model_without_context_says(name: str) -> None:
    config = config_of(name, "hierarchical", CONTEXTS["speakers"])
    model, utterances = model_of(config), dialogue("a", 6) + dialogue("b", 2)
    found = alone_of(model, config, utterances)
    each = torch.cat([alone_of(model, config, [u]) for u in utterances])
    torch.testing.assert_close(found, each, rtol=0, atol=1e-11)
    plain = config_of(name, "utterance")
    without = build_model(DIMS, plain).double().eval()
    without.load_state_dict({k: v for k, v in model.state_dict().items() if k in without.state_dict()})
    expected = answers(without, plain, utterances)[:, : found.shape[1]]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    changed = [louder(u) if i % 2 else u for i, u in enumerate(utterances)]
    after = alone_of(model, config, changed)
    torch.testing.assert_close(after[::2], found[::2], rtol=0, atol=1e-11)
    assert (after[1] - found[1]).abs().max() > 1e-6
    context_says = answers(model, config, utterances)[:, : found.shape[1]]
    assert ((context_says - found).abs().amax(1) > 1e-6).all()


def test_answers_with_more_edge_types_than_16_bits_hold() -> None:
    graph = {"context": "all", "speakers": tuple(f"s{i}" for i in range(8)), "distances": 32}
    results = []
    utterances = [replace(u, speaker=f"s{i}") for i, u in enumerate(dialogue("a", 9))]
    for route in ("dense", "edge"):
        config = config_of("semi_iin", "dialogue", graph, route=route)
        model = model_of(config)
        results.append(answers(model, config, utterances))
        assert len(model.streams["intra"].layers[0].attention.bias) == 65 * 81 * 9
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


# --- a twin in plain loops --------------------------------------------------------------------------------------------

Node = tuple[str, int]
Arrow = tuple[Node, Node, int | None]
"""From a node to a node, with the number of its type where it has a bias."""


def attend(layer: nn.Module, x: dict[Node, Tensor], arrows: Sequence[Arrow], node: Node) -> Tensor:
    """Multi-head attention of one node over its arrows, head by head."""
    width, mixed = 4, []
    arriving = [(source, kind) for source, target, kind in arrows if target == node]
    if not arriving:
        return layer.out.bias
    query = layer.query(x[node])
    keys, values = zip(*(layer.key_value(x[source]).split(8) for source, _ in arriving), strict=True)
    for head in range(2):
        part = slice(head * width, (head + 1) * width)
        scores = []
        for key, (_, kind) in zip(keys, arriving, strict=True):
            bias = 0.0 if kind is None or layer.bias is None else layer.bias[kind, head]
            scores.append((query[part] * key[part]).sum() / math.sqrt(width) + bias)
        weights = torch.stack(scores).exp()
        weights = weights / weights.sum()
        mixed.append(sum(w * value[part] for w, value in zip(weights, values, strict=True)))
    return layer.out(torch.cat(mixed))


def step(layer: nn.Module, z: dict[Node, Tensor], arrows: Sequence[Arrow]) -> dict[Node, Tensor]:
    """One layer of a stream."""
    x = {node: F.layer_norm(row, (8,), layer.norm_in.weight, layer.norm_in.bias) for node, row in z.items()}
    found = {}
    for node, row in x.items():
        y = F.layer_norm(
            attend(layer.attention, x, arrows, node) + row, (8,), layer.norm_mid.weight, layer.norm_mid.bias
        )
        first, _, second = layer.ffn
        found[node] = (y @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias + y
    return found


def token_arrows(nodes: Sequence[Node], stream: str) -> list[Arrow]:
    found: list[Arrow] = []
    for source in nodes:
        for target in nodes:
            ends = [source[0] in READOUTS, target[0] in READOUTS]
            if all(ends):
                continue
            if any(ends) or (source[0] == target[0]) == (stream == "intra"):
                found.append((source, target, None))
    return found


def outer_arrows(utterances: Sequence[Utterance], stream: str, graph: dict[str, Any]) -> list[Arrow]:
    """With the types by distance (8 each way), then by speakers, relation after relation."""
    past, future, same_other = graph["past"], graph["future"], graph["speakers"] == "same_other"
    relations = [("intra", m, m) for m in DIMS] + [(s, r, r) for s in ("intra", "inter") for r in READOUTS]
    relations += [("inter", a, b) for a in DIMS for b in DIMS if a != b]
    found: list[Arrow] = []
    for i in range(len(utterances)):
        for number, (of_stream, source, target) in enumerate(relations):
            if of_stream != stream:
                continue
            for j in range(len(utterances)):
                if j == i or (source == target and -past <= j - i <= future):
                    kind = max(-8, min(8, j - i)) + 8
                    if same_other and utterances[i].speaker != utterances[j].speaker:
                        kind += 17
                    found.append(((source, j), (target, i), number * (34 if same_other else 17) + kind))
        for m in DIMS:
            for readout in READOUTS:
                found += [((m, i), (readout, i), None), ((readout, i), (m, i), None)]
        for kind_of in (*DIMS, *READOUTS) if graph["dialogue_node"] else ():
            of = 0 if future else i
            found.append((("dialogue", of), (kind_of, i), None))
            found += [((kind_of, j), ("dialogue", of), None) for j in ([i] if future else range(i + 1))]
    return found


def gated(fuse: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    gate = 1 / (1 + (-(a @ fuse.intra.weight.T + b @ fuse.inter.weight.T + fuse.inter.bias)).exp())
    return gate * b + (1 - gate) * a


def predicted(model: Model, val: Tensor, cls: Tensor) -> Tensor:
    """The intensity and the class scores of one utterance."""
    mlp, value, classes = model.heads.mlp[0], model.heads.value, model.heads.classes
    val, cls = ((row @ mlp.weight.T + mlp.bias).clamp(min=0) for row in (val, cls))
    return torch.cat([val @ value.weight.T + value.bias, cls @ classes.weight.T + classes.bias])


def propagated(model: Model, rows: Sequence[Tensor], graph: dict[str, Any]) -> list[Tensor]:
    """What the utterances of one dialogue predict, once they have heard what the others predict."""
    if not model.propagations:
        return [*rows]
    past, future, count, columns = graph["past"], graph["future"], len(rows), []
    logits = [row[1:] - row[1:].exp().sum().log() for row in rows]
    for y, part in zip(([row[:1] for row in rows], logits), model.propagations, strict=True):
        before, after, whole = part.weight
        found = []
        for i in range(count):
            kinds = [(before, [j for j in range(count) if i - past <= j < i])]
            if future:
                kinds.append((after, [j for j in range(count) if i < j <= i + future]))
            if graph["dialogue_node"]:
                kinds.append((whole, [j for j in range(count if future else i) if j != i]))
            found.append(y[i] + sum(w * (sum(y[j] for j in js) / len(js) if js else y[i]) for w, js in kinds))
        columns.append(found)
    return [torch.cat(parts) for parts in zip(*columns, strict=True)]


def twin(model: Model, utterances: Sequence[Utterance], graph: dict[str, Any], layers: int) -> tuple[Tensor, Tensor]:
    """What semi_iin says of the utterances of one dialogue, and of each alone, with the model's weights."""
    order = ("val", "cls", "audio", "text", "vision", "dialogue")
    views: dict[str, dict[Node, Tensor]] = {}
    reads: dict[str, dict[Node, Tensor]] = {"intra": {}, "inter": {}}
    for stream in ("intra", "inter"):
        (layer,), (outer,) = model.streams[stream].layers, model.outside_streams[stream].layers
        x: dict[Node, Tensor] = {}
        for i, utterance in enumerate(utterances):
            place = model.embedding.position
            z = {(r, 0): model.embedding.node_type[order.index(r)] + place[0] for r in READOUTS}
            for m in DIMS:
                steps, (conv,) = utterance.features[m].double(), model.embedding.encoders[m].convs
                if len(steps):
                    tokens = F.conv1d(steps.T, conv.weight, conv.bias, padding=1).T
                    for t, token in enumerate(tokens):
                        z[m, t] = token + model.embedding.node_type[order.index(m)] + place[t]
            arrows = token_arrows([*z], stream)
            middle = step(layer, z, arrows)  # both layers share their weights
            last = step(layer, middle, arrows)
            for r in READOUTS:
                x[r, i] = reads[stream][r, i] = last[r, 0]
            for m in DIMS:
                states = [row for node, row in middle.items() if node[0] == m]
                x[m, i] = sum(states) / len(states) if states else model.outside.missing[m]
            if graph["dialogue_node"] and (i == 0 or not graph["future"]):
                x["dialogue", i] = torch.zeros(8, dtype=torch.float64)
        x = {node: row + model.outside.node_type[order.index(node[0])] for node, row in x.items()}
        arrows = outer_arrows(utterances, stream, graph)
        for _ in range(layers):
            x = step(outer, x, arrows)
        views[stream] = x
    ends, alone = [], []
    for i in range(len(utterances)):
        for found, seen, fusions in ((ends, views, model.outside_fusions), (alone, reads, model.fusions)):
            found.append(
                [gated(f, seen["intra"][r, i], seen["inter"][r, i]) for r, f in zip(READOUTS, fusions, strict=True)]
            )
    rows = propagated(model, [predicted(model, *pair) for pair in ends], graph)
    whole = torch.stack([torch.cat([row, val]) for row, (val, _) in zip(rows, ends, strict=True)])
    return whole, torch.stack([predicted(model, *pair) for pair in alone])


@pytest.mark.parametrize(
    ("past", "future", "speakers", "node", "layers", "propagation"),
    [
        (0, 0, "none", False, 1, 0.1),
        (2, 1, "none", False, 2, 0),
        (1, 0, "same_other", True, 2, 0.1),
        (1, 2, "same_other", True, 1, 0.1),
    ],
)
def test_semi_iin_equals_its_twin(
    past: int, future: int, speakers: str, node: bool, layers: int, propagation: float
) -> None:
    graph = {"past": past, "future": future, "speakers": speakers, "dialogue_node": node}
    first, second, expected = dialogue("a", 5), dialogue("b", 2), None
    for route in ("dense", "edge"):
        settings = {"context_layers": layers, "propagation": propagation, "route": route}
        encoders = {"others": [[3, 1]], "audio": [[3, 1]]}
        config = config_of("semi_iin", "hierarchical", graph, encoders=encoders, **settings)
        model = model_of(config)
        if expected is None:  # the weights are the same ones by both routes
            with torch.no_grad():
                said = [twin(model, some, graph, layers) for some in (first, second)]
            expected = [torch.cat(parts) for parts in zip(*said, strict=True)]
        for say, rows in zip((answers, alone_of), expected, strict=True):
            torch.testing.assert_close(say(model, config, [*first, *second]), rows, rtol=1e-9, atol=1e-10)
        if past == future == 0:  # and then no utterance knows another
            each = torch.cat([answers(model, config, [u]) for u in first])
            torch.testing.assert_close(expected[0][:5], each, rtol=0, atol=1e-11)


@pytest.mark.parametrize("propagation", [0, 0.1])
@pytest.mark.parametrize(("past", "future", "node"), [(0, 0, False), (2, 1, False), (1, 2, True), (2, 0, True)])
def test_late_fusion_equals_its_twin(past: int, future: int, node: bool, propagation: float) -> None:
    graph = {"past": past, "future": future, "dialogue_node": node}
    encoders = {"others": [[3, 1]], "audio": [[3, 1]]}
    config = config_of("late_fusion", "hierarchical", graph, encoders=encoders, propagation=propagation)
    model, utterances = model_of(config), dialogue("a", 5)
    found, order = answers(model, config, utterances), ("audio", "text", "vision")
    with torch.no_grad():
        x: dict[Node, Tensor] = {}
        own: dict[Node, Tensor] = {}
        for i, utterance in enumerate(utterances):
            for number, m in enumerate(order):
                (conv,), steps = model.embedding.encoders[m].convs, utterance.features[m].double()
                state, own[m, i] = model.outside.missing[m], model.missing[m]
                if len(steps):
                    state = own[m, i] = F.conv1d(steps.T, conv.weight, conv.bias, padding=1).T.mean(0)
                x[m, i] = state + model.outside.node_type[2 + number]

        def mean(rows: Sequence[Tensor]) -> Tensor:
            return sum(rows) / len(rows) if rows else torch.zeros(8, dtype=torch.float64)

        def join(layer: nn.Module, parts: Sequence[Tensor]) -> Tensor:
            return (torch.cat([*parts]) @ layer.weight.T + layer.bias).clamp(min=0)

        joined, alone = [], []
        for i in range(5):
            parts = [x[m, i] for m in order]
            parts += [mean([x[m, j] for j in range(5) if i - past <= j < i]) for m in order]
            parts += [mean([x[m, j] for j in range(5) if i < j <= i + future]) for m in order]
            if node:
                whole = mean([x[m, j] for j in range(5) if future or j <= i for m in order])
                parts += [whole] * len(order)
            joined.append(join(model.outside_join[0], parts))
            row = join(model.join[0], [own[m, i] for m in order])
            alone.append(predicted(model, row, row))
        rows = propagated(model, [predicted(model, row, row) for row in joined], graph)
    expected = torch.stack([torch.cat(pair) for pair in zip(rows, joined, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(alone_of(model, config, utterances), torch.stack(alone), rtol=1e-9, atol=1e-11)
