"""The README is short, its numbers are those of the results, and what it promises is there.

``tests/docs/test_pages.py`` runs its commands and its Python, as those of every page.
"""

from __future__ import annotations

import re
from pathlib import Path

from helpers.pages import blocks, prose

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")
MOST_LINES = 130


def test_it_fits_two_screens() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_every_number_at_a_glance_is_one_of_the_results() -> None:
    [table] = re.findall(r"(?ms)^## Results at a glance$(.*?)^## ", README)
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 6
    files = [file.read_text() for file in (ROOT / "benchmarks" / "results").glob("*.md")]
    for row in rows:
        scores = re.findall(r"\d\.\d{3} ± \d\.\d{3}", row)
        assert len(scores) >= 2, row
        found = [text for text in files if all(score in text for score in scores)]
        assert found, row  # of one file: a number of another question is wrong here
        lines = [line for text in found for line in text.splitlines() if any(score in line for score in scores)]
        # Beside an interval, or in a column of its own.
        measured = [float(p) for p in re.findall(r"\] (?:p = )?(\d\.\d+)", "".join(lines))]
        measured += [float(p) for text in found for p in re.findall(r"(?<=\| )0\.\d{3}(?= \|)", text)]
        for p in row.strip("| ").rpartition("|")[2].split(";"):
            digits = len(p.strip().partition(".")[2])
            assert float(p) in [round(value, digits) for value in measured], row


def test_the_quick_start_ends_in_predictions() -> None:
    code = [block.text for block in blocks(PAGE) if block.language == "python"]
    assert "gmsa.fit(" in code[0]
    assert code[-1].index("run.predict(") > code[-1].index("gmsa.fit(")


def test_the_two_commands_come_first() -> None:
    first = next(block for block in blocks(PAGE) if block.language == "bash")
    assert first.text == "make train\nmake test\n"
    assert "gmsa.train --config configs/mosi_graph.yaml" in (ROOT / "Makefile").read_text()


def test_it_leads_to_every_drawer_of_the_documentation() -> None:
    linked = set(re.findall(r"\]\(docs/(\w+)/", prose(PAGE)))
    assert linked == {"start", "guides", "explanation", "reference", "results"}
