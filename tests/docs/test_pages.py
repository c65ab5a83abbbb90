"""Every command and every Python block of every page runs; what a page names exists."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.pages import (
    NOT_RUN,
    PAGES,
    QUICK,
    ROOT,
    SEARCHED,
    blocks,
    check_yaml,
    commands,
    prose,
    quick_configs,
    quick_python,
    run_command,
)
from helpers.text_encoders import make_encoder

from gmsa.ablation.cells import train_cell
from gmsa.config.coerce import FORMER
from gmsa.config.describe import describe_settings
from gmsa.system import cli
from gmsa.tuning.workers import run_trials

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
RUNNABLE = [page for page in PAGES if any(b.language in ("bash", "python", "yaml") for b in blocks(page))]
pages = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@pytest.fixture
def place(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as a user has it: configs/, MOSI (here a small file) and files of one's own."""
    place = tmp_path / "place"
    (place / "data" / "mosi").mkdir(parents=True)
    for name, prefix in (("data/mosi/aligned_50.pkl", ""), ("own.pkl", ""), ("other.pkl", "other-"), ("clips.pkl", "")):
        write_mmsa(prefix=prefix).rename(place / name)
    monkeypatch.chdir(place)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.delenv("GMSA_STORAGE", raising=False)
    monkeypatch.setenv("GMSA_CACHE", str(place / "cache"))
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    known = set(sys.modules)
    yield place
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(place)):
            del sys.modules[name]


@pytest.fixture
def in_one_process(monkeypatch: pytest.MonkeyPatch, small_synthetic: None) -> None:
    """Cells and trials run in this process, without figures: both are tested elsewhere, here they cost seconds."""
    monkeypatch.setattr(
        "gmsa.ablation.ablate.run_cells", lambda cells, jobs, ended: [ended(c, train_cell(c)) for c in cells]
    )
    monkeypatch.setattr("gmsa.tuning.study.run_workers", lambda task, jobs, look, say: (run_trials(task), look()))
    monkeypatch.setattr("gmsa.tuning.study.draw_study", lambda *a: [])
    monkeypatch.setattr("gmsa.ablation.comparison.figure_ablation", lambda *a: True)
    monkeypatch.setattr("gmsa.ablation.comparison.figure_costs", lambda *a: True)
    monkeypatch.setattr("gmsa.runs.report.draw_run", lambda *a: None)


@pytest.mark.parametrize("page", RUNNABLE, ids=[str(page.relative_to(ROOT)) for page in RUNNABLE])
def test_every_block_of_a_page_runs_in_its_order(page: Path, place: Path, in_one_process: None) -> None:
    found = list(blocks(page))
    if any(re.search("mosi_text|text_encoder", block.text) for block in found):
        make_encoder(place / "text_encoder")
    quick_configs(place, SEARCHED if any("gmsa.search(" in block.text for block in found) else QUICK)
    names: dict = {"__name__": "page"}
    for block in found:
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.file and block.language in ("python", "yaml"):
            (place / block.file).parent.mkdir(exist_ok=True)
            (place / block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(quick_python(block.text), where, "exec"), names)
        for line in commands(block) if block.language == "bash" else ():
            ours = re.match(r"(gmsa|python -m gmsa\S*) ", line) or line == "gmsa config"
            if ours and not NOT_RUN.match(line):
                run_command(line)
        if block.file and block.language == "yaml":
            check_yaml(place / block.file)


@pages
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    targets = re.findall(r"(?m)^([\w ]+):", (ROOT / "Makefile").read_text())
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language in ("bash", "python", "yaml", "text", "bibtex"), f"{where}: {block.language!r}"
        assert block.language != "yaml" or block.file, f"{where}: its first line is not '# NAME.yaml'"
        for line in commands(block) if block.language == "bash" else ():
            gmsa = re.match(r"(gmsa|python -m gmsa\S*) ", line) or line == "gmsa config"
            assert gmsa or NOT_RUN.match(line), f"{where}: neither run nor known: {line}"
            if line.startswith("make "):
                assert line.split()[1] in " ".join(targets).split(), where
            for script in re.findall(r"(?:tools|benchmarks|docs/examples)/\w+\.py|configs/[\w/]+\.yaml", line):
                assert (ROOT / script).exists(), f"{where}: {script}"


@pages
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(
        r"`((?:configs|benchmarks|tests|gmsa|tools|docs)/[\w/.]+?\.(?:yaml|py|md|png|svg|sh))`", page.read_text()
    ):
        assert (ROOT / name).exists() or "NAME" in name, f"{page.name}: {name}"


@pages
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = {setting.key for setting in describe_settings()}
    known |= {*FORMER} if page.name == "CHANGELOG.md" else set()  # it says what became of them
    groups = {key.rpartition(".")[0] for key in known} - {""}
    named = {
        key
        for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?=[`=:])", prose(page))
        if key.partition(".")[0] in groups and not key.endswith((".safetensors", ".py", ".npy"))
    }
    methods = ("config", "summary", "history", "metrics", "predict", "explain", "evaluate", "save")
    named -= {f"run.{name}" for name in methods}
    assert named <= known | groups, named - known - groups


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The long options of a command and of its subcommands."""
    found = {text for action in parser._actions for text in action.option_strings}
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return found.union(*(options_of(one) for action in below for one in action.choices.values()))


def test_every_option_that_a_page_names_exists() -> None:
    """It is one of gmsa's commands, of a program of the repository, or of torchrun or docker."""
    parser_of = runpy.run_path(str(ROOT / "docs" / "extensions" / "gmsa_docs.py"))["parser_of"]
    known = {"--max-restarts", "--gpus"}.union(*(options_of(parser_of(name)) for name in cli.COMMANDS))
    for folder in ("tools", "benchmarks"):
        known.update(*(re.findall(r'"(--[a-z-]+)"', file.read_text()) for file in (ROOT / folder).glob("*.py")))
    named = {(o, page.name) for page in PAGES for o in re.findall(r"`(--[a-z][a-z-]*)", prose(page))}
    assert len(named) > 20
    assert {(o, page) for o, page in named if o not in known} == set()


@pages
def test_every_relative_link_resolves(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", prose(page)):
        if not link.startswith(("https://", "http://", "mailto:")):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".md":
                titles = re.findall(r"(?m)^#+ (.*)$", prose(target))
                anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                anchors |= set(re.findall(r"\(([\w.-]+)\)=", target.read_text()))
                # What is generated or included has anchors that `make docs` checks.
                assert anchor in anchors or re.search(r"\{(gmsa-|include)", target.read_text()), f"{page.name}: {link}"


def test_the_documentation_names_every_subcommand() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert not {name for name in cli.COMMANDS if f"gmsa {name}" not in text}
