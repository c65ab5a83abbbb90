"""From files named row by row to the rows of a store: one pass checks every head, the next reads."""

# L steps, D features
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.config import MODALITIES
from gmsa.data.importers.arrays import ArrayFile, read_array, read_shape
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError


@dataclass
class Source:
    """What an importer found, ready to be written."""

    rows: Iterable[Row]
    """Split by split."""
    count: int
    """Number of rows."""
    dtypes: dict[str, str]
    """Modalities, and the type that holds each one without loss: float16 where all of it is that, else float32."""
    about: dict[str, Any]
    """Importer, and the names and SHA-256 of its files; complete once all rows are read."""


@dataclass(frozen=True)
class Item:
    """One utterance by the names of its files."""

    where: str
    split: str
    id: str
    label: float | None
    files: Mapping[str, Sequence[ArrayFile]]
    """Per modality, read one after the other; those that it lacks are left out."""
    text: str = ""
    annotation: int = NOT_ANNOTATED
    unimodal: Mapping[str, float] = field(default_factory=dict)


def source_of(items: Callable[[], Iterable[Item]], about: dict[str, Any], name: str) -> Source:
    """Checks all items, the heads of their files among them, before the first is read.

    Features are read as those of MMSA's files are: infinite audio is 0, and a sequence that is all zero is missing.

    Args:
        items: gives them anew at each call, in the order of the source.

    Raises:
        DataError: a file is missing, unsafe or wrong, dimensions differ, or there is nothing to import.
    """
    splits: dict[str, int] = {}
    dims: dict[str, int] = {}
    half: dict[str, bool] = {}
    for item in items():
        splits[item.split] = splits.get(item.split, 0) + 1
        for modality, file in ((m, file) for m, files in item.files.items() for file in files):
            shape = read_shape(file, f"{item.where}: {modality}")
            if shape.dim and dims.setdefault(modality, shape.dim) != shape.dim:
                known = dims[modality]
                raise DataError(
                    f"{item.where}: {modality} '{file.name}' has {shape.dim} features per step, those before it "
                    f"{known}; extract all alike"
                )
            if shape.steps:
                half[modality] = half.get(modality, True) and shape.half
    if not splits:
        raise DataError(f"{name}: names no utterances; nothing is written")
    if not half:
        raise DataError(f"{name}: no utterance has {', '.join(MODALITIES)}; check the paths")
    dtypes = {m: "float16" if half.get(m) else "float32" for m in MODALITIES if m in dims}
    return Source(_rows(items, list(splits), dims, about), sum(splits.values()), dtypes, about)


def _rows(
    items: Callable[[], Iterable[Item]], splits: Sequence[str], dims: Mapping[str, int], about: dict[str, Any]
) -> Iterator[Row]:
    count, digest = 0, hashlib.sha256()
    for split in splits:
        for item in items():
            if item.split != split:
                continue
            features: dict[str, Tensor] = {m: torch.zeros(0, dim) for m, dim in dims.items()}
            for modality, files in item.files.items():
                found = []
                for file in files:
                    values, sha256 = read_array(file, f"{item.where}: {modality}")
                    found.append(_finite(values, modality, f"{item.where}: {modality} '{file.name}'"))
                    digest.update(sha256)
                    count += 1
                steps = np.concatenate([part for part in found if part.size] or [np.zeros((0, dims[modality]))])
                features[modality] = torch.from_numpy(np.array(steps if steps.any() else steps[:0], np.float32))
            yield Row(split, Utterance(item.id, features, item.label, item.unimodal, item.text), item.annotation)
    about["arrays"] = {"count": count, "sha256": digest.hexdigest()}


def _finite(values: np.ndarray, modality: str, where: str) -> np.ndarray:
    """Features as float32, infinite audio as 0, as MMSA's files are read."""
    with np.errstate(over="ignore"):
        kept = values.astype(np.float32)
    if not np.isfinite(kept).all():
        if modality == "audio":
            kept[np.isinf(values)] = 0
        if not np.isfinite(kept).all():
            kind = "NaN" if np.isnan(kept).any() else "infinity"
            raise DataError(f"{where}: holds {kind}; repair or drop the utterance")
    return kept
