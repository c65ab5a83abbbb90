"""A training step and an epoch of Semi-IIN, against a plain padded implementation of the same model.

    python benchmarks/step.py
    python benchmarks/step.py --options

Both have the same weights, examples (hidden modalities among them), loss, clipping, fused AdamW, schedule and moving
average; outputs and gradients are first shown to be equal, in float64. The plain one (``plain.py``) pads every modality
to the longest of the file, as published code does, or to the longest of a batch in random order. Its features lie
padded in one tensor and which modalities are hidden is drawn beforehand, neither of which is timed. All take turns,
step by step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from common import (
    begin,
    header,
    machine,
    mib,
    options,
    outcome,
    peak_memory,
    row,
    spread,
    synchronize,
    training_utterances,
)
from plain import PlainSemiIIN
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data import Target
from gmsa.graph import GraphBatch
from gmsa.models import Output, build_model, graph_spec
from gmsa.rng import generator
from gmsa.system.device import has_bf16_instructions
from gmsa.training.batches import SampleGroups, training_batches
from gmsa.training.examples import Example, Targets, labeled_examples
from gmsa.training.losses import loss
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import autocast, build_optimizer, build_schedule
from gmsa.training.optimization.recorded import StepRecorder, records_steps
from gmsa.training.prefetch import BURST, prefetch

SEED = 1111
PARTS = ("data", "forward", "loss", "backward", "clip", "optimizer", "average")
Laps = dict[str, float]


class Run:
    """A model in training, one step after another."""

    def __init__(self, model: nn.Module, config: Config, device: torch.device, steps: int) -> None:
        self.model, self.config, self.device = model.to(device).train(), config, device
        self.optimizer = build_optimizer(self.model, config.optim)
        self.average = MovingAverage(self.model, config.optim.ema)
        self.schedule = build_schedule(self.optimizer, steps, config.optim)
        self.recorder: StepRecorder | None = None
        self.batches: Iterator[tuple[Any, Targets]] = iter(())

    def begin(self, epoch: int, alone: bool = False) -> None:
        """Starts an epoch.

        Args:
            alone: a CPU builds a batch at each step, not some in a row, so that every step has its own.
        """
        self.batches = prefetch(self.epoch_batches(epoch), self.device, 1 if alone else BURST)

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Any, Targets]]:
        """The batches of an epoch."""
        raise NotImplementedError

    def predict(self, batch: Any) -> Output:
        """What the model says of a batch."""
        output: Output = self.model(batch)
        return output

    def step(self, apart: bool = True) -> Laps:
        """A step as ``gmsa.training.trainer`` has it. Returns the seconds of its parts.

        What a GPU has recorded is one part: ``forward`` is then that of both passes and the loss.

        Args:
            apart: waits for a GPU after each part, and so tells them apart.
        """
        laps: Laps = {}
        synchronize(self.device)
        began = time.perf_counter()

        def lap(part: str) -> None:
            nonlocal began
            if apart or part == PARTS[-1]:
                synchronize(self.device)
            now = time.perf_counter()
            laps[part], began = now - began, now

        optim = self.config.optim
        batch, targets = next(self.batches)
        lap("data")

        def passes(given: tuple[Any, Targets], lap: Callable[[str], None] = lambda part: None) -> Tensor:
            with autocast(optim, self.device):
                output = self.predict(given[0])
            lap("forward")
            value = loss(output, given[1], self.config.loss.value_weight, self.config.self_training.weight)
            lap("loss")
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            return value.detach()

        if self.recorder is None:
            passes((batch, targets), lap)
        else:
            self.recorder(passes, (batch, targets))
            lap("forward")
            lap("loss")
        lap("backward")
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], optim.clip_norm)
        lap("clip")
        self.optimizer.step()
        self.schedule.step()
        lap("optimizer")
        self.average.update(self.model)
        lap("average")
        return laps


class Graph(Run):
    """gmsa's."""

    def __init__(
        self, model: nn.Module, config: Config, device: torch.device, examples: Sequence[Example], steps: int
    ) -> None:
        super().__init__(model, config, device, steps)
        self.examples = examples
        if records_steps(config, device):  # run.cuda_graphs
            self.recorder = StepRecorder([*self.model.parameters()])

    def epoch_batches(self, epoch: int) -> Iterator[tuple[GraphBatch, Targets]]:
        return training_batches(self.examples, self.config, SEED, epoch, rounded=self.recorder is not None)


