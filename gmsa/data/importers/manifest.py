"""The importer ``manifest``: a CSV with one row per utterance and the path of each modality's features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gmsa.config import MODALITIES
from gmsa.data.importers.arrays import ArrayFile, resolve_inside
from gmsa.data.importers.rows import Item, Source, source_of
from gmsa.data.importers.tables import Splits, Table, about_files, annotation_of, number, split_name
from gmsa.data.store.writer import NOT_ANNOTATED
from gmsa.errors import DataError, short, shown

SPLIT_COLUMNS = ("split", "mode")


def import_manifest(path: Path, labels: str, splits: Splits | None = None) -> Source:
    """Imports a CSV with the columns ``id``, ``split``, ``label``, and ``text``, ``audio`` and ``vision`` (paths).

    Paths are relative to the folder of the CSV and name a ``.npy``, a ``.npz`` with one member, or
    ``FILE.npz#MEMBER``; an empty path means that the modality is missing, an empty label that the utterance is
    unlabeled. Optional columns: ``raw_text``, ``annotation``, ``label_text``, ``label_audio`` and ``label_vision``.
    Rows keep their order within each split.

    Args:
        path: the CSV.
        labels: label scale; not needed, since the store's writer checks the labels.
        splits: the user's assignment of utterances to splits; replaces the column ``split``.

    Raises:
        DataError: a row is invalid (with its number), or a path is absolute, leaves the folder or goes through a link.
    """
    table = Table.from_csv(path)
    columns = _Columns(table, splits)
    return source_of(columns.items, about_files("manifest", [path], splits), short(path))


class _Columns:
    """The columns of a manifest, by their meaning."""

    def __init__(self, table: Table, splits: Splits | None) -> None:
        self.table, self.splits, self.folder = table, splits, table.path.parent
        self.id = table.column(["id"], "the id of the utterance")
        self.split = None if splits else table.column(SPLIT_COLUMNS, "train, valid or test")
        self.label = table.column(["label"], "the label, which may be empty")
        self.text, self.annotation = table.find(["raw_text"]), table.find(["annotation"])
        found = {m: table.find([m]) for m in MODALITIES}
        self.modalities = {m: column for m, column in found.items() if column}
        if not self.modalities:
            raise DataError(f"{short(table.path)}: has none of the columns {', '.join(MODALITIES)}; add one with paths")
        columns = {m: table.find([f"label_{m}"]) for m in self.modalities}
        self.unimodal = {m: column for m, column in columns.items() if column}

    def items(self) -> Iterator[Item]:
        """Reads the rows again."""
        for where, row in self.table.rows():
            split = self.splits.of(row[self.id], where) if self.splits else split_name(row[self.split or ""])
            if not split:
                raise DataError(f"{where}: has no split; write train, valid, test or another name")
            own = {m: number(row[c], where, f"the label of {m}") for m, c in self.unimodal.items()}
            yield Item(
                where,
                split,
                row[self.id],
                number(row[self.label], where, "the label"),
                {m: [self._file(row[c], f"{where}: {m}")] for m, c in self.modalities.items() if row[c]},
                row[self.text] if self.text else "",
                annotation_of(row[self.annotation]) if self.annotation else NOT_ANNOTATED,
                {m: value for m, value in own.items() if value is not None},
            )

    def _file(self, name: str, where: str) -> ArrayFile:
        file, _, member = name.partition("#")
        path = resolve_inside(self.folder, file, where)
        if file.endswith(".npz"):
            return ArrayFile(path, name, member)
        if not file.endswith(".npy") or member:
            raise DataError(f"{where}: {shown(name)} is neither FILE.npy nor FILE.npz#MEMBER; use one of the two")
        return ArrayFile(path, name)
