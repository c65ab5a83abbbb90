"""What runs say of a video: over all of it, along it, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmsa.data import Target, Utterance
from gmsa.errors import DataError
from gmsa.explain import NEIGHBORS, Explanation
from gmsa.media.cache import Cache
from gmsa.media.pipeline import Pipeline
from gmsa.runs.folder import Run
from gmsa.runs.predict import Answers
from gmsa.runs.video.clips import Segment, check_pipeline, contributions, segments_of, settings_of, windows_of

WINDOW, STEP = 3.0, 0.5
"""Seconds of a window of the timeline, and between two."""
NEUTRAL = 0.1
"""Share of the range's half within which an intensity is called neutral."""
Say = Callable[[str, float], None]
"""Takes what is being done, and the share that is done."""


class Answerer:
    """Runs that answer videos, with the extraction of their training data.

    Args:
        runs: run folders, or runs; all trained on extracted media.
        cache: where extractions are kept; None keeps none.
        only_read: whether everything must be in the cache already.
        seeds: seeds whose models answer; all by default.
        device: as for :meth:`gmsa.Run.predict`.

    Raises:
        RunError: a run was trained on data that do not say how they were extracted.
        DataError: this machine has other weights or versions than the data of a run were made with.
    """

    def __init__(
        self,
        runs: Sequence[str | Path | Run],
        cache: Path | None = None,
        only_read: bool = False,
        seeds: Sequence[int] | None = None,
        device: str | None = None,
    ) -> None:
        self.seeds, self.device = seeds, device
        self.runs = [run if isinstance(run, Run) else Run(run) for run in runs]
        self.pipelines: list[Pipeline] = []
        for run in self.runs:
            settings = settings_of(run)
            known = next((p for p in self.pipelines if p.settings == settings), None)
            pipeline = known or Pipeline(settings, None if cache is None else Cache(cache, only_read))
            check_pipeline(run, pipeline)
            self.pipelines.append(pipeline)

    def __call__(
        self,
        path: Path,
        say: Say = lambda what, share: None,
        transcript: str | None = None,
        window: float = WINDOW,
        step: float = STEP,
        explain: bool = True,
    ) -> list[dict[str, Any]]:
        """Answers of all runs for a video, as ``answer.json`` has them.

        Raises:
            MediaError: the file cannot be read.
            DataError: it holds nothing that a run can predict from.
        """
        extracted: dict[int, list[Segment]] = {}
        answers = []
        for i, (run, pipeline) in enumerate(zip(self.runs, self.pipelines, strict=True)):
            if id(pipeline) not in extracted:
                say("Reading words, voice and face", 0.1 + 0.6 * i / len(self.runs))
                extracted[id(pipeline)] = segments_of(path, pipeline, transcript)
            say("Predicting and explaining", 0.7 + 0.3 * i / len(self.runs))
            models = Models(run, self.seeds, self.device)
            answers.append(answer_of(models, path.name, extracted[id(pipeline)], window, step, explain))
        return answers


class Models(NamedTuple):
    """The models of a run that are asked."""

    run: Run
    seeds: Sequence[int] | None = None
    device: str | None = None

    def predict(self, utterances: Sequence[Utterance], seeds: Sequence[int] | None = None) -> Answers:
        """Predicts with all of them, or with those of some seeds."""
        return self.run.predict(utterances, self.seeds if seeds is None else seeds, self.device)


def answer(runs: Sequence[str], path: Path, say: Say = lambda what, share: None) -> dict[str, Any]:
    """The answers of run folders for a video: what the worker of the local page calls.

    Models stay loaded for the next video. Nothing of the video is kept: no cache has its features.
    """
    say("Loading the models", 0.05)
    return {"answers": _answerer(tuple(map(str, runs)))(path, say)}


@lru_cache(maxsize=1)
def _answerer(runs: tuple[str, ...]) -> Answerer:
    return Answerer(runs)


