"""Ablations: which settings they compare, that no cell is lost or repeated, and what the tables say."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from torch_geometric.data import HeteroData

from gmsa.ablate import main
from gmsa.ablation import ablate as ablation
from gmsa.ablation import cells, comparison
from gmsa.ablation.cells import Cell, train_cell
from gmsa.ablation.comparison import correct_p_values, ranking
from gmsa.ablation.folder import Table
from gmsa.ablation.variants import FIXED, Variant, chosen_names, entries_of, read_variants, varied_keys
from gmsa.config import to_dict
from gmsa.errors import ConfigError, GmsaError, RunError
from gmsa.graph import build_dialogue_graph, build_graph, dialogues_of
from gmsa.metrics import paired_bootstrap
from gmsa.models import graph_spec
from gmsa.reports.ablation import numeric_axis
from gmsa.reports.pages import html
from gmsa.runs import report as results
from gmsa.runs.evaluate import evaluate
from gmsa.system import cli

ROOT = Path(__file__).parents[2]
ABLATIONS = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))


@pytest.fixture
def base(write_mmsa: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that trains in a second on a small file."""
    monkeypatch.delenv("GMSA_DATA", raising=False)
    settings = {
        "data": {"path": str(write_mmsa()), "name": "tiny"},
        "model": {"channels": 16, "heads": 2},
        "optim": {"epochs": 1, "min_steps": 0},
        "protocol": {"name": "supervised"},
        "run": {"seeds": [1, 2], "device": "cpu"},
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def figures() -> None:
    """Asks for an ablation's figure."""


@pytest.fixture
def trained(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Trains cells in this process, without figures, as each process takes seconds to start; notes which."""
    found: list[tuple[str, int]] = []

    def run_cells(waiting: list[Cell], jobs: int, ended: Callable) -> None:
        for cell in waiting:
            found.append((cell.variant.name, cell.seed))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                record = train_cell(cell)
            ended(cell, record)

    monkeypatch.setattr(ablation, "run_cells", run_cells)
    monkeypatch.setattr(results, "draw_run", lambda *a: None)
    monkeypatch.setattr(html, "plotly_script", lambda: "")  # 5 MB
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(comparison, "figure_ablation", lambda *a: True)
        monkeypatch.setattr(comparison, "figure_costs", lambda *a: True)
    return found


def ablate(base: Path, out: Path, *arguments: str) -> int:
    """Runs the command in this process and returns its exit code."""
    try:
        main(["--config", str(base), "--out", str(out), *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


# --- settings --------------------------------------------------------------------------------------------------------


def test_vary_is_the_product_and_the_first_one_leads(base: Path) -> None:
    settings = read_variants(base, ["optim.lr=1e-2"], ["model.fusion=gate, add", "model.streams=both,intra"], None)
    assert [s.name for s in settings] == [
        f"model.fusion={fusion}, model.streams={streams}" for fusion in ("gate", "add") for streams in ("both", "intra")
    ]
    assert [(s.config.model.fusion, s.config.model.streams) for s in settings][2] == ("add", "both")
    assert {s.config.optim.lr for s in settings} == {0.01}
    assert varied_keys(settings) == ["model.fusion", "model.streams"]


def test_commas_in_brackets_do_not_split(base: Path) -> None:
    item = "model.encoders.text=[[3,1]],[[5, 1], [3, 1]]"
    settings = read_variants(base, [], [item, "data.normalize=[],[text,audio]"], None)
    assert [s.config.model.convs("text") for s in settings][::2] == [((3, 1),), ((5, 1), (3, 1))]
    assert [s.config.data.normalize for s in settings][:2] == [(), ("text", "audio")]


def test_settings_file_and_its_product_with_vary(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "- {name: plain}\n- {name: small, model.channels: 8, optim.lr: 1e-2}\n- {name: 3, data.normalize: [text]}"
    )
    settings = read_variants(base, [], [], path)
    assert [s.name for s in settings] == ["plain", "small", "3"]
    assert [s.config.model.channels for s in settings] == [16, 8, 16]
    assert settings[1].config.optim.lr == 0.01
    assert settings[2].config.data.normalize == ("text",)
    both = read_variants(base, [], ["model.fusion=gate,add"], path)
    assert [s.name for s in both][:3] == [
        "plain, model.fusion=gate",
        "plain, model.fusion=add",
        "small, model.fusion=gate",
    ]
    assert len({s.slug for s in both}) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to compare: give --vary KEY=A,B,... or --settings FILE"),
        (["--vary", "model.fusion"], "--vary takes key=a,b,..., for example --vary model.fusion=gate,add"),
        (["--vary", "=a"], "--vary takes key=a,b,..."),
        (["--vary", "model.fusion="], "--vary model.fusion: a value is empty"),
        (["--vary", "model.fusion=gate,,add"], "--vary model.fusion: a value is empty"),
        (["--vary", "model.fusion=gate,add,gate"], "--vary model.fusion: 'gate' is listed twice"),
        (["--vary", "optim.lr=1e-3,0.001"], "'optim.lr=1e-3' and 'optim.lr=0.001' are the same settings"),
        (["--vary", "data.normalize=[text,[audio]"], "--vary data.normalize: the brackets in '[text,[audio]' do not"),
        (["--vary", "data.normalize=text],[audio"], "--vary data.normalize: the brackets"),
        (["--vary", "fusion=gate,add"], "'fusion' is not a dotted key; name one such as 'model.fusion'"),
        (["--vary", "model.fusio=gate,add"], "unknown key 'model.fusio' (did you mean 'fusion'?)"),
        (["--vary", "model.fusion=gate,ad"], "setting 'model.fusion=ad': 'model.fusion' must be one of"),
        (["--vary", "optim.lr=1e-3,-1"], "setting 'optim.lr=-1': 'optim.lr' must be greater than 0"),
        (["--vary", "model.channels=16,15"], "setting 'model.channels=15': 'model.channels' must be divisible by"),
        (["--vary", "model.fusion=gate", "--vary", "model.fusion=add"], "from --vary and from --vary; leave one out"),
        (["--vary", "model.heads=1,2", "--set", "model.heads=4"], "from --set and from --vary; leave one out"),
        (["--vary", "model.fusion=gate,add", "--set", "optim.lrr=1"], "--set optim.lrr=1: unknown key 'optim.lrr'"),
        (
            ["--settings", "none.yaml"],
            "settings file 'none.yaml' does not exist; give a file, or one that comes with gmsa: context, fusion, ",
        ),
        (["--vary", "model.positions=512,1"], "'model.positions' allows 1; raise it"),
        (["--vary", "protocol.name=self_training", "--vary", "data.label_ratio=0.5"], "'self_training.k' is 40, but"),
        (["--vary", "model.fusion=gate,add", "--set", "data.path=none.pkl"], "data file 'none.pkl' does not exist"),
        *((["--vary", f"{key}=1,2"], f"'{key}' cannot be varied: {why}") for key, why in FIXED.items()),
    ],
)
def test_mistakes_are_named_before_anything_runs(
    base: Path, tmp_path: Path, trained: list, arguments: list[str], message: str
) -> None:
    with pytest.raises(GmsaError) as caught:
        ablate(base, tmp_path / "out", *arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trained
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a list of settings such as '- {name: add, model.fusion: add}'"),
        ("name: a", "expected a list of settings"),
        ("[", "not valid YAML"),
        ("- {name: a, model.fusion: add, model.fusion: gate}", "duplicate key 'model.fusion'"),
        ("- {name: a}\n- {model.fusion: add}", "entry 2 needs a name"),
        ("- {name: true}", "entry 1 needs a name"),
        ('- {name: "\\ud800"}', "entry 1: name' is not text in UTF-8"),
        ("- add", "entry 1 needs a name"),
        ("- {name: a}\n- {name: a, model.fusion: add}", "'a' and 'a' have the same name; leave one out"),
        ("- {name: a}\n- {name: b}", "'a' and 'b' are the same settings; leave one out"),
        ("- {name: a, model.fusion: ad}", "setting 'a': 'model.fusion' must be one of"),
        ("- {name: a, model: {fusion: add}}", "'model' is not a dotted key"),
        ("- {name: a, optim.lr: .nan}", "setting 'a': 'optim.lr' must be a number"),
        ("- {name: a, data.path: b.pkl}", "'data.path' cannot be varied: the rows would not be scored on the same"),
    ],
)
def test_mistakes_in_a_settings_file(base: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_variants(base, [], [], path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_of_the_settings_file_is_given_once(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("- {name: a, model.fusion: add}")
    for overrides, vary, other in ((["model.fusion=dot"], [], "--set"), ([], ["model.fusion=dot"], "--vary")):
        with pytest.raises(ConfigError, match=rf"'model.fusion' gets a value from .*{other}"):
            read_variants(base, overrides, vary, path)


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_wrong_jobs(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture, jobs: str) -> None:
    assert ablate(base, tmp_path / "out", "--vary", "model.fusion=gate,add", f"--jobs={jobs}") == 2
    assert f"expected a number of trainings from 1 on (got '{jobs}')" in capsys.readouterr().err


def test_slugs_are_safe_and_apart(base: Path) -> None:
    config = read_variants(base, [], ["model.fusion=gate"], None)[0].config
    names = [
        "gate",
        "Gate",
        "a/b",
        "a\\b",
        "a b",
        "..",
        "日本",
        "日",
        "x" * 300,
        "x" * 301,
        "window(radius=3)",
        "-",
        "a.",
    ]
    slugs = [Variant(name, config, ()).slug for name in names]
    assert slugs[0] == "gate"
    assert len({slug.lower() for slug in slugs}) == len(names)
    for slug in slugs:
        assert re.fullmatch(r"[a-z0-9_=][a-z0-9._=-]{0,100}", slug), slug


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_the_ablations_that_come_with_gmsa(path: Path, tmp_path: Path) -> None:
    config = "mosi_sslmm.yaml" if path.stem in ("sslmm", "missing") else "mosi_graph.yaml"
    settings = read_variants(ROOT / "configs" / config, [], [], path)
    assert len(settings) >= 4
    values = [{key: setting.value(key) for key in varied_keys(settings)} for setting in settings]
    assert numeric_axis(values) == ("data.label_ratio" if path.stem == "label_ratio" else None)
    for setting in settings:
        for key in setting.keys:
            assert setting.value(key) is not None, (setting.name, key)
    # What a report writes of them is the same ablation.
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(to_dict(settings[0].config)))
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(entries_of(settings)))
    again = read_variants(tmp_path / "base.yaml", [], [], tmp_path / "settings.yaml")
    assert [(s.name, s.config) for s in again] == [(s.name, s.config) for s in settings]


def test_variants_whose_keys_do_not_say_all_are_no_list_of_settings(base: Path) -> None:
    gate, add = read_variants(base, [], ["model.fusion=gate,add"], None)
    assert entries_of([gate, add]) == [{"name": gate.name}, {"name": add.name, "model.fusion": "add"}]
    assert entries_of([Variant("a", gate.config, ()), Variant("b", add.config, ())]) is None


# --- cells -----------------------------------------------------------------------------------------------------------

FUSIONS = ("--vary", "model.fusion=gate,add,dot")


def errors_of(out: Path, slug: str, split: str) -> np.ndarray:
    """Prediction minus label ``[seeds, utterances]``, read anew."""
    found = []
    for seed in (1, 2):
        path = out / "cells" / slug / f"seed-{seed}" / f"seed-{seed}" / "predictions.csv"
        rows = [row for row in csv.DictReader(path.open()) if row["split"] == split]
        found.append([float(row["prediction"]) - float(row["label"]) for row in rows])
    return np.array(found)


def test_p_values_are_corrected_over_the_rows_of_a_split() -> None:
    p = {"a": (0.01, 0.5), "b": (0.03, 0.001), "c": (0.02, 0.6)}
    rows = [{"setting": "gate"}, *({"difference": {"valid": {"p": v}, "test": {"p": t}}} for v, t in p.values())]
    correct_p_values(rows)
    found = [[row["difference"][split]["p_holm"] for row in rows[1:]] for split in ("valid", "test")]
    assert found == [pytest.approx([0.03, 0.04, 0.04]), pytest.approx([1, 0.003, 1])]
    assert rows[0] == {"setting": "gate"}


@pytest.mark.usefixtures("rendered")
def test_an_ablation_goes_on_and_its_numbers_are_those_of_its_predictions(
    base: Path, tmp_path: Path, trained: list, figures: None, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert ablate(base, out, "--vary", "model.fusion=gate,add") == 0
    assert trained == [(f"model.fusion={f}", seed) for seed in (1, 2) for f in ("gate", "add")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"base: 2 variants, 2 seeds, 4 cells, 0 of them done; {out}"
    assert re.fullmatch(r"4/4 cells: model.fusion=add, seed 2: valid MAE \d\.\d{4}, \d+\.\d s", lines[4])
    files = {p: p.stat().st_mtime_ns for p in out.glob("cells/*/*/cell.json")}

    # A further setting adds its own cells; nothing is repeated.
    trained.clear()
    assert ablate(base, out, *FUSIONS) == 0
    assert trained == [("model.fusion=dot", 1), ("model.fusion=dot", 2)]
    assert {p: p.stat().st_mtime_ns for p in files} == files
    progress = capsys.readouterr().out.split("| rank |")[0].splitlines()
    assert len(progress) == 4
    assert "test" not in progress[1] + progress[2]

    # A cell whose end was not noted is scored again, not trained again.
    next(iter(files)).write_text("{")
    trained.clear()
    before = {p: p.read_bytes() for p in out.glob("cells/*/*/seed-?/*") if p.suffix in (".csv", ".jsonl")}
    assert ablate(base, out, *FUSIONS) == 0
    assert len(trained) == 1
    assert {p: p.read_bytes() for p in before} == before

    summary = summary_of(out)
    assert summary["synthetic"] is False
    assert (summary["reference"], summary["seeds"]) == ("model.fusion=gate", [1, 2])
    valid = {f: np.abs(errors_of(out, f"model.fusion={f}", "valid")).mean(1) for f in ("gate", "add", "dot")}
    order = sorted(valid, key=lambda f: valid[f].mean())
    assert [row["values"]["model.fusion"] for row in summary["rows"]] == order
    assert summary["chosen"] == f"model.fusion={order[0]}"
    cells_ = {(r["model.fusion"], r["seed"]): r for r in csv.DictReader((out / "ablation.csv").open())}
    assert len(cells_) == 6
    table = (out / "summary.md").read_text()
    tex = (out / "summary.tex").read_text()
    for rank, row in enumerate(summary["rows"], 1):
        fusion = row["values"]["model.fusion"]
        reference = fusion == "gate"
        assert (row["rank"], row["reference"]) == (rank, reference)
        for split in ("valid", "test"):
            errors = errors_of(out, f"model.fusion={fusion}", split)
            mae = np.abs(errors).mean(1)
            assert row[split]["MAE"]["mean"] == pytest.approx(mae.mean(), abs=1e-6)
            assert row[split]["MAE"]["std"] == pytest.approx(mae.std(ddof=1), abs=1e-6)
            assert f"{mae.mean():.4f} ± {mae.std(ddof=1):.4f}" in table
            if split == "test":
                deviation = f"{mae.std(ddof=1):.3f}".removeprefix("0")
                assert re.search(rf"{mae.mean():.3f}}}?\\,{{\\tiny\$\\pm\${deviation}}}", tex)
            if not reference:
                expected = paired_bootstrap(errors_of(out, "model.fusion=gate", split), errors)
                lower, upper = sorted(r["difference"][split]["p"] for r in summary["rows"] if not r["reference"])
                first = min(1, 2 * lower)
                corrected = {"p_holm": first if expected.p == lower else max(first, upper)}
                assert row["difference"][split] == pytest.approx(vars(expected) | corrected, abs=1e-6)
                shown = f"{expected.difference:+.4f} [{expected.low:+.4f}, {expected.high:+.4f}] p = "
                assert (shown in table) == (split == "valid")
            for seed in (1, 2):
                assert float(cells_[fusion, str(seed)][f"{split}_MAE"]) == pytest.approx(mae[seed - 1], abs=1e-6)
        assert ("difference" in row) != reference
        assert ("| model.fusion=gate (reference) |" in table.splitlines()[6 + rank - 1]) == reference
        assert row["edges"] > row["nodes"] > 2
        assert sum(row["stream_edges"].values()) == pytest.approx(row["edges"])  # this model reads all
        assert row["peak_memory_mb"] > 100
        assert row["seconds_per_epoch"] > 0
        weights = load_file(out / row["folder"] / "seed-1" / "seed-1" / "model.safetensors")
        assert row["parameters"] == sum(weight.numel() for weight in weights.values())
        for split in ("valid", "test"):
            for metric, (low, high) in row["intervals"][split].items():
                assert low < row[split][metric]["mean"] < high, (split, metric)
            assert row["intervals"][split].keys() == row[split].keys()
        low, high = row["intervals"]["valid"]["MAE"]
        assert f"| {row['parameters']:,} | {row['nodes']:.1f} |" in table
        assert f" | [{low:.4f}, {high:.4f}] |" in table
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert {re.sub(r"\\&", "", line).count("&") for line in rows} == {4}
    for name in ("ablation", "cost"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "figures" / f"{name}.svg").exists()
        assert f"(figures/{name}.png)" in table
    page = (out / "report.html").read_text()
    for row in summary["rows"]:
        assert f"{row['valid']['MAE']['mean']:.4f} ± {row['valid']['MAE']['std']:.4f}" in page
        for seed in (1, 2):
            report = f"{row['folder']}/seed-{seed}/report.html"
            assert f'href="{quote(report)}"' in page
            assert (out / report).exists()
    assert "synthetic" not in (table + tex).lower()

    # A cell's folder is a run folder.
    run = out / "cells" / "model.fusion=add" / "seed-1"
    evaluate(run, out=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["test"]["MAE"]["mean"] == pytest.approx(
        float(cells_["add", "1"]["test_MAE"])
    )

    # Other settings, or another file in the place of the data, are refused before anything runs.
    trained.clear()
    with pytest.raises(RunError, match=r"cells/model.fusion=gate/seed-1' with other settings: optim.lr was 0.001, is"):
        ablate(base, out, *FUSIONS, "--set", "optim.lr=0.1")
    path = Path(yaml.safe_load(base.read_text())["data"]["path"])
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol=2))
    with pytest.raises(
        RunError, match=r"tiny.pkl' is not the file that .* was trained on \(SHA-256 .*; put that file back"
    ):
        ablate(base, out, *FUSIONS)
    assert not trained
    assert table == (out / "summary.md").read_text()


NAMES = ["gatv2, utterance", "gatv2, dialogue", "sage, utterance", "a=[x,y]", "a=[x]", "3"]


@pytest.mark.parametrize(
    ("only", "places"),
    [
        (["3"], [5]),
        (["gatv2*"], [0, 1]),
        (["*, utterance"], [0, 2]),
        (["gatv2, dialogue"], [1]),
        (["sage, utterance,gatv2, dialogue"], [1, 2]),
        (["sage*, 3 ,gatv2, ?ialogue"], [1, 2, 5]),
        (["3", "sage*"], [2, 5]),
        (["a=[x]"], [4]),
        (["a=[x,y],a=[x]"], [3, 4]),
        (["*"], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_settings_are_chosen_by_name_or_pattern(base: Path, only: list[str], places: list[int]) -> None:
    config = read_variants(base, [], ["model.fusion=gate"], None)[0].config
    assert chosen_names([Variant(name, config, ()) for name in NAMES], only) == [NAMES[i] for i in places]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (
            "sage, uterance",
            "--only: no setting is called 'sage' (did you mean 'sage, utterance'?); there are gatv2, utt",
        ),
        ("gatv2", "--only: no setting is called 'gatv2' (did you mean 'gatv2*'?); there are gatv2, utterance, gatv2, "),
        ("3,gat, utterance", "no setting is called 'gat' (did you mean 'gatv2, utterance'?)"),
        ("hgt*", "--only: no setting is called 'hgt*'; there are"),
        ("3,", "--only: a name is empty; name settings, such as --only 'gatv2, utterance'"),
        ("", "--only: a name is empty"),
        ("x" * 9999, "no setting is called 'xxxx"),
    ],
)
def test_names_of_no_setting(base: Path, only: str, message: str) -> None:
    config = read_variants(base, [], ["model.fusion=gate"], None)[0].config
    with pytest.raises(ConfigError) as caught:
        chosen_names([Variant(name, config, ()) for name in (*NAMES, "x" * 400, "gate\n")], [only])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_some_settings_are_trained_now_and_the_others_later(
    base: Path, tmp_path: Path, trained: list, capsys: pytest.CaptureFixture
) -> None:
    out, seed = tmp_path / "out", ("--seeds", "1")
    with pytest.raises(ConfigError, match=r"no setting is called 'add' \(did you mean '\*add\*'\?\); there are model"):
        ablate(base, out, *FUSIONS, *seed, "--only", "add")
    assert not out.exists()
    assert ablate(base, out, *FUSIONS, *seed, "--only", "model.fusion=d*,model.fusion=add") == 0
    assert trained == [("model.fusion=add", 1), ("model.fusion=dot", 1)]
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"base: 3 variants, 1 seeds, 2 cells, 0 of them done, 1 left out; {out}"
    assert "1 setting was not run; the same command without --only trains what is left." in printed
    assert "|  | model.fusion=gate (reference) | not run |" in printed
    table = Table(out)
    assert (table.complete, len(table)) == (False, 3)
    assert [(row["rank"], row.get("not_run"), row["failed"]) for row in table.rows] == [
        (1, None, {}),
        (2, None, {}),
        (None, ["1"], {}),
    ]
    assert not any("difference" in row for row in table.rows)
    assert [row["state"] for row in csv.DictReader((out / "ablation.csv").open())] == ["not run", "done", "done"]
    assert "1 setting was not run" in (out / "summary.md").read_text()
    page = (out / "report.html").read_text()
    assert "3 settings with 1 seed each (1): 2 trainings" in page
    assert "not run" in page
    assert "cells/model.fusion%3Dadd/seed-1" in page
    assert "cells/model.fusion%3Dgate" not in page
    assert not (out / "cells" / "model.fusion=gate").exists()

    # With one more, what is done stays in the comparison; without --only the rest is trained, and all is compared.
    trained.clear()
    assert ablate(base, out, *FUSIONS, *seed, "--only", "model.fusion=add") == 0
    assert (trained, [row["rank"] for row in Table(out).rows]) == ([], [1, 2, None])
    assert ablate(base, out, *FUSIONS, *seed) == 0
    assert trained == [("model.fusion=gate", 1)]
    table = Table(out)
    assert table.complete
    assert [row["rank"] for row in table.rows] == [1, 2, 3]
    assert sum("difference" in row for row in table.rows) == 2
    assert "not run" not in (out / "summary.md").read_text()


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_graph_size_counts_every_edge_once(base: Path, scope: str) -> None:
    (setting,) = read_variants(base, [], [f"graph.scope={scope}", "graph.context=all"], None)
    train = ablation.prepare(setting.config).splits["train"]
    nodes = edges = 0
    if scope != "utterance":  # six videos of four utterances: in each three modalities and two readouts of every one
        nodes += 24 * 5
        edges += 6 * (3 * 4 * 4) + 24 * (3 * 2) + 24 * (2 * 2 * 2 * 3)
    if scope == "hierarchical":
        edges += 6 * (2 * 2 * 4 * 4)  # in both streams those of val and of cls of all pairs of utterances
    for utterance in train if scope != "dialogue" else ():
        tokens = sum(-(-len(x) // graph_spec(setting.config).strides[m]) for m, x in utterance.features.items())
        nodes += tokens + 2
        edges += tokens**2 + 2 * 4 * tokens  # all pairs of tokens; in both streams to and from both readouts
    assert ablation.graph_size(train, setting.config) == {"nodes": nodes / 24, "edges": edges / 24}


@pytest.mark.parametrize(
    ("scope", "changes", "streams"),
    [
        ("utterance", [], {"intra", "inter"}),
        ("dialogue", ["graph.past=1", "graph.future=0"], {"intra", "inter"}),
        ("hierarchical", [], {"intra", "inter"}),
        ("utterance", ["graph.intra=window(radius=1)", "model.streams=intra"], {"intra"}),
        ("utterance", ["model.name=sslmm"], {"intra", "inter"}),  # no readout nodes
        ("utterance", ["model.streams=global"], {"global"}),
        ("hierarchical", ["model.name=late_fusion"], {"intra"}),  # between utterances alone
        ("utterance", ["model.name=late_fusion"], set()),
    ],
)
def test_edges_of_a_stream_are_those_that_the_model_reads(
    base: Path, scope: str, changes: list[str], streams: set[str]
) -> None:
    """Counted one by one in PyG's form of the graphs."""
    (variant,) = read_variants(base, changes, [f"graph.scope={scope}"], None)
    train = ablation.prepare(variant.config).splits["train"]
    spec = graph_spec(variant.config)
    found: Counter[str] = Counter()

    def count(graph: HeteroData, seen: Sequence[str], readouts: Sequence[str]) -> None:
        for source, stream, target in graph.edge_types:
            ends = {source, target} & {"val", "cls"}
            if ends <= {*readouts}:
                in_both = ends and stream == "inter"  # read once where one stream has both
                found[stream] += graph[source, stream, target].num_edges * (stream in seen)
                found["global"] += graph[source, stream, target].num_edges * ("global" in seen and not in_both)

    if scope != "dialogue":
        for utterance in train:
            count(build_graph(utterance, variant.config.graph.inside, spec.strides), spec.streams, spec.readouts)
    if scope != "utterance":
        for group in dialogues_of(train):
            graph = build_dialogue_graph([train[i] for i in group], variant.config.graph)
            count(graph, spec.outside_streams if scope == "hierarchical" else spec.streams, spec.readouts)
    edges = ablation.stream_edges(train, variant.config)
    assert edges.keys() == streams
    assert edges == pytest.approx({stream: found[stream] / len(train) for stream in streams})
    assert streams == {stream for stream, total in found.items() if total}


def test_how_much_context_helps_is_one_ablation(base: Path, tmp_path: Path, trained: list) -> None:
    """Rows of the file that comes with gmsa, over one seed."""
    wanted = ("utterance", "around all and node")
    rows = yaml.safe_load((ROOT / "configs" / "ablations" / "context.yaml").read_text())
    file, out = tmp_path / "few.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump([row for row in rows if row["name"] in wanted]))
    assert ablate(base, out, "--settings", str(file), "--seeds", "1") == 0
    assert [name for name, _ in trained] == list(wanted)
    edges = {row["setting"]: row["edges"] for row in summary_of(out)["rows"]}
    assert edges["utterance"] < edges["around all and node"]


@pytest.mark.parametrize("select", ["MAE", "Corr"])
def test_ranking_is_on_validation(select: str) -> None:
    valid = {"a": [{select: 0.5}, {select: 0.7}], "b": [{select: 0.4}, {select: 0.6}], "c": [{select: 0.6}] * 2}
    assert ranking(valid, select) == (["b", "a", "c"] if select == "MAE" else ["a", "c", "b"])


def test_no_test_number_reaches_the_ranking(
    base: Path, tmp_path: Path, trained: list, write_mmsa: Callable[..., Path]
) -> None:
    """Other labels and features of the test split change the test columns and nothing else."""

    def change(content: dict) -> None:
        test = content["test"]
        test["regression_labels"] = -test["regression_labels"]
        test["text"] = test["text"][::-1] * 2

    varied = ["--vary", "model.streams=both,intra", "--vary", "optim.lr=1e-3,1e-1", "--seeds", "1"]
    found = []
    for name, edit in (("a", None), ("b", change)):
        write_mmsa(change=edit)
        assert ablate(base, tmp_path / name, *varied) == 0
        summary = summary_of(tmp_path / name)
        lines = (tmp_path / name / "summary.md").read_text().splitlines()[6:10]
        columns = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines]
        valid = [(row["setting"], row["valid"], row.get("difference", {}).get("valid")) for row in summary["rows"]]
        found.append((summary["chosen"], valid, columns, [row["test"] for row in summary["rows"]]))
    assert found[0][:3] == found[1][:3]
    assert all(a != b for a, b in zip(found[0][3], found[1][3], strict=True))
    by_test = sorted(summary["rows"], key=lambda row: row["test"]["MAE"]["mean"])
    assert [row["setting"] for row in by_test] != [row["setting"] for row in summary["rows"]]  # it could have shown


def test_a_failed_cell_is_recorded_and_tried_again(
    base: Path, tmp_path: Path, trained: list, figures: None, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    arguments = ["--vary", "optim.lr=1e-3,1e30", "--set", "optim.clip_norm=0", "--set", "optim.ema=0", "--seeds", "1"]
    for _ in range(2):
        trained.clear()
        assert ablate(base, out, *arguments) == 1
        assert "2/2 cells: optim.lr=1e30, seed 1: failed: " in capsys.readouterr().out
    assert trained == [("optim.lr=1e30", 1)]
    good, bad = summary_of(out)["rows"]
    assert (good["rank"], good["setting"], bad["rank"]) == (1, "optim.lr=1e-3", None)
    assert "is not finite" in bad["failed"]["1"]
    assert "valid" not in bad
    text = (out / "summary.md").read_text()
    assert "|  | optim.lr=1e30 | failed |" in text
    assert re.search(r"Failed:\n\n- optim\.lr=1e30, seed 1: .*is not finite", text)
    assert "1e30 & failed" in (out / "summary.tex").read_text()
    assert [r["state"] for r in csv.DictReader((out / "ablation.csv").open())] == ["done", "failed"]
    assert "±" not in text.split("Ranked")[0]  # a single seed

    # Where it is the reference that failed, there is nothing to differ from; where all did, still a table.
    swapped = ["--vary", "optim.lr=1e30,1e-3", *arguments[2:]]
    assert ablate(base, out, *swapped) == 1
    assert all("difference" not in row for row in summary_of(out)["rows"])
    assert ablate(base, tmp_path / "all", "--vary", "optim.lr=1e30", *arguments[2:]) == 1
    assert summary_of(tmp_path / "all")["chosen"] is None
    assert not (tmp_path / "all" / "figures" / "ablation.png").exists()


@pytest.mark.filterwarnings("ignore:the prediction is constant")
def test_sims_counts_errors_as_its_mae_does(
    tmp_path: Path, trained: list, write_mmsa: Callable[..., Path], base: Path
) -> None:
    def change(content: dict) -> None:
        for columns in content.values():
            columns["regression_labels"] /= 3

    write_mmsa(change=change)
    arguments = ["--set", "data.labels=sims", "--vary", "optim.lr=1e-3,5e-1", "--set", "run.select=Corr"]
    assert ablate(base, tmp_path / "out", *arguments) == 0
    summary = summary_of(tmp_path / "out")
    means = [row["valid"]["Corr"]["mean"] for row in summary["rows"]]
    assert means == sorted(means, reverse=True)
    maes = {row["reference"]: row["test"]["MAE"]["mean"] for row in summary["rows"]}
    (other,) = (row for row in summary["rows"] if not row["reference"])
    assert other["difference"]["test"]["difference"] == pytest.approx(maes[False] - maes[True], abs=1e-6)
    head = (tmp_path / "out" / "summary.md").read_text().splitlines()[4]
    assert "| test Mult_acc_2 (%) | test Mult_acc_5 (%) |" in head


def test_synthetic_is_said_everywhere(
    base: Path, tmp_path: Path, trained: list, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ablation.prepare

    def marked(config):
        prepared = small(config)
        return cells.replace(prepared, corpus=cells.replace(prepared.corpus, synthetic=True))

    monkeypatch.setattr(ablation, "prepare", marked)
    out = tmp_path / "out"
    assert ablate(base, out, "--vary", "model.fusion=gate,add", "--seeds", "1") == 0
    shown = capsys.readouterr().out
    assert shown.count("SYNTHETIC corpus") == 2
    assert "synthetic: 1/2 cells" in shown
    assert summary_of(out)["synthetic"] is True
    assert "SYNTHETIC" in summary_of(out)["note"]
    text = (out / "summary.md").read_text()
    assert "(*synthetic* data)" in text.splitlines()[0]
    assert "**SYNTHETIC" in text
    assert "SYNTHETIC" in (out / "summary.tex").read_text()
    assert {row["data"] for row in csv.DictReader((out / "ablation.csv").open())} == {"synthetic (not tiny)"}


@pytest.mark.parametrize("content", ["config.yaml", "thesis.txt"])
def test_a_folder_of_something_else_is_refused(base: Path, tmp_path: Path, trained: list, content: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / content).write_text("")
    with pytest.raises(RunError, match="is not empty and holds no ablation; give another --out"):
        ablate(base, out, *FUSIONS)


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SimpleNamespace]:
    """Gives cells a worker that loads no torch, and makes cells that do what their name says."""
    (tmp_path / "quick_work.py").write_text(
        textwrap.dedent("""\
            import json, os, signal, time
            from pathlib import Path
            class QuickCell:
                def __init__(self, folder, what):
                    self.folder, self.what, self.head = Path(folder), what, {"setting": what, "seed": 1}
                def record(self):
                    path = self.folder / "cell.json"
                    return json.loads(path.read_text()) if path.exists() else None
            def work(cell, plugins=()):
                cell.folder.mkdir(parents=True)
                (cell.folder / "pid").write_text(str(os.getpid()))
                if cell.what == "killed": os.kill(os.getpid(), signal.SIGKILL)
                if cell.what == "exits": os._exit(3)
                if cell.what == "sleeps": time.sleep(600)
                time.sleep(0.5)
                (cell.folder / "cell.json").write_text(json.dumps({"state": "done", "at": time.time()}))
            """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import quick_work

    monkeypatch.setattr(cells, "run_cell", quick_work.work)
    return lambda what: quick_work.QuickCell(tmp_path / "cells" / what, what)


def test_a_killed_process_is_recorded_and_the_others_go_on(quick_work: Callable) -> None:
    ended: dict[str, dict] = {}
    names = ["killed", "one", "exits", "two"]
    cells.run_cells([quick_work(name) for name in names], 2, lambda cell, record: ended.update({cell.what: record}))
    assert [ended[name]["state"] for name in names] == ["failed", "done", "failed", "done"]
    assert ended["killed"]["reason"] == "its process was killed by SIGKILL, perhaps because memory ran out"
    assert "its process ended with exit code 3; see " in ended["exits"]["reason"]
    assert quick_work("killed").record() == ended["killed"]


def test_an_interrupt_ends_the_workers(quick_work: Callable) -> None:
    def interrupt(cell: object, record: dict) -> None:
        raise KeyboardInterrupt

    waiting = [quick_work(name) for name in ("sleeps", "one", "two")]
    with pytest.raises(KeyboardInterrupt):
        cells.run_cells(waiting, 2, interrupt)
    assert not alive(int((waiting[0].folder / "pid").read_text()))
    assert not waiting[2].folder.exists()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "\nState:\tZ" not in status.read_text()


@pytest.mark.slow
def test_processes_give_the_same_bytes_and_one_that_fails_stops_no_other(
    base: Path, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("- {name: good}\n- {name: bad, optim.lr: 1e30, optim.clip_norm: 0, optim.ema: 0}")
    arguments = ["--settings", str(settings), "--seeds", "1"]
    assert ablate(base, tmp_path / "two", *arguments, "--jobs", "2") == 1
    output = "".join(capfd.readouterr())
    assert "| 1 | good (reference) |" in output
    assert re.search(r"- bad, seed 1: the .* is not finite", output)
    assert "epoch" not in output.split("| rank |")[0].replace("in stage 'supervised', epoch 1", "")
    assert "Traceback" not in output
    assert "Traceback" in (tmp_path / "two" / "cells" / "bad" / "seed-1" / "log.txt").read_text()
    assert "epoch 1/1" in (tmp_path / "two" / "cells" / "good" / "seed-1" / "log.txt").read_text()
    request.getfixturevalue("trained")
    assert ablate(base, tmp_path / "one", *arguments) == 1
    predictions = [
        (tmp_path / name / "cells" / "good" / "seed-1" / "seed-1" / "predictions.csv").read_bytes()
        for name in ("one", "two")
    ]
    assert predictions[0] == predictions[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")
def test_killed_and_interrupted_ablations_lose_and_repeat_nothing(base: Path, tmp_path: Path, trained: list) -> None:
    out = tmp_path / "out"
    arguments = ["--vary", "model.fusion=gate,add", "--seeds", "1", "--set", "optim.epochs=40"]

    def start() -> subprocess.Popen:
        command = [sys.executable, "-m", "gmsa.ablate", "--config", str(base), "--out", str(out), *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def workers(parent: int) -> list[int]:
        children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in children.stdout.split()]

    def epochs(fusion: str) -> int:
        path = out / "cells" / f"model.fusion={fusion}" / "seed-1" / "seed-1" / "history.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def until(reached: Callable[[], bool]) -> None:
        for _ in range(1200):
            if reached():
                return
            time.sleep(0.1)
        pytest.fail("it was not reached in two minutes")

    for fusion, number in (("gate", signal.SIGKILL), ("add", signal.SIGINT)):
        process = start()
        until(lambda fusion=fusion: epochs(fusion) >= 2)
        children = workers(process.pid)
        assert children
        if number == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, number)  # as a terminal does: the workers get it too
        output, _ = process.communicate(timeout=60)
        until(lambda children=children: not any(map(alive, children)))
        assert 2 <= epochs(fusion) < 40
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert "Interrupted; 1 of 2 cells are done. Run the same command again to resume." in output
            assert "Traceback" not in output
        assert not (out / "summary.md").exists()
    done = out / "cells" / "model.fusion=gate" / "seed-1" / "cell.json"
    before = done.stat().st_mtime_ns
    process = start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "2 cells, 1 of them done" in output
    assert done.stat().st_mtime_ns == before
    assert (epochs("gate"), epochs("add")) == (40, 40)
    assert ablate(base, tmp_path / "whole", *arguments) == 0
    for fusion in ("gate", "add"):
        place = Path("cells") / f"model.fusion={fusion}" / "seed-1" / "seed-1" / "predictions.csv"
        assert (out / place).read_bytes() == (tmp_path / "whole" / place).read_bytes()


def test_ctrl_c_is_exit_130(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "run_cells", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda _: main(["--config", str(base), "--out", str(tmp_path / "out"), *FUSIONS]), "ablate")
    assert caught.value.code == 130
    assert "Interrupted; 0 of 6 cells are done. Run the same command again to resume." in capsys.readouterr().out
