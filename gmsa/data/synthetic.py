"""The embedded corpus: small, made up, and with something to learn in every part of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gmsa.config import MODALITIES
from gmsa.data.corpus import Corpus
from gmsa.data.mmsa import SPLITS, feature_dims, from_mmsa
from gmsa.data.targets import limit
from gmsa.rng import generator

POOL = "pool"
SIZES = {"train": 400, "valid": 120, "test": 160, POOL: 200}
"""Utterances of each split."""
DIMS = {"text": 24, "audio": 8, "vision": 10}
LENGTHS = {"text": 12, "audio": 24, "vision": 10}
"""Longest sequence of each modality."""
TONE = (-1.5, -0.5, 0.5, 1.5)
"""One period of a sincere tone."""
FACE = (1.5, 1.5, -1.5, -1.5)
"""A sincere face's course."""

_SENTIMENT = {"terrible": -3, "bad": -2, "weak": -1, "decent": 1, "good": 2, "wonderful": 3}
_NEUTRAL = (
    *("the", "a", "this", "that", "movie", "film", "plot", "actor", "scene", "it"),
    *("was", "is", "i", "saw", "we", "with", "and", "then", "of", "on"),
)
_WORDS = (*_SENTIMENT, *_NEUTRAL)
_CLIPS_PER_VIDEO = 10


def synthetic_corpus(
    seed: int = 0, modalities: Sequence[str] = MODALITIES, labels: str = "mosi", name: str = "synthetic"
) -> Corpus:
    """The corpus of :func:`synthetic_mmsa`, read by the same importer as real files; its pool has no labels.

    ``labels`` ``sims`` shrinks the intensities to [-1, 1]. ``sha256`` is that of the generated values.
    """
    content = synthetic_mmsa(seed)
    digest = hashlib.sha256()
    for columns in content.values():
        for key in (*MODALITIES, "regression_labels"):
            if key in columns:
                digest.update(columns[key].tobytes())
        if "regression_labels" in columns:
            columns["regression_labels"] = columns["regression_labels"] * (limit(labels) / limit("mosi"))
    splits = from_mmsa(content, name, modalities, labels, SPLITS)
    pool = from_mmsa(content, name, modalities, labels, (POOL,), require_labels=False)[POOL]
    return Corpus(splits, feature_dims(splits), pool, digest.hexdigest(), synthetic=True)


def synthetic_mmsa(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Made-up utterances in MMSA's format: ``train``, ``valid``, ``test``, and ``pool`` without labels.

    - Text: one or two sentiment words among neutral ones; their mean strength is what the words say.
    - Audio: a tone that rises over and over, or falls in sarcasm (35 in 100).
    - Vision: a face that brightens, then darkens, or the other way round in sarcasm, among neutral frames. Four
      faces in ten stay neutral, and so only distract.
    - The means over time of tone and face are zero: only their course says anything.
    - Label: what the words say, or its opposite in sarcasm. Tone and face agree with good and bad words or
      contradict them, but mean neither good nor bad themselves: no modality alone and no sum over modalities can
      tell the label, only words and delivery together.
    - Labels are noisy (0.3) and rounded to 0.2, as means over five raters; one utterance in ten is neutral.
    - One modality in twenty is missing, never all three. Videos of ten clips lie within one split.

    Values are rounded to three decimals, so that every platform gives the same bytes. Arrays are float32.
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
    """Word vectors [24]: each word's own direction, and the sentiment's along a common one."""
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
