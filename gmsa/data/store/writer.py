"""Writes a feature store row by row, so that memory holds one utterance only."""

# N utterances, L steps of all of them together, D features
from __future__ import annotations

import hashlib
import itertools
import math
import os
import secrets
import shutil
from array import array
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gmsa
from gmsa.config import MODALITIES
from gmsa.data.store.files import (
    DTYPES,
    HEADER,
    LARGEST,
    MANIFEST,
    MOST_FEATURES,
    NOT_ANNOTATED,
    Manifest,
    StoredModality,
    StoredSplit,
    columns_of,
    parse_manifest,
)
from gmsa.data.store.growing import GrowingArray, GrowingNumbers, GrowingRows
from gmsa.data.store.store import Store
from gmsa.data.targets import scale_limit
from gmsa.data.texts import check_count, check_id, check_split, check_text
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, WriteError, cut, short, shown
from gmsa.system.files import check_out_folder, make_folder, sync_folder
from gmsa.system.reading import exists, reason_of


class Row(NamedTuple):
    """One row to write: an utterance, its split, and optionally its annotation."""

    split: str
    """Name of the split; ``train``, ``valid`` and ``test`` are those that training uses."""
    utterance: Utterance
    """The utterance, with its label if it has one."""
    annotation: int = NOT_ANNOTATED
    """-1 negative, 0 neutral, 1 positive, -128 none (default)."""


def write_store(
    path: str | Path,
    rows: Iterable[Row],
    dtypes: Mapping[str, str] | None = None,
    labels: str = "mosi",
    source: Mapping[str, Any] | None = None,
    where: str = "rows",
) -> Store:
    """Writes a store atomically: into a temporary folder beside it, which is renamed at the end.

    Equal rows give equal bytes. Only a process that is killed leaves its temporary folder ``.<name>.<hex>.tmp``.

    Args:
        path: folder to create; it must not exist.
        rows: the utterances, all of one split before those of the next; their order is kept.
        dtypes: modalities to store, each with its type, ``float16`` or ``float32`` (default: all three as float32).
            Modalities that no row has are not stored.
        labels: label scale, ``mosi`` (default, [-3, 3]) or ``sims`` ([-1, 1]).
        source: provenance for the manifest, read after the last row (default: none).
        where: what errors call the source (default: ``rows``).

    Returns:
        The new store, opened.

    Raises:
        DataError: a row is invalid, or ``path`` exists.
        WriteError: the disk is full, or the folder cannot be written.

    >>> import tempfile, torch
    >>> from gmsa.data import Utterance
    >>> folder = tempfile.TemporaryDirectory()
    >>> utterance = Utterance("v$_$0", {"text": torch.randn(5, 300), "audio": torch.randn(20, 74)}, label=-1.2)
    >>> store = write_store(f"{folder.name}/store", [Row("test", utterance)])
    >>> store.dims, store.split("test")[0].lengths
    ({'text': 300, 'audio': 74}, {'text': 5, 'audio': 20})
    """
    path = Path(path)
    check_target(path)
    temporary = path.with_name(f".{path.name[:32]}.{secrets.token_hex(8)}.tmp")
    made = [folder for folder in path.parents if not exists(folder, WriteError)]
    try:
        try:
            make_folder(path.parent)
            temporary.mkdir()
            writer = _Writer(temporary, dtypes or dict.fromkeys(MODALITIES, "float32"), labels, where)
            try:
                for row in rows:
                    writer.add(row)
                manifest = writer.finish(source or {})
            finally:
                writer.close()
            with open(temporary / MANIFEST, "xb") as file:
                file.write(_text_of(manifest, where))
                file.flush()
                os.fsync(file.fileno())
            sync_folder(temporary)
            _check_free(path)
            os.rename(temporary, path)
            sync_folder(path.parent)
        except BaseException:  # Ctrl-C must not leave the temporary folder either.
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
            raise
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(
            f"cannot write '{short(path)}': {reason_of(error)}; free disk space, or choose another folder"
        ) from error
    return Store(path)


