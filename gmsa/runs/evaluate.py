"""Scores a finished run again, on its own data or on another file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmsa.config import SYNTHETIC
from gmsa.config.missing import Missing
from gmsa.data import Corpus, Target, describe_missing, load_corpus, load_utterances
from gmsa.data.loading import data_sha256
from gmsa.errors import RunError
from gmsa.reports.run import markdown_table, write_summary
from gmsa.reports.summary import summarize
from gmsa.runs.folder import Run, as_run
from gmsa.runs.prepare import hide, leave_out_unseen
from gmsa.system.device import set_up
from gmsa.system.files import check_out_parts, make_folder, write_text
from gmsa.system.reading import exists
from gmsa.training.scoring import Predictions, predict_utterances, predictions_csv


class Scores(dict[str, Any]):
    """The scores of an evaluation: the content of ``summary.json`` or ``robustness.json``, printed as its table."""

    def __init__(self, content: Mapping[str, Any], table: str) -> None:
        super().__init__(content)
        self._table = table

    def to_markdown(self) -> str:
        """The table, in Markdown."""
        return self._table

    def __repr__(self) -> str:
        return self._table

    def _repr_markdown_(self) -> str:
        return self._table


def evaluate(
    run: Run | str | Path,
    data: str | Path | None = None,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    out: Path | None = None,
) -> Scores:
    """Scores a run's models on its own validation and test split, or on all of another labeled file.

    On the run's own data, with its device and library versions, the numbers are exactly those of its
    summary. Writes the table and the predictions into ``out`` if given.

    Raises:
        RunError: the folder is not a run, or its data file is not the one that it was trained on.
        DataError: the file is missing, unsafe or wrong.
    """
    if out is not None:
        check_no_run(out)
    run = as_run(run)
    where = set_up(run.config.run, device)
    chosen = run.chosen_seeds(seeds)
    # All that can fail comes before the scoring, which may take hours.
    models = [run.load_model(seed, where) for seed in chosen]
    seconds = [run.train_seconds(seed) for seed in chosen]
    splits, missing, synthetic, sha256 = _splits(run, data)
    parts: list[dict[str, Predictions]] = [
        {name: predict_utterances(model, given, run.config, where) for name, given in splits.items()}
        for model in models
    ]
    scores = {name: [part[name].metrics(run.config) for part in parts] for name in splits}
    summary = summarize(
        name=run.name,
        dataset=run.config.data.name if data is None else Path(data).stem,
        synthetic=synthetic,
        data_sha256=sha256,
        seeds=chosen,
        model=run.config.model.name,
        protocol=run.config.protocol.name,
        parameters=sum(p.numel() for p in models[-1].parameters()),
        train_seconds=seconds,
        valid=scores.get("valid", ()),
        test=scores["test"],
        missing=missing,
        label_ratio=run.config.data.label_ratio,
        init_from=run.config.protocol.init_from,
    )
    if out is not None:
        make_folder(out)
        write_summary(out, summary)
        for seed, part in zip(chosen, parts, strict=True):
            write_text(out / f"predictions-{seed}.csv", predictions_csv(part.items()))
    return Scores(summary, markdown_table([summary]))


def check_no_run(out: Path) -> None:
    """Checks that a folder can be written to, and that no run is there.

    Raises:
        RunError: it cannot, or there is one.
    """
    check_out_parts(out, "figures")
    if exists(out / "config.yaml"):
        raise RunError(f"cannot write into '{out}': it holds a run, whose summary would be lost; name another --out")


def own_corpus(run: Run) -> Corpus:
    """The corpus that a run was trained on, features as the file has them.

    Raises:
        RunError: its data file is missing, or not the one that it was trained on.
        DataError: the file is unsafe or wrong.
    """
    settings, trained_on = run.config.data, str(run.environment["data_sha256"])
    if run.synthetic:
        settings = replace(settings, path=SYNTHETIC)
    elif not exists(settings.path):
        raise RunError(
            f"'{settings.path}', which '{run.folder}' was trained on (SHA-256 {trained_on[:12]}…), is not there; "
            "put it back, or score another labeled file with --data"
        )
    corpus = load_corpus(settings, run.config.target)
    if corpus.sha256 != trained_on:
        raise RunError(
            f"'{settings.path}' is not the file that '{run.folder}' was trained on (SHA-256 {corpus.sha256[:12]}…, "
            f"was {trained_on[:12]}…); put that file back, or score this one with --data"
        )
    return corpus


def _splits(run: Run, data: str | Path | None) -> tuple[dict[str, Any], dict[str, Any], bool, str]:
    """Splits to score, what they miss, whether they are synthetic, and the file's SHA-256."""
    if data is not None:
        settings = run.config.data
        found = load_utterances(data, run.dims, settings.modalities, Target.of(run.config.target), require_labels=True)
        utterances = [run.normalizer.apply(u) for u in found]
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
