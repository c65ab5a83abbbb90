"""Random changes of what users write: configs, overrides, search spaces, and the settings and axes of an ablation.

Run as a program, ``python -m helpers.random_changes SEED COUNT``, it judges many under limits of time and memory.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import yaml

from gmsa.ablation.variants import Variant, read_variants
from gmsa.config import Config, from_dict, load_config, to_dict
from gmsa.config.__main__ import main as explain
from gmsa.config.describe import describe_settings
from gmsa.config.override import override
from gmsa.config.strict_yaml import parse_yaml
from gmsa.errors import ConfigError, GmsaError
from gmsa.models import build_model, check
from gmsa.system.cli import one_line
from gmsa.training.callbacks import build_callbacks
from gmsa.training.protocols import check_protocol
from gmsa.tuning.space_file import read_space

optuna.logging.set_verbosity(optuna.logging.ERROR)
ROOT = Path(__file__).parents[2]
LONGEST = 400
"""Characters of an error's line, at most."""
DIMS = {"text": 6, "audio": 3, "vision": 4}


class Change(NamedTuple):
    """What a user might have written."""

    kind: str
    """``config``, ``set``, ``space``, ``settings``, ``vary``, ``key`` or ``dict``."""
    content: bytes
    """Of the file, if there is one."""
    items: tuple[str, ...] = ()
    """Overrides, or axes of an ablation."""


def _texts(folder: str) -> list[str]:
    return [path.read_text() for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))]


