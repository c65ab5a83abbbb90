"""Reads a search space from YAML, ranges of settings by their dotted keys, and checks it before any training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from gmsa.ablation.variants import reason_fixed
from gmsa.config import AUTO, MODALITIES, Config, to_dict
from gmsa.config.coerce import FORMER, RENAMED, coerce
from gmsa.config.groups.model import STREAMS
from gmsa.config.inherit import BY_MODALITY
from gmsa.config.packaged import find
from gmsa.config.strict_yaml import read_yaml
from gmsa.data.notes import note
from gmsa.errors import ConfigError, cut, listed, nearest, shown
from gmsa.rng import generator
from gmsa.tuning.space import Parameter, Space, apply_values, as_stored, value_at

FIXED = {
    "data.path": "trials would not be scored on the same utterances",
    "data.name": "it is only a name",
    "data.if_missing": "trials would not be scored on the same utterances",
    "data.split": "trials would not be scored on the same utterances",
    "data.video_from": "splits are made of whole videos, so trials might not be scored on the same utterances",
    "data.speaker_from": "splits may be made of whole speakers, so trials might not be scored on the same utterances",
    "target": "trials would not be scored on the same target",
    "data.missing": "trials would not be scored on the same features; search 'data.missing.train'",
    "data.missing.test": "a study never looks at the test split",
    "data.label_ratio": "it is the task, not a choice: more labels always win",
    "data.label_unit": "it is the task, not a choice",
    "data.label_seed": "a study would choose the luckiest labels",
    "run": "it is not of the model but of the run",
}
"""Keys, and groups of keys, that no study may search, and why."""
KINDS = ("float", "int", "choice")
"""Kinds of parameters."""
_OPTIONS = {"float": {"log", "step"}, "int": {"log", "step"}, "choice": set[str]()}
MOST_CHOICES = 100
"""Values of a choice, at most."""
MOST_STEPS = 1_000_000
"""Steps of a range, at most."""
EXACT = 2**53
"""Whole numbers, at most: Optuna keeps a trial's values as floats."""
_TRIED = 200
"""Random draws of the other parameters, at most, before a value counts as refused by the config."""


