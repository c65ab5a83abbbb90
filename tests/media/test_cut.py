"""Cutting a long video at its pauses: what must hold for any speech, and what a reader expects of plain cases."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmsa.media.cut import cut


@st.composite
def videos(draw: st.DrawFn) -> tuple[list[tuple[float, float]], float]:
    """Speech of words and turns that are up to 40 s long, with silences of 0 to 40 s; and the duration."""
    lengths = st.one_of(st.floats(0.05, 3), st.floats(0.05, 40))
    silences = st.one_of(st.just(0.0), st.floats(0.01, 1.5), st.floats(0.01, 40))
    spans, time = [], draw(silences)
    for _ in range(draw(st.integers(0, 25))):
        stop = time + draw(lengths)
        spans.append((time, stop))
        time = stop + draw(silences)
    return spans, max(time, 0.1)


@given(videos(), st.sampled_from([4.0, 15.0]), st.sampled_from([0.3, 0.6]))
def test_pieces_cover_the_video_once_and_are_short(
    video: tuple[list[tuple[float, float]], float], longest: float, pause: float
) -> None:
    speech, duration = video
    pieces = cut(speech, duration, longest, pause)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == duration
    assert all(before[1] == after[0] for before, after in pairwise(pieces))
    assert all(0 < stop - start <= longest + 1e-9 for start, stop in pieces)


@given(videos())
def test_speech_is_cut_only_where_no_silence_is_in_reach(video: tuple[list[tuple[float, float]], float]) -> None:
    speech, duration = video
    silences = [(a[1], b[0]) for a, b in pairwise(speech) if b[0] - a[1] > 1e-6]
    for start, stop in cut(speech, duration)[:-1]:
        if any(a + 1e-9 < stop < b - 1e-9 for a, b in speech):
            assert not any(start < a < start + 15 for a, _ in silences), "a silence began in reach"
            assert not any(start + 1e-9 < (a + b) / 2 <= start + 15 for a, b in silences if b - a < 7.5)


@given(videos())
def test_a_cut_in_a_short_silence_means_no_pause_was_in_reach(
    video: tuple[list[tuple[float, float]], float],
) -> None:
    speech, duration = video
    silences = [(a[1], b[0]) for a, b in pairwise(speech)]
    for start, stop in cut(speech, duration)[:-1]:
        around = [(a, b) for a, b in silences if a <= stop <= b]
        if around and max(b - a for a, b in around) < 0.6 - 1e-9:
            assert not any(b - a >= 0.6 + 1e-9 and start + 1e-9 < (a + b) / 2 <= start + 15 for a, b in silences)


def test_a_short_video_is_one_piece() -> None:
    assert cut([(1, 2), (5, 9)], 15) == [(0, 15)]
    assert cut([], 3) == [(0, 3)]


def test_the_middle_of_the_longest_pause_is_taken() -> None:
    speech = [(0, 8), (8.2, 10), (11, 13), (13.6, 16), (16.3, 20)]
    assert cut(speech, 20) == [(0, 10.5), (10.5, 20)]


def test_a_pause_is_better_than_a_gap_and_a_late_pause_than_an_early_one() -> None:
    assert cut([(0, 2), (3, 9), (9.4, 20)], 20)[0] == (0, 2.5)
    assert cut([(0, 2), (3, 9), (9.8, 20)], 20)[0] == (0, 9.4)


def test_speech_that_runs_on_is_cut_at_its_longest_gap_or_at_the_end_of_the_reach() -> None:
    assert cut([(0, 6), (6.1, 9), (9.3, 12), (12.1, 22)], 22)[0][1] == pytest.approx(9.15)
    assert cut([(0, 40)], 40) == [(0, 15), (15, 27.5), (27.5, 40)]


def test_a_long_silence_lets_the_words_around_it_whole() -> None:
    speech = [(16.1, 29), (60, 70)]
    stops = [stop for _, stop in cut(speech, 75)]
    assert stops == pytest.approx([7.9, 15.8, 29.3, 44.3, 52.0, 59.7, 70.3, 75])


def test_a_pause_that_begins_in_reach_is_used_though_its_middle_is_beyond() -> None:
    assert cut([(0, 14.5), (16.5, 30)], 30) == [(0, 15), (15, 30)]


def test_overlapping_speech_counts_as_one() -> None:
    assert cut([(0, 9), (1, 2), (3, 14), (14.8, 20)], 20) == [(0, pytest.approx(14.4)), (pytest.approx(14.4), 20)]
