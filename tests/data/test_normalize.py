"""Features are scaled by what the training split shows, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from gmsa.data import Normalizer, Utterance, from_mmsa, read_mmsa


def utterance(name, **features):
    return Utterance(name, {m: torch.tensor(x, dtype=torch.float32) for m, x in features.items()})


def brute_force(train, one, modality, clip):
    """Feature by feature, step by step, in Python floats."""
    rows = [row.tolist() for u in train for row in u.features[modality]]
    result = []
    for row in one.features[modality].tolist():
        scores = []
        for d, value in enumerate(row):
            seen = [r[d] for r in rows]
            mean = sum(seen) / len(seen)
            std = (sum((v - mean) ** 2 for v in seen) / len(seen)) ** 0.5
            constant = min(seen) == max(seen)
            scores.append(0.0 if constant else min(max((value - mean) / std, -clip), clip))
        result.append(scores)
    return torch.tensor(result).reshape(-1, one.features[modality].shape[1])


def test_equals_a_loop_over_observed_frames(mmsa_dict):
    mmsa_dict["train"]["audio"][:, :, 0] *= 300
    mmsa_dict["train"]["audio"][:, :, 1] += 1000
    mmsa_dict["train"]["audio_lengths"][0] = 0
    splits = from_mmsa(mmsa_dict, "f")
    normalizer = Normalizer.fit(splits["train"], ["audio", "vision"], clip=1.5)
    for split in splits.values():
        for one in split[:3]:
            ours = normalizer.apply(one)
            assert (ours.id, ours.label, ours.text) == (one.id, one.label, one.text)
            assert torch.equal(ours.features["text"], one.features["text"])
            for modality in ("audio", "vision"):
                assert ours.features[modality].dtype == torch.float32
                expected = brute_force(splits["train"], one, modality, 1.5)
                torch.testing.assert_close(ours.features[modality], expected, rtol=2e-6, atol=2e-6)


def test_train_gets_mean_zero_and_deviation_one(real_data):
    train = read_mmsa(real_data("mosi_dev.pkl"))["train"]
    normalizer = Normalizer.fit(train, ["audio"], clip=1e9)
    scores = torch.cat([normalizer.apply(u).features["audio"] for u in train]).double()
    varying = normalizer.stds["audio"] > 0
    assert scores.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(
        scores.std(0, correction=0)[varying], torch.ones(int(varying.sum()), dtype=torch.float64)
    )


def test_constant_features_become_zero_everywhere():
    train = [utterance("a", audio=[[0.1, 1.0], [0.1, 2.0]]), utterance("b", audio=[[0.1, 4.0]])]
    normalizer = Normalizer.fit(train, ["audio"], clip=5)
    assert normalizer.apply(train[0]).features["audio"][:, 0].tolist() == [0, 0]
    assert normalizer.apply(utterance("c", audio=[[7.0, 1.0]])).features["audio"][0, 0] == 0


def test_large_offset_keeps_small_differences():
    values = torch.linspace(0, 1, 101) + 10_000
    train = [Utterance(str(i), {"audio": v.reshape(1, 1)}) for i, v in enumerate(values)]
    normalizer = Normalizer.fit(train, ["audio"], clip=5)
    np.testing.assert_allclose(normalizer.stds["audio"], np.std(values.double().numpy()), rtol=1e-12)


def test_clips():
    train = [utterance("a", audio=[[-1.0], [1.0]])]
    normalizer = Normalizer.fit(train, ["audio"], clip=2.0)
    assert normalizer.apply(utterance("b", audio=[[9.0], [-9.0], [1.5]])).features["audio"].tolist() == [
        [2],
        [-2],
        [1.5],
    ]


def test_modality_that_train_never_shows_stays_as_it_is():
    train = [Utterance("a", {"text": torch.ones(2, 3), "vision": torch.zeros(0, 4)})]
    normalizer = Normalizer.fit(train, ["vision", "audio"], clip=5)
    assert normalizer.means["vision"].tolist() == [0] * 4
    assert normalizer.stds["vision"].tolist() == [1] * 4
    seen = utterance("b", text=[[1.0, 2, 3]], vision=[[1.0, -2, 3, 9]], audio=[[8.0]])
    ours = normalizer.apply(seen)
    assert ours.features["vision"].tolist() == [[1, -2, 3, 5]]
    assert ours.features["audio"].tolist() == [[8]]  # not in train at all: not fitted


def test_missing_modality_stays_missing(mmsa_dict):
    splits = from_mmsa(mmsa_dict, "f")
    normalizer = Normalizer.fit(splits["train"], ["audio"], clip=5)
    absent = Utterance("x", {"audio": torch.zeros(0, 3)})
    assert normalizer.apply(absent).features["audio"].shape == (0, 3)


def test_other_splits_do_not_matter_and_order_is_kept(mmsa_dict):
    splits = from_mmsa(mmsa_dict, "f")
    before = Normalizer.fit(splits["train"], ["audio"], clip=5).state()
    mmsa_dict["test"]["audio"] *= 100
    after = Normalizer.fit(from_mmsa(mmsa_dict, "f")["train"], ["audio"], clip=5).state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    one = Normalizer.from_state(before, {"text": 4, "audio": 3, "vision": 2}).apply(splits["test"][0])
    assert list(one.features) == ["text", "audio", "vision"]


@pytest.mark.parametrize("clip", [5.0, 0.1, 3])
def test_state_survives_safetensors_exactly(mmsa_dict, clip):
    splits = from_mmsa(mmsa_dict, "f")
    normalizer = Normalizer.fit(splits["train"], ["vision", "audio"], clip)
    state = load(save(normalizer.state()))
    again = Normalizer.from_state(state, {"text": 4, "audio": 3, "vision": 2})
    assert again.clip == clip
    for one in splits["test"]:
        ours, theirs = again.apply(one), normalizer.apply(one)
        assert all(torch.equal(ours.features[m], theirs.features[m]) for m in ours.features)
    assert all(torch.equal(again.state()[key], value) for key, value in state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_what_is_done_in_place_is_the_formula_up_to_rounding(dtype):
    x = torch.randn(50, 4, generator=torch.manual_seed(0)).to(dtype) * 3 + 1
    mean = torch.tensor([1.0, 0.0, -2.0, float(x[0, 3])], dtype=torch.float64)
    std = torch.tensor([3.0, 0.0, 1e-9, 0.0], dtype=torch.float64)
    expected = torch.where(std > 0, ((x.double() - mean) / std).clamp(-10, 10), 0.0).float()
    before = x.clone()
    found = Normalizer({"audio": mean}, {"audio": std}, clip=10.0).apply(Utterance("v", {"audio": x}))
    assert found.features["audio"].dtype == torch.float32
    torch.testing.assert_close(found.features["audio"], expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mean", "std"), [(1e5, 0.1), (1e4, 1e-3), (1.7e9, 1e3), (-3e3, 2e-4)])
def test_a_large_mean_is_not_rounded_away(mean, std, dtype):
    """The normalized values of features whose mean float32 cannot hold have mean 0 all the same."""
    x = (mean + std * torch.randn(2000, 1, dtype=torch.float64, generator=torch.manual_seed(0))).to(dtype)
    train = [Utterance("v", {"audio": x})]
    found = Normalizer.fit(train, ["audio"], clip=1e9).apply(train[0]).features["audio"]
    assert abs(found.double().mean()) < 1e-3
    wanted = (x.double() - x.double().mean()) / x.double().std(correction=0)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_statistics_beyond_single_precision_give_no_nan():
    x = torch.tensor([[3e38, 5.0], [-3e38, 1e30]])
    mean = torch.tensor([-3e38, 5.0], dtype=torch.float64)
    std = torch.tensor([0.0, 1e-60], dtype=torch.float64)
    found = Normalizer({"audio": mean}, {"audio": std}, clip=10.0).apply(Utterance("v", {"audio": x}))
    assert found.features["audio"].tolist() == [[0.0, 0.0], [0.0, 10.0]]
