"""How a run degrades with masked modalities and with noise: its test split, scored under each protocol and rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from gmsa.config.groups.missing import RATES, Missing, joined, parse_missing, subsets
from gmsa.config.presets import MODALITIES
from gmsa.data import Target, Utterance, add_noise, apply_missing, describe_missing, parse_noise, signal_power
from gmsa.data.features import select
from gmsa.errors import ConfigError, RunError, cut, nearest, shown
from gmsa.reports.robustness import (
    NoisePoint,
    Point,
    markdown_tables,
    own_report,
    robustness_report,
    write_robustness,
    write_robustness_comparison,
)
from gmsa.reports.tables import headline
from gmsa.runs.evaluate import Scores, check_no_run
from gmsa.runs.folder import Run, as_run
from gmsa.runs.report import finish_report
from gmsa.runs.scoring.splits import Chosen, own_corpus, splits_to_score
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.console import console, progress_bar
from gmsa.system.device import set_up
from gmsa.system.files import check_out_parts
from gmsa.system.lock import only_writer
from gmsa.text import texts_of

MASK_SEEDS = (0, 1, 2)
Plan = dict[str, list[Missing]]
"""Per protocol what it masks, by rising rate or in the order of the subsets."""


def robustness(
    run: Run | str | Path,
    specs: Sequence[str],
    mask_seeds: Sequence[int] = MASK_SEEDS,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    data: str | Path | None = None,
    out: Path | None = None,
    write: bool = True,
    noise: Sequence[str] = (),
    split: str | None = None,
    include_training: bool = False,
) -> Scores:
    """Scores a run's models with modalities masked or with noise; writes the report into its folder, or into ``out``.

    What ``data.missing.test`` of the run masks is not masked here: ``specs`` take its place. A mask depends on its
    seed, the protocol, the rate and the utterance's id alone, so all runs are scored under the same masks. Noise is
    added to the normalized features, at a ratio to the power of those that are scored.

    Args:
        specs: ``eta:0,0.1,0.2``, ``fixed:all`` and the like, each protocol once.
        mask_seeds: each model is scored under the masks, and the noise, of each.
        data: another labeled file, whose test split takes the place of the run's own; its report needs ``out``.
        write: whether to write the report.
        noise: ``audio:20dB,10dB,0dB``, ``text+audio:10dB`` or ``all:10dB`` and the like, each set of modalities once.
        split: as :func:`~gmsa.runs.evaluate.evaluate` has it; the scores of several splits are of all together.
        include_training: as :func:`~gmsa.runs.evaluate.evaluate` has it.

    Raises:
        ConfigError: a protocol, rate or seed is wrong, or does not fit the data; a report of ``data`` without ``out``.
        RunError: the folder is not a finished run, or its data file is not the one that it was trained on.
        DataError: a data file is missing, unsafe or wrong.
    """
    plan = parse_plan(specs)
    if len(set(mask_seeds)) != len(mask_seeds):
        raise ConfigError(f"--mask-seeds names a seed twice (got {', '.join(map(str, mask_seeds))}); name each once")
    if out is not None:
        check_no_run(out)
    elif write and data is not None:
        raise ConfigError(
            "--missing or --noise with --data needs --out DIR: the run's own report is of its own test split"
        )
    run = as_run(run)
    if write and out is None:
        own_report(run.folder)  # fails before hours of scoring where there is no report to add to
        check_out_parts(run.folder, "figures")
        with only_writer(run.folder):  # nor can it be added while another process writes
            pass
    _check_noises(run, noise)
    where = set_up(run.config.run, device)
    chosen = run.chosen_seeds(seeds)
    found = _read(run, data, split, include_training)
    plan = fit_plan(plan, found)
    noises = parse_noises(noise, [m for m in found.modalities if m in run.dims])
    scorer = Scorer(run, found, [run.load_model(seed, where) for seed in chosen], where)

    masks = {m: tuple(mask_seeds) if m.rate else (None,) for missing in plan.values() for m in missing}
    mark = "synthetic: " if found.synthetic else ""
    points: dict[str, list[Point]] = {}
    curves: dict[str, list[NoisePoint]] = {}
    steps = sum(map(len, masks.values())) + sum(map(len, noises.values())) * len(mask_seeds)
    with progress_bar("masks", steps) as bar:
        for protocol, missing in plan.items():
            points[protocol] = []
            for m in missing:
                point = scorer.point(m, masks[m], bar.advance)
                points[protocol].append(point)
                what = "nothing masked" if m.protocol == "none" else m
                console().print(f"{mark}{what}: {_main_score(found, point)}")
        for name, ratios in noises.items():
            curves[name] = [NoisePoint(None, (None,), [scorer.unmasked])]
            for ratio in ratios:
                noisy = scorer.noisy(ratio, mask_seeds, bar.advance)
                curves[name].append(noisy)
                console().print(f"{mark}{name}:{noisy.decibels:g}dB: {_main_score(found, noisy)}")

    facts = {
        "name": run.name,
        "dataset": found.dataset,
        "split": found.name,
        "synthetic": found.synthetic,
        "data_sha256": found.sha256,
        "modalities": found.modalities,
        "seeds": list(chosen),
        "mask_seeds": list(mask_seeds),
        "hidden_in_training": str(run.config.data.missing.of("train")),
    }
    report = robustness_report(facts, points, curves)
    if write:
        with nullcontext() if out is not None else only_writer(run.folder):
            write_robustness(report, run.folder, out)
            if out is None:
                finish_report(run.folder)
    return Scores(report, markdown_tables(report))


def compare_robustness(
    folders: Sequence[Run | str | Path],
    specs: Sequence[str],
    out: Path,
    mask_seeds: Sequence[int] = MASK_SEEDS,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    data: str | Path | None = None,
    noise: Sequence[str] = (),
    split: str | None = None,
    include_training: bool = False,
) -> str:
    """Scores several runs under the same masks; writes each one's report below ``out``, and into it the comparison.

    Returns the tables of the comparison as Markdown: a metric's, a column per run.

    Args:
        folders: run folders of different names, trained on the same data unless ``data`` is given.
        specs, mask_seeds, seeds, device, data, noise, split, include_training: as :func:`robustness` has them.

    Raises:
        ConfigError: two runs have the same name, or as :func:`robustness`.
        RunError: two runs were trained on different data, or as :func:`robustness`.
        DataError: as :func:`robustness`.
    """
    check_no_run(out)
    runs = [as_run(folder) for folder in folders]
    names = [run.name for run in runs]
    for run, name in zip(runs, names, strict=True):  # before hours of scoring
        check_no_run(out / name)
        for seed in run.chosen_seeds(seeds):
            run.load_model(seed, device)
        if names.count(name) > 1:
            raise ConfigError(f"--run names two runs that are called '{name}'; name each once, or rename a folder")
        if what := _difference(runs[0], run, data is None):
            raise RunError(
                f"'{runs[0].folder}' and '{run.folder}' differ in {what}, so their scores cannot be compared; "
                "evaluate each alone"
            )
    reports = {}
    for run, name in zip(runs, names, strict=True):
        console().print(f"{cut(name)}:")
        reports[name] = robustness(
            run, specs, mask_seeds, seeds, device, data, out / name, True, noise, split, include_training
        )
    return write_robustness_comparison(reports, out)


def _difference(one: Run, other: Run, own_data: bool) -> str:
    """Names the difference that makes the scores of two runs incomparable; empty where there is none."""
    if own_data and one.environment["data_sha256"] != other.environment["data_sha256"]:
        return "the data that they were trained on"
    a, b = one.config.data, other.config.data
    if set(a.modalities) != set(b.modalities):
        return "data.modalities"
    return "target" if Target.of(one.config.target) != Target.of(other.config.target) else ""


def parse_plan(specs: Sequence[str]) -> Plan:
    """Reads ``eta:0,0.1``, ``sample:0,0.5``, ``frame:0,0.9``, ``fixed:all`` and ``fixed:ta,v``.

    Raises:
        ConfigError: an unknown protocol, a wrong rate or subset, or one that is named twice.
    """
    plan: Plan = {}
    for spec in specs:
        name, _, values = (part.strip() for part in spec.partition(":"))
        if name == "frame_uniform":
            raise ConfigError("--missing frame_uniform is for training; to score its rates, say frame:0,0.1,...,0.9")
        if name == "none":
            raise ConfigError("--missing none masks nothing; to score that too, add the rate 0, as eta:0,0.1")
        known = (*RATES, "fixed")
        if name not in known:
            raise ConfigError(f"--missing takes one of {', '.join(known)} (got '{spec}'){nearest(name, known)}")
        if name in plan:
            raise ConfigError(
                f"--missing names {name} twice; combine them into one, separated by commas (got '{spec}')"
            )
        if (name, values) == ("fixed", "all"):
            plan[name] = []  # those of the data
            continue
        plan[name] = [parse_missing(f"{name}:{part.strip()}", "--missing") for part in values.split(",")]
        for m in plan[name]:
            if plan[name].count(m) > 1:
                raise ConfigError(
                    f"--missing {name} names {joined(m.left) or f'{m.rate:g}'} twice; name each once (got '{spec}')"
                )
        plan[name].sort(key=lambda m: (m.rate, len(m.left), [MODALITIES.index(x) for x in m.left if x in MODALITIES]))
    return plan


def _check_noises(run: Run, specs: Sequence[str]) -> None:
    """Refuses noise on the numbers of word pieces, which are no features."""
    texts = texts_of(run.config)
    if texts is None or texts.frozen:
        return
    noises = parse_noises(specs, [m for m in run.config.data.modalities if m in run.dims])
    if any(texts.modality in ratio for ratios in noises.values() for ratio in ratios):
        raise ConfigError(
            f"--noise: '{texts.modality}' of this run is word pieces, which take no noise; name other modalities, as "
            "audio:10dB"
        )


def parse_noises(specs: Sequence[str], modalities: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Reads ``audio:10dB,0dB``, ``text+audio:10dB`` and ``all:20dB,10dB``: decibels by modality, from little noise on.

    Raises:
        ConfigError: as :func:`gmsa.data.parse_noise`, or one is named twice.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for spec in specs:
        name, _, values = (part.strip() for part in spec.partition(":"))
        if name in found:
            raise ConfigError(f"--noise names {shown(name)} twice; combine them into one, separated by commas")
        ratios = [
            parse_noise(",".join(f"{part.strip()}:{value}" for part in name.split("+")), modalities)
            for value in values.split(",")
        ]
        for ratio in ratios:
            if ratios.count(ratio) > 1:
                decibels = next(iter(ratio.values()))
                raise ConfigError(f"--noise {cut(name)} names {decibels:g}dB twice; name each once (got {shown(spec)})")
        found[name] = sorted(ratios, key=lambda ratio: -next(iter(ratio.values())))
    return found


@dataclass(frozen=True, eq=False)
class Split:
    """The utterances to score: usually a test split, normalized, with nothing masked."""

    name: str
    utterances: list[Utterance]
    """With unlabeled ones, which are context alone, in graphs of dialogues."""
    modalities: list[str]
    """Those of the file, also where the run was trained without."""
    dataset: str
    synthetic: bool
    sha256: str


def fit_plan(plan: Plan, split: Split) -> Plan:
    """The plan for the modalities at hand: of ``fixed``, the complete set first, then the proper subsets.

    Raises:
        ConfigError: a rate cannot be reached, or a subset is not a proper one of the modalities.
    """
    fitted: Plan = {}
    for protocol, missing in plan.items():
        if protocol != "fixed":
            for m in missing:  # refuses what it cannot reach
                apply_missing(split.utterances[:1], m, split.modalities)
            fitted[protocol] = missing
            continue
        chosen = missing or [Missing(protocol, left=left) for left in subsets(split.modalities)]
        proper = [m for m in chosen if set(m.left) < set(split.modalities)]
        wrong = [joined(m.left, split.modalities) for m in chosen if m not in proper]
        if wrong := wrong or ([] if proper else ["all"]):
            raise ConfigError(
                f"--missing fixed:{','.join(wrong)}: the data have {', '.join(split.modalities)}, "
                f"so name proper subsets of '{joined(split.modalities)}'"
            )
        fitted[protocol] = [Missing("none"), *proper]
    return fitted


@dataclass(frozen=True, eq=False)
class Scorer:
    """The models of a run, and the split to score them on."""

    run: Run
    split: Split
    models: Sequence[nn.Module]
    device: torch.device

    def point(self, missing: Missing, mask_seeds: Sequence[int | None], ended: Callable[[], object]) -> Point:
        """Scores every model under every mask; calls ``ended`` after each mask."""
        whole, modalities = self.split.utterances, self.split.modalities
        scored = _scored(whole)
        records, scores = [], []
        for seed in mask_seeds:
            masked = apply_missing(whole, missing, modalities, 0 if seed is None else seed)
            records.append(describe_missing(scored, _scored(masked), missing, modalities))
            nothing = missing.protocol != "fixed" and not missing.rate
            scores.append(self.unmasked if nothing else self.score(masked))
            ended()
        return Point(missing, mask_seeds, records, scores)

    def noisy(self, ratio: Mapping[str, float], noise_seeds: Sequence[int], ended: Callable[[], object]) -> NoisePoint:
        """Scores every model with the noise of every seed, at decibels by modality; calls ``ended`` after each."""
        scores = []
        for seed in noise_seeds:
            scores.append(self.score(add_noise(self.split.utterances, ratio, seed, power=self.power)))
            ended()
        return NoisePoint(next(iter(ratio.values())), noise_seeds, scores)

    @cached_property
    def power(self) -> dict[str, float]:
        """Mean square of each modality's features."""
        return signal_power(_scored(self.split.utterances), self.split.modalities)

    def score(self, utterances: Sequence[Utterance]) -> list[dict[str, float]]:
        """Metrics of every model."""
        # A modality that the models were trained without has no encoder.
        known = [replace(u, features=select(u.features, self.run.dims)) for u in utterances]
        config = self.run.config
        return [predict_whole(model, known, config, self.device).metrics(config) for model in self.models]

    @cached_property
    def unmasked(self) -> list[dict[str, float]]:
        """Metrics with nothing masked, which all protocols share."""
        return self.score(self.split.utterances)


