"""Reads a pickle that training refuses, split by split, and lists all that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gmsa.config import DataConfig, TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.config.presets import INFINITE_IS_ZERO
from gmsa.data.checks.findings import Finding, finding
from gmsa.data.labels import Column, find_field, read_column, read_labels
from gmsa.data.mmsa import Split, split_columns
from gmsa.data.mmsa.keys import all_modalities, renamed
from gmsa.data.notes import collected
from gmsa.data.splits import POOL, SPLIT_NAMES
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, cut, shown

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Faulty:
    """What could be read, and what is wrong with the rest."""

    splits: dict[str, list[Utterance]]
    dims: dict[str, int]
    target: Target
    findings: list[Finding]


def read_faulty(content: Any, where: str, data: DataConfig, settings: TargetConfig) -> Faulty:
    """Reads each split without what cannot be read in it; values that float32 does not hold are read as 0.

    Args:
        content: the unpickled file.
        where: its name, for errors.
        data: the group ``data``: its modalities.
        settings: the group ``target``.

    Raises:
        DataError: no split can be read.
    """
    wanted = () if data.modalities == AUTO else tuple(data.modalities)
    columns = split_columns(content, where, *([wanted] if wanted else []))
    wanted = wanted or all_modalities(list(columns.values()), where, settings.chosen_field)
    found: list[Finding] = []
    readers = {}
    for name, split in columns.items():
        ours = SPLIT_NAMES.get(name.lower(), name)
        reader = _reader(name, renamed(split, wanted)[0], wanted, where, found)
        if reader is not None and ours not in readers:
            readers[ours] = reader
    if not readers:
        raise DataError(f"{where}: no split can be read: {found[0].what}")
    dims = _common_dims(readers, wanted, found)
    target, labels = _labels(readers, settings, where, found)
    splits = {}
    for name, reader in readers.items():
        own = {m: dim for m, dim in dims.items() if m in reader.columns} or dims
        try:
            with collected():
                features = reader.features(own)
        except DataError as error:
            found.append(Finding("error", _reason(error, reader.where), name))
            features = [{} for _ in reader.ids]
        texts = _texts(name, reader, found)
        splits[name] = [
            Utterance(i, x, None if label != label else label, text=text)
            for i, x, label, text in zip(reader.ids, features, labels[name], texts, strict=True)
        ]
    return Faulty(splits, dims, target, _merged(found))


def _reader(
    name: str, columns: Mapping[str, Any], modalities: tuple[str, ...], where: str, found: list[Finding]
) -> Split | None:
    """Reads a split; omits unreadable modalities, and sets values that float32 does not hold to 0."""
    place = f"{where}: split {shown(name)}"
    try:
        reader = Split(dict(columns), place)
    except DataError as error:
        found.append(Finding("error", _reason(error, place), name))
        return None
    for modality in modalities:
        if modality not in columns:
            continue
        try:
            sequences = reader.sequences(modality)
        except DataError as error:
            found.append(Finding("error", _reason(error, place), name))
            del reader.columns[modality]  # type: ignore[attr-defined]
            continue
        wrong: dict[str, list[str]] = {}
        items = list(sequences.items)
        for i, item in enumerate(items):
            if item.dtype.kind != "f":
                continue
            length = len(item) if sequences.lengths is None else sequences.lengths[i]
            for kind, example in _faults(item[:length], reader.ids[i]):
                wrong.setdefault(kind, []).append(example)
            with np.errstate(invalid="ignore"):
                good = np.abs(item) <= _LARGEST
            if not good.all():
                items[i] = np.where(good, item, 0)
        reader._sequences[modality] = replace(sequences, items=items)
        for kind, ids in wrong.items():
            found.append(finding("error", f"{kind} in {modality}", name, ids))
        if sequences.zeroed and modality in INFINITE_IS_ZERO:
            found.append(Finding("note", f"infinity in {modality}, read as 0", name, sequences.zeroed))
    return reader


def _faults(item: np.ndarray, identity: str) -> Iterator[tuple[str, str]]:
    """The kinds of values that float32 does not hold, each with the utterance."""
    if np.isnan(item).any():
        yield "NaN", identity
    if np.isinf(item).any():
        yield "infinity", identity
    with np.errstate(invalid="ignore"):
        large = np.isfinite(item) & (np.abs(item) > _LARGEST)
    if large.any():
        yield "a value too large for float32", f"{identity}: {float(item[large][0]):g}"


def _common_dims(readers: Mapping[str, Split], modalities: tuple[str, ...], found: list[Finding]) -> dict[str, int]:
    common = {}
    for modality in modalities:
        dims = {name: dim for name, reader in readers.items() if (dim := reader.sequences(modality).dim)}
        if not dims:
            continue
        common[modality] = next(iter(dims.values()))
        if len(set(dims.values())) == 1:
            continue
        said = ", ".join(f"{dim} in {name}" for name, dim in dims.items())
        widths = {r.sequences(modality).width for r in readers.values() if r.sequences(modality).dim}
        turned = "; are they transposed? Save [steps, features]" if len(widths) == 1 and min(widths) > 1 else ""
        what = f"{cut(modality)} differs in features per step: {said}; extract all splits alike{turned}"
        found.append(Finding("error", what, ", ".join(dims)))
        for name, reader in readers.items():
            if name in dims and dims[name] != common[modality]:
                reader.columns.pop(modality, None)  # type: ignore[attr-defined]
                reader._sequences.pop(modality)
    return common


def _labels(
    readers: Mapping[str, Split], settings: TargetConfig, where: str, found: list[Finding]
) -> tuple[Target, dict[str, list[float]]]:
    """The labels of each split; NaN where there are none, or none that can be read."""
    labels = {name: [float("nan")] * len(reader.ids) for name, reader in readers.items()}
    target = Target.of(settings)
    labeled = {name: reader for name, reader in readers.items() if name != POOL}
    columns: dict[str, Column] = {}
    with collected():
        try:
            key = find_field({name: reader.columns for name, reader in labeled.items()}, settings, where)
        except DataError as error:
            found.append(Finding("error", _reason(error, where)))
            return target, labels
        for name, reader in labeled.items():
            try:
                if key in reader.columns:
                    columns[name] = read_column(
                        reader.columns[key], reader.ids, reader.where, key, settings.column, settings.is_classes
                    )
            except DataError as error:
                found.append(Finding("error", _reason(error, reader.where), name))
        try:
            target, values = read_labels(columns, settings, where)
        except DataError:
            values = {}
            for name, column in columns.items():
                try:
                    values |= read_labels({name: column}, settings, where)[1] if not settings.is_classes else {}
                except DataError as error:
                    beyond = _beyond(column, target)
                    if column.numbers is not None and not settings.is_classes:
                        values[name] = column.numbers
                    found.append(
                        Finding("error", _reason(error, column.where), name, max(1, len(beyond)), tuple(beyond[:3]))
                    )
        for name, reader in labeled.items():
            for key in [key for key in reader.columns if key.startswith("regression_labels_")]:
                try:
                    own = read_column(reader.columns[key], reader.ids, reader.where, key)
                    read_labels({"": own}, target.settings(TargetConfig()), reader.where)
                except DataError as error:
                    found.append(Finding("error", _reason(error, reader.where), name))
    return target, labels | {name: numbers.tolist() for name, numbers in values.items()}


def _beyond(column: Column, target: Target) -> list[str]:
    if column.numbers is None:
        return []
    pairs = zip(column.ids, column.numbers.tolist(), strict=True)
    return [cut(f"{identity}: {value:g}") for identity, value in pairs if value == value and not target.holds(value)]


def _texts(name: str, reader: Split, found: list[Finding]) -> list[str]:
    try:
        return reader.texts()
    except DataError as error:
        found.append(Finding("error", _reason(error, reader.where), name))
        return [""] * len(reader.ids)


def _merged(found: list[Finding]) -> list[Finding]:
    """Findings of several splits that say the same as one."""
    merged: dict[tuple[str, str], Finding] = {}
    for one in found:
        key = one.severity, one.what
        before = merged.get(key)
        if before is None:
            merged[key] = one
        else:
            where = f"{before.where}, {one.where}"
            merged[key] = replace(
                before, where=where, count=before.count + one.count, examples=(*before.examples, *one.examples)[:3]
            )
    return list(merged.values())


def _reason(error: DataError, where: str) -> str:
    return str(error).removeprefix(f"{where}: ")
