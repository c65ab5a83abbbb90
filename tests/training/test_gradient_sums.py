"""Gradients of several processes: their sums, which messages are sent when, and that no device is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.killed_runs import ended, together
from helpers.sync_lint import Step, step_config, sync_lint
from torch import Tensor, nn

from gmsa.system.distributed import SINGLE_PROCESS, Group, join
from gmsa.training.optimization import gradients
from gmsa.training.optimization.gradients import GradientSum
from gmsa.training.step import training_step


class Net(nn.Module):
    """Layers of which one is read by the second process alone, and one by none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.unread, self.last = (nn.Linear(4, 4).double() for _ in range(4))

    def loss(self, rank: int, group: Group = SINGLE_PROCESS) -> Tensor | None:
        """That of a process; the last of three has no share of the batch."""
        if rank == 2:
            return None
        x = torch.randn(3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(rank))
        hidden = self.first(x).tanh()
        return self.last(self.second(hidden).tanh() if rank == 1 else hidden).square().sum()


def test_sums_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "BUCKET", 150)  # a weight or more in each message
    alone = Net()
    for rank in range(2):
        alone.loss(rank).backward()  # type: ignore[union-attr]
    expected = {name: None if p.grad is None else p.grad.tolist() for name, p in alone.named_parameters()}

    def act() -> None:
        group, _ = join(torch.device("cpu"))
        net, sent = Net(), []
        send = dist.all_reduce
        monkeypatch.setattr(dist, "all_reduce", lambda x, **more: (sent.append(x.numel()), send(x, **more))[1])
        with GradientSum(net.parameters(), group) as sums:
            loss = net.loss(group.rank)
            if loss is not None:
                loss.backward()
            during = len(sent)
        raised = sums.finish(group.rank == 1, False)
        found = {name: None if p.grad is None else p.grad.tolist() for name, p in net.named_parameters()}
        assert not any(p._post_accumulate_grad_hooks for p in net.parameters())
        text = json.dumps({"found": found, "raised": raised, "during": during, "sent": sent})
        (tmp_path / f"{group.rank}.json").write_text(text)
        group.close()

    assert [ended(number) for number in together(3, act)] == [0, 0, 0]
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    for one in said:
        assert one["raised"] == [True, False]
        assert one["sent"] == said[0]["sent"]
        for name, grad in expected.items():
            assert (grad is None) == (one["found"][name] is None), name
            if grad is not None:
                torch.testing.assert_close(torch.tensor(one["found"][name]), torch.tensor(grad))
    assert said[0]["during"] == said[1]["during"] == 1, "the last layer's, before the others' gradients are there"
    assert said[2]["during"] == 0


def test_a_step_of_several_processes_reads_nothing_from_the_device(tmp_path: Path) -> None:
    def act() -> None:
        group, _ = join(torch.device("cpu"))
        for kind in ("consistent", "pretrain"):
            step = Step(step_config("sslmm"), kind)
            step()
            with sync_lint() as found:
                training_step(step.task, step.state, step.batch, 0.5, step.config.optim, group, lambda: (True, False))
            assert not found, found
        group.close()

    assert [ended(number) for number in together(2, act)] == [0, 0]
