"""Converts a modality's column of arrays or lists to one float32 tensor [L, D] per utterance, without padding."""

# N utterances, L steps, D features
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.config.presets import INFINITE_IS_ZERO, TEXT
from gmsa.data.mmsa.faults import Values, repaired
from gmsa.errors import DataError, shown

Span = tuple[int, int]
"""First step, and last step plus one."""
_FEW = 8
"""Utterances that tell what the others are."""
_VOCABULARY = 1000
"""Whole numbers that reach this are ids of word pieces: no vocabulary is smaller, no count so large."""


@dataclass(frozen=True)
class Sequences:
    """One modality of one split, with its padding."""

    items: list[np.ndarray]
    """Per utterance [L_i, D], of any numeric type; [0, 0] if empty."""
    dim: int
    """D; 0 if unknown."""
    width: int
    """L if all sequences have the same length, and may so be padded; else 0."""
    lengths: list[int] | None = None
    """True lengths, if the file has them."""
    zeroed: int = 0
    """Infinite values that were read as 0."""


def as_array(value: Any) -> np.ndarray:
    """Converts nested lists of numbers to an array.

    Raises:
        TypeError: they hold text. NumPy would pad each to the longest, so that a few bytes of a file become gigabytes.
        ValueError: they are ragged.
    """
    _refuse_text(value)
    return np.asarray(value)


def _refuse_text(value: Any) -> None:
    if not isinstance(value, (list, tuple)):
        return
    kinds = set(map(type, value))
    if any(issubclass(kind, (str, bytes, bytearray, Mapping)) for kind in kinds):
        raise TypeError("text among numbers")
    for kind in (list, tuple, np.ndarray):
        for part in value if kind in kinds else ():
            if isinstance(part, np.ndarray) and part.dtype.kind in "US":
                raise TypeError("text among numbers")
            _refuse_text(part)


def read_sequences(
    column: Sequence[Any], ids: Sequence[str], modality: str, where: str, bad: dict[str, str] | None = None
) -> Sequences:
    """Converts a modality's column, one entry per id, to numeric arrays of one dimension D.

    Infinite values become 0 where :data:`~gmsa.config.presets.INFINITE_IS_ZERO` says so of the modality.

    Args:
        column: the column, one entry per id.
        ids: ids of the utterances.
        modality: its name.
        where: name of the file and the split, for errors.
        bad: collects, by id, why entries cannot be read, which then are empty (default: that is an error).

    Raises:
        DataError: an entry is not numeric, not [L, D], or its D differs from that of earlier entries; or the text is
            ids of word pieces.
    """
    if modality == TEXT and _are_tokens(column):
        raise DataError(
            f"{where}: '{modality}' holds ids of word pieces (tokens), not features; save them as 'text_bert', and as "
            f"'{modality}' the features that a language model gives for them [steps, features]"
        )
    items, widths, dim, zeroed = [], set(), 0, 0
    for identity, value in zip(ids, column, strict=True):
        try:
            item = _steps(value, f"{where}: '{modality}' of {shown(identity)}")
            widths.add(len(item))
            if item.size:
                dim = dim or item.shape[1]
                if item.shape[1] != dim:
                    raise DataError(_unlike(column, f"{where}: '{modality}'", shown(identity), item.shape[1], dim))
        except DataError as error:
            if bad is None:
                raise
            bad.setdefault(identity, str(error).removeprefix(f"{where}: "))
            item = np.zeros((0, 0), np.float32)
        if modality in INFINITE_IS_ZERO and item.dtype.kind == "f" and (infinite := np.isinf(item)).any():
            item = np.where(infinite, 0, item)
            zeroed += int(infinite.sum())
        items.append(item)
    return Sequences(items, dim, widths.pop() if len(widths) == 1 else 0, zeroed=zeroed)


def _are_tokens(column: Sequence[Any]) -> bool:
    """Whether the first entries are ids of word pieces: whole numbers [L], [L, 1], [1, L] or [3, L] up to thousands."""
    most = 0.0
    for value in islice(column, _FEW):
        if value is None:
            continue
        try:
            array = as_array(value)
        except (ValueError, TypeError, OverflowError):
            return False
        line = array.ndim == 1 or (array.ndim == 2 and (array.shape[1] == 1 or array.shape[0] in (1, 3)))
        if not line or array.dtype.kind not in "iuf":
            return False
        if array.size:
            if not (np.isfinite(array).all() and (array >= 0).all() and (array == np.floor(array)).all()):
                return False
            most = max(most, float(array.max()))
    return most >= _VOCABULARY


def _unlike(column: Sequence[Any], what: str, identity: str, found: int, dim: int) -> str:
    """What to say of an utterance whose D differs from that of earlier ones."""
    shapes = {np.shape(value) for value in column if isinstance(value, np.ndarray) and value.ndim == 2}
    steps, features = {shape[0] for shape in shapes}, {shape[1] for shape in shapes}
    if len(steps) == 1 and 1 not in steps and len(features) > 2:
        return (
            f"{what} looks transposed: all utterances have {steps.pop()} steps, but {min(features)} to {max(features)} "
            "features; save [steps, features]"
        )
    return f"{what} of {identity} has {found} features per step, but earlier ones have {dim}; extract all of them alike"


