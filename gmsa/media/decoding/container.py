"""Opens videos and sounds by PyAV, confined: one regular file is read, and nothing that it may name.

A list (HLS, ffconcat) under the name of a video would have FFmpeg open what it lists. So a container must be on a list
of those that hold their own data, and FFmpeg gets an open file: it never sees a path, and may open no other.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gmsa.errors import GmsaError, cut, short
from gmsa.media.types import MediaError
from gmsa.system.packages import load_package
from gmsa.system.reading import open_regular, reason_of

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,wav,mp3,flac,ogg,aac,asf,flv"
"""Those that hold all of their own data, by FFmpeg's names."""

SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"}
"""Those with an index, whose times are the same after a seek."""


@dataclass(frozen=True)
class Limits:
    """What a file may hold at most; a stranger's could exhaust the machine."""

    seconds: float = 14_400
    pixels: int = 33_177_600
    """Of a frame: 7,680 x 4,320."""
    streams: int = 64


LIMITS = Limits()


@dataclass
class Faults:
    """What decoders complained of."""

    packets: int = 0
    """How many were damaged."""
    first: str = ""
    """The first complaint."""

    def add(self, message: object) -> None:
        """Counts a damaged packet."""
        self.packets += 1
        self.first = self.first or cut(message)

    def warning(self, what: str) -> str:
        """One line for the user, empty if there were none; ``what`` was decoded."""
        if not self.packets:
            return ""
        return f"{self.packets:,} damaged packet{'s' * (self.packets > 1)} of {what} ({self.first})"


class Media(NamedTuple):
    """An open file."""

    path: str | Path
    box: Any
    """PyAV's container."""
    origin: float
    """Seconds on the container's clock at which the clip starts; times of a clip count from there."""
    picture: Any
    """PyAV's first video stream that is no cover picture, or None."""
    sound: Any
    """PyAV's first audio stream, or None."""
    limits: Limits
    faults: Faults


@contextmanager
def open_media(path: str | Path, limits: Limits, faults: Faults) -> Iterator[Media]:
    """Opens a file that holds pictures, sound, or both.

    Raises:
        MediaError: it cannot be opened, is empty, cut off, a list or of an unknown format, holds neither pictures nor
            sound, or exceeds a limit.
        ConfigError: PyAV is not installed.
    """
    av = load_av()
    where = f"'{short(path)}'"
    with open_regular(path, where, kind=MediaError) as file:
        if not os.fstat(file.fileno()).st_size:
            raise MediaError(f"{where}: is empty; copy or record it again")
        options = {
            "format_whitelist": CONTAINERS,
            "protocol_whitelist": "none",
            "max_pixels": str(limits.pixels),
            "threads": "1",
        }
        with av.logging.Capture() as log:
            try:
                box = av.open(file, options=options, metadata_errors="replace")
            except (av.FFmpegError, OSError, ValueError, IndexError) as error:
                raise MediaError(f"{where}: {_refusal(error, log)}") from None
        with box:
            yield _checked(Media(path, box, (box.start_time or 0) / av.time_base, *_streams(box), limits, faults))


def decoded(media: Media, stream: Any) -> Iterator[tuple[float, Any]]:
    """Decodes a stream from where the container stands, and gives each frame with its seconds.

    A damaged packet is counted in ``media.faults``, and decoding goes on after it. A frame whose time is unknown
    follows the one before it.

    Raises:
        MediaError: nothing of a damaged stream can be decoded, or it exceeds a limit.
    """
    some, seconds = False, 0.0
    for frame in _frames(media, stream):
        some = True
        if frame.time is not None:
            seconds = float(frame.time) - media.origin
        elif frame.dts is not None:
            seconds = float(frame.dts * frame.time_base) - media.origin
        if seconds > media.limits.seconds:
            raise _too_long(media)
        yield seconds, frame
        seconds += _lasts(frame, stream)
    if media.faults.packets and not some:
        raise undecodable(media, stream)


@contextmanager
def attempt(media: Media) -> Iterator[None]:
    """Counts what FFmpeg complains of inside as one damaged packet, and goes on after the block.

    No frame may be handed out inside: the log is that of the whole thread.
    """
    av = load_av()
    problem: object = None
    with av.logging.Capture() as log:
        try:
            yield
        except GmsaError:
            raise
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            problem = error
    errors = [message for level, _, message in log if level <= av.logging.ERROR]
    if errors or problem:
        media.faults.add(errors[0] if errors else problem)


def undecodable(media: Media, stream: Any) -> MediaError:
    """The error for a stream of which nothing can be used."""
    kind = "pictures" if stream.type == "video" else "sound"
    return MediaError(
        f"'{short(media.path)}': its {kind} cannot be decoded ({media.faults.first}); encode it again, as H.264 and AAC"
    )