def answer_of(
    models: Models,
    name: str,
    segments: Sequence[Segment],
    window: float = WINDOW,
    step: float = STEP,
    explain: bool = True,
) -> dict[str, Any]:
    """What a run says of the extracted segments of a video.

    Raises:
        DataError: no segment has a modality that the run knows, or can be predicted.
    """
    run, target = models.run, Target.of(models.run.config.target)
    utterances = [segment.utterance(run.dims) for segment in segments]
    there = [i for i, u in enumerate(utterances) if _can_be_predicted(u, run)]
    if not there:
        raise DataError(f"{name}: holds none of {', '.join(run.dims)}, which the run was trained with")
    refused = models.predict([utterances[i] for i in there]).reasons
    there = [i for i in there if utterances[i].id not in refused]
    chosen = [utterances[i] for i in there]
    lost = len(utterances) - len(there) - len(refused)
    segments = [segments[i] for i in there]
    answers = models.predict(chosen)
    lengths = np.array([segment.found.duration for segment in segments])
    weights = lengths / lengths.sum()
    explained: list[Explanation | None] = [None] * len(chosen)
    reasons: Mapping[str, str] = {}
    if explain:
        found = run.explain(chosen, seeds=models.seeds, device=models.device)
        by_id, reasons = {item.id: item for item in found}, found.reasons
        explained = [by_id.get(u.id) for u in chosen]
    value = None if answers.values is None else float(answers.values @ weights)
    probabilities = answers.probabilities.T @ weights
    return {
        "video": name,
        "run": run.name,
        "trained_on": run.config.data.name,
        "synthetic": run.synthetic,
        "target": {"kind": target.kind, "low": target.low, "high": target.high, "classes": class_labels(target)},
        "duration": round(max(segment.stop for segment in segments), 3),
        "value": value,
        "label": label_of(target, value, probabilities),
        "probabilities": dict(zip(class_labels(target), map(float, probabilities), strict=True)),
        "seeds": _by_seed(models, chosen, weights, target),
        "segments": [
            _segment(run, segment, answers, i, target, explained[i], reasons.get(segment.clip.id, ""))
            for i, segment in enumerate(segments)
        ],
        "timeline": timeline(models, segments, window, step, int(probabilities.argmax())),
        "warnings": [*_left_out(lost, refused, run), *_warnings(segments)],
        "speech": float(np.array([segment.found.speech for segment in segments]) @ weights),
        "face": float(np.array(["vision" in segment.found.sequences for segment in segments]) @ weights),
    }


def class_labels(target: Target) -> list[str]:
    """Names of the classes; of an intensity, the middle of each of its bins."""
    if target.is_classes:
        return list(target.class_names)
    bins = len(target.class_names)
    return [f"{x:+.3g}" if x else "0" for x in np.linspace(target.low, target.high, bins)]


def label_of(target: Target, value: float | None, probabilities: np.ndarray) -> str:
    """The answer in a word: the likeliest class, or the sign of an intensity."""
    if value is None:
        return target.class_names[int(np.argmax(probabilities))]
    middle, half = (target.low + target.high) / 2, (target.high - target.low) / 2
    if abs(value - middle) < NEUTRAL * half:
        return "neutral"
    return "positive" if value > middle else "negative"


def timeline(
    models: Models, segments: Sequence[Segment], window: float, step: float, column: int
) -> list[dict[str, Any]]:
    """What is predicted of windows along the video: of all that is there, and of each modality alone.

    Args:
        column: the class whose probability it is, where classes are predicted: that of the whole video.
    """
    run = models.run
    times, windows = windows_of(segments, run.dims, window, step)
    asked: list[Utterance] = []
    places: list[tuple[int, str]] = []
    for i, utterance in enumerate(windows):
        for modality in ("", *run.dims):
            others = frozenset(m for m in run.dims if modality and m != modality)
            one = utterance.drop(others) if others else utterance
            if modality != "text" and modality:
                one = replace(one, text="")
            if _can_be_predicted(one, run):
                asked.append(replace(one, id=f"{one.id.partition('$')[0]}-{modality or 'all'}$_$1"))
                places.append((i, modality or "value"))
    rows: list[dict[str, Any]] = [{"time": round(time, 3), "value": None, **dict.fromkeys(run.dims)} for time in times]
    if asked:
        found = models.predict(asked)
        values = found.values if found.values is not None else found.probabilities[:, column]
        for (i, key), value in zip(places, values, strict=True):
            rows[i][key] = float(value) if np.isfinite(value) else None
    return rows


