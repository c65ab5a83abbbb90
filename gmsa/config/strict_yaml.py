"""The one reader of YAML: strict, of limited size and depth, with errors of one line."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import yaml

from gmsa.errors import ConfigError, cut, shown
from gmsa.system.reading import read_text

DEEPEST = 50
"""Levels of brackets and indentation, at most."""
LONGEST = 1 << 17
"""Characters of a file or an override, at most."""
LONGEST_NUMBER = 100
"""Characters of a number, at most."""
_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
"""What settings are made of; YAML also has sets, dates, bytes and ordered maps, which are written as ``!!set``."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses duplicate keys, aliases, merge keys, deep nesting, and values of other kinds.

    A few hundred bytes of aliases can stand for gigabytes; ``base`` is how settings build on others.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            _refuse(event, "'&' and '*' (anchors and aliases) are not supported; write the value out, or in quotes")
        self.depth += 1
        if self.depth > DEEPEST:
            _refuse(event, f"it is nested more than {DEEPEST} levels deep; flatten it")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in _PLAIN:
            _refuse(node, f"the tag {cut(node.tag.replace(_TAG, '!!'))} is not supported; leave it out")
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            _refuse(node, f"a number has more than {LONGEST_NUMBER} characters; shorten it, or put it in quotes")
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):  # as PyYAML's: !!int x, !!bool x
            _refuse(node, f"{shown(node.value)} does not fit the tag {node.tag.replace(_TAG, '!!')}; leave the tag out")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            _refuse(node, "a value tagged !!map is no group; leave the tag out")
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                _refuse(key_node, "'<<' is not supported; use 'base' to build on another file")
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse(key_node, "a key is a list or a group; name keys by text")
            key = self.construct_object(key_node, deep=True)
            if key in found:
                _refuse(key_node, f"duplicate key {shown(key)}; leave one out")
            found[key] = self.construct_object(value_node, deep=True)
        return found


_NUMBERS = {
    f"{_TAG}int": re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"),
    f"{_TAG}float": re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
"""What is read as a number: only what YAML 1.1 reads so too, or text that others write plain would become a number.

It reads 1:30 as 90 and 010 as 8, silently; here both stay text.
"""
_PATTERNS = {**_NUMBERS, f"{_TAG}bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")}
"""What is not text; ``off``, a boolean of YAML 1.1, is also the name of a choice, and stays text."""
# A date stays text, and so does '=': no setting is either.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _PATTERNS.get(tag, pattern)) for tag, pattern in found if tag not in (f"{_TAG}timestamp", f"{_TAG}value")
    ]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _refuse(place: Any, reason: str) -> NoReturn:
    raise yaml.YAMLError(f"line {place.start_mark.line + 1}: {reason}")


@lru_cache(maxsize=32)
def _load(text: str) -> Any:
    """Kept, as a run reads its config several times, and each takes 30 ms."""
    return yaml.load(text, Loader=_Loader)


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML.

    Args:
        where: what errors call it.

    Raises:
        ConfigError: it is not YAML, is too large or too deep, or holds what no setting is.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"{where}: has more than {LONGEST:,} characters, too many for settings; shorten it")
    try:
        return copy.deepcopy(_load(text))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        problem = cut(error.problem or "it cannot be parsed").removeprefix("but ")
        context = f" ({cut(error.context)})" if error.context else ""
        raise ConfigError(f"{where}: not valid YAML: {line}{problem}{context}") from None
    except yaml.reader.ReaderError as error:
        number, found = text.count("\n", 0, error.position) + 1, shown(text[error.position])
        raise ConfigError(f"{where}: not valid YAML: line {number}: {found} is no text; remove it") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
    except (ValueError, OverflowError) as error:  # of a "\UFFFFFFFF"
        raise ConfigError(f"{where}: not valid YAML: {cut(error)}; correct the escape") from None


def parse_value(key: str, text: str) -> Any:
    """The value of ``key=value``, which is YAML.

    Raises:
        ConfigError: it is not; names the key.
    """
    return parse_yaml(text, f"'{cut(key)}': value {shown(text)}")


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        ConfigError: it cannot be read, or is none; see :func:`parse_yaml`.
    """
    return parse_yaml(read_text(path, LONGEST, kind=ConfigError), str(path))
