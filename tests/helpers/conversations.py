"""Models of conversations for tests: ragged dialogues, the fact-sheet's toy graph, and their parts in plain loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.graph import GraphBatch
from gmsa.models import Conversation, Output, build_model
from helpers.graphs import clip, collate

DIMS = {"text": 4, "audio": 2}
LENGTHS = [(2, 3), (1, 0), (0, 0), (3, 1), (0, 2)]
SPEAKERS = ("ann", "bob", "ann", "eve", "bob")
CONTEXTS: dict[str, dict[str, Any]] = {
    "window": {"past": 2, "future": 1},
    "distances": {"past": 3, "future": 2, "distances": 3, "speakers": "same_other"},
    "pairs": {"past": "all", "future": "all", "speakers": ["ann", "bob"]},
    "causal": {"past": 2, "future": 0, "distances": 2, "speakers": ["ann", "bob"]},
}


def config_of(name: str, scope: str = "dialogue", graph: Mapping[str, Any] | None = None, **groups: Any) -> Config:
    model = {"name": name, "channels": 8, "heads": 2, "encoders": {"others": [[3, 1]]}} | groups.pop("model", {})
    graphs = {"scope": scope} | dict(graph or {})
    return from_dict({"data": {"modalities": [*DIMS]}, "model": model, "graph": graphs, **groups})


def model_of(config: Config) -> Conversation:
    """A model in float64 whose every parameter matters."""
    torch.manual_seed(0)
    model = build_model(DIMS, config).double().eval()
    assert isinstance(model, Conversation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def dialogue(name: str, count: int, first: int = 0) -> list[Utterance]:
    """Utterances of one dialogue, of which some lack a modality and one has none."""
    return [
        clip(f"{name}$_${i}", DIMS, LENGTHS[(first + i) % 5], speaker=SPEAKERS[(first + i) % 5], label=float(i % 3))
        for i in range(count)
    ]


def say(model: Conversation, config: Config, utterances: Sequence[Utterance]) -> Output:
    batch = collate(utterances, config)
    output: Output = model(replace(batch, features={m: x.double() for m, x in batch.features.items()}))
    return output


def answers(model: Conversation, config: Config, utterances: Sequence[Utterance]) -> Tensor:
    """Intensity, class scores and features of each utterance."""
    with torch.no_grad():
        output = say(model, config, utterances)
    assert output.value is not None
    return torch.cat([output.value[:, None], output.logits, output.features], dim=1)


# --- the whole of a model in plain loops -----------------------------------------------------------------------------


class Turns:
    """What loops know of one dialogue: who hears whom, and by which relation."""

    def __init__(self, utterances: Sequence[Utterance], graph: Mapping[str, Any]) -> None:
        self.count, self.graph = len(utterances), graph
        self.speakers = [u.speaker for u in utterances]
        self.causal = graph["future"] == 0

    def heard(self, i: int) -> list[int]:
        """The utterances that i hears, itself too."""
        past, future = (99 if self.graph[k] == "all" else self.graph[k] for k in ("past", "future"))
        return [j for j in range(self.count) if i - past <= j <= i + future]

    def pair(self, j: int, i: int) -> int:
        """The number of the speakers of source j and target i."""
        setting = self.graph.get("speakers", "none")
        if setting == "none":
            return 0
        if setting == "same_other":
            return int(self.speakers[j] != self.speakers[i])
        number = {name: k for k, name in enumerate(setting)}
        source, target = (number.get(self.speakers[k], len(setting)) for k in (j, i))
        return source * (len(setting) + 1) + target

    def turn(self, j: int, i: int) -> int:
        """The relation of DialogueGCN and COGMEN."""
        return 2 * self.pair(j, i) + (j >= i)


Converse = Callable[[Any, list[Tensor], Turns], list[Tensor]]
"""A model's ``converse`` on one dialogue, from the joined states of its utterances."""


def twin(
    model: Conversation, dialogues: Sequence[Sequence[Utterance]], graph: Mapping[str, Any], converse: Converse
) -> list[Tensor]:
    """Intensity and class scores in scope ``dialogue``: the mean of each modality's tokens or the learned token, type,
    place, what the model makes of them, and the heads."""
    found, order = [], model.embedding.schema.node_types
    for utterances in dialogues:
        states = []
        for i, utterance in enumerate(utterances):
            parts = []
            for m in model.modalities:
                (conv,), steps = model.embedding.encoders[m].convs, utterance.features[m].double()
                row = model.embedding.missing[m]
                if len(steps):
                    row = F.conv1d(steps.T, conv.weight, conv.bias, padding=1).T.mean(0)
                parts.append(row + model.embedding.node_type[order.index(m)] + model.embedding.position[i])
            states.append(torch.cat(parts))
        found += [_predict(model, row) for row in converse(model, states, Turns(utterances, graph))]
    return found


