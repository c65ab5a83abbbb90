"""MMSA's files become utterances, or one line that says why not."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from gmsa.data import Target, feature_dims, from_mmsa, read_mmsa
from gmsa.errors import DataError

MODALITIES = ("text", "audio", "vision")
SIMS = Target("intensity", -1.0, 1.0, (), "sims")


def cut(columns, modality, index):
    """The plain way to a true sequence, for files with lengths."""
    return columns[modality][index][: int(np.ravel(columns[f"{modality}_lengths"])[index])]


def drop_lengths(content):
    for columns in content.values():
        for modality in MODALITIES:
            columns.pop(f"{modality}_lengths", None)
    return content


def one(features, **more):
    """A file of one split with the given feature columns, read without labels."""
    count = len(next(iter(features.values())))
    columns = {"id": [f"v$_${i}" for i in range(count)], **features, **more}
    return from_mmsa(columns, "file.pkl", splits=None, require_labels=False)["all"]


def lengths(utterances):
    return [{m: len(x) for m, x in u.features.items()} for u in utterances]


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_reads_a_file(tmp_path, mmsa_dict, protocol):
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(mmsa_dict, protocol))
    splits = read_mmsa(path)
    assert list(splits) == ["train", "valid", "test"]
    assert feature_dims(splits) == {"text": 4, "audio": 3, "vision": 2}
    for split, utterances in splits.items():
        columns = mmsa_dict[split]
        assert [u.id for u in utterances] == columns["id"]
        assert [u.text for u in utterances] == columns["raw_text"]
        assert [u.label for u in utterances] == columns["regression_labels"].tolist()
        for i, utterance in enumerate(utterances):
            assert list(utterance.features) == list(MODALITIES)
            assert utterance.unimodal == {}
            for modality, sequence in utterance.features.items():
                assert sequence.dtype == torch.float32
                assert torch.equal(sequence, torch.from_numpy(cut(columns, modality, i)))


def test_features_are_copies(mmsa_dict):
    utterance = from_mmsa(mmsa_dict, "f")["train"][0]
    before = utterance.features["text"].clone()
    mmsa_dict["train"]["text"][:] = 9
    assert torch.equal(utterance.features["text"], before)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", ">f8", "i2", ">i4", "O"])
def test_every_numeric_type(mmsa_dict, kind):
    for columns in mmsa_dict.values():
        for modality in MODALITIES:
            columns[modality] = np.rint(columns[modality] * 8).astype(kind)
    for split, utterances in from_mmsa(mmsa_dict, "f").items():
        for i, utterance in enumerate(utterances):
            for modality, sequence in utterance.features.items():
                expected = cut(mmsa_dict[split], modality, i).astype("f4")
                np.testing.assert_array_equal(sequence, expected if expected.any() else expected[:0])


def test_lists_ragged_lists_and_object_arrays_are_the_same(mmsa_dict):
    expected = from_mmsa(mmsa_dict, "f")

    def check():
        for split, utterances in from_mmsa(mmsa_dict, "f").items():
            for ours, theirs in zip(utterances, expected[split], strict=True):
                assert (ours.id, ours.label) == (theirs.id, theirs.label)
                for modality in MODALITIES:
                    assert torch.equal(ours.features[modality], theirs.features[modality])

    for columns in mmsa_dict.values():
        columns["text"] = columns["text"].tolist()
        columns["id"] = np.array(columns["id"])
        columns["regression_labels"] = columns["regression_labels"].reshape(-1, 1, 1).tolist()
        columns["audio_lengths"] = np.array(columns["audio_lengths"], np.float64)
        columns["vision_lengths"] = np.array(columns["vision_lengths"]).reshape(-1, 1)
    check()
    for columns in mmsa_dict.values():
        ragged = [cut(columns, "audio", i) for i in range(len(columns["id"]))]
        columns["audio"] = np.empty(len(ragged), object)
        columns["audio"][:] = ragged
        columns["vision"] = [cut(columns, "vision", i) for i in range(len(ragged))]
        columns["id"] = tuple(str(identity).encode() for identity in columns["id"])
    check()
    for columns in mmsa_dict.values():
        del columns["audio_lengths"], columns["vision_lengths"]
    check()


def test_ids_of_parts():
    ids = [["v", "1"], ("w", 2), np.array([b"x", b"0.5", b"1.5"]), "y$_$3", b"z$_$4", 5]
    columns = {"id": ids, "audio": np.ones((6, 2))}
    found = from_mmsa(columns, "f", splits=None, require_labels=False)["all"]
    assert [u.id for u in found] == ["v$_$1", "w$_$2", "x$_$0.5$_$1.5", "y$_$3", "z$_$4", "5"]


def test_flat_sequences_have_length_one():
    assert lengths(one({"audio": np.ones((3, 5)), "vision": [np.ones(2)] * 3})) == [{"audio": 1, "vision": 1}] * 3


def test_subsets_of_modalities_and_dims_of_the_file(mmsa_dict):
    assert feature_dims(from_mmsa(mmsa_dict, "f", modalities=("vision", "text"))) == {"vision": 2, "text": 4}
    for columns in mmsa_dict.values():
        del columns["audio"]
    splits = from_mmsa(mmsa_dict, "f")
    assert feature_dims(splits) == {"text": 4, "vision": 2}  # no split has audio, so there is none
    assert list(splits["test"][0].features) == ["text", "vision"]


def test_modality_of_one_split_only_is_missing_in_the_others(mmsa_dict):
    del mmsa_dict["train"]["text"]
    mmsa_dict["valid"]["text"] = [None] * 3
    mmsa_dict["valid"]["text_lengths"] = [0] * 3
    splits = from_mmsa(mmsa_dict, "f")
    assert feature_dims(splits)["text"] == 4
    for split in ("train", "valid"):
        assert all(u.features["text"].shape == (0, 4) for u in splits[split])
        assert not any(u.present["text"] for u in splits[split])
    assert all(u.present["text"] for u in splits["test"])


def test_length_zero_all_zero_and_mmsas_one_zero_row_are_missing(mmsa_dict):
    columns = mmsa_dict["train"]
    columns["audio_lengths"][0] = 0  # whatever the features say
    columns["vision"][1] = 0
    columns["vision_lengths"][1] = 1  # as MMSA writes it
    columns["text"][2] = 0
    columns["text_lengths"][2] = 5
    found = from_mmsa(mmsa_dict, "f")["train"]
    assert [m for u in found[:3] for m, there in u.present.items() if not there] == ["audio", "vision", "text"]
    assert all(all(u.present.values()) for u in found[3:])


def test_infinite_audio_becomes_zero(mmsa_dict):
    columns = mmsa_dict["test"]
    columns["audio_lengths"][1:3] = [3, 2]
    columns["audio"][1, 0, 1] = -np.inf
    columns["audio"][1, 2, 0] = np.inf
    columns["audio"][2] = 0
    columns["audio"][2, :2] = -np.inf
    found = from_mmsa(mmsa_dict, "f")["test"]
    expected = columns["audio"][1, :3].copy()
    expected[0, 1] = expected[2, 0] = 0
    np.testing.assert_array_equal(found[1].features["audio"], expected)
    assert not found[2].present["audio"]  # nothing was left
    assert np.isinf(columns["audio"]).any()  # the caller's arrays are as they were


def test_sims_labels_of_single_modalities(mmsa_dict):
    for columns in mmsa_dict.values():
        count = len(columns["id"])
        columns["regression_labels"] = np.linspace(-1, 1, count)
        for i, letter in enumerate("TAV"):
            columns[f"regression_labels_{letter}"] = np.linspace(-1, 1, count) * (i + 1) / 4
    first = from_mmsa(mmsa_dict, "f", target=SIMS)["train"][0]
    assert first.label == -1
    assert first.unimodal == {"text": -0.25, "audio": -0.5, "vision": -0.75}
    assert from_mmsa(mmsa_dict, "f", ("audio",), SIMS)["train"][0].unimodal == {"audio": -0.5}
    assert from_mmsa(mmsa_dict, "f", require_labels=False)["train"][0].unimodal == {}


def test_other_splits_and_keys_are_left_alone(mmsa_dict):
    mmsa_dict["train_mix"] = {"anything": None}
    mmsa_dict["train"]["more"] = object()
    assert list(from_mmsa(mmsa_dict, "f")) == ["train", "valid", "test"]
    assert list(from_mmsa(mmsa_dict, "f", splits=("test",))) == ["test"]


def test_without_labels(mmsa_dict):
    del mmsa_dict["train"]["regression_labels"]
    mmsa_dict["valid"]["regression_labels"][:] = np.nan
    splits = from_mmsa(mmsa_dict, "f", splits=None, require_labels=False)
    assert {name: len(utterances) for name, utterances in splits.items()} == {"train": 6, "valid": 3, "test": 4}
    assert all(u.label is None for utterances in splits.values() for u in utterances)
    assert list(from_mmsa(mmsa_dict["train"], "f", splits=None, require_labels=False)) == ["all"]
    assert from_mmsa(mmsa_dict["test"], "f", splits=None)["all"][0].label == -3


# --- true lengths where the file does not give them --------------------------------------------------------------


def padded(length, dim, start, stop, seed=0):
    features = np.zeros((length, dim), np.float32)
    features[start:stop] = np.random.default_rng(seed).uniform(1, 2, (stop - start, dim))
    return features


def test_padding_is_cut_at_both_ends_but_not_within():
    audio = np.stack([padded(6, 2, 0, 4), padded(6, 2, 2, 6), padded(6, 2, 0, 6), padded(6, 2, 0, 0)])
    audio[2, 3] = 0
    found = one({"audio": audio, "vision": np.ones((4, 9, 1))})
    assert [len(u.features["audio"]) for u in found] == [4, 4, 6, 0]
    np.testing.assert_array_equal(found[1].features["audio"], audio[1, 2:])


def test_sequences_of_unequal_length_are_not_padded():
    silent_end = padded(5, 2, 0, 3)
    found = one({"audio": [silent_end, padded(4, 2, 0, 4)], "vision": [np.ones((1, 1)), np.zeros((0, 1))]})
    assert lengths(found) == [{"audio": 5, "vision": 1}, {"audio": 4, "vision": 0}]


def bert(*marked, length):
    rows = np.zeros((len(marked), 3, length), np.float32)
    for row, count in zip(rows, marked, strict=True):
        row[1, :count] = 1
    return rows


def test_aligned_file_with_text_bert():
    # As MMSA aligns: zeros stand for [CLS] and [SEP] in audio and vision, and BERT leaves no zero row in padding.
    text = np.random.default_rng(0).standard_normal((3, 8, 4))
    audio = np.stack([padded(8, 2, 1, 4), padded(8, 2, 2, 3), padded(8, 2, 0, 0)])
    vision = np.stack([padded(8, 3, 1, 4), padded(8, 3, 1, 5), padded(8, 3, 1, 2)])
    found = one({"text": text, "audio": audio, "vision": vision}, text_bert=bert(5, 6, 3, length=8))
    assert lengths(found) == [
        dict.fromkeys(MODALITIES, 5),
        dict.fromkeys(MODALITIES, 6),
        {"text": 3, "audio": 0, "vision": 3},
    ]
    np.testing.assert_array_equal(found[1].features["audio"], audio[1, :6])  # step i is still word i


def test_aligned_file_without_text_bert_keeps_common_steps():
    found = one({"text": [padded(7, 4, 2, 6)], "audio": [padded(7, 2, 3, 7)], "vision": [padded(7, 1, 0, 0)]})
    assert lengths(found) == [{"text": 5, "audio": 5, "vision": 0}]
    assert not found[0].features["text"][4].any()
    assert not found[0].features["audio"][0].any()


def test_front_padded_audio_is_not_cut_off_by_the_mask():
    text = np.random.default_rng(0).standard_normal((1, 8, 4))
    found = one({"text": text, "audio": [padded(8, 2, 5, 8)]}, text_bert=bert(3, length=8))
    assert lengths(found) == [{"text": 8, "audio": 8}]


def test_unaligned_file_takes_texts_length_from_text_bert_alone():
    text = np.random.default_rng(0).standard_normal((2, 5, 4))
    audio = np.stack([padded(20, 2, 0, 12), padded(20, 2, 0, 20)])
    features = {"text": text, "audio": audio}
    assert lengths(one(features, text_bert=bert(3, 4, length=5), audio_lengths=[12, 15])) == [
        {"text": 3, "audio": 12},
        {"text": 4, "audio": 15},
    ]
    # A mask of another length is not of these features.
    assert lengths(one(features, text_bert=bert(3, 4, length=7), audio_lengths=[12, 15]))[0]["text"] == 5


def test_lengths_that_were_counted_on_front_padded_features():
    audio = np.stack([padded(9, 2, 4, 9), padded(9, 2, 4, 9), padded(9, 2, 0, 9)])
    found = one({"audio": audio}, audio_lengths=[1, 5, 3])
    assert [len(u.features["audio"]) for u in found] == [5, 5, 3]
    np.testing.assert_array_equal(found[0].features["audio"], audio[0, 4:])
    np.testing.assert_array_equal(found[2].features["audio"], audio[2, :3])


# --- what is refused ---------------------------------------------------------------------------------------------


def change(**changes):
    """An edit of the training split: new columns, or None to drop one."""

    def edit(content):
        for key, value in changes.items():
            content["train"].pop(key, None)
            if value is not None:
                content["train"][key] = value

    return edit


def put(split, key, index, value):
    def edit(content):
        content[split][key][index] = value

    return edit


def rename(content):
    content["vali"] = content.pop("valid")


ERRORS = {
    "missing split": (
        rename,
        "f.pkl: has no split 'valid' (did you mean 'vali'?) (its keys: train, test, vali); expected",
    ),
    "split of another type": (
        lambda content: content.update(test=[1]),
        "f.pkl: split 'test' is a list, not a dict; expected {'train': {'id': ..., 'text': ..., ...}",
    ),
    "no ids": (
        change(id=None, ids=[1]),
        "f.pkl: split 'train': has no key 'id' (did you mean 'ids'?); every utterance",
    ),
    "empty split": (
        lambda content: content.update(valid={"id": [], "text": []}),
        "f.pkl: split 'valid': is empty; every split needs utterances",
    ),
    "no labels": (
        change(regression_labels=None, regresion_labels=[0] * 6),
        "has no key 'regression_labels' (did you mean 'regresion_labels'?); training and scoring need labels",
    ),
    "NaN label": (
        put("train", "regression_labels", 2, np.nan),
        "split 'train': 'regression_labels' of 'train$_$2' is NaN or empty; label it, or move it to",
    ),
    "label out of range": (
        put("test", "regression_labels", 1, 3.5),
        "split 'test': 'regression_labels' of 'test$_$1' is 3.5, out of [-3, 3]; "
        "1 of 13 labels are, in all from -3 to 3.5; set target.range to the file's range",
    ),
    "unimodal label out of range": (
        change(regression_labels_A=[9.0] * 6),
        "'regression_labels_A' of 'train$_$0' is 9, out of [-3, 3]",
    ),
    "labels that are no numbers": (
        change(regression_labels=["Positive"] * 6),
        "holds no intensities, but classes in 'regression_labels' (Positive); set target.kind: classes",
    ),
    "several labels each": (
        change(regression_labels=np.zeros((6, 2))),
        "has shape [6, 2], not one label per utterance; set target.column",
    ),
    "ragged labels": (
        change(regression_labels=[[0], [0, 1], 0, 0, 0, 0]),
        "of 'train$_$1' holds another number of labels than that of 'train$_$0'",
    ),
    "fewer labels": (
        change(regression_labels=[0.0] * 5),
        "split 'train': 'regression_labels' has 5 entries but 'id' has 6; every key must hold one entry per utterance",
    ),
    "fewer features": (change(audio=np.ones((4, 7, 3))), "'audio' has 4 entries but 'id' has 6"),
    "more lengths": (change(audio_lengths=[1] * 7), "'audio_lengths' has 7 entries but 'id' has 6"),
    "fewer transcripts": (change(raw_text=["a"]), "'raw_text' has 1 entries but 'id' has 6"),
    "features of another kind": (change(audio={"a": 1}), "'audio' is a dict; expected an array or a list"),
    "one number for all": (change(audio=np.array(1.0)), "'audio' is a ndarray; expected an array or a list"),
    "length beyond the sequence": (
        put("train", "audio_lengths", 3, 8),
        "split 'train': 'audio_lengths' of 'train$_$3' is 8, but 'audio' has 7 steps; save features and lengths",
    ),
    "negative length": (
        put("train", "vision_lengths", 0, -1),
        "'vision_lengths' of 'train$_$0' is -1; expected an integer of at least 0",
    ),
    "half a length": (
        put("train", "text_lengths", 0, 1.5),
        "'text_lengths' of 'train$_$0' is 1.5; expected an integer",
    ),
    "NaN length": (
        put("train", "text_lengths", 0, np.nan),
        "'text_lengths' of 'train$_$0' is nan; expected an integer",
    ),
    "too many axes": (
        change(vision=np.ones((6, 6, 2, 1))),
        "split 'train': 'vision' of 'train$_$0' has shape [6, 2, 1]; expected [steps, features]",
    ),
    "too few axes": (change(vision=np.ones(6)), "'vision' of 'train$_$0' has shape []; expected [steps, features]"),
    "dimension within a split": (
        change(vision=[np.ones((6, 2))] * 5 + [np.ones((6, 3))]),
        "'vision' of 'train$_$5' has 3 features per step, but earlier ones have 2; extract all",
    ),
    "dimension between splits": (
        change(audio=np.ones((6, 7, 5))),
        "f.pkl: 'audio' has 5 features per step in split 'train' but 3 in split 'valid'; extract all splits alike",
    ),
    "text as words": (change(text=["some words"] * 6), "'text' of 'train$_$0' is not numeric (type <U10)"),
    "objects": (
        change(text=np.array([[["a", 1]]] * 6, dtype=object)),
        "'text' of 'train$_$0' is not an array of numbers; expected [steps, features]",
    ),
    "ragged steps": (change(text=[[[1.0], [1.0, 2.0]]] * 6), "'text' of 'train$_$0' is not an array of numbers"),
    "duplicate id": (
        put("train", "id", 4, "train$_$1"),
        "split 'train': duplicate id 'train$_$1'; ids must be unique",
    ),
    "id in two splits": (
        put("test", "id", 0, "train$_$1"),
        "f.pkl: duplicate id 'train$_$1' in splits 'train' and 'test'; splits must not overlap (if these are different "
        "clips, make ids unique, for example by the split's name before them)",
    ),
    "NaN feature": (
        put("valid", "text", (1, 0, 2), np.nan),
        "split 'valid': 'text' of 'valid$_$1' holds NaN; in all, 'text' has 1 value in 1 utterance: repair them",
    ),
    "infinite feature": (put("valid", "vision", (2, 0, 0), np.inf), "'vision' of 'valid$_$2' holds infinity; in all, "),
    "beyond float32": (
        change(vision=np.full((6, 6, 2), 1e300)),
        "'vision' of 'train$_$0' holds 1e+300, which float32 does not hold",
    ),
}


@pytest.mark.parametrize("case", list(ERRORS))
def test_errors_say_what_where_and_the_remedy(mmsa_dict, case):
    edit, words = ERRORS[case]
    edit(mmsa_dict)
    with pytest.raises(DataError) as caught:
        from_mmsa(mmsa_dict, "f.pkl")
    message = str(caught.value)
    assert message.startswith("f.pkl: ")
    assert "\n" not in message
    assert words in message


@pytest.mark.parametrize("content", [None, [1], "text", np.ones(3), 5])
def test_content_that_is_no_dict(content):
    with pytest.raises(DataError, match=r"^f.pkl: holds a \w+, not a dict of splits; expected \{'train': "):
        from_mmsa(content, "f.pkl")


def test_no_known_modality(mmsa_dict):
    for columns in mmsa_dict.values():
        columns["gaze"] = columns.pop("vision")
        del columns["text"], columns["audio"]
    words = r"has none of the modalities text, audio, vision \(its keys: id, .*gaze\); set data.modalities: \[gaze\]"
    with pytest.raises(DataError, match=words):
        from_mmsa(mmsa_dict, "f.pkl")


def test_split_without_any_feature(mmsa_dict):
    mmsa_dict["valid"]["text_lengths"] = [0, 0, 0]
    with pytest.raises(
        DataError, match=r"f.pkl: split 'valid': no utterance has text .*; choose other data.modalities"
    ):
        from_mmsa(mmsa_dict, "f.pkl", ("text",))


def test_flat_and_foreign_dicts(mmsa_dict):
    with pytest.raises(DataError, match=r"has no split 'train' \(its keys: id, raw_text"):
        from_mmsa(mmsa_dict["train"], "f.pkl")
    with pytest.raises(DataError, match=r"has neither splits nor 'id' \(its keys: a, b\); expected"):
        from_mmsa({"a": 1, "b": [2]}, "f.pkl", splits=None)
    with pytest.raises(DataError, match=r"has neither splits nor 'id' \(its keys: none\)"):
        from_mmsa({}, "f.pkl", splits=None, require_labels=False)


def test_labels_of_sims_in_a_mosi_file_are_found(mmsa_dict):
    with pytest.raises(DataError, match=r"is -3, out of \[-1, 1\]; .* \[-3, 3\] \(target.preset: mosi\)"):
        from_mmsa(mmsa_dict, "f.pkl", target=SIMS)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent.pkl: does not exist"):
        read_mmsa(tmp_path / "absent.pkl")


# --- real files --------------------------------------------------------------------------------------------------


def test_mosi_dev(real_data):
    path = real_data("mosi_dev.pkl")
    splits = read_mmsa(path)
    with path.open("rb") as file:
        content = pickle.load(file)
    assert {name: len(utterances) for name, utterances in splits.items()} == {"train": 1045, "valid": 206, "test": 262}
    assert feature_dims(splits) == {"text": 384, "audio": 73, "vision": 100}
    assert [sum(not u.present["vision"] for u in splits[s]) for s in ("train", "valid", "test")] == [749, 140, 0]
    for name in splits:
        for i in (0, 7, -1):
            ours, columns = splits[name][i], content[name]
            expected = cut(columns, "text", i).astype("f4")
            np.testing.assert_array_equal(ours.features["text"], expected)
            np.testing.assert_array_equal(ours.features["audio"], columns["audio"][i])
            assert (ours.id, ours.text) == (columns["id"][i], columns["raw_text"][i])


def test_mmmo(real_data):
    splits = read_mmsa(real_data("mmmo.pkl"))
    assert feature_dims(splits) == {"text": 300, "audio": 74, "vision": 36}
    assert not any(u.present["text"] for u in splits["train"])
    assert all(u.present["audio"] for u in splits["train"])
    with pytest.raises(DataError, match="split 'train': no utterance has text"):
        read_mmsa(real_data("mmmo.pkl"), ("text",))
