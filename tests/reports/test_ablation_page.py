"""The page of an ablation: its numbers are those of ``summary.json``, and a reader's browser finds nothing wrong."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Browser, browser
from helpers.hostile_names import NAMES
from helpers.reports import comparison_of, plots_of, tables_of

from gmsa.metrics import COLUMNS
from gmsa.reports.ablation import headline, latex_rows, markdown_report
from gmsa.reports.pages import html
from gmsa.reports.pages.ablation import ablation_page
from gmsa.reports.pages.write import write_page

AGAIN = ["gmsa ablate --config base.yaml"]


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves Plotly's 5 MB out of a page."""
    monkeypatch.setattr(html, "plotly_script", lambda: "")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def page_of(comparison: dict[str, Any]) -> str:
    runs = {
        (row["setting"], None, seed): f"{row['folder']}/seed-{seed}/report.html"
        for row in comparison["rows"]
        for seed in (1, 2)
    }
    return ablation_page(comparison, runs, AGAIN)


def test_the_numbers_are_those_of_the_summary(light: None) -> None:
    comparison = comparison_of(["gate", "add", "dot"], failed=["too fast"])
    page = page_of(comparison)
    ranking, test, costs, failed, runs = tables_of(page)
    rows = comparison["rows"]
    assert ranking[0] == ["rank", "setting", "MAE", "difference in MAE", "95 % interval", "p (Holm)", "Corr"]
    assert [line[1] for line in ranking[1:]] == ["dot", "add", "gate (reference)", "too fast"]
    assert [line[0] for line in ranking[1:]] == ["1", "2", "3", ""]
    for line, tested, cost, row in zip(ranking[1:], test[1:], costs[1:], rows, strict=False):
        for split, shown in (("valid", line[2:]), ("test", tested[1:])):
            assert shown[0] == f"{row[split]['MAE']['mean']:.4f} ± {row[split]['MAE']['std']:.4f}"
            if not row["reference"]:
                found = row["difference"][split]
                assert shown[1] == f"{found['difference']:+.4f}"
                assert shown[2] == f"[{found['low']:+.4f}, {found['high']:+.4f}]"
                assert shown[3] == f"{found['p_holm']:.3f}"
        assert cost[1] == f"{row['parameters']:,}"
        assert cost[6] == f"{row['peak_memory_mb']:.0f}"
    assert failed[1:] == [["too fast", "seed 1", "the loss is not finite"]]
    assert runs[1:][0] == ["dot", "report", "report"]
    assert 'href="cells/dot/seed-1/report.html"' in page

    differences, cost = plots_of(page)
    valid, tested, reference = differences["data"]
    for trace, split in ((valid, "valid"), (tested, "test")):
        found = [row["difference"][split] for row in rows if "difference" in row]
        assert trace["x"] == [d["difference"] for d in found]
        assert [x + up for x, up in zip(trace["x"], trace["error_x"]["array"], strict=True)] == pytest.approx(
            [d["high"] for d in found]
        )
        assert [x - down for x, down in zip(trace["x"], trace["error_x"]["arrayminus"], strict=True)] == pytest.approx(
            [d["low"] for d in found]
        )
    assert (reference["x"], reference["y"]) == ([0], [2])
    assert cost["data"][0]["y"] == [row["valid"]["MAE"]["mean"] for row in rows[:3]]
    by_button = {b["label"]: b["args"][0]["x"][0] for b in cost["layout"]["updatemenus"][0]["buttons"]}
    assert by_button["size"] == [row["parameters"] for row in rows[:3]]


