"""Pages: what is escaped, what may run, and what a run's page shows of its folder, which may be a stranger's."""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hostile_names import NAMES
from helpers.small_runs import small

from gmsa import Run, metrics
from gmsa.config import from_dict
from gmsa.data import Utterance
from gmsa.errors import printable
from gmsa.registry import METRICS
from gmsa.reports.pages import html
from gmsa.reports.pages.run import run_page, write_run_page
from gmsa.reports.summary import LONGEST_TEXT, SUMMARY
from gmsa.runs import report as results
from gmsa.runs.report import constant_scores, finish_report, worst_predictions
from gmsa.runs.robustness import robustness
from gmsa.runs.train import train
from gmsa.system.records import check_form
from gmsa.training.scoring import Predictions


class Reader(HTMLParser):
    """Collects the elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "script" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def everything(name: str) -> str:
    """A page whose every text is a name."""
    parts = [
        html.paragraph(name),
        html.code(name),
        html.facts({name: name}),
        html.table([name, "MAE"], [[name, name]], (name,), {0}),
        html.figure("<svg/>", name, f"{name}."),
        html.fold(name, html.paragraph(name)),
        html.plot(json.dumps({"data": [{"name": name}], "layout": {"title": name}}), name),
    ]
    return html.page(name, [html.section(name, *parts)], synthetic=False)


@pytest.mark.parametrize("key", NAMES)
def test_every_text_is_escaped(key: str) -> None:
    page, plain = Reader(everything(NAMES[key])), Reader(everything("plain"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(of) for _, of in page.elements] == [sorted(of) for _, of in plain.elements]
    assert page.open == []
    shown = printable(NAMES[key]).replace("\r\n", "\n")
    assert page.text.replace("\r\n", "\n").count(shown) >= 12
    assert page.all("img")[0]["alt"] == printable(NAMES[key])


def test_a_page_names_all_that_may_run_and_loads_nothing() -> None:
    (policy,) = [m["content"] for m in Reader(everything("a")).all("meta") if "http-equiv" in m]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy
    script = "document.title = 'é'"
    page = html.page("a", [], synthetic=True, scripts=[script])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.count(f"<script>{script}</script>") == 1
    assert "SYNTHETIC" in Reader(page).text
    assert "SYNTHETIC" not in Reader(everything("a")).text


def test_a_section_without_parts_is_left_out() -> None:
    assert html.section("Gate") == html.section("Gate", "") == html.beside() == ""


def test_a_plot_cannot_end_its_script() -> None:
    part = html.plot(json.dumps({"data": [{"name": "</script><script>alert(1)"}]}), "a")
    assert part.count("<script") == part.count("</script>") == 1
    content = re.search(r"<script[^>]*>(.*)</script>", part)
    assert content is not None
    assert json.loads(content[1])["data"] == [{"name": "</script><script>alert(1)"}]


# --- of a run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is that several tests copy."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def run(shelf: Path, write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run without figures; its test split has texts that no page must obey."""

    def change(content: dict[str, Any]) -> None:
        content["test"]["raw_text"] = [*list(NAMES.values())[:11], "<b>very</b> " * 60]

    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    if not (shelf / "run").exists():
        train(small(lambda: write_mmsa(change=change), optim={"epochs": 1}), "<i>run</i>", shelf / "run")
    return Path(shutil.copytree(shelf / "run", tmp_path / "run"))


