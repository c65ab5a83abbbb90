"""How time and memory of a training step grow, with the batch, sequences, edges and file; and predictions per second.

    python benchmarks/scale.py
    python benchmarks/scale.py --part prediction

Forward, loss, backward, clipping, optimizer and average of Semi-IIN, the batch's collation included. All utterances are
made up. An exponent is the slope of a line through the logarithms: 1 is linear growth.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from common import (
    MOSI_DEV,
    PAPER,
    ROOT,
    begin,
    header,
    machine,
    made_up,
    measure,
    mib,
    options,
    outcome,
    paper_lengths,
    peak_memory,
    row,
    spread,
)
from step import Run
from stores import by_file, mosi_like, print_exponents
from torch import nn

from gmsa.config import Config, GraphConfig, load_config
from gmsa.data import Target, Utterance
from gmsa.graph import GraphBatch, collate
from gmsa.models import build_model, graph_spec
from gmsa.nn import DenseEdges
from gmsa.training.batches import MOST_NODES, scoring_batches
from gmsa.training.examples import Targets, labeled_examples
from gmsa.training.prefetch import prefetch

ANY = 10**9
"""Nodes of a batch without a bound."""
NAMED = (50, 400, 150)
"""Steps of text, audio and vision that make 250 tokens."""


class Repeated(Run):
    """Training on one batch, which is collated anew for every step."""

    def __init__(self, utterances: Sequence[Utterance], config: Config, device: torch.device) -> None:
        torch.manual_seed(0)
        dims = {m: x.shape[1] for m, x in utterances[0].features.items()}
        super().__init__(build_model(dims, config), config, device, steps=1_000)
        self.utterances = utterances
        examples = labeled_examples(utterances, Target())
        self.targets = Targets(torch.tensor([e.value for e in examples]), torch.stack([e.classes for e in examples]))
        self.begin(0, alone=True)

    def epoch_batches(self, epoch: int) -> Iterator[tuple[GraphBatch, Targets]]:
        while True:
            yield collate(self.utterances, graph_spec(self.config)), self.targets

    def measured(self, quick: bool) -> tuple[np.ndarray, int]:
        """Milliseconds of each step, and the peak of one in bytes."""
        times = measure({"step": lambda: self.step(apart=False)}, self.device, quick)["step"]
        self.optimizer.zero_grad(set_to_none=True)
        return times, peak_memory(self.step, self.device)


def with_route(config: Config, route: str) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, route=route))


def by_batch(config: Config, device: torch.device, quick: bool) -> None:
    sizes = [8, 16] if quick else [8, 16, 32, 64, 128, 256]
    utterances = made_up(mosi_like(max(sizes)), MOSI_DEV)
    header("Batch size (lengths like mosi_dev.pkl's)", "utterances", "ms per step", "ms per utterance", "peak MiB")
    times, peaks = [], []
    for size in sizes:
        found, peak = Repeated(utterances[:size], config, device).measured(quick)
        times.append(float(np.median(found)))
        peaks.append(peak)
        row(size, spread(found), f"{times[-1] / size:.2f}", mib(peak))
    print_exponents("batch size", sizes, {"time": times, "memory": peaks})


def by_length(config: Config, device: torch.device, quick: bool) -> None:
    totals, size = ([16, 64], 4) if quick else ([16, 32, 64, 128, 256, 512, 1024], 16)
    header(
        f"Tokens of an utterance ({size} utterances; a fifth text, a fifth audio, the rest vision; complete graphs)",
        *("tokens", "ms per step", "µs per token", "peak MiB"),
    )
    times, peaks = [], []
    for total in totals:
        fifth = total // 5
        lengths = np.tile([fifth, 8 * fifth, total - 2 * fifth], (size, 1))
        found, peak = Repeated(made_up(lengths, MOSI_DEV), config, device).measured(quick)
        times.append(float(np.median(found)))
        peaks.append(peak)
        row(total, spread(found), f"{1e3 * times[-1] / total / size:.1f}", mib(peak))
    print_exponents("tokens", totals, {"time": times, "memory": peaks})


def by_edges(config: Config, device: torch.device, quick: bool) -> None:
    radii: list[int | None] = [1, None] if quick else [1, 2, 4, 8, 16, 32, 64, None]
    size = 2 if quick else 16
    utterances = made_up(np.tile(NAMED, (size, 1)), MOSI_DEV)
    header(
        f"Edges of an utterance ({size} utterances, T = 252; windows within and across modalities)",
        *("radius", "edges, intra + inter", "`auto` takes", "ms, auto", "ms, edge", "ms, dense"),
        *("MiB, auto", "MiB, edge", "MiB, dense"),
    )
    edges: list[float] = []
    times: dict[str, list[float]] = {"auto": [], "edge": [], "dense": []}
    peaks: dict[str, list[float]] = {"auto": [], "edge": [], "dense": []}
    for radius in radii:
        graph = GraphConfig() if radius is None else GraphConfig(intra="window", inter="window", radius=radius)
        chosen = dataclasses.replace(config, graph=graph)
        batch = collate(utterances, graph_spec(chosen))
        taken = [f"{s}: {'dense' if isinstance(e, DenseEdges) else 'edge'}" for s, e in batch.edges.items()]
        edges.append(sum(batch.edge_index(stream).shape[1] for stream in batch.edges) / size)
        cells = []
        for route, column in times.items():
            found, peak = Repeated(utterances, with_route(chosen, route), device).measured(quick)
            column.append(float(np.median(found)))
            peaks[route].append(peak)
            cells.append(spread(found))
        row(
            "complete" if radius is None else radius,
            f"{edges[-1]:.0f}",
            ", ".join(taken),
            *cells,
            *(mib(column[-1]) for column in peaks.values()),
        )
    columns = {
        "time": times["auto"],
        "time of the edge route": times["edge"],
        "memory of the edge route": peaks["edge"],
    }
    print_exponents("edges", edges, columns)


def by_prediction(config: Config, device: torch.device, quick: bool) -> None:
    """Utterances per second that are scored, in batches with and without a bound on their nodes."""
    count, sizes = (32, [4, 16]) if quick else (256, [8, 32, 128])
    kinds = {
        "like mosi_dev.pkl's": (mosi_like(count), MOSI_DEV),
        "like CMU-MOSI's, unaligned": (paper_lengths("mosi", count) // (10 if quick else 1) + 1, PAPER),
    }
    header(
        f"Scored utterances per second ({count} utterances)",
        *("lengths", "optim.batch_size", f"at most {MOST_NODES} nodes", "any number of nodes", "ratio"),
    )
    for name, (lengths, dims) in kinds.items():
        utterances = made_up(lengths, dims)
        torch.manual_seed(0)
        model = build_model(dims, config).to(device).eval()
        chosen = {
            (size, most): partial(answers, model, utterances, with_batch(config, size), device, most)
            for size in sizes
            for most in (MOST_NODES, ANY)
        }
        first = chosen[sizes[0], ANY]()
        for answer in chosen.values():
            torch.testing.assert_close(answer(), first, rtol=0, atol=1e-5)
        times = measure({str(key): answer for key, answer in chosen.items()}, device, quick)
        rate = {key: 1e3 * count / np.median(times[str(key)]) for key in chosen}
        for size in sizes:
            bounded, unbounded = rate[size, MOST_NODES], rate[size, ANY]
            row(name, size, f"{bounded:.0f}", f"{unbounded:.0f}", f"{bounded / unbounded:.2f}")
        if not quick:
            ratio = rate[128, MOST_NODES] / rate[32, MOST_NODES]
            outcome("128 at a time no slower than 32, but for noise", f"{ratio:.2f} times as fast", ratio >= 0.97)


def with_batch(config: Config, size: int) -> Config:
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch_size=size))


def answers(
    model: nn.Module, utterances: Sequence[Utterance], config: Config, device: torch.device, most_nodes: int
) -> torch.Tensor:
    """Predicted intensities ``[N]``, in batches of at most so many nodes."""
    found = torch.zeros(len(utterances), device=device)
    with torch.inference_mode():
        batches = scoring_batches(utterances, config, most_nodes=most_nodes)
        for rows, places, batch in prefetch(batches, device):
            found[places] = model(batch).value[rows]
    return found


def main() -> None:
    parser = options(__doc__)
    parts = ("all", "batch", "length", "edges", "file", "prediction")
    parser.add_argument("--part", choices=parts, default="all", help="what to measure")
    arguments = parser.parse_args()
    device = begin(arguments)
    config = load_config(ROOT / "configs" / "mosi_graph.yaml", ["data.path=synthetic", "model.positions=1024"], {})
    sweeps = {"batch": by_batch, "length": by_length, "edges": by_edges, "file": by_file, "prediction": by_prediction}
    for name, sweep in sweeps.items():
        if arguments.part in ("all", name):
            sweep(config, device, arguments.quick)
            gc.collect()
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
