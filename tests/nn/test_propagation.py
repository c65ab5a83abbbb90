"""Predictions that propagate along a dialogue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gmsa.nn import Propagation
from gmsa.nn.edges import within_reach

SIZES = [1, 4, 7, 2]


def by_loop(y: Tensor, part: Propagation, sizes: list[int], past: int, future: int) -> Tensor:
    """What is written in the docstring, utterance by utterance."""
    before, after, dialogue = part.weight
    rows, first = [], 0
    for size in sizes:
        for i in range(size):
            own = y[first + i]

            def mean(places: list[int], own: Tensor = own, first: int = first) -> Tensor:
                return torch.stack([y[first + j] for j in places]).mean(0) if places else own

            row = own + before * mean([j for j in range(size) if i - past <= j < i])
            if not part.causal:
                row = row + after * mean([j for j in range(size) if i < j <= i + future])
            if part.dialogue:
                row = row + dialogue * mean([j for j in range(size) if j < i or (j > i and not part.causal)])
            rows.append(row)
        first += size
    return torch.stack(rows)


def edges(past: int, future: int) -> Tensor:
    index = within_reach(torch.tensor(SIZES), past, future)
    return index[:, index[0] != index[1]]


@pytest.mark.parametrize(("past", "future"), [(2, 1), (3, 0), (0, 2), (99, 99)])
@pytest.mark.parametrize("dialogue", [False, True])
@pytest.mark.parametrize("numbers", [1, 5])
def test_values_and_gradients_are_those_of_a_loop(past: int, future: int, dialogue: bool, numbers: int) -> None:
    part = Propagation(dialogue, causal=not future).double()
    part.weight.data = torch.tensor([0.3, -0.7, 0.4], dtype=torch.float64)
    y = torch.randn(sum(SIZES), numbers, dtype=torch.float64, requires_grad=True)
    aim = torch.randn(sum(SIZES), numbers, dtype=torch.float64)
    found = part(y, edges(past, future), SIZES)
    expected = by_loop(y, part, SIZES, past, future)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((found * aim).sum(), [y, part.weight])
    theirs = torch.autograd.grad((expected * aim).sum(), [y, part.weight])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_no_later_utterance_and_no_other_dialogue_changes_a_bit_of_a_causal_one() -> None:
    part, index = Propagation(dialogue=True, causal=True), edges(2, 0)
    y = torch.randn(sum(SIZES), 3)
    before = part(y, index, SIZES)
    changed = y.clone()
    changed[8:] = torch.randn(len(y) - 8, 3)  # the fourth of the third dialogue, and all after it
    assert torch.equal(part(changed, index, SIZES)[:8], before[:8])
    alone = part(y[5:12], edges_of(7), [7])
    assert torch.equal(alone, before[5:12])


def edges_of(size: int) -> Tensor:
    index = within_reach(torch.tensor([size]), 2, 0)
    return index[:, index[0] != index[1]]


def test_half_precision_is_added_in_single() -> None:
    part, y = Propagation(dialogue=True, causal=False), torch.randn(sum(SIZES), 2).bfloat16()
    found = part(y, edges(2, 2), SIZES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, part(y.float(), edges(2, 2), SIZES))
