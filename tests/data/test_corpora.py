"""Corpora of any format: their splits, pool and target, and what is said of them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, TargetConfig
from gmsa.config.groups.data import SplitConfig
from gmsa.data import Row, Store, Target, Utterance, data_sha256, load_corpus, write_store
from gmsa.data.loading import load_other
from gmsa.data.notes import collected
from gmsa.errors import DataError

WORDS = ["joy", "anger", "Joy", "neutral", "joy"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def corpus(path, target=None, **settings):
    with collected() as notes:
        found = load_corpus(DataConfig(path=str(path), **settings), target)
    return found, notes


def ids(splits):
    return {name: [u.id for u in utterances] for name, utterances in splits.items()}


def table(name="t/data.csv", splits=("train", "valid", "test"), label=lambda i: i % 7 - 3, **columns):
    """A table of forty utterances of eight videos and four speakers."""
    Path(name).parent.mkdir(exist_ok=True)
    heads = ["id", "label", "text", *(["split"] if splits else []), *columns]
    lines = [",".join(heads)]
    for i in range(40):
        np.save(Path(name).parent / f"{i}.npy", np.full((2, 3), i + 1, np.float32))
        row = [f"v{i // 5}$_${i % 5}", label(i), f"{i}.npy", *([splits[i // 5 % len(splits)]] if splits else [])]
        lines.append(",".join(map(str, [*row, *(column(i) for column in columns.values())])))
    Path(name).write_text("\n".join(lines) + "\n")
    return Path(name)


def rows(split, count, label=0.5, start=0, **named):
    for i in range(start, start + count):
        features = {"text": torch.full((2, 3), i + 1.0), "eeg": torch.ones(1, 2)}
        yield Row(split, Utterance(f"{split}{i // 2}$_${i}", features, label), **named)


# --- splits ----------------------------------------------------------------------------------------------------------


def test_the_same_splits_are_made_of_every_format():
    source = table(splits=(), speaker=lambda i: f"s{i // 10}")
    content = {
        "id": [f"v{i // 5}$_${i % 5}" for i in range(40)],
        "regression_labels": np.array([i % 7 - 3 for i in range(40)], np.float32),
        "text": np.stack([np.full((2, 3), i + 1, np.float32) for i in range(40)]),
        "speaker": [f"s{i // 10}" for i in range(40)],
    }
    Path("flat.pkl").write_bytes(pickle.dumps(content))
    with collected():
        whole = load_other(source, {"text": 3}, DataConfig(), TargetConfig())
    stored = write_store("store", [Row("all", u) for u in whole.utterances], {"text": "float32"})
    for settings in ({"valid": 0.2, "test": 0.2}, {"valid": 0.2, "test": 0.3, "by": "speaker", "seed": 3}):
        found = []
        for path in (source, "flat.pkl", stored.path):
            made, notes = corpus(path, split=SplitConfig(**settings), modalities=("text",))
            found.append(ids(made.splits))
            by = settings.get("by", "video")
            told = [note for note in notes if f"{path}: made by data.split of all by {by}, seed" in note]
            assert len(told) == 1, notes
            assert f"train {len(made.splits['train'])} utterances, valid {len(made.splits['valid'])}, test" in told[0]
            speakers = [{u.speaker for u in utterances} for utterances in made.splits.values()]
            videos = [{u.video for u in utterances} for utterances in made.splits.values()]
            groups = speakers if by == "speaker" else videos
            assert len(set.union(*groups)) == sum(map(len, groups))
            first = made.splits["test"][0]
            number = int(first.id[1]) * 5 + int(first.id[-1])
            assert torch.equal(first.features["text"], torch.full((2, 3), number + 1.0))
        assert found[0] == found[1] == found[2]
    for path in (source, "flat.pkl", stored.path):
        with pytest.raises(
            DataError, match=r"has no split 'valid' .*make them by data.split.valid=0.1 and data.split.t"
        ):
            corpus(path)


def test_folds_of_a_table_with_a_column_of_folds_and_of_the_synthetic_corpus():
    source = table(fold=lambda i: f"part {i // 5 % 4}")
    tested = []
    for fold in range(4):
        made, notes = corpus(source, split=SplitConfig(folds=4, fold=fold))
        assert {u.fold for u in made.splits["test"]} == {f"part {fold}"}
        assert {u.fold for u in made.splits["valid"]} == {f"part {(fold + 1) % 4}"}
        assert f"fold {fold} of 4, as the file says" in notes[-1]
        tested += ids(made.splits)["test"]
    assert len(set(tested)) == len(tested) == 40
    with pytest.raises(DataError, match=r"set data\.split\.folds=4"):
        corpus(source, split=SplitConfig(folds=3))
    made, _ = corpus("synthetic", split=SplitConfig(folds=3, fold=1))
    assert sum(map(len, made.splits.values())) == 680
    assert not {u.video for u in made.splits["train"]} & {u.video for u in made.splits["test"]}


@pytest.mark.parametrize("by", ["video", "speaker"])
@pytest.mark.parametrize("how", [{"valid": 0.2, "test": 0.2}, {"folds": 3, "fold": 1}])
def test_no_pool_holds_videos_or_speakers_of_made_splits(by, how):
    def clips(name, label):
        features = {"text": torch.ones(2, 3)}
        for i in range(40):
            yield Row(name, Utterance(f"v{i // 5}$_${i % 5}{name}", features, label, speaker=f"s{i // 10}"))

    write_store("store", [*clips("all", 0.5), *clips("pool", None)], {"text": "float32"})
    write_store("more", clips("other", None), {"text": "float32"})
    settings = SplitConfig(by=by, **how)
    made, notes = corpus("store", split=settings, pool="more", modalities=("text",))
    group = (lambda u: u.video) if by == "video" else (lambda u: u.speaker)
    held = {group(u) for name in ("valid", "test") for u in made.splits[name]}
    assert {group(u) for u in made.pool} == {group(u) for u in made.splits["train"]}
    left = 5 * len(held) if by == "video" else 10 * len(held)
    assert len(made.pool) == 2 * (40 - left)
    for name in ("store", "more"):
        assert any(f"{name}: {left} of 40 utterances of the pool are left out: by their {by} " in n for n in notes)


def test_a_pool_beside_splits_of_the_file_and_a_pool_with_folds():
    features = {"text": torch.ones(2, 3)}

    def clips(name, label):
        for i in range(9):
            yield Row(name, Utterance(f"{name}$_${i}", features, label, fold=str(i % 3)))

    write_store("store", [*clips("all", 0.5), *clips("pool", None)], {"text": "float32"})
    made, notes = corpus("store", split=SplitConfig(folds=3, fold=0), modalities=("text",))
    assert {u.fold for u in made.pool} == {u.fold for u in made.splits["train"]} == {"2"}
    assert any("6 of 9 utterances of the pool are left out: by their video or fold" in n for n in notes)
    same = [Row(n, Utterance(f"v$_${n}", features, 0.5)) for n in ("train", "valid", "test", "pool")]
    write_store("split", same, {"text": "float32"})
    assert len(corpus("split", modalities=("text",))[0].pool) == 1


def test_a_table_and_a_pickle_name_splits_and_classes_alike():
    words, splits = ("none", "null", "joy", "", "nan"), ("trn", "Dev", "tst", "unsup")
    source = table(splits=splits, label=lambda i: words[i % 5])
    content = {}
    for part, name in enumerate(splits):
        own = [i for i in range(40) if i // 5 % 4 == part]
        content[name] = {
            "id": [f"v{i // 5}$_${i % 5}" for i in own],
            "text": np.stack([np.full((2, 3), i + 1, np.float32) for i in own]),
            "label": [words[i % 5] if name != "Dev" and name != "tst" else words[i % 3] for i in own],
        }
    Path("data.pkl").write_bytes(pickle.dumps(content))
    for path in (source, "data.pkl"):
        found, _ = corpus(path, TargetConfig(kind="classes", field="label"), modalities=("text",))
        assert found.target.classes == ("joy", "none", "null")
        assert len(found.pool) == 10
        assert [u.label for u in found.splits["train"][:5]] == [1.0, 2.0, 0.0, None, None]


def test_a_class_of_the_settings_that_no_label_has_is_said():
    source = table(label=lambda i: ("joy", "anger")[i % 2])
    for classes, said in ((("joy", "anger", "fear"), 1), (("joy", "anger"), 0), ("auto", 0)):
        _, notes = corpus(source, TargetConfig(kind="classes", classes=classes), modalities=("text",))
        told = "data.csv: no label of the file is 'fear' of the 3 classes, so it is never learned"
        assert len([text for text in notes if told in text]) == said
        assert len([text for text in notes if "no label of the file" in text]) == said


def test_splits_by_other_names_and_what_is_not_used():
    parts = [*rows("training", 4), *rows("dev", 2), *rows("Test", 2), *rows("extra", 2)]
    found, notes = corpus(write_store("store", parts, {"text": "float32", "eeg": "float32"}).path)
    assert {name: len(part) for name, part in found.splits.items()} == {"train": 4, "valid": 2, "test": 2}
    assert found.dims == {"text": 3}
    assert notes == [
        "store: 'eeg' is not used; set data.modalities to a list with it, or to auto",
        "store: has no audio and no vision: missing from all utterances; data.modalities: [text] leaves it out",
        "store: not used: 'extra' (2 utterances); as 'pool', a split is the unlabeled pool",
    ]
    found, notes = corpus("store", modalities="auto")
    assert (found.dims, len(notes)) == ({"text": 3, "eeg": 2}, 2)
    assert notes[0] == "store: data.modalities: auto takes eeg"
    found, _ = corpus("store", modalities=("eeg", "text"))
    assert list(found.splits["train"][0].features) == ["eeg", "text"]


def test_the_pool_is_a_split_and_a_file_and_what_has_no_label():
    labels = [0.5, None, 0.5, None, 0.5]
    some = [
        row._replace(utterance=replace(row.utterance, label=label))
        for row, label in zip(rows("train", 5), labels, strict=True)
    ]
    parts = [*some, *rows("valid", 2), *rows("test", 2), *rows("unlabeled", 3, label=2.0)]
    path = write_store("store", parts, {"text": "float32"}).path
    more = write_store("more", list(rows("all", 4, label=None)), {"text": "float32"}).path
    found, notes = corpus(path, pool=str(more), modalities=("text",))
    assert [u.label for u in found.splits["train"]] == labels
    assert [u.id for u in found.pool] == [
        *(f"unlabeled{i // 2}$_${i}" for i in range(3)),
        *(f"all{i // 2}$_${i}" for i in range(4)),
    ]
    assert all(u.label is None for u in found.pool)
    assert (found.sha256, found.pool_sha256) == (data_sha256(path), data_sha256(more))
    assert notes == [
        "store: split 'pool': 3 utterances join the pool of unlabeled utterances",
        "store: split 'train': 2 of 5 utterances have no label and join the pool of unlabeled utterances",
    ]
    again = write_store("again", list(rows("unlabeled", 1)), {"text": "float32"}).path
    with pytest.raises(DataError, match=r"id 'unlabeled0\$_\$0' of the pool is also in split 'pool' of the data file"):
        corpus(path, pool=str(again), modalities=("text",))
    source = table(label=lambda i: "" if i in (0, 1) else 0.5)
    found, notes = corpus(source)
    assert sum(u.label is None for u in found.splits["train"]) == 2
    assert any("2 of 15 utterances have no label and join the pool" in note for note in notes)
    found, notes = corpus(table(label=lambda i: "" if i in (5, 6) else 0.5))
    assert "t/data.csv: split 'valid': 2 of 15 utterances have no label and are not scored" in notes
    assert len(found.splits["valid"]) == 13
    with pytest.raises(DataError, match=r"split 'valid': no utterance has a label, such as 'v1\$_\$0'; training and"):
        corpus(table(label=lambda i: "" if i // 5 % 3 == 1 else 0.5))


def test_the_hash_of_a_table_is_that_of_its_files_too():
    source = table()
    first, _ = corpus(source)
    assert corpus(source)[0].sha256 == first.sha256 != data_sha256(source)
    np.save("t/3.npy", np.ones((2, 3), np.float32))
    assert corpus(source)[0].sha256 != first.sha256


def test_videos_are_told_by_a_pattern_for_stores_and_tables():
    parts = [
        row._replace(utterance=replace(row.utterance, id=f"dia{start}{i}_utt{i % 3}"))
        for start, split in enumerate(("train", "valid", "test"))
        for i, row in enumerate(rows(split, 3))
    ]
    path = write_store("store", parts, {"text": "float32"}).path
    found, _ = corpus(path, modalities=("text",), video_from=r"dia(?P<video>\d+)_utt(?P<clip>\d+)")
    assert [(u.video, u.place) for u in found.splits["test"]] == [("20", 0), ("21", 1), ("22", 2)]
    with pytest.raises(DataError, match=r"store: split 'train': data.video_from .* does not match 3 of 3 ids"):
        corpus(path, modalities=("text",), video_from=r"x(\d+)")


@pytest.mark.parametrize("form", ["store", "pickle"])
def test_another_file_may_tell_its_videos_otherwise(tmp_path: Path, form: str) -> None:
    data = DataConfig(modalities=("text",), video_from=r"dia(?P<video>\d+)_utt(?P<clip>\d+)")
    if form == "store":
        path = write_store("store", list(rows("test", 3)), {"text": "float32"}).path
    else:
        columns = {"id": ["a$_$1", "a$_$2"], "text": np.ones((2, 3, 4), np.float32), "regression_labels": [1.0, 0.0]}
        path = tmp_path / "f.pkl"
        path.write_bytes(pickle.dumps({"test": columns}))
    with collected() as notes:
        found = load_other(path, {"text": None}, data, TargetConfig()).splits["test"]
    assert [u.video for u in found] == [u.id.partition("$_$")[0] for u in found]
    assert any("does not match" in note and note.endswith("; the ids tell the videos, up to '$_$'") for note in notes)


# --- the target ------------------------------------------------------------------------------------------------------


def test_classes_of_a_table_are_those_of_its_words():
    source = table(label=lambda i: ["joy", "anger", "neutral", "Joy"][i % 4])
    found, _ = corpus(source, TargetConfig(kind="classes"))
    assert found.target == Target("classes", classes=("Joy", "anger", "neutral"), metrics="classes")
    assert [u.label for u in found.splits["train"][:4]] == [0.0, 1.0, 2.0, 0.0]
    found, _ = corpus(source, TargetConfig(kind="classes", classes=("neutral", "joy", "anger")))
    assert [u.label for u in found.splits["train"][:4]] == [1.0, 2.0, 0.0, 1.0]
    with pytest.raises(DataError, match=r"'joy', none of the 2 classes \(joyful, anger\) \(did you mean 'joyful'\?\)"):
        corpus(source, TargetConfig(kind="classes", classes=("joyful", "anger")))
    with pytest.raises(DataError, match=r"'joy', not a number; for classes set target\.kind=classes"):
        corpus(source)


@pytest.mark.parametrize(
    ("named", "labels", "classes", "numbers"),
    [
        (WORDS, [None] * 5, ("anger", "joy", "neutral"), [1, 0, 1, 2, 1]),
        (["", "", "b", "", "a"], [None] * 5, ("a", "b"), [None, None, 1, None, 0]),
        ([""] * 5, [3.0, 1.0, None, 10.0, 3.0], ("1", "3", "10"), [1, 0, None, 2, 1]),
        ([""] * 5, [-1.0, 0.0, 1.0, 0.0, -1.0], ("-1", "0", "1"), [0, 1, 2, 1, 0]),
        (["nan", "inf", "nan", "", ""], [None] * 5, ("inf", "nan"), [1, 0, 1, None, None]),
    ],
)
def test_classes_are_numbered_at_the_end_in_stores_and_in_memory(monkeypatch, named, labels, classes, numbers):
    monkeypatch.setattr("gmsa.data.store.growing._BLOCK", 2)
    given = [
        Row("train", Utterance(f"v$_${i}", {"text": torch.ones(1, 2)}, label), named=word)
        for i, (word, label) in enumerate(zip(named, labels, strict=True))
    ]
    store = write_store("store", given, {"text": "float32"}, TargetConfig(kind="classes"))
    assert store.manifest.target == Target("classes", classes=classes, metrics="classes")
    assert [u.label for u in store.utterances()] == numbers
    assert store.manifest.splits["train"].labeled == sum(n is not None for n in numbers)
    known = TargetConfig(kind="classes", classes=classes)
    assert [u.label for u in write_store("again", given, {"text": "float32"}, known).utterances()] == numbers


@pytest.mark.parametrize(
    ("row", "target", "said"),
    [
        (("joy", None), TargetConfig(), "the label of 'b' is 'joy', not a number; for classes set target.kind=classes"),
        (("", 0.5), TargetConfig(kind="classes"), "the label of 'b' is 0.5, which is no class; name classes by words"),
        (("", 7.0), TargetConfig(kind="classes", classes=("x", "y")), "is 7, none of the 2 classes (x, y)"),
        (("", -1.0), TargetConfig(kind="classes", classes=("x", "y")), "is -1, none of the 2 classes (x, y)"),
        (("", 0.0), TargetConfig(kind="classes", classes=("1", "2")), "is 0, none of the 2 classes (1, 2)"),
        (("z", None), TargetConfig(kind="classes", classes=("x", "y")), "is 'z', none of the 2 classes (x, y)"),
        (("x", None), TargetConfig(kind="classes"), "'target.classes' are 1, not 2 to 1,000; check target.field"),
        (("a\nb", None), TargetConfig(kind="classes"), "the class 'a\\nb' is empty, of several lines or over 200"),
        (
            ("", 6.0),
            TargetConfig(range=(1.0, 5.0)),
            "the label of 'b' is 6, out of [1, 5]; set target.range to the range",
        ),
    ],
)
def test_labels_that_no_store_may_hold(row, target, said):
    first = "x" if target.is_classes else ""
    label = None if first else target.chosen_range[0]
    if target.is_classes and target.chosen_classes[:1] == ("1",):
        first = "1"
    given = [
        Row("all", Utterance("a", {"text": torch.ones(1, 2)}, label), named=first),
        Row("all", Utterance("b", {"text": torch.ones(1, 2)}, row[1]), named=row[0]),
    ]
    with pytest.raises(DataError) as caught:
        write_store("store", given, {"text": "float32"}, target)
    assert said in str(caught.value)
    assert not Path("store").exists()


def test_stores_say_what_they_were_imported_as():
    parts = [row for split in ("train", "valid", "test") for row in rows(split, 2, label=None)]
    words = [row._replace(named=["joy", "anger"][i % 2]) for i, row in enumerate(parts)]
    path = write_store("classes", words, {"text": "float32"}, TargetConfig(kind="classes")).path
    found, _ = corpus(path, TargetConfig(kind="classes"), modalities=("text",))
    assert found.target.classes == ("anger", "joy")
    assert found.splits["test"][0].label == 1.0
    for target, said in (
        (
            TargetConfig(),
            r"imported with 2 classes: anger, joy, but the target is intensity in \[-3, 3\]; set target.kind=c",
        ),
        (
            TargetConfig(kind="classes", classes=("joy", "anger")),
            "the classes anger, joy, but target.classes are joy, anger",
        ),
        (TargetConfig(preset="meld"), "the classes anger, joy, but target.classes are neutral, surprise"),
    ):
        with pytest.raises(DataError, match=said):
            corpus(path, target, modalities=("text",))
    stars = [row._replace(utterance=replace(row.utterance, label=4.5)) for row in parts]
    path = write_store("stars", stars, {"text": "float32"}, TargetConfig(range=(1.0, 5.0))).path
    found, _ = corpus(path, TargetConfig(range=(1.0, 5.0)), modalities=("text",))
    assert (found.target.low, found.target.high, found.target.metrics) == (1.0, 5.0, "intensity")
    with pytest.raises(DataError, match=r"set target.range=\[1, 5\]"):
        corpus(path, modalities=("text",))


def test_speakers_videos_places_and_folds_come_out_as_they_went_in():
    given = [
        Utterance("a", {"pose": torch.ones(1, 2)}, 0.5, speaker="Ann", of_video="x", place=7, fold="1"),
        Utterance("b", {"pose": torch.ones(1, 2)}, 0.5),
        Utterance("c", {"pose": torch.ones(1, 2)}, None, speaker="Bo ü", place=0, fold="b"),
    ]
    store = write_store("store", [Row("all", u) for u in given], {"pose": "float16"})
    assert store.manifest.columns == ("speaker", "video", "fold", "place")
    for ours, theirs in zip(store.utterances(), given, strict=True):
        for field in ("id", "label", "speaker", "of_video", "place", "fold", "video", "clip"):
            assert getattr(ours, field) == getattr(theirs, field)
    assert replace(store.utterances()[0], label=None).speaker == "Ann"
    assert pickle.loads(pickle.dumps(store.utterances()[2])).place == 0
    plain = write_store("plain", [Row("all", given[1])], {"pose": "float16"})
    assert (plain.manifest.columns, plain.utterances()[0].place) == ((), None)
    for name, values in (("speakers", b"\xff"), ("folds", b"\xff")):
        file = store.path / f"{name}.npy"
        kept = file.read_bytes()
        file.write_bytes(kept[: -len(values)] + values)
        with pytest.raises(DataError, match=rf"{name}\.npy: the {name[:-1]} in row \d is not UTF-8"):
            Store(store.path)
        file.write_bytes(kept)
    with pytest.raises(DataError, match=r"the place of 'd' is '1', no whole number"):
        write_store("other", [Row("all", replace(given[1], id="d", place="1"))], {"pose": "float16"})


@pytest.mark.parametrize("name", ["labels", "IDS", "videos", "../x", "a/b", "a\nb", "x.offsets", "", "ü", "x" * 65])
def test_modalities_that_no_file_may_be_named_by(name):
    with pytest.raises((DataError, ValueError), match="name"):
        write_store("store", [Row("all", Utterance("a", {name: torch.ones(1, 2)}, 0.5))], {name: "float32"})
    assert not Path("store").exists()


def test_stores_of_eight_modalities_and_manifests_of_equal_rows():
    names = ["text", "eeg", "pose", "gaze", "M5", "m_6", "seven", "eight"]
    given = [Row("all", Utterance("a", {name: torch.ones(1, 2) for name in names}, 0.5))]
    first = write_store("one", given, dict.fromkeys(names, "float32"))
    assert list(first.dims) == names
    assert first.sha256 == write_store("two", given, dict.fromkeys(names, "float32")).sha256
    manifest = json.loads((first.path / "manifest.json").read_text())
    assert (manifest["version"], manifest["columns"], manifest["target"]["metrics"]) == (2, [], "mosi")


# --- another file ----------------------------------------------------------------------------------------------------


def test_another_file_keeps_its_splits_and_labels_where_they_fit():
    source = table(splits=("train", "dev", "pool"), label=lambda i: "" if i % 5 == 0 else 0.5)
    with collected() as notes:
        found = load_other(source, {"text": 3, "eeg": 2}, DataConfig(), TargetConfig())
    assert {name: len(part) for name, part in found.splits.items()} == {"train": 15, "valid": 15, "pool": 10}
    assert {name: len(part) for name, part in found.labeled.items()} == {"train": 12, "valid": 12, "pool": 8}
    assert found.utterances[0].features["eeg"].shape == (0, 2)
    assert any("has no eeg: missing from all utterances; the run was trained with it" in note for note in notes)
    other = TargetConfig(range=(0.0, 0.1))
    with pytest.raises(DataError, match=r"is 0.5, out of \[0, 0.1\]"):
        load_other(source, {"text": 3}, DataConfig(), other)
    with collected() as notes:
        found = load_other(source, {"text": 3}, DataConfig(), other, require_labels=False)
    assert (len(found.utterances), found.labeled) == (40, {})
    assert any("is 0.5, out of [0, 0.1]" in note and "labels are not read" in note for note in notes)
    with pytest.raises(DataError, match="no utterance has a label; scoring needs labels"):
        load_other(table(label=lambda i: ""), {"text": 3}, DataConfig(), TargetConfig())