def test_costs_and_intervals_are_those_of_the_summary(light: None) -> None:
    comparison = comparison_of(["gate", "add", "dot"], metrics="classes")
    for place, row in enumerate(comparison["rows"]):
        row["stream_edges"] = {"intra": 5.5 + place} if place else {}
        ends = {m: [found["mean"] - 0.03, found["mean"] + 0.02] for m, found in row["valid"].items()}
        row["intervals"] = {"valid": ends, "test": {m: [low + 0.1, high + 0.1] for m, (low, high) in ends.items()}}
    ranking, valid, test, tested, costs, _ = tables_of(page_of(comparison))
    assert valid[0] == ["95 % interval", ranking[0][2], ranking[0][6]]
    assert tested[0] == ["95 % interval", test[0][1], *test[0][5:]]
    assert costs[0] == ["setting", "parameters", "nodes", "edges", "intra edges", "seconds per epoch",
                        "seconds of training", "memory (MB)", "valid weighted_F1 (%)", "95 % interval"]  # fmt: skip
    markdown = markdown_report(comparison, {})
    for place, row in enumerate(comparison["rows"], 1):
        mean = 100 * row["valid"]["weighted_F1"]["mean"]
        shown = f"[{mean - 3:.2f}, {mean + 2:.2f}]"
        assert valid[place][1] == costs[place][-1] == shown
        assert tested[place][1] == f"[{mean + 7:.2f}, {mean + 12:.2f}]"
        edges = [f"{row['edges']:.1f}", f"{row['stream_edges']['intra']:.1f}" if row["stream_edges"] else ""]
        seconds = [f"{row['seconds_per_epoch']:.2f}", "1.5"]
        assert costs[place][2:8] == ["9.5", *edges, *seconds, f"{row['peak_memory_mb']:.0f}"]
        assert "| " + " | ".join(costs[place]) + " |" in markdown
    plot = plots_of(page_of(comparison))[-1]
    bars = plot["data"][0]["error_y"]
    assert bars["array"] == pytest.approx([2.0] * 3)
    assert bars["arrayminus"] == pytest.approx([3.0] * 3)
    by_button = {b["label"]: b["args"][0]["x"][0] for b in plot["layout"]["updatemenus"][0]["buttons"]}
    assert by_button["training"] == [1.5] * 3


@pytest.mark.parametrize(
    ("metrics", "main", "further", "error"),
    [
        (
            "classes",
            ["weighted_F1 (%)", "accuracy (%)"],
            "macro_F1 (%) | test unweighted_accuracy (%)",
            "share of errors",
        ),
        ("intensity", ["MAE", "Corr"], "RMSE | test CCC", "MAE"),
        ("sims", ["MAE", "Corr"], "Mult_acc_2 (%) | test Mult_acc_5 (%)", "MAE"),
    ],
)
def test_targets_have_metrics_of_their_own(
    light: None, metrics: str, main: list[str], further: str, error: str
) -> None:
    comparison = comparison_of(["gate", "add"], metrics=metrics)
    page = page_of(comparison)
    ranking, test, *_ = tables_of(page)
    head = [f"difference in {error}", "95 % interval", "p (Holm)"]
    assert ranking[0] == ["rank", "setting", main[0], *head, main[1]]
    assert len(test[0]) == 2 + len(head) + len(COLUMNS[metrics]) - 1
    assert f"Difference of a setting's {error} from the reference's" in unescape(page)
    report = markdown_report(comparison, {})
    assert f"test {main[1]} | test {further} |" in report
    assert f"Differences are to the reference, in {error}:" in report
    assert f"Its {error} differs from" in headline(comparison)
    if metrics == "classes":
        assert "MAE" not in page + report + latex_rows(comparison)
        cost = plots_of(page)[-1]["data"][0]  # in percent, as the tables
        assert cost["y"] == [pytest.approx(100 * row["valid"]["weighted_F1"]["mean"]) for row in comparison["rows"]]


