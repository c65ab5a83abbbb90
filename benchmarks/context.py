"""Context: what the other utterances of a dialogue are worth.

    python benchmarks/context.py --part mosi --out runs/context
    python benchmarks/context.py --part meld --out runs/context
    python benchmarks/context.py --part curves --out runs/context

Semi-IIN on graphs of utterances, on graphs of dialogues over them, and either one with the linear context baseline on
top: a linear map of each utterance's prediction and those around it, fitted on validation. On CMU-MOSI with all labels
and with half, complete and with half of the modalities missing; on MELD for emotions and sentiments, with and without
speakers. A run that is there already is not repeated. Differences are tested by a paired bootstrap over seeds and
utterances, and over seeds and whole dialogues, which are fewer and not independent within. The part ``curves`` trains
one seed on CMU-MOSI and draws the error on the training and the validation split after each epoch.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import QUICK, ROOT, SEEDS, add_quick, machine, real_data, run

from gmsa.config import load_config
from gmsa.figures.canvas import BLUE, ORANGE, new_figure, save, styled
from gmsa.metrics import LinearContext, cross_fitted
from gmsa.metrics.classes import class_metrics
from gmsa.metrics.context import context_features
from gmsa.models import Model
from gmsa.runs.prepare import prepare
from gmsa.system.distributed import SINGLE_PROCESS, Group
from gmsa.training.scoring import predict_utterances, quiet_metrics
from gmsa.training.tasks import FineTuning
from gmsa.training.trainer import Trainer

UTTERANCE = "graph.scope=utterance"
CONDITIONS = {
    f"{labels}, {complete}": (f"data.label_ratio={ratio}", f"data.missing={mask}")
    for labels, ratio in (("all labels", 1), ("half of the labels", 0.5))
    for complete, mask in (("complete", "none"), ("eta 0.5", "eta:0.5"))
}
TASKS = {
    "emotion": ("target.preset=meld",),
    "sentiment": ("target.preset=mosi", "target.kind=classes", "target.field=regression_labels"),
}
MELD = {"utterance": (UTTERANCE,), "hierarchical": ("graph.speakers=none",), "hierarchical, speakers": ()}
SAMPLES = 2000
Score = Callable[[np.ndarray, np.ndarray], float]
"""Of predictions and labels."""


class Scored(NamedTuple):
    """A system's predictions for the labeled utterances of a split."""

    ids: list[str]
    labels: np.ndarray
    """``[N]``."""
    predictions: np.ndarray
    """Intensities ``[S, N]``, or probabilities of the classes ``[S, N, K]``."""

    @property
    def places(self) -> tuple[list[str], list[int]]:
        """Dialogue of each utterance, and place in it."""
        parts = [name.partition("$_$") for name in self.ids]
        return [video for video, *_ in parts], [int(clip) for *_, clip in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("mosi", "meld", "curves"), default="mosi", help="what to measure")
    parser.add_argument("--out", type=Path, default=Path("runs/context"), help="folder of the runs")
    add_quick(parser)
    options = parser.parse_args()
    {"mosi": mosi, "meld": meld, "curves": curves}[options.part](options.out / options.part, options.quick)
    print(f"\n{machine()}")


def mosi(out: Path, quick: bool) -> None:
    """The table of each condition on CMU-MOSI."""
    seeds, given = (SEEDS[:1], QUICK) if quick else (SEEDS, (f"data.path={real_data()}",))
    for name, condition in list(CONDITIONS.items())[: 1 if quick else None]:
        folder = out / name.replace(" ", "-").replace(",", "").replace(".", "")
        systems: dict[str, dict[str, Scored]] = {}
        for scope, changes in (("utterance", (UTTERANCE,)), ("hierarchical", ())):
            run(folder / scope, "mosi_context.yaml", seeds, [*given, *condition, *changes])
            systems[scope] = {split: read(folder / scope, seeds, split) for split in ("valid", "test")}
            systems[f"{scope} + linear"] = linear(systems[scope])
        systems["utterance + the others' true labels"] = oracle(systems["utterance"])
        print(f"\n## {name}\n")
        shown = [("valid", "MAE", mae), ("valid", "Corr", corr), ("test", "MAE", mae), ("test", "Corr", corr)]
        table(systems, [*shown, ("test", "Non0 acc-2", non0)])
        differences(systems, {"MAE": mae, "Corr": corr}, ("utterance", "utterance + linear"))


