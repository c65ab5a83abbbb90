"""What a file is: told by its bytes, with the line that makes it readable."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gmsa.data.importers.kinds import describe_file, kind_of, refuse_foreign
from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError


def zipped(*names: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return raw.getvalue()


def saved(write: Callable[..., None], *values: object) -> bytes:
    raw = io.BytesIO()
    write(raw, *values)
    return raw.getvalue()


FILES = {
    "a.pt": (zipped("archive/data.pkl", "archive/version"), "torch", "was saved by torch.save; re-save it"),
    "a.npz": (saved(np.savez, np.ones(3)), "npz", "is an .npz archive; name its arrays in a table as FILE.npz#MEMBER"),
    "a.npy": (saved(np.save, np.ones(3)), "npy", "is one .npy array; name it in a table"),
    "a.zip": (zipped("train.pkl"), "zip", "is a zip archive; unpack it first"),
    "cut.zip": (zipped("train.pkl")[:20], "zip", "is a zip archive; unpack it first"),
    "a.xlsx": (
        zipped("[Content_Types].xml", "xl/workbook.xml"),
        "excel",
        "is an Excel workbook; save the table as CSV",
    ),
    "a.gz": (gzip.compress(b"x"), "gzip", "is gzip-compressed; unpack it first: gunzip -k 'a.gz'"),
    "a.mp4": (b"\0\0\0\x20ftypisom" + bytes(99), "media", "is a video (MP4, MOV or such); gmsa reads features"),
    "a.mov": (b"\0\0\0\x14ftypqt  " + bytes(99), "media", "extract them first (MMSA-FET"),
    "old.mov": (b"\0\0\0\x08wide\0\0\0\0mdat", "media", "is a video"),
    "a.mkv": (b"\x1a\x45\xdf\xa3" + bytes(99), "media", "is a video (Matroska or WebM)"),
    "a.avi": (b"RIFF\0\0\0\0AVI LIST", "media", "is a video (AVI)"),
    "a.wav": (b"RIFF\0\0\0\0WAVEfmt ", "media", "is a recording (WAV)"),
    "a.mp3": (b"ID3\x04" + bytes(99), "media", "is a recording (MP3)"),
    "bare.mp3": (b"\xff\xfb\x90\x00" + bytes(99), "media", "is a recording (MP3)"),
    "a.jpg": (b"\xff\xd8\xff\xe0" + bytes(99), "media", "is a JPEG image"),
    "a.png": (b"\x89PNG\r\n\x1a\n" + bytes(99), "media", "is a PNG image"),
    "label.json": (json.dumps({"a": 1}).encode(), "json", "is JSON; if it is a table with an 'id'"),
    "rows.json": (json.dumps([{"id": "a"}], indent=1).encode(), "json", "data import 'rows.json' --out 'rows'"),
    "rows.jsonl": (b'{"id": "a"}\n{"id": "b"}\n', "json", "is JSON"),
    "a.csv": (b"id,label\na,1\n", "table", "is a table: python -m gmsa.data import 'a.csv' --out 'a'"),
    "a.tsv": (b"id\tlabel\na\t1\n", "table", "is a table"),
    "excel.csv": ("\ufeffid;label\r\na;1\r\n".encode("utf-16-le"), "table", "is a table"),
    "sep.csv": (b"sep=;\r\nid;label\r\n", "table", "is a table"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "hdf5", "is an HDF5 file; for a .csd of the CMU SDK"),
    "a.parquet": (b"PAR1" + bytes(99), "parquet", "is a Parquet file"),
    "a.safetensors": ((40).to_bytes(8, "little") + b'{"x":{}}', "safetensors", "holds weights or tensors"),
    "a.html": (b"\n<!DOCTYPE html>", "html", "is a web page or XML"),
    "lfs.pkl": (b"version https://git-lfs.github.com/spec/v1\noid", "lfs", "is a Git LFS pointer"),
    "a.pdf": (b"%PDF-1.7", "pdf", "is a PDF document"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("renamed", [False, True])
def test_a_file_is_told_by_its_bytes(name: str, renamed: bool) -> None:
    raw, kind, said = FILES[name]
    path = Path("renamed.pkl") if renamed else Path(name)
    path.write_bytes(raw)
    found = kind_of(path)
    assert found is not None
    assert found.name == kind
    text = describe_file(path)
    assert text is not None
    assert (said.partition("'")[0] if renamed else said) in text
    with pytest.raises(DataError) as caught:
        refuse_foreign(path, str(path))
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [{"train": {"id": ["a,b"]}}, [1, 2], {}, {"a,b": "c,d"}, ["{"], (1, (2, 3))])
def test_a_pickle_is_never_taken_for_something_else(protocol: int, value: object) -> None:
    Path("a.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    assert describe_file(Path("a.pkl")) is None


@pytest.mark.parametrize("raw", [b"", b"\0", b"hello", os.urandom(64).replace(b"<", b"x")[:0] + b"\x07\x08\x09"])
def test_unknown_files_have_no_description(raw: bytes) -> None:
    Path("a.bin").write_bytes(raw)
    assert describe_file(Path("a.bin")) is None


def test_the_line_that_re_saves_what_torch_saved() -> None:
    torch.save({"train": {"id": ["a"], "text": torch.ones(1, 2, 3)}}, "own.pt")
    text = describe_file(Path("own.pt"))
    assert text is not None
    code = re.search(r'python -c "(.*)"', text)
    assert code is not None
    exec(code[1], {})
    content = load_pickle("own.pkl")
    np.testing.assert_array_equal(content["train"]["text"], np.ones((1, 2, 3)))


def test_messages_stay_short_for_long_and_odd_paths() -> None:
    for name in ("x" * 200, "it's", "a\nb"):
        path = Path(f"{name}.pt")
        path.write_bytes(FILES["a.pt"][0])
        text = describe_file(path)
        assert text is not None
        assert "'FILE'" in text
        assert "NEW.pkl" in text
        assert len(text) + 122 <= 400