CONFIGS, SPACES, SETTINGS = _texts("."), _texts("spaces"), _texts("ablations")
SETTINGS_OF_GMSA = describe_settings()
KEYS = [setting.key for setting in SETTINGS_OF_GMSA]
PLAIN = {
    s.key: [json.dumps(s.default), *(choice for choice in s.allowed.split(" | ") if choice[:1].isalpha()), "1", "0.5"]
    for s in SETTINGS_OF_GMSA
}
"""Values of each key of which most are taken."""
SMALL_SPACE = """\
optim.lr: {float: [1e-4, 1e-2], log: true}
model.layers: {int: [1, 4]}
graph.intra: {choice: [complete, window]}
graph.radius: {int: [1, 8], when: {graph.intra: window}}
model.dropout: {float: [0.0, 0.5], step: 0.1}
"""
SMALL_SETTINGS = """\
- {name: add, model.fusion: add}
- {name: window 3, graph.intra: window(radius=3)}
- name: half
  data.label_ratio: 0.5
"""
# fmt: off
NUMBERS = [
    "9" * 400, "-" + "9" * 400, "9" * 5000, "0x" + "f" * 400, "0x" + "f" * 20_000, "0b" + "1" * 2000, "0o17", "010",
    ".inf", "-.inf", ".nan", "inf", "nan", "-0", "-0.0", "1e400", "1.0e+400", "-1e400", "1e-400", "5e-324", "1e308",
    "9007199254740993", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809",
    "1_000", "0x10", "1:30", "1:30.5", "+1", ".5", "1.", "1e3", "1E-3", "0.1.2", "٣", "１２", "0", "1", "-1", "9" * 10,
]
DATES = ["2001-01-01", "2001-99-99", "2001-01-01T00:00:00Z", "00:00:00"]
TAGGED = [
    "!!int x", "!!int ''", "!!float ''", "!!float x", "!!bool x", "!!null x", "!!timestamp x", "!!timestamp 2001-99-99",
    "!!binary aGk=", "!!binary '='", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str [1]", "!!map 3", "!",
    "!!seq 3", "!!int [1]", "!!str 1", "!foo 1", "!<tag:yaml.org,2002:int> 3", "! 3", "!!python/name:os.system",
    "!!python/object/apply:os.getcwd []",
]
TEXTS = [
    '"\\UFFFFFFFF"', '"\\ud800"', '"\\0"', '"\\x"', '"\\e[2J"', "'", '"', "'a", '"a', "a b", "ä", "日本", "\U0001f600",
    "\u202e", "\u2028", "null", "~", "", "yes", "no", "on", "off", "Yes", "TRUE", "False", "y", "n", "=", "<<", "*a",
    "&a", "&a 1", "*", "&", "|", ">", "|\n  a", "%", "@", "`", "a" * 5000, "a" * 300_000, " " * 2000, "{name}", "$HOME",
    "~", "/", "..", "$", "${", "a\tb",
]
NESTED = [
    "[" * 3000, "{" * 3000, "[" * 3000 + "]" * 3000, "{a: " * 60 + "1" + "}" * 60, "- " * 60 + "1", "[" * 40 + "]" * 40,
    "[]", "{}", "[[]]", "[{}]", "[1, 2]", "[a, b]", "[1, [2]]", "{a: 1}", "{a: {b: 1}}", "{1: 2}", "{null: 1}",
    "{[a]: 1}", "[null]", "{true: 1}", "? [a]\n: 1", "{a: 1, a: 2}", "[1, 1]", "[3, 1, 2]", "[true]", "[.nan, .nan]",
    "{" + ", ".join(f"k{i}: {i}" for i in range(20_000)) + "}", "[" + ", ".join(map(str, range(20_000))) + "]",
    "[" + "[2, 1], " * 10_000 + "]", "[1, true]", "['']", "{float: [0, 1]}", "{int: [1, 4]}", "{choice: [a, b]}",
    "{int: [1, 9007199254740993]}", "{float: [0, 1e308], step: 1e-300}", "{int: [0, 1000000000], step: 7}",
    "{float: [0, .inf]}", "{choice: [1, 1.0]}", "{int: [1, 4], float: [1, 2]}", "{int: [4, 1]}",
]
BOMBS = [
    "{lr: [&a0 [l,l,l,l,l,l,l,l,l]" + "".join(f",&a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)) + "]}",
    "{<<: [&a0 {a: 1}" + "".join(f", &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)) + "]}",
    "&a [*a]", "{<<: {lr: 1}}", "{<<: 3}",
]
PARTS = [
    *(f"window(radius={v})" for v in ("9" * 5000, "[[[", "-1", "3,", "3, radius=3", "1e3", "٣", "0x3", "true", "")),
    "knn(k=-1)", "knn(neighbors=2)", "window(", "window)", "window()", "window(3)", "(3)", "()", "(((((", "temporal",
    "window" + " " * 20_000 + "x", "window(" + "," * 20_000 + ")", "window(" + "(" * 20_000, "window(radius=&a 1)",
    "dilated(stride=2, hops=3)", "complete(a=1)", "semi_iin(channels=3)", "hgt(x=1)", "attention(heads=2)", "sslmm",
    "conv(dim=3)", "CCC", "RMSE(x=[1)", "supervised(x=1)", "pretrain", "late_fusion", "global", "hgt", "aligned",
    "tensorboard(folder=[)", "wandb(project=1, project=2)", "nosuch(a=1)", "a" * 999, "eta:0.5", "eta:9", "none:",
    "eta:" + "9" * 400, "eta:nan", "sample:1e400", "fixed:ta", "fixed:" + "t" * 999, "frame_uniform:1", ":" * 999,
]
BASES = [
    "mosi_graph", "base.yaml", "./change.yaml", "change.yaml", "circle.yaml", "[a, b]", "{a: b}", "3", "nosuch",
    "'a\\0b'", '"a\\0b"', "a" * 300, "a/" * 3000, "$GMSA_NOSUCH", "~nosuch/x", ".", "/", "/dev/null", "/dev/zero",
    "/proc/self/mem", "''", '"\\ud800"', "base.yaml/x",
]
# No name here is, or is within, a module that exists: importing one would run it.
PLUGINS = [
    "[gmsa_nosuch_{}]", "gmsa_nosuch_{}", "[3]", "[null]", "[[gmsa_nosuch_{}]]", "{{gmsa_nosuch_{}: 1}}", "['']",
    "[.gmsa_nosuch]", "['..']", "['gmsa_nosuch {}']", "[gmsa_nosuch_{}.py]", '["gmsa_nosuch\\0"]', '["\\ud800"]',
    "[gmsa_nosuch.a.b.c]", "true", "3", "[" + "gmsa_nosuch" * 200 + "]",
]
LINES = [
    "<<: {lr: 1}", "? a", ": b", "---", "...", "%YAML 9.9", "%TAG ! x", "- a", "a: b: c", "\ta: 1", "a:\t1", "# x",
    "&a b: 1", "!!set", "{", "}", "[", "]", "'", '"', "|", ">", "optim: {lr: 1}", "optim:", "model: []", "run: null",
    "data: 3", "1: 2", "null: 1", "true: 1", "? [a, b]\n: 1", "k" * 5000 + ": 1",
    "\n".join(f"key{i}: 1" for i in range(20_000)), "\n".join("- " * i + "a" for i in range(60)),
]
MARKS = [
    b"{", b"}", b"[", b"]", b":", b"- ", b"? ", b"&a ", b"*a", b"!!int ", b"!", b"|", b">", b"'", b'"', b"#", b"%",
    b"@", b"`", b",", b"\t", b"\0", b"\xff", b"\xc0", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc2\x85", b"\r", b"\n",
    b"\n\n", b"---\n", b"...\n", b"<<: ", b"= ", b" ",
]
ODD = [
    None, True, -1, 0, 2**53 + 1, 2**63, 2**70, 1e300, float("inf"), float("nan"), "", "x" * 5000, [], {}, [[1]],
    {"a": 1}, {1: 2}, b"x", "é",
]
ODD_KEYS = [
    "", ".", "..", "+", "a", ".lr", "optim.", "optim..lr", "optim.lr.x", "optim", "a." * 5000, "optim." * 200, "é.ä",
    "k" * 5000, "\ud800", "1.2", "data.missing.train.x", "graph.intra.text", "graph.intra.text.x", "run.seeds.0", "\0",
    "optim .lr", "optim.l r", "OPTIM.LR", "optim/lr",
]
# fmt: on


