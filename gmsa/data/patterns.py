"""Patterns of missing modalities: which modalities an utterance has."""

# N utterances, P patterns
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmsa.config.groups.missing import joined
from gmsa.config.presets import MODALITIES
from gmsa.data.features import LazyFeatures
from gmsa.data.utterance import Utterance
from gmsa.rng import hashed_uniform, seeds_for

MOST_PATTERNS = 16
"""Patterns that :func:`mask_in_turns` masks to: the most frequent ones. Each costs a prediction of all utterances."""


class Turn(NamedTuple):
    """N utterances, each masked to one pattern."""

    utterances: list[Utterance]
    counted: np.ndarray
    """Whether each has a pattern that it had in no turn before: bool ``[N]``."""


def pattern_of(utterance: Utterance) -> str:
    """The modalities that an utterance has, as ``fixed`` names them: ``ta``, or ``text+eeg``; ``none`` without any.

    >>> import torch
    >>> utterance = Utterance("a", {"eeg": torch.ones(2, 3), "text": torch.ones(4, 5), "pose": torch.ones(0, 7)})
    >>> pattern_of(utterance), pattern_of(utterance.drop(frozenset({"eeg"})))
    ('text+eeg', 't')
    """
    order = {name: place for place, name in enumerate(MODALITIES)}
    return joined(sorted(_present(utterance), key=lambda name: (order.get(name, len(order)), name))) or "none"


def mask_in_turns(utterances: Sequence[Utterance], like: Iterable[Utterance], *seed: int | str) -> list[Turn]:
    """Masks utterances to every pattern that others have, so that an error is known of each pattern.

    It calibrates :class:`~gmsa.metrics.Conformal`: a validation split may have few utterances of a pattern, and other
    patterns than the utterances to predict. If modalities are missing at random, an utterance that is masked to a
    pattern stands for those that lack these modalities.

    Over the turns each utterance has each pattern that its modalities allow once, or its own in the first turn if they
    allow none. The turn is drawn, a pure function of (seed, utterance id), so that the neighbours in a dialogue
    have different patterns, as those of the others do.

    Args:
        utterances: N utterances, those of the validation split, :func:`unmasked`.
        like: the utterances whose patterns matter; of more than :data:`MOST_PATTERNS` the most frequent ones.
        seed: parts of the seed.

    >>> import torch
    >>> both = Utterance("a", {"text": torch.ones(2, 3), "eeg": torch.ones(4, 5)})
    >>> turns = mask_in_turns([both], [both, both.drop(frozenset({"text"}))], 0)
    >>> sorted(pattern_of(turn.utterances[0]) for turn in turns)
    ['eeg', 'text+eeg']
    """
    found = Counter(_present(utterance) for utterance in like)
    patterns = sorted(found, key=lambda p: (-found[p], sorted(p)))[:MOST_PATTERNS]
    allowed = [[p for p in patterns if p <= _present(u)] or [_present(u)] for u in utterances]
    seeds = torch.tensor(seeds_for(*seed, "patterns", each=(u.id for u in utterances)), dtype=torch.int64)
    draws = hashed_uniform(seeds, torch.tensor(0)).tolist()
    turns = []
    for turn in range(max(map(len, allowed), default=0)):
        masked = []
        for u, choices, draw in zip(utterances, allowed, draws, strict=True):
            removed = _present(u) - choices[(int(draw * len(choices)) + turn) % len(choices)]
            masked.append(u.drop(removed) if removed else u)
        turns.append(Turn(masked, np.array([turn < len(choices) for choices in allowed])))
    return turns


def unmasked(utterance: Utterance) -> Utterance:
    """The utterance with the modalities that :func:`apply_missing` masked."""
    features, withheld = utterance.features, utterance.withheld
    if not withheld:
        return utterance
    if isinstance(features, LazyFeatures):
        return replace(utterance, features=_Unmasked(features, withheld), withheld={})
    return replace(utterance, features={m: withheld.get(m, x) for m, x in features.items()}, withheld={})


class _Unmasked(LazyFeatures):
    """Lazy features, with the withheld ones in their places."""

    __slots__ = ("_features", "_lengths", "_withheld")

    def __init__(self, features: LazyFeatures, withheld: Mapping[str, Tensor]) -> None:
        self._features, self._withheld = features, withheld
        more = withheld.lengths if isinstance(withheld, LazyFeatures) else {m: len(x) for m, x in withheld.items()}
        self._lengths = features.lengths | more

    @property
    def lengths(self) -> dict[str, int]:
        return self._lengths

    def __getitem__(self, modality: str) -> Tensor:
        return self._withheld[modality] if modality in self._withheld else self._features[modality]


def _present(utterance: Utterance) -> frozenset[str]:
    return frozenset(modality for modality, length in utterance.lengths.items() if length)
