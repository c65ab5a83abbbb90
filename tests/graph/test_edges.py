"""Edge builders against loops in exact fractions and NetworkX, and what is kept of them."""

from __future__ import annotations

import inspect
import itertools
import math
from fractions import Fraction
from functools import cache
from typing import Any

import networkx as nx
import pytest
import torch
from helpers.edges import knn_by_loop
from helpers.graphs import collate
from torch import Tensor

from gmsa.config import Config, from_dict
from gmsa.config.groups.graph import SHARED_PARAMETERS, GraphConfig
from gmsa.data import Utterance
from gmsa.errors import ConfigError
from gmsa.graph import EDGE_BUILDERS, build_graph, check_builders, edge_builder, looks_at_features, looks_at_times
from gmsa.graph.edges import FUTURE, PAST, PRESENT, temporal_type
from gmsa.graph.kept import build_edges
from gmsa.models import graph_spec

LENGTHS = [(s, t) for s in (0, 1, 2, 5, 13) for t in (0, 1, 3, 5, 40)] + [(1, 400), (400, 1), (3, 400)]
FAR = 10**6
SETTINGS: list[tuple[str, dict[str, int]]] = [
    ("complete", {}),
    ("aligned", {}),
    *[(name, {"radius": radius}) for name in ("window", "temporal") for radius in (0, 1, 2, 7, FAR)],
    *[("dilated", {"stride": stride, "hops": hops}) for stride in (1, 2, 3, 50, FAR) for hops in (0, 1, 3, FAR)],
]


def pairs(edges: Tensor) -> list[tuple[int, int]]:
    """Edges as (source, target), after what all builders promise of their form."""
    assert edges.shape[0] == 2
    assert edges.dtype == torch.long
    found = [(s, t) for s, t in edges.T.tolist()]
    assert found == sorted(found, key=lambda pair: (pair[1], pair[0]))
    assert len(set(found)) == len(found)
    return found


@cache
def apart(source: int, target: int) -> list[tuple[int, int, Fraction, int]]:
    """Every pair of steps, their distance in steps of the longer sequence, and that rounded, halves up."""
    found = []
    for i, j in itertools.product(range(source), range(target)):
        distance = abs(Fraction(2 * i + 1, 2 * source) - Fraction(2 * j + 1, 2 * target)) * max(source, target)
        found.append((i, j, distance, math.floor(distance + Fraction(1, 2))))
    return found


def by_loop(name: str, source: int, target: int, parameters: dict[str, int]) -> set[tuple[int, int]]:
    """The docstrings, pair by pair, in exact fractions."""
    radius, stride, hops = (parameters.get(p, 0) for p in ("radius", "stride", "hops"))
    joins = {
        "complete": lambda i, j, distance, steps: True,
        "aligned": lambda i, j, distance, steps: i == j,
        "window": lambda i, j, distance, steps: distance <= radius,
        "temporal": lambda i, j, distance, steps: distance <= radius,
        "dilated": lambda i, j, distance, steps: steps % stride == 0 and steps // stride <= hops,
    }[name]
    return {(i, j) for i, j, *distances in apart(source, target) if joins(i, j, *distances)}


@pytest.mark.parametrize(("name", "parameters"), SETTINGS, ids=str)
def test_builders_equal_a_loop_over_pairs(name: str, parameters: dict[str, int]) -> None:
    for source, target in LENGTHS:
        edges = EDGE_BUILDERS[name](source, target, **parameters)
        assert set(pairs(edges)) == by_loop(name, source, target, parameters), (source, target)


# --- within a modality: NetworkX -------------------------------------------------------------------------------------


def both_ways(graph: nx.Graph, loops: bool = True) -> set[tuple[int, int]]:
    return set(graph.to_directed().edges) | {(n, n) for n in graph if loops}


@pytest.mark.parametrize("length", [1, 2, 6, 11])
def test_complete_is_the_complete_graph_with_loops(length: int) -> None:
    assert set(pairs(EDGE_BUILDERS["complete"](length, length))) == both_ways(nx.complete_graph(length))


