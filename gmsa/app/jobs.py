"""The queue of videos: one at a time, in a worker process that is replaced when it dies or takes too long."""

from __future__ import annotations

import json
import multiprocessing
import secrets
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any, Literal

from gmsa.app.answers import SEE_TERMINAL, serve
from gmsa.app.options import Options
from gmsa.errors import cut
from gmsa.system.console import console
from gmsa.system.processes import interrupts_held, safe_path, worker_environment

LOADING = 120.0
"""Seconds that a worker may take to start, which do not count as a video's."""
MOST_ANSWER = 64 * 2**20
"""Bytes of an answer."""


@dataclass(eq=False)
class Clip:
    """A video, and how far it is."""

    name: str
    """What its owner calls it: text to show, never a path."""
    path: Path
    state: Literal["coming", "waiting", "running", "done", "failed", "deleted"] = "coming"
    stage: str = "Sending"
    share: float = 0.0
    """Of the work that is done."""
    answers: list[dict[str, Any]] | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(16))


class Jobs:
    """Videos that wait, are answered, or have been.

    Args:
        folder: a private one, where the files are put.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.clips: dict[str, Clip] = {}
        self._waiting: deque[Clip] = deque()
        self._changed = threading.Condition()
        self._worker: _Worker | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Starts to answer."""
        with safe_path(), worker_environment():
            resource_tracker.ensure_running()
        self._thread.start()

    def stop(self) -> None:
        """Ends the worker, and waits for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            if self._worker is not None:
                self._worker.process.kill()
        if self._thread.ident is not None:
            self._thread.join()

    def reserve(self, name: str) -> Clip | None:
        """A new clip, whose file is to be written; None where too many wait."""
        with self._changed:
            if sum(clip.state in ("coming", "waiting") for clip in self.clips.values()) >= self.options.queue:
                return None
            clip = Clip(cut(name) or "video", self.folder / secrets.token_hex(16))
            self.clips[clip.id] = clip
            return clip

    def submit(self, clip: Clip) -> None:
        """Lets a clip whose file is written wait for its turn."""
        with self._changed:
            if clip.state == "coming":
                clip.state = "waiting"
                self._waiting.append(clip)
                self._changed.notify_all()

    def delete(self, clip: Clip) -> None:
        """Removes the file and the answers of a clip; the work on it ends."""
        with self._changed:
            if clip.state == "running" and self._worker is not None:
                self._worker.process.kill()
            if clip in self._waiting:
                self._waiting.remove(clip)
            clip.state, clip.answers = "deleted", None
            self.clips.pop(clip.id, None)
            clip.path.unlink(missing_ok=True)

    def status(self, clip: Clip) -> dict[str, Any]:
        """What the page is told of a clip."""
        with self._changed:
            stage = clip.stage
            if clip.state == "waiting":
                before = self._waiting.index(clip) + (self._worker is not None and self._worker.busy)
                stage = f"Waiting; {before} before this one" if before else "Waiting"
            found = {"id": clip.id, "name": clip.name, "state": clip.state, "stage": stage, "share": clip.share}
            return found if clip.answers is None else found | {"answers": clip.answers}

    def _run(self) -> None:
        try:
            while (clip := self._next()) is not None:
                self._answer(clip)
                self._forget()
        finally:
            self._end_worker()

    def _next(self) -> Clip | None:
        """The next clip; None at the end."""
        with self._changed:
            if self._worker is None and not self._stopped:  # it loads while nothing waits
                self._worker = _Worker(self.options, self.folder / "worker.log")
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if self._stopped or self._worker is None:
                return None
            if (self._worker.process.exitcode or 0) < 0:  # killed while nothing waited, of which no clip is guilty
                self._end_worker()
                self._worker = _Worker(self.options, self.folder / "worker.log")
            clip = self._waiting.popleft()
            clip.state, clip.stage, self._worker.busy = "running", "Loading", True
            return clip

    def _answer(self, clip: Clip) -> None:
        """Has the worker answer a clip, and keeps what it says."""
        worker = self._worker
        assert worker is not None
        message = None
        if worker.is_ready():
            worker.give(clip.path)
            deadline = time.monotonic() + self.options.time
            while (message := worker.hear(deadline)) is not None and "stage" in message:
                with self._changed:
                    clip.stage, clip.share = str(message["stage"]), float(message.get("share", 0.0))
        if message is None:
            message = worker.last_words(self.options)
        elif message.get("memory"):
            message = {"failed": _of_memory(self.options), "ended": True}
        with self._changed:
            worker.busy = False
            if message.get("ended") or clip.state == "deleted":  # `delete` has killed it, perhaps when it was done
                self._end_worker()
            if clip.state == "deleted" or self._stopped:
                return
            clip.share, clip.answers = 1.0, message.get("answers")
            clip.state, clip.stage = ("failed", str(message["failed"])) if "failed" in message else ("done", "Done")
        if "fault" in message:
            console(stderr=True).print(f"gmsa app: {message['fault']}")

    def _forget(self) -> None:
        """Deletes the oldest clips that are ready."""
        ready = [clip for clip in self.clips.copy().values() if clip.state in ("done", "failed")]
        for clip in ready[: -self.options.kept]:
            self.delete(clip)

    def _end_worker(self) -> None:
        with self._changed:
            if self._worker is not None:
                self._worker.end()
            self._worker = None


class _Worker:
    """A worker as its parent sees it."""

    def __init__(self, options: Options, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.busy, self.ready, self.late, self.log = False, False, False, log
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(options, other, log), daemon=True)
        with interrupts_held(), safe_path(), worker_environment():
            self.process.start()
        other.close()

    def is_ready(self) -> bool:
        """Waits until it has loaded; False where it does not come to that."""
        if not self.ready:
            self.ready = self.hear(time.monotonic() + LOADING) is not None
        return self.ready

    def give(self, path: Path) -> None:
        with suppress(OSError):  # where it has died; `hear` says so
            self.pipe.send_bytes(json.dumps(str(path)).encode())

    def hear(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None where it is dead or late."""
        if not connection.wait([self.pipe], max(deadline - time.monotonic(), 0.0)):
            self.late = True
            return None
        try:
            found = json.loads(self.pipe.recv_bytes(MOST_ANSWER), parse_constant=_refuse)
        except (EOFError, OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and isinstance(found.get("share", 0.0), float) else None

    def last_words(self, options: Options) -> dict[str, Any]:
        """What comes of a clip whose worker is dead or late."""
        self.process.join(1.0)
        code, slow = self.process.exitcode, getattr(signal, "SIGXCPU", None)
        if self.late or (slow is not None and code == -slow):
            limit = f"{options.time / 60:g} minutes" if options.time >= 120 else f"{options.time:g} seconds"
            return {
                "failed": f"The analysis took longer than {limit} and was ended; try a shorter clip.",
                "ended": True,
            }
        if code is not None and code > 0:  # by an exception, of which its log tells
            return {"failed": SEE_TERMINAL, "fault": _last_line(self.log), "ended": True}
        return {"failed": _of_memory(options), "ended": True}

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _refuse(name: str) -> None:
    """Refuses NaN and the infinities, which the page could not be told."""
    raise ValueError(name)


def _of_memory(options: Options) -> str:
    return (
        f"The analysis was ended, most likely because memory ran out (it may use {options.memory / 2**30:g} GiB); "
        "try a shorter or smaller clip."
    )


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    return next((line for line in reversed(lines) if line.strip()), "the worker ended")
