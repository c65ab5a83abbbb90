"""Files are whole or not there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from gmsa.errors import WriteError
from gmsa.system import files


def test_replaces_content_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file(tmp_path, monkeypatch, step, error):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error) if isinstance(error, KeyboardInterrupt) else WriteError):
        files.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_data_is_on_disk_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.bin", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append(("fsync", path.exists())), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(("replace", path.exists())), replace(a, b)))
    files.write_bytes(path, b"new")
    assert steps == [("fsync", False), ("replace", False), ("fsync", True)]


def test_temporary_file_lies_in_the_same_folder(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append((a, b)), replace(a, b)))
    files.write_bytes(tmp_path / "a.bin", b"x")
    ((temporary, target),) = seen
    assert temporary.parent == target.parent == tmp_path


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(WriteError, match=r"a\.txt': No such file or directory"):
        files.write_text(tmp_path / "nowhere" / "a.txt", "x")


@pytest.mark.skipif(os.name != "posix", reason="umask is POSIX")
def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_json_keeps_order_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": "±"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "±"\n}\n'
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            files.write_json(path, {"a": value})
    assert '"b": 1' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 7])
def test_sha256(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_bottom_floor_is_cheap_to_import():
    code = """import sys, gmsa.system.files, gmsa.metrics, gmsa.reports.summary, gmsa.figures
print([m for m in ("torch", "sklearn", "matplotlib", "scipy") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
