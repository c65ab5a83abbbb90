"""A clip to extract, and what is extracted from it."""

# L steps, D features
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmsa.data.store.files import NOT_ANNOTATED
from gmsa.media.types import Word


@dataclass(frozen=True)
class Clip:
    """A piece of a video to extract."""

    id: str
    """``video$_$clip``."""
    path: Path
    start: float = 0.0
    """Seconds."""
    stop: float | None = None
    """Seconds; None is the end of the file."""
    text: str | None = None
    """Transcript; None where the table gives none."""
    split: str = "pool"
    label: float | str | None = None
    unimodal: Mapping[str, float] = field(default_factory=dict)
    annotation: int = NOT_ANNOTATED
    speaker: str = ""


class Sequence(NamedTuple):
    """The steps of a modality of a clip."""

    values: np.ndarray
    """float32 ``[L, D]``."""
    times: np.ndarray
    """Start and stop of each step in seconds of the clip, float32 ``[L, 2]``."""


@dataclass
class Extracted:
    """What a clip holds."""

    sequences: dict[str, Sequence] = field(default_factory=dict)
    """By modality; those that are missing are absent."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a modality is missing."""
    words: list[Word] = field(default_factory=list)
    duration: float = 0.0
    """Seconds."""
    sha256: str = ""
    """Of the file."""
    speech: float = 0.0
    """Share of the clip in which someone speaks."""
    warnings: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The words, with spaces between them."""
        return " ".join(word.text for word in self.words)

    def record(self, clip: Clip) -> dict[str, Any]:
        """The line of ``clips.jsonl``."""
        return {
            "id": clip.id,
            "file": clip.path.name,
            "sha256": self.sha256,
            "start": clip.start,
            "stop": clip.stop,
            "duration": round(self.duration, 3),
            "speech": round(self.speech, 3),
            "words": [[w.text, round(w.start, 3), round(w.stop, 3), round(w.confidence, 3)] for w in self.words],
            "missing": dict(self.missing),
            "warnings": list(self.warnings),
        }


def to_line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON; equal records give equal bytes."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
