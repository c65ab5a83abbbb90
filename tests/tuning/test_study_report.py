"""What a study leaves: its best config, tables and figures."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import optuna
import pytest
import yaml
from helpers.reports import tables_of
from helpers.studies import rows_of, tune, without_seconds

from gmsa import train
from gmsa.config import Config, load_config
from gmsa.tune import main
from gmsa.tuning.space_file import read_space
from gmsa.tuning.study_report import StudyResult, write_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_study_leaves_a_config_that_gives_its_score_again(
    base: Path, here: None, figures: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "3", "--pruner", "off", "--trial-seeds", "1,2", "--seeds", "3") == 0
    rows = rows_of(out)
    assert [row["trial"] for row in rows] == list("012")
    assert {row["state"] for row in rows} == {"complete"}
    assert (rows[0]["optim.lr"], rows[0]["model.heads"], rows[0]["graph.intra"]) == ("0.001", "2", "complete")
    best = min(rows, key=lambda row: float(row["MAE"]))
    text = (out / "best.yaml").read_text()
    assert best["MAE"] in text
    settings = yaml.safe_load(text)
    assert settings["run"]["seeds"] == [1, 2]
    train.main(["--config", str(out / "best.yaml"), "--out", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["valid"]["MAE"]["mean"] == float(best["MAE"])  # exactly
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"][0]["values"]["MAE"] == float(best["MAE"])
    assert summary["synthetic"] is False
    assert summary["final"]["seeds"] == [3]
    for name in ("history", "slice", "parallel", "curves"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
        assert (out / "figures" / f"{name}.svg").stat().st_size > 5000
        assert f"figures/{name}.png" in (out / "summary.md").read_text()
    printed = capsys.readouterr().out
    assert f"Report: {out / 'report.html'}\n" in printed
    assert "3/3 trials" in printed
    page = (out / "report.html").read_text()
    assert f"{float(best['MAE']):.4f}" in tables_of(page)[0][1]
    assert 'href="final/report.html"' in page
    assert not list((out / "trials").glob("*/seed-*/*.safetensors"))
    assert len(list((out / "trials").glob("*/seed-*/history.jsonl"))) == 6
    # A study that was moved is still whole.
    out.rename(moved := tmp_path / "moved")
    assert tune(base, moved, "--trials", "3", "--pruner", "off", "--trial-seeds", "1,2", "--seeds", "3") == 0
    assert json.loads((moved / "summary.json").read_text())["final"] == summary["final"]
    assert "Another command" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["default", "graph", "semi_supervised"])
def test_the_files_of_a_study_give_the_same_study(name: str, tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "mosi_graph.yaml")
    space = read_space(ROOT / "configs" / "spaces" / f"{name}.yaml", config)
    files = write_settings(tmp_path, config, space)
    again = load_config(files["config"])
    assert (again, read_space(files["space"], again)) == (config, space)


def test_the_command_of_a_study_gives_it_again(base: Path, here: None, tmp_path: Path) -> None:
    asked = (
        "--trials",
        "2",
        "--sampler",
        "random",
        "--seed",
        "-7",
        "--study",
        "a 'b' --c $HOME",
        "--trial-seeds",
        "2,1",
    )
    out = tmp_path / "study"
    assert tune(base, out, *asked) == 0
    (text,) = re.findall(r"<pre><code>(.*?)</code></pre>", (out / "report.html").read_text(), re.DOTALL)
    command, best = html.unescape(text).replace("\\\n", "").splitlines()
    assert best == f"gmsa train --config {out / 'best.yaml'}"
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("gmsa", "tune")
    main(words)
    assert without_seconds(tmp_path / "study-again") == without_seconds(out)
    facts = [json.loads((folder / "study.json").read_text()) for folder in (out, tmp_path / "study-again")]
    assert {k: v for k, v in facts[0].items() if k != "storage"} == {
        k: v for k, v in facts[1].items() if k != "storage"
    }


def test_what_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    """Nor is it where another program than gmsa put it into the storage."""
    study = optuna.create_study()
    for value in (float("-inf"), 2.0, 1.0, 1.0):
        study.add_trial(optuna.trial.create_trial(value=value))
    found = StudyResult("s", Config(), None, ("MAE",), study.trials, tmp_path, False)  # type: ignore[arg-type]
    assert [t.number for t in found.best] == [2]


@pytest.mark.slow
def test_several_objectives_leave_the_pareto_front(base: Path, here: None, figures: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    space = tmp_path / "space.yaml"
    space.write_text("model.channels: {choice: [8, 16, 32]}\noptim.lr: {float: [1e-4, 1e-2], log: true}\n")
    arguments = ("--trials", "6", "--objective", "MAE", "--objective", "parameters", "--space", str(space))
    assert tune(base, out, *arguments) == 0
    rows = [(float(r["MAE"]), float(r["parameters"]), int(r["trial"])) for r in rows_of(out)]
    front = {n for a, p, n in rows if not any(b <= a and q <= p and (b, q) != (a, p) for b, q, _ in rows)}
    assert {int(file.stem.split("-")[1]) for file in out.glob("best-*.yaml")} == front
    assert (out / "figures" / "pareto.png").exists()
    assert json.loads((out / "summary.json").read_text())["final"] is None


def test_synthetic_data_are_said_to_be_synthetic(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmsa.data.synthetic.SIZES", {"train": 24, "valid": 12, "test": 12, "pool": 5})
    assert tune(base, tmp_path / "s", "--trials", "1", "--set", "data.path=synthetic", "--set", "optim.epochs=1") == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["synthetic"] is True
    assert "SYNTHETIC" in (tmp_path / "s" / "summary.md").read_text()
    assert (tmp_path / "s" / "best.yaml").read_text().startswith("# SYNTHETIC")
