"""Reads a feature store: a folder of arrays that stay in their files, so that memory does not grow with its size."""

# N utterances, L steps of all of them together, D features
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.data.dialogues.order import places_of_rows
from gmsa.data.features import LazyFeatures
from gmsa.data.lazy import Utterances
from gmsa.data.lazy.sequences import rows_within
from gmsa.data.opening import lies_at
from gmsa.data.store.contents import check_ids, check_lengths, check_numbers, check_statistics, check_texts
from gmsa.data.store.extraction import Extraction
from gmsa.data.store.files import (
    CLIPS,
    MANIFEST,
    MOST_CLIPS,
    NO_PLACE,
    TEXT_COLUMNS,
    columns_of,
    feature_files,
    read_manifest,
)
from gmsa.data.store.mapped import Mapped, StoredTexts, checked_offsets, map_file
from gmsa.data.store.sequences import Column, MissingColumn, StepsFile, checked_shards
from gmsa.data.texts import hint
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed, short, shown
from gmsa.system.reading import exists, is_folder, read_bytes

_WINDOW = 64
"""Rows that are read together during iteration."""


def is_store(path: str | Path) -> bool:
    """Returns whether a path is the folder of a feature store, that is whether it has a ``manifest.json``."""
    return lies_at(Path(path) / MANIFEST)


