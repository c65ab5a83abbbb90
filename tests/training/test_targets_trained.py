"""Targets through training: classes, intensities on any range, class weights, labels of single modalities."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import left, run_once
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from gmsa.config import Config, from_dict
from gmsa.data import Target, Utterance
from gmsa.data.notes import collected
from gmsa.models import Output
from gmsa.runs import report as results
from gmsa.runs.prepare import prepare
from gmsa.runs.train import train
from gmsa.system.distributed import Group
from gmsa.training import trainer as loop
from gmsa.training.batches import training_batches
from gmsa.training.callbacks.progress import Progress
from gmsa.training.examples import Example, Targets, class_weights, collate_targets, labeled_examples
from gmsa.training.losses import consistency, loss, unimodal_loss
from gmsa.training.pseudo_labels import hard_examples, most_confident, soft_examples
from gmsa.training.scoring import Predictions, predictions_csv
from gmsa.training.tasks import FineTuning

MOODS = Target("classes", classes=("bad", "so-so", "good"), metrics="classes")
MOOD_SETTINGS = {"kind": "classes", "field": "regression_labels", "classes": ["bad", "so-so", "good"]}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small run's time."""
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


def to_moods(content: dict[str, Any]) -> None:
    """Makes classes of the labels of a file: their signs."""
    for columns in content.values():
        columns["regression_labels"] = np.sign(columns["regression_labels"]) + 1


def to_stars(content: dict[str, Any]) -> None:
    """Makes labels in [1, 5] of those of a file."""
    for columns in content.values():
        columns["regression_labels"] = 3 + columns["regression_labels"] * 2 / 3


def small(path: Path, **groups: dict[str, Any]) -> Config:
    settings: dict[str, dict[str, Any]] = {
        "data": {"path": str(path), "name": "tiny", "label_ratio": 0.75},
        "model": {"channels": 16, "heads": 2, "input_dropout": 0.0},
        "optim": {"epochs": 16, "min_steps": 0, "batch_size": 8, "lr": 0.01, "ema": 0.5},
        "self_training": {"k": 1},
        "distillation": {"teachers": 2},
        "consistency": {"passes": 2},
        "run": {"seeds": [1], "device": "cpu"},
    }
    return from_dict({name: settings.get(name, {}) | groups.get(name, {}) for name in {*settings, *groups}})


# --- the scale of the model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "ends"), [((1, 5), (-2, 2)), ((0, 100), (-3, 3)), ((0, 1), (-1, 1)), ((-9, -5), (-2, 2))]
)
def test_models_predict_an_intensity_near_0_whatever_its_range(bounds, ends) -> None:
    target = Target("intensity", *map(float, bounds), metrics="intensity")
    labels = torch.linspace(*bounds, 7)
    scaled = target.to_model(labels)
    torch.testing.assert_close(scaled[[0, -1]], torch.tensor(ends, dtype=torch.float32))
    torch.testing.assert_close(target.from_model(scaled), labels)
    assert target.to_class(labels).tolist() == [*range(7)]
    (example,) = labeled_examples([Utterance("a", {}, float(bounds[1]))], target)
    assert example.value == pytest.approx(ends[1])
    assert example.classes is not None and int(example.classes.argmax()) == 6  # noqa: PT018


@pytest.mark.parametrize("bound", [1.0, 3.0])
def test_mosi_and_sims_keep_their_scales(bound: float) -> None:
    labels = np.float32([-bound, -0.0, 0.1, bound])
    target = Target("intensity", -bound, bound)
    assert target.to_model(labels).tobytes() == target.from_model(labels).tobytes() == labels.tobytes()


# --- losses ----------------------------------------------------------------------------------------------------------


