"""Prefetches batches onto the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetch(batches: Iterable[T], device: torch.device) -> Iterator[T]:
    """The same batches on ``device``; for a GPU, a thread builds and pins the next one during a training step.

    On a CPU a thread would not help: it would compete with the training step for the interpreter.

    Args:
        batches: objects with ``to`` and ``pin_memory``, or tuples of them and of plain values.
    """
    if device.type != "cuda":
        yield from batches
        return
    iterator = iter(batches)

    def fetch() -> list[T]:
        return [_each(batch, lambda part: part.pin_memory()) for batch in islice(iterator, 1)]

    with ThreadPoolExecutor(1) as thread:
        found = fetch()  # not by the thread: only the main thread that starts workers hears of their signals
        while found:
            ahead = thread.submit(fetch)
            yield _each(found[0], lambda part: part.to(device))
            found = ahead.result()


def _each(batch, change):  # type: ignore[no-untyped-def]
    if hasattr(batch, "pin_memory"):
        return change(batch)
    return tuple(_each(part, change) for part in batch) if type(batch) is tuple else batch
