"""What a figure shows in words, and whether it can be read."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def no_overlap(figure: Figure) -> None:
    """Checks that no two texts of a figure overlap, and that all are inside it."""
    figure.draw_without_rendering()
    shown = [t for axes in figure.axes for t in axes.texts if t.get_text()] + figure.axes[0].get_legend().get_texts()
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown]
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        upward = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= 1 or upward <= 1, (one, other)
