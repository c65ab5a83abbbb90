"""Names that could command a terminal, break a table or fail a figure: each is shown, or refused in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from helpers.counts import Recorder, tell
from helpers.hostile_names import NAMES
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from gmsa import figures
from gmsa.ablation import ablate as ablation
from gmsa.ablation.cells import Cell, train_cell
from gmsa.ablation.comparison import ablation_summary, write_comparison
from gmsa.ablation.variants import Variant
from gmsa.config import Config, from_dict, to_dict
from gmsa.errors import WriteError, printable
from gmsa.figures.canvas import label
from gmsa.figures.data import figure_check
from gmsa.metrics import metric
from gmsa.registry import METRICS
from gmsa.reports.tables import escape_markdown, pipes, tabular
from gmsa.runs import report as results
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.files import write_text
from gmsa.training.callbacks.progress import Progress
from gmsa.tuning import study as studies
from gmsa.tuning.space import Space
from gmsa.tuning.study_report import StudyResult, draw_study, write_best
from gmsa.tuning.workers import WorkerTask, run_trials

SPOKEN = {key: name for key, name in NAMES.items() if name.strip()}
"""Those that can be read."""
ESCAPE = NAMES["escape sequence"] + "\x9b2J\u202e"
SCORES = dict.fromkeys(("MAE", "Corr", "Non0_acc_2", "Mult_acc_7"), 0.5)
RATES = [
    {"asked": rate, "metrics": {metric: {"mean": 0.5 + rate, "std": 0.1, "values": []} for metric in SCORES}}
    for rate in (0.0, 0.3)
]
CHECKED: dict[str, Any] = {
    "path": "clips.pkl",
    "dims": {"text": 3},
    "target": {"classes": []},
    "splits": {
        name: {
            "utterances": 2,
            "labels": {"labeled": 2, "counts": [1, 1], "edges": [-3, 0, 3]},
            "lengths": {"text": {"present": 2, "counts": [1, 1], "edges": [0, 1, 2], "max": 2}},
        }
        for name in NAMES.values()
    },
    "scales": {"text": {name: {"ratio": [1.0], "shift": [0.1]} for name in NAMES.values()}},
}


def command(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> tuple[int, str]:
    """Runs a command in this process; returns its exit code and all that it printed, which no terminal obeys."""
    code = 0
    capsys.readouterr()
    try:
        with cli.exit_codes(f"gmsa.{name}"):
            import_module(f"gmsa.{name}.__main__" if name in ("data", "config") else f"gmsa.{name}").main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    said = capsys.readouterr()
    controls = {c for c in said.out + said.err if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160}
    assert not controls, (name, arguments, controls)
    assert code in (0, 1, 2), said.err
    if code == 2:
        assert said.err.count("\n") == 1, said.err
    assert "fault of gmsa" not in said.err, said.err
    return code, said.out + said.err


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_markdown_table_holds_every_name() -> None:
    rows = [[str(place), name, f"{name} (reference)"] for place, name in enumerate(NAMES.values())]
    text = pipes(["rank", "setting", "more"], rows, ("setting",))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert [t.type for t in tokens if t.type in ("table_open", "html_block", "heading_open")] == ["table_open"]
    cells = [t for t in tokens if t.type == "inline"]
    assert len(cells) == 3 * (1 + len(rows))
    for place, (key, name) in enumerate(NAMES.items()):
        parts = cells[3 * place + 4].children or []
        assert {part.type for part in parts} <= {"text", "text_special", "code_inline"}, key
        shown = "".join(part.content for part in parts)
        plain = printable(name.replace("\r\n", " ").replace("\n", " ").replace("\t", " "))
        assert shown == plain.strip().replace("`c`", "c"), key


@pytest.mark.parametrize("key", SPOKEN)
@pytest.mark.parametrize("before", ["# ", "- Data: ", "- "])
def test_a_line_of_markdown_holds_a_name(before: str, key: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"{before}{escape_markdown(NAMES[key])}\n\nafter\n")
    blocks = [t.type for t in tokens if t.nesting >= 0]
    assert blocks in (
        ["heading_open", "inline", "paragraph_open", "inline"],
        ["bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_open", "inline"],
    )
    first = next(t for t in tokens if t.type == "inline")
    assert {part.type for part in first.children or []} <= {"text", "text_special", "code_inline"}


@pytest.mark.parametrize("name", ["1. a", "- a", "+ a", "= a", "> a", "```", "~~~", "[a]: http://x", "[ ] a"])
def test_a_name_begins_no_block(name: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"- {escape_markdown(name)}\n- b\n")
    assert [t.content for t in tokens if t.type == "inline"] == [escape_markdown(name), "b"]
    assert len([t for t in tokens if t.type == "list_item_open"]) == 2


def test_ordinary_names_stay_as_they_are() -> None:
    for text in (
        "mosi_graph", "VIDEO$_$CLIP; a$_$1", "model.fusion=gate(x=[1, 2])", "p < 0.001", "-0.5 [-0.1, +0.2]", "--:",
        "/data/mosi_50.pkl (pickle, 1.0 MB)", "59.00 ± 1.00", "C:\\data\\clips", ":--", "R & D", "a: 1; b",
    ):  # fmt: skip
        assert escape_markdown(text) == text


def test_a_latex_table_holds_every_name() -> None:
    rows = [[name, "1"] for name in (*NAMES.values(), "[x]", "* y")]
    lines = tabular(["setting", "MAE"], rows, ("setting",), "; ".join(NAMES.values())).splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(rows)
    for line in body:
        assert line.endswith(r" & 1 \\")
        assert line[0] not in "[*"
        left = line.removesuffix(r" & 1 \\")
        for escaped in (r"\textbackslash{}", r"\textasciitilde{}", r"\textless{}", r"\textgreater{}", "{}"):
            left = left.replace(escaped, "")
        for character in "&%$#_{}":
            left = left.replace(f"\\{character}", "")
        assert not set(left) & set("\\&%$#_{}~^\x1b\x07\n\r\u202e\u2028"), line


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn meanwhile, to the last glyph; a warning of Matplotlib fails."""
    found: list[Figure] = []

    def draw(figure: Figure, *_: object, **options: object) -> None:
        if options["format"] == "svg":
            return
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.draw_without_rendering()
        found.append(figure)

    monkeypatch.setattr(Figure, "savefig", draw)
    return found


