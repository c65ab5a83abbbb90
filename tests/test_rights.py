"""Rights: a command that may not read an input or write its output says so in one line, before any work.

The commands run as an ordinary user, in this process: they share its imports. Where the tests run as root, whom no mode
of a file stops, the process is of another user as long as a command runs.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import os
import pickle
import pkgutil
import pwd
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest
import yaml
from helpers.time_limits import no_longer_than

import gmsa
from gmsa.ablation.folder import Table
from gmsa.config import MODALITIES
from gmsa.system import cli
from gmsa.tuning.folder import Study

IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0
pytestmark = pytest.mark.skipif(
    not hasattr(os, "setresuid" if IS_ROOT else "getuid"), reason="needs POSIX's rights, and a process's change of user"
)

USER = 65534
"""Where the tests run as root: the user and the group of the commands."""
PATIENCE = 60
"""Seconds until a command counts as hanging."""
MOST = 400
"""Characters of an error's line."""
WORK = ("run_cells", "run_workers", "predict_utterances", "build_graph")
"""Functions that compute; none of them may be reached."""
PRETRAIN = ("--set", "protocol.name=pretrain", "--set", "pretrain.epochs=1")
READING = ("load_pickle", "read_mmsa", "load_corpus", "open_source")
"""Functions that read data; none of them may be reached before the place of the output was tried."""

SMALL = {
    "data": {"path": "own.pkl", "name": "tiny"},
    "model": {"channels": 8, "heads": 2},
    "optim": {"epochs": 1, "min_steps": 0, "batch_size": 8},
    "self_training": {"k": 2},
    "run": {"seeds": [1], "device": "cpu", "threads": 1},
}
COMMANDS = {
    "train": "train --config tiny.yaml --out new",
    "train, default": "train --config tiny.yaml --set run.out=new",
    "resume": "train --config tiny.yaml --out run --resume",
    "init_from": "train --config tiny.yaml --out new --set protocol.init_from=pretrained",
    "base": "train --config child.yaml --out new",
    "evaluate": "evaluate --run run",
    "evaluate, out": "evaluate --run run --out new",
    "evaluate, data": "evaluate --run run --data other.pkl",
    "missing": "evaluate --run run --missing eta:0.5",
    "missing, out": "evaluate --run run --missing eta:0.5 --out new",
    "runs": "evaluate --run run --run run2 --missing eta:0.5 --out new",
    "predict": "predict --run run --input other.pkl --out new.csv",
    "ablate": "ablate --config tiny.yaml --settings settings.yaml --out new",
    "ablate again": "ablate --config tiny.yaml --settings settings.yaml --out table",
    "tune": "tune --config tiny.yaml --space space.yaml --trials 2 --out new",
    "tune, beside": "tune --config tiny.yaml --trials 2 --out new",
    "tune again": "tune --config tiny.yaml --space space.yaml --trials 2 --out study",
    "inspect": "inspect --config tiny.yaml --id train0$_$0 --out new.png",
    "config": "config tiny.yaml",
    "config, closed": "config closed/a.yaml",
    "config, base": "config stray.yaml",
    "config, long": f"config {'a' * 10_000}",
    "info": "data info own.pkl",
    "check": "data check own.pkl",
    "check, out": "data check own.pkl --out new",
    "import": "data import own.pkl --out new",
    "import, splits": "data import own.pkl --splits splits.csv --out new",
    "import table": "data import table.csv --out new",
    "import folder": "data import frames --out new",
    "train, store": "train --config tiny.yaml --data store --out new",
    "info, store": "data info store",
    "check, store": "data check store",
    "predict, store": "predict --run run --input store --out new.csv",
    "evaluate, store": "evaluate --run run --data store",
}
CONFIGS = ("train", "resume", "ablate", "tune", "inspect", "config")
DATA = ("train", "resume", "evaluate", "missing", "ablate", "ablate again", "tune", "tune again", "inspect", "info")
DATA += ("check", "import")
RUNS = ("resume", "evaluate", "missing", "runs", "predict")
WEIGHTS = ("evaluate", "missing", "runs", "predict")
STORES = ("train, store", "info, store", "check, store", "predict, store", "evaluate, store")
FOLDERS = ("train", "train, default", "evaluate, out", "missing, out", "runs", "ablate", "tune", "check, out", "import")
NAMED = tuple(command for command in FOLDERS if command != "train, default")
"""Those whose place is not numbered where it is taken."""
FILES = ("predict", "inspect")

