"""A user's own parts, of every kind, found by ``plugins:``, by ``--plugin`` and by an entry point, in every command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PLUGIN = Path(__file__).parent / "helpers" / "example_plugin.py"
"""Never imported here: its parts would be known to all tests of this process."""
CONFIG = """
data: {path: tiny.pkl, label_ratio: 0.5}
graph: {intra: previous(reach=2), inter: {text_to_audio: previous}}
model: {channels: 16, heads: 2, layer: mean(scale=0.5)}
protocol: {name: twice(least=0.5)}
optim: {epochs: 1, min_steps: 0, batch_size: 8}
run: {seeds: [1], device: cpu, metrics: [within], select: within, callbacks: [ticks(file=ticks.txt)]}
"""


@pytest.fixture(params=["plugins", "--plugin", "entry point"])
def place(request: pytest.FixtureRequest, write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with data, a config and a plug-in, and how gmsa finds the plug-in there."""
    monkeypatch.chdir(tmp_path)
    write_mmsa("tiny.pkl")
    settings = CONFIG + ("plugins: [my_parts]\n" if request.param == "plugins" else "")
    (tmp_path / "own.yaml").write_text(settings)
    folder = tmp_path / ("site" if request.param == "entry point" else ".")
    folder.mkdir(exist_ok=True)
    shutil.copy(PLUGIN, folder / "my_parts.py")
    if request.param == "entry point":
        metadata = folder / "my_parts-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[gmsa.plugins]\nmine = my_parts\n")
    return request.param


def gmsa(how: str, *arguments: str, refused: bool = False, found: bool = True) -> str:
    """Runs the command in a process of its own; returns what it prints, or the error where it is to be refused."""
    path = [str(PROJECT), *(["site"] if how == "entry point" and found else [])]
    asked = arguments[0] in ("predict", "evaluate")  # a run folder has none imported
    named = how == "--plugin" or (how == "plugins" and asked)
    options = ["--plugin", "my_parts"] if named and found else []
    result = subprocess.run(
        [sys.executable, "-m", "gmsa", *arguments, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == (2 if refused else 0), result.stdout + result.stderr
    return result.stderr if refused else result.stdout


@pytest.mark.slow
def test_own_parts_work_in_every_command(place: str) -> None:
    gmsa(place, "train", "--config", "own.yaml", "--out", "run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0 <= summary["test"]["within"]["mean"] <= 1
    assert list(summary["stages"]) == ["strong", "all"]
    assert Path("ticks.txt").read_text() == "strong 1/1\nall 1/1\n"

    ablation = ["--vary", "model.name=semi_iin,bag(depth=2)", "--jobs", "2", "--out", "ablation"]
    gmsa(place, "ablate", "--config", "own.yaml", "--set", "run.callbacks=[]", *ablation)
    rows = json.loads(Path("ablation/summary.json").read_text())["rows"]
    assert {row["setting"] for row in rows} == {"model.name=semi_iin", "model.name=bag(depth=2)"}
    assert all("within" in row["valid"] for row in rows)

    Path("space.yaml").write_text(
        "graph.intra: {choice: [previous(reach=2), complete, previous(reach=4)]}\n"
        "protocol.name: {choice: [twice(least=0.5), supervised]}\n"
    )
    study = ["--space", "space.yaml", "--trials", "2", "--jobs", "2", "--objective", "within", "--out", "study"]
    gmsa(place, "tune", "--config", "own.yaml", "--set", "run.callbacks=[]", *study)
    assert json.loads(Path("study/summary.json").read_text())["trials"]["complete"] >= 1

    gmsa(place, "predict", "--run", "run", "--input", "tiny.pkl", "--out", "answers.csv")
    assert len(Path("answers.csv").read_text().splitlines()) == 1 + 48
    assert "within" in gmsa(place, "evaluate", "--run", "run")

    shown = gmsa(place, "config", "own.yaml", "--key", "model.name")
    assert "bag" in shown
    assert "A mean over all tokens" in shown
    assert "previous" in gmsa(place, "config", "own.yaml", "--key", "graph.intra")


@pytest.mark.slow
def test_a_run_folder_asks_for_its_plug_in_and_imports_none(place: str) -> None:
    gmsa(place, "train", "--config", "own.yaml", "--out", "run")
    Path("own.yaml").unlink()
    marker = Path("imported")
    source = Path("site" if place == "entry point" else ".") / "my_parts.py"
    source.write_text(source.read_text() + f"\nPath({str(marker)!r}).touch()\n")
    predict = ["predict", "--run", "run", "--input", "tiny.pkl", "--out", "answers.csv"]
    if place != "entry point":
        source.rename("hidden.txt")  # so that nothing but the run folder names it
        error = gmsa("none", *predict, refused=True)
        assert "needs the plug-in 'my_parts'" in error
        assert "--plugin my_parts" in error
        Path("hidden.txt").rename(source)
        error = gmsa("none", *predict, refused=True)
        assert not marker.exists()
        gmsa("--plugin", *predict)
        assert marker.exists()
    else:
        error = gmsa(place, *predict, refused=True, found=False)
        assert "my_parts" in error
        assert not marker.exists()
        gmsa(place, *predict)


def test_an_unknown_part_is_refused_by_those_that_are_known(write_mmsa, tmp_path: Path, monkeypatch) -> None:
    from gmsa.config import from_dict
    from gmsa.errors import ConfigError

    for group, key, name in (("model", "name", "bagg"), ("model", "layer", "attenton"), ("protocol", "name", "twicee")):
        with pytest.raises(ConfigError, match=rf"'{group}.{key}' must be one of .* \(got '{name}'\)"):
            from_dict({group: {key: name}})
