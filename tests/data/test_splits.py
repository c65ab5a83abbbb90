"""Splits that are made, and folds: nothing is in two of them, whatever the order."""

from __future__ import annotations

import random

import pytest
import torch

from gmsa.config.groups.data import SplitConfig
from gmsa.data import Target, Utterance
from gmsa.data.notes import collected
from gmsa.data.splits import apart_from_made, context_of_made, fold_names, folds, make_splits, named
from gmsa.errors import ConfigError, DataError

CLASSES = Target("classes", classes=("anger", "joy", "neutral"), metrics="classes")


def corpus(rng: random.Random, videos: int = 30, unlabeled: float = 0.0, target: Target | None = None):
    """Utterances of videos of unequal size, whose speakers have several videos each."""
    found = []
    for video in range(videos):
        for clip in range(rng.randint(1, 9)):
            label = float(rng.randrange(3)) if target else round(rng.uniform(-3, 3), 2)
            found.append(
                Utterance(
                    f"v{video}$_${clip}",
                    {"text": torch.ones(1, 1)},
                    None if rng.random() < unlabeled else label,
                    speaker=f"s{video % 11}",
                )
            )
    return found


def names(utterances, by):
    return {u.id if by == "utterance" else u.speaker if by == "speaker" else u.video for u in utterances}


def ids(splits):
    return {name: [u.id for u in utterances] for name, utterances in splits.items()}


def quiet(make, *arguments):
    with collected() as notes:
        return make(*arguments), notes


@pytest.mark.parametrize("by", ["video", "speaker", "utterance"])
@pytest.mark.parametrize("target", [None, CLASSES])
def test_nothing_is_in_two_splits_whatever_the_order(by, target):
    for seed in range(25):
        rng = random.Random(seed)
        clips = corpus(rng, 3 + seed * 2 if by != "speaker" else 30, 0.2 * (seed % 3), target)
        settings = SplitConfig(rng.uniform(0.02, 0.4), rng.uniform(0.02, 0.4), by, seed)
        made, _ = quiet(make_splits, {"all": clips}, settings, target)
        assert list(made) == ["train", "valid", "test"]
        assert all(any(u.label is not None for u in utterances) for utterances in made.values())
        assert all(u.label is not None for name in ("valid", "test") for u in made[name])
        groups = [names(utterances, by) for utterances in made.values()]
        assert len(set.union(*groups)) == sum(map(len, groups))
        gone = {u.id for u in clips} - {i for some in ids(made).values() for i in some}
        assert all(u.label is None and names([u], by) <= groups[1] | groups[2] for u in clips if u.id in gone)
        order = {u.id: place for place, u in enumerate(clips)}
        assert all(some == sorted(some, key=order.__getitem__) for some in ids(made).values())
        shuffled = rng.sample(clips, len(clips))
        again, _ = quiet(make_splits, {"all": shuffled}, settings, target)
        assert {n: set(i) for n, i in ids(again).items()} == {n: set(i) for n, i in ids(made).items()}


@pytest.mark.parametrize("by", ["video", "speaker", "utterance"])
@pytest.mark.parametrize("target", [None, CLASSES])
def test_every_utterance_is_tested_in_one_fold(by, target):
    for seed in range(8):
        rng = random.Random(seed)
        clips = corpus(rng, 30, 0.2 * (seed % 3), target)
        count = rng.randint(3, 7)
        cut = rng.sample(range(len(clips)), 2)
        given = {"train": clips[: min(cut)], "valid": clips[min(cut) : max(cut)], "test": clips[max(cut) :]}
        tested, parts = [], []
        for fold in range(count):
            settings = SplitConfig(by=by, seed=seed, folds=count, fold=fold)
            made, _ = quiet(folds, given, settings, target)
            groups = [names(utterances, by) for utterances in made.values()]
            assert len(set.union(*groups)) == sum(map(len, groups))
            assert all(u.label is not None for name in ("valid", "test") for u in made[name])
            again, _ = quiet(folds, {"all": rng.sample(clips, len(clips))}, settings, target)
            assert {n: set(i) for n, i in ids(again).items()} == {n: set(i) for n, i in ids(made).items()}
            tested += ids(made)["test"]
            parts.append(ids(made))
        assert sorted(tested) == sorted(u.id for u in clips if u.label is not None)
        assert all(parts[i]["valid"] == parts[(i + 1) % count]["test"] for i in range(count))
        sizes = [len(part["test"]) for part in parts]
        assert max(sizes) - min(sizes) <= {"utterance": 1, "video": 9, "speaker": 40}[by]


