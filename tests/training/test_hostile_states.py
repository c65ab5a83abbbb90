"""Training states under a true SHA-256 with wrong content: the one before is used, or a line says why not."""

from __future__ import annotations

import copy
import hashlib
import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.counts import Recorder, tell
from helpers.small_runs import small
from torch import Tensor

from gmsa.config import Config
from gmsa.errors import RunError
from gmsa.rng import seed_for
from gmsa.runs import report, train
from gmsa.runs.prepare import Prepared, prepare
from gmsa.runs.train import make_trainer, train_seed
from gmsa.training import checkpoint
from gmsa.training import trainer as loop
from gmsa.training.callbacks import Callback

COUNT = 300
SAMPLE = 15
"""In the plain suite."""


def endless(levels: int = 60) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found, found]
    return found


VALUES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: -1,
    lambda: 10**30,
    lambda: float("nan"),
    lambda: float("-inf"),
    lambda: True,
    lambda: "x",
    lambda: "../../x",
    lambda: "\x1b[2J" * 1000,
    list,
    dict,
    lambda: [[[]]],
    endless,
    lambda: {3: endless()},
    lambda: torch.zeros(3),
    lambda: torch.zeros(2, 2, dtype=torch.complex64),
    lambda: torch.zeros(()),
    lambda: torch.zeros(1).expand(10**9),
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.zeros(3, device="meta"),
]
TENSORS: list[Callable[[Tensor], Any]] = [
    lambda x: x.double(),
    lambda x: x.to(torch.float8_e4m3fn),
    lambda x: x.bool(),
    lambda x: x[None],
    lambda x: x.flatten()[:0],
    lambda x: torch.full_like(x, 255 if x.dtype == torch.uint8 else float("nan")),
    lambda x: -x - 1,
    lambda x: x.tolist(),
]


def change(state: Any, rng: random.Random) -> str:
    """Changes a random part of a state; returns what."""
    parent, key, path = None, None, ""
    while isinstance(state, (dict, list)) and state and (parent is None or rng.random() < 0.9):
        key = rng.choice(list(state)) if isinstance(state, dict) else rng.randrange(len(state))
        parent, state, path = state, state[key], f"{path}/{key}"
    assert parent is not None
    act = rng.random()
    if act < 0.15:
        del parent[key]
        return f"{path} deleted"
    if act < 0.25 and isinstance(parent, dict):
        parent[rng.choice(["zz", 7, "step", "__class__"])] = parent.pop(key)
        return f"{path} renamed"
    if act < 0.5 and isinstance(state, Tensor):
        number = rng.randrange(len(TENSORS))
        parent[key] = TENSORS[number](state)
        return f"{path} as tensor {number}"
    number = rng.randrange(len(VALUES))
    parent[key] = VALUES[number]()
    return f"{path} as value {number}"


@pytest.fixture
def config(write_mmsa: Callable[..., Path]) -> Config:
    return small(
        write_mmsa,
        data={"label_ratio": 0.5},
        optim={"epochs": 2, "min_steps": 0, "batch_size": 4},
        run={"seeds": [1], "device": "cpu", "save_every": 1e-6},
    )


@pytest.fixture
def states(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Path]]:
    """The folder of a seed, and its states from early to late, in the middle of an epoch and between them."""
    monkeypatch.setattr(report, "draw_run", lambda *_: None)
    kept: list[Path] = []
    save = loop.save_state

    def keep(folder: Path, state: dict[str, Any]) -> None:
        save(folder, state)
        path = max(folder.glob("state-*.pt"))
        kept.append(Path(shutil.copy(path, tmp_path / f"kept-{path.name}")))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", keep)
        train(config, "tiny", tmp_path / "run")
    return tmp_path / "run" / "seed-1", kept


class Said(Callback):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, message: str) -> None:
        self.messages.append(message)


def lay(folder: Path, before: Path, state: Any) -> Path:
    """Puts a state into a folder, after an intact one."""
    for path in folder.glob("*state-*"):
        path.unlink()
    shutil.copy(before, folder / before.name.removeprefix("kept-"))
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getvalue()
    path = folder / f"state-900000.{hashlib.sha256(content).hexdigest()}.pt"
    path.write_bytes(content)
    return path


def check_states(
    config: Config, prepared: Prepared, folder: Path, kept: list[Path], count: int, trained: int
) -> tuple[int, int]:
    """Resumes from states with a random change; returns how many counted as damaged, and how many were taken.

    Args:
        trained: how many of those that were taken are trained to the end.
    """
    damaged = taken = 0
    whole = [torch.load(path, weights_only=True) for path in kept]
    for number in range(count):
        rng = random.Random(seed_for("state", number))
        place = rng.randrange(1, len(kept))
        state = copy.deepcopy(whole[place])
        what = change(state, rng)
        path, said = lay(folder, kept[place - 1], state), Said()
        try:
            trainer = make_trainer(config, prepared, 1, None, folder, torch.device("cpu"), said)
        except RunError as error:
            line = str(error)
            assert len(line) < 600, (number, what, line)
            assert "was started from other weights" in line or "was trained with other settings" in line, (what, line)
            damaged += 1
            continue
        if said.messages:
            assert trainer.history == whole[place - 1]["history"], what
            assert said.messages[0].startswith(f"WARNING: '{path}' is damaged ("), what
            assert path.with_name(f"damaged-{path.name}").exists()
            damaged += 1
            continue
        taken += 1
        if taken <= trained:
            try:
                train_seed(trainer, prepared.training_data(config, 1))
            except RunError as error:
                if not any(reason in str(error) for reason in ("is not of the stage", "is not finite")):
                    raise
    return damaged, taken


def test_torch_reads_no_state_by_its_older_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    torch.save({}, stream)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked"))
    content = bytes(512) + stream.getvalue()  # an archive still, to zipfile, but a tar file to torch
    (tmp_path / f"state-000001.{hashlib.sha256(content).hexdigest()}.pt").write_bytes(content)
    with pytest.raises(RunError, match="it is no archive"):
        checkpoint.load_state(tmp_path, lambda state: None, pytest.fail)


def test_states_with_wrong_content(config: Config, states: tuple[Path, list[Path]]) -> None:
    damaged, taken = check_states(config, prepare(config), *states, SAMPLE, trained=2)
    assert damaged > SAMPLE // 2
    assert taken


@pytest.mark.slow
def test_300_states_with_wrong_content(
    config: Config, states: tuple[Path, list[Path]], record_property: Recorder
) -> None:
    damaged, taken = check_states(config, prepare(config), *states, COUNT, trained=COUNT)
    tell(record_property, "states with a true hash and wrong content", damaged, taken)
