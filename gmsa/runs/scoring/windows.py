"""Utterances and dialogues that are longer than a model allows, predicted window by window."""

# N utterances, L steps
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data import Utterance
from gmsa.data.notes import note
from gmsa.errors import shown
from gmsa.graph import dialogues_of
from gmsa.models import graph_spec, reach
from gmsa.reports.tables import plural
from gmsa.training.scoring import Predictions, predict_utterances

Arrays = list[np.ndarray | None]
"""Arrays with a row per utterance ``[N, ...]``; None for what a model does not have."""
Work = Callable[[Sequence[Utterance], Config], Arrays]
AT_A_TIME = 4
"""Windows in a batch: each is as long as the model allows, so that more of them take much memory."""
MOST_UTTERANCES = 256
"""Utterances of a dialogue in one graph of scope ``hierarchical``, unless an answer can depend on more."""


def predict_whole(
    model: nn.Module,
    utterances: Sequence[Utterance],
    config: Config,
    device: torch.device,
    context: Sequence[Utterance] = (),
) -> Predictions:
    """Runs ``model`` over ``utterances`` as :func:`~gmsa.training.scoring.predict_utterances` does, of any length.

    Args:
        context: further utterances in the graphs of the same dialogues; they are not scored.

    Raises:
        RunError: a prediction is not finite.
    """
    if config.graph.has_dialogues and context:
        dialogues = {u.video for u in utterances}
        more = [u for u in context if u.video in dialogues]
        return _first(predict_whole(model, [*utterances, *more], config, device), len(utterances))
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


def _first(found: Predictions, count: int) -> Predictions:
    """The first ``count`` predictions."""
    value, gate = (None if x is None else x[:count] for x in (found.value, found.gate))
    return replace(
        found,
        ids=found.ids[:count],
        labels=found.labels[:count],
        value=value,
        probabilities=found.probabilities[:count],
        gate=gate,
    )


def in_windows(utterances: Sequence[Utterance], config: Config, work: Work) -> Arrays:
    """What ``work`` returns for ``utterances``; of one that is too long, the mean over its windows.

    An utterance with more tokens of a modality than ``model.positions`` is cut into the fewest windows that fit. All
    modalities are cut at the same shares of their length, so that a window holds the same part of the clip in each.
    The mean is weighted by the windows' steps.

    Long dialogues are cut, too: in scope ``hierarchical`` into windows that overlap, so that all that can change an
    answer is in its window, and answers are those of the whole; in scope ``dialogue``, whose nodes have positions, into
    parts of at most ``model.positions`` utterances. Utterances may be of any length there.

    Args:
        work: a function of utterances and the settings to run them with, whose arrays have a row per utterance.
    """
    spec = graph_spec(config)
    if spec.graph.scope == "dialogue":
        return work(_shorter_videos(utterances, spec.positions), config)
    most = {modality: spec.positions * stride for modality, stride in spec.strides.items()}
    counts = [_windows_needed(u, most) for u in utterances]
    long = [i for i, count in enumerate(counts) if count > 1]
    if long:
        note(
            f"{plural(len(long), 'utterance')} with more tokens than 'model.positions' ({spec.positions}) allows, such "
            f"as {shown(utterances[long[0]].id)}: cut into windows, whose predictions are averaged"
        )
    if spec.graph.scope == "hierarchical":
        return _in_dialogue_windows(utterances, counts, config, work)
    if not long:
        return work(utterances, config)
    rows: dict[int, Arrays] = {}
    few = replace(config, optim=replace(config.optim, batch_size=min(AT_A_TIME, config.optim.batch_size)))
    for i in long:  # one at a time: memory holds the features of one
        parts = _cut(utterances[i], counts[i])
        weights = np.array([part.steps for part in parts]) / utterances[i].steps
        rows[i] = [None if x is None else np.tensordot(weights, x, 1) for x in work(parts, few)]
    short = [i for i, count in enumerate(counts) if count <= 1]
    return _all_rows(utterances, short, config, work, rows)


def _in_dialogue_windows(utterances: Sequence[Utterance], counts: Sequence[int], config: Config, work: Work) -> Arrays:
    """The same in scope ``hierarchical``: each utterance from a window with all that its answer can depend on.

    Args:
        counts: windows into which each utterance is to be cut.
    """
    before, after = reach(config)
    answered = max(MOST_UTTERANCES - before - after, before + after)  # from a window: at least half of it
    rows: dict[int, Arrays] = {}
    for group in dialogues_of(utterances):
        size, name = len(group), shown(utterances[group[0]].video)
        if MOST_UTTERANCES < size <= before + after + answered:
            note(
                f"dialogue {name} has {size} utterances, of which an answer can depend on {min(before, size)} before "
                f"and {min(after, size)} after it: it is one graph, not cut into windows, and takes the more memory"
            )
        parts = -(-size // answered) if size > before + after + answered else 1
        if parts == 1 and all(counts[i] <= 1 for i in group):
            continue
        for part in range(parts):
            start, end = size * part // parts, size * (part + 1) // parts
            first, last = max(0, start - before), min(size, end + after)
            window = group[first:last]
            found = _in_passes([utterances[i] for i in window], [counts[i] for i in window], config, work)
            for place in range(start, end):
                rows[group[place]] = [None if x is None else x[place - first] for x in found]
    whole = [i for i in range(len(utterances)) if i not in rows]
    return _all_rows(utterances, whole, config, work, rows) if rows else work(utterances, config)


def _in_passes(utterances: Sequence[Utterance], counts: Sequence[int], config: Config, work: Work) -> Arrays:
    """The mean over as many passes as the longest utterance has windows; each shows one window of every long one."""
    passes = max(1, *counts)
    if passes == 1:
        return work(utterances, config)
    cut = [_cut(u, count) if count > 1 else [u] for u, count in zip(utterances, counts, strict=True)]
    weights = np.array([[parts[k % len(parts)].steps if parts[1:] else 1 for k in range(passes)] for parts in cut])
    total: Arrays = []
    for share, k in zip((weights / weights.sum(1, keepdims=True)).T, range(passes), strict=True):
        found = work([parts[k % len(parts)] for parts in cut], config)
        scaled = [None if x is None else (share * x.T).T for x in found]
        total = scaled if not k else [None if x is None else x + y for x, y in zip(scaled, total, strict=True)]
    return total


def _all_rows(
    utterances: Sequence[Utterance], rest: Sequence[int], config: Config, work: Work, rows: Mapping[int, Arrays]
) -> Arrays:
    """The ``rows`` that are known, and those of the ``rest``, in the utterances' order."""
    found = work([utterances[i] for i in rest], config) if rest else [None] * len(next(iter(rows.values())))
    return [_joined(len(utterances), rest, x, {i: row[k] for i, row in rows.items()}) for k, x in enumerate(found)]


def _windows_needed(utterance: Utterance, most: Mapping[str, int]) -> int:
    return max((-(-length // most[m]) for m, length in utterance.lengths.items() if m in most), default=1)


def _cut(utterance: Utterance, count: int) -> list[Utterance]:
    features, times = dict(utterance.features), dict(utterance.times)  # read once, if they are lazy

    def part(of: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        return {m: x[len(x) * k // count : len(x) * (k + 1) // count] for m, x in of.items()}

    return [replace(utterance, features=part(features, k), times=part(times, k)) for k in range(count)]


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
