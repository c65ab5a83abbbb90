"""Pre-training that masks words before an encoder reads them, and word dropout, against loops."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.text_encoders import DIMS, NUMBER, TEXTS, make_encoder, reading, said
from torch import Tensor, nn

from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.errors import ConfigError
from gmsa.models import build_model
from gmsa.models.pretraining import PretrainingBatch, PretrainingModel
from gmsa.runs.prepare import checked_texts
from gmsa.training.batches import training_batches
from gmsa.training.examples import Example
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.tasks import Pretraining

MASK = float(NUMBER["[MASK]"])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"), dropout=0.1)


def dims_of(config: Config) -> dict[str, int]:
    return DIMS | {"text": {"pieces": 1, "words": 8, "transcript": 62}[config.text.nodes]}


def module_of(config: Config) -> PretrainingModel:
    torch.manual_seed(0)
    dims = dims_of(config)
    return PretrainingModel(build_model(dims, config), dims, config).double().eval()


def as_in(ids: tuple[str, ...], utterances: list[Utterance]) -> list[Utterance]:
    return sorted(utterances, key=lambda u: ids.index(u.id))


def doubled(utterances: list[Utterance]) -> list[Utterance]:
    return [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in utterances]


NODES = [
    {},
    {"model": {"encoders": {"text": [[4, 2]], "audio": [[4, 2]]}}},
    {"text": {"nodes": "words"}, "model": {"encoders": {"text": [[3, 2]], "audio": [[1, 1]]}}},
    {"text": {"nodes": "transcript"}, "pretrain": {"mask": 0.5}},
]


@pytest.mark.parametrize("groups", NODES, ids=["pieces", "strides", "words", "transcript"])
def test_all_pieces_of_masked_tokens_are_the_mask_piece(bert: Path, groups: dict[str, Any]) -> None:
    config = reading(bert, **groups)
    utterances = said(config, TEXTS)
    stride = config.model.stride("text")
    masked = kept = 0
    for epoch in range(3):
        (batch,) = pretraining_batches(utterances, config, 1, "pretrain", epoch)
        target, ordered = batch.targets["text"], as_in(batch.ids, utterances)
        tokens = [u.features["text"][i : i + stride] for u in ordered for i in range(0, u.lengths["text"], stride)]
        shown = batch.masked.features["text"].split([len(x) for x in tokens])
        found = iter(target.features.tolist())
        for pieces, seen, flag in zip(tokens, shown, target.flags.tolist(), strict=True):
            if flag:
                assert torch.equal(seen, torch.where(pieces >= 0, MASK, pieces))
                assert [x for x in next(found) if x >= 0] == [x for x in pieces.flatten().tolist() if x >= 0]
                masked += 1
            else:
                assert torch.equal(seen, pieces)
                kept += 1
        assert next(found, None) is None
    assert masked > 5
    assert kept > 5


def test_what_is_masked_does_not_leak_through_the_encoder(bert: Path) -> None:
    """Other words in the place of the masked ones change the targets and no state."""
    config = reading(bert)
    utterances = said(config, TEXTS)
    names = [u.id for u in utterances]
    (before,) = pretraining_batches(utterances, config, 1)
    utterances = as_in(before.ids, utterances)
    flags = before.targets["text"].flags.split([u.lengths["text"] for u in utterances])
    others = [
        replace(u, features=u.features | {"text": torch.where(gone[:, None], 7.0, u.features["text"])})
        for u, gone in zip(utterances, flags, strict=True)
    ]
    others = [next(u for u in others if u.id == name) for name in names]
    (after,) = pretraining_batches(others, config, 1)
    module = module_of(config).float()
    states = []
    for batch in (before, after):
        masked = {"audio": (batch.targets["audio"].flags, module.token["audio"])}
        states.append(module.model.nodes(module.model.embedding(batch.masked, masked), batch.masked))
    assert torch.equal(*states)
    assert not torch.equal(before.targets["text"].features, after.targets["text"].features)
    assert (after.targets["text"].features == 7).all()


class ReadsOneByOne(nn.Module):
    """What :class:`gmsa.text.TextEncoder` does, utterance by utterance, with Hugging Face's network alone."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, numbers: Tensor, lengths: Tensor) -> Tensor:
        states = [numbers.new_zeros(0, self.width)]
        for part in numbers.split(lengths.tolist()):
            ids = [[int(piece) for piece in row if piece >= 0] for row in part.tolist()]
            flat = [*itertools.chain(*ids)]
            if not flat:
                continue
            sequence = torch.tensor([[NUMBER["[CLS]"], *flat, NUMBER["[SEP]"]]])
            read = self.network(input_ids=sequence).last_hidden_state[0, 1:-1]
            states += [x.mean(0, keepdim=True) for x in read.split([len(row) for row in ids])]
        return torch.cat(states)


