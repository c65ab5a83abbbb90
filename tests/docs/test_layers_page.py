"""The table of layers says what they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gmsa.config import from_dict
from gmsa.models.context import StreamRelations
from gmsa.nn import make_layer
from gmsa.registry import LAYERS

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "layers.md"
ROWS = re.findall(r"(?m)^\| `(\w+)` \| .* \| ([\d,]+) \| .* \|$", PAGE.read_text().partition("## Add your own")[0])


def test_every_layer_has_a_row() -> None:
    assert [name for name, _ in ROWS] == [name for name in LAYERS if LAYERS.module_of(name).startswith("gmsa.")]


@pytest.mark.parametrize(("name", "parameters"), ROWS)
def test_the_number_of_parameters(name: str, parameters: str) -> None:
    relations = StreamRelations.of(from_dict({})).streams["intra"]
    sizes = {"channels": 128, "heads": 8, "edge_types": 0, "number": 1}
    layer = make_layer(LAYERS[name], relations=relations, **sizes)
    assert f"{sum(p.numel() for p in layer.parameters()):,}" == parameters


def test_the_layers_that_take_weights() -> None:
    assert {name for name in LAYERS if getattr(LAYERS[name], "takes_weights", False)} == {"attention", "gcn2", "mtag"}
    assert re.search(r"`attention`, `gcn2` and `mtag` alone count the weights", PAGE.read_text())
