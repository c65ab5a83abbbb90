"""gmsa works where it is installed, whatever the folder it is used in; and nothing of a packaged file is lost."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gmsa.config import load_config, packaged
from gmsa.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
QUICK = (
    "--set optim.epochs=1 --set optim.min_steps=0 --set model.channels=16 --set model.heads=2 --set self_training.k=1"
)
SEARCH = "--set optim.epochs=6 --set optim.min_steps=0 --set model.channels=64 --set protocol.name=supervised"
"""Quick settings that lie in the ranges of the default search space."""
COMMANDS = [
    f"gmsa train --config synthetic --out run {QUICK}",
    f"python -m gmsa.train --config configs/synthetic.yaml --out run --resume {QUICK}",
    "gmsa config --key optim.lr",
    "gmsa data info own.pkl",
    f"gmsa tune --config synthetic --trials 2 --out study {SEARCH} --set data.label_ratio=0.25",
    "python -m gmsa inspect --config mosi_graph --id 'train000$_$0' --out graph.png",
    "python use.py",
]
"""What a user types in a folder where gmsa is only installed; ``python`` and ``gmsa`` are the environment's."""
SCRIPT = """
import gmsa

quick = {"optim.epochs": 1, "optim.min_steps": 0, "model.channels": 16, "model.heads": 2, "protocol.name": "supervised"}
run = gmsa.fit("mosi_graph", data="own.pkl", out="runs/first", seeds=[1, 2], overrides=quick)
assert len(run.metrics["test"]["MAE"]["values"]) == 2
answers = run.predict("own.pkl")
assert answers.probabilities.shape == (len(answers.values), 7)
answers.to_csv("answers.csv")
run.evaluate("own.pkl", missing=["eta:0.5", "fixed:all"])
run = gmsa.Run("runs/first")
assert len(run.history) == 2 and run.config.data.name == run.summary["dataset"] == "own"
search = {"optim.epochs": 6, "optim.min_steps": 0, "model.channels": 64, "protocol.name": "supervised"}
study = gmsa.search("mosi_graph", space="default", trials=2, data="own.pkl", overrides=search)
assert len(study) == 2 and study.best.data.name == "own"
table = gmsa.compare("mosi_graph", vary={"model.fusion": ["gate", "add"]}, seeds=[1], data="own.pkl", overrides=quick)
assert len(table) == 2 and table.complete
run.save("my-model")
assert (gmsa.load("my-model").predict("own.pkl").values == answers.values).all()
"""
"""gmsa from Python, without a guard for the processes that it starts."""


# --- by name ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["configs", "spaces", "ablations"])
def test_every_file_of_the_checkout_is_packaged(kind: packaged.Kind) -> None:
    folder = ROOT / "configs" / ("" if kind == "configs" else kind)
    assert list(packaged.packaged(kind)) == sorted(path.stem for path in folder.glob("*.yaml"))


@pytest.mark.parametrize(
    "name", ["mosi_graph", "mosi_graph.yaml", "configs/mosi_graph.yaml", "./configs/mosi_graph.yaml"]
)
def test_a_config_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(name, environ={}).data.name == "mosi"


@pytest.mark.parametrize("name", ["graph", "graph.yaml", "configs/spaces/graph.yaml"])
def test_a_space_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert packaged.find(name, "spaces").samefile(ROOT / "configs" / "spaces" / "graph.yaml")
    assert packaged.find("graph", "ablations").samefile(ROOT / "configs" / "ablations" / "graph.yaml")


@pytest.mark.parametrize("name", ["mosi_graph", "~/mosi_graph", "$PLACE/mosi_graph", "${PLACE}/mosi_graph"])
def test_a_file_of_the_user_comes_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mosi_graph").write_text("data: {name: mine}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert load_config(name, environ={}).data.name == "mine"


def test_a_dollar_in_a_file_s_name_is_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "elsewhere")
    (tmp_path / "a$PLACE.yaml").write_text("data: {name: mine}")
    assert load_config(tmp_path / "a$PLACE.yaml", environ={}).data.name == "mine"


def test_a_folder_does_not_hide_a_packaged_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "synthetic").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("synthetic", environ={}).optim.epochs == 10


@pytest.mark.parametrize("name", ["mosi_grahp", "elsewhere/mosi_grap.yaml", "~nobody/mosi_grap.yaml"])
def test_an_unknown_name_lists_the_known_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(name, environ={})
    said = str(caught.value)
    assert said.startswith(f"config file '{name}' does not exist (did you mean 'mosi_graph'?); give a file, or one ")
    assert said.endswith(", ".join(packaged.packaged("configs")))


