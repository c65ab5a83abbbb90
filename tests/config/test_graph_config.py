"""Settings of graph construction: names, relations and parameters, and every mistake by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmsa.config import MODALITIES, Config, from_dict, load_config, to_dict
from gmsa.config.fields import ByModality
from gmsa.config.groups.graph import WHOLE, GraphConfig
from gmsa.config.trained import flat, other_settings
from gmsa.data.notes import collected
from gmsa.errors import ConfigError
from gmsa.graph.context import edge_kinds
from gmsa.graph.schema import builder_of, schema
from gmsa.models import Context, Model, check
from gmsa.registry import EDGE_BUILDERS, MODELS
from gmsa.runs.prepare import prepare

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
    for relation, built in builders(config).items():
        assert built == (name, parameters | ({"relation": relation} if name == "mtag" else {}))
    assert config.builders == {name}
    assert config.typed == (name in ("temporal", "mtag"))
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


def test_the_former_scope_video_reads_as_dialogue(tmp_path: Path) -> None:
    assert graph({"scope": "video"}) == graph({"scope": "dialogue"})
    path = tmp_path / "a.yaml"
    path.write_text("graph: {scope: video}")
    assert load_config(path, environ={}).graph.scope == "dialogue"
    assert load_config(path, ["graph.scope=utterance"], environ={}).graph.scope == "utterance"
    assert load_config(path, ["graph.scope=video"], environ={}).graph.scope == "dialogue"
    then = flat({"graph": {"scope": "video", "context": 1}})
    assert other_settings(then, flat(to_dict(from_dict({"graph": {"scope": "dialogue", "context": 1}})))) == []
    assert other_settings(then, {"graph.scope": "hierarchical"}) == ["graph.scope was 'dialogue', is 'hierarchical'"]


def test_the_two_levels_of_hierarchical_graphs() -> None:
    config = graph({"scope": "hierarchical", "intra": {"text": "temporal"}, "inter": "aligned", "past": 1, "future": 0})
    inside, outside = config.inside, config.outside
    assert (inside.scope, inside.intra, inside.inter) == ("utterance", config.intra, config.inter)
    assert (outside.scope, outside.reach, outside.distances) == ("dialogue", (1, 0), 8)
    assert outside.intra == outside.inter == ByModality.for_all("complete")
    assert (config.typed, outside.typed, graph({"scope": "hierarchical"}).typed) == (True, True, False)
    assert graph({"scope": "dialogue"}).outside.distances == 1
    assert graph({"scope": "hierarchical", "distances": 3}).outside.distances == 3
    assert graph({"scope": "hierarchical"}).has_dialogues
    assert not graph({}).has_dialogues
    types = {
        speakers: graph({"speakers": speakers}).speaker_types for speakers in ("none", "same_other", ("a",), ("a", "b"))
    }
    assert types == {"none": 1, "same_other": 2, ("a",): 4, ("a", "b"): 9}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        MIXED,
        {"intra": "temporal"},
        {"scope": "dialogue", "context": "all"},
        {"scope": "dialogue", "context": 0},
        {"scope": "hierarchical", "intra": "knn", "past": "all", "future": 0, "speakers": ["ann", "bob"]},
        {"scope": "dialogue", "past": 1, "between": "knn(neighbors=3)", "distances": 5, "speakers": "same_other"},
        {"scope": "hierarchical", "dialogue_node": True, "weights": "angular", "speakers": "pairs"},
    ],
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
        ({"intra": "windwo"}, "'graph.intra' must be one of complete, window, time_window, dilated, knn, aligned"),
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
        ({"intra": {"text": {"window": {"radius": 2}}}}, "write graph.intra.text=window(radius=2)"),
        ({"radios": 2}, "unknown key 'graph.radios' (did you mean 'radius'?)"),
        # scopes
        ({"scope": "dialog"}, "'graph.scope' must be one of utterance, dialogue, hierarchical (got 'dialog')"),
        ({"scope": "dialogue", "intra": "window"}, "'graph.intra' joins tokens, which 'graph.scope: dialogue' does"),
        ({"scope": "dialogue", "inter": {"text_to_audio": "aligned"}}, "'graph.inter' joins tokens"),
        ({"scope": "dialogue", "inter": "aligned"}, "set 'graph.scope' to utterance or hierarchical"),
        ({"scope": "dialogue", "context": "some"}, "'graph.context' must be a whole number or 'all' (got 'some')"),
        ({"scope": "hierarchical", "intra": "windw"}, "'graph.intra' must be one of"),
        # dialogues
        ({"past": "some"}, "'graph.past' must be a whole number or 'all' (got 'some')"),
        ({"past": -1}, "'graph.past' must be at least 0 (got -1)"),
        ({"past": 10**6}, "'graph.past' must be at most 100000 (got 1000000)"),
        ({"future": "none"}, "'graph.future' must be a whole number or 'all' (got 'none')"),
        ({"future": 1.5}, "'graph.future' must be a whole number or 'all' (got 1.5)"),
        ({"future": -2}, "'graph.future' must be at least 0 (got -2)"),
        ({"future": True}, "'graph.future' must be a whole number or 'all' (got True)"),
        ({"between": "windows"}, "'graph.between' must be one of window, speaker, knn, learned (got 'windows')"),
        ({"between": "windows"}, "(did you mean 'window'?)"),
        ({"between": "knn(neighbours=3)"}, "'graph.between': 'knn' has no parameter 'neighbours' (it has: neighbors)"),
        ({"between": "knn(neighbors=few)"}, "'graph.between: neighbors' must be a whole number (got 'few')"),
        ({"between": "knn(neighbors)"}, "'graph.between': 'neighbors' needs a value, as knn(neighbors=...)"),
        ({"between": "knn(neighbors=3"}, "'graph.between': expected a name, or name(key=value, ...)"),
        ({"between": "speaker(neighbors=3)"}, "'graph.between': 'speaker' has no parameter 'neighbors'"),
        ({"between": "window(index=3)"}, "'graph.between': 'window' has no parameter 'index' (it has: none)"),
        ({"between": 3}, "'graph.between' must be text (got 3)"),
        ({"distances": 0}, "'graph.distances' must be at least 1 (got 0)"),
        ({"distances": 33}, "'graph.distances' must be at most 32 (got 33)"),
        ({"distances": "many"}, "'graph.distances' must be a whole number or 'auto' (got 'many')"),
        (
            {"speakers": "other"},
            "'graph.speakers' must be 'none' or 'same_other' or 'pairs' or a list of texts (got 'other')",
        ),
        ({"speakers": [1]}, "'graph.speakers' must be 'none' or 'same_other' or 'pairs' or a list of texts (got [1])"),
        (
            {"speakers": []},
            "'graph.speakers' must list 1 to 8 names, each once (got 0); with more, set it to same_other",
        ),
        ({"speakers": ["a", "b", "a"]}, "'graph.speakers' must list 1 to 8 names, each once (got 3)"),
        ({"speakers": list("abcdefghi")}, "'graph.speakers' must list 1 to 8 names, each once (got 9)"),
        ({"dialogue_node": "maybe"}, "'graph.dialogue_node' must be true or false (got 'maybe')"),
        ({"weights": "cosine"}, "'graph.weights' must be one of none, angular (got 'cosine')"),
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


@pytest.mark.parametrize(
    "key", ["radius", "stride", "hops", "neighbors", "context", "past", "future", "distances", "edge_dropout"]
)
def test_least_values_are_allowed(key: str) -> None:
    least = 1 if key in ("stride", "distances") else 0
    assert getattr(graph({key: least}), key) == least


def test_a_plug_in_without_context_has_no_hierarchical_graphs() -> None:
    @MODELS.register("without_context")
    class Own(Model):
        def __init__(self, dims: Any, *, channels: int = 8) -> None:
            super().__init__()

    @MODELS.register("with_context")
    class Other(Own):
        def __init__(self, dims: Any, *, channels: int = 8, context: Any = None) -> None:
            super().__init__(dims)

    for scope in ("utterance", "dialogue"):
        check(from_dict({"model": {"name": "without_context"}, "graph": {"scope": scope}}))
    with pytest.raises(ConfigError) as caught:
        check(from_dict({"model": {"name": "without_context"}, "graph": {"scope": "hierarchical"}}))
    assert str(caught.value) == (
        "'model.name: without_context' takes no 'context', so that it has no graphs of dialogues over those of "
        "utterances; choose another model, or another 'graph.scope'"
    )
    settings = {"model": {"name": "with_context"}, "graph": {"scope": "hierarchical"}}
    with pytest.raises(ConfigError, match=r"'loss.alone_weight' needs .* 'model.name: with_context' does not say; set"):
        check(from_dict(settings))
    check(from_dict(settings | {"loss": {"alone_weight": 0.0}}))
    Other.says_alone = True
    check(from_dict(settings))
    Other.says_alone = False
    check(from_dict({"model": {"name": "with_context"}, "graph": {"scope": "dialogue"}}))


def test_one_modality_cannot_be_masked_in_scope_dialogue() -> None:
    settings = {"pretrain": {"epochs": 1}, "data": {"modalities": ["text"]}}
    for scope in ("utterance", "hierarchical"):
        from_dict(settings | {"graph": {"scope": scope}})
    with pytest.raises(ConfigError, match=r"'pretrain.epochs' masks whole modalities in graphs of dialogues, of"):
        from_dict(settings | {"graph": {"scope": "dialogue"}})


# --- the pairs of speakers that a training split has ------------------------------------------------------------------


def speaking(content: dict[str, Any], count: int) -> None:
    """Gives the utterances of a file speakers: ``count`` of them in the training split, others elsewhere too."""
    for split, columns in content.items():
        n = len(columns["id"])
        names = [f"s{count - i % count}" if count else "" for i in range(n)]
        names[0] = ""  # not known
        columns["speaker"] = names if split == "train" else ["stranger", *names[1:]]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_pairs_are_those_of_the_training_split(write_mmsa: Any, count: int) -> None:
    path = write_mmsa(change=lambda content: speaking(content, count))
    settings = {"scope": "dialogue", "speakers": "pairs"}
    config = from_dict({"data": {"path": str(path), "name": "tiny"}, "graph": settings})
    found = prepare(config).config
    assert found.graph.speakers == tuple(f"s{i}" for i in range(1, count + 1))
    assert found.graph.speaker_types == (count + 1) ** 2
    assert from_dict(to_dict(found)) == found
    types = found.graph.outside
    assert Context.of(found).kinds == 3 * (count + 1) ** 2 == edge_kinds(types)


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_or_too_many_speakers_have_no_pairs(write_mmsa: Any, count: int) -> None:
    path = write_mmsa(change=lambda content: speaking(content, count))
    settings = {"scope": "hierarchical", "speakers": "pairs"}
    with pytest.raises(ConfigError) as caught:
        prepare(from_dict({"data": {"path": str(path), "name": "tiny"}, "graph": settings}))
    assert str(caught.value) == (
        "'graph.speakers: pairs' has an edge type for each pair of 1 to 8 speakers, the training split has "
        f"{count}; "
        + ("set it to same_other, or list the most frequent" if count else "name its speakers by 'data.speaker_from', ")
        + ("" if count else "or set it to none")
    )
    same = from_dict({"data": {"path": str(path), "name": "tiny"}, "graph": settings | {"speakers": "same_other"}})
    with collected() as notes:
        assert prepare(same).config.graph.speakers == "same_other"
    assert any("no utterance of the training split has a speaker" in note for note in notes) == (not count)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"speakers": ["s1", "Ann"]}, "lists Ann, who does not speak in the training split; its speakers are s1, s2"),
        ({"speakers": ["s1", "s2"]}, ""),
        ({"between": "speaker"}, ""),
    ],
)
def test_a_speaker_that_training_lacks_is_said(write_mmsa: Any, settings: dict[str, Any], said: str) -> None:
    path = write_mmsa(change=lambda content: speaking(content, 2))
    data = {"path": str(path), "name": "tiny"}
    with collected() as notes:
        prepare(from_dict({"data": data, "graph": {"scope": "dialogue"} | settings}))
    assert [note.partition("'graph.speakers' ")[2] for note in notes if "speak" in note] == ([said] if said else [])


def test_dialogues_of_one_utterance_each_are_said(write_mmsa: Any) -> None:
    def apart(content: dict[str, Any]) -> None:
        for split, columns in content.items():
            columns["id"] = [f"{split}{i}$_$1" for i in range(len(columns["id"]))]

    data = {"path": str(write_mmsa(change=apart)), "name": "tiny"}
    for scope in ("utterance", "hierarchical"):
        with collected() as notes:
            prepare(from_dict({"data": data, "graph": {"scope": scope}}))
        assert any("no dialogue of the training split has two" in note for note in notes) == (scope != "utterance")


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
