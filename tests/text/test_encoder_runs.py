"""Runs with a text encoder: trained, interrupted, moved, saved, and refused with another encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import ended, killed_until_done, left, run_once, together
from helpers.text_encoders import make_encoder, spoken_content
from helpers.tiny_data import write_pickle
from safetensors.torch import load_file

import gmsa
from gmsa.config import Config
from gmsa.data import Utterance, load_corpus
from gmsa.errors import ConfigError, DataError, DataWarning, RunError
from gmsa.runs import Run
from gmsa.text import EncoderFolder
from gmsa.text import texts as texts_module
from gmsa.text.encoder import pretrained_weights
from gmsa.training.callbacks.progress import Progress

TUNINGS = ("full", "lora", "frozen")
INSIDE = "embedding.text_encoder.network."
Make = Callable[..., Config]


def forget() -> None:
    """What a new process would not know of encoders."""
    texts_module._open.cache_clear()
    pretrained_weights.cache_clear()


class Killed(BaseException):
    pass


def interrupted(config: Config, folder: Path, patch: pytest.MonkeyPatch, step: int) -> None:
    """Trains, and ends at a step as if it were killed."""
    steps: list[int] = []

    def count(self: Any, ids: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            raise Killed

    with patch.context() as inner:
        inner.setattr(Progress, "on_step", count)
        with pytest.raises(Killed):
            run_once(config, folder)


def answers(run: Run | Path, file: Path) -> bytes:
    """What a new process would write."""
    forget()
    (run if isinstance(run, Run) else Run(run)).predict(file).to_csv(path := file.parent / "answers.csv")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("tuning", "nodes"),
    [
        ("full", "transcript"),
        ("frozen", "pieces"),
        pytest.param("full", "pieces", marks=pytest.mark.slow),
        pytest.param("lora", "transcript", marks=pytest.mark.slow),
        pytest.param("frozen", "transcript", marks=pytest.mark.slow),
    ],
)
def test_interrupted_moved_and_saved(
    config_of: Make,
    encoders: dict[str, Path],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tuning: str,
    nodes: str,
) -> None:
    encoder = shutil.copytree(encoders["bert"], tmp_path / "encoder")
    config = config_of(
        tuning,
        encoder,
        model={"modality_dropout": {"text": 0.3}},
        optim={"ema": 0.9, "encoder_decay": 0.9},
        text={"tuning": tuning, "nodes": nodes},
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_once(config, whole)
    for step in (2, 3):  # within the first epoch, and in the first step of the second
        interrupted(config, killed, monkeypatch, step)
    forget()
    run_once(config, killed)
    assert left(killed) == left(whole)

    weights = load_file(whole / "seed-1" / "model.safetensors")
    own, given = (
        {k.removeprefix(INSIDE): x for k, x in weights.items() if k.startswith(INSIDE)},
        load_file(encoder / "model.safetensors"),
    )
    changed = {k for k, x in own.items() if not torch.equal(x, given.get(k.replace(".base_layer.", "."), x + 1))}
    if tuning == "frozen":
        assert not own
    elif tuning == "lora":
        assert changed == {k for k in own if ".lora_" in k}
        assert changed
    else:  # all but the embeddings of word pieces
        assert changed == {k for k in own if not k.startswith("embeddings.")}

    record = json.loads((whole / "environment.json").read_text())
    assert record["encoder_sha256"] == EncoderFolder(str(encoder)).sha256
    assert sorted(p.name for p in (whole / "text_encoder").iterdir()) == ["config.json", "tokenizer.json"]
    before = answers(whole, file)
    assert answers(gmsa.load(Run(whole).save(tmp_path / "model")), file) == before
    assert str(tmp_path) not in (tmp_path / "model" / "config.yaml").read_text()
    told = "text 32, audio 3" if tuning == "frozen" else f"text ({nodes}), audio 3"
    assert told in (tmp_path / "model" / "README.md").read_text()

    moved = shutil.move(whole, tmp_path / "moved")
    encoder.rename(tmp_path / "gone")
    assert answers(gmsa.load(tmp_path / "model"), file) == before
    if tuning == "frozen":
        with pytest.raises(RunError, match=rf"needs its text encoder \(SHA-256 {record['encoder_sha256'][:12]}…\)"):
            Run(moved)
        make_encoder(encoder, seed=1)
        with pytest.raises(RunError, match=r"is not the text encoder that .* was trained with"):
            Run(moved)
        shutil.copy(tmp_path / "gone" / "model.safetensors", moved / "text_encoder")
    assert answers(moved, file) == before


@pytest.mark.parametrize(
    ("tuning", "weights"),
    [("full", False), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("lora", False), ("full", True)))],
)
def test_a_run_goes_on_without_the_files_of_its_encoder(
    config_of: Make,
    encoders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tuning: str,
    weights: bool,
) -> None:
    """All of them are gone, or, with ``weights``, the weights alone."""
    encoder = shutil.copytree(encoders["bert"], tmp_path / "encoder")
    config = config_of(tuning, encoder)
    run_once(config, tmp_path / "whole")
    interrupted(config, tmp_path / "killed", monkeypatch, 2)
    (encoder / "model.safetensors").unlink() if weights else shutil.rmtree(encoder)
    kept = [(tmp_path / "whole" / name).read_bytes() for name in ("config.yaml", "text_encoder/tokenizer.json")]
    for name in ("killed", "whole"):
        forget()
        run_once(config, tmp_path / name)
        assert left(tmp_path / name) == left(tmp_path / "whole")
        record = json.loads((tmp_path / name / "environment.json").read_text())
        assert record["encoder_sha256"] == EncoderFolder(str(encoders["bert"])).sha256
        files = (tmp_path / name / "config.yaml", tmp_path / name / "text_encoder" / "tokenizer.json")
        assert [path.read_bytes() for path in files] == kept
    forget()
    with pytest.raises(
        RunError, match=r"seed 2 starts from the weights of .*encoder' \(SHA-256 .*put that encoder back"
    ):
        run_once(config_of(tuning, encoder, run={"seeds": [1, 2]}), tmp_path / "whole")
    shutil.rmtree(encoder, ignore_errors=True)
    make_encoder(encoder, seed=1)
    forget()
    with pytest.raises(RunError, match="is not the text encoder that"):
        run_once(config, tmp_path / "whole")
    shutil.rmtree(encoder)
    shutil.copytree(encoders["bert"], encoder)
    forget()
    run_once(config_of(tuning, encoder, run={"seeds": [1, 2]}), tmp_path / "whole")
    assert len(left(tmp_path / "whole")) == 2 * len(left(tmp_path / "killed"))


@pytest.mark.slow
def test_a_teacher_that_starts_later_needs_the_encoder(
    config_of: Make, encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = shutil.copytree(encoders["bert"], tmp_path / "encoder")
    kind = KINDS["distillation"] | {"data": {"label_ratio": 0.5}, "optim": {"epochs": 1}, "graph": {}}
    config = config_of("full", encoder, **kind)
    interrupted(config, tmp_path / "run", monkeypatch, 2)
    moved = encoder.rename(tmp_path / "moved")
    forget()
    with pytest.raises(
        RunError, match=r"the stage 'teacher_2' of seed 1 starts from .* are gone; put that encoder back"
    ):
        run_once(config, tmp_path / "run")
    moved.rename(encoder)
    forget()
    run_once(config, tmp_path / "run")
    run_once(config, tmp_path / "whole")
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_another_encoder_in_its_place_is_refused(config_of: Make, encoders: dict[str, Path], tmp_path: Path) -> None:
    encoder = shutil.copytree(encoders["bert"], tmp_path / "encoder")
    for tuning in ("full", "frozen"):
        config = config_of(tuning, encoder, optim={"epochs": 1})
        run_once(config, tmp_path / tuning)
        kept = left(tmp_path / tuning)
        shutil.rmtree(encoder)
        make_encoder(encoder, seed=1)
        with pytest.raises(RunError) as caught:
            run_once(config, tmp_path / tuning)
        assert str(encoder) in str(caught.value)
        assert "SHA-256" in str(caught.value)
        assert left(tmp_path / tuning) == kept
        shutil.rmtree(encoder)
        shutil.copytree(encoders["bert"], encoder)


def test_frozen_parameters_have_no_moments(config_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(config_of("lora", optim={"epochs": 1, "weight_decay": 0.5}), tmp_path, monkeypatch, 3)
    path = max((tmp_path / "seed-1").glob("state-*"))
    state = torch.load(path, weights_only=True)["pending"]["state"]
    trained = [name for name in state["model"] if not name.startswith(INSIDE) or ".lora_" in name]
    counts = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
    assert counts[1] == sum(".lora_" in name for name in trained)
    assert len(state["optimizer"]["state"]) <= sum(counts) == len(trained)


def test_text_hidden_and_noise_refused(config_of: Make, file: Path, tmp_path: Path) -> None:
    run_once(config_of(data={"missing": {"train": "frame_uniform", "valid": "frame:0.4", "test": "eta:0.6"}}), tmp_path)
    run = Run(tmp_path)
    assert 0 < run.summary["missing"]["test"]["realized"] < 1
    run.evaluate(missing=["eta:0.5", "frame:0.5"], out=tmp_path / "masks")
    run.evaluate(noise="audio:10dB", out=tmp_path / "noise")
    for noise in ("text:10dB", "all:10dB"):
        with pytest.raises(ConfigError, match=r"word pieces.*name other modalities"):
            run.evaluate(noise=noise, out=tmp_path / "text")
    # A transcript says all that is needed, in whatever way it is given.
    alone = [Utterance("a", {}, text="so good"), Utterance("b", {}, text="")]
    with pytest.warns(DataWarning, match="'b': has no text"):
        found = run.predict(alone)
    assert found.values is not None
    assert np.isnan(found.values).tolist() == [False, True]
    with pytest.raises(DataError):
        run.predict([3])  # type: ignore[list-item]


def test_no_neighbors_by_numbers_of_pieces(config_of: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="between: knn' compares features"):
        run_once(config_of(graph={"scope": "dialogue", "between": "knn"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


KINDS: dict[str, dict[str, Any]] = {
    "self-training": {"protocol": {"name": "self_training"}, "self_training": {"k": 2, "rounds": 1}},
    "distillation": {
        "protocol": {"name": "distillation"},
        "distillation": {"teachers": 2},
        "graph": {"scope": "dialogue"},
    },
    "distillation of all labels": {
        "protocol": {"name": "distillation"},
        "distillation": {"teachers": 2},
        "data": {"label_ratio": 1.0},
    },
    "soup": {"protocol": {"name": "soup(members=2)"}, "data": {"label_ratio": 1.0}},
    "sslmm": {
        "protocol": {"name": "sslmm"},
        "consistency": {"passes": 2},
        "model": {"name": "sslmm", "modality_dropout": {"text": 0.3}},
        "graph": {"scope": "hierarchical"},
        "reconstruction": {"weight": 0},
        "data": {"missing": {"train": "frame_uniform", "valid": "eta:0.5", "test": "eta:0.5"}},
    },
}


@pytest.mark.parametrize(
    ("kind", "tuning"),
    [("sslmm", "full"), *(pytest.param(k, t, marks=pytest.mark.slow) for k in KINDS for t in TUNINGS)],
)
def test_protocols_go_on_to_the_same_bits(
    config_of: Make, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tuning: str
) -> None:
    groups = KINDS[kind]
    config = config_of(
        tuning, **groups | {"data": {"label_ratio": 0.5} | groups.get("data", {}), "optim": {"epochs": 1}}
    )
    run_once(config, tmp_path / "whole")
    interrupted(config, tmp_path / "killed", monkeypatch, 3)
    run_once(config, tmp_path / "killed")
    assert left(tmp_path / "killed") == left(tmp_path / "whole")
    before = answers(tmp_path / "whole", file)
    assert answers(Path(shutil.move(tmp_path / "whole", tmp_path / "moved")), file) == before


@pytest.mark.parametrize("tuning", [pytest.param("full", marks=pytest.mark.slow), "frozen"])
def test_answers_of_a_growing_dialogue(config_of: Make, file: Path, tmp_path: Path, tuning: str) -> None:
    config = config_of(tuning, graph={"scope": "dialogue", "future": 0}, optim={"epochs": 1})
    run_once(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    whole = run.predict(file)
    assert whole.values is not None
    wanted, stream = dict(zip(whole.ids, whole.values, strict=True)), run.stream()
    for utterance in load_corpus(config.data).splits["test"]:
        found = stream.add(utterance)
        assert found.values is not None
        assert found.values[0] == pytest.approx(wanted[utterance.id], abs=1e-3 if tuning == "frozen" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
def test_workers_change_nothing(config_of: Make, tmp_path: Path, tuning: str) -> None:
    for workers in (0, 2):
        run_once(config_of(tuning, run={"workers": workers}), tmp_path / str(workers))
    assert left(tmp_path / "0") == left(tmp_path / "2")


@pytest.mark.slow
def test_killed_at_random_moments(config_of: Make, tmp_path: Path) -> None:
    config = config_of(optim={"epochs": 1})
    run_once(config, tmp_path / "whole")
    assert killed_until_done(config, tmp_path / "killed", 4, 0, 5.0) == (4, 1)
    assert left(tmp_path / "killed") == left(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_two_processes_give_what_one_gives(config_of: Make, tmp_path: Path, tuning: str) -> None:
    # Few utterances say something: of most batches, one process or both have no text to read.
    path = write_pickle(tmp_path / "quiet.pkl", spoken_content(silent=lambda i: i % 6 > 0))
    model = {"dropout": 0, "input_dropout": 0}
    config = config_of(tuning, data={"path": str(path)}, model=model, optim={"batch_size": 4, "clip_norm": 1.0})
    run_once(config, tmp_path / "one")
    assert [ended(number) for number in together(2, lambda: run_once(config, tmp_path / "two"))] == [0, 0]
    rows = [Run(tmp_path / name).history for name in ("one", "two")]
    for one, two in zip(*rows, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)
        assert two["valid"] == pytest.approx(one["valid"], rel=1e-5, abs=1e-5)
    one, two = (load_file(tmp_path / name / "seed-1" / "model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    start = pretrained_weights(EncoderFolder(config.model.text_encoder or ""))
    name = "encoder.layer.1.output.dense"
    inner = f"{name}.lora_B.default.weight" if tuning == "lora" else f"{name}.weight"
    assert (two[INSIDE + inner] != start.get(inner, 0)).any()
