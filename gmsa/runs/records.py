"""Reads the records of a run folder that may be a stranger's: its environment, its history, its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gmsa.config import Config
from gmsa.config.groups.target import MOST_CLASSES
from gmsa.errors import RunError, cut
from gmsa.reports.summary import SUMMARY
from gmsa.system.reading import MOST_RECORDS, parse_json, read_json, read_text
from gmsa.system.records import ANY, FLAG, NUMBER, SHA256, TEXT, Fields, Items, Map, Maybe, check_form, one_of, whole
from gmsa.training.state import EPOCH

EXTRACTION = Fields(
    {"settings": Map(ANY), "fingerprint": Map(ANY)}, {"columns": Map(ANY), "versions": Map(Maybe(TEXT))}
)
"""What a run trained on extracted media says of the extraction."""
MOST_FEATURES = 1_000_000
"""Features of a modality's step, at most."""


def read_environment(folder: Path, config: Config) -> dict[str, Any]:
    """The content of ``environment.json``; gmsa reads no more of it than is checked here.

    Raises:
        RunError: the file is damaged, or of another run than the config.
    """
    name = "environment.json"
    form = Fields(
        {
            "dims": Map(whole(1, MOST_FEATURES), one_of(*config.named_modalities)),
            "synthetic": FLAG,
            "data_sha256": SHA256,
        },
        {
            "pool_sha256": Maybe(SHA256),
            "encoder_sha256": SHA256,
            "plugins": Items(ANY, 1000),
            "versions": Map(Maybe(TEXT)),
            "saved": FLAG,
            "extraction": EXTRACTION,
            "base": Maybe(Items(NUMBER, MOST_CLASSES)),
        },
    )
    content = read_json(folder / name, inside=folder)
    try:
        check_form(content, form)
        if not content["dims"]:
            raise ValueError("'dims' has no modality")
    except ValueError as error:
        raise RunError(f"'{folder}' is damaged: {name}: {error}; train again") from None
    return dict(content)


def read_history(folder: Path, seed: int) -> list[dict[str, Any]]:
    """The rows of a seed's ``history.jsonl``.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / f"seed-{seed}" / "history.jsonl"
    try:
        lines = read_text(path, MOST_RECORDS, inside=folder).splitlines()
        rows = [parse_json(line, nan=True) for line in lines]  # a correlation may be NaN
        check_form(rows, Items(EPOCH), "row")
        if not rows:
            raise ValueError("it has no epoch")
    except ValueError as error:
        raise RunError(f"'{path}' is damaged ({cut(error)}); restore it, or train again") from None
    return rows


def read_own_summary(folder: Path) -> dict[str, Any]:
    """The content of a run's ``summary.json``.

    Raises:
        RunError: it cannot be read.
        ValueError: it is not what a run writes.
    """
    content = read_json(folder / "summary.json", MOST_RECORDS, inside=folder)
    check_form(content, SUMMARY)
    return dict(content)
