"""Graphs in groups of similar sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from helpers.graphs import clip

from gmsa.config import from_dict
from gmsa.graph import collate
from gmsa.models import build_model, graph_spec
from gmsa.nn.layers.size_groups import CALL, LANES, cut_sizes, fill_lanes, group_by_size, padded_pairs

DIMS = {"text": 6, "audio": 5, "vision": 4}


def cost(sizes: np.ndarray, cuts: tuple[int, ...], call: int) -> int:
    return sum(min(cut for cut in cuts if cut >= size) ** 2 for size in sizes.tolist()) + call * len(cuts)


@pytest.mark.parametrize("call", [0, 30, 200, 10**6])
def test_no_other_groups_cost_less(call: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = rng.integers(1, 25, 9)
        known = np.unique(sizes).tolist()
        every = [(*c, known[-1]) for n in range(len(known)) for c in combinations(known[:-1], n)]
        least = min(cost(sizes, cuts, call) for cuts in every)
        assert cost(sizes, tuple(cut_sizes(sizes, call)), call) == least


def test_places_of_a_batch_in_groups() -> None:
    found = group_by_size(np.array([3, 1, 3, 2]), np.array([2, 1, 1, 2]), call=0)
    assert [(graphs.tolist(), r, t) for graphs, r, t in found.groups] == [([1], 1, 1), ([3], 2, 2), ([0, 2], 2, 3)]
    assert found.sources.index.tolist() == [3, 4, 5, 0, 6, 7, 8, 1, 2]
    assert found.targets.index.tolist() == [3, 4, 0, 5, 1, 2]


@pytest.mark.parametrize("call", [0, 10**9], ids=["each size", "one group"])
def test_rows_are_laid_out_and_chosen_again(call: int) -> None:
    sizes, receivers = np.array([3, 1, 4, 2]), np.array([2, 1, 0, 0])
    groups = group_by_size(sizes, receivers, call)
    for padding, counts, axis in ((groups.sources, sizes, 2), (groups.targets, receivers, 1)):
        x, end = torch.randn(int(counts.sum()), 5, dtype=torch.double), 0
        expected = []
        for group in groups.groups:
            for graph in group.graphs.tolist():
                own = x[counts[:graph].sum() : counts[: graph + 1].sum()]
                expected.append(torch.cat([own, own.new_zeros(group[axis] - len(own), 5)]))
        alone = padding.lay_out_among_zeros(x.clone())
        assert torch.equal(alone, torch.cat(expected))
        whole = padding.lay_out(x)
        for rows, known in zip(whole.split([len(part) for part in expected]), expected, strict=True):
            for row, own in zip(rows, known, strict=True):
                firsts = [rows[0]] if known.any() else [*x]  # a graph without rows takes any
                assert any(torch.equal(row, one) for one in [own, *firsts])
            end += len(rows)
        assert end == len(whole)
        assert torch.equal(padding.choose(whole), x)
        assert torch.equal(padding.choose(whole, out=torch.empty_like(x)), x)


def test_the_same_groups_have_other_receivers() -> None:
    sizes, receivers = np.array([3, 1, 30, 2]), np.array([2, 1, 2, 1])
    found, expected = group_by_size(sizes, call=9).with_receivers(receivers), group_by_size(sizes, receivers, call=9)
    assert [group[1:] for group in found.groups] == [group[1:] for group in expected.groups]
    for one, other in ((found.sources, expected.sources), (found.targets, expected.targets)):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("index", "rows", "empty"))
        assert one.is_same == other.is_same


def test_sizes_that_differ_little_are_one_group() -> None:
    assert len(group_by_size(np.array([20, 21, 22] * 10)).groups) == 1
    assert padded_pairs(np.array([20, 22])) == 2 * 22**2
    assert CALL < 16 * (100**2 - 20**2)
    assert padded_pairs(np.array([20] * 16 + [100] * 16)) == 16 * 20**2 + 16 * 100**2


def test_lanes_are_filled_where_most_of_them_are_needed() -> None:
    for nodes in range(1, 200):
        filled, left_over = fill_lanes(nodes), nodes % LANES
        assert filled == (nodes if left_over < LANES // 3 else nodes + LANES - left_over)
    found = group_by_size(np.array([30, 27]), np.array([2, 1]))
    ((graphs, receivers, nodes),) = found.groups
    assert (graphs.tolist(), receivers, nodes) == ([0, 1], 2, 32)
    assert found.sources.index.tolist() == [*range(30), *range(32, 59)]
    assert found.targets.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("typed", [False, True])
def test_a_model_gives_the_same_with_groups_and_without(typed: bool) -> None:
    """Values and gradients, of long and short utterances in turn; each edge route sees the same edges."""
    torch.manual_seed(0)
    graph = {"intra": "temporal(radius=8)"} if typed else {}
    config = from_dict({"graph": graph, "model": {"channels": 16, "heads": 2, "route": "dense"}})
    model = build_model(DIMS, config).double().eval()
    lengths = [(40, 90, 60), (3, 4, 2), (38, 80, 70), (2, 5, 1)] * 3
    utterances = [clip(f"v$_${i}", DIMS, row) for i, row in enumerate(lengths)]
    batch = collate(utterances, graph_spec(config))
    batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
    whole = replace(
        batch,
        edges={s: replace(e, groups=None) for s, e in batch.edges.items()},
        readout_edges={s: replace(e, groups=None) for s, e in batch.readout_edges.items()},
    )
    assert all(edges.groups is not None for edges in (*batch.edges.values(), *batch.readout_edges.values()))
    found = []
    for given in (batch, whole):
        model.zero_grad()
        output = model(given)
        (output.value.square().sum() + output.logits.square().sum()).backward()
        found.append([output.value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
