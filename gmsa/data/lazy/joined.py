"""Several sequences as one."""

# N members
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, TypeVar, cast

import numpy as np

from gmsa.data.lazy.columns import labels_of, lengths_of, own_labels_of, shards_of
from gmsa.data.lazy.sequences import Lazy, Taken, Utterances
from gmsa.data.utterance import Utterance

T = TypeVar("T")


class Joined(Lazy[T]):
    """Several sequences, one after another."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        self.parts = parts
        self.begins = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.begins[-1]

    def _place(self, index: int) -> tuple[Sequence[T], int]:
        part = bisect_right(self.begins, index) - 1
        return self.parts[part], index - self.begins[part]

    def make(self, index: int) -> T:
        part, place = self._place(index)
        return part[place]

    def _part(self, rows: range) -> Sequence[T]:
        return [self.make(row) for row in rows]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.parts)


class JoinedUtterances(Joined[Utterance], Utterances):
    """Several sequences of utterances, one after another, some of them lazy."""

    def _part(self, rows: range) -> Sequence[Utterance]:
        return Taken(self, rows)

    @property
    def modalities(self) -> tuple[str, ...]:
        named = (p.modalities if isinstance(p, Utterances) else [m for u in p for m in u.lengths] for p in self.parts)
        return tuple(dict.fromkeys(chain.from_iterable(named)))

    def lengths(self, modality: str) -> np.ndarray:
        return np.concatenate([lengths_of(part, modality) for part in self.parts])

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate([labels_of(part) for part in self.parts])

    def own_labels(self) -> Mapping[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for part, begin, end in zip(self.parts, self.begins[:-1], self.begins[1:], strict=True):
            for modality, column in own_labels_of(part).items():
                found.setdefault(modality, np.full(len(self), np.nan))[begin:end] = column
        return found

    def shards(self) -> np.ndarray:
        found, first = [], 0
        for part in self.parts:
            found.append(first + shards_of(part))
            first = 1 + int(found[-1].max(initial=-1))
        return np.concatenate(found)

    def name(self, index: int, field: str) -> str:
        part, place = self._place(index)
        return part.name(place, field) if isinstance(part, Utterances) else cast(str, getattr(part[place], field))


def joined(*parts: Sequence[T]) -> Sequence[T]:
    """The members of all parts: lazily if one of them is lazy, else as a list.

    >>> joined([1, 2], [3])
    [1, 2, 3]
    """
    if not any(isinstance(part, Lazy) for part in parts):
        return list(chain.from_iterable(parts))
    filled = [part for part in parts if len(part)]
    if len(filled) < 2:
        return filled[0] if filled else []
    several = any(isinstance(part, Utterances) for part in filled)
    return cast(Any, JoinedUtterances)(filled) if several else Joined(filled)
