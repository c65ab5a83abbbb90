"""Equal bits: run after run, however many processes build the batches."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.killed_runs import left, run_once
from helpers.run_kinds import KINDS
from torch import Tensor

from gmsa import registry
from gmsa.config import Config, from_dict
from gmsa.data import Target, Utterance
from gmsa.runs import report as results
from gmsa.system.device import set_up
from gmsa.training.batches import Shard
from gmsa.training.examples import labeled_examples
from gmsa.training.loader import load_batches
from gmsa.training.tasks import FineTuning


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small run's time."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


def learning(config: Config, utterances: list[Utterance]) -> FineTuning:
    dims = {"text": 6, "audio": 4, "vision": 5}
    return FineTuning(config, dims, labeled_examples(utterances, Target()), (), utterances, torch.device("cpu"))


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("sslmm", (0, 2)),
        *(pytest.param(kind, (0, 2, 4, 0, 2), marks=pytest.mark.slow) for kind in ("sslmm", "self-training")),
    ],
)
def test_runs_are_byte_identical_with_any_workers(
    write_mmsa, tmp_path: Path, kind: str, workers: tuple[int, ...]
) -> None:
    def config(workers: int) -> Config:
        settings = dict(KINDS[kind])
        settings["data"] = {"path": str(write_mmsa()), "name": "tiny", "label_ratio": 0.5} | KINDS[kind].get("data", {})
        settings["model"] = {"channels": 16, "heads": 2} | KINDS[kind].get("model", {})
        settings["optim"] = {"epochs": 1, "min_steps": 0, "batch_size": 8}
        settings["run"] = {"seeds": [1], "device": "cpu", "workers": workers, "deterministic": workers == 2}
        return from_dict(settings)

    for number, count in enumerate(workers):
        run_once(config(count), tmp_path / str(number))
    assert "seed-1/predictions.csv" in left(tmp_path / "0")
    for number in range(1, len(workers)):
        assert left(tmp_path / str(number)) == left(tmp_path / "0")


@pytest.mark.parametrize(
    ("workers", "behind"),
    [
        pytest.param(workers, behind, marks=[pytest.mark.slow] * ((workers, behind) not in ((1, 0), (2, 4), (3, 1))))
        for workers in (1, 2, 3)
        for behind in (0, 1, 4)
    ],
)
def test_workers_give_the_same_batches_in_the_same_order(make_utterance: Callable, workers: int, behind: int) -> None:
    config = from_dict({"optim": {"batch_size": 3}, "model": {"channels": 8, "heads": 2}})
    utterances = [make_utterance(f"v$_${i}", (1 + i % 5, 2, 3)) for i in range(20)]
    task = learning(config, utterances)
    key, cpu = (1, "stage", 1), torch.device("cpu")
    found = [list(load_batches(task, key, Shard(behind), count, cpu)) for count in (0, workers)]
    assert len(found[0]) == len(found[1]) == task.per_epoch - behind
    for (batch, targets), (other, others) in zip(*found, strict=True):
        assert batch.ids == other.ids
        for modality in batch.features:
            assert torch.equal(batch.features[modality], other.features[modality])
        assert torch.equal(targets.classes, others.classes)


def test_workers_leave_the_random_state_of_training_alone(make_utterance: Callable) -> None:
    config = from_dict({"optim": {"batch_size": 3}, "model": {"channels": 8, "heads": 2}})
    utterances = [make_utterance(f"v$_${i}", (2, 2, 3)) for i in range(6)]
    task = learning(config, utterances)
    before = torch.get_rng_state()
    assert len(list(load_batches(task, (1,), Shard(), 2, torch.device("cpu")))) == 2
    assert torch.equal(torch.get_rng_state(), before)


class Lookup:
    """A task whose one batch says whether a plug-in's part is known where it is built."""

    def batches(self, *key: str, shard: Shard) -> Iterator[Tensor]:
        yield torch.tensor("of_a_plugin" in registry.CALLBACKS._parts)


@pytest.mark.slow
def test_spawned_workers_load_the_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from gmsa.registry import CALLBACKS\nCALLBACKS.register('of_a_plugin', print)\n"
    (tmp_path / "plugin_for_spawned_workers.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    monkeypatch.setattr(registry.CALLBACKS, "_parts", dict(registry.CALLBACKS._parts))
    registry.load_plugins(["plugin_for_spawned_workers"], tmp_path)
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        (known,) = load_batches(Lookup(), (1,), Shard(), 1, torch.device("cpu"))
    finally:
        multiprocessing.set_start_method(method, force=True)
    assert known


def test_deterministic_is_set_and_taken_back() -> None:
    for wanted in (True, False):
        set_up(from_dict({"run": {"deterministic": wanted, "device": "cpu"}}).run)
        assert torch.are_deterministic_algorithms_enabled() == wanted


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["self-training", "sslmm"])
def test_two_runs_on_cuda_are_byte_identical(write_mmsa, tmp_path: Path, kind: str) -> None:
    settings = dict(KINDS[kind])
    settings["data"] = {"path": str(write_mmsa()), "name": "tiny", "label_ratio": 0.5} | KINDS[kind].get("data", {})
    settings["optim"] = {"epochs": 2, "min_steps": 0, "batch_size": 4}
    for name, workers in (("a", 0), ("b", 0), ("c", 2)):
        settings["run"] = {"seeds": [1], "device": "cuda", "deterministic": True, "workers": workers}
        run_once(from_dict(settings), tmp_path / name)
    assert left(tmp_path / "a") == left(tmp_path / "b") == left(tmp_path / "c")
