"""Training from a feature store: utterances made when they are read train as those in memory do, in little memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import left, run_once
from helpers.run_kinds import KINDS

from gmsa.config import Config, from_dict
from gmsa.data import Row, Store, Target, Utterance, write_store
from gmsa.data.__main__ import main
from gmsa.data.lazy import Lazy, joined, taken
from gmsa.rng import generator
from gmsa.runs import report as results
from gmsa.runs.prepare import prepare
from gmsa.training.batches import WHOLE, Shard, buckets, training_batches
from gmsa.training.examples import labeled_examples, plain_examples
from gmsa.training.loader import load_batches
from gmsa.training.tasks import FineTuning

DIMS = {"text": 6, "audio": 4, "vision": 5}
FEW = ("self-training", "distillation on dialogues")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small run's time."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


def config_of(path: Path, kind: str = "", **groups: dict[str, Any]) -> Config:
    settings: dict[str, dict[str, Any]] = {
        "data": {"path": str(path), "name": "tiny", "label_ratio": 0.5},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
        "run": {"seeds": [1], "device": "cpu"},
    }
    for changes in (KINDS.get(kind, {}), groups):
        for name, values in changes.items():
            settings[name] = settings.get(name, {}) | values
    return from_dict(settings)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in FEW else pytest.mark.slow) for kind in KINDS if kind != "classes"]
)
def test_a_run_from_a_store_is_that_from_its_file(
    write_mmsa: Callable[..., Path], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_mmsa()
    main(["import", str(file), "--out", str(tmp_path / "store"), "--shard-size", "0.001"])
    for name, path in (("file", file), ("store", tmp_path / "store")):
        run_once(config_of(path, kind), tmp_path / name)
    assert left(tmp_path / "store") == left(tmp_path / "file")
    assert left(tmp_path / "store")


@pytest.fixture
def clips(make_utterance: Callable[..., Utterance]) -> list[Utterance]:
    """A hundred clips of twenty dialogues, every fifth without a label."""
    made = [make_utterance(f"v{i % 20}$_${i}", (1 + i % 7, i % 3, i % 2), i / 50 - 1) for i in range(100)]
    return [replace(u, label=None) if i % 5 == 2 else u for i, u in enumerate(made)]


@pytest.fixture
def stored(tmp_path: Path, clips: list[Utterance]) -> Store:
    return write_store(tmp_path / "store", [Row("train", u) for u in clips], shard_bytes=1000)


def batches_of(config: Config, utterances: Sequence[Utterance], shard: Shard = WHOLE) -> list[Any]:
    """Ids and contents of two epochs' batches, with all utterances as context."""
    labeled = taken(utterances, [i for i, u in enumerate(utterances) if u.label is not None])
    examples = joined(labeled_examples(labeled, Target()), plain_examples(taken(utterances, [2, 7])))
    task = FineTuning(config, DIMS, examples, utterances, utterances, torch.device("cpu"))
    assert isinstance(examples, Lazy) == isinstance(utterances, Lazy)
    found = []
    for epoch in (1, 2):
        for batch in task.batches(3, "stage", epoch, shard=shard):
            found.append((batch[0].ids, tensors_of(batch)))
    return found


