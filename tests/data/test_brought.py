"""What people bring: read as they mean it, or said and refused; alike in every command.

Each row has a case that stands for it, which all commands are given, and siblings of its kind, which are loaded and
checked (all commands take them too where slow tests run).
"""

from __future__ import annotations

import gzip
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.brought import (
    COUNTS,
    DIMS,
    STEPS,
    Maker,
    Said,
    at,
    by_split,
    by_torch,
    columns,
    corpus,
    each,
    features,
    flat,
    ids,
    inside,
    json_text,
    labels,
    mag_bert,
    mult,
    pickled,
    put,
    ragged,
    raw,
    rename,
    rng_of,
    splits,
    table,
    told,
    without,
)

from gmsa import evaluate, predict, train
from gmsa.config import load_config
from gmsa.data import __main__ as data
from gmsa.data import load_corpus
from gmsa.errors import GmsaError
from gmsa.runs import report
from gmsa.training.trainer import Trainer

COMMANDS = ("train", "evaluate", "predict", "info", "check", "import")
LONGEST = 400
SETTINGS = """\
data: {path: none.pkl, name: own}
model: {channels: 8, heads: 2, layers: 1, positions: 16}
optim: {epochs: 1, min_steps: 0, batch_size: 8}
protocol: {name: supervised}
run: {seeds: [1], device: cpu}
"""
ALL = 24
"""Utterances of an unchanged file."""


@dataclass(frozen=True)
class Outcome:
    """What a command does."""

    codes: tuple[int, ...]
    said: tuple[str, ...] = ()
    """Patterns: each is found in a line of stderr."""
    also: tuple[str, ...] = ()
    """Patterns of lines that may stand there besides."""


def fine(*also: str) -> Outcome:
    """Read without a word, except lines that match ``also``."""
    return Outcome((0,), (), also)


def says(*said: str, also: tuple[str, ...] = ()) -> Outcome:
    """Read, with notes that match ``said``."""
    return Outcome((0,), said, also)


def refused(*said: str) -> Outcome:
    """Stopped before any work by one line that matches all of ``said``."""
    return Outcome((2,), said)


def named(*said: str) -> Outcome:
    """Read or refused: it is said in either."""
    return Outcome((0, 2), said, (".",))


ANY = fine(".")
"""Read; what is said is another case's matter."""


@dataclass(frozen=True)
class Case:
    """A file, and what the commands do with it."""

    row: str
    """The row of its kind; the first case of a row stands for it."""
    name: str
    make: Maker
    outcome: Outcome
    sets: tuple[str, ...] = ()
    """Overrides, as for ``--set``: only training takes them."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was read, see :func:`facts_of`."""
    but: dict[str, Outcome | None] = field(default_factory=dict)
    """Other outcomes of single commands; None: not asked."""
    predicted: int | None = None
    """Number of predictions, where it is known."""

    def of(self, command: str) -> Outcome | None:
        if command in self.but:
            return self.but[command]
        return self.outcome if not self.sets or command in ("load", "train") else None

    def __str__(self) -> str:
        return f"{self.row}: {self.name}"


WORDS = ("calm", "grief", "mirth")
"""Classes."""
NOT_READ: dict[str, Outcome | None] = {"predict": ANY}
"""Labels that no prediction needs."""
OTHER_TARGET: dict[str, Outcome | None] = {"evaluate": None, "predict": ANY}
"""A run of an intensity is not scored on classes."""


def pulse(split: Any, name: str) -> None:
    split["pulse"] = features(f"{name} pulse", len(split["id"]), 2)


def vector(name: str, count: int) -> np.ndarray:
    """[N, D]: one step."""
    return features(name, count, 2)[:, 0]


def bert(count: int, _: str) -> np.ndarray:
    """MMSA's ids, mask and segments of word pieces, [N, 3, L]."""
    pieces = np.zeros((count, 3, STEPS), np.int64)
    pieces[:, 0], pieces[:, 1] = 2023, 1
    return pieces


def halves(i: int) -> float:
    return float(i % 2)


def long(steps: int) -> Maker:
    return pickled(
        lambda: {
            "id": ["me$_$0", "me$_$1"],
            **{m: [features(m, 1, d, n)[0] for n in (steps, 4)] for m, d in DIMS.items()},
        }
    )


def one_clip(steps: int = STEPS, **more: Any) -> dict[str, Any]:
    return {**more, **{m: features(m, 1, d, steps)[0] for m, d in DIMS.items()}}


def utterances(count: int, key: Callable[[int], Any], **value: Any) -> Maker:
    return pickled({key(i): value or {"text": np.zeros((2, 6), np.float32), "label": 0.0} for i in range(count)})


def zipped(name: str, *members: str) -> Maker:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member in members:
                archive.writestr(member, "<x/>")
        return folder / name

    return make


def strings(split: Any, _: str) -> None:
    split["regression_labels"] = [f"{x:.2f}" for x in split["regression_labels"]]


def said_value(text: str) -> Any:
    """Labels as text, one of which is no number."""

    def change(split: Any, name: str) -> None:
        strings(split, name)
        split["regression_labels"][2] = text

    return change


def unlabeled(value: Any) -> Any:
    """Every third label of training is ``value``."""

    def change(split: Any, _: str) -> None:
        found = split["regression_labels"].tolist()
        found[::3] = [value] * len(found[::3])
        split["regression_labels"] = np.array(found, np.float32) if isinstance(value, float) else found

    return change


def pool_named(name: str, *changes: Any) -> Maker:
    def content() -> Any:
        pool = columns("pool", 5)
        for change in changes or (without("regression_labels"),):
            change(pool, "pool")
        return {**corpus(), name: pool}

    return pickled(content)


FIRST = "trainfilm0$_$0"
CLEAN = {"splits": COUNTS, "dims": DIMS, "kind": "intensity", "pool": 0}
MODALITIES = "data.modalities=[text, audio, vision, pulse]"
WITH_PULSE = {"dims": {**DIMS, "pulse": 2}}
PULSE = says(r"'pulse'.*data\.modalities")
NO_SPLIT = named(r"data\.split")
TOKENS = refused(r"'text'", r"token", r"text_bert")
CLASSES_OF_TEXT = {"kind": "classes", "names": list(WORDS)}
THREE = labels(lambda i: WORDS[(i * 2) % 3], "feeling")
UNLABELED = {"labeled": {"train": 8, "valid": 6, "test": 6}, "unlabeled": 4}
BAD_AUDIO = refused(r"'?audio'?", r"NaN", r"data\.nan", r"\b[2369]\b")
BAD_NUMBER = refused(r"'?audio'?", r"1e\+?300|float32|too large")
TRANSPOSED = refused(r"'?audio'?", r"transposed")

