"""Runs a study: checks it, queues its trials, starts the workers, trains and tests the best config once."""

from __future__ import annotations

import copy
import json
import math
import platform
import shlex
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from gmsa.ablation.ablate import ablate
from gmsa.ablation.variants import Variant
from gmsa.config import Config, from_dict, to_dict
from gmsa.config.trained import differences, few
from gmsa.errors import ConfigError, GmsaError, RunError, listed, printable, shown
from gmsa.registry import loaded_plugins
from gmsa.reports.pages.run import PAGE
from gmsa.reports.summary import SYNTHETIC_NOTE
from gmsa.runs.environment import describe_files
from gmsa.runs.prepare import prepare
from gmsa.system.console import console
from gmsa.system.device import set_up
from gmsa.system.files import check_out_file, check_out_folder, check_out_parts, make_folder, write_json
from gmsa.system.reading import MOST_RECORDS, entries, exists, read_json
from gmsa.training.callbacks import build_callbacks
from gmsa.training.protocols import build_protocol
from gmsa.tuning.database_url import check_url
from gmsa.tuning.objective import COSTS, Training, direction_of, objectives_of
from gmsa.tuning.salvage import StudyFacts, salvage
from gmsa.tuning.sampling import PRUNERS, SAMPLERS
from gmsa.tuning.space import Space, apply_values
from gmsa.tuning.storage import StoragePlace, first_line
from gmsa.tuning.stored import check_trials, facts_of
from gmsa.tuning.study_console import StudyConsole
from gmsa.tuning.study_report import StudyResult, draw_study, write_best, write_settings, write_study
from gmsa.tuning.trials import REASON, ended, fill, latest, place_of
from gmsa.tuning.workers import WorkerTask, run_workers

FACTS, FINAL = "gmsa", "gmsa:final"
"""User attributes of a study: the facts on which its workers agree; which trials were retrained, and where."""
MOST_TRIALS, MOST_JOBS, MOST_HEARTBEAT = 100_000, 256, 86_400
"""Upper limits of a study's options: each trial is a folder, each job a process, and a day is long to miss one."""
LONGEST_NAME = 100
"""Characters of a study's name."""
_OPTUNAS = {"minimize": 1, "maximize": 2}
"""Optuna's numbers of directions."""


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
    salvage: bool = False
    """Whether to go on with what is whole of a damaged journal."""

    @property
    def where(self) -> StoragePlace:
        """Where the study is kept."""
        return StoragePlace(self.folder, self.url, self.heartbeat)

    @property
    def pruning(self) -> bool:
        """Whether trials may be stopped early."""
        return self.pruner != "off"


def tune(config: Config, space: Space, options: StudyOptions) -> bool:
    """Runs a study, or resumes it; returns whether a trial has a value.

    Raises:
        GmsaError: the options, the data, the storage or the folder is wrong; before any training.
        RunError: the storage does not answer any more.
    """
    try:
        return _tune(config, space, options)
    except Exception as error:
        where, known = options.where, (optuna.exceptions.StorageInternalError, SQLAlchemyError)
        if isinstance(error, GmsaError):
            # A ConfigError shows no part of the URL, whose password may be a word of it.
            if isinstance(error, ConfigError) or where.hide(str(error)) == str(error):
                raise
            raise RunError(where.hide(str(error))) from None
        trace = traceback.format_exc()  # it would be kept in a file
        if not isinstance(error, known) and where.hide(trace) == trace:
            raise
        reason = where.hide(first_line(error))
        raise RunError(f"the storage '{where.shown}' failed: {reason}; run the same command again to resume") from None


def _tune(config: Config, space: Space, options: StudyOptions) -> bool:
    check_options(options, config)
    check_folder(options.folder)
    build_callbacks(config)  # a package that one needs may be missing
    if not build_protocol(config).predicts:
        raise ConfigError(
            f"'protocol.name: {config.protocol.name}' predicts nothing to choose by; search another protocol"
        )
    config = replace(config, run=replace(config.run, seeds=options.trial_seeds))
    set_up(config.run)
    with options.where.one_command():
        return _work(config, space, options)


