"""The utterance: one clip of a video."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from gmsa.data.features import LazyFeatures, remove_modalities


@dataclass(frozen=True, eq=False)
class Utterance:
    """One clip: an id, a sequence of features per modality, and optionally a label and a transcript.

    A missing modality has a sequence of length 0 rather than one of zeros.

    >>> import torch
    >>> features = {"text": torch.randn(5, 300), "audio": torch.randn(20, 74), "vision": torch.zeros(0, 35)}
    >>> utterance = Utterance("video7$_$3", features, label=-1.2, text="I did not like it")
    >>> utterance.video, utterance.lengths
    ('video7', {'text': 5, 'audio': 20, 'vision': 0})
    >>> utterance.present
    {'text': True, 'audio': True, 'vision': False}
    >>> utterance.drop(frozenset({"audio"})).lengths
    {'text': 5, 'audio': 0, 'vision': 0}
    """

    id: str
    """``video$_$clip``."""
    features: Mapping[str, Tensor]
    """Per modality, float32 ``[L_m, D_m]``; ``L_m`` is 0 if the modality is missing."""
    label: float | None = None
    """Intensity, or number of the class; None if unlabeled."""
    unimodal: Mapping[str, float] = field(default_factory=dict)
    """Labels of single modalities (CH-SIMS has them)."""
    text: str = ""
    """Transcript."""
    withheld: Mapping[str, Tensor] = field(default_factory=dict)
    """Features of the modalities that ``data.missing`` masked; only ``reconstruction.target: oracle`` may use them."""
    speaker: str = ""
    """Who speaks, a name within the video, where the data says it (``data.speaker_from``)."""
    of_video: str = ""
    """Video or dialogue of the clip, where ``data.video_from`` says how to tell it."""
    place: int | None = None
    """Place of the clip in its video, where no number in the id is it: that in the file, if nothing else tells it."""
    fold: str = ""
    """Fold of cross-validation, where the data says it."""
    times: Mapping[str, Tensor] = field(default_factory=dict)
    """Start and stop of each step in seconds of the clip, float32 ``[L_m, 2]``, of the modalities whose times are known
    (``gmsa data extract`` knows them)."""

    @property
    def video(self) -> str:
        """The video of the clip: the id up to ``$_$``, unless the data says another."""
        return self.of_video or self.id.partition("$_$")[0]

    @property
    def clip(self) -> tuple[int, str]:
        """Sort key of the clips of a video: by number, then those without a number by name."""
        if self.place is not None:
            return (self.place, self.id)
        name = self.id.partition("$_$")[2]
        return (int(name), name) if name.isdecimal() else (sys.maxsize, name)

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Number of steps of each modality."""
        if isinstance(self.features, LazyFeatures):
            return self.features.lengths
        return {modality: sequence.shape[0] for modality, sequence in self.features.items()}

    @cached_property
    def steps(self) -> int:
        """Number of steps of all modalities together."""
        return sum(self.lengths.values())

    @property
    def present(self) -> dict[str, bool]:
        """Whether the utterance has each modality."""
        return {modality: length > 0 for modality, length in self.lengths.items()}

    def drop(self, modalities: frozenset[str]) -> Utterance:
        """Returns the utterance with these modalities dropped, that is with length 0.

        The result is cached if the features are in memory, since training asks for it in every epoch.
        """
        if isinstance(self.features, LazyFeatures):
            return replace(self, features=remove_modalities(self.features, modalities))
        if modalities not in self._dropped:
            features = {m: self._empty[m] if m in modalities else x for m, x in self.features.items()}
            self._dropped[modalities] = replace(self, features=features)
        return self._dropped[modalities]

    @cached_property
    def _empty(self) -> dict[str, Tensor]:
        return {m: x[:0] for m, x in self.features.items()}

    @cached_property
    def _dropped(self) -> dict[frozenset[str], Utterance]:
        return {}
