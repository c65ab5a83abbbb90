"""Pre-training: what it masks, its losses against loops, the data it needs."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.graphs import clip, scope_for
from helpers.sslmm import DIMS, config_of, small_sslmm
from torch import Tensor

from gmsa.config import MODALITIES
from gmsa.errors import ConfigError
from gmsa.graph import token_count
from gmsa.models import MODELS, build_model
from gmsa.models.pretraining import PretrainingBatch, PretrainingModel
from gmsa.runs.train import train
from gmsa.training.pretraining_batches import pretraining_batches
from gmsa.training.tasks import Pretraining


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_masks_take_their_share_and_leave_something(make_utterance, scope: str, share: float) -> None:
    config = config_of(graph={"scope": scope}, pretrain={"mask": share}, optim={"batch_size": 16})
    lengths = [(5, 9, 3), (5, 0, 0), (0, 17, 3), (1, 0, 1), (1, 0, 0), (3, 8, 1)] * 8
    utterances = [make_utterance(f"v{i // 4}$_${i}", n) for i, n in enumerate(lengths)]
    by_id = {u.id: u for u in utterances}
    seen, counts = set(), defaultdict(lambda: torch.zeros(2, dtype=torch.long))
    for batch in pretraining_batches(utterances, config, 1, "pretrain", 1):
        masked = {m: target.flags for m, target in batch.targets.items()}
        graph = batch.masked.dialogues or batch.masked
        order = torch.argsort(graph.utterance_order)
        starts = dict.fromkeys(MODALITIES, 0)
        for i in order.tolist():
            utterance = by_id[batch.ids[i]]
            seen.add(utterance.id)
            nodes, gone = 0, 0
            for m in batch.masked.features:
                count = token_count(utterance.lengths[m], config.model.stride(m)) if scope == "utterance" else 1
                flags = masked.get(m, torch.zeros(10_000, dtype=torch.bool))[starts[m] : starts[m] + count]
                starts[m] += count
                assert not (flags.any() and not utterance.lengths[m])
                nodes += count if utterance.lengths[m] else 0
                gone += int(flags.sum())
            counts[utterance.video if scope == "hierarchical" else utterance.id] += torch.tensor([nodes, gone])
        for m, target in batch.targets.items():
            assert (graph.node_type[target.nodes] == graph.schema.numbers[m]).all()
            assert len(target.nodes) == target.flags.sum() == len(target.features)
    assert seen == by_id.keys()
    for nodes, gone in (count.tolist() for count in counts.values()):
        assert gone == min(round(share * nodes), nodes - 1)


def states_of(module: PretrainingModel, batch: PretrainingBatch) -> Tensor:
    """The states of all nodes that the decoder takes."""
    masked = {m: (t.flags, module.token[m]) for m, t in batch.targets.items()}
    if batch.masked.dialogues is None:
        return module.model.nodes(module.model.embedding(batch.masked, masked), batch.masked)
    return module.model.outside_nodes(module.model.embedding(batch.masked), batch.masked, masked)


@pytest.mark.parametrize(
    "graph",
    [
        {},
        {"intra": "knn(neighbors=1)"},
        {"scope": "dialogue"},
        {"scope": "hierarchical", "between": "knn(neighbors=1)", "weights": "angular", "dialogue_node": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_is_masked_does_not_leak(make_utterance, graph: dict[str, Any], name: str) -> None:
    """Other features in the place of the masked ones change the targets and nothing else."""
    config = config_of(name, graph=scope_for(name) | graph, optim={"batch_size": 64})
    scope = config.graph.scope
    utterances = [make_utterance(f"v{i // 3}$_${i % 3}", (4, 11, 3)) for i in range(6)]
    (before,) = pretraining_batches(utterances, config, 1)
    order = torch.argsort((before.masked.dialogues or before.masked).utterance_order).tolist()
    names = [before.ids[i] for i in order]
    changed = {u.id: dict(u.features) for u in utterances}
    for m, target in before.targets.items():
        start = 0
        for name_ in names:
            sequence = changed[name_][m].clone()
            stride = config.model.stride(m)
            count = token_count(len(sequence), stride) if scope == "utterance" else 1
            for j in target.flags[start : start + count].nonzero().flatten().tolist():
                steps = slice(j * stride, (j + 1) * stride) if scope == "utterance" else slice(None)
                sequence[steps] += 5 * torch.arange(sequence.shape[1])
            changed[name_][m] = sequence
            start += count
    (after,) = pretraining_batches([replace(u, features=changed[u.id]) for u in utterances], config, 1)
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).eval()
    states = []
    for batch in (before, after):
        states.append(states_of(module, batch))
    assert torch.equal(*states)
    for m, target in before.targets.items():
        moved = target.features + 5 * torch.arange(target.features.shape[1])
        torch.testing.assert_close(after.targets[m].features, moved)


def summary_by_hand(module: PretrainingModel, batch: PretrainingBatch, states: Tensor) -> list[np.ndarray | None]:
    """What an utterance's nodes say of it: attention over the modalities of SSLMM, else their mean ``[N, C]``."""
    graph, found = batch.masked.dialogues or batch.masked, []
    names = [batch.ids[i] for i in torch.argsort(graph.utterance_order).tolist()]
    for name in batch.ids:
        means = []
        for m in MODALITIES:
            lengths, start = graph.lengths[m].tolist(), 0
            nodes = (graph.node_type == graph.schema.numbers[m]).nonzero().flatten()
            for other, length in zip(names, lengths, strict=True):
                # In graphs of dialogues a modality has one node, also where it is missing.
                count = token_count(length, module.model.embedding.strides[m]) if batch.masked is graph else 1
                count = 1 if module.model.embedding.missing is not None else count
                if other == name and length:
                    means.append(states[nodes[start : start + count]].mean(0))
                start += count
        if not means:  # all is masked, and neighbours tell
            found.append(None)
            continue
        x = torch.stack(means)
        share = torch.full((len(x), 1), 1 / len(x))
        if readouts := getattr(module.model, "readouts", None):
            share = torch.softmax(readouts[0].score(x), 0)
        found.append((share * x).sum(0).detach().numpy())
    return found


