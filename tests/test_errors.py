"""What error messages show of values, paths and names: one printable line, of limited length."""

from __future__ import annotations

import itertools
from pathlib import Path

from gmsa.errors import LONGEST_LIST, LONGEST_PATH, LONGEST_VALUE, cut, listed, short, shown


def test_what_is_short_is_shown_as_it_is() -> None:
    assert (cut("a b"), shown("a"), short(Path("a/b c")), listed(["a", "b"])) == ("a b", "'a'", "a/b c", "a, b")
    assert listed([]) == "none"


def test_of_a_long_path_the_end_is_shown() -> None:
    found = short("folder/" * 100 + "model.safetensors")
    assert found.startswith("…")
    assert found.endswith("/folder/model.safetensors")
    assert len(found) == LONGEST_PATH


def test_what_is_long_is_cut() -> None:
    text = "x" * 1_000_000
    assert len(cut(text)) == len(shown(text)) == LONGEST_VALUE
    for names in ([text], [text] * 1000, map(str, itertools.count())):
        assert len(listed(names)) == LONGEST_LIST
    assert listed(["a"] * 1000).endswith("…")


def test_nothing_commands_a_terminal() -> None:
    for name in ("\x1b[2J\n\t\x85", "\u202e", "\ud800", "\x9b"):
        for found in (cut(name), shown(name), short(name), listed([name])):
            assert found.isprintable(), ascii(found)
