"""What a run of classes reports: tables and figures by name, whatever the names and however many there are."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from gmsa import figures
from gmsa.config import from_dict
from gmsa.data import Target, Utterance
from gmsa.figures import canvas
from gmsa.figures.run import MOST_CLASSES
from gmsa.reports.pages.run import run_page
from gmsa.reports.run import latex_table, markdown_report
from gmsa.reports.summary import SUMMARY, summarize
from gmsa.runs.report import class_rows, constant_scores, draw_run, worst_predictions
from gmsa.system.files import write_json, write_text
from gmsa.system.records import check_form
from gmsa.training.scoring import Predictions

STRANGE = (
    "joy",
    "sad, very",
    "a|b",
    "<script>x</script>",
    "two lines",
    "x" * 200,
    "愤怒 \U0001f620",
    "$x_1$ & %",
    "7",
    "=1+1",
)
MOODS = Target("classes", classes=("bad", "so-so", "good"), metrics="classes")


def predictions(target: Target, labels: Any, probabilities: np.ndarray) -> Predictions:
    ids = [f"v$_${i}" for i in range(len(labels))]
    return Predictions(ids, np.float32(labels), None, np.float32(probabilities), None, target)


def drawn_by_chance(target: Target, count: int, seed: int = 0) -> Predictions:
    """Predictions of a classifier that is right more often than not, and knows how often."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(target.num_classes, 0.3), count)
    labels = [rng.choice(target.num_classes, p=row) for row in probabilities]
    return predictions(target, labels, probabilities)


def summary_of(target: Target, tests: list[Predictions], **more: Any) -> dict[str, Any]:
    seeds = [*range(len(tests))]
    config = from_dict({"target": {"kind": "classes", "classes": list(target.classes)}})
    scores = [p.metrics(config) for p in tests]
    return summarize(
        name="moods", dataset="tiny", synthetic=False, data_sha256="0" * 64, seeds=seeds, model="semi_iin",
        protocol="supervised", parameters=1, train_seconds=[1.0] * len(seeds), valid=scores, test=scores,
        target={"kind": "classes", "classes": list(target.classes)}, classes=class_rows(tests),
        constant=constant_scores(config, [0.0, 1, 1], {"valid": tests[0], "test": tests[0]}), **more,
    )  # fmt: skip


@pytest.mark.parametrize("count", [len(STRANGE), 1000])
def test_names_of_classes_survive_every_table(tmp_path: Path, count: int) -> None:
    names = (*STRANGE, *(f"class {i}" for i in range(count - len(STRANGE))))
    target = Target("classes", classes=names, metrics="classes")
    found = summary_of(target, [drawn_by_chance(target, 300, seed) for seed in (0, 1)])
    check_form(found, SUMMARY)
    table = markdown_report(found).split("## Classes, test split\n\n")[1].splitlines()
    assert len(table) == 2 + count
    cells = [re.split(r"(?<!\\)\|", line) for line in table]
    assert {len(row) for row in cells} == {7}
    assert [row[1].strip() for row in cells[2:]][:3] == ["joy", "sad, very", r"a\|b"]
    assert r"\<script>" in table[5]
    assert "two lines" in table[6]
    assert sum(row["support"] for row in found["classes"]) == 300

    write_json(tmp_path / "summary.json", found)
    write_json(tmp_path / "environment.json", {})
    write_text(tmp_path / "config.yaml", "{}")
    page = run_page(tmp_path)
    assert "<script" not in page
    rows = re.findall(r'<tr[^>]*><td class="left[^"]*">(.*?)</td>', page.split("<h2>Classes</h2>")[1], re.DOTALL)
    assert [html.unescape(row) for row in rows[:4]] == list(STRANGE[:4])
    assert len([row for row in rows if row.startswith("class ")]) == count - len(STRANGE)
    assert ("<details>" in page.split("<h2>Classes</h2>")[1].split("</section>")[0]) == (count > 20)
    assert "joy" not in latex_table([found])


