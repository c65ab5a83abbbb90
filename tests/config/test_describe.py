"""``gmsa config``, and the description of every setting behind it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gmsa.config import Config, from_dict, load_config, to_dict
from gmsa.config.__main__ import main
from gmsa.config.describe import describe_settings, docstrings, plain_text
from gmsa.errors import ConfigError
from gmsa.registry import METRICS, MODELS

Say = Callable[..., str]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMSA_DATA", raising=False)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    return call


BY_MODALITY = ("model.modality_dropout", "model.encoders", "graph.intra", "graph.inter")


def leaves(value: dict, prefix: str = "") -> list[str]:
    return [
        leaf
        for key, below in value.items()
        for leaf in (leaves(below, f"{prefix}{key}.") if isinstance(below, dict) else [f"{prefix}{key}"])
    ]


def test_every_setting_has_a_meaning_that_is_a_sentence() -> None:
    settings = {setting.key: setting for setting in describe_settings()}
    found = {key for key in leaves(to_dict(Config())) if key.rpartition(".")[0] not in BY_MODALITY}
    assert found <= set(settings)
    assert set(settings) - found == {"data.missing", *BY_MODALITY} - found
    for setting in settings.values():
        assert setting.meaning.endswith("."), setting.key
        assert setting.meaning[0].isupper() or setting.meaning[0] == "`", setting.key
        assert "``" not in setting.meaning, setting.key
        assert setting.type, setting.key


def test_defaults_are_the_configs() -> None:
    settings = to_dict(Config())
    for setting in describe_settings():
        value = settings
        for part in setting.key.split("."):
            value = value[part]
        if not isinstance(value, dict):
            assert setting.default == value


@pytest.mark.parametrize(
    ("key", "kind", "allowed"),
    [
        ("optim.lr", "a number", "> 0"),
        ("optim.epochs", "a whole number", ">= 1, <= 1000000"),
        ("data.label_ratio", "a number", "> 0, <= 1"),
        ("optim.name", "a name", "adam | adamw"),
        ("self_training.k", "a whole number or all", ">= 0 | all"),
        ("data.label_seed", "a whole number or null", ""),
        ("run.deterministic", "true or false", ""),
        ("run.seeds", "a list of whole numbers", ""),
        ("data.modalities", "a list of names or auto", "auto"),
        ("target.range", "a list of numbers or auto", "auto"),
        ("model.modality_dropout", "a number, or one by modality", ">= 0, < 1"),
        ("model.encoders", "a list of [number, number], or one by modality", ""),
        ("model.name", "a name", " | ".join(MODELS)),
        ("run.metrics", "a list of names", " | ".join(METRICS)),
        ("data.missing", "text, or a group", ""),
    ],
)
def test_types_and_limits(key: str, kind: str, allowed: str) -> None:
    setting = next(s for s in describe_settings() if s.key == key)
    assert (setting.type, setting.allowed) == (kind, allowed)


def test_docstrings_are_those_below_the_fields() -> None:
    @dataclasses.dataclass
    class Example:
        a: int = 1
        """First,
        on two lines."""
        b: int = 2
        c: int = 3
        """Third."""

    assert docstrings(Example) == {"a": "First,\non two lines.", "c": "Third."}
    assert plain_text("``a``, :class:`gmsa.B`\nand :func:`~gmsa.c`") == "`a`, `gmsa.B` and `gmsa.c`"


def test_the_table_has_a_line_per_setting(say: Say) -> None:
    header, *rows = say().splitlines()
    assert header.split() == ["Key", "Default", "Allowed", "Meaning"]
    assert [row.split()[0] for row in rows] == [setting.key for setting in describe_settings()]
    (line,) = (row for row in rows if row.startswith("optim.lr "))
    assert " ".join(line.split()) == "optim.lr 0.001 > 0 Peak learning rate (the paper: 1e-4)."


def test_one_key(say: Say) -> None:
    text = say("--key", "optim.lr")
    for part in ("optim.lr\n  Peak learning rate", "default  0.001\n", "allowed  > 0\n", "beside   name, encoder_lr"):
        assert part in text
    assert "here     0.01\n" in say("mosi_graph", "--set", "optim.lr=0.01", "--key", "optim.lr")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_group(say: Say) -> None:
    text = say("--key", "self_training")
    assert text.startswith("Settings of the protocol `self_training` (Semi-IIN, Algorithm 1).\n\nKey ")
    assert [line.split()[0] for line in text.splitlines()[3:]] == [
        f"self_training.{key}" for key in ("weight", "rounds", "k", "threshold")
    ]
    assert "\nWhat is hidden" not in say("--key", "data.missing.seed")
    text = say("--key", "data.missing")
    assert text.index("Modalities that are masked") < text.index("(GCNet)") < text.index("data.missing.seed ")


def test_the_parts_that_a_setting_may_name(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(MODELS, "_parts", dict(MODELS._parts))
    Path("gmsa_test_shown.py").write_text(
        "from gmsa.registry import MODELS\n\n\n@MODELS.register('shown')\nclass Shown:\n"
        '    """Answers always the same. And more."""\n\n    def __init__(self, width: int = 3): ...\n'
    )
    text = say("--key", "model.name", "--plugin", "gmsa_test_shown")
    assert "\n  semi_iin\n" in text
    assert "\n      Two streams of masked attention over one graph" in text
    assert "\n  shown(width=3)  (of the plug-in gmsa_test_shown)\n      Answers always the same.\n" in text
    assert " | shown" in say("--key", "model.name").split("allowed")[1].split("\n\n")[0]


def test_edge_builders_are_parts_too(say: Say) -> None:
    text = say("--key", "graph.intra")
    assert "type     a name, or one by modality\n" in text
    said = "allowed complete | window | time_window | dilated | knn | aligned | temporal | mtag"
    assert said in " ".join(text.split())
    assert "\n  window(radius)\n" in text
    assert "``" not in text
    assert ":func:" not in text
    assert "\n  aligned\n" in say("--key", "graph.inter.text_to_audio")


def test_a_config_resolved(say: Say) -> None:
    Path("own.yaml").write_text("base: mosi_sslmm\noptim: {lr: 0.001, epochs: 3}\nrun: {seeds: [1111]}\n")
    shown = yaml.safe_load(say("own.yaml", "--set", "graph.radius=5"))
    assert shown["optim"] == {"epochs": 3, "ema": 0.999}
    assert shown["graph"] == {"radius": 5}
    assert "run" not in shown  # as by default
    config = load_config("own.yaml", ["graph.radius=5"])
    assert from_dict(shown) == config
    assert yaml.safe_load(say("own.yaml", "--all", "--set", "graph.radius=5")) == to_dict(config)
    assert yaml.safe_load(say("--all")) == to_dict(Config())
    Path("empty.yaml").touch()
    assert yaml.safe_load(say("empty.yaml")) == {}


def test_the_data_that_the_environment_names_count(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMSA_DATA", "/data/clips.pkl")
    assert yaml.safe_load(say("mosi_graph"))["data"] == {"path": "/data/clips.pkl", "name": "clips"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--key", "optim.lrr"], "unknown key 'optim.lrr' (did you mean 'optim.lr'?); 'gmsa config' lists all"),
        (["--key", "optm"], "unknown key 'optm' (did you mean 'optim'?)"),
        (["--key", "protocol.k"], "unknown key 'protocol.k' (it is now 'self_training.k')"),
        (["none.yaml"], "config file 'none.yaml' does not exist"),
        (["mosi_graph", "--set", "optim.lr=-1"], "--set optim.lr=-1: 'optim.lr' must be greater than 0"),
        (["--plugin", "gmsa_no_such"], "plug-in 'gmsa_no_such' is not there"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        main(arguments)
    assert str(caught.value).startswith(said)


def test_a_change_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--set", "optim.lr=1"])
    assert caught.value.code == 2
    assert "--set changes a config; name one" in capsys.readouterr().err


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys; from gmsa.config.__main__ import main; main([]); main(['--key', 'optim.lr']); main(['mosi_sslmm'])"
        "\nsys.exit('torch' in sys.modules)"
    )
    where = {"PYTHONPATH": str(Path(sys.modules["gmsa"].__file__).parents[1])}
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL, env=where).returncode == 0
    )
