"""The interaction layer by its routes, against PyG's TransformerConv and HGTConv and against FlexAttention.

    python benchmarks/layer.py

Forward and backward of one layer (8 heads, 128 channels) over 32 graphs: random directed ones of many sizes and
densities, and two that gmsa builds of 50 text, 50 audio and 150 vision tokens with the two readout nodes, T = 252.
Everything timed holds the projections of query, key and value, the attention, and an output projection, which
TransformerConv gets behind it in place of its skip connection (``root_weight=False``); with our weights its values and
gradients are ours, which is asserted first. HGTConv differs: it has a matrix per head and relation, a GELU and a gate
besides. Our edge route compresses its rows anew in every step, as it does in training. FlexAttention gets its block
mask for nothing.

This is also the evidence for ``route: auto``: where the routes cross, and what its rule loses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from common import (
    Step,
    begin,
    exponent,
    header,
    machine,
    made_up,
    measure,
    mib,
    options,
    outcome,
    peak_memory,
    row,
    spread,
)
from torch import Tensor, nn
from torch_geometric.nn import HGTConv, TransformerConv

from gmsa.config import from_dict
from gmsa.graph import collate
from gmsa.graph.connect import dense_from
from gmsa.models import graph_spec
from gmsa.nn import DenseEdges, Interaction, SparseEdges

# G graphs of T nodes, V nodes and E edges in all; C channels, H heads
CHANNELS, HEADS = 128, 8
NAMES = ("dense", "edge", "messages", "TransformerConv", "HGTConv", "FlexAttention")
"""Our two routes, our edge route by PyG's message passing, and the others."""
EDGES = {"edge": 2_000_000, "messages": 200_000, "TransformerConv": 1_000_000, "HGTConv": 200_000}
"""Most edges for what goes along a list of them: at 10^6, a message per edge takes 3 GB and many seconds."""
COMPLETE, WINDOW = "complete intra graph", "window graph of radius 3"
NODE, RELATION = "node", ("node", "to", "node")


class Graphs(NamedTuple):
    """Graphs of one size in the form of each route."""

    name: str
    adjacency: Tensor
    """bool ``[G, T, T]``."""
    index: Tensor
    """``[2, E]``, sorted by target."""

    @property
    def size(self) -> int:
        return self.adjacency.shape[1]

    @property
    def density(self) -> float:
        return self.index.shape[1] / self.adjacency.numel()


def random_graphs(graphs: int, size: int, density: float) -> Graphs:
    """Directed graphs with each edge, loops among them, at this probability."""
    adjacency = torch.rand(graphs, size, size) < density
    graph, target, source = adjacency.nonzero(as_tuple=True)
    return Graphs(f"random, {density:.0%}", adjacency, torch.stack([graph * size + source, graph * size + target]))


def utterance_graphs(name: str, builder: str, graphs: int) -> Graphs:
    """The intra stream of gmsa's own graphs, val and cls among them, by both routes."""
    lengths = np.tile([50, 400, 150], (graphs, 1))
    utterances = made_up(lengths, {"text": 1, "audio": 1, "vision": 1})
    edges = {}
    for route in ("dense", "edge"):
        settings = {"graph": {"intra": builder}, "model": {"route": route, "streams": "intra"}}
        edges[route] = collate(utterances, graph_spec(from_dict(settings))).edges["intra"]
    return Graphs(name, edges["dense"].adjacency, edges["edge"].index)


