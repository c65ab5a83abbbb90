"""Extraction from media: seconds of media for a second of one core, by its parts, and the store from the cache.

    python benchmarks/media.py
    python benchmarks/media.py --clips 60 --long 3600

Clips are talking heads made here (a face from scikit-image, speech by Debian's flite). All is extracted in this process
by one thread; times are CPU seconds. The peak memory of a long file is that of a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from common import MIB, ROOT, header, machine, row

sys.path.insert(0, str(ROOT / "tests"))
from helpers.talking_head import make

from gmsa.config import MODALITIES, TargetConfig, load_config
from gmsa.data import write_store
from gmsa.media.cache import Cache
from gmsa.media.clips import Clip
from gmsa.media.decoding import decode
from gmsa.media.extractors.face import FaceLandmarks
from gmsa.media.jobs.extract import Options, Report, row_of, store_clips
from gmsa.media.media import ClipMedia
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig, read_extraction
from gmsa.runs.train import train
from gmsa.runs.video.answer import Answerer
from gmsa.system.processes import WORKER

SENTENCES = (
    "I really love this movie, it is wonderful.",
    "This was a terrible film and I hated every minute of it.",
    "The actors are excellent and the story is great.",
    "What an awful waste of time and money.",
)
VOICES = ("slt", "rms", "kal", "awb")
CACHED = 200
"""Clips of the store that is written from the cache."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20, help="clips to extract")
    parser.add_argument("--long", type=int, default=120, metavar="S", help="seconds of the long file; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="two clips, to see that it runs: times mean nothing")
    options = parser.parse_args()
    cached = CACHED
    if options.quick:
        options.clips, options.long, cached = 2, 0, 10
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        clips = []
        for i in range(options.clips):
            text = SENTENCES[i % len(SENTENCES)]
            make(place / f"{i}.mp4", text, smile=1 if i % 2 == 0 else -1, voice=VOICES[i // 2 % len(VOICES)])
            clips.append(Clip(f"{i}$_$1", place / f"{i}.mp4", text=text))
        settings = read_extraction("default")
        header("Extraction by one core.", "", "media (s)", "CPU (s)", "x real time")
        speech = [replace(clip, text=None) for clip in clips]
        timed("all, words recognized", settings, speech)
        timed("all, transcripts given", settings, clips)
        timed("the same of clips of four sentences", settings, longer(place, len(clips) // 4))
        parts(settings, speech)
        face_alone(settings, clips)
        store_of(place, cached)
        answer_of(place, settings, clips)
        if options.long:
            long_file(place, options.long)
    print(f"\n{machine()}")


def longer(place: Path, count: int) -> list[Clip]:
    """Clips of all sentences, one at least, with their transcripts."""
    found = []
    for i in range(max(1, count)):
        path, text = place / f"long-{i}.mp4", " ".join(SENTENCES)
        make(path, text, smile=1 if i % 2 == 0 else -1, voice=VOICES[i % len(VOICES)])
        found.append(Clip(f"long{i}$_$1", path, text=text))
    return found


def face_alone(settings: ExtractConfig, clips: list[Clip]) -> None:
    """How fast mediapipe finds faces in decoded pictures: what is left of ``face`` is gmsa's."""
    import mediapipe

    (landmarks,) = (part for part in Pipeline(settings).extractors["vision"] if isinstance(part, FaceLandmarks))
    pictures = [picture for clip in clips for _, picture in decode.frames(clip.path, landmarks.fps, landmarks.longest)]
    images = [mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture) for picture in pictures]
    landmarks._landmarker.detect(images[0])
    began = time.process_time()
    for image in images:
        landmarks._landmarker.detect(image)
    spent = time.process_time() - began
    row(f"of face, mediapipe alone ({len(images) / spent:.0f} frames a second)", f"{spent:.2f}", "")


def timed(name: str, settings: ExtractConfig, clips: list[Clip]) -> None:
    """A row with the speed of the whole extraction; a clip before warms it up."""
    pipeline = Pipeline(settings)
    pipeline(clips[0])
    began = time.process_time()
    seconds = sum(pipeline(clip).duration for clip in clips)
    spent = time.process_time() - began
    row(name, f"{seconds:.1f}", f"{spent:.1f}", f"{seconds / spent:.2f}")


def parts(settings: ExtractConfig, clips: list[Clip]) -> None:
    """Rows with the speed of each part, each on what the parts before it left."""
    pipeline = Pipeline(settings)
    spent: dict[str, float] = defaultdict(float)
    seconds, frames = 0.0, 0
    for turn, clip in enumerate([clips[0], *clips]):
        media = ClipMedia(clip, settings, pipeline.recognizer)
        steps: list[tuple[str, Callable[[], Any]]] = [
            ("sound decoded", media.samples),
            ("speech found", media.speech),
            ("words and states (Whisper)", media.words),
        ]
        extractors = [part for found in pipeline.extractors.values() for part in found]
        steps += [(part.name, partial(part, media)) for part in extractors]
        for name, step in steps:
            began = time.process_time()
            step()
            spent[name] += (time.process_time() - began) * (turn > 0)
        if turn:
            seconds += media.duration
            frames += sum(1 for _ in decode.frames(clip.path))
    header("The same by parts; `face` decodes the pictures.", "", "CPU (s)", "x real time")
    for name, cost in spent.items():
        more = f" ({frames / cost:.0f} frames a second)" if name == "face" else ""
        row(f"{name}{more}", f"{cost:.2f}", f"{seconds / max(cost, 1e-9):.1f}")


def store_of(place: Path, count: int) -> None:
    """The seconds in which a store is written from the cache, of one-second clips with the 25 features of prosody."""
    sound = place / "sound.mp4"
    make(sound, "", pad=count / 2, noise=0.3, video=False)
    base = read_extraction("default")
    settings = replace(base, text=(), audio=("prosody",), vision=())
    cache = place / "cache"
    pipeline = Pipeline(settings, Cache(cache))
    clips = [Clip(f"sound$_${i}", sound, float(i), i + 1.0) for i in range(count)]
    durations = {clip.id: pipeline(clip).duration for clip in clips}
    report = Report(clips, durations=durations)
    began = time.perf_counter()
    store_clips(place / "store", report, Options(settings, cache, place / "log"), TargetConfig(), None)
    print(f"\nA store of {count} clips from the cache: {time.perf_counter() - began:.1f} s.")


def answer_of(place: Path, settings: ExtractConfig, clips: list[Clip]) -> None:
    """The CPU seconds of an answer as the page gives it, by the models of one seed, after one that loads them all."""
    pipeline = Pipeline(settings)
    found = [pipeline(clip) for clip in clips[:4]]
    rows = []
    for split in ("train", "valid", "test"):
        for i in range(8):
            clip = replace(clips[i % len(found)], id=f"{split}{i}$_$1", split=split, label=i % 3 - 1.0)
            rows.append(row_of(clip, found[i % len(found)]))
    source = {"importer": "media", "files": [], "extraction": pipeline.provenance()}
    store = write_store(place / "features", rows, dict.fromkeys(MODALITIES, "float32"), source=source)
    changes = [f"data.path={store.path}", "protocol.name=supervised", "optim.epochs=1", "run.seeds=[1111]"]
    with contextlib.redirect_stdout(io.StringIO()):
        train(load_config("mosi_graph", changes), "run", place / "run")
    answerer = Answerer([place / "run"])
    answerer(clips[0].path)
    path = place / "ten.mp4"
    make(path, " ".join(SENTENCES), rate=0.9)
    began = time.process_time()
    (answer,) = answerer(path)
    spent = time.process_time() - began
    print(f"\nAn answer for {answer['duration']:.1f} s of video, with explanations: {spent:.1f} CPU s.")


def long_file(place: Path, seconds: int) -> None:
    """The peak memory of a process that looks at a long file and extracts its first piece."""
    path = place / "long.mp4"
    make(path, "", pad=seconds / 2, noise=0.3, size=96)
    found = subprocess.run(
        [sys.executable, __file__, "--peak", str(path)], capture_output=True, text=True, check=True, env=os.environ
    )
    print(f"\nLooking at {seconds} seconds and extracting the first piece: {found.stdout.strip()}.")


def peak(path: Path) -> str:
    """Pieces, CPU seconds and peak memory of this process."""
    settings = read_extraction("default")
    pipeline = Pipeline(settings)
    began = time.process_time()
    _, pieces = pipeline.look(path)
    pipeline(Clip("long$_$1", path, *pieces[0]))
    spent = time.process_time() - began
    status = Path("/proc/self/status")  # ru_maxrss would count the process that started this one
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M) if status.exists() else None
    most = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{len(pieces)} pieces, {spent:.1f} CPU s, at most {most * 1024 / MIB:.0f} MiB"


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in WORKER.items()):  # it counts from the start: begin again
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **WORKER})
    if sys.argv[1:2] == ["--peak"]:
        print(peak(Path(sys.argv[2])))
    else:
        main()
