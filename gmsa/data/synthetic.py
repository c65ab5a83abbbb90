"""The embedded synthetic corpus: small, generated, and with something to learn for every part of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gmsa.config import MODALITIES
from gmsa.data.corpus import Corpus
from gmsa.data.mmsa import feature_dims, from_mmsa
from gmsa.data.splits import POOL, SPLITS
from gmsa.data.targets import Target
from gmsa.rng import generator

SIZES = {"train": 400, "valid": 120, "test": 160, POOL: 200}
"""Utterances of each split."""
DIMS = {"text": 24, "audio": 8, "vision": 10}
LENGTHS = {"text": 12, "audio": 24, "vision": 10}
"""Longest sequence of each modality."""
TONE = (-1.5, -0.5, 0.5, 1.5)
"""One period of the audio signal of a sincere utterance."""
FACE = (1.5, 1.5, -1.5, -1.5)
"""The vision signal of a sincere utterance over four steps."""

_SENTIMENT = {"terrible": -3, "bad": -2, "weak": -1, "decent": 1, "good": 2, "wonderful": 3}
_NEUTRAL = (
    *("the", "a", "this", "that", "movie", "film", "plot", "actor", "scene", "it"),
    *("was", "is", "i", "saw", "we", "with", "and", "then", "of", "on"),
)
_WORDS = (*_SENTIMENT, *_NEUTRAL)
_CLIPS_PER_VIDEO = 10


def synthetic_corpus(
    seed: int = 0, modalities: Sequence[str] = MODALITIES, target: Target | None = None, name: str = "synthetic"
) -> Corpus:
    """Generates the corpus of :func:`synthetic_mmsa`, read by the same code as real files.

    Args:
        seed: seed of the generator (default: 0).
        modalities: modalities to read (default: all three).
        target: scales the intensities to its range, or makes classes of equal bins of them, three where it names none
            (default: intensities in [-3, 3]).
        name: name of the corpus in errors.

    Returns:
        A corpus with an unlabeled pool; its ``sha256`` is that of the generated values.
    """
    target = Target() if target is None else target
    if target.is_classes and not target.classes:
        target = replace(target, classes=("negative", "neutral", "positive"))
    content = synthetic_mmsa(seed)
    digest = hashlib.sha256()
    for columns in content.values():
        for key in (*MODALITIES, "regression_labels"):
            if key in columns:
                digest.update(columns[key].tobytes())
        if "regression_labels" in columns:
            columns["regression_labels"] = _labels(columns["regression_labels"], target)
    splits = from_mmsa(content, name, modalities, target, SPLITS)
    pool = from_mmsa(content, name, modalities, target, (POOL,), require_labels=False)[POOL]
    return Corpus(splits, feature_dims(splits), pool, digest.hexdigest(), target, synthetic=True)


def _labels(intensities: np.ndarray, target: Target) -> np.ndarray:
    """The labels of a target for intensities in [-3, 3]."""
    if target.is_classes:
        return np.clip((intensities + 3) / 6 * target.num_classes, 0, target.num_classes - 1).astype(np.int64)
    return scaled(intensities, target)


def scaled(intensities: np.ndarray, target: Target) -> np.ndarray:
    """Intensities in [-3, 3] on the range of a target."""
    found, middle = intensities * ((target.high - target.low) / 6), (target.high + target.low) / 2
    return found + middle if middle else found  # -0.0 stays as it is


def synthetic_mmsa(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Generates utterances in MMSA's format: ``train``, ``valid``, ``test``, and ``pool`` without labels.

    - Text: one or two sentiment words among neutral ones; their mean strength is the sentiment of the words.
    - Audio: a tone that rises repeatedly, or falls in sarcastic utterances (35%).
    - Vision: a face that brightens and then darkens, or the reverse in sarcastic utterances, among neutral frames.
      40% of the faces stay neutral and carry no information.
    - Tone and face have mean zero over time, so that only their order in time is informative.
    - Label: the sentiment of the words, negated in sarcastic utterances. Tone and face tell sincerity, not
      sentiment, so no single modality and no sum over modalities predicts the label; their interaction does.
    - Labels have noise (standard deviation 0.3) and are rounded to 0.2, like means over five raters; 10% of the
      utterances are neutral.
    - 5% of the modalities are missing, never all three. A video has ten clips, all in one split.

    Values are float32 and rounded to three decimals, so that every platform gives the same bytes.
    """
    rng = generator(seed, "synthetic corpus")
    vocabulary = _vocabulary(rng)
    tone = _direction(rng, DIMS["audio"])
    face = _direction(rng, DIMS["vision"])
    content = {}
    for split, count in SIZES.items():
        clips = [_clip(rng, vocabulary, tone, face) for _ in range(count)]
        columns: dict[str, Any] = {
            "id": [f"{split}{i // _CLIPS_PER_VIDEO:03d}$_${i % _CLIPS_PER_VIDEO}" for i in range(count)],
            "raw_text": [clip["raw_text"] for clip in clips],
        }
        for modality in MODALITIES:
            padded = np.zeros((count, LENGTHS[modality], DIMS[modality]), np.float32)
            for row, clip in zip(padded, clips, strict=True):
                row[: len(clip[modality])] = np.round(clip[modality], 3)
            columns[modality] = padded
            columns[f"{modality}_lengths"] = [len(clip[modality]) for clip in clips]
        if split != POOL:
            columns["regression_labels"] = np.array([clip["label"] for clip in clips], np.float32)
        content[split] = columns
    return content


