"""The command ``gmsa``: ``gmsa train --config mosi_graph`` is ``python -m gmsa.train --config mosi_graph``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import gmsa
from gmsa.errors import nearest
from gmsa.system import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a subcommand; only its module is imported."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    with cli.inside_gmsa(), cli.exit_codes(f"gmsa {name}" if name in cli.COMMANDS else "gmsa"):
        if name not in cli.COMMANDS:
            _refuse(name)
        else:
            importlib.import_module(cli.COMMANDS[name].module).main(rest)


def parser() -> cli.Parser:
    """Builds the parser of ``gmsa`` itself: ``--help`` and ``--version``."""
    parser = cli.Parser(
        prog="gmsa",
        usage="gmsa COMMAND ...",
        description="Multimodal sentiment analysis on graphs: few labels, missing modalities.\n\ncommands:\n"
        + "\n".join(f"  {name:<10}{command.summary}" for name, command in cli.COMMANDS.items())
        + "\n\n'gmsa COMMAND --help' shows the options of one.",
        example="train --config mosi_graph",
    )
    parser.add_argument("--version", action="version", version=f"gmsa {gmsa.__version__}", help="print the version")
    parser.explain_settings()
    return parser


def _refuse(name: str) -> None:
    """Answers what is no subcommand: ``--help``, ``--version``, or a mistake."""
    command, known = parser(), ", ".join(cli.COMMANDS)
    if not name:
        command.error(f"name a command: {known}")
    if not name.startswith("-"):
        command.error(f"unknown command '{name}'{nearest(name, cli.COMMANDS)}; choose from {known}")
    command.parse_args([name])
    command.error(f"name a command first: {known}")


if __name__ == "__main__":
    main()
