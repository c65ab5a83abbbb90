"""gmsa's layers beside PyG's, called by hand with the same weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch_geometric
from helpers.layers import (
    CHANNELS,
    HEADS,
    TYPES,
    UNTYPED,
    assert_same,
    build,
    call,
    edges,
    part,
    states,
    typed_or_not,
    variants,
)
from torch import Tensor, nn
from torch_geometric.nn.conv import rgcn_conv

from gmsa.nn import Relations, SparseEdges
from gmsa.registry import LAYERS

OURS = {"attention", "mtag"}
"""Layers that are none of PyG's, with tests of their own."""


def copied(conv: nn.Module, ours: nn.Module, **more: Tensor) -> nn.Module:
    """PyG's layer with the weights of ours, which share them; ``more`` are weights that ours has in another form."""
    conv.double()
    known = dict(ours.named_parameters())
    for key, parameter in list(conv.named_parameters()):
        *path, last = key.split(".")
        owner = conv.get_submodule(".".join(path))
        if key in more:
            parameter.data.copy_(more[key])
        else:
            setattr(owner, last, known[key])
    return conv


def by_hand(spec: str, layer: nn.Module, x: Tensor, graph: SparseEdges, relations: Relations) -> Tensor:
    """What PyG's layer gives with the same weights."""
    from torch_geometric import nn as pyg

    index, relation, count = graph.index, graph.relation, len(relations)
    name, given = spec.partition("(")[0], part(spec).keywords
    heads, bases = given.get("heads", HEADS), given.get("bases") or None
    width = CHANNELS // heads
    if name in ("transformer", "gatv2"):
        dim = CHANNELS if given.get("embeddings", True) else None
        more = {"lin_edge.weight": torch.eye(CHANNELS).double()} if dim else {}
        options = {} if name == "transformer" else {"add_self_loops": False}
        kind = pyg.TransformerConv if name == "transformer" else pyg.GATv2Conv
        conv = copied(kind(CHANNELS, width, heads, edge_dim=dim, **options), layer.conv, **more)
        return conv(x, index, layer.embedding(relation) if dim else None)
    if name == "rgcn":
        return copied(pyg.RGCNConv(CHANNELS, CHANNELS, count, num_bases=bases), layer.conv)(x, index, relation)
    if name == "rgat":
        mechanism = f"{given.get('attention', 'across')}-relation"
        conv = pyg.RGATConv(CHANNELS, width, count, bases, heads=heads, attention_mechanism=mechanism)
        unused = {key: torch.zeros(()) for key in ("w", "l1", "b1", "l2", "b2")}
        return copied(conv, layer.conv, **unused)(x, index, relation)
    if name == "sage":
        return copied(pyg.SAGEConv(CHANNELS, CHANNELS, given.get("aggr", "mean")), layer.conv)(x, index)
    if name == "gine":
        network = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, CHANNELS))
        conv = copied(pyg.GINEConv(network, train_eps=True), layer.conv)
        return conv(x, index, layer.embedding(relation))
    if name == "film":
        return copied(pyg.FiLMConv(CHANNELS, CHANNELS, count), layer.conv)(x, index, relation)
    if name == "gcn2":
        conv = pyg.GCN2Conv(CHANNELS, given.get("alpha", 0.1), given.get("theta", 0.5), layer=2)
        return copied(conv, layer.conv)(x, x.flip(1) + 0.5, index)
    if name == "hgt":
        # Types in HeteroData's numbering, by loops.
        of_type = {t: [v for v in range(len(x)) if TYPES[v] == i] for i, t in enumerate(relations.node_types)}
        of_relation = {
            triple: [(int(s), int(t)) for (s, t), r in zip(index.T, relation, strict=True) if r == i]
            for i, triple in enumerate(relations.triples)
        }
        data = torch_geometric.data.HeteroData()
        for node_type, rows in of_type.items():
            data[node_type].x = x[rows]
        for (source, kind, target), pairs in of_relation.items():
            local = [[of_type[source].index(s), of_type[target].index(t)] for s, t in pairs]
            data[source, kind.replace(" ", "_"), target].edge_index = torch.tensor(local).long().view(-1, 2).T
        conv = pyg.HGTConv(CHANNELS, CHANNELS, data.metadata(), heads).double()
        ours = dict(layer.conv.named_parameters())
        for key, _ in list(conv.named_parameters()):
            if key.startswith("p_rel."):  # by relation: ours numbers them
                names = [f"{s}__{kind.replace(' ', '_')}__{t}" for s, kind, t in relations.triples]
                number = names.index(key.removeprefix("p_rel."))
                source, _, target = relations.triples[number]
                conv.p_rel[names[number]] = ours[f"p_rel.{source}__{number}__{target}"]
            else:
                *path, last = key.split(".")
                setattr(conv.get_submodule(".".join(path)), last, ours[key])
        found, y = conv(data.x_dict, data.edge_index_dict), torch.zeros_like(x)
        for node_type, rows in of_type.items():
            if node_type in found:
                y = y.index_copy(0, torch.tensor(rows), found[node_type])
        return y
    assert name == "gps"
    local, our = given.get("local", "sage"), layer.local
    if local == "sage":
        conv = copied(pyg.SAGEConv(CHANNELS, CHANNELS), our.conv)
        more: dict[str, Any] = {}
    elif local == "gatv2":
        options = {"edge_dim": CHANNELS, "add_self_loops": False}
        conv = pyg.GATv2Conv(CHANNELS, width, HEADS, **options)
        conv = copied(conv, our.conv, **{"lin_edge.weight": torch.eye(CHANNELS).double()})
        more = {"edge_attr": our.embedding(relation)}
    else:
        conv, more = _Attention(our), {}
    gps = pyg.GPSConv(CHANNELS, conv, HEADS, norm="layer_norm", norm_kwargs={"mode": "node"}).double().eval()
    known = {
        "attn.in_proj_weight": torch.cat([layer.attention.query.weight, layer.attention.key_value.weight]),
        "attn.in_proj_bias": torch.cat([layer.attention.query.bias, layer.attention.key_value.bias]),
        "attn.out_proj.weight": layer.attention.out.weight,
        "attn.out_proj.bias": layer.attention.out.bias,
        "mlp.3.weight": layer.mlp[3].weight,
        "mlp.3.bias": layer.mlp[3].bias,
        "mlp.0.weight": layer.mlp[0].weight,
        "mlp.0.bias": layer.mlp[0].bias,
    }
    for number, norm in enumerate((layer.norm_local, layer.norm_attention, layer.norm_out), 1):
        known |= {f"norm{number}.weight": norm.weight, f"norm{number}.bias": norm.bias}
    known |= {f"conv.{key}": value for key, value in conv.named_parameters()}
    return torch.func.functional_call(gps, known, (x, index), {"batch": graph.graph, **more})