class Store:
    """A feature store, opened for reading.

    Opening checks the manifest, the size and header of every file, that all offsets lie within the arrays, so that
    later reads stay in bounds, and ids, transcripts, labels and annotations (a second per million). It reads no
    features and computes no hashes (10 GB would take a minute); ``gmsa data check`` does. A file of features that is
    cut short while it is open is an error when it is read; that of any other file kills the process, as with every
    memory-mapped file.

    A store is pickled as its path and opened again when it is unpickled; a forked process shares its files.

    Args:
        path: folder of the store.

    Raises:
        DataError: the folder is not a store, or a file is missing, a link, truncated or damaged.

    >>> import tempfile, torch
    >>> from gmsa.data import Row, Utterance, write_store
    >>> folder = tempfile.TemporaryDirectory()
    >>> rows = [Row("train", Utterance(f"v$_${i}", {"text": torch.ones(i + 1, 4)}, label=0.5)) for i in range(3)]
    >>> _ = write_store(f"{folder.name}/store", rows)
    >>> store = Store(f"{folder.name}/store")
    >>> store.dims, len(store)
    ({'text': 4}, 3)
    >>> [utterance.lengths["text"] for utterance in store.split("train")]
    [1, 2, 3]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_folder(self.path, DataError):
            state = "is not a folder" if exists(self.path, DataError) else "does not exist"
            raise DataError(f"{short(path)}: {state}; choose a folder that 'gmsa data import' wrote")
        self.manifest, raw = read_manifest(self.path)
        self.sha256 = hashlib.sha256(raw).hexdigest()
        """SHA-256 of the manifest, which has that of every file."""
        self.dims = {modality: stored.dim for modality, stored in self.manifest.modalities.items()}
        """Features per step, D, of each modality."""
        files = {
            name: (self.path / name, dtype, shape, self.manifest.files[name].bytes)
            for name, (dtype, shape) in columns_of(self.manifest).items()
        }
        features = {
            m: {name: StepsFile(*files.pop(name)) for name in feature_files(self.manifest, m)} for m in self.dims
        }
        columns = {name: map_file(*file) for name, file in files.items()}

        def parts(name: str) -> tuple[Mapped, np.ndarray]:
            return columns[f"{name}.npy"], checked_offsets(self.path, name, columns)

        ids, transcripts = parts("ids"), parts("transcripts")
        begins = self.manifest.shards
        self._sequences = {m: checked_shards(self.path, m, shards, columns, begins) for m, shards in features.items()}
        check_ids(self.path, self.manifest, *ids)
        check_texts(self.path, "transcripts", *transcripts)
        texts = {column: parts(name) for column, name in TEXT_COLUMNS.items() if column in self.manifest.columns}
        for column, found in texts.items():
            check_texts(self.path, TEXT_COLUMNS[column], *found)
        for modality, sequences in self._sequences.items():
            check_lengths(self.path, self.manifest, modality, sequences.offsets)
        check_numbers(self.path, self.manifest, columns)
        check_statistics(self.path, self.manifest, columns)

        self.labels = columns["labels.npy"].array
        """Labels, float64 ``[N]``; NaN if unlabeled."""
        self._labels = self.labels.data
        self.unimodal = {modality: columns[f"labels.{modality}.npy"].array for modality in self.manifest.unimodal}
        """Labels of single modalities, float64 ``[N]``; NaN if unlabeled."""
        self.annotations = columns["annotations.npy"].array if self.manifest.annotations else None
        """Annotations, int8 ``[N]``: -1, 0, 1, or -128 for none; None if no utterance has one."""
        self._statistics = {m: columns[f"{m}.statistics.npy"].array for m in self.dims if self.manifest.statistics}
        self._times = {modality: columns[f"{modality}.times.npy"].array for modality in self.manifest.timed}
        self._ids, self._transcripts = StoredTexts(*ids), StoredTexts(*transcripts)
        fields = {"speaker": "speaker", "video": "of_video", "fold": "fold"}
        self._texts = {fields[column]: StoredTexts(*found) for column, found in texts.items()}
        self._stored_places = columns["places.npy"].array if "place" in self.manifest.columns else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (os.path.abspath(self.path), self.sha256)

    def __len__(self) -> int:
        return self.manifest.utterances

    @cached_property
    def _places(self) -> np.ndarray:
        """The place of each row; that in the store where the clips of its video are not all numbered."""
        stored = self._stored_places
        places = np.full(len(self), NO_PLACE) if stored is None else stored
        videos = self._texts["of_video"].__getitem__ if "of_video" in self._texts else None
        return places_of_rows(self._ids.__getitem__, videos, places, NO_PLACE)

    def split(self, name: str, dims: Mapping[str, int] | None = None, labels: bool = True) -> StoredUtterances:
        """Returns the utterances of one split; see :meth:`utterances`.

        Raises:
            DataError: the store has no such split.
        """
        if name not in self.manifest.splits:
            near, names = hint(name, self.manifest.splits), listed(self.manifest.splits)
            raise DataError(
                f"{short(self.path)}: has no split {shown(name)}{near} (its splits: {names}); import data that has it"
            )
        found = self.manifest.splits[name]
        return self.utterances(range(found.start, found.stop), dims, labels)

    def utterances(
        self, rows: range | None = None, dims: Mapping[str, int] | None = None, labels: bool = True
    ) -> StoredUtterances:
        """Returns utterances that are built, and their features read, on access.

        Args:
            rows: rows of the store (default: all).
            dims: modalities to read, in order, with their D; those that the store does not have are missing (default:
                all of the store).
            labels: whether the utterances have their labels (default: True).
        """
        rows = range(len(self)) if rows is None else rows
        return StoredUtterances(self, rows, self.dims if dims is None else dims, labels)

    def lengths(self, modality: str, rows: range) -> np.ndarray:
        """Returns the number of steps of a modality in consecutive rows, int64 ``[N]``."""
        return np.diff(self._sequences[modality].offsets[rows.start : rows.stop + 1])

    def times(self, modality: str, row: int) -> np.ndarray | None:
        """Returns start and stop of each step of a modality in seconds, float32 ``[L, 2]``; None if it has no times."""
        if modality not in self._times:
            return None
        offsets = self._sequences[modality].offsets
        return self._times[modality][offsets[row] : offsets[row + 1]].copy()

    @property
    def extraction(self) -> Extraction | None:
        """How the features were extracted from media; None where they come from elsewhere."""
        found = self.manifest.source.get("extraction")
        return found if isinstance(found, dict) else None

    @property
    def clips(self) -> str | None:
        """The text of ``clips.jsonl``, which a store of extracted media has: a line of JSON per clip.

        Raises:
            DataError: it is gone, or is not what the extraction wrote.
        """
        if (sha256 := self.manifest.source.get("clips_sha256")) is None:
            return None
        raw = read_bytes(self.path / CLIPS, MOST_CLIPS, inside=self.path, kind=DataError)
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise DataError(f"{short(self.path / CLIPS)}: was changed since it was written; extract the media again")
        return raw.decode("utf-8")

    def read_sequences(self, modality: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Reads the sequences of rows ``start`` to ``stop`` (exclusive) in one piece, for fast bulk access.

        Returns:
            The concatenated sequences, float32 ``[L, D]``, and their N + 1 offsets, int64 ``[N + 1]``.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of {len(self)}")
        stored = self._sequences[modality]
        offsets = stored.offsets[start : stop + 1]
        return stored.values(int(offsets[0]), int(offsets[-1])), torch.from_numpy(offsets - offsets[0])


class StoredUtterances(Utterances):
    """A lazy sequence of the utterances in rows of a store; a slice is again a :class:`StoredUtterances`."""

    def __init__(self, store: Store, rows: range, dims: Mapping[str, int], labels: bool) -> None:
        self.store, self.rows, self.dims, self.with_labels = store, rows, dict(dims), labels
        known = store._sequences
        self._columns: dict[str, Column] = {
            m: known[m] if m in known else MissingColumn(dim) for m, dim in self.dims.items()
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Utterance]:
        if self.rows.step != 1:
            yield from map(self._build, self.rows)
            return
        for start in range(self.rows.start, self.rows.stop, _WINDOW):
            stop = min(start + _WINDOW, self.rows.stop)
            window = _Window(self._columns, start, stop)
            for row in range(start, stop):
                yield self._build(row, window)
            window.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredUtterances, (self.store, self.rows, self.dims, self.with_labels)

    @property
    def ids(self) -> list[str]:
        """Ids, read without building the utterances."""
        return [self.store._ids[row] for row in self.rows]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.dims)

    def lengths(self, modality: str) -> np.ndarray:
        if modality not in self.dims or modality not in self.store.dims:
            return np.zeros(len(self), np.int64)
        offsets, rows = self.store._sequences[modality].offsets, self._indices
        return np.asarray(offsets[1:][rows] - offsets[:-1][rows], np.int64)

    @property
    def labels(self) -> np.ndarray:
        chosen = self.store.labels[self._indices]
        return chosen if self.with_labels else np.full_like(chosen, np.nan)

    def own_labels(self) -> Mapping[str, np.ndarray]:
        if not self.with_labels:
            return {}
        return {m: column[self._indices] for m, column in self.store.unimodal.items() if m in self.dims}

    def statistics(self, modality: str) -> tuple[Tensor, Tensor] | None:
        split = self.store.manifest.splits.get(self.store.manifest.statistics)
        found = self.store._statistics.get(modality)
        if split is None or found is None or self.rows != range(split.start, split.stop):
            return None
        mean, std = torch.from_numpy(np.array(found))
        return mean, std

    def shards(self) -> np.ndarray:
        rows = np.arange(self.rows.start, self.rows.stop, self.rows.step)
        return np.searchsorted(self.store.manifest.shards, rows, "right").astype(np.int32)

    def name(self, index: int, field: str) -> str:
        store, row = self.store, self.rows[index]
        if field == "id":
            return store._ids[row]
        texts = store._texts.get("of_video" if field == "video" else field)
        found = "" if texts is None else texts[row]
        return found or (store._ids[row].partition("$_$")[0] if field == "video" else "")

    @property
    def _indices(self) -> slice | np.ndarray:
        """The rows, as NumPy takes them."""
        rows = self.rows
        return slice(rows.start, rows.stop) if rows.step == 1 else np.arange(rows.start, rows.stop, rows.step)

    def make(self, index: int) -> Utterance:
        return self._build(self.rows[index])

    def _part(self, rows: range) -> StoredUtterances:
        return StoredUtterances(self.store, rows_within(self.rows, rows), self.dims, self.with_labels)

    def _build(self, row: int, window: _Window | None = None) -> Utterance:
        store, label, unimodal = self.store, None, {}
        if self.with_labels:
            label = store._labels[row]
            label = label if label == label else None
            if store.unimodal:
                found = ((m, column.item(row)) for m, column in store.unimodal.items() if m in self.dims)
                unimodal = {modality: value for modality, value in found if value == value}
        # The constructor of a frozen dataclass calls object.__setattr__ for every field: that is four times as slow,
        # and a sixth of the reading time.
        built = object.__new__(Utterance)
        fields = built.__dict__
        fields["id"], fields["text"] = store._ids[row], store._transcripts[row]
        fields["features"] = StoredFeatures(self, row, window)
        fields["label"], fields["unimodal"], fields["withheld"] = label, unimodal, {}
        fields["times"] = StoredTimes(self, row) if store._times else {}
        fields["speaker"] = fields["of_video"] = fields["fold"] = ""
        for name, texts in store._texts.items():
            fields[name] = texts[row]
        place = int(store._places[row])
        fields["place"] = None if place == NO_PLACE else place
        return built


class StoredFeatures(LazyFeatures):
    """The features of one row, float32 ``[L_m, D_m]`` per modality, read on each access."""

    __slots__ = ("_columns", "_lengths", "_of", "_row", "_window")

    def __init__(self, of: StoredUtterances, row: int, window: _Window | None = None) -> None:
        self._of, self._columns, self._row, self._window = of, of._columns, row, window
        self._lengths: dict[str, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredFeatures, (self._of, self._row)

    @property
    def lengths(self) -> dict[str, int]:
        """Number of steps of each modality."""
        if self._lengths is None:
            self._lengths = {modality: column.length(self._row) for modality, column in self._columns.items()}
        return self._lengths

    def __getitem__(self, modality: str) -> Tensor:
        window = self._window
        if window is None or window.closed:
            return self._columns[modality].sequence(self._row)
        return window.take(modality, self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, modality: object) -> bool:
        return modality in self._columns

    def __len__(self) -> int:
        return len(self._columns)


class StoredTimes(LazyFeatures):
    """Start and stop of the steps of one row in seconds, float32 ``[L_m, 2]`` per modality, read on each access."""

    __slots__ = ("_of", "_row")

    def __init__(self, of: StoredUtterances, row: int) -> None:
        self._of, self._row = of, row

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTimes, (self._of, self._row)

    @property
    def lengths(self) -> dict[str, int]:
        """Number of steps of each modality whose times are known."""
        columns = self._of._columns
        return {m: columns[m].length(self._row) for m in self._of.store.manifest.timed if m in columns}

    def __getitem__(self, modality: str) -> Tensor:
        found = self._of.store.times(modality, self._row) if modality in self._of._columns else None
        if found is None:
            raise KeyError(modality)
        return torch.from_numpy(found)


class _Window:
    """A window of rows during an iteration: the first access to a modality reads it for all rows of the window.

    This is twice as fast as reading single rows. After the iteration has passed, rows are read one by one again, so
    that keeping the utterances does not keep their features.
    """

    __slots__ = ("_columns", "_parts", "_start", "_stop", "closed")

    def __init__(self, columns: Mapping[str, Column], start: int, stop: int) -> None:
        self._columns, self._start, self._stop, self.closed = columns, start, stop, False
        self._parts: dict[str, list[Tensor | None]] = {}

    def take(self, modality: str, row: int) -> Tensor:
        parts = self._parts.get(modality)
        if parts is None:
            parts = self._parts[modality] = self._columns[modality].sequences(self._start, self._stop)
        # Returned once only, so that a change in place does not appear in the next read.
        found, parts[row - self._start] = parts[row - self._start], None
        return self._columns[modality].sequence(row) if found is None else found

    def close(self) -> None:
        self.closed, self._parts = True, {}


def _reopen(path: str, sha256: str) -> Store:
    store = Store(path)
    if store.sha256 != sha256:
        raise DataError(f"{short(path)}: changed since it was opened; start again")
    return store
