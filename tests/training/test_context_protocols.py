"""Every protocol over dialogues: who is context, who teaches what, and what a reconstruction reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sslmm import DIMS, config_of, of_the_same_videos, small_sslmm, task_of
from torch import Tensor, nn

from gmsa.config import MODALITIES
from gmsa.config.groups.missing import Missing
from gmsa.data import Target, Utterance, apply_missing
from gmsa.graph import GraphBatch
from gmsa.models import Output, build_model
from gmsa.runs import report as results
from gmsa.runs.prepare import prepare
from gmsa.runs.train import train
from gmsa.training.batches import training_batches
from gmsa.training.examples import Example, labeled_examples
from gmsa.training.protocols import build_protocol
from gmsa.training.tasks import FineTuning
from gmsa.training.trainer import Trainer

SCOPES = ("dialogue", "hierarchical")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_run", lambda *a: None)


class Recorder:
    """Records which utterances a model meets in one batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.met: list[tuple[bool, frozenset[str]]] = []
        forward = nn.Module.__call__

        def call(module: nn.Module, *arguments: Any, **named: Any) -> Any:
            if arguments and isinstance(arguments[0], GraphBatch) and hasattr(module, "outside_nodes"):
                self.met.append((module.training, frozenset(arguments[0].ids)))
            return forward(module, *arguments, **named)

        monkeypatch.setattr(nn.Module, "__call__", call)

    def take(self) -> list[tuple[bool, frozenset[str]]]:
        met, self.met = self.met, []
        return met


def spread(content: dict[str, Any]) -> None:
    """Dialogues of eight utterances in training."""
    columns = content["train"]
    columns["id"] = [f"d{i // 8}$_${i}" for i in range(len(columns["id"]))]


@pytest.fixture
def parts(write_mmsa) -> Callable[..., Iterator[Any]]:
    """A trainer and its data, as a run makes them, with half of the labels and a pool file of the same dialogues."""

    def pool(content: dict[str, Any]) -> None:
        spread(content)
        content["train"]["id"] = [f"d{i // 8}$_${100 + i}" for i in range(len(content["train"]["id"]))]
        for split in ("valid", "test"):
            content[split]["id"] = [f"pool{split}$_${i}" for i in range(len(content[split]["id"]))]

    def make(folder: Path, protocol: str, scope: str, **groups: dict[str, Any]) -> tuple[Any, ...]:
        data = {"path": str(write_mmsa("own.pkl", spread)), "pool": str(write_mmsa("pool.pkl", pool))}
        config = small_sslmm(
            write_mmsa,
            model={"name": "semi_iin"},
            data={**data, "label_ratio": 0.5, **groups.pop("data", {})},
            graph={"scope": scope},
            reconstruction={"weight": 0.0},
            protocol={"name": protocol},
            **groups,
        )
        prepared = prepare(config)
        config = prepared.config
        trainer = Trainer(
            config,
            dict(prepared.corpus.dims),
            prepared.splits["valid"],
            1,
            folder,
            torch.device("cpu"),
            context=prepared.training_utterances,
        )
        folder.mkdir()
        return prepared, trainer, prepared.training_data(config, 1), build_protocol(config)

    return make


@pytest.mark.parametrize(
    ("protocol", "scope"),
    [
        ("self_training", "hierarchical"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("self_training", "dialogue"),
                ("distillation", "dialogue"),
                ("distillation", "hierarchical"),
                ("sslmm", "dialogue"),
                ("sslmm", "hierarchical"),
            )
        ),
    ],
)
def test_teachers_and_students_meet_whole_dialogues(
    parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, scope: str
) -> None:
    """A training dialogue holds its labeled and unlabeled utterances, and those of the pool file."""
    prepared, trainer, data, run = parts(tmp_path / "run", protocol, scope)
    whole: dict[str, set[str]] = {}
    for u in prepared.training_utterances:
        whole.setdefault(u.video, set()).add(u.id)
    assert sorted(map(len, whole.values())) == [12] * 2 + [16] * 3  # those of the pool file alone, and of both files
    assert sum(e.utterance.video in {u.video for u in data.pool} for e in data.labeled) > 0
    recorder = Recorder(monkeypatch)
    run(trainer, data)
    training, of_valid = 0, {u.id for u in prepared.splits["valid"]}
    for _, ids in recorder.take():
        if ids & of_valid:
            assert ids <= of_valid
            continue
        training += 1
        for video in {name.partition("$_$")[0] for name in ids}:
            assert whole[video] <= ids
    assert training > 3