class Padded:
    """A batch of padded features and the lengths, 0 where a modality is hidden."""

    def __init__(self, features: dict[str, Tensor], lengths: dict[str, Tensor]) -> None:
        self.features, self.lengths = features, lengths

    def to(self, device: torch.device) -> Padded:
        return self.map(lambda x: x.to(device, non_blocking=True))

    def double(self) -> Padded:
        return Padded({m: x.double() for m, x in self.features.items()}, self.lengths)

    def map(self, change: Callable[[Tensor], Tensor]) -> Padded:
        return Padded(*({m: change(x) for m, x in part.items()} for part in (self.features, self.lengths)))


class Table:
    """All examples padded to the longest of the file, in one tensor per modality."""

    def __init__(self, examples: Sequence[Example], modalities: Sequence[str]) -> None:
        self.row = {e.utterance.id: i for i, e in enumerate(examples)}
        self.features = {
            m: nn.utils.rnn.pad_sequence([e.utterance.features[m] for e in examples], batch_first=True)
            for m in modalities
        }
        self.targets = Targets(torch.tensor([e.value for e in examples]), torch.stack([e.classes for e in examples]))

    def batch(self, rows: Tensor, lengths: dict[str, Tensor], crop: bool) -> tuple[Padded, Targets]:
        """Some examples, padded as the file is or, cropped, to the longest of them."""
        chosen = {m: n[rows] for m, n in lengths.items()}
        features = {}
        for m, x in self.features.items():
            x = x[:, : max(1, int(chosen[m].max()))] if crop else x
            features[m] = x[rows]
        return Padded(features, chosen), Targets(self.targets.value[rows], self.targets.classes[rows])


class Plain(Run):
    """The padded implementation."""

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        device: torch.device,
        table: Table,
        shown: Sequence[dict[str, Tensor]],
        steps: int,
        crop: bool,
    ) -> None:
        super().__init__(model, config, device, steps)
        self.table, self.shown, self.crop = table, shown, crop

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Padded, Targets]]:
        order = torch.from_numpy(generator(SEED, epoch).permutation(len(self.table.row)))
        for rows in order.split(self.config.optim.batch_size):
            yield self.table.batch(rows, self.shown[epoch], self.crop)

    def predict(self, batch: Padded) -> Output:
        output: Output = self.model(batch.features, batch.lengths)
        return output


def shown_lengths(examples: Sequence[Example], table: Table, config: Config, epoch: int) -> dict[str, Tensor]:
    """Steps of each example that our batches of an epoch show: those of a hidden modality are 0."""
    lengths = {m: torch.zeros(len(examples), dtype=torch.long) for m in table.features}
    for batch, _ in training_batches(examples, config, SEED, epoch):
        rows = torch.tensor([table.row[i] for i in batch.ids])
        for m in lengths:
            lengths[m][rows] = batch.lengths[m][batch.utterance_order]
    return lengths


def assert_agreement(
    ours: nn.Module, plain: nn.Module, examples: Sequence[Example], table: Table, config: Config, device: torch.device
) -> None:
    """Outputs and gradients of some batches, in float64 and without dropout."""
    plain.load_state_dict(ours.state_dict())
    ours, plain = (m.double().eval().to(device) for m in (ours, plain))
    lengths = shown_lengths(examples, table, config, 0)
    for _, (batch, targets) in zip(range(4), training_batches(examples, config, SEED, 0), strict=False):
        rows = torch.tensor([table.row[i] for i in batch.ids])
        doubled = dataclasses.replace(batch, features={m: x.double() for m, x in batch.features.items()}).to(device)
        found = [ours(doubled)]
        for crop in (False, True):
            padded, same = table.batch(rows, lengths, crop)
            assert torch.equal(same.value, targets.value)
            found.append(plain(*vars(padded.double().to(device)).values()))
        gradients = []
        for model, output in zip((ours, plain, plain), found, strict=True):
            model.zero_grad()
            loss(output, targets.to(device), config.loss.value_weight, config.self_training.weight).backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        for output, gradient in zip(found[1:], gradients[1:], strict=True):
            torch.testing.assert_close(output, found[0], rtol=1e-9, atol=1e-11)
            # The loss is computed in float32, for both.
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-5, atol=1e-8)
    print(f"Outputs and gradients of the {sum(p.numel() for p in ours.parameters()):,} parameters agree (float64).")


def padding_of_graphs(batches: Iterator[tuple[GraphBatch, Targets]]) -> float:
    """Share of padding among the nodes of the dense attention's padded view."""
    nodes, places = 0, 0
    for batch, _ in batches:
        nodes, places = nodes + len(batch.padded_index), places + batch.shape[0] * batch.shape[1]
    return 1 - nodes / places


