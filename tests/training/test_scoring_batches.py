"""Batches that are scored: bounded by their nodes, and answers that do not depend on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import clip, collate

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.models import build_model, graph_spec
from gmsa.training import scoring
from gmsa.training.batches import MOST_NODES, SampleGroups, Shard, bounded, scoring_batches
from gmsa.training.examples import Example

DIMS = {"text": 3, "audio": 2, "vision": 4}


def clips_of_lengths(count: int, longest: int) -> list[Utterance]:
    """Utterances of log-normal lengths, shuffled, four to a video."""
    rng = np.random.default_rng(0)
    rows = np.minimum(np.ceil(rng.lognormal(1.5, 1, (count, 3))), longest).astype(int).tolist()
    return [clip(f"v{i // 4}$_${i % 4}", DIMS, row, label=0.5) for i, row in enumerate(rows)]


def config_of(batch_size: int, **graph: Any) -> Config:
    return from_dict({"model": {"channels": 8, "heads": 2}, "optim": {"batch_size": batch_size}, "graph": graph})


@pytest.mark.parametrize("seed", range(5))
def test_no_batch_is_larger_than_it_may_be_or_smaller_than_it_must(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = rng.integers(1, 60, 200).tolist()
    order = rng.permutation(200).tolist()
    batches = [*bounded(order, nodes, most=7, most_nodes=150)]
    assert [i for batch in batches for i in batch] == order
    for batch, after in zip(batches, [*batches[1:], []], strict=True):
        assert len(batch) <= 7
        assert len(batch) == 1 or len(batch) * max(nodes[i] for i in batch) <= 150
        if after and len(batch) < 7:  # the next would not have fitted
            assert (len(batch) + 1) * max(nodes[i] for i in [*batch, after[0]]) > 150
    assert [*bounded([], [], 7, 150)] == []


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_nodes_are_those_of_the_graphs_of_utterances(scope: str) -> None:
    utterances, config = clips_of_lengths(40, 60), config_of(8, scope=scope)
    groups = SampleGroups([Example(u) for u in utterances], config)
    members = [[groups.example(position) for position in groups.members(number)] for number in range(len(groups))]
    expected = [sum(collate([e.utterance], config_of(8)).shape[1] for e in group) for group in members]
    assert groups.nodes(graph_spec(config)).tolist() == expected


@pytest.mark.parametrize("graph", [{}, {"intra": "knn"}, {"scope": "dialogue"}, {"scope": "hierarchical"}], ids=str)
def test_answers_do_not_depend_on_the_batches(graph: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    utterances, config = clips_of_lengths(60, 90), config_of(16, **graph)
    torch.manual_seed(0)
    model = build_model(DIMS, config)
    found = []
    for most in (10**9, MOST_NODES, 300, 1):
        monkeypatch.setattr(scoring, "MOST_NODES", most)
        found.append(scoring.predict_utterances(model, utterances, config, torch.device("cpu")))
        assert found[-1].ids == [u.id for u in utterances]
    for other in found[1:]:
        for name in ("value", "probabilities", "gate"):
            np.testing.assert_allclose(getattr(other, name), getattr(found[0], name), rtol=0, atol=1e-6)
    assert np.ptp(found[0].value) > 1e-3


def test_larger_batches_of_long_utterances_have_no_more_nodes() -> None:
    utterances = clips_of_lengths(300, 400)
    shapes = {}
    for size in (32, 128):
        batches = [batch for _, _, batch in scoring_batches(utterances, config_of(size))]
        shapes[size] = [batch.shape[0] * batch.shape[1] for batch in batches]
        assert all(batch.shape[0] <= size for batch in batches)
    assert (
        max(shapes[128])
        <= MOST_NODES
        < max(
            batch.shape[0] * batch.shape[1]
            for _, _, batch in scoring_batches(utterances, config_of(128), most_nodes=10**9)
        )
    )


def test_short_utterances_are_in_the_batches_that_they_ever_were_in() -> None:
    """Weights are chosen by scores, and a score must not change in its last bits."""
    utterances, config = clips_of_lengths(100, 12), config_of(32)
    order = np.argsort([u.steps for u in utterances], kind="stable").tolist()
    found = [places for _, places, _ in scoring_batches(utterances, config)]
    assert found == [order[i : i + 32] for i in range(0, 100, 32)]


def test_processes_share_all_batches() -> None:
    utterances, config = clips_of_lengths(100, 200), config_of(32)
    whole = [places for _, places, _ in scoring_batches(utterances, config)]
    shares = [
        [places for _, places, _ in scoring_batches(utterances, config, shard=Shard(rank=rank, world=3))]
        for rank in range(3)
    ]
    assert [shares[i % 3][i // 3] for i in range(len(whole))] == whole
