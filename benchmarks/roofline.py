"""The share of this machine's best rate of matrix products that a training step reaches.

    python benchmarks/roofline.py

The floating-point operations of a step (forward, loss, backward) are counted as torch dispatches them, those of the
attention in padded graphs and of sparse products included. The roof is the time that the same products take, each
alone, by the fastest backend: MKL or oneDNN in float32, in which a step computes, or also oneDNN in bfloat16, in which
it does not. Steps and products take turns, in seconds of one core. The data are ``mosi_dev.pkl`` and made-up arrays of
the dimensions and lengths of the paper's files and of MMSA's of CMU-MOSI and CMU-MOSEI.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from common import ROOT, begin, header, machine, made_up, options, outcome, row, spread, training_utterances
from step import Graph
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gmsa.config import Config, load_config
from gmsa.data import Target, Utterance
from gmsa.models import build_model
from gmsa.training.examples import labeled_examples

aten = torch.ops.aten
# M x K times K x N; G graphs, H heads, R receivers, T nodes, D channels of each head; E edges of all heads
ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default: 2,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: 5,
}
"""Products of R x D x T that the attention takes: scores and mixing; backward the scores anew and four gradients."""
ASKED = 0.55
WARM = 2
"""Steps before the first that counts."""


class Product(NamedTuple):
    """The shape of a product of matrices."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each of M K N."""
        return 2 * self.m * self.k * self.n


class FlopCount(TorchDispatchMode):
    """Counts the floating-point operations of products, attention and sparse products, and the shapes of products.

    ``torch.utils.flop_counter`` knows neither the attention of a CPU nor sparse products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()
        self.attention = 0
        self.sparse = 0

    @property
    def flops(self) -> int:
        """All of them."""
        return sum(p.flops * count for p, count in self.products.items()) + self.attention + self.sparse

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (aten.mm.default, aten.addmm.default, aten.addmm.out, aten.addmm_.default):
            a, b = args[-2:]
            if a.layout == torch.strided:
                self.products[Product(*a.shape, b.shape[1])] += 1
            else:
                self.sparse += 2 * a._nnz() * b.shape[1]
        elif func in (aten.bmm.default, aten.bmm.out, aten.baddbmm.default, aten.baddbmm_.default):
            a, b = args[-2:]
            self.products[Product(*a.shape[1:], b.shape[2])] += len(a)
        elif func is aten.sparse_sampled_addmm.default:
            pattern, a, _ = args[:3]
            self.sparse += 2 * pattern._nnz() * a.shape[1]
        elif func in ATTENTION:
            query, key = args[1:3] if "backward" in func.__name__ else args[:2]
            self.attention += ATTENTION[func] * 2 * math.prod(query.shape) * key.shape[2]
        return result


class Backend(NamedTuple):
    """A way to multiply matrices."""

    name: str
    multiply: Callable[[Tensor, Tensor], Tensor]
    """The product of a ``[M, K]`` and the transpose of b ``[N, K]``."""
    kind: torch.dtype = torch.float32


def by_onednn(a: Tensor, b: Tensor) -> Tensor:
    """By oneDNN in float32."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return found


BACKENDS = (
    Backend("MKL, float32", lambda a, b: a @ b.t()),
    Backend("oneDNN, float32", by_onednn),
    Backend("oneDNN, bfloat16", lambda a, b: a @ b.t(), torch.bfloat16),
)
EXACT = 2
"""The first backends, which compute in float32 as a step does."""


class Setting(NamedTuple):
    """Data that a step is measured on."""

    name: str
    dims: Mapping[str, int]
    median: tuple[int, int, int] = (0, 0, 0)
    """Median steps of text, audio and vision."""
    longest: tuple[int, int, int] = (0, 0, 0)
    config: str = "mosi_graph"


SETTINGS = (
    Setting("the paper's dimensions", {"text": 1024, "audio": 1024, "vision": 256}, (17, 200, 40), (50, 400, 100)),
    Setting("MMSA's, unaligned CMU-MOSI", {"text": 768, "audio": 5, "vision": 20}, (13, 45, 55), (50, 375, 500)),
    Setting(
        "CMU-MOSEI's", {"text": 768, "audio": 74, "vision": 35}, (20, 130, 100), (50, 500, 500), config="mosei_graph"
    ),
)


def utterances_of(setting: Setting, count: int, *overrides: str) -> tuple[list[Utterance], Mapping[str, int], Config]:
    """Made-up utterances of a setting: the lengths of one are in proportion, log-normal, and cut at the longest."""
    factor = np.random.default_rng(0).lognormal(0, 0.52, count)
    pairs = zip(setting.median, setting.longest, strict=True)
    lengths = np.stack([np.clip(np.round(median * factor), 1, longest) for median, longest in pairs], axis=1)
    config = load_config(
        ROOT / "configs" / f"{setting.config}.yaml", ["data.path=synthetic", "data.name=mosi", *overrides], {}
    )
    return made_up(lengths.astype(int), setting.dims), setting.dims, config


