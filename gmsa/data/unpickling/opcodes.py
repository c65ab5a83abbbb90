"""The loop that executes a pickle, and the opcodes for stack, memo, containers and names."""

from __future__ import annotations

import mmap
import pickle
import re
import struct
from typing import Any

from gmsa.data.unpickling import literals  # noqa: F401  # importing it registers the opcodes of numbers and text
from gmsa.data.unpickling.machine import HANDLERS, Machine, on
from gmsa.data.unpickling.names import Cut, Damaged, Refused, described, find_name

_STOP = pickle.STOP[0]
_INDEX = re.compile(rb"[0-9]{1,18}")
_NAME = re.compile(rb"[A-Za-z0-9_.<>]{1,200}")
_UINT4 = struct.Struct("<I").unpack_from
_UINT8 = struct.Struct("<Q").unpack_from


def execute(data: bytes | mmap.mmap) -> tuple[Any, int]:
    """Executes a pickle; returns its value, which may still hold tokens instead of data, and the number of opcodes.

    Raises:
        Refused: the pickle asks for something that is not allowed.
        Damaged: the pickle violates its format.
        Cut: the pickle is truncated.
    """
    m, handlers, last, position = Machine(data), HANDLERS, len(data) - 1, 0
    try:
        # Only STOP may be the last byte, so the first byte of an argument can be read without a check.
        while position < last and (opcode := data[position]) != _STOP:
            m.count += 1
            position = handlers[opcode](m, position + 1)
    except IndexError:
        raise Damaged("it pops from an empty stack") from None
    except UnicodeError:
        raise Damaged("it holds text that is not in its encoding") from None
    except struct.error:
        raise Cut from None
    if position > last or data[position] != _STOP:
        raise Cut
    if position < last:
        raise Refused(f"{last - position} bytes follow the end of the pickle")
    if len(m.stack) != 1 or m.below:
        raise Damaged(f"it ends with {len(m.stack)} values and {len(m.below)} open marks")
    return m.stack[0], m.count + 1


def _refuse(what: str, *opcodes: bytes) -> None:
    @on(*opcodes)
    def refuse(m: Machine, position: int) -> int:
        raise Refused(f"the pickle asks for {what}")


# --- structure of the file ---------------------------------------------------------------------------------------


@on(pickle.PROTO)
def _proto(m: Machine, position: int) -> int:
    if m.data[position] > 5:
        raise Damaged(f"unknown protocol {m.data[position]}")
    return position + 1


@on(pickle.FRAME)
def _frame(m: Machine, position: int) -> int:
    m.end(position + 8, _UINT8(m.data, position)[0])
    return position + 8


@on(pickle.MARK)
def _mark(m: Machine, position: int) -> int:
    m.below.append(m.stack)
    m.stack = []
    return position


@on(pickle.POP)
def _pop(m: Machine, position: int) -> int:
    if m.stack or not m.below:
        m.stack.pop()
    else:
        m.close_mark()
    return position


@on(pickle.POP_MARK)
def _pop_mark(m: Machine, position: int) -> int:
    m.close_mark()
    return position


@on(pickle.DUP)
def _dup(m: Machine, position: int) -> int:
    m.stack.append(m.stack[-1])
    return position


@on(pickle.MEMOIZE)
def _memoize(m: Machine, position: int) -> int:
    m.memo[len(m.memo)] = m.stack[-1]
    return position


@on(pickle.BINPUT)
def _binput(m: Machine, position: int) -> int:
    m.put(m.data[position])
    return position + 1


@on(pickle.LONG_BINPUT)
def _long_binput(m: Machine, position: int) -> int:
    m.put(_UINT4(m.data, position)[0])
    return position + 4


@on(pickle.BINGET)
def _binget(m: Machine, position: int) -> int:
    m.get(m.data[position])
    return position + 1


@on(pickle.LONG_BINGET)
def _long_binget(m: Machine, position: int) -> int:
    m.get(_UINT4(m.data, position)[0])
    return position + 4


@on(pickle.PUT)
def _put(m: Machine, position: int) -> int:
    line, position = m.line(position)
    m.put(_index(line))
    return position


@on(pickle.GET)
def _get(m: Machine, position: int) -> int:
    line, position = m.line(position)
    m.get(_index(line))
    return position


