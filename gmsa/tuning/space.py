"""A search space: the parameters that a study varies, and their ranges."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from gmsa.config import Config, change, from_dict, to_dict
from gmsa.config.inherit import BY_MODALITY
from gmsa.config.presets import OTHERS
from gmsa.errors import ConfigError, shown
from gmsa.training.optimization.optimizer import check_precision
from gmsa.training.protocols import check_protocol
from gmsa.tuning.optuna_adapter import allows

_MANY = 200
"""From so many whole numbers on, only the two ends of a range are checked."""
Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Parameter:
    """One key of the config and what it may be."""

    key: str
    distribution: BaseDistribution
    values: Mapping[Scalar, Any]
    """For a choice: the value of each name that the storage keeps; a list or a group is kept as JSON."""
    when: Mapping[str, tuple[Scalar, ...]]
    """Other choices, and the values of them with which this parameter is searched."""

    def active(self, chosen: Mapping[str, Scalar]) -> bool:
        """Whether the parameter is searched beside the values that are ``chosen`` already."""
        return all(key in chosen and chosen[key] in wanted for key, wanted in self.when.items())

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """Lets a trial choose a value; returns it as the storage keeps it."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return trial.suggest_categorical(self.key, d.choices)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.key, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, FloatDistribution)
        return trial.suggest_float(self.key, d.low, d.high, step=d.step, log=d.log)

    def value(self, stored: Any) -> Any:
        """The config's value for a stored one."""
        return self.values[stored] if isinstance(self.distribution, CategoricalDistribution) else stored

    def stored(self, value: Any) -> Any:
        """The stored form of a value of the config."""
        return as_stored(value) if isinstance(self.distribution, CategoricalDistribution) else value

    def holds(self, stored: Any) -> bool:
        """Whether a stored value lies in the range."""
        try:
            return allows(self.distribution, stored)
        except (TypeError, ValueError, OverflowError):
            return False

    def entry(self) -> dict[str, Any]:
        """The parameter as a file lists it, without its conditions."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return {"choice": list(map(self.value, d.choices))}
        assert isinstance(d, (FloatDistribution, IntDistribution))
        kind = "int" if isinstance(d, IntDistribution) else "float"
        step = {} if d.log or d.step is None else {"step": d.step}
        return {kind: [d.low, d.high]} | ({"log": True} if d.log else {}) | step

    def edges(self) -> list[Any]:
        """Every choice, every whole number of a small range, or the two ends."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.distribution.choices)
        assert isinstance(self.distribution, (FloatDistribution, IntDistribution))
        d = self.distribution
        if isinstance(d, IntDistribution) and d.high - d.low < _MANY:
            return list(range(d.low, d.high + 1, d.step))
        return list(dict.fromkeys((d.low, d.high)))


@dataclass(frozen=True)
class Space:
    """A search space: its parameters, each after those that its conditions depend on."""

    parameters: tuple[Parameter, ...]

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Lets a trial choose a value of every active parameter; returns them by key, as the config has them."""
        stored: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.active(stored):
                stored[parameter.key] = parameter.suggest(trial)
        return self.values(stored)

    def values(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values for what the storage keeps of a trial."""
        return {p.key: p.value(stored[p.key]) for p in self.parameters if p.key in stored}

    def entries(self) -> dict[str, Any]:
        """The space as a file lists it."""
        by_key = {p.key: p for p in self.parameters}
        found = {p.key: p.entry() for p in self.parameters}
        for p in self.parameters:
            if p.when:
                found[p.key]["when"] = {key: [by_key[key].value(v) for v in stored] for key, stored in p.when.items()}
        return found

    def own(self, config: Config) -> dict[str, Any]:
        """The config's own values in their stored form, for the parameters that are active with them.

        Raises:
            ConfigError: a value lies outside its range, so that the study could not begin with it.
        """
        settings, stored = to_dict(config), dict[str, Any]()
        for parameter in self.parameters:
            if not parameter.active(stored):
                continue
            value = parameter.stored(value_at(settings, parameter.key))
            if not parameter.holds(value):
                raise ConfigError(
                    f"'{parameter.key}': the config's own value {shown(value)} is not in its range; widen "
                    "the range, or set another value with --set, since a study begins with the config as it is"
                )
            stored[parameter.key] = value
        return stored


def apply_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with some of its dotted keys changed.

    Raises:
        ConfigError: they do not go together.
    """
    settings = copy.deepcopy(to_dict(config))
    for key, value in values.items():
        if not _is_at(settings, key, value):  # a modality is not named where the value for all says it
            change(settings, key, value)
    changed = from_dict(settings, "trial")
    check_protocol(changed)
    check_precision(changed)
    return changed


def value_at(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, also of a modality where one stands for all; of a group with one value, that one."""
    value: Any = settings
    above = ""
    for part in key.split("."):
        if above in BY_MODALITY:
            value = value.get(part, value[OTHERS]) if isinstance(value, dict) else value
        else:
            value = value[part]
        above = part
    if isinstance(value, dict) and len({as_stored(v) for v in value.values()}) == 1:
        return next(iter(value.values()))
    return value


def _is_at(settings: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether a dotted key has a value already."""
    try:
        return as_stored(value_at(settings, key)) == as_stored(value)
    except (KeyError, TypeError):  # there is no such key, which the change says
        return False


def as_stored(value: Any) -> Scalar:
    """A value as the storage can keep it: a list or a group as JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)
