"""The page of a study: its numbers are those of the trials, and a reader's browser finds nothing wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import WIDTHS, Browser, browser
from helpers.hostile_names import NAMES
from helpers.reports import comparison_of, plots_of, tables_of

from gmsa.reports.pages import html
from gmsa.reports.pages.study import MOST_DRAWN, Range, StudyContent, TrialRow, study_page
from gmsa.reports.study import headline

VALUES = [0.9, 0.7, 0.8, 0.6, 0.65]
FUSIONS = ("gate", "add", "concat")
RANGES = [Range("optim.lr", log=True), Range("model.fusion", choices=FUSIONS), Range("graph.radius")]


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves Plotly's 5 MB out of a page."""
    monkeypatch.setattr(html, "plotly_script", lambda: "")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def trial(place: int, *values: float, fusion: str = "") -> TrialRow:
    chose = {"optim.lr": 10.0 ** (place % 5 - 5), "model.fusion": fusion or FUSIONS[place % 3]}
    chose |= {"graph.radius": place + 1} if place % 2 else {}
    return TrialRow(place, "complete", values, chose, {1: values[0] + 0.1, 2: values[0]})


def content_of(
    trials: list[TrialRow], best: list[int], objectives: tuple[str, ...] = ("MAE",), **more: Any
) -> StudyContent:
    by_place = {t.place: t for t in trials}
    summary = {
        "study": "s", "dataset": "tiny", "synthetic": False, "data_sha256": "0" * 64, "objectives": list(objectives),
        "sampler": "tpe", "pruner": "median", "seed": 0, "trial_seeds": [1], "seconds": 9.0,
        "seconds_saved_by_pruning": 2.0, "importance": {"model.fusion": 0.25, "optim.lr": 0.75},
        "trials": {s: sum(t.state == s for t in trials) for s in ("running", "complete", "pruned", "fail", "waiting")},
        "best": [
            {"trial": p, "values": dict(zip(objectives, by_place[p].values, strict=True)), "chose": by_place[p].chose}
            for p in best
        ],
        "own": {"MAE": VALUES[0]}, "final": None,
    } | more  # fmt: skip
    rows = [[str(p), *(f"{v:.4f}" for v in by_place[p].values)] for p in best]
    return StudyContent(
        summary, trials, RANGES, [name == "Corr" for name in objectives], (["trial", *objectives], rows), ["gmsa tune"]
    )


@pytest.fixture
def content() -> StudyContent:
    """Five complete trials, one that was stopped and one that failed."""
    trials = [trial(place, value) for place, value in enumerate(VALUES)]
    trials.append(TrialRow(5, "pruned", (), {"optim.lr": 1.0, "model.fusion": "add"}, {1: 2.0, 2: math.inf}))
    trials.append(TrialRow(6, "fail", (), {"optim.lr": 1.0}, {}, "the loss is not finite"))
    return content_of(trials, [3])


def named(plots: list[dict[str, Any]], place: int) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in plots[place]["data"]}


def test_the_numbers_are_those_of_the_trials(light: None, content: StudyContent) -> None:
    page = study_page(content)
    assert "NaN" not in page
    assert "Infinity" not in page
    best, failed = tables_of(page)
    assert best == [["trial", "MAE"], ["3", "0.6000"]]
    assert failed[1:] == [["6", "the loss is not finite"]]
    plots = plots_of(page)
    history = named(plots, 0)
    assert (history["trial"]["x"], history["trial"]["y"]) == ([0, 1, 2, 3, 4], VALUES)
    assert history["best so far"]["y"] == [0.9, 0.7, 0.7, 0.6, 0.6]
    curves = named(plots, 1)
    assert curves["best"]["y"] == [0.7, 0.6, None]
    assert curves["stopped early"]["y"] == [2.0, None, None]
    assert plots[2]["data"][0]["x"] == [0.75, 0.25]
    assert plots[2]["layout"]["yaxis"]["ticktext"] == ["optim.lr", "model.fusion"]
    parallel = named(plots, 3)
    # MAE is the smallest, 10 ** -2 is three quarters on the way from 10 ** -5 to 10 ** -1, trial 3 chose "gate".
    assert parallel["best"]["x"] == pytest.approx([0.0, 0.75, 0.0, 1.0, None])
    assert parallel["best"]["y"] == [0, 1, 2, 3, None]
    slices = [named(plots, place) for place in (4, 5, 6)]
    assert slices[0]["best"]["x"] == [10.0**-2]
    assert slices[1]["trial"]["x"] == [0, 1, 2, 1]
    assert slices[2]["trial"]["x"] == [2]  # a parameter that not every trial searched
    assert plots[4]["layout"]["xaxis"]["type"] == "log"
    assert plots[5]["layout"]["xaxis"]["ticktext"] == list(FUSIONS)


