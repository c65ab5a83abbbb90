"""A stranger's folder as the working directory: no module in it is imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gmsa
from gmsa.system.processes import safe_path

MODULES = ("yaml", "json", "numpy", "torch", "rich", "typing", "pickle", "socket", "threading", "sitecustomize")
"""Modules of the stranger; what Python imports before a package at all is not among them."""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / f'ran-{name}')!r}, 'w')\n")
    return folder


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """A folder beside the checkout's with gmsa in it: in a checkout gmsa itself is in the working directory."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gmsa").symlink_to(Path(gmsa.__file__).parent)
    return str(tmp_path / "site")


def ran(folder: Path, path: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs Python in a folder; returns how it ended, and the stranger's modules that ran."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"} | {"PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    return ended, [p.name for p in folder.parent.glob("ran-*")]


@pytest.mark.parametrize("arguments", ["-m gmsa.config --key optim.lr", "-um gmsa --version", "-mgmsa --version"])
def test_modules_in_the_working_directory_do_not_run(hostile: Path, installed: str, arguments: str) -> None:
    ended, names = ran(hostile, installed, *arguments.split())
    assert (ended.returncode, names) == (0, []), ended.stderr


def test_the_path_of_a_program_stays(tmp_path: Path, installed: str) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "gmsa_user").mkdir()
    (folder / "gmsa_user" / "__init__.py").write_text("import gmsa\n")
    (folder / "gmsa_user" / "__main__.py").write_text("import sys; print(sys.path[0])\n")
    assert ran(folder, installed, "-m", "gmsa_user")[0].stdout == f"{folder.resolve()}\n"
    assert ran(folder, installed, "-c", "import sys, gmsa; print(repr(sys.path[0]))")[0].stdout == "''\n"


def test_gmsa_in_the_working_directory_runs(tmp_path: Path) -> None:
    (tmp_path / "gmsa").symlink_to(Path(gmsa.__file__).parent)
    ended, _ = ran(tmp_path, "", "-m", "gmsa", "--version")
    assert ended.stdout == f"gmsa {gmsa.__version__}\n", ended.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not know it")
def test_processes_that_are_started_import_nothing_from_it(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with safe_path():
        subprocess.run([sys.executable, "-c", "import multiprocessing.spawn"], cwd=hostile, check=True)
    assert not list(hostile.parent.glob("ran-*"))
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 starts processes that look there first")
def test_no_command_runs_them(hostile: Path, installed: str, write_mmsa) -> None:
    data = shutil.copy(write_mmsa(), hostile / "tiny.pkl")
    settings = "model: {channels: 16, heads: 2}\noptim: {epochs: 1, min_steps: 0}\n"
    settings += "run: {device: cpu, seeds: [1], workers: 1}\n"
    (hostile / "tiny.yaml").write_text(f"data: {{path: {data}}}\n{settings}")
    (hostile / "space.yaml").write_text("optim.lr: {float: [1.0e-4, 1.0e-3]}\n")
    for arguments in (
        "gmsa.train --config tiny.yaml --out run",
        "gmsa.predict --run run --input tiny.pkl --out out.csv",
        "gmsa.evaluate --run run",
        "gmsa.ablate --config tiny.yaml --vary model.fusion=gate --jobs 2 --out ablation",
        "gmsa.tune --config tiny.yaml --space space.yaml --trials 1 --jobs 2 --out study",
        "gmsa.data info tiny.pkl",
    ):
        ended, names = ran(hostile, installed, "-m", *arguments.split())
        assert (ended.returncode, names) == (0, []), ended.stderr
