"""Batches of examples for training and scoring."""

# B utterances, K classes
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TypeVar

import numpy as np
import torch

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.graph import GraphBatch, collate
from gmsa.models import graph_spec
from gmsa.rng import generator, seeds_for
from gmsa.training.examples import Example, Targets
from gmsa.training.masking import _drop_modalities, _hidden, lose_steps

T = TypeVar("T")
WINDOW = 16
"""Batches whose utterances are sorted together by length: more pads less and shuffles less."""


@dataclass(frozen=True)
class Shard:
    """What of an epoch's batches is built: after the first ones, every so many-th, and of each a part."""

    behind: int = 0
    """Batches that are passed over at the start."""
    every: int = 1
    offset: int = 0
    """Of the batches that follow, those whose number is ``offset`` modulo ``every``: what a loader's worker builds."""
    rank: int = 0
    world: int = 1
    """Of each batch, the units whose number is ``rank`` modulo ``world``: what a process of several trains on."""

    def of(self, batches: Iterable[T]) -> Iterator[T]:
        """Those of the batches that are to be built."""
        return islice(batches, self.behind + self.offset, None, self.every)


WHOLE = Shard()
"""All of it."""


def buckets(lengths: Sequence[int], batch_size: int, *seed: int | str) -> list[list[int]]:
    """Shuffled batches of indices whose lengths are alike, so that little is padding.

    The order is a pure function of ``seed``. Every index stands in exactly one batch.
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


def training_batches(
    examples: Sequence[Example],
    config: Config,
    *seed: int | str,
    context: Sequence[Utterance] = (),
    full_view: bool = False,
    shard: Shard = WHOLE,
) -> Iterator[tuple[GraphBatch, Targets] | None]:
    """One epoch of batches; hidden modalities, lost edges and order are pure functions of ``seed`` and utterance id.

    A batch of which ``shard`` has no part is None.

    Args:
        context: utterances without targets that stand in the graphs of the examples' videos (video graphs).
        full_view: the targets hold the batch of the same utterances without ``model.modality_dropout``.
    """
    units, spec = SampleGroups(examples, config, context), graph_spec(config)
    for places in units.batches(*seed, shard=shard):
        if not places:
            yield None
            continue
        chosen = [units.flat[place] for place in places]
        there = lose_steps([e.utterance for e in chosen], config, *seed)
        batch = _drop_modalities(there, config, *seed)
        hidden = _hidden(batch, there, config) if config.reconstruction.weight else {}
        lost = None
        if config.graph.edge_dropout:
            names = [u.id for u in batch]
            lost = dict(zip(names, seeds_for(*seed, "edges", each=names), strict=True))
        untouched = collate(there, spec) if full_view else None
        values, classes = torch.tensor([e.value for e in chosen]), torch.stack([e.classes for e in chosen])
        yield collate(batch, spec, lost), Targets(values, classes, hidden, untouched)


def scoring_batches(
    utterances: Sequence[Utterance], config: Config, context: Sequence[Utterance] = (), shard: Shard = WHOLE
) -> Iterator[tuple[list[int], list[int], GraphBatch]]:
    """All utterances, sorted by length: the same batches every time. Of several processes each takes whole batches.

    With each batch come the rows of it that are scored, and the places of those in ``utterances``; its other rows
    are ``context``.
    """
    examples = [Example(u) for u in utterances]
    places = {id(e): i for i, e in enumerate(examples)}
    units, spec = SampleGroups(examples, config, context), graph_spec(config)
    groups = sorted(units.groups, key=_size)
    for start in range(0, len(groups), units.per_batch)[shard.rank :: shard.world]:
        chosen = [e for unit in groups[start : start + units.per_batch] for e in unit]
        rows = [row for row, e in enumerate(chosen) if id(e) in places]
        yield (
            rows,
            [places[id(chosen[row])] for row in rows],
            collate([e.utterance for e in chosen], spec),
        )


class SampleGroups:
    """Examples in groups that cannot be parted: each by itself, or the videos that have some, with their context."""

    def __init__(self, examples: Sequence[Example], config: Config, context: Sequence[Utterance] = ()) -> None:
        self.groups = [[e] for e in examples]
        if config.graph.scope == "video":
            self.groups = _videos(examples, context)
        self.flat = [e for group in self.groups for e in group]
        """The examples of all groups, end to end."""
        self.per_batch = max(1, round(config.optim.batch_size * len(self.groups) / max(1, len(self.flat))))
        """Groups whose utterances are about ``optim.batch_size``."""

    @property
    def per_epoch(self) -> int:
        """How many batches :meth:`batches` gives."""
        return -(-len(self.groups) // self.per_batch)

    def batches(self, *seed: int | str, shard: Shard = WHOLE) -> Iterator[list[int]]:
        """One epoch of batches, or a share of it: places in ``flat``, a pure function of ``seed``."""
        ends = list(accumulate(map(len, self.groups), initial=0))
        for chosen in shard.of(buckets(list(map(_size, self.groups)), self.per_batch, *seed)):
            yield [place for i in chosen[shard.rank :: shard.world] for place in range(ends[i], ends[i + 1])]


def _videos(examples: Sequence[Example], context: Sequence[Utterance]) -> list[list[Example]]:
    videos: dict[str, list[Example]] = {}
    for example in examples:
        videos.setdefault(example.utterance.video, []).append(example)
    known = {e.utterance.id for e in examples}
    for utterance in context:
        if utterance.video in videos and utterance.id not in known:
            videos[utterance.video].append(Example(utterance))
            known.add(utterance.id)
    return list(videos.values())


def _size(group: Sequence[Example]) -> int:
    """Steps of a group's utterances."""
    return sum(e.utterance.steps for e in group)