@pytest.mark.parametrize("name", ["window", "temporal"])
@pytest.mark.parametrize("length", [1, 2, 6, 11])
@pytest.mark.parametrize("radius", [1, 3, 20])
def test_window_is_the_power_of_a_path(name: str, length: int, radius: int) -> None:
    expected = both_ways(nx.power(nx.path_graph(length), radius))
    assert set(pairs(EDGE_BUILDERS[name](length, length, radius=radius))) == expected


@pytest.mark.parametrize("length", [1, 2, 6, 23])
@pytest.mark.parametrize(("stride", "hops"), [(2, 2), (3, 1), (1, 4), (5, 9)])
def test_dilated_is_a_union_of_differences_of_path_powers(length: int, stride: int, hops: int) -> None:
    path = nx.path_graph(length)
    expected = both_ways(nx.empty_graph(length))
    for hop in range(1, hops + 1):
        nearer = nx.power(path, hop * stride - 1) if hop * stride > 1 else nx.empty_graph(length)
        expected |= both_ways(nx.difference(nx.power(path, hop * stride), nearer), loops=False)
    assert set(pairs(EDGE_BUILDERS["dilated"](length, length, stride=stride, hops=hops))) == expected


@pytest.mark.parametrize(("source", "target"), [(5, 5), (5, 3), (2, 9)])
def test_aligned_is_a_matching_of_the_shorter_sequence(source: int, target: int) -> None:
    graph = nx.Graph((("source", s), ("target", t)) for s, t in pairs(EDGE_BUILDERS["aligned"](source, target)))
    assert nx.is_perfect_matching(graph, set(graph.edges))
    assert graph.number_of_edges() == min(source, target)
    assert all(a[1] == b[1] for a, b in graph.edges)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_swapping_the_sequences_swaps_the_edges(lengths: tuple[int, int]) -> None:
    for name, parameters in SETTINGS[::3]:
        there = EDGE_BUILDERS[name](*lengths, **parameters)
        back = EDGE_BUILDERS[name](*lengths[::-1], **parameters)
        assert set(pairs(there)) == {(s, t) for t, s in pairs(back)}, (name, parameters)


# --- the most similar -------------------------------------------------------------------------------------------------


