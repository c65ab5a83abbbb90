"""Label ratio: which training utterances keep their labels."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import torch

from gmsa.data.targets import to_class
from gmsa.data.utterance import Utterance
from gmsa.rng import seed_for


def withhold_labels(
    utterances: Sequence[Utterance], ratio: float, seed: int, label_scale: str = "mosi"
) -> tuple[list[Utterance], list[Utterance]]:
    """Splits utterances into those that keep their labels and a pool of those whose labels are withheld.

    ``ratio`` of the labeled utterances keep theirs (rounded, at least one), as near to the same share of each of
    the seven classes as nested sets allow: for one seed, what a smaller ratio keeps, a larger one keeps too. The
    choice depends on seed, ids and labels alone, not on the order of the file. Utterances without a label go to
    the pool, whose labels of single modalities are withheld as well. Both lists are in the given order.
    """
    labeled = [utterance for utterance in utterances if utterance.label is not None]
    classes = to_class(torch.tensor([utterance.label for utterance in labeled], dtype=torch.float64), label_scale)
    members: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for utterance, class_ in zip(labeled, classes.tolist(), strict=True):
        members[class_].append((seed_for(seed, "label ratio", utterance.id), utterance.id))
    # Within each class, places in (0, 1) at equal distances: any prefix of the joint order is stratified.
    order = sorted(
        ((rank + 0.5) / len(drawn), draw, identity)
        for drawn in members.values()
        for rank, (draw, identity) in enumerate(sorted(drawn))
    )
    count = max(1, int(ratio * len(labeled) + 0.5))
    kept = {identity for _, _, identity in order[:count]}
    pool = [dataclasses.replace(u, label=None, unimodal={}) for u in utterances if u.id not in kept]
    return [utterance for utterance in utterances if utterance.id in kept], pool
