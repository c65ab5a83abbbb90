"""Lazy sequences of utterances: all that is asked of them is what the same utterances in a list answer."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gmsa.config.groups.missing import Missing
from gmsa.data import Row, Store, Target, Utterance, apply_missing, describe_missing, withhold_labels, write_store
from gmsa.data.lazy import (
    Lazy,
    changed,
    ids_of,
    joined,
    labels_of,
    lengths_of,
    names_of,
    own_labels_of,
    steps_of,
    taken,
    videos_of,
)
from gmsa.data.splits import stratified, stratified_rows
from gmsa.data.utterance import without_label, without_labels
from gmsa.rng import seed_for

MODALITIES = ["text", "audio", "vision"]


@pytest.fixture
def plain(make_utterance: Callable[..., Utterance]) -> list[Utterance]:
    """Forty utterances of ten videos; some lack modalities, a label, or have labels of single modalities."""
    found = []
    for i in range(40):
        utterance = make_utterance(f"v{i % 10}$_${i}", (i % 4, (i + 1) % 3, i % 2), None if i % 7 == 3 else i / 20 - 1)
        own = {"vision": 0.5} if i in (3, 9) else {"text": -1.0, "vision": 0.25} if i == 12 else {}
        found.append(replace(utterance, unimodal=own, speaker="Ada" if i % 3 else "", text=f"words {i}"))
    return found


@pytest.fixture
def lazy(tmp_path: Path, plain: list[Utterance]) -> Sequence[Utterance]:
    return write_store(tmp_path / "store", [Row("train", u) for u in plain]).split("train")


def assert_same(ours: Sequence[Utterance], theirs: list[Utterance]) -> None:
    assert isinstance(ours, Lazy)
    assert len(ours) == len(theirs)
    for a, b in zip((*ours, *(ours[i] for i in range(len(ours)))), (*theirs, *theirs), strict=True):
        assert (a.id, a.label, a.text, a.video, a.speaker, a.lengths) == (
            (b.id, b.label, b.text, b.video, b.speaker, b.lengths)
        )
        assert dict(a.unimodal) == dict(b.unimodal)
        for features, expected in ((a.features, b.features), (a.withheld, b.withheld)):
            assert list(features) == list(expected)
            assert all(torch.equal(features[m], expected[m]) for m in expected)
    for modality in (*MODALITIES, "smell"):
        np.testing.assert_array_equal(lengths_of(ours, modality), [u.lengths.get(modality, 0) for u in theirs])
    np.testing.assert_array_equal(labels_of(ours), [np.nan if u.label is None else u.label for u in theirs])
    np.testing.assert_array_equal(steps_of(ours), [u.steps for u in theirs])
    assert [*ids_of(ours)] == [u.id for u in theirs]
    assert [*videos_of(ours)] == [u.video for u in theirs]
    assert [*names_of(ours, "speaker")] == [u.speaker for u in theirs]
    own, expected = own_labels_of(ours), own_labels_of(theirs)
    assert list(own) == list(expected)
    for modality in own:
        np.testing.assert_array_equal(own[modality], expected[modality])


def test_stored_utterances(lazy: Sequence[Utterance], plain: list[Utterance]) -> None:
    assert_same(lazy, plain)
    for part in (slice(3, 30), slice(30, 3, -4), slice(None, None, -1), slice(5, 5), slice(2, None, 3)):
        assert_same(lazy[part], plain[part])
    assert_same(lazy[::-1][4:20:3], plain[::-1][4:20:3])


def test_some_changed_and_joined(lazy: Sequence[Utterance], plain: list[Utterance]) -> None:
    rows = np.array([7, 3, 39, 3, 12])
    some = taken(lazy, rows)
    assert_same(some, [plain[row] for row in rows])
    assert_same(some[1:][::-1], [plain[row] for row in rows[1:][::-1]])
    assert_same(taken(some, [4, 0]), [plain[12], plain[7]])
    bare = changed(lazy, without_labels, labels=False, own_labels=False)
    assert_same(bare, [without_labels(u) for u in plain])
    half = changed(some, without_label, labels=False)
    assert_same(half, [without_label(plain[row]) for row in rows])
    assert_same(joined(half, plain[:5], bare), [*half, *plain[:5], *bare])
    assert_same(joined(half, plain[:5], bare)[2:9], [*half, *plain[:5], *bare][2:9])
    assert joined(lazy, []) is lazy
    assert joined([], taken(lazy, [])) == []
    with pytest.raises(IndexError):
        half[5]


def test_pickled(lazy: Sequence[Utterance], plain: list[Utterance]) -> None:
    several = joined(taken(lazy, [3, 4]), changed(lazy, without_label, labels=False))
    assert_same(pickle.loads(pickle.dumps(several)), [plain[3], plain[4], *map(without_label, plain)])


@pytest.mark.parametrize("unit", ["utterance", "dialogue"])
@pytest.mark.parametrize(
    "missing", [Missing("none"), Missing("eta", 0.4), Missing("sample", 0.7), Missing("fixed", left=("text",))], ids=str
)
def test_masked(lazy: Sequence[Utterance], plain: list[Utterance], missing: Missing, unit: str) -> None:
    missing = missing._replace(unit=unit)
    ours, theirs = (apply_missing(us, missing, MODALITIES, 3) for us in (lazy, plain))
    assert_same(ours, [*theirs])
    assert describe_missing(lazy, ours, missing, MODALITIES) == describe_missing(plain, theirs, missing, MODALITIES)


def withheld_by_loop(utterances: list[Utterance], ratio: float, seed: int, dialogues: bool) -> list[str]:
    """Ids that keep their labels, by plain Python: the definition."""
    target, groups = Target(), {}
    for u in utterances:
        if u.label is not None:
            groups.setdefault(u.video if dialogues else u.id, []).append(u)
    means = {name: sum(u.label for u in us) / len(us) for name, us in groups.items()}
    classes = {name: int(target.to_class(torch.tensor(mean, dtype=torch.float64))) for name, mean in means.items()}
    order = stratified(classes, lambda name: seed_for(seed, "label ratio", name))
    most, kept = max(1, int(ratio * sum(map(len, groups.values())) + 0.5)), []
    for name in order:
        if kept and len(kept) + len(groups[name]) / 2 > most:
            break
        kept += [u.id for u in groups[name]]
    return [u.id for u in utterances if u.id in kept]


@pytest.mark.parametrize("unit", ["utterance", "dialogue"])
@pytest.mark.parametrize("ratio", [1.0, 0.6, 0.3, 0.001])
def test_withheld(lazy: Sequence[Utterance], plain: list[Utterance], ratio: float, unit: str) -> None:
    expected = withheld_by_loop(plain, ratio, 5, unit == "dialogue")
    for utterances in (lazy, plain):
        labeled, pool = withhold_labels(utterances, ratio, 5, unit=unit)
        assert [u.id for u in labeled] == expected
        assert [u.id for u in pool] == [u.id for u in plain if u.id not in expected]
        assert all(u.label is None and not u.unimodal for u in pool)
        assert isinstance(labeled, Lazy) == (utterances is lazy)


def test_strata_of_rows_are_those_of_names() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 200):
        classes, draws = rng.integers(0, 4, count), rng.integers(0, 1 << 62, count)
        drawn = {str(i): int(draw) for i, draw in enumerate(draws)}
        expected = stratified({str(i): int(c) for i, c in enumerate(classes)}, drawn.__getitem__)
        assert [str(i) for i in stratified_rows(classes, draws)] == expected


def test_a_modality_that_the_store_lacks(tmp_path: Path, plain: list[Utterance]) -> None:
    store = write_store(tmp_path / "few", [Row("train", u) for u in plain], dtypes={"text": "float32"})
    there = Store(store.path).utterances(dims={"eeg": 3, "text": 6})
    assert lengths_of(there, "eeg").tolist() == [0] * 40
    assert steps_of(there).tolist() == [u.lengths["text"] for u in plain]
    assert there[0].lengths == {"eeg": 0, "text": 0}
