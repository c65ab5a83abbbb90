"""What the parts of the extraction pass on: words, steps of features, and what a clip lacks."""

# L steps, D features
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gmsa.errors import DataError

RATE = 16_000
"""Samples of sound per second, everywhere: what speech models take."""


class MediaError(DataError):
    """A clip cannot be read, and is skipped."""


class Missing(Exception):
    """A modality that a clip lacks; the message says what was looked for: ``a face in 12 % of 80 frames``."""


class Word(NamedTuple):
    """A word of a clip."""

    text: str
    start: float
    """Seconds from the start of the clip."""
    stop: float
    confidence: float = 1.0
    """From 0 to 1."""


class Steps(NamedTuple):
    """Features of a modality along time; only steps that exist."""

    values: np.ndarray
    """float32 ``[L, D]``."""
    start: np.ndarray
    """Seconds from the start of the clip, float64 ``[L]``, ascending."""
    stop: np.ndarray
    """Seconds, float64 ``[L]``."""


class Face(NamedTuple):
    """What is seen of one face in one frame."""

    features: np.ndarray
    """float32 ``[D]``."""
    jaw: float
    """How far the mouth is open, from 0 to 1."""
    center: tuple[float, float]
    """Of the face in the frame, each from 0 to 1, from the upper left corner."""
    size: float
    """Width of the face as a share of the frame's."""
