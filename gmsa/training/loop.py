"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gmsa.config import Config, OptimConfig
from gmsa.data import Utterance
from gmsa.errors import RunError
from gmsa.files import write_text
from gmsa.models import build_model
from gmsa.rng import seed_for
from gmsa.training.average import MovingAverage
from gmsa.training.checkpoint import load_into, load_state, save_state, save_weights
from gmsa.training.examples import Example, batches_per_epoch, training_batches
from gmsa.training.losses import loss
from gmsa.training.prefetch import prefetch
from gmsa.training.progress import Progress
from gmsa.training.scoring import Predictions, predict, quiet_metrics

BETTER: dict[str, Callable[[float, float], bool]] = {"MAE": lambda a, b: a < b, "Corr": lambda a, b: a > b}
"""Whether a validation score is better than another."""


@dataclass
class Trainer:
    """Trains the models of one seed in one folder, stage by stage, and takes up where a killed run stopped.

    Every random draw is a pure function of (seed, stage, epoch, utterance id), so a resumed run
    gives the same weights as an uninterrupted one.
    """

    config: Config
    dims: dict[str, int]
    valid: Sequence[Utterance]
    seed: int
    folder: Path
    device: torch.device
    progress: Progress
    context: Sequence[Utterance] = ()
    """All utterances to learn from, whose inputs are context for their neighbours in video graphs."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch, over all stages."""
    finished: list[str] = field(default_factory=list)
    """Stages whose best weights stand in the folder."""
    _pending: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        state = load_state(self.folder / "state.pt")
        if state is not None:
            self.history, self.finished, self._pending = state["history"], state["finished"], state["pending"]

    def fit(self, stage: str, examples: Sequence[Example], start: nn.Module | None = None) -> nn.Module:
        """Trains a stage from the weights of ``start``, or from new ones, and returns its best model.

        The best epoch is the one with the best validation score (``run.select``).

        Raises:
            RunError: the loss is not finite; names the batch's utterances.
        """
        torch.manual_seed(seed_for(self.seed, stage, "init"))
        model = build_model(self.dims, self.config).to(self.device)
        best_file = self.folder / f"{stage}.safetensors"
        if stage not in self.finished:
            if start is not None:
                model.load_state_dict(start.state_dict())
            self._run(stage, model, examples, best_file)
        load_into(model, best_file)
        return model

    def predict(self, model: nn.Module, utterances: Sequence[Utterance]) -> Predictions:
        """What ``model`` says of utterances to learn from."""
        return predict(model, utterances, self.config, self.device, self.context)

    def _run(self, stage: str, model: nn.Module, examples: Sequence[Example], best_file: Path) -> None:
        optim, select = self.config.optim, self.config.run.select
        optimizer = build_optimizer(model, optim)
        per_epoch = batches_per_epoch(examples, self.config, self.context)
        epochs = max(optim.epochs, math.ceil(optim.min_steps / per_epoch))
        steps = epochs * per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, optim))
        average = MovingAverage(model, optim.ema) if optim.ema else None
        if self.config.run.compile:
            model.compile(dynamic=True)  # in place, so that the names of its weights stay
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
        parts |= {"average": average} if average is not None else {}
        first, best, best_epoch = 1, math.nan, 0
        if self._pending.get("stage") == stage:
            first, best, best_epoch = (self._pending[k] for k in ("epoch", "best", "best_epoch"))
            first += 1
            for name, part in parts.items():
                part.load_state_dict(self._pending[name])

        self.progress.start(stage, self.seed, len(examples) * (epochs + 1 - first))
        for epoch in range(first, epochs + 1):
            if optim.patience and epoch - best_epoch > optim.patience:
                break
            began = time.perf_counter()
            mean_loss = self._epoch(stage, epoch, model, average, examples, optimizer, schedule)
            scored: nn.Module = model if average is None else average.model
            scores = quiet_metrics(predict(scored, self.valid, self.config, self.device), self.config.data.labels)
            improved = best_epoch == 0 or BETTER[select](scores[select], best)
            if improved:
                best, best_epoch = scores[select], epoch
                save_weights(best_file, scored.state_dict())
            row = {"seed": self.seed, "stage": stage, "epoch": epoch, "loss": mean_loss, "valid": scores}
            row |= {"lr": schedule.get_last_lr()[0], "seconds": time.perf_counter() - began, "best": improved}
            self.history.append(row)
            self.progress.epoch(row, epochs)
            pending = {"stage": stage, "epoch": epoch, "best": best, "best_epoch": best_epoch}
            self._save(pending | {name: part.state_dict() for name, part in parts.items()})
        self.finished.append(stage)
        self._save({})

    def _epoch(
        self,
        stage: str,
        epoch: int,
        model: nn.Module,
        average: MovingAverage | None,
        examples: Sequence[Example],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> float:
        """One pass over the examples. Returns the mean loss of its steps."""
        key = (self.seed, stage, epoch)
        torch.manual_seed(seed_for(*key, "dropout"))
        losses: list[Tensor] = []
        ids: list[tuple[str, ...]] = []
        model.train()
        batches = training_batches(examples, self.config, *key, context=self.context)
        for batch, targets in prefetch(batches, self.device):
            with autocast(self.config.optim, self.device):
                output = model(batch)
            step_loss = loss(output, targets, self.config.loss)
            optimizer.zero_grad(set_to_none=True)
            step_loss.backward()
            if self.config.optim.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), self.config.optim.clip_norm)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update(model)
            losses.append(step_loss.detach())
            ids.append(batch.ids)
            self.progress.step(batch.ids)
        # Looked at once per epoch: a look at every step would make the GPU wait for the host.
        stacked = torch.stack(losses)
        bad = (~torch.isfinite(stacked)).nonzero()
        if len(bad):
            names = ", ".join(ids[int(bad[0])])
            raise RunError(
                f"the loss is not finite in stage '{stage}', epoch {epoch}, seed {self.seed}, for the batch [{names}]; "
                "lower 'optim.lr', set 'optim.clip_norm', or check these utterances' features"
            )
        return stacked.mean().item()

    def _save(self, pending: dict[str, Any]) -> None:
        self._pending = pending
        state = {"history": self.history, "finished": self.finished, "pending": pending}
        save_state(self.folder / "state.pt", state)
        write_text(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in self.history))


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def rate_factor(step: int, steps: int, config: OptimConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then the schedule down to 0."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.schedule]


def autocast(config: OptimConfig, device: torch.device) -> Any:
    """Mixed precision as ``optim.amp`` asks for it."""
    if config.amp == "bf16" or (config.amp == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
