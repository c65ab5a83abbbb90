"""Labels: intensities and classes out of whatever a column holds, and what is said of those that look wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gmsa.config import TargetConfig
from gmsa.data.labels import FEWEST, find_field, label_notes, read_column, read_labels, usual_range
from gmsa.data.notes import collected
from gmsa.errors import ConfigError, DataError

NAN = math.nan
LONG = "w" * 5000


def ids_of(values: Any) -> list[str]:
    return [f"v$_${i}" for i in range(len(values))]


def read(settings: TargetConfig | None = None, **splits: Any) -> tuple[Any, dict[str, list[float]], list[str]]:
    """Target, labels of each split, and notes."""
    settings = settings or TargetConfig()
    with collected() as notes:
        columns = {
            name: read_column(
                values, ids_of(values), f"f.pkl: split '{name}'", "y", settings.column, settings.is_classes
            )
            for name, values in splits.items()
        }
        target, labels = read_labels(columns, settings, "f.pkl")
        notes += label_notes(columns, target, "f.pkl")
    return target, {name: values.tolist() for name, values in labels.items()}, notes


def refused(settings: TargetConfig | None = None, **splits: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(settings, **splits)
    message = str(caught.value)
    assert len(message) <= 400
    assert message.isprintable()
    return message


def objects(*values: Any) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


CLASSES = TargetConfig(kind="classes")

NUMBERS = {
    "float32": np.array([1, -2, 0.5], np.float32),
    "big-endian": np.array([1, -2, 0.5], ">f8"),
    "[N, 1]": np.array([[1], [-2], [0.5]]),
    "[N, 1, 1]": np.array([[[1]], [[-2]], [[0.5]]]),
    "a list": [1, -2.0, 0.5],
    "a tuple": (1, -2.0, 0.5),
    "lists of one": [[1], [-2], [[0.5]]],
    "arrays of one": [np.array(1.0), np.array([-2]), np.array([[0.5]])],
    "NumPy's numbers": [np.float32(1), np.int8(-2), np.float64(0.5)],
    "objects": objects(1, -2.0, "0.5"),
    "text": ["1", " -2.0 ", "+5e-1"],
    "text in an array": np.array(["1", "-2", ".5"]),
    "text in lists": [["1"], ["-2"], ["0.5"]],
    "bytes": [b"1", b"-2", b"0.5"],
    "numbers and text": [1, "-2", 0.5],
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers(case: str) -> None:
    _, labels, notes = read(train=NUMBERS[case])
    assert labels == {"train": [1.0, -2.0, 0.5]}
    assert notes == []


@pytest.mark.parametrize("empty", [None, NAN, np.float32("nan"), "", " ", "NaN", "None", "null", b"", "N/A", [None]])
def test_what_is_no_label(empty: Any) -> None:
    _, labels, _ = read(train=[1.0, empty, "2"])
    assert str(labels["train"]) == "[1.0, nan, 2.0]"


def test_truth_values_are_numbers() -> None:
    assert read(train=[True, False, np.True_])[1] == {"train": [1.0, 0.0, 1.0]}
    assert read(train=np.array([True, False]))[1] == {"train": [1.0, 0.0]}


@pytest.mark.parametrize("values", [np.arange(21.0).reshape(3, 7) / 7, (np.arange(21.0).reshape(3, 1, 7) / 7)])
@pytest.mark.parametrize("kind", [np.array, list, lambda x: x.tolist()])
def test_a_column_of_several(values: np.ndarray, kind: Any) -> None:
    assert "target.column to that of the label, 0 to 6" in refused(train=kind(values))
    assert read(TargetConfig(column=1), train=kind(values))[1]["train"] == [1 / 7, 8 / 7, 15 / 7]
    assert "has 7 columns, no column 7" in refused(TargetConfig(column=7), train=kind(values))


def test_a_column_of_one() -> None:
    assert read(TargetConfig(column=0), train=[1.0, 2.0])[1]["train"] == [1.0, 2.0]
    assert "has 1 columns, no column 1" in refused(TargetConfig(column=1), train=[1.0, 2.0])


INTENSITIES_REFUSED = {
    "a word among numbers": (["1", "see note", "2"], "'y' of 'v$_$1' is 'see note', not a number; repair it"),
    "a decimal comma": (["1,5", "2"], "is '1,5', not a number; write decimals with a point"),
    "words": (["good", "bad", None], "is 'good', not a number; they are words; set target.kind: classes"),
    "a long word": ([LONG, "1"], "not a number"),
    "underlines": (["1_0", "2"], "is '1_0', not a number"),
    "out of range": (
        [0, 3.5, -3],
        "'y' of 'v$_$1' is 3.5, out of [-3, 3]; 1 of 3 labels are, in all from -3 to",
    ),
    "stars": (
        [1, 2, 3, 4, 5],
        "2 of 5 labels are, in all from 1 to 5; set target.range to the file's range, maybe [1, ",
    ),
    "per cent": ([0.0, 40, 99], "maybe [0, 100]"),
    "valence": ([1.2, 8.9, 4], "maybe [1, 9]"),
    "one of many": ([*[0.5] * 500, 9], "1 of 501 labels are, in all from 0.5 to 9; repair them, or set target.range"),
    "infinity": ([1, math.inf], "is inf, out of [-3, 3]"),
    "infinity in text": (["1", "-inf"], "is -inf, out of [-3, 3]"),
    "a huge integer": ([1, 10**400], "expected a number or a word"),
    "a dict": ([1, {}], "'y' of 'v$_$1' is {}; expected a number or a word"),
    "ragged": ([[1], [1, 2]], "of 'v$_$1' holds another number of labels than that of 'v$_$0'"),
    "dicts in columns": ([[{}, {}]] * 2, "has shape [2, 2], not one label per utterance"),
    "no columns": (np.zeros((2, 0)), "has shape [2, 0], not one label per utterance; check how it was saved"),
    "empty lists": ([[], []], "has shape [2, 0], not one label per utterance"),
}


@pytest.mark.parametrize("case", INTENSITIES_REFUSED)
def test_no_intensities(case: str) -> None:
    values, words = INTENSITIES_REFUSED[case]
    message = refused(train=values)
    assert message.startswith("f.pkl: split 'train': 'y'")
    assert words in message


def test_a_range_of_its_own() -> None:
    settings = TargetConfig(range=(1, 5))
    target, labels, notes = read(settings, train=[1, 5.0000001, "3"] * 10)
    assert (target.low, target.high, target.metrics, notes) == (1.0, 5.0, "intensity", [])
    assert labels["train"][:3] == [1, 5.0000001, 3]
    assert "out of [1, 5]" in refused(settings, train=[0.9])
    assert "(target.preset: mosi)" in refused(TargetConfig(preset="sims"), train=[-3, 2.8, 1])


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-0.98, 0.96, "[-1, 1] (target.preset: sims)"),
        (-3, 2.8, "[-3, 3] (target.preset: mosi)"),
        (0, 1, "[0, 1]"),
        (1, 5, "[1, 5]"),
        (0.2, 97, "[0, 100]"),
        (0, 2.9, "[0, 3]"),
        (-17, 4, ""),
        (-0.2, 0.3, ""),
    ],
)
def test_usual_ranges(low: float, high: float, found: str) -> None:
    assert usual_range(low, high) == found


# --- classes ---------------------------------------------------------------------------------------------------------

CLASSES_READ: dict[str, tuple[Any, list[str], list[float]]] = {
    "words": (["joy", "anger", "joy", "sad"], ["anger", "joy", "sad"], [1, 0, 1, 2]),
    "bytes": ([b"joy", b"anger"], ["anger", "joy"], [1, 0]),
    "words in an array": (np.array(["b", "a"]), ["a", "b"], [1, 0]),
    "words in lists": ([["b"], ["a"]], ["a", "b"], [1, 0]),
    "numbers": (np.array([0, 10, 2, 10]), ["0", "2", "10"], [0, 2, 1, 2]),
    "whole floats": (np.array([1.0, -1.0], np.float32), ["-1", "1"], [1, 0]),
    "numbers as text": (["10", "9", "10.0"], ["9", "10"], [1, 0, 1]),
    "truth values": ([True, False], ["0", "1"], [1, 0]),
    "minus zero": (np.array([-0.0, 1.0, 0.0]), ["0", "1"], [0, 1, 0]),
    "none is a class": (["none", "some"], ["none", "some"], [0, 1]),
    "numbers and words": (["a", 1, "b"], ["1", "a", "b"], [1, 0, 2]),
    "[N, 1]": (np.array([[3], [5]]), ["3", "5"], [0, 1]),
}


@pytest.mark.parametrize("case", CLASSES_READ)
def test_classes_of_the_file(case: str) -> None:
    values, names, numbers = CLASSES_READ[case]
    target, labels, notes = read(CLASSES, train=values)
    assert (list(target.classes), labels["train"], notes) == (names, numbers, [])
    assert target.metrics == "classes"


def test_classes_are_those_of_all_splits() -> None:
    target, labels, notes = read(CLASSES, train=["b", "c"], valid=["c"], test=["a", "b"])
    assert target.classes == ("a", "b", "c")
    assert labels == {"train": [1, 2], "valid": [2], "test": [0, 1]}
    assert notes == ["f.pkl: 'a' of 'y' is in no training label, so it is never learned"]


def test_unlabeled_among_classes() -> None:
    for values in (["a", None, "", "b", NAN], [3, None, NAN, 5]):
        target, labels, _ = read(CLASSES, train=values, pool=[None, None])
        assert target.num_classes == 2
        assert [x for x in labels["train"] if x == x] == [0, 1]
        assert all(x != x for x in labels["pool"])


def test_words_in_any_case_are_one_class() -> None:
    target, labels, notes = read(CLASSES, train=["Joy", "joy", "joy", "SAD"])
    assert (target.classes, labels["train"]) == (("SAD", "joy"), [1, 1, 1, 0])
    assert notes == ["f.pkl: 'y': classes are the same in any case; read 'Joy' as 'joy'"]


LISTED = {
    "words": (("joy", "anger"), ["anger", "joy"], [1, 0]),
    "other case": (("joy", "anger"), ["ANGER", "joy"], [1, 0]),
    "numbers of words": (("joy", "anger"), [1, 0], [1, 0]),
    "numbers as names": (("5", "2"), [2, 5], [1, 0]),
    "floats as names": (("-1", "1"), np.array([-1.0, 1.0]), [0, 1]),
    "more than there are": (("joy", "anger", "fear"), ["fear", "joy"], [2, 0]),
    "names that differ in case": (("a", "A"), ["A", "a"], [1, 0]),
}


@pytest.mark.parametrize("case", LISTED)
def test_listed_classes(case: str) -> None:
    names, values, numbers = LISTED[case]
    target, labels, _ = read(TargetConfig(kind="classes", classes=names), train=values)
    assert (target.classes, labels["train"]) == (names, numbers)


def test_numbers_read_as_places_are_said() -> None:
    listed = TargetConfig(kind="classes", classes=("neutral", "surprise"))
    said = "f.pkl: the labels in 'y' are numbers, read as places in target.classes: 0 is neutral, 1 is surprise; "
    assert read(listed, train=[0, 1])[2] == [f"{said}list target.classes in their order"]
    for classes, values in (("auto", [0, 1]), (("0", "1"), [0, 1]), (("a", "b"), ["b", "a"])):
        assert read(TargetConfig(kind="classes", classes=classes), train=values)[2] == []


def test_classes_some_of_which_are_numbers_go_by_their_values() -> None:
    partly = TargetConfig(kind="classes", classes=("none", "2", "1"))
    assert read(partly, train=[1, 2])[1]["train"] == [2, 1]
    assert "is 0, which is none of the 3 classes" in refused(partly, train=[1, 0])


CLASSES_REFUSED = {
    "not listed": (
        ("joy", "sad"),
        ["joy", "awe"],
        "is 'awe', which is none of the 2 classes (joy, sad); add it to target.classes",
    ),
    "a number too many": (("joy", "sad"), [0, 2], "'v$_$1' is 2, which is none of the 2 classes"),
    "a negative number": (("joy", "sad"), [0, -1], "is -1, which is none"),
    "another name": (("1", "5"), [1, 0], "is 0, which is none of the 2 classes (1, 5)"),
    "an intensity": ("auto", np.array([0.5, 1, -2.9]), "is 0.5, which is no class; set target.kind: intensity"),
    "infinity": ("auto", [1, 2, math.inf], "is inf, which is no class"),
    "one class": ("auto", ["a", "a", None], "hold one class alone (a); list target.classes"),
    "one number": ("auto", [3, 3], "hold one class alone (3)"),
    "no label": ("auto", [None, None], "no utterance has a label; list target.classes"),
    "more than a thousand": ("auto", np.arange(1001), "hold 1,001 classes (0, 1, 2,"),
    "more than a thousand words": ("auto", [f"w{i}" for i in range(1001)], "hold 1,001 classes (w0, w1,"),
    "an escape": ("auto", ["joy", "\x1b[2Jsad"], "is no class, which is one line of 1 to 200 printable characters"),
    "two lines": ("auto", ["joy", "a\nb"], "'a\\nb' is no class"),
    "a lone surrogate": ("auto", ["joy", "\ud800"], "is no class"),
    "long names": ("auto", ["joy", "x" * 201], "is no class"),
    "long words": (("a", "b"), [LONG, "a"], "which is none of the 2 classes"),
}


@pytest.mark.parametrize("case", CLASSES_REFUSED)
def test_no_classes(case: str) -> None:
    names, values, words = CLASSES_REFUSED[case]
    assert words in refused(TargetConfig(kind="classes", classes=names), train=values)


@pytest.mark.parametrize("name", ["", " joy", "joy ", "a\nb", "\x1b[2J", "\ud800", "x" * 201])
def test_names_of_classes_that_cannot_be_listed(name: str) -> None:
    with pytest.raises(ConfigError, match="a class is one line of 1 to 200 printable characters") as caught:
        TargetConfig(kind="classes", classes=("joy", name))
    assert str(caught.value).isprintable()


# --- fields ----------------------------------------------------------------------------------------------------------

NUMBER, WORD = [0.5, -2.0], ["joy", "sad"]
WHOLE = [0, 1]
FIELDS: dict[str, tuple[dict[str, Any], TargetConfig, str]] = {
    "MMSA's": ({"regression_labels": NUMBER, "classification_labels": WHOLE}, TargetConfig(), "regression_labels"),
    "MMSA's classes": ({"regression_labels": NUMBER, "classification_labels": WHOLE}, CLASSES, "classification_labels"),
    "labels": ({"labels": NUMBER, "label": NUMBER}, TargetConfig(), "labels"),
    "label": ({"label": NUMBER, "score": NUMBER}, TargetConfig(), "label"),
    "words are no intensity": ({"label": WORD, "sentiment": NUMBER}, TargetConfig(), "sentiment"),
    "score": ({"score": NUMBER, "emotion": WORD}, TargetConfig(), "score"),
    "emotion": ({"score": NUMBER, "emotion": WORD}, CLASSES, "emotion"),
    "label of classes": ({"label": WORD, "annotations": WORD}, CLASSES, "label"),
    "annotations": ({"annotations": WORD, "regression_labels": NUMBER}, CLASSES, "annotations"),
    "the only one": ({"regression_labels": WHOLE}, CLASSES, "regression_labels"),
    "named": ({"regression_labels": NUMBER, "arousal": NUMBER}, TargetConfig(field="arousal"), "arousal"),
    "preset": ({"emotion": WORD, "classification_labels": WHOLE}, TargetConfig(preset="meld"), "emotion"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_fields(case: str) -> None:
    columns, settings, field = FIELDS[case]
    with collected() as notes:
        assert find_field({"train": {"id": ["a", "b"], **columns}}, settings, "f.pkl") == field
    assert notes == []


def test_a_column_without_labels_is_no_field() -> None:
    columns = {"train": {"label": np.zeros((0, 3)), "annotations": ["Neutral", "positive"]}}
    with collected():
        assert find_field(columns, TargetConfig(preset="meld_sentiment"), "f.pkl") == "annotations"


def test_the_field_of_another_split() -> None:
    assert find_field({"train": {"id": ["a"]}, "test": {"label": [1.0]}}, TargetConfig(), "f.pkl") == "label"


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"annotations": ["Neutral", "Positive"], "classification_labels": [2, 0]}, "annotations"),
        ({"classification_labels": [0, 1, 2]}, "classification_labels"),
    ],
)
def test_a_preset_whose_field_the_file_lacks(columns: dict[str, Any], field: str) -> None:
    with collected() as notes:
        assert find_field({"train": columns}, TargetConfig(preset="meld_sentiment"), "f.pkl") == field
    assert len(notes) == 1
    assert f"has no key 'sentiment' (target.preset: meld_sentiment); the classes of '{field}' are taken" in notes[0]


NO_FIELD: dict[str, tuple[dict[str, Any], TargetConfig, str]] = {
    "classes alone": (
        {"classification_labels": [0, 2, 1]},
        TargetConfig(),
        "holds no intensities, but classes in 'classification_labels' (0, 1, 2); "
        "set target.kind: classes and target.field: classification_labels",
    ),
    "words alone": ({"label": WORD}, TargetConfig(), "classes in 'label' (joy, sad); set target.kind: classes"),
    "words as intensities": ({"regression_labels": WORD}, TargetConfig(), "target.field: regression_labels"),
    "another name": ({"regresion_labels": NUMBER}, TargetConfig(), "(did you mean 'regresion_labels'?)"),
    "no name": ({"y": NUMBER}, TargetConfig(), "set target.field to the key that holds them (keys: id, y)"),
    "no such key": (
        {"feeling": WORD, "text": np.ones((2, 3, 4))},
        TargetConfig(field="feelings"),
        "has no key 'feelings' (did you mean 'feeling'?), which target.field names; labels may be in feeling",
    ),
    "a preset's classes": (
        {"classification_labels": [0, 1, 2]},
        TargetConfig(preset="meld"),
        "has no key 'emotion' (target.preset: meld), and no other that holds its 7 classes",
    ),
}


@pytest.mark.parametrize("case", NO_FIELD)
def test_no_field(case: str) -> None:
    columns, settings, words = NO_FIELD[case]
    with pytest.raises(DataError) as caught:
        find_field({"train": {"id": ["a", "b"], **columns}}, settings, "f.pkl")
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 400
    if "classes in" in words:
        assert "did you mean" not in str(caught.value)


# --- notes -----------------------------------------------------------------------------------------------------------

FULL = np.linspace(-2.9, 2.7, 30)
SAID: dict[str, tuple[Any, str]] = {
    "0 and 1": (np.arange(30) % 2, "holds two values only, 0 and 1: as an intensity in [-3, 3]"),
    "-1 and 1": (np.arange(30) % 2 * 2.0 - 1, "two values only, -1 and 1"),
    "truth values": ([bool(i % 2) for i in range(30)], "set target.kind: classes"),
    "one value": ([0.5] * 30, "all 30 labels in 'y' are 0.5; check target.field"),
    "[-1, 1]": (
        FULL / 3,
        "read as an intensity in [-3, 3]; set target.range to the file's range, maybe [-1, 1]",
    ),
    "[0, 1]": (np.linspace(0, 1, 30), "maybe [0, 1]"),
    "-1, 0, 1": (np.arange(30) % 3 - 1.0, "(target.preset: sims)"),
    "[0, 3]": (np.linspace(0, 3, 30), "no label in 'y' is below 0: they lie in [0, 3]"),
    "[-3, 0]": (np.linspace(-3, 0, 30), "no label in 'y' is above 0"),
    "among unlabeled": ([None, *(FULL / 3).tolist()], "but are read as an intensity"),
}


@pytest.mark.parametrize("case", SAID)
def test_labels_that_look_wrong(case: str) -> None:
    values, words = SAID[case]
    _, _, notes = read(train=values)
    assert len(notes) == 1
    assert words in notes[0]
    assert notes[0].startswith("f.pkl: ")
    assert "target." in notes[0]


UNSAID: dict[str, Any] = {
    "the range": FULL,
    "[-2, 2]": np.linspace(-2, 2, 30),
    "one of them beyond": [2.4, *(FULL / 3)],
    "whole numbers": np.arange(30) % 7 - 3.0,
    "few of two values": (np.arange(FEWEST - 1) % 2).tolist(),
    "few in a narrow range": np.linspace(-1, 1, FEWEST - 1),
    "none": [None, None],
    "mostly neutral": [*[0.0] * 500, -2, 2.2],
}


@pytest.mark.parametrize("case", UNSAID)
def test_labels_without_fault(case: str) -> None:
    assert read(train=UNSAID[case])[2] == []


def test_notes_go_by_the_range_of_the_target() -> None:
    assert read(TargetConfig(preset="sims"), train=FULL / 3)[2] == []
    assert "read as an intensity in [1, 9]" in read(TargetConfig(range=(1, 9)), train=[3.0, 4, 5, 6, 7] * 6)[2][0]
    assert read(TargetConfig(range=(1, 5)), train=[1.0, 2, 3, 4, 5] * 6)[2] == []
    assert "no label in 'y' is below 50" in read(TargetConfig(range=(0, 100)), train=np.linspace(60, 100, 30))[2][0]


def test_a_split_on_another_scale() -> None:
    _, _, notes = read(train=FULL, valid=FULL[::4], test=np.linspace(-0.96, 0.96, 8))
    assert len(notes) == 1
    assert "split 'test': all labels in 'y' lie in [-0.96, 0.96], those of other splits in [-2.9, 2.7]" in notes[0]
    # Few labels, or many neutral ones, lie there by chance.
    assert read(train=FULL, test=[0.5, -0.3, 0.9])[2] == []
    assert read(train=[*FULL, *[0.0] * 300], test=[0.2] * 20)[2] == []
