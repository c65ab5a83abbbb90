"""Every benchmark runs with ``--quick``, and prints its table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PARTS = {"common", "mmsa_peer", "plain", "stores"}
"""Files there that are no benchmarks of their own."""
TABLES = {
    "commits": ["| the paper's dimensions | now |"],
    "context": ["| hierarchical + linear |", "| hierarchical - utterance | test | MAE |"],
    "cost": ["| sslmm: pre-training |", "| **sslmm, former default** |"],
    "data": ["| knn within, complete across |"],
    "explain": ["| integrated gradients |", "| modalities and tokens |"],
    "few_labels": ["| self-training |", "| further epochs |"],
    "gpu": ["| sslmm: pre-training, then fine-tuning |", "equal bytes with run.deterministic"],
    "hostile": ["| random changes of settings |"],
    "layer": ["| complete intra graph |"],
    "limits": ["| utterance: sslmm, all labels, nothing missing |", "| composite |", "- asked: utterance: sslmm"],
    "long": ["A step of 2 utterances", "one step of 300, 1 seed"],
    "media": ["| all, words recognized |", "| prosody |", "A store of 10 clips", "An answer for "],
    "models": ["| semi_iin, no context + linear |", "| hgt |"],
    "layers": ["| `attention` |", "| `hgt` |", "Each layer gives the values and gradients of PyG's"],
    "one_model": ["| student |", "| soup |", "| mean of three |"],
    "peers": ["| **Semi-IIN** |"],
    "ragged": ["| nn.TransformerEncoder, nested tensors |", "sorted by length"],
    "recipe": ["| half the channels |"],
    "roofline": ["| CMU-MOSEI's |", "of the roof in float32"],
    "scale": ["| tokens |", "| 200 of 10 kB |", "| like CMU-MOSI's, unaligned | 16 |"],
    "scaling": ["| two processes, twice the batch (weak) |", "| 32 | the same: 0.001 |"],
    "step": ["| plain, padded to the file's longest |"],
    "tune": ["| random, chosen on validation |"],
    "unpickle": ["| aligned, as CMU-MOSEI, protocol 4 |"],
}
"""Per benchmark, rows that it prints."""
TRAINING = {
    *("context", "explain", "few_labels", "limits", "long", "models"),
    *("one_model", "peers", "recipe", "scaling", "tune"),
}
"""Those that train into a folder."""
OWN_OPTIONS = {"hostile", "media", "unpickle"}
"""Those that choose neither threads nor device."""


def test_every_benchmark_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - PARTS == TABLES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_quick_run_prints_its_table(name: str, tmp_path: Path) -> None:
    """Each asserts before it measures that what it compares agrees."""
    if name == "media" and not shutil.which("flite") and "CI" not in os.environ:
        pytest.skip("flite, which speaks for made clips, is not installed")
    arguments = ["--quick"]
    arguments += ["--out", str(tmp_path / "out")] if name in TRAINING else []
    arguments += ["--threads", "1", "--device", "cpu"] if name not in TRAINING | OWN_OPTIONS else []
    result = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)},
    )
    assert result.returncode == 0, result.stderr
    for table in TABLES[name]:
        assert table in result.stdout
    assert "torch_geometric" in result.stdout.strip().splitlines()[-1]
