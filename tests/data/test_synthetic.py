"""The synthetic corpus is what it says: reproducible, in MMSA's format, and not solved by one modality."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch

from gmsa.data import Target, from_mmsa, read_mmsa, synthetic, synthetic_corpus, synthetic_mmsa
from gmsa.data.synthetic import DIMS, FACE, LENGTHS, SIZES, TONE
from gmsa.rng import generator

SHA256 = "328a7fae5c5b8634ca27228f4a6b0abed546751596f87365f5acaf3d720b838c"


@pytest.fixture(scope="module")
def content():
    return synthetic_mmsa()


@pytest.fixture(scope="module")
def corpus():
    return synthetic_corpus()


def test_same_bytes_on_every_platform(corpus):
    assert corpus.sha256 == SHA256
    assert synthetic_corpus(seed=1).sha256 != SHA256


def test_is_the_importers_reading_of_the_same_format(tmp_path, content, corpus):
    path = tmp_path / "synthetic.pkl"
    path.write_bytes(pickle.dumps(content))
    splits = {**read_mmsa(path), **read_mmsa(path, splits=("pool",), require_labels=False)}
    for name, utterances in {**corpus.splits, "pool": corpus.pool}.items():
        assert [u.id for u in utterances] == [u.id for u in splits[name]]
        assert [u.label for u in utterances] == [u.label for u in splits[name]]
        for ours, theirs in zip(utterances, splits[name], strict=True):
            assert all(torch.equal(ours.features[m], theirs.features[m]) for m in DIMS)


def test_shape(corpus):
    assert corpus.synthetic
    assert corpus.dims == DIMS
    assert {**{name: len(u) for name, u in corpus.splits.items()}, "pool": len(corpus.pool)} == SIZES
    everything = [u for utterances in corpus.splits.values() for u in utterances] + corpus.pool
    videos = [{u.id.split("$_$")[0] for u in part} for part in (*corpus.splits.values(), corpus.pool)]
    assert sum(map(len, videos)) == len(set.union(*videos))
    assert all(len(u.id.split("$_$")) == 2 for u in everything)
    assert all(u.label is None for u in corpus.pool)
    for modality, longest in LENGTHS.items():
        lengths = {len(u.features[modality]) for u in everything}
        assert 0 in lengths  # missing here and there
        assert max(lengths) == longest
        assert len(lengths) > 4  # ragged
        share = sum(not u.present[modality] for u in everything) / len(everything)
        assert 0.02 < share < 0.1
    assert all(any(u.present.values()) for u in everything)
    labels = torch.tensor([u.label for u in corpus.splits["train"]])
    assert torch.allclose(labels * 5, (labels * 5).round(), atol=1e-5)
    assert Target().to_class(labels).bincount(minlength=7).min() > 20


def test_scale_of_sims_and_fewer_modalities(corpus):
    sims = synthetic_corpus(modalities=("text", "vision"), target=Target("intensity", -1.0, 1.0, (), "sims"))
    assert sims.dims == {"text": 24, "vision": 10}
    for ours, theirs in zip(sims.splits["test"], corpus.splits["test"], strict=True):
        assert ours.label == pytest.approx(theirs.label / 3)
        assert list(ours.features) == ["text", "vision"]
    assert sims.sha256 == corpus.sha256


def test_arrays_are_those_of_the_digest(content, corpus):
    digest = hashlib.sha256()
    for columns in content.values():
        for key in ("text", "audio", "vision", "regression_labels"):
            if key in columns:
                assert columns[key].dtype == np.float32
                digest.update(columns[key].tobytes())
    assert digest.hexdigest() == corpus.sha256
    assert "regression_labels" not in content["pool"]


# --- what there is to learn --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(corpus):
    """Per complete, clearly labeled utterance of train: what words, tone and face show, and the label's sign."""
    rng = generator(0, "synthetic corpus")
    synthetic._vocabulary(rng)
    tone, face = (torch.from_numpy(synthetic._direction(rng, DIMS[m])).float() for m in ("audio", "vision"))
    words = {word: np.sign(strength) for word, strength in synthetic._SENTIMENT.items()}
    rows = []
    for utterance in corpus.splits["train"]:
        if all(utterance.present.values()) and abs(utterance.label) > 0.7:
            says = next((words[word] for word in utterance.text.split() if word in words), 0)
            audio, vision = utterance.features["audio"] @ tone, utterance.features["vision"] @ face
            courses = vision.unfold(0, len(FACE), 1) @ torch.tensor(FACE)
            course = courses[courses.abs().argmax()].item()
            sincere = np.sign((audio @ torch.tensor(TONE).repeat(len(audio) // len(TONE))).item())
            rows.append((says, sincere, np.sign(course) * (abs(course) > 4), np.sign(utterance.label)))
    return np.array(rows).T


def test_sarcasm_flips_the_words_and_tone_and_face_show_it(shown):
    says, tone, face, label = shown
    assert (label == says * tone).mean() > 0.98
    assert (face[face != 0] == tone[face != 0]).mean() > 0.98
    assert 0.3 < (face == 0).mean() < 0.5
    assert 0.25 < (tone < 0).mean() < 0.45


def test_no_modality_alone_and_no_sum_over_modalities_tells_the_label(shown):
    *columns, label = shown
    levels = np.stack([column == level for column in columns for level in (-1, 0, 1)], 1).astype(float)
    weights = np.linalg.lstsq(levels, label, rcond=None)[0]
    majority = (label == columns[0]).mean()
    assert majority < 0.75
    assert (np.sign(levels @ weights) == label).mean() < majority + 0.02


def test_means_over_time_say_nothing(corpus, shown):
    complete = [u for u in corpus.splits["train"] if all(u.present.values()) and abs(u.label) > 0.7]
    pooled = torch.stack([torch.cat([u.features[m].mean(0) for m in ("audio", "vision")]) for u in complete]).double()
    features = torch.cat([pooled, torch.ones(len(pooled), 1)], 1).numpy()
    half = len(features) // 2
    weights = np.linalg.lstsq(features[:half], shown[1][:half], rcond=None)[0]
    accuracy = (np.sign(features[half:] @ weights) == shown[1][half:]).mean()
    assert accuracy < (shown[1] > 0).mean() + 0.05


def test_the_importer_reads_subsets_of_it(content):
    assert len(from_mmsa(content, "f", ("audio",))["test"]) == SIZES["test"]
