"""The consistency loss, and the loss of stage two, against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.sslmm import config_of, task_of

from gmsa.config import MODALITIES
from gmsa.models import Output
from gmsa.training.losses import consistency, loss, reconstruction


def test_consistency_equals_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    value, teacher_values = torch.randn(10, generator=rng), torch.randn(4, 10, generator=rng)
    variances = [float(np.var(teacher_values[:, i].numpy(), ddof=1)) for i in range(10)]
    limit = np.quantile(np.float32(variances), 0.7)
    terms = []
    for i in range(10):
        if variances[i] <= limit:
            apart = abs(float(value[i]) - float(teacher_values[:, i].mean()))
            terms.append(np.exp(-variances[i]) * (apart**2 / 2 if apart <= 1 else apart - 0.5))
    assert len(terms) == 7
    assert float(consistency(value, teacher_values, 0.7)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_a_single_pass_is_as_certain_as_it_is_near_to_the_student() -> None:
    """Its variance is that of two predictions, (a - b)^2 / 2; it weighs and chooses, and has no gradient."""
    value, taught = torch.tensor([0.5, -2.0, 1.0], requires_grad=True), torch.tensor([[0.0, 1.0, 1.4]])
    found = consistency(value, taught, 0.5)
    weights = np.exp(-(np.array([0.5, 0.4]) ** 2) / 2)  # the second is the least certain
    assert float(found) == pytest.approx((weights * np.array([0.5, 0.4]) ** 2 / 2).mean())
    found.backward()
    np.testing.assert_allclose(value.grad, [weights[0] * 0.5 / 2, 0, weights[1] * -0.4 / 2], rtol=1e-5)
    likely, taught = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[[0.3, 0.7], [0.0, 1.0]]])
    assert float(consistency(likely, taught, 0.5)) == pytest.approx(np.exp(-(0.2**2)) * 2 * 0.2**2)


class Teacher(torch.nn.Module):
    """Predicts of an utterance its number of text steps, and records the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, list[list[int]]]] = []

    def forward(self, batch: Any) -> Output:
        lengths = [batch.lengths[m].tolist() for m in MODALITIES]
        self.seen.append((self.training, lengths))
        value = batch.lengths["text"].double() + len(self.seen)
        return Output(value, torch.zeros(len(value), 7), None, value[:, None])


@pytest.mark.parametrize(
    ("done", "risen", "passes"), [(0.0, 0.0, 3), (0.1, 0.25, 3), (0.4, 1.0, 3), (0.9, 1.0, 3), (0.9, 1.0, 1)]
)
def test_the_loss_of_stage_two_is_its_formula(utterances, done: float, risen: float, passes: int) -> None:
    config = config_of(
        reconstruction={"weight": 0.5},
        model={"modality_dropout": dict.fromkeys(MODALITIES, 0.6)},
        consistency={"weight": 3.0, "ramp": 0.4, "confident_share": 0.7, "passes": passes},
        optim={"batch_size": 16},
    )
    task = task_of(utterances, config)
    torch.manual_seed(0)
    model, teacher = task.build_module().double().eval(), Teacher().eval()
    (pair,) = task.batches(1, "stage", 1)
    assert pair is not None
    value = task.loss(model, pair, teacher, done).detach()
    batch, targets = pair

    by_id = {u.id: u for u in utterances}
    whole = [[by_id[name].lengths[m] for name in batch.ids] for m in MODALITIES]
    assert teacher.seen == [(True, whole)] * passes  # with dropout, as often as asked, and nothing dropped
    assert [batch.lengths[m].tolist() for m in MODALITIES] != whole
    output = model(batch)
    teacher_values = torch.tensor(whole[0]).double() + torch.arange(1, passes + 1)[:, None]
    expected = loss(output, targets, 0.6, 0.2)
    expected = expected + risen * 3.0 * consistency(output.value, teacher_values, 0.7)
    expected = expected + 0.5 * reconstruction(model, output, targets.hidden)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert targets.hidden
    assert float(consistency(output.value, teacher_values, 0.7)) > 0.1
