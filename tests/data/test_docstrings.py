"""The examples in the docstrings of the data package run, and the public classes and functions have them."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import gmsa.data

MODULES = ["gmsa.rng", "gmsa.data", *(found.name for found in pkgutil.walk_packages(gmsa.data.__path__, "gmsa.data."))]
WITH_EXAMPLES = (
    "Corpus",
    "Normalizer",
    "Store",
    "Utterance",
    "apply_missing",
    "load_corpus",
    "withhold_labels",
    "write_store",
)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_front_door_has_examples(name: str) -> None:
    assert doctest.DocTestFinder(recurse=False).find(getattr(gmsa.data, name), name)[0].examples
