"""Extracts the features of many clips into a feature store: workers, a cache, and the store from the cache."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gmsa.config import MODALITIES, TargetConfig
from gmsa.data import Utterance
from gmsa.data.store.rows import RowChecker
from gmsa.data.store.writer import Row, check_target, write_store
from gmsa.errors import ConfigError, DataError, short, shown
from gmsa.media.cache import Cache
from gmsa.media.clips import Clip, Extracted, to_line
from gmsa.media.jobs.listing import Asked
from gmsa.media.jobs.workers import LOG, Done, Task, Work, run_tasks
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig
from gmsa.registry import loaded_plugins
from gmsa.system.console import console, progress_bar
from gmsa.system.csv_text import csv_text
from gmsa.system.files import check_log, check_out_file, make_folder, sha256_of, write_text

HOPELESS = 20
"""Clips that may be skipped from the first one on before the extraction stops."""
FASTER = 60
"""How many times faster than a clip is extracted a file is looked at, at least."""
EVERY = 20.0
"""Seconds between two lines about progress where there is no terminal."""


@dataclass
class Report:
    """What came of an extraction."""

    clips: list[Clip] = field(default_factory=list)
    """Those that are asked for, long videos cut."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a clip is not in the store, by id."""
    durations: dict[str, float] = field(default_factory=dict)
    """Seconds of each clip that was extracted."""
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Why modalities are missing, by id and modality."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    """That it took."""
    hopeless: bool = False
    """Whether it stopped because nothing could be extracted."""

    @property
    def done(self) -> list[Clip]:
        """The clips that were extracted."""
        return [clip for clip in self.clips if clip.id in self.durations]

    @property
    def speed(self) -> float:
        """Seconds of media for a second of work."""
        return sum(self.durations.values()) / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Options:
    """How an extraction runs."""

    settings: ExtractConfig
    cache: Path
    log: Path
    workers: int = 1
    cluster: str | None = None
    """Address of a Dask scheduler that gives out the clips instead of own workers."""
    shard: tuple[int, int] | None = None
    """Which part of how many, counted from 1: every n-th file."""
    limit: int | None = None
    download: bool = False


def extract(asked: Asked, options: Options) -> Report:
    """Extracts clips into the cache; what is there already is not repeated.

    Raises:
        ConfigError: weights, packages or transcripts are absent.
        DataError: two clips have the same id, as one of a table may have that of a piece.
        RunError: workers die without taking a clip.
    """
    began = time.monotonic()
    if options.settings.transcript.source == "given" and not any(clip.text for clip in asked.clips):
        raise ConfigError(
            "'transcript.source' is 'given', but there are no transcripts; give --labels with a column 'text', or set "
            "it to 'auto'"
        )
    Pipeline(options.settings, None, options.download).fingerprint  # noqa: B018 - weights are checked before the work
    work = Work(options.settings, options.cache, options.log, loaded_plugins(), options.download)
    run = _runner(options, work)
    report = Report(skipped=dict(asked.absent))
    chosen = _chosen(asked.clips, options)
    pieces = _cut([clip for clip in chosen if clip.id in asked.whole], options, run, report)
    report.clips = [piece for clip in chosen for piece in pieces.get(clip.id, [clip])]
    if twice := [identity for identity, n in Counter(clip.id for clip in report.clips).items() if n > 1]:
        raise DataError(f"two clips have the id {shown(twice[0])}, one of them a piece of a long video; rename a file")
    readable = [] if report.hopeless else [clip for clip in report.clips if clip.id not in report.skipped]
    tasks = [Task(i, clip, seconds=_seconds(clip)) for i, clip in enumerate(readable)]
    for clip, (seconds, missing, warnings) in _results("clips", tasks, run, report):
        report.durations[clip.id], report.missing[clip.id], report.warnings[clip.id] = seconds, missing, warnings
    report.seconds = time.monotonic() - began
    return report


def store_clips(out: Path, report: Report, options: Options, target: TargetConfig, labels: Path | None) -> None:
    """Writes the store of the extracted clips, from the cache alone and in the order of the table.

    Equal clips and settings give equal bytes, for any number of workers, shards or kills.

    Raises:
        DataError: a clip is not in the cache, or a label does not fit the target.
    """
    pipeline = Pipeline(options.settings, Cache(options.cache, only_read=True), options.download)
    about: dict[str, Any] = {"importer": "media", "files": [], "extraction": pipeline.provenance()}
    if labels is not None:
        about["files"] = [{"name": labels.name, "sha256": sha256_of(labels, DataError)}]
    lines: list[str] = []

    def rows() -> Iterator[Row]:
        for clip in report.done:
            found = pipeline(clip)
            lines.append(to_line(found.record(clip)))
            yield row_of(clip, found)

    dtypes = {m: "float32" for m in MODALITIES if options.settings.of(m)}
    write_store(out, rows(), dtypes, target, about, short(labels or out), lambda: "".join(lines))


def row_of(clip: Clip, found: Extracted) -> Row:
    """The row of a store that a clip becomes."""
    label = clip.label if isinstance(clip.label, float) else None
    utterance = Utterance(
        clip.id,
        {m: torch.from_numpy(sequence.values) for m, sequence in found.sequences.items()},
        label,
        dict(clip.unimodal),
        clip.text or found.text,
        times={m: torch.from_numpy(sequence.times) for m, sequence in found.sequences.items()},
        speaker=clip.speaker,
    )
    named = clip.label if isinstance(clip.label, str) else ""
    return Row(clip.split, utterance, clip.annotation, named)


def check_labels(clips: Iterable[Clip], target: TargetConfig, where: str) -> None:
    """Checks before the work that the store can be written: ids, transcripts, splits and labels.

    Raises:
        DataError: a label does not fit the target, or a text is wrong.
    """
    checker = RowChecker({}, target, where, "set target.range to the range of the labels")
    for clip in clips:
        row = row_of(clip, Extracted())
        checker.begin(row)
        checker.id_of(row)
        checker.text_of(row)
        for modality in (None, *clip.unimodal):
            checker.label_of(row, modality)
    checker.finish()


def write_table(path: Path, report: Report) -> None:
    """Writes ``clips.csv``: each clip with what came of it.

    Raises:
        WriteError: the file cannot be written.
    """
    header = ("id", "file", "start", "end", "status", "reason", "seconds", "missing", "warnings")
    rows: list[list[str]] = []
    for clip in report.clips:
        seconds = report.durations.get(clip.id)
        status, reason = ("skipped", report.skipped.get(clip.id, "not reached")) if seconds is None else ("ok", "")
        missing = "; ".join(f"{m}: {why}" for m, why in report.missing.get(clip.id, {}).items())
        stop = "" if clip.stop is None else f"{clip.stop:g}"
        length = "" if seconds is None else f"{seconds:.2f}"
        warnings = "; ".join(report.warnings.get(clip.id, []))
        rows.append([clip.id, str(clip.path), f"{clip.start:g}", stop, status, reason, length, missing, warnings])
    known = {clip.id for clip in report.clips}
    rows += [[i, "", "", "", "skipped", why, "", "", ""] for i, why in report.skipped.items() if i not in known]
    write_text(path, csv_text(header, rows))


def check_places(out: Path, table: Path, log: Path, cache: Path) -> None:
    """Checks before the work that all that will be written can be.

    Raises:
        GmsaError: it cannot.
    """
    check_target(out)
    make_folder(out.parent)
    check_out_file(table, (".csv",))
    check_log(log)
    make_folder(cache)


def beside(out: Path) -> tuple[Path, Path]:
    """The table and the log of an extraction, beside its store."""
    return out.with_name(f"{out.name}-clips.csv"), out.with_name(f"{out.name}-{LOG}")


def _runner(options: Options, work: Work) -> Callable[[Iterable[Task]], Iterator[Done]]:
    if options.cluster is None:
        return lambda tasks: run_tasks(work, tasks, options.workers)
    from gmsa.media.jobs.cluster import run_on_cluster

    address = options.cluster
    return lambda tasks: run_on_cluster(work, tasks, address)


def _chosen(clips: list[Clip], options: Options) -> list[Clip]:
    """The clips of the shard, and no more than the limit."""
    if options.shard is not None:
        part, parts = options.shard
        files = {path: i for i, path in enumerate(dict.fromkeys(clip.path for clip in clips))}
        clips = [clip for clip in clips if files[clip.path] % parts == part - 1]
    if options.settings.transcript.source == "speech":  # what a table says is not what is heard
        clips = [replace(clip, text=None) for clip in clips]
    return clips[: options.limit]


def _cut(
    whole: list[Clip], options: Options, run: Callable[[Iterable[Task]], Iterator[Done]], report: Report
) -> dict[str, list[Clip]]:
    """The pieces of whole files, which are cut at pauses where they are long, by id."""
    longest = options.settings.limits.seconds / FASTER
    tasks = [Task(i, clip, True, longest) for i, clip in enumerate(whole)]
    found = {}
    for clip, (_, pieces) in _results("files", tasks, run, report):
        name = clip.id.removesuffix("$_$1")
        many = [replace(clip, id=f"{name}$_${i}", start=a, stop=b) for i, (a, b) in enumerate(pieces, 1)]
        found[clip.id] = many if len(many) > 1 else [clip]
    return found


def _results(
    what: str, tasks: list[Task], run: Callable[[Iterable[Task]], Iterator[Done]], report: Report
) -> Iterator[tuple[Clip, Any]]:
    """Yields clips with what came of them, and records why others are skipped; stops where the first are hopeless."""
    good = bad = 0
    with _Progress(what, len(tasks)) as progress:
        for done in run(tasks) if tasks else ():
            clip = done.task.clip
            if done.reason:
                report.skipped[clip.id] = done.reason
                bad += 1
            else:
                yield clip, done.result
                good += 1
            progress.add(report.durations.get(clip.id, 0.0))
            if not good and bad >= HOPELESS:
                report.hopeless = True
                return


def _seconds(clip: Clip) -> float:
    return 15.0 if clip.stop is None else clip.stop - clip.start


class _Progress:
    """Shows how many are done and how fast, by a bar on a terminal and lines elsewhere."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count, self.done, self.media = what, count, 0, 0.0
        self.began = self.said = time.monotonic()

    def __enter__(self) -> _Progress:
        self._shown = progress_bar(self.what, self.count, stderr=True)
        self.bar = self._shown.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)

    def add(self, seconds: float = 0.0) -> None:
        """Counts one more, of so many seconds."""
        self.done, self.media = self.done + 1, self.media + seconds
        passed = time.monotonic() - self.began
        speed = f", {self.media / max(passed, 1e-9):.1f} × real time" if self.media else ""
        self.bar.update(completed=self.done, label=f"{self.what}{speed}")
        if not sys.stderr.isatty() and time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            left = passed / self.done * (self.count - self.done)
            console(stderr=True).print(f"{self.done} of {self.count} {self.what}{speed}, about {left:.0f} s left")