def _work(config: Config, space: Space, options: StudyOptions) -> bool:
    """Runs a checked study: reads the data, opens the storage, starts the workers, tests the best trial."""
    prepared = prepare(config)
    for seed in options.trial_seeds:
        prepared.training_data(config, seed)
    files = describe_files(config, prepared.corpus)
    synthetic = prepared.corpus.synthetic
    facts = describe_study(config, space, options, files)
    if options.salvage:
        directions = [_OPTUNAS[direction_of(name)] for name in options.objectives]
        salvage(options.where.journal, StudyFacts(options.name, directions, FACTS, space.own(config)), console().print)
    storage = options.where.connect()
    with options.where.alone(storage, options.name):
        study = open_study(storage, options, facts)
        check_trials(study.get_trials(deepcopy=False), len(options.objectives), space, f"'{options.where.shown}'")
        make_folder(options.folder)
        write_json(options.folder / "study.json", {"study": options.name, "storage": options.where.shown} | facts)
        added = fill(study, options.trials, space.own(config))
    show = StudyConsole(study, options.objectives, synthetic)
    there = len(latest(study.get_trials(deepcopy=False)))
    show.say(
        f"study {options.name}: {there} trials, {there - added} from before; sampler {options.sampler}, "
        f"pruner {options.pruner}, {options.jobs} worker{'s' if options.jobs > 1 else ''}; {options.where.shown}"
    )
    if synthetic:
        show.say(f"{'=' * 79}\n{SYNTHETIC_NOTE}\n{'=' * 79}")
    objective = Training(config, space, options.objectives, options.folder / "trials", options.pruning)
    deadline = time.time() + options.timeout
    task = WorkerTask(
        options.where,
        options.name,
        objective,
        config,
        options.sampler,
        options.pruner,
        options.seed,
        deadline,
        loaded_plugins(),
    )
    try:
        with show:
            run_workers(task, options.jobs, show.look, show.say)
    except KeyboardInterrupt:
        show.say(f"Interrupted; {show.ended} of {there} trials have ended. Run the same command again to resume.")
        raise
    found = StudyResult(
        options.name, config, space, options.objectives, latest(study.get_trials()), options.folder, synthetic
    )
    rest = sum(not ended(t) for t in found.trials)
    if rest:
        show.say(f"{rest} of {len(found.trials)} trials are not done; run the same command again to resume.")
    with options.where.alone(storage, options.name, "final", wait=False) as first:
        here = f"{platform.node()}:{options.folder.resolve()}"
        wanted = {"trials": [place_of(t) for t in found.best] if found.complete else [], "seeds": list(options.seeds)}
        before = study.user_attrs.get(FINAL, {})
        before = before if isinstance(before, dict) else {}
        # A journal is where its folder is, also where that was moved or copied.
        shared = options.where.url is not None
        elsewhere = shared and before.get("where", here) != here and {k: before.get(k) for k in wanted} == wanted
        running = any(t.state == TrialState.RUNNING for t in found.trials)
        if running:
            show.say("Other workers are still running: the last one to finish retrains the best trial.")
        elif not first or elsewhere:
            show.say(f"Another command retrains and tests the best trial: {before.get('where', 'now')}.")
        test = first and not elsewhere and not running
        done = finish(found, options, facts, show.say, test)
        if test and done:
            study.set_user_attr(FINAL, wanted | {"where": here})
        return done


def finish(
    found: StudyResult, options: StudyOptions, facts: Mapping[str, Any], say: Callable[[str], None], test: bool
) -> bool:
    """Writes the files of a study; with ``test``, retrains its best trial and scores it on the test split."""
    again = commands(found, options)
    if not found.complete:
        reasons = dict.fromkeys(t.user_attrs.get(REASON, "") for t in found.trials if t.state == TrialState.FAIL)
        written = write_study(found, facts, None, [], again)
        say(f"No trial has a value. {'; '.join(filter(None, reasons))}\n{_places(options.folder, written)}")
        return False
    write_best(found)
    figures = draw_study(found, options.folder / "figures")
    write_study(found, facts, None, figures, again)
    comparison = None
    if test and len(options.objectives) == 1:
        best = found.best[0]
        seeds = ", ".join(map(str, options.seeds))
        say(f"Training the config and the best trial ({place_of(best)}) with seeds {seeds}.")
        settings = [final_variant("default", found.config, options.seeds)]
        if found.values(best):
            chosen = found.values(best)
            tuned = final_variant(
                f"trial {place_of(best)}", apply_values(found.config, chosen), options.seeds, tuple(chosen)
            )
            settings += [tuned] if tuned.config != settings[0].config else []
        if not ablate(settings, options.name, options.folder / "final", options.jobs):
            raise RunError(f"the best trial could not be retrained; see '{options.folder / 'final'}'")
        comparison = read_json(options.folder / "final" / "summary.json", MOST_RECORDS, inside=options.folder)
    written = write_study(found, facts, comparison, figures, again)
    say(f"Best: {found.describe_best()}\n{_places(options.folder, written)}")
    return True


