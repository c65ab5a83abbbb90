"""Checks or describes a data file or a feature store, whatever its format."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gmsa.config import DataConfig, TargetConfig
from gmsa.data.checks.findings import (
    Finding,
    by_severity,
    findings_of,
    findings_of_labels,
    findings_of_notes,
    placed,
    recognise,
    scale_table,
)
from gmsa.data.checks.reading import Reading, read_data
from gmsa.data.checks.survey import Survey
from gmsa.data.lazy import taken
from gmsa.data.normalize import Normalizer
from gmsa.data.notes import collected, note
from gmsa.data.splits import SPLITS
from gmsa.data.store.files import CLIPS
from gmsa.data.store.store import Store, StoredUtterances
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.targets import Target, describe_target
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, short
from gmsa.system.files import sha256_of

Track = Callable[[Iterable[Row], int], Iterable[Row]]
"""Function ``(rows, count) -> rows`` that passes the rows on and shows progress."""


@dataclass(frozen=True)
class Examined:
    """The result of a check."""

    reading: Reading
    """What was read."""
    survey: Survey
    """Statistics of the utterances."""
    findings: list[Finding]
    """Findings, errors first."""


def examine(
    path: Path, data: DataConfig | None = None, target: TargetConfig | None = None, track: Track | None = None
) -> Examined:
    """Checks all values of a file, folder or store, and what training would say of it; verifies a store's hashes too.

    Args:
        path: what to check.
        data: the group ``data`` of a config (default: its defaults).
        target: the group ``target`` (default: that of a store, else its defaults).
        track: shows progress (default: none).

    Raises:
        DataError: the path cannot be read at all: it is missing, unsafe, of another format, or a truncated store.
    """
    reading = read_data(path, data, target, faulty=True)
    passed: Track = track or (lambda rows, _: rows)
    survey = Survey(reading.dims)
    for row in passed(_rows(reading), sum(map(len, reading.splits.values()))):
        survey.add(row)
    normalized = (data or DataConfig()).normalized(reading.dims)
    found = [*reading.faults, *findings_of(survey, reading.target, normalized)]
    if reading.kind == "store":
        found = [*_damaged(Store(path)), *_other_statistics(Store(path)), *found]
    if reading.kind != "pickle":  # the notes of a pickle's reader tell of them
        found += findings_of_labels(survey, reading.target, short(path))
    found = findings_of_notes(reading.notes, short(path), found)
    found += _stops(reading, survey, found, short(path))
    return Examined(reading, survey, by_severity([*recognise(_hashes(reading), path.name, reading.dims), *found]))


def to_json(examined: Examined) -> dict[str, Any]:
    """Converts the result of a check to JSON values."""
    findings = [{**dataclasses.asdict(f), "examples": list(f.examples)} for f in examined.findings]
    return {**describe(examined.reading), "scales": scale_table(examined.survey), "findings": findings}


def overview(path: Path, data: DataConfig | None = None, target: TargetConfig | None = None) -> dict[str, Any]:
    """Describes a file, folder or store as :func:`to_json` does, without findings; reads no features of a store.

    Notes tell what those of training tell, and what would stop it.

    Raises:
        DataError: the path cannot be read at all.
    """
    reading = read_data(path, data, target)
    for text in (*reading.notes, *([reading.error] if reading.error else [])):
        note(text)
    return describe(reading)


def describe(reading: Reading) -> dict[str, Any]:
    """The facts of what was read as JSON values."""
    target = reading.target
    return {
        "path": reading.path,
        "sha256": reading.sha256,
        "kind": reading.kind,
        "labels": target.metrics,
        "target": {**dataclasses.asdict(target), "classes": list(target.classes), "text": describe_target(target)},
        "bytes": reading.size,
        "dims": dict(reading.dims),
        "dtypes": dict(reading.dtypes),
        "source": dict(reading.source),
        "splits": {name: _split(utterances, reading) for name, utterances in reading.splits.items()},
        "error": reading.error,
    }


def _split(utterances: Sequence[Utterance], reading: Reading) -> dict[str, Any]:
    stored = utterances if isinstance(utterances, StoredUtterances) else None
    ids = [u.id for u in utterances] if stored is None else stored.ids
    videos = _texts(utterances, "of_video", "video")
    sizes = list(Counter(video or i.partition("$_$")[0] for i, video in zip(ids, videos, strict=True)).values())
    return {
        "utterances": len(utterances),
        "labels": _histogram(_labels(utterances), reading.target),
        "lengths": {m: _lengths(_steps(utterances, m)) for m in reading.dims},
        "videos": len(sizes),
        "per_video": {"min": min(sizes), "median": float(np.median(sizes)), "max": max(sizes)} if sizes else None,
        "speakers": len({*_texts(utterances, "speaker", "speaker")} - {""}),
        "folds": len({*_texts(utterances, "fold", "fold")} - {""}),
    }


def _labels(utterances: Sequence[Utterance]) -> np.ndarray:
    if isinstance(utterances, StoredUtterances):
        return utterances.labels
    return np.array([np.nan if u.label is None else u.label for u in utterances], np.float64)


def _steps(utterances: Sequence[Utterance], modality: str) -> np.ndarray:
    if isinstance(utterances, StoredUtterances):
        store = utterances.store
        return store.lengths(modality, utterances.rows) if modality in store.dims else np.zeros(len(utterances), int)
    return np.array([u.lengths.get(modality, 0) for u in utterances], np.int64)


def _texts(utterances: Sequence[Utterance], attribute: str, column: str) -> list[str]:
    if isinstance(utterances, StoredUtterances) and column not in utterances.store.manifest.columns:
        return [""] * len(utterances)
    return [getattr(utterance, attribute) for utterance in utterances]


def _histogram(labels: np.ndarray, target: Target) -> dict[str, Any]:
    """Histogram of the labels: a bin per class, or 24 of an intensity; labels beyond its range count in the outer ones.

    Classes are also counted by name.
    """
    known = labels[np.isfinite(labels)]
    if target.is_classes:
        bins, ends = len(target.classes), (-0.5, len(target.classes) - 0.5)
    else:
        bins, ends = 24, (target.low, target.high)
    counts, edges = np.histogram(np.clip(known, *ends), max(1, bins), ends if bins else (-0.5, 0.5))
    found: dict[str, Any] = {"labeled": len(known), "mean": float(known.mean()) if len(known) else None}
    if target.is_classes:
        found["classes"] = dict(zip(target.classes, counts.tolist(), strict=bool(bins)))
    elif len(known):
        found |= {"min": float(known.min()), "max": float(known.max())}
    return {**found, "edges": edges.tolist(), "counts": counts.tolist()}


def _lengths(lengths: np.ndarray) -> dict[str, Any]:
    """Number of utterances that have the modality, and the distribution of their lengths."""
    present = lengths[lengths > 0]
    found: dict[str, Any] = {"present": len(present)}
    if len(present):
        counts, edges = np.histogram(present, min(40, int(present.max())), (0.5, float(present.max()) + 0.5))
        found |= {"min": int(present.min()), "mean": float(present.mean()), "max": int(present.max())}
        found |= {"edges": edges.tolist(), "counts": counts.tolist()}
    return found


def _rows(reading: Reading) -> Iterator[Row]:
    for name, utterances in reading.splits.items():
        for utterance in utterances:
            yield Row(name, utterance, reading.annotations.get(utterance.id, NOT_ANNOTATED))


def _damaged(store: Store) -> Iterator[Finding]:
    for name, file in store.manifest.files.items():
        if sha256_of(store.path / name, DataError) != file.sha256:
            what = "SHA-256 differs from that of the import: the file is damaged or was changed; import the data again"
            yield Finding("error", what, name)
    try:
        _ = store.clips
    except DataError as error:
        yield Finding("error", str(error), CLIPS)


def _other_statistics(store: Store) -> Iterator[Finding]:
    if not store.manifest.statistics:
        return
    train = store.split(store.manifest.statistics)
    with collected():  # the note that they are found anew
        found = Normalizer.fit(taken(train, np.arange(len(train))), store.dims, np.inf)
    for modality in store.dims:
        kept, anew = train.statistics(modality), (found.means[modality], found.stds[modality])
        if kept is None or not all(map(_about_equal, kept, anew)):
            what = "means and standard deviations are not those of the training split; import the data again"
            yield Finding("error", what, f"{modality}.statistics.npy")


def _about_equal(one: Tensor, other: Tensor) -> bool:
    return np.allclose(one.numpy(), other.numpy(), 1e-6, 1e-9)


def _hashes(reading: Reading) -> list[str]:
    files = reading.source.get("files")
    known = [str(file.get("sha256")) for file in files if isinstance(file, Mapping)] if isinstance(files, list) else []
    return [reading.sha256, *known]


_KINDS = ("duplicate id", "features per step", "NaN", "infinity", "float32")
"""Words of faults that findings and errors of training name in other sentences."""


def _stops(reading: Reading, survey: Survey, found: Sequence[Finding], where: str) -> list[Finding]:
    """What would stop training, unless a finding tells it: a warning of good data that only lacks splits or labels."""
    what, split = placed(reading.error, where)
    errors = [f.what for f in found if f.severity == "error"]
    told = any(e[:40] in what or any(kind in e and kind in what for kind in _KINDS) for e in errors)
    if not reading.error or told:
        return []
    lacking = [name for name in SPLITS if name not in survey.splits]
    unlabeled = "train" in survey.splits and np.isnan(survey.splits["train"].labels).all()
    good = not reading.bad_labels and not reading.faults and any(survey.shown)
    return [Finding("warning" if (lacking or unlabeled) and good else "error", what, split)]
