"""Training examples: utterances with labels or pseudo-labels as targets."""

# B utterances, K classes
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmsa.data import Target, Utterance
from gmsa.data.lazy import Lazy, Utterances, joined, labels_of, taken
from gmsa.data.lazy.joined import Joined
from gmsa.graph import GraphBatch

_NONE: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Example:
    """An utterance with its training targets; without targets it is context in the graph of its video."""

    utterance: Utterance
    value: float = math.nan
    """Intensity on the model's scale (:meth:`~gmsa.data.Target.to_model`); NaN where only the classes are known, as for
    the paper's pseudo-labels, and where the target is one of K classes."""
    classes: Tensor | None = None
    """Class probabilities ``[K]``, one-hot for a label; None where nothing is known."""
    pseudo: bool = False
    """Whether the classes are a pseudo-label, whose loss ``self_training.weight`` weighs. Of an intensity, every
    example without a value is one."""


class Targets(NamedTuple):
    """Targets of B examples."""

    value: Tensor
    """Intensity ``[B]``; NaN where only the classes are known."""
    classes: Tensor
    """Class probabilities ``[B, K]``."""
    hidden: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({})
    """Per modality, the indices of the examples whose features are to be reconstructed ``[R]``, and the means of their
    features over the steps ``[R, D_m]``; ``[R, 0]`` where a teacher's states are the targets."""
    full_view: GraphBatch | None = None
    """The examples' batch without ``model.modality_dropout``, for a teacher."""
    pseudo: Tensor | None = None
    """Whether the classes are a pseudo-label ``[B]``; None: of none."""
    unimodal: Mapping[str, Tensor] = _NONE
    """Per modality, its own labels ``[B]``, intensities on the model's scale or numbers of classes; NaN where there is
    none, or the example lacks the modality."""
    uncovered: GraphBatch | None = None
    """The examples' batch with all that is to be reconstructed, without edges, for a teacher whose states are the
    targets."""

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same targets with each tensor changed, always in the same order."""
        hidden = {m: (change(rows), change(features)) for m, (rows, features) in self.hidden.items()}
        full_view, uncovered = (None if b is None else b.map(change) for b in (self.full_view, self.uncovered))
        pseudo = None if self.pseudo is None else change(self.pseudo)
        unimodal = {m: change(labels) for m, labels in self.unimodal.items()}
        return Targets(change(self.value), change(self.classes), hidden, full_view, pseudo, unimodal, uncovered)


class Examples(Lazy[Example]):
    """Examples of lazy utterances, made when they are read.

    Args:
        utterances: N utterances.
        values: the intensity of each, float64 or float32 ``[N]``; None: there are none.
        classes: the number of each one's class ``[N]``, or probabilities ``[N, K]``; None: nothing is known.
        num_classes: K.
    """

    def __init__(
        self,
        utterances: Utterances,
        values: np.ndarray | None = None,
        classes: np.ndarray | None = None,
        num_classes: int = 0,
    ) -> None:
        self.utterances, self.values, self.classes, self.num_classes = utterances, values, classes, num_classes
        self._one_hot = torch.eye(num_classes).unbind()

    def __len__(self) -> int:
        return len(self.utterances)

    def make(self, index: int) -> Example:
        utterance, classes = self.utterances.make(index), self.classes
        value = math.nan if self.values is None else self.values.item(index)
        if classes is None:
            return Example(utterance, value)
        known = self._one_hot[classes.item(index)] if classes.ndim == 1 else torch.from_numpy(classes[index])
        return Example(utterance, value, known)

    def _part(self, rows: range) -> Sequence[Example]:
        index = np.array(rows, np.int64)
        part = taken(self.utterances, index)
        assert isinstance(part, Utterances)
        values, classes = (None if x is None else x[index] for x in (self.values, self.classes))
        return Examples(part, values, classes, self.num_classes)


def utterances_of(examples: Sequence[Example]) -> Sequence[Utterance]:
    """The utterances of examples, lazily if these are."""
    if isinstance(examples, Examples):
        return examples.utterances
    if isinstance(examples, Joined):
        return joined(*map(utterances_of, examples.parts))
    return [example.utterance for example in examples]


def plain_examples(utterances: Sequence[Utterance]) -> Sequence[Example]:
    """Examples without targets, lazily if the utterances are."""
    return Examples(utterances) if isinstance(utterances, Utterances) else [*map(Example, utterances)]


def labeled_examples(utterances: Sequence[Utterance], target: Target) -> Sequence[Example]:
    """Examples of labeled utterances, lazily if these are."""
    labels = torch.from_numpy(np.array(labels_of(utterances)))
    numbers = target.to_class(labels.float())
    values = (torch.full_like(labels, math.nan) if target.is_classes else target.to_model(labels)).float()
    if isinstance(utterances, Utterances):
        return Examples(utterances, values.numpy(), numbers.to(torch.int16).numpy(), target.num_classes)
    one_hot = torch.eye(target.num_classes).unbind()
    classes = (one_hot[c] for c in numbers.tolist())
    return [Example(u, v, c) for u, v, c in zip(utterances, values.tolist(), classes, strict=True)]


def collate_targets(
    examples: Sequence[Example],
    shown: Sequence[Utterance],
    target: Target,
    modalities: Sequence[str] = (),
    further: int = 0,
) -> Targets:
    """Targets of a batch of examples.

    Args:
        shown: their utterances as the model sees them.
        modalities: those whose own labels are wanted. Only labeled utterances have them: ``data.label_ratio``
            withholds the others.
        further: rows without targets after them.
    """
    blank = torch.zeros(target.num_classes)
    unimodal = {
        m: torch.tensor([_unimodal_label(e.utterance, u, m, target) for e, u in zip(examples, shown, strict=True)])
        for m in modalities
    }
    return Targets(
        torch.tensor([*(e.value for e in examples), *[math.nan] * further]),
        torch.stack([*(blank if e.classes is None else e.classes for e in examples), *[blank] * further]),
        pseudo=torch.tensor([*(e.pseudo for e in examples), *[False] * further]),
        unimodal=unimodal,
    )


def _unimodal_label(utterance: Utterance, shown: Utterance, modality: str, target: Target) -> float:
    if utterance.label is None or modality not in utterance.unimodal or not shown.lengths.get(modality):
        return math.nan
    label = utterance.unimodal[modality]
    return label if target.is_classes else float(target.to_model(label))


def class_weights(examples: Sequence[Example], target: Target) -> Tensor:
    r"""Weights of the K classes by which rare ones count as much as frequent ones.

    .. math:: w_c = \frac{n}{K' n_c}

    n labeled examples, :math:`n_c` of class c, :math:`K'` classes that occur: the mean weight of a labeled example is
    1, so that the loss keeps its size. A class that does not occur has weight 1.
    """
    labels = torch.from_numpy(labels_of(utterances_of(examples)))
    labels = labels[~labels.isnan()].float()
    counts = torch.bincount(target.to_class(labels), minlength=target.num_classes)
    there = counts > 0
    return torch.where(there, counts.sum() / (there.sum() * counts.clamp(min=1)), 1.0)
