"""A run records the field that its labels were read from, so that it can read its own file again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

from gmsa import evaluate as command
from gmsa.config import Config, TargetConfig, from_dict
from gmsa.config.presets import TARGETS
from gmsa.data import Row, Utterance, load_corpus, write_store
from gmsa.data.loading import load_other
from gmsa.data.notes import collected
from gmsa.errors import DataError
from gmsa.runs.prepare import prepare

PRESETS = [name for name, preset in TARGETS.items() if preset["kind"] == "classes"]


def config_of(path: Path, pool: Path | None = None, **target: Any) -> Config:
    data = {"path": str(path), "pool": None if pool is None else str(pool), "modalities": ["text"]}
    return from_dict({"data": data, "target": target, "protocol": {"name": "supervised"}})


def read_again(config: Config) -> tuple[Config, list[str]]:
    """The settings of a run, by which its own file has the same labels again, and what is said of that."""
    with collected():
        first = prepare(config)
    with collected() as notes:
        corpus = load_corpus(first.config.data, first.config.target)
        second = prepare(first.config)
    assert second.config == first.config
    for split, utterances in corpus.splits.items():
        assert [u.label for u in utterances] == [u.label for u in first.corpus.splits[split]]
    return first.config, notes


def pickle_of(folder: Path, field: str, labels: tuple[Any, ...]) -> Path:
    return write_pickle(folder / f"{field}.pkl", tiny_content(labels=labels, field=field))


def table_of(folder: Path, column: str, labels: tuple[Any, ...], splits: tuple[str, ...] = ("train", "valid", "test")):
    """A table of 36 utterances."""
    np.save(folder / "text.npy", np.ones((2, 4), np.float32))
    rows = [f"{column[:1]}{i // 3}$_${i},{labels[i % len(labels)]},text.npy,{splits[i % 3]}" for i in range(36)]
    path = folder / f"{column}.csv"
    path.write_text("\n".join([f"id,{column},text,split", *rows]) + "\n")
    return path


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("field", ["annotations", None])
def test_a_preset_reads_its_own_file_again(preset: str, field: str | None, tmp_path: Path) -> None:
    found = field or TARGETS[preset]["field"]
    config, notes = read_again(config_of(pickle_of(tmp_path, found, TARGETS[preset]["classes"]), preset=preset))
    assert config.target.field == found
    assert not [note for note in notes if "has no key" in note]


@pytest.mark.parametrize(
    ("field", "target", "kept"),
    [
        ("annotation", {"kind": "classes"}, "annotation"),
        ("mood", {"kind": "classes", "field": "mood"}, "mood"),
        ("regression_labels", {}, "auto"),
        ("valence", {"field": "valence"}, "valence"),
        ("labels", {"preset": "meld", "kind": "intensity"}, "auto"),
    ],
)
def test_without_a_preset_of_classes(field: str, target: dict[str, Any], kept: str, tmp_path: Path) -> None:
    labels = ("low", "high") if target.get("kind") == "classes" else (-1.0, 0.5, 2.0)
    assert read_again(config_of(pickle_of(tmp_path, field, labels), **target))[0].target.field == kept


def test_tables_and_stores(tmp_path: Path) -> None:
    classes = TARGETS["meld_sentiment"]["classes"]
    for column in ("Sentiment", "label"):
        read_again(config_of(table_of(tmp_path, column, classes), preset="meld_sentiment"))
    rows = [
        Row(s, Utterance(f"{s}{i}$_$0", {"text": torch.ones(1, 4)}, float(i % 3)))
        for s in ("train", "valid", "test")
        for i in range(6)
    ]
    settings = TargetConfig(preset="meld_sentiment")
    write_store(tmp_path / "store", rows, {"text": "float32"}, settings)
    _, notes = read_again(config_of(tmp_path / "store", preset="meld_sentiment"))
    assert not [note for note in notes if "target.field" in note]


def test_a_table_may_have_the_labels_under_another_name(tmp_path: Path) -> None:
    classes = TARGETS["meld_sentiment"]["classes"]
    own, other = pickle_of(tmp_path, "annotations", classes), table_of(tmp_path, "sentiment", classes)
    with collected():
        run = prepare(config_of(own, pool=other, preset="meld_sentiment")).config
    assert run.target.field == "annotations"  # which the pool lacks: its labels are not read
    assert len(load_corpus(run.data, run.target).pool) == 36
    with collected() as notes:
        found = load_other(other, {"text": 4}, run.data, run.target)
    assert {u.label for u in found.utterances} == {0.0, 1.0, 2.0}
    said = [note for note in notes if "'annotations'" in note]
    assert len(said) == 1
    assert said[0].endswith("the labels are looked for as without it")
    # The own file must have the field that it was read by.
    with pytest.raises(DataError, match="has no column 'annotations'"):
        load_corpus(replace(run.data, path=str(other), pool=None), run.target)


def test_a_run_scores_its_own_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmsa.runs.report.draw_run", lambda *a: None)
    file = pickle_of(tmp_path, "annotations", TARGETS["meld_sentiment"]["classes"])
    with collected():
        run = tiny_run(tmp_path / "run", file, target={"preset": "meld_sentiment"}, run={"seeds": [1]})
    trained = json.loads((run / "summary.json").read_text())
    command.main(["--run", str(run), "--out", str(tmp_path / "scores")])
    scored = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert scored["test"] == trained["test"]
