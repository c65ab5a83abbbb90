"""Callbacks: when they are called, what they may do, the progress bar, and the three that log elsewhere."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from helpers.small_runs import small
from rich.console import Console

from gmsa.config import from_dict
from gmsa.errors import ConfigError, RunError
from gmsa.registry import CALLBACKS
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.training.callbacks import Callback, CallbackList, RunInfo, build_callbacks
from gmsa.training.callbacks.progress import Progress


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


class Diary(Callback):
    """Notes what it is told."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, run: RunInfo) -> None:
        self.events.append(("start", run.name, run.folder))

    def on_stage_start(self, stage: str, seed: int, utterances: int) -> None:
        self.events.append(("stage", stage, seed, utterances))

    def on_step(self, ids: Sequence[str]) -> None:
        self.events.append(("step", len(ids)))

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        torch.rand(7)  # what dropout draws from is seeded again for the next epoch
        self.events.append(("epoch", row["epoch"], epochs, dict(row)))

    def on_message(self, line: str) -> None:
        self.events.append(("message", line))

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        self.events.append(("end", summary))


def one_seed(write_mmsa: Callable, *callbacks: str, **groups: dict[str, Any]):
    run = {"seeds": [1], "device": "cpu", "callbacks": list(callbacks)}
    return small(write_mmsa, data={"label_ratio": 0.5}, run=run, **groups)


def weights(folder: Path) -> bytes:
    return (folder / "seed-1" / "model.safetensors").read_bytes()


def test_a_callback_is_told_everything_and_changes_nothing(write_mmsa, tmp_path: Path) -> None:
    config, diary = one_seed(write_mmsa), Diary()
    summary = train(config, "tiny", tmp_path / "with", callbacks=[diary])
    train(config, "tiny", tmp_path / "without")
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    events = diary.events
    assert events[0] == ("start", "tiny", tmp_path / "with")
    assert events[-1] == ("end", summary)
    assert [e[1:3] for e in events if e[0] == "stage"] == [("supervised", 1), ("self_training_1", 1)]
    assert [e[1:3] for e in events if e[0] == "epoch"] == [(1, 2), (2, 2)] * 2
    first = [e[0] for e in events].index("stage")
    steps = [e for e in events[first : [e[0] for e in events].index("stage", first + 1)] if e[0] == "step"]
    assert sum(size for _, size in steps) == events[first][3] == 24  # 12 labeled utterances in two epochs
    history = (tmp_path / "with" / "seed-1" / "history.jsonl").read_text().splitlines()
    assert [e[3] for e in events if e[0] == "epoch"] == [json.loads(line) for line in history]
    assert any("12 labeled, 12 in the pool" in e[1] for e in events if e[0] == "message")


def test_a_config_names_a_users_callback(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Diary] = []

    class Noted(Diary):
        def __init__(self, label: str = "") -> None:
            super().__init__(label)
            made.append(self)

    monkeypatch.setitem(CALLBACKS._parts, "noted", Noted)
    train(one_seed(write_mmsa, "noted(label=mine)", "noted"), "tiny", tmp_path / "run")
    assert [diary.label for diary in made] == ["mine", ""]
    assert made[0].events == made[1].events
    with pytest.raises(ConfigError, match="'noted' has no parameter 'labl'"):
        build_callbacks(from_dict({"run": {"callbacks": ["noted(labl=mine)"]}}))


class Failing(Callback):
    """Raises an error at some event."""

    def __init__(self, event: str, error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        setattr(self, event, fail)


@pytest.mark.parametrize("event", ["on_start", "on_stage_start", "on_step", "on_epoch_end", "on_message", "on_end"])
def test_an_error_names_the_callback(write_mmsa, tmp_path: Path, event: str) -> None:
    diary = Diary()
    message = rf"the callback Failing failed in {event} \(ZeroDivisionError: by zero\); repair it, or leave it out"
    with pytest.raises(RunError, match=message):
        train(one_seed(write_mmsa), "tiny", tmp_path, callbacks=[diary, Failing(event, ZeroDivisionError("by\nzero"))])
    assert diary.events[-1][0] == "end"
    assert (diary.events[-1][1] is None) == (event != "on_end")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), optuna.TrialPruned(), RunError("full")])
