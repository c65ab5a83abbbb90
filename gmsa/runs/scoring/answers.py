"""Answers of another system, such as a language model, under the metrics of a run, and tested against the run."""

# N utterances
from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gmsa.config import Config
from gmsa.data import Target, Utterance
from gmsa.data.importers.tables import as_number
from gmsa.data.loading import load_other
from gmsa.data.notes import note
from gmsa.data.targets import describe_target
from gmsa.errors import DataError, cut, listed, nearest, short, shown
from gmsa.metrics import metrics, paired_test
from gmsa.reports.answers import markdown_answers
from gmsa.runs.evaluate import Scores, check_no_run
from gmsa.runs.folder import Run, as_run
from gmsa.runs.scoring.splits import Chosen, choose_splits, splits_to_score
from gmsa.runs.scoring.windows import predict_whole
from gmsa.system.device import set_up
from gmsa.system.files import make_folder, write_json, write_text
from gmsa.system.reading import MOST_RECORDS, read_text

NAMED = 10
"""Ids of missing and of unknown utterances that a report names."""
SAMPLES = 1000
"""Samples of the paired tests."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-]?[0-9]+)?")


def evaluate_answers(
    predictions: str | Path,
    data: str | Path | None = None,
    run: Run | str | Path | None = None,
    config: Config | None = None,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    out: Path | None = None,
    split: str | None = None,
    include_training: bool = False,
) -> Scores:
    """Scores the answers of any system for the labeled utterances of a file.

    Answers without an utterance, and utterances without an answer, are counted and named.

    Args:
        predictions: CSV with the columns ``id`` and ``prediction``: an intensity, or the name of a class.
            Instead of ``prediction`` it may have the probabilities of the classes, ``p_joy`` and so on. Columns may be
            separated by commas, semicolons or tabs.
        data: the labeled file; the run's own by default.
        run: a run to compare with on the same utterances, by the mean over its seeds. It also says the target.
        config: settings that say the target and the modalities, where there is no run.
        seeds, device: of the run.
        out: folder for ``answers.json`` and ``answers.md``; nothing is written by default.
        split, include_training: as :func:`~gmsa.runs.evaluate.evaluate` has them.

    Returns:
        ``scores`` by metric, counts, and with a run its ``scores`` and a paired ``tests`` for each main metric.

    Raises:
        DataError: a file is missing or wrong, or no answer is for an utterance to score.
        RunError: the run cannot be used.
    """
    if out is not None:
        check_no_run(out)
    path = Path(predictions)
    if run is not None:
        run = as_run(run)
        models = [run.load_model(seed, device) for seed in run.chosen_seeds(seeds)]
        config, target = run.config, Target.of(run.config.target)
        chosen = splits_to_score(run, data, split, include_training, mask=True)
    else:
        config = Config() if config is None else config
        if data is None:
            raise DataError(f"{short(path)}: --predictions needs --data FILE, whose labels to score against, or --run")
        chosen, target = _labeled(data, config, split)
    table = read_answers(path, target, chosen.ids)
    found = _matched(table, chosen, path)
    answers, truth = np.array([table[u.id] for u in found.answered]), _labels_of(found.answered)
    name, more = target.metrics, config.run.metrics if run is not None else ()
    content: dict[str, Any] = {
        "system": path.stem,
        "dataset": chosen.dataset,
        "data_sha256": chosen.sha256,
        "split": chosen.name,
        "target": describe_target(target),
        "utterances": len(found.answered),
        "missing": _counted(u.id for u in found.missing),
        "unknown": _counted(found.unknown),
        "scores": metrics(name, answers, truth, more, target.num_classes),
    }
    if run is not None:
        where = set_up(run.config.run, device)
        # All of them, also without an answer: they may be context.
        utterances, unlabeled = ([run.normalizer.apply(u) for u in us] for us in (chosen.utterances, chosen.unlabeled))
        parts = [predict_whole(model, utterances, run.config, where, unlabeled) for model in models]
        its = _mean_prediction(parts, target)
        rows = {u.id: i for i, u in enumerate(utterances)}
        others = its[[rows[u.id] for u in found.answered]]
        content["run"] = {
            "name": run.name,
            "seeds": list(run.chosen_seeds(seeds)),
            "scores": metrics(name, others, truth, more, target.num_classes),
        }
        content["tests"] = _tests(others, answers, truth, target)
    report = markdown_answers(content)
    if out is not None:
        make_folder(out)
        write_json(out / "answers.json", content)
        write_text(out / "answers.md", report)
    return Scores(content, report)


def _labeled(data: str | Path, config: Config, split: str | None) -> tuple[Chosen, Target]:
    """The splits of a file to score, without any run, and their target."""
    other = load_other(data, dict.fromkeys(config.named_modalities), config.data, config.target)
    names = choose_splits(other.labeled, split, short(data))
    ids = frozenset(u.id for u in other.utterances)
    splits = {name: other.labeled[name] for name in names}
    return Chosen(splits, Path(data).stem, False, other.sha256, False, ids), other.target


def read_answers(path: Path, target: Target, ids: Collection[str] = ()) -> dict[str, float]:
    """Reads a CSV of answers: by id the intensity, or the number of the class; without rows that answer nothing.

    Args:
        ids: known ids, which may begin or end with spaces; those of other ids are stripped.

    Raises:
        DataError: the file is missing or wrong; the message names the line.
    """
    text = read_text(path, MOST_RECORDS, kind=DataError).removeprefix("\ufeff")
    separator = max(",;\t", key=lambda one: _fit(next(_rows(text, one, path), (0, []))[1]))
    rows = _rows(text, separator, path)
    header = next(rows, (0, []))[1]
    columns, classes = _Names(header), _Names(target.classes)
    at, answer = columns.place("id"), columns.place("prediction")
    chances = {name: place for name in target.classes if (place := columns.place(f"p_{name}")) is not None}
    if len(set(chances.values())) < len(target.classes):
        chances = {}
    if at is None or (answer is None and not chances):
        raise DataError(
            f"{short(path)}: needs the columns 'id' and 'prediction'{nearest('prediction', header)}; "
            f"it has {listed(cut(name) for name in header)}"
        )
    comma = separator != ","
    found: dict[str, float] = {}
    for number, row in rows:
        if not any(row):
            continue
        if len(row) != len(header):
            raise DataError(f"{short(path)}: line {number} has {len(row)} cells, the header {len(header)}; quote them")
        where, identity = f"{short(path)}: line {number}", row[at] if row[at] in ids else row[at].strip()
        if identity in found:
            raise DataError(f"{where}: id {shown(identity)} is answered twice; answer each once")
        cell = "" if answer is None else row[answer]
        if cell.strip() or cell in classes.exact:
            what = f"{where}: 'prediction'"
            found[identity] = _class(cell, classes, where) if target.is_classes else _number(cell, what, comma)
        elif chances and any(row[place].strip() for place in chances.values()):
            values = [_number(row[place], f"{where}: {shown(f'p_{name}')}", comma) for name, place in chances.items()]
            found[identity] = float(np.argmax(values))
    return found


def _rows(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV, and the line where each ends."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{short(path)}: line {rows.line_num}: {error}; check that every quotation mark is closed"
        ) from None


def _fit(header: Sequence[str]) -> tuple[int, int]:
    """How well a header is read: by the columns that are needed, else by the number of columns."""
    found = len({"id", "prediction"} & {name.strip().lower() for name in header})
    return found, 0 if found else len(header)


class _Names:
    """Finds the place of a name: as it is written, else in any case where only one name is meant."""

    def __init__(self, names: Sequence[str]) -> None:
        self.exact: dict[str, int] = {}
        self._lower: dict[str, int | None] = {}
        self._values: dict[float, int | None] = {}
        for place, name in enumerate(names):
            self.exact.setdefault(name, place)
            lower = name.strip().lower()
            self._lower[lower] = None if lower in self._lower else place
            if _NUMBER.fullmatch(lower):
                self._values[float(lower)] = None if float(lower) in self._values else place

    def place(self, name: str) -> int | None:
        for written in (name, name.strip()):
            if written in self.exact:
                return self.exact[written]
        return self._lower.get(name.strip().lower())

    def by_value(self, text: str) -> int | None:
        """The place of the name that is the same number, as 1.0 is 1."""
        return self._values.get(float(text)) if _NUMBER.fullmatch(text) else None


def _class(text: str, classes: _Names, where: str) -> float:
    place = classes.place(text)
    place = classes.by_value(text.strip()) if place is None else place
    if place is None:
        raise DataError(
            f"{where}: {shown(text)} is no class{nearest(text, classes.exact)}; the classes are {listed(classes.exact)}"
        )
    return float(place)


def _number(text: str, where: str, comma: bool) -> float:
    value = as_number(text.strip(), comma)
    if value is None:
        raise DataError(f"{where} is {shown(text)}; expected a number")
    return value


@dataclass(frozen=True, eq=False)
class _Matched:
    answered: list[Utterance]
    missing: list[Utterance]
    unknown: list[str]


def _matched(table: dict[str, float], chosen: Chosen, path: Path) -> _Matched:
    """The utterances with and without an answer, and answers that are for no utterance of the file."""
    answered = [u for u in chosen.utterances if u.id in table]
    missing = [u for u in chosen.utterances if u.id not in table]
    unknown = [identity for identity in table if identity not in chosen.ids]
    if not answered:
        what = f"its first id is {shown(next(iter(table)))}, " if table else "it answers nothing; "
        raise DataError(
            f"{short(path)}: has no answer for the {len(missing)} utterances to score; {what}theirs is "
            f"{shown(missing[0].id)}"
        )
    if missing:
        note(
            f"{short(path)}: {len(missing)} of {len(chosen.utterances)} utterances have no answer "
            f"({listed(u.id for u in missing[:NAMED])}); the scores are without them"
        )
    if unknown:
        note(f"{short(path)}: {len(unknown)} answers are for no utterance of the data ({listed(unknown[:NAMED])})")
    return _Matched(answered, missing, unknown)


def _counted(ids: Iterable[str]) -> dict[str, Any]:
    found = list(ids)
    return {"count": len(found), "first": found[:NAMED]}


def _labels_of(utterances: Sequence[Utterance]) -> np.ndarray:
    return np.array([u.label for u in utterances], dtype=np.float64)


def _mean_prediction(parts: Sequence[Any], target: Target) -> np.ndarray:
    """The mean intensity over seeds, or the likeliest class by the mean probabilities."""
    if target.is_classes:
        return np.mean([part.probabilities for part in parts], axis=0).argmax(1)
    return np.mean([part.value for part in parts], axis=0).astype(np.float64)


def _tests(run: np.ndarray, system: np.ndarray, truth: np.ndarray, target: Target) -> dict[str, dict[str, float]]:
    """A paired test of MAE and Corr, or of accuracy and weighted F1."""
    if target.metrics == "sims":  # as its metrics do
        run, system, truth = (x.clip(-1, 1) for x in (run, system, truth))
    if target.is_classes:
        run, system, truth = (x.astype(np.int64) for x in (run, system, truth))
    found = {}
    for metric in ("accuracy", "weighted_F1") if target.is_classes else ("MAE", "Corr"):
        score = partial(_class_score if target.is_classes else _intensity_score, metric, target.num_classes)
        test = paired_test(run, system, truth, score, SAMPLES)
        found[metric] = {key: getattr(test, key) for key in ("difference", "low", "high", "p")}
    return found


def _intensity_score(metric: str, _: int, prediction: np.ndarray, truth: np.ndarray) -> float:
    """MAE or Corr: a test asks for it thousands of times."""
    if metric == "MAE":
        return float(np.abs(prediction - truth).mean())
    if np.ptp(prediction) == 0 or np.ptp(truth) == 0:
        return 0.0
    p, t = prediction - prediction.mean(), truth - truth.mean()
    return float(p @ t / np.sqrt((p @ p) * (t @ t)))


def _class_score(metric: str, classes: int, prediction: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy or weighted F1, of the confusion's counts."""
    counts = np.bincount(truth * classes + prediction, minlength=classes**2).reshape(classes, classes)
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    if metric == "accuracy":
        return float(right.sum() / len(truth))
    return float((2 * right / np.maximum(1, true + predicted) * true).sum() / len(truth))
