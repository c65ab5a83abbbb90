"""Several trainings with one folder: one has it, the others say so, and no weights get another's settings."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.small_runs import small

from gmsa.config import Config
from gmsa.errors import RunError
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.resume import choose_folder
from gmsa.runs.train import train
from gmsa.training.checkpoint import list_states
from gmsa.training.trainer import Trainer

training = sys.modules["gmsa.runs.train"]
RATES = (1e-3, 5e-2)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


@pytest.fixture
def with_rate(write_mmsa: Callable[[], Path]) -> Callable[..., Config]:
    """A config with a learning rate, by which the two trainings differ."""

    def make(lr: float, seeds: tuple[int, ...] = (1,)) -> Config:
        optim = {"epochs": 2, "min_steps": 0, "batch_size": 8, "lr": lr}
        return small(write_mmsa, optim=optim, run={"seeds": list(seeds), "device": "cpu"})

    return make


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run, but for those of the lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def held(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Any]) -> None:
    """Lets another training happen while the next one reads its data: after it chose its folder, before its lock."""
    prepare = training.prepare

    def slow(config: Config) -> Any:
        monkeypatch.setattr(training, "prepare", prepare)
        meanwhile()
        return prepare(config)

    monkeypatch.setattr(training, "prepare", slow)


@pytest.mark.parametrize("end", ["finished", "killed", "killed before its config", "killed after its config"])
def test_another_training_takes_the_folder_between_choice_and_lock(
    with_rate: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*arguments: Any, **settings: Any) -> None:
        raise Killed

    def other() -> None:
        with monkeypatch.context() as patch:
            if end == "killed":
                save = Trainer._save
                patch.setattr(Trainer, "_save", lambda self, *a: (save(self, *a), kill()))
            if end == "killed before its config":
                patch.setattr(training, "save_inputs", kill)
            if end == "killed after its config":
                patch.setattr(training, "train_seed", kill)
            if end == "finished":
                train(with_rate(RATES[0]), "tiny", folder)
                return
            with pytest.raises(Killed):
                train(with_rate(RATES[0]), "tiny", folder)

    folder, started = choose_folder(tmp_path / "run", "unused", resume=False)
    assert not started
    if end == "killed before its config":  # it has left nothing that could be taken over
        held(monkeypatch, other)
        train(with_rate(RATES[1]), "tiny", folder)
        assert Run(folder).config.optim.lr == RATES[1]
        return
    before: dict[str, str] = {}
    held(monkeypatch, lambda: (other(), before.update(contents(folder))))
    with pytest.raises(RunError, match=r"another training has taken '.*run' meanwhile; give another --out, or add"):
        train(with_rate(RATES[1]), "tiny", folder)
    assert contents(folder) == before
    assert yaml.safe_load((folder / "config.yaml").read_text())["optim"]["lr"] == RATES[0]


def test_another_resumption_adds_a_seed_between_choice_and_lock(
    with_rate: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train(with_rate(RATES[0]), "tiny", folder)
    held(monkeypatch, lambda: train(with_rate(RATES[0], (1, 2)), "tiny", folder, resume=True))
    with pytest.raises(RunError, match=r"another training has changed '.*run' meanwhile; run the same command again"):
        train(with_rate(RATES[0], (1, 3)), "tiny", folder, resume=True)
    assert Run(folder).seeds == (1, 2)
    train(with_rate(RATES[0], (1, 3)), "tiny", folder, resume=True)
    assert Run(folder).seeds == (1, 2, 3)


def test_trainings_at_once_leave_the_folder_of_one(
    with_rate: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 8
    fork = multiprocessing.get_context("fork")  # they share the imports: eight interpreters would need two GB
    ready, said = fork.Barrier(count), fork.Queue()
    # Made before: it writes the data file, which the others would read at the time.
    configs = {rate: with_rate(rate) for rate in (1e-3 * (1 + i) for i in range(count))}
    prepare = training.prepare

    def together(config: Config) -> Any:
        found = prepare(config)
        ready.wait(120)  # all have chosen the folder, and read their data; now they reach for the lock
        return found

    def start(rate: float) -> None:
        try:
            folder, started = choose_folder(tmp_path / "run", "unused", resume=False)
            train(configs[rate], "tiny", folder, started)
            said.put((rate, "trained"))
        except RunError as error:
            said.put((rate, str(error)))
        except BaseException:
            said.put((rate, traceback.format_exc()))

    monkeypatch.setattr(training, "prepare", together)
    processes = [fork.Process(target=start, args=(rate,)) for rate in configs]
    for process in processes:
        process.start()
    answers = dict(said.get(timeout=300) for _ in processes)
    for process in processes:
        process.join(120)
    trained = [rate for rate, answer in answers.items() if answer == "trained"]
    assert len(trained) == 1
    others = [answer for answer in answers.values() if answer != "trained"]
    assert len(others) == count - 1
    assert all("another training has taken" in line or "is being written by" in line for line in others), others
    # The folder is the one's: equal to a folder that nobody else reached for.
    monkeypatch.setattr(training, "prepare", prepare)
    alone = tmp_path / "alone"
    train(configs[trained[0]], "run", alone)
    for part in ("config.yaml", "seed-1/model.safetensors", "seed-1/predictions.csv", "normalizer.safetensors"):
        assert (tmp_path / "run" / part).read_bytes() == (alone / part).read_bytes(), part


# --- settings go with the weights -------------------------------------------------------------------------------------


def with_settings(folder: Path, **changes: Any) -> None:
    """Changes settings of a run's ``config.yaml`` by ``group__key``."""
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    for name, value in changes.items():
        group, key = name.split("__")
        settings[group][key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def test_weights_under_other_settings_are_refused(
    with_rate: Callable[..., Config], write_mmsa: Callable[[], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(with_rate(RATES[0]), "tiny", folder)
    answers = Run(folder).predict(write_mmsa())
    with_settings(folder, optim__lr=RATES[1])
    message = r"model.safetensors' was trained with other settings than .* \(optim.lr was 0.001, is 0.05\)"
    for use in (lambda: Run(folder).predict(write_mmsa()), Run(folder).evaluate):
        with pytest.raises(RunError, match=message):
            use()
    with pytest.raises(RunError, match=r"trained with other settings than its config.yaml .*optim.lr was 0.001, is"):
        train(with_rate(RATES[1]), "tiny", folder, resume=True)
    # Where something lies, and how a run is carried out, may change.
    with_settings(folder, optim__lr=RATES[0], run__threads=2, run__workers=1, data__path="elsewhere.pkl")
    assert (Run(folder).predict(write_mmsa()).values == answers.values).all()


def test_weights_and_states_of_another_seed_are_refused(
    with_rate: Callable[..., Config], write_mmsa: Callable[[], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(with_rate(RATES[0], (1, 2)), "tiny", folder)
    weights = (folder / "seed-1" / "model.safetensors").read_bytes()
    (folder / "seed-1" / "model.safetensors").write_bytes((folder / "seed-2" / "model.safetensors").read_bytes())
    for use in (lambda: Run(folder).predict(write_mmsa()), Run(folder).evaluate):
        with pytest.raises(RunError, match=r"seed-1/model.safetensors' was trained with other .*run.seed was 2, is 1"):
            use()
    (folder / "seed-1" / "model.safetensors").write_bytes(weights)
    shutil.rmtree(folder / "seed-2")
    shutil.copytree(folder / "seed-1", folder / "seed-2")
    with pytest.raises(RunError, match=r"run/seed-2' was trained with other settings .*run.seed was 1, is 2"):
        train(with_rate(RATES[0], (1, 2)), "tiny", folder, resume=True)


def test_runs_of_earlier_versions_are_read(
    with_rate: Callable[..., Config], write_mmsa: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their weights and states say nothing of settings, or know others."""
    folder = tmp_path / "run"
    for known in ({}, {"optim.lr": RATES[0], "optim.of_another_version": 3}):
        with monkeypatch.context() as patch:
            patch.setattr("gmsa.training.trainer.trained_settings", lambda config, seed, known=known: known)
            patch.setattr(training, "trained_settings", lambda config, seed, known=known: known or None)
            train(with_rate(RATES[0]), "tiny", folder / str(len(known)))
        assert len(Run(folder / str(len(known))).predict(write_mmsa())) == 48
        train(with_rate(RATES[0], (1, 2)), "tiny", folder / str(len(known)), resume=True)


def test_a_state_holds_the_settings(with_rate: Callable[..., Config], tmp_path: Path) -> None:
    import torch

    train(with_rate(RATES[1]), "tiny", tmp_path / "run")
    _, path = list_states(tmp_path / "run" / "seed-1")[-1]
    settings = torch.load(path, weights_only=True)["settings"]
    assert settings["optim.lr"] == RATES[1]
    assert "data.path" not in settings
    assert settings["run.seed"] == 1
    assert {key for key in settings if key.startswith("run.")} == {"run.select", "run.seed"}
    json.dumps(settings, allow_nan=False)
