"""The explanation of one prediction, and those of many."""

# N utterances, L tokens of a modality, S models
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gmsa.data import Target
from gmsa.errors import DataError, nearest, shown
from gmsa.explain.deletion import DeletionCheck
from gmsa.explain.shapley import Subset
from gmsa.explain.views import NEIGHBORS

GRADIENTS, OCCLUSION = "integrated gradients", "occlusion"
"""Methods for tokens."""


@dataclass(frozen=True, eq=False)
class Words:
    """What each token of an utterance contributes."""

    tokens: Mapping[str, np.ndarray]
    """Contribution of each token of a modality ``[L]``."""
    labels: Mapping[str, Sequence[str]]
    """What stands for each token: the word where there is one token per word, else ``token 3``."""
    neighbors: float | None
    """What the other utterances of the dialogue contribute together; None where there are none."""
    method: str
    """``integrated gradients``, or ``occlusion`` where these do not add up."""
    start: float
    """Where integrated gradients start: the prediction for features that are all 0."""
    completeness_error: float
    """How far integrated gradients are from adding up to the prediction less ``start``, as a share of that."""
    steps: int
    """Gradients that they average."""
    check: DeletionCheck
    """Whether the tokens that are named matter more than others."""

    @property
    def faithful(self) -> bool:
        """Whether the deletion check is passed; if not, the contributions of tokens explain nothing."""
        return self.check.faithful


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an utterance is predicted as it is: its value is ``base`` plus the contributions of its parts."""

    id: str
    value: float
    """The intensity, or the probability of the predicted class: the mean over the seeds."""
    base: float
    """What is said of an utterance of which nothing is known."""
    base_is: str
    """What the base is."""
    predicted_class: str | None
    """The class whose probability is explained; None for an intensity."""
    modalities: Mapping[str, float]
    """Shapley value of each modality of the run; 0 of a missing one."""
    spread: Mapping[str, float]
    """Standard deviation of these over the seeds."""
    missing: tuple[str, ...]
    """Modalities that the utterance lacks."""
    neighbors: float | None
    """Shapley value of the other utterances of the dialogue together; None where there are none."""
    subsets: Mapping[Subset, float]
    """The value for every choice of parts, such as ``("text", "audio")``; :data:`~gmsa.explain.NEIGHBORS` stands for
    the other utterances of the dialogue."""
    words: Words | None = None
    """Contributions of tokens; None where they were not asked for, or there is no token."""

    def without(self, part: str) -> float | None:
        """The value if one part were missing; None where it is missing."""
        everything = max(self.subsets, key=len)
        if part not in everything:
            return None
        return self.subsets[tuple(m for m in everything if m != part)]

    def as_dict(self) -> dict[str, Any]:
        """The explanation as JSON has it."""
        subsets = [
            {"modalities": [m for m in subset if m != NEIGHBORS], "neighbors": NEIGHBORS in subset, "value": value}
            for subset, value in self.subsets.items()
        ]
        found: dict[str, Any] = {
            "id": self.id,
            "value": self.value,
            "base": self.base,
            "base_is": self.base_is,
            "class": self.predicted_class,
            "modalities": dict(self.modalities),
            "spread": dict(self.spread),
            "missing": list(self.missing),
            "neighbors": self.neighbors,
            "subsets": subsets,
        }
        return found | {"words": None if self.words is None else _words_dict(self.words)}


def _finite(value: float) -> float | None:
    """A number that JSON has; None for one that it lacks, as where a gradient is not finite."""
    return value if math.isfinite(value) else None


def _words_dict(words: Words) -> dict[str, Any]:
    check = words.check
    return {
        "method": words.method,
        "faithful": words.faithful,
        "check": {"removed": check.removed, "fall": check.fall, "random": check.random, "beaten": check.beaten},
        "start": _finite(words.start),
        "completeness_error": _finite(words.completeness_error),
        "steps": words.steps,
        "neighbors": words.neighbors,
        "tokens": {
            m: [{"token": label, "contribution": float(x)} for label, x in zip(words.labels[m], found, strict=True)]
            for m, found in words.tokens.items()
        },
    }


@dataclass(frozen=True, eq=False, repr=False)
class Explanations:
    """Explanations of N predictions, in the order in which they were asked for.

    One is found by its place or its id: ``explanations[0]``, ``explanations["video7$_$3"]``.
    """

    items: Sequence[Explanation]
    target: Target
    """What is predicted."""
    modalities: tuple[str, ...]
    """Those of the run."""
    seeds: tuple[int, ...] = ()
    """Seeds over whose models the explanations are means."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why an utterance could not be explained, by its id."""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.items)

    def __getitem__(self, key: int | str) -> Explanation:
        """The explanation at a place, or of an utterance.

        Raises:
            DataError: no utterance of that id is explained.
        """
        if not isinstance(key, str):
            return self.items[key]
        for item in self.items:
            if item.id == key:
                return item
        reason = self.reasons.get(key)
        what = f": {reason}" if reason else nearest(key, [item.id for item in self.items])
        raise DataError(f"utterance {shown(key)} is not explained{what}")

    def __repr__(self) -> str:
        n = len(self)
        failed = f", {len(self.reasons)} not explained" if self.reasons else ""
        means = ", ".join(f"{m} {x:.3f}" for m, x in self.importance().items())
        return f"Explanations({n} utterance{'s' * (n != 1)}; mean |contribution| {means}{failed})"

    def importance(self) -> dict[str, float]:
        """Mean size of each modality's contribution, over the utterances."""
        return {m: float(np.mean([abs(e.modalities[m]) for e in self] or [0.0])) for m in self.modalities}

    def as_dict(self) -> dict[str, Any]:
        """All explanations as JSON has them."""
        return {
            "explained": "probability of the predicted class" if self.target.is_classes else "intensity",
            "modalities": list(self.modalities),
            "seeds": list(self.seeds),
            "importance": self.importance(),
            "reasons": dict(self.reasons),
            "utterances": [item.as_dict() for item in self],
        }
