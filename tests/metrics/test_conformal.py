"""Conformal prediction against its definition, scikit-learn's quantiles and simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from gmsa.metrics import Conformal, binomial_interval, conformal_sets, coverage, coverage_interval


def margin_by_definition(residuals, level):
    """The smallest residual that at least level * (n + 1) of the n calibration residuals do not exceed."""
    for r in sorted(residuals):
        if sum(other <= r for other in residuals) >= round(level * (len(residuals) + 1), 9):
            return r
    return math.inf


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_margins_follow_their_definition(level):
    rng = np.random.default_rng(0)
    for n in [*range(31), 109, 199]:
        r = rng.exponential(size=n).round(1)  # rounded: some are equal
        found = Conformal.fit(r, level=level)
        assert found.pooled == margin_by_definition(r.tolist(), level)
        assert math.isfinite(found.pooled) == (n >= math.ceil(level / (1 - level) - 1e-9))
        assert found.margins == ({"all": found.pooled} if n >= 30 else {})


def test_groups_have_margins_of_their_own_where_they_are_large_enough():
    rng = np.random.default_rng(1)
    groups = rng.permutation(["tav"] * 60 + ["av"] * 30 + ["v"] * 29).tolist()
    r = rng.exponential(size=119)
    found = Conformal.fit(r, groups)
    assert found.counts == {"av": 30, "tav": 60, "v": 29}
    assert found.pooled_groups == ("v",)
    for name in ("tav", "av"):
        own = [x for x, group in zip(r.tolist(), groups, strict=True) if group == name]
        assert found.margins[name] == margin_by_definition(own, 0.9)
    assert found.margin(["v", "t", "av"]).tolist() == [found.pooled, found.pooled, found.margins["av"]]
    assert Conformal.fit(r, groups, level=0.98).margins.keys() == {"tav"}  # of 30 it would be infinite
    assert json.loads(json.dumps(found.record(), allow_nan=False))["margins"]["av"] == found.margins["av"]
    assert Conformal.fit([0.1], ["t"]).record() == {"level": 0.9, "pooled": None, "counts": {"t": 1}, "margins": {}}


def test_intervals_are_clipped_to_the_range_of_the_target():
    found = Conformal.fit(np.arange(1, 21) / 10)
    low, high = found.interval([0.0, 2.5, -2.9], None, -3, 3)
    assert low.tolist() == pytest.approx([-1.9, 0.6, -3])
    assert high.tolist() == pytest.approx([1.9, 3, -1.0])
    low, high = Conformal.fit([]).interval([0.0], None, -3, 3)
    assert (low.tolist(), high.tolist()) == ([-3], [3])
    low, high = Conformal.fit([]).interval([0.0])
    assert (low.tolist(), high.tolist()) == ([-math.inf], [math.inf])


def test_coverage_of_made_up_regressions_lies_in_the_expected_interval():
    """Group b's errors are five times those of a: only its own margin covers it."""
    rng = np.random.default_rng(2)
    inside, apart = [], {"a": [], "b": []}
    for _ in range(200):
        groups = np.array(["a"] * 80 + ["b"] * 40)
        spread = np.where(groups == "a", 1, 5)
        truth, new = spread * rng.normal(size=120), spread * rng.normal(size=120)
        found = Conformal.fit(np.abs(truth), groups.tolist())
        low, high = found.interval(np.zeros(120), groups.tolist())
        lowest, highest = found.expected_coverage(groups.tolist())
        assert (lowest, highest) == coverage_interval([(80, 80), (40, 40)])
        inside.append(lowest <= coverage(new, low, high) <= highest)
        for name, shares in apart.items():
            chosen = groups == name
            shares.append(coverage(new[chosen], low[chosen], high[chosen]))
    assert np.mean(inside) >= 0.92  # 95 % or, as counts are whole numbers, a little more
    assert np.mean(apart["a"]) == pytest.approx(73 / 81, abs=0.012)  # k / (n + 1)
    assert np.mean(apart["b"]) == pytest.approx(37 / 41, abs=0.015)


def test_intervals_of_the_coverage_against_scipy_and_simulation():
    for n in (9, 50, 333):
        low, high = stats.binom.interval(0.95, n, 0.9)
        assert binomial_interval(n) == (low / n, high / n)
    k = 91  # of 100 calibration utterances
    low, high = stats.betabinom.interval(0.95, 60, k, 101 - k)
    assert coverage_interval([(100, 60)]) == (low / 60, high / 60)
    rng = np.random.default_rng(3)
    shares = rng.beta(k, 101 - k, 20000), rng.beta(18, 2, 20000)
    covered = (rng.binomial(60, shares[0]) + rng.binomial(30, shares[1])) / 90
    assert coverage_interval([(100, 60), (19, 30)]) == pytest.approx(np.quantile(covered, [0.025, 0.975]), abs=0.012)
    assert coverage_interval([(3, 10)]) == (1, 1)  # the margin is infinite
    plain, real = binomial_interval(60), coverage_interval([(100, 60)])
    assert real[0] < plain[0] < plain[1] < real[1]
    assert coverage_interval([(10**7, 60)]) == plain


def test_sets_of_classes_cover():
    rng = np.random.default_rng(4)
    covered, sizes = [], []
    for _ in range(100):
        p = rng.dirichlet(np.full(4, 0.7), size=200)
        truth = np.array([rng.choice(4, p=row) for row in p])
        found = Conformal.fit(1 - p[np.arange(100), truth[:100]], level=0.8)
        sets = conformal_sets(p[100:], found.margin(["all"] * 100))
        assert sets[np.arange(100), p[100:].argmax(1)].all()
        covered.append(sets[np.arange(100), truth[100:]].mean())
        sizes.append(sets.sum(1).mean())
    assert 0.78 <= np.mean(covered) <= 0.84
    assert 1 < np.mean(sizes) < 3
    assert conformal_sets(np.eye(3), np.full(3, math.inf)).all()


def test_refuses():
    for residuals, groups, level, message in (
        ([-1], None, 0.9, "at least 0"),
        ([np.nan], None, 0.9, "finite"),
        ([1, 2], ["a"], 0.9, "one length"),
        ([[1]], None, 0.9, "one length"),
        ([1], None, 1, "'level'"),
        ([1], None, 0, "'level'"),
    ):
        with pytest.raises(ValueError, match=message):
            Conformal.fit(residuals, groups, level)
    with pytest.raises(ValueError, match="one length"):
        coverage([], [], [])
    with pytest.raises(ValueError, match="no test utterance"):
        coverage_interval([])
    with pytest.raises(ValueError, match="probabilities"):
        conformal_sets([0.5, 0.5], [1])
