"""Reads a data file or a feature store for a check, and continues after errors where it can."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import MODALITIES
from gmsa.data.checks.findings import Finding, by_severity, finding, findings_of, recognise, scale_table
from gmsa.data.checks.survey import Survey
from gmsa.data.importers.mmsa import annotations_of
from gmsa.data.mmsa import Split, split_columns
from gmsa.data.mmsa.sequences import as_array
from gmsa.data.mmsa.split import UNREADABLE
from gmsa.data.store.files import MANIFEST
from gmsa.data.store.store import Store, is_store
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.targets import scale_limit, target_of_scale
from gmsa.data.unpickling import load_pickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, short, shown
from gmsa.system.files import check_name, sha256_of
from gmsa.system.reading import is_folder, open_regular

Track = Callable[[Iterable[Row], int], Iterable[Row]]
"""Function ``(rows, count) -> rows`` that passes the rows on and shows progress."""


@dataclass(frozen=True)
class Examined:
    """The result of a check."""

    path: str
    sha256: str
    """SHA-256 of the file, or of the store's manifest."""
    kind: str
    """``pickle`` or ``store``."""
    labels: str
    """Label scale of the check."""
    size: int
    """Bytes on disk."""
    dtypes: Mapping[str, str]
    """Stored type of each modality."""
    source: Mapping[str, Any]
    """Provenance of a store; empty for a file."""
    survey: Survey
    """Statistics of the utterances."""
    findings: list[Finding]
    """Findings, errors first."""


def examine(path: Path, labels: str | None = None, track: Track | None = None) -> Examined:
    """Checks all values of a pickle in MMSA's format or of a feature store; verifies the hashes of a store too.

    Args:
        path: the pickle or the store.
        labels: label scale (default: that of the store, or ``mosi``).
        track: shows progress (default: none).

    Raises:
        DataError: the path cannot be read at all: it is missing, unsafe, of another format, or a truncated store.
    """
    check_name(path, DataError)
    passed: Track = track or (lambda rows, _: rows)
    if is_store(path):
        return _examine_store(Store(path), labels, passed)
    if path.suffix.lower() == ".csv" or is_folder(path, DataError):
        raise DataError(f"'{short(path)}' is neither a pickle nor a feature store; import it with 'gmsa data import'")
    content = split_columns(load_pickle(path), short(path))
    found: list[Finding] = []
    readers = {name: reader for name, columns in content.items() if (reader := _reader(name, columns, path, found))}
    if not readers:
        raise DataError(f"{short(path)}: no split can be read: {found[0].what}")
    found += _unlike_dims(readers)
    rows = [row for name, reader in readers.items() for row in _rows_of(name, reader, labels or "mosi", found)]
    survey = _survey(passed(rows, len(rows)), [m for m in MODALITIES if any(m in r.columns for r in readers.values())])
    sha256 = sha256_of(path, DataError)
    found = [recognise([sha256]), *found, *findings_of(survey, labels or "mosi")]
    dtypes = {m: _dtype([r.columns[m] for r in readers.values() if m in r.columns]) for m in survey.modalities}
    size = _bytes_of(path)
    return Examined(str(path), sha256, "pickle", labels or "mosi", size, dtypes, {}, survey, by_severity(found))


def to_json(examined: Examined) -> dict[str, Any]:
    """Converts the result of a check to JSON values."""
    survey = examined.survey
    splits = {name: (np.array(split.labels), split.lengths) for name, split in survey.splits.items()}
    return {
        **_facts(examined.path, examined.sha256, examined.kind, examined.labels, examined.size),
        "dims": {m: survey.dims[m] for m in survey.modalities if m in survey.dims},
        "dtypes": dict(examined.dtypes),
        "source": dict(examined.source),
        "splits": _splits(splits, scale_limit(examined.labels)),
        "scales": scale_table(survey),
        "findings": [{**dataclasses.asdict(f), "examples": list(f.examples)} for f in examined.findings],
    }


