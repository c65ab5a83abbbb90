"""The scripts of docs/examples run as they are; quick here, where a file of the config's name makes trainings short."""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gmsa
from gmsa.ablation.cells import train_cell
from gmsa.data import from_mmsa
from gmsa.data.notes import collected
from gmsa.errors import DataError

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
NAMES = ("first_run", "own_features", "own_parts", "missing_modalities", "ablation", "serving")
QUICK = "optim: {epochs: 1, min_steps: 0}\nmodel: {channels: 16, heads: 2}\nself_training: {k: 2}\n"
Example = Callable[[str], dict[str, Any]]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_synthetic: None) -> Iterator[Example]:
    """Runs a script by name in an empty folder, on few clips and for an epoch; returns its global names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for config in ("synthetic", "mosi_graph"):  # in the working directory: found before the packaged one
        (tmp_path / config).write_text(f"base: {ROOT / 'configs' / config}.yaml\n{QUICK}")
    # Figures and processes cost most of the time, and are tested elsewhere.
    monkeypatch.setattr("gmsa.runs.report.draw_run", lambda *a: None)
    monkeypatch.setattr("gmsa.ablation.comparison.figure_ablation", lambda *a: True)
    monkeypatch.setattr("gmsa.ablation.comparison.figure_costs", lambda *a: True)
    monkeypatch.setattr(
        "gmsa.ablation.ablate.run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells]
    )

    def run(name: str) -> dict[str, Any]:
        shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
        return runpy.run_path(str(tmp_path / f"{name}.py"), run_name="__main__")

    yield run
    for name in NAMES:
        sys.modules.pop(name, None)


def test_first_run(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    names = example("first_run")
    run, answers = names["run"], names["answers"]
    assert run.synthetic
    assert run.metrics["test"]["MAE"]["mean"] > 0
    assert len(answers) == 5
    with open("answers.csv", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == answers.ids
    assert gmsa.load("runs/synthetic-model").saved
    said = capsys.readouterr().out
    assert said.count("predicted ") == 5
    assert f"label {names['clips'][0].label:+.1f}: {names['clips'][0].text}" in said
    example("first_run")  # once more: into folders of their own
    assert gmsa.load("runs/synthetic-2-model").saved


def test_own_features(example: Example) -> None:
    names = example("own_features")
    run = names["run"]
    assert run.config.data.name == "clips"
    assert run.dims == names["FEATURES"]
    assert list(run.summary["stages"]) == ["supervised", "self_training_1"]  # the pool was used
    assert names["answers"].values.shape == (3,)
    clips = gmsa.load_corpus(run.config.data)
    assert len(clips.pool) == 160
    assert 0 < sum(not clip.present["vision"] for clip in clips.splits["train"]) < 80
    names["columns"].__globals__["clean"] = lambda sequence: sequence
    with pytest.raises(DataError, match=r"'audio' of 'again.* holds NaN"):
        from_mmsa(names["columns"]("again", 40), "again.pkl", splits=None)


def test_own_parts(example: Example) -> None:
    table = example("own_parts")["table"]
    assert table.complete
    assert {row["setting"] for row in table.rows} == {
        f"model.layer={layer}, graph.intra={builder}"
        for layer in ("attention", "mean(scale=0.5)")
        for builder in ("complete", "causal(reach=3)")
    }
    edges = {row["setting"]: row["edges"] for row in table.rows}
    attention = "model.layer=attention, graph.intra="
    assert edges[f"{attention}causal(reach=3)"] < edges[f"{attention}complete"]
    assert len({row["valid"]["MAE"]["mean"] for row in table.rows}) == 4, "a part changed nothing"


def test_missing_modalities(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example("missing_modalities")
    said = capsys.readouterr().out
    assert "| Rate | Realized | With text (%) | complete | dropped | masked |" in said
    assert "| masked | 1111 | eta:0.5 |" in said
    assert Path("runs/missing/figures/robustness_eta.png").exists()
    configs = {name: gmsa.Run(f"runs/{name}").config for name in ("complete", "dropped", "masked")}
    assert configs["complete"].model.modality_dropout.of("vision") == 0
    assert configs["dropped"].model.modality_dropout == gmsa.Config().model.modality_dropout
    assert str(configs["masked"].data.missing.of("train")) == "eta:0.5"
    assert {str(config.data.missing.of("test")) for config in configs.values()} == {"none"}


def test_ablation(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    table = example("ablation")["table"]
    assert table.complete
    assert len(table) == 3
    assert json.loads(Path("runs/streams/summary.json").read_text())["seeds"] == [1, 2]
    ranking = capsys.readouterr().out.partition("difference to the reference:\n")[2].splitlines()
    assert [line[:2] for line in ranking] == ["1.", "2.", "3."]
    assert sum("[" in line for line in ranking) == 2  # an interval for all but the reference


@pytest.mark.slow
def test_serving(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette", reason="needs the extra app")
    testclient = pytest.importorskip("starlette.testclient", reason="needs httpx")
    names = example("serving")
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("[{'id': 'clip', 'value': ")
    client = testclient.TestClient(names["app"])
    run, clip = gmsa.Run(next(Path("runs").iterdir())), names["clip"]
    features = {m: torch.tensor(clip[m]) for m in run.dims}
    for some in (features, {"text": features["text"]}):
        sent = {"id": "clip"} | {m: x.tolist() for m, x in some.items()}
        with collected():
            expected = run.predict(gmsa.Utterance("clip", some)).values
            found = client.post("/predict", json=[sent]).json()[0]["value"]
        assert found == pytest.approx(expected[0], abs=1e-5)
    for wrong, reason in (([{"id": "a"}], "has no text or audio or vision"), ([{"text": []}], "id"), ("x", "")):
        response = client.post("/predict", json=wrong)
        assert response.status_code == 400
        assert reason in response.json()["error"]


def test_all_are_listed_short_and_shown() -> None:
    page = (ROOT / "docs" / "start" / "examples.md").read_text(encoding="utf-8")
    assert {path.stem for path in EXAMPLES.iterdir()} == set(NAMES)
    for name in NAMES:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60, name
        assert f"{{literalinclude}} ../examples/{name}.py" in page
        compile(text, name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_as_a_user_runs_it(name: str, tmp_path: Path) -> None:
    """From another folder than the script's, twice."""
    script = shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    place = tmp_path / "elsewhere"
    place.mkdir()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, script],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "failed" not in done.stdout
        others = done.stderr.replace("DataWarning", "")  # a note about data, such as a modality that is not there
        assert "Warning" not in others
