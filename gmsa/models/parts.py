"""Layers and encoders by the names that settings give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import nn

from gmsa.config.components import parse_component
from gmsa.config.groups.model import STREAMS
from gmsa.config.presets import OTHERS
from gmsa.registry import ENCODERS, LAYERS, Registry


def find_part(spec: str, registry: Registry[Any], key: str) -> tuple[Any, dict[str, Any]]:
    """The part that ``name`` or ``name(key=value)`` names, and its parameters.

    Args:
        key: the setting that has the value, for errors.

    Raises:
        ConfigError: an unknown part or parameter, a wrong value, or a parameter without a value.
    """
    name, given = parse_component(spec, registry, key)
    registry.check_given(name, given, key)
    return registry[name], given


class Layers(dict[str, "partial[nn.Module]"]):
    """The constructor of each stream's layer, as ``model.layer`` names them, with its parameters filled in.

    Args:
        setting: the name of one layer for all streams, or names by stream.
    """

    def __init__(self, setting: str | Mapping[str, str], streams: Iterable[str] = STREAMS) -> None:
        by_stream = setting if isinstance(setting, Mapping) else {OTHERS: setting}
        super().__init__()
        for stream in streams:
            layer, given = find_part(by_stream.get(stream, by_stream[OTHERS]), LAYERS, "model.layer")
            self[stream] = partial(layer, **given)

    def say(self, attribute: str, default: Any = None) -> list[Any]:
        """What the layers say of themselves by a class attribute: each value once, in the order of the streams."""
        return [*dict.fromkeys(getattr(layer.func, attribute, default) for layer in self.values())]


def find_encoder(spec: str) -> Callable[..., nn.Module]:
    """The constructor of the encoder that ``model.encoder`` names, with its parameters filled in."""
    encoder, given = find_part(spec, ENCODERS, "model.encoder")
    return partial(encoder, **given)
