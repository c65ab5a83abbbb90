"""Utterance graphs and batches against PyG's own batching, loops and NetworkX."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import check_positions, collate
from matplotlib.collections import LineCollection
from torch import Tensor
from torch_geometric.data import Batch

from gmsa.config import MODALITIES, Config, from_dict
from gmsa.data import Utterance
from gmsa.errors import ConfigError, DataError
from gmsa.figures.graph import draw_graph
from gmsa.graph import READOUTS, GraphBatch, build_graph, connect, schema
from gmsa.graph.conv_windows import conv_windows
from gmsa.graph.view import find_relation, to_networkx
from gmsa.models import graph_spec
from gmsa.nn import DenseEdges, SparseEdges
from gmsa.rng import seed_for

LENGTHS = [(5, 9, 3), (1, 0, 4), (7, 17, 0), (0, 0, 2), (0, 0, 0), (0, 1, 0), (3, 40, 1)]
PLAIN = {"encoders": [[3, 1]]}
"""Encoders that leave every step a token."""
STREAMS = ("intra", "inter", "global")
TYPES = schema(MODALITIES)
NODE_TYPES, TOKEN_RELATIONS, EDGE_TYPES = TYPES.node_types, TYPES.token_relations, TYPES.edge_types

EVERY_STEP = {
    "complete": {},
    "window": {"intra": "window", "inter": "window", "radius": 1},
    "no radius": {"intra": "window(radius=0)", "inter": "window(radius=0)"},
    "dilated": {"intra": "dilated(stride=3, hops=1)", "inter": "dilated"},
    "aligned": {"intra": "aligned", "inter": "aligned"},
    "temporal": {"intra": "temporal", "inter": "temporal", "radius": 1},
    "temporal among complete": {"intra": {"audio": "temporal(radius=2)"}, "inter": {"vision_to_audio": "temporal"}},
    "knn": {"intra": "knn(neighbors=2)"},
    "a mix": {
        "intra": {"text": "window", "audio": "knn(neighbors=3)", "vision": "temporal"},
        "inter": {
            "text_to_audio": "aligned",
            "audio_to_vision": "dilated(stride=1, hops=1)",
            "vision_to_text": "window",
        },
    },
}
"""Graph settings by name."""


def config_of(graph: dict[str, Any] | None = None, **model: Any) -> Config:
    return from_dict({"graph": graph or {}, "model": model})


def ragged(make_utterance: Any) -> list[Utterance]:
    return [make_utterance(f"v{i}$_$1", lengths, None if i == 1 else i / 3) for i, lengths in enumerate(LENGTHS)]


def of_one_dimension(lengths: list[tuple[int, int, int]], dim: int = 4) -> list[Utterance]:
    """Utterances whose modalities can be compared by cosine."""
    g = torch.Generator().manual_seed(0)
    return [
        Utterance(
            f"v{i}$_$1", {m: torch.randn(n, dim, generator=g) for m, n in zip(MODALITIES, sizes, strict=True)}, 0.5
        )
        for i, sizes in enumerate(lengths)
    ]


def edge_types(batch: GraphBatch, stream: str) -> Tensor | None:
    """Type of each edge of :meth:`GraphBatch.edge_index`."""
    edges = batch.edges[stream]
    if isinstance(edges, SparseEdges):
        return edges.edge_type
    return edges.adjacency[edges.adjacency > 0].long() - 1 if edges.adjacency.dtype == torch.uint8 else None


def by_relation(batch: GraphBatch, stream: str) -> dict[tuple[str, str, str], dict[tuple[int, int], int | None]]:
    """Edges of a stream in PyG's numbering of each type, with their edge_types; of ``global`` readouts as in intra."""
    number = [0] * len(NODE_TYPES)
    names = []
    for t in batch.node_type.tolist():
        names.append((NODE_TYPES[t], number[t]))
        number[t] += 1
    found: dict[tuple[str, str, str], dict[tuple[int, int], int | None]] = {}
    index, kind = batch.edge_index(stream), edge_types(batch, stream)
    assert kind is None or kind.shape == index[0].shape
    every = kind.tolist() if kind is not None else [None] * index.shape[1]
    for (s, t), k in zip(index.T.tolist(), every, strict=True):
        (source, i), (target, j) = names[s], names[t]
        inter = source != target and source in MODALITIES and target in MODALITIES
        name = stream if stream != "global" else "inter" if inter else "intra"
        edges = found.setdefault((source, name, target), {})
        assert (i, j) not in edges
        edges[i, j] = k
    return found


