"""One job as several processes: what they add up, tell each other, and agree on."""

# W processes
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gmsa.errors import RunError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes that train one model, each on its part of every batch, and this one's place among them.

    With one process every method gives back what it is given, and costs nothing.
    """

    rank: int = 0
    world: int = 1
    """W."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of the processes' tensors, which are of one shape; no gradient flows through it."""
        if self.world == 1:
            return x
        x = x.detach().clone()
        _together(lambda: dist.all_reduce(x))
        return x

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        """The rows of all processes ``[N, ...]``, in the order of their ranks, and where this one's ``[n, ...]`` begin.

        The gradient of what all processes make of a row flows back to the one that it is from.
        """
        if self.world == 1:
            return x, 0
        counts = torch.zeros(self.world, dtype=torch.long, device=x.device)
        counts[self.rank] = len(x)
        sizes = self.all_reduce(counts).tolist()
        before = sum(sizes[: self.rank])
        after = sum(sizes) - before - len(x)
        padded = torch.cat([x.new_zeros(before, *x.shape[1:]), x, x.new_zeros(after, *x.shape[1:])])
        return _Sum.apply(padded), before

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter], *flags: bool) -> tuple[bool, ...]:
        """Adds up the processes' gradients, in place; returns whether any process has raised each flag.

        A parameter without a gradient in every process keeps none. One message carries it all.
        """
        if self.world == 1:
            return flags
        known = list(parameters)
        there = torch.tensor([float(p.grad is not None) for p in known] + [float(f) for f in flags])
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in known]
        flat = torch.cat([*parts, there.to(parts[0])])
        _together(lambda: dist.all_reduce(flat))
        *sums, raised = flat.split([p.numel() for p in known] + [len(there)])
        for parameter, part, anywhere in zip(known, sums, raised.tolist(), strict=False):
            parameter.grad = part.view_as(parameter) if anywhere else None
        return tuple(value > 0 for value in raised[len(known) :].tolist())

    def broadcast(self, value: T) -> T:
        """What the first process says, whatever the others say."""
        if self.world == 1:
            return value
        said = [value]
        _together(lambda: dist.broadcast_object_list(said, src=0))
        return said[0]

    def gather_objects(self, value: T) -> list[T]:
        """What every process says, in the order of their ranks."""
        if self.world == 1:
            return [value]
        said: list[Any] = [None] * self.world
        _together(lambda: dist.all_gather_object(said, value))
        return said

    @property
    def key(self) -> tuple[int, ...]:
        """What sets this process's random draws apart from the others'; the first one's are those of one process."""
        return () if self.is_main else (self.rank,)

    def close(self) -> None:
        """Ends the group: what follows, this process does by itself."""
        if self.world > 1:
            dist.destroy_process_group()


SINGLE_PROCESS = Group()
"""A job of one process."""


def is_main_process() -> bool:
    """Whether this process is the first of those that ``torchrun`` started, or was started by itself."""
    # Other launchers set RANK too: it means nothing without a world.
    return _world() == 1 or os.environ["RANK"] == "0"


def is_restarted() -> bool:
    """Whether ``torchrun`` has started this process again (``--max-restarts``), with the arguments of before."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def join(device: torch.device) -> tuple[Group, torch.device]:
    """Joins the processes that ``torchrun`` started; returns them, and this one's device.

    They speak gloo on CPUs and NCCL on GPUs, each process with a GPU of its own.

    Raises:
        RunError: there are fewer GPUs than processes, or the others do not answer.
    """
    if _world() == 1:
        return SINGLE_PROCESS, device
    if device.type == "cuda":
        number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= count:
            raise RunError(f"torchrun started more processes than this machine has GPUs ({count}); start {count}")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    _together(lambda: dist.init_process_group("nccl" if device.type == "cuda" else "gloo"))
    return Group(dist.get_rank(), dist.get_world_size()), device


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        _together(lambda: dist.all_reduce(x))
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        _together(lambda: dist.all_reduce(grad))
        return grad


def _together(act: Callable[[], object]) -> None:
    try:
        act()
    except RuntimeError as error:  # torch's own, whatever the backend
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"another process of this job has ended, or cannot be reached ({reason}); start it again with --resume"
        ) from None
