"""Models in PyG: the same answers and gradients from its batches, the trainer's losses, and its explainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.graphs import clip
from torch import Tensor, nn
from torch_geometric.data import Batch, HeteroData
from torch_geometric.explain import CaptumExplainer, Explainer, GNNExplainer
from torch_geometric.loader import DataLoader

from gmsa.config import Config, from_dict
from gmsa.data import Target, Utterance
from gmsa.errors import ConfigError, DataError
from gmsa.graph import as_dataset, as_hetero, collate, dialogues_of
from gmsa.models import MODELS, Model, Output, as_pyg, build_model, check
from gmsa.rng import seed_for
from gmsa.training.batches import buckets
from gmsa.training.examples import labeled_examples
from gmsa.training.trainer import Trainer

DIMS = {"text": 4, "audio": 2, "vision": 3}
SCOPES = ("utterance", "dialogue", "hierarchical")
LENGTHS = [(2, 5, 1), (1, 0, 2), (0, 0, 0), (3, 1, 0), (2, 4, 2)]
REGRESSION = {"mode": "regression", "task_level": "graph", "return_type": "raw"}


def config_of(name: str, scope: str, **groups: dict[str, Any]) -> Config:
    model = {"name": name, "channels": 8, "heads": 2, "encoders": {"audio": [[3, 2]], "others": [[3, 1]]}}
    graph = {"scope": scope, "speakers": "same_other"} if scope != "utterance" else {"scope": scope}
    return from_dict({"model": model | groups.pop("model", {}), "graph": graph | groups.pop("graph", {}), **groups})


def model_of(config: Config) -> Model:
    """A model in float64 whose every parameter matters: biases of edge types start at zero."""
    torch.manual_seed(0)
    model = build_model(DIMS, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def utterances() -> list[Utterance]:
    """Two dialogues of five utterances, of which one lacks all modalities."""
    found = []
    for i in range(10):
        u = clip(f"v{i // 5}$_${i}", DIMS, LENGTHS[i % 5], speaker="ab"[i % 2], label=float(i % 3))
        found.append(Utterance(u.id, {m: x.double() for m, x in u.features.items()}, u.label, speaker=u.speaker))
    return found


def graphs(model: Model, members: list[Utterance]) -> HeteroData:
    assert model.spec is not None
    groups = dialogues_of(members) if model.spec.graph.has_dialogues else [[i] for i in range(len(members))]
    return Batch.from_data_list([as_hetero([members[i] for i in group], model.spec) for group in groups])


def tensors(output: Output) -> list[Tensor]:
    found = [output.value, output.logits, output.gate, output.features, *(output.alone or ())]
    return [x for x in [*found, *(output.states or {}).values()] if x is not None]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_pyg_gives_the_same_answers_and_gradients(name: str, scope: str) -> None:
    config = config_of(name, scope)
    try:
        check(config)
    except ConfigError:
        pytest.skip("the model does not take this scope")
    model, members = model_of(config), utterances()
    answers = []
    for batch in (collate(members, model.spec), graphs(model, members)):
        model.zero_grad()
        found = tensors(model(batch))
        sum((x.sin() * torch.linspace(0.5, 2, x.numel()).view_as(x)).sum() for x in found).backward()
        answers.append((found, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (ours, our_gradients), (theirs, their_gradients) = answers
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert our_gradients.keys() == their_gradients.keys()
    for key, gradient in our_gradients.items():
        assert torch.equal(gradient, their_gradients[key]), key


def test_features_have_gradients_through_the_encoder() -> None:
    for scope in SCOPES:
        model, members = model_of(config_of("semi_iin", scope)), utterances()[:5]
        data = graphs(model, members)
        data["audio"].x.requires_grad_()
        model(data).value.sum().backward()
        gradient = data["audio"].x.grad
        moved = data.clone()
        moved["audio"].x = (data["audio"].x + 1e-6 * gradient).detach()
        with torch.no_grad():
            change = (model(moved).value.sum() - model(data).value.sum()).item()
        assert change == pytest.approx(1e-6 * gradient.square().sum().item(), rel=1e-3)


def test_a_model_without_a_spec_says_so() -> None:
    model = MODELS["semi_iin"](DIMS, channels=8, heads=2)
    with pytest.raises(ConfigError, match=r"set 'model\.spec' to"):
        model(HeteroData())


# --- a loop of one's own ----------------------------------------------------------------------------------------------


def train(model: nn.Module, batches: DataLoader, target: Target, lr: float) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    losses = []
    model.train()
    for data in batches:
        output = model(data)
        value = F.mse_loss(output.value, target.to_model(data.y))
        classes = F.cross_entropy(output.logits, target.to_class(data.y))
        loss = 0.5 * value + 0.5 * classes
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_loop_with_pygs_loader_has_the_trainers_losses(tmp_path: Path) -> None:
    still = {"dropout": 0.0, "input_dropout": 0.0, "modality_dropout": 0.0}
    optim = {
        "epochs": 1,
        "min_steps": 0,
        "batch_size": 8,
        "lr": 0.01,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "ema": 0.0,
    }
    optim |= {"schedule": "constant", "warmup": 0.0, "name": "adam"}
    config = config_of("semi_iin", "utterance", model=still, optim=optim, loss={"value_weight": 0.5})
    members = [clip(f"v{i}$_$1", DIMS, (2 + i % 3, 1 + i % 5, i % 4), label=float(i % 7) - 3) for i in range(40)]
    target = Target.of(config.target)
    losses: list[float] = []
    trainer = Trainer(config, DIMS, members[:4], 1, tmp_path, torch.device("cpu"))
    finite = trainer._finite_losses
    trainer._finite_losses = lambda *given: losses.extend(finite(*given)) or finite(*given)  # type: ignore[method-assign]
    trainer.train_stage("supervised", labeled_examples(members, target))
    torch.manual_seed(seed_for(1, "supervised", "init"))
    model = build_model(DIMS, config)
    order = [*buckets([u.steps for u in members], 8, 1, "supervised", 1)]
    found = train(model, DataLoader(as_dataset(members, config), batch_sampler=order), target, 0.01)
    assert len(found) == 5
    assert found == pytest.approx(losses, rel=1e-5)
    assert sum(found) / 5 == pytest.approx(trainer.history[0]["loss"], rel=1e-5)
    assert max(found) - min(found) > 0.05  # of several batches, not of one


# --- explanations -----------------------------------------------------------------------------------------------------


def explain(model: Model, data: HeteroData, edge_mask: str | None = "object", epochs: int = 3, **options: Any) -> Any:
    explained = as_pyg(model, data)
    explainer = Explainer(
        explained,
        GNNExplainer(epochs=epochs, **options),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type=edge_mask,
        model_config=REGRESSION,
    )
    torch.manual_seed(0)
    return explainer, explained, explainer(explained.x_dict, explained.edge_index_dict)


@pytest.mark.parametrize(
    ("name", "scope"), [(name, scope) for name in ("semi_iin", "sslmm") for scope in SCOPES] + [("hgt", "utterance")]
)
def test_pygs_explainer_runs(name: str, scope: str) -> None:
    model = model_of(config_of(name, scope)).float()
    members = [clip(f"v$_${i}", DIMS, LENGTHS[i]) for i in range(2)]
    data = graphs(model, members)
    explainer, explained, explanation = explain(model, data, None if name == "hgt" else "object")
    assert torch.equal(explained.eval()(explained.x_dict, explained.edge_index_dict), model(data).value)
    for node_type in DIMS:
        mask = explanation[node_type].node_mask
        assert mask.shape == data[node_type].x.shape
        assert torch.isfinite(mask).all()
        assert mask.any()
    if name == "hgt":
        assert not explained.edge_index_dict
        return
    assert len(explained.edge_index_dict) >= 6
    for relation, mask in explanation.edge_mask_dict.items():
        assert mask.shape == data[relation].edge_index[0].shape
        assert torch.isfinite(mask).all()
    hard = {relation: (mask > mask.median()).float() for relation, mask in explanation.edge_mask_dict.items()}
    masked = explainer.get_masked_prediction(explained.x_dict, explained.edge_index_dict, None, hard)
    lacking = data.clone()  # an edge of weight 0 is as good as none
    for relation, mask in hard.items():
        for key, value in list(lacking[relation].items()):
            lacking[relation][key] = value[..., mask > 0]
    assert torch.allclose(masked, model(lacking).value, atol=1e-6)
    assert not torch.allclose(masked, model(data).value, atol=1e-4)
    assert torch.equal(explained(), model(data).value)  # masks are gone


class OnlyText(nn.Module):
    """Reads one feature of the text."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.spec = model.spec

    def forward(self, data: HeteroData) -> Output:
        value = 3 * data["text"].x[:, 1].sum().view(1)
        return Output(value, value[:, None], None, value[:, None])


