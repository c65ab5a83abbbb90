"""Features of single modalities from files of their own, as MMSA's options ``-Ft``, ``-Fa`` and ``-Fv`` take them."""

# N utterances, L steps, D features
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config.presets import ALIASES, TEXT
from gmsa.data.importers.arrays import read_members
from gmsa.data.importers.kinds import kind_of, refuse_foreign
from gmsa.data.labels import is_column
from gmsa.data.mmsa.keys import Columns
from gmsa.data.mmsa.layouts import as_mmsa
from gmsa.data.notes import note
from gmsa.data.splits import UNSPLIT
from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError, listed, short, shown
from gmsa.system.reading import expanded


def with_features(content: Any, files: Mapping[str, str | Path], where: str) -> Any:
    """Returns the content of a pickle in which the features of some modalities are those of other files.

    A file is a pickle in any layout that gmsa reads, a pickle ``{id: [L, D]}``, or an ``.npz`` whose members are named
    by the ids. Utterances are matched by their ids across all splits, not by their order as in MMSA, which reads other
    files by position alone; that holds here too where a file names no ids, if its splits have as many rows. An
    utterance that the file lacks is without the modality, which is noted. The modality's lengths, and with the text
    the word pieces of ``text_bert``, come from the file or are left out: those of the replaced features do not fit.

    Args:
        content: the unpickled file, in any layout that gmsa reads.
        files: path of the file of each modality to replace or to add.
        where: name of the content's file, for errors.

    Raises:
        DataError: a file cannot be read, or holds features of none of the utterances.
    """
    content = as_mmsa(content, where)
    if not isinstance(content, Mapping):
        return content  # the reader says what it is
    splits = content if any(isinstance(columns, Mapping) for columns in content.values()) else {UNSPLIT: content}
    changed = {name: dict(columns) if isinstance(columns, Mapping) else columns for name, columns in splits.items()}
    for modality, path in files.items():
        _replace(changed, modality, expanded(path, DataError), where)
    return changed


def _replace(splits: dict[str, Any], modality: str, path: Path, where: str) -> None:
    found = {
        name: columns for name, columns in splits.items() if isinstance(columns, dict) and is_column(columns.get("id"))
    }
    other = _read(path, modality)
    left_out = {f"{modality}_lengths", *(key for key, name in ALIASES.items() if name == modality)}
    left_out |= {"text_bert", "text_lengths"} if modality == TEXT else set()
    total = absent = 0
    for name, columns in found.items():
        ids = [_key(value) for value in columns["id"]]
        rows = other.rows(name, ids, where)
        total, absent = total + len(ids), absent + rows.count(None)
        for key in left_out:
            columns.pop(key, None)
        columns |= other.columns(rows)
    if total and absent == total:
        raise DataError(
            f"{short(path)}: holds '{modality}' of none of the {total:,} utterances of '{where}' (its ids: "
            f"{listed(other.examples)}; there: {listed(_few(found))}); the ids must be the same"
        )
    if absent:
        note(
            f"{short(path)}: has no '{modality}' of {absent:,} of {total:,} utterances of {where}; it is missing there"
        )


def _few(splits: Mapping[str, Columns]) -> list[str]:
    return [_key(value) for columns in splits.values() for value in columns["id"][:2]][:2]


