"""Derives findings (errors, warnings, notes) from the survey of a data file or feature store."""

# N utterances, D features
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmsa.config import MODALITIES, DataConfig
from gmsa.data.checks.survey import SplitSurvey, Survey, repeated
from gmsa.data.labels import Column, label_notes
from gmsa.data.mmsa.faults import counted
from gmsa.data.mmsa.split import UNREADABLE
from gmsa.data.notes import Doubt
from gmsa.data.splits import POOL
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.data.targets import Target
from gmsa.errors import cut, listed, shown

RATIO = 3.0
"""The scale of a feature differs between two splits if the ratio of its standard deviations exceeds this factor."""
SHIFT = 1.0
"""The scale of a feature differs between two splits if its means differ by more than this many standard deviations.

The deviation is that of train. By chance, means of N utterances differ by 1 / sqrt(N): 0.1 for a hundred."""
MANY = 0.05
"""Share of a modality's features with differing scale from which that is a finding."""
FEW = 20
"""Steps, at least, that tell the scale of a split."""
LARGE = 100.0
"""Standard deviation of a feature above which its scale is worth a note."""
LONG = 10
"""A sequence is long if it has more than this many times the median number of steps."""
CUT = 0.1
"""Share of sequences with the greatest length, or with zeros at the end, from which they look truncated or padded."""
LEAST = 10
"""Steps of the longest sequence, at least, where lengths are compared: shorter ones are as they are by chance."""
IMBALANCE = 20
"""How many times as frequent a class may be as another."""
SHOWN = 3
"""Number of examples that a finding lists."""
SEVERITIES = ("error", "warning", "note")

KNOWN = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": "MOSI/Processed/unaligned_50.pkl",
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": "MOSI/Processed/aligned_50.pkl",
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": "MOSEI/Processed/unaligned_50.pkl",
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": "MOSEI/Processed/aligned_50.pkl",
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": "SIMS/Processed/unaligned_39.pkl",
}
"""Files published by MMSA, by SHA-256."""
_PUBLISHED = ((768, 5, 20), (768, 74, 35), (768, 33, 709))
"""Features per step of their text, audio and vision."""


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    severity: str
    """``error``: training or its scores would be wrong; ``warning``: they may be wrong; ``note``: information."""
    what: str
    """What was found."""
    where: str = ""
    """Splits that are concerned."""
    count: int = 1
    """Number of utterances, or of features, that are concerned."""
    examples: tuple[str, ...] = ()
    """Ids of some of the utterances."""


def findings_of(survey: Survey, target: Target | None = None, normalized: Sequence[str] | None = None) -> list[Finding]:
    """Returns the findings of a survey, errors first.

    Args:
        survey: the survey of all utterances.
        target: what the labels are (default: intensities in [-3, 3]).
        normalized: modalities that training normalizes (default: as ``data.normalize: auto``).
    """
    target = target or Target()
    scaled = DataConfig().normalized(survey.modalities) if normalized is None else normalized
    found = [
        *_not_finite(survey),
        *_ids(survey),
        *_groups(survey),
        *_labels(survey, target),
        *(_imbalance(survey, target) if target.is_classes else _annotations(survey)),
        *_duplicates(survey, target),
        *_lengths(survey),
        *_scales(survey, scaled),
    ]
    for name, ids in survey.unreadable.items():
        found.append(finding("note", f"transcript has bytes that are not UTF-8, read as {UNREADABLE}", name, ids))
    return by_severity(found)


def findings_of_labels(survey: Survey, target: Target, where: str) -> list[Finding]:
    """Returns what the notes of a pickle's reader would say of the labels of another source."""
    columns = {}
    for name, split in survey.splits.items():
        values, ids = np.array(split.labels), _ids_of(survey, name)
        place = f"{where}: split {shown(name)}"
        if target.is_classes:
            words = ["" if value != value else target.name_of(value) for value in values.tolist()]
            columns[name] = Column(place, "label", ids, None, words)
        else:
            columns[name] = Column(place, "label", ids, values)
    return [_of_note(text, where) for text in label_notes(columns, target, where)]


