"""Runs an ablation: checks every variant, trains the cells that are not done, compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch_geometric.data import HeteroData

from gmsa.ablation.cells import Cell, CellKey, Record, run_cells
from gmsa.ablation.comparison import ablation_summary, write_comparison
from gmsa.ablation.variants import Variant
from gmsa.config import Config
from gmsa.data import Corpus, Utterance
from gmsa.data.splits import SPLITS, fold_names
from gmsa.errors import RunError
from gmsa.graph import build_dialogue_graph, build_graph, collate, dialogues_of
from gmsa.models import build_model, graph_spec
from gmsa.reports.ablation import markdown_rows, unfinished
from gmsa.reports.pages.run import PAGE
from gmsa.reports.summary import SCORED_SPLITS, SYNTHETIC_NOTE
from gmsa.runs.environment import describe_files
from gmsa.runs.prepare import check_fits, prepare, reading
from gmsa.system.console import console, progress_bar
from gmsa.system.device import set_up
from gmsa.system.files import check_out_parts
from gmsa.system.reading import entries, is_folder

MEASURED = 200
"""Utterances, at most, over which the size of a variant's graphs is averaged."""


def ablate(
    variants: Sequence[Variant],
    name: str,
    out: Path,
    jobs: int = 1,
    folds: int | None = None,
    only: Container[str] | None = None,
) -> bool:
    """Trains the unfinished cells, then compares the variants; returns whether all cells are done.

    Args:
        only: names of the variants that are trained; of the others the comparison has what is done already. By default
            all.
        folds: parts of cross-validation, as the variants' ``data.split.folds`` says; each is the test split in turn.

    Raises:
        GmsaError: a variant, the data or the folder is wrong; before any training.
    """
    check_out_parts(out, "cells", "figures")
    if entries(out) and not is_folder(out / "cells"):
        raise RunError(f"'{out}' is not empty and holds no ablation; give another --out")
    seeds = variants[0].config.run.seeds
    cells = [
        Cell(variant, seed, folder_of(out, variant, fold, seed), fold=fold)
        for seed in seeds
        for fold in (range(folds) if folds else [None])
        for variant in variants
    ]
    set_up(variants[0].config.run)
    done = {cell.folder: cell.done for cell in cells}
    left_out = {
        cell.key: cell.not_run()
        for cell in cells
        if only is not None and cell.variant.name not in only and not done[cell.folder]
    }
    for cell in cells:
        if not done[cell.folder] and cell.key not in left_out:
            cell.check_out()
    cells, facts, dialogues = check_cells(cells, left_out)
    records = {c.key: c.record() or {} for c in cells if done[c.folder]}
    waiting = [c for c in cells if not done[c.folder] and c.key not in left_out]
    count = len(records) + len(waiting)

    parts = [f"{len(variants)} variants", *([f"{folds} folds"] if folds else []), f"{len(seeds)} seeds"]
    parts += [f"{count} cells", f"{len(records)} of them done", *([f"{len(left_out)} left out"] if left_out else [])]
    console().print(f"{name}: {', '.join(parts)}; {out}")
    mark = ""
    if facts["synthetic"]:
        console().print(f"{'=' * 79}\n{SYNTHETIC_NOTE}\n{'=' * 79}")
        mark = "synthetic: "
    with progress_bar("cells", count, len(records)) as bar:

        def ended(cell: Cell, record: Record) -> None:
            records[cell.key] = record
            bar.advance()
            what = f"failed: {record.get('reason')}"
            if record["state"] == "done":
                select = cell.config.select
                what = f"valid {select} {record['valid'][select]:.4f}, {record['train_seconds']:.1f} s"
            console().print(f"{mark}{len(records)}/{count} cells: {cell.variant.name}, {cell.place}: {what}")

        try:
            run_cells(waiting, jobs, ended)
        except KeyboardInterrupt:
            ended_well = sum(record["state"] == "done" for record in records.values())
            console().print(
                f"Interrupted; {ended_well} of {count} cells are done. Run the same command again to resume."
            )
            raise
    records |= left_out
    comparison = ablation_summary(name, variants, cells, records, facts, dialogues)
    written = write_comparison(out, comparison, variants, cells, records)
    console().print(f"\n{markdown_rows(comparison)}")
    if left_out:
        console().print(f"{' '.join(unfinished(comparison))}\n")
    console().print(f"Ablation folder: {out}")
    if written:
        console().print(f"Report: {out / PAGE}")
    return all(record["state"] == "done" for record in records.values())


def folder_of(out: Path, variant: Variant, fold: int | None, seed: int) -> Path:
    """The run folder of a cell in the folder of an ablation."""
    return out / "cells" / variant.slug / ("" if fold is None else f"fold-{fold}") / f"seed-{seed}"


