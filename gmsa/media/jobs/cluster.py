"""Extraction on many machines by Dask (the extra ``cluster``): its workers share the cache's folder."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gmsa.errors import ConfigError, GmsaError, RunError, cut
from gmsa.media.jobs.workers import Done, Task, Work, end_workers, run_tasks
from gmsa.system.packages import load_package
from gmsa.system.processes import children_allowed

AHEAD = 4
"""Tasks that are handed over at a time, for each worker."""
PATIENCE = 30
"""Seconds to wait for the scheduler."""
LOG = "cluster.log"
"""File of the cache's folder into which the processes beside Dask's workers speak."""
_one_at_a_time = threading.Lock()
_running: dict[Work, dict[Any, Any]] = {}
"""The process of this worker, as :func:`~gmsa.media.jobs.workers.run_tasks` keeps it, by what it works on."""


def run_on_cluster(work: Work, tasks: Iterable[Task], address: str) -> Iterator[Done]:
    """Gives tasks to the workers of a Dask scheduler, and yields what comes of each, in the order in which they end.

    A clip that takes too long, or ends its process twice, is skipped as without a cluster. A task whose machine is lost
    is given out again by Dask, up to three times.

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
                failure = future.exception()
                if isinstance(failure, GmsaError):
                    raise type(failure)(f"a worker of the cluster: {failure}")
                yield Done(task, reason=f"failed on a worker of the cluster ({cut(failure)})")
                continue
            yield future.result()._replace(task=task)
    except distributed.comm.CommClosedError as error:
        raise RunError(
            f"--cluster {cut(address)}: the scheduler is gone ({cut(error)}); run the command again"
        ) from None
    finally:
        client.close()


def answer_on_worker(work: Work, task: Task) -> Done:
    """Does a task in a process beside that of Dask's worker, which is ended where the task takes too long.

    The process keeps the models for the next task. What it says goes into the cache's folder, which is the one that all
    machines have.

    Raises:
        ConfigError: a package or weights are absent here.
    """
    own = replace(work, log=work.cache / LOG)
    with _one_at_a_time, children_allowed():  # a worker may have several threads
        for other in [known for known in _running if known != own]:  # of another command
            end_workers(_running.pop(other))
        (done,) = run_tasks(own, [task], 1, _running.setdefault(own, {}))
    return done
