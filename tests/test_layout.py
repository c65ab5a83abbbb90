"""The floors of the package: imports point up only, and what must start fast does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gmsa"

FLOORS = {
    0: {
        "errors",
        "coerce",
        "strictyaml",
        "graphconfig",
        "missingconfig",
        "config",
        "files",
        "rng",
        "metrics",
        "ops",
        "lock",
        "distributed",
    },
    1: {"data", "graph", "nn"},
    2: {"models"},
    3: {"training", "tuning", "report", "figures"},
    4: {"cli", "train", "evaluate", "predict", "inspect", "ablate", "tune"},
}
ROOMS = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
NEVER = {("data", "graph"), ("nn", "graph"), ("nn", "data"), ("nn", "config"), ("graph", "nn")}


def imports(path: Path) -> set[str]:
    """Rooms of gmsa that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} if node.module == "gmsa" else {node.module}
    return {name.split(".")[1] for name in found if name.startswith("gmsa.")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_up_only(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if path.name == "__main__.py":
        room = "cli"  # a command, whatever room it stands in
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} has no floor: see the layout in the README"
    for other in imports(path) - {room}:
        assert ROOMS[other] <= ROOMS[room], f"{room} (floor {ROOMS[room]}) imports {other} (floor {ROOMS[other]})"
        assert (room, other) not in NEVER, f"{room} must not know {other}"


def test_rooms_that_load_no_torch() -> None:
    code = (
        "import sys, gmsa, gmsa.config, gmsa.metrics, gmsa.files, gmsa.cli, gmsa.train, gmsa.evaluate, gmsa.predict,"
        " gmsa.inspect, gmsa.ablate, gmsa.tune; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lazy_names() -> None:
    import gmsa

    for name in gmsa.__all__:
        assert getattr(gmsa, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gmsa.nothing  # noqa: B018