def padding_of_tensors(batches: Iterator[tuple[Padded, Targets]], strides: dict[str, int]) -> float:
    """Share of padding, hidden tokens among it, in all that a padded model computes."""
    nodes, places = 0, 0
    for batch, _ in batches:
        for m, lengths in batch.lengths.items():
            nodes += int((-(-lengths // strides[m])).sum())
            places += len(lengths) * -(-batch.features[m].shape[1] // strides[m])
        nodes, places = nodes + 2 * len(lengths), places + 2 * len(lengths)
    return 1 - nodes / places


def timed(runs: dict[str, Run], epochs: int, steps: int, apart: bool) -> dict[str, dict[str, np.ndarray]]:
    """Milliseconds of the parts of each step and of whole ones ``[epochs, steps]``; an epoch to warm up comes first."""
    laps: dict[str, list[list[Laps]]] = {name: [] for name in runs}
    for epoch in range(epochs + 1):
        for name, run in runs.items():
            run.begin(epoch)
            laps[name].append([])
        for _ in range(steps):
            for name, run in runs.items():
                laps[name][-1].append(run.step(apart))
    found = {}
    for name in runs:
        parts = {p: 1e3 * np.array([[lap[p] for lap in epoch] for epoch in laps[name][1:]]) for p in PARTS}
        found[name] = {**parts, "step": sum(parts.values())}
    return found


def peaks(run: Run, steps: int) -> np.ndarray:
    """Peak bytes of each step of an epoch, its batch included; where steps are recorded, of one that is not."""
    run.recorder = None
    run.begin(0, alone=True)
    found = []
    for _ in range(steps):
        run.optimizer.zero_grad(set_to_none=True)
        found.append(peak_memory(run.step, run.device))
    return np.array(found)


def compare(
    config: Config,
    dims: dict[str, int],
    examples: Sequence[Example],
    device: torch.device,
    epochs: int,
) -> None:
    """Ours against the two padded ones."""
    torch.manual_seed(0)
    table = Table(examples, list(dims))
    assert_agreement(build_model(dims, config), PlainSemiIIN(dims, config), examples, table, config, device)
    steps = SampleGroups(examples, config).per_epoch
    total = (2 * epochs + 3) * steps
    shown = [shown_lengths(examples, table, config, epoch) for epoch in range(epochs + 1)]
    start = build_model(dims, config)
    ours = Graph(start, config, device, examples, total)
    runs: dict[str, Run] = {"gmsa": ours}
    if device.type == "cuda":
        recorded = dataclasses.replace(config, run=dataclasses.replace(config.run, cuda_graphs=True))
        model = build_model(dims, config)
        model.load_state_dict(start.state_dict())
        runs["gmsa, steps recorded"] = Graph(model, recorded, device, examples, total)
    for name, crop in (("plain, padded to the file's longest", False), ("plain, padded to the batch's longest", True)):
        model = PlainSemiIIN(dims, config)
        model.load_state_dict(start.state_dict())
        runs[name] = Plain(model, config, device, table, shown, total, crop)

    times = timed(runs, epochs, steps, apart=device.type == "cpu")
    parted = times if device.type == "cpu" else timed(runs, epochs, steps, apart=True)
    memory = {name: peaks(run, steps) for name, run in runs.items()}
    epoch = {name: found["step"].sum(1) / 1e3 for name, found in times.items()}
    padding = {}
    for name, run in runs.items():
        if isinstance(run, Graph):
            padding[name] = padding_of_graphs(run.epoch_batches(0))
        elif isinstance(run, Plain):
            padding[name] = padding_of_tensors(run.epoch_batches(0), graph_spec(config).strides)

    header(
        f"A training step of {config.optim.batch_size} utterances: means of {epochs} epochs of {steps} steps; their "
        "medians [quartiles]",
        *("", "ms per step", "s per epoch", "utterances per s", "epoch / gmsa's"),
        *("peak MiB of a step", "largest", "peak / gmsa's", "padding among nodes"),
    )
    for name in runs:
        row(
            name,
            spread(times[name]["step"].mean(1), 2),
            spread(epoch[name], 2),
            f"{len(examples) / np.median(epoch[name]):.0f}",
            f"{np.median(epoch[name]) / np.median(epoch['gmsa']):.2f}",
            mib(np.median(memory[name])),
            mib(memory[name].max()),
            f"{np.median(memory[name]) / np.median(memory['gmsa']):.2f}",
            f"{padding[name]:.1%}"
            if isinstance(runs[name], Plain)
            else f"0; {padding[name]:.1%} in the attention's padded view",
        )
    header("Mean milliseconds of the parts of a step", "", *PARTS, "data's share")
    for name, found in parted.items():
        share = found["data"].sum() / found["step"].sum()
        row(name, *(f"{found[p].mean():.2f}" for p in PARTS), f"{share:.1%}")
    if device.type == "cuda":
        print("\nParts wait for the GPU one by one here, so they add up to more; data is built in a thread meanwhile.")

    plain = next(name for name, run in runs.items() if isinstance(run, Plain))
    ratio = np.median(epoch[plain]) / np.median(epoch["gmsa"])
    middle, largest = (f(memory["gmsa"]) / f(memory[plain]) for f in (np.median, np.max))
    share = times["gmsa"]["data"].sum() / times["gmsa"]["step"].sum()
    print(f"\nOutcomes ({device.type}, {torch.get_num_threads()} threads, against the plain one padded to the file):\n")
    outcome("a step at least 1.5 times as fast", f"{ratio:.2f} times", ratio >= 1.5)
    outcome("at most 0.6 of the peak memory", f"{middle:.2f} (of the largest step {largest:.2f})", middle <= 0.6)
    outcome("data at most 5 % of a step", f"{share:.1%}", share <= 0.05)
    view = padding["gmsa"]
    outcome("less than 10 % padding", f"0 in the layers, {view:.1%} in the attention's padded view", view < 0.1)


def compare_options(
    config: Config, dims: dict[str, int], examples: Sequence[Example], device: torch.device, epochs: int
) -> None:
    """torch.compile, bfloat16 and an optimizer that is not fused, each against the default."""
    steps = SampleGroups(examples, config).per_epoch
    total = (epochs + 2) * steps
    torch.manual_seed(0)
    start = build_model(dims, config).state_dict()

    def run(config: Config = config) -> Graph:
        model = build_model(dims, config)
        model.load_state_dict(start)
        return Graph(model, config, device, examples, total)

    off, bf16 = (
        dataclasses.replace(config, optim=dataclasses.replace(config.optim, amp=amp)) for amp in ("off", "bf16")
    )
    runs: dict[str, Run] = {"default": run(), "amp off": run(off), "amp bf16": run(bf16)}
    if device.type == "cuda":
        runs["recorded"] = run(dataclasses.replace(config, run=dataclasses.replace(config.run, cuda_graphs=True)))
    unfused = run()
    kind = type(unfused.optimizer)
    unfused.optimizer = kind(
        unfused.model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay, fused=False
    )
    unfused.schedule.optimizer = unfused.optimizer
    runs["optimizer not fused"] = unfused
    compiled = run()
    compiled.model.compile(dynamic=True)
    try:
        # A whole epoch: a batch of another route or shape may compile, or fail, late.
        compiled.begin(0)
        began = time.perf_counter()
        for _ in range(steps):
            compiled.step()
        print(f"\ntorch.compile: the first epoch took {time.perf_counter() - began:.0f} s.")
        runs["compiled (dynamic)"] = compiled
    except Exception as error:
        print(f"\ntorch.compile fails here: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    times = timed(runs, epochs, steps, apart=False)
    header(
        "Options of our step: means of epochs; their medians [quartiles]",
        "",
        "ms per step",
        "s per epoch",
        "epoch / default's",
    )
    base = np.median(times["default"]["step"].sum(1))
    for name, found in times.items():
        epoch = found["step"].sum(1) / 1e3
        row(name, spread(found["step"].mean(1), 2), spread(epoch, 2), f"{1e3 * np.median(epoch) / base:.2f}")
    if device.type == "cpu":
        print(f"\nInstructions for bfloat16 on this processor: {'there' if has_bf16_instructions() else 'none'}.")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", choices=("mosi", "aligned"), default="mosi", help="lengths of the utterances")
    parser.add_argument("--epochs", type=int, default=5, help="epochs to time")
    parser.add_argument("--options", action="store_true", help="torch.compile, bfloat16 and the optimizer instead")
    arguments = parser.parse_args()
    device = begin(arguments)
    utterances, dims, config, what = training_utterances(arguments.data)
    epochs = 1 if arguments.quick else arguments.epochs
    examples = labeled_examples(utterances[:96] if arguments.quick else utterances, Target())
    print(f"Data: {what}; {len(examples)} utterances.")
    (compare_options if arguments.options else compare)(config, dims, examples, device, epochs)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    main()