def _read(run: Run, data: str | Path | None, split: str | None, include_training: bool) -> Split:
    settings = run.config.data
    if data is None and split is None:
        corpus = own_corpus(run)
        splits, context = {"test": corpus.splits["test"]}, {"test": corpus.context.get("test", ())}
        chosen = Chosen(splits, settings.name, corpus.synthetic, corpus.sha256, True, context=context)
        modalities = [*corpus.dims]
    else:
        # Also what the run was trained without counts as there, as in its own file.
        dims: dict[str, int | None] = {m: run.dims.get(m) for m in settings.modalities}
        chosen = splits_to_score(run, data, split, include_training, dims)
        there = {m for u in chosen.utterances for m, length in u.lengths.items() if length}
        modalities = [m for m in settings.modalities if m in run.dims or m in there]
    # Normalization takes each step by itself, so masks may follow it, and it is done once.
    whole = chosen.utterances
    if run.config.graph.has_dialogues:  # unlabeled ones are context, masked as the others are
        whole += chosen.unlabeled
    utterances = [run.normalizer.apply(u) for u in whole]
    return Split(chosen.name, utterances, modalities, chosen.dataset, chosen.synthetic, chosen.sha256)


def _scored(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Those with a label: the others are context."""
    return [u for u in utterances if u.label is not None]


def _main_score(split: Split, point: Point | NoisePoint) -> str:
    """The first of a table's metrics, as a line on the console."""
    metric = headline(point.scores[0][0])[0]
    return f"{split.name} {metric} {point.values(metric).mean():.4f}"
