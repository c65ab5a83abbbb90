"""Semi-IIN beside MMSA's models that take features: the same file, splits, seeds, machine and metrics.

    python benchmarks/peers.py --out runs/peers

Installs MMSA into an environment of its own (``--env``), trains its models there with the settings that MMSA has
tuned for MOSI and its early stopping on validation, then Semi-IIN here; one thread, one after another. A (model,
seed) that is there already is not repeated. Every score is computed here, from predictions per utterance.

MMSA's models know neither lengths nor missing modalities, so they get a converted copy: audio and vision normalized
as for gmsa, zeros for what is missing, text padded in front, since their LSTMs and MulT read the last step. Audio and
vision are single vectors in this file, and MMSA itself repeats them for the models that want aligned steps. MulT
convolves with kernels of five steps and no padding: it gets each vector five times, which makes one token.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import QUICK, ROOT, SEEDS, add_quick, cell, errors, machine, real_data, run

import gmsa
from gmsa.config import SYNTHETIC
from gmsa.data import Normalizer
from gmsa.metrics import metrics, paired_bootstrap

MMSA = "MMSA==2.2.1"
MODELS = {
    "lf_dnn": "LF_DNN",
    "tfn": "TFN",
    "lmf": "LMF",
    "ef_lstm": "EF_LSTM",
    "mfn": "MFN",
    "mult": "MulT",
    "graph_mfn": "Graph_MFN",
    "mfm": "MFM",
    "mctn": "MCTN",
}
STEPS = {"mult": 5, "mctn": 50}
"""Steps on which the vectors of audio and vision are repeated, where MMSA does not do that itself."""
LEFT_OUT = {
    "BERT_MAG, MISA, Self_MM, MMIM, TFR_Net": "fine-tune BERT on the words and take no features of text",
    "MTFN, MLMF, MLF_DNN": "learn from labels of each modality alone, which only CH-SIMS has",
}
Cell = dict[str, Any]
"""What ``mmsa_peer.py`` writes."""


def install(env: Path) -> Path:
    """The Python of an environment that has MMSA, and gmsa's torch, lest another version be what is compared."""
    python = env / "bin" / "python"
    check = [str(python), "-c", "import importlib.metadata as m; m.version('MMSA')"]
    if not python.exists() or subprocess.run(check, capture_output=True, check=False).returncode:
        print(f"Installing {MMSA} into {env}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
        packages = [MMSA, f"torch=={torch.__version__.partition('+')[0]}"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def convert(data: Path | str, steps: int, out: Path) -> None:
    """Writes the corpus as MMSA's models need it."""
    config = gmsa.load_config(ROOT / "configs" / "mosi_graph.yaml", [f"data.path={data}"]).data
    splits = gmsa.load_corpus(config).splits
    normalizer = Normalizer.fit(splits["train"], config.normalize, config.clip)
    longest = {m: max(u.lengths[m] for us in splits.values() for u in us) for m in ("text", "audio", "vision")}
    content = {}
    for split, utterances in splits.items():
        shown = [normalizer.apply(u) for u in utterances]
        content[split] = {
            "id": [u.id for u in shown],
            "raw_text": [u.text for u in shown],
            "regression_labels": np.array([u.label for u in shown], dtype=np.float32),
            "text": pad_in_front([u.features["text"] for u in shown], longest["text"]),
        }
        for modality in ("audio", "vision"):
            vectors = pad_in_front([u.features[modality] for u in shown], longest[modality])
            content[split][modality] = np.repeat(vectors, steps, axis=1)
            content[split][f"{modality}_lengths"] = [vectors.shape[1] * steps] * len(shown)
    with open(out, "wb") as file:
        pickle.dump(content, file, protocol=pickle.HIGHEST_PROTOCOL)


def pad_in_front(sequences: Sequence[torch.Tensor], length: int) -> np.ndarray:
    """Sequences ``[L_i, D]`` as one array ``[N, length, D]``, zeros in front."""
    dense = np.zeros((len(sequences), length, sequences[0].shape[1]), dtype=np.float32)
    for row, sequence in zip(dense, sequences, strict=True):
        row[length - len(sequence) :] = sequence.numpy()
    return dense


def train_peers(out: Path, env: Path, data: Path, models: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """Trains every (model, seed) that is not there yet; returns the models that failed, each with the reason."""
    missing = [(m, s) for m in models for s in seeds if not (out / f"{m}-{s}.json").exists()]
    failed: dict[str, str] = {}
    if not missing:
        return failed
    python = install(env)
    with tempfile.TemporaryDirectory() as folder:
        for model, seed in missing:
            if model in failed:
                continue
            steps = STEPS.get(model, 1)
            features = Path(folder) / f"features-{steps}.pkl"
            if not features.exists():
                convert(data, steps, features)
            command = [str(python), str(Path(__file__).with_name("mmsa_peer.py")), "--model", model]
            command += ["--seed", str(seed), "--data", str(features), "--out", str(out / f"{model}-{seed}.json")]
            print("$", " ".join(command[1:]), file=sys.stderr, flush=True)
            quiet = {**os.environ, "TQDM_DISABLE": "1"}  # no progress bars where an error's traceback is looked for
            result = subprocess.run(
                command, env=quiet, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
            )
            if result.returncode:
                print(result.stderr, file=sys.stderr)
                failed[model] = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
    return failed


def summarize(cells: Sequence[Cell]) -> dict[str, Any]:
    """The cells of a model's seeds in the form of a ``summary.json``, as far as the table needs it."""
    summary: dict[str, Any] = {"parameters": cells[0]["parameters"]}
    summary["train_seconds"] = mean_and_std([c["train_seconds"] for c in cells])
    for split in ("valid", "test"):
        scores = [metrics("mosi", c[split]["prediction"], c[split]["label"]) for c in cells]
        summary[split] = {name: mean_and_std([s[name] for s in scores]) for name in scores[0]}
    return summary


def mean_and_std(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def comparison(cells: Sequence[Cell], ours: np.ndarray) -> str:
    """Semi-IIN's test error minus a peer's: both have the utterances in the order of the file."""
    theirs = np.array([c["test"]["prediction"] for c in cells]) - np.array([c["test"]["label"] for c in cells])
    b = paired_bootstrap(theirs, ours)
    return f"{b.difference:+.3f} [{b.low:+.3f}, {b.high:+.3f}] | {b.p:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "gmsa-mmsa-env")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {','.join(MODELS)}")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS[:3])))
    add_quick(parser)
    options = parser.parse_args()
    models, seeds = options.models.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := set(models) - MODELS.keys():
        parser.error(f"unknown model '{min(unknown)}': expected of {','.join(MODELS)}")
    torch.set_num_threads(1)  # as every training here has
    options.out.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    given = QUICK
    if options.quick:  # MMSA is not installed: its models get their copy of the data, and no row
        seeds = seeds[:1]
        convert(SYNTHETIC, 1, options.out / "features.pkl")
        failed = dict.fromkeys(models, "left out by --quick")
    else:
        data = real_data()
        failed = train_peers(options.out, options.env, data, models, seeds)
        given = (f"data.path={data}",)
    folder = options.out / "-".join(["semi_iin", *map(str, seeds)])
    overrides = [*given, "protocol.name=supervised", "model.name=semi_iin"]
    summaries = {"**Semi-IIN**": run(folder, "mosi_graph.yaml", seeds, overrides)}
    ours = errors(folder, seeds, "test")
    compared, versions = {}, {}
    for model in models:
        if model in failed:
            continue
        cells = [json.loads((options.out / f"{model}-{seed}.json").read_text()) for seed in seeds]
        summaries[MODELS[model]], compared[MODELS[model]] = summarize(cells), comparison(cells, ours)
        versions = cells[0]["versions"]

    print(
        "| model | parameters | seconds | valid MAE | test MAE | test Corr | Has0 acc-2 | Non0 acc-2 | acc-7 "
        "| test MAE, Semi-IIN - it | p |"
    )
    print("| :-- | --: | --: | --: | --: | --: | --: | --: | --: | :-- | --: |")
    for name, s in sorted(summaries.items(), key=lambda item: item[1]["valid"]["MAE"]["mean"]):
        test = s["test"]
        print(
            f"| {name} | {s['parameters']:,} | {s['train_seconds']['mean']:.0f} | {cell(s['valid']['MAE'])} "
            f"| {cell(test['MAE'])} | {cell(test['Corr'])} | {cell(test['Has0_acc_2'], 100, 1)} "
            f"| {cell(test['Non0_acc_2'], 100, 1)} | {cell(test['Mult_acc_7'], 100, 1)} "
            f"| {compared.get(name, ' | ')} |"
        )
    print()
    for names, reason in {**{MODELS[m]: reason for m, reason in failed.items()}, **LEFT_OUT}.items():
        print(f"Not in the table: {names}: {reason}.")
    print(f"\n{machine()}; peers: {', '.join(f'{name} {version}' for name, version in versions.items())}")


if __name__ == "__main__":
    main()
