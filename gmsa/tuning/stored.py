"""Checks what a storage says of a study: its journal or database may be a stranger's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gmsa.errors import RunError, shown
from gmsa.system.reading import parse_json
from gmsa.tuning.objective import COST, PRUNED
from gmsa.tuning.sampling import RELATIVE
from gmsa.tuning.space import Space
from gmsa.tuning.trials import ATTEMPTS, FIXED, HISTORY, ORIGIN, REASON, STEPS

_MOST = 10**9
"""The most that a count can be."""


def facts_of(text: Any, where: str) -> dict[str, Any]:
    """The facts of a study, from their JSON.

    Raises:
        RunError: it is none.
    """
    try:
        facts = parse_json(text)
    except (ValueError, TypeError):
        facts = None
    if not isinstance(facts, dict):
        raise RunError(f"{where}: what the study searches is damaged ({shown(text)}); give another --study")
    return facts


def check_trials(trials: Sequence[FrozenTrial], values: int, space: Space, where: str) -> None:
    """Checks that trials are such as gmsa makes.

    Args:
        trials: all trials of a study, by number.
        values: how many values a complete one has.
        space: what they chose from.
        where: what errors call the storage.

    Raises:
        RunError: names the trial and what is wrong with it.
    """
    for trial in trials:
        wrong = next(_wrong(trial, len(trials), values, space), None)
        if wrong is not None:
            raise RunError(f"{where}: trial {trial.number} has {wrong}, which gmsa did not write; give another --study")


def _wrong(trial: FrozenTrial, trials: int, values: int, space: Space) -> Any:
    """What is wrong with a trial."""
    parameters = {p.key: p for p in space.parameters}
    if trial.values is None:
        if trial.state == TrialState.COMPLETE:
            yield "no value"
    elif not isinstance(trial.values, list) or len(trial.values) != values or not all(map(_number, trial.values)):
        yield f"the values {shown(trial.values)}"
    for step, value in trial.intermediate_values.items():
        if not _count(step) or not _number(value):
            yield f"the value {shown(value)} at step {shown(step)}"
    for key, value in trial.params.items():
        if key not in parameters or not parameters[key].holds(value):
            yield f"{shown(key)} = {shown(value)}"
    for attributes, checks in ((trial.user_attrs, _USER), (trial.system_attrs, _SYSTEM)):
        if not isinstance(attributes, dict):
            yield f"the attributes {shown(attributes)}"
            return
        for key, check in checks.items():
            if key in attributes and not check(attributes[key]):
                yield f"{key!r}: {shown(attributes[key])}"
    if trial.system_attrs.get(ORIGIN, 0) >= trials:
        yield f"{ORIGIN!r}: {shown(trial.system_attrs[ORIGIN])}"


def _number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value) is not None
    except OverflowError:
        return False


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _cost(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_number(value.get(key)) for key in ("seconds", "epochs", "parameters")):
        return False
    return all(math.isfinite(v) and v >= 0 for v in value.values() if _number(v))


def _chosen(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(parse_json(value), Mapping)
    except ValueError:
        return False


_USER = {
    ATTEMPTS: _count,
    STEPS: _count,
    PRUNED: _count,
    REASON: lambda value: isinstance(value, str),
    COST: _cost,
}
"""The user attributes that gmsa reads, each with its check."""
_SYSTEM = {
    ORIGIN: _count,
    HISTORY: lambda value: isinstance(value, list) and all(map(_count, value)),
    RELATIVE: _chosen,
    FIXED: lambda value: isinstance(value, dict),
}
"""The system attributes that gmsa or Optuna reads, each with its check."""
