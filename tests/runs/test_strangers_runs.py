"""What gmsa reads of a stranger's run, and what it keeps from giving it: memory, its own error, files elsewhere."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_runs import small

import gmsa
from gmsa.config import Config, from_dict
from gmsa.errors import ConfigError, DataWarning, RunError, WriteError
from gmsa.models import Model, build_model
from gmsa.models.build import model_skeleton
from gmsa.registry import MODELS
from gmsa.runs import report, train
from gmsa.runs.predict import predict_file
from gmsa.system import lock
from gmsa.system.records import FLAG, NUMBER, TEXT, Fields, Items, Map, Maybe, check_form, whole
from gmsa.training import scoring

DIMS = {"text": 4, "audio": 3, "vision": 2}


@pytest.fixture
def trained(write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run."""
    monkeypatch.setattr(report, "draw_run", lambda *_: None)
    config = small(write_mmsa, protocol={"name": "supervised"}, optim={"epochs": 1, "min_steps": 0}, run={"seeds": [1]})
    train(config, "tiny", tmp_path / "run")
    return tmp_path / "run"


# --- the size of a model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "hgt", "late_fusion", "global", "mmgcn", "mtag"])
def test_a_skeleton_is_the_model_without_its_weights(name: str) -> None:
    config = from_dict({"model": {"name": name, "channels": 16, "heads": 2}, "reconstruction": {"weight": 1}})
    torch.manual_seed(0)
    own = build_model(DIMS, config).state_dict()
    torch.manual_seed(0)
    found = model_skeleton(DIMS, config)
    assert {k: (v.dtype, v.shape) for k, v in found.state_dict().items()} == {
        k: (v.dtype, v.shape) for k, v in own.items()
    }
    assert all(x.is_meta for x in found.parameters())
    assert all(torch.equal(own[k], v) for k, v in build_model(DIMS, config).state_dict().items()), "it drew numbers"


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 65_536, "heads": 8},
        {"channels": 16_384, "heads": 8, "layers": 16, "shared_layers": False},
        {"positions": 1_000_000, "channels": 65_536, "heads": 8},
        {"text_convs": [[1000, 1]], "channels": 16_384, "heads": 8},
    ],
    ids=str,
)
def test_a_model_that_fits_no_memory_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(
        ConfigError, match=r"the weights of the model need [\d,.]+ GB, this machine has [\d,.]+ GB; low"
    ):
        model_skeleton({"text": 300_000}, from_dict({"model": settings}))


class Reads(Model):
    """A model that reads its initial weights, which a skeleton cannot give."""

    def __init__(self, dims: dict[str, int], channels: int = 16) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(channels))
        self.scale = float(self.weight.norm().item())


def test_a_model_of_ones_own_may_read_its_initial_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._parts, "reads", Reads)
    config = from_dict({"model": {"name": "reads", "channels": 16}})
    torch.manual_seed(0)
    own = build_model(DIMS, config).scale
    torch.manual_seed(0)
    assert model_skeleton(DIMS, config).weight.shape == (16,)
    assert build_model(DIMS, config).scale == own


@pytest.mark.parametrize(
    ("key", "value", "most"),
    [
        ("model.layers", 129, "128"),
        ("model.channels", 65_544, "65536"),
        ("model.positions", 1_000_001, "1000000"),
        ("model.heads", 2048, "1024"),
        ("model.text_convs", [[1001, 1]], "1,000"),
        ("model.text_convs", [[3, 1]] * 65, "64"),
        ("model.audio_convs", [[1001, 1001], [1000, 1000]], "1,000,000"),
        ("run.threads", 257, "256"),
        ("run.workers", 257, "256"),
        ("consistency.passes", 1001, "1000"),
        ("distillation.teachers", 1001, "1000"),
        ("self_training.rounds", 1001, "1000"),
        ("optim.batch_size", 1_000_001, "1000000"),
        ("optim.epochs", 1_000_001, "1000000"),
        ("pretrain.epochs", 1_000_001, "1000000"),
        ("graph.radius", 10**12, "100000"),
    ],
)
def test_numbers_that_become_memory_or_threads_have_limits(key: str, value: object, most: str) -> None:
    group, name = key.split(".")
    others = {"shared_layers": False} if value == 129 else {}
    named = re.sub(r"(\w+)_convs", r"encoders.\1", key)
    with pytest.raises(ConfigError, match=rf"'{named}' must .* at most {most}") as caught:
        from_dict({group: {name: value} | others})
    assert len(str(caught.value)) < 200


# --- what is read ----------------------------------------------------------------------------------------------------


def test_a_model_in_the_cache_of_the_hub(trained: Path, tmp_path: Path) -> None:
    """There every file is a link to a blob outside the snapshot."""
    gmsa.Run(trained).save(tmp_path / "saved")
    cache = tmp_path / "models--someone--mosi"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0a1b"
    for number, path in enumerate(sorted(p for p in (tmp_path / "saved").rglob("*") if p.is_file())):
        blob = path.rename(cache / "blobs" / f"{number:040x}")
        link = snapshot / path.relative_to(tmp_path / "saved")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(link.relative_to(cache).parts) - 1)) / "blobs" / blob.name)
    model = gmsa.load(snapshot)
    expected = gmsa.Run(trained).predict(tmp_path / "tiny.pkl")
    assert np.array_equal(model.predict(tmp_path / "tiny.pkl").values, expected.values)
    assert model.train_seconds(1) == gmsa.Run(trained).train_seconds(1)
    weights = snapshot / "seed-1" / "model.safetensors"
    weights.resolve().rename(tmp_path / "elsewhere")
    weights.unlink()
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link that leads out of"):
        model.predict(tmp_path / "tiny.pkl")


