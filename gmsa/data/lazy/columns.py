"""What is asked of all utterances of a sequence, as arrays; of a lazy one, without making them."""

# N utterances
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gmsa.data.lazy.sequences import Utterances
from gmsa.data.utterance import Utterance


def lengths_of(utterances: Sequence[Utterance], modality: str) -> np.ndarray:
    """Number of steps of a modality in each utterance, int64 ``[N]``."""
    if isinstance(utterances, Utterances):
        return utterances.lengths(modality)
    return np.array([u.lengths.get(modality, 0) for u in utterances], np.int64)


def steps_of(utterances: Sequence[Utterance]) -> np.ndarray:
    """Number of steps of all modalities of each utterance, int64 ``[N]``."""
    if isinstance(utterances, Utterances):
        return sum((utterances.lengths(m) for m in utterances.modalities), np.zeros(len(utterances), np.int64))
    return np.array([u.steps for u in utterances], np.int64)


def labels_of(utterances: Sequence[Utterance]) -> np.ndarray:
    """Labels, float64 ``[N]``; NaN if unlabeled."""
    if isinstance(utterances, Utterances):
        return utterances.labels
    return np.array([np.nan if u.label is None else u.label for u in utterances], np.float64)


def own_labels_of(utterances: Sequence[Utterance]) -> Mapping[str, np.ndarray]:
    """Labels of single modalities, float64 ``[N]``; NaN if unlabeled. Modalities without any are left out; first stands
    the one of the first utterance that has one."""
    if isinstance(utterances, Utterances):
        found = utterances.own_labels()
        first = {m: there[0] for m, column in found.items() if len(there := np.flatnonzero(~np.isnan(column)))}
        return {m: found[m] for m in sorted(first, key=lambda m: first[m])}
    names = dict.fromkeys(m for u in utterances for m in u.unimodal)
    return {m: np.array([u.unimodal.get(m, np.nan) for u in utterances], np.float64) for m in names}


def shards_of(utterances: Sequence[Utterance]) -> np.ndarray:
    """The number of the shard that holds each utterance, int32 ``[N]``; 0 for those in memory."""
    return utterances.shards() if isinstance(utterances, Utterances) else np.zeros(len(utterances), np.int32)


def ids_of(utterances: Sequence[Utterance]) -> Iterator[str]:
    """The id of each utterance."""
    return names_of(utterances, "id")


def videos_of(utterances: Sequence[Utterance]) -> Iterator[str]:
    """The video of each utterance."""
    return names_of(utterances, "video")


def names_of(utterances: Sequence[Utterance], field: str) -> Iterator[str]:
    """The ``id``, ``video``, ``speaker`` or ``fold`` of each utterance."""
    if isinstance(utterances, Utterances):
        return (utterances.name(index, field) for index in range(len(utterances)))
    return (getattr(utterance, field) for utterance in utterances)