def test_the_headline(content: StudyContent) -> None:
    assert headline(content.summary) == (
        "Trial 3 is the best of 7 trials on validation: MAE 0.6000. It chose optim.lr: 0.01; model.fusion: gate; "
        "graph.radius: 4. The config as it was, trial 0, has MAE 0.9000."
    )
    final = comparison_of(["default", "trial 3"])
    assert headline(content.summary | {"final": final}).endswith(
        "Trained anew with 2 seeds and tested once, it has test MAE 0.6200 ± 0.0141, the config as it was "
        "0.6300 ± 0.0141."
    )
    assert headline(content.summary | {"best": []}) == "None of 7 trials has a value."


def test_the_final_comparison_is_shown_as_an_ablation_is(light: None, content: StudyContent) -> None:
    final = comparison_of(["default", "trial 3"])
    page = study_page(replace(content, summary=content.summary | {"final": final}, final_report="final/report.html"))
    _, ranking, test, _ = tables_of(page)
    assert [line[1] for line in ranking[1:]] == ["trial 3", "default (reference)"]
    assert ranking[1][2] == "0.5200 ± 0.0141"
    assert test[1][1] == "0.6200 ± 0.0141"
    assert 'href="final/report.html"' in page


def test_two_objectives_have_a_front(light: None) -> None:
    trials = [trial(place, value, 1000.0 - 100 * place) for place, value in enumerate((0.5, 0.6, 0.9, 0.7))]
    content = content_of(trials, [0, 1, 3], ("MAE", "parameters"))
    page = study_page(content)
    front = named(plots_of(page), 0)
    assert front["Pareto front"]["x"] == [0.5, 0.6, 0.7]
    assert front["Pareto front"]["y"] == [1000.0, 900.0, 700.0]
    assert front["trial"]["x"] == [0.9]
    assert "Learning curves" not in page
    assert "3 trials of 4 form the Pareto front of MAE and parameters: 0, 1, 3." in page


def test_a_score_that_grows(light: None) -> None:
    page = study_page(content_of([trial(place, value) for place, value in enumerate(VALUES)], [0], ("Corr",)))
    assert named(plots_of(page), 0)["best so far"]["y"] == [0.9] * 5
    assert "Corr on validation, more is better" in page


def test_a_study_without_values(light: None) -> None:
    failed = TrialRow(0, "fail", reason="out of memory")
    page = study_page(content_of([failed], [], importance=None, own=None))
    assert plots_of(page) == []
    assert tables_of(page) == [[["trial", "why"], ["0", "out of memory"]]]


def test_a_large_study_is_thinned_and_keeps_its_best(light: None) -> None:
    trials = [trial(place, 1.0 + place) for place in range(3 * MOST_DRAWN)]
    trials[4] = trial(4, 0.5)
    page = study_page(content_of(trials, [4]))
    drawn = named(plots_of(page), 0)["trial"]["x"]
    assert 4 in drawn
    assert len(drawn) <= MOST_DRAWN + 1
    assert len(page) < 20_000_000


def hostile() -> StudyContent:
    """A study whose choices, name, reasons and objective are hostile names."""
    names = [name for name in NAMES.values() if name.strip()]
    trials = [trial(place, 1.0 + place, fusion=name) for place, name in enumerate(names)]
    trials.append(TrialRow(99, "fail", reason=NAMES["html"]))
    content = content_of(trials, [len(names) - 1], ("_of <b>$x_{$",), study=NAMES["html"], dataset=NAMES["link"])
    return replace(content, ranges=[RANGES[0], Range("model.fusion", choices=tuple(names))])


def test_hostile_names_stay_text(light: None) -> None:
    page = study_page(hostile())
    assert page.count("<script") == page.count("</script>") == len(plots_of(page)) + 1
    texts = json.dumps(
        [
            [[t.get("hovertext"), t["name"]] for t in plot["data"] if "name" in t]
            + [plot["layout"].get("annotations"), plot["layout"]["xaxis"], plot["layout"]["yaxis"]]
            for plot in plots_of(page)
        ]
    )
    assert set(re.findall(r"<[^>]*>", texts)) <= {"<br>", "<b>", "</b>"}


@pytest.mark.parametrize("width", [1280, pytest.param(400, marks=pytest.mark.slow)])
def test_a_study_is_readable(chromium: Browser, tmp_path: Path, content: StudyContent, width: int) -> None:
    path = tmp_path / "report.html"
    final = comparison_of(["default", "trial 3"])
    path.write_text(study_page(replace(content, summary=content.summary | {"final": final})), encoding="utf-8")
    found = chromium.look(path, width)
    assert found.faults == []
    assert (found.plots, found.tables) == (7, 4)
    assert found.headings == [
        "Study s", "Best trials", "The best trial, trained anew", "History", "Learning curves", "Importance",
        "Parallel coordinates", "Slices", "Failed trials", "How to get it again",
    ]  # fmt: skip


def test_a_hostile_study_runs_nothing(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(study_page(hostile()), encoding="utf-8")
    assert chromium.look(path, WIDTHS[1]).faults == []
