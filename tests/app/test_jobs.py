"""The queue and the worker of the page: one at a time, within limits, and every end told in a sentence."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra app")
pytest.importorskip("uvicorn", reason="needs the extra app")
pytest.importorskip("av", reason="needs the extra app")
from helpers.fake_answers import make_video
from helpers.video_app import serving

from gmsa.app import answers
from gmsa.app.jobs import Clip, Jobs
from gmsa.app.options import Options

linux = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("made") / "video.mp4", 1.0, size=64).read_bytes()


def ended_by(folder: Path, answer: str, content: bytes, **limits: float) -> dict:
    """What the page is told of a video in the end."""
    with serving(folder / "site", answer, **limits) as site:
        return site.ended(site.ask("POST", "/api/clips?name=a.mp4", content).json["id"])


def until(holds: Callable[[], object]) -> None:
    for _ in range(1500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


MEMORY = "The analysis was ended, most likely because memory ran out (it may use 2 GiB); try a shorter or smaller clip."
TIME = "The analysis took longer than 1 seconds and was ended; try a shorter clip."


@linux
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("hungry", MEMORY),
        ("killed", MEMORY),
        pytest.param("busy", TIME, marks=pytest.mark.slow),
        ("slow", TIME),
        ("broken", answers.SEE_TERMINAL),
        ("lacks", "Reading words needs words, which is not installed; pip install 'gmsa[media]'"),
        ("nothing", answers.SEE_TERMINAL),
        ("refuses", "This file: a file of this machine and a file of this machine are damaged; fetch 1 / 2 again"),
    ],
)
def test_every_end_is_one_sentence(
    answer: str, said: str, video: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = ended_by(tmp_path, answer, video, time=1.0 if said == TIME else 60.0, memory=2 * 2**30)
    assert (found["state"], found["stage"]) == ("failed", said)
    assert "answers" not in found
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert told.count("\n") == (answer in ("broken", "lacks", "nothing", "refuses"))


@pytest.mark.slow
@linux
def test_the_processor_s_time_is_limited_too(video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock alone would let it go on."""
    monkeypatch.setattr("gmsa.app.jobs._Worker.hear", patient(Jobs))
    assert ended_by(tmp_path, "busy", video, time=1.0)["stage"] == TIME


def patient(_) -> Callable:
    from gmsa.app.jobs import _Worker

    hear = _Worker.hear
    return lambda worker, deadline: hear(worker, deadline + 60)


@pytest.mark.parametrize(
    ("content", "limits", "said"),
    [
        (b"not a video", {}, "This file: is no video or sound that FFmpeg reads"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", {}, "This file: is a list of other files"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", {}, "This file: is "),
        (None, {"seconds": 0.5}, "This file: lasts longer than"),
        (None, {"pixels": 64 * 48 - 1}, "This file: has frames of 64 x 48 pixels, more than 3,071"),
    ],
    ids=["text", "ffconcat", "m3u8", "seconds", "pixels"],
)
def test_a_file_that_is_refused(content: bytes | None, limits: dict, said: str, video: bytes, tmp_path: Path) -> None:
    found = ended_by(tmp_path, "answer", content or video, **limits)
    assert found["state"] == "failed"
    assert found["stage"].startswith(said)
    assert str(tmp_path) not in found["stage"]
    assert "passwd" not in found["stage"]


def test_what_json_does_not_know(video: bytes, tmp_path: Path) -> None:
    found = ended_by(tmp_path, "not_finite", video)
    assert found["answers"] == [{"run": "first", "value": None, "other": 1.5, "list": [1.0, None]}]