def seek(media: Media, stream: Any, seconds: float) -> bool:
    """Goes to the last key frame of a stream at or before a time, by the container's index; says whether it could.

    Args:
        seconds: from the start of the clip.
    """
    av = load_av()
    if media.box.format.name not in SEEKABLE or not stream.time_base:
        return False
    with av.logging.Capture():
        try:
            media.box.seek(math.floor((media.origin + seconds) / stream.time_base), stream=stream)
        except (av.FFmpegError, OSError, OverflowError):
            return False
    return True


def length(media: Media) -> float:
    """Seconds from the start of a clip to its end: what the container says, else the end of its last packet.

    Raises:
        MediaError: it exceeds a limit.
    """
    av, box = load_av(), media.box
    seconds = (box.duration or 0) / av.time_base
    if seconds <= 0:  # a browser's recorder writes none
        streams = [stream for stream in (media.picture, media.sound) if stream is not None]
        with av.logging.Capture():
            try:
                for packet in box.demux(*streams):
                    at = packet.dts if packet.pts is None else packet.pts
                    if at is not None:
                        ends = float((at + (packet.duration or 0)) * packet.time_base) - media.origin
                        seconds = max(seconds, ends)
            except (av.FFmpegError, OSError, ValueError, IndexError) as error:
                media.faults.add(error)
    if seconds > media.limits.seconds:
        raise _too_long(media)
    return seconds


def load_av() -> Any:
    """PyAV, whose FFmpeg reports errors to :mod:`logging` instead of the terminal.

    Raises:
        ConfigError: it is not installed.
    """
    av = load_package("av", "reading videos and sounds", "media")
    if (av.logging.get_level() or -1) < av.logging.ERROR:
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # they are counted
        logging.getLogger("libav").addHandler(logging.NullHandler())  # else Python prints what nobody handles
    return av


def _frames(media: Media, stream: Any) -> Iterator[Any]:
    """Decodes packets one at a time: no log is captured while the caller holds a frame."""
    # One thread: a log is captured in the thread that decodes, and a worker has one core.
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    packets = media.box.demux(stream)
    going = True
    while going:
        frames: list[Any] = []
        going = False
        with attempt(media):
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV met a stream that begins late
                packets, going = media.box.demux(stream), True
                raise
            if packet is not None:
                going = True
                frames = _decode(packet)
                if packet.is_corrupt:
                    raise ValueError("it is marked as corrupt")
        yield from frames


def _decode(packet: Any) -> list[Any]:
    try:
        return packet.decode()
    except load_av().EOFError:  # all of the stream was given before
        return []


def _checked(media: Media) -> Media:
    """A file within the limits that holds something."""
    where = f"'{short(media.path)}'"
    if len(media.box.streams) > media.limits.streams:
        raise MediaError(
            f"{where}: has {len(media.box.streams):,} streams, more than {media.limits.streams}; "
            "keep one of pictures and one of sound"
        )
    if media.picture is None and media.sound is None:
        raise MediaError(f"{where}: holds neither pictures nor sound; give a video or a sound")
    if media.picture is not None:
        width, height = media.picture.codec_context.width, media.picture.codec_context.height
        if width * height > media.limits.pixels:
            raise MediaError(
                f"{where}: has frames of {width:,} x {height:,} pixels, more than {media.limits.pixels:,} in all; "
                "scale it down or raise limits.pixels"
            )
    return media


def _streams(box: Any) -> tuple[Any, Any]:
    """The first stream of pictures that can be decoded, and of sound."""
    known = [stream for stream in box.streams if stream.type in ("video", "audio") and stream.codec_context is not None]
    cover = type(known[0].disposition).attached_pic if known else None
    pictures = (stream for stream in known if stream.type == "video" and not stream.disposition & cover)
    return next(pictures, None), next((stream for stream in known if stream.type == "audio"), None)


def _lasts(frame: Any, stream: Any) -> float:
    """Seconds that a frame takes, as far as is known."""
    if stream.type == "audio":
        return frame.samples / frame.sample_rate if frame.sample_rate else 0.0
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _too_long(media: Media) -> MediaError:
    return MediaError(
        f"'{short(media.path)}': lasts longer than {media.limits.seconds:,.0f} seconds; cut it or raise limits.seconds"
    )


def _refusal(error: Exception, log: list[tuple[int, str, str]]) -> str:
    """Why FFmpeg did not open a file, and what to do."""
    said = " ".join(message for _, _, message in log)
    if "moov atom not found" in said:
        return "is cut off, its index (moov) is missing; copy or record it again"
    if "not on whitelist" in said or "m3u8" in said:
        return "is a list of other files, or of a format that is not read; give the video itself, for example as mp4"
    return f"is no video or sound that FFmpeg reads ({reason_of(error)}); give one, for example as mp4"
