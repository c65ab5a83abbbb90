"""Importers: what MMSA, Semi-IIN and a plain table hold reaches the store, and what is hostile does not."""

from __future__ import annotations

import csv
import io
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import TargetConfig
from gmsa.data import Row, Store, Utterance, read_mmsa, write_store
from gmsa.data.__main__ import main
from gmsa.data.importers import Source, Splits, open_source
from gmsa.data.notes import collected
from gmsa.data.store.rows import read_rows
from gmsa.errors import ConfigError, DataError
from gmsa.registry import IMPORTERS

DIMS = {"text": 4, "audio": 3, "vision": 2}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a canary cannot hide


def imported(source: Path, out: str = "store", labels: str = "mosi", **options: Any) -> Store:
    found = open_source(source, target=labels, **options)
    return write_store(Path(out), found.rows, found.dtypes, labels, found.about, str(source))


def refused(source: Path, *said: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        imported(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message
    assert not Path("store").exists()
    assert not list(Path().glob(".store.*"))
    assert not Path("canary").exists()


class Hostile:
    """Pickles to a call of ``os.system``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def write_csv(path: str, header: str, *rows: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return Path(path)


def save(path: str, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return values


# --- MMSA's pickles --------------------------------------------------------------------------------------------------


def test_a_store_of_a_pickle_reads_as_the_pickle(write_mmsa: Callable[..., Path]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["train"]["text"] = content["train"]["text"].astype(np.float16)
        content["valid"]["text"] = content["valid"]["text"].astype(np.float16)
        content["test"]["text"] = list(content["test"]["text"].astype(np.float16))
        content["test"]["audio"][0, 0, 0] = -np.inf
        content["test"]["regression_labels"] = np.linspace(-3, 3, 12)  # float64
        content["train"]["regression_labels_T"] = content["train"]["regression_labels"] / 2
        content["train"]["annotations"] = ["Negative", b"Neutral", "Positive", "?"] * 6

    path = write_mmsa(change=change)
    store = imported(path)
    assert {m: s.dtype for m, s in store.manifest.modalities.items()} == {
        "text": "float16",
        "audio": "float32",
        "vision": "float32",
    }
    for name, utterances in read_mmsa(path).items():
        for ours, theirs in zip(store.split(name), utterances, strict=True):
            assert (ours.id, ours.label, ours.text, ours.lengths) == (
                theirs.id,
                theirs.label,
                theirs.text,
                theirs.lengths,
            )
            assert dict(ours.unimodal) == dict(theirs.unimodal)
            assert all(torch.equal(ours.features[m], theirs.features[m]) for m in DIMS)
    assert store.annotations is not None
    assert store.annotations[:5].tolist() == [-1, 0, 1, -128, -1]
    assert [file["name"] for file in store.manifest.source["files"]] == ["tiny.pkl"]


@pytest.mark.parametrize("name", ["mmmo.pkl", "mosi_dev.pkl"])
def test_real_pickles(real_data: Callable[[str], Path], name: str) -> None:
    path = real_data(name)
    store = imported(path)
    assert store.manifest.modalities["text"].dtype == "float16"
    for split, utterances in read_mmsa(path).items():
        for ours, theirs in zip(store.split(split), utterances, strict=True):
            assert (ours.id, ours.label, ours.text, ours.lengths) == (
                theirs.id,
                theirs.label,
                theirs.text,
                theirs.lengths,
            )
            assert all(torch.equal(ours.features[m], theirs.features[m]) for m in theirs.features)


def test_splits_without_labels_empty_ones_and_a_flat_file(write_mmsa: Callable[..., Path]) -> None:
    """MMSA-FET leaves empty arrays where a split has no clips; unlabeled utterances may stand in a split of theirs."""

    def change(content: dict[str, Any]) -> None:
        content["test"] = {key: np.array([]) for key in content["test"]}
        content["pool"] = {k: v for k, v in content["valid"].items() if k != "regression_labels"}
        content["pool"]["id"] = [f"p$_${i}" for i in range(12)]
        del content["pool"]["audio"], content["pool"]["audio_lengths"]

    store = imported(write_mmsa(change=change))
    assert {name: (s.stop - s.start, s.labeled) for name, s in store.manifest.splits.items()} == {
        "train": (24, 24),
        "valid": (12, 12),
        "pool": (12, 0),
    }
    pool = store.split("pool")
    assert pool[0].label is None
    assert pool[0].lengths["audio"] == 0
    with open("flat.pkl", "wb") as file:
        pickle.dump(pickle.loads(write_mmsa("other.pkl").read_bytes())["test"], file)
    assert list(imported(Path("flat.pkl"), "flat").manifest.splits) == ["all"]


def test_splits_of_a_file_of_ones_own(write_mmsa: Callable[..., Path]) -> None:
    path = write_mmsa()
    videos = {u.video for split in read_mmsa(path).values() for u in split}
    own = write_csv("own.csv", "video,split", *(f"{v},{'dev' if v[-1] == '0' else 'train'}" for v in sorted(videos)))
    store = imported(path, "moved", splits=own)
    assert {n: s.stop - s.start for n, s in store.manifest.splits.items()} == {"valid": 12, "train": 36}
    assert {u.video[-1] for u in store.split("valid")} == {"0"}
    write_csv("own.csv", "video,split", *(f"{v},train" for v in sorted(videos)[1:]))
    refused(path, "'own.csv' assigns no split to video 'test0'; add a row", splits=own)
    write_csv("own.csv", "id,split", "a,train", "a,test")
    refused(path, "own.csv: row 3: 'a' has no split or two splits; assign exactly one", splits=own)
    write_csv("own.csv", "id,part", "a,train")
    refused(path, "own.csv: has no column 'split'", splits=own)


def test_pickles_that_are_refused(write_mmsa: Callable[..., Path]) -> None:
    Path("bad.pkl").write_bytes(pickle.dumps({"train": Hostile()}))
    refused(Path("bad.pkl"), "bad.pkl: refused")
    Path("bad.pkl").write_bytes(pickle.dumps([1]))
    refused(Path("bad.pkl"), "bad.pkl: holds a list, not a dict of splits")
    Path("bad.pkl").write_bytes(pickle.dumps({"train": {"id": ["a"], "smell": [1]}}))
    refused(Path("bad.pkl"), "bad.pkl: has no features (its keys: id, smell); check data.modalities")
    refused(write_mmsa(), "is -2.8", "out of [-1, 1]", labels="sims")

    def twice(content: dict[str, Any]) -> None:
        content["test"]["id"][3] = "train0$_$0"

    refused(write_mmsa(change=twice), "duplicate id 'train0$_$0' in splits 'train' and 'test'")
    refused(Path("none.pkl"), "'none.pkl' does not exist")
    refused(write_mmsa(), "is a file, which --format semi_iin does not read", form="semi_iin")


# --- a plain table ---------------------------------------------------------------------------------------------------


@pytest.fixture
def table() -> Path:
    """A table of four utterances in a folder of its own: ``.npy``, ``.npz`` with one and with several members."""
    save("m/a/t0.npy", (3, 4), "float16")
    save("m/a/t1.npy", (4,), "float16")
    save("m/a/t2.npy", (1, 2, 4), "float16")
    np.savez("m/one.npz", only=np.arange(6, dtype=np.int16).reshape(2, 3))
    np.savez_compressed("m/two.npz", x=np.ones((1, 3)), y=np.full((5, 3), -np.inf))
    save("m/v.npy", (2, 2), "float64")
    return write_csv(
        "m/data.csv",
        "id,split,label,text,audio,vision,raw_text,annotation,label_audio",
        'v$_$2,test,-1.5,a/t0.npy,one.npz,v.npy,"so, bad",Negative,0.5',
        "v$_$1,train,,a/t1.npy,two.npz#x,,,,",
        "w$_$1,train,2,./a/t2.npy,,,naïve,Positive,",
        "v$_$0,dev,0,,two.npz#y.npy,v.npy,,,",
    )


def test_a_table(table: Path) -> None:
    store = imported(table)
    assert list(store.manifest.splits) == ["test", "train", "valid"]
    assert [u.id for u in store.utterances()] == ["v$_$2", "v$_$1", "w$_$1", "v$_$0"]
    assert [u.label for u in store.utterances()] == [-1.5, None, 2, 0]
    assert [u.text for u in store.utterances()] == ["so, bad", "", "naïve", ""]
    assert [dict(u.unimodal) for u in store.utterances()] == [{"audio": 0.5}, {}, {}, {}]
    assert [list(u.lengths.values()) for u in store.utterances()] == [[3, 2, 2], [1, 1, 0], [2, 0, 0], [0, 0, 2]]
    assert {m: s.dtype for m, s in store.manifest.modalities.items()} == {
        "text": "float16",
        "audio": "float32",
        "vision": "float32",
    }
    first = store.split("test")[0]
    np.testing.assert_array_equal(first.features["audio"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(first.features["text"], np.load("m/a/t0.npy"))
    np.testing.assert_array_equal(first.features["vision"], np.load("m/v.npy").astype(np.float32))
    assert store.manifest.source["arrays"]["count"] == 8
    assert store.annotations is not None
    assert store.annotations.tolist() == [-1, -128, 1, -128]


def test_the_same_table_gives_the_same_store(table: Path) -> None:
    first = imported(table, "first")
    for name in sorted(os.listdir("m/a"), reverse=True):  # the same files, laid down in another order
        raw = Path("m/a", name).read_bytes()
        os.unlink(f"m/a/{name}")
        Path("m/a", name).write_bytes(raw)
    assert imported(table, "second").sha256 == first.sha256
    values = np.load("m/v.npy")
    values[0, 0] += 1
    np.save("m/v.npy", values)
    assert imported(table, "third").sha256 != first.sha256


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.npy", "a/../../secret.npy", "/etc/x.npy", "C:\\x.npy", "a\\..\\x.npy", "../.npy", "link.npy"),
        *("out/t0.npy", "\\\\server\\x.npy", "~/x.npy", "$HOME/x.npy", "a\\..\\..\\secret.npy", "out\\t0.npy"),
    ],
)
def test_paths_that_lead_out_are_refused(table: Path, path: str) -> None:
    np.save("secret.npy", np.ones((1, 4)))
    os.symlink("../secret.npy", "m/link.npy")
    os.symlink("a", "m/out")
    write_csv("m/data.csv", "id,split,label,text", "a,train,1,a/t0.npy", f'b,train,1,"{path}"')
    said = "may leave the folder" if "link" not in path and "out" not in path else "through a symbolic link"
    refused(table, "m/data.csv: row 3: text", said)


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("who,split,label,text", "a,train,1,a/t0.npy", "has no column 'id' for the id of the utterance"),
        ("video,split,label,text", "a,train,1,a/t0.npy", "has no column 'id'"),
        ("id,split,label", "a,train,1", "no column holds paths of .npy or .npz files (its columns: id, split, label)"),
        ("id,split,label,text,text", "a,train,1,,", "duplicate column 'text'"),
        ("id,split,label,text", "a,train,1", "row 2 has 3 values for 4 columns"),
        (
            "id,split,label,text",
            "a,train,good,a/t0.npy",
            "the label of 'a' is 'good', not a number; for classes set target.kind=classes",
        ),
        ("id,split,label,text", "a,train,7,a/t0.npy", "the label of 'a' is 7, out of [-3, 3]"),
        ("id,split,label,text", "a,,1,a/t0.npy", "row 2: has no split"),
        ("id,split,label,text", ",train,1,a/t0.npy", "row 1 has an empty id"),
        ("id,split,label,text", "a,train,1,a/none.npy", "row 2: text: 'a/none.npy' does not exist under 'm'"),
        (
            "id,split,label,text",
            "a,train,1,a/t0.npy\nb,train,1,a",
            "row 3: text: 'a' is neither FILE.npy nor FILE.npz#",
        ),
        ("id,split,label,text", "a,train,1,so bad", "no column holds paths of .npy or .npz files"),
        ("id,split,label,text", "a,train,1,a/t0.npy#x", "is neither FILE.npy nor FILE.npz#MEMBER"),
        ("id,split,label,text", "a,train,1,two.npz", "2 members match, expected one (members: x, y); choose one as"),
        ("id,split,label,text", "a,train,1,two.npz#z", "0 members match, expected one (members: x, y)"),
        ("id,split,label,text", "a,train,1,", "no column holds paths of .npy or .npz files"),
        ("id,split,label,text", "", "holds no utterances"),
        ("id,split,label,text,audio", "a,train,1,a/t0.npy,a/t0.npy\nb,train,1,one.npz,", "has 3 features per step"),
        ("id,split,label,text", 'a,train,1,"a/t0.npy\n', "check its quotes and commas"),
        ("", "", "is empty; the first row must hold the column names"),
    ],
)
def test_rows_that_are_refused(table: Path, header: str, row: str, said: str) -> None:
    write_csv("m/data.csv", header, row)
    refused(table, "m/data.csv", said)


def test_tables_that_are_not_text(table: Path) -> None:
    table.write_bytes(b"id,split,label,text\n\xff\xfe,train,1,a/t0.npy\n")
    refused(table, "is not UTF-8")
    table.write_bytes(b"\xef\xbb\xbfid,split,label,text\r\na,train,1,a/t0.npy\r\n")
    assert len(imported(table)) == 1


# --- arrays that strangers made --------------------------------------------------------------------------------------


def head(descr: str, shape: str, version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


HOSTILE = {
    "objects": lambda: np.array([[Hostile()]], dtype=object),
    "records": lambda: np.zeros((2, 2), dtype=[("a", "f4")]),
    "text": lambda: np.array([["a", "b"]]),
    "complex": lambda: np.ones((2, 2), complex),
    "cube": lambda: np.ones((2, 2, 2)),
    "scalar": lambda: np.float32(3),
    "nan": lambda: np.array([[1, np.nan]]),
    "huge": lambda: np.array([[1, 1e300]]),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_arrays_that_are_refused(table: Path, name: str, packed: bool) -> None:
    array = HOSTILE[name]()
    if packed:
        np.savez("m/bad.npz", x=array, allow_pickle=True)
    else:
        np.save("m/bad.npy", array, allow_pickle=True)
    write_csv("m/data.csv", "id,split,label,text", f"a,train,1,bad.np{'z#x' if packed else 'y'}")
    said = {"objects": "holds Python objects, which are never unpickled", "nan": "holds NaN", "huge": "holds infinity"}
    refused(
        table, "m/data.csv: row 2: text", said.get(name, "numbers" if name != "cube" and name != "scalar" else "shape")
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"junk",
        b"\x93NUMPY\x09\x00",
        head("'<f4'", "(1, 4)")[:60],
        head("'<f4'", "(1, 4)") + bytes(15),
        head("'<f4'", "(1, 4)") + bytes(17),
        head("'<f4'", "(1099511627776, 4)") + bytes(16),
        head("'<f4'", "(4611686018427387904, 4)"),
        head("'<f4'", "(-1, -4)") + bytes(16),
        head("'<f4'", "(True, 4)") + bytes(16),
        head("'<f4'", "(1.0, 4)") + bytes(16),
        head("'<f4'", "4") + bytes(16),
        head("'|V2147483647'", "(1, 4)"),
        head("__import__('os').system('touch canary')", "(1, 4)") + bytes(16),
        head("[('a', '<f4', (1000000000,))]", "(1, 4)"),
        head("'<f4'", "(" * 50 + ")" * 50),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31),
        b"PK\x03\x04" + bytes(60),
    ],
)
def test_heads_that_are_refused(table: Path, raw: bytes) -> None:
    Path("m/bad.npy").write_bytes(raw)
    write_csv("m/data.csv", "id,split,label,text", "a,train,1,bad.npy")
    refused(table, "m/data.csv: row 2: text 'bad.npy': ", "save it")


def test_a_sparse_file_is_not_read(table: Path) -> None:
    size = 1 << 40
    Path("m/bad.npy").write_bytes(head("'<f4'", f"({size // 4}, 1)"))
    try:
        os.truncate("m/bad.npy", size + 128)
    except OSError:
        pytest.skip("the file system holds no sparse file of a terabyte")
    write_csv("m/data.csv", "id,split,label,text", "a,train,1,bad.npy")
    refused(table, f"claims {size + 128:,} bytes, but is almost empty on disk")
    os.unlink("m/bad.npy")


def archive(*members: tuple[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile("m/bad.npz", "w", method) as file:
        for name, raw in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            file.writestr(info, raw)


def npy(shape: tuple[int, ...] = (1, 4)) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(shape, np.float32))
    return stream.getvalue()


def test_archives_that_are_refused(table: Path) -> None:
    write_csv("m/data.csv", "id,split,label,text", "a,train,1,bad.npz#x")
    for name in ("../../canary", "/tmp/canary", "a/../../canary", "..\\canary", "C:\\canary"):
        archive(("x.npy", npy()), (name, b"out"))
        refused(table, "member", "may leave the archive")
    archive(("x.npy", npy()), mode=stat.S_IFLNK | 0o777)
    refused(table, "is a link or encrypted")
    archive(("x.npy", npy((1 << 24, 4))))
    assert Path("m/bad.npz").stat().st_size < 1 << 20
    refused(table, "more than features do")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(("x.npy", npy()), ("x.npy", npy()))
    refused(table, "2 members match, expected one")
    archive(("x.npy", npy()[:-4]))
    refused(table, "it is damaged, save it again")
    for cut in (10, 100, -30):
        archive(("x.npy", npy()))
        Path("m/bad.npz").write_bytes(Path("m/bad.npz").read_bytes()[:cut])
        refused(table, "is a damaged archive")
    archive(("x.npy", npy()), method=zipfile.ZIP_STORED)
    raw = bytearray(Path("m/bad.npz").read_bytes())
    raw[-200] ^= 1  # within the values: the checksum of the archive tells
    Path("m/bad.npz").write_bytes(raw)
    refused(table, "m/data.csv: row 2: text 'bad.npz#x'")


def test_an_archive_that_lies_about_a_size(table: Path) -> None:
    archive(("x.npy", npy((1 << 20, 4))), method=zipfile.ZIP_DEFLATED)
    raw = bytearray(Path("m/bad.npz").read_bytes())
    size = struct.pack("<I", len(npy((1 << 20, 4))))
    assert raw.count(size) == 2
    Path("m/bad.npz").write_bytes(raw.replace(size, struct.pack("<I", len(npy()))))
    write_csv("m/data.csv", "id,split,label,text", "a,train,1,bad.npz#x")
    refused(table, "m/data.csv: row 2: text 'bad.npz#x'")


# --- Semi-IIN's folders ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Path:
    """Arrays by name, vision as one file per frame for one of them, and a table per split."""
    for i, name in enumerate(("vid_1", "vid_2", "vid_10", "AMI_B_77")):
        save(f"s/text/{name}.npy", (i + 1, 4), seed=i)
        save(f"s/audio/{name}.npy", (2, 3), seed=i)
    save("s/visual/vid_1.npy", (1, 3, 2))
    for frame in (10, 2, 1):
        np.save(Path(save_folder("s/visual/vid_10"), f"frame_{frame}.npy"), np.full(2, frame, np.float32))
    os.unlink("s/audio/AMI_B_77.npy")
    write_csv("s/train_emo2_mosi.csv", "name,val,emo", "vid_10,0.5,3", "vid_1,-1,2")
    write_csv("s/test_emo2_mosi.csv", "name,val,emo", "vid_2,2.5,6")
    write_csv("s/valid_emo2_mosi.csv", "name,val,emo", "AMI_B_77,,")
    return Path("s")


def save_folder(path: str) -> str:
    Path(path).mkdir(parents=True, exist_ok=True)
    return path


def test_a_folder(folder: Path) -> None:
    store = imported(folder)
    assert [u.id for u in store.utterances()] == ["vid$_$10", "vid$_$1", "AMI_B$_$77", "vid$_$2"]
    assert list(store.manifest.splits) == ["train", "valid", "test"]
    assert [u.label for u in store.utterances()] == [0.5, -1, None, 2.5]
    assert [list(u.lengths.values()) for u in store.utterances()] == [[3, 2, 3], [1, 2, 3], [4, 0, 0], [2, 2, 0]]
    np.testing.assert_array_equal(store.utterances()[0].features["vision"], [[1, 1], [2, 2], [10, 10]])
    np.testing.assert_array_equal(store.utterances()[1].features["vision"], np.load("s/visual/vid_1.npy")[0])
    assert store.dims == DIMS
    assert len(store.manifest.source["files"]) == 3


def test_other_folders_of_arrays_are_modalities(folder: Path) -> None:
    save("s/EEG/vid_1.npy", (5, 6))
    Path("s/notes").mkdir()
    Path("s/notes/read.me").touch()
    store = imported(folder)
    assert store.dims == {**DIMS, "eeg": 6}
    assert [u.lengths["eeg"] for u in store.utterances()] == [0, 5, 0, 0]


def test_the_order_of_the_folder_does_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = imported(folder, "first")
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path), reverse=True))
    assert imported(folder, "second").sha256 == first.sha256
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path)))
    assert imported(folder, "third").sha256 == first.sha256


def test_one_table_for_all_splits(folder: Path) -> None:
    for path in folder.glob("*.csv"):
        path.unlink()
    os.rename("s/text/vid_2.npy", "s/text/vid$_$2.npy")
    write_csv(
        "s/label.csv",
        "video_id,clip_id,text,label,label_T,annotation,mode",
        'vid,1,"Well, yes",1,,Positive,train',
        "vid,2,NO,-1,,Negative,test",
        "vid,10,HM,0,,Neutral,valid",
    )
    store = imported(folder)
    assert [(u.id, u.text, u.label) for u in store.utterances()] == [
        ("vid$_$1", "Well, yes", 1),
        ("vid$_$2", "NO", -1),
        ("vid$_$10", "HM", 0),
    ]
    assert store.annotations is not None
    assert store.annotations.tolist() == [1, -1, 0]


def test_folders_that_are_refused(folder: Path) -> None:
    Path("outside.npy").write_bytes(Path("s/text/vid_2.npy").read_bytes())

    def with_row(row: str, *said: str) -> None:
        write_csv("s/test_emo2_mosi.csv", "name,val", row)
        refused(folder, "s/test_emo2_mosi.csv: row 2", *said)

    with_row("../../outside,1", "may leave the folder")
    with_row("/etc/passwd,1", "may leave the folder")
    with_row(",1", "may leave the folder")
    with_row("nobody,1", "'nobody' has no array in text, audio, vision; add it, or remove the row")
    Path("s/text/plain").touch()
    with_row("plain,1", "'plain' has no array in text, audio, vision")
    os.symlink("../../outside.npy", "s/text/linked.npy")
    with_row("linked,1", "goes through a symbolic link")
    os.unlink("s/test_emo2_mosi.csv")
    write_csv("s/labels.csv", "name,val", "vid_2,1")
    refused(folder, "s/labels.csv: names no split; rename it to train_")
    os.rename("s/labels.csv", "s/test.csv")
    os.symlink("visual", "s/video")
    refused(folder, "has both 'visual' and 'video'; keep one of them for vision")
    os.unlink("s/video")
    os.rename("s/visual", "moved")
    os.symlink("../moved", "s/visual")
    refused(folder, "'visual' goes through a symbolic link")
    for path in folder.glob("*.csv"):
        path.unlink()
    os.unlink("s/visual")
    refused(folder, "s: has no CSV of labels")
    refused(Path("moved"), "moved: has none of the folders text, audio, visual")


def test_tables_of_labels_that_are_links_are_refused(folder: Path) -> None:
    os.rename("s/test_emo2_mosi.csv", "outside.csv")
    os.symlink("../outside.csv", "s/test_emo2_mosi.csv")
    refused(folder, "'test_emo2_mosi.csv' goes through a symbolic link")


def test_reads_what_csv_writes(folder: Path) -> None:
    with open("s/test_emo2_mosi.csv", "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["name", "val"], ["vid_2", 1.25]])
    assert imported(folder).split("test")[0].label == 1.25


# --- importers of the user's own -------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[str]:
    """The name of a registered importer that reads lines ``ID SPLIT LABEL``, with 2 steps of text each."""

    def import_lines(path: Path, target: TargetConfig, splits: Splits | None) -> Source:
        scale = target.chosen_range[1]
        rows = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            name, split, label = line.split()
            split = splits.of(name, f"{path}: line {number}") if splits else split
            features = {"text": torch.full((2, 5), float(number))}
            rows.append(Row(split, Utterance(name, features, float(label) * scale)))
        return Source(rows, len(rows), {"text": "float16"}, {"importer": "lines", "files": []})

    IMPORTERS.register("lines", import_lines)
    yield "lines"
    del IMPORTERS._parts["lines"]


def test_an_importer_of_the_users_own(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.txt").write_text("a$_$1 train 1\nb$_$1 test -0.5\n")
    main(["import", "own.txt", "--format", lines, "--out", "own"])
    assert "importer lines" in capsys.readouterr().out
    store = Store("own")
    assert {name: store.split(name)[0].label for name in store.manifest.splits} == {"train": 3.0, "test": -1.5}
    assert store.manifest.modalities["text"].dtype == "float16"
    assert store.split("test")[0].features["text"].tolist() == [[2.0] * 5] * 2

    chosen = write_csv("splits.csv", "video,split", "a,test", "b,train")
    main(["import", "own.txt", "--format", lines, "--out", "moved", "--labels", "sims", "--splits", str(chosen)])
    moved = Store("moved")
    assert (moved.manifest.labels, moved.split("train")[0].id, moved.split("test")[0].label) == ("sims", "b$_$1", 1.0)


def test_an_importer_of_the_users_own_may_read_folders(lines: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(IsADirectoryError):  # the importer is called, and says so itself
        open_source(Path("folder"), lines)


def test_formats_are_the_registered_importers(lines: str) -> None:
    assert {"mmsa", "semi_iin", "manifest", lines} <= set(IMPORTERS)
    Path("own.txt").write_text("a$_$1 train 1\n")
    with pytest.raises(
        ConfigError, match=r"'--format' must be one of mmsa, .*, lines \(got 'line'\) \(did you mean 'l"
    ):
        open_source(Path("own.txt"), "line")


def test_an_importer_must_return_a_source() -> None:
    Path("own.txt").touch()
    IMPORTERS.register("wrong", lambda path, target, splits: [])
    try:
        with pytest.raises(DataError, match="the importer 'wrong' returned a list; it must return a Source"):
            open_source(Path("own.txt"), "wrong")
    finally:
        del IMPORTERS._parts["wrong"]


def test_numbers_in_a_table_read_as_places_are_said() -> None:
    table = write_csv("t/labels.csv", "id,split,class,text", "a,train,0,a.npy", "b,train,1,a.npy")
    np.save("t/a.npy", np.ones((2, 3), np.float32))
    for classes, labels, said in ((("joy", "sad"), [0.0, 1.0], 1), (("1", "none", "0"), [2.0, 0.0], 0)):
        with collected() as notes:
            found = rows_of(table, TargetConfig(kind="classes", classes=classes))
        assert [u.label for u in found["train"]] == labels
        assert len([text for text in notes if "the labels are numbers, read as places in" in text]) == said


def rows_of(table: Path, target: TargetConfig) -> Any:
    source = open_source(table, "auto", target)
    return read_rows(source.rows, source.dtypes, target, table.name)[0]
