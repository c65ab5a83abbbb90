"""Sphinx directives that ask gmsa itself: its settings, commands, components and metrics.

Each directive writes Markdown, which MyST parses like the rest of the page, so that a page has what the code has on
the day that it is built.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from itertools import takewhile
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gmsa import __main__ as command_gmsa
from gmsa import metrics, registry
from gmsa.config.describe import Setting, describe_group, describe_settings
from gmsa.config.packaged import packaged
from gmsa.system import cli

SCORED = {
    "mosi": metrics.mosi_metrics,
    "sims": metrics.sims_metrics,
    "intensity": metrics.intensity_metrics,
    "classes": metrics.class_metrics,
}
"""The function whose docstring defines the metrics of a target, by `target.metrics`."""
CODE = re.compile(r"(?<![^\s(])(--[\w-]+|\$\w+|[a-z_/]+\.[a-z_]+(?:=[\w-]+)?)")
"""What is code in the plain text of a help: options, variables, settings and files."""


# --- docstrings as Markdown ------------------------------------------------------------------------------------------


def markdown(docstring: str) -> str:
    """A piece of a docstring, which is reStructuredText, as MyST Markdown."""
    text = re.sub(r":math:`([^`]+)`", r"{math}`\1`", docstring)
    text = re.sub(r":(class|func|meth|mod|data|attr):`([^`]+)`", r"{py:\1}`\2`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def escape(text: str) -> str:
    """Plain text that Markdown shows as it is."""
    return re.sub(r"([\\`*_$<>\[\]{}])", r"\\\1", text)


def first_paragraph(part: Any) -> str:
    """The first paragraph of a docstring, as Markdown."""
    return markdown(" ".join((inspect.getdoc(part) or "").split("\n\n")[0].split()))


# --- settings --------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Every setting: a section per group, an entry per key."""
    groups: dict[str, list[Setting]] = {}
    for setting in describe_settings():
        groups.setdefault(setting.group, []).append(setting)
    roots = [*dict.fromkeys(name.partition(".")[0] for name in groups if name)]
    # A group follows the one that it is part of: data.missing comes after all of data.
    names = [name for root in roots for name in groups if name.partition(".")[0] == root]
    parts = [f"{'#' * (2 + name.count('.'))} {name}\n\n{describe_group(name)}" for name in names]
    entries = ["\n".join(map(_setting, groups[name])) for name in names]
    whole = "\n\n".join(f"{part}\n\n{entry}" for part, entry in zip(parts, entries, strict=True))
    return f"{whole}\n\n## At the top\n\n" + "\n".join(map(_setting, groups[""]))