def zoo(rng: random.Random) -> str:
    """A value that few settings take."""
    return rng.choice(rng.choice([NUMBERS, NUMBERS, DATES, TAGGED, TEXTS, NESTED, BOMBS, PARTS, PARTS]))


def change_text(text: str, rng: random.Random) -> bytes:
    """A file with one to three changes."""
    content = text.encode()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        content = rng.choice(_CHANGES)(content, rng)
    return rng.choice(_WHOLE)(content) if rng.random() < 0.08 else content


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, left out, or put in."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                del changed[place : place + rng.randint(1, 30)]
            case _:
                changed[place:place] = rng.choice(MARKS)
    return bytes(changed)


def _lines(content: bytes, rng: random.Random) -> bytes:
    """Lines swapped, left out, repeated, indented or put in."""
    lines = content.decode("utf-8", "replace").split("\n")
    here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines[here], lines[there] = lines[there], lines[here]
        case 1:
            del lines[here]
        case 2:
            lines.insert(there, lines[here])
        case 3:
            lines[here] = " " * rng.randint(1, 4) + lines[here]
        case 4:
            lines.insert(here, " " * rng.choice([0, 2, 4]) + rng.choice(LINES))
        case 5:
            key = rng.choice(["base", "plugins", "base", rng.choice(KEYS).partition(".")[0]])
            pool = {"base": BASES, "plugins": PLUGINS}.get(key)
            value = zoo(rng) if pool is None else rng.choice(pool)
            lines.insert(rng.choice([0, len(lines)]), f"{key}: {_named(value, rng) if key == 'plugins' else value}")
    return "\n".join(lines).encode()


def _value(content: bytes, rng: random.Random) -> bytes:
    """The value of a line, or a word of it, replaced."""
    lines = content.decode("utf-8", "replace").split("\n")
    for _ in range(10):
        place = rng.randrange(len(lines))
        before, colon, after = lines[place].partition(": ") if rng.random() < 0.5 else lines[place].rpartition(": ")
        if colon:
            value = rng.choice(PARTS) if rng.random() < 0.2 else zoo(rng)
            ending = after[len(after.rstrip("}],")) :] if rng.random() < 0.7 else ""
            lines[place] = f"{before}: {value}{ending}"
            break
    return "\n".join(lines).encode()


