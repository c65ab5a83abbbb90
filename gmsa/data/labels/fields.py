"""Fields of labels: which key of a file holds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gmsa.config import TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.data.labels.columns import holds_labels, holds_words, is_column, read_column, words_of
from gmsa.data.notes import Doubt, note
from gmsa.data.texts import few, hint
from gmsa.errors import DataError, listed, shown

_BOTH = ("label", "labels", "sentiment", "sentiments", "score", "scores")
INTENSITY_FIELDS = ("regression_labels", "labels", "label", *_BOTH[2:], "intensity")
"""Keys of intensities, in the order in which ``target.field: auto`` looks for them; a key of words is none of them."""
CLASS_FIELDS = (
    *("emotion", "emotions", "emotion_labels", "emotion_label", "classification_labels", "class", "category"),
    *(*_BOTH, "annotations", "annotation", "regression_labels"),
)
"""Keys of classes, in the order in which ``target.field: auto`` looks for them."""
_CLASS_ONLY = tuple(key for key in CLASS_FIELDS if key not in INTENSITY_FIELDS)


class NoSuchField(DataError):
    """A source has no field of the name that ``target.field`` has."""


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
        lacks = f"{where}: has no key '{wanted}' (target.preset: {settings.preset})"
        note(Doubt(f"{lacks}; the classes of '{fitting}' are taken"))
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


def _values(splits: Mapping[str, Mapping[str, Any]], key: str) -> list[str]:
    """The classes that a key holds, as the first split tells."""
    return sorted(_classes_in(_first(splits, key), key) or {"..."})


def _classes_in(values: Any, key: str) -> set[str]:
    """Names of the classes in a column; none if it holds no labels."""
    if not is_column(values):
        return set()
    try:
        return set(words_of(read_column(values, [""] * len(values), "", key, classes=True))) - {""}
    except DataError:
        return set()


def _all_named(splits: Mapping[str, Mapping[str, Any]], key: str, names: Sequence[str]) -> bool:
    """Whether all labels of a key are among these classes, by name, or else are the numbers of all of them."""
    found = {word.lower() for columns in splits.values() for word in _classes_in(columns.get(key), key)}
    return bool(found) and (found <= {name.lower() for name in names} or found == set(map(str, range(len(names)))))
