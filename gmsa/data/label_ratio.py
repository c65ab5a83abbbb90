"""Label ratio: chooses which training utterances keep their labels."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from gmsa.data.splits import classes_of, stratified
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance
from gmsa.rng import seed_for


def withhold_labels(
    utterances: Sequence[Utterance],
    ratio: float,
    seed: int,
    target: Target | None = None,
    unit: str = "utterance",
) -> tuple[list[Utterance], list[Utterance]]:
    """Splits utterances into a labeled set and an unlabeled pool.

    The labeled set is stratified over the classes, an intensity's or the target's, as far as nested sets allow: with
    the same seed, a larger ratio keeps every label that a smaller one keeps. The choice depends on seed, ids and labels
    only, not on the order of the utterances.

    With the unit ``dialogue`` a dialogue keeps its labels or loses them as a whole, and counts for the class of its
    mean label; the labeled set is as near to the share as the next dialogue allows.

    Args:
        utterances: the training split; utterances without a label go to the pool.
        ratio: share of the labeled utterances that keep their labels, in (0, 1] (rounded, at least one utterance).
        seed: seed of the choice.
        target: what the labels are (default: intensities in [-3, 3]).
        unit: ``utterance`` or ``dialogue``, as ``data.label_unit`` (default: ``utterance``).

    Returns:
        The labeled utterances, and the pool, in which the labels of single modalities are removed too; both in the
        given order.

    >>> from gmsa.data import synthetic_corpus
    >>> labeled, pool = withhold_labels(synthetic_corpus().splits["train"], ratio=0.25, seed=1)
    >>> len(labeled), len(pool), pool[0].label
    (100, 300, None)
    """
    labeled = [utterance for utterance in utterances if utterance.label is not None]
    target = target or Target()
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in labeled:
        groups[utterance.video if unit == "dialogue" else utterance.id].append(utterance)
    order = stratified(classes_of(groups, target), lambda name: seed_for(seed, "label ratio", name)) if groups else []
    count = max(1, int(ratio * len(labeled) + 0.5))
    kept: set[str] = set()
    for name in order:
        # A whole dialogue joins if that brings the set nearer to the share; the order is the same for all shares.
        if kept and len(kept) + len(groups[name]) / 2 > count:
            break
        kept.update(utterance.id for utterance in groups[name])
    pool = [dataclasses.replace(u, label=None, unimodal={}) for u in utterances if u.id not in kept]
    return [utterance for utterance in utterances if utterance.id in kept], pool