def test_a_run_leaves_a_page_that_says_what_it_is(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    page = Reader((run / "report.html").read_text())
    assert page.all("script") == page.all("b") == page.all("i") == []
    for said in (
        "<i>run</i>", summary["data_sha256"], "semi_iin", "self_training", f"{summary['parameters']:,}",
        "supervised only (there was no pool for self_training)",
        "Non0_acc_2 (%)", f"{summary['test']['MAE']['mean']:.4f}", "best validation MAE", "gmsa train",
    ):  # fmt: skip
        assert said in page.text, said
    assert "[report.html](report.html)" in (run / "summary.md").read_text()


def test_the_worst_predictions_are_those_farthest_off(run: Path) -> None:
    rows = json.loads((run / "summary.json").read_text())["worst"]
    means: dict[str, list[float]] = {}
    truth: dict[str, float] = {}
    for seed in (1, 2):
        for row in csv.DictReader((run / f"seed-{seed}" / "predictions.csv").open()):
            if row["split"] == "test":
                means.setdefault(row["id"], []).append(float(row["prediction"]))
                truth[row["id"]] = float(row["label"])
    errors = {name: abs(sum(values) / 2 - truth[name]) for name, values in means.items()}
    expected = sorted(errors, key=lambda name: -errors[name])[:10]
    assert [row["id"] for row in rows] == expected
    for row in rows:
        assert row["truth"] == pytest.approx(truth[row["id"]])
        assert row["prediction"] == pytest.approx(sum(means[row["id"]]) / 2)
        assert len(row["text"]) <= LONGEST_TEXT
        place = int(row["id"].split("$_$")[1])
        assert row["lacking"] == ([] if place % 3 else ["vision"])
        assert "\n" not in row["text"]
    assert any(row["text"].endswith("…") for row in rows) or "test2$_$11" not in expected


def test_the_page_says_what_guessing_would_score(run: Path) -> None:
    constant = json.loads((run / "summary.json").read_text())["constant"]
    truth: dict[str, list[float]] = {"train": [], "valid": [], "test": []}
    for row in csv.DictReader((run / "seed-1" / "predictions.csv").open()):
        truth[row["split"]].append(float(row["label"]))
    assert constant["value"] == pytest.approx(np.median(truth["train"]))
    page = (run / "report.html").read_text()
    for split in ("valid", "test"):
        assert constant[split]["MAE"] == pytest.approx(np.abs(np.array(truth[split]) - constant["value"]).mean())
        assert constant[split]["Corr"] == 0
        assert f"{constant[split]['MAE']:.4f}" in page
    assert f"Test, always {constant['value']:.2f}" in page


@pytest.mark.filterwarnings("error")
def test_the_constant_is_of_used_labels_and_spares_metrics_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    @metrics.metric(higher_is_better=True)
    def fussy(prediction: np.ndarray, truth: np.ndarray) -> float:
        return float("nan")

    monkeypatch.setitem(METRICS._parts, "fussy", fussy)
    config = from_dict({"data": {"path": "a.pkl"}, "run": {"metrics": ["fussy", "RMSE"]}})
    labels = np.float32([1, 2, np.nan])
    made = Predictions(["a", "b", "c"], labels, labels, np.zeros((3, 7)), None)
    found = constant_scores(config, [0.0, 1.0, 1.0, 3.0], {"valid": made, "test": made})
    assert found["value"] == 1
    assert found["valid"] == found["test"]
    assert found["test"].items() >= {"MAE": 0.5, "Corr": 0, "RMSE": 0.5**0.5}.items()
    assert "fussy" not in found["test"]


def test_who_gets_a_model_gets_no_words_of_others(run: Path, tmp_path: Path) -> None:
    Run(run).save(tmp_path / "model")
    assert "worst" not in json.loads((tmp_path / "model" / "summary.json").read_text())


def test_an_older_run_has_a_page_too(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    del summary["worst"], summary["constant"], summary["utterances"]
    check_form(summary, SUMMARY)
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "environment.json").write_text("{}")
    text = Reader(run_page(run)).text
    assert "Worst predictions" not in text
    assert "always" not in text
    assert summary["data_sha256"] in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "environment.json").write_text('{"versions": {"torch": []}}'),
        lambda run: (run / "environment.json").unlink(),
        lambda run: (run / "config.yaml").write_text("a: !!python/object:os.system x"),
        lambda run: change_summary(run, worst=[{"id": "a"}]),
        lambda run: change_summary(run, worst=[{"id": "a", "text": "", "truth": [], "prediction": 0, "lacking": []}]),
        lambda run: (run / "figures").mkdir() or (run / "figures" / "gate.svg").symlink_to("/etc/hosts"),
        lambda run: (run / "figures").mkdir() or (run / "figures" / "gate.svg").write_bytes(bytes((1 << 24) + 1)),
    ],
)
def test_a_page_that_cannot_be_made_costs_itself_alone(
    run: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run)
    capsys.readouterr()
    write_run_page(run)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("WARNING: the page 'report.html' could not be made (")
    assert line.endswith("); everything else is written")
    assert not (run / "report.html").exists()


def change_summary(run: Path, **changes: Any) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | changes))


