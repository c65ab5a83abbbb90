"""Metrics of classes against loops over their definitions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from gmsa.metrics import COLUMNS, class_metrics, confusion, per_class


def rows_by_loop(prediction, truth, count):
    """Precision, recall, F1 and support of each class, by counting."""
    rows = []
    for k in range(count):
        right = sum(p == t == k for p, t in zip(prediction, truth, strict=True))
        predicted, true = sum(p == k for p in prediction), sum(t == k for t in truth)
        both = predicted + true
        rows.append(
            (right / predicted if predicted else 0, right / true if true else 0, 2 * right / both if both else 0, true)
        )
    return rows


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_against_loops(data):
    count, number = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 25))
    classes = st.integers(0, count - 1)
    p, t = (data.draw(arrays(np.int64, number, elements=classes)).tolist() for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scores = class_metrics(p, t, count)
    assert tuple(scores) == COLUMNS["classes"]
    assert all(type(value) is float for value in scores.values())
    for name, average in (("weighted_F1", "weighted"), ("macro_F1", "macro")):
        theirs = f1_score(t, p, labels=range(count), average=average, zero_division=0)
        assert scores[name] == pytest.approx(theirs)
    rows = rows_by_loop(p, t, count)
    assert scores == pytest.approx(
        {
            "accuracy": sum(a == b for a, b in zip(p, t, strict=True)) / number,
            "weighted_F1": sum(f1 * support for *_, f1, support in rows) / number,
            "macro_F1": sum(f1 for *_, f1, _ in rows) / count,
            "unweighted_accuracy": np.mean([recall for _, recall, _, support in rows if support]),
        }
    )
    names = [f"c{k}" for k in range(count)]
    found = per_class(p, t, names)
    assert [row["class"] for row in found] == names
    assert [list(row.values())[1:] for row in found] == [pytest.approx(row) for row in rows]
    table = confusion(p, t, count)
    assert table.shape == (count, count)
    assert table.tolist() == [[sum((a, b) == (j, i) for a, b in zip(p, t, strict=True)) for j in range(count)]
                              for i in range(count)]  # fmt: skip


def test_a_class_that_nobody_has_counts_in_the_macro_mean():
    scores = class_metrics([0, 1], [0, 1], num_classes=4)
    assert scores == {"accuracy": 1, "weighted_F1": 1, "macro_F1": 0.5, "unweighted_accuracy": 1}


def test_truth_of_one_class_warns():
    with pytest.warns(UserWarning, match="the truth of all 3 utterances is class 2") as caught:
        scores = class_metrics([2, 2, 0], [2, 2, 2], num_classes=3)
    assert caught[0].filename == __file__
    assert scores["accuracy"] == scores["unweighted_accuracy"] == pytest.approx(2 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        class_metrics([2, 2, 2], [2, 2, 0], num_classes=3)  # all the same answer: no F1 of scikit-learn warns


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([], [], "empty"),
        ([0], [0, 1], "shape"),
        ([[0], [1]], [0, 1], "shape"),
        ([3], [0], "prediction must hold classes in 0 ... 2"),
        ([0], [-1], "truth must hold classes in 0 ... 2"),
        ([0.5], [0], "prediction must hold classes"),
        ([0], [np.nan], "truth must hold classes"),
    ],
)
def test_refuses(prediction, truth, message):
    for function, classes in ((class_metrics, 3), (confusion, 3), (per_class, ["a", "b", "c"])):
        with pytest.raises(ValueError, match=message):
            function(prediction, truth, classes)