def test_an_explanation_finds_what_the_model_reads() -> None:
    """GNNExplainer raises the mask of the one feature that is read, and no input that is not read is asked for."""
    model = model_of(config_of("semi_iin", "utterance")).float()
    assert model.spec is not None
    data = as_hetero(clip("v$_$1", DIMS, (3, 4, 2)), model.spec)
    explained = as_pyg(OnlyText(model), data)  # type: ignore[arg-type]
    assert list(explained.x_dict) == ["text"]
    assert not explained.edge_index_dict
    _, _, explanation = explain(OnlyText(model), data, None, epochs=100)  # type: ignore[arg-type]
    importance = explanation["text"].node_mask.sum(0)
    assert importance.argmax() == 1
    assert not importance[[0, 2, 3]].any()


@pytest.mark.parametrize("edge_mask", [None, "object"], ids=["features", "and edges"])
def test_integrated_gradients_of_captum_sum_to_what_the_inputs_add(edge_mask: str | None) -> None:
    """To the prediction beyond that for features of zero; weights that all edges share cancel in the softmax."""
    pytest.importorskip("captum")
    model = model_of(config_of("semi_iin", "utterance")).float().eval()
    data = graphs(model, [clip("v$_$1", DIMS, (3, 4, 2))])
    explained = as_pyg(model, data)
    explainer = Explainer(
        explained,
        CaptumExplainer("IntegratedGradients", n_steps=20),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type=edge_mask,
        model_config=REGRESSION,
    )
    explanation = explainer(explained.x_dict, explained.edge_index_dict)
    masks, nothing = [*explanation.node_mask_dict.values()], data.clone()
    assert len(masks) == len(DIMS)
    for node_type in explained.x_dict:
        nothing[node_type].x = torch.zeros_like(data[node_type].x)
    if edge_mask:
        edges = torch.cat([*explanation.edge_mask_dict.values()])
        assert edges.abs().max() > 1e-4
        masks.append(edges)
    assert not model.training
    with torch.no_grad():
        added = float(model(data).value - model(nothing).value)
        total = sum(float(mask.sum()) for mask in masks)
    assert abs(added) > 0.01
    assert total == pytest.approx(added, rel=0.02)