def test_what_a_callback_may_end_a_run_with(write_mmsa, tmp_path: Path, error: BaseException, capsys) -> None:
    broken = Failing("on_end", ValueError("broken"))
    with pytest.raises(type(error)) as caught:
        train(one_seed(write_mmsa), "tiny", tmp_path, callbacks=[Failing("on_epoch_end", error), broken])
    assert caught.value is error
    assert "WARNING: the callback Failing failed in on_end (ValueError: broken)" in capsys.readouterr().out


# --- progress --------------------------------------------------------------------------------------------------------


def show(progress: Progress) -> None:
    progress.on_start(RunInfo("tiny", Path("x"), from_dict({})))
    progress.on_stage_start("self_training_1", 1111, 60 * 1284)
    progress.on_step(["a"] * 51360)
    row = {"seed": 1111, "stage": "self_training_1", "epoch": 40, "loss": 0.12345, "seconds": 12.34, "best": True}
    progress.on_epoch_end(row | {"valid": {"MAE": 0.71234, "Corr": 0.6, "Has0_acc_2": 0.8}}, 60)
    progress.on_epoch_end(row | {"stage": "pretrain", "valid": {"loss": 2, "mask": 1}, "best": False}, 60)


LINES = (
    "seed 1111 self_training_1 epoch 40/60: loss 0.123, MAE 0.712, Corr 0.600, 12s *",
    "seed 1111 pretrain epoch 40/60: loss 0.123, valid loss 2.000, 12s",
)


def test_a_terminal_of_80_columns_shows_a_bar_and_keeps_a_line_per_epoch() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, color_system=None, highlight=False, soft_wrap=True)
    progress = Progress(console)
    show(progress)
    assert progress._bar is not None
    with Console(file=io.StringIO(), width=80, record=True) as shown:
        shown.print(progress._bar.get_renderable())
    bar = shown.export_text().rstrip("\n")
    assert "\n" not in bar  # in one line
    assert len(bar) <= 80
    assert "seed 1111 self_training_1" in bar
    assert "51360/77040" in bar
    assert "━━━━" in bar
    progress.on_end(None)
    for line in LINES:
        assert len(line) <= 80
        assert line in text.getvalue()


def test_plain_lines_elsewhere(capsys) -> None:
    progress = Progress()
    show(progress)
    progress.on_end({})
    assert capsys.readouterr().out.splitlines() == list(LINES)


# --- those that log elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_said_before_training(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConfigError, match=rf"'run.callbacks': '{name}' needs .*; in the clone: pip install '\.\[{name}\]'"
    ):
        train(one_seed(write_mmsa, name), "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard(write_mmsa, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(one_seed(write_mmsa, "tensorboard"), "tiny", tmp_path / "run")
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "seed-1"))
    found.Reload()
    check_curves(tmp_path / "run", lambda key: {event.step: event.value for event in found.Scalars(key)})


