"""How much does a model lose where modalities are masked, and does it help to drop or mask some in training?

The data is made up: each modality is the label with noise, least in text and most in vision. Three models learn from
it: one from all modalities in every step, one that has some dropped at random in each step, and one from a training
split of which half is masked for good. You see their errors on the same test clips under the same masks, at growing
missing rates; `runs/missing/figures` has the curves. Half a minute on a CPU.
"""

import pickle
from pathlib import Path

import numpy as np

import gmsa
from gmsa.runs.robustness import compare_robustness

rng = np.random.default_rng(0)


def columns(name, count):
    """A split in the format of MMSA: lists with an entry per clip."""
    labels = rng.uniform(-3, 3, count).round(1)
    split = {"id": [f"{name}{i // 8}$_${i % 8}" for i in range(count)], "regression_labels": labels}
    for modality, noise in (("text", 0.7), ("audio", 1.0), ("vision", 1.5)):
        known = labels + noise * rng.standard_normal(count)
        split[modality] = [value / 2 + rng.standard_normal((rng.integers(4, 12), 8)) for value in known]
    return split


with open("noisy.pkl", "wb") as file:
    pickle.dump({"train": columns("train", 160), "valid": columns("valid", 48), "test": columns("test", 96)}, file)

no_dropout = {"model.modality_dropout": 0}
trainings = {
    "complete": no_dropout,
    "dropped": {"model.modality_dropout": {"text": 0.2, "audio": 0.2, "vision": 0.5}},
    "masked": no_dropout | {"data.missing": {"train": "eta:0.5"}},  # each clip keeps at least one modality
}
for name, settings in trainings.items():
    settings = settings | {"protocol.name": "supervised"}
    gmsa.fit("mosi_graph", data="noisy.pkl", overrides=settings, out=f"runs/{name}", resume=True)

# eta:0.4 masks 40 % of the (clip, modality) pairs; fixed:all would score each subset of the modalities.
folders = [f"runs/{name}" for name in trainings]
print(compare_robustness(folders, ["eta:0,0.2,0.4,0.6"], out=Path("runs/missing")))