def test_edges_that_are_not_read_are_not_asked_for() -> None:
    model = model_of(config_of("semi_iin", "utterance", model={"layers": 1, "streams": "intra"})).float()
    data = graphs(model, [clip("v$_$1", DIMS, (3, 4, 2))])
    explained = as_pyg(model, data)
    assert {stream for _, stream, _ in explained.edge_index_dict} == {"intra"}
    assert {target for _, _, target in explained.edge_index_dict} == {"val"}
    by_class = as_pyg(model, data, output="logits")
    assert {target for _, _, target in by_class.edge_index_dict} == {"cls"}
    assert by_class().shape == (1, 7)


def test_weights_and_outputs_that_a_model_has_not_are_refused() -> None:
    classes: Mapping[str, Any] = {"kind": "classes", "classes": ["a", "b"]}
    model = model_of(config_of("hgt", "utterance", target=dict(classes))).float()
    data = graphs(model, [clip("v$_$1", DIMS, (3, 4, 2), label=1.0)])
    with pytest.raises(ConfigError, match="predicts classes alone"):
        as_pyg(model, data, output="value")
    assert as_pyg(model, data)().shape == (1, 2)
    data["text", "intra", "text"].edge_weight = torch.ones(9)
    with pytest.raises(DataError, match="takes no weights of edges"):
        model(data)
