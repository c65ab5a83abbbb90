"""Models of modalities of any names and number: the contract of every model holds for them too."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.graphs import clip, clips, collate, scope_for
from torch import Tensor, nn
from torch_geometric.data import Batch, HeteroData

from gmsa.config import Config, from_dict
from gmsa.config.schema import check_modality
from gmsa.data import Utterance
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch, build_dialogue_graph, build_graph
from gmsa.models import MODELS, Model, Output, build_model, graph_spec
from gmsa.models.build import model_skeleton
from gmsa.models.pretraining import PretrainingModel
from gmsa.training.pretraining_batches import pretraining_batches

SETS = {
    "one": {"eeg": 3},
    "four": {"text": 4, "eeg": 3, "pose": 2, "gaze": 5},
    "eight": {f"m{i}": 1 + i % 3 for i in range(8)},
}
GRAPHS = {
    "plain": {},
    "typed": {"intra": "temporal", "inter": "window"},
    "dialogue": {"scope": "dialogue", "context": 1},
    "hierarchical": {"scope": "hierarchical", "past": 1, "future": 0, "dialogue_node": True},
}
TARGETS = {"intensity": {}, "classes": {"kind": "classes", "classes": ["a", "b", "c"]}}
EACH = [
    *(
        pytest.param(dims, graph, target, marks=[pytest.mark.slow] * ((i + j + k) % 2))
        for i, dims in enumerate(("one", "four"))
        for j, graph in enumerate(GRAPHS)
        for k, target in enumerate(TARGETS)
    ),
    pytest.param("eight", "typed", "classes", marks=pytest.mark.slow),
    pytest.param("eight", "dialogue", "intensity"),
]


def of_each_model() -> list[Any]:
    """Each model with each of these, of which every other one is slow; with the next model it is the others."""
    names, quick = sorted(MODELS), [one.values for one in EACH if not one.marks]
    plain = {(name, one) for i, name in enumerate(names) for k, one in enumerate(quick) if (i + k) % 2 == 0}
    return [
        pytest.param(name, *one.values, marks=() if (name, one.values) in plain else pytest.mark.slow)
        for name in names
        for one in EACH
    ]


def config_of(name: str, dims: dict[str, int], graph: str = "plain", target: str = "intensity", **groups) -> Config:
    model = {"name": name, "channels": 8, "heads": 2, "encoders": {"others": [[3, 2]]}} | groups.pop("model", {})
    data, graphs = {"modalities": list(dims)}, scope_for(name) | GRAPHS[graph]
    return from_dict({"data": data, "graph": graphs, "model": model, "target": TARGETS[target], **groups})


def model_of(config: Config, dims: dict[str, int]) -> Model:
    torch.manual_seed(0)
    model = build_model(dims, config).eval()
    for name, parameter in model.named_parameters():  # biases of edge types start at zero, which would hide them
        if name.endswith("attention.bias"):
            nn.init.normal_(parameter)
    return model


def in_double(batch: GraphBatch) -> GraphBatch:
    return replace(batch, features={m: x.double() for m, x in batch.features.items()})


def predictions(output: Output) -> list[Tensor]:
    """All that a model predicts ``[N, ...]``."""
    parts = [output.value, output.logits, output.gate, output.features, *(output.unimodal or {}).values()]
    return [part for part in parts if part is not None]


@pytest.mark.parametrize(("name", "dims", "graph", "target"), of_each_model())
def test_graphs_one_by_one_and_in_any_order(name: str, dims: str, graph: str, target: str) -> None:
    config = config_of(name, SETS[dims], graph, target, loss={"unimodal_weight": 0.5})
    model, utterances = model_of(config, SETS[dims]).double(), clips(SETS[dims])
    together = predictions(model(in_double(collate(utterances, config))))
    order = [3, 5, 0, 2, 4, 1]
    shuffled = predictions(model(in_double(collate([utterances[i] for i in order], config))))
    for whole, other in zip(together, shuffled, strict=True):
        assert torch.isfinite(whole).all()
        torch.testing.assert_close(other, whole[order], rtol=1e-9, atol=1e-11)
    size = 2 if config.graph.has_dialogues else 1  # dialogues have two utterances
    for start in range(0, len(utterances), size):
        alone = predictions(model(in_double(collate(utterances[start : start + size], config))))
        for whole, one in zip(together, alone, strict=True):
            torch.testing.assert_close(one, whole[start : start + size], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("dims", "graph", "target"), EACH)
@pytest.mark.parametrize(("name", "streams"), [("semi_iin", "both"), ("semi_iin", "global"), ("sslmm", "both")])
def test_routes_agree_in_values_and_gradients(name: str, streams: str, dims: str, graph: str, target: str) -> None:
    results = []
    for route in ("dense", "edge"):
        config = config_of(name, SETS[dims], graph, target, model={"route": route, "streams": streams})
        model = model_of(config, SETS[dims]).double()
        output = model(in_double(collate(clips(SETS[dims]), config)))
        found = predictions(output)
        sum(part.square().sum() for part in found).backward()
        results.append([*found, *(p.grad for p in model.parameters() if p.grad is not None)])
    for dense, edge in zip(*results, strict=True):
        torch.testing.assert_close(dense, edge, rtol=1e-9, atol=1e-11)
    assert len(results[0]) > 10


@pytest.mark.parametrize("dims", SETS)
def test_typed_edges_have_a_bias_for_each_type(dims: str) -> None:
    count = len(SETS[dims])
    for graph in ("typed", "dialogue"):
        model = model_of(config_of("semi_iin", SETS[dims], graph), SETS[dims])
        assert model.streams["intra"].layers[0].attention.bias.shape == (3 * count**2, 2)
    assert model.embedding.node_type.shape == (2 + count, 8)
    assert tuple(model.embedding.encoders) == tuple(SETS[dims])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_one_modality_says_reaches_every_model(name: str) -> None:
    dims = SETS["four"]
    config = config_of(name, dims)
    model, utterance = model_of(config, dims), clip("v$_$0", dims, (3, 4, 2, 5))
    before = model(collate([utterance], config)).value
    for modality in dims:
        features = {**utterance.features, modality: utterance.features[modality] + 1.0}
        assert not torch.allclose(model(collate([replace(utterance, features=features)], config)).value, before)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_data_that_lacks_a_modality_keeps_the_places_of_the_others(name: str) -> None:
    dims = {m: d for m, d in SETS["four"].items() if m != "eeg"}
    config = config_of(name, SETS["four"], "typed")
    model = model_of(config, dims)
    assert model.embedding.node_type.shape == (6, 8)
    assert [*model.embedding.encoders] == ["text", "pose", "gaze"]
    batch = collate(clips(dims), config)
    assert torch.isfinite(model(batch).value).all()
    assert set(batch.node_type.tolist()) <= {0, 1, 2, 4, 5}  # eeg is 3


def test_a_modality_that_no_setting_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'data.modalities' does not name eeg, which the data has; list all there"):
        build_model({"text": 4, "eeg": 3}, from_dict({"model": {"channels": 8, "heads": 2}}))


@pytest.mark.parametrize("graph", ["plain", "dialogue"])
@pytest.mark.parametrize("dims", ["four", "eight"])
@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "hgt"])
def test_they_can_be_pre_trained(name: str, dims: str, graph: str) -> None:
    config = config_of(name, SETS[dims], graph, pretrain={"epochs": 1})
    module = PretrainingModel(model_of(config, SETS[dims]), SETS[dims], config)
    utterances = [u for u in clips(SETS[dims], 12) if any(u.lengths.values())]
    for batch in pretraining_batches(utterances, config, 1, "pretrain", 1):
        losses = module(batch)
        assert batch.targets
        assert all(torch.isfinite(x) for x in losses)
        sum(losses).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


# --- heads of single modalities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("graph", ["plain", "dialogue"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_each_modality_predicts_by_itself(name: str, graph: str, target: str) -> None:
    dims = SETS["four"]
    config = config_of(name, dims, graph, target, loss={"unimodal_weight": 0.5})
    model, utterances = model_of(config, dims), [clip(f"v$_${i}", dims, (3, 4, 2 * i, 5)) for i in range(3)]
    before = model(collate(utterances, config)).unimodal
    assert set(before) == set(dims)
    assert all(x.shape == ((3,) if target == "intensity" else (3, 3)) for x in before.values())
    for modality in dims:
        changed = [replace(u, features={**u.features, modality: u.features[modality] + 1.0}) for u in utterances]
        after = model(collate(changed, config)).unimodal
        for other, row in before.items():
            there = torch.tensor([len(u.features[modality]) > 0 for u in utterances])
            moved = (after[other] - row).abs().reshape(3, -1).amax(1) > 1e-6
            assert torch.equal(moved, there if other == modality else torch.zeros(3, dtype=torch.bool)), (
                modality,
                other,
            )


@pytest.mark.parametrize("name", sorted(MODELS))
def test_heads_of_modalities_learn_with_the_encoders_alone(name: str) -> None:
    dims = SETS["four"]
    config = config_of(name, dims, loss={"unimodal_weight": 0.5})
    model = model_of(config, dims)
    model(collate(clips(dims), config)).unimodal["pose"].square().sum().backward()
    touched = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched <= {"embedding", "unimodal", "missing"}
    grads = {k for k, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {k.split(".")[2] for k in grads if k.startswith(("unimodal.heads", "embedding.encoders"))} == {"pose"}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_without_them_a_model_is_as_before(name: str) -> None:
    dims = SETS["four"]
    plain, more = config_of(name, dims), config_of(name, dims, loss={"unimodal_weight": 0.5})
    ours, theirs = model_of(plain, dims), model_of(more, dims)
    assert model_of(plain, dims)(collate(clips(dims), plain)).unimodal is None
    weights = theirs.state_dict()
    assert all(torch.equal(weights.pop(key), weight) for key, weight in ours.state_dict().items())
    assert weights
    assert all(key.startswith("unimodal.heads.") for key in weights)
    assert set(model_skeleton(dims, more).state_dict()) == set(theirs.state_dict())


# --- names ------------------------------------------------------------------------------------------------------------


def names_that_mean_something() -> list[str]:
    """Names that classes of PyTorch and PyG have for themselves, and that a modality may have."""
    kinds = (nn.ModuleDict, nn.ParameterDict, HeteroData, nn.ModuleDict(), nn.ParameterDict(), HeteroData(), dict)
    found = {name for kind in kinds for name in dir(kind)} | {
        "x",
        "pos",
        "label",
        "steps",
        "ids",
        "present",
        "text_mean",
    }
    return sorted(name for name in found if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) and "_to_" not in name)


def exercise(name: str, model: str, scope: str) -> None:
    """Builds, runs, saves and loads a model of text and a modality of this name, and compares its graphs with PyG's."""
    dims = {"text": 2, name: 3}
    groups = {"reconstruction": {"weight": 1.0}, "loss": {"unimodal_weight": 1.0}}
    config = config_of(model, dims, "dialogue" if scope == "dialogue" else "plain", **groups)
    utterances = [clip(f"v$_${i}", dims, (3, 2 * i)) for i in range(2)]
    built, batch = model_of(config, dims), collate(utterances, config)
    output = built(batch)
    output.value.sum().backward()
    assert built.reconstruct(output, name, torch.tensor([0])).shape == (1, 3)
    assert output.unimodal[name].shape == (2,)
    built.load_state_dict(built.state_dict())
    if model != "semi_iin":
        return
    if scope == "dialogue":
        theirs = Batch.from_data_list([build_dialogue_graph(utterances, config.graph)])
    else:
        theirs = Batch.from_data_list([build_graph(u, config.graph, graph_spec(config).strides) for u in utterances])
    assert theirs[name].num_nodes == len(batch.node_index(name))
    for relation, edges in batch.edge_index_dict().items():
        assert edges.shape == theirs[relation].edge_index.shape, relation


