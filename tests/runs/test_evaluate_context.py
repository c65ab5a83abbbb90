"""``gmsa evaluate --context``: the linear context baseline of a run."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_data import COUNTS, tiny_content, tiny_run, write_pickle

from gmsa import evaluate as command
from gmsa.data.loading import load_corpus
from gmsa.data.notes import collected
from gmsa.errors import ConfigError, RunError
from gmsa.metrics import LinearContext, cross_fitted, metrics
from gmsa.reports.summary import SUMMARY
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.system.records import check_form

pytestmark = pytest.mark.filterwarnings("ignore:the prediction is constant", "ignore:all labels are on one side")
SIZE = 8
"""Utterances of a video."""


def smooth_content(prefix: str, videos: dict[str, int], classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a file whose labels vary little along a video, and whose features say each label with noise."""
    rng = np.random.default_rng([len(prefix), *prefix.encode()])
    content: dict[str, Any] = {}
    for split, count in videos.items():
        mood = np.repeat(np.float64([-1.5, 0, 1.5])[np.arange(count) % 3], SIZE)
        value = mood + rng.normal(size=count * SIZE) / 4
        text = (value + rng.normal(size=len(value)) * 1.5)[:, None, None] * np.float32([1, -1, 0.5, 2])
        labels = [classes[round(m / 1.5) + 1] for m in mood] if classes else value.astype(np.float32)
        content[split] = {
            "id": [f"{prefix}{split}{i // SIZE}$_${i % SIZE}" for i in range(len(value))],
            "raw_text": ["words"] * len(value),
            "emotion" if classes else "regression_labels": labels,
            "text": np.repeat(text, 2, axis=1).astype(np.float32),
        }
    return content


