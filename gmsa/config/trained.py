"""What of the settings decides the weights: it goes with them, so that no other settings are taken for theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.config.coerce import FORMER_VALUES
from gmsa.config.load import to_dict
from gmsa.config.schema import Config
from gmsa.errors import cut, shown

PLACES = {
    "data.path",
    "data.pool",
    "data.name",
    "data.if_missing",
    "protocol.init_from",
    "model.text_encoder",
    "text.download",
}
"""Settings that say where something is; what it holds has a SHA-256 of its own."""


def trained_settings(config: Config, seed: int) -> dict[str, Any]:
    """The settings, by dotted key, that decide what the weights of a seed become; that one as ``run.seed``."""
    found = {
        key: value
        for key, value in flat(to_dict(config)).items()
        if key == "run.select" or not (key in PLACES or key == "plugins" or key.startswith("run."))
    }
    return found | {"run.seed": seed}


def other_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences of :func:`trained_settings` between two times, as ``optim.lr was 0.001, is 0.05``.

    A setting that one of them lacks is of another version of gmsa, and counts as equal.
    """
    before = {key: FORMER_VALUES.get((key, x), x) if isinstance(x, str) else x for key, x in then.items()}
    return [
        f"{key} was {shown(before[key])}, is {shown(now[key])}"
        for key in now
        if key in before and before[key] != now[key]
    ]


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The differences of two nested settings, by dotted key."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in dict.fromkeys((*before, *now)):
            found += differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
        return found
    return [] if before == now else [f"{cut(key)} was {shown(before)}, is {shown(now)}"]


def few(differences: Sequence[str]) -> str:
    """The first differences, for a message."""
    return "; ".join([*differences[:2], *([f"{len(differences) - 2} more"] if len(differences) > 2 else [])])


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