def check_name(name: str, models: list[str]) -> bool:
    """Whether a modality may have the name; if so, it works."""
    try:
        check_modality(name, "data.modalities")
    except ConfigError:
        return False
    for model in models:
        for scope in ("utterance", "dialogue"):
            exercise(name, model, scope)
    return True


@pytest.mark.parametrize("name", ["keys", "type", "x", "train", "values", "T_destination", "text_mean"])
def test_a_name_that_means_something_elsewhere_works(name: str) -> None:
    assert check_name(name, sorted(MODELS))


@pytest.mark.parametrize(
    "name", ["training", "smart_apply", "label", "steps", "ids", "id", "val", "others", "a_to_b", "1st", "a.b"]
)
def test_a_name_that_cannot_work_is_refused(name: str) -> None:
    assert not check_name(name, [])
    with pytest.raises(ConfigError, match="a modality's name begins with a letter"):
        from_dict({"data": {"modalities": ["text", name]}})


@pytest.mark.slow
def test_every_name_works_or_is_refused() -> None:
    names = names_that_mean_something()
    assert len(names) > 100
    refused = [name for name in names if not check_name(name, ["semi_iin", "late_fusion", "hgt"])]
    assert {*refused} - {"smart_apply"} == {"ids", "label", "steps", "training"}  # which is there with transformers


def test_an_utterance_of_one_modality_is_enough() -> None:
    for name in sorted(MODELS):
        config = config_of(name, SETS["one"])
        model = model_of(config, SETS["one"]).train()
        utterances = [Utterance("v$_$0", {"eeg": torch.randn(1, 3)}), Utterance("v$_$1", {"eeg": torch.randn(0, 3)})]
        model(collate(utterances, config)).value.sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
