"""The optimizer: which parameters it trains, at which rates, and in which precision."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from gmsa.config import Config, OptimConfig
from gmsa.errors import ConfigError
from gmsa.system.device import has_bf16_instructions
from gmsa.text import TextEncoder


def _plain(kind: type[torch.optim.Optimizer]) -> Any:
    """torch's optimizer without the marks for its compiler, whose first use imports that: it takes as long as torch."""
    marked = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in marked}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


Adam, AdamW = _plain(torch.optim.Adam), _plain(torch.optim.AdamW)


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters that are trained together, and the peak learning rate of each group.

    Those of a text encoder have rates of their own: ``optim.encoder_lr``, and of each layer that times
    ``optim.encoder_decay`` for every layer above it.
    """
    encoders = [part for part in module.modules() if isinstance(part, TextEncoder)]
    if not encoders:
        return [(list(module.parameters()), config.lr)]
    (encoder,) = encoders
    inside = {id(p) for p in encoder.parameters()}
    groups = [([p for p in module.parameters() if id(p) not in inside], config.lr)]
    layers = encoder.layers()
    if config.encoder_decay == 1:
        layers = [[p for layer in layers for p in layer]]
    rates = [config.encoder_lr * config.encoder_decay**above for above in reversed(range(len(layers)))]
    return groups + [(layer, rate) for layer, rate in zip(layers, rates, strict=True) if layer]


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters."""
    return optimizer_of(parameter_groups(module, config), config)


def optimizer_of(groups: list[tuple[list[nn.Parameter], float]], config: OptimConfig) -> torch.optim.Optimizer:
    """The same over :func:`parameter_groups`."""
    kind = {"adam": Adam, "adamw": AdamW}[config.name]
    given = [{"params": parameters, "lr": rate} for parameters, rate in groups]
    return kind(given, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer, steps: int, config: OptimConfig
) -> torch.optim.lr_scheduler.LRScheduler:
    """The course of the rates over the steps of a stage; the first group's is the model's own."""

    def factor(warmup: float) -> Callable[[int], float]:
        return lambda step: rate_factor(step, steps, config, warmup)  # a function, whose state is not saved

    others = len(optimizer.param_groups) - 1
    factors = [factor(config.warmup), *[factor(config.encoder_warmup)] * others]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def rate_factor(step: int, steps: int, config: OptimConfig, warmup: float | None = None) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then the schedule down to 0.

    Args:
        warmup: share of the steps; ``optim.warmup`` by default.
    """
    rising = round((config.warmup if warmup is None else warmup) * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = min(1.0, (step - rising) / max(1, steps - rising))
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.schedule]


def autocast(config: OptimConfig, device: torch.device) -> Any:
    """Mixed precision as ``optim.amp`` asks for it."""
    if config.amp == "bf16" or (config.amp == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def check_precision(config: Config, device: torch.device | None = None) -> None:
    """Refuses half precision on a CPU where it makes a training no faster (docs/results/speed.md).

    With the instructions for it a text encoder in the loop is faster by it. Smaller products are not: to convert what
    they read and write takes longer than they do.

    Args:
        device: by default the one that the config asks for.

    Raises:
        ConfigError: says why.
    """
    if device is None:
        on_gpu = config.run.device == "cuda" or (config.run.device == "auto" and torch.cuda.is_available())
        device = torch.device("cuda" if on_gpu else "cpu")
    if config.optim.amp != "bf16" or device.type != "cpu":
        return
    if not config.trains_text_encoder:
        raise ConfigError(
            "'optim.amp: bf16' makes training no faster on a CPU, where no text encoder is trained, and mostly slower; "
            "leave it at auto, which uses it on a GPU alone"
        )
    if not has_bf16_instructions():
        raise ConfigError(
            "'optim.amp: bf16' makes training slower on this processor, in which torch finds neither AMX nor AVX-512 "
            "BF16; leave it at auto, which uses it on a GPU alone"
        )
