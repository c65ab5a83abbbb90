"""The page in Chromium: from a video to an answer, by mouse and keyboard, with nothing asked from elsewhere."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra app")
pytest.importorskip("uvicorn", reason="needs the extra app")
pytest.importorskip("av", reason="needs the extra app")
pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from helpers.browser import ARGUMENTS, BROWSERS, WIDTHS
from helpers.fake_answers import WORDS, make_video
from helpers.video_app import Site, serving
from playwright.sync_api import expect, sync_playwright

SECONDS = 6.0
CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
HOSTILE = "<img src=x onerror=alert(1)>.mp4"
DONE = re.compile(r"^Done\. ")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def start(driver: Any) -> Iterator[Callable[..., Any]]:
    """Starts a Chromium with more arguments."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: {', '.join(BROWSERS)}")
    started: list[Any] = []

    def start(*more: str) -> Any:
        started.append(driver.chromium.launch(executable_path=program, args=[*ARGUMENTS, *more]))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def chromium(start: Callable[..., Any]) -> Any:
    return start(*CAMERA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    return make_video(folder / HOSTILE, SECONDS)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with serving(folder / "one") as site:
        yield site


@pytest.fixture(scope="module")
def compared(folder: Path) -> Iterator[Site]:
    with serving(folder / "two", runs=("runs/graph", "runs/late_fusion")) as site:
        yield site


@pytest.fixture(scope="module")
def answered(chromium: Any, folder: Path, video: Path) -> Iterator[Any]:
    """A page with an answer, which tests share that only look at it, and move the player."""
    with serving(folder / "seen") as site, opened(chromium, site) as page:
        answer(page, video)
        yield page


@pytest.fixture
def page(answered: Any) -> Any:
    """The page with an answer, at its start."""
    answered.locator(".timeline").press("Home")
    expect(answered.locator("#video")).to_have_js_property("currentTime", 0)
    return answered


@contextmanager
def opened(chromium: Any, site: Site, width: int = 1280, dark: bool = False, **asked: Any) -> Iterator[Any]:
    """The page in a new window; when the block ends, nothing was asked from elsewhere and nothing went wrong."""
    found: list[str] = []
    own = f"http://127.0.0.1:{site.port}/"
    for clip in [*site.jobs.clips.values()]:
        site.jobs.delete(clip)
    context = chromium.new_context(
        viewport={"width": width, "height": 860}, color_scheme="dark" if dark else "light", **asked
    )
    try:
        page = context.new_page()
        page.on("request", lambda r: r.url.startswith((own, "blob:")) or found.append(r.url))
        page.on("console", lambda m: m.type in ("warning", "error") and found.append(m.text))
        page.on("pageerror", lambda error: found.append(str(error)))
        page.goto(site.link)
        expect(page.locator("#status")).to_have_text("Ready.")
        yield page
        assert found == []
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
    finally:
        context.close()


def answer(page: Any, file: Path) -> None:
    """Opens a video and waits for the answer and the player."""
    page.set_input_files("#file", str(file))
    expect(page.locator("#status")).to_have_text(DONE, timeout=20_000)
    expect(page.locator("#video")).to_have_js_property("readyState", 4)


def seconds(page: Any) -> float:
    return page.evaluate("document.querySelector('#video').currentTime")


def words(page: Any) -> list[str]:
    return page.locator(".text .word").all_inner_texts()


def column(page: Any, summary: str, place: int) -> list[str]:
    """A column of a table that is folded away."""
    rows = page.locator("details", has_text=summary).first.locator("tbody tr")
    return rows.evaluate_all("(rows, place) => rows.map((row) => row.children[place].textContent)", place)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


# --- an answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        (WIDTHS[0], False),
        (WIDTHS[1], True),
        pytest.param(WIDTHS[0], True, marks=pytest.mark.slow),
        pytest.param(WIDTHS[1], False, marks=pytest.mark.slow),
    ],
)
def test_a_video_is_answered(chromium: Any, site: Site, video: Path, width: int, dark: bool, tmp_path: Path) -> None:
    with opened(chromium, site, width, dark) as page:
        answer(page, video)
        assert page.locator(".big").inner_text().split() == ["+0.12", "positive"]
        assert page.locator("#name").inner_text() == HOSTILE  # as text
        assert page.locator("#facts").inner_text() == "6.0 seconds, a face in 96\u00a0% of it, speech in 71\u00a0%"
        assert page.locator(".shares").inner_text().split("\n")[:3] == ["negative", "31\u00a0%", "neutral"]
        assert "not what a person feels, and no basis for decisions" in page.locator("#limits-of-use").inner_text()
        assert page.title() == f"{HOSTILE} · gmsa"
        assert page.locator("#warnings li").count() == 0
        if width == 1280:  # one screen
            assert page.evaluate("document.documentElement.scrollHeight") <= 860
        page.screenshot(path=str(tmp_path / "page.png"), full_page=True)


