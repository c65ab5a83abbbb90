"""Importing, graph building and batching in utterances per second, against PyG's batching, and their share of a step.

    python benchmarks/data.py

The first epoch builds the edges of every length (or, for nearest neighbours, of every sequence), later ones find them
kept. PyG's ``Batch.from_data_list`` gets graphs that are built already. That both make the same graphs is asserted
first. One utterance graph per utterance, 32 to a batch in random order; in video graphs, whole videos.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from common import begin, find_data, header, machine, options, row, spread, training_utterances
from step import SEED, Graph
from torch_geometric.data import Batch, HeteroData

from gmsa.config import MODALITIES, Config, GraphConfig
from gmsa.data import Utterance, load_corpus
from gmsa.graph import NODE_TYPES, build, build_video, collate, connect, edges
from gmsa.models import build_model
from gmsa.rng import generator
from gmsa.training.examples import Units, labeled_examples

GRAPHS = {
    "complete": GraphConfig(),
    "window of radius 3": GraphConfig(intra="window", inter="window", radius=3),
    "knn within, complete across": GraphConfig(intra="knn"),
    "temporal of radius 3": GraphConfig(intra="temporal", inter="temporal", radius=3),
    "video": GraphConfig(scope="video"),
}
T = TypeVar("T")


def groups_of(utterances: Sequence[Utterance], config: Config) -> list[list[list[Utterance]]]:
    """Batches of the utterances of each graph: one, or those of a video in the order of its clips."""
    videos: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        key = utterance.video if config.graph.scope == "video" else utterance.id
        videos.setdefault(key, []).append(utterance)
    graphs = [sorted(video, key=lambda u: u.clip) for video in videos.values()]
    batches: list[list[list[Utterance]]] = [[]]
    for i in generator(SEED, "order").permutation(len(graphs)):
        if sum(map(len, batches[-1])) >= config.optim.batch_size:
            batches.append([])
        batches[-1].append(graphs[i])
    return batches


def built(graphs: Sequence[Sequence[Utterance]], config: Config) -> list[HeteroData]:
    """The graphs, as PyG has them."""
    if config.graph.scope == "video":
        return [build_video(graph, config.graph) for graph in graphs]
    return [build(graph[0], config.graph, config.model.strides) for graph in graphs]


def collated(graphs: Sequence[Sequence[Utterance]], config: Config) -> Any:
    """The graphs, as gmsa has them."""
    return collate([u for graph in graphs for u in graph], config)


def assert_agreement(graphs: Sequence[Sequence[Utterance]], config: Config) -> None:
    """Nodes, edges, labels and ids of a batch are those of PyG's."""
    ours, theirs = collated(graphs, config), Batch.from_data_list(built(graphs, config))
    found = ours.edge_index_dict()
    assert list(found) == theirs.edge_types

    def ordered(index: torch.Tensor) -> torch.Tensor:
        return index[:, torch.argsort(index[1] * 1_000_000 + index[0])]

    for relation in theirs.edge_types:
        assert torch.equal(ordered(found[relation]), ordered(theirs[relation].edge_index)), relation
    for node_type in NODE_TYPES:
        index = ours.node_index(node_type)
        assert len(index) == theirs[node_type].num_nodes
        assert torch.equal(ours.position[index], theirs[node_type].pos)
    torch.testing.assert_close(ours.labels, theirs.label, equal_nan=True)
    assert list(ours.ids) == [i for graph in graphs for i in (u.id for u in graph)]
    if config.graph.scope == "utterance":
        for modality, column in zip(MODALITIES, theirs.steps.T, strict=True):
            assert torch.equal(ours.lengths[modality], column)


def epochs_of(work: Callable[[T], Any], batches: Sequence[T], count: int, epochs: int) -> tuple[float, np.ndarray]:
    """Utterances per second of the first epoch and of each later one."""
    rates = []
    for _ in range(epochs + 1):
        began = time.perf_counter()
        for batch in batches:
            work(batch)
        rates.append(count / (time.perf_counter() - began))
    return rates[0], np.array(rates[1:])


