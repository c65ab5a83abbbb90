"""Summaries, tables and figures of a run."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from gmsa import figures
from gmsa.data import Target
from gmsa.figures import canvas
from gmsa.figures.canvas import BLUE
from gmsa.metrics import metrics
from gmsa.reports.run import latex_table, markdown_report, markdown_table, write_summary
from gmsa.reports.summary import SUMMARY, summarize
from gmsa.reports.tables import cell, escape_latex, headline, pipes, tabular, title
from gmsa.runs.report import draw_run
from gmsa.system.records import check_form
from gmsa.training.scoring import Predictions


def scores(mae):
    return {"Has0_acc_2": 0.5 + mae / 10, "Has0_F1_score": 0.25, "MAE": mae, "Corr": 0.5}


MISSING = {
    "train": {"protocol": "eta", "asked": 0.5, "realized": 0.504, "with_text": 0.5,
              "lacking": {"text": 0.5, "audio": 0.512, "vision": 0.5}},
    "test": {"protocol": "none", "realized": 0.25, "with_text": 0.999, "lacking": {"text": 0.001, "vision": 0.499}},
}  # fmt: skip


def summary(**changes):
    settings = {
        "name": "mosi_graph",
        "dataset": "mosi",
        "synthetic": False,
        "data_sha256": "d399",
        "seeds": [1111, 1112, 1113],
        "model": "semi_iin",
        "protocol": "self_training",
        "parameters": 1234567,
        "train_seconds": [10.0, 12.0, 14.0],
        "valid": [scores(0.8), scores(0.9), scores(1.0)],
        "test": [scores(0.7), scores(0.9), scores(1.1)],
        "missing": MISSING,
        "label_ratio": 0.5,
    }
    return summarize(**(settings | changes))


def cells(table):
    """A Markdown table as one dict per row."""
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_summary_holds_mean_sample_deviation_and_values():
    test = summary()["test"]["MAE"]
    assert test["values"] == [0.7, 0.9, 1.1]
    assert test["mean"] == pytest.approx(np.mean(test["values"]))
    assert test["std"] == pytest.approx(np.std(test["values"], ddof=1))
    assert summary()["train_seconds"] == {"mean": 12.0, "std": 2.0, "values": [10.0, 12.0, 14.0]}
    one = summary(seeds=[7], train_seconds=[1.5], valid=[scores(0.8)], test=[scores(0.7)])
    assert one["test"]["MAE"] == {"mean": 0.7, "std": 0.0, "values": [0.7]}


def test_summary_has_the_agreed_keys_and_plain_values():
    got = summary(
        valid=[{"MAE": np.float32(0.5)}] * 3, train_seconds=np.array([1.0, 2, 3]), seeds=np.arange(3),
    )  # fmt: skip
    assert list(got) == [
        "name", "dataset", "synthetic", "data_sha256", "seeds", "model", "protocol", "parameters",
        "train_seconds", "valid", "test", "stages", "missing", "label_ratio",
    ]  # fmt: skip
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": []},
        {"train_seconds": [1.0]},
        {"valid": [scores(1.0)]},
        {"test": [scores(1.0), scores(1.0), {"MAE": 1.0}]},
        {"stages": {"supervised": {"valid": [scores(1.0)]}}},
    ],
)
def test_summary_refuses_what_does_not_fit_the_seeds(changes):
    with pytest.raises(ValueError, match="seed"):
        summary(**changes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_summary_refuses_what_has_no_mean(value):
    with pytest.raises(ValueError, match="finite"):
        summary(test=[scores(0.5), scores(value), scores(0.5)])


def test_markdown_table_values():
    valid, test = cells(markdown_table([summary()]))
    assert valid == {
        "Run": "mosi_graph", "Data": "mosi", "Split": "valid", "Has0_acc_2 (%)": "59.00 ± 1.00",
        "Has0_F1_score (%)": "25.00 ± 0.00", "MAE": "0.9000 ± 0.1000", "Corr": "0.5000 ± 0.0000",
    }  # fmt: skip
    assert test["Split"] == "test"
    assert test["MAE"] == "0.9000 ± 0.2000"


def test_table_of_a_single_seed_has_no_deviation():
    one = summary(seeds=[7], train_seconds=[1.5], valid=[scores(0.8)], test=[scores(0.7)])
    assert cells(markdown_table([one]))[1]["MAE"] == "0.7000"
    assert r"\pm$." not in latex_table([one])


def test_stages_have_a_row_per_split_and_the_final_model_is_named_once():
    final = [scores(0.8), scores(0.9), scores(1.0)]
    earlier = [scores(1.0), scores(1.1), scores(1.2)]
    got = summary(stages={"supervised": {"valid": earlier}, "self_training": {"valid": final}}, test=[])
    rows = cells(markdown_table([got]))
    assert [(row["Stage"], row["Split"]) for row in rows] == [
        ("supervised", "valid"),
        ("self_training (final)", "valid"),
    ]
    assert [row["MAE"] for row in rows] == ["1.1000 ± 0.1000", "0.9000 ± 0.1000"]
    assert list(got["stages"]) == ["supervised", "self_training"]  # the table takes nothing out of the summary

    # The final model may also be another one than the last stage's.
    got = summary(stages={"supervised": {"valid": final, "test": final}, "self_training": {"valid": earlier}})
    rows = cells(markdown_table([got, summary(name="plain")]))
    assert [(row["Run"], row["Stage"], row["Split"]) for row in rows] == [
        ("mosi_graph", "supervised", "valid"),
        ("mosi_graph", "supervised", "test"),
        ("mosi_graph", "self_training", "valid"),
        ("mosi_graph", "final", "valid"),
        ("mosi_graph", "final", "test"),
        ("plain", "final", "valid"),
        ("plain", "final", "test"),
    ]


def test_table_keeps_mmsa_order_and_leaves_blank_what_a_run_lacks():
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(2, 50))
    runs = [
        summary(seeds=[1], train_seconds=[1], valid=[metrics(label_scale, *pair)], test=[], name=label_scale)
        for label_scale in ("mosi", "sims")
    ]
    first, second = cells(markdown_table(runs))
    assert [name.removesuffix(" (%)") for name in first][3:11] == list(metrics("mosi", *pair))
    assert first["Mult_acc_3 (%)"] == ""
    assert second["Mult_acc_7 (%)"] == ""


def test_latex_table():
    table = latex_table([summary()])
    assert r"mosi\_graph & 0.900\,{\tiny$\pm$.200} & 0.500\,{\tiny$\pm$.000} \\" in table
    assert r"Run & MAE & Corr \\" in table
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{@{}lrr@{}}"):
        assert table.count(word) == 1
    assert "synthetic" not in table.lower()
    assert "Test split" in table
    assert "Validation split" in latex_table([summary(test=[])])
    table = latex_table([summary()], ["Has0_acc_2", "Corr"])
    assert r"Run & Acc-2 (has 0) & Corr \\" in table
    assert r"mosi\_graph & 59.0\,{\tiny$\pm$2.0} & 0.500\,{\tiny$\pm$.000} \\" in table


def test_latex_table_marks_the_best_of_each_column():
    better, worse = summary(name="a"), summary(name="b", test=[scores(0.9), scores(1.0), scores(1.1)])
    a, b = (line for line in latex_table([better, worse]).splitlines() if line[:2] in ("a ", "b "))
    assert a == r"a & \textbf{0.900}\,{\tiny$\pm$.200} & \textbf{0.500}\,{\tiny$\pm$.000} \\"
    assert b == r"b & 1.000\,{\tiny$\pm$.100} & \textbf{0.500}\,{\tiny$\pm$.000} \\"  # as good in Corr
    own = [{"mine": 0.5}] * 3  # nobody knows which values are better
    assert "textbf" not in latex_table([summary(name="a", test=own), summary(name="b", test=own)])


def test_latex_table_fits_a_column():
    pair = np.random.default_rng(0).normal(size=(2, 500))
    final = [{k: v + s for k, v in metrics("mosi", *pair).items()} for s in (-0.05, 0, 0.05)]
    earlier = [{k: v + s for k, v in metrics("mosi", *pair).items()} for s in (-0.12, 0, 0.12)]
    stages = {"supervised": {"test": earlier}, "self_training_1": {"test": final}}
    lines = latex_table([summary(test=final, stages=stages, valid=[])]).splitlines()
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines if " & " in line]
    assert rows[0] == ["Stage", "MAE", "Corr", "Acc-2", "F1", "Acc-7"]
    assert [row[0] for row in rows[1:]] == ["supervised", "self-training-1"]
    assert r"\setlength{\tabcolsep}{2pt}" in lines
    columns = [max(map(points, column)) for column in zip(*rows, strict=True)]
    assert 0.7 * LINE < sum(columns) + 4 * (len(columns) - 1) < LINE


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_table_compiles_without_an_overfull_box(tmp_path):
    table = latex_table([summary(), summary(name="other & more")])
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\setlength{\columnwidth}{8.5cm}"
    (tmp_path / "a.tex").write_text(f"{head}\\begin{{document}}\n{table}\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "a.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Overfull" not in said


def test_markdown_and_latex_hold_the_same_table():
    header, rows = ["name", "MAE"], [["a|b", "1.0 ± 0.5"], ["c & d", ""]]
    assert pipes(header, rows, ("name",)) == ("| name | MAE |\n| :-- | --: |\n| a\\|b | 1.0 ± 0.5 |\n| c & d |  |\n")
    tex = tabular(header, rows, ("name",), "50 %", wide=True).splitlines()
    assert (tex[0], tex[-1]) == (r"\begin{table*}[t]", r"\end{table*}")
    assert tex[1:4] == [r"\centering", r"\caption{50 \%}", r"\scriptsize"]
    assert tex[5:7] == [r"\begin{tabular}{@{}lr@{}}", r"\toprule"]
    assert tex[7:11] == [r"name & MAE \\", r"\midrule", r"a|b & 1.0\,{\tiny$\pm$.5} \\", r"c \& d &  \\"]
    assert r"a|b & \textbf{1.0}\,{\tiny$\pm$.5} \\" in tabular(header, rows, ("name",), strong={(0, 1)})
    assert tabular(header, rows).startswith(r"\begin{table}[t]")


def test_digits_of_cells():
    found = {"mean": 0.123456, "std": 0.01, "values": [1, 2]}
    shown = {metric: cell(metric, found) for metric in ("MAE", "CCC", "Mult_acc_7", "F1_score", "seconds")}
    assert shown == {
        "MAE": "0.1235 ± 0.0100", "CCC": "0.1235 ± 0.0100", "Mult_acc_7": "12.35 ± 1.00", "F1_score": "12.35 ± 1.00",
        "seconds": "0.1 ± 0.0",
    }  # fmt: skip
    assert [title(metric) for metric in ("CCC", "F1_score")] == ["CCC", "F1_score (%)"]


def test_latex_escapes():
    assert escape_latex(r"a_b & 5% #1 {x} $y$ ~^\<>") == (
        r"a\_b \& 5\% \#1 \{x\} \$y\$ \textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
    )
    assert r"r\_1 \& \{50\%\}" in latex_table([summary(name="r_1 & {50%}")])


def test_markdown_escapes():
    (row, _) = markdown_table([summary(name="a|b\nc")]).splitlines()[2:]
    assert row.startswith(r"| a\|b c | mosi |")


def test_report_begins_with_the_main_scores(tmp_path):
    pair = np.random.default_rng(0).normal(size=(2, 50))
    found = [metrics("mosi", *pair)] * 3
    got = summary(valid=found, test=found)
    (tmp_path / "figures").mkdir()
    for name in ("gate.png", "report.html"):
        (tmp_path / ("figures" if name == "gate.png" else ".") / name).touch()
    head, main, note, links, facts, *_ = markdown_report(got, tmp_path).split("\n\n")
    assert head == "# mosi_graph"
    assert [line.split(" | ")[0] for line in main.splitlines()[2:]] == [
        "| MAE", "| Corr", "| Non0_acc_2 (%)", "| Non0_F1_score (%)", "| Mult_acc_7 (%)",
    ]  # fmt: skip
    assert main.splitlines()[0] == "| Metric | Test | Validation |"
    assert "1111, 1112, 1113" in note
    assert links == "Page: [report.html](report.html). Figures: [gate](figures/gate.png)."
    assert facts.startswith("- Data: mosi\n")
    assert "](" not in markdown_report(got)  # no folder, no links


@pytest.mark.parametrize(
    ("protocol", "stages", "said"),
    [
        ("self_training", ["supervised"], "supervised only (there was no pool for self_training)"),
        ("distillation", ["supervised"], "supervised only (there was no pool for distillation)"),
        ("self_training", ["supervised", "self_training_1"], "self_training (supervised, self_training_1)"),
        ("supervised", ["supervised"], "supervised"),
        ("mine", ["supervised"], "mine"),
        ("pretrain", [], "pretrain"),
    ],
)
def test_report_names_the_stages_that_ran(protocol, stages, said):
    got = summary(protocol=protocol, stages={stage: {"test": [scores(1.0)] * 3} for stage in stages})
    assert f"- Protocol: {said}" in markdown_report(got).replace("\\_", "_").splitlines()


def test_report_counts_the_utterances():
    got = summary(utterances={"train": 1284, "valid": 229, "test": 686, "labeled": 642})
    check_form(got, SUMMARY)
    said = "- Utterances: 1,284 for training (642 with labels), 229 for validation, 686 for the test"
    assert said in markdown_report(got).splitlines()
    assert "- Utterances" not in markdown_report(summary())


def test_report_compares_with_a_constant_prediction():
    constant = {"value": 0.4, "valid": scores(0.95), "test": {"MAE": 1.25}}
    got = summary(constant=constant)
    check_form(got, SUMMARY)
    text = markdown_report(got)
    rows = cells(text.split("\n\n")[1])
    assert [row["Test, always 0.40"] for row in rows] == ["1.2500", ""]
    assert [row["Validation, always 0.40"] for row in rows] == ["0.9500", "0.5000"]
    assert "always 0.40: the median of the training labels" in text
    assert "always" not in markdown_table([got]) + latex_table([got]) + markdown_report(summary())


def test_main_metrics_are_a_papers_and_ones_own():
    sims = ("Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr", "Non0_acc_2", "Non0_F1_score", "CCC")
    assert headline(sims) == ["MAE", "Corr", "Mult_acc_2", "F1_score", "Mult_acc_5", "CCC"]
    assert headline(["loss", "mask"]) == ["loss", "mask"]


def test_report_names_the_facts():
    text = markdown_report(summary())
    for fact in ("# mosi_graph\n", "d399", "1,234,567", "1111, 1112, 1113", "12.0 ± 2.0 s", "Label ratio: 0.5"):
        assert fact in text
    assert "synthetic" not in text.lower()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "eta:0.5; 50.4 % of the modalities missing; text in 50.0 %, audio in 48.8 %, vision in 50.0 % of the"),
        ({"asked": 2 / 3}, "eta:0.6667; "),
        ({"protocol": "frame", "asked": 0.3}, "frame:0.3; 50.4 % of the steps lost; text in"),
        ({"protocol": "fixed", "left": "ta"}, "fixed:ta; 50.4 % of the modalities missing"),
        ({"protocol": "frame_uniform"}, "frame_uniform; 50.4 % of the steps lost"),
        ({"protocol": "frame_uniform", "realized": None}, "frame_uniform; steps drawn anew in every epoch; text in"),
    ],
    ids=lambda value: value.get("protocol", "eta") if isinstance(value, dict) else "",
)
def test_report_says_what_is_missing_in_each_split(changes, said):
    record = MISSING["train"] | changes
    if record["protocol"] not in ("eta", "frame"):
        del record["asked"]
    lines = markdown_report(summary(missing=MISSING | {"train": record})).splitlines()
    (train,) = (line for line in lines if line.startswith("- Missing modalities, train: "))
    assert said in train
    assert (
        "- Missing modalities, test: as in the data; 25.0 % of the modalities missing; "
        "text in 99.9 %, vision in 50.1 % of the utterances"
    ) in lines
    assert "- Missing modalities: as in the data" in markdown_report(summary(missing={})).splitlines()


@pytest.mark.parametrize("dataset", ["mosi", "synthetic"])
def test_synthetic_is_said_everywhere(tmp_path, dataset):
    write_summary(tmp_path, summary(synthetic=True, dataset=dataset))
    got = json.loads((tmp_path / "summary.json").read_text())
    assert got["synthetic"] is True
    assert "SYNTHETIC" in got["note"]
    text = (tmp_path / "summary.md").read_text()
    assert "(*synthetic* data)" in text.splitlines()[0]
    assert "**SYNTHETIC" in text
    assert all(row["Data"].startswith("synthetic") for row in cells(markdown_table([got])))
    tex = (tmp_path / "summary.tex").read_text()
    assert "SYNTHETIC" in next(line for line in tex.splitlines() if "caption" in line)
    assert "(synthetic" in tex
    assert ("not mosi" in text) == (dataset == "mosi")


def test_write_summary_is_valid_json_and_refuses_nan(tmp_path):
    write_summary(tmp_path / "run", summary())
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["summary.json", "summary.md", "summary.tex"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary()
    with pytest.raises(ValueError, match="JSON"):
        write_summary(tmp_path / "bad", summary(missing={"rate": float("nan")}))
    assert list((tmp_path / "bad").iterdir()) == []


# --- figures

rng = np.random.default_rng(0)
HISTORY = [
    {"seed": seed, "stage": stage, "epoch": epoch, "loss": 1 / epoch, "valid": {"MAE": 0.7 + 1 / epoch, "Corr": 0.5},
     "lr": 1e-4, "seconds": 1.0, "best": epoch in (1, 4)}
    for seed in (1, 2) for stage in ("supervised", "self_training") for epoch in range(1, 7)
]  # fmt: skip
PSEUDO = [
    {"seed": seed, "round": 1, "class": k, "kept": k, "right": k // 2, "mean_confidence": 0.8, "pool": 60}
    for seed in (1, 2) for k in range(7)
]  # fmt: skip
CLASSES = {"prediction": rng.integers(7, size=60), "truth": rng.integers(7, size=60)}
PROBABILITIES = {"probabilities": rng.dirichlet(np.ones(7), size=60), "classes": rng.integers(7, size=60)}
SPLIT_MEANS = {"valid": 0.8, "test": 0.7}
ABLATION = [
    {"name": name, "reference": name == "add", "x": x}
    | {split: {"mean": mean + x / 10, "std": 0.02, "values": [0.7, 0.8]} for split, mean in SPLIT_MEANS.items()}
    for name in ("gate", "add") for x in (0.5, 0.125, 1.0)
]  # fmt: skip
COSTS = [
    {"name": f"variant {i}", "reference": i == 3, "seconds": 2.0 + i % 4, "parameters": 1000 * (1 + i % 3)}
    | {"valid": {"mean": 0.8 + i / 50, "below": 0.05, "above": 0.04}}
    for i in range(12)
]  # fmt: skip
ROBUSTNESS = [
    {"asked": rate, "metrics": {
        metric: {"mean": mean + rate, "std": 0.1 * rate, "values": []}
        for metric, mean in (("Has0_acc_2", 0.2), ("Non0_acc_2", 0.3), ("MAE", 0.9), ("Corr", 0.1))
    }}
    for rate in (0, 0.2, 0.6)
]  # fmt: skip
FIGURES = {
    "curves": (figures.figure_curves, HISTORY, []),
    "scatter": (figures.figure_scatter, {"prediction": rng.normal(size=60), "truth": rng.normal(size=60)},
                {"prediction": [], "truth": []}),
    "confusion": (figures.figure_confusion, CLASSES, {"prediction": [], "truth": []}),
    "classes": (figures.figure_classes, {"class": ["joy", "anger"], "F1": [[0.5, 0.75], [0.25, 0.0]]},
                {"class": [], "F1": []}),
    "gate": (figures.figure_gate, {"val": rng.uniform(size=60), "cls": rng.uniform(size=60)}, {"val": [], "cls": []}),
    "pseudo_labels": (figures.figure_pseudo_labels, PSEUDO, [row | {"kept": 0} for row in PSEUDO]),
    "calibration": (figures.figure_calibration, PROBABILITIES, {"probabilities": np.empty((0, 7)), "classes": []}),
    "ablation": (figures.figure_ablation, ABLATION, []),
    "costs": (figures.figure_costs, COSTS, COSTS[:1]),
    "robustness": (figures.figure_robustness, {"a": ROBUSTNESS}, {"a": ROBUSTNESS[:1]}),
    "robustness of two": (figures.figure_robustness, {"a": ROBUSTNESS, "b": ROBUSTNESS}, {"a": [], "b": []}),
}  # fmt: skip


LINE = 8.5 / 2.54 * 72.27
"""Points of a column of a two-column paper."""


def points(tex: str) -> float:
    """Points, about, that a cell of a LaTeX table takes in ``\\footnotesize``."""
    total = 0.0
    for part in re.split(r"(\{\\tiny.*?\})", tex.replace("\\,", "")):
        # Computer Modern of 8 and of 5 points is wider than that of 10 points made smaller.
        size, wider = (5, 1.36) if part.startswith("{") else (8, 1.0625)
        plain = re.sub(r"\\(tiny|textbf)|[{}$]", "", part).replace(r"\pm", "+").replace("\\_", "-").strip()
        if plain:
            font = FontProperties(family="cmb10" if "textbf" in part else "cmr10")
            total += wider * TextPath((0, 0), plain, size=size, prop=font).get_extents().width + 0.5
    return total


def drawn(monkeypatch, draw, data, **options):
    """The Matplotlib figure that ``draw`` would have saved."""
    caught = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: caught.append(figure))  # PNG, then SVG
    draw(data, **options)
    return caught[-1]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_a_png_of_sane_size(tmp_path, name):
    draw, data, nothing = FIGURES[name]
    path = tmp_path / f"{name}.png"
    assert draw(nothing, path) is False
    assert not path.exists()
    assert draw(data, path, synthetic=True) is True
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 800 <= width <= 2000
    assert 600 <= height <= 1500
    assert 10_000 < len(content) < 500_000
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, path.with_suffix(".svg").name]


@pytest.mark.parametrize("synthetic", [True, False])
def test_figure_title_says_synthetic(tmp_path, monkeypatch, synthetic):
    draw, data, _ = FIGURES["gate"]
    figure = drawn(monkeypatch, draw, data, path=tmp_path / "a.png", synthetic=synthetic)
    assert ("SYNTHETIC data" in figure.get_suptitle()) == synthetic


@pytest.mark.parametrize("name", ["scatter", "confusion", "gate", "calibration"])
@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, "60 utterances"), (3, "20 utterances × 3 seeds"), (60, "1 utterance × 60"), (7, "60 predictions of 7 seeds")],
)
def test_figure_title_counts_each_utterance_once(tmp_path, monkeypatch, name, seeds, said):
    draw, data, _ = FIGURES[name]
    figure = drawn(monkeypatch, draw, data, path=tmp_path / "a.png", seeds=seeds)
    assert f"({said}" in figure.get_suptitle()


def test_a_runs_figures_count_each_utterance_once(tmp_path, monkeypatch):
    titles = {}
    monkeypatch.setattr(canvas, "write_figure", lambda figure, path: titles.update({path.stem: figure.get_suptitle()}))
    rows = np.zeros(5, np.float32)
    made = Predictions(list("abcde"), rows, rows, np.full((5, 7), 1 / 7), np.zeros((5, 2)))
    history = [{"seed": 1, "stage": "x", "epoch": 1, "loss": 1.0, "valid": {"MAE": 1.0}, "best": True}]
    draw_run(tmp_path / "figures", history, [made, made], [made, made, made], [], Target(), False)
    for name in ("scatter", "confusion", "gate", "calibration"):
        assert "5 utterances × 2 seeds" in titles[name]
    assert "5 utterances × 3 seeds" in titles["pool_calibration"]


def test_curves_star_the_last_best_epoch(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_curves, HISTORY, path=tmp_path / "a.png")
    stars = [list(line.get_xdata()) for line in figure.axes[3].get_lines() if line.get_marker() == "*"]
    assert stars == [[4], [4]]
    assert list(figure.axes[2].get_lines()[0].get_ydata()) == [row["valid"]["MAE"] for row in HISTORY[:6]]


def test_confusion_rows_are_normalized_and_counts_add_up(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_confusion, CLASSES, path=tmp_path / "a.png")
    axis = figure.axes[0]
    assert np.allclose(axis.images[0].get_array().sum(axis=1), 100)
    counts = [int(text.get_text().split("\n")[1]) for text in axis.texts if text.get_text()]
    assert sum(counts) == 60
    share = axis.images[0].get_array()[2, 5]
    truth, prediction = CLASSES["truth"], CLASSES["prediction"]
    assert share == pytest.approx(100 * (prediction[truth == 2] == 5).mean())


def test_pseudo_labels_show_kept_and_the_share_right(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_pseudo_labels, PSEUDO, path=tmp_path / "a.png")
    top, bottom = figure.axes
    assert [bar.get_height() for bar in top.patches] == list(range(7))
    assert [bar.get_height() for bar in bottom.patches] == pytest.approx([100 * (k // 2) / k for k in range(1, 7)])
    unknown = [row | {"right": None} for row in PSEUDO]
    assert len(drawn(monkeypatch, figures.figure_pseudo_labels, unknown, path=tmp_path / "b.png").axes) == 1


def test_calibration_bars_are_the_reliability_table(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_calibration, PROBABILITIES, path=tmp_path / "a.png")
    left, right = figure.axes[:2]
    assert sum(int(text.get_text()) for text in left.texts) == 60
    assert sum(int(text.get_text().split("\n")[1]) for text in right.texts if text.get_text()) == 60


def test_the_legend_of_calibration_lies_below_the_axes(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_calibration, PROBABILITIES, path=tmp_path / "a.png")
    figure.set_layout_engine("constrained")  # it was turned off for the SVG, before any pixel
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["accuracy = confidence", "accuracy"]
    assert all(axis.get_legend() is None for axis in figure.axes)
    assert legend.get_window_extent().y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes[:2])


def test_ablation_marks_every_row_and_the_reference(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_ablation, ABLATION[:4], path=tmp_path / "a.png")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["gate", "gate", "gate", "add (reference)"]
    valid, test = axis.containers
    assert list(valid.lines[0].get_xdata()) == [row["valid"]["mean"] for row in ABLATION[:4]]
    assert list(test.lines[0].get_xdata()) == [row["test"]["mean"] for row in ABLATION[:4]]
    assert (valid.lines[0].get_markerfacecolor(), test.lines[0].get_markerfacecolor()) == (BLUE, "white")
    assert axis.yaxis_inverted()  # the best is on top
    dashed = [line for line in axis.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [ABLATION[3]["valid"]["mean"]]


def test_ablation_says_what_its_spread_is_over(tmp_path, monkeypatch):
    for over, said in (("", "over 2 seeds"), ("2 folds", "over 2 folds")):
        figure = drawn(monkeypatch, figures.figure_ablation, ABLATION[:4], path=tmp_path / "a.png", over=over)
        assert said in figure.get_suptitle()


def test_ablation_over_a_number_has_a_line_per_name_and_split(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_ablation, ABLATION, path=tmp_path / "a.png", key="data.label_ratio")
    (axis,) = figure.axes
    assert [bars.get_label() for bars in axis.containers] == [
        "gate validation", "gate test", "add validation", "add test",
    ]  # fmt: skip
    for bars in axis.containers:
        assert list(bars.lines[0].get_xdata()) == [0.125, 0.5, 1.0]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xscale()) == ("data.label_ratio", "MAE", "linear")


def test_robustness_has_a_panel_per_metric_over_the_rate(tmp_path, monkeypatch):
    figure = drawn(monkeypatch, figures.figure_robustness, {"a": ROBUSTNESS}, path=tmp_path / "a.png", protocol="frame")
    assert not figure.legends
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "MAE [points of sentiment]", "Corr (Pearson)", "Non0_acc_2 [%]",
    ]  # fmt: skip
    assert {axis.get_xlabel() for axis in figure.axes} == {"lost steps [%]"}
    for axis, means, factor in zip(
        figure.axes, ([0.9, 1.1, 1.5], [0.1, 0.3, 0.7], [30, 50, 90]), (1, 1, 100), strict=True
    ):
        (line,) = axis.get_lines()
        assert list(line.get_xdata()) == [0, 20, 60]
        assert line.get_ydata() == pytest.approx(means)
        (band,) = axis.collections
        edges = band.get_paths()[0].vertices
        for x, mean, std in zip((0, 20, 60), means, (0, 0.02, 0.06), strict=True):
            reach = edges[np.isclose(edges[:, 0], x), 1]
            assert (reach.min(), reach.max()) == pytest.approx((mean - factor * std, mean + factor * std))


def test_robustness_of_two_runs_has_a_line_for_each(tmp_path, monkeypatch):
    better = [
        row | {"metrics": {k: v | {"mean": v["mean"] / 2} for k, v in row["metrics"].items()}} for row in ROBUSTNESS
    ]
    figure = drawn(monkeypatch, figures.figure_robustness, {"a": ROBUSTNESS, "b": better}, path=tmp_path / "a.png")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    for axis in figure.axes:
        a, b = axis.get_lines()
        assert b.get_ydata() == pytest.approx(a.get_ydata() / 2)
        assert a.get_color() != b.get_color()
        assert a.get_marker() != b.get_marker()


@pytest.mark.parametrize("same", ["", "parameters", "all"])
def test_names_beside_marks_cover_neither_each_other_nor_a_mark(tmp_path, monkeypatch, same):
    rows = [row | ({"parameters": 9} if same == "parameters" else {}) for row in COSTS]
    if same == "all":  # settings that differ in nothing
        rows = [row | {key: COSTS[0][key] for key in ("valid", "seconds", "parameters")} for row in COSTS]
    figure = drawn(monkeypatch, figures.figure_costs, rows, path=tmp_path / "a.png")
    assert [axis.get_xlabel() for axis in figure.axes] == ["seconds of training", "parameters"][: 1 if same else 2]
    figure.draw_without_rendering()  # at the resolution of what follows
    for axis in figure.axes:
        names = [row["name"] + " (reference)" * row["reference"] for row in rows]
        assert [text.get_text() for text in axis.texts] == names  # all have found room
        boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the lines to their marks
        marks = axis.transData.transform([axis_mark(bars) for bars in axis.containers])
        room = axis.get_window_extent()
        for place, box in enumerate(boxes):
            assert not box.count_overlaps(boxes[:place])
            assert not any(box.contains(*mark) for mark in marks)
            assert (room.x0 <= box.x0, box.x1 <= room.x1, room.y0 <= box.y0, box.y1 <= room.y1) == (True,) * 4


def axis_mark(bars):
    ((x,), (y,)) = bars.lines[0].get_data()
    return x, y


def test_costs_are_drawn_with_their_intervals(tmp_path, monkeypatch):
    figure = drawn(
        monkeypatch, figures.figure_costs, COSTS, path=tmp_path / "a.png", metric="Corr", higher_is_better=True
    )
    for axis, cost in zip(figure.axes, ("seconds", "parameters"), strict=True):
        for bars, row in zip(axis.containers, COSTS, strict=True):
            assert axis_mark(bars) == (row[cost], row["valid"]["mean"])
            ((_, low), (_, high)) = bars.lines[2][0].get_segments()[0]
            assert (low, high) == pytest.approx((row["valid"]["mean"] - 0.05, row["valid"]["mean"] + 0.04))
    assert figure.axes[0].get_ylabel() == "validation Corr (higher is better)"
    assert "95 % intervals" in figure.get_suptitle()
    wide = [row | {"seconds": 10.0**i} for i, row in enumerate(COSTS)]
    figure = drawn(monkeypatch, figures.figure_costs, wide, path=tmp_path / "a.png")
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "linear"]


def test_names_are_no_formulas(tmp_path):
    name = r"a$\frac$_b$"  # as a formula it cannot be drawn
    rows = [row | {"name": name} for row in ABLATION]
    assert figures.figure_ablation(rows, tmp_path / "a.png")
    assert figures.figure_ablation(rows, tmp_path / "b.png", key="x")
    assert figures.figure_costs([row | {"name": name} for row in COSTS[:2]], tmp_path / "d.png")
    assert figures.figure_robustness({name: ROBUSTNESS, "b": ROBUSTNESS}, tmp_path / "c.png")


def test_numbers_at_logarithmic_axes_are_plain(tmp_path, monkeypatch):
    rows = [row | {"x": x} for row, x in zip(ABLATION[:3], (0.001, 0.01, 1.0), strict=True)]
    figure = drawn(monkeypatch, figures.figure_ablation, rows, path=tmp_path / "a.png", key="optim.lr")
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert {"0.001", "0.1", "1"} <= {label.get_text() for label in axis.get_xticklabels()}


def test_figures_leave_matplotlib_as_it_was(tmp_path):
    code = """import sys, matplotlib
matplotlib.rcParams["font.size"] = 31
from gmsa.figures import figure_gate
assert figure_gate({"val": [0.5], "cls": []}, sys.argv[1])
assert matplotlib.rcParams["font.size"] == 31 and "matplotlib.pyplot" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)
