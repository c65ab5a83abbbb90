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
from gmsa.training.prefetch import BURST, prefetch
from gmsa.training.tasks import Task

_LAST_SECONDS = 10
"""Seconds that a worker lives on after SIGTERM."""
_SIMPLE = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
"""Types of numbers that numpy has too."""
_PATIENCE = 7
"""Seconds that the next batch is waited for once training is asked to stop."""


class BatchLoader:
    """Loads the batches of epochs onto a device, the same with any number of workers.

    Worker processes help where building a batch takes longer than a training step, as on a GPU; with none, the batches
    for a GPU are built by a thread. They are started with the first epoch and live, with what they keep of the data,
    until :meth:`close`.

    Args:
        task: says by ``batches(*key, shard=shard)`` what an epoch has.
        workers: how many processes.
        device: of the batches.
        stopping: whether training is asked to stop. The batches then end early where workers take long, or are stopped.
    """

    def __init__(
        self, task: Task, workers: int, device: torch.device, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.task, self.workers, self.device, self.stopping = task, workers, device, stopping
        self._loader: DataLoader[Any] | None = None
        self._asked: _Batches | None = None
        self._started: list[BaseProcess] = []
        self._ended = threading.Event()

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def epoch(self, *key: int | str, shard: Shard) -> Generator[Any, None, None]:
        """The batches of an epoch, or of a shard of it. Of one that is not read to its end the workers end.

        Raises:
            RunError: a worker was killed, or the system cannot open so many files.
        """
        batches = self._received(key, shard) if self.workers else self.task.batches(*key, shard=shard)
        yield from prefetch(batches, self.device, 1 if self.workers else BURST)

    def close(self) -> None:
        """Ends the workers; none is left, not even a stopped one."""
        self._ended.set()
        self._loader = self._asked = None  # lets them end
        for worker in self._started:
            worker.kill()  # SIGTERM would not reach one that is stopped
            worker.join()
        self._started = []

    def _received(self, key: tuple[int | str, ...], shard: Shard) -> Iterator[Any]:
        """What the workers build."""
        whole = False
        try:
            for batch in self._begin(key, shard):
                received = pickle.loads(batch)
                if isinstance(received, GmsaError):
                    raise received
                yield received
            whole = True
        except GmsaError:
            raise
        except Exception as error:
            # Its socket may end before it does.
            connection.wait([worker.sentinel for worker in self._started], timeout=1)
            killed = [worker.exitcode for worker in self._started if worker.exitcode]
            if not (killed and self.stopping()):
                raise _explained(error, killed, self.workers) from None
        finally:
            if not whole:
                self.close()

    def _begin(self, key: tuple[int | str, ...], shard: Shard) -> Any:
        """Asks the workers for an epoch, and starts them for the first one."""
        if self._loader is not None and self._asked is not None and self._asked.ask(key, shard):
            return iter(self._loader)
        self.close()
        self._asked, self._ended = _Batches(self.task, key, shard), threading.Event()
        self._loader = DataLoader(
            self._asked,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            persistent_workers=True,
            worker_init_fn=partial(_start_worker, plugins=loaded_plugins()),
            generator=torch.Generator(),  # else it would draw from what dropout draws from
        )
        batches = _start(self._loader, self._started)
        threading.Thread(target=_kill_after_stop, args=(self._started, self.stopping, self._ended), daemon=True).start()
        return batches


def load_batches(
    task: Task, key: tuple[int | str, ...], shard: Shard, workers: int, device: torch.device
) -> Generator[Any, None, None]:
    """The batches of one epoch alone, as a :class:`BatchLoader` gives them."""
    with BatchLoader(task, workers, device) as loader:
        yield from loader.epoch(*key, shard=shard)


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


class _Batches(IterableDataset[Any]):
    """The batches of one worker: every n-th of n workers, which the loader takes in turn.

    Which epoch and shard is asked for lies in memory that this process shares with them.
    """

    def __init__(self, task: Task, key: tuple[int | str, ...], shard: Shard) -> None:
        self.task, self.words = task, [part if isinstance(part, str) else None for part in key]
        self.numbers = multiprocessing.RawArray("q", len(_numbers(key, shard)))
        self.ask(key, shard)

    def ask(self, key: tuple[int | str, ...], shard: Shard) -> bool:
        """Asks for another epoch; False where its key has other words than that of the first, which no worker hears."""
        if [part if isinstance(part, str) else None for part in key] != self.words:
            return False
        self.numbers[:] = _numbers(key, shard)
        return True

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        *numbers, skip, rank, world = self.numbers
        left = iter(numbers)
        key = [next(left) if word is None else word for word in self.words]
        shard = Shard(skip, info.num_workers, info.id, rank, world)
        try:
            for batch in self.task.batches(*key, shard=shard):
                yield _packed(batch)
        except GmsaError as error:  # torch would put a traceback into its message
            yield _packed(error)


def _numbers(key: tuple[int | str, ...], shard: Shard) -> list[int]:
    return [*(part for part in key if not isinstance(part, str)), shard.skip, shard.rank, shard.world]


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