class _Features:
    """The features of a modality in a file, with what belongs to them, and the place of each utterance."""

    def __init__(self, splits: Mapping[str, Columns], modality: str, path: Path) -> None:
        self.path, self.modality = path, modality
        found = {
            name: self._of_split(columns, f"{short(path)}: split {shown(name)}") for name, columns in splits.items()
        }
        self.splits = {name: columns for name, columns in found.items() if columns}
        if not self.splits:
            raise DataError(
                f"{short(path)}: holds no '{modality}' (its keys: {listed(next(iter(splits.values()), ()))}); name the "
                "file that does, or its modality as it is called there"
            )
        self.places = {
            _key(value): (name, row)
            for name, columns in self.splits.items()
            for row, value in enumerate(columns.get("id", ()))
        }

    def _of_split(self, columns: Columns, where: str) -> dict[str, Any]:
        """The features, their lengths, word pieces and ids, under gmsa's names; empty if there are no features."""
        key = _key_of(columns, self.modality)
        if key is None:
            return {}
        names = {key: self.modality, f"{key}_lengths": f"{self.modality}_lengths", "id": "id"}
        names |= {"text_bert": "text_bert"} if self.modality == TEXT else {}
        found = {ours: columns[name] for name, ours in names.items() if name in columns}
        for name, column in found.items():
            if not is_column(column) or len(column) != len(found[self.modality]):
                raise DataError(
                    f"{where}: '{name}' has not one entry for each of '{self.modality}'; save them together"
                )
        return found

    @property
    def examples(self) -> list[str]:
        """The first ids."""
        return list(self.places)[:2]

    def rows(self, split: str, ids: Sequence[str], where: str) -> list[tuple[str, int] | None]:
        """The place of each utterance, by its id, or by its row where the file has no ids."""
        if self.places:
            return [self.places.get(identity) for identity in ids]
        name = split if split in self.splits else UNSPLIT
        if name not in self.splits:
            return [None] * len(ids)
        count = len(self.splits[name][self.modality])
        if count != len(ids):
            raise DataError(
                f"{short(self.path)}: has no ids, and {count:,} rows of '{self.modality}' in split {shown(split)} but "
                f"{where} has {len(ids):,}; save it with ids"
            )
        return [(name, row) for row in range(count)]

    def columns(self, rows: Sequence[tuple[str, int] | None]) -> dict[str, list[Any]]:
        """The columns for these rows: the features, and with all of them their lengths and word pieces."""
        kept = {key for columns in self.splits.values() for key in columns} - {"id"}
        if None in rows:
            kept = {self.modality}
        kept = {key for key in kept if all(key in columns for columns in self.splits.values())}
        return {key: [None if row is None else self.splits[row[0]][key][row[1]] for row in rows] for key in kept}


def _read(path: Path, modality: str) -> _Features:
    kind = kind_of(path)
    if kind is not None and kind.name == "npz":
        members = read_members(path)
        return _Features({UNSPLIT: {"id": list(members), modality: list(members.values())}}, modality, path)
    refuse_foreign(path, short(path))
    content = load_pickle(path)
    if _is_by_id(content):
        content = {UNSPLIT: {"id": list(content), modality: list(content.values())}}
    content = as_mmsa(content, short(path))
    if isinstance(content, Mapping) and not any(isinstance(value, Mapping) for value in content.values()):
        content = {UNSPLIT: content}
    if not isinstance(content, Mapping):
        raise DataError(
            f"{short(path)}: holds a {type(content).__name__}; expected a pickle with splits, or {{id: [L, D]}}"
        )
    return _Features({n: c for n, c in content.items() if isinstance(c, Mapping)}, modality, path)


def _is_by_id(content: Any) -> bool:
    """Whether this is ``{id: [L, D]}``, not a clip ``{"text": [L, D]}``."""
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, (str, bytes)) for key in content):
        return False
    names = {*ALIASES, *ALIASES.values(), TEXT, "id"}
    arrays = all(isinstance(value, np.ndarray) and value.ndim in (1, 2) for value in content.values())
    return arrays and names.isdisjoint(content)


def _key_of(columns: Columns, modality: str) -> str | None:
    """The key of the features: the modality, another name of it, or ``features``."""
    if modality in columns:
        return modality
    other = next((key for key in columns if ALIASES.get(key) == modality), None)
    if other is not None:
        return other
    return next((key for key in ("features", "feature") if key in columns), None)


def _key(value: Any) -> str:
    """An id as the reader writes it."""
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        return "$_$".join(map(_key, value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
