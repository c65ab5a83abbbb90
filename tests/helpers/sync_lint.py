"""A training step as a GPU would run it, watched for all that makes the host wait for the device."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import gmsa
from gmsa.config import Config
from gmsa.data import Target
from gmsa.nn.dropout import Dropout
from gmsa.training.examples import Example, labeled_examples
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import build_optimizer, build_schedule
from gmsa.training.state import TrainState
from gmsa.training.step import training_step
from gmsa.training.tasks import FineTuning, Pretraining
from helpers.graphs import clips
from helpers.sslmm import DIMS, config_of

aten = torch.ops.aten
HOME = str(Path(gmsa.__file__).parent)
WAITS = {
    aten._local_scalar_dense.default: ".item()",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
    aten.is_nonzero.default: "bool()",
    aten.equal.default: "equal",
    aten.lift_fresh.default: "host tensor",
}
"""Operations whose result, or its size, the host reads from the device; a tensor of host values is sent to it."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""What reads a mask's number of trues where it is given one."""
MAY = {
    "all_reduce_numbers": "sums numbers from host to host",
    "send": "copies page-locked numbers without waiting",
    "_run_packed": "a recurrent network's number of rows at each step stays on the host, as cuDNN asks",
}
"""Functions of gmsa whose tensors on the host are meant to be there, or to be sent, and why."""
READS = {Tensor.tolist: ".tolist()", Tensor.cpu: ".cpu()", Tensor.numpy: ".numpy()"}
"""Methods that read a tensor without an operation where it is on the CPU."""


class SyncLint(TorchDispatchMode):
    """Counts what would make a GPU's host wait, by what it is and by the line of gmsa that does it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._methods = _Methods(self)

    def __enter__(self) -> SyncLint:
        self._methods.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._methods.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = WAITS.get(func)
        if func is aten.repeat_interleave.Tensor and (kwargs or {}).get("output_size") is None:
            name = "repeat_interleave without its size"
        if func in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            name = "boolean index"
        if name is not None:
            self.record(name)
        return func(*args, **(kwargs or {}))

    def record(self, name: str) -> None:
        """Counts one, unless the function that does it may: see :data:`MAY`."""
        frames = [f for f in traceback.extract_stack() if f.filename.startswith(HOME)]
        if frames and frames[-1].name in MAY:
            return
        where = f" at {frames[-1].filename.removeprefix(HOME)}:{frames[-1].lineno}" if frames else ""
        self.found[name + where] += 1


class _Methods(TorchFunctionMode):
    def __init__(self, lint: SyncLint) -> None:
        super().__init__()
        self.lint = lint

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            self.lint.record(READS[func])
        return func(*args, **(kwargs or {}))


def take_cuda_paths(patch: pytest.MonkeyPatch) -> None:
    """Lets tensors on the CPU take the ways that those on a GPU take."""
    patch.setattr(Dropout, "forward", lambda self, x: F.dropout(x, self.p, self.training))
    patch.setattr("gmsa.nn.encoders._is_shifted", lambda x: False)
    patch.setattr("gmsa.nn.edges._attends_in_groups", lambda x: False)
    patch.setattr("gmsa.nn.streams.stream.can_fuse", lambda *given: False)
    patch.setattr("gmsa.nn.streams.stacked._pays", lambda x: True)
    for module in ("attention", "mtag"):
        patch.setattr(f"gmsa.nn.layers.{module}.by_products", lambda x, index: False)


@contextmanager
def sync_lint() -> Iterator[Counter[str]]:
    """What makes the host wait within, counted."""
    with pytest.MonkeyPatch.context() as patch, SyncLint() as lint:
        take_cuda_paths(patch)
        yield lint.found


class Step:
    """A training step of a task on small graphs of two dialogues, on one device.

    Args:
        kind: of ``supervised``, ``consistent`` (with a teacher and pseudo-labels) and ``pretrain``.
    """

    def __init__(self, config: Config, kind: str, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.task: Any = self._task(kind, torch.device("cpu"))
        self.batch = next(iter(self.task.batches(1, "stage", 1)))
        torch.manual_seed(0)
        self.module: nn.Module = self.task.build_module().train()
        if device != "cpu":
            self.task, self.module = self._task(kind, self.device), self.module.to(self.device)
            self.batch = move(self.batch, self.device)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.module.parameters(), foreach=True)  # known to meta
        if device == "cpu":
            optimizer = build_optimizer(self.module, config.optim)
        schedule, average = build_schedule(optimizer, 10, config.optim), MovingAverage(self.module, 0.9)
        self.state = TrainState(self.module, optimizer, schedule, average)

    def _task(self, kind: str, device: torch.device) -> FineTuning | Pretraining:
        found = clips(DIMS, 8, per_video=4)
        if kind == "pretrain":
            return Pretraining(self.config, DIMS, found, found, device)
        classes = torch.eye(7)[3]
        examples = [*labeled_examples(found[:4], Target()), *(Example(replace(u, label=None)) for u in found[5:])]
        examples.append(Example(replace(found[4], label=None), classes=classes, pseudo=True))
        return FineTuning(self.config, DIMS, examples, [], found, device, consistent=kind == "consistent")

    def __call__(self) -> Tensor:
        return training_step(self.task, self.state, self.batch, 0.5, self.config.optim)[0]


def move(value: Any, device: torch.device) -> Any:
    """A batch, or the parts of a tuple, on a device."""
    if type(value) is tuple:
        return tuple(move(part, device) for part in value)
    return value.to(device)


def step_config(name: str, **groups: dict[str, Any]) -> Config:
    """Settings under which a step does all that one of the model can do."""
    given: dict[str, dict[str, Any]] = {
        "reconstruction": {"weight": 0.5},
        "optim": {"ema": 0.9, "batch_size": 16},
        "consistency": {"passes": 2},
    }
    for group, values in groups.items():
        given[group] = given.get(group, {}) | values
    return config_of(name, **given)
