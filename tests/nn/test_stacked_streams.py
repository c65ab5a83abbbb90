"""Streams side by side give what each gives alone, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import clips, collate
from helpers.sslmm import DIMS, config_of, model_of

from gmsa.nn.streams import stacked as stacked_streams


@pytest.mark.parametrize("layers", [{"layers": 1}, {"layers": 3}, {"layers": 2, "shared_layers": False}])
def test_they_equal_streams_one_by_one(monkeypatch: pytest.MonkeyPatch, layers: dict[str, int | bool]) -> None:
    config = config_of("semi_iin", model={"route": "dense", "dropout": 0, "input_dropout": 0, **layers})
    model = model_of(config).train()
    batch = collate(clips(DIMS, 9, per_video=3), config)
    batch = batch.map(lambda x: x.double() if x.is_floating_point() else x)
    found, calls = [], []
    whole = stacked_streams.stacked_streams
    monkeypatch.setattr("gmsa.models.semi_iin.stacked_streams", lambda *a: (calls.append(1), whole(*a))[1])
    for pays in (False, True):
        monkeypatch.setattr(stacked_streams, "_pays", lambda x, pays=pays: pays)
        model.zero_grad()
        output = model(batch)
        (output.value.square().sum() + output.logits.log_softmax(-1)[:, 0].sum() + output.gate.sum()).backward()
        found.append([output.value, output.logits, output.gate, *(p.grad for p in model.parameters())])
    assert calls == [1]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)
    assert all(torch.isfinite(x).all() for x in found[0] if x is not None)