CASES = [
    # Nothing is said of a file without fault
    Case("clean", "three splits", each(), fine(), facts=CLEAN, predicted=ALL),
    Case("clean", "float16", each(put(audio=lambda n, s: features(s, n, 3).astype(np.float16))), fine(), facts=CLEAN),
    Case(
        "clean",
        "MMSA's other columns",
        each(
            put(
                annotations=lambda n, _: ["Negative"] * (n // 2) + ["Positive"] * (n // 2),
                classification_labels=lambda n, _: np.arange(n) * 2 // n * 2,
                text_bert=bert,
                audio_lengths=lambda n, _: [STEPS] * n,
                vision_lengths=lambda n, _: [STEPS] * n,
            )
        ),
        fine(),
        facts=CLEAN,
    ),
    Case(
        "clean",
        "labels [N, 1]",
        each(put(regression_labels=lambda n, _: np.linspace(-3, 3, n)[:, None])),
        fine(),
        facts=CLEAN,
    ),
    Case(
        "clean", "audio on a scale of thousands", each(put(audio=lambda n, s: 3000 + 900 * features(s, n, 3))), fine()
    ),
    Case("clean", "audio with a long tail", each(put(audio=lambda n, s: np.exp(2 * features(s, n, 3)))), fine()),
    Case("clean", "whole numbers", each(labels(lambda i: float(i % 7 - 3))), fine(), facts=CLEAN),
    Case("clean", "a rounded end", each(labels(lambda i: 3.0000002 if i == 3 else i / 3 - 2.9)), fine(), facts=CLEAN),
    Case("clean", "one clip per video", each(ids(lambda i, s: f"{s}{i}$_$0")), fine()),
    # Names of modalities
    Case(
        "alias",
        "visual and acoustic",
        each(rename(vision="visual", audio="acoustic")),
        says(r"'visual'.*vision", r"'acoustic'.*audio"),
        facts=CLEAN,
        predicted=ALL,
    ),
    Case("alias", "in one split", each(rename(vision="visual"), only=["test"]), says(r"'visual'.*vision"), facts=CLEAN),
    Case("alias", "capitals", each(rename(vision="Vision", text="TEXT")), says("Vision", "TEXT"), facts=CLEAN),
    Case("alias", "both names", each(put(visual=lambda n, s: features(s, n, 9))), says("'visual'"), facts=CLEAN),
    Case(
        "alias",
        "with lengths",
        each(rename(vision="visual"), put(visual_lengths=lambda n, _: [2] * n)),
        says(r"'visual'.*vision"),
        facts={"dims": DIMS, "lengths": {FIRST: {"text": STEPS, "audio": STEPS, "vision": 2}}},
    ),
    *(
        Case("alias", f"the name {name} may mean more", each(rename(**{old: name})), says(rf"'{name}'", also=(old,)))
        for old, name in (
            ("vision", "video"),
            ("vision", "facial"),
            ("vision", "facet"),
            ("audio", "speech"),
            ("audio", "covarep"),
            ("text", "language"),
            ("text", "glove"),
        )
    ),
    # More modalities
    Case("fourth", "pulse", each(pulse), PULSE, facts=CLEAN, predicted=ALL),
    Case("fourth", "named", each(pulse), fine(), (MODALITIES,), facts=WITH_PULSE),
    Case("fourth", "auto", each(pulse), fine(), ("data.modalities=auto",), facts=WITH_PULSE),
    Case("fourth", "list", each(put(pulse=lambda n, s: ragged(s, n, 2))), PULSE, facts=CLEAN),
    Case("fourth", "one step", each(put(pulse=lambda n, s: vector(s, n))), PULSE, facts=CLEAN),
    Case(
        "fourth",
        "one step, named",
        each(put(pulse=lambda n, s: vector(s, n))),
        fine(),
        (MODALITIES,),
        facts={**WITH_PULSE, "lengths": {FIRST: {**dict.fromkeys(DIMS, STEPS), "pulse": 1}}},
    ),
    Case("fourth", "in one split", each(pulse, only=["test"]), PULSE, facts=CLEAN),
    Case("fourth", "lists of lists", each(put(pulse=lambda n, s: features(s, n, 2).tolist())), PULSE, facts=CLEAN),
    Case("fourth", "integers", each(put(pulse=lambda n, _: np.ones((n, 4, 2), np.int16))), PULSE, facts=CLEAN),
    Case("fourth", "with lengths", each(pulse, put(pulse_lengths=lambda n, _: [3] * n)), PULSE, facts=CLEAN),
    Case(
        "fourth",
        "two of them",
        each(pulse, put(gaze=lambda n, s: features(s, n, 3))),
        says(r"'?pulse'?", r"'?gaze'?"),
        facts=CLEAN,
    ),
    Case(
        "fourth",
        "none of the usual",
        each(pulse, put(gaze=lambda n, s: features(s, n, 3)), without("text", "audio", "vision")),
        fine(),
        ("data.modalities=auto",),
        facts={"dims": {"pulse": 2, "gaze": 3}},
    ),
    Case(
        "fourth",
        "another label",
        each(put(arousal=lambda n, _: np.linspace(0, 1, n))),
        says("'?arousal'?"),
        facts=CLEAN,
        but={"evaluate": ANY, "predict": ANY},
    ),
    Case(
        "lacks",
        "a modality of the run",
        each(without("audio")),
        ANY,
        but={"evaluate": says("audio"), "predict": says("audio")},
    ),
    Case(
        "lacks",
        "a modality of training, in test",
        each(without("audio"), only=["test"]),
        says("audio"),
        but={"predict": ANY, "info": ANY, "import": ANY},
    ),
    # Text that is no features
    Case(
        "text_bert",
        "alone",
        each(without("text"), put(text_bert=bert)),
        says(r"text_bert", also=("text",)),
        facts={"dims": {"audio": 3, "vision": 4}},
    ),
    Case("text_bert", "raw_text beside others", each(without("text")), says(r"raw_text|\btext\b")),
    Case(
        "raw_text",
        "alone",
        each(without(*DIMS)),
        refused(r"raw_text"),
        but={"info": named("raw_text"), "check": named("raw_text")},
    ),
    Case("raw_text", "without raw_text", each(without("raw_text")), fine(), facts=CLEAN),
    Case("tokens", "ids", each(put(text=lambda n, s: rng_of(s).integers(0, 30000, (n, 40)))), TOKENS),
    Case(
        "tokens",
        "as floats",
        each(put(text=lambda n, s: rng_of(s).integers(0, 30000, (n, 40)).astype(np.float32))),
        TOKENS,
    ),
    Case(
        "tokens", "as doubles", each(put(text=lambda n, s: rng_of(s).integers(0, 30000, (n, 40)).astype(float))), TOKENS
    ),
    Case(
        "tokens",
        "lists",
        each(put(text=lambda n, s: [rng_of(s).integers(0, 9999, 4 + i).tolist() for i in range(n)])),
        TOKENS,
    ),
    Case(
        "tokens",
        "with mask and segments",
        each(put(text=lambda n, s: rng_of(s).integers(0, 30000, (n, 3, 40)))),
        TOKENS,
    ),
    Case("tokens", "one per step", each(put(text=lambda n, s: rng_of(s).integers(0, 30000, (n, 40, 1)))), TOKENS),
    Case("tokens", "not counts of words", each(put(text=lambda n, s: rng_of(s).integers(0, 4, (n, 6)))), fine()),
    Case(
        "tokens",
        "not action units",
        each(put(vision=lambda n, s: rng_of(s).integers(0, 6, (n, STEPS, 4)))),
        fine(),
        facts=CLEAN,
    ),
    # Labels on another scale
    Case("binary", "0 and 1", each(labels(halves)), says(r"target\.kind"), facts={"kind": "intensity"}, but=NOT_READ),
    Case(
        "binary",
        "-1 and 1",
        each(labels(lambda i: 2 * halves(i) - 1)),
        says(r"target\.kind", also=("target",)),
        but=NOT_READ,
    ),
    Case("binary", "truth values", each(labels(lambda i: bool(i % 2))), says(r"target\.kind"), but=NOT_READ),
    Case(
        "binary",
        "integers",
        each(put(regression_labels=lambda n, _: np.arange(n) % 2)),
        says(r"target\.kind"),
        but=NOT_READ,
    ),
    Case(
        "binary",
        "as classes",
        each(labels(halves)),
        fine(),
        ("target.kind=classes",),
        facts={"kind": "classes", "classes": ["0", "1"], "labels": {FIRST: 0, "trainfilm0$_$1": 1}},
    ),
    Case(
        "binary",
        "-1 and 1 as classes",
        each(labels(lambda i: 2 * halves(i) - 1)),
        fine(),
        ("target.kind=classes",),
        facts={"kind": "classes", "classes": ["-1", "1"], "labels": {FIRST: 0, "trainfilm0$_$1": 1}},
    ),
    Case(
        "binary",
        "truth values as classes",
        each(labels(lambda i: bool(i % 2))),
        fine(),
        ("target.kind=classes",),
        facts={"kind": "classes", "labels": {FIRST: 0, "trainfilm0$_$1": 1}},
    ),
    Case(
        "binary",
        "three values",
        each(labels(lambda i: float(i % 3 - 1))),
        says(r"target\.(kind|range|preset)"),
        but=NOT_READ,
    ),
    Case("binary", "one value", each(labels(lambda i: 0.5)), says(r"regression_labels|label"), but=NOT_READ),
    Case(
        "narrow",
        "[-1, 1]",
        each(labels(lambda i: (i % 6) / 2.6 - 0.96)),
        says(r"target\.(range|preset)"),
        facts={"kind": "intensity"},
        but=NOT_READ,
    ),
    Case("narrow", "[0, 1]", each(labels(lambda i: (i % 6) / 5.1)), says(r"target\.range"), but=NOT_READ),
    Case(
        "narrow",
        "[-1, 1] in test",
        each(labels(lambda i: i / 2.6 - 0.96), only=["test"]),
        says(r"test.*target\.range"),
        but=NOT_READ,
    ),
    Case("narrow", "not [-2.4, 2.4]", each(labels(lambda i: (i % 6) / 1.25 - 1.6 if i else 2.4)), fine(), but=NOT_READ),
    Case(
        "narrow",
        "with its range",
        each(labels(lambda i: (i % 6) / 2.6 - 0.96)),
        fine(),
        ("target.range=[-1, 1]",),
        facts={"kind": "intensity", "range": [-1, 1], "labels": {FIRST: -0.96}},
    ),
    Case(
        "narrow",
        "with its preset",
        each(labels(lambda i: (i % 6) / 2.6 - 0.96)),
        fine(),
        ("target.preset=sims",),
        facts={"kind": "intensity", "range": [-1, 1], "labels": {FIRST: -0.96}},
    ),
    Case(
        "wide",
        "1 to 5",
        each(labels(lambda i: 1.0 + i % 5)),
        refused(r"regression_labels", r"target\.range"),
        but=NOT_READ,
    ),
    Case("wide", "per cent", each(labels(lambda i: 16.0 * (i % 6))), refused(r"target\.range"), but=NOT_READ),
    Case(
        "wide",
        "one value in valid",
        each(labels(lambda i: 4.0), only=["valid"]),
        refused(r"valid", r"target\.range"),
        but={**NOT_READ, "evaluate": None},
    ),
    Case(
        "wide",
        "1 to 5 with its range",
        each(labels(lambda i: 1.0 + i % 5)),
        fine(),
        ("target.range=[1, 5]",),
        facts={"kind": "intensity", "range": [1, 5], "labels": {FIRST: 1.0, "trainfilm1$_$1": 5.0}},
    ),
    Case(
        "wide",
        "per cent with its range",
        each(labels(lambda i: 20.0 * (i % 6))),
        fine(),
        ("target.range=[0, 100]",),
        facts={"range": [0, 100], "labels": {"trainfilm1$_$2": 100.0}},
    ),
    Case(
        "wide",
        "beyond its range",
        each(labels(lambda i: 1.0 + i % 5)),
        refused(r"target\.range"),
        ("target.range=[1, 4]",),
    ),
    # Classes
    Case(
        "classes",
        "words beside an intensity",
        each(THREE),
        says(r"'?feeling'?.*target\.field"),
        facts=CLEAN,
        but={"evaluate": ANY, "predict": ANY},
        predicted=ALL,
    ),
    Case(
        "classes",
        "by field",
        each(THREE),
        fine(),
        ("target.field=feeling",),
        facts={**CLASSES_OF_TEXT, "class": {FIRST: "calm", "trainfilm0$_$1": "mirth"}},
    ),
    Case(
        "classes",
        "numbers alone",
        each(without("regression_labels"), put(classification_labels=lambda n, _: np.arange(n) % 3)),
        fine("classes|classification_labels"),
        facts={"kind": "classes", "classes": ["0", "1", "2"], "labels": {"trainfilm0$_$2": 2}},
        but=OTHER_TARGET,
    ),
    Case(
        "classes",
        "words alone",
        each(without("regression_labels"), THREE, rename(feeling="emotion")),
        fine("classes|emotion"),
        facts=CLASSES_OF_TEXT,
        but=OTHER_TARGET,
    ),
    Case(
        "classes",
        "words as label",
        each(without("regression_labels"), THREE, rename(feeling="label")),
        fine("classes|label"),
        facts=CLASSES_OF_TEXT,
        but=OTHER_TARGET,
    ),
    Case(
        "classes",
        "annotations alone",
        each(
            without("regression_labels"), put(annotations=lambda n, _: ["Negative", "Neutral", "Positive"] * (n // 3))
        ),
        fine("classes|annotations"),
        facts={"kind": "classes", "names": ["Negative", "Neutral", "Positive"]},
        but=OTHER_TARGET,
    ),
    Case(
        "classes",
        "a gap",
        each(labels(lambda i: (0, 2, 5)[i % 3], "grade"), without("regression_labels")),
        fine("classes"),
        ("target.kind=classes", "target.field=grade"),
        facts={"kind": "classes", "classes": ["0", "2", "5"], "labels": {"trainfilm0$_$2": 2}},
    ),
    Case(
        "classes",
        "listed",
        each(THREE),
        fine(),
        ("target.field=feeling", "target.classes=[mirth, grief, calm]"),
        facts={"kind": "classes", "classes": ["mirth", "grief", "calm"], "labels": {FIRST: 2, "trainfilm0$_$1": 0}},
    ),
    Case(
        "classes",
        "one not listed",
        each(THREE),
        refused(r"'?grief'?", r"target\.classes"),
        ("target.field=feeling", "target.classes=[mirth, calm]"),
    ),
    Case(
        "classes",
        "one in test alone",
        by_split(train=THREE, valid=THREE, test=labels(lambda i: "awe" if i == 1 else "calm", "feeling")),
        named(r"'?awe'?"),
        ("target.field=feeling",),
    ),
    Case(
        "classes",
        "two cases of a word",
        each(labels(lambda i: ("mirth", "Mirth", "calm")[i % 3], "feeling")),
        named(r"Mirth"),
        ("target.field=feeling",),
    ),
    Case("classes", "an intensity as classes", each(), refused(r"target\.kind"), ("target.kind=classes",)),
    Case(
        "classes",
        "no such field",
        each(THREE),
        refused(r"feelings", r"target\.field", r"feeling\b"),
        ("target.field=feelings",),
    ),
    Case(
        "classes",
        "words as an intensity",
        each(THREE),
        refused(r"feeling", r"target\.kind"),
        ("target.field=feeling", "target.kind=intensity"),
    ),
    Case(
        "classes",
        "some without",
        by_split(train=labels(lambda i: WORDS[i % 4] if i % 4 < 3 else None, "feeling"), valid=THREE, test=THREE),
        says(r"\b3\b.*pool|pool.*\b3\b"),
        ("target.field=feeling",),
        facts={"unlabeled": 3, **CLASSES_OF_TEXT},
    ),
    *(
        Case("label", name, each(rename(regression_labels=name)), fine(name), facts={**CLEAN, "labels": {FIRST: -2.9}})
        for name in ("labels", "label", "sentiment")
    ),
    Case("label", "y", each(rename(regression_labels="y")), refused(r"target\.field", r"\by\b"), but={"predict": ANY}),
    Case("label", "y, by field", each(rename(regression_labels="y")), fine(), ("target.field=y",), facts=CLEAN),
    # Labels of another shape or type
    Case(
        "columns",
        "seven",
        each(put(regression_labels=lambda n, s: features(s, n, 7)[:, 0])),
        refused(r"regression_labels", r"\[12, 7\]|\(12, 7\)", r"target\.\w+"),
        but=NOT_READ,
    ),
    Case(
        "columns",
        "seven, an axis more",
        each(put(regression_labels=lambda n, s: features(s, n, 7)[:, :1])),
        refused(r"12, 1, 7", r"target\.\w+"),
        but=NOT_READ,
    ),
    Case(
        "columns",
        "seven in lists",
        each(put(regression_labels=lambda n, s: features(s, n, 7)[:, 0].tolist())),
        refused(r"12, 7", r"target\.\w+"),
        but=NOT_READ,
    ),
    Case(
        "columns",
        "one, two axes more",
        each(put(regression_labels=lambda n, _: np.linspace(-3, 3, n).reshape(n, 1, 1))),
        fine(),
        facts=CLEAN,
    ),
    Case("strings", "numbers", each(strings), fine(), facts={**CLEAN, "labels": {FIRST: -2.9}}),
    Case(
        "strings",
        "spaces",
        each(put(regression_labels=lambda n, _: [f" {x:+.1e} " for x in np.linspace(-3, 3, n)])),
        fine(),
        facts={**CLEAN, "labels": {FIRST: -3.0}},
    ),
    Case(
        "strings",
        "bytes",
        each(put(regression_labels=lambda n, _: [b"%.1f" % x for x in np.linspace(-3, 3, n)])),
        fine(),
        facts=CLEAN,
    ),
    Case(
        "strings",
        "NumPy's",
        each(put(regression_labels=lambda n, _: np.array([f"{x:.1f}" for x in np.linspace(-3, 3, n)]))),
        fine(),
        facts=CLEAN,
    ),
    Case(
        "strings",
        "no number",
        each(said_value("see note"), only=["test"]),
        refused(r"'see note'", r"testfilm0\$_\$2"),
        but=NOT_READ,
    ),
    Case("strings", "a comma", each(said_value("1,5")), refused(r"'1,5'"), but=NOT_READ),
    Case(
        "strings",
        "empty ones of training",
        each(said_value(""), only=["train"]),
        says(r"\b1\b.*pool|pool.*\b1\b"),
        facts={"unlabeled": 1},
        but=NOT_READ,
    ),
    # Unlabeled utterances
    Case(
        "unlabeled",
        "NaN",
        each(unlabeled(np.nan), only=["train"]),
        says(r"\b4\b.*pool|pool.*\b4\b"),
        facts=UNLABELED,
        but={**NOT_READ, "evaluate": ANY},
        predicted=ALL,
    ),
    Case(
        "unlabeled",
        "None",
        each(unlabeled(None), only=["train"]),
        says(r"\b4\b.*pool|pool.*\b4\b"),
        facts=UNLABELED,
        but=NOT_READ,
    ),
    Case(
        "unlabeled",
        "in valid",
        each(unlabeled(np.nan), only=["valid"]),
        refused(r"valid", r"regression_labels", r"NaN|no label|unlabeled"),
        but={**NOT_READ, "evaluate": ANY},
    ),
    Case(
        "unlabeled",
        "None in test",
        each(unlabeled(None), only=["test"]),
        refused(r"test", r"regression_labels", r"None|no label|unlabeled"),
        but=NOT_READ,
    ),
    Case(
        "unlabeled",
        "all of training",
        each(labels(lambda i: float("nan")), only=["train"]),
        refused(r"train", r"label"),
        but={**NOT_READ, "evaluate": None, "info": ANY, "check": None, "import": ANY},
    ),
    *(
        Case(
            "pool",
            name,
            pool_named(name),
            says(rf"'?{name}'?.*\b5\b|\b5\b.*'?{name}'?"),
            facts={**CLEAN, "pool": 5},
            predicted=ALL + 5,
        )
        for name in ("unlabeled", "pool", "unlabelled", "Unlabeled")
    ),
    Case("pool", "unsup", pool_named("unsup"), says(r"'?unsup'?"), facts={"splits": COUNTS}),
    Case(
        "pool", "with labels", pool_named("pool", put()), says(r"'?pool'?"), facts={**CLEAN, "pool": 5, "unlabeled": 5}
    ),
    Case(
        "pool",
        "NaN as its labels",
        pool_named("unlabeled", labels(lambda i: float("nan"))),
        says(r"unlabeled.*\b5\b|\b5\b.*unlabeled"),
        facts={**CLEAN, "pool": 5},
    ),
    Case("pool", "no pool: another split", pool_named("extra", put()), says(r"'?extra'?"), facts={**CLEAN, "pool": 0}),
    Case(
        "pool",
        "a note beside the splits",
        pickled(lambda: {**corpus(), "meta": {"made by": "me"}, "version": 3}),
        fine("meta|version"),
        facts=CLEAN,
    ),
    # Values that are no features
    Case(
        "nan",
        "audio",
        each(at("audio", ([1, 1, 4], [0, 2, 3], [1, 1, 2]), np.nan)),
        BAD_AUDIO,
        but={"predict": says(r"film0\$_\$1|\b6\b", also=(".",)), "check": refused("audio", "NaN"), "info": ANY},
    ),
    Case(
        "nan",
        "zero",
        each(at("audio", (1, 0, 1), np.nan)),
        says(r"audio.*\b3\b|\b3\b.*audio"),
        ("data.nan=zero",),
        facts={"finite": True, "splits": COUNTS},
    ),
    Case(
        "nan",
        "drop",
        each(at("audio", (1, 0, 1), np.nan)),
        says(r"audio.*\b3\b|\b3\b.*audio"),
        ("data.nan=drop",),
        facts={"finite": True},
    ),
    Case(
        "nan",
        "in text",
        each(at("text", (1, 0, 1), np.nan), only=["test"]),
        refused("'?text'?", "NaN", r"data\.nan"),
        but={"predict": ANY, "check": refused("text", "NaN")},
    ),
    Case(
        "nan",
        "infinite vision",
        each(at("vision", (1, 0, 1), np.inf), only=["valid"]),
        refused("'?vision'?", "inf", r"data\.nan"),
        but={"predict": ANY, "evaluate": None, "check": refused("vision", "inf")},
    ),
    Case(
        "nan",
        "infinite vision, zero",
        each(at("vision", (1, 0, 1), -np.inf)),
        says("vision"),
        ("data.nan=zero",),
        facts={"finite": True},
    ),
    Case(
        "nan",
        "doubles in a list",
        each(put(text=lambda n, s: [x.astype(float) * np.nan for x in ragged(s, n, 6)])),
        refused("'?text'?", "NaN"),
        but={"predict": None, "check": refused("text", "NaN")},
    ),
    Case(
        "nan",
        "in padding",
        each(at("audio", (1, 4, 1), np.nan), put(audio_lengths=lambda n, _: [3] * n)),
        ANY,
        facts={"finite": True, "splits": COUNTS},
    ),
    Case(
        "overflow", "audio", each(at("audio", (0, 0, 0), 1e300, float)), BAD_NUMBER, but={"predict": ANY, "info": ANY}
    ),
    Case(
        "overflow",
        "vision in test",
        each(at("vision", (0, 0, 0), -1e200, float), only=["test"]),
        refused("vision", r"1e\+?200|float32|too large"),
        but={"predict": ANY, "info": ANY},
    ),
    Case(
        "overflow",
        "text in a list",
        each(put(text=lambda n, s: [x.astype(float) * 1e99 for x in ragged(s, n, 6)])),
        refused("text", r"e\+?\d\d|float32|too large"),
        but={"predict": None, "info": ANY},
    ),
    Case(
        "outlier",
        "audio",
        each(at("audio", (1, 0, 0), 2e38), only=["train"]),
        says(r"'?audio'?"),
        facts=CLEAN,
        predicted=ALL,
    ),
    Case("outlier", "vision", each(at("vision", (1, 0, 0), -1e30), only=["train"]), says(r"'?vision'?"), facts=CLEAN),
    # Shapes
    Case(
        "axis",
        "list",
        each(put(text=lambda n, s: [x[None] for x in features(s, n, 6)])),
        fine(),
        facts={**CLEAN, "steps": STEPS},
        predicted=ALL,
    ),
    Case(
        "axis",
        "ragged",
        each(put(audio=lambda n, s: [x[None] for x in ragged(s, n, 3)])),
        fine(),
        facts={"dims": DIMS, "lengths": {"trainfilm0$_$2": {"text": STEPS, "audio": 5, "vision": STEPS}}},
    ),
    Case(
        "axis",
        "one array",
        each(put(vision=lambda n, s: features(s, n, 4)[:, None])),
        fine(),
        facts={**CLEAN, "steps": STEPS},
    ),
    Case(
        "axis",
        "in the middle",
        each(put(vision=lambda n, s: features(s, n, 4)[:, :, None])),
        fine(),
        facts={**CLEAN, "steps": STEPS},
    ),
    Case(
        "axis", "one step", each(put(audio=lambda n, s: [x[None, :1] for x in features(s, n, 3)])), fine(), facts=CLEAN
    ),
    Case(
        "axis",
        "too many",
        each(put(vision=lambda n, s: features(s, n, 4)[:, :, None].repeat(2, 2))),
        refused("vision", r"2, 4"),
    ),
    Case(
        "transposed",
        "list",
        each(put(audio=lambda n, s: [x.T for x in ragged(s, n, 3)])),
        TRANSPOSED,
        but={"predict": named("audio"), "info": named("transposed")},
    ),
    Case(
        "transposed",
        "arrays, test shorter",
        each(put(audio=lambda n, s: features(s, n, 3, 3 + len(s)).transpose(0, 2, 1))),
        TRANSPOSED,
        but={"evaluate": named("audio"), "predict": named("audio"), "info": named("transposed")},
    ),
    # Splits
    *(
        Case(
            "dev",
            dev,
            splits(**{train_: "train", dev: "valid", test_: "test"}),
            fine("valid"),
            facts=CLEAN,
            predicted=ALL,
        )
        for train_, dev, test_ in (
            ("train", "dev", "test"),
            ("train", "val", "test"),
            ("training", "validation", "testing"),
            ("Train", "Dev", "Test"),
            ("train", "development", "test"),
        )
    ),
    Case(
        "dev",
        "dev and valid",
        pickled(lambda: {**corpus(), "dev": columns("dev", 3)}),
        named(r"'?dev'?"),
        but={"evaluate": ANY, "predict": ANY},
    ),
    Case(
        "no valid",
        "train and test",
        splits(train="train", test="test"),
        NO_SPLIT,
        but={"evaluate": ANY, "predict": fine(), "info": ANY, "check": ANY, "import": ANY},
        predicted=18,
    ),
    Case(
        "no valid",
        "split",
        splits(train="train", test="test"),
        says(r"valid"),
        ("data.split={valid: 0.25}",),
        facts={"parts": 12, "test": 6, "apart": True},
    ),
    Case(
        "no valid",
        "train alone",
        splits(train="train"),
        NO_SPLIT,
        but={"evaluate": refused("train"), "predict": fine(), "info": ANY, "check": ANY, "import": ANY},
    ),
    Case(
        "flat",
        "columns",
        flat(),
        NO_SPLIT,
        but={"evaluate": ANY, "predict": fine(), "info": ANY, "check": ANY, "import": ANY},
        predicted=12,
    ),
    Case(
        "flat",
        "split",
        flat(count=18),
        says(r"\bvalid\b"),
        ("data.split={valid: 0.2, test: 0.2}",),
        facts={"all": 18, "apart": True, "full": True},
    ),
    Case(
        "flat",
        "split by speaker",
        flat(put(speaker=lambda n, _: [f"p{i % 6}" for i in range(n)]), count=18),
        says(r"speaker"),
        ("data.split={valid: 0.2, test: 0.2, by: speaker}",),
        facts={"all": 18, "speakers apart": True, "full": True},
    ),
    Case(
        "flat",
        "a column split",
        flat(put(split=lambda n, _: ["train", "train", "dev", "test"] * (n // 4))),
        fine("valid"),
        facts={"splits": {"train": 6, "valid": 3, "test": 3}},
        but={"evaluate": ANY},
        predicted=12,
    ),
    Case(
        "flat",
        "a column fold",
        flat(put(fold=lambda n, _: [str(i % 3) for i in range(n)])),
        NO_SPLIT,
        but={"evaluate": ANY, "predict": fine("fold"), "info": ANY, "check": ANY, "import": ANY},
    ),
    Case(
        "no test",
        "train and valid",
        splits(train="train", valid="valid"),
        NO_SPLIT,
        but={"evaluate": ANY, "predict": fine(), "info": ANY, "check": ANY, "import": ANY},
        predicted=18,
    ),
    Case("flat", "no need to split", each(), named(r"data\.split"), ("data.split={valid: 0.2, test: 0.2}",)),
    # Ids
    Case(
        "ids",
        "without a clip",
        each(ids(lambda i, s: f"{s}dia{i // 3}_utt{i % 3}")),
        says(r"data\.video_from"),
        facts=CLEAN,
        predicted=ALL,
    ),
    Case(
        "ids",
        "IEMOCAP's",
        each(ids(lambda i, s: f"Ses01F_{s}{i // 3}_F{i % 3:03d}")),
        says(r"data\.video_from"),
        facts=CLEAN,
    ),
    Case(
        "ids",
        "numbers",
        each(ids(lambda i, s: i + 100 * list(COUNTS).index(s))),
        says(r"data\.video_from"),
        facts=CLEAN,
    ),
    Case(
        "ids",
        "in one split",
        each(ids(lambda i, s: f"{s}{i}"), only=["train"]),
        says(r"train.*data\.video_from|data\.video_from.*train"),
        facts=CLEAN,
    ),
    Case(
        "ids",
        "by pattern",
        each(ids(lambda i, s: f"{s}dia{i // 3}_utt{i % 3}")),
        fine(),
        (r"data.video_from='^(\w+dia\d+)_utt(\d+)$'",),
        facts={"videos": {"traindia1_utt2": "traindia1"}},
    ),
    Case(
        "ids",
        "by field",
        each(ids(lambda i, s: f"{s}{i}"), put(scene=lambda n, s: [f"{s}scene{i // 4}" for i in range(n)])),
        fine(),
        ("data.video_from=scene",),
        facts={"videos": {"train5": "trainscene1"}},
    ),
    Case(
        "ids",
        "no such field",
        each(ids(lambda i, s: f"{s}{i}")),
        refused(r"data\.video_from", "scene"),
        ("data.video_from=scene",),
    ),
    Case(
        "ids",
        "tuples",
        each(ids(lambda i, s: (f"{s}film{i // 3}", i % 3))),
        fine(),
        facts={**CLEAN, "videos": {"trainfilm1$_$2": "trainfilm1"}},
    ),
    Case(
        "ids",
        "speakers",
        each(put(speaker=lambda n, _: [f"p{i % 2}" for i in range(n)])),
        fine(),
        facts={**CLEAN, "speakers": {FIRST: "p0", "trainfilm0$_$1": "p1"}},
    ),
    # Other containers
    Case("utterances", "a dict of them", utterances(1200, lambda i: f"bit{i:04d}$_$0"), refused(r"1,?200", r"bit0000")),
    Case("utterances", "numbers as keys", utterances(1200, lambda i: i), refused(r"\b[01]\b", r"1,?200|text")),
    Case("utterances", "pairs as keys", utterances(1200, lambda i: (f"bit{i}", i)), refused(r"bit0")),
    Case("utterances", "long keys", utterances(40, lambda i: f"{i}" + "x" * 5000), refused(r"\b40\b")),
    Case(
        "utterances",
        "arrays",
        pickled({f"bit{i}": np.zeros((3, 6), np.float32) for i in range(300)}),
        refused(r"\b300\b|bit0"),
    ),
    Case(
        "mag_bert",
        "brackets",
        mag_bert(lambda s, i: f"{s}film{i // 3}[{i % 3}]"),
        says(r"text|words", also=("vision|visual|audio|acoustic",)),
        facts={
            "splits": COUNTS,
            "dims": {"audio": 3, "vision": 4},
            "labels": {FIRST: -2.9},
            "videos": {FIRST: "trainfilm0"},
            "texts": {FIRST: "so it goes on ."},
        },
        predicted=ALL,
    ),
    Case(
        "mag_bert",
        "no clip",
        mag_bert(lambda s, i: f"{s}film{i}"),
        says(r"text|words", r"data\.video_from", also=("vision|visual|audio|acoustic",)),
        facts={"splits": COUNTS, "dims": {"audio": 3, "vision": 4}},
    ),
    Case(
        "mag_bert",
        "lists",
        mag_bert(lambda s, i: f"{s}film{i // 3}[{i % 3}]", list),
        says(r"text|words", also=("vision|visual|audio|acoustic",)),
        facts={"splits": COUNTS, "labels": {FIRST: -2.9}},
    ),
    Case(
        "mult",
        "labels and parts of ids",
        mult(),
        fine("label"),
        facts={**CLEAN, "label": ("train", 0, -2.9), "video": ("train", 4, "trainfilm1")},
        predicted=ALL,
    ),
    Case("mult", "label", mult(rename(labels="label")), fine("label"), facts=CLEAN),
    Case(
        "mult",
        "seven columns",
        mult(put(labels=lambda n, s: features(s, n, 7)[:, :1])),
        refused("labels", r"12, 1, 7"),
        but=NOT_READ,
    ),
    Case(
        "mult",
        "ids of bytes",
        mult(lambda split, _: split.update(id=np.array(split["id"]).astype("S"))),
        fine("label"),
        facts=CLEAN,
    ),
    Case(
        "single",
        "MMSA-FET's",
        pickled(one_clip(config={"audio": {"tool": "none"}})),
        refused("."),
        but={"predict": fine("id|config"), "info": ANY, "check": ANY, "import": ANY},
        predicted=1,
    ),
    Case(
        "single",
        "with its id",
        pickled(one_clip(id="me$_$0")),
        refused("."),
        but={"predict": fine(), "info": ANY, "check": ANY, "import": ANY},
        predicted=1,
    ),
    Case(
        "single",
        "an axis more",
        pickled({m: x[None] for m, x in one_clip().items()}),
        refused("."),
        but={"predict": fine("id"), "info": ANY, "check": ANY, "import": ANY},
        predicted=1,
    ),
    Case(
        "single",
        "one modality",
        pickled({"audio": features("a", 1, 3)[0]}),
        refused("."),
        but={"predict": says("text|vision", also=("id",)), "info": ANY, "check": ANY, "import": ANY},
        predicted=1,
    ),
    Case(
        "single",
        "visual",
        pickled({"visual": features("v", 1, 4)[0]}),
        refused("."),
        but={"predict": says("visual", also=(".",)), "info": ANY, "check": ANY, "import": ANY},
        predicted=1,
    ),
    Case(
        "long",
        "longer than in training",
        long(70),
        refused("."),
        but={"predict": fine(r"me\$_\$0|positions|long"), "info": ANY, "check": ANY, "import": ANY},
        predicted=2,
    ),
    Case("torch", "torch.save", by_torch("own.pt"), refused("torch", "save|load")),
    Case("torch", "as .pkl", by_torch("own.pkl"), refused("torch", "save|load")),
    Case("torch", "of old", by_torch("own.pth", _use_new_zipfile_serialization=False), refused("torch", "save|load")),
    Case(
        "media",
        "film",
        raw("own.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99)),
        refused("video|film|media", "gmsa data extract"),
    ),
    Case(
        "media",
        "sound",
        raw("own.wav", b"RIFF\x24\0\0\0WAVEfmt " + bytes(99)),
        refused("audio|sound|media|WAV", "gmsa data extract"),
    ),
    Case(
        "media",
        "Matroska",
        raw("own.mkv", b"\x1a\x45\xdf\xa3" + bytes(99)),
        refused("video|media|Matroska", "gmsa data extract"),
    ),
    Case("json", "a dict", raw("own.json", json_text({"0": 1.5})), refused("JSON")),
    Case("json", "lines", raw("own.jsonl", json_text({"id": 1}) + b"\n" + json_text({"id": 2})), refused("JSON")),
    Case(
        "json",
        "a sheet",
        zipped("own.xlsx", "[Content_Types].xml", "xl/workbook.xml"),
        refused("Excel|spreadsheet|xlsx", "CSV|csv"),
    ),
    Case("json", "gzip", raw("own.pkl.gz", gzip.compress(pickle.dumps({}))), refused("gz")),
    Case("json", "HDF5", raw("own.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), refused("HDF5")),
    # Tables
    Case(
        "table",
        "semicolons and Windows paths",
        table(";", "\\"),
        fine(),
        facts={**CLEAN, "labels": {FIRST: -2.9}},
        predicted=ALL,
    ),
    Case("table", "commas", table(), fine(), facts={**CLEAN, "labels": {FIRST: -2.9}}),
    Case("table", "tabs", table("\t", name="own.tsv"), fine(), facts=CLEAN),
    Case("table", "tabs as .csv", table("\t", bom=True), fine(), facts=CLEAN),
    Case("table", "decimal commas", table(";", "\\", ",", bom=True), fine(), facts={**CLEAN, "labels": {FIRST: -2.9}}),
]

STANDING = {case.row: case for case in reversed(CASES) if not case.sets}
"""The case that stands for each row: its first."""


class Bench:
    """Gives each case a folder of its own, and asks every command once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        self._said: dict[tuple[str, str], Said] = {}
        self._loaded: dict[str, Any] = {}

    @property
    def run(self) -> Path:
        """A finished run of the file without fault."""
        found = self.folder / "run"
        if not found.exists():
            clean = self.file(CASES[0])
            with inside(clean.parent):
                arguments = ["--config", "tiny.yaml", "--data", clean.name, "--out", str(found)]
                said = told(train.main, "train", arguments)
            assert said.code == 0, said.err
        return found

    def file(self, case: Case) -> Path:
        if str(case) not in self._files:
            folder = self.folder / f"case{len(self._files)}"
            folder.mkdir()
            (folder / "tiny.yaml").write_text(SETTINGS)
            self._files[str(case)] = case.make(folder)
        return self._files[str(case)]

    def say(self, case: Case, command: str) -> Said:
        key = str(case), command
        if key not in self._said:
            path = self.file(case)
            run = str(self.run) if command in ("evaluate", "predict") else ""
            with inside(path.parent), pytest.MonkeyPatch.context() as patch:
                patch.setattr(Trainer, "_epoch", _end)
                self._said[key] = self._ask(case, command, path.name, run)
        return self._said[key]

    def _ask(self, case: Case, command: str, name: str, run: str) -> Said:
        if command == "load":
            return self._load(case, name)
        if command == "train":
            sets = [part for setting in case.sets for part in ("--set", setting)]
            return told(train.main, "train", ["--config", "tiny.yaml", "--data", name, "--out", "run", *sets])
        if command == "evaluate":
            return told(evaluate.main, "evaluate", ["--run", run, "--data", name])
        if command == "predict":
            return told(predict.main, "predict", ["--run", run, "--input", name, "--out", "answers.csv"])
        return told(data.main, "data", [command, name, *(["--out", "store"] if command == "import" else [])])

    def _load(self, case: Case, name: str) -> Said:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._loaded[str(case)], code, error = loaded(name, case.sets), 0, []
            except GmsaError as refusal:
                code, error = 2, [f"gmsa.load: error: {refusal}"]
        notes = [f"gmsa.load: note: {warning.message}" for warning in caught]
        return Said(code, "", "".join(f"{line}\n" for line in notes + error))

    def read(self, case: Case) -> Any:
        """The corpus of a case."""
        said = self.say(case, "load")
        assert said.code == 0, said.err
        return self._loaded[str(case)]


def loaded(name: str, sets: tuple[str, ...] = ()) -> Any:
    """The corpus that a config of this file gives."""
    config = load_config("tiny.yaml", [f"data.path={name}", *sets])
    return load_corpus(config.data, config.target)


def _end(*_: Any) -> None:
    raise SystemExit(0)  # all is read, and training begins


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GMSA_DATA", raising=False)
        patch.setenv("COLUMNS", "400")
        patch.setattr(report, "draw_run", lambda *_: None)  # figures take most of a small run's time
        yield Bench(tmp_path_factory.mktemp("brought"))


def facts_of(found: Any, expected: dict[str, Any]) -> dict[str, Any]:
    """The facts that ``expected`` names, of a corpus."""
    by_id = {u.id: u for utterances in (*found.splits.values(), found.pool) for u in utterances}
    in_split = {name: list(utterances) for name, utterances in found.splits.items()}
    target = getattr(found, "target", None)

    def of(key: str, attribute: Callable[[Any], Any]) -> dict[str, Any]:
        return {i: attribute(by_id[i]) for i in expected[key] if i in by_id}

    def apart(attribute: str) -> bool:
        held = [{getattr(u, attribute) for u in utterances} for utterances in in_split.values()]
        return sum(map(len, held)) == len(set().union(*held))

    def picked(key: str) -> Any:
        split, index, _ = expected[key]
        return split, index, in_split[split][index]

    known: dict[str, Callable[[], Any]] = {
        "splits": lambda: {name: len(utterances) for name, utterances in in_split.items()},
        "dims": lambda: dict(found.dims),
        "pool": lambda: len(found.pool),
        "labeled": lambda: {s: sum(_labeled(u) for u in utterances) for s, utterances in in_split.items()},
        "unlabeled": lambda: len(found.pool) + sum(not _labeled(u) for u in in_split["train"]),
        "kind": lambda: target.kind,
        "range": lambda: [target.low, target.high],
        "classes": lambda: list(target.classes),
        "names": lambda: sorted(target.classes),
        "labels": lambda: of("labels", lambda u: round(u.label, 3)),
        "class": lambda: of("class", lambda u: target.classes[int(u.label)]),
        "videos": lambda: of("videos", lambda u: u.video),
        "speakers": lambda: of("speakers", lambda u: u.speaker),
        "texts": lambda: of("texts", lambda u: u.text),
        "lengths": lambda: of("lengths", lambda u: dict(u.lengths)),
        "label": lambda: (*picked("label")[:2], round(picked("label")[2].label, 3)),
        "video": lambda: (*picked("video")[:2], picked("video")[2].video),
        "steps": lambda: STEPS if all(set(u.lengths.values()) == {STEPS} for u in by_id.values()) else None,
        "finite": lambda: all(bool(torch.isfinite(x).all()) for u in by_id.values() for x in u.features.values()),
        "parts": lambda: len(in_split["train"]) + len(in_split["valid"]),
        "test": lambda: len(in_split["test"]),
        "all": lambda: sum(map(len, in_split.values())),
        "full": lambda: all(in_split.get(name) for name in COUNTS),
        "apart": lambda: apart("video"),
        "speakers apart": lambda: apart("speaker"),
    }
    return {key: known[key]() for key in expected}


def _labeled(utterance: Any) -> bool:
    return utterance.label is not None and utterance.label == utterance.label


def check_lines(said: Said, folder: Path) -> None:
    """Every line of stderr is a note or an error, short, and said once."""
    for line in said.lines:
        kind = re.match(r"(gmsa\.|python -m gmsa\.)[\w. ]+: (note|error): (.+)", line)
        assert kind, f"neither a note nor an error: {line}"
        assert len(kind[3]) <= LONGEST, f"{len(kind[3])} characters: {line}"
        assert str(folder) not in line, f"a path that is longer than the user's: {line}"
    assert len(set(said.lines)) == len(said.lines), f"said twice: {said.err}"
    errors = [line for line in said.lines if ": error: " in line]
    assert len(errors) == (said.code == 2), said.err


def check_said(said: Said, outcome: Outcome, command: str) -> None:
    """Compares what a command left with what it should leave."""
    stop = outcome.codes == (2,)
    codes, texts = outcome.codes, [said.err]
    if command == "check":  # it finds errors, and goes on after them where it can
        codes, texts = {(2,): (1, 2), (0, 2): (0, 1, 2)}.get(codes, codes), [said.out, said.err]
    if command == "info" and stop:  # it may describe what cannot be trained on
        codes, texts = (0, 2), [said.out, said.err]
    assert said.code in codes, f"exit {said.code}, expected {codes}: {said.err or said.out[-500:]}"
    text = "\n".join(texts)
    for pattern in outcome.said:
        assert re.search(pattern, text), f"/{pattern}/ is not said: {text[-1500:]}"
    if stop and said.code == 2:
        assert all(re.search(pattern, said.lines[-1]) for pattern in outcome.said), said.lines[-1]
    if outcome.codes == (0,):
        wanted = [*outcome.said, *outcome.also]
        for note in said.notes:
            assert any(re.search(pattern, note) for pattern in wanted), f"nobody expects: {note}"


def pairs() -> Iterator[Any]:
    for case in CASES:
        stands = STANDING.get(case.row) is case
        for command in ("load", *COMMANDS):
            if (case.of(command) if command != "load" else case.outcome) is None:
                continue
            plain = stands or command == "load" or (command == "check" and not case.sets)
            marks = () if plain else pytest.mark.slow
            yield pytest.param(case, command, id=f"{case}: {command}".replace(" ", "_"), marks=marks)


@pytest.mark.parametrize(("case", "command"), pairs())
def test_says_and_reads(case: Case, command: str, bench: Bench) -> None:
    outcome = case.of(command)
    assert outcome is not None
    said = bench.say(case, command)
    check_said(said, outcome, command)
    check_lines(said, bench.file(case).parent)
    if command == "predict" and said.code == 0 and case.predicted is not None:
        rows = (bench.file(case).parent / "answers.csv").read_text().splitlines()
        assert len(rows) - 1 == case.predicted


def of_cases(wanted: Callable[[Case], bool]) -> list[Any]:
    return [pytest.param(case, id=str(case).replace(" ", "_")) for case in CASES if wanted(case)]


@pytest.mark.parametrize("case", of_cases(lambda case: bool(case.facts)))
def test_what_was_read(case: Case, bench: Bench) -> None:
    assert facts_of(bench.read(case), case.facts) == case.facts


@pytest.mark.parametrize(
    "case", of_cases(lambda c: bool(c.facts) and STANDING.get(c.row) is c and c.outcome.codes == (0,))
)
def test_an_imported_store_holds_the_same(case: Case, bench: Bench) -> None:
    said = bench.say(case, "import")
    assert said.code == 0, said.err
    with inside(bench.file(case).parent), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert facts_of(loaded("store"), case.facts) == case.facts


@pytest.mark.parametrize("case", of_cases(lambda c: STANDING.get(c.row) is c and bool(c.outcome.said) and not c.sets))
def test_commands_say_the_same(case: Case, bench: Bench) -> None:
    """A note or an error has the same words in every command that is expected to say it."""
    asked = [c for c in ("train", "import") if case.of(c) is case.outcome]
    if case.outcome.codes == (0,):
        asked += ["info", "check"]
        expected = bench.say(case, "load").notes
        assert expected, "nothing is said"
        assert {c: bench.say(case, c).notes for c in asked} == dict.fromkeys(asked, expected)
    else:
        errors = {c: [line.partition(": error: ")[2] for line in bench.say(case, c).lines] for c in asked}
        assert len({tuple(lines) for lines in errors.values()}) == 1, errors


@pytest.mark.parametrize(
    "case",
    of_cases(
        lambda c: STANDING.get(c.row) is c and c.outcome.codes == (0,) and not {"dims", "kind"}.isdisjoint(c.facts)
    ),
)
def test_info_shows_what_was_read(case: Case, bench: Bench) -> None:
    said = bench.say(case, "info")
    assert said.code == 0, said.err
    for modality, dim in case.facts.get("dims", {}).items():
        assert re.search(rf"\b{modality}\b\D{{0,9}}\b{dim}\b", said.out), said.out
    for split, count in case.facts.get("splits", {}).items():
        assert re.search(rf"\b{split}\b.*\b{count}\b", said.out), said.out


@pytest.mark.parametrize("name", ["numbers alone", "words alone", "annotations alone"])
def test_info_shows_classes(name: str, bench: Bench) -> None:
    case = named_case("classes", name)
    said = bench.say(case, "info")
    assert said.code == 0, said.err
    assert "classes" in said.out
    for word in case.facts.get("names", case.facts.get("classes", [])):
        assert re.search(rf"\b{word}\b", said.out), said.out


def found_by_check(said: Said) -> list[str]:
    return [line for line in said.out.splitlines() if re.match(r"\| (error|warning|note) ", line)]


def test_check_finds_little_in_a_clean_file(bench: Bench) -> None:
    found = found_by_check(bench.say(CASES[0], "check"))
    assert not any(line.startswith(("| error", "| warning")) for line in found), found
    assert len(found) <= 2, found


def test_one_overflow_is_one_finding(bench: Bench) -> None:
    """It neither makes other values infinite nor the modality missing."""
    said = bench.say(named_case("overflow", "audio"), "check")
    assert said.code == 1
    found = found_by_check(said)
    assert len({line.split("|")[2] for line in found if line.startswith("| error")}) == 1, found
    assert not any(re.search("missing|infinity|scale", line) for line in found), found


def named_case(row: str, name: str) -> Case:
    return next(case for case in CASES if (case.row, case.name) == (row, name))


def test_training_data_is_never_called_test(bench: Bench) -> None:
    """A file of train and valid is scored on valid, by that name."""
    said = bench.say(named_case("no test", "train and valid"), "evaluate")
    assert said.code == 0, said.err
    assert re.search(r"\bvalid\b", said.out)
    assert not re.search(r"\btest\b", said.out)


def test_a_run_is_not_scored_on_what_it_was_trained_with(bench: Bench) -> None:
    own = bench.folder / "its own"
    own.mkdir()
    file = pickled(lambda: columns("train", COUNTS["train"]))(own)
    run = str(bench.run)
    with inside(own):
        said = told(evaluate.main, "evaluate", ["--run", run, "--data", file.name])
    assert said.code == 2, said.out
    assert re.search(r"\b12\b", said.err)
    assert "train" in said.err
    check_lines(said, own)


def test_one_bad_clip_stops_no_other(bench: Bench) -> None:
    case = named_case("nan", "audio")
    said = bench.say(case, "predict")
    assert said.code == 0, said.err
    rows = (bench.file(case).parent / "answers.csv").read_text().splitlines()[1:]
    predicted = {row.split(",")[0]: row.split(",")[1] for row in rows}
    bad = {f"{split}film{film}$_$1" for split in COUNTS for film in (0, 1)}
    good = {i for of in corpus().values() for i in of["id"]} - bad
    assert {i for i in good if predicted.get(i)} == good
    assert not {i for i in bad if predicted.get(i)}
    run = str(bench.run)
    with inside(bench.file(case).parent):
        strict = told(predict.main, "predict", ["--run", run, "--input", "own.pkl", "--out", "no.csv", "--strict"])
    assert strict.code == 2
    assert not (bench.file(case).parent / "no.csv").exists()


@pytest.mark.parametrize(
    ("case", "columns_"),
    [
        (named_case("classes", "by field"), [f"p_{word}" for word in WORDS]),
        (named_case("fourth", "named"), ["prediction"]),
        (named_case("wide", "1 to 5 with its range"), ["prediction"]),
    ],
    ids=["classes", "modalities", "range"],
)
def test_a_run_of_it_is_scored_and_predicts(case: Case, columns_: list[str], bench: Bench) -> None:
    """What a setting reads, a whole run reads again without it."""
    path = bench.file(case)
    sets = [part for setting in case.sets for part in ("--set", setting)]
    with inside(path.parent):
        said = told(train.main, "train", ["--config", "tiny.yaml", "--data", path.name, "--out", "whole", *sets])
        assert (said.code, said.err) == (0, "")
        said = told(evaluate.main, "evaluate", ["--run", "whole", "--data", path.name])
        assert (said.code, said.notes) == (0, [])
        said = told(predict.main, "predict", ["--run", "whole", "--input", path.name, "--out", "whole.csv"])
        assert (said.code, said.notes) == (0, [])
        header, *rows = (path.parent / "whole.csv").read_text().splitlines()
    assert len(rows) == ALL
    assert set(columns_) <= set(header.split(",")), header
