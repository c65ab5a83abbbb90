"""Lazy features, which are read on access, and functions that change features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from torch import Tensor


class LazyFeatures(Mapping[str, Tensor]):
    """A mapping of modality to features that reads them on each access, so that memory holds one batch only."""

    __slots__ = ()

    @property
    @abstractmethod
    def lengths(self) -> dict[str, int]:
        """Number of steps of each modality; does not read the features."""

    @abstractmethod
    def __getitem__(self, modality: str) -> Tensor: ...

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)


class ChangedFeatures(LazyFeatures):
    """Lazy features with a change that is applied after each read.

    Args:
        source: the features to read.
        change: function ``(modality, features [L, D]) -> features``.
        lengths: lengths after the change; modalities that it does not name are removed. Default: those of ``source``.
    """

    __slots__ = ("_change", "_lengths", "_source")

    def __init__(
        self, source: LazyFeatures, change: Callable[[str, Tensor], Tensor], lengths: dict[str, int] | None = None
    ) -> None:
        self._source, self._change, self._lengths = source, change, lengths

    @property
    def lengths(self) -> dict[str, int]:
        """Number of steps of each modality after the change."""
        return self._source.lengths if self._lengths is None else self._lengths

    def __getitem__(self, modality: str) -> Tensor:
        if modality not in self.lengths:
            raise KeyError(modality)
        return self._change(modality, self._source[modality])


def change_features(features: Mapping[str, Tensor], how: Callable[[str, Tensor], Tensor]) -> Mapping[str, Tensor]:
    """Applies ``how(modality, features)`` to each modality, lazily if the features are; ``how`` keeps the length."""
    if isinstance(features, LazyFeatures):
        return ChangedFeatures(features, how)
    return {m: how(m, x) for m, x in features.items()}


def remove_modalities(features: Mapping[str, Tensor], removed: Collection[str]) -> Mapping[str, Tensor]:
    """Cuts the sequences of the ``removed`` modalities to length 0."""
    if isinstance(features, LazyFeatures):
        lengths = {m: 0 if m in removed else length for m, length in features.lengths.items()}
        return ChangedFeatures(features, partial(_remove_from, removed), lengths)
    return {m: x[:0] if m in removed else x for m, x in features.items()}


def select(features: Mapping[str, Tensor], chosen: Collection[str]) -> Mapping[str, Tensor]:
    """Keeps the entries of the chosen modalities only."""
    if isinstance(features, LazyFeatures):
        return ChangedFeatures(features, _same, {m: n for m, n in features.lengths.items() if m in chosen})
    return {m: x for m, x in features.items() if m in chosen}


def keep_steps(features: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Keeps the steps that ``kept`` flags (bool ``[L_m]``) of the modalities that it names, and all steps of others."""
    if isinstance(features, LazyFeatures):
        lengths = features.lengths | {m: int(steps.sum()) for m, steps in kept.items()}
        return ChangedFeatures(features, partial(_keep_of, kept), lengths)
    return {m: x[kept[m]] if m in kept else x for m, x in features.items()}


def _same(modality: str, sequence: Tensor) -> Tensor:
    return sequence


def _remove_from(removed: Collection[str], modality: str, sequence: Tensor) -> Tensor:
    return sequence[:0] if modality in removed else sequence


def _keep_of(kept: Mapping[str, Tensor], modality: str, sequence: Tensor) -> Tensor:
    return sequence[kept[modality]] if modality in kept else sequence
