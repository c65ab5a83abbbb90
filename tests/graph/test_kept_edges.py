"""Edges that builders find by features are kept by these, and are those that a loop over exact cosines finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.edges import knn_by_loop
from helpers.graphs import clip, clips, collate

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.data.features import ChangedFeatures, LazyFeatures
from gmsa.graph import GraphBatch, kept
from gmsa.graph.nodes import node_features
from gmsa.models import graph_spec

DIMS = {"text": 6, "audio": 4, "vision": 6}


def config_of(route: str, **graph: Any) -> Config:
    settings = {"intra": "knn", "inter": {"text_to_vision": "knn", "vision_to_text": "window"}, "neighbors": 2}
    return from_dict({"graph": settings | graph, "model": {"route": route}})


def shown(utterances: list[Utterance]) -> list[list[Utterance]]:
    """The utterances, as several epochs show them: whole, without some modalities, and whole again."""
    subsets = [frozenset(), frozenset({"text"}), frozenset({"audio", "vision"}), frozenset({"vision"}), frozenset()]
    return [[u.drop(subsets[(i + epoch) % 5]) for i, u in enumerate(utterances)] for epoch in range(5)]


def forget() -> None:
    for found in (kept._by_length, kept._by_content, kept.kept_edges, kept.kept_dialogue_edges):
        found.cache.clear()


def tensors_of(batch: GraphBatch) -> list[torch.Tensor]:
    parts = [*batch.edges.values(), *batch.readout_edges.values()]
    return [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("route", ["dense", "edge", "auto"])
def test_kept_edges_are_those_of_a_loop_whatever_is_hidden(route: str) -> None:
    config, utterances = config_of(route), [*clips(DIMS, 8), clip("long$_$1", DIMS, [9, 40, 7])]
    strides = graph_spec(config).strides
    assert strides["audio"] > 1
    forget()
    for utterances_shown in shown(utterances):
        for utterance in utterances_shown:
            found = collate([utterance], config).edge_index_dict()
            nodes = {m: node_features(x, strides[m]) for m, x in utterance.features.items()}
            for source, target in [("text", "text"), ("audio", "audio"), ("vision", "vision"), ("text", "vision")]:
                relation = (source, "intra" if source == target else "inter", target)
                expected = knn_by_loop(nodes[source], nodes[target], 2, same=source == target)
                assert {(s, t) for s, t in found[relation].T.tolist()} == expected


@pytest.mark.parametrize("graph", [{}, {"intra": "temporal"}, {"edge_dropout": 0.4}], ids=str)
@pytest.mark.parametrize("route", ["dense", "edge", "auto"])
def test_batches_from_kept_edges_equal_those_of_a_new_process(route: str, graph: dict[str, Any]) -> None:
    config, epochs = config_of(route, **graph), shown(clips(DIMS, 12))
    seeds = {u.id: i for i, u in enumerate(epochs[0])} if graph else None
    forget()
    batches = [collate(epoch, config, seeds) for epoch in epochs]
    for epoch, batch in zip(epochs, batches, strict=True):
        forget()
        again = collate(epoch, config, seeds)
        for found, expected in zip(tensors_of(batch), tensors_of(again), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
def test_dialogues_keep_no_edges_of_other_features(scope: str) -> None:
    config = from_dict({"graph": {"scope": scope, "between": "knn(neighbors=1)"}})
    epochs = shown(clips(DIMS, 12, per_video=6))
    batches = [collate(epoch, config) for epoch in epochs]
    for epoch, batch in zip(epochs, batches, strict=True):
        forget()
        again = collate(epoch, config)
        pairs = [(batch, again)] if scope == "dialogue" else [(batch, again), (batch.dialogues, again.dialogues)]
        for found, expected in pairs:
            assert all(map(torch.equal, tensors_of(found), tensors_of(expected)))


class Read(LazyFeatures):
    """Features that are read anew at each access, as those of a store."""

    __slots__ = ("_features",)

    def __init__(self, features: dict[str, torch.Tensor]) -> None:
        self._features = features

    @property
    def lengths(self) -> dict[str, int]:
        return {m: len(x) for m, x in self._features.items()}

    def __getitem__(self, modality: str) -> torch.Tensor:
        return self._features[modality].clone()


def test_features_are_compared_once_for_each_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an utterance is another object, its features lie elsewhere, or another modality was hidden."""
    ran: list[str] = []
    run = kept._run

    def counted(name: str, *arguments: Any) -> Any:
        if name == "knn":
            ran.append(name)
        return run(name, *arguments)

    monkeypatch.setattr(kept, "_run", counted)
    config, utterances = from_dict({"graph": {"intra": "knn"}}), clips(DIMS, 8)
    forget()
    collate(utterances, config)
    assert len(ran) == sum(length > 0 for u in utterances for length in u.lengths.values())
    lazy = [Utterance(u.id, ChangedFeatures(Read(dict(u.features)), lambda m, x: x)) for u in utterances]
    again = [Utterance(u.id, {m: x.clone() for m, x in u.features.items()}) for u in utterances]
    for others in (utterances, lazy, again, [u.drop(frozenset({"text"})) for u in lazy], *shown(utterances)):
        before = len(ran)
        collate(others, config)
        assert len(ran) == before
    collate([Utterance("new$_$1", {m: -x.flip(0) for m, x in utterances[1].features.items()})], config)
    assert len(ran) > before


def test_features_of_another_shape_are_others() -> None:
    one = torch.arange(12.0).sin()
    for width, stride in [(2, 1), (3, 1), (2, 2), (3, 2)]:
        sequence = one.view(-1, width)
        found, _ = kept.build_edges("knn", sequence, sequence, {"neighbors": 1}, (stride, stride))
        nodes = node_features(sequence, stride)
        assert {(s, t) for s, t in found.T.tolist()} == knn_by_loop(nodes, nodes, 1, same=True)


def test_a_full_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config, epochs = config_of("auto"), shown(clips(DIMS, 12))
    forget()
    expected = [collate(epoch, config) for epoch in epochs]
    forget()
    for found in (kept._by_content, kept.kept_edges):
        monkeypatch.setattr(found.cache, "_Cache__maxsize", 1000)
    for epoch, batch in zip(epochs, expected, strict=True):
        assert all(map(torch.equal, tensors_of(collate(epoch, config)), tensors_of(batch)))
        assert kept._by_content.cache.currsize <= 1000