def test_two_runs_side_by_side(chromium: Any, compared: Site, video: Path, tmp_path: Path) -> None:
    with opened(chromium, compared) as page:
        answer(page, video)
        columns = page.locator("article")
        assert columns.locator("h2").all_inner_texts() == ["graph", "late_fusion"]
        boxes = [columns.nth(i).bounding_box() for i in range(2)]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
        bars = [columns.nth(i).locator(".waterfall .bar").first for i in range(2)]  # of text: 0.9 and 0.4, on one scale
        widths = [float(bar.get_attribute("width")) for bar in bars]
        assert widths[1] / widths[0] == pytest.approx(0.4 / 0.9, abs=0.01)
        page.locator(".timeline").first.press("End")  # one player for both
        for i, value in enumerate(("−1.20", "−1.60")):
            assert columns.nth(i).locator(".legend b").first.inner_text() == value
            assert columns.nth(i).locator(".text .word").count() == len(WORDS) - 7
        page.screenshot(path=str(tmp_path / "page.png"), full_page=True)


@pytest.mark.slow
def test_classes(chromium: Any, folder: Path, video: Path) -> None:
    with serving(folder / "classes", "of_classes") as site, opened(chromium, site) as page:
        answer(page, video)
        assert page.locator(".big").inner_text().split("\n") == ["joy", "62\u00a0%"]
        assert page.locator(".time h3").inner_text() == "Over time: probability of joy"
        for key, name, value in (("Home", "joy", 70), ("End", "anger", 50)):  # each part has a class of its own
            page.locator(".timeline").press(key)
            assert page.locator(".bars h3").inner_text() == f"What each modality adds to the probability of {name}"
            assert page.locator(".waterfall .total").text_content() == f"{value}\u00a0%"
            assert page.locator("fieldset output").inner_text() == f"{value}\u00a0% with all that is there"
        assert page.locator(".timeline text").all_text_contents()[:5] == [f"{n}\u00a0%" for n in (0, 25, 50, 75, 100)]


@pytest.mark.slow
def test_an_explanation_that_fails_its_check_is_not_shown(chromium: Any, folder: Path, video: Path) -> None:
    with serving(folder / "unfaithful", "unfaithful") as site, opened(chromium, site) as page:
        answer(page, video)
        assert page.locator(".words .soft").last.inner_text().startswith("No faithful explanation for this clip (")
        classes = [word.get_attribute("class") for word in page.locator(".text .word").all()]
        assert {re.sub(" now$", "", name) for name in classes} == {"word"}


@pytest.mark.slow
def test_parts_in_a_dialogue_and_parts_that_are_not_explained(chromium: Any, folder: Path, video: Path) -> None:
    with serving(folder / "dialogue", "in_dialogue") as site, opened(chromium, site) as page:
        answer(page, video)
        rows = dict(zip(column(page, "Bars and comb", 0), column(page, "Bars and comb", 1), strict=True))
        assert rows["other parts adds"] == "+0.40"
        names = ("average of the training", "text adds", "audio adds", "vision adds", "other parts adds")
        assert sum(number(rows[name]) for name in names) == pytest.approx(number(rows["answer"]), abs=0.02)
        assert page.locator(".waterfall .bar").count() == 4
        assert page.locator("fieldset input").count() == 3
        for name in ("text", "audio", "vision"):
            page.get_by_label(name, exact=True).uncheck()
        assert page.locator("fieldset output").inner_text() == "+0.52 with other parts alone"
        page.locator(".timeline").press("End")
        assert page.locator(".bars > p").inner_text() == "This part is not explained: long"
        assert page.locator(".words .soft").last.inner_text() == "Choose a word to hear it."
        assert page.locator(".words thead").text_content() == "WordStartEndCertainty"


