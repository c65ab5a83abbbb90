"""Checks the contents of a store that opening it can afford: ids, transcripts, labels and annotations; no features."""

# N utterances
from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from gmsa.data.store.files import AGAIN, NOT_ANNOTATED, Manifest
from gmsa.data.store.mapped import Mapped
from gmsa.data.texts import LONGEST_ID, LONGEST_TEXT
from gmsa.errors import DataError, short, shown

_ROWS, _BYTES = 1 << 16, 1 << 24
"""Most rows, and about most bytes, that are checked together."""


def check_ids(folder: Path, manifest: Manifest, data: Mapped, offsets: np.ndarray) -> None:
    """Checks that ids are unique, not empty, and UTF-8; takes less than a second per million.

    Raises:
        DataError: they are not.
    """
    where = short(folder / "ids.npy")
    hashes = np.empty(len(offsets) - 1, np.int64)
    for start, bounds, raw in _blocks(data, offsets, where, "id", 1, LONGEST_ID):
        found = (hash(raw[a:b]) for a, b in pairwise(bounds.tolist()))
        hashes[start : start + len(bounds) - 1] = np.fromiter(found, np.int64, len(bounds) - 1)
    order = np.argsort(hashes, kind="stable")
    equal = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    seen: dict[bytes, int] = {}
    for row in np.unique(order[np.concatenate([equal, equal + 1])]).tolist():
        raw = data.array[offsets[row] : offsets[row + 1]].tobytes()
        if raw in seen:
            one, other = (_split_of(manifest, place) for place in (seen[raw], row))
            both = f"split {shown(one)}" if one == other else f"splits {shown(one)} and {shown(other)}"
            raise DataError(f"{where}: duplicate id {shown(raw.decode())} in {both}; ids must be unique, {AGAIN}")
        seen[raw] = row


def check_texts(folder: Path, name: str, data: Mapped, offsets: np.ndarray) -> None:
    """Checks that the texts of a column, ``transcripts`` or ``speakers``, ``videos`` and ``folds``, are UTF-8.

    Raises:
        DataError: one is not, or is too long.
    """
    most = LONGEST_TEXT if name == "transcripts" else LONGEST_ID
    for _ in _blocks(data, offsets, short(folder / f"{name}.npy"), name.removesuffix("s"), 0, most):
        pass


def check_numbers(folder: Path, manifest: Manifest, columns: Mapping[str, Mapped]) -> None:
    """Checks labels and annotations as those of other formats are checked.

    Raises:
        DataError: a label is beyond its range or the number of no class, an annotation is none, or the manifest
            miscounts the labels.
    """
    target = manifest.target
    for name in ("labels.npy", *(f"labels.{modality}.npy" for modality in manifest.unimodal)):
        labels = columns[name].array
        if target.is_classes:
            inside = (labels >= 0) & (labels < target.num_classes) & (labels == np.floor(labels))
        else:
            inside = (labels >= target.low - 1e-6) & (labels <= target.high + 1e-6)
        beyond = np.flatnonzero(~inside & ~np.isnan(labels))
        if len(beyond):
            said = f"{labels[beyond[0]]:g} in row {beyond[0]}"
            if target.is_classes:
                what = f"{said} is no number of the {target.num_classes} classes"
            else:
                what = f"{said} is out of [{target.low:g}, {target.high:g}]"
            raise DataError(f"{short(folder / name)}: {what}; it is damaged, {AGAIN}")
    unlabeled = np.isnan(columns["labels.npy"].array)
    for name, split in manifest.splits.items():
        count = split.stop - split.start - int(unlabeled[split.start : split.stop].sum())
        if count != split.labeled:
            what = f"{count} labels in split {shown(name)}, where the manifest counts {split.labeled}"
            raise DataError(f"{short(folder / 'labels.npy')}: has {what}; it is damaged, {AGAIN}")
    if manifest.annotations:
        notes = columns["annotations.npy"].array
        wrong = np.flatnonzero((np.abs(notes.astype(np.int16)) > 1) & (notes != NOT_ANNOTATED))
        if len(wrong):
            what = f"{notes[wrong[0]]} in row {wrong[0]} is none of -1, 0, 1 and {NOT_ANNOTATED}"
            raise DataError(f"{short(folder / 'annotations.npy')}: {what}; it is damaged, {AGAIN}")


def check_statistics(folder: Path, manifest: Manifest, columns: Mapping[str, Mapped]) -> None:
    """Checks that means and standard deviations are numbers, and that these are not negative.

    Raises:
        DataError: they are not.
    """
    for modality in manifest.modalities if manifest.statistics else ():
        name = f"{modality}.statistics.npy"
        mean, std = columns[name].array
        if not np.isfinite(mean).all() or not np.isfinite(std).all() or (std < 0).any():
            raise DataError(f"{short(folder / name)}: holds no means and standard deviations; it is damaged, {AGAIN}")


def check_lengths(folder: Path, manifest: Manifest, modality: str, offsets: np.ndarray) -> None:
    """Checks what the manifest says of the lengths of a modality's sequences.

    Raises:
        DataError: it does not agree with their offsets.
    """
    lengths, stored = np.diff(offsets), manifest.modalities[modality]
    if lengths.max(initial=0) != stored.longest or np.count_nonzero(lengths) != stored.present:
        where = short(folder / f"{modality}.offsets.npy")
        raise DataError(f"{where}: has other lengths than the manifest says; it is damaged, {AGAIN}")


def _blocks(
    data: Mapped, offsets: np.ndarray, where: str, what: str, least: int, most: int
) -> Iterator[tuple[int, np.ndarray, bytes]]:
    """Reads texts in pieces and checks them; yields the first row, the N + 1 bounds, and the bytes of each."""
    start, count = 0, len(offsets) - 1
    while start < count:
        fitting = int(np.searchsorted(offsets, offsets[start] + _BYTES, "right")) - 1
        bounds = offsets[start : 1 + max(start + 1, min(fitting, start + _ROWS))]
        lengths = np.diff(bounds)
        wrong = np.flatnonzero((lengths < least) | (lengths > most))
        if len(wrong):
            said = f"the {what} in row {start + wrong[0]} has {lengths[wrong[0]]:,} bytes"
            raise DataError(f"{where}: {said}; expected {least} to {most:,}; it is damaged, {AGAIN}")
        first, bounds = bounds[0], bounds - bounds[0]
        piece = data.array[first : first + bounds[-1]]
        raw = piece.tobytes()
        row = _not_utf8(piece, raw, bounds, lengths)
        if row is not None:
            raise DataError(f"{where}: the {what} in row {start + row} is not UTF-8; it is damaged, {AGAIN}")
        yield start, bounds, raw
        data.release()
        start += len(lengths)


def _not_utf8(piece: np.ndarray, raw: bytes, bounds: np.ndarray, lengths: np.ndarray) -> int | None:
    """The first of some texts that is not UTF-8 by itself."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return int(np.searchsorted(bounds, error.start, "right")) - 1
    starts = bounds[:-1][lengths > 0]
    within = starts[(piece[starts] & 0xC0) == 0x80]  # a character that begins in the text before
    return int(np.searchsorted(bounds, within[0], "right")) - 1 if len(within) else None


def _split_of(manifest: Manifest, row: int) -> str:
    return next(name for name, split in manifest.splits.items() if split.start <= row < split.stop)