def ring(nodes: int, degree: int = 7) -> Tensor:
    """Edges of nodes in a ring, each with those at most 3 steps away and itself ``[2, 7 V]``."""
    target = torch.arange(nodes).repeat_interleave(degree)
    source = (target + torch.arange(degree).repeat(nodes) - degree // 2) % nodes
    return torch.stack([source, target])


class Layers(nn.Module):
    """One set of weights in all implementations; HGTConv, which takes no such weights, with its own."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.ours = Interaction(channels, heads)
        self.conv = TransformerConv(channels, channels // heads, heads=heads, root_weight=False)
        self.conv.lin_skip = None
        self.flex_size = (0, 0)
        self.hgt = HGTConv(channels, channels, ([NODE], [RELATION]), heads=heads)
        key, value = self.ours.key_value.weight.data.chunk(2)
        key_bias, value_bias = self.ours.key_value.bias.data.chunk(2)
        for linear, weight, bias in (
            (self.conv.lin_query, self.ours.query.weight, self.ours.query.bias),
            (self.conv.lin_key, key, key_bias),
            (self.conv.lin_value, value, value_bias),
        ):
            linear.weight.data.copy_(weight.data)
            linear.bias.data.copy_(bias.data)

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value ``[V, H, D]``."""
        size = self.ours.query.out_features // self.ours.heads
        key, value = self.ours.key_value(x).view(len(x), -1, size).chunk(2, dim=1)
        return self.ours.query(x).view(len(x), -1, size), key, value

    def run(self, name: str, graphs: Graphs) -> Callable[[Tensor], Tensor]:
        """What the implementation makes of nodes ``[V, C]``."""
        if name == "dense":
            place = torch.arange(len(graphs.adjacency) * graphs.size, device=graphs.index.device)
            return lambda x: self.ours(x, DenseEdges(graphs.adjacency, place, place))
        if name == "FlexAttention":
            return self.flex(graphs)
        return self.along(name, graphs.index)

    def along(self, name: str, index: Tensor) -> Callable[[Tensor], Tensor]:
        """An implementation that goes along a list of edges."""
        return {
            "edge": lambda x: self.ours(x, SparseEdges(index)),
            "messages": lambda x: self.ours.out(self.ours.messages(*self.projected(x), index).flatten(1)),
            "TransformerConv": lambda x: self.ours.out(self.conv(x, index)),
            "HGTConv": lambda x: self.hgt({NODE: x}, {RELATION: index})[NODE],
        }[name]

    def flex(self, graphs: Graphs) -> Callable[[Tensor], Tensor]:
        """FlexAttention, compiled for graphs of this number and size alone."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        count, size, adjacency = len(graphs.adjacency), graphs.size, graphs.adjacency
        if self.flex_size != (count, size):
            torch.compiler.reset()  # else a limit on recompilations turns the compiler off after some sizes
            self.flex_size = count, size
        attend = torch.compile(flex_attention, dynamic=False)
        mask = create_block_mask(
            lambda b, h, i, j: adjacency[b, i, j], count, None, size, size, device=adjacency.device.type
        )

        def run(x: Tensor) -> Tensor:
            query, key, value = (p.view(count, size, *p.shape[1:]).transpose(1, 2) for p in self.projected(x))
            mixed = attend(query, key, value, block_mask=mask)
            return self.ours.out(mixed.transpose(1, 2).reshape(count * size, -1))

        return run


def assert_agreement(device: torch.device) -> None:
    """Values and gradients of our routes and of TransformerConv with our weights, in float64.

    On graphs of many densities, with nodes that have no edge, send only, or receive only.
    """
    torch.manual_seed(0)
    layers = Layers(32, 4).double().to(device)
    adjacency = torch.rand(6, 23, 23) < torch.rand(6, 1, 1)
    adjacency[0, 3], adjacency[0, :, 3] = False, False
    adjacency[1, 2], adjacency[2, :, 2], adjacency[3] = False, False, False
    graph, target, source = adjacency.nonzero(as_tuple=True)
    index = torch.stack([graph * 23 + source, graph * 23 + target])
    graphs = Graphs("", adjacency.to(device), index.to(device))
    start, seed = torch.randn(2, 6 * 23, 32, dtype=torch.double, device=device)
    found = {}
    for name in NAMES[:4]:
        x = start.clone().requires_grad_()
        layers.zero_grad()
        y = layers.run(name, graphs)(x)
        y.backward(seed)
        conv, ours = layers.conv, layers.ours
        if name == "TransformerConv":
            projections = [
                getattr(conv.lin_query, kind).grad for kind in ("weight", "bias")
            ] + [
                torch.cat([getattr(conv.lin_key, kind).grad, getattr(conv.lin_value, kind).grad])
                for kind in ("weight", "bias")
            ]  # fmt: skip
        else:
            projections = [p.grad for p in (*ours.query.parameters(), *ours.key_value.parameters())]
        found[name] = [y.detach(), x.grad, *projections, *(p.grad for p in ours.out.parameters())]
    for name in NAMES[1:4]:
        torch.testing.assert_close(found[name], found["dense"], rtol=1e-9, atol=1e-11)


class Measured(NamedTuple):
    """What came out for some graphs: per implementation the milliseconds of each repeat, and the peak in bytes."""

    graphs: Graphs
    times: dict[str, np.ndarray]
    peaks: dict[str, int]
    left_out: dict[str, str]

    @property
    def chosen(self) -> str:
        """The route that ``auto`` takes."""
        return "dense" if self.graphs.density >= dense_from(self.graphs.size) else "edge"

    def median(self, name: str) -> float:
        return float(np.median(self.times[name]))


def step(run: Callable[[Tensor], Tensor], layers: nn.Module, x: Tensor, seed: Tensor) -> Step:
    """Forward and backward, which leaves no gradient behind."""

    def forward_and_backward() -> None:
        run(x).backward(seed)
        x.grad = None
        for p in layers.parameters():
            p.grad = None

    return forward_and_backward


def measured(graphs: Graphs, layers: Layers, device: torch.device, dtype: torch.dtype, quick: bool) -> Measured:
    """Times and memory of all implementations that can run on these graphs, whose values agree first."""
    print(f"{graphs.name}, T = {graphs.size}", file=sys.stderr, flush=True)
    graphs = graphs._replace(adjacency=graphs.adjacency.to(device), index=graphs.index.to(device))
    x = torch.randn(len(graphs.adjacency) * graphs.size, CHANNELS, device=device, dtype=dtype, requires_grad=True)
    seed = torch.randn_like(x)
    left_out, steps, peaks = {}, {}, {}
    with torch.no_grad():
        expected = layers.run("dense", graphs)(x)
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    for name in NAMES:
        if name == "FlexAttention" and device.type != "cuda":
            left_out[name] = "CUDA only"
            continue
        if graphs.index.shape[1] > EDGES.get(name, graphs.index.shape[1]):
            left_out[name] = "too many edges"
            continue
        try:
            run = layers.run(name, graphs)
            once = step(run, layers, x, seed)
            with torch.no_grad():
                y = run(x)
            if name != "HGTConv":
                loose = {"rtol": 0.02, "atol": 0.02} if name == "FlexAttention" else tolerance  # it may use TF32
                torch.testing.assert_close(y, expected, **loose)
            once()
            peaks[name] = peak_memory(once, device)
        except Exception as error:
            # FlexAttention alone: a compiler that fails must not cost the other rows.
            if name != "FlexAttention":
                raise
            left_out[name] = type(error).__name__
            print(f"FlexAttention: {error}", file=sys.stderr)
            continue
        steps[name] = once
    return Measured(graphs, measure(steps, device, quick), peaks, left_out)


def print_grid(points: Sequence[Measured]) -> None:
    """Times, then memory, of every implementation on every graph."""
    names = ("graphs", "T", "edges", *NAMES, "`auto` takes")
    for title, digits in (("Milliseconds of forward and backward: median [quartiles]", 1), ("Peak MiB", 0)):
        header(f"{title}. Beside the others, in parentheses, how many times ours by `auto`.", *names)
        for point in points:
            medians = {n: point.median(n) for n in point.times} if digits else dict(point.peaks)
            base = medians.get(point.chosen)
            cells = []
            for name in NAMES:
                if name in point.left_out:
                    cells.append(point.left_out[name])
                    continue
                cell = spread(point.times[name]) if digits else mib(point.peaks[name])
                cells.append(f"{cell} ({medians[name] / base:.2f})" if base and name != point.chosen else cell)
            graphs = point.graphs
            row(graphs.name, graphs.size, graphs.index.shape[1], *cells, point.chosen)


def print_crossing(points: Sequence[Measured]) -> None:
    """Where the dense and the edge route take the same time, and what the rule of ``route: auto`` loses."""
    both = [p for p in points if {"dense", "edge"} <= p.times.keys()]
    header("Density at which the edge route takes as long as the dense route, by size", "T", "density", "edge / dense")
    scattered = [p for p in both if p.graphs.name.startswith("random")]
    for size in sorted({p.graphs.size for p in scattered}):
        line = [p for p in scattered if p.graphs.size == size]
        x = np.log([p.graphs.density for p in line])
        y = np.log([p.median("edge") / p.median("dense") for p in line])
        where = [i for i in range(len(line) - 1) if y[i] <= 0 < y[i + 1]]
        if where:
            i = where[-1]
            crossing = f"{np.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i])):.1%}"
        else:
            crossing = "edge faster throughout" if len(y) and y.max() <= 0 else "dense faster throughout"
        ratios = ", ".join(f"{np.exp(b):.2f} at {np.exp(a):.0%}" for a, b in zip(x, y, strict=True))
        row(size, crossing, ratios)
    best = np.array([min(p.median("dense"), p.median("edge")) for p in both])
    for rule, taken in (
        ("`auto` (dense from a density of T / 3000, 8% at most)", np.array([p.median(p.chosen) for p in both])),
        ("always dense", np.array([p.median("dense") for p in both])),
        ("always edge", np.array([p.median("edge") for p in both])),
    ):
        lost = taken / best - 1
        worst = both[int(lost.argmax())].graphs
        print(
            f"\n{rule}: {lost.mean():.1%} more time than the faster route on average over {len(both)} measured points "
            f"({taken.sum() / best.sum() - 1:.1%} of the whole), at worst {lost.max():.0%} "
            f"({worst.name}, T = {worst.size}); right on {(lost == 0).sum()}"
        )


def print_growth(
    layers: Layers, device: torch.device, dtype: torch.dtype, points: Sequence[Measured], quick: bool
) -> tuple[float, float]:
    """How time grows with edges and with T. Returns the exponent of the edge route, in all and of the larger half."""
    counts = [1_000, 3_000, 10_000] if quick else [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
    names = ("edge", "messages", "TransformerConv")
    medians: dict[str, list[float]] = {name: [] for name in names}
    header("Milliseconds by number of edges: one graph, 7 edges to each node: median [quartiles]", "edges", *names)
    for count in counts:
        index = ring(count // 7).to(device)
        x = torch.randn(count // 7, CHANNELS, device=device, dtype=dtype, requires_grad=True)
        seed = torch.randn_like(x)
        steps = {name: step(layers.along(name, index), layers, x, seed) for name in names}
        times = measure(steps, device, quick)
        row(index.shape[1], *(spread(times[name], 2) for name in names))
        for name in names:
            medians[name].append(float(np.median(times[name])))
    header("Exponent of time as a power of the number of edges", "edges", *names)
    half = len(counts) // 2
    for label, part in (
        (f"{counts[0]:,} to {counts[-1]:,}", slice(None)),
        (f"from {counts[half]:,}", slice(half, None)),
    ):
        row(label, *(f"{exponent(counts[part], medians[name][part]):.2f}" for name in names))
    print(
        "\nThe first has calls in it whose fixed cost is most of the time; the second outgrows the processor's caches."
    )

    full = [
        p
        for p in points
        if p.graphs.name == "random, 100%" and len(p.graphs.adjacency) == len(points[0].graphs.adjacency)
    ]
    sizes, dense = [p.graphs.size for p in full], [p.median("dense") for p in full]
    tail = slice(-max(2, len(full) // 2), None)
    print(
        f"\nDense route, time as a power of T: {exponent(sizes, dense):.2f} from T = {sizes[0]} to {sizes[-1]}, "
        f"{exponent(sizes[tail], dense[tail]):.2f} from T = {sizes[tail][0]} (projections grow with T, attention with "
        "its square)."
    )
    return exponent(counts, medians["edge"]), exponent(counts[half:], medians["edge"][half:])


def print_outcomes(
    points: Sequence[Measured], exponents: tuple[float, float], device: torch.device, threads: int
) -> None:
    """What was asked of the layer, beside what came out."""
    named = {p.graphs.name: p for p in points}
    complete, window = named[COMPLETE], named[WINDOW]
    print(f"\nOutcomes ({device.type}, {threads} threads, forward and backward):\n")
    if "TransformerConv" in complete.times:
        ratio = complete.median("TransformerConv") / complete.median("dense")
        asked = f"dense route at least 25 times as fast as TransformerConv on the {COMPLETE}, T = 252, two cores"
        outcome(asked, f"{ratio:.1f} times", ratio >= 25)
    ratio = window.median("edge") / window.median("TransformerConv")
    outcome(f"edge route no slower than TransformerConv on the {WINDOW}", f"{ratio:.2f} of its time", ratio <= 1)
    ratio = window.peaks["edge"] / window.peaks["TransformerConv"]
    outcome("with at most half its peak memory", f"{ratio:.2f} of it", ratio <= 0.5)
    whole, tail = exponents
    outcome("exponent of the edge route at most 1.05", f"{whole:.2f}, {tail:.2f} of the larger half", whole <= 1.05)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of what is timed")
    arguments = parser.parse_args()
    device, dtype = begin(arguments), getattr(torch, arguments.dtype)
    assert_agreement(device)
    print("Both routes, message passing and TransformerConv agree in value and gradient (float64).")

    torch.manual_seed(0)
    layers = Layers(CHANNELS, HEADS).to(device, dtype)
    quick, graphs = arguments.quick, 1 if arguments.quick else 32
    sizes = (16, 32) if quick else (32, 64, 128, 252, 1024)
    densities = (0.05, 1.0) if quick else (0.01, 0.03, 0.1, 0.3, 1.0)
    points = [
        measured(utterance_graphs(COMPLETE, "complete", graphs), layers, device, dtype, quick),
        measured(utterance_graphs(WINDOW, "window(radius=3)", graphs), layers, device, dtype, quick),
    ]
    for size in sizes:
        # As many nodes at every size from T = 252 on: 32 graphs of 1024 nodes would take far longer and more memory.
        count = min(graphs, max(1, 32 * 252 // size))
        points += [measured(random_graphs(count, size, d), layers, device, dtype, quick) for d in densities]
    print(f"\n{graphs} graphs; of more than 252 nodes, as many as make {32 * 252} nodes.")
    print(f"{HEADS} heads, {CHANNELS} channels, {arguments.dtype}.")
    print_grid(points)
    print_crossing(points)
    exponents = print_growth(layers, device, dtype, points, quick)
    print_outcomes(points, exponents, device, arguments.threads)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
