"""The importer ``manifest``: a table with one row per utterance and the path of each modality's features."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gmsa.config import TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.data.importers.arrays import ArrayFile, resolve_inside
from gmsa.data.importers.rows import Item, Source, modality_names, source_of
from gmsa.data.importers.tables import Splits, Table, about_files, annotation_of, as_number, number, split_name
from gmsa.data.labels import NO_CLASS, NO_NUMBER, NoSuchField
from gmsa.data.notes import note
from gmsa.data.splits import UNSPLIT
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.data.texts import hint
from gmsa.errors import DataError, listed, short, shown

ID_COLUMNS = ("id", "utterance_id", "utt_id", "segment_id", "segment", "name")
VIDEO_COLUMNS = ("video", "video_id", "dialogue", "dialogue_id")
CLIP_COLUMNS = ("clip", "clip_id", "utterance")
SPLIT_COLUMNS = ("split", "mode")
LABEL_COLUMNS = (
    *("label", "labels", "regression_labels", "regression_label", "sentiment", "score", "intensity", "val", "valence"),
    "target",
)
CLASS_COLUMNS = ("emotion", "emotions", "classification_labels", "class", "category")
TEXT_COLUMNS = ("raw_text", "transcript", "sentence", "utterance_text")
SPEAKER_COLUMNS = ("speaker", "speaker_id")

_ARRAY = re.compile(r"\.np[yz](#.*)?\Z", re.IGNORECASE | re.DOTALL)


def import_manifest(path: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports a table of utterances: CSV, TSV, or JSON (a list of objects, or one object per line).

    Columns are found by their usual names, ignoring case, and may be separated by ``,``, ``;`` or tabs:

    - ``id``, or ``video_id`` and ``clip_id``: required;
    - ``split``: without it, all utterances are in one split, ``all``;
    - the target, by default the first of ``label``, ``sentiment``, ``score``, ``emotion`` and the like: a number, with
      a decimal comma where commas do not separate, or a word; empty if the utterance is unlabeled;
    - every column of paths of ``.npy``, of ``.npz`` with one member, or of ``FILE.npz#MEMBER``: a modality of the
      column's name; empty where it is missing. Paths lie under the folder of the table and may use backslashes, ``~``
      and ``$VARS``;
    - ``raw_text`` (or ``text``, if it holds no paths), ``speaker``, ``video``, ``fold``, ``annotation``, and
      ``label_text`` and so on (the label of one modality; MMSA's ``label_T``, too).

    Rows keep their order within each split. A number in ``clip_id`` is the place of an utterance in its video, where
    its ``id`` has none.

    Args:
        path: the table.
        target: the group ``target`` of a config, whose ``field`` is the column of the labels.
        splits: the user's assignment of utterances to splits; replaces the column ``split``.

    Raises:
        DataError: a row is invalid (with its number), or a path leaves the folder or goes through a link.
    """
    table = Table.open(path)
    columns = _Columns(table, splits, target)
    source = source_of(columns.items, about_files("manifest", [path], splits), short(path))
    source.lacks = columns.lacks or source.lacks
    return source