def test_a_page_shows_every_fold(light: None) -> None:
    comparison = comparison_of(["gate", "add"], failed=["too fast"], metrics="classes")
    sizes = [{"fold": i, "name": f"Ses0{i + 1}", "train": 30 + i, "valid": 10, "test": 12} for i in range(2)]
    comparison["folds"] = {"by": "speaker", "seed": 0, "parts": sizes}
    comparison["rows"][-1]["failed"] = {"fold 1, seed 2": "the loss is not finite"}
    runs = {
        (row["setting"], fold, seed): f"{row['folder']}/fold-{fold}/seed-{seed}/report.html"
        for row in comparison["rows"]
        for fold in (0, 1)
        for seed in (1, 2)
    }
    page = ablation_page(comparison, runs, AGAIN)
    _, _, folds, valid, test, _, failed, links = tables_of(page)
    assert folds == [
        ["fold", "in the file", "training", "validation", "test"],
        ["0", "Ses01", "30", "10", "12"],
        ["1", "Ses02", "31", "10", "12"],
    ]
    for table, split in ((valid, "valid"), (test, "test")):
        assert table[0][1:] == ["fold 0", "fold 1"]
        for line, row in zip(table[1:], comparison["rows"], strict=False):
            assert line[1:] == [f"{100 * value:.2f}" for value in row[split]["weighted_F1"]["values"]]
    assert failed[1:] == [["too fast", "fold 1, seed 2", "the loss is not finite"]]
    assert [line[:2] for line in links[1:]] == [[r["setting"], str(f)] for r in comparison["rows"] for f in (0, 1)]
    assert "3 settings with 2 seeds each (1, 2) on 2 folds: 12 trainings, 1 failed" in page
    assert "2, as the file says" in page
    assert "standard deviations over the folds" in page
    report = markdown_report(comparison, {})
    assert "- too fast, fold 1, seed 2: the loss is not finite" in report
    assert "mean ± standard deviation over 2 folds of the mean over 2 seeds. Test took" in report
    assert "over 2 folds of the mean over 2 seeds" in headline(comparison)
    assert "over 2 folds of the mean over 2 seeds" in latex_rows(comparison)


def test_test_scores_change_no_order_and_say_what_they_are(light: None) -> None:
    comparison = comparison_of(["gate", "add", "dot"])
    other = copy.deepcopy(comparison)
    for place, row in enumerate(other["rows"]):
        row["test"]["MAE"] = {"mean": 3.0 - place, "std": 0.0, "values": [3.0 - place] * 2}
    one, two = page_of(comparison), page_of(other)
    assert tables_of(one)[0] == tables_of(two)[0]
    assert tables_of(one)[1] != tables_of(two)[1]
    assert "Nothing here took part in the ranking" in one


def test_a_number_that_is_varied_is_an_axis(light: None) -> None:
    comparison = comparison_of(["1e-4", "1e-3", "1e-2"], values=[1e-4, 1e-3, 1e-2])
    (line, *_) = plots_of(page_of(comparison))
    assert line["data"][0]["x"] == [1e-4, 1e-3, 1e-2]
    means = {row["values"]["optim.lr"]: row["valid"]["MAE"]["mean"] for row in comparison["rows"]}
    assert line["data"][0]["y"] == [means[x] for x in line["data"][0]["x"]]
    assert line["layout"]["xaxis"]["type"] == "log"


def test_nothing_was_trained(light: None) -> None:
    comparison = comparison_of([], failed=["a", "b"])
    page = page_of(comparison)
    assert "No setting was trained to its end." in page
    assert len(tables_of(page)) == 2
    assert plots_of(page) == []


def test_the_headline_says_whether_it_may_be_chance() -> None:
    comparison = comparison_of(["gate", "add"])
    best = comparison["rows"][0]
    best["difference"]["valid"] = {"difference": -0.1, "low": -0.2, "high": -0.05, "p": 0.0002, "p_holm": 0.0004}
    assert "-0.1000 (95 % interval [-0.2000, -0.0500], Holm's p < 0.001)." in headline(comparison)
    best["difference"]["valid"]["p_holm"] = 0.06
    assert "Holm's p = 0.060): one of 1 comparison, this may be chance." in headline(comparison)
    best["difference"]["valid"]["high"] = 0.01
    assert "the interval includes 0, so this may be chance." in headline(comparison)
    assert "'gate', the reference, is the best" in headline(comparison_of(["gate", "add"], best_first=True))
    assert "1 setting failed." in headline(comparison_of(["gate", "add"], failed=["x"]))


