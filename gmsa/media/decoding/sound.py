"""Sound of a video or a sound file, on the clock of its clip."""

# N samples
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
    Media,
    attempt,
    decoded,
    load_av,
    open_media,
    seek,
    undecodable,
)
from gmsa.media.types import RATE

DRIFT = 0.05
"""Seconds by which times may differ from the number of samples before sound is taken as lost; recorders are uneven."""
RATES = 1_000, 768_000
"""Samples per second that a file may have; others are damage."""
PREROLL = 1.0
"""Seconds before a time at which decoding begins: codecs and the resampler need what came before."""


def audio_blocks(
    path: str | Path,
    start: float = 0.0,
    stop: float | None = None,
    seconds: float = 30.0,
    limits: Limits = LIMITS,
    faults: Faults | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Gives the sound of a file in blocks, each with the seconds at which it starts.

    Sound is mono at :data:`gmsa.media.types.RATE`. Where there is none, before a stream that starts late or in a gap,
    there is silence. The memory in use does not grow with the file. A file without a sound track has no blocks. A part
    is the same as in the whole; where a container rounds its times, as Matroska does, it lies within a millisecond.

    Args:
        path: the file.
        start: seconds from the start of the clip.
        stop: seconds (default: the end of the sound).
        seconds: of each block; the last may be shorter.
        limits: what the file may hold.
        faults: counts damaged packets.

    Shapes:
        - block: float32 :math:`(N)`, from -1 to 1

    Raises:
        MediaError: the file cannot be read, as :func:`~gmsa.media.decoding.container.open_media` says, or
            nothing of its sound.
    """
    size = max(round(seconds * RATE), 1)
    at, end = round(start * RATE), None if stop is None else round(stop * RATE)
    block, filled = np.empty(size, np.float32), 0
    with open_media(path, limits, Faults() if faults is None else faults) as media:
        for piece in _between(_resampled(media, start), at, end):
            while len(piece):
                part, piece = piece[: size - filled], piece[size - filled :]
                block[filled : filled + len(part)] = part
                filled += len(part)
                if filled == size:
                    yield at / RATE, block
                    at, block, filled = at + size, np.empty(size, np.float32), 0
    if filled:
        yield at / RATE, block[:filled]


def audio(
    path: str | Path,
    start: float = 0.0,
    stop: float | None = None,
    limits: Limits = LIMITS,
    faults: Faults | None = None,
) -> np.ndarray | None:
    """The sound of a file in one array, float32 ``[N]``, or None without a sound track; see :func:`audio_blocks`."""
    with open_media(path, limits, Faults()) as media:
        if media.sound is None:
            return None
    blocks = [block for _, block in audio_blocks(path, start, stop, limits=limits, faults=faults)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _between(pieces: Iterator[tuple[int, np.ndarray]], start: int, stop: int | None) -> Iterator[np.ndarray]:
    """Joins pieces, each with the index of its first sample, from one index to another; gaps are silence."""
    at = start
    for first, piece in pieces:
        for quiet in _silence(min(first, first if stop is None else stop) - at):
            yield quiet
            at += len(quiet)
        piece = piece[max(at - first, 0) : None if stop is None else max(stop - first, 0)]
        if len(piece):
            yield piece
            at += len(piece)
        if stop is not None and at >= stop:
            return


def _silence(samples: int) -> Iterator[np.ndarray]:
    """Zeros, at most a second at once: how many there are may be a stranger's word."""
    for done in range(0, samples, RATE):
        yield np.zeros(min(RATE, samples - done), np.float32)


def _resampled(media: Media, start: float) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of mono sound from ``start`` or before it on, each with the index of its first sample."""
    if media.sound is None:
        return
    if start > PREROLL:
        seek(media, media.sound, start - PREROLL)  # if it fails, what comes before is decoded too
    converter: _Converter | None = None
    some = False
    for seconds, frame in decoded(media, media.sound):
        if not frame.samples or not RATES[0] <= frame.sample_rate <= RATES[1]:
            media.faults.add(f"{frame.samples} samples at {frame.sample_rate} Hz")
            continue
        if converter is None or converter.source != (frame.format.name, frame.layout.name, frame.sample_rate):
            if converter is not None:
                yield from _attempted(converter.end(), media)
            converter = _Converter(frame, seconds)
        for piece in _attempted(converter.add(frame, seconds), media):
            some = True
            yield piece
    if converter is not None:
        yield from _attempted(converter.end(), media)
    if media.faults.packets and not some:
        raise undecodable(media, media.sound)


def _attempted(pieces: Iterator[tuple[int, np.ndarray]], media: Media) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces up to the first that FFmpeg cannot make."""
    while True:
        piece = None
        with attempt(media):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


class _Converter:
    """Makes mono sound at :data:`gmsa.media.types.RATE` of frames of one kind.

    The resampler is started at an index of the source that falls together with one of the output. So its output depends
    neither on where decoding began nor on when the stream starts.
    """

    def __init__(self, frame: Any, seconds: float) -> None:
        av = load_av()
        rate = frame.sample_rate
        self.source = (frame.format.name, frame.layout.name, rate)
        self._rate = rate
        self._frame = av.AudioFrame
        self._mix = av.AudioResampler("flt", "mono", rate)
        self._resample = av.AudioResampler("flt", "mono", RATE)
        grid = rate // math.gcd(rate, RATE)
        first = max(round(seconds * rate), 0)
        self._fed = first // grid * grid  # index of the next sample of the source
        self._given = self._fed * RATE // rate  # index of the next sample of the output
        self._begun = False

    def add(self, frame: Any, seconds: float) -> Iterator[tuple[int, np.ndarray]]:
        """Takes a frame, and gives what is finished."""
        frame.pts = None
        sound = np.concatenate([np.zeros(0, np.float32), *(part.to_ndarray()[0] for part in self._mix.resample(frame))])
        if not len(sound):
            return
        np.nan_to_num(sound, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        lost = round(seconds * self._rate) - self._fed
        if not self._begun or abs(lost) > DRIFT * self._rate:
            self._begun = True
            for quiet in _silence(lost):
                yield self._feed(quiet)
            sound = sound[max(-lost, 0) :]  # what is told twice, or lies before the start of the clip
        if len(sound):
            yield self._feed(sound)

    def end(self) -> Iterator[tuple[int, np.ndarray]]:
        """What the resampler still holds."""
        yield self._placed(self._resample.resample(None))

    def _feed(self, sound: np.ndarray) -> tuple[int, np.ndarray]:
        frame = self._frame.from_ndarray(np.ascontiguousarray(sound[None]), "flt", "mono")
        frame.sample_rate = self._rate
        self._fed += len(sound)
        return self._placed(self._resample.resample(frame))

    def _placed(self, parts: list[Any]) -> tuple[int, np.ndarray]:
        sound = np.concatenate([np.zeros(0, np.float32), *(part.to_ndarray()[0] for part in parts)])
        first, self._given = self._given, self._given + len(sound)
        return first, sound
