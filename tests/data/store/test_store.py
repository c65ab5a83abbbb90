"""The feature store: what goes in comes out, and what is damaged is refused."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import ended, forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Row, Store, StoredUtterances, Target, Utterance, data_sha256, load_corpus, write_store
from gmsa.data.features import LazyFeatures
from gmsa.data.loading import load_other
from gmsa.data.notes import collected
from gmsa.errors import DataError, DataWarning, RunError, WriteError
from gmsa.system.files import sha256_of
from gmsa.training.checkpoint import load_weights

DIMS = {"text": 6, "audio": 4, "vision": 5}
LENGTHS = [(3, 2, 4), (1, 0, 2), (0, 5, 0), (2, 2, 2), (4, 1, 1), (1, 1, 0), (2, 0, 3), (5, 5, 5)]


@pytest.fixture
def utterances(make_utterance: Callable[..., Utterance]) -> list[Utterance]:
    """Eight utterances: some lack modalities, one has no label, one has labels of single modalities."""
    found = [make_utterance(f"v{i // 2}$_${i}", lengths, i / 4 - 1) for i, lengths in enumerate(LENGTHS)]
    found[1] = replace(found[1], label=None, text="naïve 文 ")
    found[3] = replace(found[3], unimodal={"text": 0.25, "vision": -1.0})
    return found


@pytest.fixture
def rows(utterances: list[Utterance]) -> list[Row]:
    """Them in splits of four, two and two, some annotated."""
    splits = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    return [Row(s, u, i % 3 - 1 if i else -128) for i, (s, u) in enumerate(zip(splits, utterances, strict=True))]


@pytest.fixture
def store(tmp_path: Path, rows: list[Row]) -> Store:
    return write_store(tmp_path / "store", rows, source={"importer": "none"})


def assert_same(ours: Utterance, theirs: Utterance) -> None:
    assert {f.name for f in fields(Utterance)} <= vars(ours).keys()  # built without the constructor
    assert (ours.id, ours.label, ours.text, ours.lengths) == (theirs.id, theirs.label, theirs.text, theirs.lengths)
    assert dict(ours.unimodal) == dict(theirs.unimodal)
    assert list(ours.features) == list(theirs.features)
    for modality, sequence in theirs.features.items():
        assert ours.features[modality].dtype == torch.float32
        assert torch.equal(ours.features[modality], sequence)


def test_comes_out_as_it_went_in(store: Store, utterances: list[Utterance]) -> None:
    assert len(store) == 8
    assert store.dims == DIMS
    for ours, theirs in zip(store.utterances(), utterances, strict=True):
        assert_same(ours, theirs)
    train = store.split("train")
    assert [u.id for u in train] == train.ids == [u.id for u in utterances[:4]]
    np.testing.assert_array_equal(train.labels, [-1, math.nan, -0.5, -0.25])
    assert store.annotations is not None
    assert store.annotations.tolist() == [-128, 0, 1, -1, 0, 1, -1, 0]
    assert store.manifest.splits["train"].labeled == 3
    assert store.sha256 == sha256_of(store.path / "manifest.json") == data_sha256(store.path)


@pytest.mark.parametrize("system", ["pieces", "without preadv", "without pread"])
def test_reads_of_any_system_are_equal(
    store: Store, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    if system == "pieces":
        whole = os.preadv
        monkeypatch.setattr(os, "preadv", lambda handle, buffers, place: whole(handle, [buffers[0][:7]], place))
    else:
        monkeypatch.delattr(os, "preadv")
        if system == "without pread":
            monkeypatch.delattr(os, "pread")
    wanted = [u.features["text"] for u in utterances] * 40
    with ThreadPoolExecutor(4) as threads:  # which share the place of a file
        found = threads.map(lambda i: store.utterances()[i % 8].features["text"], range(len(wanted)))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_file_of_features_that_is_cut_short_while_it_is_open(store: Store, utterances: list[Utterance]) -> None:
    path = store.path / "text.npy"
    os.truncate(path, path.stat().st_size - 4)
    assert torch.equal(store.utterances()[6].features["text"], utterances[6].features["text"])
    with pytest.raises(DataError, match=r"text\.npy: was cut short while it was open; restore it, or import the data"):
        store.utterances()[7].features["text"]


def test_a_disk_that_fails_while_features_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fails)
    with pytest.raises(DataError, match=r"text\.npy: cannot be read: Input/output error; check the disk"):
        store.utterances()[0].features["text"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list open files")
def test_a_store_closes_its_files(tmp_path: Path, rows: list[Row]) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    store = write_store(tmp_path / "closing", rows, shard_bytes=100)
    files = len(store.manifest.files)
    assert len(store.manifest.shards) > 2
    assert before < len(os.listdir("/proc/self/fd")) <= before + files
    del store
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_processes_read_at_places_of_their_own(
    store: Store, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "preadv")

    def read(first: int) -> None:
        for i in range(first, first + 400):
            assert torch.equal(store.utterances()[i % 8].features["text"], utterances[i % 8].features["text"])

    assert [ended(number) for number in [forked(partial(read, i)) for i in range(3)]] == [0, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_too_many_open_files_are_one_line(tmp_path: Path, rows: list[Row], capfd: pytest.CaptureFixture[str]) -> None:
    resource = pytest.importorskip("resource")
    path = write_store(tmp_path / "shards", rows, shard_bytes=100).path

    def read() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6,) * 2)
        with pytest.raises(
            DataError, match=r"cannot be read: Too many open files; allow more open files by 'ulimit -n'"
        ):
            Store(path)

    assert ended(forked(read)) == 0, capfd.readouterr().err


def test_features_are_lazy_and_copies(store: Store) -> None:
    one = store.split("train")[0]
    assert isinstance(one.features, LazyFeatures)
    one.features["text"].zero_()
    assert one.features["text"].any()
    held = one.features["text"]
    del store
    gc.collect()
    assert held.sum() != 0
    with pytest.raises(KeyError):
        one.features["smell"]
    assert "smell" not in one.features
    assert one.lengths == {"text": 3, "audio": 2, "vision": 4}


def test_reading_in_order_reads_what_is_there(tmp_path: Path, make_utterance: Callable[..., Utterance]) -> None:
    """Rows that are read together are copies all the same, and nothing is kept of those left behind."""
    made = [make_utterance(f"u{i}", (i % 5, (i + 2) % 4, i % 2), 0.0) for i in range(150)]
    whole = write_store(tmp_path / "many", [Row("all", u) for u in made]).utterances()
    kept = []
    for ours, theirs in zip(whole, made, strict=True):
        assert_same(ours, theirs)
        ours.features["text"].add_(1)
        ours.features["audio"].zero_()
        assert_same(ours, theirs)
        kept.append(ours)
    for ours, theirs in zip(kept, made, strict=True):
        assert_same(ours, theirs)
    for ours, theirs in zip(whole[3:140], made[3:140], strict=True):
        assert torch.equal(ours.features["vision"], theirs.features["vision"])
    part = whole.store.utterances(dims={"audio": 4})
    assert [u.lengths for u in part] == [{"audio": (i + 2) % 4} for i in range(150)]
    there = whole.store.read_sequences("text", 0, 150)[0]
    assert torch.equal(there, torch.cat([u.features["text"] for u in made]))
    first = next(iter(whole))
    assert pickle.loads(pickle.dumps(first)).features["audio"].shape == (2, 4)


def test_a_sequence_of_utterances(store: Store, utterances: list[Utterance]) -> None:
    whole = store.utterances()
    assert whole[-1].id == utterances[-1].id
    part = whole[1:7:2]
    assert isinstance(part, StoredUtterances)
    assert [u.id for u in part] == part.ids == [u.id for u in utterances[1:7:2]]
    np.testing.assert_array_equal(part.labels, [math.nan, -0.25, 0.25])
    assert [u.id for u in part[::-1]] == [u.id for u in utterances[5:0:-2]]
    assert len(whole[5:5]) == 0
    assert whole[2:4][1].id == utterances[3].id
    with pytest.raises(IndexError):
        whole[8]
    without = store.utterances(labels=False)
    assert all(u.label is None and not u.unimodal for u in without)
    assert np.isnan(without.labels).all()


def test_some_modalities_and_one_that_is_lacking(store: Store, utterances: list[Utterance]) -> None:
    found = store.utterances(dims={"vision": 5, "audio": 4})
    assert list(found[3].features) == ["vision", "audio"]
    assert found[3].unimodal == {"vision": -1.0}
    other = write_store(store.path.parent / "less", [Row("a", utterances[0])], {"audio": "float32"})
    lacking = other.utterances(dims={"text": 9, "audio": 4})[0]
    assert lacking.lengths == {"text": 0, "audio": 2}
    assert lacking.features["text"].shape == (0, 9)


def test_reads_ranges(store: Store, utterances: list[Utterance]) -> None:
    flat, offsets = store.read_sequences("audio", 1, 5)
    assert offsets.tolist() == [0, 0, 5, 7, 8]
    assert torch.equal(flat, torch.cat([u.features["audio"] for u in utterances[1:5]]))
    assert store.lengths("text", range(2, 8)).tolist() == [0, 2, 4, 1, 2, 5]
    assert store.read_sequences("text", 2, 2)[0].shape == (0, 6)
    for start, stop in ((-1, 2), (3, 2), (0, 9)):
        with pytest.raises(IndexError):
            store.read_sequences("text", start, stop)


def test_pickles_as_its_path(store: Store, rows: list[Row]) -> None:
    again = pickle.loads(pickle.dumps(store))
    assert again.sha256 == store.sha256
    batch = store.split("train")[:2]
    raw = pickle.dumps([batch, list(batch)])
    assert len(raw) < 3000
    for ours, theirs in zip(pickle.loads(raw)[1], batch, strict=True):
        assert_same(ours, theirs)
    os.rename(store.path, store.path.with_name("old"))
    write_store(store.path, rows[:3])
    with pytest.raises(DataError, match="changed since it was opened"):
        pickle.loads(raw)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_reads(store: Store, utterances: list[Utterance]) -> None:
    child = os.fork()
    if not child:
        same = all(
            torch.equal(u.features["text"], v.features["text"])
            for u, v in zip(store.utterances(), utterances, strict=True)
        )
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_half_precision(tmp_path: Path, utterances: list[Utterance]) -> None:
    rows = [Row("train", u) for u in utterances]
    halved = write_store(tmp_path / "half", rows, dict.fromkeys(DIMS, "float16"))
    for ours, theirs in zip(halved.utterances(), utterances, strict=True):
        for modality, sequence in theirs.features.items():
            assert torch.equal(ours.features[modality], sequence.half().float())
    assert (halved.path / "text.npy").stat().st_size < (
        write_store(tmp_path / "s", rows).path / "text.npy"
    ).stat().st_size
    rows[3].utterance.features["audio"][1, 2] = 70000
    with pytest.raises(DataError, match=r"'audio' of 'v1\$_\$3' reaches 70000, which float16 cannot hold; use --dtype"):
        write_store(tmp_path / "no", rows, dict.fromkeys(DIMS, "float16"))
    write_store(tmp_path / "yes", rows)


def test_files_are_plain_arrays_and_the_same_each_time(tmp_path: Path, store: Store, rows: list[Row]) -> None:
    again = write_store(tmp_path / "again", iter(rows), source={"importer": "none"})
    names = sorted(os.listdir(store.path))
    assert names == sorted(os.listdir(again.path)) == sorted([*store.manifest.files, "manifest.json"])
    for name in names:
        assert (store.path / name).read_bytes() == (again.path / name).read_bytes()
    for name, file in store.manifest.files.items():
        assert sha256_of(store.path / name) == file.sha256
        array = np.load(store.path / name, allow_pickle=False)
        assert array.nbytes + 128 == file.bytes
    assert np.load(store.path / "text.npy").shape == (18, 6)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda u: replace(u, id="v0$_$0"), r"duplicate id 'v0\$_\$0' in splits 'train' and 'test'"),
        (lambda u: replace(u, id=""), "has an empty id"),
        (lambda u: replace(u, id="\ud800"), "cannot be encoded as UTF-8"),
        (
            lambda u: replace(u, label=3.1),
            r"the label of 'v3\$_\$7' is 3.1, out of \[-3, 3\]; choose its scale with --labels",
        ),
        (lambda u: replace(u, label=math.nan), "is nan, out of"),
        (lambda u: replace(u, unimodal={"audio": 9.0}), "the label of audio of .* is 9"),
        (
            lambda u: replace(u, features={"text": torch.zeros(2, 7)}),
            "has 7 features per step, but earlier ones have 6",
        ),
        (lambda u: replace(u, features={"text": torch.zeros(6)}), r"has shape \[6\]"),
        (lambda u: replace(u, features={"text": torch.full((1, 6), math.nan)}), "'text' of .* holds NaN"),
        (lambda u: replace(u, features={"audio": torch.full((1, 4), math.inf)}), "'audio' of .* holds infinity"),
    ],
)
def test_rows_that_are_refused(
    tmp_path: Path, rows: list[Row], change: Callable[[Utterance], Utterance], said: str
) -> None:
    rows[-1] = rows[-1]._replace(utterance=change(rows[-1].utterance))
    with pytest.raises(DataError, match=said):
        write_store(tmp_path / "store", rows)
    assert not os.listdir(tmp_path)


def test_ids_that_stand_twice_in_one_split(tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(DataError, match=r"rows: duplicate id 'v0\$_\$1' in split 'train'; ids must be unique"):
        write_store(tmp_path / "store", [*rows[:2], rows[1], rows[0]][:3])


def test_nothing_to_write(tmp_path: Path, utterances: list[Utterance]) -> None:
    with pytest.raises(DataError, match="holds no utterances"):
        write_store(tmp_path / "store", [])
    empty = replace(utterances[0], features={m: x[:0] for m, x in utterances[0].features.items()})
    with pytest.raises(DataError, match="no utterance has text, audio, vision"):
        write_store(tmp_path / "store", [Row("train", empty)])
    with pytest.raises(ValueError, match="split by split"):
        write_store(tmp_path / "store", [Row(s, u) for s, u in zip("aba", utterances, strict=False)])
    assert not os.listdir(tmp_path)


def test_a_target_that_exists_is_left_alone(store: Store, rows: list[Row]) -> None:
    before = store.sha256
    with pytest.raises(DataError, match="exists already, and a store is never overwritten"):
        write_store(store.path, rows)
    assert Store(store.path).sha256 == before


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, rows: list[Row]) -> None:
    def stop():
        yield from rows[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", stop())
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_one_line(tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"cannot write '.*store': No space left on device; free disk space"):
        write_store(tmp_path / "store", rows)
    assert not os.listdir(tmp_path)


# --- what is damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text.npy", "audio.offsets.npy", "labels.npy", "ids.npy", "transcripts.npy"])
@pytest.mark.parametrize("by", [-1, 1, -(1 << 40)])
def test_files_of_another_size_are_refused(store: Store, name: str, by: int) -> None:
    path = store.path / name
    size = max(0, path.stat().st_size + by)
    os.truncate(path, size)
    with pytest.raises(DataError, match=f"{name}: has {size} bytes, expected .*; it is damaged or cut short, import"):
        Store(store.path)


def test_missing_files_and_links_are_refused(store: Store, tmp_path: Path) -> None:
    os.rename(store.path / "text.npy", tmp_path / "text.npy")
    with pytest.raises(DataError, match=r"text.npy: does not exist"):
        Store(store.path)
    os.symlink(tmp_path / "text.npy", store.path / "text.npy")
    with pytest.raises(DataError, match=r"text.npy: is a symbolic link; replace"):
        Store(store.path)
    os.unlink(store.path / "text.npy")
    os.mkdir(store.path / "text.npy")
    with pytest.raises(DataError, match=r"text.npy: (is not a regular file|cannot be read)"):
        Store(store.path)
    os.rmdir(store.path / "text.npy")
    os.mkfifo(store.path / "text.npy")
    with pytest.raises(DataError, match=r"text.npy: is not a regular file"):
        Store(store.path)


def write_at(path: Path, offset: int, raw: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(raw)


@pytest.mark.parametrize("value", [-1, 10**6, 2**62, 0])
@pytest.mark.parametrize("row", [0, 3, 8])
def test_offsets_out_of_bounds_are_refused(store: Store, row: int, value: int) -> None:
    if (row, value) == (0, 0):
        return
    write_at(store.path / "text.offsets.npy", 128 + 8 * row, struct.pack("<q", value))
    with pytest.raises(DataError, match=r"text.offsets.npy: points outside 'text.npy'"):
        Store(store.path)


def test_heads_that_contradict_the_manifest_are_refused(store: Store) -> None:
    for raw in (b"\x93NUMPY\x02", b"junk", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', "):
        write_at(store.path / "audio.npy", 0, raw)
        with pytest.raises(DataError, match=r"audio.npy: header does not match the manifest \(<f4 \[16, 4\]\)"):
            Store(store.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format="other"),
        lambda m: m.update(version=3),
        lambda m: m.update(version=1),
        lambda m: m.update(extra=1),
        lambda m: m.pop("splits"),
        lambda m: m.update(utterances=9),
        lambda m: m.update(utterances=True),
        lambda m: m.update(utterances=2**80),
        lambda m: m.update(labels="imdb"),
        lambda m: m.update(source=[]),
        lambda m: m.update(modalities={}),
        lambda m: m["modalities"].update(smell=m["modalities"]["text"]),
        lambda m: m["modalities"]["text"].update(steps=17),
        lambda m: m["modalities"]["text"].update(dim=0),
        lambda m: m["modalities"]["text"].update(dtype="object"),
        lambda m: m["modalities"]["text"].update(dtype="float16"),
        lambda m: m["splits"]["valid"].update(start=3),
        lambda m: m["splits"]["valid"].update(stop=4),
        lambda m: m["splits"]["test"].update(stop=99),
        lambda m: m["splits"]["test"].update(labeled=99),
        lambda m: m.update(unimodal=["smell"]),
        lambda m: m.update(unimodal="text"),
        lambda m: m.update(files=[]),
        lambda m: m["files"].pop("text.npy"),
        lambda m: m["files"].update({"../../etc/passwd": m["files"]["text.npy"]}),
        lambda m: m["files"]["text.npy"].update(bytes=-1),
        lambda m: m["files"]["text.npy"].update(sha256="../x"),
        lambda m: m["files"]["ids.npy"].update(bytes=1),
    ],
)
def test_manifests_that_are_refused(store: Store, change: Callable[[dict], object]) -> None:
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError) as caught:
        Store(store.path)
    assert "\n" not in str(caught.value)
    assert "import the data again" in str(caught.value)


def test_files_that_are_no_manifest(store: Store, tmp_path: Path) -> None:
    path = store.path / "manifest.json"
    for raw in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "gmsa feature store"}', b" " * (2 << 20)):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"manifest.json: invalid manifest"):
            Store(store.path)
    with pytest.raises(DataError, match="does not exist"):
        Store(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a folder"):
        Store(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_never_crash(store: Store, data: st.DataObject) -> None:
    """Whatever byte is changed, wherever: a store is refused, or every row of it can be read."""
    name = data.draw(st.sampled_from(sorted(os.listdir(store.path))))
    path = store.path / name
    before = path.read_bytes()
    changed = bytearray(before)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(before) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    try:
        for utterance in Store(store.path).utterances():
            assert {m: len(x) for m, x in utterance.features.items()} == utterance.lengths
    except DataError:
        pass
    finally:
        path.write_bytes(before)


# --- in place of a data file -----------------------------------------------------------------------------------------


@pytest.fixture
def labeled(tmp_path: Path, rows: list[Row]) -> Store:
    """A store whose splits are all labeled, but for a row of train."""
    return write_store(tmp_path / "labeled", rows)


def test_a_corpus_of_a_store(labeled: Store, utterances: list[Utterance]) -> None:
    corpus = load_corpus(DataConfig(path=str(labeled.path), modalities=("vision", "text")))
    assert corpus.dims == {"vision": 5, "text": 6}
    assert corpus.sha256 == labeled.sha256
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 4, "valid": 2, "test": 2}
    assert list(corpus.splits["train"][0].features) == ["vision", "text"]
    assert torch.equal(corpus.splits["test"][1].features["text"], utterances[7].features["text"])


def test_stores_that_do_not_fit_the_settings(labeled: Store, rows: list[Row], tmp_path: Path) -> None:
    corpus = (DataConfig(path=str(labeled.path)),)
    said = r"with intensity in \[-3, 3\], but the target is intensity in \[-1, 1\]; set target.range=\[-3, 3\]"
    with pytest.raises(DataError, match=said):
        load_corpus(*corpus, TargetConfig(preset="sims"))
    with pytest.raises(
        DataError, match=r"intensity in \[-3, 3\], but the target is classes; set target.kind=intensity"
    ):
        load_corpus(*corpus, TargetConfig(kind="classes"))
    part = write_store(tmp_path / "part", rows[:4], {"text": "float32"})
    with pytest.raises(DataError, match=r"part: has no split 'valid' \(its splits: train\); make them by data.split"):
        load_corpus(DataConfig(path=str(part.path)))
    with pytest.raises(DataError, match=r"has none of the modalities audio, only text; check data.modalities"):
        load_corpus(DataConfig(path=str(part.path), modalities=("audio",)))
    bare = [row._replace(utterance=replace(row.utterance, label=None)) for row in rows]
    none = write_store(tmp_path / "bare", bare)
    with pytest.raises(
        DataError, match=r"split 'train': no utterance has a label, such as 'v0\$_\$0'; training and scoring"
    ):
        load_corpus(DataConfig(path=str(none.path)))
    some = write_store(tmp_path / "some", [*rows[:4], *bare[4:5], *rows[5:]])
    with pytest.warns(DataWarning, match=r"split 'valid': 1 of 2 utterances has no label and is not scored"):
        assert [u.id for u in load_corpus(DataConfig(path=str(some.path))).splits["valid"]] == ["v2$_$5"]
    audio_only = replace(rows[6].utterance, id="x")
    lacking = write_store(tmp_path / "lacking", [*rows[:6], rows[6]._replace(utterance=audio_only)])
    with pytest.raises(DataError, match=r"split 'test': no utterance has audio; choose other data.modalities"):
        load_corpus(DataConfig(path=str(lacking.path), modalities=("audio",)))


def test_a_pool_that_is_a_store(
    labeled: Store, write_mmsa: Callable[..., Path], make_utterance: Callable[..., Utterance], tmp_path: Path
) -> None:
    more = [Row("all", make_utterance(f"p$_${i}", (2, 3, 1))) for i in range(3)]
    pool = write_store(tmp_path / "pool", more, {"text": "float32", "audio": "float32"})
    corpus = load_corpus(DataConfig(path=str(labeled.path), pool=str(pool.path)))
    assert [u.label for u in corpus.pool] == [None] * 3
    assert corpus.pool[0].lengths == {"text": 2, "audio": 3, "vision": 0}
    assert corpus.pool[0].features["vision"].shape == (0, 5)
    with pytest.raises(DataError, match=r"id 'v0\$_\$0' of the pool is also in split 'train' of the data file"):
        load_corpus(DataConfig(path=str(labeled.path), pool=str(labeled.path)))
    with pytest.raises(DataError, match=r"pool: '(text|audio)' has . features per step, training has ."):
        load_corpus(DataConfig(path=str(write_mmsa()), pool=str(pool.path)))


def test_another_store_for_a_trained_model(labeled: Store, rows: list[Row], tmp_path: Path) -> None:
    data, mosi, sims = DataConfig(), TargetConfig(), TargetConfig(preset="sims")
    found = load_other(labeled.path, DIMS, data, mosi)
    assert {name: [u.id for u in split] for name, split in found.splits.items()} == {
        name: labeled.split(name).ids for name in ("train", "valid", "test")
    }
    assert {name: len(split) for name, split in found.labeled.items()} == {"train": 3, "valid": 2, "test": 2}
    assert (len(found.utterances), found.sha256, found.target) == (8, labeled.sha256, Target())
    with pytest.raises(DataError, match="was imported with intensity in"):
        load_other(labeled.path, DIMS, data, sims)
    with collected() as notes:
        whole = load_other(labeled.path, DIMS, data, sims, require_labels=False)
    assert not whole.labeled
    assert "(its labels are not read)" in notes[0]
    with pytest.raises(DataError, match="'text' has 6 features per step, training has 300"):
        load_other(labeled.path, {**DIMS, "text": 300}, data, mosi, require_labels=False)
    bare = [row._replace(split="pool", utterance=replace(row.utterance, label=None)) for row in rows[:4]]
    pool = write_store(tmp_path / "pool", bare)
    with pytest.raises(DataError, match="no utterance has a label; scoring needs labels"):
        load_other(pool.path, DIMS, data, mosi)
    with collected() as notes:
        other = load_other(pool.path, {"text": None, "vision": 5, "pose": 3}, data, mosi, require_labels=False)
    assert other.utterances[0].lengths == {"text": 3, "vision": 4, "pose": 0}
    assert other.utterances[0].features["pose"].shape == (0, 3)
    assert [note.partition(": ")[2] for note in notes] == [
        "'audio' is not used; the run was not trained with it",
        "has no pose: missing from all utterances; the run was trained with it",
    ]
    with pytest.raises(DataError, match="has none of the modalities"):
        load_other(pool.path, {"pose": 3}, data, mosi, require_labels=False)


# --- other files that claim more than they hold ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "shape", "extra"),
    [
        ([0, 400], [100], 0),
        ([0, 1 << 40], [1 << 38], 0),
        ([-8, 8], [4], 0),
        ([16, 8], [2], 0),
        ([0, 16], [400], 0),
        ([4, 16], [3], 0),
        ([0, 16], [4], 1 << 60),
    ],
)
def test_weights_with_offsets_past_the_end_are_refused(
    tmp_path: Path, offsets: list[int], shape: list[int], extra: int
) -> None:
    head = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(head) + extra) + head + bytes(16))
    with pytest.raises(RunError, match=r"is damaged"):
        load_weights(path)
