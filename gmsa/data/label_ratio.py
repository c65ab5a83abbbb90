"""Label ratio: chooses which training utterances keep their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gmsa.data.lazy import changed, ids_of, labels_of, taken, videos_of
from gmsa.data.splits import classes_of_labels, stratified, stratified_rows
from gmsa.data.targets import Target
from gmsa.data.utterance import Utterance, without_labels
from gmsa.rng import seed_for, seeds_for


def withhold_labels(
    utterances: Sequence[Utterance],
    ratio: float,
    seed: int,
    target: Target | None = None,
    unit: str = "utterance",
) -> tuple[Sequence[Utterance], Sequence[Utterance]]:
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
    kept = ~np.isnan(labels_of(utterances))
    if ratio < 1 and kept.any():
        kept = _chosen(utterances, np.flatnonzero(kept), ratio, seed, target or Target(), unit)
    pool = taken(utterances, np.flatnonzero(~kept))
    labeled = taken(utterances, np.flatnonzero(kept)) if not kept.all() else utterances
    return labeled, changed(pool, without_labels, labels=False, own_labels=False)


def _chosen(
    utterances: Sequence[Utterance], labeled: np.ndarray, ratio: float, seed: int, target: Target, unit: str
) -> np.ndarray:
    """Whether each utterance keeps its label, bool ``[N]``; those at the indices ``labeled`` have one."""
    kept, count, most = np.zeros(len(utterances), bool), 0, max(1, int(ratio * len(labeled) + 0.5))
    labels = labels_of(utterances)
    if unit == "utterance":
        draws = np.array(seeds_for(seed, "label ratio", each=ids_of(utterances)))[labeled]
        classes = target.to_class(torch.from_numpy(labels[labeled])).numpy()
        kept[labeled[stratified_rows(classes, draws)[:most]]] = True
        return kept
    groups: dict[str, list[int]] = {}
    has_label = ~np.isnan(labels)
    for row, name in enumerate(videos_of(utterances)):
        if has_label[row]:
            groups.setdefault(name, []).append(row)
    by_group = classes_of_labels({name: labels[rows].tolist() for name, rows in groups.items()}, target)
    for name in stratified(by_group, lambda name: seed_for(seed, "label ratio", name)):
        # A whole dialogue joins if that brings the set nearer to the share; the order is the same for all shares.
        if count and count + len(groups[name]) / 2 > most:
            break
        kept[groups[name]] = True
        count += len(groups[name])
    return kept
