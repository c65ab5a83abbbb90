"""The examples in docstrings give what they say, and what is public has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import gmsa
import gmsa.data

ROOMS = ("gmsa.data", "gmsa.graph", "gmsa.metrics", "gmsa.media", "gmsa.models", "gmsa.nn", "gmsa.rng")
MODULES = [
    m.name
    for m in pkgutil.walk_packages(gmsa.__path__, "gmsa.")
    if m.name.startswith(ROOMS) and not m.name.endswith("__main__")
]
DATA = (
    *("Corpus", "Normalizer", "Store", "Utterance"),
    *("apply_missing", "load_corpus", "withhold_labels", "write_store"),
)
"""What of ``gmsa.data`` people use first."""


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


@pytest.mark.parametrize("name", ["gmsa.models", "gmsa.nn"])
def test_layers_and_models_have_an_example(name: str) -> None:
    room = importlib.import_module(name)
    parts = [getattr(room, part) for part in room.__all__]
    layers = [p for p in parts if isinstance(p, type) and issubclass(p, torch.nn.Module)]
    without = {p.__name__ for p in layers if ">>> " not in (p.__doc__ or "")}
    assert without <= {"Model", "Conversation", "PygLayer"}  # base classes


@pytest.mark.parametrize("name", DATA)
def test_the_data_package_has_examples(name: str) -> None:
    assert doctest.DocTestFinder(recurse=False).find(getattr(gmsa.data, name), name)[0].examples
