"""Prepares a corpus for training: masks, normalizes and splits it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gmsa.config import AUTO, Config, MissingConfig
from gmsa.config.components import component_name
from gmsa.config.groups.graph import MOST_SPEAKERS
from gmsa.config.presets import TEXT
from gmsa.data import (
    Corpus,
    Normalizer,
    Utterance,
    apply_missing,
    describe_missing,
    load_corpus,
    tell_order,
    tell_shared,
    withhold_labels,
)
from gmsa.data.features import select
from gmsa.data.lazy import changed, joined, lengths_of, names_of, steps_of, taken, videos_of
from gmsa.data.notes import note
from gmsa.data.utterance import without_label
from gmsa.errors import ConfigError, listed, short
from gmsa.graph import check_builders, check_positions, check_times, looks_at_features, looks_at_times
from gmsa.graph.context import wanted
from gmsa.metrics import read_metrics
from gmsa.models import check, graph_spec
from gmsa.models.build import model_skeleton
from gmsa.text import Texts, texts_of
from gmsa.training.examples import labeled_examples
from gmsa.training.protocols import TrainingData, build_protocol, check_protocol

LONG, FEW = 100, 64
"""Tokens of a modality from which on a bound pays, and the bound that is proposed."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A corpus whose features are normalized by its training split."""

    config: Config
    """The settings, with nothing left that the data says."""
    corpus: Corpus
    splits: Mapping[str, Sequence[Utterance]]
    pool: Sequence[Utterance]
    context: Mapping[str, Sequence[Utterance]]
    """Of ``valid`` and ``test``, unlabeled utterances in the graphs of their dialogues; they are not scored."""
    normalizer: Normalizer
    unseen: Sequence[str]
    """Modalities that no training or pool utterance has: they are left out."""
    missing: Mapping[str, dict[str, Any]]
    """Per split, the record of :func:`~gmsa.data.describe_missing`."""

    @cached_property
    def training_utterances(self) -> Sequence[Utterance]:
        """The training split and the pool file, without their labels."""
        return changed(joined(self.splits["train"], self.pool), without_label, labels=False)

    def training_data(self, config: Config, seed: int) -> TrainingData:
        """The labeled share of a seed, and as pool the rest and the pool file.

        Raises:
            ConfigError: the protocol cannot train on it, such as with a ``self_training.k`` above the pool's size.
        """
        data, target = config.data, self.corpus.target
        label_seed = seed if data.label_seed is None else data.label_seed
        labeled, withheld = withhold_labels(self.splits["train"], data.label_ratio, label_seed, target, data.label_unit)
        found = TrainingData(labeled_examples(labeled, target), joined(withheld, self.pool))
        build_protocol(config).check_data(config, found)
        return found


def prepare(config: Config) -> Prepared:
    """Loads and normalizes the corpus of ``config``; the normalizer sees the training split only.

    Raises:
        DataError: a data file is missing, unsafe or wrong.
        ConfigError: nothing is left to train on, or the protocol cannot train what the config asks for.
    """
    check_protocol(config)
    whole = load_corpus(config.data, config.target, checked_texts(config))
    if config.graph.scope != "utterance":  # only then the order of utterances counts
        tell_order(whole.with_context, whole.pool, short(config.data.path))
        tell_shared(whole.with_context, short(config.data.path))
    masked = hide(whole, config.data.missing)
    missing = {
        split: describe_missing(whole.splits[split], masked.splits[split], config.data.missing.of(split), [*whole.dims])
        for split in whole.splits
    }
    if config.data.missing.of("train").protocol == "frame_uniform":
        missing["train"]["realized"] = None  # a new one in every epoch
    config = resolved(config, whole)
    _tell_useless(whole, config)
    _tell_long(whole, config)
    corpus, unseen = leave_out_unseen(masked)
    if not corpus.dims:
        raise ConfigError(
            f"'data.missing.train' ({config.data.missing.train}) hides every modality of 'data.modalities' "
            f"({', '.join(config.named_modalities)}) that the training split has; leave one of them"
        )
    check_fits(corpus, config)
    wanted = config.data.normalized(corpus.dims)
    normalizer = Normalizer.fit(corpus.splits["train"], wanted, config.data.clip)
    return Prepared(
        config,
        corpus,
        {split: changed(utterances, normalizer.apply) for split, utterances in corpus.splits.items()},
        changed(corpus.pool, normalizer.apply),
        _normalized_context(corpus, config, normalizer),
        normalizer,
        unseen,
        missing,
    )


def _normalized_context(corpus: Corpus, config: Config, normalizer: Normalizer) -> dict[str, Sequence[Utterance]]:
    """The context of each split that is in the dialogues of its utterances."""
    if not config.graph.has_dialogues:
        return {}
    found = {}
    for split, utterances in corpus.context.items():
        dialogues = set(videos_of(corpus.splits[split]))
        rows = [row for row, video in enumerate(videos_of(utterances)) if video in dialogues]
        found[split] = changed(taken(utterances, rows), normalizer.apply)
    return found


