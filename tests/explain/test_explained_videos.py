"""What runs say of the segments of a video, with features that are made up: no model of the extraction is asked."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.data import Utterance
from gmsa.errors import DataError
from gmsa.media.clips import Clip, Extracted, Sequence
from gmsa.media.types import Word
from gmsa.runs import Run
from gmsa.runs.video import answer_files
from gmsa.runs.video.answer import Models, answer_of
from gmsa.runs.video.clips import Segment


def segment(run: Run, number: int, start: float, seconds: float, lacks: tuple[str, ...] = ()) -> Segment:
    """A piece with four words, and a step at each in every modality."""
    rng = np.random.default_rng(number)
    edges = np.linspace(0, seconds, 5, dtype=np.float32)
    times = np.stack([edges[:-1], edges[1:]], 1)
    values = {m: np.float32(9 * rng.standard_normal((4, dim))) for m, dim in run.dims.items() if m not in lacks}
    words = [Word(f"w{i}", float(a), float(b)) for i, (a, b) in enumerate(times)]
    found = Extracted({m: Sequence(x, times) for m, x in values.items()}, dict.fromkeys(lacks, "gone"), words, seconds)
    return Segment(Clip(f"v$_${number}", Path("v.mp4"), start, start + seconds), found)


def segments(run: Run, *lengths: float) -> list[Segment]:
    starts = np.cumsum([0.0, *lengths])
    return [segment(run, i, float(starts[i]), seconds) for i, seconds in enumerate(lengths)]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_with_the_other_segments_the_parts_add_up(explained: Path, tmp_path: Path) -> None:
    run = Run(explained / "dialogue")
    answer = answer_of(Models(run), "v.mp4", segments(run, 2.0, 3.0, 2.0))
    answer_files(answer, tmp_path)
    for one, row in zip(answer["segments"], rows_of(tmp_path / "segments.csv"), strict=True):
        found = one["modalities"]
        assert [*found["parts"]] == [*run.dims]
        assert abs(found["neighbors"]) > 1e-4
        total = found["base"] + sum(found["parts"].values()) + found["neighbors"]
        assert total == pytest.approx(one["value"], abs=1e-4)
        assert found["value"] == pytest.approx(one["value"], abs=1e-4)
        parts = [float(row[f"contribution_{name}"]) for name in (*run.dims, "neighbors")]
        assert float(row["base"]) + sum(parts) == pytest.approx(float(row["value"]), abs=1e-4)
    page = (tmp_path / "report.html").read_text()
    assert ">other segments</td>" in page
    assert "the other segments alone" in page


def test_the_timeline_is_of_the_class_that_is_answered(explained: Path) -> None:
    """Longer segments count for more in the answer, so that it may not be the class of most of them."""
    run = Run(explained / "emotion")
    parts = segments(run, *[1.0] * 12)
    given = run.predict([part.utterance(run.dims) for part in parts]).probabilities
    most = int(given.mean(0).argmax())
    other = next(i for i, row in enumerate(given) if int(row.argmax()) != most)
    long = replace(parts[other], found=replace(parts[other].found, duration=500.0))
    parts[other] = replace(long, clip=replace(long.clip, start=20.0))
    answer = answer_of(Models(run), "v.mp4", parts, window=3600.0, step=100.0)
    label = answer["label"]
    assert label == run.config.target.classes[int(given[other].argmax())]
    order = [part for i, part in enumerate(parts) if i != other] + [parts[other]]
    joined = {m: torch.cat([torch.from_numpy(part.found.sequences[m].values) for part in order]) for m in run.dims}
    expected = run.predict([Utterance("all$_$1", joined)]).probabilities[0]
    assert answer["timeline"][0]["value"] == pytest.approx(expected[run.config.target.classes.index(label)], abs=1e-5)
    for one in answer["segments"]:  # each part has a class of its own, whose probability is explained
        assert one["modalities"]["class"] == one["label"]
        assert one["value"] is None
        total = one["modalities"]["base"] + sum(one["modalities"]["parts"].values())
        assert total == pytest.approx(one["modalities"]["value"], abs=1e-5)


def contributions(answer: dict[str, Any], modality: str) -> list[float | None]:
    return [word["contribution"][modality] for one in answer["segments"] for word in one["words"]]


def test_what_is_not_known_of_a_word_is_no_zero(run: Run, tmp_path: Path) -> None:
    parts = [segment(run, 0, 0.0, 2.0, lacks=("vision",))]
    answer = answer_of(Models(run), "v.mp4", parts)
    assert contributions(answer, "vision") == [None] * 4
    assert all(contributions(answer, "text"))
    answer_files(answer, tmp_path / "explained")
    assert {row["contribution_vision"] for row in rows_of(tmp_path / "explained" / "words.csv")} == {""}
    answer = answer_of(Models(run), "v.mp4", parts, explain=False)
    assert {x for m in run.dims for x in contributions(answer, m)} == {None}
    answer_files(answer, tmp_path / "not")
    assert {row["contribution_text"] for row in rows_of(tmp_path / "not" / "words.csv")} == {""}


def test_a_segment_of_which_nothing_is_said_is_told(run: Run) -> None:
    parts = [segment(run, 0, 0.0, 2.0), segment(run, 1, 2.0, 2.0, lacks=tuple(run.dims))]
    answer = answer_of(Models(run), "v.mp4", parts)
    assert len(answer["segments"]) == 1
    assert answer["warnings"] == ["1 segment with none of text, audio, vision is left out of the answer"]


def test_a_segment_that_cannot_be_predicted_is_told(run: Run, tmp_path: Path) -> None:
    parts = [segment(run, 0, 0.0, 2.0), segment(run, 1, 2.0, 2.0)]
    parts[1].found.sequences["text"].values[0, 0] = np.nan
    answer = answer_of(Models(run), "v.mp4", parts, window=0.1)
    answer_files(answer, tmp_path)  # JSON has no NaN
    assert answer["value"] == answer["segments"][0]["value"]
    assert answer["warnings"][0].startswith("v$_$1 is left out of the answer: 'text' holds NaN")
    with pytest.raises(DataError, match=r"'v\$_\$1': 'text' holds NaN"):
        answer_of(Models(run), "v.mp4", parts[1:])
