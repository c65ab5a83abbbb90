"""Explanations of models that read transcripts with an encoder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.text_encoders import DIMS, TEXTS, make_encoder, reading, said

from gmsa.data import Utterance
from gmsa.explain import Predictor, Score, explain, integrated_gradients
from gmsa.explain.views import views_of
from gmsa.models import build_model
from gmsa.text import texts_of


def test_a_frozen_encoder_gives_features_and_words(tmp_path: Path) -> None:
    config = reading(make_encoder(tmp_path / "encoder"), text={"tuning": "frozen", "nodes": "words"})
    texts = texts_of(config)
    assert texts is not None
    utterance = Utterance("a$_$1", {"audio": torch.randn(3, 4)}, text="it was not so good")
    read = texts([utterance], ["text", "audio"], "here")
    torch.manual_seed(0)
    item = explain([build_model({"text": 32, "audio": 4}, config).eval()], read, config)[0]
    assert item.words is not None
    assert item.words.labels["text"] == ["it", "was", "not", "so", "good"]
    assert len(item.words.tokens["text"]) == 5


@pytest.mark.parametrize("nodes", ["words", "pieces"])
def test_words_have_what_their_states_contribute(nodes: str, tmp_path: Path) -> None:
    config = reading(make_encoder(tmp_path / "encoder"), text={"tuning": "full", "nodes": nodes})
    torch.manual_seed(0)
    model = build_model(DIMS, config).eval()
    encoder = model.embedding.text_encoder
    utterances = said(config, TEXTS)
    score = Score(Predictor([model], config, torch.device("cpu")), 0, 0.0)
    view = next(views_of(utterances, config, [0]))
    features = score.features(model, view)
    assert features["text"].shape == (utterances[0].lengths["text"], 32)
    assert features["text"].is_floating_point()
    same = score.of_features(model, view, {m: x[None] for m, x in features.items()})
    assert same.item() == pytest.approx(score([view])[0], abs=1e-5)
    assert model.embedding.text_encoder is encoder
    value = float(score([view])[0])
    found = integrated_gradients(score, view, value, steps=128, most=128)
    total = sum(x.sum() for x in found.tokens.values())
    assert total == pytest.approx(value - found.start, abs=0.05 * abs(value - found.start) + 1e-3)
    assert abs(found.tokens["text"]).min() > 0
    texts = texts_of(config)
    assert texts is not None
    explained = explain([model], utterances, config)
    assert not explained.reasons
    for item, utterance in zip(explained, utterances, strict=True):
        assert item.words is not None
        assert item.words.labels["text"] == texts.say(utterance)
        assert ("text" in item.missing) == (utterance.text == "")
