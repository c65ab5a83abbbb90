"""Clips of which tests know all that extractors ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import resample_poly

from gmsa.media.types import RATE, Missing, Steps, Word
from helpers.talking_head import Speech, speak

SAID = (
    "I really loved this movie because the acting was great.",
    "The plot made no sense and the ending was terrible.",
    "She said that the music was beautiful.",
    "We waited for two hours and nothing happened.",
    "This is the best phone that I have ever owned.",
    "Honestly the service was slow and the food was cold.",
    "He never explains why anything matters in this story.",
    "My sister thinks it is a wonderful book for children.",
    "They should have spent more money on the camera work.",
    "It was not bad but I would not watch it again.",
    "Everyone in the theater was laughing from start to finish.",
    "I am so disappointed with what they did to this character.",
)
"""Twelve sentences, for :data:`VOICES` in turn."""
VOICES = ("slt", "rms", "awb", "kal")
SILENCE = 0.5
"""Seconds before and after the speech of :func:`said`."""


@dataclass
class Clip:
    """A clip in memory; see :class:`gmsa.media.protocol.Media`."""

    sound: np.ndarray | None = None
    pictures: Sequence[tuple[float, np.ndarray]] | None = None
    said: Sequence[Word] = ()
    states: Steps | None = None
    duration: float = 1.0

    @property
    def has_video(self) -> bool:
        return self.pictures is not None

    def samples(self) -> np.ndarray | None:
        return self.sound

    def frames(self, fps: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
        yield from self.pictures or ()

    def words(self) -> list[Word]:
        return list(self.said)

    def encoded(self) -> Steps:
        if self.states is None:
            raise Missing("sound")
        return self.states


def said(text: str, voice: str = "slt") -> tuple[np.ndarray, list[Word]]:
    """Speech by flite at 16 kHz between two silences, and its words with their true times."""
    speech: Speech = speak(text, voice)
    sound = speech.sound.astype(np.float32) / 32768
    if speech.rate != RATE:
        sound = resample_poly(sound, RATE, speech.rate).astype(np.float32)
    silence = np.zeros(round(SILENCE * RATE), np.float32)
    words = [w._replace(start=w.start + SILENCE, stop=w.stop + SILENCE) for w in speech.words]
    return np.concatenate([silence, sound, silence]), words


def sentences(count: int) -> list[tuple[np.ndarray, list[Word]]]:
    """The first of the twelve sentences, as :func:`said` says them."""
    return [said(text, VOICES[i % len(VOICES)]) for i, text in enumerate(SAID[:count])]
