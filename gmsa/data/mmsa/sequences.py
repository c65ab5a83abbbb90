"""Converts a modality's column of arrays or lists to one float32 tensor [L, D] per utterance, without padding."""

# N utterances, L steps, D features
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmsa.errors import DataError, shown

Span = tuple[int, int]
"""First step, and last step plus one."""


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


def read_sequences(column: Sequence[Any], ids: Sequence[str], modality: str, where: str) -> Sequences:
    """Converts a modality's column, one entry per id, to numeric arrays of one dimension D; infinite audio becomes 0.

    Raises:
        DataError: an entry is not numeric, not [L, D], or its D differs from that of earlier entries.
    """
    items, dim = [], 0
    for identity, value in zip(ids, column, strict=True):
        item = _steps(value, f"{where}: '{modality}' of {shown(identity)}")
        if modality == "audio" and item.dtype.kind == "f" and np.isinf(item).any():
            item = np.where(np.isinf(item), 0, item)
        if item.size:
            dim = dim or item.shape[1]
            if item.shape[1] != dim:
                raise DataError(
                    f"{where}: '{modality}' of {shown(identity)} has {item.shape[1]} features per step, "
                    f"but earlier ones have {dim}; extract all of them alike"
                )
        items.append(item)
    widths = {len(item) for item in items}
    return Sequences(items, dim, widths.pop() if len(widths) == 1 else 0)


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
    present: Mapping[str, Sequences], dims: Mapping[str, int], text_bert: Any, ids: Sequence[str], where: str
) -> list[dict[str, Tensor]]:
    """Cuts padding as :func:`~gmsa.data.from_mmsa` describes.

    Args:
        present: the modalities of the split that have features.
        dims: D of every modality to return; those not in ``present`` are missing.
        text_bert: the column of that name, or None.
        ids: ids of the utterances, for errors.
        where: name of the file and the split, for errors.

    Returns:
        Per utterance and modality, float32 [L_i, D]; length 0 if missing.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    padded = {s.width if s.lengths is None else 0 for s in present.values()}
    aligned = len(padded) == 1 and 0 not in padded
    mask = _text_mask(text_bert, len(ids), present["text"].width if "text" in present else max(padded, default=0))
    found = []
    for i, identity in enumerate(ids):
        spans = {m: _span(s, i, mask if m == "text" else None) for m, s in present.items()}
        if aligned:
            marked = [] if mask is None else [_nonzero(mask[i])]
            used = [span for span in (*spans.values(), *marked) if span[1]] or [(0, 0)]
            spans = dict.fromkeys(spans, (min(start for start, _ in used), max(stop for _, stop in used)))
        features = {}
        for modality, dim in dims.items():
            start, stop = spans.get(modality, (0, 0))
            kept = present[modality].items[i][start:stop] if stop else np.zeros((0, dim))
            kept = kept if kept.any() else kept[:0].reshape(0, dim)
            features[modality] = _tensor(kept, f"{where}: '{modality}' of {shown(identity)}")
        found.append(features)
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


def _tensor(sequence: np.ndarray, where: str) -> Tensor:
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(np.array(sequence, dtype=np.float32, order="C"))
    if not torch.isfinite(tensor).all():
        kind = "NaN" if tensor.isnan().any() else "infinity"
        raise DataError(f"{where} holds {kind}; repair or remove the utterance")
    return tensor
