"""Every command and every Python block of the README, on small data; and what it names exists."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmsa
from gmsa import __main__ as command
from gmsa import registry
from gmsa.ablation.cells import train_cell
from gmsa.config import load_config
from gmsa.config.describe import describe_settings
from gmsa.system import cli
from gmsa.tuning import read_space
from gmsa.tuning.workers import run_trials

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if language in ("", "bash")
    for line in block.splitlines()
    if re.match(r"python -m gmsa|gmsa ", line)
]
QUICK = ["optim.epochs=1", "optim.min_steps=0", "model.channels=16", "model.heads=2", "self_training.k=1"]
SEARCHED = ["optim.epochs=6", "optim.min_steps=0", "model.channels=64", "self_training.k=5", "distillation.teachers=2"]
"""Quick settings that lie in the ranges of the packaged search spaces."""


def block(language: str, holds: str) -> str:
    """The one block of the README in a language that holds a text."""
    [found] = [text for kind, text in BLOCKS if kind == language and holds in text]
    return found


@pytest.fixture
def place(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user has it: configs/, MOSI (here a small file) and files of one's own."""
    place = tmp_path / "place"
    shutil.copytree(ROOT / "configs", place / "configs")
    (place / "data" / "mosi").mkdir(parents=True)
    write_mmsa().rename(place / "data" / "mosi" / "aligned_50.pkl")
    write_mmsa(prefix="other-").rename(place / "other.pkl")
    shutil.copy(place / "other.pkl", place / "clips.pkl")
    monkeypatch.chdir(place)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.delenv("GMSA_STORAGE", raising=False)
    exec(block("python", 'own.pkl", "wb'), {})
    (place / "mine.py").write_text(block("python", "# mine.py"))
    (place / "mine.yaml").write_text(block("yaml", "# mine.yaml"))
    return place


@pytest.fixture
def no_plugins_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets the parts of one's own afterwards, which would stay for other tests in this process."""
    for parts in registry.REGISTRIES.values():
        monkeypatch.setattr(parts, "_parts", dict(parts._parts))
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("mine", None)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells and trials run in this process, without figures: processes are tested elsewhere, here they cost a start."""
    monkeypatch.setattr(
        "gmsa.ablation.ablate.run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells]
    )
    monkeypatch.setattr("gmsa.tuning.study_report.draw_study", lambda *a: [])
    monkeypatch.setattr("gmsa.ablation.comparison.figure_ablation", lambda *a: True)
    monkeypatch.setattr("gmsa.tuning.study.run_workers", lambda task, jobs, look, say: (run_trials(task), look()))


def quickened(line: str) -> list[str]:
    """A command's words, with settings that make it quick."""
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"))
    words = ["train0$_$0" if word == "VIDEO$_$CLIP" else word for word in words]
    if words[:2] == ["python", "-m"]:
        module = words[2]
        words = ["gmsa", *words[3:]] if module == "gmsa" else [module, *words[3:]]
    name = words[1] if words[0] == "gmsa" else words[0].removeprefix("gmsa.")

    def put(option: str, value: str) -> None:
        if option in words:
            words[words.index(option) + 1] = value

    settings: list[str] = []
    if name in ("train", "ablate"):
        settings = [*QUICK, "pretrain.epochs=1"] if any("sslmm" in word for word in words) else QUICK
        put("--seeds", "1111,1112" if name == "train" and "runs/mosi" in words else "1111")
    elif name == "tune":
        settings = SEARCHED
        put("--trials", "1")
        put("--trial-seeds", "1111")
        words += ["--seeds", "1111"]
    return [*words, *(part for setting in settings for part in ("--set", setting))]


