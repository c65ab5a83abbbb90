"""Intervals of metrics: those of a sample are the scores of its utterances, and they cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from gmsa.metrics import metrics
from gmsa.metrics.resampling import metric_intervals, resampled

RANGE = {"mosi": 3.0, "sims": 1.0, "intensity": 50.0}


def answers_of(name: str, count: int, seed: int = 0, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Predictions ``[seeds, count]`` and labels ``[count]``: some labels 0, some predictions out of range."""
    rng = np.random.default_rng(seed)
    if name == "classes":
        return rng.integers(4, size=(seeds, count)), rng.integers(4, size=count)
    most = RANGE[name]
    truth = np.round(rng.uniform(-most, most, count) * 5) / 5 * (rng.random(count) > 0.2)
    return truth + rng.normal(0, most / 2, (seeds, count)), truth


@pytest.mark.filterwarnings("ignore")  # small samples are constant, or of one side
@pytest.mark.parametrize("name", ["mosi", "sims", "intensity", "classes"])
@pytest.mark.parametrize("size", [3, 40])
def test_all_samples_at_once_equal_each_by_itself(name: str, size: int) -> None:
    (p,), t = answers_of(name, 40)
    rng = np.random.default_rng(1)
    chosen = rng.integers(40, size=(30, size))
    chosen[0] = 0  # a constant
    counts = np.stack([np.bincount(row, minlength=40) for row in chosen]).astype(float)
    found = resampled(name, p, t, counts, 4)
    more = [] if name in ("classes", "intensity") else ["RMSE", "CCC"]
    for place, row in enumerate(chosen):
        expected = metrics(name, p[row], t[row], more, 4)
        assert {m: values[place] for m, values in found.items()} == pytest.approx(expected, abs=1e-9)


def test_an_interval_is_that_of_the_mean() -> None:
    """Of a mean of many independent values, as of the normal distribution."""
    p, t = answers_of("mosi", 2000)
    low, high = metric_intervals("mosi", [(p, t)], samples=2000)["MAE"]
    errors = np.abs(p[0] - t)
    half = 1.96 * errors.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((errors.mean() - half, errors.mean() + half), abs=0.1 * half)


def test_seeds_that_differ_widen_an_interval() -> None:
    p, t = answers_of("mosi", 200)
    alike, apart = np.repeat(p, 3, 0), p + np.array([[0.0], [1.0], [2.0]])
    (a, b), (c, d) = (metric_intervals("mosi", [(x, t)])["MAE"] for x in (alike, apart))
    assert (a, b) == pytest.approx(metric_intervals("mosi", [(p, t)])["MAE"], abs=0.02)
    assert d - c > 2 * (b - a)


def test_whole_groups_are_drawn() -> None:
    """Utterances that repeat one another are as one."""
    p, t = answers_of("classes", 50)
    groups = [[f"{n:02}" for n in range(50)] * 8]
    one = metric_intervals("classes", [(p, t)], num_classes=4)
    copies = [(np.tile(p, 8), np.tile(t, 8))]
    assert metric_intervals("classes", copies, groups=groups, num_classes=4) == {
        metric: pytest.approx(ends) for metric, ends in one.items()
    }
    low, high = metric_intervals("classes", copies, num_classes=4)["accuracy"]
    assert high - low < 0.6 * (one["accuracy"][1] - one["accuracy"][0])


def test_a_fold_draws_its_own_utterances() -> None:
    """The mean of folds of unlike sizes weighs each alike, as their scores do."""
    folds = [answers_of("mosi", 10, 1), answers_of("mosi", 1000, 2)]
    maes = [np.abs(p[0] - t) for p, t in folds]
    low, high = metric_intervals("mosi", folds, samples=4000)["MAE"]
    half = 1.96 * np.sqrt(sum(e.var() / len(e) for e in maes)) / 2
    assert (low + high) / 2 == pytest.approx(np.mean([e.mean() for e in maes]), abs=0.1 * half)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize("answers", [([[0.5]], [1.0, 2.0]), ([[]], []), ([[np.nan]], [1.0])])
def test_what_cannot_be_scored_is_refused(answers: tuple) -> None:
    with pytest.raises(ValueError, match=r"shape|empty|NaN"):
        metric_intervals("mosi", [answers])
