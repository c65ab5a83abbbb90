"""Reads any data as training does, and says what training would say; goes on where that stops."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import DataConfig, TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.data.checks.faulty import read_faulty
from gmsa.data.checks.findings import Finding
from gmsa.data.corpus import Corpus
from gmsa.data.dialogues.order import tell_order
from gmsa.data.importers import form_of, open_source, read_content
from gmsa.data.importers.mmsa import annotations_of
from gmsa.data.loading import load_corpus
from gmsa.data.mmsa import Split, read_file, split_columns
from gmsa.data.mmsa.keys import renamed
from gmsa.data.mmsa.sequences import as_array
from gmsa.data.notes import collected
from gmsa.data.splits import POOL, named
from gmsa.data.store.files import MANIFEST
from gmsa.data.store.rows import read_rows
from gmsa.data.store.store import Store, is_store
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, short
from gmsa.system.files import check_name, sha256_of
from gmsa.system.reading import exists, is_folder, open_regular

_UNREAD = ": the labels are not read"


@dataclass(frozen=True)
class Reading:
    """What is in a file or store, and what training would say of it."""

    path: str
    kind: str
    """``store``, ``pickle``, or the importer of another format."""
    sha256: str
    """As :attr:`gmsa.data.Corpus.sha256`."""
    size: int
    """Bytes on disk; 0 of a folder."""
    splits: Mapping[str, Sequence[Utterance]]
    """As training has them, with the split ``pool`` of unlabeled utterances; as the file has them if that stops."""
    dims: Mapping[str, int]
    target: Target
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Stored type of each modality, where it is known."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Provenance of a store; empty for a file."""
    notes: Sequence[str] = ()
    """The notes of training."""
    error: str = ""
    """Why training would stop."""
    bad_labels: bool = False
    """Whether it would stop because of the labels that are there."""
    annotations: Mapping[str, int] = field(default_factory=dict)
    """-1, 0 or 1 by id."""
    faults: Sequence[Finding] = ()
    """What cannot be read, if the file is faulty."""


def read_data(
    path: Path, data: DataConfig | None = None, target: TargetConfig | None = None, faulty: bool = False
) -> Reading:
    """Reads a file, folder or store of any format as training does; where that would stop, as far as it can be read.

    Args:
        path: what to read.
        data: the group ``data`` (default: its defaults).
        target: the group ``target`` (default: that of a store, else its defaults).
        faulty: whether to go on, split by split, in a pickle that cannot be read; else that is an error.

    Raises:
        DataError: it cannot be read; the error is that of training.
    """
    check_name(path, DataError)
    if not exists(path, DataError):
        raise DataError(f"'{short(path)}' does not exist; check the path")
    store = Store(path) if is_store(path) else None
    if target is None:
        target = TargetConfig() if store is None else store.manifest.target.settings(TargetConfig())
    kind = "store" if store is not None else form_of(path).replace("mmsa", "pickle")
    settings = replace(data or DataConfig(), path=os.path.join(".", path))  # never the word "synthetic"
    corpus, error = None, None
    with collected() as notes:
        try:
            corpus = load_corpus(settings, target)
            tell_order(corpus.with_context, corpus.pool, short(path))
        except DataError as raised:
            error = raised
    found: dict[str, Any]
    if corpus is not None:
        found = _of_corpus(corpus, kind)
    else:
        assert error is not None
        with collected() as more:
            found = _of_rest(path, kind, store, settings, target, error, faulty)
        said = str(error)
        found |= {"error": said, "bad_labels": any(note.startswith(said[:330]) and _UNREAD in note for note in more)}
        notes += [note for note in more if note not in notes and not note.startswith(said[:330])]
    if store is not None:
        found |= _of_store(store)
    elif kind == "pickle":
        content = read_content(path)
        if corpus is not None:
            split_columns(content, short(path))  # also those that training does not read
        found |= _of_pickle(content, path, tuple(found["dims"]))
    size = 0 if is_folder(path, DataError) and store is None else _size(path, store)
    return Reading(str(path), kind, size=size, notes=notes, **found)


