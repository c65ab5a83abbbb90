"""Masks time steps and drops modalities of training batches; collects the features to reconstruct."""

# B utterances, K classes
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmsa.config import Config
from gmsa.config.presets import placed
from gmsa.data import Utterance, apply_missing, drop_modalities
from gmsa.rng import hashed_uniform, seeds_for


def mask_steps(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """The utterances without the steps that ``data.missing.train: frame_uniform`` masks, others in every epoch.

    Pseudo-labels and statistics are those of the unmasked utterances.
    """
    missing = config.data.missing.of("train")
    if missing.protocol != "frame_uniform" or not utterances:
        return utterances
    return apply_missing(utterances, missing, list(utterances[0].features), *seed)


def reconstruction_targets(
    shown: Sequence[Utterance], whole: Sequence[Utterance], config: Config
) -> dict[str, tuple[Tensor, Tensor]]:
    """The features of a batch to reconstruct, as :class:`Targets` has them: those of dropped modalities.

    With ``reconstruction.target: oracle`` also those of modalities that ``data.missing`` masks.

    Args:
        shown: the utterances as the model sees them.
        whole: the same utterances before modality dropout.
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


def modality_dropout(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """The utterances without the modalities that ``model.modality_dropout`` drops, a function of ``seed`` and id."""
    rates = {m: config.model.modality_dropout.of(m) for m in placed(config.named_modalities)}
    if not any(rates.values()):
        return utterances
    seeds = torch.tensor(seeds_for(*seed, "hide", each=(u.id for u in utterances)))[:, None]
    return drop_modalities(utterances, rates, hashed_uniform(seeds, torch.arange(len(rates) + 1)).numpy())