def read_space(path: str | Path, config: Config) -> Space:
    """Reads a search space, a file or a packaged one by name, and checks it against the config that it changes.

    .. code-block:: yaml

        optim.lr: {float: [1e-4, 1e-2], log: true}
        model.layers: {int: [1, 4]}
        graph.intra: {choice: [complete, window]}
        graph.radius: {int: [1, 8], when: {graph.intra: window}}

    Raises:
        ConfigError: names the key that is unknown, empty, refused by the config, or depends on what is not there.
    """
    entries = read_yaml(find(path, "spaces"))
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{path}: expected keys with ranges, such as 'optim.lr: {{float: [1e-4, 1e-2], log: true}}'")
    try:
        entries, left_out = _of_modalities(entries, config)
        parameters = [_parameter(str(key), entry, config) for key, entry in entries.items()]
        for one, other in itertools.permutations(parameters, 2):
            if other.key.startswith(f"{one.key}."):
                raise ConfigError(f"'{one.key}' and '{other.key}' overlap; leave one out")
        space = Space(_ordered(parameters))
        _check_values(space, config)
        space.own(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if left_out:
        note(f"{path}: {_lacking(left_out, config)}; left out of the space")
    return space


def _of_modalities(entries: Mapping[Any, Any], config: Config) -> tuple[dict[Any, Any], list[str]]:
    """The entries without those of usual modalities that the config does not use, and the keys of these."""
    if config.data.modalities == AUTO:
        return dict(entries), []
    usual = _keys_by_modality((*MODALITIES, *config.data.modalities))
    absent = set(usual) - set(_keys_by_modality(config.data.modalities))
    left_out = [key for key in map(str, entries) if FORMER.get(key, key) in absent]
    kept = {key: entry for key, entry in entries.items() if str(key) not in left_out}
    if not kept:
        raise ConfigError(f"{_lacking(left_out, config)}; search other keys")
    return kept, left_out


def _lacking(keys: Sequence[str], config: Config) -> str:
    belong = "belongs to a modality" if len(keys) == 1 else "belong to modalities"
    return f"{listed(keys)} {belong} that data.modalities ({listed(config.named_modalities)}) does not name"


def _parameter(key: str, entry: Any, config: Config) -> Parameter:
    """One entry of the file."""
    key = FORMER.get(key, key)
    known = [*_keys(to_dict(config)), *_keys_by_modality(config.named_modalities)]
    if key not in known:
        hint = f"; it is now '{RENAMED[key]}'" if key in RENAMED else nearest(key, known)
        if key.split(".")[-2:-1] in [[group] for group in BY_MODALITY] and config.data.modalities == AUTO:
            hint += "; a space knows the modalities that data.modalities names"
        raise ConfigError(f"unknown key '{cut(key)}'{hint}; keys are those of --set")
    if reason := reason_fixed(key, FIXED):
        raise ConfigError(f"'{key}' cannot be searched: {reason}")
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        raise ConfigError(
            f"'{key}' needs one of float, int or choice, such as {{float: [0, 0.5]}} (got {shown(entry)})"
        )
    kind = kinds[0]
    for option in entry.keys() - {kind, "when"}:
        if option not in _OPTIONS[kind]:
            raise ConfigError(
                f"'{key}': a {kind} has no '{cut(option)}'{nearest(str(option), [*_OPTIONS[kind], 'when'])}; "
                f"it takes {', '.join(sorted([*_OPTIONS[kind], 'when']))}"
            )
    when = entry.get("when", {})
    if not isinstance(when, dict):
        raise ConfigError(f"'{key}': 'when' names other keys and their values, such as {{graph.intra: window}}")
    wanted = {str(k): _wanted(config, str(k), v if isinstance(v, list) else [v]) for k, v in when.items()}
    if not all(wanted.values()):
        raise ConfigError(
            f"'{key}': 'when' names no value of a key (got {shown(when)}); name one, or leave the key out"
        )
    if kind == "choice":
        values = entry[kind]
        if not isinstance(values, list) or not values:
            raise ConfigError(f"'{key}': 'choice' must be a list with at least one value (got {shown(values)})")
        if len(values) > MOST_CHOICES:
            raise ConfigError(f"'{key}': a choice has at most {MOST_CHOICES} values (got {len(values):,}); name fewer")
        names = {as_stored(_as_held(config, key, value)): value for value in values}
        if len(names) < len(values):
            raise ConfigError(f"'{key}': a choice is listed twice (got {shown(values)}); list each once")
        return Parameter(key, CategoricalDistribution(tuple(names)), names, wanted)
    return Parameter(key, _range(key, kind, entry), {}, wanted)


def _wanted(config: Config, key: str, values: list[Any]) -> tuple[Any, ...]:
    """The values of another key with which a parameter is searched, as the storage keeps them."""
    if len(values) > MOST_CHOICES:
        raise ConfigError(f"'when: {cut(key)}' lists at most {MOST_CHOICES} values (got {len(values):,}); name fewer")
    return tuple(as_stored(_as_held(config, key, value)) for value in values)


def _range(key: str, kind: str, entry: Mapping[str, Any]) -> BaseDistribution:
    """The distribution of a number."""
    ends = entry[kind]
    if not isinstance(ends, list) or len(ends) != 2:
        raise ConfigError(f"'{key}': '{kind}' needs its two ends, such as {{{kind}: [1, 8]}} (got {shown(ends)})")
    low, high = (_number(key, kind, end) for end in ends)
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"'{key}': 'log' must be true or false (got {shown(log)})")
    if low > high:
        raise ConfigError(f"'{key}': the range is empty, {low} is above {high}; swap them")
    if log and low <= 0:
        raise ConfigError(f"'{key}': a range with 'log: true' must begin above 0 (got {low})")
    if step is not None:
        step = _number(key, kind, step)
        if step <= 0:
            raise ConfigError(f"'{key}': 'step' must be above 0 (got {step})")
        if log:
            raise ConfigError(f"'{key}': 'log' and 'step' do not go together; leave one out")
    if step is not None and (high - low) / step > MOST_STEPS:
        raise ConfigError(f"'{key}': the range has more than {MOST_STEPS:,} steps; leave 'step' out, or make it larger")
    if step is not None and (step > high - low > 0 or abs((steps := (high - low) / step) - round(steps)) > 1e-6):
        raise ConfigError(f"'{key}': the range from {low:g} to {high:g} is no multiple of 'step' {step:g}; change one")
    if kind == "int":
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)


