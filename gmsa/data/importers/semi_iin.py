"""Imports Semi-IIN's layout: a folder per modality with an array per utterance, and tables of labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gmsa.data.importers.arrays import ArrayFile, check_relative, inside
from gmsa.data.importers.manifest import SPLIT_COLUMNS
from gmsa.data.importers.rows import Item, Source, source_of
from gmsa.data.importers.tables import Splits, Table, annotation_of, number, split_name
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.errors import DataError
from gmsa.system.files import sha256_of

FOLDERS = {"text": ("text",), "audio": ("audio",), "vision": ("visual", "vision", "video")}
_NAME = ("name", "id", "file", "video_id")
_LABEL = ("val", "label", "sentiment", "regression_label")
_CLIP = ("clip_id", "clip")
_TEXT = ("raw_text", "text", "sentence", "transcript")
_OF_SPLIT = re.compile(r"(train|valid|val|dev|test)(?![a-z])", re.IGNORECASE)


def read_semi_iin(folder: Path, splits: Splits | None = None) -> Source:
    """Reads ``text/``, ``audio/`` and ``visual/`` with ``NAME.npy`` each, and the CSV files of labels beside them.

    ``NAME`` may also be a folder of arrays, one per frame, in the order of the numbers in their names. Either there is
    a table per split, which its file name begins with (``train_emo2_mosi.csv``), or one for all, with a column
    ``split`` or ``mode``. The name is in the column ``name`` (or in ``video_id`` and ``clip_id``), the label in
    ``val`` or ``label``, empty where there is none. A name that ends in ``_NUMBER`` becomes ``video$_$clip``, so that
    clips of one video are known as such. An utterance without a file lacks that modality.

    Raises:
        DataError: a folder, table or array is missing or wrong, or goes through a link.
    """
    roots = {}
    for modality, names in FOLDERS.items():
        found = [name for name in names if os.path.lexists(folder / name)]
        if len(found) > 1:
            raise DataError(f"{folder}: has both '{found[0]}' and '{found[1]}'; leave one for {modality}")
        if found:
            roots[modality] = inside(folder, found[0], str(folder))
    if not roots:
        raise DataError(f"{folder}: has none of the folders text, audio, visual; name the folder that holds them")
    tables = [_Labels(Table.open(path), splits, folder, roots) for path in _tables(folder)]
    # Tables per split come in the order of the splits, whatever the order of the folder.
    order = {"train": 0, "valid": 1, "test": 2}
    tables.sort(key=lambda table: (order.get(table.split or "", 3), table.table.path.name))
    paths = [labels.table.path for labels in tables] + ([splits.path] if splits else [])
    files = [{"name": path.name, "sha256": sha256_of(path)} for path in paths]
    return source_of(
        lambda: (item for labels in tables for item in labels.items()),
        {"importer": "semi_iin", "files": files},
        str(folder),
    )


def _tables(folder: Path) -> list[Path]:
    found = sorted(name for name in os.listdir(folder) if name.lower().endswith(".csv"))
    if not found:
        raise DataError(f"{folder}: has no CSV of labels; put one beside the folders, with the columns name and val")
    return [inside(folder, name, str(folder)) for name in found]


class _Labels:
    """One table of labels: which column holds what."""

    def __init__(self, table: Table, splits: Splits | None, folder: Path, roots: dict[str, Path]) -> None:
        self.table, self.splits, self.folder, self.roots = table, splits, folder, roots
        self.name = table.column(_NAME, "the utterance's name")
        self.clip = table.find(_CLIP)
        self.label = table.column(_LABEL, "the sentiment, which may be empty")
        self.text, self.annotation = table.find(_TEXT), table.find(["annotation"])
        named = _OF_SPLIT.match(table.path.name)
        self.column = table.find(SPLIT_COLUMNS)
        self.split = split_name(named[1]) if named and not self.column else None
        if not (splits or self.column or self.split):
            raise DataError(
                f"{table.path}: does not say its split: name it train_..., valid_... or test_..., add a column "
                "'split', or give --splits"
            )

    def items(self) -> Iterator[Item]:
        """The rows, read anew."""
        for where, row in self.table.rows():
            video, clip = row[self.name], row[self.clip] if self.clip else ""
            check_relative(video, self.folder, where)
            check_relative(clip or "-", self.folder, where)
            names = [f"{video}_{clip}", f"{video}$_${clip}", f"{video}/{clip}"] if clip else [video]
            identity = f"{video}$_${clip}" if clip else re.sub(r"(?<=.)_(?=\d+$)", "$_$", video)
            files = {m: found for m, root in self.roots.items() if (found := self._files(root, names, where))}
            if not files:
                raise DataError(f"{where}: '{names[0]}' has no array in {', '.join(self.roots)}; add one, or drop it")
            split = split_name(row[self.column]) if self.column else self.split or ""
            split = self.splits.of(identity, where) if self.splits else split
            if not split:
                raise DataError(f"{where}: has no split; name train, valid, test or one of your own")
            yield Item(
                where,
                split,
                identity,
                number(row[self.label], where, "the label"),
                files,
                row[self.text] if self.text else "",
                annotation_of(row[self.annotation]) if self.annotation else NOT_ANNOTATED,
            )

    def _files(self, root: Path, names: Sequence[str], where: str) -> list[ArrayFile]:
        for relative in (f"{root.name}/{name}" for name in names):
            if os.path.lexists(self.folder / f"{relative}.npy"):
                return [ArrayFile(inside(self.folder, f"{relative}.npy", where), f"{relative}.npy")]
            if os.path.lexists(self.folder / relative) and (path := inside(self.folder, relative, where)).is_dir():
                found = sorted(os.listdir(path), key=_numbered)
                frames = [f"{relative}/{frame}" for frame in found if frame.endswith(".npy")]
                return [ArrayFile(inside(self.folder, frame, where), frame) for frame in frames]
        return []


def _numbered(name: str) -> list[tuple[int, str]]:
    """Sorts ``frame_2`` before ``frame_10``, and equal numbers by their writing."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