def readable(texts: list[str]) -> None:
    """Checks that texts are there, in one line or two, and of a length that a figure can hold."""
    assert all(
        text.strip() and text.isprintable() and len(text) <= 100 for text in (t.replace("\n", " ") for t in texts)
    )


def test_figures_show_every_name(drawn: list[Figure], tmp_path: Path) -> None:
    names, path = list(NAMES.values()), tmp_path / "a.png"
    row = {split: {"mean": 0.5, "std": 0.1, "values": [0.5]} for split in ("valid", "test")}
    rows = [row | {"name": name, "reference": not place, "x": place % 3} for place, name in enumerate(names)]
    assert figures.figure_ablation(rows, path, metric="_of $x_{$ my own")
    ticks = [tick.get_text() for tick in drawn[-1].axes[0].get_yticklabels()]
    assert len(ticks) == len(names)
    assert figures.figure_ablation(rows, path, key="optim.lr")
    lines = [text.get_text() for text in drawn[-1].legends[0].get_texts()]
    assert len(lines) == 2 * len(names)
    found = {"valid": {"mean": 0.5, "below": 0.1, "above": 0.1}, "seconds": 1.0, "parameters": 9}
    assert figures.figure_costs([{"name": name, "reference": False} | found for name in names], path)
    readable([text.get_text() for text in drawn[-1].axes[0].texts])
    assert figures.figure_robustness(dict.fromkeys(names, RATES), path)
    runs = [text.get_text() for text in drawn[-1].legends[0].get_texts()]
    assert runs == [label(name) for name in names]
    assert len(set(runs)) == len(names)
    assert figure_check(CHECKED, path)
    for axis in drawn[-1].axes:
        splits = [text.get_text() for text in axis.get_legend().get_texts()]
        assert len(splits) == len(names)
        readable(splits)
    readable([*ticks, *lines, *runs])
    for place, axis in enumerate(drawn[2].axes):  # the legend leaves the axes their room
        box = axis.get_window_extent()
        assert min(box.width, box.height) > 150, place


