"""What a library leaves alone of the program that calls it: its script, and torch's settings for the process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def script_not_rerun() -> Iterator[None]:
    """Keeps processes that are started meanwhile from running the user's script again.

    Python's ``spawn`` would import it, to find what it defines: a script without ``if __name__ == "__main__":`` would
    train everything once more in every process. What gmsa's processes do stands in gmsa's own modules.
    """
    main = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(kept)


@contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Gives torch's settings back afterwards: the number of threads, and whether only deterministic operations run."""
    import torch

    from gmsa.system.device import use_deterministic

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only, benchmark = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        use_deterministic(deterministic, warn_only)
        torch.backends.cudnn.benchmark = benchmark
