"""Every command and every Python block of the README, on small data."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import gmsa
from gmsa import ablate, evaluate, inspect, predict, train, tune
from gmsa.ablation.cells import train_cell
from gmsa.config import load_config
from gmsa.data import __main__ as data
from gmsa.tuning import read_space
from gmsa.tuning.workers import run_trials

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line for language, block in BLOCKS if not language for line in block.splitlines() if line.startswith("python -m")
]
MAINS = {"gmsa.train": train.main, "gmsa.evaluate": evaluate.main, "gmsa.predict": predict.main}
MAINS |= {"gmsa.inspect": inspect.main, "gmsa.ablate": ablate.main, "gmsa.tune": tune.main, "gmsa.data": data.main}
QUICK = ["optim.epochs=1", "optim.min_steps=0", "model.channels=16", "model.heads=2", "self_training.k=1"]


@pytest.fixture
def place(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user has it: configs/ and MOSI in place, here a small file."""
    place = tmp_path / "place"
    shutil.copytree(ROOT / "configs", place / "configs")
    (place / "data" / "mosi").mkdir(parents=True)
    write_mmsa().rename(place / "data" / "mosi" / "aligned_50.pkl")
    write_mmsa(prefix="other-").rename(place / "other.pkl")
    shutil.copy(place / "other.pkl", place / "clips.pkl")
    monkeypatch.chdir(place)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    return place


def test_every_command_works_in_the_order_of_the_readme(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process per cell is tested elsewhere; here it would only cost each cell its start.
    monkeypatch.setattr(
        "gmsa.ablation.ablate.run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells]
    )
    monkeypatch.setattr("gmsa.tuning.study_report.draw_study", lambda *a: [])
    monkeypatch.setattr("gmsa.ablation.comparison.figure_ablation", lambda *a: True)
    monkeypatch.setattr("gmsa.tuning.study.run_workers", lambda task, jobs, look, say: (run_trials(task), look()))
    assert {command.split()[2] for command in COMMANDS} == set(MAINS)
    python = [block for language, block in BLOCKS if language == "python"]
    exec(next(block for block in python if "own.pkl" in block), {})
    drawn = 0
    for command in COMMANDS:
        module, *arguments = shlex.split(command)[2:]
        arguments = ["train0$_$0" if a == "VIDEO$_$CLIP" else a for a in arguments]
        if module in ("gmsa.train", "gmsa.ablate"):
            arguments += [part for setting in QUICK for part in ("--set", setting)]
            if "configs/mosi_sslmm.yaml" in arguments:
                arguments += ["--set", "pretrain.epochs=1"]
            if "--seeds" in arguments:
                arguments[arguments.index("--seeds") + 1] = "1111,1112" if module == "gmsa.train" else "1111"
        if module == "gmsa.tune":
            # What a space searches must stay in its range.
            quick = [
                "optim.min_steps=0",
                "optim.epochs=6",
                "model.channels=64",
                "self_training.k=5",
                "distillation.teachers=2",
            ]
            arguments += [part for setting in quick for part in ("--set", setting)]
            arguments[arguments.index("--trials") + 1] = "1"
            if "--seeds" not in arguments:
                arguments += ["--seeds", "1111"]
        with monkeypatch.context() as patch:
            if drawn:  # the figures of a run take most of its time: once is enough
                patch.setattr("gmsa.runs.report.draw_run", lambda *a: None)
            drawn += module == "gmsa.train"
            MAINS[module](arguments)
    assert (place / "runs" / "mosi" / "summary.md").exists()
    assert (place / "runs" / "own" / "summary.md").exists()
    assert "## Robustness" in (place / "runs" / "sslmm" / "summary.md").read_text()
    assert (place / "runs" / "mosi-on-other" / "summary.md").exists()
    assert (place / "predictions.csv").exists()
    assert (place / "graph.png").exists()
    assert (place / "runs" / "study-mosi_graph-default" / "best.yaml").exists()
    assert (place / "runs" / "study-small" / "best-00000.yaml").exists()
    assert (place / "report" / "check.png").exists()
    own, stored = (json.loads((place / "runs" / n / "environment.json").read_text()) for n in ("mosi", "from-store"))
    assert own["data_sha256"] != stored["data_sha256"]


def test_the_space_of_the_readme_can_be_searched(tmp_path: Path) -> None:
    block = next(block for language, block in BLOCKS if language == "yaml" and "optim.lr" in block)
    (tmp_path / "space.yaml").write_text(block)
    assert len(read_space(tmp_path / "space.yaml", load_config(ROOT / "configs" / "mosi_graph.yaml")).parameters) == 4


def test_python_blocks_run(place: Path) -> None:
    names: dict = {}
    exec(next(block for language, block in BLOCKS if language == "python" and "build_model" in block), names)
    assert names["output"].value.shape == (8,)
    assert names["output"].logits.shape == (8, 7)
    assert names["output"].gate.shape == (8, 2, 128)


def test_the_store_of_the_readme_can_be_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {
        "utterances": gmsa.load_corpus(load_config(ROOT / "configs" / "synthetic.yaml").data).splits["train"]
    }
    exec(next(block for language, block in BLOCKS if language == "python" and "write_store" in block), names)
    assert len(names["store"]) == len(names["utterances"])


def test_own_data_takes_twenty_lines() -> None:
    block = next(block for language, block in BLOCKS if language == "python" and "own.pkl" in block)
    assert len([line for line in block.splitlines() if line.strip()]) <= 20


def test_files_and_settings_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\(((?:gmsa|benchmarks)/[^)]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"configs/\w+\.yaml|benchmarks/\w+\.py", README):
        assert (ROOT / name).exists(), name


def test_make_train_runs_the_command_of_the_readme() -> None:
    assert "gmsa.train --config configs/mosi_graph.yaml" in (ROOT / "Makefile").read_text()
