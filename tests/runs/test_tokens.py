"""``model.tokens``: long sequences are pooled until most utterances keep to the bound."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_data import tiny_content, tiny_run, write_pickle
from safetensors.torch import load_file

from gmsa.config import Config, from_dict
from gmsa.errors import DataWarning, RunError
from gmsa.runs import Run
from gmsa.runs.prepare import prepare
from gmsa.runs.train import train

SETTINGS: dict[str, Any] = {
    "model": {"channels": 16, "heads": 2, "tokens": 6},
    "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
    "protocol": {"name": "supervised"},
    "run": {"seeds": [1], "device": "cpu"},
}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmsa.runs.report.draw_run", lambda *_: None)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of up to 5 steps, audio of up to 90, vision of up to 60, and one training utterance that is far longer."""
    content = tiny_content(text=(5, 4), audio=(90, 3), vision=(240, 2))
    for columns in content.values():
        lengths = np.minimum(columns["vision_lengths"], 60)
        lengths[0] = 240
        columns["vision"][np.arange(240) >= lengths[:, None]] = 0
        columns["vision_lengths"] = lengths.tolist()
    return write_pickle(tmp_path_factory.mktemp("long") / "long.pkl", content)


def config_of(file: Path, **model: Any) -> Config:
    return from_dict({**SETTINGS, "data": {"path": str(file)}, "model": SETTINGS["model"] | model})


def test_a_token_is_the_largest_of_as_many_as_the_bound_needs(file: Path) -> None:
    prepared = prepare(config_of(file))
    model = prepared.config.model
    for modality, before in (("text", 1), ("audio", 8), ("vision", 1)):
        lengths = sorted(u.lengths[modality] for u in prepared.splits["train"])
        usual = lengths[int(np.ceil(0.95 * len(lengths))) - 1]
        strides = [before * factor for factor in range(1, 300)]
        assert model.stride(modality) == next(s for s in strides if -(-usual // s) <= 6)
    assert model.convs("text") == ((3, 1),)
    assert model.convs("audio")[:2] == ((4, 2), (4, 4))
    (first, (kernel, stride)) = model.convs("vision")
    assert (first, kernel) == ((3, 1), 0)
    assert stride > 3
    assert prepare(prepared.config).config == prepared.config


def test_it_trains_what_the_encoders_by_hand_train(file: Path, tmp_path: Path) -> None:
    found = tiny_run(tmp_path / "bound", file, **{**SETTINGS, "data": {}})
    convs = Run(found).config.model.encoders
    assert len(convs) > 1
    written = {name: [list(pair) for pair in pairs] for name, pairs in convs.items()}
    by_hand = tiny_run(tmp_path / "hand", file, model={"tokens": 0, "encoders": written}, run={"seeds": [1]})
    a, b = (load_file(folder / "seed-1" / "model.safetensors") for folder in (found, by_hand))
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)
    assert len(Run(found).predict(file)) == 48


def test_a_run_is_resumed_with_what_it_found(file: Path, tmp_path: Path) -> None:
    config = config_of(file)
    train(config, "run", tmp_path / "run")
    train(config, "run", tmp_path / "run", resume=True)
    for other in ({"tokens": 7}, {"encoders": {"vision": [[4, 1]], "others": [[3, 1]]}}):
        with pytest.raises(RunError, match=r"cannot resume .* with other settings: model\.(tokens|encoders)"):
            train(config_of(file, **other), "run", tmp_path / "run", resume=True)


def test_the_pairs_of_speakers_are_found_anew(small_synthetic: None, tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "data": {"path": "synthetic_speaker"},
        "graph": {"scope": "dialogue", "speakers": "pairs"},
    }
    config = from_dict(settings | {"model": {"channels": 16, "heads": 2}})
    train(config, "run", tmp_path / "run")
    train(config, "run", tmp_path / "run", resume=True)


def test_long_sequences_are_noted(tmp_path: Path) -> None:
    file = write_pickle(tmp_path / "long.pkl", tiny_content(text=(5, 4), vision=(200, 2)))
    with pytest.warns(DataWarning, match=r"vision has 1\d\d tokens; set 'model.tokens' to 64 or so"):
        prepare(config_of(file, tokens=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "model.tokens")
        prepare(config_of(file))