def repeated(seed: int, count: int, dim: int) -> Tensor:
    """Features with zeros, repeated rows, opposite rows and rows of other lengths."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, dim, generator=g)
    rows = torch.cat([rows, -rows[:1], 2 * rows[1:2], torch.zeros(1, dim)])
    return rows[torch.randint(0, len(rows), (count,), generator=g)]


@pytest.mark.parametrize("neighbors", [0, 1, 4, 12, 500])
@pytest.mark.parametrize("kind", ["all differ", "repeated", "zeros", "one dimension"])
def test_knn_equals_a_loop_over_exact_cosines(neighbors: int, kind: str) -> None:
    for source_length, target_length in [(13, 13), (0, 3), (3, 0), (1, 1), (1, 30), (30, 1), (5, 11)]:
        dim = 1 if kind == "one dimension" else 3
        make = {
            "all differ": lambda n, seed, dim=dim: torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)),
            "repeated": lambda n, seed, dim=dim: repeated(seed, n, dim),
            "zeros": lambda n, seed, dim=dim: torch.zeros(n, dim),
            "one dimension": lambda n, seed, dim=dim: repeated(seed, n, dim),
        }[kind]
        source, target = make(source_length, 1), make(target_length, 2)
        across = EDGE_BUILDERS["knn"](source, target, neighbors=neighbors)
        assert set(pairs(across)) == knn_by_loop(source, target, neighbors, same=False)
        within = EDGE_BUILDERS["knn"](source, source, neighbors=neighbors)
        assert set(pairs(within)) == knn_by_loop(source, source, neighbors, same=True)


def test_knn_of_rows_in_one_direction_takes_the_first() -> None:
    source = torch.tensor([[1.0, 1.0], [3.0, 3.0], [0.1, 0.1], [7.0, 7.0], [1e-3, 1e-3]])
    target = torch.tensor([[0.3, 0.7], [5.0, 1.0]])
    assert set(pairs(EDGE_BUILDERS["knn"](source, target, neighbors=2))) == {(0, 0), (1, 0), (0, 1), (1, 1)}


def test_knn_needs_features_of_one_dimension() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        EDGE_BUILDERS["knn"](torch.zeros(2, 3), torch.zeros(2, 4), neighbors=1)


# --- past, now and future ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", LENGTHS)
def test_temporal_type_equals_a_loop_over_intervals(lengths: tuple[int, int]) -> None:
    source, target = lengths
    edges = EDGE_BUILDERS["complete"](source, target)
    for (i, j), found in zip(pairs(edges), temporal_type(edges, source, target).tolist(), strict=True):
        begins, ends = (Fraction(i + more, source) for more in (0, 1))
        first, last = (Fraction(j + more, target) for more in (0, 1))
        overlap = min(ends, last) - max(begins, first)
        assert found == (PRESENT if overlap > 0 else PAST if ends <= first else FUTURE), (i, j)


@pytest.mark.parametrize("lengths", [(s, t) for s, t in LENGTHS if s and t])
def test_temporal_types_part_the_sources_in_time(lengths: tuple[int, int]) -> None:
    source, target = lengths
    found = temporal_type(EDGE_BUILDERS["complete"](source, target), source, target).view(target, source)
    assert ((found == PAST) | (found == PRESENT) | (found == FUTURE)).all()
    assert (found[:, 1:] >= found[:, :-1]).all()  # first past sources, then now, then future
    assert (found == PRESENT).any(1).all()
    # What is past seen from there is future seen from here.
    back = temporal_type(EDGE_BUILDERS["complete"](target, source), target, source).view(source, target)
    assert torch.equal(back.T, FUTURE - found)
    if source == target:
        assert torch.equal(found == PRESENT, torch.eye(source, dtype=torch.bool))


def test_only_temporal_edges_have_temporal_types() -> None:
    for name, parameters in SETTINGS:
        index, temporal_types = build_edges(name, torch.zeros(9, 2), torch.zeros(5, 2), parameters)
        assert temporal_types.shape == index[0].shape
        assert temporal_types.dtype == torch.long
        expected = temporal_type(index, 9, 5) if name == "temporal" else torch.full_like(index[0], PRESENT)
        assert torch.equal(temporal_types, expected)
    index, temporal_types = build_edges("knn", torch.zeros(9, 2), torch.zeros(5, 2), {"neighbors": 2})
    assert torch.equal(temporal_types, torch.full_like(index[0], PRESENT))


# --- kept edges -------------------------------------------------------------------------------------------------------

KEPT = [
    ("complete", {}),
    ("aligned", {}),
    ("window", {"radius": 1}),
    ("temporal", {"radius": 2}),
    ("dilated", {"stride": 2, "hops": 2}),
    ("knn", {"neighbors": 2}),
]


@pytest.mark.parametrize(("name", "parameters"), KEPT, ids=str)
def test_what_is_kept_is_not_changed_by_its_use(name: str, parameters: dict[str, int], make_utterance) -> None:
    utterances = [make_utterance(f"v$_${i}", lengths) for i, lengths in enumerate([(5, 9, 3), (7, 0, 4)])]
    spec = f"{name}({', '.join(f'{p}={v}' for p, v in parameters.items())})"
    text = utterances[0].features["text"]
    kept = build_edges(name, text, text, parameters)
    before = [part.clone() for part in kept]
    assert build_edges(name, text, text, parameters)[0] is kept[0]
    for route in ("dense", "edge"):
        config = from_dict({"graph": {"intra": spec, "edge_dropout": 0.5}, "model": {"route": route}})
        batch = collate(utterances, config)
        expected = batch.edge_index("intra").clone()
        collate(utterances, config, {u.id: 3 for u in utterances})
        for edges in batch.edges.values():  # whoever holds a batch may write to it
            for part in vars(edges).values():
                if isinstance(part, torch.Tensor):
                    part.zero_()
        assert torch.equal(collate(utterances, config).edge_index("intra"), expected)
    build_graph(utterances[0], config.graph)
    assert all(torch.equal(part, was) for part, was in zip(kept, before, strict=True))


@pytest.mark.parametrize("name", ["complete", "window", "aligned", "knn"])
def test_whoever_writes_to_a_graph_changes_no_other(name: str, make_utterance) -> None:
    utterance, config = make_utterance("a$_$1", (61, 9, 3)), from_dict({"graph": {"intra": name}}).graph
    text = utterance.features["text"]
    kept = build_edges(name, text, text, config.builder(name)[1])
    before = [part.clone() for part in kept]
    store = build_graph(utterance, config)["text", "intra", "text"]
    try:
        for part in (store.edge_index, store.temporal_type):
            part.add_(1)
        assert all(torch.equal(part, was) for part, was in zip(kept, before, strict=True))
    finally:
        for part, was in zip(kept, before, strict=True):
            part.data = was


def test_edges_by_features_are_kept_per_sequence_and_parameter() -> None:
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(8, 3, generator=g), torch.randn(8, 3, generator=g)
    for x in (first, second):
        for neighbors in (1, 3):
            for _ in range(2):
                edges, _ = build_edges("knn", x, x, {"neighbors": neighbors})
                assert set(pairs(edges)) == knn_by_loop(x, x, neighbors, same=True)
    across, _ = build_edges("knn", first, second, {"neighbors": 2})
    assert set(pairs(across)) == knn_by_loop(first, second, 2, same=False)


# --- the registry -----------------------------------------------------------------------------------------------------


def test_built_in_builders_take_their_parameters_from_the_settings() -> None:
    for name in EDGE_BUILDERS:
        first, second, *rest = (p for p in inspect.signature(EDGE_BUILDERS[name]).parameters if p != "relation")
        assert set(rest) <= set(SHARED_PARAMETERS)
        assert tuple(EDGE_BUILDERS.parameters(name)) == tuple(rest)
        of_times, of_features = looks_at_times(name), looks_at_features(name)
        assert first == ("source_times" if of_times else "source" if of_features else "source_length")
        assert second == first.replace("source", "target")
    assert all(hasattr(GraphConfig(), p) for p in SHARED_PARAMETERS)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a builder for one test."""

    def add(function: Any) -> None:
        monkeypatch.setattr(EDGE_BUILDERS, "_parts", dict(EDGE_BUILDERS._parts))
        assert edge_builder(function) is function

    return add


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_registered_builder_is_used(register, make_utterance, route: str) -> None:
    def first_only_for_test(source_length: int, target_length: int, stride: int) -> Tensor:
        targets = torch.arange(0, target_length if source_length else 0, stride)
        return torch.stack([torch.zeros_like(targets), targets])

    register(first_only_for_test)
    config = from_dict({"graph": {"intra": {"text": "first_only_for_test(stride=3)"}}, "model": {"route": route}})
    edges = collate([make_utterance("a$_$1", (8, 0, 2))], config).edge_index_dict()
    assert pairs(edges["text", "intra", "text"]) == [(0, 0), (0, 3), (0, 6)]
    assert edges["vision", "intra", "vision"].shape == (2, 4)


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_registered_builder_may_look_at_features(register, route: str) -> None:
    def louder_for_test(source: Tensor, target: Tensor) -> Tensor:
        found, sender = (source.norm(dim=1) > target.norm(dim=1)[:, None]).nonzero(as_tuple=True)
        return torch.stack([sender, found])

    register(louder_for_test)
    config = from_dict(
        {"graph": {"inter": {"text_to_vision": "louder_for_test"}}, "model": {"route": route}},
    )
    text, vision = torch.tensor([[3.0], [1.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.5], [9.0, 9.0]])
    utterance = Utterance("a$_$1", {"text": text, "audio": torch.zeros(0, 4), "vision": vision})
    edges = collate([utterance], config).edge_index_dict()
    assert pairs(edges["text", "inter", "vision"]) == [(0, 0), (0, 1), (1, 1)]
    assert edges["vision", "inter", "text"].shape == (2, 6)


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_builder_has_parameters_of_its_own_and_types_its_edges(register, make_utterance, route: str) -> None:
    def back_for_test(source_length: int, target_length: int, reach: int, share: float = 1.0) -> Tensor:
        pairs = [
            (t - r, t) for r in range(reach + 1) for t in range(target_length) if 0 <= t - r < source_length * share
        ]
        return torch.tensor(pairs, dtype=torch.long).view(-1, 2).T  # not sorted by target

    back_for_test.temporal = True
    register(back_for_test)
    settings = {"graph": {"intra": {"text": "back_for_test(reach=1)"}}, "model": {"route": route}}
    batch = collate([make_utterance("a$_$1", (4, 0, 2))], from_dict(settings))
    expected = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)]
    assert sorted(pairs(batch.edge_index_dict()["text", "intra", "text"])) == expected
    assert from_dict(settings).graph.typed
    store = build_graph(make_utterance("a$_$1", (4, 0, 2)), from_dict(settings).graph)["text", "intra", "text"]
    assert pairs(store.edge_index) == expected
    assert store.temporal_type.tolist() == [PRESENT if s == t else PAST for s, t in expected]
    for spec, message in [
        ("back_for_test", "'graph.intra': 'back_for_test' needs 'reach', as back_for_test(reach=...)"),
        ("back_for_test(rech=1)", "'back_for_test' has no parameter 'rech' (it has: reach, share)"),
        ("back_for_test(reach=x)", "'graph.intra: reach' must be a whole number (got 'x')"),
        ("back_for_test(reach)", "'graph.intra': 'reach' needs a value"),
    ]:
        with pytest.raises(ConfigError) as caught:
            from_dict({"graph": {"intra": spec}})
        assert message in str(caught.value)


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_a_builder_of_features_has_parameters_of_its_own(register, route: str) -> None:
    def close_for_test(source: Tensor, target: Tensor, limit: float = 0.5) -> Tensor:
        return (torch.cdist(source, target) <= limit).nonzero().T

    register(close_for_test)
    config = from_dict({"graph": {"intra": "close_for_test(limit=1)"}, "model": {"route": route}})
    text = torch.tensor([[0.0], [1.0], [3.0]])
    utterance = Utterance("a$_$1", {"text": text, "audio": torch.zeros(0, 4), "vision": torch.zeros(0, 2)})
    edges = collate([utterance], config).edge_index_dict()["text", "intra", "text"]
    assert sorted(pairs(edges)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    check_builders({"text": 1, "audio": 4}, graph_spec(config))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda s, t: [(0, 0)], "(got list)"),
        (lambda s, t: torch.zeros(2, 1), "(got float32 [2, 1])"),
        (lambda s, t: torch.zeros(1, 2, dtype=torch.long), "(got int64 [1, 2])"),
        (lambda s, t: torch.tensor([[0, s], [0, 0]]), "(got source 5)"),
        (lambda s, t: torch.tensor([[0, 0], [0, -1]]), "(got target -1)"),
        (lambda s, t: torch.tensor([[1, 0, 1], [0, 2, 0]]), "(got the edge from 1 to 0 twice)"),
        (lambda s, t: 1 // 0, "fails from 5 to 5 steps (ZeroDivisionError"),
    ],
    ids=["list", "dtype", "shape", "source", "target", "twice", "raises"],
)
def test_a_builder_that_returns_no_edge_index_is_refused(register, returned, message: str) -> None:
    def wrong_for_test(source_length: int, target_length: int) -> Tensor:
        return returned(source_length, target_length)

    register(wrong_for_test)
    with pytest.raises(ConfigError, match="edge builder 'wrong_for_test'") as caught:
        check_builders({"text": 6}, graph_spec(from_dict({"graph": {"intra": "wrong_for_test"}})))
    assert message in str(caught.value)


def test_the_registry_is_as_it_was() -> None:
    assert set(EDGE_BUILDERS) == {"complete", "window", "time_window", "dilated", "knn", "aligned", "temporal", "mtag"}
    assert Config().graph.builders == {"complete"}
