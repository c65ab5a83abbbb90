"""Runs a study: checks it, queues its trials, starts the workers, trains and tests the best config once."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from gmsa.ablation.ablate import ablate
from gmsa.ablation.variants import Variant
from gmsa.config import Config, to_dict
from gmsa.errors import ConfigError, RunError
from gmsa.registry import loaded_plugins
from gmsa.reports.summary import SYNTHETIC_NOTE
from gmsa.runs.environment import describe_files
from gmsa.runs.prepare import prepare
from gmsa.system.console import ProgressBar, console, progress_bar
from gmsa.system.device import set_up
from gmsa.system.files import check_out_folder, write_json
from gmsa.training.callbacks import build_callbacks
from gmsa.training.protocols import build_protocol
from gmsa.tuning.objective import COST, COSTS, Training, direction_of, objectives_of
from gmsa.tuning.sampling import PRUNERS, SAMPLERS
from gmsa.tuning.space import Space, apply
from gmsa.tuning.storage import StoragePlace, check_storage, first_line
from gmsa.tuning.study_report import KILLED, StudyResult, write_best, write_study
from gmsa.tuning.trials import REASON, ended, fill, latest, place_of
from gmsa.tuning.workers import WorkerTask, run_workers

FACTS, FINAL = "gmsa", "gmsa:final"
"""User attributes of a study: the facts on which its workers agree; which trials were trained anew, and where."""


@dataclass(frozen=True)
class StudyOptions:
    """The options of a study."""

    name: str
    trials: int
    folder: Path
    objectives: tuple[str, ...]
    sampler: str = "tpe"
    pruner: str = "median"
    jobs: int = 1
    timeout: float = math.inf
    """Seconds after which no more trials begin."""
    seed: int = 0
    """Seed of the sampler."""
    trial_seeds: tuple[int, ...] = (1111,)
    """Seeds that every trial trains."""
    seeds: tuple[int, ...] = (1111,)
    """Seeds with which the config and the best trial are trained in the end, and scored on the test split."""
    url: str | None = field(default=None, repr=False)
    heartbeat: int = 60

    @property
    def where(self) -> StoragePlace:
        """Where the study is kept."""
        return StoragePlace(self.folder, self.url, self.heartbeat)

    @property
    def pruning(self) -> bool:
        """Whether trials may be stopped early."""
        return self.pruner != "off"


def tune(config: Config, space: Space, plan: StudyOptions) -> bool:
    """Runs a study, or resumes it; returns whether a trial has a value.

    Raises:
        GmsaError: the plan, the data, the storage or the folder is wrong; before any training.
        RunError: the storage does not answer any more.
    """
    try:
        return _tune(config, space, plan)
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = plan.where.hide(first_line(error))
        raise RunError(
            f"the storage '{plan.where.shown}' failed: {reason}; run the same command again to resume"
        ) from None


def _tune(config: Config, space: Space, plan: StudyOptions) -> bool:
    check_plan(plan, config)
    check_folder(plan.folder)
    build_callbacks(config)  # a package that one needs may be missing
    if not build_protocol(config).predicts:
        raise ConfigError(
            f"'protocol.name: {config.protocol.name}' predicts nothing to choose by; search another protocol"
        )
    config = replace(config, run=replace(config.run, seeds=plan.trial_seeds))
    set_up(config.run)
    with plan.where.one_command():
        return _work(config, space, plan)


def _work(config: Config, space: Space, plan: StudyOptions) -> bool:
    """Runs a checked study: reads the data, opens the storage, starts the workers, tests the best trial."""
    prepared = prepare(config)
    for seed in plan.trial_seeds:
        prepared.training_data(config, seed)
    files = describe_files(config, prepared.corpus)
    synthetic = prepared.corpus.synthetic
    facts = describe(config, space, plan, files)
    storage = plan.where.connect()
    with plan.where.alone(storage, plan.name):
        study = open_study(storage, plan, facts)
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_json(plan.folder / "study.json", {"study": plan.name, "storage": plan.where.shown} | facts)
        added = fill(study, plan.trials, space.own(config))
    show = StudyConsole(study, plan, synthetic)
    there = len(latest(study.get_trials(deepcopy=False)))
    show.say(
        f"study {plan.name}: {there} trials, {there - added} from before; sampler {plan.sampler}, "
        f"pruner {plan.pruner}, {plan.jobs} worker{'s' if plan.jobs > 1 else ''}; {plan.where.shown}"
    )
    if synthetic:
        show.say(f"{'=' * 79}\n{SYNTHETIC_NOTE}\n{'=' * 79}")
    objective = Training(config, space, plan.objectives, plan.folder / "trials", plan.pruning)
    deadline = time.time() + plan.timeout
    task = WorkerTask(
        plan.where, plan.name, objective, config, plan.sampler, plan.pruner, plan.seed, deadline, loaded_plugins()
    )
    try:
        with show:
            run_workers(task, plan.jobs, show.look, show.say)
    except KeyboardInterrupt:
        show.say(f"Interrupted; {show.ended} of {there} trials have ended. Run the same command again to resume.")
        raise
    found = StudyResult(plan.name, config, space, plan.objectives, latest(study.get_trials()), plan.folder, synthetic)
    rest = sum(not ended(t) for t in found.trials)
    if rest:
        show.say(f"{rest} of {len(found.trials)} trials are not done; run the same command again to resume.")
    with plan.where.alone(storage, plan.name, "final", wait=False) as first:
        here = f"{platform.node()}:{plan.folder.resolve()}"
        wanted = {"trials": [place_of(t) for t in found.best] if found.complete else [], "seeds": list(plan.seeds)}
        before = study.user_attrs.get(FINAL, {})
        elsewhere = before.get("where", here) != here and {k: before.get(k) for k in wanted} == wanted
        running = any(t.state == TrialState.RUNNING for t in found.trials)
        if running:
            show.say("Other workers are still running: the last one trains the best trial anew.")
        elif not first or elsewhere:
            show.say(f"The best trial is trained anew, and tested, by another command: {before.get('where', 'now')}.")
        test = first and not elsewhere and not running
        done = finish(found, plan, facts, show.say, test)
        if test and done:
            study.set_user_attr(FINAL, wanted | {"where": here})
        return done


def finish(
    found: StudyResult, plan: StudyOptions, facts: Mapping[str, Any], say: Callable[[str], None], test: bool
) -> bool:
    """Writes the files of a study; with ``test``, trains its best trial anew and scores that on the test split."""
    if not found.complete:
        reasons = dict.fromkeys(t.user_attrs.get(REASON, "") for t in found.trials if t.state == TrialState.FAIL)
        write_study(found, facts, None)
        say(f"No trial has a value. {'; '.join(filter(None, reasons))}\nStudy folder: {plan.folder}")
        return False
    write_best(found)
    write_study(found, facts, None)
    comparison = None
    if test and len(plan.objectives) == 1:
        best = found.best[0]
        say(f"Training the config and the best trial ({place_of(best)}) with seeds {', '.join(map(str, plan.seeds))}.")
        settings = [final_variant("default", found.config, plan.seeds)]
        if found.values(best):
            tuned = final_variant(f"trial {place_of(best)}", apply(found.config, found.values(best)), plan.seeds)
            settings += [tuned] if tuned.config != settings[0].config else []
        if not ablate(settings, plan.name, plan.folder / "final", plan.jobs):
            raise RunError(f"the best trial could not be trained anew; see '{plan.folder / 'final'}'")
        comparison = json.loads((plan.folder / "final" / "summary.json").read_text(encoding="utf-8"))
    write_study(found, facts, comparison)
    say(f"Best: {found.describe_best()}\nStudy folder: {plan.folder}")
    return True


def final_variant(name: str, config: Config, seeds: Sequence[int]) -> Variant:
    """A config under its name, with the seeds of the final training."""
    return Variant(name, replace(config, run=replace(config.run, seeds=tuple(seeds))), ())


def check_plan(plan: StudyOptions, config: Config) -> None:
    """Refuses options that do not go together.

    Raises:
        ConfigError: names the options and the remedy.
    """
    if plan.trials < 1 or plan.jobs < 1 or not plan.timeout > 0 or plan.heartbeat < 1:
        raise ConfigError("--trials, --jobs, --timeout and --heartbeat must be above 0")
    for option, value, known in (
        ("--sampler", plan.sampler, SAMPLERS),
        ("--pruner", plan.pruner, PRUNERS),
        *(("--objective", name, objectives_of(config)) for name in plan.objectives),
    ):
        if value not in known:
            raise ConfigError(f"{option} must be one of {', '.join(known)} (got '{value}')")
    if len(set(plan.objectives)) < len(plan.objectives):
        raise ConfigError("--objective names one twice; name each once")
    if len(plan.objectives) > 1 and plan.pruning:
        raise ConfigError("a study of several objectives cannot stop trials early; use --pruner off")
    if plan.pruning and plan.objectives[0] in COSTS:
        raise ConfigError(f"--objective {plan.objectives[0]} has no curve to prune by; use --pruner off")
    for option, seeds in (("--trial-seeds", plan.trial_seeds), ("--seeds", plan.seeds)):
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{option} names a seed twice; name each once")
    check_storage(plan.url, plan.jobs)


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else.

    Raises:
        RunError: names it.
    """
    check_out_folder(folder)
    ours = ("study.json", "journal.log", "queue.lock")
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in ours):
        raise RunError(f"'{folder}' is not empty and holds no study; give another --out")


