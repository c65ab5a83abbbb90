"""The reconstruction of a teacher's states: of text that an encoder reads, and of all modalities, against loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killed_runs import ended, left, run_once, together
from helpers.sslmm import DIMS, config_of, small_sslmm
from helpers.text_encoders import DIMS as READ
from helpers.text_encoders import TEXTS, make_encoder, reading, said
from torch import Tensor

from gmsa.config import Config
from gmsa.config.groups.missing import Missing
from gmsa.data import Utterance, apply_missing
from gmsa.errors import RunError
from gmsa.models import Model
from gmsa.runs import report as results
from gmsa.runs.train import train
from gmsa.training.batches import training_batches
from gmsa.training.callbacks.progress import Progress
from gmsa.training.checkpoint import digest, load_weights
from gmsa.training.examples import Example
from gmsa.training.losses import loss
from gmsa.training.tasks import FineTuning


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"), dropout=0.1)


def task_of(config: Config, dims: Mapping[str, int], utterances: list[Utterance]) -> FineTuning:
    examples = [Example(u, value=float(i) / 9, classes=torch.eye(7)[i % 7]) for i, u in enumerate(utterances)]
    return FineTuning(config, dims, examples, [], utterances, torch.device("cpu"))


def state_by_hand(model: Model, config: Config, modality: str, features: Tensor) -> Tensor:
    """The mean state of one modality of one utterance, from torch's and Hugging Face's own parts."""
    if modality == "text" and config.trains_text_encoder:
        ids = [2, *(int(x) for x in features.flatten()), 3]
        network = model.embedding.text_encoder.network
        features = network(input_ids=torch.tensor([ids])).last_hidden_state[0, 1:-1]
    if config.reconstruction.of == "features":
        return features.mean(0)
    x = features.T
    for i, conv in enumerate(model.embedding.encoders[modality].convs):
        x = torch.relu(x) if i else x
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        before, count = (kernel - stride) // 2, -(-x.shape[1] // stride)
        after = (count - 1) * stride + kernel - before - x.shape[1]
        x = conv(torch.nn.functional.pad(x, (before, max(0, after)))[None])[0][:, :count]
    return x.mean(1)


CASES = {
    "text in the loop": ("features", "observed_only", {}),
    "states in the loop": ("states", "observed_only", {}),
    "oracle in the loop": ("features", "oracle", {}),
    "states in dialogues": ("states", "observed_only", {"scope": "dialogue"}),
    "oracle in hierarchical graphs": ("states", "oracle", {"scope": "hierarchical"}),
}


@pytest.mark.parametrize("teaches", ["average", "itself"])
@pytest.mark.parametrize(("of", "target", "graph"), CASES.values(), ids=CASES)
def test_reconstruction_of_states_equals_a_loop_with_its_gradients(
    bert: Path, of: str, target: str, graph: dict[str, Any], teaches: str
) -> None:
    config = reading(
        bert,
        graph=graph,
        model={"modality_dropout": {"text": 0.6, "audio": 0.4}},
        reconstruction={"weight": 0.5, "of": of, "target": target},
    )
    whole = said(config, TEXTS * 2)
    whole = [replace(u, features={m: x.double() for m, x in u.features.items()}) for u in whole]
    utterances = apply_missing(whole, Missing("eta", 0.3), ["text", "audio"], 3) if target == "oracle" else whole
    known = {u.id: u for u in (whole if target == "oracle" else utterances)}
    task = task_of(config, READ, utterances)
    torch.manual_seed(0)
    model = task.build_module().double().eval()
    teacher = task.build_module().double()
    assert teacher.training
    ((batch, targets),) = task.batches(1, "stage", 1)
    every = {m: [u.id for u in known.values() if u.lengths[m]] for m in READ}
    shown = {m: batch.lengths[m].index_select(0, batch.utterance_order).tolist() for m in READ}
    output = model(batch)
    reads = teacher if teaches == "average" else model
    errors = []
    for m, names in every.items():
        states = {name: state_by_hand(reads.eval(), config, m, known[name].features[m]).detach() for name in names}
        stacked = torch.stack([*states.values()])
        if m == "text" or of == "states":
            spread = (stacked.var(0, correction=0) + 1e-5).sqrt()
            states = {name: (x - stacked.mean(0)) / spread for name, x in states.items()}
        else:
            rows = torch.cat([u.features[m] for u in utterances])
            states = {name: (x - rows.mean(0)) / rows.std(0, correction=0) for name, x in states.items()}
        for row, name in enumerate(batch.ids):
            if name in states and not shown[m][row]:
                state = model.reconstruction.token[m] if output.states is None else output.states[m][row]
                guess = model.reconstruction.out[m](model.reconstruction.mlp(torch.cat([output.features[row], state])))
                errors.append((guess - states[name]).square().mean())
    teacher.train()
    assert len(errors) > 3
    assert {*targets.hidden} == {"text", "audio"}
    alone = task.config.loss.alone_weight
    expected = loss(output, targets, 0.6, 0.2) + 0.5 * torch.stack(errors).mean()
    if graph.get("scope") == "hierarchical":
        inner = output._replace(value=output.alone[0], logits=output.alone[1])
        expected = expected + alone * loss(inner, targets, 0.6, 0.2)
    found = task.loss(model, (batch, targets), teacher if teaches == "average" else None, 0.0)
    assert teacher.training
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-7)
    wanted = {n: p for n, p in model.named_parameters() if p.requires_grad}
    pairs = [torch.autograd.grad(x, [*wanted.values()], allow_unused=True) for x in (found, expected)]
    assert not any(p.grad is not None for p in teacher.parameters())
    for name, a, b in zip(wanted, *pairs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_states_of_features_that_stay_need_no_text_encoder(utterances: list[Utterance]) -> None:
    """Without an encoder of text too, and what `of: features` gives is as it was."""
    groups = {"model": {"modality_dropout": 0.5}, "optim": {"batch_size": 16}}
    plain, states = (config_of(reconstruction={"weight": 0.5, "of": of}, **groups) for of in ("features", "states"))
    task = task_of(states, DIMS, utterances)
    model = task.build_module().double().eval()
    assert {m: part.out_features for m, part in model.reconstruction.out.items()} == dict.fromkeys(DIMS, 16)
    ((batch, targets),) = task.batches(1, "stage", 1)
    output, errors = model(batch), []
    for m, (rows, nothing) in targets.hidden.items():
        assert nothing.shape == (len(rows), 0)
        given = {u.id: state_by_hand(model, states, m, u.features[m]).detach() for u in utterances if u.lengths[m]}
        stacked = torch.stack([*given.values()])
        for row in rows.tolist():
            both = torch.cat([output.features[row], model.reconstruction.token[m]])
            guess = model.reconstruction.out[m](model.reconstruction.mlp(both))
            wanted = (given[batch.ids[row]] - stacked.mean(0)) / (stacked.var(0, correction=0) + 1e-5).sqrt()
            errors.append((guess - wanted).square().mean())
    expected = loss(output, targets, 0.6, 0.2) + 0.5 * torch.stack(errors).mean()
    torch.testing.assert_close(task.loss(model, (batch, targets), None, 0.0).double(), expected, rtol=1e-5, atol=0)
    ((_, before),) = training_batches([Example(u) for u in utterances], plain, 1, "stage", 1)
    assert before.uncovered is None
    assert {m: rows.tolist() for m, (rows, _) in before.hidden.items()} == {
        m: rows.tolist() for m, (rows, _) in targets.hidden.items()
    }


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


def speak(content: dict[str, Any]) -> None:
    for columns in content.values():
        columns["raw_text"] = [TEXTS[i % len(TEXTS)] for i in range(len(columns["id"]))]


def run_of(write_mmsa: Any, folder: Path, **groups: dict[str, Any]) -> Config:
    """A run in which all of it happens: words masked and dropped, states reconstructed, a teacher."""
    model = {"text_encoder": str(folder), "modality_dropout": {"text": 0.3, "others": 0.3}} | groups.pop("model", {})
    config = small_sslmm(write_mmsa, model=model, **groups)
    write_mmsa(change=speak)
    text = {"dropout": 0.2, "tuning": "lora", "lora_rank": 2}
    states = {"of": "states", "weight": 0.5}
    return replace(
        config,
        text=replace(config.text, **text),
        reconstruction=replace(config.reconstruction, **states),
        run=replace(config.run, save_every=1e-6),
    )


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["utterance", "hierarchical"])
def test_a_run_killed_in_each_of_its_stages_ends_bitwise_the_same(
    write_mmsa, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    config = run_of(write_mmsa, bert, graph={"scope": scope})
    run_once(config, tmp_path / "whole")
    steps: list[int] = []

    class Killed(BaseException):
        pass

    def step(self: Any, ids: Any) -> None:
        steps.append(1)
        if len(steps) in (2, 6):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_step", step)
        for _ in range(2):
            with pytest.raises(Killed):
                run_once(config, tmp_path / "killed")
        run_once(config, tmp_path / "killed")
    assert left(tmp_path / "killed") == left(tmp_path / "whole")
    assert left(tmp_path / "whole")


def test_a_run_with_an_encoder_starts_from_one_that_masked_words(
    write_mmsa, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_of(write_mmsa, bert, protocol={"name": "pretrain"})
    summary = train(before, "tiny", tmp_path / "pretrained")
    assert 0 < summary["valid"]["mask"]["mean"] < 3
    weights = load_weights(tmp_path / "pretrained" / "seed-1" / "model.safetensors")
    assert any(name.startswith("embedding.text_encoder.network.") for name in weights)
    start = {"init_from": str(tmp_path / "pretrained")}
    begun = run_of(write_mmsa, bert, pretrain={"epochs": 0}, protocol=start)
    begun = replace(begun, text=replace(begun.text, dropout=0.2))
    apart = train(begun, "tiny", tmp_path / "apart")
    together = train(run_of(write_mmsa, bert), "tiny", tmp_path / "together")
    found = [load_weights(tmp_path / run / "seed-1" / "model.safetensors") for run in ("apart", "together")]
    assert digest(found[0]) == digest(found[1])
    assert apart["valid"] == together["valid"]
    lower = replace(begun, text=replace(begun.text, frozen_layers=0))  # other layers are trained from the same weights
    train(lower, "tiny", tmp_path / "lower")
    other = make_encoder(tmp_path / "other", dropout=0.1)
    weights_file = next(other.glob("*.safetensors"))
    weights_file.write_bytes(weights_file.read_bytes()[:-4] + b"\0\0\0\0")
    full = replace(begun, text=replace(begun.text, tuning="full"))
    for wrong, why in (
        (
            run_of(write_mmsa, other, pretrain={"epochs": 0}, protocol=start),
            "text encoder of SHA-256 .*…, this run",
        ),
        (full, "was trained with text.tuning 'lora', this run has 'full'; make them equal"),
        (small_sslmm(lambda: tmp_path / "tiny.pkl", pretrain={"epochs": 0}, protocol=start), "this run has none; make"),
    ):
        with pytest.raises(RunError, match=why):
            train(wrong, "tiny", tmp_path / "wrong")


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["utterance", "hierarchical"])
@pytest.mark.parametrize("of", ["features", "states"])
def test_several_processes_mask_and_teach_as_one_does(write_mmsa, tmp_path: Path, scope: str, of: str) -> None:
    quiet = make_encoder(tmp_path / "quiet")
    model = {"dropout": 0.0, "input_dropout": 0.0}
    config = run_of(write_mmsa, quiet, model=model, graph={"scope": scope}, optim={"batch_size": 12})  # three dialogues
    config = replace(
        config,
        text=replace(config.text, tuning="full"),
        reconstruction=replace(config.reconstruction, of=of),
        run=replace(config.run, save_every=300.0),
    )
    run_once(config, tmp_path / "one")
    assert [ended(n) for n in together(3, lambda: run_once(config, tmp_path / "three"))] == [0] * 3
    one, three = (load_weights(tmp_path / name / "seed-1" / "model.safetensors") for name in ("one", "three"))
    for name, x in one.items():
        np.testing.assert_allclose(three[name].numpy(), x.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