@pytest.mark.parametrize("scope", SCOPES)
def test_labels_of_the_context_are_not_there(parts, tmp_path: Path, scope: str) -> None:
    prepared, trainer, data, _ = parts(tmp_path / "run", "supervised", scope)
    assert all(u.label is None for u in (*trainer.context, *prepared.pool))
    task = FineTuning(prepared.config, trainer.dims, data.labeled, trainer.context, trainer.valid, trainer.device)
    labeled = {e.utterance.id for e in data.labeled}
    batches = list(filter(None, task.batches(1)))
    assert sum(len(batch) for batch, _ in batches) == task.size == 48  # what a progress bar counts
    for batch, targets in batches:
        for name, label, value in zip(batch.ids, batch.labels.tolist(), targets.value.tolist(), strict=True):
            assert (name in labeled) == (label == label) == (value == value)


class Heard(nn.Module):
    """Predicts of an utterance how many utterances of its dialogue the batch holds."""

    def forward(self, batch: GraphBatch) -> Output:
        videos = [name.partition("$_$")[0] for name in batch.ids]
        value = torch.tensor([float(videos.count(video)) for video in videos])
        return Output(value, torch.zeros(len(value), 7), None, value[:, None])


@pytest.mark.parametrize("scope", SCOPES)
def test_the_average_teaches_on_whole_dialogues(make_utterance, scope: str) -> None:
    config = config_of(
        graph={"scope": scope}, model={"modality_dropout": dict.fromkeys(MODALITIES, 0.6)}, optim={"batch_size": 4}
    )
    utterances = [make_utterance(f"v{i // 4}$_${i % 4}", (4, 6, 3), 0.5) for i in range(12)]
    task = task_of(utterances, config)
    taught = []
    for batch, targets in filter(None, task.batches(1)):
        assert targets.full_view is not None
        assert targets.full_view.ids == batch.ids
        assert (targets.full_view.dialogues is None) == (scope == "dialogue")
        assert all(bool((lengths > 0).all()) for lengths in targets.full_view.lengths.values())
        assert any(bool((lengths == 0).any()) for lengths in batch.lengths.values())
        taught += task._teachings(Heard(), targets.full_view)[0].tolist()  # type: ignore[arg-type]
    assert taught == [4.0] * 12


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["sslmm", "semi_iin"])
def test_a_reconstruction_reads_the_neighbours(make_utterance, scope: str, name: str) -> None:
    """What is read of a missing modality depends on the same modality of its neighbours, never on other dialogues."""
    config = config_of(name, graph={"scope": scope}, reconstruction={"weight": 0.5}, optim={"batch_size": 99})
    clips = [make_utterance(f"v{i // 3}$_${i % 3}", (4, 6, 3), 0.5) for i in range(6)]
    clips[1] = clips[1].drop(frozenset({"text"}))
    torch.manual_seed(0)
    model = build_model(DIMS, config).eval()
    (pair,) = training_batches(labeled_examples(clips, Target()), config, 1)
    assert pair is not None
    batch, _ = pair
    text = batch.features["text"].clone().requires_grad_()
    output = model(replace(batch, features={**batch.features, "text": text}))
    assert (output.states is not None) == (name == "sslmm")
    guess = model.reconstruct(output, "text", torch.tensor([batch.ids.index("v0$_$1")]))
    (gradient,) = torch.autograd.grad(guess.sum(), text)
    order = ["v0$_$0", "v0$_$1", "v0$_$2", "v1$_$0", "v1$_$1", "v1$_$2"]
    in_graphs = [batch.ids[i] for i in batch.utterance_order.argsort().tolist()]
    assert sorted(in_graphs) == order
    owners = [u for u in in_graphs for _ in range(0 if u == "v0$_$1" else 4)]
    felt = {u for u, step in zip(owners, gradient.abs().sum(1).tolist(), strict=True) if step}
    assert felt == {"v0$_$0", "v0$_$2"}


