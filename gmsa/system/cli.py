"""What the commands share: options, and errors as one line with exit code 2. Imports no torch."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gmsa.errors import GmsaError, Terminated
from gmsa.registry import load_plugins


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Prints the error and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config`` and ``--set``."""
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting by its dotted key, for example optim.lr=1e-3 (may repeat)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to run (default: the config's)")


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--plugin``; :func:`load_plugins_of` imports what it names."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        dest="plugins",
        help="import a module that registers models, layers, metrics or other parts of your own (may repeat)",
    )


def load_plugins_of(options: argparse.Namespace) -> None:
    """Imports the modules that ``--plugin`` names; they may also be in the working directory.

    To be called before a config or a run folder is read.

    Raises:
        ConfigError: a module cannot be imported.
    """
    # The console script, unlike `python -m`, has no working directory on sys.path.
    load_plugins(options.plugins, Path.cwd())


def overrides_of(options: argparse.Namespace) -> list[str]:
    """The changes of the config that ``--set``, ``--seeds`` and ``--device`` ask for, as ``key=value``."""
    overrides = list(options.overrides)
    if options.seeds:
        overrides.append(f"run.seeds={list(options.seeds)}")
    if options.device:
        overrides.append(f"run.device={options.device}")
    return overrides


def seed_list(text: str) -> tuple[int, ...]:
    """Reads ``1111,1112`` for ``--seeds``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected seeds such as 1111,1112 (got '{text}')") from None


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def run(command: Callable[[Sequence[str] | None], None], name: str) -> None:
    """Runs a command: a user's mistake is one line and exit 2, Ctrl-C is exit 130, SIGTERM 143."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        command(None)
    except GmsaError as error:
        print(f"gmsa.{name}: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
    except Terminated:
        print(f"gmsa.{name}: terminated", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print(f"gmsa.{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    finally:
        signal.signal(signal.SIGTERM, before)
