"""Figures of a run: its training, its predictions for the test split, its pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmsa.figures.canvas import BLACK, BLUE, LINES, MOST_MARKS, ORANGE, RED, SKY, label, new_figure, save, styled
from gmsa.metrics import calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

CLASS_NAMES = ("-3", "-2", "-1", "0", "+1", "+2", "+3")
"""The sentiment that the seven classes of an intensity in [-3, 3] stand for, from class 0 to class 6."""
MOST_CLASSES = 20
"""Classes that a figure shows, at most: of more, the most frequent ones."""
_LONGEST_CLASS = 20


@styled
def figure_curves(
    history: Sequence[Mapping[str, Any]], path: str | Path, synthetic: bool = False, metric: str = "MAE"
) -> bool:
    """Training loss (top) and a validation metric (bottom) over epochs: a column per stage, a colour per seed.

    Args:
        history: rows of ``history.jsonl``: ``{"seed", "stage", "epoch", "loss", "valid": {metric: ...},
            "best": bool, ...}``. The last epoch of a seed and stage that is ``best`` is the chosen
            one and gets a star.
    """
    if not history:
        return False
    stages = list(dict.fromkeys(row["stage"] for row in history))
    seeds = list(dict.fromkeys(row["seed"] for row in history))
    figure, axes = new_figure(2, len(stages), max(8.0, 3.2 * len(stages)), 6.2, sharex="col", sharey="row")
    for column, stage in enumerate(stages):
        top, bottom = axes[0][column], axes[1][column]
        for index, seed in enumerate(seeds):
            rows = [row for row in history if row["stage"] == stage and row["seed"] == seed]
            epochs = [row["epoch"] for row in rows]
            colour = LINES[index % len(LINES)]
            style: dict[str, Any] = {"color": colour, "linewidth": 1.8, "marker": ".", "markersize": 5}
            top.plot(epochs, [row["loss"] for row in rows], label=f"seed {seed}", **style)
            bottom.plot(epochs, [row["valid"][metric] for row in rows], **style)
            chosen = [row for row in rows if row["best"]][-1:]
            bottom.plot(
                [row["epoch"] for row in chosen],
                [row["valid"][metric] for row in chosen],
                linestyle="none", marker="*", markersize=15, color=colour, markeredgecolor="white", zorder=3,
            )  # fmt: skip
        top.set_title(label(stage.replace("_", " "), 24))
        bottom.set_xlabel("epoch")
        bottom.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # of a single epoch, too
    axes[0][0].set_ylabel("training loss")
    axes[1][0].set_ylabel(f"validation {metric}")
    # The star's legend entry is grey: it belongs to no seed.
    axes[1][0].plot([], [], linestyle="none", marker="*", markersize=13, color="0.4", label="chosen epoch")
    handles = [*axes[0][0].get_lines(), axes[1][0].get_lines()[-1]]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return save(figure, path, f"Training loss and validation {metric}", synthetic)


@styled
def figure_scatter(data: Mapping[str, ArrayLike], path: str | Path, synthetic: bool = False, seeds: int = 1) -> bool:
    """Predicted against true intensity of the test split, with the identity line.

    Args:
        data: ``{"prediction": [N], "truth": [N]}``; ``seeds`` of them may be joined end to end.
    """
    prediction, truth = (np.asarray(data[key], dtype=np.float64) for key in ("prediction", "truth"))
    if not len(truth):
        return False
    figure, axes = new_figure(1, 1, 6.2, 6.2)
    axis = axes[0][0]
    low, high = float(min(prediction.min(), truth.min())), float(max(prediction.max(), truth.max()))
    if low < 0 < high:
        low, high = min(low, -high), max(high, -low)
        axis.axhline(0, color="0.85", zorder=0)
        axis.axvline(0, color="0.85", zorder=0)
    margin = max(0.04 * (high - low), 1e-6)
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color=BLACK, linestyle="--", linewidth=1.2, label="prediction = truth")
    alpha = float(np.clip(300 / len(truth), 0.12, 0.6))
    many = len(truth) > MOST_MARKS
    axis.scatter(truth, prediction, s=26, color=BLUE, alpha=alpha, linewidths=0, rasterized=many)
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    axis.set_xlabel("true intensity")
    axis.set_ylabel("predicted intensity")
    axis.legend(loc="upper left", frameon=False)
    mae = np.abs(prediction - truth).mean()
    return save(figure, path, f"Test: prediction against truth ({_size(truth, seeds)}, MAE {mae:.3f})", synthetic)


@styled
def figure_confusion(
    data: Mapping[str, ArrayLike],
    path: str | Path,
    synthetic: bool = False,
    seeds: int = 1,
    classes: Sequence[str] = CLASS_NAMES,
) -> bool:
    """Confusion of the classes: each row's shares in colour, percent and counts in the cells.

    Of more than :data:`MOST_CLASSES` classes, the rarest are joined to one.

    Args:
        data: ``{"prediction": [N], "truth": [N]}``, classes 0 ... K-1, of ``seeds`` seeds end to end.
        classes: names of the K classes.
    """
    prediction, truth = (np.asarray(data[key], dtype=np.int64) for key in ("prediction", "truth"))
    if not len(truth):
        return False
    if len(classes) > MOST_CLASSES:
        kept = _most(np.bincount(truth, minlength=len(classes)), MOST_CLASSES - 1)
        number = np.full(len(classes), len(kept))
        number[kept] = np.arange(len(kept))
        truth, prediction = number[truth], number[prediction]
        classes = [*(classes[c] for c in kept), f"{len(classes) - len(kept)} others"]
    K = len(classes)
    counts = np.zeros((K, K), dtype=np.int64)
    np.add.at(counts, (truth, prediction), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(0.0, 0.7 * (K - 8))
    figure, axes = new_figure(1, 1, 7.6 + size, 6.6 + size)
    texts = [[f"{shares[i, j]:.0f} %\n{counts[i, j]}" if counts[i, j] else "" for j in range(K)] for i in range(K)]
    _heatmap(figure, axes[0][0], shares, texts, "share of the true class [%]")
    _class_ticks(axes[0][0].xaxis, "predicted class", classes)
    _class_ticks(axes[0][0].yaxis, "true class", classes)
    return save(figure, path, f"Test: confusion of the classes ({_size(truth, seeds)}; cells: share, count)", synthetic)


@styled
def figure_classes(
    data: Mapping[str, Any], path: str | Path, synthetic: bool = False, labels: Mapping[str, ArrayLike] | None = None
) -> bool:
    """F1 of each class on the test split; beside it, how many utterances each class has.

    Of more than :data:`MOST_CLASSES` classes, those with the most labels are shown.

    Args:
        data: ``{"class": [K], "F1": [K, S]}``: names, and scores of S seeds; bars are means with the range from least
            to most.
        labels: utterances of each class ``[K]``, by split.
    """
    names, scores = list(data["class"]), 100 * np.asarray(data["F1"], dtype=np.float64)
    counts = {split: np.asarray(found, dtype=np.int64) for split, found in (labels or {}).items()}
    if not names:
        return False
    total, whole = sum(counts.values(), np.zeros(len(names), dtype=np.int64)), len(names)
    kept = _most(total, MOST_CLASSES)
    names, scores = [names[c] for c in kept], scores[kept]
    figure, axes = new_figure(1, 2, 11.0, max(4.4, 1.4 + 0.42 * len(names)), sharey=True)
    left, right = axes[0]
    y, means = np.arange(len(names)), scores.mean(axis=1)
    ranges = np.stack([means - scores.min(axis=1), scores.max(axis=1) - means])
    left.barh(
        y, means, 0.7, xerr=ranges if scores.shape[1] > 1 else None, color=BLUE,
        error_kw={"ecolor": "0.35", "elinewidth": 1, "capsize": 3},
    )  # fmt: skip
    left.set_xlim(0, 105)
    left.set_xlabel("F1 on the test split [%]" + (" (mean, range)" if scores.shape[1] > 1 else ""))
    _class_ticks(left.yaxis, "class", names)
    left.invert_yaxis()
    height = 0.8 / max(1, len(counts))
    for index, (split, found) in enumerate(counts.items()):
        place = y + (index - (len(counts) - 1) / 2) * height
        right.barh(place, found[kept], 0.92 * height, color=(SKY, BLUE, ORANGE)[index % 3], label=split)
    right.set_xlabel("labeled utterances")
    right.xaxis.get_major_locator().set_params(integer=True)
    if counts:
        right.legend(loc="best", frameon=False)
    title = f"the {len(names)} most frequent of {whole} classes" if whole > len(names) else f"{whole} classes"
    return save(figure, path, f"Test: F1 by class ({title}, seeds: {scores.shape[1]})", synthetic)


@styled
def figure_gate(data: Mapping[str, ArrayLike], path: str | Path, synthetic: bool = False, seeds: int = 1) -> bool:
    """Histogram of the gate's mean per utterance, for each readout node: 0 is all intra, 1 all inter.

    Args:
        data: ``{"val": [N], "cls": [N]}``, values in [0, 1], of ``seeds`` seeds end to end; empty for a model without
            a gate.
    """
    gates = {name: np.asarray(values, dtype=np.float64) for name, values in data.items()}
    gates = {name: values for name, values in gates.items() if len(values)}
    if not gates:
        return False
    figure, axes = new_figure(1, 1, 8.0, 4.4)
    axis = axes[0][0]
    edges = np.linspace(0, 1, 41)
    for (name, values), colour, line in zip(gates.items(), (BLUE, RED), ("-", "--"), strict=False):
        weights = np.full(len(values), 100 / len(values))
        axis.hist(values, edges, weights=weights, color=colour, alpha=0.35)
        axis.hist(values, edges, weights=weights, color=colour, histtype="step", linewidth=1.6)
        axis.axvline(
            float(values.mean()), color=colour, linestyle=line, linewidth=2, label=f"{name}: mean {values.mean():.2f}"
        )
    axis.set_xlim(0, 1)
    axis.set_xlabel("gate, mean over channels (0 = all intra, 1 = all inter)")
    axis.set_ylabel("share of utterances [%]")
    axis.legend(title="readout node", frameon=False)
    size = _size(next(iter(gates.values())), seeds)
    return save(figure, path, f"Gate between intra- and inter-modal view ({size})", synthetic)


@styled
def figure_pseudo_labels(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    synthetic: bool = False,
    classes: Sequence[str] = CLASS_NAMES,
) -> bool:
    """Pseudo-labels kept per class and round; below, where true labels are known, the share that is right.

    Args:
        rows: ``{"seed", "round", "class", "kept", "right", "mean_confidence", "pool"}``: ``kept`` of
            the ``pool`` utterances got this class, ``right`` of them rightly (``None``: not known).
            Bars are means over seeds with the range from least to most.
        classes: names of the K classes; of more than :data:`MOST_CLASSES`, those with the most pseudo-labels are shown.
    """
    if not any(row["kept"] for row in rows):
        return False
    rounds = sorted({row["round"] for row in rows})
    seeds = {row["seed"] for row in rows}
    known = any(row["right"] is not None and row["kept"] for row in rows)
    total = np.bincount([r["class"] for r in rows], [r["kept"] for r in rows], len(classes))
    shown = _most(total, MOST_CLASSES)
    figure, axes = new_figure(1 + known, 1, 8.0, 6.6 if known else 4.2, sharex=True)
    width = 0.8 / len(rounds)
    for index, number in enumerate(rounds):
        x = np.arange(len(shown)) + (index - (len(rounds) - 1) / 2) * width
        colour = LINES[index % len(LINES)]
        cells = [[r for r in rows if r["round"] == number and r["class"] == k] for k in shown]
        kept = [[r["kept"] for r in cell] or [0] for cell in cells]
        means = np.array([np.mean(values) for values in kept])
        ranges = np.array([[m - min(v), max(v) - m] for m, v in zip(means, kept, strict=True)]).T
        axes[0][0].bar(
            x, means, 0.92 * width, yerr=ranges if len(seeds) > 1 else None, color=colour, label=f"round {number}",
            error_kw={"ecolor": "0.35", "elinewidth": 1, "capsize": 3},
        )  # fmt: skip
        if known:
            _right_bars(axes[1][0], x, width, cells, colour)
    pool = sorted({row["pool"] for row in rows})
    size = f"{pool[0]}" if len(pool) == 1 else f"{pool[0]} to {pool[-1]}"
    axes[0][0].set_ylabel("pseudo-labels kept" + ("\n(mean, range)" if len(seeds) > 1 else ""))
    if known:
        axes[1][0].set_ylim(0, 105)
        axes[1][0].set_ylabel("share right [%]")
        axes[0][0].plot([], [], linestyle="none", marker="D", color=BLACK, label="mean confidence [%]")
    _class_ticks(axes[-1][0].xaxis, "class of the pseudo-label", [classes[k] for k in shown])
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    return save(figure, path, f"Pseudo-labels (pool of {size} utterances, seeds: {len(seeds)})", synthetic)


@styled
def figure_calibration(
    data: Mapping[str, ArrayLike],
    path: str | Path,
    synthetic: bool = False,
    of: str = "class probabilities",
    seeds: int = 1,
    classes: Sequence[str] = CLASS_NAMES,
) -> bool:
    """Reliability of the class probabilities; beside it, accuracy by confidence for each predicted class.

    Args:
        data: ``{"probabilities": [N, K], "classes": [N]}`` of utterances whose true class is known.
        of: what is calibrated, for the title.
        seeds: how many seeds' predictions are joined end to end.
        classes: names of the K classes; of more than :data:`MOST_CLASSES`, those that are predicted most are shown.
    """
    truth = np.asarray(data["classes"], dtype=np.int64)
    if not len(truth):
        return False
    probabilities = np.asarray(data["probabilities"], dtype=np.float64)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    result = calibration(probabilities, truth)
    shown = _most(np.bincount(predicted, minlength=len(classes)), MOST_CLASSES)
    figure, axes = new_figure(1, 2, 11.0, max(5.2, 0.5 * len(shown)))
    left, right = axes[0]
    centers = [100 * (row.low + row.high) / 2 for row in result.bins]
    left.bar(centers, [100 * row.accuracy for row in result.bins], 9.2, color=SKY, label="accuracy")
    left.plot([0, 100], [0, 100], color=BLACK, linestyle="--", linewidth=1.2, label="accuracy = confidence")
    for x, row in zip(centers, result.bins, strict=True):
        left.annotate(f"{row.count}", (x, 1.5), ha="center", fontsize=10)
    left.set(xlim=(0, 100), ylim=(0, 100))
    left.set_xlabel("confidence [%] (numbers: predictions)")
    left.set_ylabel("accuracy [%]")
    left.set_title(f"Reliability (expected calibration error {100 * result.error:.1f} %)")
    figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside lower left", ncols=2, frameon=False)

    columns = ["up to 40", "40-60", "60-80", "80-100"]
    column = np.searchsorted([40, 60, 80], 100 * confidence)
    accuracy = np.full((len(shown), len(columns)), np.nan)
    texts = [["" for _ in columns] for _ in shown]
    for i, k in enumerate(shown):
        for b in range(len(columns)):
            if (cell := (predicted == k) & (column == b)).any():
                accuracy[i, b] = 100 * (truth[cell] == k).mean()
                texts[i][b] = f"{accuracy[i, b]:.0f} %\n{cell.sum()}"
    _heatmap(figure, right, accuracy, texts, "accuracy [%]")
    right.set_xticks(range(len(columns)), columns)
    right.set_xlabel("confidence [%]")
    _class_ticks(right.yaxis, "predicted class", [classes[k] for k in shown])
    right.set_title("Accuracy by confidence (cells: accuracy, count)")
    return save(figure, path, f"Calibration of the {of} ({_size(truth, seeds)})", synthetic)


def _size(joined: Sized, seeds: int) -> str:
    """How many utterances the predictions of some seeds are of, joined end to end."""
    if seeds > 1 and len(joined) % seeds:  # each seed has a pool of its own
        return f"{len(joined)} predictions of {seeds} seeds"
    count = len(joined) // seeds
    return f"{count} utterance{'s' * (count != 1)}" + (f" × {seeds} seeds" if seeds > 1 else "")


def _heatmap(
    figure: Figure, axis: Axes, percent: NDArray[np.floating], texts: Sequence[Sequence[str]], label: str
) -> None:
    image = axis.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.spines[:].set_visible(False)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            colour = "white" if percent[i, j] > 65 else BLACK
            axis.text(j, i, text, ha="center", va="center", fontsize=10, color=colour)
    figure.colorbar(image, ax=axis, label=label, shrink=0.9)


def _class_ticks(axis: XAxis | YAxis, title: str, classes: Sequence[str]) -> None:
    names = [label(name, _LONGEST_CLASS) for name in classes]
    axis.set_ticks(range(len(names)), names)
    if axis.axis_name == "x" and sum(map(len, names)) > 60:  # they would overlap
        for text in axis.get_ticklabels():
            text.set(rotation=40, ha="right", rotation_mode="anchor")
    axis.set_label_text(title)


def _most(counts: NDArray[Any], most: int) -> list[int]:
    """The classes with the largest counts, at most ``most``, in the order of their numbers."""
    return sorted(np.argsort(-counts, kind="stable")[:most].tolist())


def _right_bars(
    axis: Axes, x: NDArray[np.floating], width: float, cells: Sequence[Sequence[Mapping[str, Any]]], colour: str
) -> None:
    """Share right over all seeds, as bars, and mean confidence, as diamonds, of one round's classes."""
    for position, cell in zip(x, cells, strict=True):
        kept = [row for row in cell if row["kept"] and row["right"] is not None]
        if not kept:
            continue
        total = sum(row["kept"] for row in kept)
        axis.bar(position, 100 * sum(row["right"] for row in kept) / total, 0.92 * width, color=colour)
        confidence = sum(row["kept"] * row["mean_confidence"] for row in kept) / total
        axis.plot(position, 100 * confidence, marker="D", markersize=6, color=BLACK, markeredgecolor="white")
