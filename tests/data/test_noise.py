"""Noise on features: its strength, and what it may depend on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gmsa.data import Utterance, add_noise, parse_noise, signal_power
from gmsa.data.features import LazyFeatures
from gmsa.errors import ConfigError

DIMS = {"text": 8, "eeg": 5, "pose": 3}


class Stored(LazyFeatures):
    """Features that are read on access, as those of a store."""

    def __init__(self, features: Mapping[str, Tensor]) -> None:
        self.features, self.reads = features, 0

    @property
    def lengths(self) -> dict[str, int]:
        return {m: len(x) for m, x in self.features.items()}

    def __getitem__(self, modality: str) -> Tensor:
        self.reads += 1
        return self.features[modality]


def corpus(count: int = 60, lazy: bool = False) -> list[Utterance]:
    """Utterances of which each third one lacks its eeg; eeg is ten times as strong as text."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for i in range(count):
        features = {m: torch.randn(10 + i % 7, dims, generator=draw) for m, dims in DIMS.items()}
        features["eeg"] = 10 * features["eeg"][: 0 if i % 3 == 0 else None]
        found.append(Utterance(f"video{i // 10}$_${i}", Stored(features) if lazy else features, 0.5))
    return found


def stacked(utterances: list[Utterance], modality: str) -> np.ndarray:
    return torch.cat([u.features[modality] for u in utterances]).double().numpy()


@pytest.mark.parametrize("decibels", [-5.0, 0.0, 10.0])
def test_the_realized_ratio_is_the_one_asked_for(decibels: float) -> None:
    clean = corpus(300)
    noisy = add_noise(clean, {"text": decibels, "eeg": decibels}, 0, "test")
    for name in ("text", "eeg"):
        signal = stacked(clean, name)
        added = stacked(noisy, name) - signal
        assert 10 * np.log10((signal**2).mean() / (added**2).mean()) == pytest.approx(decibels, abs=0.2)
        assert stats.kstest(added.ravel() / added.std(), "norm").pvalue > 0.01
        assert abs(np.corrcoef(added[:-1, 0], added[1:, 0])[0, 1]) < 0.1
        assert abs(np.corrcoef(added[:, 0], added[:, 1])[0, 1]) < 0.1
    for before, after in zip(clean, noisy, strict=True):
        assert after.features["pose"] is before.features["pose"]
        assert after.lengths == before.lengths
        assert (after.id, after.label) == (before.id, before.label)


def test_the_power_is_of_the_steps_that_there_are() -> None:
    clean = corpus()
    power = signal_power(clean, DIMS)
    assert power == pytest.approx({m: (stacked(clean, m) ** 2).mean() for m in DIMS})
    assert power == signal_power(clean[::-1], DIMS)
    assert signal_power(clean, ["gaze"]) == {"gaze": 0}
    # With the power of the training split, that of the test split does not matter.
    louder = [Utterance(u.id, {m: 3 * x for m, x in u.features.items()}) for u in clean]
    one, other = (add_noise(us, {"text": 0.0}, 0, power=power) for us in (clean, louder))
    assert stacked(one, "text") - stacked(clean, "text") == pytest.approx(
        stacked(other, "text") - stacked(louder, "text"), abs=1e-5
    )


