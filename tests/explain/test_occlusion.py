"""Occlusion, in batches and one by one; and what deletion takes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.explained import BASE, config_of, dialogue, score_of, view_of
from helpers.graphs import clip, scope_for

from gmsa.explain import check_deletion, occlusion
from gmsa.explain import score as scoring
from gmsa.explain.deletion import DRAWS, strongest
from gmsa.registry import MODELS


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("most", [1, 100, 1 << 20])
def test_batches_say_what_one_by_one_says(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, **scope_for(name))
    score, utterances = score_of(config), dialogue()
    view = view_of(utterances, config, 1)
    monkeypatch.setattr(scoring, "MOST_PAIRS", most)
    monkeypatch.setattr(scoring.in_chunks, "__defaults__", (most,))
    found = occlusion(score, view)
    whole = score([view])[0]
    for m, contributions in found.items():
        x = utterances[1].features[m]
        for i in range(len(x)):
            less = torch.cat([x[:i], x[i + 1 :]])
            without = replace(utterances[1], features={**utterances[1].features, m: less})
            others = [without if u is utterances[1] else u for u in utterances]
            assert contributions[i] == pytest.approx(whole - score([view_of(others, config, 1)])[0], abs=1e-5)


def test_without_its_only_token_an_utterance_has_the_base() -> None:
    config = config_of()
    score = score_of(config)
    view = view_of([clip("a$_$1", {"text": 4, "audio": 2, "vision": 3}, (1, 0, 0))], config)
    assert occlusion(score, view)["text"][0] == pytest.approx(score([view])[0] - BASE, abs=1e-6)
    assert not check_deletion(score, view, {"text": np.ones(1)}, BASE, 1).faithful


def test_the_strongest_hold_the_prediction_up() -> None:
    tokens = [("text", 0), ("text", 1), ("audio", 0)]
    contributions = {"text": np.array([0.1, -0.5]), "audio": np.array([0.3])}
    assert strongest(tokens, contributions, 1.0) == [("audio", 0), ("text", 0), ("text", 1)]
    assert strongest(tokens, contributions, -1.0) == [("text", 1), ("text", 0), ("audio", 0)]


class Sum:
    """A score that adds up known worths of the tokens that are left."""

    def __init__(self, worth: np.ndarray) -> None:
        self.worth = worth

    def __call__(self, views: list) -> np.ndarray:
        return np.array([sum(self.worth[int(x)] for x in view.own.features["text"][:, 0]) for view in views])


def test_a_check_knows_a_true_explanation_from_a_false_one() -> None:
    worth = np.linspace(0.1, 2.0, 20)
    utterance = replace(clip("a$_$1", {"text": 1}, (20,)), features={"text": torch.arange(20.0)[:, None]})
    view, score = view_of([utterance], config_of(dims={"text": 1})), Sum(worth)
    true = check_deletion(score, view, {"text": worth}, 0.0, 1, utterance.id)  # type: ignore[arg-type]
    assert true.removed == 4
    assert true.fall == pytest.approx(worth[-4:].sum())
    assert true.beaten == 1
    assert true.faithful
    assert true.random == pytest.approx(4 * worth.mean(), rel=0.3)
    false = check_deletion(score, view, {"text": -worth}, 0.0, 1, utterance.id)  # type: ignore[arg-type]
    assert false.fall == pytest.approx(worth[:4].sum())
    assert not false.faithful
    again = check_deletion(score, view, {"text": worth}, 0.0, 1, utterance.id)  # type: ignore[arg-type]
    assert again == true
    assert check_deletion(score, view, {"text": worth}, 0.0, 2, utterance.id).random != true.random  # type: ignore[arg-type]
    below = check_deletion(score, view, {"text": worth}, 100.0, 1, utterance.id)  # type: ignore[arg-type]
    assert below.fall == pytest.approx(-worth[:4].sum())
    against = Sum(-worth)  # nothing holds the prediction up: it rises without any token, least without the weakest ones
    rises = check_deletion(against, view, {"text": -worth}, -100.0, 1, utterance.id)  # type: ignore[arg-type]
    assert rises.fall == pytest.approx(-worth[:4].sum())
    assert rises.beaten == 1
    assert not rises.faithful
    assert DRAWS == 20


def test_a_long_utterance_is_not_copied_once_per_token() -> None:
    sizes = []

    class Counted(Sum):
        def __call__(self, views: list) -> np.ndarray:
            sizes.append(len(views))
            return super().__call__(views)

    worth = np.linspace(0.1, 2.0, 400)
    utterance = replace(clip("a$_$1", {"text": 1}, (400,)), features={"text": torch.arange(400.0)[:, None]})
    found = occlusion(Counted(worth), view_of([utterance], config_of(dims={"text": 1})))  # type: ignore[arg-type]
    np.testing.assert_allclose(found["text"], worth, atol=1e-9)
    assert max(sizes) <= 10
