"""Labels: reads a column of numbers or words as intensities, or as numbers of classes."""

# N utterances, K labels of each
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from gmsa.config import TargetConfig
from gmsa.config.presets import TARGETS
from gmsa.config.target import AUTO, MOST_CLASSES
from gmsa.data.notes import note
from gmsa.data.targets import Target
from gmsa.data.texts import few, hint
from gmsa.errors import DataError, listed, shown

_BOTH = ("label", "labels", "sentiment", "sentiments", "score", "scores")
INTENSITY_FIELDS = ("regression_labels", "labels", "label", *_BOTH[2:], "intensity")
"""Keys of intensities, in the order in which ``target.field: auto`` looks for them; a key of words is none of them."""
CLASS_FIELDS = (
    *("classification_labels", "emotion", "emotions", "emotion_labels", "emotion_label", "class", "category"),
    *(*_BOTH, "annotations", "annotation", "regression_labels"),
)
"""Keys of classes, in the order in which ``target.field: auto`` looks for them."""
_CLASS_ONLY = tuple(key for key in CLASS_FIELDS if key not in INTENSITY_FIELDS)
FEWEST = 20
"""Labels, at least, that tell something of the range: fewer may lie in a part of it by chance."""
_RANGES = ((0, 1), (-2, 2), (0, 3), (0, 4), (0, 5), (1, 5), (1, 7), (1, 9), (0, 10), (0, 100))
_UNLABELED = frozenset({"", "nan"})
_UNLABELED_NUMBERS = _UNLABELED | {"none", "null", "na", "n/a"}
_CHANCE = 0.002


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


# --- columns ---------------------------------------------------------------------------------------------------------


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
    if not _is_column(values):
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
    return _parsed(cells, ids, where, field, _UNLABELED if classes else _UNLABELED_NUMBERS)


def _is_column(values: Any) -> bool:
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
    unwrapped = [_unwrapped(value) for value in values]
    counts = {len(value) for value in unwrapped if isinstance(value, (list, tuple, np.ndarray))}
    if counts and (len(counts) > 1 or not all(isinstance(v, (list, tuple, np.ndarray)) for v in unwrapped)):
        odd = next(i for i, v in enumerate(unwrapped) if _size(v) != _size(unwrapped[0]))
        raise DataError(
            f"{what} of {shown(ids[odd])} holds another number of labels than that of {shown(ids[0])}; "
            "save one label per utterance"
        )
    if counts:
        (count,) = counts
        if count and column is not None and column < count:
            unwrapped = [_unwrapped(value[column]) for value in unwrapped]
        else:
            _one_each(np.zeros((len(unwrapped), count)), (len(unwrapped), count), what, column)
    elif column:
        _one_each(np.zeros((len(unwrapped), 1)), (len(unwrapped), 1), what, column)
    return [_cell(value, f"{what} of {shown(i)}") for i, value in zip(ids, unwrapped, strict=True)]


def _unwrapped(value: Any) -> Any:
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
    words = ["" if _is_empty(cell, unlabeled) else cell if isinstance(cell, str) else _name(cell) for cell in cells]
    numbers = [
        cell if isinstance(cell, float) else _number(cell) if word else math.nan
        for cell, word in zip(cells, words, strict=True)
    ]
    if None in numbers:
        return Column(where, field, ids, None, words)
    return Column(where, field, ids, np.array(numbers, np.float64))


def _is_empty(cell: float | str, unlabeled: Collection[str]) -> bool:
    return cell.lower() in unlabeled if isinstance(cell, str) else math.isnan(cell)


def _number(word: str) -> float | None:
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _name(number: float) -> str:
    """The name of a class that a number is: ``1``, ``-1``, ``0.5``."""
    return str(int(number)) if math.isfinite(number) and number == int(number) else f"{number:g}"


# --- fields ----------------------------------------------------------------------------------------------------------


