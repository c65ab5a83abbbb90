"""The synthetic corpus is what it says: reproducible, in MMSA's format, and not solved by one modality."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch

from gmsa.data import from_mmsa, read_mmsa, synthetic_corpus, synthetic_mmsa, to_class
from gmsa.data.synthetic import DIMS, LENGTHS, SIZES

SHA256 = ""


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
    assert to_class(labels).bincount(minlength=7).min() > 20


def test_scale_of_sims_and_fewer_modalities(corpus):
    sims = synthetic_corpus(modalities=("text", "vision"), labels="sims")
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


def signs(corpus, split):
    """Per complete utterance: what the words say, tone, face (read off with the true rules), and the label's sign."""
    found = []
    words = {"terrible": -1, "bad": -1, "weak": -1, "decent": 1, "good": 1, "wonderful": 1}
    for utterance in corpus.splits[split]:
        if not all(utterance.present.values()) or abs(utterance.label) < 0.7:
            continue
        says = next((words[word] for word in utterance.text.split() if word in words), 0)
        audio = utterance.features["audio"]
        course = torch.tensor([-1.5, -0.5, 0.5, 1.5]).repeat(len(audio) // 4)
        found.append((says, course @ audio, utterance.features["vision"].sum(0), np.sign(utterance.label)))
    says, tone, face, label = zip(*found, strict=True)
    directions = []
    for vectors in (torch.stack(tone), torch.stack(face)):
        directions.append(vectors @ torch.linalg.svd(vectors, full_matrices=False).Vh[0])
    tone, face = directions
    face = torch.where(face.abs() < face.abs().max() / 4, 0.0, face.sign())
    return np.array(says), tone.sign().numpy(), face.numpy(), np.array(label)


def test_sarcasm_is_where_tone_and_face_contradict(corpus):
    says, tone, face, label = signs(corpus, "train")
    flipped = label != says
    contradict = tone * face
    # The directions found by SVD have an arbitrary sign, which turns all contradictions round.
    contradict = contradict if flipped[contradict < 0].mean() > 0.5 else -contradict
    assert flipped[contradict < 0].mean() > 0.95
    assert flipped[contradict >= 0].mean() < 0.05
    assert 0.2 < flipped.mean() < 0.4


def test_no_single_modality_and_no_sum_over_modalities_tells_sarcasm(corpus):
    says, tone, face, label = signs(corpus, "train")
    majority = max((label != says).mean(), (label == says).mean())
    columns = np.stack([says, tone, face, np.abs(face), np.ones_like(label)], 1)
    weights = np.linalg.lstsq(columns, label, rcond=None)[0]
    assert (np.sign(columns @ weights) == label).mean() < majority + 0.05


def test_pooled_audio_says_nothing(corpus):
    tones, means = [], []
    for utterance in corpus.splits["train"]:
        audio = utterance.features["audio"]
        if len(audio):
            means.append(audio.mean(0).abs().max())
            tones.append(
                (torch.tensor([-1.5, -0.5, 0.5, 1.5]).repeat(len(audio) // 4) @ audio / len(audio)).abs().max()
            )
    assert torch.stack(means).mean() < 0.2 * torch.stack(tones).mean()


def test_the_importer_reads_subsets_of_it(content):
    assert len(from_mmsa(content, "f", ("audio",))["test"]) == SIZES["test"]
