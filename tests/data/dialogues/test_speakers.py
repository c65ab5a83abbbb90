"""Who speaks: from the key of a file or from ids, at every door."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, SplitConfig, TargetConfig, from_dict
from gmsa.data import Row, Utterance, load_corpus, load_other, write_store
from gmsa.data.__main__ import main
from gmsa.data.importers import open_source
from gmsa.data.notes import collected
from gmsa.errors import ConfigError, DataError

IDS = [
    f"Ses{session:02d}F_impro{d:02d}_{'MF'[i % 2]}{i // 2:03d}"
    for session in (1, 2)
    for d in (1, 2, 3)
    for i in range(4)
]
VIDEO = r"^(?P<video>\w+)_[MF]\d+$"
SPEAKER = r"_(?P<speaker>[MF])\d+$"
SPLITS = SplitConfig(valid=0.2, test=0.2)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(form: str, ids: Sequence[str] = IDS, **columns: Any) -> str:
    """A pickle, a table or a store of utterances with these ids, and columns of names."""
    count = len(ids)
    if form == "store":
        fields = [{k: str(v[i]) for k, v in columns.items()} for i in range(count)]
        features = {"text": torch.ones(1, 2)}
        write_store("s", [Row("all", Utterance(i, features, 0.5, **f)) for i, f in zip(ids, fields, strict=True)])
        return "s"
    if form == "table":
        np.save("x.npy", np.ones((1, 2), np.float32))
        lines = [",".join(["id", "label", "text", *columns])]
        lines += [",".join(map(str, [i, 0.5, "x.npy", *(c[n] for c in columns.values())])) for n, i in enumerate(ids)]
        Path("s.csv").write_text("\n".join(lines))
        return "s.csv"
    content = {"id": list(ids), "text": np.ones((count, 1, 2), np.float32), "regression_labels": np.full(count, 0.5)}
    Path("s.pkl").write_bytes(pickle.dumps({**content, **columns}))
    return "s.pkl"


def speakers(path: str, **settings: Any) -> dict[str, str]:
    """The speaker of each utterance."""
    with collected():
        corpus = load_corpus(DataConfig(path=path, modalities=("text",), split=SPLITS, **settings))
    return {u.id: u.speaker for utterances in corpus.splits.values() for u in utterances}


@pytest.mark.parametrize("form", ["pickle", "table", "store"])
def test_ids_tell_the_speakers_of_iemocap(form: str) -> None:
    path = written(form)
    found = speakers(path, video_from=VIDEO, speaker_from=SPEAKER)
    assert found == {i: i[-4] for i in IDS}
    assert set(speakers(path, video_from=VIDEO).values()) == {""}
    # One expression may tell all; a group that has no name is the first.
    both = r"^(?P<video>\w+)_(?P<speaker>[MF])(?P<clip>\d+)$"
    assert speakers(path, video_from=both, speaker_from=both) == found
    assert speakers(path, video_from=VIDEO, speaker_from=r"_([MF])\d+$") == found


@pytest.mark.parametrize("form", ["pickle", "table", "store"])
def test_the_column_speaker_is_kept_and_ids_go_before_it(form: str) -> None:
    path = written(form, speaker=[f"p{i % 3}" for i in range(len(IDS))])
    assert set(speakers(path, video_from=VIDEO).values()) == {"p0", "p1", "p2"}
    assert set(speakers(path, video_from=VIDEO, speaker_from="speaker").values()) == {"p0", "p1", "p2"}
    assert speakers(path, video_from=VIDEO, speaker_from=SPEAKER) == {i: i[-4] for i in IDS}


def test_another_key_of_a_pickle_and_names_that_some_lack() -> None:
    who = ["Ann", None, b"Bo", float("nan")] * (len(IDS) // 4)
    path = written("pickle", speaker=["wrong"] * len(IDS), who=who)
    found = speakers(path, video_from=VIDEO, speaker_from="who")
    assert [found[i] for i in IDS[:4]] == ["Ann", "", "Bo", ""]
    # An id of a narrator, say, has no speaker: the group may be empty.
    found = speakers(path, video_from=VIDEO, speaker_from=r"_(?:M|(?P<speaker>F))\d+$")
    assert [found[i] for i in IDS[:2]] == ["", "F"]


@pytest.mark.parametrize("form", ["pickle", "table", "store"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "scene",
            "has no key 'scene', which data.speaker_from names; name a key of the file, or a regular expression ",
        ),
        ("speakr", "(did you mean 'speaker'?)"),
        ("speaker", "no utterance has a speaker in 'speaker', which data.speaker_from names; name another key, or "),
        (r"x(?P<speaker>.)", "data.speaker_from 'x(?P<speaker>.)' does not match 24 of 24 ids, such as 'Ses01F_"),
        (r"(?P<speaker>M)\d+$", "does not match 12 of 24 ids, such as 'Ses01F_impro01_F000'"),
        (r"(?P<speaker>x?)", "does not match 24 of 24 ids"),
        (VIDEO, "has no group (?P<speaker>...); name one, as in '_(?P<speaker>[A-Z])[0-9]+$'"),
        ("(M", "data.speaker_from '(M' is no regular expression"),
    ],
)
def test_speakers_that_cannot_be_told(form: str, how: str, words: str) -> None:
    path = written(form, speaker=[""] * len(IDS))
    with pytest.raises(DataError) as caught:
        speakers(path, video_from=VIDEO, speaker_from=how)
    said = str(caught.value)
    assert words in said
    assert said.startswith(f"{path}: ")
    assert len(said) <= 400
    assert "\n" not in said


@pytest.mark.parametrize("pattern", [r"(?P<speaker>(a+)+)$", r"((?P<speaker>\w*)_)*x", r"\w*" * 4 + "x"])
def test_a_pattern_that_could_take_forever_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"'data\.speaker_from': .*repeats what repeats.*\(\?P<speaker>"):
        from_dict({"data": {"speaker_from": pattern}})
    long = ["v" * 201 + f"_M{i}" for i in range(4)]
    with pytest.raises(DataError, match=r"too long for a regular expression in data\.speaker_from"):
        speakers(written("pickle", long), speaker_from=SPEAKER)


@pytest.mark.parametrize("form", ["pickle", "store"])
def test_another_file_may_not_tell_its_speakers(form: str) -> None:
    path = written(form, [f"v{i // 2}$_${i}" for i in range(6)], speaker=["p1"] * 6)
    with collected() as notes:
        found = load_other(path, {"text": 2}, DataConfig(speaker_from=SPEAKER), TargetConfig(), require_labels=False)
    assert {u.speaker for u in found.utterances} == {"p1"}
    assert any(
        "does not match 6 of 6" in n and n.endswith("the key 'speaker' tells the speakers, if there is one")
        for n in notes
    )


def test_an_import_keeps_speakers_and_says_where_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", f"data.video_from={VIDEO}", "--set", f"data.speaker_from={SPEAKER}"]
    main(["import", written("pickle"), "--out", "store", *settings])
    assert "| Speakers | Utterances per video |" in capsys.readouterr().out
    assert speakers("store") == {i: i[-4] for i in IDS}
    with pytest.raises(DataError, match=r"data\.nan, data\.video_from and data\.speaker_from go with a pickle only"):
        open_source(Path(written("table")), data=DataConfig(speaker_from=SPEAKER))


def test_splits_by_speaker_use_the_speakers_of_the_ids() -> None:
    path = written("pickle", [f"d{i // 5}_{'ABCDEFGH'[i % 8]}{i}" for i in range(80)])
    data = DataConfig(
        path=path,
        modalities=("text",),
        video_from=r"(?P<video>d\d+)_",
        speaker_from=r"_(?P<speaker>[A-H])\d+$",
        split=SplitConfig(valid=0.2, test=0.2, by="speaker"),
    )
    with collected():
        splits = load_corpus(data).splits
    groups = [{u.speaker for u in utterances} for utterances in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 8
