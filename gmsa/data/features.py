"""Features that are read when they are asked for, and changes of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from torch import Tensor


class LazyFeatures(Mapping[str, Tensor]):
    """Feature sequences that are read each time they are asked for, so that memory holds those of a batch alone."""

    __slots__ = ()

    @property
    @abstractmethod
    def lengths(self) -> dict[str, int]:
        """Steps of each modality, known without reading it."""

    @abstractmethod
    def __getitem__(self, modality: str) -> Tensor: ...

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)


class ChangedFeatures(LazyFeatures):
    """Lazy features, each changed after it is read; modalities that ``lengths`` does not name are left out."""

    __slots__ = ("_change", "_lengths", "_source")

    def __init__(
        self, source: LazyFeatures, change: Callable[[str, Tensor], Tensor], lengths: dict[str, int] | None = None
    ) -> None:
        self._source, self._change, self._lengths = source, change, lengths

    @property
    def lengths(self) -> dict[str, int]:
        """Steps of each modality after the change."""
        return self._source.lengths if self._lengths is None else self._lengths

    def __getitem__(self, modality: str) -> Tensor:
        if modality not in self.lengths:
            raise KeyError(modality)
        return self._change(modality, self._source[modality])


def change(features: Mapping[str, Tensor], how: Callable[[str, Tensor], Tensor]) -> Mapping[str, Tensor]:
    """The features, each changed without a change of its length: lazily where they are lazy."""
    if isinstance(features, LazyFeatures):
        return ChangedFeatures(features, how)
    return {m: how(m, x) for m, x in features.items()}


def hide(features: Mapping[str, Tensor], hidden: Collection[str]) -> Mapping[str, Tensor]:
    """The features, those of ``hidden`` with no step left."""
    if isinstance(features, LazyFeatures):
        lengths = {m: 0 if m in hidden else length for m, length in features.lengths.items()}
        return ChangedFeatures(features, partial(_nothing_of, hidden), lengths)
    return {m: x[:0] if m in hidden else x for m, x in features.items()}


def select(features: Mapping[str, Tensor], chosen: Collection[str]) -> Mapping[str, Tensor]:
    """The features of the chosen modalities."""
    if isinstance(features, LazyFeatures):
        return ChangedFeatures(features, _same, {m: n for m, n in features.lengths.items() if m in chosen})
    return {m: x for m, x in features.items() if m in chosen}


def keep_steps(features: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The features, of those that ``kept`` names the steps that it flags ``[L_m]``."""
    if isinstance(features, LazyFeatures):
        lengths = features.lengths | {m: int(steps.sum()) for m, steps in kept.items()}
        return ChangedFeatures(features, partial(_kept_of, kept), lengths)
    return {m: x[kept[m]] if m in kept else x for m, x in features.items()}


def _same(modality: str, sequence: Tensor) -> Tensor:
    return sequence


def _nothing_of(hidden: Collection[str], modality: str, sequence: Tensor) -> Tensor:
    return sequence[:0] if modality in hidden else sequence


def _kept_of(kept: Mapping[str, Tensor], modality: str, sequence: Tensor) -> Tensor:
    return sequence[kept[modality]] if modality in kept else sequence
