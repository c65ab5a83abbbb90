"""The page of a run in a browser, as its reader sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import WIDTHS, Browser, browser
from helpers.hostile_names import NAMES

from gmsa.config import from_dict
from gmsa.data import synthetic
from gmsa.reports.pages import html
from gmsa.runs.robustness import robustness
from gmsa.runs.train import train

SETTINGS = {
    "data": {"path": "synthetic", "label_ratio": 0.25},
    "model": {"channels": 8, "heads": 2},
    "optim": {"epochs": 1, "min_steps": 0},
    "self_training": {"k": 2},
    "run": {"seeds": [1, 2], "device": "cpu"},
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with every section."""
    folder = tmp_path_factory.mktemp("shelf") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for split in synthetic.SIZES:
            patch.setitem(synthetic.SIZES, split, 64)
        train(from_dict(SETTINGS), NAMES["html"], folder)
        robustness(folder, ["eta:0,0.5", "fixed:all"], mask_seeds=[0], seeds=[1])
    return folder / "report.html"


@pytest.mark.filterwarnings("ignore:the prediction is constant")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_run_is_readable(chromium: Browser, page: Path, width: int) -> None:
    found = chromium.look(page, width, dark=width == WIDTHS[0])
    assert found.faults == []
    assert found.headings == [
        NAMES["html"], "Scores", "What was trained", "Training", "Predictions for the test split", "Gate",
        "Pseudo-labels", "Missing modalities", "Worst predictions", "Environment", "The same again",
    ]  # fmt: skip
    assert found.tables == 3  # the main scores, the subsets, the worst predictions; others are folded
    assert "SYNTHETIC" in found.text
    assert "Non0_acc_2 (%)" in found.text


def test_an_interactive_figure_is_drawn(chromium: Browser, tmp_path: Path) -> None:
    from plotly import graph_objects

    figure = graph_objects.Figure([graph_objects.Bar(x=["a", "</script>"], y=[1, 2])])
    part = html.plot(figure, "two bars")
    path = tmp_path / "a.html"
    path.write_text(html.page("a", [part], synthetic=False, scripts=[html.plotly_script()]), encoding="utf-8")
    found = chromium.look(path, WIDTHS[1])
    assert (found.faults, found.plots) == ([], 1)


def test_the_look_finds_faults(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<h1>a</h1><div style='width: 900px'>wide</div><img src='nothing.png' alt='no picture'>"
        "<script>console.warn('beware'); nothing.at.all</script>"
    )
    found = chromium.look(path, WIDTHS[1])
    assert found.overflow > 400
    assert found.requests == [(tmp_path / "nothing.png").as_uri()]
    assert found.broken == ["no picture"]
    assert any("beware" in line for line in found.complaints)
    assert any("nothing is not defined" in line for line in found.complaints)
    # The policy of a page stops what has got into it.
    path.write_text(html.page("a", ["<script>document.title = 'run'</script>"], synthetic=False))
    assert any("script-src" in line for line in chromium.look(path, WIDTHS[1]).complaints)
