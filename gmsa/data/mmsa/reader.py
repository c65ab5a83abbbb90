"""Reads MMSA's format: a dict of splits, each a dict of columns with one entry per utterance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gmsa.config import MODALITIES
from gmsa.data.mmsa.sequences import Sequences, as_array, check_lengths, cut_sequences, read_sequences
from gmsa.data.targets import Target
from gmsa.data.texts import check_count, check_id, check_split, check_text, hint
from gmsa.data.unpickling import load_pickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed, short, shown

UNREADABLE = "\ufffd"
"""What stands in a transcript for bytes that are not UTF-8."""
SPLITS = ("train", "valid", "test")
UNSPLIT = "all"
"""Name of the only split of a file without splits."""
_EXPECTED = "expected {'train': {'id': ..., 'text': ..., ...}, 'valid': ..., 'test': ...}"


def read_mmsa(
    path: str | Path,
    modalities: Sequence[str] = MODALITIES,
    target: Target | None = None,
    splits: Sequence[str] | None = SPLITS,
    require_labels: bool = True,
) -> dict[str, list[Utterance]]:
    """Reads a pickle in MMSA's format.

    Args:
        path: the pickle; it is read without executing code.
        modalities: modalities to read (default: all three).
        target: what the labels are (default: intensities in [-3, 3]).
        splits: splits to read (default: ``train``, ``valid``, ``test``); None reads all.
        require_labels: whether to read labels and to fail without (default: True).

    Returns:
        The utterances of each split; see :func:`from_mmsa`.

    Raises:
        DataError: the file is missing, unsafe, or invalid for the format.
    """
    return from_mmsa(load_pickle(path), short(path), modalities, target, splits, require_labels)


def from_mmsa(
    content: Any,
    where: str,
    modalities: Sequence[str] = MODALITIES,
    target: Target | None = None,
    splits: Sequence[str] | None = SPLITS,
    require_labels: bool = True,
) -> dict[str, list[Utterance]]:
    """Converts ``{split: {"id": ..., "text": ..., "regression_labels": ..., ...}}`` to utterances.

    Features are arrays [N, L, D] or [N, D] (sequences of length one), or lists of [L_i, D], of any numeric type.
    Every utterance gets each of ``modalities`` that any split has, as float32 without padding. Its true length is

    - ``<modality>_lengths`` if the file has it. If that would cut features and the first row is zero, the padding is
      in front (as in MulT's files, from which MMSA counted), and zero rows at both ends are cut instead;
    - else, in aligned files (all modalities have the same L), the steps in ``text_bert``'s attention mask, extended to
      the first and the last nonzero step of any modality. All modalities keep the same steps, so that equal
      indices still mean the same word;
    - else ``text_bert``'s attention mask for text; for other modalities, zero rows at both ends are cut. Sequences of
      unequal length have no padding, and nothing is cut.

    A modality is missing (length 0) if its length is 0 or all of its features are zero: MMSA writes a missing modality
    as one zero row. Infinite audio features become 0, as in MMSA.

    Args:
        content: the unpickled file.
        where: name of the file, for errors.
        modalities: modalities to read (default: all three).
        target: what the labels are (default: intensities in [-3, 3]).
        splits: splits to read (default: ``train``, ``valid``, ``test``); None reads all, and a flat dict as ``"all"``.
        require_labels: whether to read labels and to fail without (default: True); if False, labels are ignored.

    Raises:
        DataError: a split, column, count, length, dimension, id, label or feature is invalid.
    """
    target = Target() if target is None else target
    chosen = _choose_splits(content, where, modalities, splits)
    if not any(modality in columns for columns in chosen.values() for modality in modalities):
        keys = listed(next(iter(chosen.values())))
        raise DataError(
            f"{where}: has none of the modalities {', '.join(modalities)} (its keys: {keys}); check data.modalities"
        )
    readers = {name: Split(columns, f"{where}: split {shown(name)}") for name, columns in chosen.items()}
    _check_ids(readers, where)
    dims = _common_dims(readers, where, modalities)

    found = {}
    for name, reader in readers.items():
        unlabeled = [None] * len(reader.ids)
        given: Sequence[float | None] = reader.labels(target) if require_labels else unlabeled
        unimodal = reader.unimodal(dims, target) if require_labels else [{} for _ in unlabeled]
        texts, features = reader.texts(), reader.features(dims)
        if not any(len(sequence) for one in features for sequence in one.values()):
            raise DataError(
                f"{reader.where}: no utterance has {', '.join(dims) or 'any modality'}; choose other data.modalities"
            )
        found[name] = [
            Utterance(*columns) for columns in zip(reader.ids, features, given, unimodal, texts, strict=True)
        ]
    return found


def feature_dims(splits: Mapping[str, list[Utterance]]) -> dict[str, int]:
    """Returns the feature dimension D of each modality in the splits of one file."""
    first = next(utterance for utterances in splits.values() for utterance in utterances)
    return {modality: sequence.shape[1] for modality, sequence in first.features.items()}


def _choose_splits(
    content: Any, where: str, modalities: Sequence[str], splits: Sequence[str] | None
) -> dict[str, Mapping[str, Any]]:
    if splits is None:
        return split_columns(content, where, modalities)
    check_keys(content, where)
    for name in splits:
        if name not in content:
            near = hint(name, content)
            raise DataError(f"{where}: has no split {shown(name)}{near} (its keys: {listed(content)}); {_EXPECTED}")
        check_keys(content[name], where, name)
    return {name: content[name] for name in splits}


def split_columns(content: Any, where: str, modalities: Sequence[str] = MODALITIES) -> dict[str, Mapping[str, Any]]:
    """Returns the columns of each split of a file in MMSA's format; the one split of a flat file is called ``all``.

    Raises:
        DataError: the content is not a dict of splits, or has keys that are not text.
    """
    check_keys(content, where)
    if any(key in content for key in ("id", *modalities)):
        return {UNSPLIT: content}
    found = {name: columns for name, columns in content.items() if isinstance(columns, Mapping)}
    if not found:
        raise DataError(f"{where}: has neither splits nor 'id' (its keys: {listed(content)}); {_EXPECTED}")
    check_count(found, where)
    for name, columns in found.items():
        check_split(name, where)
        check_keys(columns, where, name)
    return found


def check_keys(content: Any, where: str, split: str | None = None) -> None:
    """Checks that a file, or one of its splits, is a dict whose keys are text.

    Raises:
        DataError: it is not.
    """
    place = where if split is None else f"{where}: split {shown(split)}"
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        what = f": holds a {kind}, not a dict of splits" if split is None else f" is a {kind}, not a dict"
        raise DataError(f"{place}{what}; {_EXPECTED}")
    for key in content:
        if not isinstance(key, str):
            raise DataError(f"{place}: has the key {shown(key)}, which is no text; save it with keys that are text")


def _check_ids(readers: Mapping[str, Split], where: str) -> None:
    seen: dict[str, str] = {}
    for name, reader in readers.items():
        for identity in reader.ids:
            if seen.get(identity) == name:
                raise DataError(f"{reader.where}: duplicate id {shown(identity)}; ids must be unique")
            if identity in seen:
                both = f"splits {shown(seen[identity])} and {shown(name)}"
                raise DataError(f"{where}: duplicate id {shown(identity)} in {both}; splits must not overlap")
            seen[identity] = name


def _common_dims(readers: Mapping[str, Split], where: str, modalities: Sequence[str]) -> dict[str, int]:
    dims: dict[str, int] = {}
    source: dict[str, str] = {}
    for name, reader in readers.items():
        for modality in modalities:
            dim = reader.sequences(modality).dim
            if dim and dims.setdefault(modality, dim) != dim:
                raise DataError(
                    f"{where}: '{modality}' has {dims[modality]} features per step in split {shown(source[modality])} "
                    f"but {dim} in split {shown(name)}; extract all splits alike"
                )
            if dim:
                source.setdefault(modality, name)
    return {modality: dims[modality] for modality in modalities if modality in dims}


class Split:
    """One split of a file.

    Args:
        columns: the columns by their keys.
        where: name of the file and the split, for errors.
    """

    def __init__(self, columns: Mapping[str, Any], where: str) -> None:
        self.columns, self.where = columns, where
        self._sequences: dict[str, Sequences] = {}
        if "id" not in columns:
            raise DataError(f"{where}: has no key 'id'{hint('id', columns)}; every utterance needs an id")
        self.ids = [_identity(value, f"{where}: row {i}") for i, value in enumerate(self._list("id", None), 1)]
        if not self.ids:
            raise DataError(f"{where}: is empty; every split needs utterances")

    def _list(self, key: str, count: int | None) -> Any:
        column = self.columns[key]
        if not isinstance(column, (list, tuple, np.ndarray)) or (isinstance(column, np.ndarray) and not column.ndim):
            raise DataError(f"{self.where}: '{key}' is a {type(column).__name__}; expected an array or a list")
        if count is not None and len(column) != count:
            raise DataError(
                f"{self.where}: '{key}' has {len(column)} entries but 'id' has {count}; "
                "every key must hold one entry per utterance"
            )
        return column

    def _numbers(self, key: str) -> list[float]:
        column = self._list(key, len(self.ids))
        try:
            array = as_array(column)
            if array.dtype.kind not in "biufO" or any(isinstance(value, (str, bytes)) for value in _objects(array)):
                raise ValueError
            return array.astype(np.float64).reshape(len(self.ids)).tolist()
        except (ValueError, TypeError, OverflowError):
            message = f"{self.where}: '{key}' does not hold one number per utterance; check how it was saved"
            raise DataError(message) from None

    def labels(self, target: Target, key: str = "regression_labels") -> list[float]:
        """Reads and checks sentiment intensities [N]."""
        if key not in self.columns:
            near = hint(key, self.columns)
            raise DataError(f"{self.where}: has no key '{key}'{near}; training and scoring need labels")
        values = self._numbers(key)
        for identity, value in zip(self.ids, values, strict=True):
            if value != value:
                remedy = "remove the utterance, or move it to the file of data.pool"
                raise DataError(f"{self.where}: '{key}' of {shown(identity)} is NaN; {remedy}")
            if not target.holds(value):
                raise DataError(
                    f"{self.where}: '{key}' of {shown(identity)} is {value:g}, out of [{target.low:g}, "
                    f"{target.high:g}]; set target.range to the file's range"
                )
        return values

    def unimodal(self, modalities: Mapping[str, int], target: Target) -> list[dict[str, float]]:
        """Reads the labels of single modalities, if the file has them (CH-SIMS)."""
        columns = {
            modality: self.labels(target, key)
            for modality in modalities
            if (key := f"regression_labels_{modality[0].upper()}") in self.columns
        }
        return [{modality: values[i] for modality, values in columns.items()} for i in range(len(self.ids))]

    def texts(self) -> list[str]:
        """Reads the transcripts; empty if the file has none."""
        if "raw_text" not in self.columns:
            return [""] * len(self.ids)
        column = self._list("raw_text", len(self.ids))
        return [_transcript(text, f"{self.where}: {shown(i)}") for i, text in zip(self.ids, column, strict=True)]

    def sequences(self, modality: str) -> Sequences:
        """Reads a modality and checks its shapes and lengths."""
        if modality not in self._sequences:
            self._sequences[modality] = self._read_sequences(modality)
        return self._sequences[modality]

    def _read_sequences(self, modality: str) -> Sequences:
        if modality not in self.columns:
            return Sequences([np.zeros((0, 0), np.float32)] * len(self.ids), dim=0, width=0)
        found = read_sequences(self._list(modality, len(self.ids)), self.ids, modality, self.where)
        if self.columns.get(key := f"{modality}_lengths") is None:
            return found
        return replace(found, lengths=check_lengths(self._numbers(key), found.items, self.ids, modality, self.where))

    def features(self, dims: Mapping[str, int]) -> list[dict[str, Tensor]]:
        """Returns, per utterance and modality, float32 [L_i, D] without padding; length 0 if missing."""
        present = {modality: self.sequences(modality) for modality in dims if self.sequences(modality).dim}
        return cut_sequences(present, dims, self.columns.get("text_bert"), self.ids, self.where)


def _objects(array: np.ndarray) -> Iterable[Any]:
    return array.flat if array.dtype == object else ()


def _transcript(value: Any, where: str) -> str:
    """Returns a transcript; words of a list are joined by spaces, and :data:`UNREADABLE` stands for other bytes.

    No training reads it, so it stops none; ``gmsa data check`` tells.
    """
    words = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    words = words if isinstance(words, (list, tuple)) else [words]
    if any(isinstance(word, (list, tuple, np.ndarray, Mapping)) for word in words):
        raise DataError(f"{where} has a {type(value).__name__} as transcript; save it as text")
    text = " ".join(w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in words)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    check_text(text, where)
    return text


def _identity(value: Any, where: str) -> str:
    """Returns ``video$_$clip`` for a string, bytes, or a sequence of the parts of an id."""
    identity = _joined(value, where)
    check_id(identity, where)
    return identity


def _joined(value: Any, where: str) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        return "$_$".join(_joined(part, where) for part in value)
    if isinstance(value, (str, bytes)) or (_is_number(value) and value == value):
        return _string(value, f"{where} has an id", "rename it")
    raise DataError(f"{where} has the id {shown(value)}; expected text, or a list of the parts of an id")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _string(value: Any, what: str, remedy: str) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{what} of bytes that are not UTF-8 ({shown(value)}); {remedy}") from None
