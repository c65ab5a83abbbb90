"""From settings to a corpus."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch

from gmsa.config import DataConfig, TargetConfig
from gmsa.data import load_corpus
from gmsa.data.loading import load_other
from gmsa.errors import DataError

DIMS = {"text": 4, "audio": 3, "vision": 2}


@pytest.fixture
def save(tmp_path):
    def write(content, name="features.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        return str(path)

    return write


def pool_of(mmsa_dict, **changes):
    columns = {**mmsa_dict["train"], **changes}
    columns["id"] = [f"pool$_${i}" for i in range(len(columns["id"]))]
    return columns


def test_corpus_of_a_file(save, mmsa_dict):
    path = save(mmsa_dict)
    corpus = load_corpus(DataConfig(path=path))
    assert {name: len(utterances) for name, utterances in corpus.splits.items()} == {"train": 6, "valid": 3, "test": 4}
    assert corpus.dims == DIMS
    assert corpus.pool == []
    assert not corpus.synthetic
    with open(path, "rb") as file:
        assert corpus.sha256 == hashlib.sha256(file.read()).hexdigest()
    first = corpus.splits["train"][0]
    length = mmsa_dict["train"]["audio_lengths"][0]
    np.testing.assert_array_equal(first.features["audio"], mmsa_dict["train"]["audio"][0, :length])  # as in the file
    assert all(u.label is not None for u in corpus.splits["train"])


def test_only_the_modalities_asked_for(save, mmsa_dict):
    corpus = load_corpus(DataConfig(path=save(mmsa_dict), modalities=("vision", "audio")))
    assert corpus.dims == {"vision": 2, "audio": 3}
    assert list(corpus.splits["test"][0].features) == ["vision", "audio"]


def test_pool_file(save, mmsa_dict):
    pool = pool_of(mmsa_dict, regression_labels=np.full(6, 99.0))
    del pool["audio"]
    path = save(mmsa_dict)
    more = {**mmsa_dict["valid"], "id": ["x", "y", "z"]}
    for content, count in ((pool, 6), ({"train": pool}, 6), ({"a": pool, "b": more}, 9)):
        corpus = load_corpus(DataConfig(path=path, pool=save(content, "pool.pkl")))
        assert len(corpus.pool) == count
        assert all(u.label is None for u in corpus.pool)
        assert list(corpus.pool[0].features) == ["text", "audio", "vision"]
        assert corpus.pool[0].features["audio"].shape == (0, 3)


def test_pool_of_other_dimensions_or_with_known_ids_is_refused(save, mmsa_dict):
    path = save(mmsa_dict)
    pool = save(pool_of(mmsa_dict, audio=np.ones((6, 7, 9))), "pool.pkl")
    with pytest.raises(DataError) as caught:
        load_corpus(DataConfig(path=path, pool=pool))
    assert str(caught.value) == (
        f"{pool}: 'audio' has 9 features per step, training has 3; extract the features as for the training data"
    )
    pool = save(mmsa_dict["test"], "pool.pkl")
    with pytest.raises(
        DataError, match=r"pool.pkl: id 'test\$_\$0' of the pool is also in split 'test' of the data file"
    ):
        load_corpus(DataConfig(path=path, pool=pool))
    with pytest.raises(DataError, match=r"none.pkl: does not exist"):
        load_corpus(DataConfig(path=path, pool=str(pool).replace("pool.pkl", "none.pkl")))


def test_synthetic_by_name_and_in_place_of_a_missing_file(tmp_path):
    absent = str(tmp_path / "absent.pkl")
    instead = load_corpus(DataConfig(path=absent, if_missing="synthetic", pool=absent))
    named = load_corpus(DataConfig(path="synthetic", modalities=("audio",)), TargetConfig(preset="sims"))
    assert instead.synthetic
    assert named.synthetic
    assert instead.sha256 == named.sha256
    assert len(instead.pool) == len(named.pool) > 0
    assert max(u.label for u in instead.splits["train"]) == 3
    assert max(u.label for u in named.splits["train"]) == 1
    assert named.dims == {"audio": 8}
    with pytest.raises(DataError, match=r"brings its own pool; leave data\.pool out"):
        load_corpus(DataConfig(path="synthetic", pool=absent))


def test_missing_file_is_an_error_by_default(tmp_path, save, mmsa_dict):
    absent = tmp_path / "absent.pkl"
    with pytest.raises(DataError) as caught:
        load_corpus(DataConfig(path=str(absent)))
    assert str(caught.value) == (
        f"data file '{absent}' does not exist; the README says where to get it. "
        "Name another by data.path (or $GMSA_DATA), or use data.path=synthetic"
    )
    # What is there but wrong is never passed over in silence.
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load_corpus(DataConfig(path=str(broken), if_missing="synthetic"))


def other(path, dims=DIMS, **settings):
    return load_other(path, dims, DataConfig(), TargetConfig(), **settings)


def test_another_file_for_a_trained_model(save, mmsa_dict):
    path = save(mmsa_dict)
    scored = other(path)
    assert {name: [u.id for u in split] for name, split in scored.splits.items()} == {
        name: columns["id"] for name, columns in mmsa_dict.items()
    }
    assert all(u.label is not None for u in scored.utterances)
    with open(path, "rb") as file:
        assert scored.sha256 == hashlib.sha256(file.read()).hexdigest()
    predicted = other(path, require_labels=False)
    assert [u.id for u in predicted.utterances] == [i for split in mmsa_dict.values() for i in split["id"]]
    flat = other(save(mmsa_dict["valid"], "flat.pkl"))
    assert {name: len(split) for name, split in flat.splits.items()} == {"all": 3}


def test_another_file_lacks_a_modality_or_has_more(save, mmsa_dict):
    del mmsa_dict["test"]["text"], mmsa_dict["train"]["text"], mmsa_dict["valid"]["text"]
    found = other(save(mmsa_dict), {"text": 768, "audio": 3}).utterances
    assert {m: x.shape[1] for m, x in found[0].features.items()} == {"text": 768, "audio": 3}
    assert found[0].features["text"].dtype == torch.float32
    assert found[0].present == {"text": False, "audio": True}


def test_another_file_of_other_dimensions(save, mmsa_dict):
    path = save(mmsa_dict)
    with pytest.raises(DataError) as caught:
        other(path, {**DIMS, "audio": 73}, require_labels=False)
    assert str(caught.value).startswith(f"{path}: 'audio' has 3 features per step, training has 73; ")


def test_real_corpus(real_data):
    corpus = load_corpus(DataConfig(path=str(real_data("mmmo.pkl"))))
    assert corpus.sha256 == "b19a70a83e6f32bc3270b7676abad0b2ab84db48b66773c7d839ef9392c698e3"
    assert corpus.dims == {"text": 300, "audio": 74, "vision": 36}
