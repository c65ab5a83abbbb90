"""Files that are no videos, are damaged, or lead elsewhere: a result or one line, and nothing on the terminal."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.talking_head import make, needs_ffmpeg

from gmsa.errors import ConfigError
from gmsa.media.decoding.decode import Faults, Limits, audio, frames, probe
from gmsa.media.types import MediaError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "good.mp4"
    make(path, noise=0.3, pad=0.5, size=64)
    return path


def refusal(path: Path, limits: Limits = Limits()) -> str:  # noqa: B008
    """The one line with which each way to read a file refuses it."""
    said = set()
    for read in (
        lambda: probe(path, limits),
        lambda: audio(path, limits=limits),
        lambda: list(frames(path, limits=limits)),
    ):
        with pytest.raises(MediaError) as caught:
            read()
        said.add(str(caught.value))
    (line,) = said
    assert "\n" not in line
    assert path.name in line
    return line


def test_what_is_no_video_is_refused(tmp_path: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = clip.read_bytes()
    path = tmp_path / "odd.mp4"
    for content, reason in (
        (b"", "is empty"),
        (whole[: len(whole) // 2], "is cut off, its index (moov) is missing"),
        (b"not a video\n" * 100, "is no video or sound that FFmpeg reads"),
        (b"\0" * 5000, "is no video or sound that FFmpeg reads"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 500, "of a format that is not read"),
    ):
        path.write_bytes(content)
        assert reason in refusal(path)
    assert capfd.readouterr() == ("", "")


def test_a_list_reads_no_other_file(tmp_path: Path, clip: Path) -> None:
    shutil.copy(clip, tmp_path / "other.mp4")
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with av.open(str(path)) as box:
        assert box.streams.video, "FFmpeg itself no longer reads the other file: the test shows nothing"
    assert "list of other files" in refusal(path)
    for name in ("list.mp4", "list.m3u8"):
        path = tmp_path / name
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{clip}\n#EXT-X-ENDLIST\n")
        assert "list of other files" in refusal(path)


def test_only_regular_files_are_opened(tmp_path: Path, clip: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    assert "is not a regular file" in refusal(pipe)
    assert "is not a regular file" in refusal(Path("/dev/zero"))
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    assert "is not a regular file" in refusal(folder)
    assert "does not exist" in refusal(tmp_path / "nothing.mp4")
    (tmp_path / "link.mp4").symlink_to(clip)
    assert probe(tmp_path / "link.mp4") == probe(clip)


@pytest.mark.parametrize(
    "name",
    ["two words.mp4", "100%d%s.mp4", "Füße 電影.mp4", "-i.mp4", "concat:a|b.mp4", "http:x", "file:good.mp4", "a'b\"c"],
)
def test_a_name_is_only_a_name(tmp_path: Path, clip: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(clip, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe(name) == probe(clip)
    assert len(list(frames(name))) == 10


def test_limits_refuse(tmp_path: Path, clip: Path) -> None:
    assert "lasts longer than 0 seconds" in refusal(clip, Limits(seconds=0.4))
    assert "64 x 64 pixels, more than 4,000" in refusal(clip, Limits(pixels=4000))
    assert "has 2 streams, more than 1" in refusal(clip, Limits(streams=1))
    live = tmp_path / "live.webm"  # says nothing of its length
    make(live, noise=0.3, pad=0.5, size=64, codec="libvpx", audio_codec="libopus", live=True)
    assert "lasts longer than" in refusal(live, Limits(seconds=0.4))


def test_damage_is_counted_and_not_printed(tmp_path: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(clip.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(200, content.index(b"moov") - 100, 400):
        content[at] ^= 255
    path = tmp_path / "flipped.mp4"
    path.write_bytes(content)
    assert probe(path).warnings
    seen, heard = Faults(), Faults()
    assert len(list(frames(path, faults=seen))) >= 5
    sound, whole = audio(path, faults=heard), audio(clip)
    assert seen.packets >= 5
    assert heard.packets >= 1
    assert "damaged packets of pictures (" in seen.warning("pictures")
    assert sound is not None
    assert whole is not None
    assert len(whole) / 2 < len(sound) <= len(whole)
    assert capfd.readouterr() == ("", "")
    good = Faults()
    assert list(frames(clip, faults=good))
    assert good == Faults()
    assert good.warning("pictures") == ""
    assert probe(clip).warnings == ()


def test_pictures_that_cannot_be_decoded_leave_the_sound(tmp_path: Path, clip: Path) -> None:
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as box:
        spans = [(packet.pos, packet.size) for packet in box.demux(video=0) if packet.size]
    for start, size in spans:
        content[start : start + size] = b"\xff" * size
    path = tmp_path / "blind.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"its pictures cannot be decoded \(.*\); encode it again"):
        list(frames(path))
    assert "pictures cannot be decoded" in " ".join(probe(path).warnings)
    assert np.array_equal(audio(path), audio(clip))  # type: ignore[arg-type]


def test_sound_that_is_no_number_is_silence(tmp_path: Path) -> None:
    sound = np.full(1600, 0.25, np.float32)
    sound[800:900], sound[1000] = np.nan, np.inf
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32)  # mono, float32
    head = struct.pack("<4sI4s", b"RIFF", 6436, b"WAVE") + layout + struct.pack("<4sI", b"data", 6400)
    (tmp_path / "nan.wav").write_bytes(head + sound.tobytes())
    expected = np.nan_to_num(sound, nan=0.0, posinf=0.0)
    assert np.array_equal(audio(tmp_path / "nan.wav"), expected)  # type: ignore[arg-type]


def test_a_missing_package_names_the_extra(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"needs av, which is not installed; .*pip install 'gmsa\[media\]'"):
        probe(clip)


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from gmsa.media.decoding.decode import audio, frames, probe
from gmsa.media.types import MediaError

rng = np.random.default_rng(0)
clips = [Path(name).read_bytes() for name in sys.argv[2:]]
read = refused = 0
for number in range(200):
    content = bytearray(clips[number % len(clips)])
    head = rng.random() < 0.5  # also where the index is
    places = rng.integers(0, min(len(content), 3000) if head else len(content), rng.integers(1, 40))
    for place in places:
        content[place] = rng.integers(256)
    if rng.random() < 0.3:
        del content[rng.integers(len(content)) :]
    path = Path(sys.argv[1], "damaged")
    path.write_bytes(content)
    start = float(rng.choice([0, 1.5]))
    for read_file in (probe, lambda path: audio(path, start), lambda path: list(frames(path, start=start))):
        try:
            read_file(path)
            read += 1
        except MediaError as error:
            assert "\\n" not in str(error)
            refused += 1
assert "mediapipe" not in sys.modules
print(read, refused)
"""


