"""Training: batches, losses, protocols, determinism, resumption, and what test labels cannot reach."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers.small_runs import small

from gmsa import train as command
from gmsa.ablation.variants import read_variants
from gmsa.config import OptimConfig, SelfTrainingConfig, from_dict
from gmsa.data import INTENSITY_CLASSES, Target
from gmsa.errors import ConfigError, RunError
from gmsa.models import Output
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.evaluate import evaluate
from gmsa.runs.predict import predict_file
from gmsa.runs.resume import check_parts
from gmsa.runs.train import train
from gmsa.system import cli
from gmsa.training import tasks
from gmsa.training import trainer as loop
from gmsa.training.batches import buckets, training_batches
from gmsa.training.examples import Example, Targets, labeled_examples
from gmsa.training.losses import loss
from gmsa.training.optimization import optimizer
from gmsa.training.optimization.optimizer import check_precision, rate_factor
from gmsa.training.pseudo_labels import most_confident, soft_examples
from gmsa.training.scoring import Predictions

training = sys.modules[train.__module__]
"""The module, which its function hides in the package."""


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a small run's time; only tests marked for them draw them."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(results, "draw_run", lambda *a: None)


@pytest.fixture
def figures() -> None:
    """Asks for a run's figures."""


# --- batches ---------------------------------------------------------------------------------------------------------


def test_buckets_hold_every_index_once_and_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 1000).tolist()
    batches = [*buckets(lengths, 32, 7, "stage", 1)]
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert 1 - sum(lengths) / padded < 0.1
    assert batches == [*buckets(lengths, 32, 7, "stage", 1)]
    assert batches != [*buckets(lengths, 32, 7, "stage", 2)]


def test_hidden_modalities_are_a_function_of_seed_and_id(make_utterance) -> None:
    config = from_dict(
        {"model": {"modality_dropout": {"text": 0.5, "audio": 0.5, "vision": 0.5}}, "optim": {"batch_size": 3}}
    )
    utterances = [make_utterance(f"v$_${i}", (3, 9, 2)) for i in range(60)]

    def hidden(order: list) -> dict[str, tuple[int, ...]]:
        found = {}
        for batch, _ in training_batches(labeled_examples(order, Target()), config, 1, "stage", 1):
            for i, name in enumerate(batch.ids):
                found[name] = tuple(int(batch.lengths[m][i] > 0) for m in ("text", "audio", "vision"))
        return found

    first = hidden(utterances)
    assert first == hidden(utterances[::-1])
    assert all(any(present) for present in first.values())
    assert {0, 1} == {present[0] for present in first.values()}


# --- losses ----------------------------------------------------------------------------------------------------------


def test_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    value, logits = torch.randn(5), torch.randn(5, INTENSITY_CLASSES)
    y = torch.tensor([1.0, float("nan"), -2.0, float("nan"), float("nan")])
    c = torch.tensor([4, 2, 1, 6, 0])
    targets = Targets(y, F.one_hot(c, INTENSITY_CLASSES).float())
    logp = logits.log_softmax(-1)
    l_v = ((value[0] - 1) ** 2 + (value[2] + 2) ** 2) / 2
    l_e = -(logp[0, 4] + logp[2, 1]) / 2
    l_u = -(logp[1, 2] + logp[3, 6] + logp[4, 0]) / 3
    actual = loss(Output(value, logits, None, logits), targets, 0.6, 0.2)
    torch.testing.assert_close(actual, 0.6 * l_v + 0.4 * l_e + 0.2 * l_u)


@pytest.mark.parametrize("values", [[1.0, 2.0], [float("nan")] * 2])
def test_loss_and_gradient_are_finite_where_one_kind_is_absent(values: list[float]) -> None:
    value, logits = torch.randn(2, requires_grad=True), torch.randn(2, INTENSITY_CLASSES, requires_grad=True)
    targets = Targets(torch.tensor(values), torch.eye(INTENSITY_CLASSES)[:2])
    result = loss(Output(value, logits, None, logits), targets, 0.6, 0.2)
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(value.grad).all()
    assert np.isnan(values[0]) == (not value.grad.any())


# --- pseudo-labels ---------------------------------------------------------------------------------------------------


