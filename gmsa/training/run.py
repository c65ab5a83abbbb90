"""A whole run: every seed trained, then the test split scored once, then the report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gmsa.config import SYNTHETIC, Config, MissingConfig, to_dict
from gmsa.distributed import ALONE, Group, join
from gmsa.errors import RunError
from gmsa.files import check_out_folder, remove_leftovers
from gmsa.lock import only_writer
from gmsa.models import build_model
from gmsa.report import markdown_table, missing_lines
from gmsa.training.checkpoint import save_weights
from gmsa.training.environment import describe_environment, describe_files
from gmsa.training.loop import Trainer, to_start_from
from gmsa.training.prepare import Prepared, prepare
from gmsa.training.progress import Progress
from gmsa.training.protocols import PROTOCOLS, Material
from gmsa.training.results import report, report_pretraining
from gmsa.training.runs import open_run, read_config, save_inputs, set_up
from gmsa.training.stopping import Stop

NOT_IN_WEIGHTS = {
    "model": {"dropout", "input_dropout", "modality_dropout", "route"},
    "graph": {"edge_dropout"},
}
"""Settings that may differ from those of the run that another starts from (``protocol.init_from``)."""
ON_FEATURES = ("normalize", "clip")
"""Settings of ``data`` that scale the features that the weights were trained on."""


def choose_folder(out: str | None, default: str, resume: bool) -> Path:
    """The run folder: ``out``, or the default one, numbered where it is taken.

    Raises:
        RunError: ``out`` holds a run already and ``resume`` is not asked for, or there is nothing to resume.
    """
    if out is not None:
        folder = Path(out)
        check_out_folder(folder)
    else:
        taken = [Path(default)]
        while (following := Path(f"{default}-{len(taken) + 1}")).exists():
            taken.append(following)
        folder = taken[-1] if resume or not taken[-1].exists() else following
    if resume and not (folder / "config.yaml").exists():
        raise RunError(f"'{folder}' holds no run to resume; leave --resume out to start one")
    # A start that was killed early leaves hidden files alone.
    if not resume and folder.exists() and (not folder.is_dir() or any(p.name[0] != "." for p in folder.iterdir())):
        raise RunError(f"'{folder}' is not empty; add --resume to go on with its run, or give another --out")
    return folder


def train(config: Config, name: str, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Trains every seed of ``config`` into ``folder`` and returns the content of ``summary.json``.

    Args:
        name: name of the run in its tables.
        folder: where the first of several processes writes; the others need none.
        resume: go on with the run that the folder holds; seeds that are done are not trained again.

    Raises:
        GmsaError: the config, the data or the folder is wrong; before any training where that can be known.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the step at hand is saved.
    """
    group, device = join(set_up(config.run))
    resume = group.tell(resume)
    if resume:
        config = group.tell(resumed(folder, config) if group.first else config)
    prepared = prepare(config)
    corpus = prepared.corpus
    if resume and group.first:
        check_files(folder, describe_files(config, corpus))
    materials = {seed: prepared.material(config, seed) for seed in config.run.seeds}
    starts = {seed: start_of(config, prepared, seed, device, group) for seed in materials}
    with Progress(silent=not group.first) as progress, ExitStack() as stack:
        if group.first:
            folder.mkdir(parents=True, exist_ok=True)
            before = stack.enter_context(only_writer(folder))
            if before is not None:
                progress.say(f"Taking '{folder}' over from {before}, which has ended without a word.")
            for place in (folder, *folder.glob("seed-*")):
                remove_leftovers(place)
        stop = Stop(config.run.save_every)
        # All of them before any training: a trainer reads the state that it goes on from.
        trainers = {
            seed: make_trainer(config, prepared, seed, start, folder / f"seed-{seed}", device, progress, group, stop)
            for seed, start in starts.items()
        }
        if group.first:
            save_inputs(folder, config, describe_environment(config, corpus, device), prepared.normalizer)
        progress.say(describe_data(config, prepared, materials[config.run.seeds[0]], device, group.world))
        try:
            with stop.listening():
                for seed, material in materials.items():
                    model = train_seed(trainers[seed], material)
                    if group.first:
                        save_weights(folder / f"seed-{seed}" / "model.safetensors", model.state_dict())
                if stop.asked:  # after the last step
                    stop.obey()
        except KeyboardInterrupt:
            progress.say(f"Interrupted; all that was done is saved. Go on with --resume --out {folder}")
            raise
        group.leave()
        if not group.first:
            return {}
        for trainer in trainers.values():
            trainer.group = ALONE
        write = report_pretraining if config.protocol.name == "pretrain" else report
        summary = write(config, name, folder, prepared, materials, trainers)
        progress.say(f"\n{markdown_table([summary])}\nRun folder: {folder}")
    return summary


def check_files(folder: Path, files: Mapping[str, str | None]) -> None:
    """Checks that a run was made with these data files.

    Args:
        files: SHA-256 of the data files, as ``describe_files`` gives them.

    Raises:
        RunError: names the one that differs, and both hashes.
    """
    before = open_run(folder)
    data = before.config.data
    for key, now in files.items():
        then = before.environment.get(key)
        if then != now:
            path = data.path if key == "data_sha256" else data.pool
            differs = f"SHA-256 {str(now)[:12]}…, was {str(then)[:12]}…"
            raise RunError(
                f"'{path}' is not the file that '{folder}' was trained on ({differs}); put that file back, or give "
                "another --out"
            )


def start_of(
    config: Config, prepared: Prepared, seed: int, device: torch.device, group: Group = ALONE
) -> dict[str, Tensor] | None:
    """The weights that a seed starts from, where ``protocol.init_from`` is set.

    Raises:
        RunError: they are missing, damaged or of another model.
    """
    if config.protocol.init_from is None:
        return None
    corpus = prepared.corpus
    return group.tell(initial_weights(config, dict(corpus.dims), corpus.sha256, seed, device) if group.first else None)


