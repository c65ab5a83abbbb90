"""The deletion check: whether the tokens that an explanation names matter more than others."""

# T tokens of an utterance
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmsa.explain.score import Score
from gmsa.explain.views import Token, View
from gmsa.rng import generator

SHARE = 0.2
"""Share of the tokens that is taken out."""
DRAWS = 20
"""Random choices of as many tokens."""
BEATEN = 0.95
"""Share of the random choices that a faithful explanation beats, at least."""


@dataclass(frozen=True)
class DeletionCheck:
    """How far a prediction falls towards the base without the tokens that hold it up the most, and without others."""

    removed: int
    """Tokens that were taken out; 0 where there is no other choice to compare with."""
    fall: float
    """Fall without those that the explanation names."""
    random: float
    """Mean fall without as many that were drawn."""
    beaten: float
    """Share of the draws whose fall is smaller."""

    @property
    def faithful(self) -> bool:
        """Whether the tokens that the explanation names hold the prediction up, more than nearly all choices of as many
        do."""
        return self.removed > 0 and self.fall > 0 and self.beaten >= BEATEN


def check_deletion(
    score: Score, view: View, contributions: Mapping[str, np.ndarray], base: float, *seed: int | str
) -> DeletionCheck:
    """Takes out the top 20 % of the tokens, and 20 random choices of as many.

    Args:
        base: where the prediction comes from.
        seed: what the draws are a pure function of.
    """
    tokens = view.tokens
    count = removed_of(len(tokens))
    if count >= len(tokens):
        return DeletionCheck(0, 0.0, 0.0, 0.0)
    value = float(score([view])[0])
    way = 1.0 if value >= base else -1.0
    chosen = strongest(tokens, contributions, way)[:count]
    rng = generator(*seed, "deletion")
    drawn: list[list[Token]] = []
    while len(drawn) < DRAWS:
        places = rng.choice(len(tokens), count, replace=False)
        if {tokens[i] for i in places} != {*chosen}:  # the same choice says nothing
            drawn.append([tokens[i] for i in places])
    falls = way * (value - score([view.without(some) for some in (chosen, *drawn)]))
    return DeletionCheck(count, float(falls[0]), float(falls[1:].mean()), float((falls[1:] < falls[0]).mean()))


def removed_of(count: int, share: float = SHARE) -> int:
    """How many of ``count`` tokens are taken out: a share, but at least one."""
    return max(1, round(share * count))


def strongest(tokens: Sequence[Token], contributions: Mapping[str, np.ndarray], way: float) -> list[Token]:
    """The tokens, those first that hold the prediction up the most.

    Args:
        way: 1 where the prediction is above the base, -1 where it is below.
    """
    worth = np.array([way * contributions[m][place] for m, place in tokens])
    return [tokens[i] for i in np.argsort(-worth, kind="stable")]
