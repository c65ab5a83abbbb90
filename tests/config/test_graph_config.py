"""Settings of graph construction: names, relations and parameters, and every mistake by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmsa.config import MODALITIES, Config, from_dict, load_config, to_dict
from gmsa.config.fields import ByModality
from gmsa.config.graph import WHOLE, GraphConfig
from gmsa.errors import ConfigError
from gmsa.graph.schema import builder_of, schema
from gmsa.registry import EDGE_BUILDERS

TOKEN_RELATIONS = schema(MODALITIES).token_relations

MIXED: dict[str, Any] = {
    "intra": {"text": "window(radius=3)", "audio": "dilated(stride=2, hops=3)"},
    "inter": {"text_to_audio": "aligned", "vision_to_text": " knn ( neighbors = 7 ) "},
    "radius": 5,
    "edge_dropout": 0.25,
}


def graph(settings: dict[str, Any]) -> GraphConfig:
    return from_dict({"graph": settings}).graph


def builders(config: GraphConfig) -> dict[tuple[str, str, str], tuple[str, dict[str, int]]]:
    return {relation: builder_of(relation, config) for relation in TOKEN_RELATIONS}


@pytest.mark.parametrize("name", sorted(EDGE_BUILDERS))
def test_one_name_stands_for_all_relations(name: str) -> None:
    config = graph({"intra": name, "inter": name})
    assert config == GraphConfig(intra=name, inter=name)
    parameters = {p: getattr(GraphConfig(), p) for p in EDGE_BUILDERS.parameters(name)}
    assert all(built == (name, parameters) for built in builders(config).values())
    assert config.builders == {name}
    assert config.typed == (name == "temporal")
    one = graph({"intra": name})
    assert {r for r, built in builders(one).items() if built[0] != name} == (
        {r for r in TOKEN_RELATIONS if r[1] == "inter"} if name != "complete" else set()
    )


def test_every_relation_has_its_own() -> None:
    found = builders(graph(MIXED))
    assert found["text", "intra", "text"] == ("window", {"radius": 3})
    assert found["audio", "intra", "audio"] == ("dilated", {"stride": 2, "hops": 3})
    assert found["vision", "intra", "vision"] == ("complete", {})
    assert found["text", "inter", "audio"] == ("aligned", {})
    assert found["vision", "inter", "text"] == ("knn", {"neighbors": 7})
    left = [("audio", "inter", "text"), ("text", "inter", "vision"), ("audio", "inter", "vision")]
    assert all(found[r] == ("complete", {}) for r in [*left, ("vision", "inter", "audio")])
    assert graph(MIXED).builders == {"window", "dilated", "complete", "aligned", "knn"}


def test_relations_that_are_not_named_take_the_one_for_others() -> None:
    config = graph({"intra": {"text": "knn", "others": "window"}})
    assert config.intra == ByModality({"text": "knn", "others": "window"})
    assert builders(config)["vision", "intra", "vision"][0] == "window"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("window", ("window", {"radius": 9})),
        ("window()", ("window", {"radius": 9})),
        ("window(radius=0)", ("window", {"radius": 0})),
        ("temporal(radius=4)", ("temporal", {"radius": 4})),
        ("dilated(hops=3)", ("dilated", {"stride": 8, "hops": 3})),
        ("dilated( hops = 3 ,stride=1 )", ("dilated", {"stride": 1, "hops": 3})),
        ("dilated", ("dilated", {"stride": 8, "hops": 7})),
        ("knn(neighbors=0)", ("knn", {"neighbors": 0})),
        (" complete ", ("complete", {})),
    ],
)
def test_parameters_of_its_own_come_before_the_fields(spec: str, expected: tuple[str, dict[str, int]]) -> None:
    config = graph({"intra": spec, "radius": 9, "stride": 8, "hops": 7, "neighbors": 6})
    assert builders(config)["audio", "intra", "audio"] == expected


@pytest.mark.parametrize("inter", ["window", "temporal"])
def test_one_temporal_relation_types_the_edges(inter: str) -> None:
    assert graph({"intra": "knn", "inter": {"text_to_audio": inter}}).typed == (inter == "temporal")
    assert graph({"scope": "dialogue"}).typed


@pytest.mark.parametrize(
    ("settings", "reach"),
    [
        ({}, (2, 2)),
        ({"context": 3}, (3, 3)),
        ({"context": 3, "future": 0}, (3, 0)),
        ({"past": 1, "future": 5}, (1, 5)),
        ({"context": 0, "past": "all"}, (WHOLE, 0)),
        ({"context": "all", "future": 1}, (WHOLE, 1)),
        ({"context": 4, "past": None}, (4, 4)),
    ],
)
def test_past_and_future_go_before_context(settings: dict[str, Any], reach: tuple[int, int]) -> None:
    assert graph(settings).reach == reach


@pytest.mark.parametrize(
    "settings",
    [{}, MIXED, {"intra": "temporal"}, {"scope": "dialogue", "context": "all"}, {"scope": "dialogue", "context": 0}],
)
def test_round_trip(settings: dict[str, Any]) -> None:
    config = from_dict({"graph": settings})
    assert from_dict(to_dict(config)) == config
    assert hash(config.graph) == hash(from_dict(to_dict(config)).graph)


def test_yaml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "graph:\n"
        "  intra:\n    text: window(radius=3)\n    audio: dilated(stride=2, hops=3)\n"
        "  inter: aligned\n"
        "  radius: 4\n"
    )
    config = load_config(path, environ={}).graph
    assert config == GraphConfig(
        intra={"text": "window(radius=3)", "audio": "dilated(stride=2, hops=3)"}, inter="aligned", radius=4
    )
    changed = load_config(
        path,
        ["graph.intra.audio=window(radius=8)", "graph.inter={text_to_audio: aligned}", "graph.context=all"],
        environ={},
    ).graph
    assert changed == GraphConfig(
        intra={"text": "window(radius=3)", "audio": "window(radius=8)"},
        inter={"text_to_audio": "aligned"},
        radius=4,
        context="all",
    )
    assert builders(changed)["audio", "intra", "audio"] == ("window", {"radius": 8})
    assert builders(load_config(path, ["graph.inter=dilated(stride=2, hops=3)"], environ={}).graph)[
        "text", "inter", "vision"
    ] == ("dilated", {"stride": 2, "hops": 3})
    quoted = ["graph.intra={text: 'dilated(stride=2, hops=3)', audio: knn}"]
    assert builders(load_config(path, quoted, environ={}).graph)["text", "intra", "text"][1] == {"stride": 2, "hops": 3}


def test_an_empty_file_has_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("graph:\n  intra:\n")
    assert load_config(path, environ={}) == Config()
    assert load_config(path, ["graph.intra.text=knn"], environ={}).graph.intra == ByModality(
        {"text": "knn", "others": "complete"}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # builders
        ({"intra": "windwo"}, "'graph.intra' must be one of complete, window, dilated, knn, aligned, temporal"),
        ({"intra": "windwo"}, "(got 'windwo') (did you mean 'window'?)"),
        ({"inter": {"audio_to_text": "align"}}, "'graph.inter.audio_to_text' must be one of"),
        ({"inter": {"audio_to_text": "align"}}, "(got 'align') (did you mean 'aligned'?)"),
        ({"intra": {"vision": "windw(radius=2)"}}, "'graph.intra.vision' must be one of"),
        ({"intra": {"vision": "windw(radius=2)"}}, "(did you mean 'window'?)"),
        ({"intra": {"vision": "window(radius=2"}}, "'graph.intra.vision': expected a name, or name(key=value, ...)"),
        ({"intra": {"vision": "window)radius=2("}}, "'graph.intra.vision' must be one of"),
        ({"intra": {"vision": "window radius=2"}}, "'graph.intra.vision' must be one of"),
        ({"intra": ""}, "'graph.intra' must be one of"),
        ({"intra": 3}, "'graph.intra' must be text (got 3)"),
        ({"inter": ["window"]}, "'graph.inter' must be text (got ['window'])"),
        ({"intra": {"text": None}}, "'graph.intra.text' must be text (got None)"),
        # parameters
        ({"intra": {"audio": "window(radios=2)"}}, "'graph.intra.audio': 'window' has no parameter 'radios'"),
        ({"intra": {"audio": "window(radios=2)"}}, "(it has: radius)"),
        ({"intra": {"audio": "window(2)"}}, "'graph.intra.audio': 'window' has no parameter '2'"),
        ({"intra": "dilated(radius=2)"}, "'dilated' has no parameter 'radius' (it has: stride, hops)"),
        ({"inter": {"text_to_audio": "aligned(radius=2)"}}, "'aligned' has no parameter 'radius' (it has: none)"),
        ({"intra": "knn(neighbors=4, )"}, "'graph.intra': 'knn' has no parameter ''"),
        ({"intra": "window(context=2)"}, "'window' has no parameter 'context'"),
        ({"inter": "window(radius=-1)"}, "'graph.inter': 'radius' must be a whole number from 0 to 100000"),
        ({"inter": "window(radius=-1)"}, "(got '-1')"),
        ({"intra": "window(radius=1.5)"}, "'graph.intra': 'radius' must be a whole number from 0 to 100000"),
        ({"intra": "window(radius=wide)"}, "(got 'wide')"),
        ({"intra": "window(radius=)"}, "'radius' must be a whole number from 0 to 100000 (got '')"),
        ({"intra": "window(radius)"}, "'radius' must be a whole number from 0 to 100000 (got '')"),
        ({"intra": "dilated(stride=0)"}, "'graph.intra': 'stride' must be a whole number from 1 to 100000 (got '0')"),
        ({"intra": "dilated(stride=2, hops=x)"}, "'hops' must be a whole number from 0 to 100000 (got 'x')"),
        # relations and keys
        ({"intra": {"txt": "window"}}, "unknown key 'graph.intra.txt' (did you mean 'text'?)"),
        ({"inter": {"text_to_text": "window"}}, "unknown key 'graph.inter.text_to_text' (did you mean 'text_to_"),
        ({"inter": {"text": "window"}}, "unknown key 'graph.inter.text'"),
        ({"intra": {"text": {"window": {"radius": 2}}}}, "'graph.intra.text' must be text"),
        ({"radios": 2}, "unknown key 'graph.radios' (did you mean 'radius'?)"),
        # scopes
        ({"scope": "dialog"}, "'graph.scope' must be one of utterance, dialogue, hierarchical (got 'dialog')"),
        ({"scope": "dialogue", "intra": "window"}, "'graph.intra' joins tokens, which 'graph.scope: dialogue' does"),
        ({"scope": "dialogue", "inter": {"text_to_audio": "aligned"}}, "'graph.inter' joins tokens"),
        ({"scope": "dialogue", "inter": "aligned"}, "set 'graph.scope' to utterance or hierarchical"),
        ({"scope": "dialogue", "context": "some"}, "'graph.context' must be a whole number or 'all' (got 'some')"),
        # ranges
        ({"radius": -1}, "'graph.radius' must be at least 0 (got -1)"),
        ({"radius": 1.5}, "'graph.radius' must be a whole number (got 1.5)"),
        ({"stride": 0}, "'graph.stride' must be at least 1 (got 0)"),
        ({"hops": -1}, "'graph.hops' must be at least 0 (got -1)"),
        ({"neighbors": -1}, "'graph.neighbors' must be at least 0 (got -1)"),
        ({"intra": "window(radius=1, radius=5)"}, "'graph.intra': 'radius' is given twice"),
        ({"radius": 10**18}, "'graph.radius' must be at most 100000"),
        ({"context": -1}, "'graph.context' must be at least 0 (got -1)"),
        ({"context": True}, "'graph.context' must be a whole number or 'all' (got True)"),
        ({"edge_dropout": 1}, "'graph.edge_dropout' must be less than 1 (got 1.0)"),
        ({"edge_dropout": -0.1}, "'graph.edge_dropout' must be at least 0 (got -0.1)"),
    ],
)
def test_mistakes_name_key_and_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        graph(settings)
    assert message in str(caught.value)
    assert "'graph." in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["radius", "stride", "hops", "neighbors", "context", "edge_dropout"])
def test_least_values_are_allowed(key: str) -> None:
    least = 1 if key == "stride" else 0
    assert getattr(graph({key: least}), key) == least


def test_a_wrong_override_names_its_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("")
    for override, message in [
        ("graph.intra.audio=windw", "'graph.intra.audio' must be one of"),
        ("graph.intra.audios=window", "unknown key 'graph.intra.audios' (did you mean 'audio'?)"),
        ("graph.inter={text_to_audio: aligned(x=1)}", "'graph.inter.text_to_audio': 'aligned' has no parameter 'x'"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(path, [override], environ={})
        assert message in str(caught.value)


def test_one_name_for_all_gives_way_to_a_relation(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("graph: {intra: window}")
    config = load_config(file, ["graph.intra.audio=window(radius=8)"], environ={})
    assert to_dict(config)["graph"]["intra"] == {"audio": "window(radius=8)", "others": "window"}