class _Columns:
    """The columns of a manifest, by their meaning."""

    def __init__(self, table: Table, splits: Splits | None, target: TargetConfig) -> None:
        self.table, self.splits, self.folder = table, splits, table.path.parent
        self.classes = target.is_classes
        found = _columns_of_paths(table)
        self.video, self.clip = table.find(VIDEO_COLUMNS), table.find(CLIP_COLUMNS)
        self.id = table.find(ID_COLUMNS)
        if not self.id and not (self.video and self.clip):
            self.id = table.column(ID_COLUMNS, "the id of the utterance")
        self.split = None if splits else table.find(SPLIT_COLUMNS)
        self.label = target_column(table.columns, target, short(table.path))
        self.text = next((c for c in (table.find(TEXT_COLUMNS), table.find(["text"])) if c and c not in found), None)
        self.annotation = table.find(["annotation"])
        self.speaker, self.fold = table.find(SPEAKER_COLUMNS), table.find(["fold"])
        named = {self.id, self.split, self.label, self.annotation, self.speaker, self.fold}
        columns = [column for column in found if column not in named]
        self.modalities = {m: column for column, m in modality_names(columns, short(table.path)).items()}
        self.lacks = ""
        if not self.modalities:
            self.lacks = (
                f"{short(table.path)}: no column holds paths of .npy or .npz files (its columns: "
                f"{listed(table.columns)}); add one per modality, such as text, audio, vision"
                + "; or set model.text_encoder, which reads the transcripts"
                * (self.text is not None)
            )
        initials = [m[0] for m in self.modalities]
        unimodal = {
            m: table.find([f"label_{m}", *([f"label_{m[0]}"] if initials.count(m[0]) == 1 else [])])
            for m in self.modalities
        }
        self.unimodal = {m: column for m, column in unimodal.items() if column}
        named |= {self.video, self.clip, self.text, *self.modalities.values(), *self.unimodal.values()}
        if unused := [shown(column) for column in table.columns if column and column not in named]:
            what = "column is" if len(unused) == 1 else "columns are"
            remedy = "target.field names that of the labels"
            note(f"{short(table.path)}: {len(unused)} {what} not used: {listed(unused)} ({remedy})")

    def items(self) -> Iterator[Item]:
        """Reads the rows again."""
        comma = self.table.decimal_comma
        for where, row in self.table.rows():
            identity = row[self.id] if self.id else f"{row[self.video or '']}$_${row[self.clip or '']}"
            video = row[self.video] if self.video else ""
            split = self.splits.of(identity, where, video) if self.splits else UNSPLIT
            split = split_name(row[self.split]) if self.split else split
            if not split:
                raise DataError(f"{where}: has no split; write train, valid, test or another name")
            own = {m: number(row[c], where, f"the label of {m}", comma) for m, c in self.unimodal.items()}
            yield Item(
                where,
                split,
                identity,
                target_of(row[self.label], comma, self.classes) if self.label else None,
                {m: [self._file(row[c], f"{where}: {m}")] for m, c in self.modalities.items() if row[c]},
                row[self.text] if self.text else "",
                annotation_of(row[self.annotation]) if self.annotation else NOT_ANNOTATED,
                {m: value for m, value in own.items() if value is not None},
                row[self.speaker] if self.speaker else "",
                video,
                row[self.fold] if self.fold else "",
                row[self.clip] if self.clip else "",
            )

    def _file(self, name: str, where: str) -> ArrayFile:
        file, _, member = name.partition("#")
        if not _ARRAY.search(file) or (member and not file.lower().endswith(".npz")):
            raise DataError(f"{where}: {shown(name)} is neither FILE.npy nor FILE.npz#MEMBER; use one of the two")
        path = resolve_inside(self.folder, _relative(file, self.folder, where), where, file)
        return ArrayFile(path, name, member if file.lower().endswith(".npz") else None)


def target_column(columns: Sequence[str], target: TargetConfig, where: str) -> str | None:
    """Returns the column of the target: ``target.field``, else the first of its usual names, if there is one.

    Names are compared without their case. A data set's own field (``target.preset``) may be absent.

    Raises:
        NoSuchField: there is no column ``target.field``.
    """
    known = {column.lower(): column for column in reversed(columns)}
    wanted = target.chosen_field
    if wanted != AUTO and (found := known.get(wanted.lower())):
        return found
    if target.field != AUTO:
        near = hint(wanted, columns)
        raise NoSuchField(
            f"{where}: has no column {shown(wanted)}{near}, which target.field names (its columns: {listed(columns)})"
        )
    usual = (*CLASS_COLUMNS, *LABEL_COLUMNS) if target.is_classes else (*LABEL_COLUMNS, *CLASS_COLUMNS)
    return next((known[name] for name in usual if name in known), None)


def target_of(text: str, decimal_comma: bool = False, classes: bool = False) -> float | str | None:
    """Returns a number, a word (the name of a class), or None where there is no target.

    That is an empty cell or ``nan``, and for an intensity also ``none``, ``null`` and the like, which name classes.
    """
    value = as_number(text, decimal_comma)
    return value if value is not None else None if text.lower() in (NO_CLASS if classes else NO_NUMBER) else text


def _columns_of_paths(table: Table) -> list[str]:
    """The columns whose first value is the path of an array."""
    found: Mapping[str, bool] = {}
    for _, row in table.rows():
        found = {**{c: bool(_ARRAY.search(value)) for c, value in row.items() if value}, **found}
        if len(found) == len(table.columns):
            break
    return [column for column in table.columns if found.get(column)]


def _relative(name: str, folder: Path, where: str) -> str:
    """A path as it is written under the table's folder: with slashes, and ``~`` and ``$VARS`` expanded."""
    whole = os.path.expandvars(os.path.expanduser(name))
    if whole == name:
        return name.replace("\\", "/")
    if not os.path.isabs(whole):
        return whole.replace("\\", "/")
    root = os.path.abspath(folder)
    if not os.path.abspath(whole).startswith(root + os.sep):
        raise DataError(f"{where}: path {shown(name)} may leave the folder; use a path under '{short(folder)}'")
    return os.path.relpath(whole, root)
