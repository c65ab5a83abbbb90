"""Models of dialogues that choose among edges, weigh them, or encode the sequence of utterances first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor, nn

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.errors import ConfigError
from gmsa.graph import READOUTS
from gmsa.models import MODELS, Model, build_model, check
from gmsa.nn import AngularWeights, Interaction, LearnedChoice
from gmsa.registry import LAYERS

DIMS = {"text": 6, "audio": 4, "vision": 5}
SCOPES = ["dialogue", "hierarchical"]
LEARNED = {"between": "learned(neighbors=2)"}
ANGULAR = {"weights": "angular"}
BOTH = LEARNED | ANGULAR
ALL = {"past": "all", "future": "all"}
in_scopes = pytest.mark.parametrize("scope", SCOPES)
of_two_models = pytest.mark.parametrize("name", ["semi_iin", "sslmm"])


def config_of(scope: str, graph: dict[str, Any] | None = None, **model: Any) -> Config:
    settings = {"channels": 8, "heads": 2, "input_dropout": 0, "dropout": 0} | model
    around = {"scope": scope, "past": 3, "future": 2, "speakers": "same_other"}
    return from_dict({"graph": around | (graph or {}), "model": settings})


def dialogue(count: int, name: str = "d") -> list[Utterance]:
    """Utterances of two speakers, of which some lack modalities."""
    found = []
    for i in range(count):
        lengths = (0 if i in (2, 5) else 2 + i % 3, 0 if i == 4 else 3, i % 2)
        one = clip(f"{name}$_${i}", DIMS, lengths, speaker="AB"[i % 3 % 2], label=0.5)
        found.append(replace(one, features={m: x.double() for m, x in one.features.items()}))
    return found


def model_of(config: Config, seed: int = 1) -> Model:
    """A model whose weights are all drawn, those that start as zeros too."""
    torch.manual_seed(seed)
    model = build_model(DIMS, config).double().eval()
    for part in (*model.between, model.embedding.sequence, model.outside and model.outside.sequence):
        for parameter in part.parameters() if part else ():
            nn.init.normal_(parameter, std=0.3)
    return model


def say(model: Model, config: Config, utterances: list[Utterance]) -> Tensor:
    output = model(collate(utterances, config))
    return torch.cat([output.value[:, None], output.logits], dim=1)


def nodes(model: Model, config: Config, utterances: list[Utterance]) -> Tensor:
    batch = collate(utterances, config)
    z0 = model.embedding(batch)
    return model.nodes(z0, batch) if batch.dialogues is None else model.outside_nodes(z0, batch)


def sequence_of(model: Model) -> nn.Module | None:
    return model.embedding.sequence if model.outside is None else model.outside.sequence


CHOSEN = {"learned": LEARNED, "angular": ANGULAR, "both": BOTH}


# --- choice and weights -----------------------------------------------------------------------------------------------


@in_scopes
@pytest.mark.parametrize(
    ("name", "streams"), [("semi_iin", "both"), ("semi_iin", "global"), ("sslmm", "both"), ("sslmm", "intra")]
)
@pytest.mark.parametrize(
    "chosen", [name if name == "both" else pytest.param(name, marks=pytest.mark.slow) for name in CHOSEN]
)
def test_the_gradient_reaches_the_scores(scope: str, name: str, streams: str, chosen: str) -> None:
    config = config_of(scope, CHOSEN[chosen] | {"dialogue_node": streams == "both"}, name=name, streams=streams)
    model, utterances = model_of(config), dialogue(7)
    kinds = [LearnedChoice] * ("between" in CHOSEN[chosen]) + [AngularWeights] * ("weights" in CHOSEN[chosen])
    assert [type(part) for part in model.between] == kinds
    for run in (say, nodes):  # to learn from labels, and to be pre-trained
        model.zero_grad()
        run(model, config, utterances).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        assert all(p.grad.any() for p in model.between.parameters()), run.__name__
    plain = config_of(scope, {"dialogue_node": streams == "both"}, name=name, streams=streams)
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("between")}
    without = build_model(DIMS, plain).double().eval()
    without.load_state_dict(weights)  # all other weights are the same ones
    assert not torch.allclose(say(model, config, utterances), say(without, plain, utterances), atol=1e-6)


@in_scopes
@of_two_models
def test_all_neighbours_of_sure_scores_are_the_whole_window(scope: str, name: str) -> None:
    config, plain = config_of(scope, {"between": "learned(neighbors=5)"}, name=name), config_of(scope, name=name)
    model, without = model_of(config), model_of(plain)
    with torch.no_grad():
        model.between[0].bias.fill_(100)  # the sigmoid is 1
    without.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("between")})
    for run in (say, nodes):
        torch.testing.assert_close(run(model, config, dialogue(7)), run(without, plain, dialogue(7)))


@in_scopes
@of_two_models
def test_no_neighbours_are_no_other_utterance(scope: str, name: str) -> None:
    # Predictions propagate along all edges among which the model chooses.
    config = config_of(scope, {"between": "learned(neighbors=0)"}, name=name, propagation=0)
    model, utterances = model_of(config), dialogue(6)
    alone = torch.cat([say(model, config, [u]) for u in utterances])
    together = say(model, config, utterances)
    if scope == "hierarchical":  # in the other scope nodes know their place
        torch.testing.assert_close(together, alone)
    changed = [utterances[0], *dialogue(6, "other")[1:]]
    changed = [replace(u, id=f"d$_${i}") for i, u in enumerate(changed)]
    torch.testing.assert_close(say(model, config, changed)[0], together[0])


@in_scopes
@pytest.mark.parametrize(
    ("name", "missing_node"),
    [("semi_iin", "gated"), ("sslmm", "gated"), ("sslmm", "silent"), ("sslmm", "dropped")],
)
def test_dialogues_of_a_batch_do_not_touch(scope: str, name: str, missing_node: str) -> None:
    config = config_of(scope, BOTH | {"dialogue_node": True}, name=name, missing_node=missing_node)
    model, dialogues = model_of(config), [dialogue(7), dialogue(1, "e"), dialogue(4, "f")]
    alone = torch.cat([say(model, config, one) for one in dialogues])
    together = say(model, config, [u for one in dialogues for u in one])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@in_scopes
@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("semi_iin", BOTH),
        ("sslmm", {"between": "knn(neighbors=2)"}),
        ("semi_iin", {"between": "speaker"}),
        pytest.param("sslmm", BOTH, marks=pytest.mark.slow),
        pytest.param("semi_iin", {"between": "knn(neighbors=2)"}, marks=pytest.mark.slow),
        pytest.param("sslmm", {"between": "speaker"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_causal_graphs_hear_nothing_later(scope: str, name: str, graph: dict[str, Any]) -> None:
    config = config_of(scope, graph | {"past": "all", "future": 0, "dialogue_node": True}, name=name)
    model, utterances = model_of(config), dialogue(7)
    whole = say(model, config, utterances)
    for i in range(1, 7):
        later = [replace(u, id=f"d$_${i + k}") for k, u in enumerate(dialogue(7 - i, "other"))]
        torch.testing.assert_close(say(model, config, utterances[:i] + later)[:i], whole[:i], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(say(model, config, utterances[:i] + later)[i:], whole[i:], atol=1e-6)


@in_scopes
@pytest.mark.parametrize("stream", ["global", "intra", "inter"])
def test_only_edges_between_utterances_are_chosen_and_only_typed_ones_weighed(scope: str, stream: str) -> None:
    """In scope hierarchical these are edges of readout nodes too."""
    graph = {"between": "learned(neighbors=0)", "weights": "angular", "dialogue_node": True}
    streams = "both" if stream != "global" else stream
    config = config_of(scope, graph, streams=streams)
    model, batch = model_of(config), collate([*dialogue(7), *dialogue(2, "e")], config)
    batch = batch if scope == "dialogue" else batch.dialogues
    x = torch.randn(len(batch.node_type), 8, dtype=torch.double)
    all_edges, found = batch.edges[stream].index, model.edges(x, batch, stream)
    kind = [batch.schema.node_types[number] for number in batch.node_type.tolist()]
    joined = {*DIMS, *(READOUTS if scope == "hierarchical" else ())}

    def is_chosen(source: int, target: int) -> bool:
        return source != target and kind[source] == kind[target] and kind[target] in joined

    def is_weighed(source: int, target: int) -> bool:
        return {kind[source], kind[target]} <= {*DIMS} or (kind[source] == kind[target] and kind[target] in joined)

    left = [pair for pair in all_edges.T.tolist() if not is_chosen(*pair)]
    gone = {kind[source] for source, target in all_edges.T.tolist() if is_chosen(source, target)}
    assert gone == (joined if stream != "inter" else joined - {*DIMS})
    assert found.index.T.tolist() == left
    assert (found.log_weight != 0).tolist() == [is_weighed(*pair) for pair in left]


def test_a_silent_node_is_not_chosen() -> None:
    """Utterances that lack a modality take no place among the chosen ones of that modality."""
    chosen = {}
    for missing_node in ("gated", "dropped"):
        config = config_of("hierarchical", ALL | LEARNED, name="sslmm", missing_node=missing_node)
        model = model_of(config)
        graph = collate(dialogue(7), config).dialogues
        x = torch.randn(len(graph.node_type), 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
        gone = None if missing_node == "gated" else model._missing(graph)
        edges = model.edges(x, graph, "intra", gone)
        text = graph.node_index("text")
        ends = edges.index[:, torch.isin(edges.index[1], text) & (edges.index[0] != edges.index[1])] - text[0]
        chosen[missing_node] = {t: set(ends[0][ends[1] == t].tolist()) for t in range(7)}
    assert all(len(sources) == 2 for found in chosen.values() for sources in found.values())
    assert any(sources & {2, 5} for sources in chosen["gated"].values())
    assert not any(sources & {2, 5} for sources in chosen["dropped"].values())


# --- the encoder of the sequence --------------------------------------------------------------------------------------

SEQUENCES = [("gru", ALL), ("transformer", {"past": 2, "future": 1}), ("transformer", ALL)]


@pytest.mark.parametrize(
    ("scope", "name", "sequence", "graph"),
    [
        pytest.param(scope, name, *one, marks=[pytest.mark.slow] * ((i + j + k) % 2), id=f"{scope}-{name}-{one[0]}")
        for i, scope in enumerate(SCOPES)
        for j, name in enumerate(sorted(MODELS))
        for k, one in enumerate(SEQUENCES[:2])
    ],
)
def test_every_model_learns_from_the_sequence(scope: str, name: str, sequence: str, graph: dict[str, Any]) -> None:
    config = config_of(scope, graph, name=name, sequence=sequence)
    model, dialogues = model_of(config), [dialogue(7), dialogue(1, "e"), dialogue(4, "f")]
    check(config)
    assert {*sequence_of(model).encoders} == {*DIMS}
    together = say(model, config, [u for one in dialogues for u in one])
    together.square().sum().backward()
    unused = ("key_value.bias",)  # of a key, whose bias no softmax sees
    without = [n for n, p in sequence_of(model).named_parameters() if not n.endswith(unused) and not p.grad.any()]
    assert not without
    alone = torch.cat([say(model, config, one) for one in dialogues])
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-12)
    mixed = [u for one in dialogues for u in one][::-1]  # an order of the batch that is none of the dialogues
    torch.testing.assert_close(say(model, config, mixed).flip(0), together, rtol=1e-11, atol=1e-12)


@in_scopes
@pytest.mark.parametrize("name", ["semi_iin", "late_fusion"])
@pytest.mark.parametrize("sequence", ["gru", "transformer"])
def test_it_starts_as_the_model_without(scope: str, name: str, sequence: str) -> None:
    config, plain = (config_of(scope, ALL, name=name, sequence=s) for s in (sequence, "none"))
    found = []
    for each in (config, plain):
        torch.manual_seed(1)
        found.append(say(build_model(DIMS, each).double().eval(), each, dialogue(6)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@in_scopes
@pytest.mark.parametrize(("name", "sequence"), [("sslmm", "gru"), ("late_fusion", "gru"), ("semi_iin", "transformer")])
def test_a_causal_sequence_hears_nothing_later(scope: str, name: str, sequence: str) -> None:
    config = config_of(scope, {"past": "all", "future": 0}, name=name, sequence=sequence)
    model, utterances = model_of(config), dialogue(6)
    whole = say(model, config, utterances)
    for i in (1, 3, 5):
        later = [replace(u, id=f"d$_${i + k}") for k, u in enumerate(dialogue(6 - i, "other"))]
        torch.testing.assert_close(say(model, config, utterances[:i] + later)[:i], whole[:i], rtol=1e-12, atol=1e-12)
    other = [replace(dialogue(1, "other")[0], id="d$_$0"), *utterances[1:]]
    assert ((say(model, config, other) - whole).abs().amax(1) > 1e-9).all(), "what came first reaches the last"


@in_scopes
def test_masked_utterances_are_masked_before_the_sequence(scope: str) -> None:
    """What pre-training hides reaches no node, not even through the encoder of the sequence."""
    config = config_of(scope, ALL, sequence="gru")
    model, utterances = model_of(config), dialogue(6)
    flags = torch.tensor([False, True, False, False, False, False])
    masked = {"text": (flags, torch.ones(8, dtype=torch.double))}
    found = []
    for factor in (1, 5):
        some = [u if i != 1 else replace(u, features=u.features | {"text": u.features["text"] * factor})
                for i, u in enumerate(utterances)]  # fmt: skip
        batch = collate(some, config)
        if scope == "dialogue":
            found.append(model.embedding(batch, masked))
        else:
            states = {m: torch.cat([u.features[m].sum().expand(1, 8) for u in some]) for m in DIMS}
            found.append(model.outside(states, None, batch.dialogues, masked))
    torch.testing.assert_close(*found)


# --- settings that do not fit -----------------------------------------------------------------------------------------


@in_scopes
@pytest.mark.parametrize("name", ["global", "late_fusion", "hgt"])
@pytest.mark.parametrize("graph", [LEARNED, ANGULAR], ids=str)
def test_models_that_take_no_weights_say_so(scope: str, name: str, graph: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"'model.name: {name}' takes no weights of edges, which 'graph") as caught:
        check(config_of(scope, graph, name=name))
    assert len(str(caught.value)) <= 400
    check(config_of("utterance", graph, name=name))
    check(config_of(scope, {"between": "knn"}, name=name))


@in_scopes
@of_two_models
def test_a_layer_that_takes_no_weights_is_refused(scope: str, name: str, monkeypatch) -> None:
    class Deaf(Interaction):
        takes_weights = False

    monkeypatch.setitem(LAYERS._parts, "deaf", Deaf)
    with pytest.raises(ConfigError, match=r"'model\.layer: deaf' takes no weights of edges"):
        check(config_of(scope, LEARNED, name=name, layer="deaf"))
    check(config_of(scope, name=name, layer="deaf"))


@in_scopes
@pytest.mark.parametrize(
    "graph", [{"past": 3, "future": 0}, {"past": "all", "future": 2}, {"context": 5}, {"past": 100_000, "future": 0}]
)
def test_a_recurrent_encoder_reaches_all_that_was_said(scope: str, graph: dict[str, Any]) -> None:
    around = {"past": None, "future": None} | graph
    with pytest.raises(
        ConfigError, match=r"'model.sequence: gru' reaches all .* set 'graph.past' to all, and"
    ) as caught:
        config_of(scope, around, sequence="gru")
    assert len(str(caught.value).splitlines()) == 1
    config_of(scope, around, sequence="transformer")
    config_of("utterance", around, sequence="gru")
    for fits in ({"context": "all", "past": None, "future": None}, {"past": "all", "future": 0}):
        config_of(scope, fits, sequence="gru")


@in_scopes
def test_existing_models_draw_the_same_weights(scope: str) -> None:
    """Parts are made after the model, so that the same seed gives it the same weights."""
    found = []
    for graph, sequence in (({}, "none"), (BOTH, "none"), (ALL, "gru")):
        torch.manual_seed(3)
        model = build_model(DIMS, config_of(scope, graph, sequence=sequence))
        found.append({k: v for k, v in model.state_dict().items() if "sequence" not in k and "between" not in k})
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[k], found[0][k]) for k in other)
