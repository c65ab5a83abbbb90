"""Feature stores whose steps have times, and the records of extracted clips."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gmsa.data import Row, Store, Utterance, write_store
from gmsa.data.__main__ import main
from gmsa.errors import DataError

EXTRACTION = {"settings": {}, "fingerprint": {"text": [{"name": "t"}]}, "columns": {}, "versions": {}}
CLIPS = "".join(json.dumps({"id": f"v$_${i}", "words": [["é", 0, 1, 1]]}, ensure_ascii=False) + "\n" for i in range(4))


def times_of(length: int, start: float = 0.0) -> torch.Tensor:
    return start + torch.stack([torch.arange(length), torch.arange(1, length + 1)], 1) / 4


def with_times(row: Row, **times: torch.Tensor) -> Row:
    return row._replace(utterance=replace(row.utterance, times=times))


def rows(timed: bool = True) -> list[Row]:
    found = []
    for i, (words, faces) in enumerate([(3, 2), (1, 0), (4, 4), (2, 1)]):
        features = {"text": torch.full((words, 3), float(i)), "vision": torch.full((faces, 2), -float(i))}
        times = {"text": times_of(words, i), "vision": times_of(faces, i)} if timed else {}
        utterance = Utterance(f"v$_${i}", features, i / 4, text="words", times=times)
        found.append(Row("train" if i < 2 else "test", utterance))
    return found


def extracted(path: Path) -> Store:
    return write_store(path, rows(), source={"importer": "media", "extraction": EXTRACTION}, clips=lambda: CLIPS)


def error_of(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_times_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = extracted(tmp_path / "store")
    assert store.manifest.timed == ("text", "vision")
    for place, row in enumerate(rows()):
        for modality in ("text", "vision"):
            found = store.times(modality, place)
            assert found is not None
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, row.utterance.times[modality])
            read = store.utterances()[place]
            assert len(found) == read.lengths[modality] == read.times.lengths[modality]
            assert torch.equal(read.times[modality], row.utterance.times[modality])
            assert torch.equal(pickle.loads(pickle.dumps(read)).times[modality], read.times[modality])
    assert store.times("audio", 0) is None
    found = store.times("text", 0)
    assert found is not None
    found[:] = 9  # a copy: the store stays
    np.testing.assert_array_equal(Store(store.path).times("text", 0), rows()[0].utterance.times["text"])


def test_the_version_rises_only_where_there_are_times(tmp_path: Path) -> None:
    write_store(tmp_path / "plain", rows(timed=False))
    extracted(tmp_path / "timed")
    plain, timed = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("plain", "timed"))
    assert (plain["version"], timed["version"]) == (2, 3)
    assert "timed" not in plain  # to the byte what gmsa wrote before it knew times
    assert set(timed["files"]) - set(plain["files"]) == {"text.times.npy", "vision.times.npy"}
    for name, about in plain["files"].items():
        assert timed["files"][name] == about
    assert Store(tmp_path / "plain").times("text", 0) is None


@pytest.mark.parametrize("which", [0, 2])
def test_times_of_some_utterances_alone_are_refused(tmp_path: Path, which: int) -> None:
    mixed = rows()
    mixed[which] = with_times(mixed[which], vision=mixed[which].utterance.times["vision"])
    with pytest.raises(DataError, match="some utterances have times of 'text' and others have none") as caught:
        write_store(tmp_path / "store", mixed)
    error_of(caught)
    assert not list(tmp_path.iterdir())


def test_one_modality_alone_may_have_times(tmp_path: Path) -> None:
    only = [with_times(row, vision=row.utterance.times["vision"]) for row in rows()]
    store = write_store(tmp_path / "store", only)
    assert store.manifest.timed == ("vision",)
    assert store.times("text", 0) is None


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (times_of(2), r"are \[2, 2\]; expected \[3, 2\]"),
        (times_of(3)[:, :1], r"are \[3, 1\]; expected \[3, 2\]"),
        (times_of(3).flip(1), "ends before it starts"),
        (torch.full((3, 2), torch.nan), "ends before it starts, or never"),
        (torch.full((3, 2), torch.inf), "ends before it starts, or never"),
    ],
)
def test_wrong_times_are_refused(tmp_path: Path, times: torch.Tensor, said: str) -> None:
    wrong = rows()
    wrong[0] = with_times(wrong[0], **{**wrong[0].utterance.times, "text": times})
    with pytest.raises(DataError, match=said) as caught:
        write_store(tmp_path / "store", wrong)
    assert "'text' of 'v$_$0'" in error_of(caught)


def test_importing_a_store_keeps_times_extraction_and_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = extracted(tmp_path / "one")
    main(["import", str(one.path), "--out", str(tmp_path / "other"), "--dtype", "float16"])
    other = Store(tmp_path / "other")
    assert other.extraction == one.extraction == EXTRACTION
    assert other.clips == one.clips == CLIPS
    for row in range(4):
        for modality in ("text", "vision"):
            np.testing.assert_array_equal(other.times(modality, row), one.times(modality, row))
    main(["check", str(other.path)])
    capsys.readouterr()


def test_records_of_clips_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = extracted(tmp_path / "store")
    main(["check", str(store.path)])
    capsys.readouterr()
    file = store.path / "clips.jsonl"
    file.write_text(CLIPS.replace("v$_$1", "v$_$9"), encoding="utf-8")
    with pytest.raises(DataError, match="was changed since it was written") as caught:
        _ = Store(store.path).clips
    error_of(caught)
    with pytest.raises((SystemExit, DataError)):
        main(["check", str(store.path)])
    file.unlink()
    with pytest.raises(DataError, match=r"clips\.jsonl") as caught:
        _ = Store(store.path).clips
    error_of(caught)
    with pytest.raises((SystemExit, DataError)):
        main(["check", str(store.path)])


def test_a_link_in_the_place_of_the_records_is_refused(tmp_path: Path) -> None:
    store = extracted(tmp_path / "store")
    file = store.path / "clips.jsonl"
    (tmp_path / "elsewhere").write_text(CLIPS, encoding="utf-8")
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError):
        _ = Store(store.path).clips


@pytest.mark.parametrize("size", [-4, 4])
def test_a_file_of_times_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    store = extracted(tmp_path / "store")
    file = store.path / "text.times.npy"
    raw = file.read_bytes()
    file.write_bytes(raw[:size] if size < 0 else raw + b"\0" * size)
    with pytest.raises(DataError, match=r"text\.times\.npy"):
        Store(store.path)


def test_changed_times_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = extracted(tmp_path / "store")
    file = store.path / "text.times.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 0x40
    file.write_bytes(raw)
    with pytest.raises((SystemExit, DataError)):
        main(["check", str(store.path)])
    capsys.readouterr()


@pytest.mark.parametrize("timed", [["sound"], ["text", "text"], "text", [1], None])
def test_a_manifest_that_lies_about_times_is_refused(tmp_path: Path, timed: object) -> None:
    store = extracted(tmp_path / "store")
    file = store.path / "manifest.json"
    content = json.loads(file.read_text())
    content["timed"] = timed
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        Store(store.path)
    error_of(caught)
