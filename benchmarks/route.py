"""Where the dense route of the interaction layer overtakes the edge route: the evidence for ``route: auto``.

    python benchmarks/route.py

Forward and backward of one layer (128 channels, 8 heads) on random directed graphs, medians of several runs.
The two routes are first shown to agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from common import machine

from gmsa.nn import Interaction

BATCH, REPEATS = 32, 7


def median(step: Callable[[], None]) -> float:
    """Median milliseconds of a step, after two to warm up."""
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times[2:]))


def main() -> None:
    torch.manual_seed(0)
    layer = Interaction(128, 8)
    print("| T | density | edges | dense [ms] | edge [ms] | edge / dense |")
    print("| --: | --: | --: | --: | --: | --: |")
    for size in (16, 64, 256):
        x = torch.randn(BATCH, size, 128, requires_grad=True)
        for density in (0.005, 0.01, 0.02, 0.05, 0.2, 1.0):
            adjacency = torch.rand(BATCH, size, size) < density
            utterance, target, source = adjacency.nonzero(as_tuple=True)
            edges = torch.stack([utterance * size + source, utterance * size + target])
            torch.testing.assert_close(layer(x, adjacency), layer(x, edges), rtol=1e-4, atol=1e-5)
            dense = median(lambda x=x, a=adjacency: layer(x, a).sum().backward())
            edge = median(lambda x=x, e=edges: layer(x, e).sum().backward())
            print(f"| {size} | {density:g} | {edges.shape[1]} | {dense:.1f} | {edge:.1f} | {edge / dense:.2f} |")
    print(machine())


if __name__ == "__main__":
    main()
