"""A run that goes on on another kind of CPU, or with another torch: one line says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gmsa.config import Config, from_dict, to_dict
from gmsa.runs import report as results
from gmsa.runs.environment import other_machine
from gmsa.runs.train import train

HERE = {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "versions": {"torch": torch.__version__}}


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (HERE, None),
        ({}, None),
        ({"versions": None, "cpu_capability": None}, None),
        (HERE | {"cpu_capability": "VSX"}, "trained with CPU VSX, now "),
        (HERE | {"cpu_capability": "\x1b[2J" * 99}, "trained with CPU \\x1b[2J"),
        (HERE | {"versions": {"torch": "2.5.0"}}, "trained with torch 2.5.0, now "),
        ({"cpu_capability": "VSX", "versions": {"torch": "2.5.0"}}, "VSX, now .* and torch 2.5.0, now "),
    ],
)
def test_what_differs(monkeypatch: pytest.MonkeyPatch, before: dict[str, Any], said: str | None) -> None:
    monkeypatch.setattr("gmsa.runs.environment._version", lambda package: torch.__version__)
    found = other_machine(before)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said.replace(".*", "") in found or all(part in found for part in said.split(".*"))
        assert found.startswith("WARNING: ")
        assert found.isprintable()
        assert len(found) < 400


@pytest.fixture
def config(write_mmsa, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    settings = {"data": {"path": str(write_mmsa())}, "model": {"channels": 16, "heads": 2}}
    return from_dict(
        settings | {"optim": {"epochs": 1, "min_steps": 0}, "run": {"seeds": [1], "device": "cpu", "threads": 1}}
    )


def test_a_resumed_run_says_it_and_goes_on(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train(config, "tiny", folder)
    assert json.loads((folder / "environment.json").read_text())["cpu_capability"] == HERE["cpu_capability"]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "VSX")
    capsys.readouterr()
    train(config, "tiny", folder, resume=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert lines == [
        f"WARNING: trained with CPU {HERE['cpu_capability']}, now VSX: equal bits are not promised across these."
    ]


@pytest.mark.slow
def test_torch_says_which_kind_it_takes(config: Config, tmp_path: Path) -> None:
    if HERE["cpu_capability"] == "DEFAULT":
        pytest.skip("this CPU has no other kind to take")
    train(config, "tiny", tmp_path / "run")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "gmsa.train", "--config", str(tmp_path / "tiny.yaml"), "--resume"]
    command += ["--out", str(tmp_path / "run"), "--seeds", "2"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    )
    assert f"WARNING: trained with CPU {HERE['cpu_capability']}, now DEFAULT: equal bits" in ended.stdout
