"""What a video or sound file holds, and its sound and pictures on the clock of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gmsa.media.decoding.container import LIMITS, Faults, Limits, decoded, length, open_media
from gmsa.media.decoding.pictures import frames, rotation
from gmsa.media.decoding.sound import audio, audio_blocks
from gmsa.media.types import MediaError

__all__ = ["Faults", "Limits", "Probe", "audio", "audio_blocks", "frames", "probe"]


@dataclass(frozen=True)
class Probe:
    """What a file holds."""

    duration: float
    """Seconds."""
    width: int = 0
    """Pixels of a frame as it is stored; 0 without pictures."""
    height: int = 0
    rotation: int = 0
    """Degrees counterclockwise by which a stored frame is turned to be upright: 0, 90, 180 or 270."""
    video_codec: str | None = None
    """FFmpeg's name; None without pictures."""
    audio_codec: str | None = None
    video_start: float = 0.0
    """Seconds from the start of the clip to the first frame."""
    audio_start: float = 0.0
    warnings: tuple[str, ...] = ()
    """What is damaged, as far as the beginning of the pictures and of the sound tells."""

    @property
    def has_video(self) -> bool:
        """Whether there are pictures, beyond a cover."""
        return self.video_codec is not None

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound track; it may be silent."""
        return self.audio_codec is not None


def probe(path: str | Path, limits: Limits = LIMITS) -> Probe:
    """Looks at a file: its length, and the beginning of its pictures and its sound.

    Raises:
        MediaError: it cannot be opened, is empty, cut off, a list or of an unknown format, holds neither pictures nor
            sound, or exceeds a limit.
    """
    faults = Faults()
    with open_media(path, limits, faults) as media:
        duration = length(media)
        width, height, video_codec, audio_codec = 0, 0, None, None
        if media.picture is not None:
            context = media.picture.codec_context
            width, height, video_codec = context.width, context.height, context.name
        if media.sound is not None:
            audio_codec = media.sound.codec_context.name
    shown, heard = _first(path, "picture", limits), _first(path, "sound", limits)
    return Probe(
        duration,
        width,
        height,
        rotation(shown.frame) if shown.frame is not None else 0,
        video_codec,
        audio_codec,
        shown.seconds,
        heard.seconds,
        tuple(filter(None, (faults.warning("the file"), shown.warning, heard.warning))),
    )


class _First(NamedTuple):
    """The first frame of a stream that can be decoded."""

    seconds: float = 0.0
    frame: Any = None
    warning: str = ""


def _first(path: str | Path, kind: Literal["picture", "sound"], limits: Limits) -> _First:
    with open_media(path, limits, faults := Faults()) as media:
        stream = getattr(media, kind)
        if stream is None:
            return _First()
        try:
            seconds, frame = next(decoded(media, stream), (0.0, None))
        except MediaError as error:
            return _First(warning=str(error))
        return _First(seconds, frame, faults.warning(f"the {kind}"))
