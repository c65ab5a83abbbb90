"""The state of a stage in training, saved so that it can be resumed from any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from gmsa.errors import shown
from gmsa.system.records import (
    ANY,
    FLAG,
    NUMBER,
    SCORE,
    SECONDS,
    TEXT,
    Fields,
    Items,
    Kind,
    Map,
    Maybe,
    check_form,
    whole,
)
from gmsa.training.optimization.ema import MovingAverage


@dataclass
class TrainState:
    """A model with its optimizer, schedule and moving average."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: MovingAverage | None

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts, as :meth:`load_state_dict` takes them."""
        return {name: part.state_dict() for name, part in vars(self).items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from an earlier state."""
        for name, part in vars(self).items():
            if part is not None:
                part.load_state_dict(state[name])


@dataclass
class StageProgress:
    """How far a stage has come: the current epoch, its finished steps, and the best weights so far."""

    epoch: int = 1
    step: int = 0
    """Finished steps of the epoch."""
    losses: list[float] = field(default_factory=list)
    """Their losses."""
    seconds: float = 0.0
    """Seconds they took, up to the last save."""
    random: list[list[Tensor]] | None = None
    """Random states of all processes after these steps; None at the start of an epoch, which seeds them."""
    best: float = math.nan
    """The best validation score so far."""
    best_epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights of that epoch, on the CPU."""

    def __post_init__(self) -> None:
        self._started = time.perf_counter() - self.seconds

    def elapsed(self) -> float:
        """Seconds of the epoch, without pauses between runs."""
        return time.perf_counter() - self._started

    def next_epoch(self) -> None:
        """Starts the next epoch."""
        self.epoch, self.step, self.losses, self.random, self.seconds = self.epoch + 1, 0, [], None, 0.0
        self._started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The fields, as ``StageProgress(**state)`` takes them."""
        self.seconds = self.elapsed() if self.step else 0.0
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's global random generators, of the CPU and of the device; gmsa has no others with a state."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(state: list[Tensor], device: torch.device) -> None:
    """Restores the states of :func:`random_state`."""
    torch.set_rng_state(state[0])
    if device.type == "cuda" and len(state) > 1:
        torch.cuda.set_rng_state(state[1], device)


# --- states that may be a stranger's ---------------------------------------------------------------------------------

