"""Tables as people write them: separators, decimal commas, encodings, paths, names of columns, JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Row, Utterance, load_corpus, write_store
from gmsa.data.importers import form_of, open_source
from gmsa.data.importers.manifest import import_manifest
from gmsa.data.importers.tables import Splits, Table, assigned
from gmsa.data.notes import collected
from gmsa.errors import DataError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shape in (("a", (3, 4)), ("b", (2, 4)), ("c", (5, 2))):
        Path("t/arrays").mkdir(parents=True, exist_ok=True)
        np.save(f"t/arrays/{name}.npy", np.full(shape, ord(name), np.float32))


def rows_of(text: str | bytes, name: str = "t/data.csv", **options: Any) -> list[tuple[str, Any, Any]]:
    """Split, utterance and raw label of each row of a table."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert form_of(Path(name)) == "manifest"
    found = import_manifest(Path(name), TargetConfig(**options))
    rows = list(found.rows)
    assert len(rows) == found.count
    return [(row.split, row.utterance, row.named or row.utterance.label) for row in rows]


PLAIN = "id,split,label,text\nv$_$0,train,-1.5,arrays/a.npy\nv$_$1,test,,arrays/b.npy\n"
SEMICOLONS = PLAIN.replace(",", ";")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        SEMICOLONS,
        SEMICOLONS.replace("-1.5", "-1,5"),
        SEMICOLONS.replace("-1.5", '"-1,5"'),
        SEMICOLONS.replace("/", "\\").replace("\n", "\r\n"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "\t").replace("-1.5", "-1,5"),
        PLAIN.replace(",", "\t").replace("train", '"train"').replace("arrays/a.npy", '"arrays\\a.npy"'),
        "sep=;\r\n" + SEMICOLONS.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + SEMICOLONS.encode(),
        ("\ufeff" + SEMICOLONS.replace("\n", "\r\n")).encode("utf-16-le"),
        ("\ufeff" + PLAIN.replace(",", "\t")).encode("utf-16-be"),
        PLAIN.replace("id,split", '"id","split"'),
        PLAIN.replace("id,split,label", "ID,Mode,Sentiment"),
        PLAIN.replace("id,split,label", "utterance_id,split,score"),
        PLAIN.replace("v$_$0", "v,0").replace("v$_$1", "v,1").replace("id,split", "video_id,clip_id,split"),
        PLAIN.replace("arrays/", "./arrays/"),
        PLAIN.replace(".npy", ".npy").replace(",test,,", ",test,nan,"),
    ],
)
def test_the_same_table_in_other_clothes(text: str | bytes) -> None:
    (_, first, label), (_, second, none) = rows_of(text)
    assert (first.id, label, first.label, first.lengths) == ("v$_$0", -1.5, -1.5, {"text": 3})
    assert (second.id, none, second.label, second.lengths) == ("v$_$1", None, None, {"text": 2})


@pytest.mark.parametrize("form", ["list", "lines", "by id"])
def test_json(form: str) -> None:
    records = [
        {"id": "v$_$0", "split": "train", "label": -1.5, "text": "arrays/a.npy", "raw_text": 'so, "bad"'},
        {"id": "v$_$1", "split": "dev", "label": None, "text": "arrays\\b.npy"},
    ]
    text = {
        "list": json.dumps(records, indent=1),
        "lines": "\n".join(map(json.dumps, records)) + "\n\n",
        "by id": json.dumps({record.pop("id"): record for record in [dict(record) for record in records]}),
    }[form]
    found = rows_of(text, "t/data.jsonl" if form == "lines" else "t/data.json")
    assert [(split, u.id, u.text, label) for split, u, label in found] == [
        ("train", "v$_$0", 'so, "bad"', -1.5),
        ("valid", "v$_$1", "", None),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}', "is JSON, but no table (its keys: a); gmsa reads a list of objects"),
        ("[1, 2]", "is JSON, but no table; gmsa reads a list of objects"),
        ("[]", "is JSON, but no table"),
        ('{"id": "a"', "is damaged JSON"),
        ('[{"id": "a", "text": [1, 2]}]', "row 1: 'text' is a list; expected text or a number"),
        ('[{"id": "a", "text": "\\ud800"}]', "row 1: 'text' is not UTF-8"),
        ("[" * 5000, "is damaged JSON"),
        ('[{"id": "a", "label": ' + "1" * 5000 + "}]", "is damaged JSON"),
    ],
)
def test_json_that_is_refused(text: str, said: str) -> None:
    Path("t/data.json").write_text(text)
    with pytest.raises(DataError) as caught:
        import_manifest(Path("t/data.json"), TargetConfig())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_a_target_of_words_and_one_chosen_by_name() -> None:
    text = "id,split,emotion,valence,text\na,train,joy,4,arrays/a.npy\nb,train,,2.5,arrays/b.npy\n"
    assert [(label, u.label) for _, u, label in rows_of(text, kind="classes")] == [("joy", None), (None, None)]
    assert [label for _, _, label in rows_of(text)] == [4, 2.5]
    assert [label for _, _, label in rows_of(text, field="Emotion")] == ["joy", None]
    assert [label for _, _, label in rows_of(text, preset="meld")] == ["joy", None]
    with pytest.raises(
        DataError, match=r"t/data\.csv: has no column 'valance' \(did you mean 'valence'\?\), which target\.field"
    ):
        rows_of(text, field="valance")


