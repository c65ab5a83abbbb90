"""Few labels: does the unlabeled pool help?

    python benchmarks/few_labels.py --out runs/few_labels

At each label ratio, over five seeds: the supervised model; the paper's self-training; its control, the
same further epochs without pseudo-labels; distillation from three teachers; and a second control, the
supervised model trained anew for as many steps as the student. A run that is there already is not
repeated. Differences to the control are tested by a paired bootstrap over utterances and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import QUICK, SEEDS, add_quick, cell, errors, machine, real_data, run

from gmsa.metrics import paired_bootstrap

METHODS = {
    "supervised": ("mosi_graph.yaml", ["protocol.name=supervised"]),
    "control": ("mosi_graph.yaml", ["self_training.k=0"]),
    "self-training": ("mosi_graph.yaml", []),
    "supervised, the student's steps": ("mosi_graph.yaml", ["protocol.name=supervised", "optim.min_steps=396"]),
    "distillation": ("mosi_distill.yaml", []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--ratios", default="0.125,0.25", help="label ratios")
    parser.add_argument("--methods", default=";".join(METHODS), help=f"of {'; '.join(METHODS)}")
    add_quick(parser)
    options = parser.parse_args()
    chosen, given = (SEEDS[:1], QUICK) if options.quick else (SEEDS, (f"data.path={real_data()}",))
    if options.quick:
        options.ratios, options.methods = "0.25", "control;self-training"
    methods = options.methods.split(";")
    for ratio in map(float, options.ratios.split(",")):
        folders = {m: options.out / f"{ratio:g}" / m.replace(" ", "-").replace(",", "") for m in methods}
        summaries = {}
        for method, folder in folders.items():
            config, overrides = METHODS[method]
            summaries[method] = run(folder, config, chosen, [*given, f"data.label_ratio={ratio}", *overrides])
        print(f"\nLabel ratio {ratio:g}\n")
        print(
            "| | valid MAE | test MAE | test Corr | Non0 acc-2 | acc-7 | seconds | - control, valid | - control, test |"
        )
        print("| :-- | --: | --: | --: | --: | --: | --: | :-- | :-- |")
        for method, s in summaries.items():
            differences = []
            for split in ("valid", "test"):
                if method == "control" or "control" not in folders:
                    differences.append("")
                    continue
                b = paired_bootstrap(errors(folders["control"], chosen, split), errors(folders[method], chosen, split))
                differences.append(f"{b.difference:+.3f} [{b.low:+.3f}, {b.high:+.3f}] p = {b.p:.3f}")
            test = s["test"]
            print(
                f"| {method} | {cell(s['valid']['MAE'])} | {cell(test['MAE'])} | {cell(test['Corr'])} "
                f"| {cell(test['Non0_acc_2'], 100, 1)} | {cell(test['Mult_acc_7'], 100, 1)} "
                f"| {s['train_seconds']['mean']:.0f} | {' | '.join(differences)} |",
                flush=True,
            )
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
