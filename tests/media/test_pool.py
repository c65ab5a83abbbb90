"""Pooling steps to words, to regular spans and to a lower rate: plain loops say what is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmsa.media import Missing, Steps
from gmsa.media.pool import at_rate, pool, regular

TICKS = st.integers(0, 60).map(lambda n: n / 16)
"""Seconds that floats hold exactly, so that middles and edges often coincide."""


@st.composite
def spans(draw: st.DrawFn, least: int = 0, most: int = 12) -> list[tuple[float, float]]:
    starts = draw(st.lists(TICKS, min_size=least, max_size=most))
    return [(start, start + draw(st.integers(0, 16)) / 8) for start in starts]


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    found = sorted(draw(spans()))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(len(found), 3))
    start, stop = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return Steps(numbers.astype(np.float32), start, stop)


def pooled_by_loop(given: Steps, words: list[tuple[float, float]], reach: float) -> list[np.ndarray | None]:
    middles = [(start + stop) / 2 for start, stop in zip(given.start, given.stop, strict=True)]
    rows: list[np.ndarray | None] = []
    for start, stop in words:
        within = [i for i, middle in enumerate(middles) if start <= middle < stop]
        away = {i: max(start - middle, middle - stop) for i, middle in enumerate(middles)}
        near = sorted(
            (i for i in away if away[i] <= reach), key=lambda i: (away[i], middles[i], -i if middles[i] < start else i)
        )
        if within:
            rows.append(given.values[within].astype(np.float64).mean(0))
        else:
            rows.append(given.values[near[0]] if near else None)
    return rows


@given(steps(), spans(), st.sampled_from([0.0, 0.25, 5.0]))
def test_pool_equals_a_plain_loop(given: Steps, words: list[tuple[float, float]], reach: float) -> None:
    rows = pooled_by_loop(given, words, reach)
    missing = sum(row is None for row in rows)
    if missing > len(rows) / 2:
        with pytest.raises(Missing, match=f"^steps for {len(rows) - missing} of {len(rows)} words$"):
            pool(given, words, reach)
        return
    values, kept = pool(given, words, reach)
    assert values.dtype == np.float32
    assert kept.tolist() == [row is not None for row in rows]
    expected = [np.zeros(3) if row is None else row for row in rows]
    np.testing.assert_allclose(values, np.reshape(expected, (-1, 3)), rtol=1e-6, atol=1e-7)


def test_what_is_kept_at_the_edges() -> None:
    one = Steps(np.ones((1, 2), np.float32), np.array([0.9]), np.array([1.1]))
    inside, at_stop, reached, beyond = (1.0, 1.5), (0.5, 1.0), (1.25, 2.0), (1.2501, 2.0)
    assert pool(one, [inside, at_stop, reached, beyond])[1].tolist() == [True, True, True, False]
    with pytest.raises(Missing):
        pool(one, [inside, beyond, beyond])
    assert pool(one, [inside, beyond])[1].tolist() == [True, False], "a half is enough"
    assert pool(one, [])[0].shape == (0, 2)


def test_a_step_that_is_no_number_stays_in_its_word() -> None:
    values = np.array([[1.0], [np.nan], [3.0]], np.float32)
    found, _ = pool(Steps(values, np.arange(3.0), np.arange(3.0) + 1), [(0, 1), (1, 2), (2, 3)])
    assert np.isnan(found[:, 0]).tolist() == [False, True, False]


@given(st.floats(0.01, 100), st.floats(0.05, 2))
def test_regular_spans_cover_the_clip(duration: float, every: float) -> None:
    found = regular(duration, every)
    assert found[0, 0] == 0
    assert found[-1, 1] == duration
    assert (found[1:, 0] == found[:-1, 1]).all()
    lengths = np.diff(found, axis=1)[:, 0]
    np.testing.assert_allclose(lengths[:-1], every, rtol=1e-9, atol=1e-9)
    assert lengths[-1] < 2 * every
    assert len(found) == 1 or lengths[-1] > every * 0.99


@given(steps(), st.sampled_from([0.5, 1.0, 4.0, 10.0]))
def test_at_rate_equals_a_plain_loop(given: Steps, rate: float) -> None:
    bins: dict[int, list[int]] = {}
    for i, (start, stop) in enumerate(zip(given.start, given.stop, strict=True)):
        bins.setdefault(int((start + stop) / 2 * rate + 1e-6), []).append(i)
    found = at_rate(given, rate)
    assert len(found.values) == len(bins)
    for row, key in enumerate(sorted(bins)):
        members = bins[key]
        np.testing.assert_allclose(found.values[row], given.values[members].mean(0), rtol=1e-5, atol=1e-6)
        assert found.start[row] == given.start[members].min()
        assert found.stop[row] == given.stop[members].max()


def test_ten_steps_a_second_stay_ten() -> None:
    start = np.arange(100) / 10 - 0.05
    values = np.arange(100, dtype=np.float32)[:, None]
    same = at_rate(Steps(values, start, start + 0.1), 10)
    np.testing.assert_array_equal(same.values, values)
    hundred = np.arange(1000) / 100
    tenth = at_rate(Steps(np.ones((1000, 1), np.float32), hundred, hundred + 0.01), 10)
    np.testing.assert_allclose(tenth.start, np.arange(100) / 10)
    np.testing.assert_allclose(tenth.stop, np.arange(1, 101) / 10)