@pytest.mark.parametrize("name", ["sslmm", "semi_iin"])
@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_the_masked_utterances_are_a_view_of_the_contrast(make_utterance, scope: str, name: str) -> None:
    """It shares its pass with the reconstruction, whose loss stays."""
    pretrain = {"contrast": "masked"}
    config = config_of(name, graph={"scope": scope}, optim={"batch_size": 64}, pretrain=pretrain)
    lengths = [(4, 11, 3), (5, 0, 2), (2, 9, 0), (7, 4, 1), (3, 3, 3)]
    utterances = [make_utterance(f"v{i // 3}$_${i}", n) for i, n in enumerate(lengths)]
    (batch,) = pretraining_batches(utterances, config, 1)
    subsets = config_of(name, graph={"scope": scope}, optim={"batch_size": 64}, pretrain={"contrast": "subsets"})
    (before,) = pretraining_batches(utterances, subsets, 1)
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).eval()
    embedded: list[int] = []
    module.model.embedding.register_forward_hook(lambda *_: embedded.append(1))
    masked, contrast = module(batch)
    assert len(embedded) == 2
    assert masked.item() == module(before)[0].item()
    assert len(embedded) == 5
    (view,) = batch.views
    for m in MODALITIES:
        assert torch.equal(view.lengths[m], before.views[1].lengths[m])

    summaries = summary_by_hand(module, batch, states_of(module, batch))
    shared = module.model.summarize(states_of(module, batch), batch.masked).detach().numpy()
    there = [i for i, by_hand in enumerate(summaries) if by_hand is not None]
    assert len(there) > 3
    for i in there:
        np.testing.assert_allclose(shared[i], summaries[i], rtol=1e-4, atol=1e-6)
    features = torch.from_numpy(shared), module.model(view).features
    one, two = (F.normalize(module.project(x), dim=1).detach().double() for x in features)
    scores = one @ two.T / 0.07
    terms = [2 * scores[i, i] - scores[i].logsumexp(0) - scores[:, i].logsumexp(0) for i in range(5)]
    assert contrast.item() == pytest.approx(-sum(terms).item() / 10, rel=1e-4)


