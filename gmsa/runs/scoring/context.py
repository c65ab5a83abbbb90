"""The linear context baseline of a run: fitted on its validation split, scored beside the predictions without it."""

# N utterances, S seeds
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from gmsa.data import Target, Utterance
from gmsa.errors import ConfigError, RunError, short, shown
from gmsa.metrics import LinearContext, cross_fitted, paired_bootstrap
from gmsa.metrics.context import REACHES
from gmsa.reports.summary import spread
from gmsa.reports.tables import plural
from gmsa.runs.folder import Run
from gmsa.runs.prepare import leave_out_unseen
from gmsa.runs.scoring.splits import Chosen, masked, own_corpus
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.csv_text import csv_text
from gmsa.training.scoring import Predictions

VALID = "valid"


@dataclass(frozen=True, eq=False)
class ContextBaseline:
    """What the weights are fitted on, and how far context reaches."""

    reach: str
    valid: Sequence[Utterance]
    """The run's validation split, masked and normalized as in training, with what has no label."""
    scored: bool
    """Whether that split is one of those to score."""


@dataclass(frozen=True, eq=False)
class _Split:
    """The predictions of a model for the utterances of a split, the labeled ones first."""

    utterances: Sequence[Utterance]
    prediction: np.ndarray
    """Intensities ``[N]``, or probabilities of classes ``[N, K]``."""
    labels: np.ndarray

    @property
    def places(self) -> tuple[list[str], list[tuple[int, str]]]:
        return [u.video for u in self.utterances], [u.clip for u in self.utterances]


def as_reach(context: bool | str) -> str:
    """How far context reaches; empty where it is not asked for.

    Raises:
        ConfigError: it is no reach.
    """
    reach = ("all" if context else "") if isinstance(context, bool) else context
    if not isinstance(reach, str) or (reach and reach not in REACHES):
        raise ConfigError(f"--context takes one of {', '.join(REACHES)} (got {shown(reach)})")
    return reach


def context_baseline(run: Run, found: Chosen, reach: str) -> ContextBaseline:
    """The validation split of a run, checked to be enough to fit on.

    Args:
        found: the splits to score, normalized.

    Raises:
        RunError: too few labeled utterances of the validation split have context, or its file is not as it was.
        DataError: the file is unsafe or wrong.
    """
    scored = found.own and VALID in found.splits
    if scored:
        valid = [*found.splits[VALID], *found.context.get(VALID, ())]
    else:
        remedy = "leave out --context, which is fitted on its validation split"
        corpus, _ = leave_out_unseen(masked(run, own_corpus(run, remedy))[0])
        valid = [run.normalizer.apply(u) for u in corpus.with_context[VALID]]
    target = Target.of(run.config.target)
    nothing = np.ones((len(valid), target.num_classes) if target.is_classes else len(valid))
    labels, videos, clips = _labels(valid), [u.video for u in valid], [u.clip for u in valid]
    remedy = "leave out --context"
    try:  # as the fit will, but before the work of predicting
        LinearContext.fit(nothing, labels, videos, clips, reach)
        if scored:
            remedy = "score --split test alone: validation is scored by weights of other dialogues of it"
            cross_fitted(nothing, labels, videos, clips, reach)
    except ValueError as error:
        count = plural(len(set(videos)), "dialogue")
        raise RunError(
            f"--context on the validation split of '{short(run.folder)}' ({count}) {error}; {remedy}"
        ) from None
    return ContextBaseline(reach, valid, scored)


