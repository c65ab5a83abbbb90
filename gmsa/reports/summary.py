"""The summary of a run over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.config import SYNTHETIC, SYNTHETIC_DIALOGUES
from gmsa.config.groups.target import MOST_CLASSES
from gmsa.errors import listed
from gmsa.system.records import FLAG, NUMBER, TEXT, Fields, Items, Kind, Map, Maybe, is_finite, one_of, whole

Scores = Sequence[Mapping[str, float]]
"""Metrics of every seed, in the order of the seeds."""
Summary = dict[str, Any]
"""The content of ``summary.json``, as :func:`summarize` returns it."""
SCORED_SPLITS = ("valid", "test")
"""Splits that a summary has scores of."""
SPREAD = Fields({"mean": NUMBER, "std": NUMBER, "values": Items(NUMBER, 1_000_000)})
"""What :func:`spread` returns."""
MOST_WORST = 100
"""Utterances of the worst predictions, at most."""
LONGEST_TEXT = 300
"""Characters of a transcript that a summary holds."""
_LABEL = Kind("a finite number, or the name of a class", lambda value: is_finite(value) or isinstance(value, str))
_WORST = Fields(
    {"id": TEXT, "text": TEXT, "truth": _LABEL, "prediction": _LABEL, "lacking": Items(TEXT, 1000)},
    {"confidence": NUMBER},
)
_TARGET = Fields(
    {"kind": one_of("intensity", "classes")}, {"range": Items(NUMBER, 2), "classes": Items(TEXT, MOST_CLASSES)}
)
_CLASS = Fields({"class": TEXT, "precision": SPREAD, "recall": SPREAD, "F1": SPREAD, "support": whole()})
_INTERVALS = Fields(
    {
        "seed": whole(-(2**63)),
        "level": NUMBER,
        "pooled": Maybe(NUMBER),
        "counts": Map(whole()),
        "margins": Map(NUMBER),
        "width": NUMBER,
        "coverage": NUMBER,
        "expected": Items(NUMBER, 2),
    }
)
_TEST = Fields({**dict.fromkeys(("difference", "low", "high", "p"), NUMBER), "dialogues": whole()})
_CONTEXT = Fields(
    {
        "reach": one_of("all", "past"),
        "utterances": whole(),
        "dialogues": whole(),
        "weights": Map(SPREAD),
        "scores": Map(Map(SPREAD)),
        "tests": Map(_TEST),
    }
)
_SCORED = Fields({}, dict.fromkeys(SCORED_SPLITS, Map(SPREAD)))
_MASKED = Fields(
    {"protocol": TEXT, "lacking": Map(NUMBER), "realized": Maybe(NUMBER)}, {"asked": NUMBER, "left": TEXT, "unit": TEXT}
)
_COUNTS = Fields(dict.fromkeys(("train", "valid", "test", "labeled"), whole()))
_CONSTANT = Fields({"value": NUMBER, **dict.fromkeys(SCORED_SPLITS, Map(NUMBER))}, {"class": TEXT})
SUMMARY = Fields(
    {
        "name": TEXT,
        "dataset": TEXT,
        "synthetic": FLAG,
        "data_sha256": TEXT,
        "seeds": Items(whole(-(2**63)), 1_000_000),
        "model": TEXT,
        "protocol": TEXT,
        "parameters": whole(),
        "train_seconds": SPREAD,
        "valid": Map(SPREAD),
        "test": Map(SPREAD),
        "stages": Map(_SCORED),
        "missing": Map(_MASKED),
        "label_ratio": NUMBER,
    },
    {
        "init_from": TEXT,
        "note": TEXT,
        "target": _TARGET,
        "utterances": _COUNTS,
        "constant": _CONSTANT,
        "worst": Items(_WORST, MOST_WORST),
        "classes": Items(_CLASS, MOST_CLASSES),
        "intervals": Items(_INTERVALS, 1_000_000),
        "others": Map(Map(SPREAD)),
        "scored": Map(whole()),
        "context": _CONTEXT,
    },
)
"""The form of a summary from disk, which may be a stranger's."""
SYNTHETIC_NOTE = "SYNTHETIC corpus: these numbers say nothing about a real data set."


