"""Search spaces: what they suggest, and that a wrong one is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from gmsa.config import ByModality, Config, from_dict, load_config
from gmsa.data.notes import collected
from gmsa.errors import ConfigError
from gmsa.tuning.space import Space, apply_values, as_stored
from gmsa.tuning.space_file import read_space

ROOT = Path(__file__).parents[2]
FIT = {
    "default": ["mosi_graph", "mosi_sslmm", "synthetic"],
    "context": ["mosi_graph", "mosi_sslmm", "synthetic"],
    "graph": ["mosi_graph", "synthetic"],
    "semi_supervised": ["mosi_graph", "synthetic"],
}
"""Configs that each space is for."""


def read(text: str, folder: Path, config: Config | None = None) -> Space:
    file = folder / "space.yaml"
    file.write_text(text)
    return read_space(file, config or Config())


def test_every_space_that_comes_with_gmsa_is_looked_at() -> None:
    assert {file.stem for file in (ROOT / "configs" / "spaces").iterdir()} == FIT.keys()


@pytest.mark.parametrize(("name", "config"), [(name, config) for name in FIT for config in FIT[name]])
def test_spaces_that_come_with_gmsa_fit_the_configs(name: str, config: str) -> None:
    base = load_config(ROOT / "configs" / f"{config}.yaml")
    space = read_space(ROOT / "configs" / "spaces" / f"{name}.yaml", base)
    assert apply_values(base, space.values(space.own(base))) == base
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    accepted = 0
    for _ in range(25):
        values = space.suggest(study.ask())
        try:
            apply_values(base, values)
            accepted += 1
        except ConfigError:
            continue
    assert accepted == 25


def test_a_parameter_is_searched_under_its_condition_only(tmp_path: Path) -> None:
    space = read(
        """
        graph.radius: {int: [1, 4], when: {graph.intra: [window, temporal], model.layers: 2}}
        graph.intra: {choice: [complete, window, temporal]}
        model.layers: {int: [1, 2]}
        """,
        tmp_path,
    )
    assert [p.key for p in space.parameters] == ["graph.intra", "model.layers", "graph.radius"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        values = space.suggest(study.ask())
        wanted = values["graph.intra"] != "complete" and values["model.layers"] == 2
        assert ("graph.radius" in values) == wanted
        seen.add(wanted)
    assert seen == {True, False}


def test_conditions_of_conditions(tmp_path: Path) -> None:
    space = read(
        """
        graph.hops: {int: [1, 4], when: {graph.intra: dilated}}
        graph.intra: {choice: [complete, dilated], when: {graph.scope: utterance}}
        graph.scope: {choice: [utterance, dialogue]}
        """,
        tmp_path,
    )
    study = optuna.create_study()
    trial = optuna.trial.FixedTrial({"graph.scope": "dialogue", "graph.intra": "dilated", "graph.hops": 3})
    assert space.suggest(trial) == {"graph.scope": "dialogue"}
    trial = optuna.trial.FixedTrial({"graph.scope": "utterance", "graph.intra": "dilated", "graph.hops": 3})
    assert space.suggest(trial) == {"graph.scope": "utterance", "graph.intra": "dilated", "graph.hops": 3}
    assert not study.trials


def test_a_former_value_is_read_as_the_present_one(tmp_path: Path) -> None:
    space = read(
        """
        graph.scope: {choice: [utterance, video]}
        graph.context: {choice: [0, 2, all], when: {graph.scope: video}}
        """,
        tmp_path,
    )
    trial = optuna.trial.FixedTrial({"graph.scope": "dialogue", "graph.context": 0})
    chosen = apply_values(Config(), space.suggest(trial)).graph
    assert (chosen.scope, chosen.context) == ("dialogue", 0)


def test_lists_and_groups_can_be_chosen(tmp_path: Path) -> None:
    space = read(
        """
        model.encoders.audio: {choice: [[[4, 2], [4, 4]], [[3, 1]]]}
        model.modality_dropout: {choice: [{text: 0.2, audio: 0.2, vision: 0.5}, {text: 0, audio: 0, vision: 0}]}
        """,
        tmp_path,
    )
    stored = space.own(Config())
    assert apply_values(Config(), space.values(stored)) == Config()
    stored["model.encoders.audio"] = space.parameters[0].distribution.choices[1]  # type: ignore[attr-defined]
    stored["model.modality_dropout"] = space.parameters[1].distribution.choices[1]  # type: ignore[attr-defined]
    changed = apply_values(Config(), space.values(stored)).model
    assert changed.convs("audio") == ((3, 1),)
    assert changed.modality_dropout.of("vision") == 0


def test_choices_are_compared_as_the_config_holds_them(tmp_path: Path) -> None:
    """PyYAML reads 1e-3 as text; a group may be written in another order, or with whole numbers."""
    space = read(
        """
        optim.lr: {choice: [1e-3, 3e-4]}
        model.modality_dropout: {choice: [{vision: 0.5, text: 0.2, audio: 0.2}, {text: 0, audio: 0, vision: 0}]}
        """,
        tmp_path,
    )
    assert apply_values(Config(), space.values(space.own(Config()))) == Config()
    nothing = from_dict({"model": {"modality_dropout": {"text": 0, "audio": 0.0, "vision": 0}}})
    assert apply_values(nothing, space.values(space.own(nothing))) == nothing


def test_one_value_stands_for_all_relations(tmp_path: Path) -> None:
    space = read("graph.intra: {choice: [complete, window]}", tmp_path)
    assert space.own(Config()) == {"graph.intra": "complete"}
    assert apply_values(Config(), {"graph.intra": "window"}).graph.intra == ByModality.for_all("window")


def test_numbers_as_yaml_writes_them(tmp_path: Path) -> None:
    space = read("optim.lr: {float: [1e-4, 1e-2], log: true}", tmp_path)  # PyYAML reads 1e-4 as text
    distribution = space.parameters[0].distribution
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert (distribution.low, distribution.high, distribution.log) == (1e-4, 1e-2, True)


def test_values_that_go_together_only_in_pairs_are_taken(tmp_path: Path) -> None:
    """Three heads need other channels than the config's: that some draws fail is no reason to refuse the space."""
    read("model.heads: {choice: [8, 3]}\nmodel.channels: {choice: [128, 96]}", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys with ranges"),
        ("- a", "expected keys with ranges"),
        ("optim.lr: [", "not valid YAML"),
        ("optim.lr: {float: [0.1, 1]}\noptim.lr: {float: [0.1, 1]}", "duplicate key"),
        ("optim.lrr: {float: [1e-4, 1e-2]}", "unknown key 'optim.lrr' (did you mean 'optim.lr'?)"),
        ("lr: {float: [1e-4, 1e-2]}", "unknown key 'lr'"),
        ("optim: {choice: [1]}", "unknown key 'optim'"),
        ("optim.lr: 3", "'optim.lr' needs one of float, int or choice"),
        ("optim.lr: {}", "'optim.lr' needs one of float, int or choice"),
        ("optim.lr: {float: [0, 1], int: [0, 1]}", "'optim.lr' needs one of float, int or choice"),
        ("optim.lr: {float: [1e-4, 1e-2], logs: true}", "a float has no 'logs' (did you mean 'log'?)"),
        ("model.fusion: {choice: [gate], log: true}", "a choice has no 'log'"),
        ("optim.lr: {float: [1e-2, 1e-4]}", "'optim.lr': the range is empty, 0.01 is above 0.0001; swap them"),
        ("optim.lr: {float: [1]}", "'optim.lr': 'float' needs its two ends"),
        ("optim.lr: {float: 1}", "'optim.lr': 'float' needs its two ends"),
        ("optim.lr: {float: [a, 1]}", "'optim.lr' must be a number (got 'a')"),
        ("optim.lr: {float: [1e-4, .inf]}", "'optim.lr' must be a number"),
        ("optim.lr: {float: [.nan, 1]}", "'optim.lr' must be a number"),
        ("optim.lr: {float: [true, 1]}", "'optim.lr' must be a number"),
        ("optim.lr: {float: [0, 1], log: true}", "'optim.lr': a range with 'log: true' must begin above 0"),
        ("optim.lr: {float: [1, 2], log: 3}", "'log' must be true or false"),
        ("model.layers: {int: [1.5, 4]}", "'model.layers' must be a whole number (got 1.5)"),
        ("model.layers: {int: [1, 4], step: 0}", "'step' must be above 0"),
        ("model.layers: {int: [1, 4], step: 2, log: true}", "'log' and 'step' do not go together"),
        ("model.dropout: {float: [0, 0.5], step: 1}", "the range from 0 to 0.5 is no multiple of 'step' 1"),
        ("model.layers: {int: [1, 4], step: 2}", "'model.layers': the range from 1 to 4 is no multiple of 'step' 2"),
        ("model.heads: {int: [4, 8]}", "'model.heads' may be 5, but 'model.channels' must be divisible"),
        ("graph.radius: {int: [1, 8], when: {graph.intra: []}}", "'when' names no value of a key"),
        (
            "graph.intra: {choice: [complete, window]}\ngraph.intra.text: {choice: [complete, window]}",
            "'graph.intra' and 'graph.intra.text' overlap; leave one out",
        ),
        ("data.name: {choice: [synthetic, a]}", "'data.name' cannot be searched"),
        ("model.fusion: {choice: []}", "'choice' must be a list with at least one value"),
        ("model.fusion: {choice: gate}", "'choice' must be a list"),
        ("model.fusion: {choice: [gate, gate]}", "a choice is listed twice"),
        ("model.fusion: {choice: [gate, glue]}", "'model.fusion' may be 'glue', but 'model.fusion' must be one of"),
        ("model.layers: {int: [0, 4]}", "'model.layers' may be 0, but 'model.layers' must be at least 1"),
        ("model.dropout: {float: [0.1, 1.5]}", "'model.dropout' may be 1.5, but"),
        ("model.heads: {choice: [8, 7]}", "'model.heads' may be 7, but 'model.channels' must be divisible"),
        ("graph.intra: {choice: [complete, windows]}", "did you mean 'window'?"),
        ("optim.lr: {float: [0.1, 1]}", "'optim.lr': the config's own value 0.001 is not in its range"),
        ("model.fusion: {choice: [add, dot]}", "'model.fusion': the config's own value 'gate' is not in its range"),
        ("self_training.k: {int: [1, 30]}", "'self_training.k': the config's own value 40 is not in its range"),
        ("data.label_seed: {int: [1, 30]}", "'data.label_seed' cannot be searched"),
        ("graph.radius: {int: [1, 8], when: {graph.intra: window}}", "depends on 'graph.intra', which is not in the"),
        ("graph.radius: {int: [1, 8], when: window}", "'when' names other keys"),
        (
            "graph.intra: {choice: [complete, window]}\ngraph.radius: {int: [1, 8], when: {graph.intra: knn}}",
            "'graph.radius' depends on 'graph.intra' being 'knn', which it never is",
        ),
        (
            "model.layers: {int: [1, 4], when: {model.fusion: add}}\nmodel.fusion: {choice: [gate, add], "
            "when: {model.layers: 2}}",
            "the conditions of 'model.layers', 'model.fusion' depend on each other",
        ),
        ("run.threads: {int: [1, 4]}", "'run.threads' cannot be searched: it is not of the model but of the run"),
        ("data.path: {choice: [a]}", "'data.path' cannot be searched: trials would not be scored on the same utter"),
        ("data.missing.valid: {choice: [none]}", "cannot be searched: trials would not be scored on the same feat"),
        ("data.missing: {choice: [none]}", "search 'data.missing.train'"),
        ("data.label_ratio: {float: [0.1, 1]}", "'data.label_ratio' cannot be searched: it is the task"),
        ("data.split.seed: {int: [1, 9]}", "'data.split.seed' cannot be searched: trials would not be scored on the"),
        ("data.video_from: {choice: [auto, id]}", "'data.video_from' cannot be searched: splits are made of whole"),
        ("target.preset: {choice: [mosi, sims]}", "'target.preset' cannot be searched: trials would not be scored on"),
        ("data.labels: {choice: [mosi, sims]}", "'target.preset' cannot be searched: trials would not be scored on"),
        ("model.encoders.eeg: {choice: [[[3, 1]]]}", "unknown key 'model.encoders.eeg'"),
    ],
)
def test_a_wrong_space_is_refused_by_the_name_of_the_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "space.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


