"""What every Python that gmsa supports must do: read settings and data, train, and predict."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import pytest

from gmsa import predict, train
from gmsa.config import load_config
from gmsa.config.packaged import packaged
from gmsa.data import __main__ as data
from gmsa.data import synthetic_mmsa
from gmsa.tuning import read_space

QUICK = ["optim.epochs=1", "optim.min_steps=0", "model.channels=16", "model.heads=2", "protocol.name=supervised"]


def test_settings_that_come_with_gmsa_are_read() -> None:
    for name in packaged("configs"):
        load_config(name, environ={})
    for name in packaged("spaces"):
        assert read_space(name, load_config("mosi_graph", environ={})).parameters


def test_data_training_and_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clips.pkl").write_bytes(pickle.dumps(synthetic_mmsa()))
    data.main(["import", "clips.pkl", "--out", "clips"])
    train.main(["--config", "synthetic", "--out", "run", *(part for item in QUICK for part in ("--set", item))])
    predict.main(["--run", "run", "--input", "clips", "--out", "answers.csv"])
    answers = read("answers.csv")
    trained = read("run/seed-1111/predictions.csv")
    assert trained
    for name, value in trained.items():
        assert answers[name] == pytest.approx(value, abs=1e-5)


def read(path: str) -> dict[str, float]:
    """Id and prediction of each row."""
    with open(path, newline="", encoding="utf-8") as file:
        return {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}
