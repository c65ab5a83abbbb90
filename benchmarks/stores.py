"""How time and memory of training grow with the utterances of a feature store: a part of ``scale.py``."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, drawn_lengths, exponent, header, made_up, mib, outcome, row

from gmsa.config import Config, load_config
from gmsa.data import Row, Utterance, write_store
from gmsa.data.synthetic import DIMS
from gmsa.models import build_model
from gmsa.runs.prepare import prepare
from gmsa.system.device import set_up
from gmsa.training.batches import Shard
from gmsa.training.loader import load_batches
from gmsa.training.tasks import FineTuning

SEED = 0


def mosi_like(count: int) -> np.ndarray:
    """Lengths ``[N, 3]`` as in ``mosi_dev.pkl``: words, one vector of audio, one of vision for three in ten."""
    rng = np.random.default_rng(0)
    return np.stack([drawn_lengths(rng, count), np.ones(count, int), rng.random(count) < 0.28], axis=1)


def print_exponents(what: str, x: Sequence[float], columns: dict[str, Sequence[float]]) -> None:
    """The exponents of all points, and of the larger half."""
    half = slice(-max(2, (len(x) + 1) // 2), None)
    parts = [f"{name} {exponent(x, y):.2f} ({exponent(x[half], y[half]):.2f})" for name, y in columns.items()]
    print(f"\nExponents by {what}, in parentheses those from {x[half][0]:,.0f} on: {'; '.join(parts)}.")


def anonymous() -> int | None:
    """Bytes of the process that lie in memory and in no file, on Linux: not those of a mapped store."""
    path = Path("/proc/self/smaps_rollup")
    found = re.search(r"^Anonymous: +(\d+) kB", path.read_text(), re.M) if path.exists() else None
    return None if found is None else 1024 * int(found[1])


def by_file(config: Config, device: torch.device, quick: bool) -> None:
    """Training on feature stores, each in a process of its own: memory that one gives back is no other's."""
    counts = [500, 2_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
    large, kilobytes = (200, 10) if quick else (20_000, 100)
    rows = [(f"{count:,}", count, mosi_like(1_000), DIMS) for count in counts]
    tall = np.tile([kilobytes // 2, kilobytes // 4, kilobytes // 4], (1_000, 1))
    rows.append((f"{large:,} of {kilobytes} kB", large, tall, dict.fromkeys(DIMS, 250)))
    header(
        f"Utterances in the file: a feature store (features of {', '.join(map(str, DIMS.values()))} dimensions)",
        *("utterances", "MB", "CPU s to write", "CPU s before the first batch", "µs of data work per utterance"),
        *("CPU ms per step", "MiB in training", "bytes of data per utterance"),
    )
    found: list[dict[str, Any]] = []
    for name, count, lengths, dims in rows:
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            store = write_store(f"{folder}/store", stored_rows(made_up(lengths, dims), count))
            written = time.process_time() - began
            size = sum(file.bytes for file in store.manifest.files.values())
            command = [sys.executable, __file__, str(store.path), str(torch.get_num_threads())]
            said = subprocess.run(
                [*command, str(device), str(int(quick))], capture_output=True, text=True, check=True
            ).stdout
        found.append(json.loads(said.splitlines()[-1]))
        new = found[-1]
        held = ["–", "–"] if new["bytes"] is None else [mib(new["bytes"]), f"{new['grown'] / count:,.0f}"]
        cells = [f"{size / 1e6:.0f}", f"{written:.1f}", f"{new['first']:.1f}", f"{1e3 * new['data']:.0f}"]
        row(name, *cells, f"{new['step']:.1f}", *held)
    sized = found[: len(counts)]
    columns = {"time before the first batch": [new["first"] for new in sized]}
    columns |= {} if sized[0]["bytes"] is None else {"memory": [new["bytes"] for new in sized]}
    print_exponents("utterances", counts, columns)
    if not quick:
        if sized[-1]["bytes"] is not None:
            held = sized[-1]["bytes"]
            outcome("1,000,000 utterances in less than 600 MB", f"{held / 1e6:.0f} MB", held < 600e6)
        outcome("first batch within 10 s", f"{sized[-1]['first']:.1f} s of CPU", sized[-1]["first"] < 10)
        data = found[-1]["data"]
        outcome("data work of 2 GB at most 0.2 ms per utterance", f"{data:.2f} ms", data <= 0.2)


def stored_rows(utterances: Sequence[Utterance], count: int) -> Iterator[Row]:
    """Rows of a store: utterances again and again, with new ids; a hundredth each validates and tests."""
    few = max(8, count // 100)
    for i in range(count):
        split = "train" if i < count - 2 * few else "valid" if i < count - few else "test"
        yield Row(split, dataclasses.replace(utterances[i % len(utterances)], id=f"v{i // 10}$_${i % 10}"))


def measure_store(path: str, device: torch.device, quick: bool) -> None:
    """Trains some steps on a store; prints what it takes as JSON."""
    config = load_config(ROOT / "configs" / "mosi_graph.yaml", [f"data.path={path}", "model.positions=1024"], {})
    set_up(config.run)  # as gmsa train does: one thread, and glibc keeps the memory that a step frees
    build_model(DIMS, config)  # loads what is loaded late
    before, began = anonymous(), time.process_time()
    prepared = prepare(config)
    config, data = prepared.config, prepared.training_data(prepared.config, SEED)
    context, valid = prepared.training_utterances, prepared.splits["valid"]
    task = FineTuning(config, dict(prepared.corpus.dims), data.labeled, context, valid, device)
    keys = ((SEED, "supervised", epoch) for epoch in itertools.count(1))
    batches = itertools.chain.from_iterable(load_batches(task, key, Shard(), 0, device) for key in keys)
    next(batches)
    first, after = time.process_time() - began, anonymous()
    model = task.build_module()
    optimizer = torch.optim.AdamW(model.parameters())
    times: list[tuple[float, float, int]] = []
    for _ in range(5 if quick else 100):
        laps = [time.process_time()]
        batch = next(batches)
        laps.append(time.process_time())
        optimizer.zero_grad()
        task.loss(model, batch, None, 0.0).backward()
        optimizer.step()
        laps.append(time.process_time())
        times.append((laps[1] - laps[0], laps[2] - laps[1], len(batch[0].ids)))
    work, steps, sizes = (np.array(column) for column in zip(*times, strict=True))
    found = {"first": first, "data": 1e3 * float(work.sum() / sizes.sum()), "step": 1e3 * float(np.median(steps))}
    grown = None if before is None or after is None else after - before
    print(json.dumps(found | {"grown": grown, "bytes": anonymous()}))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    measure_store(sys.argv[1], torch.device(sys.argv[3]), sys.argv[4] == "1")
