"""Explains settings and resolves configs: ``python -m gmsa.config [FILE] [--all | --key optim.lr]``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from gmsa.config import Config, load_config, to_dict
from gmsa.config.coerce import RENAMED
from gmsa.config.describe import Setting, describe_group, describe_settings, plain_text
from gmsa.config.inherit import BY_MODALITY
from gmsa.errors import ConfigError, cut, nearest
from gmsa.registry import Registry
from gmsa.system import cli
from gmsa.system.console import console


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.config",
        description="List all settings with their defaults and meanings, explain one, or resolve a config: show what "
        "its file, its base, $GMSA_DATA and --set come to.",
    )
    parser.add_argument("config", nargs="?", metavar="FILE", help=cli.CONFIG_HELP)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--all", action="store_true", help="print every setting as YAML, also those left at their defaults"
    )
    shown.add_argument(
        "--key", metavar="KEY", help="explain a setting, such as optim.lr, or a group of them, such as optim"
    )
    cli.add_set_option(parser)
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    if options.overrides and options.config is None:
        command.error("--set changes a config; name one, as gmsa config mosi_graph --set optim.lr=5e-4")
    cli.load_plugins_of(options)

    config = load_config(options.config, cli.overrides_of(options)) if options.config is not None else None
    if options.key is not None:
        _explain(options.key, config)
    elif config is not None or options.all:
        values = to_dict(config or Config())
        console().print(_as_yaml(values if options.all else changes(values, to_dict(Config()))), end="")
    else:
        _print_table(describe_settings())


def changes(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, in the same groups."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            value = changes(value, defaults[key])
            if value:
                found[key] = value
        elif value != defaults[key]:
            found[key] = value
    return found


def _explain(key: str, config: Config | None) -> None:
    """Prints one setting, or the table of a group."""
    settings = describe_settings()
    by_key = {setting.key: setting for setting in settings}
    group, _, modality = key.rpartition(".")
    if modality and group.rpartition(".")[2] in BY_MODALITY:
        key = group
    below = [setting for setting in settings if setting.key.startswith(f"{key}.")]
    if key in by_key:
        _print_setting(by_key[key], settings, config)
        if below:
            console().print("")
    elif not below:
        known = [*by_key, *dict.fromkeys(setting.group for setting in settings)]
        hint = f" (it is now '{RENAMED[key]}')" if key in RENAMED else nearest(key, known)
        raise ConfigError(f"unknown key '{cut(key)}'{hint}; 'gmsa config' lists all")
    if below:
        if about := describe_group(key):
            console().print(f"{_filled(about, 0)}\n")
        _print_table(below)


def _print_setting(setting: Setting, settings: list[Setting], config: Config | None) -> None:
    facts = {"type": setting.type, "default": _value(setting.default), "allowed": setting.allowed}
    if config is not None:
        value: Any = to_dict(config)
        for part in setting.key.split("."):
            value = value[part]
        facts["here"] = _value(value)
    siblings = [s.key.rpartition(".")[2] for s in settings if s.group == setting.group and s is not setting]
    facts["beside"] = ", ".join(siblings)
    width = 2 + max(map(len, facts))
    lines = [setting.key, _filled(setting.meaning, 2), ""]
    lines += [_filled(f"{name:<{width}}{text}", 2, 2 + width) for name, text in facts.items() if text]
    console().print("\n".join(lines))
    if setting.registry is not None:
        console().print("\n" + "\n".join(_part(name, setting.registry) for name in setting.registry))


def _part(name: str, registry: Registry[Any]) -> str:
    """A part with its parameters, where it is from, and what it is."""
    try:
        parameters = ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in registry.parameters(name).values()
        )
        about = plain_text(registry.describe(name))
    except ConfigError as error:  # what it needs is not installed
        parameters, about = "...", str(error)
    module = registry.module_of(name)
    plug_in = "" if module.partition(".")[0] == "gmsa" else f"  (of the plug-in {module})"
    return f"{_filled(f'{name}({parameters})' if parameters else name, 2, 6)}{plug_in}\n{_filled(about, 6)}"


def _filled(text: str, indent: int, further: int | None = None) -> str:
    return textwrap.fill(
        text, 80, initial_indent=" " * indent, subsequent_indent=" " * (indent if further is None else further)
    )


def _print_table(settings: list[Setting]) -> None:
    """Prints a table: within the width of a terminal, else with a line per setting."""
    header = ("Key", "Default", "Allowed", "Meaning")
    rows = [(s.key, _value(s.default), s.allowed or s.type, s.meaning) for s in settings]
    out = console()
    if out.file.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(*header, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        out.print(table, soft_wrap=False)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
    for row in (header, *rows):
        out.print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


def _value(value: Any) -> str:
    """A value as a config has it, on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def _as_yaml(values: dict[str, Any]) -> str:
    if not values:
        return "{} # all settings have their defaults\n"
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


if __name__ == "__main__":
    cli.run(main, "config")
