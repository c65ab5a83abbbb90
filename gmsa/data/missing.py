"""Modalities that are hidden on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gmsa.data.utterance import Utterance


def hide_modalities(utterance: Utterance, rates: Mapping[str, float], draws: Sequence[float]) -> Utterance:
    """Hides each present modality with its own probability, but never all of them.

    Args:
        draws: uniform numbers in [0, 1): one for each modality of ``rates``, in their order, and one that decides
            which modality stays where all would go.
    """
    present = [m for m, sequence in utterance.features.items() if sequence.shape[0]]
    hidden = [m for m, draw in zip(rates, draws, strict=False) if m in present and draw < rates[m]]
    if hidden and len(hidden) == len(present):
        hidden.remove(present[int(draws[-1] * len(present))])
    if not hidden:
        return utterance
    return replace(utterance, features={m: x[:0] if m in hidden else x for m, x in utterance.features.items()})
