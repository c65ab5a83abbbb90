"""Missing-modality protocols (``data.missing``) and modality dropout."""

# N utterances, M modalities
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from gmsa.config.groups.missing import Missing, joined
from gmsa.config.presets import placed
from gmsa.data.features import keep_steps, remove_modalities, select
from gmsa.data.lazy import Utterances, ids_of, lengths_of, videos_of
from gmsa.data.lazy.sequences import Changed
from gmsa.data.utterance import Utterance
from gmsa.errors import ConfigError
from gmsa.rng import hashed_uniform, seeds_for


def drop_modalities(utterances: Sequence[Utterance], rates: Mapping[str, float], draws: np.ndarray) -> list[Utterance]:
    """Modality dropout: drops each present modality of each utterance with its own probability, but never all.

    Args:
        utterances: N utterances.
        rates: probability of each modality.
        draws: uniform numbers in [0, 1) ``[N, M + 1]``: one per modality, in the order of ``rates``, and one that
            selects the modality that stays if all would be dropped.
    """
    present = np.array([[u.lengths.get(m, 0) for m in rates] for u in utterances]) > 0
    dropped = present & (draws[:, :-1] < list(rates.values()))
    for row in np.flatnonzero(dropped.any(1) & (dropped.sum(1) == present.sum(1))):
        candidates = np.flatnonzero(present[row])
        dropped[row, candidates[int(draws[row, -1] * len(candidates))]] = False
    codes = (dropped @ 2 ** np.arange(len(rates))).tolist()
    subsets = {code: frozenset(name for i, name in enumerate(rates) if code >> i & 1) for code in set(codes)}
    return [u.drop(subsets[code]) if code else u for u, code in zip(utterances, codes, strict=True)]


def apply_missing(
    utterances: Sequence[Utterance], missing: Missing, modalities: Sequence[str], *seed: int | str
) -> Sequence[Utterance]:
    """Masks modalities or steps by a protocol: a pure function of (seed, utterance id, protocol, rate).

    With the unit ``dialogue``, of (seed, dialogue, protocol, rate): all utterances of a dialogue have the same mask.
    An utterance that has none of the modalities that its dialogue keeps then keeps one of its own (``eta``,
    ``sample``).

    Draws do not depend on the rate, so a higher rate masks all that a lower rate masks (``eta``, ``sample``,
    ``frame``). ``eta`` and ``sample`` keep at least one of the modalities that an utterance has; ``fixed`` and the
    frame protocols may keep none. A masked step is removed, and later steps move up (TFR-Net replaces it by zeros).
    The features of a fully masked modality move to :attr:`~gmsa.data.Utterance.withheld`.

    Args:
        utterances: what to mask; the originals stay as they are.
        missing: protocol with its rate or subset, and its unit.
        modalities: all M modalities of the data set.
        seed: parts of the seed, such as ``(0, "test")``.

    Raises:
        ConfigError: the protocol cannot reach the rate with M modalities.

    >>> from gmsa.config.groups.missing import Missing
    >>> from gmsa.data import synthetic_corpus
    >>> test = synthetic_corpus().splits["test"]
    >>> masked = apply_missing(test, Missing("fixed", left=("text", "audio")), ["text", "audio", "vision"], 0)
    >>> any(utterance.present["vision"] for utterance in masked)
    False
    >>> masked[0].features["text"] is test[0].features["text"]
    True
    """
    if missing.protocol == "none" or not utterances:
        return utterances if isinstance(utterances, Utterances) else list(utterances)
    modalities = [m for m in placed(modalities) if m in modalities]  # in a fixed order, since draws go by position
    whole = missing.unit == "dialogue"
    drawing = videos_of(utterances) if whole else ids_of(utterances)
    seeds = torch.tensor(seeds_for(*seed, "missing", missing.protocol, each=drawing))
    if missing.protocol in ("frame", "frame_uniform"):
        return [_mask_steps(u, missing, modalities, s) for u, s in zip(utterances, seeds, strict=True)]
    present = np.stack([lengths_of(utterances, m) for m in modalities], axis=1) > 0
    draws = hashed_uniform(seeds[:, None], torch.arange(len(modalities) + 1)).numpy()
    # What one utterance of a dialogue lacks must not change the mask of the others.
    kept = _KEPT[missing.protocol](np.ones_like(present) if whole else present, missing, modalities, draws)
    if whole and missing.protocol != "fixed":
        kept = np.where((kept & present).any(1, keepdims=True), kept, _drawn(present, draws[:, -1]))
    if isinstance(utterances, Utterances):
        return _Masked(utterances, tuple(modalities), present & ~kept)
    names = np.array(modalities)
    return [
        _mask_modalities(u, frozenset(names[masked].tolist())) if masked.any() else u
        for u, masked in zip(utterances, present & ~kept, strict=True)
    ]


class _Masked(Changed):
    """The utterances of a lazy sequence without masked modalities, flags ``[N, M]``."""

    def __init__(self, source: Utterances, names: tuple[str, ...], masked: np.ndarray) -> None:
        super().__init__(source, _as_it_is)
        self.names, self.masked = names, masked

    def make(self, index: int) -> Utterance:
        return self._mask(self.source.make(index), self.masked[index])

    def __iter__(self) -> Iterator[Utterance]:
        return map(self._mask, self.source, self.masked)

    def _mask(self, utterance: Utterance, masked: np.ndarray) -> Utterance:
        hidden = frozenset(name for name, gone in zip(self.names, masked.tolist(), strict=True) if gone)
        return _mask_modalities(utterance, hidden) if hidden else utterance

    def lengths(self, modality: str) -> np.ndarray:
        found = self.source.lengths(modality)
        return np.where(self.masked[:, self.names.index(modality)], 0, found) if modality in self.names else found