def find_field(splits: Mapping[str, Mapping[str, Any]], settings: TargetConfig, where: str) -> str:
    """Returns the key that holds the labels.

    That is ``target.field``, else the first of :data:`INTENSITY_FIELDS` that some split has and that does not hold
    words, or for classes the first of :data:`CLASS_FIELDS`. A data set's own field (``target.preset``) that the file
    lacks is replaced by the first field whose labels are all among its classes, which a note says.

    Args:
        splits: columns of the labeled splits by their names.
        settings: the group ``target``.
        where: name of the file, for errors.

    Raises:
        DataError: there is none.
    """
    keys = dict.fromkeys(key for columns in splits.values() for key in columns)
    wanted = settings.chosen_field
    if wanted in keys:
        return wanted
    known = CLASS_FIELDS if settings.is_classes else INTENSITY_FIELDS
    present = [key for key in known if key in keys]
    if settings.field != AUTO:
        others = _candidates(keys, splits)
        what = f"{where}: has no key {shown(wanted)}{hint(wanted, keys)}, which target.field names"
        raise DataError(
            f"{what}; labels may be in {listed(others)}" if others else f"{what}; name one that holds labels"
        )
    if wanted != AUTO:
        names = settings.chosen_classes
        fitting = next((key for key in present if _all_named(splits, key, names)), None)
        if fitting is None:
            raise DataError(
                f"{where}: has no key '{wanted}' (target.preset: {settings.preset}), and no other that holds its "
                f"{len(names)} classes; set target.field (labels may be in {few(_candidates(keys, splits))})"
            )
        note(f"{where}: has no key '{wanted}' (target.preset: {settings.preset}); the classes of '{fitting}' are taken")
        return fitting
    if settings.is_classes:
        found = next(iter(present), None)
    else:
        found = next((key for key in present if not holds_words(_first(splits, key))), None)
    if found is not None:
        return found
    classes = [key for key in (*present, *_CLASS_ONLY) if key in keys]
    if classes and not settings.is_classes:
        found_classes = few(_values(splits, classes[0]))
        raise DataError(
            f"{where}: holds no intensities, but classes in '{classes[0]}' ({found_classes}); "
            f"set target.kind: classes and target.field: {classes[0]}"
        )
    usual = known[0]
    raise DataError(
        f"{where}: has no key '{usual}'{hint(usual, keys)}; training and scoring need labels: set target.field to "
        f"the key that holds them (keys: {listed(keys)})"
    )