@pytest.mark.parametrize("by", ["video", "speaker", "utterance"])
def test_a_test_split_that_is_kept_is_in_no_part(by):
    for seed in range(8):
        rng = random.Random(seed)
        clips = corpus(rng, 30, 0.2 * (seed % 3))
        count = rng.randint(2, 6)
        given = {"train": clips[:60], "valid": clips[60:80], "test": clips[80:]}
        validated = []
        for fold in range(count):
            settings = SplitConfig(by=by, seed=seed, folds=count, fold=fold, keep_test=True)
            made, notes = quiet(folds, given, settings)
            assert made["test"] == given["test"]
            assert not names(made["train"], by) & names(made["valid"], by)
            assert {u.id for u in made["train"]} <= {u.id for u in clips[:80]}
            other = {"train": given["train"], "valid": given["valid"], "test": given["test"][:1]}
            assert quiet(folds, other, settings)[0]["valid"] == made["valid"]  # whatever the test split holds
            told = f"fold {fold} of {count}, its test split apart by {by}"
            assert any(told in note and f"test {len(given['test'])}" in note for note in notes)
            around = context_of_made([], given, made, settings)
            assert not {u.id for us in around.values() for u in us} & {u.id for u in given["test"]}
            validated += ids(made)["valid"]
        assert sorted(validated) == sorted(u.id for u in clips[:80] if u.label is not None)


def test_a_pool_is_kept_apart_from_the_part_that_validates_and_not_from_a_test_split_that_is_kept():
    clips = [Utterance(f"v{i // 2}$_${i % 2}", {}, 0.0) for i in range(12)]
    given = {"train": clips[:8], "test": clips[8:]}
    settings = SplitConfig(folds=2, fold=1, keep_test=True)
    made, _ = quiet(folds, given, settings)
    pool = [Utterance(f"v{i}$_$9", {}) for i in range(6)]
    left, _ = quiet(apart_from_made, pool, given, made, settings, "pool.pkl")
    assert {u.video for u in pool} - {u.video for u in left} == {u.video for u in made["valid"]}


def test_other_splits_are_in_no_part_beside_a_test_split_that_is_kept():
    clips = [Utterance(f"v{i}$_$0", {}, 0.0, fold=str(i % 4)) for i in range(16)]
    given = {"train": clips[:8], "test": clips[8:12], "noisy": clips[12:]}
    made, notes = quiet(folds, given, SplitConfig(folds=4, fold=1, keep_test=True), None, "f.pkl")
    assert any("splits noisy are not used, as data.split.keep_test" in note for note in notes)
    assert {u.id for us in made.values() for u in us} == {u.id for u in clips[:12]}
    assert {u.fold for u in made["valid"]} == {"1"}
    session = {"train": clips[:1], "test": clips[1:]}
    with pytest.raises(
        DataError, match=r"its own folds beside its test split are 1 \(0\), .*leave data.split.keep_test out"
    ):
        folds(session, SplitConfig(folds=2, keep_test=True), None, "f.pkl")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep_test": True}, "'data.split.keep_test' is for cross-validation"),
        ({"folds": 2}, "'data.split.folds' must be 0, or at least 3: one to test, one to validate, one to train"),
        ({"folds": 1, "keep_test": True}, "must be 0, or at least 2: one to validate, one to train (got 1)"),
        ({"folds": 3, "fold": 3}, "'data.split.fold' must be below 'data.split.folds' (got 3 of 3)"),
    ],
)
def test_settings_of_folds_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ConfigError) as caught:
        SplitConfig(**settings)
    assert said in str(caught.value)


def test_shares_are_kept_strata_too():
    rng = random.Random(0)
    clips = [Utterance(f"u{i}", {}, float(rng.choice([0, 0, 0, 1, 1, 2]))) for i in range(600)]
    made, _ = quiet(make_splits, {"all": clips}, SplitConfig(0.1, 0.2, "utterance"), CLASSES)
    assert {name: len(utterances) for name, utterances in made.items()} == {"train": 420, "valid": 60, "test": 120}
    for number in range(3):
        whole = sum(u.label == number for u in clips)
        for name, share in (("valid", 0.1), ("test", 0.2)):
            assert abs(sum(u.label == number for u in made[name]) - share * whole) <= 2
    for fold in range(5):
        part = quiet(folds, {"all": clips}, SplitConfig(by="utterance", folds=5, fold=fold), CLASSES)[0]["test"]
        for number in range(3):
            assert abs(sum(u.label == number for u in part) - sum(u.label == number for u in clips) / 5) <= 1


def test_larger_shares_hold_the_smaller_ones_and_other_seeds_draw_others():
    clips = [Utterance(f"u{i}", {}, 0.0) for i in range(100)]
    drawn = {}
    for share in (0.1, 0.2, 0.4):
        made, _ = quiet(make_splits, {"all": clips}, SplitConfig(share, share, "utterance"))
        drawn[share] = {name: set(i) for name, i in ids(made).items()}
    for name in ("valid", "test"):
        assert drawn[0.1][name] < drawn[0.2][name] < drawn[0.4][name]
    other, _ = quiet(make_splits, {"all": clips}, SplitConfig(0.1, 0.1, "utterance", seed=1))
    assert set(ids(other)["test"]) != drawn[0.1]["test"]


