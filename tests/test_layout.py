"""The floors of the package: imports point up only, and what must start fast does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

PACKAGE = Path(__file__).parents[1] / "gmsa"

FLOORS = {
    0: {"errors", "metrics", "rng", "registry", "config", "system"},
    1: {"data", "graph", "nn", "text", "media"},
    2: {"models"},
    3: {"explain", "training", "figures", "reports"},
    4: {"runs", "ablation", "tuning"},
    5: {"api", "train", "evaluate", "predict", "export", "inspect", "ablate", "tune", "app"},
}
ROOMS = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
NEVER = {
    ("data", "graph"),
    ("nn", "graph"),
    ("nn", "data"),
    ("nn", "config"),
    ("reports", "training"),
    ("figures", "training"),
    ("training", "reports"),
    ("training", "figures"),
    ("runs", "ablation"),
    ("runs", "tuning"),
    ("ablation", "tuning"),
}
MOST_FILES = 18
"""Python files, at most, in a folder of the package."""


def imports(path: Path) -> set[str]:
    """Rooms of gmsa that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} if node.module == "gmsa" else {node.module}
    return {name.split(".")[1] for name in found if name.startswith("gmsa.")}


def test_imports_point_up_only() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        room = name.parts[0].removesuffix(".py")
        if path.name == "__main__.py":
            room = "train"  # a command, whatever room it stands in
        if room == "__init__":
            continue
        assert room in ROOMS, f"{room} has no floor: see docs/explanation/architecture.md"
        for other in imports(path) - {room}:
            if ROOMS[other] > ROOMS[room]:
                wrong.append(f"{name}: {room} (floor {ROOMS[room]}) imports {other} (floor {ROOMS[other]})")
            if (room, other) in NEVER:
                wrong.append(f"{name}: {room} must not know {other}")
    assert wrong == []


def modules() -> dict[str, set[str]]:
    """Modules of the package, and those of it that each imports when it is loaded."""
    known = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    known = {name.removesuffix(".__init__"): path for name, path in known.items()}
    found = {}
    for name, path in known.items():
        names = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # not inside functions, nor for types alone
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                both = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {full if full in known else node.module for full in both}
        found[name] = names & known.keys() - {name}
    return found


def test_no_import_circle() -> None:
    import networkx as nx

    graph = nx.DiGraph([(name, other) for name, others in modules().items() for other in others])
    # A package's __init__ hands on what its modules define: importing one of them runs it, which makes no circle.
    rooms = {name for name in graph if (PACKAGE.parent / name.replace(".", "/")).is_dir()}
    graph.remove_nodes_from(rooms)
    assert list(nx.simple_cycles(graph)) == []


def test_no_crowded_folder() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


def test_no_two_test_modules_of_one_name() -> None:
    """Without packages, pytest imports test modules by their name alone and refuses a second one."""
    paths: dict[str, list[Path]] = {}
    for path in Path(__file__).parent.rglob("test_*.py"):
        paths.setdefault(path.name, []).append(path)
    assert [found for found in paths.values() if len(found) > 1] == []


def test_rooms_that_load_no_torch_and_no_transformers() -> None:
    code = (
        "import sys, gmsa, gmsa.config, gmsa.metrics, gmsa.system.files, gmsa.system.cli, gmsa.train, gmsa.evaluate,"
        " gmsa.predict, gmsa.export, gmsa.inspect, gmsa.ablate, gmsa.tune;"
        " sys.exit(bool({'torch', 'transformers', 'tokenizers', 'peft'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


UNUSED = {
    *(
        "torch._dynamo",
        "torch._inductor",
        "torch.distributed.tensor",
        "torch.onnx",
        "sympy",
        "torch_geometric.datasets",
    ),
    *("networkx", "optuna", "matplotlib", "pandas", "scipy", "sklearn", "transformers", "tokenizers", "peft"),
}
"""Packages, and parts of torch and PyG, that take long to import and that neither steps nor answers need."""


STEPS_AND_ANSWERS = """
import json, sys
import gmsa
from gmsa.training.callbacks import Callback

class Enough(BaseException):
    pass

class Watch(Callback):
    steps = 0

    def on_step(self, ids):
        self.steps += 1
        if self.steps == 2:
            raise Enough

found = []
for number, overrides in enumerate(json.loads(sys.argv[1])):
    try:
        gmsa.fit("mosi_graph", out=f"{sys.argv[2]}-{number}", seeds=1, overrides=overrides, callbacks=[Watch()])
    except Enough:
        found.append([*sys.modules])

from gmsa.predict import main

main(["--run", sys.argv[3], "--input", sys.argv[4], "--out", f"{sys.argv[2]}.csv"])
with open(sys.argv[5], "w") as file:
    json.dump([*found, [*sys.modules]], file)
"""
"""Trains for two steps with each of some settings, then predicts; and writes the names of all modules that are there
after each of these."""


def test_steps_and_answers_load_nothing_that_they_do_not_use(tmp_path: Path) -> None:
    """In one process, which pays for its imports once: what one of them loads, all that follow have."""
    always = {
        "data.path": "synthetic",
        "model.channels": 16,
        "model.heads": 2,
        "run.device": "cpu",
        "protocol.name": "supervised",
    }
    settings = [
        {"model.route": "edge", "graph.intra": "knn"},
        {"graph.scope": "hierarchical", "model.sequence": "transformer"},
        {"model.name": "sslmm", "protocol.name": "sslmm", "pretrain.epochs": 0},
    ]
    file = write_pickle(tmp_path / "tiny.pkl", tiny_content())
    run = tiny_run(tmp_path / "run", file, run={"seeds": [1], "device": "cpu"})
    given = [json.dumps([always | one for one in settings]), tmp_path / "fit", run, file, tmp_path / "modules"]
    command = [sys.executable, "-c", STEPS_AND_ANSWERS, *map(str, given)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "modules").read_text())
    assert [{*names} & UNUSED for names in found] == [set()] * (len(settings) + 1)


def test_lazy_names() -> None:
    import gmsa

    for name in gmsa.__all__:
        assert getattr(gmsa, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gmsa.nothing  # noqa: B018