def overview(path: Path) -> dict[str, Any]:
    """Describes a file or store as :func:`to_json` does, without findings; reads no features of a store.

    Raises:
        DataError: the path cannot be read at all.
    """
    check_name(path, DataError)
    if not is_store(path):
        found = to_json(examine(path))
        return {key: value for key, value in found.items() if key not in ("scales", "findings")}
    store = Store(path)
    manifest = store.manifest
    rows = {name: range(split.start, split.stop) for name, split in manifest.splits.items()}
    splits = {
        n: (store.labels[r.start : r.stop], {m: store.lengths(m, r) for m in store.dims}) for n, r in rows.items()
    }
    return {
        **_facts(str(path), store.sha256, "store", manifest.labels, _size(store)),
        "dims": store.dims,
        "dtypes": {m: stored.dtype for m, stored in manifest.modalities.items()},
        "source": dict(manifest.source),
        "splits": _splits(splits, scale_limit(manifest.labels)),
    }


def _facts(path: str, sha256: str, kind: str, labels: str, size: int) -> dict[str, Any]:
    return {"path": path, "sha256": sha256, "kind": kind, "labels": labels, "bytes": size}


def _size(store: Store) -> int:
    return sum(file.bytes for file in store.manifest.files.values()) + _bytes_of(store.path / MANIFEST)


def _bytes_of(path: Path) -> int:
    with open_regular(path, kind=DataError) as file:
        return os.fstat(file.fileno()).st_size


def _splits(splits: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]], bound: float) -> dict[str, Any]:
    return {
        name: {
            "utterances": len(labels),
            "labels": _histogram(labels, bound),
            "lengths": {m: _lengths(np.array(steps)) for m, steps in lengths.items()},
        }
        for name, (labels, lengths) in splits.items()
    }


def _histogram(labels: np.ndarray, bound: float) -> dict[str, Any]:
    """Histogram of the labels with 24 bins; labels beyond the scale count in the outer bins."""
    known = labels[~np.isnan(labels)]
    counts, edges = np.histogram(np.clip(known, -bound, bound), 24, (-bound, bound))
    mean = float(known.mean()) if len(known) else None
    return {"labeled": len(known), "mean": mean, "edges": edges.tolist(), "counts": counts.tolist()}


def _lengths(lengths: np.ndarray) -> dict[str, Any]:
    """Number of utterances that have the modality, and the distribution of their lengths."""
    present = lengths[lengths > 0]
    found: dict[str, Any] = {"present": len(present)}
    if len(present):
        counts, edges = np.histogram(present, min(40, int(present.max())), (0.5, float(present.max()) + 0.5))
        found |= {"min": int(present.min()), "mean": float(present.mean()), "max": int(present.max())}
        found |= {"edges": edges.tolist(), "counts": counts.tolist()}
    return found


def _survey(rows: Iterable[Row], modalities: Iterable[str]) -> Survey:
    survey = Survey(modalities)
    for row in rows:
        survey.add(row)
    return survey


