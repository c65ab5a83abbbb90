"""The importer ``datasets``: a folder that Hugging Face's ``save_to_disk`` wrote, or Parquet files.

Arrow's own library reads the columns: nothing of the data set's code, and nothing from the network.
"""

# L steps, D features
from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmsa.config import TargetConfig
from gmsa.config.groups.target import AUTO
from gmsa.data.importers.arrays import DENSEST, resolve_inside
from gmsa.data.importers.manifest import (
    CLIP_COLUMNS,
    ID_COLUMNS,
    SPEAKER_COLUMNS,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
    VIDEO_COLUMNS,
    target_column,
)
from gmsa.data.importers.rows import Label, Source, modality_names, row_of
from gmsa.data.importers.surveyed import ArrayItem, survey
from gmsa.data.importers.tables import MOST_COLUMNS, Splits, about_files, split_name
from gmsa.data.notes import note
from gmsa.data.opening import lies_at, open_data
from gmsa.data.splits import UNSPLIT
from gmsa.data.store.files import LARGEST, MOST_FEATURES
from gmsa.data.store.writer import Row
from gmsa.data.texts import check_count
from gmsa.errors import DataError, cut, listed, short, shown
from gmsa.system.reading import entries, is_folder, read_json

STATE, PARTS = "state.json", "dataset_dict.json"
PARQUET = ".parquet"

_INSTALL = "reading Arrow and Parquet files needs pyarrow; install it: pip install pyarrow (or datasets)"
_OF_SPLIT = re.compile(r"([A-Za-z]+)(?:-\d+-of-\d+.*)?\.parquet")
_SLACK = 1 << 28
_LONGEST_CELL = 1 << 20
"""Bytes of a text, at most."""
_BROKEN = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError)
"""What reading a damaged file raises."""
_MOST_ROWS = 10_000_000
_AT_ONCE = 256
"""Rows that are read at once: of a Parquet file all their columns, else their texts."""


def import_datasets(path: Path, target: TargetConfig, splits: Splits | None = None) -> Source:
    """Imports a ``Dataset`` or ``DatasetDict`` that was saved to disk, a Parquet file, or a folder of them.

    Columns have the names that tables have (see :func:`~gmsa.data.importers.manifest.import_manifest`), and every
    column of nested lists of numbers ``[L, D]`` (also ``[1, L, D]``, or ``[D]`` of one step) is a modality. Numbers of
    a ``ClassLabel`` become the names of the classes. Splits are those of the ``DatasetDict``, or of the files' names
    (``train-00000-of-00001.parquet``), or of a column ``split``.

    Args:
        path: the folder or the Parquet file.
        target: the group ``target`` of a config, whose ``field`` is the column of the labels.
        splits: the user's assignment of utterances to splits; replaces those of the source.

    Raises:
        DataError: pyarrow is not installed, or a file is missing, unsafe or invalid.
    """
    files = _files(path)
    tables = [_Table(file, split, target) for split, file in files]
    found = survey((item for table in tables for item in table.items(splits)), short(path))
    lacks = ""
    if not found.dtypes:
        known = listed(dict.fromkeys(name for table in tables for name in table.columns))
        lacks = (
            f"{short(path)}: no utterance has features; expected columns of lists [L, D] such as text, audio, vision "
            f"(its columns: {known})"
        )
    about = about_files("datasets", [file for _, file in files], splits)
    rows = _rows(tables, splits, list(found.counts), found.dims)
    return Source(rows, sum(found.counts.values()), found.dtypes, about, lacks=lacks)


def is_saved(folder: Path) -> bool:
    """Whether a folder holds what ``save_to_disk`` or ``to_parquet`` wrote."""
    if lies_at(folder / PARTS) or (lies_at(folder / STATE) and lies_at(folder / "dataset_info.json")):
        return True
    return any(file.suffix == PARQUET for file in _parquet_folder(folder))


def _parquet_folder(folder: Path) -> list[Path]:
    found = [file for file in entries(folder, DataError) if file.suffix == PARQUET]
    if not found and lies_at(folder / "data") and is_folder(resolve_inside(folder, "data", short(folder)), DataError):
        found = [file for file in entries(folder / "data", DataError) if file.suffix == PARQUET]
    return found