def check_target(path: Path) -> None:
    """Checks before long work that ``path`` is free for a new store, and that it can be written, by trying.

    Raises:
        DataError: the path exists.
        RunError: it cannot be written.
    """
    _check_free(path)
    check_out_folder(path)


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        what = f"'{short(path)}' exists already, and a store is never overwritten"
        raise DataError(f"{what}; choose another folder, or move it")


def _text_of(manifest: Manifest, where: str) -> bytes:
    """The content of a manifest's file, after checking that it can be read again."""
    try:
        raw = manifest.to_json().encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where}: its provenance is not JSON ({cut(error)}); repair the importer") from None
    parse_manifest(raw, where)
    return raw


class _Writer:
    """The files of a store that is being written."""

    def __init__(self, folder: Path, dtypes: Mapping[str, str], labels: str, where: str) -> None:
        self.dtypes, self.scale, self.where = dict(dtypes), labels, where
        self.limit = scale_limit(labels) + 1e-6
        self.dims: dict[str, int] = {}
        self.splits: dict[str, StoredSplit] = {}
        self.split, self.start, self.labeled, self.count = "", 0, 0, 0
        self.hashes = array("Q")
        self.sequences = {m: GrowingRows(folder, m, DTYPES[dtype]) for m, dtype in self.dtypes.items()}
        self.ids, self.transcripts = GrowingRows(folder, "ids", "|u1"), GrowingRows(folder, "transcripts", "|u1")
        self.labels = GrowingNumbers(folder, "labels.npy", "<f8")
        self.unimodal = {m: GrowingNumbers(folder, f"labels.{m}.npy", "<f8") for m in self.dtypes}
        self.with_unimodal: set[str] = set()
        self.annotations = GrowingNumbers(folder, "annotations.npy", "|i1")
        self.annotated = False

    def add(self, row: Row) -> None:
        split, utterance, annotation = row
        if split != self.split or not self.count:
            self._begin(split)
        self._add_id(utterance.id)
        for modality, stored in self.sequences.items():
            features = utterance.features.get(modality)
            if features is None:
                stored.add(b"", 0)
            else:
                self._add_sequence(modality, stored, features.numpy(), utterance.id)
        text = check_text(utterance.text, self._place(f"row {self.count + 1}"))
        self.transcripts.add(text, len(text))
        self._add_label(self.labels, utterance.label, "the label", utterance.id)
        self.labeled += utterance.label is not None
        for modality, column in self.unimodal.items():
            label = utterance.unimodal.get(modality) if utterance.unimodal else None
            self._add_label(column, label, f"the label of {modality}", utterance.id)
            if label is not None:
                self.with_unimodal.add(modality)
        if annotation not in (-1, 0, 1, NOT_ANNOTATED):
            raise self._error(
                f"the annotation of {shown(utterance.id)} is {shown(annotation)}; expected -1, 0, 1 or -128"
            )
        self.annotated |= annotation != NOT_ANNOTATED
        self.annotations.add(annotation)
        self.count += 1

    def _end(self) -> None:
        """Records the split that ends."""
        if self.count > self.start:
            self.splits[self.split] = StoredSplit(self.start, self.count, self.labeled)

    def _begin(self, split: str) -> None:
        self._end()
        check_split(split, f"{self.where}: row {self.count + 1}")
        check_count([*self.splits, split], self.where)
        if split in self.splits:
            raise ValueError(f"{self.where}: rows must come split by split (got {shown(split)} again)")
        self.split, self.start, self.labeled = split, self.count, 0

    def _error(self, message: str) -> DataError:
        return DataError(self._place(message))

    def _place(self, message: str) -> str:
        return f"{self.where}: split {shown(self.split)}: {message}"

    def _add_id(self, identity: str) -> None:
        raw = check_id(identity, self._place(f"row {self.count + 1}"))
        self.ids.add(raw, len(raw))
        # 8 bytes per id; a set would take a hundred.
        self.hashes.append(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little"))

    def _add_sequence(self, modality: str, stored: GrowingRows, values: np.ndarray, identity: str) -> None:
        if values.ndim != 2:
            shape = cut(list(values.shape))
            raise self._error(f"'{modality}' of {shown(identity)} has shape {shape}; expected [steps, features]")
        length, dim = values.shape
        if dim > MOST_FEATURES or length * dim * 4 > LARGEST:
            what = f"{length} steps of {dim} features, beyond {MOST_FEATURES:,} features or {LARGEST:,} bytes"
            raise self._error(f"'{modality}' of {shown(identity)} has {what}; cut it")
        if dim and self.dims.setdefault(modality, dim) != dim:
            known = self.dims[modality]
            raise self._error(
                f"'{modality}' of {shown(identity)} has {dim} features per step, "
                f"but earlier ones have {known}; extract all of them alike"
            )
        if not length:
            stored.add(b"", 0)
            return
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(values, stored.values.dtype)
        if not np.isfinite(kept).all():
            if np.isfinite(values).all():
                most = float(np.abs(values).max())
                remedy = "which float16 cannot hold; use --dtype float32"
                raise self._error(f"'{modality}' of {shown(identity)} reaches {most:g}, {remedy}")
            kind = "NaN" if np.isnan(values).any() else "infinity"
            raise self._error(f"'{modality}' of {shown(identity)} holds {kind}; repair or remove the utterance")
        stored.add(kept.data, length)

    def _add_label(self, column: GrowingNumbers, label: float | None, what: str, identity: str) -> None:
        if label is None:
            column.add(math.nan)
        elif abs(label) <= self.limit:
            column.add(label)
        else:
            bound = f"[-{scale_limit(self.scale):g}, {scale_limit(self.scale):g}]"
            raise self._error(
                f"{what} of {shown(identity)} is {label:g}, out of {bound}; choose its scale with --labels"
            )

    def finish(self, source: Mapping[str, Any]) -> Manifest:
        """Completes the files, deletes the empty ones, and returns the manifest."""
        self._end()
        if not self.count:
            raise DataError(f"{self.where}: holds no utterances; nothing is written")
        modalities = {m: stored for m, stored in self.sequences.items() if m in self.dims}
        if not any(stored.total for stored in modalities.values()):
            raise DataError(f"{self.where}: no utterance has {', '.join(self.dtypes)}; check the source")
        manifest = Manifest(
            written_by=f"gmsa {gmsa.__version__}",
            labels=self.scale,
            utterances=self.count,
            modalities={
                m: StoredModality(self.dims[m], self.dtypes[m], stored.total, stored.longest, stored.present)
                for m, stored in modalities.items()
            },
            unimodal=tuple(m for m in modalities if m in self.with_unimodal),
            annotations=self.annotated,
            splits=self.splits,
            source=source,
            files={},
        )
        files = {}
        arrays = {found.path.name: found for found in self._arrays()}
        for name, (_, shape) in columns_of(manifest).items():
            found = arrays.pop(name)
            files[name] = found.finish((found.bytes,) if shape is None else shape)
        for found in arrays.values():
            found.file.close()
            found.path.unlink()
        self._check_ids()
        return Manifest(**{**manifest.__dict__, "files": files})

    def _check_ids(self) -> None:
        hashes = np.frombuffer(self.hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        ids, offsets = (np.fromfile(a.path, a.dtype, offset=HEADER) for a in (self.ids.values, self.ids.offsets))
        for first in np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]).tolist():
            one, other = sorted(order[first : first + 2].tolist())
            name, same = (ids[offsets[row] : offsets[row + 1]].tobytes() for row in (one, other))
            if name == same:
                at = [split for row in (one, other) for split, rows in self.splits.items() if row in _range(rows)]
                both = f"split {shown(at[0])}" if at[0] == at[1] else f"splits {shown(at[0])} and {shown(at[1])}"
                raise DataError(f"{self.where}: duplicate id {shown(name.decode())} in {both}; ids must be unique")

    def _arrays(self) -> Iterable[GrowingArray]:
        ragged = (*self.sequences.values(), self.ids, self.transcripts)
        pairs = ((found.values, found.offsets) for found in ragged)
        return [*itertools.chain.from_iterable(pairs), self.labels, *self.unimodal.values(), self.annotations]

    def close(self) -> None:
        """Closes files that an error left open."""
        for found in self._arrays():
            found.file.close()


def _range(split: StoredSplit) -> range:
    return range(split.start, split.stop)
