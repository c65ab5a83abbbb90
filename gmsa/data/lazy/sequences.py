"""Sequences whose members are made when they are read, so that memory does not grow with their number."""

# N utterances
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

import numpy as np
from torch import Tensor

from gmsa.data.utterance import Utterance

T = TypeVar("T")
Change = Callable[[Utterance], Utterance]


class Lazy(Sequence[T]):
    """A sequence whose members are made when they are read: two readings give two equal objects."""

    @abstractmethod
    def make(self, index: int) -> T:
        """The member at an index from 0 to N - 1, which is not checked."""

    @abstractmethod
    def _part(self, rows: range) -> Sequence[T]:
        """The members at these indices."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return self._part(range(len(self))[index])
        return self.make(range(len(self))[index])

    def __iter__(self) -> Iterator[T]:
        return map(self.make, range(len(self)))


class Utterances(Lazy[Utterance]):
    """A lazy sequence of utterances, of which lengths, labels and names are known without making them."""

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """The modalities of any utterance, in their order."""

    @abstractmethod
    def lengths(self, modality: str) -> np.ndarray:
        """Number of steps of a modality in each utterance, int64 ``[N]``."""

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """Labels, float64 ``[N]``; NaN if unlabeled."""

    @abstractmethod
    def own_labels(self) -> Mapping[str, np.ndarray]:
        """Labels of single modalities, float64 ``[N]``; NaN if unlabeled."""

    def statistics(self, modality: str) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation ``[D]`` of a modality over all utterances; None where they are not known."""
        return None

    def shards(self) -> np.ndarray:
        """The number of the shard that holds each utterance, int32 ``[N]``."""
        return np.zeros(len(self), np.int32)

    @abstractmethod
    def name(self, index: int, field: str) -> str:
        """A field of an utterance that is text: ``id``, ``video``, ``speaker`` or ``fold``."""

    def _part(self, rows: range) -> Sequence[Utterance]:
        return Taken(self, rows)


class Taken(Utterances):
    """Some of the utterances of a lazy sequence.

    Args:
        source: the sequence.
        rows: their indices in it.
    """

    def __init__(self, source: Utterances, rows: range | np.ndarray) -> None:
        few = isinstance(rows, range) or len(source) > 1 << 31
        self.source, self.rows = source, rows if few else np.asarray(rows, np.int32)

    def __len__(self) -> int:
        return len(self.rows)

    def make(self, index: int) -> Utterance:
        return self.source.make(int(self.rows[index]))

    def _part(self, rows: range) -> Sequence[Utterance]:
        return Taken(self.source, rows_within(self.rows, rows) if isinstance(self.rows, range) else self.rows[[*rows]])

    def _of(self, column: np.ndarray) -> np.ndarray:
        rows = self.rows
        found: np.ndarray = column[np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows]
        return found

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.source.modalities

    def lengths(self, modality: str) -> np.ndarray:
        return self._of(self.source.lengths(modality))

    @property
    def labels(self) -> np.ndarray:
        return self._of(self.source.labels)

    def own_labels(self) -> Mapping[str, np.ndarray]:
        return {modality: self._of(column) for modality, column in self.source.own_labels().items()}

    def shards(self) -> np.ndarray:
        return self._of(self.source.shards())

    def name(self, index: int, field: str) -> str:
        return self.source.name(int(self.rows[index]), field)


class Changed(Utterances):
    """The utterances of a lazy sequence with a change that is made at each reading; it keeps names and lengths.

    Args:
        source: the sequence.
        change: what is done to an utterance.
        labels: whether it keeps the label (default: True).
        own_labels: whether it keeps the labels of single modalities (default: True).
        kept: the modalities that it keeps (default: all).
    """

    def __init__(
        self,
        source: Utterances,
        change: Change,
        labels: bool = True,
        own_labels: bool = True,
        kept: Collection[str] | None = None,
    ) -> None:
        self.source, self.change, self.with_labels, self.with_own, self.kept = source, change, labels, own_labels, kept

    def __len__(self) -> int:
        return len(self.source)

    def make(self, index: int) -> Utterance:
        return self.change(self.source.make(index))

    def __iter__(self) -> Iterator[Utterance]:
        return map(self.change, self.source)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in self.source.modalities if self.kept is None or m in self.kept)

    def lengths(self, modality: str) -> np.ndarray:
        if modality in self.modalities:
            return self.source.lengths(modality)
        return np.zeros(len(self), np.int64)

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels if self.with_labels else np.full(len(self), np.nan)

    def own_labels(self) -> Mapping[str, np.ndarray]:
        return self.source.own_labels() if self.with_own else {}

    def shards(self) -> np.ndarray:
        return self.source.shards()

    def name(self, index: int, field: str) -> str:
        return self.source.name(index, field)


def rows_within(rows: range, part: range) -> range:
    """The rows at these indices of a range.

    >>> rows_within(range(10, 20), range(9, -1, -3))
    range(19, 9, -3)
    """
    return range(rows.start + rows.step * part.start, rows.start + rows.step * part.stop, rows.step * part.step)


def changed(
    utterances: Sequence[Utterance],
    change: Change,
    labels: bool = True,
    own_labels: bool = True,
    kept: Collection[str] | None = None,
) -> Sequence[Utterance]:
    """The utterances with a change, lazily if the sequence is; arguments as :class:`Changed` has them."""
    if isinstance(utterances, Utterances):
        return Changed(utterances, change, labels, own_labels, kept)
    return [change(utterance) for utterance in utterances]


def taken(utterances: Sequence[Utterance], rows: Iterable[int] | np.ndarray) -> Sequence[Utterance]:
    """The utterances at these indices, lazily if the sequence is."""
    if isinstance(utterances, Utterances):
        return Taken(utterances, rows if isinstance(rows, np.ndarray) else np.array([*rows], np.int64))
    return [utterances[row] for row in rows]
