"""What all models of conversations have in common: who may reach an answer, and that numbers keep their meaning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import conversations as talk
from helpers.graphs import collate
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa.config.groups.graph import WHOLE
from gmsa.data import Target, Utterance
from gmsa.models import Conversation, check, reach
from gmsa.models.build import unused_settings
from gmsa.models.pretraining import PretrainingModel
from gmsa.nn import SparseEdges
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.training.checkpoint import save_weights
from gmsa.training.examples import labeled_examples
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.tasks import FineTuning

NAMES = (
    "dialogue_gcn",
    "cogmen(norm=batch, feedforward=6, concat=true)",
    "gcnet(time_attention=true)",
)
SCOPES = ("dialogue", "hierarchical")
each = pytest.mark.parametrize("name", NAMES)
in_scopes = pytest.mark.parametrize("scope", SCOPES)


def louder(utterance: Utterance) -> Utterance:
    return replace(utterance, features={m: x * 2 + 1 for m, x in utterance.features.items()})


# --- who may reach an answer ------------------------------------------------------------------------------------------


@in_scopes
@each
def test_without_a_future_nothing_later_reaches_an_answer(name: str, scope: str) -> None:
    """In values, and in gradients with respect to features."""
    config = talk.config_of(name, scope, talk.CONTEXTS["causal"])
    assert reach(config) == (WHOLE, 0)
    model, utterances = talk.model_of(config), talk.dialogue("a", 6)
    before = talk.answers(model, config, utterances)
    for change in (louder, lambda u: u.drop(frozenset({"audio"})), lambda u: replace(u, speaker="eve")):
        after = talk.answers(model, config, [change(u) if i == 3 else u for i, u in enumerate(utterances)])
        assert torch.equal(after[:3], before[:3])
    after = talk.answers(model, config, [louder(utterances[0]), *utterances[1:]])
    assert ((after - before).abs().amax(1) > 1e-9).all()  # and all of the past does
    for count in (1, 3, 5):
        found = talk.answers(model, config, utterances[:count])
        torch.testing.assert_close(found, before[:count], rtol=0, atol=1e-11)
    batch = collate(utterances, config)
    batch = replace(batch, features={m: x.double().requires_grad_() for m, x in batch.features.items()})
    output = model(batch)
    for at in (0, 3):
        total = output.value[at] + output.logits[at].square().sum()
        gradients = torch.autograd.grad(total, [*batch.features.values()], retain_graph=True)
        for modality, gradient in zip(batch.features, gradients, strict=True):
            parts = gradient.split([len(u.features[modality]) for u in utterances])
            assert not any(part.any() for part in parts[at + 1 :])
            assert all(part.any() for part in parts[: at + 1] if len(part))


@in_scopes
@each
@pytest.mark.parametrize("context", ["window", "pairs"])
def test_a_dialogue_knows_no_other_nor_the_padding_that_it_brings(name: str, scope: str, context: str) -> None:
    config = talk.config_of(name, scope, talk.CONTEXTS[context])
    assert reach(config) == (WHOLE, WHOLE)
    model = talk.model_of(config)
    groups = [talk.dialogue("a", 3), talk.dialogue("b", 1, first=2), talk.dialogue("c", 7, first=1)]
    utterances = [u for group in groups for u in group]
    together = talk.answers(model, config, utterances)
    assert together.isfinite().all()
    alone = torch.cat([talk.answers(model, config, group) for group in groups])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-10)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(2)).tolist()
    shuffled = talk.answers(model, config, [utterances[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-10)
    longer = [*groups[0], *groups[1], *talk.dialogue("c", 30, first=1)]
    torch.testing.assert_close(talk.answers(model, config, longer)[:4], together[:4], rtol=0, atol=1e-10)
    # A neighbour's features, and who speaks, count.
    for change in (louder, lambda u: replace(u, speaker="bob")) if context == "pairs" else (louder,):
        changed = [change(utterances[0]), *utterances[1:]]
        assert (talk.answers(model, config, changed) - together)[1].abs().max() > 1e-9


@each
def test_the_order_of_edges_does_not_matter(name: str) -> None:
    config = talk.config_of(name, "dialogue", talk.CONTEXTS["pairs"])
    model, batch = talk.model_of(config), collate(talk.dialogue("a", 5), config)
    batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
    edges = batch.utterance_edges
    order = torch.randperm(edges.index.shape[1], generator=torch.Generator().manual_seed(0))
    mixed = replace(batch, utterance_edges=SparseEdges(edges.index[:, order], edges.edge_type[order]))
    torch.testing.assert_close(model(mixed).logits, model(batch).logits, rtol=0, atol=1e-12)


# --- what numbers mean ------------------------------------------------------------------------------------------------


@in_scopes
@each
def test_other_numbers_of_the_speakers_with_their_weights_change_nothing(name: str, scope: str) -> None:
    graph = {"past": 2, "future": 2}
    utterances = talk.dialogue("a", 5)
    config, other = (talk.config_of(name, scope, graph | {"speakers": s}) for s in (["ann", "bob"], ["bob", "ann"]))
    model, swapped = talk.model_of(config), talk.model_of(other)
    swapped.load_state_dict(model.state_dict())
    before = talk.answers(model, config, utterances)
    assert (talk.answers(swapped, other, utterances) - before).abs().max() > 1e-6
    number = [1, 0, 2]
    pairs = [3 * number[source] + number[target] for source in range(3) for target in range(3)]
    turns = [2 * pair + time for pair in pairs for time in range(2)]
    weight = {
        "dialogue_gcn": lambda: swapped.first.weight,
        "cogmen": lambda: swapped.rgcn.conv.weight,
        "gcnet": lambda: swapped.speaker.rgcn.weight,
    }[name.partition("(")[0]]()
    with torch.no_grad():
        weight.copy_(weight[pairs if len(weight) == 9 else turns])
    torch.testing.assert_close(talk.answers(swapped, other, utterances), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("count", "reach", "edges"), [(30, 10, 520), (6, 2, 24), (1, 5, 1)])
def test_the_number_of_edges(count: int, reach: int, edges: int) -> None:
    config = talk.config_of("cogmen", "dialogue", {"context": reach})
    found = collate(talk.dialogue("a", count), config).utterance_edges
    assert found.index.shape == (2, edges)
    if count > 1:
        assert edges == count * (2 * reach + 1) - reach * (reach + 1)
    signs = config.graph.outside.distances
    assert signs == 1
    relations = talk.model_of(config).context.turn_relations_of(found.edge_type)
    assert torch.equal(relations == 0, found.index[0] < found.index[1])


def test_relations_are_the_sign_of_any_distance() -> None:
    graph = {"past": 4, "future": 3, "speakers": "same_other"}
    found = []
    for distances in (1, 3):
        config = talk.config_of("cogmen", "dialogue", graph | {"distances": distances})
        model, edges = talk.model_of(config), collate(talk.dialogue("a", 6), config).utterance_edges
        found.append(model.context.turn_relations_of(edges.edge_type))
        source, target = edges.index
        speakers = torch.tensor([talk.SPEAKERS.index(u.speaker) for u in talk.dialogue("a", 6)])
        expected = 2 * (speakers[source] != speakers[target]).long() + (source >= target).long()
        assert torch.equal(found[-1], expected)
        assert [r[1] for r in model.context.turn_relations.triples] == [
            f"{time}, speakers {k}" for k in range(2) for time in ("earlier", "not earlier")
        ]
    assert torch.equal(*found)


@pytest.mark.slow
@each
def test_saved_weights_mean_the_same_in_a_process_that_hashes_otherwise(name: str, tmp_path: Path) -> None:
    config = talk.config_of(name, "dialogue", talk.CONTEXTS["pairs"])
    model = talk.model_of(config)
    save_weights(tmp_path / "model.safetensors", model.state_dict())
    np.save(tmp_path / "answers.npy", talk.answers(model, config, talk.dialogue("a", 5)).numpy())
    script = f"""
