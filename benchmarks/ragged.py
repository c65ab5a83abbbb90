"""Evaluation of utterances of any length, beside torch's own transformer with its fast paths.

    python benchmarks/ragged.py

A stack of two interaction layers over complete graphs is, up to a norm of what goes in and comes out, a
``nn.TransformerEncoder`` with the norms after the sublayers: that both give the same, in float64, is asserted first.
torch's encoder is given the batch already padded, and may turn it into nested tensors, which have no padding
(``enable_nested_tensor``). All take turns, on batches in random order and sorted by length, as gmsa scores utterances,
in seconds of one core. The data are those of ``roofline.py``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from common import CPU_SECONDS, begin, header, machine, measure, options, outcome, row, spread, training_utterances
from roofline import SETTINGS, utterances_of
from torch import Tensor, nn

from gmsa.data import Utterance
from gmsa.graph import GraphBatch, collate
from gmsa.models import graph_spec
from gmsa.nn import DenseEdges, Stream
from gmsa.nn.layers.size_groups import group_by_size

# G graphs of up to T nodes, V nodes and W readout nodes of all of them, C channels
CHANNELS, HEADS, LAYERS = 128, 8, 2
BATCH = 32
NESTED = "nn.TransformerEncoder, nested tensors"
ALL = "gmsa, all nodes"


class Batch(NamedTuple):
    """The graphs of some utterances, all of whose nodes are joined."""

    nodes: Tensor
    """States ``[V, C]``."""
    edges: DenseEdges
    to_readouts: DenseEdges
    readouts: Tensor
    padded: Tensor
    """The same states padded ``[G, T, C]``."""
    hidden: Tensor
    """Which of the padded are no nodes ``[G, T]``."""

    def double(self) -> Batch:
        """The same in float64."""
        return self._replace(nodes=self.nodes.double(), padded=self.padded.double())


def join_all(batch: GraphBatch) -> Batch:
    """A batch with random states, whose graphs are complete."""
    graphs, size, most = batch.shape
    there = torch.zeros(graphs * size, dtype=torch.bool).index_fill(0, batch.padded_index, True).view(graphs, size)
    sizes = there.sum(1).numpy()
    adjacency = there[:, :, None] & there[:, None, :]
    nodes = torch.randn(len(batch.padded_index), CHANNELS)
    groups, readout_groups = group_by_size(sizes), group_by_size(sizes, np.full(graphs, most))
    return Batch(
        nodes,
        DenseEdges(adjacency, batch.padded_index, batch.padded_index, groups),
        DenseEdges(adjacency[:, :most], batch.padded_index, batch.readout_padded_index, readout_groups),
        batch.readout_index,
        nodes.new_zeros(graphs * size, CHANNELS).index_copy(0, batch.padded_index, nodes).view(graphs, size, -1),
        ~there,
    )


def encoder_of(stream: Stream, nested: bool) -> nn.TransformerEncoder:
    """torch's encoder with the weights of a stream of shared layers."""
    layer = nn.TransformerEncoderLayer(CHANNELS, HEADS, 4 * CHANNELS, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=nested)
    (ours,) = stream.layers
    attention: Any = ours.get_submodule("attention")
    known = {f"self_attn.out_proj.{name}": p for name, p in attention.out.named_parameters()}
    for name in ("weight", "bias"):
        both = [getattr(attention.query, name), getattr(attention.key_value, name)]
        known[f"self_attn.in_proj_{name}"] = torch.cat(both)
    parts = {"linear1": "ffn.0", "linear2": "ffn.2", "norm1": "norm_mid", "norm2": "norm_in"}
    for theirs, own in parts.items():
        known |= {f"{theirs}.{name}": p for name, p in ours.get_submodule(own).named_parameters()}
    for each in encoder.layers:
        each.load_state_dict(known)
    return encoder.eval()


def by_stream(stream: Stream, batch: Batch) -> Tensor:
    """The states of all nodes ``[V, C]``, normalized as the next layer would."""
    found: Tensor = stream.layers[0].get_submodule("norm_in")(stream(batch.nodes, batch.edges))
    return found


def by_readouts(streams: list[Stream], batch: Batch) -> list[Tensor]:
    """The states of the readout nodes ``[W, C]`` that each stream gives."""
    return [stream(batch.nodes, batch.edges, batch.to_readouts, batch.readouts) for stream in streams]


def by_encoder(encoder: nn.TransformerEncoder, norm: nn.Module, batch: Batch) -> Tensor:
    """What torch's encoder makes of the padded states ``[G, T, C]``."""
    found: Tensor = encoder(norm(batch.padded), src_key_padding_mask=batch.hidden)
    return found


