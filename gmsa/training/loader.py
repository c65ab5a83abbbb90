"""Loads training batches onto the device; they are built in this process or by worker processes."""

from __future__ import annotations

import errno
import gc
import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gmsa.errors import GmsaError, RunError
from gmsa.registry import load_plugins, loaded_plugins
from gmsa.system.processes import safe_path
from gmsa.training.batches import Shard
from gmsa.training.prefetch import prefetch
from gmsa.training.tasks import Task

_LAST_SECONDS = 10
"""Seconds that a worker lives on after SIGTERM."""
_SIMPLE = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
"""Types of numbers that numpy has too."""
_PATIENCE = 7
"""Seconds that the next batch is waited for once training is asked to stop."""


def load_batches(
    task: Task,
    key: tuple[int | str, ...],
    shard: Shard,
    workers: int,
    device: torch.device,
    stopping: Callable[[], bool] = lambda: False,
) -> Generator[Any, None, None]:
    """The batches of ``task.batches(*key, shard=shard)`` on ``device``, the same with any number of workers.

    Worker processes help where building a batch takes longer than a training step, as on a GPU; with none, the batches
    for a GPU are built by a thread. They end when the generator is closed.

    Args:
        stopping: whether training is asked to stop. The batches then end early where workers take long, or are stopped.

    Raises:
        RunError: a worker was killed, or the system cannot open so many files.
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
    yield from prefetch(_received(loader, workers, stopping), device)


def _received(loader: DataLoader[Any], workers: int, stopping: Callable[[], bool]) -> Iterator[Any]:
    """What the workers build; none is left when it ends, not even a stopped one."""
    started: list[BaseProcess] = []
    ended = threading.Event()
    try:
        batches = _start(loader, started)
        threading.Thread(target=_kill_after_stop, args=(started, stopping, ended), daemon=True).start()
        for batch in batches:
            received = pickle.loads(batch)
            if isinstance(received, GmsaError):
                raise received
            yield received
    except GmsaError:
        raise
    except Exception as error:
        connection.wait([worker.sentinel for worker in started], timeout=1)  # its socket may end before it does
        killed = [worker.exitcode for worker in started if worker.exitcode]
        if not (killed and stopping()):
            raise _explained(error, killed, workers) from None
    finally:
        ended.set()
        batches = None  # lets the workers end
        for worker in started:
            worker.kill()  # SIGTERM would not reach one that is stopped
            worker.join()


def _start(loader: DataLoader[Any], started: list[BaseProcess]) -> Any:
    """Starts the workers, and adds them to ``started``, also where not all can be."""
    _try_to_open(4 + 5 * loader.num_workers)
    others = multiprocessing.active_children()
    handled = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if handled else None
    gc.collect()
    gc.freeze()  # a forked worker that collected what is left of the GPU would abort
    try:
        with safe_path():  # where they are not forked
            return iter(loader)
    finally:
        gc.unfreeze()
        started += [worker for worker in multiprocessing.active_children() if worker not in others]
        if handler is not None:
            # torch's would raise the error of a killed worker wherever training is, in the middle of a write too.
            signal.signal(signal.SIGCHLD, handler)


def _try_to_open(count: int) -> None:
    """Raises the system's error unless ``count`` more files can be open; torch's workers would half start."""
    with ExitStack() as opened:
        for _ in range(count):
            opened.enter_context(open(os.devnull, "rb"))


def _kill_after_stop(workers: list[BaseProcess], stopping: Callable[[], bool], ended: threading.Event) -> None:
    """Kills workers that training still waits for a while after it was asked to stop: one may be stopped itself."""
    while not ended.wait(0.5):
        if stopping() and not ended.wait(_PATIENCE):
            for worker in workers:
                worker.kill()


def _explained(error: Exception, killed: list[int], workers: int) -> Exception:
    """What happened to the workers, and what to do; any other error as it is."""
    few = f"fewer than {workers} 'run.workers'" if workers > 1 else "'run.workers' 0"
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "open files" in str(error):
        return RunError(
            f"too many files are open for {workers} workers{_limit()}; raise the limit (ulimit -n), or set {few}, and "
            "go on with --resume"
        )
    if not killed:
        return error
    number = -killed[0]
    if hasattr(signal, "SIGALRM") and number == signal.SIGALRM:  # how a worker obeys SIGTERM
        number = signal.SIGTERM
    how = f"was killed by {signal.Signals(number).name}" if number > 0 else f"ended with exit code {-number}"
    why = ", as where memory runs out" if number == getattr(signal, "SIGKILL", None) else ""
    return RunError(
        f"a worker that builds batches {how}{why}; what was saved is kept: go on with --resume, with {few} or more "
        "memory"
    )


def _limit() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    return f" (this process may open {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"


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
        shard = replace(self.shard, every=info.num_workers, offset=info.id)
        try:
            for batch in self.task.batches(*self.key, shard=shard):
                yield _packed(batch)
        except GmsaError as error:  # torch would put a traceback into its message
            yield _packed(error)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Packs plain tensors as arrays, which is fast."""
        if type(value) is torch.Tensor and value.is_contiguous() and value.dtype in _SIMPLE:
            return _tensor, (value.numpy(),)
        return NotImplemented


def _packed(value: Any) -> bytes:
    """A batch as bytes. torch would send an open file per tensor, and a worker that runs out of them hangs."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).clone()  # aligned as torch's own are: sums may depend on it
