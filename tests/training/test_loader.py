"""Worker processes that are killed, stopped, too many, or fail: one error, and none of them is left."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killed_runs import ended, forked, left, run_once
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from gmsa.config import Config, from_dict
from gmsa.errors import DataError, RunError
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.system import cli
from gmsa.training import loader
from gmsa.training.batches import Shard
from gmsa.training.callbacks import Callback
from gmsa.training.prefetch import prefetch

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")


@dataclass
class Numbers:
    """A task whose batches are tensors of one number each."""

    count: int = 1000
    wrong: int = -1
    """Which of them cannot be built."""

    def batches(self, *key: Any, shard: Shard) -> Iterator[torch.Tensor]:
        for number in range(shard.offset, self.count, shard.every):
            if number == self.wrong:
                raise DataError(f"'x.pkl': utterance {number} is wrong; repair it")
            yield torch.tensor([number])


@pytest.fixture(autouse=True)
def _none_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No worker is left; and torch looks after the workers ten times a second, not once in five seconds."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    yield
    assert not multiprocessing.active_children()


def load(task: Numbers, **settings: Any) -> Iterator[Any]:
    return loader.BatchLoader(task, 2, torch.device("cpu"), **settings).epoch("key", shard=Shard())


def test_a_killed_worker_is_one_error() -> None:
    batches = load(Numbers())
    assert next(batches).tolist() == [0]
    multiprocessing.active_children()[0].kill()
    with pytest.raises(RunError) as caught:
        list(batches)
    assert str(caught.value) == (
        "a worker that builds batches was killed by SIGKILL, as where memory runs out; what was saved is kept: go on "
        "with --resume, with fewer than 2 'run.workers' or more memory"
    )


@dataclass
class Keys:
    """A task whose batches are what it is asked for, and the process that builds them."""

    def batches(self, *key: Any, shard: Shard) -> Iterator[tuple[Any, ...]]:
        for number in range(shard.skip + shard.offset, 5, shard.every):
            yield number, key, (shard.rank, shard.world), os.getpid()


def test_workers_live_from_epoch_to_epoch() -> None:
    with loader.BatchLoader(Keys(), 2, torch.device("cpu")) as batches:
        pids = set()
        for epoch, shard in ((1, Shard(3)), (2, Shard()), (2**62, Shard(1, rank=1, world=2))):
            found = list(batches.epoch(7, "stage", epoch, shard=shard))
            assert [number for number, *_ in found] == list(range(shard.skip, 5))
            assert {tuple(key) for _, key, *_ in found} == {(7, "stage", epoch)}
            assert {place for *_, place, _ in found} == {(shard.rank, shard.world)}
            pids |= {pid for *_, pid in found}
        assert len(pids) == 2
        (*_, other), *_ = batches.epoch(7, "another stage", 1, shard=Shard())
        assert other not in pids
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("workers", "read"), [(0, 4), (2, 1)])
def test_batches_that_workers_build_are_not_waited_for_in_a_row(
    workers: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def counted(batches: Iterator[Any], *given: Any) -> Iterator[Any]:
        return prefetch((taken.append(batch) or batch for batch in batches), *given)

    monkeypatch.setattr(loader, "prefetch", counted)
    with loader.BatchLoader(Keys(), workers, torch.device("cpu")) as batches:
        epoch = batches.epoch(1, shard=Shard())
        next(epoch)
        assert len(taken) == read
        assert len([*epoch]) == 4
        assert len(taken) == 5


def test_an_epoch_that_is_not_read_to_its_end_ends_the_workers() -> None:
    with loader.BatchLoader(Keys(), 2, torch.device("cpu")) as batches:
        epoch = batches.epoch(1, shard=Shard())
        next(epoch)
        epoch.close()
        assert not multiprocessing.active_children()
        assert len(list(batches.epoch(2, shard=Shard()))) == 5


def test_a_worker_killed_between_epochs_is_one_error() -> None:
    with loader.BatchLoader(Keys(), 2, torch.device("cpu")) as batches:
        list(batches.epoch(1, shard=Shard()))
        multiprocessing.active_children()[0].kill()
        with pytest.raises(RunError, match="was killed by SIGKILL"):
            list(batches.epoch(2, shard=Shard()))


def test_an_error_in_a_worker_is_the_error_itself() -> None:
    with pytest.raises(DataError) as caught:
        list(load(Numbers(wrong=5)))
    assert str(caught.value) == "'x.pkl': utterance 5 is wrong; repair it"


def test_a_stopped_worker_is_not_waited_for_after_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_PATIENCE", 0.1)
    batches = load(Numbers(), stopping=lambda: True)
    assert next(batches).tolist() == [0]
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)
    assert len(list(batches)) < 999


def test_closing_ends_a_stopped_worker() -> None:
    batches = load(Numbers())
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)
    batches.close()


def test_too_many_open_files_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(count: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(loader, "_try_to_open", refuse)
    with pytest.raises(
        RunError, match=r"^too many files are open for 2 workers \(this process may open \d+\); raise the"
    ):
        next(load(Numbers()))


def test_batches_travel_unchanged() -> None:
    x = torch.randn(4, 6)
    kinds = [x, x.half(), x.bfloat16(), x.double(), x.long(), x > 0, x.to(torch.complex64), x[:0], torch.tensor(1.5)]
    sent = {
        "kinds": kinds,
        "again": x,
        "rows": x[:, 1:3],
        "turned": x.T,
        "parameter": torch.nn.Parameter(x),
        "none": None,
    }
    got = loader.pickle.loads(loader._packed(sent))
    for a, b in itertools.chain(zip(kinds, got["kinds"], strict=True), ((sent[k], got[k]) for k in ("rows", "turned"))):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert torch.equal(a, b)
    assert got["again"] is got["kinds"][0]
    assert type(got["parameter"]) is torch.nn.Parameter
    assert got["none"] is None
    got["again"][0] = 0  # it can be written


# --- whole trainings -------------------------------------------------------------------------------------------------


@pytest.fixture
def config_of(write_mmsa, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Config]:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    settings = {
        "data": {"path": str(write_mmsa()), "name": "tiny"},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 3, "min_steps": 0, "batch_size": 2},
        "protocol": {"name": "supervised"},
    }
    return lambda save_every: from_dict(
        settings | {"run": {"seeds": [1], "device": "cpu", "workers": 2, "save_every": save_every}}
    )


class ToAWorker(Callback):
    """Does something to a worker after some steps."""

    def __init__(self, act: Callable[[int], object], after: int = 15) -> None:
        self.act, self.left = act, after

    def on_step(self, ids: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.act(multiprocessing.active_children()[0].pid)


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [1e-6, 300.0])
def test_a_run_goes_on_after_a_killed_worker(config_of, tmp_path: Path, save_every: float) -> None:
    config, folder = config_of(save_every), tmp_path / "run"
    run_once(config, tmp_path / "whole")
    with pytest.raises(RunError, match="was killed by SIGKILL"):
        train(config, "tiny", folder, callbacks=[ToAWorker(lambda pid: os.kill(pid, signal.SIGKILL))])
    run_once(config, folder)
    assert left(folder) == left(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_obeyed_while_a_worker_is_stopped(config_of, tmp_path: Path, number: int, code: int) -> None:
    config, folder, pids = config_of(300.0), tmp_path / "run", tmp_path / "pid"
    run_once(config, tmp_path / "whole")

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        pids.write_text(str(pid))

    child = forked(lambda: cli.run(lambda _: train(config, "tiny", folder, callbacks=[ToAWorker(stop)]), "train"))
    while not pids.exists() or not pids.read_text():
        time.sleep(0.01)
    time.sleep(2)  # training waits for its batch
    os.kill(child, number)
    assert ended(child) == code
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.read_text()), 0)
    run_once(config, folder)
    assert left(folder) == left(tmp_path / "whole")