Prepare = Callable[[pytest.MonkeyPatch], Any]


class Situation(NamedTuple):
    """What is closed, and which commands need it."""

    commands: tuple[str, ...]
    modes: Mapping[str, int] = MappingProxyType({})
    """New modes of files and folders."""
    named: str = ""
    """What the line names (default: what is closed)."""
    out: str | None = None
    """What stands in the place of ``new``, ``new.csv`` or ``new.png`` in the command."""
    more: tuple[str, ...] = ()
    """Further arguments."""
    prepare: Prepare | None = None
    """What is done in the folder beforehand, as the user."""


INPUTS = {
    "config without r": Situation(CONFIGS, {"tiny.yaml": 0}),
    "config's folder without x": Situation(("train",), {"closed": 0o600}, more=("--config", "closed/a.yaml")),
    "config's folder without x, explained": Situation(("config, closed",), {"closed": 0o600}),
    "base without r": Situation(("base",), {"configs/base.yaml": 0}),
    "base's folder without x": Situation(("base",), {"configs": 0o600}),
    "space without r": Situation(("tune", "tune again"), {"space.yaml": 0}),
    "space's folder without x": Situation(("tune",), {"closed": 0o600}, more=("--space", "closed/space.yaml")),
    "spaces beside the config without x": Situation(("tune, beside",), {"spaces": 0o600}),
    "space beside the config without r": Situation(("tune, beside",), {"spaces/default.yaml": 0}),
    "settings without r": Situation(("ablate", "ablate again"), {"settings.yaml": 0}),
    "settings' folder without x": Situation(("ablate",), {"closed": 0o600}, more=("--settings", "closed/s.yaml")),
    "data without r": Situation(DATA, {"own.pkl": 0}),
    "data's folder without x": Situation(
        ("train", "ablate", "tune", "inspect"), {"closed": 0o600}, more=("--set", "data.path=closed/own.pkl")
    ),
    "pool without r": Situation(("train",), {"other.pkl": 0}, more=("--set", "data.pool=other.pkl")),
    "input without r": Situation(("predict", "evaluate, data"), {"other.pkl": 0}),
    "splits without r": Situation(("import, splits",), {"splits.csv": 0}),
    "table without r": Situation(("import table",), {"table.csv": 0}),
    "array without r": Situation(("import table",), {"arrays/t.npy": 0}, "t.npy"),
    "arrays without x": Situation(("import table",), {"arrays": 0o600}, "arrays"),
    "folder of frames without r": Situation(("import folder",), {"frames": 0o300}),
    "folder of frames without x": Situation(("import folder",), {"frames": 0o600}),
    "labels of frames without r": Situation(("import folder",), {"frames/train_labels.csv": 0}),
    "modality of frames without x": Situation(("import folder",), {"frames/text": 0o600}),
    "frame without r": Situation(("import folder",), {"frames/text/v_1.npy": 0}, "v_1"),
    "store without x": Situation(STORES, {"store": 0o600}),
    **{
        f"store's {name} without r": Situation(STORES if name == "manifest.json" else STORES[:1], {f"store/{name}": 0})
        for name in ("manifest.json", "labels.npy", "ids.npy", "text.npy", "text.offsets.npy", "transcripts.npy")
    },
    "run without x": Situation(RUNS, {"run": 0o600}, "run"),
    "run without rights": Situation(RUNS, {"run": 0}, "run"),
    **{
        f"{name} without r": Situation(RUNS, {f"run/{name}": 0})
        for name in ("config.yaml", "environment.json", "normalizer.safetensors")
    },
    "seed without x": Situation(("resume", *WEIGHTS), {"run/seed-1": 0o600}),
    "seed without r": Situation(("resume",), {"run/seed-1": 0o300}),
    "weights without r": Situation(WEIGHTS, {"run/seed-1/model.safetensors": 0}),
    "pretrained run without x": Situation(("init_from",), {"pretrained": 0o600}),
    "pretrained run's config without r": Situation(("init_from",), {"pretrained/config.yaml": 0}),
    "pretrained run's weights without r": Situation(("init_from",), {"pretrained/seed-1/model.safetensors": 0}),
    "history without r": Situation(("evaluate", "evaluate, out"), {"run/seed-1/history.jsonl": 0}),
    "summary without r": Situation(("missing",), {"run/summary.json": 0}),
    "second run without x": Situation(("runs",), {"run2": 0o600}),
    "second run's weights without r": Situation(("runs",), {"run2/seed-1/model.safetensors": 0}),
    "lock without w": Situation(("resume", "missing"), {"run/.writer.lock": 0o400}, ".writer.lock"),
    "study without x": Situation(("tune again",), {"study": 0o600}),
    "study without r": Situation(("tune again",), {"study": 0o300}),
    "journal without r": Situation(("tune again",), {"study/journal.log": 0o200}),
    "ablation without x": Situation(("ablate again",), {"table": 0o600}),
    "ablation without r": Situation(("ablate again",), {"table": 0o300}),
    "cells without x": Situation(("ablate again",), {"table/cells": 0o600}),
    "cell without x": Situation(("ablate again",), {"table/cells/add/seed-1": 0o600}),
    "cell's record without r": Situation(("ablate again",), {"table/cells/add/seed-1/cell.json": 0}),
    "cell's config without r": Situation(("ablate again",), {"table/cells/add/seed-1/config.yaml": 0}),
    "cell's predictions without r": Situation(("ablate again",), {"table/cells/add/seed-1/seed-1/predictions.csv": 0}),
    "data.path of 4,000 characters": Situation(
        ("train", "ablate", "tune", "inspect"), named="a" * 60, more=("--set", f"data.path={'a' * 4_000}")
    ),
    "data.path of 10,000 characters": Situation(
        ("train", "inspect"), named="data.path", more=("--set", f"data.path={'a' * 10_000}")
    ),
    "data.path with a null byte": Situation(
        ("train", "ablate", "tune", "inspect"), named="a\\x00b", more=("--set", 'data.path="a\\0b"')
    ),
    "data of 4,000 characters": Situation(("train",), named="a" * 60, more=("--data", "a" * 4_000)),
    "input of many folders": Situation(("predict",), named="aaa/aaa", more=("--input", "aaa/" * 2_500)),
    "input of 10,000 characters": Situation(("predict",), named="a" * 60, more=("--input", "a" * 10_000)),
    "run of 10,000 characters": Situation(("predict",), named="a" * 60, more=("--run", "a" * 10_000)),
    "config of 10,000 characters": Situation(("train",), named="a" * 60, more=("--config", "a" * 10_000)),
    "config of 10,000 characters, explained": Situation(("config, long",), named="a" * 60),
    "init_from of 10,000 characters": Situation(
        ("train",), named="a" * 60, more=("--set", f"protocol.init_from={'a' * 10_000}")
    ),
    "no such user": Situation(("train", "tune"), named="~nosuchuser", more=("--config", "~nosuchuser/a.yaml")),
    "data of no such user": Situation(("train",), named="~nosuchuser", more=("--data", "~nosuchuser/a.pkl")),
    "run of no such user": Situation(("predict",), named="~nosuchuser", more=("--run", "~nosuchuser/run")),
    "base of no such user": Situation(("config, base",), named="~nosuchuser"),
}
"""Inputs that cannot be read."""
UNWRITABLE = {
    "run without w": Situation(("resume", "missing"), {"run": 0o500}),
    "run's seed without w": Situation(("resume",), {"run/seed-1": 0o500}),
    "run's figures without w": Situation(("resume", "missing"), {"run/figures": 0o500}),
    "run's tracker without w": Situation(("resume",), {"run/tensorboard": 0o500}),
    "ablation without w": Situation(("ablate again",), {"table": 0o500}),
    "ablation's figures without w": Situation(("ablate again",), {"table/figures": 0o500}),
    "cells without w": Situation(("ablate again",), {"table/cells/gate": 0o500}),
    "unfinished cell without w": Situation(("ablate again",), {"table/cells/gate/seed-1": 0o500}),
    "unfinished cell's seed without w": Situation(("ablate again",), {"table/cells/gate/seed-1/seed-1": 0o500}),
    "study without w": Situation(("tune again",), {"study": 0o500}),
    "journal without w": Situation(("tune again",), {"study/journal.log": 0o400}),
    "study's trials without w": Situation(("tune again",), {"study/trials": 0o500}),
}
"""Outputs of before that cannot be written."""
PLACES = {
    "folder without w": Situation(FOLDERS + FILES, {"closed": 0o500}, out="closed/x"),
    "folder without x": Situation(FOLDERS + FILES, {"closed": 0o600}, out="closed/x"),
    "folder below one without w": Situation(FOLDERS, {"closed": 0o500}, out="closed/a/b/c"),
    "itself without w": Situation(NAMED[:-1], {"empty": 0o500}, out="empty"),
    "itself without x": Situation(NAMED[:-1], {"empty": 0o600}, out="empty"),
    "itself without r": Situation(("train", "ablate", "tune"), {"empty": 0o300}, out="empty"),
    "a file": Situation(NAMED, out="own.pkl"),
    "a folder": Situation(FILES, out="empty"),
    "below a file": Situation(FOLDERS + FILES, out="own.pkl/x"),
    "a closed file": Situation(FILES, {"closed.csv": 0o400}, out="closed.csv"),
    "no parent": Situation(FILES, out="nowhere/x"),
    "300 characters": Situation(FOLDERS + FILES, named="a" * 60, out="a" * 300),
    "below 300 characters": Situation(FOLDERS + FILES, named="a" * 60, out="a" * 300 + "/x"),
    "10,000 characters": Situation(NAMED + FILES, named="aaa/aaa", out="aaa/" * 2500 + "x"),
    "a dangling link": Situation(FOLDERS, out="dangling"),
    "below a dangling link": Situation(FOLDERS + FILES, named="dangling", out="dangling/x"),
    "a circle of links": Situation(FOLDERS + FILES, named="circle", out="circle/x"),
    "/proc": Situation(FOLDERS + FILES, out="/proc/x"),
    "/dev/full": Situation(NAMED + FILES, out="/dev/full"),
    "below /dev/full": Situation(FOLDERS + FILES, out="/dev/full/x"),
    "a pipe": Situation(NAMED + FILES, out="pipe"),
    "a null byte": Situation(FOLDERS + FILES, named="a\\x00b", out="a\0b"),
    "not UTF-8": Situation(FOLDERS + FILES, named="a\\udcff", out="a\udcff"),
    "no such user": Situation(("train",), named="~nosuchuser", out="~nosuchuser/x"),
}
"""Places that no output can be written to."""
HOMELESS = {
    "no home": Situation(("train", "ablate", "tune"), named="~/x", out="~/x", prepare=lambda patch: _homeless(patch)),
    "config at no home": Situation(
        ("train",), named="~/a.yaml", more=("--config", "~/a.yaml"), prepare=lambda patch: _homeless(patch)
    ),
    "working directory without rights": Situation(
        ("train", "evaluate", "predict", "ablate", "tune", "inspect", "config", "info"),
        named="Permission denied",
        prepare=lambda _: (os.chmod("empty", 0o700), os.chdir("empty"), os.chmod(".", 0)),
    ),
    "sys.path without rights": Situation(
        ("train", "ablate", "config"),
        {"closed": 0},
        named="not_a_module",
        more=("--plugin", "not_a_module"),
        prepare=lambda patch: patch.syspath_prepend(os.path.abspath("closed")),
    ),
}
"""An environment that a command cannot use."""
GONE = {
    "the working directory is gone": Situation(
        tuple(COMMANDS),
        named="working directory",
        prepare=lambda _: (os.mkdir("gone"), os.chdir("gone"), os.rmdir("../gone")),
    ),
}


