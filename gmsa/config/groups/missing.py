"""Settings of masked modalities: the protocol and its rate for each split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, NamedTuple

from gmsa.config.presets import LETTERS, MODALITIES, MOST_MODALITIES
from gmsa.errors import ConfigError, nearest, shown

RATES: dict[str, tuple[float, float]] = {
    "eta": (0.0, 1 - 1 / MOST_MODALITIES),
    "sample": (0.0, 1.0),
    "frame": (0.0, 1.0),
}
"""Protocols with a rate, and the limits of the rate."""
MISSING_PROTOCOLS = ("none", *RATES, "fixed", "frame_uniform")


class Missing(NamedTuple):
    """A protocol with its rate or its subset."""

    protocol: str
    """``none``, ``eta``, ``sample``, ``fixed``, ``frame`` or ``frame_uniform``."""
    rate: float = 0.0
    """Requested rate, for protocols with a rate."""
    left: tuple[str, ...] = ()
    """Modalities that ``fixed`` keeps."""
    unit: str = "utterance"
    """What draws a mask: each ``utterance`` for itself, or a ``dialogue`` one for all of its utterances."""

    def __str__(self) -> str:
        if self.protocol in RATES:
            return f"{self.protocol}:{self.rate:g}"
        return f"fixed:{joined(self.left)}" if self.protocol == "fixed" else self.protocol


def joined(modalities: Sequence[str], among: Sequence[str] = ()) -> str:
    """A subset as ``fixed`` takes it: ``ta``, or ``text+eeg`` where one of the data's modalities has no letter.

    Args:
        among: all modalities of the data (default: the subset).
    """
    short = {name: letter for letter, name in LETTERS.items()}
    if all(name in short for name in (*modalities, *among)):
        return "".join(short[name] for name in modalities)
    return "+".join(modalities)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """The proper subsets of some modalities that ``fixed`` can keep, the smallest first.

    For three: t, a, v, ta, tv, av. Of more than four modalities, each alone and each left out.
    """
    count = len(modalities)
    sizes = range(1, count) if count <= 4 else dict.fromkeys((1, count - 1))
    return [chosen for size in sizes for chosen in combinations(modalities, size)]


def parse_missing(spec: str, key: str) -> Missing:
    """Reads ``none``, ``eta:0.5``, ``sample:0.5``, ``fixed:ta``, ``fixed:text+eeg``, ``frame:0.3``, ``frame_uniform``.

    Raises:
        ConfigError: an unknown protocol (with the nearest known one), or a wrong rate or subset.
    """
    name, colon, rest = (part.strip() for part in spec.partition(":"))
    if name not in MISSING_PROTOCOLS:
        known = MISSING_PROTOCOLS
        raise ConfigError(f"'{key}' must be one of {', '.join(known)} (got {shown(spec)}){nearest(name, known)}")
    if name == "fixed":
        return Missing(name, left=_left(rest, spec, key))
    if name not in RATES:
        if colon:
            raise ConfigError(f"'{key}': {name} takes no rate (got {shown(spec)})")
        return Missing(name)
    low, high = RATES[name]
    try:
        rate = float(rest)
    except ValueError:
        rate = float("nan")
    if not low <= rate <= high:
        raise ConfigError(f"'{key}': {name} takes a rate from {low:g} to {high:.4g}, as {name}:0.3 (got {shown(spec)})")
    return Missing(name, rate)


def _left(text: str, spec: str, key: str) -> tuple[str, ...]:
    """The modalities of ``ta`` or ``text+eeg``."""
    if "+" in text or (text and not set(text) <= set(LETTERS)):
        names = tuple(part.strip() for part in text.split("+"))
    else:
        names = tuple(LETTERS[letter] for letter in text)
    if not all(names) or not names or len(set(names)) < len(names):
        raise ConfigError(
            f"'{key}': fixed takes what is left, letters of {', '.join(MODALITIES)} such as ta, or names joined by + "
            f"(got {shown(spec)})"
        )
    return tuple(sorted(names, key=lambda name: MODALITIES.index(name) if name in MODALITIES else len(MODALITIES)))


@dataclass(frozen=True)
class MissingConfig:
    """Masked modalities; one value stands for all three splits.

    ``eta:R`` (GCNet): each utterance keeps one modality, each other with the probability that makes the share of
    missing (utterance, modality) pairs R. ``sample:R``: a share R of the utterances keeps a random proper subset.
    ``fixed:ta``: all keep text and audio alone. ``frame:R`` (TFR-Net): each step is masked with probability R.
    ``frame_uniform`` (LNLN): as ``frame``, at a rate drawn from [0, 1) per utterance and modality; in training
    drawn anew in every epoch.
    """

    one_for_all: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    train: str = "none"
    """Protocol that masks modalities in the training split and the pool, such as ``eta:0.5``."""
    valid: str = "none"
    """Protocol that masks modalities in the validation split."""
    test: str = "none"
    """Protocol that masks modalities in the test split."""
    seed: int = 0
    """Seed of the masks, apart from the run's seed, so that all runs are scored on the same masks."""
    unit: Literal["utterance", "dialogue"] = "utterance"
    """What draws a mask: each utterance for itself, or a dialogue (a video) one for all of its utterances."""

    def __post_init__(self) -> None:
        for split in self.one_for_all:
            self.of(split)

    def of(self, split: str) -> Missing:
        """The protocol of a split."""
        return parse_missing(getattr(self, split), f"data.missing.{split}")._replace(unit=self.unit)
