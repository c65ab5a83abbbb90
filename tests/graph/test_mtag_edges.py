"""MTAG's windows and the edges that they type, against the paper's rules in plain loops."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor

from gmsa.config import Config, from_dict
from gmsa.errors import ConfigError
from gmsa.graph import EDGE_BUILDERS, GraphBatch, edge_builder
from gmsa.graph.edges import FUTURE, PAST, PRESENT, mtag, mtag_type, pseudo_alignment
from gmsa.graph.kept import build_edges
from gmsa.models import build_model
from gmsa.models.build import model_skeleton

WINDOWS = {
    (2, 3): [(0, 1), (1, 2)],
    (3, 5): [(0, 1), (2, 3), (3, 4)],
    (3, 3): [(0, 1), (1, 2), (1, 2)],
    (2, 2): [(0, 1), (0, 1)],
    (3, 8): [(0, 3), (2, 5), (4, 7)],
    (5, 50): [(6 * i, 6 * i + 25) for i in range(5)],
    (20, 50): [(2 * i, 2 * i + 11) for i in range(20)],
    (2, 5): [(0, 1), (3, 4)],
    (1, 4): [(0, 3)],
    (1, 1): [(0, 0)],
}
"""First and last step of each owner's window, for lengths of the shorter and the longer sequence, in the released
code."""
TO_AUDIO, TO_TEXT = ("text", "inter", "audio"), ("audio", "inter", "text")
DIMS = {"text": 3, "audio": 2}


def by_loop(owners: int, steps: int) -> list[tuple[int, int]]:
    """The windows, one after the other."""
    if owners == 1:
        return [(0, steps - 1)]
    if steps < 2 * owners:
        found, begin, side_by_side = [], 0, steps % owners
        for owner in range(owners):
            begin = min(begin, steps - 2)
            found.append((begin, begin + 1))
            begin += 2 if owner + 1 < side_by_side else 1
        return found
    stride = max(2, (steps // (owners - 1) + 1) // 2)
    width = steps - (owners - 1) * stride
    if width < 2:
        width, stride = 2, (steps - 2) // (owners - 1)
    return [(stride * i, stride * i + width - 1) for i in range(owners)]


def windows(owners: int, steps: int) -> list[tuple[int, int]]:
    first, last = pseudo_alignment(owners, steps)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def times(source: int, target: int, relation: tuple[str, str, str]) -> dict[tuple[int, int], int]:
    edges = mtag(source, target, relation)
    found = mtag_type(edges, source, target, relation).tolist()
    return {(i, j): t for (i, j), t in zip(edges.T.tolist(), found, strict=True)}


@pytest.mark.parametrize("lengths", WINDOWS, ids=str)
def test_windows_are_those_of_the_released_code(lengths: tuple[int, int]) -> None:
    assert windows(*lengths) == by_loop(*lengths) == WINDOWS[lengths]


def test_windows_equal_a_loop_and_stay_within_the_sequence() -> None:
    for owners, steps in itertools.combinations_with_replacement(range(1, 40), 2):
        found = windows(owners, steps)
        assert found == by_loop(owners, steps), (owners, steps)
        assert all(0 <= first <= last < steps for first, last in found)
        assert found == sorted(found)


def test_every_pair_of_two_modalities_is_joined_once_and_mirrored() -> None:
    for n, m in itertools.product(range(6), range(14)):
        there, back = times(n, m, TO_AUDIO), times(m, n, TO_TEXT)
        assert {*there} == set(itertools.product(range(n), range(m)))
        assert {(j, i): FUTURE - t for (i, j), t in there.items()} == back, (n, m)


def test_time_is_that_of_the_source_seen_from_the_target() -> None:
    # Three steps of text own windows of eight of audio.
    found = times(8, 3, TO_TEXT)
    assert [found[i, 1] for i in range(8)] == [PAST] * 2 + [PRESENT] * 4 + [FUTURE] * 2
    found = times(3, 8, TO_AUDIO)
    assert [found[i, 4] for i in range(3)] == [PAST, PRESENT, PRESENT]
    # Nobody's window has the third of five steps; seen from there, the first owner is past and the second future.
    assert [times(2, 5, TO_AUDIO)[i, 2] for i in range(2)] == [PAST, FUTURE]


def test_of_equal_lengths_the_modality_whose_name_comes_first_owns_the_windows() -> None:
    found = times(3, 3, TO_AUDIO)  # to audio, which owns
    assert {pair for pair, t in found.items() if t == PRESENT} == {(0, 0), (1, 0), (1, 1), (2, 1), (1, 2), (2, 2)}


def test_within_a_modality_neighbors_are_joined() -> None:
    found = times(4, 4, ("text", "intra", "text"))
    assert found == {(i, j): PRESENT + (i > j) - (i < j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    assert times(1, 1, ("text", "intra", "text")) == {(0, 0): PRESENT}


def config_of(graph: dict[str, Any] | None = None) -> Config:
    settings = {"intra": "mtag", "inter": "mtag"} if graph is None else graph
    model = {"name": "mtag", "channels": 8, "heads": 2, "encoders": [[1, 1]]}
    return from_dict({"graph": settings, "model": model})


def named(batch: GraphBatch, config: Config) -> list[tuple[str, str, str]]:
    """The relation of each edge."""
    layers = build_model(DIMS, config).layers
    return [layers.relations.triples[n] for n in layers.number[batch.edges["global"].relation].tolist()]


def test_a_graph_has_as_many_edges_as_the_formula_says() -> None:
    dims = {"text": 2, "audio": 2, "vision": 2}
    for lengths, expected in (((50, 50, 50), 15_444), ((7, 0, 4), 2 * 7 * 4 + 19 + 10), ((1, 1, 0), 4)):
        batch = collate([clip("a$_$0", dims, lengths)], config_of())
        assert batch.edge_index("global").shape[1] == expected


@pytest.mark.parametrize("lengths", [(3, 5), (5, 3), (4, 4)])
def test_relations_say_the_modalities_whichever_is_longer(lengths: tuple[int, int]) -> None:
    config = config_of()
    batch = collate([clip("a$_$0", DIMS, lengths)], config)
    edges, sizes = batch.edges["global"], dict(zip(DIMS, lengths, strict=True))
    for (source, kind, target), (i, j) in zip(named(batch, config), edges.index.T.tolist(), strict=True):
        ends = [batch.schema.node_types[batch.node_type[k]] for k in (i, j)]
        assert ends == [source, target]
        stream = "intra" if source == target else "inter"
        places = tuple(batch.position[[i, j]].tolist())
        time = times(sizes[source], sizes[target], (source, stream, target))[places]
        assert kind == f"{stream} {('past', 'present', 'future')[time]}"
    assert batch.edge_index("global").shape[1] == len(edges.relation)


def test_a_builder_of_ones_own_may_say_the_time_and_ask_for_the_relation(monkeypatch: pytest.MonkeyPatch) -> None:
    def diagonal_for_test(source_length: int, target_length: int, relation: tuple[str, str, str]) -> Tensor:
        assert relation[1] == ("intra" if relation[0] == relation[2] else "inter")
        return torch.arange(min(source_length, target_length)).expand(2, -1)

    def when(edges: Tensor, source_length: int, target_length: int, relation: tuple[str, str, str]) -> Tensor:
        return torch.full_like(edges[0], PAST if relation[0] == "text" else FUTURE)

    diagonal_for_test.temporal = when
    monkeypatch.setattr(EDGE_BUILDERS, "_parts", dict(EDGE_BUILDERS._parts))
    edge_builder(diagonal_for_test)
    config = config_of({"inter": "diagonal_for_test"})
    assert config.graph.typed
    batch = collate([clip("a$_$0", DIMS, (3, 4))], config)
    found = {*named(batch, config)}
    across = {("text", "inter past", "audio"), ("audio", "inter future", "text")}
    assert found == across | {(m, "intra", m) for m in DIMS}

    def plain_for_test(source_length: int, target_length: int) -> Tensor:
        return torch.zeros(2, int(source_length * target_length > 0), dtype=torch.long)

    plain_for_test.temporal = lambda edges, source_length, target_length: torch.full_like(edges[0], FUTURE)
    edge_builder(plain_for_test)
    assert build_edges("plain_for_test", torch.zeros(3, 1), torch.zeros(2, 1), {})[1].tolist() == [FUTURE]


def test_the_relation_is_no_parameter_for_users() -> None:
    with pytest.raises(ConfigError, match=r"'graph.inter': 'mtag' has no parameter 'relation'"):
        config_of({"inter": "mtag(relation=x)"})


def test_relations_are_numbers_even_where_a_skeleton_asked_for_them_first() -> None:
    """A run makes the skeleton of its model, on the device meta, before its first batch."""
    dims = {"text": 3, "of_this_test_alone": 2}
    settings = {"graph": {"intra": "mtag", "inter": "mtag"}, "data": {"modalities": [*dims]}}
    config = from_dict(settings | {"model": {"name": "mtag", "channels": 8, "heads": 2}})
    assert model_skeleton(dims, config)
    edges = collate([clip("a$_$0", dims, (3, 2))], config).edges["global"]
    assert edges.relation.device.type == "cpu"
    assert int(edges.relation.min()) >= 0
