"""Loads training batches onto the device; they are built in this process or by worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gmsa.registry import load_plugins, loaded_plugins
from gmsa.training.batches import Shard
from gmsa.training.prefetch import prefetch
from gmsa.training.tasks import Task

_LAST_SECONDS = 10
"""Seconds that a worker lives on after SIGTERM."""


def load_batches(
    task: Task, key: tuple[int | str, ...], shard: Shard, workers: int, device: torch.device
) -> Iterator[Any]:
    """The batches of ``task.batches(*key, shard=shard)`` on ``device``, the same with any number of workers.

    Worker processes help where building a batch takes longer than a training step, as on a GPU; with none, the batches
    for a GPU are built by a thread.
    """
    if not workers:
        yield from prefetch(task.batches(*key, shard=shard), device)
        return
    loader = DataLoader(
        _Batches(task, key, shard),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=partial(_start_worker, plugins=loaded_plugins()),
        generator=torch.Generator(),  # else it would draw from what dropout draws from
    )
    yield from prefetch(loader, device)


def _start_worker(worker: int, plugins: tuple[str, ...]) -> None:
    leave_signals_to_parent(worker)
    load_plugins(plugins)  # a process that is spawned, not forked, has imported none


def leave_signals_to_parent(worker: int) -> None:
    """Lets a worker ignore the signals that its parent handles."""
    # Ctrl-C reaches all processes of a terminal, SIGTERM those of a cluster's job, and the parent still needs the
    # batches of the step at hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows, where a process cannot handle SIGTERM
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_LAST_SECONDS))


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass
class _Batches(IterableDataset[Any]):
    """The batches of one worker: every n-th of n workers, which the loader takes in turn."""

    task: Task
    key: tuple[int | str, ...]
    shard: Shard

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        yield from self.task.batches(*self.key, shard=replace(self.shard, every=info.num_workers, offset=info.id))