def _candidates(keys: Collection[str], splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Keys that may hold labels: of one number or word per utterance."""
    return [key for key in keys if key not in ("id", "raw_text") and holds_labels(_first(splits, key))]


def _first(splits: Mapping[str, Mapping[str, Any]], key: str) -> Any:
    return next((columns[key] for columns in splits.values() if key in columns), None)


def holds_labels(values: Any) -> bool:
    """Whether a column may hold labels: its first entries are single numbers or short words."""
    if not _is_column(values):
        return False
    some = [_unwrapped(value) for value in islice(values, 8)]
    return bool(some) and all(
        value is None
        or (isinstance(value, (str, bytes)) and len(value) <= 40)
        or isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating))
        for value in some
    )


def holds_words(values: Any) -> bool:
    """Whether the first entries of a column are words that are no numbers."""
    if not _is_column(values):
        return False
    some = [value for value in map(_unwrapped, islice(values, 50)) if value is not None]
    if not all(isinstance(value, (str, bytes)) for value in some):
        return False
    words = [text for text in (str(_cell(value, "")) for value in some) if text.lower() not in _UNLABELED_NUMBERS]
    return bool(words) and all(_number(word) is None for word in words)


def _values(splits: Mapping[str, Mapping[str, Any]], key: str) -> list[str]:
    """The classes that a key holds, as the first split tells."""
    return sorted(_classes_in(_first(splits, key), key) or {"..."})


def _classes_in(values: Any, key: str) -> set[str]:
    """Names of the classes in a column; none if it holds no labels."""
    if not _is_column(values):
        return set()
    try:
        return set(_words(read_column(values, [""] * len(values), "", key, classes=True))) - {""}
    except DataError:
        return set()


def _all_named(splits: Mapping[str, Mapping[str, Any]], key: str, names: Sequence[str]) -> bool:
    """Whether all labels of a key are among these classes, by name, or else are the numbers of all of them."""
    found = {word.lower() for columns in splits.values() for word in _classes_in(columns.get(key), key)}
    return bool(found) and (found <= {name.lower() for name in names} or found == set(map(str, range(len(names)))))


# --- labels ----------------------------------------------------------------------------------------------------------


def read_labels(
    columns: Mapping[str, Column], settings: TargetConfig, where: str
) -> tuple[Target, dict[str, np.ndarray]]:
    """Converts the labels of a file's splits to intensities, or to numbers of classes.

    Classes that the settings do not list are those of all columns together: whole numbers in numeric order, else words
    in alphabetical order, where words that differ only in case are one class. Listed ones are named by the labels, in
    any case, or numbered by them.

    Args:
        columns: by the name of the split.
        settings: the group ``target``.
        where: name of the file, for errors.

    Returns:
        The target, with its classes, and the labels of each split, float64 [N], NaN if unlabeled.

    Raises:
        DataError: a label is out of range, is not of a class, or there are fewer than two classes.
    """
    target = Target.of(settings)
    if not target.is_classes:
        return target, {name: _intensities(column, target, columns, settings) for name, column in columns.items()}
    if not any(column.labeled.any() for column in columns.values()):
        if not target.classes:
            raise DataError(f"{where}: no utterance has a label; list target.classes, or name target.field")
        return target, {name: np.full(len(column.ids), np.nan) for name, column in columns.items()}
    if all(column.numbers is not None or not column.labeled.any() for column in columns.values()):
        return _numbered(columns, target, settings, where)
    return _named(columns, target, where)


def _intensities(column: Column, target: Target, columns: Mapping[str, Column], settings: TargetConfig) -> np.ndarray:
    if column.numbers is None:
        wrong = np.array([bool(word) and _number(word) is None for word in column.words])
        value = column.words[int(np.flatnonzero(wrong)[0])]
        if (wrong == column.labeled).all():
            remedy = f"they are words; set target.kind: classes and target.field: {column.field}, or name another field"
        elif "," in value and _number(value.replace(",", ".")) is not None:
            remedy = "write decimals with a point"
        else:
            remedy = "repair it, or leave it empty in training"
        raise DataError(f"{column.first(wrong)} is {shown(value)}, not a number; {remedy}")
    with np.errstate(invalid="ignore"):
        wrong = (column.numbers < target.low - 1e-6) | (column.numbers > target.high + 1e-6)
    if wrong.any():
        value = column.numbers[int(np.flatnonzero(wrong)[0])]
        raise DataError(
            f"{column.first(wrong)} is {value:g}, out of [{target.low:g}, {target.high:g}]; "
            f"{_range_remedy(columns, settings)}"
        )
    return column.numbers


def _known(columns: Mapping[str, Column]) -> np.ndarray:
    """All labels that are finite numbers."""
    found = [c.numbers[np.isfinite(c.numbers)] for c in columns.values() if c.numbers is not None]
    return np.concatenate(found) if found else np.zeros(0)


def _range_remedy(columns: Mapping[str, Column], settings: TargetConfig) -> str:
    known = _known(columns)
    if not len(known):
        return "set target.range to the file's range"
    (least, most), low, high = settings.chosen_range, known.min(), known.max()
    beyond = int(((known < least - 1e-6) | (known > most + 1e-6)).sum())
    said = f"{beyond:,} of {len(known):,} labels are, in all from {low:g} to {high:g}"
    if beyond <= max(1, len(known) // 100) and len(known) >= FEWEST:
        return f"{said}; repair them, or set target.range to the file's range"
    fitting = usual_range(low, high)
    return f"{said}; set target.range to the file's range{f', maybe {fitting}' if fitting else ''}"


def usual_range(low: float, high: float) -> str:
    """A usual range, as a setting, whose ends labels in [low, high] come close to; or nothing."""
    for preset in ("sims", "mosi"):
        bound = TARGETS[preset]["range"]
        if _fits(low, high, *bound):
            return f"{list(map(int, bound))} (target.preset: {preset})"
    return next((f"[{a}, {b}]" for a, b in _RANGES if _fits(low, high, a, b)), "")


def _fits(low: float, high: float, least: float, most: float) -> bool:
    near = 0.15 * (most - least)
    return least - 1e-6 <= low <= least + near and most - near <= high <= most + 1e-6


def _numbered(
    columns: Mapping[str, Column], target: Target, settings: TargetConfig, where: str
) -> tuple[Target, dict[str, np.ndarray]]:
    """Classes of labels that are numbers."""
    given = {name: c.numbers if c.numbers is not None else np.full(len(c.ids), np.nan) for name, c in columns.items()}
    for name, numbers in given.items():
        with np.errstate(invalid="ignore"):
            broken = ~np.isnan(numbers) & (np.floor(numbers) != numbers) | np.isinf(numbers)
        if broken.any():
            value = numbers[int(np.flatnonzero(broken)[0])]
            raise DataError(
                f"{columns[name].first(broken)} is {value:g}, which is no class; set target.kind: intensity, or "
                "target.field to the key of the classes"
            )
    values = np.unique(np.concatenate([numbers[~np.isnan(numbers)] for numbers in given.values()]))
    if target.classes and not all(_number(name) is not None for name in target.classes):
        known = {float(number): number for number in range(target.num_classes)}
    elif target.classes:
        known = {float(_number(name) or 0): number for number, name in enumerate(target.classes)}
    else:
        target = replace(target, classes=_checked([_name(value) for value in values], where, settings.chosen_field))
        known = {float(value): number for number, value in enumerate(values)}
    if strange := [value for value in values if float(value) not in known]:
        name = next(name for name, numbers in given.items() if strange[0] in numbers)
        raise DataError(
            f"{columns[name].first(given[name] == strange[0])} is {_name(strange[0])}, which is none of the "
            f"{target.num_classes} classes ({listed(target.classes)}); add it to target.classes, or name another field"
        )
    places = np.array([known[float(value)] for value in values], np.float64)
    return target, {name: _placed(numbers, values, places) for name, numbers in given.items()}


def _placed(numbers: np.ndarray, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    labeled = ~np.isnan(numbers)
    found = np.full(len(numbers), np.nan)
    found[labeled] = places[np.searchsorted(values, numbers[labeled])]
    return found


def _named(columns: Mapping[str, Column], target: Target, where: str) -> tuple[Target, dict[str, np.ndarray]]:
    """Classes of labels that are words, maybe among numbers."""
    words = {name: _words(column) for name, column in columns.items()}
    counts = Counter(word for column in words.values() for word in column if word)
    exact = set(target.classes)
    names = {name.lower(): name for name in target.classes}
    if not target.classes:
        for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            names.setdefault(word.lower(), word)  # the most frequent way to write it
        field = next(iter(columns.values())).field
        exact = set(_checked(sorted(names.values()), where, field))
        target = replace(target, classes=tuple(sorted(names.values())))
    number = {name: i for i, name in enumerate(target.classes)}
    other = {}
    for word in counts:
        found = word if word in exact else names.get(word.lower())
        if found is None:
            name = next(name for name, column in words.items() if word in column)
            chosen = np.array([given == word for given in words[name]])
            raise DataError(
                f"{columns[name].first(chosen)} is {shown(word)}, which is none of the {target.num_classes} classes "
                f"({listed(target.classes)}); add it to target.classes, or name another target.field"
            )
        if found != word:
            other[word] = found
        number[word] = number[found]
    if other:
        said = listed(f"{shown(word)} as {shown(found)}" for word, found in other.items())
        note(f"{where}: '{next(iter(columns.values())).field}': classes are the same in any case; read {said}")
    return target, {
        name: np.array([number[word] if word else np.nan for word in column], np.float64)
        for name, column in words.items()
    }


def _words(column: Column) -> Sequence[str]:
    if column.numbers is None:
        return column.words
    return ["" if math.isnan(number) else _name(number) for number in column.numbers]


def _checked(names: Sequence[str], where: str, field: str) -> tuple[str, ...]:
    what = f"{where}: '{field}'" if field != AUTO else f"{where}: the labels"
    if len(names) < 2:
        raise DataError(f"{what} hold one class alone ({listed(names)}); list target.classes, or name target.field")
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"{what} hold {len(names):,} classes ({listed(names)}), at most {MOST_CLASSES:,} are taken; "
            "set target.kind: intensity, or name another target.field"
        )
    return tuple(names)


# --- notes -----------------------------------------------------------------------------------------------------------


def label_notes(columns: Mapping[str, Column], target: Target, where: str) -> Iterator[str]:
    """What looks wrong with labels that were read, one line each.

    Of intensities, where at least :data:`FEWEST` are known: all are the same; there are two values only; all lie within
    half of the range around its middle, or on one side of its middle; or all of one split lie within a third of the
    range though those of the others do not, so that chance would hardly do it (1 in 500). Of classes: some are in no
    training label.

    Args:
        columns: by the name of the split.
        target: what they were read as.
        where: name of the file.
    """
    if target.is_classes:
        yield from _class_notes(columns, target, where)
        return
    known = _known(columns)
    field = next((column.field for column in columns.values()), "")
    if len(known) < FEWEST:
        return
    low, high, middle = known.min(), known.max(), (target.low + target.high) / 2
    scale = f"an intensity in [{target.low:g}, {target.high:g}]"
    fitting = usual_range(low, high)
    suggestion = f"set target.range to the file's range{f', maybe {fitting}' if fitting else ''}"
    values = np.unique(known)
    if len(values) == 1:
        yield f"{where}: all {len(known):,} labels in '{field}' are {low:g}; check target.field"
    elif len(values) == 2:
        yield (
            f"{where}: '{field}' holds two values only, {low:g} and {high:g}: as {scale}, its scores by sign mean "
            "nothing; set target.kind: classes"
        )
    elif max(middle - low, high - middle) <= (target.high - target.low) / 4 + 1e-6:
        yield f"{where}: all labels in '{field}' lie in [{low:g}, {high:g}], but are read as {scale}; {suggestion}"
    elif low >= middle or high <= middle:
        side = "below" if low >= middle else "above"
        yield (
            f"{where}: no label in '{field}' is {side} {middle:g}: they lie in [{low:g}, {high:g}], but are read as "
            f"{scale}; {suggestion}"
        )
    else:
        yield from _odd_splits(columns, target, field, suggestion)


def _odd_splits(columns: Mapping[str, Column], target: Target, field: str, suggestion: str) -> Iterator[str]:
    """Splits whose labels seem to be on another scale than those of the others."""
    middle, width = (target.low + target.high) / 2, (target.high - target.low) / 6
    for name, column in columns.items():
        own, others = _known({name: column}), _known({n: c for n, c in columns.items() if n != name})
        if not len(own) or len(others) < FEWEST / 2:
            continue
        bound = float(np.abs(own - middle).max())
        share = float((np.abs(others - middle) <= bound).mean())
        if bound <= width + 1e-6 and share ** len(own) < _CHANCE:
            yield (
                f"{column.where}: all labels in '{field}' lie in [{own.min():g}, {own.max():g}], those of other splits "
                f"in [{others.min():g}, {others.max():g}]; if the scales differ, bring all to that of target.range"
            )


def _class_notes(columns: Mapping[str, Column], target: Target, where: str) -> Iterator[str]:
    train = columns.get("train")
    if train is None or not train.labeled.any() or len(columns) < 2:
        return
    seen = {word.lower() for word in _words(train)}
    others = {word: None for name, column in columns.items() if name != "train" for word in _words(column) if word}
    if unseen := [word for word in others if word.lower() not in seen]:
        field = train.field
        yield f"{where}: {listed(map(shown, unseen))} of '{field}' is in no training label, so it is never learned"
