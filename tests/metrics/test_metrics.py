"""Metrics against MMSA's definitions, SciPy and scikit-learn."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import accuracy_score, root_mean_squared_error

from gmsa.config import Config, RunConfig
from gmsa.errors import ConfigError, RunError
from gmsa.metrics import (
    COLUMNS,
    calibration,
    ccc,
    higher_is_better,
    is_better,
    metric,
    metrics,
    mosi_metrics,
    paired_bootstrap,
    read_metrics,
    rmse,
    sims_metrics,
)
from gmsa.registry import METRICS
from gmsa.training.scoring import Predictions

PREDICTION = np.array([0.4, -0.2, 0, 2.6, -1.5, 0.5])
TRUTH = np.array([0, 0, -1, 3, -2, 1.4])
MMSA = ("mosi", "sims")


def test_golden_case_mosi():
    scores = mosi_metrics(PREDICTION, TRUTH)
    assert {name: round(value, 4) for name, value in scores.items()} == {
        "Has0_acc_2": 0.6667, "Has0_F1_score": 0.6667, "Non0_acc_2": 1.0, "Non0_F1_score": 1.0,
        "Mult_acc_5": 0.6667, "Mult_acc_7": 0.6667, "MAE": 0.5667, "Corr": 0.9383,
    }  # fmt: skip


def test_golden_case_sims():
    scores = sims_metrics(PREDICTION / 3, TRUTH / 3)
    assert {name: round(value, 4) for name, value in scores.items()} == {
        "Mult_acc_2": 0.8333, "Mult_acc_3": 0.6667, "Mult_acc_5": 0.6667, "F1_score": 0.8381,
        "MAE": 0.1889, "Corr": 0.9383, "Non0_acc_2": 1.0, "Non0_F1_score": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("label_scale", [*MMSA, "intensity"])
def test_columns_and_types(label_scale):
    scores = metrics(label_scale, PREDICTION, TRUTH)
    assert tuple(scores) == COLUMNS[label_scale]
    assert all(type(value) is float for value in scores.values())


def weighted_f1(truth, prediction):
    """F1 of each class by its counts, weighted by the class's share of the truth."""
    total = 0.0
    for k in set(truth.tolist()):
        right = ((truth == k) & (prediction == k)).sum()
        total += (truth == k).mean() * 2 * right / ((truth == k).sum() + (prediction == k).sum())
    return total


def half_even(x):
    """Rounds by hand: the even neighbour where both are equally far."""
    low = np.floor(x)
    return low + ((x - low > 0.5) | ((x - low == 0.5) & (low % 2 == 1)))


def interval(x, borders):
    """MMSA's loop: the number of the interval (low, high] that holds x, compared as float32 arrays are."""
    out = np.full(len(x), -1)
    for i, (low, high) in enumerate(itertools.pairwise(borders)):
        out[(x > np.float32(low)) & (x <= np.float32(high))] = i
    assert (out >= 0).all()
    return out


def plain_pearson(p, t):
    mean_p, mean_t = math.fsum(p) / len(p), math.fsum(t) / len(t)
    x, y = [a - mean_p for a in p], [b - mean_t for b in t]
    covariance = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return covariance / (math.hypot(*x) * math.hypot(*y))