def make_trainer(
    config: Config,
    prepared: Prepared,
    seed: int,
    start: dict[str, Tensor] | None,
    folder: Path,
    device: torch.device,
    progress: Progress,
    group: Group = ALONE,
    stop: Stop | None = None,
) -> Trainer:
    """The trainer of one seed.

    Raises:
        RunError: what it would go on from is damaged, or began from another ``start``.
    """
    dims, valid, learned_from = dict(prepared.corpus.dims), prepared.splits["valid"], prepared.to_learn_from
    return Trainer(config, dims, valid, seed, folder, device, progress, learned_from, start, group, stop or Stop())


def train_seed(trainer: Trainer, material: Material) -> nn.Module:
    """Trains one seed through all stages that its config asks for; returns the final model."""
    trainer.folder.mkdir(parents=True, exist_ok=True)
    protocol = trainer.config.protocol.name
    if trainer.config.pretrain.epochs and protocol != "pretrain":
        trainer.pretrain()
    return PROTOCOLS[protocol](trainer, material)


def resumed(folder: Path, config: Config) -> Config:
    """The config of a run that goes on: the same settings, with the seeds of before and any new ones.

    Raises:
        RunError: names the settings that differ; only seeds, device, folder and what changes no number may.
    """
    old = to_dict(read_config(folder))
    differing = [
        f"{group}.{key} was {old.get(group, {}).get(key)!r}, is {value!r}"
        for group, values in to_dict(config).items()
        for key, value in values.items()
        if (group != "run" or key in ("select", "threads", "compile", "deterministic"))
        and old.get(group, {}).get(key) != value
    ]
    if differing:
        raise RunError(f"cannot resume '{folder}' with other settings: {'; '.join(differing)}; give another --out")
    seeds = dict.fromkeys((*old["run"]["seeds"], *config.run.seeds))
    return replace(config, run=replace(config.run, seeds=tuple(seeds)))


def initial_weights(
    config: Config, dims: dict[str, int], data_sha256: str, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """The weights of ``protocol.init_from`` for a seed.

    Args:
        data_sha256: of the data that this run learns from.

    Raises:
        RunError: it is no run folder of the protocol ``pretrain``, has no such seed, holds another model, or has seen
            what this run hides.
    """
    folder = config.protocol.init_from
    assert folder is not None
    before = open_run(folder)
    protocol = before.config.protocol.name
    if protocol != "pretrain":
        raise RunError(
            f"'protocol.init_from': '{folder}' is a run of the protocol '{protocol}', whose weights have seen labels; "
            "name one of the protocol 'pretrain'"
        )
    then, now = to_dict(before.config), to_dict(config)
    keys = [(group, key) for group, passed in NOT_IN_WEIGHTS.items() for key in sorted(then[group].keys() - passed)]
    for group, key in [*keys, *(("data", key) for key in ON_FEATURES)]:
        if then[group][key] != now[group][key]:
            raise RunError(
                f"'protocol.init_from': '{folder}' was trained with {group}.{key} {then[group][key]!r}, "
                f"this run has {now[group][key]!r}; make them equal"
            )
    # Weights of other data may have seen all of it; of the same, not what this run is to do without.
    if before.environment["data_sha256"] == data_sha256:
        for key in ("train", "seed"):
            hid, hides = then["data"]["missing"][key], now["data"]["missing"][key]
            if hid != hides:
                raise RunError(
                    f"'protocol.init_from': '{folder}' was trained on the same data with data.missing.{key} {hid!r}, "
                    f"this run has {hides!r}, so its weights may know what is hidden here; make them equal"
                )
    if seed not in before.config.run.seeds:
        raise RunError(
            f"'protocol.init_from': '{folder}' has no seed {seed}; add it there with gmsa.train --resume --seeds {seed}"
        )
    found = to_start_from(before.model(seed, device))
    own = to_start_from(build_model(dims, config))
    for name in sorted(own.keys() | found.keys()):
        if name not in own or name not in found or own[name].shape != found[name].shape:
            raise RunError(
                f"'protocol.init_from': '{folder}' was trained on features of other dimensions ('{name}' differs); "
                "extract these as those were"
            )
    return found


def describe_data(
    config: Config, prepared: Prepared, material: Material, device: torch.device, processes: int = 1
) -> str:
    """The line that a run starts with."""
    corpus = prepared.corpus
    dims = ", ".join(f"{m} {d}" for m, d in corpus.dims.items())
    sizes = ", ".join(f"{split} {len(utterances)}" for split, utterances in corpus.splits.items())
    line = (
        f"{SYNTHETIC if corpus.synthetic else config.data.name}: {sizes} utterances; features {dims}; "
        f"{len(material.labeled)} labeled, {len(material.pool)} in the pool; {config.model.name} on {device.type}"
    )
    line += f", {processes} processes" if processes > 1 else ""
    if config.data.missing != MissingConfig():
        line += "".join(f"\n{key}: {value}" for key, value in missing_lines(prepared.missing).items())
    for modality in prepared.unseen:
        line += f"\nWARNING: no utterance to learn from has {modality}; it is left out, in validation and test too."
    if not corpus.synthetic:
        return line
    asked = config.data.path
    why = "the config asks for it" if asked == SYNTHETIC else f"'{asked}' is not there, so the embedded one is used"
    return (
        f"{'=' * 79}\nSYNTHETIC corpus: {why}.\nIts numbers say nothing about a real data set; "
        f"the README says how to put MOSI in place.\n{'=' * 79}\n{line}"
    )
