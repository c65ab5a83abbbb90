"""A study beside plain random search, and beside choosing on the test split as MMSA's tuner does.

    python benchmarks/tune.py --out runs/tune --trials 30 --jobs 2

Three ways to choose a config from the same space, each from as many trainings with one seed: gmsa's study (TPE, median
pruner, the config itself first); random draws, the best on validation; the same random draws, the best on test. Every
choice is then trained anew with five seeds: what it claimed stands beside what it gives.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import yaml
from common import QUICK, ROOT, SEEDS, add_quick, cell, machine, real_data

from gmsa.config import Config, load_config, to_dict
from gmsa.tuning import read_space
from gmsa.tuning.sampling import SeededSampler
from gmsa.tuning.space import apply_values

CONFIG = ROOT / "configs" / "mosi_graph.yaml"
SPLITS = ("valid", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tune"))
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--space", type=Path, default=ROOT / "configs" / "spaces" / "default.yaml")
    add_quick(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    final = SEEDS
    given = [f"data.path={real_data()}", "data.name=mosi_dev"] if not options.quick else [*QUICK, "model.channels=64"]
    if options.quick:
        options.trials, final = 2, SEEDS[:1]
        options.space = options.out / "space.yaml"
        options.space.write_text("optim.lr: {float: [1e-4, 1e-2], log: true}\nmodel.layers: {int: [1, 2]}\n")
    changes = [part for change in given for part in ("--set", change)]
    jobs = ["--jobs", str(options.jobs)]

    study = options.out / "study"
    command(
        "tune", "--space", str(options.space), "--trials", str(options.trials), *jobs, *seeds(final), *changes, study
    )
    found = json.loads((study / "summary.json").read_text())

    draws = draw(options.space, options.trials, given)
    settings = options.out / "draws.yaml"
    settings.write_text(yaml.safe_dump([{"name": f"draw {i}"} | values for i, values in enumerate(draws)]))
    drawn = options.out / "random"
    began = time.perf_counter()
    command("ablate", "--settings", str(settings), *jobs, *seeds(SEEDS[:1]), *changes, drawn)
    seconds = time.perf_counter() - began
    rows = {row["setting"]: row for row in json.loads((drawn / "summary.json").read_text())["rows"]}

    chosen = {
        "the config": {},
        f"study: {found['sampler']}, {found['pruner']} pruner": found["best"][0]["chose"],
        "random, chosen on validation": draws[best(rows, "valid")],
        "random, chosen on test (MMSA's way)": draws[best(rows, "test")],
    }
    # A study may choose the config itself: what counts is what a choice comes to.
    config = load_config(CONFIG, given)
    distinct: dict[str, dict[str, Any]] = {}
    for values in chosen.values():
        distinct.setdefault(resolved(config, values), values)
    finals = options.out / "finals.yaml"
    finals.write_text(yaml.safe_dump([{"name": f"choice {i}"} | v for i, v in enumerate(distinct.values())]))
    command("ablate", "--settings", str(finals), *jobs, *seeds(final), *changes, options.out / "final")
    anew = {row["setting"]: row for row in json.loads((options.out / "final" / "summary.json").read_text())["rows"]}

    claims = {
        name: f"{split} {score:.3f}"
        for name, split, score in zip(
            list(chosen)[1:],
            ("valid", "valid", "test"),
            (found["best"][0]["values"]["MAE"], *(rows[f"draw {best(rows, s)}"][s]["MAE"]["mean"] for s in SPLITS)),
            strict=True,
        )
    }
    print("| chosen by | claimed MAE | valid MAE, five seeds | test MAE, five seeds | test Corr |")
    print("| :-- | --: | --: | --: | --: |")
    for name, values in chosen.items():
        row = anew[f"choice {list(distinct).index(resolved(config, values))}"]
        scores = [row["valid"]["MAE"], row["test"]["MAE"], row["test"]["Corr"]]
        print(f"| {name} | {claims.get(name, '')} | {' | '.join(map(cell, scores))} |")
    counts = found["trials"]
    spent = sum(row["train_seconds"]["mean"] for row in rows.values())
    print(
        f"\n{options.trials} trainings each with seed {SEEDS[0]}, {options.jobs} at a time. Study: "
        f"{counts['complete']} complete, {counts['pruned']} stopped early, {counts['fail']} failed, "
        f"{found['seconds']:.0f} s of training (stopping saved about {found['seconds_saved_by_pruning']:.0f} s). "
        f"Random: {spent:.0f} s of training, {seconds:.0f} s in all."
    )
    print(f"\n{machine()}")


def command(name: str, *arguments: object) -> None:
    """Runs a command of gmsa; the last argument is its folder, where it resumes."""
    *options, out = map(str, arguments)
    line = [sys.executable, "-m", f"gmsa.{name}", "--config", str(CONFIG), *options, "--out", out]
    print("$", " ".join(line[1:]), file=sys.stderr, flush=True)
    subprocess.run(line, check=True, stdout=sys.stderr)


def seeds(chosen: tuple[int, ...]) -> list[str]:
    """The option for seeds."""
    return ["--seeds", ",".join(map(str, chosen))]


def draw(file: Path, count: int, changes: list[str]) -> list[dict[str, Any]]:
    """Random points of the space that the config takes, as ``--set`` would change it."""
    config = load_config(CONFIG, changes)
    space, study = read_space(file, config), optuna.create_study(sampler=SeededSampler("random", 0))
    found = [space.suggest(study.ask()) for _ in range(count)]
    assert all(to_dict(apply_values(config, values)) for values in found)
    return found


def resolved(config: Config, values: dict[str, Any]) -> str:
    """All settings of the config with these values, as text."""
    return json.dumps(to_dict(apply_values(config, values)), sort_keys=True)


def best(rows: dict[str, Any], split: str) -> int:
    """Number of the draw with the least MAE on a split."""
    return int(min(rows.values(), key=lambda row: row[split]["MAE"]["mean"])["setting"].split()[1])


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