def test_a_dead_worker_is_replaced(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site", "slow") as site:
        first, second = (site.ask("POST", "/api/clips", video).json["id"] for _ in range(2))
        until(lambda: site.ask("GET", f"/api/clips/{first}").json["stage"] == "Sleeping")
        assert site.ask("GET", f"/api/clips/{second}").json["stage"] == "Waiting; 1 before this one"
        before = site.jobs._worker.process.pid
        site.jobs._worker.process.kill()
        assert site.ended(first)["state"] == "failed"
        until(lambda: site.ask("GET", f"/api/clips/{second}").json["stage"] == "Sleeping")
        assert site.jobs._worker.process.pid != before


def test_a_clip_is_deleted_while_it_runs_and_while_it_waits(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site", "slow") as site:
        ids = [site.ask("POST", "/api/clips", video).json["id"] for _ in range(3)]
        until(lambda: site.ask("GET", f"/api/clips/{ids[0]}").json["stage"] == "Sleeping")
        worker = site.jobs._worker.process
        paths = [site.jobs.clips[id].path for id in ids]
        for id in ids[:2]:
            assert site.ask("DELETE", f"/api/clips/{id}").status == 200
        assert [path.exists() for path in paths] == [False, False, True]
        until(lambda: not worker.is_alive())
        until(lambda: site.ask("GET", f"/api/clips/{ids[2]}").json["stage"] == "Sleeping")


def test_a_worker_killed_while_nothing_waits_is_blamed_on_no_clip(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site") as site:
        assert site.ended(site.ask("POST", "/api/clips", video).json["id"])["state"] == "done"
        worker = site.jobs._worker.process
        worker.kill()
        worker.join()
        assert site.ended(site.ask("POST", "/api/clips", video).json["id"])["state"] == "done"


def test_a_clip_deleted_as_it_is_done_leaves_no_dead_worker(tmp_path: Path) -> None:
    """Its worker is killed when it has said its last word already."""
    jobs = Jobs(Options(()), tmp_path)
    clip = jobs.reserve("a")

    class Quick:
        ended = False

        def is_ready(self) -> bool:
            return True

        def give(self, path: Path) -> None:
            pass

        def hear(self, deadline: float) -> dict:
            jobs.delete(clip)
            return {"answers": []}

        def kill(self) -> None:
            pass

        def end(self) -> None:
            self.ended = True

    worker = Quick()
    worker.process = worker
    jobs._worker, clip.state = worker, "running"
    jobs._answer(clip)
    assert worker.ended
    assert jobs._worker is None


def test_a_full_queue_says_so(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site", "slow", queue=2) as site:
        first = site.ask("POST", "/api/clips", video).json["id"]
        until(lambda: site.ask("GET", f"/api/clips/{first}").json["stage"] == "Sleeping")
        replies = [site.ask("POST", "/api/clips", video) for _ in range(3)]
        assert [reply.status for reply in replies] == [202, 202, 429]
        assert replies[2].json == {"error": "The queue is full (2 videos); try again when one is done."}
        assert len({path.name for path in site.jobs.folder.iterdir()} - {"worker.log"}) == 3
        site.ask("DELETE", f"/api/clips/{replies[0].json['id']}")
        assert site.ask("POST", "/api/clips", video).status == 202


def test_one_at_a_time_in_their_order(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site") as site:
        seen: list[tuple[str, ...]] = []
        ids = [site.ask("POST", "/api/clips", video).json["id"] for _ in range(4)]
        watch = threading.Event()

        def look() -> None:
            while not watch.is_set():
                with site.jobs._changed:  # or a clip could change while the next one is read
                    seen.append(tuple(clip.state for clip in site.jobs.clips.values()))
                time.sleep(0.001)

        thread = threading.Thread(target=look)
        thread.start()
        for id in ids:
            assert site.ended(id)["state"] == "done"
        watch.set()
        thread.join()
        assert max(states.count("running") for states in seen) == 1
        order = ["done", "running", "waiting"]
        assert all([order.index(s) for s in states] == sorted(order.index(s) for s in states) for states in seen)


def test_the_oldest_answers_are_deleted(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site", kept=2) as site:
        ids = []
        for _ in range(4):
            ids.append(site.ask("POST", "/api/clips", video).json["id"])
            site.ended(ids[-1])
        until(lambda: {*site.jobs.clips} == {*ids[2:]})
        assert len({path.name for path in site.jobs.folder.iterdir()} - {"worker.log"}) == 2


def test_stopping_ends_the_worker(video: bytes, tmp_path: Path) -> None:
    with serving(tmp_path / "site", "slow") as site:
        id = site.ask("POST", "/api/clips", video).json["id"]
        until(lambda: site.ask("GET", f"/api/clips/{id}").json["stage"] == "Sleeping")
        worker = site.jobs._worker.process
    assert not site.jobs._thread.is_alive()
    assert not worker.is_alive()


def test_the_worker_imports_the_plugins_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "plugin_of_the_page.py"
    plugin.write_text("import os, pathlib\npathlib.Path(__file__).with_suffix('.pid').write_text(str(os.getpid()))\n")
    monkeypatch.syspath_prepend(tmp_path)
    with serving(tmp_path / "site", plugins=(plugin.stem,)) as site:
        until(plugin.with_suffix(".pid").exists)
        until(lambda: plugin.with_suffix(".pid").read_text() == str(site.jobs._worker.process.pid))


def test_jobs_that_never_started_stop(tmp_path: Path) -> None:
    Jobs(Options(()), tmp_path).stop()


@pytest.mark.parametrize(
    "message",
    [
        b"\x80\x04N.",
        b"[]",
        b"{",
        b'{"stage"',
        b"[" * 100_000,
        b'{"stage": "a", "share": "b"}',
        b'{"stage": "a", "share": {}}',
        b'{"stage": "a", "share": NaN}',
        b'{"answers": [{"value": Infinity}]}',
    ],
)
def test_what_the_worker_sends_is_not_unpickled(message: bytes, tmp_path: Path) -> None:
    """A stranger's video may have taken the worker over: what is not JSON, or no object, counts as its death."""
    from multiprocessing import Pipe

    from gmsa.app.jobs import _Worker

    worker = _Worker.__new__(_Worker)
    worker.pipe, other = Pipe()
    other.send_bytes(message)
    assert worker.hear(time.monotonic() + 1) is None


# --- the worker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'/tmp/x/abc': is no video", "This file: is no video"),
        ("abc: the clip starts at 3 s", "This file: the clip starts at 3 s"),
        ("weights '/home/me/My Files/m.bin' are absent", "Weights a file of this machine are absent"),
        ("see /home/me/log.txt, or ask", "See a file of this machine, or ask"),
        ("'…very/long/path': is empty", "A file of this machine: is empty"),
        (r"'C:\Users\me\x' is empty", "A file of this machine is empty"),
        ("text/audio at 3 / 4 of 'gmsa[media]'", "Text/audio at 3 / 4 of 'gmsa[media]'"),
        ("see https://example.org/page", "See https://example.org/page"),
    ],
)
def test_messages_name_no_path(text: str, shown: str) -> None:
    assert answers.without_paths(text, Path("/tmp/x/abc")) == shown


def test_the_worker_s_parts(tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    options = Options((Path("a/run"), Path("b/run")), answer="helpers.fake_answers:answer")
    path = make_video(tmp_path / "v.mp4", 1.0, size=64)
    found = answers.answer_one(options, path, lambda stage, share: said.append((stage, share)))
    json.dumps(found, allow_nan=False)
    assert [stage for stage, _ in said] == ["Reading the file", "Reading words, voice and face", "Predicting"]
    one, other = found["answers"]
    assert (one["run"], other["run"]) == ("a/run", "b/run")  # as the page names them above
    for segment in one["segments"]:  # what the page's tests stand on
        parts = segment["modalities"]
        assert parts["base"] + sum(parts["parts"].values()) == pytest.approx(segment["value"])
        assert segment["subsets"]["text+audio+vision"] == pytest.approx(segment["value"])
        assert segment["subsets"][""] == parts["base"]


def test_a_clip_s_name_is_cut(tmp_path: Path) -> None:
    jobs = Jobs(Options(()), tmp_path)
    clip = jobs.reserve("x\n\x1b[31m" + "y" * 5000)
    assert isinstance(clip, Clip)
    assert len(clip.name) <= 80
    assert clip.name.isprintable()
    jobs.delete(clip)
    assert os.listdir(tmp_path) == []
