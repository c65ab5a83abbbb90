"""The reader's one door: what a file holds is read, or said, or refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Utterance, synthetic_corpus
from gmsa.data.mmsa import Reading, read_file
from gmsa.data.notes import collected
from gmsa.errors import DataError

COUNTS = {"train": 12, "valid": 6, "test": 6}
DIMS = {"text": 6, "audio": 3, "vision": 4}
STEPS = 5
UNUSED = "f.pkl: '{}' looks like features and is not used; set data.modalities to a list with it, or to auto"
CORPUS = ("train", "valid", "test", "pool")

Columns = dict[str, Any]
Change = Callable[[dict[str, Columns]], object]


def features(count: int, dim: int, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, dim]).standard_normal((count, steps, dim)).astype(np.float32)


def split(name: str, count: int) -> Columns:
    return {
        "id": [f"{name}{i // 3}$_${i % 3}" for i in range(count)],
        "raw_text": [f"{name} {i}" for i in range(count)],
        **{m: features(count, d) for m, d in DIMS.items()},
        "regression_labels": np.linspace(-2.9, 2.7, count).astype(np.float32),
    }


def corpus() -> dict[str, Columns]:
    return {name: split(name, count) for name, count in COUNTS.items()}


def each(change: Callable[[Columns, int], object], *only: str) -> Change:
    """Changes every split, or only some, given its columns and its number of utterances."""
    return lambda content: [change(content[name], COUNTS[name]) for name in only or COUNTS]


def put(*only: str, **columns: Any) -> Change:
    """Sets columns to what functions of the number of utterances give; None removes one."""

    def change(found: Columns, count: int) -> None:
        for key, value in columns.items():
            found.pop(key, None)
            if value is not None:
                found[key] = value(count)

    return each(change, *only)


def rename(*only: str, **names: str) -> Change:
    return each(lambda columns, _: columns.update({new: columns.pop(old) for old, new in names.items()}), *only)


def at(key: str, where: Any, value: float, *only: str, dtype: Any = None) -> Change:
    """Sets single values."""

    def change(columns: Columns, _: int) -> None:
        columns[key] = np.array(columns[key], dtype)
        columns[key][where] = value

    return each(change, *only)


def ids(name: Callable[[int, str], Any], *only: str) -> Change:
    def change(content: dict[str, Columns]) -> None:
        for key in only or COUNTS:
            content[key]["id"] = [name(i, key) for i in range(COUNTS[key])]

    return change


def content_of(*changes: Change) -> dict[str, Columns]:
    content = corpus()
    for change in changes:
        change(content)
    return content


def read(content: Any, *, target: Any = None, where: str = "f.pkl", **options: Any) -> tuple[Reading, list[str]]:
    """Reads a file as for training; ``options`` of ``data`` are those of its group."""
    reading = {key: options.pop(key) for key in ("splits", "labels", "unlabeled", "strict") if key in options}
    with collected() as notes:
        found = read_file(
            content, where, DataConfig(**options), TargetConfig(**(target or {})), **{"splits": CORPUS, **reading}
        )
    assert all(len(text) <= 400 and text.isprintable() for text in notes)
    return found, notes


def refused(content: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(content, **options)
    assert len(str(caught.value)) <= 400
    assert str(caught.value).isprintable()
    return str(caught.value)


def first(found: Reading, name: str = "train") -> Utterance:
    return found.splits[name][0]


# --- nothing is said of a file without fault -------------------------------------------------------------------------

CLEAN: dict[str, Change] = {
    "nothing changed": lambda content: None,
    "MMSA's other columns": put(
        annotations=lambda n: ["Negative"] * n,
        classification_labels=lambda n: np.arange(n) % 3,
        regression_labels_T=lambda n: [0.5] * n,
        classification_labels_T=lambda n: [1] * n,
        text_bert=lambda n: np.ones((n, 3, STEPS)),
        text_lengths=lambda n: [STEPS] * n,
        audio_lengths=lambda n: [STEPS] * n,
    ),
    "speakers, folds and times": put(
        speaker=lambda n: ["a"] * n, fold=lambda n: np.arange(n), start=lambda n: np.arange(n), end=lambda n: [1] * n
    ),
    "a long tail": each(lambda columns, _: columns.update(audio=np.exp(2 * columns["audio"]))),
    "a scale of thousands": each(lambda columns, _: columns.update(audio=3000 + 900 * columns["audio"])),
    "scales from feature to feature": each(
        lambda columns, _: columns.update(audio=columns["audio"] * np.float32([1e-6, 1, 1e6]))
    ),
    "action units": put(vision=lambda n: np.random.default_rng(0).integers(0, 6, (n, STEPS, 4))),
    "counts of words": put(text=lambda n: np.random.default_rng(0).integers(0, 4, (n, 6))),
    "float16": each(lambda columns, _: columns.update(text=columns["text"].astype(np.float16))),
    "no transcripts": put(raw_text=None),
    "one video each": ids(lambda i, s: f"{s}{i}$_$0"),
    "notes about the file": lambda content: content.update(meta={"by": "me"}, version=3),
}


@pytest.mark.parametrize("case", CLEAN)
def test_clean(case: str) -> None:
    found, notes = read(content_of(CLEAN[case]))
    assert notes == []
    assert {name: len(utterances) for name, utterances in found.splits.items()} == COUNTS
    assert found.dims == DIMS
    assert (found.target.kind, found.left_out) == ("intensity", {})


def test_clean_classes() -> None:
    content = content_of(put(regression_labels=None, emotion=lambda n: ["joy", "sad", "fear"] * (n // 3)))
    found, notes = read(content, target={"kind": "classes"})
    assert (found.target.classes, notes) == (("fear", "joy", "sad"), [])
    assert [u.label for u in found.splits["valid"]] == [1, 2, 0] * 2


# --- modalities ------------------------------------------------------------------------------------------------------

ALIASES: dict[str, tuple[Change, list[str]]] = {
    "visual and acoustic": (
        rename(vision="visual", audio="acoustic"),
        ["f.pkl: 'visual' is read as vision, 'acoustic' is read as audio; data.modalities may list"],
    ),
    "one split": (rename("test", vision="visual"), ["'visual' is read as vision"]),
    "capitals": (rename(text="Text", audio="AUDIO"), ["'Text' is read as text, 'AUDIO' is read as audio"]),
    "language": (rename(text="language"), ["'language' is read as text"]),
    "video": (rename(vision="video"), ["'video' is read as vision"]),
    "both": (put(visual=lambda n: features(n, 9)), ["'visual' looks like features and is not used"]),
    "two aliases": (
        each(lambda columns, _: columns.update(visual=columns.pop("vision"), facial=features(len(columns["id"]), 8))),
        ["'visual' is read as vision", "'facial' looks like features and is not used"],
    ),
    "words of text": (put(words=lambda n: [["so", "it", "goes"]] * n), ["'words' is not read"]),
}


@pytest.mark.parametrize("case", ALIASES)
def test_other_names(case: str) -> None:
    change, said = ALIASES[case]
    found, notes = read(content_of(change))
    assert found.dims == DIMS
    assert len(notes) == len(said)
    assert all(words in text for words, text in zip(said, notes, strict=True))


def test_lengths_follow_the_name() -> None:
    content = content_of(rename(vision="visual"), put(visual_lengths=lambda n: [2] * n))
    assert first(read(content)[0]).lengths == {"text": 5, "audio": 5, "vision": 2}
    plain, _ = read(corpus())
    renamed, _ = read(content_of(rename(vision="visual", audio="acoustic", text="TEXT")))
    for ours, theirs in zip(plain.splits["test"], renamed.splits["test"], strict=True):
        assert all(torch.equal(ours.features[m], theirs.features[m]) for m in DIMS)


def test_a_name_of_the_file_may_be_asked_for() -> None:
    found, notes = read(content_of(rename(vision="visual")), modalities=("text", "visual"))
    assert found.dims == {"text": 6, "visual": 4}
    assert notes == [UNUSED.format("audio")]


PULSES: dict[str, Callable[[int], Any]] = {
    "[N, L, D]": lambda n: features(n, 2),
    "[N, D]": lambda n: features(n, 2)[:, 0],
    "integers": lambda n: np.ones((n, 4, 2), np.int16),
    "arrays": lambda n: [features(1, 2, 3 + i % 4)[0] for i in range(n)],
    "lists": lambda n: features(n, 2).tolist(),
    "vectors": lambda n: features(n, 2)[:, 0].tolist(),
    "objects": lambda n: np.array([*features(n, 2), None], object)[:n],
    "the first is missing": lambda n: [None, *features(n - 1, 2)],
}


@pytest.mark.parametrize("case", PULSES)
def test_a_modality_of_any_name(case: str) -> None:
    content = content_of(put(pulse=PULSES[case]))
    found, notes = read(content)
    assert found.dims == DIMS
    assert notes == [UNUSED.format("pulse")]
    for modalities in ((*DIMS, "pulse"), "auto"):
        found, notes = read(content, modalities=modalities)
        assert list(found.dims.items()) == [*DIMS.items(), ("pulse", 2)]
        assert notes == ["f.pkl: data.modalities: auto takes pulse"] * (modalities == "auto")


NO_FEATURES: dict[str, Callable[[int], Any]] = {
    "arousal": lambda n: np.linspace(0, 1, n),
    "emotion": lambda n: ["joy"] * n,
    "labels_7": lambda n: np.ones((n, 7)),
    "emotions": lambda n: np.ones((n, 6)),
    "pulse_lengths": lambda n: [1] * n,
    "complex": lambda n: np.ones((n, 2, 2), complex),
    "flags": lambda n: np.ones((n, 2, 2), bool),
    "texts": lambda n: [["a", "b"]] * n,
    "dicts": lambda n: [{"a": 1}] * n,
    "empty": lambda n: [[]] * n,
    "number": lambda n: 5,
}


@pytest.mark.parametrize("key", NO_FEATURES)
def test_auto_takes_no_labels_or_lengths(key: str) -> None:
    content = content_of(put(**{key: NO_FEATURES[key], "text_bert": lambda n: np.ones((n, 3, 9))}))
    found, notes = read(content, modalities="auto")
    assert found.dims == DIMS
    assert len(notes) == 1
    assert f"'{key}' is not read" in notes[0]
    assert ("target.field" in notes[0]) == (key in ("arousal", "emotion", "pulse_lengths"))


@pytest.mark.parametrize("key", ["k" * 81, "\x1b[2J"])
def test_auto_takes_no_name_that_a_line_cannot_show(key: str) -> None:
    found, notes = read(content_of(put(**{key: lambda n: features(n, 2)})), modalities="auto")
    assert (found.dims, len(notes)) == (DIMS, 1)
    assert "not read" in notes[0]


@pytest.mark.parametrize("key", ["ratings", "valence_arousal", "onehot", "targets", "timestamps", "start_end"])
def test_auto_takes_nothing_that_may_be_labels(key: str) -> None:
    for kind in (list, np.array):
        content = content_of(
            put(**{key: lambda n, kind=kind: kind(np.ones((n, 2))), "pulse": lambda n: features(n, 2)})
        )
        found, notes = read(content, modalities="auto")
        assert set(found.dims) == {*DIMS, "pulse"}
        said = f"'{key}', which may be labels or times by name and shape; list data.modalities if they are features"
        assert [text for text in notes if key in text] == [f"f.pkl: data.modalities: auto leaves out {said}"]
        assert "f.pkl: data.modalities: auto takes pulse" in notes
    assert key in read(content, modalities=(*DIMS, key))[0].dims


def test_auto_never_takes_the_target() -> None:
    content = content_of(put(mood=lambda n: np.ones((n, 40))))
    settings = TargetConfig(field="mood", column=0)
    for modalities in ("auto", tuple(DIMS)):
        with collected() as notes:
            found = read_file(content, "f.pkl", DataConfig(modalities=modalities), settings)
        assert set(found.dims) == set(DIMS)
        assert not any("mood' looks" in text for text in notes)


def test_auto_of_other_modalities_alone() -> None:
    content = content_of(
        put(text=None, audio=None, vision=None, gaze=lambda n: features(n, 3), pulse=lambda n: features(n, 2))
    )
    assert "has none of the modalities text, audio, vision" in refused(content)
    assert refused(content).endswith("set data.modalities: [gaze, pulse]")
    found, notes = read(content, modalities="auto")
    assert (found.dims, notes) == ({"gaze": 3, "pulse": 2}, ["f.pkl: data.modalities: auto takes gaze, pulse"])
    for words in (put(text=None), put(text=None, text_bert=lambda n: np.ones((n, 3, STEPS)))):
        listed_, auto = (read(content_of(words), modalities=m)[1] for m in (tuple(DIMS), "auto"))
        assert listed_ == auto
        assert "has no features of text: " in auto[0]
    many = content_of(put(**{f"m{i}": lambda n: features(n, 2) for i in range(6)}))
    assert "has 9 columns that look like modalities" in refused(many, modalities="auto")


LACKING: dict[str, tuple[Change, str]] = {
    "one": (
        put(vision=None),
        "f.pkl: has no vision: missing from all utterances; data.modalities: [text, audio] leaves",
    ),
    "two": (put(vision=None, audio=None), "has no audio and no vision: missing from all utterances"),
    "in one split": (put("test", audio=None), "f.pkl: split 'test' has no audio, unlike other splits: missing there"),
    "text, but for text_bert": (
        put(text=None, raw_text=None, text_bert=lambda n: np.ones((n, 3, STEPS))),
        "has no features of text: text_bert would need a text encoder",
    ),
    "text, but for raw_text": (put(text=None), "has no features of text: raw_text would need a text encoder"),
    "more than text": (put(text=None, audio=None), "has no features of text (nor of audio): raw_text would need"),
    "text and raw_text": (put(text=None, raw_text=None), "has no text: missing from all utterances"),
    "all zeros": (
        each(lambda columns, _: columns["audio"].fill(0), "valid"),
        "f.pkl: split 'valid': 'audio' is missing from all 6 utterances",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_the_file_lacks(case: str) -> None:
    change, words = LACKING[case]
    _, notes = read(content_of(change))
    assert len(notes) == 1
    assert words in notes[0]


TOKENS: dict[str, Callable[[int], Any]] = {
    "integers": lambda n: np.random.default_rng(0).integers(0, 30000, (n, 40)),
    "floats": lambda n: np.random.default_rng(0).integers(0, 30000, (n, 40)).astype(np.float32),
    "lists": lambda n: [np.random.default_rng(i).integers(0, 9999, 4 + i).tolist() for i in range(n)],
    "with masks": lambda n: np.random.default_rng(0).integers(0, 30000, (n, 3, 40)),
    "one per step": lambda n: np.random.default_rng(0).integers(0, 30000, (n, 40, 1)),
    "batches": lambda n: np.random.default_rng(0).integers(0, 30000, (n, 1, 40)),
    "padded": lambda n: np.tile([101, 2023, 2003, 102, 0, 0], (n, 1)),
    "some missing": lambda n: [None, *np.random.default_rng(0).integers(0, 30000, (n - 1, 40))],
}


@pytest.mark.parametrize("case", TOKENS)
def test_tokens_are_no_features(case: str) -> None:
    message = refused(content_of(put(text=TOKENS[case])))
    assert message.startswith("f.pkl: split 'train': 'text' holds ids of word pieces (tokens)")
    assert "'text_bert'" in message


AXES: dict[str, Change] = {
    "[1, L, D]": each(lambda c, _: c.update(text=[x[None] for x in c["text"]])),
    "[N, 1, L, D]": each(lambda c, _: c.update(text=c["text"][:, None])),
    "[N, L, 1, D]": each(lambda c, _: c.update(text=c["text"][:, :, None])),
}


@pytest.mark.parametrize("case", AXES)
def test_an_axis_of_size_1(case: str) -> None:
    plain, extra = read(corpus())[0], read(content_of(AXES[case]))[0]
    for ours, theirs in zip(plain.splits["train"], extra.splits["train"], strict=True):
        assert torch.equal(ours.features["text"], theirs.features["text"])


def test_transposed_features() -> None:
    turned = put(audio=lambda n: [features(1, 3, 3 + i % 4)[0].T for i in range(n)])
    message = refused(content_of(turned))
    assert message == (
        "f.pkl: split 'train': 'audio' looks transposed: all utterances have 3 steps, but 3 to 6 features; "
        "save [steps, features]"
    )
    by_split = each(lambda c, n: c.update(audio=features(n, 3, 3 + n).transpose(0, 2, 1)))
    assert refused(content_of(by_split)).endswith("or are they transposed? Save [steps, features]")
    unlike = put("train", audio=lambda n: [*features(n - 1, 3), features(1, 2)[0]])
    assert "'train3$_$2' has 2 features per step, but earlier ones have 3" in refused(content_of(unlike))


# --- splits and ids --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train", "dev", "test"),
        ("train", "val", "test"),
        ("training", "validation", "testing"),
        ("Train", "Dev", "TEST"),
        ("train", "development", "test"),
    ],
)
def test_other_names_of_splits(names: tuple[str, str, str]) -> None:
    content = dict(zip(names, corpus().values(), strict=True))
    found, notes = read(dict(reversed(content.items())))
    assert ({name: len(u) for name, u in found.splits.items()}, notes) == (COUNTS, [])
    assert list(found.splits) == list(COUNTS)
    content[names[1]]["regression_labels"][2] = 9
    assert refused(content).startswith(f"f.pkl: split '{names[1]}': ")


def test_two_names_of_one_split() -> None:
    content = {**corpus(), "dev": split("dev", 3)}
    assert "the splits 'valid' and 'dev' are both the valid split of gmsa; merge them" in refused(content)


POOLS = ("pool", "unlabeled", "unlabelled", "Unlabeled", "unsup")


@pytest.mark.parametrize("name", POOLS)
def test_the_pool(name: str) -> None:
    pool = split("pool", 5)
    del pool["regression_labels"]
    found, notes = read({name: pool, **corpus()})
    assert list(found.splits) == [*COUNTS, "pool"]
    assert [u.label for u in found.splits["pool"]] == [None] * 5
    assert notes == [f"f.pkl: split '{name}': 5 utterances join the pool of unlabeled utterances"]
    found, notes = read({**corpus(), name: split("pool", 5)})
    assert [u.label for u in found.splits["pool"]] == [None] * 5
    assert notes[0].endswith("; its labels are not used")


def test_nothing_is_said_of_the_pool_alone() -> None:
    found, notes = read({**corpus(), "pool": split("pool", 5)}, splits=("pool",), labels="unread")
    assert (list(found.splits), notes) == (["pool"], [])
    with collected() as notes:
        synthetic_corpus()
    assert notes == []


def test_splits_that_are_not_used() -> None:
    content = {**corpus(), "extra": split("extra", 5), "train_mix": split("mix", 1)}
    found, notes = read(content)
    assert list(found.splits) == list(COUNTS)
    assert notes == [
        "f.pkl: splits 'extra' (5 utterances), 'train_mix' (1 utterance) are not used; "
        "gmsa reads train, valid, test and unlabeled (the pool)"
    ]
    found, notes = read(content, splits=None)
    assert (list(found.splits), notes) == ([*COUNTS, "extra", "train_mix"], [])


def test_files_without_splits() -> None:
    found, notes = read(split("other", 12))
    assert (list(found.splits), notes) == (["all"], [])
    named = {**split("other", 12), "split": ["train", "train", "dev", "test"] * 3}
    found, notes = read(named)
    assert ({n: len(u) for n, u in found.splits.items()}, notes) == ({"train": 6, "valid": 3, "test": 3}, [])
    assert [u.id for u in found.splits["valid"]] == ["other0$_$2", "other2$_$0", "other3$_$1"]
    assert torch.equal(found.splits["test"][0].features["audio"], torch.from_numpy(named["audio"][3]))
    assert "has 11 entries but 'id' has 12" in refused({**split("other", 12), "audio": features(11, 3)})


def test_an_error_names_the_first_keys_and_their_number() -> None:
    content = {f"bit{i:04d}": {"words": "no features"} for i in range(5000)}
    message = refused(content)
    assert "its 5,000 keys: bit0000, bit0001" in message


@pytest.mark.parametrize("modalities", [tuple(DIMS), "auto"])
@pytest.mark.parametrize("value", [None, [1], "train", 5, np.ones(3), {1: 2}, {}])
def test_a_split_that_is_none(value: Any, modalities: Any) -> None:
    message = refused({**corpus(), "train": value}, modalities=modalities)
    assert message.startswith("f.pkl: split 'train'")
    assert read({**corpus(), "more": value}, modalities=modalities)[1] == []


IDS: dict[str, tuple[Change, str]] = {
    "MELD's": (ids(lambda i, s: f"{s}dia{i // 3}_utt{i % 3}"), "f.pkl: no id has '$_$' between video and clip"),
    "numbers": (ids(lambda i, s: i + 100 * list(COUNTS).index(s)), "data.video_from says how"),
    "one split": (ids(lambda i, s: f"{s}{i}", "train"), "f.pkl: split 'train': no id has '$_$'"),
}


@pytest.mark.parametrize("case", IDS)
def test_ids_without_a_clip(case: str) -> None:
    change, words = IDS[case]
    _, notes = read(content_of(change))
    assert len(notes) == 1
    assert words in notes[0]
    assert "data.video_from" in notes[0]


MELD = ids(lambda i, s: f"{s}dia{i // 3}_utt{i % 3}")
VIDEOS: dict[str, tuple[Change, str, list[tuple[str, int]]]] = {
    "named groups": (MELD, r"(?P<video>\w+dia\d+)_utt(?P<clip>\d+)", [("traindia0", 0), ("traindia0", 1)]),
    "groups in the other order": (
        ids(lambda i, s: f"{i % 3}of{s}{i // 3}"),
        r"(?P<clip>\d+)of(?P<video>.+)",
        [("train0", 0), ("train0", 1)],
    ),
    "groups without names": (MELD, r"^(.+)_utt(\d+)$", [("traindia0", 0), ("traindia0", 1)]),
    "a video alone": (MELD, r"^(.+)_utt", [("traindia0", 0), ("traindia0", 1)]),
    "clips that are no numbers": (
        ids(lambda i, s: f"{s}{i // 3}-{'cab'[i % 3]}"),
        "(.+)-(.)",
        [("train0", 0), ("train0", 1)],
    ),
    "a key": (put(scene=lambda n: [f"s{i // 2}" for i in range(n)]), "scene", [("s0", 0), ("s0", 1), ("s1", 0)]),
    "numbers": (put(scene=lambda n: np.arange(n) // 2), "scene", [("0", 0), ("0", 1), ("1", 0)]),
    "a key, by time": (
        put(scene=lambda n: [f"s{i // 3}" for i in range(n)], start=lambda n: np.arange(n)[::-1]),
        "scene",
        [("s0", 2), ("s0", 1), ("s0", 0), ("s1", 2)],
    ),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_videos(case: str) -> None:
    change, how, expected = VIDEOS[case]
    found, notes = read(content_of(change), video_from=how)
    assert [(u.video, u.place) for u in found.splits["train"][: len(expected)]] == expected
    assert notes == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("scene", "has no key 'scene', which data.video_from names; name a key of the file, or a regular expression"),
        ("ids", "(did you mean 'id'?)"),
        ("(unclosed", "data.video_from '(unclosed' is no regular expression"),
        (r"(\d+)-(\d+)", "does not match 12 of 12 ids, such as 'train0$_$0'"),
        ("(" + "a{4294967295}" * 2 + ")", "is no regular expression (the repetition number is too large); name a key"),
        (r"(?P<video>x?)", "does not match 12 of 12 ids"),
    ],
)
def test_videos_that_cannot_be_told(how: str, words: str) -> None:
    assert words in refused(corpus(), video_from=how)


def test_videos_are_those_of_the_ids_otherwise() -> None:
    utterance = first(read(corpus())[0])
    assert (utterance.of_video, utterance.place, utterance.video) == ("", None, "train0")


def test_speakers_and_folds() -> None:
    content = content_of(put(speaker=lambda n: ["p0", b"p1", None] * (n // 3), fold=lambda n: np.arange(n) % 2))
    found = read(content)[0].splits["train"][:3]
    assert [(u.speaker, u.fold) for u in found] == [("p0", "0"), ("p1", "1"), ("", "0")]
    content = content_of(put(speakers=lambda n: [float("nan"), ["x"], {}] * (n // 3)))
    assert {u.speaker for u in read(content)[0].splits["train"]} == {""}
    assert "'speaker' has 1 entries" in refused(content_of(put(speaker=lambda n: ["a"])))


# --- labels ----------------------------------------------------------------------------------------------------------

UNLABELED = {"NaN": np.nan, "None": None, "empty": ""}


@pytest.mark.parametrize("value", UNLABELED.values(), ids=UNLABELED)
def test_unlabeled_utterances_of_training(value: Any) -> None:
    def some(columns: Columns, _: int) -> None:
        labels = columns["regression_labels"].astype(object)
        labels[::3] = value
        columns["regression_labels"] = labels.tolist()

    found, notes = read(content_of(each(some, "train")))
    assert [u.label is None for u in found.splits["train"]] == [True, False, False] * 4
    assert notes == [
        "f.pkl: split 'train': 4 of 12 utterances have no label in 'regression_labels' and join the pool of unlabeled "
        "utterances"
    ]
    for name in ("valid", "test"):
        message = refused(content_of(each(some, name)))
        assert message.startswith(f"f.pkl: split '{name}': 'regression_labels' of '{name}0$_$0' is NaN or empty")
        assert "2 of 6 utterances" in message
    assert "no utterance has a label" in refused(content_of(put("train", regression_labels=lambda n: [None] * n)))


def test_labels_of_single_modalities() -> None:
    content = content_of(
        put(regression_labels_T=lambda n: ["0.5", None] * (n // 2), regression_labels_A=lambda n: np.ones((n, 1)))
    )
    found, notes = read(content)
    assert [u.unimodal for u in found.splits["train"][:2]] == [{"text": 0.5, "audio": 1.0}, {"audio": 1.0}]
    assert notes[0] == (
        "f.pkl: split 'train': 6 of 12 utterances have no label in 'regression_labels_T': missing for text"
    )
    content = content_of(put("test", regression_labels_V=lambda n: [7.0] * n))
    assert "split 'test': 'regression_labels_V' of 'test0$_$0' is 7, out of [-3, 3]" in refused(content)
    assert read(content, labels="unread")[1] == []
    content = content_of(put(emotion=lambda n: [0, 1] * (n // 2), regression_labels_V=lambda n: [7.0] * n))
    assert first(read(content, target={"kind": "classes"})[0]).unimodal == {}


def test_classes_come_from_all_splits() -> None:
    content = content_of(put(regression_labels=None, emotion=lambda n: ["joy", "sad"] * (n // 2)))
    content["test"]["emotion"][1] = "awe"
    found, notes = read(content, target={"kind": "classes"})
    assert found.target.classes == ("awe", "joy", "sad")
    assert notes == ["f.pkl: 'awe' of 'emotion' is in no training label, so it is never learned"]
    content["train"].pop("emotion")
    assert refused(content, target={"kind": "classes"}).startswith("f.pkl: split 'train': has no key 'emotion'")


def test_another_key_may_be_the_target() -> None:
    content = content_of(put(emotion=lambda n: ["joy", "sad"] * (n // 2), arousal=lambda n: np.linspace(0, 1, n)))
    _, notes = read(content)
    assert notes == [
        "f.pkl: 'emotion', 'arousal' are not read; target.field: emotion and target.kind: classes would make it the "
        "target"
    ]
    found, notes = read(content, target={"field": "arousal", "range": (0, 1)})
    assert (first(found).label, found.target.high) == (0.0, 1.0)
    assert notes == [
        "f.pkl: 'emotion' is not read; target.field: emotion and target.kind: classes would make it the target"
    ]


def test_notes_on_labels_look_at_the_whole_file() -> None:
    content = content_of(each(lambda c, n: c.update(regression_labels=np.arange(n) % 2)))
    _, notes = read(content, splits=("test",))
    assert len(notes) == 1
    assert "'regression_labels' holds two values only, 0 and 1" in notes[0]


def test_labels_that_are_not_needed() -> None:
    content = content_of(put("test", regression_labels=None), put("valid", regression_labels=lambda n: [None] * n))
    assert "split 'valid': 'regression_labels' of" in refused(content, splits=("train", "valid"))
    assert "split 'test': has no key 'regression_labels'; training and scoring need labels" in refused(content)
    found, notes = read(content, labels="found")
    assert [u.label is None for s in found.splits.values() for u in s] == [False] * 12 + [True] * 12
    assert notes == [
        "f.pkl: split 'valid': 6 of 6 utterances have no label in 'regression_labels'",
        "f.pkl: split 'test': has no key 'regression_labels', so 6 utterances are unlabeled",
    ]
    found, notes = read(content, labels="unread")
    assert {u.label for s in found.splits.values() for u in s} == {None}
    assert notes == []


def test_labels_that_are_wrong_but_not_needed() -> None:
    content = content_of(put("test", regression_labels=lambda n: [9.0] * n))
    assert "out of [-3, 3]" in refused(content, labels="found")
    found, notes = read(content, labels="tried")
    assert {u.label for s in found.splits.values() for u in s} == {None}
    assert len(notes) == 1
    assert "'test0$_$0' is 9, out of [-3, 3]" in notes[0]
    assert notes[0].endswith(": the labels are not read")
    assert read(content, labels="unread")[1] == []
    no = content_of(put(regression_labels=None))
    assert read(no, labels="found")[1] == [
        "f.pkl: has no labels (its keys: id, raw_text, text, audio, vision); target.field names their key"
    ]
    assert "has no key 'feelings'" in refused(no, labels="found", target={"field": "feelings"})
    for target in ({}, {"preset": "meld"}, {"field": "feelings"}):
        assert read(no, labels="tried", target=target)[1] == []
    alone = content_of(rename(regression_labels="classification_labels"))
    assert "set target.kind: classes" in refused(alone, labels="found")
    assert "set target.kind: classes" in read(alone, labels="tried")[1][0]


# --- values that float32 does not hold -------------------------------------------------------------------------------

WRONG = {"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf, "1e+300": 1e300, "-1e+39": -1e39}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_counted(case: str) -> None:
    wrong = at("vision", ([1, 1, 4], [0, 2, 3], [1, 1, 2]), WRONG[case], "train", "test", dtype=float)
    message = refused(content_of(wrong))
    kind = case.removeprefix("-") if "inf" in case else case
    assert message.startswith(f"f.pkl: split 'train': 'vision' of 'train0$_$1' holds {kind}")
    assert "in all, 'vision' has 6 values in 4 utterances" in message
    assert "'gmsa data check'" in message
    assert message.endswith("set data.nan: zero or drop")


def test_wrong_values_of_two_modalities() -> None:
    message = refused(content_of(at("text", (1, 0, 0), np.nan), at("audio", (1, 0, 0), np.nan, "valid")))
    assert "in all, 'text' has 3 values in 3 utterances; 'audio' has 1 value in 1 utterance: repair" in message


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_become_zero(case: str) -> None:
    content = content_of(at("vision", (1, 0, 1), WRONG[case], dtype=float))
    found, notes = read(content, nan="zero")
    expected = content["train"]["vision"][1]
    expected[0, 1] = 0
    assert np.array_equal(found.splits["train"][1].features["vision"], expected.astype(np.float32))
    assert len(notes) == 1
    assert notes[0].startswith("f.pkl: 'vision': 3 values in 3 utterances")
    assert notes[0].endswith("were set to 0 (data.nan: zero)")


def test_wrong_steps_are_dropped() -> None:
    lengths = put(**{f"{m}_lengths": lambda n: [STEPS] * n for m in DIMS})  # so they are not aligned
    content = content_of(at("vision", (1, [0, 3], 1), np.nan, "train"), at("vision", 2, np.nan, "train"), lengths)
    found, notes = read(content, nan="drop")
    train = found.splits["train"]
    assert np.array_equal(train[1].features["vision"], content["train"]["vision"][1, [1, 2, 4]])
    assert train[2].lengths == {"text": 5, "audio": 5, "vision": 0}
    assert train[1].lengths == {"text": 5, "audio": 5, "vision": 3}
    assert notes == ["f.pkl: 'vision': 22 values in 2 utterances, NaN, were dropped with their steps (data.nan: drop)"]


def test_aligned_steps_are_dropped_together() -> None:
    content = content_of(at("vision", (1, [0, 3], 1), np.nan, "train"), at("audio", (1, 4, 1), np.nan, "train"))
    utterance = read(content, nan="drop")[0].splits["train"][1]
    for modality in DIMS:
        assert np.array_equal(utterance.features[modality], content["train"][modality][1, [1, 2]])
    content = content_of(at("vision", 1, np.nan, "train"), at("audio", (1, 4, 1), np.nan, "train"))
    utterance = read(content, nan="drop")[0].splits["train"][1]
    assert utterance.lengths == {"text": 4, "audio": 4, "vision": 0}


def test_a_modality_of_nothing_else_is_missing() -> None:
    wrong = at("vision", 1, np.nan, "train")
    for how in ("zero", "drop"):
        assert read(content_of(wrong), nan=how)[0].splits["train"][1].lengths["vision"] == 0


def test_wrong_values_in_padding_are_cut() -> None:
    content = content_of(at("audio", (1, 4, 1), np.nan), put(audio_lengths=lambda n: [3] * n))
    found, notes = read(content)
    assert (first(found).lengths["audio"], notes) == (3, [])


def test_infinite_audio_is_zero_and_said() -> None:
    content = content_of(at("audio", (1, [0, 3], 1), -np.inf))
    found, notes = read(content)
    assert not found.splits["train"][1].features["audio"][[0, 3], 1].any()
    assert notes == ["f.pkl: 'audio': 6 infinite values read as 0, as MMSA does"]


OUTLIERS: dict[str, Change] = {
    "one": at("audio", (1, 0, 0), 3e38, "train"),
    "one below 0": at("audio", (1, 0, 0), -1e30, "test"),
    "one in each split": at("audio", (1, 0, 0), 2e38),
    "a hundred thousand times": at("audio", (1, 0, 0), 3e5, "train"),
    "many": at("audio", (slice(0, 12, 3), 0, 0), 1e20, "train"),
}


@pytest.mark.parametrize("case", OUTLIERS)
def test_a_value_that_sets_the_scale(case: str) -> None:
    found, notes = read(content_of(OUTLIERS[case]))
    assert found.dims == DIMS
    assert len(notes) == 1
    assert "'audio' of '" in notes[0]
    assert "one such value sets the scale" in notes[0]


# --- a clip that cannot be read --------------------------------------------------------------------------------------


def test_one_bad_clip_changes_no_other() -> None:
    content = content_of(lambda c: c["train"].update({m: list(c["train"][m]) for m in DIMS}))
    content["train"]["audio"][1] = np.full((STEPS, 3), np.nan, np.float32)
    content["train"]["vision"][4] = "no features"
    content["train"]["text"][5] = np.ones((2, 9))
    content["test"]["vision"] = content["test"]["vision"].astype(float)
    content["test"]["vision"][2, 0, 0] = 1e300
    whole, _ = read(corpus())
    found, _ = read(content, strict=False, labels="unread")
    assert found.left_out == {
        "train0$_$1": "'audio' holds NaN",
        "train1$_$1": "'vision' of 'train1$_$1' is not numeric (type <U11); expected features, not text",
        "train1$_$2": "'text' of 'train1$_$2' has 9 features per step, but earlier ones have 6; "
        "extract all of them alike",
        "test0$_$2": "'vision' holds 1e+300, which float32 does not hold",
    }
    for name in COUNTS:
        expected = [u for u in whole.splits[name] if u.id not in found.left_out]
        assert [u.id for u in found.splits[name]] == [u.id for u in expected]
        for ours, theirs in zip(found.splits[name], expected, strict=True):
            assert all(torch.equal(ours.features[m], theirs.features[m]) for m in DIMS)


def test_repaired_clips_are_not_left_out() -> None:
    content = content_of(at("audio", (1, 0, 0), np.nan))
    found, _ = read(content, strict=False, nan="zero")
    assert found.left_out == {}
    assert len(found.splits["train"]) == COUNTS["train"]


# --- all messages ----------------------------------------------------------------------------------------------------

LONG = "k" * 1000
FAULTS: dict[str, tuple[Change, dict[str, Any]]] = {
    "keys": (put(**{f"{i}{LONG}": lambda n: features(n, 2) for i in range(20)}), {}),
    "labels": (put(**{f"{i}{LONG}": lambda n: np.linspace(0, 1, n) for i in range(20)}), {}),
    "no modality": (put(text=None, audio=None, vision=None, **{f"{i}{LONG}": features for i in ()}), {}),
    "splits": (lambda c: c.update({f"{i}{LONG[:150]}": split(f"s{i}", 2) for i in range(20)}), {}),
    "no field": (put(regression_labels=None, **{f"{i}{LONG}": lambda n: [1.0] * n for i in range(20)}), {}),
    "field": (each(lambda c, n: None), {"target": {"field": LONG}}),
    "a preset": (
        put(regression_labels=None, **{f"{i}{LONG}": lambda n: [1.0] * n for i in range(20)}),
        {"target": {"preset": "meld_sentiment"}},
    ),
    "ids": (ids(lambda i, s: f"{s}{i}{LONG[:900]}"), {}),
    "long ids with NaN": (
        lambda c: (ids(lambda i, s: f"{i}{s}{LONG[:900]}")(c), at("audio", (1, 0, 0), np.nan)(c)),
        {},
    ),
    "names that command a terminal": (put(**{"\x1b[2J\n": lambda n: features(n, 2)}), {}),
    "words": (put(regression_labels=lambda n: [LONG] * n), {}),
    "classes": (put(emotion=lambda n: [f"{i}{n}{LONG}" for i in range(n)]), {"target": {"kind": "classes"}}),
    "a long modality with NaN": (
        lambda c: (put(**{LONG: lambda n: features(n, 2)})(c), at(LONG, (1, 0, 0), np.nan)(c)),
        {"modalities": (LONG,)},
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_messages_are_short(case: str) -> None:
    change, options = FAULTS[case]
    where = "…" + "p" * 119
    with collected() as notes:
        try:
            data = DataConfig(modalities=options["modalities"]) if "modalities" in options else DataConfig()
            read_file(content_of(change), where, data, TargetConfig(**options.get("target", {})), CORPUS)
        except DataError as error:
            notes.append(str(error))
    assert notes
    for text in notes:
        assert len(text) <= 400, text
        assert text.isprintable(), ascii(text)


# --- real files ------------------------------------------------------------------------------------------------------

REAL: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "mosi_dev.pkl": ({}, {}, []),
    "mmmo.pkl": ({}, {}, ["mmmo.pkl: split 'train': 'text' is missing from all 220 utterances"]),
    "sims2_text.pkl": ({"modalities": ("text",)}, {"preset": "sims"}, []),
    "meld_dev.pkl": ({"modalities": ("text",)}, {"preset": "meld"}, []),
}


@pytest.mark.parametrize("name", REAL)
def test_notes_on_real_files(name: str, real_data: Any) -> None:
    data, target, expected = REAL[name]
    content = pickle.loads(real_data(name).read_bytes())
    _, notes = read(content, where=name, target=target, **data)
    assert notes == expected


def test_meld_in_three_ways(real_data: Any) -> None:
    content = pickle.loads(real_data("meld_dev.pkl").read_bytes())
    found, notes = read(content, where="meld_dev.pkl", target={"preset": "meld_sentiment"}, modalities=("text",))
    assert found.target.classes == ("negative", "neutral", "positive")
    assert [text.partition("; ")[2] for text in notes[:1]] == ["the classes of 'annotations' are taken"]
    assert [int(u.label or 0) for u in found.splits["test"]] == (content["test"]["regression_labels"] + 1).tolist()
    found, notes = read(content, where="meld_dev.pkl", modalities=("text",))
    assert [text.partition("; ")[2] for text in notes] == [
        "set target.range to the file's range, maybe [-1, 1] (target.preset: sims)",
        "target.field: emotion and target.kind: classes would make it the target",
    ]
    assert first(found).speaker == "Chandler"


def test_long_ids_are_not_matched_with_an_expression() -> None:
    content = corpus()
    content["train"]["id"] = ["v" * 201 + f"_{i}" for i in range(len(content["train"]["id"]))]
    assert "is too long for a regular expression in data.video_from" in refused(content, video_from=r"(\w+)_(\d+)")


def test_numbers_that_words_of_another_field_contradict() -> None:
    names = ["anger", "joy", "sad"]
    content = content_of(
        put(
            emotion=lambda n: [names[i % 3] for i in range(n)],
            classification_labels=lambda n: [(i + 1) % 3 for i in range(n)],
        )
    )

    def found(classes: Any) -> list[Any]:
        settings = TargetConfig(kind="classes", field="classification_labels", classes=classes)
        read = read_file(content, "f.pkl", DataConfig(), settings)
        return [read.target.classes[int(u.label or 0)] for u in read.splits["train"]][:3]

    with pytest.raises(DataError, match=r"'classification_labels' holds numbers.*'emotion' says 'sad'"):
        found(tuple(names))
    assert found(("sad", "anger", "joy")) == names
    content["train"]["emotion"] = ["joy"] * COUNTS["train"]  # words of something else
    content["test"]["emotion"] = ["joy"] * COUNTS["test"]
    content["valid"]["emotion"] = ["joy"] * COUNTS["valid"]
    assert found(tuple(names)) == ["joy", "sad", "anger"]
