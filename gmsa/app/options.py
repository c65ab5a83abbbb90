"""What the page answers with, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What the page answers with, and its limits; all that the worker process is told."""

    runs: tuple[Path, ...]
    """Folders of the runs, compared side by side."""
    plugins: tuple[str, ...] = ()
    """Modules that register parts of these runs, which the worker imports, too."""
    answer: str = "gmsa.runs.video:answer"
    """The function that answers, as ``module:function``: ``(run folders, path, say) -> {"answers": [one per run]}``.
    It calls ``say(what it does, share that is done)``, and keeps its models for the next call."""
    limit: int = 200 * 2**20
    """Bytes of a file."""
    seconds: float = 600.0
    """Of a video."""
    pixels: int = 33_177_600
    """Of a frame; 8K has as many."""
    memory: int = 8 * 2**30
    """Bytes that the worker may address."""
    time: float = 1800.0
    """Seconds for an upload; and for an answer, by the clock and of a processor."""
    queue: int = 8
    """Videos that may wait or be uploaded at a time."""
    kept: int = 8
    """Videos that stay with their answers; the oldest are deleted."""

    @property
    def names(self) -> list[str]:
        """What the runs are called: the names of their folders, with as many parents as tell them apart."""
        paths = [path.absolute().parts for path in self.runs]
        longest = max(map(len, paths), default=0)
        for length in range(1, longest + 1):
            names = ["/".join(parts[-length:]) for parts in paths]
            if len({*names}) == len({*paths}):
                return names
        return []