def errors_by_hand(module: PretrainingModel, batch: PretrainingBatch) -> Tensor:
    """The mean error of masked tokens, piece by piece and feature by feature."""
    known = {m: t for m, t in batch.targets.items() if m != "text" or module.pieces is None}
    masked = {m: (t.flags, module.token[m]) for m, t in known.items()}
    if batch.masked.dialogues is None:
        graph = batch.masked
        states = module.model.nodes(module.model.embedding(graph, masked), graph)
    else:
        graph = batch.masked.dialogues
        states = module.model.outside_nodes(module.model.embedding(batch.masked), batch.masked, masked)
    keep = torch.ones(len(states), 1, dtype=torch.float64)
    for target in known.values():
        keep[target.nodes] = 0
    decoded = module.decoder(states * keep, graph.edges["global"])
    errors = []
    for modality, target in batch.targets.items():
        for node, wanted in zip(target.nodes.tolist(), target.features, strict=True):
            if modality in known:
                guess = module.out[modality](decoded[node])
                errors.append((1 - guess @ wanted / guess.norm() / wanted.norm()) ** 2)
                continue
            hidden = module.pieces.transform[0](decoded[node])
            hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
            hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
            hidden = hidden * module.pieces.transform[2].weight + module.pieces.transform[2].bias
            table = module.model.embedding.text_encoder.network.embeddings.word_embeddings.weight
            scores = table @ hidden + module.pieces.bias
            pieces = [int(x) for x in wanted if x >= 0]
            entropies = [scores.exp().sum().log() - scores[piece] for piece in pieces]
            errors.append(sum(entropies) / len(pieces) / math.log(len(table)))
    return torch.stack(errors).mean()


@pytest.mark.parametrize("groups", NODES, ids=["pieces", "strides", "words", "transcript"])
def test_the_error_of_masked_words_equals_a_loop_with_its_gradients(bert: Path, groups: dict[str, Any]) -> None:
    config = reading(bert, **groups | {"text": {**groups.get("text", {}), "frozen_layers": 0}})
    (batch,) = pretraining_batches(doubled(said(config, TEXTS)), config, 1)
    module = module_of(config)
    with torch.no_grad():
        module.pieces.bias.normal_()
        module.pieces.transform[2].weight.normal_()
    batched = module.reconstruction(module.states(batch.masked, batch.targets), batch.masked, batch.targets).mean()
    encoder = module.model.embedding.text_encoder
    module.model.embedding.text_encoder = ReadsOneByOne(encoder.network, encoder.width)
    by_hand = errors_by_hand(module, batch)
    torch.testing.assert_close(batched.double(), by_hand, rtol=1e-5, atol=0)
    network = encoder.network
    wanted = {
        "embeddings": network.embeddings.word_embeddings.weight,
        "first layer": network.encoder.layer[0].attention.self.query.weight,
        "transform": module.pieces.transform[0].weight,
        "bias": module.pieces.bias,
        "conv": next(module.model.embedding.encoders["text"].parameters()),
        "decoder": next(module.decoder.parameters()),
    }
    kept = module_of(reading(bert, **groups))
    assert not kept.model.embedding.text_encoder.network.embeddings.word_embeddings.weight.requires_grad
    for name, a, b in zip(
        wanted,
        torch.autograd.grad(batched, [*wanted.values()]),
        torch.autograd.grad(by_hand, [*wanted.values()]),
        strict=True,
    ):
        assert a.abs().max() > 1e-7, name
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8, msg=name)


