"""Made-up dialogues: the answer of an utterance lies in an earlier one, and its own features say nothing about it."""

# U utterances, D features
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from gmsa.config import MODALITIES
from gmsa.config.presets import TEXT
from gmsa.data.corpus import Corpus
from gmsa.data.mmsa import feature_dims, from_mmsa
from gmsa.data.synthetic import scaled
from gmsa.data.targets import Target
from gmsa.errors import DataError
from gmsa.rng import generator

Rule = Literal["two_back", "speaker"]
RULES: tuple[Rule, ...] = ("two_back", "speaker")
EMOTIONS = {"neutral": 0.0, "anger": -3.0, "sadness": -1.0, "hope": 1.0, "joy": 3.0}
"""The classes, in the order of their numbers, and the intensity of each."""
SIZES = {"train": 80, "valid": 24, "test": 24}
"""Dialogues of each split."""
TURNS = (12, 16)
"""Utterances of a dialogue, at least and at most."""
SPEAKERS = ("A", "B", "C")
"""Speakers of a dialogue: two or three of them."""
DIMS = dict(zip(MODALITIES, (16, 8, 8), strict=True))
LENGTHS = dict(zip(MODALITIES, ((3, 6), (6, 10), (4, 8)), strict=True))
"""Steps of a sequence, at least and at most."""

_CUES = ("whatever", "damn", "alas", "maybe", "hurray")
"""The word that shows each class."""
_NEUTRAL = ("we", "the", "then", "it", "they", "was", "there", "and", "so", "now")


def synthetic_dialogues(
    rule: Rule = "two_back",
    seed: int = 0,
    modalities: Sequence[str] = MODALITIES,
    target: Target | None = None,
    sizes: Mapping[str, int] = SIZES,
) -> Corpus:
    """Generates the corpus of :func:`synthetic_dialogues_mmsa`, read by the same code as real files.

    Args:
        rule: where the answer lies: ``two_back`` or ``speaker``.
        seed: seed of the generator (default: 0).
        modalities: modalities to read (default: all three).
        target: scales the intensities to its range, or takes the five classes (default: intensities in [-3, 3]).
        sizes: dialogues of each split (default: 80, 24 and 24).

    Raises:
        DataError: the target has other than five classes, or the rule is unknown.

    >>> corpus = synthetic_dialogues("speaker")
    >>> first = corpus.splits["train"][0]
    >>> first.video, first.speaker in ("A", "B", "C"), first.label
    ('train000', True, 0.0)
    """
    target = Target() if target is None else target
    if target.is_classes and not target.classes:
        target = replace(target, classes=tuple(EMOTIONS))
    if target.is_classes and target.num_classes != len(EMOTIONS):
        raise DataError(
            f"the synthetic dialogues have {len(EMOTIONS)} classes ({', '.join(EMOTIONS)}), the target "
            f"{target.num_classes}; leave target.classes and target.preset out"
        )
    content = synthetic_dialogues_mmsa(rule, seed, sizes)
    digest = hashlib.sha256()
    for columns in content.values():
        for key in (*MODALITIES, "regression_labels"):
            digest.update(columns[key].tobytes())
        digest.update("".join(columns["speaker"]).encode())
        named, intensities = columns.pop("emotion"), columns.pop("regression_labels")
        if target.is_classes:
            columns["emotion"] = [target.classes[list(EMOTIONS).index(name)] for name in named]
        else:
            columns["regression_labels"] = scaled(intensities, target)
    splits = from_mmsa(content, f"synthetic_{rule}", modalities, target, tuple(content))
    return Corpus(splits, feature_dims(splits), [], digest.hexdigest(), target, synthetic=True)