@pytest.mark.parametrize("scope", ["utterance", "dialogue", "hierarchical"])
def test_pretraining_losses_equal_loops(make_utterance, scope: str) -> None:
    config = config_of(graph={"scope": scope}, optim={"batch_size": 64}, pretrain={"contrast": "subsets"})
    utterances = [make_utterance(f"v{i // 3}$_${i}", (4, 11, 3)) for i in range(5)]
    (batch,) = pretraining_batches(utterances, config, 1)
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).eval()
    masked, contrast = module(batch)

    one, two = (module.project(module.model(view).features).detach().numpy() for view in batch.views)
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 0.07 for b in two] for a in one]
    terms = []
    for i, j in itertools.product(range(5), range(2)):
        scores = [cosine[i][k] if j else cosine[k][i] for k in range(5)]
        terms.append(np.log(np.exp(np.float64(scores)).sum()) - scores[i])
    assert contrast.item() == pytest.approx(np.mean(terms), rel=1e-4)

    states = states_of(module, batch).clone()
    for target in batch.targets.values():
        states[target.nodes] = 0
    decoded = module.decoder(states, (batch.masked.dialogues or batch.masked).edges["global"])
    errors = []
    for m, target in batch.targets.items():
        for node, wanted in zip(target.nodes.tolist(), target.features.numpy(), strict=True):
            guess = module.out[m](decoded[node]).detach().numpy()
            errors.append((1 - guess @ wanted / np.linalg.norm(guess) / np.linalg.norm(wanted)) ** 2)
    assert masked.item() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train": "fixed:v"},
            r"'data.missing.train' \(fixed:v\) hides every modality of 'data.modalities' \(text, audio",
        ),
        (
            {"valid": "fixed:v"},
            "pre-training is validated on features, but no utterance of 'valid' has any; change",
        ),
    ],
)
def test_nothing_left_to_learn_from(write_mmsa, tmp_path: Path, settings: dict[str, str], message: str) -> None:
    config = small_sslmm(write_mmsa, data={"modalities": ["text", "audio"], "missing": settings})
    with pytest.raises(ConfigError, match=message):
        train(config, "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_steps_that_are_lost_anew_are_lost_in_pretraining_too(make_utterance) -> None:
    config = config_of(data={"missing": {"train": "frame_uniform"}}, pretrain={"epochs": 1}, optim={"batch_size": 64})
    utterances = [make_utterance(f"v$_${i}", (20, 20, 20)) for i in range(20)]
    task = Pretraining(config, DIMS, utterances, utterances, torch.device("cpu"))
    counts = [int(batch.masked.lengths["text"].sum()) for epoch in (1, 2) for batch in task.batches(1, epoch)]
    assert counts[0] != counts[1]
    assert all(100 < count < 300 for count in counts)


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("name", ["semi_iin", "sslmm"])
def test_what_is_masked_may_be_filled_from_neighbours(make_utterance, scope: str, name: str) -> None:
    """What is decoded depends on the same modality of the neighbours, and on no other dialogue.

    In scope hierarchical an utterance may lose all it has.
    """
    config = config_of(name, graph={"scope": scope}, optim={"batch_size": 64})
    utterances = [make_utterance(f"v{i // 4}$_${i % 4}", (4, 11, 3)) for i in range(8)]
    (batch,) = pretraining_batches(utterances, config, 1)
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).eval()
    graph = batch.masked.dialogues or batch.masked
    order = [batch.ids[i] for i in graph.utterance_order.argsort().tolist()]
    heard = set()
    for m, target in batch.targets.items():
        x = batch.masked.features[m].clone().requires_grad_()
        seen = replace(batch.masked, features={**batch.masked.features, m: x})
        for row, utterance in enumerate(order[i] for i in target.flags.nonzero().flatten().tolist()):
            only = {m: target._replace(nodes=target.nodes[row : row + 1], features=target.features[row : row + 1])}
            (gradient,) = torch.autograd.grad(module.reconstruction(module.states(seen, only), seen, only).sum(), x)
            owners = [u for u in (batch.ids if batch.masked.dialogues else order) for _ in range(shown(batch, m, u))]
            from_there = {u for u, step in zip(owners, gradient.abs().sum(1).tolist(), strict=True) if step}
            assert utterance not in from_there
            assert {u[:2] for u in from_there} <= {utterance[:2]}
            heard.add(bool(from_there))
    assert True in heard
    gone = torch.stack([target.flags for target in batch.targets.values()])
    assert (len(gone) == 3 and bool(gone.all(0).any())) == (scope == "hierarchical")


