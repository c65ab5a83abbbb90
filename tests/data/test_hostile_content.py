"""Pickles that read well but hold what no corpus holds: one line each, wherever they are read."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.counts import Recorder, tell

from gmsa.config import DataConfig
from gmsa.data import load_corpus, write_store
from gmsa.data.checks import examine
from gmsa.data.importers import open_source
from gmsa.errors import DataError
from gmsa.reports.data import markdown_check

Content = dict[Any, Any]


def objects(*values: Any) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def corpus() -> Content:
    """A small valid file, whose columns are lists, lists of arrays, and arrays."""
    rng = np.random.default_rng(0)
    content: Content = {}
    for split, count in (("train", 6), ("valid", 3), ("test", 4)):
        columns: Content = {
            "id": [f"{split}$_${i}" for i in range(count)],
            "raw_text": [f"{split} {i}" for i in range(count)],
            "regression_labels": np.linspace(-3, 3, count).tolist(),
            "regression_labels_T": [0.5] * count,
            "annotations": ["Neutral"] * count,
            "text_bert": np.ones((count, 3, 5)).tolist(),
        }
        for modality, length, dim in (("text", 5, 4), ("audio", 7, 3), ("vision", 6, 2)):
            features = rng.standard_normal((count, length, dim)).astype(np.float32)
            columns[modality] = {"text": features, "audio": features.tolist(), "vision": list(features)}[modality]
            columns[f"{modality}_lengths"] = rng.integers(1, length + 1, count).tolist()
        content[split] = columns
    return content


def load(path: Path) -> None:
    """What training reads."""
    load_corpus(DataConfig(path=str(path)))


def import_(path: Path) -> None:
    """What ``gmsa data import`` does, and training with the result; leaves nothing where it fails."""
    out = path.with_name("imported")
    source = open_source(path)
    try:
        write_store(out, source.rows, source.dtypes, "mosi", source.about, path.name)
    except DataError:
        assert not out.exists()
        raise
    try:
        load(out)
    except DataError as error:
        told(error)
    shutil.rmtree(out)


def check(path: Path) -> None:
    """What ``gmsa data check`` does; ``info`` does a part of it."""
    found = examine.to_json(examine.examine(path))
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode("utf-8")
    markdown_check(found)
    if errors := [finding for finding in found["findings"] if finding["severity"] == "error"]:
        raise DataError("; ".join(finding["what"] for finding in errors)[:400])


def told(error: DataError) -> str:
    """The message of an error, which a terminal can show in one line."""
    message = str(error)
    assert len(message) <= 400, len(message)
    assert message.isprintable(), ascii(message)
    return message


def read_all(path: Path, content: Content) -> list[str]:
    """What is said where a file is read for training, imported and checked; empty where it is taken."""
    path.write_bytes(pickle.dumps(content))
    said = []
    for read in (load, import_, check):
        try:
            read(path)
            said.append("")
        except DataError as error:
            said.append(told(error))
    return said


# --- one thing wrong at a time -----------------------------------------------------------------------------------


def train(**columns: Any) -> Callable[[Content], object]:
    """Changes columns of the training split."""
    return lambda content: content["train"].update(columns)


def entry(key: str, value: Any, row: int = 2) -> Callable[[Content], object]:
    """Changes one entry of a column of the training split."""
    return lambda content: content["train"][key].__setitem__(row, value)


def key_of_file(key: Any) -> Callable[[Content], object]:
    return lambda content: content.update({key: {"id": ["a"]}})


def key_of_split(key: Any) -> Callable[[Content], object]:
    return lambda content: content["train"].update({key: [1] * 6})


SURROGATE = "a\ud800b"
LONG = "x" * 1_000_000

REFUSED: dict[str, tuple[Callable[[Content], object], str]] = {
    # keys
    **{
        f"the key {key!r} {place}": (change(key), "which is no text")
        for key in (1, -1.5, None, True, b"id", (), ("id", 1), np.int64(3), float("nan"))
        for place, change in (("in a file", key_of_file), ("in a split", key_of_split))
    },
    # splits
    "a split that is a list": (lambda c: c.update(train=[1]), "split 'train' is a list, not a dict"),
    "a split that is text": (lambda c: c.update(test="test"), "split 'test' is a str, not a dict"),
    "a split that is an array": (lambda c: c.update(valid=np.ones(3)), "split 'valid' is a ndarray, not a dict"),
    "a split that is nothing": (lambda c: c.update(valid=None), "split 'valid' is a NoneType, not a dict"),
    "an empty split": (lambda c: c.update(train={}), "split 'train': has no key 'id'"),
    "a split without ids": (lambda c: c["train"].pop("id"), "split 'train': has no key 'id'"),
    "no splits": (lambda c: c.clear(), "(its keys: none)"),
    "splits of splits": (lambda c: c.update(train={"train": c["train"]}), "split 'train': has no key 'id'"),
    # ids
    "an id that is nothing": (entry("id", None), "row 3 has the id None; expected text"),
    "an id that is NaN": (entry("id", float("nan")), "row 3 has the id nan; expected text"),
    "an id that is a truth value": (entry("id", True), "row 3 has the id True; expected text"),
    "an id that is a dict": (entry("id", {"a": 1}), "row 3 has the id {'a': 1}; expected text"),
    "an id with a part that is a dict": (entry("id", ["a", {}]), "row 3 has the id {}; expected text"),
    "an empty id": (entry("id", ""), "row 3 has an empty id"),
    "an id of no parts": (entry("id", []), "row 3 has an empty id"),
    "an id of half a character": (entry("id", SURROGATE), r"row 3 has an id that cannot be encoded as UTF-8 ('\ud800'"),
    "an id of half a character in an array": (train(id=np.array(["\ud800", *"abcde"])), "cannot be encoded as UTF-8"),
    "an id of other bytes": (entry("id", b"\xff\xfe"), r"row 3 has an id of bytes that are not UTF-8 (b'\xff\xfe')"),
    "an id of a megabyte": (entry("id", LONG), "row 3 has an id of 1,000,000 bytes ('xxx"),
    "a long id of many parts": (entry("id", ["part"] * 1000), "row 3 has an id of "),
    "an id twice": (entry("id", "train$_$0"), "duplicate id 'train$_$0'; ids must be unique"),
    "an id twice that commands a terminal": (
        lambda c: c["train"].update(id=["\x1b]0;\x07\x1b[2J"] * 6),
        r"duplicate id '\x1b]0;\x07\x1b[2J'; ids must be unique",
    ),
    "ids of a number": (train(id=7), "'id' is a int; expected an array or a list"),
    "ids of one array": (train(id=np.array("abc")), "'id' is a ndarray; expected an array or a list"),
    "ids in a dict": (train(id={"a": 1}), "'id' is a dict; expected an array or a list"),
    "no ids": (train(id=[]), "is empty; every split needs utterances"),
    # labels
    "labels that are words": (train(regression_labels=["good"] * 6), "holds no intensities, but classes in"),
    "labels that are dicts": (train(regression_labels=[{}] * 6), "'train$_$0' is {}; expected a number or a word"),
    "labels that are ragged": (train(regression_labels=[[1], [1, 2], [], [1], [1], [1]]), "another number of labels"),
    "labels of many axes": (train(regression_labels=np.ones((6, 2, 3))), "has shape [6, 2, 3]"),
    "labels of no axes": (train(regression_labels=np.ones((6, 0))), "has shape [6, 0]"),
    "labels in lists of lists": (
        lambda c: c["train"].update(regression_labels=[[[[[[float("inf")]]]]]] * 6),
        "'regression_labels' of 'train$_$0' is inf, out of",
    ),
    "labels in a dict": (train(regression_labels={1: 2}), "'regression_labels' is a dict"),
    "one label": (train(regression_labels=1.0), "'regression_labels' is a float"),
    "a label beyond floats": (entry("regression_labels", 2**500), "'regression_labels' of 'train$_$2' is 3.27339e+150"),
    "an infinite label": (entry("regression_labels", float("inf")), "'regression_labels' of 'train$_$2' is inf"),
    "a label of text alone": (
        entry("regression_labels", "x"),
        "'regression_labels' of 'train$_$2' is 'x', not a number",
    ),
    "a label of one modality": (entry("regression_labels_T", 9), "'regression_labels_T' of 'train$_$2' is 9"),
    "fewer labels": (train(regression_labels=[1.0] * 5), "has 5 entries but 'id' has 6"),
    # lengths
    "a negative length": (entry("audio_lengths", -1), "'audio_lengths' of 'train$_$2' is -1; expected an integer"),
    "half a length": (entry("audio_lengths", 0.5), "'audio_lengths' of 'train$_$2' is 0.5; expected an integer"),
    "a huge length": (entry("audio_lengths", 2**62), "'audio_lengths' of 'train$_$2' is 4.61169e+18, but 'audio' has"),
    "a length of 120 digits": (entry("text_lengths", 2**400), "'text_lengths' of 'train$_$2' is 2.58225e+120"),
    "an infinite length": (entry("audio_lengths", float("inf")), "is inf; expected an integer"),
    "a length of NaN": (entry("audio_lengths", float("nan")), "is nan; expected an integer"),
    "a length of text": (entry("audio_lengths", "7"), "'audio_lengths' does not hold one number"),
    "lengths of text": (train(audio_lengths=["7"] * 6), "'audio_lengths' does not hold one number"),
    "one length": (train(audio_lengths=7), "'audio_lengths' is a int"),
    "lengths that are ragged": (train(vision_lengths=[[1], [1, 2], 1, 1, 1, 1]), "does not hold one number"),
    "a length per step": (train(vision_lengths=np.ones((6, 2))), "does not hold one number"),
    # features
    "ragged steps": (entry("audio", [[1.0, 2.0], [1.0]]), "'audio' of 'train$_$2' is not an array of numbers"),
    "steps and numbers": (entry("audio", [1.0, [2.0]]), "'audio' of 'train$_$2' is not an array of numbers"),
    "text for features": (entry("audio", "some words"), "'audio' of 'train$_$2' is not numeric"),
    "words for features": (entry("audio", ["some", "words"]), "'audio' of 'train$_$2' is not an array of numbers"),
    "dicts for features": (entry("audio", [{}]), "'audio' of 'train$_$2' is not an array of numbers"),
    "a dict for features": (entry("audio", {"a": 1}), "'audio' of 'train$_$2' is not an array of numbers"),
    "objects in objects": (entry("audio", objects(objects(1.0), "x")), "is not an array of numbers"),
    "nothing among features": (entry("audio", [[1.0, None, 2.0]]), "'audio' of 'train$_$2' holds NaN"),
    "numbers beyond floats": (entry("audio", [[2**2000, 1, 1]]), "the pickle holds an integer of"),
    "a cube": (entry("audio", np.ones((2, 2, 3))), "'audio' of 'train$_$2' has shape [2, 2, 3]"),
    "a number": (entry("audio", 1.0), "'audio' of 'train$_$2' has shape []"),
    "another dimension": (entry("audio", np.ones((2, 5))), "has 5 features per step, but earlier ones have 3"),
    "NaN": (entry("vision", np.full((6, 2), np.nan)), "'vision' of 'train$_$2' holds NaN"),
    "a column that is text": (train(audio="text"), "'audio' is a str; expected an array or a list"),
    "a column that is nothing": (train(audio=None), "'audio' is a NoneType; expected an array or a list"),
    "fewer sequences": (train(audio=[np.ones((2, 3))]), "'audio' has 1 entries but 'id' has 6"),
    # transcripts
    "a transcript of lists": (entry("raw_text", [["a"]]), "'train$_$2' has a list as transcript"),
    "a transcript that is a dict": (entry("raw_text", {}), "'train$_$2' has a dict as transcript"),
    "a transcript of 2 MB": (entry("raw_text", 2 * LONG), "'train$_$2' has a transcript of 2,000,000 bytes"),
    "one transcript": (train(raw_text="all"), "'raw_text' is a str"),
    # the same content again and again
    "an array again and again": (
        lambda c: c["train"].update(vision=[np.ones((100_000, 2))] * 3000, id=[str(i) for i in range(3000)]),
        "repeats arrays or strings until they hold over",
    ),
    "a text again and again": (train(raw_text=[LONG] * 5000), "repeats arrays or strings until they hold over"),
    "long text among labels": (train(regression_labels=[LONG, *"12345"]), "'regression_labels' of 'train$_$0' is 'xxx"),
}


LEFT_OUT = {f"a split that is {what}" for what in ("text", "an array", "nothing", "a list")} | {"no ids"}
"""Import and check leave such a split out, and say that it is lacking; training cannot."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_corpus_holds_is_one_line(tmp_path: Path, case: str) -> None:
    change, words = REFUSED[case]
    content = corpus()
    change(content)
    loaded, imported, checked = read_all(tmp_path / "f.pkl", content)
    assert loaded.startswith(str(tmp_path / "f.pkl"))
    assert words in loaded
    if case not in LEFT_OUT:
        assert imported
        assert checked


