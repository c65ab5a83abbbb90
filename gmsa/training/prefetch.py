"""Batches that are on the device when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetch(batches: Iterable[T], device: torch.device) -> Iterator[T]:
    """The same batches on ``device``; for a GPU, each is built and pinned in a thread while the one before is used.

    On a CPU a thread hides the work but does not shorten the step: it takes the interpreter's time from the forward
    pass.

    Args:
        batches: objects with ``to`` and ``pin_memory``, or tuples of them and of plain values.
    """
    if device.type != "cuda":
        yield from batches
        return
    iterator = iter(batches)

    def load() -> list[T]:
        return [_each(batch, lambda part: part.pin_memory()) for batch in islice(iterator, 1)]

    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(load)
        while found := ahead.result():
            ahead = thread.submit(load)
            yield _each(found[0], lambda part: part.to(device))


def _each(batch, change):  # type: ignore[no-untyped-def]
    if hasattr(batch, "pin_memory"):
        return change(batch)
    return tuple(_each(part, change) for part in batch) if type(batch) is tuple else batch