def _index(line: bytes) -> int:
    if not _INDEX.fullmatch(line):
        raise Damaged("it has a memo entry without a number")
    return int(line)


# --- containers --------------------------------------------------------------------------------------------------


@on(pickle.EMPTY_LIST)
def _empty_list(m: Machine, position: int) -> int:
    m.stack.append([])
    return position


@on(pickle.EMPTY_TUPLE)
def _empty_tuple(m: Machine, position: int) -> int:
    m.stack.append(())
    return position


@on(pickle.EMPTY_DICT)
def _empty_dict(m: Machine, position: int) -> int:
    m.stack.append({})
    return position


@on(pickle.LIST)
def _list(m: Machine, position: int) -> int:
    items = m.close_mark()
    m.stack.append(items)
    return position


@on(pickle.TUPLE)
def _tuple(m: Machine, position: int) -> int:
    items = m.close_mark()
    m.stack.append(tuple(items))
    return position


@on(pickle.TUPLE1)
def _tuple1(m: Machine, position: int) -> int:
    m.stack[-1] = (m.stack[-1],)
    return position


@on(pickle.TUPLE2)
def _tuple2(m: Machine, position: int) -> int:
    m.stack[-2:] = [(m.stack[-2], m.stack[-1])]
    return position


@on(pickle.TUPLE3)
def _tuple3(m: Machine, position: int) -> int:
    m.stack[-3:] = [(m.stack[-3], m.stack[-2], m.stack[-1])]
    return position


@on(pickle.DICT)
def _dict(m: Machine, position: int) -> int:
    items = m.close_mark()
    m.stack.append({})
    m.set_items(m.stack[-1], items)
    return position


@on(pickle.APPEND)
def _append(m: Machine, position: int) -> int:
    return _extend(m, [m.stack.pop()], position)


@on(pickle.APPENDS)
def _appends(m: Machine, position: int) -> int:
    return _extend(m, m.close_mark(), position)


def _extend(m: Machine, items: list[Any], position: int) -> int:
    if type(m.stack[-1]) is not list:
        raise Damaged(f"it appends to {described(m.stack[-1])}")
    m.stack[-1].extend(items)
    return position


@on(pickle.SETITEM)
def _setitem(m: Machine, position: int) -> int:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items(m.stack[-1], [key, value])
    return position


@on(pickle.SETITEMS)
def _setitems(m: Machine, position: int) -> int:
    items = m.close_mark()
    m.set_items(m.stack[-1], items)
    return position


# --- names and objects -----------------------------------------------------------------------------------


@on(pickle.GLOBAL)
def _global(m: Machine, position: int) -> int:
    module, name, position = _name(m, position)
    m.stack.append(find_name(module, name))
    return position


@on(pickle.STACK_GLOBAL)
def _stack_global(m: Machine, position: int) -> int:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise Damaged(f"it names {described(module)} and {described(name)}")
    m.stack.append(find_name(module, name))
    return position


@on(pickle.REDUCE)
def _reduce(m: Machine, position: int) -> int:
    arguments = m.stack.pop()
    m.stack[-1] = m.maker.reduce(m.stack[-1], arguments, m.fills_array())
    return position


@on(pickle.BUILD)
def _build(m: Machine, position: int) -> int:
    state = m.stack.pop()
    m.stack[-1] = m.maker.set_state(m.stack[-1], state)
    return position


@on(pickle.INST)
def _inst(m: Machine, position: int) -> int:
    module, name, _ = _name(m, position)
    raise Refused(f"the pickle asks for an instance of {f'{module}.{name}'[:200]!r}")


@on(pickle.PERSID)
def _persid(m: Machine, position: int) -> int:
    line, _ = m.line(position)
    raise Refused(f"the pickle asks for the external object {line[:200].decode('latin1')!r}")


@on(pickle.BINPERSID)
def _binpersid(m: Machine, position: int) -> int:
    raise Refused(f"the pickle asks for the external object {described(m.stack[-1])}")


def _name(m: Machine, position: int) -> tuple[str, str, int]:
    module, position = m.line(position)
    name, position = m.line(position)
    if not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
        raise Damaged("it has an invalid name")
    return module.decode(), name.decode(), position


_refuse("an object of a class", pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX)
_refuse("an extension code", pickle.EXT1, pickle.EXT2, pickle.EXT4)
_refuse("a set", pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)
_refuse("a buffer outside of the file", pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