def _structure(content: bytes, rng: random.Random) -> bytes:
    """A value anywhere in what the file holds replaced, renamed or repeated; written anew as YAML."""
    try:
        settings = parse_yaml(content.decode(), "change")
    except (ConfigError, UnicodeDecodeError):
        return content
    path: list[Any] = []
    below = settings if len(content) < 20_000 else None  # to write a larger one anew takes seconds
    while isinstance(below, (dict, list)) and below and (not path or rng.random() < 0.8):
        path.append(rng.choice(list(below) if isinstance(below, dict) else range(len(below))))
        below = below[path[-1]]
    if not path:
        return content
    above = settings
    for step in path[:-1]:
        above = above[step]
    match rng.randrange(3):
        case 0:
            above[path[-1]] = rng.choice(ODD)
        case 1 if isinstance(above, dict):
            other = rng.choice([*KEYS, "", "a.b", 3, None, True, "k" * 2000, "name", "float", "when", "log", "step"])
            above[other] = above.pop(path[-1])
        case _:
            above[path[-1]] = rng.choice([[below], {"a": below}, [below, below], str(below), {str(below)[:50]: None}])
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=rng.random() < 0.5).encode()


_CHANGES: list[Callable[[bytes, random.Random], bytes]] = [_bytes, _lines, _value, _value, _structure]
_WHOLE: list[Callable[[bytes], bytes]] = [
    lambda content: b"\xef\xbb\xbf" + content,
    lambda content: content.decode("utf-8", "replace").encode("utf-16"),
    lambda content: content.replace(b"\n", b"\r\n"),
    lambda content: content.replace(b"  ", b"\t"),
    lambda content: content.replace(b"\n", b"\r"),
    lambda content: content[: len(content) // 2],
    lambda content: content * 2,
    lambda content: b"",
    lambda content: b"[" + content + b"]",
    lambda content: b"\0" + content,
    lambda content: content + b" " * 200_000,
    lambda content: content + b"\n#" * 300_000,
]


def _named(value: str, rng: random.Random) -> str:
    return value.replace("{{", "{").replace("}}", "}").replace("{}", str(rng.randrange(100)))


def change_item(rng: random.Random) -> str:
    """An override, ``key=value``, whose key or value is odd."""
    key = rng.choice(
        [*KEYS, "optim.lr", "run.seeds", "data.label_seed", "graph.intra", "data.missing", "plugins", "base"]
    )
    value = rng.choice(PLAIN.get(key, ["1"])) if rng.random() < 0.6 else zoo(rng)
    if key == "base":
        value = rng.choice(BASES)
    if key == "plugins":
        value = _named(rng.choice(PLUGINS), rng)
    if rng.random() < 0.1:
        key = rng.choice(ODD_KEYS)
    elif rng.random() < 0.1 and key not in ("plugins", "base"):
        key = _garbled(key, rng)
    if rng.random() < 0.08:
        key += "+"
    if rng.random() < 0.05:
        return rng.choice([key, value, f"{key}:{value}", f" {key} = {value} ", f"{key}=={value}", f"={value}"])
    return f"{key}={value}"


def _garbled(key: str, rng: random.Random) -> str:
    place = rng.randrange(len(key))
    return key[:place] + rng.choice(["", ".", "x", key[place] * 2, " ", "=", "+", "\n", "*"]) + key[place + 1 :]


def change_axis(rng: random.Random) -> str:
    """An axis of an ablation, ``key=a,b``, whose key or values are odd."""
    key, _, value = change_item(rng).partition("=")
    if key.startswith("plugins"):
        return f"{key}={value}"
    parts = [value, *(rng.choice([*PLAIN.get(key, ()), "[2, 1]", "window(radius=3)"]) for _ in range(rng.randrange(3)))]
    odd = [
        ",".join(parts),
        ",".join(parts) + ",",
        value,
        ",".join(map(str, range(20_000))),
        "a," * 50_000,
        "1,1",
        "[1,2",
        "1)2",
        "",
        ",",
    ]
    return f"{key}={rng.choice(odd[:3] if rng.random() < 0.8 else odd)}"


def changes(seed: int) -> Any:
    """Random changes, one after the other; the same for the same seed."""
    for number in itertools.count():
        rng = random.Random(f"{seed} {number}")
        kind = rng.choice(["config", "config", "config", "set", "set", "space", "settings", "vary", "key", "dict"])
        base = rng.choice(CONFIGS)
        match kind:
            case "config":
                yield Change(kind, change_text(base, rng))
            case "set":
                yield Change(kind, base.encode(), tuple(change_item(rng) for _ in range(rng.choice([1, 1, 2, 3]))))
            case "space":
                yield Change(kind, change_text(rng.choice([SMALL_SPACE, SMALL_SPACE, *SPACES]), rng))
            case "settings":
                yield Change(kind, change_text(rng.choice([SMALL_SETTINGS, SMALL_SETTINGS, *SETTINGS]), rng))
            case "vary":
                yield Change(kind, b"", tuple(change_axis(rng) for _ in range(rng.choice([1, 1, 2, 3, 6]))))
            case "key":
                yield Change(kind, b"", (change_item(rng).partition("=")[0] or rng.choice(KEYS),))
            case "dict":
                yield Change(kind, b"", tuple(change_item(rng) for _ in range(rng.choice([1, 2]))))


def prepare_folder() -> None:
    """Writes into the working directory what the changes name."""
    Path("base.yaml").write_text("optim: {lr: 0.5}\n")
    Path("circle.yaml").write_text("base: circle2.yaml\n")
    Path("circle2.yaml").write_text("base: circle.yaml\n")


def judge(change: Change) -> str:
    """Takes a change to where work would begin: it is ``refused`` in one short line, or ``accepted`` and right.

    Works in the working directory; see :func:`prepare_folder`.

    Raises:
        Exception: it is neither.
    """
    Path("change.yaml").write_bytes(change.content)
    try:
        match change.kind:
            case "config":
                _right(load_config("change.yaml", environ={}))
                explain(["change.yaml"])
            case "set":
                _right(load_config("change.yaml", change.items, environ={}))
            case "dict":
                _right(override(dict(item.partition("=")[::2] for item in change.items)))
                _right(override(Config(), change.items))
            case "space":
                space = read_space("change.yaml", load_config("synthetic", environ={}))
                space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
            case "settings":
                _compared(read_variants("synthetic", (), (), "change.yaml"))
            case "vary":
                _compared(read_variants("synthetic", (), change.items, None))
            case "key":
                explain(
                    ["--key", *change.items] if not change.items[0].startswith("-") else [f"--key={change.items[0]}"]
                )
    except GmsaError as error:
        line = one_line(f"gmsa.train: error: {error}")
        assert len(line) <= LONGEST, f"{len(line)} characters: {line}"
        return "refused"
    return "accepted"


def _compared(variants: list[Variant]) -> None:
    for variant in variants[:3]:
        _right(variant.config)
        assert len(variant.slug) <= 100
        variant.name.encode()


def _right(config: Config) -> None:
    """Checks that a config could be trained with, and that it is itself once written and read."""
    check_protocol(config)
    build_callbacks(config)
    check(config)
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    assert from_dict(parse_yaml(text, "text")) == config
    model, convs = config.model, [pair for m in DIMS for pair in config.model.convs(m)]
    width = model.channels * max([1, *(kernel for kernel, _ in convs)]) * len(convs)
    if model.channels * model.layers <= 1024 and width <= 4096 and model.positions <= 4096:
        build_model(DIMS, config)


def main(seed: int, count: int) -> None:
    """Judges changes, each in 5 s of computing and 1 GB more of memory; prints the counts."""
    import os
    import resource

    out, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    os.chdir(tempfile.mkdtemp(prefix="gmsa-"))
    prepare_folder()
    judge(Change("config", CONFIGS[0].encode()))  # imports what is imported when it is first used
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, -1))
    counts: Counter[str] = Counter()
    faulthandler.register(signal.SIGPROF, file=sys.stderr, chain=True)
    for number, change in enumerate(itertools.islice(changes(seed), count)):
        signal.setitimer(signal.ITIMER_PROF, 5)
        signal.alarm(100)  # for one that waits and computes nothing
        try:
            found = judge(change)
        except Exception as error:
            found = "other"
            print(f"{seed} {number} {change.kind}: {type(error).__name__}: {str(error)[:600]}", file=out, flush=True)
        counts[f"{change.kind} {found}"] += 1
        counts[found] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(dict(counts), file=out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
