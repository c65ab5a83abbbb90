"""Settings of masked modalities: the protocol and its rate for each split."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, NamedTuple

from gmsa.errors import ConfigError, nearest, shown

LETTERS = {"t": "text", "a": "audio", "v": "vision"}
MODALITIES = tuple(LETTERS.values())
SUBSETS = tuple("".join(letters) for size in (1, 2) for letters in combinations(LETTERS, size))
"""Proper subsets of the modalities, which ``fixed`` can keep: t, a, v, ta, tv, av."""
RATES: dict[str, tuple[float, float]] = {
    "eta": (0.0, 2 / 3),
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
    left: str = ""
    """Letters of the modalities that ``fixed`` keeps."""

    def __str__(self) -> str:
        if self.protocol in RATES:
            return f"{self.protocol}:{self.rate:g}"
        return f"fixed:{self.left}" if self.protocol == "fixed" else self.protocol


def parse_missing(spec: str, key: str) -> Missing:
    """Reads ``none``, ``eta:0.5``, ``sample:0.5``, ``fixed:ta``, ``frame:0.3`` or ``frame_uniform``.

    Raises:
        ConfigError: an unknown protocol (with the nearest known one), or a wrong rate or subset.
    """
    name, colon, rest = (part.strip() for part in spec.partition(":"))
    if name not in MISSING_PROTOCOLS:
        known = MISSING_PROTOCOLS
        raise ConfigError(f"'{key}' must be one of {', '.join(known)} (got {shown(spec)}){nearest(name, known)}")
    if name == "fixed":
        left = "".join(letter for letter in LETTERS if letter in rest)
        if left not in SUBSETS or len(left) != len(rest):
            raise ConfigError(f"'{key}': fixed takes what is left, one of {', '.join(SUBSETS)} (got {shown(spec)})")
        return Missing(name, left=left)
    if name not in RATES:
        if colon:
            raise ConfigError(f"'{key}': {name} takes no rate (got {shown(spec)})")
        return Missing(name)
    low, high = RATES[name]
    try:
        rate = float(rest)
    except ValueError:
        rate = float("nan")
    if not low <= rate <= high + (0.005 if name == "eta" else 0):  # 0.67 is meant as two thirds
        raise ConfigError(f"'{key}': {name} takes a rate from {low:g} to {high:.4g}, as {name}:0.3 (got {shown(spec)})")
    return Missing(name, min(rate, high))


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

    def __post_init__(self) -> None:
        for split in self.one_for_all:
            self.of(split)

    def of(self, split: str) -> Missing:
        """The protocol of a split."""
        return parse_missing(getattr(self, split), f"data.missing.{split}")
