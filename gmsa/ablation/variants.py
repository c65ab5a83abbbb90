"""The variants that an ablation compares: from ``--vary`` and a settings file to checked configs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gmsa.config import Config, to_dict
from gmsa.config.coerce import FORMER, check_text
from gmsa.config.override import changed
from gmsa.config.packaged import find
from gmsa.config.strict_yaml import read_yaml
from gmsa.errors import ConfigError, cut, listed, nearest, shown
from gmsa.training.callbacks import build_callbacks
from gmsa.training.optimization.optimizer import check_precision
from gmsa.training.protocols import check_protocol

FIXED = {
    "run.seeds": "every variant runs with the same seeds; use --seeds",
    "run.out": "every cell has its own folder; use --out",
    "run.device": "it would change the seconds and the memory of a row; use --device",
    "run.select": "it is what ranks the rows",
    "run.metrics": "the rows would not be scored alike; set it for all by --set",
    "data.path": "the rows would not be scored on the same utterances",
    "data.if_missing": "the rows would not be scored on the same utterances",
    "data.split": "the rows would not be scored on the same utterances; use --folds, or set it for all by --set",
    "data.video_from": "splits are made of whole videos: the rows might not be scored on the same utterances; set it "
    "for all by --set",
    "data.speaker_from": "splits may be made of whole speakers: the rows might not be scored on the same utterances; "
    "set it for all by --set",
    "target": "the rows would not be scored on the same target; set it for all by --set",
    "data.missing": "the rows would not be scored under the same masks; vary data.missing.train, or set it for all by "
    "--set",
}
"""Keys, and groups of keys, that no variant may change, and why."""
FREE = ("data.missing.train",)
"""Keys of these groups that may change."""
MOST = 500
"""Variants of an ablation, at most."""
LONGEST_NAME = 500
"""Characters of a variant's name, at most."""
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
"""Names that no file has on Windows."""
_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Variant:
    """One row of an ablation."""

    name: str
    config: Config
    keys: tuple[str, ...]
    """Dotted keys that the variant gives a value, in the order in which it names them."""

    @property
    def slug(self) -> str:
        """The name as a folder's name on any file system; a hash tells apart what that makes equal."""
        slug = re.sub(r"[^a-z0-9._=-]+", "-", self.name.lower())[:80].strip("-.")
        if slug and slug == self.name and not _DEVICE.fullmatch(slug):
            return slug
        return f"{slug}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}".strip("-")

    def value(self, key: str) -> Any:
        """The resolved value of a dotted key, as plain lists, dicts and scalars; None where there is none.

        A group in which all have one value, such as an edge builder for all relations, is that value.
        """
        value: Any = to_dict(self.config)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, dict) and all(v == next(iter(value.values())) for v in value.values()):
            return next(iter(value.values()), None)
        return value


def reason_fixed(key: str, fixed: Mapping[str, str]) -> str | None:
    """Why a key, or a group that it belongs to, may not change; None where it may.

    >>> reason_fixed("target.range", {"target": "it is what is scored"})
    'it is what is scored'
    """
    parts = FORMER.get(key, key).split(".")
    groups = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return None if key in FREE else next((fixed[group] for group in groups if group in fixed), None)


def varied_keys(variants: Sequence[Variant]) -> list[str]:
    """The keys whose resolved value is not the same in all variants, in the order in which they are named."""
    keys = dict.fromkeys(key for variant in variants for key in variant.keys)
    return [key for key in keys if any(s.value(key) != variants[0].value(key) for s in variants)]


def entries_of(variants: Sequence[Variant]) -> list[dict[str, Any]] | None:
    """The variants as a settings file lists them, over the first one's config; None where their keys do not say all."""
    keys = varied_keys(variants)
    entries = []
    for variant in variants:
        own = {key: variant.value(key) for key in keys if variant.value(key) != variants[0].value(key)}
        try:
            again = changed(variants[0].config, [f"{key}={_as_item(value)}" for key, value in own.items()])
        except ConfigError:
            return None
        if again != variant.config:
            return None
        entries.append({"name": variant.name} | own)
    return entries


def read_variants(
    base: str | Path | Config, overrides: Sequence[str], vary: Sequence[str], file: str | Path | None, alone: str = ""
) -> list[Variant]:
    """The checked variants of an ablation; the first one is its reference.

    Those of ``file`` (or the base config alone), each times the product of all ``vary``.

    Args:
        overrides: ``key=value`` changes of the base config, for all variants.
        vary: ``key=a,b,c``; commas within brackets do not split.
        file: YAML list of ``{name: ..., <dotted key>: value, ...}``, or a packaged one by name.
        alone: name of the base config as the only variant, where nothing is varied; by default that is an error.

    Raises:
        ConfigError: names the key, the value or the entry that is wrong, or the two that are the same.
    """
    check_protocol(changed(base, overrides))  # first, so that what is wrong here is not said of a variant
    if not vary and file is None:
        if alone:
            return [_check(alone, base, overrides, {})]
        raise ConfigError("nothing to compare: give --vary KEY=A,B,... or --settings FILE")
    entries: list[tuple[str, dict[str, str]]] = [("", {})] if file is None else _read_entries(file)
    axes = [_read_axis(item) for item in vary]
    _check_keys(overrides, [key for key, _ in axes], entries)
    count = len(entries) * math.prod(len(values) for _, values in axes)
    if count > MOST:
        raise ConfigError(f"more than {MOST} variants to compare (got {shown(count)}); leave some values out")
    found = []
    for name, changes in entries:
        for values in itertools.product(*([(key, value) for value in axis] for key, axis in axes)):
            whole = ", ".join([*([name] if name else []), *(f"{key}={value}" for key, value in values)])
            found.append(_check(whole, base, overrides, changes | dict(values)))
    for a, b in itertools.combinations(found, 2):
        if a.name == b.name or a.config == b.config:
            same = "have the same name" if a.name == b.name else "are the same settings"
            raise ConfigError(f"'{cut(a.name)}' and '{cut(b.name)}' {same}; leave one out")
        if a.slug == b.slug:
            raise ConfigError(f"'{cut(a.name)}' and '{cut(b.name)}' would share the folder '{a.slug}'; rename one")
    return found


