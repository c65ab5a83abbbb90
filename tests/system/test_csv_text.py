"""Tables as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from gmsa.system.csv_text import csv_dicts, csv_text


def test_what_is_written_is_read_again() -> None:
    header, rows = ["id", "a,b"], [["x,1", 0.5], ['say "no"', None], ["two\nlines", 3]]
    text = csv_text(header, rows)
    assert text.splitlines()[0] == 'id,"a,b"'
    assert "\r" not in text
    found = list(csv.reader(io.StringIO(text)))
    assert found == [header, ["x,1", "0.5"], ['say "no"', ""], ["two\nlines", "3"]]


def test_rows_by_column() -> None:
    assert csv_dicts([{"a": 1}, {"b": 2, "a": 3}]) == "a,b\n1,\n3,2\n"
    assert csv_dicts([{"a": 1}], ["b", "a"]) == "b,a\n,1\n"
    assert csv_dicts([], ["b", "a"]) == "b,a\n"
    with pytest.raises(ValueError, match="lacks the columns b"):
        csv_dicts([{"a": 1, "b": 2}], ["a"])