@pytest.mark.slow
def test_what_may_be_lacking(chromium: Any, folder: Path, video: Path, tmp_path: Path) -> None:
    with serving(folder / "bare", "bare") as site, opened(chromium, site) as page:
        answer(page, video)
        assert page.locator("article").nth(0).locator(".big").inner_text().split() == ["–", "unknown"]
        assert page.locator("article").nth(0).locator(".bars").inner_text().endswith("Nothing was found to explain.")
        assert page.locator("article").nth(1).locator(".words .soft").last.inner_text() == "Choose a word to hear it."
        page.locator(".timeline").first.press("End")
        page.screenshot(path=str(tmp_path / "page.png"), full_page=True)


@pytest.mark.slow
def test_without_sound(chromium: Any, site: Site, folder: Path) -> None:
    with opened(chromium, site) as page:
        answer(page, make_video(folder / "silent.mp4", 2.0, sound=False))
        assert page.locator("#warnings li").all_inner_texts() == ["Text and audio are missing: the file has no sound."]
        assert page.locator(".bars .note").all_inner_texts() == [
            "text is missing: no sound",
            "audio is missing: no sound",
        ]
        assert [box.is_enabled() for box in page.locator("fieldset input").all()] == [False, False, True]
        assert page.locator(".waterfall .bar").count() == 1
        assert page.locator(".words").inner_text().endswith("No words were heard in this part.")


@pytest.mark.slow
def test_sound_alone(chromium: Any, site: Site, folder: Path) -> None:
    with opened(chromium, site) as page:
        answer(page, make_video(folder / "voice.mp4", 2.0, picture=False))
        assert page.locator(".waterfall .bar").count() == 2


# --- the player, the timeline and the words --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_timeline_moves_the_player(chromium: Any, site: Site, video: Path) -> None:
    with opened(chromium, site) as page:
        answer(page, video)
        plot = page.locator(".timeline")
        box = page.locator(".timeline .zero").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.75, box["y"])
        assert seconds(page) == pytest.approx(0.75 * SECONDS, abs=0.05)
        assert float(plot.get_attribute("aria-valuenow")) == pytest.approx(0.75 * SECONDS, abs=0.05)
        assert plot.get_attribute("aria-valuetext").startswith("0:04.5, −0.4")
        line = page.locator(".timeline .now").bounding_box()
        assert line["x"] == pytest.approx(box["x"] + box["width"] * 0.75, abs=2)
        for key, expected in (("Home", 0.0), ("ArrowRight", 0.5), ("ArrowRight", 1.0), ("ArrowLeft", 0.5),
                              ("PageUp", 5.5), ("End", SECONDS)):  # fmt: skip
            plot.press(key)
            assert float(plot.get_attribute("aria-valuenow")) == expected
            assert seconds(page) == pytest.approx(expected, abs=0.06)


def test_the_player_moves_the_rest(page: Any) -> None:
    assert words(page) == [*WORDS[:7]]
    page.evaluate("document.querySelector('#video').currentTime = 4.95")
    expect(page.locator(".word.now")).to_have_text("let")
    assert words(page) == [*WORDS[7:]]
    assert page.locator(".bars .soft").first.inner_text() == "part 2 of 2, 0:03.0 to 0:06.0"
    page.evaluate("const video = document.querySelector('#video'); video.muted = true; video.currentTime = 0")
    expect(page.locator(".word.now")).to_have_text("I")
    page.evaluate("const video = document.querySelector('#video'); video.playbackRate = 6; video.play()")
    expect(page.locator("#video")).to_have_js_property("ended", True)
    expect(page.locator(".timeline")).to_have_attribute("aria-valuenow", "6.0")
    assert words(page) == [*WORDS[7:]]


def test_a_word_jumps_to_where_it_is_said(page: Any) -> None:
    page.locator(".word", has_text="loved").click()
    assert seconds(page) == pytest.approx(2 * 3 / 7, abs=0.01)
    expect(page.locator(".word.now")).to_have_text("loved")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "first"
    page.keyboard.press("Enter")
    assert seconds(page) == pytest.approx(4 * 3 / 7, abs=0.01)
    expect(page.locator(".word.now")).to_have_text("first")


