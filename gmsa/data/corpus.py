"""The corpus: the splits of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gmsa.data.utterance import Utterance


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