def _as_it_is(utterance: Utterance) -> Utterance:
    return utterance


def _keep_eta(present: np.ndarray, missing: Missing, modalities: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """Keeps one modality, and each other with probability (M (1 - eta) - 1) / (M - 1) (GCNet)."""
    count = len(modalities)
    if missing.rate > 1 - 1 / count + 0.005:  # 0.67 is meant as two thirds
        raise ConfigError(
            f"eta:{missing.rate:g} cannot be reached with {count} modalities, of which one always stays; "
            f"the most is eta:{1 - 1 / count:.4g}"
        )
    others = max(0.0, count * (1 - missing.rate) - 1) / max(1, count - 1)
    return (draws[:, :-1] < others) | _drawn(present, draws[:, -1])


def _keep_sample(present: np.ndarray, missing: Missing, modalities: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """Keeps a random proper, non-empty subset in a share of the utterances."""
    count = len(modalities)
    subsets = np.array([[i in s for i in range(count)] for n in range(1, count) for s in combinations(range(count), n)])
    if not len(subsets):
        raise ConfigError("'sample' needs two modalities or more, of which one stays")
    kept = subsets[(draws[:, 1] * len(subsets)).astype(int)]
    kept = np.where((kept & present).any(1)[:, None], kept, _drawn(present, draws[:, -1]))
    return kept | (draws[:, :1] >= missing.rate)


def _keep_fixed(present: np.ndarray, missing: Missing, modalities: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """Keeps the same modalities in all utterances."""
    return np.broadcast_to([m in missing.left for m in modalities], present.shape)


_KEPT = {"eta": _keep_eta, "sample": _keep_sample, "fixed": _keep_fixed}


def _drawn(present: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Selects one of the present modalities of each utterance uniformly, as flags ``[N, M]``."""
    rank = np.floor(draws * present.sum(1))[:, None]
    return present & (np.cumsum(present, 1) - 1 == rank)


def _mask_steps(utterance: Utterance, missing: Missing, modalities: Sequence[str], seed: torch.Tensor) -> Utterance:
    kept = {}
    for modality in modalities:
        length = utterance.lengths.get(modality, 0)
        if not length:
            continue
        number, rate = placed(modalities).index(modality), missing.rate
        if missing.protocol == "frame_uniform":
            rate = float(hashed_uniform(seed, torch.tensor(number), torch.tensor(-2)))
        kept[modality] = hashed_uniform(seed, torch.tensor(number), torch.arange(length)) >= rate
    withheld = _withheld(utterance, [m for m, steps in kept.items() if not steps.any()])
    times = keep_steps(utterance.times, {m: steps for m, steps in kept.items() if m in utterance.times})
    return replace(utterance, features=keep_steps(utterance.features, kept), withheld=withheld, times=times)


def _mask_modalities(utterance: Utterance, masked: frozenset[str]) -> Utterance:
    features = remove_modalities(utterance.features, masked)
    return replace(utterance, features=features, withheld=_withheld(utterance, masked))


def _withheld(utterance: Utterance, masked: Collection[str]) -> Mapping[str, torch.Tensor]:
    """The withheld features of an utterance, with those of the modalities that are now fully masked."""
    found = select(utterance.features, masked)
    return {**utterance.withheld, **found} if utterance.withheld else found


def describe_missing(
    before: Sequence[Utterance], after: Sequence[Utterance], missing: Missing, modalities: Sequence[str]
) -> dict[str, Any]:
    """Describes missing and masked modalities for a run's summary.

    ``realized`` is the share of (utterance, modality) pairs that are missing or masked; for the frame protocols, the
    share of masked steps. ``lacking`` is the share of utterances without each modality, ``with_text`` the share of
    utterances with text.

    Args:
        before: the utterances as read.
        after: the same utterances after :func:`apply_missing`.
        missing: protocol with its rate or subset.
        modalities: all modalities of the data set.

    Returns:
        ``protocol``, ``left`` (for ``fixed``), ``asked`` (if the protocol takes a rate), ``unit`` (of masks of whole
        dialogues), ``realized``, ``with_text`` and ``lacking`` (by modality).
    """
    steps = np.array([[lengths_of(us, m) for m in modalities] for us in (before, after)])
    lacking = np.ascontiguousarray(steps[1].T == 0).mean(0) if len(after) else np.zeros(len(modalities))
    found: dict[str, Any] = {"protocol": missing.protocol}
    if missing.protocol == "fixed":
        found["left"] = joined(missing.left, modalities)
    if missing.protocol in ("eta", "sample", "frame"):
        found["asked"] = missing.rate
    if missing.unit != "utterance" and missing.protocol not in ("none", "fixed"):
        found["unit"] = missing.unit
    by_step = missing.protocol in ("frame", "frame_uniform")
    found["realized"] = float(1 - steps[1].sum() / max(1, steps[0].sum())) if by_step else float(lacking.mean())
    by_name = dict(zip(modalities, lacking.tolist(), strict=True))
    return found | {"with_text": 1 - by_name.get("text", 1.0), "lacking": by_name}