def check_lengths(
    numbers: Sequence[float], items: Sequence[np.ndarray], ids: Sequence[str], modality: str, where: str
) -> list[int]:
    """Checks the column ``<modality>_lengths`` and returns it as integers.

    Raises:
        DataError: a length is negative, not an integer, or greater than the length of its sequence.
    """
    key = f"{modality}_lengths"
    lengths = []
    for identity, value, item in zip(ids, numbers, items, strict=True):
        if not value.is_integer() or value < 0:
            raise DataError(f"{where}: '{key}' of {shown(identity)} is {value:g}; expected an integer of at least 0")
        if value > len(item):
            raise DataError(
                f"{where}: '{key}' of {shown(identity)} is {value:g}, but '{modality}' has {len(item)} steps; "
                "save features and lengths together"
            )
        lengths.append(int(value))
    return lengths


def cut_sequences(
    present: Mapping[str, Sequences],
    dims: Mapping[str, int],
    text_bert: Any,
    ids: Sequence[str],
    values: Values,
) -> list[dict[str, Tensor]]:
    """Cuts padding as :func:`~gmsa.data.from_mmsa` describes.

    Args:
        present: the modalities of the split that have features.
        dims: D of every modality to return; those not in ``present`` are missing.
        text_bert: the column of that name, or None.
        ids: ids of the utterances.
        values: notes the values that float32 does not hold, and says what becomes of them.

    Returns:
        Per utterance and modality, float32 [L_i, D]; length 0 if missing.
    """
    padded = {s.width if s.lengths is None else 0 for s in present.values()}
    aligned = len(padded) == 1 and 0 not in padded
    mask = _text_mask(text_bert, len(ids), present[TEXT].width if TEXT in present else max(padded, default=0))
    found = []
    for i, identity in enumerate(ids):
        spans = {m: _span(s, i, mask if m == TEXT else None) for m, s in present.items()}
        if aligned:
            marked = [] if mask is None else [_nonzero(mask[i])]
            used = [span for span in (*spans.values(), *marked) if span[1]] or [(0, 0)]
            spans = dict.fromkeys(spans, (min(start for start, _ in used), max(stop for _, stop in used)))
        features, wrong = {}, {}
        for modality, dim in dims.items():
            start, stop = spans.get(modality, (0, 0))
            kept = present[modality].items[i][start:stop] if stop else np.zeros((0, dim))
            kept = kept if kept.any() else kept[:0].reshape(0, dim)
            features[modality] = tensor = _tensor(kept)
            if tensor.numel() and (bad := values.look(tensor, kept, modality, identity)) is not None:
                wrong[modality] = bad
        found.append(repaired(features, wrong, values.nan, aligned) if wrong else features)
    return found


def _steps(value: Any, where: str) -> np.ndarray:
    """Converts the features of one utterance to a numeric array [L, D]."""
    if value is None:
        return np.zeros((0, 0), np.float32)
    try:
        array = as_array(value)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{where} is not an array of numbers; expected [steps, features]") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} is not numeric (type {array.dtype}); expected features, not text")
    if array.size == 0:
        return np.zeros((0, array.shape[-1] if array.ndim == 2 else 0), np.float32)
    if array.ndim == 3 and 1 in array.shape[:2]:  # [1, L, D], as language models return it, or [L, 1, D]
        array = array.reshape(-1, array.shape[-1])
    if array.ndim not in (1, 2):
        raise DataError(f"{where} has shape {list(array.shape)}; expected [steps, features]")
    return array.reshape(-1, array.shape[-1])


def _text_mask(text_bert: Any, count: int, width: int) -> np.ndarray | None:
    """Returns ``text_bert``'s attention mask [N, L, 1], or None if its shape does not match."""
    try:
        bert = as_array(text_bert) if text_bert is not None and width else np.zeros(0)
    except (ValueError, TypeError):
        return None
    if bert.shape != (count, 3, width) or bert.dtype.kind not in "biuf":
        return None
    return bert[:, 1, :, None]


def _span(sequences: Sequences, index: int, mask: np.ndarray | None) -> Span:
    """Returns the steps that are not padding."""
    item = sequences.items[index]
    if sequences.lengths is not None:
        length = sequences.lengths[index]
        front_padded = 0 < length < len(item) and not item[0].any() and item[length:].any()
        return _nonzero(item) if front_padded else (0, length)
    if sequences.width <= 1:
        return 0, len(item)
    return _nonzero(item if mask is None else mask[index])


def _nonzero(item: np.ndarray) -> Span:
    steps = np.flatnonzero(item.any(axis=1))
    return (int(steps[0]), int(steps[-1]) + 1) if len(steps) else (0, 0)


def _tensor(sequence: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(sequence, dtype=np.float32, order="C"))
