"""What is to be extracted: the files of a folder, MMSA-FET's layout, or the rows of a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gmsa.config import TargetConfig
from gmsa.data.importers.manifest import (
    CLIP_COLUMNS,
    ID_COLUMNS,
    SPEAKER_COLUMNS,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
    target_column,
    target_of,
)
from gmsa.data.importers.tables import Table, annotation_of, number, split_name
from gmsa.data.notes import note
from gmsa.errors import DataError, listed, short, shown
from gmsa.media.clips import Clip
from gmsa.system.reading import exists, is_file, is_folder

VIDEOS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "3gp", "flv", "wmv", "asf")
SOUNDS = ("wav", "mp3", "m4a", "aac", "flac", "ogg", "opus")
ENDINGS = frozenset(f".{ending}" for ending in (*VIDEOS, *SOUNDS))
"""Endings of files that a folder is searched for; a table may name others."""
POOL = "pool"
"""Split of clips without one: no labels are asked of it."""
FILE_COLUMNS = ("file", "path", "video_path", "video_file", "video")
VIDEO_COLUMNS = ("video_id", "video", "dialogue_id")
START_COLUMNS, STOP_COLUMNS = ("start", "start_time", "begin"), ("end", "stop", "end_time")
LABELS, RAW = "label.csv", "Raw"
"""MMSA-FET's layout: a table, and ``Raw/video_id/clip_id.mp4``."""


class Asked(NamedTuple):
    """What the user asks for."""

    clips: list[Clip]
    absent: dict[str, str]
    """Why a row of the table has no clip, by id."""
    whole: frozenset[str]
    """Ids of clips that are whole files, which may be cut at pauses."""


def list_clips(videos: Path, labels: Path | None, target: TargetConfig) -> Asked:
    """The clips of a folder, or of a table of them, in a fixed order.

    Args:
        videos: a file, a folder that is searched downwards, or one in MMSA-FET's layout.
        labels: a table with the columns ``id``, or ``video_id`` and ``clip_id``; the file in ``video``, or found by the
            ids; and where there are any ``start`` and ``end`` in seconds, ``text``, ``label``, ``split``, ``speaker``,
            ``annotation``, ``label_T``, ``label_A`` and ``label_V`` (default: ``label.csv`` of MMSA-FET's layout).

    Raises:
        DataError: there is nothing, a link leads out of the folder, or a row of the table is wrong.
    """
    if not exists(videos, DataError):
        raise DataError(f"'{short(videos)}' does not exist; name a folder of videos, or a video")
    fet = videos / LABELS
    if (
        labels is None
        and is_folder(videos, DataError)
        and exists(fet, DataError)
        and is_folder(videos / RAW, DataError)
    ):
        labels = fet
    return _of_table(videos, labels, target) if labels is not None else _of_files(videos)


def _of_files(videos: Path) -> Asked:
    root, files, others = videos, [videos], 0
    if is_folder(videos, DataError):
        found = sorted(_files(videos), key=lambda path: path.relative_to(videos).parts)
        files = [path for path in found if path.suffix.lower() in ENDINGS]
        others = len(found) - len(files)
        if not files:
            raise DataError(f"'{short(videos)}' holds no videos or sound files ({_few_endings()}); name another folder")
        if others:
            note(f"{short(videos)}: not used: {others} files that are no video or sound by their ending")
    else:
        root = videos.parent
    names = [path.relative_to(root) for path in files]
    # A name with its ending may be another's without it: a.mp4 and a.mp4.mkv.
    counts = Counter(path for name in names for path in {name, name.with_suffix("")})
    stems = [stem if counts[stem := name.with_suffix("")] == 1 else name for name in names]
    clips = [Clip(f"{stem.as_posix()}$_$1", path) for stem, path in zip(stems, files, strict=True)]
    return Asked(clips, {}, frozenset(clip.id for clip in clips))


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, hidden ones left out.

    Raises:
        DataError: a link leads out of the folder, or a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"'{short(error.filename or folder)}' cannot be read; allow it, or move it elsewhere")

    root = os.path.realpath(folder)
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink() and not os.path.realpath(path).startswith(root + os.sep):
                raise DataError(
                    f"'{short(path)}' is a link that leads out of '{short(folder)}'; remove it, or copy the file"
                )
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _of_table(videos: Path, labels: Path, target: TargetConfig) -> Asked:
    table = Table.open(labels)
    columns = _Columns(table, target)
    clips, absent, whole, seen = [], {}, set(), set()
    for where, row in table.rows():
        identity = columns.identity(row)
        if not identity.strip("$_") or identity in seen:
            state = "no id" if not identity.strip("$_") else f"the id {shown(identity)}, which another row has"
            raise DataError(f"{where}: has {state}; give each row its own")
        seen.add(identity)
        start, stop = columns.times(row, where)
        path = columns.file(row, videos, where)
        if path is None:
            absent[identity] = f"{where}: there is no file {shown(columns.wanted(row))} below '{short(videos)}'"
            continue
        clip = Clip(
            identity,
            path,
            start or 0.0,
            stop,
            row[columns.text] if columns.text else None,
            (split_name(row[columns.split]) or POOL) if columns.split else POOL,
            target_of(row[columns.label], table.decimal_comma, target.is_classes) if columns.label else None,
            columns.unimodal_of(row, where),
            annotation_of(row[columns.annotation]) if columns.annotation else annotation_of(None),
            row[columns.speaker] if columns.speaker else "",
        )
        clips.append(clip)
        if start is None and stop is None and not columns.label and clip.text is None:
            whole.add(identity)
    if not clips and absent:
        raise DataError(f"{next(iter(absent.values()))}, nor of any other row; check the folder and the table")
    if not clips:
        raise DataError(f"{short(labels)}: has no rows; name a table of clips")
    splits = list(dict.fromkeys(clip.split for clip in clips))
    clips.sort(key=lambda clip: splits.index(clip.split))  # a store has its splits one after the other
    return Asked(clips, absent, frozenset(whole))


