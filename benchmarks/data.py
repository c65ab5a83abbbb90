"""Importing, the feature store, graph building and batching in utterances per second, and their share of a step.

    python benchmarks/data.py
    python benchmarks/data.py --part store --train

The store is written, opened and read at 10^3 to 10^6 utterances (short ones, about 0.6 kB), each in a process of its
own, so that its memory can be told; files are in the kernel's cache. That what is read is what was written is asserted
first. ``--train`` also trains an epoch on 200,000 of them and says what memory that took.

The first epoch builds the edges of every length (or, for nearest neighbours, of every sequence), later ones find them
kept. PyG's ``Batch.from_data_list`` gets graphs that are built already. That both make the same graphs is asserted
first. One utterance graph per utterance, 32 to a batch in random order; in graphs of dialogues, whole dialogues.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from common import (
    ROOT,
    begin,
    exponent,
    find_data,
    header,
    machine,
    mib,
    options,
    outcome,
    row,
    spread,
    training_utterances,
)
from step import SEED, Graph
from torch_geometric.data import Batch, HeteroData

from gmsa.config import MODALITIES, Config, GraphConfig
from gmsa.data import Row, Store, Target, Utterance, load_corpus, write_store
from gmsa.graph import build_dialogue_graph, build_graph, collate, kept
from gmsa.models import build_model, graph_spec
from gmsa.rng import generator
from gmsa.training.batches import SampleGroups
from gmsa.training.examples import labeled_examples

GRAPHS = {
    "complete": GraphConfig(),
    "window of radius 3": GraphConfig(intra="window", inter="window", radius=3),
    "knn within, complete across": GraphConfig(intra="knn"),
    "temporal of radius 3": GraphConfig(intra="temporal", inter="temporal", radius=3),
    "dialogue": GraphConfig(scope="dialogue"),
}
T = TypeVar("T")
STORED = {"text": 16, "audio": 8, "vision": 8}
"""Features per step of the utterances that are stored."""
CHUNK = 4096
"""Utterances that the range reader takes at a time."""


def groups_of(utterances: Sequence[Utterance], config: Config) -> list[list[list[Utterance]]]:
    """Batches of the utterances of each graph: one, or those of a video in the order of its clips."""
    videos: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        key = utterance.video if config.graph.scope == "dialogue" else utterance.id
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
    if config.graph.scope == "dialogue":
        return [build_dialogue_graph(graph, config.graph) for graph in graphs]
    return [build_graph(graph[0], config.graph, graph_spec(config).strides) for graph in graphs]


def collated(graphs: Sequence[Sequence[Utterance]], config: Config) -> Any:
    """The graphs, as gmsa has them."""
    return collate([u for graph in graphs for u in graph], graph_spec(config))


def assert_agreement(graphs: Sequence[Sequence[Utterance]], config: Config) -> None:
    """Nodes, edges, labels and ids of a batch are those of PyG's."""
    ours, theirs = collated(graphs, config), Batch.from_data_list(built(graphs, config))
    found = ours.edge_index_dict()
    assert list(found) == theirs.edge_types

    def ordered(index: torch.Tensor) -> torch.Tensor:
        return index[:, torch.argsort(index[1] * 1_000_000 + index[0])]

    for relation in theirs.edge_types:
        assert torch.equal(ordered(found[relation]), ordered(theirs[relation].edge_index)), relation
    for node_type in ours.schema.node_types:
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
    for found in (kept._by_length, kept._by_content, kept.kept_edges):
        found.cache.clear()


def share_of_step(
    utterances: Sequence[Utterance], dims: dict[str, int], config: Config, device: torch.device, epochs: int
) -> tuple[float, float]:
    """Mean milliseconds of a training step, and the share of waiting for its batch, after an epoch to warm up."""
    torch.manual_seed(0)
    examples = labeled_examples(utterances, Target())
    steps = SampleGroups(examples, config).per_epoch
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


def stored_rows(count: int) -> Iterator[Row]:
    """Made-up utterances: 1 to 11 steps of text, 0 to 5 of audio and vision, ten clips to a video."""
    torch.manual_seed(0)
    noise = {m: torch.randn(1000, dim) for m, dim in STORED.items()}
    lengths = np.random.default_rng(0).integers((1, 0, 0), (12, 6, 6), (997, 3)).tolist()
    for i in range(count):
        split = "train" if i < 8 * count // 10 else "valid" if i < 9 * count // 10 else "test"
        start = i % 983  # prime to 997, so that the pairs of features and lengths come again after a million
        sizes = zip(noise.items(), lengths[i % 997], strict=True)
        features = {m: values[start : start + n] for (m, values), n in sizes}
        yield Row(split, Utterance(f"v{i // 10}$_${i % 10}", features, (i % 13 - 6) / 2, text="some words were said"))


