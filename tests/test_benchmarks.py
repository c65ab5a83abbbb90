"""The benchmarks of speed run, and print their tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("layer", "step", "data", "scale")


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


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str) -> None:
    help_text = output_of(name, "--help")
    for option in ("--device", "--threads", "--quick"):
        assert option in help_text
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