EPOCH = Fields(
    {"stage": TEXT, "epoch": whole(1), "seconds": SECONDS},
    {"seed": whole(-(2**63)), "loss": SCORE, "valid": Map(SCORE), "lr": NUMBER, "best": FLAG},
)
"""A row of a seed's history."""
_ROW = {"seed", "stage", "epoch", "loss", "valid", "lr", "seconds", "best"}
_STAGE = Kind("the plain name of a stage", lambda name: isinstance(name, str) and _is_plain_name(name))
_TENSOR = Kind("a tensor", lambda value: type(value) is Tensor and value.layout == torch.strided and value.is_cpu)
_STATE = Fields(
    {"history": Items(EPOCH, 1_000_000), "finished": Items(_STAGE, 10_000), "start": TEXT, "pending": Map(ANY)},
    {"settings": Map(ANY)},
)
_PROGRESS = Fields(
    {
        "epoch": whole(1, 10**12),
        "step": whole(0, 10**12),
        "losses": Items(NUMBER),
        "seconds": SECONDS,
        "random": Maybe(Items(Items(_TENSOR, 2), 100_000)),
        "best": SCORE,
        "best_epoch": whole(0, 10**12),
        "weights": Map(ANY),
    }
)
_MOST_GROUPS = 1000
_OPTIMIZER = Fields({"state": Fields({}), "param_groups": Items(Map(ANY), _MOST_GROUPS)})
_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCHEDULE = Fields(
    {
        "base_lrs": Items(NUMBER, _MOST_GROUPS),
        "last_epoch": whole(0, 10**15),
        "_last_lr": Items(NUMBER, _MOST_GROUPS),
    }
)
_SCALAR = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class StateCheck:
    """Checks a state from disk, whose file is intact but may be a stranger's, before anything is resumed from it."""

    skeleton: Callable[[str], nn.Module | None]
    """The module of a stage, maybe without its weights; None where only the stage's own protocol knows it."""
    fresh: TrainState
    """That of a small model which has trained nothing, with the optimizer and the schedule of the run: a parameter in
    each group."""
    order: Callable[[nn.Module], list[list[nn.Parameter]]]
    """The parameters of a module, group by group of the optimizer."""
    select: str = "MAE"
    """The score that every epoch of the protocol has."""

    def __call__(self, state: Mapping[str, Any]) -> None:
        """Checks all parts of a state.

        Raises:
            ValueError: names the part that is not what it must be.
        """
        check_form(state, _STATE)
        _check_plain(state.get("settings", {}), "settings")
        for row in state["history"]:
            if not row.keys() >= _ROW or row.keys() - _ROW:
                raise ValueError("'history' has rows of other keys")
            if self.skeleton(row["stage"]) is not None:
                wanted = {"loss", "mask", "contrast"} if row["stage"] == "pretrain" else {self.select}
                check_form(row["valid"], Fields(dict.fromkeys(wanted, NUMBER)), "valid")
        finished = state["finished"]
        if len(set(finished)) != len(finished):
            raise ValueError("'finished' names a stage twice")
        if not set(finished) <= {row["stage"] for row in state["history"] if row["best"]}:
            raise ValueError("'finished' names a stage that 'history' does not have")
        if pending := state["pending"]:
            check_form(pending, Fields({"stage": _STAGE, "progress": _PROGRESS, "state": Map(ANY)}), "pending")
            if len(pending) != 3:
                raise ValueError("'pending' has other keys")
            module = self.skeleton(pending["stage"])
            self._check_progress(pending["progress"], module)
            if pending["state"] or not pending["progress"].get("best_epoch"):  # none of a stage that is over
                self._check_training(pending["state"], module)

    def _check_progress(self, progress: Mapping[str, Any], module: nn.Module | None) -> None:
        if progress.keys() != _PROGRESS.forms.keys():
            raise ValueError("'progress' has other keys")
        if len(progress["losses"]) != progress["step"]:
            raise ValueError("'losses' are not those of 'step' steps")
        begun = progress["epoch"] == 1
        if not (progress["best_epoch"] == 0 if begun else 1 <= progress["best_epoch"] < progress["epoch"]):
            raise ValueError("'best_epoch' is not one before 'epoch'")
        if begun == bool(progress["weights"]):
            raise ValueError("'weights' are not those of 'best_epoch'")
        if not begun:
            check_weights(progress["weights"], module, "progress.weights")
        for states in progress["random"] or ():
            if not states or any(x.dtype != torch.uint8 or x.ndim != 1 or x.numel() > 100_000 for x in states):
                raise ValueError("'random' has other tensors than the states of random generators")
            try:
                torch.Generator().set_state(states[0])
            except (RuntimeError, TypeError):
                raise ValueError("'random' has what is no state of a random generator") from None

    def _check_training(self, state: Mapping[str, Any], module: nn.Module | None) -> None:
        names = {name for name, part in vars(self.fresh).items() if part is not None}
        if state.keys() != names:
            raise ValueError("'state' has not the parts that the settings ask for")
        check_weights(state["model"], module, "model")
        if self.fresh.average is not None:
            check_form(state["average"], Fields({"model": Map(ANY), "updates": whole(0, 10**15)}), "average")
            check_weights(state["average"]["model"], module, "average.model")
        self._check_optimizer(state["optimizer"], module)
        self._check_schedule(state["schedule"])

    def _check_optimizer(self, found: Any, module: nn.Module | None) -> None:
        check_form(found, _OPTIMIZER, "optimizer")
        own, groups = self.fresh.optimizer.state_dict()["param_groups"], found["param_groups"]
        order = None if module is None else self.order(module)
        parameters = None if order is None else [p for group in order for p in group]
        if len(groups) != len(own if order is None else order):
            raise ValueError("'param_groups' are not those of the model")
        numbers: list[int] = []
        for place, group in enumerate(groups):
            check_form(group, Fields({"lr": SECONDS, "params": Items(whole())}), "param_groups")
            numbers += group["params"]
            if order is not None and len(group["params"]) != len(order[place]):
                raise ValueError("'params' are not those of the model")
            for key, value in group.items():
                if key not in ("lr", "params"):
                    _check_plain(value, f"param_groups.{key}")
                    if key in own[place] and not _same(value, own[place][key]):
                        raise ValueError(f"'param_groups' has another {shown(key)} than the settings")
        if numbers != list(range(len(numbers))):
            raise ValueError("'params' are not those of the model")
        for number, moments in found["state"].items():
            if type(number) is not int or not 0 <= number < len(numbers):
                raise ValueError("'optimizer' has a state of no parameter")
            check_form(moments, Fields(dict.fromkeys(("step", *_MOMENTS), _TENSOR)), "optimizer")
            if len(moments) != 1 + len(_MOMENTS):
                raise ValueError("'optimizer' has other moments")
            like = moments["exp_avg"] if parameters is None else parameters[number]
            _check_tensor(moments["step"], torch.zeros(()), "step")
            for name in _MOMENTS:
                _check_tensor(moments[name], like, name)
            if moments["step"] < 0 or (moments["exp_avg_sq"] < 0).any():
                raise ValueError("'optimizer' has negative squares")

    def _check_schedule(self, found: Any) -> None:
        check_form(found, _SCHEDULE, "schedule")
        own = self.fresh.schedule.state_dict()
        for key, value in found.items():
            _check_plain(value, f"schedule.{key}")
            # What it has is set as its attributes: one of them must not hide a method.
            if key not in own and hasattr(self.fresh.schedule, str(key)):
                raise ValueError(f"'schedule' has {shown(key)}")
            if key in ("base_lrs", "lr_lambdas") and not _same(value, own[key]):
                raise ValueError(f"'schedule' has another {shown(key)} than the settings")
        if not found["_last_lr"] or type(found.get("_step_count", 1)) is not int:
            raise ValueError("'schedule' has no count of its steps")


