"""The made-up dialogues are what they say: solved by the right context, not by an utterance, a distance or a window."""

from __future__ import annotations

import pickle
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gmsa.config import DataConfig, TargetConfig, from_dict
from gmsa.data import (
    Corpus,
    Target,
    Utterance,
    load_corpus,
    read_mmsa,
    synthetic_dialogues,
    synthetic_dialogues_mmsa,
)
from gmsa.data.dialogues.synthetic import DIMS, EMOTIONS, SIZES, SPEAKERS, TURNS, _hadamard
from gmsa.data.notes import collected
from gmsa.errors import DataError

SHA256 = {
    "two_back": "61e04d6ac92de5a0db7f6a1c8fbd8c00649188f0f4f2a5adf7da4ecaac720f73",
    "speaker": "bad29440fc4a2a7589e018795a1f032a72ea18a55ce85e9a92c2d492545d74b2",
}
RULES = pytest.mark.parametrize("rule", ["two_back", "speaker"])
CLASSES = Target("classes", metrics="classes")


@pytest.fixture(scope="module")
def corpora() -> dict[str, Corpus]:
    with collected() as notes:
        found = {rule: synthetic_dialogues(rule, target=CLASSES) for rule in ("two_back", "speaker")}
    assert notes == []
    return found


def dialogues(corpus: Corpus, split: str) -> list[list[Utterance]]:
    found: dict[str, list[Utterance]] = {}
    for utterance in corpus.splits[split]:
        found.setdefault(utterance.video, []).append(utterance)
    return [sorted(us, key=lambda u: u.clip) for us in found.values()]


@cache
def cue(utterance: Utterance, modality: str) -> int:
    """The class that a modality shows: the nearest of the five directions, of the mean over its steps."""
    directions = _hadamard(DIMS[modality])[1 : 1 + len(EMOTIONS)]
    return int((directions @ utterance.features[modality].mean(0).numpy()).argmax())


def antecedent(dialogue: list[Utterance], place: int, rule: str) -> Utterance | None:
    if rule == "two_back":
        return dialogue[place - 2] if place >= 2 else None
    return next((u for u in reversed(dialogue[:place]) if u.speaker == dialogue[place].speaker), None)


def accuracy(answers: list[tuple[int, int]]) -> float:
    return float(np.mean([one == other for one, other in answers]))


@RULES
@pytest.mark.parametrize("modality", DIMS)
def test_the_right_context_tells_every_answer(corpora: dict[str, Corpus], rule: str, modality: str) -> None:
    for split in SIZES:
        answers = []
        for dialogue in dialogues(corpora[rule], split):
            for place, utterance in enumerate(dialogue):
                before = antecedent(dialogue, place, rule)
                answers.append((0 if before is None else cue(before, modality), int(utterance.label or 0)))
        assert accuracy(answers) == 1.0


@RULES
def test_an_utterance_alone_says_nothing(corpora: dict[str, Corpus], rule: str) -> None:
    """Neither its cue, even mapped in the best way, nor a linear rule on all of its features, fitted on training."""
    answers: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for split, utterances in corpora[rule].splits.items():
        pooled = np.array([np.concatenate([u.features[m].mean(0).numpy() for m in DIMS] + [[1]]) for u in utterances])
        labels = np.array([int(u.label or 0) for u in utterances])
        answers[split] = pooled, np.array([cue(u, "text") for u in utterances]), labels
    features, cues, labels = answers["train"]
    best = [Counter(labels[cues == c].tolist()).most_common(1)[0][0] for c in range(5)]
    weights = np.linalg.lstsq(features, np.eye(5)[labels], rcond=None)[0]
    for split in ("valid", "test"):
        features, cues, labels = answers[split]
        assert (np.array(best)[cues] == labels).mean() < 0.3
        assert ((features @ weights).argmax(1) == labels).mean() < 0.3
        assert (cues == labels).mean() < 0.32


@RULES
def test_no_other_distance_tells_it(corpora: dict[str, Corpus], rule: str) -> None:
    for distance in range(-3, 7):
        answers = [
            (cue(dialogue[place - distance], "audio"), int(utterance.label or 0))
            for split in SIZES
            for dialogue in dialogues(corpora[rule], split)
            for place, utterance in enumerate(dialogue)
            if 0 <= place - distance < len(dialogue)
        ]
        if rule == "two_back":
            assert accuracy(answers) == 1.0 if distance == 2 else accuracy(answers) < 0.3
        else:
            assert accuracy(answers) < 0.6


