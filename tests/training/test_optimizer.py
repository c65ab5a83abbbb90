"""The optimizer steps as torch's own does, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gmsa.config import OptimConfig
from gmsa.training.optimization.optimizer import build_optimizer, build_schedule


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_it_steps_as_torch_does_and_reads_its_state(name: str) -> None:
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    found, expected = build_optimizer(ours, config), kind(theirs.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    assert isinstance(found, kind)
    schedules = [build_schedule(optimizer, 20, config) for optimizer in (found, expected)]
    x = torch.randn(7, 5)
    for step in range(12):
        for module, optimizer, schedule in zip((ours, theirs), (found, expected), schedules, strict=True):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
            schedule.step()
            assert all(p.requires_grad and p.grad_fn is None for p in module.parameters())
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
        if step == 5:  # each goes on from the state of the other
            states = copy.deepcopy((found.state_dict(), expected.state_dict()))
            assert states[0]["param_groups"] == states[1]["param_groups"]
            found.load_state_dict(states[1])
            expected.load_state_dict(states[0])
