"""Whole studies: what is refused, resuming, and the command."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from helpers.studies import rows_of, tune, without_seconds

from gmsa.config import Config
from gmsa.errors import ConfigError, RunError
from gmsa.system import cli
from gmsa.tune import main
from gmsa.tuning import objective as objectives
from gmsa.tuning import study as studies
from gmsa.tuning.storage import StoragePlace
from gmsa.tuning.study import StudyOptions, check_options, differences


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "--trials must be above 0 and at most 100,000"),
        ({"trials": 10**400}, "--trials must be above 0 and at most 100,000"),
        ({"jobs": 0}, "--jobs must be above 0 and at most 256"),
        ({"jobs": 257}, "--jobs must be above 0 and at most 256"),
        ({"timeout": 0}, "--timeout must be above 0"),
        ({"timeout": -math.inf}, "--timeout must be above 0"),
        ({"timeout": math.nan}, "--timeout must be above 0 .got nan"),
        ({"heartbeat": 0}, "--heartbeat must be above 0"),
        ({"heartbeat": 10**9}, "--heartbeat must be above 0 and at most 86,400"),
        ({"salvage": True, "url": "postgresql://host/db"}, "--salvage mends the journal"),
        ({"sampler": "grid"}, "--sampler must be one of tpe, gp, random, qmc"),
        ({"pruner": "none"}, "--pruner must be one of median, hyperband, off"),
        ({"objectives": ("F1",)}, "--objective must be one of MAE, Corr, seconds, parameters"),
        ({"objectives": ("MAE", "MAE"), "pruner": "off"}, "names one twice"),
        ({"objectives": ("MAE", "seconds")}, "cannot stop trials early; use --pruner off"),
        ({"objectives": ("seconds",)}, "has no curve to prune by; use --pruner off"),
        ({"trial_seeds": (1, 1)}, "--trial-seeds names a seed twice"),
        ({"seeds": (1, 1)}, "--seeds names a seed twice"),
        ({"seeds": (2**63,)}, "--seeds takes whole numbers of at most 63 bits"),
        ({"trial_seeds": (-(2**63),)}, "--trial-seeds takes whole numbers of at most 63 bits"),
        ({"seed": 10**400}, "--seed takes whole numbers of at most 63 bits"),
        ({"url": "sqlite:///a.db", "jobs": 2}, "SQLite cannot be shared"),
    ],
)
def test_options_that_cannot_be_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    options = {"name": "s", "trials": 3, "folder": tmp_path, "objectives": ("MAE",)} | change
    with pytest.raises(ConfigError, match=message):
        check_options(StudyOptions(**options), Config())


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "a//b",
        "a/../../b",
        "a/",
        "../../x",
        "/etc",
        "a\\b",
        "a\nb",
        "a\tb",
        "\x1b[2J",
        "\x00",
        "\ud800",
        "\u202eabc",
        "x" * 101,
    ],
)
def test_a_name_that_cannot_be_part_of_a_folders_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a study's name") as caught:
        check_options(StudyOptions(name, 3, tmp_path, ("MAE",)), Config())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_names_that_are_harmless(tmp_path: Path) -> None:
    for name in ("mosi_graph-default", "Größe 2", "日本", "a.b", "$x_{$", "-rf"):
        check_options(StudyOptions(name, 3, tmp_path, ("MAE",)), Config())


@pytest.mark.slow
def test_the_space_of_contexts_is_searched(base: Path, here: None, tmp_path: Path) -> None:
    space = Path(__file__).parents[2] / "configs" / "spaces" / "context.yaml"
    out = tmp_path / "study"
    options = ("--space", str(space), "--trials", "4", "--sampler", "random", "--set", "graph.scope=hierarchical")
    assert tune(base, out, *options) == 0
    rows = rows_of(out)
    assert {row["state"] for row in rows} == {"complete"}
    assert "hierarchical" in {row["graph.scope"] for row in rows}


def test_differences_are_named_by_key() -> None:
    before = {"a": 1, "b": {"c": [1], "d": 2}}
    assert differences(before, before) == []
    assert differences(before, {"a": 1, "b": {"c": [2], "d": 2}, "e": 0}) == [
        "b.c was [1], is [2]",
        "e was None, is 0",
    ]


def test_a_study_goes_on_and_refuses_another(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    assert tune(base, out, "--trials", "2") == 0
    two = rows_of(out)
    assert tune(base, out, "--trials", "4") == 0
    assert rows_of(out)[:2] == two
    assert len(rows_of(out)) == 4
    assert "4 trials, 2 from before" in capsys.readouterr().out
    for arguments, message in (
        (["--set", "optim.epochs=3"], r"config.optim.epochs was 2, is 3"),
        (["--sampler", "random"], r"sampler was 'tpe', is 'random'"),
        (["--seed", "5"], r"seed was 0, is 5"),
        (["--trial-seeds", "7"], r"trial_seeds was \[1\], is \[7\]"),
    ):
        with pytest.raises(RunError, match=message):
            tune(base, out, "--trials", "4", *arguments)
    data = Path(yaml.safe_load(base.read_text())["data"]["path"])
    content = pickle.loads(data.read_bytes())
    content["valid"]["regression_labels"] = content["valid"]["regression_labels"][::-1].copy()
    data.write_bytes(pickle.dumps(content))
    with pytest.raises(RunError, match="data_sha256 was"):
        tune(base, out, "--trials", "4")


def test_test_labels_cannot_reach_a_study(base: Path, here: None, tmp_path: Path) -> None:
    """Test labels and test features are changed: no trial, no choice and no score of a study changes."""
    arguments = ("--trials", "3", "--pruner", "off")
    assert tune(base, tmp_path / "a", *arguments) == 0
    settings = yaml.safe_load(base.read_text())
    data = Path(settings["data"]["path"])
    content = pickle.loads(data.read_bytes())
    content["test"]["regression_labels"] = -content["test"]["regression_labels"]
    content["test"]["text"] = content["test"]["text"][::-1].copy()
    data.write_bytes(pickle.dumps(content))
    assert tune(base, tmp_path / "b", *arguments) == 0
    assert without_seconds(tmp_path / "a") == without_seconds(tmp_path / "b")
    one, two = (yaml.safe_load((tmp_path / name / "best.yaml").read_text()) for name in "ab")
    assert one == two
    finals = [json.loads((tmp_path / n / "summary.json").read_text())["final"] for n in "ab"]
    tests = [[row["test"]["MAE"]["mean"] for row in final["rows"]] for final in finals]
    assert tests[0] != tests[1]  # it was scored, once, in the end


def test_no_error_shows_a_secret(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that nobody foresaw, whose traceback would be kept in a file."""
    secret = "-".join(("Xy7", "hush"))  # in this way, as a traceback shows the lines of this file
    url = f"postgresql://me:{secret}@host/db"

    def fail(kind: type[Exception], message: str) -> None:
        try:
            raise KeyError(url)
        except KeyError as error:
            raise kind(message) from error

    for kind, message in ((ValueError, "of the driver"), (RunError, f"of the driver: {secret}")):
        monkeypatch.setattr(studies, "prepare", lambda config, kind=kind, message=message: fail(kind, message))
        with pytest.raises(RunError, match="of the driver") as caught:
            tune(base, tmp_path / "s", "--trials", "2", "--storage", url)
        assert secret not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setattr(studies, "prepare", lambda config: fail(ValueError, "of gmsa"))
    with pytest.raises(ValueError, match="of gmsa"):
        tune(base, tmp_path / "s", "--trials", "2")


