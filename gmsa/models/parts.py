"""Layers and encoders by the names that settings give them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from gmsa.config.components import parse_component
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


def find_layer(spec: str) -> Callable[..., nn.Module]:
    """The constructor of the layer that ``model.layer`` names, with its parameters filled in."""
    layer, given = find_part(spec, LAYERS, "model.layer")
    return partial(layer, **given)


def find_encoder(spec: str) -> Callable[..., nn.Module]:
    """The constructor of the encoder that ``model.encoder`` names, with its parameters filled in."""
    encoder, given = find_part(spec, ENCODERS, "model.encoder")
    return partial(encoder, **given)