def batch_of_pyg(utterances: list[Utterance], config: Config) -> Batch:
    return Batch.from_data_list([build_graph(u, config.graph, graph_spec(config).strides) for u in utterances])


def by_pyg(theirs: Batch, config: Config, stream: str) -> Any:
    """The same of PyG's batch; every edge of ``global`` once."""
    found = {}
    for relation in theirs.edge_types:
        name = relation[1]
        if name != stream and (stream != "global" or (name == "inter" and relation not in TOKEN_RELATIONS)):
            continue
        store, kind = theirs[relation], [None] * theirs[relation].num_edges
        assert store.temporal_type.shape == store.edge_index[0].shape
        if config.graph.typed:
            first = 3 * TOKEN_RELATIONS.index(relation) if relation in TOKEN_RELATIONS else EDGE_TYPES
            kind = [
                first + temporal_type if first < EDGE_TYPES else EDGE_TYPES
                for temporal_type in store.temporal_type.tolist()
            ]
        edges = [tuple(e) for e in store.edge_index.T.tolist()]
        assert len(set(edges)) == len(edges)
        if edges:
            found[relation] = dict(zip(edges, kind, strict=True))
    return found


# --- one graph --------------------------------------------------------------------------------------------------------


def test_every_type_is_there_even_where_nothing_is(make_utterance) -> None:
    data = build_graph(make_utterance("a$_$1", (0, 4, 0)), Config().graph)
    assert set(data.node_types) == set(NODE_TYPES)
    assert data.edge_types == list(TYPES.relations)
    assert data["text"].num_nodes == 0
    assert data["text", "inter", "audio"].edge_index.shape == (2, 0)
    assert data["text", "inter", "audio"].temporal_type.shape == (0,)
    assert data.validate()


def test_there_are_27_kinds_and_one_for_readouts() -> None:
    assert EDGE_TYPES == 27 == 3 * len(TOKEN_RELATIONS)


def test_readouts_join_every_token_and_never_each_other(make_utterance) -> None:
    sparse = config_of({"intra": "window", "inter": "window", "radius": 0}).graph
    graph = to_networkx(build_graph(make_utterance("a$_$1", (3, 2, 1)), sparse))
    tokens = [n for n in graph if n[0] in MODALITIES]
    assert len(tokens) == 6
    for stream in ("intra", "inter"):
        edges = {(s, t) for s, t, name in graph.edges(data="stream") if name == stream}
        for readout in ((r, 0) for r in READOUTS):
            for token in tokens:
                assert {(readout, token), (token, readout)} <= edges
        assert not any(s[0] in READOUTS and t[0] in READOUTS for s, t in edges)
        for s, t in edges:
            if s[0] in MODALITIES and t[0] in MODALITIES:
                assert (s[0] == t[0]) == (stream == "intra")


def test_a_strided_node_holds_its_steps(make_utterance) -> None:
    utterance = make_utterance("a$_$1", (5, 17, 3))
    data = build_graph(utterance, Config().graph, {"text": 1, "audio": 8, "vision": 2})
    dim = utterance.features["audio"].shape[1]
    assert data["audio"].x.shape == (3, 8 * dim)
    assert data["vision"].num_nodes == 2
    assert torch.equal(data["text"].x, utterance.features["text"])
    steps = data["audio"].x.view(-1, dim)
    assert torch.equal(steps[:17], utterance.features["audio"])
    assert not steps[17:].any()


