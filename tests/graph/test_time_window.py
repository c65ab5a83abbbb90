"""Edges by the times of steps: those of a loop over middles, whatever is hidden, cut or masked of an utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.graphs import clip, collate
from torch import Tensor

import gmsa
from gmsa.config import Config, from_dict
from gmsa.config.groups.missing import parse_missing
from gmsa.data import Row, Store, Utterance, write_store
from gmsa.data.missing import apply_missing
from gmsa.errors import ConfigError, DataError
from gmsa.explain.views import View
from gmsa.graph import EDGE_BUILDERS, build_graph
from gmsa.models import graph_spec
from gmsa.runs.scoring.windows import _cut
from gmsa.runs.train import train

DIMS = {"text": 6, "audio": 4}
ENCODERS = {"text": [[1, 1]], "audio": [[3, 2]]}


def times_of(length: int, pace: float, start: float = 0.0) -> Tensor:
    edges = start + torch.arange(length + 1) * pace
    return torch.stack([edges[:-1], edges[1:]], dim=1)


def timed(name: str, lengths: Sequence[int] = (4, 9), **fields: Any) -> Utterance:
    times = {"text": times_of(lengths[0], 0.3), "audio": times_of(lengths[1], 0.1, 0.05)}
    return clip(name, DIMS, lengths, times=times, **fields)


def config_of(seconds: float = 0.35, **settings: Any) -> Config:
    graph = {"intra": "time_window", "inter": {"text_to_audio": "time_window(seconds=0.2)"}, "seconds": seconds}
    model = {"encoders": ENCODERS, "channels": 16, "heads": 2}
    return from_dict({"graph": graph, "model": model, **settings})


def by_loop(source: Tensor, target: Tensor, strides: tuple[int, int], seconds: float) -> set[tuple[int, int]]:
    """The edges between nodes of ``strides`` steps, one pair after the other."""
    middles = []
    for times, stride in zip((source, target), strides, strict=True):
        rows = times.tolist()
        nodes = [rows[i : i + stride] for i in range(0, len(rows), stride)]
        middles.append([(node[0][0] + node[-1][1]) / 2 for node in nodes])
    return {
        (i, j)
        for i, one in enumerate(middles[0])
        for j, other in enumerate(middles[1])
        if abs(one - other) <= seconds + 1e-6
    }


def expected(utterance: Utterance, relation: tuple[str, str, str], seconds: float) -> set[tuple[int, int]]:
    strides = {"text": 1, "audio": 2}
    source, _, target = relation
    ends = [utterance.times[m] if utterance.lengths[m] else torch.zeros(0, 2) for m in (source, target)]
    return by_loop(ends[0], ends[1], (strides[source], strides[target]), seconds)


RELATIONS = {("text", "intra", "text"): 0.35, ("audio", "intra", "audio"): 0.35, ("text", "inter", "audio"): 0.2}


def assert_edges(utterance: Utterance, config: Config) -> None:
    batch = collate([timed("other$_$1"), utterance], config).edge_index_dict()
    alone = collate([utterance], config).edge_index_dict()
    graph = build_graph(utterance, config.graph, graph_spec(config).strides, DIMS)
    for relation, seconds in RELATIONS.items():
        pairs = expected(utterance, relation, seconds)
        assert set(map(tuple, alone[relation].T.tolist())) == pairs
        assert set(map(tuple, graph[relation].edge_index.T.tolist())) == pairs
        assert batch[relation].shape[1] == len(pairs) + len(expected(timed("other$_$1"), relation, seconds))


@pytest.mark.parametrize("route", ["dense", "edge"])
@pytest.mark.parametrize("hidden", [(), ("text",), ("audio",)])
@pytest.mark.parametrize("lengths", [(4, 9), (1, 1), (7, 2), (3, 0)])
def test_edges_are_those_of_a_loop(route: str, hidden: tuple[str, ...], lengths: tuple[int, int]) -> None:
    config = config_of(model={"route": route, "encoders": ENCODERS})
    assert_edges(timed("clip$_$1", lengths).drop(frozenset(hidden)), config)


def test_steps_exactly_that_far_apart_are_connected() -> None:
    """0.1 three times is no float32 of 0.3: the last digits do not decide."""
    builder = EDGE_BUILDERS["time_window"]
    times = times_of(8, 0.1)
    edges = builder(times, times, seconds=0.3)
    assert {(i, j) for i, j in edges.T.tolist()} == {(i, j) for i in range(8) for j in range(8) if abs(i - j) <= 3}
    assert builder(times, times, seconds=0.0).T.tolist() == [[i, i] for i in range(8)]


def test_masked_and_cut_steps_keep_their_times() -> None:
    config, whole = config_of(), timed("clip$_$1", (6, 11))
    (masked,) = apply_missing([whole], parse_missing("frame:0.4", "data.missing"), [*DIMS], 1)
    assert 0 < masked.lengths["audio"] < 11
    kept = [torch.nonzero((whole.features["audio"] == row).all(1)).item() for row in masked.features["audio"]]
    assert torch.equal(masked.times["audio"], whole.times["audio"][kept])
    assert_edges(masked, config)
    for part in _cut(whole, 2):
        assert_edges(part, config)
    without = View((whole,)).without([("text", 2), ("audio", 0)]).own
    assert torch.equal(without.times["text"], whole.times["text"][[0, 1, 3, 4, 5]])
    assert_edges(without, config)


def store_at(path: Path, with_times: bool = True) -> Store:
    rows = []
    for split, count in (("train", 12), ("valid", 4), ("test", 4)):
        for i in range(count):
            made = timed(f"{split}{i}$_$0", (2 + i % 4, 3 + i % 6), label=float(i % 5 - 2))
            rows.append(Row(split, made if with_times else replace(made, times={})))
    return write_store(path, rows, dict.fromkeys(DIMS, "float32"))


def trained(path: Path, out: Path, **settings: Any) -> gmsa.Run:
    optim = {"epochs": 1, "min_steps": 0}
    data = {"path": str(path), "modalities": [*DIMS]}
    config = config_of(data=data, optim=optim, protocol={"name": "supervised"}, run={"seeds": [1]}, **settings)
    train(config, "run", out)
    return gmsa.Run(out)


def test_a_run_by_times_predicts_alike_from_a_store_and_from_utterances(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    run = trained(store.path, tmp_path / "run")
    whole, read = run.predict(store.split("test")), [*store.split("test")]
    assert torch.equal(torch.tensor(run.predict(read).values), torch.tensor(whole.values))
    later = [replace(u, times={m: 9 * x for m, x in dict(u.times).items()}) for u in read]  # far apart: fewer edges
    assert not torch.allclose(torch.tensor(run.predict(later).values), torch.tensor(whole.values))
    untimed = replace(read[0], times={})
    with pytest.raises(DataError, match=r"'test0\$_\$0': the times of its steps of 'text' are not known.*or choose a"):
        run.predict([untimed])


def test_data_without_times_are_refused_before_any_work(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store", with_times=False)
    with pytest.raises(DataError, match=r"the times of its steps of 'text' are not known.*gmsa data extract"):
        trained(store.path, tmp_path / "run")
    assert not (tmp_path / "run" / "seed_1").exists()


def test_wrong_seconds_are_refused() -> None:
    for wrong in ("-1", "abc", "1e9", "nan"):
        with pytest.raises(ConfigError, match=r"'graph.intra': 'seconds' must be a number from 0 to 100000 \(got"):
            from_dict({"graph": {"intra": f"time_window(seconds={wrong})"}})
    with pytest.raises(ConfigError, match=r"graph\.seconds"):
        from_dict({"graph": {"seconds": -0.5}})
    assert from_dict({"graph": {"intra": "time_window(seconds=1.25)"}}).graph.builder("time_window(seconds=1.25)")[
        1
    ] == {"seconds": 1.25}
