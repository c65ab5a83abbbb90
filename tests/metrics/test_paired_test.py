"""The paired test of two systems' answers, against SciPy's tests and a plain loop."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from scipy import stats

from gmsa.metrics import class_metrics, metrics, paired_test, rmse


def mae(prediction, truth):
    return float(np.abs(prediction - truth).mean())


def test_agrees_with_the_exact_permutation_test():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=9)
    a, b = truth + 0.6 * rng.normal(size=9), truth + 1.0 * rng.normal(size=9)
    d = np.abs(b - truth) - np.abs(a - truth)
    exact = np.mean([abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-12 for signs in product((-1, 1), repeat=9)])
    assert exact == pytest.approx(stats.permutation_test(
        (b, a), lambda x, y: mae(x, truth) - mae(y, truth), permutation_type="samples", n_resamples=np.inf,
    ).pvalue)  # fmt: skip
    found = paired_test(a, b, truth, mae, samples=4000)
    assert found.p == pytest.approx(exact, abs=0.025)
    assert (found.a, found.b) == (mae(a, truth), mae(b, truth))
    assert found.difference == pytest.approx(d.mean())


def test_the_interval_agrees_with_scipy():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=150)
    a, b = truth + rng.normal(size=150), truth + 1.2 * rng.normal(size=150)
    found = paired_test(a, b, truth, rmse, samples=2000)
    theirs = stats.bootstrap(
        (a, b, truth), lambda x, y, t: rmse(y, t) - rmse(x, t), paired=True, vectorized=False, n_resamples=2000,
        method="percentile", random_state=2,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_is_deterministic_and_antisymmetric():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=40)
    a, b = truth + rng.normal(size=40), truth + rng.normal(size=40)
    one, other = paired_test(a, b, truth, mae), paired_test(b, a, truth, mae)
    assert one == paired_test(a, b, truth, mae)
    assert one.p != paired_test(a, b, truth, mae, seed=1).p
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))
    assert other.p == one.p


def test_p_values():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=30)
    assert paired_test(truth, truth, truth, mae, samples=50).p == 1
    assert paired_test(truth, truth + 1, truth, mae, samples=199).p == 1 / 200
    assert paired_test([1.0], [2.0], [0.0], mae, samples=99).p == 1  # of one utterance every swap is as extreme
    rejected = [
        paired_test(*(truth + rng.normal(size=30) for _ in range(2)), truth, mae, samples=99, seed=i).p <= 0.1
        for i in range(200)
    ]
    assert 0.04 <= np.mean(rejected) <= 0.17  # the level 0.1, give or take 200 draws


@pytest.mark.filterwarnings("error")
def test_takes_metrics_of_classes_and_of_mmsa():
    rng = np.random.default_rng(4)
    truth = rng.integers(3, size=60)
    right = np.where(rng.uniform(size=60) < 0.9, truth, rng.integers(3, size=60))
    guess = rng.integers(3, size=60)
    found = paired_test(guess, right, truth, lambda p, t: class_metrics(p, t, 3)["weighted_F1"], samples=60)
    assert found.b == class_metrics(right, truth, 3)["weighted_F1"]
    assert found.low > 0
    assert found.p == 1 / 61
    few = paired_test([1, 2, -1.0], [1, 1, -1.0], [1, 1, -1.0], lambda p, t: metrics("mosi", p, t)["Corr"], samples=20)
    assert few.b == pytest.approx(1)
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="constant"):
        paired_test([1, 1, 1.0], [1, 1, -1.0], [1, 1, -1.0], lambda p, t: metrics("mosi", p, t)["Corr"], samples=20)


def test_refuses():
    for a, b, t, message in (
        ([], [], [], "one length"),
        ([1], [1, 2], [1, 2], "one length"),
        ([[1]], [[1]], [[1]], "one length"),
        ([np.nan], [1], [1], "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_test(a, b, t, mae)
    for samples in (0, 100_001):
        with pytest.raises(ValueError, match="samples"):
            paired_test([1], [1], [1], mae, samples=samples)
