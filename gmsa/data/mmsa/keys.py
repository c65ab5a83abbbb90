"""The keys of a file in MMSA's layout: which name splits, modalities, labels, and what is said of the others."""

# N utterances, L steps, D features
from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gmsa.config import AUTO
from gmsa.config.presets import ALIASES, LETTERS, MODALITIES, MOST_MODALITIES, TEXT
from gmsa.data.labels import CLASS_FIELDS, INTENSITY_FIELDS, holds_labels, holds_words
from gmsa.data.notes import Doubt
from gmsa.data.splits import SPLIT_NAMES, UNSPLIT
from gmsa.data.texts import check_count, check_split, few
from gmsa.errors import LONGEST_VALUE, DataError, cut, listed, shown

SPLIT_KEYS = ("split", "mode")
"""Keys of a file without splits that tell the split of each utterance."""
SPEAKERS = ("speaker", "speakers")
STARTS = ("start", "start_time", "time")
"""Keys that place an utterance in its video, in the order in which they are looked for."""
UNIMODAL = {modality: f"regression_labels_{letter.upper()}" for letter, modality in LETTERS.items()}
"""Keys of the labels of single modalities (CH-SIMS)."""
KNOWN = frozenset(
    {
        *("id", "raw_text", "text_bert", "annotations", "annotation", "classification_labels", "regression_labels"),
        *(f"{kind}_labels_{letter}" for kind in ("regression", "classification") for letter in "TAVM"),
        *(*SPEAKERS, *STARTS, *SPLIT_KEYS, "fold", "video", "end", "end_time", "config"),
    }
)
"""Keys of which nothing is said where they are not read: MMSA's own, and those that place an utterance."""
_LENGTHS = "_lengths"
_LABEL_WORDS = (
    *("label", "target", "rating", "score", "class", "emotion", "sentiment", "valence", "arousal"),
    *("onehot", "one_hot", "time", "start", "index"),
)
"""What names of columns hold that may be labels or times of utterances, anywhere in the name."""
_END = re.compile(r"(?<![a-z])ends?(?![a-z])")
_FEW_COLUMNS = 32
"""Numbers per utterance, at most, that may be its labels or times."""
EXPECTED = "expected {'train': {'id': ..., 'text': ..., ...}, 'valid': ..., 'test': ...}"
WORDS = ("text_bert", "raw_text")
"""Keys of text that is no features yet."""
_MANY = 16
"""Keys beyond which a message says how many there are."""

Columns = Mapping[str, Any]
"""The columns of a split by their keys."""


# --- splits ----------------------------------------------------------------------------------------------------------


def keys_of(content: Collection[str]) -> str:
    """The keys of a file for a message: all, or the first ones and their number."""
    return f"its keys: {listed(content)}" if len(content) <= _MANY else f"its {len(content):,} keys: {listed(content)}"


def split_columns(content: Any, where: str, modalities: Sequence[str] = MODALITIES) -> dict[str, Columns]:
    """Returns the columns of each split of a file in MMSA's format; the one split of a flat file is called ``all``.

    A flat file with a key ``split`` or ``mode`` that tells the split of each utterance is parted by it.

    Raises:
        DataError: the content is not a dict of splits, or has keys that are not text.
    """
    groups = groups_of(content, where, modalities)
    found = {name: columns for name, columns in groups.items() if isinstance(columns, Mapping)}
    if not found:
        raise DataError(f"{where}: has neither splits nor 'id' ({keys_of(content)}); {EXPECTED}")
    check_count(found, where)
    for name, columns in found.items():
        check_split(name, where)
        check_keys(columns, where, name)
    return found


def groups_of(content: Any, where: str, modalities: Sequence[str] = MODALITIES) -> dict[str, Any]:
    """The entries of a file, some of which are splits; errors as :func:`split_columns`."""
    check_keys(content, where)
    if any(key in content for key in ("id", *modalities)):
        return _parted(content, where)
    return dict(content)


def check_keys(content: Any, where: str, split: str | None = None) -> None:
    """Checks that a file, or one of its splits, is a dict whose keys are text.

    Raises:
        DataError: it is not.
    """
    place = where if split is None else f"{where}: split {shown(split)}"
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        what = f": holds a {kind}, not a dict of splits" if split is None else f" is a {kind}, not a dict"
        raise DataError(f"{place}{what}; {EXPECTED}")
    for key in content:
        if not isinstance(key, str):
            raise DataError(f"{place}: has the key {shown(key)}, which is no text; save it with keys that are text")


