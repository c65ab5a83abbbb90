"""Columns of labels: one number or word per utterance, however a file holds them."""

# N utterances, K labels of each
from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from gmsa.errors import DataError, shown

NO_CLASS = frozenset({"", "nan"})
"""What is no class, in lower case."""
NO_NUMBER = NO_CLASS | {"none", "null", "na", "n/a"}
"""What is no number."""


@dataclass(frozen=True)
class Column:
    """The labels of one split, as numbers if all of them are, else as words."""

    where: str
    """Name of the file and the split."""
    field: str
    ids: Sequence[str]
    numbers: np.ndarray | None
    """float64 [N], NaN if unlabeled; None if some are words."""
    words: Sequence[str] = ()
    """[N], empty if unlabeled."""

    @property
    def labeled(self) -> np.ndarray:
        """Whether each utterance has a label, [N]."""
        if self.numbers is None:
            return np.array([bool(word) for word in self.words], bool)
        return ~np.isnan(self.numbers)

    def first(self, chosen: np.ndarray) -> str:
        """The first utterance that a mask [N] chooses, for errors."""
        return f"{self.where}: '{self.field}' of {shown(self.ids[int(np.flatnonzero(chosen)[0])])}"


def read_column(
    values: Any, ids: Sequence[str], where: str, field: str, column: int | None = None, classes: bool = False
) -> Column:
    """Reads the labels of one split: numbers, numbers in strings, or words.

    Args:
        values: an array or a list, one entry per utterance: [N], [N, 1], [N, 1, 1], or [N, K] with ``column``.
        ids: ids of the utterances.
        where: name of the file and the split, for errors.
        field: key of the labels, for errors.
        column: ``target.column``.
        classes: whether they are classes; else words such as ``none`` are no label.

    Raises:
        DataError: there is not one number or word per utterance.
    """
    what = f"{where}: '{field}'"
    if not is_column(values):
        raise DataError(f"{what} is a {type(values).__name__}; expected an array or a list of one label per utterance")
    if len(values) != len(ids):
        raise DataError(
            f"{what} has {len(values)} entries but 'id' has {len(ids)}; every key must hold one entry per utterance"
        )
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
        return Column(where, field, ids, _one_each(numbers, numbers.shape, what, column))
    cells = _cells(values, ids, what, column)
    if all(isinstance(cell, float) for cell in cells):
        return Column(where, field, ids, np.array(cells, np.float64))
    return _parsed(cells, ids, where, field, NO_CLASS if classes else NO_NUMBER)


def is_column(values: Any) -> bool:
    """Whether a value is a list, or an array with an axis: one entry per utterance."""
    return isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim > 0)


def _one_each(numbers: np.ndarray, shape: tuple[int, ...], what: str, column: int | None) -> np.ndarray:
    """[N] of [N, 1, ...], or a column of [N, ..., K]."""
    flat = numbers.reshape(len(numbers), math.prod(numbers.shape[1:]))
    count = flat.shape[1]
    if count != 1 and column is None:
        remedy = f"set target.column to that of the label, 0 to {count - 1}" if count else "check how it was saved"
        raise DataError(f"{what} has shape {list(shape)}, not one label per utterance; {remedy}")
    if column is not None and column >= count:
        raise DataError(f"{what} has {count} columns, no column {column} (target.column counts from 0)")
    return flat[:, column or 0]


def _cells(values: Any, ids: Sequence[str], what: str, column: int | None) -> list[float | str]:
    """The entries, each a number or text; NaN for None."""
    entries = [unwrapped(value) for value in values]
    counts = {len(value) for value in entries if isinstance(value, (list, tuple, np.ndarray))}
    if counts and (len(counts) > 1 or not all(isinstance(v, (list, tuple, np.ndarray)) for v in entries)):
        odd = next(i for i, v in enumerate(entries) if _size(v) != _size(entries[0]))
        raise DataError(
            f"{what} of {shown(ids[odd])} holds another number of labels than that of {shown(ids[0])}; "
            "save one label per utterance"
        )
    if counts:
        (count,) = counts
        if count and column is not None and column < count:
            entries = [unwrapped(value[column]) for value in entries]
        else:
            _one_each(np.zeros((len(entries), count)), (len(entries), count), what, column)
    elif column:
        _one_each(np.zeros((len(entries), 1)), (len(entries), 1), what, column)
    return [_cell(value, f"{what} of {shown(i)}") for i, value in zip(ids, entries, strict=True)]


def unwrapped(value: Any) -> Any:
    """The value in lists and arrays of one entry."""
    while True:
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        elif isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        elif isinstance(value, np.ndarray):
            return value.reshape(-1)
        else:
            return value


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple, np.ndarray)) else -1


def _cell(value: Any, what: str) -> float | str:
    if value is None:
        return math.nan
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
        try:
            return float(value)
        except OverflowError:
            pass
    raise DataError(f"{what} is {shown(value)}; expected a number or a word")


def _parsed(
    cells: Sequence[float | str], ids: Sequence[str], where: str, field: str, unlabeled: Collection[str]
) -> Column:
    """Numbers, if all that is no number is empty; else words."""
    words = [
        "" if _is_empty(cell, unlabeled) else cell if isinstance(cell, str) else class_name(cell) for cell in cells
    ]
    numbers = [
        cell if isinstance(cell, float) else number_of(cell) if word else math.nan
        for cell, word in zip(cells, words, strict=True)
    ]
    if None in numbers:
        return Column(where, field, ids, None, words)
    return Column(where, field, ids, np.array(numbers, np.float64))


def _is_empty(cell: float | str, unlabeled: Collection[str]) -> bool:
    return cell.lower() in unlabeled if isinstance(cell, str) else math.isnan(cell)


def number_of(word: str) -> float | None:
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def class_name(number: float) -> str:
    """The name of a class that a number is: ``1``, ``-1``, ``0.5``."""
    return str(int(number)) if math.isfinite(number) and number == int(number) else f"{number:g}"


def holds_labels(values: Any) -> bool:
    """Whether a column may hold labels: its first entries are single numbers or short words."""
    if not is_column(values):
        return False
    some = [unwrapped(value) for value in islice(values, 8)]
    return bool(some) and all(
        value is None
        or (isinstance(value, (str, bytes)) and len(value) <= 40)
        or isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating))
        for value in some
    )


def holds_words(values: Any) -> bool:
    """Whether the first entries of a column are words that are no numbers."""
    if not is_column(values):
        return False
    some = [value for value in map(unwrapped, islice(values, 50)) if value is not None]
    if not all(isinstance(value, (str, bytes)) for value in some):
        return False
    words = [text for text in (str(_cell(value, "")) for value in some) if text.lower() not in NO_NUMBER]
    return bool(words) and all(number_of(word) is None for word in words)


def words_of(column: Column) -> Sequence[str]:
    """The labels as words, empty if unlabeled, [N]."""
    if column.numbers is None:
        return column.words
    return ["" if math.isnan(number) else class_name(number) for number in column.numbers]


def known_numbers(columns: Mapping[str, Column]) -> np.ndarray:
    """All labels that are finite numbers."""
    found = [c.numbers[np.isfinite(c.numbers)] for c in columns.values() if c.numbers is not None]
    return np.concatenate(found) if found else np.zeros(0)
