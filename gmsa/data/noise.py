"""Noise on features: how a model fares with worse recordings, beside missing modalities."""

# L steps, D features
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gmsa.data.features import change_features
from gmsa.data.utterance import Utterance
from gmsa.errors import ConfigError, listed, nearest, shown
from gmsa.rng import hashed_uniform, seeds_for

LIMIT = 100.0
"""Most and, negated, fewest decibels: beyond them either the noise or the features vanish in float32."""


def parse_noise(spec: str, modalities: Sequence[str], key: str = "--noise") -> dict[str, float]:
    """Reads ``text:10dB,eeg:0dB`` or ``all:10dB``: signal-to-noise ratios in decibels by modality.

    Args:
        modalities: those of the data, which ``all`` stands for.
        key: the option or setting, for messages.

    Raises:
        ConfigError: a part is not of this form, names no modality of the data or one twice, or is out of range.

    >>> parse_noise("eeg:10dB, pose:-5dB", ["text", "eeg", "pose"])
    {'eeg': 10.0, 'pose': -5.0}
    >>> parse_noise("all:0dB", ["text", "eeg"])
    {'text': 0.0, 'eeg': 0.0}
    """
    found: dict[str, float] = {}
    for part in spec.split(","):
        name, colon, value = (piece.strip() for piece in part.rpartition(":"))
        if not colon or not name:
            raise ConfigError(f"'{key}' takes a modality and decibels, as text:10dB or all:10dB (got {shown(spec)})")
        names = list(modalities) if name == "all" else [name]
        for modality in names:
            if modality not in modalities:
                known = ("all", *modalities)
                raise ConfigError(
                    f"'{key}': the data have no modality {shown(name)}, they have {listed(modalities)}"
                    f"{nearest(name, known)}"
                )
            if modality in found:
                raise ConfigError(f"'{key}': '{modality}' is named twice; name each modality once (got {shown(spec)})")
            found[modality] = _decibels(value, key, part.strip())
    return found


def _decibels(value: str, key: str, part: str) -> float:
    try:
        decibels = float(value.lower().removesuffix("db"))
    except ValueError:
        decibels = math.nan
    if not abs(decibels) <= LIMIT:
        raise ConfigError(
            f"'{key}' takes decibels from {-LIMIT:g} to {LIMIT:g}, as text:10dB; fewer are more noise "
            f"(got {shown(part)})"
        )
    return decibels


def signal_power(utterances: Iterable[Utterance], modalities: Iterable[str]) -> dict[str, float]:
    """Mean square of the features of each modality, over the steps of all utterances that have it; else 0.

    It reads all features once; the order of the utterances does not change it.

    >>> import torch
    >>> signal_power([Utterance("a", {"audio": torch.tensor([[3.0, 4.0]])})], ["audio"])
    {'audio': 12.5}
    """
    names = list(modalities)
    sums: dict[str, list[float]] = {name: [] for name in names}
    counts = dict.fromkeys(names, 0)
    for utterance in utterances:
        for name in names:
            if utterance.lengths.get(name, 0):
                x = utterance.features[name].double()
                sums[name].append(float((x * x).sum()))
                counts[name] += x.numel()
    return {name: math.fsum(sums[name]) / max(1, counts[name]) for name in names}


def add_noise(
    utterances: Sequence[Utterance],
    noise: Mapping[str, float],
    *seed: int | str,
    power: Mapping[str, float] | None = None,
) -> list[Utterance]:
    r"""Adds white Gaussian noise to features at a signal-to-noise ratio.

    It is a pure function of (seed, utterance id, modality):

    .. math::
        x'_{ld} = x_{ld} + \sqrt{P_m \, 10^{-s_m / 10}} \; \epsilon_{ld}, \qquad \epsilon_{ld} \sim N(0, 1)

    for a modality m of power :math:`P_m`, the mean square of its features, at :math:`s_m` decibels. The power is one
    number for all features of a modality, so that their ratios are those of normalized features only where these are
    normalized. Draws do not depend on the ratio: less of it scales the same noise up. A missing modality stays missing.

    Args:
        utterances: as the model gets them, normalized; the originals stay as they are.
        noise: decibels by modality, as :func:`parse_noise` returns them; other modalities stay as they are.
        seed: parts of the seed, such as ``(0, "test")``.
        power: :func:`signal_power` of other utterances, such as the training split; by default of these.

    Raises:
        ConfigError: no utterance has one of the modalities, or all of its features are 0.

    >>> from gmsa.data import synthetic_corpus
    >>> test = synthetic_corpus().splits["test"]
    >>> noisy = add_noise(test, {"audio": 10.0}, 0)
    >>> noisy[0].features["text"] is test[0].features["text"]
    True
    >>> bool((noisy[0].features["audio"] != test[0].features["audio"]).all())
    True
    """
    if not noise or not utterances:
        return list(utterances)
    for name in noise:
        if not any(utterance.lengths.get(name, 0) for utterance in utterances):
            known = dict.fromkeys(m for u in utterances for m, length in u.lengths.items() if length)
            raise ConfigError(f"there is no '{name}' to add noise to: no utterance has it; they have {listed(known)}")
    powers = signal_power(utterances, noise) if power is None else power
    silent = [name for name in noise if not powers[name] > 0]
    if silent:
        raise ConfigError(f"no ratio to noise can be set for '{silent[0]}': all of its features are 0; leave it out")
    scales = {name: math.sqrt(powers[name]) * 10 ** (-decibels / 20) for name, decibels in noise.items()}
    seeds = {name: seeds_for(*seed, "noise", name, each=(u.id for u in utterances)) for name in noise}
    return [
        replace(u, features=change_features(u.features, partial(_add, scales, {m: seeds[m][i] for m in noise})))
        for i, u in enumerate(utterances)
    ]


def _add(scales: Mapping[str, float], seeds: Mapping[str, int], modality: str, x: Tensor) -> Tensor:
    if modality not in scales or not len(x):
        return x
    return x + (scales[modality] * _gaussian(seeds[modality], *x.shape)).to(x)


def _gaussian(seed: int, length: int, dims: int) -> Tensor:
    """Normal numbers ``[L, D]``, each a pure function of the seed, its step and its feature."""
    uniform = hashed_uniform(torch.tensor(seed), torch.arange(length)[:, None], torch.arange(dims))
    return math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(min=-1 + 2**-52))  # of -1 it would be infinite