def _examine_store(store: Store, labels: str | None, track: Track) -> Examined:
    found = []
    for name, file in store.manifest.files.items():
        if sha256_of(store.path / name, DataError) != file.sha256:
            what = "SHA-256 differs from that of the import: the file is damaged or was changed; import the data again"
            found.append(Finding("error", what, name))
    survey = _survey(track(_stored_rows(store), len(store)), store.dims)
    labels = labels or store.manifest.labels
    files = store.manifest.source.get("files")
    hashes = [str(file.get("sha256")) for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    found = [recognise(hashes), *found, *findings_of(survey, labels)]
    size = _size(store)
    dtypes = {m: stored.dtype for m, stored in store.manifest.modalities.items()}
    source = store.manifest.source
    return Examined(str(store.path), store.sha256, "store", labels, size, dtypes, source, survey, by_severity(found))


def _stored_rows(store: Store) -> Iterator[Row]:
    for name, split in store.manifest.splits.items():
        for row, utterance in zip(range(split.start, split.stop), store.split(name), strict=True):
            yield Row(name, utterance, NOT_ANNOTATED if store.annotations is None else int(store.annotations[row]))


def _reader(name: str, columns: Mapping[str, Any], path: Path, found: list[Finding]) -> Split | None:
    """Reads a split; omits unreadable modalities, replaces values that are not finite by 0, and records both."""
    where = f"{short(path)}: split {shown(name)}"
    try:
        reader = Split(dict(columns), where)
    except DataError as error:
        found.append(Finding("error", _reason(error, where), name))
        return None
    for modality in MODALITIES:
        if modality not in columns:
            continue
        try:
            sequences = reader.sequences(modality)
        except DataError as error:
            found.append(Finding("error", _reason(error, where), name))
            del reader.columns[modality]  # type: ignore[attr-defined]
            continue
        wrong: dict[str, list[str]] = {"NaN": [], "infinity": []}
        items = list(sequences.items)
        for i, value in enumerate(columns[modality]):
            length = None if sequences.lengths is None else sequences.lengths[i]
            raw = np.asarray(value)[:length] if np.ndim(value) == 2 else np.asarray(value)
            if raw.dtype.kind == "f" and not np.isfinite(raw).all():
                if np.isnan(raw).any():
                    wrong["NaN"].append(reader.ids[i])
                if np.isinf(raw).any():
                    wrong["infinity"].append(reader.ids[i])
                items[i] = np.nan_to_num(items[i], nan=0.0, posinf=0.0, neginf=0.0)
        reader._sequences[modality] = replace(sequences, items=items)
        for kind, ids in wrong.items():
            if ids and kind == "infinity" and modality == "audio":
                found.append(finding("note", "infinity in audio, read as 0", name, ids))
            elif ids:
                found.append(finding("error", f"{kind} in {modality}", name, ids))
    return reader


def _unlike_dims(readers: Mapping[str, Split]) -> Iterator[Finding]:
    for modality in MODALITIES:
        dims = {name: reader.sequences(modality).dim for name, reader in readers.items()}
        if len({dim for dim in dims.values() if dim}) > 1:
            said = ", ".join(f"{dim} in {name}" for name, dim in dims.items() if dim)
            yield Finding("error", f"{modality} differs in features per step: {said}", ", ".join(dims))
            for name, reader in readers.items():
                if dims[name] != next(filter(None, dims.values())):
                    reader.columns.pop(modality, None)  # type: ignore[attr-defined]
                    reader._sequences.pop(modality)


def _rows_of(name: str, reader: Split, labels: str, found: list[Finding]) -> list[Row]:
    dims = {m: dim for m in MODALITIES if (dim := reader.sequences(m).dim)}
    try:
        features = reader.features(dims)
    except DataError as error:
        found.append(Finding("error", _reason(error, reader.where), name))
        features = [{} for _ in reader.ids]
    targets: list[float] = [float("nan")] * len(reader.ids)
    if "regression_labels" in reader.columns:
        try:
            targets = reader._numbers("regression_labels")
        except DataError as error:
            found.append(Finding("error", _reason(error, reader.where), name))
        if nameless := [i for i, t in zip(reader.ids, targets, strict=True) if t != t or abs(t) == float("inf")]:
            found.append(finding("error", "label is NaN or infinite", name, nameless))
    for key in [key for key in reader.columns if key.startswith("regression_labels_")]:
        try:
            reader.labels(target_of_scale(labels), key)
        except DataError as error:
            found.append(Finding("error", _reason(error, reader.where), name))
    try:
        texts = reader.texts()
        if other := [i for i, text in zip(reader.ids, texts, strict=True) if UNREADABLE in text]:
            found.append(finding("note", f"transcript has bytes that are not UTF-8, read as {UNREADABLE}", name, other))
    except DataError as error:
        found.append(Finding("error", _reason(error, reader.where), name))
    notes = annotations_of(reader.columns, len(reader.ids))
    return [
        Row(name, Utterance(identity, one, target if abs(target) < float("inf") else None), note)
        for identity, one, target, note in zip(reader.ids, features, targets, notes, strict=True)
    ]


def _dtype(columns: list[Any]) -> str:
    found = {str(column.dtype if isinstance(column, np.ndarray) else as_array(column[0]).dtype) for column in columns}
    return "/".join(sorted(found))


def _reason(error: DataError, where: str) -> str:
    return str(error).removeprefix(f"{where}: ")
