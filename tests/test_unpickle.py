"""Nothing that a stranger made is run."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import os
import pickle
import pickletools
import struct
import subprocess
from collections import OrderedDict
from decimal import Decimal

import numpy as np
import pytest

from gmsa.data.unpickle import load
from gmsa.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
REMEDY = "gmsa reads arrays, lists, dicts, strings and numbers only. Re-save"


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def refuse(tmp_path, raw: bytes) -> str:
    """The one-line error that a pickle causes."""
    path = tmp_path / "features.pkl"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def read(tmp_path, raw: bytes):
    path = tmp_path / "features.pkl"
    path.write_bytes(raw)
    return load(path)


def assert_same(ours, theirs):
    if isinstance(theirs, np.ndarray):
        assert isinstance(ours, np.ndarray)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if theirs.dtype == object:
            assert_same(ours.ravel().tolist(), theirs.ravel().tolist())
        else:
            np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_pickle_reads(tmp_path, protocol):
    grid = np.arange(24.0).reshape(2, 3, 4)
    content = {
        "floats": [grid.astype(kind) for kind in ("f2", "f4", "f8", ">f2", ">f4", ">f8")],
        "whole": [grid.astype(kind) for kind in ("i1", "u2", ">i4", "i8", "?")],
        "layouts": [grid.T, np.asfortranarray(grid[0]), grid.transpose(1, 0, 2), grid[:, ::2], np.array(3.0)],
        "empty": [np.empty((0, 3), "f4"), np.empty((4, 0))],
        "text": [np.array(["ab", "größer"]), np.array([b"x", b"yz"]), "größer", b"", b"\xff\x00"],
        "objects": np.array([1, "a", None, np.ones((2, 2)), [np.float32(1)]], dtype=object),
        "scalars": [np.float16(2), np.float64(1), np.int64(3), np.bool_(True), np.str_("x"), np.bytes_(b"y")],
        "numbers": (1, -(2**80), 1.5, True, None, float("inf")),
    }
    shared = np.ones(3)
    content["shared"] = [shared, shared]
    raw = pickle.dumps(content, protocol)
    assert_same(read(tmp_path, raw), pickle.loads(raw))


def test_keeps_identity_of_shared_objects_and_cycles(tmp_path):
    cycle = [np.ones(2)]
    cycle += [cycle, cycle[0]]
    ours = read(tmp_path, pickle.dumps(cycle))
    assert ours[1] is ours
    assert ours[2] is ours[0]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_reads_files_of_both_numpy_majors(tmp_path, core):
    raw = pickle.dumps(np.arange(3.0), 0).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(read(tmp_path, raw.replace(b"numpy.core", core.encode())), np.arange(3.0))


def test_reads_strings_and_arrays_of_python_2(tmp_path):
    # As Python 2 wrote them: array content and text are both 8-bit strings.
    raw = (
        b"\x80\x02}(U\x03key" + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + struct.pack("<2f", 1.5, -2.0) + b"tbU\x01iU\x02\xe9yu."
    )
    ours = read(tmp_path, raw)
    assert ours["i"] == "éy"
    np.testing.assert_array_equal(ours["key"], np.array([1.5, -2.0], "f4"))


@pytest.mark.parametrize("name", ["mosi_dev.pkl", "mmmo.pkl"])
def test_reads_real_files_as_pickle_does(real_data, name):
    path = real_data(name)
    with path.open("rb") as file:
        assert_same(load(path), pickle.load(file))


# --- what is refused --------------------------------------------------------------------------------------------


def hostile(canary) -> dict[str, tuple[object, str]]:
    touch = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": (Call(os.system, touch), f"{os.system.__module__}.system"),
        "subprocess": (Call(subprocess.check_call, ["touch", str(canary)]), "subprocess.check_call"),
        "eval": (Call(eval, write), "eval"),
        "exec": (Call(exec, write), "exec"),
        "import": (Call(__import__, "antigravity"), "__import__"),
        "open": (Call(open, str(canary), "w"), "open"),
        "getattr": (Call(getattr, np.ones(2), "tofile"), "getattr"),
        "partial": (Call(functools.partial, os.system, touch), "functools.partial"),
        "numpy.load": (Call(np.load, str(canary)), "load"),
        "numpy.save": (Call(np.save, str(canary), np.ones(1)), "save"),
        "memmap": (Call(np.memmap, str(canary), "u1", "w+", 0, 4), "memmap"),
        "nested": ({"train": {"id": [np.ones(2), (Call(os.system, touch),)]}}, "system"),
        "in object array": (np.array([Call(os.system, touch), None], dtype=object), "system"),
        "as key": ({(Call(os.system, touch), 1): 2}, "system"),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", list(hostile("")))
def test_hostile_calls_are_refused_by_name_and_never_run(tmp_path, case, protocol):
    canary = tmp_path / "canary"
    content, name = hostile(canary)[case]
    message = refuse(tmp_path, pickle.dumps(content, protocol))
    assert not canary.exists()
    assert "refused: the pickle asks for '" in message
    assert name.split(".")[-1] + "'" in message or "builtin" in message or "functools" in message
    assert REMEDY in message


def test_the_same_pickles_do_run_in_plain_pickle(tmp_path):
    canary = tmp_path / "canary"
    content, _ = hostile(canary)["os.system"]
    pickle.loads(pickle.dumps(content))
    assert canary.exists()  # so the tests above would have seen it


def test_message_names_the_request(tmp_path):
    message = refuse(tmp_path, b"cos\nsystem\n(S'true'\ntR.")
    assert message == (
        f"{tmp_path}/features.pkl: refused: the pickle asks for 'os.system'; {REMEDY} the file with nothing else in it"
    )


def stack_global(module: str, name: str) -> bytes:
    def text(value: str) -> bytes:
        raw = value.encode()
        return b"\x8c" + bytes([len(raw)]) + raw

    return b"\x80\x04" + text(module) + text(name) + b"\x93"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "path.exists"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy", "f2py.os.system"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy._core.multiarray", "__loader__.load_module"),
        ("_codecs", "encode.__self__"),
        ("_codecs", "lookup"),
        ("builtins", "getattr"),
        ("builtins", "type"),
        ("builtins", "bytes.fromhex"),
        ("builtins", "complex"),
        ("copyreg", "_reconstructor"),
        ("gmsa.data.unpickle", "load"),
        ("numpy.ma.core", "_mareconstruct"),
        ("numpy", "matrix"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("pandas.core.frame", "DataFrame"),
        ("NUMPY", "ndarray"),
        ("numpy ", "ndarray"),
    ],
)
def test_only_exact_names_are_admitted(tmp_path, module, name):
    assert f"asks for '{module}.{name}'" in refuse(tmp_path, stack_global(module, name) + b".")


@pytest.mark.parametrize("value", [OrderedDict(a=1), Decimal("1"), 1j, {1, 2}, np.dtype("M8[s]"), os.stat("/")])
def test_harmless_but_unknown_types_are_refused_too(tmp_path, value):
    refuse(tmp_path, pickle.dumps(value, 2))


def test_other_opcodes_that_look_names_up(tmp_path):
    assert "'os.system'" in refuse(tmp_path, b"(S'true'\nios\nsystem\n.")  # INST
    assert "'os.system'" in refuse(tmp_path, b"(cos\nsystem\nS'true'\no.")  # OBJ
    assert "'subprocess.Popen'" in refuse(tmp_path, b"\x80\x02csubprocess\nPopen\n)\x81.")  # NEWOBJ
    assert "'subprocess.Popen'" in refuse(tmp_path, b"\x80\x04csubprocess\nPopen\n)}\x92.")  # NEWOBJ_EX


@pytest.mark.parametrize("raw", [b"Pos.system\n.", b"\x80\x02U\x09os.systemQ."])
def test_persistent_ids_are_refused(tmp_path, raw):
    assert "external object 'os.system'" in refuse(tmp_path, raw)


def test_extension_codes_are_refused_even_when_cached(tmp_path):
    raw = b"\x80\x02\x82\xf0(U\x04truetR."
    assert "unregistered extension code 240" in refuse(tmp_path, raw)
    module = os.system.__module__
    copyreg.add_extension(module, "system", 240)
    try:
        assert pickle.loads(raw[:4] + b".") is os.system  # fills copyreg's cache
        assert f"asks for '{module}.system'" in refuse(tmp_path, raw)
    finally:
        copyreg.remove_extension(module, "system", 240)


# --- admitted names, odd uses -----------------------------------------------------------------------------------

NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY = RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R"
DTYPE = b"cnumpy\ndtype\n"
FLOAT = DTYPE + b"X\x02\0\0\0f4\x89\x88\x87R"
OBJECT = DTYPE + b"X\x02\0\0\0O8\x89\x88\x87R"
FROMBUFFER = b"cnumpy.core.numeric\n_frombuffer\n"


def state(shape: bytes, dtype: bytes, raw: bytes) -> bytes:
    return b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(NDARRAY + b"K\x05\x85R", "not callable", id="ndarray is not called"),
        pytest.param(NDARRAY + b"K\x05\x85\x81", "", id="nor made by NEWOBJ"),
        pytest.param(RECONSTRUCT + DTYPE + b"K\x00\x85C\x01b\x87R", "another class", id="reconstruct another class"),
        pytest.param(RECONSTRUCT + b"NK\x00\x85C\x01b\x87R", "another class", id="reconstruct None"),
        pytest.param(RECONSTRUCT + b")R", "TypeError", id="too few arguments"),
        pytest.param(b"c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R", "encoding 'rot13'", id="other codec"),
        pytest.param(b"c_codecs\nencode\nK\x05X\x06\0\0\0latin1\x86R", "encoding", id="encode a number"),
        pytest.param(b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R", "TypeError", id="bytes of a size"),
        pytest.param(EMPTY + state(b"K\x02\x85", FLOAT, b"C\x04abcd"), "does not match", id="too short"),
        pytest.param(EMPTY + state(b"J\xff\xff\xff\xff\x85", FLOAT, b"C\x00"), "not a shape", id="negative shape"),
        pytest.param(
            EMPTY + state(b"G?\xf0\0\0\0\0\0\0\x85", FLOAT, b"C\x04abcd"), "not a shape", id="shape of floats"
        ),
        pytest.param(EMPTY + state(b"K\x01\x85", OBJECT, b"C\x08abcdefgh"), "does not match", id="pointers as bytes"),
        pytest.param(EMPTY + state(b"K\x02\x85", OBJECT, b"]NaN"[:3]), "", id="too few objects"),
        pytest.param(EMPTY + state(b"K\x01\x85", b"N", b"C\x04abcd"), "a NoneType", id="no type"),
        pytest.param(EMPTY + b"(tb", "ValueError", id="empty state"),
        pytest.param(EMPTY + b"K\x01a", "", id="append to an array"),
        pytest.param(DTYPE + b"X\x05\0\0\0f4,O8\x85R", "array type 'f4,O8'", id="type of several fields"),
        pytest.param(DTYPE + b"X\x02\0\0\0V8\x85R", "array type 'V8'", id="void"),
        pytest.param(DTYPE + b"]R", "", id="type of a list"),
        pytest.param(DTYPE + b"cnumpy\ndtype\n\x85R", "array type", id="type of a function"),
        pytest.param(FLOAT + b"(K\x03X\x01\0\0\0<N(U\x01atNK\x08K\x08K\x00tb", "arrays of records", id="forged fields"),
        pytest.param(FROMBUFFER + b"(C\x04abcd" + OBJECT + b"K\x01\x85U\x01CtR", "", id="objects from a buffer"),
        pytest.param(FROMBUFFER + b"(" + EMPTY + FLOAT + b"K\x00\x85U\x01CtR", "not bytes", id="view of an array"),
        pytest.param(b"cnumpy.core.multiarray\nscalar\n" + OBJECT + b"C\x08abcdefgh\x86R", "", id="scalar object"),
        pytest.param(b"c_codecs\nencode\n}X\x03\0\0\0foo" + b"K\x01sb", "", id="attribute of a stand-in"),
        pytest.param(b"c_codecs\nencode\nN}X\x08\0\0\0__call__K\x01s\x86b", "", id="method of a stand-in"),
    ],
)
def test_admitted_names_cannot_be_misused(tmp_path, body, reason):
    message = refuse(tmp_path, b"\x80\x03" + body + b".")
    assert reason in message


def test_forged_flags_do_not_make_pointers(tmp_path):
    # numpy itself would take these flags from the state, and then read raw bytes as object pointers.
    forged = OBJECT + b"(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    assert "does not match" in refuse(
        tmp_path, b"\x80\x03" + EMPTY + state(b"K\x01\x85", forged, b"C\x08AAAAAAAA") + b"."
    )


def test_impossible_code_points_are_found_on_reading(tmp_path):
    raw = pickle.dumps(np.array(["a"]), 3).replace(b"C\x04a\0\0\0", b"C\x04\xff\xff\xff\x7f")
    refuse(tmp_path, raw)


# --- files that are no pickles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty; get the file again"),
        (b"<!DOCTYPE html><html>Virus scan warning", "is a web page or XML, not a pickle; download the file itself"),
        (b"\n  <html>", "is a web page or XML"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "is a Git LFS pointer, not the data; run 'git lfs pull'",
        ),
        (b"PK\x03\x04abc", "is a zip archive"),
        (b"\x1f\x8b\x08", "is gzip-compressed"),
        (b"\x93NUMPY\x01", "is a .npy array"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
        (b"id,label\na,1\n", "not a readable pickle (UnpicklingError"),
        (b"\x80\x63.", "not a readable pickle (ValueError: unsupported pickle protocol: 99)"),
        (b".", "not a readable pickle"),
        (b"\x80\x05\x97.", "not a readable pickle"),  # NEXT_BUFFER without buffers
        (b"\x80\x02h\x07.", "not a readable pickle"),  # GET of what was never put
    ],
)
def test_other_files_are_told_by_their_kind(tmp_path, raw, words):
    assert words in refuse(tmp_path, raw)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_gives_one_line(tmp_path, protocol):
    raw = pickle.dumps({"train": {"id": ["a"], "audio": np.arange(12.0).reshape(1, 4, 3)}}, protocol)
    for size in range(1, len(raw)):
        refuse(tmp_path, raw[:size])
    assert "is cut short" in refuse(tmp_path, raw[:-1])


def test_damaged_bytes_raise_nothing_but_data_errors(tmp_path):
    raw = pickle.dumps({"a": [np.arange(5.0), "x", b"y", np.array([1, None], object)]}, 4)
    rng = np.random.default_rng(0)
    path = tmp_path / "features.pkl"
    for _ in range(300):
        damaged = bytearray(raw)
        for position in rng.integers(0, len(raw), 2):
            damaged[position] = rng.integers(256)
        if any(op.name in ("LONG_BINPUT", "BINBYTES8", "BYTEARRAY8") for op, _, _ in _opcodes(bytes(damaged))):
            continue  # asks for gigabytes; limits on memory are not there yet
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            load(path)


def _opcodes(raw: bytes):
    try:
        yield from pickletools.genops(io.BytesIO(raw))
    except Exception:
        return


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.pkl: does not exist; check the path"):
        load(tmp_path / "nowhere.pkl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_errors_while_reading_are_told(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("gmsa.data.unpickle._Unpickler", fail)
    assert "MemoryError" in refuse(tmp_path, b"\x80\x02N.")