def _number(key: str, kind: str, value: Any) -> float:
    number: float = coerce(value, int if kind == "int" else float, key)
    if kind == "int" and abs(number) > EXACT:
        raise ConfigError(f"'{key}': whole numbers are searched up to 2**53 (got {shown(value)})")
    return number


def _ordered(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The parameters, each after those that it depends on."""
    by_key = {p.key: p for p in parameters}
    for parameter in parameters:
        for key, wanted in parameter.when.items():
            if key not in by_key:
                raise ConfigError(
                    f"'{parameter.key}' depends on '{cut(key)}', which is not in the space{nearest(key, by_key)}; "
                    "add it, or leave the condition out"
                )
            for value in wanted:
                if not by_key[key].holds(value):
                    raise ConfigError(f"'{parameter.key}' depends on '{key}' being {shown(value)}, which it never is")
    found: dict[str, Parameter] = {}
    while len(found) < len(by_key):
        ready = [p for p in parameters if p.key not in found and p.when.keys() <= found.keys()]
        if not ready:
            circle = ", ".join(f"'{key}'" for key in by_key if key not in found)
            raise ConfigError(f"the conditions of {circle} depend on each other; leave one of them out")
        found |= {p.key: p for p in ready}
    return tuple(found.values())


def _check_values(space: Space, config: Config) -> None:
    """Refuses a value that no config of the space takes: beside the config's own others, or beside random ones."""
    rng = generator("search space")
    for parameter in space.parameters:
        for edge in parameter.edges():
            forced = _with_conditions(space, parameter.key, edge)
            refused = _refused(config, space.values(forced))
            for _ in range(_TRIED if refused else 0):
                if _refused(config, space.values(_random(space, rng, forced))) is None:
                    refused = None
                    break
            if refused:
                raise ConfigError(f"'{parameter.key}' may be {shown(parameter.value(edge))}, but {refused}")


def _refused(config: Config, values: Mapping[str, Any]) -> str | None:
    """Why the config does not take these values; None where it does."""
    from gmsa.models import check  # torch is not needed to read a space

    try:
        check(apply_values(config, values))
    except ConfigError as error:
        return str(error).removeprefix("trial: ")
    return None


def _with_conditions(space: Space, key: str, value: Any) -> dict[str, Any]:
    """A parameter's value, with values of those that it depends on."""
    by_key = {p.key: p for p in space.parameters}
    forced, waiting = {key: value}, [key]
    while waiting:
        for name, wanted in by_key[waiting.pop()].when.items():
            if name not in forced:
                forced[name] = wanted[0]
                waiting.append(name)
    return forced


def _random(space: Space, rng: np.random.Generator, forced: Mapping[str, Any]) -> dict[str, Any]:
    """A draw of the space in which some parameters have the values that they are ``forced`` to."""
    stored: dict[str, Any] = {}
    for parameter in space.parameters:
        if parameter.active(stored):
            stored[parameter.key] = forced.get(parameter.key, _at(parameter.distribution, rng.random()))
    return stored


def _at(distribution: BaseDistribution, share: float) -> Any:
    """The value at a share of a range, uniformly; for checking only."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    value = distribution.low + share * (distribution.high - distribution.low)
    if distribution.step:
        value = distribution.low + distribution.step * int((value - distribution.low) / distribution.step + 0.5)
    return int(value) if isinstance(distribution, IntDistribution) else value


def _keys(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of nested settings: values, and groups within a section, for which one value may stand."""
    found = []
    for name, value in settings.items():
        if prefix:
            found.append(f"{prefix}{name}")
        if isinstance(value, dict):
            found += _keys(value, f"{prefix}{name}.")
    return found


def _keys_by_modality(names: Sequence[str]) -> list[str]:
    """Dotted keys of the settings by modality, for every modality, also where one value stands for all."""
    pairs = [f"{a}_to_{b}" for a in names for b in names if a != b]
    groups = {"model.modality_dropout": names, "model.encoders": names, "graph.intra": names, "graph.inter": pairs}
    groups["model.layer"] = STREAMS
    return [f"{group}.{name}" for group, found in groups.items() for name in found]


def _as_held(config: Config, key: str, value: Any) -> Any:
    """A value as the config holds it, numbers and groups in their own form; as it is where it does not fit alone."""
    try:
        return value_at(to_dict(apply_values(config, {key: value})), key)
    except ConfigError:
        return value
