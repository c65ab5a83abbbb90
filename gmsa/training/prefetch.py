"""Prefetches batches onto the device."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
QUIET = threading.Lock()
"""Held while a batch is sent to a GPU, and while a step is recorded there, so that neither happens during the other."""
BURST = 4
"""Batches that a CPU builds in a row: the first of them finds its caches filled by a training step, the others find
their own code there and take about half as long."""
_ALIGNED = 128
"""Bytes of whose multiples each tensor in a buffer begins at one."""


def prefetch(batches: Iterable[T], device: torch.device, burst: int = BURST) -> Iterator[T]:
    """The same batches on ``device``; for a GPU, a thread builds and sends the next one during a training step.

    A batch is one copy, on a stream of its own. On a CPU a thread would not help: it would compete with the training
    step for the interpreter. There ``burst`` batches are built in a row.

    Args:
        batches: objects with ``map`` (:meth:`gmsa.graph.GraphBatch.map`), or tuples of them and of plain values.
        burst: 1 where other processes build the batches.
    """
    if device.type != "cuda":
        yield from _in_bursts(iter(batches), burst)
        return
    iterator, stream = iter(batches), torch.cuda.Stream(device)

    def fetch() -> list[tuple[Flat, Tensor, torch.cuda.Event]]:
        found = []
        for batch in islice(iterator, 1):
            with QUIET:
                flat, event = Flat(batch, pinned=True), torch.cuda.Event()
                with torch.cuda.stream(stream):
                    buffer = flat.buffer.to(device, non_blocking=True)
                    event.record(stream)
            found.append((flat, buffer, event))
        return found

    with ThreadPoolExecutor(1) as thread:
        found = fetch()  # not by the thread: only the main thread that starts workers hears of their signals
        while found:
            ahead = thread.submit(fetch)
            ((flat, buffer, event),) = found
            current = torch.cuda.current_stream(device)
            current.wait_event(event)
            buffer.record_stream(current)  # whose memory is not given away before the step is done
            yield flat.on(buffer)
            found = ahead.result()


def _in_bursts(batches: Iterator[T], burst: int) -> Iterator[T]:
    """The same batches, so many of them built in a row."""
    built: deque[T] = deque()
    failed, whole = None, True
    while failed is None and whole:
        try:
            built.extend(islice(batches, burst))
        except Exception as error:  # what was built before comes first
            failed = error
        whole = len(built) == burst
        while built:
            yield built.popleft()  # none is kept that is done with
    if failed is not None:
        try:
            raise failed
        finally:
            del failed  # else this frame and the error would keep each other, and what could not be built


class Flat:
    """A batch whose tensors lie in one buffer of bytes, so that it is sent by one copy.

    Args:
        batch: as :func:`prefetch` takes it.
        pinned: whether the buffer is page-locked, so that the copy to a GPU is asynchronous.

    Example:
        >>> from gmsa.data import Utterance
        >>> from gmsa.graph import GraphSpec, collate
        >>> clip = Utterance("video$_$1", {"text": torch.randn(5, 6)})
        >>> flat = Flat(collate([clip], GraphSpec(convs={"text": [(3, 1)]})))
        >>> flat.on(flat.buffer.clone()).features["text"].shape
        torch.Size([5, 6])
    """

    def __init__(self, batch: Any, pinned: bool = False) -> None:
        self.batch = batch
        tensors = tensors_of(batch)
        self._begins: list[int] = []
        size = 0
        for tensor in tensors:
            self._begins.append(size)
            size += -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED
        self.buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        for begin, tensor in zip(self._begins, tensors, strict=True):
            _view(self.buffer, begin, tensor).copy_(tensor)

    def on(self, buffer: Tensor) -> Any:
        """The batch with tensors in a copy of the buffer."""
        begins = iter(self._begins)
        return _each(self.batch, lambda tensor: _view(buffer, next(begins), tensor))


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch, always in the same order."""
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _each(batch, keep)
    return tensors


def _view(buffer: Tensor, begin: int, like: Tensor) -> Tensor:
    return buffer[begin : begin + like.numel() * like.element_size()].view(like.dtype).view(like.shape)


def _each(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if hasattr(batch, "map"):
        return batch.map(change)
    return tuple(_each(part, change) for part in batch) if type(batch) is tuple else batch