def test_a_study_without_any_value_ends_with_1(
    base: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(objectives, "train_seed", fail)
    assert tune(base, tmp_path / "study", "--trials", "2") == 1
    assert "No trial has a value. RuntimeError: out of memory" in capsys.readouterr().out
    assert {row["reason"] for row in rows_of(tmp_path / "study")} == {"RuntimeError: out of memory"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "2", "--space", "none.yaml"], "search space 'none.yaml' does not exist"),
        (["--trials", "2", "--sampler", "grid"], "--sampler must be one of"),
        (["--trials", "2", "--storage", "sqlite:///a.db", "--jobs", "2"], "SQLite cannot be shared by 2 workers"),
        (["--trials", "2", "--set", "data.path=none.pkl"], "none.pkl"),
        (["--trials", "2", "--out", "README.md"], "README.md"),
        (["--trials", "2", "--set", "protocol.name=pretrain", "--set", "pretrain.epochs=1"], "predicts nothing"),
        (["--trials", "2", "--out", "full"], "is not empty and holds no study"),
        (["--trials", "2", "--out", "nowhere"], "is a link that leads nowhere"),
        (["--trials", "2", "--out", "README.md/study"], "is a file, not a folder"),
        (["--trials", "2", "--out", "/proc/study"], "cannot write '/proc/study'"),
        (["--trials", "2", "--out", "x" * 300], "name too long"),
        (["--trials", "2", "--study", "../../x"], "cannot be a study's name"),
        (["--trials", "2", "--storage", "sqlite://"], "SQLite takes the path of a file alone"),
        (["--trials", "2", "--jobs", "100000"], "at most 256"),
        (["--trials", "2", "--timeout", "nan"], "--timeout must be above 0"),
        (["--trials", "2", "--set", "self_training.k=999", "--set", "protocol.name=self_training",
          "--set", "data.label_ratio=0.5"], "self_training.k"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], message: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    monkeypatch.setattr(sys, "argv", ["tune", "--config", str(base), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(main, "tune")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_a_folder_with_anothers_study(base: Path, here: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    storage = StoragePlace(out).connect()
    optuna.create_study(study_name="mine", storage=storage).add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(RunError, match="was not made by gmsa; give another --study"):
        tune(base, out, "--trials", "1", "--study", "mine")


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_to_the_same_end(base: Path, tmp_path: Path) -> None:
    """The command itself, killed with kill -9 at several moments, and interrupted by Ctrl-C once."""
    command = [sys.executable, "-m", "gmsa.tune", "--config", str(base), "--trials", "14", "--set", "optim.epochs=6"]
    subprocess.run([*command, "--out", str(tmp_path / "a")], check=True, capture_output=True)
    for moment in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([*command, "--out", str(tmp_path / "b")], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if "/14 trials: trial" in line:  # one has ended: the next is on its way
                break
        process.send_signal(moment)
        said = process.communicate()[0]
        if moment == signal.SIGINT:
            assert process.returncode == 130
            assert "Run the same command again to resume" in said
    subprocess.run([*command, "--out", str(tmp_path / "b")], check=True, capture_output=True)
    drop = ("seconds", "attempts")
    one, two = ([{k: v for k, v in r.items() if k not in drop} for r in rows_of(tmp_path / n)] for n in "ab")
    assert one == two
    assert yaml.safe_load((tmp_path / "a" / "best.yaml").read_text()) == yaml.safe_load(
        (tmp_path / "b" / "best.yaml").read_text()
    )


@pytest.mark.slow
def test_the_command_with_real_workers(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ["--trials", "2", "--jobs", "2", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "gmsa.tune", "--config", str(base), *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2/2 trials" in result.stdout
    assert len(rows_of(out)) == 2
