"""What a training step learns from: utterances with labels or pseudo-labels, and their batches."""

# B utterances, K classes
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmsa.config import Config
from gmsa.data import NUM_CLASSES, Utterance, hide_modalities, to_class
from gmsa.graph import GraphBatch, collate
from gmsa.rng import generator

WINDOW = 16
"""Batches whose utterances are sorted together by length: more pads less and shuffles less."""


@dataclass(frozen=True, eq=False)
class Example:
    """An utterance with what a model should say of it."""

    utterance: Utterance
    value: float
    """Sentiment intensity; NaN where only the classes are known, as for the paper's pseudo-labels."""
    classes: Tensor
    """Class probabilities ``[K]``; a label gives one 1."""


class Targets(NamedTuple):
    """Targets of B examples."""

    value: Tensor
    """Sentiment intensity ``[B]``; NaN where only the classes are known."""
    classes: Tensor
    """Class probabilities ``[B, K]``."""

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return Targets(*(t.to(device, non_blocking=True) for t in self))


def labeled_examples(utterances: Sequence[Utterance], scheme: str) -> list[Example]:
    """Examples of labeled utterances on the label scale ``scheme``."""
    labels = torch.tensor([u.label for u in utterances], dtype=torch.float32)
    classes = torch.eye(NUM_CLASSES)[to_class(labels, scheme)]
    return [Example(u, y, c) for u, y, c in zip(utterances, labels.tolist(), classes, strict=True)]


def buckets(lengths: Sequence[int], batch_size: int, *seed: int | str) -> list[list[int]]:
    """Shuffled batches of indices whose lengths are alike, so that little is padding.

    The order is a pure function of ``seed``. Every index stands in exactly one batch.
    """
    rng = generator(*seed, "batches")
    order = rng.permutation(len(lengths))
    size = np.asarray(lengths)
    step = batch_size * WINDOW
    batches = []
    for start in range(0, len(order), step):
        window = order[start : start + step]
        window = window[np.argsort(size[window], kind="stable")]
        batches += [window[i : i + batch_size].tolist() for i in range(0, len(window), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def training_batches(
    examples: Sequence[Example], config: Config, *seed: int | str
) -> Iterator[tuple[GraphBatch, Targets]]:
    """One epoch of batches; hidden modalities and order are pure functions of ``seed`` and utterance id."""
    rates = asdict(config.model.modality_dropout)
    for indices in buckets([_steps(e.utterance) for e in examples], config.optim.batch_size, *seed):
        chosen = [examples[i] for i in indices]
        utterances = [e.utterance for e in chosen]
        if any(rates.values()):
            utterances = [hide_modalities(u, rates, generator(*seed, "hide", u.id)) for u in utterances]
        targets = Targets(torch.tensor([e.value for e in chosen]), torch.stack([e.classes for e in chosen]))
        yield collate(utterances, config.graph, config.model.strides), targets


def scoring_batches(utterances: Sequence[Utterance], config: Config) -> Iterator[tuple[list[int], GraphBatch]]:
    """All utterances, sorted by length, with their places in ``utterances``: the same batches every time."""
    order = sorted(range(len(utterances)), key=lambda i: _steps(utterances[i]))
    for start in range(0, len(order), config.optim.batch_size):
        indices = order[start : start + config.optim.batch_size]
        yield indices, collate([utterances[i] for i in indices], config.graph, config.model.strides)


def _steps(utterance: Utterance) -> int:
    return sum(map(len, utterance.features.values()))
