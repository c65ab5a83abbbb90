"""One model of several: what a student keeps of what the mean of three models gains over one.

    python benchmarks/one_model.py --out runs/one_model
    python benchmarks/one_model.py --corpora CMU-MOSI --models "student;soup" --seeds 3 --out runs/one_model
    python benchmarks/one_model.py --corpora "CMU-MOSI, MiniLM" --folds 0 --models student --out runs/one_model

With all labels and no pool, per corpus, fold and seed: three teachers and their student by the protocol `distillation`;
a control, trained on the labels for as many steps as the student; a student that learns from the labeled utterances
themselves; and a soup by the protocol `soup`, whose first member is the first teacher. An error
is an MAE, that of one the mean over the three teachers. What is kept of the gain is (one - model) / (one - mean of
three), with an interval by a bootstrap over folds and seeds. Folds are by video, over what is not in the test split;
with --folds 0 the splits are the file's own. What is trained already is not trained again. ``MiniLM`` is in the loop,
``context`` as in ``mosi_context``; both are measured where they are asked for.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import QUICK, ROOT, SEEDS, add_quick, find_data, header, machine, row
from torch import nn

from gmsa.config import load_config
from gmsa.metrics import mosi_metrics
from gmsa.runs.initial_weights import encoder_weights
from gmsa.runs.prepare import Prepared, prepare
from gmsa.runs.train import make_trainer
from gmsa.system.device import set_up
from gmsa.training.callbacks import Callback
from gmsa.training.protocols import Distillation, Soup, TrainingData
from gmsa.training.pseudo_labels import soft_examples
from gmsa.training.trainer import Trainer

FOLDS, SAMPLES = 5, 10_000
MODELS = ("student", "control", "labeled utterances", "soup")
ONE, MEAN = "one", "mean of three"
STAGES = ("supervised", "teacher_2", "teacher_3")
SPLITS = ("valid", "test")
METRICS = ("MAE", "Corr", "Non0_acc_2", "Mult_acc_7")


class Corpus(NamedTuple):
    """A corpus, and the settings of its trainings."""

    file: str
    config: str
    changes: tuple[str, ...] = ()


CONTEXT = ("graph.scope=hierarchical", "graph.context=3", "graph.dialogue_node=true", "model.propagation=0.2")
TEXT = ("data.modalities=[text]",)
CORPORA = {
    "CMU-MOSI": Corpus("mosi_dev.pkl", "mosi_graph.yaml"),
    "CH-SIMS v2": Corpus("sims2_text.pkl", "sims_graph.yaml", TEXT),
    "CMU-MOSI, MiniLM": Corpus("mosi_dev.pkl", "mosi_text.yaml"),
    "CMU-MOSI, MiniLM, context": Corpus("mosi_dev.pkl", "mosi_text.yaml", CONTEXT),
    "CH-SIMS v2, MiniLM": Corpus("sims2_text.pkl", "mosi_text.yaml", ("target.preset=simsv2", *TEXT)),
}
DEFAULT = "CMU-MOSI;CH-SIMS v2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/one_model"), help="folder of the trainings")
    parser.add_argument(
        "--corpora", default=DEFAULT, metavar="NAMES", help=f"with semicolons, of: {'; '.join(CORPORA)}"
    )
    parser.add_argument("--models", default=";".join(MODELS), metavar="NAMES", help="with semicolons; by default all")
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help=f"how many of the {FOLDS} folds; 0: the file's own splits"
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each fold")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change of a setting")
    add_quick(parser)
    options = parser.parse_args()
    corpora, models = named(CORPORA, options.corpora), named(MODELS, options.models)
    folds, seeds = (1, SEEDS[:1]) if options.quick else (options.folds, SEEDS[: options.seeds])
    for name in corpora:
        corpus, file = CORPORA[name], find_data(CORPORA[name].file)
        if not options.quick and not file.is_file():
            print(f"NOT MEASURED: {corpus.file} is not in $GMSA_REAL_DATA")
            continue
        found = []
        for fold in range(max(1, folds)):
            given = [f"data.path={file}", *corpus.changes]
            if folds:
                given += [f"data.split.folds={FOLDS}", f"data.split.fold={fold}", "data.split.keep_test=true"]
            given = [*QUICK] if options.quick else given
            overrides = [*given, *options.set, "protocol.name=distillation", "distillation.teachers=3"]
            base = "mosi_graph.yaml" if options.quick else corpus.config
            config = load_config(ROOT / "configs" / base, overrides, {})
            set_up(config.run)
            prepared = prepare(config)
            for seed in seeds:
                folder = options.out / re.sub(r"\W+", "_", name) / (f"{fold}-{seed}" if folds else str(seed))
                found.append(errors(prepared, seed, folder, models))
        of = f"{folds} of {FOLDS} folds, seeds of each" if folds else "the file's own splits, seeds"
        report(f"{name}, {of}: {len(seeds)}", found, max(1, folds))
    print(f"\n{machine()}")


def errors(prepared: Prepared, seed: int, folder: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The error of each model on each split, after the trainings of a seed."""
    trainer, data = trainer_of(prepared, seed, folder / "distillation"), prepared.training_data(prepared.config, seed)
    teachers = [trainer.train_stage(stage, data.labeled) for stage in STAGES]
    make: dict[str, Callable[[], nn.Module]] = {
        "student": lambda: Distillation()(trainer, data),
        "control": lambda: trained_on(prepared, seed, folder / "control", data),
        "labeled utterances": lambda: trained_on(prepared, seed, folder / "labeled", data, teachers),
        "soup": lambda: Soup()(trainer, data),
    }
    models: dict[str, list[nn.Module]] = {**{name: [make[name]()] for name in names}, MEAN: [*teachers]}
    found: dict[str, dict[str, float]] = {ONE: {}, **{name: {} for name in models}}
    for split in SPLITS:
        utterances = prepared.splits[split]
        labels = np.array([u.label for u in utterances])
        for name, of in models.items():
            values = np.stack([trainer.predict(model, utterances).predicted for model in of])
            found[name] |= scores(split, [values.mean(0)], labels)
            if name == MEAN:
                found[ONE] |= scores(split, values, labels)
    return found


