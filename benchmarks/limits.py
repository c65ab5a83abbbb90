"""Limits: what half of the labels and half of the modalities cost, and what no model could win back.

    python benchmarks/limits.py --out runs/limits

Semi-IIN on labels alone and SSLMM, on graphs of utterances and on graphs of dialogues over them, are trained on
CMU-MOSI with half of the labels and ``eta:0.5`` in all splits, five seeds. Beside them stand the same models with what
is missing given back when they are scored, models of all labels, and oracles:

- **composite**: an utterance that keeps its text has the answer of the best model of all labels and complete data, one
  that lost its text the best answer without text, each chosen by validation MAE. It sees what is there and no other
  utterance: no model of single utterances of this kind can be expected to be better.
- **composite, with context**: a linear map of this answer and of those for the utterances around it, fitted on
  validation for utterances with and without text. **Told of the others** it has, in the place of their answers, those
  of a model that is given back what they lack, or their true labels: what context could add at most.

A run that is there already is not repeated. Differences are in MAE, by a paired bootstrap over seeds and utterances,
and over seeds and whole dialogues.

    python benchmarks/limits.py --scopes utterance --complete semi_iin --out runs/limits
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from common import QUICK, ROOT, SEEDS, add_quick, machine, outcome, real_data, run
from context import Score, Scored, corr, mae, non0, table
from recipe import slug

import gmsa
from gmsa.config import load_config
from gmsa.data import Corpus, Utterance, load_corpus
from gmsa.metrics import context_features, paired_bootstrap
from gmsa.runs.prepare import hide

CONFIG = "mosi_sslmm.yaml"
SEMI_IIN = ("model.name=semi_iin", "protocol.name=supervised", "pretrain.epochs=0", "reconstruction.weight=0")
FORMER = ("consistency.passes=2", "pretrain.epochs=10", "pretrain.contrast=subsets")
MODELS = {"semi_iin": (*SEMI_IIN, "optim.ema=0.99"), "sslmm": (), "sslmm, former default": FORMER}
"""Semi-IIN trained on labels alone, SSLMM, and its former default, at twice the cost, as changes of the config."""
PAIRS = (("semi_iin", "sslmm"), ("semi_iin", "sslmm, former default"), ("sslmm", "sslmm, former default"))
DIALOGUES = ("graph.scope=hierarchical", "graph.context=3", "graph.dialogue_node=true", "model.propagation=0.2")
"""The settings of ``mosi_context``."""
SCOPES = {"utterance": (), "dialogues": DIALOGUES}
ALL, COMPLETE = ("data.label_ratio=1",), ("data.label_ratio=1", "data.missing=none")
WITHOUT_TEXT = ("data.modalities=[audio,vision]",)
MOST = "all labels, nothing missing"
ALL_LABELS = "utterance: semi_iin, all labels"
SPLITS = ("valid", "test")
ALLOWED = 8.0
"""Points of Non0 that a model may lose."""
System = dict[str, Scored]
"""Predictions by split."""
Splits = Mapping[str, Sequence[Utterance]]


class Bench:
    """The data, whole and masked, and the runs."""

    def __init__(self, out: Path, quick: bool, seeds: int) -> None:
        self.out, self.seeds = out, SEEDS[: 1 if quick else seeds]
        self.given = (*QUICK, "pretrain.epochs=1") if quick else (f"data.path={real_data()}", "data.if_missing=error")
        config = load_config(ROOT / "configs" / CONFIG, list(self.given), {})
        self.corpus: Corpus = load_corpus(config.data, config.target)
        self.whole = {split: self.corpus.splits[split] for split in SPLITS}
        masked = hide(self.corpus, config.data.missing)
        self.masked = {split: masked.splits[split] for split in SPLITS}
        self.has_text = {s: np.array([u.present["text"] for u in self.masked[s]]) for s in SPLITS}
        self.trained: dict[str, Path] = {}

    def train(self, name: str, *changes: str) -> str:
        """Trains a run, unless it is there; returns its name."""
        self.trained[name] = self.out / slug(name)
        run(self.trained[name], CONFIG, self.seeds, [*changes, *self.given])
        return name

    def ask(self, name: str, splits: Splits, modalities: Sequence[str] = ()) -> System:
        """What each seed of a run predicts for utterances, of which it sees ``modalities`` alone if some are named.

        NaN for those that have none of them.
        """
        trained, found = gmsa.load(self.trained[name]), {}
        for split, utterances in splits.items():
            shown = [_only(u, modalities) for u in utterances] if modalities else list(utterances)
            there = np.array([any(u.present.values()) for u in shown])
            answers = np.full((len(self.seeds), len(shown)), np.nan)
            for row, seed in enumerate(self.seeds):
                kept = [u for u, seen in zip(shown, there, strict=True) if seen]
                answers[row, there] = trained.predict(kept, seeds=seed, strict=True).values
            found[split] = self.scored(split, answers)
        return found

    def constant(self) -> System:
        """The mean label of the training split."""
        mean = float(np.mean([u.label for u in self.corpus.splits["train"] if u.label is not None]))
        return {s: self.scored(s, [np.full(len(us), mean)] * len(self.seeds)) for s, us in self.whole.items()}

    def scored(self, split: str, answers: Sequence[np.ndarray]) -> Scored:
        """Answers ``[S, N]`` with the labels of a split."""
        labels = np.array([u.label for u in self.whole[split]], dtype=float)
        return Scored([u.id for u in self.whole[split]], labels, np.array(answers, dtype=float))

    def join(self, with_text: System, without: System) -> System:
        """The answers of one system for utterances that keep their text, and of another for the others."""
        return {
            s: with_text[s]._replace(
                predictions=np.where(self.has_text[s], with_text[s].predictions, without[s].predictions)
            )
            for s in SPLITS
        }

    def only(self, system: System, text: bool) -> System:
        """A system on the utterances that keep their text, or on the others."""
        rows = {s: self.has_text[s] == text for s in SPLITS}
        return {s: _rows(of, rows[s]) for s, of in system.items()}

    def labels(self) -> System:
        """The true labels."""
        return {s: self.scored(s, [np.array([u.label for u in us])] * len(self.seeds)) for s, us in self.whole.items()}

    def in_context(self, system: System, others: System) -> System:
        """A linear map of each answer and of what ``others`` say around it, for utterances with and without text."""
        inputs = {
            s: [_around(of, *rows) for rows in zip(of.predictions, others[s].predictions, strict=True)]
            for s, of in system.items()
        }
        found = {s: of.predictions.copy() for s, of in system.items()}
        for text in (True, False):
            rows = {s: self.has_text[s] == text for s in SPLITS}
            for seed, x in enumerate(inputs["valid"]):
                labels = system["valid"].labels[rows["valid"]]
                weights = np.linalg.lstsq(x[rows["valid"]], labels, rcond=None)[0]
                for s in SPLITS:
                    found[s][seed, rows[s]] = inputs[s][seed][rows[s]] @ weights
        return {s: of._replace(predictions=found[s]) for s, of in system.items()}


def _around(of: Scored, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """An utterance's own answer, the means of those around it, and 1 ``[N, F]``."""
    return np.column_stack([own, context_features(others, *of.places)[0][:, 1:], np.ones(len(own))])


