"""The order of a dialogue: numbers of clips, else places in the file, at every door; and notes where it is in doubt."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, SplitConfig, TargetConfig
from gmsa.data import (
    Row,
    Store,
    Utterance,
    load_corpus,
    load_other,
    synthetic_corpus,
    tell_order,
    tell_shared,
    write_store,
)
from gmsa.data.__main__ import main
from gmsa.data.dialogues.order import in_file_order
from gmsa.data.importers import open_source
from gmsa.data.notes import Doubt, collected

NAMED = ["talk$_$opening", "other$_$b", "talk$_$body", "other$_$a", "talk$_$closing", "alone"]
NUMBERED = ["talk$_$10", "other$_$2", "talk$_$9", "other$_$1", "talk$_$11", "alone$_$0"]
SOME = ["talk$_$1", "talk$_$2a", "talk$_$2b", "talk$_$10", "talk$_$9"]
TEXT = {"text": torch.ones(1, 2)}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(form: str, ids: Sequence[str], **columns: Sequence[Any]) -> str:
    """A file of each format with the ids in this order."""
    count = len(ids)
    if form == "pickle":
        content = {"id": list(ids), "text": np.ones((count, 1, 2), np.float32), "regression_labels": np.zeros(count)}
        Path("f.pkl").write_bytes(pickle.dumps({**content, **columns}))
        return "f.pkl"
    if form in ("table", "imported table"):
        np.save("x.npy", np.ones((1, 2), np.float32))
        lines = [",".join(["id", "label", "text", *columns])]
        lines += [",".join(map(str, [i, 0, "x.npy", *(c[n] for c in columns.values())])) for n, i in enumerate(ids)]
        Path("f.csv").write_text("\n".join(lines))
        if form == "table":
            return "f.csv"
        with collected():
            source = open_source(Path("f.csv"))
            folder = f"f{len(list(Path().iterdir()))}"
            write_store(folder, source.rows, source.dtypes, TargetConfig(), source.about)
        return folder
    if form == "folder":
        Path("f/text").mkdir(parents=True)
        for i in ids:
            np.save(f"f/text/{i}.npy", np.ones((1, 2), np.float32))
        Path("f/train.csv").write_text("\n".join(["name,val", *(f"{i},0" for i in ids)]))
        return "f"
    write_store("f", [Row("all", Utterance(i, TEXT, 0.0)) for i in ids], {"text": "float32"})
    return "f"


def ordered(path: str) -> dict[str, list[str]]:
    """The ids of each dialogue in its order, whatever the order in which they come."""
    with collected():
        found = load_other(path, {"text": 2}, DataConfig(), TargetConfig()).utterances
    videos: dict[str, list[Utterance]] = {}
    for utterance in random.Random(0).sample(found, len(found)):
        videos.setdefault(utterance.video, []).append(utterance)
    return {video: [u.id for u in sorted(us, key=lambda u: u.clip)] for video, us in videos.items()}


@pytest.mark.parametrize("form", ["pickle", "table", "imported table", "folder", "store"])
def test_clips_without_numbers_are_in_the_order_of_the_file(form: str) -> None:
    found = ordered(written(form, NAMED))
    assert found == {"talk": NAMED[0:5:2], "other": NAMED[1:4:2], "alone": ["alone"]}


@pytest.mark.parametrize("form", ["pickle", "table", "imported table", "folder", "store"])
def test_numbers_go_before_the_order_of_the_file(form: str) -> None:
    path = written(form, NUMBERED)
    assert ordered(path) == {
        "talk": [NUMBERED[2], NUMBERED[0], NUMBERED[4]],
        "other": [NUMBERED[3], NUMBERED[1]],
        "alone": ["alone$_$0"],
    }
    with collected():
        found = load_other(path, {"text": 2}, DataConfig(), TargetConfig()).utterances
    assert {u.place for u in found} == {None}


@pytest.mark.parametrize("form", ["pickle", "table", "store"])
def test_a_dialogue_of_which_some_clips_have_numbers_is_in_the_order_of_the_file(form: str) -> None:
    path = written(form, [*SOME, *NUMBERED[1:2], NUMBERED[3]])
    assert ordered(path) == {"talk": SOME, "other": [NUMBERED[3], NUMBERED[1]]}


@pytest.mark.parametrize("form", ["table", "imported table"])
def test_a_column_of_clips_tells_the_place_where_ids_do_not(form: str) -> None:
    ids, videos = ["c", "a", "b", "e", "d"], ["v", "v", "v", "w", "w"]
    assert ordered(written(form, ids, video=videos, clip=[3, 1, 2, "x", "y"])) == {
        "v": ["a", "b", "c"],
        "w": ["e", "d"],
    }
    assert ordered(written(form, NUMBERED, clip=range(6, 0, -1)))["talk"] == [NUMBERED[2], NUMBERED[0], NUMBERED[4]]


def test_places_count_over_the_splits_of_a_file() -> None:
    clips = [Utterance(f"v$_${name}", TEXT, 0.5) for name in "dcba"]
    found = in_file_order({"train": clips[:2], "pool": clips[2:], "more": [Utterance("w$_$x", {})]})
    assert [u.place for us in found.values() for u in us] == [0, 1, 2, 3, None]
    assert [u.id for us in found.values() for u in us] == [*(u.id for u in clips), "w$_$x"]
    known = [replace(u, place=-i) for i, u in enumerate(clips)]
    assert in_file_order({"all": known})["all"] == known


@pytest.mark.parametrize("form", ["pickle", "store"])
def test_places_by_a_pattern_go_on_from_split_to_split(form: str) -> None:
    names = {"train": ["v_c", "v_b"], "unlabeled": ["v_a", "w_a"], "test": ["x_a"], "valid": ["y_a"]}
    if form == "store":
        rows = [Row(name, Utterance(i, TEXT, 0.5)) for name, ids in names.items() for i in ids]
        path = str(write_store("s", rows, {"text": "float32"}).path)
    else:
        path = "s.pkl"
        columns = {
            name: {"id": ids, "text": np.ones((len(ids), 1, 2), np.float32), "regression_labels": [0.5] * len(ids)}
            for name, ids in names.items()
        }
        Path(path).write_bytes(pickle.dumps(columns))
    with collected():
        found = load_corpus(DataConfig(path=path, modalities=("text",), video_from="(?P<video>.)_"))
    assert [(u.id, u.place) for u in (*found.splits["train"], *found.pool)] == [
        ("v_c", 0),
        ("v_b", 1),
        ("v_a", 2),
        ("w_a", 0),
    ]


def test_a_store_keeps_places_and_speakers_and_slices_and_workers_agree() -> None:
    rows = [Utterance("v$_$b", TEXT, 0.0, speaker="B", place=4), Utterance("v$_$a", TEXT, 0.0, speaker="A", place=9)]
    store = write_store("kept", [Row("all", u) for u in rows])
    assert [(u.place, u.speaker) for u in store.utterances()] == [(4, "B"), (9, "A")]
    store = Store(written("store", NAMED))
    places = [u.place for u in store.utterances()]
    assert places == [0, 1, 2, 3, 4, None]
    assert [store.utterances()[i].place for i in (4, 5)] == [u.place for u in store.utterances()[4:]] == [4, None]
    assert [u.place for u in pickle.loads(pickle.dumps(store)).utterances()] == places


def test_the_bits_of_numbered_data_are_as_before() -> None:
    corpus = synthetic_corpus()
    assert all(u.place is None for us in (*corpus.splits.values(), corpus.pool) for u in us)
    path = write_store("plain", [Row("all", u) for u in corpus.splits["test"]]).path
    assert not (path / "places.npy").exists()


# --- what is said ----------------------------------------------------------------------------------------------------


def said(ids: Sequence[str | Utterance], pool: Sequence[str | Utterance] = ()) -> list[str]:
    def built(given: Sequence[str | Utterance]) -> list[Utterance]:
        return [Utterance(u, {}) if isinstance(u, str) else u for u in given]

    with collected() as notes:
        tell_order({"train": built(ids), "test": [Utterance("t$_$1", {})]}, built(pool), "f.pkl")
    assert all(isinstance(note, Doubt) and len(note) <= 400 for note in notes)
    return notes


def test_notes_of_doubtful_orders() -> None:
    assert said(NUMBERED) == []
    assert said(in_file_order({"all": [Utterance(i, {}) for i in NAMED]})["all"]) == []
    assert said(["v$_$1", "w$_$1"], ["v$_$2"]) == []
    [note] = said(["v$_$1", "v$_$01", "w$_$3"])
    assert note.startswith(
        "f.pkl: one dialogue has two utterances of one place, such as 'v$_$01' and 'v$_$1', which stand"
    )
    tied = [
        Utterance(f"Ses1_{who}{i}", {}, of_video=f"Ses{d}", place=i) for d in (1, 2) for who in "MF" for i in (0, 1)
    ]
    tied = [replace(u, id=f"{u.of_video}_{u.id}") for u in tied]
    [note] = said(tied)
    assert note.startswith(
        "f.pkl: 2 dialogues have two utterances of one place, such as 'Ses1_Ses1_F0' and 'Ses1_Ses1_M0'"
    )
    [note] = said(in_file_order({"all": [Utterance(i, {}) for i in SOME]})["all"])
    assert note.startswith("f.pkl: one dialogue has clips with and without a number, such as 'talk': the order of")
    found = in_file_order({"train": [Utterance(f"v$_${n}", {}) for n in "ab"], "pool": [Utterance("v$_$c", {})]})
    [note] = said(found["train"], found["pool"])
    assert note.startswith(
        "f.pkl: one dialogue has utterances in train and in the pool, and no numbers tell their order"
    )
    assert said(["d_0", "d_2"], ["d_1"]) == []
    numbered = [Utterance(f"d_{i}", {}, of_video="d", place=i) for i in range(3)]
    assert said(numbered[::2], numbered[1:2]) == []
    own = in_file_order({"all": [Utterance(f"v$_${n}", {}) for n in "de"]})["all"]
    [note] = said(found["train"], own)  # a file of its own counts from its own start
    assert "has two utterances of one place, such as 'v$_$a' and 'v$_$d'" in note


def test_a_dialogue_in_two_splits_is_said() -> None:
    with collected() as notes:
        tell_shared({"train": [Utterance("v$_$1", {})], "test": [Utterance("v$_$2", {}), Utterance("w$_$1", {})]}, "f")
        tell_shared({"train": [Utterance("v$_$1", {})], "test": [Utterance("w$_$1", {})]}, "f")
    assert notes == [
        "f: one dialogue has utterances in two splits, such as 'v': the context of an utterance ends at its split"
    ]
    assert not isinstance(notes[0], Doubt)


def test_check_tells_ties_and_info_the_utterances_per_video(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [
        f"{split}{d}_{who}{i}" for split in ("train", "valid", "test") for d in (0, 1) for i in (0, 1) for who in "MF"
    ]
    np.save("x.npy", np.ones((1, 2), np.float32))
    lines = ["id,label,text,split", *(f"{i},{n % 5 - 2},x.npy,{i[:-4]}" for n, i in enumerate(ids))]
    Path("t.csv").write_text("\n".join(lines))
    settings = ["--set", "data.modalities=[text]", "--set"]
    said = "6 dialogues have two utterances of one place, such as 'train0_F0' and 'train0_M0'"
    for how, told in ((r"[MF](?P<clip>\d+)$", True), (r"[MF]\d+$", False)):
        with collected() as notes:
            main(["info", "t.csv", *settings, rf"data.video_from=^(?P<video>\w+)_{how}"])
        assert any(said in note for note in notes) == told
        shown = capsys.readouterr().out
        assert "Utterances per video" in shown
        assert "4 (4–4)" in shown
    main(["check", "t.csv", "--out", "report", *settings, r"data.video_from=^(?P<video>\w+)_[MF](?P<clip>\d+)$"])
    found = json.loads(Path("report/check.json").read_text())
    assert found["splits"]["train"]["per_video"] == {"min": 4, "median": 4.0, "max": 4}
    assert [f["severity"] for f in found["findings"] if f["what"].startswith(said)] == ["warning"]


# --- whole dialogues in splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"valid": 0.2, "test": 0.2}, *({"folds": 3, "fold": k} for k in range(3))])
def test_no_dialogue_is_in_two_splits_nor_in_the_pool_of_another(how: dict[str, Any]) -> None:
    """Of two-speaker dialogues with unlabeled utterances, a pool in the file, and one in a file of its own."""
    rng = random.Random(1)

    def clips(name: str, labeled: float) -> list[Utterance]:
        return [
            Utterance(
                f"{name}{d}_{i}",
                TEXT,
                rng.uniform(-3, 3) if rng.random() < labeled else None,
                speaker="AB"[i % 2],
                of_video=f"d{d}",
                place=i,
            )
            for d in range(20)
            for i in range(rng.randint(2, 6))
        ]

    whole = [Row(split, u) for split, share in (("all", 0.7), ("pool", 0.0)) for u in clips(split, share)]
    write_store("whole", whole, {"text": "float32"})
    write_store("more", [Row("all", u) for u in clips("other", 0.0)], {"text": "float32"})
    with collected():
        found = load_corpus(DataConfig(path="whole", pool="more", modalities=("text",), split=SplitConfig(**how)))
    groups = {name: {u.video for u in us} for name, us in found.splits.items()}
    groups["train"] |= {u.video for u in found.pool}
    assert all(groups.values())
    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
    assert any(u.label is None for u in found.splits["train"])
    assert len(found.pool) > 10
