"""Utterances made of parts of others: a pool where there is none."""

# N utterances, M modalities, L_m steps of modality m
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gmsa.data import Utterance
from gmsa.data.features import LazyFeatures
from gmsa.rng import generator

PREFIX = "made:"
"""Stands before the id of a made utterance, and so before its video's."""


def recombined(utterances: Sequence[Utterance], *seed: int | str) -> list[Utterance]:
    r"""Makes an utterance of each: of every modality its first steps, then the last ones of another utterance.

    .. math::
        \tilde x_m = (x_{m,1}, \dots, x_{m,k}, x'_{m,k'+1}, \dots, x'_{m,L'_m}), \quad
        k = \lfloor c_m L_m + r_m \rfloor, \quad k' = \lfloor c_m L'_m + r_m \rfloor, \quad c_m, r_m \sim U[0, 1)

    The other utterance is drawn once, the cuts :math:`c_m` and how they are rounded, :math:`r_m`, for every modality:
    one may be the first utterance's, another the second's, and a modality of one step is either's. None gets longer
    than the longer of both; where nothing is left, the first stays whole. All is a pure function of ``seed``.

    A made utterance has neither label nor transcript. It has the place and the speaker of the first, in a video that is
    made too, so that those of a dialogue are a dialogue again. Features are joined on access.

    Ours; CutMix (Yun et al., ICCV 2019) over steps, with what teachers predict in the place of its mixed labels (Beyer
    et al., CVPR 2022).
    """
    draw, prefix = generator(*seed, "recombined"), PREFIX
    while any(name.startswith(prefix) for u in utterances for name in (u.id, u.video)):
        prefix += PREFIX
    made = []
    for first in utterances:
        second = utterances[int(draw.integers(len(utterances)))]
        joined = _Joined(first, second, draw.random((len(first.lengths), 2)).tolist())
        video = prefix + first.of_video if first.of_video else ""
        made.append(
            replace(
                first,
                id=prefix + first.id,
                features=joined if any(joined.lengths.values()) else first.features,
                label=None,
                unimodal={},
                text="",
                withheld={},
                of_video=video,
            )
        )
    return made


class _Joined(LazyFeatures):
    """The first steps of one utterance and the last steps of another, modality by modality.

    Args:
        draws: per modality, where to cut, as a share of the steps, and how to round it.
    """

    __slots__ = ("_cuts", "_first", "_lengths", "_second")

    def __init__(self, first: Utterance, second: Utterance, draws: Sequence[tuple[float, float]]) -> None:
        self._first, self._second = first.features, second.features
        self._cuts: dict[str, tuple[int, int]] = {}
        self._lengths: dict[str, int] = {}
        for (modality, length), (cut, rounding) in zip(first.lengths.items(), draws, strict=True):
            other = second.lengths[modality]
            head, start = (min(steps, int(cut * steps + rounding)) for steps in (length, other))
            self._cuts[modality], self._lengths[modality] = (head, start), head + other - start

    @property
    def lengths(self) -> dict[str, int]:
        return self._lengths

    def __getitem__(self, modality: str) -> Tensor:
        head, start = self._cuts[modality]
        return torch.cat([self._first[modality][:head], self._second[modality][start:]])
