"""The kernels that a training step would launch on a GPU, counted on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gmsa.nn.dropout import Dropout
from helpers.sync_lint import take_cuda_paths

FREE = (
    *("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided"),  # memory alone
    *("detach", "alias", "_unsafe_view", "_reshape_alias", "is_same_size"),  # views, and what the host knows
    *("scalar_tensor", "_record_function_enter_new", "_record_function_exit"),  # of the host
)


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and name not in FREE:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def kernels() -> Iterator[Counter[str]]:
    """The operations within that compute something, by name: a GPU launches about one kernel for each."""
    with pytest.MonkeyPatch.context() as patch, _Kernels() as mode:
        take_cuda_paths(patch)
        # F.dropout is one kernel on a GPU, and three on a CPU.
        patch.setattr(Dropout, "forward", lambda self, x: torch.native_dropout(x, self.p, self.training)[0])
        yield mode.found
