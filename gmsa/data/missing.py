"""Modalities that are hidden on purpose."""

# N utterances, M modalities
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gmsa.data.utterance import Utterance


def hide_modalities(utterances: Sequence[Utterance], rates: Mapping[str, float], draws: np.ndarray) -> list[Utterance]:
    """Hides each present modality of each utterance with its own probability, but never all of them.

    Args:
        rates: per modality, the probability.
        draws: uniform numbers in [0, 1) ``[N, M + 1]``: for each modality of ``rates``, in their order, and one that
            decides which modality stays where all would go.
    """
    present = np.array([[u.lengths.get(m, 0) for m in rates] for u in utterances]) > 0
    hidden = present & (draws[:, :-1] < list(rates.values()))
    for row in np.flatnonzero(hidden.any(1) & (hidden.sum(1) == present.sum(1))):
        there = np.flatnonzero(present[row])
        hidden[row, there[int(draws[row, -1] * len(there))]] = False
    subsets = [frozenset(name for i, name in enumerate(rates) if code >> i & 1) for code in range(2 ** len(rates))]
    codes = (hidden @ 2 ** np.arange(len(rates))).tolist()
    return [u.without(subsets[code]) if code else u for u, code in zip(utterances, codes, strict=True)]
