"""A comparison of settings that predict classes: its errors are shares of wrong classes."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmsa.ablation.ablate import check_cells
from gmsa.ablation.cells import COSTS, Cell
from gmsa.ablation.comparison import ablation_summary, cells_csv
from gmsa.ablation.variants import Variant
from gmsa.config import from_dict
from gmsa.metrics import COLUMNS, class_metrics, paired_bootstrap
from gmsa.reports.ablation import meaning

CLASSES = ["anger", "joy", "neutral"]
SPLITS = {"valid": 30, "test": 40}


def trained(folder: Path, name: str, seed: int, right: float) -> Cell:
    """A cell that is right in a share of the utterances, as a training leaves it."""
    target = {"kind": "classes", "classes": CLASSES}
    config = from_dict({"target": target, "run": {"seeds": [1, 2]}, "model": {"fusion": name}})
    cell = Cell(Variant(name, config, ("model.fusion",)), seed, folder / name / f"seed-{seed}")
    cell.predictions.parent.mkdir(parents=True)
    rng, rows, record = np.random.default_rng([seed, *name.encode()]), [], dict.fromkeys(COSTS, 1.0)
    for split, count in SPLITS.items():
        truth = np.random.default_rng(count).integers(3, size=count)
        answer = np.where(rng.uniform(size=count) < right, truth, rng.integers(3, size=count))
        pairs = enumerate(zip(truth, answer, strict=True))
        rows += [(split, f"{split}{i // 5}$_${i}", CLASSES[t], CLASSES[p]) for i, (t, p) in pairs]
        record |= {split: class_metrics(answer, truth, 3)}
    with cell.predictions.open("w", newline="") as file:
        csv.writer(file).writerows([("split", "id", "label", "prediction"), *rows])
    record |= {"state": "done", "setting": name, "seed": seed, "device": "cpu"}
    record |= {"parameters": 9, "epochs": 1, "train_seconds": 1.0}
    (cell.folder / "cell.json").write_text(json.dumps(record))
    return cell


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    shares = {"gate": 0.3, "add": 0.9, "dot": 0.4}
    return [trained(tmp_path, name, seed, right) for name, right in shares.items() for seed in (1, 2)]


def test_errors_are_those_of_the_classes(cells: list[Cell]) -> None:
    for cell in cells:
        assert cell.done
        record: Any = cell.record()
        for split, count in SPLITS.items():
            errors = cell.errors(split)
            assert errors.shape == (count,)
            assert set(errors.tolist()) <= {0.0, 1.0}
            assert errors.mean() == pytest.approx(1 - record[split]["accuracy"])
    text = cells[0].predictions.read_text()
    cells[0].predictions.write_text(text.replace("joy", "anger"))
    assert not cells[0].done


def test_variants_are_ranked_by_weighted_f1_and_differ_in_their_share_of_errors(cells: list[Cell]) -> None:
    variants = [cell.variant for cell in cells[::2]]
    records: Any = {cell.key: cell.record() for cell in cells}
    facts = {"synthetic": False, "data_sha256": "0" * 64, "classes": CLASSES}
    found = ablation_summary("names", variants, cells, records, facts)
    assert (found["labels"], found["select"], found["chosen"]) == ("classes", "weighted_F1", "add")
    for row in found["rows"]:
        if not row["reference"]:
            a, b = (
                np.stack([c.errors("valid") for c in cells if c.variant.name == n]) for n in ("gate", row["setting"])
            )
            difference = row["difference"]["valid"]
            assert {key: difference[key] for key in ("difference", "p")} == {
                key: getattr(paired_bootstrap(a, b), key) for key in ("difference", "p")
            }
            assert difference["p_holm"] >= difference["p"]
        for split in SPLITS:
            assert row["intervals"][split].keys() == row[split].keys()
            for metric, (low, high) in row["intervals"][split].items():
                assert 0 <= low < row[split][metric]["mean"] < high <= 1
    header = cells_csv(found, variants, cells, records).splitlines()[0].split(",")
    assert [name for name in header if name.startswith("valid_")] == [f"valid_{m}" for m in COLUMNS["classes"]]


def test_whole_dialogues_are_drawn_where_a_variant_has_them(cells: list[Cell], tmp_path: Path) -> None:
    variants = [cell.variant for cell in cells[::2]]
    records: Any = {cell.key: cell.record() for cell in cells}
    dialogues = {name: name.partition("$_$")[0] for split in SPLITS for name in cells[0].ids(split)}
    facts = {"synthetic": False, "data_sha256": "0" * 64}
    found = ablation_summary("names", variants, cells, records, facts, dialogues)
    assert found["dialogues"] == {"valid": 6, "test": 8}
    for row in (row for row in found["rows"] if not row["reference"]):
        for split in SPLITS:
            names = [dialogues[name] for name in cells[0].ids(split)]
            a, b = (np.stack([c.errors(split) for c in cells if c.variant.name == n]) for n in ("gate", row["setting"]))
            drawn = {key: row["difference"][split][key] for key in ("difference", "low", "high", "p")}
            assert drawn == asdict(paired_bootstrap(a, b, groups=names)) != asdict(paired_bootstrap(a, b))
    assert "paired bootstrap over whole dialogues (6 in validation, 8 in test) and seeds" in meaning(found)
    # Which ids are of which dialogue, the data says.
    graphs = [{"scope": "utterance"}, {"scope": "hierarchical"}]
    configs = [from_dict({"data": {"path": "synthetic"}, "graph": graph, "run": {"seeds": [1]}}) for graph in graphs]
    made = [Cell(Variant(str(i), c, ("graph.scope",)), 1, tmp_path / str(i)) for i, c in enumerate(configs)]
    of = check_cells(made)[2]
    assert len(of) == 280
    assert all(video == name.partition("$_$")[0] for name, video in of.items())
    assert check_cells(made[:1])[2] == {}
