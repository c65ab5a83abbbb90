"""Shared parts of the commands: names, options, help, one-line errors and exit codes. Imports no torch."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from gmsa.errors import DataWarning, GmsaError, RunError, Terminated, cut, printable
from gmsa.registry import load_plugins
from gmsa.system.faults import describe_fault
from gmsa.system.reading import reason_of
from gmsa.system.streams import ReaderGone, forgiving_streams


class Command(NamedTuple):
    """A subcommand of ``gmsa``, which is also a module: ``gmsa train`` is ``python -m gmsa.train``."""

    module: str
    """Module with ``parser()`` and ``main(arguments)``."""
    summary: str
    """What it does, for ``gmsa --help``."""
    example: str
    """Arguments for the example at the end of its help."""


COMMANDS = {
    "train": Command("gmsa.train", "train a model", "--config mosi_graph --set optim.lr=5e-4 --seeds 1,2,3"),
    "evaluate": Command("gmsa.evaluate", "score a run", "--run runs/mosi_graph --missing eta:0,0.3,0.6"),
    "predict": Command("gmsa.predict", "predict utterances", "--run runs/mosi_graph --input clips.pkl --out out.csv"),
    "export": Command("gmsa.export", "write a run as one program", "--run runs/mosi_graph --out model.pt2"),
    "ablate": Command("gmsa.ablate", "compare settings", "--config mosi_graph --vary model.fusion=gate,add"),
    "tune": Command("gmsa.tune", "search settings", "--config mosi_graph --trials 50"),
    "inspect": Command(
        "gmsa.inspect",
        "draw the graph of an utterance or a dialogue",
        "--config mosi_graph --id 'VIDEO$_$CLIP' --out graph.png",
    ),
    "config": Command("gmsa.config.__main__", "explain settings, or resolve a config", "--key optim.lr"),
    "data": Command("gmsa.data.__main__", "import, describe and check data", "info clips.pkl"),
    "app": Command("gmsa.app.__main__", "answer videos in the browser", "--run runs/clips"),
}
"""The subcommands by name."""

CONFIG_HELP = "YAML file of settings, or the name of a packaged config, such as mosi_graph"
"""Help of the argument that names a config."""
_EXAMPLE = """\
example:
  {prog} {example}
"""
_SETTINGS = """
settings:
  {config:<{width}}  lists them all, with defaults and meanings
  {config} --key optim.lr  explains one
  {config} FILE            shows what a config comes to
"""
LONGEST_LINE = 1000
"""Characters of an error's line, at most."""
_MODULE = "python -m gmsa."
_FORMAT_WARNING = warnings.formatwarning
_PACKAGE = Path(__file__).parents[1]
_in_gmsa = False
"""Whether the command ``gmsa`` runs, not the module of a subcommand."""
_to_resume: list[str] = []
"""Words of the command line that resumes the training at hand, up to its folder; none outside a command."""


class _Paragraphs(argparse.HelpFormatter):
    """Wraps each line of a description by itself, and keeps indented lines, such as an example to copy."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(s if s.startswith(" ") else textwrap.fill(s, width) for s in text.splitlines())


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help ends with an example.

    Args:
        prog: how the module is run, ``python -m gmsa.NAME``; inside the command ``gmsa`` it reads ``gmsa NAME``.
        example: arguments for the example (default: those of the subcommand).
    """

    def __init__(self, *, prog: str, example: str | None = None, **settings: Any) -> None:
        if _in_gmsa and prog.startswith(_MODULE):
            prog = f"gmsa {prog.removeprefix(_MODULE)}"
        name = prog.removeprefix(_MODULE).removeprefix("gmsa ")
        if example is None and name in COMMANDS:
            example = COMMANDS[name].example
        self.example = None if example is None else f"{prog} {example}"
        """The command line of the example."""
        if example is not None:
            settings.setdefault("epilog", _EXAMPLE.format(prog=prog, example=example))
        super().__init__(prog=prog, formatter_class=_Paragraphs, **settings)

    def explain_settings(self) -> None:
        """Ends the help with how to find settings."""
        config = "gmsa config" if _in_gmsa else f"{_MODULE}config"
        width = len(f"{config} --key optim.lr")
        self.epilog = (self.epilog or "") + _SETTINGS.format(config=config, width=width)

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with 2."""
        line = one_line(f"{self.prog.removeprefix('python -m ')}: error: {message} (see --help)")
        self.exit(2, None if _first_process_says_it() else f"{line}\n")


def add_config_options(parser: Parser) -> None:
    """Adds ``--config`` and ``--set``."""
    parser.add_argument("--config", required=True, metavar="FILE", help=CONFIG_HELP)
    add_set_option(parser)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--data``."""
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="data file or feature store; its name is the data set's (default: data.path of the config)",
    )


def add_set_option(
    parser: Parser,
    help: str = "change a setting by its dotted key, for example optim.lr=5e-4; += adds to a list (may repeat)",
) -> None:
    """Adds ``--set``, and to the help how to find settings."""
    parser.explain_settings()
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=help,
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), help="device to run on (default: run.device of the config)"
    )


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--plugin``; :func:`load_plugins_of` imports what it names."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        dest="plugins",
        help="module that registers models, layers, metrics or other parts of your own (may repeat)",
    )


def load_plugins_of(options: argparse.Namespace) -> None:
    """Imports the modules that ``--plugin`` names, also from the working directory.

    Call it before reading a config or a run folder.

    Raises:
        ConfigError: a module cannot be imported.
    """
    # The console script, unlike `python -m`, has no working directory on sys.path.
    load_plugins(options.plugins, Path())


