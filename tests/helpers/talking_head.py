"""Talking heads made in test time: a photograph whose mouth opens with the loudness of synthetic speech.

The picture is scikit-image's astronaut (NASA, public domain); Debian's ``flite`` speaks and says when each phone ends,
which is the truth that word times are compared with; PyAV encodes both.
"""

# H height, W width, N samples
from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import skimage.data

from gmsa.media.types import Word

MOUTH = 123.0, 115.0
"""Where the mouth is in the picture of 256 x 256 pixels, x and y; it is 42 pixels wide, the chin is at y = 148."""
GRAY = 90
GOOD = "I really love this movie, it is wonderful"
"""What is said in the clip that lacks nothing."""

STRICT = bool(os.environ.get("CI"))
"""Whether what is missing fails a test instead of skipping it."""


def needs_program(name: str) -> pytest.MarkDecorator:
    """Skips a test, except in CI, where a program of Debian's is missing."""
    missing = shutil.which(name) is None and not STRICT
    return pytest.mark.skipif(missing, reason=f"{name} is not installed (apt install {name})")


def needs_weights(*packages: str) -> pytest.MarkDecorator:
    """Skips a test, except in CI, where a package that ships weights is missing and GMSA_MODELS names no folder."""
    missing = [name for name in packages if find_spec(name) is None]
    skipped = bool(missing) and "GMSA_MODELS" not in os.environ and not STRICT
    return pytest.mark.skipif(skipped, reason=f"weights are not installed: {', '.join(missing)}")


needs_flite = needs_program("flite")
needs_ffmpeg = needs_program("ffmpeg")


@dataclass(frozen=True)
class Speech:
    """What flite said."""

    sound: np.ndarray
    """int16 ``[N]``."""
    rate: int
    """Samples per second."""
    words: tuple[Word, ...]
    """The tokens of the text, with their true times."""


