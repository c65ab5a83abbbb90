"""The parts of a self-contained page. Text from data is escaped here, and only here."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from gmsa.errors import printable
from gmsa.figures.canvas import BLUE, LINES, ORANGE, SKY, YELLOW
from gmsa.reports.summary import SYNTHETIC_NOTE

STYLE = f"""\
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1b2028; --soft: #5a6472; --line: #d9dee5; --band: #f4f6f8;
  --accent: {BLUE}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #14181d; --ink: #e4e8ed; --soft: #a3adba; --line: #343c46;
  --band: #1c2229; --accent: {SKY}; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1080px; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }}
h1 {{ font-size: 1.8rem; line-height: 1.25; margin: .5rem 0 1rem; }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }}
p {{ margin: .6rem 0; max-width: 75ch; }}
.banner {{ background: {YELLOW}; color: #1b2028; padding: .6rem 1rem; border-radius: 6px; font-weight: 600;
  max-width: none; }}
dl {{ display: grid; grid-template-columns: minmax(9rem, max-content) minmax(0, 1fr); gap: .3rem 1.5rem;
  margin: 1rem 0; }}
dt {{ color: var(--soft); }}
dd {{ margin: 0; }}
.scroll {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; overflow-wrap: normal; }}
th, td {{ padding: .4rem .8rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }}
th {{ border-bottom: 2px solid var(--soft); font-weight: 600; }}
td {{ white-space: nowrap; }}
th.left, td.left {{ text-align: left; }}
td.left {{ white-space: normal; max-width: 34rem; }}
td.long {{ min-width: 13rem; }}
tr.strong td {{ font-weight: 650; background: var(--band); }}
figure {{ margin: 1.25rem 0; }}
figure img {{ display: block; max-width: 100%; height: auto; margin: 0 auto; }}
figure img, .plot {{ background: #fff; border-radius: 6px; padding: .5rem; }}
.plot {{ min-height: 420px; margin: 1.25rem 0; overflow: hidden; color: #1b2028; }}
.beside {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 0 1.5rem;
  align-items: start; }}
figcaption {{ text-align: center; color: var(--soft); font-size: .93rem; margin-top: .5rem; }}
details {{ margin: 1rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .2rem 1rem; }}
summary {{ cursor: pointer; padding: .4rem 0; font-weight: 600; color: var(--accent); }}
pre {{ background: var(--band); padding: .8rem 1rem; border-radius: 6px; font-size: .88rem; white-space: pre-wrap; }}
a {{ color: var(--accent); }}
.beside .plot {{ min-height: 320px; min-width: 0; }}
@media (max-width: 600px) {{ dl {{ grid-template-columns: minmax(0, 1fr); gap: 0; }} dd {{ margin-bottom: .6rem; }}
  h1 {{ font-size: 1.4rem; }} table {{ font-size: .8rem; }} th, td {{ padding: .35rem .4rem; }}
  .wide {{ overflow-x: auto; }} .wide img {{ max-width: none; width: 720px; }}
  .wide figcaption {{ text-align: left; }} }}
@media print {{ :root {{ --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --band: #f4f6f8; --accent: #000; }}
  body {{ font-size: 11pt; max-width: none; padding: 0; }} .scroll {{ overflow: visible; }}
  figure, tr, .plot {{ break-inside: avoid; }} h2 {{ break-after: avoid; }} }}
"""
WIDE = 620
"""Points that a picture for a wide window has at least."""
LONG = 40
"""Characters of a cell that is a sentence rather than a name."""


class Markup(str):
    """Text that is HTML already, which these functions made."""

    __slots__ = ()


DRAW_PLOTS = """
for (const place of document.querySelectorAll(".plot")) {
  const {data, layout} = JSON.parse(place.querySelector("script").textContent);
  delete layout.width;
  Plotly.newPlot(place, data, {...layout, autosize: true}, {responsive: true, displaylogo: false});
}
"""


def page(title: str, parts: Sequence[str], *, synthetic: bool, scripts: Sequence[str] = ()) -> str:
    """A whole document.

    Its Content-Security-Policy lets no request leave it, and no script run but ``scripts``, which it names by hash.

    Args:
        parts: what the functions of this module return, in their order.
        synthetic: whether a banner says that the data are synthetic.
        scripts: code to run at its end, such as :func:`plotly_script`.
    """
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'"
    if scripts:
        policy += "; script-src " + " ".join(map(_hash, scripts))
    banner = f'<p class="banner">{_text(SYNTHETIC_NOTE)}</p>\n' if synthetic else ""
    code = "".join(f"<script>{script}</script>\n" for script in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"{banner}<h1>{_text(title)}</h1>\n{''.join(parts)}{code}</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section under its heading; nothing where it has no parts."""
    content = "".join(parts)
    return f"<section>\n<h2>{_text(title)}</h2>\n{content}</section>\n" if content else ""


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{_text(text)}</p>\n"


def code(text: str) -> str:
    """Lines to copy, such as a command."""
    return f"<pre><code>{_text(text)}</code></pre>\n"


def links(targets: Mapping[str, str]) -> Markup:
    """Links to files beside the page, for a cell of a table, a fact or a paragraph.

    Args:
        targets: relative paths, by the text to click on.
    """
    return Markup(", ".join(f'<a href="{_text(quote(path))}">{_text(text)}</a>' for text, path in targets.items()))


def facts(pairs: Mapping[str, object]) -> str:
    """A list of names and their values."""
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in pairs.items())
    return f"<dl>\n{rows}</dl>\n"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str] = (), strong: Collection[int] = ()
) -> str:
    """A table that scrolls within its own box where the window is narrow.

    Args:
        left: columns that are flush left, and may break lines; the others are flush right.
        strong: places of the rows that stand out.
    """
    sides = [' class="left"' if column in left else "" for column in header]
    head = "".join(f'<th scope="col"{side}>{_text(name)}</th>' for name, side in zip(header, sides, strict=True))
    for place, side in enumerate(sides):
        if side and any(len(row[place]) > LONG for row in rows):
            sides[place] = ' class="left long"'  # keeps its width in a narrow window
    body = ""
    for place, row in enumerate(rows):
        cells = "".join(f"<td{side}>{_text(cell)}</td>" for cell, side in zip(row, sides, strict=True))
        mark = ' class="strong"' if place in strong else ""
        body += f"<tr{mark}>{cells}</tr>\n"
    return (
        f'<div class="scroll" tabindex="0">\n<table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def figure(svg: bytes | str, alt: str, caption: str = "") -> str:
    """A picture, in which no script can run and whose ids are its own.

    Args:
        alt: what it shows, for those who do not see it.
    """
    svg = svg.encode() if isinstance(svg, str) else svg
    content = base64.b64encode(svg).decode()
    below = f"<figcaption>{_text(caption)}</figcaption>\n" if caption else ""
    width = re.search(rb'<svg[^>]* width="([0-9.]{1,9})pt"', svg[:2000])
    # A wide one keeps its width in a narrow window, in which it scrolls: its letters would be too small.
    kind = ' class="wide" tabindex="0"' if width and float(width[1]) > WIDE else ""
    return f'<figure{kind}>\n<img src="data:image/svg+xml;base64,{content}" alt="{_text(alt)}">\n{below}</figure>\n'


def beside(*parts: str) -> str:
    """Figures side by side where there is room."""
    return f'<div class="beside">\n{"".join(parts)}</div>\n' if parts else ""


def plot(drawing: Any, alt: str) -> str:
    """An interactive figure of Plotly; its page needs :func:`plotly_script`.

    Args:
        drawing: the figure, or its JSON.
        alt: what it shows, for those who do not see it.
    """
    content = drawing if isinstance(drawing, str) else drawing.to_json()
    found = json.loads(content)
    layout = {**found.get("layout", {}), "template": {"layout": {"colorway": LINES}}}
    data = json.dumps({"data": found["data"], "layout": layout})
    # As a script's content, which is data here, it must not end the element.
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return (
        f'<div class="plot" role="img" aria-label="{_text(alt)}">'
        f'<script type="application/json">{data}</script></div>\n'
    )


def plotly_script() -> str:
    """Plotly, and what draws every :func:`plot` of a page."""
    from plotly.offline import get_plotlyjs

    return f"{get_plotlyjs()}\n{DRAW_PLOTS}"


def tinted(tokens: Sequence[tuple[str, float]]) -> str:
    """Tokens in their order, tinted by a number each: a solid line under those above 0, a dashed one under others.

    The number shows where the pointer rests.
    """
    most = max((abs(x) for _, x in tokens), default=0.0) or 1.0
    spans = []
    for token, x in tokens:
        share = round(100 * abs(x) / most)
        colour, line = (BLUE, "solid") if x >= 0 else (ORANGE, "dashed")
        look = f"background: color-mix(in srgb, {colour} {round(0.45 * share)}%, transparent)"
        look += f"; border-bottom: 2px {line} color-mix(in srgb, {colour} {share}%, transparent)"
        spans.append(f'<span style="{look}" title="{x:+.3f}">{_text(token)}</span>')
    return f"<p>{' '.join(spans)}</p>\n"


def fold(title: str, *parts: str) -> str:
    """Parts that show when their title is clicked."""
    return f"<details>\n<summary>{_text(title)}</summary>\n{''.join(parts)}</details>\n"


def _text(value: object) -> str:
    return value if isinstance(value, Markup) else html.escape(printable(str(value)))


def _hash(script: str) -> str:
    """How a Content-Security-Policy names a script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
