"""COGMEN: worked numbers, and its equations in plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import conversations as talk
from torch import Tensor, nn
from torch_geometric.nn import FastRGCNConv, TransformerConv

from gmsa.errors import ConfigError
from gmsa.models import COGMEN
from gmsa.models.cogmen import BatchNorm
from gmsa.nn import Relations
from gmsa.nn.layers.rgcn import RGCN
from gmsa.nn.sequence import DialogueTransformer

Z = [[0.300000, 0.300000], [0.400000, 0.850000], [0.200000, 1.400000]]
O = [[0.556752, -0.180739], [0.585595, -0.101801], [0.513520, -0.024510]]  # noqa: E741 - the paper's name
PLAIN = [[0.556752, -0.001807], [0.585595, -0.001018], [0.513520, -0.000245]]
NORMED = [[0.161014, -0.012275], [1.129307, 0.008593], [-0.012903, 1.218923]]


@pytest.mark.parametrize(("norm", "expected"), [("none", PLAIN), ("batch", NORMED)])
@pytest.mark.parametrize("fast", [False, True])
def test_the_worked_example(norm: str, expected: Any, fast: bool) -> None:
    config, batch = talk.toy_graph(f"cogmen(norm={norm})")
    model = talk.model_of(config).train()
    assert isinstance(model, COGMEN)
    model.encoder = talk.Fixed()
    if fast:
        model.rgcn.conv = FastRGCNConv(2, 2, 18).double()
    with torch.no_grad():
        for parameter in (*model.rgcn.parameters(), *model.attention.parameters()):
            parameter.zero_()
        for r, weight in talk.turn_weights():
            model.rgcn.conv.weight[r] = weight
        model.rgcn.conv.root.copy_(talk.ROOT)
        for name, weight in (
            ("lin_query", [[0.6, -0.2], [0.1, 0.5]]),
            ("lin_key", [[0.3, 0.3], [-0.4, 0.2]]),
            ("lin_value", [[1.0, 0.2], [0.1, -0.7]]),
            ("lin_skip", [[0.5, 0.0], [0.0, 0.5]]),
        ):
            getattr(model.attention, name).weight.copy_(torch.tensor(weight).T)
        for parameter, value in zip(model.norm.parameters(), (1.0, 0.0), strict=False):
            parameter.fill_(value)
    seen: dict[str, Tensor] = {}
    model.rgcn.register_forward_hook(lambda _, __, output: seen.update(z=output))
    model.attention.register_forward_hook(lambda _, __, output: seen.update(o=output))
    found = model.converse({m: torch.zeros(3, 2, dtype=torch.float64) for m in talk.DIMS}, batch)
    for rows, wanted in ((seen["z"], Z), (seen["o"], O), (found, expected)):
        torch.testing.assert_close(rows, talk.TOY.new_tensor(wanted), rtol=0, atol=1e-6)
    index = batch.utterance_edges.index
    with torch.no_grad():
        _, (_, weights) = model.attention(seen["z"], index, return_attention_weights=True)
        rows = [[0.504826, 0.495174], [0.341211, 0.337981, 0.320808], [0.507035, 0.492965]]
        torch.testing.assert_close(
            weights.flatten(), talk.TOY.new_tensor([a for row in rows for a in row]), rtol=0, atol=1e-6
        )
        # Means and weighed means are the same of edges that are there twice.
        twice = torch.cat([index, index], dim=1)
        torch.testing.assert_close(model.attention(seen["z"], twice), seen["o"])
        model.attention.lin_query.weight.zero_()  # without which the attention is a mean
        mean = seen["z"][:2].mean(0) @ model.attention.lin_value.weight.T + 0.5 * seen["z"][0]
        torch.testing.assert_close(model.attention(seen["z"], index)[0], mean)


def attend(rows: Sequence[Tensor], query: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """The rows weighed by one head."""
    scores = torch.stack([query @ key / math.sqrt(len(query)) for key in keys]).exp()
    return sum(w * row for w, row in zip(scores / scores.sum(), rows, strict=True))


def encode(encoder: DialogueTransformer, rows: Sequence[Tensor], heads: int) -> list[Tensor]:
    """Post-norm layers, query by query and head by head."""
    for layer in encoder.encoder.layers:
        attention, width = layer.self_attn, len(rows[0])
        q, k, v = zip(
            *((attention.in_proj_weight @ row + attention.in_proj_bias).split(width) for row in rows), strict=True
        )
        found = []
        for i, row in enumerate(rows):
            seen = i + 1 if encoder.causal else len(rows)
            parts = []
            for part in torch.arange(width).split(width // heads):
                parts.append(attend([x[part] for x in v[:seen]], q[i][part], [x[part] for x in k[:seen]]))
            y = normed(layer.norm1, row + talk.linear(attention.out_proj, torch.cat(parts)))
            hidden = talk.linear(layer.linear1, y).clamp(min=0)
            found.append(normed(layer.norm2, y + talk.linear(layer.linear2, hidden)))
        rows = found
    return [talk.linear(encoder.out, row) for row in rows]


def normed(norm: nn.LayerNorm, row: Tensor) -> Tensor:
    return norm.weight * (row - row.mean()) / (row.var(unbiased=False) + norm.eps).sqrt() + norm.bias


def converse(model: COGMEN, states: list[Tensor], turns: talk.Turns) -> list[Tensor]:
    """Its equations, utterance by utterance."""
    g, z, conv, attention = encode(model.encoder, states, 2), [], model.rgcn.conv, model.attention
    for i in range(turns.count):
        row = g[i] @ conv.root + conv.bias
        for r in {turns.turn(j, i) for j in turns.heard(i)}:
            of_relation = [j for j in turns.heard(i) if turns.turn(j, i) == r]
            row = row + sum(g[j] @ conv.weight[r] for j in of_relation) / len(of_relation)
        z.append(row)
    found = []
    q, k, v = ([talk.linear(getattr(attention, f"lin_{name}"), row) for row in z] for name in ("query", "key", "value"))
    for i in range(turns.count):
        parts, among = [], turns.heard(i)
        for part in torch.arange(8 * attention.heads).split(8):
            parts.append(attend([v[j][part] for j in among], q[i][part], [k[j][part] for j in among]))
        row = talk.linear(attention.lin_skip, z[i]) + torch.cat(parts)
        norm = model.norm
        if isinstance(norm, BatchNorm):  # in eval mode
            row = norm.weight * (row - norm.running_mean) / (norm.running_var + norm.eps).sqrt() + norm.bias
        elif isinstance(norm, nn.LayerNorm):
            row = normed(norm, row)
        row = F.leaky_relu(row, 0.01)
        found.append(torch.cat([row, g[i]]) if model.concat else row)
    return found


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("cogmen(feedforward=6)", "window"),
        ("cogmen(norm=layer, feedforward=6, graph_heads=3)", "distances"),
        ("cogmen(norm=none, feedforward=6, concat=true)", "pairs"),
        ("cogmen(feedforward=6, graph_heads=2)", "causal"),
    ],
)
def test_it_equals_its_twin(name: str, context: str) -> None:
    talk.assert_equals_its_twin(name, context, converse)


def test_parameters_are_checked_and_relations_counted() -> None:
    for speakers, count in (("none", 1), ("same_other", 2), (["ann", "bob"], 9)):
        model = talk.model_of(talk.config_of("cogmen", "dialogue", {"speakers": speakers}))
        assert model.rgcn.conv.num_relations == 2 * count
    assert isinstance(model.norm, BatchNorm)
    assert model.encoder.encoder.layers[0].linear1.out_features == 2048
    with pytest.raises(ConfigError, match=r"'model.name: cogmen': 'graph_heads' must be 1 or more"):
        talk.model_of(talk.config_of("cogmen(graph_heads=0)"))
    with pytest.raises(ConfigError, match="norm"):
        talk.model_of(talk.config_of("cogmen(norm=graph)"))


def test_without_maps_of_relations_the_first_stage_is_the_root() -> None:
    """PyG's layer in another class: that it is the formula, `test_it_equals_its_twin` says."""
    model = talk.model_of(talk.config_of("cogmen"))
    x = torch.randn(3, 8, dtype=torch.float64)
    with torch.no_grad():
        model.rgcn.conv.weight.zero_()
    _, batch = talk.toy_graph("cogmen")
    edges = batch.utterance_edges
    known = talk.replace(edges, relation=model.context.turn_relations_of(edges.edge_type) % 2)
    torch.testing.assert_close(model.rgcn(x, known), x @ model.rgcn.conv.root + model.rgcn.conv.bias)
    assert isinstance(model.rgcn, RGCN)
    assert isinstance(model.attention, TransformerConv)
    assert model.attention.edge_dim is None  # it knows no relation
    assert isinstance(model.context.turn_relations, Relations)


def test_batch_norm_of_one_utterance_and_of_any_batch_in_eval_mode() -> None:
    config = talk.config_of("cogmen", "dialogue", talk.CONTEXTS["window"], model={"dropout": 0, "input_dropout": 0})
    model = talk.model_of(config).train()
    one = talk.dialogue("a", 1)
    output = talk.say(model, config, one)
    output.logits.square().sum().backward()
    assert output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert not model.norm.running_mean.any()  # there was no variance to learn from
    many = talk.dialogue("a", 5) + talk.dialogue("b", 3)
    talk.say(model, config, many)
    assert model.norm.running_mean.any()
    whole = talk.answers(model.eval(), config, many)
    torch.testing.assert_close(talk.answers(model, config, many[5:]), whole[5:], rtol=0, atol=1e-11)
