"""The importer ``mmsa``: pickles in MMSA's layout, which MMSA-FET writes too, or in that of another project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import DataConfig, TargetConfig
from gmsa.config.presets import TEXT
from gmsa.config.target import AUTO
from gmsa.data.importers.kinds import refuse_foreign
from gmsa.data.importers.rows import Source
from gmsa.data.importers.tables import Splits, about_files, annotation_of
from gmsa.data.mmsa.layouts import as_mmsa
from gmsa.data.mmsa.reader import MmsaFile
from gmsa.data.notes import note
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.texts import check_count
from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError, short
from gmsa.system.reading import is_folder

WORDS = ("text_bert", "raw_text")
"""Keys of text that is no features yet."""


def import_mmsa(path: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports every split and every modality of a pickle as :func:`gmsa.data.from_mmsa` reads it; skips empty splits.

    A split without labels is unlabeled. Splits are read one at a time, so memory holds the float32 utterances of one
    split, and what :func:`gmsa.data.unpickling.load_pickle` returns.

    Args:
        path: the pickle.
        target: the group ``target`` of a config.
        splits: the user's assignment of utterances to splits; all utterances are then held in memory.

    Raises:
        DataError: the file is missing, unsafe or invalid.
    """
    where = short(path)
    content = read_content(path)
    file = MmsaFile(content, where, DataConfig(modalities=AUTO), target, labels="found")
    columns = [split.columns for split in file.splits.values()]
    if TEXT not in file.dims and (words := [key for key in WORDS if any(key in c for c in columns)]):
        verb = "is none" if len(words) == 1 else "are none"
        note(f"{where}: has no features of text ({' and '.join(words)} {verb}); extract some, or train without text")
    dtypes = {m: "float16" if _is_half([c[m] for c in columns if m in c]) else "float32" for m in file.dims}
    rows = _rows(file)
    if splits is not None:
        rows = _assigned(list(rows), splits, where)
    count = sum(len(split.ids) for split in file.splits.values())
    return Source(rows, count, dtypes, about_files("mmsa", [path], splits))


def read_content(path: Path) -> Any:
    """Reads a pickle of any known layout, as MMSA's: ``{split: {"id": [...], "<modality>": [...], ...}}``.

    Raises:
        DataError: the file is no pickle, which the error says how to use, or is unsafe or damaged.
    """
    if not is_folder(path, DataError):
        refuse_foreign(path, short(path))
    return as_mmsa(load_pickle(path), short(path))


def annotations_of(columns: Mapping[str, Any], count: int) -> list[int]:
    """Returns -1, 0, 1 or -128 (none) per utterance, from the column ``annotations`` if the split has it."""
    column = columns.get("annotations")
    listed = isinstance(column, (list, tuple)) or (isinstance(column, np.ndarray) and column.ndim)
    if column is None or not listed or len(column) != count:
        return [NOT_ANNOTATED] * count
    return [annotation_of(value) for value in column]


def _is_half(value: Any) -> bool:
    """Whether all arrays in a column or a list of columns are float16, but for empty ones."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype == np.float16 or not value.size
    if isinstance(value, np.ndarray):
        return all(map(_is_half, value.flat))
    return isinstance(value, (list, tuple)) and all(map(_is_half, value))


def _rows(file: MmsaFile) -> Iterator[Row]:
    for name, split in file.splits.items():
        utterances = file.read(name)
        for utterance, annotation in zip(utterances, annotations_of(split.columns, len(utterances)), strict=True):
            yield Row(name, utterance, annotation, _class_of(file, utterance.label))
    file.finish()


def _class_of(file: MmsaFile, label: float | None) -> str:
    return file.target.name_of(label) if label is not None and file.target.is_classes else ""


def _assigned(rows: Sequence[Row], splits: Splits, where: str) -> Iterator[Row]:
    moved = [row._replace(split=splits.of(row.utterance.id, where)) for row in rows]
    names = dict.fromkeys(row.split for row in moved)
    check_count(names, where)
    for name in names:
        yield from (row for row in moved if row.split == name)