def test_the_worst_predictions_have_columns_with_something_in_them(run: Path) -> None:
    row = {"id": "a", "text": "words", "truth": 0.0, "prediction": 1.0, "lacking": ["vision"]}
    for text, lacking in itertools.product(("", "words"), ([], ["vision"])):
        change_summary(run, worst=[row | {"text": text, "lacking": lacking}])
        section = run_page(run).split("<h2>Worst predictions</h2>")[1].split("</section>")[0]
        named = re.findall("<th [^>]*>(.*?)</th>", section)
        assert named == ["Truth", "Predicted", *["Text"] * bool(text), *["Missing"] * bool(lacking), "Utterance"]


def test_the_run_counts_its_utterances(run: Path) -> None:
    counts = json.loads((run / "summary.json").read_text())["utterances"]
    assert counts == {"train": 24, "valid": 12, "test": 12, "labeled": 24}
    assert "24 for training (24 with labels)" in (run / "report.html").read_text()


def test_a_figure_of_a_stranger_is_a_picture(run: Path) -> None:
    (run / "figures").mkdir()
    (run / "figures" / "gate.svg").write_text("<svg onload='alert(1)'><script>alert(2)</script></svg>")
    page = Reader(run_page(run))
    assert page.all("script") == page.all("svg") == []
    (image,) = page.all("img")
    assert str(image["src"]).startswith("data:image/svg+xml;base64,")


def test_a_caption_promises_no_right_labels_where_none_are_known(run: Path) -> None:
    (run / "figures").mkdir()
    (run / "figures" / "pseudo_labels.svg").write_text("<svg/>")
    assert "kept per class." in Reader(run_page(run)).text
    (run / "figures" / "pool_calibration.svg").write_text("<svg/>")
    assert "kept per class, and how many of them are right" in Reader(run_page(run)).text


def test_damaged_robustness_costs_its_section_alone(run: Path) -> None:
    (run / "robustness.json").write_text("{}")
    with pytest.warns(UserWarning, match="is damaged"):
        finish_report(run)
    assert "Missing modalities" not in re.findall("<h2>(.*?)</h2>", (run / "report.html").read_text())


def test_masks_are_added_to_the_page(run: Path) -> None:
    robustness(run, ["eta:0,0.3", "fixed:all"], mask_seeds=[0], seeds=[1])
    text = Reader((run / "report.html").read_text()).text
    assert "Missing modalities" in re.findall("<h2>(.*?)</h2>", (run / "report.html").read_text())
    assert "Every utterance keeps the same modalities." in text
    rows = json.loads((run / "robustness.json").read_text())["protocols"]["fixed"]["rows"]
    for row in rows:
        assert f"{row['metrics']['MAE']['mean']:.4f}" in text
    assert (run / "report.html").read_text().count("data:image/svg+xml") == 1


def test_a_run_of_pretraining_has_a_page(
    write_mmsa: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(
        small(write_mmsa, protocol={"name": "pretrain"}, pretrain={"epochs": 1}, run={"seeds": [1]}),
        "before",
        tmp_path / "run",
    )
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"
    text = Reader((tmp_path / "run" / "report.html").read_text()).text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for metric, found in summary["valid"].items():
        assert metric in text
        assert f"{found['mean']:.4f}" in text
    assert "Worst predictions" not in text


def test_unlabeled_utterances_are_no_worst_predictions() -> None:
    features = {"text": torch.zeros(1, 2), "audio": torch.zeros(0, 2)}
    labels = (0.0, None, 1.0)
    test = [Utterance(f"v$_${i}", features, label, text=" a\n b ") for i, label in enumerate(labels)]
    prepared = type("Prepared", (), {"splits": {"test": test}})
    found = np.float32([0, np.nan, 1])
    tests = [Predictions([], found, np.float32(values), np.zeros((3, 7)), None) for values in ([1, 9, 1], [2, 9, 2])]
    assert worst_predictions(prepared, tests) == [  # type: ignore[arg-type]
        {"id": "v$_$0", "text": "a b", "truth": 0.0, "prediction": 1.5, "lacking": ["audio"]},
        {"id": "v$_$2", "text": "a b", "truth": 1.0, "prediction": 1.5, "lacking": ["audio"]},
    ]