def _direction(rng: np.random.Generator, dim: int) -> np.ndarray:
    vector = rng.standard_normal(dim)
    return vector / np.sqrt((vector**2).sum())


def _vocabulary(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Word vectors [24]: a random direction per word, plus the word's sentiment along a shared direction."""
    sentiment = _direction(rng, DIMS["text"])
    return {word: 0.7 * _direction(rng, DIMS["text"]) + _SENTIMENT.get(word, 0) * sentiment for word in _WORDS}


def _clip(
    rng: np.random.Generator, vocabulary: dict[str, np.ndarray], tone: np.ndarray, face: np.ndarray
) -> dict[str, Any]:
    says = rng.choice([-1, 0, 1], p=[0.45, 0.1, 0.45])
    sincere = rng.choice([-1, 1], p=[0.35, 0.65])
    expressive = rng.random() < 0.6

    words = list(rng.choice(_NEUTRAL, size=rng.integers(4, LENGTHS["text"] - 1)))
    fitting = [word for word, strength in _SENTIMENT.items() if strength * says > 0]
    chosen = list(rng.choice(fitting, size=rng.integers(1, 3))) if fitting else []
    for word in chosen:
        words.insert(rng.integers(0, len(words) + 1), word)
    value = float(np.mean([_SENTIMENT[word] for word in chosen])) if chosen else 0.0
    text = np.stack([vocabulary[word] for word in words])

    tones = np.tile(TONE, rng.integers(2, LENGTHS["audio"] // len(TONE) + 1))
    audio = (tones * sincere)[:, None] * tone

    frames = int(rng.integers(4, LENGTHS["vision"] + 1))
    faces = np.zeros(frames)
    start = rng.integers(0, frames - len(FACE) + 1)
    faces[start : start + len(FACE)] = FACE
    vision = (faces * sincere * expressive)[:, None] * face

    label = value * sincere + 0.3 * rng.standard_normal()
    clip: dict[str, Any] = {"raw_text": " ".join(words), "label": np.clip(np.round(label * 5) / 5, -3, 3)}
    missing = rng.random(3) < 0.05
    for modality, clean, absent in zip(MODALITIES, (text, audio, vision), missing, strict=True):
        noisy = clean + 0.2 * rng.standard_normal(clean.shape)
        clip[modality] = noisy[:0] if absent and not missing.all() else noisy
    return clip