def test_the_markdown_begins_with_what_was_found() -> None:
    comparison = comparison_of(["gate", "add"], failed=["too fast"])
    lines = markdown_report(comparison, {"report.html": "report.html"}).splitlines()
    assert lines[0] == "# small"
    assert lines[2] == headline(comparison)
    assert lines[4].startswith("| rank | setting |")
    assert "See [report.html](report.html)." in lines


def test_the_latex_table_has_the_best_in_bold() -> None:
    comparison = comparison_of(["model.fusion=gate", "model.fusion=add"])
    for row in comparison["rows"]:
        row["values"] = {"model.fusion": row["setting"].partition("=")[2]}
    tex = latex_rows(comparison)
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r"Setting & Valid MAE & MAE & Corr & Acc-2 \\"
    assert rows[1].startswith(r"add & \textbf{")
    assert rows[2].startswith("gate (ref.) & 0.")
    assert r"model.fusion: ranked" in tex
    # A long name is cut, so that the table stays within its column.
    long = latex_rows(comparison_of(["no masks in either of the two streams", "gate"])).splitlines()
    assert [line.partition(" & ")[0] for line in long if line.endswith(r"\\")][2] == "no masks i…reams (ref.)"


def test_a_page_that_cannot_be_made_costs_itself_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise ValueError("no room")

    path = tmp_path / "report.html"
    path.write_text("of an earlier report")
    assert not write_page(path, fail)
    assert not path.exists()
    assert capsys.readouterr().out.count("WARNING: the page 'report.html' could not be made (ValueError: no room)") == 1


def test_hostile_names_stay_text(light: None) -> None:
    names = [name for name in NAMES.values() if name.strip()]
    comparison = comparison_of(names, failed=[NAMES["script end"]])
    comparison["name"] = comparison["dataset"] = NAMES["html"]
    page, plain = page_of(comparison), page_of(comparison_of([f"n{i}" for i in range(len(names))], failed=["f"]))
    tags = re.compile(r"<(/?[a-z][a-z0-9]*)")
    assert tags.findall(page) == tags.findall(plain)
    ticks = plots_of(page)[0]["layout"]["yaxis"]["ticktext"]
    assert len(ticks) == len(names)
    assert all(set(re.findall(r"<[^>]*>", tick)) <= {"<br>"} for tick in ticks)
    notes = json.dumps([trace.get("hovertext") for plot in plots_of(page) for trace in plot["data"]])
    assert set(re.findall(r"<[^>]*>", notes)) <= {"<br>", "<b>", "</b>"}


@pytest.mark.parametrize("width", [1280, pytest.param(400, marks=pytest.mark.slow)])
def test_an_ablation_is_readable(chromium: Browser, tmp_path: Path, width: int) -> None:
    names = ["gate", NAMES["html"], NAMES["script end"], NAMES["long"]]
    comparison = comparison_of(names, failed=["too fast"])
    for row in comparison["rows"][: len(names)]:
        row["stream_edges"] = {"intra": 5.5, "inter": 7.5}
        row["intervals"] = {split: {metric: [0.5, 0.6] for metric in row[split]} for split in ("valid", "test")}
    path = tmp_path / "report.html"
    path.write_text(page_of(comparison), encoding="utf-8")
    found = chromium.look(path, width)
    assert found.faults == []
    assert (found.plots, found.tables) == (2, 7)
    assert found.headings == [
        "Ablation small", "Ranking, on validation", "Test", "Quality against cost", "Failed", "Runs",
        "How to get it again",
    ]  # fmt: skip
