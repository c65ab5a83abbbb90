"""Hostile pickles; ``python tests/helpers/hostile_pickles.py FOLDER`` prints the memory that reading each takes."""

from __future__ import annotations

import builtins
import codecs
import ctypes
import functools
import importlib
import json
import marshal
import operator
import os
import pickle
import pty
import runpy
import shutil
import struct
import subprocess
import sys
import timeit
import types
import webbrowser
from collections.abc import Callable
from pathlib import Path

import numpy as np

NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY = RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R"
DTYPE = b"cnumpy\ndtype\n"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
FROMBUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
ENCODE = b"c_codecs\nencode\n"
BYTES = b"c__builtin__\nbytes\n"
NOT_SIZED = b"J\xff\xff\xff\xffJ\xff\xff\xff\xff"


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Restored:
    """Pickles as an object whose attributes are set."""

    def __init__(self, state):
        self.__dict__.update(state)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def dtype(code: str, order: str | None = None, rest: bytes = b"NNN" + NOT_SIZED + b"K\x00") -> bytes:
    """A type, with its state if there is an order."""
    made = DTYPE + text(code) + b"\x89\x88\x87R"
    return made if order is None else made + b"(K\x03" + text(order) + rest + b"tb"


FLOAT = dtype("f4", "<")
OBJECT = dtype("O8", "|", b"NNN" + NOT_SIZED + b"K?")
TEXT = dtype("U1", "<", b"NNNK\x04K\x04K\x08")


def state(shape: bytes, kind: bytes, content: bytes) -> bytes:
    return b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


def array(shape: bytes, kind: bytes, content: bytes) -> bytes:
    return EMPTY + state(shape, kind, content)


def calls(canary) -> dict[str, tuple[bytes, str]]:
    """Calls of real functions, in every place where a call can stand."""
    touch, write = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    system = Call(os.system, touch)
    shell = os.system.__module__
    objects = {
        "os.system": (system, f"{shell}.system"),
        "os.popen": (Call(os.popen, touch), "popen"),
        "os.mkdir": (Call(os.mkdir, str(canary)), f"{shell}.mkdir"),
        "os.putenv": (Call(os.putenv, "A", "b"), f"{shell}.putenv"),
        "os._exit": (Call(os._exit, 0), f"{shell}._exit"),
        "subprocess.check_call": (Call(subprocess.check_call, ["touch", str(canary)]), "subprocess.check_call"),
        "subprocess.Popen": (Call(subprocess.Popen, ["touch", str(canary)]), "subprocess.Popen"),
        "pty.spawn": (Call(pty.spawn, ["touch", str(canary)]), "pty.spawn"),
        "eval": (Call(eval, write), "builtin"),
        "exec": (Call(exec, write), "builtin"),
        "compile": (Call(compile, write, "a", "exec"), "builtin"),
        "import": (Call(__import__, "antigravity"), "builtin"),
        "open": (Call(open, str(canary), "w"), "open"),
        "getattr": (Call(getattr, np.ones(2), "tofile"), "builtin"),
        "setattr": (Call(setattr, np.ones(2), "shape", (2, 1)), "builtin"),
        "map": (Call(builtins.map, os.system, [touch]), "builtin"),
        "type": (Call(type, "A", (), {}), "builtin"),
        "bytearray": (bytearray(b"abc"), "bytearray"),
        "importlib": (Call(importlib.import_module, "antigravity"), "importlib.import_module"),
        "runpy": (Call(runpy.run_path, str(canary)), "run_path"),
        "partial": (Call(functools.partial, os.system, touch), "functools.partial"),
        "reduce": (Call(functools.reduce, os.system, [touch]), "reduce"),
        "attrgetter": (operator.attrgetter("system"), "operator.attrgetter"),
        "methodcaller": (operator.methodcaller("system", touch), "operator.methodcaller"),
        "timeit": (Call(timeit.timeit, write), "timeit.timeit"),
        "rmtree": (Call(shutil.rmtree, str(canary)), "shutil.rmtree"),
        "browser": (Call(webbrowser.open, "http://localhost"), "webbrowser.open"),
        "marshal": (Call(marshal.loads, marshal.dumps(compile(write, "a", "exec"))), "marshal.loads"),
        "pickle.loads": (Call(pickle.loads, pickle.dumps(system)), "loads"),
        "codecs.decode": (Call(codecs.decode, b"a", "rot13"), "_codecs.decode"),
        "codecs.open": (Call(codecs.open, str(canary), "w"), "codecs.open"),
        "ctypes": (Call(ctypes.string_at, 0), "ctypes.string_at"),
        "namespace": (types.SimpleNamespace(a=1), "SimpleNamespace"),
        "numpy.load": (Call(np.load, str(canary)), "load"),
        "numpy.save": (Call(np.save, str(canary), np.ones(1)), "save"),
        "numpy.fromfile": (Call(np.fromfile, str(canary)), "fromfile"),
        "numpy.memmap": (Call(np.memmap, str(canary), "u1", "w+", 0, 4), "memmap"),
        "attributes": (Restored({"a": system}), ""),
        "within": ({"train": {"id": [np.ones(2), (system,)]}}, "system"),
        "in an object array": (np.array([system, None], dtype=object), "system"),
        "in ragged arrays": (np.array([[np.ones(1)], [system]], dtype=object), "system"),
        "as a key": ({(system, 1): 2}, "system"),
        "as an array": ({"train": {"text": Call(np.ndarray.tofile, np.ones(2), str(canary))}}, "getattr"),
    }
    return {
        f"{name}, protocol {protocol}": (
            pickle.dumps(content, protocol, fix_imports=False),
            f"asks for '{words}'" if "." in words else words,
        )
        for name, (content, words) in objects.items()
        for protocol in ((0, 2, 4) if name != "bytearray" else (0, 2))
    }


