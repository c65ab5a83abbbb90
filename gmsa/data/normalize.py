"""z-normalization by what the training split shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gmsa.data.features import change
from gmsa.data.utterance import Utterance


class Normalizer:
    r"""Brings each feature to mean 0 and standard deviation 1: :math:`\mathrm{clip}((x - \mu) / \sigma, \pm c)`.

    The statistics (float64) are those of the observed frames of the utterances that it was fitted on: padding and
    missing modalities do not count. A feature that was constant there becomes 0, everywhere.
    """

    def __init__(self, means: Mapping[str, Tensor], stds: Mapping[str, Tensor], clip: float) -> None:
        """Takes per modality the means and standard deviations ``[D_m]``; a deviation of 0 means constant."""
        self.means, self.stds, self.clip = dict(means), dict(stds), clip

    @classmethod
    def fit(cls, utterances: Sequence[Utterance], modalities: Iterable[str], clip: float) -> Normalizer:
        """Statistics of the given utterances, of those modalities that they have.

        A modality that no utterance shows gets mean 0 and standard deviation 1. ``clip`` is in standard deviations.
        """
        means, stds = {}, {}
        for modality in modalities:
            having = [u for u in utterances if modality in u.features]
            if having:
                means[modality], stds[modality] = _statistics(having, modality)
        return cls(means, stds, clip)

    def apply(self, utterance: Utterance) -> Utterance:
        """The utterance with its features normalized, as float32; modalities not fitted stay as they are."""
        features, withheld = change(utterance.features, self._scores), change(utterance.withheld, self._scores)
        return dataclasses.replace(utterance, features=features, withheld=withheld)

    def _scores(self, modality: str, sequence: Tensor) -> Tensor:
        if modality not in self.means:
            return sequence
        mean, std = self.means[modality], self.stds[modality]
        scores = (sequence.double() - mean) / std
        return torch.where(std > 0, scores.clamp(-self.clip, self.clip), 0.0).float()

    def state(self) -> dict[str, Tensor]:
        """Everything that :meth:`from_state` needs, as float64 tensors for safetensors."""
        tensors = {"clip": torch.tensor(self.clip, dtype=torch.float64)}
        for modality in self.means:
            tensors[f"{modality}.mean"] = self.means[modality]
            tensors[f"{modality}.std"] = self.stds[modality]
        return tensors

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Normalizer:
        """The normalizer that gave this state; results are bitwise the same."""
        means = {key.removesuffix(".mean"): value for key, value in state.items() if key.endswith(".mean")}
        stds = {modality: state[f"{modality}.std"] for modality in means}
        return cls(means, stds, state["clip"].item())


def _statistics(utterances: Sequence[Utterance], modality: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D] over all frames of a modality, in two passes that hold a sequence at a time."""
    dim = utterances[0].features[modality].shape[1]
    observed = [u for u in utterances if u.lengths[modality]]
    if not observed:
        return torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64)
    count = sum(u.lengths[modality] for u in observed)
    total, squares = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    low, high = torch.full((dim,), torch.inf), torch.full((dim,), -torch.inf)
    for utterance in observed:
        sequence = utterance.features[modality]
        total += sequence.double().sum(0)
        low, high = torch.minimum(low, sequence.amin(0)), torch.maximum(high, sequence.amax(0))
    mean = total / count
    for utterance in observed:
        squares += (utterance.features[modality].double() - mean).square().sum(0)
    # Rounding gives a constant feature a tiny deviation, by which its rounding error would be scaled up.
    return mean, torch.where(low == high, 0.0, (squares / count).sqrt())
