"""Evaluating another file: split by split, and never what the run was trained on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_data import LABELS, tiny_content, tiny_run, write_pickle

from gmsa import evaluate as command
from gmsa.data import add_noise, signal_power
from gmsa.data.loading import load_corpus, load_other
from gmsa.data.notes import collected
from gmsa.errors import DataError, RunError
from gmsa.reports.run import markdown_report
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.robustness import robustness
from gmsa.runs.scoring.answers import evaluate_answers
from gmsa.runs.scoring.matrix import evaluate_matrix
from gmsa.training.scoring import predict_utterances

pytestmark = pytest.mark.filterwarnings("ignore:the prediction is constant", "ignore:all labels are on one side")


def by_hand(run: Run, file: Path, split: str, seed: int = 1) -> dict[str, float]:
    found = load_other(file, run.dims, run.config.data, run.config.target).splits[split]
    utterances = [run.normalizer.apply(u) for u in found]
    return predict_utterances(run.load_model(seed), utterances, run.config, torch.device("cpu")).metrics(run.config)


def values(scores: dict, seed: int = 0) -> dict[str, float]:
    return {metric: spread["values"][seed] for metric, spread in scores.items()}


# --- splits ----------------------------------------------------------------------------------------------------------


def test_each_split_is_scored_under_its_own_name(run: Run, tiny: Path, tmp_path: Path) -> None:
    other = tiny / "other.pkl"
    found = run.evaluate(other, split="all", out=tmp_path / "out")
    assert values(found["test"]) == by_hand(run, other, "test")
    assert values(found["valid"]) == by_hand(run, other, "valid")
    assert values(found["others"]["train"]) == by_hand(run, other, "train")
    assert found["scored"] == {"train": 24, "valid": 12, "test": 12}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
    table = str(found)
    assert [line.split(" | ")[2] for line in table.splitlines()[2:]] == ["valid", "test", "train"]
    assert "| Metric | Test | Validation | train |" in markdown_report(found)
    alone = run.evaluate(other)
    assert (alone["valid"], "others" in alone, alone["scored"]) == ({}, False, {"test": 12})


def test_unlabeled_utterances_are_context_in_graphs_of_dialogues(tiny: Path, tmp_path: Path) -> None:
    """As the pool is in training, where the training split is predicted."""
    pool = tiny_content("p-")["train"]
    pool["id"] = [f"train{i // 4}$_${10 + i}" for i in range(24)]
    more = write_pickle(tmp_path / "pool.pkl", {"train": pool})
    graph = {"scope": "hierarchical", "context": "all"}
    own = tiny / "own.pkl"
    folder = tiny_run(
        tmp_path / "run", own, graph=graph, run={"seeds": [1]}, data={"path": str(own), "pool": str(more)}
    )
    run, model = Run(folder), Run(folder).load_model(1)
    content = tiny_content("o-")
    content["test"]["regression_labels"] = [x if i % 3 else np.nan for i, x in enumerate(LABELS[np.arange(12) % 7])]
    other = write_pickle(tmp_path / "other.pkl", content)
    found = run.evaluate(other, split="test", out=tmp_path / "out")
    assert found["scored"] == {"test": 8}
    assert values(found["test"]) == pytest.approx(by_hand(run, other, "test"), abs=1e-5)
    assert len((tmp_path / "out" / "predictions-1.csv").read_text().splitlines()) == 1 + 8
    matrix = evaluate_matrix([run], [other], split="test")["cells"][0]["scores"]
    assert values(matrix) == pytest.approx(values(found["test"]), abs=1e-6)
    unmasked = robustness(run, ["eta:0"], [0], data=other, split="test", write=False)
    means = {metric: spread["mean"] for metric, spread in unmasked["protocols"]["eta"]["rows"][0]["metrics"].items()}
    assert means == pytest.approx(values(found["test"]), abs=1e-6)

    answers = evaluate_answers(tmp_path / "out" / "predictions-1.csv", other, run, split="test")
    assert answers["run"]["scores"] == pytest.approx(answers["scores"], abs=1e-5)

    corpus = load_corpus(run.config.data, run.config.target)
    train, beside = ([run.normalizer.apply(u) for u in us] for us in (corpus.splits["train"], corpus.pool))
    rows = csv.DictReader((folder / "seed-1" / "predictions.csv").open())
    written = [float(row["prediction"]) for row in rows if row["split"] == "train"]
    alone, among = (predict_utterances(model, train, run.config, torch.device("cpu"), x).value for x in ((), beside))
    assert written == pytest.approx(among.tolist(), abs=1e-6)
    assert np.abs(alone - among).max() > 1e-4


@pytest.mark.parametrize(
    ("splits", "scored", "told"),
    [
        (("train", "valid"), {"valid": 12}, "has no split 'test'; scored: valid; choose with --split"),
        (("valid", "test"), {"test": 12}, ""),
    ],
)
def test_training_data_is_never_called_test(run: Run, tmp_path: Path, splits, scored, told: str) -> None:
    content = tiny_content("o-")
    file = write_pickle(tmp_path / "some.pkl", {name: content[name] for name in splits})
    with collected() as notes:
        found = run.evaluate(file)
    assert found["scored"] == scored
    assert any(told in note for note in notes) if told else not any("--split" in note for note in notes)
    only = write_pickle(tmp_path / "only.pkl", {"train": content["train"]})
    with pytest.raises(DataError, match="only its split 'train' has labels; score that with --split train"):
        run.evaluate(only)
    assert run.evaluate(only, split="train")["test"] == {}


def test_a_file_without_splits_is_scored_whole(run: Run, tmp_path: Path) -> None:
    found = run.evaluate(write_pickle(tmp_path / "flat.pkl", tiny_content("o-")["test"]), out=tmp_path / "out")
    assert found["scored"] == {"all": 12}
    assert found["test"] == found["valid"] == {}
    assert "MAE" in (tmp_path / "out" / "summary.tex").read_text()


@pytest.mark.parametrize("missing", ["fixed:ta", {"test": "eta:0.5"}])
def test_own_data_scores_as_in_training(tiny: Path, tmp_path: Path, missing) -> None:
    """Also what no training utterance had is left out, and what was masked is masked, by whatever option."""
    own, test = tiny / "own.pkl", "predictions-1.csv"
    run = Run(tiny_run(tmp_path / "run", own, data={"path": str(own), "missing": missing}, run={"seeds": [1]}))
    whole = run.evaluate(out=tmp_path / "whole")
    assert whole["test"] == run.metrics["test"]
    expected = [row for row in (tmp_path / "whole" / test).read_text().splitlines() if row.startswith("test")]
    for i, options in enumerate(({"split": "test"}, {"data": own}, {"data": own, "split": "test"})):
        found = run.evaluate(**options, out=tmp_path / str(i))
        assert found["test"] == whole["test"]
        assert found["missing"] == {"test": whole["missing"]["test"]}
        assert (tmp_path / str(i) / test).read_text().splitlines()[1:] == expected
    train = run.evaluate(split="train", include_training=True)
    assert train["scored"] == {"train": 24}


# --- the run's own training utterances -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "all"])
@pytest.mark.parametrize("copied", [False, True])
def test_the_runs_own_training_split_is_refused(run: Run, tiny: Path, tmp_path: Path, split: str, copied: bool) -> None:
    file = Path(shutil.copy(tiny / "own.pkl", tmp_path / "copy.pkl")) if copied else None
    said = r"'.*intensity' was trained on 24 of the utterances to score \(split 'train', the first 'train0\$_\$0'\)"
    with pytest.raises(RunError, match=said) as caught:
        run.evaluate(file, split=split)
    assert len(str(caught.value)) < 400
    found = run.evaluate(file, split=split, include_training=True)
    assert found["scored"]["train"] == 24
    assert values(found["others"]["train"]) == by_hand(run, tiny / "own.pkl", "train")
    assert run.evaluate(file)["test"] == run.metrics["test"]


def test_training_utterances_among_others_are_found(run: Run, tmp_path: Path) -> None:
    own, other = tiny_content()["train"], tiny_content("o-")["test"]
    mixed = {
        key: np.concatenate([x[:3], other[key]]) if isinstance(x, np.ndarray) else [*x[:3], *other[key]]
        for key, x in own.items()
    }
    file = write_pickle(tmp_path / "mixed.pkl", {"test": mixed})
    with pytest.raises(RunError, match=r"was trained on 3 of the utterances to score \(split 'test'"):
        run.evaluate(file)
    assert run.evaluate(file, include_training=True)["scored"] == {"test": 12, "train": 3}
    for modality in ("text", "audio", "vision"):
        mixed[modality] = mixed[modality].astype(np.float16)
    with pytest.raises(RunError, match=r"was trained on 3 of the utterances to score \(split 'test'"):
        run.evaluate(write_pickle(tmp_path / "half.pkl", {"test": mixed}))
    # The same ids of other utterances are no training utterances.
    mixed["text"] = mixed["text"] + 1
    with collected() as notes:
        assert run.evaluate(write_pickle(tmp_path / "ids.pkl", {"test": mixed}))["scored"] == {"test": 15}
    said = "3 ids, such as 'train0$_$0', are also ids of the training split of"
    assert any(said in note and "with other features" in note for note in notes)


def test_what_cannot_be_checked_is_said(run: Run, tiny: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run.folder, tmp_path / "moved"))
    config = (moved / "config.yaml").read_text().replace(str(tiny / "own.pkl"), "gone.pkl")
    (moved / "config.yaml").write_text(config)
    content = tiny_content()
    content["test"], content["train"] = content["train"], content["test"]
    with collected() as notes:
        Run(moved).evaluate(write_pickle(tmp_path / "swapped.pkl", content))
    assert any("24 ids, such as 'train0$_$0', are also ids of the training split" in note for note in notes)


@pytest.mark.parametrize(
    ("split", "said"),
    [("tset", r"has no labeled split 'tset' \(did you mean 'test'\?\); it has "), ("fold3", "has no labeled split")],
)
def test_an_unknown_split(run: Run, tiny: Path, split: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run.evaluate(tiny / "other.pkl", split=split)


# --- noise -----------------------------------------------------------------------------------------------------------


def test_noise_by_hand(run: Run, tiny: Path, tmp_path: Path) -> None:
    options = ["--noise", "audio:0dB,20dB", "--noise", "text+vision:5dB", "--noise", "all:0", "--mask-seeds", "0,3"]
    command.main(["--run", str(run.folder), "--data", str(tiny / "other.pkl"), *options, "--out", str(tmp_path / "o")])
    report = json.loads((tmp_path / "o" / "robustness.json").read_text())
    assert list(report["noise"]) == ["audio", "text+vision", "all"]
    rows = report["noise"]["audio"]["rows"]
    assert [row.get("decibels") for row in rows] == [None, 20, 0]
    found = load_other(tiny / "other.pkl", run.dims, run.config.data, run.config.target).splits["test"]
    utterances = [run.normalizer.apply(u) for u in found]
    power = signal_power(utterances, list(run.dims))
    model, cpu = run.load_model(2), torch.device("cpu")
    for name, ratio in (("audio", {"audio": 0.0}), ("all", dict.fromkeys(run.dims, 0.0))):
        noisy = add_noise(utterances, ratio, 3, power=power)
        expected = predict_utterances(model, noisy, run.config, cpu).metrics(run.config)
        last = report["noise"][name]["rows"][-1]
        assert {metric: spread["values"][3] for metric, spread in last["metrics"].items()} == expected
    assert values(rows[0]["metrics"], 1) == by_hand(run, tiny / "other.pkl", "test", seed=2)
    text = (tmp_path / "o" / "robustness.md").read_text()
    assert "### Noise: text+vision" in text
    assert "| no noise |" in text
    assert (tmp_path / "o" / "figures" / "robustness_noise.png").exists()
    lines = (tmp_path / "o" / "robustness.csv").read_text().splitlines()
    assert sum(",noise," in line for line in lines) == 2 * (1 + 2 + 2 + 1 + 2 + 1 + 2)
    assert not (run.folder / "robustness.json").exists()


@pytest.mark.slow
def test_runs_are_compared_with_noise(run: Run, tiny: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(run.folder, tmp_path / "twin")
    options = ["--run", str(run.folder), "--run", str(twin), "--noise", "audio:10dB,0dB", "--mask-seeds", "0"]
    command.main([*options, "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert "| dB | intensity | twin |" in text
    line = next(line for line in text.splitlines() if line.startswith("| 10 |"))
    assert line.split(" | ")[1] == line.split(" | ")[2].removesuffix(" |")
    assert (tmp_path / "out" / "figures" / "robustness_noise.svg").exists()


def test_modalities_of_any_name(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    file = write_pickle(tmp_path / "brain.pkl", tiny_content("b-", text=(5, 4), eeg=(9, 3), gaze=(4, 2)))
    run = Run(tiny_run(tmp_path / "brain", file, data={"modalities": "auto"}, run={"seeds": [1]}))
    found = run.evaluate(missing=["fixed:text+eeg,gaze", "eta:0.5"], noise="eeg+gaze:0dB", mask_seeds=0)
    assert [row["left"] for row in found["protocols"]["fixed"]["rows"]] == ["text+eeg+gaze", "gaze", "text+eeg"]
    assert list(found["noise"]) == ["eeg+gaze"]
    whole = found["protocols"]["fixed"]["rows"][0]["metrics"]
    assert whole == found["noise"]["eeg+gaze"]["rows"][0]["metrics"] == run.metrics["test"]
    assert run.attention(file).node_types == ("val", "cls", "text", "eeg", "gaze")
    assert len(run.predict({"gaze": np.ones((2, 3, 2), np.float32)})) == 2
