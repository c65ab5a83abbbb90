"""Graphs of modalities of any names and number: as those of PyG, and drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.graphs import clip, clips, collate
from torch_geometric.data import Batch

from gmsa.config import Config, from_dict
from gmsa.errors import ConfigError, DataError
from gmsa.figures.graph import COLORS, READOUT_COLORS, draw_graph
from gmsa.graph import READOUTS, build_dialogue_graph, build_graph, schema
from gmsa.graph.schema import builder_of
from gmsa.graph.view import find_relation, to_networkx
from gmsa.models import graph_spec
from gmsa.nn import SparseEdges

SETS = {
    "one": {"eeg": 3},
    "four": {"text": 4, "eeg": 3, "pose": 2, "gaze": 5},
    "eight": {f"m{i}": 1 + i % 3 for i in range(8)},
}
GRAPHS: dict[str, dict[str, Any]] = {
    "complete": {},
    "window": {"intra": "window(radius=1)", "inter": "window"},
    "temporal": {"intra": "temporal", "inter": "complete"},
    "dialogue": {"scope": "dialogue", "context": 1},
}
CLASSES = {"kind": "classes", "classes": ["a", "b", "c"]}


def config_of(dims: dict[str, int], graph: dict[str, Any], route: str = "auto", target: dict | None = None) -> Config:
    model = {"channels": 8, "heads": 2, "route": route, "encoders": {"others": [[3, 2]]}}
    return from_dict({"data": {"modalities": list(dims)}, "graph": graph, "model": model, "target": target or {}})


@pytest.mark.parametrize(
    ("modalities", "node_types"),
    [
        (["vision", "text"], ("val", "cls", "audio", "text", "vision")),
        (["text", "eeg", "audio"], ("val", "cls", "text", "eeg", "audio")),
        (["eeg"], ("val", "cls", "eeg")),
    ],
)
def test_node_types_follow_the_modalities(modalities: list[str], node_types: tuple[str, ...]) -> None:
    types = schema(modalities)
    count = len(node_types) - 2
    assert types.node_types == node_types
    assert [types.numbers[t] for t in node_types] == list(range(len(node_types)))
    assert len(types.token_relations) == count**2
    assert len(types.relations) == count**2 + 8 * count == len(set(types.relations))
    assert types.edge_types == 3 * count**2
    firsts = [types.first_edge_type[r] for r in types.token_relations]
    assert firsts == list(range(0, types.edge_types, 3))
    assert types.first_edge_type["cls", "intra", node_types[2]] == types.edge_types
    assert schema(modalities) is schema(tuple(modalities))  # kept
    with pytest.raises(ConfigError, match=r"at most 8 modalities \(got 9\)"):
        schema([f"m{i}" for i in range(9)])


@pytest.mark.parametrize("target", [None, CLASSES], ids=["intensity", "classes"])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dims", SETS)
def test_a_batch_is_that_of_pyg(dims: str, graph: str, target: dict | None) -> None:
    config = config_of(SETS[dims], GRAPHS[graph], target=target)
    utterances, spec = clips(SETS[dims]), graph_spec(config)
    groups = [[u] for u in utterances]
    if config.graph.scope == "dialogue":
        groups = [list(group) for _, group in groupby(utterances, key=lambda u: u.video)]
        theirs = Batch.from_data_list([build_dialogue_graph(g, config.graph, readouts=spec.readouts) for g in groups])
    else:
        graphs = [build_graph(u, config.graph, spec.strides, readouts=spec.readouts) for u in utterances]
        theirs = Batch.from_data_list(graphs)
        assert torch.equal(theirs.steps.T, torch.stack(list(collate(utterances, config).lengths.values())))
    for route in ("dense", "edge"):
        ours = collate(utterances, config_of(SETS[dims], GRAPHS[graph], route, target))
        assert ours.schema.node_types == ("val", "cls", *SETS[dims])
        found = ours.edge_index_dict()
        assert list(found) == theirs.edge_types
        for relation, edges in found.items():
            expected = {tuple(e) for e in theirs[relation].edge_index.T.tolist()}
            assert {tuple(e) for e in edges.T.tolist()} == expected, relation
            assert edges.shape[1] == len(expected)
        for node_type in ours.schema.node_types:
            index = ours.node_index(node_type)
            assert len(index) == theirs[node_type].num_nodes
            assert torch.equal(ours.position[index], theirs[node_type].pos)


@pytest.mark.parametrize("dims", SETS)
def test_types_of_edges_are_those_of_their_relations(dims: str) -> None:
    config = config_of(SETS[dims], GRAPHS["temporal"], "edge")
    utterances, types = clips(SETS[dims]), schema(SETS[dims])
    batch = collate(utterances, config)
    dense = collate(utterances, config_of(SETS[dims], GRAPHS["temporal"], "dense"))
    for stream, edges in batch.edges.items():
        assert isinstance(edges, SparseEdges)
        source, target = (batch.node_type[end].tolist() for end in edges.index)
        for s, t, found in zip(source, target, edges.edge_type.tolist(), strict=True):
            first = types.first_edge_type[types.node_types[s], stream, types.node_types[t]]
            assert found == first if first == types.edge_types else found in range(first, first + 3)
        adjacency = dense.edges[stream].adjacency
        assert adjacency.dtype == torch.uint8  # 193 codes for eight modalities
        assert sorted(adjacency[adjacency > 0].tolist()) == sorted((edges.edge_type + 1).tolist())


def test_a_builder_is_chosen_by_any_name() -> None:
    graph = {"intra": {"eeg": "window(radius=3)"}, "inter": {"eeg_to_text": "aligned", "others": "window"}}
    config = config_of(SETS["four"], graph).graph
    assert builder_of(("eeg", "intra", "eeg"), config) == ("window", {"radius": 3})
    assert builder_of(("pose", "intra", "pose"), config) == ("complete", {})
    assert builder_of(("eeg", "inter", "text"), config) == ("aligned", {})
    assert builder_of(("text", "inter", "eeg"), config) == ("window", {"radius": 2})
    assert builder_of(("eeg", "intra", "val"), config) == ("complete", {})


def test_a_modality_that_the_data_lacks_keeps_its_place() -> None:
    config, dims = config_of(SETS["four"], {}), SETS["four"]
    utterances = clips(dims)
    fewer = [replace(u, features={m: x for m, x in u.features.items() if m != "eeg"}) for u in utterances]
    empty = [u.drop(frozenset({"eeg"})) for u in utterances]
    ours, theirs = collate(fewer, config), collate(empty, config)
    assert torch.equal(ours.node_type, theirs.node_type)
    assert not (ours.node_type == ours.schema.numbers["eeg"]).any()
    data = build_graph(fewer[1], config.graph, modalities=dims)
    assert [*data.node_types] == [*dims, *READOUTS]
    assert data["eeg"].num_nodes == 0
    assert build_graph(fewer[1], config.graph).node_types == [m for m in (*dims, *READOUTS) if m != "eeg"]


def test_too_long_a_sequence_names_its_encoder() -> None:
    config = config_of(SETS["four"], {})
    long = clip("a$_$1", SETS["four"], (1, 1100, 1, 1))
    with pytest.raises(DataError, match=r"eeg of 'a\$_\$1' has 550 tokens, .* stride more in 'model.encoders.eeg'"):
        collate([long], config)


def test_a_relation_is_found_by_name() -> None:
    assert find_relation("eeg-inter-text", SETS["four"]) == ("eeg", "inter", "text")
    with pytest.raises(ConfigError, match=r"such as text-intra-text or eeg-inter-text"):
        find_relation("audio-inter-text", SETS["four"])
    with pytest.raises(ConfigError, match=r"name it source-stream-target, such as eeg-intra-eeg$"):
        find_relation("a", SETS["one"])


@pytest.mark.parametrize("dims", SETS)
def test_every_graph_can_be_drawn(dims: str, tmp_path: Path) -> None:
    utterance = clip("a$_$1", SETS[dims], [1 + i % 4 for i in range(len(SETS[dims]))])
    graph = build_graph(utterance, config_of(SETS[dims], {}).graph)
    assert len(to_networkx(graph)) == 2 + sum(utterance.lengths.values())
    draw_graph(graph, tmp_path / "graph.svg", "one two")
    assert ET.fromstring((tmp_path / "graph.svg").read_bytes()).tag.endswith("svg")
    text = (tmp_path / "graph.svg").read_text().lower()
    drawn = [colour.lower() for _, colour in zip(SETS[dims], COLORS, strict=False)]
    assert all(colour in text for colour in (*drawn, *map(str.lower, READOUT_COLORS.values())))


def test_a_graph_without_an_intensity_is_drawn_without_val(tmp_path: Path) -> None:
    graph = build_graph(clip("a$_$1", SETS["one"], (3,)), Config().graph, readouts=("cls",))
    draw_graph(graph, tmp_path / "graph.svg")
    assert READOUT_COLORS["val"].lower() not in (tmp_path / "graph.svg").read_text().lower()
