"""Tables in Markdown and LaTeX, their metrics and their cells."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gmsa.errors import ConfigError, printable
from gmsa.metrics import COLUMNS, higher_is_better

HEADLINE = {
    "mosi": ("MAE", "Corr", "Non0_acc_2", "Non0_F1_score", "Mult_acc_7"),
    "sims": ("MAE", "Corr", "Mult_acc_2", "F1_score", "Mult_acc_5"),
    "intensity": ("MAE", "RMSE", "Corr", "CCC"),
    "classes": ("accuracy", "weighted_F1", "macro_F1", "unweighted_accuracy"),
}
"""The metrics that a paper's table has, by the target's."""
SHORT = {
    "Has0_acc_2": "Acc-2 (has 0)", "Has0_F1_score": "F1 (has 0)", "Non0_acc_2": "Acc-2", "Non0_F1_score": "F1",
    "accuracy": "Acc", "weighted_F1": "WF1", "macro_F1": "MF1", "unweighted_accuracy": "UA",
    "Mult_acc_2": "Acc-2", "F1_score": "F1", "Mult_acc_3": "Acc-3", "Mult_acc_5": "Acc-5", "Mult_acc_7": "Acc-7",
}  # fmt: skip
"""What papers call MMSA's metrics, where there is little room."""


def headline(metrics: Iterable[str]) -> list[str]:
    """The main ones of some metrics: a paper's, and those that are not the target's, such as a user's own."""
    there = list(metrics)
    signs = {"Mult_acc_3": "sims", "Has0_acc_2": "mosi", "Mult_acc_7": "mosi", "accuracy": "classes"}
    target = next((target for metric, target in signs.items() if metric in there), "intensity")
    return [m for m in HEADLINE[target] if m in there] + [m for m in there if m not in COLUMNS[target]]


def best_rows(metric: str, means: Sequence[float]) -> list[int]:
    """Places of the best of two means or more; none where nobody knows which values are better."""
    try:
        best = (max if higher_is_better(metric) else min)(means)
    except (ConfigError, ValueError):  # of a plug-in that is not imported; no means
        return []
    return [place for place, mean in enumerate(means) if mean == best] if len(means) > 1 else []


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
    strong: Collection[tuple[int, int]] = (),
) -> str:
    r"""A LaTeX ``table``, aligned as :func:`pipes` does; needs ``\usepackage{booktabs}``.

    What follows a ± is in tiny print.

    Args:
        wide: over both columns of a page, in smaller print.
        strong: cells in bold, by row and column.
    """
    first = " & ".join(map(escape_latex, header)) + r" \\"
    body = [
        " & ".join(
            escape_latex(part) if header[column] in left else _latex_number(part, (place, column) in strong)
            for column, part in enumerate(row)
        )
        + r" \\"
        for place, row in enumerate(rows)
    ]
    body = [f"{{}}{line}" if line[0] in "[*" else line for line in body]  # else an argument of the line break before
    columns = "".join("l" if column in left else "r" for column in header)
    kind = "table*" if wide else "table"
    return "\n".join(
        [
            rf"\begin{{{kind}}}[t]",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            r"\scriptsize" if wide else r"\footnotesize",
            r"\setlength{\tabcolsep}{2pt}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
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


def _latex_number(text: str, strong: bool) -> str:
    """A cell's number and its deviation, which is small."""
    mean, mark, deviation = text.partition(" ± ")
    number = rf"\textbf{{{escape_latex(mean)}}}" if strong else escape_latex(mean)
    small = escape_latex(deviation[1:] if deviation.startswith("0.") else deviation)  # .05: papers have little room
    return number + (rf"\,{{\tiny$\pm${small}}}" if mark else "")


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
    return f"{metric} (%)" if is_share(metric) else metric


def cell(metric: str, found: Mapping[str, Any], fewer: bool = False) -> str:
    """``mean ± std`` of what :func:`~gmsa.reports.summary.spread` returns; a single value has no ±.

    The digits are the same in all tables: two of a percentage, one of seconds, four of all else.

    Args:
        fewer: a digit less, for the column of a paper.
    """
    scale = 100 if is_share(metric) else 1
    digits = 1 if metric == "seconds" else (2 if is_share(metric) else 4) - fewer
    mean = f"{scale * found['mean']:.{digits}f}"
    return mean if len(found["values"]) == 1 else f"{mean} ± {scale * found['std']:.{digits}f}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def is_share(metric: str) -> bool:
    """Whether tables show a metric in percent."""
    return "_acc_" in metric or "F1" in metric or metric in ("accuracy", "unweighted_accuracy")