def synthetic_dialogues_mmsa(
    rule: Rule = "two_back", seed: int = 0, sizes: Mapping[str, int] = SIZES
) -> dict[str, dict[str, Any]]:
    """Generates dialogues in MMSA's format, with the keys ``speaker`` and ``emotion``.

    - Each utterance shows one of five cues, drawn for itself, in all modalities: a word among neutral ones, and a
      direction of the audio's and the vision's features among noise.
    - ``two_back``: the class of an utterance is the cue of the utterance two before it.
    - ``speaker``: it is the cue of the same speaker's last utterance. Two or three speakers take turns at random, and
      no feature shows who speaks: the last turn is one to many utterances before, at no fixed distance.
    - An utterance without such an earlier one, such as the first, is neutral.
    - Cues of the neutral class are rarer by as much as these, so that each class has about a fifth of the labels.
      Without context nothing beats that share, nor half of the signs of intensities other than 0.

    Values are float32 and rounded to three decimals, so that every platform gives the same bytes.

    Raises:
        DataError: the rule is unknown.
    """
    if rule not in RULES:
        raise DataError(f"the synthetic dialogues have the rules {' and '.join(RULES)} (got {rule!r}); choose one")
    rng = generator(seed, "synthetic dialogues", rule)
    mean_turns = sum(TURNS) / 2
    first = (2 if rule == "two_back" else 2.5) / mean_turns
    neutral = (1 / len(EMOTIONS) - first) / (1 - first)
    shares = [neutral, *[(1 - neutral) / (len(EMOTIONS) - 1)] * (len(EMOTIONS) - 1)]
    directions = {modality: _hadamard(dim)[1:] / 2 for modality, dim in DIMS.items()}
    content = {}
    for split, count in sizes.items():
        dialogues = [_dialogue(rng, rule, shares) for _ in range(count)]
        turns = [turn for dialogue in dialogues for turn in dialogue]
        ids = [f"{split}{d:03d}$_${i}" for d, dialogue in enumerate(dialogues) for i in range(len(dialogue))]
        columns: dict[str, Any] = {"id": ids, "speaker": [speaker for speaker, _, _ in turns], "raw_text": []}
        for modality, (least, most) in LENGTHS.items():
            lengths = rng.integers(least, most + 1, len(turns))
            features = np.zeros((len(turns), most, DIMS[modality]), np.float32)
            for values, steps, (_, cue, _) in zip(features, lengths, turns, strict=True):
                rows = directions[modality]
                if modality == TEXT:
                    said = rng.integers(len(_CUES), len(rows), steps)
                    said[rng.integers(steps)] = cue
                    columns["raw_text"].append(" ".join((*_CUES, *_NEUTRAL)[word] for word in said))
                    clean, noise = rows[said], 0.1
                else:
                    clean, noise = rows[cue], 0.3
                values[:steps] = np.round(clean + noise * rng.standard_normal((steps, DIMS[modality])), 3)
            columns[modality], columns[f"{modality}_lengths"] = features, lengths.tolist()
        names = list(EMOTIONS)
        columns["emotion"] = [names[label] for _, _, label in turns]
        columns["regression_labels"] = np.array([EMOTIONS[name] for name in columns["emotion"]], np.float32)
        content[split] = columns
    return content


def _dialogue(rng: np.random.Generator, rule: Rule, shares: Sequence[float]) -> list[tuple[str, int, int]]:
    """Speaker, cue and class of each utterance."""
    names = SPEAKERS[: rng.integers(2, len(SPEAKERS) + 1)]
    turns: list[tuple[str, int, int]] = []
    for i in range(rng.integers(TURNS[0], TURNS[1] + 1)):
        speaker, cue = str(rng.choice(names)), int(rng.choice(len(EMOTIONS), p=shares))
        if rule == "two_back":
            label = turns[i - 2][1] if i >= 2 else 0
        else:
            label = next((said for other, said, _ in reversed(turns) if other == speaker), 0)
        turns.append((speaker, cue, label))
    return turns


def _hadamard(size: int) -> np.ndarray:
    """Orthogonal rows of ones and minus ones [D, D] (Sylvester), for a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
