"""What people bring: read as they mean it, or said and refused; alike in every command.

Each row of the table has a case that stands for it, which all commands are given, and siblings of its kind, which are
loaded and checked (where slow tests run, all commands are given these too).
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
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
    as_text,
    at,
    bert,
    by_split,
    by_torch,
    clip,
    columns,
    corpus,
    cut,
    each,
    features,
    flat,
    ids,
    inside,
    labels,
    mag_bert,
    mult,
    of_mmsa,
    pickled,
    pieces,
    put,
    raw,
    rename,
    several,
    splits,
    spread,
    table,
    through,
    told,
    unlabeled,
    utterances,
    with_split,
    without,
    zipped,
)

from gmsa import evaluate, predict, train
from gmsa.config import load_config
from gmsa.data import __main__ as data
from gmsa.data import load_corpus
from gmsa.errors import DataWarning, GmsaError
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


def case(
    name: str,
    make: Maker,
    outcome: Outcome,
    *sets: str,
    but: dict[str, Outcome | None] | None = None,
    predicted: int | None = None,
    **facts: Any,
) -> Case:
    return Case("", name, make, outcome, sets, facts, but or {}, predicted)


def row(name: str, *cases: Case) -> list[Case]:
    """The cases of one kind; the first, which no setting changes, stands for it."""
    return [replace(found, row=name) for found in cases]


WORDS = ("calm", "grief", "mirth")
FIRST, SECOND, THIRD = (f"trainfilm0$_${i}" for i in range(3))
LOW = {FIRST: -2.9}
CLEAN: dict[str, Any] = {"splits": COUNTS, "dims": DIMS, "kind": "intensity", "pool": 0}
NOT_READ: dict[str, Outcome | None] = {"predict": ANY}
"""Labels that no prediction needs."""
OTHER_TARGET: dict[str, Outcome | None] = {"evaluate": None, "predict": ANY}
"""A run of an intensity is not scored on classes."""
NOT_TRAINED: dict[str, Outcome | None] = {"info": ANY, "check": ANY, "import": ANY}
"""What training refuses, and what is yet good data."""
UNSPLIT: dict[str, Outcome | None] = {"evaluate": ANY, "predict": fine(), **NOT_TRAINED}
KEPT: dict[str, Outcome | None] = {"import": ANY}
"""Import keeps all modalities and texts: what reads the store says which it does not use."""
NOT_POOLED: dict[str, Outcome | None] = {"evaluate": ANY, "predict": ANY}
"""A pool is of no use to a finished run, which predicts it like any split."""
CLASSES, FEELING = "target.kind=classes", "target.field=feeling"
MODALITIES = "data.modalities=[text, audio, vision, pulse]"
PULSE = says(r"'pulse'.*data\.modalities")
WITH_PULSE = {**DIMS, "pulse": 2}
NO_SPLIT = named(r"data\.split")
TOKENS = refused(r"\btext\b", "token", "text_bert")
TWO_VALUES = says(r"target\.kind", also=("target",))
FOUR_JOIN, THREE_JOIN, ONE_JOINS = (says(rf"\b{n}\b.*pool|pool.*\b{n}\b") for n in (4, 3, 1))
OWN_VIDEOS = says(r"data\.video_from")
THIRD_LEFT: dict[str, Any] = {"labeled": {"train": 8, "valid": 6, "test": 6}, "unlabeled": 4}
BIG = r"e\+?\d\d|float32|too large"
ONE: dict[str, Outcome | None] = {"evaluate": refused("label"), "predict": fine("no ids?|config"), **NOT_TRAINED}
NO_FEATURES = ("vision|visual|audio|acoustic",)


def bad_clips(*said: str) -> dict[str, Outcome | None]:
    """Features that stop training and scoring; predictions go on with the other utterances."""
    return {"predict": ANY, "info": ANY, "check": refused(*said)}


words = labels(lambda i: WORDS[i % 3], "feeling")
two = labels(lambda i: i % 2)
five = labels(lambda i: 1 + i % 5)
narrow = spread(-0.96, 0.97)
no_labels = without("regression_labels")
pulse = put(pulse=lambda n, s: features(f"{s} pulse", n, 2))
gaze = put(gaze=lambda n, s: features(f"{s} gaze", n, 3))
third_nan, third_none = (unlabeled(value) for value in (np.nan, None))
seven = put(regression_labels=lambda n, s: features(s, n, 7)[:, 0].clip(-3, 3))
apart = ids(lambda i, s: f"{s}{i}")
dialogues = ids(lambda i, s: f"{s}dia{i // 3}_utt{i % 3}")

alone = {
    "classification_labels": put(classification_labels=lambda n, _: np.arange(n) % 3),
    "emotion": labels(lambda i: WORDS[i % 3], "emotion"),
    "label": labels(lambda i: WORDS[i % 3], "label"),
    "annotations": labels(lambda i: ("Negative", "Neutral", "Positive")[i % 3], "annotations"),
}
"""Classes without an intensity beside them."""
names_of = {
    "classification_labels": ["0", "1", "2"],
    "emotion": list(WORDS),
    "label": list(WORDS),
    "annotations": ["Negative", "Neutral", "Positive"],
}

CASES = [
    *row(
        "clean",  # nothing is said of a file without fault
        case("three splits", each(), fine(), **CLEAN, predicted=ALL),
        case("float16", each(through(audio=lambda x: x.astype(np.float16))), fine(), **CLEAN),
        case("other columns of MMSA", each(bert, of_mmsa), fine(), **CLEAN),
        case("labels [N, 1]", each(through(regression_labels=lambda x: x[:, None])), fine(), **CLEAN),
        case("whole numbers", each(labels(lambda i: i % 7 - 3)), fine(), **CLEAN),
        case("a rounded end", each(at("regression_labels", 5, 3.0000002)), fine(), **CLEAN),
        case("a scale of thousands", each(through(audio=lambda x: 3000 + 900 * x)), fine()),
        case("a long tail", each(through(audio=lambda x: np.exp(2 * x))), fine()),
        case("one clip per video", each(ids(lambda i, s: f"{s}{i}$_$0")), fine()),
    ),
    *row(
        "alias",
        case(
            "visual and acoustic",
            each(rename(vision="visual", audio="acoustic")),
            says("'visual'.*vision", "'acoustic'.*audio"),
            **CLEAN,
            predicted=ALL,
        ),
        case("in one split", each(rename(vision="visual"), only=["test"]), says("'visual'.*vision"), **CLEAN),
        case("capitals", each(rename(vision="Vision", text="TEXT")), says("Vision", "TEXT"), **CLEAN),
        case("both names", each(put(visual=lambda n, s: features(s, n, 9))), says("'visual'"), **CLEAN, but=KEPT),
        case(
            "with lengths",
            each(rename(vision="visual"), put(visual_lengths=lambda n, _: [2] * n)),
            says("'visual'.*vision"),
            lengths={FIRST: {"text": STEPS, "audio": STEPS, "vision": 2}},
        ),
        *(  # these may mean something else: they may be used or not, but they are named
            case(name, each(rename(**{old: name})), says(f"'{name}'", also=(old,)), but=KEPT)
            for old, names in {
                "vision": ("video", "facial", "facet"),
                "audio": ("speech", "covarep"),
                "text": ("language", "glove"),
            }.items()
            for name in names
        ),
    ),
    *row(
        "fourth",
        case("pulse", each(pulse), PULSE, **CLEAN, but=KEPT, predicted=ALL),
        case("named", each(pulse), fine(), MODALITIES, dims=WITH_PULSE),
        case("auto", each(pulse), fine("auto takes pulse"), "data.modalities=auto", dims=WITH_PULSE),
        case("list", each(pulse, through(pulse=cut)), PULSE, **CLEAN, but=KEPT),
        case(
            "list, auto",
            each(pulse, through(pulse=cut)),
            fine("auto takes pulse"),
            "data.modalities=auto",
            dims=WITH_PULSE,
        ),
        case("one step", each(pulse, through(pulse=lambda x: x[:, 0])), PULSE, **CLEAN, but=KEPT),
        case(
            "one step, named",
            each(pulse, through(pulse=lambda x: x[:, 0])),
            fine(),
            MODALITIES,
            lengths={FIRST: {**dict.fromkeys(DIMS, STEPS), "pulse": 1}},
        ),
        case("in one split", each(pulse, only=["test"]), PULSE, **CLEAN, but=KEPT),
        case("lists of lists", each(pulse, through(pulse=lambda x: x.tolist())), PULSE, **CLEAN, but=KEPT),
        case("integers", each(pulse, through(pulse=lambda x: (9 * x).astype(np.int16))), PULSE, **CLEAN, but=KEPT),
        case("with lengths", each(pulse, put(pulse_lengths=lambda n, _: [3] * n)), PULSE, **CLEAN, but=KEPT),
        case("two of them", each(pulse, gaze), says("'?pulse'?", "'?gaze'?"), **CLEAN, but=KEPT),
        case(
            "none of the usual",
            each(pulse, gaze, without(*DIMS)),
            fine("auto takes pulse, gaze"),
            "data.modalities=auto",
            dims={"pulse": 2, "gaze": 3},
        ),
        case(
            "none of the usual, not named",
            each(pulse, without(*DIMS)),
            refused(r"\bpulse\b", r"data\.modalities"),
            but=KEPT,
        ),
        case("named, not there", each(), named("pulse"), MODALITIES),
        case(
            "another label",
            each(put(arousal=lambda n, _: np.linspace(0, 1, n))),
            says("'?arousal'?"),
            but={"evaluate": ANY, "predict": ANY},
            **CLEAN,
        ),
    ),
    *row(
        "lacks",
        case(
            "a modality of the run",
            each(without("audio")),
            ANY,
            but={"evaluate": says("audio"), "predict": says("audio")},
        ),
        case(
            "a modality of training, in test",
            each(without("audio"), only=["test"]),
            says("audio"),
            but={"predict": ANY, "info": ANY, "import": ANY},
        ),
    ),
    *row(
        "text_bert",
        case("alone", each(without("text"), bert), says("text_bert", also=("text",)), dims={"audio": 3, "vision": 4}),
        case("raw_text beside others", each(without("text")), says(r"raw_text|\btext\b"), but=KEPT),
        case("neither", each(without("text", "raw_text")), ANY, dims={"audio": 3, "vision": 4}),
        case("text without raw_text", each(without("raw_text")), fine(), **CLEAN),
    ),
    *row(
        "raw_text",
        case(
            "alone",
            each(without(*DIMS)),
            refused("raw_text"),
            but={"info": named("raw_text"), "check": named("raw_text")},
        ),
    ),
    *row(
        "tokens",
        case("ids", each(put(text=pieces(40))), TOKENS),
        case("as floats", each(put(text=pieces(40, dtype=np.float32))), TOKENS),
        case("as doubles", each(put(text=pieces(40, dtype=np.float64))), TOKENS),
        case("ragged", each(put(text=lambda n, s: [x[: 4 + i] for i, x in enumerate(pieces(40)(n, s))])), TOKENS),
        case("lists", each(put(text=lambda n, s: pieces(40)(n, s).tolist())), TOKENS),
        case("with mask and segments", each(put(text=pieces(3, 40))), TOKENS),
        case("one per step", each(put(text=pieces(40, 1))), TOKENS),
        case("not counts of words", each(put(text=pieces(6, most=4))), fine()),
        case("not action units", each(put(vision=pieces(STEPS, 4, most=6))), fine(), **CLEAN),
    ),
    *row(
        "binary",
        case(
            "0 and 1", each(two), TWO_VALUES, kind="intensity", but={**NOT_READ, "evaluate": says("target|binary|two")}
        ),
        case("-1 and 1", each(labels(lambda i: i % 2 * 2 - 1)), TWO_VALUES, but=NOT_READ),
        case("truth values", each(labels(lambda i: bool(i % 2))), TWO_VALUES, but=NOT_READ),
        case("integers", each(put(regression_labels=lambda n, _: np.arange(n) % 2)), TWO_VALUES, but=NOT_READ),
        case("three values", each(labels(lambda i: i % 3 - 1)), says(r"target\.(kind|range|preset)"), but=NOT_READ),
        case("one value", each(labels(lambda i: 0.5)), says("label"), but=NOT_READ),
        case("as classes", each(two), fine(), CLASSES, classes=["0", "1"], labels={FIRST: 0, SECOND: 1}),
        case(
            "-1 and 1 as classes",
            each(labels(lambda i: i % 2 * 2 - 1)),
            fine(),
            CLASSES,
            classes=["-1", "1"],
            labels={FIRST: 0, SECOND: 1},
        ),
        case(
            "truth values as classes",
            each(labels(lambda i: bool(i % 2))),
            fine(),
            CLASSES,
            kind="classes",
            labels={FIRST: 0, SECOND: 1},
        ),
    ),
    *row(
        "narrow",
        case("[-1, 1]", each(narrow), says(r"target\.(range|preset)"), kind="intensity", but=NOT_READ),
        case("[0, 1]", each(spread(0, 1)), says(r"target\.range"), but=NOT_READ),
        case(
            "[-1, 1] in test",
            each(narrow, only=["test"]),
            says(r"test.*target\.range|target\.range.*test"),
            but=NOT_READ,
        ),
        case("not [-2.4, 2.4]", each(spread(-2.4, 2.4)), fine()),
        case("with its range", each(narrow), fine(), "target.range=[-1, 1]", range=[-1, 1], labels={FIRST: -0.96}),
        case("with its preset", each(narrow), fine(), "target.preset=sims", range=[-1, 1], labels={FIRST: -0.96}),
        case("with data.labels", each(narrow), fine(), "data.labels=sims", range=[-1, 1], labels={FIRST: -0.96}),
    ),
    *row(
        "wide",
        case("1 to 5", each(five), refused("regression_labels", r"target\.range"), but=NOT_READ),
        case("per cent", each(spread(0, 100)), refused(r"target\.range"), but=NOT_READ),
        case(
            "one value in valid",
            each(at("regression_labels", 2, 4.5), only=["valid"]),
            refused("valid", r"4\.5", r"target\.range"),
            but={**NOT_READ, "evaluate": None},
        ),
        case(
            "1 to 5, its range", each(five), fine(), "target.range=[1, 5]", range=[1, 5], labels={FIRST: 1, SECOND: 2}
        ),
        case(
            "per cent, its range",
            each(spread(0, 100)),
            fine(),
            "target.range=[0, 100]",
            range=[0, 100],
            labels={FIRST: 0},
        ),
        case("beyond its range", each(five), refused(r"target\.range"), "target.range=[1, 4]"),
    ),
    *row(
        "classes",
        case(
            "words beside an intensity",
            each(words),
            says(r"'?feeling'?.*target\.field"),
            **CLEAN,
            but={"evaluate": ANY, "predict": ANY},
            predicted=ALL,
        ),
        case(
            "by field",
            each(words),
            fine(),
            CLASSES,
            FEELING,
            kind="classes",
            names=list(WORDS),
            class_={FIRST: "calm", SECOND: "grief", THIRD: "mirth"},
        ),
        *(  # read as classes, or refused: the setting is named in either
            case(f"{name} alone", each(no_labels, change), named(r"target\.kind"), but=OTHER_TARGET)
            for name, change in alone.items()
        ),
        *(
            case(f"{name} alone, as classes", each(no_labels, change), fine(), CLASSES, names=names_of[name])
            for name, change in alone.items()
        ),
        case(
            "a gap",
            each(labels(lambda i: (0, 2, 5)[i % 3], "grade")),
            fine(),
            CLASSES,
            "target.field=grade",
            classes=["0", "2", "5"],
            labels={FIRST: 0, THIRD: 2},
        ),
        case(
            "listed",
            each(words),
            fine(),
            CLASSES,
            FEELING,
            "target.classes=[mirth, grief, calm]",
            classes=["mirth", "grief", "calm"],
            labels={FIRST: 2, THIRD: 0},
        ),
        case(
            "one not listed",
            each(words),
            refused("grief", r"target\.classes"),
            CLASSES,
            FEELING,
            "target.classes=[mirth, calm]",
        ),
        case(
            "one in test alone",
            by_split(train=words, valid=words, test=labels(lambda i: "awe" if i == 1 else "calm", "feeling")),
            named("awe"),
            CLASSES,
            FEELING,
        ),
        case(
            "two cases of a word",
            each(labels(lambda i: ("mirth", "Mirth", "calm")[i % 3], "feeling")),
            named("Mirth"),
            CLASSES,
            FEELING,
        ),
        case("an intensity as classes", each(), refused(r"target\.kind"), CLASSES),
        case(
            "no such field",
            each(words),
            refused(r"\bfeelings\b", r"target\.field", r"\bfeeling\b"),
            "target.field=feelings",
        ),
        case("words without a kind", each(words), named(r"target\.kind"), FEELING),
        case(
            "words as an intensity", each(words), refused("feeling", r"target\.kind"), FEELING, "target.kind=intensity"
        ),
        case(
            "some without",
            by_split(train=labels(lambda i: WORDS[i % 4] if i % 4 < 3 else None, "feeling"), valid=words, test=words),
            THREE_JOIN,
            CLASSES,
            FEELING,
            unlabeled=3,
            names=list(WORDS),
        ),
    ),
    *row(
        "label",
        *(
            case(name, each(rename(regression_labels=name)), fine(name), **CLEAN, labels=LOW)
            for name in ("labels", "label")
        ),
        case(
            "y",
            each(rename(regression_labels="y")),
            refused(r"target\.field", r"\by\b"),
            but={"predict": ANY, "info": ANY} | dict.fromkeys(("evaluate", "check", "import"), named(r"\by\b")),
        ),
        case("y, by field", each(rename(regression_labels="y")), fine(), "target.field=y", **CLEAN, labels=LOW),
    ),
    *row(
        "columns",
        case("seven", each(seven), refused("regression_labels", "12, 7", r"target\.\w+"), but=NOT_READ),
        case(
            "an axis more",
            each(seven, through(regression_labels=lambda x: x[:, None])),
            refused("12, 1, 7", r"target\.\w+"),
            but=NOT_READ,
        ),
        case(
            "lists",
            each(seven, through(regression_labels=lambda x: x.tolist())),
            refused("12, 7", r"target\.\w+"),
            but=NOT_READ,
        ),
        case("one is chosen", each(seven), fine(), "target.column=2", splits=COUNTS, kind="intensity"),
        case("none such", each(seven), refused(r"target\.column", r"\b7\b"), "target.column=7"),
        case("one, two axes more", each(through(regression_labels=lambda x: x.reshape(-1, 1, 1))), fine(), **CLEAN),
    ),
    *row(
        "strings",
        case("numbers", each(as_text("{:.2f}")), fine(), **CLEAN, labels=LOW),
        case("spaces", each(as_text(" {:+.1e} ")), fine(), **CLEAN, labels=LOW),
        case(
            "bytes",
            each(as_text("{:.2f}"), through(regression_labels=lambda x: [t.encode() for t in x])),
            fine(),
            **CLEAN,
        ),
        case("an array", each(as_text("{:.2f}"), through(regression_labels=np.array)), fine(), **CLEAN, labels=LOW),
        case(
            "no number",
            each(as_text("{:.2f}", "see note"), only=["test"]),
            refused("'see note'", r"testfilm0\$_\$2"),
            but=NOT_READ,
        ),
        case("a comma", each(as_text("{:.2f}", "1,5")), refused("'1,5'"), but=NOT_READ),
        case(
            "an empty one in training",
            each(as_text("{:.2f}", ""), only=["train"]),
            ONE_JOINS,
            unlabeled=1,
            but={**NOT_READ, "evaluate": ANY},
        ),
    ),
    *row(
        "unlabeled",
        case(
            "NaN",
            each(third_nan, only=["train"]),
            FOUR_JOIN,
            **THIRD_LEFT,
            but={**NOT_READ, "evaluate": ANY},
            predicted=ALL,
        ),
        case("None", each(third_none, only=["train"]), FOUR_JOIN, **THIRD_LEFT, but={**NOT_READ, "evaluate": ANY}),
        case(
            "in valid",
            each(third_nan, only=["valid"]),
            says("valid.* 2 of 6 .*not scored", also=("valid.*no label",)),
            but={**NOT_READ, **KEPT, "evaluate": None, "check": named("2 of 6 .*not scored.*valid")},
            labeled={"train": 12, "valid": 4, "test": 6},
        ),
        case(
            "in test",
            each(third_none, only=["test"]),
            says("test.* 2 of 6 .*not scored", also=("test.*no label",)),
            but={**NOT_READ, **KEPT, "evaluate": named("test.*label"), "check": named("2 of 6 .*not scored.*test")},
            labeled={"train": 12, "valid": 6, "test": 4},
        ),
        case(
            "all of training",
            each(labels(lambda i: float("nan")), only=["train"]),
            refused("train", "label"),
            but={**NOT_READ, "evaluate": None, **NOT_TRAINED},
        ),
    ),
    *row(
        "pool",
        *(
            case(
                name,
                with_split(name, no_labels),
                says(rf"\b{name}\b.*\b5\b|\b5\b.*\b{name}\b"),
                **CLEAN | {"pool": 5},
                but=NOT_POOLED,
                predicted=ALL + 5,
            )
            for name in ("unlabeled", "pool", "unlabelled", "Unlabeled")
        ),
        case("unsup", with_split("unsup", no_labels), says(r"\bunsup\b"), splits=COUNTS, but=NOT_POOLED),
        case("with labels", with_split("pool"), says(r"\bpool\b"), **CLEAN | {"pool": 5}, unlabeled=5, but=NOT_POOLED),
        case(
            "NaN as labels",
            with_split("unlabeled", labels(lambda i: float("nan"))),
            says("unlabeled"),
            **CLEAN | {"pool": 5},
            but=NOT_POOLED,
        ),
        case("no pool", with_split("extra"), says(r"\bextra\b"), **CLEAN, but=NOT_POOLED | NOT_TRAINED),
        case(
            "about the file", pickled({**corpus(), "meta": {"by": "me"}, "version": 3}), fine("meta|version"), **CLEAN
        ),
    ),
    *row(
        "nan",
        case(
            "audio",
            each(at("audio", ([1, 1, 4], [0, 2, 3], [1, 1, 2]), np.nan)),
            refused("audio", "NaN", r"data\.nan", r"\b[2369]\b"),
            but={"predict": says(r"film0\$_\$1|\b6\b", also=(".",)), "check": refused("audio", "NaN"), "info": ANY},
        ),
        *(
            case(
                how,
                each(at("audio", (1, 0, 1), np.nan)),
                says(r"audio.*\b3\b|\b3\b.*audio"),
                f"data.nan={how}",
                finite=True,
            )
            for how in ("zero", "drop")
        ),
        case(
            "text",
            each(at("text", (1, 0, 1), np.nan), only=["test"]),
            refused(r"\btext\b", "NaN", r"data\.nan"),
            but=bad_clips("text", "NaN"),
        ),
        case(
            "infinite",
            each(at("vision", (1, 0, 1), np.inf), only=["valid"]),
            refused("vision", "inf", r"data\.nan"),
            but=bad_clips("vision", "inf") | {"evaluate": None},
        ),
        case("infinite, zero", each(at("vision", (1, 0, 1), -np.inf)), says("vision"), "data.nan=zero", finite=True),
        case(
            "all",
            each(through(text=lambda x: [one * np.nan for one in cut(x)])),
            refused("text", "NaN"),
            but=bad_clips("text", "NaN") | {"predict": None},
        ),
        case(
            "padding", each(at("audio", (1, 4, 1), np.nan), put(audio_lengths=lambda n, _: [3] * n)), ANY, finite=True
        ),
    ),
    *row(
        "overflow",
        case("audio", each(at("audio", (0, 0, 0), 1e300, float)), refused("audio", BIG), but=bad_clips("audio", BIG)),
        case(
            "vision",
            each(at("vision", (0, 0, 0), -1e200, float), only=["test"]),
            refused("vision", BIG),
            but=bad_clips("vision", BIG),
        ),
        case(
            "all",
            each(through(text=lambda x: [one.astype(float) * 1e99 for one in cut(x)])),
            refused("text", BIG),
            but=bad_clips("text", BIG) | {"predict": None},
        ),
    ),
    *row(
        "outlier",
        case("audio", each(at("audio", (1, 0, 0), 2e38), only=["train"]), says("audio"), **CLEAN, predicted=ALL),
        case("vision", each(at("vision", (1, 0, 0), -1e30), only=["train"]), says("vision"), **CLEAN),
    ),
    *row(
        "axis",
        case(
            "list", each(through(text=lambda x: [one[None] for one in x])), fine(), **CLEAN, steps=STEPS, predicted=ALL
        ),
        case(
            "ragged",
            each(through(audio=lambda x: [one[None] for one in cut(x)])),
            fine(),
            dims=DIMS,
            lengths={SECOND: {"text": STEPS, "audio": 4, "vision": STEPS}},
        ),
        case("one array", each(through(vision=lambda x: x[:, None])), fine(), **CLEAN, steps=STEPS),
        case("in the middle", each(through(vision=lambda x: x[:, :, None])), fine(), **CLEAN, steps=STEPS),
        case("one step", each(through(audio=lambda x: [one[None, :1] for one in x])), fine(), **CLEAN),
        case("too many", each(through(vision=lambda x: x[:, :, None].repeat(2, 2))), refused("vision", "2, 4")),
    ),
    *row(
        "transposed",
        case(
            "list",
            each(through(audio=lambda x: [one.T for one in cut(x)])),
            refused("audio", "transposed"),
            but={"predict": named("audio")},
        ),
        case(
            "arrays, test longer",
            each(put(audio=lambda n, s: features(s, n, 3, 7 if s == "test" else 5).transpose(0, 2, 1))),
            refused("audio", "transposed"),
            but={"evaluate": named("audio"), "predict": named("audio")},
        ),
    ),
    *row(
        "dev",
        *(
            case(dev, splits(**{first: "train", dev: "valid", last: "test"}), fine("valid"), **CLEAN, predicted=ALL)
            for first, dev, last in (
                ("train", "dev", "test"),
                ("train", "val", "test"),
                ("training", "validation", "testing"),
                ("Train", "Dev", "Test"),
                ("train", "development", "test"),
            )
        ),
        case("dev and valid", with_split("dev"), named(r"\bdev\b")),
    ),
    *row(
        "no valid",
        case("train and test", splits(train="train", test="test"), NO_SPLIT, but=UNSPLIT, predicted=18),
        case(
            "split",
            splits(train="train", test="test"),
            says("valid"),
            "data.split={valid: 0.25}",
            parts=12,
            test=6,
            apart=True,
        ),
        case("train alone", splits(train="train"), NO_SPLIT, but=UNSPLIT | {"evaluate": refused("train")}),
    ),
    *row(
        "no test",
        case("train and valid", splits(train="train", valid="valid"), NO_SPLIT, but=UNSPLIT, predicted=18),
        case(
            "split",
            splits(train="train", valid="valid"),
            says("test"),
            "data.split={test: 0.25}",
            all=18,
            valid=6,
            apart=True,
        ),
    ),
    *row(
        "flat",
        case("columns", flat(), NO_SPLIT, but=UNSPLIT, predicted=12),
        case(
            "split", flat(count=18), says("valid"), "data.split={valid: 0.2, test: 0.2}", all=18, apart=True, full=True
        ),
        case(
            "split by speaker",
            flat(put(speaker=lambda n, _: [f"p{i % 6}" for i in range(n)]), count=18),
            says("speaker"),
            "data.split={valid: 0.2, test: 0.2, by: speaker}",
            all=18,
            speakers_apart=True,
            full=True,
        ),
        case(
            "split by a speaker that none has",
            flat(),
            refused("speaker", r"data\.split"),
            "data.split={valid: 0.2, test: 0.2, by: speaker}",
        ),
        case(
            "a column split",
            flat(put(split=lambda n, _: ["train", "train", "dev", "test"] * (n // 4))),
            fine("valid"),
            splits={"train": 6, "valid": 3, "test": 3},
            but={"evaluate": ANY},
        ),
        case(
            "a column fold",
            flat(put(fold=lambda n, _: [str(i % 3) for i in range(n)])),
            NO_SPLIT,
            but=UNSPLIT | {"predict": fine("fold")},
        ),
        case("no need", each(), named(r"data\.split"), "data.split={valid: 0.2, test: 0.2}"),
    ),
    *row(
        "ids",
        case("without a clip", each(dialogues), OWN_VIDEOS, **CLEAN, predicted=ALL),
        case("those of IEMOCAP", each(ids(lambda i, s: f"Ses01F_{s}{i // 3}_F{i % 3:03d}")), OWN_VIDEOS, **CLEAN),
        case("numbers", each(ids(lambda i, s: i + 100 * list(COUNTS).index(s))), OWN_VIDEOS, **CLEAN),
        case(
            "in one split",
            each(apart, only=["train"]),
            says(r"train.*data\.video_from|data\.video_from.*train"),
            **CLEAN,
        ),
        case(
            "pattern",
            each(dialogues),
            fine(),
            r"data.video_from='^(\w+dia\d+)_utt(\d+)$'",
            videos={"traindia1_utt2": "traindia1"},
        ),
        case(
            "field",
            each(apart, put(scene=lambda n, s: [f"{s}scene{i // 4}" for i in range(n)])),
            fine(),
            "data.video_from=scene",
            videos={"train5": "trainscene1"},
        ),
        case("no such field", each(apart), refused(r"data\.video_from", "scene"), "data.video_from=scene"),
        case(
            "tuples", each(ids(lambda i, s: (f"{s}film{i // 3}", i % 3))), fine(), **CLEAN, videos={FIRST: "trainfilm0"}
        ),
        case(
            "speakers",
            each(put(speaker=lambda n, _: [f"p{i % 2}" for i in range(n)])),
            fine(),
            speakers={FIRST: "p0", SECOND: "p1"},
        ),
    ),
    *row(
        "utterances",
        case(
            "a dict of them",
            utterances(1200, lambda i: f"bit{i:04d}$_$0"),
            refused("1,?200", "bit0000"),
            but={"predict": refused("1,?200", "bit0000")},  # says why it cannot predict them
        ),
        case("numbers as keys", utterances(1200, lambda i: i), refused(r"\b0\b", "1,?200|text")),
        case("pairs as keys", utterances(1200, lambda i: (f"bit{i}", i)), refused("bit0")),
        case("long keys", utterances(40, lambda i: f"{i}" + "x" * 500), refused(r"\b40\b|\b501\b")),
        case(
            "arrays", pickled({f"bit{i}": np.zeros((3, 6), np.float32) for i in range(300)}), refused(r"\b300\b|bit0")
        ),
    ),
    *row(
        "mag_bert",
        case(
            "brackets",
            mag_bert(lambda s, i: f"{s}film{i // 3}[{i % 3}]"),
            says("text|words", also=NO_FEATURES),
            splits=COUNTS,
            dims={"audio": 3, "vision": 4},
            labels=LOW,
            videos={FIRST: "trainfilm0"},
            texts={FIRST: "so it goes on ."},
            but=KEPT,
            predicted=ALL,
        ),
        case(
            "no clip",
            mag_bert(lambda s, i: f"{s}film{i}"),
            says("text|words", r"data\.video_from", also=NO_FEATURES),
            but=KEPT,
            splits=COUNTS,
        ),
        case(
            "lists",
            mag_bert(lambda s, i: f"{s}film{i // 3}[{i % 3}]", list),
            says("text|words", also=NO_FEATURES),
            but=KEPT,
            splits=COUNTS,
            labels=LOW,
        ),
    ),
    *row(
        "mult",
        case(
            "labels, parts of ids",
            mult(),
            fine("label"),
            **CLEAN,
            label=("train", 0, -2.9),
            video=("train", 4, "trainfilm1"),
            predicted=ALL,
        ),
        case("label", mult(rename(labels="label")), fine("label"), **CLEAN),
        case(
            "seven columns",
            mult(put(labels=lambda n, s: features(s, n, 7)[:, :1])),
            refused("labels", "12, 1, 7"),
            but=NOT_READ,
        ),
        case(
            "bytes",
            mult(through(id=lambda x: np.array(x).astype("S"))),
            fine("label"),
            **CLEAN,
            video=("train", 4, "trainfilm1"),
        ),
    ),
    *row(
        "single",
        case(
            "that of MMSA-FET",
            pickled({**clip(), "config": {"audio": {"tool": "none"}}}),
            refused("."),
            but=ONE,
            predicted=1,
        ),
        case(
            "with its id", pickled({"id": "me$_$0", **clip()}), refused("."), but=ONE | {"predict": fine()}, predicted=1
        ),
        case("an axis more", pickled({m: x[None] for m, x in clip().items()}), refused("."), but=ONE, predicted=1),
        case(
            "one modality",
            pickled({"audio": clip()["audio"]}),
            refused("."),
            but=ONE | {"predict": says("text|vision", also=("id",))},
            predicted=1,
        ),
        case(
            "visual",
            pickled({"visual": clip()["vision"]}),
            refused("."),
            but=ONE | {"predict": says("visual", also=(".",))},
            predicted=1,
        ),
    ),
    *row(
        "long",
        case(
            "of two",
            several(70, 4),
            refused("."),
            but=NOT_TRAINED | {"evaluate": refused("label"), "predict": fine(r"me\$_\$0|positions|long")},
            predicted=2,
        ),
    ),
    *row(
        "torch",
        case("torch.save", by_torch("own.pt"), refused("torch", "save|load")),
        case("as .pkl", by_torch("own.pkl"), refused("torch", "save|load")),
        case("of old", by_torch("own.pth", _use_new_zipfile_serialization=False), refused("torch", "save|load")),
    ),
    *row(
        "media",
        case(
            "film",
            raw("own.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99)),
            refused("video|film|media|MP4", "extract"),
        ),
        case(
            "sound",
            raw("own.wav", b"RIFF\x24\0\0\0WAVEfmt " + bytes(99)),
            refused("audio|sound|media|WAV", "extract"),
        ),
        case(
            "Matroska",
            raw("own.mkv", b"\x1a\x45\xdf\xa3" + bytes(99)),
            refused("video|media|Matroska", "extract"),
        ),
    ),
    *row(
        "json",
        case("a dict", raw("own.json", json.dumps({"0": 1.5}).encode()), refused("JSON")),
        case("lines", raw("own.jsonl", b'{"id": 1}\n{"id": 2}\n'), refused(r"JSON|\.npy")),
        case(
            "a sheet",
            zipped("own.xlsx", "[Content_Types].xml", "xl/workbook.xml"),
            refused("Excel|spreadsheet|xlsx", "CSV|csv"),
        ),
        case("gzip", raw("own.pkl.gz", gzip.compress(pickle.dumps({}))), refused("gz")),
        case("HDF5", raw("own.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), refused("HDF5")),
    ),
    *row(
        "table",
        case("semicolons and Windows paths", table(";", "\\"), fine(), **CLEAN, labels=LOW, predicted=ALL),
        case("commas", table(), fine(), **CLEAN, labels=LOW),
        case("tabs", table("\t", name="own.tsv"), fine(), **CLEAN),
        case("tabs as .csv", table("\t", bom=True), fine(), **CLEAN),
        case("decimal commas", table(";", "\\", ",", bom=True), fine(), **CLEAN, labels=LOW),
    ),
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
        notes = [f"gmsa.load: note: {w.message}" for w in caught if issubclass(w.category, DataWarning)]
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
        "class_": lambda: of("class_", lambda u: target.classes[int(u.label)]),
        "videos": lambda: of("videos", lambda u: u.video),
        "speakers": lambda: of("speakers", lambda u: u.speaker),
        "texts": lambda: of("texts", lambda u: u.text),
        "lengths": lambda: of("lengths", lambda u: dict(u.lengths)),
        "label": lambda: (*picked("label")[:2], round(picked("label")[2].label, 3)),
        "video": lambda: (*picked("video")[:2], picked("video")[2].video),
        "steps": lambda: STEPS if all(set(u.lengths.values()) == {STEPS} for u in by_id.values()) else None,
        "finite": lambda: all(bool(torch.isfinite(x).all()) for u in by_id.values() for x in u.features.values()),
        "parts": lambda: len(in_split["train"]) + len(in_split["valid"]),
        "valid": lambda: len(in_split["valid"]),
        "test": lambda: len(in_split["test"]),
        "all": lambda: sum(map(len, in_split.values())),
        "full": lambda: all(in_split.get(name) for name in COUNTS),
        "apart": lambda: apart("video"),
        "speakers_apart": lambda: apart("speaker"),
    }
    return {key: known[key]() for key in expected}


def _labeled(utterance: Any) -> bool:
    return utterance.label is not None and utterance.label == utterance.label


def check_lines(said: Said, folder: Path) -> None:
    """Every line of stderr is a note, a warning or an error, short, and said once."""
    for line in said.lines:
        kind = re.match(r"(gmsa\.|python -m gmsa\.)[\w. ]+: (note|warning|error): (.+)", line)
        assert kind, f"neither a note nor a warning nor an error: {line}"
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
    folder = bench.file(case).parent
    check_lines(said, folder)
    made = {"train": "run", "predict": "answers.csv", "import": "store"}.get(command)
    assert made is None or (folder / made).exists() == (said.code == 0), f"{made} is made where a command stops"
    if command == "predict" and said.code == 0 and case.predicted is not None:
        rows = (folder / "answers.csv").read_text().splitlines()
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
    if case.outcome.codes == (0,):
        asked = [c for c in ("train", "info", "import") if case.of(c) is case.outcome]
        expected = bench.say(case, "load").notes
        assert expected, "nothing is said"
        assert {c: bench.say(case, c).notes for c in asked} == dict.fromkeys(asked, expected)
        checked = bench.say(case, "check")  # has notes as findings, which name the file and the split elsewhere
        assert checked.notes == []
        for note in expected:
            said, where = re.fullmatch(r"own\.pkl: (?:split '(\w+)': )?(.+)", note).group(2, 1)
            assert f" {said} | {where or ''} |" in checked.out.replace("\\", "")
    else:
        asked = [c for c in ("train", "evaluate", "predict") if case.of(c) is case.outcome]
        errors = {c: bench.say(case, c).err.partition(": error: ")[2] for c in asked}
        assert len(set(errors.values())) == 1, errors


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


@pytest.mark.parametrize("name", ["classification_labels", "emotion", "annotations"])
def test_info_shows_classes(name: str, bench: Bench) -> None:
    said = bench.say(named_case("classes", f"{name} alone"), "info")
    assert said.code == 0, said.err
    for word in names_of[name]:
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
    assert len([line for line in found if line.startswith("| error")]) in (1, len(COUNTS)), found
    assert all(re.search(BIG, line) for line in found if not line.startswith("| note")), found


def test_import_keeps_all_modalities(bench: Bench) -> None:
    case = named_case("fourth", "pulse")
    said = bench.say(case, "import")
    assert said.code == 0, said.err
    with inside(bench.file(case).parent):
        assert facts_of(loaded("store", (MODALITIES,)), {"dims": WITH_PULSE}) == {"dims": WITH_PULSE}


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
    with inside(bench.file(CASES[0]).parent):  # the run finds its own file there, and compares the utterances
        said = told(evaluate.main, "evaluate", ["--run", run, "--data", os.path.relpath(file)])
    assert said.code == 2, said.out
    assert re.search(r"\b12\b", said.err)
    assert "train" in said.err
    check_lines(said, own)


def test_one_bad_clip_stops_no_other(bench: Bench) -> None:
    case = named_case("nan", "audio")
    said = bench.say(case, "predict")
    assert said.code == 0, said.err
    with open(bench.file(case).parent / "answers.csv", newline="") as file:
        predicted = {row["id"]: row["prediction"] for row in csv.DictReader(file)}
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
        (named_case("wide", "1 to 5, its range"), ["prediction"]),
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