def commands(found: StudyResult, options: StudyOptions) -> list[str]:
    """Writes the config and the space of a study, and returns the commands that give it, and its best trial, again."""
    files = write_settings(options.folder, found.config, found.space)
    seeds = {"--seed": (options.seed,), "--trial-seeds": options.trial_seeds, "--seeds": options.seeds}
    parts = [
        ("--config", files["config"]),
        ("--space", files["space"]),
        ("--trials", len(found.trials)),
        *(("--objective", name) for name in options.objectives),
        ("--sampler", options.sampler),
        ("--pruner", options.pruner),
        # One word: a value may begin with a dash, as a negative seed does.
        *((f"{option}={','.join(map(str, numbers))}",) for option, numbers in seeds.items()),
        (f"--study={options.name}",),
        ("--out", f"{options.folder}-again"),
    ]
    study = " \\\n  ".join(["gmsa tune", *(shlex.join(map(str, words)) for words in parts)])
    best = [found.folder / found.best_file(trial) for trial in (found.best if found.complete else ())]
    return [study, *(shlex.join(["gmsa", "train", "--config", str(path)]) for path in best)]


def _places(folder: Path, page: bool) -> str:
    return f"Study folder: {folder}" + (f"\nReport: {folder / PAGE}" if page else "")


def final_variant(name: str, config: Config, seeds: Sequence[int], keys: tuple[str, ...] = ()) -> Variant:
    """A config under its name, with the seeds of the final training.

    Args:
        keys: what it changes.
    """
    return Variant(name, replace(config, run=replace(config.run, seeds=tuple(seeds))), keys)


def check_options(options: StudyOptions, config: Config) -> None:
    """Refuses options that do not go together.

    Raises:
        ConfigError: names the options and the remedy.
    """
    for option, number, most in (
        ("--trials", options.trials, MOST_TRIALS),
        ("--jobs", options.jobs, MOST_JOBS),
        ("--timeout", options.timeout, math.inf),
        ("--heartbeat", options.heartbeat, MOST_HEARTBEAT),
    ):
        if not 0 < number <= most:
            limit = "" if most == math.inf else f" and at most {most:,}"
            raise ConfigError(f"{option} must be above 0{limit} (got {shown(number)})")
    check_name(options.name)
    for option, value, known in (
        ("--sampler", options.sampler, SAMPLERS),
        ("--pruner", options.pruner, PRUNERS),
        *(("--objective", name, objectives_of(config)) for name in options.objectives),
    ):
        if value not in known:
            raise ConfigError(f"{option} must be one of {listed(known)} (got {shown(value)})")
    if len(set(options.objectives)) < len(options.objectives):
        raise ConfigError("--objective names one twice; name each once")
    if len(options.objectives) > 1 and options.pruning:
        raise ConfigError("a study of several objectives cannot stop trials early; use --pruner off")
    if options.pruning and options.objectives[0] in COSTS:
        raise ConfigError(f"--objective {options.objectives[0]} has no curve to prune by; use --pruner off")
    seeds_of = {"--trial-seeds": options.trial_seeds, "--seeds": options.seeds, "--seed": (options.seed,)}
    for option, seeds in seeds_of.items():
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{option} names a seed twice; name each once")
        if any(abs(seed) >= 2**63 for seed in seeds):
            raise ConfigError(f"{option} takes whole numbers of at most 63 bits; choose smaller ones")
    if options.url is not None:
        check_url(options.url, options.jobs)
        if options.salvage:
            raise ConfigError(
                "--salvage mends the journal in a study's folder; a database does that itself: leave it out"
            )


