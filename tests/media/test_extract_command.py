"""``gmsa data extract`` with quick extractors of one's own: exit codes, workers, the cache, shards, kills."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers.killed_runs import ended, forked
from helpers.model_weights import weights
from helpers.talking_head import make

from gmsa.__main__ import main
from gmsa.data import Store
from gmsa.media.clips import Clip
from gmsa.media.jobs import workers
from gmsa.media.jobs.workers import Done, Task, Work
from gmsa.media.settings import read_extraction
from gmsa.registry import load_plugins

PLUGIN = Path(__file__).parents[1] / "helpers" / "fake_extractors.py"
FAKE = ["text=[fake_text]", "audio=[]", "vision=[fake_vision]"]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Silent films of 1 to 2 seconds, all different."""
    weights("whisper-tiny.en")  # its SHA-256 is part of what a store records
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):
        make(path, audio=False, pad=0.5 + 0.1 * i, fps=5, size=32)
    return paths


class Place:
    """A folder with videos, a cache and a plug-in, in which the command is given."""

    def __init__(self, folder: Path, clips: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.made, self.capsys = folder, clips, capsys
        self.videos, self.calls = folder / "videos", folder / "calls"
        self.videos.mkdir()

    def put(self, *names: str) -> Place:
        """Videos of these names, one after the other of those that were made, and broken ones."""
        for i, name in enumerate(names):
            if name.startswith("broken"):
                (self.videos / f"{name}.mp4").write_text(f"no video {name}")
            else:
                shutil.copy(self.made[i % len(self.made)], self.videos / f"{name}.mp4")
        return self

    def arguments(self, *options: str, out: str | None = "store", labels: str = "") -> list[str]:
        settings = [word for item in FAKE for word in ("--set", item)]
        if labels:
            (self.folder / "labels.csv").write_text(labels)
            options = ("--labels", str(self.folder / "labels.csv"), *options)
        if "--cache" not in options:
            options = ("--cache", str(self.folder / "cache"), *options)
        if "--jobs" not in options:
            options = ("--jobs", "1", *options)
        where = ["--out", str(self.folder / out)] if out else []
        return ["data", "extract", str(self.videos), *where, *settings, "--plugin", "fake_extractors", *options]

    def run(self, *options: str, out: str | None = "store", labels: str = "", code: int = 0) -> str:
        """Gives the command, and returns what it prints."""
        found = 0
        try:
            main(self.arguments(*options, out=out, labels=labels))
        except SystemExit as error:
            found = error.code if isinstance(error.code, int) else 1
        printed = self.capsys.readouterr()
        text = " ".join((printed.out + printed.err).split())
        assert found == code, text
        return text

    def called(self) -> Counter[str]:
        """How often each modality of each video was extracted."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return Counter(line.rpartition(" ")[0] for line in lines)

    def bytes_of(self, out: str = "store") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / out).iterdir())}

    def table(self, out: str = "store") -> dict[str, dict[str, str]]:
        with open(self.folder / f"{out}-clips.csv", newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture
def place(spawned: Place, in_process: None) -> Place:
    """Where this process itself does the work of the workers."""
    return spawned


@pytest.fixture
def spawned(
    tmp_path: Path, clips: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Place:
    shutil.copy(PLUGIN, tmp_path / "fake_extractors.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_extractors", raising=False)
    monkeypatch.chdir(tmp_path)
    found = Place(tmp_path, clips, capsys)
    monkeypatch.setenv("FAKE_CALLS", str(found.calls))
    return found


def labels_of(*names: str, text: str = "so it is") -> str:
    rows = [f"{name},{text},{i % 3 - 1},{('train', 'valid', 'test')[i % 3]}" for i, name in enumerate(names)]
    return "\n".join(["id,text,label,split", *rows]) + "\n"


def test_a_folder_becomes_a_store(place: Place) -> None:
    said = place.put("a", "b", "sub").run()
    store = Store(place.folder / "store")
    assert store.dims == {"vision": 2}  # no sound, no transcript: no words
    assert [u.id for u in store.utterances()] == ["a$_$1", "b$_$1", "sub$_$1"]
    assert set(store.manifest.splits) == {"pool"}
    assert "text is missing in 3 of 3 clips (no audio track: 3)" in said
    for row in range(3):  # 1.0, 1.2 and 1.4 s: two steps of at least half a second
        times = store.times("vision", row)
        assert times is not None
        np.testing.assert_allclose(times[:, 0], [0.0, 0.5], atol=1e-6)
        np.testing.assert_allclose(store.utterances()[row].features["vision"][:, 0], times[:, 0], atol=1e-6)
    assert {row["status"] for row in place.table().values()} == {"ok"}


def test_a_table_gives_words_labels_and_splits(place: Place) -> None:
    said = place.put("a", "b", "c").run(labels=labels_of("c", "a", "b"))
    store = Store(place.folder / "store")
    assert store.dims == {"text": 2, "vision": 2}
    assert {n: s.stop - s.start for n, s in store.manifest.splits.items()} == {"train": 1, "valid": 1, "test": 1}
    assert [(u.id, u.label, u.text) for u in store.utterances()] == [
        ("c", -1.0, "so it is"),
        ("a", 0.0, "so it is"),
        ("b", 1.0, "so it is"),
    ]
    times = store.times("text", 0)  # three words over 1.4 s, without a sound to align them with
    assert times is not None
    np.testing.assert_allclose(times, [[0, 1.4 / 3], [1.4 / 3, 2.8 / 3], [2.8 / 3, 1.4]], atol=0.02)
    assert "3 clips have warnings" in said
    assert "spread evenly" in place.table()["a"]["warnings"]


def test_classes_are_those_of_the_table(place: Place) -> None:
    rows = "id,text,label,split\na,so it is,joy,train\nb,so it is,anger,train\nc,so it is,joy,test\n"
    place.put("a", "b", "c").run("--set", "target.kind=classes", labels=rows)
    store = Store(place.folder / "store")
    assert store.manifest.target.classes == ("anger", "joy")
    assert store.labels.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("id,label\na,1\nb,7\n", "the label of 'b' is 7, out of [-3, 3]"),
        ("id,label,label_V\na,1,\nb,1,-4\n", "the label of vision of 'b' is -4"),
        ("id,label\na,1\nb,joy\n", "'joy', not a number"),
        (f"id,split\na,{'x' * 300}\nb,test\n", "split"),
    ],
)
def test_a_wrong_table_is_said_before_the_work(place: Place, table: str, said: str) -> None:
    assert said in place.put("a", "b").run(labels=table, code=2)
    assert not place.called()


def test_the_store_is_described_checked_and_imported(place: Place) -> None:
    place.put("a", "b", "c").run(labels=labels_of("a", "b", "c"))
    store = place.folder / "store"
    main(["data", "info", str(store)])
    main(["data", "import", str(store), "--out", "again"])
    again = Store(place.folder / "again")
    assert again.extraction == Store(store).extraction
    assert again.clips == Store(store).clips
    np.testing.assert_array_equal(again.times("vision", 1), Store(store).times("vision", 1))
    file = store / "clips.jsonl"
    file.write_text(file.read_text().replace('"a"', '"z"'))
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(store)])
    assert caught.value.code != 0
    said = place.capsys.readouterr()
    assert "clips.jsonl" in said.out + said.err


def test_skipped_clips_are_told_and_the_others_kept(place: Place) -> None:
    place.put("a", "broken1", "nan1", "wrong1", "lacks1")
    said = place.run(code=1, labels=labels_of("a", "broken1", "nan1", "wrong1", "lacks1", "absent"))
    assert [u.id for u in Store(place.folder / "store").utterances()] == ["a", "lacks1"]
    table = place.table()
    assert {i for i, row in table.items() if row["status"] == "skipped"} == {"broken1", "nan1", "wrong1", "absent"}
    assert "there is no file 'absent'" in table["absent"]["reason"]
    assert "not finite" in table["nan1"]["reason"]
    assert "no number" in table["wrong1"]["reason"]
    assert table["lacks1"]["missing"] == "vision: a face in 0 % of 5 frames"
    assert "vision is missing in 1 of 2 clips (a face: 1)" in said
    assert "skipped: 'broken1'" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "vision=[fake_visoin]"], "fake_vision"),
        (["--set", "vision=[fake_text]"], "'fake_text' extracts text"),
        (["--set", "vision=['fake_vision(scales=2)']"], "scale"),
        (["--set", "transcript.model=absent"], "there is no folder"),
        (["--set", "transcript.source=given"], "--labels"),
        (["--config", "absent"], "absent"),
        (["--shard", "3/2"], "I from 1 to N"),
        (["--shard", "1/2", "--cluster", "tcp://127.0.0.1:1"], "not allowed with"),
        (["--jobs", "0"], "whole number"),
        (["--limit", "x"], "whole number"),
        (["--labels", "absent.csv"], "absent.csv"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(place: Place, options: list[str], said: str) -> None:
    assert said in place.put("a").run(*options, code=2)
    assert not place.called()
    assert not (place.folder / "store").exists()


def test_nothing_to_do_is_an_error(place: Place) -> None:
    assert "holds no videos" in place.run(code=2)
    place.put("a")
    assert "--out is required" in place.run(out=None, code=2)
    (place.folder / "store").mkdir()
    assert "exists already" in place.run(code=2)


def test_all_broken_leaves_a_table_alone(place: Place) -> None:
    said = place.put("broken1", "broken2").run(code=1)
    assert not (place.folder / "store").exists()
    assert len(place.table()) == 2
    assert "store-clips.csv" in said.replace(" ", "")


def test_what_is_in_the_cache_is_not_repeated(place: Place) -> None:
    place.put("a", "b").run(labels=labels_of("a", "b"))
    assert place.called() == {"text a": 1, "text b": 1, "vision a": 1, "vision b": 1}
    place.put("a", "b", "c").run(out="more", labels=labels_of("a", "b", "c"))
    assert place.called() == {f"{m} {x}": 1 for m in ("text", "vision") for x in "abc"}
    assert (Store(place.folder / "more").extraction or {})["plugins"] == ["fake_extractors"]


def test_a_change_of_one_modality_repeats_that_alone(place: Place) -> None:
    place.put("a", "b").run(labels=labels_of("a", "b"))
    place.run("--set", "vision=['fake_vision(scale=2)']", out="other", labels=labels_of("a", "b"))
    assert place.called() == {"text a": 1, "text b": 1, "vision a": 2, "vision b": 2}
    one, other = (Store(place.folder / name).utterances() for name in ("store", "other"))
    for u, v in zip(one, other, strict=True):
        np.testing.assert_array_equal(2 * u.features["vision"], v.features["vision"])
        np.testing.assert_array_equal(u.features["text"], v.features["text"])


def test_a_damaged_entry_is_made_anew(place: Place) -> None:
    place.put("a").run(labels=labels_of("a"))
    for path in (place.folder / "cache").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    place.run(out="again", labels=labels_of("a"))
    assert place.called() == {"text a": 2, "vision a": 2}
    assert place.bytes_of() == place.bytes_of("again")


def test_the_limit_takes_the_first(place: Place) -> None:
    place.put("a", "b", "c").run("--limit", "2")
    assert [u.id for u in Store(place.folder / "store").utterances()] == ["a$_$1", "b$_$1"]
    assert set(place.called()) == {"vision a", "vision b"}


@pytest.mark.slow
def test_shards_and_workers_give_equal_bytes(spawned: Place) -> None:
    names = ("a", "b", "c", "d", "lacks1")
    spawned.put(*names).run(labels=labels_of(*names))
    for part in (2, 1):
        said = spawned.run("--shard", f"{part}/2", "--cache", "shared", out=None, labels=labels_of(*names))
        assert f"shard-{part}-of-2-clips.csv" in said.replace(" ", "")
    before = spawned.called()
    spawned.run("--cache", "shared", out="whole", labels=labels_of(*names))
    assert spawned.called() == before == {f"{m} {x}": 2 for m in ("text", "vision") for x in names}
    spawned.run("--cache", "third", "--jobs", "2", out="two", labels=labels_of(*names))
    assert spawned.bytes_of() == spawned.bytes_of("whole") == spawned.bytes_of("two")


@pytest.mark.parametrize("threads", ["2", None])
@pytest.mark.slow
def test_workers_have_one_thread_whatever_the_caller_has(
    spawned: Place, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if threads is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    spawned.put("a").run()
    assert spawned.calls.read_text() == "vision a 1\n"
    assert os.environ.get("OPENBLAS_NUM_THREADS") == threads


@pytest.mark.slow
def test_a_clip_that_kills_its_worker_once_is_given_out_again(spawned: Place) -> None:
    spawned.put("a", "once1", "z").run()
    assert spawned.called()["vision once1"] == 2
    assert len(Store(spawned.folder / "store")) == 3


@pytest.mark.slow
def test_a_clip_that_kills_its_worker_twice_is_skipped(spawned: Place) -> None:
    said = spawned.put("a", "die1", "z").run(code=1)
    assert spawned.called() == {"vision a": 1, "vision die1": 2, "vision z": 1}
    assert "killed its worker twice (memory?)" in spawned.table()["die1$_$1"]["reason"]
    assert "store-extract.log" in spawned.table()["die1$_$1"]["reason"]
    assert "skipped: 'die1$_$1'" in said
    assert len(Store(spawned.folder / "store")) == 2


@pytest.mark.slow
def test_a_clip_that_hangs_is_ended(spawned: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST", 20.0)
    spawned.put("a", "hang1", "z").run("--set", "limits.clip_seconds_per_second=0.5", code=1)
    assert spawned.called() == {"vision a": 1, "vision hang1": 1, "vision z": 1}
    assert "limits.clip_seconds_per_second" in spawned.table()["hang1$_$1"]["reason"]
    assert len(Store(spawned.folder / "store")) == 2


@pytest.mark.slow
def test_a_kept_process_that_ends_between_clips_costs_none_a_try(spawned: Place) -> None:
    spawned.put("a", "once1")
    load_plugins(["fake_extractors"])
    work = Work(
        read_extraction("default", FAKE), spawned.folder / "cache", spawned.folder / "log", ("fake_extractors",)
    )
    running: dict[object, object] = {}
    tasks = [Task(i, Clip(f"{name}$_$1", spawned.videos / f"{name}.mp4")) for i, name in enumerate(("a", "once1"))]
    for task in tasks:
        (done,) = workers.run_tasks(work, [task], 1, running)
        assert not done.reason
        (worker,) = running.values()
        worker.process.kill()
        worker.process.join()
    workers.end_workers(running)
    assert not running
    assert spawned.called()["vision once1"] == 2


@pytest.mark.slow
def test_a_cluster_ends_a_clip_that_hangs_and_skips_one_that_kills(spawned: Place) -> None:
    """In a process of its own beside Dask's worker, which lives on."""
    distributed = pytest.importorskip("distributed")
    names = ("a", "hang1", "die1", "once1", "z")  # a new process may take longer, since it loads the models
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        before = [worker.pid for worker in cluster.workers.values()]
        spawned.put(*names)
        limit = ("--set", "limits.clip_seconds_per_second=2", "--cluster", cluster.scheduler_address)
        said = spawned.run(*limit, code=1, labels=labels_of(*names))
        assert [worker.pid for worker in cluster.workers.values()] == before
    table = spawned.table()
    assert {name for name, row in table.items() if row["status"] == "ok"} == {"a", "once1", "z"}
    assert "killed its worker twice" in table["die1"]["reason"]
    assert "took too long, and was ended; raise limits.clip_seconds_per_second" in table["hang1"]["reason"]
    assert "skipped: 'hang1'" in said
    assert spawned.called()["text die1"] == 2
    assert spawned.called()["text hang1"] == 1
    assert (spawned.folder / "cache" / "cluster.log").is_file()


@pytest.mark.parametrize("labels", ["", labels_of(*(f"broken{i:02}" for i in range(30)))])
def test_twenty_hopeless_files_stop_the_work(place: Place, labels: str) -> None:
    said = place.put(*(f"broken{i:02}" for i in range(30))).run(labels=labels, code=1)
    assert "Stopped: the first 20 clips cannot be extracted" in said
    reasons = Counter(row["reason"] == "not reached" for row in place.table().values())
    assert reasons == {True: 10, False: 20}
    assert not (place.folder / "store").exists()


def test_rows_without_files_are_not_hopeless(place: Place) -> None:
    names = ["broken00", *(f"absent{i}" for i in range(25)), "a"]
    place.put("broken00", "a").run(labels=labels_of(*names), code=1)
    assert [u.id for u in Store(place.folder / "store").utterances()] == ["a"]


def test_pieces_that_would_share_an_id_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("v", "w")
    found = {"text": "id\nv\nv$_$2\n", "video": "id,video\nv,v.mp4\nv$_$2,w.mp4\n"}
    monkeypatch.setattr(
        "gmsa.media.jobs.extract.run_tasks",
        lambda work, tasks, count: (
            Done(t, (1.0, [(0, 0.5), (0.5, 1.0)] if t.clip.id == "v" else [(0, 1.0)])) for t in tasks
        ),
    )
    assert "two clips have the id 'v$_$2'" in place.run(labels=found["video"], code=2)


@pytest.mark.slow
def test_interrupts_say_how_to_go_on(spawned: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned.put(*(f"slow{i}" for i in range(4)))
    watcher = threading.Thread(target=_interrupt, args=(spawned,))
    watcher.start()
    said = spawned.run(code=130)
    watcher.join()
    assert "Nothing is lost. Go on with: gmsa data extract" in said
    assert not (spawned.folder / "store").exists()
    before = spawned.called()
    assert before["vision slow0"] == 1
    spawned.run()
    assert spawned.called()["vision slow0"] == 1
    assert len(Store(spawned.folder / "store")) == 4


def _interrupt(place: Place) -> None:
    """Sends Ctrl-C once the second clip is being extracted."""
    for _ in range(600):
        if place.called()["vision slow1"]:
            break
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


def children() -> list[int]:
    """Processes that this one started by spawn."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_text()
            except (OSError, ValueError):
                continue
            if parent == os.getpid() and "spawn_main" in words:
                found.append(int(entry.name))
    return found


def killing(seed: int, kills: int, stop: Callable[[], bool]) -> int:
    """Kills workers at random moments; returns how many."""
    rng, done = random.Random(seed), 0
    while done < kills and not stop():
        time.sleep(rng.uniform(0.3, 4.0))
        for number in children()[:1]:
            os.kill(number, signal.SIGKILL)
            done += 1
    return done


@pytest.mark.slow
def test_killed_workers_change_no_byte(spawned: Place) -> None:
    names = [f"slow{i}" for i in range(12)]
    spawned.put(*names).run("--cache", "calm", labels=labels_of(*names))
    done = threading.Event()
    killed: list[int] = []
    killer = threading.Thread(target=lambda: killed.append(killing(0, 10, done.is_set)))
    killer.start()
    try:
        for attempt in range(20):
            out = f"killed{attempt}"
            with suppress(SystemExit):  # a clip that was hit twice is skipped, until the next time
                main(spawned.arguments("--jobs", "2", out=out, labels=labels_of(*names)))
            if not killer.is_alive() and all(row["status"] == "ok" for row in spawned.table(out).values()):
                break
            if killer.is_alive():
                shutil.rmtree(spawned.folder / "cache")
    finally:
        done.set()
        killer.join()
    assert killed == [10]
    assert spawned.bytes_of() == spawned.bytes_of(out)


@pytest.mark.slow
def test_a_killed_command_goes_on(spawned: Place) -> None:
    names = [f"slow{i}" for i in range(6)]
    spawned.put(*names).run("--cache", "calm", labels=labels_of(*names))
    rng, killed = random.Random(1), 0
    while True:
        child = forked(lambda: main(spawned.arguments(labels=labels_of(*names), out="killed")))
        if killed < 5:
            time.sleep(rng.uniform(1.0, 7.0))
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
    assert spawned.bytes_of() == spawned.bytes_of("killed")
    assert not list((spawned.folder / "killed").glob("*.tmp"))
