"""Makes a layer with those of its arguments that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from gmsa.errors import ConfigError, cut, listed
from gmsa.registry import parameters_of

ALWAYS = ("channels", "heads", "edge_types")
"""What a layer whose constructor takes any keyword is given."""


def make_layer(layer: Callable[..., nn.Module], **passed: Any) -> nn.Module:
    """Makes a layer with those of ``passed`` that its constructor names and that are not filled in already.

    What a constructor passes on by ``**`` to that of a class above counts as named.

    >>> class Scaled(nn.Module):
    ...     def __init__(self, channels: int, heads: int = 1) -> None:
    ...         super().__init__()
    ...         self.heads = heads
    >>> make_layer(partial(Scaled, heads=4), channels=8, heads=2, edge_types=0).heads
    4

    Raises:
        ConfigError: the layer needs the relations of its stream, and they are not known; or it takes any keyword, but
            not these.
    """
    made, given = (layer.func, layer.keywords) if isinstance(layer, partial) else (layer, {})
    name = getattr(made, "__name__", "of this kind")
    parameters = parameters_of(made)
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {*parameters, *(ALWAYS if any_keyword else ())} - {*given}
    needed = "relations" in known and parameters["relations"].default is inspect.Parameter.empty
    if needed and passed.get("relations") is None:
        raise ConfigError(
            f"a layer {name} needs the relations of its stream: build the model with gmsa.models.build_model, or pass "
            "it 'relations' (gmsa.models.StreamRelations)"
        )
    arguments = {argument: value for argument, value in passed.items() if argument in known}
    try:
        return layer(**arguments)
    except TypeError as error:
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(made).parameters.values()):
            raise
        raise ConfigError(
            f"the layer {cut(name)} takes any keyword by '**', but not {listed(arguments)} ({cut(error)}); let its "
            "constructor name those that it takes"
        ) from error