@lru_cache
def speak(text: str, voice: str = "slt", rate: float = 1.0, pitch: float | None = None) -> Speech:
    """Speaks a text with flite.

    A phone's end is flite's own. Which phones are a word's is known from the number that flite speaks for it alone.

    Args:
        voice: ``slt``, ``rms``, ``awb``, ``kal16`` or ``kal``.
        rate: how fast; 2 is twice as fast as usual.
        pitch: mean F0 in Hz (default: the voice's).

    Raises:
        ValueError: flite speaks a word of the text with another number of phones than alone.
    """
    tokens = [token for token in text.split() if re.search(r"\w", token)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        settings = ["--setf", f"duration_stretch={1 / rate}"]
        if pitch is not None:
            settings += ["--setf", f"int_f0_target_mean={pitch}"]
        printed = _flite("-voice", voice, *settings, "-psdur", "-t", f"{text} ", "-o", str(path))
        with wave.open(str(path)) as file:
            sound, sampled = np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()
    names, ends = zip(*(phone.split(":") for phone in printed.split()), strict=True)
    spans = [span for name, span in zip(names, pairwise((0.0, *map(float, ends))), strict=True) if name != "pau"]
    last = list(accumulate(_phones(token, voice) for token in tokens))
    if last and last[-1] != len(spans):
        raise ValueError(f"flite has {len(spans)} phones for {text!r}, not {last[-1]}; choose other words")
    words = (
        Word(token.strip('.,;:!?"()'), spans[first][0], spans[stop - 1][1])
        for token, (first, stop) in zip(tokens, pairwise((0, *last)), strict=True)
    )
    return Speech(sound, sampled, tuple(words))


@cache
def _phones(word: str, voice: str) -> int:
    """How many phones flite speaks for a word alone."""
    printed = _flite("-voice", voice, "-ps", "-t", f"{word.rstrip('.,;:!?')} ", "-o", "none")
    return sum(phone != "pau" for phone in printed.split())


def _flite(*arguments: str) -> str:
    return subprocess.run(["flite", *arguments], check=True, capture_output=True, text=True).stdout


@cache
def _photograph() -> np.ndarray:
    """The astronaut's face; skimage would read its file for every frame."""
    picture: np.ndarray = skimage.data.astronaut()[30:286, 100:356]
    return picture


def face(openness: float = 0.0, smile: float = 0.0, roll: float = 0.0, size: int = 256) -> np.ndarray:
    """A face, uint8 ``[size, size, 3]``.

    Args:
        openness: how far the jaw drops, from 0 to 1.
        smile: from -1 (the corners of the mouth are down, the lips pressed) to 1 (the astronaut's own smile).
        roll: degrees by which the head is turned in the plane.
    """
    picture = _photograph()
    mouth_x, mouth_y = MOUTH
    y, x = np.mgrid[:256, :256].astype(np.float32)
    # Each pixel comes from (x - dx, y - dy).
    drop, frown = 13.0 * openness, (1.0 - smile) / 2.0
    jaw = np.clip((y - mouth_y) / max(drop, 1e-3), 0, 1) * np.exp(-(((x - mouth_x) / 30) ** 2))
    dy = drop * jaw * np.clip((175 - y) / 30, 0, 1)
    corner = np.exp(-(((np.abs(x - mouth_x) - 21) / 13) ** 2 + ((y - 110) / 15) ** 2))
    center = np.exp(-(((x - mouth_x) / 13) ** 2 + ((y - 118) / 11) ** 2))
    dy += frown * (9 * corner - 3 * center)
    dx = -7 * frown * corner * np.sign(x - mouth_x)
    source = ((x - dx).astype(np.float32), (y - dy).astype(np.float32))
    out = cv2.remap(picture, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if frown > 0.5:  # pressed lips hide the teeth
        teeth = (np.abs(x - mouth_x) < 20) & (np.abs(y - 116) < 9) & (out.min(2) > 120)
        out[teeth] = 0.45 * out[teeth] + 0.55 * np.array([165, 95, 90])
    if drop > 1:
        hole = ((x - mouth_x) / 15) ** 2 + ((y - mouth_y - drop / 2) / (drop / 2 + 1)) ** 2 < 1
        out[hole] = 0.25 * out[hole] + 0.75 * np.array([45, 15, 18])
    turn = cv2.getRotationMatrix2D((mouth_x, 110.0), roll, 1.0)
    out = cv2.warpAffine(out, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    return out if size == 256 else cv2.resize(out, (size, size))


def loudness(sound: np.ndarray, rate: int, times: np.ndarray, seconds: float) -> np.ndarray:
    """How loud the ``seconds`` after each of the times are, from 0 to 1: RMS over its 95th percentile."""
    pieces = [sound[int(max(t, 0) * rate) : int(max(t + seconds, 0) * rate)].astype(np.float64) for t in times]
    rms = np.array([np.sqrt(np.mean(piece**2)) if len(piece) else 0.0 for piece in pieces])
    return np.clip(rms / (np.percentile(rms, 95) + 1e-9), 0, 1)


def make(
    path: str | Path,
    text: str = "",
    smile: float = 0.0,
    voice: str = "slt",
    rate: float = 1.0,
    fps: int = 10,
    size: int = 256,
    video: bool = True,
    audio: bool = True,
    hide: tuple[tuple[float, float], ...] = (),
    vfr: bool = False,
    rotation: int = 0,
    audio_delay: float = 0.0,
    codec: str = "libx264",
    audio_codec: str = "aac",
    pitch: float | None = None,
    pad: float = 0.3,
    noise: float = 0.0,
    speaks: tuple[bool, ...] = (True,),
    live: bool = False,
) -> list[Word]:
    """Writes a clip of a talking head, and returns the words with their true times in seconds of the clip.

    Args:
        path: where to; its ending names the container.
        text: what is said; nothing, if empty (flite is not needed then).
        smile: of all faces; see :func:`face`.
        voice: of flite, as ``rate`` and ``pitch`` are; see :func:`speak`.
        fps: frames per second.
        size: height, and width of each face, in pixels.
        hide: spans in seconds without a face.
        vfr: whether frames come at irregular times, some left out.
        rotation: degrees counterclockwise by which a player must turn the stored picture to show it upright; mp4 only.
        audio_delay: seconds by which the sound starts later than the pictures; they wait for it.
        codec: of the pictures, ``audio_codec`` of the sound, by FFmpeg's names.
        pad: seconds of silence before and after the speech.
        noise: share of white noise in the sound.
        speaks: of each face from left to right, whether its mouth follows the sound; the others chew.
        live: whether to write as a browser's recorder does, without going back, so that no duration is known.
    """
    speech = speak(text, voice, rate, pitch) if text else Speech(np.zeros(0, np.int16), 16_000, ())
    silence = np.zeros(round(pad * speech.rate), np.int16)
    sound = np.concatenate([silence, speech.sound, silence])
    if noise:
        hiss = np.random.default_rng(0).uniform(-noise, noise, len(sound)) * 32767
        sound = (sound * (1 - noise) + hiss).astype(np.int16)
    times = _times(audio_delay + len(sound) / speech.rate, fps, vfr)
    mouth = loudness(sound, speech.rate, times - audio_delay, 1 / fps)
    with _writer(Path(path), live) as box:
        pictures = _picture_stream(box, codec, fps, size * len(speaks), size, rotation) if video else None
        sounds = box.add_stream(audio_codec, rate=48_000 if "opus" in audio_codec else speech.rate) if audio else None
        if sounds is not None:
            sounds.layout = "mono"
        done = 0
        for i, t in enumerate(times):
            if pictures is not None:
                openness = (mouth[i] if own else max(0.0, 0.25 * np.sin(i / 11)) for own in speaks)
                heads = [face(o, smile, 2 * np.sin(i / (9 - 2 * k)), size) for k, o in enumerate(openness)]
                picture = np.concatenate(heads, 1)
                if any(start <= t < stop for start, stop in hide):
                    picture[:] = GRAY
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(picture, -rotation // 90)), "rgb24")
                frame.pts, frame.time_base = round(t * 1000), Fraction(1, 1000)
                box.mux(pictures.encode(frame))
            if sounds is not None:  # beside the pictures of the same time
                upto = len(sound) if i + 1 == len(times) else min(round((t + 1 / fps) * speech.rate), len(sound))
                if upto > done:
                    block = av.AudioFrame.from_ndarray(sound[None, done:upto], "s16", "mono")
                    block.sample_rate, block.time_base = speech.rate, Fraction(1, speech.rate)
                    block.pts = round(audio_delay * speech.rate) + done
                    box.mux(sounds.encode(block))
                    done = upto
        for stream in filter(None, (pictures, sounds)):
            box.mux(stream.encode())
    if rotation:
        _turn(Path(path), rotation)
    shift = audio_delay + pad
    return [word._replace(start=word.start + shift, stop=word.stop + shift) for word in speech.words]


def _times(seconds: float, fps: int, vfr: bool) -> np.ndarray:
    """Times of the frames, in seconds, by whole milliseconds."""
    index = np.arange(max(int(seconds * fps), 1))
    times = index / fps
    if vfr:  # two of seven left out, the others up to a quarter of a frame late
        times = (times + index % 4 / (16 * fps))[~np.isin(index % 7, (3, 4))]
    return np.round(times, 3)


def _picture_stream(box: Any, codec: str, fps: int, width: int, height: int, rotation: int) -> Any:
    stream = box.add_stream(codec, rate=fps)
    stream.width, stream.height = (height, width) if rotation % 180 else (width, height)
    stream.pix_fmt = "yuv420p"
    # MPEG-4 and avi count frames; the others keep milliseconds.
    stream.codec_context.time_base = Fraction(1, fps if codec == "mpeg4" else 1000)
    if codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "20"}
    elif codec == "libvpx":
        stream.options = {"deadline": "realtime", "cpu-used": "8"}
    return stream


class _Pipe(io.RawIOBase):
    """A file that can only be written forwards."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)

    def close(self) -> None:
        self._file.close()


def _writer(path: Path, live: bool) -> Any:
    if not live:
        return av.open(str(path), "w")
    return av.open(_Pipe(path), "w", format={".webm": "webm", ".mkv": "matroska"}[path.suffix])


def _turn(path: Path, rotation: int) -> None:
    """Writes a display matrix into the header of an mp4's first track (ISO/IEC 14496-12, ``tkhd``)."""
    one = 1 << 16
    a, b = {90: (0, -one), 180: (-one, 0), 270: (0, one)}[rotation % 360]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes come before the matrix
    for place, value in enumerate((a, b, 0, -b, a, 0)):
        content[at + 4 * place : at + 4 * place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
