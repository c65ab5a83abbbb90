"""Every layer of the registry against PyG's bare layer on the same edges.

    python benchmarks/layers.py

Forward and backward of one layer (128 channels, 8 heads) over the intra stream of token graphs: a batch of 32
utterances of CMU-MOSI's lengths with complete and with typed edges, and of long utterances with windows. PyG's layer
holds our weights; that both give the same values and gradients is asserted first. It gets the nodes by type (HGTConv)
and the embeddings of relations as features of edges, which pass a linear map there. GPSConv is over SAGEConv, as ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from common import begin, header, machine, made_up, measure, mib, options, outcome, peak_memory, row, spread
from common import training_utterances as training
from torch import Tensor, nn
from torch_geometric import nn as pyg

from gmsa.config import from_dict
from gmsa.graph import collate
from gmsa.models import graph_spec
from gmsa.models.context import StreamRelations
from gmsa.nn import Relations, SparseEdges, make_layer
from gmsa.registry import LAYERS

# V nodes, E edges, R relations, C channels, H heads
CHANNELS, HEADS = 128, 8
ALPHA, THETA = 0.1, 0.5
MOST_EDGES = {"rgat": 10_000}
"""Most edges for PyG's layer: RGATConv holds C x C numbers for each, several times."""
Run = Callable[[Tensor], Tensor]


class Graphs(NamedTuple):
    """The nodes and edges of a batch."""

    name: str
    edges: SparseEdges
    relations: Relations

    @property
    def nodes(self) -> int:
        assert self.edges.node_type is not None
        return len(self.edges.node_type)


def token_graphs(name: str, utterances: Any, graph: dict[str, Any]) -> Graphs:
    """The intra stream of the graphs of utterances."""
    config = from_dict({"graph": graph, "model": {"layer": "gps", "route": "edge", "streams": "intra"}})
    edges = collate(utterances, graph_spec(config)).edges["intra"]
    assert isinstance(edges, SparseEdges)
    return Graphs(name, edges, StreamRelations.of(config).streams["intra"])


def ours(name: str, relations: Relations) -> nn.Module:
    """The layer with its defaults, each weight of it other than zero."""
    torch.manual_seed(0)
    sizes = {"channels": CHANNELS, "heads": HEADS, "edge_types": 0, "number": 1}
    layer = make_layer(LAYERS[name], relations=relations, **sizes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return layer


def bare(name: str, layer: Any, graphs: Graphs, device: torch.device) -> tuple[nn.Module, Run] | None:
    """PyG's layer with the same weights, and how it is called; None where PyG has no such layer."""
    edges, relations = graphs.edges, graphs.relations
    index, relation, width = edges.index, edges.relation, CHANNELS // HEADS
    conv, run = _conv(name, relations, width), None
    if conv is None:
        return None
    conv = conv.to(device, next(layer.parameters()).dtype)
    if name == "attention":
        for part, linear, rows in (
            (conv.conv.lin_query, layer.query, slice(None)),
            (conv.conv.lin_key, layer.key_value, slice(0, CHANNELS)),
            (conv.conv.lin_value, layer.key_value, slice(CHANNELS, None)),
            (conv.out, layer.out, slice(None)),
        ):
            part.weight.data.copy_(linear.weight[rows])
            part.bias.data.copy_(linear.bias[rows])
        return conv, lambda x: conv.out(conv.conv(x, index))
    if name == "gps":
        conv.load_state_dict(_gps_state(layer))
        return conv, lambda x: conv(x, index, edges.graph)
    known = layer.conv.state_dict()
    if name in ("transformer", "gatv2"):
        known["lin_edge.weight"] = torch.eye(CHANNELS)
    conv.load_state_dict(conv.state_dict() | known)
    if name in ("transformer", "gatv2", "gine"):
        run = lambda x: conv(x, index, layer.embedding(relation))  # noqa: E731
    elif name in ("rgcn", "rgat", "film"):
        run = lambda x: conv(x, index, relation)  # noqa: E731
    elif name == "hgt":
        run = _by_type(conv, layer, edges)
    elif name == "gcn2":
        run = lambda x: conv(x, x, index)  # noqa: E731
    else:
        run = lambda x: conv(x, index)  # noqa: E731
    return conv, run


def _conv(name: str, relations: Relations, width: int) -> Any:
    """PyG's layer of that name."""
    c, count = CHANNELS, len(relations)
    if name == "attention":
        both = nn.Module()
        both.conv, both.out = pyg.TransformerConv(c, width, HEADS, root_weight=False), nn.Linear(c, c)
        both.conv.lin_skip = None
        return both
    if name == "gine":
        return pyg.GINEConv(nn.Sequential(nn.Linear(c, c), nn.ReLU(), nn.Linear(c, c)), train_eps=True)
    if name == "hgt":
        layer: Any = ours("hgt", relations)
        return pyg.HGTConv(c, c, ([*layer.types], layer.relations), HEADS)
    if name == "gps":
        return pyg.GPSConv(c, pyg.SAGEConv(c, c), HEADS, norm="layer_norm", norm_kwargs={"mode": "node"})
    kinds: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: pyg.TransformerConv(c, width, HEADS, edge_dim=c),
        "gatv2": lambda: pyg.GATv2Conv(c, width, HEADS, edge_dim=c, add_self_loops=False),
        "rgcn": lambda: pyg.RGCNConv(c, c, count),
        "rgat": lambda: pyg.RGATConv(c, width, count, heads=HEADS),
        "sage": lambda: pyg.SAGEConv(c, c),
        "film": lambda: pyg.FiLMConv(c, c, count),
        "gcn2": lambda: pyg.GCN2Conv(c, ALPHA, THETA, 1),
    }
    return kinds[name]() if name in kinds else None


