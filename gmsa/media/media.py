"""A clip as extractors see it: sound, frames, speech, words and states, each made once and when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmsa.media.clips import Clip
from gmsa.media.decoding import decode
from gmsa.media.hearing.align import align, spread
from gmsa.media.hearing.speech import speech_spans
from gmsa.media.settings import ExtractConfig
from gmsa.media.types import MediaError, Missing, Steps, Word
from gmsa.media.weights import find_folder

if TYPE_CHECKING:
    from gmsa.media.hearing.speech import Whisper

SILENT = 1e-4
"""Loudest sample, from 0 to 1, of a clip that counts as silent."""
TRANSCRIPT = "transcript.model"


class Recognizer:
    """Whisper, loaded when the first clip needs it."""

    def __init__(self, settings: ExtractConfig, download: bool = False) -> None:
        self.settings, self.download = settings, download

    @cached_property
    def folder(self) -> Path:
        """Its weights, checked."""
        return find_folder(self.settings.transcript.model, TRANSCRIPT, self.download)

    @cached_property
    def whisper(self) -> Whisper:
        """The loaded model."""
        from gmsa.media.hearing.speech import Whisper

        chosen = self.settings.transcript
        return Whisper(self.folder, chosen.language, chosen.beam, chosen.compute)


class ClipMedia:
    """One clip of a file; see :class:`gmsa.media.protocol.Media`.

    Args:
        clip: the file and its part.
        settings: how words are found, and the limits.
        recognizer: shared by the clips of a worker.

    Raises:
        MediaError: the file cannot be read, or the part lies beyond its end.
    """

    def __init__(self, clip: Clip, settings: ExtractConfig, recognizer: Recognizer) -> None:
        self.clip, self.settings, self.recognizer = clip, settings, recognizer
        limits = settings.limits
        self.probe = decode.probe(clip.path, decode.Limits(limits.seconds, limits.pixels))
        whole = self.probe.duration
        if clip.start >= whole:
            raise MediaError(
                f"{clip.path.name}: the clip starts at {clip.start:g} s, but the file has {whole:.1f} s; "
                "correct the times"
            )
        self.stop = whole if clip.stop is None else min(clip.stop, whole)
        self.warnings: list[str] = list(self.probe.warnings)
        if clip.stop is not None and clip.stop > whole + 0.5:
            self.warnings.append(f"ends at {whole:.1f} s, not at {clip.stop:g} s")

    @property
    def duration(self) -> float:
        """Seconds of the clip."""
        return self.stop - self.clip.start

    @property
    def has_video(self) -> bool:
        """Whether the file has a video track."""
        return self.probe.has_video

    @cached_property
    def _samples(self) -> np.ndarray | None:
        if not self.probe.has_audio:
            return None
        return decode.audio(self.clip.path, self.clip.start, self.stop)

    def samples(self) -> np.ndarray | None:
        """The sound, 16 kHz mono float32; None without an audio track."""
        return self._samples

    def heard(self) -> np.ndarray:
        """The sound.

        Raises:
            Missing: there is none, or it is silent.
        """
        found = self._samples
        if found is None or not len(found):
            raise Missing("no audio track")
        if float(np.abs(found).max()) < SILENT:
            raise Missing("the sound is silent")
        return found

    def frames(self, fps: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
        """Seconds of the clip and RGB of its frames, at most ``fps``; none without a video track."""
        if self.probe.has_video:
            for seconds, rgb in decode.frames(self.clip.path, fps, longest, self.clip.start, self.stop):
                yield seconds - self.clip.start, rgb

    @cached_property
    def _speech(self) -> list[tuple[float, float]]:
        return speech_spans(self.heard())

    def speech(self) -> list[tuple[float, float]]:
        """Start and stop of what is spoken, in seconds; empty where nothing is.

        Raises:
            Missing: there is no sound.
        """
        return self._speech

    @cached_property
    def _recognized(self) -> tuple[list[Word], Steps]:
        sound = self.heard()
        spans = [] if self._has_transcript else self.speech()  # without speech no words are looked for
        return self.recognizer.whisper.words_and_states(sound, spans)

    @property
    def _has_transcript(self) -> bool:
        """Whether the words are those of the table, not recognized ones."""
        source, text = self.settings.transcript.source, self.clip.text or ""
        return source == "given" or (source == "auto" and bool(text.strip()))

    def encoded(self) -> Steps:
        """Whisper's states of the sound, from the pass that recognizes the words where the table has none.

        Raises:
            Missing: there is no sound.
        """
        return self._recognized[1]

    @cached_property
    def _words(self) -> list[Word]:
        if self._has_transcript:
            return self._aligned(self.clip.text or "")
        words = self._recognized[0]
        if not words:
            raise Missing("no speech")
        return words

    def words(self) -> list[Word]:
        """The words with their times: those of the table, else the recognized ones.

        Raises:
            Missing: there are none.
        """
        return self._words

    def _aligned(self, text: str) -> list[Word]:
        if not text.split():
            raise Missing("the transcript is empty")
        chosen = self.settings
        language, how = chosen.transcript.language, chosen.align.words
        try:
            whisper = None if how == "pocketsphinx" else self.recognizer.whisper
            words = align(self.heard(), text, how, language, whisper, self.speech())
        except Missing as missing:
            self.warnings.append(f"{missing}: the words of the transcript are spread evenly")
            return spread(text, 0.0, self.duration, language)
        if guessed := sum(word.confidence == 0 for word in words):
            self.warnings.append(f"the times of {guessed} of {len(words)} words are guessed")
        return words
