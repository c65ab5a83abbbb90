"""Presets: what gmsa knows by name of this field's modalities and data sets. Nothing else names a modality."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TEXT = "text"
"""The modality whose features come from a language model, which are not normalized."""
MODALITIES = (TEXT, "audio", "vision")
"""Modalities of this field's data sets, and the default of ``data.modalities``."""
SEQUENCE = ("audio", TEXT, "vision")
"""The same in the order of Semi-IIN's sequence, which is that of the nodes of a graph."""
MOST_MODALITIES = 8
"""Modalities, at most."""
OTHERS = "others"
"""Key of what holds for all modalities that a setting does not name."""
LETTERS = {"t": TEXT, "a": "audio", "v": "vision"}
"""Short forms that ``fixed:ta`` takes."""
CONVS = {TEXT: ((3, 1),), "audio": ((4, 2), (4, 4)), "vision": ((3, 1),), OTHERS: ((3, 1),)}
"""Convolutions of each modality's encoder, as (kernel, stride): Semi-IIN's; one that reads three steps for others."""
DROPOUT = {TEXT: 0.2, "audio": 0.2, "vision": 0.5, OTHERS: 0.2}
"""Probability that a modality is dropped in a training step."""
ALIASES = {
    **dict.fromkeys(("visual", "video", "face", "facial", "vision_features"), "vision"),
    **dict.fromkeys(("acoustic", "speech", "audio_features"), "audio"),
    **dict.fromkeys(("language", "words", "text_features"), TEXT),
}
"""Other names of the modalities in public files."""
INFINITE_IS_ZERO = frozenset({"audio"})
"""Modalities whose infinite values are read as 0, as MMSA does: COVAREP gives logarithms of 0."""

_MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
TARGETS: dict[str, dict[str, Any]] = {
    "mosi": {"kind": "intensity", "range": (-3.0, 3.0), "metrics": "mosi"},
    "mosei": {"kind": "intensity", "range": (-3.0, 3.0), "metrics": "mosi"},
    "sims": {"kind": "intensity", "range": (-1.0, 1.0), "metrics": "sims"},
    "simsv2": {"kind": "intensity", "range": (-1.0, 1.0), "metrics": "sims"},
    "meld": {"kind": "classes", "field": "emotion", "classes": _MELD},
    "meld_sentiment": {"kind": "classes", "field": "sentiment", "classes": ("negative", "neutral", "positive")},
    "iemocap4": {"kind": "classes", "field": "emotion", "classes": ("happy", "sad", "neutral", "angry")},
    "iemocap6": {
        "kind": "classes",
        "field": "emotion",
        "classes": ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
    },
    "mer": {
        "kind": "classes",
        "field": "emotion",
        "classes": ("neutral", "angry", "happy", "sad", "worried", "surprise"),
    },
}
"""What ``target.preset`` stands for, by data set."""


def placed(modalities: Iterable[str]) -> tuple[str, ...]:
    """The modalities that have a place in a model of these, in the order by which random numbers are drawn.

    Text, audio and vision keep their places even where a data set lacks some, so that weights fit and draws agree.
    """
    given = tuple(modalities)
    return MODALITIES if set(given) <= set(MODALITIES) else given


def in_sequence(modalities: Iterable[str]) -> tuple[str, ...]:
    """The modalities of :func:`placed` in the order of a graph's nodes."""
    found = placed(modalities)
    return SEQUENCE if found == MODALITIES else found
