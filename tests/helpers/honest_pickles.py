"""What honest pickles hold, to be written by any numpy: a function of nothing else, so nobody needs to trust a file.

Files of numpy 1.26 were written where it is installed, by
``python tests/helpers/honest_pickles.py tests/helpers/numpy126.tar.xz``.
"""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np

PROTOCOLS = range(6)
NUMERIC = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def arrays_of(code: str) -> dict:
    """Arrays and a number of one type in every layout."""
    kind = np.dtype(code)
    grid = (np.arange(24).reshape(2, 3, 4) * 37 % 101).astype(kind)
    return {
        "rows": grid,
        "columns": np.asfortranarray(grid),
        "flat": grid.ravel(),
        "turned": grid.transpose(1, 0, 2),
        "mirrored": grid.T,
        "every other": grid[:, ::2, ::-1],
        "single": np.array(grid[1, 2, 3]),
        "empty": np.empty((0, 3), kind),
        "steps without features": np.empty((4, 0), kind),
        "big": grid.astype(kind.newbyteorder(">")),
        "little": grid.astype(kind.newbyteorder("<")),
        "big columns": np.asfortranarray(grid[0].astype(kind.newbyteorder(">"))),
        "ragged": [grid[0, :i] for i in range(4)],
        "number": kind.type(1),
        "numbers": [kind.type(0), kind.type(1)],
    }


def bytes_arrays() -> list:
    return [np.array([[b"a", b"bcd"], [b"\xff\x00\x01", b""]]), np.array(b"x"), np.array([], "S3"), np.bytes_(b"yz")]


def text_arrays() -> list:
    words = np.array([["a", "größer"], ["", "\U0001f600 \u5b57"]])
    return [words, words.T, np.array("x"), words.astype(">U6"), np.array([], "U2"), np.str_("ü"), np.str_("")]


def object_arrays() -> list:
    ragged = np.empty(3, object)
    ragged[:] = [np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), np.arange(3.0)[None]]
    mixed = np.array([[1, "a", None], [2.5, b"b", True]], object)
    lists = np.empty((2, 1), object)
    lists[:, 0] = [[1, [2, 3]], {"a": (np.float32(1), np.int64(2))}]
    return [ragged, mixed, mixed.T, np.asfortranarray(mixed), lists, np.array([], object), np.array(None, object)]


def plain() -> dict:
    return {
        "numbers": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, -(2**80), 2**500],
        "floats": [0.0, -1.5, 1e300, 1e-300, float("inf"), float("-inf"), 0.1],
        "rest": (None, True, False, (), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "text": [
            "",
            "a",
            "größer",
            "\u5b57",
            "\U0001f600",
            "\ud800",
            "line\nbreak \\ \r \x1a \x00 'quotes\"",
            "x" * 300,
        ],
        "bytes": [b"", b"a", bytes(range(256)), b"z" * 300],
        1: "one",
        2.5: None,
        None: b"key",
        b"bytes": 3,
        ("a", 1): (1, "a"),
        np.str_("numpy's"): 4,
    }


def shared() -> dict:
    array, words = np.arange(6.0).reshape(2, 3), ["neutral", "happy"]
    return {
        "array": [array] * 3,
        "words": [words] * 30,
        "text": ["neutral"] * 3000,
        "pair": (array, array.T),
        "deep": _nested(60),
    }


def _nested(levels: int) -> list:
    return [_nested(levels - 1)] if levels else []


def long_arrays() -> dict:
    """Arrays that are not copied out of the file, between others that are."""
    steps = np.arange(40_000, dtype=np.float32).reshape(100, 50, 8) % 251
    return {
        "steps": steps,
        "columns": np.asfortranarray(steps),
        "turned": steps.transpose(2, 0, 1),
        "small": steps[0],
        "big": steps.astype(">f4"),
        "text": np.array(["words " * 20] * 200),
        "bytes": b"\x00\xff" * 40_000,
        "in a tuple": (b"\x01" * 70_000, "\xfc" * 70_000),
        "truth": np.ones((300, 300), bool),
    }


def mmsa() -> dict:
    """A file in MMSA's format."""
    content = {}
    for split, count in (("train", 6), ("valid", 3), ("test", 4)):
        content[split] = {
            "raw_text": np.array([f"{split} says {i}" for i in range(count)], object),
            "audio": np.arange(count * 10.0, dtype=np.float64).reshape(count, 5, 2),
            "vision": np.arange(count * 15.0, dtype=np.float32).reshape(count, 5, 3),
            "id": np.array([f"{split}$_${i}" for i in range(count)]),
            "text": np.arange(count * 20.0, dtype=np.float32).reshape(count, 5, 4),
            "text_bert": np.ones((count, 3, 5), np.float32),
            "annotations": ["Neutral"] * count,
            "classification_labels": np.ones(count),
            "regression_labels": np.linspace(-3, 3, count).astype(np.float32),
            "audio_lengths": [5] * count,
            "vision_lengths": [np.int64(5)] * count,
        }
    return content


CONTENTS = {
    **{code: (lambda code=code: arrays_of(code)) for code in NUMERIC},
    "S": bytes_arrays,
    "U": text_arrays,
    "O": object_arrays,
    "plain": plain,
    "shared": shared,
    "long": long_arrays,
    "mmsa": mmsa,
}


def write(path: str) -> None:
    with tarfile.open(path, "w:xz") as archive:
        for name, content in CONTENTS.items():
            for protocol in PROTOCOLS:
                raw = pickle.dumps(content(), protocol)
                entry = tarfile.TarInfo(f"{name}.{protocol}.pkl")
                entry.size = len(raw)
                archive.addfile(entry, io.BytesIO(raw))


def read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


if __name__ == "__main__":
    write(sys.argv[1])