NAMES = (
    ("os", "path.exists"),
    ("numpy", "ndarray.tofile"),
    ("numpy", "dtype.__class__"),
    ("numpy", "f2py.os.system"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "_reconstruct.__globals__"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy._core.multiarray", "__loader__.load_module"),
    ("numpy._core.numeric", "_frombuffer.__code__"),
    ("numpy.testing._private.utils", "runstring"),
    ("_codecs", "encode.__self__"),
    ("_codecs", "lookup"),
    ("_codecs", "register"),
    ("builtins", "getattr"),
    ("builtins", "type"),
    ("builtins", "bytes.fromhex"),
    ("builtins", "complex"),
    ("builtins", "bytearray"),
    ("__builtin__", "str"),
    ("copyreg", "_reconstructor"),
    ("copy_reg", "_reconstructor"),
    ("copyreg", "__newobj__"),
    ("gmsa.data.unpickling.reader", "load_pickle"),
    ("numpy.ma.core", "_mareconstruct"),
    ("numpy", "matrix"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch", "load"),
    ("pandas.core.frame", "DataFrame"),
    ("NUMPY", "ndarray"),
    ("numpy ", "ndarray"),
    ("", ""),
    ("numpy\n", "ndarray"),
    ("__main__", "\u202e\x1b[31m"),
)


def opcodes() -> dict[str, tuple[bytes, str]]:
    """Opcodes that have no place in data."""
    return {
        "INST": (b"(S'true'\nios\nsystem\n.", "'os.system'"),
        "OBJ of a function": (b"(cos\nsystem\nS'true'\no.", "'os.system'"),
        "OBJ of an array": (b"(" + NDARRAY + b"K\x05o.", "an object of a class"),
        "NEWOBJ": (b"csubprocess\nPopen\n)\x81.", "'subprocess.Popen'"),
        "NEWOBJ of an array": (NDARRAY + b"K\x05\x85\x81.", "an object of a class"),
        "NEWOBJ_EX": (NDARRAY + b")}\x92.", "an object of a class"),
        "EXT1": (b"\x82\xf0(U\x04truetR.", "an extension code"),
        "EXT2": (b"\x83\xf0\x00.", "an extension code"),
        "EXT4": (b"\x84\xf0\x00\x00\x00.", "an extension code"),
        "PERSID": (b"Pos.system\n.", "external object 'os.system'"),
        "BINPERSID": (b"U\x09os.systemQ.", "external object 'os.system'"),
        "NEXT_BUFFER": (b"\x97.", "a buffer outside of the file"),
        "READONLY_BUFFER": (b"C\x01a\x98.", "a buffer outside of the file"),
        "EMPTY_SET": (b"\x8f.", "a set"),
        "ADDITEMS": (b"](K\x01\x90.", "a set"),
        "FROZENSET": (b"(K\x01\x91.", "a set"),
        "unknown opcode": (b"N\xff.", "unknown opcode 0xff"),
        "protocol 6": (b"\x80\x06N.", "unknown protocol 6"),
    }


def misuse() -> dict[str, tuple[bytes, str]]:
    """Admitted names, odd uses."""
    latin1 = text("latin1")
    return {
        "ndarray is called": (NDARRAY + b"K\x05\x85R.", "calls 'ndarray' with (an int)"),
        "reconstruct another class": (RECONSTRUCT + DTYPE + b"K\x00\x85C\x01b\x87R.", "another class"),
        "reconstruct None": (RECONSTRUCT + b"NK\x00\x85C\x01b\x87R.", "another class"),
        "reconstruct with a size": (RECONSTRUCT + NDARRAY + b"M\xff\xff\x85C\x01b\x87R.", "'reconstruct' with"),
        "reconstruct nothing": (RECONSTRUCT + b")R.", "'reconstruct' with ()"),
        "arguments as a list": (RECONSTRUCT + b"]R.", "arguments are a list"),
        "a list is called": (b"])R.", "calls a list"),
        "an array is called": (array(b"K\x01\x85", FLOAT, raw(b"abcd")) + b")R.", "calls a ndarray"),
        "other codec": (ENCODE + text("a") + text("rot13") + b"\x86R.", "with ('a', 'rot13')"),
        "encode a number": (ENCODE + b"K\x05" + latin1 + b"\x86R.", "with (an int, 'latin1')"),
        "encode beyond latin1": (ENCODE + text("\u5b57") + latin1 + b"\x86R.", "not in its encoding"),
        "encode with errors": (ENCODE + text("a") + latin1 + text("ignore") + b"\x87R.", "'encode' with"),
        "bytes of a size": (BYTES + b"J\xff\xff\xff\x7f\x85R.", "'bytes' with (an int)"),
        "bytes of a list": (BYTES + b"]\x85R.", "'bytes' with (a list)"),
        "too short": (array(b"K\x02\x85", FLOAT, raw(b"abcd")) + b".", "does not match its 4 bytes"),
        "too long": (array(b"K\x02\x85", FLOAT, raw(b"abcdefghi")) + b".", "does not match its 9 bytes"),
        "negative shape": (array(number(-1) + b"\x85", FLOAT, raw(b"")) + b".", "not a tuple of sizes"),
        "negative twice": (array(number(-1) * 2 + b"\x86", FLOAT, raw(b"abcd")) + b".", "not a tuple of sizes"),
        "shape of floats": (array(b"G?\xf0\0\0\0\0\0\0\x85", FLOAT, raw(b"abcd")) + b".", "not a tuple of sizes"),
        "shape of truth": (array(b"\x88\x85", FLOAT, raw(b"abcd")) + b".", "not a tuple of sizes"),
        "33 axes": (array(b"(" + b"K\x01" * 33 + b"t", FLOAT, raw(b"abcd")) + b".", "not a tuple of sizes"),
        "pointers as bytes": (array(b"K\x01\x85", OBJECT, raw(b"abcdefgh")) + b".", "does not match a bytes"),
        "too few objects": (array(b"K\x02\x85", OBJECT, b"(Nl") + b".", "does not match a list"),
        "objects of a tuple": (array(b"K\x01\x85", OBJECT, b"N\x85") + b".", "does not match a tuple"),
        "content of an array": (
            array(b"K\x01\x85", FLOAT, array(b"K\x01\x85", FLOAT, raw(b"abcd"))) + b".",
            "not bytes but a ndarray",
        ),
        "no type": (array(b"K\x01\x85", b"N", raw(b"abcd")) + b".", "whose type is a NoneType"),
        "empty state": (EMPTY + b"(tb.", "the state of an array"),
        "another version": (EMPTY + b"(K\x02K\x01\x85" + FLOAT + b"\x89" + raw(b"abcd") + b"tb.", "state of an array"),
        "state of a dict": (EMPTY + b"}b.", "the state of an array"),
        "state twice": (
            array(b"K\x01\x85", FLOAT, raw(b"abcd")) + state(b"K\x01\x85", FLOAT, raw(b"abcd")) + b".",
            "sets the state of a ndarray",
        ),
        "state of a list": (b"]]b.", "sets the state of a list"),
        "append to an array": (EMPTY + b"K\x01a.", "appends to a Pending"),
        "attribute of a function": (ENCODE + b"}" + text("foo") + b"K\x01sb.", "sets the state of the function"),
        "method of a function": (ENCODE + b"N}" + text("__call__") + b"K\x01s\x86b.", "sets the state of the function"),
        "type of several fields": (DTYPE + text("f4,O8") + b"\x85R.", "array type 'f4,O8'"),
        "void": (DTYPE + text("V8") + b"\x85R.", "array type 'V8'"),
        "dates": (DTYPE + text("M8") + b"\x85R.", "array type 'M8'"),
        "complex": (DTYPE + text("c8") + b"\x85R.", "array type 'c8'"),
        "type in other digits": (DTYPE + text("f\u0664") + b"\x85R.", "array type 'f\u0664'"),
        "type with a newline": (DTYPE + text("f4\n") + b"\x85R.", r"array type 'f4\n'"),
        "type of a list": (DTYPE + b"]\x85R.", "array type a list"),
        "type of a function": (DTYPE + DTYPE + b"\x85R.", "array type the function 'dtype'"),
        "objects out of a buffer": (
            FROMBUFFER + b"(" + raw(b"abcdefgh") + OBJECT + b"K\x01\x85" + text("C") + b"tR.",
            "objects made from bytes",
        ),
        "buffer in no order": (
            FROMBUFFER + b"(" + raw(b"abcd") + FLOAT + b"K\x01\x85" + text("A") + b"tR.",
            "in the order 'A'",
        ),
        "axes twice": (
            FROMBUFFER + b"(" + raw(b"abcd") + FLOAT + b"K\x01K\x01\x86" + text("K") + b"K\x00K\x00\x86tR.",
            "not a permutation",
        ),
        "view of an array": (
            FROMBUFFER + b"(" + EMPTY + FLOAT + b"K\x00\x85" + text("C") + b"tR.",
            "not bytes but a Pending",
        ),
        "scalar object": (SCALAR + OBJECT + raw(b"abcdefgh") + b"\x86R.", "an object as a number"),
        "scalar of two": (SCALAR + FLOAT + raw(b"abcdefgh") + b"\x86R.", "does not match its 8 bytes"),
        "no such character": (array(b"K\x01\x85", TEXT, raw(b"\xff\xff\xff\x7f")) + b".", "invalid code points"),
        "half true": (array(b"K\x01\x85", dtype("b1", "|"), raw(b"\x02")) + b".", "values other than 0 and 1"),
        "a function as data": (NDARRAY + b".", "the function 'ndarray' as data"),
        "a function in a list": (b"](" + ENCODE + b"e.", "the function 'encode' as data"),
        "a type as data": (FLOAT + b"\x85.", "a Dtype as data"),
        "an array without content": (EMPTY + b".", "a Pending as data"),
        "an array before its content": (
            b"]" + EMPTY + b"\x94ah\x00" + state(b"K\x01\x85", FLOAT, raw(b"abcd")) + b"0.",
            "a Pending as data",
        ),
        "the file itself as data": (
            EMPTY + b"(" + raw(bytes(2**17)) + b"\x94" + b"1" + b"0h\x00.",
            "a memoryview as data",
        ),
        "text not decoded as data": (ENCODE + text("a" * 2**17) + b"\x86.", "as data"),
    }


def forged() -> dict[str, tuple[bytes, str]]:
    """Types whose state numpy would believe: it then reads raw bytes as pointers."""
    sizes = NOT_SIZED
    kinds = {
        "objects without flags": dtype("O8", "|", b"NNN" + sizes + b"K\x00"),
        "floats with the flags of objects": dtype("f4", "<", b"NNN" + sizes + b"K?"),
        "floats that are pointers": dtype("f8", "<", b"NNN" + sizes + b"K\x05"),
        "all flags": dtype("i8", "<", b"NNN" + sizes + number(-1)),
        "flags as an array": dtype("f4", "<", b"NNN" + sizes + array(b"K\x01\x85", FLOAT, raw(b"abcd"))),
        "fields": dtype("f4", "<", b"N(" + text("a") + b"t}" + text("a") + OBJECT + b"K\x00\x86sK\x08K\x08K\x00"),
        "subarray": dtype("f4", "<", OBJECT + b"K\x02\x85\x86NN" + sizes + b"K\x00"),
        "fields without names": dtype("f4", "<", b"NN}" + sizes + b"K\x00"),
        "another size": dtype("f4", "<", b"NNN" + number(1000) + b"K\x04K\x00"),
        "text of another size": dtype("U1", "<", b"NNNM\xff\xffK\x04K\x08"),
        "bytes of negative size": dtype("S4", "|", b"NNN" + number(-4) + b"K\x01K\x00"),
        "metadata": dtype("f4", "<", b"NNN" + sizes + b"K\x00}"),
        "version 4": DTYPE + text("f4") + b"\x89\x88\x87R(K\x04" + text("<") + b"NNN" + sizes + b"K\x00}tb",
        "no order": dtype("f4", "|"),
        "order of one byte": dtype("i1", ">"),
        "order in words": dtype("f4", "little"),
        "order as a number": DTYPE + text("f4") + b"\x89\x88\x87R(K\x03K\x01NNN" + sizes + b"K\x00tb",
        "empty state": DTYPE + text("f4") + b"\x89\x88\x87R)b",
        "state of a dict": DTYPE + text("f4") + b"\x89\x88\x87R}b",
        "state twice": FLOAT + b"(K\x03" + text(">") + b"NNN" + sizes + b"K\x00tb",
    }
    return {
        f"type: {name}": (array(b"K\x01\x85", kind, raw(b"A" * 8)) + b".", "type f4" if "version" in name else "")
        for name, kind in kinds.items()
    }


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small files that ask for much memory, much time or much stack."""
    cut, huge = "is truncated", struct.pack("<Q", 2**63 - 1)
    again = "repeats its content until it exceeds the file"
    content = raw(bytes(400_000)) + b"\x94"
    items = b"(" + b"N" * 100_000 + b"l\x94"
    collide = b"".join(b"\x8a\x0c" + ((2**61 - 1) * i).to_bytes(12, "little") + b"N" for i in range(60_000))

    def tower(level: Callable[[bytes], bytes], levels: int = 60) -> bytes:
        """Each level is made from ten times the one below."""
        made = b"".join(level(b"h" + bytes([i])) + b"\x940" for i in range(levels))
        return b"N\x940" + made + b"h" + bytes([levels]) + b"."

    return {
        "memo index of 2**32": (b"Nr\xff\xff\xff\xff.", "numbers its memo up to 4294967295 in 2 opcodes"),
        "memo index of a line": (b"Np99999999999999999\n.", "numbers its memo"),
        "memo index of 255": (b"Nq\xff.", "numbers its memo up to 255 in 2 opcodes"),
        "negative memo index": (b"Np-1\n.", "without a number"),
        "memo index of 5000 digits": (b"Np" + b"9" * 5000 + b"\n.", "without a number"),
        "memo of nothing": (b"Nh\x07.", "entry 7 of its memo"),
        "memo of nothing, long": (b"Nj\x07\x00\x00\x00.", "entry 7 of its memo"),
        "memo of nothing, as a line": (b"Ng7\n.", "entry 7 of its memo"),
        "BINBYTES of 4 GB": (b"B\xff\xff\xff\xff.", cut),
        "BINBYTES8": (b"\x8e" + huge + b".", cut),
        "BINBYTES8, all bits": (b"\x8e" + b"\xff" * 8 + b".", cut),
        "BYTEARRAY8": (b"\x96" + huge + b".", cut),
        "BINUNICODE of 4 GB": (b"X\xff\xff\xff\xff.", cut),
        "BINUNICODE8": (b"\x8d" + huge + b".", cut),
        "BINSTRING": (b"T\xff\xff\xff\x7f.", cut),
        "BINSTRING of negative length": (b"T\xff\xff\xff\xff.", "negative length"),
        "FRAME": (b"\x95" + huge + b"N.", cut),
        "LONG1 of 255 bytes": (b"\x8a\xff" + b"a" * 255 + b".", "an integer of 255 bytes"),
        "LONG4 of 2 GB": (b"\x8b\xff\xff\xff\x7f.", "an integer of 2147483647 bytes"),
        "LONG4 of negative length": (b"\x8b\xff\xff\xff\xff.", "an integer of -1 bytes"),
        "INT of a million digits": (b"I" + b"9" * 10**6 + b"\n.", "an invalid or too long integer"),
        "LONG of a million digits": (b"L" + b"9" * 10**6 + b"L\n.", "an invalid or too long integer"),
        "FLOAT of a million digits": (b"F" + b"9" * 10**6 + b"\n.", "an invalid number"),
        "FLOAT in words": (b"F1_0\n.", "an invalid number"),
        "INT in words": (b"I 1\n.", "an invalid or too long integer"),
        "name of a megabyte": (b"c" + b"a" * 10**6 + b"\nb\n.", "invalid name"),
        "text of half a character": (b"X\x01\x00\x00\x00\xc3.", "not in its encoding"),
        "string with a wrong escape": (b"S'\\x4'\n.", "invalid escape"),
        "string without quotes": (b"Sabc\n.", "without quotes"),
        "shape of 2**60": (array(b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85", FLOAT, raw(b"")) + b".", "sizes"),
        "shape of 2**40": (
            array(b"\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"\x85", FLOAT, raw(b"abcd")) + b".",
            "does not match its 4 bytes",
        ),
        "2**40 rows without features": (
            array(b"\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"K\x00\x86", FLOAT, raw(b"")) + b".",
            "an empty array with over",
        ),
        "2**40 empty texts": (
            array(b"\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"\x85", dtype("U0"), raw(b"")) + b".",
            "does not match its 0 bytes",
        ),
        "text of gigabytes": (array(b"K\x01\x85", dtype("U999999999"), raw(b"abcd")) + b".", ""),
        "empty texts of gigabytes": (array(b"K\x00\x85", dtype("U999999999"), raw(b"")) + b".", ""),
        "the same text a thousand times": (
            text("a" * 400_000) + b"\x94" + text("latin1") + b"\x94(" + (ENCODE + b"h\x00h\x01\x86R") * 1000 + b"l.",
            again,
        ),
        "the same bytes a thousand times": (
            b"0".join([content, TEXT + b"\x94", number(100_000) + b"\x85\x94"])
            + b"0("
            + (EMPTY + b"(K\x01h\x02h\x01\x89h\x00tb") * 1000
            + b"l.",
            again,
        ),
        "the same list a thousand times": (
            b"0".join([items, OBJECT + b"\x94", number(100_000) + b"\x85\x94"])
            + b"0("
            + (EMPTY + b"(K\x01h\x02h\x01\x89h\x00tb") * 1000
            + b"l.",
            again,
        ),
        "the same Python 2 string": (
            b"T"
            + struct.pack("<i", 400_000)
            + b"a" * 400_000
            + b"\x940"
            + FLOAT
            + b"\x940"
            + number(100_000)
            + b"\x85\x940("
            + (EMPTY + b"(K\x01h\x02h\x01\x89h\x00tb") * 1000
            + b"l.",
            again,
        ),
        "the same scalar": (
            content
            + b"0"
            + dtype("U100000", "<", b"NNN" + number(400_000) + b"K\x04K\x08")
            + b"\x940("
            + (SCALAR + b"h\x01h\x00\x86R") * 1000
            + b"l.",
            again,
        ),
        "60 levels of lists": (tower(lambda below: b"(" + below * 10 + b"l"), "repeats its lists"),
        "60 levels of tuples": (tower(lambda below: b"(" + below * 10 + b"t"), "repeats its lists"),
        "60 levels of dicts": (
            tower(lambda below: b"}(" + b"".join(b"K" + bytes([k]) + below for k in range(10)) + b"u"),
            "repeats its lists",
        ),
        "60 levels of object arrays": (
            tower(lambda below: array(b"K\x0a\x85", OBJECT, b"(" + below * 10 + b"l")),
            "repeats its lists",
        ),
        "lists squared": (b"(" + b"N" * 3000 + b"l\x940(" + b"h\x00" * 3000 + b"l.", "repeats its lists"),
        "deep lists": (b"]" * 100_000 + b"a" * 99_999 + b".", "over 64 levels"),
        "deep lists from within": (b"(" * 100_000 + b"l" * 100_000 + b".", "over 64 levels"),
        "deep dicts": (b"}K\x01" * 50_000 + b"N" + b"s" * 50_000 + b".", "over 64 levels"),
        "65 levels": (b"]" * 65 + b"a" * 64 + b".", "over 64 levels"),
        "65 levels, the deepest first": (
            b"]" * 40 + b"a" * 39 + b"\x940(" + b"]" * 26 + b"h\x00" + b"a" * 26 + b"h\x00l.",
            "over 64 levels",
        ),
        "a deep tuple as a key": (b"}N" + b"\x85" * 100_000 + b"Ns.", "a tuple as a key"),
        "a repeated tuple as a key": (b"}N" + b"2\x86" * 60 + b"Ns.", "a tuple as a key"),
        "a list as a key": (b"}]Ns.", "a list as a key"),
        "an array as a key": (b"}" + array(b"K\x01\x85", FLOAT, raw(b"abcd")) + b"Ns.", "a ndarray as a key"),
        "a function as a key": (b"}" + DTYPE + b"Ns.", "the function 'dtype' as a key"),
        "an endless key": (b"}" + text("a" * 10_000) + b"Ns.", "a key of over 1024 characters"),
        "an endless part of a key": (b"}" + raw(b"a" * 10_000) + b"\x85Ns.", "a key of over 1024 characters"),
        "a key of many parts": (b"}(" + b"K\x01" * 10_000 + b"tNs.", "a key of over 16 parts"),
        "keys that collide": (b"}(" + collide + b"u.", "keys that are not text"),
        "a list in itself": (b"]\x94h\x00a.", "contains itself"),
        "a dict in itself": (b"}\x94K\x01h\x00s.", "contains itself"),
        "a list in its tuple": (b"]\x94h\x00\x85\x94a0h\x01.", "contains itself"),
        "a list in its object array": (
            b"]\x94" + array(b"K\x01\x85", OBJECT, b"(h\x00l") + b"a.",
            "contains itself",
        ),
    }


def structure() -> dict[str, tuple[bytes, str]]:
    """Pickles that do not add up."""
    good = pickle.dumps({"a": np.arange(3.0)})
    return {
        "two pickles": (good + good, f"refused: {len(good)} bytes follow the end"),
        "a hostile second pickle": (good + b"cos\nsystem\n(S'true'\ntR.", "bytes follow the end of the pickle"),
        "a newline after STOP": (good + b"\n", "1 bytes follow"),
        "zeros after STOP": (good + bytes(4096), "4096 bytes follow"),
        "no STOP": (b"\x80\x04N", "is truncated"),
        "STOP alone": (b".", "ends with 0 values"),
        "two values": (b"NN.", "ends with 2 values"),
        "open mark": (b"(N.", "1 open marks"),
        "mark never set": (b"Nt.", "a mark that was never set"),
        "POP of nothing": (b"0.", "empty stack"),
        "POP_MARK of nothing": (b"1.", "a mark that was never set"),
        "DUP of nothing": (b"2.", "empty stack"),
        "APPEND to nothing": (b"Na.", "empty stack"),
        "APPEND to a dict": (b"}Na.", "appends to a dict"),
        "APPEND to a tuple": (b")Na.", "appends to a tuple"),
        "APPENDS to text": (text("a") + b"(Ne.", "appends to 'a'"),
        "SETITEM of a list": (b"]NNs.", "adds keys to a list"),
        "SETITEMS of a key alone": (b"}(Nu.", "a key without a value"),
        "DICT of a key alone": (b"(Nd.", "a key without a value"),
        "TUPLE3 of two": (b"NN\x87.", "empty stack"),
        "across a mark": (b"N(\x85.", "empty stack"),
        "REDUCE of nothing": (b")R.", "empty stack"),
        "BUILD of nothing": (b"Nb.", "empty stack"),
        "STACK_GLOBAL of numbers": (b"K\x01K\x02\x93.", "names an int and an int"),
        "GLOBAL of one line": (b"cos\n.", "is truncated"),
        "PUT of nothing": (b"p0\n.", "empty stack"),
        "MEMOIZE of nothing": (b"\x94.", "empty stack"),
    }


FILES = {
    "a web page": (b"<!DOCTYPE html><html>Virus scan warning", "is a web page or XML, not a pickle; download the file"),
    "a web page after spaces": (b"\n  <html>", "is a web page or XML"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
        "is a Git LFS pointer, not the data; run 'git lfs pull'",
    ),
    "an empty file": (b"", "is empty; download the file again"),
    "a zip archive": (b"PK\x03\x04abc", "is a zip archive"),
    "a gzip file": (b"\x1f\x8b\x08", "is gzip-compressed"),
    "a .npy file": (b"\x93NUMPY\x01", "is a .npy array"),
    "an HDF5 file": (b"\x89HDF\r\n", "is an HDF5 file"),
    "a table": (b"id,label\na,1\n", "not a readable pickle (it has an invalid name)"),
    "JSON": (b'{"train": {}}\n', "not a readable pickle (it has the unknown opcode 0x7b"),
    "YAML": (b"data:\n  path: a\n", "not a readable pickle"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ""),
    "a program": (b"\x7fELF\x02\x01\x01", "not a readable pickle (it has the unknown opcode 0x7f"),
    "zeros": (bytes(4096), "not a readable pickle (it has the unknown opcode 0x00"),
    "one byte": (b"\x80", "is truncated"),
}


def pickles(canary) -> dict[str, tuple[bytes, str]]:
    """Hostile files by what they try, each with words of the message that refuses it."""
    names = {f"name {i}": (stack_global(*name) + b".", "asks for '") for i, name in enumerate(NAMES)}
    return {
        **calls(canary), **names, **opcodes(), **misuse(), **forged(), **bombs(), **structure(), **FILES,
    }  # fmt: skip


def memory_of_reading(folder: Path) -> dict[str, float]:
    """MB by which the memory of this process rose at most while reading each file."""
    from gmsa.data.unpickling import load_pickle
    from gmsa.errors import DataError

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

    found = {}
    for path in sorted(folder.iterdir()):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = status("VmRSS")
        try:
            load_pickle(path)
        except DataError:
            found[path.name] = (status("VmHWM") - before) / 1000
    return found


if __name__ == "__main__":
    print(json.dumps(memory_of_reading(Path(sys.argv[1]))))
