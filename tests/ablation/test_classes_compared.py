"""A comparison of settings that predict classes: its errors are shares of wrong classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmsa.ablation.cells import COSTS, Cell
from gmsa.ablation.comparison import ablation_summary, cells_csv
from gmsa.ablation.variants import Variant
from gmsa.config import from_dict
from gmsa.metrics import COLUMNS, class_metrics, paired_bootstrap

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
        rows += [(split, CLASSES[t], CLASSES[p]) for t, p in zip(truth, answer, strict=True)]
        record |= {split: class_metrics(answer, truth, 3)}
    with cell.predictions.open("w", newline="") as file:
        csv.writer(file).writerows([("split", "label", "prediction"), *rows])
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
