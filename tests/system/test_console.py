"""The console and its progress bar."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from gmsa.system.console import _console, console, progress_bar


class Terminal(io.StringIO):
    """A terminal of 80 columns that keeps what it shows."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """All lines that it showed at some time, without control codes; ``ESC[2K`` erases a line."""
        shown = re.split(r"[\r\n]|\x1b\[2K", self.getvalue())
        return [text for line in shown if (text := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line))]


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Terminal]]:
    """Puts stdout on a terminal: to be called by the test, before which pytest puts its own there."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    _console.cache_clear()

    def start() -> Terminal:
        monkeypatch.setattr(sys, "stdout", terminal := Terminal())
        return terminal

    yield start
    _console.cache_clear()


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "fixed:a: [bold]x[/bold] " + "word " * 40
    console().print(text)
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("label", ["cells", "[/b] is no markup", "a label that is much too long to stand beside a bar"])
def test_the_bar_fits_80_columns(on_a_terminal: Callable[[], Terminal], label: str) -> None:
    terminal = on_a_terminal()
    with progress_bar(label, 100_000, completed=99_000) as bar:
        bar.advance()
        bar.advance(9)
        console().print("said meanwhile")
        bar.update(completed=99_500, total=99_999)
        bar._bar.refresh()
    shown = terminal.lines()
    assert "said meanwhile" in {line.strip() for line in shown}
    bars = [line for line in shown if "/" in line]
    assert any("99500/99999" in line for line in bars), shown
    assert all(line.startswith(label[:20]) for line in bars)
    assert all(len(line) <= 80 for line in bars)
    assert all(re.search(r"\d:\d\d:\d\d +(-:--:--|\d:\d\d:\d\d)\s*$", line) for line in bars), bars


def test_a_bar_within_another_shows_nothing(on_a_terminal: Callable[[], Terminal]) -> None:
    terminal = on_a_terminal()
    with progress_bar("outer", 2) as outer:
        for _ in range(2):
            with progress_bar("inner", 3) as inner:
                inner.advance()
            outer.advance()
    text = terminal.getvalue()
    assert "outer" in text
    assert "inner" not in text
    with progress_bar("next", 2):
        pass
    assert "next" in terminal.getvalue()


def test_nothing_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("cells", 3) as bar:
        bar.advance()
        print("a line")
    assert capsys.readouterr() == ("a line\n", "")
