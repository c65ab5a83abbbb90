"""Looks at a whole file: how long it is, and where it is cut at pauses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gmsa.media.cut import cut
from gmsa.media.decoding import decode
from gmsa.media.hearing.speech import speech_spans
from gmsa.media.settings import ExtractConfig

BLOCK = 300.0
"""Seconds of sound in memory at a time."""


def look_at(path: Path, settings: ExtractConfig) -> tuple[float, list[tuple[float, float]]]:
    """The seconds of a file, and the pieces that it is cut into; one where it is short enough.

    Raises:
        MediaError: it cannot be read.
    """
    limits = decode.Limits(settings.limits.seconds, settings.limits.pixels)
    probe = decode.probe(path, limits)
    chosen = settings.segment
    if probe.duration <= chosen.longest:
        return probe.duration, [(0.0, probe.duration)]
    spans: list[tuple[float, float]] = []
    if probe.has_audio:
        for start, block in decode.audio_blocks(path, seconds=BLOCK, limits=limits):
            spans += [(start + a, start + b) for a, b in speech_spans(np.ascontiguousarray(block))]
    return probe.duration, cut(_joined(spans), probe.duration, chosen.longest, chosen.pause)


def _joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of which those that touch are one, as where a block ends within speech."""
    found: list[tuple[float, float]] = []
    for start, stop in spans:
        if found and start <= found[-1][1] + 0.05:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found
