"""The linear context baseline against plain loops, NumPy's least squares and SciPy's minimizer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from gmsa.metrics import LinearContext, context_features, cross_fitted, paired_bootstrap
from gmsa.metrics.context import PARTS, REACHES

REACH = pytest.mark.parametrize("reach", REACHES)


def corpus(classes: int = 0, sizes=(1, 2, 3, 5, 9, 14, 1), seed: int = 0):
    """Predictions, labels, dialogues and places in no order; the third utterance of each long dialogue has no label."""
    rng = np.random.default_rng(seed)
    dialogues = [f"d{k}" for k, size in enumerate(sizes) for _ in range(size)]
    places = [(i, str(i)) for size in sizes for i in range(size)]
    mood = np.repeat(rng.normal(size=len(sizes)), sizes)
    if classes:
        prediction = rng.dirichlet(np.ones(classes), size=len(places)).astype(np.float32)
        labels = rng.integers(classes, size=len(places)).astype(float)
    else:
        labels = mood + rng.normal(size=len(places)) / 2
        prediction = (labels + rng.normal(size=len(places))).astype(np.float32)
    labels[[place[0] == 2 for place in places]] = np.nan
    rows = rng.permutation(len(places))
    return prediction[rows], labels[rows], [dialogues[n] for n in rows], [places[n] for n in rows]


def features_by_loops(y, dialogues, order, reach):
    found, there = [], []
    for n in range(len(y)):
        mine = sorted((order[m], m) for m in range(len(y)) if dialogues[m] == dialogues[n])
        rows = [m for _, m in mine]
        i = rows.index(n)
        before, after = rows[max(0, i - 3) : i], rows[i + 1 : i + 4]
        groups = [before, after, [m for m in rows if m not in (n, *before, *after)]]
        if reach == "past":
            groups = [before, rows[: max(0, i - 3)]]
        found.append([y[n], *(np.mean([y[m] for m in group], axis=0) if group else y[n] for group in groups)])
        there.append(any(groups))
    return np.moveaxis(np.array(found, dtype=np.float64), 1, -1), there


@REACH
@pytest.mark.parametrize("classes", [0, 3])
def test_features_are_those_of_plain_loops(reach, classes):
    y, _, dialogues, order = corpus(classes)
    y = y.astype(np.float64)
    features, there = context_features(y, dialogues, order, reach)
    expected, expected_there = features_by_loops(y, dialogues, order, reach)
    np.testing.assert_allclose(features, expected, atol=1e-12)
    assert there.tolist() == expected_there


@REACH
def test_an_intensity_is_fitted_by_least_squares(reach):
    y, t, dialogues, order = corpus()
    features, there = features_by_loops(y.astype(np.float64), dialogues, order, reach)
    rows = [n for n in range(len(y)) if there[n] and not np.isnan(t[n])]
    design = np.array([[*features[n], 1.0] for n in rows])
    expected = np.linalg.lstsq(design, np.array([t[n] for n in rows]), rcond=None)[0]
    found = LinearContext.fit(y, t, dialogues, order, reach)
    np.testing.assert_allclose([*found.weights, found.intercept], expected, atol=1e-10)
    assert [*found.named] == [*REACHES[reach], "intercept"]
    answers = found.apply(y, dialogues, order)
    for n in range(len(y)):
        assert answers[n] == pytest.approx(features[n] @ expected[:-1] + expected[-1] if there[n] else y[n])


@REACH
@pytest.mark.parametrize("classes", [2, 5])
def test_classes_are_fitted_by_penalized_logistic_loss(reach, classes):
    y, t, dialogues, order = corpus(classes)
    y[0] = np.eye(classes)[1]  # a probability of 0
    logs = np.log(np.maximum(y.astype(np.float64), 1e-6))
    features, there = features_by_loops(logs, dialogues, order, reach)
    rows = [n for n in range(len(y)) if there[n] and not np.isnan(t[n])]
    first = np.eye(features.shape[-1])[0]

    def loss(w):
        total = ((w - first) ** 2).sum() / 2
        for n in rows:
            scores = features[n] @ w
            total += np.log(np.exp(scores).sum()) - scores[int(t[n])]
        return total

    expected = minimize(loss, first, tol=1e-12)
    found = LinearContext.fit(y, t, dialogues, order, reach)
    assert loss(found.weights) <= expected.fun + 1e-9
    np.testing.assert_allclose(found.weights, expected.x, atol=1e-4)
    answers = found.apply(y, dialogues, order)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-6)
    for n in range(len(y)):
        raised = np.exp(features[n] @ found.weights)
        np.testing.assert_allclose(answers[n], raised / raised.sum() if there[n] else y[n], atol=1e-9)


def test_classes_that_are_told_apart_perfectly_have_finite_weights():
    t = np.array([0, 1] * 10)
    found = LinearContext.fit(np.eye(2)[t], t, ["a"] * 10 + ["b"] * 10, range(20))
    assert np.isfinite(found.weights).all()
    assert found.apply(np.eye(2)[t], ["a"] * 10 + ["b"] * 10, range(20)).argmax(1).tolist() == t.tolist()


@pytest.mark.parametrize("classes", [0, 3])
def test_the_order_in_a_file_does_not_matter_but_that_in_a_dialogue_does(classes):
    y, t, dialogues, order = corpus(classes)
    fit, answers = LinearContext.fit(y, t, dialogues, order), cross_fitted(y, t, dialogues, order)
    rows = np.random.default_rng(1).permutation(len(y))
    names, places = [dialogues[n] for n in rows], [order[n] for n in rows]
    again = LinearContext.fit(y[rows], t[rows], names, places)
    assert again.named == fit.named
    assert (again.apply(y[rows], names, places) == fit.apply(y, dialogues, order)[rows]).all()
    assert (cross_fitted(y[rows], t[rows], names, places) == answers[rows]).all()
    moved = [(place[0] * 7 % 10, place[1]) for place in order]
    assert not np.allclose(fit.apply(y, dialogues, moved), fit.apply(y, dialogues, order))


@REACH
@pytest.mark.parametrize("classes", [0, 3])
def test_nothing_comes_from_other_dialogues_or_from_the_future_of_the_past(reach, classes):
    y, t, dialogues, order = corpus(classes)
    fit = LinearContext.fit(y, t, dialogues, order, reach)
    answers, mine = fit.apply(y, dialogues, order), np.array([name == "d5" for name in dialogues])
    changed = y.copy()
    changed[~mine] = changed[~mine][::-1]
    assert (fit.apply(changed, dialogues, order)[mine] == answers[mine]).all()
    some = [n for n in range(len(y)) if mine[n]]
    assert (fit.apply(y[some], [dialogues[n] for n in some], [order[n] for n in some]) == answers[some]).all()
    later = mine & np.array([place[0] > 6 for place in order])
    changed = y.copy()
    changed[later] = changed[later][::-1]
    same = (fit.apply(changed, dialogues, order) == answers)[mine & ~later]
    assert same.all() == (reach == "past")


def test_an_utterance_alone_keeps_its_prediction_and_fits_nothing():
    y, t, dialogues, order = corpus()
    alone = np.array([dialogues.count(name) == 1 for name in dialogues])
    assert alone.sum() == 2
    fit = LinearContext.fit(y, t, dialogues, order)
    assert (fit.apply(y, dialogues, order)[alone] == y[alone]).all()
    assert LinearContext.fit(y, np.where(alone, 99, t), dialogues, order).named == fit.named
    assert LinearContext.fit(np.where(alone, 99, y), t, dialogues, order).named == fit.named


def test_another_range_of_the_target_changes_nothing_else():
    y, t, dialogues, order = corpus()
    answers = LinearContext.fit(y, t, dialogues, order).apply(y, dialogues, order)
    other = LinearContext.fit(50 + 10 * y, 50 + 10 * t, dialogues, order).apply(50 + 10 * y, dialogues, order)
    np.testing.assert_allclose(other, 50 + 10 * answers, rtol=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_dialogue_is_predicted_by_weights_of_others(classes):
    y, t, dialogues, order = corpus(classes)
    found = cross_fitted(y, t, dialogues, order)
    for name in set(dialogues):
        rows = [n for n in range(len(y)) if dialogues[n] == name]
        rest = [n for n in range(len(y)) if dialogues[n] != name]
        fit = LinearContext.fit(y[rest], t[rest], [dialogues[n] for n in rest], [order[n] for n in rest])
        expected = fit.apply(y[rows], [name] * len(rows), [order[n] for n in rows])
        np.testing.assert_allclose(found[rows], expected, atol=1e-9)


def test_no_answer_depends_on_labels_of_its_dialogue_however_many_there_are():
    y, t, dialogues, order = corpus(sizes=[3] * (2 * PARTS + 5))
    found = cross_fitted(y, t, dialogues, order)
    for name in ("d0", "d17", "d44"):
        mine = np.array([other == name for other in dialogues])
        changed = cross_fitted(y, np.where(mine, -t, t), dialogues, order)
        assert (changed[mine] == found[mine]).all()
        assert (changed != found).any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dialogues": ["a"] * 8}, "a dialogue and a place for each"),
        ({"prediction": np.zeros((9, 2, 2))}, "predictions"),
        ({"reach": "future"}, "unknown reach 'future': expected one of all, past"),
        ({"labels": [1.0] * 8}, "a label for each of the 9"),
        (
            {"labels": [np.nan] * 2 + [1.0] * 7},
            r"at least 8 labeled utterances with others in their dialogue \(got 7\)",
        ),
        ({"dialogues": list("abcdefghi")}, r"\(got 0\)"),
    ],
)
def test_errors(change, said):
    given = {"prediction": np.arange(9.0), "labels": np.arange(9.0), "dialogues": ["a"] * 9, "order": range(9)}
    with pytest.raises(ValueError, match=said):
        LinearContext.fit(**given | change)


# --- the bootstrap of whole dialogues


def test_dialogues_are_drawn_whole():
    """The bootstrap of three dialogues and one seed has ten outcomes, whose probabilities are known."""
    a, b = np.zeros((1, 6)), np.array([[1, 2, 3, -4, 5, 1.5]])
    groups = ["x", "x", "y", "z", "z", "z"]
    d = np.abs(b[0])
    parts = {name: [d[n] for n in range(6) if groups[n] == name] for name in "xyz"}
    draws = itertools.product("xyz", repeat=3)
    outcomes = sorted(np.mean([error for name in drawn for error in parts[name]]) for drawn in draws)
    found = paired_bootstrap(a, b, samples=20000, groups=groups)
    assert found.difference == pytest.approx(d.mean())
    # At these tails the outcomes do not jump: the first and the last of 27 are their own.
    assert (found.low, found.high) == (pytest.approx(outcomes[0]), pytest.approx(outcomes[-1]))
    rows = [5, 3, 0, 4, 2, 1]
    again = paired_bootstrap(a[:, rows], b[:, rows], samples=20000, groups=[groups[n] for n in rows])
    assert again.p == found.p
    assert again.low == pytest.approx(found.low)


def test_groups_of_one_are_the_utterances():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 40))
    alone = paired_bootstrap(a, b, samples=500)
    found = paired_bootstrap(a, b, samples=500, groups=[f"{n:02}" for n in range(40)])
    assert (found.low, found.high, found.p) == pytest.approx((alone.low, alone.high, alone.p))
    twice = paired_bootstrap(
        np.repeat(a, 9, 1), np.repeat(b, 9, 1), samples=500, groups=[f"{n:02}" for n in range(40) for _ in range(9)]
    )
    assert twice.high - twice.low == pytest.approx(alone.high - alone.low)
    with pytest.raises(ValueError, match=r"a group for each of the 40 utterances \(got 2\)"):
        paired_bootstrap(a, b, groups=["a", "b"])