def _is_plain_name(name: str) -> bool:
    return 0 < len(name) <= 100 and name.isprintable() and not name.startswith(".") and PurePath(name).name == name


def _same(found: Any, own: Any) -> bool:
    if isinstance(own, (list, tuple)):
        return isinstance(found, (list, tuple)) and list(found) == list(own)
    return type(found) is type(own) and bool(found == own)


def _check_plain(value: Any, where: str, left: int = 10_000) -> int:
    """Checks that a value holds few and plain values alone; returns how many more it might hold.

    What is unpickled may hold one list in many places, and so seem endless.
    """
    left -= 1
    if left < 0:
        raise ValueError(f"'{where}' holds too much")
    if isinstance(value, (list, tuple)):
        for part in value:
            left = _check_plain(part, where, left)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            left = _check_plain(part, where, left if isinstance(key, str) else -1)
    elif not isinstance(value, _SCALAR):
        raise ValueError(f"'{where}' holds a {type(value).__name__}")
    return left


def check_weights(found: Any, module: nn.Module | None, where: str) -> None:
    """Checks that tensors are those of a module, and its parameters finite.

    Raises:
        ValueError: names the tensor that is not.
    """
    check_form(found, Map(ANY), where)
    own = found if module is None else module.state_dict()
    if found.keys() != own.keys():
        raise ValueError(f"'{where}' has not the weights of the model")
    parameters = () if module is None else dict(module.named_parameters(remove_duplicate=False))
    for name, like in own.items():
        if isinstance(like, Tensor):  # not so what a module of one's own keeps beside its weights
            _check_tensor(found[name], like, f"{where}.{name}", finite=name in parameters)


def _check_tensor(found: Any, like: Tensor, where: str, finite: bool = True) -> None:
    check_form(found, _TENSOR, where)
    if found.shape != like.shape or found.dtype != like.dtype:
        raise ValueError(f"'{where}' is not {_form(like)} (got {_form(found)})")
    if finite and not torch.isfinite(found).all():
        raise ValueError(f"'{where}' holds NaN or infinity")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
