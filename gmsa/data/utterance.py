"""One clip, and the corpus that holds them."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

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


@dataclass(frozen=True, eq=False)
class Utterance:
    """One clip: a feature sequence per modality, an id, maybe a label.

    A missing modality has a sequence of length 0: no features at all, not zeros that pretend.
    """

    id: str
    """``video$_$clip``."""
    features: Mapping[str, Tensor]
    """Per modality, float32 ``[L_m, D_m]``; ``L_m`` is 0 where the modality is missing."""
    label: float | None = None
    """Sentiment intensity; None where unlabeled."""
    unimodal: Mapping[str, float] = field(default_factory=dict)
    """CH-SIMS's label of each modality alone."""
    text: str = ""
    """The transcript."""
    withheld: Mapping[str, Tensor] = field(default_factory=dict)
    """Features of modalities that a missing-modality protocol hides: only an oracle may look at them."""

    @property
    def video(self) -> str:
        """The video that the clip is from: its id up to ``$_$``."""
        return self.id.partition("$_$")[0]

    @property
    def clip(self) -> tuple[int, str]:
        """What sorts the clips of a video: by number; those without one come last, by name."""
        name = self.id.partition("$_$")[2]
        return (int(name), name) if name.isdecimal() else (sys.maxsize, name)

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Steps of each modality."""
        if isinstance(self.features, LazyFeatures):
            return self.features.lengths
        return {modality: sequence.shape[0] for modality, sequence in self.features.items()}

    @cached_property
    def steps(self) -> int:
        """Steps of all modalities together."""
        return sum(self.lengths.values())

    @property
    def present(self) -> dict[str, bool]:
        """Which modalities this utterance has."""
        return {modality: length > 0 for modality, length in self.lengths.items()}

    def without(self, hidden: frozenset[str]) -> Utterance:
        """The same clip without these modalities; kept if in memory, since training asks for it in every epoch."""
        if isinstance(self.features, LazyFeatures):
            return replace(self, features=hide(self.features, hidden))
        if hidden not in self._without:
            features = {m: self._nothing[m] if m in hidden else x for m, x in self.features.items()}
            self._without[hidden] = Utterance(self.id, features, self.label, self.unimodal, self.text, self.withheld)
        return self._without[hidden]

    @cached_property
    def _nothing(self) -> dict[str, Tensor]:
        return {m: x[:0] for m, x in self.features.items()}

    @cached_property
    def _without(self) -> dict[frozenset[str], Utterance]:
        return {}


@dataclass(frozen=True, eq=False)
class Corpus:
    """The splits of a data set, and what is known about them."""

    splits: Mapping[str, Sequence[Utterance]]
    """``train``, ``valid`` and ``test``."""
    dims: Mapping[str, int]
    """Feature dimension of each modality."""
    pool: Sequence[Utterance] = field(default_factory=list)
    """Unlabeled utterances of another file."""
    sha256: str = ""
    """Of the data file; of the generated features for the synthetic corpus."""
    synthetic: bool = False
    """Whether this is the embedded synthetic corpus."""
