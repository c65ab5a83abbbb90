"""Several processes train as one does: the same losses, the same scores, one writer, and a clean end when one dies."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.killed_runs import ended, left, run_once, together
from helpers.run_kinds import KINDS

from gmsa.config import Config, from_dict, to_dict
from gmsa.errors import RunError, Terminated
from gmsa.runs import report as results
from gmsa.system import cli
from gmsa.system.distributed import SINGLE_PROCESS, is_main_process


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small run's time."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


@pytest.fixture
def config_of(write_mmsa) -> Callable[..., Config]:
    """A config without dropout, which each process draws for itself; what is hidden is drawn by id, and stays."""

    def make(kind: str, **groups: dict[str, Any]) -> Config:
        settings: dict[str, dict[str, Any]] = {
            "data": {"path": str(write_mmsa()), "name": "tiny", "label_ratio": 0.55},
            "model": {"channels": 16, "heads": 2, "dropout": 0, "input_dropout": 0},
            "optim": {"epochs": 2, "min_steps": 0, "batch_size": 4},
            "run": {"seeds": [1], "device": "cpu"},
        }
        for changes in (KINDS[kind], groups):
            for name, values in changes.items():
                settings[name] = settings.get(name, {}) | values
        return from_dict(settings)

    return make


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "seed-1" / "history.jsonl").read_text().splitlines()]


def predictions(folder: Path) -> tuple[list[list[str]], np.ndarray]:
    rows = list(csv.reader((folder / "seed-1" / "predictions.csv").open()))[1:]
    return [row[:2] for row in rows], np.array([[float(x or "nan") for x in row[2:]] for row in rows])


@pytest.mark.parametrize(
    ("kind", "count"), [("sslmm", 3), *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in KINDS)]
)
def test_several_processes_give_what_one_gives(config_of, tmp_path: Path, kind: str, count: int) -> None:
    # Of 13 labels in fours, the last batch is one utterance: a process without a part of it must not wait for ever.
    still = {"model": {"name": "mtag(keep=0.5, attention_dropout=0)"}} if kind == "mtag" else {}
    config = config_of(kind, optim={"epochs": 1}, **still)
    run_once(config, tmp_path / "one")
    codes = [ended(number) for number in together(count, lambda: run_once(config, tmp_path / "several"))]
    assert codes == [0] * count
    one, several = history(tmp_path / "one"), history(tmp_path / "several")
    assert [row["stage"] for row in one] == [row["stage"] for row in several]
    # Sums are rounded differently: by 1e-7 of a prediction, or by 1e-5 where a ReLU lets a unit pass in one case alone
    # (4 of 12 seeds of sslmm).
    for a, b in zip(one, several, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=1e-4, nan_ok=True)
        assert b["valid"] == pytest.approx(a["valid"], rel=1e-4, abs=1e-4)
    names, values = predictions(tmp_path / "one")
    assert predictions(tmp_path / "several")[0] == names
    np.testing.assert_allclose(predictions(tmp_path / "several")[1], values, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["self-training", "hierarchical"])
def test_processes_draw_dropout_apart_and_repeat_it(config_of, tmp_path: Path, kind: str) -> None:
    config = config_of(kind, model={"dropout": 0.3})
    for name in ("a", "b"):
        assert [ended(n) for n in together(2, lambda name=name: run_once(config, tmp_path / name))] == [0, 0]
    assert left(tmp_path / "a") == left(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["self-training", "hierarchical"])
def test_a_killed_process_ends_the_job_and_it_goes_on(config_of, tmp_path: Path, capfd, kind: str) -> None:
    config = config_of(kind, model={"dropout": 0.3}, optim={"epochs": 3}, run={"save_every": 1e-6})
    assert [ended(n) for n in together(2, lambda: run_once(config, tmp_path / "whole"))] == [0, 0]
    folder = tmp_path / "run"
    first, second = together(2, lambda: cli.run(lambda _: run_once(config, folder), "train"))
    while len(list(folder.glob("seed-1/state-*"))) < 2:
        time.sleep(0.01)
    os.kill(second, signal.SIGKILL)
    assert ended(second) == -signal.SIGKILL
    assert ended(first) == 2
    assert "another process of this job has ended, or cannot be reached (" in capfd.readouterr().err
    assert [ended(n) for n in together(2, lambda: run_once(config, folder))] == [0, 0]
    assert left(folder) == left(tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(config_of, tmp_path: Path) -> None:
    config = config_of("self-training", optim={"epochs": 3})
    folder = tmp_path / "run"
    both = together(2, lambda: cli.run(lambda _: run_once(config, folder), "train"))
    while not list(folder.glob("seed-1/state-*")):
        time.sleep(0.01)
    os.kill(both[1], signal.SIGTERM)
    assert [ended(number) for number in both] == [143, 143]
    assert [ended(n) for n in together(2, lambda: run_once(config, folder))] == [0, 0]
    assert [ended(n) for n in together(2, lambda: run_once(config, tmp_path / "whole"))] == [0, 0]
    assert left(folder) == left(tmp_path / "whole")


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, True),
        ({"RANK": "3"}, True),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
    ],
)
def test_a_rank_without_a_world_is_no_rank(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is first


@pytest.mark.parametrize(
    ("local", "joined", "error", "lines"),
    [
        ("0", False, RunError("x"), 1),
        ("1", False, RunError("x"), 0),
        ("1", True, RunError("x"), 1),
        ("1", False, KeyError("x"), 1),
        ("1", True, Terminated(), 0),
        ("0", True, Terminated(), 1),
    ],
)
def test_what_all_processes_would_say_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys, local: str, joined: bool, error: BaseException, lines: int
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: joined)
    with pytest.raises(SystemExit):
        cli.run(fail, "train")
    assert capsys.readouterr().err.count("\n") == lines


def test_one_process_costs_no_message() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert SINGLE_PROCESS.all_reduce(x) is x
    assert SINGLE_PROCESS.gather(x) == (x, 0)
    assert SINGLE_PROCESS.broadcast(x) is x
    assert SINGLE_PROCESS.all_reduce_numbers([2.0, 0.5]) == [2.0, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["self-training", "hierarchical"])
def test_torchrun(config_of, tmp_path: Path, kind: str) -> None:
    """The command of the README; a killed process ends it, ``--max-restarts`` lets it go on by itself."""
    config = config_of(kind, optim={"epochs": 30}, run={"save_every": 1e-6})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(config)))

    def command(out: str, *options: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
        line += ["-m", "gmsa.train", "--config", "tiny.yaml", "--out", out]
        return subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    whole = command("whole")
    said = whole.communicate()[0]
    assert whole.returncode == 0, said
    assert said.count("2 processes") == said.count("Run folder: whole") == 1
    run = command("run", "--max-restarts", "1")
    while len(list((tmp_path / "run").glob("seed-1/state-*"))) < 2:
        assert run.poll() is None
        time.sleep(0.05)
    record = json.loads((tmp_path / "run" / ".writer.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    said = run.communicate()[0]
    assert run.returncode == 0, said
    assert "which exited without releasing it" in said
    assert left(tmp_path / "run") == left(tmp_path / "whole")
