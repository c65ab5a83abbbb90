"""Sound and pictures of videos, against FFmpeg's own programs, and against themselves decoded from the start."""

from __future__ import annotations

import json
import math
import subprocess
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.talking_head import face, make, needs_ffmpeg

from gmsa.media.decoding.decode import audio, audio_blocks, frames, probe
from gmsa.media.types import RATE

pytestmark = needs_ffmpeg
CLIPS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "uneven.mp4": {"vfr": True, "fps": 25},
    "old.webm": {"codec": "libvpx", "audio_codec": "libopus"},
    "live.webm": {"codec": "libvpx", "audio_codec": "libopus", "live": True},
    "old.avi": {"codec": "mpeg4", "audio_codec": "libmp3lame"},
    "late.mp4": {"audio_delay": 0.5},
}
"""What a camera, a browser, a recorder and an old camera write, without flite: two seconds of noise."""
KINDS = {
    "reordered.mp4": "-c:v libx264 -bf 3 -g 20 -x264-params open-gop=1 -c:a aac -aac_pns 0",
    "reordered.mkv": "-c:v libx264 -bf 3 -g 20 -x264-params open-gop=1 -c:a flac",
    "reordered.avi": "-c:v mpeg4 -bf 2 -g 20 -c:a libmp3lame",
    "stream.ts": "-c:v libx264 -bf 3 -g 20 -c:a aac -aac_pns 0",
    "long.webm": "-c:v libvpx -deadline realtime -g 20 -c:a libopus",
    "fragments.mp4": "-c:v libx264 -bf 3 -g 20 -c:a aac -aac_pns 0 -movflags +frag_keyframe+empty_moov",
}
"""How FFmpeg writes what is hard to enter in the middle."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, settings in CLIPS.items():
        make(folder / name, noise=0.3, pad=1.0, size=96, **settings)
    for name, codecs in KINDS.items():
        source = "-f lavfi -i testsrc=size=96x64:rate=25:duration=4 -f lavfi -i aevalsrc=0.4*random(0):s=44100:d=4"
        ffmpeg(*source.split(), *codecs.split(), str(folder / name))
    return folder


def ffmpeg(*arguments: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def heard(path: Path) -> np.ndarray:
    """The sound as FFmpeg's program decodes it, which leaves out silence before a late stream."""
    return np.frombuffer(ffmpeg("-i", str(path), "-ar", "16000", "-ac", "1", "-f", "f32le", "-"), np.float32)


