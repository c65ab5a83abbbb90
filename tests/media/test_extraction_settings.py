"""Settings of the extraction: the packaged files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.model_weights import weights

from gmsa.config.load import to_dict
from gmsa.errors import ConfigError
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig, extraction_of, read_extraction

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "extract").glob("*.yaml"))
NEEDS = {"paper": "roberta-large", "sims": "faster-whisper-small"}
"""Folders that configs ask for and no package carries; the first that is looked for."""


def refused(*overrides: str, path: str | Path = "default") -> str:
    with pytest.raises(ConfigError) as caught:
        read_extraction(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_packaged_settings_are_read_by_name(path: Path) -> None:
    settings = read_extraction(path.stem)
    assert settings == read_extraction(path)
    assert extraction_of(to_dict(settings), "a store") == settings


@pytest.mark.parametrize(
    ("name", "package"),
    [("default", "mediapipe"), ("opensmile", "opensmile"), ("paper", ""), ("sims", "")],
)
def test_packaged_settings_are_loaded_or_say_what_lacks(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no folders of weights are
    weights("whisper-tiny.en")  # else they are what lacks
    if not package:
        with pytest.raises(ConfigError, match=NEEDS[name]) as caught:
            _ = Pipeline(read_extraction(name)).fingerprint
        assert "\n" not in str(caught.value)
        return
    weights("minilm")
    pytest.importorskip(package)
    assert Pipeline(read_extraction(name)).fingerprint.keys() == {"words", "text", "audio", "vision", "steps"}


@pytest.mark.parametrize("download", [True, False])
def test_known_weights_of_extractors_are_fetched_too(download: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr("gmsa.media.pipeline.find", lambda name, key, download: asked.append((name, download)))
    pipeline = Pipeline(ExtractConfig(text=("minilm",), audio=("prosody",), vision=()), None, download)
    weights("minilm")
    assert pipeline.extractors.keys() == {"text", "audio"}
    assert asked == [("minilm", True)] * download


def test_every_packaged_file_is_tried_above() -> None:
    assert {path.stem for path in CONFIGS} == {"default", "opensmile", *NEEDS}


def test_defaults_are_those_of_the_packaged_file() -> None:
    assert read_extraction("default") == ExtractConfig()


def test_settings_are_changed() -> None:
    changed = read_extraction(
        "default",
        ["steps=own", "rate=5", "transcript.beam=3", "vision=[]", "text=[minilm, minilm]", "limits.seconds=9"],
    )
    assert (changed.steps, changed.rate, changed.transcript.beam, changed.vision) == ("own", 5.0, 3, ())
    assert (changed.text, changed.limits.seconds) == (("minilm", "minilm"), 9.0)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("step=own", "steps"),
        ("transcript.modle=x", "model"),
        ("limit.seconds=3", "limits"),
        ("steps=words", "word"),
        ("rate=0", "rate"),
        ("rate=fast", "rate"),
        ("segment.longest=31", "longest"),
        ("transcript.beam=1.5", "beam"),
        ("transcript.source=table", "given"),
        ("text=[minilmm]", "minilm"),
        ("text=[face]", "'face' extracts vision"),
        ("vision=[prosody]", "'prosody' extracts audio"),
        ("vision=['face(fsp=3)']", "fps"),
        ("text=[hf_text]", "needs 'model'"),
    ],
)
def test_wrong_settings_are_refused(override: str, said: str) -> None:
    found = refused(override)
    assert said in found


def test_nothing_to_extract_is_refused() -> None:
    assert "name no extractor" in refused("text=[]", "audio=[]", "vision=[]")


def test_files_are_strict(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("vison: [face]\n")
    found = refused(path=file)
    assert "vision" in found
    assert "own.yaml" in found
    file.write_text("steps: own\nsteps: word\n")
    assert "steps" in refused(path=file)
    file.write_text("- face\n")
    assert "key: value" in refused(path=file)
    assert "default" in refused(path="defalt")
    file.write_text("")
    assert read_extraction(file) == ExtractConfig()


def test_damaged_records_of_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="a store"):
        extraction_of({"vision": ["fase"]}, "a store")
