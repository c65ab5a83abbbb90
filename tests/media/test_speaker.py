"""Tracks of faces, and which of them speaks."""

from __future__ import annotations

import numpy as np
import pytest

from gmsa.media import Face
from gmsa.media.speaker import Track, largest, loudness, speaking, tracks


def face(x: float, y: float = 0.5, jaw: float = 0.0, size: float = 0.2, who: int = 0) -> Face:
    return Face(np.array([who], np.float32), jaw, (x, y), size)


def who(track: Track) -> set[int]:
    return {int(f.features[0]) for f in track.values()}


@pytest.mark.parametrize("seed", range(5))
def test_faces_that_move_stay_apart(seed: int) -> None:
    """Three faces wander, in frames that list them in any order and lack some of them."""
    draw = np.random.default_rng(seed)
    places = np.array([[0.2, 0.3], [0.5, 0.6], [0.8, 0.3]])
    frames, seen = [], [0, 0, 0]
    for i in range(200):
        places += draw.uniform(-0.01, 0.01, places.shape) + 0.05 * (
            np.array([[0.2, 0.3], [0.5, 0.6], [0.8, 0.3]]) - places
        )
        shown = [k for k in draw.permutation(3) if i == 0 or draw.random() < 0.7]
        for k in shown:
            seen[k] += 1
        frames.append([face(*places[k], who=k) for k in shown])
    found = tracks(frames)
    assert sorted(who(track).pop() for track in found) == [0, 1, 2]
    assert all(len(who(track)) == 1 for track in found)
    assert {who(track).pop(): len(track) for track in found} == dict(enumerate(seen))


def test_the_nearest_pair_goes_first() -> None:
    """Both faces are in reach of the first track; the order of the frame's faces does not matter."""
    before = [face(0.4, who=0), face(0.5, who=1)]
    after = [face(0.49, who=1), face(0.38, who=0)]
    assert [who(track) for track in tracks([before, after])] == [{0}, {1}]
    assert [who(track) for track in tracks([before, after[::-1]])] == [{0}, {1}]


def test_a_face_far_away_is_another_and_one_that_returns_is_the_same() -> None:
    found = tracks([[face(0.2)], [], [], [face(0.25)], [face(0.7)]])
    assert [sorted(track) for track in found] == [[0, 3], [4]]
    assert tracks([[], []]) == []


def test_the_face_that_moves_with_the_sound_speaks() -> None:
    draw = np.random.default_rng(0)
    sound = draw.random(50)
    for speaker in (0, 1, 2):
        jaws = [sound * 0.5 + draw.random(50) * 0.2 if k == speaker else draw.random(50) for k in range(3)]
        found = [
            {i: face(0, jaw=jaw, size=0.1 if k == speaker else 0.3) for i, jaw in enumerate(jaws[k])} for k in range(3)
        ]
        assert speaking(found, sound) is found[speaker]
        assert largest(found) is not found[speaker]


def test_who_speaks_where_nobody_can_be_heard_or_seen_to() -> None:
    small: Track = {i: face(0.2, jaw=i % 2, size=0.1) for i in range(10)}
    big: Track = {i: face(0.7, jaw=0.3, size=0.3) for i in range(10)}
    assert speaking([small, big], np.zeros(10)) is big, "silence"
    assert speaking([small, big], np.array([1.0, 0.0] * 5)) is big, "the small one's mouth opens when it is quiet"
    assert speaking([small, big], np.array([0.0, 1.0] * 5)) is small


def test_a_face_of_two_frames_does_not_win_by_chance() -> None:
    sound = np.arange(10.0)
    passing: Track = {3: face(0.9, jaw=0.1), 4: face(0.9, jaw=0.2)}
    speaker: Track = {i: face(0.2, jaw=0.05 * i + 0.1 * (i % 3)) for i in range(10)}
    assert speaking([passing, speaker], sound) is speaker


def test_the_largest_is_seen_most() -> None:
    glimpse: Track = {0: face(0.5, size=0.9)}
    lasting: Track = {i: face(0.5, size=0.2) for i in range(10)}
    assert largest([glimpse, lasting]) is lasting


def test_loudness_is_the_root_mean_square_around_the_time() -> None:
    sound = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    found = loudness(sound, [0.0, 0.5, 0.99, 3.0], 0.1)
    pieces = [sound[:800], sound[7200:8800], sound[15_040:]]
    np.testing.assert_allclose(found[:3], [np.sqrt(sum(float(v) ** 2 for v in piece) / len(piece)) for piece in pieces])
    assert found[3] == 0, "there is no sound"
