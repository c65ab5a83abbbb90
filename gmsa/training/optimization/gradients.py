"""Sums of gradients over several processes, during the backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gmsa.system.distributed import Group, run_collective

BUCKET = 1 << 20
"""Bytes of gradients from which a message is sent."""


class GradientSum:
    """Sums the gradients of one backward pass over all processes, while the pass still computes others.

    As in DDP, gradients are sent in buckets, the last parameters' first, which the pass computes first. A bucket is
    sent once its gradients, and all buckets before it, are there: every process sends the same messages in the same
    order, also one that has no share of the batch. A parameter that has no gradient in any process keeps none. With one
    process nothing happens.

    Example:
        >>> from gmsa.system.distributed import SINGLE_PROCESS
        >>> layer = nn.Linear(2, 1)
        >>> with GradientSum(layer.parameters(), SINGLE_PROCESS) as sums:
        ...     layer(torch.ones(1, 2)).sum().backward()
        >>> sums.finish(True)  # the gradients are summed, and the flag is true in some process
        (True,)
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: Group) -> None:
        self.group, self.parameters = group, [*parameters] if group.world > 1 else []
        self._buckets = _buckets(self.parameters)
        self._bucket_of = {id(p): number for number, bucket in enumerate(self._buckets) for p in bucket}
        self._open = [len(bucket) for bucket in self._buckets]  # gradients that are not there yet
        self._sent: list[tuple[Tensor, Any]] = []
        self._there: dict[int, bool] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> GradientSum:
        self._hooks = [p.register_post_accumulate_grad_hook(self._is_there) for p in self.parameters]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _is_there(self, parameter: Tensor) -> None:
        self._open[self._bucket_of[id(parameter)]] -= 1
        while len(self._sent) < len(self._buckets) and not self._open[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        self._there |= {id(p): p.grad is not None for p in bucket}
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        work = run_collective(lambda: dist.all_reduce(flat, group=self.group.gradients, async_op=True))
        self._sent.append((flat, work))

    def finish(self, *flags: bool) -> tuple[bool, ...]:
        """Puts the sums in the place of the gradients, after the pass.

        Returns:
            For each flag, whether it is true in any process.
        """
        if self.group.world == 1:
            return flags
        while len(self._sent) < len(self._buckets):
            self._send()
        there = [float(self._there[id(p)]) for p in self.parameters]
        sums = self.group.all_reduce_numbers([*there, *map(float, flags)])
        anywhere = {id(p): n > 0 for p, n in zip(self.parameters, sums, strict=False)}
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            run_collective(work.wait)
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter) if anywhere[id(parameter)] else None
        return tuple(n > 0 for n in sums[len(there) :])


def _buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in messages of one type of numbers each, the last first."""
    found: list[list[nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        if not found or size >= BUCKET or parameter.dtype != found[-1][-1].dtype:
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return found