def _parted(columns: Columns, where: str) -> dict[str, Columns]:
    key = next((key for key in SPLIT_KEYS if key in columns), None)
    names = None if key is None else columns[key]
    if isinstance(names, np.ndarray) and names.ndim == 1:
        names = names.tolist()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        return {UNSPLIT: columns}
    check_count(set(names), where)
    found: dict[str, Columns] = {}
    for name in dict.fromkeys(names):
        check_split(name, where)
        rows = [i for i, given in enumerate(names) if given == name]
        found[name] = {k: _rows(column, rows, len(names)) for k, column in columns.items() if k != key}
    return found


def _rows(column: Any, rows: Sequence[int], count: int) -> Any:
    if isinstance(column, np.ndarray) and column.ndim and len(column) == count:
        return column[rows]
    if isinstance(column, (list, tuple)) and len(column) == count:
        return [column[row] for row in rows]
    return column  # of another number of entries: the reader refuses it by name


def named_splits(names: Collection[str], where: str) -> dict[str, str]:
    """Returns gmsa's name of each split: ``train``, ``valid``, ``test``, ``pool``; others keep theirs.

    Raises:
        DataError: two are the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        ours = SPLIT_NAMES.get(name.strip().lower(), name)
        if ours in found:
            raise DataError(
                f"{where}: the splits {shown(found[ours])} and {shown(name)} are both the {ours} split of gmsa; "
                "merge them, or rename one"
            )
        found[ours] = name
    return {name: ours for ours, name in found.items()}


def holds_utterances(columns: Any) -> bool:
    """Whether an entry of a file is a split, and no note beside the splits."""
    return isinstance(columns, Mapping) and ("id" in columns or any(map(is_features, columns, columns.values())))


# --- modalities ------------------------------------------------------------------------------------------------------


def is_features(key: Any, values: Any) -> bool:
    """Whether a column looks like a modality: numbers [N, L, D] or [N, D], or a list of [L, D], under no known name.

    A name that no line could show is none of a modality.
    """
    if not isinstance(key, str) or len(key) > LONGEST_VALUE or not key.isprintable() or _is_reserved(key):
        return False
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.dtype.kind in "iuf" and (values.ndim in (3, 4) or (values.ndim == 2 and values.shape[1] > 1))
    if not isinstance(values, (list, tuple)) and not (isinstance(values, np.ndarray) and values.ndim == 1):
        return False
    first = next((value for value in values if value is not None), None)
    axes = _axes(first)
    return axes in (2, 3) or (axes == 1 and first is not None and len(first) > 1)


def _is_reserved(key: str) -> bool:
    name = key.lower()
    return (
        (name in KNOWN and name != "video")
        or name in INTENSITY_FIELDS
        or name in CLASS_FIELDS
        or name.endswith(_LENGTHS)
        or any(word in name for word in ("label", "emotion", "sentiment", "mask"))
    )


def _axes(value: Any) -> int:
    """Number of axes of an array, or of lists of numbers by their first entries; 0 of anything else."""
    axes = 0
    while isinstance(value, (list, tuple)) and len(value) and axes < 4:
        axes, value = axes + 1, value[0]
    if isinstance(value, np.ndarray):
        return axes + value.ndim if value.dtype.kind in "iuf" else 0
    return axes if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) else 0


def renamed(columns: Columns, wanted: Collection[str]) -> tuple[Columns, dict[str, str]]:
    """Gives columns that hold a wanted modality under another name its name.

    Other names are those of :data:`~gmsa.config.presets.ALIASES`, and the modality's in capitals.

    Returns:
        The columns, and the names that changed: ``{"visual": "vision"}``.
    """
    changed: dict[str, str] = {}
    for key, values in columns.items():
        name = key.lower()
        ours = name if name in wanted else ALIASES.get(name)
        free = ours in wanted and ours not in columns and ours not in changed.values()
        if ours is not None and free and key not in wanted and is_features(key, values):
            changed[key] = ours
    if not changed:
        return columns, changed
    lengths = {f"{key}{_LENGTHS}": f"{ours}{_LENGTHS}" for key, ours in changed.items()}
    return {changed.get(key, lengths.get(key, key)): values for key, values in columns.items()}, changed


def may_be_labels(key: str, values: Any) -> bool:
    """Whether a column that looks like features may be labels or times: few numbers per utterance, so called."""
    name = key.lower()
    if name in MODALITIES or not (any(word in name for word in _LABEL_WORDS) or _END.search(name)):
        return False
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.ndim == 2 and values.shape[1] <= _FEW_COLUMNS
    first = next((value for value in values if value is not None), None)
    return _axes(first) == 1 and first is not None and len(first) <= _FEW_COLUMNS


def all_modalities(splits: Collection[Columns], where: str, field: str = AUTO) -> tuple[str, ...]:
    """The modalities of ``data.modalities: auto``: the usual ones, then all other columns that look like features.

    The labels are none, whatever their shape, nor is what may be labels by its name and shape.

    Args:
        splits: the columns of each split.
        where: name of the file, for errors.
        field: ``target.field``.

    Raises:
        DataError: there are too many.
    """
    read = [columns for columns in splits if isinstance(columns, Mapping)]
    found = dict.fromkeys(key for columns in read for key, values in columns.items() if is_features(key, values))
    for columns in read:
        for key, values in columns.items():
            if key == field or (key in found and may_be_labels(key, values)):
                found.pop(key, None)
    names = (*(m for m in MODALITIES if m in found), *(key for key in found if key not in MODALITIES))
    if len(names) > MOST_MODALITIES:
        raise DataError(
            f"{where}: has {len(names)} columns that look like modalities ({listed(names)}), at most "
            f"{MOST_MODALITIES} are taken; list data.modalities"
        )
    return names


# --- what is said ----------------------------------------------------------------------------------------------------


def key_notes(
    splits: Mapping[str, Columns],
    modalities: Sequence[str],
    field: str,
    used: Collection[str],
    where: str,
    auto: bool = False,
    words: str | None = None,
) -> Iterator[str]:
    """What a file holds and is not used, and which modalities it lacks, one line each.

    Args:
        splits: the columns by the name of the split.
        modalities: those that are read.
        field: key of the labels; empty if they are not read.
        used: other keys that are read.
        where: name of the file.
        auto: whether they are all that the file has; only text is then said to be lacking, where the file has words.
        words: key of what a text encoder reads in the place of features of text.
    """
    keys = {key: values for columns in splits.values() for key, values in columns.items()}
    own = (*modalities, field, *used, *(() if words is None else (TEXT,)))
    features = [key for key, values in keys.items() if key not in own and is_features(key, values)]
    doubtful = [key for key in features if may_be_labels(key, keys[key])]
    features = [key for key in features if key not in doubtful]
    if auto and (taken := auto_note(modalities, where)):
        yield taken
    if doubtful and auto:
        yield (
            f"{where}: data.modalities: auto leaves out {_quoted(doubtful)}, which may be labels or times by name and "
            "shape; list data.modalities if they are features"
        )
    if features:
        what = "looks like features and is" if len(features) == 1 else "look like features and are"
        yield Doubt(f"{where}: {_quoted(features)} {what} not used; set data.modalities to a list with it, or to auto")
    lacking = [m for m in modalities if m not in keys]
    if words is not None and TEXT in keys and is_features(TEXT, keys[TEXT]):
        yield unused_features(where, words)
    elif words is None and auto and TEXT not in keys and ("text_bert" in keys or any(m in keys for m in MODALITIES)):
        lacking = [TEXT]
    if TEXT in lacking and (sources := [key for key in WORDS if key in keys]):
        rest = [m for m in lacking if m != TEXT]
        also = f" (nor of {', '.join(rest)})" if rest else ""
        yield Doubt(
            f"{where}: has no features of text{also}: {' and '.join(sources)} would need a text encoder; set "
            "model.text_encoder, extract features of text, or leave it out of data.modalities"
        )
    elif lacking and not auto:
        given = ", ".join([*([] if words is None else [TEXT]), *(m for m in modalities if m in keys)])
        yield Doubt(
            f"{where}: has no {' and no '.join(lacking)}: missing from all utterances; "
            f"data.modalities: [{given}] leaves it out"
        )
    for name, columns in splits.items():
        if without := [m for m in modalities if m in keys and m not in columns]:
            yield Doubt(
                f"{where}: split {shown(name)} has no {' and no '.join(without)}, unlike other splits: missing there"
            )
    silent = KNOWN | {*own, *features, *(doubtful if auto else ())}
    silent |= {f"{m}{_LENGTHS}" for m in (*own, *features)}
    if unread := [key for key in keys if key not in silent]:
        label = next((key for key in unread if holds_labels(keys[key])), None) if field else None
        kind = " and target.kind: classes" if label and holds_words(keys[label]) else ""
        remedy = f"; target.field: {cut(label)}{kind} would make it the target" if label else ""
        names = few(f"'{key}'" for key in unread)
        yield f"{where}: {names} {'is' if len(unread) == 1 else 'are'} not read{remedy}"


def unused_features(where: str, words: str) -> str:
    """What is said of features of text that a text encoder replaces."""
    return f"{where}: '{TEXT}' is not used: model.text_encoder reads {words} in its place"


def auto_note(modalities: Collection[str], where: str) -> str:
    """What ``data.modalities: auto`` takes beside the usual modalities; empty if nothing."""
    others = [modality for modality in modalities if modality not in MODALITIES]
    return f"{where}: data.modalities: auto takes {listed(others)}" if others else ""


def _quoted(names: Sequence[str]) -> str:
    return listed(f"'{name}'" for name in names)
