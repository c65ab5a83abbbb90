"""Makes the arrays and scalars of a pickle from checked bytes, without calling the functions that it names."""

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
_FLAGS = {"O": (63,), "U": (8, 0)}  # as NumPy writes them; 0 for all other types
_MOST_AXES = 32
_MOST_EMPTY = 2**20
_LONGEST_AXIS = 2**48
_LAST_CODE_POINT = 0x10FFFF
_PIECE = 2**18


class Dtype:
    """A NumPy type as the pickle describes it; converted to a real one when an array needs it, after checks."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype: np.dtype[Any] | None = None


class Pending:
    """An array before its state is set, and the array after that."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None


class Undecoded:
    """A long text in the file that encodes bytes; decoded in pieces, so that the whole text is never in memory."""

    __slots__ = ("codec", "data", "start", "stop")

    def __init__(self, data: bytes | mmap.mmap, start: int, stop: int, codec: str) -> None:
        self.data, self.start, self.stop, self.codec = data, start, stop, codec

    def __len__(self) -> int:
        return self.stop - self.start

    def content(self) -> bytearray:
        """Decodes the text to the bytes that it encodes.

        Raises:
            UnicodeError: the text is invalid in its encoding, or has characters outside latin-1.
        """
        decoder = codecs.getincrementaldecoder(self.codec)()
        content = bytearray()
        for start in range(self.start, self.stop, _PIECE):
            stop = min(start + _PIECE, self.stop)
            content += decoder.decode(self.data[start:stop], stop == self.stop).encode("latin1")
            self._release(start, stop)
        return content

    def _release(self, start: int, stop: int) -> None:
        """Releases the pages that were read, which would otherwise stay in memory beside the decoded bytes."""
        if isinstance(self.data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            first = start - start % mmap.PAGESIZE
            self.data.madvise(mmap.MADV_DONTNEED, first, stop - first)


class Maker:
    """Replaces the functions that pickles call.

    Args:
        limit: bytes that may be made or checked in total. A pickle can refer to the same content any number of times,
            but none that NumPy writes does.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def reduce(self, function: Any, arguments: Any, fills_array: bool) -> Any:
        """Returns the result that calling ``function`` would have.

        Args:
            function: token of the function.
            arguments: its arguments, a tuple.
            fills_array: whether the result is the content of an array, so that bytes may be a view.

        Raises:
            Refused: the function is not a token, or its arguments are not supported.
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

    def set_state(self, target: Any, state: Any) -> Any:
        """Sets the state of a type (its byte order) or of an array (its content), and returns the result.

        Raises:
            Refused: the target takes no state or has one already, or the state is not allowed.
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
        """Sets the byte order from a type's state ``(3, order, None, None, None, size, alignment, flags)``.

        NumPy trusts the rest, and with forged flags would read raw bytes as pointers. Here the rest must equal what
        NumPy writes for this type, and the real type is made from code and order only.
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
            raise Refused("the pickle asks for objects made from bytes")
        if order not in ("C", "F") and not (order == "K" and axes):
            raise Damaged(f"an array is in the order {described(order)}")
        array = self._array(kind, shape, "F" if order == "F" else "C", raw)
        if order != "K":
            return array
        (turned,) = axes
        if type(turned) is not tuple or any(type(axis) is not int for axis in turned):
            raise Damaged("the axes of an array are not integers")
        if sorted(turned) != list(range(array.ndim)):
            raise Damaged("the axes of an array are not a permutation")
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
        """Makes an array in the byte order of this machine, as NumPy does; copies if the order differs."""
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
        # As NumPy restores objects itself; an assignment would unpack nested sequences.
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
        if isinstance(raw, str):  # Python 2 stored bytes as text
            self._spend(len(raw))
            return raw.encode("latin1")
        if not isinstance(raw, (bytes, bytearray, memoryview)):
            raise Damaged(f"the content of an array is not bytes but {described(raw)}")
        return raw

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Refused("the pickle repeats its content until it exceeds the file")


def _is_flag(value: Any) -> bool:
    return type(value) in (bool, int) and value in (0, 1)


def _dtype(code: Any) -> Dtype:
    if type(code) is not str or not _CODE.fullmatch(code):
        raise Refused(f"the pickle asks for the array type {described(code)}")
    return Dtype(code)


def _numpy_type(code: str) -> np.dtype[Any]:
    """Returns the NumPy type of a checked code, with or without its byte order."""
    try:
        return np.dtype(object) if "O" in code else np.dtype(code)
    except (TypeError, ValueError, OverflowError):  # text longer than NumPy can address
        raise Damaged(f"NumPy has no type {code}") from None


def _count(shape: Sequence[Any]) -> int:
    """Returns the number of elements; an empty array must have a shape that is safe to iterate over."""
    if len(shape) > _MOST_AXES or not all(type(size) is int and 0 <= size <= _LONGEST_AXIS for size in shape):
        raise Damaged("the shape of an array is not a tuple of sizes")
    if 0 in shape and math.prod(size for size in shape if size) > _MOST_EMPTY:
        raise Refused(f"the pickle asks for an empty array with over {_MOST_EMPTY} rows")
    return math.prod(shape)


def _check_values(array: np.ndarray, content: bytes | bytearray | memoryview) -> None:
    """Refuses bytes that are not values of the type, which NumPy would notice on use only, or never."""
    if array.dtype.kind == "U":
        points = np.frombuffer(content, np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if points.max(initial=0) > _LAST_CODE_POINT:
            raise Damaged("an array of text holds invalid code points")
    if array.dtype.kind == "b" and np.frombuffer(content, np.uint8).max() > 1:
        raise Damaged("a boolean array holds values other than 0 and 1")
