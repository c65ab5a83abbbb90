"""Batches that are rounded up to few shapes give what plain ones give, and recorded steps the bits of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.graphs import clip
from helpers.sslmm import DIMS, config_of
from helpers.sync_lint import sync_lint
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.data import Target, Utterance
from gmsa.errors import ConfigError, RunError
from gmsa.graph import collate
from gmsa.models import MODELS, SemiIIN, build_model, graph_spec
from gmsa.system.device import use_deterministic
from gmsa.training.batches import training_batches
from gmsa.training.examples import Example, labeled_examples
from gmsa.training.losses import loss
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import build_optimizer, build_schedule
from gmsa.training.optimization.recorded import StepRecorder, records_steps, shape_of
from gmsa.training.state import TrainState
from gmsa.training.step import training_step
from gmsa.training.tasks import FineTuning

CUDA = torch.device("cuda")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RECORDED: dict[str, dict[str, Any]] = {
    "semi_iin": {},
    "typed": {"graph": {"intra": "temporal(radius=3)"}, "model": {"route": "dense"}},
    "edges by length": {"graph": {"intra": "window(radius=2)"}, "model": {"route": "dense"}},
    "dropped edges": {"graph": {"edge_dropout": 0.3}},
    "classes": {"target": {"kind": "classes", "field": "emotion", "classes": ["sad", "calm", "happy"]}},
    "global": {"model": {"name": "global"}},
    "late_fusion": {"model": {"name": "late_fusion"}},
    "one stream": {"model": {"streams": "global"}},
    "other encoders": {"model": {"encoders": {"audio": [[3, 2], [4, 4]], "vision": [[3, 1], [0, 3]]}}},
}


def made(settings: dict[str, Any]) -> Config:
    groups = {name: dict(values) for name, values in settings.items()}
    return config_of("semi_iin", **{"optim": {"batch_size": 8}, "run": {"cuda_graphs": True}, **groups})


def some(count: int = 20) -> list[Utterance]:
    """Utterances of several lengths, some of which lack a modality."""
    lengths = [(1 + 3 * i % 11, (5 * i) % 40, (7 * i) % 23 if i % 3 else 0) for i in range(count)]
    return [clip(f"v{i}$_$0", DIMS, row, label=float(i % 3)) for i, row in enumerate(lengths)]


def examples(config: Config, utterances: list[Utterance]) -> list[Example]:
    found = [*labeled_examples(utterances, Target.of(config.target))]
    classes = torch.eye(Target.of(config.target).num_classes)[1]
    return [*found[:-1], Example(replace(utterances[-1], label=None), classes=classes, pseudo=True)]


def gradients(model: nn.Module, config: Config, batch: Any) -> tuple[Any, dict[str, Tensor | None]]:
    """The output of a batch in float64, and the gradients of its loss."""
    graphs, targets = batch
    graphs = replace(graphs, features={m: x.double() for m, x in graphs.features.items()})
    model.zero_grad()
    output = model(graphs)
    loss(output, targets, config.loss.value_weight, config.self_training.weight).backward()
    return output, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", RECORDED)
def test_a_rounded_batch_gives_what_a_plain_one_gives(name: str) -> None:
    config = made(RECORDED[name])
    torch.manual_seed(0)
    model = build_model(DIMS, config).double().eval()
    found = examples(config, some())
    pairs = zip(*(training_batches(found, config, 1, rounded=r) for r in (False, True)), strict=True)
    for plain, rounded in pairs:
        assert rounded[0].ids == plain[0].ids
        count = len(plain[0])
        assert len(rounded[0].sizes) == len(rounded[1].value) > count
        (output, by_name), (other, others) = (gradients(model, config, batch) for batch in (plain, rounded))
        torch.testing.assert_close(other.logits[:count], output.logits, rtol=1e-9, atol=1e-11)
        if output.value is not None:
            torch.testing.assert_close(other.value[:count], output.value, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(others, by_name, rtol=1e-4, atol=1e-7)  # the loss is computed in float32


def test_batches_of_an_epoch_have_few_shapes() -> None:
    config = made({})
    found = labeled_examples(some(400), Target())
    shapes = {rounded: Counter() for rounded in (False, True)}
    for rounded, counts in shapes.items():
        for epoch in range(3):
            counts.update(shape_of(batch) for batch in training_batches(found, config, 1, epoch, rounded=rounded))
    assert len(shapes[False]) > 100 > 20 > len(shapes[True])
    assert sum(shapes[True].values()) == 150


def test_a_step_on_a_rounded_batch_never_waits_for_a_gpu() -> None:
    config = made({})
    task = FineTuning(config, DIMS, examples(config, some()), [], some(), torch.device("cpu"))
    task.recorded = True
    model = task.build_module().train()
    optimizer = build_optimizer(model, config.optim)
    state = TrainState(model, optimizer, build_schedule(optimizer, 9, config.optim), MovingAverage(model, 0.9))
    for batch in task.batches(1, "supervised", 1):
        with sync_lint() as waits:
            training_step(task, state, batch, 0.5, config.optim)
        assert waits == {}


@pytest.mark.parametrize("name", RECORDED)
def test_which_steps_are_recorded(name: str) -> None:
    config = made(RECORDED[name])
    assert records_steps(config, CUDA)
    assert not records_steps(config, torch.device("cpu"))


@pytest.mark.parametrize(
    "settings",
    [
        {"run": {"cuda_graphs": False}},
        {"run": {"compile": True}},
        {"graph": {"scope": "hierarchical"}},
        {"graph": {"scope": "dialogue"}},
        {"graph": {"inter": "knn(neighbors=2)"}},
        {"model": {"route": "edge"}},
        {"model": {"name": "mtag"}},
        {"model": {"name": "sslmm"}},
        {"model": {"layer": "gatv2"}},
        {"model": {"layer": {"intra": "sage", "others": "attention"}}},
        {"reconstruction": {"weight": 0.5}},
        {"loss": {"unimodal_weight": 0.5}},
    ],
    ids=str,
)
def test_which_steps_are_not(settings: dict[str, Any]) -> None:
    assert not records_steps(made(settings), CUDA)


def test_a_model_that_derives_from_a_recordable_one_says_so_itself() -> None:
    @MODELS.register("derived")
    class Own(SemiIIN):
        """It may read more of a batch."""

    assert not records_steps(made({"model": {"name": "derived"}}), CUDA)
    Own.recordable = True
    assert records_steps(made({"model": {"name": "derived"}}), CUDA)


def test_graphs_of_dialogues_are_not_rounded_up() -> None:
    spec = graph_spec(made({"graph": {"scope": "hierarchical"}}))
    with pytest.raises(ConfigError, match=r"only graphs of utterances can be rounded up \(got 'graph.scope: hier"):
        collate(some(), spec, rounded=True)


def test_a_batch_with_a_list_of_edges_is_not_recorded() -> None:
    config = made({"graph": {"intra": "window(radius=1)"}, "model": {"route": "edge"}})
    (batch, *_) = training_batches(examples(config, some()), config, 1, rounded=True)
    assert batch is not None
    assert shape_of(batch) is None


def test_a_step_that_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(StepRecorder, "_record", fail)
    config = made({})
    (batch, *_) = training_batches(examples(config, some()), config, 1, rounded=True)
    recorder = StepRecorder([])
    assert recorder(lambda batch: torch.tensor(2.0), batch) == 2
    with pytest.raises(RunError, match=r"cannot be recorded as a CUDA graph \(operation .*; set 'run.cuda_graphs'"):
        recorder(lambda batch: torch.tensor(2.0), batch)


@pytest.fixture
def deterministic() -> Iterator[None]:
    use_deterministic(True)
    yield
    use_deterministic(False)


@pytest.mark.cuda
@on_cuda
@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("name", RECORDED)
def test_replayed_steps_have_the_bits_of_others(name: str, amp: str, deterministic: None) -> None:
    config = made(RECORDED[name])
    config = replace(config, optim=replace(config.optim, amp=amp))
    task = FineTuning(config, DIMS, examples(config, some(60)), [], some(), CUDA)
    assert task.recorded
    left = []
    for recorded in (False, True):
        torch.manual_seed(0)
        model = task.build_module().train()
        optimizer = build_optimizer(model, config.optim)
        state = TrainState(model, optimizer, build_schedule(optimizer, 40, config.optim), MovingAverage(model, 0.9))
        recorder = StepRecorder([*model.parameters()]) if recorded else None
        losses = []
        for epoch in range(4):
            torch.manual_seed(epoch)
            for batch in task.batches(1, "supervised", epoch):
                sent = batch[0].to(CUDA), batch[1].to(CUDA)
                losses.append(training_step(task, state, sent, 0.5, config.optim, recorder=recorder)[0])
        assert recorder is None or 1 < len(recorder._recorded) < len(losses) / 2
        left.append((torch.stack(losses), {k: v.clone() for k, v in model.state_dict().items()}))
    (losses, weights), (others, other_weights) = left
    assert torch.equal(losses, others)
    assert all(torch.equal(other_weights[k], v) for k, v in weights.items())
