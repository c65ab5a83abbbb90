"""Other projects' pickles as MMSA's: turns their content into ``{split: {"id": [...], "<modality>": [...], ...}}``.

Nothing is read or copied here: the columns hold the values of the file, which the reader checks.
"""

# N utterances, L steps, D features
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any

import numpy as np

from gmsa.data.labels import is_column
from gmsa.data.mmsa.keys import SPLIT_KEYS, Columns
from gmsa.data.splits import SPLIT_NAMES, UNSPLIT
from gmsa.errors import DataError, listed, shown

PARTS = ("words", "visual", "acoustic")
"""What the lists of MAG-BERT, MISA and MMIM hold of an utterance, in their order."""

_EXAMPLE = "expected ((words, visual, acoustic), label, segment)"
_SPLITS = frozenset({*SPLIT_NAMES, UNSPLIT})
_TEXTS = frozenset({"raw_text", "transcript", "sentence"})
_USUAL = frozenset({"text", "audio", "vision", "visual", "acoustic", "video"})
_RESERVED = _TEXTS | {
    *("id", "ids", "annotations", "annotation", "config", "speaker", "split", "mode", "fold", "mask", "text_bert"),
    *("emotion", "emotions", "sentiment", "score", "target", "targets"),
}
_FEW = 8
"""Entries that tell what the others are."""
_MOST_KEYS = 1000
_LONGEST_NUMBER = 18
"""Digits of the number of a clip, at most."""


def as_mmsa(content: Any, where: str) -> Any:
    """Returns the content of a pickle in MMSA's layout; content that has it already, or that is unknown, as it is.

    ========================  ========================================================================================
    layout                    becomes
    ========================  ========================================================================================
    MAG-BERT, MISA, MMIM      per split, or for a bare list the split ``all``, ``[((words, visual, acoustic), label,
                              segment), ...]``: the words become ``raw_text`` (features ``[L, D]`` in their place
                              ``text``), a segment ``v[3]`` the id ``v$_$3``. MISA's numbers of words are left out, as
                              the words themselves follow.
    MulT                      Ids ``[video, start, end]`` become ``video$_$k``,
                              where k counts a video's utterances in the file in order of time, so that clips are sorted
                              by time; without ids, utterances are ``train0``, ``train1``, ..., each its own video.
    one clip                  MMSA-FET's ``{"text": [L, D], ..., "config": ...}``, or with an id that is text: one
                              utterance of the split ``all``, by default called as the file.
    utterances by id          ``{id: {"text": [L, D], "label": ...}}``, alone or per split, or a list of such entries:
                              a key ``split`` in the entries, if there is one, tells their splits.
    modalities by id          ``{"text": {id: [L, D]}, "label": {id: ...}}``, alone or per split.
    ========================  ========================================================================================

    Args:
        content: the unpickled file.
        where: name of the file, for errors and for the id of a single clip.

    Raises:
        DataError: an utterance of a known layout has another shape than the rest, or entries hold no features.
    """
    if isinstance(content, (list, tuple)):
        return _from_list(content, where)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in islice(content, _FEW)):
        if isinstance(content, Mapping) and _holds_utterances(content):
            return _by_split({UNSPLIT: content}, where)
        return content
    if any(_holds_examples(value) for value in content.values()):
        made = {n: _of_examples(v, f"{where}: split {shown(n)}", n) for n, v in content.items() if _is_list(v)}
        return {name: columns for name, columns in made.items() if columns is not None}
    groups = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    if not groups or not any(map(_has_features, groups.values())):
        if any(_is_features(key, value) for key, value in content.items()):
            return _flat(content, where)
        if _holds_texts(content):
            columns = _columns(content, UNSPLIT)
            return columns if "id" in columns else {UNSPLIT: columns}
        if any(map(_holds_texts, groups.values())):
            return {n: _columns(c, n) if isinstance(c, Mapping) and _holds_texts(c) else c for n, c in content.items()}
        if groups.keys() & _SPLITS and any(map(_is_nested, groups.values())):
            return _by_split(groups, where)
        return _unknown(content, groups, where)
    if _SPLITS.isdisjoint(groups) and (_holds_utterances(groups) or _holds_modalities(groups)):
        return _by_split({UNSPLIT: {key: value for key, value in content.items() if key != "config"}}, where)
    return _of_mult(content, where)


# --- lists: MAG-BERT, MISA, MMIM -------------------------------------------------------------------------------------


def _from_list(content: Sequence[Any], where: str) -> Any:
    if _holds_examples(content):
        return {UNSPLIT: _of_examples(content, where, UNSPLIT)}
    if content and all(isinstance(entry, Mapping) for entry in content) and any(map(_has_features, content[:_FEW])):
        return _grouped(_of_entries(content, None, where), where)
    return content


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (
        isinstance(value, np.ndarray) and value.dtype == object and value.ndim > 0
    )


