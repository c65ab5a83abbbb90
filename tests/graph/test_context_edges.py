"""Edges between the utterances of a dialogue against plain loops: reach, builders, edge types, the dialogue's node."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.graphs import clip
from torch import Tensor
from torch_geometric.data import Batch

from gmsa.config import GraphConfig
from gmsa.data import Utterance
from gmsa.errors import ConfigError
from gmsa.graph import (
    CONTEXT_BUILDERS,
    DIALOGUE,
    READOUTS,
    GraphBatch,
    GraphSpec,
    build_dialogue_graph,
    collate,
    context_builder,
    schema,
)
from gmsa.graph.build import turns_of
from gmsa.graph.context import Turns, context_edges, edge_kinds
from gmsa.graph.edges import FUTURE, PAST, PRESENT

SETS = {
    "one": {"eeg": 3},
    "two": {"eeg": 3, "pose": 2},
    "three": {"text": 4, "audio": 2, "vision": 3},
    "four": {"text": 4, "audio": 2, "vision": 3, "eeg": 3},
}
REACHES = (0, 1, 3, "all")
SPEAKERS = ("none", "same_other", ("ann", "bob"))
NAMES = ("ann", "bob", "ann", "eve", "", "bob", "ann")
"""Who speaks; two of the names are not listed above."""
TEXT = ("text", "intra", "text")


def dialogue(count: int, dims: dict[str, int] | None = None, name: str = "d", full: bool = False) -> list[Utterance]:
    """Utterances of one dialogue, of which some lack modalities, unless they are ``full``."""
    dims = SETS["three"] if dims is None else dims
    found = []
    for i in range(count):
        lengths = [full + (i + 2 * k) % 3 for k in range(len(dims))]
        found.append(clip(f"{name}$_${i}", dims, lengths, speaker=NAMES[i % len(NAMES)], label=float(i)))
    return found


# --- the oracle -------------------------------------------------------------------------------------------------------


def speakers_by_loop(names: Sequence[str], listed: Any) -> list[int]:
    if isinstance(listed, tuple):
        return [listed.index(name) if name in listed else len(listed) for name in names]
    seen: list[str] = []
    for name in names:
        if name not in seen:
            seen.append(name)
    return [seen.index(name) for name in names]


def mean_by_loop(utterance: Utterance, modality: str) -> list[float]:
    rows = utterance.features[modality].tolist()
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def edges_by_loop(
    relation: tuple[str, str, str], utterances: Sequence[Utterance], config: GraphConfig
) -> dict[tuple[int, int], int]:
    """What the settings say of a relation: its edges (source, target), each with the number of its kind."""
    source, _, target = relation
    count = len(utterances)
    past, future = (config.context if x is None else x for x in (config.past, config.future))
    speakers = speakers_by_loop([u.speaker for u in utterances], config.speakers)
    found: dict[tuple[int, int], int] = {}
    for i in range(count):  # the target
        if target == DIALOGUE:
            for j in range(count):
                if future == 0 and j <= i:
                    found[j, i] = 0
                elif future != 0:
                    found[j, 0] = 0
            continue
        if source == DIALOGUE:
            found[(i, i) if future == 0 else (0, i)] = 0
            continue
        if source != target:
            heard = [i]
        else:
            heard = [
                j
                for j in range(count)
                if (j >= i or past == "all" or i - j <= past) and (j <= i or future == "all" or j - i <= future)
            ]
            if config.between == "speaker":
                heard = [j for j in heard if speakers[j] == speakers[i]]
            elif config.between.startswith("knn"):
                # Readout nodes are alike where all that was said is.
                compared = list(utterances[0].features) if source in READOUTS else [source]
                means = [[x for m in compared for x in mean_by_loop(u, m)] for u in utterances]
                alike = {j: cosine(means[j], means[i]) for j in heard}
                others = sorted((j for j in heard if j != i), key=lambda j: -alike[j])
                heard = sorted([i, *others[:2]])
        for j in heard:
            distance = heard.index(j) - heard.index(i) if config.between == "speaker" else j - i
            kind = max(-config.distances, min(config.distances, distance)) + config.distances
            if config.speakers == "same_other" and speakers[j] != speakers[i]:
                kind += 2 * config.distances + 1
            elif isinstance(config.speakers, tuple):
                pair = speakers[j] * (len(config.speakers) + 1) + speakers[i]
                kind += pair * (2 * config.distances + 1)
            found[j, i] = kind
    return found


def spec_of(
    config: GraphConfig, dims: dict[str, int], route: str = "edge", readouts: tuple[str, ...] = READOUTS
) -> GraphSpec:
    return GraphSpec(graph=config, convs=dict.fromkeys(dims, ((3, 1),)), readouts=readouts, route=route)


def typed(batch: GraphBatch) -> dict[tuple[str, str, str], dict[tuple[int, int], int]]:
    found = {}
    for relation, (index, kinds) in batch.typed_edge_index_dict().items():
        found[relation] = dict(zip(map(tuple, index.T.tolist()), kinds.tolist(), strict=True))
        assert len(found[relation]) == index.shape[1]  # none twice
    return found


def expected_batch(
    groups: Sequence[Sequence[Utterance]],
    config: GraphConfig,
    dims: dict[str, int],
    readouts: tuple[str, ...],
    joined: bool = False,
) -> dict[tuple[str, str, str], dict[tuple[int, int], int]]:
    """Edges of a batch in PyG's numbering and their types, by loops over dialogues and relations.

    Where readout nodes are ``joined``, with those of other utterances, these edges have types after the intra ones.
    """
    types = schema(dims, config.dialogue_node, joined)
    tokens = [r for r in types.relations if {r[0], r[2]} <= dims.keys()]
    ordered = [r for r in tokens if r[1] == "intra"]
    if joined:
        ordered += [(readout, stream, readout) for stream in ("intra", "inter") for readout in READOUTS]
    ordered += [r for r in tokens if r[1] == "inter"]
    distances = 2 * config.distances + 1
    if isinstance(config.speakers, tuple):
        kinds = distances * (len(config.speakers) + 1) ** 2
    else:
        kinds = distances * (2 if config.speakers == "same_other" else 1)
    nothing = kinds * len(ordered)
    found: dict[tuple[str, str, str], dict[tuple[int, int], int]] = {r: {} for r in types.relations}
    first = dict.fromkeys(types.node_types, 0)
    for group in groups:
        size = dict.fromkeys(types.node_types, 0) | {m: len(group) for m in dims} | {r: len(group) for r in readouts}
        causal = (config.context if config.future is None else config.future) == 0
        if config.dialogue_node:
            size[DIALOGUE] = len(group) if causal else 1
        for relation in types.relations:
            source, _, target = relation
            if not size[source] or not size[target]:
                continue
            for (j, i), kind in edges_by_loop(relation, group, config).items():
                if relation in ordered:
                    edge_type = kinds * ordered.index(relation) + kind
                else:
                    edge_type = nothing
                found[relation][first[source] + j, first[target] + i] = edge_type
        first = {t: first[t] + size[t] for t in first}
    return found


# --- edges of a dialogue ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("future", REACHES)
@pytest.mark.parametrize("past", REACHES)
def test_edges_are_those_that_the_settings_say(past: int | str, future: int | str) -> None:
    given = dialogue(6, full=True)
    means = torch.stack([u.features["text"].mean(0) for u in given])
    for distances, speakers, node, between in itertools.product(
        (1, 8), SPEAKERS, (False, True), ("window", "speaker", "knn(neighbors=2)")
    ):
        config = GraphConfig(
            scope="dialogue",
            past=past,
            future=future,
            distances=distances,
            speakers=speakers,
            dialogue_node=node,
            between=between,
        )
        # Of two speakers that are not listed, the edges of both builders and types are asked elsewhere.
        is_both = between == "speaker" and isinstance(speakers, tuple)
        utterances = [replace(u, speaker=u.speaker or "eve") for u in given] if is_both else given
        turns = turns_of(utterances, config)
        others = [("val", "intra", DIALOGUE), (DIALOGUE, "inter", "text")] if node else []
        for relation in (
            TEXT,
            ("text", "inter", "audio"),
            ("val", "intra", "text"),
            ("audio", "inter", "cls"),
            *others,
        ):
            pairs, kinds = context_edges(relation, turns, config, means)
            found = dict(zip(map(tuple, pairs.T.tolist()), kinds.tolist(), strict=True))
            assert found == edges_by_loop(relation, utterances, config), (relation, config)
            assert pairs.T.tolist() == sorted(pairs.T.tolist(), key=lambda pair: (pair[1], pair[0]))
            assert len(found) == pairs.shape[1]
            assert kinds.max() < edge_kinds(config)


def test_past_and_future_are_seen_from_the_target() -> None:
    """Released code of several papers has them swapped."""
    heard = {}
    for past, future in ((2, 0), (0, 2)):
        config = GraphConfig(scope="dialogue", past=past, future=future, distances=1)
        pairs, kinds = context_edges(TEXT, Turns(5), config)
        heard[past] = {j: kind for (j, i), kind in zip(pairs.T.tolist(), kinds.tolist(), strict=True) if i == 2}
    assert heard == {2: {0: PAST, 1: PAST, 2: PRESENT}, 0: {2: PRESENT, 3: FUTURE, 4: FUTURE}}
    store = build_dialogue_graph(dialogue(5), GraphConfig(scope="dialogue", past=2, future=0))[TEXT]
    told = {j: t for (j, i), t in zip(store.edge_index.T.tolist(), store.temporal_type.tolist(), strict=True) if i == 2}
    assert told == {0: PAST, 1: PAST, 2: PRESENT}
    assert store.distance.tolist() == [j - i for j, i in store.edge_index.T.tolist()]


@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_number_of_edges(count: int) -> None:
    for p, f in itertools.product(range(count), range(count)):
        pairs, _ = context_edges(TEXT, Turns(count), GraphConfig(scope="dialogue", past=p, future=f, distances=1))
        assert pairs.shape[1] == count * (p + f + 1) - p * (p + 1) // 2 - f * (f + 1) // 2
    whole = GraphConfig(scope="dialogue", context="all", distances=1)
    assert context_edges(TEXT, Turns(count), whole).pairs.shape[1] == count**2


def test_the_most_similar_utterances_and_itself() -> None:
    config = GraphConfig(scope="dialogue", context="all", between="knn(neighbors=1)", distances=1)
    features = torch.tensor([[1.0, 0.0], [1.0, 0.2], [-1.0, 3.0], [-1.0, 2.0]])
    pairs, _ = context_edges(TEXT, Turns(4), config, features)
    assert pairs.T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [2, 2], [3, 2], [2, 3], [3, 3]]
    near = replace(config, context=1)
    assert context_edges(TEXT, Turns(4), near, features).pairs.T.tolist() == pairs.T.tolist()
    past = replace(config, context=1, future=0)
    heard = [[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 3], [3, 3]]
    assert context_edges(TEXT, Turns(4), past, features).pairs.T.tolist() == heard
    alone = replace(config, between="knn(neighbors=0)")
    assert context_edges(TEXT, Turns(4), alone, features).pairs.T.tolist() == [[i, i] for i in range(4)]


def test_a_builder_of_ones_own_chooses_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONTEXT_BUILDERS, "_parts", dict(CONTEXT_BUILDERS._parts))  # of this test alone

    @context_builder("even_test")
    def even(index: Tensor, every: int = 2) -> Tensor:
        return (index[0] - index[1]) % every == 0

    config = GraphConfig(scope="dialogue", context="all", between="even_test(every=3)", distances=1)
    pairs, _ = context_edges(TEXT, Turns(5), config)
    assert {tuple(pair) for pair in pairs.T.tolist()} == {
        (j, i) for i in range(5) for j in range(5) if (j - i) % 3 == 0
    }
    batch = collate(dialogue(5), spec_of(config, SETS["three"]))
    assert set(typed(batch)[TEXT]) == {tuple(pair) for pair in pairs.T.tolist()}

    @context_builder("wrong_test")
    def wrong(index: Tensor) -> Tensor:
        return index[0]

    with pytest.raises(
        ConfigError, match="context builder 'wrong_test' must say of each of the 5 edges whether it stays"
    ):
        context_edges(TEXT, Turns(5), GraphConfig(scope="dialogue", context=0, between="wrong_test", distances=1))


# --- batches ----------------------------------------------------------------------------------------------------------

CASES: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("one", READOUTS, {"past": 1, "future": 3}),
    ("one", ("cls",), {"past": "all", "future": 0, "dialogue_node": True, "speakers": "same_other"}),
    ("two", (), {"past": 3, "future": 1, "dialogue_node": True, "distances": 8}),
    ("two", READOUTS, {"past": 0, "future": 1, "between": "speaker", "distances": 2}),
    ("three", READOUTS, {"past": 2, "future": 0, "dialogue_node": True, "speakers": ("ann", "bob"), "distances": 8}),
    ("three", READOUTS, {"past": 3, "future": 1, "between": "knn(neighbors=2)", "speakers": "same_other"}),
    ("three", ("cls",), {"past": "all", "future": "all", "dialogue_node": True, "distances": 3}),
    ("three", (), {"past": 0, "future": 0, "dialogue_node": True, "speakers": ("eve", "ann")}),
    ("four", READOUTS, {"past": 3, "future": "all", "distances": 2, "between": "speaker", "speakers": "same_other"}),
    ("four", ("cls",), {"past": 1, "future": 0, "speakers": ("bob",), "dialogue_node": True}),
]


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize(("dims", "readouts", "settings"), CASES, ids=str)
def test_a_batch_is_that_of_pyg(dims: str, readouts: tuple[str, ...], settings: dict[str, Any], scope: str) -> None:
    config = GraphConfig(scope=scope, **settings)
    full = config.between.startswith("knn")
    groups = [dialogue(count, SETS[dims], name, full) for count, name in ((5, "a"), (1, "b"), (4, "c"))]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    utterances = [u for group in groups for u in group]
    utterances = [utterances[i] for i in order]
    groups.sort(key=lambda group: min(utterances.index(u) for u in group))  # dialogues in order of appearance
    graphs = [build_dialogue_graph(group, config, SETS[dims], readouts) for group in groups]
    theirs = Batch.from_data_list(graphs)
    expected = expected_batch(groups, config.outside, SETS[dims], readouts, scope == "hierarchical")
    for route in ("dense", "edge"):
        spec = spec_of(config, SETS[dims], route, readouts)
        batch = collate(utterances, replace(spec, outside_route=route))
        ours = batch if scope == "dialogue" else batch.dialogues
        assert set(ours.schema.node_types) == {*READOUTS, *SETS[dims], *[DIALOGUE][: config.dialogue_node]}
        found = typed(ours)
        assert list(found) == theirs.edge_types
        for relation, edges in found.items():
            store = theirs[relation]
            assert sorted(edges) == sorted(map(tuple, store.edge_index.T.tolist())), relation
            assert edges == expected[relation], (relation, route)
        for node_type in ours.schema.node_types:
            index = ours.node_index(node_type)
            assert len(index) == theirs[node_type].num_nodes
            assert torch.equal(ours.position[index], theirs[node_type].pos)
            if len(index):
                assert torch.equal(ours.padded_index[index] // ours.shape[1], theirs[node_type].batch)
        if scope == "hierarchical":  # between utterances as such, whether or not there are readout nodes
            assert ours.utterance_edges is not None
            heard, first = set(), 0
            for group in groups:
                pairs = edges_by_loop(("cls", "intra", "cls"), group, config.outside)
                heard |= {(first + j, first + i) for j, i in pairs}
                first += len(group)
            assert set(map(tuple, ours.utterance_edges.index.T.tolist())) == heard
            assert ours.utterance_edges.index.shape[1] == len(heard)
        ends = ours.readout_index
        assert (ours.node_type[ends] < len(READOUTS)).all()
        assert len(ends) == 10 * len(readouts)
        for stream, edges in ours.readout_edges.items():  # those of all that end at readout nodes
            whole = ours.edge_index(stream)
            count = int((ours.node_type[whole[1]] < len(READOUTS)).sum())
            if route == "edge":
                assert edges.index.shape[1] == count
            else:
                assert (edges.adjacency.flatten(0, 1)[edges.target_index] != 0).sum() == count


def test_attributes_of_edges_and_nodes() -> None:
    utterances = dialogue(5)
    config = GraphConfig(scope="dialogue", past=3, future=1, dialogue_node=True)
    data = build_dialogue_graph(utterances, config)
    for relation in data.edge_types:
        store = data[relation]
        pairs = store.edge_index.T.tolist()
        if DIALOGUE in relation:
            assert "same_speaker" not in store
            continue
        assert store.distance.tolist() == [j - i for j, i in pairs]
        assert store.same_speaker.tolist() == [NAMES[j] == NAMES[i] for j, i in pairs]
        assert store.temporal_type.tolist() == [PAST if j < i else FUTURE if j > i else PRESENT for j, i in pairs]
    assert data[DIALOGUE].num_nodes == 1
    causal = build_dialogue_graph(utterances, replace(config, future=0))
    assert causal[DIALOGUE].num_nodes == 5
    assert causal["text", "intra", DIALOGUE].edge_index.T.tolist() == [[j, i] for i in range(5) for j in range(i + 1)]
    assert causal[DIALOGUE, "intra", "text"].edge_index.T.tolist() == [[i, i] for i in range(5)]


@pytest.mark.parametrize(
    ("distances", "names", "dtype"),
    [(13, 0, torch.uint8), (14, 0, torch.int16), (2, 1, torch.uint8), (8, 8, torch.int16), (32, 8, torch.int32)],
)
def test_many_edge_types_are_told_apart_by_both_routes(distances: int, names: int, dtype: torch.dtype) -> None:
    listed = tuple(f"s{i}" for i in range(names))
    utterances = [replace(u, speaker=f"s{(3 * i) % (names + 1)}") for i, u in enumerate(dialogue(40))]
    config = GraphConfig(scope="dialogue", context="all", distances=distances, speakers=listed or "none")
    expected = expected_batch([utterances], config, SETS["three"], READOUTS)
    most = max(kind for edges in expected.values() for kind in edges.values())
    assert (2 * distances + 1) * (names + 1) ** 2 * 9 == most  # that of readout nodes
    for route in ("dense", "edge"):
        batch = collate(utterances, spec_of(config, SETS["three"], route))
        if route == "dense":
            assert {edges.adjacency.dtype for edges in batch.edges.values()} == {dtype}
        assert typed(batch) == expected


@pytest.mark.parametrize("future", [0, 1])
def test_the_stream_of_all_edges_has_each_once(future: int) -> None:
    config = GraphConfig(
        scope="dialogue", past=2, future=future, dialogue_node=True, speakers="same_other", distances=2
    )
    utterances = dialogue(5) + dialogue(2, name="e")
    for route in ("dense", "edge"):
        spec = replace(spec_of(config, SETS["three"], route), streams=("intra", "inter", "global"))
        batch = collate(utterances, spec)
        found = {stream: batch.edge_index(stream).T.tolist() for stream in spec.streams}
        either = {tuple(pair) for stream in ("intra", "inter") for pair in found[stream]}
        assert sorted(map(tuple, found["global"])) == sorted(either)


def test_edges_are_dropped_among_tokens_alone_by_both_routes() -> None:
    config = GraphConfig(scope="dialogue", context="all", edge_dropout=0.5, dialogue_node=True)
    utterances = dialogue(7) + dialogue(4, name="e")
    seeds = {u.id: i for i, u in enumerate(utterances)}
    whole = typed(collate(utterances, spec_of(config, SETS["three"])))
    left = [typed(collate(utterances, spec_of(config, SETS["three"], route), seeds)) for route in ("dense", "edge")]
    assert left[0] == left[1]
    for relation, edges in whole.items():
        assert left[0][relation].items() <= edges.items()
        if {relation[0], relation[2]} & {*READOUTS, DIALOGUE}:
            assert left[0][relation] == edges
    assert sum(map(len, left[0].values())) < sum(map(len, whole.values()))
