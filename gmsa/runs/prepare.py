"""From a corpus on disk to what a seed trains on and is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gmsa.config import Config, DataConfig, MissingConfig
from gmsa.data import Corpus, Normalizer, Utterance, apply_missing, describe_missing, load_corpus, withhold_labels
from gmsa.data.features import select
from gmsa.errors import ConfigError
from gmsa.graph import check_builders, check_positions
from gmsa.models import check, graph_spec
from gmsa.training.examples import labeled_examples
from gmsa.training.protocols import TrainingData


@dataclass(frozen=True, eq=False)
class Prepared:
    """A corpus whose features are normalized as its training split asks for."""

    corpus: Corpus
    splits: Mapping[str, Sequence[Utterance]]
    pool: Sequence[Utterance]
    normalizer: Normalizer
    unseen: Sequence[str]
    """Modalities that the file has but no training or pool utterance shows: they are left out."""
    missing: Mapping[str, dict[str, Any]]
    """Per split, what :func:`~gmsa.data.describe_missing` records."""

    @cached_property
    def to_learn_from(self) -> list[Utterance]:
        """The training split and the pool file, without their labels."""
        return [replace(u, label=None) for u in (*self.splits["train"], *self.pool)]

    def training_data(self, config: Config, seed: int) -> TrainingData:
        """What the seed learns from: its labeled share, and as pool the rest and the pool file.

        Raises:
            ConfigError: ``self_training.k`` asks for more than the pool holds.
        """
        data, k = config.data, config.self_training.k
        label_seed = seed if data.label_seed is None else data.label_seed
        labeled, withheld = withhold_labels(self.splits["train"], data.label_ratio, label_seed, data.labels)
        pool = [*withheld, *self.pool]
        if config.protocol.name == "self_training" and pool and k != "all" and k > len(pool):
            raise ConfigError(
                f"'self_training.k' is {k}, but the unlabeled pool has {len(pool)} utterances; "
                "lower it, or set it to 'all'"
            )
        return TrainingData(labeled_examples(labeled, data.labels), pool)


def prepare(config: Config) -> Prepared:
    """Loads and normalizes the corpus of ``config``; the normalizer sees the training split only.

    Raises:
        DataError: a data file is missing, unsafe or wrong.
        ConfigError: nothing is left to learn from.
    """
    whole = load_corpus(config.data)
    masked = hide(whole, config.data.missing)
    missing = {
        split: describe_missing(whole.splits[split], masked.splits[split], config.data.missing.of(split), [*whole.dims])
        for split in whole.splits
    }
    if config.data.missing.of("train").protocol == "frame_uniform":
        missing["train"]["realized"] = None  # another one in every epoch
    corpus, unseen = leave_out_unseen(masked)
    if not corpus.dims:
        raise ConfigError(
            f"'data.missing.train' ({config.data.missing.train}) hides every modality of 'data.modalities' "
            f"({', '.join(config.data.modalities)}) that the training split has; leave one of them"
        )
    check_fits(corpus, config)
    wanted = [m for m in config.data.normalize if m in corpus.dims]
    normalizer = Normalizer.fit(corpus.splits["train"], wanted, config.data.clip)
    return Prepared(
        corpus,
        {split: [normalizer.apply(u) for u in utterances] for split, utterances in corpus.splits.items()},
        [normalizer.apply(u) for u in corpus.pool],
        normalizer,
        unseen,
        missing,
    )


def reading(data: DataConfig) -> DataConfig:
    """What of the settings decides how the data is read: who shares it can share one reading."""
    return replace(data, label_ratio=1.0, label_seed=None)


def check_fits(corpus: Corpus, config: Config) -> None:
    """Checks that a config can be trained on a corpus.

    Raises:
        ConfigError: names the setting that does not fit.
    """
    if config.pretrain.epochs and not any(any(u.lengths.values()) for u in corpus.splits["valid"]):
        raise ConfigError(
            "pre-training is validated on features, but no utterance of 'valid' has any; "
            "change 'data.missing.valid', or set 'pretrain.epochs' to 0"
        )
    check(config)
    spec = graph_spec(config)
    check_builders(corpus.dims, spec)
    # Also checked batch by batch, but the longest utterance may come hours later.
    for split, utterances in corpus.splits.items():
        # The pool stands with the training split: a video may be spread over both.
        check_positions([*utterances, *corpus.pool] if split == "train" else utterances, spec)


def hide(corpus: Corpus, config: MissingConfig) -> Corpus:
    """The corpus without what ``data.missing`` hides in each split; the pool is as the training split.

    ``frame_uniform`` hides nothing here of what is learned from: it draws anew in every epoch.
    """
    modalities = list(corpus.dims)

    def of(utterances: Sequence[Utterance], split: str) -> list[Utterance]:
        missing = config.of(split)
        if split == "train" and missing.protocol == "frame_uniform":
            return list(utterances)
        try:
            return apply_missing(utterances, missing, modalities, config.seed)
        except ConfigError as error:
            raise ConfigError(f"'data.missing.{split}': {error}") from None

    splits = {split: of(utterances, split) for split, utterances in corpus.splits.items()}
    return replace(corpus, splits=splits, pool=of(corpus.pool, "train"))


def leave_out_unseen(corpus: Corpus) -> tuple[Corpus, list[str]]:
    """The corpus without the modalities that nothing to learn from shows, and their names.

    Their encoders would stay as they were initialized, and add noise to what is scored.
    """
    shown = {m for u in (*corpus.splits["train"], *corpus.pool) for m, there in u.present.items() if there}
    unseen = [m for m in corpus.dims if m not in shown]
    if not unseen:
        return corpus, []

    def keep(utterances: Sequence[Utterance]) -> list[Utterance]:
        return [replace(u, features=select(u.features, shown), withheld=select(u.withheld, shown)) for u in utterances]

    dims = {m: dim for m, dim in corpus.dims.items() if m in shown}
    splits = {split: keep(utterances) for split, utterances in corpus.splits.items()}
    return replace(corpus, splits=splits, dims=dims, pool=keep(corpus.pool)), unseen