@contextmanager
def without_fast_path() -> Any:
    """torch's encoder as it is in training."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def plainly(run: Callable[[], Tensor]) -> Tensor:
    """Runs without torch's fast path."""
    with without_fast_path():
        return run()


@torch.inference_mode()
def assert_equal(stream: Stream, batch: Batch) -> None:
    """All ways give the same, in float64."""
    double, given = stream.double(), batch.double()
    expected = by_stream(double, given)
    norm = double.layers[0].get_submodule("norm_in")
    for nested in (True, False):
        found = by_encoder(encoder_of(double, nested).double(), norm, given)
        real = found.flatten(0, 1)[: given.hidden.numel()].index_select(0, given.edges.source_index)
        torch.testing.assert_close(real, expected, rtol=1e-8, atol=1e-9)
    whole = dataclasses.replace(given.edges, groups=None)
    torch.testing.assert_close(by_stream(double, given._replace(edges=whole)), expected, rtol=1e-8, atol=1e-9)
    (read,) = by_readouts([double], given)
    torch.testing.assert_close(norm(read), expected.index_select(0, given.readouts), rtol=1e-8, atol=1e-9)
    stream.float()


@torch.inference_mode()
def compare(name: str, batches: list[Batch], device: torch.device, quick: bool) -> dict[str, float]:
    """Prints a table; returns how many times as fast gmsa is as each way of torch's."""
    torch.manual_seed(0)
    streams = [Stream(CHANNELS, HEADS, LAYERS).eval() for _ in range(2)]
    stream, norm = streams[0], streams[0].layers[0].get_submodule("norm_in")
    assert_equal(stream, batches[0])
    nested, padded = (encoder_of(stream, kind) for kind in (True, False))

    def over(run: Callable[[Batch], Any]) -> Callable[[], None]:
        return lambda: [run(batch) for batch in batches] and None

    ways: dict[str, Callable[[], None]] = {
        ALL: over(partial(by_stream, stream)),
        "gmsa, the readout nodes of the last layer alone": over(partial(by_readouts, [stream])),
        "gmsa, the same of two streams": over(partial(by_readouts, streams)),
        NESTED: over(partial(by_encoder, nested, norm)),
        "nn.TransformerEncoder, padded": over(partial(by_encoder, padded, norm)),
        "nn.TransformerEncoder, padded, no fast path": over(
            lambda batch: plainly(partial(by_encoder, padded, norm, batch))
        ),
    }
    times = measure(ways, device, quick, CPU_SECONDS)
    nodes = sum(len(batch.nodes) for batch in batches)
    share = 1 - nodes / sum(batch.hidden.numel() for batch in batches)
    header(
        f"{name}: {nodes // len(batches)} nodes per batch, {share:.0%} padding; medians [quartiles]",
        *("", "ms per batch", "of gmsa's, all nodes"),
    )
    for way, found in times.items():
        ratio = np.median(found) / np.median(times[ALL])
        row(way, spread(found / len(batches), 2), f"{ratio:.2f}")
    return {way: float(np.median(times[way]) / np.median(times[ALL])) for way in ways if way.startswith("nn.")}


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(threads=1)
    arguments = parser.parse_args()
    device, quick = begin(arguments), arguments.quick
    if device.type != "cpu":
        parser.error("seconds of one core are those of a CPU; use --device cpu")
    warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
    count = 2 if quick else 6
    found, _, config, what = training_utterances("mosi")
    made = [(s.name, *utterances_of(s, 4 * count * BATCH)) for s in SETTINGS[2 if quick else 0 :]]
    cases = [(what, found, config), *((name, parts, settings) for name, parts, _, settings in made)]
    ratios = []
    for name, utterances, settings in cases:
        spec = graph_spec(settings)

        def graphs(order: list[Utterance], spec: Any = spec) -> list[Batch]:
            parts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
            return [join_all(collate(part, spec)) for part in parts[:: len(parts) // count][:count]]

        by_length = sorted(utterances, key=lambda u: u.steps)
        for how, order in (("in random order", utterances), ("sorted by length", by_length)):
            torch.manual_seed(0)
            ratios.append(compare(f"{name}, {how}", graphs(order), device, quick))
    print()
    for way in ratios[0]:
        found_ratios = [ratio[way] for ratio in ratios]
        measured = f"{min(found_ratios):.2f} to {max(found_ratios):.2f} times as fast"
        outcome(f"ahead of {way}, on all batches", measured, min(found_ratios) >= 1)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