def overrides_of(options: argparse.Namespace) -> list[str]:
    """Collects the overrides of ``--data``, ``--set``, ``--seeds``, ``--device`` and ``--plugin``, as ``key=value``.

    Plug-ins are added to those of the config, so that worker processes import them and the run folder records them.
    """
    overrides = list(options.overrides)
    if data := getattr(options, "data", None):
        overrides.insert(0, f"data.path={json.dumps(data)}")
    if seeds := getattr(options, "seeds", None):
        overrides.append(f"run.seeds={list(seeds)}")
    if device := getattr(options, "device", None):
        overrides.append(f"run.device={device}")
    if plugins := getattr(options, "plugins", None):
        overrides.append(f"plugins+={list(plugins)}")
    return overrides


def seed_list(text: str) -> tuple[int, ...]:
    """Reads ``1111,1112`` for ``--seeds``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected seeds such as 1111,1112 (got '{cut(text)}')") from None


def run(command: Callable[[Sequence[str] | None], None], name: str) -> None:
    """Runs the module ``gmsa.NAME`` as a command, with the exit codes of :func:`exit_codes`."""
    with exit_codes(f"gmsa.{name}"):
        command(None)


def _check_working_folder() -> None:
    """Refuses a working directory that was deleted: Python and the libraries of torch fail there in their own ways."""
    try:
        os.getcwd()
    except OSError as error:
        raise RunError(f"the working directory cannot be used: {reason_of(error)}; change to another") from None


@contextmanager
def inside_gmsa() -> Iterator[None]:
    """Makes help and errors name the subcommand of ``gmsa`` instead of its module, until the block ends."""
    global _in_gmsa
    before, _in_gmsa = _in_gmsa, True
    try:
        yield
    finally:
        _in_gmsa = before


@contextmanager
def resumable(*words: str) -> Iterator[None]:
    """Makes :func:`how_to_resume` and :func:`how_to_repeat` name a command line, until the block ends.

    Args:
        words: those of the command line, up to the folder of its run.
    """
    _to_resume[:] = words
    try:
        yield
    finally:
        _to_resume.clear()


def how_to_repeat() -> str:
    """How to give the command at hand again."""
    return f"Go on with: {shlex.join(_to_resume)}" if _to_resume else "Go on with the same command."


def how_to_resume(folder: Path) -> str:
    """How to resume the training at hand, in a folder: the command line to paste, if it is a command's."""
    if _to_resume and os.environ.get("WORLD_SIZE", "1") == "1":  # what torchrun was told is not known
        return f"Go on with: {shlex.join([*_to_resume, '--resume', '--out', str(folder)])}"
    where = shlex.quote(str(folder))
    return f"Go on with the same settings and --resume --out {where} (in Python: resume=True, out={str(folder)!r})"


@contextmanager
def exit_codes(name: str) -> Iterator[None]:
    """Turns exceptions into exit codes, each with one line and no traceback.

    2 is a user's mistake, 130 Ctrl-C, 143 SIGTERM, 141 a reader that has gone, and 1 what gmsa did not foresee.

    Args:
        name: prefix of the line.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as it is while a command starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, _terminate)
    written, warnings.formatwarning = warnings.formatwarning, partial(_written, name, set())
    try:
        with forgiving_streams() as stdout:
            code, line = 0, ""
            try:
                _check_working_folder()
                yield
            except SystemExit as ended:
                if ended.code:
                    raise
            except GmsaError as error:
                code, line = 2, f"error: {error}"
            except Terminated:
                code, line = 143, "terminated"
            except KeyboardInterrupt:
                code, line = 130, "interrupted"
            except ReaderGone:
                code = 141
            except Exception as error:
                code, line = 1, f"error: {describe_fault(error)}"
            with suppress(ReaderGone):
                stdout.flush()  # a reader that has gone is noticed here, not at the interpreter's exit
            if not code and isinstance(stdout.lost, BrokenPipeError):
                code = 141
            elif not code and stdout.lost is not None:
                code, line = 1, f"error: stdout cannot be written ({reason_of(stdout.lost)}); the rest is done"
            if line and not (code != 1 and _first_process_says_it(ended=code > 2)):
                print(one_line(f"{name}: {line}"), file=sys.stderr)
            if code:  # not where the exception is handled: it keeps all that it passed from being cleaned up
                sys.exit(code)
    finally:
        warnings.formatwarning = written
        signal.signal(signal.SIGTERM, before)


def _first_process_says_it(ended: bool = False) -> bool:
    """Whether the first of the processes that ``torchrun`` started on this machine says the same.

    Args:
        ended: whether a signal ended them. Else it does until they have joined: they read the same files till then.
    """
    if "WORLD_SIZE" not in os.environ or os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    distributed = sys.modules.get("torch.distributed")
    return ended or distributed is None or not distributed.is_initialized()


def one_line(text: str) -> str:
    """A message in one line that no terminal obeys; the middle of a very long one is left out."""
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"


def _written(name: str, said: set[str], *warning: Any, **more: Any) -> str:
    """A warning of gmsa as one line, said once; another's as Python writes it. No terminal obeys what it quotes.

    Args:
        said: the lines so far; Python forgets them where warnings are caught.
    """
    message, place = warning[0], Path(warning[2])
    if isinstance(message, DataWarning) or (type(message) is UserWarning and _PACKAGE in place.parents):
        kind = "note" if isinstance(message, DataWarning) else "warning"
        line = f"{one_line(f'{name}: {kind}: {message}')}\n"
        if line in said or _first_process_says_it():
            return ""
        said.add(line)
        return line
    return printable(_FORMAT_WARNING(*warning, **more))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
