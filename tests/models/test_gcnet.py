"""GCNet: worked numbers, and its equations in plain loops."""

from __future__ import annotations

import pytest
import torch
from helpers import conversations as talk
from torch import Tensor, nn
from torch_geometric.nn import GraphConv, RGCNConv

from gmsa.models import GCNet, Output
from gmsa.models.gcnet import Branch
from gmsa.nn import WeightedRGCN
from gmsa.training.losses import reconstruction


def toy_branch(branch: Branch, relations: int) -> None:
    """Convolutions of two channels with the toy graph's weights; of other speakers than two they are none."""
    branch.rgcn, branch.conv = WeightedRGCN(2, 2, relations).double(), GraphConv(2, 2).double()
    with torch.no_grad():
        branch.rgcn.weight.zero_()
        for r in range(3 if relations == 3 else 4):
            branch.rgcn.weight[r if relations == 3 else 3 * (r // 2) + r % 2] = talk.toy_weight(r)
        branch.rgcn.root.copy_(talk.ROOT)
        branch.conv.lin_rel.weight.copy_(talk.U.T)
        branch.conv.lin_root.weight.copy_(talk.U_ROOT.T)
        branch.conv.lin_rel.bias.zero_()


def test_the_worked_example() -> None:
    config, batch = talk.toy_graph("gcnet")
    model = talk.model_of(config)
    assert isinstance(model, GCNet)
    model.encoder = talk.Fixed()
    seen: dict[str, Tensor] = {}
    for name, relations in (("temporal", 3), ("speaker", 9)):
        branch = getattr(model, name)
        assert branch.rgcn.relations == relations
        toy_branch(branch, relations)
        branch.lstm, branch.out = First(), nn.Identity()
        branch.rgcn.register_forward_hook(lambda _, __, y, k=f"{name} rgcn": seen.update({k: y}))
        branch.conv.register_forward_hook(lambda _, __, y, k=f"{name} conv": seen.update({k: y}))
    found = model.converse({m: torch.zeros(3, 2, dtype=torch.float64) for m in talk.DIMS}, batch)
    expected = {
        "temporal rgcn": [[0.36, 0.60], [0.24, 1.40], [0.28, 1.80]],
        "temporal conv": [[0.068, 0.740], [-0.108, 1.328], [-0.116, 0.972]],
        "speaker rgcn": [[0.26, 0.55], [0.03, 1.05], [0.16, 1.65]],
        "speaker conv": [[-0.042, 0.559], [-0.311, 1.135], [-0.232, 0.769]],
    }
    for name, rows in expected.items():
        torch.testing.assert_close(seen[name], talk.TOY.new_tensor(rows), rtol=0, atol=1e-9)
    both = [torch.cat([talk.TOY, seen[f"{name} conv"]], dim=1).relu() for name in ("temporal", "speaker")]
    torch.testing.assert_close(found, both[0] + both[1])


class First(nn.Module):
    """An LSTM that says what it hears."""

    def forward(self, x: Tensor, sizes: object) -> Tensor:
        return x


def converse(model: GCNet, states: list[Tensor], turns: talk.Turns) -> list[Tensor]:
    """Its equations, utterance by utterance."""
    g = talk.lstm(model.encoder.lstm, states)

    def branch(part: Branch, relation: object) -> list[Tensor]:
        u, f = [], []
        for i in range(turns.count):
            row = g[i] @ part.rgcn.root + part.rgcn.bias
            for r in {relation(j, i) for j in turns.heard(i)}:
                of_relation = [j for j in turns.heard(i) if relation(j, i) == r]
                row = row + sum(g[j] @ part.rgcn.weight[r] for j in of_relation) / len(of_relation)
            u.append(row)
        for i in range(turns.count):
            heard = sum(u[j] for j in turns.heard(i))
            f.append(talk.linear(part.conv.lin_rel, heard) + u[i] @ part.conv.lin_root.weight.T)
        h = talk.lstm(part.lstm.lstm, [torch.cat(pair) for pair in zip(g, f, strict=True)])
        if part.attention is not None:
            h = talk.nodal(part.attention, h, turns.causal, tanh=True)
        return [talk.linear(part.out, row).clamp(min=0) for row in h]

    temporal = branch(model.temporal, lambda j, i: 1 + (j > i) - (j < i))
    speaker = branch(model.speaker, turns.pair)
    return [a + b for a, b in zip(temporal, speaker, strict=True)]


@pytest.mark.parametrize("context", talk.CONTEXTS)
@pytest.mark.parametrize("name", ["gcnet", "gcnet(time_attention=true)"])
def test_it_equals_its_twin(name: str, context: str) -> None:
    talk.assert_equals_its_twin(name, context, converse)


def test_widths_are_those_of_the_released_code() -> None:
    model = talk.model_of(talk.config_of("gcnet", model={"channels": 16}))
    for part in (model.temporal, model.speaker):
        assert (part.rgcn.root.shape, part.width, part.lstm.lstm.hidden_size) == ((16, 4), 20, 20)
    assert talk.model_of(talk.config_of("gcnet", model={"channels": 2, "heads": 1})).temporal.width == 3


def test_with_one_speaker_that_branch_is_a_mean() -> None:
    config = talk.config_of("gcnet", "dialogue", talk.CONTEXTS["window"])
    model = talk.model_of(config)
    conv = RGCNConv(8, 2, 1).double()
    with torch.no_grad():
        for name, weight in (("weight", "weight"), ("root", "root"), ("bias", "bias")):
            getattr(conv, name).copy_(getattr(model.speaker.rgcn, weight))
    seen = {}
    model.speaker.rgcn.register_forward_hook(lambda _, inputs, y: seen.update(inputs=inputs, y=y))
    talk.answers(model, config, talk.dialogue("a", 5))
    g, index, relation = seen["inputs"]
    assert not relation.any()
    torch.testing.assert_close(seen["y"], conv(g, index, relation))


def test_reversed_time_with_past_and_future_swapped_reverses_the_rows() -> None:
    torch.manual_seed(0)
    branch, g = Branch(8, 3, 1, 0.0, False, False).double(), torch.randn(7, 8, dtype=torch.float64)
    index = torch.tensor([(j, i) for i in range(7) for j in range(7) if abs(i - j) <= 2]).T
    relation = (index[0] - index[1]).sign() + 1
    f = branch.conv(branch.rgcn(g, index, relation), index)
    with torch.no_grad():
        branch.rgcn.weight.copy_(branch.rgcn.weight[[2, 1, 0]])
    torch.testing.assert_close(branch.conv(branch.rgcn(g.flip(0), index, relation), index).flip(0), f)


# --- reconstruction ---------------------------------------------------------------------------------------------------


class Says:
    """What a model with reconstruction would predict."""

    def __init__(self, predicted: dict[str, Tensor]) -> None:
        self.predicted, self.reconstruction = predicted, self

    def reconstruct(self, output: Output, modality: str, rows: Tensor) -> Tensor:
        return self.predicted[modality].index_select(0, rows)

    def standardize(self, features: Tensor, modality: str) -> Tensor:
        return features


def test_its_loss_of_reconstruction_is_gmsas_where_each_utterance_lacks_one_modality() -> None:
    """Worked example: 0.625 over U = 2 utterances. We divide by the R missing ones, of which there are 2 too."""
    predicted = {
        "audio": torch.tensor([[0.5], [1.0]], requires_grad=True),
        "text": torch.tensor([[2.5, 2.0], [0.0, 0.0]], requires_grad=True),
    }
    output = Output(torch.zeros(2), torch.zeros(2, 7), None, torch.zeros(2, 1))
    hidden = {
        "audio": (torch.tensor([0]), torch.tensor([[1.0]])),
        "text": (torch.tensor([1]), torch.tensor([[1.0, -1.0]])),
    }
    found = reconstruction(Says(predicted), output, hidden)
    found.backward()
    assert found.item() == 0.625
    assert not predicted["audio"].grad[1].any()  # which is observed
    assert not predicted["text"].grad[0].any()
    assert reconstruction(Says(predicted), output, {}).item() == 0
    # GCNet divides by both utterances where one of them lacks one: half of ours.
    one = reconstruction(Says(predicted), output, {"audio": hidden["audio"]})
    assert one.item() / 2 == pytest.approx((0.5 - 1) ** 2 / 2)