TAKEN: dict[str, Callable[[Content], object]] = {
    "nothing changed": lambda content: None,
    "ids that command a terminal": entry("id", "\x1b]0;\x07\x1b[2J"),
    "ids with a line end": entry("id", "a\nb"),
    "an id of a number": entry("id", 5),
    "a transcript of words": entry("raw_text", np.array(["so", "bad"])),
    "no transcript": entry("raw_text", []),
    "annotations of another kind": train(annotations=[{}, [1], None, b"Neutral", 1.5, np.ones(3)]),
    "one annotation": train(annotations=np.array("Neutral")),
    "a mask that is ragged": train(text_bert=[[1], [1, 2]]),
    "a mask of text": train(text_bert=["a"] * 6),
    "a mask of another kind": train(text_bert={"a": 1}),
    "another split of another kind": lambda content: content.update(more=[1, 2]),
    "labels that are numbers as text": train(regression_labels=["1.5"] * 6),
    "labels that are numbers as text in an array": train(regression_labels=np.array(["1"] * 6)),
    "labels that are numbers as text among objects": train(regression_labels=objects(*["1"] * 6)),
    "labels that are numbers as bytes": train(regression_labels=[b"1"] * 6),
    "deep content that nothing reads": train(more=[[[[[[{}]]]]]]),
    "no annotations": train(annotations=[]),
    "features of lists of nothing": entry("audio", []),
    "an id of unlike arrays": entry("id", [np.ones((2, 2)), np.ones((2, 3))]),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_harms_nothing_is_taken(tmp_path: Path, case: str) -> None:
    content = corpus()
    content["train"]["audio_lengths"] = None
    TAKEN[case](content)
    loaded, imported, _ = read_all(tmp_path / "f.pkl", content)
    assert not loaded
    assert not imported


def test_examples_of_a_check_are_short_and_printable(tmp_path: Path) -> None:
    content = corpus()
    content["train"]["id"] = ["\x1b[2J" * 200] * 6
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
    (found,) = [finding for finding in examine.examine(tmp_path / "f.pkl").findings if finding.what == "duplicate id"]
    assert all(example.isprintable() and len(example) < 400 for example in found.examples)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"I\x92m sad", "I\ufffdm sad"),
        ("\ud800 a", "\ufffd a"),
        (np.array([b"so", b"\xff"]), "so \ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_a_transcript_of_other_bytes_stops_no_training(tmp_path: Path, text: object, seen: str) -> None:
    content = corpus()
    content["train"]["raw_text"][2] = text
    assert read_all(tmp_path / "f.pkl", content) == ["", "", ""]
    assert load_corpus(DataConfig(path=str(tmp_path / "f.pkl"))).splits["train"][2].text == seen
    found = [f for f in examine.to_json(examine.examine(tmp_path / "f.pkl"))["findings"] if "UTF-8" in f["what"]]
    assert [(f["severity"], f["where"], f["examples"]) for f in found] == [("note", "train", ["train$_$2"])] * (
        "\ufffd" in seen
    )


def test_a_list_that_contains_itself(tmp_path: Path) -> None:
    content = corpus()
    content["train"]["id"].append(content["train"]["id"])
    assert all("a list that contains itself" in said for said in read_all(tmp_path / "f.pkl", content))


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 900])
def test_names_of_splits(tmp_path: Path, name: str) -> None:
    """Training reads no such split; a store would keep its name."""
    content = corpus()
    content[name] = {**content["test"], "id": list("abcd")}
    loaded, imported, checked = read_all(tmp_path / "f.pkl", content)
    assert not loaded
    assert "f.pkl has a" in imported
    assert imported == checked


