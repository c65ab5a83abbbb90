"""Cells and tables in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def pipes(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A Markdown table; columns that ``left`` names are flush left, the others flush right."""
    lines = [header, [":--" if column in left else "--:" for column in header], *rows]
    return "".join("| " + " | ".join(escape_markdown(part) for part in line) + " |\n" for line in lines)


def escape_latex(text: str) -> str:
    r"""Escapes what LaTeX would act on: ``\ & % $ # _ { } ~ ^`` and line breaks."""
    return "".join(_LATEX.get(character, character) for character in text)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # in the default font encoding these two print as other characters
    ">": r"\textgreater{}",
    "\n": " ",
}


def escape_markdown(text: str) -> str:
    """Escapes what would end a cell or a line of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def title(metric: str) -> str:
    """The heading of a metric's column: with the unit where it is percent."""
    return f"{metric} (%)" if _is_share(metric) else metric


def cell(metric: str, found: Mapping[str, Any], plus_minus: str = "±") -> str:
    """Mean and standard deviation of what :func:`spread` returns; a single value has no ±."""
    scale = 100 if _is_share(metric) else 1
    digits = 1 if metric == "seconds" else 2 if _is_share(metric) else 4
    mean = f"{scale * found['mean']:.{digits}f}"
    return mean if len(found["values"]) == 1 else f"{mean} {plus_minus} {scale * found['std']:.{digits}f}"


def _is_share(metric: str) -> bool:
    return "_acc_" in metric or "F1" in metric


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