def _gps_state(layer: Any) -> dict[str, Tensor]:
    """Our weights by GPSConv's names."""
    attention = layer.attention
    found = {
        "attn.in_proj_weight": torch.cat([attention.query.weight, attention.key_value.weight]),
        "attn.in_proj_bias": torch.cat([attention.query.bias, attention.key_value.bias]),
    }
    parts = {"attn.out_proj": attention.out, "mlp.0": layer.mlp[0], "mlp.3": layer.mlp[3], "conv": layer.local.conv}
    parts |= {"norm1": layer.norm_local, "norm2": layer.norm_attention, "norm3": layer.norm_out}
    return found | {f"{key}.{name}": p for key, part in parts.items() for name, p in part.named_parameters()}


def _by_type(conv: nn.Module, layer: Any, edges: SparseEdges) -> Run:
    """HGTConv on nodes and edges that were sorted by type before."""
    assert edges.node_type is not None
    rows = {name: (edges.node_type == number).nonzero().squeeze(1) for name, number in layer.types.items()}
    place = torch.empty_like(edges.node_type)
    for of_type in rows.values():
        place[of_type] = torch.arange(len(of_type), device=place.device)
    local = place[edges.index]
    by_relation = {triple: local[:, edges.relation == r] for r, triple in enumerate(layer.relations)}
    order = torch.argsort(torch.cat([*rows.values()]))

    def run(x: Tensor) -> Tensor:
        found = conv({name: x.index_select(0, of_type) for name, of_type in rows.items()}, by_relation)
        return torch.cat([found[name] for name in rows]).index_select(0, order)

    return run


def assert_equal(name: str, graphs: Graphs, device: torch.device) -> None:
    """Values and gradients of ours and of PyG's layer, in float64."""
    layer = ours(name, graphs.relations).double().to(device)
    found = bare(name, layer, graphs, device)
    if found is None:
        return
    start, seed = torch.randn(2, graphs.nodes, CHANNELS, dtype=torch.double, device=device)
    results = []
    for run in (partial(call, layer, graphs.edges), found[1]):
        x = start.clone().requires_grad_()
        y = run(x)
        y.backward(seed)
        results.append([y.detach(), x.grad])
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-8, msg=lambda m: f"{name}: {m}")


def call(layer: nn.Module, edges: SparseEdges, x: Tensor) -> Tensor:
    found: Tensor = layer(x, edges)
    return found


def step(run: Run, modules: list[nn.Module], x: Tensor, seed: Tensor) -> Callable[[], None]:
    """Forward and backward, which leaves no gradient behind."""

    def forward_and_backward() -> None:
        run(x).backward(seed)
        x.grad = None
        for module in modules:
            module.zero_grad(set_to_none=True)

    return forward_and_backward


def moved(graphs: Graphs, device: torch.device) -> Graphs:
    """The same on another device."""
    e = graphs.edges
    assert e.relation is not None and e.node_type is not None and e.graph is not None  # noqa: PT018
    there = SparseEdges(
        e.index.to(device), None, None, e.relation.to(device), e.node_type.to(device), e.graph.to(device)
    )
    return graphs._replace(edges=there)


def main() -> None:
    arguments = options(__doc__).parse_args()
    device, quick = begin(arguments), arguments.quick
    count = 4 if quick else 32
    utterances = training("mosi")[0][:count]
    long = made_up(
        np.tile([10, 80, 30] if quick else [50, 400, 150], (count // 4, 1)), {"text": 1, "audio": 1, "vision": 1}
    )
    batches = [
        token_graphs("CMU-MOSI, complete", utterances, {}),
        token_graphs("CMU-MOSI, temporal", utterances, {"intra": "temporal(radius=4)", "inter": "temporal"}),
        token_graphs("long, window", long, {"intra": "window(radius=3)"}),
    ]
    small = moved(token_graphs("", utterances[:2], {"intra": "temporal"}), device)
    for name in LAYERS:
        assert_equal(name, small, device)
    print("Each layer gives the values and gradients of PyG's (float64).")
    worst = ("", 0.0)
    for graphs in (moved(batch, device) for batch in batches):
        edges = graphs.edges.index.shape[1]
        title = f"{graphs.name}: {graphs.nodes} nodes, {edges} edges, {len(graphs.relations)} relations"
        header(
            f"{title}. Milliseconds of forward and backward: median [quartiles]; peak MiB",
            *("layer", "parameters", "ours", "PyG", "ours / PyG", "peak, ours", "peak, PyG"),
        )
        x = torch.randn(graphs.nodes, CHANNELS, device=device, requires_grad=True)
        seed = torch.randn_like(x)
        for name in LAYERS:
            layer = ours(name, graphs.relations).to(device)
            found = bare(name, layer, graphs, device)
            steps = {"ours": step(partial(call, layer, graphs.edges), [layer], x, seed)}
            if found is not None and edges <= MOST_EDGES.get(name, edges):
                steps["PyG"] = step(found[1], [layer, found[0]], x, seed)
            times = measure(steps, device, quick)
            peaks = {key: mib(peak_memory(once, device)) for key, once in steps.items()}
            ratio = float(np.median(times["ours"]) / np.median(times["PyG"])) if "PyG" in times else None
            if ratio is not None and ratio > worst[1]:
                worst = f"{name}, {graphs.name}", ratio
            row(
                f"`{name}`",
                f"{sum(p.numel() for p in layer.parameters()):,}",
                *(spread(times[key], 2) if key in times else "not run" for key in ("ours", "PyG")),
                "" if ratio is None else f"{ratio:.2f}",
                *(peaks.get(key, "not run") for key in ("ours", "PyG")),
            )
    print()
    outcome("none slower than twice PyG's layer", f"{worst[1]:.2f} times ({worst[0]})", worst[1] <= 2)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
