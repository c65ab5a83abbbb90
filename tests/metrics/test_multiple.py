"""Holm's correction against its definition as a procedure that rejects step by step."""

from __future__ import annotations

import numpy as np
import pytest

from gmsa.metrics import holm


def rejected(p_values, level):
    """Holm's procedure: from the smallest p-value on, reject while p <= level / number of tests that are left."""
    found = set()
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > level / (len(p_values) - place):
            break
        found.add(index)
    return found


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_rejects_what_the_procedure_rejects(count):
    rng = np.random.default_rng(count)
    for _ in range(50):
        p = (rng.uniform(size=count) ** 3).round(2).tolist()  # rounded: some are equal
        adjusted = holm(p)
        for level in (0.0137, 0.0512, 0.1123, 0.4321):
            assert {i for i, value in enumerate(adjusted) if value <= level} == rejected(p, level)


def test_adjusted_values():
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert all(type(value) is float for value in holm([0.1, 1, 0]))
    p = [0.2, 0.001, 0.05, 0.001]
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert [adjusted[i] for i in np.argsort(p)] == sorted(adjusted)


@pytest.mark.parametrize("p_values", [[-0.1], [1.1], [float("nan")], [[0.1]]])
def test_refuses(p_values):
    with pytest.raises(ValueError, match="p-values"):
        holm(p_values)


def test_keeps_the_familywise_error_rate():
    rng = np.random.default_rng(0)
    wrong = np.mean([min(holm(rng.uniform(size=10).tolist())) <= 0.1 for _ in range(1000)])
    assert 0.06 <= wrong <= 0.13