def resolved(config: Config, corpus: Corpus) -> Config:
    """The settings, with what the data says in the place of ``auto``: a run folder needs no data file to be used."""
    data, modalities = config.data, tuple(corpus.dims) if config.data.modalities == AUTO else config.data.modalities
    data = replace(data, modalities=modalities, normalize=data.normalized(modalities))
    target = corpus.target.settings(config.target, corpus.field)
    graph = replace(config.graph, speakers=_speakers(corpus)) if config.graph.speakers == "pairs" else config.graph
    model = config.model.bounded(_usual_steps(corpus)) if config.model.tokens else config.model
    run = replace(config.run, select=config.select)
    return replace(config, data=data, target=target, graph=graph, model=model, run=run)


def _usual_steps(corpus: Corpus) -> dict[str, int]:
    """Steps of each modality that 95 % of the training utterances which have it do not exceed."""
    found = {}
    for modality in corpus.dims:
        lengths = lengths_of(corpus.splits["train"], modality)
        lengths = np.sort(lengths[lengths > 0])
        found[modality] = int(lengths[math.ceil(0.95 * len(lengths)) - 1]) if len(lengths) else 0
    return found


def _tell_long(corpus: Corpus, config: Config) -> None:
    """Notes modalities of so many tokens that a bound on them would save most of the time."""
    if config.model.tokens:
        return
    tokens = {m: -(-length // config.model.stride(m)) for m, length in _usual_steps(corpus).items()}
    if long := [f"{modality} has {count}" for modality, count in tokens.items() if count > LONG]:
        note(
            f"{short(config.data.path)}: a step costs several times what it must: {listed(long)} tokens; set "
            f"'model.tokens' to {FEW} or so to let a token have more steps"
        )


def _speakers(corpus: Corpus) -> tuple[str, ...]:
    """The speakers of the training split, in alphabetical order."""
    found = sorted(set(names_of(corpus.splits["train"], "speaker")) - {""})
    if not found:
        raise ConfigError(
            f"'graph.speakers: pairs' has an edge type for each pair of 1 to {MOST_SPEAKERS} speakers, the training "
            "split has 0; name its speakers by 'data.speaker_from', or set it to none"
        )
    if len(found) > MOST_SPEAKERS:
        raise ConfigError(
            f"'graph.speakers: pairs' has an edge type for each pair of 1 to {MOST_SPEAKERS} speakers, the training "
            f"split has {len(found)}; set it to same_other, or list the most frequent"
        )
    return tuple(found)


def _tell_useless(corpus: Corpus, config: Config) -> None:
    """Notes settings of dialogues that change nothing in this data."""
    graph, name, train = config.graph, short(config.data.path), joined(corpus.splits["train"], corpus.pool)
    if not graph.has_dialogues:
        return
    if len(set(videos_of(train))) == len(train):
        note(
            f"{name}: no dialogue of the training split has two utterances, so that 'graph.scope: {graph.scope}' gives "
            "no context; data.video_from says how to tell the dialogues"
        )
    known = set(names_of(train, "speaker")) - {""}
    by_speaker = component_name(graph.between) == "speaker"
    if not known and (graph.speakers != "none" or by_speaker):
        key = "graph.between: speaker" if by_speaker else "graph.speakers"
        note(
            f"{name}: no utterance of the training split has a speaker, so that '{key}' takes all for one; "
            "data.speaker_from says how to tell the speakers"
        )
    elif isinstance(graph.speakers, tuple) and (absent := [s for s in graph.speakers if s not in known]):
        note(
            f"{name}: 'graph.speakers' lists {listed(absent[:3])}, who {'do' if absent[1:] else 'does'} not speak in "
            f"the training split; its speakers are {listed(sorted(known)[:MOST_SPEAKERS])}"
        )


def checked_texts(config: Config) -> Texts | None:
    """What reads the transcripts, with ``model.text_encoder``.

    Raises:
        ConfigError: the encoder cannot be used, or a setting asks for what its word pieces cannot give.
    """
    texts = texts_of(config)
    if config.text.dropout and not config.trains_text_encoder:
        raise ConfigError(
            "'text.dropout' masks word pieces that an encoder in training reads; name one by 'model.text_encoder' with "
            "'text.tuning' full or lora, or set it to 0"
        )
    if texts is None:
        return None
    for key, spec in _relations(config):
        if looks_at_times(component_name(spec)):
            raise ConfigError(
                f"'{key}: {component_name(spec)}' connects steps by their times, which the word pieces of "
                "'model.text_encoder' do not have; choose another builder there"
            )
    if config.data.modalities != AUTO and TEXT not in config.data.modalities:
        raise ConfigError(
            "'model.text_encoder' gives the modality 'text' its features, but 'data.modalities' does not name it; add "
            "it there, or leave the encoder out"
        )
    if texts.frozen:
        return texts
    masks_words = config.pretrain.epochs and not config.graph.has_dialogues
    for key, asked in (("text.dropout", config.text.dropout), ("pretrain.epochs", masks_words)):
        if asked and texts.pieces.mask is None:
            raise ConfigError(
                f"'{key}' masks word pieces, but the tokenizer of '{short(texts.folder.path)}' has no piece [MASK] or "
                "<mask> for that; choose another encoder, or set it to 0"
            )
    for key, spec in _relations(config):
        if looks_at_features(component_name(spec)):
            raise ConfigError(
                f"'{key}: {component_name(spec)}' compares features of text, which are numbers of word pieces with "
                "'model.text_encoder'; choose another builder there, or set 'text.tuning' to frozen"
            )
    graph = config.graph
    if graph.has_dialogues and "features" in wanted(component_name(graph.between)):
        raise ConfigError(
            f"'graph.between: {component_name(graph.between)}' compares features of text, too, which are numbers of "
            "word pieces with 'model.text_encoder'; choose another, or set 'text.tuning' to frozen"
        )
    if config.data.normalize != AUTO and TEXT in config.data.normalize:
        raise ConfigError(
            "'data.normalize' names 'text', whose features an encoder gives ('model.text_encoder'); leave it out there"
        )
    return texts


def _relations(config: Config) -> Iterator[tuple[str, str]]:
    """The settings of the relations between tokens that begin or end at text, and the builder that each names."""
    graph, others = config.graph, [m for m in config.named_modalities if m != TEXT]
    if graph.scope != "dialogue":
        yield f"graph.intra.{TEXT}", graph.intra.of(TEXT)
        for pair in (*(f"{TEXT}_to_{m}" for m in others), *(f"{m}_to_{TEXT}" for m in others)):
            yield f"graph.inter.{pair}", graph.inter.of(pair)


def reading(config: Config) -> tuple[Any, ...]:
    """The settings by which the data is read: configs that share them can share one reading."""
    data = replace(config.data, label_ratio=1.0, label_seed=None, label_unit="utterance")
    return data, config.target, config.model.text_encoder, config.text if config.model.text_encoder else None


def check_fits(corpus: Corpus, config: Config) -> None:
    """Checks that a config can be trained on a corpus.

    Raises:
        ConfigError: names the setting that does not fit.
    """
    if config.pretrain.epochs and not steps_of(corpus.splits["valid"]).any():
        raise ConfigError(
            "pre-training is validated on features, but no utterance of 'valid' has any; "
            "change 'data.missing.valid', or set 'pretrain.epochs' to 0"
        )
    read_metrics(config.run.metrics, config.target.chosen_kind)
    check(config)
    model_skeleton(corpus.dims, config)
    spec = graph_spec(config)
    check_builders(corpus.dims, spec)
    timed = any(map(looks_at_times, config.graph.builders))
    # Also checked batch by batch, but the longest utterance may come hours later.
    for split, utterances in (corpus.with_context if config.graph.has_dialogues else corpus.splits).items():
        # The pool is checked with the training split: a video may be spread over both.
        members = joined(utterances, corpus.pool) if split == "train" else utterances
        check_positions(members, spec)
        for utterance in members if timed else ():
            check_times(utterance, spec)


def hide(corpus: Corpus, config: MissingConfig) -> Corpus:
    """The corpus as masked by ``data.missing``, split by split; the pool is masked as the training split.

    ``frame_uniform`` does not mask the training split here: it draws new masks in every epoch.
    """
    modalities = list(corpus.dims)

    def of(utterances: Sequence[Utterance], split: str) -> Sequence[Utterance]:
        missing = config.of(split)
        if split == "train" and missing.protocol == "frame_uniform":
            return utterances
        try:
            return apply_missing(utterances, missing, modalities, config.seed)
        except ConfigError as error:
            raise ConfigError(f"'data.missing.{split}': {error}") from None

    splits = {split: of(utterances, split) for split, utterances in corpus.splits.items()}
    context = {split: of(utterances, split) for split, utterances in corpus.context.items()}
    return replace(corpus, splits=splits, pool=of(corpus.pool, "train"), context=context)


def leave_out_unseen(corpus: Corpus) -> tuple[Corpus, list[str]]:
    """The corpus without the modalities that no training utterance has, and their names.

    Their encoders would stay as they were initialized, and add noise to the predictions.
    """
    training = joined(corpus.splits["train"], corpus.pool)
    shown = {m for m in corpus.dims if lengths_of(training, m).any()}
    unseen = [m for m in corpus.dims if m not in shown]
    if not unseen:
        return corpus, []

    def keep(utterances: Sequence[Utterance]) -> Sequence[Utterance]:
        return changed(utterances, partial(_selected, shown), kept=shown)

    dims = {m: dim for m, dim in corpus.dims.items() if m in shown}
    splits, context = (
        {split: keep(utterances) for split, utterances in of.items()} for of in (corpus.splits, corpus.context)
    )
    return replace(corpus, splits=splits, dims=dims, pool=keep(corpus.pool), context=context), unseen


def _selected(modalities: Collection[str], utterance: Utterance) -> Utterance:
    features, withheld = (select(of, modalities) for of in (utterance.features, utterance.withheld))
    return replace(utterance, features=features, withheld=withheld)