def test_words_are_colored_by_their_sign_and_strength(page: Any) -> None:
    sums = [number(text) for text in column(page, "Words as a table", 7)]
    parts = [[number(text) for text in column(page, "Words as a table", i)] for i in (4, 5, 6)]
    for i, total in enumerate(sums):
        assert sum(part[i] for part in parts) == pytest.approx(total, abs=0.016)
        found = re.search(r"(up|down)(\d)", page.locator(".text .word").nth(i).get_attribute("class"))
        strength = abs(total) / max(map(abs, sums))
        assert int(found[2]) == round(3 * strength) if found else strength < 1 / 6 + 0.01
        assert found is None or (found[1] == "up") == (total > 0)
    assert page.locator(".text .word").nth(1).get_attribute("title") == (
        "really: −0.33 (text −0.32, audio +0.02, vision −0.03), at 0:00.4"
    )


# --- the bars and the toggles ----------------------------------------------------------------------------------------


def test_the_bars_add_up(page: Any) -> None:
    base, *parts, value = [number(t) for t in column(page, "Bars and combinations", 1)][:5]
    assert base + sum(parts) == pytest.approx(value, abs=0.02)
    first, last = (float(page.locator(".waterfall .stop").nth(i).get_attribute("cx")) for i in (0, 1))
    unit = (last - first) / (value - base)  # pixels for 1
    end, at = base, first
    for bar, part in zip(page.locator(".waterfall .bar").all(), parts, strict=True):
        x, width = (float(bar.get_attribute(name)) for name in ("x", "width"))
        assert (x if part > 0 else x + width) == pytest.approx(at, abs=0.01)
        at = x + width if part > 0 else x
        end += part
        assert at - first == pytest.approx(unit * (end - base), abs=1.5)
    assert at == pytest.approx(last, abs=0.01)


