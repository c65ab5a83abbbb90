"""A training step launches few kernels: each costs the host of a GPU microseconds, whatever it computes."""

from __future__ import annotations

import torch
from helpers.kernels import kernels
from helpers.sync_lint import Step, step_config

BUDGET = 350
"""Operations of a step of the default model that compute something."""


def test_a_default_step_launches_few_kernels() -> None:
    step = Step(step_config("semi_iin", reconstruction={"weight": 0.0}), "supervised")
    step()
    with kernels() as found:
        step()
    assert found["_fused_adamw_"] == 1
    assert sum(found.values()) <= BUDGET, found.most_common()


def test_views_and_memory_are_no_kernels() -> None:
    x = torch.randn(4, 3)
    with kernels() as found:
        x.view(3, 4).T[0].unsqueeze(0)
        torch.empty(3)
        (x + 1).relu()
    assert found == {"add": 1, "relu": 1}