def findings_of_notes(notes: Iterable[str], where: str, others: Sequence[Finding]) -> list[Finding]:
    """Returns the notes of training as findings, before those others that say something else.

    Args:
        notes: one line each.
        where: the file, with which they begin.
        others: findings of the survey.
    """
    said = [_of_note(text, where) for text in notes]
    known = {(f.where, modality[1]) for f in said if (modality := re.search("'(.+)' is missing from all", f.what))}
    absent = {(f.where, f.what.partition(" is missing from all")[0]) for f in others} & known
    kept = [f for f in others if (f.where, f.what.partition(" is missing from all")[0]) not in absent]
    return [*said, *kept]


def placed(text: str, where: str) -> tuple[str, str]:
    """Parts a message into what is said, and the split that it is said of."""
    text = text.removeprefix(f"{where}: ")
    split = re.match(r"split '([^']*)': ", text)
    return (text[split.end() :], split[1]) if split else (text, "")


def _of_note(text: str, where: str) -> Finding:
    what, split = placed(text, where)
    return Finding("warning" if isinstance(text, Doubt) else "note", what, split)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sorts findings: errors first, then warnings, then notes."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def recognise(sha256s: Sequence[str], name: str = "", dims: Mapping[str, int] | None = None) -> list[Finding]:
    """Returns a note if a file is one published by MMSA, by its SHA-256, or is not though it looks like one.

    Args:
        sha256s: of the file, or of those that a store was made of.
        name: of the file.
        dims: features per step of its modalities.
    """
    known = [KNOWN[sha256] for sha256 in sha256s if sha256 in KNOWN]
    if known:
        return [Finding("note", f"is MMSA's {known[0]}, byte for byte")]
    alike = tuple((dims or {}).get(modality) for modality in MODALITIES) in _PUBLISHED
    if alike or name in {path.rpartition("/")[2] for path in KNOWN.values()}:
        return [
            Finding("note", "is not one of the files that MMSA publishes, by its SHA-256, though it looks like one")
        ]
    return []


def finding(severity: str, what: str, where: str, ids: Sequence[str]) -> Finding:
    """Returns a finding about these utterances."""
    return Finding(severity, what, where, len(ids), tuple(cut(one) for one in ids[:SHOWN]))


