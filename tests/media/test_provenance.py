"""Features that were extracted otherwise than those of a run: refused wherever they are read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_data import LABELS, tiny_content, tiny_run, write_pickle

from gmsa.__main__ import main
from gmsa.config.load import to_dict
from gmsa.data import Row, Store, Utterance, write_store
from gmsa.data.store.extraction import check_extraction
from gmsa.errors import DataError, DataWarning, RunError
from gmsa.media.settings import ExtractConfig
from gmsa.runs import Run
from gmsa.runs import report as results
from gmsa.runs.train import train

EXTRACTION: dict[str, Any] = {
    "settings": to_dict(ExtractConfig()),
    "fingerprint": {
        "words": {"transcript": {"model": "tiny"}, "weights": {"model.bin": "1a5a"}, "version": 1},
        "text": [{"name": "minilm", "version": 1, "sha256": "53aa5117", "transformers": "5.1"}],
        "audio": [{"name": "prosody", "version": 1}, {"name": "whisper", "version": 1, "sha256": "1a5afae0"}],
        "vision": [{"name": "face", "version": 1, "fps": "10", "sha256": "64184e22", "mediapipe": "1.2.3"}],
        "steps": {"steps": "word", "rate": 10.0, "gaps": "drop"},
    },
    "columns": {"text": ["a"]},
    "versions": {"av": "18.1.0"},
}
DIMS = {"text": 4, "audio": 3, "vision": 2}
Change = Callable[[dict[str, Any]], Any]


def extraction(change: Change = lambda fingerprint: None) -> dict[str, Any]:
    found = copy.deepcopy(EXTRACTION)
    change(found["fingerprint"])
    return found


def store(path: Path, about: dict[str, Any] | None, prefix: str = "", splits: tuple[str, ...] = ()) -> Path:
    """A store whose features say the label; ``about`` says how they were extracted."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in [(s, 8) for s in splits] or [("train", 24), ("valid", 12), ("test", 12)]:
        for i in range(count):
            label = float(LABELS[i % len(LABELS)])
            features = {
                m: torch.from_numpy((rng.standard_normal((3, dim)) + label).astype(np.float32))
                for m, dim in DIMS.items()
            }
            rows.append(Row(split, Utterance(f"{prefix}{split}{i}$_$1", features, label)))
    source = {"importer": "media", "files": []} | ({} if about is None else {"extraction": about})
    write_store(path, rows, source=source)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``extracted``, trained on a store of extracted media, and ``pickled``."""
    folder = tmp_path_factory.mktemp("provenance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        tiny_run(folder / "extracted", store(folder / "own", extraction()))
        tiny_run(folder / "pickled", write_pickle(folder / "own.pkl", tiny_content()))
    return folder


def refused(*arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert caught.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def other_face(fingerprint: dict[str, Any]) -> None:
    fingerprint["vision"][0]["fps"] = "15"


def other_text(fingerprint: dict[str, Any]) -> None:
    fingerprint["text"] = [{"name": "hf_text", "version": 1, "sha256": "abcdef0123"}]


def other_words(fingerprint: dict[str, Any]) -> None:
    fingerprint["words"]["weights"]["model.bin"] = "ffff"


def other_steps(fingerprint: dict[str, Any]) -> None:
    fingerprint["steps"]["steps"] = "own"


def newer_packages(fingerprint: dict[str, Any]) -> None:
    fingerprint["text"][0]["transformers"] = "9.0"


CHANGES = {
    "vision": (other_face, "vision was extracted with face (64184e22)"),
    "text": (other_text, "text was extracted with hf_text (abcdef01), the run's training data with minilm (53aa5117)"),
    "words": (other_words, "words was extracted with"),
    "steps": (other_steps, "steps was extracted with"),
}


def test_runs_and_stores_keep_it(place: Path) -> None:
    assert Store(place / "own").extraction == EXTRACTION
    assert Run(place / "extracted").extraction == EXTRACTION
    assert Run(place / "pickled").extraction is None


def test_features_of_the_same_making_are_predicted(place: Path, tmp_path: Path) -> None:
    other = store(tmp_path / "other", extraction(), "o-")
    main(["predict", "--run", str(place / "extracted"), "--input", str(other), "--out", str(tmp_path / "out.csv")])
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 49


@pytest.mark.parametrize("changed", CHANGES)
def test_predict_refuses_others(place: Path, tmp_path: Path, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = CHANGES[changed]
    other = store(tmp_path / "other", extraction(change), "o-")
    run, out = place / "extracted", tmp_path / "out.csv"
    found = refused("predict", "--run", run, "--input", other, "--out", out, capsys=capsys)
    assert said in found
    assert "gmsa predict --video" in found
    assert not out.exists()
    for x in (Store(other), Store(other).split("test")):
        with pytest.raises(DataError, match=changed):
            Run(run).predict(x)


def test_evaluate_refuses_others(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = store(tmp_path / "other", extraction(other_text), "o-")
    found = refused("evaluate", "--run", place / "extracted", "--data", other, "--out", tmp_path / "out", capsys=capsys)
    assert CHANGES["text"][1] in found


def test_the_pool_is_checked(place: Path, tmp_path: Path) -> None:
    data = {"path": str(place / "own"), "name": "own"}
    good = store(tmp_path / "good", extraction(), "p-", ("pool",))
    tiny_run(tmp_path / "run", place / "own", data=data | {"pool": str(good)}, run={"seeds": [1]})
    assert Run(tmp_path / "run").extraction == EXTRACTION
    bad = store(tmp_path / "bad", extraction(other_face), "p-", ("pool",))
    with pytest.raises(DataError, match="vision was extracted with face"):
        tiny_run(tmp_path / "other", place / "own", data=data | {"pool": str(bad)})


def test_a_run_of_a_pickle_refuses_extracted_stores_and_videos(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = store(tmp_path / "other", extraction(), "o-")
    run = place / "pickled"
    found = refused("predict", "--run", run, "--input", other, "--out", tmp_path / "out.csv", capsys=capsys)
    assert "does not say how its features were made" in found
    (tmp_path / "talk.mp4").write_bytes(b"")
    found = refused("predict", "--run", run, "--video", tmp_path / "talk.mp4", "--out", tmp_path / "o", capsys=capsys)
    assert "does not say how its features were extracted" in found
    assert "gmsa data extract" in found
    assert not (tmp_path / "o").exists()


def test_a_pickle_is_still_predicted_by_a_run_of_a_pickle(place: Path, tmp_path: Path) -> None:
    file = write_pickle(tmp_path / "other.pkl", tiny_content("o-"))
    main(["predict", "--run", str(place / "pickled"), "--input", str(file), "--out", str(tmp_path / "out.csv")])
    assert (tmp_path / "out.csv").exists()


def test_other_versions_of_packages_are_noted_alone(place: Path, tmp_path: Path) -> None:
    other = store(tmp_path / "other", extraction(newer_packages), "o-")
    with pytest.warns(DataWarning, match="text was extracted with other versions of packages"):
        Run(place / "extracted").predict(other)


def test_modalities_that_are_not_read_may_differ(place: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", place / "own", data={"path": str(place / "own"), "modalities": ["text", "audio"]})
    Run(run).predict(store(tmp_path / "face", extraction(other_face), "o-"))
    with pytest.raises(DataError, match="text"):
        Run(run).predict(store(tmp_path / "text", extraction(other_text), "o-"))


def test_a_saved_model_keeps_it(place: Path, tmp_path: Path) -> None:
    saved = Run(Run(place / "extracted").save(tmp_path / "saved"))
    assert saved.extraction == EXTRACTION
    with pytest.raises(DataError, match="vision was extracted"):
        saved.predict(store(tmp_path / "other", extraction(other_face), "o-"))


def test_a_resumed_run_keeps_it(place: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", place / "own")
    config = Run(run).config
    (run / "summary.json").unlink()
    for file in (run / "seed-2").iterdir():
        file.unlink()
    train(config, "run", run, resume=True)
    assert Run(run).extraction == EXTRACTION


@pytest.mark.parametrize("damage", [{"settings": 1}, {"fingerprint": {}}, 3, {"settings": {}, "fingerprint": []}])
def test_a_damaged_record_is_one_line(place: Path, tmp_path: Path, damage: Any) -> None:
    run = tiny_run(tmp_path / "run", place / "own", run={"seeds": [1]})
    content = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(content | {"extraction": damage}))
    with pytest.raises(RunError, match="extraction") as caught:
        Run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "hostile", [{"fingerprint": 3}, {"fingerprint": {"text": "x" * 10_000}}, {"fingerprint": {"text": [[]]}}]
)
def test_strange_fingerprints_are_answered_in_one_line(hostile: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        check_extraction(EXTRACTION, hostile, ["text"], "other")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)
