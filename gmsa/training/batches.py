"""Batches of examples for training and validation."""

# B utterances, K classes
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np

from gmsa.config import Config
from gmsa.config.presets import TEXT
from gmsa.data import Target, Utterance
from gmsa.data.lazy import ids_of, joined, lengths_of, shards_of, steps_of, taken, videos_of
from gmsa.graph import GraphBatch, GraphSpec, collate, token_count
from gmsa.models import graph_spec
from gmsa.rng import generator, seeds_for
from gmsa.text.pieces import NONE
from gmsa.training.examples import Example, Targets, collate_targets, plain_examples, utterances_of
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


def buckets(
    lengths: Sequence[int] | np.ndarray,
    batch_size: int,
    *seed: int | str,
    shards: np.ndarray | None = None,
    shard_window: int = 0,
) -> Iterator[list[int]]:
    """Shuffled batches of indices of similar lengths, so that there is little padding.

    The order is a pure function of ``seed``. Every index is in exactly one batch.

    Args:
        shards: the number of the shard that holds each, for an order in which few shards are read at a time: shards are
            shuffled, then what is in each ``shard_window`` of them in turn.
    """
    rng = generator(*seed, "batches")
    windows = [np.arange(len(lengths))]
    if shards is not None and shard_window and len(numbers := np.unique(shards)) > shard_window:
        numbers = rng.permutation(numbers)
        chosen = (numbers[i : i + shard_window] for i in range(0, len(numbers), shard_window))
        windows = [np.flatnonzero(np.isin(shards, some)) for some in chosen]
    order = np.concatenate([rng.permutation(window).astype(np.int32) for window in windows])
    size = np.asarray(lengths)
    for start in range(0, len(order), batch_size * WINDOW):
        window = order[start : start + batch_size * WINDOW]
        window[:] = window[np.argsort(size[window], kind="stable")]
    ends = np.cumsum([len(window) for window in windows])
    bounds = [0, *(-(-ends // batch_size)).tolist()]  # a batch at the border of two windows belongs to the first
    for first, last in pairwise(bounds):
        for batch in first + rng.permutation(last - first):
            yield order[batch * batch_size : (batch + 1) * batch_size].tolist()


def bounded(order: Iterable[int], nodes: Sequence[int] | np.ndarray, most: int, most_nodes: int) -> Iterator[list[int]]:
    """Batches of indices in their order: up to ``most``, and up to ``most_nodes`` when padded to the largest, if not
    one alone has more.

    >>> [*bounded([1, 2, 0, 4, 3], nodes=[9, 2, 3, 40, 10], most=3, most_nodes=20)]
    [[1, 2], [0, 4], [3]]
    """
    batch: list[int] = []
    largest = 0
    for i in order:
        largest = max(largest, nodes[i])
        if batch and (len(batch) == most or (len(batch) + 1) * largest > most_nodes):
            yield batch
            batch, largest = [], nodes[i]
        batch.append(i)
    if batch:
        yield batch


def training_batches(
    examples: Sequence[Example] | SampleGroups,
    config: Config,
    *seed: int | str,
    context: Sequence[Utterance] = (),
    full_view: bool = False,
    shard: Shard = WHOLE,
    rounded: bool = False,
) -> Iterator[tuple[GraphBatch, Targets] | None]:
    """One epoch of batches; dropped modalities, words and edges, and the order, are pure functions of ``seed`` and id.

    A batch is None where ``shard`` has no share of it.

    Args:
        examples: what is trained on, or the groups of it.
        context: utterances without targets that are nodes in the graphs of the examples' dialogues.
        full_view: the targets hold the batch of the same utterances without ``model.modality_dropout`` and
            ``text.dropout``.
        rounded: batches are rounded up to few shapes, by graphs without targets.
    """
    groups = examples if isinstance(examples, SampleGroups) else SampleGroups(examples, config, context)
    spec, target = graph_spec(config), Target.of(config.target)
    own_labels = config.named_modalities if config.loss.unimodal_weight else ()
    for positions in groups.batches(*seed, shard=shard):
        if not positions:
            yield None
            continue
        chosen = [groups.example(position) for position in positions]
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
        graphs = collate(batch, spec, lost, rounded=rounded)
        targets = collate_targets(
            chosen, batch, target, own_labels, further=len(graphs.sizes) - len(batch) if rounded else 0
        )
        yield graphs, targets._replace(hidden=hidden, full_view=untouched, uncovered=whole)


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
    groups, spec = SampleGroups(plain_examples(utterances), config, context), graph_spec(config)
    order = np.argsort(groups.sizes, kind="stable").tolist()
    batches = bounded(order, groups.nodes(spec), groups.per_batch, most_nodes)
    for numbers in islice(batches, shard.rank, None, shard.world):
        chosen = [position for number in numbers for position in groups.members(number)]
        places = [groups.place(position) for position in chosen]
        rows = [row for row, place in enumerate(places) if place < len(utterances)]
        batch = collate([groups.example(position).utterance for position in chosen], spec)
        yield rows, [places[row] for row in rows], batch


class SampleGroups:
    """Groups of examples that share a graph: each example by itself, or those of a dialogue with their context."""

    def __init__(self, examples: Sequence[Example], config: Config, context: Sequence[Utterance] = ()) -> None:
        self._ends, self._order = np.arange(1, len(examples) + 1), None
        if config.graph.has_dialogues:
            examples, self._order, self._ends = _dialogues(examples, context)
        self._examples = examples
        self.per_batch = max(1, round(config.optim.batch_size * len(self) / max(1, self.size)))
        """Groups in a batch, which then has about ``optim.batch_size`` utterances."""
        self._shard_window = config.optim.shard_window
        self._counts_pieces = config.trains_text_encoder and config.text.nodes == "transcript"

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def size(self) -> int:
        """Examples of all groups."""
        return len(self._examples) if self._order is None else len(self._order)

    def example(self, position: int) -> Example:
        """The example at a position among those of all groups, concatenated."""
        return self._examples[self.place(position)]

    def place(self, position: int) -> int:
        """Where the example at a position stands among those that were given; after them stand those of the context."""
        return position if self._order is None else int(self._order[position])

    def members(self, group: int) -> range:
        """The positions of a group."""
        return range(int(self._ends[group - 1]) if group else 0, int(self._ends[group]))

    def _count_pieces(self) -> np.ndarray:
        """Word pieces of each utterance whose transcript is a single step, else 0."""
        if not self._counts_pieces:
            return np.zeros(len(self._examples), np.int64)
        texts = (e.utterance.features.get(TEXT) for e in self._examples)
        return np.array([0 if text is None else int((text != NONE).sum()) for text in texts], np.int64)

    def _of_groups(self, counts: np.ndarray) -> np.ndarray:
        """The sums over each group of what is counted of each example."""
        if self._order is None:
            return counts
        sums = np.cumsum(counts[self._order])[self._ends - 1]
        return np.diff(sums, prepend=0)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Time steps of each group's utterances, and the word pieces of one whose transcript is a single step.

        Groups of similar sizes are in a batch.
        """
        return self._of_groups(steps_of(utterances_of(self._examples)) + self._count_pieces())

    def nodes(self, spec: GraphSpec) -> np.ndarray:
        """Tokens and readout nodes of each group's utterances, and word pieces as :attr:`sizes` counts them."""
        utterances = utterances_of(self._examples)
        counts = self._count_pieces() + len(spec.readouts)
        for modality, stride in spec.strides.items():
            counts = counts + token_count(lengths_of(utterances, modality), stride)
        return self._of_groups(counts)

    @property
    def _shards(self) -> np.ndarray | None:
        """The shard of each group, that of its first example; None where they do not matter."""
        if not self._shard_window:
            return None
        found = shards_of(utterances_of(self._examples))
        return found if self._order is None else found[self._order[np.concatenate([[0], self._ends[:-1]])]]

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return -(-len(self) // self.per_batch)

    def batches(self, *seed: int | str, shard: Shard = WHOLE) -> Iterator[list[int]]:
        """One epoch of batches, or a shard of it: positions, a pure function of ``seed``."""
        order = buckets(self.sizes, self.per_batch, *seed, shards=self._shards, shard_window=self._shard_window)
        for chosen in shard.select(order):
            yield [position for i in chosen[shard.rank :: shard.world] for position in self.members(i)]


def _dialogues(
    examples: Sequence[Example], context: Sequence[Utterance]
) -> tuple[Sequence[Example], np.ndarray, np.ndarray]:
    """The examples and then their context, the order in which they stand dialogue by dialogue, and where each ends."""
    utterances = utterances_of(examples)
    numbers: dict[str, int] = {}
    of = [numbers.setdefault(video, len(numbers)) for video in videos_of(utterances)]
    known, chosen = set(ids_of(utterances)), []
    for row, (video, name) in enumerate(zip(videos_of(context), ids_of(context), strict=True)):
        if video in numbers and name not in known:
            of.append(numbers[video])
            chosen.append(row)
            known.add(name)
    counts = np.bincount(of, minlength=len(numbers))
    order = np.argsort(np.array(of, np.int32), kind="stable").astype(np.int32)
    return joined(examples, plain_examples(taken(context, chosen))), order, np.cumsum(counts)
