"""Explanations of runs: from Python, and as the command writes them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_data import LABELS, tiny_run

from gmsa import predict as command
from gmsa.data import Utterance
from gmsa.errors import ConfigError, DataError, RunError
from gmsa.explain import NEIGHBORS
from gmsa.runs import Run


def test_values_are_the_predictions_and_the_base_the_mean_label(run: Run, explained: Path) -> None:
    file = explained / "own.pkl"
    answers, found = run.predict(file), run.explain(file, words=False)
    assert [item.id for item in found] == answers.ids
    np.testing.assert_allclose([item.value for item in found], answers.values, atol=1e-5)
    assert found.seeds == (1, 2)
    base = np.mean([LABELS[i % 7] for i in range(24)])
    for item in found:
        assert item.base == pytest.approx(base, abs=1e-6)
        assert item.base_is == "mean training label"
        assert item.base + sum(item.modalities.values()) == pytest.approx(item.value, abs=1e-5)
    assert list(found.importance()) == ["text", "audio", "vision"]
    assert found.importance()["text"] == pytest.approx(np.mean([abs(item.modalities["text"]) for item in found]))
    assert repr(found).startswith("Explanations(48 utterances; mean |contribution| text ")


def test_one_seed_and_one_utterance(run: Run, explained: Path) -> None:
    found = run.explain(explained / "own.pkl", ids="test0$_$2", seeds=2)
    assert len(found) == 1
    answers = run.predict(explained / "own.pkl", seeds=2)
    assert found["test0$_$2"].value == pytest.approx(answers.values[answers.ids.index("test0$_$2")], abs=1e-5)
    assert set(found[0].spread.values()) == {0.0}
    first = run.explain(explained / "own.pkl", limit=3, words=False)
    assert [item.id for item in first] == answers.ids[:3]
    assert first[np.int64(1)] is first[1]  # type: ignore[index]
    assert first[1:] == list(first)[1:]  # type: ignore[index]


def test_words_are_named_where_there_are_as_many(run: Run, explained: Path) -> None:
    found = run.explain(explained / "own.pkl", ids=["test0$_$0", "test2$_$11"], seeds=1)
    words = found[0].words
    assert words is not None
    assert words.labels["text"] == [f"<b>w{k}</b>" for k in range(len(words.tokens["text"]))]
    assert words.labels["audio"][:1] == ["token 1"]
    other = found[1].words
    assert other is not None
    assert other.labels["text"] == [f"token {k + 1}" for k in range(len(other.tokens["text"]))]


def test_a_missing_modality_is_named(run: Run) -> None:
    rng = np.random.default_rng(0)
    found = run.explain({"text": [rng.standard_normal((4, 4))], "id": ["a"]})
    assert found["a"].missing == ("audio", "vision")
    assert found["a"].modalities["text"] == pytest.approx(found["a"].value - found["a"].base, abs=1e-5)
    assert {*found["a"].subsets} == {(), ("text",)}


def test_classes_and_their_shares(explained: Path) -> None:
    run = Run(explained / "emotion")
    found = run.explain(explained / "words.pkl", words=False)
    answers = run.predict(explained / "words.pkl")
    assert [item.predicted_class for item in found] == answers.predicted.tolist()
    np.testing.assert_allclose([item.value for item in found], answers.probabilities.max(1), atol=1e-5)
    assert found[0].base == pytest.approx(1 / 3)
    assert found[0].base_is == "share of the training labels"


def test_an_utterance_in_its_dialogue(explained: Path) -> None:
    run = Run(explained / "dialogue")
    file = explained / "own.pkl"
    item = run.explain(file, ids="test0$_$1")[0]
    answers = run.predict(file)
    assert item.value == pytest.approx(answers.values[answers.ids.index("test0$_$1")], abs=1e-5)
    assert item.neighbors is not None
    assert item.base + sum(item.modalities.values()) + item.neighbors == pytest.approx(item.value, abs=1e-5)
    assert item.without(NEIGHBORS) == pytest.approx(item.subsets["text", "audio", "vision"])
    assert item.words is not None
    assert item.words.neighbors is not None


def test_a_run_that_does_not_keep_the_base_says_what_it_starts_from(run: Run, explained: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    environment = json.loads((old / "environment.json").read_text())
    del environment["base"]
    (old / "environment.json").write_text(json.dumps(environment))
    item = Run(old).explain(explained / "own.pkl", limit=1)[0]
    assert item.base_is == "prediction for features that are all 0"
    assert item.words is not None
    assert item.base == pytest.approx(item.words.start, abs=1e-5)
    environment["base"] = [0.1, 0.2]
    (old / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunError, match="'base' must have 1 numbers"):
        Run(old).explain(explained / "own.pkl", limit=1)
    environment["base"] = ["x"]
    (old / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunError, match="'base\\[0\\]' must be a finite number"):
        Run(old)


def test_a_saved_model_explains_as_its_run(run: Run, explained: Path, tmp_path: Path) -> None:
    saved = Run(run.save(tmp_path / "saved"))
    own, other = (one.explain(explained / "own.pkl", limit=1)[0] for one in (run, saved))
    assert other.as_dict() == own.as_dict()


def test_what_cannot_be_explained_is_refused(run: Run, explained: Path) -> None:
    file = explained / "own.pkl"
    with pytest.raises(
        DataError, match=r"no utterance of the input is 'test0\$_\$22' \(did you mean 'test0\$_\$2'\?\)"
    ):
        run.explain(file, ids="test0$_$22")
    with pytest.raises(DataError, match="no utterance to explain; name at least one id"):
        run.explain(file, ids=[])
    with pytest.raises(DataError, match="no utterance to predict; give at least one"):
        run.explain([])
    with pytest.raises(RunError, match="has no seed 7"):
        run.explain(file, seeds=7)
    for limit in (0, 1.5, "3"):
        with pytest.raises(ConfigError, match="from 1 on"):
            run.explain(file, limit=limit)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'nobody' is not explained"):
        run.explain(file, limit=1)["nobody"]


def test_what_cannot_be_predicted_is_not_explained(run: Run) -> None:
    good, bad = np.zeros((2, 4)), np.full((2, 4), np.nan)
    utterances = [Utterance(name, {"text": torch.tensor(x).float()}) for name, x in (("good", good), ("bad", bad))]
    found = run.explain(utterances)
    assert [item.id for item in found] == ["good"]
    assert "NaN or infinity" in found.reasons["bad"]
    with pytest.raises(DataError, match="'bad' cannot be explained: 'text' holds NaN"):
        run.explain(utterances, ids="bad")


def test_a_pretrained_run_predicts_nothing_to_explain(explained: Path) -> None:
    folder = tiny_run(
        explained / "pretrained", explained / "own.pkl", protocol={"name": "pretrain"}, pretrain={"epochs": 1}
    )
    with pytest.raises(RunError, match="predict nothing"):
        Run(folder).explain(explained / "own.pkl")


def test_an_utterance_that_is_too_long_does_not_stop_the_others(explained: Path) -> None:
    run = Run(tiny_run(explained / "short", explained / "own.pkl", model={"positions": 5}, run={"seeds": [1]}))
    rng = np.random.default_rng(0)
    found = run.explain({"text": [rng.standard_normal((n, 4)) for n in (3, 9)], "id": ["short", "long"]})
    assert [item.id for item in found] == ["short"]
    assert "it has more tokens than 'model.positions' (5) allows" in found.reasons["long"]
    with pytest.raises(DataError, match="'long' is not explained: it has more tokens"):
        found["long"]


@pytest.mark.parametrize("name", ["intensity", "emotion", "dialogue"])
def test_the_command_writes_files_that_agree(name: str, explained: Path, tmp_path: Path) -> None:
    out = tmp_path / "why"
    file = explained / ("words.pkl" if name == "emotion" else "own.pkl")
    prefix = "w-" if name == "emotion" else ""
    ids = [f"{prefix}test0$_$0", f"{prefix}test2$_$11"]
    options = [part for i in ids for part in ("--id", i)]
    command.main(["--run", str(explained / name), "--input", str(file), "--explain", str(out), *options])
    content = json.loads((out / "explanations.json").read_text())
    assert [item["id"] for item in content["utterances"]] == ids
    assert content["run"] == name
    first = content["utterances"][0]
    rows = list(csv.DictReader((out / "modalities.csv").open(newline="")))
    assert float(rows[0]["prediction"]) == pytest.approx(first["value"])
    assert float(rows[0]["contribution_text"]) == pytest.approx(first["modalities"]["text"])
    assert (rows[0]["contribution_neighbors"] != "") == (name == "dialogue")
    words = list(csv.DictReader((out / "words.csv").open(newline="")))
    own = [row for row in words if row["id"] == ids[0] and row["modality"] == "text"]
    assert [row["token"] for row in own] == [t["token"] for t in first["words"]["tokens"]["text"]]
    assert {row["faithful"] for row in own} == {"yes" if first["words"]["faithful"] else "no"}
    page = (out / "explanations.html").read_text()
    assert "default-src 'none'" in page
    assert 'src="http' not in page
    assert "<b>w0" not in page
    assert ("&lt;b&gt;w0&lt;/b&gt;</span>" in page) == (name != "emotion")
    for item in content["utterances"]:
        assert item["id"] in page
        unfaithful = not item["words"]["faithful"]
        assert ("No faithful explanation by tokens" in page) or not unfaithful


def test_the_page_has_its_figure(rendered: None, run: Run, explained: Path, tmp_path: Path) -> None:
    from gmsa.runs.states.explanation_files import explain_file

    explain_file(run, explained / "own.pkl", tmp_path / "why", limit=2)
    assert (tmp_path / "why" / "modalities.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/svg+xml;base64," in (tmp_path / "why" / "explanations.html").read_text()


def test_the_command_refuses_what_does_not_go_together(run: Run, explained: Path, tmp_path: Path, capsys) -> None:
    common = ["--run", str(run.folder), "--input", str(explained / "own.pkl")]
    for options, text in (
        (["--out", str(tmp_path / "a.csv"), "--limit", "3"], "add --explain FOLDER"),
        (["--explain", str(tmp_path), "--stream"], "--explain"),
    ):
        with pytest.raises(SystemExit):
            command.main([*common, *options])
        assert text in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file, not a folder"):
        command.main([*common, "--explain", str(tmp_path / "file")])
