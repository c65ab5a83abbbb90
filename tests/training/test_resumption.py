"""Killed, stopped, short of disk, damaged: every run ends as if nothing had happened, or says what did."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killed_runs import ended, forked, killed_until_done, left, run_once
from helpers.run_kinds import KINDS, OF_CONVERSATIONS

from gmsa.config import Config, from_dict
from gmsa.errors import RunError, WriteError
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.system import cli, files, lock
from gmsa.training.callbacks.progress import Progress
from gmsa.training.checkpoint import load_state, load_weights, save_state, save_weights


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small run's time."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


@pytest.fixture
def config_of(write_mmsa) -> Callable[..., Config]:
    """A config that trains in a second on a small file, and saves after every step."""

    def make(kind: str = "self-training", **groups: dict[str, Any]) -> Config:
        settings: dict[str, dict[str, Any]] = {
            "data": {"path": str(write_mmsa()), "name": "tiny", "label_ratio": 0.5},
            "model": {"channels": 16, "heads": 2},
            "optim": {"epochs": 2, "min_steps": 0, "batch_size": 8},
            "run": {"seeds": [1], "device": "cpu", "save_every": 1e-6},
        }
        for changes in ((KINDS | OF_CONVERSATIONS)[kind], groups):
            for name, values in changes.items():
                settings[name] = settings.get(name, {}) | values
        return from_dict(settings)

    return make


# --- killed ----------------------------------------------------------------------------------------------------------


def check_kills(config: Config, folder: Path, kills: int, seed: int = 0) -> None:
    began = time.perf_counter()
    assert ended(forked(lambda: run_once(config, folder / "whole"))) == 0
    seconds = time.perf_counter() - began
    done, inside = killed_until_done(config, folder / "killed", kills, seed, seconds)
    assert (done, inside) == (kills, kills // 4)
    assert left(folder / "killed") == left(folder / "whole")
    assert left(folder / "whole")
    assert not [p for p in (folder / "killed").rglob("*") if p.suffix == ".tmp"]


@pytest.mark.parametrize(
    ("kind", "kills"), [("self-training", 4), pytest.param("hierarchical", 4, marks=pytest.mark.slow)]
)
def test_runs_killed_at_random_moments_end_bitwise_the_same(config_of, tmp_path: Path, kind: str, kills: int) -> None:
    check_kills(config_of(kind, optim={"epochs": 1}), tmp_path, kills)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"), [*((k, seed) for k in KINDS for seed in range(1, 6)), *((k, 1) for k in OF_CONVERSATIONS)]
)
def test_300_kills(config_of, tmp_path: Path, kind: str, seed: int) -> None:
    check_kills(config_of(kind), tmp_path, 20, seed)


GPU = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("kind", ["self-training", pytest.param("hierarchical", marks=pytest.mark.slow)])
def test_a_run_goes_on_in_the_middle_of_an_epoch(
    config_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, kind: str
) -> None:
    config = config_of(kind, run={"device": device, "deterministic": device == "cuda"}, optim={"epochs": 1})
    run_once(config, tmp_path / "whole")
    steps: list[int] = []

    class Killed(BaseException):
        pass

    def step(self: Any, ids: Any) -> None:
        steps.append(1)
        if len(steps) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_step", step)
        with pytest.raises(Killed):
            run_once(config, tmp_path / "killed")
        patch.setattr(Progress, "on_step", lambda self, ids: steps.append(1))
        run_once(config, tmp_path / "killed")
    # Each epoch has several batches: the second step alone was done twice.
    rows = [json.loads(line) for line in (tmp_path / "whole" / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert len(rows) == (3 if kind == "self-training" else 2)
    monkeypatch.setattr(Progress, "on_step", lambda self, ids: steps.append(-1))
    run_once(config, tmp_path / "again")
    assert sum(steps) == 1
    assert left(tmp_path / "killed") == left(tmp_path / "whole")


# --- asked to stop ---------------------------------------------------------------------------------------------------


def test_a_signal_saves_once_and_ends(config_of, tmp_path: Path) -> None:
    config = config_of(run={"save_every": 300.0, "workers": 1}, self_training={"rounds": 1})
    alone = replace(config, run=replace(config.run, workers=0))  # the same bits, without the start of a process
    run_once(alone, tmp_path / "whole")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        folder = tmp_path / str(code)
        child = forked(lambda folder=folder: (os.setpgrp(), cli.run(lambda _: run_once(config, folder), "train")))
        while not list(folder.glob("seed-1/state-*")):
            time.sleep(0.01)
        os.killpg(child, number)  # as terminals and clusters do: the workers hear it too
        assert ended(child) == code
        assert "seed-1/model.safetensors" not in left(folder)
        assert not (folder / lock.RECORD).exists()
        run_once(alone, folder)
        assert left(folder) == left(tmp_path / "whole")


# --- one writer ------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_writes(config_of, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    child = forked(lambda: _hold(folder))
    while not (folder / "held").exists():
        time.sleep(0.01)
    with pytest.raises(RunError, match=rf"run' is being written by process {child} on '.*' \(since .*\); wait for it"):
        train(config_of(), "tiny", folder)
    os.kill(child, signal.SIGKILL)
    ended(child)
    assert (folder / lock.RECORD).exists()
    with lock.only_writer(folder) as before:
        assert before is not None
        assert before.startswith(f"process {child} on ")
    with lock.only_writer(folder) as before:
        assert before is None


def _hold(folder: Path) -> None:
    with lock.only_writer(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_a_writer_on_another_host_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / lock.RECORD).write_text(json.dumps({"host": "elsewhere", "pid": 7, "boot": "", "since": "1999"}))
    with pytest.raises(RunError, match=r"process 7 on 'elsewhere' .* if that has ended, delete '.*\.writer\.json'"):
        lock.only_writer(tmp_path).__enter__()
    (tmp_path / lock.RECORD).write_text("{")
    with lock.only_writer(tmp_path) as before:
        assert before is None
        assert json.loads((tmp_path / lock.RECORD).read_text())["host"] == socket.gethostname()


def test_leftovers_of_killed_writers_are_cleaned_up(config_of, tmp_path: Path) -> None:
    config = config_of()
    run_once(config, tmp_path / "run")
    leftovers = [tmp_path / "run" / n for n in (f".config.yaml.{'0' * 16}.tmp", f"seed-1/.x.pt.{'a' * 16}.tmp")]
    for path in leftovers:
        path.touch()
    (tmp_path / "run" / ".mine.tmp").touch()
    run_once(config, tmp_path / "run")
    assert not any(path.exists() for path in leftovers)
    assert (tmp_path / "run" / ".mine.tmp").exists()


# --- no room ---------------------------------------------------------------------------------------------------------

STEPS = ("open", "write", "fsync", "replace", "fsync of the folder")


class Failing:
    """Lets the n-th step of the atomic writes of a run fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> None:
        self.at, self.number, self.count = at, number, 0
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(files, "open", self._open, raising=False)
        monkeypatch.setattr(os, "fsync", lambda handle: (self.step(), fsync(handle)))
        monkeypatch.setattr(os, "replace", lambda a, b: (self.step(), replace(a, b)))

    def step(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise OSError(self.number, os.strerror(self.number))

    def _open(self, path: Path, mode: str) -> Any:
        if mode != "xb":
            return open(path, mode)
        self.step()
        file = open(path, mode)  # noqa: SIM115
        outer, write = self, file.write

        class Writer:
            def write(self, data: bytes) -> None:
                outer.step() if outer.count + 1 != outer.at else (write(bytes(data)[: len(data) // 2]), outer.step())
                write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

        return Writer()


def steps_of_a_run(config: Config, folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        counting = Failing(patch, 0, 0)
        run_once(config, folder)
    return counting.count


def check_failure(config: Config, folder: Path, at: int, number: int, whole: dict[str, bytes]) -> None:
    """The ``at``-th step fails: a typed error, nothing half written, and the same end when there is room again."""
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch, at, number)
        with pytest.raises(
            WriteError, match=rf"cannot write '.*': {os.strerror(number)}; free disk space or repair the disk"
        ):
            run_once(config, folder)
    assert not list(folder.rglob("*.tmp"))
    warnings: list[str] = []
    load_state(folder / "seed-1", lambda state: None, warnings.append)
    assert not warnings
    run_once(config, folder)
    assert left(folder) == whole
    shutil.rmtree(folder)


@pytest.fixture
def short(config_of) -> Config:
    return config_of(optim={"epochs": 1, "batch_size": 16}, self_training={"rounds": 1}, run={"save_every": 300.0})


def test_a_full_or_broken_disk_loses_nothing(short: Config, tmp_path: Path) -> None:
    count = steps_of_a_run(short, tmp_path / "whole")
    assert count > 80
    whole, rng = left(tmp_path / "whole"), random.Random(0)
    for number in (errno.ENOSPC, errno.EIO):
        for at in rng.sample(range(1, count + 1), 2):
            check_failure(short, tmp_path / "run", at, number, whole)


@pytest.mark.slow
def test_every_step_of_every_write_may_fail(short: Config, tmp_path: Path) -> None:
    count = steps_of_a_run(short, tmp_path / "whole")
    whole = left(tmp_path / "whole")
    for at in range(1, count + 1):
        for number in (errno.ENOSPC, errno.EIO):
            check_failure(short, tmp_path / "run", at, number, whole)


# --- damaged ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def states(tmp_path: Path) -> Path:
    """A folder with two training states."""
    for number in (1, 2):
        weights = torch.randn(7, 5, generator=torch.Generator().manual_seed(number))
        state = {"history": [], "finished": [], "start": "", "pending": {"epoch": number, "weights": weights}}
        save_state(tmp_path, state)
    return tmp_path


def check_damage(folder: Path, damages: list[Callable[[bytes], bytes]]) -> None:
    """Each damage of the last state is refused by name, and the one before is used."""
    first, last = sorted(folder.glob("state-*"))
    content = last.read_bytes()
    for damage in damages:
        last.write_bytes(damage(content))
        said: list[str] = []
        state = load_state(folder, lambda state: None, said.append)
        assert state is not None
        assert state["pending"]["epoch"] == 1
        assert said == [
            f"WARNING: '{last}' is damaged (its SHA-256 is not the one in its name); "
            "resuming from 'state-000001', the one before."
        ]
        last.with_name(f"damaged-{last.name}").unlink()
    assert first.exists()


def flips(seed: int, count: int) -> list[Callable[[bytes], bytes]]:
    def flip(place: float, bit: int) -> Callable[[bytes], bytes]:
        def act(content: bytes) -> bytes:
            at = int(place * len(content))
            return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]

        return act

    rng = random.Random(seed)
    return [flip(rng.random(), rng.randrange(8)) for _ in range(count)]


CUTS: list[Callable[[bytes], bytes]] = [
    lambda content, share=share: content[: len(content) * share // 100] for share in range(100)
]


def test_damaged_states_are_refused_and_the_one_before_is_used(states: Path) -> None:
    check_damage(states, [*flips(0, 400), *CUTS])


@pytest.mark.slow
def test_10000_flipped_bits(states: Path) -> None:
    check_damage(states, flips(1, 10_000))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = {"a": torch.randn(9, 4), "b": torch.arange(3), "c": torch.zeros(0, 2)}
    save_weights(path, weights)
    content = path.read_bytes()
    assert {name: x.tolist() for name, x in load_weights(path).items()} == {n: x.tolist() for n, x in weights.items()}
    for damage in (*flips(2, 1000), *CUTS):
        path.write_bytes(damage(content))
        with pytest.raises(RunError, match="is damaged"):
            load_weights(path)


def test_the_last_two_states_are_kept(tmp_path: Path) -> None:
    for number in range(1, 6):
        save_state(tmp_path, {"history": [], "finished": [], "start": "", "pending": {"epoch": number}})
    assert [path.name[:12] for path in sorted(tmp_path.iterdir())] == ["state-000004", "state-000005"]


@pytest.mark.parametrize("patience", [0, 1])
def test_a_finished_run_keeps_its_best_weights_and_no_optimizer(config_of, tmp_path: Path, patience: int) -> None:
    groups: dict[str, Any] = {"optim": {"epochs": 6, "patience": patience, "lr": 0.05}} if patience else {}
    run_once(config_of("self-training", self_training={"rounds": 1}, **groups), tmp_path)
    before, last = (torch.load(path, weights_only=True) for path in sorted((tmp_path / "seed-1").glob("state-*")))
    assert last["pending"] == {}
    assert before["pending"]["state"] == {}
    weights = load_weights(tmp_path / "seed-1" / "model.safetensors")
    assert before["pending"]["progress"]["weights"].keys() == weights.keys()
    assert all(torch.equal(x, weights[name]) for name, x in before["pending"]["progress"]["weights"].items())
    if patience:  # else it would show nothing
        assert before["pending"]["progress"]["epoch"] <= 6


def test_a_stage_that_is_not_over_needs_its_optimizer(config_of, tmp_path: Path) -> None:
    config = config_of("self-training", self_training={"rounds": 1})
    run_once(config, tmp_path)
    before, last = sorted((tmp_path / "seed-1").glob("state-*"))
    state = torch.load(before, weights_only=True)
    last.unlink()
    state["pending"]["progress"] |= {"epoch": 2, "best_epoch": 1}
    save_state(tmp_path / "seed-1", state)
    with pytest.raises(RunError, match="is not of the stage 'self_training_1'"):
        run_once(config, tmp_path)


def test_weights_of_a_finished_stage_that_are_damaged_are_trained_again(config_of, tmp_path: Path, capsys) -> None:
    config = config_of()
    run_once(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    (tmp_path / "run" / "seed-1" / "self_training_2.safetensors").write_bytes(b"")
    run_once(config, tmp_path / "run")
    assert "self_training_2.safetensors' is damaged" in capsys.readouterr().out
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    (tmp_path / "run" / "seed-1" / "supervised.safetensors").unlink()  # both states need it
    with pytest.raises(RunError, match=r"supervised.safetensors' does not exist; .*delete '.*seed-1' to train"):
        run_once(config, tmp_path / "run")


def test_pool_predictions_that_are_damaged_are_made_again(config_of, tmp_path: Path, capsys) -> None:
    config = config_of()
    run_once(config, tmp_path / "run")
    whole = left(tmp_path / "run")
    (tmp_path / "run" / "seed-1" / "pool_2.safetensors").write_bytes(b"nothing")
    run_once(config, tmp_path / "run")
    assert "predicting again" in capsys.readouterr().out
    assert left(tmp_path / "run") == whole


def test_going_on_from_other_weights_is_refused(config_of, tmp_path: Path) -> None:
    start = tmp_path / "start"
    pretraining = {"pretrain": {"epochs": 1}, "protocol": {"name": "pretrain"}}
    run_once(config_of("sslmm", **pretraining), start)
    config = config_of("sslmm", protocol={"init_from": str(start)}, pretrain={"epochs": 0})
    run_once(config, tmp_path / "run")
    shutil.rmtree(start)
    run_once(config_of("sslmm", **pretraining, optim={"lr": 0.01}), start)
    with pytest.raises(RunError, match=r"was started from other weights \('protocol.init_from' holds others now\)"):
        run_once(config, tmp_path / "run")


def test_weights_cannot_be_read_from_a_run_whose_file_is_damaged(config_of, tmp_path: Path) -> None:
    run_once(config_of(), tmp_path / "run")
    path = tmp_path / "run" / "seed-1" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"model.safetensors' is damaged \(its SHA-256 is not the one in its header\)"):
        Run(tmp_path / "run").load_model(1, torch.device("cpu"))
