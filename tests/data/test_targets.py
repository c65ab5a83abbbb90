"""The target: what labels are, and seven classes out of intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmsa.config import TargetConfig
from gmsa.data import IGNORED, INTENSITY_CLASSES, Target
from gmsa.data.targets import describe_target

MOSI = Target()
SIMS = Target("intensity", -1.0, 1.0, (), "sims")
EMOTION = Target("classes", classes=("anger", "joy", "neutral"), metrics="classes")
TABLE = [
    (-3.0, 0),
    (-2.51, 0),
    (-2.5, 1),
    (-1.6, 1),
    (-1.5, 2),
    (-0.6, 2),
    (-0.5, 3),
    (0.0, 3),
    (0.4, 3),
    (0.5, 4),
    (1.4, 4),
    (1.5, 5),
    (2.4, 5),
    (2.5, 6),
    (3.0, 6),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(-3.0, 3.0), (-1.0, 1.0), (1.0, 5.0), (0.0, 100.0)])
def test_half_open_bins(dtype: torch.dtype, low: float, high: float) -> None:
    labels = torch.tensor([(value + 3) / 6 * (high - low) + low for value, _ in TABLE], dtype=dtype)
    classes = Target("intensity", low, high).to_class(labels)
    assert classes.dtype == torch.int64
    assert classes.tolist() == [expected for _, expected in TABLE]


def test_labels_of_ch_sims_on_its_own_scale() -> None:
    # Multiples of 0.2, times three: -3 -2.4 -1.8 -1.2 -0.6 0 ...
    labels = torch.arange(-5, 6).float() / 5
    assert SIMS.to_class(labels).tolist() == [0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6]


def test_every_edge_survives_storage_as_float32() -> None:
    for edge, upper in [(-2.5, 1), (-1.5, 2), (-0.5, 3), (0.5, 4), (1.5, 5), (2.5, 6)]:
        stored = torch.tensor([np.float32(edge / 3)])
        assert SIMS.to_class(stored).item() == upper
        assert SIMS.to_class(stored - 1e-4).item() == upper - 1


def test_out_of_range_nan_and_shape() -> None:
    labels = torch.tensor([[-9.0, 9.0], [float("nan"), 0.0]])
    assert MOSI.to_class(labels).tolist() == [[0, 6], [IGNORED, 3]]
    assert MOSI.to_class(torch.zeros(0)).shape == (0,)
    assert MOSI.num_classes == INTENSITY_CLASSES == 7


def test_classes_are_numbers_already() -> None:
    assert EMOTION.to_class(torch.tensor([0.0, 2.0, float("nan")])).tolist() == [0, 2, IGNORED]
    assert (EMOTION.num_classes, EMOTION.class_names) == (3, ("anger", "joy", "neutral"))
    assert [EMOTION.name_of(label) for label in (0.0, 1.0)] == ["anger", "joy"]


@pytest.mark.parametrize(
    ("target", "held", "not_held"),
    [
        (MOSI, [-3, 3.0000001, 0.1], [3.1, -9, float("nan"), float("inf")]),
        (SIMS, [-1, 1], [1.2, -3]),
        (EMOTION, [0, 1, 2.0], [3, -1, 0.5, float("nan")]),
    ],
)
def test_holds(target: Target, held: list[float], not_held: list[float]) -> None:
    assert all(map(target.holds, held))
    assert not any(map(target.holds, not_held))


@pytest.mark.parametrize(
    ("settings", "target", "words"),
    [
        ({}, MOSI, "intensity in [-3, 3]"),
        ({"preset": "sims"}, SIMS, "intensity in [-1, 1]"),
        ({"range": (-1, 1)}, SIMS, "intensity in [-1, 1]"),
        ({"range": (1, 5)}, Target("intensity", 1.0, 5.0, (), "intensity"), "intensity in [1, 5]"),
        (
            {"kind": "classes", "classes": ("anger", "joy", "neutral")},
            Target("classes", -3.0, 3.0, ("anger", "joy", "neutral"), "classes"),
            "3 classes: anger, joy, neutral",
        ),
    ],
)
def test_of_settings_and_back(settings: dict, target: Target, words: str) -> None:
    before = TargetConfig(**settings)
    assert Target.of(before) == target
    assert Target.of(target.settings(before)) == target
    assert describe_target(target) == words
