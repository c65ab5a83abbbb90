"""Made-up results of ablations and studies, and what a page shows of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from gmsa.metrics import COLUMNS
from gmsa.reports.summary import spread


def comparison_of(
    names: Sequence[str],
    failed: Sequence[str] = (),
    values: Sequence[float] = (),
    best_first: bool = False,
    metrics: str = "mosi",
) -> dict[str, Any]:
    """The content of an ablation's ``summary.json``: the first name is the reference, and the last one the best."""
    select = "weighted_F1" if metrics == "classes" else "MAE"
    rows: list[dict[str, Any]] = []
    order = list(enumerate(names)) if best_first else list(enumerate(names))[::-1]
    for rank, (place, name) in enumerate(order, 1):
        folder = f"cells/{name if name.isalpha() else place}"
        row: dict[str, Any] = {
            "rank": rank, "setting": name, "reference": place == 0, "folder": folder,
            "values": {"optim.lr": values[place]} if values else {"model.fusion": name}, "failed": {},
            "parameters": 1000 + place, "train_seconds": spread([1.0, 2.0]), "nodes": 9.5, "edges": 20.0 + place,
            "seconds_per_epoch": 0.5 + place, "peak_memory_mb": 500.0 + place,
        }  # fmt: skip
        for split, worse in (("valid", 0.0), ("test", 0.1)):
            score = 0.5 + 0.01 * rank + worse
            row[split] = {metric: spread([score, score + 0.02]) for metric in COLUMNS[metrics]}
        if place:
            row["difference"] = {
                split: {
                    "difference": -0.01 * place - shift,
                    "low": -0.05,
                    "high": 0.04,
                    "p": 0.2 + shift,
                    "p_holm": 0.25 + shift,
                }
                for split, shift in (("valid", 0.0), ("test", 0.005))
            }
        rows.append(row)
    for name in failed:
        rows.append(
            {"rank": None, "setting": name, "reference": False, "folder": "cells/failed",
             "values": {"model.fusion": name}, "failed": {"1": "the loss is not finite"}}
        )  # fmt: skip
    return {
        "name": "small", "dataset": "tiny", "labels": metrics, "synthetic": False, "data_sha256": "0" * 64,
        "seeds": [1, 2], "select": select, "reference": names[0] if names else failed[0],
        "chosen": rows[0]["setting"] if names else None, "rows": rows,
    }  # fmt: skip


def plots_of(page: str) -> list[dict[str, Any]]:
    """The interactive figures of a page."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]


def tables_of(page: str) -> list[list[list[str]]]:
    """The tables of a page, as lines of cells."""
    reader = _Tables()
    reader.feed(page)
    reader.close()
    return reader.tables


class _Tables(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[str]]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data
