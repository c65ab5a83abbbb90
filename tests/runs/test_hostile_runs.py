"""A stranger's run folder: each command refuses it with one line, or does as if nothing had been changed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sklearn.metrics  # noqa: F401  here, so that the forks need not
import torch
from helpers.counts import Recorder, tell
from helpers.hostile_runs import KINDS, outside

from gmsa import evaluate, predict, train
from gmsa.reports import robustness
from gmsa.runs import report
from gmsa.system import cli

SETTINGS = """\
data: {path: own.pkl, name: tiny}
model: {channels: 8, heads: 2}
optim: {epochs: 1, min_steps: 0, batch_size: 8}
protocol: {name: supervised}
run: {seeds: [1], device: cpu}
"""
COMMANDS: dict[str, tuple[Callable[[list[str]], None], list[str]]] = {
    "p": (predict.main, ["--run", "run", "--input", "own.pkl", "--out", "out.csv"]),
    "e": (evaluate.main, ["--run", "run"]),
    "m": (evaluate.main, ["--run", "run", "--missing", "eta:0,0.5", "--mask-seeds", "0"]),
    "r": (train.main, ["--config", "tiny.yaml", "--out", "run", "--resume"]),
}
SECONDS = 15
MOST_GROWTH = 2 << 30
LONGEST = 400
SAMPLE = 24
"""Of so many kinds one is tried in the plain suite."""
PARTS = 4
"""Of the whole table, which run beside one another."""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code; minus the signal that ended it."""
    out: str
    err: str


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.setattr(report, "draw_run", lambda *_: None)  # figures take most of a small run's time
    monkeypatch.setattr(robustness, "figure_robustness", lambda *_: True)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one run that all tests copy is kept."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def whole(shelf: Path, write_mmsa: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run, its data and its config."""
    if not (shelf / "run").exists():
        shutil.move(write_mmsa("own.pkl"), shelf)
        monkeypatch.chdir(shelf)
        Path("tiny.yaml").write_text(SETTINGS)
        train.main(COMMANDS["r"][1][:-1])
        evaluate.main(COMMANDS["m"][1])
    return shelf


def attempt(place: Path, command: str) -> Outcome:
    """Runs a command in a process of its own, whose time and memory are limited."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chdir(place)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + MOST_GROWTH
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            torch.set_num_threads(1)
            main, arguments = COMMANDS[command]
            cli.run(lambda _: main(arguments), main.__module__.removeprefix("gmsa."))
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    until = time.monotonic() + SECONDS
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            found = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    out, err = ((place / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    return Outcome(os.waitstatus_to_exitcode(found[1]), out, err)


def result(place: Path, command: str) -> Any:
    """What a command leaves, but for what it says of time."""
    run = place / "run"
    if command == "p":
        return (place / "out.csv").read_text()
    if command == "e":
        return (place / "stdout").read_text()
    if command == "m":
        return [(run / name).read_text() for name in ("robustness.json", "robustness.csv")]
    names = ("model.safetensors", "predictions.csv")
    return [(run / "seed-1" / name).read_bytes() for name in names] + [(run / "summary.tex").read_bytes()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def judge(whole: Path, place: Path, kind: str, expected: dict[str, Any]) -> list[tuple[str, str]]:
    """Per command, whether a hostile run was refused or made no difference; else what happened."""
    change, refusing = KINDS[kind]
    found = []
    for command in COMMANDS:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place, symlinks=True)
        outside(place / "run").mkdir()
        change(place / "run")
        before = contents(outside(place / "run"))
        ended = attempt(place, command)
        if contents(outside(place / "run")) != before or (place / "canary").exists():
            verdict = "something outside was changed"
        elif ended.code == 2:
            line = ended.err.removesuffix("\n")
            verdict = "refused" if line.isprintable() and len(line) <= LONGEST else f"said {ended.err[:600]!r}"
        elif ended.code == 0:
            verdict = "right" if result(place, command) == expected[command] else "a wrong result"
        else:
            verdict = f"exit {ended.code}: {ended.err[-600:]}"
        if verdict in ("refused", "right") and (verdict == "refused") != (command in refusing):
            verdict = f"{verdict}, which is unexpected: {ended.err[:400]}"
        found.append((command, verdict))
    return found


@pytest.fixture
def expected(whole: Path, tmp_path: Path) -> dict[str, Any]:
    """What the commands leave of the run as it is."""
    found = {}
    for command in COMMANDS:
        place = tmp_path / "as-it-is"
        shutil.copytree(whole, place)
        ended = attempt(place, command)
        assert ended.code == 0, ended
        found[command] = result(place, command)
        shutil.rmtree(place)
    return found


def check(kinds: list[str], whole: Path, place: Path, expected: dict[str, Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    wrong = []
    for kind in kinds:
        for command, verdict in judge(whole, place, kind, expected):
            counts[verdict if verdict in ("refused", "right") else "other"] += 1
            if verdict not in ("refused", "right"):
                wrong.append(f"{kind} / {command}: {verdict}")
                print(wrong[-1], flush=True)
    assert not wrong, "\n".join(wrong)
    return counts


@pytest.mark.slow
def test_some_hostile_runs(whole: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    counts = check(sorted(KINDS)[::SAMPLE], whole, tmp_path / "place", expected)
    assert counts["refused"] > counts["right"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_hostile_runs(
    whole: Path, tmp_path: Path, expected: dict[str, Any], part: int, record_property: Recorder
) -> None:
    assert len(KINDS) >= 150
    counts = check(list(KINDS)[part::PARTS], whole, tmp_path / "place", expected)
    what = f"{len(KINDS)} hostile run folders x {len(COMMANDS)} commands"
    tell(record_property, what, counts["refused"], counts["right"])
