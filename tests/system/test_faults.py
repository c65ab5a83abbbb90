"""What the commands say of errors that gmsa did not foresee."""

from __future__ import annotations

import errno
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gmsa import registry
from gmsa.system import cli, faults


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command says that ends in an error: one line, with exit code 1; its traceback is in ``tmp_path``."""
    monkeypatch.setattr(faults.tempfile, "tempdir", str(tmp_path))

    def say(act: Callable[[], object]) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.run(lambda _: act(), "train")
        assert ended.value.code == 1
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "Traceback" not in line
        assert len(line) <= 400 + len(str(tmp_path))
        return line.removeprefix("gmsa.train: error: ").rstrip("\n")

    return say


def fail(error: BaseException) -> object:
    raise error


def deeper() -> object:
    return deeper()


@pytest.mark.parametrize(
    ("act", "begins"),
    [
        (lambda: fail(KeyError("x")), "KeyError: 'x'; this is a fault of gmsa; please report it to the maintainers"),
        (lambda: fail(AssertionError()), "AssertionError; this is a fault of gmsa; please report it"),
        (lambda: fail(RuntimeError("a\n\x1b[2J" + "b" * 500)), "RuntimeError: a \\x1b[2Jbbb"),
        (lambda: "ä".encode("ascii"), "UnicodeEncodeError: 'ascii' codec can't encode"),
        (deeper, "RecursionError: maximum recursion depth exceeded"),
        (
            lambda: fail(FileNotFoundError(2, "No such file", "x")),
            "FileNotFoundError: [Errno 2] No such file: 'x'; this",
        ),
        (lambda: fail(BrokenPipeError(32, "Broken pipe")), "BrokenPipeError: [Errno 32] Broken pipe; this is a fault"),
    ],
    ids=["key", "bare", "long", "unicode", "recursion", "file", "pipe"],
)
def test_a_fault_is_one_line_and_a_file_with_the_traceback(
    said: Callable[..., str], tmp_path: Path, act: Callable[[], object], begins: str
) -> None:
    line = said(act)
    assert line.startswith(begins)
    file = Path(re.search(r"with '(.*)', which says where it happened$", line)[1])
    assert file.parent == tmp_path
    assert file.read_text().startswith("Traceback (most recent call last)")
    assert file.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (
            lambda: fail(MemoryError()),
            "memory ran out (MemoryError); use a smaller model, smaller batches or less data",
        ),
        (lambda: torch.empty(1 << 60), "memory ran out (RuntimeError: "),
        (lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried")), "memory ran out (OutOfMemoryError: CUDA"),
        (
            lambda: fail(OSError(errno.EMFILE, "Too many open files")),
            "the system failed ([Errno 24] Too many open files); raise the limit of open files (ulimit -n), and run",
        ),
    ],
    ids=["bare", "torch", "cuda", "files"],
)
def test_what_the_machine_lacks_is_no_fault(
    said: Callable[..., str], tmp_path: Path, act: Callable[[], object], line: str
) -> None:
    assert said(act).startswith(line)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_a_plugin_names_it(
    said: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import json\nclass Odd(Exception):\n    def __str__(self): raise ValueError\n"
    code += "def wrong(): raise Odd\ndef within(): json.loads('{')\ndef calls(act): act()\n"
    (tmp_path / "faulty_plugin.py").write_text(code)
    registry.load_plugins(["faulty_plugin"], tmp_path)
    plugin = importlib.import_module("faulty_plugin")
    assert said(plugin.wrong).startswith("Odd; this is a fault of the plug-in 'faulty_plugin'; please report it to its")
    assert "fault of the plug-in 'faulty_plugin'" in said(plugin.within)
    # What gmsa does wrong when a plug-in calls it is gmsa's.
    assert "fault of gmsa" in said(lambda: plugin.calls(lambda: registry.Registry("x", None)))


def test_the_line_comes_where_no_file_can_be_written(
    said: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults.tempfile, "tempdir", str(tmp_path / "none"))
    assert said(lambda: fail(KeyError("x"))).endswith("please report it to the maintainers of gmsa")


def test_where_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    class Metadata:
        def get_all(self, name: str) -> list[str]:
            return ["Homepage, https://a.example", "Issues, https://a.example/issues"]

    monkeypatch.setattr(faults, "metadata", lambda name: Metadata())
    assert faults.report_to() == "at https://a.example/issues"
