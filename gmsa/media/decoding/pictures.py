"""Frames of a video, by the times at which they are shown."""

# H height, W width
from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.media.decoding.container import (
    LIMITS,
    Faults,
    Limits,
    attempt,
    decoded,
    load_av,
    open_media,
    seek,
    undecodable,
)
from gmsa.media.types import MediaError

EARLY = 0.25
"""Share of a step by which a frame may come too early and still be that step's: times are rounded, cameras uneven."""
MARGIN = 1.0
"""Seconds before a time at which decoding begins, for frames that are stored in another order than shown."""


def frames(
    path: str | Path,
    fps: float = 10.0,
    longest: int = 640,
    start: float = 0.0,
    stop: float | None = None,
    limits: Limits = LIMITS,
    faults: Faults | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Gives the frames of a video with the seconds at which they are shown: the first of each step of ``1 / fps``.

    Times are those of the file, ascending, whatever its rate and however uneven. One frame is in memory at a time.
    ``start`` and ``stop`` give the same frames as all of the video does between them. A file without pictures has none.

    Args:
        path: the file.
        fps: at most so many frames a second.
        longest: pixels of the longer side at most; larger frames are scaled down.
        start: seconds from the start of the clip.
        stop: seconds; frames from here on are left out (default: the end).
        limits: what the file may hold.
        faults: counts damaged packets.

    Shapes:
        - frame: uint8 RGB :math:`(H, W, 3)`, turned as its metadata ask for

    Raises:
        MediaError: the file cannot be read, as :func:`~gmsa.media.decoding.container.open_media` says, or
            none of its pictures.
    """
    faults = Faults() if faults is None else faults
    first = (_step(start, fps) - EARLY) / fps  # the first time of the step that start is in
    enters = first > MARGIN and _can_seek(path, first, limits)
    with open_media(path, limits, faults) as media:
        if media.picture is None:
            return
        if enters:
            seek(media, media.picture, first - MARGIN)
        taken, last, some, failed = -1, -math.inf, False, False
        for seconds, frame in decoded(media, media.picture):
            if stop is not None and seconds >= stop:
                return
            step = _step(seconds, fps)
            if step <= taken or seconds <= last:
                continue
            if seconds < start:
                taken, last = step, seconds
                continue
            picture = None
            with attempt(media):
                picture = _rgb(frame, longest)
            if picture is None:
                failed = True
                continue
            taken, last, some = step, seconds, True
            yield seconds, picture
        if failed and not some:
            raise undecodable(media, media.picture)


def rotation(frame: Any) -> int:
    """Degrees counterclockwise, a multiple of 90, by which a frame must be turned to be upright."""
    return round(frame.rotation / 90) % 4 * 90


def _step(seconds: float, fps: float) -> int:
    return math.floor(seconds * fps + EARLY + 1e-6)


def _rgb(frame: Any, longest: int) -> np.ndarray:
    """A frame in RGB, uint8 ``[H, W, 3]``, scaled and turned."""
    scale = min(1.0, longest / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    picture = frame.reformat(width, height, "rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, rotation(frame) // 90))


def _can_seek(path: str | Path, seconds: float, limits: Limits) -> bool:
    """Whether a video that is entered by its index gives all frames from ``seconds`` on.

    It does if the first packet is a key frame that is shown no later, and decodes at once.
    """
    av = load_av()
    before = seconds - MARGIN
    with open_media(path, limits, Faults()) as media:
        stream = media.picture
        if stream is None or not seek(media, stream, before):
            return False
        with av.logging.Capture():
            try:
                packet = next(media.box.demux(stream))
            except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration):
                return False
        if not packet.is_keyframe or packet.pts is None or not seek(media, stream, before):
            return False
        shown = float(packet.pts * packet.time_base) - media.origin
        try:
            at = next((at for at, _ in decoded(media, stream)), math.inf)
        except MediaError:
            return False
        return max(shown, at) <= seconds and not media.faults.packets
