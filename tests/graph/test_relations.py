"""The number of each edge's relation, against the edge stores of HeteroData one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from helpers.graphs import clip, collate
from torch_geometric.data import HeteroData

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.graph import DIALOGUE, GraphBatch, build_dialogue_graph, build_graph
from gmsa.graph.relations import _numbered
from gmsa.models.build import model_skeleton
from gmsa.models.context import StreamRelations
from gmsa.nn import Relations, SparseEdges

DIMS = {"text": 4, "audio": 2, "vision": 3}
LENGTHS = [(2, 5, 1), (1, 0, 2), (0, 0, 0), (3, 1, 0)]
SPEAKERS = ("ann", "bob", "ann", "eve")
GRAPHS: dict[str, dict[str, Any]] = {
    "untyped": {},
    "typed": {"intra": "temporal(radius=1)", "inter": "temporal"},
    "partly typed": {
        "intra": {"text": "temporal", "others": "window(radius=1)"},
        "inter": {"text_to_audio": "temporal"},
    },
    "dialogue": {"scope": "dialogue", "past": 2, "future": 1},
    "dialogue, distances": {"scope": "dialogue", "context": "all", "distances": 2, "dialogue_node": True},
    "dialogue, speakers": {"scope": "dialogue", "context": 3, "speakers": "same_other"},
    "dialogue, listed": {"scope": "dialogue", "context": 3, "speakers": ["ann", "bob"], "dialogue_node": True},
    "hierarchical": {"scope": "hierarchical", "intra": "temporal", "context": 1, "speakers": "same_other"},
    "hierarchical, listed": {"scope": "hierarchical", "past": 3, "future": 0, "distances": 1, "speakers": ["eve"]},
}


def config_of(graph: dict[str, Any], streams: str = "both") -> Config:
    model = {"channels": 8, "heads": 2, "layer": "rgcn", "streams": streams, "encoders": {"others": [[3, 1]]}}
    return from_dict({"model": model, "graph": graph})


def utterances() -> list[Utterance]:
    names = [("v", i) for i in range(4)] + [("w", i) for i in range(3)]
    return [clip(f"{video}$_${i}", DIMS, LENGTHS[(i + (video == "w")) % 4], speaker=SPEAKERS[i]) for video, i in names]


def kind_of(data: HeteroData, relation: tuple[str, str, str], edge: int, config: Config, is_dialogue: bool) -> str:
    """What an edge is called, from what its store says of it."""
    source, stream, target = relation
    time = ("past", "present", "future")
    if not is_dialogue:
        key = source if stream == "intra" else f"{source}_to_{target}"
        builder = getattr(config.graph, stream).of(key)
        typed = source in DIMS and target in DIMS and builder.startswith("temporal")
        return f"{stream} {time[data[relation].temporal_type[edge]]}" if typed else stream
    if source != target or DIALOGUE in (source, target):
        return stream
    graph, store = config.graph.outside, data[relation]
    most, distance = graph.distances, int(store.distance[edge])
    found = time[1 + (distance > 0) - (distance < 0)] if most == 1 else f"{max(-most, min(most, distance)):+d}"
    if graph.speakers == "same_other":
        return f"{stream} {found} {'same' if store.same_speaker[edge] else 'other'}"
    if graph.speakers != "none":
        names = [data.speakers[i] for i in store.edge_index[:, edge]]
        listed = [name if name in graph.speakers else "others" for name in names]
        return f"{stream} {found} {listed[0]} to {listed[1]}"
    return f"{stream} {found}"


def by_hand(graphs: list[HeteroData], stream: str, config: Config, is_dialogue: bool, types: tuple[str, ...]) -> set:
    """Source, target and relation of every edge, the nodes of all graphs end to end in the order of their types."""
    found, first = set(), 0
    for data in graphs:
        starts = {}
        for node_type in types:
            starts[node_type] = first
            first += data[node_type].num_nodes
        for relation in data.edge_types:
            source, kind, target = relation
            among_tokens = source in DIMS and target in DIMS
            if kind != stream and not (stream == "global" and (kind == "intra" or among_tokens)):
                continue
            for edge, (s, t) in enumerate(data[relation].edge_index.T.tolist()):
                name = kind_of(data, relation, edge, config, is_dialogue)
                found.add((starts[source] + s, starts[target] + t, (source, name, target)))
    return found


def named(edges: SparseEdges, relations: Relations) -> set:
    numbers = edges.relation.tolist()
    assert len(set(zip(*edges.index.tolist(), strict=True))) == len(numbers)
    return {(s, t, relations.triples[r]) for (s, t), r in zip(edges.index.T.tolist(), numbers, strict=True)}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("streams", ["both", "global"])
def test_each_edge_has_the_relation_of_its_store(name: str, streams: str) -> None:
    config, clips = config_of(GRAPHS[name], streams), utterances()
    batch, known = collate(clips, config), StreamRelations.of(config)
    dialogues = [[u for u in clips if u.video == video] for video in ("v", "w")]
    levels: list[tuple[GraphBatch, Any, list[HeteroData], bool]] = []
    if config.graph.scope != "dialogue":
        levels.append((batch, known.streams, [build_graph(u, config.graph.inside) for u in clips], False))
    if config.graph.scope != "utterance":
        outer = batch if config.graph.scope == "dialogue" else batch.dialogues
        relations = known.streams if config.graph.scope == "dialogue" else known.outside_streams
        levels.append((outer, relations, [build_dialogue_graph(group, config.graph) for group in dialogues], True))
    for graph, relations, stores, is_dialogue in levels:
        for stream in ("intra", "inter") if streams == "both" else ("global",):
            expected = by_hand(stores, stream, config, is_dialogue, graph.schema.node_types)
            edges = graph.edges[stream]
            assert named(edges, relations[stream]) == expected
            assert expected
            types = [graph.schema.node_types[i] for i in edges.node_type]
            assert types == [t for data in stores for t in graph.schema.node_types for _ in range(data[t].num_nodes)]
            assert edges.graph.tolist() == [g for g, data in enumerate(stores) for _ in range(data.num_nodes)]
            to_readouts = graph.readout_edges[stream]
            rows = {(s, int(graph.readout_index[t]), r) for s, t, r in named(to_readouts, relations[stream])}
            readouts = set(graph.readout_index.tolist())
            assert rows == {edge for edge in expected if edge[1] in readouts}


def test_relations_keep_their_order() -> None:
    """Weights of saved models are by number: another order would exchange them."""
    known = StreamRelations.of(config_of(GRAPHS["hierarchical, listed"] | {"intra": "temporal"}))
    inside, outside = known.streams["intra"], known.outside_streams["intra"]
    assert inside.node_types == ("val", "cls", "audio", "text", "vision")
    assert inside.triples[:4] == (
        ("text", "intra past", "text"),
        ("text", "intra present", "text"),
        ("text", "intra future", "text"),
        ("audio", "intra past", "audio"),
    )
    assert inside.triples[9:12] == (("text", "intra", "val"), ("val", "intra", "text"), ("text", "intra", "cls"))
    assert outside.triples[:4] == (
        ("text", "intra past eve to eve", "text"),
        ("text", "intra present eve to eve", "text"),
        ("text", "intra past eve to others", "text"),
        ("text", "intra past others to eve", "text"),
    )
    assert not [kind for _, kind, _ in outside.triples if "future" in kind or "present eve to others" in kind]


def test_numbers_are_numbers_after_a_model_was_built_on_the_device_meta() -> None:
    """As it is before each training: what is kept for later batches must not be of that device."""
    config = config_of(GRAPHS["typed"])
    _numbered.cache_clear()
    model_skeleton(DIMS, config)
    edges = collate(utterances(), config).edges["intra"]
    assert edges.relation.device.type == "cpu"
    assert set(edges.relation.tolist()) == {*range(len(StreamRelations.of(config).streams["intra"]))}


@pytest.mark.slow
def test_relations_have_a_fixed_order_in_every_process() -> None:
    code = """
from gmsa.config import from_dict
from gmsa.graph.relations import _numbered
from gmsa.models.build import model_skeleton
from gmsa.models.context import StreamRelations
graph = {"scope": "hierarchical", "intra": "temporal", "speakers": ["ann", "bob"]}
print(StreamRelations.of(from_dict({"graph": graph})))
"""
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=300
        )
        found.append(done.stdout)
    assert found[0] == found[1]