def test_splits_without_end(tmp_path: Path) -> None:
    content = corpus()
    content.update({f"more{i}": {"id": [str(i)], "audio": np.ones((1, 1, 3))} for i in range(200)})
    loaded, imported, checked = read_all(tmp_path / "f.pkl", content)
    assert not loaded
    assert "has 203 splits (train, valid, test, more0," in imported
    assert imported == checked
    assigned = tmp_path / "splits.csv"
    assigned.write_text("id,split\n" + "".join(f"{i},s{i}\n" for i in range(200)))
    flat = {"id": [str(i) for i in range(200)], "audio": np.ones((200, 1, 3))}
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(flat))
    source = open_source(tmp_path / "f.pkl", splits=assigned)
    with pytest.raises(DataError, match="has 200 splits"):
        list(source.rows)


# --- anything, anywhere ------------------------------------------------------------------------------------------


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**400, -(2**63), float("nan"), float("inf")),
    *("", "\ud800", "x" * 2000, "\x1b]0;x\x07", "text", b"", b"\xff\xfe", b"bytes", bytearray(b"x"), np.str_("s")),
    *((), (1,), [], [[]], {}, {1: 2}, {None: 1}, {b"id": [1]}, {"id": []}, nested(55), [1, [2]], [[1.0], [1.0, 2.0]]),
    *(
        ["a"] * 6,
        [["a"]] * 6,
        [None] * 6,
        [{}] * 6,
        [np.float16(1)] * 6,
        [np.array([], "S3")] * 6,
        [np.array(["x"])] * 6,
    ),
    *(np.zeros(0), np.zeros((0, 3)), np.zeros((3, 0)), np.array(1.0), np.array("a"), np.array(["a", "b"])),
    *(np.array(None, object), objects([1], [1, 2]), objects(None, None), objects(objects(1.0), "x")),
    *(np.ones((2, 2, 2)), np.full(6, np.nan), np.full((6, 2), np.inf), np.ones(6, bool), np.array([b"\xff"] * 6)),
    *(np.zeros((6, 4), np.float16), np.array(["\ud800"] * 6), [np.ones((2, 3)), np.ones((1, 4))]),
]
KEYS: list[Any] = [
    *(1, -1, 2.5, None, b"id", b"\xff", ("a", 1), (), True, "", "\ud800", "x" * 900, "\x1b[2J", np.int64(3)),
    *("id", "text", "audio", "train", "valid", "regression_labels", "regression_labels_T", "regression_labels_X"),
    *("text_lengths", "raw_text", "annotations", "text_bert", np.str_("train"), float("nan")),
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """All containers within a value, each with a key or index."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def changed(draw: random.Random) -> Content:
    """A corpus with one to three values or keys changed, lost or added, mostly near the root."""
    root = {"content": corpus()}
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        found = places(root)
        near = [place for place in found if isinstance(place[0], dict) or draw.random() < 0.1]
        container, key = draw.choice(near or found)
        kind = draw.randrange(5)
        if kind < 2 or container is root:
            container[key] = draw.choice(VALUES)
        elif kind == 2:
            del container[key]
        elif isinstance(container, dict):
            container[draw.choice(KEYS)] = container.pop(key) if kind == 3 else draw.choice(VALUES)
        else:
            container.append(draw.choice(VALUES))
    return root["content"]


@pytest.mark.parametrize("count", [100, pytest.param(5_000, marks=pytest.mark.slow)])
def test_any_change_is_read_or_refused(tmp_path: Path, count: int, record_property: Recorder) -> None:
    outcomes = Counter[tuple[bool, ...]]()
    for seed in range(count):
        outcomes[tuple(map(bool, read_all(tmp_path / "f.pkl", changed(random.Random(seed)))))] += 1
    assert outcomes[True, True, True] > count / 5
    assert outcomes[False, False, False] > count / 10
    taken = outcomes[False, False, False]
    tell(record_property, "random changes of a pickle's content", count - taken, taken)
