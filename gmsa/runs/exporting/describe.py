"""What a program is, its inputs and its outputs, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import gmsa
from gmsa.config import Config, to_dict
from gmsa.data import Target
from gmsa.graph import GraphSpec
from gmsa.models import graph_spec
from gmsa.runs.exporting.check import SIZES, TOLERANCE
from gmsa.runs.folder import Run
from gmsa.runs.save import without_places

FORMAT = 1
"""Number of the form of the description; another one is read otherwise."""


def program_spec(config: Config) -> GraphSpec:
    """The graphs that a program takes: adjacencies, unless the model or its layer takes lists alone.

    A program has one form of its inputs, where ``model.route: auto`` chooses by the batch.
    """
    return graph_spec(replace(config, model=replace(config.model, route="dense")))


def describe(
    run: Run,
    seeds: Sequence[int],
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int | None]],
) -> dict[str, Any]:
    """The description of a program.

    Args:
        inputs: those that it takes, of an example.
        outputs: what it gives for them.
        shapes: of the inputs in the program; None for a size in which batches differ.
    """
    config, target = run.config, Target.of(run.config.target)
    spec, normalizer = program_spec(config), run.normalizer
    center, unit = target.scale
    return {
        "format": FORMAT,
        "versions": {"gmsa": gmsa.__version__, "torch": torch.__version__},
        "model": config.model.name,
        "seeds": [*seeds],
        "modalities": {
            m: {"features": dim, "steps_per_token": spec.strides[m], "most_tokens": spec.positions}
            for m, dim in run.dims.items()
        },
        "graph": {
            "scope": config.graph.scope,
            "streams": [*spec.streams],
            "edges": "adjacency" if spec.route == "dense" else "list",
            "readouts": [*spec.readouts],
        },
        "normalization": {
            "clip": normalizer.clip,
            "mean": {m: x.tolist() for m, x in normalizer.means.items()},
            "std": {m: x.tolist() for m, x in normalizer.stds.items()},
        },
        "target": {
            "kind": target.kind,
            "range": None if target.is_classes else [target.low, target.high],
            "scale": None if target.is_classes else {"center": center, "unit": unit},
            "classes": [*target.class_names],
        },
        "inputs": [{"name": name, "dtype": _dtype(x), "shape": [*shapes[name]]} for name, x in inputs.items()],
        "outputs": [{"name": name, "dtype": _dtype(x), "shape": [None, *x.shape[1:]]} for name, x in outputs.items()],
        "checked": {"utterances": [*SIZES], "tolerance": TOLERANCE},
        "config": to_dict(without_places(config)),
    }


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
