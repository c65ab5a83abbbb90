"""Streams that are closed, full, or without letters: what is printed is lost, and nothing else."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gmsa.__main__ import main
from gmsa.system import cli
from gmsa.system.console import console, progress_bar
from gmsa.system.streams import Forgiving, ReaderGone, forgiving_streams
from gmsa.training.callbacks.progress import Progress


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


FULL, GONE = OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command on these streams; returns its exit code."""

    def end(act: Callable[[], object], out: object, err: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                cli.run(lambda _: act(), "train")
            except SystemExit as ended:
                return int(ended.code or 0)
            finally:
                assert (sys.stdout, sys.stderr) == (out, err)
        return 0

    return end


def speak() -> None:
    print("a line", flush=True)
    console().print("a line → of the console")
    console(stderr=True).print("another")
    sys.stdout.writelines(["a", "b"])
    with progress_bar("cells", 1) as bar:
        bar.advance()
    progress = Progress()
    progress.on_message("ü")
    progress.on_end(None)


@pytest.mark.parametrize("broken", [None, closed(), Broken(FULL), Broken(GONE)], ids=["none", "closed", "full", "gone"])
def test_a_stderr_that_cannot_be_written_changes_nothing(ends: Callable[..., int], broken: object) -> None:
    out = io.StringIO()
    assert ends(speak, out, broken) == 0
    assert out.getvalue() == "a line\na line → of the console\nabü\n"


@pytest.mark.parametrize(
    ("broken", "code", "said"),
    [
        (None, 0, ""),
        (Broken(FULL), 1, "gmsa.train: error: stdout cannot be written (No space left on device); the rest is done\n"),
        (Broken(GONE), 141, ""),
    ],
    ids=["none", "full", "gone"],
)
def test_a_stdout_that_cannot_be_written(ends: Callable[..., int], broken: object, code: int, said: str) -> None:
    err = io.StringIO()
    assert ends(lambda: print("a line"), broken, err) == code
    assert err.getvalue() == said
    assert ends(lambda: main(["train", "--help"]), broken, err) == code
    assert ends(lambda: main(["trian"]), broken, err) == 2  # a mistake is a mistake


def test_work_goes_on_where_stdout_is_full(ends: Callable[..., int]) -> None:
    done = []
    assert ends(lambda: (speak(), done.append(True)), Broken(FULL), io.StringIO()) == 1
    assert done


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_the_encoding_lacks_are_escaped(ends: Callable[..., int], encoding: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert ends(speak, out, io.StringIO()) == 0
    out.seek(0)
    text = out.read()
    assert "a line \\u2192 of the console\n" in text
    assert out.errors == "strict"


@pytest.mark.parametrize("broken", [None, closed(), Broken(FULL)], ids=["none", "closed", "full"])
def test_the_console_forgives_in_any_program(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        console().print("→")
        with progress_bar("cells", 1) as bar:
            bar.advance()
        progress = Progress()
        progress.on_message("→")
        progress.on_end(None)


def test_a_callback_that_nobody_reads_ends_as_that(ends: Callable[..., int]) -> None:
    from gmsa.training.callbacks import CallbackList

    assert ends(lambda: CallbackList([Progress()]).on_message("x"), Broken(GONE), io.StringIO()) == 141


def test_a_forgiving_stream_is_a_stream() -> None:
    inner = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = Forgiving(inner)
    assert (stream.encoding, stream.buffer, stream.isatty()) == ("utf-8", inner.buffer, False)
    assert print("x", file=stream, flush=True) is None
    assert copy.copy(stream).encoding == "utf-8"
    gone = Forgiving(Broken(GONE))
    with pytest.raises(ReaderGone):
        gone.write("x")
    assert gone.write("said once") == 9


def test_forgiving_streams_nest() -> None:
    before = sys.stdout
    with forgiving_streams() as outer, forgiving_streams() as inner:
        assert sys.stdout is inner
        assert inner is not outer
    assert sys.stdout is before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is full here")
@pytest.mark.parametrize(
    ("redirected", "code", "lines"),
    [
        (">&-", 0, 0),
        ("2>&-", 0, 0),
        (">&- 2>&- <&-", 0, 0),
        ("> /dev/full", 1, 1),
        ("2> /dev/full", 0, 0),
        ("> /dev/full 2>&1", 1, 0),
        ("| head -1", 141, 0),
    ],
)
@pytest.mark.parametrize("arguments", ["gmsa.config", "gmsa train --help"])
def test_the_streams_of_a_process(redirected: str, code: int, lines: int, arguments: str) -> None:
    line = f"set -o pipefail; {sys.executable} -m {arguments} {redirected}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=os.environ)
    if redirected == "| head -1" and ended.returncode == 0:
        return  # it was done before the reader went
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("\n") == lines, ended.stderr
