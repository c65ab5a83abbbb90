"""Data as people bring it: each maker writes one small file into a folder and returns its path."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import pickle
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmsa.system import cli

DIMS = {"text": 6, "audio": 3, "vision": 4}
COUNTS = {"train": 12, "valid": 6, "test": 6}
STEPS = 5

Columns = dict[str, Any]
Maker = Callable[[Path], Path]
Change = Callable[[Columns, str], None]
"""Changes the columns of a split, whose name it is told."""


def rng_of(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def features(name: str, count: int, dim: int, steps: int = STEPS) -> np.ndarray:
    """Standard normal [N, L, D], float32."""
    return rng_of(f"{name} {dim}").standard_normal((count, steps, dim)).astype(np.float32)


def cut(sequences: np.ndarray) -> list[np.ndarray]:
    """Leaves 3, 4, 5, 3 ... steps of sequences [N, L, D]."""
    return [x[: 3 + i % 3] for i, x in enumerate(sequences)]


def pieces(*shape: int, most: int = 30000, dtype: Any = np.int64) -> Callable[[int, str], np.ndarray]:
    """Whole numbers [N, *shape] below ``most``, such as ids of word pieces."""
    return lambda count, split: rng_of(split).integers(0, most, (count, *shape)).astype(dtype)


def clip() -> dict[str, np.ndarray]:
    """The features of one utterance, [L, D] each."""
    return {m: features("clip", 1, d)[0] for m, d in DIMS.items()}


def columns(split: str, count: int) -> Columns:
    """A split without fault: three clips of a film each, intensities that use [-3, 3]."""
    return {
        "id": [f"{split}film{i // 3}$_${i % 3}" for i in range(count)],
        "raw_text": [f"a line of {split} {i}" for i in range(count)],
        **{m: features(split + m, count, d) for m, d in DIMS.items()},
        "regression_labels": np.linspace(-2.9, 2.7, count).astype(np.float32),
    }


def corpus(*changes: Change, only: Iterable[str] = (), **counts: int) -> dict[str, Columns]:
    """The three splits, or ``only`` some changed, or those of ``counts``."""
    content = {split: columns(split, count) for split, count in (counts or COUNTS).items()}
    for split in tuple(only) or tuple(content):
        for change in changes:
            change(content[split], split)
    return content


def pickled(content: Any, name: str = "own.pkl") -> Maker:
    """Writes a pickle."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(pickle.dumps(content() if callable(content) else content, protocol=4))
        return path

    return make


def each(*changes: Change, only: Iterable[str] = ()) -> Maker:
    """Writes the three splits, changed."""
    return pickled(lambda: corpus(*changes, only=only))


def by_split(**changes: Change) -> Maker:
    """Writes the three splits, each changed by its own change."""

    def content() -> dict[str, Columns]:
        found = corpus()
        for split, change in changes.items():
            change(found[split], split)
        return found

    return pickled(content)


def put(**makers: Any) -> Change:
    """Sets columns: to what a maker gives for (number of utterances, split), or to a value."""

    def change(split: Columns, name: str) -> None:
        for key, value in makers.items():
            split[key] = value(len(split["id"]), name) if callable(value) else value

    return change


def labels(value: Callable[[int], Any], key: str = "regression_labels") -> Change:
    """Sets the labels to what ``value`` gives for each number of an utterance, as a float32 array if it can be one."""

    def change(split: Columns, _: str) -> None:
        found = [value(i) for i in range(len(split["id"]))]
        plain = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in found)
        split[key] = np.array(found, dtype=np.float32) if plain else found

    return change


def through(**functions: Callable[[Any], Any]) -> Change:
    """Passes columns through functions."""

    def change(split: Columns, _: str) -> None:
        for key, function in functions.items():
            split[key] = function(split[key])

    return change


def spread(low: float, high: float) -> Change:
    """Labels evenly from ``low`` to ``high``."""
    return put(regression_labels=lambda n, _: np.linspace(low, high, n).astype(np.float32))


def as_text(form: str, third: str | None = None) -> Change:
    """Labels as text; the third of a split is another text."""

    def change(split: Columns, _: str) -> None:
        found = [form.format(x) for x in split["regression_labels"]]
        if third is not None:
            found[2] = third
        split["regression_labels"] = found

    return change


def unlabeled(value: float | None) -> Change:
    """Every third label is ``value``."""

    def change(split: Columns, _: str) -> None:
        found = split["regression_labels"].tolist()
        found[::3] = [value] * len(found[::3])
        split["regression_labels"] = found if value is None else np.array(found, np.float32)

    return change


def bert(split: Columns, _: str) -> None:
    """Adds MMSA's ids, mask and segments of word pieces, [N, 3, L]."""
    found = np.zeros((len(split["id"]), 3, STEPS), np.int64)
    found[:, 0], found[:, 1] = 2023, 1
    split["text_bert"] = found


def of_mmsa(split: Columns, _: str) -> None:
    """Adds the other columns of MMSA's files."""
    sign = np.sign(split["regression_labels"]).astype(int)
    split["annotations"] = [("Negative", "Neutral", "Positive")[x + 1] for x in sign]
    split["classification_labels"] = (sign + 1).astype(np.float32)
    split["audio_lengths"] = split["vision_lengths"] = [STEPS] * len(sign)


def rename(**names: str) -> Change:
    """Gives columns other names."""

    def change(split: Columns, _: str) -> None:
        for old, new in names.items():
            split[new] = split.pop(old)

    return change


