"""Traces the models of a run as one program, for batches of any size."""

# N utterances, K classes, Q readout nodes of each
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from gmsa.data import Target
from gmsa.errors import RunError, cut
from gmsa.graph import GraphSpec
from gmsa.runs.exporting.flat import fixed_axis, from_tensors


class Predictor(nn.Module):
    """The models of all seeds of a run, whose predictions it averages as ``gmsa predict`` does.

    Args:
        models: one per seed.
        spec: the graphs that they take.
        target: what they predict.

    Shapes:
        - inputs: those of :func:`gmsa.runs.exporting.flat.to_tensors`; output: ``value`` :math:`(N)` in labels, for an
          intensity; ``probabilities`` :math:`(N, K)`; ``gate`` :math:`(N, Q)`, where the models have one
    """

    def __init__(self, models: Sequence[nn.Module], spec: GraphSpec, target: Target) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.spec, self.target = spec, target

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = from_tensors(inputs, self.spec)
        outputs = [model(batch) for model in self.models]
        found = {"probabilities": torch.stack([o.logits.softmax(-1) for o in outputs]).mean(0)}
        if not self.target.is_classes:
            found["value"] = torch.stack([self.target.from_model(o.value) for o in outputs]).mean(0)
        if outputs[0].gate is not None:
            found["gate"] = torch.stack([o.gate.mean(-1) for o in outputs]).mean(0)
        return found


def trace(predictor: Predictor, example: Mapping[str, Tensor], name: str) -> ExportedProgram:
    """The program of a predictor, which takes those inputs that the models read, in batches of any size.

    Args:
        example: inputs of several utterances, of different sizes.
        name: of the model, for errors.

    Raises:
        RunError: ``torch.export`` cannot trace it.
    """
    predictor.eval().requires_grad_(False)
    try:
        inputs = _read(predictor, example)
        sizes = {key: {i: Dim.AUTO for i in range(x.ndim) if i != fixed_axis(key)} for key, x in inputs.items()}
        # Strict: what is not would take the length of a tensor as a constant.
        with torch.no_grad(), quiet():
            return torch.export.export(predictor, (inputs,), dynamic_shapes=(sizes,), strict=True)
    except Exception as error:  # torch documents no class of these
        raise RunError(
            f"torch.export cannot trace 'model.name: {name}' for batches of any size ({type(error).__name__}: "
            f"{cut(error)}); use gmsa predict, or train another model"
        ) from error


def inputs_of(program: ExportedProgram) -> tuple[dict[str, Tensor], dict[str, list[int | None]]]:
    """The inputs that a program was traced with, and their shapes: None for a size in which batches differ."""
    assert program.example_inputs is not None
    inputs: dict[str, Tensor] = program.example_inputs[0][0]
    found = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    shapes = [found[str(name)] for name in program.graph_signature.user_inputs]
    return inputs, {
        name: [size if isinstance(size, int) else None for size in shape]
        for name, shape in zip(inputs, shapes, strict=True)
    }


def _read(predictor: Predictor, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the inputs that the models read; of a list of edges all columns, if any."""
    inputs = {name: x.clone() for name, x in example.items()}  # fields that share a tensor are inputs of their own
    with torch.no_grad(), _Reading(inputs) as reading:
        predictor(inputs)
    lists = {name.rpartition(".")[0] for name in reading.names if "edges." in name}
    return {name: x for name, x in inputs.items() if name in reading.names or name.rpartition(".")[0] in lists}


class _Reading(TorchFunctionMode):
    """Keeps the names of the tensors that operations are given."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.known = {id(x): name for name, x in tensors.items()}
        self.names: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given: list[Any] = [*args, *(kwargs or {}).values()]
        while given:
            value = given.pop()
            if isinstance(value, Tensor):
                self.names |= {self.known[id(value)]} if id(value) in self.known else set()
            elif isinstance(value, Sequence) and not isinstance(value, str):
                given += value
        return func(*args, **(kwargs or {}))


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what torch logs of a trace to itself: an error says what failed."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