def scores(split: str, values: Iterable[np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """The mean of each score over some predictions of a split."""
    each = [mosi_metrics(predicted, labels) for predicted in values]
    return {f"{split} {metric}": float(np.mean([row[metric] for row in each])) for metric in METRICS}


def named(known: Collection[str], asked: str) -> list[str]:
    """The names that are asked for, which must be known."""
    names = asked.split(";")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"there is no {unknown[0]!r}; choose among: {'; '.join(known)}")
    return names


def trainer_of(prepared: Prepared, seed: int, folder: Path, epochs: int = 1) -> Trainer:
    """A trainer of ``epochs`` times as many epochs; it reads what is trained in its folder."""
    optim = prepared.config.optim
    config = replace(prepared.config, optim=replace(optim, epochs=optim.epochs * epochs))
    folder.mkdir(parents=True, exist_ok=True)
    start = encoder_weights(config, prepared.corpus.dims)
    return make_trainer(config, prepared, seed, start, folder, torch.device("cpu"), Callback())


def trained_on(
    prepared: Prepared, seed: int, folder: Path, data: TrainingData, teachers: Sequence[nn.Module] = ()
) -> nn.Module:
    """A model trained on the labels, and on what teachers predict for the same utterances, in as many steps."""
    trainer, examples = trainer_of(prepared, seed, folder, 1 if teachers else 2), list(data.labeled)
    if teachers:
        utterances = [e.utterance for e in data.labeled]
        examples += soft_examples(utterances, [trainer.predict(teacher, utterances) for teacher in teachers])
    return trainer.train_stage("student" if teachers else "control", examples)


def report(name: str, found: Sequence[Mapping[str, Mapping[str, float]]], folds: int) -> None:
    """Prints the errors of a corpus: of ``found``, fold by fold, for all seeds of each."""
    columns = [f"{split} {metric}" for split in SPLITS for metric in METRICS]
    header(f"{name}:", "", *columns, *(f"kept of the gain, {split}" for split in SPLITS))
    scores_of = {
        model: {column: np.array([f[model][column] for f in found]).reshape(folds, -1) for column in columns}
        for model in found[0]
    }
    for model, of in scores_of.items():
        cells = [f"{of[c].mean():.4f} ± {of[c].std(ddof=1) if of[c].size > 1 else 0:.4f}" for c in columns]
        kept = []
        for split in SPLITS:
            one, mean = (scores_of[name][f"{split} MAE"] for name in (ONE, MEAN))
            kept.append("" if model == ONE else share(one - of[f"{split} MAE"], one - mean))
        row(model, *cells, *kept)


def share(own: np.ndarray, whole: np.ndarray) -> str:
    """The share of one gain in another ``[folds, seeds]``, of their means, with its 95 % interval."""
    rng, (folds, seeds) = np.random.default_rng(0), own.shape
    some = rng.integers(folds, size=(SAMPLES, folds))[:, :, None], rng.integers(seeds, size=(SAMPLES, seeds))[:, None]
    drawn = own[some].mean((1, 2)) / whole[some].mean((1, 2))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{100 * own.mean() / whole.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


if __name__ == "__main__":
    main()
