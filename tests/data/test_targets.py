"""Seven classes out of intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmsa.data import IGNORED, NUM_CLASSES, limit, to_class

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
@pytest.mark.parametrize(("label_scale", "scale"), [("mosi", 1.0), ("sims", 1 / 3)])
def test_half_open_bins(dtype, label_scale, scale):
    labels = torch.tensor([value * scale for value, _ in TABLE], dtype=dtype)
    classes = to_class(labels, label_scale)
    assert classes.dtype == torch.int64
    assert classes.tolist() == [expected for _, expected in TABLE]


def test_labels_of_ch_sims_on_its_own_scale():
    # Multiples of 0.2, times three: -3 -2.4 -1.8 -1.2 -0.6 0 ...
    labels = torch.arange(-5, 6).float() / 5
    assert to_class(labels, "sims").tolist() == [0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6]


def test_every_edge_survives_storage_as_float32():
    for edge, upper in [(-2.5, 1), (-1.5, 2), (-0.5, 3), (0.5, 4), (1.5, 5), (2.5, 6)]:
        stored = torch.tensor([np.float32(edge / 3)])
        assert to_class(stored, "sims").item() == upper
        assert to_class(stored - 1e-4, "sims").item() == upper - 1


def test_out_of_scale_nan_and_shape():
    labels = torch.tensor([[-9.0, 9.0], [float("nan"), 0.0]])
    assert to_class(labels).tolist() == [[0, 6], [IGNORED, 3]]
    assert (limit("mosi"), limit("sims"), NUM_CLASSES) == (3.0, 1.0, 7)
    assert to_class(torch.zeros(0)).shape == (0,)