def batch_of_classes(N: int = 12, K: int = 4) -> tuple[Output, Targets]:
    """Outputs and targets of classes: labels, soft labels, pseudo-labels, and context."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(N, K, generator=g).requires_grad_()
    classes = torch.eye(K)[torch.randint(K, (N,), generator=g)]
    classes[1::4] = torch.rand(N // 4, K, generator=g).softmax(1)
    classes[3::4] = 0
    pseudo = torch.arange(N) % 4 == 2
    return Output(None, logits, None, logits), Targets(torch.full((N,), math.nan), classes, pseudo=pseudo)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.25])])
def test_the_loss_of_classes_equals_a_loop(weights: Tensor | None) -> None:
    output, targets = batch_of_classes()
    known: list[float] = []
    pseudo: list[float] = []
    for i, (row, wanted) in enumerate(
        zip(output.logits.log_softmax(1).tolist(), targets.classes.tolist(), strict=True)
    ):
        if i % 4 < 2:
            w = [1.0] * 4 if weights is None else weights.tolist()
            known.append(-sum(w[c] * wanted[c] * row[c] for c in range(4)))
        elif i % 4 == 2:
            pseudo.append(-sum(wanted[c] * row[c] for c in range(4)))
    expected = np.mean(known) + 0.2 * np.mean(pseudo)
    assert loss(output, targets, 0.6, 0.2, class_weights=weights).item() == pytest.approx(expected, rel=1e-5)
    gradient = torch.autograd.grad(loss(output, targets, 0.6, 0.0, class_weights=weights), output.logits)[0]
    assert gradient[:2].abs().min() > 0
    assert not gradient[2::4].any()
    assert not gradient[3::4].any()


def test_consistency_of_classes_equals_a_loop() -> None:
    g = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(10, 5, generator=g).softmax(1), torch.randn(3, 10, 5, generator=g).softmax(2)
    variances = teacher.numpy().var(axis=0, ddof=1).sum(axis=1)
    terms = [
        np.exp(-variances[i]) * ((student[i].numpy() - teacher[:, i].numpy().mean(axis=0)) ** 2).sum()
        for i in range(10)
        if variances[i] <= np.quantile(variances, 0.6)
    ]
    assert len(terms) == 6
    assert float(consistency(student, teacher, 0.6)) == pytest.approx(np.mean(terms), rel=1e-5)


class Recorded(Group):
    """A group of one, which records its sums, or a member of a larger one, which is told them."""

    def __init__(self, told: list[Tensor] | None = None) -> None:
        super().__init__(0, 1 if told is None else 2)
        object.__setattr__(self, "sums", [] if told is None else told)
        object.__setattr__(self, "asks", told is not None)

    def all_reduce(self, x: Tensor) -> Tensor:
        if self.asks:
            return self.sums.pop(0)
        self.sums.append(x)
        return x


def test_the_losses_of_several_processes_add_up() -> None:
    output, targets = batch_of_classes()
    own = torch.where(torch.arange(12) % 3 == 0, math.nan, targets.classes.argmax(1).float())
    output, targets = Both(output, {"text": output.logits}), targets._replace(unimodal={"text": own})
    weights = torch.tensor([0.5, 2.0, 1.0, 0.25])

    def total(output: Any, targets: Targets, group: Group) -> Tensor:
        return loss(output, targets, 0.6, 0.2, group, weights) + unimodal_loss(output, targets, group)

    whole = Recorded()
    expected = total(output, targets, whole)
    parts = []
    for rows in (slice(0, 5), slice(5, 12), slice(12, 12)):
        logits = output.logits[rows]
        part = Targets(
            targets.value[rows], targets.classes[rows], pseudo=targets.pseudo[rows], unimodal={"text": own[rows]}
        )
        parts.append(total(Both(Output(None, logits, None, logits), {"text": logits}), part, Recorded([*whole.sums])))
    torch.testing.assert_close(sum(parts), expected)


class Both:
    """An output with predictions of single modalities."""

    def __init__(self, output: Output, unimodal: dict[str, Tensor]) -> None:
        self.value, self.logits, self.unimodal = output.value, output.logits, unimodal


# --- class weights ---------------------------------------------------------------------------------------------------


def test_class_weights_are_scikit_learns() -> None:
    labels = [0.0] * 7 + [1.0] * 2 + [2.0] * 11
    examples = labeled_examples([Utterance(str(i), {}, y) for i, y in enumerate(labels)], MOODS)
    pseudo = Example(Utterance("u", {}), classes=torch.eye(3)[1], pseudo=True)
    weights = class_weights([*examples, *[pseudo] * 50], MOODS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert float(weights[torch.tensor(labels).long()].mean()) == pytest.approx(1)


def test_a_class_without_examples_has_weight_1_and_changes_no_other() -> None:
    labels = [0.0] * 3 + [2.0]
    examples = labeled_examples([Utterance(str(i), {}, y) for i, y in enumerate(labels)], MOODS)
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=np.array(labels))
    assert class_weights(examples, MOODS).tolist() == pytest.approx([expected[0], 1, expected[1]])


def test_class_weights_of_an_intensity_are_those_of_its_bins() -> None:
    labels = [-3.0, -2.8, 0.1, 3.0]
    examples = labeled_examples([Utterance(str(i), {}, y) for i, y in enumerate(labels)], Target())
    assert class_weights(examples, Target()).tolist() == pytest.approx([2 / 3, 1, 1, 4 / 3, 1, 1, 4 / 3])


# --- pseudo-labels ---------------------------------------------------------------------------------------------------


def test_pseudo_labels_of_classes() -> None:
    probabilities = np.float32([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.3, 0.1, 0.6], [0.6, 0.2, 0.2]])
    pool = [Utterance(f"u{i}", {}) for i in range(4)]
    found = Predictions([u.id for u in pool], np.full(4, np.nan), None, probabilities, None, MOODS)
    assert found.predicted.tolist() == [2, 0, 2, 0]
    assert most_confident(found, from_dict({"self_training": {"k": 1}}).self_training) == [0, 1]
    first = hard_examples(pool, found, [0, 1])[0]
    assert first.pseudo and math.isnan(first.value)  # noqa: PT018
    assert first.classes is not None and first.classes.tolist() == [0, 0, 1]  # noqa: PT018
    other = replace(found, probabilities=np.float32(np.roll(probabilities, 1, axis=1)))
    for i, example in enumerate(soft_examples(pool, [found, other])):
        assert math.isnan(example.value)
        assert not example.pseudo
        assert example.classes is not None
        np.testing.assert_allclose(example.classes, (probabilities[i] + other.probabilities[i]) / 2)


def test_teachers_of_an_intensity_teach_on_the_models_scale() -> None:
    target = Target("intensity", 0, 100, metrics="intensity")
    teachers = [
        Predictions(["u"], np.float32([np.nan]), np.float32([v]), np.full((1, 7), 1 / 7, np.float32), None, target)
        for v in (50, 100)
    ]
    assert soft_examples([Utterance("u", {})], teachers)[0].value == pytest.approx(1.5)


# --- labels of single modalities -------------------------------------------------------------------------------------


def clip(name: str, label: float | None, own: dict[str, float], text: int = 3, audio: int = 4) -> Utterance:
    features = {"text": torch.ones(text, 2), "audio": torch.ones(audio, 2)}
    return Utterance(name, features, label, own)


def test_labels_of_single_modalities_are_of_what_is_there() -> None:
    stars = Target("intensity", 1, 5, metrics="intensity")
    utterances = [
        clip("a$_$1", 3, {"text": 5, "audio": 1}),
        clip("a$_$2", 3, {"text": 2}),
        clip("a$_$3", 3, {"text": 2, "audio": 4}, audio=0),
        clip("a$_$4", None, {"text": 2, "audio": 4}),  # unlabeled: context, or in the pool
    ]
    examples = [*labeled_examples(utterances[:3], stars), Example(utterances[3])]
    shown = [utterances[0].drop(frozenset({"audio"})), *utterances[1:]]
    found = collate_targets(examples, shown, stars, ["text", "audio"]).unimodal
    nan = math.nan
    torch.testing.assert_close(found["text"], torch.tensor([2.0, -1.0, -1.0, nan]), equal_nan=True)
    torch.testing.assert_close(found["audio"], torch.tensor([nan, nan, nan, nan]), equal_nan=True)
    whole = collate_targets(examples, utterances, stars, ["text", "audio"]).unimodal
    torch.testing.assert_close(whole["audio"], torch.tensor([-2.0, nan, nan, nan]), equal_nan=True)
    assert not collate_targets(examples, utterances, stars).unimodal


@pytest.mark.parametrize("classes", [False, True])
def test_the_loss_of_single_modalities_equals_a_loop(classes: bool) -> None:
    g = torch.Generator().manual_seed(2)
    shape = (6, 3) if classes else (6,)
    predicted = {m: torch.randn(*shape, generator=g).requires_grad_() for m in ("text", "audio", "vision")}
    nan = math.nan
    labels = {"text": torch.tensor([0.0, nan, 2, 1, nan, 1]), "audio": torch.tensor([nan, 1.0, nan, nan, nan, 0])}
    logits = torch.zeros(6, 3)
    output = Both(Output(None, logits, None, logits), predicted)
    targets = Targets(torch.full((6,), nan), torch.zeros(6, 3), unimodal=labels | {"lacking": torch.ones(6)})
    terms = []
    for m, wanted in labels.items():
        for i, y in enumerate(wanted.tolist()):
            if not math.isnan(y):
                row = predicted[m][i].detach()
                terms.append(-row.log_softmax(0)[int(y)].item() if classes else (row.item() - y) ** 2)
    value = unimodal_loss(output, targets)  # type: ignore[arg-type]
    assert value.item() == pytest.approx(np.mean(terms), rel=1e-5)
    value.backward()
    for m, wanted in labels.items():
        gradient = predicted[m].grad
        assert gradient is not None
        assert gradient.reshape(6, -1).any(1).tolist() == (~wanted.isnan()).tolist()
    assert predicted["vision"].grad is None
    assert unimodal_loss(output, Targets(targets.value, targets.classes)) == 0  # type: ignore[arg-type]


# --- predictions -----------------------------------------------------------------------------------------------------

STRANGE = (
    "joy",
    "sad, very",
    "a|b",
    "<script>x</script>",
    "two\nlines",
    "x" * 200,
    "愤怒 \U0001f620",
    'say "no"',
    "7",
    "",
)


def test_predictions_of_strangely_named_classes_survive_csv() -> None:
    target = Target("classes", classes=STRANGE, metrics="classes")
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 10).astype(np.float32)
    labels = np.float32([*range(9), np.nan])
    found = Predictions([f"v$_${i}" for i in range(10)], labels, None, probabilities, np.full((10, 1), 0.25), target)
    rows = list(csv.DictReader(predictions_csv([("test", found)]).splitlines(keepends=True)))
    assert list(rows[0])[4:] == [*(f"p_{name}" for name in STRANGE), "gate_cls"]
    for i, row in enumerate(rows):
        assert row["label"] == (STRANGE[i] if i < 9 else "")
        assert row["prediction"] == STRANGE[probabilities[i].argmax()]
        assert [np.float32(row[f"p_{name}"]) for name in STRANGE] == probabilities[i].tolist()


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol",
    ["self_training", *(pytest.param(p, marks=pytest.mark.slow) for p in ("supervised", "distillation", "sslmm"))],
)
@pytest.mark.parametrize("target", ["classes", pytest.param("stars", marks=pytest.mark.slow)])
def test_every_protocol_learns(write_mmsa: Callable[..., Path], tmp_path: Path, protocol: str, target: str) -> None:
    groups: dict[str, dict[str, Any]] = {"target": MOOD_SETTINGS, "loss": {"class_weights": "balanced"}}
    if target == "stars":
        groups = {"target": {"range": [1, 5]}}
    path = write_mmsa(change=to_moods if target == "classes" else to_stars)
    summary = train(small(path, protocol={"name": protocol}, **groups), "tiny", tmp_path / "run")
    constant = summary["constant"]
    if target == "classes":
        assert constant["class"] in MOODS.classes
        assert summary["test"]["weighted_F1"]["mean"] > constant["test"]["weighted_F1"] + 0.2
        assert summary["test"]["accuracy"]["mean"] > constant["test"]["accuracy"] + 0.1
        assert summary["target"] == {"kind": "classes", "classes": ["bad", "so-so", "good"]}
        assert [row["class"] for row in summary["classes"]] == ["bad", "so-so", "good"]
        assert {row["truth"] for row in summary.get("worst", ())} <= set(MOODS.classes)
    else:
        assert 1 < constant["value"] < 5
        assert summary["test"]["MAE"]["mean"] < constant["test"]["MAE"] - 0.3
        assert summary["target"] == {"kind": "intensity", "range": [1, 5]}
    assert len(summary["intervals"]) == 1
    rows = list(csv.DictReader((tmp_path / "run" / "seed-1" / "predictions.csv").open()))
    if target == "classes":
        assert {row["label"] for row in rows} == set(MOODS.classes)
        assert {"bad", "good"} <= {row["prediction"] for row in rows} <= set(MOODS.classes)
    else:
        assert 0 < np.mean([float(row["prediction"]) for row in rows]) < 6
    if protocol == "self_training":
        kept = list(csv.DictReader((tmp_path / "run" / "seed-1" / "pseudo_labels.csv").open()))
        assert {row["class"] for row in kept} <= (set(MOODS.classes) if target == "classes" else set("0123456"))


def test_a_resumed_run_of_classes_ends_bitwise_the_same(
    write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(
        write_mmsa(change=to_moods),
        target=MOOD_SETTINGS,
        loss={"class_weights": "balanced"},
        optim={"epochs": 2},
        run={"save_every": 1e-6},
    )
    run_once(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    for number in (2, 5):  # within an epoch; once the pool is labeled
        with monkeypatch.context() as patch:
            steps: list[int] = []

            def step(self: Any, ids: Any, steps: list[int] = steps, number: int = number) -> None:
                steps.append(1)
                if len(steps) == number:
                    raise Killed

            patch.setattr(Progress, "on_step", step)
            with pytest.raises(Killed):
                run_once(config, tmp_path / "killed")
    run_once(config, tmp_path / "killed")
    assert left(tmp_path / "killed") == left(tmp_path / "whole")
    assert (tmp_path / "killed" / "seed-1" / "pool_1.safetensors").exists()


def test_a_class_that_no_training_utterance_has_is_noted(write_mmsa: Callable[..., Path], tmp_path: Path) -> None:
    target = MOOD_SETTINGS | {"classes": ["bad", "so-so", "good", "never", "ever"]}
    config = small(write_mmsa(change=to_moods), target=target, optim={"epochs": 1}, protocol={"name": "supervised"})
    with collected() as notes:
        summary = train(config, "tiny", tmp_path / "run")
    (said,) = [line for line in notes if "no training label" in line]
    assert "2 of the 5 classes (never, ever)" in said
    assert len(said) < 400
    assert [row["support"] for row in summary["classes"]][3:] == [0, 0]


def own_labels(content: dict[str, Any]) -> None:
    for columns in content.values():
        for letter in "TAV":
            columns[f"regression_labels_{letter}"] = columns["regression_labels"].copy()


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_unused_labels_of_single_modalities_are_noted(
    write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    monkeypatch.setattr(loop.Trainer, "train_stage", None)
    config = small(write_mmsa(change=own_labels), loss={"unimodal_weight": weight})
    with collected() as notes, pytest.raises(TypeError):  # said before any training
        train(config, "tiny", tmp_path / "run")
    assert [line for line in notes if "single modalities" in line and "'loss.unimodal_weight' above 0" in line] == (
        notes if weight == 0 else []
    )


@pytest.mark.parametrize("target", ["intensity", "classes"])
def test_heads_of_single_modalities_learn_from_their_labels_alone(write_mmsa: Callable[..., Path], target: str) -> None:
    groups = {"target": MOOD_SETTINGS} if target == "classes" else {}
    path = write_mmsa(change=to_moods if target == "classes" else None)
    prepared = prepare(small(path, loss={"unimodal_weight": 1.0}, **groups))
    labeled = [
        replace(e, utterance=replace(e.utterance, unimodal=dict.fromkeys(("text", "audio"), e.utterance.label)))
        for e in prepared.training_data(prepared.config, 1).labeled
    ]
    task = FineTuning(prepared.config, dict(prepared.corpus.dims), labeled, [], [], torch.device("cpu"))
    model = task.build_module()
    batch = next(iter(task.batches(1)))
    task.loss(model, batch, None, 0.0).backward()
    assert model.unimodal is not None
    taught = {
        m: any(p.grad is not None and bool(p.grad.any()) for name, p in model.unimodal.named_parameters() if m in name)
        for m in ("text", "audio", "vision")
    }
    assert taught == {"text": True, "audio": True, "vision": False}


def test_withheld_labels_of_single_modalities_teach_nothing(write_mmsa: Callable[..., Path]) -> None:
    config = small(
        write_mmsa(change=own_labels),
        loss={"unimodal_weight": 1.0},
        data={"label_ratio": 0.25},
        graph={"scope": "dialogue"},
    )
    prepared = prepare(config)
    data = prepared.training_data(prepared.config, 1)
    labeled = {e.utterance.id for e in data.labeled}
    batches = training_batches(
        [*data.labeled, *map(Example, data.pool[:5])], prepared.config, 1, context=prepared.training_utterances
    )
    seen = 0
    for batch, targets in filter(None, batches):
        assert set(targets.unimodal) == {"text", "audio", "vision"}
        for labels in targets.unimodal.values():
            known = [name for name, label in zip(batch.ids, labels.tolist(), strict=True) if not math.isnan(label)]
            assert set(known) <= labeled
            seen += len(known)
    assert seen > len(labeled)


def test_a_score_that_is_nan_is_never_the_best(
    write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([math.nan, 0.5, math.nan, 0.75, math.nan])
    monkeypatch.setattr(loop.FineTuning, "score", lambda *_: {"weighted_F1": next(scores)})
    config = small(
        write_mmsa(change=to_moods), target=MOOD_SETTINGS, optim={"epochs": 5}, protocol={"name": "supervised"}
    )
    train(config, "tiny", tmp_path / "run")
    history = [json.loads(line) for line in (tmp_path / "run" / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert [row["best"] for row in history] == [True, True, False, True, False]
