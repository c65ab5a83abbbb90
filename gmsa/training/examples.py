"""Training examples: utterances with labels or pseudo-labels as targets."""

# B utterances, K classes
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from gmsa.data import INTENSITY_CLASSES, Target, Utterance
from gmsa.graph import GraphBatch

_NO_CLASSES = torch.zeros(INTENSITY_CLASSES)


@dataclass(frozen=True, eq=False)
class Example:
    """An utterance with its training targets; without targets it is context in the graph of its video."""

    utterance: Utterance
    value: float = math.nan
    """Sentiment intensity; NaN where only the classes are known, as for the paper's pseudo-labels."""
    classes: Tensor = field(default_factory=lambda: _NO_CLASSES)
    """Class probabilities ``[K]``, one-hot for a label; all 0 where nothing is known."""


class Targets(NamedTuple):
    """Targets of B examples."""

    value: Tensor
    """Sentiment intensity ``[B]``; NaN where only the classes are known."""
    classes: Tensor
    """Class probabilities ``[B, K]``."""
    hidden: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({})
    """Per modality, the indices of the examples whose features are to be reconstructed ``[R]``, and the means of their
    features over the steps ``[R, D_m]``."""

    full_view: GraphBatch | None = None
    """The examples' batch without ``model.modality_dropout``, for a teacher."""

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), lambda batch: batch.to(device))

    def pin_memory(self) -> Targets:
        """The same targets in page-locked memory."""
        return self._map(Tensor.pin_memory, GraphBatch.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor], move: Callable[[GraphBatch], GraphBatch]) -> Targets:
        hidden = {m: (change(rows), change(features)) for m, (rows, features) in self.hidden.items()}
        full_view = None if self.full_view is None else move(self.full_view)
        return Targets(change(self.value), change(self.classes), hidden, full_view)


def labeled_examples(utterances: Sequence[Utterance], target: Target) -> list[Example]:
    """Examples of labeled utterances."""
    labels = torch.tensor([u.label for u in utterances], dtype=torch.float32)
    classes = torch.eye(INTENSITY_CLASSES)[target.to_class(labels)]
    return [Example(u, y, c) for u, y, c in zip(utterances, labels.tolist(), classes, strict=True)]
