"""What a training step hides: lost steps, dropped modalities, and what of them is to be reconstructed."""

# B utterances, K classes
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from gmsa.config import Config
from gmsa.data import Utterance, apply_missing, drop_modalities
from gmsa.rng import hashed_uniform, seeds_for


def lose_steps(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """Utterances in an epoch, without the steps that ``data.missing.train: frame_uniform`` takes away anew in each.

    Pseudo-labels and statistics are of the whole utterances.
    """
    missing = config.data.missing.of("train")
    if missing.protocol != "frame_uniform" or not utterances:
        return utterances
    return apply_missing(utterances, missing, list(utterances[0].features), *seed)


def _hidden(shown: Sequence[Utterance], whole: Sequence[Utterance], config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """What of a batch is to be reconstructed, as :class:`Targets` has it.

    That is what is there and dropped in this step; with ``reconstruction.target: oracle`` also what ``data.missing``
    masks.
    """
    oracle = config.reconstruction.target == "oracle"
    found = {}
    for modality in shown[0].features:
        rows, means = [], []
        for row, (seen, utterance) in enumerate(zip(shown, whole, strict=True)):
            known = utterance.features[modality]
            if oracle and not len(known):
                known = utterance.withheld.get(modality, known)
            if len(known) and not seen.lengths[modality]:
                rows.append(row)
                means.append(known.mean(0))
        if rows:
            found[modality] = torch.tensor(rows), torch.stack(means)
    return found


def _drop_modalities(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """Utterances in an epoch, each without the modalities that are hidden in it."""
    rates = asdict(config.model.modality_dropout)
    if not any(rates.values()):
        return utterances
    seeds = torch.tensor(seeds_for(*seed, "hide", each=(u.id for u in utterances)))[:, None]
    return drop_modalities(utterances, rates, hashed_uniform(seeds, torch.arange(len(rates) + 1)).numpy())
