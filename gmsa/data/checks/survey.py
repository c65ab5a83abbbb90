"""Surveys a data set: one pass over its utterances that collects statistics without keeping features."""

# N utterances, L steps of all of them together, D features
from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gmsa.data.mmsa.split import UNREADABLE
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.utterance import Utterance

_STEPS = 4096
"""Steps that are buffered before their moments are added: few enough to hold, many enough for one NumPy call."""


class Moments:
    """Mean, standard deviation and range of each feature ``[D]`` over all steps, in one pass (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = np.zeros(0)
        self.low = self.high = np.zeros(0)
        self._waiting: list[np.ndarray] = []
        self._steps = 0

    def add(self, values: np.ndarray) -> None:
        """Adds a sequence ``[L, D]``, L at least 1."""
        self._waiting.append(values)
        self._steps += len(values)
        if self._steps >= _STEPS:
            self.settle()

    def settle(self) -> Moments:
        """Adds the buffered steps, and returns the moments of all steps so far."""
        if not self._waiting:
            return self
        values = np.concatenate(self._waiting).astype(np.float64)
        self._waiting, self._steps = [], 0
        mean, low, high = values.mean(0), values.min(0), values.max(0)
        squares = np.square(values - mean).sum(0)
        if self.count:
            share = len(values) / (self.count + len(values))
            shift = mean - self.mean
            squares = self.squares + squares + np.square(shift) * self.count * share
            mean = self.mean + shift * share
            low, high = np.minimum(low, self.low), np.maximum(high, self.high)
        self.count += len(values)
        self.mean, self.squares, self.low, self.high = mean, squares, low, high
        return self

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each feature; 0 exactly where it is constant."""
        return np.where(self.low == self.high, 0.0, np.sqrt(self.squares / max(1, self.count)))


@dataclass
class SplitSurvey:
    """Labels, lengths and moments of one split."""

    labels: array[float] = field(default_factory=lambda: array("d"))
    """Labels; NaN if unlabeled."""
    annotations: array[int] = field(default_factory=lambda: array("b"))
    """-1, 0, 1, or -128 for none."""
    lengths: dict[str, array[int]] = field(default_factory=dict)
    """Per modality, the number of steps of each utterance."""
    moments: dict[str, Moments] = field(default_factory=dict)
    """Per modality, the moments of its features."""
    padded: dict[str, int] = field(default_factory=dict)
    """Per modality, the number of sequences that seem to end with padding."""


class Survey:
    """Statistics of a data set, collected in one pass over its utterances.

    Args:
        modalities: modalities to survey.
    """

    def __init__(self, modalities: Iterable[str]) -> None:
        self.modalities = list(modalities)
        self.dims: dict[str, int] = {}
        self.splits: dict[str, SplitSurvey] = {}
        self.ids: list[str] = []
        self.split_of: list[str] = []
        self.digests = array("Q")
        """Hash of all features of each utterance; 0 if it has none."""
        self.shown = array("b")
        """Number of modalities that each utterance has."""
        self.labels = array("d")
        """Label of each utterance; NaN if unlabeled."""
        self.videos: list[str] = []
        self.speakers: list[str] = []
        self.texts = array("Q")
        """Hash of the words of each utterance; 0 if it has none."""
        self.unreadable: dict[str, list[str]] = defaultdict(list)
        """Ids of the utterances whose transcripts hold bytes that are not UTF-8, by split."""
        self.not_finite: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        """Ids of the utterances with such values, by (split, modality, NaN or infinity)."""

    def add(self, row: Row) -> None:
        """Adds an utterance."""
        name, utterance, annotation, *_ = row
        split = self.splits.get(name)
        if split is None:
            split = self.splits[name] = SplitSurvey()
            split.lengths = {m: array("q") for m in self.modalities}
            split.moments = {m: Moments() for m in self.modalities}
            split.padded = dict.fromkeys(self.modalities, 0)
        self.ids.append(utterance.id)
        self.split_of.append(name)
        self.videos.append(utterance.video)
        self.speakers.append(utterance.speaker)
        text = re.sub(r"\W+", "", utterance.text.casefold()).encode()
        self.texts.append(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") if text else 0)
        if UNREADABLE in utterance.text:
            self.unreadable[name].append(utterance.id)
        label = float("nan") if utterance.label is None else utterance.label
        self.labels.append(label)
        split.labels.append(label)
        split.annotations.append(annotation)
        self._add_features(name, split, utterance)

    def _add_features(self, name: str, split: SplitSurvey, utterance: Utterance) -> None:
        digest, shown = hashlib.blake2b(digest_size=8), 0
        ends: dict[str, tuple[int, bool]] = {}
        for modality in self.modalities:
            sequence = utterance.features.get(modality)
            length = 0 if sequence is None else len(sequence)
            split.lengths[modality].append(length)
            if sequence is not None and sequence.shape[1]:
                self.dims.setdefault(modality, sequence.shape[1])
            if sequence is None or not length:
                continue
            values = sequence.numpy()
            if not np.isfinite(values).all():
                for kind, wrong in (("NaN", np.isnan(values)), ("infinity", np.isinf(values))):
                    if wrong.any():
                        self.not_finite[name, modality, kind].append(utterance.id)
                values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
            digest.update(f"{modality}{length} ".encode())
            digest.update(np.ascontiguousarray(values).data)
            shown += 1
            ends[modality] = length, bool(values[-2:].any())
            split.moments[modality].add(values)
        for modality, (length, last) in ends.items():
            # One step of zeros may be a word without features, and where modalities are aligned, others have it.
            if length > 2 and not last and not any(full for steps, full in ends.values() if steps == length):
                split.padded[modality] += 1
        self.shown.append(shown)
        self.digests.append(int.from_bytes(digest.digest(), "little") if shown else 0)

    @property
    def annotated(self) -> bool:
        """Whether any utterance has an annotation."""
        return any(set(split.annotations) - {NOT_ANNOTATED} for split in self.splits.values())


def repeated(values: Iterable[object]) -> list[list[int]]:
    """Returns the positions of each value that occurs more than once, in the order of its first position."""
    places: dict[object, list[int]] = defaultdict(list)
    for place, value in enumerate(values):
        places[value].append(place)
    return [found for found in places.values() if len(found) > 1]
