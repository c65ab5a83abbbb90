"""Protocols: what they refuse, how many stages they have, and one that a user writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.small_runs import small

from gmsa.config import Config, from_dict
from gmsa.errors import ConfigError, RunError
from gmsa.registry import PROTOCOLS
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.training.protocols import Protocol, TrainingData, build_protocol, check_protocol
from gmsa.training.trainer import Trainer
from gmsa.tuning.sampling import make_pruner


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


class EasyFirst(Protocol):
    """Trains on utterances with a clear label first."""

    def __init__(self, least: float = 2.0) -> None:
        self.least = least

    def stages(self, config: Config) -> int:
        return 2

    def check(self, config: Config) -> None:
        if config.data.label_ratio < 1:
            raise ConfigError("'easy_first' needs all labels; set 'data.label_ratio' to 1")

    def __call__(self, trainer: Trainer, data: TrainingData):  # type: ignore[no-untyped-def]
        easy = [example for example in data.labeled if abs(example.value) >= self.least]
        return trainer.train_stage("all", data.labeled, start=trainer.train_stage(f"easy_{len(easy)}", easy))


@pytest.fixture
def easy_first() -> Iterator[None]:
    PROTOCOLS.register("easy_first", EasyFirst)
    yield
    del PROTOCOLS._parts["easy_first"]


def test_a_users_protocol_trains_with_its_parameters(write_mmsa, tmp_path: Path, easy_first: None) -> None:
    config = small(write_mmsa, protocol={"name": "easy_first(least=2.5)"}, run={"seeds": [1], "device": "cpu"})
    summary = train(config, "tiny", tmp_path / "run")
    # 24 labels in turns of -2.8, -2, -1, 0, 1, 2, 2.8: three full turns and -2.8, -2, -1.
    assert list(summary["stages"]) == ["easy_7", "all"]
    assert summary["protocol"] == "easy_first(least=2.5)"
    rows = [json.loads(line) for line in (tmp_path / "run" / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["easy_7"] * 2 + ["all"] * 2
    assert Run(tmp_path / "run").chosen_seeds() == (1,)


def test_a_users_protocol_refuses_before_training(write_mmsa, tmp_path: Path, easy_first: None) -> None:
    config = small(write_mmsa, protocol={"name": "easy_first"}, data={"label_ratio": 0.5})
    with pytest.raises(ConfigError, match="'easy_first' needs all labels"):
        train(config, "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_hyperband_asks_the_protocol_for_its_stages(easy_first: None) -> None:
    most = {
        "supervised": 10,
        "self_training": 30,
        "distillation": 50,
        "soup(members=4)": 40,
        "sslmm": 10,
        "easy_first": 20,
    }
    for name, epochs in most.items():
        groups = {"self_training": {"rounds": 2}, "distillation": {"teachers": 4}, "run": {"seeds": [1]}}
        config = from_dict({"protocol": {"name": name}, "optim": {"epochs": 10}, **groups})
        assert make_pruner("hyperband", config)._max_resource == epochs  # type: ignore[attr-defined]


def test_parameters_and_classes_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Needy(Protocol):
        def __init__(self, share: float) -> None: ...

    def function(trainer: Trainer, data: TrainingData) -> None: ...

    monkeypatch.setitem(PROTOCOLS._parts, "needy", Needy)
    monkeypatch.setitem(PROTOCOLS._parts, "function", function)
    for name, message in (
        ("needy", r"'protocol.name': 'needy' needs 'share', as needy\(share=...\)"),
        ("function", "'function' is not a class derived from gmsa.training.protocols.Protocol"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_protocol(from_dict({"protocol": {"name": name}}))
    with pytest.raises(ConfigError, match="'supervised' has no parameter 'share'"):
        build_protocol(from_dict({"protocol": {"name": "supervised(share=1)"}}))


def test_reading_a_config_does_not_import_the_protocols() -> None:
    code = (
        "import sys; from gmsa.config import from_dict; from_dict({'protocol': {'name': 'pretrain'}});"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_a_run_that_predicts_is_scored(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, protocol={"name": "pretrain"}, pretrain={"epochs": 1}, run={"seeds": [1]})
    train(config, "tiny", tmp_path / "run")
    with pytest.raises(RunError, match="pre-trained weights, which predict nothing"):
        Run(tmp_path / "run").chosen_seeds()
