"""Scores a finished run again, or on another file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmsa.config.missing import Missing
from gmsa.data import Corpus, describe_missing, load_corpus
from gmsa.data.loading import data_sha256
from gmsa.errors import RunError
from gmsa.reports.run import markdown_table, write_summary
from gmsa.reports.summary import summarize
from gmsa.runs.folder import Run, finished_seeds, open_run
from gmsa.runs.prepare import hide, leave_out_unseen
from gmsa.system.device import set_up
from gmsa.system.files import check_out_folder, write_text
from gmsa.training.scoring import Predictions, predict, predictions_csv


def evaluate(
    folder: str | Path,
    data: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    device: str | None = None,
    out: Path | None = None,
) -> str:
    """Scores a run's models on its own validation and test split, or on all of another labeled file.

    On the run's own data, with its device and library versions, the numbers are exactly those of its
    summary. Returns the table as Markdown, and writes it with the predictions into ``out`` if given.

    Raises:
        RunError: the folder is not a run, or its data file is not the one that it was trained on.
        DataError: the file is missing, unsafe or wrong.
    """
    if out is not None:
        check_no_run(out)
    run = open_run(folder)
    where = set_up(run.config.run, device)
    chosen = finished_seeds(run, seeds)
    splits, missing, synthetic, sha256 = _material(run, data)
    parts: list[dict[str, Predictions]] = []
    parameters = 0
    for seed in chosen:
        model = run.model(seed, where)
        parameters = sum(p.numel() for p in model.parameters())
        parts.append({name: predict(model, utterances, run.config, where) for name, utterances in splits.items()})
    scores = {name: [part[name].metrics(run.config) for part in parts] for name in splits}
    summary = summarize(
        name=run.name,
        dataset=run.config.data.name if data is None else Path(data).stem,
        synthetic=synthetic,
        data_sha256=sha256,
        seeds=chosen,
        model=run.config.model.name,
        protocol=run.config.protocol.name,
        parameters=parameters,
        train_seconds=[run.train_seconds(seed) for seed in chosen],
        valid=scores.get("valid", ()),
        test=scores["test"],
        missing=missing,
        label_ratio=run.config.data.label_ratio,
        init_from=run.config.protocol.init_from,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_summary(out, summary)
        for seed, part in zip(chosen, parts, strict=True):
            write_text(out / f"predictions-{seed}.csv", predictions_csv(part.items()))
    return markdown_table([summary])


def check_no_run(out: Path) -> None:
    """Checks that a folder can be written to, and that no run is there.

    Raises:
        RunError: it cannot, or there is one.
    """
    check_out_folder(out)
    if (out / "config.yaml").exists():
        raise RunError(f"cannot write into '{out}': it holds a run, whose summary would be lost; name another --out")


def own_corpus(run: Run) -> Corpus:
    """The corpus that a run was trained on, features as the file has them.

    Raises:
        RunError: its data file is not the one that it was trained on.
        DataError: the file is missing, unsafe or wrong.
    """
    settings = run.config.data
    if run.synthetic:
        settings = replace(settings, path="synthetic")
    corpus = load_corpus(settings)
    trained_on = run.environment["data_sha256"]
    if corpus.sha256 != trained_on:
        raise RunError(
            f"'{settings.path}' is not the file that '{run.folder}' was trained on (SHA-256 {corpus.sha256[:12]}…, "
            f"was {trained_on[:12]}…); put that file back, or score this one with --data"
        )
    return corpus


def _material(run: Run, data: str | Path | None) -> tuple[dict[str, Any], dict[str, Any], bool, str]:
    """Splits to score, what they miss, whether they are synthetic, and the file's SHA-256."""
    if data is not None:
        utterances = run.read(data, require_labels=True)
        record = describe_missing(utterances, utterances, Missing("none"), [*run.dims])
        return {"test": utterances}, {"test": record}, False, data_sha256(data)
    whole, missing = own_corpus(run), run.config.data.missing
    masked = hide(whole, missing)
    corpus, _ = leave_out_unseen(masked)
    splits, records = {}, {}
    for s in ("valid", "test"):
        splits[s] = [run.normalizer.apply(u) for u in corpus.splits[s]]
        records[s] = describe_missing(whole.splits[s], masked.splits[s], missing.of(s), [*whole.dims])
    return splits, records, corpus.synthetic, corpus.sha256