EEG = {"data": {"modalities": ["text", "eeg"]}, "model": {"encoders": {"eeg": [[3, 1]]}}}


def test_a_space_of_other_modalities_is_searched_without_them(tmp_path: Path) -> None:
    config = from_dict(EEG)
    with collected() as notes:
        space = read_space(ROOT / "configs" / "spaces" / "default.yaml", config)
    assert len(notes) == 1
    assert "model.modality_dropout.audio, model.modality_dropout.vision belong to modalities that data.mod" in notes[0]
    keys = [p.key for p in space.parameters]
    assert "model.modality_dropout.text" in keys
    assert not {"model.modality_dropout.audio", "model.modality_dropout.vision"} & set(keys)
    assert apply_values(config, space.values(space.own(config))) == config
    with pytest.raises(
        ConfigError, match=r"graph.intra.audio belongs to a modality .*\(text, eeg\).*search other keys"
    ):
        read("graph.intra.audio: {choice: [complete, window]}", tmp_path, config)
    with pytest.raises(ConfigError, match=r"unknown key 'model\.modality_dropout\.ege'.*did you mean.*eeg"):
        read("model.modality_dropout.ege: {float: [0, 0.5]}\nmodel.layers: {int: [1, 4]}", tmp_path, config)


def test_a_space_needs_the_names_of_modalities(tmp_path: Path) -> None:
    config = from_dict({"data": {"modalities": "auto"}})
    read("model.modality_dropout.audio: {float: [0, 0.5]}", tmp_path, config)
    with pytest.raises(
        ConfigError, match=r"unknown key 'graph.intra.eeg'.*; a space knows the modalities that data\.mod"
    ):
        read("graph.intra.eeg: {choice: [complete, window]}", tmp_path, config)


