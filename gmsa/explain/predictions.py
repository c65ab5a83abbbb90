"""Explains predictions: Shapley values of modalities, contributions of tokens, and a check of these."""

# N utterances, S models, K classes, L tokens of a modality
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from gmsa.config import Config
from gmsa.config.presets import TEXT
from gmsa.data import Utterance
from gmsa.errors import GmsaError, RunError
from gmsa.explain.deletion import check_deletion
from gmsa.explain.explanation import GRADIENTS, OCCLUSION, Explanation, Explanations, Words
from gmsa.explain.gradients import TOLERANCE, integrated_gradients
from gmsa.explain.occlusion import occlusion
from gmsa.explain.score import Predictor, Score
from gmsa.explain.shapley import shapley_values, subset_values
from gmsa.explain.views import NEIGHBORS, View, check_length, views_of
from gmsa.system.console import progress_bar
from gmsa.text import texts_of

LABELS, BLANK = "mean training label", "prediction for features that are all 0"
"""What a base can be; of a class, its share of the training labels."""


def explain(
    models: Sequence[nn.Module],
    utterances: Sequence[Utterance],
    config: Config,
    *,
    device: torch.device | str = "cpu",
    chosen: Sequence[int] | None = None,
    base: Sequence[float] | None = None,
    seeds: Sequence[int] = (),
    words: bool = True,
) -> Explanations:
    """Explains the mean prediction of some models; :meth:`gmsa.Run.explain` does so for a run.

    Args:
        models: one per seed, in evaluation mode, on ``device``.
        utterances: as the models take them, normalized.
        config: the settings of the run, resolved.
        chosen: indices of the utterances to explain; all by default. The others are their neighbors in dialogues.
        base: mean training label, or the share of each of K classes; by default what is predicted for blank features.
        seeds: of the models; the deletion check draws by the first.
        words: whether to explain tokens, too.
    """
    rows = range(len(utterances)) if chosen is None else chosen
    predictor = Predictor(models, config, torch.device(device))
    found: list[Explanation] = []
    reasons: dict[str, str] = {}
    with progress_bar("explaining", len(rows)) as bar:
        for view in views_of(utterances, config, rows):
            try:
                found.append(_explain(predictor, view, base, words, seeds[0] if seeds else 0))
            except GmsaError as error:
                reasons[view.own.id] = str(error)
            bar.advance(1)
    modalities = tuple(utterances[0].features) if utterances else ()
    return Explanations(found, predictor.target, modalities, tuple(seeds), reasons)


def _explain(predictor: Predictor, view: View, base: Sequence[float] | None, words: bool, seed: int) -> Explanation:
    check_length(view, predictor.spec)
    each = predictor([view])[:, 0]  # [S, K]
    column = int(each.mean(0).argmax())
    score = Score(predictor, column, math.nan if base is None else base[column])
    if base is None:
        score = replace(score, base=score.blank(view))
        if not math.isfinite(score.base):
            raise RunError(
                "what is predicted for features that are all 0 is not finite, so that there is no base to start from; "
                "train the run again, which then keeps the mean training label as its base"
            )
    subsets = subset_values(score, view)
    value = float(subsets[view.parts].mean())
    contributions = shapley_values(view.parts, subsets)
    neighbors = contributions.pop(NEIGHBORS, None)
    target, modalities = predictor.target, [*view.own.features]
    none = np.zeros(len(each))
    return Explanation(
        view.own.id,
        value,
        score.base,
        BLANK if base is None else "share of the training labels" if target.is_classes else LABELS,
        target.classes[column] if target.is_classes else None,
        {m: float(contributions.get(m, none).mean()) for m in modalities},
        {m: float(contributions.get(m, none).std()) for m in modalities},
        tuple(m for m in modalities if m not in contributions),
        None if neighbors is None else float(neighbors.mean()),
        {subset: float(found.mean()) for subset, found in subsets.items()},
        explain_words(score, view, value, seed) if words and view.own.steps else None,
    )


def explain_words(score: Score, view: View, value: float, seed: int) -> Words:
    """The contributions of the tokens of an utterance, by occlusion where integrated gradients do not add up.

    Args:
        value: the score of the view.
        seed: with the utterance's id, what the draws of the deletion check are a function of.
    """
    found = integrated_gradients(score, view, value)
    method, tokens, neighbors = GRADIENTS, found.tokens, found.neighbors
    if not found.error <= TOLERANCE:  # it may be NaN
        method, tokens = OCCLUSION, occlusion(score, view)
        if neighbors is not None:
            neighbors = value - float(score([View((view.own,))])[0])
    check = check_deletion(score, view, tokens, score.base, seed, view.own.id)
    labels = {m: token_labels(view.own, m, score.predictor.config) for m in tokens}
    return Words(tokens, labels, neighbors, method, found.start, found.error, found.steps, check)


def token_labels(utterance: Utterance, modality: str, config: Config) -> list[str]:
    """What stands for the tokens of a modality: words or word pieces where there are as many, else ``token 3``."""
    count = utterance.lengths[modality]
    if modality == TEXT:
        texts = texts_of(config)
        words = utterance.text.split() if texts is None else texts.say(utterance)
        if len(words) == count:
            return words
    return [f"token {i + 1}" for i in range(count)]
