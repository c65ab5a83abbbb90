"""Distillation: what the student learns, with a pool and without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import left, run_once
from helpers.small_runs import small

from gmsa.config import Config
from gmsa.models.build import build_model
from gmsa.registry import PROTOCOLS
from gmsa.runs import report as results
from gmsa.runs.prepare import prepare
from gmsa.runs.train import make_trainer, train
from gmsa.training.callbacks import Callback
from gmsa.training.callbacks.progress import Progress
from gmsa.training.checkpoint import load_weights
from gmsa.training.examples import Example
from gmsa.training.protocols import Distillation, Protocol, TrainingData
from gmsa.training.scoring import predict_utterances
from gmsa.training.trainer import Trainer

DISTILLED: dict[str, dict[str, Any]] = {
    "protocol": {"name": "distillation"},
    "distillation": {"teachers": 2},
    "run": {"seeds": [1]},
}
Make = Callable[..., Path]
STAGES = ["supervised", "teacher_2", "student"]


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


def to_moods(content: dict[str, Any]) -> None:
    for columns in content.values():
        columns["regression_labels"] = np.sign(columns["regression_labels"]) + 1


TARGETS: dict[str, dict[str, dict[str, Any]]] = {
    "intensity": {},
    "another range": {"target": {"range": [-6, 6], "metrics": "intensity"}},
    "classes": {"target": {"kind": "classes"}},
}


def learned(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Trainer, dict[str, list[Example]]]:
    """A trainer after the protocol, and the examples of each stage."""
    prepared = prepare(config)
    trainer = make_trainer(prepared.config, prepared, 1, None, folder, torch.device("cpu"), Callback())
    folder.mkdir()
    stages: dict[str, list[Example]] = {}
    train_stage = Trainer.train_stage

    def recorded(self: Trainer, stage: str, examples: Sequence[Example], *arguments: Any) -> Any:
        stages[stage] = list(examples)
        return train_stage(self, stage, examples, *arguments)

    monkeypatch.setattr(Trainer, "train_stage", recorded)
    Distillation()(trainer, prepared.training_data(prepared.config, 1))
    return trainer, stages


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("scope", ["utterance", pytest.param("dialogue", marks=pytest.mark.slow)])
def test_all_labels_and_what_the_teachers_predict_of_made_utterances(
    write_mmsa: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, scope: str
) -> None:
    """The teachers' weights are read from disk, and asked one by one, without the cache."""
    path = write_mmsa(change=to_moods if target == "classes" else None)
    config = small(lambda: path, graph={"scope": scope}, **DISTILLED, **TARGETS[target])
    trainer, stages = learned(config, tmp_path / "run", monkeypatch)
    assert list(stages) == STAGES
    labeled, student = stages["supervised"], stages["student"]
    assert [e.utterance.id for e in student] == [
        *(e.utterance.id for e in labeled),
        *(f"made:{e.utterance.id}" for e in labeled),
    ]
    assert student[: len(labeled)] == labeled
    made = student[len(labeled) :]
    assert all(e.utterance.label is None and not e.pseudo for e in made)
    teachers = []
    for stage in STAGES[:2]:
        model = build_model(trainer.dims, trainer.config)
        model.load_state_dict(load_weights(tmp_path / "run" / f"{stage}.safetensors"))
        utterances = [e.utterance for e in made]
        teachers.append(predict_utterances(model, utterances, trainer.config, trainer.device, trainer.context))
    probabilities = sum(t.probabilities for t in teachers) / 2
    np.testing.assert_allclose(
        torch.stack([e.classes for e in made if e.classes is not None]), probabilities, atol=1e-6
    )
    if target == "classes":
        assert all(np.isnan(e.value) for e in made)
    else:
        scale = {"intensity": 1.0, "another range": 2.0}[target]  # of the file to the model's
        values = sum(t.value for t in teachers if t.value is not None) / 2 / scale
        np.testing.assert_allclose([e.value for e in made], values, atol=1e-6)


def test_it_says_what_the_student_learns_from(
    write_mmsa: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = train(small(write_mmsa, **DISTILLED), "tiny", tmp_path / "run")
    assert list(summary["stages"]) == STAGES
    said = " ".join(capsys.readouterr().out.split())
    assert "the student learns from 24 utterances that are made of parts of the labeled ones" in said
    # One model predicts: that of the student.
    student, final = (
        load_weights(tmp_path / "run" / "seed-1" / f"{name}.safetensors") for name in ("student", "model")
    )
    assert all(torch.equal(student[name], final[name]) for name in final)


class WithPool(Protocol):
    """Distillation from a pool as it was before there was any without."""

    def stages(self, config: Config) -> int:
        return 1 + config.distillation.teachers

    def __call__(self, trainer: Trainer, data: TrainingData) -> Any:
        models = [trainer.train_stage("supervised", data.labeled)]
        models += [trainer.train_stage("teacher_2", data.labeled)]
        teachers = [trainer.cached_predictions(f"pool_{i}", model, data.pool) for i, model in enumerate(models, 1)]
        soft = [
            Example(
                utterance,
                float(np.mean([t.value[i] for t in teachers if t.value is not None], dtype=np.float32)),
                torch.from_numpy(np.mean([t.probabilities[i] for t in teachers], axis=0)),
            )
            for i, utterance in enumerate(data.pool)
        ]
        return trainer.train_stage("student", [*data.labeled, *soft])


def test_with_a_pool_nothing_is_made(write_mmsa: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = {"data": {"label_ratio": 0.5}, **DISTILLED}
    train(small(write_mmsa, **half), "tiny", tmp_path / "now")
    monkeypatch.setitem(PROTOCOLS._parts, "distillation", WithPool)
    train(small(write_mmsa, **half), "tiny", tmp_path / "before")
    assert left(tmp_path / "now") == left(tmp_path / "before")


@pytest.mark.slow
def test_it_goes_on_to_the_same_bits(write_mmsa: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in its second teacher, before anything is made, and twice in the student."""
    config = small(write_mmsa, **DISTILLED | {"run": {"seeds": [1], "save_every": 1e-6}})
    run_once(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    for step in (8, 8, 4):  # of 6 for each teacher and 12 for the student
        steps = iter(range(1, step + 1))

        def on_step(self: Any, ids: Any, steps: Any = steps, step: int = step) -> None:
            if next(steps) == step:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Progress, "on_step", on_step)
            with pytest.raises(Killed):
                run_once(config, tmp_path / "killed")
    assert (tmp_path / "killed" / "seed-1" / "pool_2.safetensors").exists()
    assert not (tmp_path / "killed" / "seed-1" / "student.safetensors").exists()
    run_once(config, tmp_path / "killed")
    assert left(tmp_path / "killed") == left(tmp_path / "whole")