def test_a_single_modality_is_filled_from_neighbours() -> None:
    config = config_of(
        "semi_iin", data={"modalities": ["text"]}, graph={"scope": "hierarchical"}, pretrain={"epochs": 1}
    )
    clips = [clip(f"v{i // 4}$_${i % 4}", {"text": 6}, [3]) for i in range(8)]
    task = Pretraining(config, {"text": 6}, clips, clips, torch.device("cpu"))
    torch.manual_seed(0)
    module = task.build_module()
    (batch,) = task.batches(1)
    assert batch is not None
    assert int(batch.targets["text"].flags.sum()) == 4
    loss = module(batch)[0]
    loss.backward()
    assert float(loss) > 0
    assert any(bool(p.grad.any()) for p in module.model.embedding.encoders.parameters())
    with pytest.raises(ConfigError, match=r"set it to 0, or 'graph\.scope' to utterance or hierarchical"):
        config_of(data={"modalities": ["text"]}, graph={"scope": "dialogue"}, pretrain={"epochs": 1})


def shown(batch: PretrainingBatch, modality: str, name: str) -> int:
    """Steps of an utterance's modality that are left."""
    row = batch.masked.utterance_order[batch.ids.index(name)]
    return int(batch.masked.lengths[modality][row])


def test_views_are_random_subsets(make_utterance) -> None:
    config = config_of(optim={"batch_size": 300}, pretrain={"contrast": "subsets"})
    utterances = [make_utterance(f"v$_${i}", (2, 4, 2)) for i in range(280)]
    (batch,) = pretraining_batches(utterances, config, 1)
    for view in batch.views:
        there = torch.stack([view.lengths[m] > 0 for m in MODALITIES], 1)
        subsets, counts = torch.unique(there, dim=0, return_counts=True)
        assert len(subsets) == 7
        assert not (~subsets).all(1).any()
        assert counts.min() > 20  # 40 expected of each
    assert not torch.equal(*(view.lengths["text"] for view in batch.views))


def test_validation_of_pretraining_is_not_masked_as_training_is(utterances) -> None:
    config = config_of(data={"missing": {"train": "frame_uniform"}}, optim={"batch_size": 16})
    steps = {
        learning: sum(
            int(sum(n.sum() for n in batch.masked.lengths.values()))
            for batch in pretraining_batches(utterances, config, "valid", learning=learning)
        )
        for learning in (True, False)
    }
    there = sum(sum(u.lengths.values()) for u in utterances)
    assert steps[False] == there > steps[True]
    seen = []
    task = Pretraining(config, DIMS, utterances, utterances, torch.device("cpu"))
    module = task.build_module().double()
    module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    task.score(module)
    assert sum(int(sum(n.sum() for n in batch.masked.lengths.values())) for batch in seen) == there
