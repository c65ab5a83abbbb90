"""Processes that are killed: what the tests of resumption share."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sklearn.metrics  # noqa: F401  here, so that the forks need not
import torch

from gmsa.config import Config
from gmsa.runs.train import train


def forked(act: Callable[[], object], environ: dict[str, str] | None = None) -> int:
    """Starts a process that acts and ends; returns its number. A fork needs no import, so many are cheap."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.environ.update(environ or {})
        torch.set_num_threads(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        act()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def together(count: int, act: Callable[[], object]) -> list[int]:
    """Starts ``count`` processes as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [forked(act, shared | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(count)]


def ended(number: int) -> int:
    """Waits for a process; its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def run_once(config: Config, folder: Path) -> None:
    """Trains, or resumes a killed run."""
    train(config, "tiny", folder, resume=(folder / "config.yaml").exists())


def killed_until_done(config: Config, folder: Path, kills: int, seed: int, seconds: float) -> tuple[int, int]:
    """Trains with SIGKILLs on the way, every fourth in a write; returns how many there were, and how many in writes.

    Args:
        seconds: about what a whole run takes.
    """
    rng = random.Random(seed)
    done = inside = 0
    while done < kills:
        in_write = done % 4 == 3
        if in_write:
            point = rng.randrange(24)
            child = forked(lambda point=point: (die_in_write(point), run_once(config, folder)))
        else:
            child = forked(lambda: run_once(config, folder))
            time.sleep(rng.uniform(0.0, seconds))
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == 0:  # it was done before; from the beginning, then
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            continue
        assert code == -signal.SIGKILL
        done, inside = done + 1, inside + in_write
    assert ended(forked(lambda: run_once(config, folder))) == 0
    return done, inside


def die_in_write(point: int) -> None:
    """Lets this process kill itself at the ``point``-th step of its atomic writes: before a flush or a rename."""
    count = iter(range(point + 1))

    def before(act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments: Any) -> Any:
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments)

        return acting

    os.fsync, os.replace = before(os.fsync), before(os.replace)


def left(folder: Path) -> dict[str, bytes]:
    """What a run leaves of every seed, to the bit: weights, predictions, pseudo-labels."""
    names = ("*.safetensors", "predictions.csv", "pseudo_labels.csv")
    return {str(p.relative_to(folder)): p.read_bytes() for name in names for p in sorted(folder.glob(f"seed-*/{name}"))}