def test_picture(make_utterance, tmp_path) -> None:
    graph = build_graph(make_utterance("a$_$1", (3, 9, 0)), config_of(EVERY_STEP["a mix"]).graph, {"audio": 8})
    draw_graph(graph, tmp_path / "graph.png", "one two three")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
    one = find_relation("text-intra-text")
    for name in ("a", "b"):
        draw_graph(graph, tmp_path / f"{name}.svg", relation=one)
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    assert "text-intra-text: 6 edges and 3 self-loops" in picture
    assert "a$_$1" in picture
    with pytest.raises(ConfigError, match=r"no relation 'text-intra-txt' \(did you mean 'text-intra-text'\?\)"):
        find_relation("text-intra-txt")


def test_every_edge_is_a_line_unless_they_are_too_many(make_utterance, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(LineCollection, "__init__", lambda self, lines, **_: drawn.append(len(lines)) or 1 / 0)
    graph = build_graph(make_utterance("a$_$1", (3, 9, 2)), config_of().graph)
    for most in (10_000, 50):
        monkeypatch.setattr("gmsa.figures.graph.MOST_LINES", most)
        with pytest.raises(ZeroDivisionError):
            draw_graph(graph, tmp_path / "graph.png")
    tokens = 3 * 2 + 9 * 8 + 2 * 1
    assert drawn == [tokens + 2 * 2 * (3 + 9 + 2), 50]


@pytest.mark.parametrize("name", ["complete", "temporal", "a mix"])
def test_networkx_has_the_same_edges(name: str, make_utterance) -> None:
    config = config_of(EVERY_STEP[name])
    utterance = make_utterance("a$_$1", (3, 9, 2))
    graph = to_networkx(build_graph(utterance, config.graph, graph_spec(config).strides))
    expected = {}
    for stream in ("intra", "inter"):
        for (source, _, target), edges in by_relation(collate([utterance], config), stream).items():
            for i, j in edges:
                expected.setdefault(stream, set()).add(((source, i), (target, j)))
    for stream, edges in expected.items():
        assert {(s, t) for s, t, n in graph.edges(data="stream") if n == stream} == edges
    assert graph.number_of_edges() == sum(map(len, expected.values()))


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("strided", [True, False])
@pytest.mark.parametrize("name", sorted(EVERY_STEP))
def test_batch_equals_pyg_batching(make_utterance, name: str, strided: bool, route: str) -> None:
    utterances = ragged(make_utterance)
    model = ({} if strided else PLAIN) | {"route": route}
    config = config_of(EVERY_STEP[name], **model)
    ours = collate(utterances, config)
    theirs = batch_of_pyg(utterances, config)
    edges = ours.edge_index_dict()
    assert list(edges) == theirs.edge_types
    for relation in theirs.edge_types:
        assert edges[relation].tolist() == theirs[relation].edge_index.tolist(), relation  # in the same order, too
    for node_type in NODE_TYPES:
        index = ours.node_index(node_type)
        assert len(index) == theirs[node_type].num_nodes
        assert torch.equal(ours.position[index], theirs[node_type].pos)
        # The graph that each node is of, and with it the order of the nodes.
        assert torch.equal(ours.padded_index[index] // ours.shape[1], theirs[node_type].batch)
    torch.testing.assert_close(ours.labels, theirs.label, equal_nan=True, rtol=0, atol=0)
    assert list(ours.ids) == theirs.id
    assert len(ours) == theirs.num_graphs == ours.shape[0]
    for modality, column in zip(MODALITIES, theirs.steps.T, strict=True):
        assert torch.equal(ours.lengths[modality], column)
        assert torch.equal(ours.features[modality], torch.cat([u.features[modality] for u in utterances]))
    for stream in ("intra", "inter"):
        assert by_relation(ours, stream) == by_pyg(theirs, config, stream)
    joined = collate(utterances, config_of(EVERY_STEP[name], streams="global", **model))
    assert by_relation(joined, "global") == by_pyg(theirs, config, "global")


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_cosines_between_modalities_equal_pyg_batching(route: str) -> None:
    utterances = of_one_dimension(LENGTHS[:6])
    config = config_of({"intra": "knn(neighbors=1)", "inter": "knn(neighbors=2)"}, route=route, **PLAIN)
    batch, theirs = collate(utterances, config), batch_of_pyg(utterances, config)
    for stream in ("intra", "inter"):
        assert by_relation(batch, stream) == by_pyg(theirs, config, stream)
    found = by_relation(batch, "inter")["text", "inter", "audio"]
    assert len(found) == sum(min(2, text) * audio for text, audio, _ in LENGTHS[:6])


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_cosines_between_modalities_of_other_dimensions_are_refused(make_utterance, route: str) -> None:
    utterance = make_utterance("a$_$1", (3, 9, 2))
    with pytest.raises(ValueError, match="cosine needs features of one dimension"):
        collate([utterance], config_of({"inter": {"text_to_vision": "knn"}}, route=route))
    with pytest.raises(ValueError, match="cosine needs features of one dimension"):
        build_graph(utterance, config_of({"inter": "knn"}).graph)
    # By striding, audio steps side by side have another dimension than one step of text.
    with pytest.raises(ValueError, match="cosine needs features of one dimension"):
        collate(of_one_dimension([(3, 9, 2)]), config_of({"inter": "knn"}, route=route))


@pytest.mark.parametrize("settings", [{"intra": "knn"}, {"inter": "aligned"}, {"intra": "temporal"}, {}], ids=str)
@pytest.mark.parametrize("route", ["dense", "edge"])
def test_modalities_that_the_data_lacks_have_no_nodes(settings: dict[str, Any], route: str, make_utterance) -> None:
    whole = make_utterance("a$_$1", (4, 9, 0))
    lacks = Utterance(whole.id, {m: whole.features[m] for m in ("text", "audio")}, whole.label)
    config = config_of(settings, route=route)
    ours, theirs = collate([lacks], config), collate([whole], config)
    assert set(ours.features) == set(ours.lengths) == set(ours.conv_windows) == {"text", "audio"}
    assert torch.equal(ours.node_type, theirs.node_type)
    assert torch.equal(ours.embedding_row, theirs.embedding_row)
    for stream in ("intra", "inter"):
        assert (
            by_relation(ours, stream)
            == by_relation(theirs, stream)
            == by_pyg(batch_of_pyg([lacks], config), config, stream)
        )


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_cosines_with_a_modality_that_the_data_lacks_join_nothing(route: str) -> None:
    whole = of_one_dimension([(4, 3, 0)])[0]
    lacks = Utterance(whole.id, {m: whole.features[m] for m in ("text", "audio")}, whole.label)
    config = config_of({"inter": "knn"}, route=route, **PLAIN)
    assert by_relation(collate([lacks], config), "inter") == by_relation(collate([whole], config), "inter")
    assert build_graph(lacks, config.graph)["text", "inter", "vision"].edge_index.shape == (2, 0)


@pytest.mark.parametrize("name", sorted(EVERY_STEP))
@pytest.mark.parametrize("streams", ["both", "global"])
def test_both_forms_hold_the_same_edges_in_the_same_order(name: str, streams: str, make_utterance) -> None:
    utterances = ragged(make_utterance)
    dense, sparse = (
        collate(utterances, config_of(EVERY_STEP[name], route=r, streams=streams)) for r in ("dense", "edge")
    )
    for stream in dense.edges:
        assert isinstance(dense.edges[stream], DenseEdges)
        assert isinstance(sparse.edges[stream], SparseEdges)
        assert torch.equal(dense.edge_index(stream), sparse.edge_index(stream))
        typed = config_of(EVERY_STEP[name]).graph.typed
        for batch in (dense, sparse):
            assert (edge_types(batch, stream) is not None) == typed
        if typed:
            assert torch.equal(edge_types(dense, stream), edge_types(sparse, stream))
        index, size = sparse.edge_index(stream), len(sparse.node_type)
        assert (index[1] * size + index[0]).diff().gt(0).all()  # sorted by target, none twice


@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("name", ["complete", "temporal", "a mix"])
def test_global_is_the_union_without_duplicates(name: str, route: str, make_utterance) -> None:
    utterances = ragged(make_utterance)
    parts = collate(utterances, config_of(EVERY_STEP[name], route=route))
    joined = collate(utterances, config_of(EVERY_STEP[name], route=route, streams="global"))
    assert set(joined.edges) == {"global"}
    edges = [tuple(e) for e in joined.edge_index("global").T.tolist()]
    assert len(set(edges)) == len(edges)
    assert set(edges) == {tuple(e) for s in ("intra", "inter") for e in parts.edge_index(s).T.tolist()}


@pytest.mark.parametrize(
    ("model", "streams"),
    [
        ({}, {"intra", "inter"}),
        ({"streams": "intra"}, {"intra"}),
        ({"streams": "inter"}, {"inter"}),
        ({"streams": "global"}, {"global"}),
        ({"name": "hgt", "streams": "intra"}, {"intra", "inter"}),
        ({"name": "late_fusion"}, set()),
        ({"name": "global"}, set()),
    ],
)
def test_only_streams_that_the_model_reads_are_built(model: dict[str, Any], streams: set[str], make_utterance) -> None:
    assert set(collate(ragged(make_utterance), config_of(**model)).edges) == streams


def test_hgt_gets_lists_whatever_the_route(make_utterance) -> None:
    batch = collate(ragged(make_utterance), config_of(name="hgt", route="dense"))
    assert all(isinstance(edges, SparseEdges) for edges in batch.edges.values())


@pytest.mark.parametrize("strided", [True, False])
def test_numbers_of_the_nodes_mean_what_they_say(strided: bool, make_utterance) -> None:
    utterances = ragged(make_utterance)
    config = config_of(**({} if strided else PLAIN))
    batch = collate(utterances, config)
    nodes, size, counted = [], 0, dict.fromkeys(MODALITIES, 0)
    for g, utterance in enumerate(utterances):
        own = []
        for node_type in NODE_TYPES:
            count = 1
            if node_type in MODALITIES:
                count = -(-len(utterance.features[node_type]) // graph_spec(config).strides[node_type])
            for position in range(count):
                own.append((g, len(own), node_type, position, counted.get(node_type, 0)))
                if node_type in MODALITIES:
                    counted[node_type] += 1
        nodes += own
        size = max(size, len(own))
    assert batch.shape == (len(utterances), size, 2)
    assert [NODE_TYPES[t] for t in batch.node_type] == [node_type for *_, node_type, _, _ in nodes]
    assert batch.position.tolist() == [position for *_, position, _ in nodes]
    assert batch.padded_index.tolist() == [g * size + t for g, t, *_ in nodes]
    first = {"audio": 1, "text": 1 + counted["audio"], "vision": 1 + counted["audio"] + counted["text"]}
    assert batch.embedding_row.tolist() == [first[m] + row if m in MODALITIES else 0 for _, _, m, _, row in nodes]
    assert batch.readout_index.tolist() == [v for v, (*_, m, _, _) in enumerate(nodes) if m in READOUTS]
    assert batch.readout_padded_index.tolist() == [g * 2 + t for g, t, m, *_ in nodes if m in READOUTS]
    assert batch.utterance_order.tolist() == list(range(len(utterances)))
    for i, (val, cls) in enumerate(batch.readout_index[batch.readout_rows].tolist()):
        assert [nodes[v][:3:2] for v in (val, cls)] == [(i, "val"), (i, "cls")]
    z = torch.arange(float(len(nodes)))[:, None]
    val, cls = batch.readout(z)
    assert [nodes[int(v)][:3:2] for v in val] == [(i, "val") for i in range(len(utterances))]
    assert [nodes[int(v)][:3:2] for v in cls] == [(i, "cls") for i in range(len(utterances))]


@pytest.mark.parametrize("name", ["complete", "temporal", "a mix"])
def test_edges_to_readouts_are_those_of_all_edges(name: str, make_utterance) -> None:
    batch = collate(ragged(make_utterance), config_of(EVERY_STEP[name], route="edge"))
    receivers = batch.readout_index.tolist()
    for stream, edges in batch.edges.items():
        every, kind = edges.index.T.tolist(), edge_types(batch, stream)
        expected = [((s, receivers.index(t)), i) for i, (s, t) in enumerate(every) if t in receivers]
        ends = batch.readout_edges[stream]
        assert [tuple(e) for e in ends.index.T.tolist()] == [e for e, _ in expected]
        if kind is None:
            assert ends.edge_type is None
        else:
            assert ends.edge_type.tolist() == [kind.tolist()[i] for _, i in expected]
            assert set(ends.edge_type.tolist()) <= {EDGE_TYPES}
        assert stream in ("intra", "inter")
        assert len(expected) == 2 * sum(batch.node_type.ge(2).tolist())


def test_padding_is_joined_to_nothing(make_utterance) -> None:
    for graph in EVERY_STEP.values():
        batch = collate(ragged(make_utterance), config_of(graph, route="dense"))
        there = torch.zeros(batch.shape[0] * batch.shape[1], dtype=torch.bool)
        there[batch.padded_index] = True
        there = there.view(batch.shape[:2])
        for edges in batch.edges.values():
            assert edges.adjacency.any()
            assert not edges.adjacency[~there].any()
            assert not edges.adjacency.transpose(1, 2)[~there].any()


# --- the choice of a route --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(EVERY_STEP))
@pytest.mark.parametrize("stream", STREAMS)
def test_auto_is_dense_from_the_density_named(name: str, stream: str, make_utterance, monkeypatch) -> None:
    utterances = ragged(make_utterance)
    streams = "both" if stream != "global" else "global"
    config = config_of(EVERY_STEP[name], streams=streams)
    lists = collate(utterances, config_of(EVERY_STEP[name], streams=streams, route="edge"))
    graphs, size, _ = lists.shape
    density = lists.edge_index(stream).shape[1] / (graphs * size**2)
    for limit, form in ((density * 0.999, DenseEdges), (density * 1.001, SparseEdges)):
        monkeypatch.setattr(connect, "dense_from", lambda size, limit=limit: limit)
        assert type(collate(utterances, config).edges[stream]) is form


def test_auto_takes_each_route_where_it_should(make_utterance) -> None:
    long = [make_utterance(f"v{i}$_$1", (60, 480, 60)) for i in range(2)]
    narrow = {"intra": "window(radius=1)", "inter": "aligned"}
    assert all(isinstance(e, SparseEdges) for e in collate(long, config_of(narrow)).edges.values())
    assert all(isinstance(e, DenseEdges) for e in collate(long, config_of()).edges.values())


# --- edges that are left out ------------------------------------------------------------------------------------------


def tokens_joined(batch: GraphBatch, stream: str) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Edges among tokens, and those of readout nodes."""
    edges = [tuple(e) for e in batch.edge_index(stream).T.tolist()]
    token = (batch.node_type >= len(READOUTS)).tolist()
    among = {(s, t) for s, t in edges if token[s] and token[t]}
    return among, set(edges) - among


def seeds_of(utterances: list[Utterance], *key: int) -> dict[str, int]:
    return {u.id: seed_for(*key, u.id) for u in utterances}


@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("graph", [{}, {"intra": "temporal(radius=9)", "inter": "window(radius=9)"}], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_asked_share_of_token_edges_is_lost(make_utterance, route: str, graph: dict[str, Any], rate: float) -> None:
    utterances = [make_utterance(f"v{i}$_$1", (30, 200, 25)) for i in range(2)]
    whole = collate(utterances, config_of(graph, route=route))
    batch = collate(utterances, config_of(graph | {"edge_dropout": rate}, route=route), seeds_of(utterances, 1))
    for stream in ("intra", "inter"):
        (every, readouts), (left, left_readouts) = tokens_joined(whole, stream), tokens_joined(batch, stream)
        assert left_readouts == readouts
        assert left < every
        spread = (rate * (1 - rate) / len(every)) ** 0.5
        assert 1 - len(left) / len(every) == pytest.approx(rate, abs=4 * spread)
        assert len(every) > 1500


@pytest.mark.parametrize("name", sorted(EVERY_STEP))
@pytest.mark.parametrize("streams", ["both", "global"])
def test_both_routes_lose_the_same_edges(name: str, streams: str, make_utterance) -> None:
    utterances = ragged(make_utterance)
    config = [config_of(EVERY_STEP[name] | {"edge_dropout": 0.4}, route=r, streams=streams) for r in ("dense", "edge")]
    dense, sparse = (collate(utterances, c, seeds_of(utterances, 3)) for c in config)
    for stream in dense.edges:
        assert torch.equal(dense.edge_index(stream), sparse.edge_index(stream))
        if config[0].graph.typed:
            assert torch.equal(edge_types(dense, stream), edge_types(sparse, stream))
        lost = collate(utterances, config[1]).edge_index(stream).shape[1] - sparse.edge_index(stream).shape[1]
        assert lost > 0 or name == "no radius"
        # Edges to readout nodes stay what they are among all edges.
        edges = sparse.edges[stream]
        ends = torch.isin(edges.index[1], sparse.readout_index)
        to_readouts = sparse.readout_edges[stream].index
        assert torch.equal(to_readouts[0], edges.index[0, ends])
        assert torch.equal(sparse.readout_index[to_readouts[1]], edges.index[1, ends])


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_lost_edges_depend_on_nothing_but_the_seed(make_utterance, route: str) -> None:
    utterances = ragged(make_utterance)
    config = config_of({"edge_dropout": 0.5}, route=route)
    seeds = seeds_of(utterances, 7)

    def of_each(chosen: list[Utterance], seeds: dict[str, int]) -> dict[str, Any]:
        batch, found = collate(chosen, config, seeds), {}
        for stream in ("intra", "inter"):
            index = batch.edge_index(stream)
            for g, utterance in enumerate(chosen):
                here = batch.padded_index[index[1]] // batch.shape[1] == g
                within = batch.padded_index[index[:, here]] - g * batch.shape[1]
                found[utterance.id, stream] = within.tolist()
        return found

    together = of_each(utterances, seeds)
    assert of_each(utterances, seeds) == together
    assert of_each(utterances[::-1], seeds) == together
    for utterance in utterances:
        alone = of_each([utterance], seeds)
        assert all(together[key] == edges for key, edges in alone.items())
    other = of_each(utterances, seeds_of(utterances, 8))
    assert {name for (name, _), edges in together.items() if other[name, "intra"] != together[name, "intra"]} >= {
        "v0$_$1", "v2$_$1", "v6$_$1"
    }  # fmt: skip
    # Two utterances of the same size lose others.
    twins = [make_utterance("a$_$1", (9, 9, 9)), make_utterance("b$_$1", (9, 9, 9))]
    lost = of_each(twins, seeds_of(twins, 7))
    assert lost["a$_$1", "intra"] != lost["b$_$1", "intra"]


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_nothing_is_lost_without_seeds_or_rate(make_utterance, route: str) -> None:
    utterances = ragged(make_utterance)
    whole = collate(utterances, config_of(route=route))
    without_seeds = collate(utterances, config_of({"edge_dropout": 0.9}, route=route))
    without_rate = collate(utterances, config_of(route=route), seeds_of(utterances, 1))
    for stream in ("intra", "inter"):
        assert torch.equal(without_seeds.edge_index(stream), whole.edge_index(stream))
        assert torch.equal(without_rate.edge_index(stream), whole.edge_index(stream))


# --- moving a batch ---------------------------------------------------------------------------------------------------


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, (DenseEdges, SparseEdges)):
        return tensors(vars(value))
    return [t for v in value for t in tensors(v)] if isinstance(value, tuple) else []


@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("graph", [{}, {"intra": "temporal"}], ids=str)
def test_moving_a_batch_moves_all_and_changes_nothing(make_utterance, route: str, graph: dict[str, Any]) -> None:
    batch = collate(ragged(make_utterance), config_of(graph, route=route))
    moved, there = batch.to("cpu"), batch.to("meta")
    for f in fields(GraphBatch):
        before, after, far = (getattr(b, f.name) for b in (batch, moved, there))
        assert type(before) is type(after) is type(far)
        assert len(tensors(before)) == len(tensors(far))
        for a, b, c in zip(tensors(before), tensors(after), tensors(far), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
            assert c.device.type == "meta"
        if not tensors(before):
            assert before == after == far
    assert type(moved.edges["intra"]) is type(batch.edges["intra"])
    assert len(moved) == len(batch) == len(LENGTHS)


# --- too long, and convolution windows -------------------------------------------------------------------------------


def test_too_long_a_sequence_names_utterance_modality_and_setting(make_utterance) -> None:
    fits, long = make_utterance("a$_$1", (4, 32, 4)), make_utterance("b$_$7", (4, 33, 4))
    config = config_of(positions=4)  # audio is strided by 8
    check_positions([fits], config)
    collate([fits], config)
    for check in (check_positions, collate):
        with pytest.raises(DataError) as caught:
            check([fits, long], config)
        assert "audio of 'b$_$7' has 5 tokens, 'model.positions' allows 4; raise it" in str(caught.value)
        assert "'model.encoders.audio'" in str(caught.value)
        with pytest.raises(DataError, match=r"text of 'c\$_\$1' has 5 tokens"):
            check([make_utterance("c$_$1", (5, 1, 1))], config)


@pytest.mark.parametrize(
    "convs", [[(1, 1)], [(3, 1)], [(2, 1)], [(4, 2)], [(7, 2)], [(4, 4)], [(4, 2), (4, 4)], [(5, 2), (3, 1), (2, 2)]]
)
def test_taps_equal_a_loop(convs: list[tuple[int, int]]) -> None:
    sizes = [0, 1, 2, 0, 7, 8, 9, 23]
    found = conv_windows(np.array(sizes), convs)
    assert len(found) == len(convs)
    for (kernel, stride), rows in zip(convs, found, strict=True):
        starts = [0, *itertools.accumulate(sizes)]
        nothing, expected = sum(sizes), []
        for start, size in zip(starts, sizes, strict=False):
            for j in range(-(-size // stride)):
                steps = [stride * j - (kernel - stride) // 2 + k for k in range(kernel)]
                expected.append([start + step if 0 <= step < size else nothing for step in steps])
        assert rows.tolist() == expected
        assert rows.dtype == torch.long
        sizes = [-(-size // stride) for size in sizes]


def test_taps_of_nothing_are_empty() -> None:
    assert [t.shape for t in conv_windows(np.array([0, 0]), [(4, 2), (3, 1)])] == [(0, 4), (0, 3)]
