"""Modalities that are hidden on purpose."""

# N utterances, M modalities
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from gmsa.config.missing import LETTERS, MODALITIES, Missing
from gmsa.data.features import hide, keep_steps, select
from gmsa.data.utterance import Utterance
from gmsa.errors import ConfigError
from gmsa.rng import hashed_uniform, seeds_for


def hide_modalities(utterances: Sequence[Utterance], rates: Mapping[str, float], draws: np.ndarray) -> list[Utterance]:
    """Hides each present modality of each utterance with its own probability, but never all of them.

    Args:
        rates: per modality, the probability.
        draws: uniform numbers in [0, 1) ``[N, M + 1]``: for each modality of ``rates``, in their order, and one that
            decides which modality stays where all would go.
    """
    present = np.array([[u.lengths.get(m, 0) for m in rates] for u in utterances]) > 0
    hidden = present & (draws[:, :-1] < list(rates.values()))
    for row in np.flatnonzero(hidden.any(1) & (hidden.sum(1) == present.sum(1))):
        there = np.flatnonzero(present[row])
        hidden[row, there[int(draws[row, -1] * len(there))]] = False
    subsets = [frozenset(name for i, name in enumerate(rates) if code >> i & 1) for code in range(2 ** len(rates))]
    codes = (hidden @ 2 ** np.arange(len(rates))).tolist()
    return [u.without(subsets[code]) if code else u for u, code in zip(utterances, codes, strict=True)]


def apply_missing(
    utterances: Sequence[Utterance], missing: Missing, modalities: Sequence[str], *seed: int | str
) -> list[Utterance]:
    """The utterances without what a protocol hides: a pure function of (seed, utterance id, protocol, rate).

    Draws do not depend on the rate, so what a lower one hides, a higher one hides too (``eta``, ``sample``,
    ``frame``). A modality that the utterance lacks stays missing; ``eta`` and ``sample`` leave at least one of those
    that it has, ``fixed`` and the frame protocols may leave none. A step that is lost is not there, so those after it
    move up (TFR-Net puts zeros in its place). A modality of which nothing is left is kept in
    :attr:`~gmsa.data.Utterance.withheld`, for what may know it.

    Args:
        modalities: those of the data set, M in number.

    Raises:
        ConfigError: with so few modalities the protocol cannot reach the rate.
    """
    if missing.protocol == "none" or not utterances:
        return list(utterances)
    modalities = [m for m in MODALITIES if m in modalities]  # draws are by name, whatever the order in a config
    seeds = torch.tensor(seeds_for(*seed, "missing", missing.protocol, each=(u.id for u in utterances)))
    if missing.protocol in ("frame", "frame_uniform"):
        return [_lose_frames(u, missing, modalities, s) for u, s in zip(utterances, seeds, strict=True)]
    present = np.array([[u.lengths.get(m, 0) for m in modalities] for u in utterances]) > 0
    draws = hashed_uniform(seeds[:, None], torch.arange(len(modalities) + 1)).numpy()
    kept = _KEPT[missing.protocol](present, missing, modalities, draws)
    names = np.array(modalities)
    return [
        _hide(u, frozenset(names[gone].tolist())) if gone.any() else u
        for u, gone in zip(utterances, present & ~kept, strict=True)
    ]


def _keep_eta(present: np.ndarray, missing: Missing, modalities: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """One modality stays, each other with probability (M (1 - eta) - 1) / (M - 1) (GCNet)."""
    count = len(modalities)
    if missing.rate > 1 - 1 / count + 1e-9:
        raise ConfigError(
            f"eta:{missing.rate:g} cannot be reached with {count} modalities, of which one always stays; "
            f"the most is eta:{1 - 1 / count:.4g}"
        )
    others = (count * (1 - missing.rate) - 1) / max(1, count - 1)
    return (draws[:, :-1] < others) | _drawn(present, draws[:, -1])


def _keep_sample(present: np.ndarray, missing: Missing, modalities: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """A share of the utterances keeps a subset drawn from the proper, non-empty ones."""
    count = len(modalities)
    subsets = np.array([[i in s for i in range(count)] for n in range(1, count) for s in combinations(range(count), n)])
    if not len(subsets):
        raise ConfigError("'sample' needs two modalities or more, of which one stays")
    kept = subsets[(draws[:, 1] * len(subsets)).astype(int)]
    kept = np.where((kept & present).any(1)[:, None], kept, _drawn(present, draws[:, -1]))
    return kept | (draws[:, :1] >= missing.rate)


def _keep_fixed(present: np.ndarray, missing: Missing, modalities: Sequence[str], draws: np.ndarray) -> np.ndarray:
    left = {LETTERS[letter] for letter in missing.left}
    return np.broadcast_to([m in left for m in modalities], present.shape)


_KEPT = {"eta": _keep_eta, "sample": _keep_sample, "fixed": _keep_fixed}


def _drawn(present: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """One of the present modalities of each utterance, drawn uniformly ``[N, M]``."""
    rank = np.floor(draws * present.sum(1))[:, None]
    return present & (np.cumsum(present, 1) - 1 == rank)


def _lose_frames(utterance: Utterance, missing: Missing, modalities: Sequence[str], seed: torch.Tensor) -> Utterance:
    kept = {}
    for modality in modalities:
        length = utterance.lengths.get(modality, 0)
        if not length:
            continue
        number, rate = MODALITIES.index(modality), missing.rate
        if missing.protocol == "frame_uniform":
            rate = float(hashed_uniform(seed, torch.tensor(number), torch.tensor(-2)))
        kept[modality] = hashed_uniform(seed, torch.tensor(number), torch.arange(length)) >= rate
    withheld = _withheld(utterance, [m for m, steps in kept.items() if not steps.any()])
    return replace(utterance, features=keep_steps(utterance.features, kept), withheld=withheld)


def _hide(utterance: Utterance, hidden: frozenset[str]) -> Utterance:
    return replace(utterance, features=hide(utterance.features, hidden), withheld=_withheld(utterance, hidden))


def _withheld(utterance: Utterance, gone: Collection[str]) -> Mapping[str, torch.Tensor]:
    """What is kept from the model, with the modalities that now are ``gone``."""
    found = select(utterance.features, gone)
    return {**utterance.withheld, **found} if utterance.withheld else found


def describe_missing(
    before: Sequence[Utterance], after: Sequence[Utterance], missing: Missing, modalities: Sequence[str]
) -> dict[str, Any]:
    """What a result records of missing modalities.

    ``realized`` is the share of the missing (utterance, modality) pairs, those that the file lacks among them; for
    the frame protocols, the share of the steps that were lost. ``lacking`` is the share of the utterances that lack
    each modality, ``with_text`` of those that have text.

    Args:
        before: as the file has them.
        after: the same utterances without what the protocol hides.
    """
    steps = np.array([[[u.lengths.get(m, 0) for m in modalities] for u in us] for us in (before, after)])
    lacking = (steps[1].reshape(-1, len(modalities)) == 0).mean(0) if len(after) else np.zeros(len(modalities))
    found: dict[str, Any] = {"protocol": missing.protocol}
    if missing.protocol == "fixed":
        found["left"] = missing.left
    if missing.protocol in ("eta", "sample", "frame"):
        found["asked"] = missing.rate
    by_step = missing.protocol in ("frame", "frame_uniform")
    found["realized"] = float(1 - steps[1].sum() / max(1, steps[0].sum())) if by_step else float(lacking.mean())
    by_name = dict(zip(modalities, lacking.tolist(), strict=True))
    return found | {"with_text": 1 - by_name.get("text", 1.0), "lacking": by_name}