def test_knowing_nothing_has_the_same_error_in_words_as_in_features(bert: Path) -> None:
    config = reading(bert)
    (batch,) = pretraining_batches(doubled(said(config, TEXTS)), config, 1)
    module = module_of(config)
    with torch.no_grad():
        module.pieces.transform[2].weight.zero_()
        module.pieces.transform[2].bias.zero_()
        module.out["audio"].weight.zero_()
        module.out["audio"].bias.zero_()
    errors = module.reconstruction(module.states(batch.masked, batch.targets), batch.masked, batch.targets)
    torch.testing.assert_close(errors, torch.ones_like(errors))
    assert set(batch.targets) == {"text", "audio"}


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("nodes", ["pieces", "words", "transcript"])
def test_whole_texts_are_the_teachers_states(bert: Path, scope: str, nodes: str) -> None:
    config = reading(bert, graph={"scope": scope}, text={"nodes": nodes}, pretrain={"epochs": 1})
    utterances = doubled(said(config, TEXTS))
    (batch,) = pretraining_batches(utterances, config, 1)
    task = Pretraining(config, dims_of(config), utterances, utterances, torch.device("cpu"))
    module, teacher = module_of(config).train(), module_of(config)
    encoder = teacher.model.embedding.text_encoder
    with torch.no_grad():
        encoder.network.encoder.layer[0].output.dense.weight.mul_(1.5)  # not the weights of what it teaches
    taught = task._taught(teacher.train(), batch)
    assert encoder.training
    target = taught.targets["text"]
    graph = batch.masked.dialogues or batch.masked
    names = [batch.ids[i] for i in torch.argsort(graph.utterance_order).tolist()]
    by_id = {u.id: u for u in utterances}
    gone = [by_id[name].features["text"] for name, flag in zip(names, target.flags.tolist(), strict=True) if flag]
    network = encoder.network.eval()
    states = []
    for numbers in gone:
        ids = [2, *(int(x) for x in numbers.flatten() if x >= 0), 3]
        states.append(network(input_ids=torch.tensor([ids])).last_hidden_state[0, 1:-1].mean(0).detach().numpy())
    assert len(states) > 2
    expected = (states - np.mean(states, 0)) / np.sqrt(np.var(states, 0) + 1e-5)
    np.testing.assert_allclose(target.features.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert not target.features.requires_grad

    seen = module.eval().states(taught.masked, taught.targets)
    loss = module.reconstruction(seen, taught.masked, taught.targets).mean()
    fixed = replace(taught, targets={**taught.targets, "text": target._replace(features=torch.tensor(expected))})
    torch.testing.assert_close(loss.double(), errors_by_hand(module, fixed), rtol=1e-5, atol=0)
    masked, contrast = module(taught)
    assert task.loss(module, batch, teacher, 0.0).item() == pytest.approx((masked + 0.5 * contrast).item(), rel=1e-6)
    assert task.loss(module, batch, None, 0.0).item() != pytest.approx((masked + 0.5 * contrast).item(), rel=1e-6)
    assert task.score(module).keys() == {"loss", "mask", "contrast"}


# --- word dropout ----------------------------------------------------------------------------------------------------


def dropping(bert: Path, rate: float, **groups: dict[str, Any]) -> Config:
    groups["text"] = {"dropout": rate} | groups.get("text", {})
    return reading(bert, **({"model": {"modality_dropout": 0.0}} | groups))


@pytest.mark.parametrize("nodes", ["pieces", "words", "transcript"])
def test_word_dropout_masks_its_share_anew_in_every_epoch(bert: Path, nodes: str) -> None:
    config = dropping(bert, 0.3, text={"nodes": nodes})
    utterances, every = said(config, TEXTS * 8), []
    for epoch in range(2):
        (pair,) = training_batches([Example(u) for u in utterances], config, 1, "stage", epoch, full_view=True)
        batch, targets = pair
        ordered = [u.features["text"] for u in as_in(batch.ids, utterances)]
        assert torch.equal(targets.full_view.features["text"], torch.cat(ordered))
        assert torch.equal(batch.features["audio"], targets.full_view.features["audio"])
        whole, shown = targets.full_view.features["text"], batch.features["text"]
        masked = (shown == MASK)[whole >= 0] if nodes == "transcript" else (shown == MASK).any(1)
        gone = (shown == MASK) if nodes == "transcript" else masked[:, None]
        assert torch.equal(shown, torch.where(gone & (whole >= 0), MASK, whole))
        assert masked.float().mean() == pytest.approx(0.3, abs=0.06)
        every.append(masked)
    assert not torch.equal(*every)


def test_word_dropout_is_a_function_of_the_utterance(bert: Path) -> None:
    config = dropping(bert, 0.5)
    utterances = said(config, TEXTS)

    def masked(chosen: list[Utterance], config: Config = config) -> dict[str, list[bool]]:
        (pair,) = training_batches([Example(u) for u in chosen], config, 1, "stage", 1)
        batch = pair[0]
        order = torch.argsort(batch.utterance_order).tolist()
        parts = (batch.features["text"] == MASK).flatten().split(batch.lengths["text"].tolist())
        return {batch.ids[i]: part.tolist() for i, part in zip(order, parts, strict=True)}

    whole = masked(utterances)
    assert masked(utterances[4:1:-1]) == {u.id: whole[u.id] for u in utterances[2:5]}
    lower = masked(utterances, dropping(bert, 0.2))
    assert all(b for name, row in lower.items() for a, b in zip(row, whole[name], strict=True) if a)
    assert masked(utterances, dropping(bert, 0.5, graph={"scope": "hierarchical"})) == whole


def test_the_views_of_pretraining_have_words_dropped_and_validation_has_none(bert: Path) -> None:
    config = dropping(bert, 0.5)
    utterances = said(config, TEXTS * 4)
    (batch,) = pretraining_batches(utterances, config, 1)
    for view in batch.views:
        assert 0.3 < (view.features["text"] == MASK).float().mean() < 0.7
    (valid,) = pretraining_batches(utterances, config, 1, learning=False)
    assert not any((view.features["text"] == MASK).any() for view in valid.views)
    shown, plain = batch.masked.features["text"], next(pretraining_batches(utterances, reading(bert), 1))
    assert torch.equal(shown, plain.masked.features["text"])


# --- refused ---------------------------------------------------------------------------------------------------------


def test_what_masks_words_needs_an_encoder_in_training_and_a_mask_piece(bert: Path, tmp_path: Path) -> None:
    line = "'text.dropout' masks word pieces that an encoder in training reads; name one by 'model.text_encoder'"
    for config in (from_dict({"text": {"dropout": 0.1}}), dropping(bert, 0.1, text={"tuning": "frozen"})):
        with pytest.raises(ConfigError, match=line):
            checked_texts(config)
    bare = make_encoder(tmp_path / "bare", mask=False)
    for config in (dropping(bare, 0.1), reading(bare, pretrain={"epochs": 1})):
        with pytest.raises(ConfigError, match=r"word pieces, but the tokenizer of '.*bare' has no piece \[MASK\]"):
            checked_texts(config)
    for config in (
        reading(bare, pretrain={"epochs": 1}, graph={"scope": "hierarchical"}),
        reading(bert, pretrain={"epochs": 1}, reconstruction={"weight": 0.5}),
    ):
        assert checked_texts(config) is not None
