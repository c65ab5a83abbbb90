"""Runs an ablation: checks every variant, trains the cells that are not done, compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmsa.ablation.cells import Cell, Record, run_cells
from gmsa.ablation.comparison import ablation_summary, write_comparison
from gmsa.ablation.variants import Variant
from gmsa.config import Config, DataConfig, TargetConfig
from gmsa.data import Utterance
from gmsa.errors import RunError
from gmsa.graph import build_graph, build_video_graph
from gmsa.models import build_model, graph_spec
from gmsa.reports.ablation import markdown_rows
from gmsa.reports.pages.run import PAGE
from gmsa.reports.summary import SYNTHETIC_NOTE
from gmsa.runs.environment import describe_files
from gmsa.runs.prepare import check_fits, prepare, reading
from gmsa.system.console import console, progress_bar
from gmsa.system.device import set_up
from gmsa.system.files import check_out_parts
from gmsa.system.reading import entries, is_folder

MEASURED = 200
"""Utterances, at most, over which the size of a variant's graphs is averaged."""


def ablate(variants: Sequence[Variant], name: str, out: Path, jobs: int = 1) -> bool:
    """Trains the unfinished cells, then compares the variants; returns whether all cells are done.

    Raises:
        GmsaError: a variant, the data or the folder is wrong; before any training.
    """
    check_out_parts(out, "cells", "figures")
    if entries(out) and not is_folder(out / "cells"):
        raise RunError(f"'{out}' is not empty and holds no ablation; give another --out")
    seeds = variants[0].config.run.seeds
    cells = [Cell(s, seed, out / "cells" / s.slug / f"seed-{seed}") for seed in seeds for s in variants]
    set_up(variants[0].config.run)
    done = {cell.folder: cell.done for cell in cells}
    for cell in cells:
        if not done[cell.folder]:
            cell.check_out()
    cells, facts = check_cells(cells)
    records = {(c.variant.name, c.seed): c.record() or {} for c in cells if done[c.folder]}
    waiting = [c for c in cells if not done[c.folder]]

    console().print(
        f"{name}: {len(variants)} variants, {len(seeds)} seeds, {len(cells)} cells, {len(records)} of them done; {out}"
    )
    mark = ""
    if facts["synthetic"]:
        console().print(f"{'=' * 79}\n{SYNTHETIC_NOTE}\n{'=' * 79}")
        mark = "synthetic: "
    with progress_bar("cells", len(cells), len(records)) as bar:

        def ended(cell: Cell, record: Record) -> None:
            records[cell.variant.name, cell.seed] = record
            bar.advance()
            what = f"failed: {record.get('reason')}"
            if record["state"] == "done":
                select = cell.config.select
                what = f"valid {select} {record['valid'][select]:.4f}, {record['train_seconds']:.1f} s"
            where = f"{cell.variant.name}, seed {cell.seed}"
            console().print(f"{mark}{len(records)}/{len(cells)} cells: {where}: {what}")

        try:
            run_cells(waiting, jobs, ended)
        except KeyboardInterrupt:
            ended_well = sum(record["state"] == "done" for record in records.values())
            console().print(
                f"Interrupted; {ended_well} of {len(cells)} cells are done. Run the same command again to resume."
            )
            raise
    comparison = ablation_summary(name, variants, cells, records, facts)
    written = write_comparison(out, comparison, variants, cells, records)
    console().print(f"\n{markdown_rows(comparison)}\nAblation folder: {out}")
    if written:
        console().print(f"Report: {out / PAGE}")
    return all(record["state"] == "done" for record in records.values())


def check_cells(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, Any]]:
    """Checks every cell against its folder, the data, its graphs and its model, before anything is trained.

    Returns the cells with the size of their graphs, and ``synthetic`` and ``data_sha256`` of the data.

    Raises:
        GmsaError: names what does not fit.
    """
    # Variants that read the same data share one copy; one copy at a time is held in memory.
    groups: dict[tuple[DataConfig, TargetConfig], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(reading(cell.config), []).append(cell)
    found: dict[tuple[str, int], Cell] = {}
    facts: dict[str, Any] = {}
    for members in groups.values():
        prepared = prepare(members[0].config)
        corpus = prepared.corpus
        facts = facts or {"synthetic": corpus.synthetic, "data_sha256": corpus.sha256}  # the reference's
        files = describe_files(members[0].config, corpus)
        sizes: dict[str, dict[str, float]] = {}
        for cell in members:
            cell.check(files)
            prepared.training_data(cell.config, cell.seed)
            if not cell.done and cell.variant.name not in sizes:
                check_fits(corpus, cell.config)
                build_model(dict(corpus.dims), cell.config)
                sizes[cell.variant.name] = graph_size(prepared.splits["train"], cell.config)
            graph = sizes.get(cell.variant.name, {})
            found[cell.variant.name, cell.seed] = replace(cell, graph=graph)
    return [found[cell.variant.name, cell.seed] for cell in cells], facts


def graph_size(utterances: Sequence[Utterance], config: Config) -> dict[str, float]:
    """Mean ``nodes`` and ``edges`` per utterance of its, or its video's, graph; edges of all relations, readouts' too.

    Taken over every n-th utterance, or every n-th video, so that about ``MEASURED`` utterances are looked at.
    """
    step = -(-len(utterances) // MEASURED)
    if config.graph.scope == "video":
        videos: dict[str, list[Utterance]] = {}
        for utterance in utterances:
            videos.setdefault(utterance.video, []).append(utterance)
        chosen = list(videos.values())[::step]
        graphs, count = [build_video_graph(video, config.graph) for video in chosen], sum(map(len, chosen))
    else:
        graphs = [build_graph(u, config.graph, graph_spec(config).strides) for u in utterances[::step]]
        count = len(graphs)
    return {
        "nodes": sum(g.num_nodes for g in graphs) / count,
        "edges": sum(g[relation].num_edges for g in graphs for relation in g.edge_types) / count,
    }
