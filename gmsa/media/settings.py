"""Settings of the extraction of features from raw media: ``configs/extract/*.yaml``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gmsa.config.coerce import build_dataclass
from gmsa.config.components import parse_component
from gmsa.config.fields import component, number
from gmsa.config.load import change, split_override
from gmsa.config.packaged import find
from gmsa.config.presets import MODALITIES
from gmsa.config.strict_yaml import read_yaml
from gmsa.errors import ConfigError, cut
from gmsa.registry import EXTRACTORS


@dataclass(frozen=True)
class TranscriptConfig:
    """Where the words come from."""

    source: Literal["auto", "given", "speech"] = "auto"
    """The transcripts of the table, or what is recognized in the sound; ``auto`` recognizes where there are none."""
    model: str = "whisper-tiny.en"
    """Whisper's weights for CTranslate2: those that gmsa knows by name, or a folder."""
    language: str = "en"
    """Language of the speech, as Whisper codes it."""
    beam: int = number(1, ge=1, le=20)
    """Beams of the search; 1 is greedy."""
    compute: Literal["float32", "int8"] = "float32"
    """Arithmetic. ``int8`` is a third faster, but blows up the last bits of the sound: for words alone."""


@dataclass(frozen=True)
class AlignConfig:
    """How the words of a given transcript get their times."""

    words: Literal["auto", "pocketsphinx", "whisper"] = "auto"
    """``auto`` is pocketsphinx for English, else Whisper's aligner."""


@dataclass(frozen=True)
class SegmentConfig:
    """How long videos are cut into clips."""

    longest: float = number(15.0, gt=0, le=30)
    """Seconds; a longer video without times of its own is cut at pauses."""
    pause: float = number(0.6, gt=0, le=10)
    """Seconds without speech that make a pause."""


@dataclass(frozen=True)
class LimitsConfig:
    """What is refused, or ended."""

    seconds: float = number(14_400.0, gt=0)
    """Of a video, at most."""
    pixels: int = number(33_177_600, ge=1)
    """Of a frame, at most; 8K has as many."""
    clip_seconds_per_second: float = number(60.0, gt=0)
    """Seconds of work for a second of a clip, and for each clip as many more; then its worker is ended."""


@dataclass(frozen=True)
class ExtractConfig:
    """What is extracted from raw media."""

    transcript: TranscriptConfig = field(default_factory=TranscriptConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    text: tuple[str, ...] = component(("minilm",), EXTRACTORS)
    """Extractors of text; the features of several stand side by side. An empty list leaves the modality out."""
    audio: tuple[str, ...] = component(("prosody", "whisper"), EXTRACTORS)
    """Extractors of audio."""
    vision: tuple[str, ...] = component(("face",), EXTRACTORS)
    """Extractors of vision."""
    steps: Literal["word", "own"] = "word"
    """A step per word in all modalities; or text by words, audio and vision at ``rate``."""
    rate: float = number(10.0, gt=0, le=100)
    """Steps per second with ``steps: own``."""
    gaps: Literal["drop", "fill"] = "drop"
    """What becomes of a word at which a modality has nothing, such as a face: it has no step, or the mean of the steps
    beside it, as graphs that join steps of equal number need it."""
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        if not any(self.of(modality) for modality in MODALITIES):
            raise ConfigError("'text', 'audio' and 'vision' name no extractor; name one")
        for modality in MODALITIES:
            for spec in self.of(modality):
                name, given = parse_component(spec, EXTRACTORS, modality)
                EXTRACTORS.check_given(name, given, modality)
                if (own := getattr(EXTRACTORS[name], "modality", "")) != modality:
                    raise ConfigError(f"'{modality}': '{cut(name)}' extracts {own or 'nothing'}; name it there")

    def of(self, modality: str) -> tuple[str, ...]:
        """The extractors of a modality."""
        found: tuple[str, ...] = getattr(self, modality)
        return found


def read_extraction(path: str | Path, overrides: Iterable[str] = ()) -> ExtractConfig:
    """Reads the settings of an extraction, and changes them.

    Args:
        path: a YAML file, or the name of a packaged one.
        overrides: ``key=value``.

    Raises:
        ConfigError: the file is missing, or a setting is wrong.
    """
    file = find(path, "extract")
    settings = read_yaml(file) or {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: must hold 'key: value' pairs")
    origins: dict[str, str] = {}
    for item in overrides:
        key, value = split_override(item)
        change(settings, key, value)
        origins[key.removesuffix("+")] = f"--set {cut(item)}"
    return build_dataclass(ExtractConfig, settings, lambda key: origins.get(key, os.fspath(path)))


def extraction_of(settings: Mapping[str, Any], where: str) -> ExtractConfig:
    """The settings that a store or a run recorded.

    Raises:
        ConfigError: they are none.
    """
    return build_dataclass(ExtractConfig, settings, where)