def oracle(label_scale, prediction, truth):
    p, t = prediction.astype(np.float32), truth.astype(np.float32)
    scores = {}
    if label_scale == "mosi":
        scores["Has0_acc_2"] = accuracy_score(t >= 0, p >= 0)
        scores["Has0_F1_score"] = weighted_f1(t >= 0, p >= 0)
        for name, limit in (("Mult_acc_5", 2), ("Mult_acc_7", 3)):
            scores[name] = np.mean([half_even(min(max(a, -limit), limit)) == half_even(min(max(b, -limit), limit))
                                    for a, b in zip(p, t, strict=True)])  # fmt: skip
    else:
        p, t = np.clip(p, -1, 1), np.clip(t, -1, 1)
        splits = {
            "Mult_acc_2": [-1.01, 0.0, 1.01],
            "Mult_acc_3": [-1.01, -0.1, 0.1, 1.01],
            "Mult_acc_5": [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01],
        }
        for name, borders in splits.items():
            scores[name] = accuracy_score(interval(t, borders), interval(p, borders))
        scores["F1_score"] = weighted_f1(interval(t, splits["Mult_acc_2"]), interval(p, splits["Mult_acc_2"]))
    kept = t != 0
    scores["Non0_acc_2"] = accuracy_score(t[kept] > 0, p[kept] > 0) if kept.any() else 0.0
    scores["Non0_F1_score"] = weighted_f1(t[kept] > 0, p[kept] > 0) if kept.any() else 0.0
    scores["MAE"] = np.mean([abs(float(a) - float(b)) for a, b in zip(p, t, strict=True)])
    constant = len(set(p.tolist())) == 1 or len(set(t.tolist())) == 1
    scores["Corr"] = 0.0 if constant else plain_pearson(p.tolist(), t.tolist())
    return scores


# Tenths and fifths hit every border; the free floats fall between.
intensity = st.one_of(
    st.integers(-35, 35).map(lambda i: i / 10), st.integers(-18, 18).map(lambda i: i / 5), st.floats(-4, 4, width=32)
)