def _can_be_predicted(utterance: Utterance, run: Run) -> bool:
    """Whether a run reads anything of an utterance; a text encoder reads its words."""
    reads = run.config.model.text_encoder is not None
    lengths = {m: n for m, n in utterance.lengths.items() if not (reads and m == "text")}
    return any(lengths.values()) or (reads and bool(utterance.text.strip()))


def _by_seed(models: Models, utterances: Sequence[Utterance], weights: np.ndarray, target: Target) -> dict[str, float]:
    """The answer of each seed's model: the intensity, or the probability of the class that all of them choose."""
    found = {}
    column: int | None = None
    if target.is_classes:
        column = int((models.predict(utterances).probabilities.T @ weights).argmax())
    for seed in models.seeds or models.run.seeds:
        one = models.predict(utterances, [seed])
        values = one.values if column is None else one.probabilities[:, column]
        assert values is not None
        found[str(seed)] = float(values @ weights)
    return found


def _segment(
    run: Run, segment: Segment, answers: Answers, i: int, target: Target, explained: Explanation | None, reason: str
) -> dict[str, Any]:
    value = None if answers.values is None else float(answers.values[i])
    found = segment.found
    row: dict[str, Any] = {
        "id": segment.clip.id,
        "start": round(segment.start, 3),
        "stop": round(segment.stop, 3),
        "text": segment.clip.text or found.text,
        "value": value,
        "label": label_of(target, value, answers.probabilities[i]),
        "missing": {m: found.missing[m] for m in run.dims if m in found.missing},
        "words": contributions(segment, {}, run.dims),
        "modalities": None,
        "subsets": {},
        "faithful": None,
        "note": f"not explained: {reason}" if reason else "",
    }
    if explained is None:
        return row
    row["modalities"] = {
        "base": explained.base,
        "parts": dict(explained.modalities),
        "neighbors": explained.neighbors,
        "value": explained.value,
        "class": explained.predicted_class,
    }
    everything = max(explained.subsets, key=len)
    context = NEIGHBORS in everything
    row["subsets"] = {
        "+".join(m for m in subset if m != NEIGHBORS): value
        for subset, value in explained.subsets.items()
        if not context or NEIGHBORS in subset
    }
    if explained.words is not None:
        row["words"] = contributions(segment, explained.words.tokens, run.dims)
        row["faithful"] = explained.words.faithful
        if not explained.words.faithful:
            row["note"] = "no faithful explanation for this clip"
    return row


def _left_out(count: int, refused: Mapping[str, str], run: Run) -> list[str]:
    """Which segments the answer leaves out, and why."""
    parts, are = ("segments", "are") if count > 1 else ("segment", "is")
    lines = [f"{count} {parts} with none of {', '.join(run.dims)} {are} left out of the answer"] if count else []
    return [*lines, *(f"{name} is left out of the answer: {why}" for name, why in refused.items())]


def _warnings(segments: Sequence[Segment]) -> list[str]:
    """What lacks, and what the extraction warns of, each once."""
    found: dict[str, int] = {}
    for segment in segments:
        for line in (*(f"{m} is missing: {why}" for m, why in segment.found.missing.items()), *segment.found.warnings):
            found[line] = found.get(line, 0) + 1
    many = len(segments) > 1
    return [f"{line} ({count} of {len(segments)} segments)" if many else line for line, count in found.items()]
