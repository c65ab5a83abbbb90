"""Reads MMSA's format: a dict of splits, each a dict of columns with one entry per utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gmsa.config import MODALITIES
from gmsa.data.mmsa.sequences import Sequences, check_lengths, cut_sequences, read_sequences
from gmsa.data.targets import limit
from gmsa.data.unpickling import load_pickle
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, nearest

SPLITS = ("train", "valid", "test")
UNSPLIT = "all"
"""Name of the only split of a file without splits."""


def read_mmsa(
    path: str | Path,
    modalities: Sequence[str] = MODALITIES,
    labels: str = "mosi",
    splits: Sequence[str] | None = SPLITS,
    require_labels: bool = True,
) -> dict[str, list[Utterance]]:
    """Reads a pickle in MMSA's format.

    Args:
        path: the pickle; it is read without executing code.
        modalities: modalities to read (default: all three).
        labels: label scale, ``mosi`` (default) or ``sims``.
        splits: splits to read (default: ``train``, ``valid``, ``test``); None reads all.
        require_labels: whether to read labels and to fail without (default: True).

    Returns:
        The utterances of each split; see :func:`from_mmsa`.

    Raises:
        DataError: the file is missing, unsafe, or invalid for the format.
    """
    return from_mmsa(load_pickle(path), str(path), modalities, labels, splits, require_labels)


def from_mmsa(
    content: Any,
    where: str,
    modalities: Sequence[str] = MODALITIES,
    labels: str = "mosi",
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
        labels: label scale, ``mosi`` (default) or ``sims``.
        splits: splits to read (default: ``train``, ``valid``, ``test``); None reads all, and a flat dict as ``"all"``.
        require_labels: whether to read labels and to fail without (default: True); if False, labels are ignored.

    Raises:
        DataError: a split, column, count, length, dimension, id, label or feature is invalid.
    """
    chosen = _choose_splits(content, where, modalities, splits)
    if not any(modality in columns for columns in chosen.values() for modality in modalities):
        keys = ", ".join(map(str, next(iter(chosen.values()))))
        raise DataError(
            f"{where}: has none of the modalities {', '.join(modalities)} (its keys: {keys}); check data.modalities"
        )
    readers = {name: Split(columns, f"{where}: split '{name}'") for name, columns in chosen.items()}
    _check_ids(readers, where)
    dims = _common_dims(readers, where, modalities)

    found = {}
    for name, reader in readers.items():
        unlabeled = [None] * len(reader.ids)
        targets: Sequence[float | None] = reader.labels(labels) if require_labels else unlabeled
        unimodal = reader.unimodal(dims, labels) if require_labels else [{} for _ in unlabeled]
        texts, features = reader.texts(), reader.features(dims)
        if not any(len(sequence) for one in features for sequence in one.values()):
            raise DataError(f"{reader.where}: no utterance has {', '.join(dims)}; choose other data.modalities")
        found[name] = [
            Utterance(*columns) for columns in zip(reader.ids, features, targets, unimodal, texts, strict=True)
        ]
    return found


def feature_dims(splits: Mapping[str, list[Utterance]]) -> dict[str, int]:
    """Returns the feature dimension D of each modality in the splits of one file."""
    first = next(utterance for utterances in splits.values() for utterance in utterances)
    return {modality: sequence.shape[1] for modality, sequence in first.features.items()}


def _choose_splits(
    content: Any, where: str, modalities: Sequence[str], splits: Sequence[str] | None
) -> dict[str, Mapping[str, Any]]:
    expected = "expected {'train': {'id': ..., 'text': ..., ...}, 'valid': ..., 'test': ...}"
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: holds a {type(content).__name__}, not a dict of splits; {expected}")
    flat = any(key in content for key in ("id", *modalities))
    if splits is None:
        if flat:
            return {UNSPLIT: content}
        splits = [name for name, columns in content.items() if isinstance(columns, Mapping)]
        if not splits:
            keys = ", ".join(map(str, content)) or "none"
            raise DataError(f"{where}: has neither splits nor 'id' (its keys: {keys}); {expected}")
    for name in splits:
        if name not in content:
            keys = ", ".join(map(str, content)) or "none"
            hint = nearest(name, map(str, content))
            raise DataError(f"{where}: has no split '{name}'{hint} (its keys: {keys}); {expected}")
        if not isinstance(content[name], Mapping):
            raise DataError(f"{where}: split '{name}' is a {type(content[name]).__name__}, not a dict; {expected}")
    return {name: content[name] for name in splits}


