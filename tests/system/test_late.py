"""What torch and PyG import late is there for whoever uses it, and what is not to be compiled is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch_geometric
from torch import Tensor, nn

from gmsa.system.late import not_compiled

AFTER = """
import sys
import gmsa.graph, torch, torch_geometric

late = {"torch._dynamo", "torch_geometric.datasets"}
assert not late & sys.modules.keys()
assert torch_geometric.datasets.FakeDataset.__module__ == "torch_geometric.datasets.fake"
assert torch_geometric.is_torch_instance(torch.compile(torch.nn.Linear(1, 1), backend="eager"), torch.nn.Linear)
from torch_geometric.datasets import FakeDataset
import torch._dynamo.config
assert late <= sys.modules.keys()
for name in late:
    assert sys.modules[name].__file__
assert torch_geometric.datasets is sys.modules["torch_geometric.datasets"]
assert torch._dynamo is sys.modules["torch._dynamo"]
"""


@pytest.mark.slow
def test_what_is_put_off_is_there_when_it_is_first_used() -> None:
    result = subprocess.run([sys.executable, "-c", AFTER], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_what_is_put_off_is_there_when_it_is_used() -> None:
    """Here it may have been used before."""
    assert torch_geometric.datasets.FakeDataset.__module__ == "torch_geometric.datasets.fake"
    assert torch_geometric.datasets is sys.modules["torch_geometric.datasets"]
    assert callable(torch._dynamo.config.patch)
    assert torch._dynamo is sys.modules["torch._dynamo"]


compiled: list[bool] = []


@not_compiled
def by_number(x: Tensor) -> Tensor:
    compiled.append(torch.compiler.is_compiling())
    return x * len(x.tolist())


class Net(nn.Module):
    @not_compiled
    def shifted(self, x: Tensor) -> Tensor:
        compiled.append(torch.compiler.is_compiling())
        return x + len(x.tolist())

    def forward(self, x: Tensor) -> Tensor:
        return self.shifted(by_number(x + 1)).relu()


def test_marked_functions_are_not_compiled() -> None:
    net, inputs = Net(), [torch.arange(float(n)) for n in range(2, 16)]
    expected = [net(x) for x in inputs]
    net.compile(backend="eager", dynamic=True)
    compiled.clear()
    assert all(torch.equal(net(x), y) for x, y in zip(inputs, expected, strict=True))
    assert compiled == [False] * 2 * len(inputs)
    assert by_number.__name__ == "by_number"
