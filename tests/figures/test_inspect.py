"""``gmsa inspect``: prints and draws the graph of an utterance or a dialogue of any modalities, and predictions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.graphs import clip
from helpers.tiny_data import tiny_content, tiny_run, write_pickle

import gmsa
from gmsa import inspect
from gmsa.config import DataConfig, TargetConfig
from gmsa.data import Target
from gmsa.data.corpus import Corpus
from gmsa.errors import ConfigError, DataError, RunError
from gmsa.runs import report as results
from gmsa.runs.pictures import graph as pictured

DIMS = {"text": 3, "eeg": 4, "pose": 2}
EMOTION = Target("classes", classes=("joy", "anger"), metrics="classes")
CONFIG = """
data: {modalities: auto}
target: {kind: classes, classes: [joy, anger]}
model: {encoders: {eeg: [[4, 4]]}}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config and a corpus of other modalities, whose labels are classes."""
    utterances = [clip("a$_$1", DIMS, (3, 8, 0), label=1.0, text="one two three"), clip("a$_$2", DIMS, (1, 1, 1))]

    def load(data: DataConfig, target: TargetConfig, texts: None) -> Corpus:
        return Corpus({"train": utterances[:1], "valid": [], "test": utterances[1:]}, DIMS, target=EMOTION)

    monkeypatch.setattr(pictured, "load_corpus", load)
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(CONFIG)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    inspect.main(["--config", "own.yaml", "--out", "graph.svg", *arguments])
    return capsys.readouterr().out


def test_it_prints_the_nodes_edges_and_class(data: None, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "--id", "a$_$1").splitlines()
    assert printed[0] == "a$_$1 (train), label anger"
    assert printed[1:4] == [
        "  text: 3 steps of 3 features, 3 nodes",
        "  eeg: 8 steps of 4 features, 2 nodes",
        "  pose: 0 steps of 2 features, 0 nodes",
    ]
    # To and from cls, which has no val beside it: 3 x 3 + 2 x 2 within, 2 x 3 x 2 across, 2 x 5 with cls.
    assert printed[4:6] == ["  intra: 23 edges", "  inter: 22 edges"]
    assert Path("graph.svg").read_text().startswith("<?xml")
    assert run(capsys, "--id", "a$_$2").startswith("a$_$2 (test), label unknown\n")


def test_a_model_without_readout_nodes_is_shown_without(data: None, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "--id", "a$_$1", "--set", "model.name=sslmm")
    assert re.findall(r"(\d+) edges", printed) == ["13", "12"]


def test_one_relation_is_named_by_the_modalities_of_the_data(data: None, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--id", "a$_$1", "--relation", "eeg-inter-text")
    with pytest.raises(ConfigError, match=r"no relation 'audio-inter-text' .*such as text-intra-text or eeg-inter-te"):
        run(capsys, "--id", "a$_$1", "--relation", "audio-inter-text")


# --- graphs of dialogues ----------------------------------------------------------------------------------------------

TALK = ("Ann", "Bo", "Ann", "Ann")


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A config and a corpus of a dialogue of four utterances and one of a single one."""
    dims = {"text": 3, "eeg": 2}
    clips = [clip(f"a$_${i}", dims, (2, int(i != 1)), speaker=name, label=1.0) for i, name in enumerate(TALK)]
    corpus = Corpus({"train": clips[::-1], "valid": [], "test": [clip("b$_$1", dims, (1, 1))]}, dims, target=EMOTION)
    monkeypatch.setattr(pictured, "load_corpus", lambda *_: corpus)
    monkeypatch.chdir(tmp_path)
    graph = "graph: {scope: hierarchical, past: 2, future: 1, speakers: same_other, dialogue_node: true}\n"
    Path("own.yaml").write_text(CONFIG.replace("model: {encoders: {eeg: [[4, 4]]}}\n", graph))


def test_a_dialogue_is_printed_by_relation_time_and_speaker(talk: None, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "--id", "a").splitlines()
    assert printed == [
        "a (train), dialogue of 4 utterances, 2 speakers",
        "  text: 4 nodes",
        "  eeg: 4 nodes, 1 missing",
        "  text-intra-text: 12 edges (5 past, 4 present, 3 future; 7 same speaker, 5 other)",
        "  eeg-intra-eeg: 12 edges (5 past, 4 present, 3 future; 7 same speaker, 5 other)",
        "  text-inter-eeg: 4 edges (4 present)",
        "  eeg-inter-text: 4 edges (4 present)",
        "  readouts: 28 edges in each stream",
        "  dialogue's node: 24 edges in each stream",
        "  intra: 76 edges",
        "  inter: 60 edges",
        "Wrote graph.svg",
    ]
    assert "other speaker" in Path("graph.svg").read_text()
    assert run(capsys, "--id", "b").startswith("b (test), dialogue of 1 utterance\n")


def test_readout_nodes_of_a_hierarchical_graph_are_a_relation(talk: None, capsys: pytest.CaptureFixture[str]) -> None:
    joined = ("--relation", "cls-intra-cls")
    run(capsys, "--id", "a", *joined)
    assert "Each node of cls is also joined with itself (4 self-loops, not drawn)." in Path("graph.svg").read_text()
    for graph in (("--id", "a", "--set", "graph.scope=dialogue"), ("--id", "a$_$1")):  # they have no such edges
        with pytest.raises(ConfigError, match="no relation 'cls-intra-cls'"):
            run(capsys, *graph, *joined)


