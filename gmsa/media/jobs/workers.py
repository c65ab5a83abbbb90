"""Worker processes of the extraction: each has the models once, and takes one task at a time."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from gmsa.errors import ConfigError, GmsaError, RunError
from gmsa.media.clips import Clip
from gmsa.media.settings import ExtractConfig
from gmsa.registry import load_plugins
from gmsa.system.faults import describe_fault
from gmsa.system.processes import end_with_parent, interrupts_held, safe_path, speak_into, worker_environment

TRIES = 2
"""How often a clip may end its worker."""
FIRST = 120.0
"""Seconds more that the first task of a worker may take: it loads the models."""
LOG = "extract.log"


class Task(NamedTuple):
    """A clip to extract, or a file to look at."""

    number: int
    clip: Clip
    look: bool = False
    """Whether its length is asked for, and where it is cut, instead of its features."""
    seconds: float = 0.0
    """Of the clip, as far as they are known."""


class Done(NamedTuple):
    """What came of a task."""

    task: Task
    result: Any = None
    """Seconds and pieces of a file, or seconds, missing modalities and warnings of a clip."""
    reason: str = ""
    """Why it is skipped."""


@dataclass(frozen=True)
class Work:
    """What every worker needs."""

    settings: ExtractConfig
    cache: Path
    log: Path
    plugins: tuple[str, ...] = ()
    download: bool = False


def run_tasks(
    work: Work, tasks: Iterable[Task], workers: int, running: dict[Any, _Worker] | None = None
) -> Iterator[Done]:
    """Gives tasks to workers, and yields what comes of each, in the order in which they end.

    A worker that dies, or takes too long, is replaced; its clip is given out once more, and then skipped.

    Args:
        running: keeps the workers for further calls, until :func:`end_workers`; without it they end with this one.

    Raises:
        ConfigError: a package or weights are absent, which every clip would meet.
        RunError: workers die without taking a task.
    """
    waiting = deque(tasks)
    tries: dict[int, int] = {}
    deaths = 0
    kept, running = running is not None, {} if running is None else running
    for key in [key for key, worker in running.items() if not worker.process.is_alive()]:
        running.pop(key).end()  # while it had nothing to do: that is no clip's fault
    with safe_path(), worker_environment():
        resource_tracker.ensure_running()
    try:
        while waiting or any(worker.task for worker in running.values()):
            while waiting and len(running) < workers:
                worker = _Worker(work)
                running[worker.process.sentinel] = worker
            for worker in running.values():
                if waiting and worker.task is None:
                    worker.give(waiting.popleft())
            ready = connection.wait([*running, *(w.pipe for w in running.values())], timeout=0.5)
            for worker in list(running.values()):
                task, answer = worker.task, None
                if worker.pipe in ready:
                    answer = worker.answer()
                if answer is not None and task is not None:
                    worker.task, deaths = None, 0
                    kind, value = answer
                    if kind == "fatal":
                        raise ConfigError(value)
                    yield Done(task, value) if kind == "ok" else Done(task, reason=value)
                    continue
                late = worker.is_late(work.settings.limits.clip_seconds_per_second)
                if late or worker.pipe in ready or worker.process.sentinel in ready:
                    worker.end()
                    del running[worker.process.sentinel]
                    deaths += 1
                    if task is None:
                        if deaths > TRIES * workers:
                            raise RunError(f"workers end as soon as they start; see '{work.log}'")
                        continue
                    tries[task.number] = tries.get(task.number, 0) + 1
                    if tries[task.number] < TRIES and not late:
                        waiting.appendleft(task)
                    elif late:
                        yield Done(task, reason="took too long, and was ended; raise limits.clip_seconds_per_second")
                    else:
                        yield Done(task, reason=f"killed its worker twice (memory?); see '{work.log}'")
    finally:
        if not kept or any(worker.task for worker in running.values()):
            end_workers(running)


def end_workers(running: dict[Any, _Worker]) -> None:
    """Ends workers that were kept."""
    for worker in running.values():
        worker.end()
    running.clear()


class _Worker:
    """A worker as its parent sees it."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process: SpawnProcess = context.Process(target=serve, args=(work, other), daemon=True)
        self.task: Task | None = None
        self.given, self.fresh = 0.0, True
        with interrupts_held(), safe_path(), worker_environment():
            self.process.start()
        other.close()

    def give(self, task: Task) -> None:
        self.task, self.given = task, time.monotonic()
        with suppress(OSError):  # where it has died; its sentinel says so
            self.pipe.send(task)

    def answer(self) -> tuple[str, Any] | None:
        """What it says; None where it is dead."""
        try:
            found: tuple[str, Any] = self.pipe.recv()
        except (EOFError, OSError):
            return None
        self.fresh = False
        return found

    def is_late(self, per_second: float) -> bool:
        if self.task is None:
            return False
        return time.monotonic() - self.given > per_second * (1 + self.task.seconds) + FIRST * self.fresh

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(work: Work, pipe: Any) -> None:
    """Runs a worker in its process: takes tasks until its parent is gone."""
    end_with_parent()
    speak_into(work.log)
    answer = make_answer(work)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(answer(task))


def make_answer(work: Work) -> Callable[[Task], tuple[str, Any]]:
    """The function that answers tasks, with the models of its process."""
    from gmsa.media.cache import Cache
    from gmsa.media.pipeline import Pipeline
    from gmsa.media.types import MediaError

    load_plugins(work.plugins)
    pipeline = Pipeline(work.settings, Cache(work.cache), work.download)

    def answer(task: Task) -> tuple[str, Any]:
        try:
            if task.look:
                return "ok", pipeline.look(task.clip.path)
            found = pipeline(task.clip)
            return "ok", (found.duration, found.missing, found.warnings)
        except MediaError as error:
            return "skipped", str(error)
        except ConfigError as error:
            return "fatal", str(error)
        except GmsaError as error:
            return "skipped", str(error)
        except MemoryError:
            return "skipped", "needs more memory than there is; cut the clip"
        except Exception as error:
            return "skipped", describe_fault(error)

    return answer
