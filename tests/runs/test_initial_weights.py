"""Runs that start from the pre-trained weights of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.sslmm import small_sslmm

from gmsa.errors import RunError
from gmsa.runs import report as results
from gmsa.runs.evaluate import evaluate
from gmsa.runs.predict import predict_file
from gmsa.runs.train import train
from gmsa.training.checkpoint import digest, load_weights


def test_a_pretrained_run_is_where_another_starts(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    folder = tmp_path / "pretrained"
    summary = train(small_sslmm(write_mmsa, protocol={"name": "pretrain"}), "tiny", folder)
    assert summary["valid"].keys() == {"loss", "mask", "contrast"}
    assert not summary["test"]
    for use in (lambda: evaluate(folder), lambda: predict_file(folder, write_mmsa(), tmp_path / "out.csv")):
        with pytest.raises(RunError, match="pre-trained weights, which predict nothing; train from them with"):
            use()
    begun = small_sslmm(write_mmsa, pretrain={"epochs": 0}, protocol={"init_from": str(folder)})
    apart = train(begun, "tiny", tmp_path / "apart")
    together = train(small_sslmm(write_mmsa), "tiny", tmp_path / "together")
    weights = [load_weights(tmp_path / run / "seed-1" / "model.safetensors") for run in ("apart", "together")]
    assert digest(weights[0]) == digest(weights[1])
    assert apart["valid"] == together["valid"]
    fresh = train(small_sslmm(write_mmsa, pretrain={"epochs": 0}), "tiny", tmp_path / "fresh")
    assert fresh["valid"] != apart["valid"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is that several tests start from."""
    return tmp_path_factory.mktemp("shelf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": {"channels": 32}},
            r"'protocol.init_from': '.*' was trained with model.channels 16, this run has 32",
        ),
        (
            {"graph": {"scope": "dialogue"}},
            r"was trained with graph.scope 'utterance', this run has 'dialogue'; make them",
        ),
        (
            {"data": {"modalities": ["text", "audio"]}},
            r"was trained with data.normalize \['audio', 'vision'\], this",
        ),
        ({"run": {"seeds": [1, 2]}}, "has no seed 2; add it there with gmsa.train --resume --seeds 2"),
        ({"protocol": {"init_from": "nowhere"}}, "'nowhere' is not a run folder"),
        ({"data": {"normalize": ["audio"]}}, r"was trained with data.normalize \[.*\], this run has \['audio'\]; make"),
        ({"data": {"clip": 3.0}}, r"was trained with data.clip .*, this run has 3.0; make them equal"),
        (
            {"data": {"missing": {"train": "eta:0.5"}}},
            r"on the same data with data.missing.train 'none', this run has 'eta:0.5', so its weights may know what",
        ),
        ({"data": {"missing": {"seed": 3}}}, r"on the same data with data.missing.seed 0, this run has 3, so its"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_training(
    write_mmsa, tmp_path: Path, shelf: Path, change: dict[str, Any], message: str
) -> None:
    folder = shelf / "pretrained"
    if not folder.exists():
        train(small_sslmm(write_mmsa, protocol={"name": "pretrain"}), "tiny", folder)
    groups = {"pretrain": {"epochs": 0}, "protocol": {"init_from": str(folder)}} | change
    with pytest.raises(RunError, match=message):
        train(small_sslmm(write_mmsa, **groups), "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_have_seen_labels_are_no_start(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    train(small_sslmm(write_mmsa, protocol={"name": "supervised"}, pretrain={"epochs": 0}), "tiny", tmp_path / "before")
    config = small_sslmm(write_mmsa, pretrain={"epochs": 0}, protocol={"init_from": str(tmp_path / "before")})
    with pytest.raises(RunError, match="run of the protocol 'supervised', whose weights have seen labels; name one of"):
        train(config, "tiny", tmp_path / "run")


def test_weights_of_other_data_may_have_seen_all_of_it(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    before = tmp_path / "before"
    train(small_sslmm(write_mmsa, protocol={"name": "pretrain"}), "tiny", before)
    data = {"path": str(write_mmsa("other.pkl", prefix="other-")), "missing": "eta:0.5"}
    config = small_sslmm(write_mmsa, data=data, pretrain={"epochs": 0}, protocol={"init_from": str(before)})
    summary = train(config, "tiny", tmp_path / "run")
    assert summary["init_from"] == str(before)
    assert f"- Starts from: {before}\n" in (tmp_path / "run" / "summary.md").read_text()