def test_toggles_say_what_a_subset_answers(page: Any) -> None:
    said = page.locator("fieldset output")
    assert said.inner_text() == "+0.92 with all that is there"
    page.get_by_label("text", exact=True).uncheck()
    assert said.inner_text() == "+0.02 0.90 less than with all"
    page.get_by_label("vision", exact=True).focus()
    page.keyboard.press("Space")
    assert said.inner_text() == "+0.37 0.55 less than with all"
    page.get_by_label("audio", exact=True).uncheck()
    assert said.inner_text() == "+0.12 the average of the training"
    rows = dict(zip(column(page, "Bars and comb", 0), column(page, "Bars and comb", 1), strict=True))
    assert rows["with audio and vision"] == "+0.02"
    assert rows["with text, audio and vision"] == "+0.92"
    assert len(rows) == 5 + 7


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_bad_file_is_one_sentence(chromium: Any, site: Site, video: Path, folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    with opened(chromium, site) as page:
        answer(page, video)
        page.set_input_files("#file", str(folder / "text.mp4"))
        expect(page.locator("#status.error")).to_have_text(
            re.compile(r"^This file: is no video or sound that FFmpeg reads \(.*\); give one, for example as mp4$")
        )
        expect(page.locator("#result")).to_be_hidden()
        expect(page.locator("#progress")).to_be_hidden()
    assert site.jobs.clips == {}


def test_a_large_file_is_refused_before_it_is_sent(chromium: Any, folder: Path, video: Path) -> None:
    with serving(folder / "small", limit=10_000) as site, opened(chromium, site) as page:
        sent: list[str] = []
        page.on("request", lambda r: r.method == "POST" and sent.append(r.url))
        page.set_input_files("#file", str(video))
        expect(page.locator("#status.error")).to_contain_text(
            "more than the limit of 0.01 MiB; gmsa app --limit raises it."
        )
        assert sent == []


@pytest.mark.slow
def test_what_is_canceled_or_replaced_while_it_is_sent_is_not_kept(chromium: Any, site: Site, video: Path) -> None:
    with opened(chromium, site) as page:
        held: list[Any] = []
        page.route("**/api/clips?*", lambda route: held.append(route) if len(held) < 2 else route.continue_())
        page.set_input_files("#file", str(video))
        expect(page.locator("#status")).to_contain_text("Sending")
        page.click("#cancel")
        expect(page.locator("#status")).to_have_text("Canceled; the file is deleted.")
        page.set_input_files("#file", str(video))
        expect(page.locator("#status")).to_contain_text("Sending")
        answer(page, video)
        for route in held:  # two that come late
            with page.expect_response(lambda reply: reply.request.method == "DELETE"):
                route.continue_()
        assert len(site.jobs.clips) == 1
        expect(page.locator("#status")).to_have_text(DONE)
        expect(page.locator("article")).to_have_count(1)


@pytest.mark.slow
def test_cancel_and_a_full_queue(chromium: Any, folder: Path, video: Path) -> None:
    with serving(folder / "slow", "slow", queue=1) as site:
        with opened(chromium, site) as page:
            page.set_input_files("#file", str(video))
            expect(page.locator("#status")).to_have_text("Sleeping", timeout=20_000)
            assert page.locator("#progress").get_attribute("value") == "0.5"
            site.ask("POST", "/api/clips", video.read_bytes())  # of another tab; it waits
            page.click("#cancel")
            expect(page.locator("#status")).to_have_text("Canceled; the file is deleted.")
            expect(page.locator("#cancel")).to_be_hidden()
        until(lambda: [clip.stage for clip in site.jobs.clips.values()] == ["Sleeping"])
        site.ask("POST", "/api/clips", video.read_bytes())
        page = chromium.new_page()  # Chromium's console tells of the status 429
        page.goto(site.link)
        page.set_input_files("#file", str(video))
        expect(page.locator("#status.error")).to_have_text("The queue is full (1 videos); try again when one is done.")
        page.close()


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_a_server_that_has_ended(chromium: Any, folder: Path, video: Path) -> None:
    page = chromium.new_page()
    with serving(folder / "ended") as site:
        page.goto(site.link)
        expect(page.locator("#status")).to_have_text("Ready.")
    page.set_input_files("#file", str(video))
    expect(page.locator("#status.error")).to_contain_text("The server does not answer; has gmsa app ended?")
    page.close()


@pytest.mark.slow
def test_without_the_link_there_is_no_page(chromium: Any, site: Site) -> None:
    page = chromium.new_page()
    reply = page.goto(f"http://127.0.0.1:{site.port}/")
    assert reply.status == 403
    assert "Open the link that gmsa app printed." in page.content()
    page.close()


def test_the_policy_is_in_force(chromium: Any, site: Site) -> None:
    """A script or style that a fault let in would not run, and could not send anything."""
    page = chromium.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(site.link)
    expect(page.locator("#status")).to_have_text("Ready.")
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            const paragraph = document.createElement("p");
            paragraph.setAttribute("style", "color: red");
            paragraph.setAttribute("onclick", "window.ran = true");
            document.body.append(script, paragraph);
            paragraph.click();
        }"""
    )
    assert page.evaluate("window.ran") is None
    assert page.evaluate("fetch('http://example.invalid/').then(() => 'sent', () => 'not sent')") == "not sent"
    assert sum("Content Security Policy" in text for text in said) >= 3
    page.close()


# --- recording, deleting, the keyboard -------------------------------------------------------------------------------


def test_a_recording_is_answered(chromium: Any, site: Site) -> None:
    with opened(chromium, site) as page:
        page.evaluate(
            """() => {
                const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
                window.asked = 0;
                navigator.mediaDevices.getUserMedia = (what) => { window.asked += 1; return ask(what); };
                for (let i = 0; i < 2; i += 1) document.getElementById("record").click();
            }"""
        )  # twice, as by a hasty hand: a second camera would never be switched off
        expect(page.locator("#record")).to_have_text("Stop 0:01", timeout=10_000)
        assert page.evaluate("window.asked") == 1
        expect(page.locator("#video")).to_be_visible()
        assert page.locator("#file").is_disabled()
        page.click("#record")
        expect(page.locator("#status")).to_have_text(DONE, timeout=20_000)
        assert page.locator("#name").inner_text() == "Recording"
        expect(page.locator("#video")).to_have_js_property("readyState", 4)
        assert page.evaluate("document.querySelector('#video').videoWidth") > 0
        page.locator(".timeline").press("ArrowRight")
        expect(page.locator("#video")).to_have_js_property("currentTime", 0.5)
        assert page.evaluate("document.querySelector('#video').srcObject") is None  # the camera is off


@pytest.mark.slow
def test_without_a_camera(start: Callable[..., Any], site: Site) -> None:
    chromium = start()
    with opened(chromium, site, permissions=["camera", "microphone"]) as page:
        page.click("#record")
        expect(page.locator("#status.error")).to_have_text(
            "No camera or microphone was found; connect one, or open a video instead."
        )
    with opened(chromium, site) as page:  # asked, and refused
        page.click("#record")
        expect(page.locator("#status.error")).to_contain_text(re.compile("camera"))


def test_delete_removes_all(chromium: Any, site: Site, video: Path) -> None:
    with opened(chromium, site) as page:
        answer(page, video)
        (clip,) = site.jobs.clips.values()
        page.click("#delete")
        expect(page.locator("#status")).to_have_text(f"Deleted “{HOSTILE}” and its answers.")
        assert not clip.path.exists()
        assert site.jobs.clips == {}
        expect(page.locator("#result")).to_be_hidden()
        assert page.locator("article").count() == 0
        assert page.evaluate("document.activeElement.id") == "file"


def test_a_page_that_is_left_deletes_its_clip(chromium: Any, site: Site, video: Path) -> None:
    with opened(chromium, site) as page:
        answer(page, video)
        assert len(site.jobs.clips) == 1
        page.goto("about:blank")
        until(lambda: site.jobs.clips == {})


@pytest.mark.slow
def test_another_video_takes_the_place_of_the_first(chromium: Any, site: Site, video: Path) -> None:
    with opened(chromium, site) as page:
        answer(page, video)
        (first,) = site.jobs.clips
        answer(page, video)
        assert len(site.jobs.clips) == 1
        assert first not in site.jobs.clips
        page.click("#delete")
        expect(page.locator("#status")).to_contain_text("Deleted")


def test_by_keyboard_alone(page: Any) -> None:
    page.locator("#record").focus()
    seen: list[str] = []
    for key in ("Shift+Tab", *["Tab"] * 60):
        page.keyboard.press(key)
        name, outline = page.evaluate(
            """() => {
                const e = document.activeElement, shown = e.id === "file" ? e.parentElement : e;
                return [e.id || e.className.baseVal || e.className || e.value || e.tagName,
                        getComputedStyle(shown).outlineStyle];
            }"""
        )
        if name in ("BODY", "HTML"):
            break
        assert outline != "none" or name == "video", name
        if name not in seen:
            seen.append(name)
    kinds = [re.sub(r"^word.*", "word", name) for name in seen]
    order = ["file", "record", "video", "delete", "text", "audio", "vision", "SUMMARY", "timeline", "word"]
    assert [name for name in kinds if name in order] == order
    page.locator("summary", has_text="Timeline").press("Enter")
    expect(page.locator(".time table")).to_be_visible()
    assert page.locator(".time thead").inner_text().strip().split("\t") == [
        "Time", "All", "text alone", "audio alone", "vision alone",
    ]  # fmt: skip


def test_what_is_announced(page: Any) -> None:
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    tree = page.locator("header").aria_snapshot()
    assert 'button "Open a video"' in tree
    assert 'button "Record"' in tree


# --- colors ----------------------------------------------------------------------------------------------------------


def palettes() -> list[dict[str, str]]:
    """The colors of the light and of the dark page."""
    from gmsa.app.server import STATIC

    text = (STATIC / "style.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    )
    return [light, light | dark]


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colors", palettes(), ids=["light", "dark"])
def test_colors_can_be_read_and_told_apart(colors: dict[str, str]) -> None:
    text = [("ink", "paper"), ("ink", "card"), ("ink", "band"), ("soft", "paper"), ("soft", "card"), ("error", "paper"),
            ("on-accent", "accent"), ("positive", "card"), ("negative", "card"), ("card", "error"),
            ("on-up-weak", "up1"), ("on-up", "up2"), ("on-up", "up3"),
            ("on-down-weak", "down1"), ("on-down", "down2"), ("on-down", "down3")]  # fmt: skip
    assert {pair: round(contrast(*(colors[c] for c in pair)), 2) for pair in text
            if contrast(*(colors[c] for c in pair)) < 4.5} == {}  # fmt: skip
    assert {m: contrast(colors[m], colors["card"]) for m in ("m0", "m1", "m2", "m3", "m4", "m5")
            if contrast(colors[m], colors["card"]) < 3} == {}  # fmt: skip
    assert contrast(colors["up3"], colors["down3"]) > 3  # also in gray
    assert contrast(colors["up2"], colors["down2"]) > 2