def describe_store(store: Store) -> Reading:
    """What is in a store, all of it, without what training would say."""
    splits = {name: store.split(name) for name in store.manifest.splits}
    found = {"splits": splits, "dims": store.dims, "target": store.manifest.target, **_of_store(store)}
    return Reading(str(store.path), "store", size=_size(store.path, store), **found)


def _of_corpus(corpus: Corpus, kind: str) -> dict[str, Any]:
    splits = dict(corpus.splits)
    if len(corpus.pool):
        splits[POOL] = corpus.pool
    return {"splits": splits, "dims": corpus.dims, "target": corpus.target, "sha256": corpus.sha256}


def _of_rest(
    path: Path,
    kind: str,
    store: Store | None,
    data: DataConfig,
    target: TargetConfig,
    error: DataError,
    faulty: bool,
) -> dict[str, Any]:
    """What can be read where training would stop."""
    if store is not None:
        splits = {name: store.split(name) for name in store.manifest.splits}
        return {"splits": splits, "dims": store.dims, "target": store.manifest.target}
    if kind != "pickle":
        return _of_source(path, data, target, error)
    where, sha256, content = short(path), {"sha256": sha256_of(path, DataError)}, read_content(path)
    try:
        read = read_file(content, where, data, target, None, "tried", strict=faulty)
        return {"splits": read.splits, "dims": read.dims, "target": read.target, **sha256}
    except DataError:
        if not faulty:
            raise error from None
    try:
        found = read_faulty(content, where, data, target)
    except DataError:
        raise error from None
    return {"splits": found.splits, "dims": found.dims, "target": found.target, "faults": found.findings, **sha256}


def _of_source(path: Path, data: DataConfig, target: TargetConfig, error: DataError) -> dict[str, Any]:
    try:
        source = open_source(path, "auto", target)
        kept = {m: t for m, t in source.dtypes.items() if data.modalities == AUTO or m in data.modalities}
        splits, dims, resolved = read_rows(source.rows, kept, target, short(path))
    except DataError:
        raise error from None
    files = source.about.get("files", ())
    sha256 = files[0]["sha256"] if len(files) == 1 else ""
    return {"splits": named(splits), "dims": dims, "target": resolved, "sha256": sha256}


def _of_store(store: Store) -> dict[str, Any]:
    manifest = store.manifest
    dtypes = {m: stored.dtype for m, stored in manifest.modalities.items()}
    found: dict[str, Any] = {"sha256": store.sha256, "dtypes": dtypes, "source": dict(manifest.source)}
    if store.annotations is not None:
        ids = store.utterances().ids
        found["annotations"] = {i: n for i, n in zip(ids, store.annotations.tolist(), strict=True) if abs(n) <= 1}
    return found


def _of_pickle(content: Any, path: Path, modalities: tuple[str, ...]) -> dict[str, Any]:
    """The types of the features, and the annotations."""
    try:
        splits = [renamed(columns, modalities)[0] for columns in split_columns(content, short(path)).values()]
    except DataError:
        return {}
    annotations: dict[str, int] = {}
    for columns in splits:
        try:
            ids = Split(columns, short(path)).ids if "annotations" in columns else []
        except DataError:
            continue
        notes = zip(ids, annotations_of(columns, len(ids)), strict=True)
        annotations |= {identity: note for identity, note in notes if abs(note) <= 1}
    dtypes = {m: _dtype([columns[m] for columns in splits if m in columns]) for m in modalities}
    return {"dtypes": dtypes, "annotations": annotations}


def _dtype(columns: Sequence[Any]) -> str:
    found = set()
    for column in columns:
        try:
            first = column if isinstance(column, np.ndarray) and column.dtype != object else as_array(column[0])
            found.add(str(first.dtype))
        except (TypeError, ValueError, LookupError):
            continue
    return "/".join(sorted(found))


def _size(path: Path, store: Store | None) -> int:
    if store is not None:
        return sum(file.bytes for file in store.manifest.files.values()) + _size(path / MANIFEST, None)
    with open_regular(path, kind=DataError) as file:
        return os.fstat(file.fileno()).st_size
