"""``gmsa inspect``: prints and draws the graph of an utterance of any modalities, as the config's model takes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.graphs import clip

import gmsa.data
from gmsa import inspect
from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Target
from gmsa.data.corpus import Corpus
from gmsa.errors import ConfigError

DIMS = {"text": 3, "eeg": 4, "pose": 2}
EMOTION = Target("classes", classes=("joy", "anger"), metrics="classes")
CONFIG = """
data: {modalities: auto}
target: {kind: classes, classes: [joy, anger]}
model: {encoders: {eeg: [[4, 4]]}}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config and a corpus of other modalities, whose labels are classes."""
    utterances = [clip("a$_$1", DIMS, (3, 8, 0), label=1.0, text="one two three"), clip("a$_$2", DIMS, (1, 1, 1))]

    def load(data: DataConfig, target: TargetConfig) -> Corpus:
        return Corpus({"train": utterances[:1], "valid": [], "test": utterances[1:]}, DIMS, target=EMOTION)

    monkeypatch.setattr(gmsa.data, "load_corpus", load)
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(CONFIG)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    inspect.main(["--config", "own.yaml", "--out", "graph.svg", *arguments])
    return capsys.readouterr().out


def test_it_prints_the_nodes_edges_and_class(data: None, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "--id", "a$_$1").splitlines()
    assert printed[0] == "a$_$1 (train), label anger"
    assert printed[1:4] == [
        "  text: 3 steps of 3 features, 3 nodes",
        "  eeg: 8 steps of 4 features, 2 nodes",
        "  pose: 0 steps of 2 features, 0 nodes",
    ]
    # To and from cls, which has no val beside it: 3 x 3 + 2 x 2 within, 2 x 3 x 2 across, 2 x 5 with cls.
    assert printed[4:6] == ["  intra: 23 edges", "  inter: 22 edges"]
    assert Path("graph.svg").read_text().startswith("<?xml")
    assert run(capsys, "--id", "a$_$2").startswith("a$_$2 (test), label unknown\n")


def test_a_model_without_readout_nodes_is_shown_without(data: None, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "--id", "a$_$1", "--set", "model.name=sslmm")
    assert re.findall(r"(\d+) edges", printed) == ["13", "12"]


def test_one_relation_is_named_by_the_modalities_of_the_data(data: None, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--id", "a$_$1", "--relation", "eeg-inter-text")
    with pytest.raises(ConfigError, match=r"no relation 'audio-inter-text' .*such as text-intra-text or eeg-inter-te"):
        run(capsys, "--id", "a$_$1", "--relation", "audio-inter-text")
