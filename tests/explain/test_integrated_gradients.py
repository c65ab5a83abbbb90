"""Integrated gradients against Captum's, on the same function of features."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.explained import config_of, dialogue, models_of, score_of, view_of
from helpers.graphs import scope_for

from gmsa.explain import Predictor, Score, explain, integrated_gradients, occlusion, path_gradients
from gmsa.explain.gradients import own_rows
from gmsa.graph import GraphBatch
from gmsa.models import Output
from gmsa.registry import MODELS

CASES = [(name, scope_for(name).get("scope", "utterance")) for name in sorted(MODELS)]
CASES += [("semi_iin", "dialogue"), ("semi_iin", "hierarchical"), ("sslmm", "dialogue")]


@pytest.mark.parametrize(("name", "scope"), CASES)
def test_they_equal_captum(name: str, scope: str) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed (pip install -e .[test])")
    config = config_of(name, scope)
    score, utterances = score_of(config), dialogue()
    view, (model,) = view_of(utterances, config, 1), score.predictor.models
    inputs = {m: x[None] for m, x in score.features(model, view).items()}

    def forward(*features: torch.Tensor) -> torch.Tensor:
        return score.of_features(model, view, dict(zip(inputs, features, strict=True)))

    reference = attr.IntegratedGradients(forward)
    wanted = reference.attribute(tuple(inputs.values()), n_steps=8, method="riemann_middle")
    found = path_gradients(score, view, (np.arange(8) + 0.5) / 8)
    for m, expected in zip(inputs, wanted, strict=True):
        np.testing.assert_allclose(found[m], expected[0].sum(1).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_they_add_up_with_what_comes_from_the_neighbors(scope: str) -> None:
    config = config_of(scope=scope)
    score = score_of(config, 2)
    view = view_of(dialogue(), config, 1)
    value = float(score([view])[0])
    found = integrated_gradients(score, view, value, steps=256, most=256)
    total = sum(x.sum() for x in found.tokens.values()) + (found.neighbors or 0.0)
    assert total == pytest.approx(value - found.start, abs=0.02 * abs(value - found.start) + 1e-3)
    assert (found.neighbors is None) == (scope == "utterance")
    if scope != "utterance":
        assert found.neighbors != 0


def test_of_features_at_the_features_is_the_prediction() -> None:
    config = config_of(scope="hierarchical")
    score = score_of(config)
    view, (model,) = view_of(dialogue(), config, 2), score.predictor.models
    features = {m: torch.stack([x, 0 * x]) for m, x in score.features(model, view).items()}
    same, blank = score.of_features(model, view, features).tolist()
    assert same == pytest.approx(score([view])[0], abs=1e-6)
    assert blank == pytest.approx(score.blank(view), abs=1e-6)


def test_rows_of_the_utterance_are_its_own_features() -> None:
    config = config_of(scope="dialogue")
    utterances = dialogue()[::-1]  # a graph has them in the order of its clips
    view, (model,) = view_of(utterances, config, 2), score_of(config).predictor.models
    features = score_of(config).features(model, view)
    assert view.own.id == utterances[2].id
    for m, rows in own_rows(view).items():
        torch.testing.assert_close(features[m][rows], utterances[2].features[m])


def test_points_are_doubled_until_they_add_up() -> None:
    config = config_of()
    score = score_of(config)
    view = view_of(dialogue(), config)
    value = float(score([view])[0])
    strict = integrated_gradients(score, view, value, steps=2, most=16, tolerance=0.0)
    assert strict.steps == 16
    many = integrated_gradients(score, view, value, steps=2, most=1024, tolerance=0.02)
    assert many.steps > 16
    assert many.error <= 0.02
    loose = integrated_gradients(score, view, value, steps=2, most=16, tolerance=1e9)
    assert loose.steps == 2


def test_occlusion_takes_over_where_they_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import gmsa.explain.predictions as module

    config, utterances = config_of(scope="hierarchical"), dialogue()
    models = score_of(config).predictor.models
    monkeypatch.setattr(module, "integrated_gradients", lambda *args: replace(integrated_gradients(*args), error=0.06))
    item = explain(models, utterances, config, chosen=[1], base=[0.0])[0]
    assert item.words is not None
    assert item.words.method == "occlusion"
    assert item.words.completeness_error == 0.06
    score, view = score_of(config), view_of(utterances, config, 1)
    alone = score([view_of(utterances[1:2], config)])[0]
    assert item.words.neighbors == pytest.approx(item.value - alone, abs=1e-6)
    without_first = score([view.without([("text", 0)])])[0]
    assert item.words.tokens["text"][0] == pytest.approx(item.value - without_first, abs=1e-6)


def test_occlusion_takes_over_where_a_gradient_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    import gmsa.explain.predictions as module

    def broken(*args):
        found = integrated_gradients(*args)
        return replace(found, error=math.nan, tokens={m: x * math.nan for m, x in found.tokens.items()})

    monkeypatch.setattr(module, "integrated_gradients", broken)
    config = config_of()
    item = explain(score_of(config).predictor.models, dialogue(1), config, base=[0.0])[0]
    assert item.words is not None
    assert item.words.method == "occlusion"
    assert all(np.isfinite(x).all() for x in item.words.tokens.values())
    assert item.as_dict()["words"]["completeness_error"] is None


class Stopped(torch.nn.Module):
    """A model of one's own that stops gradients."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: GraphBatch) -> Output:
        with torch.no_grad():
            return self.model(batch)


class Shares(Stopped):
    """A model of one's own that has no answer where all features are 0."""

    def forward(self, batch: GraphBatch) -> Output:
        output = self.model(batch)
        size = sum(x.abs().sum() for x in batch.features.values())
        return output._replace(value=output.value * (size / size))


def test_occlusion_takes_over_where_a_model_stops_gradients() -> None:
    config, utterances = config_of(), dialogue(2)
    models = [Stopped(model) for model in models_of(config)]
    item = explain(models, utterances, config, base=[0.0])[0]
    assert item.words is not None
    assert item.words.method == "occlusion"
    score = Score(Predictor(models, config, torch.device("cpu")), 0, 0.0)
    expected = occlusion(score, view_of(utterances, config))
    assert {m: x.tolist() for m, x in item.words.tokens.items()} == {m: x.tolist() for m, x in expected.items()}


def test_without_a_base_nothing_is_explained() -> None:
    found = explain([Shares(model) for model in models_of(config_of())], dialogue(2), config_of())
    assert len(found) == 0
    assert all("train the run again" in reason for reason in found.reasons.values())
    json.dumps(found.as_dict(), allow_nan=False)
    assert len(explain([Shares(model) for model in models_of(config_of())], dialogue(2), config_of(), base=[0.0])) == 2