def chosen_names(variants: Sequence[Variant], only: Sequence[str]) -> list[str]:
    """The names of the variants that ``--only`` asks for, in their order.

    Args:
        only: names, or patterns of names with ``*`` and ``?``; several in one text are separated by commas, of which
            a name may hold some itself.

    Raises:
        ConfigError: no variant has such a name; names the nearest one.
    """
    names = [variant.name for variant in variants]
    chosen: set[str] = set()
    for text in only:
        parts = text.split(",")
        while parts:
            for count in range(len(parts), 0, -1):  # the longest that names something: names may hold commas
                pattern = ",".join(parts[:count]).strip()
                if found := [n for n in names if n == pattern] or [n for n in names if fnmatchcase(n, pattern)]:
                    break
            else:
                raise ConfigError(_unknown(names, parts))
            chosen.update(found)
            parts = parts[count:]
    return [name for name in names if name in chosen]


def _unknown(names: Sequence[str], parts: Sequence[str]) -> str:
    """What is said of ``--only`` where its text, parted at commas, begins with the name of no variant."""
    texts = [",".join(parts[:count]).strip() for count in range(len(parts), 0, -1)]
    if not texts[-1]:
        return f"--only: a name is empty; name settings, such as --only {shown(names[0])}"
    hints: list[str] = []
    for text in texts:
        if any(text in name for name in names):  # a part of a name: the pattern that it begins, or is in
            before = "" if any(name.startswith(text) for name in names) else "*"
            hints.append(f" (did you mean '{before}{cut(text)}*'?)")
        hints.append(nearest(text, map(cut, names)))
    hint = next(filter(None, hints), "")
    return f"--only: no setting is called {shown(texts[-1])}{hint}; there are {listed(names)}"


def _check(name: str, base: str | Path | Config, overrides: Sequence[str], changes: dict[str, str]) -> Variant:
    from gmsa.models import check  # here: it loads torch

    if len(name) > LONGEST_NAME:
        raise ConfigError(f"setting '{cut(name)}': its name has more than {LONGEST_NAME} characters; shorten it")
    own = [f"{key}={value}" for key, value in changes.items()]
    try:
        config = changed(base, [*overrides, *own])
        check_protocol(config)
        check_precision(config)
        build_callbacks(config)  # a package that one needs may be missing
        check(config)
    except ConfigError as error:
        reason = str(error)
        for origin in ("config" if isinstance(base, Config) else base, *(f"--set {cut(item)}" for item in own)):
            reason = reason.removeprefix(f"{origin}: ")  # the name of the setting says it
        raise ConfigError(f"setting '{cut(name)}': {reason}") from None
    return Variant(name, config, tuple(changes))


def _check_keys(overrides: Sequence[str], varied: list[str], entries: list[tuple[str, dict[str, str]]]) -> None:
    """Refuses keys that may not change, or that two options give a value."""
    named = dict.fromkeys(key for _, changes in entries for key in changes)
    for key in (*varied, *named):
        if reason := reason_fixed(key, FIXED):
            raise ConfigError(f"'{cut(key)}' cannot be varied: {reason}")
        if not re.fullmatch(r"[^\s.=+]+(\.[^\s.=+]+)+", key):
            raise ConfigError(f"'{cut(key)}' is not a dotted key; name one such as 'model.fusion'")
    given = dict.fromkeys((item.partition("=")[0].strip() for item in overrides), "--set")
    for option, keys in (("--settings", named), ("--vary", varied)):
        for key in keys:
            if key in given:
                raise ConfigError(f"'{cut(key)}' gets a value from {given[key]} and from {option}; leave one out")
            given[key] = option


def _read_axis(item: str) -> tuple[str, list[str]]:
    """``key=a,b`` as the key and its values."""
    key, equals, text = item.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--vary takes key=a,b,..., for example --vary model.fusion=gate,add (got {shown(item)})")
    where = f"--vary {cut(key)}"
    values, depth, start = [], 0, 0
    for place, character in enumerate(f"{text},"):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            break
        if character == "," and not depth:
            values.append(text[start:place].strip())
            start = place + 1
    if depth:
        raise ConfigError(f"{where}: the brackets in {shown(text)} do not match")
    if "" in values:
        raise ConfigError(f"{where}: a value is empty (got {shown(text)}); name at least one, such as --vary KEY=A,B")
    for value, times in Counter(values).items():
        if times > 1:
            raise ConfigError(f"{where}: {shown(value)} is listed twice; list each value once")
    return key, values


def _read_entries(path: str | Path) -> list[tuple[str, dict[str, str]]]:
    """A settings file as names and ``key -> value``, the values as ``--set`` takes them."""
    entries = read_yaml(find(path, "ablations"))
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: expected a list of settings such as '- {{name: add, model.fusion: add}}'")
    found = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise ConfigError(f"{path}: entry {number} needs a name, such as '- {{name: add, model.fusion: add}}'")
        check_text(str(name), f"{path}: entry {number}: name")
        changes = {str(key): _as_item(value) for key, value in entry.items() if key != "name"}
        found.append((" ".join(str(name).split()), changes))
    return found


def _as_item(value: Any) -> str:
    """A value as ``--set`` takes it, which checks it: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False, default=str)
