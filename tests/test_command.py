"""The command ``gmsa``: its subcommands, their help, their errors and exit codes, and plug-ins named on the line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import gmsa
from gmsa.__main__ import main
from gmsa.config import load_config
from gmsa.errors import RunError, Terminated
from gmsa.system import cli
from gmsa.system.streams import ReaderGone

HEAVY = ("torch", "numpy", "matplotlib", "optuna")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMSA_DATA", raising=False)


@pytest.fixture
def gmsa_says(capsys: pytest.CaptureFixture[str]):
    """Runs ``gmsa``; returns its exit code, what it prints, and what it prints to stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return call


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Another Python, which finds this gmsa from any folder."""
    where = os.environ | {"PYTHONPATH": str(Path(gmsa.__file__).parents[1])} | environment
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=where)


def test_help_lists_every_command(gmsa_says) -> None:
    code, out, _ = gmsa_says("--help")
    assert code == 0
    for name, command in cli.COMMANDS.items():
        assert f"  {name:<10}{command.summary}\n" in out


def test_version(gmsa_says) -> None:
    assert gmsa_says("--version") == (0, f"gmsa {gmsa.__version__}\n", "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_ends_with_an_example_that_parses(
    gmsa_says, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code, out, _ = gmsa_says(name, "--help")
    assert code == 0
    assert out.startswith(f"usage: gmsa {name} ")
    assert ("gmsa config --key optim.lr  explains one" in out) == ("--set KEY=VALUE" in out)
    example = out.split("\nexample:\n  gmsa ")[1].splitlines()[0]

    class Parsed(BaseException):  # a command answers every Exception
        pass

    parse = cli.Parser.parse_args

    def parse_only(self, arguments):
        parse(self, arguments)
        raise Parsed

    monkeypatch.setattr(cli.Parser, "parse_args", parse_only)
    with pytest.raises(Parsed):
        main(shlex.split(example))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "gmsa: error: name a command: "
            "train, evaluate, predict, export, ablate, tune, inspect, config, data, app (see --help)",
        ),
        (["trian"], "gmsa: error: unknown command 'trian' (did you mean 'train'?); choose from train, evaluate, "),
        (["--fast"], "gmsa: error: unrecognized arguments: --fast (see --help)"),
        (["train"], "gmsa train: error: the following arguments are required: --config (see --help)"),
        (["train", "--config", "none.yaml"], "gmsa train: error: config file 'none.yaml' does not exist; "),
        (["data"], "gmsa data: error: the following arguments are required: COMMAND (see --help)"),
        (["data", "info"], "gmsa data info: error: the following arguments are required: path (see --help)"),
        (["data", "info", "none.pkl"], "gmsa data: error: 'none.pkl' does not exist; check the path"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_exit_2(gmsa_says, arguments: list[str], said: str) -> None:
    code, out, error = gmsa_says(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith(said)
    assert error.count("\n") == 1
    assert error.endswith("\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RunError("a\nb"), 2, "gmsa train: error: a b\n"),
        (KeyboardInterrupt(), 130, "gmsa train: interrupted\n"),
        (Terminated(), 143, "gmsa train: terminated\n"),
        (ReaderGone(), 141, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes(gmsa_says, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str) -> None:
    def fail(_):
        raise error

    monkeypatch.setattr(import_module("gmsa.train"), "main", fail)
    assert gmsa_says("train") == (code, "", said)


def test_the_module_names_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gmsa.train"])
    train = import_module("gmsa.train").main
    with pytest.raises(SystemExit):
        cli.run(train, "train")
    assert capsys.readouterr().err.startswith("gmsa.train: error: the following arguments are required: --config")
    with pytest.raises(SystemExit):
        train(["--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m gmsa.train ")
    assert "\n  python -m gmsa.train --config mosi_graph" in out


def test_help_is_fast() -> None:
    """No command but ``data`` loads what takes seconds to load before it has read its arguments."""
    code = (
        "import sys, gmsa.__main__ as command, gmsa.system.cli as cli\n"
        f"for name in ['', *(n for n in cli.COMMANDS if n != 'data')]:\n"
        "    try: command.main([name, '--help'] if name else ['--help'])\n"
        "    except SystemExit as exit_: assert not exit_.code\n"
        f"    assert not {set(HEAVY)} & set(sys.modules), name\n"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr


def test_as_a_module_with_a_reader_that_leaves() -> None:
    where = os.environ | {"PYTHONPATH": str(Path(gmsa.__file__).parents[1])}
    line = f"{shlex.quote(sys.executable)} -m gmsa config --all | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=where)
    assert result.returncode in (0, 141)  # 0 where the reader leaves late
    assert result.stderr == ""


# --- plug-ins --------------------------------------------------------------------------------------------------------

MODEL = "from gmsa.registry import MODELS\n@MODELS.register('mine')\nclass Mine:\n    'Answers nothing.'\n"


@pytest.fixture
def script(tmp_path: Path):
    """Runs ``gmsa`` as its console script does, which has its own folder on ``sys.path``, not the working one."""
    path = tmp_path / "bin" / "gmsa"
    path.parent.mkdir()
    path.write_text("from gmsa.__main__ import main\n\nif __name__ == '__main__':\n    main()\n")
    return lambda *arguments: python(str(path), *arguments)


def test_a_plug_in_in_the_working_directory(script, gmsa_says) -> None:
    Path("plug_mine.py").write_text(MODEL)
    Path("json.py").write_text("raise RuntimeError('a module of the user hides no other')")
    Path("own.yaml").write_text("model: {name: mine}")
    code, _, error = gmsa_says("config", "own.yaml")
    assert code == 2
    assert error.startswith("gmsa config: error: own.yaml: 'model.name' must be one of semi_iin, ")
    shown = script("config", "own.yaml", "--plugin", "plug_mine")
    assert (shown.returncode, shown.stdout) == (0, "model:\n  name: mine\nplugins:\n- plug_mine\n"), shown.stderr
    described = gmsa_says("config", "--key", "model.name", "--plugin", "plug_mine")[1]
    assert "mine  (of the plug-in plug_mine)\n      Answers nothing.\n" in described


def test_plug_ins_join_those_of_the_config() -> None:
    parser = cli.Parser(prog="python -m gmsa.train")
    cli.add_config_options(parser)
    cli.add_plugin_option(parser)
    options = parser.parse_args(["--config", "own.yaml", "--plugin", "re", "--plugin", "json", "--set", "optim.lr=1"])
    cli.load_plugins_of(options)
    Path("own.yaml").write_text("plugins: [string, re]")
    config = load_config("own.yaml", cli.overrides_of(options))
    assert (config.plugins, config.optim.lr) == (("string", "re", "json"), 1)


@pytest.mark.parametrize("arguments", [["inspect", "--config", "x", "--id", "1", "--out", "a.png"], ["data", "import"]])
def test_a_plug_in_that_is_not_there(gmsa_says, arguments: list[str]) -> None:
    more = ["clips.csv", "--out", "store"] if arguments[0] == "data" else []
    code, _, error = gmsa_says(*arguments, *more, "--plugin", "plug_nowhere")
    assert code == 2
    assert error.startswith(f"gmsa {arguments[0]}: error: plug-in 'plug_nowhere' is not there; ")