def test_a_label_is_seen() -> None:
    assert label("mosi_graph, seed 1") == "mosi_graph, seed 1"
    assert label("_hidden") == " _hidden"  # a legend leaves out what begins with an underscore
    assert (label(""), label(" ")) == ("''", "' '")
    assert label("情") == "\\u60c5"  # the font lacks it
    assert label("é Ü µ ±") == "é Ü µ ±"
    one, other = ("long " * 60 + end for end in "ab")
    assert len(label(one)) == 40
    assert label(one) != label(other)


def test_a_graph_shows_its_id(tmp_path: Path, make_utterance: Callable[..., Any]) -> None:
    from gmsa.figures.graph import draw_graph
    from gmsa.graph import build_graph

    for name in (ESCAPE, NAMES["comment"], NAMES["formula that fails"], NAMES["html"]):
        graph = build_graph(make_utterance(name, (3, 2, 1)), Config().graph)
        draw_graph(graph, tmp_path / "a.svg", f"$ {name.replace(' ', '')} _x")
        text = (tmp_path / "a.svg").read_text(encoding="utf-8")
        assert "\x1b" not in text
        assert "<script" not in text
        import xml.etree.ElementTree as ET

        ET.fromstring(text)


# --- a figure that fails ---------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Matplotlib fail, as it does at what it did not expect."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("\x1b[2J\nParseSyntaxException: Expected {")

    monkeypatch.setattr(Figure, "savefig", fail)


def warning_of(name: str) -> str:
    return (
        f"WARNING: the figure '{name}' could not be drawn (ValueError: \\x1b[2J ParseSyntaxException: Expected {{); "
        "everything else is written"
    )


def compared(out: Path, names: list[str]) -> None:
    """Writes the report of an ablation of variants of these names, whose cells are made up."""
    variants = [Variant(name, Config(), ()) for name in names]
    cells = [Cell(v, 1111, out / "cells" / v.slug) for v in variants]
    rows = "".join(f"{split},a{i},{i / 4},{i / 3}\n" for split in ("valid", "test") for i in range(3))
    records = {}
    for cell in cells:
        cell.predictions.parent.mkdir(parents=True)
        cell.predictions.write_text(f"split,id,prediction,label\n{rows}")
        costs = dict.fromkeys(("nodes", "edges", "seconds_per_epoch", "peak_memory_mb", "train_seconds"), 1.0)
        records[cell.key] = {
            "state": "done", "parameters": 9, "epochs": 1, "device": "cpu", **costs,
            **dict.fromkeys(("valid", "test"), SCORES),
        }  # fmt: skip
    facts = {"synthetic": False, "data_sha256": "0" * 64}
    comparison = ablation_summary(names[0], variants, cells, records, facts)
    write_comparison(out, comparison, variants, cells, records)


