"""SSLMM: what may reach what by perturbation, its two routes, its graph, its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import pytest
import torch
from helpers.graphs import collate
from helpers.sslmm import DIMS, config_of, model_of
from torch import Tensor

from gmsa.config import MODALITIES, ReconstructionConfig, from_dict
from gmsa.errors import ConfigError
from gmsa.graph import build_dialogue_graph, build_graph
from gmsa.graph.view import to_networkx
from gmsa.models import Output, check, graph_spec
from gmsa.training.examples import Targets
from gmsa.training.protocols import check_protocol

ORDERS = ("intra_first", "inter_first", "simultaneous")


GRAPHS: list[dict[str, Any]] = [
    {},
    {"intra": "window(radius=1)", "inter": "aligned"},
    {"intra": "temporal"},
    {"scope": "dialogue", "context": 1},
]


@pytest.mark.parametrize(
    ("graph", "missing"),
    [*((graph, "gated") for graph in GRAPHS), (GRAPHS[-1], "silent"), (GRAPHS[-1], "dropped")],
    ids=str,
)
@pytest.mark.parametrize("order", ORDERS)
def test_routes_agree_in_the_whole_model(utterances, graph: dict[str, Any], order: str, missing: str) -> None:
    found = []
    for route in ("dense", "edge"):
        config = config_of(graph=graph, model={"order": order, "missing_node": missing, "route": route})
        model = model_of(config)
        output = model(collate(utterances, config))
        (output.value.sin().sum() + output.logits.square().sum()).backward()
        found.append([output.value, output.logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for dense, edge in zip(*found, strict=True):
        torch.testing.assert_close(dense, edge)


def test_its_graph_has_no_readout_nodes(utterances) -> None:
    config = config_of()
    batch = collate(utterances, config)
    assert not (batch.node_type < 2).any()
    tokens = sum(-(-u.lengths[m] // graph_spec(config).strides[m]) for u in utterances for m in MODALITIES)
    assert len(batch.node_type) == tokens == len(batch.embedding_row)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("route", ["dense", "edge"])
def test_alternation_by_perturbation(make_utterance, order: str, route: str) -> None:
    """Half a block crosses edges of one kind alone, a whole one exactly one inter edge: against NetworkX."""
    graph = {"intra": "window(radius=1)", "inter": "aligned"}
    config = config_of(graph=graph, model={"order": order, "route": route, "encoders": {"audio": [[3, 1]]}})
    model, utterance = model_of(config), make_utterance("v$_$0", (6, 4, 5))
    batch = collate([utterance], config)
    (block,) = model.blocks
    intra, inter = (batch.edges[stream] for stream in ("intra", "inter"))
    view = to_networkx(build_graph(utterance, config.graph, graph_spec(config).strides))
    names = [(batch.schema.node_types[t], int(p)) for t, p in zip(batch.node_type, batch.position, strict=True)]

    def neighbours(start: set, stream: str) -> set:
        """Where messages of ``start`` arrive over one edge, and where they were."""
        reached = {b for a, b, data in view.edges(data=True) if data["stream"] == stream and a in start}
        return {node for node in start | reached if node[0] in MODALITIES}

    for i, name in enumerate(names):
        z0 = torch.randn(len(names), 16, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        moved = z0.clone()
        moved[i] += torch.arange(16)  # not by the same everywhere, which a LayerNorm takes out

        def changed(function: Any, z0: Tensor = z0, moved: Tensor = moved) -> set:
            apart = (function(z0) - function(moved)).abs().amax(1) > 1e-12
            return {names[j] for j in apart.nonzero().flatten().tolist()}

        assert changed(lambda h: block.intra(h, intra)) == neighbours({name}, "intra")
        assert changed(lambda h: block.inter(h, inter)) == neighbours({name}, "inter")
        within, across = neighbours({name}, "intra"), neighbours({name}, "inter")
        whole = {
            "intra_first": neighbours(within, "inter"),
            "inter_first": neighbours(across, "intra"),
            "simultaneous": within | across,
        }
        assert changed(lambda h: block(h, intra, inter)) == whole[order]


@pytest.mark.parametrize(
    ("missing", "layers", "sends"), [("gated", 1, False), ("gated", 2, True), ("silent", 2, False)]
)
@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_missing_node_sends_from_the_second_block_on(
    make_utterance, missing: str, layers: int, sends: bool, route: str
) -> None:
    config = config_of(graph={"scope": "dialogue"}, model={"missing_node": missing, "layers": layers, "route": route})
    model = model_of(config)
    clips = [make_utterance(f"v$_${i}", lengths) for i, lengths in enumerate([(3, 5, 2), (4, 0, 2), (3, 6, 0)])]
    clips = [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in clips]
    batch = collate(clips, config)
    before = model.nodes(model.embedding(batch), batch)
    with torch.no_grad():
        model.embedding.missing["audio"].add_(torch.arange(16))
    after = model.nodes(model.embedding(batch), batch)
    is_it = (batch.node_type == batch.schema.numbers["audio"]) & (batch.position == 1)
    moved = (before - after).abs().amax(1) > 1e-12
    assert moved[is_it].all()
    assert moved[~is_it].any() == sends


def test_a_missing_node_receives_from_the_first_block_on(make_utterance) -> None:
    config = config_of(graph={"scope": "dialogue"}, model={"layers": 1})
    model = model_of(config)
    clips = [make_utterance("v$_$0", (3, 5, 2)), make_utterance("v$_$1", (4, 0, 2))]
    clips = [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in clips]

    def audio_of_second() -> Tensor:
        return model(collate(clips, config)).states["audio"][1]

    before = audio_of_second()
    clips[0] = replace(clips[0], features=clips[0].features | {"audio": clips[0].features["audio"] + 1})
    assert (audio_of_second() - before).abs().max() > 1e-9  # over an intra edge
    middle = audio_of_second()
    clips[1] = replace(clips[1], features=clips[1].features | {"text": clips[1].features["text"] + 1})
    assert (audio_of_second() - middle).abs().max() > 1e-9  # over an inter edge


@pytest.mark.parametrize("streams", ["intra", "inter"])
def test_half_a_model(utterances, streams: str) -> None:
    config = config_of(model={"streams": streams})
    model = model_of(config)
    other = {"intra": "across", "inter": "within"}[streams]
    assert getattr(model.blocks[0], other) is None
    assert list(collate(utterances, config).edges) == [streams]
    assert torch.isfinite(model(collate(utterances, config)).value).all()


def test_blocks_are_tied_or_not() -> None:
    assert [len(model_of(config_of(model={"layers": 3, "shared_layers": s})).blocks) for s in (True, False)] == [1, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"name": "sslmm", "streams": "global"}}, "'model.streams' of sslmm must be both, intra or inter"),
        (
            {"protocol": {"name": "sslmm"}, "optim": {"ema": 0}},
            "has the moving average as its teacher; set 'optim.ema'",
        ),
        ({"protocol": {"name": "pretrain"}}, "needs 'pretrain.epochs' above 0, for example 20"),
        ({"protocol": {"init_from": "x"}, "pretrain": {"epochs": 2}}, "both say where to start; leave one out"),
        (
            {"reconstruction": {"weight": 1}, "model": {"modality_dropout": dict.fromkeys(DIMS, 0)}},
            "'reconstruction.weight' has nothing to reconstruct: hide modalities in training by",
        ),
        (
            {"reconstruction": {"weight": 1}, "data": {"modalities": ["text"]}},
            "'reconstruction.weight' has nothing to reconstruct",
        ),
        (
            {
                "reconstruction": {"weight": 1},
                "data": {"modalities": ["text", "audio"]},
                "model": {"modality_dropout": {"text": 0, "audio": 0, "vision": 0.5}},
            },
            "'reconstruction.weight' has nothing to reconstruct",
        ),
        (
            {"pretrain": {"epochs": 2}, "graph": {"scope": "dialogue"}, "data": {"modalities": ["text"]}},
            "'pretrain.epochs' masks whole modalities in graphs of dialogues, of which 'data.modalities' has one",
        ),
        (
            {
                "pretrain": {"epochs": 2},
                "data": {"modalities": ["text"]},
                "model": {"text_encoder": "somewhere"},
                "text": {"nodes": "transcript"},
            },
            "'pretrain.epochs' masks some nodes of an utterance, of which 'text.nodes: transcript' gives one and",
        ),
        ({"pretrain": {"mask": 1.0}}, "'pretrain.mask' must be less than 1"),
        ({"model": {"order": "both"}}, "'model.order' must be one of intra_first, inter_first, simultaneous"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    def build_and_check() -> None:
        config = from_dict(settings)
        check(config)
        check_protocol(config)

    with pytest.raises(ConfigError, match=message):
        build_and_check()


def test_the_graph_is_that_of_pyg_without_its_readout_nodes(utterances) -> None:
    config = config_of(graph={"scope": "dialogue", "context": 1})
    batch = collate(utterances[:3], config)
    view = to_networkx(build_dialogue_graph(utterances[:3], config.graph))
    view.remove_nodes_from([node for node in view if node[0] not in MODALITIES])
    names = [(batch.schema.node_types[t], int(p)) for t, p in zip(batch.node_type, batch.position, strict=True)]
    for stream in ("intra", "inter"):
        mine = sorted((names[a], names[b]) for a, b in batch.edge_index(stream).T.tolist())
        theirs = sorted((a, b) for a, b, data in view.edges(data=True) if data["stream"] == stream)
        assert mine == theirs
    assert isinstance(view, nx.MultiDiGraph)
    assert Output._fields[:3] == ("value", "logits", "gate")
    assert Targets._fields[:2] == ("value", "classes")
    assert ReconstructionConfig().target == "observed_only"