def test_another_folder_s_file_is_not_taken_for_a_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere/mosi_graph.yaml", str(tmp_path / "mosi_graph.yaml"), "../configs/mosi_graph.yaml"):
        with pytest.raises(ConfigError, match="does not exist"):
            load_config(name, environ={})


# --- installed -------------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the checkout in a folder called ``gmsa``."""
    clone = tmp_path / "parent" / "gmsa"
    clone.mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("gmsa", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    return clone


@pytest.fixture
def install(tmp_path: Path, clone: Path) -> Callable[[str], Path]:
    """Installs the clone as ``wheel`` or ``editable`` into an environment that has nothing but what gmsa needs."""

    def install(kind: str) -> Path:
        place = tmp_path / kind
        venv.create(place, symlinks=os.name == "posix")
        bin = place / ("bin" if os.name == "posix" else "Scripts")
        python = bin / "python"
        packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        # A .pth file that stands there is not read: so what is installed beside these tests as editable is not seen.
        needs = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (packages / "needs.pth").write_text("".join(f"{path}\n" for path in sorted(needs)))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
        offline = ["--no-index", "--no-deps", "--no-build-isolation"]
        if kind == "wheel":
            run(*pip, "wheel", *offline, "--wheel-dir", str(tmp_path), str(clone))
            [wheel] = tmp_path.glob("*.whl")
            run(*pip, "install", *offline, "--ignore-installed", str(wheel))
        else:
            run(*pip, "install", *offline, "--ignore-installed", "--editable", str(clone))
        return bin

    return install


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a command that sees nothing of this process's gmsa; returns what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GMSA_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
    return done.stdout


def folders(tmp_path: Path, clone: Path) -> list[Path]:
    """An empty folder, and the parent of the clone."""
    (tmp_path / "empty").mkdir()
    return [tmp_path / "empty", clone.parent]


@pytest.mark.parametrize("kind", ["wheel", pytest.param("editable", marks=pytest.mark.slow)])
def test_an_installed_gmsa_is_found_from_any_folder(kind: str, tmp_path: Path, clone: Path, install: Callable) -> None:
    bin = install(kind)
    code = (
        "import gmsa; from gmsa.config.packaged import find, packaged; print(gmsa.__file__); "
        "print(gmsa.load_config('mosi_graph').data.name, len(packaged('ablations'))); print(find('default', 'spaces'))"
    )
    count = len(list((ROOT / "configs" / "ablations").glob("*.yaml")))
    empty, parent = folders(tmp_path, clone)
    for folder in (empty, parent):
        where, found, space = run(bin / "python", "-c", code, cwd=folder).splitlines()
        assert Path(where).is_relative_to(clone if kind == "editable" else bin.parent)
        assert found == f"mosi {count}"
        assert Path(space).is_relative_to(clone if kind == "editable" else bin.parent)
    # Modules are looked for in the folder of ``python -m``; a program looks beside itself.
    assert "--config" in run(bin / "python", "-m", "gmsa.train", "--help", cwd=parent)
    assert "--config" in run(bin / "gmsa", "train", "--help", cwd=parent)
    if kind == "wheel":
        [wheel] = tmp_path.glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        assert {f"gmsa/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")} <= names
        assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "gmsa").rglob("*.py")} <= names
        page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gmsa" / "app" / "static").iterdir()}
        assert {"gmsa/py.typed", *page} <= names
        assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"gmsa"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_commands_run_where_gmsa_is_only_installed(
    kind: str, tmp_path: Path, clone: Path, install: Callable, write_mmsa: Callable[..., Path]
) -> None:
    bin, own = install(kind), write_mmsa()
    for folder in folders(tmp_path, clone):
        shutil.copy(own, folder / "own.pkl")
        (folder / "use.py").write_text(SCRIPT)
        said = {}
        for command in COMMANDS:
            program, *arguments = shlex.split(command)
            said[command] = run(bin / program, *arguments, cwd=folder)
        assert "0.001" in said["gmsa config --key optim.lr"]
        assert "24" in said["gmsa data info own.pkl"]
        for made in ("run/summary.md", "study/best.yaml", "graph.png", "answers.csv", "my-model/README.md"):
            assert (folder / made).exists(), made
