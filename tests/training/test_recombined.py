"""Utterances made of parts of others."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gmsa.data import Utterance
from gmsa.data.features import change_features
from gmsa.training.recombined import _cuts, _Joined, recombined

LENGTHS = {"text": (7, 4, 1, 12, 5), "audio": (1, 1, 1, 1, 1), "vision": (0, 3, 0, 9, 0)}


def numbered(count: int = 40, **changes: object) -> list[Utterance]:
    """Utterances whose every step says of which utterance and which place in it it is."""

    def steps(i: int, length: int) -> Tensor:
        return torch.tensor([[i, step] for step in range(length)], dtype=torch.float32).reshape(length, 2)

    return [
        Utterance(
            f"v{i // 4}$_${i % 4}",
            {m: steps(i, lengths[i % 5]) for m, lengths in LENGTHS.items()},
            label=1.0,
            unimodal={"text": 1.0},
            text="so",
            **changes,  # type: ignore[arg-type]
        )
        for i in range(count)
    ]


def partners(found: Mapping[str, Tensor], first: int) -> set[int]:
    """The other utterances of which the steps are."""
    return {int(i) for x in found.values() for i in x[:, 0].tolist()} - {first}


@pytest.mark.parametrize("seed", range(5))
def test_beginning_of_one_and_end_of_another(seed: int) -> None:
    """Read step by step, against what was said of them."""
    utterances = numbered()
    for i, made in enumerate(recombined(utterances, seed)):
        others = partners(made.features, i)
        assert len(others) <= 1  # one other for all modalities
        j = others.pop() if others else i
        for modality, found in made.features.items():
            steps = [(int(a), int(b)) for a, b in found.tolist()]
            own, of_other = ([n for who, n in steps if who == k] for k in (i, j))
            lengths = len(utterances[i].features[modality]), len(utterances[j].features[modality])
            if i != j:
                assert steps == [(i, n) for n in own] + [(j, n) for n in of_other]
                assert own == list(range(len(own)))
                assert of_other == list(range(lengths[1] - len(of_other), lengths[1]))
            assert made.lengths[modality] == len(found) <= max(lengths)
            if lengths == (1, 1):
                assert len(found) == 1  # either


def test_times_go_with_their_steps() -> None:
    """Of a step that says where it was the times are, too."""
    untimed = numbered()
    utterances = [replace(u, times=dict(u.features)) for u in untimed]
    for made in recombined(utterances, 1):
        assert made.times.keys() == made.features.keys()
        for modality, found in made.features.items():
            assert torch.equal(made.times[modality], found)
    assert not any(made.times for made in recombined(untimed, 1))


def test_cuts_are_uniform_and_rounded_fairly() -> None:
    """Of the first utterance are as many steps as of a uniform cut, and of either as often as of the other."""
    utterances = [
        Utterance(f"v$_${i}", {"text": torch.full((9, 1), float(i)), "audio": torch.ones(1, 1) * i})
        for i in range(3000)
    ]
    made = recombined(utterances, 1)
    own = {m: np.array([int((u.features[m] == i).sum()) for i, u in enumerate(made)]) for m in ("text", "audio")}
    counts = np.bincount(own["text"], minlength=10) / len(made)
    # P(floor(9 c + r) = k) of uniform c and r: 1/9, and half of it at both ends.
    np.testing.assert_allclose(counts, [1 / 18, *[1 / 9] * 8, 1 / 18], atol=0.02)
    assert own["audio"].mean() == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(own["text"], own["audio"])[0, 1]) < 0.06  # each modality has a cut of its own


def test_no_label_and_a_video_of_its_own() -> None:
    utterances = numbered()
    made = recombined(utterances, 1)
    assert all((u.label, u.unimodal, u.text, u.withheld) == (None, {}, "", {}) for u in made)
    assert [u.video for u in made] == [f"made:{u.video}" for u in utterances]
    assert [u.clip for u in made] == [(u.clip[0], u.clip[1]) for u in utterances]
    again = recombined([*utterances, *made], 1)
    assert len({u.id for u in (*utterances, *made, *again)}) == 4 * len(utterances)
    assert not {u.video for u in again} & {u.video for u in (*utterances, *made)}
    named = recombined(numbered(of_video="w", speaker="a", place=3), 1)
    assert {(u.video, u.speaker, u.place) for u in named} == {("made:w", "a", 3)}


def test_a_pure_function_of_the_seed() -> None:
    utterances = numbered()
    one, same, other = (recombined(utterances, seed, "pool") for seed in (1, 1, 2))
    equal = [all(torch.equal(a.features[m], b.features[m]) for m in LENGTHS) for a, b in zip(one, same, strict=True)]
    assert all(equal)
    assert not all(
        torch.equal(a.features["text"], b.features["text"])
        for a, b in zip(one, other, strict=True)
        if a.lengths == b.lengths
    )
    assert recombined([], 1) == []


def test_something_is_always_left() -> None:
    present, absent = torch.ones(1, 2), torch.zeros(0, 2)
    utterances = [
        Utterance(f"v$_${i}", {"text": present if i % 2 else absent, "audio": absent if i % 2 else present})
        for i in range(200)
    ]
    made = recombined(utterances, 1)
    assert {sum(u.lengths.values()) for u in made} == {1, 2}


def test_features_of_a_store_are_read_on_access() -> None:
    read: list[str] = []

    def reading(modality: str, features: Tensor) -> Tensor:
        read.append(modality)
        return features

    utterances = numbered(10)
    whole = [_Joined(u.features, u.features, _cuts(u, u, [(1.0, 0.0)] * 3)) for u in utterances]
    stored = [
        Utterance(u.id, change_features(lazy, reading), u.label) for u, lazy in zip(utterances, whole, strict=True)
    ]
    made, plain = recombined(stored, 1), recombined(utterances, 1)
    assert not read
    for a, b in zip(made, plain, strict=True):
        assert a.lengths == b.lengths
        copied = pickle.loads(pickle.dumps(b))
        assert all(torch.equal(a.features[m], b.features[m]) for m in LENGTHS)
        assert all(torch.equal(copied.features[m], b.features[m]) for m in LENGTHS)
    assert read