@pytest.mark.parametrize("label_scale", MMSA)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_agrees_with_an_independent_oracle(label_scale, data):
    count = data.draw(st.integers(1, 30))
    prediction, truth = (data.draw(arrays(np.float64, count, elements=intensity)) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics(label_scale, prediction, truth) == pytest.approx(
            oracle(label_scale, prediction, truth), abs=1e-6
        )


@pytest.mark.parametrize("label_scale", MMSA)
def test_agrees_on_many_random_utterances(label_scale):
    rng = np.random.default_rng(0)
    truth = rng.integers(-15, 16, 2000) / 5
    prediction = 0.7 * truth + rng.normal(size=2000)
    scale = 1 if label_scale == "mosi" else 1 / 3
    ours = metrics(label_scale, scale * prediction, scale * truth)
    assert ours == pytest.approx(oracle(label_scale, scale * prediction, scale * truth), abs=1e-12)


def test_halves_round_to_even():
    halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert mosi_metrics(halves, np.array([-2.0, -2, 0, 0, 2, 2]))["Mult_acc_7"] == 1.0
    assert mosi_metrics(halves, np.array([-3.0, -1, -1, 1, 1, 3]))["Mult_acc_7"] == 0.0


@pytest.mark.filterwarnings("ignore:.*constant")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_borders_belong_to_the_interval_below_in_either_precision(dtype):
    borders = np.array([-0.7, -0.1, 0.0, 0.1, 0.7], dtype=dtype)
    below, above = borders - dtype(0.01), borders + dtype(0.01)
    for name, inside in (("Mult_acc_2", [2]), ("Mult_acc_3", [1, 3]), ("Mult_acc_5", [0, 1, 3, 4])):
        assert sims_metrics(borders[inside], below[inside])[name] == 1.0
        assert sims_metrics(borders[inside], above[inside])[name] == 0.0
    # The same label read once as float32 and once as float64 is the same label.
    assert sims_metrics(borders.astype(np.float32), borders.astype(np.float64))["Mult_acc_5"] == 1.0


def test_sims_clips_before_mae_and_corr():
    prediction, truth = np.array([2.0, -3.0, 0.5]), np.array([1.0, -1.0, 0.2])
    scores = sims_metrics(prediction, truth)
    assert scores["MAE"] == pytest.approx(0.1, abs=1e-7)
    assert scores["Corr"] == pytest.approx(np.corrcoef([1, -1, 0.5], truth)[0, 1], abs=1e-7)


def test_f1_takes_the_truth_first():
    # Weighted F1 is not symmetric: with the arguments swapped this would be 0.8.
    prediction, truth = np.array([1.0, 1, 1]), np.array([1.0, 1, -1])
    with pytest.warns(UserWarning, match="constant") as caught:
        assert mosi_metrics(prediction, truth)["Has0_F1_score"] == pytest.approx(2 / 3 * 0.8)
    assert caught[0].filename == __file__  # the warning points at the caller


@pytest.mark.parametrize("label_scale", [*MMSA, "intensity"])
@pytest.mark.parametrize("constant", [0.1, 1 / 3, -0.7])
def test_constant_prediction_or_truth(label_scale, constant):
    flat, varied = np.full(7, constant), np.linspace(-1, 1, 7)
    for name, pair in (("prediction", (flat, varied)), ("truth", (varied, flat))):
        with pytest.warns(UserWarning, match=f"{name} is constant"):
            assert metrics(label_scale, *pair)["Corr"] == 0.0


@pytest.mark.parametrize("label_scale", MMSA)
def test_all_truth_zero(label_scale):
    with pytest.warns(UserWarning, match="Non0"), pytest.warns(UserWarning, match="truth is constant"):
        scores = metrics(label_scale, [0.3, -0.3, 0.0], [0.0, 0.0, 0.0])
    assert scores["Non0_acc_2"] == scores["Non0_F1_score"] == scores["Corr"] == 0.0
    assert np.isfinite(list(scores.values())).all()


@pytest.mark.filterwarnings("ignore:.*constant", "ignore:all labels are on one side")
@pytest.mark.parametrize("label_scale", MMSA)
def test_single_utterance(label_scale):
    scores = metrics(label_scale, [0.9], [1.0])
    assert scores["MAE"] == pytest.approx(0.1)
    assert scores["Non0_acc_2"] == 1.0
    assert scores["Corr"] == 0.0


@pytest.mark.parametrize(
    ("label_scale", "truth", "names"),
    [
        ("mosi", [1, 0, 1, 0], "Has0_acc_2, Has0_F1_score, Non0_acc_2, Non0_F1_score"),
        ("mosi", [-1, 0, -2, -3], "Non0_acc_2, Non0_F1_score"),
        ("sims", [-1, 0, -1, 0], "Mult_acc_2, F1_score, Non0_acc_2, Non0_F1_score"),
        ("sims", [1, 0, 0.5, 0.2], "Non0_acc_2, Non0_F1_score"),
    ],
)
def test_labels_on_one_side_of_zero_warn(label_scale, truth, names):
    """The values stay those of the definitions: of binary labels read as intensities all are right."""
    with pytest.warns(UserWarning, match="one side of 0") as caught:
        scores = metrics(label_scale, np.sign(truth) / 2, truth)
    assert [str(w.message).split(": ")[1].split(" do not")[0] for w in caught] == [names]
    assert scores["Non0_acc_2"] == scores["Non0_F1_score"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics(label_scale, [0.5, -0.5, 0.1], [1, -1, 0])


def test_intensities_on_any_range_against_scipy_and_loops():
    rng = np.random.default_rng(8)
    truth = rng.uniform(0, 100, 200).astype(np.float32).astype(float)
    prediction = (0.6 * truth + 10 * rng.normal(size=200)).astype(np.float32).astype(float)
    scores = metrics("intensity", prediction, truth)
    assert tuple(scores) == COLUMNS["intensity"]
    assert scores["MAE"] == pytest.approx(sum(abs(a - b) for a, b in zip(prediction, truth, strict=True)) / 200)
    assert scores["RMSE"] == pytest.approx(root_mean_squared_error(truth, prediction))
    assert scores["Corr"] == pytest.approx(plain_pearson(prediction.tolist(), truth.tolist()))
    # CCC is Pearson's correlation times how well location and scale agree (Lin 1989).
    ratio, shift = np.std(prediction) / np.std(truth), np.mean(prediction) - np.mean(truth)
    agreement = 2 / (ratio + 1 / ratio + shift**2 / (np.std(prediction) * np.std(truth)))
    assert scores["CCC"] == pytest.approx(agreement * stats.pearsonr(prediction, truth).statistic)


def test_corr_of_very_small_and_large_values():
    x = np.array([1.0, 2, 4, 3])
    for scale in (1e-38, 1e-20, 1e37):
        assert mosi_metrics(scale * x, x)["Corr"] == pytest.approx(np.corrcoef(x, x)[0, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([], [], "empty"),
        ([1.0], [1.0, 2.0], "shape"),
        ([[1.0], [2.0]], [1.0, 2.0], "shape"),
        ([np.nan], [1.0], "prediction holds NaN"),
        ([1.0], [np.inf], "truth holds NaN or infinity"),
        ([1e300], [1.0], "infinity"),
    ],
)
@pytest.mark.parametrize("label_scale", [*MMSA, "intensity"])
def test_refuses(label_scale, prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        metrics(label_scale, prediction, truth)


def test_refuses_unknown_scheme():
    with pytest.raises(ValueError, match="mosi, sims, intensity, classes"):
        metrics("mosei", [1.0], [1.0])
    with pytest.raises(ValueError, match="need 'num_classes'"):
        metrics("classes", [1], [1])


# --- registered metrics


@pytest.fixture
def register(monkeypatch):
    """Registers metrics for the time of a test."""
    monkeypatch.setattr(METRICS, "_parts", dict(METRICS._parts))
    return METRICS.register


def test_rmse_and_ccc_against_scikit_learn_and_a_plain_loop():
    rng = np.random.default_rng(7)
    truth = rng.normal(size=300).astype(np.float32)
    prediction = (0.5 * truth + 0.3 + 0.2 * rng.normal(size=300)).astype(np.float32)
    assert rmse(prediction, truth) == pytest.approx(root_mean_squared_error(truth.astype(float), prediction))
    p, t = prediction.tolist(), truth.tolist()
    mean_p, mean_t = sum(p) / 300, sum(t) / 300
    covariance = sum((a - mean_p) * (b - mean_t) for a, b in zip(p, t, strict=True)) / 300
    variances = sum((a - mean_p) ** 2 for a in p) / 300, sum((b - mean_t) ** 2 for b in t) / 300
    assert ccc(prediction, truth) == pytest.approx(2 * covariance / (sum(variances) + (mean_p - mean_t) ** 2))
    assert ccc(truth, truth) == pytest.approx(1)
    assert ccc(-truth, truth) < 0
    assert ccc(truth + 5, truth) < 0.2 < 0.99 < np.corrcoef(truth + 5, truth)[0, 1]


def test_ccc_of_constants():
    assert ccc([1, 1, 1], [1, 2, 3]) == 0
    assert ccc([1, 1, 1], [2, 2, 2]) == 0
    with pytest.warns(UserWarning, match="same constant"):
        assert ccc([0.1] * 3, [0.1] * 3) == 0


def test_further_metrics_follow_those_of_the_label_scale(register):
    @register("within")
    @metric(higher_is_better=True)
    def within(prediction, truth, distance: float = 0.5) -> float:
        assert prediction.dtype == truth.dtype == np.float64
        found = np.float32((abs(prediction - truth) <= distance).mean())
        prediction[:] = 99  # whatever a metric does to its arrays, the next one sees them as they were
        return found

    scores = metrics("mosi", PREDICTION, TRUTH, ("within(distance=1)", "CCC", "RMSE"))
    assert tuple(scores) == (*COLUMNS["mosi"], "within", "CCC", "RMSE")
    assert scores["within"] == pytest.approx(1)
    assert scores["RMSE"] == pytest.approx(np.sqrt(((PREDICTION - TRUTH) ** 2).mean()))
    assert all(type(value) is float for value in scores.values())
    assert metrics("intensity", PREDICTION, TRUTH, ("RMSE",)).keys() == set(COLUMNS["intensity"])
    clipped = metrics("sims", [2.0, -3.0, 0.5], [1.0, -1.0, 0.2], ("RMSE",))
    assert clipped["RMSE"] == pytest.approx(0.3 / np.sqrt(3), abs=1e-6)


def test_a_further_metric_of_classes_gets_their_numbers(register):
    @register("share_of_first")
    @metric(higher_is_better=True)
    def share_of_first(prediction, truth) -> float:
        assert prediction.dtype == truth.dtype == np.int64
        return float((prediction == 0).mean())

    scores = metrics("classes", [0.0, 2.0], [0, 1], ("share_of_first",), num_classes=3)
    assert tuple(scores) == (*COLUMNS["classes"], "share_of_first")
    assert scores["share_of_first"] == 0.5


def test_predictions_are_scored_by_the_metrics_of_the_config():
    labels = np.array([1, np.nan, -1, 2], dtype=np.float32)
    value = np.array([1, 7, -1, 0], dtype=np.float32)
    predictions = Predictions(list("abcd"), labels, value, np.full((4, 7), 1 / 7), None)
    scores = predictions.metrics(Config(run=RunConfig(metrics=("RMSE",))))
    assert tuple(scores) == (*COLUMNS["mosi"], "RMSE")
    assert scores["RMSE"] == pytest.approx(np.sqrt(4 / 3))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True, "0.5", np.zeros(1)])
def test_a_metric_that_returns_no_finite_float(register, value):
    register("odd", metric(higher_is_better=True)(lambda prediction, truth: value))
    with pytest.raises(RunError, match=r"metric 'odd' returned .*; let it return a finite float"):
        metrics("mosi", PREDICTION, TRUTH, ("odd",))


def test_which_values_are_better(register):
    register("plain", lambda prediction, truth: 1.0)
    higher = {name: higher_is_better(name) for name in ("MAE", "loss", "RMSE", "Corr", "CCC", "Mult_acc_7", "F1_score")}
    assert [name for name, value in higher.items() if not value] == ["MAE", "loss", "RMSE"]
    assert all(map(higher_is_better, COLUMNS["classes"]))
    assert is_better("MAE", 0.5, 0.6)
    assert is_better("CCC", 0.6, 0.5)
    assert not is_better("MAE", 0.5, 0.5)
    assert not is_better("CCC", 0.5, 0.5)
    with pytest.raises(ConfigError, match=r"'plain' does not say .* @gmsa.metrics.metric\(higher_is_better=True\)"):
        higher_is_better("plain")
    with pytest.raises(ConfigError, match="RMSE, CCC"):
        higher_is_better("CCCC")


def test_metrics_that_a_config_cannot_add(register):
    register("plain", lambda prediction, truth: 1.0)
    for name in ("MAE", "accuracy"):
        register(name, metric(higher_is_better=False)(lambda prediction, truth: 1.0))
    for specs, message in (
        (("plain",), "does not say which values are better"),
        (("MAE",), "'MAE' is a metric of gmsa already"),
        (("accuracy",), "'accuracy' is a metric of gmsa already"),
        (("CCC", "CCC"), "names 'CCC' twice"),
        (("RMSE(power=3)",), "no parameter 'power'"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_metrics(specs)


def test_metrics_of_the_other_kind_of_target(register):
    register("share", metric(higher_is_better=True)(lambda prediction, truth: 1.0))
    register("kappa", metric(higher_is_better=True, of="classes")(lambda prediction, truth: 1.0))
    assert [*read_metrics(("share", "RMSE", "CCC"), "intensity")] == ["share", "RMSE", "CCC"]
    assert [*read_metrics(("share", "kappa"), "classes")] == ["share", "kappa"]
    for name in ("RMSE", "CCC"):
        with pytest.raises(ConfigError, match=f"'{name}' scores an intensity, but the target is classes; leave it out"):
            read_metrics((name,), "classes")
    with pytest.raises(ConfigError, match="'kappa' scores classes, but the target is an intensity; leave it out"):
        read_metrics(("kappa",), "intensity")


# --- paired bootstrap


def test_bootstrap_of_one_seed_agrees_with_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(1, 200)), 0.8 * rng.normal(size=(1, 200))
    ours = paired_bootstrap(a, b, samples=4000)
    theirs = stats.bootstrap(
        ((abs(b) - abs(a))[0],), np.mean, n_resamples=4000, method="percentile", random_state=2
    ).confidence_interval
    assert ours.difference == pytest.approx(abs(b).mean() - abs(a).mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_bootstrap_agrees_with_a_plain_loop():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(5, 60)), rng.normal(size=(5, 60)) + rng.normal(size=(5, 1))
    d = abs(b) - abs(a)
    draws = [d[rng.integers(5, size=5)][:, rng.integers(60, size=60)].mean() for _ in range(4000)]
    ours = paired_bootstrap(a, b, samples=4000)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.04)


def test_bootstrap_is_deterministic_antisymmetric_and_independent_of_chunks():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(3, 3000)), 1.05 * rng.normal(size=(3, 3000))
    one, other = paired_bootstrap(a, b, samples=800), paired_bootstrap(b, a, samples=800)
    assert one == paired_bootstrap(a, b, samples=800)
    assert one != paired_bootstrap(a, b, samples=800, seed=1)
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))
    assert other.p == one.p


