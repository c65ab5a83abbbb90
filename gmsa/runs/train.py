"""A whole run: trains every seed, then scores the test split once, then writes the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmsa.config import SYNTHETIC, SYNTHETIC_DIALOGUES, Config, MissingConfig
from gmsa.config.components import component_name
from gmsa.config.trained import trained_settings
from gmsa.data.lazy import labels_of, own_labels_of
from gmsa.data.notes import Doubt, note
from gmsa.data.targets import describe_target
from gmsa.errors import cut, listed, short
from gmsa.models.build import unused_settings
from gmsa.reports.pages.run import PAGE
from gmsa.reports.run import markdown_table
from gmsa.reports.summary import missing_lines
from gmsa.runs.environment import base_of, describe_environment, describe_files, other_machine
from gmsa.runs.folder import Run, save_inputs
from gmsa.runs.initial_weights import lost_weights, start_of
from gmsa.runs.prepare import Prepared, prepare, resolved
from gmsa.runs.report import report, report_pretraining
from gmsa.runs.resume import check_files, look_again, resumed, seed_folders, settings_file, without_encoder
from gmsa.system.cli import how_to_resume
from gmsa.system.device import set_up
from gmsa.system.distributed import SINGLE_PROCESS, Group, join
from gmsa.system.files import make_folder, make_subfolder, remove_leftovers
from gmsa.system.lock import only_writer
from gmsa.system.reading import exists
from gmsa.text import describe_dims, texts_of
from gmsa.training.callbacks import Callback, CallbackList, RunInfo, build_callbacks
from gmsa.training.callbacks.progress import Progress
from gmsa.training.checkpoint import save_weights
from gmsa.training.examples import utterances_of
from gmsa.training.optimization.optimizer import check_precision
from gmsa.training.protocols import TrainingData, build_protocol, training_labels
from gmsa.training.stopping import Stop
from gmsa.training.trainer import Trainer


def train(
    config: Config, name: str, folder: Path, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Trains every seed of ``config`` into ``folder`` and returns the content of ``summary.json``.

    Args:
        name: name of the run in its tables.
        folder: where the first of several processes writes; the others need none.
        resume: resume the run in the folder; finished seeds are not trained again.
        callbacks: called beside the progress bar and those of ``run.callbacks``.

    Raises:
        GmsaError: the config, the data or the folder is wrong; before any training where that can be known.
        RunError: a callback failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the step at hand is saved.
    """
    group, device = join(set_up(config.run))
    resume = group.broadcast(resume)
    if not resume:
        check_precision(config, device)
    warning: str | None = None
    seen = settings_file(folder) if resume and group.is_main else None
    encoder, gone = config.model.text_encoder, None
    if resume:
        config = resumed(folder, config) if group.is_main else config
        config, gone = group.broadcast(without_encoder(folder, config) if group.is_main else (config, None))
    called = CallbackList([Progress(), *build_callbacks(config), *callbacks] if group.is_main else ())
    prepared = prepare(config)
    config, corpus = prepared.config, prepared.corpus
    if resume and group.is_main:
        run = Run(folder)
        check_files(run, describe_files(config, corpus, gone))
        warning = other_machine(run.environment)
    data_of = {seed: prepared.training_data(config, seed) for seed in config.run.seeds}
    starts = {seed: start_of(config, prepared, seed, device, group, gone) for seed in data_of}
    lost = lost_weights(config, encoder, gone)
    with ExitStack() as stack:
        if group.is_main:
            make_folder(folder)
            before = stack.enter_context(only_writer(folder))
            look_again(folder, seen)
            if before is not None:
                called.on_message(f"Taking '{folder}' over from {before}, which exited without releasing it.")
            if warning is not None:
                called.on_message(warning)
            for place in (folder, *seed_folders(folder)):
                remove_leftovers(place)
        summary: dict[str, Any] | None = None
        stack.callback(lambda: called.on_end(summary))
        called.on_start(RunInfo(name, folder, config))
        stop = Stop(config.run.save_every)
        # All of them before any training: a trainer reads the state that it resumes from.
        trainers = {
            seed: make_trainer(
                config, prepared, seed, start, folder / f"seed-{seed}", device, called, group, stop, lost
            )
            for seed, start in starts.items()
        }
        if group.is_main:
            texts = texts_of(config)
            labels = [training_labels(data) for data in data_of.values()]
            about = describe_environment(config, corpus, device, gone) | {"base": base_of(corpus.target, labels)}
            written = replace(config, model=replace(config.model, text_encoder=encoder))
            copied = None if texts is None or gone else texts.folder
            save_inputs(folder, written, about, prepared.normalizer, copied)
        called.on_message(describe_data(config, prepared, data_of[config.run.seeds[0]], device, group.world))
        note_unused(config)
        note_labels(config, prepared, data_of)
        try:
            with stop.listening():
                for seed, data in data_of.items():
                    model = train_seed(trainers[seed], data)
                    if group.is_main:
                        weights = folder / f"seed-{seed}" / "model.safetensors"
                        save_weights(weights, model.state_dict(), trained_settings(config, seed))
                if stop.requested:  # after the last step
                    stop.interrupt()
        except KeyboardInterrupt:
            called.on_message(f"Interrupted; everything so far is saved. {how_to_resume(folder)}")
            raise
        group.close()
        if not group.is_main:
            return {}
        for trainer in trainers.values():
            trainer.group = SINGLE_PROCESS
        write = report if build_protocol(config).predicts else report_pretraining
        summary = write(config, name, folder, prepared, data_of, trainers)
        page = f"\nReport: {folder / PAGE}" if exists(folder / PAGE) else ""
        called.on_message(f"\n{markdown_table([summary])}\nRun folder: {folder}{page}")
    return summary


