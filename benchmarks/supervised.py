"""The README's main table: Semi-IIN against baselines on real MOSI features, all labels, five seeds.

    python benchmarks/supervised.py --out runs/supervised

A run that is there already is not repeated. Differences are tested on validation and on test by a
paired bootstrap over utterances and seeds; everything was chosen on validation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import SEEDS, cell, errors, machine, real_data, run

from gmsa.metrics import paired_bootstrap

MODELS = {
    "semi_iin": ["model.name=semi_iin"],
    "semi_iin, one layer": ["model.name=semi_iin", "model.layers=1"],
    "global": ["model.name=global"],
    "late_fusion": ["model.name=late_fusion"],
    "hgt": ["model.name=hgt"],
}


def folder_of(out: Path, name: str) -> Path:
    """The run folder of a row."""
    return out / name.replace(", ", "-").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/supervised"))
    parser.add_argument("--models", default=";".join(MODELS), help=f"of {'; '.join(MODELS)}")
    options = parser.parse_args()
    data = real_data()
    names = options.models.split(";")
    summaries = {}
    for name in names:
        overrides = [f"data.path={data}", "protocol.name=supervised", *MODELS[name]]
        summaries[name] = run(folder_of(options.out, name), "mosi_graph.yaml", SEEDS, overrides)

    print("| model | parameters | seconds | valid MAE | test MAE | test Corr | Non0 acc-2 | Non0 F1 | acc-7 |")
    print("| :-- | --: | --: | --: | --: | --: | --: | --: | --: |")
    for name, s in summaries.items():
        test = s["test"]
        print(
            f"| {name} | {s['parameters']:,} | {s['train_seconds']['mean']:.0f} | {cell(s['valid']['MAE'])} "
            f"| {cell(test['MAE'])} | {cell(test['Corr'])} | {cell(test['Non0_acc_2'], 100, 1)} "
            f"| {cell(test['Non0_F1_score'], 100, 1)} | {cell(test['Mult_acc_7'], 100, 1)} |"
        )
    for name in names[1:]:
        for split in ("valid", "test"):
            other, first = (errors(folder_of(options.out, n), SEEDS, split) for n in (name, names[0]))
            b = paired_bootstrap(other, first)
            print(f"{split} MAE, {names[0]} - {name}: {b.difference:+.3f} [{b.low:+.3f}, {b.high:+.3f}], p = {b.p:.3f}")
    print(machine())


if __name__ == "__main__":
    main()
