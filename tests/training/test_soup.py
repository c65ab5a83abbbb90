"""The protocol ``soup``: what it mixes, what a run of it leaves, and that it goes on to the same bits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import left, run_once
from helpers.small_runs import small
from torch import nn

from gmsa.ablation.cells import Cell, train_cell
from gmsa.ablation.variants import Variant
from gmsa.config import Config
from gmsa.errors import ConfigError
from gmsa.evaluate import main as evaluate
from gmsa.registry import PROTOCOLS
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.training.callbacks.progress import Progress
from gmsa.training.checkpoint import load_weights
from gmsa.training.protocols import Supervised, build_protocol, mixed
from gmsa.training.trainer import Trainer

MEMBERS = ("supervised", "member_2", "member_3")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_run", "finish_report"):
        monkeypatch.setattr(results, name, lambda *a: None)


@pytest.fixture
def config_of(write_mmsa: Callable[..., Path]) -> Callable[..., Config]:
    def make(name: str = "soup", **groups: dict[str, Any]) -> Config:
        run = {"seeds": [1], "device": "cpu", "save_every": 1e-6}
        return small(write_mmsa, **{"protocol": {"name": name}, "run": run, **groups})

    return make


def weights_of(folder: Path, stage: str) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in load_weights(folder / "seed-1" / f"{stage}.safetensors").items()}


def test_the_mean_is_of_each_weight_and_changes_no_member() -> None:
    models = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(3)]
    for i, model in enumerate(models):
        model(torch.randn(4, 3))
        for _ in range(i):
            model(torch.randn(4, 3))
    before = copy.deepcopy([model.state_dict() for model in models])
    soup = mixed(models).state_dict()
    for name, weight in soup.items():
        assert weight.dtype == before[0][name].dtype
        each = np.stack([state[name].numpy() for state in before])
        wanted = each[0] if name.endswith("num_batches_tracked") else each.astype(np.float64).mean(0)
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-7)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(model.state_dict()[name], weight) for name, weight in state.items())


def test_a_run_keeps_the_mean_of_its_members_and_scores_it(config_of, tmp_path: Path, capsys: Any) -> None:
    summary = train(config_of(), "tiny", tmp_path)
    assert tuple(summary["stages"]) == (*MEMBERS, "soup")
    members = [weights_of(tmp_path, stage) for stage in MEMBERS]
    soup = weights_of(tmp_path, "soup")
    for name, weight in soup.items():
        np.testing.assert_allclose(weight, np.mean([m[name] for m in members], 0), rtol=1e-6, atol=1e-9)
        assert not np.array_equal(members[0][name], members[1][name])
    final = weights_of(tmp_path, "model")
    assert all(np.array_equal(final[name], soup[name]) for name in soup)
    assert summary["test"] == summary["stages"]["soup"]["test"]
    *_, last = [json.loads(line) for line in (tmp_path / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert (last["stage"], last["epoch"], last["best"]) == ("soup", 1, True)
    assert last["valid"]["MAE"] == pytest.approx(summary["valid"]["MAE"]["mean"])
    capsys.readouterr()
    evaluate(["--run", str(tmp_path)])
    assert f"{last['valid']['MAE']:.4f}" in capsys.readouterr().out


def test_the_first_member_is_what_supervised_learning_gives(config_of, tmp_path: Path) -> None:
    train(config_of(), "tiny", tmp_path / "soup")
    train(config_of("supervised"), "tiny", tmp_path / "plain")
    ours, theirs = weights_of(tmp_path / "soup", "supervised"), weights_of(tmp_path / "plain", "model")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_members_begin_alike_and_are_trained_apart(config_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, dict[str, torch.Tensor]] = {}
    whole = Trainer._train

    def watched(self: Trainer, stage: str, task: Any, model: nn.Module, best_file: Path) -> Any:
        begun[stage] = copy.deepcopy(model.state_dict())
        return whole(self, stage, task, model, best_file)

    monkeypatch.setattr(Trainer, "_train", watched)
    train(config_of("soup(members=2)", pretrain={"epochs": 1}), "tiny", tmp_path / "soup")
    first, second = begun["supervised"], begun["member_2"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    train(config_of("distillation", distillation={"teachers": 2}), "tiny", tmp_path / "teachers")
    first, other = begun["supervised"], begun["teacher_2"]
    assert not all(torch.equal(first[name], other[name]) for name in first)


def check_goes_on(config: Config, folder: Path, patch: pytest.MonkeyPatch, kind: type, name: str, lost: Any) -> None:
    """A run that is interrupted where a method of that name is ends with the bits of one that is not."""
    train(config, "tiny", folder / "whole")
    with patch.context() as context:
        context.setattr(kind, name, lost)
        with pytest.raises(KeyboardInterrupt):
            train(config, "tiny", folder / "resumed")
    run_once(config, folder / "resumed")
    assert left(folder / "resumed") == left(folder / "whole")


@pytest.mark.parametrize("lost", [2, 4, 6])
def test_an_interrupted_run_ends_with_the_same_bits(
    config_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """It is interrupted after so many epochs of six, in the end before the members are mixed."""
    epochs = 0

    def on_epoch_end(self: Progress, row: Any, of: int) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == lost:
            raise KeyboardInterrupt

    check_goes_on(config_of(), tmp_path, monkeypatch, Progress, "on_epoch_end", on_epoch_end)


def test_a_run_lost_while_it_writes_the_soup_ends_with_the_same_bits(
    config_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer._save

    def save(self: Trainer, *given: Any) -> None:
        if self.finished[-1:] == ["soup"]:
            raise KeyboardInterrupt
        whole(self, *given)

    check_goes_on(config_of(), tmp_path, monkeypatch, Trainer, "_save", save)


@pytest.mark.parametrize("members", [-1, 0, 1])
def test_less_than_two_members_are_refused_before_training(config_of, tmp_path: Path, members: int) -> None:
    with pytest.raises(ConfigError, match=rf"a soup of {members} models mixes nothing; set 'protocol.name: soup\("):
        train(config_of(f"soup(members={members})"), "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["1.5", "many", "true"])
def test_members_that_are_no_number_are_refused(config_of, tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="members"):
        train(config_of(f"soup(members={given})"), "tiny", tmp_path / "run")


def test_a_line_of_a_stage_without_training_has_no_loss(config_of, tmp_path: Path, capsys: Any) -> None:
    train(config_of("soup(members=2)"), "tiny", tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("seed 1 soup")]
    assert len(lines) == 1
    assert lines[0].startswith("seed 1 soup epoch 1/1: MAE ")


def test_what_is_not_trained_counts_as_no_epoch(config_of, tmp_path: Path) -> None:
    """Seconds per epoch of an ablation are those of the members' epochs."""
    config = config_of("soup(members=2)", optim={"epochs": 2})
    record = train_cell(Cell(Variant("soup", config, ()), 1, tmp_path / "run"))
    assert record["epochs"] == 4
    assert record["seconds_per_epoch"] == pytest.approx(
        sum(row["seconds"] for row in Run(tmp_path / "run").history if row["stage"] != "soup") / 4
    )


def test_a_soup_is_a_protocol_as_others_are(config_of) -> None:
    assert "soup" in PROTOCOLS
    assert build_protocol(config_of("soup(members=5)")).stages(config_of()) == 5
    assert Supervised().stages(config_of()) == 1