def one_step(task: FineTuning) -> list[Tensor]:
    """The loss of an epoch's batches, and its gradients."""
    torch.manual_seed(0)
    model, teacher = task.build_module(), task.build_module()
    torch.manual_seed(1)
    total = torch.stack([task.loss(model, batch, teacher, 0.5) for batch in task.batches(1, "stage", 1)]).sum()
    total.backward()
    return [total.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("target", ["observed_only", "oracle"])
def test_what_is_masked_of_neighbours_teaches_by_the_oracle_alone(make_utterance, target: str) -> None:
    """The masked features of an utterance that is context, or is reconstructed beside it."""
    config = config_of(
        graph={"scope": "hierarchical"}, reconstruction={"weight": 0.5, "target": target}, optim={"batch_size": 99}
    )
    clips = apply_missing(
        [make_utterance(f"v{i // 4}$_${i % 4}", (4, 6, 3), 0.5) for i in range(8)], Missing("eta", 0.5), MODALITIES, 3
    )
    other = [replace(u, withheld={m: x + 9 for m, x in u.withheld.items()}) for u in clips]
    before, after = (
        one_step(FineTuning(config, DIMS, labeled_examples(some[::2], Target()), some, some, torch.device("cpu")))
        for some in (clips, other)
    )
    assert all(map(torch.equal, before, after)) == (target == "observed_only")


# --- labels and features that must not matter ------------------------------------------------------------------------


def step_of(clips: Sequence[Utterance], labeled: Sequence[int], scope: str) -> list[Tensor]:
    config = config_of("semi_iin", graph={"scope": scope, "context": "all"}, optim={"batch_size": 99})
    examples = labeled_examples([clips[i] for i in labeled], Target())
    context = [replace(u, label=None) for u in clips]
    return one_step(FineTuning(config, DIMS, examples, context, clips, torch.device("cpu")))


@pytest.mark.parametrize("scope", SCOPES)
def test_labels_of_neighbours_reach_no_answer(make_utterance, scope: str) -> None:
    """A model that is given the labels of others answers the same; features of others change the answers."""
    config = config_of("semi_iin", graph={"scope": scope, "context": "all"})
    clips = [make_utterance(f"v$_${i}", (4, 6, 3), 0.5) for i in range(6)]
    torch.manual_seed(0)
    model = build_model(DIMS, config).eval()

    def answer(some: Sequence[Utterance]) -> Tensor:
        (pair,) = training_batches([Example(u) for u in some], replace(config), 1)
        assert pair is not None
        return model(pair[0]).value[pair[0].ids.index("v$_$0")].detach()

    first = answer(clips)
    assert torch.equal(first, answer([replace(u, label=-2.0) for u in clips]))
    assert torch.equal(first, answer([replace(u, label=None) for u in clips]))
    moved = [u if u.id == "v$_$0" else replace(u, features={m: x + 1 for m, x in u.features.items()}) for u in clips]
    assert not torch.equal(first, answer(moved))
    # Nor do they reach the gradients: the labels of context are not asked for.
    relabeled = [u if i < 3 else replace(u, label=-2.0) for i, u in enumerate(clips)]
    assert all(map(torch.equal, step_of(clips, range(3), scope), step_of(relabeled, range(3), scope)))
    again = [u if i else replace(u, label=-2.0) for i, u in enumerate(clips)]
    assert not all(map(torch.equal, step_of(clips, range(3), scope), step_of(again, range(3), scope)))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["supervised", "self_training", "distillation", "sslmm"])
@pytest.mark.parametrize("scope", SCOPES)
def test_no_protocol_sees_the_test_split_of_its_dialogues(
    write_mmsa, tmp_path: Path, protocol: str, scope: str
) -> None:
    """Other features and labels of test utterances of the same dialogues: the weights are equal bytes."""

    def change(content: dict[str, Any]) -> None:
        of_the_same_videos(content)
        for modality in MODALITIES:
            content["test"][modality] = content["test"][modality] * 3 + 1
        content["test"]["regression_labels"] = content["test"]["regression_labels"][::-1].copy()

    for name, how in (("a", of_the_same_videos), ("b", change)):
        config = small_sslmm(
            write_mmsa,
            data={"label_ratio": 0.5, "path": str(write_mmsa(f"{name}.pkl", how))},
            graph={"scope": scope, "context": "all", "context_dropout": 0.2},
            protocol={"name": protocol},
        )
        train(config, "tiny", tmp_path / name)
    one, two = (
        {p.name: p.read_bytes() for p in sorted((tmp_path / run / "seed-1").glob("*.safetensors"))} for run in "ab"
    )
    assert one == two
    rows = [(tmp_path / run / "seed-1" / "predictions.csv").read_text() for run in "ab"]
    assert rows[0] != rows[1]


def test_stages_of_dialogues_are_all_finite(parts, tmp_path: Path) -> None:
    """A protocol that pre-trains, teaches and reconstructs at once."""
    _, trainer, data, _ = parts(tmp_path / "run", "sslmm", "hierarchical", data={"missing": "eta:0.4"})
    trainer.pretrain()
    model = trainer.train_stage("sslmm", [*data.labeled, *map(Example, data.pool)], consistent=True)
    assert np.isfinite(trainer.predict(model, data.pool).value).all()
    assert trainer.finished == ["pretrain", "sslmm"]