def describe(config: Config, space: Space, plan: StudyOptions, files: Mapping[str, str | None]) -> dict[str, Any]:
    """The facts on which all workers of a study must agree, on all machines."""
    settings = to_dict(config)
    run, data = settings["run"], settings["data"]
    return {
        "objectives": list(plan.objectives),
        "sampler": plan.sampler,
        "pruner": plan.pruner,
        "seed": plan.seed,
        # A worker with a shorter heartbeat takes the trials of one with a longer for dead.
        "heartbeat": None if plan.where.one_machine else plan.heartbeat,
        "trial_seeds": list(plan.trial_seeds),
        "space": {
            p.key: [json.loads(distribution_to_json(p.distribution)), {k: list(v) for k, v in p.when.items()}]
            for p in space.parameters
        },
        # Files may lie elsewhere on another machine: what counts is what is in them.
        "config": settings
        | {
            "run": {key: run[key] for key in ("threads", "compile", "select", "device")},
            "data": {key: value for key, value in data.items() if key not in ("path", "pool", "if_missing")},
        },
        **files,
    }


def open_study(storage: optuna.storages.BaseStorage, plan: StudyOptions, facts: Mapping[str, Any]) -> Study:
    """The study, made if it is not there. To be called alone.

    Raises:
        RunError: a study of that name searches something else, or was not made by gmsa; names the difference.
    """
    directions = [direction_of(name) for name in plan.objectives]
    known = {s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    if plan.name not in known:
        study = optuna.create_study(study_name=plan.name, storage=storage, directions=directions)
        study.set_user_attr(FACTS, json.dumps(facts))
        return study
    study = optuna.load_study(study_name=plan.name, storage=storage)
    if FACTS not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise RunError(
                f"the study '{plan.name}' in '{plan.where.shown}' was not made by gmsa; give another --study"
            )
        study.set_user_attr(FACTS, json.dumps(facts))  # the command that made it was killed before this line
    differing = differences(json.loads(study.user_attrs[FACTS]), facts)
    if differing:
        raise RunError(
            f"cannot resume the study '{plan.name}' in '{plan.where.shown}': {'; '.join(differing)}; "
            "give another --study"
        )
    return study


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The differences of two nested settings, by dotted key."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in dict.fromkeys((*before, *now)):
            found += differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
        return found
    return [] if before == now else [f"{key} was {before!r}, is {now!r}"]


class StudyConsole:
    """The lines of a study: a bar on a terminal, and a line per trial that has ended, by whichever worker."""

    def __init__(self, study: Study, plan: StudyOptions, synthetic: bool) -> None:
        self.study, self.objectives = study, plan.objectives
        self.mark = "synthetic: " if synthetic else ""
        self._ended = {place_of(t) for t in self._trials() if ended(t)}
        self._stack = ExitStack()
        self._bar: ProgressBar | None = None

    def __enter__(self) -> StudyConsole:
        self._bar = self._stack.enter_context(progress_bar("trials", len(self._trials()), self.ended))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._bar = None

    @property
    def ended(self) -> int:
        """Trials that have ended, as last seen."""
        return len(self._ended)

    def say(self, line: str) -> None:
        """Prints a line."""
        console().print(line)

    def look(self) -> int:
        """Shows the trials that have ended since the last look; returns how many have in all, -1 without an answer."""
        try:
            trials = self._trials()
        except optuna.exceptions.StorageInternalError:  # a server that restarts
            return -1
        new = [t for t in trials if ended(t) and place_of(t) not in self._ended]
        for trial in sorted(new, key=lambda t: t.datetime_complete or t.datetime_start):  # type: ignore[arg-type,return-value]
            self._ended.add(place_of(trial))
            total = f"{len(self._ended)}/{len(trials)} trials"
            self.say(f"{self.mark}{total}: {describe_trial(trial, self.objectives)}")
        if self._bar is not None:
            self._bar.update(completed=self.ended, total=len(trials))
        return self.ended

    def _trials(self) -> list[FrozenTrial]:
        return latest(self.study.get_trials(deepcopy=False))


def describe_trial(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    """How a trial ended, in a line."""
    seconds = trial.user_attrs.get(COST, {}).get("seconds")
    took = "" if seconds is None else f", {seconds:.1f} s"
    if trial.state == TrialState.FAIL:
        return f"trial {place_of(trial)}: failed: {trial.user_attrs.get(REASON, KILLED)}"
    if trial.state == TrialState.PRUNED:
        return f"trial {place_of(trial)}: stopped after {len(trial.intermediate_values)} epochs{took}"
    values = ", ".join(f"{n} {v:.4f}" for n, v in zip(objectives, trial.values or (), strict=False))
    return f"trial {place_of(trial)}: valid {values}{took}"
