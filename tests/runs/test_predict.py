"""Predicting: clip by clip, of any length, under the names of the file."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa import predict as command
from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Row, Utterance, load_corpus, write_store
from gmsa.data.notes import collected
from gmsa.errors import DataError
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.inputs import read_inputs
from gmsa.runs.scoring import windows as cutting
from gmsa.system import cli
from gmsa.training.scoring import predict_utterances


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def clip(name: str = "a", text: int = 3, audio: int = 5, vision: int = 2, **more: Any) -> Utterance:
    g = torch.Generator().manual_seed(text + audio)
    shapes = {"text": (text, 4), "audio": (audio, 3), "vision": (vision, 2)}
    return Utterance(name, {m: torch.randn(*shape, generator=g) for m, shape in shapes.items()}, **more)


# --- names -----------------------------------------------------------------------------------------------------------


def test_splits_and_labels_are_those_of_the_file(run: Run, tiny: Path, tmp_path: Path) -> None:
    command.main(["--run", str(run.folder), "--input", str(tiny / "other.pkl"), "--out", str(tmp_path / "out.csv")])
    rows, content = rows_of(tmp_path / "out.csv"), tiny_content("o-")
    assert [r["split"] for r in rows] == ["train"] * 24 + ["valid"] * 12 + ["test"] * 12
    assert [r["id"] for r in rows] == [i for columns in content.values() for i in columns["id"]]
    labels = [x for columns in content.values() for x in columns["regression_labels"]]
    assert [np.float32(r["label"]) for r in rows] == labels
    assert "reason" not in rows[0]
    answers = run.predict(tiny / "other.pkl")
    assert [np.float32(r["prediction"]) for r in rows] == answers.values.tolist() == answers.predicted.tolist()
    assert answers.splits == [r["split"] for r in rows]


@pytest.mark.parametrize("classes", [("anger", "fear", "joy"), ("a", "b", "c", "d", "e", "f")])
def test_labels_of_a_store_are_read_where_its_classes_are_those_of_the_run(
    emotion: Run, tmp_path: Path, classes: tuple[str, ...]
) -> None:
    settings = TargetConfig(kind="classes", classes=classes)
    dtypes = dict.fromkeys(("text", "audio", "vision"), "float32")
    rows = [Row("test", clip(name, label=float(i)), named=name) for i, name in enumerate(classes)]
    store = write_store(tmp_path / "store", rows, dtypes, settings, {})
    fits = len(classes) == 3
    with collected() as notes:
        found = read_inputs(store, {"text": 4, "audio": 3, "vision": 2}, emotion.config)
    assert [u.label for u in found.utterances] == ([0.0, 1.0, 2.0] if fits else [None] * 6)
    assert [note.endswith("(its labels are not read)") for note in notes] == ([] if fits else [True])


def test_a_file_without_labels_or_splits(run: Run, tmp_path: Path) -> None:
    columns = {k: v for k, v in tiny_content("o-")["test"].items() if k != "regression_labels"}
    run.predict(write_pickle(tmp_path / "flat.pkl", columns)).to_csv(tmp_path / "out.csv")
    assert {(r["split"], r["label"]) for r in rows_of(tmp_path / "out.csv")} == {("input", "")}


def test_the_utterances_of_a_file_without_ids_are_numbered_as_those_of_arrays(run: Run, tmp_path: Path) -> None:
    columns = {k: v for k, v in tiny_content("o-")["test"].items() if k not in ("id", "regression_labels")}
    arrays = run.predict(columns)
    file = write_pickle(tmp_path / "flat.pkl", columns)
    with collected() as notes:
        command.main(["--run", str(run.folder), "--input", str(file), "--out", str(tmp_path / "out.csv")])
    rows = rows_of(tmp_path / "out.csv")
    assert [r["id"] for r in rows] == arrays.ids == [str(i) for i in range(12)]
    assert [np.float32(r["prediction"]) for r in rows] == arrays.values.tolist()
    assert any("has no key 'id'; its utterances are called 0 to 11, in their order" in note for note in notes)
    with pytest.raises(DataError, match="every utterance needs an id"):
        load_corpus(DataConfig(path=str(file)))


def test_classes_have_their_names(emotion: Run, tiny: Path, tmp_path: Path) -> None:
    answers = emotion.predict(tiny / "words.pkl")
    assert answers.values is None
    assert answers.classes == ("anger", "fear", "joy")
    assert answers.predicted.tolist() == [answers.classes[k] for k in answers.probabilities.argmax(1)]
    assert repr(answers) == "Answers(48 utterances, 3 classes)"
    answers.to_csv(tmp_path / "out.csv")
    row = rows_of(tmp_path / "out.csv")[0]
    assert (row["label"], row["prediction"]) == ("joy", answers.predicted[0])
    assert np.float32(row["p_joy"]) == answers.probabilities[0, 2]
    assert [key for key in row if key.startswith("gate")] == ["gate_cls"]


# --- bad clips -------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Utterance, str]] = {
    "nothing": (clip("nothing", 0, 0, 0), "has no text or audio or vision to predict from; give at least one of them"),
    "dims": (replace(clip("dims"), features={"text": torch.ones(2, 5)}), "'text' has 5 features per step, training"),
    "axes": (replace(clip("axes"), features={"text": torch.ones(4)}), "'text' must be [steps, features] (got [4])"),
    "nan": (replace(clip("nan"), features={"text": torch.full((2, 4), torch.nan)}), "'text' holds NaN or infinity"),
    "huge": (replace(clip("huge"), features={"text": torch.full((2, 4), 3e38)}), "is not finite: its 'text' features"),
    "other": (replace(clip("other"), features={"eeg": torch.ones(2, 4)}), "has no text or audio or vision to predict"),
}


def test_a_bad_clip_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    good = [clip("x", label=1.5), clip("y", 1, 0, 0)]
    with collected() as notes:
        answers = run.predict([good[0], *(bad for bad, _ in BAD.values()), good[1]])
    assert answers.ids == ["x", *BAD, "y"]
    assert list(answers.reasons) == list(BAD)
    for name, (_, reason) in BAD.items():
        assert reason in answers.reasons[name]
        assert sum(f"not predicted: '{name}': " in note for note in notes) == 1
    assert all(len(note) <= 400 and "\n" not in note for note in notes)
    assert np.flatnonzero(np.isfinite(answers.values)).tolist() == [0, len(BAD) + 1]
    np.testing.assert_allclose(answers.values[[0, -1]], run.predict(good).values, atol=1e-6)
    assert f"{len(BAD)} not predicted" in repr(answers)
    answers.to_csv(tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert [bool(r["reason"]) for r in rows] == [False, *[True] * len(BAD), False]
    assert {r["prediction"] for r in rows if r["reason"]} == {""}
    assert rows[0]["label"] == "1.5"


@pytest.mark.parametrize("name", BAD)
def test_strict_stops_at_a_bad_clip(run: Run, name: str) -> None:
    bad, reason = BAD[name]
    kind = DataError if name != "huge" else Exception
    with pytest.raises(kind) as caught:
        run.predict([clip("x"), bad], strict=True)
    assert reason in str(caught.value)
    assert f"'{name}'" in str(caught.value)


def test_a_bad_clip_of_a_file(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    columns = tiny_content("o-")["test"]
    for i in (2, 5):
        columns["text"][i, 0, 0] = np.nan
    file = write_pickle(tmp_path / "bad.pkl", {"test": columns})
    command.main(["--run", str(run.folder), "--input", str(file), "--out", str(tmp_path / "out.csv")])
    rows = rows_of(tmp_path / "out.csv")
    assert {r["id"] for r in rows if r["reason"]} == {columns["id"][2], columns["id"][5]}
    assert len(rows) == 12
    assert "Wrote 10 predictions" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["gmsa.predict"])
    arguments = ["--run", str(run.folder), "--input", str(file), "--out", str(tmp_path / "strict.csv"), "--strict"]
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda _: command.main(arguments), "predict")
    assert stopped.value.code == 2
    (line,) = (text for text in capsys.readouterr().err.splitlines() if "error" in text)
    assert columns["id"][2] in line
    assert not (tmp_path / "strict.csv").exists()


def test_of_many_bad_clips_the_first_are_told(run: Run) -> None:
    with collected() as notes:
        run.predict([clip("x"), *(clip(f"bad{i}", 0, 0, 0) for i in range(13))])
    told = [note for note in notes if note.startswith("not predicted")]
    assert len(told) == 11
    assert told[-1].startswith("not predicted: 3 more utterances")


def test_what_the_run_lacks_or_does_not_know_is_said(run: Run) -> None:
    text = torch.ones(2, 4)
    with collected() as notes:
        run.predict([Utterance("a", {"text": text, "eeg": torch.ones(2, 9)})])
    assert any("'a': 'eeg' is no modality that the run knows; it is not read" in note for note in notes)
    assert sum("which the run was trained with" in note for note in notes) == 2  # audio, vision
    with collected() as notes:
        run.predict({"text": [text.numpy()], "visual": [1]})
    assert any("'visual' is nothing that the run knows" in note for note in notes)
    with collected() as notes:
        run.predict([Utterance("a", {"text": 1e7 * text}), Utterance("b", {"text": 1e7 * text})])
    assert any("the 'text' features of 'a' and 1 others are beyond 1e+06" in note for note in notes)


# --- arrays of two axes ----------------------------------------------------------------------------------------------


def test_arrays_of_two_axes(run: Run) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    with pytest.raises(DataError, match="'text' has two axes, so it holds 5 clips of one step or one clip of 5 steps"):
        run.predict({"text": x})
    one = run.predict({"text": x[None]}).values
    assert np.array_equal(run.predict({"text": x, "id": "a"}).values, one)
    assert np.array_equal(run.predict({"text": torch.from_numpy(x), "id": ["a"]}).values, one)
    five = run.predict({"text": x, "id": list("abcde")})
    assert five.ids == list("abcde")
    np.testing.assert_allclose(five.values, run.predict({"text": x[:, None]}).values, atol=1e-6)
    # Of unequal lengths they can be one clip only.
    audio = np.ones((7, 3), np.float32)
    together = run.predict({"text": x, "audio": audio})
    assert np.array_equal(together.values, run.predict({"text": x[None], "audio": audio[None]}).values)
    with pytest.raises(DataError, match="'text' has 5 features per step, training has 4"):
        run.predict({"text": x.T[None]})


# --- long clips ------------------------------------------------------------------------------------------------------


def test_a_long_clip_is_the_mean_of_its_windows(run: Run) -> None:
    long = clip("long", text=40, audio=7)  # the model takes 16 tokens of text
    short = clip("short")
    with collected() as notes:
        answers = run.predict([short, long, clip("z")], seeds=1)
    assert any("1 utterance with more tokens than 'model.positions' (16) allows, such as 'long'" in n for n in notes)
    whole = run.prepare([long])[0].features
    cuts = {"text": (0, 13, 26, 40), "audio": (0, 2, 4, 7), "vision": (0, 0, 1, 2)}
    parts = [Utterance(f"w{k}", {m: whole[m][c[k] : c[k + 1]] for m, c in cuts.items()}) for k in range(3)]
    found = predict_utterances(run.load_model(1), parts, run.config, torch.device("cpu"))
    weights = np.array([part.steps for part in parts]) / 49
    np.testing.assert_allclose(answers.values[1], weights @ found.value, atol=1e-5)
    np.testing.assert_allclose(answers.probabilities[1], weights @ found.probabilities, atol=1e-5)
    np.testing.assert_allclose(answers.values[0], run.predict([short], seeds=1).values[0], atol=1e-5)
    assert answers.probabilities.sum(1) == pytest.approx(1, abs=1e-5)


def test_the_longest_clip_takes_little_at_a_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(model, utterances, config, device):
        sizes.extend([config.optim.batch_size, max(u.lengths["text"] for u in utterances)])
        return predict_utterances(model, utterances, config, device)

    monkeypatch.setattr(cutting, "predict_utterances", watched)
    answers = run.predict([clip("long", text=4_000)], seeds=1)
    assert np.isfinite(answers.values).all()
    assert sizes == [cutting.AT_A_TIME, 16]


def test_videos_of_too_many_clips_are_cut() -> None:
    utterances = [clip(f"v$_${i}") for i in range(7)] + [clip("w$_$1")]
    with collected() as notes:
        found = cutting._shorter_videos(utterances[::-1], 3)[::-1]
    assert [u.id for u in found] == [u.id for u in utterances]
    assert [u.video for u in found] == ["v (1 of 3)"] * 3 + ["v (2 of 3)"] * 2 + ["v (3 of 3)"] * 2 + ["w"]
    assert "video 'v' has 7 utterances, 'model.positions' allows 3: cut into 3 parts" in notes[0]


def test_the_context_of_an_utterance_ends_at_its_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicting the file of a run says what the run said of its splits, where two of them share a dialogue."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    content, first = tiny_content(), 0
    for columns in content.values():
        columns["id"] = [f"all$_${first + i}" for i in range(len(columns["id"]))]
        first += len(columns["id"])
    own = write_pickle(tmp_path / "own.pkl", content)
    run = Run(tiny_run(tmp_path / "shared", own, graph={"scope": "hierarchical", "context": 3}, run={"seeds": [1]}))
    answers = run.predict(own)
    found = {(s, i): v for s, i, v in zip(answers.splits, answers.ids, answers.values, strict=True)}
    written = rows_of(run.folder / "seed-1" / "predictions.csv")
    assert {row["split"] for row in written} >= {"valid", "test"}
    for row in written:
        assert found[row["split"], row["id"]] == pytest.approx(float(row["prediction"]), abs=1e-5)
    as_one = run.predict([replace(u, of_video="all") for u in read_inputs(own, run.dims, run.config).utterances])
    assert np.abs(as_one.values - answers.values).max() > 1e-4  # one dialogue would have said something else