def _check_ids(readers: Mapping[str, Split], where: str) -> None:
    seen: dict[str, str] = {}
    for name, reader in readers.items():
        for identity in reader.ids:
            if seen.get(identity) == name:
                raise DataError(f"{reader.where}: duplicate id '{identity}'; ids must be unique")
            if identity in seen:
                both = f"splits '{seen[identity]}' and '{name}'"
                raise DataError(f"{where}: duplicate id '{identity}' in {both}; splits must not overlap")
            seen[identity] = name


def _common_dims(readers: Mapping[str, Split], where: str, modalities: Sequence[str]) -> dict[str, int]:
    dims: dict[str, int] = {}
    source: dict[str, str] = {}
    for name, reader in readers.items():
        for modality in modalities:
            dim = reader.sequences(modality).dim
            if dim and dims.setdefault(modality, dim) != dim:
                raise DataError(
                    f"{where}: '{modality}' has {dims[modality]} features per step in split '{source[modality]}' "
                    f"but {dim} in split '{name}'; extract all splits alike"
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
            raise DataError(f"{where}: has no key 'id'{nearest('id', map(str, columns))}; every utterance needs an id")
        self.ids = [_identity(value) for value in self._list("id", None)]
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
            array = np.asarray(column)
            if array.dtype.kind not in "biufO":
                raise ValueError
            return array.astype(np.float64).reshape(len(self.ids)).tolist()
        except (ValueError, TypeError):
            message = f"{self.where}: '{key}' does not hold one number per utterance; check how it was saved"
            raise DataError(message) from None

    def labels(self, label_scale: str, key: str = "regression_labels") -> list[float]:
        """Reads and checks sentiment intensities [N]."""
        if key not in self.columns:
            hint = nearest(key, map(str, self.columns))
            raise DataError(f"{self.where}: has no key '{key}'{hint}; training and scoring need labels")
        values, bound = self._numbers(key), limit(label_scale)
        for identity, value in zip(self.ids, values, strict=True):
            if value != value:
                remedy = "remove the utterance, or move it to the file of data.pool"
                raise DataError(f"{self.where}: '{key}' of '{identity}' is NaN; {remedy}")
            if abs(value) > bound + 1e-6:
                raise DataError(
                    f"{self.where}: '{key}' of '{identity}' is {value:g}, out of [-{bound:g}, {bound:g}]; "
                    f"set data.labels to the file's scale (now '{label_scale}')"
                )
        return values

    def unimodal(self, modalities: Mapping[str, int], label_scale: str) -> list[dict[str, float]]:
        """Reads the labels of single modalities, if the file has them (CH-SIMS)."""
        columns = {
            modality: self.labels(label_scale, key)
            for modality in modalities
            if (key := f"regression_labels_{modality[0].upper()}") in self.columns
        }
        return [{modality: values[i] for modality, values in columns.items()} for i in range(len(self.ids))]

    def texts(self) -> list[str]:
        """Reads the transcripts; empty if the file has none."""
        if "raw_text" not in self.columns:
            return [""] * len(self.ids)
        return [_string(text) for text in self._list("raw_text", len(self.ids))]

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


def _string(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _identity(value: Any) -> str:
    """Returns ``video$_$clip`` for a string, bytes, or a sequence of the parts of an id."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return "$_$".join(_string(part) for part in np.asarray(value, dtype=object).reshape(-1))
    return _string(value)
