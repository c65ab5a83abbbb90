"""Extraction on many machines by Dask (the extra ``cluster``): its workers share the cache's folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from gmsa.errors import ConfigError, RunError, cut
from gmsa.media.jobs.workers import Done, Task, Work, make_answer
from gmsa.system.packages import load_package

AHEAD = 4
"""Tasks that are handed over at a time, for each worker."""
PATIENCE = 30
"""Seconds to wait for the scheduler."""
_one_at_a_time = threading.Lock()


def run_on_cluster(work: Work, tasks: Iterable[Task], address: str) -> Iterator[Done]:
    """Gives tasks to the workers of a Dask scheduler, and yields what comes of each, in the order in which they end.

    A task whose worker dies is given out again by Dask, up to three times.

    Args:
        address: of the scheduler, as ``tcp://127.0.0.1:8786``.

    Raises:
        ConfigError: there is no scheduler or no worker, or a worker lacks weights or a package.
    """
    distributed = load_package("distributed", "--cluster", "cluster")
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"--cluster {cut(address)}: no Dask scheduler answers ({cut(error)}); start one, or correct it"
        ) from None
    try:
        workers = len(client.scheduler_info()["workers"])
        if not workers:
            raise ConfigError(
                f"--cluster {cut(address)}: the scheduler has no workers; start some (dask worker {cut(address)})"
            )
        waiting = iter(tasks)
        running: dict[Any, Task] = {}
        found = distributed.as_completed(loop=client.loop)  # without it, of the default client, which this is not

        def hand_over() -> None:
            task = next(waiting, None)
            if task is not None:
                future = client.submit(answer_on_worker, work, task, pure=False, retries=2)
                running[future.key] = task
                found.add(future)

        for _ in range(AHEAD * workers):
            hand_over()
        while running:
            future = next(found)
            task = running.pop(future.key)
            hand_over()
            if future.status != "finished":
                yield Done(task, reason=f"failed on a worker of the cluster ({cut(future.exception())})")
                continue
            kind, value = future.result()
            if kind == "fatal":
                raise ConfigError(f"a worker of the cluster: {value}")
            yield Done(task, value) if kind == "ok" else Done(task, reason=value)
    except distributed.comm.CommClosedError as error:
        raise RunError(
            f"--cluster {cut(address)}: the scheduler is gone ({cut(error)}); run the command again"
        ) from None
    finally:
        client.close()


def answer_on_worker(work: Work, task: Task) -> tuple[str, Any]:
    """Answers a task in a worker's process, which keeps the models for the next one."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with _one_at_a_time:  # a worker may have several threads, a model has one user
        return _answer_of(work)(task)


@lru_cache(maxsize=1)
def _answer_of(work: Work) -> Callable[[Task], tuple[str, Any]]:
    return make_answer(work)
