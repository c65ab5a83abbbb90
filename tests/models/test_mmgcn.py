"""MMGCN against its equations with dense matrices, the numbers of an example by hand, and what may reach an answer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor, nn

from gmsa.config import Config, from_dict
from gmsa.config.groups.graph import WHOLE
from gmsa.data import Target, Utterance
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models import MMGCN, build_model, check, reach
from gmsa.models.pretraining import PretrainingModel
from gmsa.training.examples import labeled_examples
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.tasks import FineTuning

DIMS = {"text": 4, "audio": 2, "vision": 3}
ORDER = ("audio", "text", "vision")
LENGTHS = [(2, 3, 1), (1, 0, 2), (0, 0, 0), (3, 1, 0), (2, 2, 2), (0, 4, 1)]
SPEAKERS = ("ann", "bob", "ann", "eve", "bob", "bob")
ALL = {"past": "all", "future": "all"}
PLAIN = "mmgcn(recurrent=none, speaker=none{})"
"""Without what makes the whole dialogue count."""


def config_of(
    name: str = "mmgcn", scope: str = "dialogue", graph: Any = ALL, target: Any = None, **model: Any
) -> Config:
    settings = {"channels": 8, "heads": 2, "layers": 3, "encoders": [[3, 1]]} | model | {"name": name}
    return from_dict(
        {"model": settings, "graph": {"scope": scope, **graph}} | ({"target": target} if target is not None else {})
    )


def model_of(config: Config, dims: dict[str, int] | None = None) -> MMGCN:
    torch.manual_seed(0)
    model = build_model(dims or DIMS, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def dialogue(name: str, count: int) -> list[Utterance]:
    return [clip(f"{name}$_${i}", DIMS, LENGTHS[i % 6], speaker=SPEAKERS[i % 6]) for i in range(count)]


def in_double(batch: GraphBatch) -> GraphBatch:
    return replace(batch, features={m: x.double() for m, x in batch.features.items()})


def say(model: MMGCN, config: Config, utterances: list[Utterance]) -> Tensor:
    output = model(in_double(collate(utterances, config)))
    return torch.cat([output.value[:, None], output.logits, output.features], dim=1)


# --- the numbers of an example by hand --------------------------------------------------------------------------------

X = torch.tensor([[0, 1], [2, 1], [1, 0], [1, 1]], dtype=torch.double)
"""Nodes a0, a1, t0, t1: gmsa's order. The example's is t0, t1, a0, a1."""
BACK = [2, 3, 0, 1]
A = [[0.998576, 0.749997, 0.5, 0], [0.749997, 0.998576, 0, 0.897574], [0.5, 0, 0.998576, 0.647582],
     [0, 0.897574, 0.647582, 0.998576]]  # fmt: skip
P = [[0.444093, 0.307467, 0.227607, 0], [0.307467, 0.377370, 0, 0.345961], [0.227607, 0, 0.465286, 0.277158],
     [0, 0.345961, 0.277158, 0.392563]]  # fmt: skip
PAPER = [[0.677580, 0.301451], [1.158959, 0.459706], [0.654506, 0.524245], [1.094412, 0.668632]]
RELEASED = [[0.719598, 0.393237], [1.082139, 0.776535], [0.545585, 0.757006], [1.036440, 1.081398]]


def small(name: str) -> tuple[MMGCN, GraphBatch]:
    """A model of two channels and one layer whose first layer changes nothing, and a dialogue of two utterances."""
    dims = {"text": 2, "audio": 2}
    config = config_of(name, channels=2, heads=1, layers=1, encoders=[[1, 1]])
    model = model_of(config, dims)
    with torch.no_grad():
        model.enter.weight.copy_(torch.eye(2))
        model.enter.bias.zero_()
        model.convs[0].weight1.copy_(torch.tensor([[0.5, -0.2], [0.3, 0.4]]))
    return model, collate([clip(f"a$_${i}", dims, (1, 1)) for i in range(2)], config)


def dense(index: Tensor, weight: Tensor, count: int) -> Tensor:
    return torch.zeros(count, count, dtype=weight.dtype).index_put((index[1], index[0]), weight)


def near(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double), rtol=0, atol=1e-6)


def test_the_numbers_of_an_example_by_hand() -> None:
    model, graph = small("mmgcn")
    angular = model.angular(X, graph.edges["global"])
    near(dense(angular.index, angular.log_weight.exp(), 4)[BACK][:, BACK], A)
    index, weight = model.weights(X, graph)
    near(dense(index, weight, 4)[BACK][:, BACK], P)
    near(model.convolve(X, index, weight)[BACK], PAPER)
    other, _ = small("mmgcn(variant=released)")
    with torch.no_grad():
        other.convs[0].weight1.div_(0.9)
        other.convs[0].weight2.copy_(torch.tensor([[0.1, 0.2], [-0.3, 0.6]]) / 0.1)
    near(other.convolve(X, index, weight)[BACK], RELEASED)


def test_theta_falls_with_the_number_of_the_layer() -> None:
    betas = [conv.beta for conv in build_model(DIMS, config_of(layers=4)).convs]
    assert betas == pytest.approx([0.405465, 0.223144, 0.154151, 0.117783], abs=1e-6)


# --- the whole model, with dense matrices -----------------------------------------------------------------------------


def by_matrices(model: MMGCN, config: Config, utterances: list[Utterance], name: str, gamma: float) -> Tensor:
    """Intensity, class scores and features of the utterances of one dialogue."""
    n, (past, future) = len(utterances), config.graph.reach
    batch = in_double(collate(utterances, config))
    z0 = model.embedding(batch)  # audio of all utterances, then text, then vision
    states = dict(zip(ORDER, z0.split(n), strict=True))
    if "recurrent=none" not in name:
        lstm = model.lstms["text"].lstm
        states["text"] = lstm(states["text"][:, None])[0].squeeze(1)
    if "speaker=none" not in name:
        numbers: dict[str, int] = {}
        for utterance in utterances:
            numbers.setdefault(utterance.speaker, len(numbers))
        s = torch.stack([model.speaker.weight[numbers[u.speaker]] for u in utterances])
        states = {m: x if "speaker=text" in name and m != "text" else x + s for m, x in states.items()}
    x, count = torch.cat([*states.values()]), 3 * n
    matrix = torch.zeros(count, count, dtype=torch.double)
    rows = []
    for i in range(count):
        row = []
        for j in range(count):
            (m, k), (o, l) = divmod(i, n), divmod(j, n)  # noqa: E741
            cosine = x[i] @ x[j] / (x[i].norm() * x[j].norm())
            angular = 1 - torch.arccos(0.99999 * cosine) / math.pi
            joined = k - past <= l <= k + future if m == o else k == l
            row.append(angular * (joined * (1 if m == o else gamma)))
        rows.append(torch.stack(row))
    matrix = torch.stack(rows)
    scale = matrix.sum(1).rsqrt()
    p = scale[:, None] * matrix * scale
    h0 = h = (x @ model.enter.weight.T + model.enter.bias).clamp(min=0)
    for number, conv in enumerate(model.convs, 1):
        theta = math.log(0.5 / number + 1)
        if "released" in name:
            w1, w2 = conv.weight1 * 0.9, conv.weight2 * 0.1
            h = theta * (p @ h @ w1 + h0 @ w2) + (1 - theta) * (0.9 * (p @ h) + 0.1 * h0)
        else:
            h = (0.9 * (p @ h) + 0.1 * h0) @ ((1 - theta) * torch.eye(8).double() + theta * conv.weight1)
        h = h.clamp(min=0)
    parts = [torch.cat([x[k * n : (k + 1) * n], h[k * n : (k + 1) * n]], dim=1) for k in range(3)]
    features = torch.cat(parts, dim=1).clamp(min=0) @ model.join.weight.T + model.join.bias
    hidden = model.heads.mlp(features)
    return torch.cat([model.heads.value(hidden), model.heads.classes(hidden), features], dim=1)


@pytest.mark.parametrize(
    ("name", "graph", "gamma"),
    [
        ("mmgcn(gamma=0.7)", ALL, 0.7),
        ("mmgcn(variant=released, speaker=text)", ALL, 1.0),
        ("mmgcn(recurrent=none, speaker=none, gamma=2)", {"past": 2, "future": 1}, 2.0),
    ],
)
def test_it_equals_dense_matrices_in_values_and_gradients(name: str, graph: dict[str, Any], gamma: float) -> None:
    config = config_of(name, graph=graph)
    check(config)
    model, groups, results = model_of(config), [dialogue("a", 6), dialogue("b", 1), dialogue("c", 4)], []
    for forward in (
        lambda: say(model, config, [u for group in groups for u in group]),
        lambda: torch.cat([by_matrices(model, config, group, name, gamma) for group in groups]),
    ):
        model.zero_grad()
        found = forward()
        found.sin().sum().backward()
        results.append([found.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 15
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)
    assert all(
        p.grad.any() for n, p in model.named_parameters() if n.startswith(("convs", "enter", "speaker", "lstms"))
    )


# --- properties of the weights ----------------------------------------------------------------------------------------


def weights_of(x: Tensor, count: int, name: str = "mmgcn", **graph: Any) -> tuple[Tensor, Tensor, MMGCN, GraphBatch]:
    """A and P of a dialogue, dense."""
    config = config_of(name, graph=ALL | graph)
    model, batch = model_of(config), collate([clip(f"a$_${i}", DIMS, (1, 1, 1)) for i in range(count)], config)
    angular = model.angular(x, batch.edges["global"])
    index, weight = model.weights(x, batch)
    return dense(angular.index, angular.log_weight.exp(), len(x)), dense(index, weight, len(x)), model, batch


def test_the_graph_has_as_many_edges_as_the_formula_says() -> None:
    for n, expected in ((6, 144), (60, 11_160), (1, 9)):
        batch = collate([clip(f"a$_${i}", DIMS, (1, 0, 1)) for i in range(n)], config_of())
        assert batch.edge_index("global").shape[1] == expected == 3 * n**2 + 6 * n


def test_weights_are_symmetric_bounded_and_of_the_angle_alone() -> None:
    x = torch.randn(15, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    x[3], x[4] = -x[0], x[1]  # opposite and equal
    a, p, *_ = weights_of(x, 5)
    torch.testing.assert_close(a, a.T)
    assert a.diagonal() == pytest.approx(torch.full((15,), 0.998576).double(), abs=1e-6)
    there = a[a > 0]
    assert 0.001423 < there.min() < 0.0015
    assert there.max() <= 0.998577
    scaled, *_ = weights_of(x * torch.rand(15, 1, dtype=torch.double) * 9 + x, 5)
    torch.testing.assert_close(scaled, a)
    values = torch.linalg.eigvalsh(p)
    assert values.max().item() == pytest.approx(1)
    assert values.min() >= -1


def test_weights_have_finite_gradients_where_nodes_are_equal_or_zero() -> None:
    x = torch.zeros(15, 8, dtype=torch.double)
    x[:5] = 1.0
    x.requires_grad_()
    _, p, model, batch = weights_of(x, 5)
    assert torch.isfinite(p).all()
    model.convolve(x, *model.weights(x, batch)).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_with_alpha_one_the_layers_do_not_see_the_edges() -> None:
    x = torch.randn(15, 8, dtype=torch.double)
    for alpha, is_seen in ((1.0, False), (0.1, True)):
        _, _, model, batch = weights_of(x, 5, f"mmgcn(alpha={alpha})")
        index, weight = model.weights(x, batch)
        moved = (model.convolve(x, index, weight) - model.convolve(x, index, 2 * weight)).abs().max() > 1e-9
        assert moved == is_seen


def test_the_graph_has_no_order() -> None:
    config = config_of(PLAIN.format(""))
    model = model_of(config)
    with torch.no_grad():
        model.embedding.position.zero_()
    utterances = dialogue("a", 6)
    turned = [replace(u, id=f"a$_${5 - i}") for i, u in enumerate(utterances)]
    torch.testing.assert_close(say(model, config, turned), say(model, config, utterances), rtol=0, atol=1e-11)


# --- what may reach an answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("graph", [ALL, {"past": 2, "future": 1, "dialogue_node": True, "between": "knn(neighbors=1)"}])
def test_a_dialogue_knows_no_other_in_any_order(scope: str, graph: dict[str, Any]) -> None:
    config = config_of(scope=scope, graph=graph)
    check(config)
    model, groups = model_of(config), [dialogue("a", 6), dialogue("b", 1), dialogue("c", 4)]
    utterances = [u for group in groups for u in group]
    together = say(model, config, utterances)
    assert torch.isfinite(together).all()
    for first, group in ((0, groups[0]), (6, groups[1]), (7, groups[2])):
        alone = say(model, config, group)
        torch.testing.assert_close(alone, together[first : first + len(group)], rtol=0, atol=1e-10)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(2)).tolist()
    shuffled = say(model, config, [utterances[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("node", [False, True])
def test_no_later_utterance_changes_an_answer(scope: str, node: bool) -> None:
    config = config_of("mmgcn(recurrent=all)", scope, {"past": "all", "future": 0, "dialogue_node": node})
    model, utterances = model_of(config), dialogue("a", 6)
    assert reach(config) == (WHOLE, 0)
    before = say(model, config, utterances)
    for changed in (clip("a$_$3", DIMS, (3, 1, 2)), replace(utterances[3], speaker="ann")):
        after = say(model, config, [*utterances[:3], changed, *utterances[4:]])
        torch.testing.assert_close(after[:3], before[:3], rtol=0, atol=1e-12)
        assert (after[3:] - before[3:]).abs().amax(1).min() > 1e-9
    torch.testing.assert_close(say(model, config, utterances[:3]), before[:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("scope", "settings", "hops"),
    [("dialogue", {"layers": 2}, 3), ("hierarchical", {"context_layers": 1, "propagation": 0}, 2)],
)
def test_gradients_reach_the_utterances_within_its_hops_alone(scope: str, settings: dict[str, Any], hops: int) -> None:
    """One more than it has layers: the weight of an edge is normalized by the degree of its source."""
    for past, future in ((1, 0), (1, 1)):
        config = config_of(PLAIN.format(""), scope, {"past": past, "future": future}, **settings)
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


def test_where_speakers_or_an_lstm_count_so_does_the_whole_dialogue() -> None:
    near = {"past": 1, "future": 1}
    for name, graph, expected in (
        ("mmgcn", near, WHOLE),
        ("mmgcn(speaker=none)", near, WHOLE),
        ("mmgcn(recurrent=none)", near, WHOLE),
        ("mmgcn(recurrent=none)", near | {"speakers": ("ann", "bob")}, 4),
        (PLAIN.format(""), near, 4),
    ):
        assert reach(config_of(name, graph=graph)) == (expected, expected)


def test_speakers_are_told_apart_in_the_modalities_that_know_them() -> None:
    utterances = dialogue("a", 4)
    one_voice = [replace(u, speaker="ann") for u in utterances]
    for name, is_heard in (("mmgcn", True), ("mmgcn(speaker=text)", True), ("mmgcn(speaker=none)", False)):
        config = config_of(name)
        model = model_of(config)
        moved = (say(model, config, one_voice) - say(model, config, utterances)).abs().max() > 1e-6
        assert moved == is_heard
    assert model_of(config_of("mmgcn(speaker=text)")).spoken == ["text"]
    config = config_of("mmgcn(speakers=2)")
    model, renamed = (
        model_of(config),
        [replace(u, speaker={"eve": "bob"}.get(u.speaker, u.speaker)) for u in utterances],
    )
    torch.testing.assert_close(say(model, config, renamed), say(model, config, utterances))
    # Other names of the same speakers change nothing.
    others = [replace(u, speaker=u.speaker[::-1]) for u in utterances]
    assert torch.equal(say(model, config, others), say(model, config, utterances))


def test_other_numbers_of_the_speakers_with_their_embeddings_change_nothing() -> None:
    config, other = (config_of(graph=ALL | {"speakers": names}) for names in (["ann", "bob"], ["bob", "ann"]))
    model, swapped, utterances = model_of(config), model_of(other), dialogue("a", 6)
    before = say(model, config, utterances)
    assert (say(swapped, other, utterances) - before).abs().max() > 1e-6
    with torch.no_grad():
        swapped.speaker.weight.copy_(model.speaker.weight[[1, 0, *range(2, 9)]])
    torch.testing.assert_close(say(swapped, other, utterances), before, rtol=0, atol=1e-12)


def test_the_order_of_edges_does_not_matter() -> None:
    config = config_of()
    model, batch = model_of(config), in_double(collate(dialogue("a", 6), config))
    edges = batch.edges["global"]
    order = torch.randperm(edges.index.shape[1], generator=torch.Generator().manual_seed(0))
    mixed = replace(edges, index=edges.index[:, order], edge_type=edges.edge_type[order])
    found = model(replace(batch, edges={"global": mixed})).logits
    torch.testing.assert_close(found, model(batch).logits, rtol=0, atol=1e-11)


# --- settings, targets, pre-training ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mmgcn(gamma=-1)", {}, "'gamma' of mmgcn must be from 0"),
        ("mmgcn(alpha=1.5)", {}, "'alpha' of mmgcn must be from 0 to 1"),
        ("mmgcn(alpha=0, variant=released)", {}, "'alpha' of mmgcn must be above 0 and below 1"),
        ("mmgcn(speakers=0)", {}, "'speakers' of mmgcn must be from 1"),
        ("mmgcn(speaker=audio)", {}, "speaker"),
        ("mmgcn", {"scope": "utterance"}, "is a model of conversations"),
        ("mmgcn", {"channels": 7, "heads": 1}, "must be even"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config_of(name, **settings))


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
def test_classes_pre_training_and_gradients(scope: str) -> None:
    config = config_of(scope=scope, target={"kind": "classes", "classes": ["joy", "anger", "calm"]})
    check(config)
    output = build_model(DIMS, config)(collate(dialogue("a", 6), config))
    assert output.value is None
    assert output.logits.shape == (6, 3)
    config = config_of(scope=scope)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config)
    utterances = [u for u in dialogue("a", 6) + dialogue("b", 5) if any(u.lengths.values())]
    for batch in pretraining_batches(utterances, config, 1, "pretrain", 1):
        losses = module(batch)
        assert batch.targets
        sum(losses).backward()
    grads = {n: p.grad for n, p in module.named_parameters() if n.startswith("model.") and p.grad is not None}
    assert all(torch.isfinite(g).all() for g in grads.values())
    assert any(g.any() for n, g in grads.items() if ".convs." in n)


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
def test_training_reaches_every_parameter(scope: str) -> None:
    config = config_of(scope=scope, graph=ALL | {"dialogue_node": True}, input_dropout=0, dropout=0, layers=1)
    utterances = [replace(u, label=i - 4.0) for i, u in enumerate(dialogue("a", 6) + dialogue("b", 4))]
    torch.manual_seed(0)
    task = FineTuning(config, DIMS, labeled_examples(utterances, Target()), utterances, [], torch.device("cpu"))
    model, (batch,) = task.build_module(), task.batches(1)
    task.loss(model, batch, None, 0.0).backward()
    without = {k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {k for k in without if k.startswith(("convs", "enter", "speaker", "lstms", "join", "dialogue"))}


def test_data_without_text_or_with_one_modality() -> None:
    for dims in ({"eeg": 3, "pose": 2}, {"eeg": 3}):
        settings = {"model": {"name": "mmgcn", "channels": 8, "heads": 2}, "graph": {"scope": "dialogue"}}
        config = from_dict(settings | {"data": {"modalities": [*dims]}})
        model = build_model(dims, config)
        assert isinstance(model.speaker, nn.Embedding)
        output = model(collate([clip(f"a$_${i}", dims, [i % 3] * len(dims)) for i in range(4)], config))
        assert torch.isfinite(output.value).all()
        output.value.sum().backward()
