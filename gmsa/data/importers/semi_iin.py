"""The importer ``semi_iin``: one folder per modality with one array per utterance, and CSV files of labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gmsa.config import TargetConfig
from gmsa.data.importers.arrays import ArrayFile, check_relative, resolve_inside
from gmsa.data.importers.manifest import SPLIT_COLUMNS, target_column, target_of
from gmsa.data.importers.rows import Item, Source, source_of
from gmsa.data.importers.tables import Splits, Table, about_files, annotation_of, split_name
from gmsa.data.opening import lies_at
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.errors import DataError, short, shown
from gmsa.system.reading import entries, is_folder

FOLDERS = {"text": ("text",), "audio": ("audio",), "vision": ("visual", "vision", "video")}
_NAME = ("name", "id", "file", "video_id")
_CLIP = ("clip_id", "clip")
_TEXT = ("raw_text", "text", "sentence", "transcript")
_OF_SPLIT = re.compile(r"(train|valid|val|dev|test)(?![a-z])", re.IGNORECASE)


def import_semi_iin(folder: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports the folders ``text/``, ``audio/``, ``visual/`` and others of ``NAME.npy`` files, and the CSV files there.

    ``NAME`` may also be a folder of arrays, one per frame, ordered by the numbers in their names. Labels come from one
    CSV per split, whose file name begins with the split (``train_emo2_mosi.csv``), or from one CSV for all splits with
    a column ``split`` or ``mode``. The name is in the column ``name`` (or in ``video_id`` and ``clip_id``), the label
    in ``val``, ``label`` or the column of ``target.field`` (empty if unlabeled, as where there is no such column). A
    name that ends in ``_NUMBER`` becomes ``video$_$clip``, so that clips of one video are recognized. A modality is
    missing for an utterance without a file in its folder.

    Args:
        folder: the folder that holds the modalities' folders and the CSV files.
        target: the group ``target`` of a config, whose ``field`` is the column of the labels.
        splits: the user's assignment of utterances to splits; replaces the splits of the CSV files.

    Raises:
        DataError: a folder, table or array is missing or invalid, or goes through a link.
    """
    roots = {}
    for modality, names in FOLDERS.items():
        found = [name for name in names if lies_at(folder / name)]
        if len(found) > 1:
            raise DataError(f"{short(folder)}: has both '{found[0]}' and '{found[1]}'; keep one of them for {modality}")
        if found:
            roots[modality] = resolve_inside(folder, found[0], short(folder))
    if not roots:
        raise DataError(
            f"{short(folder)}: has none of the folders text, audio, visual; choose the folder that holds them"
        )
    taken = {root.name for root in roots.values()}
    others = [path for path in entries(folder, DataError) if path.name not in taken and _holds_arrays(path)]
    for path in others:  # each a modality of its own
        roots[path.name.lower()] = resolve_inside(folder, path.name, short(folder))
    tables = [_Labels(Table.from_csv(path), splits, folder, roots, target) for path in _tables(folder)]
    # One table per split: sort by split, whatever the order of the files.
    order = {"train": 0, "valid": 1, "test": 2}
    tables.sort(key=lambda table: (order.get(table.split or "", 3), table.table.path.name))
    about = about_files("semi_iin", [labels.table.path for labels in tables], splits)
    return source_of(lambda: (item for labels in tables for item in labels.items()), about, short(folder))


def _tables(folder: Path) -> list[Path]:
    found = [path.name for path in entries(folder, DataError) if path.name.lower().endswith(".csv")]
    if not found:
        raise DataError(
            f"{short(folder)}: has no CSV of labels; add one beside the folders, with the columns name and val"
        )
    return [resolve_inside(folder, name, short(folder)) for name in found]


def _holds_arrays(path: Path) -> bool:
    if path.is_symlink() or not is_folder(path, DataError):
        return False
    return any(file.suffix == ".npy" for file in entries(path, DataError))


class _Labels:
    """A table of labels and its columns, by their meaning."""

    def __init__(
        self, table: Table, splits: Splits | None, folder: Path, roots: dict[str, Path], target: TargetConfig
    ) -> None:
        self.table, self.splits, self.folder, self.roots = table, splits, folder, roots
        self.classes = target.is_classes
        self.name = table.column(_NAME, "the name of the utterance")
        self.clip = table.find(_CLIP)
        self.label = target_column(table.columns, target, short(table.path))
        self.text, self.annotation = table.find(_TEXT), table.find(["annotation"])
        named = _OF_SPLIT.match(table.path.name)
        self.column = table.find(SPLIT_COLUMNS)
        self.split = split_name(named[1]) if named and not self.column else None
        if not (splits or self.column or self.split):
            raise DataError(
                f"{short(table.path)}: names no split; rename it to train_..., valid_... or test_..., add a column "
                "'split', or pass --splits"
            )

    def items(self) -> Iterator[Item]:
        """Reads the rows again."""
        for where, row in self.table.rows():
            video, clip = row[self.name], row[self.clip] if self.clip else ""
            check_relative(video, self.folder, where)
            check_relative(clip or "-", self.folder, where)
            names = [f"{video}_{clip}", f"{video}$_${clip}", f"{video}/{clip}"] if clip else [video]
            identity = f"{video}$_${clip}" if clip else re.sub(r"(?<=.)_(?=\d+$)", "$_$", video)
            files = {m: found for m, root in self.roots.items() if (found := self._files(root, names, where))}
            if not files:
                folders = ", ".join(self.roots)
                raise DataError(f"{where}: {shown(names[0])} has no array in {folders}; add it, or remove the row")
            split = split_name(row[self.column]) if self.column else self.split or ""
            split = self.splits.of(identity, where) if self.splits else split
            if not split:
                raise DataError(f"{where}: has no split; write train, valid, test or another name")
            yield Item(
                where,
                split,
                identity,
                target_of(row[self.label], self.table.decimal_comma, self.classes) if self.label else None,
                files,
                row[self.text] if self.text else "",
                annotation_of(row[self.annotation]) if self.annotation else NOT_ANNOTATED,
            )

    def _files(self, root: Path, names: Sequence[str], where: str) -> list[ArrayFile]:
        for relative in (f"{root.name}/{name}" for name in names):
            if lies_at(self.folder / f"{relative}.npy"):
                return [ArrayFile(resolve_inside(self.folder, f"{relative}.npy", where), f"{relative}.npy")]
            path = self.folder / relative
            if lies_at(path) and is_folder(resolve_inside(self.folder, relative, where), DataError):
                found = sorted((frame.name for frame in entries(path, DataError)), key=_numbered)
                frames = [f"{relative}/{frame}" for frame in found if frame.endswith(".npy")]
                return [ArrayFile(resolve_inside(self.folder, frame, where), frame) for frame in frames]
        return []


def _numbered(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``frame_2`` before ``frame_10``; equal numbers are sorted as text."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
