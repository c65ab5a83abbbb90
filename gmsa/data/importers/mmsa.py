"""The importer ``mmsa``: pickles in MMSA's format, which MMSA-FET writes too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import MODALITIES, TargetConfig
from gmsa.data.importers.rows import Source
from gmsa.data.importers.tables import Splits, about_files, annotation_of
from gmsa.data.mmsa import from_mmsa, split_columns
from gmsa.data.mmsa.layouts import as_mmsa
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.targets import Target
from gmsa.data.texts import check_count
from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError, short


def import_mmsa(path: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports every split of a pickle as :func:`gmsa.data.from_mmsa` reads it; skips empty splits.

    A split without ``regression_labels`` is unlabeled. Splits are read one at a time, so memory holds the float32
    utterances of one split, and what :func:`gmsa.data.unpickling.load_pickle` returns.

    Args:
        path: the pickle.
        target: the group ``target`` of a config.
        splits: the user's assignment of utterances to splits; all utterances are then held in memory.

    Raises:
        DataError: the file is missing, unsafe or invalid.
    """
    content = split_columns(as_mmsa(load_pickle(path), short(path)), short(path))
    found = {name: columns for name, columns in content.items() if _count(columns)}
    about = about_files("mmsa", [path], splits)
    kept = [m for m in MODALITIES if any(m in columns for columns in found.values())]
    if not kept:
        raise DataError(f"{short(path)}: holds no utterances with any of {', '.join(MODALITIES)}; check the file")
    dtypes = {m: "float16" if _is_half([c[m] for c in found.values() if m in c]) else "float32" for m in kept}
    rows = _rows(found, short(path), Target.of(target))
    if splits is not None:
        rows = _assigned(list(rows), splits, short(path))
    return Source(rows, sum(map(_count, found.values())), dtypes, about)


def annotations_of(columns: Mapping[str, Any], count: int) -> list[int]:
    """Returns -1, 0, 1 or -128 (none) per utterance, from the column ``annotations`` if the split has it."""
    column = columns.get("annotations")
    if column is None or _length(column) != count:
        return [NOT_ANNOTATED] * count
    return [annotation_of(value) for value in column]


def _count(columns: Mapping[str, Any]) -> int:
    """Number of utterances of a split; 1 if it is unknown, so that the split is read and the error raised there."""
    count = _length(columns.get("id"))
    return 1 if count is None else count


def _length(column: Any) -> int | None:
    if isinstance(column, (list, tuple)) or (isinstance(column, np.ndarray) and column.ndim):
        return len(column)
    return None


def _is_half(value: Any) -> bool:
    """Whether all arrays in a column or a list of columns are float16, but for empty ones."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype == np.float16 or not value.size
    if isinstance(value, np.ndarray):
        return all(map(_is_half, value.flat))
    return isinstance(value, (list, tuple)) and all(map(_is_half, value))


def _rows(found: Mapping[str, Mapping[str, Any]], where: str, target: Target) -> Iterator[Row]:
    for name, columns in found.items():
        labeled = "regression_labels" in columns
        utterances = from_mmsa({name: columns}, where, MODALITIES, target, (name,), labeled)[name]
        notes = annotations_of(columns, len(utterances))
        for utterance, annotation in zip(utterances, notes, strict=True):
            yield Row(name, utterance, annotation)


def _assigned(rows: Sequence[Row], splits: Splits, where: str) -> Iterator[Row]:
    moved = [row._replace(split=splits.of(row.utterance.id, where)) for row in rows]
    names = dict.fromkeys(row.split for row in moved)
    check_count(names, where)
    for name in names:
        yield from (row for row in moved if row.split == name)
