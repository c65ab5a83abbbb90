"""Reads a data file or a feature store for a check, past what is wrong with it as far as that goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import MODALITIES
from gmsa.data.checks.findings import Finding, by_severity, finding, findings_of, recognise, scale_table
from gmsa.data.checks.survey import Survey
from gmsa.data.importers.mmsa import annotations_of, split_columns
from gmsa.data.mmsa import Split
from gmsa.data.store.files import MANIFEST
from gmsa.data.store.store import Store, is_store
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.targets import limit
from gmsa.data.unpickling import load_pickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError
from gmsa.system.files import sha256_of

Track = Callable[[Iterable[Row], int], Iterable[Row]]
"""Passes rows on, of which there are so many, and shows how far it is."""


@dataclass(frozen=True)
class Examined:
    """What a check has found."""

    path: str
    sha256: str
    """Of the file; of a store's manifest."""
    kind: str
    """``pickle`` or ``store``."""
    labels: str
    """Label scale that it was checked against."""
    size: int
    """Bytes on disk."""
    dtypes: Mapping[str, str]
    """Type of each modality, as it is stored."""
    source: Mapping[str, Any]
    """Where a store is from; empty for a file."""
    survey: Survey
    findings: list[Finding]


def examine(path: Path, labels: str | None = None, track: Track | None = None) -> Examined:
    """Looks at everything in a pickle in MMSA's format, or in a feature store, whose hashes are verified too.

    Args:
        labels: label scale; the store's own, or ``mosi``, where it is left out.

    Raises:
        DataError: it cannot be read at all: missing, unsafe, neither of the two, or a store that is cut short.
    """
    passed: Track = track or (lambda rows, _: rows)
    if is_store(path):
        return _examine_store(Store(path), labels, passed)
    if path.suffix.lower() == ".csv" or path.is_dir():
        raise DataError(f"'{path}' is neither a data file nor a store; make a store of it: python -m gmsa.data import")
    content = split_columns(load_pickle(path), str(path))
    found: list[Finding] = []
    readers = {name: reader for name, columns in content.items() if (reader := _reader(name, columns, path, found))}
    if not readers:
        raise DataError(f"{path}: no split can be read: {found[0].what}")
    found += _unlike_dims(readers)
    rows = [row for name, reader in readers.items() for row in _rows_of(name, reader, labels or "mosi", found)]
    survey = _survey(passed(rows, len(rows)), [m for m in MODALITIES if any(m in r.columns for r in readers.values())])
    sha256 = sha256_of(path)
    found = [recognise([sha256]), *found, *findings_of(survey, labels or "mosi")]
    dtypes = {m: _dtype([r.columns[m] for r in readers.values() if m in r.columns]) for m in survey.modalities}
    size = path.stat().st_size
    return Examined(str(path), sha256, "pickle", labels or "mosi", size, dtypes, {}, survey, by_severity(found))


def to_json(examined: Examined) -> dict[str, Any]:
    """What a check has found, as plain values."""
    survey = examined.survey
    splits = {name: (np.array(split.labels), split.lengths) for name, split in survey.splits.items()}
    return {
        **_facts(examined.path, examined.sha256, examined.kind, examined.labels, examined.size),
        "dims": {m: survey.dims[m] for m in survey.modalities if m in survey.dims},
        "dtypes": dict(examined.dtypes),
        "source": dict(examined.source),
        "splits": _splits(splits, limit(examined.labels)),
        "scales": scale_table(survey),
        "findings": [{**dataclasses.asdict(f), "examples": list(f.examples)} for f in examined.findings],
    }


def overview(path: Path) -> dict[str, Any]:
    """What there is in a file or store, as :func:`to_json` has it; of a store, no features are read.

    Raises:
        DataError: it cannot be read at all.
    """
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
        "splits": _splits(splits, limit(manifest.labels)),
    }


def _facts(path: str, sha256: str, kind: str, labels: str, size: int) -> dict[str, Any]:
    return {"path": path, "sha256": sha256, "kind": kind, "labels": labels, "bytes": size}


def _size(store: Store) -> int:
    return sum(file.bytes for file in store.manifest.files.values()) + (store.path / MANIFEST).stat().st_size


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
    """How many labels lie in each of 24 bins of the scale; those beyond it are in the outer ones."""
    known = labels[~np.isnan(labels)]
    counts, edges = np.histogram(np.clip(known, -bound, bound), 24, (-bound, bound))
    mean = float(known.mean()) if len(known) else None
    return {"labeled": len(known), "mean": mean, "edges": edges.tolist(), "counts": counts.tolist()}


def _lengths(lengths: np.ndarray) -> dict[str, Any]:
    """How many utterances have the modality, and of how many steps."""
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
        if sha256_of(store.path / name) != file.sha256:
            what = "is not what was imported, by its SHA-256: it is damaged or was changed; import the data again"
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
    """A split whose modalities are checked one by one: what cannot be read is left out, what is not finite is 0."""
    where = f"{path}: split '{name}'"
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
                found.append(finding("note", "infinity in audio, which is read as 0", name, ids))
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
            reader.labels(labels, key)
        except DataError as error:
            found.append(Finding("error", _reason(error, reader.where), name))
    notes = annotations_of(reader.columns, len(reader.ids))
    return [
        Row(name, Utterance(identity, one, target if abs(target) < float("inf") else None), note)
        for identity, one, target, note in zip(reader.ids, features, targets, notes, strict=True)
    ]


def _dtype(columns: list[Any]) -> str:
    found = {str(np.asarray(column if isinstance(column, np.ndarray) else column[0]).dtype) for column in columns}
    return "/".join(sorted(found))


def _reason(error: DataError, where: str) -> str:
    return str(error).removeprefix(f"{where}: ")