class _Attention(nn.Module):
    """Our attention as PyG's local layers are called."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        found: Tensor = self.ours(x, SparseEdges(index))
        return found


@pytest.mark.parametrize("spec", variants(*sorted({*LAYERS} - OURS)))
@typed_or_not
def test_equal_to_pygs_layer_called_by_hand(spec: str, relations: Relations) -> None:
    layer, graph = build(spec, relations), edges("edge", relations=relations)
    assert isinstance(graph, SparseEdges)
    assert_same(layer, states(), lambda x: by_hand(spec, layer, x, graph, relations), lambda x: call(layer, x, graph))


# --- what PyG's layers do that is not wanted --------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, True, False])
def test_rgcn_means_within_relations_also_where_pyg_lib_is_installed(before, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its kernel PyG's mean would be over all edges of a node; the user's own setting is left alone."""
    layer, graph = build("rgcn"), edges("edge")
    expected = layer(states(), graph)

    def forbidden(*_: Any) -> Tensor:
        raise NotImplementedError

    backend = torch_geometric.backend
    monkeypatch.setattr(backend, "use_segment_matmul", before)
    monkeypatch.setattr(torch_geometric.typing, "WITH_SEGMM", True)
    monkeypatch.setattr(rgcn_conv, "pyg_lib", SimpleNamespace(ops=SimpleNamespace(segment_matmul=forbidden)))
    if before:
        with pytest.raises(NotImplementedError):
            layer.conv(states(), graph.index, graph.relation)
    torch.testing.assert_close(layer(states(), graph), expected, rtol=0, atol=0)
    assert backend.use_segment_matmul is before


def test_rgat_has_no_weight_that_is_never_initialized() -> None:
    layer = build("rgat")
    names = dict(layer.named_parameters())
    assert {*names} == {"conv.q", "conv.k", "conv.bias", "conv.weight"}
    layer(states(), edges("edge")).square().sum().backward()
    assert all(parameter.grad is not None for parameter in names.values())


def test_gatv2_adds_no_edge_of_a_node_to_itself() -> None:
    layer = build("gatv2")
    y = layer(states(), edges("edge"))
    torch.testing.assert_close(y[2], layer.conv.bias)  # it has no incoming edge


def test_hgt_gives_zeros_to_types_at_which_no_relation_ends() -> None:
    """PyG leaves them out; names that its containers keep for themselves are types as well."""
    relations = Relations(("keys", "text", "a.b"), (("text", "intra", "keys"), ("keys", "to. the", "a.b")))
    layer = build("hgt", relations)
    graph = SparseEdges(
        torch.tensor([[1, 0], [0, 2]]), relation=torch.tensor([0, 1]), node_type=torch.arange(3), graph=torch.zeros(3)
    )
    y = layer(states(3), graph)
    assert y[[0, 2]].all()
    assert not y[1].any()


def test_gcn2_keeps_the_loops_that_it_is_given() -> None:
    """A node without one gets one of weight 1."""
    layer = build("gcn2(alpha=0, theta=0.5)")
    nodes, x = torch.arange(6), states()
    loops = SparseEdges(torch.stack([nodes, nodes]))
    none = SparseEdges(torch.empty(2, 0, dtype=torch.long))
    torch.testing.assert_close(layer(x, loops), layer(x, none))


def test_gps_looks_at_every_node_of_its_graph_and_at_no_other() -> None:
    layer, x = build("gps"), states().requires_grad_()
    y = layer(x, edges("edge", relations=UNTYPED))
    reached = torch.stack([torch.autograd.grad(row.square().sum(), x, retain_graph=True)[0].any(1) for row in y])
    same = torch.tensor([0, 0, 0, 2, 2, 2])
    assert torch.equal(reached, same[:, None] == same)