def test_an_ablation_loses_its_figures_alone(failing: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "out" / "figures" / "ablation.svg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier report")
    compared(tmp_path / "out", ["a", "b"])
    assert capsys.readouterr().out.splitlines() == [warning_of("ablation.png"), warning_of("cost.png")]
    assert not stale.exists()
    assert {"summary.json", "summary.md", "summary.tex", "ablation.csv"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_a_run_loses_its_figures_alone(failing: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gmsa.data import Target
    from gmsa.training.scoring import Predictions

    folder = tmp_path / "figures"
    folder.mkdir()
    names = {"curves", "scatter", "confusion", "calibration", "pool_calibration"}
    for name in {*names, "classes", "gate", "pseudo_labels"}:
        (folder / f"{name}.png").write_bytes(b"of an earlier report")
        (folder / f"{name}.svg").write_bytes(b"of an earlier report")
    history = [{"seed": 1, "stage": "x", "epoch": 1, "loss": 1.0, "valid": {"MAE": 1.0}, "best": True}]
    made = Predictions(["a"], np.zeros(1, np.float32), np.zeros(1), np.full((1, 7), 1 / 7), None)
    results.draw_run(folder, history, [made], [made], [], Target(), False)
    assert set(capsys.readouterr().out.splitlines()) == {warning_of(f"{name}.png") for name in names}
    assert list(folder.iterdir()) == []


def test_a_check_loses_its_figure_alone(
    failing: None, write_mmsa: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    code, said = command(capsys, "data", "check", str(write_mmsa()), "--out", str(out))
    assert code == 0
    assert warning_of("check.png") in said.splitlines()
    assert f"Wrote {out}/check.md and check.json" in said.splitlines()
    assert sorted(p.name for p in out.iterdir()) == ["check.json", "check.md"]


def studied(folder: Path, name: str) -> StudyResult:
    """A study of six trials, of an objective and a choice that are no formulas."""
    METRICS.register("_of$x_$", metric(higher_is_better=False)(lambda prediction, truth: 0.0))
    study = optuna.create_study(direction="minimize")
    for place in range(6):
        distributions = {
            "optim.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
            "data.name": optuna.distributions.CategoricalDistribution(tuple(SPOKEN.values())[:6]),
        }
        params = {"optim.lr": 10 ** (-1 - place / 2), "data.name": list(SPOKEN.values())[place]}
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=distributions,
                values=[1.0 + (place - 2) ** 2],
                intermediate_values={1: 2.0},
            )
        )
    return StudyResult(name, Config(), Space(()), ("_of$x_$",), study.trials, folder, False)


@pytest.mark.slow
def test_a_study_loses_its_figure_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        plt.subplots()
        raise RuntimeError("no room")

    import matplotlib.pyplot as plt

    monkeypatch.setattr("optuna.visualization.matplotlib.plot_slice", fail)
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("slice.png", "slice.svg", "pareto.png", "history.html", "plotly.min.js"):
        (folder / name).write_bytes(b"of an earlier report")
    mine = plt.figure().number
    name = NAMES["html"] + NAMES["formula that fails"]
    assert set(draw_study(studied(tmp_path, name), folder)) == {"history", "importance", "parallel", "curves"}
    assert plt.get_fignums() == [mine]  # none of its own stays open
    plt.close(mine)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "WARNING: the figure 'slice.png' could not be drawn (RuntimeError: no room); everything else is written"
    )
    left = {p.name for p in folder.iterdir()}
    assert left == {f"{n}.{e}" for n in ("history", "importance", "parallel", "curves") for e in ("png", "svg")}


def test_a_comment_of_a_config_ends_in_its_line(tmp_path: Path) -> None:
    write_best(studied(tmp_path, "a\nmodel: {layers: 9}\u2028# b"))
    assert yaml.safe_load((tmp_path / "best.yaml").read_text(encoding="utf-8"))["model"] == to_dict(Config())["model"]


def test_what_cannot_be_written_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="cannot write"):
        figures.figure_robustness({"a": RATES}, tmp_path / "nowhere" / "a.png")


# --- the terminal ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file that trains in a second, in the working directory, without figures."""
    for name in ("GMSA_DATA", "GMSA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_mmsa()
    settings = {
        "data": {"path": "tiny.pkl", "name": "tiny"},
        "model": {"channels": 8, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0, "batch_size": 24},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1], "device": "cpu"},
    }
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump(settings))
    return path