def meld(out: Path, quick: bool) -> None:
    """The table of each task on MELD."""
    given = ("data.path=synthetic_speaker",) if quick else (f"data.path={real_data('meld_dev.pkl')}",)
    seeds, chosen = (SEEDS[:1], ["sentiment"]) if quick else (SEEDS[:3], list(TASKS))
    small = [x for x in QUICK if not x.startswith("data.")] if quick else []
    for task in chosen:
        systems: dict[str, dict[str, Scored]] = {}
        for name, changes in MELD.items():
            folder = out / task / name.replace(", ", "-")
            run(folder, "meld_context.yaml", seeds, [*given, *TASKS[task], *changes, *small])
            systems[name] = {split: read(folder, seeds, split) for split in ("valid", "test")}
        systems["utterance + linear"] = linear(systems["utterance"])
        print(f"\n## {task}\n")
        shown = [("weighted F1", weighted_f1), ("accuracy", accuracy)]
        table(systems, [(split, name, score) for split in ("valid", "test") for name, score in shown], 100, 1)
        differences(systems, {"weighted F1": weighted_f1}, ("utterance", "hierarchical"), 100)


class Watched(FineTuning):
    """A training that is scored on its own labeled utterances too; that draws no random numbers."""

    def score(self, module: Model, group: Group = SINGLE_PROCESS) -> dict[str, float]:
        """The metrics on the validation split, and ``training MAE``."""
        utterances = [example.utterance for example in self.examples]
        found = predict_utterances(module, utterances, self.config, self.device, self.context, group)
        return super().score(module, group) | {"training MAE": quiet_metrics(found, self.config)["MAE"]}


def curves(out: Path, quick: bool) -> None:
    """Training and validation MAE after each epoch, a panel per condition and two lines per scope."""
    given = QUICK if quick else (f"data.path={real_data()}",)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in ("complete", "eta 0.5"):
        for scope, changes in (("utterance", (UTTERANCE,)), ("hierarchical", ())):
            overrides = [*given, *CONDITIONS[f"all labels, {name}"], *changes]
            rows = watched(out / name.replace(" ", "-").replace(".", "") / scope, overrides)
            found.setdefault(name, {})[scope] = rows
    figure_curves(found, out / "context_curves.png", quick)
    print(
        "| | scope | best epoch | training MAE | validation MAE | last epoch | training MAE | validation MAE |\n"
        "| :-- | :-- | --: | --: | --: | --: | --: | --: |"
    )
    for name, scopes in found.items():
        for scope, rows in scopes.items():
            shown = [[row for row in rows if row["best"]][-1], rows[-1]]
            cells = [f"{r['epoch']} | {r['valid']['training MAE']:.3f} | {r['valid']['MAE']:.3f}" for r in shown]
            print(f"| {name} | {scope} | {' | '.join(cells)} |")


