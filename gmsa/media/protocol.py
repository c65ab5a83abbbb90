"""What an extractor is, and what it may ask of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from gmsa.media.types import Steps, Word


class Media(Protocol):
    """A clip, read lazily; what several extractors ask for is computed once."""

    @property
    def duration(self) -> float:
        """Seconds."""

    @property
    def has_video(self) -> bool:
        """Whether there is a video track."""

    def samples(self) -> np.ndarray | None:
        """The sound of the whole clip, float32 [N], 16 kHz, mono; None without an audio track."""

    def frames(self, fps: float, longest: int) -> Iterator[tuple[float, np.ndarray]]:
        """Yields seconds and picture, uint8 [height, width, 3], at most ``fps`` a second; none without a video track.

        Args:
            longest: pixels of the longer side at most; larger pictures are scaled.
        """

    def words(self) -> list[Word]:
        """The words of the clip, in time order."""

    def encoded(self) -> Steps:
        """The states of the speech recognizer's encoder."""


class Extractor(Protocol):
    """Turns a clip into the steps of one modality.

    It is made by a function or class whose keyword parameters are its settings, as in ``{name: face, fps: 15}``.
    """

    @property
    def name(self) -> str:
        """By which settings choose it."""

    @property
    def modality(self) -> str:
        """The modality that it gives features of."""

    @property
    def version(self) -> int:
        """Raised by each change of the code that changes numbers."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the D features."""

    def fingerprint(self) -> Mapping[str, str]:
        """What the numbers depend on besides the version: settings, SHA-256 of weights, versions of packages."""

    def __call__(self, media: Media) -> Steps:
        """Extracts the steps of a clip.

        Raises:
            Missing: the clip lacks what is looked for.
        """
