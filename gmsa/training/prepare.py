"""From a corpus on disk to what a seed trains on and is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmsa.config import Config
from gmsa.data import Corpus, Normalizer, Utterance, load_corpus, withhold_labels
from gmsa.errors import ConfigError
from gmsa.training.examples import labeled_examples
from gmsa.training.protocols import Material


@dataclass(frozen=True, eq=False)
class Prepared:
    """A corpus whose features are normalized as its training split asks for."""

    corpus: Corpus
    splits: Mapping[str, Sequence[Utterance]]
    pool: Sequence[Utterance]
    normalizer: Normalizer

    def material(self, config: Config, seed: int) -> Material:
        """What the seed learns from: its labeled share, and as pool the rest and the pool file.

        Raises:
            ConfigError: ``protocol.k`` asks for more than the pool holds.
        """
        data, protocol = config.data, config.protocol
        label_seed = seed if data.label_seed is None else data.label_seed
        labeled, withheld = withhold_labels(self.splits["train"], data.label_ratio, label_seed, data.labels)
        pool = [*withheld, *self.pool]
        if protocol.name == "self_training" and pool and protocol.k != "all" and protocol.k > len(pool):
            raise ConfigError(
                f"'protocol.k' is {protocol.k}, but the unlabeled pool has {len(pool)} utterances; "
                "lower it, or set it to 'all'"
            )
        return Material(labeled_examples(labeled, data.labels), pool)


def prepare(config: Config) -> Prepared:
    """Loads and normalizes the corpus of ``config``; the normalizer sees the training split only.

    Raises:
        DataError: a data file is missing, unsafe or wrong.
    """
    corpus = load_corpus(config.data)
    wanted = [m for m in config.data.normalize if m in corpus.dims]
    normalizer = Normalizer.fit(corpus.splits["train"], wanted, config.data.clip)
    return Prepared(
        corpus,
        {split: [normalizer.apply(u) for u in utterances] for split, utterances in corpus.splits.items()},
        [normalizer.apply(u) for u in corpus.pool],
        normalizer,
    )
