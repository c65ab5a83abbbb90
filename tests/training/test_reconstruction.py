"""The reconstruction of missing modalities: targets and loss against loops, standardization against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers.graphs import collate
from helpers.sslmm import DIMS, config_of, model_of

from gmsa.config import MODALITIES, from_dict
from gmsa.config.groups.missing import Missing
from gmsa.data import Target, apply_missing
from gmsa.nn import (
    Standardize,
)
from gmsa.training.batches import training_batches
from gmsa.training.examples import Example, labeled_examples
from gmsa.training.losses import reconstruction
from gmsa.training.tasks import FineTuning, Pretraining


def test_standardizing_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (50, 4))
    x[:, 2] = 7
    layer = Standardize({"text": 4}).double()
    deviation = np.where(np.ptp(x, 0) > 0, x.std(0), 0)
    layer.set_statistics({"text": torch.tensor(x.mean(0))}, {"text": torch.tensor(deviation)})
    found = layer(torch.tensor(x), "text").numpy()
    keep = [0, 1, 3]
    np.testing.assert_allclose(found[:, keep], ((x - x.mean(0)) / x.std(0).clip(1e-9))[:, keep], rtol=1e-5)
    assert not found[:, 2].any()


@pytest.mark.parametrize("target", ["observed_only", "oracle"])
def test_hidden_targets_equal_a_loop(utterances, target: str) -> None:
    masked = apply_missing(utterances, Missing("eta", 0.5), MODALITIES, 3)
    whole = {u.id: u for u in utterances}
    config = config_of(reconstruction={"weight": 0.5, "target": target}, optim={"batch_size": 4})
    examples = [Example(u) for u in masked]
    pairs = 0
    for epoch in range(20):
        for batch, targets in training_batches(examples, config, 1, "s", epoch):
            for row, name in enumerate(batch.ids):
                full_view = next(u for u in masked if u.id == name)
                for m in MODALITIES:
                    shown = int(batch.lengths[m][batch.utterance_order[row]])
                    known = full_view if target == "observed_only" else whole[name]
                    expected = known.lengths[m] > 0 and shown == 0
                    rows, features = targets.hidden.get(m, (torch.tensor([]), None))
                    assert (row in rows.tolist()) == expected
                    if expected:
                        pairs += 1
                        there = features[rows.tolist().index(row)]
                        torch.testing.assert_close(there, whole[name].features[m].mean(0))
    assert pairs > 10


def test_reconstruction_equals_a_loop(utterances) -> None:
    config = config_of(reconstruction={"weight": 0.5})
    model = model_of(config)
    model.reconstruction.standardize.set_statistics(
        {m: torch.full((d,), 0.5) for m, d in DIMS.items()}, {m: torch.full((d,), 2.0) for m, d in DIMS.items()}
    )
    output = model(collate(utterances, config))
    rng = torch.Generator().manual_seed(0)
    hidden = {
        "text": (torch.tensor([1, 4]), torch.randn(2, 6, generator=rng, dtype=torch.float64)),
        "vision": (torch.tensor([0]), torch.randn(1, 5, generator=rng, dtype=torch.float64)),
    }
    errors = []
    for m, (rows, features) in hidden.items():
        for row, x in zip(rows.tolist(), features, strict=True):
            both = torch.cat([output.features[row], model.reconstruction.token[m]])
            guess = model.reconstruction.out[m](model.reconstruction.mlp(both))
            errors.append(((guess.float() - (x - 0.5) / 2) ** 2).mean())
    torch.testing.assert_close(reconstruction(model, output, hidden), torch.stack(errors).mean())
    assert reconstruction(model, output, {}) == 0


def test_a_split_that_lacks_text_reconstructs_none(real_data) -> None:
    """ICT-MMMO's training split here has no text: nothing of it is a target, and the model has no part for it."""
    from gmsa.runs.prepare import prepare

    settings = {"model": {"name": "sslmm"}, "data": {"path": str(real_data("mmmo.pkl")), "missing": "eta:0.3"}}
    config = from_dict(settings | {"reconstruction": {"weight": 0.5, "target": "oracle"}})
    prepared = prepare(config)
    dims = dict(prepared.corpus.dims)
    assert set(dims) == {"audio", "vision"}
    examples = labeled_examples(prepared.splits["train"], Target())[:64]
    task = FineTuning(config, dims, examples, [], prepared.splits["valid"], torch.device("cpu"), consistent=True)
    model = task.build_module()
    losses = [task.loss(model, batch, model, 1.0) for batch in itertools.islice(task.batches(1, "x", 1), 2)]
    assert all(torch.isfinite(x) for x in losses)
    assert set(model.reconstruction.out) == {"audio", "vision"}
    pretext = Pretraining(config, dims, [e.utterance for e in examples], prepared.splits["valid"], torch.device("cpu"))
    module = pretext.build_module()
    assert torch.isfinite(pretext.loss(module, next(iter(pretext.batches(1))), None, 0.0))
