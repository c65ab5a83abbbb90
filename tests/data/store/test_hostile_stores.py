"""Stores that a stranger made: what they hold is checked as a pickle's content is, before anything of it is used."""

from __future__ import annotations

import json
import math
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counts import Recorder, tell

from gmsa.config import DataConfig
from gmsa.data import Row, Store, Utterance, load_corpus, write_store
from gmsa.data.checks import examine
from gmsa.data.store.files import HEADER, header
from gmsa.errors import DataError
from gmsa.reports.data import markdown_check, markdown_overview

SPLITS = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of eight utterances, with everything that a store may have."""
    rows = []
    for i, split in enumerate(SPLITS):
        g = torch.Generator().manual_seed(i)
        features = {m: torch.randn(1 + (i + n) % 3, 3 + n, generator=g) for n, m in enumerate(("text", "audio"))}
        utterance = Utterance(f"v{i}$_${i}", features, i / 4 - 1, {"text": i / 8}, f"words {i} ü")
        rows.append(Row(split, utterance, i % 3 - 1))
    source = {"importer": "mmsa", "files": [{"name": "f.pkl", "sha256": "0" * 64}]}
    return write_store(tmp_path / "store", rows, source=source, statistics=True).path


def use(path: Path) -> None:
    """What training, ``gmsa data info`` and ``gmsa data check`` do with a store."""
    for utterances in load_corpus(DataConfig(path=str(path))).splits.values():
        for utterance in utterances:
            utterance.id.encode("utf-8")
            assert {m: len(x) for m, x in utterance.features.items()} == utterance.lengths
    markdown_overview(examine.overview(path))
    found = examine.to_json(examine.examine(path))
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode("utf-8")
    markdown_check(found)


def refused(path: Path) -> str:
    """What is said of a store, by all that open it."""
    said = set()
    for read in (Store, examine.overview, examine.examine, lambda p: load_corpus(DataConfig(path=str(p)))):
        with pytest.raises(DataError) as caught:
            read(path)
        said.add(str(caught.value))
    (message,) = said
    assert len(message) <= 400
    assert message.isprintable()
    return message


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def forge(folder: Path, name: str, values: np.ndarray) -> None:
    """Replaces an array by another, of which the manifest tells the size."""
    kind = values.dtype.str
    (folder / name).write_bytes(header(kind, values.shape) + values.tobytes())
    change_manifest(folder, lambda m: m["files"][name].update(bytes=HEADER + values.nbytes))


def forge_texts(folder: Path, name: str, texts: list[bytes]) -> None:
    forge(folder, f"{name}.npy", np.frombuffer(b"".join(texts), np.uint8))
    forge(folder, f"{name}.offsets.npy", np.cumsum([0, *map(len, texts)]).astype("<i8"))


def ids(*changed: bytes) -> list[bytes]:
    """Eight ids, the last of which are these."""
    return [f"v{i}$_${i}".encode() for i in range(8 - len(changed))] + list(changed)


IDS = {
    "all equal": ([b"a"] * 8, "duplicate id 'a' in split 'train'; ids must be unique"),
    "all empty": ([b""] * 8, "the id in row 0 has 0 bytes; expected 1 to 1,024"),
    "one empty": (ids(b""), "the id in row 7 has 0 bytes; expected 1 to 1,024"),
    "in two splits": (ids(b"x", b"v0$_$0"), "duplicate id 'v0$_$0' in splits 'train' and 'test'; ids must be unique"),
    "twice in a split": (ids(b"x", b"x"), "duplicate id 'x' in split 'test'; ids must be unique"),
    "twice, and commanding a terminal": (ids(b"\x1b[2J", b"\x1b[2J"), r"duplicate id '\x1b[2J' in split 'test'"),
    "not UTF-8": (ids(b"\xff\xfe"), "the id in row 7 is not UTF-8"),
    "half a character": (ids(b"a\xed\xa0\x80"), "the id in row 7 is not UTF-8"),
    "a character over two ids": (ids(b"a\xc3", b"\xbcb"), "is not UTF-8"),
    "a character that ends early": (ids(b"a\xe4\xb8"), "the id in row 7 is not UTF-8"),
    "too long": (ids(b"x" * 1025), "the id in row 7 has 1,025 bytes; expected 1 to 1,024"),
}


@pytest.mark.parametrize("case", IDS)
def test_ids(folder: Path, case: str) -> None:
    forge_texts(folder, "ids", IDS[case][0])
    assert IDS[case][1] in refused(folder)


def test_ids_that_are_allowed(folder: Path) -> None:
    forge_texts(folder, "ids", ids(b"x" * 1024, "ü\U0001f600\x1b[2J\n".encode(), b" "))
    use(folder)


@pytest.mark.parametrize("wrong", [b"\xff", b"\xed\xbf\xbf", b"\xe4\xb8", b"x" * (1 << 20) + b"x"])
def test_transcripts(folder: Path, wrong: bytes) -> None:
    forge_texts(folder, "transcripts", [b"", b"\xc3\xbc", wrong, b"", b"", b"", b"", b"more"])
    message = refused(folder)
    assert "transcripts.npy: the transcript in row 2" in message


def test_texts_are_checked_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the pieces, each row is seen once."""
    rows = [Row("all", Utterance(f"ü{i}", {"audio": torch.ones(1, 1)}, text="文" * (i % 5))) for i in range(60)]
    path = write_store(tmp_path / "store", rows).path
    for count, size in ((1, 1), (7, 1 << 20), (1 << 16, 10)):
        monkeypatch.setattr("gmsa.data.store.contents._ROWS", count)
        monkeypatch.setattr("gmsa.data.store.contents._BYTES", size)
        assert [u.id for u in Store(path).utterances()] == [row.utterance.id for row in rows]
    forge_texts(path, "ids", [f"ü{i % 59}".encode() for i in range(60)])
    for count in (1, 7, 1 << 16):
        monkeypatch.setattr("gmsa.data.store.contents._ROWS", count)
        with pytest.raises(DataError, match="duplicate id 'ü0' in split 'all'"):
            Store(path)


