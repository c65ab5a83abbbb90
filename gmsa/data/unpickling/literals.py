"""Pickle opcodes that carry a value: numbers, text and bytes."""

from __future__ import annotations

import codecs
import pickle
import re
import struct

from gmsa.data.unpickling.machine import LARGE, Machine, on
from gmsa.data.unpickling.names import Damaged, Refused

_LONGEST_INTEGER = 64
_INTEGER = re.compile(rb"[+-]?[0-9]{1,154}")
_FLOAT = re.compile(rb"[+-]?(?:(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,4})?|inf|nan)")

_INT4 = struct.Struct("<i").unpack_from
_UINT2 = struct.Struct("<H").unpack_from
_UINT4 = struct.Struct("<I").unpack_from
_UINT8 = struct.Struct("<Q").unpack_from
_DOUBLE = struct.Struct(">d").unpack_from


# --- numbers, truth values and None ------------------------------------------------------------------------------


@on(pickle.NONE)
def _none(m: Machine, position: int) -> int:
    m.stack.append(None)
    return position


@on(pickle.NEWTRUE)
def _true(m: Machine, position: int) -> int:
    m.stack.append(True)
    return position


@on(pickle.NEWFALSE)
def _false(m: Machine, position: int) -> int:
    m.stack.append(False)
    return position


@on(pickle.BININT1)
def _binint1(m: Machine, position: int) -> int:
    m.stack.append(m.data[position])
    return position + 1


@on(pickle.BININT2)
def _binint2(m: Machine, position: int) -> int:
    m.stack += _UINT2(m.data, position)
    return position + 2


@on(pickle.BININT)
def _binint(m: Machine, position: int) -> int:
    m.stack += _INT4(m.data, position)
    return position + 4


@on(pickle.BINFLOAT)
def _binfloat(m: Machine, position: int) -> int:
    m.stack += _DOUBLE(m.data, position)
    return position + 8


@on(pickle.LONG1)
def _long1(m: Machine, position: int) -> int:
    return _long(m, position + 1, m.data[position])


@on(pickle.LONG4)
def _long4(m: Machine, position: int) -> int:
    return _long(m, position + 4, _INT4(m.data, position)[0])


def _long(m: Machine, position: int, length: int) -> int:
    if not 0 <= length <= _LONGEST_INTEGER:
        raise Refused(f"the pickle holds an integer of {length} bytes")
    stop = m.end(position, length)
    m.stack.append(int.from_bytes(m.data[position:stop], "little", signed=True))
    return stop


@on(pickle.INT, pickle.LONG)
def _decimal(m: Machine, position: int) -> int:
    code, (line, stop) = m.data[position - 1], m.line(position)
    if code == pickle.LONG[0]:
        line = line.removesuffix(b"L")
    if not _INTEGER.fullmatch(line):
        raise Damaged("it holds an invalid or too long integer")
    is_truth = code == pickle.INT[0] and line in (b"00", b"01")
    m.stack.append(line == b"01" if is_truth else int(line))
    return stop


@on(pickle.FLOAT)
def _float(m: Machine, position: int) -> int:
    line, position = m.line(position)
    if not _FLOAT.fullmatch(line):
        raise Damaged("it holds an invalid number")
    m.stack.append(float(line))
    return position


# --- text and bytes ----------------------------------------------------------------------------------------------


@on(pickle.UNICODE)
def _unicode(m: Machine, position: int) -> int:
    stop = m.line_end(position)
    m.stack.append(m.text(position, stop, "raw-unicode-escape"))
    return stop + 1


@on(pickle.SHORT_BINUNICODE)
def _short_binunicode(m: Machine, position: int) -> int:
    start = position + 1
    stop = m.end(start, m.data[position])
    m.stack.append(m.text(start, stop, "utf-8"))
    return stop


@on(pickle.BINUNICODE)
def _binunicode(m: Machine, position: int) -> int:
    stop = m.end(position + 4, _UINT4(m.data, position)[0])
    m.stack.append(m.text(position + 4, stop, "utf-8"))
    return stop


@on(pickle.BINUNICODE8)
def _binunicode8(m: Machine, position: int) -> int:
    stop = m.end(position + 8, _UINT8(m.data, position)[0])
    m.stack.append(m.text(position + 8, stop, "utf-8"))
    return stop


@on(pickle.STRING)
def _string(m: Machine, position: int) -> int:
    stop = m.line_end(position)
    start, inner = position + 1, stop - 1
    if inner < start or m.data[position] != m.data[inner] or m.data[inner] not in b"'\"":
        raise Damaged("it holds a string without quotes")
    try:
        content = codecs.escape_decode(m.view[start:inner])[0]
    except ValueError:
        raise Damaged("it holds a string with an invalid escape") from None
    # Python 2 stored the content of arrays as strings.
    m.stack.append(content if len(content) >= LARGE and m.fills_array() else content.decode("latin1"))
    return stop + 1


@on(pickle.BINSTRING)
def _binstring(m: Machine, position: int) -> int:
    length = _INT4(m.data, position)[0]
    if length < 0:
        raise Damaged("it holds a string of negative length")
    return _bytes(m, position + 4, length, is_text=True)


@on(pickle.SHORT_BINSTRING)
def _short_binstring(m: Machine, position: int) -> int:
    return _bytes(m, position + 1, m.data[position], is_text=True)


@on(pickle.SHORT_BINBYTES)
def _short_binbytes(m: Machine, position: int) -> int:
    return _bytes(m, position + 1, m.data[position])


@on(pickle.BINBYTES)
def _binbytes(m: Machine, position: int) -> int:
    return _bytes(m, position + 4, _UINT4(m.data, position)[0])


@on(pickle.BINBYTES8)
def _binbytes8(m: Machine, position: int) -> int:
    return _bytes(m, position + 8, _UINT8(m.data, position)[0])


@on(pickle.BYTEARRAY8)
def _bytearray8(m: Machine, position: int) -> int:
    position = _bytes(m, position + 8, _UINT8(m.data, position)[0])
    if not m.fills_array():
        m.stack[-1] = bytearray(m.stack[-1])
    return position


def _bytes(m: Machine, position: int, length: int, is_text: bool = False) -> int:
    stop = m.end(position, length)
    if length >= LARGE and m.fills_array():
        m.stack.append(m.view[position:stop])
    else:
        content = m.data[position:stop]
        m.stack.append(content.decode("latin1") if is_text else content)
    return stop