def _holds_examples(value: Any) -> bool:
    if not _is_list(value) or not len(value):
        return False
    first = value[0]
    return _is_list(first) and len(first) >= 2 and isinstance(first[0], (list, tuple)) and len(first[0]) >= len(PARTS)


def _of_examples(examples: Sequence[Any], where: str, split: str) -> Columns | None:
    """The columns of a list of ``((words, visual, acoustic, ...), label, segment, ...)``; None of an empty list."""
    if not len(examples):
        return None
    rows: list[dict[str, Any]] = []
    for number, example in enumerate(examples, 1):
        place = f"{where}: example {number}"
        if not _is_list(example) or len(example) < 2:
            raise DataError(f"{place} is {_kind(example)}; {_EXAMPLE}")
        parts, label, *others = example
        if not isinstance(parts, (list, tuple)) or len(parts) < len(PARTS):
            raise DataError(f"{place} holds {_kind(parts)} in the place of the modalities; {_EXAMPLE}")
        row = {"id": _segment(others[0]) if others else f"{split}{number - 1}", **_parts(parts), "label": label}
        rows.append(row | {f"label_{i}": value for i, value in enumerate(others[1:], 2)})
    keys = _keys_of(rows, where)
    columns = {key: [row.get(key, "" if key in _TEXTS else None) for row in rows] for key in keys}
    columns["id"] = _numbered({split: columns["id"]})[split]
    return columns


def _parts(parts: Sequence[Any]) -> dict[str, Any]:
    """The modalities of an example, and its words: MISA has their numbers first, the words themselves fourth."""
    first, visual, acoustic, *others = parts
    row: dict[str, Any] = {"visual": visual, "acoustic": acoustic}
    words = next((part for part in (first, *others) if _is_words(part)), None)
    if words is not None:
        row["raw_text"] = [words] if isinstance(words, (str, bytes)) else words
    features = next((part for part in (first, *others) if _is_steps(part)), None)
    return row if features is None else {"text": features, **row}


def _is_words(part: Any) -> bool:
    if isinstance(part, np.ndarray):
        return part.dtype.kind in "US" or (part.dtype == object and _is_words(part.tolist()))
    return isinstance(part, (str, bytes)) or (
        isinstance(part, (list, tuple)) and bool(part) and isinstance(part[0], (str, bytes))
    )


def _is_steps(part: Any) -> bool:
    """Whether this is features: numbers of words are integers [L]."""
    return isinstance(part, np.ndarray) and (part.ndim == 2 or (part.ndim == 1 and part.dtype.kind == "f"))


def _segment(value: Any) -> Any:
    """The id of a segment: ``v[3]`` of the CMU SDK is clip 3 of the video v."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value.endswith("]"):
        video, _, clip = value[:-1].rpartition("[")
        return f"{video}$_${int(clip)}" if video and clip.isdecimal() and len(clip) < _LONGEST_NUMBER else value
    return value


# --- MulT, and one clip ----------------------------------------------------------------------------------------------


def _of_mult(content: Columns, where: str) -> Any:
    """MulT's splits, and MMSA's without a change."""
    changed = dict(content)
    for name, columns in content.items():
        if isinstance(columns, Mapping) and _has_features(columns):
            if _is_nested(columns):
                changed |= _by_split({name: columns}, where)
            else:
                changed[name] = _columns(columns, name)
        elif name == "config":  # MMSA-FET notes there how it extracted the features
            del changed[name]
    ids = {
        name: columns["id"]
        for name, columns in changed.items()
        if isinstance(columns, Mapping)
        and "id" in columns
        and "labels" in columns
        and "regression_labels" not in columns
    }
    for name, numbered in _numbered(ids).items():
        if numbered is not ids[name]:
            changed[name] = {**changed[name], "id": numbered}
    same = changed.keys() == content.keys() and all(changed[name] is content[name] for name in changed)
    return content if same else changed


def _columns(columns: Columns, split: str) -> Columns:
    """A split with ids, one-hot labels as numbers, and transcripts under their own name; itself if nothing changes."""
    found = dict(columns)
    if "labels" in found:
        found["labels"] = _from_one_hot(found["labels"])
    if _is_list(found.get("text")) and len(found["text"]) and isinstance(found["text"][0], (str, bytes)):
        found.setdefault("raw_text", found.pop("text"))
    if "id" not in found and is_column(found.get("labels")) and "regression_labels" not in found:
        found["id"] = [f"{split}{i}" for i in range(len(found["labels"]))]
    same = found.keys() == columns.keys() and all(found[key] is columns[key] for key in found)
    return columns if same else found


def _flat(content: Columns, where: str) -> Any:
    """A file without splits: one clip, one split, or MMSA's flat dict, which is returned as it is."""
    features = {key: value for key, value in content.items() if _is_features(key, value)}
    identity = content.get("id")
    flat = all(_axes(value) == 2 for value in features.values())
    if isinstance(identity, (list, tuple, np.ndarray)) and _axes(identity) == 1 and len(identity) == 1:
        identity = identity[0]
    if isinstance(identity, (str, bytes)) and flat and not _is_batch(content, features.values()):
        pass
    elif identity is not None:
        return content
    else:
        identity = PurePath(where).stem or "clip"
        if all(_axes(value) == 3 and len(value) == 1 for value in features.values()):  # [1, L, D]
            content = {k: v[0] if k in features else v for k, v in content.items()}
        elif not flat or _is_batch(content, features.values()):
            return {UNSPLIT: _columns({k: v for k, v in content.items() if k != "config"}, UNSPLIT)}
    return {UNSPLIT: {"id": [identity], **{k: [v] for k, v in content.items() if k not in ("id", "config")}}}