def tensors_of(batch: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for part in batch:
        part.map(lambda x: found.append(x) or x)
    return found


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        assert len(a) == len(b)
        assert all(torch.equal(x.nan_to_num(7), y.nan_to_num(7)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_batches_of_a_store_are_those_of_a_list(stored: Store, clips: list[Utterance], scope: str) -> None:
    config = config_of(stored.path, graph={"scope": scope})
    assert_same(batches_of(config, stored.split("train")), batches_of(config, clips))


# --- the order of an epoch -------------------------------------------------------------------------------------------


def buckets_by_loop(lengths: Sequence[int], batch_size: int, *seed: int | str) -> list[list[int]]:
    """The order of gmsa before it could go by shards."""
    rng = generator(*seed, "batches")
    order = rng.permutation(len(lengths))
    size, found = np.asarray(lengths), []
    for start in range(0, len(order), batch_size * 16):
        window = order[start : start + batch_size * 16]
        window = window[np.argsort(size[window], kind="stable")]
        found += [window[i : i + batch_size].tolist() for i in range(0, len(window), batch_size)]
    return [found[i] for i in rng.permutation(len(found))]


@pytest.mark.parametrize("count", [0, 1, 7, 100, 2000])
def test_without_shards_the_order_is_that_of_before(count: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 50, count)
    shards = np.arange(count) * 5 // max(1, count)
    expected = buckets_by_loop(lengths, 8, 3, "stage", 1)
    assert [*buckets(lengths.tolist(), 8, 3, "stage", 1)] == expected
    assert [*buckets(lengths, 8, 3, "stage", 1, shards=shards, shard_window=0)] == expected
    assert [*buckets(lengths, 8, 3, "stage", 1, shards=shards, shard_window=5)] == expected  # all of them together


@pytest.mark.parametrize("window", [1, 2, 3])
def test_with_shards_few_are_read_at_a_time(window: int) -> None:
    rng = np.random.default_rng(0)
    lengths, shards = rng.integers(1, 50, 2003), np.sort(rng.integers(0, 7, 2003))

    def order(epoch: int) -> list[list[int]]:
        return [*buckets(lengths, 8, 3, "stage", epoch, shards=shards, shard_window=window)]

    found = order(1)
    assert found == order(1) != order(2)
    assert sorted(i for batch in found for i in batch) == [*range(2003)]
    assert len(found) == -(-2003 // 8)
    assert all(len(batch) <= 8 for batch in found)
    # A window is done before the next one begins; up to one stretch of batches of similar lengths has parts of two.
    turns = [{int(shard) for i in batch for shard in shards[[i]]} for batch in found]
    for shard in range(7):
        there = [turn for turn, known in enumerate(turns) if shard in known]
        most = sum(np.isin(shards, [s for turn in there for s in turns[turn]]))
        assert there[-1] - there[0] < most // 8 + 2 * 16
    first = [int(shard) for epoch in range(20) for shard in shards[order(epoch)[0]]]
    assert len(set(first)) > 2  # shards are shuffled, too


def test_an_epoch_over_shards_goes_on_where_it_ended(stored: Store) -> None:
    config = config_of(stored.path, optim={"epochs": 1, "min_steps": 0, "batch_size": 8, "shard_window": 2})
    utterances = stored.split("train")
    whole = batches_of(config, utterances)
    assert_same(whole, batches_of(config, utterances))
    plain = batches_of(config_of(stored.path), utterances)
    assert [ids for ids, _ in whole] != [ids for ids, _ in plain]
    assert sorted(i for ids, _ in whole for i in ids) == sorted(i for ids, _ in plain for i in ids)
    half = len(whole) // 2
    assert_same(batches_of(config, utterances, Shard(skip=4)), [*whole[4:half], *whole[half + 4 :]])


def test_a_run_over_shards_is_resumed_in_the_middle_of_an_epoch(
    write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_mmsa()
    rows = [Row(split, u) for split, us in prepare(config_of(file)).corpus.splits.items() for u in us]
    store = write_store(tmp_path / "store", rows, shard_bytes=2000)
    assert len(store.manifest.shards) > 3
    optim = {"epochs": 2, "min_steps": 0, "batch_size": 4, "shard_window": 2}
    groups = {"self_training": {"k": 2}, "run": {"seeds": [1], "device": "cpu", "save_every": 1e-6}}
    config = config_of(store.path, optim=optim, **groups)
    run_once(config, tmp_path / "whole")
    steps: list[int] = []

    class Killed(BaseException):
        pass

    def step(self: Any, ids: Any) -> None:
        steps.append(len(ids))
        if len(steps) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("gmsa.training.callbacks.progress.Progress.on_step", step)
        with pytest.raises(Killed):
            run_once(config, tmp_path / "killed")
    run_once(config, tmp_path / "killed")
    assert left(tmp_path / "killed") == left(tmp_path / "whole")
    run_once(config_of(store.path, optim=optim | {"shard_window": 0}, **groups), tmp_path / "other")
    assert left(tmp_path / "other") != left(tmp_path / "whole")


# --- memory ----------------------------------------------------------------------------------------------------------


def many(path: Path, count: int) -> Path:
    g = torch.Generator().manual_seed(0)
    text, audio = torch.randn(50, 3, 6, generator=g), torch.randn(50, 2, 4, generator=g)

    def rows() -> Any:
        for i in range(count):
            features = {"text": text[i % 50, : 1 + i % 3], "audio": audio[i % 50]}
            split = "train" if i < count - 100 else "valid" if i < count - 50 else "test"
            yield Row(split, Utterance(f"v{i // 8}$_${i}", features, i % 11 / 5 - 1, text="so dull"))

    return write_store(path, rows()).path


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stores of 2,000 and 20,000 utterances."""
    folder = tmp_path_factory.mktemp("stores")
    return many(folder / "few", 2_000), many(folder / "many", 20_000)


def held(path: Path, **groups: Any) -> tuple[int, int]:
    """Bytes that Python, NumPy and torch's lists hold in training on a store, and the most of them before."""
    config = config_of(path, **({"data": {"label_ratio": 1.0}} | groups))
    gc.collect()
    tracemalloc.start()
    prepared = prepare(config)
    data = prepared.training_data(prepared.config, 0)
    context, valid = prepared.training_utterances, prepared.splits["valid"]
    task = FineTuning(prepared.config, dict(prepared.corpus.dims), data.labeled, context, valid, torch.device("cpu"))
    batches = load_batches(task, (0, "stage", 1), Shard(), 0, torch.device("cpu"))
    for _ in islice(batches, 3):
        pass
    gc.collect()
    found = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found


@pytest.mark.parametrize(
    ("groups", "kept", "most"),
    [
        ({}, 60, 130),
        pytest.param({"data": {"label_ratio": 0.5}}, 60, 300, marks=pytest.mark.slow),
        pytest.param({"data": {"missing": "eta:0.4"}}, 60, 300, marks=pytest.mark.slow),
        pytest.param({"graph": {"scope": "dialogue"}}, 60, 300, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_memory_hardly_grows_with_the_utterances(
    few_and_many: tuple[Path, Path], groups: Any, kept: int, most: int
) -> None:
    """An utterance in a list took 3,000 bytes."""
    held(few_and_many[0], **groups)  # what is loaded once is no one's
    before, after = (held(path, **groups) for path in few_and_many)
    grown = [(b - a) / 18_000 for a, b in zip(before, after, strict=True)]
    assert grown[0] < kept
    assert grown[1] < most


def test_an_epoch_builds_no_list_of_all(stored: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the utterances of the batches that are read are made."""
    made: list[int] = []
    build = type(stored.utterances())._build
    monkeypatch.setattr(
        type(stored.utterances()), "_build", lambda self, row, *rest: (made.append(row), build(self, row, *rest))[1]
    )
    utterances = stored.split("train")
    labeled = taken(utterances, np.flatnonzero(~np.isnan(utterances.labels)))
    batches = training_batches(labeled_examples(labeled, Target()), config_of(stored.path), 1)
    assert made == []
    batch, _ = next(iter(batches))
    assert len(made) == len(batch.ids) == 8
