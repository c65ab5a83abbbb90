"""Tells what a file is by its first bytes, and how gmsa can use it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gmsa.data.opening import open_data
from gmsa.errors import DataError

_START = 4096
_LONGEST_NAME = 40
"""Characters of a path that a command repeats: the message stays short."""
_RESAVE = (
    'python -c "import pickle, torch; from torch.utils._pytree import tree_map_only as each; pickle.dump(each('
    "torch.Tensor, lambda t: t.numpy(), torch.load('{name}', map_location='cpu', weights_only=True)), "
    "open('{stem}.pkl', 'wb'))\""
)
_MEDIA = "gmsa reads features, not {what}; extract them first (MMSA-FET writes a pickle of them), then name that file"
_TABLE = "python -m gmsa.data import '{name}' --out '{stem}'"


class Kind(NamedTuple):
    """What a file is."""

    name: str
    """``pickle``, ``table``, ``json``, ``hdf5``, ``parquet``, ``torch``, ``npz``, ``npy``, ``media``, ..."""
    text: str = ""
    """What it is and what to do, for a file that is no pickle; ``{name}`` and ``{stem}`` stand for its path."""


_TORCH = Kind("torch", f"was saved by torch.save; re-save it: {_RESAVE}")

_NOT_PICKLES = (
    (b"version https://git-lfs", Kind("lfs", "is a Git LFS pointer, not the data; run 'git lfs pull'")),
    (b"\x1f\x8b", Kind("gzip", "is gzip-compressed; unpack it first: gunzip -k '{name}'")),
    (b"BZh", Kind("bzip2", "is bzip2-compressed; unpack it first: bunzip2 -k '{name}'")),
    (b"\xfd7zXZ\0", Kind("xz", "is xz-compressed; unpack it first: unxz -k '{name}'")),
    (b"\x28\xb5\x2f\xfd", Kind("zstd", "is zstd-compressed; unpack it first: unzstd '{name}'")),
    (b"7z\xbc\xaf\x27\x1c", Kind("7z", "is a 7-Zip archive; unpack it first, then name the file that it holds")),
    (b"Rar!\x1a\x07", Kind("rar", "is a RAR archive; unpack it first, then name the file that it holds")),
    (
        b"\x93NUMPY",
        Kind("npy", "is one .npy array; name it in a table with the columns id, split, label and text, ..."),
    ),
    (b"\x89HDF\r\n\x1a\n", Kind("hdf5", f"is an HDF5 file; for a .csd of the CMU SDK: {_TABLE} --format csd")),
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", _TORCH),  # as torch.save wrote until 1.5
    (b"PAR1", Kind("parquet", f"is a Parquet file: {_TABLE} --format datasets")),
    (b"ARROW1", Kind("arrow", "is an Arrow file; name the folder that save_to_disk wrote")),
    (b"\x89PNG\r\n\x1a\n", Kind("media", f"is a PNG image; {_MEDIA.format(what='images')}")),
    (b"\xff\xd8\xff", Kind("media", f"is a JPEG image; {_MEDIA.format(what='images')}")),
    (b"GIF8", Kind("media", f"is a GIF image; {_MEDIA.format(what='images')}")),
    (b"\x1a\x45\xdf\xa3", Kind("media", f"is a video (Matroska or WebM); {_MEDIA.format(what='videos')}")),
    (b"OggS", Kind("media", f"is a recording (Ogg); {_MEDIA.format(what='media')}")),
    (b"fLaC", Kind("media", f"is a recording (FLAC); {_MEDIA.format(what='recordings')}")),
    (b"ID3", Kind("media", f"is a recording (MP3); {_MEDIA.format(what='recordings')}")),
    (b"%PDF", Kind("pdf", "is a PDF document, not data; name the data file")),
    (b"\xd0\xcf\x11\xe0", Kind("excel", "is an old Excel or Word file; save the table as CSV, then name that")),
    (b"SQLite format 3\0", Kind("sqlite", "is an SQLite database, as of a study; name the data file")),
)
_WEB_PAGE = Kind("html", "is a web page or XML, not data; download the file itself, not the page that links to it")
_RIFF = {
    b"WAVE": Kind("media", f"is a recording (WAV); {_MEDIA.format(what='recordings')}"),
    b"AVI ": Kind("media", f"is a video (AVI); {_MEDIA.format(what='videos')}"),
    b"WEBP": Kind("media", f"is a WebP image; {_MEDIA.format(what='images')}"),
}
_VIDEO = Kind("media", f"is a video (MP4, MOV or such); {_MEDIA.format(what='videos')}")
_MP3 = Kind("media", f"is a recording (MP3); {_MEDIA.format(what='recordings')}")
_NPZ = Kind(
    "npz",
    "is an .npz archive; name its arrays in a table as FILE.npz#MEMBER, or give it as the features of one modality",
)
_EXCEL = Kind("excel", "is an Excel workbook; save the table as CSV, then name that")
_ZIP = Kind("zip", "is a zip archive; unpack it first, then name the file or folder that it holds")
_SAFETENSORS = Kind("safetensors", "holds weights or tensors as safetensors, not a data set; name the data file")
_PICKLE, _TEXT_TABLE = Kind("pickle"), Kind("table", f"is a table: {_TABLE} --format manifest")
_JSON = Kind("json", f"is JSON; if it is a table with an 'id' and paths of arrays per row: {_TABLE} --format manifest")
_JSON_SETTINGS = re.compile(rb"[\[{]\s*(\"|[\[{]|$|\d|[\]}])")


def kind_of(path: Path) -> Kind | None:
    """Returns what a file is by its first bytes, and of a zip by its members; None if that is not known.

    Raises:
        DataError: the file cannot be opened.
    """
    with open_data(path) as file:
        start = file.read(_START)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _zip_of(file)
    return _kind_of(start)


def describe_file(path: Path) -> str | None:
    """Returns what a file is and how gmsa can use it, as ``is a video ...; extract features first``; None if unknown.

    Raises:
        DataError: the file cannot be opened.
    """
    kind = kind_of(path)
    if kind is None or not kind.text:
        return None
    name = str(path) if len(str(path)) <= _LONGEST_NAME and str(path).isprintable() and "'" not in str(path) else "FILE"
    stem = name.removesuffix(path.suffix) if name != "FILE" else "NEW"
    return kind.text.replace("{name}", name).replace("{stem}", stem)


def _kind_of(start: bytes) -> Kind | None:
    for signature, kind in _NOT_PICKLES:
        if start.startswith(signature):
            return kind
    if start[:4] == b"RIFF":
        return _RIFF.get(start[8:12])
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return _VIDEO
    if start[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa"):
        return _MP3
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < 1 << 27:
        return _SAFETENSORS
    if start[:1] == b"\x80" and len(start) > 2 and start[1] <= 5:
        return _PICKLE
    return _text_of(start)


def _text_of(start: bytes) -> Kind | None:
    """Tables and JSON; a pickle of protocol 0 is text, too, but has no header."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = start.decode("utf-16", "replace")
    else:
        text = start.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    text = text.lstrip()
    if text.startswith("<"):
        return _WEB_PAGE
    if "\0" in text or "\ufffd" in text[:-4]:
        return None
    if text[:1] in ("{", "["):
        return _JSON if _JSON_SETTINGS.match(text.encode()) else None
    lines = text.splitlines()
    if lines[:1] and lines[0].lower().startswith("sep="):
        lines = lines[1:]
    for mark in (",", ";", "\t"):
        if (
            lines
            and lines[0].count(mark)
            and re.search(r"\w", lines[0])
            and not re.match(r"\(?[a-z]?(dp|lp|cn)", lines[0])
        ):
            return _TEXT_TABLE
    return None


def _zip_of(file: BinaryIO) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return _ZIP
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return _TORCH
    if names and all(name.endswith(".npy") for name in names):
        return _NPZ
    return _EXCEL if "[Content_Types].xml" in names else _ZIP


def refuse_foreign(path: Path, where: str) -> None:
    """Refuses a file that is known to be something else than a pickle.

    Raises:
        DataError: says what it is, and how gmsa can use it.
    """
    text = describe_file(path)
    if text is not None:
        raise DataError(f"{where}: {text}")
