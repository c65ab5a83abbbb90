"""Features of one modality from a file of its own."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmsa.data.importers import arrays
from gmsa.data.importers.features import with_features
from gmsa.data.notes import collected
from gmsa.errors import DataError

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dump(name: str, content: Any) -> str:
    Path(name).write_bytes(pickle.dumps(content))
    return name


def base() -> dict[str, Any]:
    """Two splits of two utterances, with word pieces and lengths."""
    return {
        split: {
            "id": [f"{split}$_$0", f"{split}$_$1"],
            "text": np.ones((2, 3, 4)),
            "text_bert": np.ones((2, 3, 3)),
            "audio": np.ones((2, 5, 2)),
            "audio_lengths": [5, 4],
            "regression_labels": np.zeros(2),
        }
        for split in ("train", "test")
    }


def other(modality: str, dim: int, **columns: Any) -> dict[str, Any]:
    """A file with the same utterances in another order."""
    return {
        split: {
            "id": [f"{split}$_$1", f"{split}$_$0"],
            modality: np.stack([np.full((3, dim), 1.0), np.full((3, dim), 0.5)]),
            **columns,
        }
        for split in ("test", "train")
    }


def test_a_modality_is_replaced_by_id_not_by_order() -> None:
    content = base()
    found = with_features(content, {"audio": dump("a.pkl", other("audio", 7))}, "base.pkl")
    assert [x[0, 0] for x in found["train"]["audio"]] == [0.5, 1.0]
    assert found["train"]["audio"][0].shape == (3, 7)
    assert "audio_lengths" not in found["train"]  # those of the replaced features do not fit
    assert found["train"]["text"] is content["train"]["text"]
    assert content["train"]["audio"].shape == (2, 5, 2)  # the given content is unchanged


def test_lengths_and_word_pieces_come_with_the_features() -> None:
    with_lengths = other("audio", 7, audio_lengths=[3, 2])
    found = with_features(base(), {"audio": dump("a.pkl", with_lengths)}, "base.pkl")
    assert found["train"]["audio_lengths"] == [2, 3]
    found = with_features(base(), {"text": dump("t.pkl", other("text", 9))}, "base.pkl")
    assert "text_bert" not in found["test"]
    pieces = other("text", 9, text_bert=np.zeros((2, 3, 3)))
    assert len(with_features(base(), {"text": dump("t.pkl", pieces)}, "base.pkl")["test"]["text_bert"]) == 2


def by_id(dim: int = 7) -> dict[str, np.ndarray]:
    return {f"{split}$_${i}": np.full((2 + i, dim), 1.0 + i) for split in ("train", "test") for i in range(2)}


@pytest.mark.parametrize("kind", ["pickle", "npz", "compressed", "alias", "features", "modality", "utterances"])
def test_files_of_features(kind: str) -> None:
    arrays = by_id()
    if kind in ("npz", "compressed"):
        path = "f.npz"
        (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
    else:
        path = dump(
            "f.pkl",
            {
                "pickle": lambda: arrays,
                "alias": lambda: other("acoustic", 7),
                "features": lambda: {"id": list(arrays), "features": list(arrays.values())},
                "modality": lambda: {"audio": arrays},
                "utterances": lambda: {i: {"audio": x} for i, x in arrays.items()},
            }[kind](),
        )
    found = with_features(base(), {"audio": path, "pose": path} if kind == "pickle" else {"audio": path}, "base.pkl")
    for split in ("train", "test"):
        assert [x.shape[1] for x in found[split]["audio"]] == [7, 7]
    if kind == "pickle":
        np.testing.assert_array_equal(found["test"]["pose"][1], arrays["test$_$1"])


def test_rows_without_ids_are_taken_by_order_as_in_mmsa() -> None:
    content = other("audio", 7)
    for columns in content.values():
        del columns["id"]
    found = with_features(base(), {"audio": dump("a.pkl", content)}, "base.pkl")
    assert [x[0, 0] for x in found["train"]["audio"]] == [1.0, 0.5]
    content["train"]["audio"] = content["train"]["audio"][:1]
    with pytest.raises(
        DataError, match=r"a\.pkl: has no ids, and 1 rows of 'audio' in split 'train' but base\.pkl has 2"
    ):
        with_features(base(), {"audio": dump("a.pkl", content)}, "base.pkl")


def test_utterances_that_the_file_lacks_are_missing_and_said() -> None:
    arrays = by_id()
    del arrays["test$_$1"]
    with collected() as notes:
        found = with_features(base(), {"audio": dump("a.pkl", arrays)}, "base.pkl")
    assert notes == ["a.pkl: has no 'audio' of 1 of 4 utterances of base.pkl; it is missing there"]
    assert found["test"]["audio"][1] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({f"x{i}": np.ones((1, 2)) for i in range(4)}, "holds 'audio' of none of the 4 utterances of 'base.pkl'"),
        (other("text", 2), "a.pkl: holds no 'audio' (its keys: id, text)"),
        ([1, 2], "a.pkl: holds a list; expected a pickle with splits, or {id: [L, D]}"),
        (3, "a.pkl: holds a int"),
    ],
)
def test_files_that_are_refused(content: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        with_features(base(), {"audio": dump("a.pkl", content)}, "base.pkl")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_archives_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(said: str) -> None:
        with pytest.raises(DataError) as caught:
            with_features(base(), {"audio": "f.npz"}, "base.pkl")
        assert said in str(caught.value)

    np.savez("f.npz", a=np.array(["text"]))
    refused("f.npz: 'a': is of type")
    with zipfile.ZipFile("f.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(20 << 20))
    refused("grows from")
    with zipfile.ZipFile("f.npz", "w", zipfile.ZIP_DEFLATED) as archive:  # each within its own limit, but not all
        for i in range(20):
            archive.writestr(f"{i}.npy", bytes(1 << 20))
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "_SLACK", 1 << 20)
        refused("20 members of 20,971,520 bytes in all")
    np.savez_compressed("f.npz", a=np.ones((50, 50)))
    raw = bytearray(Path("f.npz").read_bytes())
    raw[60:70] = struct.pack("<10B", *range(10))
    Path("f.npz").write_bytes(raw)
    refused("damaged")


def test_a_home_folder_in_the_path(monkeypatch: pytest.MonkeyPatch, write_mmsa: Callable[..., Path]) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("WHERE", str(Path.cwd()))
    dump("a.pkl", by_id())
    for path in ("~/a.pkl", "$WHERE/a.pkl"):
        assert with_features(base(), {"audio": path}, "base.pkl")["train"]["audio"][0].shape == (2, 7)
