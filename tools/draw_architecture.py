"""Draws Semi-IIN as gmsa builds it, as PNG and beside it as SVG: ``python tools/draw_architecture.py OUT.png``."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from gmsa.figures.canvas import BLUE, GREEN, ORANGE, PURPLE, RED, write_figure

GREY = "#555555"


def main() -> None:
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 130), ylim=(0, 52))
    axis.axis("off")

    def box(x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 9.5) -> None:
        shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.3", fc=colour + "22", ec=colour, lw=1.4)
        axis.add_patch(shape)
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(x0: float, y0: float, x1: float, y1: float) -> None:
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.1})

    rows = {"text": (38, BLUE), "audio": (24, ORANGE), "vision": (10, GREEN)}
    for name, (y, colour) in rows.items():
        box(0.5, y, 16, 8, f"{name}\nsteps $[L, D]$\nor missing", colour)
        box(22, y, 17, 8, "Conv1D\n+ type + position", colour)
        arrow(17.2, y + 4, 21.5, y + 4)
        arrow(39.7, y + 4, 45.2, 27.5 + (y - 24) * 0.35)
    box(46, 14, 17, 26, "graph of one\nutterance\n\nnodes: tokens,\n$val$, $cls$\n\nintra and inter\nedges", GREY)
    box(70, 33, 22, 11, "intra stream\nattention within a modality\n$n$ layers, shared weights", RED)
    box(70, 10, 22, 11, "inter stream\nattention across modalities\n$n$ layers, shared weights", PURPLE)
    arrow(63.7, 31, 69.4, 37)
    arrow(63.7, 23, 69.4, 17)
    box(98, 29, 12, 10, "gate\nat $val$", GREY)
    box(98, 14, 12, 10, "gate\nat $cls$", GREY)
    for y in (36, 21):
        arrow(92.7, 38, 97.4, y)
        arrow(92.7, 16, 97.4, y - 4)
    box(115, 29, 14, 10, "MLP\nintensity $v$", BLUE)
    box(115, 14, 14, 10, "MLP\n7 classes $e$", BLUE)
    arrow(110.7, 34, 114.4, 34)
    arrow(110.7, 19, 114.4, 19)
    axis.text(
        65,
        2.5,
        "Self-training: the model labels the unlabeled pool by $e$ and learns on with the most confident per class.\n"
        "Distillation: a new student learns $v$ and $e$ of several teachers on the whole pool.",
        ha="center",
        va="center",
        fontsize=9.5,
        color=GREY,
    )
    write_figure(figure, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
