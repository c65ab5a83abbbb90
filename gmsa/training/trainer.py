"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.config.trained import few, other_settings, trained_settings
from gmsa.data import Target, Utterance
from gmsa.data.lazy import ids_of, joined
from gmsa.errors import RunError, cut
from gmsa.metrics import is_better
from gmsa.models import Model
from gmsa.models.build import model_skeleton, skeleton, weight_bytes
from gmsa.models.pretraining import PretrainingModel
from gmsa.registry import PROTOCOLS
from gmsa.rng import seed_for
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.system.files import write_text
from gmsa.system.reading import MOST_RECORDS, exists
from gmsa.training.batches import Shard
from gmsa.training.callbacks import Callback
from gmsa.training.checkpoint import digest, list_states, load_into, load_state, load_weights, save_state, save_weights
from gmsa.training.examples import Example
from gmsa.training.loader import BatchLoader
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.optimization.optimizer import (
    build_optimizer,
    build_schedule,
    optimizer_of,
    parameter_groups,
)
from gmsa.training.optimization.recorded import StepRecorder
from gmsa.training.scoring import Predictions, predict_utterances, quiet_metrics
from gmsa.training.state import StageProgress, StateCheck, TrainState, check_weights, random_state, set_random_state
from gmsa.training.step import training_step
from gmsa.training.stopping import Stop
from gmsa.training.tasks import FineTuning, Pretraining, Task

M = TypeVar("M", bound=nn.Module)


