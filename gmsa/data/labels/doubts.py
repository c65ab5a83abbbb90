"""Doubts about labels: what looks wrong with those that were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gmsa.data.labels.columns import Column, known_numbers, words_of
from gmsa.data.labels.values import FEWEST, usual_range, values_of
from gmsa.data.notes import Doubt
from gmsa.data.targets import Target
from gmsa.errors import DataError, cut, listed, shown

_AGREEING = 0.9
"""Share of words, at least, that go with the usual word of their number where both name the same classes."""
_CHANCE = 0.002
"""Chance at which a split's labels may all lie where they do if they are on the scale of the others."""


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
    known = known_numbers(columns)
    field = next((column.field for column in columns.values()), "")
    if len(known) < FEWEST:
        return
    low, high, middle = known.min(), known.max(), (target.low + target.high) / 2
    scale = f"an intensity in [{target.low:g}, {target.high:g}]"
    fitting = usual_range(low, high)
    suggestion = f"set target.range to the file's range{f', maybe {fitting}' if fitting else ''}"
    values = np.unique(known)
    if len(values) == 1:
        yield Doubt(f"{where}: all {len(known):,} labels in '{field}' are {low:g}; check target.field")
    elif len(values) == 2:
        yield Doubt(
            f"{where}: '{field}' holds two values only, {low:g} and {high:g}: as {scale}, its scores by sign mean "
            "nothing; set target.kind: classes"
        )
    elif max(middle - low, high - middle) <= (target.high - target.low) / 4 + 1e-6:
        yield Doubt(
            f"{where}: all labels in '{field}' lie in [{low:g}, {high:g}], but are read as {scale}; {suggestion}"
        )
    elif low >= middle or high <= middle:
        side = "below" if low >= middle else "above"
        yield Doubt(
            f"{where}: no label in '{field}' is {side} {middle:g}: they lie in [{low:g}, {high:g}], but are read as "
            f"{scale}; {suggestion}"
        )
    else:
        yield from _odd_splits(columns, target, field, suggestion)


def _odd_splits(columns: Mapping[str, Column], target: Target, field: str, suggestion: str) -> Iterator[str]:
    """Splits whose labels seem to be on another scale than those of the others."""
    middle, width = (target.low + target.high) / 2, (target.high - target.low) / 6
    for name, column in columns.items():
        own, others = known_numbers({name: column}), known_numbers({n: c for n, c in columns.items() if n != name})
        if not len(own) or len(others) < FEWEST / 2:
            continue
        bound = float(np.abs(own - middle).max())
        share = float((np.abs(others - middle) <= bound).mean())
        if bound <= width + 1e-6 and share ** len(own) < _CHANCE:
            yield Doubt(
                f"{column.where}: all labels in '{field}' lie in [{own.min():g}, {own.max():g}], those of other splits "
                f"in [{others.min():g}, {others.max():g}]; if the scales differ, bring all to that of target.range"
            )


def place_note(what: str, classes: Sequence[str]) -> str:
    """That labels are numbers, and which class each is."""
    said = ", ".join(f"{number} is {cut(name)}" for number, name in enumerate(classes[:3]))
    rest = ", ..." if len(classes) > 3 else ""
    return f"{what} are numbers, read as places in target.classes: {said}{rest}; list target.classes in their order"


def check_places(columns: Mapping[str, Column], words: Mapping[str, Column], target: Target, where: str) -> None:
    """Checks that words for the classes, in another field, agree with the places that numbers are read as.

    Words that are none of the classes, or go with a number by chance, tell nothing.

    Args:
        columns: numbers, by the name of the split.
        words: words of the same utterances.
        target: what the numbers were read as.
        where: name of the file.

    Raises:
        DataError: the words number the classes in another way.
    """
    names = {name.lower(): number for number, name in enumerate(target.classes)}
    pairs: Counter[tuple[int, int]] = Counter()
    for split, column in words.items():
        numbers = columns[split].numbers
        if numbers is None:
            continue
        for number, word in zip(numbers.tolist(), words_of(column), strict=True):
            if number == number and word.lower() in names:
                pairs[int(number), names[word.lower()]] += 1
    usual: dict[int, tuple[int, int]] = {}
    for (number, name), count in pairs.most_common():
        usual.setdefault(number, (name, count))
    wrong = [number for number, (name, _) in sorted(usual.items()) if name != number]
    one_to_one = len({name for name, _ in usual.values()}) == len(usual) > 1
    if wrong and one_to_one and sum(count for _, count in usual.values()) >= _AGREEING * pairs.total():
        fields = [next(iter(found.values())).field for found in (columns, words)]
        number = wrong[0]
        raise DataError(
            f"{where}: '{fields[0]}' holds numbers, of which {number} would be {shown(target.classes[number])} by "
            f"target.classes, but '{fields[1]}' says {shown(target.classes[usual[number][0]])}; set target.field: "
            f"{cut(fields[1])}, or list target.classes in the order of the numbers"
        )


def are_places(columns: Mapping[str, Column], target: Target) -> bool:
    """Whether labels are numbers that are read as places in a list of classes, none of which is a number."""
    labeled = [column for column in columns.values() if column.labeled.any()]
    return bool(target.classes and labeled) and not (
        values_of(target.classes) or any(column.numbers is None for column in labeled)
    )


def _class_notes(columns: Mapping[str, Column], target: Target, where: str) -> Iterator[str]:
    if are_places(columns, target):
        field = next(iter(columns.values())).field
        yield place_note(f"{where}: the labels in '{field}'", target.classes)
    train = columns.get("train")
    if train is None or not train.labeled.any() or len(columns) < 2:
        return
    seen = {word.lower() for word in words_of(train)}
    others = {word: None for name, column in columns.items() if name != "train" for word in words_of(column) if word}
    if unseen := [word for word in others if word.lower() not in seen]:
        field = train.field
        yield Doubt(
            f"{where}: {listed(map(shown, unseen))} of '{field}' is in no training label, so it is never learned"
        )
