"""Reads pickled feature files without running what they ask for."""

from __future__ import annotations

import copyreg
import math
import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gmsa.errors import DataError

_RESAVE = "gmsa reads arrays, lists, dicts, strings and numbers only. Re-save the file with nothing else in it"
_AGAIN = "get the file again and compare its SHA-256 with the publisher's"
_FOREIGN = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the data; run 'git lfs pull'"),
    (b"<", "is a web page or XML, not a pickle; download the file itself, not the page that links to it"),
    (b"PK\x03\x04", "is a zip archive, not a pickle; unpack it first"),
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
    (b"\x93NUMPY", "is a .npy array, not a pickled dict of splits; re-save it in MMSA's format"),
    (b"\x89HDF", "is an HDF5 file, not a pickle; re-save it in MMSA's format"),
)


def load(path: str | Path) -> Any:
    """Reads a pickle that holds numpy arrays, lists, dicts, tuples, strings, bytes and numbers, of any protocol.

    Pickle is a program: it names functions and calls them. Here each name is looked up in a fixed table, and
    every function of that table is gmsa's own stand-in that can only build an array, a number or bytes. Arrays
    come back as an :class:`numpy.ndarray` subclass without behaviour of its own. Strings of Python 2 are read
    as latin-1.

    This guards against running code, not against everything: a hostile file may still exhaust the memory, and
    the bytes go through CPython's own unpickler, whose flaws would be ours. A virtual machine of our own, with
    limits on memory, is planned. Arrays of records, dates and complex numbers are refused.

    Raises:
        DataError: the file is missing, cut short, not a pickle, or asks for anything else (named, and not run).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
            if not start:
                raise DataError(f"{path}: is empty; {_AGAIN}")
            for signature, meaning in _FOREIGN:
                if start.lstrip().startswith(signature):
                    raise DataError(f"{path}: {meaning}")
            file.seek(0)
            # A cached extension code would be handed out without asking find_class.
            getattr(copyreg, "_extension_cache", {}).clear()
            return _Unpickler(file, encoding="latin1").load()
    except _Refused as refusal:
        raise DataError(f"{path}: refused: {refusal}; {_RESAVE}") from None
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; check the path and its rights") from None
    except EOFError:
        raise DataError(f"{path}: is cut short; {_AGAIN}") from None
    except Exception as error:
        if "truncated" in str(error):
            raise DataError(f"{path}: is cut short; {_AGAIN}") from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path}: not a readable pickle ({reason}); {_AGAIN}") from None


class _Refused(Exception):
    """The pickle asks for what is not admitted."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"the pickle asks for {f'{module}.{name}'[:200]!r}") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused(f"the pickle asks for the external object {str(pid)[:200]!r}")


# The stand-ins below have neither attributes nor a __dict__: the opcode BUILD sets attributes on whatever is on
# the stack, and a plain function would let it change its defaults.


class _StandIn:
    __slots__ = ()


class _NdarrayToken(_StandIn):
    """Stands for ``numpy.ndarray``, which pickles name but never need to call."""

    __slots__ = ()


class _Array(np.ndarray):
    """An array that takes its state only if shape, type and bytes agree."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, described, fortran, raw = state
        dtype = _checked(described)
        if isinstance(raw, str):  # Python 2
            raw = raw.encode("latin1")
        held = len(raw) if dtype.hasobject else len(raw) / max(dtype.itemsize, 1)
        if type(raw) is not (list if dtype.hasobject else bytes) or math.prod(_shape(shape)) != held:
            raise ValueError(f"array of shape {shape} and type {dtype} does not match its content")
        super().__setstate__((1, shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]
        _check_text(self)


class _Dtype:
    """A numpy type as the pickle describes it; kept apart from numpy's own, whose state can be forged."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        if type(code) is not str or not re.fullmatch(r"[biufSUO]\d{1,9}", code):
            raise _Refused(f"the pickle asks for the array type {str(code)[:200]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        order, fields = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(field is not None for field in fields):
            raise _Refused("the pickle asks for arrays of records")
        self.order = order


def _checked(described: Any) -> np.dtype[Any]:
    if type(described) is not _Dtype:
        raise _Refused(f"the pickle asks for an array whose type is a {type(described).__name__}")
    return np.dtype(described.order + described.code)


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape!r} is not a shape")
    return shape


def _check_text(array: np.ndarray) -> None:
    if array.dtype.kind == "U":
        array.tolist()  # raises here, not at first use, where a code point does not exist


class _MakeDtype(_StandIn):
    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Dtype:
        return _Dtype(code)


class _Reconstruct(_StandIn):
    """``_reconstruct(ndarray, (0,), b"b")``: an empty array, filled by its state afterwards."""

    __slots__ = ()

    def __call__(self, cls: Any, shape: Any, code: Any) -> np.ndarray:
        if cls is not _ADMITTED["numpy", "ndarray"]:
            raise _Refused("the pickle asks for an array of another class than numpy.ndarray")
        return _Array((0,), dtype=np.uint8)


class _Scalar(_StandIn):
    __slots__ = ()

    def __call__(self, described: Any, raw: Any) -> Any:
        return _FromBuffer()(raw, described, (), "C")[()]


class _FromBuffer(_StandIn):
    __slots__ = ()

    def __call__(self, raw: Any, described: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
        dtype = _checked(described)
        if isinstance(raw, str):  # Python 2
            raw = raw.encode("latin1")
        # A view of another array would dangle once that array is given a new state.
        if type(raw) not in (bytes, bytearray):
            raise ValueError("the content of an array is not bytes")
        array = np.frombuffer(raw, dtype=dtype) if raw else np.empty(0, dtype)
        array = array.reshape(_shape(shape), order="C" if order == "K" else order)
        _check_text(array)
        return array.transpose(axes) if axes is not None else array


class _Encode(_StandIn):
    """``_codecs.encode(text, "latin1")``: how protocols 0 to 2 hold bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any = "latin1") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise _Refused(f"the pickle asks for the encoding {str(encoding)[:200]!r}")
        return text.encode("latin1")


class _EmptyBytes(_StandIn):
    """``bytes()``: how protocols 0 to 2 hold empty bytes."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdarrayToken(),
    ("numpy", "dtype"): _MakeDtype(),
    ("_codecs", "encode"): _Encode(),
    ("builtins", "bytes"): _EmptyBytes(),
    ("__builtin__", "bytes"): _EmptyBytes(),
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Reconstruct()),
            ("multiarray", "scalar", _Scalar()),
            ("numeric", "_frombuffer", _FromBuffer()),
        )
    },
}
