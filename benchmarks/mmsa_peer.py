"""Trains one model of MMSA on one seed, as MMSA's own ``_run`` does, and writes what it predicts.

``peers.py`` calls this in an environment that has MMSA, not gmsa. MMSA is left as it is installed; where its code
stops on a CPU or under today's torch, the fault is worked around here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim import lr_scheduler


class Plateau(lr_scheduler.ReduceLROnPlateau):
    """MULT's trainer passes ``verbose``, which torch no longer knows."""

    def __init__(self, *args: Any, verbose: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)


lr_scheduler.ReduceLROnPlateau = Plateau  # before MMSA is imported, which takes it over

from MMSA.config import get_config_regression  # noqa: E402
from MMSA.data_loader import MMDataLoader  # noqa: E402
from MMSA.models import AMIO  # noqa: E402
from MMSA.trains import ATIO  # noqa: E402
from MMSA.utils import count_parameters, setup_seed  # noqa: E402


def settings(model: str, data: Path, checkpoint: Path) -> Any:
    """MMSA's tuned settings for MOSI, with what depends on the data or on the machine put in."""
    args = get_config_regression(model, "mosi")
    args.update(
        custom_feature=str(data),
        feature_T=None,
        feature_A=None,
        feature_V=None,
        device=torch.device("cpu"),  # MMSA_run would call torch.cuda.set_device on it, which fails
        train_mode="regression",
        model_save_path=checkpoint,
        cur_seed=1,
    )
    return args


def build(args: Any, text_dim: int) -> torch.nn.Module:
    """The model on the CPU. MCTN's width is that of BERT in its settings, and its device CUDA in its code."""
    if args.model_name != "mctn":
        return AMIO(args)
    args.output_dim = text_dim
    model = AMIO(args)
    model.Model.seq2seq1.device = model.Model.seq2seq2.device = "cpu"
    return model


@torch.no_grad()
def predict(model: torch.nn.Module, dataset: torch.utils.data.Dataset, batch_size: int) -> dict[str, list]:
    """Intensities in the order of the file; MMSA's ``do_test`` gives them for some models only."""
    model.eval()
    found: dict[str, list] = {"id": [], "label": [], "prediction": []}
    for batch in torch.utils.data.DataLoader(dataset, batch_size):
        inputs, labels = [batch[m] for m in ("text", "audio", "vision")], batch["labels"]["M"]
        if dataset.args.model_name == "mctn":
            values = model(*inputs, labels, lengths=None)[1]
        else:
            values = model(*inputs)
            values = values["M"] if isinstance(values, dict) else values[0]  # MFM gives a tuple
        found["id"] += batch["id"]
        found["label"] += labels.flatten().tolist()
        found["prediction"] += values.flatten().tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="MMSA's name, in lower case")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="features as peers.py converts them")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    setup_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        args = settings(options.model, options.data, Path(folder) / "best.pth")
        loaders = MMDataLoader(args, num_workers=0)
        model = build(args, loaders["train"].dataset.get_feature_dim()[0])
        trainer = ATIO().getTrain(args)
        start = time.process_time()  # with one thread the wall's time, less what other processes take
        trainer.do_train(model, loaders)
        seconds = time.process_time() - start
        model.load_state_dict(torch.load(args.model_save_path))
    cell = {
        "model": options.model,
        "seed": options.seed,
        "parameters": count_parameters(model),
        "train_seconds": seconds,
        "versions": {name: importlib.metadata.version(name) for name in ("MMSA", "torch")},
        **{split: predict(model, loaders[split].dataset, args.batch_size) for split in ("valid", "test")},
    }
    partial = options.out.with_suffix(".tmp")
    partial.write_text(json.dumps(cell))
    partial.replace(options.out)


if __name__ == "__main__":
    main()