@cache
def shown(path: Path) -> list[float]:
    """The times of all frames by ffprobe, from the start of the clip."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-of", "json", "-show_entries"]
    command += ["frame=best_effort_timestamp_time:format=start_time", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    origin = max(float(found["format"]["start_time"]), 0.0)
    times: list[float] = []
    for frame in found["frames"]:  # the last ones of an avi have no time
        seconds = frame.get("best_effort_timestamp_time")
        times.append(times[-1] + 1 / 25 if seconds is None else float(seconds) - origin)
    return times


def pictures(path: Path, **settings: Any) -> tuple[list[float], list[np.ndarray]]:
    times, found = [], []
    for seconds, frame in frames(path, **settings):
        times.append(seconds)
        found.append(frame)
    return times, found


@pytest.mark.parametrize("name", [*CLIPS, *KINDS])
def test_frames_have_the_times_of_ffprobe(clips: Path, name: str) -> None:
    times, _ = pictures(clips / name, fps=1000)
    np.testing.assert_allclose(times, shown(clips / name), atol=2e-3)


@pytest.mark.parametrize("fps", [3.0, 10.0, 12.5])
@pytest.mark.parametrize("name", ["plain.mp4", "uneven.mp4", "long.webm"])
def test_the_first_frame_of_each_step_is_taken(clips: Path, name: str, fps: float) -> None:
    every, (times, _) = shown(clips / name), pictures(clips / name, fps=fps)
    steps = [[t for t in every if (k - 0.25) / fps <= t + 1e-6 < (k + 0.75) / fps] for k in range(int(5 * fps))]
    np.testing.assert_allclose(times, [step[0] for step in steps if step], atol=2e-3)
    assert len(times) <= every[-1] * fps + 1.25


@pytest.mark.parametrize("name", ["plain.mp4", "uneven.mp4", "old.webm", "reordered.mkv"])
def test_frames_have_the_pixels_of_ffmpeg(clips: Path, name: str) -> None:
    _, found = pictures(clips / name, fps=1000)
    raw = ffmpeg("-i", str(clips / name), "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    expected = np.frombuffer(raw, np.uint8).reshape(-1, *found[0].shape)
    assert len(found) == len(expected)
    difference = np.abs(np.stack(found).astype(int) - expected)
    assert difference.mean() < 1.5  # colors are scaled up by another filter there


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_is_shown_upright(tmp_path: Path, rotation: int) -> None:
    path = tmp_path / "turned.mp4"
    make(path, size=96, speaks=(True, False), rotation=rotation)
    stored = (96, 192) if rotation % 180 else (192, 96)
    assert (probe(path).width, probe(path).height, probe(path).rotation) == (*stored, rotation)
    found = next(frames(path))[1]
    assert found.shape == (96, 192, 3)
    as_player = ffmpeg("-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    expected = np.frombuffer(as_player, np.uint8).reshape(96, 192).astype(int)
    assert np.abs(found @ (0.299, 0.587, 0.114) - expected).mean() < 3
    upright = face(0.0, 0.0, 0.0, 96).astype(int)
    assert np.abs(found[:, :96] - upright).mean() < 10  # the face is not upside down, as it would be in both
    assert np.abs(np.rot90(found[:, :96]) - upright).mean() > 30


def test_a_large_video_is_scaled_by_its_longer_side(tmp_path: Path) -> None:
    large, small = tmp_path / "large.mp4", tmp_path / "small.mp4"
    make(large, size=2160, speaks=(False, False), audio=False, pad=0.1)
    make(small, size=320, speaks=(False, False), audio=False, pad=0.1)
    assert (probe(large).width, probe(large).height) == (4320, 2160)
    (first, *_), (other, *_) = pictures(large)[1], pictures(small)[1]
    assert first.shape == other.shape == (320, 640, 3)
    assert np.abs(first.astype(int) - other).mean() < 4
    assert next(frames(large, longest=100))[1].shape == (50, 100, 3)


@pytest.mark.parametrize("name", sorted({*CLIPS, *KINDS} - {"fragments.mp4"}))  # FFmpeg closes a gap after its start
def test_sound_is_that_of_ffmpeg(clips: Path, name: str) -> None:
    found, expected = audio(clips / name), heard(clips / name)
    assert found is not None
    assert found.dtype == np.float32
    assert found.ndim == 1
    extra = len(found) - len(expected)  # silence before a late stream
    late = round(probe(clips / name).audio_start * RATE)
    assert abs(extra - late) <= 2
    assert not found[: max(late - 20, 0)].any()
    np.testing.assert_allclose(found[late + 32 :], expected[late - extra + 32 :][: len(found) - late - 32], atol=2e-3)


@pytest.mark.parametrize(
    ("ending", "settings"),
    [
        ("wav", "-ar 8000 -ac 1 -c:a pcm_u8"),
        ("wav", "-ar 44100 -ac 2 -c:a pcm_s24le"),
        ("wav", "-ar 96000 -ac 6 -c:a pcm_f32le"),
        ("flac", "-ar 48000 -ac 2"),
        ("mp3", "-ar 22050 -ac 1"),
        ("ogg", "-ar 48000 -ac 2 -c:a libvorbis"),
        ("m4a", "-ar 44100 -ac 2"),
    ],
)
def test_sound_of_any_rate_and_width_becomes_mono(tmp_path: Path, ending: str, settings: str) -> None:
    path = tmp_path / f"sound.{ending}"
    tones = "0.3*sin(2*PI*440*t)|0.2*sin(2*PI*550*t)|0.1*sin(2*PI*660*t)|0.1*sin(700*t)|0.1*sin(800*t)|0.1*sin(900*t)"
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc={tones}:s=48000:d=2:c=5.1", *settings.split(), str(path))
    found, expected = audio(path), heard(path)
    assert found is not None
    assert abs(len(found) - len(expected)) <= 1
    size = min(len(found), len(expected)) - 32
    np.testing.assert_allclose(found[32:size], expected[32:size], atol=2e-3)
    assert pictures(path) == ([], [])


def test_late_sound_stays_where_it_is_heard(clips: Path) -> None:
    sound, punctual = audio(clips / "late.mp4"), audio(clips / "plain.mp4")
    assert sound is not None
    assert punctual is not None
    match = np.correlate(sound, punctual[: RATE // 2])
    assert match.argmax() / RATE == pytest.approx(0.5, abs=1e-3)
    assert probe(clips / "late.mp4").duration == pytest.approx(2.5, abs=0.05)
    assert len(sound) / RATE == pytest.approx(2.5, abs=0.1)


def test_a_recording_without_a_duration_is_measured(clips: Path) -> None:
    with av.open(str(clips / "live.webm")) as box:
        assert box.duration is None
    assert probe(clips / "live.webm").duration == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("name", ["uneven.mp4", "old.avi", *KINDS])
def test_a_part_has_the_frames_of_the_whole(clips: Path, name: str) -> None:
    path = clips / name
    times, found = pictures(path)
    end = times[-1]
    spans = (0.03, 0.5), (1.19, 1.4), (1.2, None), (end - 1.01, None), (end / 2, end / 2 + 1), (end + 1, None)
    for start, stop in spans:
        part_times, part = pictures(path, start=start, stop=stop)
        inside = [i for i, t in enumerate(times) if start <= t < (stop or math.inf)]
        assert part_times == [times[i] for i in inside]
        assert all(np.array_equal(a, found[i]) for a, i in zip(part, inside, strict=True))


@pytest.mark.parametrize("name", ["late.mp4", "old.webm", "old.avi", *KINDS])
def test_a_part_has_the_sound_of_the_whole(clips: Path, name: str) -> None:
    whole = audio(clips / name)
    assert whole is not None
    end = len(whole) / RATE
    spans = (0.0, 0.3), (0.1, 0.4), (1.23, 1.5), (end / 2 + 0.01, end / 2 + 1), (end - 0.5, None), (end + 1, None)
    for start, stop in spans:
        part = audio(clips / name, start, stop)
        expected = whole[round(start * RATE) : None if stop is None else round(stop * RATE)]
        assert part is not None
        if name.endswith(("webm", "mkv")):  # times are whole milliseconds
            assert abs(len(part) - len(expected)) <= RATE // 1000
            if len(expected):
                shift, likeness = best_shift(part, expected)
                assert abs(shift) <= RATE // 1000
                assert likeness > 0.6
            continue
        assert part.shape == expected.shape
        np.testing.assert_allclose(part, expected, atol=1e-3)


def best_shift(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    """The shift in samples by which two sounds are most alike, and their correlation then."""
    products = np.correlate(a, b, "full")
    best = int(products.argmax())
    return best - (len(b) - 1), products[best] / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("seconds", [0.01, 0.7, 1.0, 30.0])
def test_blocks_joined_are_the_whole(clips: Path, seconds: float) -> None:
    whole = audio(clips / "reordered.mp4", 0.5, 3.25)
    starts, blocks = zip(*audio_blocks(clips / "reordered.mp4", 0.5, 3.25, seconds), strict=True)
    assert whole is not None
    assert np.array_equal(np.concatenate(blocks), whole)
    assert {len(block) for block in blocks[:-1]} <= {round(seconds * RATE)}
    np.testing.assert_allclose(starts, 0.5 + seconds * np.arange(len(starts)))


def test_lost_sound_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("pcm_s16le", rate=44_100, layout="mono")
        for first in (0, 44_100, 4 * 44_100):  # nothing between 2 s and 4 s
            noise = rng.integers(-9000, 9000, (1, 44_100)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(noise, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, first, Fraction(1, 44_100)
            box.mux(stream.encode(frame))
        box.mux(stream.encode())
    sound = audio(path)
    assert sound is not None
    assert len(sound) == 5 * RATE
    loud = np.abs(sound).reshape(-1, RATE // 100).max(1) > 0.01  # per 10 ms
    assert loud[:199].all()
    assert not loud[201:399].any()
    assert loud[401:].all()


def test_what_is_absent_is_none(tmp_path: Path) -> None:
    make(tmp_path / "mute.mp4", audio=False, size=64)
    make(tmp_path / "sound.m4a", video=False)
    make(tmp_path / "silent.mp4", size=64)
    assert audio(tmp_path / "mute.mp4") is None
    assert list(audio_blocks(tmp_path / "mute.mp4")) == []
    assert (probe(tmp_path / "mute.mp4").has_audio, probe(tmp_path / "mute.mp4").has_video) == (False, True)
    assert (probe(tmp_path / "sound.m4a").has_audio, probe(tmp_path / "sound.m4a").has_video) == (True, False)
    silent = audio(tmp_path / "silent.mp4")
    assert silent is not None
    assert not silent.any()


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    make(tmp_path / "sound.m4a", video=False)
    picture = ["-f", "lavfi", "-i", "testsrc=size=64x64:duration=1:rate=1", "-frames:v", "1"]
    ffmpeg(*picture, str(tmp_path / "cover.png"))
    join = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", str(tmp_path / "sound.m4a"), "-i", str(tmp_path / "cover.png"), *join, str(tmp_path / "song.m4a"))
    assert not probe(tmp_path / "song.m4a").has_video
    assert list(frames(tmp_path / "song.m4a")) == []
