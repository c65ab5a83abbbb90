"""The commands ``gmsa data extract`` and ``gmsa data models``."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from gmsa.config.load import settings_of
from gmsa.errors import ConfigError, DataError, short, shown
from gmsa.media import weights
from gmsa.media.cache import media_folder
from gmsa.media.jobs import extract
from gmsa.media.jobs.listing import list_clips
from gmsa.media.settings import read_extraction
from gmsa.system import cli
from gmsa.system.console import console
from gmsa.system.reading import expanded

MOST_REASONS = 10
"""Skipped clips of which a line tells; the table has all."""


def add_extract(commands: Any) -> None:
    """Adds ``extract`` to the commands of ``gmsa data``."""
    new = commands.add_parser(
        "extract",
        help="extract features from videos",
        description="Extract words and features of text, audio and vision from videos or sound files, into a feature "
        "store. Exit code 1: some clips were skipped; OUT-clips.csv says why. Run the same command again to go on.",
        example="videos --labels labels.csv --out clips",
    )
    new.add_argument("videos", metavar="VIDEOS", help="folder (searched downwards), MMSA-FET's layout, or one file")
    new.add_argument("--out", metavar="DIR", help="feature store to write: a new folder (not needed with --shard)")
    new.add_argument(
        "--labels",
        metavar="FILE",
        help="table with id, or video_id and clip_id; video (the file); and any of start, end, text, label, split, "
        "speaker, annotation (default: all clips go into the split 'pool')",
    )
    new.add_argument("--config", default="default", metavar="FILE", help="what to extract (default: default)")
    cli.add_set_option(new, "change a setting of the extraction, or of target, as steps=own (may repeat)")
    new.add_argument(
        "--jobs", type=_count, default=_processors(), metavar="N", help="workers (default: the processors)"
    )
    new.add_argument(
        "--cache", metavar="DIR", help="folder that keeps what is extracted (default: ~/.cache/gmsa/media)"
    )
    where = new.add_mutually_exclusive_group()
    where.add_argument(
        "--shard", type=_shard, metavar="I/N", help="extract every N-th file from the I-th on into the cache, no store"
    )
    where.add_argument("--cluster", metavar="ADDRESS", help="Dask scheduler whose workers extract, sharing --cache")
    new.add_argument("--download", action="store_true", help="fetch weights that are not here from the Hub")
    new.add_argument("--limit", type=_count, metavar="N", help="the first N clips alone")
    cli.add_plugin_option(new)
    new.set_defaults(run=_extract)


def add_models(commands: Any) -> None:
    """Adds ``models`` to the commands of ``gmsa data``."""
    models = commands.add_parser(
        "models",
        help="list weights of the extraction",
        description="List the weights that the extraction knows: where they are, their licence and SHA-256, and how to "
        "get those that are absent.",
        example="",
    )
    models.set_defaults(run=_models)


def _extract(options: argparse.Namespace) -> None:
    cli.load_plugins_of(options)
    of_target = [item for item in options.overrides if item.strip().startswith("target")]
    settings = read_extraction(options.config, [item for item in options.overrides if item not in of_target])
    target = settings_of(of_target, ("target",))[0].target
    if options.out is None and options.shard is None:
        raise ConfigError("--out is required: name a new folder for the store")
    videos = expanded(options.videos, DataError)
    labels = expanded(options.labels, DataError) if options.labels else None
    cache = expanded(options.cache) if options.cache else media_folder()
    # A shard writes no store, but says what it skipped.
    out = expanded(options.out) if options.out else cache / f"shard-{options.shard[0]}-of-{options.shard[1]}"
    table, log = extract.beside(out)
    extract.check_places(out, table, log, cache)
    asked = list_clips(videos, labels, target)
    extract.check_labels(asked.clips, target, short(labels or videos))
    chosen = extract.Options(
        settings, cache, log, options.jobs, options.cluster, options.shard, options.limit, options.download
    )
    try:
        report = extract.extract(asked, chosen)
    except KeyboardInterrupt:
        console(stderr=True).print(f"Nothing is lost. {cli.how_to_repeat()}")
        raise
    extract.write_table(table, report)
    if report.done and not options.shard and not report.hopeless:
        extract.store_clips(out, report, chosen, target, labels)
    _tell(report, table, None if options.shard else out)
    if report.skipped:
        sys.exit(1)


def _tell(report: extract.Report, table: Path, out: Path | None) -> None:
    """Prints what was extracted, what is missing and what was skipped."""
    say = console().print
    if report.hopeless:
        say(f"Stopped: the first {extract.HOPELESS} clips cannot be extracted.")
    done = report.done
    if done:
        hours = sum(report.durations.values()) / 3600
        length = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
        say(f"Extracted {len(done)} clips, {length}, at {report.speed:.1f} × real time.")
    missing = Counter((m, why.partition(" in ")[0]) for found in report.missing.values() for m, why in found.items())
    for modality in dict.fromkeys(m for m, _ in missing):
        reasons = ", ".join(f"{why}: {n}" for (m, why), n in missing.most_common() if m == modality)
        count = sum(n for (m, _), n in missing.items() if m == modality)
        say(f"{modality} is missing in {count} of {len(done)} clips ({reasons}).")
    warned = sum(bool(found) for found in report.warnings.values())
    if warned:
        say(f"{warned} clips have warnings.")
    for identity, reason in list(report.skipped.items())[:MOST_REASONS]:
        say(f"skipped: {shown(identity)}: {reason}")
    if len(report.skipped) > MOST_REASONS:
        say(f"skipped: {len(report.skipped) - MOST_REASONS} more")
    say(f"Wrote {table}" if out is None or not done or report.hopeless else f"Wrote {out} and {table}")


def _models(options: argparse.Namespace) -> None:
    say = console().print
    absent = False
    for row in weights.survey():
        absent |= row["state"] != "there"
        say(f"{row['name']}: {row['what']}")
        say(f"  {row['state']}   {row['found']}")
        say(f"  release {row['release']}, licence {row['licence']}, SHA-256 {row['sha256'][:16]}…")
    say("Others by folder: transcript.model, hf_text(model=…), hf_audio(model=…), hf_vision(model=…).")
    if absent:
        say(f"To get what is absent: {weights.INSTALL}.")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on (got {text!r})")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not slash or not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, as 1/4 (got {text!r})")
    return int(part), int(parts)
