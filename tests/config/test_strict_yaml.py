"""The one reader of YAML: as PyYAML's for what settings are made of, strict for all else."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from gmsa.config import load_config, to_dict
from gmsa.config.__main__ import main
from gmsa.config.override import as_items, override
from gmsa.config.strict_yaml import DEEPEST, LONGEST, LONGEST_NUMBER, parse_yaml, read_yaml
from gmsa.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
WORDS = [
    *(
        "",
        "a",
        "a b",
        " a",
        "a ",
        "a: b",
        "a #b",
        "- a",
        "[a]",
        "{a}",
        "'",
        '"',
        "\\",
        "|",
        ">",
        "%a",
        "@a",
        "`",
        "&a",
        "*a",
    ),
    *(
        "!a",
        "?",
        "? a",
        ":",
        "-",
        "---",
        "...",
        "=",
        "<<",
        "~",
        "null",
        "Null",
        "true",
        "TRUE",
        "yes",
        "No",
        "on",
        "off",
        "y",
    ),
    *(
        "1",
        "-1",
        "+1",
        "1_000",
        "010",
        "0o17",
        "0x10",
        "0b1",
        "1:30",
        "1:30.5",
        "1.0",
        ".5",
        "-.5",
        "1e3",
        "1.0e4",
        "1.0e+4",
    ),
    *(
        ".inf",
        "-.inf",
        ".nan",
        "inf",
        "2001-01-01",
        "2001-99-99",
        "2001-01-01 00:00:00",
        "ä",
        "日本",
        "\U0001f600",
        "\u2028",
    ),
    *(
        "\x85",
        "\ufeff",
        "\t",
        "a\tb",
        "\n",
        "a\n",
        "a\n\nb",
        "\na",
        " \n a",
        "\r\n",
        "\0",
        "\x1b[2J",
        "\ud800",
        "a" * 300,
        "9" * 300,
    ),
]
"""Texts that a careless writer or reader takes for something else."""


def _plain(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(9 if depth < 5 else 7)
    if kind == 7:
        return [_plain(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {_key(rng): _plain(rng, depth + 1) for _ in range(rng.randrange(4))}
    number = rng.choice([0, 1, -1, 2**53 + 1, 2**63, -(2**64), 10**90, rng.randrange(10**6)])
    real = rng.choice([0.0, 0.1, 1e300, -1e-300, 5e-324, 1e16, 1e22, float("inf"), -float("inf"), rng.random()])
    return [None, rng.random() < 0.5, number, real, rng.choice(WORDS), rng.choice(WORDS), rng.choice(WORDS)][kind]


def _key(rng: random.Random) -> Any:
    return rng.choice([*WORDS, 0, -7, 2.5])


@pytest.mark.parametrize("style", [None, True, False])
@pytest.mark.parametrize("unicode", [True, False])
def test_what_a_writer_writes_is_read_as_it_was(style: bool | None, unicode: bool) -> None:
    rng = random.Random(0)
    for _ in range(150):
        value = _plain(rng)
        text = yaml.safe_dump(value, default_flow_style=style, allow_unicode=unicode, width=rng.choice([20, 80, 1000]))
        assert (
            repr(parse_yaml(text, "text")) == repr(yaml.safe_load(text)) == repr(yaml.safe_load(yaml.safe_dump(value)))
        )
        assert parse_yaml(text, "text") == value


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_files_of_gmsa(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (word, word)
            for word in ("yes", "No", "on", "off", "010", "1:30", "1:30.5", "=", "2001-01-01", "2001-99-99")
        ),
        ("'true'", "true"),
        ("1_000", 1000),
        ("0x10", 16),
        ("-0", 0),
        ("1e400", "1e400"),
        ("a: 1\n...\n", {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: b\r\nc: d", {"a": "b", "c": "d"}),
        ("", None),
        ("# a", None),
        ("12345678901234567891", 12345678901234567891),
    ],
)
def test_what_yaml_leaves_open(text: str, value: Any) -> None:
    found = parse_yaml(text, "text")
    assert (found, type(found)) == (value, type(value))


REFUSED = {
    "a: &b 1": "line 1: '&' and '*' (anchors and aliases) are not supported",
    "a: *b": "line 1: '&' and '*'",
    "a:\n  <<: {b: 1}": "line 2: '<<' is not supported; use 'base'",
    "a: 1\nb: 1\na: 2": "line 3: duplicate key 'a'; leave one out",
    "1: a\n1.0: b": "line 2: duplicate key 1.0",
    "[a]: b": "line 1: a key is a list or a group",
    "[" * 3000: f"line 1: it is nested more than {DEEPEST} levels deep",
    "9" * (LONGEST_NUMBER + 1): f"line 1: a number has more than {LONGEST_NUMBER} characters",
    "0x" + "f" * 5000: "a number has more than",
    "!!int x": "line 1: 'x' does not fit the tag !!int; leave the tag out",
    "a: !!float ''": "'' does not fit the tag !!float",
    "!!bool x": "'x' does not fit the tag !!bool",
    "0x_": "'0x_' does not fit the tag !!int",
    "!!timestamp x": "the tag !!timestamp is not supported; leave it out",
    "!!set {a, b}": "the tag !!set is not supported",
    "!!binary aGk=": "the tag !!binary is not supported",
    "!!omap [a: 1]": "the tag !!omap is not supported",
    "!!map 3": "a value tagged !!map is no group",
    "!!python/name:os.system": "the tag !!python/name:os.system is not supported",
    '"\\UFFFFFFFF"': "correct the escape",
    "a\nb\0": "line 2: '\\x00' is no text; remove it",
    "a: 1\n---\nb: 1": "line 2: found another document",
    "a:\n\tb: 1": "line 2: found character '\\t' that cannot start any token",
    "#" * (LONGEST + 1): f"has more than {LONGEST:,} characters",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=[text[:20] for text in REFUSED])
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "own.yaml")
    assert str(caught.value).startswith("own.yaml: ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_no_other_module_reads_yaml() -> None:
    readers = []
    for path in sorted((ROOT / "gmsa").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if isinstance(node, ast.ImportFrom) and node.module == "yaml":
                name = "yaml.load"
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "yaml"):
                continue
            if "load" in name.lower() and (isinstance(node, ast.Attribute) or name == "yaml.load"):
                readers.append(path.name)
    assert set(readers) == {"strict_yaml.py"}


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("run.seeds=[9007199254740993]", "run.seeds", [9007199254740993]),
        ("data.label_seed=12345678901234567891", "data.label_seed", 12345678901234567891),
        ("data.label_seed='18446744073709551615'", "data.label_seed", 18446744073709551615),
        ("data.label_seed=3.0", "data.label_seed", 3),
        ("optim.epochs=010", "optim.epochs", 10),
        ("optim.lr=1", "optim.lr", 1.0),
        ("optim.lr=1e-3", "optim.lr", 1e-3),
        ("optim.amp=off", "optim.amp", "off"),
        ("run.compile=yes", "run.compile", True),
        ("model.shared_layers=off", "model.shared_layers", False),
        ("data.name=no", "data.name", "no"),
        ("data.name='1.0e4'", "data.name", "1.0e4"),
        ("data.name='-.5'", "data.name", "-.5"),
    ],
)
def test_values_stay_what_they_are(item: str, key: str, value: Any) -> None:
    """Through an override, and through the file of a run."""
    config = load_config("synthetic", [item], environ={})
    written = parse_yaml(yaml.safe_dump(to_dict(config)), "config.yaml")
    for found in (to_dict(config), written):
        for part in key.split("."):
            found = found[part]
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            "run.seeds=[18446744073709551616]",
            "'run.seeds' must be a whole number of at most 64 bits (got 18446744073709551616)",
        ),
        ("run.seeds=[1.0e+300]", "'run.seeds' must be a whole number (got 1e+300)"),
        (f"run.seeds={list(range(1001))}", "'run.seeds' may list at most 1,000 values (got 1,001)"),
        (f"data.name={'a' * 5000}", "'data.name' may have at most 4,096 characters (got 5,000)"),
        ("optim.lr=1e400", "'optim.lr' must be a number (got '1e400')"),
        (f"{'a.' * 5000}b=1", "it has more than 50 dots"),
        ("base=x", "unknown key 'base'"),
    ],
)
def test_values_that_no_setting_has(item: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("synthetic", [item], environ={})
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_numbers_that_python_does_not_write() -> None:
    for value in (10**5000, [[10**5000]]):
        with pytest.raises(ConfigError, match="no setting takes such a value"):
            as_items({"optim.lr": value})
        with pytest.raises(ConfigError, match=r"'optim\.lr' must be a number"):
            override({"optim.lr": value})


@pytest.mark.parametrize("key", ["", ".", "a" * 100_000, "optim." * 1000, "\ud800", "\x1b[2J", "optim\nlr", "日本"])
def test_the_command_about_an_odd_key(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        main([f"--key={key}"])
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
