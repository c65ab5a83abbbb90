"""One clip."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from gmsa.data.features import LazyFeatures, hide


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
