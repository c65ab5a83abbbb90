"""The rates of a text encoder's parameters, group by group and step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gmsa.config import Config
from gmsa.models import build_model
from gmsa.training.optimization.optimizer import build_optimizer, build_schedule, parameter_groups

DIMS = {"text": 1, "audio": 3, "vision": 2}
OPTIM: dict[str, Any] = {"lr": 1e-2, "encoder_lr": 4e-3, "warmup": 0.1, "encoder_warmup": 0.4, "encoder_decay": 0.5}


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_each_layer_has_its_rate_and_the_encoder_its_warm_up(config_of: Callable[..., Config], schedule: str) -> None:
    config = config_of(optim=OPTIM | {"schedule": schedule}, text={"frozen_layers": 0})
    model = build_model(DIMS, config)
    optimizer = build_optimizer(model, config.optim)
    course = build_schedule(optimizer, 20, config.optim)
    encoder = model.embedding.text_encoder
    assert encoder is not None
    layers = [[id(p) for p in layer] for layer in encoder.layers()]
    inside = {id(p) for p in encoder.parameters()}
    own = [id(p) for p in model.parameters() if id(p) not in inside]
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == [own, *layers]
    peaks = [1e-2, 1e-3, 2e-3, 4e-3]  # the model; the embeddings, the first layer, the last
    seen = []
    for _ in range(20):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        course.step()

    def factor(step: int, rising: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / (20 - rising)
        return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]

    for step, rates in enumerate(seen):
        wanted = [peak * factor(step, 2 if not group else 8) for group, peak in enumerate(peaks)]
        assert rates == pytest.approx(wanted, rel=1e-12)


def test_layers_that_stay_have_no_rate_and_leave_those_of_the_others(config_of: Callable[..., Config]) -> None:
    for frozen, peaks in ((0, [1e-3, 2e-3, 4e-3]), (1, [2e-3, 4e-3]), (2, [4e-3])):
        config = config_of(optim=OPTIM, text={"frozen_layers": frozen})
        model = build_model(DIMS, config)
        assert [rate for _, rate in parameter_groups(model, config.optim)] == pytest.approx([1e-2, *peaks])
        trained = {id(p) for parameters, _ in parameter_groups(model, config.optim) for p in parameters}
        assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    assert config_of().text.frozen_layers == 1


def test_without_decay_one_group_and_of_lora_its_additions_alone(config_of: Callable[..., Config]) -> None:
    for tuning in ("full", "lora"):
        config = config_of(tuning, optim={"weight_decay": 0.5}, text={"frozen_layers": 0})
        model = build_model(DIMS, config)
        (own, rate), (encoder, encoder_rate) = parameter_groups(model, config.optim)
        assert (rate, encoder_rate) == (config.optim.lr, config.optim.encoder_lr)
        assert sum(map(len, (own, encoder))) == sum(p.requires_grad for p in model.parameters())
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = build_optimizer(model, config.optim)
        for p in model.parameters():
            if p.requires_grad:
                p.grad = torch.zeros_like(p)
        optimizer.step()  # decays weights, and nothing else
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert changed.isdisjoint(frozen)
        assert bool(frozen) == (tuning == "lora")
        assert any("text_encoder" in name for name in changed)