def test_bootstrap_p_value():
    rng = np.random.default_rng(5)
    a = rng.normal(size=(2, 300))
    assert paired_bootstrap(a, a, samples=500).p == 1.0
    assert paired_bootstrap(a, 2 * a, samples=500).p == pytest.approx(2 / 501)
    rejected = [
        paired_bootstrap(rng.normal(size=(1, 50)), rng.normal(size=(1, 50)), samples=300, seed=i).p < 0.05
        for i in range(200)
    ]
    assert 0.01 <= np.mean(rejected) <= 0.11  # the level 0.05, give or take 200 draws


def test_bootstrap_refuses():
    for a, b in (([1.0], [1.0]), ([[1.0]], [[1.0, 2.0]]), (np.empty((0, 3)), np.empty((0, 3)))):
        with pytest.raises(ValueError, match="matrices"):
            paired_bootstrap(a, b)
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([[np.nan]], [[1.0]])
    with pytest.raises(ValueError, match="samples"):
        paired_bootstrap([[1.0]], [[1.0]], samples=0)


# --- calibration


def test_calibration_against_a_plain_loop():
    rng = np.random.default_rng(6)
    probabilities = rng.dirichlet(np.full(7, 0.4), size=500)
    classes = rng.integers(7, size=500)
    result = calibration(probabilities, classes, bins=8)
    error = 0.0
    for i in range(8):
        inside = [(max(p), np.argmax(p) == c) for p, c in zip(probabilities, classes, strict=True)
                  if i / 8 < max(p) <= (i + 1) / 8]  # fmt: skip
        if inside:
            error += abs(sum(c for c, _ in inside) - sum(r for _, r in inside)) / 500
            (row,) = [row for row in result.bins if row.low == i / 8]
            assert row.count == len(inside)
            assert row.accuracy == pytest.approx(np.mean([r for _, r in inside]))
    assert result.error == pytest.approx(error)
    assert sum(row.count for row in result.bins) == 500


def test_calibration_of_known_cases():
    sure = calibration([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    assert sure.error == 0.0
    assert [(row.low, row.high, row.count) for row in sure.bins] == [(0.9, 1.0, 2)]
    assert calibration([[1.0, 0.0]], [1]).error == 1.0
    # A confidence on a border belongs to the bin below.
    (row,) = calibration([[0.7, 0.3]], [0]).bins
    assert row.high == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("probabilities", "classes", "message"),
    [
        ([0.5, 0.5], [0], "expected probabilities"),
        ([[0.5, 0.5]], [0, 1], "expected probabilities"),
        (np.empty((0, 2)), [], "expected probabilities"),
        ([[0.5, 0.6]], [0], "sum to 1"),
        ([[1.5, -0.5]], [0], "sum to 1"),
        ([[np.nan, 1.0]], [0], "sum to 1"),
        ([[0.5, 0.5]], [2], "0 ... 1"),
    ],
)
def test_calibration_refuses(probabilities, classes, message):
    with pytest.raises(ValueError, match=message):
        calibration(probabilities, classes)