def forget_edges() -> None:
    """Empties what graph building keeps, as in a new process."""
    edges._by_length.cache.clear()
    edges._BY_FEATURES.clear()
    connect._kept_edges.cache.clear()


def share_of_step(
    utterances: Sequence[Utterance], dims: dict[str, int], config: Config, device: torch.device, epochs: int
) -> tuple[float, float]:
    """Mean milliseconds of a training step, and the share of waiting for its batch, after an epoch to warm up."""
    torch.manual_seed(0)
    examples = labeled_examples(utterances, "mosi")
    steps = Units(examples, config).per_epoch
    run = Graph(build_model(dims, config), config, device, examples, (epochs + 1) * steps)
    laps = []
    for epoch in range(epochs + 1):
        run.begin(epoch)
        laps += [run.step() for _ in range(steps)]
    whole = [sum(lap.values()) for lap in laps[steps:]]
    return 1e3 * float(np.mean(whole)), sum(lap["data"] for lap in laps[steps:]) / sum(whole)


def import_rates(config: Config, repeats: int) -> tuple[int, np.ndarray]:
    """Utterances of the file, and utterances per second of reading it."""
    rates, count = [], 0
    for _ in range(repeats):
        began = time.perf_counter()
        count = sum(map(len, load_corpus(config.data).splits.values()))
        rates.append(count / (time.perf_counter() - began))
    return count, np.array(rates)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", choices=("mosi", "aligned"), default="mosi", help="lengths of the utterances")
    parser.add_argument("--epochs", type=int, default=5, help="epochs to time")
    arguments = parser.parse_args()
    device, epochs = begin(arguments), 1 if arguments.quick else arguments.epochs
    utterances, dims, plain, what = training_utterances(arguments.data)
    utterances = utterances[:64] if arguments.quick else utterances
    print(f"Data: {what}; {len(utterances)} utterances.")

    if arguments.data == "mosi" and find_data().is_file():
        count, rates = import_rates(plain, 1 if arguments.quick else 5)
        print(f"\nImport of {find_data().name}: {spread(rates, 0)} utterances per s, {count} in all.")
    header(
        "Utterances per second: median [quartiles] over epochs",
        *("graph", "build, first epoch", "build, later", "PyG's Batch of built graphs", "collate, first epoch"),
        *("collate, later", "collate / PyG's Batch", "ms of a batch", "ms of a step", "data's share"),
    )
    for name, graph in GRAPHS.items():
        config = dataclasses.replace(plain, graph=graph)
        batches = groups_of(utterances, config)
        forget_edges()
        first, later = epochs_of(lambda g, c=config: collated(g, c), batches, len(utterances), epochs)
        forget_edges()
        first_build, build_later = epochs_of(lambda g, c=config: built(g, c), batches, len(utterances), epochs)
        for graphs in batches[:4]:
            assert_agreement(graphs, config)
        ready = [built(graphs, config) for graphs in batches]
        _, peer = epochs_of(Batch.from_data_list, ready, len(utterances), epochs)
        step, share = share_of_step(utterances, dims, config, device, epochs)
        row(
            name,
            f"{first_build:.0f}",
            spread(build_later, 0),
            spread(peer, 0),
            f"{first:.0f}",
            spread(later, 0),
            f"{np.median(later) / np.median(peer):.1f}",
            f"{1e3 * len(utterances) / len(batches) / np.median(later):.2f}",
            f"{step:.1f}",
            f"{share:.1%}",
        )
    print("\ncollate and PyG's batching gave the same nodes, edges, labels and ids in each of these graphs.")
    print("A step's data is more than its batch: order, hidden modalities and targets.")
    if device.type == "cuda":
        print("On a GPU the data of a step is what it waits for: a thread builds each batch during the step before.")
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
