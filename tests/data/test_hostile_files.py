"""Paths, rights and sizes: whatever stands in the place of a data file gives one line, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import socket
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Row, Store, Utterance, data_sha256, load_corpus, read_mmsa, write_store
from gmsa.data.__main__ import main
from gmsa.data.checks import examine
from gmsa.data.importers import open_source
from gmsa.data.loading import load_other
from gmsa.errors import DataError, GmsaError
from gmsa.system.cli import one_line

DIMS = {"text": 4, "audio": 3, "vision": 2}


def refused(read: Callable[..., Any], *arguments: Any, kind: type[GmsaError] = DataError, **options: Any) -> str:
    """What is said where something is read or written."""
    with pytest.raises(kind) as caught:
        read(*arguments, **options)
    message = str(caught.value)
    shown = one_line(message)  # as the commands print it
    assert "\n" not in message
    assert len(shown) <= 400, shown
    assert shown.isprintable(), ascii(shown)
    return shown


# --- in the place of a file --------------------------------------------------------------------------------------


def a_pool(path: str) -> None:
    load_corpus(DataConfig(path="good.pkl", pool=path))


READERS: dict[str, Callable[[str], Any]] = {
    "data.path": lambda path: load_corpus(DataConfig(path=path)),
    "data.pool": a_pool,
    "predict": lambda path: load_other(path, DIMS, DataConfig(), TargetConfig(), require_labels=False),
    "evaluate": lambda path: load_other(path, DIMS, DataConfig(), TargetConfig()),
    "read_mmsa": read_mmsa,
    "sha256": data_sha256,
    "store": Store,
    "info": lambda path: examine.overview(Path(path)),
    "check": lambda path: examine.examine(Path(path)),
    "import": lambda path: open_source(Path(path)),
    "import a table": lambda path: open_source(Path(path), "manifest"),
    "import folders": lambda path: open_source(Path(path), "semi_iin"),
    "splits": lambda path: open_source(Path("good.pkl"), splits=Path(path)),
}


def in_store(make: Callable[[str], object]) -> None:
    os.mkdir("store")
    make("store/manifest.json")


def a_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


PLACES: dict[str, tuple[str, Callable[[], object]]] = {
    "nothing": ("none.pkl", lambda: None),
    "a pipe": ("pipe", lambda: os.mkfifo("pipe")),
    "a device": ("/dev/zero", lambda: None),
    "a device in a store": ("store", lambda: in_store(lambda path: os.symlink("/dev/zero", path))),
    "a pipe in a store": ("store", lambda: in_store(os.mkfifo)),
    "a socket": ("socket", lambda: a_socket("socket")),
    "an empty folder": ("folder", lambda: os.mkdir("folder")),
    "an empty file": ("empty.pkl", lambda: Path("empty.pkl").touch()),
    "a name of 300 characters": ("x" * 300, lambda: None),
    "a path of 10,000 characters": ("x/" * 5000 + "x", lambda: None),
    "a path with a null byte": ("a\0b", lambda: None),
    "a path that commands a terminal": ("\x1b]0;x\x07\x1b[2J\n.pkl", lambda: None),
    "half a character": ("\ud800.pkl", lambda: None),
    "a byte that is not UTF-8": ("\udcff.pkl", lambda: None),
    "a path below a file": ("good.pkl/data.pkl", lambda: None),
    "a link to nothing": ("link", lambda: os.symlink("nowhere", "link")),
    "a link to itself": ("loop", lambda: os.symlink("loop", "loop")),
    "a page": ("page.pkl", lambda: Path("page.pkl").write_text("<html>")),
    "bytes": ("bytes.pkl", lambda: Path("bytes.pkl").write_bytes(b"\x00\xff" * 3000)),
    "a line without end": ("long.csv", lambda: Path("long.csv").write_bytes(b"a" * (2 << 20))),
    "holes": ("holes.pkl", lambda: holes("holes.pkl")),
}


def holes(path: str, start: bytes = b"\x80\x04", size: int = 100 << 30) -> None:
    """A file of 100 GB that holds a page."""
    Path(path).write_bytes(start)
    try:
        os.truncate(path, size)
    except OSError:
        pytest.skip("the file system holds no such file")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mmsa_dict: dict[str, Any]) -> Path:
    """The working directory, with a good pickle."""
    monkeypatch.chdir(tmp_path)
    Path("good.pkl").write_bytes(pickle.dumps(mmsa_dict))
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reader", READERS)
def test_whatever_stands_there_is_one_line(here: Path, reader: str, place: str) -> None:
    path, make = PLACES[place]
    make()
    if (reader, place) in [("sha256", there) for there in ("an empty file", "a page", "bytes", "a line without end")]:
        assert len(READERS[reader](path)) == 64
    else:
        refused(READERS[reader], path)


def test_names_that_no_manifest_holds(here: Path) -> None:
    for name in ("bad\udcff.pkl", "bad\udcff.csv"):
        try:
            shutil.copy("good.pkl", name)
        except OSError:
            pytest.skip("the file system holds no such name")
        for read in (open_source, examine.examine, examine.overview):
            assert r"bad\udcff" in refused(read, Path(name))
    os.mkdir("folder")
    os.mkdir("folder/text")
    shutil.copy("good.pkl", "folder/train\udcff.csv")
    refused(open_source, Path("folder"))
    for out in ("bad\udcff", "\ud800", "a\0b", "x" * 300, "x/" * 5000 + "x"):
        refused(main, ["import", "good.pkl", "--out", out], kind=GmsaError)
    assert sorted(os.listdir()) == sorted(["bad\udcff.csv", "bad\udcff.pkl", "folder", "good.pkl"])


def test_a_long_name_of_a_store(here: Path) -> None:
    """The temporary folder of a store has a longer name than it."""
    main(["import", "good.pkl", "--out", "é" * 127])
    assert len(Store("é" * 127)) == 13


# --- without rights ----------------------------------------------------------------------------------------------


@contextmanager
def somebody() -> Iterator[None]:
    """As a user who owns nothing."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch, mmsa_dict: dict[str, Any]) -> Iterator[Path]:
    """A folder that everyone can enter, with data of every kind, as the working directory."""
    folder = Path(tempfile.mkdtemp())
    try:
        monkeypatch.chdir(folder)
        Path("good.pkl").write_bytes(pickle.dumps(mmsa_dict))
        write_store(
            "store", [Row(s, Utterance(s, {"text": torch.ones(2, 4)}, 1.0)) for s in ("train", "valid", "test")]
        )
        os.makedirs("m/text/a")
        np.save("m/text/a/0.npy", np.ones((2, 4)))
        Path("m/train.csv").write_text("name,val\na,1\n")
        Path("data.csv").write_text("id,split,label,text\na,train,1,m/text/a/0.npy\n")
        Path("splits.csv").write_text("id,split\na,train\n")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        yield folder
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


