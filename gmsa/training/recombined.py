"""Utterances made of parts of others: a pool where there is none."""

# N utterances, M modalities, L_m steps of modality m
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

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
        cuts = _cuts(first, second, draw.random((len(first.lengths), 2)).tolist())
        joined = _Joined(first.features, second.features, cuts)
        timed = {m: cut for m, cut in cuts.items() if m in first.times and m in second.times}
        is_empty = not any(joined.lengths.values())
        made.append(
            replace(
                first,
                id=prefix + first.id,
                features=first.features if is_empty else joined,
                times=first.times if is_empty else _Joined(first.times, second.times, timed),
                label=None,
                unimodal={},
                text="",
                withheld={},
                of_video=prefix + first.of_video if first.of_video else "",
            )
        )
    return made


class _Cut(NamedTuple):
    """Where two sequences are cut, the first of which is joined to the end of the second."""

    head: int
    """Steps of the first."""
    start: int
    """First step of the second."""
    length: int
    """Steps of both parts."""


def _cuts(first: Utterance, second: Utterance, draws: Sequence[tuple[float, float]]) -> dict[str, _Cut]:
    """The cut of each modality, from where to cut, as a share of the steps, and how to round it."""
    found = {}
    for (modality, length), (cut, rounding) in zip(first.lengths.items(), draws, strict=True):
        other = second.lengths[modality]
        head, start = (min(steps, int(cut * steps + rounding)) for steps in (length, other))
        found[modality] = _Cut(head, start, head + other - start)
    return found


class _Joined(LazyFeatures):
    """The first steps of one utterance and the last steps of another, modality by modality: features, or times."""

    __slots__ = ("_cuts", "_first", "_second")

    def __init__(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor], cuts: Mapping[str, _Cut]) -> None:
        self._first, self._second, self._cuts = first, second, cuts

    @property
    def lengths(self) -> dict[str, int]:
        """Number of steps of each modality."""
        return {modality: cut.length for modality, cut in self._cuts.items()}

    def __getitem__(self, modality: str) -> Tensor:
        cut = self._cuts[modality]
        return torch.cat([self._first[modality][: cut.head], self._second[modality][cut.start :]])
