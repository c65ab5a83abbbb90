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
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

import gmsa
from gmsa.config import MODALITIES, TargetConfig
from gmsa.data.splits import is_training
from gmsa.data.store.files import (
    ANY,
    CLIPS,
    DTYPES,
    HEADER,
    MANIFEST,
    MOST_SHARDS,
    NO_PLACE,
    NOT_ANNOTATED,
    SHARD,
    TEXT_COLUMNS,
    Manifest,
    StoredModality,
    StoredSplit,
    columns_of,
    parse_manifest,
)
from gmsa.data.store.growing import GrowingArray, GrowingNumbers, GrowingRows
from gmsa.data.store.rows import Row, RowChecker
from gmsa.data.store.statistics import statistics_of
from gmsa.data.store.store import Store
from gmsa.data.texts import check_column
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, WriteError, cut, short, shown
from gmsa.system.files import check_out_folder, make_folder, sha256_of, sync_folder, write_text
from gmsa.system.reading import exists, reason_of

MANY, LARGE = 20_000, 250_000_000
"""Utterances, and bytes of features, from which on a store keeps statistics."""


def write_store(
    path: str | Path,
    rows: Iterable[Row],
    dtypes: Mapping[str, str] | None = None,
    labels: str | TargetConfig = "mosi",
    source: Mapping[str, Any] | None = None,
    where: str = "rows",
    clips: Callable[[], str] | None = None,
    shard_bytes: int = SHARD,
    statistics: bool | None = None,
) -> Store:
    """Writes a store atomically: into a temporary folder beside it, which is renamed at the end.

    Equal rows give equal bytes. Only a process that is killed leaves its temporary folder ``.<name>.<hex>.tmp``.

    Args:
        path: folder to create; it must not exist.
        rows: the utterances, all of one split before those of the next; their order is kept.
        dtypes: modalities to store, each with its type, ``float16`` or ``float32`` (default: text, audio and
            vision as float32).
            Modalities that no row has are not stored.
        labels: what the labels are: ``mosi`` (default, [-3, 3]), ``sims`` ([-1, 1]), or the group ``target`` of a
            config. Where that leaves the classes to the file, they are those of the rows.
        source: provenance for the manifest, read after the last row (default: none).
        where: what errors call the source (default: ``rows``).
        clips: makes the text of ``clips.jsonl`` after the last row; ``source["clips_sha256"]`` is then its hash
            (default: no such file).
        shard_bytes: features, of all modalities together, from which on the next utterances go into further files
            (default: 2 GB).
        statistics: whether to keep mean and standard deviation of each feature over the split ``train`` (default: from
            20,000 utterances or 250 MB of features on, where to find them takes longer than a second).

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
            writer = _Writer(
                temporary, dtypes or dict.fromkeys(MODALITIES, "float32"), labels, where, shard_bytes, statistics
            )
            try:
                for row in rows:
                    writer.add(row)
                source = dict(source or {})
                if clips is not None:
                    write_text(temporary / CLIPS, clips())
                    source["clips_sha256"] = sha256_of(temporary / CLIPS)
                manifest = writer.finish(source)
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

    def __init__(
        self,
        folder: Path,
        dtypes: Mapping[str, str],
        labels: str | TargetConfig,
        where: str,
        shard_bytes: int,
        statistics: bool | None,
    ) -> None:
        self.folder, self.dtypes, self.where = folder, dict(dtypes), where
        self.shard_bytes, self.statistics = shard_bytes, statistics
        self.shards: list[int] = []
        self.in_shard = 0
        named = isinstance(labels, str)
        target = TargetConfig(preset=cast(Any, labels)) if isinstance(labels, str) else labels
        scale = "choose its scale with --labels" if named else "set target.range to the range of the labels"
        self.checker = RowChecker({m: DTYPES[dtype] for m, dtype in dtypes.items()}, target, where, scale)
        self.splits: dict[str, StoredSplit] = {}
        self.start, self.labeled, self.count = 0, 0, 0
        self.hashes = array("Q")
        self.sequences = {m: GrowingRows(folder, m, DTYPES[dtype]) for m, dtype in self.dtypes.items()}
        self.times = {m: GrowingArray(folder, f"{m}.times.npy", "<f4") for m in self.dtypes}
        self.ids, self.transcripts = GrowingRows(folder, "ids", "|u1"), GrowingRows(folder, "transcripts", "|u1")
        self.labels = GrowingNumbers(folder, "labels.npy", "<f8")
        self.unimodal = {m: GrowingNumbers(folder, f"labels.{m}.npy", "<f8") for m in self.dtypes}
        self.with_unimodal: set[str] = set()
        self.annotations = GrowingNumbers(folder, "annotations.npy", "|i1")
        self.annotated = False
        self.texts = {column: GrowingRows(folder, name, "|u1") for column, name in TEXT_COLUMNS.items()}
        self.places, self.placed = GrowingNumbers(folder, "places.npy", "<i8"), False

    def add(self, row: Row) -> None:
        checker, utterance = self.checker, row.utterance
        last = self.checker.splits[-1] if self.count else ""
        if checker.begin(row):
            self._end(last)
            self.start, self.labeled = self.count, 0
        raw = checker.id_of(row)
        self.ids.add(raw, len(raw))
        # 8 bytes per id; a set would take a hundred.
        self.hashes.append(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little"))
        sequences = {modality: checker.sequence_of(row, modality) for modality in self.sequences}
        self._begin_shard(sum(values.nbytes for values in sequences.values() if values is not None))
        for modality, stored in self.sequences.items():
            values = sequences[modality]
            stored.add(b"" if values is None else values.data, 0 if values is None else len(values))
            if (times := checker.times_of(row, modality)) is not None and values is not None:
                self.times[modality].write(times.data)
        text = checker.text_of(row)
        self.transcripts.add(text, len(text))
        label = checker.label_of(row)
        self.labels.add(label)
        self.labeled += label == label
        for modality, column in self.unimodal.items():
            own = checker.label_of(row, modality) if utterance.unimodal else math.nan
            column.add(own)
            if own == own:
                self.with_unimodal.add(modality)
        annotation = row.annotation
        if annotation not in (-1, 0, 1, NOT_ANNOTATED):
            raise checker.error(
                f"the annotation of {shown(utterance.id)} is {shown(annotation)}; expected -1, 0, 1 or -128"
            )
        self.annotated |= annotation != NOT_ANNOTATED
        self.annotations.add(annotation)
        columns = {"speaker": utterance.speaker, "video": utterance.of_video, "fold": utterance.fold}
        for name, value in columns.items():
            text = check_column(value, name, checker.place(f"row {checker.count}")) if value else b""
            self.texts[name].add(text, len(text))
        self.placed |= utterance.place is not None
        self.places.add(NO_PLACE if utterance.place is None else self._place_of(utterance))
        self.count += 1

    def _begin_shard(self, size: int) -> None:
        """Begins a shard where the one at hand has no room for features of ``size`` bytes."""
        if self.in_shard and self.in_shard + size > self.shard_bytes:
            self.shards.append(self.count)
            if len(self.shards) >= MOST_SHARDS:
                raise DataError(f"{self.where}: has over {MOST_SHARDS:,} shards; make them larger by --shard-size")
            for stored in self.sequences.values():
                stored.begin_file()
            self.in_shard = 0
        self.in_shard += size

    def _place_of(self, utterance: Utterance) -> int:
        place = utterance.place
        if not isinstance(place, int) or not abs(place) < 1 << 53:
            raise self.checker.error(f"the place of {shown(utterance.id)} is {shown(place)}, no whole number")
        return place

    def _end(self, split: str) -> None:
        """Records the split that ends."""
        if self.count > self.start:
            self.splits[split] = StoredSplit(self.start, self.count, self.labeled)

    def finish(self, source: Mapping[str, Any]) -> Manifest:
        """Completes the files, deletes the empty ones, and returns the manifest."""
        target, order = self.checker.finish()
        self._end(self.checker.splits[-1])
        if order is not None:
            for numbers in (self.labels, *self.unimodal.values()):
                numbers.renumber(order)
        dims = self.checker.dims
        modalities = {m: stored for m, stored in self.sequences.items() if m in dims}
        if not any(stored.total for stored in modalities.values()):
            raise DataError(f"{self.where}: no utterance has {', '.join(self.dtypes)}; check the source")
        timed = tuple(m for m, times in self.times.items() if times.bytes)
        for modality in timed:
            if self.times[modality].bytes < 8 * modalities[modality].total:
                raise DataError(
                    f"{self.where}: some utterances have times of '{modality}' and others have none; repair the source"
                )
        manifest = Manifest(
            written_by=f"gmsa {gmsa.__version__}",
            target=target,
            columns=(*(c for c, texts in self.texts.items() if texts.total), *(("place",) if self.placed else ())),
            utterances=self.count,
            modalities={
                m: StoredModality(dims[m], self.dtypes[m], stored.total, stored.longest, stored.present)
                for m, stored in modalities.items()
            },
            unimodal=tuple(m for m in modalities if m in self.with_unimodal),
            annotations=self.annotated,
            splits=self.splits,
            source=source,
            files={},
            timed=timed,
            statistics=self._split_of_statistics(),
            shards=tuple(self.shards),
        )
        files = {}
        arrays = {found.path.name: found for found in self._arrays()}
        for name, (dtype, shape) in columns_of(manifest).items():
            if name in arrays:
                found = arrays.pop(name)
                if shape is None or shape[0] == ANY:
                    width = math.prod(shape[1:]) if shape else 1
                    shape = (found.bytes // (np.dtype(dtype).itemsize * width), *(shape or (0,))[1:])
                files[name] = found.finish(shape)
        for found in arrays.values():
            found.file.close()
            found.path.unlink()
        self._check_ids()
        if manifest.statistics:
            for modality, stored in modalities.items():
                split = manifest.splits[manifest.statistics]
                both = statistics_of(stored, split.start, split.stop, [0, *self.shards], dims[modality])
                array = GrowingArray(self.folder, f"{modality}.statistics.npy", "<f8")
                array.write(both.astype("<f8").data)
                files[array.path.name] = array.finish(both.shape)
        files = {name: files[name] for name in columns_of(manifest)}
        return Manifest(**{**manifest.__dict__, "files": files})

    def _split_of_statistics(self) -> str:
        """The split whose statistics are kept; empty if none are."""
        size = sum(file.bytes for stored in self.sequences.values() for file in stored.files)
        if not (self.count >= MANY or size >= LARGE if self.statistics is None else self.statistics):
            return ""
        return next((name for name in ("train", *self.splits) if is_training(name, self.splits)), "")

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
                how = "" if at[0] == at[1] else ", for example by the split's name before them"
                raise DataError(f"{self.where}: duplicate id {shown(name.decode())} in {both}; ids must be unique{how}")

    def _arrays(self) -> Iterable[GrowingArray]:
        ragged = (*self.sequences.values(), self.ids, self.transcripts, *self.texts.values())
        pairs = ((*found.files, found.offsets) for found in ragged)
        return [
            *itertools.chain.from_iterable(pairs),
            *self.times.values(),
            self.labels,
            *self.unimodal.values(),
            self.annotations,
            self.places,
        ]

    def close(self) -> None:
        """Closes files that an error left open."""
        for found in self._arrays():
            found.file.close()


def _range(split: StoredSplit) -> range:
    return range(split.start, split.stop)
