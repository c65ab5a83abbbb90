"""What gmsa reaches on each corpus, side by side: from runs of its own and from the other files of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
INTENSITY = ("valid MAE", "test MAE", "test Corr")
COLUMNS = {
    "CMU-MOSI": (*INTENSITY, "Non0 acc-2", "acc-7"),
    "ICT-MMMO": INTENSITY,
    "CH-SIMS v2, text": (*INTENSITY, "acc-2", "acc-3"),
    "MELD, emotions": ("valid weighted F1", "test weighted F1", "test accuracy"),
}
"""The scores of each corpus; all but MAE and Corr in percent."""
METRICS = {
    "MAE": "MAE",
    "Corr": "Corr",
    "Non0 acc-2": "Non0_acc_2",
    "acc-7": "Mult_acc_7",
    "acc-2": "Mult_acc_2",
    "acc-3": "Mult_acc_3",
    "weighted F1": "weighted_F1",
    "accuracy": "accuracy",
}
"""What the columns are called in ``summary.json``."""


@dataclass(frozen=True)
class Row:
    """A row of a corpus: how something was trained, and where its scores stand."""

    corpus: str
    trained: str
    """What was learned from, and by which protocol."""
    features: str
    source: str
    """A run of this result, or ``FILE.md``."""
    label: str = ""
    """First cell of the row in that file."""
    after: str = ""
    """Text of the file, after which the row stands."""
    seeds: int = 5
    """How many that file has; a run says it itself."""


MOSI, MMMO, SIMS, MELD = COLUMNS
OWN, LOOP = "of the file", "MiniLM in the loop"
HALF = "half of the modalities missing (`eta:0.5`)"
DISTILLED = "{} of the labels, the rest as pool, `distillation`"
ROWS = (
    Row(MOSI, "all labels", OWN, "text_encoder_mosi.md", "features of the file"),
    Row(MOSI, "all labels", LOOP, "text_encoder_mosi.md", "full"),
    Row(MOSI, "all labels, text alone", LOOP, "text_encoder_mosi.md", "full, text alone"),
    Row(MOSI, "all labels, with context", OWN, "context_mosi.md", "hierarchical", "## all labels, complete"),
    Row(MOSI, "all labels, with context", LOOP, "text_encoder_mosi.md", "full, with context"),
    Row(MOSI, DISTILLED.format("1/4"), OWN, "few_labels.md", "distillation", "With 1/4"),
    Row(MOSI, DISTILLED.format("1/4"), LOOP, "few_labels_text.md", "distillation", "With 0.25"),
    Row(MOSI, DISTILLED.format("1/8"), OWN, "few_labels.md", "distillation", "With 1/8"),
    Row(MOSI, DISTILLED.format("1/8"), LOOP, "few_labels_text.md", "distillation", "With 0.125"),
    Row(MOSI, f"all labels, {HALF}", OWN, "context_mosi.md", "utterance", "## all labels, eta 0.5"),
    Row(MOSI, f"all labels, {HALF}", LOOP, "mosi_missing"),
    Row(MOSI, f"all labels, with context, {HALF}", OWN, "context_mosi.md", "hierarchical", "## all labels, eta 0.5"),
    Row(MMMO, "all labels", OWN, "mmmo"),
    Row(MMMO, f"all labels, {HALF}", OWN, "mmmo_missing"),
    Row(SIMS, "all labels", OWN, "sims2"),
    Row(SIMS, "all labels", LOOP, "sims2_text"),
    Row(SIMS, DISTILLED.format("1/4"), OWN, "few_labels_sims2.md", "distillation", "With 0.25"),
    Row(SIMS, DISTILLED.format("1/4"), LOOP, "few_labels_sims2_text.md", "distillation", "With 0.25"),
    Row(SIMS, DISTILLED.format("1/8"), OWN, "few_labels_sims2.md", "distillation", "With 0.125"),
    Row(SIMS, DISTILLED.format("1/8"), LOOP, "few_labels_sims2_text.md", "distillation", "With 0.125"),
    Row(MELD, "all labels", OWN, "models_meld.md", "semi_iin, no context", seeds=3),
    Row(MELD, "all labels", LOOP, "meld_text"),
    Row(MELD, "all labels, with context", OWN, "models_meld.md", "semi_iin", seeds=3),
)


def corpora(folder: Path, output: str) -> str:
    """A table per corpus; each row names the result that measures it anew."""
    parts = []
    for corpus, columns in COLUMNS.items():
        lines = [["learned from", "features of text", *columns, "seeds", "result"]]
        lines.append([":--", ":--", *["--:"] * len(columns), "--:", ":--"])
        for row in (row for row in ROWS if row.corpus == corpus):
            of_file = row.source.endswith(".md")
            scores = _of_file(row, columns) if of_file else _of_run(folder / row.source, columns)
            name = row.source.removesuffix(".md") if of_file else "corpora"
            lines.append([row.trained, row.features, *scores, f"`{name}`"])
        parts.append(f"## {corpus}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


def _of_run(run: Path, columns: Sequence[str]) -> list[str]:
    """Scores and number of seeds of a run."""
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    cells = []
    for column in columns:
        split = "valid" if column.startswith("valid") else "test"
        name = column.removeprefix("valid ").removeprefix("test ")
        values = found[split][METRICS[name]]
        scale, digits = (1, 3) if name in ("MAE", "Corr") else (100, 1)
        mean, spread = (f"{scale * values[part]:.{digits}f}" for part in ("mean", "std"))
        cells.append(f"{mean} ± {spread}" if len(found["seeds"]) > 1 else mean)
    return [*cells, str(len(found["seeds"]))]


def _of_file(row: Row, columns: Sequence[str]) -> list[str]:
    """The same of a row of another result.

    Raises:
        ValueError: the file has no such row.
    """
    found = row_in((RESULTS / row.source).read_text(encoding="utf-8"), row.label, row.after)
    cells = []
    for column in columns:
        cell = next((found[name] for name in _names(column) if name in found), "")
        if cell and column.split()[-1] not in ("MAE", "Corr") and float(cell.split()[0]) <= 1:  # not in percent there
            cell = " ± ".join(f"{100 * float(x):.1f}" for x in cell.split(" ± "))
        cells.append(cell)
    return [*cells, str(row.seeds)]


def _names(column: str) -> list[str]:
    """What a column is called in one file or another."""
    name = column.removeprefix("test ")
    return [column, name, f"test {name}", f"test {METRICS.get(name, name)}", METRICS.get(name, name)]


def row_in(text: str, label: str, after: str = "") -> Mapping[str, str]:
    """The cells of the first row by that label, by their headers; bold counts for nothing.

    Raises:
        ValueError: there is no such row.
    """
    header: list[str] = []
    before = ""
    for line in text[text.index(after) :].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").replace("**", "").split("|")]
        if set(line) <= set("|:- ") and line.startswith("|"):
            header = [cell.strip() for cell in before.strip().strip("|").split("|")]
        elif header and cells[0].partition(" (`")[0] == label:
            return dict(zip(header, cells, strict=False))
        before = line
    raise ValueError(f"no row '{label}' after '{after}'")