def _is_batch(content: Columns, features: Iterable[Any]) -> bool:
    """Whether features [N, D] are of N utterances: they have N labels."""
    counts = {len(value) for value in features}
    labels: Any = next((content[key] for key in ("regression_labels", "labels", "label") if key in content), None)
    return len(counts) == 1 and is_column(labels) and len(labels) in counts - {1}


def _from_one_hot(labels: Any) -> Any:
    """Labels [N, K, 2] that say of each of K emotions whether it is there, as in MulT's IEMOCAP, as 0 or 1 [N, K]."""
    if (
        not isinstance(labels, np.ndarray)
        or labels.ndim != 3
        or labels.shape[2] != 2
        or labels.dtype.kind not in "biuf"
    ):
        return labels
    return labels.argmax(2) if labels.size and (labels.sum(2) == 1).all() else labels


def _numbered(ids: Mapping[str, Any]) -> dict[str, Any]:
    """Ids ``[video, start, end]`` of all splits as ``video$_$k`` in order of time; others as they are."""
    times = {name: [_interval(value) for value in column] if is_column(column) else [] for name, column in ids.items()}
    found = [interval for column in times.values() for interval in column]
    if not found or None in found:
        return dict(ids)
    rank: dict[str, int] = {}
    clip: dict[tuple[str, int], str] = {}
    places = [(one, name, row) for name, column in times.items() for row, one in enumerate(column) if one is not None]
    for (video, _, _), name, row in sorted(places, key=lambda place: place[0]):
        rank[video] = rank.get(video, -1) + 1
        clip[name, row] = f"{video}$_${rank[video]}"
    return {name: [clip[name, row] for row in range(len(column))] for name, column in times.items()}


def _interval(value: Any) -> tuple[str, float, float] | None:
    """Video, start and end, if an id has these three parts."""
    parts = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if not isinstance(parts, (list, tuple)) or len(parts) != 3:
        return None
    video, *times = (part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in parts)
    try:
        start, end = map(float, times)
    except (ValueError, TypeError, OverflowError):
        return None
    return (str(video), start, end) if math.isfinite(start) and math.isfinite(end) else None


# --- utterances by id, modalities by id ------------------------------------------------------------------------------


