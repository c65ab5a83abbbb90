"""What is asked for: files of folders, MMSA-FET's layout, and tables of clips."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from gmsa.config import TargetConfig
from gmsa.data.store.files import NOT_ANNOTATED
from gmsa.errors import DataError, DataWarning
from gmsa.media.jobs.listing import Asked, list_clips

INTENSITY = TargetConfig()


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> None:
    """Empty files: a listing opens none of them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def listed(videos: Path, table: str = "", target: TargetConfig = INTENSITY, name: str = "labels.csv") -> Asked:
    if not table:
        return list_clips(videos, None, target)
    (videos.parent / name).write_text(table)
    return list_clips(videos, videos.parent / name, target)


def refused(videos: Path, table: str = "", name: str = "labels.csv") -> str:
    with pytest.raises(DataError) as caught:
        listed(videos, table, name=name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_searched_downwards_in_a_fixed_order(videos: Path) -> None:
    put(videos, "b/z.mp4", "b/a.MKV", "a.wav", "c.mp4", ".hidden.mp4", ".git/x.mp4", "b/.tmp/y.mp4")
    found = listed(videos)
    assert [clip.id for clip in found.clips] == ["a$_$1", "b/a$_$1", "b/z$_$1", "c$_$1"]
    assert [clip.path for clip in found.clips] == [videos / name for name in ("a.wav", "b/a.MKV", "b/z.mp4", "c.mp4")]
    assert found.whole == {clip.id for clip in found.clips}
    assert {(clip.split, clip.text, clip.label) for clip in found.clips} == {("pool", None, None)}


def test_one_file_may_have_any_ending(videos: Path) -> None:
    put(videos, "talk.bin")
    assert [clip.id for clip in listed(videos / "talk.bin").clips] == ["talk$_$1"]


def test_files_of_the_same_stem_keep_their_endings(videos: Path) -> None:
    put(videos, "a.mp4", "a.wav", "b.mp4", "c/a.mp4")
    assert [clip.id for clip in listed(videos).clips] == ["a.mp4$_$1", "a.wav$_$1", "b$_$1", "c/a$_$1"]


def test_ids_are_unique_where_a_name_holds_an_ending(videos: Path) -> None:
    put(videos, "a.mp4", "a.wav", "a.mp4.mkv", "a.wav.mkv")
    ids = [clip.id for clip in listed(videos).clips]
    assert len({*ids}) == 4


def test_other_files_are_counted(videos: Path) -> None:
    put(videos, "a.mp4", "notes.txt", "a.srt")
    with pytest.warns(DataWarning, match="not used: 2 files"):
        listed(videos)


@pytest.mark.parametrize("names", [(), ("notes.txt",)])
def test_a_folder_without_videos_is_refused(videos: Path, names: tuple[str, ...]) -> None:
    put(videos, *names)
    assert "holds no videos" in refused(videos)


def test_what_does_not_exist_is_refused(videos: Path) -> None:
    assert "does not exist" in refused(videos / "absent")


@pytest.mark.parametrize("link", ["out.mp4", "sub/out"])
def test_links_that_lead_out_are_refused(videos: Path, link: str) -> None:
    put(videos, "a.mp4", "sub/b.mp4")
    put(videos.parent, "secret.mp4")
    os.symlink(videos.parent / "secret.mp4" if link.endswith("mp4") else videos.parent, videos / link)
    assert "is a link that leads out" in refused(videos)


def test_links_within_the_folder_are_followed_to_files(videos: Path) -> None:
    put(videos, "a/b.mp4")
    os.symlink("a/b.mp4", videos / "c.mp4")
    os.symlink("a", videos / "d")  # its files are listed where they lie
    assert [clip.id for clip in listed(videos).clips] == ["a/b$_$1", "c$_$1"]


def test_a_folder_of_a_name_that_begins_alike_is_outside(videos: Path) -> None:
    put(videos.parent, "videos2/a.mp4")
    put(videos, "b.mp4")
    os.symlink("../videos2/a.mp4", videos / "a.mp4")
    assert "leads out" in refused(videos)


def test_mmsa_fet_layout(videos: Path) -> None:
    put(videos, "Raw/v1/0001.mp4", "Raw/v1/0002.mp4", "Raw/v2/0001.mp4")
    (videos / "label.csv").write_text(
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        "v2,0001,it is good,1.0,0.5,,-0.25,Positive,train\n"
        "v1,0001,it is bad,-0.8,,,,Negative,test\n"
        "v1,0002,so so,0,,,,Neutral,train\n"
    )
    found = listed(videos)
    assert [clip.id for clip in found.clips] == ["v2$_$0001", "v1$_$0002", "v1$_$0001"]  # split by split
    assert [clip.path for clip in found.clips] == [
        videos / "Raw" / name for name in ("v2/0001.mp4", "v1/0002.mp4", "v1/0001.mp4")
    ]
    first = found.clips[0]
    assert (first.text, first.label, first.split, first.annotation) == ("it is good", 1.0, "train", 1)
    assert first.unimodal == {"text": 0.5, "vision": -0.25}
    assert [clip.annotation for clip in found.clips] == [1, 0, -1]
    assert found.whole == frozenset()


def test_a_table_cuts_long_videos(videos: Path) -> None:
    put(videos, "long.mkv")
    found = listed(
        videos, "id,video,start,end,speaker\ntalk$_$1,long.mkv,0,4.5,Ann\ntalk$_$2,long,4.5,9,Bob\ntalk$_$3,long,9,,\n"
    )
    assert [(clip.start, clip.stop, clip.speaker) for clip in found.clips] == [
        (0.0, 4.5, "Ann"),
        (4.5, 9.0, "Bob"),
        (9.0, None, ""),
    ]
    assert {clip.path for clip in found.clips} == {videos / "long.mkv"}
    assert found.whole == frozenset()
    assert {clip.annotation for clip in found.clips} == {NOT_ANNOTATED}


def test_a_table_without_times_texts_and_labels_names_whole_files(videos: Path) -> None:
    put(videos, "a.mp4", "b.mp4")
    assert listed(videos, "id\na\nb\n").whole == {"a", "b"}


def test_splits_have_their_usual_names_and_none_is_the_pool(videos: Path) -> None:
    put(videos, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    found = listed(videos, "id,split,label\na,dev,1\nb,,\nc,training,2\nd,mine,0\n")
    assert [(clip.id, clip.split, clip.label) for clip in found.clips] == [
        ("a", "valid", 1.0),
        ("b", "pool", None),
        ("c", "train", 2.0),
        ("d", "mine", 0.0),
    ]


def test_semicolons_bring_decimal_commas(videos: Path) -> None:
    put(videos, "a.mp4")
    (clip,) = listed(videos, "id;start;end;label;label_T\na;0,5;2,25;-1,5;0,25\n").clips
    assert (clip.start, clip.stop, clip.label, clip.unimodal) == (0.5, 2.25, -1.5, {"text": 0.25})


def test_labels_may_be_words_for_classes(videos: Path) -> None:
    put(videos, "a.mp4", "b.mp4")
    found = listed(videos, "id,label\na,joy\nb,anger\n", TargetConfig(kind="classes"))
    assert [clip.label for clip in found.clips] == ["joy", "anger"]


def test_rows_without_a_file_are_told(videos: Path) -> None:
    put(videos, "a.mp4")
    found = listed(videos, "id,video\na,a.mp4\nb,gone.mp4\n")
    assert [clip.id for clip in found.clips] == ["a"]
    assert list(found.absent) == ["b"]
    assert "'gone.mp4'" in found.absent["b"]
    assert "labels.csv: row 3: " in found.absent["b"]


def test_a_table_of_which_no_file_is_there_is_refused(videos: Path) -> None:
    put(videos, "a.mp4")
    assert "nor of any other row" in refused(videos, "id\nb\nc\n")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("id\n", "has no rows"),
        ("id\na\na\n", "'a', which another row has"),
        ("video_id,clip_id\n,\n", "no id"),
        ("weather,label\nfine,1\n", "the id of the clip"),
        ("id,start,end\na,3,2\n", "ends at 2.0 s"),
        ("id,start,end\na,-1,2\n", "starts at -1.0 s"),
        ("id,start,end\na,1,1\n", "ends at 1.0 s"),
        ("id,start,end\na,soon,2\n", "the start is 'soon'"),
        ("id,video\na,../secret.mp4\n", "leads out of"),
        ("id,video\na,sub/../../secret.mp4\n", "leads out of"),
        ("id,video\na,..\\\\secret.mp4\n", "leads out of"),
        ("id,video\na,/etc/passwd\n", "leads out of"),
        ("id\n../secret\n", "leads out of"),
        ("id,video\na,link.mp4\n", "leads out of"),
    ],
)
def test_wrong_tables_are_refused(videos: Path, table: str, said: str) -> None:
    put(videos, "a.mp4")
    put(videos.parent, "secret.mp4")
    os.symlink(videos.parent / "secret.mp4", videos / "link.mp4")
    found = refused(videos, table)
    assert said in found
    assert "labels.csv" in found


def test_unused_columns_are_told(videos: Path) -> None:
    put(videos, "a.mp4")
    with pytest.warns(DataWarning, match="not used: columns 'weather', 'mood'"):
        listed(videos, "id,weather,mood\na,fine,good\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listed(videos, "id,video,start,end,text,label,split,speaker,annotation,label_T\na,a.mp4,0,1,hi,1,train,A,,1\n")


def test_a_link_of_the_folder_itself_is_no_way_out(videos: Path) -> None:
    put(videos, "a.mp4")
    os.symlink(videos, videos.parent / "shortcut")
    assert [clip.id for clip in listed(videos.parent / "shortcut").clips] == ["a$_$1"]
    (videos.parent / "t.csv").write_text("id\na\n")
    found = list_clips(videos.parent / "shortcut", videos.parent / "t.csv", INTENSITY)
    assert [clip.id for clip in found.clips] == ["a"]
