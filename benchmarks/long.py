"""Long sequences: what a bound on the tokens of a modality saves, and what it costs.

    python benchmarks/long.py --out runs/long

A training step on made-up arrays of CMU-MOSEI's dimensions, every sequence as long as MMSA's unaligned file has it,
with each bound, in turns, in seconds of one core. Then trainings with and without a bound, five seeds, scored on
validation: on made-up sequences whose label lies in a single step of 300, and on real corpora, whose sequences are
short, with bounds small enough to matter there. A run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import LONGEST, QUICK, ROOT, SEEDS, add_quick, cell, errors, find_data, header, machine, made_up, row, run
from step import Graph

from gmsa.config import Config, load_config
from gmsa.data import Target
from gmsa.metrics import paired_bootstrap
from gmsa.models import build_model
from gmsa.training.examples import labeled_examples

MOSEI = {"text": 768, "audio": 74, "vision": 35}
BOUNDS = (0, 128, 64, 32)
STEPS = 300
"""Of vision in the made-up sequences."""
CORPORA: dict[str, tuple[str, ...]] = {
    "one step of 300": ("0", "64", "32"),
    "mosi_dev.pkl": ("0", "16", "8"),
    "mmmo.pkl": ("0", "10", "5"),
}
"""Bounds by corpus."""
PLAIN = (
    *("data.modalities=[vision]", "model.channels=32", "model.heads=4", "model.dropout=0", "model.input_dropout=0"),
    *("model.modality_dropout=0", "optim.lr=0.001", "optim.epochs=15"),
)
"""Settings with which the made-up task is learned in minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    add_quick(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    times(options.quick)
    scores(options.out, options.quick)
    print(f"\n{machine()}")


def bounded(config: Config, tokens: int, steps: dict[str, int]) -> Config:
    """A config with a bound on tokens, for sequences of these lengths."""
    return replace(config, model=replace(config.model, tokens=tokens).bounded(steps))


def times(quick: bool) -> None:
    """Prints the seconds of a step with each bound."""
    steps = dict(zip(MOSEI, LONGEST["mosei"], strict=True))
    batch, rounds = (2, 1) if quick else (8, 4)
    overrides = ["data.path=synthetic", f"optim.batch_size={batch}", "model.modality_dropout=0"]
    config = load_config(ROOT / "configs" / "mosei_graph.yaml", overrides, {})
    utterances = made_up(np.array([[*steps.values()]] * (batch * (rounds + 1))), MOSEI)
    examples = labeled_examples(utterances, Target())
    runs = {}
    for tokens in BOUNDS:
        settings = bounded(config, tokens, steps)
        runs[tokens] = Graph(build_model(MOSEI, settings), settings, torch.device("cpu"), examples, rounds + 1)
        runs[tokens].begin(0, alone=True)
    seconds: dict[int, list[float]] = {tokens: [] for tokens in BOUNDS}
    for _ in range(rounds + 1):
        for tokens, part in runs.items():
            began = time.process_time()
            part.step(False)
            seconds[tokens].append(time.process_time() - began)
    header(
        f"A step of {batch} utterances with {listed_steps(steps)}:",
        *("bound", "steps per token", "seconds", "as fast"),
    )
    middle = {tokens: float(np.median(found[1:])) for tokens, found in seconds.items()}
    for tokens, found in middle.items():
        strides = " / ".join(str(runs[tokens].config.model.stride(m)) for m in MOSEI)
        row(tokens or "none", strides, f"{found:.2f}", f"{middle[0] / found:.2f} x")


def listed_steps(steps: dict[str, int]) -> str:
    """Steps by modality, in words."""
    return ", ".join(f"{count} steps of {modality}" for modality, count in steps.items())


def one_step(path: Path, counts: dict[str, int], steps: int) -> Path:
    """Writes sequences of noise whose label lies in a single step of vision, marked by its first feature."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {}
    for split, count in counts.items():
        labels = rng.uniform(-3, 3, count).astype(np.float32)
        vision = rng.standard_normal((count, steps, 8)).astype(np.float32)
        vision[np.arange(count), rng.integers(0, steps, count), :2] = np.stack([np.full(count, 6), 2 * labels], 1)
        content[split] = {
            "id": [f"{split}{i // 4}$_${i % 4}" for i in range(count)],
            "raw_text": [""] * count,
            "text": rng.standard_normal((count, 10, 8)).astype(np.float32),
            "vision": vision,
            "regression_labels": labels,
        }
    path.write_bytes(pickle.dumps(content))
    return path


def scores(out: Path, quick: bool) -> None:
    """Prints the validation MAE with each bound."""
    counts = {"train": 24 if quick else 960, "valid": 24 if quick else 240, "test": 24}
    made = one_step(out / "one_step.pkl", counts, STEPS)
    names = ("bound", "steps per token", "valid MAE", "less none", "training, seconds")
    for corpus, bounds in CORPORA.items():
        path = made if corpus.startswith("one") else find_data(corpus)
        if not path.is_file():
            if not quick:
                raise SystemExit(f"{path} does not exist; point GMSA_REAL_DATA at the folder that holds {corpus}")
            continue
        seeds = SEEDS[:1] if quick else SEEDS[:3] if path == made else SEEDS
        given = [*QUICK] if quick else []
        given += [f"data.path={path}", "data.if_missing=error", "data.modalities=auto", "protocol.name=supervised"]
        given += [*PLAIN] if path == made and not quick else []
        header(f"{corpus}, {len(seeds)} {'seed' if quick else 'seeds'}:", *names)
        for tokens in bounds[:2] if quick else bounds:
            folder = out / path.stem / tokens
            found = run(folder, "mosi_graph.yaml", seeds, [*given, f"model.tokens={tokens}"])
            model = load_config(folder / "config.yaml", [], {}).model
            strides = " / ".join(f"{m} {model.stride(m)}" for m in ("text", "audio", "vision"))
            less = ""
            if tokens != "0":
                b = paired_bootstrap(*(errors(folder.parent / name, seeds, "valid") for name in ("0", tokens)))
                less = f"{b.difference:+.3f} [{b.low:+.3f}, {b.high:+.3f}] p = {b.p:.2f}"
            seconds = f"{found['train_seconds']['mean']:.0f}"
            row("none" if tokens == "0" else tokens, strides, cell(found["valid"]["MAE"]), less, seconds)


if __name__ == "__main__":
    main()
