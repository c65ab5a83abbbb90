"""Edge builders, utterance graphs and batches against NetworkX, loops and PyG's own batching."""

from __future__ import annotations

from fractions import Fraction

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch

from gmsa.config import MODALITIES, GraphConfig
from gmsa.graph import EDGE_BUILDERS, NODE_TYPES, READOUTS, build, collate, relations
from gmsa.graph.view import draw, to_networkx

STRIDES = {"text": 1, "audio": 8, "vision": 2}
LENGTHS = [(5, 9, 3), (1, 0, 4), (7, 17, 0), (0, 0, 2), (0, 1, 0), (3, 40, 1)]


def joined_by_loop(name: str, source: int, target: int, radius: int) -> set[tuple[int, int]]:
    """The definition, pair by pair, in exact fractions."""
    longest = max(source, target)
    pairs = ((i, j) for i in range(source) for j in range(target))
    if name == "complete":
        return set(pairs)
    return {
        (i, j)
        for i, j in pairs
        if abs(Fraction(2 * i + 1, 2 * source) - Fraction(2 * j + 1, 2 * target)) * longest <= radius
    }


@pytest.mark.parametrize("name", sorted(EDGE_BUILDERS))
@pytest.mark.parametrize("source", [0, 1, 2, 5, 13])
@pytest.mark.parametrize("target", [0, 1, 3, 5, 40])
def test_builders_equal_a_loop_over_pairs(name: str, source: int, target: int) -> None:
    for radius in (0, 1, 2, 7):
        parameters = {} if name == "complete" else {"radius": radius}
        edges = EDGE_BUILDERS[name](source, target, **parameters)
        pairs = [tuple(pair) for pair in edges.T.tolist()]
        assert edges.shape[0] == 2
        assert edges.dtype == torch.long
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == joined_by_loop(name, source, target, radius)
        assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def test_window_within_a_modality_is_networkx_power_of_a_path() -> None:
    for length in (2, 6, 11):
        path = nx.power(nx.path_graph(length), 3)
        expected = {(a, b) for a, b in path.to_directed().edges} | {(a, a) for a in range(length)}
        assert {tuple(p) for p in EDGE_BUILDERS["window"](length, length, radius=3).T.tolist()} == expected


def test_every_type_is_there_even_where_nothing_is(make_utterance) -> None:
    data = build(make_utterance("a$_$1", (0, 4, 0)), GraphConfig())
    assert set(data.node_types) == set(NODE_TYPES)
    assert data.edge_types == relations()
    assert data["text"].num_nodes == 0
    assert data["text", "inter", "audio"].edge_index.shape == (2, 0)
    assert data.validate()


def test_readouts_join_every_token_and_never_each_other(make_utterance) -> None:
    graph = to_networkx(
        build(make_utterance("a$_$1", (3, 2, 1)), GraphConfig(intra="window", inter="window", radius=0))
    )
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
    data = build(utterance, GraphConfig(), STRIDES)
    dim = utterance.features["audio"].shape[1]
    assert data["audio"].x.shape == (3, 8 * dim)
    steps = data["audio"].x.view(-1, dim)
    assert torch.equal(steps[:17], utterance.features["audio"])
    assert not steps[17:].any()


@pytest.mark.parametrize("intra", ["complete", "window"])
@pytest.mark.parametrize("inter", ["complete", "window"])
def test_batch_equals_pyg_batching(make_utterance, intra: str, inter: str) -> None:
    config = GraphConfig(intra=intra, inter=inter, radius=1)
    utterances = [make_utterance(f"v$_${i}", lengths) for i, lengths in enumerate(LENGTHS)]
    ours = collate(utterances, config, STRIDES)
    theirs = Batch.from_data_list([build(u, config, STRIDES) for u in utterances])
    edges = ours.edge_index_dict()
    assert list(edges) == theirs.edge_types
    for relation in theirs.edge_types:
        expected = theirs[relation].edge_index
        # The same edges in the same numbering; ours are sorted by target over the whole batch.
        order = torch.argsort(expected[1] * 10_000 + expected[0])
        actual = edges[relation][:, torch.argsort(edges[relation][1] * 10_000 + edges[relation][0])]
        assert torch.equal(actual, expected[:, order]), relation
    for node_type in NODE_TYPES:
        index = ours.node_index(node_type)
        assert len(index) == theirs[node_type].num_nodes
        assert torch.equal(ours.position.reshape(-1)[index], theirs[node_type].pos)
    assert torch.equal(ours.labels, theirs.label)
    assert list(ours.ids) == theirs.id
    for modality, column in zip(MODALITIES, theirs.steps.T, strict=True):
        assert torch.equal(ours.lengths[modality], column)


def test_density_counts_edges(make_utterance) -> None:
    batch = collate([make_utterance("a$_$1", (3, 0, 2)), make_utterance("b$_$1", (1, 8, 0))], GraphConfig())
    for stream in ("intra", "inter", "global"):
        size = batch.node_type.numel() * batch.node_type.shape[1]
        assert batch.density[stream] == pytest.approx(batch.edge_index(stream).shape[1] / size)


def test_edges_to_the_first_nodes_are_those_of_all_edges(make_utterance) -> None:
    batch = collate([make_utterance(f"v$_${i}", lengths) for i, lengths in enumerate(LENGTHS)], GraphConfig())
    size = batch.node_type.shape[1]
    every = {(s, t) for s, t in batch.edge_index("inter").T.tolist() if t % size < 2}
    some = {(s, t // 2 * size + t % 2) for s, t in batch.edge_index("inter", 2).T.tolist()}
    assert some == every


def test_moving_a_batch_keeps_everything(make_utterance) -> None:
    batch = collate([make_utterance("a$_$1", (3, 0, 2))], GraphConfig())
    moved = batch.to("cpu")
    assert moved.ids == batch.ids
    assert torch.equal(moved.node_type, batch.node_type)


def test_picture(make_utterance, tmp_path) -> None:
    utterance = make_utterance("a$_$1", (3, 9, 0))
    draw(build(utterance, GraphConfig(), STRIDES), tmp_path / "graph.png", "one two three")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
