"""Cuts a long video into pieces, at the pauses of its speech."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class _Point(NamedTuple):
    """Where a video may be cut."""

    at: float
    silence: float
    """Seconds of the silence that it lies in."""


def cut(
    speech: Iterable[tuple[float, float]], duration: float, longest: float = 15, pause: float = 0.6
) -> list[tuple[float, float]]:
    """Returns start and stop, in seconds, of pieces that cover the whole video without overlap.

    Silence belongs to pieces too, since a face shows what it feels without words; a piece may be silent as a whole.
    Each piece in turn ends, if more than ``longest`` is left, at the best point that is at most ``longest`` from its
    start: best is a pause of at least ``pause``, then one that leaves the piece longer than half of ``longest``, then
    the longest silence. Such a point is the middle of a silence between two spans of speech; of a silence longer than
    half of ``longest``, and of one at an end of the video, it is half a ``pause`` from the speech. Where speech runs
    on, the piece is ``longest`` long, and a word may be cut.

    Args:
        speech: start and stop of spans of speech, sorted by start; they may overlap.
        duration: of the video, in seconds.
        longest: seconds of a piece at most.
        pause: seconds of a silence that is certainly between two sentences.
    """
    points = _points(speech, duration, longest, pause)
    pieces, start = [], 0.0
    while duration - start > longest:
        near = [point for point in points if start < point.at <= start + longest]
        best = max(
            near,
            key=lambda point: (point.silence >= pause, point.at >= start + longest / 2, point.silence, point.at),
            default=_Point(start + longest, 0),
        )
        pieces.append((start, best.at))
        start = best.at
    return [*pieces, (start, duration)]


def _points(speech: Iterable[tuple[float, float]], duration: float, longest: float, pause: float) -> list[_Point]:
    points, end = [], 0.0
    for start, stop in [*speech, (duration, duration)]:
        silence = min(start, duration) - end
        inside = end > 0 and start < duration
        if silence > longest / 2:
            aside = min(pause, silence) / 2
            points += [_Point(end + aside, silence)] * (end > 0) + [_Point(start - aside, silence)] * (start < duration)
        elif silence > 0 and inside:
            points.append(_Point(end + silence / 2, silence))
        end = max(end, stop)
    return points
