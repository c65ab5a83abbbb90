"""Label ratio: chooses which training utterances keep their labels."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import torch

from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance
from gmsa.rng import seed_for


def withhold_labels(
    utterances: Sequence[Utterance], ratio: float, seed: int, target: Target | None = None
) -> tuple[list[Utterance], list[Utterance]]:
    """Splits utterances into a labeled set and an unlabeled pool.

    The labeled set is stratified over the classes, an intensity's or the target's, as far as nested sets allow: with
    the same seed, a larger ratio keeps every label that a smaller one keeps. The choice depends on seed, ids and labels
    only, not on the order of the utterances.

    Args:
        utterances: the training split; utterances without a label go to the pool.
        ratio: share of the labeled utterances that keep their labels, in (0, 1] (rounded, at least one utterance).
        seed: seed of the choice.
        target: what the labels are (default: intensities in [-3, 3]).

    Returns:
        The labeled utterances, and the pool, in which the labels of single modalities are removed too; both in the
        given order.

    >>> from gmsa.data import synthetic_corpus
    >>> labeled, pool = withhold_labels(synthetic_corpus().splits["train"], ratio=0.25, seed=1)
    >>> len(labeled), len(pool), pool[0].label
    (100, 300, None)
    """
    labeled = [utterance for utterance in utterances if utterance.label is not None]
    values = torch.tensor([utterance.label for utterance in labeled], dtype=torch.float64)
    classes = (target or Target()).to_class(values)
    members: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for utterance, class_ in zip(labeled, classes.tolist(), strict=True):
        members[class_].append((seed_for(seed, "label ratio", utterance.id), utterance.id))
    # Within each class, positions in (0, 1) at equal distances: any prefix of the joint order is stratified.
    order = sorted(
        ((rank + 0.5) / len(drawn), draw, identity)
        for drawn in members.values()
        for rank, (draw, identity) in enumerate(sorted(drawn))
    )
    count = max(1, int(ratio * len(labeled) + 0.5))
    kept = {identity for _, _, identity in order[:count]}
    pool = [dataclasses.replace(u, label=None, unimodal={}) for u in utterances if u.id not in kept]
    return [utterance for utterance in utterances if utterance.id in kept], pool
