"""Modalities that are hidden on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gmsa.data.utterance import Utterance


def hide_modalities(utterance: Utterance, rates: Mapping[str, float], rng: np.random.Generator) -> Utterance:
    """Hides each present modality with its own probability, but never all of them."""
    present = [m for m, there in utterance.present.items() if there]
    hidden = [m for m in present if rng.random() < rates[m]]
    if hidden and len(hidden) == len(present):
        hidden.remove(present[int(rng.integers(len(present)))])
    if not hidden:
        return utterance
    return replace(utterance, features={m: x[:0] if m in hidden else x for m, x in utterance.features.items()})
