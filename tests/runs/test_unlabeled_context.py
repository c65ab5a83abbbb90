"""Unlabeled utterances of validation and test: they are context wherever their split is scored, and never scored."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa import evaluate as command
from gmsa.config import from_dict
from gmsa.data.loading import load_corpus, load_other
from gmsa.data.notes import collected
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.prepare import prepare
from gmsa.runs.robustness import robustness
from gmsa.training.scoring import predict_utterances
from gmsa.training.tasks import FineTuning

pytestmark = pytest.mark.filterwarnings(
    "ignore:the prediction is constant", "ignore:all labels are on one side", "ignore::gmsa.errors.DataWarning"
)
MISSING = {"train": "none", "valid": "eta:0.3", "test": "eta:0.3", "unit": "dialogue"}


def some_unlabeled(keep: bool = True) -> dict[str, Any]:
    """The content of a file: a third of each split has no label, and is left out of validation and test unless kept."""
    content = tiny_content()
    for split, columns in content.items():
        count = len(columns["id"])
        labeled = [i for i in range(count) if i % 3 != 1]
        columns["regression_labels"] = [x if i % 3 != 1 else np.nan for i, x in enumerate(columns["regression_labels"])]
        if not keep and split != "train":
            for key, values in columns.items():
                columns[key] = values[labeled] if isinstance(values, np.ndarray) else [values[i] for i in labeled]
    return content


def trained(folder: Path, scope: str, keep: bool = True, **data: Any) -> Run:
    file = write_pickle(folder / f"{scope}_{keep}.pkl", some_unlabeled(keep))
    data = {"path": str(file), "name": "tiny", "missing": MISSING} | data
    graph = {"scope": scope, "context": "all"} if scope != "utterance" else {}
    return Run(tiny_run(folder / f"{scope}_{keep}", file, data=data, graph=graph, run={"seeds": [1]}))


def rows_of(run: Run, split: str) -> dict[str, float]:
    with (run.folder / "seed-1" / "predictions.csv").open(newline="") as lines:
        return {row["id"]: float(row["prediction"]) for row in csv.DictReader(lines) if row["split"] == split}


def values(scores: Mapping[str, Any]) -> dict[str, float]:
    return {metric: spread["values"][0] for metric, spread in scores.items()}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
def test_they_are_context_wherever_their_split_is_scored(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[dict[str, float]] = []
    score = FineTuning.score
    monkeypatch.setattr(FineTuning, "score", lambda *given: validated.append(score(*given)) or validated[-1])
    run = trained(tmp_path, scope)
    summary = json.loads((run.folder / "summary.json").read_text())
    model, cpu = run.load_model(1), torch.device("cpu")
    prepared = prepare(run.config)
    for split in ("valid", "test"):
        labeled, beside = prepared.splits[split], prepared.context[split]
        assert (len(labeled), len(beside)) == (8, 4)
        written = rows_of(run, split)
        assert [*written] == [u.id for u in labeled]
        whole = predict_utterances(model, [*beside, *labeled], run.config, cpu)
        by_id = dict(zip(whole.ids, whole.value.tolist(), strict=True))
        assert [*written.values()] == pytest.approx([by_id[name] for name in written], abs=1e-6)
        alone = predict_utterances(model, labeled, run.config, cpu).value
        assert np.abs(alone - list(written.values())).max() > 1e-4
    # Training chooses its best epoch by the same scores, and evaluation has them again.
    assert validated == [values(summary["valid"])]
    again = run.evaluate()
    assert (again["valid"], again["test"]) == (summary["valid"], summary["test"])
    assert run.evaluate(split="test")["test"] == summary["test"]
    command.main(["--run", str(run.folder), "--split", "train", "--include-training", "--out", str(tmp_path / "train")])
    with (tmp_path / "train" / "predictions-1.csv").open(newline="") as lines:
        scored = {row["id"]: float(row["prediction"]) for row in csv.DictReader(lines)}
    of_training = rows_of(run, "train")
    assert len(scored) == 16
    assert [*scored.values()] == pytest.approx([of_training[name] for name in scored], abs=1e-6)
    # Also where another file calls them otherwise.
    other = write_pickle(tmp_path / "other.pkl", {"test": some_unlabeled()["train"]})
    with collected():
        run.evaluate(other, include_training=True, out=tmp_path / "other")
    with (tmp_path / "other" / "predictions-1.csv").open(newline="") as lines:
        assert {row["id"]: float(row["prediction"]) for row in csv.DictReader(lines)} == pytest.approx(scored, abs=1e-6)


def test_masked_and_noisy_splits_are_scored_among_them(tmp_path: Path) -> None:
    run = trained(tmp_path, "hierarchical", missing="none")
    found = robustness(run, ["eta:0,0.5"], [0], write=False)
    nothing, half = found["protocols"]["eta"]["rows"]
    means = {metric: spread["mean"] for metric, spread in nothing["metrics"].items()}
    assert means == pytest.approx(values(json.loads((run.folder / "summary.json").read_text())["test"]), abs=1e-6)
    lacking = half["realized"]["mean"]
    assert lacking * 8 * 3 == pytest.approx(round(lacking * 8 * 3))  # of the 8 that are scored


def test_graphs_of_utterances_know_nothing_of_them(tmp_path: Path) -> None:
    runs = [trained(tmp_path, "utterance", keep) for keep in (True, False)]
    tables = [(run.folder / "seed-1" / "predictions.csv").read_text().splitlines() for run in runs]
    scored = [[line for line in table if not line.startswith("train")] for table in tables]
    assert scored[0] == scored[1]
    assert prepare(runs[0].config).context == {}


@pytest.mark.parametrize("folds", [0, 3])
def test_what_a_made_split_leaves_out_is_its_context(folds: int, tmp_path: Path) -> None:
    content = some_unlabeled()
    whole: dict[str, Any] = {key: [] for key in content["train"]}
    for columns in content.values():
        for key in whole:
            whole[key] += [x[:1] for x in columns[key]] if key in ("text", "audio", "vision") else list(columns[key])
    whole = {key: np.stack(x) if isinstance(x[0], np.ndarray) else x for key, x in whole.items()}
    whole |= {f"{m}_lengths": [1] * 48 for m in ("text", "audio", "vision")}
    pool = {key: list(x)[:3] if key in ("id", "raw_text") else x[:3] for key, x in whole.items()}
    pool["id"] = ["train0$_$90", "valid0$_$91", "other$_$1"]
    files = [write_pickle(tmp_path / f"{i}.pkl", {"all": x}) for i, x in enumerate((whole, pool))]
    split = {"folds": folds, "fold": 1} if folds else {"valid": 0.2, "test": 0.2}
    data = {"path": str(files[0]), "pool": str(files[1]), "split": split}
    with collected():
        corpus = load_corpus(from_dict({"data": data}).data)
        every = load_other(files[0], corpus.dims, from_dict({"data": data}).data, from_dict({}).target).utterances
    of = {u.video: name for name in ("valid", "test") for u in corpus.splits[name]}
    expected = {"valid": set(), "test": set()}
    for identity in [u.id for u in every if u.label is None] + pool["id"]:
        if name := of.get(identity.partition("$_$")[0]):
            expected[name].add(identity)
    assert {name: {u.id for u in us} for name, us in corpus.context.items()} == expected
    trained_on = {u.id for u in (*corpus.splits["train"], *corpus.pool)}
    assert not trained_on & set.union(*expected.values())
    assert "other$_$1" in trained_on
