"""Data sets of Hugging Face, as ``save_to_disk`` and ``to_parquet`` write them; made up with Arrow itself."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmsa.config import TargetConfig
from gmsa.data.importers import form_of, open_source
from gmsa.data.importers.datasets import import_datasets
from gmsa.data.importers.tables import Splits
from gmsa.data.notes import collected
from gmsa.errors import DataError

pa: Any = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def columns(count: int = 3, name: str = "u") -> dict[str, Any]:
    return {
        "id": [f"{name}$_${i}" for i in range(count)],
        "text": [rng.standard_normal((2 + i, 5)).astype(np.float32).tolist() for i in range(count)],
        "audio": [rng.standard_normal((1, 4, 3)).tolist() for _ in range(count)],
        "label": [float(i) for i in range(count)],
    }


def table(content: dict[str, Any], names: dict[str, list[str]] | None = None, **types: Any) -> Any:
    found = pa.table({k: pa.array(v, types.get(k)) for k, v in content.items()})
    features = {k: {"_type": "ClassLabel", "names": v} for k, v in (names or {}).items()}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save(folder: str, content: Any, pieces: int = 1, **state: Any) -> Path:
    """Writes a folder as ``save_to_disk`` does."""
    path = Path(folder)
    path.mkdir(parents=True)
    files = [f"data-{i:05d}-of-{pieces:05d}.arrow" for i in range(pieces)]
    for i, name in enumerate(files):
        part = content.slice(i * len(content) // pieces, len(content) // pieces if pieces > 1 else None)
        with pa.OSFile(str(path / name), "wb") as raw, pa.ipc.new_stream(raw, content.schema) as writer:
            writer.write_table(part, max_chunksize=2)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files], **state}))
    (path / "dataset_info.json").write_text("{}")
    return path


def read(path: Path, **options: Any) -> list[Any]:
    found = import_datasets(path, TargetConfig(field=options.pop("field", "auto")), **options)
    rows = list(found.rows)
    assert len(rows) == found.count
    return rows


def test_a_folder_of_splits() -> None:
    train, valid = columns(4, "t"), columns(2, "v")
    save("ds/train", table(train), pieces=2)
    save("ds/validation", table(valid))
    Path("ds/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert form_of(Path("ds")) == "datasets"
    rows = read(Path("ds"))
    assert [(row.split, row.utterance.id) for row in rows] == [
        *(("train", f"t$_${i}") for i in range(4)),
        *(("valid", f"v$_${i}") for i in range(2)),
    ]
    for row, text, audio in zip(rows, train["text"] + valid["text"], train["audio"] + valid["audio"], strict=True):
        np.testing.assert_array_equal(row.utterance.features["text"], np.float32(text))
        np.testing.assert_array_equal(row.utterance.features["audio"], np.float32(audio[0]))
    assert [row.utterance.label for row in rows] == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("kind", ["one", "parquet", "named", "hub"])
def test_other_forms(kind: str) -> None:
    import pyarrow.parquet as pq

    content, expected = table(columns()), "all"
    if kind == "one":
        path = save("ds", content)
    elif kind == "parquet":
        path = Path("own.bin")
        pq.write_table(content, str(path))
    else:
        path, expected = Path("ds"), "test"
        folder = path / "data" if kind == "hub" else path
        folder.mkdir(parents=True)
        pq.write_table(content, str(folder / ("test-00000-of-00001-abc.parquet" if kind == "hub" else "test.parquet")))
    assert form_of(path) == "datasets"
    assert [(row.split, row.utterance.id) for row in read(path)] == [(expected, f"u$_${i}") for i in range(3)]


def test_types_of_columns() -> None:
    content = {
        "video_id": ["a", "a", "b"],
        "clip_id": [0, 1, 0],
        "raw_text": ["so", None, "bad"],
        "half": [[[1.0, 2.0]], [], None],
        "fixed": [[[1, 2], [3, 4]], [[0, 0]], [[5, 6]]],
        "one_step": [[1.0, 2.0, 3.0]] * 3,
        "input_ids": [[1, 2]] * 3,
        "split": ["dev", "train", "dev"],
        "emotion": [1, -1, 0],
    }
    types = {
        "half": pa.list_(pa.list_(pa.float16(), 2)),
        "fixed": pa.list_(pa.list_(pa.int16(), 2)),
    }
    content["half"] = [[np.float16([1.0, 2.0]), np.float16([0, 1])], [], None]
    path = save("ds", table(content, {"emotion": ["anger", "joy"]}, **types))
    with collected() as notes:
        found = import_datasets(path, TargetConfig())
        read_ = list(found.rows)
    rows, named = [(row.split, row.utterance) for row in read_], [row.named for row in read_]
    assert found.dtypes == {"half": "float16", "fixed": "float32", "one_step": "float32"}
    assert [(split, u.id, u.text, u.video) for split, u in rows] == [
        ("valid", "a$_$0", "so", "a"),
        ("valid", "b$_$0", "bad", "b"),
        ("train", "a$_$1", "", "a"),
    ]
    assert named == ["joy", "anger", ""]
    assert [u.lengths for _, u in rows] == [
        {"half": 2, "fixed": 2, "one_step": 1},
        {"half": 0, "fixed": 1, "one_step": 1},
        {"half": 0, "fixed": 0, "one_step": 1},
    ]
    assert rows[0][1].features["fixed"].tolist() == [[1, 2], [3, 4]]
    assert any("the columns input_ids are not used" in text for text in notes)


def test_the_target_by_name_and_splits_of_ones_own() -> None:
    path = save("ds", table({**columns(), "valence": [0.5, None, float("nan")]}))
    with collected() as notes:
        assert [row.utterance.label for row in read(path, field="valence")] == [0.5, None, None]
    assert notes == ["ds/data-00000-of-00001.arrow: the columns label are not used"]
    Path("splits.csv").write_text("id,split\nu$_$0,test\nu$_$1,train\nu$_$2,test\n")
    rows = read(path, splits=Splits.from_csv(Path("splits.csv")))
    assert [(row.split, row.utterance.id) for row in rows] == [("test", "u$_$0"), ("test", "u$_$2"), ("train", "u$_$1")]


def test_rows_without_ids_are_numbered() -> None:
    content = columns()
    del content["id"]
    save("ds/train", table(content))
    Path("ds/dataset_dict.json").write_text('{"splits": ["train"]}')
    assert [row.utterance.id for row in read(Path("ds"))] == ["train0", "train1", "train2"]


def refused(path: Path, *said: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    message = str(caught.value)
    for part in said:
        assert part in message
    assert "\n" not in message
    assert len(message) <= 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": [[[1.0, 2.0], [1.0]]] * 3}, "row 1: 'text' has steps of 1, 2 features; expected [L, D]"),
        ({"text": [[[1.0, 2.0]], [[1.0]], [[1.0]]]}, "row 2: 'text' has 1 features per step, but earlier ones have 2"),
        ({"text": [[[1.0, None]]] * 3}, "row 1: 'text' has 1 empty values among its features"),
        ({"text": [[[[1.0], [2.0]], [[1.0], [2.0]]]] * 3}, "row 1: 'text' has shape [2, 2, -1]; expected [steps, "),
        ({"label": [[1.0, 2.0]] * 3}, "column 'label' holds lists; expected one label per row"),
    ],
)
def test_columns_that_are_refused(change: dict[str, Any], said: str) -> None:
    options = {"field": "label"} if "label" in change else {}
    refused(save("ds", table({**columns(), **change})), said, **options)


def test_columns_without_features_are_refused() -> None:
    path = save("ds", table({**columns(), "text": ["so"] * 3, "audio": [1, 2, 3]}))
    with pytest.raises(DataError, match=r"no utterance has features; expected columns of lists \[L, D\]"):
        open_source(path)
    assert open_source(path, words="raw_text").dtypes == {}


def test_folders_that_are_refused() -> None:
    path = save("ds", table(columns()), _indices_data_files=[{"filename": "indices.arrow"}])
    refused(path, "ds: is a selection; call flatten_indices() before save_to_disk")
    refused(
        save("none", table(columns())),
        "has no column 'joy', which target.field names (its columns: id, text, audio, label)",
        field="joy",
    )
    for state, said in (
        ('{"_data_files": [{"filename": "../ds/data-00000-of-00001.arrow"}]}', "may leave the folder"),
        ('{"_data_files": [{"filename": "/etc/passwd"}]}', "may leave the folder"),
        ('{"_data_files": []}', "names no data files"),
        ("[]", "names no data files"),
        ("{", "is damaged"),
    ):
        Path("none/state.json").write_text(state)
        refused(Path("none"), said)
    os.symlink("../ds/data-00000-of-00001.arrow", "none/link.arrow")
    Path("none/state.json").write_text('{"_data_files": [{"filename": "link.arrow"}]}')
    refused(Path("none"), "goes through a symbolic link")
    Path("none/dataset_dict.json").write_text('{"splits": ["../ds"]}')
    refused(Path("none"), "may leave the folder")
    Path("empty").mkdir()
    refused(Path("empty"), "holds neither dataset_dict.json, state.json nor .parquet files")


def test_classes_without_a_name() -> None:
    path = save("ds", table({**columns(), "label": [0, 5, 1]}, {"label": ["no", "yes"]}))
    refused(path, "row 2: the label is class 5, but there are 2 (no, yes)")


@pytest.mark.parametrize("raw", [b"", b"junk" * 9, b"PAR1junkPAR1", b"\xff\xff\xff\xff\x10\0\0\0" + bytes(64)])
def test_files_that_are_no_arrow(raw: bytes) -> None:
    path = save("ds", table(columns()))
    (path / "data-00000-of-00001.arrow").write_bytes(raw)
    refused(path, "data-00000-of-00001.arrow: is no readable Arrow or Parquet file")


def test_a_damaged_arrow_file_is_a_data_error_or_reads_as_numbers() -> None:
    path = save("ds", table(columns()))
    file = path / "data-00000-of-00001.arrow"
    good = file.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 60)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        with suppress(DataError):
            read(path)


def test_without_pyarrow_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("ds", table(columns()))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(path, "reading Arrow and Parquet files needs pyarrow; install it: pip install pyarrow")


def test_what_the_library_itself_writes() -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install datasets")
    features = datasets.Features(
        id=datasets.Value("string"),
        text=datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
        audio=datasets.Array2D((4, 3), "float32"),
        label=datasets.ClassLabel(names=["anger", "joy"]),
    )
    content = {**columns(), "audio": [np.ones((4, 3)).tolist()] * 3, "label": [0, 1, 0]}
    one = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk("ds")
    rows = read(Path("ds"))
    assert [row.split for row in rows] == ["train", "train", "train", "test"]
    assert [row.named for row in rows] == ["anger", "joy", "anger", "anger"]
    assert rows[0].utterance.lengths == {"text": 2, "audio": 4}


def test_what_grows_beyond_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    monkeypatch.setattr("gmsa.data.importers.datasets._SLACK", 1 << 20)
    steps = 2_000_000
    inner = pa.ListArray.from_arrays(pa.array([0, steps], pa.int32()), pa.array(np.zeros(steps, np.int8)))
    outer = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), inner)
    bomb = pa.table({"id": ["a"], "text": outer, "label": [0.5]})
    pyarrow.parquet.write_table(bomb, "run.parquet", compression="zstd")
    path = save("ds", table(columns()))
    with pa.ipc.new_stream(
        str(path / "data-00000-of-00001.arrow"),
        bomb.schema,
        options=pa.ipc.IpcWriteOptions(compression="zstd"),
    ) as writer:
        writer.write_table(bomb)
    for source, said in ((Path("run.parquet"), "grows to far more than its"), (path, "is a compressed Arrow file")):
        with pytest.raises(DataError, match=said):
            import_datasets(source, TargetConfig())


def test_columns_texts_and_nested_cells_beyond_the_limits() -> None:
    many = {**columns(), **{f"m{i}": [0] * 3 for i in range(1000)}}
    long = columns() | {"speaker": pa.array(["x" * (1 << 21)] * 3).dictionary_encode()}
    nested = columns() | {"speaker": [{"a": 1}] * 3}
    for number, (content, said) in enumerate(
        [
            (many, "has 1,004 columns; at most 1,000"),
            (long, "row 1: 'speaker' has 2,097,152 bytes"),
            (nested, "'speaker' is nested"),
        ]
    ):
        with pytest.raises(DataError, match=said):
            import_datasets(save(f"ds{number}", table(content)), TargetConfig())
