"""Scores a finished run again, on its own data or on another file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmsa.config.groups.missing import Missing
from gmsa.data import describe_missing
from gmsa.data.notes import note
from gmsa.errors import RunError, short
from gmsa.reports.context import markdown_context
from gmsa.reports.run import markdown_table, write_summary
from gmsa.reports.summary import SCORED_SPLITS, summarize
from gmsa.runs.folder import Run, as_run
from gmsa.runs.prepare import leave_out_unseen
from gmsa.runs.scoring.context import add_context, as_reach, context_baseline, context_csv
from gmsa.runs.scoring.splits import Chosen, masked, own_corpus, splits_to_score
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.device import set_up
from gmsa.system.files import check_out_parts, make_folder, write_text
from gmsa.system.reading import exists
from gmsa.training.scoring import Predictions, predictions_csv


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
    split: str | None = None,
    include_training: bool = False,
    context: bool | str = False,
) -> Scores:
    """Scores a run's models on its own validation and test split, or on splits of another labeled file.

    On the run's own data, with its device and library versions, the numbers are exactly those of its
    summary: ``data.missing`` masks all splits of that file, and none of another. Writes the table and the
    predictions into ``out`` if given.

    Args:
        split: split to score, or ``all``; by default the run's own ``valid`` and ``test``, of another file ``test``, or
            all labeled splits but ``train`` where it has no ``test``.
        include_training: whether utterances that the run was trained on may be scored, as the split ``train``.
        context: whether to score the :class:`~gmsa.metrics.LinearContext` of the predictions, too: ``all``, as True, or
            ``past``. It is fitted on the run's own validation split.

    Raises:
        RunError: the folder is not a run, its data file is not the one that it was trained on, utterances are to be
            scored that it was trained on, or its validation split is too small to fit context on.
        DataError: the file is missing, unsafe or wrong.
        ConfigError: ``context`` is no reach.
    """
    reach = as_reach(context)
    if out is not None:
        check_no_run(out)
    run = as_run(run)
    if reach and run.config.graph.has_dialogues:
        note(
            f"--context: '{short(run.folder)}' has 'graph.scope: {run.config.graph.scope}' and hears the other "
            "utterances already; the baseline is meant for runs with 'graph.scope: utterance'"
        )
    where = set_up(run.config.run, device)
    chosen = run.chosen_seeds(seeds)
    # All that can fail comes before the scoring, which may take hours.
    models = [run.load_model(seed, where) for seed in chosen]
    seconds = [run.train_seconds(seed) for seed in chosen]
    if data is None and split is None:
        found, missing = _own_splits(run)
    else:
        found = splits_to_score(run, data, split, include_training, mask=True)
        splits, others = (
            {name: [run.normalizer.apply(u) for u in utterances] for name, utterances in of.items()}
            for of in (found.splits, found.context)
        )
        found = replace(found, splits=splits, context=others)
        unmasked = {name: describe_missing(us, us, Missing("none"), [*run.dims]) for name, us in splits.items()}
        missing = {**unmasked, **found.missing}
    baseline = context_baseline(run, found, reach) if reach else None
    parts: list[dict[str, Predictions]] = [
        {
            name: predict_whole(model, given, run.config, where, found.context.get(name, ()))
            for name, given in found.splits.items()
        }
        for model in models
    ]
    scores = {name: [part[name].metrics(run.config) for part in parts] for name in found.splits}
    linear, contextual = add_context(baseline, run, models, found, parts, where) if baseline else (None, [])
    summary = summarize(
        name=run.name,
        dataset=found.dataset,
        synthetic=found.synthetic,
        data_sha256=found.sha256,
        seeds=chosen,
        model=run.config.model.name,
        protocol=run.config.protocol.name,
        parameters=sum(p.numel() for p in models[-1].parameters()),
        train_seconds=seconds,
        valid=scores.get("valid", ()),
        test=scores.get("test", ()),
        others={name: of for name, of in scores.items() if name not in SCORED_SPLITS},
        scored={name: len(utterances) for name, utterances in found.splits.items()},
        missing=missing,
        label_ratio=run.config.data.label_ratio,
        init_from=run.config.protocol.init_from,
        context=linear,
    )
    if out is not None:
        make_folder(out)
        write_summary(out, summary)
        for seed, part in zip(chosen, parts, strict=True):
            write_text(out / f"predictions-{seed}.csv", predictions_csv(part.items()))
        for seed, part, more in zip(chosen, parts, contextual, strict=False):  # none without context
            write_text(out / f"context-{seed}.csv", context_csv(found, part, more))
    return Scores(summary, markdown_table([summary]) + markdown_context(summary))


def check_no_run(out: Path) -> None:
    """Checks that a folder can be written to, and that no run is there.

    Raises:
        RunError: it cannot, or there is one.
    """
    check_out_parts(out, "figures")
    if exists(out / "config.yaml"):
        raise RunError(f"cannot write into '{out}': it holds a run, whose summary would be lost; name another --out")


def _own_splits(run: Run) -> tuple[Chosen, Mapping[str, Any]]:
    """The run's own validation and test split, masked and normalized as in training, and what they miss."""
    hidden, records = masked(run, own_corpus(run))
    corpus, _ = leave_out_unseen(hidden)
    splits, context = (
        {s: [run.normalizer.apply(u) for u in of.get(s, ())] for s in SCORED_SPLITS}
        for of in (corpus.splits, corpus.context)
    )
    missing = {s: records[s] for s in SCORED_SPLITS}
    name = run.config.data.name
    return Chosen(splits, name, corpus.synthetic, corpus.sha256, True, context=context), missing
