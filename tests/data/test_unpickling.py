"""Nothing that a stranger made is run."""

from __future__ import annotations

import copyreg
import io
import json
import mmap
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from helpers import honest_pickles as honest
from helpers import hostile_pickles as hostile
from helpers.time_limits import no_longer_than

from gmsa.data.unpickling import load_pickle
from gmsa.errors import DataError

PROTOCOLS = honest.PROTOCOLS
REMEDY = "gmsa reads arrays, lists, dicts, strings and numbers only. Re-save"
NUMPY126 = honest.read(Path(honest.__file__).with_name("numpy126.tar.xz"))
BIG = 2**20


def refuse(tmp_path, raw: bytes) -> str:
    """The one-line error that a pickle causes, said by what foresaw it."""
    path = tmp_path / "features.pkl"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        load_pickle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert "Error:" not in message
    return message


def read(tmp_path, raw: bytes):
    path = tmp_path / "features.pkl"
    path.write_bytes(raw)
    return load_pickle(path)


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.dtype.isnative == theirs.dtype.isnative
        assert ours.shape == theirs.shape
        assert ours.flags.c_contiguous == theirs.flags.c_contiguous
        assert ours.flags.f_contiguous == theirs.flags.f_contiguous
        if theirs.dtype == object:
            assert_same(ours.ravel().tolist(), theirs.ravel().tolist())
        else:
            assert not ours.size or not ours.flags.writeable
            assert ours.tobytes() == theirs.tobytes()
    elif isinstance(theirs, dict):
        assert list(map(type, ours)) == list(map(type, theirs))
        assert list(ours) == list(theirs)
        assert_same(list(ours.values()), list(theirs.values()))
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert ours == theirs


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", honest.CONTENTS)
def test_reads_what_pickle_reads(tmp_path, name, protocol):
    raw = pickle.dumps(honest.CONTENTS[name](), protocol)
    assert_same(read(tmp_path, raw), pickle.loads(raw))


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
@pytest.mark.parametrize("name", NUMPY126)
def test_reads_files_of_numpy_1(tmp_path, name):
    raw = NUMPY126[name]
    assert b"numpy._core" not in raw
    ours = read(tmp_path, raw)
    assert_same(ours, pickle.loads(raw))
    content = name.split(".")[0]
    assert pickle.dumps(_listed(ours)) == pickle.dumps(_listed(honest.CONTENTS[content]()))


