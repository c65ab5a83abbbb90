"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import gmsa

ROOMS = ("gmsa.graph", "gmsa.metrics", "gmsa.models", "gmsa.nn")
MODULES = [m.name for m in pkgutil.walk_packages(gmsa.__path__, "gmsa.") if m.name.startswith(ROOMS)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


@pytest.mark.parametrize("name", ["gmsa.models", "gmsa.nn"])
def test_public_modules_have_an_example(name: str) -> None:
    room = importlib.import_module(name)
    parts = [getattr(room, part) for part in room.__all__]
    layers = [p for p in parts if isinstance(p, type) and issubclass(p, torch.nn.Module)]
    without = {p.__name__ for p in layers if ">>> " not in (p.__doc__ or "")}
    assert without <= {"Model", "Embedding"}  # a base class, and a part of every model
