"""The worker process of the page: it makes answers, within limits, and tells its parent in JSON.

What it reads may be a stranger's, so its parent takes no pickles from it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from gmsa.app.options import Options
from gmsa.errors import GmsaError
from gmsa.registry import load_plugins
from gmsa.system.faults import describe_fault
from gmsa.system.processes import end_with_parent, speak_into

_PATH = re.compile(r"'(?:/|…|[A-Za-z]:\\)[^']*'|(?<![\w/.:])/[^\s'\";:,()]+")
"""A path in a message: in quotes, or from a slash on."""
SEE_TERMINAL = "The video could not be analyzed; the terminal in which gmsa app runs says why."
_MEMORY = ("memory", "bad_alloc", "cannot allocate")


def serve(options: Options, pipe: Any, log: Path) -> None:
    """Runs a worker: says that it is ready, takes paths as JSON, and sends what it does and what comes of each."""
    end_with_parent()
    speak_into(log)  # the libraries that read videos chatter
    _limit_memory(options.memory)
    load_plugins(options.plugins)
    with suppress(Exception):  # so that the first video need not wait for it; `answer_one` tells what is wrong
        function_of(options.answer)

    def say(stage: str, share: float) -> None:
        _send(pipe, {"stage": str(stage), "share": min(max(float(share), 0.0), 1.0)})

    _send(pipe, {"ready": True})
    while True:
        try:
            path = Path(json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):
            return
        _limit_time(options.time)
        _send(pipe, answer_one(options, path, say))


def answer_one(options: Options, path: Path, say: Callable[[str, float], None]) -> dict[str, Any]:
    """What comes of one video.

    Returns:
        ``answers``, or ``failed``, a sentence for the page; then ``fault``, a line for the terminal, where the file is
        not to blame; and ``memory``, where that ran out, so that the process is of no more use.
    """
    from gmsa.media.types import MediaError

    try:
        say("Reading the file", 0.0)
        check_file(options, path)
        found = function_of(options.answer)(options.runs, path, say)
        answers = plain(found["answers"])
        for one, name in zip(answers, options.names, strict=False):
            one["run"] = name  # that of its folder alone may be another run's, too
        return {"answers": answers}
    except MediaError as error:
        return {"failed": without_paths(str(error), path)}
    except GmsaError as error:
        return {"failed": without_paths(str(error), path), "fault": str(error)}
    except BaseException as error:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _MEMORY):
            return {"failed": "memory", "memory": True}
        return {
            "failed": SEE_TERMINAL,
            "fault": describe_fault(error),
        }


def check_file(options: Options, path: Path) -> None:
    """Refuses a file that is no video or sound, or over a limit.

    Raises:
        MediaError: it is.
        ConfigError: PyAV is not installed.
    """
    from gmsa.media.decoding import decode

    decode.probe(path, decode.Limits(options.seconds, options.pixels))


def function_of(name: str) -> Callable[..., dict[str, Any]]:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    found: Callable[..., dict[str, Any]] = getattr(import_module(module), function)
    return found


def plain(value: Any) -> Any:
    """A value of which JSON can be made: numbers that are not finite become None, those of NumPy are Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def without_paths(text: str, path: Path) -> str:
    """A message without paths of this machine, as the page shows it; ``path``, the video's, becomes "this file"."""
    for own in (f"'{path}'", str(path), path.name):
        text = text.replace(own, "this file")
    text = _PATH.sub("a file of this machine", text)
    return f"{text[:1].upper()}{text[1:]}"


def _send(pipe: Any, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message, allow_nan=False).encode())


def _limit_memory(most: int) -> None:
    if sys.platform == "win32":  # has no such limits
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the video


def _limit_time(seconds: float) -> None:
    """Lets this process use as many more seconds of a processor; then the system ends it."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))
