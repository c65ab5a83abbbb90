"""Settings of the extraction: the packaged files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from gmsa.config.extraction import ExtractConfig, TranscriptConfig, extraction_of, read_extraction
from gmsa.config.load import to_dict
from gmsa.errors import ConfigError
from gmsa.media.pipeline import Pipeline

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "extract").glob("*.yaml"))
NEEDS = {"paper": "hubert-large-ls960-ft", "sims": "faster-whisper-small"}
"""What configs ask for that no package carries; the first of it that is looked for."""


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_packaged_settings_are_loaded_or_say_which_folder_lacks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)  # where no such folders are
    try:
        fingerprint = Pipeline(read_extraction(path)).fingerprint
    except ConfigError as error:
        lacks = NEEDS.get(path.stem, "make models" if path.stem == "default" else "gmsa[")
        assert lacks in str(error) or "roberta-large" in str(error) or "make models" in str(error)
        assert "\n" not in str(error)
    else:
        assert path.stem not in NEEDS
        assert fingerprint.keys() == {"words", "text", "audio", "vision", "steps"}


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


def test_only_exact_arithmetic_and_known_sources_are_named() -> None:
    kinds = {name: get_args(kind) for name, kind in TranscriptConfig.__annotations__.items() if "Literal" in str(kind)}
    assert TranscriptConfig().compute == "float32", kinds


def test_damaged_records_of_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="a store"):
        extraction_of({"vision": ["fase"]}, "a store")
