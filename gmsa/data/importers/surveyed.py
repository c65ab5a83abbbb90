"""Utterances whose features a source holds as arrays, and what is known of all of them before any row is written."""

# L steps, D features
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gmsa.data.importers.rows import Item, ordered
from gmsa.data.texts import check_count
from gmsa.errors import DataError, shown


@dataclass(frozen=True)
class ArrayItem(Item):
    """One utterance with its features."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Features of each modality ``[L, D]``, float16 or float32; one that is missing has no steps, or no entry."""


@dataclass(frozen=True)
class Survey:
    """What is known of all utterances of a source."""

    counts: dict[str, int]
    """Utterances of each split, in the order of their first ones."""
    dims: dict[str, int]
    """D of each modality, in gmsa's order."""
    dtypes: dict[str, str]
    """The type to keep of each modality: ``float16`` where all of its arrays are, else ``float32``."""


def survey(items: Iterable[ArrayItem], where: str) -> Survey:
    """Reads all utterances once.

    Args:
        where: the source, for errors.

    Raises:
        DataError: there are too many splits, or a modality has D that differ.
    """
    counts: dict[str, int] = {}
    dims: dict[str, int] = {}
    half: dict[str, bool] = {}
    for item in items:
        counts[item.split] = counts.get(item.split, 0) + 1
        check_count(counts, where)
        for modality, values in item.arrays.items():
            if not values.size:
                continue
            if dims.setdefault(modality, values.shape[1]) != values.shape[1]:
                raise DataError(
                    f"{item.where}: {shown(modality)} has {values.shape[1]} features per step, but earlier ones "
                    f"have {dims[modality]}; extract all of them alike"
                )
            half[modality] = half.get(modality, True) and values.dtype == np.float16
    dtypes = {m: "float16" if half[m] else "float32" for m in ordered(half)}
    return Survey(counts, {m: dims[m] for m in dtypes}, dtypes)