def _predict(model: Conversation, row: Tensor) -> Tensor:
    mlp, value, classes = model.heads.mlp[0], model.heads.value, model.heads.classes
    hidden = linear(mlp, linear(model.join, row)).clamp(min=0)
    return torch.cat([linear(value, hidden), linear(classes, hidden)])


def assert_equals_its_twin(name: str, context: str, converse: Converse) -> None:
    """Values, and gradients of every parameter, on ragged dialogues, in scope ``dialogue`` and ``hierarchical``."""
    graph, dialogues = CONTEXTS[context], [dialogue("a", 5), dialogue("b", 1, first=1), dialogue("c", 4, first=3)]
    config = config_of(name, "dialogue", graph)
    model = model_of(config)
    output = say(model, config, [u for one in dialogues for u in one])
    assert output.value is not None
    rows = torch.cat([output.value[:, None], output.logits], dim=1)
    _assert_equal(model, rows, torch.stack(twin(model, dialogues, graph, converse)))
    assert all(p.grad is not None for p in model.parameters())
    config = config_of(name, "hierarchical", graph, model={"context_layers": 2})
    model = model_of(config)
    said: dict[str, Any] = {}

    def spy(states: Mapping[str, Tensor], batch: GraphBatch) -> Tensor:
        said.update(states=torch.cat([*states.values()], dim=1), rows=type(model).converse(model, states, batch))
        return said["rows"]

    model.converse = spy
    say(model, config, [u for one in dialogues for u in one])
    expected, states = [], said["states"].split([len(one) for one in dialogues])
    for one, part in zip(dialogues, states, strict=True):
        expected += converse(model, [*part], Turns(one, graph))
    _assert_equal(model, said["rows"], torch.stack(expected))


def _assert_equal(model: nn.Module, rows: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(rows, expected, rtol=1e-10, atol=1e-11)
    gradients = []
    for found in (rows, expected):
        model.zero_grad()
        found.sin().sum().backward(retain_graph=True)
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def linear(layer: nn.Linear, row: Tensor) -> Tensor:
    found = layer.weight @ row
    return found if layer.bias is None else found + layer.bias


def lstm(layer: nn.LSTM, rows: Sequence[Tensor]) -> list[Tensor]:
    """Layer by layer, step by step, in both directions if it has two."""
    for number in range(layer.num_layers):
        ways = []
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            wi, wh, bi, bh = (getattr(layer, f"{k}_l{number}{suffix}") for k in _LSTM)
            h = c = rows[0].new_zeros(layer.hidden_size)
            said = []
            for row in reversed(rows) if suffix else rows:
                i, f, g, o = (wi @ row + bi + wh @ h + bh).chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                said.append(h)
            ways.append(said[::-1] if suffix else said)
        rows = [torch.cat(parts) for parts in zip(*ways, strict=True)]
    return [*rows]


_LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def nodal(layer: Any, h: Sequence[Tensor], causal: bool, tanh: bool = False) -> list[Tensor]:
    """Nodal attention."""
    found = []
    for i, row in enumerate(h):
        among = h[: i + 1] if causal else h
        scores = torch.stack([linear(layer.score, row) @ other for other in among])
        weights = (scores.tanh() if tanh else scores).exp()
        found.append(sum(w * other for w, other in zip(weights / weights.sum(), among, strict=True)))
    return found


# --- the toy graph ----------------------------------------------------------------------------------------------------

TOY = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
"""Features g of three utterances, of speakers 0, 1, 0, each of which hears its neighbours and itself."""
ROOT = torch.tensor([[0.2, 0.1], [-0.1, 0.3]], dtype=torch.float64)
U = torch.tensor([[0.5, 0.1], [-0.2, 0.4]], dtype=torch.float64)
U_ROOT = torch.tensor([[0.3, 0.0], [0.1, -0.2]], dtype=torch.float64)


def toy_weight(r: int) -> Tensor:
    """W_r."""
    return torch.tensor([[0.1 * (r + 1), 0.05 * (r - 3)], [-0.02 * r, 0.1 * (8 - r)]], dtype=torch.float64)


def toy_graph(name: str) -> tuple[Config, GraphBatch]:
    """Its graph, in which a third speaker could speak too."""
    graph = {"past": 1, "future": 1, "speakers": ["ann", "bob"]}
    config = config_of(name, "dialogue", graph, model={"channels": 2, "heads": 1})
    speakers = ("ann", "bob", "ann")
    return config, collate([clip(f"a$_${i}", DIMS, (1, 1), speaker=s) for i, s in enumerate(speakers)], config)


def turn_weights() -> Iterator[tuple[int, Tensor]]:
    """W_r of two speakers at the number that its relation has where a third could speak: 2 S s_j + 2 s_i + time."""
    for r in range(8):
        pair, time = divmod(r, 2)
        source, target = divmod(pair, 2)
        yield 2 * (3 * source + target) + time, toy_weight(r)


class Fixed(nn.Module):
    """An encoder that gives the toy features."""

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        assert len(x) == sum(sizes) == len(TOY)
        return TOY