def test_features_beyond_all_others_are_named(trained: Path, tmp_path: Path) -> None:
    with open(tmp_path / "tiny.pkl", "rb") as file:
        content = pickle.load(file)["test"]
    content["text"][3] *= np.float32(1e30)
    assert abs(content["text"][3]).max() > 1e20
    said = r"for 'test0\$_\$3' is not finite: its 'text' features reach \d.*e\+30; ext"
    with pytest.raises(RunError, match=said):
        gmsa.Run(trained).predict({"test": content}, strict=True)
    with pytest.warns(DataWarning, match=f"not predicted: .*{said}"):
        answers = gmsa.Run(trained).predict({"test": content})
    assert list(answers.reasons) == ["test0$_$3"]
    assert np.flatnonzero(np.isnan(answers.values)).tolist() == [3]


def test_weights_that_are_not_finite_are_not_the_features_fault(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "HUGE", float("inf"))
    run = gmsa.Run(trained)
    model = run.load_model(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    utterances = run.prepare(trained.parent / "tiny.pkl")
    with pytest.raises(RunError, match=r"is not finite; lower 'optim.lr' and train again"):
        scoring.predict_utterances(model, utterances, run.config, torch.device("cpu"))


# --- the lock --------------------------------------------------------------------------------------------------------


def test_the_locks_end_does_not_hide_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    def write(error: Exception | None) -> None:
        with monkeypatch.context() as patch, lock.only_writer(tmp_path):
            patch.setattr(Path, "unlink", fail)
            if error is not None:
                raise error

    with pytest.raises(WriteError, match="the first"):
        write(WriteError("the first"))
    with pytest.raises(WriteError, match=r"cannot delete '.*\.writer\.json': Read-only"):
        write(None)


def test_the_record_of_a_writer_is_cut(tmp_path: Path) -> None:
    (tmp_path / lock.RECORD).write_text(json.dumps({"host": "h" * 9999, "pid": [1] * 9999, "since": {"a": "b" * 9999}}))
    with pytest.raises(RunError, match="is marked as being written by process") as caught:
        lock.only_writer(tmp_path).__enter__()
    assert len(str(caught.value)) < 600


# --- records ---------------------------------------------------------------------------------------------------------


def test_the_form_of_a_record() -> None:
    form = Fields({"a": whole(1, 9), "b": Items(Map(NUMBER), 2)}, {"c": Maybe(TEXT), "d": FLAG})
    check_form({"a": 3, "b": [{"x": 1.5}], "c": None, "other": object()}, form)
    for value, said in (
        ([], r"it must be a mapping \(got a list\)"),
        ({"b": []}, "it has no 'a'"),
        ({"a": True, "b": []}, r"'a' must be a whole number from 1 to 9 \(got True\)"),
        ({"a": 1, "b": [{}] * 3}, r"'b' must be a list of at most 2 \(got a list\)"),
        ({"a": 1, "b": [{"x": float("nan")}]}, r"'b\[0\]\.x' must be a finite number \(got nan\)"),
        ({"a": 1, "b": [{"x": 10**400}]}, r"'b\[0\]\.x' must be a finite number"),
        ({"a": 1, "b": [{5: 1}]}, r"'b\[0\]' must be text as its keys \(got 5\)"),
        ({"a": 1, "b": [], "c": 5}, r"'c' must be text \(got 5\)"),
        ({"a": 1, "b": [], "d": 0}, r"'d' must be true or false \(got 0\)"),
    ):
        with pytest.raises(ValueError, match=said):
            check_form(value, form)


def test_the_limits_are_far_from_every_default() -> None:
    """A default at its limit would be a limit that users meet."""
    config = Config()
    for group in dataclasses.fields(config):
        settings = getattr(config, group.name)
        for field in dataclasses.fields(settings) if dataclasses.is_dataclass(settings) else ():
            if "le" in field.metadata and field.metadata["le"] > 1:
                value = getattr(settings, field.name)
                if value not in (None, "auto"):  # another setting says them
                    assert value * 20 < field.metadata["le"], field.name
                assert (value is None) == (field.name in ("past", "future")), field.name
                assert (value == "auto") == (field.name == "distances"), field.name


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("own.pkl", "a file that is no .csv is there and would be lost"),
        ("run/seed-1/model.safetensors", "a file that is no .csv is there and would be lost"),
        ("link.csv", "it is a link; name the file itself"),
        ("nowhere.csv", "it is a link; name the file itself"),
        ("/dev/stdout", "it is a link; name the file itself"),
        ("input.csv", "is the input, which would be lost"),
    ],
)
def test_predictions_replace_nothing_but_a_table(
    out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run/seed-1").mkdir(parents=True)
    for name in ("own.pkl", "run/seed-1/model.safetensors", "input.csv"):
        Path(name).write_bytes(b"precious")
    Path("link.csv").symlink_to("own.pkl")
    Path("nowhere.csv").symlink_to("nothing")
    with pytest.raises(RunError, match=message):
        predict_file("run", "input.csv", Path(out))
    assert {Path(name).read_bytes() for name in ("own.pkl", "run/seed-1/model.safetensors", "input.csv")} == {
        b"precious"
    }
    assert Path("link.csv").is_symlink()
