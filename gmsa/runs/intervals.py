"""Conformal prediction of a run: fitted on the validation split, its coverage counted on the test split."""

# N utterances
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gmsa.data import pattern_of
from gmsa.data.patterns import Turn, mask_in_turns, unmasked
from gmsa.metrics import Conformal, conformal_sets, coverage
from gmsa.runs.prepare import Prepared
from gmsa.training.scoring import Predictions, predict_utterances

LEVEL = 0.9
"""Share of the truth that the intervals, or sets, of conformal prediction are to hold."""


def calibration_turns(prepared: Prepared) -> list[Turn]:
    """The validation split, masked in turns to the patterns of missing modalities that it and the test split have.

    What ``data.missing`` masked is unmasked first, unless it masked steps.
    """
    missing = prepared.config.data.missing
    valid, test = prepared.splits["valid"], prepared.splits["test"]
    by_step = missing.of("valid").protocol.startswith("frame")
    whole = list(valid) if by_step else [unmasked(utterance) for utterance in valid]
    return mask_in_turns(whole, [*valid, *test], missing.seed)


def predict_turns(
    model: nn.Module, turns: Sequence[Turn], prepared: Prepared, valid: Predictions, device: torch.device
) -> list[Predictions]:
    """Predictions for each turn; those for the validation split where a turn is it.

    Args:
        valid: predictions for the validation split.
    """
    patterns = [pattern_of(u) for u in prepared.splits["valid"]]
    return [
        valid
        if [pattern_of(u) for u in turn.utterances] == patterns
        else predict_utterances(model, turn.utterances, prepared.config, device, prepared.context.get("valid", ()))
        for turn in turns
    ]


def conformal_rows(
    prepared: Prepared, turns: Sequence[Turn], finals: Mapping[int, tuple[Sequence[Predictions], Predictions]]
) -> list[dict[str, Any]]:
    """Margins of split conformal prediction, and what they cover of the test split, by seed.

    Of an intensity the residual is the absolute error and ``width`` the mean width of the intervals; of classes it is 1
    less the probability of the true class, and ``width`` the mean number of classes in a set. Groups are the patterns
    of missing modalities. None where the validation split is too small for the level.

    Args:
        finals: predictions of each seed for the turns and for the test split.
    """
    groups = [pattern_of(u) for turn in turns for u in _chosen(turn)]
    known = np.array([u.label is not None for u in prepared.splits["test"]], dtype=bool)
    tested = [pattern_of(u) for u in prepared.splits["test"] if u.label is not None]
    if not tested:
        return []
    found = []
    for seed, (calibration, test) in finals.items():
        pairs = zip(turns, calibration, strict=True)
        residuals = [_residuals(said)[_counted(turn)] for turn, said in pairs]
        fitted = Conformal.fit(np.concatenate([*residuals, np.empty(0)]), groups, LEVEL)
        if not np.isfinite(fitted.pooled):
            return []
        target, truth = test.target, test.labels[known].astype(np.float64)
        if target.is_classes:
            sets = conformal_sets(test.probabilities[known].astype(np.float64), fitted.margin(tested))
            widths = sets.sum(axis=1)
            covered = float(np.take_along_axis(sets, truth.astype(int)[:, None], 1).mean())
        else:
            # Not beyond the range, but for predictions that are: the truth never is.
            low, high = fitted.interval(test.predicted[known], tested, target.low, target.high)
            widths, covered = high - low, coverage(truth, low, high)
        found.append(
            {"seed": seed, **fitted.record(), "width": float(widths.mean()), "coverage": covered}
            | {"expected": list(fitted.expected_coverage(tested))}
        )
    return found


def _counted(turn: Turn) -> np.ndarray:
    return turn.counted & np.array([u.label is not None for u in turn.utterances], dtype=bool)


def _chosen(turn: Turn) -> list[Any]:
    return [u for u, counted in zip(turn.utterances, _counted(turn), strict=True) if counted]


def _residuals(said: Predictions) -> np.ndarray:
    """Residuals ``[N]``; NaN where unlabeled."""
    if not said.target.is_classes:
        return np.abs(said.predicted.astype(np.float64) - said.labels)
    known = ~np.isnan(said.labels)
    true = np.where(known, said.labels, 0).astype(int)[:, None]
    chance = np.take_along_axis(said.probabilities.astype(np.float64), true, 1)[:, 0]
    return np.where(known, (1 - chance).clip(0, 1), np.nan)
