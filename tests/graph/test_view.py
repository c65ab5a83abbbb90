"""The graph of a dialogue as NetworkX: who speaks, what is missing, and when an edge's source was."""

from __future__ import annotations

import pytest
from helpers.graphs import clip

from gmsa.config import from_dict
from gmsa.errors import ConfigError
from gmsa.graph import DIALOGUE, build_dialogue_graph, build_graph
from gmsa.graph.view import find_relation, to_networkx

DIMS = {"text": 3, "audio": 2}


def test_networkx_keeps_what_is_known_of_utterances_and_edges() -> None:
    speakers = ("Ann", "Bo", "Ann", "")
    clips = [clip(f"a$_${i}", DIMS, (2, i % 2), speaker=name) for i, name in enumerate(speakers)]
    config = from_dict({"graph": {"scope": "dialogue", "past": 2, "future": 1, "dialogue_node": True}}).graph
    graph = to_networkx(build_dialogue_graph(clips, config))
    assert graph.nodes["audio", 2] == {"type": "audio", "utterance": "a$_$2", "speaker": "Ann", "present": False}
    assert graph.nodes["text", 3] == {"type": "text", "utterance": "a$_$3", "speaker": "", "present": True}
    assert graph.nodes["cls", 1] == {"type": "cls", "utterance": "a$_$1", "speaker": "Bo"}
    assert graph.nodes[DIALOGUE, 0] == {"type": DIALOGUE}  # of no utterance
    for (source, i), (target, j), found in graph.edges(data=True):
        if DIALOGUE in (source, target):
            assert found.keys() == {"stream"}
            continue
        assert found["time"] == ("past" if i < j else "future" if i > j else "present")
        assert found["distance"] == i - j
        assert found["same_speaker"] is (speakers[i] == speakers[j])
        assert found["stream"] in ("intra", "inter")
    assert {i - j for (s, i), (t, j) in graph.edges() if s == t == "text"} == {-2, -1, 0, 1}


def test_a_node_per_utterance_of_a_causal_dialogue_is_of_it() -> None:
    clips = [clip(f"a$_${i}", DIMS, (2, 1)) for i in range(3)]
    config = from_dict({"graph": {"scope": "hierarchical", "future": 0, "dialogue_node": True}}).graph
    graph = to_networkx(build_dialogue_graph(clips, config))
    assert [graph.nodes[DIALOGUE, i]["utterance"] for i in range(3)] == ["a$_$0", "a$_$1", "a$_$2"]
    assert {found["time"] for s, t, found in graph.edges(data=True) if t[0] == DIALOGUE} == {"past", "present"}


def test_tokens_have_a_type_alone() -> None:
    graph = to_networkx(build_graph(clip("a$_$1", DIMS, (2, 1)), from_dict({}).graph))
    assert all(found.keys() == {"type"} for _, found in graph.nodes(data=True))
    assert all(found.keys() == {"stream"} for *_, found in graph.edges(data=True))


def test_a_relation_of_the_dialogues_node_is_found_where_there_is_one() -> None:
    assert find_relation("dialogue-intra-text", dialogue_node=True) == (DIALOGUE, "intra", "text")
    with pytest.raises(ConfigError, match="no relation 'dialogue-intra-text'"):
        find_relation("dialogue-intra-text")