def cases(table: dict[str, Situation]) -> list[Any]:
    """Situation and command, each with a name; all but one command of a situation, in turn, are slow."""
    return [
        pytest.param(
            situation,
            command,
            id=f"{name}: {command}",
            marks=[pytest.mark.slow] * (number % len(situation.commands) != place),
        )
        for number, (name, situation) in enumerate(table.items())
        for place, command in enumerate(situation.commands)
    ]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Site:
    """Folders with all that commands read, each with what a situation closes.

    Args:
        whole: the folder that they are copies of.
    """

    def __init__(self, whole: Path) -> None:
        self.whole, self.here = whole, whole.parent / "here"
        self.situation: Situation | None = None

    def open(self, situation: Situation) -> None:
        """Makes the folder of a situation, where it is not that of the last one."""
        if situation is self.situation:
            return
        self.close()
        shutil.copytree(self.whole, self.here)
        os.mkfifo(self.here / "pipe")
        os.symlink("nowhere", self.here / "dangling")
        os.symlink("circle", self.here / "circle")
        if IS_ROOT:
            for path in (self.here, *self.here.rglob("*")):
                os.chown(path, USER, USER, follow_symlinks=False)
        for name, mode in situation.modes.items():
            os.chmod(self.here / name, mode)
        self.situation = situation

    def close(self) -> None:
        """Deletes the folder."""
        self.situation = None
        if not self.here.exists():
            return
        for folder, names, _ in os.walk(self.here):
            for name in names:
                if not os.path.islink(path := os.path.join(folder, name)):
                    os.chmod(path, 0o700)
        shutil.rmtree(self.here)

    def content(self) -> dict[str, int]:
        """Size of every file and link, as far as the tests may look, and -1 for every folder."""
        found = {}
        for folder, names, files in os.walk(self.here):
            found |= {os.path.join(folder, name): -1 for name in names}
            for name in files:
                path = os.path.join(folder, name)
                found[path] = os.lstat(path).st_size if os.access(path, os.F_OK) else -2
        return found

    def run(self, act: Callable[[], Any], forbidden: tuple[str, ...] = (), prepare: Prepare | None = None) -> Ended:
        """Acts as an ordinary user; what an end of the process would say is the exit code.

        Args:
            forbidden: functions that may not be reached.
            prepare: called first.
        """
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            no_longer_than(PATIENCE),
        ):
            patch.chdir(self.here)
            patch.setattr(tempfile, "tempdir", str(self.here))
            self._forbid(patch, forbidden)
            patch.setattr(sys, "argv", [])
            patch.setattr(sys, "path", [*sys.path])
            with _another_user():
                if prepare is not None:
                    prepare(patch)
                try:
                    act()
                except SystemExit as ended:
                    code = int(ended.code or 0)
        return Ended(code, out.getvalue(), err.getvalue())

    @staticmethod
    def _forbid(patch: pytest.MonkeyPatch, forbidden: tuple[str, ...]) -> None:
        if forbidden:
            from gmsa.training.trainer import Trainer

            patch.setattr(Trainer, "_epoch", _forbidden)
        for module in [module for name, module in sys.modules.items() if name.startswith("gmsa.")]:
            for name in forbidden:
                if hasattr(module, name):
                    patch.setattr(module, name, _forbidden)