import numpy as np, pathlib
from helpers import conversations as talk
from gmsa.training.checkpoint import load_weights
config = talk.config_of({name!r}, "dialogue", talk.CONTEXTS["pairs"])
model = talk.build_model(talk.DIMS, config).double().eval()
model.load_state_dict(load_weights(pathlib.Path("model.safetensors")))
assert np.array_equal(talk.answers(model, config, talk.dialogue("a", 5)).numpy(), np.load("answers.npy"))
"""
    tests, gmsa = Path(__file__).parents[1], Path(sys.modules["gmsa"].__file__).parents[1]
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{gmsa}:{tests}", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=env, timeout=120)


# --- missing modalities, gradients, targets ---------------------------------------------------------------------------


@in_scopes
@each
def test_values_and_gradients_are_finite_whatever_is_missing(name: str, scope: str) -> None:
    config = talk.config_of(name, scope, talk.CONTEXTS["distances"])
    model = talk.model_of(config).train()
    nothing = talk.dialogue("b", 1, first=2)
    assert not any(nothing[0].lengths.values())
    for utterances in (nothing, talk.dialogue("b", 1), [*talk.dialogue("a", 5), *nothing]):
        model.zero_grad()
        output = talk.say(model, config, utterances)
        (output.value.square().sum() + output.logits.square().sum()).backward()
        assert torch.cat([output.value[:, None], output.logits], dim=1).isfinite().all()
        gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        assert all(g.isfinite().all() for g in gradients.values())
    tokens = {k for k, g in gradients.items() if ".missing." in k and g.any()}
    where = "embedding" if scope == "dialogue" else "outside"
    assert tokens == {f"{where}.missing.{m}" for m in talk.DIMS}


@in_scopes
@each
def test_training_reaches_every_parameter(name: str, scope: str) -> None:
    settings = {"input_dropout": 0, "dropout": 0, "layers": 1}
    config = talk.config_of(name, scope, {"past": 2, "future": 2, "speakers": "same_other"}, model=settings)
    utterances = [replace(u, label=i - 4.0) for i, u in enumerate(talk.dialogue("a", 6) + talk.dialogue("b", 4))]
    torch.manual_seed(0)
    task = FineTuning(config, talk.DIMS, labeled_examples(utterances, Target()), utterances, [], torch.device("cpu"))
    model, (batch,) = task.build_module(), task.batches(1)
    task.loss(model, batch, None, 0.0).backward()
    without = {k for k, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9}
    assert without <= {"attention.lin_key.bias"}  # which adds the same to all scores of a softmax


@each
def test_the_node_of_a_dialogue_is_for_the_propagation_alone(name: str) -> None:
    """No edge could join it: it has no row in any embedding, and where nothing uses it, a note says so."""
    plain, asked = (talk.config_of(name, "hierarchical", {"dialogue_node": node}) for node in (False, True))
    check(asked)
    sizes = [
        {k: p.shape for k, p in talk.model_of(x).named_parameters() if "propagations" not in k} for x in (plain, asked)
    ]
    assert sizes[0] == sizes[1]
    said = [talk.say(talk.model_of(x), x, talk.dialogue("a", 4)).value for x in (plain, asked)]
    assert not torch.equal(*said)
    for scope, model in (("dialogue", {}), ("hierarchical", {"propagation": 0})):
        config = talk.config_of(name, scope, {"dialogue_node": True}, model=model)
        check(config)
        assert unused_settings(config) == ["graph.dialogue_node"]
    assert unused_settings(asked) == []


@in_scopes
def test_the_node_of_a_dialogue_in_mmgcn_starts_as_its_type(scope: str) -> None:
    config = talk.config_of("mmgcn", scope, {"dialogue_node": True})
    check(config)
    model = talk.model_of(config)
    talk.say(model, config, talk.dialogue("a", 4)).value.sum().backward()
    start = model.embedding if scope == "dialogue" else model.outside
    assert start.node_type.grad[-1].any()


@in_scopes
@each
def test_classes_single_modalities_and_reconstruction(name: str, scope: str) -> None:
    config = talk.config_of(
        name,
        scope,
        target={"kind": "classes", "classes": ["joy", "anger", "calm"]},
        loss={"unimodal_weight": 0.5},
        reconstruction={"weight": 1.0, "target": "oracle"},
    )
    check(config)
    model = talk.model_of(config)
    output = talk.say(model, config, talk.dialogue("a", 5))
    assert output.value is None
    assert output.logits.shape == (5, 3)
    assert set(output.unimodal) == set(talk.DIMS)
    assert model.reconstruct(output, "text", torch.tensor([2, 4])).shape == (2, 4)
    sum(x.sin().sum() for x in (output.logits, *output.unimodal.values())).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@in_scopes
@each
def test_they_can_be_pre_trained(name: str, scope: str) -> None:
    config = talk.config_of(name, scope, {"speakers": "same_other"}, pretrain={"epochs": 1})
    torch.manual_seed(0)
    module = PretrainingModel(talk.build_model(talk.DIMS, config), talk.DIMS, config)
    utterances = [u for u in talk.dialogue("a", 8) if any(u.lengths.values())]
    (batch,) = pretraining_batches(utterances, config, 1)
    losses = module(batch)
    sum(losses).backward()
    assert all(loss.isfinite() for loss in losses)
    reached = {k.split(".")[1] for k, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"embedding", "encoder", "join"} <= reached


@each
def test_they_compute_in_half_precision(name: str) -> None:
    config = talk.config_of(name, "dialogue", talk.CONTEXTS["pairs"])
    model = talk.model_of(config).float()
    batch = collate(talk.dialogue("a", 6), config)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
        (output.value.float().square().sum() + output.logits.float().square().sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    expected = model(batch).logits
    assert (output.logits - expected).abs().max() < 0.1 * expected.abs().max()


# --- growing dialogues ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Run]:
    """Runs of causal graphs, trained once."""
    folder = tmp_path_factory.mktemp("live")
    own = write_pickle(folder / "own.pkl", tiny_content())

    def trained(name: str, scope: str) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results, "draw_run", lambda *_: None)
            graph = {"scope": scope, "past": 2, "future": 0}
            run, place = {"seeds": [1]}, folder / f"{name.partition('(')[0]}-{scope}"
            return Run(tiny_run(place, own, model={"name": name}, graph=graph, run=run))

    return trained


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        pytest.param(name, scope, marks=[] if (name, scope) in ((NAMES[0], SCOPES[1]), (NAMES[1], SCOPES[0])) else slow)
        for slow in [pytest.mark.slow]
        for name in NAMES
        for scope in SCOPES
    ],
)
def test_a_stream_says_what_the_whole_says(live: Callable[[str, str], Run], name: str, scope: str) -> None:
    run = live(name, scope)
    draw = torch.Generator().manual_seed(0)
    shapes: dict[str, Any] = {"text": (3, 4), "audio": (5, 3), "vision": (2, 2)}
    utterances = [
        Utterance(f"call$_${i}", {m: torch.randn(shape, generator=draw) for m, shape in shapes.items()})
        for i in range(7)
    ]
    stream = run.stream()
    found = [stream.add(u).values[0] for u in utterances]
    np.testing.assert_allclose(found, run.predict(utterances).values, rtol=0, atol=2e-6)
    assert found[-1] == run.predict(utterances).values[-1]
    assert len(set(found)) == 7
    assert all(isinstance(m, Conversation) for m in stream._models)
