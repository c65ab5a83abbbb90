"""The front door: train, open, search and compare from Python, as the commands do from the shell.

.. code-block:: python

    import gmsa

    run = gmsa.fit("mosi_graph", data="own.pkl", out="runs/first", seeds=[1, 2, 3])
    run.metrics["test"]["MAE"]  # mean, std, values
    run.predict("clips.pkl").to_csv("answers.csv")
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmsa.config import Config
from gmsa.config.override import Overrides, as_items, as_seeds, as_yaml, changed, override, with_plugins
from gmsa.config.packaged import find
from gmsa.errors import ConfigError, shown
from gmsa.registry import load_plugins
from gmsa.system.reading import expanded
from gmsa.system.script import script_not_rerun, torch_settings_kept

if TYPE_CHECKING:
    from gmsa.ablation.folder import Table
    from gmsa.runs.folder import Run
    from gmsa.tuning.folder import Study

Settings = str | os.PathLike[str] | Config | Mapping[str, Any]
"""A packaged config by name, a YAML file, a config, or a dict of settings, nested or with dotted keys."""
Folder = str | os.PathLike[str]
LEAST_FOLDS, MOST_FOLDS = 3, 1000
"""Parts of cross-validation."""


def fit(
    config: Settings,
    *,
    data: Folder | None = None,
    out: Folder | None = None,
    seeds: int | Sequence[int] | None = None,
    overrides: Overrides = (),
    device: str | None = None,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    plugins: Iterable[str] = (),
) -> Run:
    """Trains a model with every seed, scores it, and leaves a run folder.

    Args:
        config: name of a packaged config, path of a YAML file, a :class:`~gmsa.Config`, or a dict of settings.
        data: data file or feature store; its stem is the data set's name. By default the config's.
        out: run folder; by default ``run.out`` of the config, numbered where it is taken.
        seeds: one training each; by default the config's.
        overrides: further settings, ``{"optim.lr": 1e-3}`` or ``["optim.lr=1e-3"]``.
        device: ``auto``, ``cpu`` or ``cuda``; by default the config's.
        resume: resume the run that is in the run folder; start it where there is none yet.
        callbacks: :class:`~gmsa.training.callbacks.Callback` objects that follow the training, beside those of
            ``run.callbacks``.
        plugins: modules that register parts of your own.

    Returns:
        The finished run. Where ``torchrun`` started several processes, the first one's; the others end here.

    Raises:
        GmsaError: the config, the data or the folder is wrong; before any training where that can be known.
        KeyboardInterrupt: Ctrl-C, after the step at hand is saved.
    """
    name, base, items, modules = _layers(config, data, seeds, overrides, device, plugins)
    settings = with_plugins(changed(base, items), modules)
    followers = _checked_callbacks(callbacks)
    from gmsa.runs.folder import Run
    from gmsa.runs.resume import choose_folder
    from gmsa.runs.train import train
    from gmsa.system import distributed
    from gmsa.system.console import console

    folder, started = Path(), False
    if distributed.is_main_process():
        resume = resume or distributed.is_restarted()
        folder, started = choose_folder(out, settings.run.out.replace("{name}", name), resume)
        if resume and not started:
            console().print(f"nothing to resume in '{folder}' yet: starting")
    with script_not_rerun(), torch_settings_kept():
        train(settings, name, folder, started, followers)
    if not distributed.is_main_process():
        sys.exit(0)
    return Run(folder)


def load(model: Folder, *, revision: str | None = None, plugins: Iterable[str] = ()) -> Run:
    """Opens a trained model: a folder that :meth:`Run.save` wrote, a run folder, or a model of the Hugging Face Hub.

    Args:
        model: the folder, or an id ``user/name`` of the Hub (needs the extra ``hub``).
        revision: branch, tag or commit, on the Hub.
        plugins: modules that register the parts of your own that it uses; opening it imports no others.

    Returns:
        The run, ready to predict.

    Raises:
        RunError: there is no such folder, it is damaged, or the Hub does not give it.
    """
    from gmsa.runs.hub import open_model

    return open_model(model, revision, plugins)


def compare(
    config: Settings,
    vary: Mapping[str, Sequence[Any]] | str | Sequence[str] = (),
    settings: Folder | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    folds: int | None = None,
    by: str | None = None,
    only: str | Sequence[str] = (),
    jobs: int = 1,
    out: Folder | None = None,
    data: Folder | None = None,
    overrides: Overrides = (),
    device: str | None = None,
    plugins: Iterable[str] = (),
) -> Table:
    """Trains every setting with every seed and compares them; call it again to resume.

    Each training runs in a process of its own, which does not run the calling script again.

    Args:
        config: as for :func:`fit`; what all settings share.
        vary: values of settings to compare, ``{"model.fusion": ["gate", "add"]}`` or ``["model.fusion=gate,add"]``: all
            combinations.
        settings: name of a packaged list of settings, or path of one (with ``vary``: all combinations).
        seeds: seeds of every setting; by default the config's.
        folds: parts of cross-validation: every setting is trained on each fold, whose part is tested and the next one
            validates. Scores are means and standard deviations over the folds. Without ``vary`` and ``settings`` the
            config alone is cross-validated.
        by: ``video``, ``speaker`` or ``utterance``: what stays together in a fold; by default ``data.split.by`` of the
            config. Where the file's utterances have a ``fold``, those are the parts.
        only: names of the settings to train now, or patterns such as ``"gatv2*"``; by default all. The comparison says
            which were not run; call it again without ``only`` to train these, too.
        jobs: number of trainings at a time.
        out: folder of the comparison; by default ``runs/ablate-`` and the names of the files.
        data, overrides, device, plugins: as for :func:`fit`.

    Returns:
        The comparison. It says which trainings failed, if any; ``complete`` is then False.

    Raises:
        GmsaError: a setting, the data or the folder is wrong; before any training.
    """
    if jobs < 1:
        raise ConfigError(f"expected a number of trainings at a time from 1 on (got {jobs})")
    name, base, items, modules = _layers(config, data, seeds, overrides, device, plugins)
    items += _folding(items, folds, by)
    if isinstance(vary, str):
        vary = [vary]
    if isinstance(vary, Mapping):
        for key, values in vary.items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise ConfigError(f"'{key}': expected a list of values to compare (got {values!r})")
        vary = [f"{key}={','.join(map(as_yaml, values))}" for key, values in vary.items()]
    file = None if settings is None else find(os.fspath(settings), "ablations")
    from gmsa.ablation.ablate import ablate
    from gmsa.ablation.folder import Table
    from gmsa.ablation.variants import chosen_names, read_variants

    variants = read_variants(base, items, list(vary), file, alone=name if folds else "")
    if folds and any(variant.config.data.split.keep_test for variant in variants):
        raise ConfigError(
            "--folds tests on every part in turn, but 'data.split.keep_test' has one test split for all; leave that "
            "out, or train fold by fold with data.split.folds and data.split.fold"
        )
    variants = [replace(variant, config=with_plugins(variant.config, modules)) for variant in variants]
    chosen = chosen_names(variants, [only] if isinstance(only, str) else only) if only else None
    name = name if file is None else f"{name}-{file.stem}"
    folder = expanded(out or f"runs/ablate-{name}")
    with script_not_rerun(), torch_settings_kept():
        ablate(variants, name, folder, jobs, folds, chosen)
    return Table(folder)


def search(
    config: Settings,
    space: Folder = "default",
    trials: int = 30,
    *,
    objectives: str | Sequence[str] | None = None,
    sampler: str = "tpe",
    pruner: str | None = None,
    jobs: int = 1,
    timeout: float = math.inf,
    trial_seeds: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] | None = None,
    seed: int = 0,
    name: str | None = None,
    out: Folder | None = None,
    storage: str | None = None,
    heartbeat: int = 60,
    salvage: bool = False,
    data: Folder | None = None,
    overrides: Overrides = (),
    device: str | None = None,
    plugins: Iterable[str] = (),
) -> Study:
    """Searches a space of settings on the validation split with Optuna; call it again to resume.

    The best trial is trained anew, and tested once. Trials run in processes of their own, which do not run the calling
    script again.

    Args:
        config: as for :func:`fit`; trial 0 is the config itself.
        space: name of a packaged search space, or path of one.
        trials: number of trials of the study, in all.
        objectives: a metric that ``run.select`` takes, such as ``MAE``, or ``weighted_F1`` of classes; one of
            ``run.metrics``, ``seconds`` or ``parameters``; or several: the Pareto front. By default ``run.select``.
        sampler: ``tpe``, ``gp``, ``random`` or ``qmc``.
        pruner: ``median``, ``hyperband`` or ``off``; by default ``median``, with several objectives ``off``.
        jobs: number of worker processes.
        timeout: seconds after which no trial is started.
        trial_seeds: seeds that every trial trains; by default the config's first.
        seeds: seeds of the final training and test; by default the config's.
        seed: seed of the sampler.
        name: name of the study; by default those of the config and the space.
        out: folder; by default ``runs/study-`` and the name of the study.
        storage: URL of a PostgreSQL server for many machines; by default a journal in the folder.
        heartbeat: seconds between a worker's signs of life on a server.
        salvage: resume with the intact lines of a damaged journal; the study says what it leaves out.
        data, overrides, device, plugins: as for :func:`fit`.

    Returns:
        The study. ``complete`` is False where no trial has a value.

    Raises:
        GmsaError: the search, the data, the storage or the folder is wrong; before any training.
    """
    stem, base, items, modules = _layers(config, data, None, overrides, device, plugins)
    settings = with_plugins(changed(base, items), modules)
    file = find(os.fspath(space), "spaces")
    name = name or f"{stem}-{file.stem}"
    wanted = (objectives,) if isinstance(objectives, str) else tuple(objectives or (settings.select,))
    from gmsa.tuning import StudyOptions, read_space, tune
    from gmsa.tuning.folder import Study

    options = StudyOptions(
        name=name,
        trials=trials,
        folder=expanded(out or f"runs/study-{name}"),
        objectives=wanted,
        sampler=sampler,
        pruner=pruner or ("off" if len(wanted) > 1 else "median"),
        jobs=jobs,
        timeout=timeout,
        seed=seed,
        trial_seeds=settings.run.seeds[:1] if trial_seeds is None else as_seeds(trial_seeds),
        seeds=settings.run.seeds if seeds is None else as_seeds(seeds),
        url=storage,
        heartbeat=heartbeat,
        salvage=salvage,
    )
    with script_not_rerun(), torch_settings_kept():
        tune(settings, read_space(file, settings), options)
    return Study(options.folder)


def _layers(
    config: Settings,
    data: Folder | None,
    seeds: int | Sequence[int] | None,
    overrides: Overrides,
    device: str | None,
    plugins: Iterable[str],
) -> tuple[str, Path | Config, list[str], list[str]]:
    """What a config is called, its file or itself, the ``key=value`` that are asked of it, and the plug-ins."""
    modules = [plugins] if isinstance(plugins, str) else list(plugins)
    load_plugins(modules, Path())
    items = []
    if data is not None:
        if not isinstance(data, (str, os.PathLike)):
            raise ConfigError(
                f"'data' is the path of a file or a feature store (got a {type(data).__name__}); write arrays into a "
                "pickle as docs/start/own_data.md shows, or with gmsa.data.write_store"
            )
        path = expanded(data, ConfigError)
        items += [f"data.path={json.dumps(str(path))}", f"data.name={json.dumps(path.stem)}"]
    items += as_items(overrides)
    if seeds is not None:
        items.append(f"run.seeds={list(as_seeds(seeds))}")
    if device is not None:
        items.append(f"run.device={device}")
    if isinstance(config, (str, os.PathLike)):
        file = find(os.fspath(config), "configs")
        return file.stem, file, items, modules
    if isinstance(config, (Config, Mapping)):
        base = override(config)
        return override(base, items).data.name, base, items, modules
    raise ConfigError(f"expected the name of a config, a path, a Config or a dict (got a {type(config).__name__})")


def _folding(items: Sequence[str], folds: int | None, by: str | None) -> list[str]:
    """The ``key=value`` that ask for cross-validation."""
    if folds is None:
        if by is not None:
            raise ConfigError("--by says what stays together in a fold; give --folds, too, or set data.split.by")
        return []
    if isinstance(folds, bool) or not isinstance(folds, int) or not LEAST_FOLDS <= folds <= MOST_FOLDS:
        raise ConfigError(
            f"--folds takes a whole number from {LEAST_FOLDS} (a part to test, one to validate, one to train) to "
            f"{MOST_FOLDS} (got {shown(folds)})"
        )
    given = {item.partition("=")[0].strip() for item in items}
    for key in ("data.split", "data.split.folds", "data.split.fold", *(["data.split.by"] if by else [])):
        if key in given:
            raise ConfigError(f"'{key}' gets a value from --set and from --folds or --by; leave one out")
    return [f"data.split.folds={folds}", "data.split.fold=0", *([f"data.split.by={by}"] if by else [])]


def _checked_callbacks(callbacks: Iterable[Any]) -> tuple[Any, ...]:
    """The callbacks; refuses, before any work, what is none."""
    given = tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)
    if given:
        from gmsa.training.callbacks import Callback  # here: it loads torch

        for callback in given:
            if not isinstance(callback, Callback):
                raise ConfigError(
                    "expected objects of classes derived from gmsa.training.callbacks.Callback as callbacks "
                    f"(got {callback!r})"
                )
    return given