NUMBERS = {
    "a label of infinity": ("labels.npy", "<f8", 0, np.inf, "inf in row 0 is out of [-3, 3]; it is damaged"),
    "a label beyond the scale": ("labels.npy", "<f8", 7, -3.5, "-3.5 in row 7 is out of [-3, 3]"),
    "a label lost": ("labels.npy", "<f8", 1, np.nan, "3 labels in split 'train', where the manifest counts 4"),
    "a label of text beyond": ("labels.text.npy", "<f8", 2, 1e300, "1e+300 in row 2 is out of [-3, 3]"),
    "an annotation of 2": ("annotations.npy", "|i1", 3, 2, "2 in row 3 is none of -1, 0, 1 and -128"),
    "an annotation of -127": ("annotations.npy", "|i1", 3, -127, "-127 in row 3 is none of"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers(folder: Path, case: str) -> None:
    name, kind, row, value, words = NUMBERS[case]
    values = np.load(folder / name).astype(kind)
    values[row] = value
    forge(folder, name, values)
    assert words in refused(folder)


@pytest.mark.parametrize("ends", [(-3, 3), (-1.0, 1.0), (1, 5), (0, 0.001)])
def test_labels_at_the_ends_of_the_range(folder: Path, ends: tuple[float, float]) -> None:
    forge(folder, "labels.npy", np.array(list(ends) * 4, np.float64))
    forge(folder, "labels.text.npy", np.array(list(ends) * 4, np.float64))
    change_manifest(folder, lambda m: m["target"].update(low=ends[0], high=ends[1], metrics="intensity"))
    Store(folder)
    forge(folder, "labels.text.npy", np.array([*ends, ends[0] - 0.001, *[math.nan] * 5], np.float64))
    with pytest.raises(DataError, match=r"labels\.text\.npy: .* in row 2 is out of \["):
        Store(folder)


def classes(*names: Any) -> dict[str, Any]:
    return {"kind": "classes", "low": -3.0, "high": 3.0, "classes": list(names), "metrics": "classes"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((wrong, " in row 3 is no number of the 3 classes") for wrong in (3.0, -1.0, 0.5, np.inf, -np.inf, 1e300)),
        (2.0, ""),
        (-0.0, ""),
    ],
)
def test_numbers_of_classes(folder: Path, value: float, said: str) -> None:
    forge(folder, "labels.npy", np.array([0.0, 1, 2, value, 0, 0, 0, 0]))
    forge(folder, "labels.text.npy", np.zeros(8))
    change_manifest(folder, lambda m: m.update(target=classes("anger", "joy", "neutral")))
    if said:
        assert f"{value:g}{said}" in refused(folder)
    else:
        assert Store(folder).split("train")[3].label == value


@pytest.mark.parametrize("labels", ["mosi", "sims", "meld", None, 3, ["mosi"]], ids=str)
def test_stores_of_version_1(folder: Path, labels: Any) -> None:
    def older(manifest: dict[str, Any]) -> None:
        del manifest["target"], manifest["columns"]
        manifest.update(version=1, labels=labels)
        manifest["files"] = {name: file for name, file in manifest["files"].items() if "statistics" not in name}

    change_manifest(folder, older)
    forge(folder, "labels.npy", np.zeros(8))
    if labels not in ("mosi", "sims"):
        assert "'labels' is not one of mosi, sims" in refused(folder)
        return
    target = Store(folder).manifest.target
    assert (target.kind, target.high, target.metrics) == ("intensity", 3.0 if labels == "mosi" else 1.0, labels)


SOURCES: list[Any] = [
    *({"files": 3}, {"files": "f.pkl"}, {"files": {}}, {"files": [3]}, {"files": [{}]}, {"files": [{"name": "a"}]}),
    *({"files": [{"name": 1, "sha256": "a"}]}, {"files": [{"name": "a", "sha256": None}]}, {"importer": 3}),
    *({"importer": ["mmsa"]}, {"importer": "\ud800"}, {"files": [{"name": "\udcff", "sha256": ""}]}, {"\ud800": 1}),
]


@pytest.mark.parametrize("source", SOURCES, ids=ascii)
def test_sources(folder: Path, source: Any) -> None:
    change_manifest(folder, lambda m: m.update(source=source))
    assert "invalid manifest" in refused(folder)


@pytest.mark.parametrize("source", [{}, {"importer": "own"}, {"files": []}, {"more": [1.5, {"a": None}]}], ids=ascii)
def test_sources_that_are_allowed(folder: Path, source: Any) -> None:
    change_manifest(folder, lambda m: m.update(source=source))
    use(folder)


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def rename_split(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda m: m.update(splits={name if key == "test" else key: split for key, split in m["splits"].items()})


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "features without end": lambda m: m["modalities"]["text"].update(dim=2**59),
    "more features than a model takes": lambda m: m["modalities"]["text"].update(dim=2**20 + 1),
    "a sequence of gigabytes": lambda m: m["modalities"]["text"].update(longest=2**40),
    "another longest": lambda m: m["modalities"]["text"].update(longest=2),
    "another number of those present": lambda m: m["modalities"]["audio"].update(present=7),
    "more than the utterances present": lambda m: m["modalities"]["audio"].update(present=9),
    "more utterances": lambda m: (m.update(utterances=2**50), m["splits"]["test"].update(stop=2**50)),
    "a split without a name": rename_split(""),
    "a split of half a character": rename_split("\ud800"),
    "a split of a long name": rename_split("x" * 10_000),
    "splits without end": lambda m: m.update(splits={f"s{i}": m["splits"]["test"] for i in range(101)}),
    "half a character": lambda m: m.update(written_by="\udfff"),
    "a deep source": lambda m: m["source"].update(more=deep(100)),
    "a number of many digits": lambda m: m.update(version=10**4000),
    "another version, at length": lambda m: m.update(version="1" * 100_000),
    "a count of half": lambda m: m.update(utterances=8.0),
    "a name of a file, at length": lambda m: m["files"].update({"y" * 10_000: m["files"]["ids.npy"]}),
    "no target": lambda m: m.update(target=None),
    "a target of more keys": lambda m: m["target"].update(more=1),
    "a range that is none": lambda m: m["target"].update(low=3),
    "a range without end": lambda m: m["target"].update(high=10**400),
    "a range of text": lambda m: m["target"].update(low="-3"),
    "a range of truth": lambda m: m["target"].update(low=False, high=True),
    "another kind": lambda m: m["target"].update(kind="words"),
    "a kind of a list": lambda m: m["target"].update(kind=[]),
    "an intensity of classes": lambda m: m["target"].update(classes=["a", "b"]),
    "metrics of classes": lambda m: m["target"].update(metrics="classes"),
    "metrics of a list": lambda m: m["target"].update(metrics=[]),
    "classes without names": lambda m: m.update(target=classes()),
    "one class": lambda m: m.update(target=classes("joy")),
    "classes without end": lambda m: m.update(target=classes(*map(str, range(20_000)))),
    "a class of a long name": lambda m: m.update(target=classes("joy", "x" * 201)),
    "a class of megabytes": lambda m: m.update(target=classes("joy", "x" * 10_000_000)),
    "a class named twice": lambda m: m.update(target=classes("joy", "anger", "joy")),
    "a class without a name": lambda m: m.update(target=classes("joy", " ")),
    "a class of two lines": lambda m: m.update(target=classes("joy", "a\nb")),
    "a class that commands a terminal": lambda m: m.update(target=classes("joy", "\x1b[2J")),
    "a class of half a character": lambda m: m.update(target=classes("joy", "\ud800")),
    "a class that is a number": lambda m: m.update(target=classes("joy", 3)),
    "classes that are a name": lambda m: m["target"].update(kind="classes", metrics="classes", classes="joy"),
    "columns of another name": lambda m: m.update(columns=["age"]),
    "a column twice": lambda m: m.update(columns=["speaker", "speaker"]),
    "columns that are text": lambda m: m.update(columns="speaker"),
    "columns without files": lambda m: m.update(columns=["speaker"]),
    "a modality twice in unimodal": lambda m: m.update(unimodal=["text", "text"]),
    **{
        f"a modality called {name!r}": (lambda m, name=name: m["modalities"].update({name: m["modalities"]["audio"]}))
        for name in ("labels", "Ids", "speakers", "places", "TEXT", "../audio", "a/b", "a\nb", "a.offsets", "", "é")
    },
    "statistics of no split": lambda m: m.update(statistics="training"),
    "statistics of a number": lambda m: m.update(statistics=1),
    "statistics without files": lambda m: (m.update(statistics=""), m["files"].pop("audio.statistics.npy")),
    "files without statistics": lambda m: m.update(statistics=""),
    "shards that are a number": lambda m: m.update(shards=3),
    "shards of text": lambda m: m.update(shards=["3"]),
    "shards of truth": lambda m: m.update(shards=[True]),
    "shards without files": lambda m: m.update(shards=[3]),
    "a shard before the first row": lambda m: m.update(shards=[-1]),
    "a shard without rows": lambda m: m.update(shards=[3, 3]),
    "shards in another order": lambda m: m.update(shards=[5, 3]),
    "a shard after the last row": lambda m: m.update(shards=[8]),
    "shards without end": lambda m: m.update(shards=[*range(1, 1_200)]),
    "nine modalities": lambda m: m["modalities"].update({f"m{i}": m["modalities"]["audio"] for i in range(7)}),
    "a modality, at length": lambda m: m["modalities"].update({"\x1b[2J" * 10_000: {}}),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(folder: Path, case: str) -> None:
    change_manifest(folder, MANIFESTS[case])
    assert "\n" not in refused(folder)


@pytest.mark.parametrize(
    "raw", [b'{"a": NaN}', b'{"a": 1e999}', b"[" * 2000, b"1" * 5000, b'"\\ud800"', b"\xff", b"{}" * 9]
)
def test_manifests_that_are_no_json(folder: Path, raw: bytes) -> None:
    (folder / "manifest.json").write_bytes(raw)
    assert "invalid manifest" in refused(folder)


def test_no_steps_of_many_features(folder: Path) -> None:
    """A modality that no utterance has costs nothing, whatever it claims."""
    forge(folder, "text.offsets.npy", np.zeros(9, "<i8"))
    forge(folder, "text.npy", np.zeros((0, 1 << 20), "<f4"))
    forge(folder, "text.statistics.npy", np.ones((2, 1 << 20)))
    change_manifest(folder, lambda m: m["modalities"]["text"].update(dim=1 << 20, steps=0, longest=0, present=0))
    use(folder)


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="needs files with holes")
@pytest.mark.parametrize("name", ["text.npy", "ids.npy", "transcripts.npy", "labels.npy", "ids.offsets.npy"])
def test_files_that_are_holes(folder: Path, name: str) -> None:
    """They claim a hundred gigabytes, and hold a page."""
    size = HEADER + 24 * 2**32
    try:
        os.truncate(folder / name, size)
    except OSError:
        pytest.skip("the file system holds no such file")
    change_manifest(folder, lambda m: m["files"][name].update(bytes=size))
    assert f"{name}: claims {size:,} bytes, but is almost empty on disk" in refused(folder)


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_change_is_read_or_refused(folder: Path, count: int, record_property: Recorder) -> None:
    """Random changes of the bytes of arrays, and of values of the manifest."""
    originals = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    told = []
    for seed in range(count):
        draw = random.Random(seed)
        name = draw.choice([*originals, *["manifest.json"] * len(originals)])
        damaged = bytearray(originals[name])
        if name == "manifest.json" and draw.random() < 0.7:
            damaged = bytearray(json.dumps(changed(draw, json.loads(damaged))).encode())
        else:
            for _ in range(draw.randint(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.choice([0, 1, 128, 255, draw.randrange(256)])
        (folder / name).write_bytes(damaged)
        try:
            use(folder)
        except DataError as error:
            told.append(str(error))
        finally:
            (folder / name).write_bytes(originals[name])
    assert count / 4 < len(told) < count
    tell(record_property, "random changes of a feature store", len(told), count - len(told))
    assert not [message for message in told if len(message) > 400 or not message.isprintable()]


def changed(draw: random.Random, manifest: Any) -> Any:
    """A manifest with one value replaced, lost or renamed."""
    container, key = draw.choice(places(manifest))
    kind = draw.randrange(4)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[draw.choice(["", "text", "test", "\ud800", "\x1b[2J", "files"])] = container.pop(key)
    else:
        found = [None, True, -1, 0, 1, 2**62, 2**80, 0.5, "", "text", "sims", "\ud800", "\x07", [], {}, [[]], deep(20)]
        container[key] = draw.choice([*found, struct.calcsize("q")])
    return manifest


def places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


# --- what is written can be read again ---------------------------------------------------------------------------


def row(split: str = "all", identity: str = "a", text: str = "", annotation: int = 0, dim: int = 2) -> Row:
    return Row(split, Utterance(identity, {"audio": torch.ones(1, dim)}, 0.5, {}, text), annotation)


@pytest.mark.parametrize(
    ("wrong", "source", "words"),
    [
        (row(split=""), {}, "row 2 has an empty name of a split"),
        (row(split="\ud800"), {}, "row 2 has a split that cannot be encoded as UTF-8"),
        (row(split="x" * 201), {}, "row 2 has a split of 201 bytes"),
        (row(identity="x" * 1025), {}, "row 2 has an id of 1,025 bytes"),
        (row(identity="\udcff"), {}, "row 2 has an id that cannot be encoded as UTF-8"),
        (row(identity="b", text="\ud800"), {}, "row 2 has a transcript that cannot be encoded as UTF-8"),
        (row(identity="b", annotation=5), {}, "the annotation of 'b' is 5; expected -1, 0, 1 or -128"),
        (row(identity="b", dim=(1 << 20) + 1), {}, "'audio' of 'b' has 1 steps of 1048577 features, beyond"),
        (row(identity="b"), {"files": 3}, "'source.files' is not a list of objects"),
        (row(identity="b"), {"importer": Path("x")}, "its provenance is not JSON"),
        (row(identity="b"), {"seconds": float("nan")}, "its provenance is not JSON"),
        (row(identity="b"), {"more": ["x" * 1000] * 2000}, "it has more than 1,048,576 bytes"),
        (row(identity="b"), {"more": deep(2000)}, "its provenance is not JSON"),
        (row(identity="b"), {"more": "\ud800"}, "its provenance is not JSON"),
    ],
)
def test_what_no_store_may_hold_is_not_written(tmp_path: Path, wrong: Row, source: Any, words: str) -> None:
    rows = [row("first", "first"), wrong]
    with pytest.raises(DataError) as caught:
        write_store(tmp_path / "new" / "store", rows, source=source)
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 400
    assert not os.listdir(tmp_path)