def watched(folder: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The history of one seed of ``mosi_context``; that of a training that is there already is read."""
    torch.set_num_threads(1)
    prepared = prepare(load_config(ROOT / "configs" / "mosi_context.yaml", [*overrides, f"run.seeds=[{SEEDS[0]}]"], {}))
    config, dims, device = prepared.config, dict(prepared.corpus.dims), torch.device("cpu")
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        config, dims, prepared.splits["valid"], SEEDS[0], folder, device, context=prepared.training_utterances
    )
    examples = prepared.training_data(config, SEEDS[0]).labeled
    task = Watched(config, dims, examples, trainer.context, trainer.valid, device)
    trainer.train_task("supervised", task)
    return trainer.history


@styled
def figure_curves(
    found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], path: Path, synthetic: bool = False
) -> bool:
    """Training MAE (dashed) and validation MAE (solid) by epoch: a panel per condition, a colour per scope."""
    figure, axes = new_figure(1, len(found), 8, 3.8, sharey=True)
    for axis, (name, scopes) in zip(axes[0], found.items(), strict=True):
        for color, (scope, rows) in zip((BLUE, ORANGE), scopes.items(), strict=True):
            epochs = [row["epoch"] for row in rows]
            for part, key, line in (("training", "training MAE", "--"), ("validation", "MAE", "-")):
                axis.plot(epochs, [row["valid"][key] for row in rows], line, color=color, label=f"{scope}, {part}")
        axis.set_title(name)
        axis.set_xlabel("epoch")
    axes[0][0].set_ylabel("MAE")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return save(figure, path, "Training and validation MAE, with and without context", synthetic)


def read(folder: Path, seeds: Sequence[int], split: str) -> Scored:
    """The predictions of a run's final models for a split."""
    found = []
    for seed in seeds:
        with open(folder / f"seed-{seed}" / "predictions.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split and row["label"]]
        ids, columns = [row["id"] for row in rows], [c for c in rows[0] if c.startswith("p_")]
        if columns:
            names = [c.removeprefix("p_") for c in columns]
            labels = np.array([names.index(row["label"]) for row in rows])
            found.append([[float(row[c]) for c in columns] for row in rows])
        else:
            labels = np.array([float(row["label"]) for row in rows])
            found.append([float(row["prediction"]) for row in rows])  # type: ignore[misc]
    return Scored(ids, labels, np.array(found))


def linear(system: Mapping[str, Scored]) -> dict[str, Scored]:
    """The linear context baseline on a system; the validation split is scored by weights of its other dialogues."""
    valid, test = system["valid"], system["test"]
    there = [cross_fitted(row, valid.labels, *valid.places) for row in valid.predictions]
    fits = [LinearContext.fit(row, valid.labels, *valid.places) for row in valid.predictions]
    then = [fit.apply(row, *test.places) for fit, row in zip(fits, test.predictions, strict=True)]
    return {"valid": valid._replace(predictions=np.array(there)), "test": test._replace(predictions=np.array(then))}


def oracle(system: Mapping[str, Scored]) -> dict[str, Scored]:
    """A linear map of an utterance's prediction and the true labels around it: what context could be worth at most."""

    def features(of: Scored, row: np.ndarray) -> np.ndarray:
        around = context_features(of.labels, *of.places)[0][:, 1:]
        return np.column_stack([row, around, np.ones(len(row))])

    found: dict[str, list[np.ndarray]] = {"valid": [], "test": []}
    for valid, test in zip(system["valid"].predictions, system["test"].predictions, strict=True):
        weights = np.linalg.lstsq(features(system["valid"], valid), system["valid"].labels, rcond=None)[0]
        for split, row in (("valid", valid), ("test", test)):
            found[split].append(features(system[split], row) @ weights)
    return {split: system[split]._replace(predictions=np.array(rows)) for split, rows in found.items()}


def table(
    systems: Mapping[str, Mapping[str, Scored]],
    columns: Sequence[tuple[str, str, Score]],
    scale: float = 1,
    digits: int = 3,
) -> None:
    """Prints the scores of the systems, a column per split and score."""
    print(f"| | {' | '.join(f'{split} {name}' for split, name, _ in columns)} |")
    print(f"| :-- | {' | '.join('--:' for _ in columns)} |")
    for system, of in systems.items():
        parts = [(of[split], score) for split, _, score in columns]
        cells = [spread([scale * score(row, x.labels) for row in x.predictions], digits) for x, score in parts]
        print(f"| {system} | {' | '.join(cells)} |", flush=True)


def differences(
    systems: Mapping[str, Mapping[str, Scored]],
    scores: Mapping[str, Score],
    others: Sequence[str],
    scale: float = 1,
) -> None:
    """Prints the differences of the systems to others, with both bootstraps."""
    print("\n| difference | split | score | | p, utterances | p, dialogues |\n| :-- | :-- | :-- | --: | --: | --: |")
    for other in others:
        for system in [s for s in systems if s.startswith("hierarchical") and s != other and "+" not in s]:
            for split in ("valid", "test"):
                a, b = systems[other][split], systems[system][split]
                for name, score in scores.items():
                    change = np.mean([score(y, a.labels) for y in b.predictions]) - np.mean(
                        [score(x, a.labels) for x in a.predictions]
                    )
                    ps = [f"{bootstrap(a, b, score, whole):.3f}" for whole in (False, True)]
                    print(
                        f"| {system} - {other} | {split} | {name} | {change * scale:+.3f} | {' | '.join(ps)} |",
                        flush=True,
                    )


def bootstrap(a: Scored, b: Scored, score: Score, whole: bool) -> float:
    """Two-sided p of the difference of a score, over seeds and utterances, or over seeds and whole dialogues."""
    rng = np.random.default_rng(0)
    groups = a.places[0] if whole else list(map(str, range(len(a.labels))))
    names = list(dict.fromkeys(groups))
    members = [np.flatnonzero(np.array(groups) == name) for name in names]
    found = np.empty(SAMPLES)
    for n in range(SAMPLES):
        chosen = np.concatenate([members[g] for g in rng.integers(len(names), size=len(names))])
        seeds, labels = rng.integers(len(a.predictions), size=len(a.predictions)), a.labels[chosen]
        found[n] = np.mean(
            [score(b.predictions[s][chosen], labels) - score(a.predictions[s][chosen], labels) for s in seeds]
        )
    return float(min(1, 2 * (1 + min((found <= 0).sum(), (found >= 0).sum())) / (SAMPLES + 1)))


def mae(prediction: np.ndarray, labels: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.abs(prediction.clip(-3, 3) - labels).mean())


def corr(prediction: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation."""
    return float(np.corrcoef(prediction, labels)[0, 1]) if labels.std() and prediction.std() else 0.0


def non0(prediction: np.ndarray, labels: np.ndarray) -> float:
    """Share of the utterances that are not neutral whose sign is right."""
    there = labels != 0
    return float(((prediction > 0) == (labels > 0))[there].mean())


def weighted_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """F1 of the classes, weighted by how often they occur."""
    return _of_classes(probabilities, labels)["weighted_F1"]


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of the utterances whose class is right."""
    return _of_classes(probabilities, labels)["accuracy"]


def _of_classes(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return class_metrics(probabilities.argmax(-1), labels, probabilities.shape[-1])


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.{digits}f}"


if __name__ == "__main__":
    main()