def test_only_what_is_lacking_is_made_and_said():
    clips = corpus(random.Random(0))
    held = [Utterance(f"t{i}", {}, 0.0) for i in range(5)]
    given = {"train": clips, "test": held, "extra": held[:1]}
    made, notes = quiet(make_splits, given, SplitConfig(valid=0.1, test=0.3), None, "f.pkl")
    assert list(made) == ["train", "valid", "test", "extra"]
    assert made["test"] is held
    assert abs(len(made["valid"]) - len(clips) / 10) <= 5
    assert notes == [
        "f.pkl: has a split 'test', which is used; data.split.test=0.3 makes none",
        f"f.pkl: made by data.split of train by video, seed 0: train {len(made['train'])} utterances, "
        f"valid {len(made['valid'])}",
    ]
    whole = {"train": clips, "valid": held, "test": held}
    assert quiet(make_splits, whole, SplitConfig()) == (whole, [])
    lone = [Utterance(f"u{i}", {}, 0.0) for i in range(9)]
    assert "every utterance is a video of its own" in quiet(make_splits, {"all": lone}, SplitConfig(0.2, 0.2))[1][1]


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        (
            {"train": 9, "test": 3},
            {},
            "has no split 'valid' (its splits: train, test); make it by data.split.valid=0.1",
        ),
        (
            {"all": 9},
            {},
            "has no split 'valid' (its splits: all); make them by data.split.valid=0.1 and data.split.test=0.2",
        ),
        ({"all": 9}, {"valid": 0.1}, "has no split 'test' (its splits: all)"),
        ({"valid": 9, "test": 3}, {"valid": 0.1, "test": 0.2}, "has no split 'train' (its splits: valid, test); name"),
        ({"all": 9}, {"valid": 0.1, "test": 0.1, "by": "speaker"}, "does not say who speaks in 'all$_$0'; give every"),
        ({"all": 9}, {"valid": 0.1, "test": 0.1}, "split 'all' has 1 labeled video, too few for train, valid and test"),
        ({"train": 9, "test": 2}, {"valid": 0.1}, "has 1 labeled video, too few for train, valid; bring more data, or"),
        (
            {"all": 2},
            {"valid": 0.1, "test": 0.1, "by": "utterance"},
            "too few for train, valid and test; bring more data",
        ),
        ({"all": 9}, {"folds": 3}, "has 1 labeled video, fewer than data.split.folds=3; bring more data, or set"),
        ({"all": 9}, {"folds": 3, "by": "speaker"}, "does not say who speaks in 'all$_$0'"),
        ({"all": 0}, {"folds": 3}, "no utterance has a label"),
        ({"all": 9}, {"folds": 3, "keep_test": True}, "has no split 'test' that data.split.keep_test could keep"),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_remedy(given, settings, said):
    splits = {n: [Utterance(f"{n}$_${i}", {}, 0.0) for i in range(count)] for n, count in given.items()}
    with pytest.raises(DataError) as caught:
        quiet(make_splits, splits, SplitConfig(**settings), None, "f.pkl")
    assert said in str(caught.value)
    assert str(caught.value).startswith("f.pkl: ")
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)


def test_the_files_own_folds_are_used():
    def clip(i, fold, label=0.0):
        return Utterance(f"v{i // 2}$_${i % 2}", {}, label, fold=fold)

    given = {"all": [clip(i, str(i % 4 + 8)) for i in range(16)] + [clip(90, "8", None), clip(91, "", None)]}
    assert fold_names(given["all"]) == ("8", "9", "10", "11")
    made, notes = quiet(folds, given, SplitConfig(folds=4, fold=3), None, "f.pkl")
    assert {u.fold for u in made["test"]} == {"11"}
    assert {u.fold for u in made["valid"]} == {"8"}
    assert {u.fold for u in made["train"]} == {"9", "10", ""}
    assert "by its own folds 8 videos are in several parts, such as 'v0'" in notes[0]
    with pytest.raises(DataError, match=r"its own folds are 4 \(8, 9, 10, 11\), .*; set data\.split\.folds=4"):
        folds(given, SplitConfig(folds=5), None, "f.pkl")
    with pytest.raises(DataError, match=r"'v4\$_\$0' has a label but no fold"):
        folds({"all": [*given["all"][:8], clip(8, "")]}, SplitConfig(folds=4), None, "f.pkl")
    assert fold_names([clip(0, "b"), clip(1, "10"), clip(2, "a")]) == ("10", "a", "b")


def test_names_of_splits():
    assert list(named({"training": [], "dev": [], "Test": [], "unlabelled": []})) == ["train", "valid", "test", "pool"]
    assert list(named({"valid": [], "dev": []})) == ["valid", "dev"]
    assert list(named({"dev": [], "valid": []})) == ["dev", "valid"]
    assert list(named({"val": [], "dev": [], "Extra": []})) == ["valid", "dev", "Extra"]
