"""The rows that importers make, and what is checked of each, wherever it goes: into a store, or into memory."""

# N utterances, K classes
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from gmsa.config import TargetConfig
from gmsa.config.groups.target import MOST_CLASSES
from gmsa.data.labels import place_note, values_of
from gmsa.data.notes import note
from gmsa.data.store.files import LARGEST, MOST_FEATURES, NOT_ANNOTATED, check_classes, check_modalities
from gmsa.data.targets import Target
from gmsa.data.texts import check_count, check_id, check_split, check_text
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, cut, listed, nearest, shown


class Row(NamedTuple):
    """One row to write: an utterance, its split, and optionally its annotation and its class in words."""

    split: str
    """Name of the split; ``train``, ``valid`` and ``test`` are those that training uses."""
    utterance: Utterance
    """The utterance, with its label if it has one."""
    annotation: int = NOT_ANNOTATED
    """-1 negative, 0 neutral, 1 positive, -128 none (default)."""
    named: str = ""
    """Name of its class, where the source has words for labels; classes are numbered when all names are known."""


class RowChecker:
    """Checks rows one after another, and numbers the names of their classes.

    Args:
        dtypes: modalities to keep, each with the type of its features.
        target: what the labels are. Where it leaves the classes to the file, the names of the rows, or their numbers,
            are the classes.
        where: the source, for errors.
        scale: how to choose another scale, for errors.
    """

    def __init__(self, dtypes: Mapping[str, str], target: TargetConfig, where: str, scale: str) -> None:
        try:
            check_modalities(dtypes)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        self.dtypes, self.where, self.scale = dict(dtypes), where, scale
        self.target = Target.of(target)
        self.open_classes = self.target.is_classes and not self.target.classes
        self.numbers = {name: number for number, name in enumerate(self.target.classes)}
        """Numbers of the names of classes; if the file says the classes, in the order of their first appearance."""
        self.counts: list[int] = []
        """How often each name of :attr:`numbers` was there, if the file says the classes."""
        self.any_case = {name.lower(): number for name, number in reversed(self.numbers.items())}
        self.by_value = values_of(self.target.classes)
        """Numbers of classes that are called by numbers; if none is, a label that is a number is a place."""
        self.by_place = False
        """Whether a label was the place of its class."""
        self.dims: dict[str, int] = {}
        self.splits: list[str] = []
        self.count = 0

    def begin(self, row: Row) -> bool:
        """Checks the split of the next row; returns whether it is a new one."""
        self.count += 1
        if self.splits and row.split == self.splits[-1]:
            return False
        check_split(row.split, f"{self.where}: row {self.count}")
        check_count([*self.splits, row.split], self.where)
        if row.split in self.splits:
            raise ValueError(f"{self.where}: rows must come split by split (got {shown(row.split)} again)")
        self.splits.append(row.split)
        return True

    def id_of(self, row: Row) -> bytes:
        """The id as UTF-8."""
        return check_id(row.utterance.id, self.place(f"row {self.count}"))

    def text_of(self, row: Row) -> bytes:
        """The transcript as UTF-8."""
        return check_text(row.utterance.text, self.place(f"row {self.count}"))

    def sequence_of(self, row: Row, modality: str) -> np.ndarray | None:
        """The features of a modality in the type that is kept; None if it is missing."""
        features = row.utterance.features.get(modality)
        if features is None:
            return None
        values, identity = features.numpy(), row.utterance.id
        if values.ndim != 2:
            shape = cut(list(values.shape))
            raise self.error(f"'{modality}' of {shown(identity)} has shape {shape}; expected [steps, features]")
        length, dim = values.shape
        if dim > MOST_FEATURES or length * dim * 4 > LARGEST:
            what = f"{length} steps of {dim} features, beyond {MOST_FEATURES:,} features or {LARGEST:,} bytes"
            raise self.error(f"'{modality}' of {shown(identity)} has {what}; cut it")
        if dim and self.dims.setdefault(modality, dim) != dim:
            known = self.dims[modality]
            raise self.error(
                f"'{modality}' of {shown(identity)} has {dim} features per step, "
                f"but earlier ones have {known}; extract all of them alike"
            )
        if not length:
            return None
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(values, self.dtypes[modality])
        if not np.isfinite(kept).all():
            if np.isfinite(values).all():
                most = float(np.abs(values).max())
                remedy = "which float16 cannot hold; use --dtype float32"
                raise self.error(f"'{modality}' of {shown(identity)} reaches {most:g}, {remedy}")
            kind = "NaN" if np.isnan(values).any() else "infinity"
            raise self.error(f"'{modality}' of {shown(identity)} holds {kind}; repair or remove the utterance")
        return kept

    def times_of(self, row: Row, modality: str) -> np.ndarray | None:
        """The times of a modality's steps; None where they are not known."""
        times, identity = row.utterance.times.get(modality), shown(row.utterance.id)
        if times is None:
            return None
        length = row.utterance.lengths.get(modality, 0)
        kept = np.ascontiguousarray(times.numpy(), "<f4")
        if kept.shape != (length, 2):
            raise self.error(
                f"the times of '{modality}' of {identity} are {cut(list(kept.shape))}; expected [{length}, 2]"
            )
        if not np.isfinite(kept).all() or (kept[:, 1] < kept[:, 0]).any():
            raise self.error(f"a step of '{modality}' of {identity} ends before it starts, or never; repair its times")
        return kept

    def label_of(self, row: Row, modality: str | None = None) -> float:
        """The label, or that of a modality: the intensity, or the number of the class so far; NaN if there is none."""
        utterance = row.utterance
        label = utterance.label if modality is None else utterance.unimodal.get(modality)
        name = row.named if modality is None else ""
        if label is None and not name:
            return math.nan
        what = "the label" if modality is None else f"the label of {modality}"
        if not self.target.is_classes:
            if name:
                said = f"{what} of {shown(utterance.id)} is {shown(name)}, not a number"
                raise self.error(f"{said}; for classes set target.kind=classes")
            if label is None or not self.target.holds(label):
                bound = f"[{self.target.low:g}, {self.target.high:g}]"
                raise self.error(f"{what} of {shown(utterance.id)} is {label:g}, out of {bound}; {self.scale}")
            return label
        if not name and (label is None or not float(label).is_integer()):
            raise self.error(f"{what} of {shown(utterance.id)} is {label:g}, which is no class; name classes by words")
        if self.open_classes:
            return self._counted(name or str(int(label or 0)))
        if name:
            number = self.numbers.get(name, self.any_case.get(name.lower()))
        else:
            number = self.by_value.get(label or 0.0) if self.by_value else int(label or 0)
            self.by_place |= not self.by_value
        if number is None or not 0 <= number < len(self.numbers):
            said = shown(name) if name else f"{label:g}"
            raise self.error(
                f"{what} of {shown(utterance.id)} is {said}, none of the {len(self.numbers)} classes "
                f"({listed(self.numbers)}){nearest(name, self.numbers)}; add it to target.classes"
            )
        return float(number)

    def _counted(self, name: str) -> float:
        """The number so far of a class that the file names."""
        number = self.numbers.setdefault(name, len(self.numbers))
        if number >= 2 * MOST_CLASSES:  # twice as many: names that differ in case only are one class
            raise self.error(
                f"the labels are of over {MOST_CLASSES:,} classes; for an intensity set target.kind=intensity"
            )
        if number == len(self.counts):
            self.counts.append(0)
        self.counts[number] += 1
        return float(number)

    def finish(self) -> tuple[Target, np.ndarray | None]:
        """The target, and per number of a class so far its final one, where they differ.

        Raises:
            DataError: there are no rows, or one class alone.
        """
        if not self.count:
            raise DataError(f"{self.where}: holds no utterances; nothing is written")
        if self.by_place:
            note(place_note(f"{self.where}: the labels", self.target.classes))
        if not self.open_classes:
            return self.target, None
        often: dict[str, str] = {}  # of names that differ in case only, the most frequent
        for name in sorted(self.numbers, key=lambda name: (-self.counts[self.numbers[name]], name)):
            often.setdefault(name.lower(), name)
        names = in_order(often.values())
        try:
            if not names:
                raise ValueError("no utterance has a label, so that there are no classes")
            check_classes(names)
        except ValueError as error:
            raise DataError(f"{self.where}: {error}; check target.field, or set target.classes") from None
        order = np.array([names.index(often[name.lower()]) for name in self.numbers], np.float64)
        return replace(self.target, classes=tuple(names)), order

    def place(self, message: str) -> str:
        """A message with the source and the split."""
        return f"{self.where}: split {shown(self.splits[-1] if self.splits else '')}: {message}"

    def error(self, message: str) -> DataError:
        """An error that names the source and the split."""
        return DataError(self.place(message))


