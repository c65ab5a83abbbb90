"""Stores in several shards, and the statistics that a store keeps: both change nothing of what is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gmsa.data import Normalizer, Row, Store, Utterance, write_store
from gmsa.data.__main__ import main
from gmsa.data.checks import examine
from gmsa.data.lazy import changed, joined, shards_of, taken
from gmsa.data.normalize import statistics
from gmsa.data.notes import collected
from gmsa.errors import DataError
from gmsa.system.files import sha256_of

DIMS = {"text": 6, "audio": 4, "vision": 5}
STEP = 4 * 6
"""Bytes of a step of text."""


@pytest.fixture
def made(make_utterance: Callable[..., Utterance]) -> list[Utterance]:
    return [make_utterance(f"v{i // 3}$_${i}", (i % 6, (i * 5) % 4, i % 2), i / 50 - 1) for i in range(90)]


@pytest.fixture
def rows(made: list[Utterance]) -> list[Row]:
    return [Row("train" if i < 60 else "valid" if i < 75 else "test", u) for i, u in enumerate(made)]


@pytest.fixture
def one(tmp_path: Path, rows: list[Row]) -> Store:
    return write_store(tmp_path / "one", rows)


@pytest.fixture
def several(tmp_path: Path, rows: list[Row]) -> Store:
    return write_store(tmp_path / "several", rows, shard_bytes=1000, statistics=True)


def features(utterances: Sequence[Utterance]) -> list[dict[str, Tensor]]:
    return [dict(u.features) for u in utterances]


def assert_equal(ours: Sequence[dict[str, Tensor]], theirs: Sequence[dict[str, Tensor]]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert list(a) == list(b)
        assert all(torch.equal(a[m], b[m]) for m in b)


def test_a_store_of_shards_is_read_as_one_file(one: Store, several: Store, made: list[Utterance]) -> None:
    shards = several.manifest.shards
    assert len(shards) > 5
    assert one.manifest.shards == ()
    whole = several.utterances()
    assert_equal(features([*whole]), features(made))  # in order, in windows over several shards
    assert_equal(features([whole[i] for i in range(89, -1, -1)]), features(made[::-1]))
    for start, stop in ((0, 90), (shards[0] - 1, shards[2] + 1), (shards[1], shards[1]), (50, 90), (90, 90)):
        for modality in DIMS:
            ours, theirs = several.read_sequences(modality, start, stop), one.read_sequences(modality, start, stop)
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert_equal(features(several.split("valid")), features(made[60:75]))


def test_a_shard_has_at_most_so_many_bytes(several: Store, made: list[Utterance]) -> None:
    begins = [0, *several.manifest.shards, 90]
    sizes = [sum(x.nbytes for x in u.features.values()) for u in made]
    for begin, end in pairwise(begins):
        assert sum(sizes[begin:end]) <= 1000
        assert end == 90 or sum(sizes[begin : end + 1]) > 1000  # the next utterance has no room
    for shard in range(len(begins) - 1):
        for modality, dim in DIMS.items():
            name = f"{modality}.{shard}.npy" if shard else f"{modality}.npy"
            array = np.load(several.path / name)  # plain arrays
            held = [u.features[modality] for u in made[begins[shard] : begins[shard + 1]]]
            assert array.shape == (sum(map(len, held)), dim)
            assert several.manifest.files[name].sha256 == sha256_of(several.path / name)
    expected = np.searchsorted(several.manifest.shards, np.arange(90), "right")
    np.testing.assert_array_equal(shards_of(several.utterances()), expected)
    some = taken(several.split("valid"), [3, 1])
    np.testing.assert_array_equal(shards_of(some), expected[[63, 61]])
    both = joined(some, several.split("train"))
    assert not {*shards_of(both)[:2]} & {*shards_of(both)[2:]}  # numbers of parts that may be of different stores


def test_an_utterance_that_is_larger_than_a_shard(tmp_path: Path, make_utterance: Callable[..., Utterance]) -> None:
    made = [make_utterance(f"u{i}", (length, 0, 0)) for i, length in enumerate((1, 50, 1, 1, 60))]
    store = write_store(tmp_path / "large", [Row("train", u) for u in made], shard_bytes=10 * STEP)
    assert store.manifest.shards == (1, 2, 4)
    for ours, theirs in zip(store.utterances(), made, strict=True):
        assert torch.equal(ours.features["text"], theirs.features["text"])


def test_half_precision(tmp_path: Path, rows: list[Row]) -> None:
    half = dict.fromkeys(DIMS, "float16")
    one = write_store(tmp_path / "one", rows, half)
    several = write_store(tmp_path / "several", rows, half, shard_bytes=500)
    assert len(several.manifest.shards) > 5
    assert_equal(features(several.utterances()), features(one.utterances()))


def test_a_small_store_is_what_it_was(one: Store, several: Store) -> None:
    """An earlier gmsa reads it."""
    manifest = json.loads((one.path / "manifest.json").read_text())
    assert manifest["version"] == 2
    assert not {"shards", "statistics", "timed"} & manifest.keys()
    assert json.loads((several.path / "manifest.json").read_text())["version"] == 4


@pytest.mark.parametrize(("key", "limit"), [("MANY", 90), ("LARGE", 1000)])
def test_a_large_store_keeps_statistics(
    tmp_path: Path, rows: list[Row], monkeypatch: Any, key: str, limit: int
) -> None:
    monkeypatch.setattr(f"gmsa.data.store.writer.{key}", limit)
    assert write_store(tmp_path / "large", rows).manifest.statistics == "train"
    assert write_store(tmp_path / "without", rows, statistics=False).manifest.statistics == ""
    monkeypatch.setattr(f"gmsa.data.store.writer.{key}", 10**9)
    assert write_store(tmp_path / "small", rows).manifest.statistics == ""


@pytest.mark.parametrize("wrong", ["missing", "cut", "of another store", "a link"])
def test_shards_that_are_refused(several: Store, tmp_path: Path, make_utterance: Callable, wrong: str) -> None:
    path = several.path / "text.2.npy"
    if wrong == "missing":
        path.unlink()
    elif wrong == "cut":
        os.truncate(path, path.stat().st_size - 4)
    elif wrong == "a link":
        os.rename(path, tmp_path / "text.2.npy")
        os.symlink(tmp_path / "text.2.npy", path)
    else:
        shutil.copyfile(several.path / "text.3.npy", path)
    with pytest.raises(DataError, match=r"text.2.npy: ") as caught:
        Store(several.path)
    assert "\n" not in str(caught.value)
    assert any(remedy in str(caught.value) for remedy in ("import the data again", "check the path", "replace"))


def test_a_shard_of_other_steps_is_refused_even_where_sizes_agree_with_the_manifest(several: Store) -> None:
    """Two shards change places, in the manifest, too."""
    folder, (a, b) = several.path, ("text.2.npy", "text.3.npy")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"][a]["bytes"] != manifest["files"][b]["bytes"]
    manifest["files"][a], manifest["files"][b] = manifest["files"][b], manifest["files"][a]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for old, new in ((a, "x"), (b, a), ("x", b)):
        os.rename(folder / old, folder / new)
    with pytest.raises(DataError, match=r"text.2.npy: has \d+ steps where its rows have \d+; .* of another store"):
        Store(folder)


@pytest.mark.parametrize("name", ["text.2.npy", "vision.statistics.npy"])
def test_a_wrong_hash_is_found_by_the_check(several: Store, name: str) -> None:
    path = several.path / name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert any(name in str(f) and f.severity == "error" for f in examine.examine(several.path).findings)


def test_the_import_splits_and_joins(several: Store, one: Store, tmp_path: Path) -> None:
    main(["import", str(several.path), "--out", str(tmp_path / "joined")])
    assert Store(tmp_path / "joined").manifest.shards == ()
    assert_equal(features(Store(tmp_path / "joined").utterances()), features(one.utterances()))
    with pytest.raises(SystemExit):
        main(["import", str(one.path), "--out", str(tmp_path / "none"), "--shard-size", "0"])
    assert not (tmp_path / "none").exists()


def by_loop(utterances: Sequence[Utterance], modality: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, one sequence after another."""
    sequences = [u.features[modality] for u in utterances if len(u.features[modality])]
    dim = DIMS[modality]
    total, squares = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    for sequence in sequences:
        total += sequence.double().sum(0)
    mean = total / sum(map(len, sequences))
    for sequence in sequences:
        squares += (sequence.double() - mean).square().sum(0)
    return mean, (squares / sum(map(len, sequences))).sqrt()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_statistics_that_a_store_keeps_are_those_of_its_training_split(
    tmp_path: Path, rows: list[Row], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmsa.data.store.statistics._BYTES", 300)
    store = write_store(tmp_path / "store", rows, dict.fromkeys(DIMS, dtype), shard_bytes=900, statistics=True)
    train = store.split("train")
    assert store.manifest.statistics == "train"
    found = Normalizer.fit(train, DIMS, 10.0)
    in_memory = Normalizer.fit([*train], DIMS, 10.0)
    for modality in DIMS:
        kept, expected = train.statistics(modality), by_loop(train, modality)
        assert kept is not None
        for ours, memory, stored, theirs in zip(
            (found.means[modality], found.stds[modality]),
            (in_memory.means[modality], in_memory.stds[modality]),
            kept,
            expected,
            strict=True,
        ):
            assert torch.equal(ours, theirs)
            assert torch.equal(memory, theirs)
            assert torch.equal(stored, theirs)


def test_other_utterances_than_the_training_split_have_statistics_of_their_own(several: Store) -> None:
    train = several.split("train")
    for others in (train[:30], taken(train, [1, 2, 3]), several.split("valid"), joined(train, several.split("valid"))):
        assert others.statistics("text") is None
        mean, std = by_loop(others, "text")
        found = Normalizer.fit(others, ["text"], 10.0)
        assert torch.equal(found.means["text"], mean)
        assert torch.equal(found.stds["text"], std)
    doubled = changed(train, lambda u: u)
    assert doubled.statistics("text") is None


def test_a_note_tells_why_statistics_are_found_anew(several: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmsa.data.normalize._MANY", 10)
    with collected() as notes:
        Normalizer.fit(several.split("train"), ["text"], 10.0)
    assert notes == []
    with collected() as notes:
        Normalizer.fit(several.split("train")[:20], ["text"], 10.0)
    assert len(notes) == 1
    assert "are found anew in 20 utterances" in notes[0]


def test_pieces_change_no_bit() -> None:
    g = torch.Generator().manual_seed(0)
    sequences = [torch.randn(1 + i * 7 % 40, 5, generator=g) * 3 + 100 for i in range(150)]
    expected = statistics(lambda: [[x] for x in sequences], 5)
    for size in (2, 33, 150):
        found = statistics(lambda size=size: [sequences[i : i + size] for i in range(0, 150, size)], 5)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    constant = [torch.full((3, 2), 0.1), torch.full((2, 2), 0.1)]
    assert statistics(lambda: [constant], 2)[1].tolist() == [0, 0]
    assert [x.tolist() for x in statistics(list, 2)] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("values", [np.full((2, 6), np.nan), np.full((2, 6), np.inf), np.full((2, 6), -1.0)])
def test_statistics_that_are_none(several: Store, values: np.ndarray) -> None:
    path = several.path / "text.statistics.npy"
    path.write_bytes(path.read_bytes()[:128] + values.tobytes())
    with pytest.raises(DataError, match=r"text.statistics.npy: holds no means and standard deviations; it is damaged"):
        Store(several.path)


def test_statistics_of_other_features_are_found_by_the_check(several: Store) -> None:
    """They are a stranger's, whose hashes are right."""

    def said() -> list[str]:
        return [f.where for f in examine.examine(several.path).findings if "not those of the training" in f.what]

    assert said() == []
    path, manifest = several.path / "text.statistics.npy", several.path / "manifest.json"
    path.write_bytes(path.read_bytes()[:128] + (np.load(path) * 1.01).tobytes())
    content = json.loads(manifest.read_text())
    content["files"][path.name]["sha256"] = sha256_of(path)
    manifest.write_text(json.dumps(content))
    assert said() == ["text.statistics.npy"]


def test_splits_of_other_names(tmp_path: Path, rows: list[Row]) -> None:
    renamed = [row._replace(split={"train": "Training", "valid": "dev"}.get(row.split, row.split)) for row in rows]
    assert write_store(tmp_path / "a", renamed, statistics=True).manifest.statistics == "Training"
    assert (
        write_store(tmp_path / "b", [r._replace(split="all") for r in rows], statistics=True).manifest.statistics == ""
    )