def test_the_constant_of_classes_is_the_most_frequent() -> None:
    tests = [predictions(MOODS, [0, 1, 1, 2], np.eye(3)[[0, 1, 1, 2]])]
    found = summary_of(MOODS, tests)
    assert found["constant"] == {
        "value": 1.0,
        "class": "so-so",
        **{split: pytest.approx(scores) for split in ("valid", "test") for scores in [found["constant"]["test"]]},
    }
    assert found["constant"]["test"]["accuracy"] == 0.5
    text = markdown_report(found)
    assert "always so-so: the most frequent class of the training labels" in text
    assert "- Target: 3 classes: bad, so-so, good" in text


@pytest.mark.parametrize(
    "wrong", [{"classes": [{"class": "joy"}]}, {"target": {"kind": "mood"}}, {"intervals": [{"seed": 1}]}]
)
def test_a_strangers_summary_is_checked(wrong: dict[str, Any]) -> None:
    found = summary_of(MOODS, [drawn_by_chance(MOODS, 20)])
    check_form(found, SUMMARY)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        check_form(found | wrong, SUMMARY)


def test_scores_of_classes_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    tests = [drawn_by_chance(MOODS, 200, seed) for seed in (0, 1)]
    tests[1] = predictions(MOODS, tests[0].labels, tests[1].probabilities)
    rows = class_rows(tests)
    for k, row in enumerate(rows):
        values = [f1_score(p.labels, p.predicted, labels=[k], average="macro") for p in tests]
        assert row["F1"]["values"] == pytest.approx(values)
        assert row["support"] == (tests[0].labels == k).sum()
    assert not class_rows([Predictions(["a"], np.zeros(1), np.zeros(1), np.full((1, 7), 1 / 7), None)])


def clips(labels: list[float | None], lacking: int = 0) -> list[Utterance]:
    """Utterances of which the first few lack audio."""
    return [
        Utterance(f"v$_${i}", {"text": torch.ones(1, 2), "audio": torch.ones(int(i >= lacking), 2)}, label, text="a")
        for i, label in enumerate(labels)
    ]


def test_the_worst_predictions_of_classes_are_the_most_confident_wrong_ones() -> None:
    labels: list[float | None] = [0, 1, 2, None, 0]
    prepared = type("Prepared", (), {"splits": {"test": clips(labels, lacking=2)}})
    first = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [1, 0, 0], [0.2, 0.5, 0.3]])
    second = np.array([[0.9, 0.1, 0], [0.4, 0.2, 0.4], [0.1, 0.8, 0.1], [1, 0, 0], [0.6, 0.1, 0.3]])
    known = [np.nan if y is None else y for y in labels]
    found = worst_predictions(prepared, [predictions(MOODS, known, p) for p in (first, second)])  # type: ignore[arg-type]
    keys = ("id", "text", "truth", "prediction", "confidence", "lacking")
    assert found == [
        dict(zip(keys, ("v$_$2", "a", "good", "so-so", pytest.approx(0.8), []), strict=True)),
        dict(zip(keys, ("v$_$1", "a", "so-so", "bad", pytest.approx(0.5), ["audio"]), strict=True)),
    ]