@dataclass
class Trainer:
    """Trains the models of one seed in one folder, stage by stage, and resumes where an interrupted run stopped.

    Every random draw is a pure function of (seed, stage, epoch, utterance id) or of a saved state, so a resumed run
    gives the same weights as an uninterrupted one. Of several processes (:class:`Group`) each trains on its share of
    every batch, and the main one writes.
    """

    config: Config
    dims: dict[str, int]
    valid: Sequence[Utterance]
    seed: int
    folder: Path
    device: torch.device
    callbacks: Callback = field(default_factory=Callback)
    """Told of every step; several as one :class:`~gmsa.training.callbacks.CallbackList`."""
    context: Sequence[Utterance] = ()
    """All training utterances; those without targets are context in graphs of dialogues."""
    initial: Mapping[str, Tensor] | None = None
    """Weights that stages start from; None: randomly initialized."""
    group: Group = SINGLE_PROCESS
    stop: Stop = field(default_factory=Stop)
    """Requests the end of training after the current step."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch, over all stages."""
    finished: list[str] = field(default_factory=list)
    """Stages whose best weights are in the folder."""
    valid_context: Sequence[Utterance] = ()
    """Further utterances in the graphs of the validation split's dialogues; they are not scored."""
    lost: str = ""
    """Why the initial weights cannot be had, for errors: stages can be resumed, but none can start from them."""
    _pending: dict[str, Any] = field(default_factory=dict)
    _stopping: bool = False
    _skeletons: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = start = "" if self.initial is None else digest(self.initial)
        self._settings = trained_settings(self.config, self.seed)
        state = None
        if self.group.is_main and list_states(self.folder):
            state = load_state(self.folder, self._check_state, self.callbacks.on_message, self._most)
        state = self.group.broadcast(state)
        if self.lost and state is None:
            raise RunError(f"seed {self.seed} {self.lost}")
        if self.lost and state is not None:
            self._start = start = state["start"]
        if state is not None and state["start"] != start:
            raise RunError(
                f"'{self.folder}' was started from other weights ('protocol.init_from' holds others now); "
                "restore those, or give another --out"
            )
        if state is not None and (others := other_settings(state.get("settings", {}), self._settings)):
            raise RunError(
                f"'{self.folder}' was trained with other settings than its config.yaml has ({few(others)}); "
                "give another --out"
            )
        if state is not None:
            self.history, self.finished, self._pending = state["history"], state["finished"], state["pending"]

    def train_stage(
        self,
        stage: str,
        examples: Sequence[Example],
        start: nn.Module | None = None,
        consistent: bool = False,
        begin_as: str = "",
    ) -> Model:
        """Trains a stage on examples from the weights of ``start``, or of :attr:`initial`, and returns its best model.

        The best epoch is the one with the best validation score (``run.select``).

        Args:
            consistent: also train on agreement with the moving average of the model's own weights.
            begin_as: the stage whose draws of initial weights this one shares; by default its own.

        Raises:
            RunError: the loss is not finite; names the batch's utterances.
        """
        beside = self.valid_context
        task = FineTuning(self.config, self.dims, examples, self.context, self.valid, self.device, consistent, beside)
        asked = self.config.optim
        if task.epochs > asked.epochs and stage not in self.finished and self.seed == self.config.run.seeds[0]:
            self.callbacks.on_message(
                f"{stage}: {task.epochs} epochs instead of {asked.epochs} ('optim.epochs'): an epoch has "
                f"{task.per_epoch} of the {asked.min_steps} steps that 'optim.min_steps' asks for."
            )
        given = self._initial_of(stage) if start is None else start.state_dict()
        model: Model = self.train_task(stage, task, given, begin_as)
        return model

    def finish_stage(self, stage: str, model: M) -> M:
        """A stage that trains nothing, whose model is made of those of others: scores it, and keeps its weights.

        A resumed run makes it again: it must be the same.
        """
        if stage in self.finished:
            return model
        began = time.perf_counter()
        self.callbacks.on_stage_start(stage, self.seed, 0)
        predicted = predict_utterances(model, self.valid, self.config, self.device, self.valid_context, self.group)
        scores = quiet_metrics(predicted, self.config)
        row = {"seed": self.seed, "stage": stage, "epoch": 1, "loss": math.nan, "valid": scores, "lr": 0.0}
        row |= {"seconds": time.perf_counter() - began, "best": True}
        self.history.append(row)
        self.callbacks.on_epoch_end(row, 1)
        if self.group.is_main:
            weights = {name: x.detach().cpu() for name, x in model.state_dict().items()}
            save_weights(self.folder / f"{stage}.safetensors", weights, self._settings)
        self.finished.append(stage)
        self._save()
        return model

    def pretrain(self) -> Model:
        """Pre-trains on the features of all training utterances; later stages start from its best weights."""
        valid = joined(self.valid, self.valid_context)  # labels play no part
        task = Pretraining(self.config, self.dims, self.context, valid, self.device)
        initial = self._initial_of("pretrain")
        start = None if initial is None else {f"model.{name}": x for name, x in initial.items()}
        model: Model = self.train_task("pretrain", task, start).model
        self.initial, self.lost = to_start_from(model), ""
        return model

    def train_task(self, stage: str, task: Task, start: Mapping[str, Tensor] | None = None, begin_as: str = "") -> Any:
        """Trains a stage's task and returns its best module; reads it where the stage is finished."""
        torch.manual_seed(seed_for(self.seed, begin_as or stage, "init"))
        module = task.build_module()
        best_file = self.folder / f"{stage}.safetensors"
        if stage not in self.finished:
            if start is not None:
                module.load_state_dict({**module.state_dict(), **start})
            module.load_state_dict(self._train(stage, task, module, best_file))
            return module
        if self.group.is_main:
            load_into(module, best_file, self._settings, inside=self.folder)
        if self.group.world > 1:
            module.load_state_dict(self.group.broadcast({k: v.cpu() for k, v in module.state_dict().items()}))
        return module

    def _initial_of(self, stage: str) -> Mapping[str, Tensor] | None:
        """The initial weights for a stage; one that is finished or under way does not need them."""
        if self.lost and stage not in self.finished and self._pending.get("stage") != stage:
            raise RunError(f"the stage '{stage}' of seed {self.seed} {self.lost}")
        return self.initial

    def predict(self, model: nn.Module, utterances: Sequence[Utterance]) -> Predictions:
        """Predictions for training utterances."""
        return predict_utterances(model, utterances, self.config, self.device, self.context, self.group)

    def cached_predictions(self, name: str, model: nn.Module, pool: Sequence[Utterance]) -> Predictions:
        """Predictions for the pool, cached on disk so that a resumed run reuses them, also on another machine."""
        file, target = self.folder / f"{name}.safetensors", Target.of(self.config.target)
        cached = None
        if self.group.is_main and exists(file):
            like = {"probabilities": torch.empty(len(pool), target.num_classes)}
            like |= {} if target.is_classes else {"value": torch.empty(len(pool))}
            try:
                cached = load_weights(file, like=like, inside=self.folder)
            except RunError as error:
                self.callbacks.on_message(f"WARNING: {error}; predicting again.")
        cached = self.group.broadcast(cached)
        if cached is None:
            predictions = self.predict(model, pool)
            if self.group.is_main:
                kept = {"value": predictions.value, "probabilities": predictions.probabilities}
                save_weights(file, {k: torch.from_numpy(v) for k, v in kept.items() if v is not None})
            return predictions
        blank = np.full(len(pool), np.nan, dtype=np.float32)
        value = None if target.is_classes else cached["value"].numpy()
        return Predictions([*ids_of(pool)], blank, value, cached["probabilities"].numpy(), None, target)

    def _train(self, stage: str, task: Task, model: nn.Module, best_file: Path) -> dict[str, Tensor]:
        """Trains a stage, or the rest of it; returns its best weights."""
        optim, epochs = self.config.optim, task.epochs
        optimizer = build_optimizer(model, optim)
        schedule = build_schedule(optimizer, epochs * task.per_epoch, optim)
        average = MovingAverage(model, optim.ema) if optim.ema else None
        if self.config.run.compile:
            model.compile(dynamic=True)  # in place, so that the names of its weights stay
        state = TrainState(model, optimizer, schedule, average)
        recorder = StepRecorder([*model.parameters()]) if task.recorded and self.group.world == 1 else None
        stage_progress = StageProgress()

        def over(progress: StageProgress) -> bool:
            late = optim.patience and progress.epoch - progress.best_epoch > optim.patience
            return progress.epoch > epochs or bool(late)

        if self._pending.get("stage") == stage:
            try:
                stage_progress = StageProgress(**self._pending["progress"])
                if not (over(stage_progress) and not self._pending["state"]):
                    state.load_state_dict(self._pending["state"])
            except Exception as error:  # torch raises many types for what does not fit
                raise RunError(
                    f"the state in '{self.folder}' is not of the stage '{stage}' ({cut(error)}); delete that folder "
                    "to train the seed again"
                ) from None

        self.callbacks.on_stage_start(stage, self.seed, task.size * (epochs + 1 - stage_progress.epoch))
        workers = self.config.run.workers
        with BatchLoader(task, workers, self.device, lambda: self.stop.requested) as loader:
            while not over(stage_progress):
                mean_loss = self._epoch(stage, task, state, stage_progress, loader, recorder)
                scored: nn.Module = model if average is None else average.model
                scores = task.score(scored, self.group)
                score = scores[task.select]
                # A score that is NaN is never better, and any other is better than it.
                first = stage_progress.best_epoch == 0 or (math.isnan(stage_progress.best) and not math.isnan(score))
                improved = first or is_better(task.select, score, stage_progress.best)
                if improved:
                    stage_progress.best, stage_progress.best_epoch = score, stage_progress.epoch
                    stage_progress.weights = {k: v.detach().cpu().clone() for k, v in scored.state_dict().items()}
                row = {
                    "seed": self.seed,
                    "stage": stage,
                    "epoch": stage_progress.epoch,
                    "loss": mean_loss,
                    "valid": scores,
                }
                row |= {"lr": schedule.get_last_lr()[0], "seconds": stage_progress.elapsed(), "best": improved}
                self.history.append(row)
                self.callbacks.on_epoch_end(row, epochs)
                stage_progress.next_epoch()
                # Of a stage that is over the best weights alone are read; a finished run keeps this state.
                self._save(stage, None if over(stage_progress) else state, stage_progress)
                if self._stopping:
                    self.stop.interrupt()
        if self.group.is_main:
            save_weights(best_file, stage_progress.weights, self._settings)
        self.finished.append(stage)
        self._save()
        return stage_progress.weights

    def _epoch(
        self,
        stage: str,
        task: Task,
        state: TrainState,
        stage_progress: StageProgress,
        loader: BatchLoader,
        recorder: StepRecorder | None,
    ) -> float:
        """Trains an epoch, or the rest of it; returns the mean loss of its steps."""
        key = (self.seed, stage, stage_progress.epoch)
        # Each process draws its own dropout: from here, or from where the epoch was interrupted.
        torch.manual_seed(seed_for(*key, "dropout", *self.group.key))
        if stage_progress.random is not None and len(stage_progress.random) == self.group.world:
            set_random_state(stage_progress.random[self.group.rank], self.device)
        state.model.train()
        losses: list[Tensor] = []
        ids: list[tuple[str, ...]] = []
        before, steps = (stage_progress.epoch - 1) * task.per_epoch, task.epochs * task.per_epoch
        shard = Shard(stage_progress.step, rank=self.group.rank, world=self.group.world)
        with closing(loader.epoch(*key, shard=shard)) as batches:
            for batch in batches:
                done = (before + stage_progress.step) / steps
                step_loss, raised = training_step(
                    task,
                    state,
                    batch,
                    done,
                    self.config.optim,
                    self.group,
                    lambda: (self.stop.requested, self.stop.due),
                    recorder,
                )
                self._stopping, saving = raised
                losses.append(step_loss)
                ids.append(() if batch is None else (batch[0] if isinstance(batch, tuple) else batch).ids)
                stage_progress.step += 1
                self.callbacks.on_step(ids[-1])
                # After the last step the epoch is scored first, and saved with its score.
                if (self._stopping or saving) and stage_progress.step < task.per_epoch:
                    self._save_within(stage, state, stage_progress, losses, ids)
                    losses, ids = [], []
                    if self._stopping:
                        self.stop.interrupt()
        if stage_progress.step < task.per_epoch:  # asked to stop, and the next batch did not come
            if self.group.world == 1:  # several processes save together; the others wait for this one's step
                self._save_within(stage, state, stage_progress, losses, ids)
            self.stop.interrupt()
        stage_progress.losses += self._finite_losses(losses, ids, stage, stage_progress.epoch)
        return torch.tensor(stage_progress.losses).mean().item()

    def _save_within(
        self,
        stage: str,
        state: TrainState,
        stage_progress: StageProgress,
        losses: list[Tensor],
        ids: Sequence[Sequence[str]],
    ) -> None:
        """Saves between two steps of an epoch; ``losses`` and ``ids`` are of the steps since the last time."""
        stage_progress.losses += self._finite_losses(losses, ids, stage, stage_progress.epoch)
        stage_progress.random = self.group.gather_objects(random_state(self.device))
        self._save(stage, state, stage_progress)

    def _finite_losses(self, losses: list[Tensor], ids: Sequence[Sequence[str]], stage: str, epoch: int) -> list[float]:
        """The losses of steps, summed over all processes. Read rarely: each time the host waits for the GPU."""
        if not losses:
            return []
        stacked = self.group.all_reduce(torch.stack(losses).float())
        bad = (~torch.isfinite(stacked)).nonzero()
        if len(bad):
            names = ", ".join(ids[int(bad[0])])
            raise RunError(
                f"the loss is not finite in stage '{stage}', epoch {epoch}, seed {self.seed}, for the batch [{names}]; "
                "lower 'optim.lr', set 'optim.clip_norm', or check these utterances' features"
            )
        return stacked.tolist()

    def _save(
        self, stage: str | None = None, state: TrainState | None = None, stage_progress: StageProgress | None = None
    ) -> None:
        self._pending = {}
        if stage_progress is not None:
            training = {} if state is None else state.state_dict()
            self._pending = {"stage": stage, "state": training, "progress": stage_progress.state_dict()}
        self.stop.saved()
        if not self.group.is_main:
            return
        # Before the state: a resumed run writes it again, unless the state says that all is done.
        write_text(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in self.history))
        kept = {"history": self.history, "finished": self.finished, "pending": self._pending, "start": self._start}
        save_state(self.folder, kept | {"settings": self._settings})

    def _check_state(self, state: dict[str, Any]) -> None:
        """Checks the parts of a state, and that the weights of its finished stages are intact."""
        optim = self.config.optim
        rates = [rate for _, rate in parameter_groups(self._skeleton("fine-tuning"), optim)]
        small = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in rates])
        optimizer = optimizer_of([([p], rate) for p, rate in zip(small, rates, strict=True)], optim)
        schedule = build_schedule(optimizer, 1, optim)
        average = MovingAverage(small, optim.ema) if optim.ema else None
        fresh = TrainState(small, optimizer, schedule, average)

        def order(module: nn.Module) -> list[list[nn.Parameter]]:
            return [parameters for parameters, _ in parameter_groups(module, optim)]

        StateCheck(self._known_skeleton, fresh, order, self.config.select)(state)
        for stage in state["finished"]:
            module = self._known_skeleton(stage)
            like = None if module is None else module.state_dict()
            file = self.folder / f"{stage}.safetensors"
            check_weights(load_weights(file, like=like, inside=self.folder, most=self._most), module, stage)

    @cached_property
    def _most(self) -> int:
        """Bytes that a state can have: of the weights, their average, the best ones and two moments, and some more."""
        kinds = ("fine-tuning", "pretrain") if self.config.pretrain.epochs else ("fine-tuning",)
        return MOST_RECORDS + 32 * max(weight_bytes(self._skeleton(kind)) for kind in kinds)

    def _known_skeleton(self, stage: str) -> nn.Module | None:
        """The module of a stage without its weights; None for a protocol of one's own, which may train another."""
        name = component_name(self.config.protocol.name)
        built_in = PROTOCOLS.module_of(name).startswith("gmsa.")
        return self._skeleton("pretrain" if stage == "pretrain" else "fine-tuning") if built_in else None

    def _skeleton(self, kind: str) -> nn.Module:
        if kind not in self._skeletons:
            model = model_skeleton(self.dims, self.config)
            if kind == "pretrain":
                model = skeleton(lambda: PretrainingModel(model, self.dims, self.config))
            self._skeletons[kind] = model
        return self._skeletons[kind]


def to_start_from(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model that another can start from: all but the reconstruction, which has feature statistics."""
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith("reconstruction.")}