def add_context(
    baseline: ContextBaseline,
    run: Run,
    models: Sequence[nn.Module],
    found: Chosen,
    parts: Sequence[Mapping[str, Predictions]],
    device: torch.device,
) -> tuple[dict[str, Any], list[dict[str, Predictions]]]:
    """Scores the splits with context: what ``summary.json`` has of it, and by seed the predictions.

    The validation split is predicted by weights that were fitted on other dialogues of it.

    Args:
        models: of each seed.
        found: the splits to score, normalized.
        parts: by seed the predictions for them without context.
    """
    reach, valid = baseline.reach, baseline.valid
    fits, with_context = [], []
    for model, part in zip(models, parts, strict=True):
        splits = {name: _whole(run, model, found, name, part[name], device) for name in found.splits}
        if baseline.scored:
            of = splits[VALID]
        else:
            of = _Split(valid, _prediction(predict_whole(model, valid, run.config, device)), _labels(valid))
        fit = LinearContext.fit(of.prediction, of.labels, *of.places, reach)
        fits.append(fit)
        rows = {
            name: cross_fitted(split.prediction, split.labels, *split.places, reach)
            if baseline.scored and name == VALID
            else fit.apply(split.prediction, *split.places)
            for name, split in splits.items()
        }
        with_context.append({name: _replaced(part[name], rows[name]) for name in splits})
    content = {
        "reach": reach,
        "utterances": sum(u.label is not None for u in valid),
        "dialogues": len({u.video for u in valid}),
        "weights": {key: spread([fit.named[key] for fit in fits]) for key in fits[0].named},
        "scores": {name: _scores(run, [of[name] for of in with_context]) for name in found.splits},
        "tests": {
            name: _test([of[name] for of in parts], [of[name] for of in with_context], us)
            for name, us in found.splits.items()
        },
    }
    return content, with_context


def context_csv(found: Chosen, without: Mapping[str, Predictions], with_context: Mapping[str, Predictions]) -> str:
    """A seed's predictions for the utterances of the splits, without and with context, as CSV."""
    target = next(iter(without.values())).target
    names = [f"p_{name}" for name in target.classes]
    rows = []
    for split, utterances in found.splits.items():
        a, b = without[split], with_context[split]
        for i, u in enumerate(utterances):
            words = ["" if u.label is None else target.name_of(u.label)]
            words += [target.name_of(of.predicted[i]) for of in (a, b)]
            rows.append([split, u.id, u.video, *words, *(f"{p:.9g}" for p in b.probabilities[i] if names)])
    return csv_text(["split", "id", "dialogue", "label", "prediction", "with_context", *names], rows)


def _whole(run: Run, model: nn.Module, found: Chosen, name: str, labeled: Predictions, device: torch.device) -> _Split:
    """The predictions for a split, with those for its unlabeled utterances."""
    utterances, more = found.splits[name], found.context.get(name, ())
    prediction = _prediction(labeled)
    if more:  # beside the labeled ones, which a graph of the dialogue may hold
        both = _prediction(predict_whole(model, [*utterances, *more], run.config, device))
        prediction = np.concatenate([prediction, both[len(utterances) :]])
    return _Split([*utterances, *more], prediction, _labels([*utterances, *more]))


def _prediction(found: Predictions) -> np.ndarray:
    return found.probabilities if found.value is None else found.value


def _labels(utterances: Sequence[Utterance]) -> np.ndarray:
    return np.array([np.nan if u.label is None else u.label for u in utterances], dtype=np.float64)


def _replaced(part: Predictions, rows: np.ndarray) -> Predictions:
    """Predictions with the first ``rows`` in the place of theirs."""
    rows = rows[: len(part.ids)]
    return replace(part, probabilities=rows) if part.value is None else replace(part, value=rows)


def _scores(run: Run, parts: Sequence[Predictions]) -> dict[str, Any]:
    scores = [part.metrics(run.config) for part in parts]
    return {metric: spread([of[metric] for of in scores]) for metric in scores[0]}


def _test(
    without: Sequence[Predictions], with_context: Sequence[Predictions], utterances: Sequence[Utterance]
) -> dict[str, Any]:
    """A paired bootstrap of the MAE, or of the share of wrong classes, over whole dialogues and seeds."""
    known = np.array([u.label is not None for u in utterances], dtype=bool)
    videos = [u.video for u in utterances if u.label is not None]
    a, b = (np.stack([_errors(of, known) for of in parts]) for parts in (without, with_context))
    found = paired_bootstrap(a, b, groups=videos)
    return asdict(found) | {"dialogues": len(set(videos))}


def _errors(part: Predictions, known: np.ndarray) -> np.ndarray:
    predicted, truth = part.predicted[known], part.labels[known]
    if part.target.is_classes:
        return np.asarray(predicted != truth, dtype=np.float64)
    if part.target.metrics == "sims":  # as its MAE does
        predicted, truth = predicted.clip(-1, 1), truth.clip(-1, 1)
    return np.abs(predicted.astype(np.float64) - truth)
