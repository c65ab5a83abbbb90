"""The label ratio: nested, stratified, and a function of ids and seed."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmsa.data import Target, Utterance, withhold_labels

RATIOS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)


def corpus(labels):
    return [
        Utterance(f"v{i}$_$0", {"text": torch.ones(1, 1)}, label, {"text": label}, f"t{i}")
        for i, label in enumerate(labels)
    ]


SIMS = Target("intensity", -1.0, 1.0, (), "sims")


def class_of(utterance, target=None):
    return (target or Target()).to_class(torch.tensor(utterance.label)).item()


@pytest.fixture(scope="module")
def skewed():
    rng = random.Random(0)
    return corpus([float(rng.choices(range(-3, 4), [10, 40, 80, 200, 90, 60, 5])[0]) for _ in range(485)])


@pytest.mark.parametrize("seed", range(5))
def test_nested_and_of_the_asked_size(skewed, seed):
    smaller = set()
    for ratio in RATIOS:
        kept = {u.id for u in withhold_labels(skewed, ratio, seed)[0]}
        assert len(kept) == int(ratio * 485 + 0.5)
        assert smaller <= kept
        smaller = kept
    assert len(smaller) == len(skewed)


@pytest.mark.parametrize("ratio", RATIOS)
def test_stratified(skewed, ratio):
    kept = [class_of(u) for u in withhold_labels(skewed, ratio, seed=1)[0]]
    everything = [class_of(u) for u in skewed]
    for class_ in range(7):
        assert abs(kept.count(class_) - ratio * everything.count(class_)) <= 1.5


def test_stratified_on_the_scale_of_sims():
    utterances = corpus([x / 5 for x in range(-5, 6) for _ in range(16)])
    kept = [class_of(u, SIMS) for u in withhold_labels(utterances, 0.25, 0, SIMS)[0]]
    assert [kept.count(class_) for class_ in range(7)] == [4, 8, 8, 4, 8, 8, 4]


def test_pool_has_no_labels_and_order_is_kept(skewed):
    labeled, pool = withhold_labels(skewed, 0.25, seed=3)
    assert all(u.label is None and not u.unimodal for u in pool)
    original = {u.id: u for u in skewed}
    assert all(u is original[u.id] for u in labeled)
    assert all(u.features is original[u.id].features and u.text == original[u.id].text for u in pool)
    place = {u.id: i for i, u in enumerate(skewed)}
    for part in (labeled, pool):
        assert [place[u.id] for u in part] == sorted(place[u.id] for u in part)
    assert {u.id for u in labeled} | {u.id for u in pool} == set(original)
    assert len(labeled) + len(pool) == len(skewed)


def test_file_order_does_not_matter_but_the_seed_does(skewed):
    shuffled = random.Random(7).sample(skewed, len(skewed))
    kept = {u.id for u in withhold_labels(skewed, 0.25, seed=1)[0]}
    assert kept == {u.id for u in withhold_labels(shuffled, 0.25, seed=1)[0]}
    assert kept != {u.id for u in withhold_labels(skewed, 0.25, seed=2)[0]}


def test_the_draw_is_pinned():
    # Published label-ratio results depend on it: a change is a new version of the split.
    kept, _ = withhold_labels(corpus([float(i % 7 - 3) for i in range(28)]), 0.25, seed=1111)
    assert [u.id.removesuffix("$_$0") for u in kept] == ["v7", "v9", "v15", "v19", "v24", "v25", "v27"]


def test_at_least_one_stays_labeled_and_unlabeled_go_to_the_pool():
    utterances = [*corpus([1.0, 2.0]), Utterance("u$_$0", {})]
    labeled, pool = withhold_labels(utterances, 0.01, seed=0)
    assert (len(labeled), len(pool)) == (1, 2)
    labeled, pool = withhold_labels(utterances, 1.0, seed=0)
    assert [u.id for u in labeled] == ["v0$_$0", "v1$_$0"]
    assert [u.id for u in pool] == ["u$_$0"]
    assert withhold_labels([utterances[2]], 1.0, seed=0)[0] == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(0, 2**40),
)
def test_any_two_ratios_are_nested(labels, first, second, seed):
    utterances = corpus(labels)
    small, large = ({u.id for u in withhold_labels(utterances, r, seed)[0]} for r in sorted((first, second)))
    assert small <= large
    assert small


# --- whole dialogues -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dialogues():
    """Sixty dialogues of unequal length, each with a mood of its own, some utterances without a label."""
    rng = random.Random(3)
    found = []
    for number in range(60):
        mood = rng.choice([-2, -2, 0, 0, 0, 1.5])
        for place in range(rng.randint(3, 14)):
            label = None if rng.random() < 0.1 else max(-3.0, min(3.0, mood + rng.uniform(-0.8, 0.8)))
            found.append(Utterance(f"u{number}_{place}", {}, label, of_video=f"d{number}"))
    return rng.sample(found, len(found))


@pytest.mark.parametrize("seed", range(5))
def test_whole_dialogues_keep_or_lose_their_labels(dialogues, seed):
    count, longest = sum(u.label is not None for u in dialogues), 14
    smaller = set()
    for ratio in (0.01, *RATIOS):
        labeled, pool = withhold_labels(dialogues, ratio, seed, unit="dialogue")
        kept = {u.video for u in labeled}
        assert not kept & {u.video for u in pool if any(v.id == u.id and v.label is not None for v in dialogues)}
        assert abs(len(labeled) - ratio * count) <= longest / 2 + 0.5 or (ratio == 0.01 and len(kept) == 1)
        assert smaller <= kept  # nested
        assert all(u.label is None for u in pool)
        assert len(labeled) + len(pool) == len(dialogues)
        smaller = kept
    assert len(smaller) == 60
    assert kept_of(dialogues, 0.25, seed) == kept_of(random.Random(seed).sample(dialogues, len(dialogues)), 0.25, seed)
    assert kept_of(dialogues, 0.25, seed) != kept_of(dialogues, 0.25, seed + 1)


def kept_of(utterances, ratio, seed):
    return {u.id for u in withhold_labels(utterances, ratio, seed, unit="dialogue")[0]}


def test_dialogues_are_stratified_over_their_mean_label(dialogues):
    def classes(utterances):
        labels = {}
        for u in utterances:
            if u.label is not None:
                labels.setdefault(u.video, []).append(u.label)
        return [class_of(Utterance("", {}, sum(x) / len(x))) for x in labels.values()]

    everything = classes(dialogues)
    for seed in range(5):
        kept = classes(withhold_labels(dialogues, 0.5, seed, unit="dialogue")[0])
        for class_ in range(7):
            assert abs(kept.count(class_) - len(kept) / 60 * everything.count(class_)) <= 1.5


def test_utterances_that_are_alone_are_drawn_alike_by_both_units(skewed):
    alone = [Utterance(u.video, {}, u.label) for u in skewed]
    for ratio in RATIOS:
        by_each = {u.id for u in withhold_labels(alone, ratio, 4)[0]}
        assert by_each == {u.id for u in withhold_labels(alone, ratio, 4, unit="dialogue")[0]}
