"""Clips in memory, as extractors see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gmsa.media import Steps, Word
from gmsa.media.types import RATE


@dataclass
class Clip:
    """A clip of given pictures and sound."""

    pictures: list[tuple[float, np.ndarray]] = field(default_factory=list)
    """Seconds and uint8 ``[height, width, 3]``."""
    sound: np.ndarray | None = None
    """float32, 16 kHz."""
    has_video: bool = True

    @property
    def duration(self) -> float:
        return 0.0 if self.sound is None else len(self.sound) / RATE

    def samples(self) -> np.ndarray | None:
        return self.sound

    def frames(self, fps: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
        yield from self.pictures

    def words(self) -> list[Word]:
        raise AssertionError("a numeric extractor needs no words")

    def encoded(self) -> Steps:
        raise AssertionError("a numeric extractor needs no speech recognizer")