def test_the_report_says_what_conformal_sets_cover() -> None:
    row = {"level": 0.9, "pooled": 0.8, "counts": {"text": 9, "audio": 1}, "margins": {"text": 0.7}}
    rows = [row | {"seed": s, "width": 1.5 + s, "coverage": 0.9, "expected": [0.8, 0.95]} for s in (0, 1)]
    found = summary_of(MOODS, [drawn_by_chance(MOODS, 20)] * 2, intervals=rows)
    check_form(found, SUMMARY)
    (line,) = [line for line in markdown_report(found).splitlines() if "Prediction sets" in line]
    assert "90 % asked; of the test split 90.00 ± 0.00 % covered (chance: 80.0 to 95.0 %)" in line
    assert "mean width 2.000 ± 0.707 classes" in line


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that would have been written, by name."""
    caught: dict[str, Figure] = {}
    monkeypatch.setattr(canvas, "write_figure", lambda figure, path: caught.update({path.stem: figure}))
    return caught


def test_a_run_of_many_strange_classes_is_drawn(tmp_path: Path, shown: dict[str, Figure], capsys) -> None:
    target = Target("classes", classes=(*STRANGE, *map(str, range(1000))), metrics="classes")
    tests = [drawn_by_chance(target, 200, seed) for seed in (0, 1)]
    history = [{"seed": 1, "stage": "x", "epoch": 1, "loss": 1.0, "valid": {"weighted_F1": 0.5}, "best": True}]
    kept = [
        {"seed": 1, "round": 1, "class": k, "kept": 2, "right": 1, "mean_confidence": 0.5, "pool": 9} for k in range(99)
    ]
    labels = {"training": tests[0].labels, "test": tests[1].labels}
    draw_run(tmp_path / "figures", history, tests, tests, kept, target, False, "weighted_F1", labels)
    assert capsys.readouterr().out == ""  # a figure that cannot be drawn would be said
    assert set(shown) == {"curves", "confusion", "classes", "pseudo_labels", "calibration", "pool_calibration"}
    for name in shown.keys() - {"curves"}:
        for axis in shown[name].axes:
            assert max(len(axis.get_xticklabels()), len(axis.get_yticklabels())) <= MOST_CLASSES + 2


def test_the_confusion_of_many_classes_joins_the_rarest(tmp_path: Path, shown: dict[str, Figure]) -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.geometric(0.1, 500).clip(max=50) - 1, rng.integers(50, size=500)
    names = [f"mood {i}" for i in range(50)]
    figures.figure_confusion({"prediction": predicted, "truth": truth}, tmp_path / "a.png", classes=names)
    axis = shown["a"].axes[0]
    counts = [int(text.get_text().split("\n")[1]) for text in axis.texts if text.get_text()]
    assert sum(counts) == 500
    ticks = [tick.get_text() for tick in axis.get_yticklabels()]
    assert ticks == [tick.get_text() for tick in axis.get_xticklabels()]
    assert len(ticks) == MOST_CLASSES
    assert ticks[-1] == "31 others"
    frequent = sorted(np.argsort(-np.bincount(truth, minlength=50), kind="stable")[:19])
    assert ticks[:-1] == [f"mood {k}" for k in frequent]
    shares = axis.images[0].get_array()
    others = ~np.isin(predicted, frequent)
    for row, k in enumerate(frequent):
        assert shares[row, -1] == pytest.approx(100 * others[truth == k].mean())
        assert shares[row, 3] == pytest.approx(100 * (predicted[truth == k] == frequent[3]).mean())


def test_bars_of_classes_are_the_scores_and_the_counts(tmp_path: Path, shown: dict[str, Figure]) -> None:
    data = {"class": ["joy", "anger", "fear"], "F1": [[0.5, 0.7], [0.2, 0.2], [0.0, 1.0]]}
    labels = {"training": [5, 3, 1], "test": [2, 2, 0]}
    figures.figure_classes(data, tmp_path / "a.png", labels=labels)
    left, right = shown["a"].axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([60, 20, 50])
    assert [bar.get_width() for bar in right.patches] == [5, 3, 1, 2, 2, 0]
    assert [tick.get_text() for tick in left.get_yticklabels()] == data["class"]


@pytest.mark.parametrize(
    ("bounds", "ticks"),
    [
        ((-3, 3), "-3 -2 -1 0 +1 +2 +3"),
        ((1, 5), "1 1.67 2.33 3 3.67 4.33 5"),
        ((0, 100), "0 16.7 33.3 50 66.7 83.3 100"),
    ],
)
def test_bins_of_an_intensity_have_the_names_of_its_range(
    tmp_path: Path, shown: dict[str, Figure], bounds: tuple[float, float], ticks: str
) -> None:
    target = Target("intensity", *bounds)
    rows = np.float32([bounds[0], bounds[1]])
    made = Predictions(["a", "b"], rows, rows, np.full((2, 7), 1 / 7), None, target)
    history = [{"seed": 1, "stage": "x", "epoch": 1, "loss": 1.0, "valid": {"MAE": 1.0}, "best": True}]
    draw_run(tmp_path / "figures", history, [made], [made], [], target, False)
    assert [tick.get_text() for tick in shown["confusion"].axes[0].get_yticklabels()] == ticks.split()
    assert "classes" not in shown
    low, high = shown["scatter"].axes[0].get_xlim()
    assert low <= bounds[0] < bounds[1] <= high
    assert high - low == pytest.approx(1.08 * (bounds[1] - bounds[0]))
