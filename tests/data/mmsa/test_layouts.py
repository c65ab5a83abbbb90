"""Pickles of other projects read as MMSA's; wrong shapes are one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmsa.data.mmsa.layouts import as_mmsa
from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError

rng = np.random.default_rng(0)


def steps(length: int, dim: int) -> np.ndarray:
    return rng.standard_normal((length, dim)).astype(np.float32)


def example(segment: Any, label: Any = 0.5, words: Any = ("so", "bad"), **parts: Any) -> Any:
    return (words, parts.get("visual", steps(2, 3)), parts.get("acoustic", steps(2, 4))), label, segment


# --- lists -----------------------------------------------------------------------------------------------------------


def test_lists_of_mag_bert() -> None:
    content = {
        "train": [example("v-a_1[0]", np.float32([[1.5]])), example("v-a_1[11]", np.float32([[-2]]), words=["hm"])],
        "dev": [example("w[2]", np.float32([[0]]), acoustic=np.zeros((0, 4)))],
        "test": [],
    }
    found = as_mmsa(content, "m.pkl")
    assert list(found) == ["train", "dev"]
    assert found["train"]["id"] == ["v-a_1$_$0", "v-a_1$_$11"]
    assert [float(label[0, 0]) for label in found["train"]["label"]] == [1.5, -2]
    assert list(found["train"]["raw_text"][0]) == ["so", "bad"]
    assert "text" not in found["train"]  # words are no features
    assert found["train"]["visual"][0] is content["train"][0][0][1]
    assert found["train"]["acoustic"][0] is content["train"][0][0][2]
    assert found["dev"]["acoustic"][0].shape == (0, 4)


@pytest.mark.parametrize(
    ("parts", "label", "rest", "expected"),
    [
        # MISA: numbers of words, then the words; MMIM: true lengths too; labels of MOSEI have seven columns
        ((np.array([4, 2]), 0, 0, ["Well", "no"]), np.zeros((1, 1)), ("v[1]",), {"raw_text": [["Well", "no"]]}),
        ((np.array([4, 2]), 0, 0, ["Well", "no"], 2, 2), np.zeros((1, 1)), ("v$_$1",), {"id": ["v$_$1"]}),
        ((np.array([4, 2]), 0, 0, ["no"]), np.arange(7.0)[None], (b"v[1]",), {"id": ["v$_$1"]}),
        ((["no"], 0, 0), "joy", (["v", "0.5", "2"],), {"id": ["v$_$0"], "label": ["joy"]}),
        ((["no"], 0, 0), 1.0, (), {"id": ["all0"], "label": [1.0]}),
        ((["no"], 0, 0), 1.0, ("v", 3), {"id": ["v"], "label_2": [3]}),
        ((["no"], None, 0), 1.0, ("v",), {"visual": [None]}),
        (("no way", 0, 0), 1.0, ("v",), {"raw_text": [["no way"]]}),
    ],
)
def test_variants_of_the_lists(parts: tuple[Any, ...], label: Any, rest: Any, expected: dict[str, Any]) -> None:
    words, visual, acoustic, *others = parts
    full = (words, *(steps(2, 3) if part == 0 else part for part in (visual, acoustic)), *others)
    found = as_mmsa([(full, label, *rest)], "train.pkl")["all"]
    for key, value in expected.items():
        assert list(found[key]) == value
    assert found["label"][0] is label


def test_features_in_the_place_of_the_words_are_the_text() -> None:
    glove = steps(2, 300)
    assert as_mmsa({"train": [example("v[0]", words=glove)]}, "m.pkl")["train"]["text"][0] is glove
    sentence = steps(1, 768)[0]
    content = [((np.array([3]), steps(1, 2), steps(1, 2), ["hm"], sentence), 0.5, "v[0]")]
    assert as_mmsa(content, "m.pkl")["all"]["text"][0] is sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.append(3), "m.pkl: split 'train': example 2 is a int; expected ((words, visual, acoustic), label"),
        (lambda e: e.append([1]), "example 2 is a list of 1; expected"),
        (lambda e: e.append((("a", 2), 1, "v")), "example 2 holds a tuple of 2 in the place of the modalities"),
        (lambda e: e.append((5, 1, "v")), "example 2 holds a int in the place of the modalities"),
    ],
)
def test_lists_of_wrong_shapes(change: Callable[[list[Any]], None], said: str) -> None:
    examples = [example("v[0]")]
    change(examples)
    with pytest.raises(DataError) as caught:
        as_mmsa({"train": examples}, "m.pkl")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


# --- MulT ------------------------------------------------------------------------------------------------------------


def mult(count: int, ids: Any = None, labels: Any = None) -> dict[str, Any]:
    found = {m: rng.standard_normal((count, 6, d)) for m, d in (("text", 3), ("audio", 2), ("vision", 4))}
    found["labels"] = rng.uniform(-3, 3, (count, 1, 1)) if labels is None else labels
    return found if ids is None else found | {"id": ids}


def test_mult_numbers_the_utterances_of_a_video_by_time_across_splits() -> None:
    train = np.array([[b"v", b"10.5", b"12"], [b"v", b"2.5", b"4"], [b"w", b"0", b"1"]])
    content = {"train": mult(3, train), "test": mult(1, [["v", "7", "8"]])}
    found = as_mmsa(content, "m.pkl")
    assert found["train"]["id"] == ["v$_$2", "v$_$0", "w$_$0"]
    assert found["test"]["id"] == ["v$_$1"]
    assert found["train"]["labels"] is content["train"]["labels"]
    assert found["train"]["text"] is content["train"]["text"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (None, ["train0", "train1"]),
        (["a", "b"], ["a", "b"]),
        ([["v", "x", "y"], ["v", "1", "2"]], [["v", "x", "y"], ["v", "1", "2"]]),
        ([["v", "nan", "2"], ["v", "1", "2"]], [["v", "nan", "2"], ["v", "1", "2"]]),
        ([["v", 1, 2], ["v", 1, 2]], ["v$_$0", "v$_$1"]),
    ],
)
def test_ids_of_mult(ids: Any, expected: list[Any]) -> None:
    assert as_mmsa({"train": mult(2, ids)}, "m.pkl")["train"]["id"] == expected


def test_one_hot_labels_become_numbers() -> None:
    one_hot = np.eye(2)[[[0, 1, 0, 0], [1, 0, 0, 1]]]  # IEMOCAP: four emotions, each not there or there
    assert as_mmsa({"train": mult(2, None, one_hot)}, "m.pkl")["train"]["labels"].tolist() == [
        [0, 1, 0, 0],
        [1, 0, 0, 1],
    ]
    for labels in (np.zeros((2, 4, 2)), np.zeros((2, 1, 2)), np.zeros((2, 1, 7)), np.zeros((2, 1))):
        assert as_mmsa({"train": mult(2, None, labels)}, "m.pkl")["train"]["labels"] is labels


# --- one clip --------------------------------------------------------------------------------------------------------

CLIP = {"text": steps(4, 3), "audio": steps(6, 2)}


@pytest.mark.parametrize(
    ("content", "identity"),
    [
        (CLIP, "me"),
        (CLIP | {"config": {"audio": {"tool": "x"}}}, "me"),
        (CLIP | {"id": "v$_$3", "raw_text": "so"}, "v$_$3"),
        (CLIP | {"id": b"v"}, b"v"),
        (CLIP | {"id": ["v$_$3"]}, "v$_$3"),
        ({m: x[None] for m, x in CLIP.items()}, "me"),
        ({"eeg": steps(5, 8)}, "me"),
    ],
)
def test_one_clip(content: dict[str, Any], identity: Any) -> None:
    found = as_mmsa(content, "clips/me.pkl")
    assert list(found) == ["all"]
    assert found["all"]["id"] == [identity]
    assert "config" not in found["all"]
    for modality in content.keys() - {"id", "config", "raw_text"}:
        assert len(found["all"][modality]) == 1
        assert found["all"][modality][0].ndim == 2
    assert found["all"].get("raw_text", ["so"]) == ["so"]


def test_one_split_is_no_clip() -> None:
    batch = {"id": ["a", "b"], "text": steps(2, 3), "regression_labels": [1, 2]}
    assert as_mmsa(batch, "m.pkl") is batch
    long = {"id": ["a"], "text": [steps(600, 3)]}
    assert as_mmsa(long, "m.pkl") is long
    assert as_mmsa({"text": steps(2, 3), "labels": np.ones((2, 1))}, "m.pkl")["all"]["id"] == ["all0", "all1"]


# --- dicts of utterances ---------------------------------------------------------------------------------------------


def test_utterances_by_id() -> None:
    content = {
        "v$_$0": {"text": steps(2, 3), "label": 1.0, "raw_text": "so"},
        "v$_$1": {"text": steps(4, 3), "audio": steps(5, 2), "label": None},
    }
    found = as_mmsa(content, "m.pkl")["all"]
    assert found["id"] == ["v$_$0", "v$_$1"]
    assert found["label"] == [1.0, None]
    assert found["raw_text"] == ["so", ""]
    assert found["audio"][0] is None
    assert found["text"][1] is content["v$_$1"]["text"]


@pytest.mark.parametrize("kind", ["list", "numbers", "splits", "key", "modalities", "words"])
def test_siblings_of_utterances_by_id(kind: str) -> None:
    entries = [{"text": steps(2 + i, 3), "label": float(i)} for i in range(3)]
    by_id = dict(zip("abc", entries, strict=True))
    content: Any = {
        "list": [{**entry, "id": i} for i, entry in by_id.items()],
        "numbers": dict(enumerate(entries)),
        "splits": {"train": by_id, "test": {"d": entries[0]}},
        "key": {i: {**entry, "split": "test" if i == "b" else "train"} for i, entry in by_id.items()},
        "modalities": {key: {i: entry[key] for i, entry in by_id.items()} for key in ("text", "label")},
        "words": {i: {"text": "so", "audio": entry["text"], "label": "joy"} for i, entry in by_id.items()},
    }[kind]
    found = as_mmsa(content, "m.pkl")
    first = next(iter(found.values()))
    assert list(found) == (["train", "test"] if kind in ("splits", "key") else ["all"])
    assert first["id"] == {"numbers": ["0", "1", "2"], "key": ["a", "c"]}.get(kind, ["a", "b", "c"])
    if kind == "words":
        assert first["raw_text"] == ["so"] * 3
        assert first["label"] == ["joy"] * 3
    else:
        assert first["text"][1] is entries[2 if kind == "key" else 1]["text"]
        assert list(first["label"]) == ([0, 2] if kind == "key" else [0, 1, 2])


def test_entries_without_features_are_named_in_short() -> None:
    content = {f"video{i:05d}$_$0": {"file": "x.mp4", "label": 0.0} for i in range(5000)}
    with pytest.raises(DataError) as caught:
        as_mmsa(content, "m.pkl")
    message = str(caught.value)
    assert "m.pkl: holds 5,000 entries ('video00000$_$0', 'video00001$_$0', ...) without features" in message
    assert "keys of the first: file, label" in message
    assert len(message) <= 400
    with pytest.raises(DataError, match=r"entry 'b' is a list of 1; expected a dict such as"):
        as_mmsa({"a": {"text": steps(2, 3)}, **{f"a{i}": {"text": steps(1, 3)} for i in range(9)}, "b": [1]}, "m.pkl")


# --- MMSA's ----------------------------------------------------------------------------------------------------------


def test_what_is_mmsas_stays_the_same_object(write_mmsa: Callable[..., Path]) -> None:
    content = load_pickle(write_mmsa())
    assert as_mmsa(content, "m.pkl") is content
    assert as_mmsa(content["train"], "m.pkl") is content["train"]


@pytest.mark.parametrize("name", ["mmmo.pkl", "mosi_dev.pkl"])
def test_real_files_stay_the_same_object(real_data: Callable[[str], Path], name: str) -> None:
    content = load_pickle(real_data(name))
    assert as_mmsa(content, name) is content


@pytest.mark.parametrize(
    "content",
    [None, 3, "x", [], {}, [1], {"train": 3}, {"train": {}}, {"train": {"id": ["a"], "smell": [1]}}, {1: 2}, [[]]],
)
def test_what_is_unknown_is_left_to_the_reader(content: Any) -> None:
    assert as_mmsa(content, "m.pkl") is content


def test_a_misspelled_id_is_left_to_the_reader() -> None:
    content = {"train": {"ids": ["a", "b"], "text": np.ones((2, 3, 4)), "regression_labels": [1, 2]}}
    assert as_mmsa(content, "m.pkl") is content


def test_notes_of_mmsa_fet_are_no_split() -> None:
    split = {"id": ["a"], "text": np.ones((1, 2, 3)), "label": [1.0]}
    assert list(as_mmsa({"train": split, "config": {"audio": {"tool": "x"}}}, "m.pkl")) == ["train"]


KEYS = st.sampled_from(
    ["train", "test", "all", "id", "text", "audio", "label", "labels", "split", "config", "a", "b", 1]
)
LEAVES = st.one_of(
    st.none(),
    st.integers(-2, 2),
    st.sampled_from(["w", b"w", "v[1]", "train", np.float32(1), np.zeros(0), np.ones(3), np.ones((2, 3))]),
    st.sampled_from([np.ones((2, 2, 3)), np.array(["a", "b"]), np.array([None, np.ones(2)], object), np.array(None)]),
)
CONTENT = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner, inner), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(CONTENT)
def test_any_content_is_a_dict_of_columns_an_error_of_one_line_or_left_as_it_is(content: Any) -> None:
    try:
        found = as_mmsa(content, "m.pkl")
    except DataError as error:
        found = None
        message = str(error)
        assert "\n" not in message and len(message) <= 400  # noqa: PT018
    if found is not None and found is not content:
        assert all(isinstance(name, str) for name in found)


def test_keys_of_their_own_and_numbers_of_many_digits() -> None:
    entries = [{f"k{i}": 1, "text": steps(2, 3), "label": 0.5} for i in range(1001)]
    with pytest.raises(DataError, match="have over 1,000 different keys"):
        as_mmsa(entries, "f.pkl")
    (columns,) = as_mmsa([example("v[" + "9" * 5000 + "]")], "f.pkl").values()
    assert columns["id"] == ["v[" + "9" * 5000 + "]"]
    label, *_ = example("v[1]"), 0
    with pytest.raises(DataError, match="have over 1,000 different keys"):
        as_mmsa([(*label, *range(1001))], "f.pkl")
