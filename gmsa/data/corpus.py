"""The corpus: a data set in splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmsa.data.lazy import joined
from gmsa.data.store.extraction import Extraction
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance


@dataclass(frozen=True, eq=False)
class Corpus:
    """A data set: its splits of utterances, an unlabeled pool, and facts about them.

    >>> from gmsa.data import synthetic_corpus
    >>> corpus = synthetic_corpus(seed=0)
    >>> {name: len(utterances) for name, utterances in corpus.splits.items()}
    {'train': 400, 'valid': 120, 'test': 160}
    >>> len(corpus.pool), corpus.dims
    (200, {'text': 24, 'audio': 8, 'vision': 10})
    """

    splits: Mapping[str, Sequence[Utterance]]
    """Utterances of ``train``, ``valid`` and ``test``."""
    dims: Mapping[str, int]
    """Features per step, D, of each modality."""
    pool: Sequence[Utterance] = dataclasses.field(default_factory=list)
    """Unlabeled utterances (default: none)."""
    sha256: str = ""
    """SHA-256 of the data file, of a feature store's manifest, of the SHA-256 of each file of another source, or of
    the generated values of the synthetic corpus."""
    target: Target = dataclasses.field(default_factory=Target)
    """What its labels are."""
    field: str = "auto"
    """Key of the file that held the labels; ``auto`` where it is not known."""
    synthetic: bool = False
    """Whether this is the embedded synthetic corpus."""
    pool_sha256: str | None = None
    """SHA-256 of the file of ``data.pool``, if there is one."""
    extraction: Extraction | None = None
    """How its features were extracted from media, where the data say so."""
    context: Mapping[str, Sequence[Utterance]] = dataclasses.field(default_factory=dict)
    """Unlabeled utterances of ``valid`` and ``test``: they are not scored, but context in graphs of dialogues."""

    @property
    def with_context(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of each split, those that are context alone after the others."""
        return {name: joined(us, self.context.get(name, ())) for name, us in self.splits.items()}
