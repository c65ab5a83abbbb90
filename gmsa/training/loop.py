"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
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
from gmsa.models import Model
from gmsa.rng import seed_for
from gmsa.training.average import MovingAverage
from gmsa.training.checkpoint import load_into, load_state, save_state, save_weights
from gmsa.training.examples import Example
from gmsa.training.prefetch import prefetch
from gmsa.training.progress import Progress
from gmsa.training.scoring import Predictions, predict
from gmsa.training.tasks import Learning, Pretext, Task

BETTER: dict[str, Callable[[float, float], bool]] = {
    "MAE": lambda a, b: a < b,
    "Corr": lambda a, b: a > b,
    "loss": lambda a, b: a < b,
}
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
    initial: Mapping[str, Tensor] | None = None
    """Weights that stages begin with; new ones where it is None."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch, over all stages."""
    finished: list[str] = field(default_factory=list)
    """Stages whose best weights stand in the folder."""
    _pending: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        state = load_state(self.folder / "state.pt")
        if state is not None:
            self.history, self.finished, self._pending = state["history"], state["finished"], state["pending"]

    def fit(
        self, stage: str, examples: Sequence[Example], start: nn.Module | None = None, consistent: bool = False
    ) -> Model:
        """Trains a stage on examples from the weights of ``start``, or of :attr:`initial`, and returns its best model.

        The best epoch is the one with the best validation score (``run.select``).

        Args:
            consistent: also learn from the moving average of the model's own weights.

        Raises:
            RunError: the loss is not finite; names the batch's utterances.
        """
        task = Learning(self.config, self.dims, examples, self.context, self.valid, self.device, consistent)
        model: Model = self.run(stage, task, self.initial if start is None else start.state_dict())
        return model

    def pretrain(self) -> Model:
        """Trains on the features of all there is to learn from; later stages begin with its best weights."""
        task = Pretext(self.config, self.dims, self.context, self.valid, self.device)
        model: Model = self.run("pretrain", task).model
        self.initial = to_start_from(model)
        return model

    def run(self, stage: str, task: Task, start: Mapping[str, Tensor] | None = None) -> Any:
        """Trains a stage's task and returns its best module; a stage that is finished is only read."""
        torch.manual_seed(seed_for(self.seed, stage, "init"))
        module = task.build()
        best_file = self.folder / f"{stage}.safetensors"
        if stage not in self.finished:
            if start is not None:
                module.load_state_dict({**module.state_dict(), **start})
            self._run(stage, task, module, best_file)
        load_into(module, best_file)
        return module

    def predict(self, model: nn.Module, utterances: Sequence[Utterance]) -> Predictions:
        """What ``model`` says of utterances to learn from."""
        return predict(model, utterances, self.config, self.device, self.context)

    def _run(self, stage: str, task: Task, model: nn.Module, best_file: Path) -> None:
        optim, epochs = self.config.optim, task.epochs
        optimizer = build_optimizer(model, optim)
        steps = epochs * task.per_epoch
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

        self.progress.start(stage, self.seed, task.size * (epochs + 1 - first))
        for epoch in range(first, epochs + 1):
            if optim.patience and epoch - best_epoch > optim.patience:
                break
            began = time.perf_counter()
            mean_loss = self._epoch(stage, epoch, task, model, average, optimizer, schedule)
            scored: nn.Module = model if average is None else average.model
            scores = task.score(scored)
            improved = best_epoch == 0 or BETTER[task.select](scores[task.select], best)
            if improved:
                best, best_epoch = scores[task.select], epoch
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
        task: Task,
        model: nn.Module,
        average: MovingAverage | None,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> float:
        """One pass over the batches. Returns the mean loss of its steps."""
        key = (self.seed, stage, epoch)
        torch.manual_seed(seed_for(*key, "dropout"))
        losses: list[Tensor] = []
        ids: list[tuple[str, ...]] = []
        model.train()
        teacher = None if average is None else average.model
        behind, steps = (epoch - 1) * task.per_epoch, task.epochs * task.per_epoch
        for batch in prefetch(task.batches(*key), self.device):
            with autocast(self.config.optim, self.device):
                step_loss = task.loss(model, batch, teacher, (behind + len(losses)) / steps)
            optimizer.zero_grad(set_to_none=True)
            step_loss.backward()
            if self.config.optim.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), self.config.optim.clip_norm)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update(model)
            losses.append(step_loss.detach())
            ids.append((batch[0] if isinstance(batch, tuple) else batch).ids)
            self.progress.step(ids[-1])
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


def to_start_from(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model that another can start from: its reconstruction has its own statistics of the features."""
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith("reconstruction.")}


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
