"""Models whose target is one of K classes: no node, head or gate for an intensity, and all else as before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.graphs import collate, scope_for
from torch import nn

from gmsa.config import Config, from_dict
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch, build_graph
from gmsa.models import MODELS, Embedding, Model, Output, build_model, check, graph_spec
from gmsa.nn import Heads

DIMS = {"text": 6, "audio": 4, "vision": 5}
CLASSES = {"kind": "classes", "classes": ["joy", "anger", "fear", "calm"]}
LENGTHS = [(5, 9, 3), (5, 0, 0), (0, 17, 3), (0, 0, 0), (12, 40, 7)]
MODES = ({}, {"graph": {"scope": "dialogue"}}, {"graph": {"intra": "temporal"}})


def config_of(name: str = "semi_iin", graph: dict | None = None, target: dict | None = None, **settings) -> Config:
    model = {"name": name, "channels": 16, "heads": 4, "layers": 2} | settings
    graphs = scope_for(name) | (graph or {})
    return from_dict({"model": model, "graph": graphs, "target": CLASSES if target is None else target})


def model_of(config: Config) -> Model:
    torch.manual_seed(0)
    return build_model(DIMS, config).eval()


@pytest.fixture
def utterances(make_utterance) -> list:
    return [make_utterance(f"v{i // 2}$_${i}", lengths) for i, lengths in enumerate(LENGTHS)]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_of_classes_gives_their_scores_and_no_intensity(name: str, mode: dict, utterances) -> None:
    config = config_of(name, **mode)
    check(config)
    model, batch = model_of(config).train(), collate(utterances, config)
    assert not (batch.node_type == 0).any()  # no node val
    output = model(batch)
    assert output.value is None
    assert output.logits.shape == (len(utterances), 4)
    assert output.features.shape == (len(utterances), 16)
    if output.gate is not None:
        assert output.gate.shape == (len(utterances), 1, 16)
    assert not any(key.startswith("heads.value") for key in model.state_dict())
    output.logits.square().sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in grads)
    assert any(g.any() for g in grads)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_order_and_company_change_no_score(name: str, mode: dict, utterances) -> None:
    config = config_of(name, **mode)
    model = model_of(config)
    together = model(collate(utterances, config)).logits
    order = [3, 1, 4, 0, 2]
    shuffled = model(collate([utterances[i] for i in order], config)).logits
    torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-6)
    if config.graph.scope == "utterance":
        for i, utterance in enumerate(utterances):
            torch.testing.assert_close(model(collate([utterance], config)).logits[0], together[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("graph", [{}, {"intra": "temporal"}, {"scope": "dialogue"}], ids=str)
@pytest.mark.parametrize(("name", "streams"), [("semi_iin", "both"), ("semi_iin", "global"), ("sslmm", "both")])
def test_routes_agree(name: str, streams: str, graph: dict, utterances) -> None:
    results = []
    for route in ("dense", "edge"):
        config = config_of(name, graph, streams=streams, route=route)
        batch = collate(utterances, config)
        batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
        model = model_of(config).double()
        logits = model(batch).logits
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    for dense, edge in zip(*results, strict=True):
        torch.testing.assert_close(dense, edge, rtol=1e-9, atol=1e-11)


def test_one_layer_reads_at_cls_what_it_reads_beside_val(utterances) -> None:
    """Readout nodes are not connected: with the same weights the scores are those of a model that has both."""
    classes, both = config_of(layers=1), config_of(target={}, layers=1)
    ours, theirs = model_of(classes), model_of(both)
    weights = {k: v for k, v in theirs.state_dict().items() if not k.startswith(("heads.value", "heads.classes"))}
    weights = {k.replace("fusions.1.", "fusions.0."): v for k, v in weights.items() if not k.startswith("fusions.0.")}
    weights |= {k: v for k, v in ours.state_dict().items() if k.startswith("heads.classes")}
    ours.load_state_dict(weights)
    theirs.heads.classes = ours.heads.classes
    found, expected = ours(collate(utterances, classes)), theirs(collate(utterances, both))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.gate, expected.gate[:, 1:], rtol=1e-5, atol=1e-6)


class Loud(Model):
    """A model of intensities alone, as plug-ins of earlier versions are."""

    def __init__(self, dims, *, channels: int = 128, convs=None) -> None:
        super().__init__()
        self.embedding = Embedding(dims, channels, convs=convs)
        self.heads = Heads(channels, 7)

    def nodes(self, z0, batch):
        return z0

    def forward(self, batch: GraphBatch) -> Output:
        val, cls = batch.readout(self.embedding(batch))
        return Output(*self.heads(val, cls), None, val)


def test_a_model_of_intensities_alone_is_refused_for_classes(utterances, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_parts", dict(MODELS._parts))
    MODELS.register("loud_for_test", Loud)
    intensity = config_of("loud_for_test", target={})
    check(intensity)
    assert build_model(DIMS, intensity)(collate(utterances, intensity)).value.shape == (5,)
    with pytest.raises(ConfigError, match=r"'model.name: loud_for_test' predicts an intensity alone: .*'num_classes'"):
        check(config_of("loud_for_test"))


def test_weights_of_intensities_keep_their_names_and_shapes() -> None:
    shapes = {key: tuple(w.shape) for key, w in model_of(config_of(target={})).state_dict().items()}
    assert shapes["embedding.node_type"] == (5, 16)
    assert shapes["heads.value.weight"] == (1, 16)
    assert shapes["heads.classes.weight"] == (7, 16)
    assert {key for key in shapes if key.startswith("fusions.")} == {
        f"fusions.{r}.{part}" for r in (0, 1) for part in ("intra.weight", "inter.weight", "inter.bias")
    }
    assert isinstance(model_of(config_of()).heads.classes, nn.Linear)


def test_the_graph_of_an_utterance_may_lack_val(make_utterance) -> None:
    config = config_of()
    assert graph_spec(config).readouts == ("cls",)
    data = build_graph(make_utterance("a$_$1", (3, 8, 0)), config.graph, readouts=graph_spec(config).readouts)
    assert (data["val"].num_nodes, data["cls"].num_nodes) == (0, 1)
    assert data["text", "intra", "val"].num_edges == 0
