"""Values of labels: intensities in the range of the target, or numbers of classes."""

# N utterances
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gmsa.config import TargetConfig
from gmsa.config.groups.target import AUTO, LONGEST_CLASS, MOST_CLASSES, is_class_name
from gmsa.config.presets import TARGETS
from gmsa.data.labels.columns import Column, class_name, known_numbers, number_of, words_of
from gmsa.data.notes import note
from gmsa.data.targets import Target
from gmsa.errors import DataError, listed, shown

FEWEST = 20
"""Labels, at least, that tell something of the range: fewer may lie in a part of it by chance."""
_RANGES = ((0, 1), (-2, 2), (0, 3), (0, 4), (0, 5), (1, 5), (1, 7), (1, 9), (0, 10), (0, 100))


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
        wrong = np.array([bool(word) and number_of(word) is None for word in column.words])
        value = column.words[int(np.flatnonzero(wrong)[0])]
        if (wrong == column.labeled).all():
            remedy = f"they are words; set target.kind: classes and target.field: {column.field}, or name another field"
        elif "," in value and number_of(value.replace(",", ".")) is not None:
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


def _range_remedy(columns: Mapping[str, Column], settings: TargetConfig) -> str:
    known = known_numbers(columns)
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
    if target.classes:
        known = values_of(target.classes) or {float(number): number for number in range(target.num_classes)}
    else:
        target = replace(
            target, classes=_checked([class_name(value) for value in values], where, settings.chosen_field)
        )
        known = {float(value): number for number, value in enumerate(values)}
    if strange := [value for value in values if float(value) not in known]:
        name = next(name for name, numbers in given.items() if strange[0] in numbers)
        raise DataError(
            f"{columns[name].first(given[name] == strange[0])} is {class_name(strange[0])}, which is none of the "
            f"{target.num_classes} classes ({listed(target.classes)}); add it to target.classes, or name another field"
        )
    places = np.array([known[float(value)] for value in values], np.float64)
    return target, {name: _placed(numbers, values, places) for name, numbers in given.items()}


def values_of(classes: Sequence[str]) -> dict[float, int]:
    """The numbers of classes by the values that their names are, of those that are called by numbers."""
    called = {number_of(name): number for number, name in enumerate(classes)}
    return {value: number for value, number in called.items() if value is not None and math.isfinite(value)}


def _placed(numbers: np.ndarray, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    labeled = ~np.isnan(numbers)
    found = np.full(len(numbers), np.nan)
    found[labeled] = places[np.searchsorted(values, numbers[labeled])]
    return found


def _named(columns: Mapping[str, Column], target: Target, where: str) -> tuple[Target, dict[str, np.ndarray]]:
    """Classes of labels that are words, maybe among numbers."""
    words = {name: words_of(column) for name, column in columns.items()}
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


def _checked(names: Sequence[str], where: str, field: str) -> tuple[str, ...]:
    what = f"{where}: '{field}'" if field != AUTO else f"{where}: the labels"
    if len(names) < 2:
        raise DataError(f"{what} hold one class alone ({listed(names)}); list target.classes, or name target.field")
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"{what} hold {len(names):,} classes ({listed(names)}), at most {MOST_CLASSES:,} are taken; "
            "set target.kind: intensity, or name another target.field"
        )
    if (wrong := next((name for name in names if not is_class_name(name)), None)) is not None:
        raise DataError(
            f"{what}: {shown(wrong)} is no class, which is one line of 1 to {LONGEST_CLASS} printable characters; "
            "repair it, or name another target.field"
        )
    return tuple(names)