@contextlib.contextmanager
def _another_user() -> Iterator[None]:
    """Makes this process that of an ordinary user, where it is root's."""
    if not IS_ROOT:
        yield
        return
    group, groups = os.getgid(), os.getgroups()
    os.setgroups([])
    os.setresgid(USER, USER, group)
    os.setresuid(USER, USER, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(group, group, group)
        os.setgroups(groups)


def command_of(arguments: list[str]) -> Callable[[], None]:
    """What runs a command with its arguments."""
    name, *_ = arguments

    def act() -> None:
        sys.argv = arguments
        cli.run(importlib.import_module(cli.COMMANDS[name].module).main, name)

    return act


def _homeless(patch: pytest.MonkeyPatch) -> None:
    """Takes the user's home from this process."""
    patch.delenv("HOME", raising=False)
    patch.setattr(pwd, "getpwuid", _nobody)


def _nobody(user: int) -> NoReturn:
    raise KeyError(f"no user {user}")


def _forbidden(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("work was done")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A folder that others than root reach, with a run, a study, an ablation, a store and what importers read."""
    root = Path(tempfile.mkdtemp(prefix="gmsa-rights-", dir=_open_to_all()))
    root.chmod(0o755)
    (whole := root / "whole").mkdir()
    site = Site(whole)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(whole)
            patch.delenv("GMSA_DATA", raising=False)
            _fill(patch)
        _import_all()
        yield site
    finally:
        site.close()
        shutil.rmtree(root)


def _import_all() -> None:
    """Imports what commands import: the user may not reach where it is installed."""
    codecs.lookup("utf-8-sig")
    for module in pkgutil.walk_packages(gmsa.__path__, "gmsa."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of a tracker that is not installed
                importlib.import_module(module.name)


def _open_to_all() -> str:
    for folder in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if all(stat.S_IMODE(path.stat().st_mode) & 0o001 for path in (folder, *folder.parents)):
            return str(folder)
    pytest.skip("needs a temporary folder that others than root reach")


def _fill(patch: pytest.MonkeyPatch) -> None:
    """Makes all that the commands read, in the working directory."""
    from gmsa import ablate, train, tune
    from gmsa.ablation import ablate as ablation
    from gmsa.ablation.cells import Cell, train_cell
    from gmsa.data.__main__ import main as data
    from gmsa.runs import report
    from gmsa.tuning import study

    def write(name: str, text: str) -> None:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)

    fusions = [{"name": name, "model.fusion": name} for name in ("add", "gate")]
    space = {"optim.lr": {"float": [1e-4, 1e-2], "log": True}}
    for name, content in {
        "tiny.yaml": SMALL,
        "configs/base.yaml": SMALL,
        "closed/a.yaml": SMALL,
        "child.yaml": {"base": "configs/base.yaml"},
        "stray.yaml": {"base": "~nosuchuser/a.yaml"},
        "settings.yaml": fusions,
        "closed/s.yaml": fusions,
        "space.yaml": space,
        "spaces/default.yaml": space,
        "closed/space.yaml": space,
    }.items():
        write(name, yaml.safe_dump(content))
    _write_mmsa("own.pkl", "")
    _write_mmsa("other.pkl", "other")
    shutil.copy("own.pkl", "closed/own.pkl")
    write("splits.csv", "video,split\ntrain0,train\n")
    write("table.csv", "id,split,label,text\nv$_$0,train,1,arrays/t.npy\nv$_$1,test,1,arrays/t.npy\n")
    write("frames/train_labels.csv", "name,val\nv_1,-1\n")
    write("closed.csv", "")
    for name in ("arrays/t.npy", "frames/text/v_1.npy"):
        Path(name).parent.mkdir(exist_ok=True)
        np.save(name, np.ones((2, 4), np.float32))
    Path("empty").mkdir()
    data(["import", "own.pkl", "--out", "store"])

    def run_cells(cells: list[Cell], _: int, ended: Callable[[Cell, Any], None]) -> None:
        for cell in cells:
            ended(cell, train_cell(cell))

    patch.setattr(report, "draw_run", lambda folder, *_: folder.mkdir(exist_ok=True))
    patch.setattr(ablation, "run_cells", run_cells)
    patch.setattr(study, "run_workers", lambda *_: None)
    train.main(["--config", "tiny.yaml", "--out", "run"])
    train.main(["--config", "tiny.yaml", "--out", "pretrained", *PRETRAIN])
    Path("run/tensorboard").mkdir()
    shutil.copytree("run", "run2")
    ablate.main(COMMANDS["ablate again"].split()[1:])
    os.unlink("table/cells/gate/seed-1/cell.json")
    with pytest.raises(SystemExit):  # no trial has a value
        tune.main(COMMANDS["tune again"].split()[1:])
    Path("study/trials").mkdir()


def _write_mmsa(name: str, prefix: str) -> None:
    """Writes a file in MMSA's format, 8 utterances in each split, nothing missing."""
    rng = np.random.default_rng(0)
    content = {}
    for split in ("train", "valid", "test"):
        features = {
            m: rng.standard_normal((8, 4, dim)).astype(np.float32) for m, dim in zip(MODALITIES, (4, 3, 2), strict=True)
        }
        ids = [f"{prefix}{split}{i // 4}$_${i}" for i in range(8)]
        content[split] = {"id": ids, "regression_labels": np.linspace(-3, 3, 8), **features}
    Path(name).write_bytes(pickle.dumps(content))


def arguments_of(command: str, situation: Situation) -> list[str]:
    """The arguments of a command in a situation."""
    arguments = COMMANDS[command].split()
    if situation.out is not None:
        place = next(a for a in arguments if a.removeprefix("run.out=").partition(".")[0] == "new")
        suffix = place.removeprefix("run.out=").removeprefix("new") if situation.out.endswith("/x") else ""
        prefix = "run.out=" if place.startswith("run.out=") else ""
        arguments[arguments.index(place)] = f"{prefix}{situation.out}{suffix}"
    return [*arguments, *situation.more]


def check_refused(site: Site, situation: Situation, command: str, forbidden: tuple[str, ...]) -> None:
    site.open(situation)
    before = site.content()
    ended = site.run(command_of(arguments_of(command, situation)), forbidden, situation.prepare)
    line, named = ended.err, situation.named or situation.out or next(iter(situation.modes), "")
    try:
        assert ended.code == 2, ended
        assert line.startswith("gmsa."), line
        assert line.endswith("\n"), line
        assert line.count("\n") == 1, line
        assert len(line) <= MOST, line
        assert named in line, line
        assert "epoch" not in ended.out, ended.out
        assert site.content() == before, "something was written"
    except AssertionError:
        site.situation = None  # the next one gets a folder of its own
        raise


@pytest.mark.parametrize(("situation", "command"), cases(INPUTS))
def test_inputs_that_cannot_be_read(site: Site, situation: Situation, command: str) -> None:
    check_refused(site, situation, command, WORK)


@pytest.mark.parametrize(("situation", "command"), cases(UNWRITABLE))
def test_outputs_of_before_that_cannot_be_written(site: Site, situation: Situation, command: str) -> None:
    check_refused(site, situation, command, (*WORK, *READING))


@pytest.mark.parametrize(("situation", "command"), cases(PLACES))
def test_places_that_cannot_be_written_to(site: Site, situation: Situation, command: str) -> None:
    check_refused(site, situation, command, (*WORK, *READING))


@pytest.mark.parametrize(("situation", "command"), cases(HOMELESS | GONE))
def test_an_environment_that_cannot_be_used(site: Site, situation: Situation, command: str) -> None:
    check_refused(site, situation, command, (*WORK, *READING))


@pytest.mark.parametrize("command", ["evaluate", "evaluate, out", "missing", "predict", "config", "info", "check, out"])
def test_with_all_rights_the_commands_succeed(site: Site, command: str) -> None:
    site.open(Situation((command,)))
    ended = site.run(command_of(COMMANDS[command].split()))
    assert ended.code == 0, ended


PYTHON: dict[str, tuple[str, Callable[[], Any]]] = {
    "save": ("closed/x", lambda: gmsa.load("run").save("closed/x")),
    "save below a file": ("own.pkl", lambda: gmsa.load("run").save("own.pkl/x")),
    "to_csv": ("closed/x.csv", lambda: gmsa.load("run").predict("other.pkl").to_csv("closed/x.csv")),
    "load": ("closed/run", lambda: gmsa.load("closed/run")),
    "evaluate": ("closed/x", lambda: gmsa.load("run").evaluate(out="closed/x")),
    "fit": ("closed/x", lambda: gmsa.fit("tiny.yaml", out="closed/x")),
    "compare": ("closed/x", lambda: gmsa.compare("tiny.yaml", {"model.fusion": ["add", "gate"]}, out="closed/x")),
    "search": ("closed/x", lambda: gmsa.search("tiny.yaml", "space.yaml", 2, out="closed/x")),
    "Table": ("closed/table", lambda: Table("closed/table")),
    "Study": ("closed/study", lambda: Study("closed/study")),
}


@pytest.mark.parametrize(("named", "act"), PYTHON.values(), ids=PYTHON)
def test_python_raises_the_same(site: Site, named: str, act: Callable[[], Any]) -> None:
    def guarded() -> None:
        with cli.exit_codes("python"):
            act()

    site.open(Situation((), {"closed": 0o600}))
    ended = site.run(guarded)
    assert ended.code == 2, ended
    assert ended.err.count("\n") == 1, ended.err
    assert named in ended.err