VIDEOS = {"train": 12, "valid": 8, "test": 10}
CLASSES = ("low", "mid", "high")


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files and the runs ``value`` and ``mood``, of labels that vary little along a video."""
    folder = tmp_path_factory.mktemp("smooth")
    learning = {"epochs": 6, "batch_size": 16, "lr": 0.01}
    text = {"modalities": ["text"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        value = write_pickle(folder / "value.pkl", smooth_content("", VIDEOS))
        file = {"path": str(value), "name": "value", **text}
        tiny_run(folder / "value", value, data=file, optim=learning)
        mood = write_pickle(folder / "mood.pkl", smooth_content("c-", VIDEOS, CLASSES))
        file = {"path": str(mood), "name": "mood", **text}
        tiny_run(folder / "mood", mood, data=file, optim=learning, target={"kind": "classes"}, run={"seeds": [1]})
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("reach", ["all", "past"])
def test_weights_are_fitted_on_validation_and_applied_to_test(smooth: Path, tmp_path: Path, reach: str) -> None:
    """By hand, from the predictions that a plain evaluation writes."""
    run, out = Run(smooth / "value"), tmp_path / "out"
    command.main(["--run", str(run.folder), "--context", reach, "--out", str(out)])
    found = json.loads((out / "summary.json").read_text())
    corpus = load_corpus(run.config.data, run.config.target)
    place = {u.id: (u.video, u.clip) for us in corpus.splits.values() for u in us}
    for k, seed in enumerate((1, 2)):
        table = rows_of(out / f"predictions-{seed}.csv")
        split: dict[str, list[Any]] = {}
        for name in ("valid", "test"):
            mine = [row for row in table if row["split"] == name]
            videos, clips = zip(*(place[row["id"]] for row in mine), strict=True)
            y, t = (np.array([float(row[key]) for row in mine]) for key in ("prediction", "label"))
            split[name] = [y, t, videos, clips]
        fit = LinearContext.fit(*split["valid"], reach)
        y, t, videos, clips = split["test"]
        answers = {"test": fit.apply(y, videos, clips), "valid": cross_fitted(*split["valid"], reach)}
        for name, mine in answers.items():
            scores = metrics("mosi", mine, split[name][1])
            for metric, value in scores.items():
                assert found["context"]["scores"][name][metric]["values"][k] == pytest.approx(value, abs=1e-6)
            written = [row for row in rows_of(out / f"context-{seed}.csv") if row["split"] == name]
            np.testing.assert_allclose([float(row["with_context"]) for row in written], mine, rtol=1e-6, atol=1e-7)
            assert [row["dialogue"] for row in written] == list(split[name][2])
        assert {name: of["values"][k] for name, of in found["context"]["weights"].items()} == pytest.approx(fit.named)
    assert found["context"]["reach"] == reach
    assert (found["context"]["utterances"], found["context"]["dialogues"]) == (64, 8)


def test_context_helps_where_labels_vary_little_along_a_video(smooth: Path, tmp_path: Path, capsys) -> None:
    run = Run(smooth / "value")
    plain = run.evaluate()
    found = run.evaluate(context=True, out=tmp_path / "out")
    check_form(json.loads((tmp_path / "out" / "summary.json").read_text()), SUMMARY)
    assert {key: value for key, value in found.items() if key != "context"} == plain
    scores, test = found["context"]["scores"]["test"], found["context"]["tests"]["test"]
    assert scores["MAE"]["mean"] < 0.9 * plain["test"]["MAE"]["mean"]
    assert scores["Corr"]["mean"] > plain["test"]["Corr"]["mean"]
    assert test["difference"] == pytest.approx(scores["MAE"]["mean"] - plain["test"]["MAE"]["mean"], abs=1e-6)
    assert (test["p"] < 0.05, test["high"] < 0, test["dialogues"]) == (True, True, 10)
    command.main(["--run", str(run.folder), "--context"])
    printed = capsys.readouterr().out
    stages = [line.split(" | ")[2:4] for line in printed.splitlines() if line.startswith("| value")]
    assert stages == [[of, split] for split in ("valid", "test") for of in ("final", "linear context")]
    assert "With context, test: MAE -0." in printed
    assert "64 labeled utterances of 8 dialogues); in validation each dialogue by weights of others" in printed
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "| Metric | Test | Test, linear context | Validation | Validation, linear context |" in text
    assert "- Linear context: all other utterances of a dialogue" in text
    assert r"linear context & \textbf{" in (tmp_path / "out" / "summary.tex").read_text()


def test_classes_share_their_weights(smooth: Path, tmp_path: Path) -> None:
    found = Run(smooth / "mood").evaluate(context="all", out=tmp_path / "out")
    scores = found["context"]["scores"]["test"]
    assert scores["accuracy"]["mean"] > found["test"]["accuracy"]["mean"] + 0.05
    table = [row for row in rows_of(tmp_path / "out" / "context-1.csv") if row["split"] == "test"]
    right = [row["with_context"] == row["label"] for row in table]
    assert np.mean(right) == pytest.approx(scores["accuracy"]["mean"])
    chances = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in table])
    assert [CLASSES[k] for k in chances.argmax(1)] == [row["with_context"] for row in table]
    assert "share of wrong classes -0." in str(found)
    assert found["context"]["weights"]["intercept"]["values"] == [0]


def test_unlabeled_utterances_are_context_and_labels_never_are(smooth: Path, tmp_path: Path) -> None:
    run = Run(smooth / "value")
    content = {"test": smooth_content("o-", {"test": 6})["test"]}
    labels = content["test"]["regression_labels"]

    def answers(name: str, labels: Any, rows: Any = slice(None)) -> dict[str, float]:
        columns = {key: np.array(x)[rows] for key, x in (content["test"] | {"regression_labels": labels}).items()}
        columns |= {key: columns[key].tolist() for key in ("id", "raw_text")}
        file = write_pickle(tmp_path / f"{name}.pkl", {"test": columns})
        found = run.evaluate(file, context=True, out=tmp_path / name)
        weights = {key: of["values"] for key, of in found["context"]["weights"].items()}
        own = {key: of["values"] for key, of in run.evaluate(context=True)["context"]["weights"].items()}
        assert weights == own  # nothing is fitted on the other file
        return {row["id"]: float(row["with_context"]) for row in rows_of(tmp_path / name / "context-1.csv")}

    whole = answers("whole", labels)
    assert answers("other-labels", labels[::-1].copy()) == whole
    third = np.arange(len(labels)) % 3 == 0
    some = answers("unlabeled", np.where(third, np.nan, labels).astype(np.float32))
    assert some == pytest.approx({key: value for key, value in whole.items() if key in some}, abs=1e-5)
    assert len(some) == (~third).sum()
    without = answers("left-out", labels, ~third)
    assert max(abs(without[key] - some[key]) for key in some) > 0.01
    backwards = answers("backwards", labels, slice(None, None, -1))
    assert backwards == pytest.approx(whole, abs=1e-5)


@pytest.mark.slow
def test_what_the_run_masks_is_masked(smooth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both splits as in training, also where another file is scored; alone there is nothing to correct."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    content = {split: dict(columns) for split, columns in smooth_content("", VIDEOS).items()}
    for columns in content.values():
        columns["audio"] = columns["text"][:, :, :2] + 0
    own = write_pickle(tmp_path / "own.pkl", content)
    data = {"modalities": ["text", "audio"], "missing": "eta:0.5"}
    run = Run(tiny_run(tmp_path / "run", own, data=data, run={"seeds": [1]}))
    found = run.evaluate(context=True, out=tmp_path / "out")
    assert found["test"] == run.metrics["test"]
    alone = {key: np.array(x)[::SIZE].tolist() if key in ("id", "raw_text") else np.array(x)[::SIZE]
             for key, x in content["test"].items()}  # fmt: skip
    other = run.evaluate(write_pickle(tmp_path / "alone.pkl", {"test": alone}), context=True)
    assert other["context"]["weights"] == found["context"]["weights"]
    assert other["context"]["scores"]["test"] == other["test"]
    assert (other["context"]["tests"]["test"]["difference"], other["context"]["tests"]["test"]["p"]) == (0, 1)


def test_too_little_to_fit_on(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Of the tiny file's three videos, one first utterance each has no past: 6 utterances are left without a video."""
    assert math.isfinite(run.evaluate(context=True)["context"]["scores"]["valid"]["MAE"]["mean"])
    said = r"'.*intensity' \(3 dialogues\) needs at least 8 labeled .* \(got 6\); score --split test alone"
    with pytest.raises(RunError, match=said) as caught:
        run.evaluate(context="past")
    assert len(str(caught.value)) <= 400
    assert run.evaluate(context="past", split="test")["context"]["weights"].keys() == {
        "own", "before", "rest", "intercept"
    }  # fmt: skip
    content = tiny_content()
    content["valid"]["id"] = [f"v{i}" for i in range(COUNTS["valid"])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        file = write_pickle(tmp_path / "own.pkl", content)
        single = Run(tiny_run(tmp_path / "single", file, run={"seeds": [1]}))
    with pytest.raises(RunError, match=r"\(12 dialogues\) needs at least 8 .* \(got 0\); leave out --context"):
        single.evaluate(context=True)
    file.unlink()
    with pytest.raises(RunError, match="put it back, or leave out --context, which is fitted on its validation split"):
        single.evaluate(tiny / "other.pkl", context=True)


@pytest.mark.parametrize(
    "options",
    [
        ["--missing", "eta:0.5"],
        ["--noise", "all:0dB"],
        ["--data", "other.pkl", "--data", "own.pkl"],
        ["--predictions", "x.csv"],
    ],
)
def test_what_context_does_not_go_with(run: Run, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--run", str(run.folder), "--context", *options])
    assert caught.value.code == 2
    assert "--context takes one --run and at most one --data" in capsys.readouterr().err


def test_context_in_python(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"--context takes one of all, past \(got 'future'\)"):
        run.evaluate(context="future")
    with pytest.raises(ConfigError, match="context goes without masks and noise"):
        run.evaluate(context=True, missing="eta:0.5")


def test_a_run_that_hears_the_dialogue_is_told_whom_the_baseline_is_for(smooth: Path, tmp_path: Path) -> None:
    graph = {"scope": "hierarchical", "context": 1}
    file = {"path": str(smooth / "value.pkl"), "name": "value", "modalities": ["text"]}
    folder = tiny_run(tmp_path / "heard", smooth / "value.pkl", data=file, graph=graph, run={"seeds": [1]})
    for run, told in ((folder, 1), (smooth / "value", 0)):
        with collected() as notes:
            assert Run(run).evaluate(context=True, seeds=1)["context"]["scores"]["test"]
        assert sum("the baseline is meant for runs with 'graph.scope: utterance'" in line for line in notes) == told