class _Columns:
    """The columns of a table of clips, by their meaning."""

    def __init__(self, table: Table, target: TargetConfig) -> None:
        self.where = short(table.path)
        self.decimal_comma = table.decimal_comma
        find = table.find
        self.id, self.clip = find(ID_COLUMNS), find(CLIP_COLUMNS)
        self.video = find(VIDEO_COLUMNS)
        self.path = next((c for c in FILE_COLUMNS if (_c := find([c]) or "") and c != self._as_id()), None)
        if not self.id and not (self.video and self.clip):
            self.id = table.column(ID_COLUMNS, "the id of the clip (or 'video_id' and 'clip_id')")
        self.start, self.stop = find(START_COLUMNS), find(STOP_COLUMNS)
        self.text, self.split = find((*TEXT_COLUMNS, "text")), find(SPLIT_COLUMNS)
        self.label, self.annotation = target_column(table.columns, target, self.where), find(["annotation"])
        self.speaker = find(SPEAKER_COLUMNS)
        named = {"text": "label_T", "audio": "label_A", "vision": "label_V"}
        unimodal = {m: find([f"label_{m}", short_name]) for m, short_name in named.items()}
        self.unimodal = {m: column for m, column in unimodal.items() if column}
        used = {self.id, self.clip, self.video, self.path, self.start, self.stop, self.text, self.split, self.label}
        used |= {self.annotation, self.speaker, *self.unimodal.values()}
        if unused := [shown(c) for c in table.columns if c and c not in used]:
            note(f"{self.where}: not used: {'column' if len(unused) == 1 else 'columns'} {listed(unused)}")

    def _as_id(self) -> str | None:
        """The column that names the video of a clip rather than its file: MMSA-FET's ``video_id``."""
        return self.video if self.clip and not self.id and self.video != "video" else None

    def identity(self, row: dict[str, str]) -> str:
        return row[self.id] if self.id else f"{row[self.video or '']}$_${row[self.clip or '']}"

    def times(self, row: dict[str, str], where: str) -> tuple[float | None, float | None]:
        start = number(row[self.start], where, "the start", self.decimal_comma) if self.start else None
        stop = number(row[self.stop], where, "the end", self.decimal_comma) if self.stop else None
        if (start or 0) < 0 or (stop is not None and stop <= (start or 0)):
            raise DataError(
                f"{where}: the clip ends at {stop} s, and starts at {start} s; give seconds, the start first"
            )
        return start, stop

    def unimodal_of(self, row: dict[str, str], where: str) -> dict[str, float]:
        """The labels of single modalities."""
        found = {m: number(row[column], where, column, self.decimal_comma) for m, column in self.unimodal.items()}
        return {modality: value for modality, value in found.items() if value is not None}

    def wanted(self, row: dict[str, str]) -> str:
        """The file that a row asks for, as its cells name it."""
        if self.path:
            return row[self.path]
        return f"{row[self.video]}/{row[self.clip]}" if self.video and self.clip else self.identity(row)

    def file(self, row: dict[str, str], videos: Path, where: str) -> Path | None:
        """The file of a row; None where it is not there.

        Raises:
            DataError: it lies outside the folder.
        """
        name = self.wanted(row).replace("\\", "/")
        root = videos if is_folder(videos, DataError) else videos.parent
        for folder in (root, root / RAW):
            whole = os.path.normpath(folder / name)
            if not _is_below(whole, root) or not _is_below(os.path.realpath(whole), Path(os.path.realpath(root))):
                raise DataError(f"{where}: {shown(name)} leads out of '{short(root)}'; name a file below it")
            if is_file(whole, DataError):
                return Path(whole)
            if not self.path or Path(name).suffix.lower() not in ENDINGS:
                for ending in sorted(ENDINGS):
                    if is_file(whole + ending, DataError):
                        return Path(whole + ending)
        return None


def _is_below(path: str, folder: Path) -> bool:
    return os.path.abspath(path).startswith(os.path.abspath(folder).rstrip(os.sep) + os.sep)


def _few_endings(endings: Sequence[str] = (".mp4", ".mkv", ".webm", ".avi", ".wav", ".m4a")) -> str:
    return f"{', '.join(endings)} and {len(ENDINGS) - len(endings)} more endings"