def hostile(content: dict[str, Any]) -> None:
    for columns in content.values():
        columns["id"] = [f"{ESCAPE}{name}" for name in columns["id"]]
    content["test"]["raw_text"] = [ESCAPE] * 12
    content["train"]["regression_labels"][0] = 9
    content[ESCAPE] = content["valid"]


def test_no_data_commands_the_terminal(
    small: Path, write_mmsa: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(f"{ESCAPE}.csv")
    path = str(write_mmsa(f"{ESCAPE.replace('/', '')}.pkl", hostile))
    Path("splits.csv").write_text("video,split\n" + "".join(f"train{i},{ESCAPE}\n" for i in range(6)))
    Path("rows.csv").write_text(f"id,split,{ESCAPE}\n{ESCAPE},{ESCAPE},\n")
    assert command(capsys, "data", "import", "tiny.pkl", "--out", "store")[0] == 0
    manifest = json.loads(Path("store/manifest.json").read_text())
    shutil.copytree("store", "renamed")
    text = json.dumps(manifest).replace("tiny.pkl", json.dumps(ESCAPE)[1:-1]).replace('"valid"', json.dumps(ESCAPE))
    Path("renamed/manifest.json").write_text(text)
    for arguments in (
        ["info", path], ["check", path], ["check", path, "--out", "report"], ["info", "renamed"], ["check", "renamed"],
        ["info", f"{ESCAPE}.csv"], ["info", ESCAPE], [ESCAPE], ["check", "tiny.pkl", "--labels", ESCAPE],
        ["import", path, "--out", "x"], ["import", "tiny.pkl", "--out", "y", "--splits", "splits.csv"],
        ["import", "rows.csv", "--out", "z"], ["import", "tiny.pkl", "--out", f"{ESCAPE}/x", "--format", ESCAPE],
    ):  # fmt: skip
        command(capsys, "data", *arguments)
    for arguments in (["--id", "train0$_$0"], ["--id", ESCAPE], ["--id", "train0$_$0", "--relation", ESCAPE]):
        for data in (path, "tiny.pkl"):
            asked = ["--config", str(small), "--set", f"data.path={data}", "--out", "a.svg"]
            command(capsys, "inspect", *asked, *arguments)


def test_no_run_commands_the_terminal(
    small: Path, write_mmsa: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    settings = yaml.safe_load(small.read_text())
    settings["data"]["name"] = ESCAPE
    Path("named.yaml").write_text(yaml.safe_dump(settings))
    code, said = command(capsys, "train", "--config", "named.yaml", "--out", ESCAPE)
    assert code == 0
    assert "\\x1b]0;pwned\\x07" in said
    run, data = ["--run", ESCAPE], str(write_mmsa(f"{ESCAPE}.pkl"))
    assert command(capsys, "evaluate", *run)[0] == 0
    assert command(capsys, "evaluate", *run, "--data", data, "--missing", "eta:0", "--out", "e")[0] == 0
    assert command(capsys, "predict", *run, "--input", data, "--out", f"{ESCAPE}.csv")[0] == 0
    Path(ESCAPE, ".writer.json").write_text(json.dumps({"host": ESCAPE, "process": 1, "boot": ESCAPE, "user": ESCAPE}))
    for name, arguments in (
        ("train", ["--config", "named.yaml", "--out", ESCAPE]),
        ("train", ["--config", "named.yaml", "--out", ESCAPE, "--resume"]),
        ("train", ["--config", ESCAPE, "--set", ESCAPE]),
        ("train", ["--config", "named.yaml", "--set", f"{ESCAPE}={ESCAPE}"]),
        ("train", ["--config", "named.yaml", "--set", f"model.fusion={ESCAPE}", "--plugin", ESCAPE]),
        ("train", [ESCAPE]),
        ("evaluate", ["--run", f"{ESCAPE}x"]),
        ("evaluate", [*run, "--missing", ESCAPE]),
        ("ablate", ["--config", "named.yaml", "--vary", f"model.fusion={ESCAPE},gate", "--out", "o"]),
        ("tune", ["--config", "named.yaml", "--space", ESCAPE]),
        ("config", ["named.yaml"]),
        ("config", ["--key", ESCAPE]),
    ):
        command(capsys, name, *arguments)
    Path(ESCAPE, "robustness.json").write_text(json.dumps([ESCAPE]))
    command(capsys, "train", "--config", "named.yaml", "--out", ESCAPE, "--resume")


def test_no_warning_and_no_line_of_progress_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with cli.exit_codes("gmsa.train"):
        text = warnings.formatwarning(ESCAPE, UserWarning, "a.py", 1, "")
    assert "a.py:1: UserWarning: \\x1b]0;" in text
    assert "\x1b" not in text
    assert "\x1b" in warnings.formatwarning(ESCAPE, UserWarning, "a.py", 1, "")  # as it was
    Progress().on_message(ESCAPE)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "a\n", "a  ", "x " * 200, "| a | ± – … |\n| --- |\n\n  - é\n", "[b]x[/b] :smile: 1"]
)
def test_the_console_prints_ordinary_text_as_print_does(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print(text)
    expected = capsys.readouterr().out
    console().print(text)
    assert capsys.readouterr().out == expected


# --- names that are not UTF-8 ----------------------------------------------------------------------------------------


@pytest.fixture
def undecodable() -> str:
    """A name that the file system takes, and UTF-8 does not know."""
    name = os.fsdecode(b"bad\xff")
    try:
        Path(name).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    return name


def test_a_name_that_is_not_utf8_is_refused_or_written_as_an_escape(
    small: Path, undecodable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    config, data = f"{undecodable}.yaml", f"{undecodable}.pkl"
    shutil.copy(small, config)
    shutil.copy("tiny.pkl", data)
    assert command(capsys, "train", "--config", config, "--out", "run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["name"] == undecodable
    assert "# bad\\udcff" in Path("run/summary.md").read_text()
    shutil.copytree("run", f"{undecodable}.run")
    for name, *arguments in (
        ("train", "--config", config),
        ("train", "--config", str(small), "--out", f"{undecodable}.other"),
        ("train", "--config", str(small), "--data", data),
        ("train", "--config", str(small), "--set", f"data.name={undecodable}"),
        ("evaluate", "--run", f"{undecodable}.run"),
        ("predict", "--run", "run", "--input", data, "--out", f"{undecodable}.csv"),
        ("ablate", "--config", str(small), "--vary", f"data.name=a,{undecodable}"),
        ("inspect", "--config", str(small), "--id", undecodable, "--out", "a.png"),
        ("data", "info", data),
        ("data", "import", data, "--out", "store"),
    ):
        assert command(capsys, name, *arguments)[0] == 2, arguments
    for name, *arguments in (
        ("evaluate", "--run", "run", "--data", data, "--out", "scored"),
        ("evaluate", "--run", "run", "--data", data, "--missing", "eta:0", "--out", "robust"),
        ("predict", "--run", "run", "--input", data, "--out", "a.csv"),
    ):
        assert command(capsys, name, *arguments)[0] == 0, arguments


def test_text_that_is_not_utf8_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é \udcff")
    assert (tmp_path / "a.txt").read_bytes() == "é \\udcff".encode()


# --- from the first command to the last ------------------------------------------------------------------------------


def test_folders_of_hostile_variants_are_apart(tmp_path: Path) -> None:
    variants = [Variant(name, Config(), ()) for name in NAMES.values()]
    slugs = {variant.slug for variant in variants}
    assert len({slug.lower() for slug in slugs}) == len(variants)
    for slug in slugs:
        assert slug not in ("", ".", "..", "con")
        assert re.fullmatch(r"[a-z0-9._=-]+", slug), slug
        (tmp_path / slug).mkdir()


def test_an_ablation_of_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    compared(tmp_path / "out", list(SPOKEN.values()))
    assert "WARNING" not in capsys.readouterr().out
    assert (tmp_path / "out" / "figures" / "ablation.png").stat().st_size > 10_000
    assert "alert(1)</script>" not in (tmp_path / "out" / "report.html").read_text()
    for line in (tmp_path / "out" / "summary.md").read_text().splitlines():
        assert printable(line) == line
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    assert [row["setting"] for row in rows] == list(SPOKEN.values())


def names_a_study(name: str) -> bool:
    """Whether a study may be named so; an empty name is none, and the study gets the name of its config."""
    refused = {*"\\\n\t\x1b\x9b\u202e\u2028"} & {*name}
    return not name or not (refused or name.isspace() or name == ".." or "//" in name or len(name) > 100)


@pytest.mark.slow
def test_from_training_to_study(
    small: Path,
    write_mmsa: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record_property: Recorder,
) -> None:
    def run_workers(task: WorkerTask, jobs: int, look: Callable[[], int], say: Any) -> None:
        run_trials(task)
        look()

    monkeypatch.setattr(studies, "run_workers", run_workers)  # in this process: each process takes seconds to start
    monkeypatch.setattr(ablation, "run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells])
    settings = yaml.safe_load(small.read_text())
    Path("space.yaml").write_text("model.fusion: {choice: [gate, add]}\n")
    Path("runs").mkdir()
    runs = []
    for place, (key, name) in enumerate(NAMES.items()):
        settings["data"]["name"] = name
        assert from_dict(settings).data.name == (name or "tiny")
        Path("named.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
        folder = str(place)
        code, said = command(capsys, "train", "--config", "named.yaml", "--out", f"runs/{folder}")
        assert (code, "WARNING" in said) == (0, False), key
        assert {"curves.png", "scatter.png", "gate.png"} <= {p.name for p in Path("runs", folder, "figures").iterdir()}
        if "/" not in name and name not in ("", "..") and len(name) < 250:
            folder = f"runs/{name}"
            Path("runs", str(place)).rename(folder)
            runs += ["--run", folder]
        code, said = command(
            capsys, "tune", "--config", "named.yaml", "--space", "space.yaml", "--study", name, "--trials", "2",
            "--out", f"study-{place}",
        )  # fmt: skip
        if not names_a_study(name):
            assert code == 2, key
            assert "cannot be a study's name" in said
            continue
        assert (code, "WARNING" in said) == (0, False), key
        found = Path(f"study-{place}")
        assert {"history.png", "slice.png"} <= {p.name for p in (found / "figures").iterdir()}
        assert yaml.safe_load((found / "best.yaml").read_text())["data"]["name"] == (name or "tiny")
        assert printable(text := (found / "summary.md").read_text()) == text
        assert "alert(1)</script>" not in (found / "report.html").read_text()
    code, said = command(capsys, "evaluate", *runs, "--missing", "eta:0,0.3", "--out", "compared")
    assert (code, "WARNING" in said) == (0, False)
    assert Path("compared/figures/robustness_eta.png").stat().st_size > 10_000
    # Every setting has its name, and differs from the others.
    entries = [{"name": name, "data.name": f"{place}"} for place, name in enumerate(SPOKEN.values())]
    Path("settings.yaml").write_text(yaml.safe_dump(entries, allow_unicode=True))
    code, said = command(capsys, "ablate", "--config", str(small), "--settings", "settings.yaml", "--out", "ablation")
    assert (code, "WARNING" in said) == (0, False)
    assert len(list(Path("ablation/cells").iterdir())) == len(SPOKEN)
    assert Path("ablation/figures/ablation.png").stat().st_size > 10_000
    for name in ("", " ", "\n"):
        Path("settings.yaml").write_text(yaml.safe_dump([{"name": name, "optim.lr": 0.1}]))
        said = command(capsys, "ablate", "--config", str(small), "--settings", "settings.yaml", "--out", "x")[1]
        assert "entry 1 needs a name" in said
    what = "hostile names through train, ablate, compare, tune, report"
    tell(record_property, what, refused=0, right=len(NAMES))