def test_noise_is_a_pure_function_of_seed_utterance_and_modality() -> None:
    clean = corpus()
    power = signal_power(clean, DIMS)
    noisy = add_noise(clean, {"text": 0.0, "eeg": 0.0}, 0, power=power)

    def same(others: list[Utterance], modality: str = "text") -> bool:
        by_id = {u.id: u for u in others}
        return all(torch.equal(u.features[modality], by_id[u.id].features[modality]) for u in noisy if u.id in by_id)

    assert same(add_noise(clean[::-1], {"eeg": 0.0, "text": 0.0}, 0))
    assert same(add_noise(clean[20:25], {"text": 0.0}, 0, power=power))
    assert not same(add_noise(clean, {"text": 0.0}, 1, power=power))
    noise = {m: [n.features[m] - c.features[m] for n, c in zip(noisy, clean, strict=True)] for m in ("text", "eeg")}
    assert not torch.allclose(noise["text"][1][:10, :5] * power["eeg"] ** 0.5, noise["eeg"][1][:10], atol=0.1)
    assert not torch.allclose(noise["text"][0][:10], noise["text"][1][:10], atol=0.1)
    # Less of it scales the same noise up, and longer utterances begin with the noise of shorter ones.
    louder = add_noise(clean, {"text": -20.0}, 0, power=power)
    torch.testing.assert_close(louder[3].features["text"] - clean[3].features["text"], 10 * noise["text"][3])
    short = Utterance(clean[3].id, {"text": clean[3].features["text"][:4]})
    assert torch.equal(
        add_noise([short], {"text": 0.0}, 0, power=power)[0].features["text"], noisy[3].features["text"][:4]
    )


def test_lazy_features_are_read_late_and_get_the_same_noise() -> None:
    eager, lazy = corpus(), corpus(lazy=True)
    noise, power = {"text": 3.0, "eeg": 3.0}, signal_power(eager, DIMS)
    late = add_noise(lazy, noise, 0, power=power)
    assert sum(u.features.reads for u in lazy) == 0  # type: ignore[attr-defined]
    for one, other in zip(add_noise(eager, noise, 0), late, strict=True):
        assert isinstance(other.features, LazyFeatures)
        assert other.lengths == one.lengths
        for modality, x in one.features.items():
            assert torch.equal(other.features[modality], x)
            assert x.dtype == torch.float32
    assert not late[0].present["eeg"]


def test_the_largest_and_smallest_draws_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    for extreme in (0.0, 1 - 2**-53):
        monkeypatch.setattr(
            "gmsa.data.noise.hashed_uniform", lambda *_, x=extreme: torch.full((2, 3), x, dtype=torch.float64)
        )
        (noisy,) = add_noise([Utterance("a", {"text": torch.ones(2, 3)})], {"text": 0.0}, 0)
        assert 5 < noisy.features["text"].abs().max() < 12


def test_what_has_no_noise() -> None:
    clean = corpus(3)
    assert add_noise(clean, {}, 0) == clean
    assert add_noise([], {"text": 0.0}, 0) == []
    with pytest.raises(ConfigError, match="no 'gaze' to add noise to: no utterance has it; they have text, pose, eeg"):
        add_noise(clean, {"gaze": 0.0}, 0)
    with pytest.raises(ConfigError, match="'text': all of its features are 0"):
        add_noise([Utterance("a", {"text": torch.zeros(2, 3)})], {"text": 0.0}, 0)


def test_parsing() -> None:
    assert parse_noise("text:10dB", list(DIMS)) == {"text": 10}
    assert parse_noise(" text : 2.5 , eeg:-3 DB", list(DIMS)) == {"text": 2.5, "eeg": -3}
    assert parse_noise("all:0dB", list(DIMS)) == dict.fromkeys(DIMS, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "takes a modality and decibels"),
        ("10dB", "takes a modality and decibels, as text:10dB or all:10dB .got '10dB'"),
        ("text:10dB,", "takes a modality and decibels"),
        ("text:", "takes decibels from -100 to 100"),
        ("text:loud", "got 'text:loud'"),
        ("text:nan", "takes decibels"),
        ("text:1e3dB", "takes decibels"),
        ("ege:10dB", "no modality 'ege', they have text, eeg, pose .did you mean 'eeg'"),
        ("text:1dB,text:2dB", "'text' is named twice"),
        ("all:1dB,text:2dB", "'text' is named twice"),
        ("x" * 5000 + ":1dB", "no modality"),
        ("text:" + "9" * 5000, "takes decibels"),
    ],
)
def test_what_is_wrong_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_noise(spec, list(DIMS))
    assert "--noise" in str(caught.value)
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)