def _files(path: Path) -> list[tuple[str, Path]]:
    """The files of a source, in order, each with its split."""
    if not is_folder(path, DataError):
        return [(UNSPLIT, path)]
    if lies_at(path / PARTS):
        parts = read_json(path / PARTS, inside=path, kind=DataError)
        names: Any = parts.get("splits") if isinstance(parts, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{short(path / PARTS)}: names no splits; save the data set again with save_to_disk")
        check_count(names, short(path))
        folders = [(name, resolve_inside(path, name, short(path))) for name in names]
        return [(split_name(name), file) for name, folder in folders for file in _arrow_files(folder)]
    if lies_at(path / STATE):
        return [(UNSPLIT, file) for file in _arrow_files(path)]
    found = sorted(_parquet_folder(path))
    if not found:
        raise DataError(
            f"{short(path)}: holds neither {PARTS}, {STATE} nor .parquet files; name what save_to_disk wrote"
        )
    matches = [(_OF_SPLIT.fullmatch(file.name), resolve_inside(file.parent, file.name, short(path))) for file in found]
    return [(split_name(match[1]) if match else UNSPLIT, file) for match, file in matches]


def _arrow_files(folder: Path) -> list[Path]:
    state = read_json(folder / STATE, inside=folder, kind=DataError)
    data = state.get("_data_files") if isinstance(state, dict) else None
    files = data if isinstance(data, list) else []
    names = [str(file["filename"]) for file in files if isinstance(file, dict) and "filename" in file]
    if not names:
        raise DataError(f"{short(folder / STATE)}: names no data files; save the data set again with save_to_disk")
    if state.get("_indices_data_files"):
        raise DataError(f"{short(folder)}: is a selection; call flatten_indices() before save_to_disk")
    return [resolve_inside(folder, name, short(folder)) for name in names]


class _Table:
    """One Arrow or Parquet file."""

    def __init__(self, path: Path, split: str, target: TargetConfig) -> None:
        self.path, self.where, self.name = path, short(path), split
        self.arrow = _pyarrow(self.where)
        with self._guarded():
            schema = self._schema()
        self.columns: list[str] = list(schema.names)
        if len(self.columns) > MOST_COLUMNS:
            raise DataError(f"{self.where}: has {len(self.columns):,} columns; at most {MOST_COLUMNS:,} are read")
        if len(set(self.columns)) != len(self.columns):
            raise DataError(f"{self.where}: has two columns of one name ({listed(self.columns)}); rename one")
        self.classes = _classes(schema)
        depths = {name: _depth(self.arrow, schema.field(name).type) for name in self.columns}
        self.modalities = {name: depth for name, depth in depths.items() if depth}
        self.id = self._find(ID_COLUMNS)
        self.video, self.clip = self._find(VIDEO_COLUMNS), self._find(CLIP_COLUMNS)
        self.split, self.text = self._find(SPLIT_COLUMNS), self._find((*TEXT_COLUMNS, "text"))
        self.speaker, self.fold = self._find(SPEAKER_COLUMNS), self._find(("fold",))
        columns = self.columns if target.field != AUTO else [c for c in self.columns if c not in self.modalities]
        self.label = target_column(columns, target, self.where)
        self.used = [c for c in (self.id, self.video, self.clip, self.split, self.text, self.speaker, self.fold) if c]
        self.used += [self.label] if self.label and self.label not in self.used else []
        if self.label in self.modalities:
            raise DataError(f"{self.where}: column {shown(self.label)} holds lists; expected one label per row")
        if nested := [c for c in self.used if self.arrow.types.is_nested(schema.field(c).type)]:
            raise DataError(f"{self.where}: column {shown(nested[0])} is nested; expected one text or number per row")
        self.modality = modality_names(self.modalities, self.where)
        unused = [name for name in self.columns if name not in (*self.used, *self.modalities)]
        if unused:
            note(f"{self.where}: the columns {listed(unused)} are not used")

    def _find(self, names: Sequence[str]) -> str | None:
        known = {c.lower(): c for c in reversed(self.columns) if c not in getattr(self, "modalities", ())}
        return next((known[name] for name in names if name in known), None)

    def _guarded(self) -> _Guard:
        return _Guard(self.where, self.arrow)

    def _schema(self) -> Any:
        open_data(self.path, follow=False).close()
        if self._is_parquet():
            with self._parquet() as file:
                return file.schema_arrow
        with self.arrow.memory_map(str(self.path)) as raw:
            return self.arrow.ipc.open_stream(raw).schema

    def _is_parquet(self) -> bool:
        with open_data(self.path, follow=False) as raw:
            return raw.read(4) == b"PAR1"

    def _parquet(self) -> Any:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(str(self.path))
        size, groups = self.path.stat().st_size, range(file.metadata.num_row_groups)
        most = DENSEST * size + _SLACK
        for group in map(file.metadata.row_group, groups):
            values = sum(group.column(k).num_values for k in range(group.num_columns))
            most -= max(group.total_byte_size, 4 * values)  # its bytes are encoded: a long run of one value has few
            if most < 0:
                raise DataError(f"{self.where}: grows to far more than its {size:,} bytes; save it again")
        return file

    def batches(self) -> Iterator[Any]:
        """Yields the record batches of the columns that are used."""
        names = [*self.used, *self.modalities]
        if self._is_parquet():
            with self._parquet() as file:
                yield from file.iter_batches(batch_size=_AT_ONCE, columns=names)
            return
        with self.arrow.memory_map(str(self.path)) as raw:
            for message in self.arrow.ipc.MessageReader.open_stream(raw):
                if _is_compressed(message.metadata.to_pybytes()):
                    raise DataError(f"{self.where}: is a compressed Arrow file; save it with save_to_disk")
            raw.seek(0)
            for batch in self.arrow.ipc.open_stream(raw):
                yield batch.select(names)

    def items(self, splits: Splits | None) -> Iterator[ArrayItem]:
        """Reads the rows again."""
        number = 0
        with self._guarded():
            for batch in self.batches():
                if number + batch.num_rows > _MOST_ROWS:
                    raise DataError(f"{self.where}: has over {_MOST_ROWS:,} rows; save it in several parts")
                batch.validate(full=True)
                lists = {name: _storage(batch.column(name)) for name in self.modalities}
                texts = {name: _storage(batch.column(name)) for name in self.used}
                for row in range(batch.num_rows):
                    number += 1
                    cells = {
                        n: _cell(column[row], f"{self.where}: row {number}: {shown(n)}") for n, column in texts.items()
                    }
                    yield self._item(cells, lists, row, number, splits)

    def _item(
        self, cells: Mapping[str, Any], lists: Mapping[str, Any], row: int, number: int, splits: Splits | None
    ) -> ArrayItem:
        where = f"{self.where}: row {number}"
        text: Callable[[str | None], str] = lambda c: "" if c is None or cells[c] is None else str(cells[c])  # noqa: E731
        identity = text(self.id)
        if not self.id:
            identity = (
                f"{text(self.video)}$_${text(self.clip)}" if self.video and self.clip else f"{self.name}{number - 1}"
            )
        split = split_name(text(self.split)) if self.split else self.name
        split = splits.of(identity, where, text(self.video)) if splits else split
        arrays = {self.modality[c]: _steps(column, row, f"{where}: {shown(c)}") for c, column in lists.items()}
        return ArrayItem(
            where,
            split or UNSPLIT,
            identity,
            self._label(cells[self.label], where) if self.label else None,
            {},
            text(self.text),
            speaker=text(self.speaker),
            video=text(self.video),
            fold=text(self.fold),
            clip=text(self.clip),
            arrays=arrays,
        )

    def _label(self, value: Any, where: str) -> Label:
        names = self.classes.get(self.label or "")
        if names is not None and isinstance(value, int):
            if value >= len(names):
                raise DataError(f"{where}: the label is class {value}, but there are {len(names)} ({listed(names)})")
            return names[value] if value >= 0 else None
        if isinstance(value, (bool, int, float)):
            return float(value) if value == value else None
        return None if value is None or value == "" else str(value)


class _Guard:
    """Turns the errors of Arrow into one line."""

    def __init__(self, where: str, arrow: Any) -> None:
        self.where, self.arrow = where, arrow

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if isinstance(error, (self.arrow.ArrowException, *_BROKEN)):
            if isinstance(error, DataError):
                return
            raise DataError(
                f"{self.where}: is no readable Arrow or Parquet file ({cut(error)}); save it again"
            ) from None


def _pyarrow(where: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise DataError(f"{where}: {_INSTALL}") from None
    if int(pyarrow.__version__.partition(".")[0]) < 15:
        raise DataError(
            f"{where}: pyarrow {cut(pyarrow.__version__)} unpickles what files name; upgrade it to 15 or later"
        )
    return pyarrow


def _depth(arrow: Any, kind: Any) -> int:
    """Nesting of lists of numbers: 2 of [L, D]; 0 of anything else, and of flat lists of integers such as tokens."""
    depth, types = 0, arrow.types
    while True:
        if isinstance(kind, arrow.BaseExtensionType):
            kind = kind.storage_type
        if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            break
        depth, kind = depth + 1, kind.value_type
    number = types.is_floating(kind) or (types.is_integer(kind) and depth > 1)
    return depth if number and depth <= 3 else 0


def _storage(column: Any) -> Any:
    return column.storage if hasattr(column, "storage") else column


def _cell(value: Any, where: str) -> Any:
    """The value of a cell that holds no list; many rows may share one long text, so that none is copied unchecked."""
    while hasattr(value, "dictionary"):
        value = value.value
    if hasattr(value, "as_buffer") and (text := value.as_buffer()) is not None and text.size > _LONGEST_CELL:
        raise DataError(f"{where} has {text.size:,} bytes; at most {_LONGEST_CELL:,} are read")
    return value.as_py()


def _is_compressed(header: bytes) -> bool:
    """Whether a message of Arrow has compressed buffers, which are expanded before their size can be checked.

    The header is a FlatBuffer: ``Message``, whose field 1 is the type of its field 2, a ``RecordBatch`` (3) or a
    ``DictionaryBatch`` (2), whose field 1 is a ``RecordBatch``; field 3 of that is the compression.
    """
    message = _follow(header, 0)
    kind = _field(header, message, 1)
    if not kind or header[kind] not in (2, 3) or not (place := _field(header, message, 2)):
        return False
    batch = _follow(header, place)
    if header[kind] == 2:
        batch = _follow(header, _field(header, batch, 1))
    return _field(header, batch, 3) > 0


def _follow(header: bytes, place: int) -> int:
    return place + int.from_bytes(header[place : place + 4], "little")


def _field(header: bytes, table: int, number: int) -> int:
    """The place of a field of a FlatBuffer's table; 0 if it is absent."""
    fields = table - int.from_bytes(header[table : table + 4], "little", signed=True)
    if fields < 0 or 4 + 2 * number >= int.from_bytes(header[fields : fields + 2], "little"):
        return 0
    start = int.from_bytes(header[fields + 4 + 2 * number : fields + 6 + 2 * number], "little")
    return table + start if start else 0


def _steps(column: Any, row: int, where: str) -> np.ndarray:
    """The features [L, D] of a row."""
    values = column[row].values
    if values is None:
        return np.zeros((0, 0), np.float32)
    shape: list[int] = []
    while hasattr(values.type, "value_type"):
        _check_size(values, where)
        if not hasattr(values.type, "list_size") and len(lengths := values.value_lengths().unique()) > 1:
            some = sorted(map(str, lengths[:20].to_pylist()))
            raise DataError(f"{where} has steps of {listed(some)} features; expected [L, D]")
        shape.append(len(values) // max(math.prod(shape), 1))
        values = values.flatten()
    _check_size(values, where)
    if values.null_count:
        raise DataError(f"{where} has {values.null_count:,} empty values among its features; repair or drop the row")
    found = values.to_numpy(zero_copy_only=False)
    shape = [size for size in shape[:-1] if size != 1] + shape[-1:] if len(shape) > 1 else shape
    if not found.size:
        return np.zeros((0, 0), np.float32)
    if len(shape) > 1 or found.size // (shape[0] if shape else 1) > MOST_FEATURES:
        raise DataError(f"{where} has shape {[*shape, -1]}; expected [steps, features]")
    return found.reshape(shape[0] if shape else 1, -1)


def _check_size(values: Any, where: str) -> None:
    if 4 * len(values) > LARGEST:
        raise DataError(f"{where} has {len(values):,} values; at most {LARGEST // 4:,} are read")


def _classes(schema: Any) -> dict[str, list[str]]:
    """Names of the classes of each ``ClassLabel``."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: kind.get("names") for name, kind in features.items() if isinstance(kind, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        n: names for n, names in found.items() if isinstance(names, list) and all(isinstance(x, str) for x in names)
    }


def _rows(
    tables: Sequence[_Table], splits: Splits | None, names: Sequence[str], dims: Mapping[str, int]
) -> Iterator[Row]:
    for name in names:
        for table in tables:
            if splits is None and not table.split and table.name != name:
                continue
            for item in table.items(splits):
                if item.split == name:
                    yield row_of(item, _features(item, dims))


def _features(item: ArrayItem, dims: Mapping[str, int]) -> dict[str, torch.Tensor]:
    features = {}
    for modality, dim in dims.items():
        values = item.arrays.get(modality, np.zeros((0, dim)))
        with np.errstate(over="ignore"):
            kept = np.array(values if values.size and values.any() else np.zeros((0, dim)), np.float32)
        features[modality] = torch.from_numpy(kept)
    return features
