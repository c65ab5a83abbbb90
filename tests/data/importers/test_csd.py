"""Computational sequences of the CMU MultimodalSDK (made up): segments, words, and what is hostile."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmsa.config import TargetConfig
from gmsa.data import Store, Utterance, write_store
from gmsa.data.importers.csd import import_csd
from gmsa.data.importers.tables import Splits
from gmsa.data.notes import collected
from gmsa.errors import DataError

h5py: Any = pytest.importorskip("h5py", reason="needs h5py: pip install h5py")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sdk").mkdir()


def write(name: str, videos: dict[str, tuple[Any, Any]], root: str = "", **metadata: Any) -> Path:
    """Writes a ``.csd`` as the SDK does: root / data / video / features and intervals, compressed."""
    path = Path("sdk", f"{name}.csd")
    with h5py.File(path, "w") as file:
        group = file.create_group(root or name)
        for video, (features, intervals) in videos.items():
            entry = group.create_group(f"data/{video}")
            for key, value in (("features", features), ("intervals", np.asarray(intervals, float).reshape(-1, 2))):
                entry.create_dataset(key, data=np.asarray(value), compression="gzip", compression_opts=9)
        for key, value in metadata.items():
            data = group.create_dataset(f"metadata/{key.replace('_', ' ')}", (1,), dtype=h5py.string_dtype())
            data[0] = json.dumps(value)
    return path


def frames(count: int, dim: int, step: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(count) * step
    features = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return features, np.stack([starts, starts + step], axis=1)


WORDS = ([b"so", b"sp", b"bad", b"really", b"good"], [[0, 0.4], [0.4, 0.9], [1, 1.5], [2.1, 2.4], [2.5, 2.9]])
LABELS = {"v": (np.float32([[-1.5], [2], [0]]), [[0, 1.6], [2, 3], [3, 3]])}


def write_sdk(**left_out: Any) -> None:
    write("CMU_MOSI_Opinion_Labels", LABELS)
    write("CMU_MOSI_COVAREP", {"v": frames(40, 3, 0.1)})
    write("CMU_MOSI_Visual_Facet_42", {"v": frames(12, 2, 0.3, seed=1)})
    write("CMU_MOSI_TimestampedWords", {"v": (np.array(WORDS[0], "S32")[:, None], WORDS[1])})
    write("CMU_MOSI_TimestampedWordVectors", {"v": (np.eye(5, dtype=np.float32), WORDS[1])})
    for name in left_out:
        os.unlink(f"sdk/{name}.csd")


def imported(**options: Any) -> Store:
    found = import_csd(Path("sdk"), TargetConfig(), **options)
    store = write_store(Path("store"), found.rows, found.dtypes, "mosi", found.about)
    assert found.count == len(store)
    return store


def mean_over(name: str, span: tuple[float, float]) -> np.ndarray:
    """The mean of the frames that overlap a span, frame by frame."""
    with h5py.File(next(Path("sdk").glob(f"*{name}*.csd"))) as file:
        data = next(iter(file.values()))["data/v"]
        chosen = [
            f
            for f, (a, b) in zip(data["features"][()], data["intervals"][()], strict=True)
            if a < span[1] and b > span[0]
        ]
    return np.mean(chosen, axis=0)


def test_word_aligned_utterances_of_the_label_file() -> None:
    write_sdk()
    utterances: list[Utterance] = list(imported().split("all"))
    assert [(u.id, u.label, u.text) for u in utterances] == [("v$_$0", -1.5, "so bad"), ("v$_$1", 2, "really good")]
    assert [u.lengths for u in utterances] == [{"text": 2, "audio": 2, "vision": 2}] * 2
    for utterance, words in zip(utterances, ([0, 2], [3, 4]), strict=True):
        np.testing.assert_array_equal(utterance.features["text"], np.eye(5)[words])
        for step, word in enumerate(words):
            for modality, name in (("audio", "COVAREP"), ("vision", "Facet")):
                expected = mean_over(name, tuple(WORDS[1][word]))
                np.testing.assert_allclose(utterance.features[modality][step], expected, rtol=1e-5)


def test_without_text_each_modality_keeps_its_frames() -> None:
    write_sdk(CMU_MOSI_TimestampedWords=0, CMU_MOSI_TimestampedWordVectors=0)
    first, second = imported().split("all")
    assert first.lengths == {"audio": 16, "vision": 6}
    with h5py.File("sdk/CMU_MOSI_COVAREP.csd") as file:
        np.testing.assert_array_equal(first.features["audio"], file["CMU_MOSI_COVAREP/data/v/features"][:16])
    assert second.text == ""


def test_words_alone_align_and_vectors_alone_align() -> None:
    write_sdk(CMU_MOSI_TimestampedWordVectors=0)
    assert imported().split("all")[0].lengths == {"audio": 2, "vision": 2}
    write_sdk(CMU_MOSI_TimestampedWords=0)
    import shutil

    shutil.rmtree("store")
    assert imported().split("all")[0].lengths == {"text": 3, "audio": 3, "vision": 3}  # no words, so no pauses


def test_frames_in_disorder_missing_videos_infinite_audio_and_text_of_any_length() -> None:
    features, intervals = frames(40, 3, 0.1)
    features[0] = -np.inf
    order = np.random.default_rng(1).permutation(40)
    write("Labels", {"v": LABELS["v"], "w": (np.float32([[np.nan]]), [[0, 1]])})
    write("COVAREP", {"v": (features[order], intervals[order])})
    words = np.array([word.decode() for word in WORDS[0]], dtype=object)
    path = write("Words", {"w": (np.zeros((1, 1)), [[0, 1]])})
    with h5py.File(path, "w") as file:
        entry = file.create_group("Words/data/v")
        entry.create_dataset("features", data=words, dtype=h5py.string_dtype())
        entry.create_dataset("intervals", data=WORDS[1])
    utterances = list(imported().split("all"))
    assert [(u.id, u.label, u.text) for u in utterances][2:] == [("w$_$0", None, "")]
    assert utterances[2].lengths == {"audio": 0}
    assert utterances[0].text == "so bad"
    expected = np.where(np.isinf(features), 0, features)[:4].mean(axis=0)
    np.testing.assert_allclose(utterances[0].features["audio"][0], expected, rtol=1e-5)


def test_files_that_the_sdk_aligned_to_the_labels_before() -> None:
    write("Labels", {f"v[{k}]": (np.float32([[k]]), [[k, k + 1]]) for k in (10, 2)})
    write("COVAREP", {f"v[{k}]": frames(3, 2, 0.1, seed=k) for k in (2, 10)})
    assert [(u.id, u.label) for u in _utterances()] == [
        ("v$_$2", 2),
        ("v$_$10", 10),
    ]


def _utterances() -> list[Utterance]:
    return [row.utterance for row in import_csd(Path("sdk"), TargetConfig()).rows]


def test_several_labels_per_segment() -> None:
    names = ["sentiment", "happy", "sad"]
    write("All_Labels", {"v": (np.float32([[1, 2, 3]]), [[0, 1]])}, dimension_names=names)
    write("COVAREP", {"v": frames(4, 2, 0.1)})
    with collected() as notes:
        assert _utterances()[0].label == 1
    assert any("has 3 labels per segment (sentiment, happy, sad); the first is the target" in text for text in notes)
    assert [row.utterance.label for row in import_csd(Path("sdk"), TargetConfig(field="sad")).rows] == [3]
    assert [row.utterance.label for row in import_csd(Path("sdk"), TargetConfig(column=1)).rows] == [2]
    with pytest.raises(DataError, match=r"has 3 labels per segment, no column 3 \(target\.column counts from 0\)"):
        import_csd(Path("sdk"), TargetConfig(column=3))
    with pytest.raises(
        DataError,
        match=r"has no dimension 'joy' of labels, which target.field names \(its dimensions: sentiment, happy, sad\)",
    ):
        import_csd(Path("sdk"), TargetConfig(field="joy"))


def test_sequences_of_other_modalities_keep_their_names() -> None:
    write("Labels", LABELS)
    write("COVAREP", {"v": frames(40, 3, 0.1)})
    write("OpenSMILE_IS09", {"v": frames(40, 4, 0.1)})
    write("My-EEG 2", {"v": frames(40, 5, 0.1)})
    with collected() as notes:
        write("Phones", {"v": (np.array([[b"a"]]), [[0, 1]])})
        assert set(_utterances()[0].features) == {"audio", "opensmile_is09", "my_eeg_2"}
    assert any("Phones is text other than words; it is not used" in text for text in notes)


def test_splits_of_ones_own() -> None:
    write("Labels", {"v": LABELS["v"], "w": (np.float32([[1]]), [[0, 1]])})
    write("COVAREP", {"v": frames(40, 3, 0.1), "w": frames(40, 3, 0.1)})
    Path("splits.csv").write_text("video,split\nv,test\nw,train\n")
    store = imported(splits=Splits.from_csv(Path("splits.csv")))
    assert {name: [u.id for u in store.split(name)] for name in store.manifest.splits} == {
        "test": ["v$_$0", "v$_$1"],
        "train": ["w$_$0"],
    }


# --- refused ---------------------------------------------------------------------------------------------------------


def refused(*said: str) -> None:
    with pytest.raises(DataError) as caught:
        list(import_csd(Path("sdk"), TargetConfig()).rows)
    message = str(caught.value)
    for part in said:
        assert part in message
    assert "\n" not in message
    assert len(message) <= 400


def test_folders_that_are_refused() -> None:
    write("COVAREP", {"v": frames(4, 2, 0.1)})
    refused("needs one .csd file of labels", "has 0 (its files: COVAREP.csd)")
    write("Labels", LABELS)
    write("More_Labels", LABELS)
    refused("has 2 (its files: COVAREP.csd, Labels.csd, More_Labels.csd)")
    os.unlink("sdk/More_Labels.csd")
    os.unlink("sdk/COVAREP.csd")
    refused("has no .csd file of features beside the labels")
    os.symlink("Labels.csd", "sdk/COVAREP.csd")
    refused("goes through a symbolic link")


@pytest.mark.parametrize(
    ("features", "intervals", "said"),
    [
        (np.ones((3, 2)), np.ones((2, 2)), "'features' has shape [3, 2] for 2 intervals; expected [F, D]"),
        (np.ones((2, 2, 2)), np.ones((2, 2)), "'features' has shape [2, 2, 2] for 2 intervals"),
        (np.ones((2, 2), complex), np.ones((2, 2)), "'features' is of type complex128; expected an array of numbers"),
        (np.ones((2, 2)), [[0, np.nan]] * 2, "'intervals' has shape [2, 2]; expected [F, 2] seconds"),
        (np.ones((2, 0)), np.ones((2, 2)), "expected [F, D]"),
    ],
)
def test_arrays_that_are_refused(features: Any, intervals: Any, said: str) -> None:
    write("Labels", LABELS)
    path = Path("sdk/COVAREP.csd")
    with h5py.File(path, "w") as file:
        file["COVAREP/data/v/features"], file["COVAREP/data/v/intervals"] = features, np.asarray(intervals)
    refused("COVAREP.csd: 'v'", said)


def hostile(kind: str, file: Any) -> None:
    """Fills ``data`` of a sequence with what must not be read."""
    data = file.create_group("COVAREP/data/v")
    data["intervals"] = np.zeros((1, 2))
    if kind == "external link":
        data["features"] = h5py.ExternalLink("../secret.h5", "/x")
    elif kind == "soft link":
        file["other"] = np.ones((1, 2))
        del file["other"]
        data["features"] = h5py.SoftLink("/COVAREP/data/v/intervals")
    elif kind == "external storage":
        data.create_dataset("features", (1, 2), "f4", external=[("../secret.bin", 0, h5py.h5f.UNLIMITED)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout((1, 2), "f4")
        layout[:] = h5py.VirtualSource("../secret.h5", "x", (1, 2))
        data.create_virtual_dataset("features", layout)
    elif kind == "unwritten":
        data.create_dataset("features", (1 << 20, 1 << 10), "f4", chunks=(1, 1 << 10))
    elif kind == "zeros":
        data.create_dataset("features", data=np.zeros((1 << 16, 128), "f4"), compression="gzip", chunks=(1 << 16, 128))
    elif kind == "huge chunk":
        data.create_dataset("features", (1, 1), "f8", maxshape=(None, None), chunks=(1 << 14, 1 << 14))
    elif kind == "references":
        data.create_dataset("features", (1, 1), dtype=h5py.ref_dtype)
    elif kind == "numbers of any length":
        data.create_dataset("features", (1, 1), dtype=h5py.vlen_dtype(np.float32))
    elif kind == "group":
        data.create_group("features")
    else:
        assert kind == "nothing"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("external link", "'features' is a link; replace it by what it leads to"),
        ("soft link", "'features' is a link"),
        ("external storage", "'features' lies in another file; copy its values into this one"),
        ("virtual", "'features' lies in another file"),
        ("unwritten", "that is no array of features"),
        ("zeros", "that is no array of features"),
        ("huge chunk", "that is no array of features"),
        ("references", "expected an array of numbers"),
        ("numbers of any length", "expected an array of numbers"),
        ("group", "'features' is no array"),
        ("nothing", "has no 'features' (it has: intervals)"),
    ],
)
def test_hdf5_of_strangers(kind: str, said: str) -> None:
    with h5py.File("secret.h5", "w") as file:
        file["x"] = np.ones((1, 2))
    Path("secret.bin").write_bytes(np.ones(2, "f4").tobytes())
    write("Labels", LABELS)
    with h5py.File("sdk/COVAREP.csd", "w") as file:
        hostile(kind, file)
    refused("COVAREP.csd", said)


@pytest.mark.parametrize("raw", [b"", b"junk", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_files_that_are_no_hdf5(raw: bytes) -> None:
    write("Labels", LABELS)
    Path("sdk/COVAREP.csd").write_bytes(raw)
    refused("COVAREP.csd: is no readable HDF5 file")


def test_without_h5py_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write_sdk()
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused("reading .csd files needs h5py; install it: pip install h5py")


def test_many_words_that_share_one_long_text_are_refused() -> None:
    write("Labels", LABELS)
    write("COVAREP", {"v": frames(40, 3, 0.1)})
    with h5py.File("sdk/Words.csd", "w") as file:
        entry = file.create_group("Words/data/v")
        data = entry.create_dataset("features", (100,), dtype=h5py.string_dtype())
        data[:] = ["x" * (1 << 20)] * 100
        entry["intervals"] = np.zeros((100, 2))
    refused("holds over 64 MiB of text; that is no sequence of words")


def test_what_grows_beyond_its_file_is_refused() -> None:
    write_sdk()
    with h5py.File("sdk/CMU_MOSI_COVAREP.csd", "a") as file:
        data = file["CMU_MOSI_COVAREP/data"]
        data["v[1]"] = data["v"]
    with pytest.raises(DataError, match=r"COVAREP\.csd: 'v\[1\]': its arrays are those of another entry"):
        list(import_csd(Path("sdk"), TargetConfig()).rows)
    write("CMU_MOSI_COVAREP", {"v": frames(40, 3, 0.1)})
    write("CMU_MOSI_Opinion_Labels", {"v": (np.zeros((20_001, 1)), frames(20_001, 1, 1)[1])})
    with pytest.raises(DataError, match=r"'v' has 20,001 segments; at most 20,000"):
        import_csd(Path("sdk"), TargetConfig())
    write("CMU_MOSI_Opinion_Labels", LABELS)
    with h5py.File("sdk/CMU_MOSI_TimestampedWords.csd", "w") as file:
        entry = file.create_group("CMU_MOSI_TimestampedWords/data/v")
        entry.create_dataset("intervals", data=np.zeros((200_000, 2), "f4"))
        entry.create_dataset("features", shape=(200_000, 1), dtype=h5py.string_dtype(), chunks=(10_000, 1))
    with pytest.raises(DataError, match=r"'features' holds 200,000 texts"):
        import_csd(Path("sdk"), TargetConfig())


def test_names_of_dimensions_and_entries_that_mislead() -> None:
    write_sdk()
    write("CMU_MOSI_Opinion_Labels", {"v[" + "9" * 200 + "]": LABELS["v"]}, dimension_names=["a", "b", "happy"])
    assert [row.utterance.id for row in import_csd(Path("sdk"), TargetConfig()).rows] == ["v$_$0", "v$_$1"]
    with pytest.raises(DataError, match=r"has no dimension 'happy' .*\(its dimensions: a\)"):
        import_csd(Path("sdk"), TargetConfig(field="happy"))


@pytest.mark.parametrize("error", [RuntimeError, KeyError, TypeError, OverflowError, OSError])
def test_what_h5py_raises_is_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    write_sdk()

    def broken(*_: Any, **__: Any) -> Any:
        raise error("damaged\nheap")

    monkeypatch.setattr(h5py.Group, "get", broken)
    with pytest.raises(DataError, match=r"\.csd: is no readable HDF5 file \('?damaged.*heap'?\); download it again"):
        import_csd(Path("sdk"), TargetConfig())