def without(*keys: str) -> Change:
    """Removes columns."""

    def change(split: Columns, _: str) -> None:
        for key in keys:
            del split[key]

    return change


def at(key: str, where: Any, value: Any, dtype: Any = None) -> Change:
    """Sets single values of a column."""

    def change(split: Columns, _: str) -> None:
        column = np.array(split[key], dtype=dtype or split[key].dtype)
        column[where] = value
        split[key] = column

    return change


def ids(name: Callable[[int, str], Any]) -> Change:
    """Gives the utterances other ids."""

    def change(split: Columns, where: str) -> None:
        split["id"] = [name(i, where) for i in range(len(split["id"]))]

    return change


def splits(**names: str) -> Maker:
    """Writes splits under other names: ``splits(train="training", dev="valid")`` names the new one first."""
    return pickled(lambda: {new: corpus()[old] for new, old in names.items()})


def flat(*changes: Change, count: int = 12) -> Maker:
    """Writes one dict of columns without splits, of films that no split of :func:`corpus` has."""

    def content() -> Columns:
        found = columns("other", count)
        for change in changes:
            change(found, "other")
        return found

    return pickled(content)


def with_split(name: str, *changes: Change) -> Maker:
    """Writes the three splits and another one of five utterances, changed."""
    other = columns("other", 5)
    for change in changes:
        change(other, "other")
    return pickled({**corpus(), name: other})


def several(*steps: int) -> Maker:
    """Writes unlabeled clips of so many steps."""
    found = {m: [features(m, 1, d, n)[0] for n in steps] for m, d in DIMS.items()}
    return pickled({"id": [f"me$_${i}" for i in range(len(steps))], **found})


def utterances(count: int, key: Callable[[int], Any]) -> Maker:
    """Writes a dict of utterances."""
    return pickled({key(i): {"text": np.zeros((2, 6), np.float32), "label": 0.0} for i in range(count)})


def zipped(name: str, *members: str) -> Maker:
    """Writes a zip archive."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member in members:
                archive.writestr(member, "<x/>")
        return folder / name

    return make


def mag_bert(segment: Callable[[str, int], Any], pack: Callable[[Any], Any] = tuple) -> Maker:
    """Writes lists of ((words, visual [L, 4], acoustic [L, 3]), [[label]], segment), as MAG-BERT reads."""

    def content() -> Any:
        found = {}
        for split, columns_ in (("train", "train"), ("dev", "valid"), ("test", "test")):
            of = columns(columns_, COUNTS[columns_])
            found[split] = [
                pack(
                    (
                        pack((["so", "it", "goes", "on", "."], of["vision"][i], of["audio"][i])),
                        of["regression_labels"][i].reshape(1, 1),
                        segment(columns_, i),
                    )
                )
                for i in range(len(of["id"]))
            ]
        return found

    return pickled(content)


def mult(*changes: Change) -> Maker:
    """Writes MulT's dicts: ``labels`` [N, 1, 1] and ids [video, start, end]."""

    def change(split: Columns, name: str) -> None:
        del split["raw_text"]
        split["labels"] = split.pop("regression_labels").reshape(-1, 1, 1)
        split["id"] = [[f"{name}film{i // 3}", str(2 * i), str(2 * i + 2)] for i in range(len(split["id"]))]

    return each(change, *changes)


def table(
    delimiter: str = ",", separator: str = "/", decimal: str = ".", bom: bool = False, name: str = "own.csv"
) -> Maker:
    """Writes a table with a row per utterance, and an array per modality in the folder ``parts of it``."""

    def make(folder: Path) -> Path:
        parts = folder / "parts of it"
        parts.mkdir()
        text = io.StringIO()
        rows = csv.writer(text, delimiter=delimiter)
        rows.writerow(["id", "split", "label", *DIMS])
        for split, of in corpus().items():
            for i, identity in enumerate(of["id"]):
                names = [f"{split}{i}{m}.npy" for m in DIMS]
                for m, file in zip(DIMS, names, strict=True):
                    np.save(parts / file, of[m][i])
                label = f"{of['regression_labels'][i]:.3f}".replace(".", decimal)
                rows.writerow([identity, split, label, *(f"{parts.name}{separator}{file}" for file in names)])
        path = folder / name
        path.write_text(text.getvalue(), encoding="utf-8-sig" if bom else "utf-8")
        return path

    return make


def raw(name: str, content: bytes) -> Maker:
    """Writes bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def by_torch(name: str, **options: Any) -> Maker:
    """Writes what ``torch.save`` writes."""

    def make(folder: Path) -> Path:
        torch.save({"train": {"text": torch.zeros(2, 3)}}, folder / name, **options)
        return folder / name

    return make


@dataclass(frozen=True)
class Said:
    """What a command leaves."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()

    @property
    def notes(self) -> list[str]:
        """The notes, without the command's name."""
        return [line.partition(": note: ")[2] for line in self.lines if ": note: " in line]


def told(command: Callable[[Any], None], name: str, arguments: list[str]) -> Said:
    """Runs a command in this process; its warnings are written as they would be in a process of its own."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code, argv = 0, sys.argv
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.showwarning = _show
        sys.argv = [name, *arguments]
        try:
            cli.run(command, name)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.argv = argv
    return Said(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def _show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Makes a folder the working one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def partly(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``found`` that ``expected`` names: a failed comparison shows these alone."""
    return {key: found.get(key) for key in expected}
