"""``base:`` in a config: what it inherits, from where, and which file an error names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gmsa.config import Config, from_dict, load_config, to_dict
from gmsa.config.inherit import MOST_LEVELS
from gmsa.errors import ConfigError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(name: str, *overrides: str) -> Config:
    return load_config(name, overrides, environ={})


def test_the_nearest_file_wins_key_by_key() -> None:
    write(
        "far.yaml", "optim: {lr: 0.1, epochs: 3, batch_size: 4}\nmodel: {channels: 16, modality_dropout: {text: 0.1}}"
    )
    write("near.yaml", "base: far.yaml\noptim: {lr: 0.2, epochs: 5}\nmodel: {modality_dropout: {audio: 0.3}}")
    write("own.yaml", "base: near.yaml\noptim: {lr: 0.3}\nrun:\ngraph: {radius: 1}")
    config = load("own.yaml", "optim.clip_norm=2")
    optim, dropout = config.optim, config.model.modality_dropout
    assert (optim.lr, optim.epochs, optim.batch_size, optim.clip_norm) == (0.3, 5, 4, 2)
    assert (config.model.channels, *map(dropout.of, ("text", "audio", "vision"))) == (16, 0.1, 0.3, 0.5)
    assert config.graph.radius == 1


def test_a_value_for_a_whole_group_merges_with_the_group() -> None:
    write("far.yaml", "data: {missing: eta:0.5}\ngraph: {intra: window, inter: {text_to_audio: window}}")
    write("own.yaml", "base: far.yaml\ndata: {missing: {test: none, seed: 3}}\ngraph: {inter: aligned}")
    config = load("own.yaml")
    missing = config.data.missing
    assert (missing.train, missing.valid, missing.test, missing.seed) == ("eta:0.5", "eta:0.5", "none", 3)
    assert (config.graph.intra.of("text"), config.graph.inter.of("text_to_audio")) == ("window", "aligned")
    write("over.yaml", "base: own.yaml\ndata: {missing: sample:0.5}")
    missing = load("over.yaml").data.missing
    assert (missing.train, missing.test, missing.seed) == ("sample:0.5", "sample:0.5", 3)


def test_where_a_base_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the file that names it, then as given, then among the packaged ones."""
    write("configs/own.yaml", "base: a.yaml")
    write("a.yaml", "optim: {lr: 0.1}")
    assert load("configs/own.yaml").optim.lr == 0.1
    write("configs/a.yaml", "optim: {lr: 0.2}")
    assert load("configs/own.yaml").optim.lr == 0.2
    write("configs/own.yaml", "base: ../a.yaml")
    assert load("configs/own.yaml").optim.lr == 0.1
    monkeypatch.setenv("PLACE", str(Path("configs").resolve()))
    write("own.yaml", "base: $PLACE/a.yaml")
    assert load("own.yaml").optim.lr == 0.2
    write("own.yaml", "base: mosi_sslmm")
    assert to_dict(load("own.yaml")) == to_dict(load("mosi_sslmm"))


def test_a_dict_may_have_a_base() -> None:
    assert from_dict({"base": "mosi_sslmm", "optim": {"lr": 0.5}}).model.name == "sslmm"


def test_data_of_ones_own_is_not_called_as_the_bases() -> None:
    write("own.yaml", "base: mosi_graph\ndata: {path: data/clips.pkl}")
    data = load("own.yaml").data
    assert (data.name, data.if_missing) == ("clips", "error")
    write("own.yaml", "base: mosi_graph\ndata: {label_ratio: 0.5}")
    data = load("own.yaml").data
    assert (data.name, data.if_missing) == ("mosi", "synthetic")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"own": "base: a.yaml", "a": "optim: {lrr: 1}"}, "a.yaml: unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ({"own": "base: a.yaml", "a": "optim: {lr: -1}"}, "a.yaml: 'optim.lr' must be greater than 0 (got -1.0)"),
        ({"own": "base: a.yaml", "a": "optm: {lr: 1}"}, "a.yaml: unknown key 'optm' (did you mean 'optim'?)"),
        ({"own": "base: a.yaml", "a": "optim: 3"}, "a.yaml: 'optim' must hold 'key: value' pairs (got 3)"),
        ({"own": "base: a.yaml\noptim: {lr: -1}", "a": "optim: {lr: -2}"}, "own.yaml: 'optim.lr' must be greater than"),
        ({"own": "base: a.yaml\nmodle: {}", "a": "optim: {lr: 2}"}, "own.yaml: unknown key 'modle' (did you mean"),
        (
            {"own": "base: a.yaml", "a": "base: b.yaml", "b": "protocol: {k: 3}"},
            "b.yaml: unknown key 'protocol.k'; it is ",
        ),
        ({"own": "base: a.yaml", "a": "- lr"}, "a.yaml: expected 'key: value' pairs at the top (got list)"),
        ({"own": "base: a.yaml", "a": "lr: ["}, "a.yaml: not valid YAML: "),
        ({"own": "base: 3"}, "own.yaml: 'base' must name a config or a file (got 3)"),
        (
            {"own": "base: mosi_grap"},
            "own.yaml: 'base': config file 'mosi_grap' does not exist (did you mean 'mosi_graph'?",
        ),
        ({"own": "base: a.yaml", "a": "base: none"}, "a.yaml: 'base': config file 'none' does not exist; give a file"),
        ({"own": "base: own.yaml"}, "own.yaml: 'base' leads in a circle: own.yaml -> own.yaml; leave one 'base' out"),
        (
            {"own": "base: a.yaml", "a": "base: b.yaml", "b": "base: ./a.yaml"},
            "b.yaml: 'base' leads in a circle: own.yaml -> a.yaml -> b.yaml -> a.yaml; leave",
        ),
        ({"own": "base: a.yaml", "a": "plugins: [no_such_module]"}, "a.yaml: plug-in 'no_such_module' is not there; "),
        ({"own": "base: a.yaml\nplugins: 3", "a": "plugins: [re]"}, "own.yaml: 'plugins' must be a list"),
    ],
)
def test_a_mistake_names_its_file(files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        write(f"{name}.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load("own.yaml")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_change_on_the_command_line_is_not_the_bases_mistake() -> None:
    write("a.yaml", "optim: {lr: 1}")
    write("own.yaml", "base: a.yaml")
    with pytest.raises(ConfigError, match=r"^--set optim.lr=-1: 'optim\.lr' must be greater than 0"):
        load("own.yaml", "optim.lr=-1")


def test_a_long_chain() -> None:
    write("0.yaml", "optim: {lr: 0.5}")
    for level in range(1, MOST_LEVELS + 2):
        write(f"{level}.yaml", f"base: {level - 1}.yaml")
    assert load(f"{MOST_LEVELS}.yaml").optim.lr == 0.5
    with pytest.raises(
        ConfigError, match=r"^1\.yaml: 'base' leads through more than 10 files: 11\.yaml -> 10\.yaml -> "
    ):
        load(f"{MOST_LEVELS + 1}.yaml")


def test_plug_ins_of_all_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write("lib/gmsa_test_base_a.py", "")
    write("gmsa_test_base_b.py", "")
    write("lib/a.yaml", "plugins: [gmsa_test_base_a]")
    write("own.yaml", "base: lib/a.yaml\nplugins: [gmsa_test_base_b]")
    assert load("own.yaml").plugins == ("gmsa_test_base_a", "gmsa_test_base_b")
    assert load("own.yaml", "plugins+=gmsa_test_base_b", "plugins+=[re]").plugins[1:] == ("gmsa_test_base_b", "re")
