"""Data-parallel training with ``torch.distributed``: the group of processes and its collective operations."""

# W processes
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gmsa.errors import RunError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes that train one model, each on its share of every batch.

    With one process every method returns its input unchanged.
    """

    rank: int = 0
    """Rank of this process."""
    world: int = 1
    """World size W."""
    hosts: dist.ProcessGroup | None = None
    """What numbers of the hosts are exchanged by; None: by what tensors are."""
    gradients: dist.ProcessGroup | None = None
    """What gradients are summed by while the backward pass may exchange others in another order."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sums tensors of equal shape over all processes; no gradient flows through the sum."""
        if self.world == 1:
            return x
        x = x.detach().clone()
        run_collective(lambda: dist.all_reduce(x))
        return x

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        """Concatenates the rows ``[n, ...]`` of all processes in rank order; differentiable.

        Returns:
            All rows ``[N, ...]``, and the index of this process's first row. The gradient of a row, summed over all
            processes, flows back to the process that it is from.
        """
        if self.world == 1:
            return x, 0
        sizes = [int(n) for n in self.all_reduce_numbers([len(x) * (i == self.rank) for i in range(self.world)])]
        before = sum(sizes[: self.rank])
        after = sum(sizes) - before - len(x)
        padded = torch.cat([x.new_zeros(before, *x.shape[1:]), x, x.new_zeros(after, *x.shape[1:])])
        return _Sum.apply(padded), before

    def all_reduce_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Sums numbers of the hosts over all processes, from host to host: no GPU is waited for."""
        if self.world == 1:
            return [*numbers]
        x = torch.tensor(numbers, dtype=torch.float64)
        run_collective(lambda: dist.all_reduce(x, group=self.hosts))
        return x.tolist()

    def broadcast(self, value: T) -> T:
        """Sends rank 0's value to every process."""
        if self.world == 1:
            return value
        values = [value]
        run_collective(lambda: dist.broadcast_object_list(values, src=0))
        return values[0]

    def gather_objects(self, value: T) -> list[T]:
        """Collects the values of all processes, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        run_collective(lambda: dist.all_gather_object(values, value))
        return values

    @property
    def key(self) -> tuple[int, ...]:
        """Distinguishes this process's random numbers; those of rank 0 are those of a single process."""
        return () if self.is_main else (self.rank,)

    def close(self) -> None:
        """Leaves the process group; no collective operation may follow."""
        if self.world > 1:
            dist.destroy_process_group()


SINGLE_PROCESS = Group()
"""The group of a job with one process."""


def is_main_process() -> bool:
    """Whether this process has rank 0, or was not started by ``torchrun``."""
    # Other launchers set RANK too: it means nothing without WORLD_SIZE.
    return _world() == 1 or os.environ["RANK"] == "0"


def is_restarted() -> bool:
    """Whether ``torchrun`` has restarted this process (``--max-restarts``) with the same arguments."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def join(device: torch.device) -> tuple[Group, torch.device]:
    """Joins the process group that ``torchrun`` started; returns the group and the device of this process.

    The backend is gloo on CPUs and NCCL on GPUs, with one GPU per process.

    Raises:
        RunError: there are fewer GPUs than processes, or the other processes cannot be reached.
    """
    if _world() == 1:
        return SINGLE_PROCESS, device
    if device.type == "cuda":
        number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if int(os.environ.get("LOCAL_WORLD_SIZE", number + 1)) > count:  # all say so, as only the first is heard
            raise RunError(f"torchrun started more processes than this machine has GPUs ({count}); start {count}")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    on_gpu = device.type == "cuda"
    run_collective(lambda: dist.init_process_group("nccl" if on_gpu else "gloo"))
    hosts = run_collective(lambda: dist.new_group(backend="gloo")) if on_gpu else None
    return Group(dist.get_rank(), dist.get_world_size(), hosts, run_collective(dist.new_group)), device


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


class _Sum(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        run_collective(lambda: dist.all_reduce(x))
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        run_collective(lambda: dist.all_reduce(grad))
        return grad


def run_collective(operation: Callable[[], T]) -> T:
    """Runs a collective operation, or waits for one; a lost process is a one-line error."""
    try:
        return operation()
    except RuntimeError as error:  # torch's own, whatever the backend
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"another process of this job has ended, or cannot be reached ({reason}); restart the job with --resume"
        ) from None
