"""Writes the models of a run as one program."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from gmsa.config.components import component_name
from gmsa.data import Target
from gmsa.errors import RunError, cut
from gmsa.graph import collate
from gmsa.media.private import forbid_telemetry
from gmsa.runs.exporting import refusals
from gmsa.runs.exporting.check import Program, compare, made_up
from gmsa.runs.exporting.describe import describe, program_spec
from gmsa.runs.exporting.flat import to_tensors
from gmsa.runs.exporting.inputs import DESCRIPTION, ProgramInputs
from gmsa.runs.exporting.program import Predictor, inputs_of, quiet, trace
from gmsa.runs.folder import Run
from gmsa.system.files import check_out_file, write_bytes

ENDINGS = (".pt2", ".onnx")
"""What the name of a program ends in: that of ``torch.export``, or of ONNX."""
_TRACED = 7
"""Made-up utterances of the batch that is traced: in dialogues of 1, 2, 3 and 1."""


class Exported(NamedTuple):
    """A program that was written."""

    path: Path
    description: dict[str, Any]
    """What it says of itself: inputs, outputs, modalities, normalization, target, settings, versions."""
    largest_difference: float
    """To the run's own predictions, on batches of made-up utterances."""


def export_run(run: Run, out: Path, seeds: int | Sequence[int] | None = None) -> Exported:
    """Writes a run's models as one program; see :meth:`Run.export`."""
    if out.suffix not in ENDINGS:
        raise RunError(f"--out '{out}' must end in {' or '.join(ENDINGS)}, which says what to write; rename it")
    check_out_file(out, ENDINGS)
    if out.suffix == ".onnx":
        _check_onnx(out)
    refusals.check(run.config)
    chosen = run.chosen_seeds(seeds)
    models = [run.load_model(seed, "cpu") for seed in chosen]
    predictor = Predictor(models, program_spec(run.config), Target.of(run.config.target))
    program = trace(predictor, _example(run), component_name(run.config.model.name))
    given, shapes = inputs_of(program)
    with torch.no_grad():
        found = describe(run, chosen, given, predictor(given), shapes)
    inputs = ProgramInputs(found, run.config.plugins)
    content, runnable = (_onnx if out.suffix == ".onnx" else _pt2)(program, given, found)
    worst = compare(run, chosen, runnable, inputs)
    write_bytes(out, content)
    return Exported(out, found, worst)


def _pt2(program: ExportedProgram, given: Mapping[str, Tensor], found: Mapping[str, Any]) -> tuple[bytes, Program]:
    """The bytes of a program's file, and the program read from them."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(found, allow_nan=False)})
    file.seek(0)
    with quiet():
        return file.getvalue(), torch.export.load(file).module()  # these bytes are our own


def _check_onnx(out: Path) -> None:
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if lacking:
        raise RunError(
            f"--out '{out}': ONNX needs {' and '.join(lacking)}, not installed; install with pip install "
            f"{' '.join(lacking)}, or write {out.with_suffix('.pt2').name}"
        )


def _onnx(program: ExportedProgram, given: Mapping[str, Tensor], found: Mapping[str, Any]) -> tuple[bytes, Program]:
    """The same in ONNX, with the description in its metadata."""
    forbid_telemetry()
    onnxruntime = import_module("onnxruntime")
    names = [one["name"] for one in found["outputs"]]
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, (dict(given),), input_names=[*given], output_names=names, dynamo=True, verbose=False
            )
    except Exception as error:  # torch documents no class of these
        raise RunError(
            f"torch.onnx cannot write the program ({cut(error.__cause__ or error)}); write a .pt2 file instead"
        ) from error
    assert made is not None
    made.model.metadata_props[DESCRIPTION] = json.dumps(found, allow_nan=False)
    content: bytes = made.model_proto.SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = session.run(names, {name: x.numpy() for name, x in inputs.items()})
        return {name: torch.from_numpy(x) for name, x in zip(names, arrays, strict=True)}

    return content, run


def _example(run: Run) -> dict[str, Tensor]:
    """Inputs of a batch whose graphs differ in size, so that none takes a shortcut."""
    normalized = [run.normalizer.apply(u) for u in made_up(run, _TRACED, 0)]
    return to_tensors(collate(normalized, program_spec(run.config)))
