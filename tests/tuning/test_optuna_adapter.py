"""What is private to Optuna is used in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import optuna
import pytest

import gmsa
from gmsa.tuning.optuna_adapter import allows, forget_trials, frozen, id_of, storage_of

PACKAGE = Path(gmsa.__file__).parent
ADAPTER = PACKAGE / "tuning" / "optuna_adapter.py"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(source: str) -> list[str]:
    """Private attributes of anything but ``self`` and ``cls``, by dot or ``getattr``, and private modules of Optuna."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            found += [a.value for a in node.args if isinstance(a, ast.Constant) and private(str(a.value))]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(m.partition(".")[0] == "optuna" for m in modules):
                found += [part for m in modules for part in m.split(".") if private(part)]
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("study._storage", ["_storage"]),
        ("self.study._storage", ["_storage"]),
        ("self._lock", []),
        ("getattr(storage, '_backend', storage)", ["_backend"]),
        ("from optuna.storages._heartbeat import BaseHeartbeat", ["_heartbeat"]),
        ("import optuna.storages._heartbeat", ["_heartbeat"]),
        ("from optuna.trial import Trial", []),
    ],
)
def test_private_uses_are_found(source: str, found: list[str]) -> None:
    assert private_uses(source) == found


def test_no_other_module_uses_what_is_private_to_optuna() -> None:
    asked = [path for path in PACKAGE.rglob("*.py") if "optuna" in path.read_text(encoding="utf-8")]
    assert ADAPTER in asked
    assert private_uses(ADAPTER.read_text(encoding="utf-8"))
    found = {str(path): private_uses(path.read_text(encoding="utf-8")) for path in asked if path != ADAPTER}
    assert {path: uses for path, uses in found.items() if uses} == {}


def test_the_adapter() -> None:
    study = optuna.create_study()
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    known = frozen(trial)
    assert (known.number, known.params) == (0, {"x": x})
    storage_of(study).set_trial_user_attr(id_of(trial), "a", 1)
    forget_trials(study)
    assert study.get_trials()[0].user_attrs == {"a": 1}
    low = optuna.distributions.IntDistribution(1, 5, step=2)
    assert [value for value in range(8) if allows(low, value)] == [1, 3, 5]