def summarize(
    *,
    name: str,
    dataset: str,
    synthetic: bool,
    data_sha256: str,
    seeds: Sequence[int],
    model: str,
    protocol: str,
    parameters: int,
    train_seconds: Sequence[float],
    valid: Scores,
    test: Scores = (),
    stages: Mapping[str, Mapping[str, Scores]] | None = None,
    missing: Mapping[str, Any] | None = None,
    label_ratio: float = 1.0,
    init_from: str | None = None,
    utterances: Mapping[str, int] | None = None,
    constant: Mapping[str, Any] | None = None,
    worst: Sequence[Mapping[str, Any]] = (),
    target: Mapping[str, Any] | None = None,
    classes: Sequence[Mapping[str, Any]] = (),
    intervals: Sequence[Mapping[str, Any]] = (),
    others: Mapping[str, Scores] | None = None,
    scored: Mapping[str, int] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Summary:
    """Builds the content of ``summary.json``: every metric as mean, sample standard deviation and values.

    The standard deviation divides by n - 1 and is 0 for a single seed. ``valid`` and ``test`` are
    the final model's; ``stages`` names the splits of each training stage in order, as
    ``{"supervised": {"valid": [...], "test": [...]}, ...}``, and may name the final one again. A
    split that was not scored is an empty list, or left out.

    Args:
        train_seconds: training time of every seed.
        parameters: trainable parameters.
        missing: protocol, asked and realized rate of missing modalities, and the like; may nest.
        init_from: folder of the pre-trained run that the weights began as; named only where there is one.
        utterances: how many each split has, and how many of the training split are ``labeled``: kept their labels.
        constant: a prediction that is the same for all utterances, and its metrics of each split.
        worst: utterances of the test split that are farthest off, with their text.
        target: its ``kind``, and its ``range`` or ``classes``.
        classes: precision, recall and F1 of each class on the test split.
        intervals: of each seed, the margins of conformal prediction, and their coverage on the test split.
        others: scores of splits of another file than the run's that are neither ``valid`` nor ``test``.
        scored: how many utterances of each split of such a file were scored.
        context: scores of the linear context baseline by split, its weights, and tests against the model alone.

    Raises:
        ValueError: some split does not hold one dict of the same metrics per seed, or a value is
            NaN or infinite.
    """
    count = len(seeds)
    if not count or len(train_seconds) != count:
        raise ValueError(f"expected one training time per seed (got {len(train_seconds)} for {count} seeds)")
    summary: Summary = {"name": name, "dataset": dataset, "synthetic": synthetic}
    if synthetic:
        summary["note"] = SYNTHETIC_NOTE
    return summary | {
        "data_sha256": data_sha256,
        "seeds": [int(seed) for seed in seeds],
        "model": model,
        "protocol": protocol,
        "parameters": int(parameters),
        "train_seconds": spread(train_seconds),
        "valid": _spreads(valid, count, "valid"),
        "test": _spreads(test, count, "test"),
        "stages": {
            stage: {
                split: _spreads(splits[split], count, f"{stage}/{split}")
                for split in SCORED_SPLITS
                if splits.get(split)
            }
            for stage, splits in (stages or {}).items()
        },
        "missing": dict(missing or {}),
        "label_ratio": float(label_ratio),
        **({"init_from": init_from} if init_from else {}),
        **({"target": dict(target)} if target else {}),
        **({"utterances": dict(utterances)} if utterances else {}),
        **({"constant": dict(constant)} if constant else {}),
        **({"worst": [dict(row) for row in worst]} if worst else {}),
        **({"classes": [dict(row) for row in classes]} if classes else {}),
        **({"intervals": [dict(row) for row in intervals]} if intervals else {}),
        **({"others": {name: _spreads(of, count, name) for name, of in others.items()}} if others else {}),
        **({"scored": dict(scored)} if scored else {}),
        **({"context": dict(context)} if context else {}),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for a single value) and the values.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a mean over seeds needs finite values (got {numbers})")
    return {
        "mean": statistics.fmean(numbers),
        "std": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
        "values": numbers,
    }


def _spreads(scores: Scores, count: int, where: str) -> dict[str, Any]:
    if not scores:
        return {}
    if len(scores) != count or any(seed.keys() != scores[0].keys() for seed in scores):
        raise ValueError(f"'{where}' must hold the same metrics for each of the {count} seeds")
    return {metric: spread([seed[metric] for seed in scores]) for metric in scores[0]}


def dataset_of(summary: Mapping[str, Any]) -> str:
    """The name of the data of a summary, which says where they are synthetic."""
    if not summary["synthetic"]:
        return str(summary["dataset"])
    name = str(summary["dataset"])
    return name if name in (SYNTHETIC, *SYNTHETIC_DIALOGUES) else f"synthetic (not {name})"


def target_line(summary: Mapping[str, Any]) -> str:
    """What a summary's run predicts: ``intensity in [-3, 3]``, or ``3 classes: negative, neutral, positive``."""
    target = summary.get("target", {})
    if "classes" in target:
        return f"{len(target['classes'])} classes: {listed(target['classes'])}"
    return "intensity in [{:g}, {:g}]".format(*target["range"]) if len(target.get("range", ())) == 2 else "intensity"


def missing_lines(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The records of :func:`~gmsa.data.describe_missing`, a line per split."""
    if not splits:
        return {"Missing modalities": "as in the data"}
    return {f"Missing modalities, {split}": _missing_line(record) for split, record in splits.items()}


def _missing_line(record: Mapping[str, Any]) -> str:
    protocol = record["protocol"]
    asked = f":{record['asked']:.4g}" if "asked" in record else f":{record['left']}" if "left" in record else ""
    name = "as in the data" if protocol == "none" else f"{protocol}{asked}"
    name += f", one mask per {record['unit']}" if "unit" in record else ""
    what = "steps lost" if protocol.startswith("frame") else "modalities missing"
    there = ", ".join(f"{modality} in {100 * (1 - share):.1f} %" for modality, share in record["lacking"].items())
    realized = record["realized"]
    gone = "steps drawn anew in every epoch" if realized is None else f"{100 * realized:.1f} % of the {what}"
    return f"{name}; {gone}; {there} of the utterances"
