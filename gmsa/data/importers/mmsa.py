"""The importer ``mmsa``: pickles in MMSA's layout, which MMSA-FET writes too, or in that of another project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gmsa.config import AUTO, MODALITIES, DataConfig, TargetConfig
from gmsa.config.presets import MOST_MODALITIES, TEXT
from gmsa.data.importers.features import with_features
from gmsa.data.importers.kinds import refuse_foreign
from gmsa.data.importers.rows import Source
from gmsa.data.importers.tables import Splits, about_files, annotation_of, assigned
from gmsa.data.labels import is_column
from gmsa.data.mmsa.file import MmsaFile
from gmsa.data.mmsa.keys import WORDS, all_modalities, renamed, split_columns
from gmsa.data.mmsa.layouts import as_mmsa
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError, short
from gmsa.system.reading import is_folder


def import_mmsa(
    path: Path,
    target: TargetConfig,
    splits: Splits | None = None,
    data: DataConfig | None = None,
    features: Mapping[str, Path] | None = None,
) -> Source:
    """Imports every split and every modality of a pickle as :func:`gmsa.data.from_mmsa` reads it; skips empty splits.

    A split without labels is unlabeled. Splits are read one at a time, so memory holds the float32 utterances of one
    split, and what :func:`gmsa.data.unpickling.load_pickle` returns.

    Args:
        path: the pickle.
        target: the group ``target`` of a config.
        splits: the user's assignment of utterances to splits; all utterances are then held in memory.
        data: the group ``data``: ``modalities``, ``nan``, ``video_from`` and ``speaker_from`` (default: all
            modalities).
        features: files of the features of single modalities, which replace those of the pickle.

    Raises:
        DataError: the file is missing, unsafe or invalid.
    """
    where = short(path)
    content = read_content(path)
    if features:
        content = with_features(content, features, where)
    data = DataConfig(modalities=AUTO) if data is None else data
    if data.modalities == AUTO:
        data = replace(data, modalities=_modalities(content, where, target))
    file = MmsaFile(content, where, data, target, labels="found")
    columns = [split.columns for split in file.splits.values()]
    dtypes = {m: "float16" if _is_half([c[m] for c in columns if m in c]) else "float32" for m in file.dims}
    rows = _rows(file)
    if splits is not None:
        rows = assigned(list(rows), splits, where)
    count = sum(len(split.ids) for split in file.splits.values())
    return Source(rows, count, dtypes, about_files("mmsa", [path, *(features or {}).values()], splits))


def _modalities(content: Any, where: str, target: TargetConfig) -> tuple[str, ...] | Literal["auto"]:
    """All that look like features; text, too, where only its words are there, so that a note tells of them."""
    try:
        splits = [renamed(columns, MODALITIES)[0] for columns in split_columns(content, where).values()]
    except DataError:
        return AUTO  # the reader says what is wrong
    found = all_modalities(splits, where, target.chosen_field)
    words = TEXT not in found and found and any(key in columns for columns in splits for key in WORDS)
    return (TEXT, *found) if words and len(found) < MOST_MODALITIES else AUTO


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
    column: Any = columns.get("annotations")
    if not is_column(column) or len(column) != count:
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