def test_damaged_files_are_read_or_refused(tmp_path: Path, clip: Path) -> None:
    clips = [tmp_path / name for name in ("front.mp4", "a.webm", "a.avi", "a.mkv")]
    for path in clips[1:]:
        web = path.suffix == ".webm"
        codecs = ("libvpx", "libopus") if web else ("mpeg4", "libmp3lame")
        make(path, noise=0.3, pad=1.0, size=64, codec=codecs[0], audio_codec=codecs[1])
    with av.open(str(clip)) as box, av.open(str(clips[0]), "w", options={"movflags": "faststart"}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in box.streams}
        for packet in box.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    command = [sys.executable, "-c", DAMAGE, str(tmp_path), *map(str, clips)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    read, refused = map(int, done.stdout.split())
    assert read > 50
    assert refused > 50


MEMORY = """
import resource, sys
from gmsa.media.decoding.decode import audio_blocks, frames

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

for path in sys.argv[1:]:
    samples = sum(len(block) for _, block in audio_blocks(path))
    shown = sum(1 for _ in frames(path))
    print(samples, shown, most())
"""


@needs_ffmpeg
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    short, long = tmp_path / "short.mp4", tmp_path / "long.mp4"
    for path, seconds in ((short, 30), (long, 600)):
        source = ["-f", "lavfi", "-i", f"testsrc=size=64x64:rate=10:duration={seconds}"]
        source += ["-f", "lavfi", "-i", f"sine=duration={seconds}:sample_rate=44100"]
        subprocess.run(["ffmpeg", "-v", "error", *source, "-preset", "ultrafast", str(path)], check=True, timeout=120)
    command = [sys.executable, "-c", MEMORY, str(short), str(long)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (_, _, before), (samples, shown, after) = (map(float, line.split()) for line in done.stdout.splitlines())
    assert samples / 16_000 == pytest.approx(600, abs=1)
    assert shown == pytest.approx(6_000, abs=2)
    assert after - before < 16
