"""What pickles ask numpy for, made from checked bytes: arrays, numbers and text, without calling what they name."""

from __future__ import annotations

import codecs
import math
import mmap
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from gmsa.data.unpickling.names import Damaged, Name, Refused, described

_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU][0-9]{1,7}|O[48]?")
_FLAGS = {"O": (63,), "U": (8, 0)}  # as numpy writes them; 0 for all other types
_MOST_AXES = 32
_MOST_EMPTY = 2**20
_LONGEST_AXIS = 2**48
_LAST_CODE_POINT = 0x10FFFF
_PIECE = 2**18


class Dtype:
    """A numpy type as the pickle describes it; numpy's own is made from it when an array is, and only if checked."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype: np.dtype[Any] | None = None


class Pending:
    """An array that was announced, and what it became when its state came."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None


class Undecoded:
    """A long text in the file that only stands for bytes: decoded in pieces, so that it is never in memory as text."""

    __slots__ = ("codec", "data", "start", "stop")

    def __init__(self, data: bytes | mmap.mmap, start: int, stop: int, codec: str) -> None:
        self.data, self.start, self.stop, self.codec = data, start, stop, codec

    def __len__(self) -> int:
        return self.stop - self.start

    def content(self) -> bytearray:
        """The bytes it stands for.

        Raises:
            UnicodeError: it is not in its encoding, or holds characters outside latin1.
        """
        decoder = codecs.getincrementaldecoder(self.codec)()
        content = bytearray()
        for start in range(self.start, self.stop, _PIECE):
            stop = min(start + _PIECE, self.stop)
            content += decoder.decode(self.data[start:stop], stop == self.stop).encode("latin1")
            self._release(start, stop)
        return content

    def _release(self, start: int, stop: int) -> None:
        """Gives back the pages that were read, or they would be in memory beside the bytes made of them."""
        if isinstance(self.data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            first = start - start % mmap.PAGESIZE
            self.data.madvise(mmap.MADV_DONTNEED, first, stop - first)


class Maker:
    """Stands in for the functions that pickles name.

    Args:
        limit: bytes that may be made or checked in all. A pickle can name the same content any number of times, but
            no honest one does.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def reduce(self, function: Any, arguments: Any, fills_array: bool) -> Any:
        """What calling ``function`` would give.

        Args:
            fills_array: the result goes into an array; bytes may then come as a view.

        Raises:
            Refused: it is no token, or is asked for what it does not do here.
            Damaged: content, type and shape do not agree.
        """
        if type(function) is not Name:
            raise Refused(f"the pickle calls {described(function)}")
        if type(arguments) is not tuple:
            raise Damaged(f"arguments are {described(arguments)}, not a tuple")
        match function, arguments:
            case Name.RECONSTRUCT, (cls, shape, _):
                if cls is not Name.NDARRAY:
                    raise Refused("the pickle asks for an array of another class than numpy.ndarray")
                if type(shape) is tuple and [*map(type, shape)] == [int] and shape[0] == 0:
                    return Pending()
            case Name.DTYPE, (code, *options) if len(options) <= 2 and all(map(_is_flag, options)):
                return _dtype(code)
            case Name.SCALAR, (Dtype() as kind, raw):
                return self._scalar(kind, raw)
            case Name.FROMBUFFER, (raw, Dtype() as kind, tuple(shape), str(order), *axes) if len(axes) <= 1:
                return self._from_buffer(raw, kind, shape, order, axes)
            case Name.ENCODE, (str() | Undecoded() as text, str("latin1" | "latin-1")):
                return self._encode(text, fills_array)
            case Name.BYTES, ():
                return b""
        what = ", ".join(map(described, arguments[:6]))
        raise Refused(f"the pickle calls '{function.name.lower()}' with ({what})")

    def build(self, target: Any, state: Any) -> Any:
        """What ``target`` becomes with its state: a type of known byte order, or an array.

        Raises:
            Refused: it takes no state, or has one, or the state is none that gmsa admits.
            Damaged: content, type and shape do not agree.
        """
        if type(target) is Dtype and target.dtype is None:
            self._complete(target, state)
            return target
        if type(target) is not Pending or target.array is not None:
            raise Refused(f"the pickle sets the state of {described(target)}")
        match state:
            case (int(version), tuple(shape), Dtype() as kind, fortran, raw) if _is_flag(fortran):
                if version == 1:
                    target.array = self._stored_array(kind, shape, "F" if fortran else "C", raw)
                    return target.array
            case (_, _, kind, _, _) if type(kind) is not Dtype:
                raise Refused(f"the pickle asks for an array whose type is {described(kind)}")
        raise Damaged("the state of an array is not (1, shape, type, order, content)")

    def _complete(self, kind: Dtype, state: Any) -> None:
        """Takes the byte order from a type's state ``(3, order, None, None, None, size, alignment, flags)``.

        numpy believes the rest, and with forged flags reads raw bytes as pointers. Here the rest must be what numpy
        writes for this type, and numpy's type is made from its code and order alone.
        """
        match state:
            case (int(version), str(order), None, None, None, int(size), int(), int(flags)):
                letter, bytewise = kind.code[0], kind.code[0] in "bSO" or kind.code in ("i1", "u1")
                if order in (("|",) if bytewise else ("<", ">")):
                    dtype = _numpy_type(order + kind.code)
                    known_size = dtype.itemsize if letter in "SU" else -1
                    if (version, size, flags) in ((3, known_size, known) for known in _FLAGS.get(letter, (0,))):
                        kind.dtype = dtype
                        return
                raise Refused(f"the pickle forges the state of the array type {kind.code}")
            case (_, _, subarray, names, fields, *_) if not (subarray is names is fields is None):
                raise Refused("the pickle asks for arrays of records")
        raise Refused(f"the pickle forges the state of the array type {kind.code}")

    def _from_buffer(self, raw: Any, kind: Dtype, shape: tuple[Any, ...], order: str, axes: list[Any]) -> np.ndarray:
        if kind.code[0] == "O":
            raise Refused("the pickle asks for objects out of bytes")
        if order not in ("C", "F") and not (order == "K" and axes):
            raise Damaged(f"an array is in the order {described(order)}")
        array = self._array(kind, shape, "F" if order == "F" else "C", raw)
        if order != "K":
            return array
        (turned,) = axes
        if type(turned) is not tuple or any(type(axis) is not int for axis in turned):
            raise Damaged("the axes of an array are no numbers")
        if sorted(turned) != list(range(array.ndim)):
            raise Damaged("the axes of an array are no permutation")
        return array.transpose(turned)

    def _array(self, kind: Dtype, shape: tuple[Any, ...], order: Literal["C", "F"], raw: Any) -> np.ndarray:
        dtype = kind.dtype if kind.dtype is not None else _numpy_type(kind.code)
        count = _count(shape)
        if dtype.hasobject:
            return self._object_array(shape, order, raw, count)
        content = self._content(raw)
        if count * dtype.itemsize != len(content) or not dtype.itemsize:
            raise Damaged(f"an array of shape {shape} and type {dtype} does not match its {len(content)} bytes")
        if not count:
            return np.empty(shape, dtype, order)
        self._spend(len(content))
        array = np.frombuffer(content, dtype)
        _check_values(array, content)
        array.flags.writeable = False
        return array.reshape(shape, order=order)

    def _stored_array(self, kind: Dtype, shape: tuple[Any, ...], order: Literal["C", "F"], raw: Any) -> np.ndarray:
        """As numpy restores a state: in the byte order of this machine, which may take a copy."""
        array = self._array(kind, shape, order, raw)
        if array.dtype.isnative:
            return array
        array = array.astype(array.dtype.newbyteorder("="))
        array.flags.writeable = False
        return array

    def _object_array(self, shape: tuple[int, ...], order: str, items: Any, count: int) -> np.ndarray:
        if type(items) is not list or len(items) != count:
            raise Damaged(f"an array of {count} objects does not match {described(items)}")
        self._spend(count)
        array = np.empty(0, object)
        # numpy's own way of storing them, as any assignment would look into nested sequences.
        array.__setstate__((1, shape, np.dtype(object), order == "F", items))  # type: ignore[arg-type]
        return array

    def _scalar(self, kind: Dtype, raw: Any) -> Any:
        if kind.code[0] == "O":
            raise Refused("the pickle asks for an object as a number")
        if kind.code in ("U0", "S0"):
            if len(self._content(raw)):
                raise Damaged("an empty text has content")
            return np.str_() if kind.code == "U0" else np.bytes_()
        return self._array(kind, (), "C", raw)[()]

    def _encode(self, text: str | Undecoded, fills_array: bool) -> bytes | memoryview:
        self._spend(len(text))
        if isinstance(text, str):
            return text.encode("latin1")
        content = text.content()
        return memoryview(content) if fills_array else bytes(content)

    def _content(self, raw: Any) -> bytes | bytearray | memoryview:
        if isinstance(raw, str):  # Python 2 kept bytes as text
            self._spend(len(raw))
            return raw.encode("latin1")
        if not isinstance(raw, (bytes, bytearray, memoryview)):
            raise Damaged(f"the content of an array is not bytes but {described(raw)}")
        return raw

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Refused("the pickle makes more of its content than it holds")


def _is_flag(value: Any) -> bool:
    return type(value) in (bool, int) and value in (0, 1)


def _dtype(code: Any) -> Dtype:
    if type(code) is not str or not _CODE.fullmatch(code):
        raise Refused(f"the pickle asks for the array type {described(code)}")
    return Dtype(code)


def _numpy_type(code: str) -> np.dtype[Any]:
    """numpy's type of a code that was matched, with or without its byte order."""
    try:
        return np.dtype(object) if "O" in code else np.dtype(code)
    except (TypeError, ValueError, OverflowError):  # text longer than numpy can address
        raise Damaged(f"numpy knows no type {code}") from None


def _count(shape: Sequence[Any]) -> int:
    """Elements of an array; one that is empty must still have a shape that one can walk along."""
    if len(shape) > _MOST_AXES or not all(type(size) is int and 0 <= size <= _LONGEST_AXIS for size in shape):
        raise Damaged("the shape of an array is not a tuple of sizes")
    if 0 in shape and math.prod(size for size in shape if size) > _MOST_EMPTY:
        raise Refused(f"the pickle asks for an empty array with over {_MOST_EMPTY} rows")
    return math.prod(shape)


def _check_values(array: np.ndarray, content: bytes | bytearray | memoryview) -> None:
    """Refuses bytes that no value of the type has: numpy would only notice, or not, when they are used."""
    if array.dtype.kind == "U":
        points = np.frombuffer(content, np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if points.max(initial=0) > _LAST_CODE_POINT:
            raise Damaged("an array of text holds characters that do not exist")
    if array.dtype.kind == "b" and np.frombuffer(content, np.uint8).max() > 1:
        raise Damaged("an array of truth values holds others than 0 and 1")