def _rows(of: Scored, rows: np.ndarray) -> Scored:
    ids = [name for name, there in zip(of.ids, rows, strict=True) if there]
    return Scored(ids, of.labels[rows], of.predictions[:, rows])


def _only(utterance: Utterance, modalities: Sequence[str]) -> Utterance:
    return replace(utterance, features={m: utterance.features[m] for m in modalities})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/limits"), help="folder of the runs")
    parser.add_argument("--scopes", default=",".join(SCOPES), help="of utterance and dialogues; the first is needed")
    parser.add_argument(
        "--complete", default="semi_iin,sslmm", help="models trained with all labels and nothing missing too"
    )
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    add_quick(parser)
    options = parser.parse_args()
    bench = Bench(options.out, options.quick, options.seeds)
    scopes = ["utterance"] if options.quick else options.scopes.split(",")
    systems, complete = trainings(bench, scopes, options.complete.split(","))
    lost = without_text(bench)
    systems[ALL_LABELS] = lost[ALL_LABELS]
    best = min(complete, key=lambda name: mean(bench.only(bench.ask(name, bench.masked), True)["valid"], mae))
    chosen = min(lost, key=lambda name: mean(bench.only(lost[name], False)["valid"], mae))
    composite = bench.join(bench.ask(best, bench.masked), lost[chosen])
    oracles = {
        "composite": composite,
        "composite, with context": bench.in_context(composite, composite),
        "composite, told of the others: answers to all they have": bench.in_context(composite, systems[best]),
        "composite, told of the others: labels": bench.in_context(composite, bench.labels()),
    }
    report(bench, systems, oracles, lost)
    print(f"\nComposite: with text `{best}`, without `{chosen}`.")
    verdicts(systems, composite, scopes)
    print(f"\n{machine()}")


