"""Cuts a long video into pieces, at the pauses of its speech."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class _Point(NamedTuple):
    """Where a video may be cut."""

    at: float
    earliest: float
    """Up to where the cut may move ahead, if ``at`` is out of reach."""
    silence: float
    """Seconds of the silence that it lies in."""


def cut(
    speech: Iterable[tuple[float, float]], duration: float, longest: float = 15, pause: float = 0.6
) -> list[tuple[float, float]]:
    """Returns start and stop, in seconds, of pieces that cover the whole video without overlap.

    Silence belongs to pieces too, since a face shows what it feels without words; a piece may be silent as a whole.
    Each piece in turn ends, if more than ``longest`` is left, at the best point within ``longest`` of its start: best
    is one in a pause of at least ``pause``, then one that leaves the piece longer than half of ``longest``, then one in
    the longest silence. The point of a silence between two spans of speech is its middle. A silence longer than half of
    ``longest``, or a pause at an end of the video, has one beside the speech instead, half a ``pause`` from it. Where
    there is no point, as speech runs on, a piece ends ``longest`` after its start, or halfway to the next point if two
    pieces reach it; it may end within a word.

    Args:
        speech: start and stop of spans of speech, sorted by start; they may overlap.
        duration: of the video, in seconds.
        longest: seconds of a piece at most.
        pause: seconds of a silence that is certainly between two sentences.
    """
    points = _points(speech, duration, longest, pause)
    pieces, start = [], 0.0
    while duration - start > longest:
        end = start + longest
        near = [
            point._replace(at=min(point.at, end))
            for point in points
            if start < point.at <= end or start < point.earliest < end < point.at
        ]
        if near:
            stop = max(near, key=lambda p: (p.silence >= pause, p.at >= (start + end) / 2, p.silence, p.at)).at
        else:
            following = min((point.at for point in points if point.at > end), default=duration)
            stop = min(end, (start + following) / 2) if following <= end + longest else end
        pieces.append((start, stop))
        start = stop
    return [*pieces, (start, duration)]


def _points(speech: Iterable[tuple[float, float]], duration: float, longest: float, pause: float) -> list[_Point]:
    points, end = [], 0.0
    for start, stop in [*speech, (duration, duration)]:
        silence = min(start, duration) - end
        after, before = end > 0, start < duration  # whether there is speech on that side
        if after and before and 0 < silence <= longest / 2:
            points.append(_Point(end + silence / 2, end, silence))
        elif silence >= pause:
            points += [_Point(end + pause / 2, end, silence)] * after
            points += [_Point(start - pause / 2, start - pause / 2, silence)] * before
        end = max(end, stop)
    return points