def _listed(value):
    """With arrays as lists, which say the same whatever made them; equal objects are one, or not, by chance."""
    if isinstance(value, np.ndarray):
        return str(value.dtype.kind), value.shape, _listed(value.tolist())
    if isinstance(value, dict):
        return [(_listed(k), _listed(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [_listed(v) for v in value]
    return repr(value)


def test_there_are_enough_honest_files():
    assert len(NUMPY126) + len(honest.CONTENTS) * len(PROTOCOLS) >= 200


def test_keeps_identity_of_shared_objects(tmp_path):
    array = np.ones(3)
    shared = [array, [array], "a text", "a text"]
    ours = read(tmp_path, pickle.dumps([*shared, shared]))
    assert ours[0] is ours[1][0] is ours[4][0]
    assert ours[1] is ours[4][1]


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


@pytest.mark.parametrize("quoted", [False, True])
def test_reads_long_arrays_of_python_2(tmp_path, quoted):
    values = np.arange(30_000, dtype=np.float32) * 1.7
    content = values.tobytes()
    told = b"T" + struct.pack("<i", len(content)) + content
    if quoted:
        told = b"S'" + b"".join(b"\\x%02x" % byte for byte in content) + b"'\n"
    raw = hostile.array(hostile.number(30_000) + b"\x85", hostile.FLOAT, told) + b"."
    np.testing.assert_array_equal(read(tmp_path, raw), values)


def test_values_written_as_lines(tmp_path):
    raw = b"(I01\nI00\nI-5\nL5L\nL-5L\nF1.5\nF-1e-07\nFinf\nFnan\nS'it\\'s'\nS\"\\xe9\\n\"\nV\\u5b57\nl."
    ours = read(tmp_path, raw)
    assert str(ours) == str(pickle.loads(raw, encoding="latin1"))
    assert [type(value) for value in ours[:5]] == [bool, bool, int, int, int]


@pytest.mark.parametrize("name", ["mosi_dev.pkl", "mmmo.pkl"])
def test_reads_real_files_as_pickle_does(real_data, name):
    path = real_data(name)
    with path.open("rb") as file:
        assert_same(load_pickle(path), pickle.load(file))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", ["f4", "U20", "b1"])
def test_memory_of_large_arrays(tmp_path, code, protocol):
    """None from protocol 3 on, where they stay in the file; before, the array alone."""
    path = tmp_path / "large.pkl"
    array = np.zeros(8 * BIG // np.dtype(code).itemsize, code)
    path.write_bytes(pickle.dumps({"train": {"text": array, "id": ["a"]}}, protocol))
    tracemalloc.start()
    try:
        found = load_pickle(path)["train"]["text"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, array)
    if protocol >= 3:
        assert peak < BIG
        while not isinstance(found, memoryview):
            found = found.base
        assert isinstance(found.obj, mmap.mmap)
    else:
        assert peak < 8 * BIG * 1.3


def test_small_arrays_do_not_hold_on_to_the_file(tmp_path):
    found = read(tmp_path, pickle.dumps([np.zeros(4), "x" * 10**6]))[0]
    assert isinstance(found.base.base if isinstance(found.base, np.ndarray) else found.base, bytes)


# --- what is refused --------------------------------------------------------------------------------------------

HOSTILE = list(hostile.pickles(""))


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    """A file that hostile pickles would make, or delete, if they were run."""
    return tmp_path_factory.mktemp("cage") / "canary"


@pytest.fixture(scope="module")
def hostile_files(canary):
    return hostile.pickles(canary)


def test_there_are_enough_hostile_files():
    assert len(HOSTILE) >= 110


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(tmp_path, canary, hostile_files, case):
    raw, words = hostile_files[case]
    with no_longer_than(10):  # they take a tenth of a second; a machine may be busy
        message = refuse(tmp_path, raw)
    assert words in message
    assert not canary.exists()
    assert os.listdir(tmp_path) == ["features.pkl"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure memory")
def test_hostile_files_take_little_memory(tmp_path, hostile_files):
    for i, (raw, _) in enumerate(hostile_files.values()):
        (tmp_path / f"{i}.pkl").write_bytes(raw)
    command = [sys.executable, hostile.__file__, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(result.stdout)
    assert len(found) == len(HOSTILE)
    assert max(found.values()) < 300


def test_the_same_pickles_do_run_in_plain_pickle(canary, hostile_files):
    for protocol in (0, 2, 4):
        raw, _ = hostile_files[f"os.system, protocol {protocol}"]
        pickle.loads(raw)
        assert canary.exists()  # so the tests above would have seen it
        canary.unlink()


def test_message_names_the_request(tmp_path):
    message = refuse(tmp_path, b"cos\nsystem\n(S'true'\ntR.")
    assert message == (
        f"{tmp_path}/features.pkl: refused: the pickle asks for 'os.system'; {REMEDY} the file with nothing else in it"
    )


@pytest.mark.parametrize("value", [OrderedDict(a=1), Decimal("1"), 1j, {1, 2}, np.dtype("M8[s]"), os.stat("/")])
def test_harmless_but_unknown_types_are_refused_too(tmp_path, value):
    assert "refused: " in refuse(tmp_path, pickle.dumps(value, 2))


def test_extension_codes_are_refused_even_when_cached(tmp_path):
    raw = b"\x80\x02\x82\xf0(U\x04truetR."
    module = os.system.__module__
    copyreg.add_extension(module, "system", 240)
    try:
        assert pickle.loads(raw[:4] + b".") is os.system  # fills copyreg's cache
        assert "asks for an extension code" in refuse(tmp_path, raw)
    finally:
        copyreg.remove_extension(module, "system", 240)


def test_the_machine_knows_every_opcode(tmp_path):
    for opcode in pickletools.opcodes:
        assert "unknown opcode" not in refuse(tmp_path, opcode.code.encode("latin1") + b"(")


def test_nothing_in_the_machine_could_run_code():
    for path in Path(sys.modules[load_pickle.__module__].__file__).parent.glob("*.py"):
        for word in ("__import__", "importlib", "getattr", "eval(", "exec(", "Unpickler", "pickle.load"):
            assert word not in path.read_text(encoding="utf-8"), path


def test_limits_are_no_obstacle(tmp_path):
    raw = b"]" * 64 + b"a" * 63 + b"."
    assert read(tmp_path, raw) == pickle.loads(raw)
    for content in (
        dict.fromkeys(range(3000)),
        [{0: i, (1, "a"): i} for i in range(5000)],
        {"x" * 1024: 1},
        [[["same"] * 100] * 100] * 9,
        np.empty((2**20, 0)),
    ):
        raw = pickle.dumps(content)
        assert_same(read(tmp_path, raw), pickle.loads(raw))


# --- damaged files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_gives_one_line(tmp_path, protocol):
    raw = pickle.dumps({"train": {"id": ["a", 5.5], "audio": np.arange(12.0).reshape(1, 4, 3)}}, protocol)
    for size in range(1, len(raw)):
        refuse(tmp_path, raw[:size])
    for _, _, position in list(pickletools.genops(raw))[1:]:
        assert "is truncated" in refuse(tmp_path, raw[:position])


def mutated(rng: np.random.Generator, raw: bytes) -> bytes:
    """With some bytes changed, taken out, put in or repeated."""
    damaged = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        position, length = rng.integers(len(damaged)), rng.integers(1, 9)
        match rng.integers(6):
            case 0 | 1:
                damaged[position] = rng.integers(256)
            case 2:
                damaged[position] ^= 1 << rng.integers(8)
            case 3:
                del damaged[position : position + length]
            case 4:
                damaged[position:position] = rng.bytes(length)
            case 5:
                other = rng.integers(len(damaged))
                damaged[other:other] = damaged[position : position + length]
        damaged = damaged or bytearray(b"N")
    return bytes(damaged)


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_damaged_bytes_raise_nothing_but_data_errors(tmp_path, count):
    ragged = np.empty(2, object)
    ragged[:] = [np.ones((2, 2), np.float32), np.zeros((1, 2), np.float32)]
    content = {"a": [np.arange(5.0), "x", b"y", 2.5, -7], "b": np.array(["ab", "c"]), "c": ragged, 3: (np.int64(3), {})}
    originals = [pickle.dumps(content, protocol) for protocol in PROTOCOLS]
    originals += [NUMPY126[f"{name}.{protocol}.pkl"] for name in ("O", "U", "plain") for protocol in PROTOCOLS]
    originals += [pickle.dumps([np.arange(1100, dtype="u4"), 1], protocol) for protocol in PROTOCOLS]  # in the file
    rng = np.random.default_rng(0)
    path = tmp_path / "features.pkl"
    told = []
    for i in range(count):
        path.write_bytes(mutated(rng, originals[i % len(originals)]))
        try:
            with no_longer_than(10):
                found = load_pickle(path)
        except DataError as error:
            told.append(str(error))
        else:
            pickle.dump(found, io.BytesIO())  # looks at all of it
    assert count / 4 < len(told) < count
    assert not [message for message in told if "Error:" in message or not message.isprintable()]


# --- what cannot be read ----------------------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.pkl: does not exist; check the path"):
        load_pickle(tmp_path / "nowhere.pkl")
    with pytest.raises(DataError, match="is a folder, but no feature store"):
        load_pickle(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with no_longer_than(10), pytest.raises(DataError, match="is not a regular file"):
        load_pickle(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError(), "does not fit into memory"), (KeyError("a"), "(KeyError: 'a')")]
)
def test_errors_while_reading_are_told(tmp_path, monkeypatch, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr("gmsa.data.unpickling.reader.execute", fail)
    (tmp_path / "features.pkl").write_bytes(b"N.")
    with pytest.raises(DataError) as caught:
        load_pickle(tmp_path / "features.pkl")
    assert words in str(caught.value)
