"""An encoder that pools: the maximum over the tokens of each sequence by itself, as ``max_pool1d`` has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gmsa.graph.conv_windows import conv_windows
from gmsa.nn import ConvEncoder

LENGTHS = [7, 1, 12, 3, 4]


@pytest.mark.parametrize("convs", [((3, 1), (0, 4)), ((4, 2), (0, 3), (3, 1)), ((1, 1), (0, 1)), ((3, 1), (0, 50))])
def test_values_and_gradients_are_those_of_max_pool1d(convs: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(dim=3, channels=5, convs=convs).double()
    steps = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    found = encoder(steps, conv_windows(np.array(LENGTHS), convs))
    weights = torch.randn(found.shape, dtype=torch.float64)
    gradients = torch.autograd.grad((found * weights).sum(), [steps, *encoder.parameters()])

    expected = []
    for sequence in steps.split(LENGTHS):
        x = sequence.T  # [D, L]
        for i, ((kernel, stride), conv) in enumerate(zip(convs, encoder.convs, strict=True)):
            if kernel == 0:
                x = nn.functional.max_pool1d(x, stride, ceil_mode=True)
                continue
            before = (kernel - stride) // 2
            after = -(-x.shape[1] // stride) * stride - x.shape[1] + kernel - stride - before
            x = conv(nn.functional.pad(x.relu() if i else x, (before, after))[None])[0]
        expected.append(x.T)
    wanted = torch.cat(expected)
    torch.testing.assert_close(found, wanted)
    others = torch.autograd.grad((wanted * weights).sum(), [steps, *encoder.parameters()])
    for ours, theirs in zip(gradients, others, strict=True):
        torch.testing.assert_close(ours, theirs)