def make_trainer(
    config: Config,
    prepared: Prepared,
    seed: int,
    start: dict[str, Tensor] | None,
    folder: Path,
    device: torch.device,
    callbacks: Callback,
    group: Group = SINGLE_PROCESS,
    stop: Stop | None = None,
    lost: str = "",
) -> Trainer:
    """The trainer of one seed.

    Args:
        lost: why there is no ``start``, where there should be one.

    Raises:
        RunError: the state to resume from is damaged, or of another ``start``; or it has none of both.
    """
    config = resolved(config, prepared.corpus)
    dims, valid, context = dict(prepared.corpus.dims), prepared.splits["valid"], prepared.training_utterances
    more = prepared.context.get("valid", ())
    return Trainer(
        config,
        dims,
        valid,
        seed,
        folder,
        device,
        callbacks,
        context,
        start,
        group,
        stop or Stop(),
        valid_context=more,
        lost=lost,
    )


def train_seed(trainer: Trainer, data: TrainingData) -> nn.Module:
    """Trains one seed through all stages that its config asks for; returns the final model."""
    make_subfolder(trainer.folder.parent, trainer.folder.name)
    protocol = build_protocol(trainer.config)
    if trainer.config.pretrain.epochs and protocol.predicts:
        trainer.pretrain()
    return protocol(trainer, data)


def note_unused(config: Config) -> None:
    """Notes settings of the model that it never looks at."""
    if unused := unused_settings(config):
        name = component_name(config.model.name)
        note(f"'model.name: {cut(name)}' does not use {listed(unused)}; leave it out")


def note_labels(config: Config, prepared: Prepared, data_of: Mapping[int, TrainingData]) -> None:
    """Notes classes that no labeled training utterance has, and labels of single modalities that no loss uses."""
    target, file = prepared.corpus.target, "synthetic" if prepared.corpus.synthetic else short(config.data.path)
    labeled = {seed: utterances_of(data.labeled) for seed, data in data_of.items()}
    if target.is_classes:
        for seed, utterances in labeled.items():
            there = {*np.unique(labels_of(utterances)).tolist()}
            absent = [name for number, name in enumerate(target.classes) if number not in there]
            if absent:
                kept = "" if config.data.label_ratio == 1 else f" that seed {seed} keeps"
                remedy = "raise 'data.label_ratio'" if kept else "add utterances"
                note(
                    Doubt(
                        f"{file}: no training label{kept} is of {len(absent)} of the {target.num_classes} classes "
                        f"({listed(absent)}), which will hardly be predicted; {remedy}, or leave them out of "
                        "'target.classes'"
                    )
                )
                break
    own = dict.fromkeys(m for utterances in labeled.values() for m in own_labels_of(utterances))
    if own and not config.loss.unimodal_weight:
        note(f"{file}: labels of single modalities ({listed(own)}) are not used; set 'loss.unimodal_weight' above 0")
    if config.loss.unimodal_weight and not own.keys() & prepared.corpus.dims.keys():
        note(f"{file}: no utterance has labels of single modalities; 'loss.unimodal_weight' has no effect")


def describe_data(
    config: Config, prepared: Prepared, data: TrainingData, device: torch.device, processes: int = 1
) -> str:
    """The first lines of a run: its data, its model, its device."""
    corpus = prepared.corpus
    dims = describe_dims(corpus.dims, texts_of(config))
    sizes = ", ".join(f"{split} {len(utterances)}" for split, utterances in corpus.splits.items())
    line = (
        f"{SYNTHETIC if corpus.synthetic else cut(config.data.name)}: {sizes} utterances; features {dims}; "
        f"{describe_target(corpus.target)}; {len(data.labeled)} labeled, {len(data.pool)} in the pool; "
        f"{config.model.name} on {device.type}"
    )
    line += f", {processes} processes" if processes > 1 else ""
    if config.data.missing != MissingConfig():
        line += "".join(f"\n{key}: {value}" for key, value in missing_lines(prepared.missing).items())
    if config.model.tokens:
        strides = listed(f"{config.model.stride(m)} of {m}" for m in corpus.dims)
        line += f"\nsteps of a token, to have {config.model.tokens} at most in 95 % of the utterances: {strides}"
    for modality in prepared.unseen:
        line += f"\nWARNING: no training utterance has {modality}; it is left out, in validation and test too."
    if not corpus.synthetic:
        return line
    asked = config.data.path
    why = (
        "the config asks for it"
        if asked in (SYNTHETIC, *SYNTHETIC_DIALOGUES)
        else f"'{asked}' is not there, so the embedded one is used"
    )
    return (
        f"{'=' * 79}\nSYNTHETIC corpus: {why}.\nIts numbers say nothing about a real data set; "
        f"the README says how to put MOSI in place.\n{'=' * 79}\n{line}"
    )
