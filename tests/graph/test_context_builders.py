"""Which utterances of a dialogue a builder joins, against loops over its description."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor

from gmsa.config import Config, GraphConfig, from_dict
from gmsa.data import Utterance
from gmsa.errors import ConfigError
from gmsa.graph import CONTEXT_BUILDERS, build_dialogue_graph, check_builders, context_builder
from gmsa.graph.build import turns_of
from gmsa.graph.context import context_edges
from gmsa.models import graph_spec

DIMS = {"text": 6, "audio": 4, "vision": 5}
TEXT = ("text", "intra", "text")


def graph(between: str, **settings) -> GraphConfig:
    return GraphConfig(scope="dialogue", between=between, **{"past": "all", "future": "all", **settings}).outside


def config_of(between: str, scope: str = "dialogue", **settings) -> Config:
    return from_dict({"graph": {"scope": scope, "between": between, **settings}, "model": {"channels": 8, "heads": 2}})


def dialogue(speakers: str = "", count: int = 7, name: str = "d") -> list[Utterance]:
    """Utterances of which some lack modalities."""
    found = []
    for i in range(count):
        lengths = (0 if i in (2, 5) else 2 + i % 3, 0 if i == 4 else 3, 1)
        found.append(clip(f"{name}$_${i}", DIMS, lengths, speaker=speakers[i] if speakers else "", label=0.5))
    return found


def joined(utterances: list[Utterance], config: GraphConfig, features: Tensor | None = None) -> set[tuple[int, int]]:
    edges = context_edges(TEXT, turns_of(utterances, config), config, features).pairs
    assert torch.equal(edges[1], edges[1].sort().values)
    found = {(int(s), int(t)) for s, t in edges.T}
    assert len(found) == edges.shape[1]
    return found


def reach(count: int, past: int, future: int) -> set[tuple[int, int]]:
    return {(j, i) for i in range(count) for j in range(count) if i - past <= j <= i + future}


# --- knn --------------------------------------------------------------------------------------------------------------


def knn_by_loop(features: Tensor, neighbors: int, within: set[tuple[int, int]]) -> set[tuple[int, int]]:
    kept = set()
    for i in range(len(features)):
        rivals = []
        for j in range(len(features)):
            if j != i and (j, i) in within:
                a, b = features[j].double(), features[i].double()
                cosine = float(a @ b / (a.norm() * b.norm())) if a.any() and b.any() else 0.0
                rivals.append((not a.any(), -round(cosine, 12), abs(j - i), j))
        kept |= {(i, i)} | {(rival[-1], i) for rival in sorted(rivals)[:neighbors]}
    return kept


@pytest.mark.parametrize("neighbors", [0, 1, 3, 100_000])
@pytest.mark.parametrize(("past", "future"), [(10, 10), (3, 0), (1, 2), (0, 0)])
def test_knn_keeps_the_most_similar_within_reach(neighbors: int, past: int, future: int) -> None:
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(neighbors))
    features[[1, 6]] = 0  # missing
    features[5] = 3 * features[2]  # as similar as that to all others
    config = graph(f"knn(neighbors={neighbors})", past=past, future=future)
    found = joined(dialogue(count=9), config, features)
    assert found == knn_by_loop(features, neighbors, reach(9, past, future))


def test_knn_takes_the_nearest_of_equals_and_missing_ones_last() -> None:
    same = torch.ones(5, 3)
    assert joined(dialogue(count=5), graph("knn(neighbors=1)"), same) == {
        (i, i) for i in range(5)
    } | {(1, 0), (0, 1), (1, 2), (2, 3), (3, 4)}  # fmt: skip
    same[1] = 0
    same[2] = -1
    found = joined(dialogue(count=5), graph("knn(neighbors=1)"), same)
    assert {j for j, i in found if i == 0 and j != 0} == {3}
    assert {j for j, i in found if i == 1 and j != 1} == {0}, "one without features hears the nearest"
    assert {j for j, i in joined(dialogue(count=3), graph("knn(neighbors=1)"), same[:3]) if i == 0} == {0, 2}


def test_later_utterances_never_change_an_earlier_choice() -> None:
    config, draw = graph("knn(neighbors=2)", future=0), torch.Generator().manual_seed(0)
    features = torch.randn(8, 4, generator=draw)
    whole = joined(dialogue(count=8), config, features)
    for count in range(1, 8):
        cut = joined(dialogue(count=count), config, features[:count])
        other = features.clone()
        other[count:] = torch.randn(8 - count, 4, generator=draw)
        for found in (cut, {e for e in joined(dialogue(count=8), config, other) if e[1] < count}):
            assert found == {e for e in whole if e[1] < count}


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("between", ["knn(neighbors=1)", "speaker", "knn", "learned"])
@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_batch_has_the_edges_of_each_dialogue(scope: str, between: str, route: str) -> None:
    config = config_of(between, scope, speakers="same_other")
    config = replace(config, model=replace(config.model, route=route))
    dialogues = [dialogue("ABAABCA"), dialogue("", 1, "e"), dialogue("AABB", 4, "f")]
    batch = collate([u for d in dialogues for u in d], config)
    batch = batch if scope == "dialogue" else batch.dialogues
    found, first = batch.edge_index_dict(), 0
    for one in dialogues:
        data = build_dialogue_graph(one, config.graph)
        for modality in DIMS:
            relation = (modality, "intra", modality)
            ours = {tuple(e) for e in found[relation].T.tolist() if first <= e[1] < first + len(one)}
            assert ours == {(s + first, t + first) for s, t in data[relation].edge_index.T.tolist()}
        first += len(one)


def test_each_modality_has_neighbours_of_its_own_and_only_present_ones() -> None:
    utterances = dialogue()
    found = build_dialogue_graph(utterances, graph("knn(neighbors=3)"))
    edges = {m: {tuple(e) for e in found[m, "intra", m].edge_index.T.tolist()} for m in DIMS}
    assert len(set(map(frozenset, edges.values()))) == 3
    assert {j for j, i in edges["text"] if j != i} & {2, 5} == set()
    assert all((i, i) in e for e in edges.values() for i in range(len(utterances)))


# --- speaker ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", ["none", "same_other", ("A",), ("B", "A")], ids=str)
def test_speakers_hear_themselves(listed) -> None:
    names = "ABCACBA"
    expected = {(j, i) for j, i in reach(7, 4, 1) if names[j] == names[i]}
    config = graph("speaker", past=4, future=1, speakers=listed)
    assert joined(dialogue(names), config) == expected
    assert joined(dialogue("       "), config) == reach(7, 4, 1)


# --- wrong settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ("knm", "'graph.between' must be one of window, speaker, knn, learned (got 'knm') (did you mean 'knn'?)"),
        ("knn(neighbors=-1)", "'graph.between': 'neighbors' must be a whole number from 0 to 100000 (got -1)"),
        ("knn(neighbors=100001)", "'graph.between': 'neighbors' must be a whole number from 0 to 100000 (got 100001)"),
        ("learned(neighbors=1000000000000)", "must be a whole number from 0 to 100000 (got 1000000000000)"),
        ("knn(neighbors=1.5)", "'graph.between: neighbors' must be a whole number (got 1.5)"),
        ("knn(neighbors=)", "'graph.between: neighbors' must be a whole number (got None)"),
        ("knn(k=3)", "'graph.between': 'knn' has no parameter 'k' (it has: neighbors)"),
        ("window(radius=3)", "'graph.between': 'window' has no parameter 'radius'"),
        ("knn(neighbors=1", "'graph.between': expected a name, or name(key=value, ...)"),
    ],
)
def test_wrong_values_are_refused_when_settings_are_read(between: str, message: str) -> None:
    for make in (config_of, lambda spec: GraphConfig(between=spec)):
        with pytest.raises(ConfigError) as caught:
            make(between)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


# --- builders of one's own --------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_builders_of_one_test_alone():
    kept = dict(CONTEXT_BUILDERS._parts)
    yield
    CONTEXT_BUILDERS._parts = kept


def own(builder, name: str) -> None:
    builder.__name__ = builder.__qualname__ = name
    context_builder(builder)


def test_a_builder_of_ones_own_gets_what_it_names() -> None:
    seen = []

    def earlier(index, features, speakers, least: int = 1):
        seen.append(tuple(features.shape))
        assert speakers.tolist() == [0, 1, 0, 0, 1, 2, 0]
        kept = index[1] - index[0] >= least
        index.zero_()  # what it was given is its own
        return kept

    own(earlier, "earlier")
    data = build_dialogue_graph(dialogue("ABAABCA"), graph("earlier(least=2)"))
    assert seen == [(7, 6), (7, 4), (7, 5)]
    assert {tuple(e) for e in data[TEXT].edge_index.T.tolist()} == {
        (j, i) for i in range(7) for j in range(7) if i - j >= 2
    }


def _raises(index):
    raise ValueError("no\nway")


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (_raises, "context builder 'mine' fails on a dialogue of 1 utterance (ValueError: no way); repair it"),
        (lambda index: None, "context builder 'mine' must say of each of the 1 edges whether it stays, bool [E] (got "),
        (lambda index: index, "(got int64 [2, 1]); repair it"),
        (lambda index: torch.ones(index.shape[1]), "(got float32 [1]); repair it"),
        (lambda index: torch.ones(3, dtype=torch.bool), "(got bool [3]); repair it"),
        (lambda index, features: features @ torch.ones(3), "context builder 'mine' fails on a dialogue of 1 utt"),
    ],
    ids=["raises", "none", "index", "float", "shape", "features"],
)
def test_a_builder_that_does_not_work_is_named_before_any_work(scope: str, builder, message: str) -> None:
    own(lambda *given, **named: builder(*given, **named), "unused")
    context_builder("mine", builder)
    config = config_of("mine", scope)
    for work in (
        lambda: check_builders(DIMS, graph_spec(config)),
        lambda: collate(dialogue(count=1), config),
        lambda: build_dialogue_graph(dialogue(count=1), config.graph),
    ):
        with pytest.raises(ConfigError) as caught:
            work()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) <= 400


def test_a_builder_that_fails_on_long_dialogues_is_named_too() -> None:
    own(lambda index: torch.ones(min(49, index.shape[1]), dtype=torch.bool), "short")
    config = config_of("short", past="all", future="all")
    check_builders(DIMS, graph_spec(config))
    collate(dialogue(count=7), config)
    with pytest.raises(ConfigError, match=r"'short' must say of each of the 64 edges .* \(got bool \[49\]\)"):
        collate(dialogue(count=8), config)


def test_a_builder_that_needs_a_value_says_so() -> None:
    def near(index, radius: int):
        return (index[0] - index[1]).abs() <= radius

    own(near, "near")
    with pytest.raises(ConfigError, match=r"'graph.between': 'near' needs 'radius', as near\(radius=...\)"):
        config_of("near")
    data = build_dialogue_graph(dialogue(), graph("near(radius=1)"))
    assert {tuple(e) for e in data[TEXT].edge_index.T.tolist()} == reach(7, 1, 1)


def test_another_builder_of_the_same_name_is_asked_anew() -> None:
    def first(index):
        return torch.ones(index.shape[1], dtype=torch.bool)

    def second(index, speakers):
        return speakers[index[0]] == speakers[index[1]]

    for builder, expected in ((first, reach(4, 9, 9)), (second, {(i, i) for i in range(4)})):
        CONTEXT_BUILDERS._parts["changing"] = builder
        assert joined(dialogue("ABCD", 4), graph("changing")) == expected
