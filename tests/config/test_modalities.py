"""Settings by modality, and their former names."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from gmsa.config import ByModality, Config, from_dict, load_config, to_dict
from gmsa.config.groups.missing import Missing, joined, parse_missing, subsets
from gmsa.errors import ConfigError

EEG = {"data": {"modalities": ["text", "eeg"]}}


def test_what_a_setting_names_is_merged_over_its_default_and_others_stand_for_the_rest() -> None:
    model = from_dict({"model": {"modality_dropout": {"vision": 0.1}}}).model
    assert [model.modality_dropout.of(m) for m in ("text", "audio", "vision", "eeg")] == [0.2, 0.2, 0.1, 0.2]
    model = from_dict(EEG | {"model": {"modality_dropout": {"eeg": 0.4, "others": 0.0}}}).model
    assert [model.modality_dropout.of(m) for m in ("text", "audio", "vision", "eeg")] == [0.0, 0.0, 0.0, 0.4]
    model = from_dict({"model": {"modality_dropout": 0.3}}).model
    assert model.modality_dropout == ByModality.for_all(0.3)
    model = from_dict(EEG | {"model": {"encoders": {"eeg": [[5, 2], [3, 3]]}}}).model
    assert (model.convs("audio"), model.convs("eeg"), model.convs("pose")) == (
        ((4, 2), (4, 4)),
        ((5, 2), (3, 3)),
        ((3, 1),),
    )
    assert (model.stride("audio"), model.stride("eeg")) == (8, 6)


def test_dotted_keys_change_one_modality_and_one_value_all(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: {modality_dropout: 0.3, encoders: {text: [[5, 1]]}}")
    model = load_config(file, ["model.modality_dropout.text=0.1", "model.encoders.audio=[[2, 2]]"], environ={}).model
    assert [model.modality_dropout.of(m) for m in ("text", "audio")] == [0.1, 0.3]
    assert [model.convs(m) for m in ("text", "audio", "vision")] == [((5, 1),), ((2, 2),), ((3, 1),)]
    assert load_config(file, ["model.encoders=[[1, 1]]"], environ={}).model.encoders == ByModality.for_all(((1, 1),))


def test_a_config_over_its_base_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {modality_dropout: {text: 0.1}}\ngraph: {intra: window}")
    for own, dropout, intra in (
        ("model: {modality_dropout: {audio: 0.4}}", [0.1, 0.4], ["window", "window"]),
        ("model: {modality_dropout: 0}\ngraph: {intra: {text: knn}}", [0.0, 0.0], ["knn", "window"]),
        ("graph: {intra: {text: knn, others: complete}}", [0.1, 0.2], ["knn", "complete"]),
    ):
        (tmp_path / "own.yaml").write_text(f"base: base.yaml\n{own}")
        config = load_config(tmp_path / "own.yaml", environ={})
        assert [config.model.modality_dropout.of(m) for m in ("text", "audio")] == dropout
        assert [config.graph.intra.of(m) for m in ("text", "audio")] == intra


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ({"data": {"labels": "sims"}}, {"target": {"preset": "sims"}}),
        ({"model": {"audio_convs": [[3, 1]]}}, {"model": {"encoders": {"audio": [[3, 1]]}}}),
        (
            {"model": {"text_convs": [[2, 1]], "encoders": {"vision": [[7, 1]]}}},
            {"model": {"encoders": {"vision": [[7, 1]], "text": [[2, 1]]}}},
        ),
        ({"data": {"labels": "sims"}, "target": {"preset": "mosei"}}, {"target": {"preset": "mosei"}}),
    ],
)
def test_former_names_are_still_read(former: dict[str, Any], present: dict[str, Any], tmp_path: Path) -> None:
    assert from_dict(former) == from_dict(present)


def test_former_names_in_overrides_and_base_files(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("data: {labels: sims}\nmodel: {vision_convs: [[5, 1]]}")
    (tmp_path / "own.yaml").write_text("base: base.yaml\ntarget: {preset: mosi}")
    config = load_config(tmp_path / "own.yaml", environ={})
    assert (config.target.preset, config.model.convs("vision")) == ("mosi", ((5, 1),))
    config = load_config(tmp_path / "base.yaml", ["data.labels=mosei", "model.text_convs=[[2, 1]]"], environ={})
    assert (config.target.preset, config.model.convs("text")) == ("mosei", ((2, 1),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"modalities": []}}, "'data.modalities' must not be empty"),
        ({"data": {"modalities": ["a b"]}}, "begins with a letter"),
        ({"data": {"modalities": ["../x"]}}, "begins with a letter"),
        ({"data": {"modalities": ["text", "Nul"]}}, "Windows keeps the name 'Nul' for itself"),
        ({"data": {"modalities": ["others"]}}, "begins with a letter"),
        ({"data": {"modalities": ["a_to_b"]}}, "begins with a letter"),
        ({"data": {"modalities": [f"m{i}" for i in range(9)]}}, "lists 9; at most 8 are used"),
        ({"data": {"modalities": ["text", "text"]}}, "lists a value twice"),
        ({"model": {"encoders": {"eeg": [[3, 1]]}}}, "unknown key 'model.encoders.eeg': 'data.modalities' has text"),
        ({"model": {"modality_dropout": {"text": 1.5}}}, "'model.modality_dropout.text' must be less than 1"),
        ({"model": {"modality_dropout": "much"}}, "'model.modality_dropout' must be a number"),
        ({"model": {"encoders": {3: [[3, 1]]}}}, "needs names of modalities as keys (got 3)"),
        (EEG | {"graph": {"inter": {"eeg_to_face": "window"}}}, "unknown key 'graph.inter.eeg_to_face'"),
        (EEG | {"data": {"modalities": ["text", "eeg"], "missing": "eta:0.6"}}, "from 0 to 0.5 with 2 modalities"),
        ({"data": {"missing": "fixed:text+egg"}}, "fixed keeps 'egg', which is none of text, audio, vision"),
        ({"data": {"missing": "fixed:tav"}}, "fixed:tav keeps every modality"),
        ({"data": {"missing": "fixed:"}}, "fixed takes what is left"),
    ],
)
def test_mistakes_name_key_and_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(settings)
    assert message in str(caught.value)


def test_settings_by_modality_cannot_be_changed_and_go_round_trip() -> None:
    config = from_dict(EEG | {"graph": {"intra": {"eeg": "window", "others": "knn"}}})
    assert from_dict(to_dict(config)) == config
    assert hash(config.graph) == hash(from_dict(to_dict(config)).graph)
    with pytest.raises(TypeError):
        config.graph.intra["eeg"] = "knn"
    assert to_dict(Config())["graph"]["intra"] == "complete"
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert ByModality({"a": 1, "others": 1}) == ByModality.for_all(1)


def test_subsets_by_letters_and_by_names() -> None:
    three = ("text", "audio", "vision")
    assert [joined(left) for left in subsets(three)] == ["t", "a", "v", "ta", "tv", "av"]
    assert len(subsets(("a", "b", "c", "d"))) == 14
    assert [len(left) for left in subsets(tuple("abcde"))] == [1] * 5 + [4] * 5
    assert parse_missing("fixed:at", "key") == Missing("fixed", left=("text", "audio"))
    assert str(parse_missing("fixed:at", "key")) == "fixed:ta"
    assert str(parse_missing("fixed:eeg+text", "key")) == "fixed:text+eeg"
    assert parse_missing("fixed:eeg", "key").left == ("eeg",)


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(?P<video>(a+)+)$", r"((?P<video>\w*)_)*x", r"(?:(?P<video>\d+)|x)+", r"(a|b+)*"),
        *(r"(ab|a|b)*x", r"(a{1,60})+", r"(a{1,2})*x", r"(a+){30}x", r"(a?){30}a{30}", "a?" * 30 + "a" * 30),
        *(r"\w*" * 4 + "x", r"((a{0,20}){0,20}){0,20}x"),
    ],
)
def test_a_pattern_that_could_take_forever_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="repeats what repeats"):
        from_dict({"data": {"video_from": pattern}})


@pytest.mark.parametrize(
    "pattern",
    [
        "auto",
        "video",
        r"dia(?P<video>\d+)_utt(?P<clip>\d+)",
        r"(\w+)_(\d{1,3})",
        "(",
        "a{2,3}+",
        r"^(\w+dia\d+)_utt(\d+)$",
    ],
)
def test_other_patterns_and_keys_are_taken(pattern: str) -> None:
    assert from_dict({"data": {"video_from": pattern}}).data.video_from == pattern