def check_cells(
    cells: Sequence[Cell], left_out: Container[CellKey] = ()
) -> tuple[list[Cell], dict[str, Any], dict[str, str]]:
    """Checks every cell against its folder, the data, its graphs and its model, before anything is trained.

    Returns the cells with the size of their graphs, and ``synthetic`` and ``data_sha256`` of the data, and the
    ``classes`` of its target, if any; with cross-validation also its ``folds``: how their parts are made, and their
    sizes. Then the dialogue of each id that is scored, where a variant has graphs of dialogues.

    Args:
        left_out: cells that are neither done nor trained now, which are not checked.

    Raises:
        GmsaError: names what does not fit.
    """
    # Variants that read the same data share one copy; one copy at a time is held in memory.
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if cell.key not in left_out:
            groups.setdefault(reading(cell.config), []).append(cell)
    found: dict[CellKey, Cell] = {}
    parts: dict[int, dict[str, Any]] = {}
    facts: dict[str, Any] = {}
    dialogues: dict[str, str] = {}
    has_dialogues = any(cell.config.graph.has_dialogues for cell in cells)
    for members in groups.values():
        prepared = prepare(members[0].config)
        corpus = prepared.corpus
        if not facts:  # of the first, which is the reference's where that is not left out
            facts = {"synthetic": corpus.synthetic, "data_sha256": corpus.sha256}
            facts |= {"classes": list(corpus.target.classes)} if corpus.target.is_classes else {}
        if members[0].fold is not None:
            parts.setdefault(members[0].fold, describe_fold(members[0].fold, corpus))
        if has_dialogues:
            dialogues |= {u.id: u.video for split in SCORED_SPLITS for u in corpus.splits[split]}
        files = describe_files(members[0].config, corpus)
        sizes: dict[str, dict[str, Any]] = {}
        for cell in members:
            cell.check(files)
            prepared.training_data(cell.config, cell.seed)
            if not cell.done and cell.variant.name not in sizes:
                check_fits(corpus, cell.config)
                build_model(dict(corpus.dims), cell.config)
                train = prepared.splits["train"]
                sizes[cell.variant.name] = graph_size(train, cell.config) | {
                    "stream_edges": stream_edges(train, cell.config)
                }
            graph = sizes.get(cell.variant.name, {})
            found[cell.key] = replace(cell, graph=graph)
    if parts:
        split = cells[0].config.data.split
        facts["folds"] = {"by": split.by, "seed": split.seed, "parts": [parts[fold] for fold in sorted(parts)]}
    return [found.get(cell.key, cell) for cell in cells], facts, dialogues


def describe_fold(fold: int, corpus: Corpus) -> dict[str, Any]:
    """Number of a fold, the name that the file gives its test part, if any, and how many utterances each split has."""
    names = fold_names(corpus.splits["test"])
    sizes = {split: len(corpus.splits[split]) for split in SPLITS}
    return {"fold": fold, **({"name": names[0]} if len(names) == 1 else {}), **sizes}


def graph_size(utterances: Sequence[Utterance], config: Config) -> dict[str, float]:
    """Mean ``nodes`` and ``edges`` per utterance of its graph, its dialogue's, or both; edges of all relations.

    Taken over every n-th utterance, or every n-th dialogue, so that about ``MEASURED`` utterances are looked at.
    """
    chosen, strides = measured(utterances, config), graph_spec(config).strides
    graphs: list[HeteroData] = []
    if config.graph.scope != "dialogue":
        graphs += [build_graph(u, config.graph.inside, strides) for group in chosen for u in group]
    if config.graph.has_dialogues:
        graphs += [build_dialogue_graph(group, config.graph) for group in chosen]
    count = sum(map(len, chosen))
    return {
        "nodes": sum(g.num_nodes for g in graphs) / count,
        "edges": sum(g[relation].num_edges for g in graphs for relation in g.edge_types) / count,
    }


def stream_edges(utterances: Sequence[Utterance], config: Config) -> dict[str, float]:
    """Mean edges per utterance that the model reads, by stream, of both levels; over the same utterances.

    Counted in the batches that the model takes: a stream that it does not read is left out, and an edge of readout
    nodes that is in two relations counts once where one stream reads both.
    """
    chosen, spec = measured(utterances, config), graph_spec(config)
    found: Counter[str] = Counter()
    for group in chosen:
        batch = collate(group, spec)
        for level in (batch, *([batch.dialogues] if batch.dialogues else [])):
            found.update({stream: level.edge_index(stream).shape[1] for stream in level.edges})
    return {stream: edges / sum(map(len, chosen)) for stream, edges in found.items()}


def measured(utterances: Sequence[Utterance], config: Config) -> list[list[Utterance]]:
    """The utterances whose graphs are measured, each alone or in its whole dialogue."""
    step = -(-len(utterances) // MEASURED)
    if config.graph.has_dialogues:
        return [[utterances[i] for i in group] for group in dialogues_of(utterances)[::step]]
    return [[u] for u in utterances[::step]]