def test_every_command_works_in_the_order_of_the_readme(
    place: Path, no_processes: None, no_plugins_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, drawn = set(), 0
    for line in COMMANDS:
        program, *arguments = quickened(line)
        with monkeypatch.context() as patch:
            if drawn:  # the figures of a run take most of its time: once is enough
                patch.setattr("gmsa.runs.report.draw_run", lambda *a: None)
            if program == "gmsa":
                command.main(arguments)
                ran.add(arguments[0])
            else:
                importlib.import_module(program).main(arguments)
            drawn += "train" in (program.removeprefix("gmsa."), arguments[0])
    assert ran == set(cli.COMMANDS)
    assert "python -m gmsa.train --config configs/mosi_graph.yaml" in COMMANDS
    runs = place / "runs"
    for run in ("mosi", "own", "second", "mine", "mosi-on-other", "from-store"):
        assert (runs / run / "summary.md").exists(), run
    assert "## Robustness" in (runs / "sslmm" / "summary.md").read_text()
    assert (runs / "causal" / "ablation.csv").exists()
    for made in ("predictions.csv", "answers.csv", "graph.png", "report/check.png"):
        assert (place / made).exists(), made
    assert (runs / "study-mosi_graph-default" / "best.yaml").exists()
    assert (runs / "study-small" / "best-00000.yaml").exists()
    own, stored = (json.loads((runs / n / "environment.json").read_text()) for n in ("mosi", "from-store"))
    assert own["data_sha256"] != stored["data_sha256"]
    mine = gmsa.Run("runs/mine")
    assert {"CCC", "close"} <= {name.partition("(")[0] for name in mine.metrics["test"]}
    assert mine.config.graph.intra.text == "causal(reach=3)"


def test_the_python_of_the_quick_start_runs(place: Path, no_processes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmsa.runs.report.draw_run", lambda *a: None)
    quick = "optim: {epochs: 6, min_steps: 0}\nmodel: {channels: 64, layers: 1}\nprotocol: {name: supervised}\n"
    (place / "mosi_graph").write_text(f"base: configs/mosi_graph.yaml\n{quick}")  # found before the packaged one
    code = block("python", "gmsa.fit").replace("trials=30", "trials=1").replace("[1, 2, 3]", "[1, 2]")
    names: dict = {}
    exec(code.replace("seeds=[1, 2])\n\nrun.save", "seeds=[1])\n\nrun.save"), names)
    assert names["run"].config.optim.epochs == 6
    assert names["run"].config.data.name == "own"
    assert len(names["study"]) == 1
    assert len(names["table"]) == 2
    assert names["table"].complete
    assert len((place / "answers.csv").read_text().splitlines()) == len(names["answers"]) + 1 == 97
    assert (place / "my-model" / "README.md").exists()


def test_the_space_of_the_readme_can_be_searched(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(block("yaml", "optim.lr"))
    assert len(read_space(tmp_path / "space.yaml", load_config(ROOT / "configs" / "mosi_graph.yaml")).parameters) == 4


def test_every_python_block_is_run_here() -> None:
    run = ("gmsa.fit", 'own.pkl", "wb', "# mine.py", "build_model", "write_store")
    assert [sum(part in text for part in run) for kind, text in BLOCKS if kind == "python"] == [1] * len(run)


def test_the_parts_of_the_readme_work(place: Path) -> None:
    names: dict = {}
    exec(block("python", "build_model"), names)
    assert names["output"].value.shape == (8,)
    assert names["output"].logits.shape == (8, 7)
    assert names["output"].gate.shape == (8, 2, 128)


def test_the_store_of_the_readme_can_be_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {
        "utterances": gmsa.load_corpus(load_config(ROOT / "configs" / "synthetic.yaml").data).splits["train"]
    }
    exec(block("python", "write_store"), names)
    assert len(names["store"]) == len(names["utterances"])


@pytest.mark.parametrize("holds", ['own.pkl", "wb', "# mine.py"])
def test_own_data_and_own_parts_take_twenty_lines(holds: str) -> None:
    assert len([line for line in block("python", holds).splitlines() if line.strip()]) <= 20


def test_every_link_resolves() -> None:
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    headings = [
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", text)
    ]
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 30
    for link in links:
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            assert not name or (ROOT / name).exists(), link
            assert not anchor or anchor in headings, link


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(
        r"\b(?:configs(?:/\w+)?/[a-z]\w*\.yaml|(?:benchmarks|tests|gmsa|tools)/[\w/]+\.\w+)", README
    ):
        assert (ROOT / name).exists(), name


def test_the_layout_is_that_of_the_tree() -> None:
    listing = block("", "gmsa/errors.py")
    rooms = {path.name for path in (ROOT / "gmsa").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(re.findall(r"(\w+)/", listing)), "a room that the README does not list"
    files = {path.name for path in (ROOT / "gmsa").glob("*.py")} - {"__init__.py"}
    assert files == set(re.findall(r"\w+\.py", listing))


def test_every_setting_that_is_named_exists() -> None:
    known = {setting.key for setting in describe_settings()}
    groups = {key.rpartition(".")[0] for key in known} - {""}
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    named = {
        key
        for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?=[`=:])", text)
        if key.partition(".")[0] in groups and key != "model.safetensors"
    }
    named -= {f"run.{name}" for name in ("config", "summary", "history", "predict", "evaluate", "save")}  # of gmsa.Run
    assert len(named) > 15
    assert named <= known | groups, named - known - groups


def test_every_option_of_a_group_is_named_rightly() -> None:
    known = {setting.key for setting in describe_settings()}
    for group in ("self_training", "distillation", "consistency", "reconstruction", "pretrain"):
        options = re.search(rf"(?m)^\| `{group}` \| ([^:]*):", README)
        assert options, group
        assert {f"{group}.{name}" for name in re.findall(r"`(\w+)`", options[1])} == {
            key for key in known if key.startswith(f"{group}.")
        }


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?m)^([\w ]+):", (ROOT / "Makefile").read_text()))
    named = set(re.findall(r"(?:`|^)make\s(\w+)", README, flags=re.MULTILINE))
    assert {"train", "test", "lint", "slow", "scatter", "pythons"} <= named
    assert named <= {target for line in targets for target in line.split()}


def test_make_train_runs_the_command_of_the_readme() -> None:
    assert "gmsa.train --config configs/mosi_graph.yaml" in (ROOT / "Makefile").read_text()