def check_name(name: str) -> None:
    """Refuses names of studies that cannot be part of a folder's name, or that a terminal would obey.

    Raises:
        ConfigError: says what may be in one.
    """
    printed = name == printable(name) and not any(character in name for character in "\\\n\t")
    # A name such as team/mosi is a folder in a folder; one that leads elsewhere is none.
    inside = all(part.strip() not in ("", ".", "..") for part in name.split("/"))
    if not printed or not inside or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"--study: {shown(name)} cannot be a study's name; use at most {LONGEST_NAME} letters, digits, spaces and "
            "signs other than '\\', and '/' only between names"
        )


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else.

    Raises:
        RunError: names it.
    """
    check_out_folder(folder)
    there = {path.name for path in entries(folder)}
    if there and not there & {"study.json", "journal.log", "queue.lock"}:
        raise RunError(f"'{folder}' is not empty and holds no study; give another --out")
    check_out_parts(folder, "trials", "logs", "locks", "figures", "final")
    if exists(folder / "journal.log"):
        check_out_file(folder / "journal.log")


def describe_study(
    config: Config, space: Space, options: StudyOptions, files: Mapping[str, str | None]
) -> dict[str, Any]:
    """The facts on which all workers of a study must agree, on all machines."""
    return {
        "objectives": list(options.objectives),
        "sampler": options.sampler,
        "pruner": options.pruner,
        "seed": options.seed,
        # A worker with a shorter heartbeat takes the trials of one with a longer for dead.
        "heartbeat": None if options.where.one_machine else options.heartbeat,
        "trial_seeds": list(options.trial_seeds),
        "space": {
            p.key: [json.loads(distribution_to_json(p.distribution)), {k: list(v) for k, v in p.when.items()}]
            for p in space.parameters
        },
        "config": shared_settings(config),
        **files,
    }


def shared_settings(config: Config) -> dict[str, Any]:
    """The settings on which all workers of a study must agree."""
    settings = to_dict(config)
    run, data = settings["run"], settings["data"]
    # Files may lie elsewhere on another machine: what counts is what is in them.
    return settings | {
        "run": {key: run[key] for key in ("threads", "compile", "cuda_graphs", "select", "device")},
        "data": {key: value for key, value in data.items() if key not in ("path", "pool", "if_missing")},
    }


def present_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with their settings as this gmsa names them; an earlier one wrote ``data.labels``, for example."""
    try:
        config = from_dict(copy.deepcopy(facts["config"]))
    except (ConfigError, KeyError, TypeError, AttributeError):  # a difference says what is wrong
        return dict(facts)
    data = replace(config.data, normalize=config.data.normalized(config.named_modalities))
    config = replace(config, data=data, run=replace(config.run, select=config.select))
    return dict(facts) | {"config": shared_settings(config)}


def open_study(storage: optuna.storages.BaseStorage, options: StudyOptions, facts: Mapping[str, Any]) -> Study:
    """The study, made if it is not there. To be called alone.

    Raises:
        RunError: a study of that name searches something else, or was not made by gmsa; names the difference.
    """
    directions = [direction_of(name) for name in options.objectives]
    known = [s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)]
    if not all(isinstance(name, str) for name in known):
        raise RunError(f"'{options.where.shown}': holds a study without a name, which gmsa did not write; replace it")
    if options.name not in known:
        study = optuna.create_study(study_name=options.name, storage=storage, directions=directions)
        study.set_user_attr(FACTS, json.dumps(facts))
        return study
    study = optuna.load_study(study_name=options.name, storage=storage)
    if FACTS not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise RunError(
                f"the study '{options.name}' in '{options.where.shown}' was not made by gmsa; give another --study"
            )
        study.set_user_attr(FACTS, json.dumps(facts))  # the command that made it was killed before this line
    if [d.name.lower() for d in study.directions] != directions:
        raise RunError(
            f"'{options.where.shown}': the study '{options.name}' has other directions than its objectives, which gmsa "
            "did not write; give another --study"
        )
    before = facts_of(study.user_attrs[FACTS], f"'{options.where.shown}'")
    if differing := differences(present_facts(before), present_facts(json.loads(json.dumps(facts)))):
        raise RunError(
            f"cannot resume the study '{options.name}' in '{options.where.shown}': {few(differing)}; "
            "give another --study"
        )
    return study