def _by_split(groups: Columns, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, entries in groups.items():
        place = where if name == UNSPLIT else f"{where}: split {shown(name)}"
        if not isinstance(entries, Mapping) or not _is_nested(entries):
            found[name] = entries
            continue
        if not _holds_utterances(entries):  # modalities by id
            ids = dict.fromkeys(i for column in entries.values() if isinstance(column, Mapping) for i in column)
            turned = {i: {k: c[i] for k, c in entries.items() if isinstance(c, Mapping) and i in c} for i in ids}
            entries = turned
        columns = _of_entries(list(entries.values()), list(entries), place)
        found |= _grouped(columns, place) if name == UNSPLIT else {name: columns}
    return found


def _of_entries(entries: Sequence[Any], ids: list[Any] | None, where: str) -> dict[str, Any]:
    """The columns of utterances that are a dict each."""
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
            name = f"entry {number}" if ids is None else f"entry {shown(ids[number - 1])}"
            raise DataError(
                f"{where}: {name} is {_kind(entry)}; expected a dict such as {{'text': [L, D], 'label': 0}}"
            )
    keys = _keys_of(entries, where)
    columns: dict[str, Any] = {}
    for key in keys:
        values = [entry.get(key) for entry in entries]
        text = key in _TEXTS or (key == "text" and any(isinstance(value, (str, bytes)) for value in values[:_FEW]))
        columns[key] = ["" if value is None else value for value in values] if text else values
    if ids is not None:
        columns["id"] = [i if isinstance(i, (str, bytes, list, tuple)) else str(i) for i in ids]
    elif "id" not in columns:
        columns["id"] = [f"{UNSPLIT}{i}" for i in range(len(entries))]
    return dict(_columns(columns, UNSPLIT))


def _keys_of(rows: Iterable[Mapping[str, Any]], where: str) -> dict[str, None]:
    """The keys of rows, each of which becomes a column of all rows, in the order in which they come."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row))
        if len(found) > _MOST_KEYS:
            raise DataError(
                f"{where}: its utterances have over {_MOST_KEYS:,} different keys; give all of them the same"
            )
    return found


def _grouped(columns: dict[str, Any], where: str) -> dict[str, Any]:
    """Columns by their split, if they tell it."""
    key = next((key for key in SPLIT_KEYS if key in columns), None)
    if key is None:
        return {UNSPLIT: columns}
    names = columns.pop(key)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name:
            given = shown(name) if isinstance(name, str) else _kind(name)
            raise DataError(
                f"{where}: '{key}' of row {row + 1} is {given}; expected the name of a split, such as train"
            )
        rows.setdefault(name, []).append(row)
    return {name: {k: _chosen(column, chosen) for k, column in columns.items()} for name, chosen in rows.items()}


def _chosen(column: Any, rows: list[int]) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def _holds_utterances(entries: Columns) -> bool:
    """Whether the values of a dict are single utterances: dicts of features [L, D] or [D], with at most one label."""
    few = list(islice(entries.values(), _FEW))
    mappings = bool(few) and all(isinstance(entry, Mapping) for entry in few)
    return mappings and any(map(_is_utterance, few)) and not _holds_modalities(entries)


def _is_utterance(entry: Columns) -> bool:
    features = [value for key, value in entry.items() if _is_features(key, value)]
    if not features or any(_axes(value) > 2 for value in features) or _is_batch(entry, features):
        return False
    return not is_column(entry.get("id")) or len(entry["id"]) < 2


def _holds_modalities(entries: Columns) -> bool:
    """Whether the values of a dict are columns by id, some under a usual name: ``{"text": {id: [L, D]}, ...}``."""
    columns = {key: value for key, value in entries.items() if isinstance(value, Mapping) and "id" not in value}
    usual = [key for key in islice(columns, _FEW) if isinstance(key, str) and (key in _USUAL or _is_reserved(key))]
    return bool(usual) and any(
        _is_features("", value) and _axes(value) < 3
        for column in columns.values()
        for value in islice(column.values(), 1)
    )


def _is_nested(value: Any) -> bool:
    """Whether this is a split of utterances by id, or of modalities by id."""
    return isinstance(value, Mapping) and "id" not in value and (_holds_utterances(value) or _holds_modalities(value))


def _unknown(content: Columns, groups: Columns, where: str) -> Any:
    """Refuses entries that are neither splits nor utterances, if they are many; the reader refuses others by name."""
    if len(groups) <= _FEW or not _SPLITS.isdisjoint(groups):
        return content
    entry = next(iter(groups.values()))
    few = ", ".join(shown(key) for key in islice(groups, 2))
    raise DataError(
        f"{where}: holds {len(groups):,} entries ({few}, ...) without features (keys of the first: {listed(entry)}); "
        "expected {'train': {'id': ..., 'text': ...}, ...} or {id: {'text': [L, D], 'label': ...}}"
    )


def _has_features(columns: Any) -> bool:
    if not isinstance(columns, Mapping):
        return False
    return any(_is_features(key, value) for key, value in columns.items()) or _is_nested(columns)


def _holds_texts(columns: Columns) -> bool:
    """Whether a split has a column of transcripts."""
    found = (columns.get(key) for key in ("raw_text", "text"))
    return any(_is_words(column) and not isinstance(column, (str, bytes)) for column in found)


def _is_reserved(key: str) -> bool:
    """Whether a key is the usual one of something else than features."""
    return (
        key in _RESERVED
        or key.startswith(("label", "regression_label", "classification_label"))
        or key.endswith("_lengths")
    )


def _is_features(key: Any, value: Any) -> bool:
    """Whether an entry of a dict looks like features: numbers with at least one axis, under no reserved name."""
    if not isinstance(key, str) or _is_reserved(key):
        return False
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return value.ndim >= 1 and len(value) > 0 and _is_features(key, value[0])
        return value.ndim >= 1 and value.dtype.kind in "biuf"
    return isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], (list, tuple, np.ndarray))


def _axes(value: Any) -> int:
    """Number of axes, of lists by their first entries."""
    axes = 0
    while isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object and value.ndim):
        axes, value = axes + 1, value[0] if len(value) else None
    return axes + (value.ndim if isinstance(value, np.ndarray) else 0)


def _kind(value: Any) -> str:
    if is_column(value):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
