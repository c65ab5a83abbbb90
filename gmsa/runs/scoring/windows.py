"""Utterances that are longer than a model allows, predicted window by window."""

# N utterances, L steps
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.data.notes import note
from gmsa.errors import shown
from gmsa.models import graph_spec
from gmsa.reports.tables import plural
from gmsa.training.scoring import Predictions, predict_utterances

Arrays = list[np.ndarray | None]
"""Arrays with a row per utterance ``[N, ...]``; None for what a model does not have."""
Work = Callable[[Sequence[Utterance], Config], Arrays]
AT_A_TIME = 4
"""Windows in a batch: each is as long as the model allows, so that more of them take much memory."""


def predict_whole(
    model: nn.Module, utterances: Sequence[Utterance], config: Config, device: torch.device
) -> Predictions:
    """Runs ``model`` over ``utterances`` as :func:`~gmsa.training.scoring.predict_utterances` does, of any length.

    Raises:
        RunError: a prediction is not finite.
    """
    found: list[Predictions] = []

    def work(some: Sequence[Utterance], settings: Config) -> Arrays:
        found.append(predict_utterances(model, some, settings, device))
        last = found[-1]
        return [last.value, last.probabilities, last.gate]

    arrays = in_windows(utterances, config, work)
    if len(found) == 1 and len(found[0].ids) == len(utterances):
        return found[0]
    labels = np.array([np.nan if u.label is None else u.label for u in utterances], dtype=np.float32)
    whole: dict[str, Any] = dict(zip(("value", "probabilities", "gate"), arrays, strict=True))
    return replace(found[0], ids=[u.id for u in utterances], labels=labels, **whole)


def in_windows(utterances: Sequence[Utterance], config: Config, work: Work) -> Arrays:
    """What ``work`` returns for ``utterances``; of one that is too long, the mean over its windows.

    An utterance with more tokens of a modality than ``model.positions`` is cut into the fewest windows that fit. All
    modalities are cut at the same shares of their length, so that a window holds the same part of the clip in each.
    The mean is weighted by the windows' steps. In video graphs, whose nodes are utterances, a video of more utterances
    than ``model.positions`` is cut into parts of consecutive clips; utterances may be of any length there.

    Args:
        work: a function of utterances and the settings to run them with, whose arrays have a row per utterance.
    """
    spec = graph_spec(config)
    if spec.graph.scope == "dialogue":
        return work(_shorter_videos(utterances, spec.positions), config)
    most = {modality: spec.positions * stride for modality, stride in spec.strides.items()}
    counts = [_windows_needed(u, most) for u in utterances]
    long = [i for i, count in enumerate(counts) if count > 1]
    if not long:
        return work(utterances, config)
    note(
        f"{plural(len(long), 'utterance')} with more tokens than 'model.positions' ({spec.positions}) allows, such as "
        f"{shown(utterances[long[0]].id)}: cut into windows, whose predictions are averaged"
    )
    rows: dict[int, Arrays] = {}
    few = replace(config, optim=replace(config.optim, batch_size=min(AT_A_TIME, config.optim.batch_size)))
    for i in long:  # one at a time: memory holds the features of one
        parts = _cut(utterances[i], counts[i])
        weights = np.array([part.steps for part in parts]) / utterances[i].steps
        rows[i] = [None if x is None else np.tensordot(weights, x, 1) for x in work(parts, few)]
    short = [i for i, count in enumerate(counts) if count <= 1]
    whole = work([utterances[i] for i in short], config) if short else [None] * len(rows[long[0]])
    return [_joined(len(utterances), short, x, {i: rows[i][k] for i in long}) for k, x in enumerate(whole)]


def _windows_needed(utterance: Utterance, most: Mapping[str, int]) -> int:
    return max((-(-length // most[m]) for m, length in utterance.lengths.items() if m in most), default=1)


def _cut(utterance: Utterance, count: int) -> list[Utterance]:
    features = {m: utterance.features[m] for m in utterance.features}  # read once, if they are lazy
    return [
        replace(
            utterance, features={m: x[len(x) * k // count : len(x) * (k + 1) // count] for m, x in features.items()}
        )
        for k in range(count)
    ]


def _joined(
    count: int, short: Sequence[int], x: np.ndarray | None, rows: Mapping[int, np.ndarray | None]
) -> np.ndarray | None:
    """The rows of the short utterances and of the long ones, in their order."""
    known = {i: row for i, row in rows.items() if row is not None}
    if x is None and not known:
        return None
    first = next(iter(known.values()))
    table = np.zeros((count, *np.shape(first)), dtype=np.float32 if x is None else x.dtype)
    if x is not None:
        table[list(short)] = x
    for i, row in known.items():
        table[i] = row
    return table


def _shorter_videos(utterances: Sequence[Utterance], most: int) -> list[Utterance]:
    """The utterances, those of a video that has too many as of several videos."""
    videos: dict[str, list[int]] = {}
    for i, utterance in enumerate(utterances):
        videos.setdefault(utterance.video, []).append(i)
    found = list(utterances)
    for video, members in videos.items():
        parts = -(-len(members) // most)
        if parts == 1:
            continue
        note(
            f"video {shown(video)} has {len(members)} utterances, 'model.positions' allows {most}: "
            f"cut into {parts} parts of consecutive clips"
        )
        for place, i in enumerate(sorted(members, key=lambda i: utterances[i].clip)):
            found[i] = replace(utterances[i], of_video=f"{video} ({place * parts // len(members) + 1} of {parts})")
    return found
