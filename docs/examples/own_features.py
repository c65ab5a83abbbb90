"""Train on arrays of your own, faults included: steps with NaN, clips without a modality, clips without a label.

The arrays here are random numbers with the label mixed in, so that there is something to learn. Put your own in their
place: any numbers of features, sequences of any lengths. You see the scores, and predictions for clips that have no
video. A quarter of a minute on a CPU.
"""

import pickle

import numpy as np

import gmsa

FEATURES = {"text": 32, "audio": 12, "vision": 16}
rng = np.random.default_rng(0)


def extract(label):
    """Stands for your feature extraction: an array [steps, features] per modality."""
    clip = {m: label / 2 + rng.standard_normal((rng.integers(4, 12), d)) for m, d in FEATURES.items()}
    if rng.random() < 0.2:
        clip["audio"][0] = np.nan  # a step that failed
    if rng.random() < 0.2:
        clip["vision"] = np.zeros((0, FEATURES["vision"]))  # no steps: the modality is missing
    return clip


def clean(sequence):
    """Drops the steps with NaN, as `data.nan: drop` does in a file. Where no step is left, the modality is missing."""
    return sequence[np.isfinite(sequence).all(axis=1)]


def columns(name, count, labeled=True):
    """A split in the format of MMSA: lists with an entry per clip."""
    labels = rng.uniform(-3, 3, count).round(1)
    clips = [extract(label) for label in labels]
    split = {m: [clean(clip[m]) for clip in clips] for m in FEATURES}
    split["id"] = [f"{name}{i // 8}$_${i % 8}" for i in range(count)]  # video$_$clip
    return split | ({"regression_labels": labels} if labeled else {})


with open("clips.pkl", "wb") as file:  # clips of one video belong in one split
    pickle.dump({"train": columns("train", 160), "valid": columns("valid", 48), "test": columns("test", 48)}, file)
with open("pool.pkl", "wb") as file:
    pickle.dump(columns("pool", 160, labeled=False), file)

# Semi-IIN learns from the labeled clips, labels the pool by itself, and learns from both.
run = gmsa.fit("mosi_graph", data="clips.pkl", overrides={"data.pool": "pool.pkl"}, out="runs/own", resume=True)
print({metric: round(scores["mean"], 2) for metric, scores in run.metrics["test"].items()})

new = [extract(label) for label in (-3, 0, 3)]
answers = run.predict({"text": [clip["text"] for clip in new], "audio": [clean(clip["audio"]) for clip in new]})
print("Clips of sentiment -3, 0 and 3, without vision, are predicted as", answers.values.round(1))