def scale_table(survey: Survey) -> dict[str, dict[str, dict[str, Any]]]:
    """Compares the scale of each feature with ``train``: ratio of deviations and shift of means, by modality and split.

    Features that are constant in either split are omitted.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    train = survey.splits.get("train")
    for modality in survey.modalities if train else ():
        first = train.moments[modality].settle() if train else None
        for name, split in survey.splits.items():
            other = split.moments[modality].settle()
            if name == "train" or first is None or not first.count or not other.count:
                continue
            moving = (first.std > 0) & (other.std > 0)
            ratio = other.std[moving] / first.std[moving]
            shift = np.abs(other.mean - first.mean)[moving] / first.std[moving]
            found.setdefault(modality, {})[name] = {"ratio": ratio.tolist(), "shift": shift.tolist()}
    return found


def _not_finite(survey: Survey) -> Iterable[Finding]:
    for (split, modality, kind), ids in survey.not_finite.items():
        yield finding("error", f"{kind} in {modality}", split, ids)


def _ids(survey: Survey) -> Iterable[Finding]:
    within: dict[str, list[str]] = defaultdict(list)
    across: dict[str, list[str]] = defaultdict(list)
    for places in repeated(survey.ids):
        splits = list(dict.fromkeys(survey.split_of[place] for place in places))
        group = across if len(splits) > 1 else within
        group[", ".join(splits)].append(survey.ids[places[0]])
    for where, ids in within.items():
        yield finding("error", "duplicate id", where, ids)
    for where, ids in across.items():
        yield finding("error", "duplicate id in two splits", where, ids)


def _groups(survey: Survey) -> Iterable[Finding]:
    """Videos and speakers of two splits."""
    for names, severity, what in (
        (survey.videos, "warning", "the same video in two splits: its speaker is known from training"),
        (survey.speakers, "note", "the same speaker in two splits: scores do not tell of speakers that are not known"),
    ):
        splits: dict[str, set[str]] = defaultdict(set)
        for name, split in zip(names, survey.split_of, strict=True):
            if name and split != POOL:
                splits[name].add(split)
        both = {name: found for name, found in splits.items() if len(found) > 1}
        if both:
            concerned = set().union(*both.values())
            yield finding(severity, what, ", ".join(n for n in survey.splits if n in concerned), list(both))


def _labels(survey: Survey, target: Target) -> Iterable[Finding]:
    for name, split in survey.splits.items():
        values, ids = np.array(split.labels), _ids_of(survey, name)
        unlabeled = np.flatnonzero(np.isnan(values))
        if len(unlabeled) == len(values):
            if name != POOL:
                yield Finding("note", "no labels", name, len(values))
            continue
        if len(unlabeled) and name in ("valid", "test"):
            yield finding("error", "without a label", name, [ids[i] for i in unlabeled])
        known = values[~np.isnan(values)]
        if len(known) > 1 and known.min() == known.max():
            yield Finding("warning", cut(f"all labels are {_named(target, known[0])}"), name, len(known))


def _named(target: Target, label: float) -> str:
    return shown(target.name_of(label)) if target.is_classes and target.holds(label) else f"{label:g}"


def _imbalance(survey: Survey, target: Target) -> Iterable[Finding]:
    """A class that is much rarer in training than another."""
    train = survey.splits.get("train")
    labels = np.array(train.labels) if train else np.zeros(0)
    counts = np.bincount(labels[~np.isnan(labels)].astype(np.int64), minlength=len(target.classes))
    present = np.flatnonzero(counts)
    if len(present) and counts.max() > IMBALANCE * counts[present].min():
        few, many = int(present[counts[present].argmin()]), int(counts.argmax())
        what = (
            f"class {_named(target, few)} has {counted(int(counts[few]), 'label')}, "
            f"{_named(target, many)} {counts[many]:,}: "
            "loss.class_weights: balanced weighs rare classes more, and macro_F1 counts all alike"
        )
        yield Finding("note", what, "train", int(counts[few]))


def _annotations(survey: Survey) -> Iterable[Finding]:
    words = {-1: "Negative", 0: "Neutral", 1: "Positive"}
    for name, split in survey.splits.items():
        values, notes = np.array(split.labels), np.array(split.annotations, np.int64)
        known = ~np.isnan(values) & (notes != NOT_ANNOTATED)
        unlike = known & (np.sign(values) != notes)
        opposite = unlike & (np.sign(values) * notes == -1)
        ids = _ids_of(survey, name)
        for severity, what, where in (
            ("error", "label and annotation of opposite sign", opposite),
            ("warning", "neutral by label or by annotation, but not by both", unlike & ~opposite),
        ):
            if where.any():
                rows = np.flatnonzero(where)
                yield finding(severity, what, name, [f"{ids[i]}: {values[i]:g}, {words[int(notes[i])]}" for i in rows])


def _duplicates(survey: Survey, target: Target) -> Iterable[Finding]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    unlike, where_unlike = [], set()
    for places in repeated(digest or -place - 1 for place, digest in enumerate(survey.digests)):
        splits = [name for name in survey.splits if name in {survey.split_of[place] for place in places}]
        first = places[0]
        other = next((p for p in places if abs(survey.labels[p] - survey.labels[first]) > 0), None)
        if other is not None:
            pair = (f"{survey.ids[p]}: {_named(target, survey.labels[p])}" for p in (first, other))
            unlike.append(", ".join(pair))
            where_unlike |= set(splits)
        # Two short utterances may have the same words; audio and vision of two clips are not equal.
        if survey.shown[first] == 1 and survey.texts[first] and len({survey.texts[p] for p in places}) == 1:
            continue
        severity = "error" if len(splits) > 1 and survey.shown[first] > 1 else "warning"
        groups[severity, ", ".join(splits)].append(" = ".join(survey.ids[place] for place in places[:2]))
    for (severity, where), pairs in groups.items():
        yield finding(severity, "equal features in all modalities", where, pairs)
    if unlike:
        where = ", ".join(name for name in survey.splits if name in where_unlike)
        yield finding("note", "equal features in all modalities, but different labels", where, unlike)


def _lengths(survey: Survey) -> Iterable[Finding]:
    truncated: dict[int, _Some] = defaultdict(_Some)
    padded = _Some()
    for name, split in survey.splits.items():
        lengths = {m: np.array(split.lengths[m]) for m in survey.modalities}
        nothing = np.flatnonzero(sum(lengths.values()) == 0)
        if len(nothing):
            ids = _ids_of(survey, name)
            yield finding("warning", "all modalities missing", name, [ids[i] for i in nothing])
        for modality, found in lengths.items():
            yield from _lengths_of(modality, found, name, survey)
            present = int((found > 0).sum())
            longest, reached = _cut_at(found)
            if reached:
                truncated[longest].add(modality, name, reached, present)
            if split.padded[modality] >= max(2, CUT * present):
                padded.add(modality, name, split.padded[modality], present)
    for longest, some in truncated.items():
        yield some.finding(f"of the sequences have {longest} steps, none more: longer ones look truncated")
    if padded.count:
        yield padded.finding(
            "of the sequences end with two or more steps of zeros, as padding does; give the real lengths by the keys "
            "'..._lengths', or save them without padding"
        )


class _Some:
    """Sequences of some modalities and splits, of which the same is said."""

    def __init__(self) -> None:
        self.modalities: dict[str, None] = {}
        self.splits: dict[str, None] = {}
        self.count = self.total = 0

    def add(self, modality: str, split: str, count: int, total: int) -> None:
        self.modalities[modality] = self.splits[split] = None
        self.count += count
        self.total += total

    def finding(self, what: str) -> Finding:
        share = f"{listed(self.modalities)}: {self.count / self.total:.0%}"
        return Finding("note", f"{share} {what}", ", ".join(self.splits), self.count)


def _cut_at(lengths: np.ndarray) -> tuple[int, int]:
    """The greatest length, and how many sequences have it, if that looks like a cut; else 0."""
    present = lengths[lengths > 0]
    longest = int(present.max()) if len(present) else 0
    reached = int((present == longest).sum())
    near = int(((present >= 0.9 * longest) & (present < longest)).sum())
    varied = longest >= LEAST and reached < len(present)
    return longest, reached if varied and reached >= max(5, CUT * len(present)) and reached > 3 * near else 0


def _lengths_of(modality: str, lengths: np.ndarray, name: str, survey: Survey) -> Iterable[Finding]:
    present = lengths[lengths > 0]
    if not len(present):
        yield Finding("warning", f"{modality} is missing from all utterances", name, len(lengths))
        return
    if len(present) < len(lengths):
        share = 1 - len(present) / len(lengths)
        yield Finding("note", f"{modality} is missing in {share:.1%}", name, len(lengths) - len(present))
    longest, middle = int(present.max()), float(np.median(present))
    far = np.flatnonzero(lengths > LONG * middle)
    if len(far) and longest >= LEAST:
        ids = _ids_of(survey, name)
        what = f"{modality} longer than {LONG} times the median of {middle:g} steps"
        yield finding("note", what, name, [f"{ids[i]}: {lengths[i]}" for i in far])


def _scales(survey: Survey, normalized: Sequence[str]) -> Iterable[Finding]:
    for modality in survey.modalities:
        name = next((name for name, s in _train_first(survey) if s.moments[modality].settle().count > 1), None)
        if name is None:
            continue
        first = survey.splits[name].moments[modality]
        constant, largest = int((first.std == 0).sum()), float(first.std.max())
        if constant == len(first.std):
            yield Finding("warning", f"all {constant} features of {modality} are constant", name, constant)
        elif constant and modality in normalized:
            what = f"{constant} of {len(first.std)} features of {modality} are constant; normalized, they become 0"
            yield Finding("note", what, name, constant)
        if largest > LARGE and modality not in normalized:
            what = (
                f"features of {modality} vary by up to {largest:.3g} (standard deviation) and are not normalized; "
                f"list {modality} in data.normalize, too"
            )
            yield Finding("note", what, name, int((first.std > LARGE).sum()))
    for modality, splits in scale_table(survey).items():
        for name, table in splits.items():
            ratio, shift = np.array(table["ratio"]), np.array(table["shift"])
            unlike = (ratio > RATIO) | (ratio < 1 / RATIO) | (shift > SHIFT)
            known = survey.splits[name].moments[modality].count >= FEW
            if known and len(unlike) and unlike.mean() >= MANY:
                what = (
                    f"{unlike.sum()} of {len(ratio)} features of {modality} are on another scale than in train "
                    f"(deviation beyond a factor of {RATIO:g}, or mean beyond {SHIFT:g} deviation)"
                )
                yield Finding("warning", what, name, int(unlike.sum()))


def _train_first(survey: Survey) -> list[tuple[str, SplitSurvey]]:
    return sorted(survey.splits.items(), key=lambda item: item[0] != "train")


def _ids_of(survey: Survey, split: str) -> list[str]:
    return [identity for identity, name in zip(survey.ids, survey.split_of, strict=True) if name == split]
