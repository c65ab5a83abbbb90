"""Masks time steps and words and drops modalities of training batches; collects the features to reconstruct."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gmsa.config import Config
from gmsa.config.presets import TEXT, placed
from gmsa.data import Utterance, apply_missing, drop_modalities
from gmsa.rng import hashed_uniform, seeds_for
from gmsa.text import texts_of


def mask_steps(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """The utterances without the steps that ``data.missing.train: frame_uniform`` masks, others in every epoch.

    Pseudo-labels and statistics are those of the unmasked utterances.
    """
    missing = config.data.missing.of("train")
    if missing.protocol != "frame_uniform" or not utterances:
        return utterances
    return apply_missing(utterances, missing, list(utterances[0].features), *seed)


def mask_piece(config: Config) -> int:
    """Number of the word piece by which the text encoder's tokenizer stands for a masked one."""
    texts = texts_of(config)
    assert texts is not None
    assert texts.pieces.mask is not None  # checked before training
    return texts.pieces.mask


def with_masked_pieces(numbers: Tensor, masked: Tensor, config: Config) -> Tensor:
    """Numbers of word pieces ``[L, P]`` with the mask piece in the place of those that are masked ``[L, P]``, or of all
    pieces of nodes that are ``[L, 1]``."""
    return numbers.masked_fill(masked & (numbers >= 0), float(mask_piece(config)))


def word_dropout(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """The utterances with the word pieces masked that ``text.dropout`` draws, a function of ``seed``, id and place.

    With ``text.nodes: words`` all pieces of a word are.
    """
    rate = config.text.dropout
    if not rate or not config.trains_text_encoder or not any(u.lengths.get(TEXT) for u in utterances):
        return utterances
    sizes = [u.lengths[TEXT] for u in utterances]
    seeds = torch.tensor(seeds_for(*seed, "words", each=(u.id for u in utterances)))
    numbers = torch.cat([u.features[TEXT] for u in utterances])
    if config.text.nodes == "transcript":
        place = torch.arange(numbers.shape[1])[None]  # a piece in the only node
    else:
        place = torch.cat([torch.arange(size) for size in sizes])[:, None]
    masked = hashed_uniform(seeds.repeat_interleave(torch.tensor(sizes))[:, None], place) < rate
    changed = with_masked_pieces(numbers, masked, config).split(sizes)
    return [
        replace(u, features={m: own if m == TEXT else u.features[m] for m in u.features}) if len(own) else u
        for u, own in zip(utterances, changed, strict=True)
    ]


def taught_modalities(config: Config, modalities: Iterable[str]) -> tuple[str, ...]:
    """The modalities of which a teacher's states are to be reconstructed, and not the mean of their features.

    With ``reconstruction.of: states`` all; else text, where the encoder that gives its features is trained.
    """
    if not config.reconstruction.weight:
        return ()
    of_states = config.reconstruction.of == "states"
    return tuple(m for m in modalities if of_states or (m == TEXT and config.trains_text_encoder))


def uncovered(utterances: Sequence[Utterance], config: Config) -> Sequence[Utterance]:
    """The utterances with all that may be reconstructed: with ``reconstruction.target: oracle``, also with the features
    that ``data.missing`` masks."""
    if config.reconstruction.target != "oracle":
        return utterances
    return [
        replace(u, features={m: u.withheld.get(m, x) if not len(x) else x for m, x in u.features.items()})
        if u.withheld
        else u
        for u in utterances
    ]


def reconstruction_targets(
    shown: Sequence[Utterance], whole: Sequence[Utterance], config: Config
) -> dict[str, tuple[Tensor, Tensor]]:
    """The features of a batch to reconstruct, as :class:`Targets` has them: those of what the model does not see.

    Args:
        shown: the utterances as the model sees them.
        whole: the same utterances :func:`uncovered`, before modality dropout.
    """
    taught, found = taught_modalities(config, shown[0].features), {}
    for modality in shown[0].features:
        pairs = zip(shown, whole, strict=True)
        rows = [i for i, (seen, u) in enumerate(pairs) if u.lengths[modality] and not seen.lengths[modality]]
        if rows and modality in taught:
            found[modality] = torch.tensor(rows), torch.zeros(len(rows), 0)
        elif rows:
            found[modality] = torch.tensor(rows), torch.stack([whole[i].features[modality].mean(0) for i in rows])
    return found


def modality_dropout(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """The utterances without the modalities that ``model.modality_dropout`` drops, a function of ``seed`` and id."""
    rates = {m: config.model.modality_dropout.of(m) for m in placed(config.named_modalities)}
    if not any(rates.values()):
        return utterances
    seeds = torch.tensor(seeds_for(*seed, "hide", each=(u.id for u in utterances)))[:, None]
    return drop_modalities(utterances, rates, hashed_uniform(seeds, torch.arange(len(rates) + 1)).numpy())