def peak_rss() -> float:
    """Most bytes that this process has had in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # what rusage says begins with the memory of the process that started this one
        return 1024 * float(next(line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_measured(path: str, count: int) -> dict[str, float]:
    """Writes a store: utterances per second, and what memory grew by meanwhile."""
    for _ in stored_rows(10):
        pass
    before, began = peak_rss(), time.perf_counter()
    write_store(path, stored_rows(count))
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in Path(path).iterdir())
    return {"write": count / seconds, "write_rss": peak_rss() - before, "size": size}


def read_measured(path: str, repeats: int) -> dict[str, float]:
    """Opens and reads a store: milliseconds, utterances per second in three ways, and what memory grew by."""
    torch.set_num_threads(1)
    before = peak_rss()
    opened = []
    for _ in range(5):
        began = time.perf_counter()
        store = Store(path)
        opened.append(1e3 * (time.perf_counter() - began))
    count, whole = len(store), store.utterances()
    for i, expected in enumerate(stored_rows(count)):
        if i % max(1, count // 1000) == 0:
            found = whole[i]
            assert (found.id, found.label, found.text) == (expected[1].id, expected[1].label, expected[1].text)
            for m, sequence in expected[1].features.items():
                assert torch.equal(found.features[m], sequence)
                start = i // CHUNK * CHUNK
                values, offsets = store.read_sequences(m, start, min(count, start + CHUNK))
                assert torch.equal(values[offsets[i - start] : offsets[i - start + 1]], sequence)
    order = generator(SEED, "order").permutation(count)[:20_000].tolist()

    def in_order() -> int:
        for utterance in whole:
            features = utterance.features
            for modality in STORED:
                features[modality]
        return count

    def at_random() -> int:
        for i in order:
            features = whole[i].features
            for modality in STORED:
                features[modality]
        return len(order)

    def by_range() -> int:
        for start in range(0, count, CHUNK):
            for modality in STORED:
                store.read_sequences(modality, start, min(count, start + CHUNK))
        return count

    found_rates: dict[str, float] = {"open": float(np.median(opened))}
    for name, work in (("order", in_order), ("random", at_random), ("range", by_range)):
        rates = []
        for _ in range(repeats):
            began = time.perf_counter()
            done = work()
            rates.append(done / (time.perf_counter() - began))
        found_rates[name], found_rates[f"{name}_best"] = float(np.median(rates)), max(rates)
    return found_rates | {"read_rss": peak_rss() - before}


def apart(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What a function returns that runs in a process of its own, whose peak of memory begins anew."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def store_growth(folder: Path, sizes: Sequence[int], repeats: int) -> None:
    """A table with a row per number of utterances."""
    header(
        f"Feature store: utterances per second, the median of {repeats}, by the number of utterances",
        *("utterances", "MB", "written", "open [ms]", "read in order", "read at random", f"by ranges of {CHUNK}"),
        *("memory to write [MiB]", "memory to read [MiB]"),
    )
    found = []
    for count in sizes:
        path = str(folder / str(count))
        this = apart(write_measured, path, count) | apart(read_measured, path, repeats)
        found.append(this)
        rates = [f"{this[name]:,.0f}" for name in ("order", "random", "range")]
        memory = [mib(this[name]) for name in ("write_rss", "read_rss")]
        row(f"{count:,}", f"{this['size'] / 1e6:.1f}", f"{this['write']:,.0f}", f"{this['open']:.1f}", *rates, *memory)
    for name, what in (("open", "milliseconds to open"), ("size", "bytes")) if len(found) > 1 else ():
        print(
            f"\nGrowth of {what}: as the number of utterances to the power of "
            f"{exponent(sizes, [this[name] for this in found]):.2f}."
        )
    print()
    opened = max(this["open"] for this, count in zip(found, sizes, strict=True) if count <= 200_000)
    outcome("to open 200,000 utterances in less than 100 ms", f"{opened:.1f} ms", opened < 100)
    large = next(this for this, count in reversed([*zip(found, sizes, strict=True)]) if count <= 200_000)
    measured = f"{large['order']:,.0f}, the best of {repeats} {large['order_best']:,.0f}"
    outcome("at least 50,000 utterances per second read in order, one by one", measured, large["order"] >= 50_000)


def train_memory(folder: Path, count: int) -> None:
    """Trains an epoch on a store in another process, and says what memory that took at most."""
    path = folder / str(count)
    if not path.exists():
        apart(write_measured, str(path), count)
    command = [sys.executable, "-m", "gmsa.train", "--config", str(ROOT / "configs" / "mosi_graph.yaml")]
    command += ["--out", str(folder / "run"), "--seeds", "1", "--device", "cpu"]
    settings = ("model.channels=16", "model.heads=2", "optim.epochs=1", "optim.min_steps=0", "optim.batch_size=256")
    for setting in (f"data.path={path}", "data.name=stored", "protocol.name=supervised", "run.threads=1", *settings):
        command += ["--set", setting]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr, cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    peak, seconds = used.ru_maxrss * 1024, time.perf_counter() - began
    print(f"\nAn epoch on {count:,} stored utterances, with validation and test: {seconds:.0f} s.\n")
    outcome("training with resident memory under 1.5 GB", f"{peak / 1e9:.2f} GB", peak < 1.5e9)


def graph_rates(arguments: Any, device: torch.device) -> None:
    """Tables of importing, graph building and batching."""
    epochs = 1 if arguments.quick else arguments.epochs
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


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--part", choices=("all", "graphs", "store"), default="all", help="what to measure")
    parser.add_argument("--data", choices=("mosi", "aligned"), default="mosi", help="lengths of the utterances")
    parser.add_argument("--epochs", type=int, default=5, help="epochs to time")
    parser.add_argument("--most", type=int, default=1_000_000, help="utterances of the largest store")
    parser.add_argument("--train", action="store_true", help="also train an epoch on a store of 200,000 utterances")
    arguments = parser.parse_args()
    device = begin(arguments)
    if arguments.part != "graphs":
        with tempfile.TemporaryDirectory() as folder:
            most = 10_000 if arguments.quick else arguments.most
            sizes = [count for count in (1000, 10_000, 100_000, 200_000, 1_000_000) if count <= most]
            store_growth(Path(folder), sizes, 1 if arguments.quick else 3)
            if arguments.train:
                train_memory(Path(folder), 2000 if arguments.quick else 200_000)
    if arguments.part != "store":
        graph_rates(arguments, device)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