FORBIDDEN: list[tuple[str, list[str]]] = [
    ("good.pkl", ["info", "good.pkl"]),
    ("good.pkl", ["import", "good.pkl", "--out", "new"]),
    ("store", ["info", "store"]),
    ("store", ["check", "store"]),
    ("store/manifest.json", ["info", "store"]),
    ("store/text.npy", ["info", "store"]),
    ("store/ids.npy", ["check", "store"]),
    ("m", ["import", "m", "--out", "new"]),
    ("m", ["import", "data.csv", "--out", "new"]),
    ("m/text", ["import", "m", "--out", "new"]),
    ("m/text/a", ["import", "m", "--out", "new"]),
    ("m/text/a/0.npy", ["import", "m", "--out", "new"]),
    ("m/text", ["import", "data.csv", "--out", "new"]),
    ("m/train.csv", ["import", "m", "--out", "new"]),
    ("data.csv", ["import", "data.csv", "--out", "new"]),
    ("splits.csv", ["import", "data.csv", "--out", "new", "--splits", "splits.csv"]),
]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX")
@pytest.mark.parametrize(("path", "arguments"), FORBIDDEN)
def test_without_the_right_to_read(open_folder: Path, path: str, arguments: list[str]) -> None:
    open_folder.chmod(0o777)
    os.chmod(path, 0)
    before = sorted(os.listdir())
    with somebody():
        message = refused(main, arguments)
    assert "Permission denied" in message
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX")
def test_without_the_right_to_read_there_is_no_other_corpus(open_folder: Path) -> None:
    """A file that is there is not replaced by the synthetic corpus."""
    os.chmod("m", 0)
    with somebody():
        refused(load_corpus, DataConfig(path="m/data.pkl", if_missing="synthetic"))


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX")
@pytest.mark.parametrize("out", ["new", "new/deep/er", "m/new", "/proc/new", "store/text.npy/new"])
def test_without_the_right_to_write_nothing_is_read(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("read first")

    monkeypatch.setattr("gmsa.data.importers.open_source", read)
    os.chmod(".", 0o555)
    with somebody():
        message = refused(main, ["import", "good.pkl", "--out", out], kind=GmsaError)
    assert message.startswith("cannot write")


def test_a_disk_that_fails(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk while an array is read."""

    class Failing(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError(5, "Input/output error")

        def fileno(self) -> int:
            return handle

    np.save("a.npy", np.ones((2, 3)))
    Path("data.csv").write_text("id,split,label,audio\na,train,1,a.npy\n")
    handle = os.open("a.npy", os.O_RDONLY)
    monkeypatch.setattr("gmsa.data.importers.arrays.open_data", lambda *_, **__: Failing())
    try:
        assert "cannot be read: Input/output error" in refused(open_source, Path("data.csv"))
    finally:
        os.close(handle)


# --- tables and arrays that grow in memory -----------------------------------------------------------------------


def table(text: bytes) -> None:
    Path("data.csv").write_bytes(text)


HEAD = b"id,split,label,text,raw_text\n"


def row(identity: bytes = b"a", split: bytes = b"train", label: bytes = b"1", path: bytes = b"a.npy") -> None:
    table(HEAD + b",".join([identity, split, label, path, b"\n"]))


TABLES: dict[str, tuple[Callable[[], object], str]] = {
    "a hundred gigabytes of holes": (lambda: holes("data.csv", HEAD), "but is almost empty on disk"),
    "a line of holes": (lambda: holes("data.csv", HEAD, 1 << 26), "a line has more than 1,048,576 characters"),
    "a header of holes": (lambda: holes("data.csv", b"id", 1 << 26), "a line has more than 1,048,576 characters"),
    "a field without end": (lambda: table(HEAD + b"a" * 200_000), "row 2: field larger than field limit (131072)"),
    "a quoted field without end": (lambda: table(HEAD + b'"' + b"a\n" * 200_000), "field larger than field limit"),
    "a row without end": (lambda: table(HEAD + b"a," * 400_000 + b"\n"), "row 2 has 400001 values for 5 columns"),
    "columns without end": (lambda: table(b"a," * 5000 + b"\n"), "has 5,001 columns; at most 1,000 are read"),
    "an id of a hundred kilobytes": (lambda: row(b"x" * 100_000), "an id of 100,000 bytes"),
    "a split of a hundred kilobytes": (lambda: row(split=b"x" * 100_000), "a split of 100,000"),
    "a label of a hundred kilobytes": (lambda: row(label=b"1" * 100_000), "not a number"),
    "a path of a hundred kilobytes": (lambda: row(path=b"x" * 100_000 + b".npy"), "File name too long"),
    "a path with a null byte": (lambda: row(path=b"a\0.npy"), r"'a\x00.npy' may leave the folder"),
    "splits without end": (
        lambda: table(HEAD + b"".join(b"a%d,s%d,1,a.npy,\n" % (i, i) for i in range(5000))),
        "has 101 splits (s0, s1, s2,",
    ),
    "an id with half a character": (lambda: row(b"\xed\xa0\x80"), "row 2 is not UTF-8"),
    "an id that commands a terminal": (
        lambda: table(HEAD + b"\x1b[2J,train,1,a.npy,\n" * 2),
        r"duplicate id '\x1b[2J' in split 'train'",
    ),
    "a column that commands a terminal": (lambda: table(b"id,\x1b[2J,\x1b[2J\n"), r"duplicate column '\x1b[2J'"),
}


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="needs files with holes")
@pytest.mark.parametrize("case", TABLES)
def test_tables(here: Path, case: str) -> None:
    np.save("a.npy", np.ones((2, 4), np.float32))
    TABLES[case][0]()
    message = refused(import_table)
    assert TABLES[case][1] in message
    assert sorted(os.listdir()) == ["a.npy", "data.csv", "good.pkl"]


def import_table() -> None:
    source = open_source(Path("data.csv"))
    write_store("new", source.rows, source.dtypes, "mosi", source.about, "data.csv")


def npy(shape: str, content: bytes = b"", kind: str = "<f4", version: int = 1, length: int | None = None) -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(200) + b"\n"
    sizes = struct.pack("<H" if version == 1 else "<I", len(head) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + sizes + head + content


ARRAYS: dict[str, tuple[bytes, str]] = {
    "a terabyte": (npy("(274877906944, 1)"), "has shape"),
    "a gigabyte": (npy("(268435456, 1)"), "but its header says"),
    "more than there are numbers": (npy(f"({2**62}, {2**62})"), "has shape"),
    "no steps of many features": (npy(f"(0, {2**62})"), "has shape"),
    "no features of many steps": (npy(f"({2**62}, 0)"), "has shape"),
    "many axes": (npy("(" + "1, " * 40 + ")", bytes(4)), "has 40 axes"),
    "a negative axis": (npy("(-1, 4)"), "has shape (-1, 4)"),
    "a truth value for an axis": (npy("(True, 4)", bytes(16)), "has shape"),
    "an axis of a thousand digits": (npy("(1" + "0" * 150 + ", 0)"), "has shape"),
    "a header of four gigabytes": (npy("(1, 4)", bytes(16), version=2, length=2**32 - 1), "is not a .npy array"),
    "numbers of another kind": (npy("(1, 4)", bytes(64), kind="<c16"), "is of type complex128"),
    "text of two gigabytes": (npy("(1, 1)", kind="<U500000000"), "is of type <U500000000"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(here: Path, case: str) -> None:
    raw, words = ARRAYS[case]
    Path("a.npy").write_bytes(raw)
    Path("data.csv").write_text("id,split,label,text\na,train,1,a.npy\n")
    assert words in refused(import_table)
    with zipfile.ZipFile("a.npz", "w") as file:
        file.writestr("x.npy", raw)
    Path("data.csv").write_text("id,split,label,text\na,train,1,a.npz#x\n")
    assert words in refused(import_table)


def test_archives_that_grow(here: Path) -> None:
    Path("data.csv").write_text("id,split,label,text\na,train,1,a.npz#x\n")
    raw = npy("(8388608, 1)", bytes(1 << 25))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile("a.npz", "w", method) as file:
            file.writestr("x.npy", raw)
        assert "more than features do" in refused(import_table)
    holes("a.npz", b"PK\x03\x04")
    assert "but is almost empty on disk" in refused(import_table)
    with zipfile.ZipFile("a.npz", "w") as file:
        for i in range(300):
            file.writestr("\x1b[2J" + "x" * 2000 + f"{i}.npy", b"")
    assert "0 members match" in refused(import_table)


def test_a_message_in_the_terminal(here: Path, mmsa_dict: dict[str, Any]) -> None:
    """The longest parts together: a long path, a long split, and a long id."""
    content = {"\x1b[2J" * 40: {**mmsa_dict["train"], "regression_labels": [9.0] * 6, "id": ["i\x07" * 400] * 6}}
    folder = here / ("folder" * 40)
    folder.mkdir()
    path = folder / ("file" * 60)
    path.write_bytes(pickle.dumps(content))
    message = refused(read_mmsa, path, splits=None)
    assert one_line(message) == message
    assert "…" in message
