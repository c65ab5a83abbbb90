"""Long dialogues: how far an answer looks, and windows whose answers are those of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import clip, collate

from gmsa.config import Config, from_dict
from gmsa.config.groups.graph import WHOLE
from gmsa.data import Utterance
from gmsa.data.notes import collected
from gmsa.models import Model, build_model, reach
from gmsa.runs.scoring import windows

DIMS = {"text": 4, "audio": 3}
SIZE = {"channels": 16, "heads": 2}


def config_of(name: str = "semi_iin", scope: str = "hierarchical", model: Any = None, **graph: Any) -> Config:
    settings = {"name": name, **SIZE, **(model or {})}
    return from_dict({"model": settings, "graph": {"scope": scope, **graph}, "data": {"modalities": [*DIMS]}})


def double_model(config: Config) -> Model:
    torch.manual_seed(3)
    return build_model(DIMS, config).double().eval()


def dialogue(count: int, name: str = "v", text: int = 2, **fields: Any) -> list[Utterance]:
    """Utterances of which every third lacks its audio."""
    return [clip(f"{name}$_${i}", DIMS, (text + i % 2, i % 3), **fields) for i in range(count)]


def work_of(model: Model, seen: list[list[str]] | None = None) -> windows.Work:
    """Predictions in float64."""

    def work(utterances: Sequence[Utterance], config: Config) -> windows.Arrays:
        if seen is not None:
            seen.append([u.id for u in utterances])
        batch = collate(utterances, config)
        for modality, features in batch.features.items():
            batch.features[modality] = features.double()  # type: ignore[index]
        with torch.no_grad():
            output = model(batch)
        return [output.value.numpy(), output.logits.numpy(), None]

    return work


# --- how far an answer looks -----------------------------------------------------------------------------------------

UNPROPAGATED = {"propagation": 0}
REACHES: list[tuple[str, str, dict[str, Any], dict[str, Any], tuple[int, int]]] = [
    ("semi_iin", "hierarchical", {}, {"past": 2, "future": 1}, (4, 2)),
    ("semi_iin", "hierarchical", {"layers": 3, **UNPROPAGATED}, {"past": 2, "future": 1}, (2, 1)),
    ("semi_iin", "hierarchical", {"context_layers": 2, **UNPROPAGATED}, {"past": 2, "future": 1}, (4, 2)),
    ("semi_iin", "hierarchical", {"streams": "global", **UNPROPAGATED}, {"past": 1, "future": 2}, (1, 2)),
    ("semi_iin", "hierarchical", {"streams": "inter", **UNPROPAGATED}, {"context": 2}, (2, 2)),  # by the readout nodes
    ("semi_iin", "hierarchical", {"streams": "intra"}, {"past": 2, "future": 0}, (4, 0)),
    ("semi_iin", "dialogue", {"layers": 3}, {"past": 2, "future": 0}, (4, 0)),
    ("sslmm", "hierarchical", {"context_layers": 2}, {"past": 1, "future": 1}, (3, 3)),
    ("sslmm", "hierarchical", {"order": "simultaneous", **UNPROPAGATED}, {"past": 2, "future": 1}, (2, 1)),
    ("sslmm", "hierarchical", {"streams": "inter"}, {"past": 2, "future": 1}, (2, 1)),  # by propagation
    ("sslmm", "dialogue", {"order": "inter_first"}, {"past": 1, "future": 2}, (2, 4)),
    ("global", "hierarchical", {"layers": 3}, {"past": 2, "future": 1}, (4, 2)),
    ("global", "hierarchical", {"context_layers": 2, **UNPROPAGATED}, {"past": 2, "future": 1}, (4, 2)),
    ("global", "dialogue", {}, {"past": 2, "future": 1}, (2, 1)),
    ("hgt", "hierarchical", {"layers": 3}, {"past": 2, "future": 1}, (4, 2)),
    ("hgt", "hierarchical", {"context_layers": 2, **UNPROPAGATED}, {"past": 1, "future": 2}, (2, 4)),
    ("late_fusion", "hierarchical", {"layers": 3, "context_layers": 2}, {"past": 2, "future": 1}, (4, 2)),
    ("late_fusion", "hierarchical", UNPROPAGATED, {"past": 2, "future": 1}, (2, 1)),
    ("late_fusion", "dialogue", {}, {"past": 2, "future": 1}, (0, 0)),
    ("mtag", "hierarchical", {"layers": 3}, {"past": 2, "future": 1}, (4, 2)),
    ("mtag", "dialogue", {"layers": 3}, {"past": 1, "future": 1}, (3, 3)),
    ("mmgcn(recurrent=none, speaker=none)", "dialogue", {}, {"past": 1, "future": 1}, (3, 3)),
    ("mmgcn(recurrent=none, speaker=none)", "hierarchical", {}, {"past": 1, "future": 0}, (3, 0)),
    ("semi_iin", "utterance", {}, {}, (0, 0)),
]


@pytest.mark.parametrize(("name", "scope", "model", "graph", "expected"), REACHES)
def test_reach_is_exactly_what_can_change_an_answer(
    name: str, scope: str, model: dict[str, Any], graph: dict[str, Any], expected: tuple[int, int]
) -> None:
    config = config_of(name, scope, model, **graph)
    assert reach(config) == expected
    utterances = [clip(f"v$_${i}", DIMS, (2, 1)) for i in range(11)]
    batch = collate(utterances, config)
    features = {m: x.double().requires_grad_() for m, x in batch.features.items()}
    for modality, x in features.items():
        batch.features[modality] = x  # type: ignore[index]
    output = double_model(config)(batch)
    (output.value[5] + output.logits[5] @ torch.arange(7.0).double()).backward()
    heard = torch.stack([x.grad.view(11, -1).abs().sum(1) for x in features.values() if x.grad is not None]).sum(0)
    assert heard.nonzero().flatten().tolist() == [*range(5 - expected[0], 5 + expected[1] + 1)]


@pytest.mark.parametrize(
    ("model", "graph", "expected"),
    [
        ({}, {"past": "all", "future": 0}, (WHOLE, 0)),
        ({}, {"context": "all"}, (WHOLE, WHOLE)),
        ({}, {"dialogue_node": True, "past": 1, "future": 1}, (WHOLE, WHOLE)),
        ({}, {"dialogue_node": True, "past": 1, "future": 0}, (WHOLE, 0)),
        ({"sequence": "transformer"}, {"past": 1, "future": 0}, (WHOLE, 0)),
        ({"sequence": "gru"}, {"past": "all", "future": 0}, (WHOLE, 0)),
    ],
)
def test_where_the_whole_dialogue_counts(model: Any, graph: dict[str, Any], expected: tuple[int, int]) -> None:
    assert reach(config_of(model=model, **graph)) == expected


def test_of_a_model_that_does_not_say_the_whole_dialogue_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from gmsa.models import HGT

    monkeypatch.delattr(HGT, "hops")
    assert reach(config_of("hgt", past=1, future=1)) == (WHOLE, WHOLE)
    assert reach(config_of("hgt", past=1, future=0)) == (WHOLE, 0)


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "global", "hgt", "late_fusion", "mtag"])
@pytest.mark.parametrize("graph", [{"past": 2, "future": 1}, {"past": 1, "future": 0, "speakers": "same_other"}])
def test_windows_equal_the_whole(name: str, graph: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, **graph)
    model = double_model(config)
    utterances = [
        u
        for i, (one, other) in enumerate(zip(dialogue(23), dialogue(23, "w"), strict=True))
        for u in ([one, other] if i < 3 else [one])  # w has three utterances, among those of v
    ][::-1]  # the order is that of the clips, not of the list
    utterances = [Utterance(u.id, u.features, speaker="ab"[k % 5 > 2]) for k, u in enumerate(utterances)]
    whole = work_of(model)(utterances, config)
    monkeypatch.setattr(windows, "MOST_UTTERANCES", 8)
    seen: list[list[str]] = []
    with collected() as notes:
        found = windows.in_windows(utterances, config, work_of(model, seen))
    before, after = reach(config)
    most = max(8 - before - after, before + after)
    assert len(seen) == -(-23 // most) + 1
    assert max(map(len, seen)) <= most + before + after
    assert seen[-1] == [u.id for u in utterances if u.video == "w"]
    for x, y in zip(found[:2], whole[:2], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)
    assert found[2] is None
    assert notes == []


def test_windows_that_are_too_narrow_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("sslmm", past=2, future=1)
    model, utterances = double_model(config), dialogue(23) + dialogue(2, "w")
    whole = work_of(model)(utterances, config)
    monkeypatch.setattr(windows, "MOST_UTTERANCES", 8)
    for narrow in ((3, 2), (4, 1)):
        monkeypatch.setattr(windows, "reach", lambda _, narrow=narrow: narrow)
        found = windows.in_windows(utterances, config, work_of(model))
        assert np.abs(found[1] - whole[1]).max() > 1e-9


def test_dialogues_that_fit_are_predicted_as_before() -> None:
    config, seen = config_of(past=2, future=1), []
    utterances = dialogue(40) + dialogue(3, "w")
    windows.in_windows(utterances, config, work_of(double_model(config), seen))
    assert seen == [[u.id for u in utterances]]


def test_a_note_where_no_window_holds_all_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_UTTERANCES", 8)
    config, seen = config_of(past="all", future=1), []
    with collected() as notes:
        windows.in_windows(dialogue(12), config, work_of(double_model(config), seen))
    assert list(map(len, seen)) == [12]
    assert notes == [
        "dialogue 'v' has 12 utterances, of which an answer can depend on 12 before and 2 after it: it is one graph, "
        "not cut into windows, and takes the more memory"
    ]


def test_a_long_utterance_keeps_its_neighbors() -> None:
    config = config_of("sslmm", model={"positions": 16}, past=1, future=1)
    model, (a, b, c, *others) = double_model(config), dialogue(3) + dialogue(2, "w")
    long = clip("v$_$1", DIMS, (40, 9))  # three windows of text
    with collected() as notes:
        found = windows.in_windows([a, long, c, *others], config, work_of(model))
    assert len(notes) == 1
    passes, cuts = [], {"text": (0, 13, 26, 40), "audio": (0, 3, 6, 9)}
    for k in range(3):
        part = Utterance(b.id, {m: long.features[m][x[k] : x[k + 1]] for m, x in cuts.items()})
        passes.append(work_of(model)([a, part, c], config)[0])
    np.testing.assert_allclose(found[0][[0, 2]], np.mean(passes, axis=0)[[0, 2]], atol=1e-12)
    shares = np.array([16, 16, 17]) / 49
    np.testing.assert_allclose(found[0][1], shares @ np.array(passes)[:, 1], atol=1e-12)
    np.testing.assert_allclose(found[0][3:], work_of(model)(others, config)[0], atol=1e-12)
