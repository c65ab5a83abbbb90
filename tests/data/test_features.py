"""Features that are read when they are asked for train as those in memory do, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from helpers.killed_runs import left, run_once
from helpers.run_kinds import KINDS
from torch import Tensor

from gmsa.config import from_dict
from gmsa.config.groups.missing import parse_missing
from gmsa.data import Normalizer, Utterance, apply_missing
from gmsa.data.__main__ import main as data
from gmsa.data.features import LazyFeatures, select
from gmsa.runs import report as results
from gmsa.runs.evaluate import evaluate
from gmsa.runs.predict import predict_file


class Counted(LazyFeatures):
    """Lazy features that count how often they are read."""

    def __init__(self, features: Mapping[str, Tensor]) -> None:
        self.features, self.reads = features, 0

    @property
    def lengths(self) -> dict[str, int]:
        return {m: len(x) for m, x in self.features.items()}

    def __getitem__(self, modality: str) -> Tensor:
        self.reads += 1
        return self.features[modality].clone()


@pytest.mark.parametrize("spec", ["none", "eta:0.5", "sample:0.9", "fixed:ta", "frame:0.6", "frame_uniform"])
def test_hiding_normalizing_and_selecting_read_nothing_and_change_nothing(make_utterance: Callable, spec: str) -> None:
    whole = [make_utterance(f"v$_${i}", (1 + i % 4, i % 3, 5)) for i in range(30)]
    lazy = [Utterance(u.id, Counted(u.features), u.label) for u in whole]
    normalizer = Normalizer.fit(whole, ["audio", "vision"], 2.0)
    assert Normalizer.fit(lazy, ["audio", "vision"], 2.0).state().keys() == normalizer.state().keys()
    for name, value in Normalizer.fit(lazy, ["audio", "vision"], 2.0).state().items():
        assert torch.equal(value, normalizer.state()[name])
    for u in lazy:
        u.features.reads = 0
    missing = parse_missing(spec, "test")

    def changed(utterances: list[Utterance]) -> list[Utterance]:
        hidden = apply_missing([normalizer.apply(u) for u in utterances], missing, ["text", "audio", "vision"], 3)
        return [u.drop(frozenset({"vision"})) if i % 5 == 0 else u for i, u in enumerate(hidden)]

    a, b = changed(whole), changed(lazy)
    assert [u.lengths for u in a] == [u.lengths for u in b]
    assert not any(u.features.reads for u in lazy)
    for x, y in zip(a, b, strict=True):
        for one, other in ((x.features, y.features), (x.withheld, y.withheld)):
            assert list(one) == list(other)
            for modality in one:
                assert torch.equal(one[modality], other[modality])
        assert list(select(y.features, {"text"})) == ["text"]
        with pytest.raises(KeyError):
            select(y.features, {"text"})["audio"]


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("self-training", "sample:0.5"),
        pytest.param("sslmm", "frame_uniform", marks=pytest.mark.slow),
        pytest.param("distillation on dialogues", "eta:0.5", marks=pytest.mark.slow),
    ],
)
def test_a_feature_store_trains_as_its_source_does(
    write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, missing: str
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    source, pool = write_mmsa(), write_mmsa("pool.pkl", prefix="pool-")
    for path in (source, pool):
        data(["import", str(path), "--out", str(path.with_suffix(""))])
    for name, suffix in (("pickle", ".pkl"), ("store", "")):
        settings = dict(KINDS[kind])
        settings["data"] = {
            "path": str(source.with_suffix(suffix)),
            "pool": str(pool.with_suffix(suffix)),
            "name": "tiny",
            "label_ratio": 0.5,
            "missing": {"train": missing, "valid": "eta:0.3", "test": "none"},
        }
        settings["model"] = {"channels": 16, "heads": 2} | KINDS[kind].get("model", {})
        settings["optim"] = {"epochs": 1, "min_steps": 0, "batch_size": 8}
        settings["run"] = {"seeds": [1], "device": "cpu"}
        run_once(from_dict(settings), tmp_path / name)
        predict_file(tmp_path / name, pool.with_suffix(suffix), tmp_path / f"{name}.csv")
        evaluate(tmp_path / name, data=source.with_suffix(suffix), out=tmp_path / f"{name}-scores")
    assert left(tmp_path / "store") == left(tmp_path / "pickle")
    assert (tmp_path / "store.csv").read_bytes() == (tmp_path / "pickle.csv").read_bytes()
    scores = [(tmp_path / f"{name}-scores" / "predictions-1.csv").read_bytes() for name in ("store", "pickle")]
    assert scores[0] == scores[1]
