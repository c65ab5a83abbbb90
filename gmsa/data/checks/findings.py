"""Derives findings (errors, warnings, notes) from the survey of a data file or feature store."""

# N utterances, D features
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmsa.data.checks.survey import SplitSurvey, Survey, repeated
from gmsa.data.mmsa import SPLITS
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.data.targets import scale_limit
from gmsa.errors import cut

RATIO = 3.0
"""The scale of a feature differs between two splits if the ratio of its standard deviations exceeds this factor."""
SHIFT = 1.0
"""The scale of a feature differs between two splits if its means differ by more than this many standard deviations.

The deviation is that of train. By chance, means of N utterances differ by 1 / sqrt(N): 0.1 for a hundred."""
MANY = 0.05
"""Share of a modality's features with differing scale from which the finding is a warning rather than a note."""
LARGE = 100.0
"""Standard deviation of a feature above which its scale is worth a note."""
LONG = 10
"""A sequence is long if it has more than this many times the median number of steps."""
CUT = 0.1
"""Share of sequences with the greatest length from which they look truncated."""
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


def findings_of(survey: Survey, labels: str) -> list[Finding]:
    """Returns the findings of a survey, errors first.

    Args:
        survey: the survey of all utterances.
        labels: label scale, ``mosi`` or ``sims``.
    """
    found = [
        *_not_finite(survey),
        *_ids(survey),
        *_splits(survey),
        *_labels(survey, labels),
        *_annotations(survey),
        *_duplicates(survey),
        *_lengths(survey),
        *_scales(survey),
    ]
    return by_severity(found)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sorts findings: errors first, then warnings, then notes."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def recognise(sha256s: Sequence[str]) -> Finding:
    """Returns a note that says whether a file is one published by MMSA, by its SHA-256."""
    known = [KNOWN[sha256] for sha256 in sha256s if sha256 in KNOWN]
    if known:
        return Finding("note", f"is MMSA's {known[0]}, byte for byte")
    return Finding("note", "is not one of the files that MMSA publishes, by its SHA-256")


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
    videos: dict[str, set[str]] = defaultdict(set)
    for identity, split in zip(survey.ids, survey.split_of, strict=True):
        video, mark, _ = identity.partition("$_$")
        if mark:
            videos[video].add(split)
    shared: dict[str, list[str]] = defaultdict(list)
    for video, names in videos.items():
        if len(names) > 1:
            shared[", ".join(name for name in survey.splits if name in names)].append(video)
    for where, both in shared.items():
        yield finding("warning", "the same video in two splits: its speaker is known from training", where, both)


def _splits(survey: Survey) -> Iterable[Finding]:
    missing = [name for name in SPLITS if name not in survey.splits]
    if missing:
        yield Finding("warning", f"no split {', '.join(missing)}, which training needs", ", ".join(survey.splits))


def _labels(survey: Survey, labels: str) -> Iterable[Finding]:
    bound, most = scale_limit(labels), 0.0
    for name, split in survey.splits.items():
        values, ids = np.array(split.labels), _ids_of(survey, name)
        unlabeled = np.flatnonzero(np.isnan(values))
        if len(unlabeled) == len(values):
            yield Finding("note", "no labels", name, len(values))
            continue
        if len(unlabeled):
            severity = "error" if name in ("valid", "test") else "note"
            yield finding(severity, "without a label", name, [ids[i] for i in unlabeled])
        beyond = np.flatnonzero(np.abs(values) > bound + 1e-6)
        if len(beyond):
            what = f"label out of [-{bound:g}, {bound:g}], the scale '{labels}'"
            yield finding("error", what, name, [f"{ids[i]}: {values[i]:g}" for i in beyond])
        if len(values) > 1 and np.nanmin(values) == np.nanmax(values):
            yield Finding("warning", f"all labels are {np.nanmin(values):g}", name, len(values))
        most = max(most, float(np.nanmax(np.abs(values))))
    if labels == "mosi" and 0 < most <= scale_limit("sims"):
        yield Finding("warning", f"no label is beyond ±{most:g}: is this the scale 'sims'?", "all splits")


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


