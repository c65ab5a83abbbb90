"""What runs predict along a dialogue, printed and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gmsa.data import Target, Utterance
from gmsa.errors import RunError
from gmsa.figures.dialogue import MOST_RUNS, draw_dialogue, score
from gmsa.graph.find import find_graph
from gmsa.reports.tables import plural
from gmsa.runs.folder import Run
from gmsa.runs.pictures.splits import splits_of
from gmsa.system.console import console


def picture_predictions(
    folders: Sequence[str | Path], name: str, out: Path, data: str | Path | None = None, device: str | None = None
) -> None:
    """Prints and draws what finished runs predict along a dialogue.

    Args:
        name: the dialogue, or the id of one of its utterances.
        data: another file to find it in.

    Raises:
        DataError: there is no such dialogue.
        RunError: a folder is no run folder, or the runs do not go into one picture.
    """
    if len(folders) > MOST_RUNS:
        raise RunError(f"a picture shows at most {MOST_RUNS} runs (got {len(folders)}); leave some --run out")
    runs = [Run(folder) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{i}: {title}" for i, title in enumerate(names, start=1)]
    target = Target.of(runs[0].config.target)
    for run in runs[1:]:
        if Target.of(run.config.target) != target:
            raise RunError(
                f"'{run.folder}' predicts something else than '{runs[0].folder}'; draw runs of one target together"
            )
    found = [_dialogue_of(run, name, data) for run in runs]
    split, utterances = found[0]
    predictions = {}
    for title, run, (_, own) in zip(names, runs, found, strict=True):
        answers = run.predict(own, device=device)
        if answers.values is None:
            unknown = np.isnan(answers.probabilities).any(1)
            values = np.where(unknown, np.nan, np.nan_to_num(answers.probabilities).argmax(1))
        else:
            values = answers.values
        by_id = dict(zip(answers.ids, values.tolist(), strict=True))
        predictions[title] = np.array([by_id.get(u.id, np.nan) for u in utterances])
    labels = np.array([np.nan if u.label is None else u.label for u in utterances])
    trained_on = ", which the run was trained on" if split == "train" and not data else ""
    where = "synthetic, " if runs[0].synthetic and not data else ""
    console().print(f"{utterances[0].video} ({where}{split}{trained_on}), {plural(len(utterances), 'utterance')}")
    for title, values in predictions.items():
        console().print(f"  {title}: {score(values, labels, target.classes) or 'no labels to compare with'}")
    draw_dialogue(
        out,
        utterances[0].video,
        predictions,
        labels,
        (target.low, target.high),
        target.classes,
        [u.speaker for u in utterances],
        [u.text for u in utterances],
    )


def _dialogue_of(run: Run, name: str, data: str | Path | None) -> tuple[str, list[Utterance]]:
    """The dialogue that is asked for, and its split."""
    split, found = find_graph(name, *splits_of(run, data), "dialogue")
    assert isinstance(found, list)
    return split, found