def in_order(names: Iterable[str]) -> list[str]:
    """Names of classes in the order of their numbers: numbers by size, else words by alphabet.

    >>> in_order(["joy", "anger"]), in_order(["10", "9", "-1"])
    (['anger', 'joy'], ['-1', '9', '10'])
    """
    found = sorted(set(names))
    values = values_of(found)
    values = values if len(values) == len(found) else {}
    return [found[values[value]] for value in sorted(values)] if values else found


def read_rows(
    rows: Iterable[Row], dtypes: Mapping[str, str], target: TargetConfig, where: str, words: str | None = None
) -> tuple[dict[str, list[Utterance]], dict[str, int], Target]:
    """Reads rows into memory: the utterances of each split, D of each modality, and the target.

    Args:
        words: as :func:`gmsa.data.sources.read_any` takes it; then no utterance needs features.

    Raises:
        DataError: a row is invalid.
    """
    checker = RowChecker(dict.fromkeys(dtypes, "<f4"), target, where, "set target.range to the range of the labels")
    found: dict[str, list[Utterance]] = {}
    seen: dict[str, str] = {}
    for row in rows:
        checker.begin(row)
        checker.id_of(row)
        checker.text_of(row)
        utterance, split = row.utterance, row.split
        if (other := seen.get(utterance.id)) is not None:
            both = f"split {shown(split)}" if other == split else f"splits {shown(other)} and {shown(split)}"
            how = "" if other == split else ", for example by the split's name before them"
            raise DataError(f"{where}: duplicate id {shown(utterance.id)} in {both}; ids must be unique{how}")
        seen[utterance.id] = split
        values = {modality: checker.sequence_of(row, modality) for modality in dtypes}
        label, own = checker.label_of(row), {m: checker.label_of(row, m) for m in utterance.unimodal if m in dtypes}
        features = {m: torch.from_numpy(np.array(v)) for m, v in values.items() if v is not None}
        kept = replace(utterance, features=features, label=label, unimodal=own)
        found.setdefault(split, []).append(kept)
    final, order = checker.finish()
    dims = {modality: checker.dims[modality] for modality in dtypes if modality in checker.dims}
    if words is None and not any(u.features for utterances in found.values() for u in utterances):
        raise DataError(f"{where}: no utterance has {', '.join(dtypes)}; check the source")
    missing = {modality: torch.zeros(0, dim) for modality, dim in dims.items()}

    def numbered(label: float) -> float | None:
        return None if math.isnan(label) else label if order is None else float(order[int(label)])

    def finished(utterance: Utterance) -> Utterance:
        label = numbered(math.nan if utterance.label is None else utterance.label)
        own = {m: value for m, one in utterance.unimodal.items() if (value := numbered(one)) is not None}
        return replace(utterance, features=missing | dict(utterance.features), label=label, unimodal=own)

    return {split: list(map(finished, utterances)) for split, utterances in found.items()}, dims, final