def roof(products: Counter[Product], rounds: int) -> np.ndarray:
    """Seconds of each product by each backend, all its calls ``[products, backends]``: the least of some rounds."""
    found = np.empty((len(products), len(BACKENDS)))
    for place, (product, count) in enumerate(products.items()):
        a, b = torch.randn(product.m, product.k), torch.randn(product.n, product.k)
        pairs = [(a.to(backend.kind), b.to(backend.kind)) for backend in BACKENDS]
        calls = max(1, min(20, int(1e8 / max(1, product.flops))))
        seconds = np.full((rounds + 1, len(BACKENDS)), np.inf)
        for once in range(rounds + 1):
            for column, (backend, pair) in enumerate(zip(BACKENDS, pairs, strict=True)):
                began = time.process_time()
                for _ in range(calls):
                    backend.multiply(*pair)
                seconds[once, column] = (time.process_time() - began) / calls
        found[place] = count * seconds[1:].min(0)
    return found


class Measured(NamedTuple):
    """A step on some data: per step measured, its numbers ``[steps]``."""

    seconds: np.ndarray
    flops: np.ndarray
    attention: np.ndarray
    roofs: np.ndarray
    """Operations per second of the products alone, by each backend ``[steps, backends]``."""
    best: np.ndarray
    """The same where each product takes the fastest backend, in float32 and in any type ``[steps, 2]``."""


def measure_steps(
    utterances: Sequence[Utterance], dims: Mapping[str, int], config: Config, steps: int, rounds: int
) -> Measured:
    """Times some steps, their data included; counts each on the same batch again, and times its products."""
    torch.manual_seed(0)
    run = Graph(build_model(dims, config), config, torch.device("cpu"), labeled_examples(utterances, Target()), 1000)
    per_epoch = -(-len(utterances) // config.optim.batch_size)
    rows = []
    for done in range(-WARM, steps):
        if (done + WARM) % per_epoch == 0:
            run.begin((done + WARM) // per_epoch, alone=True)
            run.batches = twice(run.batches)
        began = time.process_time()
        run.step(False)
        seconds = time.process_time() - began
        with FlopCount() as count:
            run.step(False)
        if done < 0:
            continue
        took, flops = roof(count.products, rounds), sum(p.flops * n for p, n in count.products.items())
        best = [flops / took[:, :EXACT].min(1).sum(), flops / took.min(1).sum()]
        rows.append((seconds, count.flops, count.attention + count.sparse, flops / took.sum(0), best))
    return Measured(*map(np.array, zip(*rows, strict=True)))


def twice(batches: Iterable[Any]) -> Iterator[Any]:
    """Each batch two times."""
    for batch in batches:
        yield batch
        yield batch


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(threads=1)
    arguments = parser.parse_args()
    device, quick = begin(arguments), arguments.quick
    if device.type != "cpu":
        parser.error("the roof is that of a CPU; use --device cpu")
    steps, rounds, count = (2, 1, 64) if quick else (12, 3, 512)
    found, dims, config, what = training_utterances("mosi")
    cases: list[tuple[str, Sequence[Utterance], Mapping[str, int], Config]] = [(what, found[:count], dims, config)]
    cases += [(setting.name, *utterances_of(setting, count)) for setting in SETTINGS]
    header(
        "A training step of 32 utterances, and the roof: its products alone, by each backend. Medians [quartiles]",
        *("data", "GFLOP", "of it attention", "ms per step", "GFLOP/s"),
        *(f"roof, {backend.name}" for backend in BACKENDS),
        *("share of the roof in float32", "in any type"),
    )
    shares = []
    for name, utterances, widths, settings in cases:
        m = measure_steps(utterances, widths, settings, steps, rounds)
        rate = m.flops / m.seconds
        shares.append(np.median(rate[:, None] / m.best, axis=0))
        row(
            name,
            f"{np.median(m.flops) / 1e9:.2f}",
            f"{m.attention.sum() / m.flops.sum():.0%}",
            spread(1e3 * m.seconds),
            spread(rate / 1e9),
            *(f"{r / 1e9:.0f}" for r in np.median(m.roofs, axis=0)),
            *(f"{share:.0%}" for share in shares[-1]),
        )
    print("\nRoofs in GFLOP/s; a share is of the roof where each product takes the fastest backend.\n")
    for kind, least in zip(("float32", "any type"), np.min(shares, axis=0), strict=True):
        outcome(f"at least {ASKED:.0%} of the roof in {kind}, on all data", f"{least:.0%} at least", least >= ASKED)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