def test_modalities_that_are_not_used_are_not_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "text.yaml"
    config.write_text("data: {path: synthetic, modalities: [text]}\ngraph: {scope: hierarchical}\n")
    inspect.main(["--config", str(config), "--id", "test015", "--out", str(tmp_path / "graph.svg")])
    printed = capsys.readouterr().out
    assert "  text: 10 nodes\n" in printed
    assert not {"audio", "vision"} & {*re.findall(r"\w+", printed)}


def test_an_utterance_of_a_hierarchical_graph_is_its_tokens(talk: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--id", "a$_$1").startswith("a$_$1 (train), label anger\n  text: 2 steps of 3 features, 2 nodes")
    in_dialogue = run(capsys, "--id", "a$_$1", "--set", "graph.scope=dialogue", "--relation", "dialogue-intra-text")
    assert in_dialogue.startswith("a (train), dialogue of 4 utterances")  # there are no tokens: its dialogue


@pytest.mark.parametrize(
    ("name", "scope", "message"),
    [
        ("aa", "hierarchical", r"no utterance or dialogue 'aa' \(did you mean 'a'\?\)$"),
        ("nothing", "dialogue", r"no dialogue 'nothing', for example a$"),
        ("a$_$8", "utterance", r"no utterance 'a\$_\$8' \(did you mean 'a\$_\$\d'\?\)$"),
        (
            "a",
            "utterance",
            r"'a' is a dialogue, and .*for example a\$_\$0, or set 'graph.scope' to dialogue or hierarc",
        ),
        ("\x1b[2J" * 99, "hierarchical", r"no utterance or dialogue '\\x1b"),
    ],
)
def test_an_unknown_id_is_refused(
    name: str, scope: str, message: str, talk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=message) as error:
        run(capsys, "--id", name, "--set", f"graph.scope={scope}")
    assert len(str(error.value)) <= 400
    assert not Path("graph.svg").exists()


def test_what_does_not_go_together_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--config", "own.yaml", "--run", "runs/a"], "give one of them"),
        (["--run", "runs/a", "--set", "graph.past=1"], "go with --config"),
        ([], "are required: --config, or --run"),
    ):
        with pytest.raises(SystemExit, match="2"):
            inspect.main(["--id", "a", "--out", "a.png", *arguments])
        assert message in capsys.readouterr().err


# --- predictions along a dialogue -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, ``alone`` and ``context``, one of classes, and their data."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_run", lambda *_: None)
        own, seeds = write_pickle(folder / "own.pkl", tiny_content()), {"seeds": [1]}
        write_pickle(folder / "other.pkl", tiny_content("o-"))
        tiny_run(folder / "alone", own, run=seeds)
        tiny_run(folder / "context", own, run=seeds, graph={"scope": "dialogue"})
        words = write_pickle(folder / "words.pkl", tiny_content("w-", ("joy", "anger", "fear"), "emotion"))
        tiny_run(folder / "emotion", words, run=seeds, target={"kind": "classes"})
    return folder


def along(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> list[str]:
    inspect.main(["--out", str(out), *arguments])
    return capsys.readouterr().out.splitlines()


def test_runs_are_drawn_along_a_dialogue(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, both = tmp_path / "along.svg", ("--run", str(runs / "alone"), "--run", str(runs / "context"))
    printed = along(capsys, out, *both, "--id", "test1")
    assert printed[0] == "test1 (test), 4 utterances"
    answers = gmsa.Run(runs / "alone").predict(runs / "own.pkl")
    rows = [i for i, name in enumerate(answers.ids) if name.startswith("test1$_$")]
    assert answers.values is not None
    error = abs(answers.values[rows] - answers.labels[rows]).mean()
    assert printed[1] == f"  alone: MAE {error:.3f}"
    assert re.fullmatch(r"  context: MAE \d\.\d{3}", printed[2])
    picture = out.read_text()
    assert f"alone (MAE {error:.3f})" in picture  # texts stand beside their outlines as comments
    assert along(capsys, out, *both, "--id", "test1$_$5")[:3] == printed[:3]  # an utterance stands for its dialogue
    assert out.read_text() == picture
    other = along(capsys, out, *both[:2], "--id", "o-train1", "--data", str(runs / "other.pkl"))
    assert other[0] == "o-train1 (train), 4 utterances"
    assert along(capsys, out, *both[:2], "--id", "train1")[0].startswith("train1 (train, which the run was trained on)")
    assert along(capsys, out, *both[:2], *both[:2], "--id", "test1")[2].startswith("  2: alone: MAE")


def test_classes_are_drawn_along_a_dialogue(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = along(capsys, tmp_path / "a.png", "--run", str(runs / "emotion"), "--id", "w-test0")
    assert re.fullmatch(r"  emotion: [0-4] of 4 right", printed[1])


def test_what_cannot_be_drawn_along_a_dialogue_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ("--run", str(runs / "alone"))
    for arguments, error, message in (
        ((*alone, "--id", "test11"), DataError, r"own.pkl: no dialogue 'test11' \(did you mean 'test1'\?\)"),
        ((*alone, "--run", str(runs / "emotion"), "--id", "test1"), RunError, "draw runs of one target together"),
        ((*alone * 6, "--id", "test1"), RunError, r"at most 5 runs \(got 6\)"),
        (("--run", str(tmp_path), "--id", "test1"), RunError, "is not a run folder"),
        ((*alone, "--id", "test1", "--data", "gone.pkl"), DataError, r"gone\.pkl"),
    ):
        with pytest.raises(error, match=message):
            along(capsys, tmp_path / "a.png", *arguments)
    assert not [*tmp_path.iterdir()]
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(RunError, match=r"a\.txt"):
        along(capsys, tmp_path / "a.txt", *alone, "--id", "test1")
    assert (tmp_path / "a.txt").read_text() == "mine"
