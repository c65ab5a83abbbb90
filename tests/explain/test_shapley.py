"""Shapley values against all orders in which parts can come, and what they add up to."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from helpers.explained import BASE, config_of, dialogue, predictor_of, score_of, view_of
from helpers.graphs import clip, scope_for

from gmsa.explain import NEIGHBORS, explain, shapley_values, subset_values
from gmsa.registry import MODELS


def by_permutations(parts, values):
    """What each part adds when it comes, averaged over all orders."""
    total = dict.fromkeys(parts, 0.0)
    orders = list(permutations(parts))
    for order in orders:
        for i, part in enumerate(order):
            before = tuple(p for p in parts if p in order[:i])
            after = tuple(p for p in parts if p in order[: i + 1])
            total[part] += (values[after] - values[before]) / len(orders)
    return total


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_they_are_the_mean_over_all_orders(count: int) -> None:
    rng, parts = np.random.default_rng(count), tuple("abcdef"[:count])
    values = {
        tuple(p for i, p in enumerate(parts) if number >> i & 1): rng.normal(size=2) for number in range(2**count)
    }
    found, wanted = shapley_values(parts, values), by_permutations(parts, values)
    for part in parts:
        np.testing.assert_allclose(found[part], wanted[part], atol=1e-12)


def test_subsets_are_what_the_model_says_without_the_others() -> None:
    config = config_of()
    score, utterance = score_of(config, 2), dialogue()[0]
    view = view_of([utterance], config)
    values = subset_values(score, view)
    assert len(values) == 8
    assert values[()].tolist() == [BASE, BASE]
    for subset, found in values.items():
        if subset:
            kept = utterance.drop(frozenset({*utterance.features} - {*subset}))
            np.testing.assert_allclose(found, score.predictor([view_of([kept], config)])[:, 0, 0], atol=1e-6)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_base_and_contributions_add_up_to_the_prediction(name: str) -> None:
    config = config_of(name, **scope_for(name))
    count = 2 if name == "sslmm" else 1
    predictor, utterances = predictor_of(config, count), dialogue()
    found = explain(predictor.models, utterances, config, base=[BASE], seeds=range(1, count + 1))
    assert not found.reasons
    assert len(found) == 6
    together = predictor([view_of(utterances, config, i) for i in range(6)])[:, :, 0].mean(0)
    for item, value in zip(found, together, strict=True):
        assert item.value == pytest.approx(value, rel=1e-5)
        total = item.base + sum(item.modalities.values()) + (item.neighbors or 0.0)
        assert total == pytest.approx(item.value, abs=1e-5)
        assert all(item.modalities[m] == 0 and item.without(m) is None for m in item.missing)
        assert item.words is not None
        assert {m: len(x) for m, x in item.words.tokens.items()} == utterances[found.items.index(item)].lengths
    assert found[2].missing == ("audio",)
    assert (found[0].neighbors is None) == (config.graph.scope == "utterance")


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
def test_the_neighbors_are_a_part_of_their_own(scope: str) -> None:
    config = config_of("sslmm", scope)
    score, utterances = score_of(config), dialogue()
    view = view_of(utterances, config, 1)
    assert view.parts == ("text", "audio", "vision", NEIGHBORS)
    values = subset_values(score, view)
    assert len(values) == 16
    alone = view_of([utterances[1]], config)
    own = tuple(utterances[1].features)
    assert values[own][0] == pytest.approx(score([alone])[0], abs=1e-6)
    assert values[(NEIGHBORS,)][0] == pytest.approx(score([view.with_parts([NEIGHBORS])])[0], abs=1e-6)
    silent = [u.drop(frozenset(u.features)) if i == 1 else u for i, u in enumerate(utterances)]
    assert values[(NEIGHBORS,)][0] == pytest.approx(score([view_of(silent, config, 1)])[0], abs=1e-6)


def test_one_modality_alone_gets_all() -> None:
    config = config_of(dims={"eeg": 3})
    (model,) = predictor_of(config, dims={"eeg": 3}).models
    item = explain([model], [clip("a$_$1", {"eeg": 3}, (4,))], config, base=[BASE])["a$_$1"]
    assert item.modalities["eeg"] == pytest.approx(item.value - BASE, abs=1e-6)
    assert item.without("eeg") == BASE


def test_many_modalities_with_any_names() -> None:
    dims = {f"m{i}": 2 for i in range(8)}
    config = config_of(dims=dims)
    utterance = clip("a$_$1", dims, (2, 1, 0, 2, 1, 1, 2, 1))
    item = explain(predictor_of(config, dims=dims).models, [utterance], config, base=[BASE], words=False)[0]
    assert len(item.subsets) == 2**7
    assert item.missing == ("m2",)
    assert item.words is None
    assert item.base + sum(item.modalities.values()) == pytest.approx(item.value, abs=1e-5)


def test_classes_have_the_probability_of_the_predicted_one() -> None:
    target = {"kind": "classes", "classes": ["joy", "anger", "fear"]}
    config = config_of(target=target)
    predictor, shares = predictor_of(config, 2), [0.5, 0.2, 0.3]
    found = explain(predictor.models, dialogue(3), config, base=shares)
    for i, item in enumerate(found):
        probabilities = predictor([view_of([dialogue(3)[i]], config)])[:, 0].mean(0)
        assert item.predicted_class == target["classes"][probabilities.argmax()]
        assert item.value == pytest.approx(probabilities.max(), abs=1e-6)
        assert item.base == shares[probabilities.argmax()]
        assert item.base + sum(item.modalities.values()) == pytest.approx(item.value, abs=1e-5)


def test_several_models_are_explained_by_their_mean() -> None:
    config = config_of()
    models, utterances = predictor_of(config, 2).models, dialogue(1)
    both, first, second = (
        explain(some, utterances, config, base=[BASE])[0] for some in (models, models[:1], models[1:])
    )
    for m in both.modalities:
        assert both.modalities[m] == pytest.approx((first.modalities[m] + second.modalities[m]) / 2, abs=1e-6)
        assert both.spread[m] == pytest.approx(abs(first.modalities[m] - second.modalities[m]) / 2, abs=1e-6)