def test_the_speakers_last_turn_is_at_no_fixed_distance(corpora: dict[str, Corpus]) -> None:
    distances: Counter[int] = Counter()
    for dialogue in dialogues(corpora["speaker"], "train"):
        assert {u.speaker for u in dialogue} <= set(SPEAKERS)
        assert len({u.speaker for u in dialogue}) >= 2
        for place in range(len(dialogue)):
            before = antecedent(dialogue, place, "speaker")
            if before is not None:
                distances[place - before.clip[0]] += 1
    shares = np.array([distances[d] for d in range(1, 7)]) / distances.total()
    assert shares[0] < 0.5
    assert shares[2:].sum() > 0.2
    # Nor does a sentence show who speaks.
    turns = corpora["speaker"].splits["train"]
    pooled = np.array([np.concatenate([u.features[m].mean(0).numpy() for m in DIMS] + [[1]]) for u in turns])
    names = np.array(["ABC".index(u.speaker) for u in turns])
    weights = np.linalg.lstsq(pooled[::2], np.eye(3)[names[::2]], rcond=None)[0]
    assert ((pooled[1::2] @ weights).argmax(1) == names[1::2]).mean() < np.bincount(names).max() / len(names) + 0.06


@RULES
def test_every_class_has_its_share_and_dialogues_their_lengths(corpora: dict[str, Corpus], rule: str) -> None:
    corpus = corpora[rule]
    counts = Counter(u.label for us in corpus.splits.values() for u in us)
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(0.17 < count / counts.total() < 0.23 for count in counts.values())
    assert {name: len(dialogues(corpus, name)) for name in SIZES} == SIZES
    sizes = {len(dialogue) for name in SIZES for dialogue in dialogues(corpus, name)}
    assert (min(sizes), max(sizes)) == TURNS
    assert corpus.synthetic
    assert corpus.dims == DIMS
    assert corpus.target.classes == tuple(EMOTIONS)


@RULES
def test_intensities_are_those_of_the_classes(corpora: dict[str, Corpus], rule: str) -> None:
    values = list(EMOTIONS.values())
    for target, scale in ((None, 1), (Target("intensity", -1.0, 1.0, (), "sims"), 1 / 3)):
        corpus = synthetic_dialogues(rule, target=target)
        for ours, theirs in zip(corpus.splits["test"], corpora[rule].splits["test"], strict=True):
            assert ours.label == pytest.approx(values[int(theirs.label or 0)] * scale)
        assert corpus.sha256 == corpora[rule].sha256
        signs = Counter(np.sign([u.label or 0 for u in corpus.splits["train"]]).tolist())
        assert 0.45 < signs[1.0] / (signs[1.0] + signs[-1.0]) < 0.55


@RULES
def test_same_bytes_on_every_platform(corpora: dict[str, Corpus], rule: str) -> None:
    assert corpora[rule].sha256 == SHA256[rule]
    assert synthetic_dialogues(rule, seed=1).sha256 != SHA256[rule]
    small = synthetic_dialogues(rule, sizes={"train": 3, "valid": 1, "test": 2}, modalities=("audio",))
    assert {name: len({u.video for u in us}) for name, us in small.splits.items()} == {
        "train": 3,
        "valid": 1,
        "test": 2,
    }
    assert small.dims == {"audio": 8}


@RULES
def test_a_pickle_of_it_is_read_alike(tmp_path: Path, corpora: dict[str, Corpus], rule: str) -> None:
    path = tmp_path / "dialogues.pkl"
    path.write_bytes(pickle.dumps(synthetic_dialogues_mmsa(rule)))
    with collected():
        read = read_mmsa(path, target=Target("classes", classes=tuple(EMOTIONS)))
    for name, utterances in corpora[rule].splits.items():
        ours, theirs = ([(u.id, u.label, u.speaker, u.text) for u in us] for us in (utterances, read[name]))
        assert ours == theirs


def test_a_config_asks_for_them_by_name() -> None:
    for name, rule in (("synthetic_two_back", "two_back"), ("synthetic_speaker", "speaker")):
        corpus = load_corpus(DataConfig(path=name), TargetConfig(kind="classes"))
        assert corpus.sha256 == SHA256[rule]
        assert from_dict({"data": {"path": name}}).data.name == name
    with pytest.raises(DataError, match=r"data\.pool 'x': the dialogues take none; leave data\.pool out"):
        load_corpus(DataConfig(path="synthetic_speaker", pool="x"))
    with pytest.raises(
        DataError, match=r"the synthetic dialogues have 5 classes .*, the target 7; leave target\.classes"
    ):
        load_corpus(DataConfig(path="synthetic_speaker"), TargetConfig(preset="meld"))
    with pytest.raises(DataError, match="have the rules two_back and speaker"):
        synthetic_dialogues("last")  # type: ignore[arg-type]