def _duplicates(survey: Survey) -> Iterable[Finding]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for places in repeated(digest or -place - 1 for place, digest in enumerate(survey.digests)):
        splits = list(dict.fromkeys(survey.split_of[place] for place in places))
        # Two short transcripts may be equal; audio and vision of two clips are not.
        severity = "error" if len(splits) > 1 and survey.shown[places[0]] > 1 else "warning"
        groups[severity, ", ".join(splits)].append(" = ".join(survey.ids[place] for place in places[:2]))
    for (severity, where), pairs in groups.items():
        yield finding(severity, "equal features in all modalities", where, pairs)


def _lengths(survey: Survey) -> Iterable[Finding]:
    for name, split in survey.splits.items():
        lengths = {m: np.array(split.lengths[m]) for m in survey.modalities}
        nothing = np.flatnonzero(sum(lengths.values()) == 0)
        if len(nothing):
            ids = _ids_of(survey, name)
            yield finding("warning", "all modalities missing", name, [ids[i] for i in nothing])
        for modality, found in lengths.items():
            yield from _lengths_of(modality, found, name, survey)


def _lengths_of(modality: str, lengths: np.ndarray, name: str, survey: Survey) -> Iterable[Finding]:
    present = lengths[lengths > 0]
    if not len(present):
        yield Finding("warning", f"{modality} is missing from all utterances", name, len(lengths))
        return
    if len(present) < len(lengths):
        share = 1 - len(present) / len(lengths)
        yield Finding("note", f"{modality} is missing in {share:.1%}", name, len(lengths) - len(present))
    longest, middle = int(present.max()), float(np.median(present))
    at_most = int((present == longest).sum())
    if longest > 1 and at_most == len(present) and len(present) > 1:
        yield Finding("note", f"all {modality} has {longest} steps, perhaps with padding", name, at_most)
    elif longest > 1 and at_most >= max(2, CUT * len(present)):
        what = f"{modality} has {longest} steps in {at_most / len(present):.1%}: it looks truncated"
        yield Finding("note", what, name, at_most)
    far = np.flatnonzero(lengths > LONG * middle)
    if len(far):
        ids = _ids_of(survey, name)
        what = f"{modality} longer than {LONG} times the median of {middle:g} steps"
        yield finding("note", what, name, [f"{ids[i]}: {lengths[i]}" for i in far])


def _scales(survey: Survey) -> Iterable[Finding]:
    for modality in survey.modalities:
        name = next((name for name, s in _train_first(survey) if s.moments[modality].settle().count > 1), None)
        if name is None:
            continue
        first = survey.splits[name].moments[modality]
        constant = int((first.std == 0).sum())
        if constant:
            severity = "warning" if constant == len(first.std) else "note"
            what = f"{constant} of {len(first.std)} features of {modality} are constant; normalized, they become 0"
            yield Finding(severity, what, name, constant)
        largest = float(first.std.max())
        if largest > LARGE:
            what = f"features of {modality} vary by up to {largest:.3g} (standard deviation): keep it in data.normalize"
            yield Finding("note", what, name, int((first.std > LARGE).sum()))
    for modality, splits in scale_table(survey).items():
        for name, table in splits.items():
            ratio, shift = np.array(table["ratio"]), np.array(table["shift"])
            unlike = (ratio > RATIO) | (ratio < 1 / RATIO) | (shift > SHIFT)
            if unlike.any():
                severity = "warning" if unlike.mean() >= MANY else "note"
                what = (
                    f"{unlike.sum()} of {len(ratio)} features of {modality} are on another scale than in train "
                    f"(deviation beyond a factor of {RATIO:g}, or mean beyond {SHIFT:g} deviation)"
                )
                yield Finding(severity, what, name, int(unlike.sum()))


def _train_first(survey: Survey) -> list[tuple[str, SplitSurvey]]:
    return sorted(survey.splits.items(), key=lambda item: item[0] != "train")


def _ids_of(survey: Survey, split: str) -> list[str]:
    return [identity for identity, name in zip(survey.ids, survey.split_of, strict=True) if name == split]
