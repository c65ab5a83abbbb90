"""Patterns of missing modalities."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from torch import Tensor

from gmsa.config.groups.missing import Missing
from gmsa.config.presets import MODALITIES
from gmsa.data import Utterance, apply_missing, mask_in_turns, pattern_of
from gmsa.data.features import ChangedFeatures, LazyFeatures
from gmsa.data.patterns import MOST_PATTERNS, unmasked

NAMES = ("text", "eeg", "pose")
SUBSETS = [frozenset(s) for size in range(4) for s in combinations(NAMES, size)]


class Stored(LazyFeatures):
    """Features that are read on access."""

    def __init__(self, features: dict[str, Tensor]) -> None:
        self.features = features

    @property
    def lengths(self) -> dict[str, int]:
        return {m: len(x) for m, x in self.features.items()}

    def __getitem__(self, modality: str) -> Tensor:
        return self.features[modality]


def utterances(count: int) -> list[Utterance]:
    """Utterances of every pattern, in turns."""
    whole = {m: torch.ones(3, 2) for m in NAMES}
    return [Utterance(f"v${i}", whole).drop(frozenset(NAMES) - SUBSETS[i % 8]) for i in range(count)]


def test_every_utterance_has_every_pattern_that_its_modalities_allow_once() -> None:
    own, like = utterances(80), [u for u in utterances(8) if pattern_of(u) in ("eeg", "text+eeg", "pose")]
    wanted = {"eeg": {"eeg"}, "text+eeg": {"eeg", "text"}, "pose": {"pose"}}
    turns = mask_in_turns(own, like, 0)
    assert len(turns) == 3
    seen: dict[str, Counter[str]] = {u.id: Counter() for u in own}
    for turn in turns:
        assert [u.id for u in turn.utterances] == [u.id for u in own]
        for u, counted in zip(turn.utterances, turn.counted, strict=True):
            seen[u.id][pattern_of(u)] += int(counted)
    for u in own:
        there = {m for m, is_there in u.present.items() if is_there}
        expected = {name for name, p in wanted.items() if p <= there} or {pattern_of(u)}
        assert {p for p, count in seen[u.id].items() if count} == expected
        assert set(seen[u.id].values()) == {1}
    whole = [pattern_of(t) for t, u in zip(turns[0].utterances, own, strict=True) if all(u.present.values())]
    assert len(set(whole)) > 1  # neighbours differ


def test_turns_depend_on_nothing_but_seed_and_id() -> None:
    own = utterances(40)

    def patterns(of: list[Utterance], seed: int) -> list[dict[str, str]]:
        return [{u.id: pattern_of(u) for u in turn.utterances} for turn in mask_in_turns(of, own, seed)]

    assert patterns(own, 0) == patterns(own[::-1], 0)
    assert patterns(own, 0) != patterns(own, 1)
    assert patterns(own[7:8], 0)[0] == {own[7].id: patterns(own, 0)[0][own[7].id]}


def test_without_missing_modalities_there_is_one_turn_of_the_same_utterances() -> None:
    own = [u for u in utterances(16) if all(u.present.values())]
    (turn,) = mask_in_turns(own, own, 0)
    assert turn.utterances == own
    assert turn.counted.all()
    assert mask_in_turns([], own, 0) == []
    (turn,) = mask_in_turns(own, [], 0)
    assert turn.utterances == own


def test_the_most_frequent_patterns_are_enough() -> None:
    names = [f"m{i}" for i in range(5)]
    whole = Utterance("w", {m: torch.ones(1, 1) for m in names})
    subsets = [frozenset(s) for size in range(6) for s in combinations(names, size)]
    like = [whole.drop(s) for s in subsets] + [whole.drop(s) for s in subsets[-MOST_PATTERNS:]]
    turns = mask_in_turns([whole], like, 0)
    expected = {pattern_of(whole.drop(s)) for s in subsets[-MOST_PATTERNS:]}
    assert {pattern_of(turn.utterances[0]) for turn in turns} == expected


@pytest.mark.parametrize("lazy", [False, True])
def test_what_was_masked_comes_back(lazy: bool) -> None:
    features = {m: torch.randn(3, 2) for m in MODALITIES}
    if lazy:
        features = ChangedFeatures(Stored(features), lambda _, x: x)  # type: ignore[assignment]
    own = [Utterance(f"v${i}", features, 1.0) for i in range(12)]
    masked = apply_missing(own, Missing("eta", 0.5), [*MODALITIES], 0)
    assert any(pattern_of(u) != "tav" for u in masked)
    for before, after in zip(own, map(unmasked, masked), strict=True):
        assert after.lengths == before.lengths
        assert isinstance(after.features, LazyFeatures) == lazy
        assert all(torch.equal(after.features[m], x) for m, x in before.features.items())
        assert not after.withheld
