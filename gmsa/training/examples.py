"""What a training step learns from: utterances with labels or pseudo-labels, and their batches."""

# B utterances, K classes
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmsa.config import Config
from gmsa.data import NUM_CLASSES, Utterance, apply_missing, hide_modalities, to_class
from gmsa.graph import GraphBatch, collate
from gmsa.rng import generator, hashed_uniform, seeds_for

WINDOW = 16
"""Batches whose utterances are sorted together by length: more pads less and shuffles less."""


@dataclass(frozen=True, eq=False)
class Example:
    """An utterance with what a model should say of it; one without targets is context in its video's graph."""

    utterance: Utterance
    value: float = math.nan
    """Sentiment intensity; NaN where only the classes are known, as for the paper's pseudo-labels."""
    classes: Tensor = field(default_factory=lambda: torch.zeros(NUM_CLASSES))
    """Class probabilities ``[K]``; a label gives one 1; all 0 where nothing is known."""


class Targets(NamedTuple):
    """Targets of B examples."""

    value: Tensor
    """Sentiment intensity ``[B]``; NaN where only the classes are known."""
    classes: Tensor
    """Class probabilities ``[B, K]``."""

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return Targets(*(t.to(device, non_blocking=True) for t in self))

    def pin_memory(self) -> Targets:
        """The same targets in page-locked memory."""
        return Targets(*(t.pin_memory() for t in self))


def labeled_examples(utterances: Sequence[Utterance], scheme: str) -> list[Example]:
    """Examples of labeled utterances on the label scale ``scheme``."""
    labels = torch.tensor([u.label for u in utterances], dtype=torch.float32)
    classes = torch.eye(NUM_CLASSES)[to_class(labels, scheme)]
    return [Example(u, y, c) for u, y, c in zip(utterances, labels.tolist(), classes, strict=True)]


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
    examples: Sequence[Example], config: Config, *seed: int | str, context: Sequence[Utterance] = ()
) -> Iterator[tuple[GraphBatch, Targets]]:
    """One epoch of batches; hidden modalities, lost edges and order are pure functions of ``seed`` and utterance id.

    Args:
        context: utterances without targets that stand in the graphs of the examples' videos (video graphs).
    """
    units = _units(examples, [Example(u) for u in context], config)
    sizes = [sum(e.utterance.steps for e in unit) for unit in units]
    flat = [e for unit in units for e in unit]
    shown = _hide([e.utterance for e in flat], config, *seed)
    values, classes = torch.tensor([e.value for e in flat]), torch.stack([e.classes for e in flat])
    ends = list(accumulate(map(len, units), initial=0))
    for indices in buckets(sizes, _units_per_batch(units, config), *seed):
        places = [place for i in indices for place in range(ends[i], ends[i + 1])]
        targets, batch = Targets(values[places], classes[places]), [shown[place] for place in places]
        lost = None
        if config.graph.edge_dropout:
            names = [u.id for u in batch]
            lost = dict(zip(names, seeds_for(*seed, "edges", each=names), strict=True))
        yield collate(batch, config, lost), targets


def _hide(utterances: Sequence[Utterance], config: Config, *seed: int | str) -> Sequence[Utterance]:
    """The utterances of an epoch, each without the modalities that are hidden in it."""
    missing = config.data.missing.of("train")
    if missing.protocol == "frame_uniform":
        utterances = apply_missing(utterances, missing, list(utterances[0].features), *seed)
    rates = asdict(config.model.modality_dropout)
    if not any(rates.values()):
        return utterances
    seeds = torch.tensor(seeds_for(*seed, "hide", each=(u.id for u in utterances)))[:, None]
    return hide_modalities(utterances, rates, hashed_uniform(seeds, torch.arange(len(rates) + 1)).numpy())


def batches_per_epoch(examples: Sequence[Example], config: Config, context: Sequence[Utterance] = ()) -> int:
    """How many batches :func:`training_batches` gives."""
    units = _units(examples, [Example(u) for u in context], config)
    return -(-len(units) // _units_per_batch(units, config))


def scoring_batches(
    utterances: Sequence[Utterance], config: Config, context: Sequence[Utterance] = ()
) -> Iterator[tuple[list[int], list[int], GraphBatch]]:
    """All utterances, sorted by length: the same batches every time.

    With each batch come the rows of it that are scored, and the places of those in ``utterances``; its other rows
    are ``context``.
    """
    examples = [Example(u) for u in utterances]
    places = {id(e): i for i, e in enumerate(examples)}
    units = _units(examples, [Example(u) for u in context], config)
    units.sort(key=lambda unit: sum(e.utterance.steps for e in unit))
    step = _units_per_batch(units, config)
    for start in range(0, len(units), step):
        chosen = [e for unit in units[start : start + step] for e in unit]
        rows = [row for row, e in enumerate(chosen) if id(e) in places]
        yield rows, [places[id(chosen[row])] for row in rows], collate([e.utterance for e in chosen], config)


def _units(examples: Sequence[Example], context: Sequence[Example], config: Config) -> list[list[Example]]:
    """What cannot be parted: each example by itself, or the videos that have some, with their context."""
    if config.graph.scope == "utterance":
        return [[e] for e in examples]
    videos: dict[str, list[Example]] = {}
    for example in examples:
        videos.setdefault(example.utterance.video, []).append(example)
    known = {e.utterance.id for e in examples}
    for example in context:
        if example.utterance.video in videos and example.utterance.id not in known:
            videos[example.utterance.video].append(example)
            known.add(example.utterance.id)
    return list(videos.values())


def _units_per_batch(units: Sequence[Sequence[Example]], config: Config) -> int:
    """Units whose utterances are about ``optim.batch_size``."""
    utterances = sum(map(len, units))
    return max(1, round(config.optim.batch_size * len(units) / max(1, utterances)))
