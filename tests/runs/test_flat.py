"""Batches as flat dictionaries of tensors, and back: what a model says of both is the same, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gmsa.config import from_dict
from gmsa.data import Utterance
from gmsa.graph import collate
from gmsa.models import build_model, graph_spec
from gmsa.runs.exporting.flat import fixed_axis, from_tensors, to_tensors

DIMS = {"text": 6, "audio": 4}
SETTINGS = {
    "utterance": {},
    "lists": {"model": {"layer": "rgcn"}},
    "without readouts": {"model": {"name": "mtag"}, "graph": {"intra": "mtag", "inter": "mtag"}},
    "without edges": {"model": {"name": "late_fusion"}},
    "padded": {"model": {"name": "global"}},
    "dialogue": {"graph": {"scope": "dialogue", "speakers": "same_other"}},
    "hierarchical": {"graph": {"scope": "hierarchical"}},
}


def clips() -> list[Utterance]:
    """Five utterances of three dialogues, out of order, of which two lack a modality."""
    draw = torch.Generator().manual_seed(0)
    lengths = [(5, 9), (0, 3), (2, 0), (7, 20), (1, 1)]
    places = [("a", 1), ("b", 0), ("a", 0), ("c", 0), ("b", 1)]
    return [
        Utterance(
            f"{video}$_${place}", {m: torch.randn(n, DIMS[m], generator=draw) for m, n in zip(DIMS, sizes, strict=True)}
        )
        for (video, place), sizes in zip(places, lengths, strict=True)
    ]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_models_say_the_same_of_both(settings: dict) -> None:
    settings = settings | {"model": {"channels": 8, "heads": 2} | settings.get("model", {})}
    config = from_dict(settings)
    spec = graph_spec(config)
    model = build_model(DIMS, config).eval()
    batch = collate(clips(), spec)
    with torch.no_grad():
        expected, found = model(batch), model(from_tensors(to_tensors(batch), spec))
    torch.testing.assert_close(found.logits, expected.logits)  # not padded in groups, so rounded otherwise
    torch.testing.assert_close(found.value, expected.value)


def test_what_is_not_read_may_be_left_out() -> None:
    config = from_dict({"model": {"channels": 8, "heads": 2, "name": "late_fusion"}})
    spec = graph_spec(config)
    model, tensors = build_model(DIMS, config).eval(), to_tensors(collate(clips(), spec))
    few = {name: x for name, x in tensors.items() if name.split(".")[0] in ("features", "lengths", "conv_windows")}
    with torch.no_grad():
        expected = model(from_tensors(tensors, spec)).logits
        found = model(from_tensors(few | {"utterance_order": tensors["utterance_order"]}, spec)).logits
    assert torch.equal(found, expected)


def test_only_fixed_axes_are_those_that_batches_share() -> None:
    spec = replace(graph_spec(from_dict({"graph": {"scope": "hierarchical"}})), route="edge")
    one, all_of_them = (to_tensors(collate(some, spec)) for some in (clips()[:1], clips()))
    assert one.keys() == all_of_them.keys()
    for name, x in one.items():
        axis = fixed_axis(name)
        if axis is not None:
            assert x.shape[axis] == all_of_them[name].shape[axis], name
