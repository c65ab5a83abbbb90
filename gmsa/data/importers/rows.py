"""Turns lists of array files into rows of a store: a first pass checks all headers, a second reads the values."""

# L steps, D features
from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.config import MODALITIES
from gmsa.config.presets import ALIASES, INFINITE_IS_ZERO
from gmsa.data.importers.arrays import ArrayFile, read_array, read_shape
from gmsa.data.notes import note
from gmsa.data.store.writer import NOT_ANNOTATED, Row
from gmsa.data.texts import check_count
from gmsa.data.utterance import Utterance
from gmsa.errors import DataError, listed, shown

_PLACE = re.compile(r"[0-9]{1,15}")

Label = float | str | None
"""A label as a source writes it: a number, the name of a class, or None if unlabeled."""


@dataclass
class Source:
    """What an importer returns: the rows of a feature store, which :func:`~gmsa.data.write_store` writes."""

    rows: Iterable[Row]
    """The utterances, all of one split before those of the next. A generator that reads an utterance when it is
    asked for keeps memory small."""
    count: int
    """Number of rows, for the progress bar."""
    dtypes: dict[str, str]
    """Per modality, the type that stores it without loss: ``float16`` if all of its features have it, else
    ``float32``. Modalities that are not named here are not stored."""
    about: dict[str, Any]
    """Provenance, stored in the manifest as JSON: ``importer`` (its name) and ``files`` (objects with ``name`` and
    ``sha256``). It may be completed while the rows are read."""
    nan: str = "error"
    """Whether NaN and infinity among the features are errors: if it is set to another value than ``error`` before the
    rows are read, they stay in the rows."""
    lacks: str = ""
    """Why no utterance has features, where none has: an error, unless a text encoder reads the transcripts."""
    clips: str | None = None
    """The text of ``clips.jsonl``, where the source is a store that has it."""


@dataclass(frozen=True)
class Item:
    """One utterance, whose features are in files that are still to be read."""

    where: str
    """Where the source names it, for errors."""
    split: str
    id: str
    label: Label
    files: Mapping[str, Sequence[ArrayFile]]
    """Files of each modality, which are concatenated in time; a missing modality has no entry."""
    text: str = ""
    annotation: int = NOT_ANNOTATED
    unimodal: Mapping[str, float] = field(default_factory=dict)
    speaker: str = ""
    video: str = ""
    fold: str = ""
    clip: str = ""
    """Name of the clip in its video; a number is its place, unless the id has one."""


def source_of(items: Callable[[], Iterable[Item]], about: dict[str, Any], name: str) -> Source:
    """Checks all items and the headers of their files, and returns a source that reads the values row by row.

    Features follow MMSA's conventions: infinite audio becomes 0, and a sequence of zeros only is a missing modality.

    Args:
        items: returns all items in the order of the source; called once per pass.
        about: provenance, as in :attr:`Source.about`; number and SHA-256 of the arrays are added.
        name: the source, for errors.

    Raises:
        DataError: a file is missing, unsafe or invalid, dimensions differ, or there are no utterances.
    """
    splits: dict[str, int] = {}
    dims: dict[str, int] = {}
    half: dict[str, bool] = {}
    for item in items():
        splits[item.split] = splits.get(item.split, 0) + 1
        check_count(splits, name)
        for modality, file in ((m, file) for m, files in item.files.items() for file in files):
            shape = read_shape(file, f"{item.where}: {modality}")
            if shape.dim and dims.setdefault(modality, shape.dim) != shape.dim:
                known = dims[modality]
                raise DataError(
                    f"{item.where}: {modality} {shown(file.name)} has {shape.dim} features per step, but earlier ones "
                    f"have {known}; extract all of them alike"
                )
            if shape.steps:
                half[modality] = half.get(modality, True) and shape.half
    if not splits:
        raise DataError(f"{name}: holds no utterances; nothing is written")
    dtypes = {m: "float16" if half.get(m) else "float32" for m in ordered(dims)}
    source = Source((), sum(splits.values()), dtypes, about)
    source.rows = _rows(items, list(splits), dims, source)
    source.lacks = "" if half else f"{name}: no utterance has features ({listed(dims)}); check the paths"
    return source


def modality_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Returns the modality of each column or folder: its name in lower case, or what it is another name of.

    ``visual`` is vision and ``acoustic`` audio, as :data:`~gmsa.config.presets.ALIASES` says, which a note tells.

    Raises:
        DataError: two are the same modality.
    """
    given = {name: name.lower() for name in names}
    found: dict[str, str] = {}
    for name, plain in given.items():
        ours = ALIASES.get(plain, plain)
        modality = plain if ours in given.values() else ours
        if modality in found.values():
            raise DataError(f"{where}: {shown(name)} is {modality}, which another one is, too; rename one")
        found[name] = modality
    if changed := [f"{shown(name)} is read as {found[name]}" for name in given if given[name] != found[name]]:
        note(f"{where}: {listed(changed)}")
    return found


def ordered(modalities: Iterable[str]) -> list[str]:
    """The modalities of the presets in their order, then others in the order of the source."""
    given = list(modalities)
    return [*(m for m in MODALITIES if m in given), *(m for m in given if m not in MODALITIES)]


def _rows(
    items: Callable[[], Iterable[Item]], splits: Sequence[str], dims: Mapping[str, int], source: Source
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
                    place = f"{item.where}: {modality} {shown(file.name)}"
                    found.append(_finite(values, modality, place, source.nan))
                    digest.update(sha256)
                    count += 1
                steps = np.concatenate([part for part in found if part.size] or [np.zeros((0, dims[modality]))])
                features[modality] = torch.from_numpy(np.array(steps if steps.any() else steps[:0], np.float32))
            yield row_of(item, features)
    source.about["arrays"] = {"count": count, "sha256": digest.hexdigest()}


def row_of(item: Item, features: Mapping[str, Tensor]) -> Row:
    """The row of an item; the name of a class becomes a number when all names are known."""
    word = item.label if isinstance(item.label, str) else ""
    label = None if isinstance(item.label, str) else item.label
    numbered = item.id.partition("$_$")[2].isdecimal()
    utterance = Utterance(
        item.id,
        features,
        label,
        item.unimodal,
        item.text,
        speaker=item.speaker,
        of_video=item.video,
        place=int(item.clip) if _PLACE.fullmatch(item.clip) and not numbered else None,
        fold=item.fold,
    )
    return Row(item.split, utterance, item.annotation, word)


def _finite(values: np.ndarray, modality: str, where: str, nan: str) -> np.ndarray:
    """Returns the features as float32, with infinite audio as 0 as in MMSA's files."""
    with np.errstate(over="ignore"):
        kept = values.astype(np.float32)
    if not np.isfinite(kept).all():
        if modality in INFINITE_IS_ZERO:
            kept[np.isinf(values)] = 0
        if nan == "error" and not np.isfinite(kept).all():
            kind = "NaN" if np.isnan(kept).any() else "infinity"
            raise DataError(f"{where}: holds {kind}; repair or drop the utterance")
    return kept