def test_every_column_of_paths_is_a_modality_and_text_may_be_words() -> None:
    text = "id,text,EEG,pose,speaker,fold,note\na,so bad,arrays/a.npy,,Ann,2,x\nb,good,,arrays/c.npy,Bob,3,y\n"
    with collected() as notes:
        (split, first, _), (_, second, _) = rows_of(text)
    assert notes == ["t/data.csv: 1 column is not used: 'note' (target.field names that of the labels)"]
    assert split == "all"
    assert (first.text, first.speaker, first.fold, first.lengths) == ("so bad", "Ann", "2", {"eeg": 3, "pose": 0})
    assert second.lengths == {"eeg": 0, "pose": 5}


def test_other_names_of_modalities() -> None:
    with collected() as notes:
        [(_, first, _)] = rows_of("id,Visual,acoustic\na,arrays/a.npy,arrays/c.npy\n")
    assert first.lengths == {"audio": 5, "vision": 3}
    assert notes == ["t/data.csv: 'Visual' is read as vision, 'acoustic' is read as audio"]
    [(_, both, _)] = rows_of("id,visual,vision\na,arrays/a.npy,arrays/c.npy\n")
    assert both.lengths == {"visual": 3, "vision": 5}
    with pytest.raises(DataError, match=r"t/data\.csv: 'speech' is audio, which another one is, too; rename one"):
        rows_of("id,acoustic,speech\na,arrays/a.npy,arrays/c.npy\n")


def test_labels_of_single_modalities_as_mmsa_names_them() -> None:
    text = "video_id;clip_id;text;label;label_T;label_A;audio;vision\nv;1;so;0,5;0,25;-1;arrays/a.npy;arrays/c.npy\n"
    [(_, first, _)] = rows_of(text)
    assert (first.id, first.text, first.unimodal) == ("v$_$1", "so", {"audio": -1})
    assert first.video == "v"


