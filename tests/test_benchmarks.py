"""The benchmarks of speed run, and print their tables."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def output_of(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


NAMES = sorted({path.stem for path in FOLDER.glob("*.py")} - {"common", "mmsa_peer", "plain"})


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Every benchmark loads, and stands in the README; the whole tables take an hour."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out
    assert f"python benchmarks/{name}.py" in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("layer", "| complete intra graph |"),
        ("step", "| plain, padded to the file's longest |"),
        ("data", "| knn within, complete across |"),
        ("scale", "| tokens |"),
    ],
)
def test_quick_run_prints_tables(name: str, table: str) -> None:
    """Each asserts before it measures that what it compares agrees."""
    printed = output_of(name, "--quick", "--threads", "1", "--device", "cpu")
    assert table in printed
    assert "| :-- |" in printed
    assert "torch_geometric" in printed.splitlines()[-1]
