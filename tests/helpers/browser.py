"""Opens a page from disk in the machine's Chromium, and says what a reader would find wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
WIDTHS = (1280, 400)


@dataclass
class Findings:
    """What opening a page showed."""

    requests: list[str] = field(default_factory=list)
    """Addresses that were asked for, other than the page itself and what it holds."""
    complaints: list[str] = field(default_factory=list)
    """Warnings and errors of the console, and errors of scripts."""
    overflow: int = 0
    """Pixels by which the document is wider than the window."""
    headings: list[str] = field(default_factory=list)
    """The text of those that are visible."""
    tables: int = 0
    """How many tables are visible."""
    broken: list[str] = field(default_factory=list)
    """Images that did not load, by what they are said to show."""
    plots: int = 0
    """How many interactive figures are drawn."""
    text: str = ""
    """All that is visible."""

    @property
    def faults(self) -> list[str]:
        """What no page may have."""
        wide = [f"{self.overflow} pixels too wide"] if self.overflow > 0 else []
        return [*self.requests, *self.complaints, *wide, *(f"no image: {alt}" for alt in self.broken)]


class Browser:
    """A running Chromium."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    def look(self, path: Path, width: int, dark: bool = False, shot: Path | None = None) -> Findings:
        """Opens a page in a window of ``width`` pixels.

        Args:
            dark: whether the reader prefers a dark page.
            shot: where to keep a picture of all of it.
        """
        found = Findings()
        context = self._chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        try:
            page = context.new_page()
            address = path.resolve().as_uri()
            page.on("request", lambda r: r.url == address or r.url.startswith("data:") or found.requests.append(r.url))
            page.on("console", lambda m: m.type in ("warning", "error") and found.complaints.append(m.text))
            page.on("pageerror", lambda error: found.complaints.append(str(error)))
            page.goto(address, wait_until="load")
            if page.locator(".plot").count():
                page.wait_for_function(
                    "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))", timeout=20_000
                )
            found.overflow = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            found.headings = [h.inner_text() for h in page.locator("h1, h2").all() if h.is_visible()]
            found.tables = sum(table.is_visible() for table in page.locator("table").all())
            found.broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt)")
            found.plots = page.locator(".js-plotly-plot").count()
            found.text = page.locator("body").inner_text()
            if shot is not None:
                page.screenshot(path=str(shot), full_page=True)
        finally:
            context.close()
        return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium for a module's tests, which are skipped with the reason where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield Browser(chromium)
        finally:
            chromium.close()