def test_home_and_variables_in_paths_lead_under_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path("t").absolute()))
    monkeypatch.setenv("PLACE", "arrays")
    rows = rows_of("id,text,audio\na,~/arrays/a.npy,$PLACE/c.npy\n")
    assert rows[0][1].lengths == {"text": 3, "audio": 5}
    with pytest.raises(
        DataError, match=r"row 2: text: path '\$HOME/\.\./x\.npy' may leave the folder; use a path under 't'"
    ):
        rows_of("id,text\na,$HOME/../x.npy\n")
    with pytest.raises(DataError, match=r"'\$UNSET/x\.npy' does not exist under 't'"):
        rows_of("id,text\na,$UNSET/x.npy\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id;split;text\na;train\n", "row 2 has 2 values for 3 columns; quote values that contain semicolons"),
        ("id\ttext\na\tb\tc\n", "quote values that contain tabs"),
        ('id;text\na;"b\n', "check its quotes and semicolons"),
        ("id;text;label_text\na;arrays/a.npy;1,2,3\n", "the label of text is '1,2,3', not a number"),
        (b"\xff\xfei\x00d\x00,\x00t\x00\n\x00\x00\xd8x\x00\n\x00", "is not UTF-16, though it begins so"),
        ("id;text\na;C:\\data\\a.npy\n", "may leave the folder; use a path under 't'"),
    ],
)
def test_tables_that_are_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        rows_of(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_assignments_to_splits_may_be_such_tables_too() -> None:
    Path("splits.csv").write_text("video;split\nv;dev\n")
    assert Splits.from_csv(Path("splits.csv")).of("v$_$3", "x") == "valid"


@pytest.mark.parametrize(
    ("how", "aligned", "lengths", "said"),
    [
        ("zero", False, {"text": 3, "audio": 5}, "were set to 0 (data.nan: zero)"),
        ("drop", False, {"text": 2, "audio": 5}, "were dropped with their steps (data.nan: drop)"),
        ("drop", True, {"text": 2, "audio": 2}, "were dropped with their steps (data.nan: drop)"),
    ],
)
def test_nan_is_repaired_as_asked(how: Any, aligned: bool, lengths: dict[str, int], said: str) -> None:
    broken = np.ones((3, 4), np.float32)
    broken[1, 2] = np.nan
    np.save("t/arrays/nan.npy", broken)
    other = "arrays/a.npy" if aligned else "arrays/c.npy"
    rows = [f"{split}$_$0,{split},1,arrays/nan.npy,{other}" for split in ("train", "valid", "test")]
    Path("t/nan.csv").write_text("\n".join(["id,split,label,text,audio", *rows]))
    with pytest.raises(DataError, match=r"nan.csv: row 2: text 'arrays/nan.npy': holds NaN"):
        load_corpus(DataConfig(path="t/nan.csv", modalities=("text", "audio")))
    with collected() as notes:
        corpus = load_corpus(DataConfig(path="t/nan.csv", modalities=("text", "audio"), nan=how))
    assert f"t/nan.csv: 'text': 3 values in 3 utterances, NaN, {said}" in notes
    first = corpus.splits["train"][0]
    assert dict(first.lengths) == lengths
    assert torch.isfinite(first.features["text"]).all()


def test_settings_of_the_target_without_effect_are_told() -> None:
    rows = [f"{split}$_$0,{split},1,arrays/a.npy" for split in ("train", "valid", "test")]
    Path("t/data.csv").write_text("\n".join(["id,split,label,text", *rows]))
    data, chosen = DataConfig(path="t/data.csv", modalities=("text",)), TargetConfig(field="label", column=0)
    with collected() as notes:
        load_corpus(data, chosen)
    assert [note for note in notes if "no effect" in note] == [
        "t/data.csv: target.column has no effect: a cell holds one label; target.field names another column"
    ]
    source = open_source(Path("t/data.csv"))
    write_store("store", source.rows, source.dtypes, TargetConfig(), source.about)
    for read in (
        lambda: load_corpus(replace(data, path="store"), chosen),
        lambda: open_source(Path("store"), target=chosen),
    ):
        with collected() as notes:
            read()
        told = [note for note in notes if "no effect" in note]
        assert [note.partition(" has")[0] for note in told] == ["store: target.field", "store: target.column"]


def test_assignments_by_video_use_the_column_of_the_video() -> None:
    Path("splits.csv").write_text("video,split\nv,dev\nw,test\n")
    Path("t/data.csv").write_text(
        "id,video,label,text\n0,v,1,arrays/a.npy\n1,w,1,arrays/b.npy\nw$_$2,,1,arrays/a.npy\n"
    )
    found = import_manifest(Path("t/data.csv"), TargetConfig(), Splits.from_csv(Path("splits.csv")))
    assert {row.utterance.id: row.split for row in found.rows} == {"0": "valid", "1": "test", "w$_$2": "test"}
    rows = [Row("all", Utterance("0", {}, of_video="w"))]
    assert [row.split for row in assigned(rows, Splits.from_csv(Path("splits.csv")), "x")] == ["test"]


def test_a_comma_inside_quotes_does_not_count_as_a_separator() -> None:
    Path("t/data.csv").write_text('"id, of the clip";split\na;train\n')
    assert Table.open(Path("t/data.csv")).columns == ("id, of the clip", "split")


def test_json_whose_rows_have_keys_of_their_own() -> None:
    Path("t").mkdir(exist_ok=True)
    Path("t/data.json").write_text(json.dumps([{"id": "a", f"k{i}": 1} for i in range(1000)]))
    with pytest.raises(DataError, match="has over 1,000 columns"):
        Table.open(Path("t/data.json"))


@pytest.mark.parametrize("value", ["hunter2", "../hunter2", "/hunter2"])
def test_messages_do_not_tell_what_a_variable_holds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", value)
    with pytest.raises(DataError, match=r"'\$SECRET/x\.npy' (does not exist|may leave)") as caught:
        rows_of("id,text,label\na,$SECRET/x.npy,1\n")
    assert "hunter2" not in str(caught.value)
