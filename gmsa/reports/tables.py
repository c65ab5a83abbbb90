"""Tables in Markdown and LaTeX, and their cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.errors import printable


def pipes(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A Markdown table; columns that ``left`` names are flush left, the others flush right."""
    lines = [header, [":--" if column in left else "--:" for column in header], *rows]
    return "".join("| " + " | ".join(escape_markdown(part) for part in line) + " |\n" for line in lines)


def tabular(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[str] = (),
    caption: str = "",
    wide: bool = False,
) -> str:
    r"""A LaTeX ``table``, aligned as :func:`pipes` does; needs ``\usepackage{booktabs}``.

    Args:
        wide: over both columns of a page, in small print.
    """
    first, *body = (" & ".join(map(escape_latex, line)) + r" \\" for line in [header, *rows])
    body = [f"{{}}{line}" if line[0] in "[*" else line for line in body]  # else an argument of the line break before
    columns = "".join("l" if column in left else "r" for column in header)
    kind = "table*" if wide else "table"
    return "\n".join(
        [
            rf"\begin{{{kind}}}[t]",
            r"\centering",
            *([r"\scriptsize"] if wide else []),
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            first,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{kind}}}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    r"""Escapes what LaTeX would act on, ``\ & % $ # _ { } ~ ^`` and line breaks; ± becomes a formula."""
    return "".join(_LATEX.get(character, character) for character in _in_one_line(text))


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # in the default font encoding these two print as other characters
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


def escape_markdown(text: str) -> str:
    """Escapes what would end a cell or a line of Markdown, and what would be read as HTML, a link or emphasis."""
    return _MARKDOWN.sub(r"\\\g<0>", _in_one_line(text))


_MARKDOWN = re.compile(
    r"""
      [|*]
    | \\(?=[!-/:-@\[-`{-~]|$)     # a backslash that would escape what follows
    | <(?=[a-zA-Z/!?])            # a tag, or a link in angle brackets
    | &(?=\#?\w+;)                # an entity
    | \](?=[(\[:])                # a link or an image
    | :(?=//) | (?<=www)\. | @    # what some readers make a link of by themselves
    | (?<!\S)_ | _(?!\S)          # emphasis; within a word it is none
    | (?<!\w)\$                  # a formula; an id such as video$_$clip is none
    | ^(?:[>\#] | [-+=](?=\s|$) | (?=```|~~~)[`~]) | (?<=^\d)[.)](?=\s|$)  # the beginning of a block
    | \#$                         # the end of a heading
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _in_one_line(text: str) -> str:
    """Text whose line breaks and tabs are spaces, and whose control characters are escaped."""
    return printable(re.sub(r"\r\n|[\r\n\t]", " ", text))


def title(metric: str) -> str:
    """The heading of a metric's column: with the unit where it is percent."""
    return f"{metric} (%)" if _is_share(metric) else metric


def cell(metric: str, found: Mapping[str, Any]) -> str:
    """``mean ± std`` of what :func:`~gmsa.reports.summary.spread` returns; a single value has no ±.

    The digits are the same in all tables: two of a percentage, one of seconds, four of all else.
    """
    scale = 100 if _is_share(metric) else 1
    digits = 1 if metric == "seconds" else 2 if _is_share(metric) else 4
    mean = f"{scale * found['mean']:.{digits}f}"
    return mean if len(found["values"]) == 1 else f"{mean} ± {scale * found['std']:.{digits}f}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is_share(metric: str) -> bool:
    return "_acc_" in metric or "F1" in metric