def random_predictions(count: int, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(INTENSITY_CLASSES), count).astype(np.float32)
    return Predictions(
        [f"u{i}" for i in range(count)], np.full(count, np.nan), probabilities[:, 0], probabilities, None
    )


@pytest.mark.parametrize("k", [0, 1, 5, "all"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_most_confident_per_class_by_a_loop(k, threshold: float) -> None:
    predictions = random_predictions(200)
    expected = []
    for c in range(INTENSITY_CLASSES):
        of_class = [
            (row.max(), i)
            for i, row in enumerate(predictions.probabilities)
            if row.argmax() == c and row.max() >= threshold
        ]
        of_class.sort(reverse=True)
        expected += [i for _, i in (of_class if k == "all" else of_class[:k])]
    assert most_confident(predictions, SelfTrainingConfig(k=k, threshold=threshold)) == sorted(expected)


def test_soft_examples_are_the_teachers_means(make_utterance) -> None:
    pool = [make_utterance(f"u{i}", (1, 1, 1), None) for i in range(4)]
    teachers = [random_predictions(4, seed) for seed in range(3)]
    for i, example in enumerate(soft_examples(pool, teachers)):
        assert example.utterance is pool[i]
        assert example.value == pytest.approx(sum(float(t.value[i]) for t in teachers) / 3)
        torch.testing.assert_close(example.classes, torch.tensor([t.probabilities[i] for t in teachers]).mean(0))


# --- optimizer -------------------------------------------------------------------------------------------------------


def test_learning_rate_course() -> None:
    config = OptimConfig(warmup=0.2, schedule="cosine")
    course = [rate_factor(step, 100, config) for step in range(100)]
    assert course[0] == pytest.approx(1 / 21)
    assert max(course) == course[20] == 1
    assert course[:20] == sorted(course[:20])
    assert course[20:] == sorted(course[20:], reverse=True)
    assert course[60] == pytest.approx(0.5)
    assert rate_factor(60, 100, OptimConfig(warmup=0.2, schedule="linear")) == pytest.approx(0.5)
    assert rate_factor(99, 100, OptimConfig(warmup=0.2, schedule="constant")) == 1


# --- whole runs ------------------------------------------------------------------------------------------------------


def read_predictions(folder: Path, seed: int = 1) -> bytes:
    return (folder / f"seed-{seed}" / "predictions.csv").read_bytes()


@pytest.mark.parametrize("protocol", ["self_training", pytest.param("distillation", marks=pytest.mark.slow)])
def test_a_run_leaves_what_it_promises(write_mmsa, tmp_path: Path, figures, protocol: str) -> None:
    config = small(
        write_mmsa,
        data={"label_ratio": 0.5},
        protocol={"name": protocol},
        self_training={"k": 2},
        distillation={"teachers": 2},
    )
    summary = train(config, "tiny", tmp_path / "run")
    stages = {
        "self_training": ["supervised", "self_training_1"],
        "distillation": ["supervised", "teacher_2", "student"],
    }[protocol]
    assert list(summary["stages"]) == stages
    run = tmp_path / "run"
    for name in (
        "config.yaml",
        "environment.json",
        "normalizer.safetensors",
        "summary.json",
        "summary.md",
        "summary.tex",
        "report.html",
    ):
        assert (run / name).stat().st_size > 0
    for seed in (1, 2):
        names = {p.name for p in (run / f"seed-{seed}").iterdir()}
        assert {"model.safetensors", "history.jsonl", "predictions.csv"} <= names
        assert sum(name.startswith("state-") for name in names) == 2
        assert {f"{stage}.safetensors" for stage in stages} <= names
        assert ("pseudo_labels.csv" in names) == (protocol == "self_training")
        history = [json.loads(line) for line in (run / f"seed-{seed}" / "history.jsonl").read_text().splitlines()]
        assert [row["stage"] for row in history] == [stage for stage in stages for _ in range(2)]
        rows = list(csv.DictReader((run / f"seed-{seed}" / "predictions.csv").open()))
        assert [row["split"] for row in rows].count("test") == 12
        for row in rows:
            assert sum(float(row[f"p{c}"]) for c in range(INTENSITY_CLASSES)) == pytest.approx(1, abs=1e-5)
            assert 0 < float(row["gate_val"]) < 1
    assert {"curves.png", "scatter.png", "confusion.png", "gate.png"} <= {p.name for p in (run / "figures").iterdir()}
    pictures = {ending: {p.stem for p in (run / "figures").glob(f"*.{ending}")} for ending in ("png", "svg")}
    assert pictures["png"] == pictures["svg"]
    assert (run / "figures" / "pseudo_labels.png").exists() == (protocol == "self_training")
    written = json.loads((run / "summary.json").read_text())
    assert written["seeds"] == [1, 2]
    assert written["synthetic"] is False
    assert set(written["test"]["MAE"]) == {"mean", "std", "values"}
    assert not list(run.rglob("*.tmp"))


def test_a_resumed_run_of_two_seeds_ends_bitwise_the_same(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stop_after = small(write_mmsa, data={"label_ratio": 0.5}), 3
    train(config, "tiny", tmp_path / "whole")

    class Killed(BaseException):
        pass

    epochs, original = [], loop.Trainer._epoch

    def stopping(self, *arguments):
        if len(epochs) == stop_after:
            raise Killed
        epochs.append(1)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_epoch", stopping)
        with pytest.raises(Killed):
            train(config, "tiny", tmp_path / "killed")
    train(config, "tiny", tmp_path / "killed", resume=True)
    for seed in (1, 2):
        assert read_predictions(tmp_path / "killed", seed) == read_predictions(tmp_path / "whole", seed)
        weights = [tmp_path / name / f"seed-{seed}" / "model.safetensors" for name in ("killed", "whole")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert read_predictions(tmp_path / "whole", 1) != read_predictions(tmp_path / "whole", 2)
    histories = [
        (tmp_path / name / "seed-1" / "history.jsonl").read_text().splitlines() for name in ("whole", "killed")
    ]
    assert len(histories[0]) == len(histories[1])


def test_resuming_a_finished_run_trains_nothing(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(write_mmsa)
    train(config, "tiny", tmp_path / "run")
    before = read_predictions(tmp_path / "run")
    monkeypatch.setattr(loop.Trainer, "_epoch", lambda *a: pytest.fail("trained again"))
    train(config, "tiny", tmp_path / "run", resume=True)
    assert read_predictions(tmp_path / "run") == before


def test_resuming_with_other_settings_is_refused(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, protocol={"name": "supervised"})
    train(config, "tiny", tmp_path / "run")
    other = small(write_mmsa, protocol={"name": "supervised"}, optim={"lr": 0.01})
    with pytest.raises(RunError, match=r"other settings: optim.lr was 0.001, is 0.01"):
        train(other, "tiny", tmp_path / "run", resume=True)


def test_resuming_keeps_the_seeds_of_before_and_adds_new_ones(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, protocol={"name": "supervised"})
    train(config, "tiny", tmp_path / "run")
    before = read_predictions(tmp_path / "run")
    more = small(write_mmsa, protocol={"name": "supervised"}, run={"seeds": [3, 1], "device": "cpu"})
    assert train(more, "tiny", tmp_path / "run", resume=True)["seeds"] == [1, 2, 3]
    assert read_predictions(tmp_path / "run") == before


def test_a_modality_that_training_lacks_is_left_out_and_said(write_mmsa, tmp_path: Path, capsys) -> None:
    def hide(content: dict) -> None:
        content["train"]["text_lengths"] = [0] * 24
        content["train"]["text"][:] = 0

    def hide_everywhere(content: dict) -> None:
        for columns in content.values():
            columns["text_lengths"] = [0] * len(columns["id"])
            columns["text"][:] = 0

    predictions = []
    for name, change in (("a", hide), ("b", hide_everywhere)):
        config = small(write_mmsa, data={"path": str(write_mmsa(f"{name}.pkl", change=change))}, run={"seeds": [1]})
        train(config, "tiny", tmp_path / name)
        assert "WARNING: no training utterance has text; it is left out" in capsys.readouterr().out
        assert set(Run(tmp_path / name).dims) == {"audio", "vision"}
        predictions.append(read_predictions(tmp_path / name))
    assert predictions[0] == predictions[1]
    again = json.loads((tmp_path / "a" / "summary.json").read_text())
    evaluate(tmp_path / "a", out=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["test"] == again["test"]
    assert predict_file(tmp_path / "a", tmp_path / "a.pkl", tmp_path / "out.csv") == 48


@pytest.mark.parametrize("name", [pytest.param("mosi_dev.pkl", marks=pytest.mark.slow), "mmmo.pkl"])
def test_real_files_train_evaluate_and_predict(real_data, tmp_path: Path, name: str) -> None:
    path = real_data(name)
    config = from_dict(
        {
            "data": {"path": str(path), "name": path.stem, "label_ratio": 0.125},
            "model": {"channels": 16, "heads": 2},
            "optim": {"epochs": 1, "min_steps": 0},
            "self_training": {"k": 5},
            "run": {"device": "cpu"},
        }
    )
    summary = train(config, path.stem, tmp_path / "run")
    evaluate(tmp_path / "run", out=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["test"] == summary["test"]
    rows = list(csv.DictReader((tmp_path / "run" / "seed-1111" / "predictions.csv").open()))
    assert predict_file(tmp_path / "run", path, tmp_path / "out.csv") == len(rows)
    if name == "mmmo.pkl":
        assert set(Run(tmp_path / "run").dims) == {"audio", "vision"}


def test_resuming_with_another_pool_file_is_refused(write_mmsa, tmp_path: Path) -> None:
    pool = write_mmsa("pool.pkl", prefix="pool-")
    config = small(write_mmsa, data={"pool": str(pool)}, run={"seeds": [1]})
    train(config, "tiny", tmp_path / "run")
    write_mmsa("pool.pkl", prefix="pool-", change=_shift_labels)
    with pytest.raises(RunError, match=r"pool.pkl' is not the file that .* was trained on \(SHA-256 .*, was .*; put"):
        train(config, "tiny", tmp_path / "run", resume=True)


def test_without_a_pool_it_ends_after_the_supervised_stage_and_says_so(write_mmsa, tmp_path: Path, capsys) -> None:
    summary = train(small(write_mmsa), "tiny", tmp_path / "run")
    assert list(summary["stages"]) == ["supervised"]
    assert "No unlabeled pool (all labels are used and 'data.pool' names no file)" in capsys.readouterr().out


def test_more_epochs_than_asked_for_are_said_once(write_mmsa, tmp_path: Path, capsys) -> None:
    train(small(write_mmsa, optim={"epochs": 2, "min_steps": 9}, run={"seeds": [1, 2]}), "tiny", tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())  # the console may wrap
    asked = "supervised: 3 epochs instead of 2 ('optim.epochs'): an epoch has 3 of the 9 steps that 'optim.min_steps'"
    assert said.count(asked) == 1


def test_a_pool_file_is_used_and_its_labels_are_not(write_mmsa, tmp_path: Path) -> None:
    for name, change in (("a", None), ("b", lambda content: _shift_labels(content))):
        pool = write_mmsa(f"pool-{name}.pkl", change=change, prefix="pool-")
        train(small(write_mmsa, data={"pool": str(pool)}), "tiny", tmp_path / name)
    assert read_predictions(tmp_path / "a") == read_predictions(tmp_path / "b")
    assert (tmp_path / "a" / "seed-1" / "pseudo_labels.csv").exists()


def _shift_labels(content: dict, splits: tuple[str, ...] = ("train", "valid", "test")) -> None:
    for split in splits:
        content[split]["regression_labels"] = -content[split]["regression_labels"][::-1]


def test_test_labels_reach_no_choice(write_mmsa, tmp_path: Path) -> None:
    """Swapping the test split's labels and features changes nothing but the test split's rows."""

    def swap(content: dict) -> None:
        _shift_labels(content, ("test",))
        content["test"]["text"] = content["test"]["text"][::-1] * 2

    for name, change in (("a", None), ("b", swap)):
        path = write_mmsa(f"{name}.pkl", change=change)
        train(small(write_mmsa, data={"path": str(path), "label_ratio": 0.5}), "tiny", tmp_path / name)
    weights = [(tmp_path / name / "seed-1" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    rows = [
        [
            row
            for row in csv.DictReader((tmp_path / name / "seed-1" / "predictions.csv").open())
            if row["split"] != "test"
        ]
        for name in ("a", "b")
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_withheld_labels_reach_no_weight(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, data={"label_ratio": 0.5, "label_seed": 5})
    train(config, "tiny", tmp_path / "a")
    kept = {row["id"] for row in csv.DictReader((tmp_path / "a" / "seed-1" / "pseudo_labels.csv").open())}
    assert kept

    def nudge(content: dict) -> None:
        # Within its class, so that the stratified draw of the labeled share stays as it was.
        columns = content["train"]
        for i, name in enumerate(columns["id"]):
            if name in kept:
                columns["regression_labels"][i] += 0.01

    path = write_mmsa("b.pkl", change=nudge)
    train(small(write_mmsa, data={"path": str(path), "label_ratio": 0.5, "label_seed": 5}), "tiny", tmp_path / "b")
    weights = [(tmp_path / name / "seed-1" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_non_finite_loss_names_the_batch(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, optim={"lr": 1e30, "clip_norm": 0, "ema": 0}, protocol={"name": "supervised"})
    with pytest.raises(RunError, match=r"not finite in stage 'supervised', epoch \d, seed 1, for the batch \[train"):
        train(config, "tiny", tmp_path / "run")


def test_ctrl_c_says_how_to_go_on(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, "_epoch", interrupted)
    config = small(write_mmsa)
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda _: train(config, "tiny", tmp_path / "run"), "train")
    assert caught.value.code == 130
    said = capsys.readouterr().out
    assert f"Go on with the same settings and --resume --out {tmp_path / 'run'} (in Python: resume=True, out=" in said


@pytest.mark.parametrize("out", [[], ["--out=my runs/a"]], ids=["numbered", "named"])
def test_ctrl_c_gives_a_command_that_goes_on(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, out: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mosi_graph").mkdir(parents=True)  # a numbered folder is taken
    (tmp_path / "my data.pkl").write_bytes(write_mmsa().read_bytes())
    settings = ("optim.epochs=1", "optim.min_steps=0", "protocol.name=supervised", "model.channels=16")
    arguments = ["--config", "mosi_graph", "--data", "my data.pkl", "--seeds", "1", *out, "--device", "cpu"]
    arguments += [x for setting in settings for x in ("--set", setting)]

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    with monkeypatch.context() as patch, cli.inside_gmsa():
        patch.setattr(loop.Trainer, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command.main(arguments)
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("Interrupted"))
    name, word, *found = shlex.split(line.partition("Go on with: ")[2])
    assert (name, word) == ("gmsa", "train")
    assert found[-3:] == ["--resume", "--out", "my runs/a" if out else "runs/mosi_graph-2"]
    with cli.inside_gmsa():
        command.main(found)
    assert (tmp_path / found[-1] / "summary.json").exists()


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_bf16_trains(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str) -> None:
    monkeypatch.setattr(training, "check_precision", lambda config, device: None)
    config = small(write_mmsa, optim={"amp": "bf16"}, model={"route": route}, run={"seeds": [1], "device": "cpu"})
    summary = train(config, "tiny", tmp_path / "run")
    assert np.isfinite(summary["test"]["MAE"]["mean"])


def test_bf16_that_does_not_pay_is_refused(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(write_mmsa, optim={"amp": "bf16"}, run={"device": "cpu"})
    with pytest.raises(
        ConfigError, match=r"'optim.amp: bf16' makes training no faster on a CPU, where no text encoder"
    ):
        train(config, "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_precision(config, torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"^setting 'optim.amp=bf16': 'optim.amp: bf16' makes training no faster"):
        read_variants(replace(config, optim=OptimConfig()), [], ["optim.amp=off,bf16"], None)
    encoder = replace(config, model=replace(config.model, text_encoder="minilm"))
    for there in (True, False):
        monkeypatch.setattr(optimizer, "has_bf16_instructions", lambda there=there: there)
        with nullcontext() if there else pytest.raises(ConfigError, match="finds neither AMX nor AVX-512 BF16"):
            check_precision(encoder, torch.device("cpu"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_and_scores_as_the_cpu_does(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, run={"seeds": [1], "device": "cuda"})
    train(config, "tiny", tmp_path / "run")
    tables = [str(evaluate(tmp_path / "run", device=device, out=tmp_path / device)) for device in ("cuda", "cpu")]
    assert all("test" in table for table in tables)
    cuda, cpu = (json.loads((tmp_path / d / "summary.json").read_text())["test"]["MAE"] for d in ("cuda", "cpu"))
    assert cuda["mean"] == pytest.approx(cpu["mean"], abs=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("protocol", ["supervised", "self_training", "distillation", "sslmm"])
def test_cuda_trains_classes_and_scores_them_as_the_cpu_does(protocol: str, tmp_path: Path) -> None:
    settings: dict[str, dict[str, object]] = {
        "data": {"path": "synthetic", "label_ratio": 0.5},
        "target": {"kind": "classes"},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 2, "min_steps": 0},
        "loss": {"class_weights": "balanced"},
        "self_training": {"k": 5},
        "distillation": {"teachers": 2},
        "protocol": {"name": protocol},
        "run": {"seeds": [1], "device": "cuda"},
    }
    train(from_dict(settings), "tiny", tmp_path / "run")
    for device in ("cuda", "cpu"):
        evaluate(tmp_path / "run", device=device, out=tmp_path / device)
    cuda, cpu = (json.loads((tmp_path / d / "summary.json").read_text())["test"] for d in ("cuda", "cpu"))
    assert cuda["accuracy"]["mean"] == pytest.approx(cpu["accuracy"]["mean"], abs=0.02)


def test_patience_stops_early(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([3.0, 2.0, 2.5, 2.5, 1.0, 1.0])
    monkeypatch.setattr(tasks, "quiet_metrics", lambda *a: {"MAE": next(scores), "Corr": 0.0})
    config = small(write_mmsa, optim={"patience": 2, "epochs": 6}, protocol={"name": "supervised"}, run={"seeds": [1]})
    train(config, "tiny", tmp_path / "run")
    history = [json.loads(line) for line in (tmp_path / "run" / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert [row["best"] for row in history] == [True, True, False, False]


def test_the_best_epoch_is_kept_not_the_last(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(write_mmsa, optim={"epochs": 1, "schedule": "constant"}, protocol={"name": "supervised"})
    train(config, "tiny", tmp_path / "one")
    scores = iter([1.0, 2.0, 3.0] * 2)
    monkeypatch.setattr(tasks, "quiet_metrics", lambda *a: {"MAE": next(scores), "Corr": 0.0})
    config = small(
        write_mmsa, optim={"epochs": 3, "schedule": "constant", "warmup": 0.1}, protocol={"name": "supervised"}
    )
    train(config, "tiny", tmp_path / "three")
    history = [json.loads(line) for line in (tmp_path / "three" / "seed-1" / "history.jsonl").read_text().splitlines()]
    assert [row["best"] for row in history] == [True, False, False]
    assert (tmp_path / "three" / "seed-1" / "model.safetensors").exists()


def test_k_larger_than_the_pool_is_refused_before_training(write_mmsa, tmp_path: Path) -> None:
    config = small(write_mmsa, data={"label_ratio": 0.5}, self_training={"k": 1000})
    with pytest.raises(ConfigError, match=r"'self_training.k' is 1000, but the unlabeled pool has \d+ utterances"):
        train(config, "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_min_steps_runs_more_epochs(write_mmsa, tmp_path: Path) -> None:
    config = small(
        write_mmsa,
        optim={"epochs": 1, "min_steps": 20, "batch_size": 4},
        protocol={"name": "supervised"},
        run={"seeds": [1]},
    )
    train(config, "tiny", tmp_path / "run")
    history = (tmp_path / "run" / "seed-1" / "history.jsonl").read_text().splitlines()
    assert len(history) == 4  # 24 utterances in batches of 4: 6 steps an epoch


# --- evaluate and predict --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the run stands that all tests of finished runs share, once it is trained."""
    return {"folder": tmp_path_factory.mktemp("trained") / "run"}


@pytest.fixture
def finished(write_mmsa, tmp_path: Path, trained: dict[str, Path]) -> Path:
    """A copy of a finished run, and its data file."""
    config, folder = small(write_mmsa, data={"label_ratio": 0.5}), trained["folder"]
    if not folder.exists():
        train(config, "tiny", folder)
    shutil.copytree(folder, tmp_path / "finished")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["data"]["path"] = config.data.path
    (tmp_path / "finished" / "config.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    return tmp_path / "finished"


def test_evaluate_reproduces_the_test_row_exactly(finished: Path, tmp_path: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    table = str(evaluate(finished, out=tmp_path / "again"))
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["test"] == summary["test"]
    assert again["valid"] == summary["valid"]
    assert again["train_seconds"] == summary["train_seconds"]
    rows = [
        [row for row in csv.DictReader(path.open()) if row["split"] != "train"]
        for path in (finished / "seed-1" / "predictions.csv", tmp_path / "again" / "predictions-1.csv")
    ]
    assert rows[0] == rows[1]
    assert f"{summary['test']['MAE']['mean']:.4f}" in table


def test_evaluate_refuses_another_file_in_the_place_of_its_own(finished: Path, write_mmsa) -> None:
    write_mmsa(change=_shift_labels)
    with pytest.raises(RunError, match=r"is not the file that .* was trained on .*; put that file back, or .* --data"):
        evaluate(finished)


def test_evaluate_never_writes_over_a_run(finished: Path) -> None:
    with pytest.raises(RunError, match=r"it holds a run, whose summary would be lost; name another --out"):
        evaluate(finished, out=finished)


def test_evaluate_scores_another_file(finished: Path, write_mmsa) -> None:
    other = write_mmsa("other.pkl", prefix="other-")
    assert "| other | test |" in str(evaluate(finished, other))


def test_predict_writes_every_utterance_and_averages_seeds(finished: Path, write_mmsa, tmp_path: Path) -> None:
    own = write_mmsa()
    assert predict_file(finished, own, tmp_path / "all.csv") == 48
    rows = {row["id"]: row for row in csv.DictReader((tmp_path / "all.csv").open())}
    seeds = [
        {row["id"]: row for row in csv.DictReader((finished / f"seed-{seed}" / "predictions.csv").open())}
        for seed in (1, 2)
    ]
    for name, row in rows.items():
        mean = sum(float(s[name]["prediction"]) for s in seeds) / 2
        assert float(row["prediction"]) == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("case", ["one", "no labels", "lacks text", "lacks text for some"])
def test_predict_takes_what_a_user_has(finished: Path, write_mmsa, tmp_path: Path, case: str) -> None:
    def change(content: dict) -> None:
        for split in list(content):
            columns = content[split]
            if case == "one":
                del content[split]
                content["test"] = {k: v[:1] for k, v in columns.items()}
                for other in [s for s in content if s != "test"]:
                    del content[other]
                return
            if case == "no labels":
                del columns["regression_labels"]
            if case == "lacks text":
                del columns["text"], columns["text_lengths"]
            if case == "lacks text for some":
                columns["text_lengths"][0] = 0
                columns["text"][0] = 0

    path = write_mmsa("input.pkl", change=change)
    count = predict_file(finished, path, tmp_path / "out.csv", seeds=[1])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(rows) == count == (1 if case == "one" else 48)
    assert all(np.isfinite(float(row["prediction"])) for row in rows)


def test_a_run_opens_from_its_folder_alone(finished: Path) -> None:
    run = Run(finished)
    assert run.dims == {"text": 4, "audio": 3, "vision": 2}
    model = run.load_model(1, torch.device("cpu"))
    assert not model.training


def test_examples_of_labels() -> None:
    from gmsa.data import Utterance

    examples = labeled_examples([Utterance("a", {}, 0.5), Utterance("b", {}, -3.0)], Target())
    assert [e.value for e in examples] == [0.5, -3.0]
    assert [int(e.classes.argmax()) for e in examples] == [4, 0]
    assert isinstance(examples[0], Example)


@pytest.mark.parametrize("name", ["report.html", "summary.json"])
def test_a_folder_in_the_place_of_a_report_is_refused_before_any_work(write_mmsa, tmp_path: Path, name: str) -> None:
    config, out = small(write_mmsa, run={"seeds": [1]}), tmp_path / "run"
    train(config, "tiny", out)
    (out / name).unlink()
    (out / name / "within").mkdir(parents=True)
    with pytest.raises(RunError, match=rf"{name}' is a folder where a file is to be written; move it away"):
        check_parts(out)