def trainings(bench: Bench, scopes: Sequence[str], also: Sequence[str]) -> tuple[dict[str, System], list[str]]:
    """The systems of each scope, and the names of the runs of single utterances, all labels and complete data.

    Args:
        also: the models that are trained with all labels and nothing missing, too.
    """
    systems: dict[str, System] = {}
    complete = []
    for scope in scopes:
        for model, changes in MODELS.items():
            name = bench.train(f"{scope}: {model}", *changes, *SCOPES[scope])
            systems[name] = bench.ask(name, bench.masked)
            systems[f"{name}, given what is missing"] = bench.ask(name, bench.whole)
            if model in also:
                most = bench.train(f"{name}, {MOST}", *changes, *SCOPES[scope], *COMPLETE)
                systems[most] = bench.ask(most, bench.whole)
                complete += [most] if scope == "utterance" else []
    return systems, complete


def without_text(bench: Bench) -> dict[str, System]:
    """What answers utterances without text: models of all labels, and a constant."""
    every = bench.train(ALL_LABELS, *MODELS["semi_iin"], *ALL)
    name = bench.train("audio and vision", *MODELS["semi_iin"], *COMPLETE, *WITHOUT_TEXT)
    other = bench.train("audio and vision, trained on what is there", *MODELS["semi_iin"], *ALL, *WITHOUT_TEXT)
    left = ("audio", "vision")
    return {
        every: bench.ask(every, bench.masked),
        name: bench.ask(name, bench.masked, left),
        other: bench.ask(other, bench.masked, left),
        f"{name}, both given back": bench.ask(name, bench.whole, left),
        "the mean of the training labels": bench.constant(),
    }


def report(
    bench: Bench, systems: Mapping[str, System], oracles: Mapping[str, System], lost: Mapping[str, System]
) -> None:
    """Prints the scores: of all utterances, and of those with and without text."""
    scores = (("MAE", mae), ("Corr", corr), ("Non0", non0))
    columns = [(split, name, score) for split in SPLITS for name, score in scores]
    print("\n## All utterances\n")
    table({**systems, **oracles}, columns)
    for text, title, of in (
        (True, "Utterances that keep their text", {**systems, **oracles}),
        (False, "Utterances that lost their text", {**systems, **oracles, **lost}),
    ):
        counts = ", ".join(f"{(bench.has_text[s] == text).sum()} of {len(bench.has_text[s])} in {s}" for s in SPLITS)
        print(f"\n## {title}\n\n{counts}.\n")
        table({name: bench.only(system, text) for name, system in of.items()}, columns)


def verdicts(systems: Mapping[str, System], composite: System, scopes: Sequence[str]) -> None:
    """Prints the differences of SSLMM and Semi-IIN, and what was asked beside what came out."""
    print("\n## Differences and verdicts\n")
    print("| MAE | split | difference | p | p, dialogues |\n| :-- | :-- | :-- | --: | --: |")
    asked = []
    for scope, pair_of in product(scopes, PAIRS):
        a, b = (systems[f"{scope}: {model}"] for model in pair_of)
        found = {}
        for split in SPLITS:
            pair = [of[split].predictions.clip(-3, 3) - of[split].labels for of in (a, b)]
            one = found[split] = paired_bootstrap(*pair)
            dialogues = paired_bootstrap(*pair, groups=a[split].places[0])
            change = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
            print(f"| {scope}: {pair_of[1]} - {pair_of[0]} | {split} | {change} | {one.p:.3f} | {dialogues.p:.3f} |")
        valid, test = found["valid"], found["test"]
        measured = f"{valid.difference:+.3f} (p = {valid.p:.3f}), {test.difference:+.3f}"
        met = valid.difference < 0 and valid.p < 0.05 and test.difference < 0
        if pair_of == PAIRS[0]:
            asked.append((f"{scope}: sslmm ahead on validation with p < 0.05, and on test", measured, met))
    for name, system in {**{f"{s}: sslmm": systems[f"{s}: sslmm"] for s in scopes}, "composite": composite}.items():
        scope = name.partition(":")[0] if ":" in name else "utterance"
        whole = next(w for m in ("sslmm", "semi_iin") if (w := f"{scope}: {m}, {MOST}") in systems)
        lost = points(systems[whole]) - points(system)
        asked.append((f"{name} at most {ALLOWED:g} points of test Non0 behind {whole}", f"{lost:.1f}", lost <= ALLOWED))
    print()
    for of in asked:
        outcome(*of)


def mean(of: Scored, score: Score) -> float:
    """A score, as the mean over seeds."""
    return float(np.mean([score(row, of.labels) for row in of.predictions]))


def points(system: System) -> float:
    """Non0 of the test split in percent."""
    return 100 * mean(system["test"], non0)


if __name__ == "__main__":
    main()
