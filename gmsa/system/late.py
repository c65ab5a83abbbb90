"""Imports PyG without what it needs rarely: transformers, data sets, and torch's compiler, as slow as torch itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONAL = "transformers"
_LATER = ("torch._dynamo", "torch_geometric.datasets")


def load() -> None:
    """Imports PyG; it takes what it tries to import and does not find for not installed."""
    if "torch_geometric" in sys.modules:
        return
    with ExitStack() as stack:
        for module in (_absent(_OPTIONAL), *map(_put_off, _LATER)):
            stack.enter_context(module)
        import torch_geometric  # noqa: F401


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Tells whoever imports a module that it is not there, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def _put_off(name: str) -> Iterator[None]:
    """Puts off the import of a module until something in it is used."""
    if name in sys.modules:
        yield
        return
    instead = sys.modules[name] = ModuleType(name)

    def used(attribute: str) -> Any:
        if sys.modules.get(name) is instead:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    instead.__getattr__ = used  # type: ignore[method-assign]
    try:
        yield
    finally:
        if sys.modules.get(name) is instead:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            vars(sys.modules[parent]).setdefault(child, instead)


def not_compiled(function: F) -> F:
    """Decorates a function as ``torch.compiler.disable`` does, which imports the compiler wherever it is called."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*arguments, **named)
        return function(*arguments, **named)

    return cast(F, call)


load()