def test_settings_of_a_modality_are_searched(tmp_path: Path) -> None:
    config = from_dict(EEG)
    with collected() as notes:
        space = read(
            """
            model.modality_dropout.eeg: {float: [0, 0.5]}
            model.encoders.eeg: {choice: [[[3, 1]], [[5, 2]]]}
            graph.intra.eeg: {choice: [complete, window]}
            graph.inter.eeg_to_text: {choice: [complete, aligned]}
            """,
            tmp_path,
            config,
        )
    assert not notes
    stored = space.own(config)
    assert apply_values(config, space.values(stored)) == config
    trial = {"model.modality_dropout.eeg": 0.5, "graph.intra.eeg": "window", "graph.inter.eeg_to_text": "aligned"}
    stored = {"model.encoders.eeg": as_stored([[5, 2]])} | trial
    found = apply_values(config, space.values(stored))
    assert (found.model.convs("eeg"), found.model.modality_dropout.of("eeg")) == (((5, 2),), 0.5)
    assert (found.graph.intra.of("eeg"), found.graph.intra.of("text")) == ("window", "complete")
    assert found.model.modality_dropout.of("text") == config.model.modality_dropout.of("text")


def test_layers_are_searched_for_all_streams_or_for_each(tmp_path: Path) -> None:
    config = from_dict({"model": {"layer": "sage"}})
    space = read("model.layer: {choice: [sage, 'gatv2(heads=4)']}", tmp_path, config)
    assert apply_values(config, space.values(space.own(config))) == config
    assert apply_values(config, {"model.layer": "gatv2(heads=4)"}).model.layer.plain == "gatv2(heads=4)"
    space = read(
        """
        model.layer.intra: {choice: [sage, gps]}
        model.layer.inter: {choice: [sage, "rgcn(bases=4)"]}
        """,
        tmp_path,
        config,
    )
    assert apply_values(config, space.values(space.own(config))) == config
    layers = apply_values(config, {"model.layer.inter": "rgcn(bases=4)"}).model.layer
    assert (layers.of("intra"), layers.of("inter")) == ("sage", "rgcn(bases=4)")
    with pytest.raises(ConfigError, match=r"unknown key 'model.layer.intr' \(did you mean 'model.layer.intra'"):
        read("model.layer.intr: {choice: [sage, gps]}", tmp_path, config)
    with pytest.raises(ConfigError, match=r"'model.layer.intra' must be one of .*did you mean 'sage'"):
        read("model.layer.intra: {choice: [gps, sago]}", tmp_path, config)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="does not exist; give a file, or one that comes with gmsa: context, default, "
    ):
        read_space(tmp_path / "none.yaml", Config())


def test_the_config_is_left_as_it_was() -> None:
    config = from_dict({"graph": {"intra": "window"}})
    apply_values(config, {"graph.intra": "complete", "model.modality_dropout.text": 0.0})
    assert config == from_dict({"graph": {"intra": "window"}})
