"""A video as the utterances that a run predicts: its segments, and windows along it."""

# L steps, D features
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmsa.data import Utterance
from gmsa.data.store.extraction import check_extraction
from gmsa.errors import ConfigError, DataError, RunError, short
from gmsa.media.clips import Clip, Extracted
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig, extraction_of
from gmsa.media.types import Word
from gmsa.registry import loaded_plugins
from gmsa.runs.folder import Run
from gmsa.runs.settings import names_of_modules, needs_plugins

MOST_WINDOWS = 240
"""Windows of a timeline; of a long video they are farther apart."""


@dataclass(frozen=True)
class Segment:
    """A piece of a video with all that was extracted from it."""

    clip: Clip
    found: Extracted

    @property
    def start(self) -> float:
        """Seconds from the start of the video."""
        return self.clip.start

    @property
    def stop(self) -> float:
        """Seconds from the start of the video."""
        return self.clip.start + self.found.duration

    def utterance(self, dims: Mapping[str, int]) -> Utterance:
        """The segment as an utterance; modalities that it lacks have no step."""
        sequences = self.found.sequences
        features = {
            m: torch.from_numpy(sequences[m].values) if m in sequences else torch.zeros(0, dim)
            for m, dim in dims.items()
        }
        times = {m: torch.from_numpy(sequences[m].times) for m in features if m in sequences}
        return Utterance(self.clip.id, features, text=self.clip.text or self.found.text, times=times)


def settings_of(run: Run) -> ExtractConfig:
    """The extraction of a run's training data.

    Raises:
        RunError: the data did not say how they were made, by a plug-in that is not imported, or the run folder is
            damaged.
    """
    if run.extraction is None:
        raise RunError(
            f"'{run.folder}' was trained on a file that does not say how its features were extracted, so that those of "
            "a video cannot be made alike; train on a store that 'gmsa data extract' wrote"
        )
    named = names_of_modules(run.extraction.get("plugins"))
    if lacking := [module for module in named if module not in loaded_plugins()]:
        raise RunError(needs_plugins(run.folder, lacking))
    try:
        return extraction_of(run.extraction["settings"], f"{short(run.folder)}: environment.json")
    except ConfigError as error:
        raise RunError(f"'{run.folder}': its extraction cannot be repeated: {error}") from None


def check_pipeline(run: Run, pipeline: Pipeline) -> None:
    """Checks that this machine extracts as the run's training data were: the same settings, weights and versions.

    Raises:
        DataError: it does not; names the modality and both extractors.
    """
    now = {"fingerprint": pipeline.fingerprint}
    check_extraction(run.extraction, now, [m for m in run.dims if m in pipeline.extractors], "this machine")


def segments_of(path: Path, pipeline: Pipeline, transcript: str | None = None) -> list[Segment]:
    """Extracts a video, in pieces where it is long.

    Args:
        transcript: what is said in it, where that is known; then it is one piece.

    Raises:
        MediaError: the file cannot be read.
        DataError: it holds nothing that can be predicted from.
    """
    clips = clips_of(path, pipeline, transcript)
    segments = [Segment(clip, pipeline(clip)) for clip in clips]
    if not any(segment.found.sequences for segment in segments):
        reasons = "; ".join(f"{m}: {why}" for m, why in segments[0].found.missing.items())
        raise DataError(f"{path.name}: neither speech nor a face was found in it ({reasons})")
    return segments


def clips_of(path: Path, pipeline: Pipeline, transcript: str | None = None) -> list[Clip]:
    """The pieces of a video, as :func:`segments_of` extracts them."""
    if transcript is not None:
        return [Clip(f"{path.stem}$_$1", path, text=transcript)]
    _, pieces = pipeline.look(path)
    if len(pieces) == 1:
        return [Clip(f"{path.stem}$_$1", path)]
    return [Clip(f"{path.stem}$_${i}", path, start, stop) for i, (start, stop) in enumerate(pieces, 1)]


def windows_of(
    segments: Sequence[Segment], dims: Mapping[str, int], window: float, step: float
) -> tuple[list[float], list[Utterance]]:
    """Windows along a video: the steps whose middle lies in them, and the words for a text encoder.

    Args:
        window: seconds of a window.
        step: seconds between two.

    Returns:
        The middle of each window in seconds, and its utterance, each of a video of its own.
    """
    stop = max(segment.stop for segment in segments)
    step = max(step, stop / MOST_WINDOWS)
    middles = np.arange(step / 2, max(stop, step), step)
    sequences = {m: _along(segments, m, dim) for m, dim in dims.items()}
    words = words_of(segments)
    centers = np.array([(word.start + word.stop) / 2 for word in words])
    utterances = []
    for i, middle in enumerate(middles):
        low, high = middle - window / 2, middle + window / 2
        features, times = {}, {}
        for modality, (values, spans) in sequences.items():
            first, last = np.searchsorted(spans.mean(1), (low, high))
            features[modality] = torch.from_numpy(values[first:last])
            times[modality] = torch.from_numpy(spans[first:last].astype(np.float32))
        said = [word.text for word, center in zip(words, centers, strict=True) if low <= center < high]
        utterances.append(Utterance(f"window-{i}$_$1", features, text=" ".join(said), times=times))
    return middles.tolist(), utterances


def words_of(segments: Sequence[Segment]) -> list[Word]:
    """The words of a video, with their times in it."""
    return [
        word._replace(start=word.start + segment.start, stop=word.stop + segment.start)
        for segment in segments
        for word in segment.found.words
    ]


def contributions(
    segment: Segment, tokens: Mapping[str, np.ndarray], modalities: Collection[str]
) -> list[dict[str, Any]]:
    """The words of a segment, each with what the steps at it contribute, by modality.

    None stands where nobody knows it: of a modality that is missing or not explained, and of text whose tokens are a
    text encoder's, which have no times.

    Args:
        tokens: contribution of each step of a modality.
        modalities: those of the run.
    """
    words = segment.found.words
    starts = np.array([word.start for word in words])
    sums: dict[str, np.ndarray] = {}
    for modality, values in tokens.items():
        sequence = segment.found.sequences.get(modality)
        if sequence is None or not len(words) or len(values) != len(sequence.values):
            continue
        middles = sequence.times.astype(np.float64).mean(1)
        place = np.clip(np.searchsorted(starts, middles, "right") - 1, 0, len(words) - 1)
        sums[modality] = np.zeros(len(words))
        np.add.at(sums[modality], place, np.asarray(values, np.float64))
    return [
        {
            "text": word.text,
            "start": round(word.start + segment.start, 3),
            "stop": round(word.stop + segment.start, 3),
            "confidence": round(word.confidence, 3),
            "contribution": {m: float(sums[m][i]) if m in sums else None for m in modalities},
        }
        for i, word in enumerate(words)
    ]


def _along(segments: Sequence[Segment], modality: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """All steps of a modality ``[L, D]``, sorted by their middles, and their times in the video ``[L, 2]``."""
    values, times = [np.zeros((0, dim), np.float32)], [np.zeros((0, 2))]
    for segment in segments:
        if (sequence := segment.found.sequences.get(modality)) is not None:
            values.append(sequence.values)
            times.append(sequence.times.astype(np.float64) + segment.start)
    together, spans = np.concatenate(values), np.concatenate(times)
    order = np.argsort(spans.mean(1), kind="stable")
    return np.ascontiguousarray(together[order]), spans[order]
