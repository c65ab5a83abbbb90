"""Answers of another system, under a run's metrics."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_data import tiny_content

from gmsa import evaluate as command
from gmsa.config.override import override
from gmsa.data import Target
from gmsa.data.notes import collected
from gmsa.errors import DataError
from gmsa.metrics import metrics
from gmsa.runs import Run
from gmsa.runs.scoring.answers import evaluate_answers, read_answers
from gmsa.system import cli
from gmsa.training.scoring import Predictions, predictions_csv

TEST = tiny_content("o-")["test"]


def write(path: Path, rows: list[list[str]], separator: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def answers(values: list[str]) -> list[list[str]]:
    return [["id", "prediction"], *([i, v] for i, v in zip(TEST["id"], values, strict=True))]


def test_scores_and_test_against_a_run(run: Run, tiny: Path, tmp_path: Path) -> None:
    guess = np.clip(np.float64(TEST["regression_labels"]) + np.linspace(-1, 1.3, 12), -3, 3)
    file = write(tmp_path / "peer.csv", answers([f"{v:.6f}" for v in guess]))
    options = ["--data", str(tiny / "other.pkl"), "--run", str(run.folder), "--out", str(tmp_path / "out")]
    command.main(["--predictions", str(file), *options])
    found = json.loads((tmp_path / "out" / "answers.json").read_text())
    truth = np.float64(TEST["regression_labels"])
    assert found["scores"] == metrics("mosi", guess.round(6), truth)
    own = run.predict(tiny / "other.pkl").values[-12:].astype(np.float64)
    assert found["run"]["scores"] == pytest.approx(metrics("mosi", own, truth))
    mae = found["tests"]["MAE"]
    assert mae["difference"] == pytest.approx(np.abs(guess - truth).mean() - np.abs(own - truth).mean(), abs=1e-5)
    for metric, test in found["tests"].items():
        assert test["difference"] == pytest.approx(found["scores"][metric] - found["run"]["scores"][metric], abs=1e-6)
    assert mae["low"] < mae["difference"] < mae["high"] < 0
    assert mae["p"] < 0.05
    assert (found["utterances"], found["missing"]["count"], found["unknown"]["count"]) == (12, 0, 0)
    text = (tmp_path / "out" / "answers.md").read_text()
    assert text.startswith("# Answers of peer\n\n12 utterances of other, split test, SHA-256 ")
    assert "| Metric | peer | intensity |" in text


def test_a_runs_own_predictions_score_as_the_run(run: Run, tiny: Path, tmp_path: Path) -> None:
    shutil.copy(run.folder / "seed-1" / "predictions.csv", tmp_path / "own.csv")
    with collected() as notes:
        found = evaluate_answers(tmp_path / "own.csv", run=run)
    assert notes == []  # answers for other splits of the file are no strangers
    expected = {metric: spread["values"][0] for metric, spread in run.metrics["test"].items()}
    assert found["scores"] == pytest.approx(expected, abs=1e-6)
    again = evaluate_answers(tmp_path / "own.csv", tiny / "own.pkl")
    assert again["scores"] == found["scores"]
    assert "tests" not in again


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_where_commas_do_not_separate(tmp_path: Path, separator: str) -> None:
    file = write(tmp_path / "peer.csv", [["id", "prediction"], ["a", "-0,273"], ["b", "1.5"]], separator)
    assert read_answers(file, Target()) == {"a": -0.273, "b": 1.5}


def test_missing_and_unknown_answers_are_named(tiny: Path, tmp_path: Path) -> None:
    rows = [*answers(["1"] * 10 + ["", "1"])[:-1], ["stranger", "2"]]
    with collected() as notes:
        found = evaluate_answers(write(tmp_path / "some.csv", rows, ";"), tiny / "other.pkl")
    assert (found["utterances"], found["missing"], found["unknown"]) == (
        10,
        {"count": 2, "first": [TEST["id"][10], TEST["id"][11]]},
        {"count": 1, "first": ["stranger"]},
    )
    assert any("2 of 12 utterances have no answer" in note for note in notes)
    assert any("1 answers are for no utterance of the data (stranger)" in note for note in notes)
    assert "Answers for no utterance: 1 (stranger)." in str(found)


@pytest.mark.parametrize("form", ["names", "probabilities"])
def test_classes(emotion: Run, tiny: Path, tmp_path: Path, form: str) -> None:
    content = tiny_content("w-", ("joy", "anger", "fear"), "emotion")["test"]
    names, truth = ["anger", "fear", "joy"], content["emotion"]
    guess = ["Joy", *truth[1:]] if form == "names" else ["joy", *truth[1:]]
    if form == "probabilities":
        labels = ("joy", "anger", "fear")
        chances = [[f"{0.2 + 0.4 * (g == name):g}" for name in labels] for g in guess]
        rows = [["id", *(f"p_{name}" for name in labels)]]
        rows += [[i, *row] for i, row in zip(content["id"], chances, strict=True)]
    else:
        rows = [["id", "prediction"], *([i, g] for i, g in zip(content["id"], guess, strict=True))]
    file = write(tmp_path / "peer.csv", rows)
    found = evaluate_answers(file, tiny / "words.pkl", emotion)
    numbers = [names.index(g.lower()) for g in guess]
    assert found["scores"] == metrics("classes", numbers, [names.index(t) for t in truth], num_classes=3)
    for metric, test in found["tests"].items():
        assert test["difference"] == pytest.approx(found["scores"][metric] - found["run"]["scores"][metric])
    alone = evaluate_answers(file, tiny / "words.pkl", config=override({}, ["target.kind=classes"]))
    assert alone["scores"] == found["scores"]


STRANGE = (
    "joy",
    "Joy",
    " joy",
    "a;b;c;d;e;f;g;h",
    "x\u2028y",
    'say "no", now',
    "two\nlines",
    "a\rb",
    "\t",
    "1",
    "01",
    "-2.5",
)


@pytest.mark.parametrize("probabilities", [False, True])
def test_own_predictions_are_read_back_whatever_classes_are_called(tmp_path: Path, probabilities: bool) -> None:
    rng = np.random.default_rng(1)
    for count in range(2, len(STRANGE) + 1):
        classes = tuple(str(name) for name in rng.permutation(STRANGE)[:count])
        target = Target("classes", classes=classes, metrics="classes")
        ids = [*STRANGE, *map(str, range(10, 20))]
        chances = rng.dirichlet(np.ones(count), len(ids)).astype(np.float32)
        found = Predictions(ids, np.zeros(len(ids), np.float32), None, chances, None, target)
        text = predictions_csv([("test", found)])
        if probabilities:
            text = text.replace(",prediction,", ",answer,", 1)
        (tmp_path / "own.csv").write_text(text, newline="")
        read = read_answers(tmp_path / "own.csv", target, ids)
        assert read == dict(zip(ids, found.predicted.tolist(), strict=True))


@pytest.mark.parametrize(
    ("cell", "place"), [("1.0", 0), ("1", 0), ("2.000e+00", 1), ("01", None), ("0", None), ("１", None), ("1_0", None)]
)
def test_a_number_is_the_class_of_its_value(tmp_path: Path, cell: str, place: int | None) -> None:
    file = write(tmp_path / "peer.csv", [["ID", "Prediction"], ["a", cell]])
    target = Target("classes", classes=("1", "2", "10"), metrics="classes")
    if place is not None:
        assert read_answers(file, target) == {"a": place}
    else:
        with pytest.raises(DataError, match=f"line 2: '{cell}' is no class"):
            read_answers(file, target)


WRONG = {
    "a long cell": ([["id", "prediction"], ["a", "1" * 200_000]], "line 2: field larger than field limit"),
    "no column": ([["id", "answer"], ["a", "1"]], "needs the columns 'id' and 'prediction'; it has id, answer"),
    "no number": (answers(["much", *["1"] * 11]), "line 2: 'prediction' is 'much'; expected a number"),
    "not finite": (answers(["1", "nan", *["1"] * 10]), "line 3: 'prediction' is 'nan'; expected a number"),
    "twice": ([["id", "prediction"], ["a", "1"], ["a", "1"]], "line 3: id 'a' is answered twice; answer each once"),
    "cells": ([["id", "prediction"], ["a", "1", "2"]], "line 2 has 3 cells, the header 2; quote them"),
    "strangers": ([["id", "prediction"], ["a", "1"]], "has no answer for the 12 utterances to score; its first id is"),
    "nothing": ([["id", "prediction"]], "has no answer for the 12 utterances to score; it answers nothing"),
    "empty": ([], "needs the columns 'id' and 'prediction'; it has none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line(tiny: Path, tmp_path: Path, case: str) -> None:
    rows, said = WRONG[case]
    with pytest.raises(DataError) as caught:
        evaluate_answers(write(tmp_path / "peer.csv", rows), tiny / "other.pkl")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_an_unknown_class(emotion: Run, tiny: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "peer.csv", [["id", "prediction"], ["w-test0$_$0", "angry"]])
    with pytest.raises(DataError, match=r"line 2: 'angry' is no class \(did you mean 'anger'\?\); the classes"):
        evaluate_answers(file, tiny / "words.pkl", emotion)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--predictions", "a.csv"], "--predictions needs --data FILE, whose labels to score against"),
        (["--predictions", "a.csv", "--data", "b.pkl", "--noise", "all:0"], "--predictions takes one --data"),
        ([], "the following arguments are required: --run"),
    ],
)
def test_wrong_options(options: list[str], said: str, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["gmsa.evaluate"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda _: command.main(options), "evaluate")
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
