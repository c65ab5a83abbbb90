"""Values among features that float32 does not hold (NaN, infinity, 1e300), and single ones that set the scale."""

# L steps, D features
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gmsa.data.notes import Doubt, note
from gmsa.errors import DataError, cut, shown

LONGEST = 400
"""Characters of a message."""
_FEWEST = 10
"""Utterances of a modality, at least, that tell its scale."""
_FAR, _FAR_FROM_MIDDLE = 1e4, 1e8
"""A largest value this many times that of 99% of the utterances, or of half of them, is out of scale."""


@dataclass
class Fault:
    """What is wrong with one modality."""

    utterances: int = 0
    nan: int = 0
    infinite: int = 0
    large: int = 0
    """Values that are finite, but too large for float32."""
    first: str = ""
    """The first of the utterances, in words."""
    largest: float = 0.0
    """One of the values that are too large."""

    @property
    def values(self) -> int:
        return self.nan + self.infinite + self.large

    @property
    def kinds(self) -> str:
        """What the values are, in words."""
        named = ((self.nan, "NaN"), (self.infinite, "infinity"), (self.large, f"{self.largest:g}"))
        return " and ".join(name for count, name in named if count)

    @property
    def count(self) -> str:
        return f"{counted(self.values, 'value')} in {counted(self.utterances, 'utterance')}"


@dataclass
class Values:
    """Watches the values of a file's features.

    Args:
        where: name of the file.
        nan: what becomes of values that float32 does not hold: ``error``, ``zero`` or ``drop``, as ``data.nan``.
    """

    where: str
    nan: str = "error"
    place: str = ""
    """The file and the split that is read."""
    faults: dict[str, Fault] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    """What is wrong with each utterance, by id."""
    zeroed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Infinite values that were read as 0, by modality."""
    largest: dict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    """The largest absolute value of each utterance, with the utterance, by modality."""

    def look(self, tensor: Tensor, source: np.ndarray, modality: str, identity: str) -> Tensor | None:
        """Returns which values [L, D] float32 does not hold, if any; notes them, or else the largest.

        Args:
            tensor: not empty, float32.
            source: the same as it is in the file.
            modality: its name.
            identity: the utterance.
        """
        low, high = map(float, torch.aminmax(tensor))  # of NaN, if there is any
        if math.isfinite(low) and math.isfinite(high):
            self.largest[modality].append((max(-low, high), identity))
            return None
        fault = self.faults.setdefault(modality, Fault())
        bad = ~torch.isfinite(tensor)
        large = bad.numpy() & np.isfinite(source)
        nan, wide = int(np.isnan(source).sum()), int(large.sum())
        fault.utterances += 1
        fault.nan += nan
        fault.large += wide
        fault.infinite += int(bad.sum()) - nan - wide
        if wide and not fault.largest:
            fault.largest = float(source[large][0])
        kinds = "NaN" if nan else f"{float(source[large][0]):g}, which float32 does not hold" if wide else "infinity"
        if not fault.first:
            fault.first = f"{self.place}: '{cut(modality)}' of {shown(identity)} holds {kinds}"
        self.bad.setdefault(identity, f"'{modality}' holds {kinds}")
        return bad

    def refuse(self) -> None:
        """Raises an error that counts the faults of each modality, where ``data.nan`` is ``error``.

        Raises:
            DataError: there are some.
        """
        if self.faults and self.nan == "error":
            first = next(iter(self.faults.values())).first
            counts = "; ".join(f"'{cut(m)}' has {fault.count}" for m, fault in list(self.faults.items())[:3])
            remedy = "repair them ('gmsa data check' lists them), or set data.nan: zero or drop"
            said = f"{first}; in all, {counts}: {remedy}"
            raise DataError(said if len(said) <= LONGEST else f"{self.where}: {counts}: {remedy}")

    def tell(self) -> None:
        """Notes what became of the values, and those that set the scale."""
        done = {"zero": "set to 0", "drop": "dropped with their steps"}.get(self.nan)
        for modality, fault in self.faults.items() if done else ():
            what = f"{fault.count}, {fault.kinds}{' (not in float32)' if fault.large else ''}"
            note(Doubt(f"{self.where}: '{cut(modality)}': {what}, were {done} (data.nan: {self.nan})"))
        for modality, count in self.zeroed.items():
            if count:
                note(f"{self.where}: '{modality}': {counted(count, 'infinite value')} read as 0, as MMSA does")
        for modality, found in self.largest.items():
            if text := _outlier(found):
                remedy = "repair it, or leave the utterance out"
                said = f"one such value sets the scale, and the rest is next to nothing; {remedy}"
                note(Doubt(f"{self.where}: '{cut(modality)}' of {text}: {said}"))


def repaired(features: Mapping[str, Tensor], wrong: Mapping[str, Tensor], how: str, aligned: bool) -> dict[str, Tensor]:
    """Sets wrong values to 0, or drops their steps if ``how`` is ``drop``.

    Where modalities are aligned, a step is dropped from all of them, so that equal indices still mean the same word; a
    modality without any good step becomes missing alone.

    Args:
        features: per modality [L, D].
        wrong: per modality with wrong values, which of them are [L, D].
        how: ``data.nan``.
        aligned: whether all modalities have the same steps.
    """
    if how != "drop":
        zeroed = {m: features[m].masked_fill(bad, 0.0) for m, bad in wrong.items()}
        return {**features, **{m: x if x.any() else x[:0] for m, x in zeroed.items()}}
    good = {m: ~bad.any(1) for m, bad in wrong.items()}
    kept = {**features, **{m: features[m][:0] for m, steps in good.items() if not steps.any()}}
    good = {m: steps for m, steps in good.items() if steps.any()}
    if aligned and good:
        common = torch.stack(list(good.values())).all(0)
        good = {m: common for m, x in kept.items() if len(x) == len(common)}
    return {m: x[good[m]] if m in good else x for m, x in kept.items()}


def counted(count: int, what: str) -> str:
    """``1 value``, ``2 values``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _outlier(found: Iterable[tuple[float, str]]) -> str:
    """The utterance whose largest value is out of all proportion to those of the others, in words; or nothing."""
    ordered = sorted(found)
    if len(ordered) < _FEWEST:
        return ""
    largest, identity = ordered[-1]
    most, middle = ordered[(len(ordered) - 2) * 99 // 100][0], ordered[len(ordered) // 2][0]
    if not (largest > _FAR * most > 0 or largest > _FAR_FROM_MIDDLE * middle > 0):
        return ""
    return f"{shown(identity)} reaches {largest:.3g}, half of the utterances stay below {middle:.3g}"