def check_curves(run: Path, curve: Callable[[str], dict[int, float]], prefix: str = "") -> None:
    """Checks the curves of a run against its history."""
    rows = [json.loads(line) for line in (run / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        place = f"{prefix}{row['stage']}"
        assert curve(f"{place}/loss")[row["epoch"]] == pytest.approx(row["loss"])
        assert curve(f"{place}/valid/MAE")[row["epoch"]] == pytest.approx(row["valid"]["MAE"])


class FakeWandb(ModuleType):
    """What of wandb's module is used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[SimpleNamespace] = []

    def init(self, **settings: Any) -> SimpleNamespace:
        logged: list[dict[str, float]] = []
        run = SimpleNamespace(settings=settings, logged=logged, log=logged.append, summary={}, code=None)
        run.finish = lambda exit_code: setattr(run, "code", exit_code)
        self.runs.append(run)
        return run


def test_wandb(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = one_seed(write_mmsa, "wandb(project=mine)")
    with pytest.raises(KeyboardInterrupt):
        train(config, "tiny", tmp_path / "run", callbacks=[Failing("on_epoch_end", KeyboardInterrupt())])
    summary = train(config, "tiny", tmp_path / "run", resume=True)
    first, second = fake.runs
    assert first.settings == second.settings  # the same run's id too
    assert {k: first.settings[k] for k in ("project", "name", "mode", "resume", "dir")} == {
        "project": "mine",
        "name": "tiny",
        "mode": "offline",
        "resume": None,
        "dir": str(tmp_path / "run"),
    }
    assert first.settings["config"]["optim"]["epochs"] == 2
    assert (first.code, second.code) == (1, 0)
    assert first.summary == {}
    assert second.summary["test/MAE"] == summary["test"]["MAE"]["mean"]
    logged = {(key, row["seed-1/supervised/epoch"]) for row in first.logged for key in row}
    assert ("seed-1/supervised/valid/MAE", 1) in logged
    train(one_seed(write_mmsa, "wandb(online=true)"), "tiny", tmp_path / "online")
    assert (fake.runs[-1].settings["mode"], fake.runs[-1].settings["resume"]) == ("online", "allow")
    assert fake.runs[-1].settings["id"] != first.settings["id"]


class FakeMlflow(ModuleType):
    """What of mlflow's module is used."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.clients: list[Any] = []
        self.MlflowClient = self.client

    def client(self, uri: str) -> Any:
        calls: list[tuple[Any, ...]] = []
        client = SimpleNamespace(uri=uri, calls=calls, get_experiment_by_name=lambda name: None)
        client.create_experiment = lambda *a: calls.append(("experiment", *a)) or "7"
        client.create_run = lambda *a, **k: (
            calls.append(("run", *a, k)) or SimpleNamespace(info=SimpleNamespace(run_id="abc"))
        )
        client.log_batch = lambda run, params=(), metrics=(): calls.append(("batch", run, params, metrics))
        client.set_terminated = lambda run, status: calls.append(("state", run, status))
        self.clients.append(client)
        return client


def test_mlflow(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, entities = FakeMlflow(), ModuleType("mlflow.entities")
    entities.Metric = entities.Param = lambda *a: a  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, run = one_seed(write_mmsa, "mlflow(experiment=mine)"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, "tiny", run, callbacks=[Failing("on_epoch_end", KeyboardInterrupt())])
    summary = train(config, "tiny", run, resume=True)
    first, second = fake.clients
    assert first.uri == f"sqlite:///{run / 'mlflow' / 'mlflow.db'}"
    assert first.calls[:2] == [
        ("experiment", "mine", (run / "mlflow" / "artifacts").as_uri()),
        ("run", "7", {"run_name": "tiny"}),
    ]
    assert "run" not in [call[0] for call in second.calls]  # it goes on with the first
    assert [call for call in first.calls + second.calls if call[0] == "state"] == [
        ("state", "abc", state) for state in ("RUNNING", "FAILED", "RUNNING", "FINISHED")
    ]
    settings = {key: value for call in first.calls if call[0] == "batch" for key, value in call[2]}
    assert settings["optim.epochs"] == "2"
    assert all(len(call[2]) <= 100 for call in first.calls if call[0] == "batch")
    values = {(key, step): value for call in second.calls if call[0] == "batch" for key, value, _, step in call[3]}
    assert values["test/MAE", 0] == summary["test"]["MAE"]["mean"]
    assert ("seed-1/supervised/valid/MAE", 1) in {(m[0], m[3]) for c in first.calls if c[0] == "batch" for m in c[3]}


@pytest.mark.slow  # mlflow alone takes seconds to import
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow")
def test_the_real_mlflow(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    for resume in (False, True):
        train(one_seed(write_mmsa, "mlflow"), "tiny", run, resume=resume)
    client = MlflowClient(f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("gmsa").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["optim.epochs"] == "2"
    history = client.get_metric_history
    check_curves(run, lambda key: {m.step: m.value for m in history(found.info.run_id, key)}, "seed-1/")


@pytest.mark.slow  # it starts a service of its own
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_the_real_wandb(write_mmsa, tmp_path: Path) -> None:
    train(one_seed(write_mmsa, "wandb"), "tiny", tmp_path / "run")
    number = (tmp_path / "run" / "wandb" / "run-id").read_text()
    (folder,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{number}")
    assert list(folder.glob("*.wandb"))


def test_a_list_calls_all_in_turn() -> None:
    one, two = Diary(), Diary()
    CallbackList([one, two]).on_message("hello")
    assert one.events == two.events == [("message", "hello")]