def _setting(setting: Setting) -> str:
    default = yaml.safe_dump(setting.default, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    choices = ", ".join(f"`{choice}`" for choice in setting.allowed.split(" | ") if setting.allowed)
    allowed = f": {choices}" if choices else ""
    facts = f"Default `{default}`. {_sentence(setting.type)}{allowed}."
    return f":::{{confval}} {setting.key}\n{setting.meaning}\n\n{facts}\n:::\n"


# --- commands --------------------------------------------------------------------------------------------------------


def parser_of(command: str) -> cli.Parser:
    """The parser of ``gmsa COMMAND``, of a subcommand such as ``data info``, or, for no name, of ``gmsa`` itself."""
    name, _, below = command.partition(" ")
    module = importlib.import_module(cli.COMMANDS[name].module) if name else command_gmsa
    with cli.inside_gmsa():
        parser: cli.Parser = module.parser()
    return subcommands(parser)[below] if below else parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The parsers of the subcommands by name."""
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return {name: below for action in actions for name, below in action.choices.items()}


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What may follow the command, but for ``--help`` and subcommands."""
    return [a for a in parser._actions if not isinstance(a, (argparse._HelpAction, argparse._SubParsersAction))]


def command_page(command: str) -> str:
    """What a command does, its arguments with their defaults, and its example."""
    parser = parser_of(command)
    formatter = argparse.HelpFormatter(parser.prog, width=88)  # that of the parser is as wide as the terminal
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    usage = formatter.format_help()
    parts = [escape(parser.description or ""), f"```text\n{usage}```", f"```{{program}} {parser.prog}\n```"]
    parts += [f":::{{option}} {_spelled(action)}\n{_help(action)}\n:::" for action in arguments_of(parser)]
    parts += [f"Example:\n\n```bash\n{parser.example}\n```"]
    return "\n\n".join(parts)


def _spelled(action: argparse.Action) -> str:
    """An argument as its help spells it: ``--seeds N,N,...``."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(action.metavar or action.dest)
    return ", ".join(s if action.nargs == 0 else f"{s} {value}" for s in action.option_strings)


def _help(action: argparse.Action) -> str:
    needed = action.required and bool(action.option_strings)
    pieces = CODE.split(action.help or "")
    text = "".join(f"`{piece}`" if place % 2 else escape(piece) for place, piece in enumerate(pieces))
    return f"{_sentence(text)}.{' **Required.**' if needed else ''}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def packaged_page(kind: Any) -> str:
    """The files of a kind that come with gmsa: name, and what its first comment says."""
    rows = []
    for name, file in packaged(kind).items():
        lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
        rows.append(f"| `{name}` | {' '.join(line.lstrip('# ') for line in lines)} |")
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


# --- components ------------------------------------------------------------------------------------------------------


def components_page(name: str) -> str:
    """The parts of a registry: name and parameters, what each is, and where it is defined."""
    found: registry.Registry[Any] = getattr(registry, name)
    return "\n\n".join(_component(name, part, found) for part in found)


def _component(registry_name: str, name: str, found: registry.Registry[Any]) -> str:
    part: Any = found[name]
    # No setting names an importer, so none can give it parameters.
    parameters = found.parameters(name).values() if found is not registry.IMPORTERS else ()
    shown = ", ".join(str(parameter).replace("'", '"') for parameter in parameters)
    path = f"{part.__module__}.{part.__qualname__}"
    text = f"{first_paragraph(part)}\n\n{{py:obj}}`{path} <{_public(part)}>`"
    return _entry(f"{registry_name} {name}{f'({shown})' if shown else ''}", text)


def _public(part: Any) -> str:
    """The name under which the Python reference has a part: that of the package that exports it."""
    package = part.__module__
    while "." in package:
        package = package.rpartition(".")[0]
        if part.__qualname__ in getattr(sys.modules[package], "__all__", ()):
            return f"{package}.{part.__qualname__}"
    return f"{part.__module__}.{part.__qualname__}"


def _entry(signature: str, text: str) -> str:
    return f":::{{component}} {signature}\n{text}\n:::"


def _component_signature(env: Any, signature: str, node: addnodes.desc_signature) -> str:
    """Shows ``GROUP name(parameters)`` without the group, and calls it ``GROUP.name``."""
    group, _, text = signature.partition(" ")
    name, _, parameters = text.partition("(")
    node += addnodes.desc_name(name, name)
    if parameters:
        node += addnodes.desc_addname(f"({parameters}", f"({parameters}")
    return f"{group}.{name}"


# --- metrics ---------------------------------------------------------------------------------------------------------


def definitions(target: str) -> dict[str, str]:
    """The definition of each of a target's metrics, from the list in the docstring of its function."""
    docstring = inspect.getdoc(SCORED[target]) or ""
    items = re.findall(r"(?m)^- ``(\w+)``: (.*(?:\n  .*)*)", docstring)
    return {name: _sentence(markdown(" ".join(text.split()))) for name, text in items}


def metrics_page() -> str:
    """The metrics of each kind of target in the order of its tables, then the registered ones."""
    scales = {
        "mosi": "`mosi`: labels in [-3, 3]",
        "sims": "`sims`: labels in [-1, 1]",
        "intensity": "`intensity`: labels on any other range",
        "classes": "`classes`: one of K classes",
    }
    parts = []
    for scale, title in scales.items():
        entries = "\n\n".join(_entry(f"{scale} {name}", text) for name, text in definitions(scale).items())
        parts.append(f"## {title}\n\n{entries}")
    parts.append("## Beside them\n\nName these in {confval}`run.metrics`, as `run.metrics: [RMSE, CCC]`.")
    return "\n\n".join([*parts, components_page("METRICS")])


# --- Sphinx ----------------------------------------------------------------------------------------------------------


class _Generated(SphinxDirective):
    """A directive that stands for generated Markdown."""

    optional_arguments = 1
    final_argument_whitespace = True

    def text(self) -> str:
        """The Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parses the Markdown at this place."""
        return self.parse_text_to_nodes(self.text(), allow_section_headings=True)


class Settings(_Generated):
    """``{gmsa-settings}``: every setting."""

    def text(self) -> str:
        """The Markdown."""
        return settings_page()


class Command(_Generated):
    """``{gmsa-command} train``: a command; without a name, ``gmsa`` itself."""

    def text(self) -> str:
        """The Markdown."""
        return command_page(self.arguments[0] if self.arguments else "")


class Packaged(_Generated):
    """``{gmsa-packaged} configs``: the files of a kind that come with gmsa."""

    def text(self) -> str:
        """The Markdown."""
        return packaged_page(self.arguments[0])


class Components(_Generated):
    """``{gmsa-components} LAYERS``: the parts of a registry."""

    def text(self) -> str:
        """The Markdown."""
        return components_page(self.arguments[0])


class Metrics(_Generated):
    """``{gmsa-metrics}``: every metric."""

    def text(self) -> str:
        """The Markdown."""
        return metrics_page()


def anchor_settings(app: Sphinx, doctree: nodes.document) -> None:
    """Makes ``settings.md#optim.lr`` lead to the entry of the setting."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for signature in doctree.findall(addnodes.desc_signature):
        if signature.parent["objtype"] == "confval":
            key = signature["fullname"]
            signature["ids"].append(key)
            slugs[key] = (0, key, key)


def plain_signature(app: Sphinx, what: str, name: str, part: Any, options: Any, signature: Any, returned: Any) -> Any:
    """Shows ``...`` for a default that a dataclass makes anew each time."""
    return (signature and signature.replace("<factory>", "..."), returned)


def keep_colon(app: Sphinx, what: str, name: str, part: Any, options: Any, lines: list[str]) -> None:
    """Mends what Napoleon makes of an attribute's docstring ``Rate: the share``: one of type ``Rate``."""
    place = next((i for i, line in enumerate(lines) if line.startswith(":type: ")), None)
    if what in ("attribute", "data", "property") and place is not None:
        lines[0] = f"{lines.pop(place).removeprefix(':type: ')}: {lines[0]}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    app.add_directive("gmsa-settings", Settings)
    app.add_directive("gmsa-command", Command)
    app.add_directive("gmsa-packaged", Packaged)
    app.add_directive("gmsa-components", Components)
    app.add_directive("gmsa-metrics", Metrics)
    app.connect("doctree-read", anchor_settings)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("autodoc-process-docstring", keep_colon, priority=900)  # after Napoleon
    app.add_object_type("component", "component", "single: %s", _component_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
