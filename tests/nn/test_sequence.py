"""Encoders of a dialogue's utterances, against PyTorch's own on each dialogue alone and against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.nn import RecurrentEncoder, SequenceEncoder, WindowEncoder
from gmsa.nn.edges import within_reach

SIZES = [3, 1, 12, 2]
CHANNELS = 8
BUILD = {
    "gru": lambda: RecurrentEncoder(CHANNELS),
    "causal gru": lambda: RecurrentEncoder(CHANNELS, causal=True),
    "transformer": lambda: WindowEncoder(CHANNELS, 2, past=2, future=1, distances=1),
    "whole transformer": lambda: WindowEncoder(CHANNELS, 2, past=1_000_000, future=1_000_000, distances=3),
    "causal transformer": lambda: WindowEncoder(CHANNELS, 2, past=10, future=0),
}
CAUSAL = [name for name in BUILD if name.startswith("causal")]
every_encoder = pytest.mark.parametrize("name", BUILD)


def encoder(name: str) -> nn.Module:
    """One whose weights are all drawn, those that start as zeros too."""
    torch.manual_seed(4)
    found = BUILD[name]().double().eval()
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.5)
    return found


def states(count: int = sum(SIZES)) -> Tensor:
    return torch.randn(count, CHANNELS, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def recurrent_by_pytorch(model: RecurrentEncoder, x: Tensor) -> Tensor:
    """One dialogue alone, forwards and backwards by GRUs of their own."""
    heard = []
    for suffix in ("", "_reverse") if model.gru.bidirectional else ("",):
        gru = nn.GRU(CHANNELS, model.gru.hidden_size).double()
        gru.load_state_dict({k: getattr(model.gru, k + suffix) for k in gru.state_dict()})
        heard.append(gru(x.flip(0))[0].flip(0) if suffix else gru(x)[0])
    return x + torch.cat(heard, dim=1) @ model.out.weight.T + model.out.bias


def window_by_loop(model: WindowEncoder, x: Tensor) -> Tensor:
    """One dialogue alone, an utterance after the other."""
    normed, layer, rows = model.norm_in(x), model.attention, []
    key, value = layer.key_value(normed).chunk(2, dim=1)
    for i, query in enumerate(layer.query(normed)):
        reach = [j for j in range(len(x)) if i - model.past <= j <= i + model.future]
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            most = model.distances
            bias = torch.stack([layer.bias[max(-most, min(most, j - i)) + most, h] for j in reach])
            share = torch.softmax(key[reach, part] @ query[part] / 2 + bias, dim=0)
            heads.append(share @ value[reach, part])
        rows.append(torch.cat(heads))
    y = x + layer.out(torch.stack(rows))
    first, _, last = model.ffn
    return y + last(F.relu(first(model.norm_mid(y))))


@every_encoder
def test_each_dialogue_is_encoded_alone(name: str) -> None:
    model, x = encoder(name), states()
    alone = recurrent_by_pytorch if isinstance(model, RecurrentEncoder) else window_by_loop
    expected = torch.cat([alone(model, part) for part in x.split(SIZES)])
    torch.testing.assert_close(model(x, SIZES), expected, rtol=1e-10, atol=1e-12)


@every_encoder
def test_gradients_are_those_of_each_dialogue_alone(name: str) -> None:
    model, found = encoder(name), []
    alone = recurrent_by_pytorch if isinstance(model, RecurrentEncoder) else window_by_loop
    for one_by_one in (False, True):
        x = states().requires_grad_()
        if one_by_one and isinstance(model, RecurrentEncoder):
            y = torch.cat([model(part, [len(part)]) for part in x.split(SIZES)])
        else:
            y = torch.cat([alone(model, part) for part in x.split(SIZES)]) if one_by_one else model(x, SIZES)
        found.append(torch.autograd.grad(y.sin().sum(), [x, *model.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@every_encoder
def test_the_rest_of_a_batch_changes_nothing(name: str) -> None:
    model, x = encoder(name), states()
    dialogue, rest = states(5) + 1, x * 100
    alone = model(dialogue, [5])
    for sizes, before in (([5, *SIZES], 0), ([*SIZES, 5], len(x)), ([12, 5, 6], 12)):
        batch = torch.cat([rest[:before], dialogue, rest[before:]])
        torch.testing.assert_close(model(batch, sizes)[before : before + 5], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_one_hears_nothing_later(name: str) -> None:
    model, x = encoder(name), states(6)
    whole = model(x, [6])
    for i in range(1, 6):
        changed = x.clone()
        changed[i:] += 1
        after = model(changed, [6])
        assert torch.equal(after[:i], whole[:i])
        assert (after[i:] != whole[i:]).any(1).all()


def test_a_window_hears_its_reach_alone() -> None:
    model, x = encoder("transformer"), states(9).requires_grad_()
    for i in range(9):
        (gradient,) = torch.autograd.grad(model(x, [9])[i].sum(), [x])
        assert gradient.any(1).nonzero().flatten().tolist() == [j for j in range(9) if i - 2 <= j <= i + 1]


@pytest.mark.parametrize("name", [name for name in BUILD if name not in CAUSAL])
def test_the_order_counts(name: str) -> None:
    model, x = encoder(name), states(6)
    assert not torch.allclose(model(x.flip(0), [6]).flip(0), model(x, [6]), atol=1e-3)


@every_encoder
def test_it_starts_as_the_identity_and_learns(name: str) -> None:
    model = BUILD[name]().double()
    assert torch.equal(model(states(), SIZES), states())
    for _ in range(2):  # what is behind zeros learns from the second step on
        model.zero_grad()
        model(states(), SIZES).square().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad
    assert all(p.grad.any() for n, p in model.named_parameters() if n != "attention.key_value.bias"), name


def test_mixed_precision_leaves_a_recurrent_encoder_exact() -> None:
    model, x = encoder("gru").float(), states().float()
    exact = model(x, SIZES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x, SIZES), exact)
        mixed = model(x.bfloat16(), SIZES)
    torch.testing.assert_close(mixed, model(x.bfloat16().float(), SIZES))


def test_each_modality_has_weights_of_its_own() -> None:
    model = SequenceEncoder(["text", "voice"], BUILD["gru"]).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = states()
    found = model({"text": x, "voice": x, "more": x}, SIZES)
    assert list(found) == ["text", "voice"]
    assert not torch.allclose(found["text"], found["voice"], atol=1e-2)
    torch.testing.assert_close(model({"voice": x, "text": x + 1}, SIZES)["voice"], found["voice"])


@pytest.mark.parametrize(("past", "future"), [(0, 0), (2, 1), (0, 3), (10**6, 10**6)])
def test_edges_within_reach_stay_in_their_dialogue(past: int, future: int) -> None:
    of = [d for d, size in enumerate(SIZES) for _ in range(size)]
    count = len(of)
    expected = [(j, i) for i in range(count) for j in range(count) if of[i] == of[j] and i - past <= j <= i + future]
    assert [tuple(e) for e in within_reach(torch.tensor(SIZES), past, future).T.tolist()] == expected
