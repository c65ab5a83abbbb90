"""``gmsa predict --video``: extracts videos as the run's training data were, and writes an answer for each."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from gmsa.errors import ConfigError, DataError, RunError
from gmsa.media.cache import media_folder
from gmsa.media.clips import Clip
from gmsa.media.jobs.extract import Options, extract
from gmsa.media.jobs.listing import Asked
from gmsa.media.pipeline import Pipeline
from gmsa.runs.folder import Run
from gmsa.runs.video.answer import STEP, WINDOW, Answerer
from gmsa.runs.video.clips import check_pipeline, settings_of
from gmsa.runs.video.files import FILES, answer_files
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.files import check_log, check_out_folder, make_folder
from gmsa.system.reading import expanded, is_file, read_text

LOG = "extract.log"
LONGEST_TRANSCRIPT = 1 << 20
"""Characters."""


def answer_videos(run: Run, options: argparse.Namespace) -> None:
    """Runs the command; exits with 1 if a video cannot be answered.

    Raises:
        RunError: the run was trained on data that do not say how they were extracted, or has no such seed.
        DataError: this machine extracts otherwise, or none of the videos can be read.
    """
    run.chosen_seeds(options.seeds)
    window = _seconds(options.window, WINDOW, "--window")
    step = _seconds(options.step, STEP, "--step")
    paths = [expanded(video, DataError) for video in options.video]
    for path in paths:
        if not is_file(path, DataError):
            raise DataError(f"'{path}' is no file; name a video or a sound file")
    transcript = None
    if options.transcript:
        transcript = read_text(expanded(options.transcript, DataError), LONGEST_TRANSCRIPT, kind=DataError).strip()
    out = expanded(options.out)
    folders = [out] if len(paths) == 1 else [out / name for name in _names(paths)]
    for folder in folders:
        check_out_folder(folder)
    cache = expanded(options.cache) if options.cache else media_folder()
    settings = settings_of(run)
    source = settings.transcript.source
    if source == "speech" and transcript is not None:
        raise ConfigError("--transcript: the run was trained on words that were recognized; leave it out")
    if source == "given" and transcript is None:
        raise ConfigError("the run was trained on given transcripts; give that of one video with --transcript FILE")
    check_pipeline(run, Pipeline(settings))
    for folder in (*folders, cache):
        make_folder(folder)
    check_log(out / LOG)
    how = Options(settings, cache, out / LOG)
    clips = [Clip(f"{i}$_$1", path, text=transcript) for i, path in enumerate(paths)]
    whole = frozenset(clip.id for clip in clips if transcript is None)
    try:
        report = extract(Asked(clips, {}, whole), how)
    except KeyboardInterrupt:
        console(stderr=True).print(f"What is extracted is kept. {cli.how_to_repeat()}")
        raise
    lost = [clip for clip in report.clips if clip.id not in report.durations]
    reasons = {clip.id.partition("$")[0]: report.skipped.get(clip.id, "not reached") for clip in lost}
    answerer = Answerer([run], cache, only_read=True, seeds=options.seeds, device=options.device)
    failed = 0
    for i, (path, folder) in enumerate(zip(paths, folders, strict=True)):
        try:
            if str(i) in reasons:
                raise DataError(reasons[str(i)])
            (found,) = answerer(path, partial(_tell, path), transcript, window, step)
        except DataError as error:
            failed += 1
            console(stderr=True).print(f"{path.name}: not answered: {error}")
            continue
        answer_files(found, folder)
        value = "" if found["value"] is None else f"{found['value']:.3f}, "
        console().print(f"{path.name}: {value}{found['label']}. Wrote {folder / FILES[-1]}")
    if failed == len(paths) == 1:
        raise DataError(f"'{paths[0].name}' cannot be answered; name another file")
    if failed:
        sys.exit(1)


def _tell(path: Path, what: str, share: float) -> None:
    """Says what is done: to explain the segments of an hour takes minutes."""
    console(stderr=True).print(f"{path.name}: {what[0].lower()}{what[1:]}")


def _names(paths: list[Path]) -> list[str]:
    """A folder's name for each video."""
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise RunError(f"two videos are called '{twice}', and would share a folder; answer them one by one")
    return stems


def _seconds(given: float | None, default: float, name: str) -> float:
    if given is None:
        return default
    if not 0.05 <= given <= 3600:
        raise ConfigError(f"{name} must be from 0.05 to 3600 seconds (got {given:g})")
    return given
