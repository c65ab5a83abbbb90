"""Batches of examples for training and validation."""

# B utterances, K classes
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from typing import TypeVar

import numpy as np

from gmsa.config import Config
from gmsa.config.presets import TEXT
from gmsa.data import Target, Utterance
from gmsa.graph import GraphBatch, GraphSpec, collate, token_count
from gmsa.models import graph_spec
from gmsa.rng import generator, seeds_for
from gmsa.text.pieces import NONE
from gmsa.training.examples import Example, Targets, collate_targets
from gmsa.training.masking import (
    mask_steps,
    modality_dropout,
    reconstruction_targets,
    taught_modalities,
    uncovered,
    word_dropout,
)

T = TypeVar("T")
WINDOW = 16
"""Batches whose utterances are sorted together by length: more pads less and shuffles less."""
MOST_NODES = 2**11
"""Nodes of a batch that is scored, padding included: larger ones leave the caches of a processor."""
MOST_NODES_ON_GPU = 2**15
"""The same on a GPU, which larger ones keep busy."""


@dataclass(frozen=True)
class Shard:
    """The share of an epoch's batches that one worker of one process builds."""

    skip: int = 0
    """Batches to skip at the start: those of a resumed epoch that are done."""
    every: int = 1
    offset: int = 0
    """A worker of the loader builds the batches whose index, after those, is ``offset`` modulo ``every``."""
    rank: int = 0
    world: int = 1
    """A process trains on the groups of each batch whose index is ``rank`` modulo ``world``."""

    def select(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches to build."""
        return islice(batches, self.skip + self.offset, None, self.every)


WHOLE = Shard()
"""All batches, undivided."""


def buckets(lengths: Sequence[int], batch_size: int, *seed: int | str) -> list[list[int]]:
    """Shuffled batches of indices of similar lengths, so that there is little padding.

    The order is a pure function of ``seed``. Every index is in exactly one batch.
    """
    rng = generator(*seed, "batches")
    order = rng.permutation(len(lengths))
    size = np.asarray(lengths)
    step = batch_size * WINDOW
    batches = []
    for start in range(0, len(order), step):
        window = order[start : start + step]
        window = window[np.argsort(size[window], kind="stable")]
        batches += [window[i : i + batch_size].tolist() for i in range(0, len(window), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def bounded(order: Iterable[int], nodes: Sequence[int], most: int, most_nodes: int) -> list[list[int]]:
    """Batches of indices in their order: up to ``most``, and up to ``most_nodes`` when padded to the largest, if not
    one alone has more.

    >>> bounded([1, 2, 0, 4, 3], nodes=[9, 2, 3, 40, 10], most=3, most_nodes=20)
    [[1, 2], [0, 4], [3]]
    """
    batches: list[list[int]] = []
    largest = 0
    for i in order:
        largest = max(largest, nodes[i])
        if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * largest > most_nodes:
            batches.append([])
            largest = nodes[i]
        batches[-1].append(i)
    return batches


def training_batches(
    examples: Sequence[Example],
    config: Config,
    *seed: int | str,
    context: Sequence[Utterance] = (),
    full_view: bool = False,
    shard: Shard = WHOLE,
) -> Iterator[tuple[GraphBatch, Targets] | None]:
    """One epoch of batches; dropped modalities, words and edges, and the order, are pure functions of ``seed`` and id.

    A batch is None where ``shard`` has no share of it.

    Args:
        context: utterances without targets that are nodes in the graphs of the examples' dialogues.
        full_view: the targets hold the batch of the same utterances without ``model.modality_dropout`` and
            ``text.dropout``.
    """
    groups, spec, target = SampleGroups(examples, config, context), graph_spec(config), Target.of(config.target)
    own_labels = config.named_modalities if config.loss.unimodal_weight else ()
    for positions in groups.batches(*seed, shard=shard):
        if not positions:
            yield None
            continue
        chosen = [groups.flat[position] for position in positions]
        there = mask_steps([e.utterance for e in chosen], config, *seed)
        batch = modality_dropout(there, config, *seed)
        hidden, whole = {}, None
        if config.reconstruction.weight:
            known = uncovered(there, config)
            hidden = reconstruction_targets(batch, known, config)
            whole = without_edges(known, spec) if taught_modalities(config, there[0].features) else None
        batch = word_dropout(batch, config, *seed)
        lost = None
        if config.graph.edge_dropout or config.graph.context_dropout:
            names = [u.id for u in batch]
            lost = dict(zip(names, seeds_for(*seed, "edges", each=names), strict=True))
        untouched = collate(there, spec) if full_view else None
        targets = collate_targets(chosen, batch, target, own_labels)
        yield collate(batch, spec, lost), targets._replace(hidden=hidden, full_view=untouched, uncovered=whole)


def without_edges(utterances: Sequence[Utterance], spec: GraphSpec) -> GraphBatch:
    """A batch whose features are read, without the graphs' edges and without those of dialogues around them."""
    return collate(utterances, spec.inside if spec.graph.scope == "hierarchical" else spec, streams=())


def scoring_batches(
    utterances: Sequence[Utterance],
    config: Config,
    context: Sequence[Utterance] = (),
    shard: Shard = WHOLE,
    most_nodes: int = MOST_NODES,
) -> Iterator[tuple[list[int], list[int], GraphBatch]]:
    """All utterances, sorted by length, in the same batches every time; each of several processes takes whole batches.

    With each batch come the rows to score and their indices in ``utterances``; its other rows are ``context``.

    Args:
        most_nodes: of a batch of several graphs, which has about ``optim.batch_size`` utterances if they are short.
    """
    examples = [Example(u) for u in utterances]
    places = {id(e): i for i, e in enumerate(examples)}
    all_groups, spec = SampleGroups(examples, config, context), graph_spec(config)
    order = np.argsort(all_groups.sizes, kind="stable").tolist()
    batches = bounded(order, all_groups.nodes(spec), all_groups.per_batch, most_nodes)
    for numbers in batches[shard.rank :: shard.world]:
        chosen = [e for number in numbers for e in all_groups.groups[number]]
        rows = [row for row, e in enumerate(chosen) if id(e) in places]
        yield (
            rows,
            [places[id(chosen[row])] for row in rows],
            collate([e.utterance for e in chosen], spec),
        )


class SampleGroups:
    """Groups of examples that share a graph: each example by itself, or those of a dialogue with their context."""

    def __init__(self, examples: Sequence[Example], config: Config, context: Sequence[Utterance] = ()) -> None:
        self.groups = [[e] for e in examples]
        if config.graph.has_dialogues:
            self.groups = _dialogues(examples, context)
        self.flat = [e for group in self.groups for e in group]
        """The examples of all groups, concatenated."""
        self.per_batch = max(1, round(config.optim.batch_size * len(self.groups) / max(1, len(self.flat))))
        """Groups in a batch, which then has about ``optim.batch_size`` utterances."""
        self._counts_pieces = config.trains_text_encoder and config.text.nodes == "transcript"

    def _count_pieces(self, utterance: Utterance) -> int:
        if not self._counts_pieces or TEXT not in utterance.features:
            return 0
        return int((utterance.features[TEXT] != NONE).sum())

    @cached_property
    def sizes(self) -> list[int]:
        """Time steps of each group's utterances, and the word pieces of one whose transcript is a single step.

        Groups of similar sizes are in a batch.
        """
        return [sum(e.utterance.steps + self._count_pieces(e.utterance) for e in group) for group in self.groups]

    def nodes(self, spec: GraphSpec) -> list[int]:
        """Tokens and readout nodes of each group's utterances, and word pieces as :attr:`sizes` counts them."""
        strides = spec.strides

        def count(utterance: Utterance) -> int:
            tokens: int = sum(token_count(length, strides[m]) for m, length in utterance.lengths.items())
            return tokens + len(spec.readouts) + self._count_pieces(utterance)

        return [sum(count(e.utterance) for e in group) for group in self.groups]

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.groups) // self.per_batch)

    def batches(self, *seed: int | str, shard: Shard = WHOLE) -> Iterator[list[int]]:
        """One epoch of batches, or a shard of it: indices into ``flat``, a pure function of ``seed``."""
        ends = list(accumulate(map(len, self.groups), initial=0))
        for chosen in shard.select(buckets(self.sizes, self.per_batch, *seed)):
            yield [position for i in chosen[shard.rank :: shard.world] for position in range(ends[i], ends[i + 1])]


def _dialogues(examples: Sequence[Example], context: Sequence[Utterance]) -> list[list[Example]]:
    videos: dict[str, list[Example]] = {}
    for example in examples:
        videos.setdefault(example.utterance.video, []).append(example)
    known = {e.utterance.id for e in examples}
    for utterance in context:
        if utterance.video in videos and utterance.id not in known:
            videos[utterance.video].append(Example(utterance))
            known.add(utterance.id)
    return list(videos.values())
