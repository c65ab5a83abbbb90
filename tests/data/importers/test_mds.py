"""Shards of MosaicML Streaming: those of its own writer, and ones that are damaged or hostile."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig
from gmsa.data import Store, load_corpus
from gmsa.data.__main__ import main
from gmsa.data.importers import form_of, open_source
from gmsa.data.notes import collected
from gmsa.errors import DataError

INDEX = (
    "c-mD^+m3@E5d9UyvuRrEx`tob7&8`H$#OA(yW1N7y$oQ&@-WwP&J42=H-lx4(CTX=HzQZ2N3L&%3H^vwq8V5VPkNUI{G}sxMVz<jV&&RkxO~"
    "f^ktsz;GnO{>l?<VtM`=(zje(U3gABpYN|<<*)W&o47Jf(1|2)Qr{}E0YUFtdUN_u*gvaXVCkD#<on`mmW+(j9hJLGPx0v~ds!ev5X1~(_!A"
    "#cLKL&!HWf#diIM8{K}&iGE5IX!(Oe)LVLv+X-x3)CWGj!j&BltKxd+<jioec!eCNpACch<b_T7>?WS!+*s726j%6%m"
)
SHARD = (
    "c-nnX+e!m55S^`6`zC@Pu!KGqX}6`8McPHw7e7JE8oOH?%qAt-)*HfpgueSBf`ZTflQYd07Ac0DIg`xHIUzLwxbgsg5a%_3XExDtk*PRU6P*"
    "ZkYgy=DGL>*+_+vPgn&+K9Yx&IPhG=!u4Je)8$x5Ldsia}q8wRZ|8{>UxrFfP)8@@<{rU{Wyl>8=LNh+PE#D?F;dHRr3zUHN{LaVBt6;Do2E"
    "u?JuF80<*H3mI5md#CSS2AH)VN-1~p5vKii6x&Iw=*Y8GvpCVkqK()A9dP;LBB_@NlmE}yzJrMZX@;)4a5QQ7Jf1uLj)&q3TMk^+-w6BpGEy"
    "`2izLJUU>Y_YCrk@kdigLdRZ7^BjRi5j>QN=gd0&H-lN?=hD~CR41tU~$p0DDHW{IbkBAW0BYNp3^Ix`YiPZ"
)
"""What MDSWriter 0.13 wrote of two utterances, one without audio, with a column of pickles."""


def write_real(folder: Path) -> Path:
    folder.mkdir()
    (folder / "index.json").write_bytes(zlib.decompress(base64.b85decode(INDEX)))
    (folder / "shard.00000.mds").write_bytes(zlib.decompress(base64.b85decode(SHARD)))
    return folder


def test_what_the_library_wrote(tmp_path: Path) -> None:
    folder = write_real(tmp_path / "real")
    assert form_of(folder) == "mds"
    with collected() as notes:
        source = open_source(folder)
        first, second = (row.utterance for row in source.rows)
    assert any("the columns 'note' are not used" in note for note in notes)
    assert source.dtypes == {"text": "float32", "audio": "float16", "vision": "float32"}
    assert (first.id, first.label, first.text) == ("v$_$0", -1.0, "so düll")
    assert (second.id, second.label) == ("v$_$1", -0.5)
    assert first.features["text"].tolist() == (torch.arange(4).view(1, 4) / 8).tolist()
    assert second.features["text"].tolist() == (torch.arange(8).view(2, 4) / 8).tolist()
    assert first.features["audio"].tolist() == torch.arange(6.0).view(3, 2).tolist()
    assert second.features["audio"].shape == (0, 2)
    assert second.features["vision"].tolist() == (torch.arange(6.0).view(2, 3) - 1).tolist()


def array(values: np.ndarray) -> bytes:
    """An ``ndarray`` of any type and shape."""
    numbers = {"float16": 18, "float32": 34, "float64": 66, "int64": 65}
    return bytes([numbers[values.dtype.name], values.ndim << 2, *values.shape]) + values.tobytes()


COLUMNS = {"id": "str", "text": "ndarray", "audio": "ndarray:float64", "label": "float64", "video": "str"}


def write_mds(folder: Path, split: str, ids: list[str], change: Callable[[dict[str, Any]], Any] | None = None) -> None:
    """Two samples to a shard; the label is the number of the sample over ten."""
    place = folder / split
    place.mkdir(parents=True)
    shards = []
    for first in range(0, len(ids), 2):
        samples = []
        for number in range(first, min(first + 2, len(ids))):
            wide = np.full((1 + number, 2), number + 1.0)
            cells = [ids[number].encode(), array(np.float32(wide)), array(wide)[1:], np.float64(number / 10).tobytes()]
            cells.append(b"talk")
            lengths = [len(cell) for cell, size in zip(cells, (None, None, None, 8, None), strict=True) if size is None]
            samples.append(np.uint32(lengths).tobytes() + b"".join(cells))
        begin = 4 * (len(samples) + 2)
        bounds = np.uint32(np.cumsum([begin, *map(len, samples)]))
        name = f"shard.{first // 2:05}.mds"
        (place / name).write_bytes(np.uint32([len(samples)]).tobytes() + bounds.tobytes() + b"".join(samples))
        shard = {"format": "mds", "version": 2, "samples": len(samples), "zip_data": None}
        shard |= {"column_names": [*COLUMNS], "column_encodings": [*COLUMNS.values()]}
        shard |= {"column_sizes": [None, None, None, 8, None], "raw_data": {"basename": name, "bytes": 0, "hashes": {}}}
        shards.append(shard)
    index = {"version": 2, "shards": shards}
    if change is not None:
        change(index)
    (place / "index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        write_mds(tmp_path / "mds", split, [f"{split}{i}" for i in range(count)])
    return tmp_path / "mds"


def test_splits_of_several_shards(folder: Path, tmp_path: Path) -> None:
    main(["import", str(folder), "--out", str(tmp_path / "store")])
    store = Store(tmp_path / "store")
    corpus = load_corpus(DataConfig(path=str(folder)))
    for name, expected in {"train": 5, "valid": 3, "test": 2}.items():
        there = store.split(name)
        assert [u.label for u in there] == [i / 10 for i in range(expected)]
        assert there[0].video == "talk"
        for i, (ours, read) in enumerate(zip(there, corpus.splits[name], strict=True)):
            for u in (ours, read):
                assert u.features["text"].tolist() == u.features["audio"].tolist() == [[i + 1.0] * 2] * (i + 1)
    assert store.manifest.source["importer"] == "mds"
    assert store.manifest.source["arrays"]["count"] == 6


def test_the_sha256_is_that_of_all_shards(folder: Path) -> None:
    before = load_corpus(DataConfig(path=str(folder))).sha256
    path = folder / "val" / "shard.00001.mds"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1  # a character of a name
    path.write_bytes(raw)
    assert load_corpus(DataConfig(path=str(folder))).sha256 != before


def test_the_users_splits(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("video,split\ntalk,all\n")
    assert {row.split for row in open_source(folder, splits=tmp_path / "splits.csv").rows} == {"all"}


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no shards": lambda index: index.update(shards=[]),
    "shards of text": lambda index: index.update(shards="all"),
    "another format": lambda index: index["shards"][0].update(format="csv"),
    "another version": lambda index: index["shards"][0].update(version=1),
    "fewer encodings": lambda index: index["shards"][0]["column_encodings"].pop(),
    "a column twice": lambda index: index["shards"][0].update(column_names=["id"] * 5),
    "a negative size": lambda index: index["shards"][0].update(column_sizes=[-1] * 5),
    "a large size": lambda index: index["shards"][0].update(column_sizes=[1 << 40] * 5),
    "another size": lambda index: index["shards"][0].update(column_sizes=[1, None, None, 8, None]),
    "no file": lambda index: index["shards"][0].update(raw_data=None),
    "a file elsewhere": lambda index: index["shards"][0]["raw_data"].update(basename="../val/shard.00000.mds"),
    "a file of the system": lambda index: index["shards"][0]["raw_data"].update(basename="/etc/passwd"),
    "a file that is not there": lambda index: index["shards"][0]["raw_data"].update(basename="shard.9.mds"),
    "another count": lambda index: index["shards"][0].update(samples=3),
    "a count of truth": lambda index: index["shards"][0].update(samples=True),
    "another type": lambda index: index["shards"][0].update(column_encodings=["ndarray", *["str"] * 4]),
    "a type that is none": lambda index: index["shards"][0]["column_encodings"].__setitem__(2, "ndarray:object"),
    "another shape": lambda index: index["shards"][0]["column_encodings"].__setitem__(2, "ndarray:float64:5,5"),
    "a large shape": lambda index: index["shards"][0]["column_encodings"].__setitem__(2, f"ndarray:float64:{1 << 40}"),
    "pickles for features": lambda index: [
        s.update(column_encodings=["str", "pkl", "pkl", "float64", "str"]) for s in index["shards"]
    ],
}


@pytest.mark.parametrize("case", WRONG)
def test_indices_that_are_refused(tmp_path: Path, case: str) -> None:
    write_mds(tmp_path / "mds", "train", ["a", "b", "c"], WRONG[case])
    with pytest.raises(DataError) as caught:
        list(open_source(tmp_path / "mds", "mds").rows)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_compressed_shards_are_refused(folder: Path) -> None:
    place = folder / "train"
    index = json.loads((place / "index.json").read_text())
    index["shards"][0]["zip_data"] = {"basename": "shard.00000.mds.zstd"}
    (place / "index.json").write_text(json.dumps(index))
    os.rename(place / "shard.00000.mds", place / "shard.00000.mds.zstd")
    with pytest.raises(DataError, match=r"'shard.00000.mds' is compressed; write it with"):
        open_source(folder)


def test_any_change_is_read_or_refused(folder: Path) -> None:
    path = folder / "train" / "shard.00000.mds"
    before, rng = path.read_bytes(), np.random.default_rng(0)
    for size in range(0, len(before), 23):
        path.write_bytes(before[:size])
        with pytest.raises(DataError):
            open_source(folder)
    for _ in range(60):
        raw = bytearray(before)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[place] = rng.integers(0, 256)
        path.write_bytes(raw)
        with suppress(DataError), collected():
            list(open_source(folder).rows)


def test_folders_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no index.json, nor does a folder in it; name what MDSWriter wrote"):
        open_source(tmp_path / "none", "mds")
